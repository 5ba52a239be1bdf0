"""The folder to publish: its figures are the run's, it opens as a run, and names from outside are no markup."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import yaml
from markdown_it import MarkdownIt
from PIL import Image

from convscope.base.console import printable
from convscope.data import DataBundle, hub_name
from convscope.errors import RunFolderError, SettingError
from convscope.runs import METRICS, SPEC, Run, dump_spec, make_spec, open_run
from convscope.share import write_card
from convscope.study import run_study
from convscope.training import Silent
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


def test_a_question_without_words_is_left_out(reported: Run, tmp_path: Path) -> None:
    spec = reported.spec.model_copy(update={"about": " ..."})
    shutil.copytree(reported.path, tmp_path / "run")
    (tmp_path / "run" / SPEC).write_text(dump_spec(spec))
    text = (write_card(open_run(tmp_path / "run"), tmp_path / "card") / "README.md").read_text("utf-8")
    assert "\n# run\n\nA convolutional image classifier" in text


HOSTILE = (
    "a|b", "`rm`", "<script>alert(1)", "[x](http:)", "$$x$$", "~~s~~", "&lt;b&gt;", "- x", "2. *y*", "\u202eb", "'q\"",
)  # fmt: skip


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The card of a run whose classes, data set and question have such names."""
    folder = tmp_path_factory.mktemp("hostile")
    random = np.random.default_rng(0)
    for name in HOSTILE:
        place = folder / "a|`b` <i>" / name
        place.mkdir(parents=True)
        for n in range(10):
            Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(place / f"{n}.png")
    spec = make_spec({"about": "1) <b>|\n# Which? $$", "data": {"source": str(folder / "a|`b` <i>"), "split": "60/40"},
                      "net": "c4 M f8", "recipe": {"epochs": 1, "batch": 24}})  # fmt: skip
    run_study(spec, folder / "run *a*", device="cpu", watcher=Silent())
    return write_card(open_run(folder / "run *a*"), repo="somebody/spots")


def test_a_markdown_reader_finds_the_names_as_they_are(hostile: Path) -> None:
    text = (hostile / "README.md").read_text("utf-8")
    body = text.split("---\n", 2)[2]
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(body)
    shown = [token for token in tokens if token.type == "inline" and token.children is not None]
    kinds = {(child.type, child.tag) for token in shown for child in token.children or ()}
    assert {tag for kind, tag in kinds if kind != "softbreak"} == {"", "strong", "em", "a", "code", "img"}
    assert not [kind for kind in {token.type for token in tokens} | {kind for kind, _ in kinds} if "html" in kind]
    links = {child.attrs["href"] for token in shown for child in token.children or () if child.type == "link_open"}
    assert links == {"https://github.com/convscope/convscope"}
    cells = ["".join(child.content for child in token.children or ()) for token in shown]
    for name in HOSTILE:
        assert printable(name) in cells
    assert "1) <b>| # Which? $$." in cells
    assert "run *a*" in cells
    assert "$$x" not in text.replace(r"\$\$x", "")
    rows = [line for line in body.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {6}


def test_the_hub_reads_its_metadata(hostile: Path, card: Path, reported: Run) -> None:
    data: Any = huggingface_hub.ModelCard.load(hostile / "README.md").data
    assert (data.library_name, data.pipeline_tag, data.metrics) == ("convscope", "image-classification", ["accuracy"])
    assert (data.model_name, data.datasets, data.license) == ("spots", None, None)
    [result] = data.eval_results
    assert (result.task_type, result.dataset_name, result.dataset_type) == (
        "image-classification", "a|`b` <i>", "a|`b` <i>",
    )  # fmt: skip
    again = huggingface_hub.ModelCardData(**yaml.safe_load(data.to_yaml()))
    assert again.to_dict() == data.to_dict()
    [result] = huggingface_hub.ModelCard.load(card / "README.md").data.eval_results
    accuracy = reported.metrics["accuracy"]
    assert (result.metric_type, result.dataset_split) == ("accuracy", "test")
    assert result.metric_value == pytest.approx(accuracy["value"], abs=1e-6)
    assert result.metric_name == (
        f"test accuracy, 95 % interval {100 * accuracy['low']:.2f} to {100 * accuracy['high']:.2f} %"
    )


@pytest.mark.parametrize(
    ("source", "name"),
    [("mnist", "ylecun/mnist"), ("hub:someone/set/", "someone/set"), ("lines", None), ("spots.npz", None)],
)
def test_a_data_set_of_the_hub_is_named_as_there(source: str, name: str | None) -> None:
    assert hub_name(source) == name


def test_a_readme_of_somebody_elses_is_not_replaced(command: Command, reported: Run, tmp_path: Path) -> None:
    tags = (
        "[x]",
        "5",
        "null",
        "true",
        "{convscope: 1}",
        "no convscope",
        "[[convscope]]",
        "[convscope, {a: b}]",
        "2026-01-01",
    )
    blocks = (f"---\ntags: {value}\n---\n# A\n" for value in tags)
    for text in ("# My project\n", "---\n- a\n---\n", "---\nconvscope\n---\n", "---\n5\n---\n", "", *blocks):
        (tmp_path / "README.md").write_text(text)
        done = command("card", reported.path, "--out", tmp_path)
        assert done.status == 2
        assert f"{tmp_path / 'README.md'}" in done.complaint
        assert "\n" not in done.complaint.strip()
        assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("README.md", text)]


