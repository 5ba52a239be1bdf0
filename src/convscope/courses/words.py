"""A chain's text → its layers: the grammar of plain networks, windows that are not square, transposed convolutions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

from convscope.courses.steps import Shape, Step, conv_step, pool_step
from convscope.errors import SettingError
from convscope.nets import Word, parse_layers

_UP = re.compile(r"t(\d+(?:[kspdg]\d+(?:x\d+)?|o\d+(?:x\d+)?|[bl])*)")
_EXTRA = re.compile(r"o(\d+)(?:x(\d+))?")
_PAIR = re.compile(r"([kspdo]\d+)x(\d+)")


def steps_of(shape: Shape, layers: str) -> list[Step]:
    """The layers of a text, each by itself; the grammar is told at `chain`."""
    words = layers.split()
    # the grammar of plain networks knows square windows: it reads the numbers of rows, then those of columns
    rows, columns = (parse_layers(" ".join(_one_side(word, side) for word in words)) for side in (0, 1))
    stack = _Stack(shape)
    for text, *sides in zip(words, rows, columns, strict=True):
        _ADD[text[0]](stack, _TwoWords(text, *sides))
    return stack.steps


@dataclass(frozen=True)
class _TwoWords:
    """A word as rows and as columns read it."""

    text: str
    rows: Word
    columns: Word

    @property
    def number(self) -> int:
        return int(self.rows.number or 0)

    def get(self, letter: str, default: int) -> tuple[int, int]:
        return self.rows.settings.get(letter, default), self.columns.settings.get(letter, default)

    def has(self, flag: str) -> bool:
        return flag in self.rows.flags


class _Stack:
    """Layers added so far, and the shape of what comes out of them."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.steps: list[Step] = []
        self._count: Counter[str] = Counter()

    def add(self, name: str, make: Callable[..., Step], *arguments: Any, **settings: Any) -> None:
        self._count[name] += 1
        name = name if name == "flatten" else f"{name}{self._count[name]}"
        try:
            step = make(self.shape, *arguments, **settings, name=name)
        except SettingError as error:
            raise SettingError(f"{name}: {error}") from None
        self.steps.append(step)
        self.shape = step.output_shape


def _one_side(word: str, side: int) -> str:
    """The word with the first or second number of each pair, as a plain network has it."""
    up = _UP.fullmatch(word)
    plain = _EXTRA.sub("", f"c{up[1]}") if up else word
    return _PAIR.sub(lambda pair: pair[1][0] + (pair[1][1:], pair[2])[side], plain)


def _conv(stack: _Stack, word: _TwoWords) -> None:
    kernel, stride, dilation = word.get("k", 3), word.get("s", 1), word.get("d", 1)
    own = tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True))
    padding = tuple(word.get("p", default)[side] for side, default in enumerate(own))
    stack.add("conv", conv_step, word.number, kernel, stride, padding, dilation, word.get("g", 1)[0])
    _norm_behind(stack, word)


def _up(stack: _Stack, word: _TwoWords) -> None:
    found = _EXTRA.search(word.text)
    extra = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    settings = (word.get("k", 2), word.get("s", 2), word.get("p", 0), word.get("d", 1), word.get("g", 1)[0])
    stack.add("up", conv_step, word.number, *settings, True, extra)
    _norm_behind(stack, word)


def _pool(stack: _Stack, word: _TwoWords) -> None:
    kernel = word.get("k", 2)
    stride = tuple(word.get("s", own)[side] for side, own in enumerate(kernel))
    kind = "max" if word.text[0] == "M" else "average"
    stack.add("pool", pool_step, kind, kernel, stride, word.get("p", 0), up=word.has("u"))


def _dense(stack: _Stack, word: _TwoWords) -> None:
    if len(stack.shape) > 1:
        stack.add("flatten", _kept, "flatten", (prod(stack.shape),))
    stack.add("fc", _dense_step, word.number)
    _norm_behind(stack, word)


def _global_pool(stack: _Stack, word: _TwoWords) -> None:
    stack.add("pool", _kept, "adaptive_avg_pool", (stack.shape[0], 1, 1))


def _norm(stack: _Stack, word: _TwoWords) -> None:
    stack.add("bn", _kept, "batch_norm", parameters=2 * stack.shape[0])


def _norm_behind(stack: _Stack, word: _TwoWords) -> None:
    if word.has("b"):
        _norm(stack, word)


def _drop(stack: _Stack, word: _TwoWords) -> None:
    stack.add("drop", _kept, "dropout")


def _kept(shape: Shape, kind: str, output: Shape | None = None, parameters: int = 0, *, name: str) -> Step:
    """A layer that slides no window."""
    return Step(name, kind, shape, output or shape, parameters=parameters)


def _dense_step(shape: Shape, units: int, *, name: str) -> Step:
    weights = shape[0] * units
    return Step(name, "dense", shape, (units,), bias=True, parameters=weights + units, multiply_adds=weights)


_ADD: dict[str, Callable[[_Stack, _TwoWords], None]] = {
    "c": _conv, "t": _up, "f": _dense, "M": _pool, "A": _pool, "G": _global_pool, "B": _norm, "D": _drop
}  # fmt: skip
