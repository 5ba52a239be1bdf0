"""How annotations are checked while the tests run: by beartype, with the names of axes that jaxtyping keeps for each call.

jaxtyping's import hook writes its decorator above every function. That one has beartype write two functions for each of ours
when a file is imported, and at each call binds the arguments by `inspect` and checks them twice: half of the time of the tests.
The decorator below checks the same annotations once, and has the function written when ours is first called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import wraps
from types import FunctionType
from typing import Any, get_type_hints

import jaxtyping
from beartype import BeartypeConf, beartype

_in_jaxtyping = jaxtyping.jaxtyped
_beartyped = beartype(conf=BeartypeConf(is_pep484_tower=True))  # a whole number may stand for a float (PEP 484)


def check_annotations() -> None:
    """From now on what is imported of convscope is checked."""
    jaxtyping.jaxtyped = lambda **_: checked  # the name that the hook writes
    jaxtyping.install_import_hook("convscope", None)


def checked(one: Any) -> Any:
    """A function whose arguments and result are checked when it is called; a dataclass whose fields are."""
    if not isinstance(one, type):
        return _checked(one)
    if is_dataclass(one) and not hasattr(one.__init__, "__wrapped__"):
        one.__init__ = _checked(one.__init__)  # type: ignore[misc]
    return one


def _checked(function: Any) -> Callable[..., Any]:
    if inspect.isgeneratorfunction(function):  # beartype would check its arguments when the first value is taken
        return _in_jaxtyping(function, typechecker=_beartyped)
    written: list[Callable[..., Any]] = []

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if jaxtyping.config.jaxtyping_disable:
            return function(*args, **kwargs)
        if not written:
            written.append(_beartyped(_with_hints(function)))
        with _in_jaxtyping("context"):
            return written[0](*args, **kwargs)

    return call


def _with_hints(function: Any) -> FunctionType:
    """A copy whose annotations are no longer strings; beartype would fail on names that only a type checker imports."""
    copy = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__, copy.__qualname__ = function.__kwdefaults__, function.__qualname__
    copy.__annotations__ = {name: _hint(hint, function.__globals__) for name, hint in function.__annotations__.items()}
    return copy


def _hint(hint: Any, names: dict[str, Any]) -> Any:
    def holder() -> None: ...

    holder.__annotations__ = {"one": hint}
    try:
        return get_type_hints(holder, names, include_extras=True)["one"]
    except Exception:  # not checked, as with jaxtyping's own decorator
        return Any
