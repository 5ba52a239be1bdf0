"""What all models of settings share: a wrong one is a SettingError of one line, which suggests the key that was meant."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError, field_validator

from convscope.errors import SettingError, shortened

if TYPE_CHECKING:
    Settings = BaseModel
else:

    class _InOneLine(type(BaseModel)):
        """Only a call by a user comes here: parts of a larger model are checked as its fields, and named with their path."""

        def __call__(cls, *arguments: Any, **settings: Any) -> Any:
            try:
                return super().__call__(*arguments, **settings)
            except ValidationError as error:
                raise SettingError(f"{cls.__name__}: {describe(error, cls)}") from None

    class Settings(BaseModel, metaclass=_InOneLine):
        """A pydantic model whose constructor raises SettingError, and to which True is not the number 1."""

        @field_validator("*", mode="before")
        @classmethod
        def _numbers_are_numbers(cls, value: Any, info: Any) -> Any:
            if isinstance(value, bool):
                kinds = _kinds_in(cls.model_fields[info.field_name].annotation)
                if kinds & {int, float} and bool not in kinds:
                    raise ValueError(f"{value}: Input should be a number")
            return value


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """The first complaint of pydantic about a model as 'key: what was given: what was expected'.

    A key that is misspelled comes before one that is missing for it.
    """
    complaints = error.errors()
    first = next((one for one in complaints if one["type"] == "extra_forbidden"), complaints[0])
    path = [str(part) for part in first["loc"] if not str(part).startswith(("dict[", "literal["))]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        return f"{key}: there is no such setting; {_meant(path, model)}"
    if first["type"] == "missing":
        return f"{key}: is missing"
    message = first["msg"].removeprefix("Value error, ")
    lead = f"{key}: " if key else ""
    return f"{lead}{message}" if first["type"] == "value_error" else f"{lead}{shortened(first['input'])}: {message}"


def _meant(path: list[str], model: type[BaseModel]) -> str:
    """The key beside it that is spelled alike, else the one of that name elsewhere, else all that there are."""
    *above, last = path
    beside = _model_at(model, above)
    names = list(beside.model_fields) if beside else []
    if close := get_close_matches(last, names, n=1):
        return f"did you mean {'.'.join([*above, close[0]])}?"
    elsewhere = [key for key in _dotted(model) if key.rpartition(".")[2] == last]
    return f"did you mean {elsewhere[0]}?" if elsewhere else f"there is {', '.join(names)}"


def _model_at(model: type[BaseModel] | None, path: list[str]) -> type[BaseModel] | None:
    """The model at a path of keys; a number in it is a place in a list of models."""
    for part in path:
        if model is not None and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation)
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The first model in an annotation, such as that of `tuple[Stage, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def _kinds_in(annotation: Any) -> set[Any]:
    return {annotation}.union(*map(_kinds_in, get_args(annotation)))


def _dotted(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """All keys of a model and of those in it, but not of lists of them."""
    for name, field in model.model_fields.items():
        yield above + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _dotted(field.annotation, f"{above}{name}.")
