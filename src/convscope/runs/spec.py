"""What a run is asked to be: data, network, task and recipe. The same model is the file format of spec.yaml."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from convscope.base.bounded import KeyTwiceError, load_yaml, settings_text
from convscope.base.settings import Settings, describe
from convscope.data import Augmentation, DataSpec, located
from convscope.errors import RunFolderError, SettingError, shortened
from convscope.nets import NetSpec, TaskSpec

FORMAT = 1
"""Version of the run folder's format; raised when an older convscope could no longer read it."""

_SHORT = {"data": "source", "net": "name", "task": "class", "labels": "table"}
"""Of a part that is written as a bare word, the setting that the word means."""

OF_STUDIES = ("sweep", "seeds", "sampler", "metric", "prune", "budget", "reproduces")
"""Keys that a study file has beside those of a run's spec."""

_PLACES_OF_WEIGHTS = ("pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
"""Options of timm that say where trained weights lie."""

_DEFAULT_RATES = {"sgd": 0.05, "adam": 0.002, "adamw": 0.002, "rmsprop": 0.0005, "muon": 0.02}
_DEFAULT_MOMENTA = {"sgd": 0.9, "muon": 0.95}


FIND = "find"
"""The rate of a recipe that a range test finds before the training; a run's own spec states the number."""

Rate = Annotated[
    Annotated[Literal["find"], Tag("literal[word]")] | Annotated[float, Field(gt=0), Tag("literal[number]")],
    Discriminator(lambda given: "literal[word]" if given == FIND else "literal[number]"),
]

Schedule = Literal["constant", "step", "cosine", "one-cycle", "inverse"]

ClassWeights = Annotated[
    Annotated[Literal["balanced"], Tag("literal[word]")]
    | Annotated[dict[str, Annotated[float, Field(ge=1e-6, le=1e6)]], Field(min_length=1), Tag("dict[weights]")],
    Discriminator(lambda given: "dict[weights]" if isinstance(given, Mapping) else "literal[word]"),
]
"""Of the classes in the training loss: "balanced", or class → weight."""


Names = Annotated[
    tuple[str, ...], Field(min_length=1), BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)
]
"""Of modules; a single one may stand by itself."""


