"""From a name and options to an nn.Module: the catalogue, a plain text, timm, torchvision, or a user's own callable."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, validate_call
from torch import nn

from convscope.errors import FailedError, MissingPackageError, NetworkError, SettingError, UnknownNameError
from convscope.nets.catalogue import CATALOGUE
from convscope.nets.heads import put_head
from convscope.nets.plain import plain_net

Init = Literal["default", "xavier", "he"]
SHAPE_OPTIONS = ("classes", "channels", "image_size")


class NetSpec(BaseModel):
    """Which network: its name, how its weights begin, and the options of its builder beside them.

    `name` is a name of the catalogue, a plain network's text ("c32 M f128"), `timm:NAME`, `torchvision:NAME`,
    or `package.module:callable`.

    `head` puts a new head, a plain network's text of f, D, B and G words ("f256 D0.5"; "" is an output layer alone), in the
    place of the module that `replaces` names; by default of the last dense layer.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    init: Init = "default"
    head: str | None = None
    replaces: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The builder's own options, all beside name, init, head and replaces."""
        return dict(self.model_extra or {})


def build_net(
    name: str, *, init: Init = "default", head: str | None = None, replaces: str | None = None, **options: Any
) -> nn.Module:
    """A plain nn.Module that takes normalised images (N, C, H, W) and gives logits (N, classes).

    The weights are drawn from PyTorch's global random state: seed it before, for the same weights again.
    The module carries the NetSpec that it was built from, as `net.convscope_spec`.

    Args:
        name: see NetSpec.
        init: "default" as PyTorch does; "xavier" (Glorot & Bengio 2010, uniform) or "he" (He et al. 2015,
            normal, fan in), both with biases 0. Of a pre-trained network only the new head is drawn.
        head, replaces: see NetSpec and convscope.nets.put_head.
        options: of the builder; `classes`, `channels`, `image_size` go with every network. `pretrained=True` asks timm,
            torchvision, and callables that take it, for trained weights.
    Raises:
        UnknownNameError: no such network, module or callable.
        SettingError: an option that the builder does not have, or a value that it cannot take.
        NetworkError: the network does not fit the image size.
        MissingPackageError: timm or torchvision is asked for and not installed.
        FailedError: trained weights cannot be fetched.

    Example:
        >>> net = build_net("net1", width=6, kernel=5)
    """
    spec = _checked(name, _spec, {"name": name, "init": init, "head": head, "replaces": replaces, **options})
    _check_head(init, head, replaces, bool(options.get("pretrained")))
    prefix, colon, rest = name.partition(":")
    if colon:
        build = _FOREIGN.get(prefix)
        with _fetching(name, bool(options.get("pretrained"))):
            net = build(rest, options, head) if build else _from_callable(prefix, rest, options)
    elif name in CATALOGUE:
        net = _from_catalogue(name, options)
    elif name[:1] in set("cfMAGBD") and any(letter.isdigit() or letter == " " for letter in name):
        net = _checked(name, plain_net, {"layers": name, **options})
    else:
        raise UnknownNameError("network", name, CATALOGUE, "in the catalogue")
    new = net if head is None else _with_head(net, spec, natural_shape(name) | options)
    _initialise(new if options.get("pretrained") else net, init)
    net.convscope_spec = spec
    return net


def _spec(name: str, init: Init, head: str | None, replaces: str | None, **options: Any) -> NetSpec:
    return NetSpec(name=name, init=init, head=head, replaces=replaces, **options)


def _check_head(init: Init, head: str | None, replaces: str | None, pretrained: bool) -> None:
    if replaces is not None and head is None:
        raise SettingError(
            "net.replaces: names what a new head replaces; give net.head too, such as 'f256 D0.5', or ''"
        )
    if init != "default" and pretrained and head is None:
        raise SettingError(f"net.init: {init!r} would overwrite the trained weights; leave it out, or give net.head")


def _with_head(net: nn.Module, spec: NetSpec, options: dict[str, Any]) -> nn.Module:
    """The new head, which is in the network."""
    shape = (options["channels"], options["image_size"], options["image_size"])
    try:
        return put_head(net, spec.head or "", classes=options["classes"], input_shape=shape, replaces=spec.replaces)
    except NetworkError as error:
        raise NetworkError(f"{spec.name}: {error}") from None


def natural_shape(name: str) -> dict[str, int]:
    """The classes, channels and image size that a network of the catalogue was made for (CIFAR-10's for all others)."""
    entry = CATALOGUE.get(name, CATALOGUE["lean-cifar"])
    return {key: getattr(entry, key) for key in SHAPE_OPTIONS}


def image_shape(name: str, given: str | None = None) -> tuple[int, int, int]:
    """Channels, height and width of a network's images.

    Args:
        name: of the network.
        given: "3x32x32"; by default what the network was made for.
    Raises:
        SettingError: the text is no shape.
    """
    if given is None:
        own = natural_shape(name)
        return own["channels"], own["image_size"], own["image_size"]
    found = re.fullmatch(r"(\d+)[x×,](\d+)[x×,](\d+)", given.strip())
    if found is None or 0 in map(int, found.groups()):
        raise SettingError(f"--input {given}: expected channels, height and width, such as 3x32x32")
    channels, height, width = map(int, found.groups())
    return channels, height, width


