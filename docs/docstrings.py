"""Lets mkdocstrings read the house's docstrings: the section that we call Example is Examples to Griffe, and so set as code."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Renames the section in what Griffe has read; the source stays."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
