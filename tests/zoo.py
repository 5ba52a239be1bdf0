"""timm and torchvision for real, beside a CPU build of PyTorch; for tests and benches alone.

torchvision's wheel may hold compiled operators for another build of PyTorch. Then its import fails where it describes
operators that were not loaded; with their schemas registered it imports, and all of its classifiers run. As torchmetrics
imports whatever torchvision it finds, both packages lie in a folder of their own (see the Makefile), which is on the path
only where a test asks for it.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch

FOLDER = Path(sys.prefix) / "zoo"
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@cache
def open_zoo() -> torch.library.Library | None:
    """Imports torchvision and timm, for `import timm` in this process; the schemas live as long as the result."""
    beside = find_spec("torchvision") is None
    if beside:
        sys.path.append(str(FOLDER))
    try:
        library = _lacking_operators()
        import_module("timm")
    finally:
        if beside:
            sys.path.remove(str(FOLDER))  # processes that this one starts take its path over, and not the schemas
    return library


def _lacking_operators() -> torch.library.Library | None:
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ImportError(f"torchvision is neither installed nor in {FOLDER}: make .venv/.installed-dev")
    try:
        torch.ops.load_library(str(next(Path(spec.origin).parent.glob("_C*.so"))))
        return None
    except (OSError, StopIteration):
        library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            library.define(schema)
        return library
