"""What a run is asked to be: data, network, task and recipe. The same model is the file format of spec.yaml."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import (
    ConfigDict,
    ValidationError,
    model_validator,
)

from convscope.base.bounded import KeyTwiceError, load_yaml, settings_text
from convscope.base.settings import Settings, describe
from convscope.data import LINES, DataSpec, Normalization, located
from convscope.errors import RunFolderError, SettingError
from convscope.nets import NetSpec, TaskSpec, takes_colour_alone, trained_input
from convscope.runs.recipe import Recipe

FORMAT = 1
"""Version of the run folder's format; raised when an older convscope could no longer read it."""

_SHORT = {"data": "source", "net": "name", "task": "class", "labels": "table"}
"""Of a part that is written as a bare word, the setting that the word means."""

OF_STUDIES = ("sweep", "seeds", "sampler", "metric", "prune", "budget", "reproduces")
"""Keys that a study file has beside those of a run's spec."""

_PLACES_OF_WEIGHTS = ("pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
"""Options of timm that say where trained weights lie."""


class RunSpec(Settings):
    """All that a run is made from; two runs of one spec on one machine's CPU give the same bits, with the same
    number of threads.

    Attributes:
        about: a line in words.
        data, net, task, recipe: see DataSpec, NetSpec, convscope.nets.make_task and Recipe. Without a task, several columns of
            labels are a head each, and all else is one softmax.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    about: str = ""
    data: DataSpec
    net: NetSpec
    task: TaskSpec = "softmax"
    recipe: Recipe = Recipe()

    @model_validator(mode="before")
    @classmethod
    def _names(cls, settings: Any) -> Any:
        """`data: mnist` and `net: net4` are short for a source and a name."""
        if not isinstance(settings, Mapping):
            return settings
        short = ("data", "net")
        whole = {key: {_SHORT[key]: v} if key in short and isinstance(v, str) else v for key, v in settings.items()}
        columns = _label_columns(whole.get("data"))
        return whole if "task" in whole or len(columns) < 2 else whole | {"task": dict.fromkeys(columns, "softmax")}

    def differences(self, other: RunSpec) -> list[str]:
        """The parts, of those that decide the outcome, in which two specs differ."""
        parts = ("data", "net", "task", "recipe")
        return [part for part in parts if getattr(self, part) != getattr(other, part)]


def _label_columns(data: Any) -> tuple[str, ...]:
    """The columns of labels that settings of data name; none where they are not as they should be."""
    labels = data.get("labels") if isinstance(data, Mapping) else getattr(data, "labels", None)
    columns = labels.get("label") if isinstance(labels, Mapping) else getattr(labels, "label", None)
    if not isinstance(columns, list | tuple) or not all(isinstance(name, str) for name in columns):
        return ()
    return tuple(dict.fromkeys(columns))


def read_spec(text: str, where: str, overrides: Iterable[str] = ()) -> RunSpec:
    """The spec in a YAML text, with `key.key=value` overrides.

    Args:
        text: YAML.
        where: the file's name, for error messages.
        overrides: as given to --set; values are YAML, so `recipe.epochs=3` is a number.
    Raises:
        SettingError: no YAML, or a key or value that a spec does not have; file and key are named.
        RunFolderError: the spec is of a newer format.
    """
    settings = parse_mapping(text, where)
    for key, value in parse_overrides(overrides).items():
        override(settings, key, value)
    return make_spec(settings, where)


def parse_mapping(text: str, where: str) -> dict[str, Any]:
    """The mapping in a YAML text, of a format that this convscope reads; its keys are not looked at.

    Raises:
        SettingError: no YAML, or no mapping; file and line are named.
        RunFolderError: it is of a newer format.
    """
    check_numbers(text, where)
    try:
        settings = load_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        kind = "" if isinstance(error, KeyTwiceError) else "this is no YAML: "
        raise SettingError(f"{where}{line}: {kind}{getattr(error, 'problem', None) or error}") from None
    if not isinstance(settings, dict):
        raise SettingError(f"{where}: expected the keys data, net and recipe; found {type(settings).__name__}")
    return settings


def check_numbers(text: str, where: str) -> None:
    """Refuses numbers of more than 4,000 digits, which Python neither reads nor writes as decimals.

    Raises:
        SettingError: there is one.
    """
    if match := re.search(r"[0-9a-fA-F_]{4000}", text):
        raise SettingError(f"{where}: a number of thousands of digits ({match[0][:12]}…); expected a shorter one")


def make_spec(given: Mapping[str, Any], where: str = "spec") -> RunSpec:
    """The spec in a mapping; an unknown key or impossible value is a SettingError that names it."""
    check_format(given.get("format", FORMAT), where)
    try:
        return RunSpec.model_validate(given)
    except ValidationError as error:
        key = error.errors()[0]["loc"][0:1]
        if key and key[0] in OF_STUDIES:
            problem = f"{key[0]}: belongs to a study of several runs, which convscope sweep trains"
            raise SettingError(f"{where}: {problem}") from None
        raise SettingError(f"{where}: {describe(error, RunSpec)}") from None


def dump_spec(spec: RunSpec) -> str:
    """The spec as YAML, every value stated, so that it means the same when defaults change."""
    return yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def shareable(spec: RunSpec) -> RunSpec:
    """The spec for others: absolute paths of data are cut down to their last names, and what says from which file the first
    weights came is left out; both are nobody else's business."""
    data = spec.data
    update: dict[str, Any] = {}
    if os.path.isabs(data.source):
        update["source"] = Path(data.source).name
    if data.labels and data.labels.table:
        update["labels"] = data.labels.model_copy(update={"table": Path(data.labels.table).name})
    changes: dict[str, Any] = {"data": data.model_copy(update=update)}
    if spec.net.name.startswith("timm:"):
        settings = {key: value for key, value in spec.net.model_dump().items() if key not in _PLACES_OF_WEIGHTS}
        changes["net"] = NetSpec.model_validate(settings)
    return spec.model_copy(update=changes)


def load_spec(path: Path, overrides: Iterable[str] = ()) -> RunSpec:
    """The spec in a YAML file, whose data may lie beside it; errors as read_spec, and a file that cannot be read."""
    spec = read_spec(settings_text(path), str(path), overrides)
    return spec.model_copy(update={"data": located(spec.data, path.parent)})


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """`key=value` pairs as a flat mapping, values read as YAML: {"width": 64}.

    Raises:
        SettingError: a pair without '='.
    """
    pairs: dict[str, Any] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not (key and equals):
            raise SettingError(f"--set {override}: expected key=value, such as recipe.epochs=3")
        check_numbers(value, f"--set {key.strip()}")
        try:
            pairs[key.strip()] = load_yaml(value)
        except KeyTwiceError as error:
            raise SettingError(f"--set {override}: {error.problem}") from None
        except yaml.YAMLError:
            raise SettingError(f"--set {override}: the value is no YAML; quote it") from None
    return pairs


def override(given: dict[str, Any], key: str, value: Any) -> None:
    """Puts a value at a dotted key of a run's mapping: what `--set key=value` does."""
    *path, last = key.split(".")
    node: Any = given
    for part in path:
        if isinstance(node, list):
            node = node[_place(key, part, node)]
        else:
            below = node.get(part)
            if isinstance(below, str):  # a bare word of a head is its kind
                below = {"kind" if key.startswith(f"task.{part}.") else _SHORT.get(part, part): below}
            node[part] = {} if below is None else below
            node = node[part]
        if not isinstance(node, dict | list):
            raise SettingError(f"{key}: {part!r} is a value, it has no settings of its own")
    node[_place(key, last, node) if isinstance(node, list) else last] = value


def _place(key: str, part: str, items: list[Any]) -> int:
    if not (part.isdecimal() and int(part) < len(items)):
        raise SettingError(f"{key}: {part!r} is no place in this list; its places are 0 to {len(items) - 1}")
    return int(part)


def check_format(version: Any, where: str) -> None:
    """Refuses a format that this convscope does not know."""
    if not isinstance(version, int) or version < 1:
        raise RunFolderError(f"{where}: format {version!r} is unknown; this convscope reads 1 to {FORMAT}")
    if version > FORMAT:
        raise RunFolderError(
            f"{where}: written by a newer convscope (format {version}; this one reads up to {FORMAT}): upgrade it"
        )


def as_network_wants(spec: RunSpec) -> RunSpec:
    """The spec with what only its network says of the images stated in `data`; what `data` says already stays.

    Pretrained weights want images of the size, and normalised, as those were that they were trained on. A network that
    takes 3 channels alone gets grey images with their channel repeated; `net.channels` may say otherwise.

    Raises:
        SettingError: `data` wants one channel, or bands, and the network 3.
        UnknownNameError, MissingPackageError, BrokenPackageError: as of build_net.
    """
    data, net = spec.data, spec.net
    trained = trained_input(net)
    natural = trained.channels if trained else 3 if takes_colour_alone(net.name) else 0
    channels = net.options.get("channels", natural)
    update: dict[str, Any] = {}
    if channels == 3 and data.channels not in (None, 3):
        raise SettingError(
            f"data.channels: {data.channels}, and {net.name} takes images of 3; leave it out, and grey images get 3 channels"
        )
    if channels == 3:
        update["channels"] = 3
    if trained is not None:
        resized = trained.resized(channels, trained.height, trained.width)
        if (
            data.image_size is None and resized.height == resized.width and data.source != LINES
        ):  # which are drawn in one size
            update["image_size"] = net.options.get("image_size", resized.height)
        if data.normalize is None and resized.normalize is not None:
            update["normalize"] = Normalization(mean=resized.normalize[0], std=resized.normalize[1])
    return spec.model_copy(update={"data": data.model_copy(update=update)})
