"""Images of four bands, from an .npz to the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from convscope.runs import open_run
from tests.cli.conftest import Command
from tests.conftest import spots_of, write_spots


@pytest.mark.parametrize("bands", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_a_run_on_bands_is_trained_evaluated_looked_at_and_reported(
    command: Command, tmp_path: Path, bands: int
) -> None:
    write_spots(tmp_path / "bands.npz", 240, bands, side=12)
    out = tmp_path / "run"
    small = ("--set", "recipe.epochs=3", "--set", "recipe.batch=24", "--device", "cpu")
    trained = command("train", "--data", tmp_path / "bands.npz", "--net", "c8b M c8b f16", *small, "--out", out)
    assert trained.status == 0, trained.err
    for words in (("evaluate",), ("look", "saliency", "--image", "0"), ("look", "filters"), ("report",)):
        found = command(words[0], out, *words[1:])
        assert found.status == 0, found.err
    assert f"{bands} bands (pictures show the first" in (out / "report.html").read_text("utf-8")
    images, labels = spots_of(30, bands, seed=9, side=12)
    answers = open_run(out).predict(images)
    assert np.mean(answers["class"].astype(int).to_numpy() == labels) > 0.8


def test_files_of_pictures_are_none_for_such_a_run(command: Command, tmp_path: Path) -> None:
    write_spots(tmp_path / "bands.npz", 60, 4)
    out = tmp_path / "run"
    assert (
        command(
            "train", "--data", tmp_path / "bands.npz", "--net", "c4 f8", "--set", "recipe.epochs=1", "--out", out
        ).status
        == 0
    )
    exported = command("export", out)
    assert (exported.status, list(out.glob("*.onnx"))) == (2, [])
    assert "an exported file takes pictures, grey or in colour, and this run images of 4 channels" in exported.complaint
    (tmp_path / "x.png").touch()
    complaint = command("predict", out, tmp_path / "x.png").complaint
    assert (
        "x.png: is no TIFF file, the only kind that is read with 4 channels; none of 1 files could be read" in complaint
    )
    refused = command(
        "train", "--data", tmp_path / "bands.npz", "--net", "c4 f8", "--set", "net.channels=3", "--out", tmp_path / "x"
    )
    assert "channels: 3, said here or by the network, and these images have 4" in refused.complaint
