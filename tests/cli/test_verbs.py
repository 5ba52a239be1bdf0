"""Every verb, as a user calls it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convscope.cli import run
from convscope.runs import MODEL, TENSORBOARD
from tests.cli.conftest import Command
from tests.report.made import make_run


def test_a_study_goes_the_whole_way_and_a_second_time_keeps_what_is_there(
    command: Command, study_file: Path, tmp_path: Path
) -> None:
    first = command("study", study_file, "--out", tmp_path / "run", "--json", "--device", "cpu")
    assert first.status == 0
    assert first.json["accuracy"]["low"] < first.json["accuracy"]["value"] <= 1
    assert Path(first.json["report"]).read_text().startswith("<!doctype html>")
    files = {"spec.yaml", "history.parquet", "model.safetensors", "predictions.safetensors", "predictions.parquet",
             "metrics.json", "report.html", "filters.html", "scans", "environment.json", "anatomy.json"}  # fmt: skip
    assert files == {file.name for file in (tmp_path / "run").iterdir()}
    written = (tmp_path / "run" / MODEL).stat().st_mtime_ns
    again = command("study", study_file, "--out", tmp_path / "run", "--device", "cpu")
    assert again.status == 0
    assert (tmp_path / "run" / MODEL).stat().st_mtime_ns == written
    assert "accuracy" in again.out
    assert "report.html" in again.out


def test_train_tells_trackers(command: Command, study_file: Path, tmp_path: Path) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is not installed"
    )
    options = ("--device", "cpu", "--json", "--track", "tensorboard")
    trained = command("train", study_file, "--out", tmp_path / "run", *options)
    found = reader.EventAccumulator(str(tmp_path / "run" / TENSORBOARD)).Reload()
    told = [(event.step, pytest.approx(event.value, rel=1e-6)) for event in found.Scalars("val_loss")]  # of float32
    assert [(row["epoch"], row["val_loss"]) for row in trained.json["history"]] == told


def test_the_same_command_twice_gives_the_same_bits(command: Command, study_file: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert command("train", study_file, "--out", tmp_path / name, "--device", "cpu").status == 0
    assert (tmp_path / "a" / MODEL).read_bytes() == (tmp_path / "b" / MODEL).read_bytes()
    other = command("train", study_file, "--out", tmp_path / "c", "--device", "cpu", "--seed", "1")
    assert other.status == 0
    assert (tmp_path / "a" / MODEL).read_bytes() != (tmp_path / "c" / MODEL).read_bytes()


def test_train_evaluate_report_one_after_another(command: Command, study_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    trained = command("train", study_file, "--out", out, "--json", "--set", "recipe.epochs=2", "--device", "cpu")
    assert [row["epoch"] for row in trained.json["history"]] == [1, 2]
    too_early = command("report", out)
    assert (too_early.status, "convscope evaluate makes it" in too_early.complaint) == (2, True)
    evaluated = command("evaluate", out, "--json", "--device", "cpu")
    assert evaluated.json == json.loads((out / "metrics.json").read_text())
    assert command("evaluate", out, "--device", "cpu").out.count("(") >= 6  # intervals
    assert command("report", out, "--json").json["bytes"] < 8_000_000


@pytest.mark.slow
def test_a_training_killed_in_its_second_epoch_is_resumed_to_the_same_bits(
    command: Command, study_file: Path, tmp_path: Path
) -> None:
    """kill -9 of a real process, at a moment of its own choosing."""
    changes = ("--set", "recipe.epochs=30", "--device", "cpu")
    assert command("train", study_file, "--out", tmp_path / "whole", *changes).status == 0
    killed = tmp_path / "killed"
    arguments = ["train", str(study_file), "--out", str(killed), *changes]
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from convscope.cli import run; sys.exit(run(sys.argv[1:]))", *arguments],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch 1/30"):
            break
    time.sleep(0.05)
    process.kill()
    process.wait()
    process.stderr.close()
    assert not (killed / MODEL).exists()
    resumed = command("train", "--resume", killed, "--device", "cpu")
    assert resumed.status == 0
    assert (killed / MODEL).read_bytes() == (tmp_path / "whole" / MODEL).read_bytes()


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(study_file: Path, tmp_path: Path) -> None:
    import signal

    arguments = [
        "train",
        str(study_file),
        "--out",
        str(tmp_path / "run"),
        "--set",
        "recipe.epochs=200",
        "--device",
        "cpu",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from convscope.cli import run; sys.exit(run(sys.argv[1:]))", *arguments],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch 2/200"):
            break
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait() == 1
    assert "all is saved: go on with convscope train --resume" in rest.splitlines()[-1]
    process.stderr.close()


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_anatomy(command: Command, form: tuple[str, ...]) -> None:
    found = command("anatomy", "vgg-cifar", "--input", "3x32x32", "--set", "batch_norm=false", *form)
    assert found.status == 0
    if form:
        assert (found.json["parameters"], found.json["neurons"]) == (6_216_074, 133_130)
        assert set(found.json["layers"][0]) == {"name", "kind", "output_shape", "parameters", "neurons", "multiply_adds",
                                                "receptive_field", "stride"}  # fmt: skip
    else:
        assert "6,216,074 parameters" in found.out
        assert "15.46 %" in found.out or "15.45 %" in found.out
        assert "98.45 %" in found.out
        assert "…" not in found.out


def test_receptive_fields_of_net4(command: Command) -> None:
    layers = command("anatomy", "net4", "--json").json["layers"]
    convolutions = [layer["receptive_field"] for layer in layers if layer["kind"] == "conv"]
    assert convolutions[:5] == [3, 5, 7, 12, 16]


def test_data(command: Command, study_file: Path, tmp_path: Path) -> None:
    found = command("data", tmp_path / "spots.npz", "--json")
    assert found.json["images"]["train"] + found.json["images"]["val"] + found.json["images"]["test"] == 240
    assert "images per class" in command("data", tmp_path / "spots.npz").out
    names = command("data", "--json").json
    assert {"lines", "mnist", "cifar10", "fashion-mnist", "cats-dogs", "cifar10-grey28"} <= set(names)


def test_version_and_help(command: Command) -> None:
    assert command("--version").out.startswith("convscope 0.")
    shown = command("--help").out
    assert all(verb in shown for verb in ("study", "train", "evaluate", "report", "anatomy", "data"))
    assert "..." not in shown.partition("Commands:")[2]  # no line is cut off
    assert run(["study", "--help"]) == 0


def test_report_of_a_folder_of_runs(command: Command, tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run(tmp_path / "runs" / f"s{seed}", 0.8, seed=seed)
    answer = command("report", tmp_path, "--json")
    assert answer.status == 0
    assert answer.json == {"report": str(tmp_path / "report.html"), "bytes": (tmp_path / "report.html").stat().st_size}
    (tmp_path / "empty").mkdir()
    assert "holds no run: spec.yaml is missing" in command("report", tmp_path / "empty").complaint


@pytest.mark.parametrize("minutes", ["0", "-3", "nan", "inf", "soon"])
def test_minutes_are_a_number_above_0_or_all(command: Command, minutes: str, tmp_path: Path) -> None:
    for verb in (("report", tmp_path), ("study", "mnist", "--out", tmp_path)):
        answer = command(*verb, "--minutes", minutes)
        assert (answer.status, f"--minutes {minutes}: expected a number above 0" in answer.complaint) == (2, True)
    assert not list(tmp_path.iterdir())


def test_a_report_prints_the_figures_and_takes_the_minutes_it_is_given(
    command: Command, study_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert command("study", study_file, "--out", out, "--device", "cpu", "--minutes", "1e-6").status == 0
    assert "the budget of 1e-06 minutes" in (out / "report.html").read_text()
    assert not (out / "filters.html").exists()
    whole = command("report", out, "--minutes", "all")
    assert whole.status == 0
    assert whole.out.index("accuracy") < whole.out.index("report: ")
    assert "the budget of" not in (out / "report.html").read_text()
    assert command("report", out, "--json").json.keys() == {"report", "bytes"}
