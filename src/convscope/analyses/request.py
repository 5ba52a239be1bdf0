"""What an analysis is asked: its settings, each checked, and read from text as it stands on the command line."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from convscope.errors import SettingError, shortened

Reads = Literal["network", "image", "test images"]
"""What an analysis looks at beside the network."""


class Request(BaseModel):
    """The settings of an analysis; None leaves a setting to the analysis.

    The first line of a subclass's docstring is the analysis in one line, and the description of each field its help.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    reads: ClassVar[Reads] = "network"


class ImageRequest(Request):
    """Of an analysis that looks at an image."""

    reads: ClassVar[Reads] = "image"


def _position(value: Any) -> Any:
    if not isinstance(value, str) or value == "max":
        return value
    parts = value.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise ValueError("expected row and column, such as 3,5, or max")
    return int(parts[0]), int(parts[1])


def _unit(value: Any) -> Any:
    if isinstance(value, str) and value != "max" and not value.isdecimal():
        raise ValueError("expected a number, or max")
    return value


def _sizes(value: Any) -> Any:
    if not isinstance(value, str):
        return [value] if isinstance(value, int | tuple) else value
    sizes: list[Any] = []
    for part in value.split(","):
        sides = part.strip().replace("×", "x").split("x")
        if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
            raise ValueError("expected pixels, such as 5, 4x8 (down, across), or several: 3,5,9")
        sizes.append(int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1])))
    return sizes


def _units(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    units: dict[str, list[int]] = {}
    if not value.strip():
        raise ValueError("it names no unit; expected layers with their units, such as 'conv1:0,1 conv3:7'")
    for part in value.split():
        layer, colon, numbers = part.rpartition(":")
        if not colon or not layer or not all(number.isdecimal() for number in numbers.split(",")):
            raise ValueError("expected layers with their units, such as 'conv1:0,1 conv3:7'")
        units.setdefault(layer, []).extend(int(number) for number in numbers.split(","))
    return units


def _fill(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return value  # a name, which occlusion knows


def _edits(value: Any) -> Any:
    from convscope.edits import check  # which loads PyTorch

    return check(value)


_LAYER = "A layer's name; convscope anatomy lists them."
Layer = Annotated[str, Field(description=_LAYER)]
AnyLayer = Annotated[str | None, Field(description=_LAYER)]
Unit = Annotated[
    int | Literal["max"] | None,
    BeforeValidator(_unit),
    Field(description="A unit of the layer; max: the one that answers the image most."),
]
Position = Annotated[
    tuple[int, int] | Literal["max"] | None,
    BeforeValidator(_position),
    Field(description="A neuron of the unit, ROW,COLUMN, or max: where the unit answers most."),
]
Target = Annotated[
    int | str | None,
    Field(
        description="A class by name or number (of several heads angle=45°, or angle); the most probable by default."
    ),
]
Sizes = Annotated[
    list[int | tuple[int, int]] | None,
    BeforeValidator(_sizes),
    Field(
        description="Sides of the occluding square in pixels: 5, 4x8, or several: 5,9; a seventh of the image by default."
    ),
]
Stride = Annotated[
    int | None, Field(ge=1, description="Step of the square in pixels; 1 by default, above 64 px a 28th of the image.")
]
Fill = Annotated[
    float | str | None,
    BeforeValidator(_fill),
    Field(description="What covers the image: grey (default), mean, zero, blur, or a number in 0 … 1."),
]
Units = Annotated[
    dict[str, list[int]] | None,
    BeforeValidator(_units),
    Field(description="Units to ablate together: 'conv1:0,1 conv3:7'."),
]
How = Annotated[
    str | None,
    Field(
        description="How a unit is ablated: zero_activation, where the next layer reads it (default), mean_activation there, "
        "or zero_weights."
    ),
]
TOP = "How many of the strongest images, 20 by default; of unit_effects how many units, 12 by default."
METHOD = "The attribution to examine: grad_cam by default; of a projection pca, the default, or tsne."
Method = Annotated[str, AfterValidator(lambda name: name.replace("-", "_")), Field(description=METHOD)]
Edits = Annotated[
    tuple[Any, ...],
    BeforeValidator(_edits),
    Field(description='Edits of each image: a list such as [["rectangle", [0, 0, 8, 8], "grey"], ["rotate", 15]].'),
]
NImages = Annotated[
    int | None,
    Field(
        ge=1,
        description="How many test images, evenly over the set; by default 50 in faithfulness, invariance and randomization, "
        "1,000 in edit_effect and filter_effects, 2,000 in projection, all in ablate.",
    ),
]
NSamples = Annotated[int | None, Field(ge=1, description="How many noisy copies or random points; 50 by default.")]
Noise = Annotated[
    float | None,
    Field(
        ge=0, description="Deviation of the noise, as a share of the range of the image; 0.15 for smooth_grad, else 0."
    ),
]

_WHERE_FROM = {"layer": "; convscope anatomy lists them"}


def checked(name: str, request: type[Request], settings: dict[str, Any]) -> Request:
    """The request of an analysis with these settings.

    Raises:
        SettingError: a setting is missing, not one of the analysis, or of another kind.
    """
    try:
        return request.model_validate(settings)
    except ValidationError as error:
        raise SettingError(_in_one_line(name, request, error)) from None


def option_of(setting: str) -> str:
    """The option of `convscope look` for a setting."""
    return f"--{setting.replace('_', '-')}"


def _in_one_line(name: str, request: type[Request], error: ValidationError) -> str:
    """What is too much comes first, for it may be what is missing, misspelt; then what is missing, then what is wrong."""
    order = {"extra_forbidden": 0, "missing": 1}
    first = min(error.errors(), key=lambda one: (order.get(one["type"], 2), str(one["loc"][0])))
    setting = str(first["loc"][0])
    option = option_of(setting)
    if first["type"] == "missing":
        return f"{option}: {name} needs one{_WHERE_FROM.get(setting, '')}"
    if first["type"] == "extra_forbidden":
        fields = ", ".join(map(option_of, request.model_fields)) or "none"
        close = get_close_matches(setting, [*request.model_fields, "image", "edit"], n=1)
        cure = f"did you mean {option_of(close[0])}?" if close else "leave it out"
        return f"{option}: {name} has no such setting; {cure} (its settings: {fields})"
    message = first["msg"].removeprefix("Value error, ")
    value = first["input"]
    return f"{option} {value if isinstance(value, str) and len(value) <= 80 else shortened(value)}: {message}"
