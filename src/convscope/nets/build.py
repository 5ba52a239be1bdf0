"""From a name and options to an nn.Module: the catalogue, a plain text, timm, torchvision, or a user's own callable."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from pydantic import ConfigDict, ValidationError, validate_call
from torch import nn

from convscope.base.settings import Settings
from convscope.errors import FailedError, NetworkError, SettingError, UnknownNameError, first_line, shortened
from convscope.nets import zoo
from convscope.nets.catalogue import CATALOGUE
from convscope.nets.foreign import (
    carried_input,
    elsewhere,
    from_callable,
    from_timm,
    from_torchvision,
    named_options,
    timm_input,
    torchvision_input,
)
from convscope.nets.heads import put_head
from convscope.nets.natural import SHAPE_OPTIONS, NaturalInput
from convscope.nets.plain import plain_net
from convscope.nets.text import is_text

Init = Literal["default", "xavier", "he", "dirac"]


class NetSpec(Settings):
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
            normal, fan in), both with biases 0; "dirac": a convolution's first filters pass its inputs on, one each, and the
            others and all else are as by default (nn.init.dirac_). Of a pre-trained network only the new head is drawn.
        head, replaces: see NetSpec and convscope.nets.put_head.
        options: of the builder; `classes`, `channels`, `image_size` go with every network. `pretrained=True` asks timm,
            torchvision, and callables that take it, for trained weights.
    Raises:
        UnknownNameError: no such network, module or callable.
        SettingError: an option that the builder does not have, or a value that it cannot take.
        NetworkError: the network does not fit the image size.
        MissingPackageError, BrokenPackageError: timm or torchvision is asked for and not installed, or its import fails.
        FailedError: trained weights cannot be fetched.

    Example:
        >>> net = build_net("net1", width=6, kernel=5)
    """
    check_name(name)
    with _errors_of(name):
        spec = NetSpec.model_validate({"name": name, "init": init, "head": head, "replaces": replaces, **options})
    pretrained = bool(options.get("pretrained"))
    if replaces is not None and head is None:
        raise SettingError(
            "net.replaces: names what a new head replaces; give net.head too, such as 'f256 D0.5', or ''"
        )
    if init != "default" and pretrained and head is None:
        raise SettingError(f"net.init: {init!r} would overwrite the trained weights; leave it out, or give net.head")
    prefix, colon, rest = name.partition(":")
    if colon:
        build = _FOREIGN.get(prefix)
        with _fetching(name, pretrained):
            net = build(rest, options, head) if build else from_callable(prefix, rest, options)
    else:
        with _errors_of(name):
            net = _from_catalogue(name, options) if name in CATALOGUE else validate_call(plain_net)(name, **options)
    new = net
    if head is not None:
        shape = natural_input(name).options() | options
        with _errors_of(name):
            new = put_head(
                net,
                head,
                classes=shape["classes"],
                input_shape=(shape["channels"], shape["image_size"], shape["image_size"]),
                replaces=replaces,
            )
    _initialise(new if pretrained else net, init)
    setattr(net, "convscope_spec", spec)  # noqa: B010 (for the type checker a module's attributes are modules)
    return net


def check_name(name: str) -> None:
    """Raises UnknownNameError for a name that is no text of layers and not in the catalogue; other libraries are not asked."""
    if ":" not in name and name not in CATALOGUE and not is_text(name):
        raise UnknownNameError("network", name, CATALOGUE, f"in the catalogue{elsewhere(name)}")


def check_options(names: Sequence[str], key: str) -> None:
    """Raises UnknownNameError for an option that none of these networks has; networks of other libraries may have any."""
    if not all(name in CATALOGUE for name in names):
        return
    own = dict.fromkeys(option for name in names for option in inspect.signature(CATALOGUE[name].plan).parameters)
    allowed = [*own, *SHAPE_OPTIONS, *NetSpec.model_fields]
    if key not in allowed:
        raise UnknownNameError("option", key, allowed, f"one of {' or '.join(names)}'s")


