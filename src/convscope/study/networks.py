"""Networks asked for by name and input shape, as on the command line."""

from __future__ import annotations

import re
from typing import Any

import torch

from convscope.errors import SettingError
from convscope.graph import Anatomy, anatomy
from convscope.nets import build_net, natural_shape


def anatomy_by_name(name: str, shape: str | None = None, options: dict[str, Any] | None = None) -> Anatomy:
    """The anatomy of a network by name.

    Args:
        name: see convscope.nets.build_net.
        shape: of the images, "3x32x32"; by default what the network was made for.
        options: of its builder.
    Raises:
        SettingError: the shape is not CxHxW.

    Example:
        >>> anatomy_by_name("net4").parameters
        4403518
    """
    if "name" in (options or {}):
        raise SettingError("--set name: the network is named by the first argument; leave it out")
    own = natural_shape(name)
    channels, height, width = _parse(shape) if shape else (own["channels"], own["image_size"], own["image_size"])
    given = {"channels": channels, "image_size": height, "classes": own["classes"]} | (options or {})
    if height != width and ":" not in name:
        raise SettingError(f"--input {shape}: {name} takes square images")
    with torch.random.fork_rng([]):
        net = build_net(name, **given)
    return anatomy(net, torch.zeros(2, channels, height, width), name)


def _parse(shape: str) -> tuple[int, int, int]:
    found = re.fullmatch(r"(\d+)[x×,](\d+)[x×,](\d+)", shape.strip())
    if found is None or "0" in found.groups():
        raise SettingError(f"--input {shape}: expected channels, height and width, such as 3x32x32")
    channels, height, width = (int(n) for n in found.groups())
    return channels, height, width
