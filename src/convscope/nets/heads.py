"""A new head on a network that others built: the module that it replaces is found by one blank image.

The head is a plain network's text of f, D, B and G words ("f256b D0.5"; "" is the output layer alone) and goes by the name of
the module whose place it takes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from convscope.base.words import shape_text
from convscope.errors import NetworkError, SettingError, UnknownNameError, first_line
from convscope.nets.plain import Stack
from convscope.nets.text import parse_layers

_OF_A_HEAD = "fDBG"
HEAD_NAME = "convscope_head"
"""The attribute of a network in which the name of its new head stands."""


def put_head(
    net: nn.Module, text: str, *, classes: int, input_shape: tuple[int, int, int], replaces: str | None = None
) -> nn.Module:
    """The new head, which has taken the place of a module of the network.

    Args:
        net: gives logits for images; changed in place.
        text: f, D, B and G words; the output layer is added. Maps are flattened before the first f, or pooled by G.
        classes: units of the output layer.
        input_shape: (C, H, W) of an image.
        replaces: the name of the module that goes; by default the last nn.Linear that computes.
    Raises:
        SettingError: a word that a head cannot have.
        UnknownNameError: there is no such module.
        NetworkError: no nn.Linear, or not the one that gives the output; or what reaches the module is no map and no vector.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1000))
        >>> put_head(net, "f16", classes=2, input_shape=(3, 32, 32))
        Sequential(
          (fc1): Linear(in_features=8, out_features=16, bias=True)
          (relu1): ReLU()
          (fc2): Linear(in_features=16, out_features=2, bias=True)
        )
    """
    words = parse_layers(text) if text.strip() else ()
    if wrong := next((word.text for word in words if word.letter not in _OF_A_HEAD), None):
        raise SettingError(f"net.head: {wrong!r} does not go into a head; it takes f256, D0.5, B and G")
    name, features = _place(net, replaces, torch.zeros(1, *input_shape))
    if features.ndim not in (2, 4):
        shape = shape_text(features.shape)
        raise NetworkError(
            f"net.replaces: what reaches {name!r} has shape {shape}; a head takes maps (N, C, H, W) or vectors (N, U): "
            "name another module"
        )
    stack = Stack(features.shape[1], features.shape[2] if features.ndim == 4 else None, features[0, 0].numel())
    if stack.side is None and any(word.letter == "G" for word in words):
        raise SettingError("net.head: 'G' pools maps, and vectors reach this head; leave it out")
    for word in words:
        stack.add_word(word)
    layers = stack.finished(classes)  # with names as in a plain network
    head = layers[0] if len(layers) == 1 else layers
    parent, _, last = name.rpartition(".")
    setattr(net.get_submodule(parent), last, head)
    setattr(net, HEAD_NAME, name)
    return head


def _place(net: nn.Module, replaces: str | None, image: Tensor) -> tuple[str, Tensor]:
    """The name of the module to be replaced, and what reaches it."""
    names = {module: name for name, module in net.named_modules() if name}
    if replaces is not None and replaces not in names.values():
        raise UnknownNameError("net.replaces: module", replaces, names.values(), "in this network")
    chosen = [m for m, name in names.items() if (name == replaces if replaces else isinstance(m, nn.Linear))]
    if not chosen:
        raise NetworkError("net.head: this network has no nn.Linear to take the place of; name a module: net.replaces")
    calls, outputs = _run(net, chosen, image)
    if not calls:
        raise NetworkError(f"net.replaces: {names[chosen[-1]]!r} computes nothing for an image; name another module")
    module, arguments, result = calls[-1]
    is_output = isinstance(result, Tensor) and isinstance(outputs, Tensor) and torch.equal(result, outputs)
    if replaces is None and not is_output:
        linear = ", ".join(dict.fromkeys(names[one] for one, _, _ in calls))
        raise NetworkError(
            f"net.head: the last nn.Linear, {names[module]!r}, does not give the network's output; "
            f"name the module that the head replaces: net.replaces (there is {linear})"
        )
    if sum(one is module for one, _, _ in calls) > 1:
        raise NetworkError(f"net.replaces: {names[module]!r} computes more than once for an image; name another module")
    if not (arguments and isinstance(arguments[0], Tensor)):
        raise NetworkError(f"net.replaces: {names[module]!r} does not take one tensor; name another module")
    return names[module], arguments[0]


def _run(net: nn.Module, watched: list[nn.Module], image: Tensor) -> tuple[list[tuple[nn.Module, Any, Any]], Any]:
    """The calls of some modules, (module, arguments, result) in their order, and the network's output."""
    calls: list[tuple[nn.Module, Any, Any]] = []
    hooks = [one.register_forward_hook(lambda *call: calls.append(call)) for one in watched]
    try:
        return calls, outputs_of(net, image)
    finally:
        for hook in hooks:
            hook.remove()


def outputs_of(net: nn.Module, images: Tensor) -> Any:
    """What a network gives for normalised images in evaluation mode; each module has its own mode again afterwards.

    Raises:
        NetworkError: it fails on such images.
    """
    modes = [(module, module.training) for module in net.modules()]
    try:
        with torch.no_grad():
            return net.eval()(images)
    except Exception as error:  # a forward may fail in any way
        shape = shape_text(images.shape[1:])
        raise NetworkError(f"the network cannot take images of {shape}: {first_line(error)}") from None
    finally:
        for module, mode in modes:
            module.training = mode
