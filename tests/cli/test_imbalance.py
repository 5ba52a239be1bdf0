"""What the commands say of uneven classes, and of networks that name one class alone."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convscope.data import load_data
from tests.cli.conftest import Command
from tests.conftest import spots_of

NOT_BETTER = "accuracy is not shown to be better than always predicting “0”, the most frequent class"
ADVICE = "Try recipe.class_weights: balanced, or recipe.sampling: balanced."


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    """A study whose network learns nothing: 20 times as many images of class 0 as of class 2."""
    images, labels = spots_of(900)
    of_class = np.arange(900) // 3
    kept = (labels == 0) | ((labels == 1) & (of_class % 10 == 0)) | ((labels == 2) & (of_class % 20 == 0))
    np.savez(tmp_path / "uneven.npz", x=images[kept], y=labels[kept])
    path = tmp_path / "uneven.yaml"
    path.write_text(f"""
data: {tmp_path / "uneven.npz"}
net: c4 M f4
recipe: {{epochs: 1, batch: 24, rate: 1.0e-9}}
""")
    return path


def test_data_names_the_largest_and_the_smallest_class(command: Command, study_file: Path) -> None:
    lines = command("data", study_file.parent / "uneven.npz").out.splitlines()
    counts = load_data(str(study_file.parent / "uneven.npz")).train.targets_of().bincount().tolist()
    assert [line for line in lines if "imbalance" in line] == [
        f"class imbalance: {counts[0] / counts[2]:.0f} times as many training images of 0 as of 2; "
        "try recipe.class_weights: balanced, or recipe.sampling: balanced"
    ]


def test_data_is_silent_of_even_classes(command: Command, tmp_path: Path) -> None:
    images, labels = spots_of(90)
    np.savez(tmp_path / "even.npz", x=images, y=labels)
    assert "imbalance" not in command("data", tmp_path / "even.npz").out


def test_train_evaluate_and_study_say_that_nothing_was_learned(
    command: Command, study_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    trained = command("train", study_file, "--out", out, "--device", "cpu")
    evaluated = command("evaluate", out, "--device", "cpu")
    studied = command("study", study_file, "--out", out, "--device", "cpu")
    [of_val] = [line for line in trained.out.splitlines() if NOT_BETTER in line]
    assert of_val.startswith("Validation accuracy is")
    assert of_val.endswith(ADVICE)
    for told in (evaluated, studied):
        lines = told.out.splitlines()
        assert sum(f"Test {NOT_BETTER}" in line for line in lines) == 1
        assert sum(ADVICE in line for line in lines) == 1
        assert sum("never predicted: " in line for line in lines) == 1
    assert f"Test {NOT_BETTER}" in (out / "report.html").read_text()
    assert command("card", out, "--out", tmp_path / "card").status == 0
    assert f"- Test {NOT_BETTER}" in (tmp_path / "card" / "README.md").read_text()


def test_train_says_it_of_each_head_that_needs_it(command: Command, tmp_path: Path) -> None:
    """The labels of one are learned; those of the other say nothing of the image, and one is nine times as frequent."""
    images, labels = spots_of(600)
    folder = tmp_path / "spots"
    folder.mkdir()
    rare = np.random.default_rng(0).random(600) < 0.1
    rows = ["file,place,chance"]
    for n, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{n}.png")
        rows.append(f"{n}.png,{labels[n]},{'rare' if rare[n] else 'often'}")
    (folder / "labels.csv").write_text("\n".join(rows))
    spec = tmp_path / "spots.yaml"
    spec.write_text(f"""
data: {{source: {folder}, labels: {{table: labels.csv, label: [place, chance]}}}}
net: c8b M c8b f16b
task: {{place: softmax, chance: softmax}}
recipe: {{epochs: 12, batch: 24, rate: 0.01}}
""")
    told = command("train", spec, "--out", tmp_path / "run", "--device", "cpu")
    said = [line for line in told.out.splitlines() if "accuracy" in line]
    assert len(said) == 1, told
    assert said[0].startswith(f"Chance: validation {NOT_BETTER.replace('“0”', '“often”')}")
    assert said[0].endswith(ADVICE)


def test_a_network_that_has_learned_gets_no_such_line(command: Command, study_file: Path, tmp_path: Path) -> None:
    settings = (
        "--set",
        "recipe={epochs: 12, batch: 12, rate: 0.01, class_weights: balanced}",
        "--set",
        "net=c8b M c8b f16b",
    )
    trained = command("train", study_file, "--out", tmp_path / "run", "--device", "cpu", *settings)
    assert trained.out.startswith("trained: ")


def test_a_report_says_how_the_train_figures_came_about(command: Command, study_file: Path, tmp_path: Path) -> None:
    settings = ("--set", "recipe.class_weights={2: 3}", "--set", "recipe.sampling=balanced")
    studied = command("study", study_file, "--out", tmp_path / "run", "--device", "cpu", *settings)
    assert NOT_BETTER in studied.out
    assert ADVICE not in studied.out
    report = (tmp_path / "run" / "report.html").read_text()
    assert "training images, the loss weighted by class, each class drawn equally often;" in report
    assert "its difference from test accuracy does not show overfitting" in report


def test_an_unknown_class_is_one_line(command: Command, study_file: Path, tmp_path: Path) -> None:
    told = command("train", study_file, "--out", tmp_path / "run", "--set", "recipe.class_weights={3: 2}")
    assert (told.status, told.complaint) == (2, "recipe.class_weights: class '3' is not in this task; there is 0, 1, 2")
    assert not (tmp_path / "run").exists()
