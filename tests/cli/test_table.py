"""convscope table, as a user calls it."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from convscope.runs import METRICS, MODEL, OUTCOME, SPEC, open_run
from convscope.study import table
from tests.cli.conftest import Command
from tests.report.made import make_run


def diverged(grid: Path) -> None:
    run = grid / "runs" / "0003-s1"
    for part in (METRICS, MODEL):
        (run / part).unlink()
    (run / OUTCOME).write_text('{"state": "diverged", "message": "the loss is inf in epoch 2", "attempts": 1}')


def cells(text: str, first: str) -> list[str]:
    """The cells of the one line that begins so."""
    [line] = [line for line in text.splitlines() if line.startswith(first)]
    return line.split()


def test_a_row_a_run_on_the_terminal(command: Command, grid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    diverged(grid)
    answer = command("table", grid)
    assert answer.status == 0
    assert answer.out.splitlines()[0] == "8 runs: 7 finished, 1 diverged"
    run = open_run(grid / "runs" / "0002-s1")
    last, test = run.history.iloc[-1], run.metrics
    parameters = sum(p.numel() for p in run.net.parameters())
    assert cells(answer.out, "runs/0002-s1") == [
        "runs/0002-s1", "8", "3", "1", "finished", "3", f"{100 * last.val_accuracy:.2f}",
        f"{100 * test['accuracy']['value']:.2f}", f"{100 * last.train_accuracy:.2f}",
        f"{100 * (last.train_accuracy - test['accuracy']['value']):.2f}", f"{last.val_loss:.4f}", f"{last.train_loss:.4f}",
        f"{parameters:,}", f"{run.history.seconds.sum():.1f}",
    ]  # fmt: skip
    assert "runs/0003-s1 diverged: the loss is inf in epoch 2" in answer.out.splitlines()


def test_groups_and_their_matrix(command: Command, grid: Path) -> None:
    frame = table(grid, by=["net.width", "net.kernel"], metrics=["val_loss"]).set_index(["net.width", "net.kernel"])
    answer = command("table", grid, "--by", "net.width,net.kernel", "--metric", "val_loss")
    mean, deviation, low, high = (frame.loc[(4, 5), f"val_loss{part}"] for part in ("", "_deviation", "_low", "_high"))
    assert f"{mean:.4f} ± {deviation:.4f} ({low:.4f} to {high:.4f})" in next(
        line for line in answer.out.splitlines() if line.split()[:3] == ["4", "5", "2"]
    )
    assert "val loss: mean by net.width (down) and net.kernel (across)" in answer.out.splitlines()
    assert answer.out.splitlines()[-1].split() == ["8", *(f"{frame.loc[(8, k), 'val_loss']:.4f}" for k in (3, 5))]
    three = command("table", grid, "--by", "net.width,net.kernel,recipe.seed", "--metric", "val_loss")
    assert three.out.count("mean by") == 3
    assert "averaged over recipe.seed" in three.out


def test_groups_count_the_runs_that_did_not_finish(command: Command, grid: Path) -> None:
    diverged(grid)
    answer = command("table", grid, "--by", "net.width", "--metric", "parameters", "--metric", "val_accuracy")
    header, *rows = [line.split() for line in answer.out.splitlines()[3:]]
    assert header == ["width", "runs", "finished", "parameters", "accuracy", "%"]
    assert [row[:3] for row in rows] == [["4", "4", "0"], ["8", "3", "1"]]


def test_json(command: Command, grid: Path) -> None:
    diverged(grid)
    found = command("table", grid, "--json").json
    assert (found["runs"], found["states"], found["notes"]) == (8, {"finished": 7, "diverged": 1}, [])
    assert found["rows"][7]["test_accuracy"] is None
    row, metrics = found["rows"][0], json.loads((grid / "runs" / "0000-s0" / METRICS).read_text())
    assert [row[f"test_accuracy{part}"] for part in ("", "_low", "_high")] == list(metrics["accuracy"].values())
    grouped = command("table", grid, "--by", "net.width,net.kernel", "--metric", "val_loss", "--format", "json").json
    [matrix] = grouped["matrices"]
    assert (matrix["row_values"], matrix["column_values"]) == ([4, 8], [3, 5])
    assert matrix["cells"][1][0] == pytest.approx(grouped["rows"][2]["val_loss"])


def test_a_file_of_an_unknown_kind_is_refused(command: Command, grid: Path, tmp_path: Path) -> None:
    for name in ("t.xlsx", "t.tsv"):
        answer = command("table", grid, "--out", tmp_path / name)
        assert answer.status == 2
        assert f"{name}: {Path(name).suffix} cannot be written; expected .md, .csv, .parquet" in answer.complaint
        assert not (tmp_path / name).exists()


@pytest.mark.parametrize("ending", ["csv", "parquet", "json", "md", "txt"])
def test_files(command: Command, grid: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / "new" / f"table.{ending}"
    answer = command("table", grid, "--out", out)
    assert answer.out == f"{out}: 8 runs\n"
    expected = table(grid)
    if ending == "csv":
        found = pd.read_csv(out)
    elif ending == "parquet":
        found = pd.read_parquet(out)
    elif ending == "json":
        found = pd.DataFrame(json.loads(out.read_text())["rows"])
    else:
        lines = [line for line in out.read_text().splitlines() if "runs/0003-s0" in line]
        assert len(lines) == 1
        assert f"{100 * expected.val_accuracy[6]:.2f}" in lines[0]
        return
    assert found.pop("message").isna().all()
    pd.testing.assert_frame_equal(found, expected.drop(columns="message"), check_dtype=False, rtol=1e-12)


def test_markdown_is_a_table(command: Command, grid: Path) -> None:
    lines = command("table", grid, "--format", "md", "--metric", "val_accuracy").out.splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 8 + 2
    assert len({line.count("|") for line in rows}) == 1
    assert rows[0].startswith(
        "| run | net.width | net.kernel | seed | state | epoch | val accuracy % | parameters | seconds |"
    )


def test_a_setting_of_several_lines_stays_in_its_row(command: Command, tmp_path: Path) -> None:
    for name, layers in (("a", "c8b M\nf8"), ("b", "c8b | f8")):
        make_run(tmp_path / name, 0.9, layers=layers)
    lines = command("table", tmp_path, "--format", "md", "--metric", "val_accuracy").out.splitlines()
    assert [line.split(" | ")[1] for line in lines if line.startswith(("| a", "| b"))] == ["c8b M f8", r"c8b \| f8"]


def test_csv_is_data_and_notes_are_not(command: Command, grid: Path) -> None:
    answer = command("table", grid, "--format", "csv", "--epoch", "1")
    rows = list(csv.DictReader(io.StringIO(answer.out)))
    assert [row["epoch"] for row in rows] == ["1"] * 8
    assert answer.err.startswith("note: test figures belong to the weights that were kept; 8 of 8 runs")


def test_mixed_data_sets_stand_above_the_table(command: Command, grid: Path) -> None:
    path = grid / "runs" / "0000-s0" / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data": {"name": "other", "digest": "0"}}))
    lines = command("table", grid).out.splitlines()
    assert lines[1].startswith("note: the runs are of 2 data sets (1 of other, 7 of spots")


def test_importance(command: Command, grid: Path) -> None:
    answer = command("table", grid, "--importance", "--metric", "val_loss")
    assert "Of the variance of val_loss over 8 runs, " in answer.out
    assert {"net.width", "net.kernel", "chance"} <= {
        line.split()[0] for line in answer.out.splitlines() if line.strip()
    }
    found = command("table", grid, "--importance", "--metric", "val_loss", "--json").json["importance"]
    assert sum(part["share"] for part in found["terms"] + found["rest"]) == pytest.approx(1)
    assert found["in_words"] in answer.out
    assert "counts as chance" not in answer.out
    of_one = command("table", grid, "--importance", "--metric", "val_loss", "--by", "net.width").out
    assert of_one.splitlines()[-1] == "analysis of variance, type II; what net.kernel did counts as chance"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--by", "net.widht"), "setting 'net.widht' is not in these runs; did you mean 'net.width'? there is net.width, "),
        (("--metric", "accuracy"), "metric 'accuracy' is not in these runs; did you mean 'val_accuracy'? there is"),
        (("--epoch", "9"), "no run has an epoch 9; the longest has 3"),
        (("--epoch", "first"), "epoch 'first': expected best, last, or a number from 1"),
        (("--format", "parquet"), "--format parquet: it is no text; say where to write it: --out FILE.parquet"),
        (("--format", "csv", "--json"), "--json and --format csv: give one of them"),
        (("--format", "csv", "--importance"), "--importance: csv has room for one table only"),
        (("--importance", "--metric", "parameters", "--by", "recipe.batch"), "recipe.batch is 24 in all 8 runs"),
    ],
)  # fmt: skip
def test_bad_requests(command: Command, grid: Path, options: tuple[str, ...], complaint: str) -> None:
    answer = command("table", grid, *options)
    assert answer.status == 2
    assert complaint in answer.complaint
    assert answer.out == ""


def test_a_folder_without_runs(command: Command, tmp_path: Path) -> None:
    answer = command("table", tmp_path)
    assert (answer.status, "has no runs below it; expected folders with a spec.yaml" in answer.complaint) == (2, True)


def test_pytorch_is_not_loaded(grid: Path) -> None:
    """It takes two seconds, more than the table of ten thousand runs."""
    code = "import sys; from convscope.cli import run; run(sys.argv[1:]); print('torch' in sys.modules)"
    arguments = ["table", str(grid), "--by", "net.width,net.kernel", "--importance"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Settings by dotted key."""
    parts = [flat(v, f"{above}{k}.") if isinstance(v, Mapping) else {f"{above}{k}": v} for k, v in settings.items()]
    return {key: value for part in parts for key, value in part.items()}