def _from_catalogue(name: str, options: dict[str, Any]) -> nn.Module:
    own = {key: value for key, value in options.items() if key not in SHAPE_OPTIONS}
    shape = natural_shape(name) | {key: options[key] for key in SHAPE_OPTIONS if key in options}
    plan = _checked(name, CATALOGUE[name].plan, own)
    return _checked(name, partial(plain_net, plan) if isinstance(plan, str) else plan, shape)


def _checked(name: str, function: Callable[..., Any], options: dict[str, Any]) -> Any:
    """function(**options), with a wrong option named in one line."""
    try:
        return validate_call(function)(**options)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
            own = inspect.signature(CATALOGUE[name].plan).parameters if name in CATALOGUE else ()
            known = [*own, *SHAPE_OPTIONS]
            raise UnknownNameError("option", key, known, f"one of {name}'s") from None
        raise SettingError(f"net.{key}: {first['input']!r} for {name}: {first['msg']}") from None
    except NetworkError as error:
        raise NetworkError(f"{name}: {error}") from None


@contextmanager
def _fetching(name: str, pretrained: bool) -> Iterator[None]:
    """Turns what a library says when weights cannot be fetched into one line."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        origin = _ORIGINS.get(name.partition(":")[0], "where its builder looks for them")
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FailedError(
            f"{name}: its trained weights cannot be had from {origin} ({reason}); "
            "connect to the network or put them into its cache, or begin from random ones with net.pretrained=false"
        ) from None


def _from_timm(name: str, options: dict[str, Any], head: str | None) -> nn.Module:
    timm = _library("timm", f"the network timm:{name}")
    names = {"classes": "num_classes", "channels": "in_chans"}
    taken = {names.get(key, key): value for key, value in options.items() if key != "image_size"}
    if name not in timm.list_models():
        raise UnknownNameError("network", name, timm.list_models(f"*{name[:5]}*"), "in timm")
    return timm.create_model(name, **taken)


def _from_torchvision(name: str, options: dict[str, Any], head: str | None) -> nn.Module:
    models = _library("torchvision", f"the network torchvision:{name}").models
    taken = {"num_classes" if key == "classes" else key: value for key, value in options.items() if key != "image_size"}
    if taken.pop("channels", 3) != 3:
        raise SettingError(f"net.channels: torchvision's {name} takes images of 3 channels")
    if name not in models.list_models():
        raise UnknownNameError("network", name, models.list_models(), "in torchvision")
    if head is not None:
        taken.pop("num_classes", None)  # its weights are for 1,000 classes, and go with no other number
    if taken.pop("pretrained", False):
        if head is None:
            raise SettingError(
                f"net.pretrained: the weights of torchvision's {name} end in 1,000 classes; "
                "give net.head too, '' for an output layer alone"
            )
        taken["weights"] = "DEFAULT"
    return models.get_model(name, **taken)


_FOREIGN = {"timm": _from_timm, "torchvision": _from_torchvision}
_ORIGINS = {"timm": "the Hugging Face Hub", "torchvision": "download.pytorch.org"}


def _library(package: str, purpose: str) -> Any:
    try:
        return import_module(package)
    except ImportError:
        raise MissingPackageError(package, purpose, "zoo") from None


def _from_callable(module: str, attribute: str, options: dict[str, Any]) -> nn.Module:
    """The user's own builder; of classes, channels and image_size it is given those that it takes."""
    builder = _imported(module, attribute)
    parameters = inspect.signature(builder).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    given = {key: value for key, value in options.items() if takes_all or key in parameters or key not in SHAPE_OPTIONS}
    try:
        inspect.signature(builder).bind(**given)
    except TypeError as error:
        raise SettingError(f"net: {module}:{attribute} does not take these options: {error}") from None
    net = builder(**given)
    if not isinstance(net, nn.Module):
        raise NetworkError(f"{module}:{attribute} gave a {type(net).__name__}; expected a torch.nn.Module")
    return net


def _imported(module: str, attribute: str) -> Callable[..., Any]:
    """What `module:attribute` names; modules in the working folder are found too, as by `python -m`."""
    if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", module):
        raise NetworkError(f"{module}:{attribute} names no module; expected package.module:callable")
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())
    try:
        found = import_module(module)
    except Exception as error:  # a module of the user's may raise anything while it is imported
        reason = f"{type(error).__name__}: {error}" if not isinstance(error, ImportError) else str(error)
        raise NetworkError(f"{module}:{attribute} cannot be imported: {reason}; is its folder on PYTHONPATH?") from None
    if not callable(getattr(found, attribute, None)):
        known = [key for key, value in vars(found).items() if callable(value) and key[0] != "_"]
        raise UnknownNameError("callable", attribute, known, f"in module {module}")
    return getattr(found, attribute)


@torch.no_grad()
def _initialise(net: nn.Module, init: Init) -> None:
    if init == "default":
        return
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if init == "xavier":
                nn.init.xavier_uniform_(module.weight)
            elif init == "he":
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
