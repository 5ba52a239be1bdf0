"""Small sets made on the spot, the real copies where there are some, and a cache of its own for each test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def find_copies() -> Path | None:
    """The folder of real data sets: CONVSCOPE_DATA, or shared/data beside the repository."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    chosen = Path(os.environ.get("CONVSCOPE_DATA", beside))
    return chosen if chosen.is_dir() else None


COPIES = find_copies()


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CONVSCOPE_CACHE", str(folder))
    monkeypatch.delenv("CONVSCOPE_DATA", raising=False)
    return folder


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Path:
    if COPIES is None:
        pytest.skip("no real data sets: set CONVSCOPE_DATA")
    monkeypatch.setenv("CONVSCOPE_DATA", str(COPIES))
    return COPIES
