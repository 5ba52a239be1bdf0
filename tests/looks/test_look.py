"""One lens on one image, as a picture; on a network trained in the test."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convscope.errors import DataError, RequestError, SettingError, UnknownNameError
from convscope.report import LOOKS, look, look_at_run
from convscope.runs import Run, read_tensors
from convscope.scope import Scope


@pytest.mark.parametrize("lens", LOOKS)
def test_every_lens_gives_a_picture(reported: Run, lens: str) -> None:
    image = reported.load_data().test[0][0]
    found = look(Scope(reported), lens, image, layer="conv1" if lens == "activations" else None)
    assert found.picture.dtype == np.uint8
    assert found.picture.shape[1] >= 300
    assert len(np.unique(found.picture.reshape(-1, 3), axis=0)) > 20
    assert found.heading.startswith(lens.replace("_", " ")[:9]) or lens in ("filters", "activations")
    assert all(tensor.isfinite().all() for tensor in found.tensors.values())


def test_the_tensor_is_the_lenss_own(reported: Run, tmp_path: Path) -> None:
    path, found = look_at_run(
        reported.path,
        "grad_cam",
        "3",
        target="1",
        layer="relu1",
        out=tmp_path / "p.png",
        raw=tmp_path / "t.safetensors",
    )
    expected = Scope(reported).grad_cam(reported.load_data().test[3][0], "relu1", 1).values
    tensors, card = read_tensors(tmp_path / "t.safetensors")
    assert torch.equal(tensors["values"], expected)
    assert card["heading"] == found.heading
    assert "at relu1" in found.heading
    with Image.open(path) as written:
        assert written.format == "PNG"


def test_an_image_file_of_any_size_is_read(reported: Run, tmp_path: Path) -> None:
    Image.new("L", (50, 30), 90).save(tmp_path / "grey.png")
    path, _ = look_at_run(reported.path, "saliency", str(tmp_path / "grey.png"), out=tmp_path / "out.png")
    assert path.exists()


@pytest.mark.parametrize(
    ("arguments", "error", "expected"),
    [
        (("grad_camm", "0"), UnknownNameError, "lens 'grad_camm' is not one of .*did you mean 'grad_cam'"),
        (("grad_cam", None), SettingError, "--image: grad_cam looks at an image"),
        (("grad_cam", "99999"), SettingError, "--image 99999: there are test images 0 to"),
        (("grad_cam", "no.png"), DataError, "no.png: there is no such file"),
        (("grad_cam", __file__), DataError, "is no image; give another image"),
        (("grad_cam", "0", "conv9"), UnknownNameError, "layer 'conv9' is not in this network"),
        (("grad_cam", "0", None, 3), SettingError, "--unit: grad_cam has no such setting"),
        (("saliency", "0", "conv1", 99), RequestError, "unit 99 is not in layer 'conv1'; it has units 0 to 7"),
        (("saliency", "0", "conv1", 1, "x"), SettingError, "--position x: expected row and column"),
        (("saliency", "0", None, None, None, "zebra"), UnknownNameError, "class 'zebra' is not one of this network's"),
        (("saliency", "0", None, None, None, "9"), RequestError, "9 is not an output of this network"),
        (("activations", "0"), SettingError, "--layer: activations looks at a layer"),
        (("activations", "0", "fc1"), RequestError, "no maps"),
        (("filters", None, "fc1"), RequestError, "no filters with rows and columns"),
    ],
)  # fmt: skip
def test_wrong_requests_write_nothing(
    reported: Run, tmp_path: Path, arguments: tuple[str, ...], error: type, expected: str
) -> None:
    with pytest.raises(error, match=expected):
        look_at_run(reported.path, *arguments, out=tmp_path / "out.png")
    assert not list(tmp_path.iterdir())
