"""The networks that can be named: those of the catalogue and of other libraries that are installed; these are not built."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import torch

from convscope.errors import BrokenPackageError, MissingPackageError, SettingError
from convscope.nets.build import build_net
from convscope.nets.catalogue import CATALOGUE
from convscope.nets.foreign import library, torchvision_input

_SUGGESTED = 3


@dataclass(frozen=True)
class ListedNet:
    """A network by its name.

    Attributes:
        name: as it is written in a spec.
        input: (C, H, W) of the images that it was made for.
        parameters: how many, with the classes that it was made for; None where only building it would tell.
        weights: names of its pretrained weights; of timm's each is written behind the name and a point.
        about: in a line.
    """

    name: str
    input: tuple[int, int, int]
    parameters: int | None = None
    weights: tuple[str, ...] = ()
    about: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class ListedZoo:
    """A library of networks; `problem` says in a line why there are none where it cannot be imported."""

    name: str
    nets: tuple[ListedNet, ...] = ()
    problem: str = ""

    @property
    def n_pretrained(self) -> int:
        return sum(bool(net.weights) for net in self.nets)


def listed_catalogue() -> list[ListedNet]:
    """The networks of the catalogue."""
    nets = []
    for name, entry in CATALOGUE.items():
        try:
            with torch.device("meta"):
                count = sum(parameter.numel() for parameter in build_net(name).parameters())
        except (MissingPackageError, BrokenPackageError):  # which the line about it names
            count = None
        weights = ("ImageNet",) if entry.input.normalize else ()
        nets.append(ListedNet(name, entry.input.shape, count, weights, entry.about))
    return nets


def listed_zoos() -> list[ListedZoo]:
    """The networks of timm and torchvision, from what these libraries say of them."""
    return [_zoo("timm", _of_timm), _zoo("torchvision", _of_torchvision)]


def _zoo(name: str, list_nets: Any) -> ListedZoo:
    try:
        return ListedZoo(name, tuple(list_nets(library(name, f"{name}:NAME"))))
    except (MissingPackageError, BrokenPackageError) as error:
        return ListedZoo(name, problem=str(error))


def _of_timm(timm: Any) -> Iterator[ListedNet]:
    tags: dict[str, list[str]] = {}
    for full_name in timm.list_models(pretrained=True):
        architecture, _, tag = full_name.partition(".")
        tags.setdefault(architecture, []).append(tag)
    for name in timm.list_models():
        shape = tuple(timm.models.get_pretrained_cfg(name).input_size)
        yield ListedNet(f"timm:{name}", shape, weights=tuple(tags.get(name, ())))


def _of_torchvision(torchvision: Any) -> Iterator[ListedNet]:
    models = torchvision.models
    for name in models.list_models(module=models):
        weights = getattr(models.get_model_weights(name), "DEFAULT", None)
        shape = torchvision_input(name).shape
        if weights is None:
            yield ListedNet(f"torchvision:{name}", shape)
        else:
            yield ListedNet(f"torchvision:{name}", shape, weights.meta.get("num_params"), ("ImageNet",))


def searched(text: str, own: list[ListedNet], zoos: list[ListedZoo]) -> list[ListedNet]:
    """Those whose names, with or without their library's, match.

    Args:
        text: a part of the name, or a pattern with `*`, `?` or `[`; case does not matter.
        own, zoos: to be looked through.
    Raises:
        SettingError: there is none; names alike are suggested.
    """
    nets = [*own, *(net for zoo in zoos for net in zoo.nets)]
    query = text.lower()
    pattern = query if set(text) & set("*?[") else f"*{query}*"
    if matches := [net for net in nets if any(fnmatchcase(name.lower(), pattern) for name in _names(net))]:
        return matches
    named = {name: net.name for net in reversed(nets) for name in _names(net)}
    close = dict.fromkeys(named[name] for name in get_close_matches(query, named, n=_SUGGESTED))
    hint = f"did you mean {' or '.join(close)}?" if close else "convscope nets lists what there is"
    absent = [zoo.name for zoo in zoos if zoo.problem]
    unseen = f"; {' and '.join(absent)} cannot be looked through (convscope nets says why)" if absent else ""
    raise SettingError(f"--search {text}: no network has such a name; {hint}{unseen}")


def _names(net: ListedNet) -> tuple[str, str]:
    return net.name, net.name.rpartition(":")[2]
