"""How a network is trained: the recipe of a spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from convscope.base.settings import Settings
from convscope.data import Augmentation
from convscope.errors import shortened

_DEFAULT_RATES = {"sgd": 0.05, "adam": 0.002, "adamw": 0.002, "rmsprop": 0.0005, "muon": 0.02}
_DEFAULT_MOMENTA = {"sgd": 0.9, "muon": 0.95}


FIND = "find"
"""The rate of a recipe that a range test finds before the training; a run's own spec states the number."""

Rate = Annotated[
    Annotated[Literal["find"], Tag("literal[word]")] | Annotated[float, Field(gt=0), Tag("literal[number]")],
    Discriminator(lambda value: "literal[word]" if value == FIND else "literal[number]"),
]

Schedule = Literal["constant", "step", "cosine", "one-cycle", "inverse"]

ClassWeights = Annotated[
    Annotated[Literal["balanced"], Tag("literal[word]")]
    | Annotated[dict[str, Annotated[float, Field(ge=1e-6, le=1e6)]], Field(min_length=1), Tag("dict[weights]")],
    Discriminator(lambda value: "dict[weights]" if isinstance(value, Mapping) else "literal[word]"),
]
"""Of the classes in the training loss: "balanced", or class → weight."""


Names = Annotated[
    tuple[str, ...], Field(min_length=1), BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
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


class Resize(Settings):
    """Smaller training images in the first steps of a training, which cost less (progressive resizing).

    After their augmentation the images are scaled down, bilinear and with antialiasing, to sizes that grow from `start_px`
    to the full size: at most four smaller ones, the same number of px apart, which is a multiple of 4, each for the same share
    of the steps. Validation and all that comes after the training is at full size.

    Attributes:
        start_px: the shorter side in the first steps.
        until: share of all steps from which the images have their full size.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    start_px: int = Field(ge=1)
    until: float = Field(default=0.6, gt=0, le=0.9)


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
        sync_batch_norm: where several GPUs train together (torchrun), batch norm measures a batch on all of them; by default
            each measures its own share of it. Of one process it changes nothing.
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
        resize: smaller images in the first steps, see Resize, for networks that take images of any size; in a recipe without
            stages. The rate of "find" is that at full size. None by default.
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
    sync_batch_norm: bool = False
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
    resize: Resize | None = None
    train: Names = ("all",)
    stages: tuple[Stage, ...] | None = Field(default=None, min_length=1)
    keep_features: bool = True
    seed: int = Field(default=0, ge=0, lt=2**31)
    threads: int | None = Field(default=None, ge=1, le=1024)

    @field_validator("class_weights", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        """Names as text, for YAML reads that of the digit 3 as a number; in one order, so that equal weights look equal."""
        if isinstance(value, Mapping):
            return {str(name): value[name] for name in sorted(value, key=str)}
        if value not in (None, "balanced"):
            raise ValueError(f"{shortened(value)}: expected balanced, or weights by class, such as {{cat: 1, dog: 3}}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, settings: Any) -> Any:
        """Fills in what follows from the optimizer, so that a saved recipe states every value."""
        if not isinstance(settings, Mapping):
            return settings
        optimizer = str(settings.get("optimizer", "adamw"))
        derived = {"rate": _DEFAULT_RATES.get(optimizer), "momentum": _DEFAULT_MOMENTA.get(optimizer, 0.0)}
        derived |= _of_stages(settings.get("stages"))
        return {**settings, **{key: value for key, value in derived.items() if settings.get(key) is None}}

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        if self.optimizer == "sgd" and self.nesterov and not self.momentum:
            raise ValueError("nesterov: needs a momentum above 0; set momentum, or nesterov: false")
        if self.stages is None:
            return self
        names = [stage.name for stage in self.stages]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"stages: two have the name {twice[0]!r}; give each its own")
        if self.epochs != (total := sum(stage.epochs for stage in self.stages)):
            raise ValueError(f"epochs: {self.epochs}, but those of the stages add up to {total}; leave it out")
        if self.train != ("all",):
            raise ValueError("train: each stage says itself what it trains; leave it out, or the stages")
        if self.resize is not None:
            raise ValueError("resize: is for a recipe without stages; leave it out, or the stages")
        if self.rate == FIND:
            raise ValueError("rate: find (--find-rate) is for a recipe without stages; each of these has its own rate")
        if self.rate != self.stages[0].rate:
            raise ValueError(f"rate: {self.peak_rate:g}, but each stage has a rate of its own; leave it out")
        return self

    @property
    def peak_rate(self) -> float:
        """`rate` as a number, which it is in training."""
        assert isinstance(self.rate, float | int), "it is filled in, and found before"
        return self.rate

    @property
    def parts(self) -> tuple[Recipe, ...]:
        """The recipe of each stage by itself; this recipe alone where it has no stages."""
        keys = ("train", "epochs", "rate", "schedule", "augmentation")
        own = ({k: value for k in keys if (value := getattr(stage, k)) is not None} for stage in self.stages or ())
        return tuple(self.model_copy(update={"stages": None, **each}) for each in own) or (self,)


def _of_stages(stages: Any) -> dict[str, Any]:
    """What a recipe's epochs and rate are where it has stages; nothing where these are not as they should be."""
    try:
        settings = [stage.model_dump() if isinstance(stage, Stage) else stage for stage in stages or ()]
        return {"epochs": sum(stage["epochs"] for stage in settings), "rate": settings[0]["rate"]}
    except (IndexError, KeyError, TypeError):
        return {}