@pytest.mark.parametrize("has_card", [False, True])
def test_a_runs_folder_is_not_written_over(
    command: Command, reported: Run, card: Path, tmp_path: Path, has_card: bool
) -> None:
    other = shutil.copytree(reported.path, tmp_path / "other")
    if has_card:
        shutil.copy(card / "README.md", other)
    before = {file: file.read_bytes() for file in other.rglob("*") if file.is_file()}
    done = command("card", reported.path, "--out", other)
    assert (done.status, done.complaint) == (2, f"{other} is a run's folder: choose another folder with --out")
    assert {file: file.read_bytes() for file in other.rglob("*") if file.is_file()} == before


def test_files_of_other_kinds_are_not_replaced(command: Command, reported: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "config.json").write_text("{}")
    done = command("card", reported.path, "--out", tmp_path)
    said = f"{tmp_path / 'config.json'} is there, and is of no model card: choose another folder with --out"
    assert (done.status, done.complaint) == (2, said)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "notes.txt"]


def test_the_folder_classifies_and_exports_like_the_run(
    command: Command, card: Path, reported: Run, tmp_path: Path
) -> None:
    Image.effect_noise((20, 30), 90).convert("RGB").save(tmp_path / "photo.png")
    answers = [command("predict", folder, tmp_path / "photo.png").out for folder in (card, reported.path)]
    assert answers[0] == answers[1] != ""
    assert command("export", card, "--out", tmp_path / "a.safetensors", "--unverified").status == 0
    assert (tmp_path / "a.safetensors").read_bytes() == (card / "model.safetensors").read_bytes()
    assert command("export", card, "--out", tmp_path / "a.pt2", "--unverified").status == 0


def test_the_folder_of_hostile_names_opens(hostile: Path) -> None:
    run = open_run(hostile)
    answers = run.predict(np.zeros((2, 8, 8, 3), np.uint8))
    assert set(answers["class"]) <= set(run.classes)
    config = json.loads((hostile / "config.json").read_text("utf-8"))
    assert sorted(config["id2label"].values()) == sorted(run.classes)


@pytest.mark.parametrize("repo", ["spots", "a/b/c", "somebody/", "some body/spots", ""])
def test_a_name_that_is_no_repositorys_is_refused_before_anything_is_written(
    reported: Run, tmp_path: Path, repo: str
) -> None:
    with pytest.raises(SettingError, match=f"^'{repo}' is no name for a repository; expected owner/name"):
        write_card(reported, tmp_path / "card", repo=repo)
    assert not (tmp_path / "card").exists()


@pytest.mark.parametrize(
    ("part", "content", "said"),
    [
        (METRICS, "{}", "metrics.json is damaged; convscope evaluate makes it anew"),
        (METRICS, '{"accuracy": {"value": "x"}}', "metrics.json is damaged; convscope evaluate makes it anew"),
        (METRICS, '{"accuracy": 1, "loss": 2, "heads": {}, "images": 3}', "metrics.json is damaged"),
        ("environment.json", '{"data": {"digest": 1, "images": 3}, "packages": {}}', "environment.json is damaged"),
        ("environment.json", '{"data": {"digest": "a", "images": {}}, "packages": {}}', "environment.json is damaged"),
    ],
)
def test_a_damaged_part_is_one_line(
    command: Command, reported: Run, tmp_path: Path, part: str, content: str, said: str
) -> None:
    shutil.copytree(reported.path, tmp_path / "run")
    (tmp_path / "run" / part).write_text(content)
    done = command("card", tmp_path / "run", "--out", tmp_path / "card")
    assert done.status == 2
    assert said in done.complaint
    assert not (tmp_path / "card").exists()


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
