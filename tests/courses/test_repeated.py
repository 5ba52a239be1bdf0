"""The part of a study's report that has the reported figures and the report's ways of looking."""

import re
from base64 import b64decode
from html import unescape
from pathlib import Path

import pytest

from convscope.courses import folder_of, looks_of, reproduced, study_sections
from convscope.report import study_page
from convscope.study import Runs
from tests.courses.repeats import NAME, add, begin, ship
from tests.report.made import make_run


def _section(page: str, part: str) -> str:
    found = re.search(rf'<section id="{part}">(.*?)</section>', page, re.S)
    assert found, part
    return found[1]


def _text(page: str, part: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", _section(page, part))).split())


def test_the_figures_are_those_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ship(tmp_path, monkeypatch)
    folder = begin(tmp_path / "runs")
    for number, seed in [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]:
        add(folder, number, seed, 0.65 + 0.05 * number + 0.004 * seed)
    page = study_page(Runs(folder), study_sections(folder))
    text = _text(page, "repeated")
    [found] = reproduced(tmp_path / "runs")
    mean = found.outcomes[0].found
    assert mean.value == pytest.approx(0.704)
    assert f"the narrow one 80.00 70.40 ({100 * mean.low:.2f} to {100 * mean.high:.2f}) 3 lower" in text
    assert "parameters 173,026 173,026 equal" in text
    assert "parameters as misprinted 173,027 173,026 differs" in text
    assert "a width that no run has 80.00 – not run" in text
    assert "Two widths on bright spots. as reported · 6 of 6 runs" in text
    assert "What contradicts the report the report counts one parameter too many." in text
    assert "Done otherwise, or assumed spots stand in for photographs." in text
    assert "budget: fewer images" not in text
    assert 'href="#repeated">Report B<' in page
    assert 'id="looks"' not in page  # none was drawn


def test_a_smaller_budget_says_so_and_the_looks_are_the_files(repeated: Path) -> None:
    folder = folder_of(repeated, "smoke", NAME)
    page = study_page(Runs(folder), study_sections(folder))
    text = _text(page, "repeated")
    assert "This is the smoke budget: fewer images, epochs or settings than reported" in text
    assert "not compared (smoke)" in text
    looks = looks_of(folder)
    shown = re.findall(
        r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)" style="width: (\d+)px"', _section(page, "looks")
    )
    assert [(b64decode(data), unescape(alt)) for data, alt, _ in shown] == [
        ((folder / look.picture).read_bytes(), look.heading) for look in looks[:2]
    ]
    from PIL import Image

    for look, (_, _, width) in zip(looks, shown, strict=False):
        with Image.open(folder / look.picture) as picture:
            assert picture.width == int(width)
    told = _text(page, "looks")
    assert all(look.about in told for look in looks)
    assert f"No picture: {looks[2].problem}." in told
    assert looks[0].command in told
    assert 'href="#looks">Looks<' in page


def test_a_picture_that_is_gone_is_said(repeated: Path) -> None:
    folder = folder_of(repeated, "smoke", NAME)
    (folder / looks_of(folder)[0].picture).unlink()
    page = study_page(Runs(folder), study_sections(folder))
    assert "No picture: its file is not in the study's folder." in _text(page, "looks")


@pytest.mark.parametrize("picture", ["/etc/hostname", "../../secret", "looks/link.png", "x" * 300])
def test_a_picture_outside_of_the_folder_is_not_shown(repeated: Path, picture: str) -> None:
    folder = folder_of(repeated, "smoke", NAME)
    (repeated / "secret").write_text("secret")
    (folder / "looks" / "link.png").symlink_to(repeated / "secret")
    index = folder / "looks" / "looks.json"
    index.write_text(index.read_text().replace("looks/01-filters.png", picture))
    page = study_page(Runs(folder), study_sections(folder))
    assert len(re.findall("<img", _section(page, "looks"))) == 1
    assert "No picture: its file is not in the study's folder." in _text(page, "looks")


def test_an_ordinary_study_and_a_folder_of_runs_have_no_such_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (0, 1):
        make_run(tmp_path / "plain" / "runs" / f"0001-s{seed}", 0.8, seed=seed)
    assert study_sections(tmp_path / "plain") == []
    (tmp_path / "plain" / "study.yaml").write_text("data: mnist\nnet: net1\nseeds: [0, 1]\n")
    assert study_sections(tmp_path / "plain") == []
    page = study_page(Runs(tmp_path / "plain"), study_sections(tmp_path / "plain"))
    assert 'id="repeated"' not in page
    assert 'id="looks"' not in page
