"""A new head on a network that others built: the module that it replaces is found by one blank image.

The head is a plain network's text of f, D, B and G words ("f256b D0.5"; "" is the output layer alone) and goes by the name of
the module whose place it takes.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from convscope.errors import NetworkError, SettingError, UnknownNameError
from convscope.nets.text import Word, parse_layers

_OF_A_HEAD = "fDBG"


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
    words = _words(text)
    name, given = _place(net, replaces, torch.zeros(1, *input_shape))
    if given.ndim not in (2, 4):
        shape = "×".join(str(n) for n in given.shape)
        raise NetworkError(
            f"net.replaces: what reaches {name!r} has shape {shape}; a head takes maps (N, C, H, W) or vectors (N, U): "
            "name another module"
        )
    head = _head(words, tuple(given.shape[1:]), classes)
    above, _, last = name.rpartition(".")
    setattr(net.get_submodule(above), last, head)
    return head


def _words(text: str) -> tuple[Word, ...]:
    words = parse_layers(text) if text.strip() else ()
    for word in words:
        if word.letter not in _OF_A_HEAD:
            raise SettingError(f"net.head: {word.text!r} does not go into a head; it takes f256, D0.5, B and G")
    return words


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
    module, given, made = calls[-1]
    if replaces is None and not _is_output(made, outputs):
        linear = ", ".join(dict.fromkeys(names[one] for one, _, _ in calls))
        raise NetworkError(
            f"net.head: the last nn.Linear, {names[module]!r}, does not give the network's output; "
            f"name the module that the head replaces: net.replaces (there is {linear})"
        )
    if sum(one is module for one, _, _ in calls) > 1:
        raise NetworkError(f"net.replaces: {names[module]!r} computes more than once for an image; name another module")
    if not (given and isinstance(given[0], Tensor)):
        raise NetworkError(f"net.replaces: {names[module]!r} does not take one tensor; name another module")
    return names[module], given[0]


def _run(net: nn.Module, watched: list[nn.Module], image: Tensor) -> tuple[list[tuple[nn.Module, Any, Any]], Any]:
    """The calls of some modules, (module, arguments, result) in their order, and the network's output."""
    calls: list[tuple[nn.Module, Any, Any]] = []
    hooks = [one.register_forward_hook(lambda *call: calls.append(call)) for one in watched]
    try:
        with evaluating(net), torch.no_grad():
            outputs = net(image)
    except Exception as error:  # a forward may fail in any way
        shape = "×".join(str(n) for n in image.shape[1:])
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise NetworkError(f"the network cannot take images of {shape}: {reason}") from None
    finally:
        for hook in hooks:
            hook.remove()
    return calls, outputs


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; each module's own mode again afterwards."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _is_output(made: Any, outputs: Any) -> bool:
    same = isinstance(made, Tensor) and isinstance(outputs, Tensor) and made.shape == outputs.shape
    return same and torch.equal(made, outputs)


def _head(words: tuple[Word, ...], shape: tuple[int, ...], classes: int) -> nn.Module:
    """An nn.Sequential with names as in a plain network; the output layer alone where it stands alone."""
    layers = _Layers(shape)
    for word in words:
        layers.word(word)
    layers.dense(classes)
    return layers.modules["fc1"] if len(layers.modules) == 1 else nn.Sequential(layers.modules)


class _Layers:
    """The head's layers so far, and the shape of what comes out of them: (C, H, W) or (U,)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.modules: OrderedDict[str, nn.Module] = OrderedDict()
        self._count: Counter[str] = Counter()

    def add(self, kind: str, module: nn.Module) -> None:
        self._count[kind] += 1
        self.modules[f"{kind}{self._count[kind]}"] = module

    def dense(self, units: int) -> None:
        if len(self.shape) == 3:
            self.modules["flatten"] = nn.Flatten()
            self.shape = (torch.Size(self.shape).numel(),)
        self.add("fc", nn.Linear(self.shape[0], units))
        self.shape = (units,)

    def normalize(self) -> None:
        kind = nn.BatchNorm2d if len(self.shape) == 3 else nn.BatchNorm1d
        self.add("bn", kind(self.shape[0]))

    def word(self, word: Word) -> None:
        if word.letter == "D":
            self.add("drop", nn.Dropout(word.number or 0.0))
        elif word.letter == "B":
            self.normalize()
        elif word.letter == "G":
            self._pool()
        else:
            self.dense(int(word.number or 0))
            if "b" in word.flags:
                self.normalize()
            if "l" not in word.flags:
                self.add("relu", nn.ReLU())

    def _pool(self) -> None:
        if len(self.shape) != 3:
            raise SettingError("net.head: 'G' pools maps, and vectors reach this head; leave it out")
        self.add("pool", nn.AdaptiveAvgPool2d(1))
        self.shape = (self.shape[0], 1, 1)
