"""Words in pictures: in the letters of Source Sans Pro, and where it lacks one, in those of this machine."""

from __future__ import annotations

import io
import re
import sys
from functools import lru_cache
from html import escape
from typing import Any

from PIL import Image, ImageDraw, ImageFont

_NO_LETTER = "\ue000"  # for private use: no font has it
_NO_XML = re.compile("[\x00-\x1f\ud800-\udfff\ufffe\uffff]")
_told_of: set[str] = set()


def write(canvas: Image.Image, place: tuple[int, int], text: str, size: int, colour: tuple[int, int, int]) -> None:
    """Writes one line on a canvas, its left upper corner at `place`."""
    if _are_own(text):
        ImageDraw.Draw(canvas).text(place, text, fill=colour, font=_font(size))
    else:
        letters = _other_letters(text, size)
        canvas.paste(colour, (*place, place[0] + letters.width, place[1] + letters.height), letters)


def length(text: str, size: int) -> float:
    """Of a line, in pixels."""
    return _font(size).getlength(text) if _are_own(text) else _other_letters(text, size).width


def tell_missing(text: str) -> None:
    """Says once of each letter that no font of this machine has it."""
    others = {letter for letter in set(text) - _told_of if letter.isprintable() and not _is_own(letter)}
    box = _other_letters(_NO_LETTER, 16) if others else None
    missing = sorted(letter for letter in others if _other_letters(letter, 16) == box)
    _told_of.update(others)
    if missing:
        letters = "".join(missing[:8]) + (" …" if len(missing) > 8 else "")
        print(  # noqa: T201
            f"note: no font on this machine has the letters {letters}, so pictures show boxes; install one, such as Noto",
            file=sys.stderr,
        )


def _are_own(text: str) -> bool:
    if all(map(_is_own, text)):
        return True
    tell_missing(text)
    return False


@lru_cache(None)
def _is_own(letter: str) -> bool:
    return letter.isascii() or bytes(_font(16).getmask(letter)) != bytes(_font(16).getmask(_NO_LETTER))


@lru_cache
def _other_letters(text: str, size: int) -> Image.Image:
    """A line as a mask: vl-convert finds the fonts, joins letters and turns those that are read from the right."""
    import vl_convert

    ascent, descent = _font(size).getmetrics()
    safe = escape(_NO_XML.sub("\ufffd", text))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * size * (len(text) + 1)}" height="{ascent + descent + size // 3}">'
        f'<text x="0" y="{ascent}" font-family="DejaVu Sans, sans-serif" font-size="{size}">{safe}</text></svg>'
    )
    with Image.open(io.BytesIO(vl_convert.svg_to_png(svg))) as drawn:
        mask = drawn.convert("RGBA").getchannel("A")
    return mask.crop((0, 0, (mask.getbbox() or (0, 0, 0, 0))[2], mask.height))


@lru_cache
def _font(size: int) -> Any:
    """Source Sans Pro from its package, so that pictures are the same everywhere; Pillow's own font has no é and no ×."""
    from font_source_sans_pro import SourceSansPro

    return ImageFont.truetype(SourceSansPro, size)
