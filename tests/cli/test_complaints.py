"""A request that cannot be met: one line that says what is wrong and what to do, exit status 2, nothing half-written."""

import subprocess
import sys
from pathlib import Path

import pytest

from convscope.cli import _command
from convscope.cli.look import _FLAGS
from convscope.runs import Run
from tests.cli.conftest import Command

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["studdy"], "No such command 'studdy'. Did you mean 'study'?"),
        (["train", "lines", "--epochs", "3"], "No such option: --epochs; convscope train --help lists what there is"),
        (["study"], "give a study, such as lines, or --data and --net"),
        (["study", "mnits"], "study 'mnits' is not shipped, and no YAML file; did you mean 'mnist'?"),
        (["study", "none.yaml"], "study file 'none.yaml' is not there"),
        (["study", "lines", "--set", "recipe.epocs=1"], "recipe.epocs: there is no such setting"),
        (["study", "lines", "--set", "recipe.epocs=1"], "did you mean recipe.epochs?"),
        (["train", "lines", "--set", "epochs=1"], "epochs: there is no such setting; did you mean recipe.epochs?"),
        (["train", "lines", "--set", "nett=net1"], "nett: there is no such setting; did you mean net?"),
        (["train", "lines", "--set", "recipe.augmentation.flipp=1"], "did you mean recipe.augmentation.flip?"),
        (["train", "lines", "--set", "recipe.stages=[{name: a, epochs: 1, rat: 1}]"], "did you mean recipe.stages.0.rate?"),
        (["train", "lines", "--set", "recipe.zzz=1"], "recipe.zzz: there is no such setting; there is optimizer, rate"),
        (["sweep", "net1-grid", "--dry-run", "--set", "sweep.net.widht=[1]"], "sweep.net.widht: option 'widht' is not one of"),
        (["sweep", "net1-grid", "--dry-run", "--set", "net.widht=1"], "net.widht: option 'widht' is not one of net1"),
        (["sweep", "net1-grid", "--dry-run", "--set", "sweeep=1"], "sweeep: there is no such setting; did you mean sweep?"),
        (["sweep", "net1-grid", "--dry-run", "--set", "sweep.net.name=[net0]"], "sweep.net.name: network 'net0' is not in"),
        (["train", "fashion-mnist"], "fashion-mnist is data; name a network too: convscope train --data fashion-mnist --net"),
        (["train", "/"], "/ is data; name a network too: convscope train --data / --net lean-cifar"),
        (["train", "--data", "mnist"], "give a study, such as lines, or --data and --net, such as --data photos --net"),
        (["study", "--net", "net1"], "give a study, such as lines, or --data and --net"),
        (["train", "--data", "mnist", "--net", "net1", "--set", "recipe.epoch=1"], "--data and --net: recipe.epoch: there"),
        (["train", "--data", "mnist", "--resume", "x"], "--resume goes on with the run's own spec; leave a spec, --data"),
        (["study", "pictures.npz"], "pictures.npz is data;"),
        (["train", "--find-rate", "--resume", "x"], "--skip-bad, --threads, --find-rate out"),
        (["train", "lines", "--find-rate", "--set", "recipe.rate=0.1"], "--find-rate finds the rate that --set recipe.rate"),
        (
            ["train", "--data=mnist", "--net=net1", "--find-rate", "--set", "recipe.stages=[{name: a, epochs: 1, rate: 1}]"],
            "rate: find (--find-rate) is for a recipe without stages",
        ),
        (["study", "lines", "--set", "recipe.epochs"], "expected key=value"),
        (["study", "lines", "--set", "recipe.rate=-1"], "recipe.rate: -1: Input should be greater than 0"),
        (["study", "lines", "--set", "recipe.rate=true"], "recipe.rate: True: Input should be a number"),
        (["study", "lines", "--set", "recipe.epochs=true"], "recipe.epochs: True: Input should be a number"),
        (["study", "lines", "--set", "data.image_size=99999"], "data.image_size: 99999: Input should be less than"),
        (["study", "lines", "--set", "data.limit=960", "--set", "net=net9"], "network 'net9' is not in the catalogue"),
        (["study", "lines", "--set", "data.limit=960", "--device", "cuda:9"], "device: 'cuda:9' is not in this machine"),
        (["train"], "train: give a spec, such as lines, or --data and --net, or --resume RUN"),
        (["train", "lines", "--track", "tensorbord"], "did you mean 'tensorboard'? there is tensorboard, mlflow, wandb"),
        (["study", "lines", "--track", "mlflow", "--track", "x"], "tracker 'x' is not known"),
        (["train", "--resume", "nowhere"], "nowhere is no folder; expected a run"),
        (["train", "--resume", ".", "--seed", "1"], "--set, --out, --seed, --skip-bad, --threads, --find-rate out"),
        (["evaluate", "nowhere"], "nowhere is no folder; expected a run"),
        (["report", "."], "holds no run: spec.yaml is missing"),
        (["anatomy", "net4", "--input", "32x32"], "--input 32x32: expected channels, height and width, such as 3x32x32"),
        (["anatomy", "net4", "--input", "3x4x4"], "net4: conv2: its 3×3 window|net4: conv3|net4: conv4|net4: pool"),
        (["anatomy", "net4", "--set", "widht=3"], "option 'widht' is not one of net4's"),
        (["anatomy", "net1", "--set", "init=bogus"], "net.init: 'bogus' for net1"),
        (["anatomy", "net1", "--set", "name=net2"], "--set name: the network is named by the first argument"),
        (["anatomy", ":foo"], ":foo names no module"),
        (["data", "lines", "--set", "source=mnist"], "--set source: the data set is named by the first argument"),
        (["study", "lines", "--set", "format=99", "--set", "data.limit=96"], "written by a newer convscope"),
        (["study", "lines", "--set", "recipe.rate=.inf"], "recipe.rate: inf"),
        (["data", "no-such-set"], "no-such-set"),
        (["data", "lines", "--set", "limit=960", "--set", "split=70/50"], "adds up to 120"),
        (["data", "lines", "--set", "limt=3"], "limt: there is no such setting; did you mean limit?"),
    ],
)  # fmt: skip
def test_one_line_and_status_two(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    found = command(*arguments)
    assert found.status == 2
    assert any(part in found.complaint for part in expected.split("|")), found.complaint
    assert found.out == ""
    assert not list(tmp_path.iterdir())


def test_a_failure_on_the_way_is_status_one(command: Command, study_file: Path, tmp_path: Path) -> None:
    changes = ("--set", "recipe.optimizer=sgd", "--set", "recipe.rate=1e9", "--set", "recipe.schedule=constant")
    found = command("train", study_file, "--out", tmp_path / "run", *changes, "--device", "cpu")
    assert found.status == 1
    assert "the loss is" in found.complaint
    assert "try a lower recipe.rate" in found.complaint


def test_a_working_folder_that_was_removed(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    found = command("conv", "3x32x32", "c4")
    assert (found.status, found.complaint) == (1, "the working folder was removed; change to one that is there")


def test_a_misspelt_option_of_a_lens_comes_before_what_is_missing(command: Command, reported: Run) -> None:
    for lens, option, meant in (("grad_cam", "--imag", "--image"), ("ablate", "--unts", "--units")):
        complaint = command("look", reported.path, lens, option, "7").complaint
        assert complaint.startswith(f"{option}: {lens} has no such setting; did you mean {meant}?"), complaint


def test_a_misspelt_flag_of_look_takes_no_word_for_its_value(command: Command) -> None:
    for words in (("runs/x", "--jsn", "grad_cam"), ("runs/x", "grad_cam", "--jsn")):
        assert command("look", *words).complaint == "--jsn: look has no such option; did you mean --json?"
    look = _command(["look"]).commands["look"]
    assert set(_FLAGS) == {option.opts[0] for option in look.params if getattr(option, "is_flag", False)}
    assert command("look", "runs/x", "grad_cam", "--layer=").complaint == "--layer=: expected a value after it"


def test_a_name_that_is_not_utf8(command: Command) -> None:
    for words in (("table", "runs/\udcff"), ("train", "lines", "--out", "runs/\udcff")):
        found = command(*words)
        assert (found.status, found.complaint.endswith("this name is not valid UTF-8; rename the file or folder")) == (
            2,
            True,
        )


def test_an_error_of_our_own_is_one_line_too(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    import convscope.study

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug\nin two lines")

    monkeypatch.setattr(convscope.study, "anatomy_by_name", broken)
    found = command("anatomy", "net4")
    assert found.status == 1
    assert found.complaint == "unexpected ZeroDivisionError: a bug in two lines (--debug shows where)"
    assert "Traceback" in command("anatomy", "net4", "--debug").err


def test_a_taken_folder_is_refused(command: Command, study_file: Path, tmp_path: Path) -> None:
    assert command("train", study_file, "--out", tmp_path / "run", "--device", "cpu").status == 0
    again = command("train", study_file, "--out", tmp_path / "run", "--device", "cpu")
    assert (again.status, "holds a finished run already" in again.complaint) == (2, True)
    other = command("study", study_file, "--out", tmp_path / "run", "--set", "recipe.epochs=1", "--device", "cpu")
    assert (other.status, "other settings (recipe)" in other.complaint) == (2, True)


def test_bad_images_are_named_and_can_be_skipped(command: Command, tmp_path: Path) -> None:
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(12):
            Image.new("RGB", (16, 16), (10 * i, 99, 20)).save(tmp_path / "pets" / name / f"{i}.png")
    broken = tmp_path / "pets" / "cat" / "broken.jpg"
    broken.write_bytes(b"no image at all")
    stopped = command("data", tmp_path / "pets")
    assert stopped.status == 2
    assert "broken.jpg" in stopped.complaint
    skipped = command("data", tmp_path / "pets", "--skip-bad", "--json")
    assert skipped.status == 0
    assert [Path(row["file"]).name for row in skipped.json["left_out"]] == ["broken.jpg"]


def test_a_folder_of_a_run_or_a_study_says_how_to_go_on(command: Command, tmp_path: Path) -> None:
    for name, file in (("run", "spec.yaml"), ("study", "study.yaml")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("{data: lines, net: net4}")
    assert f"convscope train --resume {tmp_path / 'run'}" in command("train", tmp_path / "run").complaint
    study = tmp_path / "study"
    assert f"convscope sweep {study / 'study.yaml'} --out {study}" in command("study", study).complaint


def test_python_dash_m(tmp_path: Path) -> None:
    told = subprocess.run([sys.executable, "-m", "convscope", "train"], cwd=tmp_path, capture_output=True, text=True)
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.startswith("convscope: train: give a spec")
