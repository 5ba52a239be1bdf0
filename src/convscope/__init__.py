"""convscope trains convolutional image classifiers, compares them honestly, and lets you look inside.

The names below are the public face. They are loaded when first used, so that importing convscope costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_FACE = {
    "DataBundle": "data",
    "ImageSet": "data",
    "Recipe": "runs",
    "Run": "runs",
    "RunSpec": "runs",
    "Scope": "scope",
    "build_net": "nets",
    "compare": "study",
    "evaluate": "scans",
    "histories": "study",
    "load_data": "data",
    "open_run": "runs",
    "open_study": "study",
    "scan": "scans",
    "sweep": "study",
    "table": "study",
    "train": "training",
    "write_report": "report",
}
_ROOMS = (
    "arithmetic", "data", "draw", "errors", "graph", "lenses", "looks", "nets", "report", "runs", "scans", "study", "training"
)  # fmt: skip
__all__ = [*_FACE, *_ROOMS, "__version__"]  # noqa: PLE0604 (the values are strings)


def __getattr__(name: str) -> Any:
    if name in _FACE:
        return getattr(import_module(f"convscope.{_FACE[name]}"), name)
    if name in _ROOMS:
        return import_module(f"convscope.{name}")
    raise AttributeError(f"module 'convscope' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
