from __future__ import annotations

import pytest
import torch

from convscope.lenses import memory
from convscope.lenses.memory import free_memory, portions


def test_what_pytorch_holds_for_later_use_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU, acted: 10 bytes are free, and of 7 that PyTorch has taken 4 are in use."""
    for name, value in (("mem_get_info", (10, 100)), ("memory_reserved", 7), ("memory_allocated", 4)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert free_memory(torch.device("cuda")) == 13


def test_one_at_a_time_where_no_memory_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 0)
    assert list(portions(2, 10, torch.device("cpu"))) == [slice(0, 1), slice(1, 2)]
