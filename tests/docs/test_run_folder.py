"""The specification of the run folder names every file that a run can have, and every key and column of a trained one."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from safetensors import safe_open

import convscope as cs
from convscope.runs import names

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "run-folder.md").read_text("utf-8")
SECTIONS = {part.split("\n", 1)[0]: part for part in PAGE.split("\n## ")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> cs.Run:
    folder = tmp_path_factory.mktemp("specified") / "run"
    data = cs.load_data("lines", limit=960)
    run = cs.train(cs.build_net("lines-net", width=4), data, cs.Recipe(epochs=1), out=folder)
    cs.evaluate(run)
    return run


def _named(section: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", SECTIONS[section]))


def test_every_file_is_in_the_table(run: cs.Run) -> None:
    listed = set(re.findall(r"`([\w.-]+)/?`", PAGE.split("\n## ")[0]))
    possible = {line.split()[0] for line in (names.__doc__ or "").splitlines()[2:] if line}
    assert {file.name for file in run.path.iterdir()} | possible <= listed


def test_every_key_of_the_json_files_is_explained(run: cs.Run) -> None:
    assert set(run.environment) <= _named("environment.json")
    assert {"name", "source", "digest", "images", "duplicates", "left_out"} >= set(run.environment["data"])
    metrics = json.loads((run.path / "metrics.json").read_text())
    known = _named("metrics.json")
    assert set(metrics) <= known
    [head] = metrics["heads"].values()
    assert set(head) <= known


def test_every_column_and_tensor_is_explained(run: cs.Run) -> None:
    assert set(run.history.columns) <= _named("history.parquet")
    answers = pd.read_parquet(run.path / "predictions.parquet").columns
    assert {re.sub(r"^p\(.*\)$", "p(CLASS)", name) for name in answers} <= _named("predictions.parquet")
    named = _named("predictions.safetensors")
    with safe_open(run.path / "predictions.safetensors", "pt") as file:
        assert {re.sub(r"^target\..*", "target.NAME", name) for name in file.keys()} <= named  # noqa: SIM118
        assert set(json.loads(file.metadata()["convscope"])) <= named
    with safe_open(run.path / "model.safetensors", "pt") as file:
        assert set(json.loads(file.metadata()["convscope"])) <= _named("model.safetensors")