class Stage(Settings):
    """A part of a training in which some modules learn and all others are frozen.

    What is frozen gets no gradient and is in evaluation mode: batch norm keeps its statistics, dropout does nothing. A stage
    begins with a new optimizer, and with the best weights of the stage before where the recipe has patience.

    Attributes:
        name: in the history and on the screen; no other stage of the recipe has it.
        train: names of the modules that learn, each with all inside it; `*` stands for any letters ("blocks.1*"), and
            "all" for the whole network. "head" is what gives the output, and "last_block" the last block before it with
            what lies between, of any network in which no module has that very name; the screen says which modules they are.
        epochs: passes over the training images.
        rate: peak learning rate.
        schedule: course of the rate over this stage; by default the recipe's.
        augmentation: of the training images in this stage; by default the recipe's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1)
    train: Names = ("all",)
    epochs: int = Field(ge=1)
    rate: float = Field(gt=0)
    schedule: Schedule | None = None
    augmentation: Augmentation | None = None


class Recipe(Settings):
    """How a network is trained. `Recipe()` trains a decent network on any of the sets.

    Attributes:
        optimizer: sgd, adam, adamw, rmsprop, or muon (Jordan 2024): filters and dense weights take orthogonal steps, and AdamW
            takes the rest, which is the output layer, biases and batch norm.
        rate: peak learning rate; by default 0.05 for sgd, 0.002 for adam and adamw, 0.0005 for rmsprop, 0.02 for muon. "find":
            by a range test before the training (see convscope.training.find_rate); the run's spec states the rate that was
            found.
        adam_rate: of muon, the peak rate of what AdamW takes.
        rates: factors of the rate by module, {all: 0.1, head: 1}, for fine-tuning: names as in Stage's `train`, each with all
            inside it; of two that name a module the later counts. A module that none names has 1.
        momentum, nesterov: of sgd and muon (0.9 and 0.95 by default); momentum also of rmsprop, which has none by default.
        batch: images a step. The last, smaller batch of an epoch is left out.
        accumulate: batches a step, for want of memory: the mean of their gradients gives the step of one batch of so many
            times the images, apart from batch norm and dropout. The rate counts steps, and the last batches of an epoch that
            make no whole step are left out.
        epochs: passes over the training images.
        schedule: course of the rate. "constant"; "step" (times `step_factor` every `step_epochs`); "cosine" (to 0);
            "one-cycle" (linear up for the share `warmup` of all steps, then linear down to 0);
            "inverse" (rate / (1 + decay × step), Keras' `decay`).
        weight_decay: on filters and dense weights, not on biases and batch norm. Decoupled in adamw, an L2 term elsewhere.
        label_smoothing: share of the target spread over all classes.
        class_weights: how much each class counts in the training loss, Σ w·loss / Σ w over the images of a batch, w being the
            weight of the true class (torch.nn.CrossEntropyLoss). "balanced": N / (K × n), for a class of n of the N training
            images, where K classes have any (scikit-learn); each head by its own classes. Or by class, {cat: 1, dog: 3}, of
            several heads {colour=red: 3}; a class that is not named, or has no training images, has weight 1. The loss and
            the accuracy of the validation and test images are not weighted. None by default.
        sampling: "shuffle" goes through all training images once in an epoch; "balanced" draws as many with replacement,
            each class of the first head equally likely, and within it each image. The train accuracy is that of the images
            drawn. Together with balanced class_weights it corrects for the same imbalance twice.
        clip_norm: largest norm of the gradient; none by default.
        averaging: "ema" validates and keeps the mean of the weights over the steps, older ones less by `ema_decay` a step
            (by min(ema_decay, (1 + t) / (10 + t)) at step t); "lookahead" moves the weights back by half of what every five
            steps have added (Zhang et al. 2019, arXiv 1907.08610). "none" by default.
        patience: stop after so many epochs without a better `watch`, and restore the best weights; never by default.
        watch: what patience looks at.
        precision: of convolutions and matrix products in training; weights, losses and evaluation are fp32. "auto" is bf16 on
            a GPU that has it, and on a CPU that has it where a step of this network is measured to take less than 80 % of the
            time in fp32 (environment.json says what was chosen, and why); else fp32.
        compile: through torch.compile (needs a C++ compiler on the CPU; pays off in long runs).
        channels_last: keep feature maps as N H W C in memory, which convolutions prefer on CPU and GPU.
        augmentation: of the training images.
        mixup: α of the Beta distribution (α, α) of λ: each training image is λ of it and 1 − λ of another in its batch,
            and the loss λ·loss of its target + (1 − λ)·loss of the other's; λ is one number a batch (Zhang et al. 2018, arXiv
            1710.09412: 0.2 to 1). The train accuracy counts the target with the larger share. Below some 80 epochs mixup
            and cutmix usually cost accuracy, so 0, for none, is the default.
        cutmix: the same, where a rectangle of 1 − λ of the area comes from the other image (Yun et al. 2019, arXiv
            1905.04899: 1). With mixup too, one of the two is drawn for each batch.
        train: which modules learn, see Stage; all by default. Short for a single stage with this recipe's epochs and rate.
        stages: parts that follow each other, in which some modules are frozen; see Stage. Their epochs add up to `epochs`,
            each has a rate, and patience counts anew in each. None by default: one part, in which all learns.
        keep_features: in a stage whose frozen part comes first and whose images are not augmented or mixed, what reaches the
            part that learns is computed once and kept.
        seed: of the first weights, the order of images, augmentation, mixing and dropout.
        threads: of the CPU in training, for the same bits on machines with other numbers of cores; by default those there are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    optimizer: Literal["sgd", "adam", "adamw", "rmsprop", "muon"] = "adamw"
    rate: Rate | None = None
    adam_rate: float = Field(default=0.01, gt=0)
    rates: dict[str, Annotated[float, Field(gt=0)]] | None = None
    momentum: float | None = Field(default=None, ge=0, lt=1)
    nesterov: bool = True
    batch: int = Field(default=128, ge=1)
    accumulate: int = Field(default=1, ge=1)
    epochs: int = Field(default=10, ge=1)
    schedule: Schedule = "one-cycle"
    warmup: float = Field(default=0.2, gt=0, lt=1)
    step_epochs: int = Field(default=10, ge=1)
    step_factor: float = Field(default=0.1, gt=0, le=1)
    decay: float = Field(default=1e-4, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    class_weights: ClassWeights | None = None
    sampling: Literal["shuffle", "balanced"] = "shuffle"
    clip_norm: float | None = Field(default=None, gt=0)
    averaging: Literal["none", "ema", "lookahead"] = "none"
    ema_decay: float = Field(default=0.99, gt=0, lt=1)
    patience: int | None = Field(default=None, ge=1)
    watch: Literal["val_loss", "val_accuracy"] = "val_loss"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    channels_last: bool = True
    augmentation: Augmentation = Augmentation()
    mixup: float = Field(default=0.0, ge=0, le=100)
    cutmix: float = Field(default=0.0, ge=0, le=100)
    train: Names = ("all",)
    stages: tuple[Stage, ...] | None = Field(default=None, min_length=1)
    keep_features: bool = True
    seed: int = Field(default=0, ge=0, lt=2**31)
    threads: int | None = Field(default=None, ge=1, le=1024)

    @field_validator("class_weights", mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        """Names as text, for YAML reads that of the digit 3 as a number; in one order, so that equal weights look equal."""
        if isinstance(given, Mapping):
            return {str(name): given[name] for name in sorted(given, key=str)}
        if given not in (None, "balanced"):
            raise ValueError(f"{shortened(given)}: expected balanced, or weights by class, such as {{cat: 1, dog: 3}}")
        return given

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, given: Any) -> Any:
        """Fills in what follows from the optimizer, so that a saved recipe states every value."""
        if not isinstance(given, Mapping):
            return given
        optimizer = given.get("optimizer", "adamw")
        derived = {"rate": _DEFAULT_RATES.get(optimizer), "momentum": _DEFAULT_MOMENTA.get(optimizer, 0.0)}
        derived |= _of_stages(given.get("stages"))
        return {**given, **{key: value for key, value in derived.items() if given.get(key) is None}}

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        if self.optimizer == "sgd" and self.nesterov and not self.momentum:
            raise ValueError("nesterov: needs a momentum above 0; set momentum, or nesterov: false")
        if self.stages is not None:
            self._check_stages(self.stages)
        return self

    def _check_stages(self, stages: tuple[Stage, ...]) -> None:
        names = [stage.name for stage in stages]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"stages: two have the name {twice[0]!r}; give each its own")
        if self.epochs != (whole := sum(stage.epochs for stage in stages)):
            raise ValueError(f"epochs: {self.epochs}, but those of the stages add up to {whole}; leave it out")
        if self.train != ("all",):
            raise ValueError("train: each stage says itself what it trains; leave it out, or the stages")
        if self.rate == FIND:
            raise ValueError("rate: find (--find-rate) is for a recipe without stages; each of these has its own rate")
        if self.rate != stages[0].rate:
            raise ValueError(f"rate: {self.peak_rate:g}, but each stage has a rate of its own; leave it out")

    @property
    def peak_rate(self) -> float:
        """`rate` as a number, which it is in training."""
        assert isinstance(self.rate, float | int), "it is filled in, and found before"
        return self.rate

    @property
    def learning_stages(self) -> tuple[Stage, ...]:
        """The stages; one for `train` where that names modules; none where all learns from beginning to end."""
        if self.stages or self.train == ("all",):
            return self.stages or ()
        return (Stage(name=", ".join(self.train), train=self.train, epochs=self.epochs, rate=self.peak_rate),)

    @property
    def parts(self) -> tuple[Recipe, ...]:
        """The recipe of each stage by itself; this recipe alone where it has no stages."""
        return tuple(self.model_copy(update=_own(stage)) for stage in self.stages or ()) or (self,)


