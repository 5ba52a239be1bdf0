"""Networks asked for by name and input shape, as on the command line."""

from __future__ import annotations

from typing import Any

import torch

from convscope.errors import SettingError
from convscope.graph import Anatomy, anatomy
from convscope.nets import build_net, image_shape, natural_shape


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
    channels, height, width = image_shape(name, shape)
    given = {"channels": channels, "image_size": height, "classes": natural_shape(name)["classes"]} | (options or {})
    if height != width and ":" not in name:
        raise SettingError(f"--input {shape}: {name} takes square images")
    with torch.random.fork_rng([]):
        net = build_net(name, **given)
    return anatomy(net, torch.zeros(2, channels, height, width), name)
