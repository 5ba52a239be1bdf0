"""What to load: the settings of a data set, checked before anything is read."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict

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

from convscope.base.settings import Settings, describe
from convscope.errors import SettingError, shortened


def _one_or_more(*kinds: type) -> BeforeValidator:
    """A single value of these kinds is short for a tuple of one."""
    return BeforeValidator(lambda value: (value,) if isinstance(value, kinds) else value)


def check_unit_range(mean: Sequence[float], std: Sequence[float]) -> None:
    """Refuses means and deviations that cannot be those of images in [0, 1].

    Raises:
        ValueError: a mean is outside [0, 1], or a deviation above 1.
    """
    for name, values in (("mean", mean), ("std", std)):
        if wrong := [value for value in values if not 0 <= value <= 1]:
            raise ValueError(
                f"{name} {wrong[0]:g} cannot be that of images in [0, 1]; of pixels 0…255 divide mean and std by 255"
            )


class Normalization(Settings):
    """What is taken from images in [0, 1], and by what they are then divided: (x − mean) / std.

    Args:
        mean, std: of each channel, or one value for all channels.

    Example:
        >>> Normalization(mean=(0.5,), std=(0.5,)).of(3)
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mean: Annotated[tuple[float, ...], _one_or_more(int, float)] = Field(min_length=1)
    std: Annotated[tuple[Annotated[float, Field(gt=0)], ...], _one_or_more(int, float)] = Field(min_length=1)

    @model_validator(mode="after")
    def _of_unit_range(self) -> Normalization:
        check_unit_range(self.mean, self.std)
        return self

    def of(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std, a value for each channel.

        Raises:
            SettingError: there are more or fewer values than channels.
        """
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise SettingError(
                    f"normalize.{name}: {len(values)} values for images of {channels} channels; give one value, or {channels}"
                )
        return self.mean * (channels // len(self.mean)), self.std * (channels // len(self.std))


IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""What most networks with ImageNet weights were trained with."""


LABEL_COLUMNS = ("label", "labels", "class", "target", "y")
"""Columns of a table that hold labels where no other is named."""


class Labels(Settings):
    """Where labels stand that are no names of folders, and which columns of a table are meant.

    A bare word is a table, or with `(?P<` in it a pattern.

    Args:
        table: a CSV, TSV, JSON lines or parquet file with a row an image; beside the images, or a path.
        pattern: a regular expression, searched for in each file's path below the source, with a group named label, and if
            wanted split and group; a single group without a name is the label. In place of a table.
        file: column of the files, as paths below the source; their names alone, also without their ending, where no other
            file has that name. By default `file`, `file_name`, `path`, `image` or the like.
        label: column of the labels, by default `label`, `class` or `target`. Several columns are several targets, for a
            task of several heads; the first is 'class', too.
        split: column of train, val or test, by default `split` where there is one.
        group: column of what belongs together, by default `group` where there is one: images of one patient, panel or scene,
            which are never divided between splits.

    Without table and pattern it names columns of a parquet file or of a set of the Hub.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: str | None = Field(default=None, min_length=1)
    pattern: str | None = Field(default=None, min_length=1)
    file: str | None = None
    label: Annotated[tuple[str, ...] | None, _one_or_more(str)] = Field(default=None, min_length=1)
    split: str | None = None
    group: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"pattern" if "(?P<" in value else "table": value} if isinstance(value, str) else value

    @field_validator("label")
    @classmethod
    def _one_target_each(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for place, name in enumerate(columns := names or ()):
            if name in columns[:place]:
                raise ValueError(f"the column {name!r} is named twice; name each once")
            if place and name == "class":
                raise ValueError(
                    f"{list(columns)}: the first column becomes the target 'class'; give the column 'class' first"
                )
        return names

    @model_validator(mode="after")
    def _check(self) -> Labels:
        if self.pattern is None:
            return self
        if self.table is not None:
            raise ValueError("table and pattern exclude each other; give one of them")
        try:
            compiled = re.compile(self.pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"pattern {shortened(self.pattern)} is no regular expression: {error}") from None
        if compiled.groups != 1 and "label" not in compiled.groupindex and self.label is None:
            raise ValueError(f"pattern {self.pattern!r} names no label; mark it as (?P<label>…)")
        return self


class Folds(Settings):
    """Cross-validation: all images are divided into so many parts, each of which is the test set of one run.

    Args:
        folds: how many.
        fold: which of them is the test set, from 0; a tenth of the others is for validation. `convscope sweep` trains a run
            for each where it is left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folds: int = Field(ge=2, le=1000)
    fold: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Folds:
        if self.fold is not None and self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} is none of the {self.folds}, which are counted from 0")
        return self