def _own(stage: Stage) -> dict[str, Any]:
    """What a stage says other than its recipe."""
    own = {key: getattr(stage, key) for key in ("epochs", "rate", "schedule", "augmentation")}
    return {"stages": None, **{key: value for key, value in own.items() if value is not None}}


def _of_stages(stages: Any) -> dict[str, Any]:
    """What a recipe's epochs and rate are where it has stages; nothing where these are not as they should be."""
    try:
        given = [stage.model_dump() if isinstance(stage, Stage) else stage for stage in stages or ()]
        return {"epochs": sum(stage["epochs"] for stage in given), "rate": given[0]["rate"]}
    except (IndexError, KeyError, TypeError):
        return {}


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
    def _names(cls, given: Any) -> Any:
        """`data: mnist` and `net: net4` are short for a source and a name."""
        if not isinstance(given, Mapping):
            return given
        short = ("data", "net")
        whole = {key: {_SHORT[key]: v} if key in short and isinstance(v, str) else v for key, v in given.items()}
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
    given = parse_mapping(text, where)
    for key, value in parse_overrides(overrides).items():
        override(given, key, value)
    return make_spec(given, where)


def parse_mapping(text: str, where: str) -> dict[str, Any]:
    """The mapping in a YAML text, of a format that this convscope reads; its keys are not looked at.

    Raises:
        SettingError: no YAML, or no mapping; file and line are named.
        RunFolderError: it is of a newer format.
    """
    check_numbers(text, where)
    try:
        given = load_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        kind = "" if isinstance(error, KeyTwiceError) else "this is no YAML: "
        raise SettingError(f"{where}{line}: {kind}{getattr(error, 'problem', None) or error}") from None
    if not isinstance(given, dict):
        raise SettingError(f"{where}: expected the keys data, net and recipe; found {type(given).__name__}")
    return given