def natural_input(name: str) -> NaturalInput:
    """What a network was made for: its classes, and the size and normalisation of its images.

    Of a catalogue's network from the catalogue; of timm's from its `pretrained_cfg`; of torchvision's from its default weights;
    of a callable the defaults of its parameters `classes`, `channels` and `image_size`; CIFAR-10's where nothing is said.

    Args:
        name: see NetSpec.
    Raises:
        UnknownNameError, MissingPackageError, BrokenPackageError: as of build_net.

    Example:
        >>> natural_input("lenet5").shape
        (1, 28, 28)
    """
    prefix, colon, rest = name.partition(":")
    if prefix == "timm":
        return timm_input(rest)
    if prefix == "torchvision":
        return torchvision_input(rest)
    if not colon:
        return CATALOGUE[name].input if name in CATALOGUE else NaturalInput()
    own = {key: value for key, value in named_options(prefix, rest).items() if value}
    size = own.pop("image_size", NaturalInput.height)
    return NaturalInput(**own, height=size, width=size)


def trained_input(spec: NetSpec) -> NaturalInput | None:
    """What a network's pretrained weights were trained on; None where it has none, or does not say.

    A callable is asked for its network without the weights, which carries timm's record or is torchvision's.

    Raises:
        UnknownNameError, MissingPackageError, BrokenPackageError: as of build_net.
    """
    if not spec.options.get("pretrained"):
        return None
    options = spec.options | {"pretrained": False}
    prefix, colon, _ = spec.name.partition(":")
    foreign = colon and prefix not in _FOREIGN
    natural = build_natural(spec.name, None, options)[1] if foreign else natural_input(spec.name)
    return natural if natural.normalize else None


def takes_colour_alone(name: str) -> bool:
    """Whether a network has no choice but images of 3 channels, as torchvision's and EfficientNet-Lite0 have none."""
    return name.partition(":")[0] in ("torchvision", zoo.__name__, "lite0")


def code_in(spec: NetSpec) -> str | None:
    """What building a network would run or read beyond convscope, timm, torchvision and their weights; None for nothing.

    A spec in a folder that somebody else made may name any callable of any module, and to timm and torchvision a file.
    """
    prefix, colon, rest = spec.name.partition(":")
    if not colon:
        return None
    if prefix == zoo.__name__ and getattr(getattr(zoo, rest, None), "__module__", None) == zoo.__name__:
        return None
    if prefix not in _FOREIGN:
        return spec.name
    return next((f"net.{key}: {value!r}" for key, value in spec.options.items() if not _is_plain(key, value)), None)


def _is_plain(key: str, value: Any) -> bool:
    """Whether an option of a builder can name no file or address: a number, a word of an innocent key, or a list of these."""
    if isinstance(value, list | tuple):
        return all(_is_plain(key, each) for each in value)
    if isinstance(value, str):
        return re.fullmatch(r"[\w-]{1,40}", value) is not None and re.search(_FILES, key) is None
    return value is None or isinstance(value, bool | int | float)


def build_natural(
    name: str, shape: str | None = None, options: Mapping[str, Any] | None = None, seed: int = 0
) -> tuple[nn.Module, NaturalInput]:
    """A network as it was made: with its own classes and image size unless others are given; and the input it takes.

    A callable's network that carries timm's `pretrained_cfg` has its image size and normalisation from there, and one of
    torchvision's classes ImageNet's.

    Args:
        name: see NetSpec.
        shape: of its images, "3x224x224".
        options: of the builder, see build_net; `classes`, `channels` and `image_size` here come before all else.
        seed: of the weights; the global random state is left alone.
    Raises:
        SettingError: the text is no shape, or the network takes square images alone; and see build_net.

    Example:
        >>> net, made_for = build_natural("timm:resnet18")
        >>> scope = Scope(net, made_for.example(), normalize=made_for.normalize)
    """
    own, given = natural_input(name), dict(options or {})
    channels, size = given.get("channels", own.channels), given.get("image_size")
    input_shape = _shape(shape) if shape is not None else (channels, size or own.height, size or own.width)
    if input_shape[1] != input_shape[2] and ":" not in name:
        raise SettingError(f"--input {shape}: {name} takes square images")
    made_for = own.resized(*input_shape)
    builder_options: dict[str, Any] = {**made_for.options()}
    module, colon, attribute = name.partition(":")
    is_users = colon and module not in _FOREIGN
    if is_users:  # it is asked in its own words, and **options may go anywhere
        parameters = named_options(module, attribute)
        builder_options = {key: value for key, value in builder_options.items() if key in parameters}
    builder_options |= given
    with torch.random.fork_rng([]):
        torch.random.default_generator.manual_seed(seed)
        net = build_net(name, **builder_options)
    if is_users and (carried := carried_input(net, own.classes)):
        if shape is None:
            input_shape = (
                builder_options.get("channels", carried.channels),
                size or carried.height,
                size or carried.width,
            )
        made_for = carried.resized(*input_shape)
    return net, replace(made_for, classes=builder_options.get("classes", made_for.classes))