def other(value: Any) -> Any:
    """A setting's value that differs, of the same kind."""
    if isinstance(value, Mapping):
        return {key: other(one) for key, one in value.items()}
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else [1, "two"] if isinstance(value, list) else f"{value} other"


@pytest.fixture
def all_different(tmp_path: Path) -> tuple[Path, list[str]]:
    """Two runs that differ in every setting there is, and in some whose names end as those of figures do."""
    like_figures = ("accuracy", "precision", "top5", "train_loss", "seconds", "parameters", "overfit_percent")
    options = dict.fromkeys(like_figures, "words") | {"first_low": 1, "n_high": 2, "blocks_n": 3}
    runs = [make_run(tmp_path / name, 0.8 + 0.1 * n) for n, name in enumerate("ab")]
    given = yaml.safe_load((runs[0] / SPEC).read_text()) | {"task": {"class": {"kind": "softmax", "precision": "x"}}}
    given["net"] |= options
    (runs[0] / SPEC).write_text(yaml.safe_dump(given))
    settings = {key: value for key, value in given.items() if key not in ("format", "about")}
    (runs[1] / SPEC).write_text(yaml.safe_dump(given | other(settings)))
    return tmp_path, [key for key in flat(settings) if key != "recipe.seed"]


@pytest.mark.parametrize("form", ["text", "md", "csv", "parquet", "json"])
@pytest.mark.parametrize("every", [(), ("--all",)])
def test_runs_that_differ_in_every_setting(
    command: Command, all_different: tuple[Path, list[str]], form: str, every: tuple[str, ...]
) -> None:
    folder, keys = all_different
    out = folder / f"all.{'txt' if form == 'text' else form}"
    answer = command("table", folder, *every, "--format", form, "--out", out)
    assert (answer.status, answer.err) == (0, "")
    if form == "parquet":
        assert set(keys) <= set(pd.read_parquet(out).columns)
    elif form == "md":
        header = next(line for line in out.read_text().splitlines() if line.startswith("|"))
        assert set(keys) <= {cell.strip() for cell in header.split("|")}
    elif form == "text":
        assert all(key.rpartition(".")[2] in out.read_text() for key in keys)
    else:
        assert all(key in out.read_text() for key in keys)


def test_a_setting_is_shown_as_it_is_whatever_its_name(command: Command, all_different: tuple[Path, list[str]]) -> None:
    folder, keys = all_different
    for key in keys:
        lines = command("table", folder, "--by", key, "--metric", "val_accuracy", "--format", "md").out.splitlines()
        [header, _, *rows] = [line for line in lines if line.startswith("|")]
        assert header.split("|")[1].strip() == key
        assert len(rows) == 2
    both = command(
        "table", folder, "--by", "net.blocks_n,net.precision", "--metric", "val_accuracy", "--format", "md"
    ).out
    assert "| 3 | words | 1 | 80.00 |" in both
    assert "| net.blocks_n \\ net.precision | words | words other |" in both
