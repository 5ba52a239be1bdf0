"""Networks that others wrote: timm's, torchvision's, and a user's own callable; each with the input that it was made for."""

from __future__ import annotations

import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from torch import nn

from convscope.base.optional import import_optional
from convscope.errors import BrokenPackageError, MissingPackageError, NetworkError, SettingError, UnknownNameError
from convscope.nets.catalogue import CATALOGUE
from convscope.nets.natural import SHAPE_OPTIONS, NaturalInput, from_pretrained_cfg

_IMAGENET = NaturalInput(1000, 3, 224, 224, ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def from_timm(name: str, options: dict[str, Any], head: str | None) -> nn.Module:
    """timm's network; of images of another size than its own, where the size is built into it."""
    config = _timm_config(name)
    names = {"classes": "num_classes", "channels": "in_chans"}
    kwargs = {names.get(key, key): value for key, value in options.items() if key != "image_size"}
    size = options.get("image_size", config["input_size"][1])
    if config["fixed_input_size"] and size != config["input_size"][1]:
        kwargs["img_size"] = size
    return library("timm", f"the network timm:{name}").create_model(name, **kwargs)


def timm_input(name: str) -> NaturalInput:
    """What timm's weights of that name were trained on; without a tag those that timm takes by default."""
    own = from_pretrained_cfg(_timm_config(name), 1000)
    subset = import_module("timm.data").infer_imagenet_subset(_timm_config(name))
    return replace(own, class_names=torchvision_input("resnet18").class_names) if subset == "imagenet-1k" else own


def _timm_config(name: str) -> dict[str, Any]:
    """timm's record of a network, `name` or `name.tag`."""
    timm = library("timm", f"the network timm:{name}")
    if not timm.is_model(name):
        raise UnknownNameError("network", name, timm.list_models(f"*{name[:5]}*"), "in timm")
    architecture, _, tag = name.partition(".")
    try:
        return timm.models.get_pretrained_cfg(name, allow_unregistered=False).to_dict()
    except RuntimeError:
        tags = timm.models.list_pretrained(f"{architecture}.*")
        raise UnknownNameError(
            "weights", tag, (one.partition(".")[2] for one in tags), f"of timm's {architecture}"
        ) from None


def from_torchvision(name: str, options: dict[str, Any], head: str | None) -> nn.Module:
    """torchvision's network; trained weights go with the classes of theirs alone, or under a new head."""
    models = _torchvision_models(name)
    kwargs = {
        "num_classes" if key == "classes" else key: value for key, value in options.items() if key != "image_size"
    }
    if kwargs.pop("channels", 3) != 3:
        raise SettingError(f"net.channels: torchvision's {name} takes images of 3 channels")
    pretrained = kwargs.pop("pretrained", False)
    if head is not None or (pretrained and kwargs.get("num_classes") == torchvision_input(name).classes):
        kwargs.pop("num_classes", None)
    if pretrained and "num_classes" in kwargs:
        raise SettingError(
            f"net.pretrained: the weights of torchvision's {name} end in {torchvision_input(name).classes:,} classes; "
            "give net.head too, '' for an output layer alone"
        )
    with warnings.catch_warnings():  # of changes in releases to come, which nobody here can act on
        warnings.simplefilter("ignore", FutureWarning)
        return models.get_model(name, weights="DEFAULT" if pretrained else None, **kwargs)


def torchvision_input(name: str) -> NaturalInput:
    """What torchvision's weights of that name were trained on; ImageNet's where there are none."""
    weights: Any = getattr(_torchvision_models(name).get_model_weights(name), "DEFAULT", None)
    transforms: Any = weights.transforms() if weights is not None else None
    if not hasattr(transforms, "crop_size"):  # no weights, or of no classifier of images
        return _IMAGENET
    height, width = (*transforms.crop_size, *transforms.crop_size)[:2]
    names = tuple(weights.meta["categories"])
    return NaturalInput(len(names), 3, height, width, (tuple(transforms.mean), tuple(transforms.std)), names)


def _torchvision_models(name: str) -> Any:
    models = library("torchvision", f"the network torchvision:{name}").models
    if name not in models.list_models():
        raise UnknownNameError("network", name, models.list_models(), "in torchvision")
    return models


def elsewhere(name: str) -> str:
    """Of a name without a prefix, in words: which library has a network of that name, as far as they are installed."""
    if not re.fullmatch(r"[A-Za-z_][\w.]*", name):
        return ""
    named, missing = [], []
    for package, find in (("timm", _timm_config), ("torchvision", _torchvision_models)):
        try:
            find(name)
            named.append(f"{package}:{name}")
        except UnknownNameError:
            continue
        except (MissingPackageError, BrokenPackageError):
            missing.append(f"{package}:{name}")
    if named:
        return f", but {' and '.join(named)} {'is' if len(named) == 1 else 'are'} there"
    unlike = not get_close_matches(name, CATALOGUE)  # no slip in a name of our own
    return f" (another library's has a prefix: {' or '.join(missing)})" if missing and unlike else ""


def library(package: str, purpose: str) -> Any:
    """timm or torchvision, imported; errors as of import_optional."""
    return import_optional(package, purpose, "zoo")


def from_callable(module: str, attribute: str, options: dict[str, Any]) -> nn.Module:
    """The user's own builder; of classes, channels and image_size it is given those that it takes."""
    builder = _imported(module, attribute)
    parameters = inspect.signature(builder).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    kwargs = {
        key: value for key, value in options.items() if takes_all or key in parameters or key not in SHAPE_OPTIONS
    }
    try:
        inspect.signature(builder).bind(**kwargs)
    except TypeError as error:
        raise SettingError(f"net: {module}:{attribute} does not take these options: {error}") from None
    try:
        net = builder(**kwargs)
    except SystemExit as error:
        raise NetworkError(f"{module}:{attribute} ends the program ({error}) in place of building a network") from None
    if not isinstance(net, nn.Module):
        raise NetworkError(f"{module}:{attribute} gave a {type(net).__name__}; expected a torch.nn.Module")
    return net


def named_options(module: str, attribute: str) -> dict[str, Any]:
    """Those of `classes`, `channels` and `image_size` that a callable takes by name, each with its default or None."""
    parameters = inspect.signature(_imported(module, attribute)).parameters
    own = {key: parameters[key].default for key in SHAPE_OPTIONS if key in parameters}
    return {key: value if isinstance(value, int) and value > 0 else None for key, value in own.items()}


def carried_input(net: nn.Module, classes: int) -> NaturalInput | None:
    """What a network that a callable built says itself of its input: timm's record; of torchvision's classifiers ImageNet's."""
    if getattr(net, "pretrained_cfg", None):
        return from_pretrained_cfg(net.pretrained_cfg, classes)
    return _IMAGENET if type(net).__module__.startswith("torchvision.models.") else None


def _imported(module: str, attribute: str) -> Callable[..., Any]:
    """What `module:attribute` names; modules in the working folder are found too, as by `python -m`."""
    if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", module):
        raise NetworkError(f"{module}:{attribute} names no module; expected package.module:callable")
    if not attribute:
        raise NetworkError(
            f"{module}: names no network; expected package.module:callable, timm:name or torchvision:name"
        )
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())
    try:
        imported = import_module(module)
    except (Exception, SystemExit) as error:  # a module of the user's may raise anything, or exit, while it is imported
        reason = f"{type(error).__name__}: {error}" if not isinstance(error, ImportError) else str(error)
        raise NetworkError(f"{module}:{attribute} cannot be imported: {reason}; is its folder on PYTHONPATH?") from None
    if not callable(getattr(imported, attribute, None)):
        callables = [key for key, value in vars(imported).items() if callable(value) and key[0] != "_"]
        raise UnknownNameError("callable", attribute, callables, f"in module {module}")
    return getattr(imported, attribute)
