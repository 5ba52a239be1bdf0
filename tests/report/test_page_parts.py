"""What pages share: the script that draws charts is put together once, and kept where the user's cache is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from convscope import draw
from convscope.report import page

SCRIPT = "var vega = '</script>'"


@pytest.fixture
def put_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """How often the script was put together; the cache is empty."""
    made: list[str] = []
    monkeypatch.setenv("CONVSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(draw, "vega_script", lambda: made.append("") or SCRIPT)
    return made


def test_the_script_is_put_together_once(put_together: list[str], tmp_path: Path) -> None:
    assert [page.vega(), page.vega()] == ["var vega = '<\\/script>'"] * 2
    assert len(put_together) == 1
    [kept] = (tmp_path / "cache" / "charts").iterdir()
    assert json.loads(kept.read_text())["script"] == SCRIPT


def test_of_another_release_anew(put_together: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    page.vega()
    monkeypatch.setattr(page, "version", lambda package: f"{package} of tomorrow")
    page.vega()
    assert len(put_together) == 2


def test_damaged_it_is_put_together_again(put_together: list[str], tmp_path: Path) -> None:
    page.vega()
    [kept] = (tmp_path / "cache" / "charts").iterdir()
    kept.write_text(kept.read_text().replace("vega =", "evil ="))
    assert page.vega() == "var vega = '<\\/script>'"
    assert len(put_together) == 2


def test_where_nothing_can_be_kept_it_is_put_together_each_time(put_together: list[str], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert [page.vega(), page.vega()] == ["var vega = '<\\/script>'"] * 2
    assert len(put_together) == 2
