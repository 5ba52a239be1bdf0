"""What to load: the settings of a data set, checked before anything is read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict

from pydantic import ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from convscope.base.settings import Settings, describe
from convscope.errors import SettingError, shortened

Positive = Annotated[float, Field(gt=0)]


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

    mean: tuple[float, ...] = Field(min_length=1)
    std: tuple[Positive, ...] = Field(min_length=1)

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _one_for_all(cls, given: Any) -> Any:
        return (given,) if isinstance(given, int | float) else given

    @model_validator(mode="after")
    def _of_unit_range(self) -> Normalization:
        check_unit_range(self.mean, self.std)
        return self

    def of(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std, a value for each channel.

        Raises:
            SettingError: there are more or fewer values than channels.
        """
        return self._each("mean", channels), self._each("std", channels)

    def _each(self, name: str, channels: int) -> tuple[float, ...]:
        values: tuple[float, ...] = getattr(self, name)
        if len(values) not in (1, channels):
            raise SettingError(
                f"normalize.{name}: {len(values)} values for images of {channels} channels; give one value, or {channels}"
            )
        return values * (channels // len(values))


IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""What most networks with ImageNet weights were trained with."""


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
            channels alone (pretrained weights, torchvision, lite0) then says 3, unless net.channels says otherwise.
        grey: true is short for channels: 1.
        split: None keeps the source's own splits. Otherwise all its images are pooled and divided anew, class
            by class: "60/40" is train/test and "70/10/20" train/val/test, in percent (adding up to 100),
            fractions (to 1) or counts (to the number of images).
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
    image_size: int | None = Field(default=None, ge=1)
    channels: Literal[1, 3] | None = None
    grey: bool = False
    split: str | None = None
    limit: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    skip_bad: bool = False
    normalize: (
        Annotated[
            Annotated[Literal["own", "imagenet"], Tag("name")] | Annotated[Normalization, Tag("values")],
            Discriminator(lambda given: "name" if isinstance(given, str) else "values"),
        ]
        | None
    ) = None

    @model_validator(mode="before")
    @classmethod
    def _grey_is_one_channel(cls, given: Any) -> Any:
        """Both say so where one does."""
        if not isinstance(given, Mapping) or (given.get("grey") is not True and given.get("channels") != 1):
            return given
        if given.get("channels") not in (None, 1):
            raise ValueError(f"channels: {given['channels']} contradicts grey: true; leave one of the two out")
        return {**given, "channels": 1, "grey": True}

    @field_validator("split")
    @classmethod
    def _split_has_parts(cls, split: str | None) -> str | None:
        if split is not None:
            _numbers(split)
        return split


class DataSettings(TypedDict, total=False):
    """The fields of DataSpec beside the source, as keywords."""

    image_size: int | None
    channels: Literal[1, 3] | None
    grey: bool
    split: str | None
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
    given = source.model_dump() if isinstance(source, DataSpec) else {"source": os.fspath(source)}
    try:
        return DataSpec.model_validate({**given, **settings})
    except ValidationError as error:
        fault = error.errors()[0]
        if not fault["loc"]:  # of several settings, which the message names
            raise SettingError(fault["msg"].removeprefix("Value error, ")) from None
        key = ".".join(map(str, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            raise SettingError(describe(error, DataSpec)) from None
        message = fault["msg"].removeprefix("Value error, ")
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
