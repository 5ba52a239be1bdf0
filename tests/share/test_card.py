"""The folder to publish: its figures are the run's, it opens as a run, and names from outside are no markup."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from convscope.data import DataBundle
from convscope.errors import RunFolderError
from convscope.runs import METRICS, Run, open_run
from convscope.share import write_card
from tests.cli.conftest import Command, command
from tests.planted import answer_with, chosen_logits

__all__ = ["command"]


@pytest.fixture(scope="module")
def card(reported: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_card(reported, tmp_path_factory.mktemp("published") / "card")


def test_the_folder_holds_what_it_should_and_opens_as_a_run(card: Path, reported: Run) -> None:
    assert {file.name for file in card.iterdir()} - {"failures.png"} == {
        "README.md", "config.json", "model.safetensors", "spec.yaml",
    }  # fmt: skip
    images = reported.load_data().test.images()
    assert open_run(card).predict(images).equals(reported.predict(images))


def test_errors_are_shown_where_there_are_any(reported: Run, tmp_path: Path) -> None:
    data = reported.load_data()
    for name, wrong in (("right", []), ("wrong", [0, 7])):
        shutil.copytree(reported.path, tmp_path / name)
        answer_with(open_run(tmp_path / name), data, chosen_logits(data, wrong))
        folder = write_card(open_run(tmp_path / name), tmp_path / f"card-{name}")
        assert (folder / "failures.png").exists() == bool(wrong)
        assert ("](failures.png)" in (folder / "README.md").read_text("utf-8")) == bool(wrong)


def test_the_metadata_block_is_read_by_yaml_and_holds_the_accuracy(card: Path, reported: Run) -> None:
    text = (card / "README.md").read_text("utf-8")
    _, block, body = text.split("---\n", 2)
    front = yaml.safe_load(block)
    accuracy = reported.metrics["accuracy"]
    [model] = front["model-index"]
    [result] = model["results"]
    assert result["metrics"][0]["value"] == pytest.approx(accuracy["value"], abs=1e-6)
    assert front["pipeline_tag"] == "image-classification"
    assert f"Test accuracy {100 * accuracy['value']:.2f} %" in body
    for row in reported.metrics["heads"]["class"]["per_class"]:
        assert f"| {row['class']} | {row['images']} | {100 * row['recall']['value']:.2f} %" in body
    assert reported.environment["data"]["digest"] in body


def test_the_config_names_what_a_program_must_know(card: Path, reported: Run) -> None:
    config = json.loads((card / "config.json").read_text("utf-8"))
    assert [config["id2label"][str(n)] for n in range(config["num_classes"])] == list(reported.classes)
    assert (config["input_shape"], config["mean"]) == (list(reported.input_shape), list(reported.card.mean))


def test_names_from_outside_cannot_become_markup(reported: Run, tmp_path: Path) -> None:
    shutil.copytree(reported.path, tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / METRICS).read_text())
    bad = "a|b <script>alert(1)</script> [x](y)\n# heading"
    metrics["heads"]["class"]["per_class"][0]["class"] = bad
    (tmp_path / "run" / METRICS).write_text(json.dumps(metrics))
    text = (write_card(open_run(tmp_path / "run"), tmp_path / "card") / "README.md").read_text("utf-8")
    assert r"| a\|b \<script\>alert(1)\</script\> \[x\](y) \# heading |" in text
    assert "\n# heading" not in text


def test_what_is_missing_is_one_line_and_nothing_is_written(
    command: Command, reported: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(reported.path, tmp_path / "run")
    (tmp_path / "run" / METRICS).unlink()
    done = command("card", tmp_path / "run", "--out", tmp_path / "card")
    assert done.status == 2
    assert "metrics.json is missing; convscope evaluate makes it" in done.complaint

    def gone(run: Run) -> DataBundle:
        from convscope.errors import DataError

        raise DataError("spots.npz: is not there; check the path")

    monkeypatch.setattr(Run, "load_data", gone)
    with pytest.raises(RunFolderError, match=r"a card shows images of its data, which cannot be loaded: spots\.npz"):
        write_card(reported, tmp_path / "card")
    assert not (tmp_path / "card").exists()
