"""A small study that repeats a report, run by workers, with its ways of looking."""

import shlex
from pathlib import Path

import pytest
from PIL import Image

from convscope.courses import folder_of, look_again, looks_of, reproduce, reproduced
from convscope.courses.reproduce import LOOKS
from convscope.errors import RunFolderError, UnknownNameError
from convscope.study import open_study
from convscope.study.live import Silent
from tests.courses.repeats import NAME, TEXT, begin, ship, ship_texts


def _times(folder: Path) -> dict[Path, int]:
    """When each file of the runs and each picture was written."""
    files = [path for path in folder.glob("runs/*/*") if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in (*files, *folder.glob("looks/*.png"))}


def test_a_reproduction_has_all_runs_of_its_budget_and_the_looks(repeated: Path) -> None:
    folder = folder_of(repeated, "smoke", NAME)
    study = open_study(folder)
    assert [(run.settings, run.seed, run.state) for run in study.runs] == [
        ({"net.width": 4}, 0, "done"), ({"net.width": 8}, 0, "done")
    ]  # fmt: skip
    assert [len(run.open().history) for run in study.runs] == [1, 1]
    filters, saliency, no_layer, no_run = looks_of(folder)
    assert filters.settings == study.ranking()[0].settings
    assert saliency.settings == {"net.width": 4}
    for look in (filters, saliency):
        assert look.problem == ""
        with Image.open(folder / look.picture) as picture:
            assert min(picture.size) > 50
    assert saliency.heading.startswith("saliency")
    assert filters.about == "The filters of the first layer"
    assert (no_layer.picture, no_run.picture) == ("", "")
    assert no_layer.problem.startswith("layer with filters 'conv9' is not in this network")
    assert no_run.problem == "no finished run with net.width 64 is there to look at"


def test_the_second_time_nothing_is_trained_and_no_picture_is_drawn(
    repeated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(repeated, "smoke", NAME)
    reproduce(NAME, "smoke", repeated, device="cpu", view=Silent())  # of a copied folder the commands are others
    before, looks = _times(folder), looks_of(folder)
    monkeypatch.setattr("convscope.compute.executor.sys.executable", "/bin/false")
    reproduce(NAME, "smoke", repeated, device="cpu", view=Silent())
    assert _times(folder) == before
    assert looks_of(folder) == looks


def test_a_picture_that_is_gone_is_drawn_again_and_a_damaged_list_is_made_anew(repeated: Path) -> None:
    study = open_study(folder_of(repeated, "smoke", NAME))
    first = look_again(study)
    before = _times(study.path)
    (study.path / first[1].picture).unlink()
    assert look_again(study) == first
    after = _times(study.path)
    assert after.keys() == before.keys()
    assert {path.name for path, time in after.items() if time != before[path]} == {"02-saliency.png"}
    index = study.path / LOOKS / "looks.json"
    number = index.read_text().replace('"looks/01-filters.png"', "5")
    for damaged in ("[{", "[" * 3000, "[5]", '{"lens": 1}', number):
        index.write_text(damaged)
        assert looks_of(study.path) == []
    assert look_again(study) == looks_of(study.path) == first


def test_the_command_of_a_look_draws_the_same_picture(repeated: Path) -> None:
    from convscope.cli import run

    folder = folder_of(repeated, "smoke", NAME)
    look = look_again(open_study(folder))[1]
    again = folder / "again.png"
    assert run([*shlex.split(look.command)[1:], "--out", str(again)]) == 0
    assert again.read_bytes() == (folder / look.picture).read_bytes()


def test_before_the_first_run_every_look_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ship(tmp_path, monkeypatch)
    found = look_again(open_study(begin(tmp_path / "runs", "smoke")))
    assert [look.problem for look in found] == [
        "no finished run is there to look at",
        "no finished run with net.width 4 is there to look at",
        "no finished run is there to look at",
        "no finished run with net.width 64 is there to look at",
    ]
    assert looks_of(tmp_path / "runs" / "smoke" / NAME) == found


def test_what_there_is_not_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship(tmp_path, monkeypatch)
    out = tmp_path / "runs"
    with pytest.raises(UnknownNameError, match="study 'plain' is not one that repeats a report; there is two-widths"):
        reproduce("plain", "smoke", out)
    with pytest.raises(
        UnknownNameError, match="budget 'large' is not one of two-widths's; there is smoke, laptop, full"
    ):
        reproduce(NAME, "large", out)
    assert not out.exists()
    folder = folder_of(out, "smoke", NAME)
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="exists and is no study"):
        reproduce(NAME, "smoke", out)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_a_study_whose_settings_changed_is_not_run_into_the_old_ones_folder(
    repeated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_study(folder_of(repeated, "smoke", NAME)).spec.data.source
    text = TEXT.format(source=source).replace("batch: 24", "batch: 12")
    ship_texts(monkeypatch, {NAME: text})
    with pytest.raises(RunFolderError, match=r"holds another study \(recipe differ"):
        reproduce(NAME, "smoke", repeated)
    [found] = reproduced(repeated)
    assert found.problems == ("these runs were made with other settings than the study has now (recipe)",)