def _shape(text: str) -> tuple[int, int, int]:
    """Channels, height and width."""
    match = re.fullmatch(r"(\d+)[x×,](\d+)[x×,](\d+)", text.strip())
    if match is None or 0 in map(int, match.groups()):
        raise SettingError(f"--input {text}: expected channels, height and width, such as 3x32x32")
    channels, height, width = map(int, match.groups())
    return channels, height, width


def _from_catalogue(name: str, options: dict[str, Any]) -> nn.Module:
    entry = CATALOGUE[name]
    shape = {key: options.get(key, value) for key, value in entry.input.options().items()}
    plan = validate_call(entry.plan)(**{key: value for key, value in options.items() if key not in shape})
    return validate_call(partial(plain_net, plan) if isinstance(plan, str) else plan)(**shape)


@contextmanager
def _errors_of(name: str) -> Iterator[None]:
    """Inside, what is wrong with a network and its options is said in one line."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
            own = inspect.signature(CATALOGUE[name].plan).parameters if name in CATALOGUE else ()
            allowed = [*own, *SHAPE_OPTIONS]
            raise UnknownNameError("option", key, allowed, f"one of {name}'s") from None
        raise SettingError(f"net.{key}: {shortened(first['input'])} for {name}: {first['msg']}") from None
    except NetworkError as error:
        raise NetworkError(f"{name}: {error}") from None
    except RuntimeError as error:  # PyTorch's, where no memory holds the weights
        raise NetworkError(
            f"{name}: cannot be built: {first_line(error)}; take fewer units or a smaller kernel"
        ) from error


@contextmanager
def _fetching(name: str, pretrained: bool) -> Iterator[None]:
    """Turns what a library says when weights cannot be fetched into one line."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        origin = _ORIGINS.get(name.partition(":")[0], "where its builder looks for them")
        raise FailedError(
            f"{name}: its trained weights cannot be had from {origin} ({first_line(error)}); "
            "connect to the network or put them into its cache, or begin from random ones with net.pretrained=false"
        ) from None


_FILES = "path|file|dir|url|cfg|config|weights|hub"
"""In the name of a builder's option that takes a file or an address."""
_FOREIGN = {"timm": from_timm, "torchvision": from_torchvision}
_ORIGINS = {"timm": "the Hugging Face Hub", "torchvision": "download.pytorch.org"}


@torch.no_grad()
def _initialise(net: nn.Module, init: Init) -> None:
    if init == "default":
        return
    for module in net.modules():
        if init == "dirac":
            if isinstance(module, nn.Conv2d) and module.weight.requires_grad:
                for group in module.weight.chunk(module.groups):
                    nn.init.dirac_(group[: group.shape[1]])
        elif isinstance(module, nn.Conv2d | nn.Linear):
            if init == "xavier":
                nn.init.xavier_uniform_(module.weight)
            else:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


_MOST_NAMED = 3


def random_weights_in_words(net: nn.Module, other: nn.Module) -> str | None:
    """ "random weights" where no weights are trained, "random weights in fc" where some are, and None where all are.

    Constants that an initialisation sets, such as a bias of 0, count as neither.

    Args:
        net: the network.
        other: the same, built from another seed.
    """
    others = dict(other.named_parameters())
    own = {
        name: p for name, p in net.named_parameters() if p.requires_grad and p.numel() and (p != p.flatten()[0]).any()
    }
    drawn = [name for name, p in own.items() if name not in others or not torch.equal(p, others[name])]
    if len(drawn) in (0, len(own)):
        return "random weights" if drawn else None
    layers = list(dict.fromkeys(name.rpartition(".")[0] or name for name in drawn))
    more = f" and {len(layers) - _MOST_NAMED} more layers" if len(layers) > _MOST_NAMED else ""
    return f"random weights in {', '.join(layers[:_MOST_NAMED])}{more}"
