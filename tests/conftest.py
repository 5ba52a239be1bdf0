"""Shapes and types in annotations are checked while the tests run, and only then."""

from __future__ import annotations

import os

from jaxtyping import install_import_hook

with install_import_hook("convscope", "beartype.beartype"):
    import convscope  # noqa: F401

os.environ.setdefault("COLUMNS", "120")
