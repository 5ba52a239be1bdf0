"""Images of 16 bits that only their low bytes tell apart, from a folder to the answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from PIL import Image

import convscope as cs
from convscope.cli import run
from tests.cli.conftest import Command

NET = ("--net", "c8b M c8b f16", "--set", "recipe.epochs=6", "--set", "recipe.batch=16", "--device", "cpu")


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder of two classes: 29980 and 30020, both 117 of 255. Two rows of either tell each image from the others."""
    folder, random = tmp_path_factory.mktemp("plates"), np.random.default_rng(0)
    for n in range(400):
        image = 30000 + (20 if n % 2 else -20) + random.integers(-5, 6, (12, 12))
        image[:2] = 30000 + 257 * random.integers(0, 4, (2, 12))
        file = folder / ("high" if n % 2 else "low") / f"{n:03}.{'png' if n % 4 < 2 else 'tif'}"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(image.astype(np.uint16)).save(file)
    return folder


@pytest.fixture(scope="module")
def deep_run(plates: Path, tmp_path_factory: pytest.TempPathFactory) -> cs.Run:
    out = tmp_path_factory.mktemp("run") / "deep"
    assert run(["train", "--data", str(plates), *NET, "--set", "data.bits=16", "--out", str(out)]) == 0
    assert run(["evaluate", str(out)]) == 0
    return cs.open_run(out)


def test_with_eight_bits_a_network_guesses_and_is_told_why(command: Command, plates: Path, tmp_path: Path) -> None:
    shown = command("data", plates)
    assert "16 bits scaled to 8 (data.bits: 16 keeps them)" in " ".join(shown.out.split())
    trained = command("train", "--data", plates, *NET, "--out", tmp_path / "run")
    assert trained.status == 0, trained.err
    assert "note: images of 16 bits are scaled to 8; data.bits: 16 keeps them\n" in trained.err
    assert command("evaluate", tmp_path / "run").status == 0
    assert cs.open_run(tmp_path / "run").metrics["accuracy"]["value"] < 0.7


def test_with_sixteen_it_tells_them_apart(deep_run: cs.Run) -> None:
    assert deep_run.metrics["accuracy"]["value"] > 0.95
    assert deep_run.bits == 16


def test_files_and_arrays_get_the_answers_of_the_evaluation(deep_run: cs.Run, plates: Path) -> None:
    tested = pd.read_parquet(deep_run.path / "predictions.parquet")
    files = [plates / name for name in tested["name"]]
    arrays = np.stack([np.asarray(Image.open(file)) for file in files])[..., None]
    images = cs.load_images(files, like=deep_run)
    assert torch.equal(images, deep_run.load_data().test.images())
    for given in (files, arrays, images):
        answers = deep_run.predict(given, probabilities=True, device="cpu")
        assert answers["class"].tolist() == tested["predicted"].tolist()
        assert answers["p(high)"].to_numpy() == pytest.approx(tested["p(high)"].to_numpy(), abs=1e-5)
    scope = cs.Scope(deep_run)
    assert torch.equal(scope.images(files), images)
    assert torch.equal(scope.images(arrays), images)


def test_it_is_looked_at_reported_and_described(
    command: Command, deep_run: cs.Run, plates: Path, tmp_path: Path
) -> None:
    file = next(plates.rglob("*.tif"))
    for words in (
        ("look", deep_run.path, "saliency", "--image", file, "--out", tmp_path / "file.png"),
        ("look", deep_run.path, "saliency", "--image", "0", "--out", tmp_path / "test.png"),
        ("report", deep_run.path),
        ("card", deep_run.path, "--out", tmp_path / "card"),
        ("predict", deep_run.path, file, "--explain", "saliency", "--page", tmp_path / "page.html"),
    ):
        found = command(*words)
        assert found.status == 0, found.err
    assert "TIFF, 16 bits" in " ".join((deep_run.path / "report.html").read_text("utf-8").split())
    assert "bits: 16" in (tmp_path / "card" / "spec.yaml").read_text("utf-8")
    refused = command("export", deep_run.path)
    assert (refused.status, list(deep_run.path.glob("*.onnx"))) == (2, [])
    assert refused.complaint.endswith(
        "an exported file takes images of 8 bits, and this run of 16; use its model.safetensors"
    )


def test_tiff_files_of_four_bands(command: Command, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for n in range(200):
        image = random.integers(20000, 40000, (12, 12, 4))
        image[..., 3] = image[..., 2] + (5000 if n % 2 else -5000)  # which the file's colours do not tell
        file = tmp_path / "fields" / ("up" if n % 2 else "down") / f"{n:03}.tif"
        file.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(file, image.astype(np.uint16), photometric="rgb")
    said, out = ("--set", "data.channels=4", "--set", "data.bits=16"), tmp_path / "run"
    trained = command("train", "--data", tmp_path / "fields", *NET, *said, "--out", out)
    assert trained.status == 0, trained.err
    for words in (
        ("evaluate", out),
        ("report", out),
        ("look", out, "saliency", "--image", tmp_path / "fields/up/001.tif"),
    ):
        assert command(*words).status == 0
    deep = cs.open_run(out)
    tested = pd.read_parquet(out / "predictions.parquet")
    answers = deep.predict([tmp_path / "fields" / name for name in tested["name"]], device="cpu")
    assert answers["class"].tolist() == tested["predicted"].tolist()
    assert deep.metrics["accuracy"]["value"] > 0.9
