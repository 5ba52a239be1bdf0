"""What an address of the explorer asks for: a run, units that are switched off, and the rest of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

from convscope.app.explored import ExploredRun
from convscope.errors import RequestError

Know = Callable[..., Any]
"""Gives the answer to a question of `convscope.app.questions`, or None where it has to be worked out first."""


@dataclass(frozen=True)
class State:
    """What an address asks for.

    Attributes:
        runs: all that are explored.
        number: of the run that is looked at.
        off: units that are switched off, by layer.
        query: all that the address says.
        is_copy: whether pages are made for a folder, without a server; see `convscope.app.twin`.
    """

    is_copy: ClassVar[bool] = False

    runs: Sequence[ExploredRun]
    number: int = 0
    off: dict[str, list[int]] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, runs: Sequence[ExploredRun], query: Mapping[str, str]) -> State:
        """The state of an address.

        Raises:
            RequestError: there is no such run, or `off` is not as "conv1:3,5;conv2:0".
        """
        number = read_number(query.get("run", "0"), "run")
        if number >= len(runs):
            raise RequestError(f"run {number}: there are runs 0 to {len(runs) - 1}")
        return cls(runs, number, units_off(query.get("off", "")), query)

    @property
    def run(self) -> ExploredRun:
        """The run that is looked at."""
        return self.runs[self.number]

    def link(self, page: str, **query: Any) -> str:
        """The address of a page for the same run, with the same units switched off."""
        values = {"run": self.number or None, "off": off_in_words(self.off) or None} | query
        parameters = {key: value for key, value in values.items() if value is not None}
        return f"/{page}" + (f"?{urlencode(parameters, quote_via=quote, safe=':,;')}" if parameters else "")

    def image(self, row: int, side: int, box: str = "") -> str:
        """The address of a test image, or of its part in a box, enlarged as far as its longer side is within `side` px."""
        return f"/images/{row}.png?run={self.number}{f'&box={box}' if box else ''}&side={side}"


def off_in_words(off: Mapping[str, Sequence[int]]) -> str:
    """Units as an address names them: "conv1:3,5;conv2:0"."""
    return ";".join(f"{layer}:{','.join(map(str, sorted(units)))}" for layer, units in off.items() if units)


def units_off(text: str) -> dict[str, list[int]]:
    """What `off_in_words` wrote.

    Raises:
        RequestError: it is something else.
    """
    off: dict[str, list[int]] = {}
    for part in filter(None, text.split(";")):
        layer, colon, units = part.rpartition(":")
        if not colon or not layer or not all(map(is_number, units.split(","))):
            raise RequestError(f"off={text}: expected layers with their units, such as conv1:3,5;conv2:0")
        off.setdefault(layer, []).extend(int(unit) for unit in units.split(","))
    return off


def is_number(text: str) -> bool:
    """Whether it is a whole number from 0 on, of a size that the number of an image or unit may have."""
    return text.isdecimal() and len(text) <= 9


def read_number(text: str, name: str) -> int:
    """A number of an address; raises RequestError where it is none."""
    if not is_number(text):
        raise RequestError(f"{name}={text}: expected a number from 0 on")
    return int(text)