class DataSpec(Settings):
    """Which data set, and how its images and splits are made.

    Args:
        source: a name of `data_names()`, `hub:owner/name`, or a path: an image folder, a folder of parquet
            files, one `.parquet` or one `.npz` file. A catalogue name wins over a path of that name; write
            `./mnist` for the path.
        image_size: side in pixels. The shorter side of an image is scaled to it, then the centre is cut out.
            None keeps the size that the images have, which must then be the same for all; a run with pretrained
            weights takes the size that these were trained with.
        channels: 1 makes colour grey, by the luma of ITU-R 601 (0.299 R + 0.587 G + 0.114 B); 3 repeats the channel of
            grey images. None leaves them as they are (grey ones among colour ones have 3); a run whose network takes 3
            channels alone (pretrained weights, torchvision, lite0) then says 3, unless net.channels says otherwise. Another
            number is that of the bands of TIFF files, which need convscope[tiff].
        grey: true is short for channels: 1.
        bits: 16 keeps the depth of 16-bit grey files and of uint16 arrays, and pixels of 8 bits are scaled by 257; 8 scales
            all to 8 bits. A network sees values in [0, 1] either way.
        split: None keeps the source's own splits. Otherwise all its images are pooled and divided anew, class
            by class: "60/40" is train/test and "70/10/20" train/val/test, in percent (adding up to 100),
            fractions (to 1) or counts (to the number of images); or {folds: 5}, see Folds.
        labels: where labels stand, if not in the names of the folders; see Labels.
        limit: at most so many images of each split of the source (of all generated lines), chosen class by
            class, for quick trials.
        seed: 0 or more; fixes the places of generated lines, the choice under `limit`, and every division
            into splits.
        skip_bad: leave out images that cannot be read and labels out of range, and list them, instead of
            stopping.
        normalize: "own" by the mean and standard deviation of the training images; "imagenet" by those that most
            networks with ImageNet weights were trained with; or {mean: …, std: …} for images in [0, 1]. By default
            "own", and in a run with pretrained weights what these were trained with.

    Example:
        >>> DataSpec(source="mnist", split="60/40").seed
        0
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(min_length=1)
    image_size: int | None = Field(default=None, ge=1, le=16_384)
    channels: int | None = Field(default=None, ge=1)
    grey: bool = False
    bits: Literal[8, 16] = 8
    split: Annotated[
        Annotated[str, Tag("text")] | Annotated[Folds, Tag("dict[folds]")] | Annotated[None, Tag("none")],
        Discriminator(lambda v: "none" if v is None else "dict[folds]" if isinstance(v, Mapping | Folds) else "text"),
    ] = None
    labels: Labels | None = None
    limit: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    skip_bad: bool = False
    normalize: (
        Annotated[
            Annotated[Literal["own", "imagenet"], Tag("name")] | Annotated[Normalization, Tag("values")],
            Discriminator(lambda v: "name" if isinstance(v, str) else "values"),
        ]
        | None
    ) = None

    @model_validator(mode="before")
    @classmethod
    def _grey_is_one_channel(cls, settings: Any) -> Any:
        """Sets both grey and channels where one of them asks for grey."""
        if not isinstance(settings, Mapping) or (settings.get("grey") is not True and settings.get("channels") != 1):
            return settings
        if settings.get("channels") not in (None, 1):
            raise ValueError(f"channels: {settings['channels']} contradicts grey: true; leave one of the two out")
        return {**settings, "channels": 1, "grey": True}

    @field_validator("split")
    @classmethod
    def _split_has_parts(cls, split: str | Folds | None) -> str | Folds | None:
        if isinstance(split, str):
            _numbers(split)
        return split


class DataSettings(TypedDict, total=False):
    """The fields of DataSpec beside the source, as keywords."""

    image_size: int | None
    channels: int | None
    grey: bool
    bits: Literal[8, 16]
    split: str | Folds | Mapping[str, Any] | None
    labels: str | Labels | Mapping[str, Any] | None
    limit: int | None
    seed: int
    skip_bad: bool
    normalize: Literal["own", "imagenet"] | Normalization | Mapping[str, Any] | None


def make_spec(source: str | os.PathLike[str] | DataSpec, settings: Mapping[str, Any]) -> DataSpec:
    """The spec of a source and its settings; a DataSpec is taken as it is, changed by the settings.

    Raises:
        SettingError: a setting that does not exist or has an impossible value; the message begins with its
            key.
    """
    if not isinstance(source, str | os.PathLike | DataSpec):
        raise SettingError(
            f"source: {shortened(source)}; expected a name or a path: of arrays write an .npz file, "
            "numpy.savez('set.npz', x=images, y=labels)"
        )
    base = source.model_dump() if isinstance(source, DataSpec) else {"source": os.fspath(source)}
    if settings.keys() & {"grey", "channels"} and (base.get("grey") or settings.get("grey")):
        base |= {"grey": False, "channels": None}  # either of them says both
    try:
        return DataSpec.model_validate({**base, **settings})
    except ValidationError as error:
        fault = error.errors()[0]
        if fault["type"] == "extra_forbidden":
            raise SettingError(describe(error, DataSpec)) from None
        key, message = ".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")
        if not key:  # of several settings, which the message names
            raise SettingError(message) from None
        raise SettingError(f"{key}: {message[:1].lower()}{message[1:]}; given {shortened(fault['input'])}") from None


def split_shares(split: str, total: int) -> tuple[float, float | None, float]:
    """The shares (train, val, test) of a split such as "60/40"; val is None where it has only two numbers.

    Args:
        split: percent adding up to 100, fractions adding up to 1, or counts adding up to `total`, tried in
            this order.
        total: number of images in the whole source.

    Raises:
        SettingError: the numbers add up to none of these.
    """
    numbers = _numbers(split)
    whole = sum(numbers)
    if not any(abs(whole - right) < 1e-6 for right in (100, 1, total)):
        raise SettingError(
            f"split: {split!r} adds up to {whole:g}; percent must add up to 100, fractions to 1, "
            f"counts to the {total} images that there are"
        )
    shares = [number / whole for number in numbers]
    return shares[0], shares[1] if len(shares) == 3 else None, shares[-1]


def _numbers(split: str) -> list[float]:
    try:
        numbers = [float(part) for part in split.split("/")]
    except ValueError:
        numbers = []
    if len(numbers) not in (2, 3) or not all(0 < number < float("inf") for number in numbers):
        raise ValueError("a split is two or three positive numbers with '/' between them, such as 60/40 or 70/10/20")
    return numbers
