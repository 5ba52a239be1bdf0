"""timm and torchvision beside a CPU build of PyTorch, for tests and benches alone.

torchvision's wheel may hold compiled operators for another build of PyTorch. Then its import fails where it describes
operators that were not loaded; with their schemas registered it imports, and all of its classifiers run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@cache
def open_zoo() -> torch.library.Library | None:
    """Makes `import torchvision` and `import timm` possible in this process; the schemas live as long as the result."""
    import torch

    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ImportError("torchvision is not installed: pip install -c constraints.txt -e '.[dev]'")
    try:
        torch.ops.load_library(str(next(Path(spec.origin).parent.glob("_C*.so"))))
        return None
    except (OSError, StopIteration):
        library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            library.define(schema)
        return library


class _Opener(MetaPathFinder):
    """Opens the zoo when torchvision is first imported: torchmetrics imports it wherever it is installed."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            if find_spec(name) is not None:
                open_zoo()


def open_zoo_on_import() -> None:
    """Lets this process import torchvision, and loads nothing before it does."""
    sys.meta_path.insert(0, _Opener())
