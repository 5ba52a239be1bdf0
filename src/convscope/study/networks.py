"""Networks asked for by name and input shape, as on the command line."""

from __future__ import annotations

from typing import Any

import torch

from convscope.errors import SettingError
from convscope.graph import Anatomy, anatomy
from convscope.nets import build_natural


def anatomy_by_name(name: str, shape: str | None = None, options: dict[str, Any] | None = None) -> Anatomy:
    """The anatomy of a network by name.

    Args:
        name: see convscope.nets.build_net.
        shape: of the images, "3x32x32"; by default what the network was made for, see convscope.nets.natural_input.
        options: of its builder; its classes, too, are by default those that it was made for.
    Raises:
        SettingError: the shape is not CxHxW.

    Example:
        >>> anatomy_by_name("net4").parameters
        4403518
    """
    if "name" in (options or {}):
        raise SettingError("--set name: the network is named by the first argument; leave it out")
    net, made_for = build_natural(name, shape, options)
    return anatomy(net, torch.zeros(2, *made_for.shape), name)