def check_numbers(text: str, where: str) -> None:
    """Refuses numbers of more than 4,000 digits, which Python neither reads nor writes as decimals.

    Raises:
        SettingError: there is one.
    """
    if found := re.search(r"[0-9a-fA-F_]{4000}", text):
        raise SettingError(f"{where}: a number of thousands of digits ({found[0][:12]}…); expected a shorter one")


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
        own = {key: value for key, value in spec.net.model_dump().items() if key not in _PLACES_OF_WEIGHTS}
        changes["net"] = NetSpec.model_validate(own)
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
            continue
        if isinstance(node.get(part), str):
            node[part] = {_short(key, part): node[part]}
        node = node.setdefault(part, {})
        if not isinstance(node, dict | list):
            raise SettingError(f"{key}: {part!r} is a value, it has no settings of its own")
    node[_place(key, last, node) if isinstance(node, list) else last] = value


def _place(key: str, part: str, among: list[Any]) -> int:
    if not (part.isdecimal() and int(part) < len(among)):
        raise SettingError(f"{key}: {part!r} is no place in this list; its places are 0 to {len(among) - 1}")
    return int(part)


def _short(key: str, part: str) -> str:
    """What a bare word at a part of a key means: a head's is its kind."""
    return "kind" if key.startswith(f"task.{part}.") else _SHORT.get(part, part)


def check_format(version: Any, where: str) -> None:
    """Refuses a format that this convscope does not know."""
    if not isinstance(version, int) or version < 1:
        raise RunFolderError(f"{where}: format {version!r} is unknown; this convscope reads 1 to {FORMAT}")
    if version > FORMAT:
        raise RunFolderError(
            f"{where}: written by a newer convscope (format {version}; this one reads up to {FORMAT}): upgrade it"
        )
