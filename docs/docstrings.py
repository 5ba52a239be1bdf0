"""Lets mkdocstrings read the house's docstrings.

The section that we call Example is Examples to Griffe, and so set as code; a section begins after an empty line.
"""

import re
from typing import Any

import griffe

_SECTION = re.compile(r"(?<=[^\n])\n(?=(Args|Attributes|Returns|Yields|Raises|Examples):$)", re.MULTILINE)


class Sections(griffe.Extension):
    """Changes what Griffe has read; the source stays."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = _SECTION.sub("\n\n", text)
