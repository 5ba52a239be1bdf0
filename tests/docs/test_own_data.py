"""docs/own-data.md, run as it stands: from a table of labels to answers, an ONNX file and a model card."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from PIL import Image

from convscope.cli import run
from convscope.runs import open_run

_PAGE = Path(__file__).parents[2] / "docs" / "own-data.md"
_BLOCKS = re.findall(r"```(\w+)\n(.*?)```", _PAGE.read_text("utf-8"), re.DOTALL)
_COMMANDS = [line for kind, text in _BLOCKS if kind == "sh" for line in text.splitlines()]


@pytest.fixture
def castings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    exec(next(text for kind, text in _BLOCKS if kind == "python"), {})  # the page's own lines
    (tmp_path / "castings.yaml").write_text(next(text for kind, text in _BLOCKS if kind == "yaml"))
    return tmp_path


def _command(words: str) -> str:
    return next(line for line in _COMMANDS if line.startswith(f"convscope {words}"))


def _run(line: str, *more: str) -> None:
    assert run([*shlex.split(line)[1:], *more]) == 0, line


def _check_parts_apart(folder: Path, name: str) -> None:
    data = open_run(folder / "runs" / name).load_data()
    parts = [{Path(split.name(i)).name[:3] for i in range(len(split))} for split in (data.train, data.val, data.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 60


def _check_answers(folder: Path) -> None:
    """The three ways to an answer agree."""
    answers = pd.read_csv(folder / "answers.csv").set_index("file")
    tested = pd.read_parquet(folder / "runs/castings/predictions.parquet")
    assert [answers.loc[f"castings/{name}", "class"] for name in tested["name"]] == tested["predicted"].tolist()
    session = onnxruntime.InferenceSession(folder / "castings.onnx")
    for name, row in tested.set_index("name").head(6).iterrows():
        pixels = np.asarray(Image.open(folder / "castings" / str(name)).convert("RGB"))[None]
        (probabilities,) = session.run(None, {session.get_inputs()[0].name: pixels})
        assert probabilities[0] == pytest.approx([row[f"p({one})"] for one in ("crack", "good", "pore")], abs=1e-4)
    assert "castings" in (folder / "card" / "README.md").read_text("utf-8")


def test_from_a_table_of_labels_to_an_answer(castings: Path) -> None:
    _run(_command("study castings.yaml").replace("study", "train"), "--set", "recipe.epochs=4")
    _run("convscope evaluate runs/castings")
    for words in ("predict", "export", "card"):
        _run(_command(words))
    _check_parts_apart(castings, "castings")
    _check_answers(castings)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_of_the_page(castings: Path) -> None:
    for line in _COMMANDS:
        _run(line)
    _check_answers(castings)
    for name in ("castings", "transfer"):
        _check_parts_apart(castings, name)
        assert open_run(castings / "runs" / name).metrics["accuracy"]["value"] > 0.8
    assert open_run(castings / "runs" / "transfer").input_shape == (3, 96, 96)
