"""What the tests share that need a CUDA device; they are skipped where there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

CUDA = torch.device("cuda", 0)


def on_gpu(test: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a test that needs a CUDA device."""
    without = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    return pytest.mark.gpu(without(test))


@pytest.fixture
def full_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN rounds the factors of float32 convolutions to 10 bits of mantissa (TF32) unless it is told not to.

    By the older of PyTorch's two settings: with the newer one, for convolutions alone, `torch.export` fails.
    """
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def assert_near(there: Tensor, here: Tensor, share: float = 1e-10) -> None:
    """What came from a GPU is there, of the same type, and equal to what came from the CPU.

    Args:
        there, here: from the GPU and the CPU.
        share: of the largest value. Sums of some thousand float64 terms, rounded in another order, differ by less than 1e-12.
    """
    assert (there.device, here.device.type, there.dtype) == (CUDA, "cpu", here.dtype)
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=share * float(here.abs().max()), equal_nan=True)
