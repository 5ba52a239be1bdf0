"""Exported files answer as the run does, say what is in them, and are used without convscope as their example says."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import convscope as cs
from convscope.data import pixels_of
from convscope.errors import DataError, FailedError, SettingError, UnknownNameError
from convscope.nets import build_net
from convscope.runs import MODEL, Recipe, Run, read_tensors, write_tensors
from convscope.share import Deployed, export, export_run
from convscope.training import Silent, train
from tests.conftest import write_spots


@pytest.fixture(scope="module")
def exported(reported: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file of a run of three classes."""
    done = export_run(reported, tmp_path_factory.mktemp("exported") / "spots.onnx")
    assert (done.format, done.images, done.changed) == ("onnx", len(reported.load_data().test), 0)
    assert done.largest_difference is not None
    assert done.largest_difference < 1e-5
    return done.path


def smooth(height: int, width: int, seed: int = 0) -> Image.Image:
    random = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(random).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 16), (5, 7), (1, 1), (11, 30), (200, 300), (41, 24)])
def test_of_a_photo_of_any_size_the_onnx_file_says_what_predict_says(
    exported: Path, reported: Run, tmp_path: Path, height: int, width: int
) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    photos = [smooth(height, width, seed) for seed in (0, 1, 2)]
    [found] = session.run(None, {"images": np.stack([np.asarray(photo) for photo in photos])})
    for n, photo in enumerate(photos):
        photo.save(tmp_path / f"{n}.png")
    expected = reported.predict([tmp_path / f"{n}.png" for n in range(3)], probabilities=True).filter(like="p(")
    # where it scales, pixels may differ by one of 255, see below
    assert found == pytest.approx(expected.to_numpy(float), abs=1e-6 if (height, width) == (8, 8) else 2e-3)
    assert found.argmax(1).tolist() == expected.to_numpy(float).argmax(1).tolist()
    [many] = session.run(None, {"images": np.stack([np.asarray(photos[n % 3]) for n in range(300)])})
    [alone] = session.run(None, {"images": np.asarray(photos[1])[None]})
    assert many[1::3] == pytest.approx(np.repeat(alone, 100, 0), abs=1e-6)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 16), (11, 30), (41, 24), (300, 517), (5, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_scaled_as_in_training(reported: Run, height: int, width: int, channels: int) -> None:
    """To at most one of 255: the order of Pillow's two passes, each of which rounds, depends on its version and the shape."""
    photo, deployed = smooth(height, width), Deployed(reported)
    deployed.channels = channels
    found = deployed.pixels(torch.from_numpy(np.asarray(photo).copy())[None])[0]
    expected = torch.from_numpy(pixels_of(photo, channels, (8, 8)).copy()).float()
    difference = (found - expected).abs()
    assert difference.max() <= (0 if (height, width) == (8, 8) else 1)
    assert difference.mean() < 0.2


def test_names_and_origin_are_in_the_file(exported: Path, reported: Run) -> None:
    import onnx

    model = onnx.load(exported)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(said["classes"]) == list(reported.classes)
    assert json.loads(said["heads"]) == {"class": list(reported.classes)}
    assert said["data digest"] == reported.environment["data"]["digest"]
    assert said["convscope"] == cs.__version__
    sizes = [dim.dim_param for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert [bool(size) for size in sizes] == [True, True, True, False]


@pytest.mark.parametrize("form", ["onnx", "torch"])
def test_the_example_runs_without_convscope_and_says_what_predict_says(
    reported: Run, exported: Path, tmp_path: Path, form: str
) -> None:
    """Of a photograph that lies on its side, as its Exif data say, and is partly transparent; and of a grey one of 16 bits."""
    photo, exif = smooth(8, 8), Image.Exif()
    photo.putalpha(Image.linear_gradient("L").resize((8, 8)))
    exif[0x0112] = 6
    photo.save(tmp_path / "photo.png", exif=exif)
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000).save(tmp_path / "deep.png")
    path = exported if form == "onnx" else tmp_path / "spots.pt2"
    done = export_run(reported, path, verify=form == "torch")
    codes = [done.example.replace("photo.jpg", name) for name in ("photo.png", "deep.png")]
    code = "\n".join([*codes, "import sys", "assert 'convscope' not in sys.modules"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "Warning" not in done.stderr
    for line, name in zip(done.stdout.splitlines(), ("photo.png", "deep.png"), strict=True):
        head, said, probability = line.split()
        expected = reported.predict(tmp_path / name)
        assert (head, said) == ("class", expected["class"][0])
        assert float(probability) == pytest.approx(expected["probability"][0], abs=1e-5)


def test_weights_alone(reported: Run, tmp_path: Path) -> None:
    done = export_run(reported, tmp_path / "spots.safetensors")
    assert (done.format, done.changed) == ("safetensors", 0)
    assert done.path.read_bytes() == (reported.path / "model.safetensors").read_bytes()
    assert subprocess.run([sys.executable, "-c", done.example], capture_output=True, text=True, check=True).stdout


def test_grey_images_and_several_heads(tmp_path: Path) -> None:
    data = cs.load_data(str(write_spots(tmp_path / "grey.npz", 120, channels=1)))
    run = train(
        build_net("c4 M f8", classes=3, channels=1, image_size=8), data, Recipe(epochs=1, batch=24), tmp_path / "grey",
        device="cpu", watcher=Silent(),
    )  # fmt: skip
    assert export_run(run, tmp_path / "grey.pt2").changed == 0
    lines = cs.load_data("lines", limit=480, split="60/40")
    task = {"colour": "sigmoid", "angle": "softmax"}
    run = train(
        build_net("c4 M f8", classes=13, channels=3, image_size=28), lines, Recipe(epochs=1, batch=48), tmp_path / "heads",
        device="cpu", watcher=Silent(), task=task,
    )  # fmt: skip
    assert export_run(run, tmp_path / "heads.pt2").changed == 0
    images = torch.zeros(2, 28, 28, 3, dtype=torch.uint8)
    probabilities = Deployed(run)(images)
    assert probabilities.shape == (2, len(run.task.classes))
    assert probabilities[:, :2].sum(1).tolist() == pytest.approx([1, 1])
    assert probabilities[:, 2:].sum(1).tolist() == pytest.approx([1, 1])


def test_a_file_that_answers_otherwise_is_not_kept(
    reported: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        export._FORMATS,
        "safetensors",
        ("w.safetensors", "", lambda run, net: (b"", lambda images: net(images).roll(1, dims=1))),
    )
    n = len(reported.load_data().test)
    with pytest.raises(FailedError, match=rf"was not written: {n} of {n} test images would have another class"):
        export_run(reported, tmp_path / "wrong.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_not_verified(reported: Run, tmp_path: Path, value: float) -> None:
    shutil.copytree(reported.path, tmp_path / "run")
    tensors, card = read_tensors(reported.path / MODEL)
    name = next(name for name in tensors if name.endswith("weight"))
    write_tensors(tmp_path / "run" / MODEL, tensors | {name: torch.full_like(tensors[name], value)}, card)
    with pytest.raises(FailedError, match="the network answers with NaN or infinity; its weights are broken"):
        export_run(cs.open_run(tmp_path / "run"), tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()


def test_a_file_that_answers_nan_is_not_kept(reported: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        export._FORMATS,
        "safetensors",
        ("w.safetensors", "", lambda run, net: (b"", lambda images: net(images) * torch.nan)),
    )
    with pytest.raises(FailedError, match=r"would have another class \(largest difference of a probability inf\)"):
        export_run(reported, tmp_path / "wrong.safetensors")


def test_wrong_requests_are_one_line(reported: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match="format 'tflite' is not one of export's; there is onnx"):
        export_run(reported, to="tflite")
    with pytest.raises(SettingError, match=r"--out .*a\.pt2: a file for onnx ends in \.onnx"):
        export_run(reported, tmp_path / "a.pt2", to="onnx")
    with pytest.raises(SettingError, match=r"--out .*a\.bin: a file for onnx ends in \.onnx"):
        export_run(reported, tmp_path / "a.bin")

    def gone(run: Run) -> None:
        raise DataError("spots.npz: is not there; check the path")

    monkeypatch.setattr(Run, "load_data", gone)
    with pytest.raises(
        DataError, match=r"is not there; .*; --unverified \(verify=False\) writes the file without them"
    ):
        export_run(reported, tmp_path / "a.onnx")
