"""A chain from a line of text: the words of plain networks, windows that are not square, transposed convolutions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

from convscope.courses.chain import Chain, check_shape, conv, pool
from convscope.errors import SettingError
from convscope.nets import Word, parse_layers

_UP = re.compile(r"t(\d+(?:[kspdg]\d+(?:x\d+)?|o\d+(?:x\d+)?|[bl])*)")
_EXTRA = re.compile(r"o(\d+)(?:x(\d+))?")
_PAIR = re.compile(r"([kspdo]\d+)x(\d+)")


def chain(shape: tuple[int, int, int], layers: str) -> Chain:
    """Layers one after another, from a line of text: "c64k3p0 M c128 f10".

    The words are those of plain networks (convscope.nets.text), and two things more: k, s, p and d take two numbers for
    windows that are not square, rows first, "c64k3x5"; and t64 is a transposed convolution of 64 filters, by default
    k2 s2 p0, with o1 for output padding. No output layer is added.

    Args:
        shape: (C, H, W) of the image.
        layers: the text.

    Raises:
        SettingError: a word that the grammar does not have, or a layer that does not fit; it is named.

    Example:
        >>> chain((3, 32, 32), "c64k3p0 M c128").output_shape
        (128, 15, 15)
    """
    result, count = Chain(shape), Counter[str]()
    check_shape(shape)
    words = layers.split()
    # the grammar of plain networks knows square windows: it reads the numbers of rows, then those of columns
    rows, columns = (parse_layers(" ".join(_one_side(word, side) for word in words)) for side in (0, 1))
    for plain in rows:
        if plain.letter == "W" or "o" in plain.flags or (plain.letter == "f" and plain.number is None):
            raise SettingError(f"{plain.text!r} is not worked by hand; leave it out, or write its plain form (c, f)")
    for word in zip(words, rows, columns, strict=True):
        for kind, add in _layers(*word):
            if kind == "flatten" and len(result.output_shape) == 1:
                continue
            count[kind] += 1
            name = kind if kind == "flatten" else f"{kind}{count[kind]}"
            try:
                result = add(result, name)
            except SettingError as error:
                raise SettingError(f"{name}: {error}") from None
    return result


def _one_side(word: str, side: int) -> str:
    """The word with the first or second number of each pair, as a plain network has it."""
    up = _UP.fullmatch(word)
    plain = _EXTRA.sub("", f"c{up[1]}") if up else word
    return _PAIR.sub(lambda pair: pair[1][0] + (pair[1][1:], pair[2])[side], plain)


_Add = Callable[[Chain, str], Chain]


def _layers(text: str, rows: Word, columns: Word) -> Iterator[tuple[str, _Add]]:
    """The layers of a word: the first part of their names, and how each is added to a chain."""

    def get(letter: str, default: int) -> tuple[int, int]:
        return rows.settings.get(letter, default), columns.settings.get(letter, default)

    n, groups = int(rows.number or 0), rows.settings.get("g", 1)
    match text[0]:
        case "c":
            kernel, stride, dilation = get("k", 3), get("s", 1), get("d", 1)
            defaults = (d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True))
            padding = tuple(get("p", default)[side] for side, default in enumerate(defaults))
            yield "conv", _sliding(conv, n, kernel, stride, padding, dilation, groups)
        case "t":
            matched = _EXTRA.search(text)
            extra = (int(matched[1]), int(matched[2] or matched[1])) if matched else (0, 0)
            yield "up", _sliding(conv, n, get("k", 2), get("s", 2), get("p", 0), get("d", 1), groups, True, extra)
        case "M" | "A":
            kernel = get("k", 2)
            steps = tuple(get("s", default)[side] for side, default in enumerate(kernel))
            kind = "max" if text[0] == "M" else "average"
            yield "pool", _sliding(pool, kind, kernel, steps, get("p", 0), up="u" in rows.flags)
        case "G" | "X":
            kind = "adaptive_avg_pool" if text[0] == "G" else "adaptive_max_pool"
            yield "pool", lambda chain, name: chain.then(name, kind, (chain.output_shape[0], 1, 1))
        case "f":
            yield "flatten", lambda chain, name: chain.then(name, "flatten", (prod(chain.output_shape),))
            yield "fc", lambda chain, name: chain.then(name, "dense", (n,), bias=True)
        case "D":
            yield "drop", lambda chain, name: chain.then(name, "dropout")
    if text[0] == "B" or rows.flags & {"b", "n"}:
        yield "bn", lambda chain, name: chain.then(name, "batch_norm")


def _sliding(make: Callable[..., Chain], *arguments: Any, **settings: Any) -> _Add:
    return lambda chain, name: make(chain.output_shape, *arguments, **settings, behind=chain, name=name)
