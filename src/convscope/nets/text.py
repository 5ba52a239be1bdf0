"""Plain networks as a line of text: "c64b M c128b M f1024 D0.5".

A network is a row of words, from the image to the last hidden layer; the output layer is added by the builder.

    c64     convolution of 64 filters, 3×3, stride 1, same padding, then ReLU
    f1024   dense ("fully connected") layer of 1024 units, then ReLU; the maps are flattened before the first
    M       max pool 2×2 (stride = kernel)       A   average pool 2×2
    G       global average pool                  X   global max pool
    B       batch norm                           D0.3   dropout of 30 %
    R       ReLU                                 E   GELU
    W       2×2 convolution that whitens the patches of the images, then ReLU; comes first, and does not learn: its filters are
            fitted to the training images (convscope.nets.Whitening)

Letters behind the number change a word, in any order:

    k5 kernel 5×5 · s2 stride 2 · p0 padding 0 · d2 dilation 2 · g4 groups 4      (c; k, s and p also M and A; k also W)
    b  batch norm between the layer and its ReLU                                 (c, f)
    n  the same without the factor of each channel                               (c, f, B)
    e  GELU in the place of the ReLU                                             (c, f, W)
    l  linear: no ReLU                                                           (c, f, W)
    o  without biases                                                            (c, f)
    u  round a window that sticks out over the edge up ("ceil mode")              (M, A)

A last word "fo" is the output layer, without biases. "c32k7p0 B M f1024" is a 7×7 convolution without padding, ReLU, batch
norm, a pool and a dense layer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from convscope.errors import SettingError

MOST = 65536
Count = Annotated[int, Field(ge=1, le=MOST)]

_WORD = re.compile(r"([cfMAGXBDREW])(\d*\.?\d*)((?:[kspdg]\d+|[blneou])*)")
_LETTER = re.compile(r"([kspdg])(\d+)|([blneou])")
_ALLOWED = {"c": "kspdgbneol", "f": "bneol", "M": "kspu", "A": "kspu", "B": "n", "W": "kel"} | dict.fromkeys(
    "GXDRE", ""
)


@dataclass(frozen=True)
class Word:
    """One word of a network's text: its letter, its number, and the letters behind it."""

    text: str
    letter: str
    number: float | None = None
    settings: dict[str, int] = field(default_factory=dict)
    flags: frozenset[str] = frozenset()


def is_text(name: str) -> bool:
    """Whether a network's name is meant as a text of layers: a word of it is in the grammar, or begins as "c64" does."""
    matches = ((word, _WORD.match(word)) for word in name.split())
    return any(match and (match[2] or match.end() == len(word)) for word, match in matches)


def parse_layers(text: str) -> tuple[Word, ...]:
    """The words of a plain network's text.

    Raises:
        SettingError: a word that the grammar does not have; it is named, with what was expected.

    Example:
        >>> [word.letter for word in parse_layers("c64b M f10")]
        ['c', 'M', 'f']
    """
    words = tuple(_parse_word(word) for word in text.split())
    if not words:
        raise SettingError("layers: the network's text is empty; write for example 'c32 M c64 M f128'")
    first_dense = next((i for i, word in enumerate(words) if word.letter == "f"), len(words))
    for place, word in enumerate(words):
        if place > first_dense and word.letter in "cMAGX":
            raise SettingError(f"layers: {word.text!r} comes after a dense layer, where there are no maps any more")
        if place and word.letter == "W":
            raise SettingError(
                f"layers: {word.text!r} is not the first word; it whitens the images, so it comes before all others"
            )
        if word.letter == "f" and word.number is None and (place + 1 < len(words) or word.flags - {"o"}):
            raise SettingError(
                f"layers: {word.text!r} has no number of units, such as f128; the last word may be 'fo', the output layer"
            )
    return words


def _parse_word(text: str) -> Word:
    match = _WORD.fullmatch(text)
    if match is None:
        raise SettingError(
            f"layers: {text!r} is no layer; expected c64, f128, M, A, G, X, B or D0.3, "
            "with letters such as k5 s2 p0 b behind (see convscope.nets.text)"
        )
    letter, number, rest = match.groups()
    letters = [(key or flag, value) for key, value, flag in _LETTER.findall(rest)]
    for key, value in letters:
        if key not in _ALLOWED[letter]:
            allowed = ", ".join(_ALLOWED[letter]) or "none"
            raise SettingError(f"layers: {text!r}: the letter {key!r} does not go with {letter!r}; allowed: {allowed}")
        least = 0 if key == "p" else 1
        if value and not least <= float(value) <= MOST:
            raise SettingError(f"layers: {text!r}: {key} takes a whole number from {least} to {MOST}")
    return Word(
        text,
        letter,
        _checked_number(text, letter, number),
        {key: int(float(value)) for key, value in letters if value},
        frozenset(key for key, value in letters if not value),
    )


def _checked_number(text: str, letter: str, number: str) -> float | None:
    if letter == "f" and not number:
        return None
    if letter in "cf" and not (number.isdigit() and 1 <= float(number) <= MOST):
        raise SettingError(f"layers: {text!r} needs a whole number of units from 1 to {MOST}, such as {letter}64")
    if letter == "D" and not (number and number != "." and 0 <= float(number) < 1):
        raise SettingError(f"layers: {text!r} needs a share from 0 to below 1, such as D0.3")
    if letter not in "cfD" and number:
        hint = f"; a kernel is written {letter}k{number}" if "k" in _ALLOWED[letter] and number.isdigit() else ""
        raise SettingError(f"layers: {text!r} takes no number{hint}")
    return float(number) if number else None
