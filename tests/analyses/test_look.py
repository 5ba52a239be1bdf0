"""One lens on one image, as a picture; on a network trained in the test."""

import io
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from convscope.analyses import look, look_at, names, open_subject
from convscope.data import read_image
from convscope.draw import picture
from convscope.edits import apply
from convscope.errors import DataError, RequestError, RunFolderError, SettingError, UnknownNameError
from convscope.lenses import ATTRIBUTIONS, CAPTUM_METHODS
from convscope.runs import Run, read_tensors
from convscope.scope import Scope
from tests.analyses.kinds import OF_IMAGES, SCANS
from tests.zoo import open_zoo

NEEDS_LAYER = ("activations", "receptive_field")


@pytest.mark.parametrize("lens", [name for name in names() if name not in SCANS])
def test_every_lens_gives_a_picture(reported: Run, lens: str) -> None:
    image = reported.load_data().test[0][0] if lens in OF_IMAGES else None
    found = look(Scope(reported), lens, image=image, layer="conv1" if lens in NEEDS_LAYER else None)
    assert found.picture.dtype == np.uint8
    assert found.picture.shape[1] >= 300
    assert len(np.unique(found.picture.reshape(-1, 3), axis=0)) > 20
    assert found.heading.startswith((lens.replace("_", " ")[:9], "what maximally activates"))
    assert all(tensor.isfinite().all() for tensor in found.tensors.values())


class _PadsFirst(nn.Conv2d):
    """Pads in its forward, so that the traced convolution is called pads.conv, and its weights are those of pads."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(nn.functional.pad(images, (1, 1, 1, 1)), self.weight, self.bias)


def test_the_first_filters_are_those_of_the_module_that_convolves() -> None:
    net = nn.Sequential(_PadsFirst(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2)).eval()
    found = look(Scope(net, torch.zeros(1, 3, 8, 8)), "filters")
    assert torch.equal(found.tensors["0"], net[0].weight)


@pytest.mark.parametrize(
    ("channels", "units", "expected"),
    [(3, 64, ""), (1, 65, "; the first 64 units"), (17, 16, "; the first 16 inputs"),
     (17, 17, "; the first 16 units and 16 inputs")],
)  # fmt: skip
def test_of_many_filters_the_heading_says_which_are_shown(channels: int, units: int, expected: str) -> None:
    net = nn.Sequential(nn.Conv2d(channels, units, 2), nn.Flatten(), nn.Linear(units, 2)).eval()
    heading = look(Scope(net, torch.zeros(1, channels, 2, 2)), "filters").heading
    assert heading == f"filters of 0: {units} x {channels} x 2 x 2{expected}"


def test_the_tensor_is_the_lenss_own(reported: Run, tmp_path: Path) -> None:
    path, found = look_at(
        open_subject(reported.path),
        "grad-cam",
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


def test_the_strongest_neuron_of_a_layer_is_the_highest_number_of_its_maps(reported: Run, tmp_path: Path) -> None:
    asked = {"image": "3", "layer": "conv1", "unit": "max", "position": "max"}
    _, found = look_at(open_subject(reported.path), "saliency", **asked, out=tmp_path / "p.png")
    image = reported.load_data().test[3][0]
    maps = Scope(reported).activations(image[None], ["conv1"])["conv1"][0]
    unit, row, column = (maps == maps.max()).nonzero()[0].tolist()
    assert f"of conv1, unit {unit}, row {row}, column {column}" in found.heading


class _UnitsLast(nn.Module):
    """A map, the same with its 6 units last, and a row of 4 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.wider, self.fc = nn.Conv2d(3, 3, 2, stride=2), nn.Linear(3, 6), nn.Linear(6, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.wider(self.conv(images).permute(0, 2, 3, 1)).mean((1, 2)))


def test_units_that_come_last_are_shown_as_maps_and_the_strongest_is_one_of_them() -> None:
    torch.manual_seed(3)
    net, image = _UnitsLast().eval(), torch.rand(3, 8, 8)
    scope = Scope(net, image[None])
    values = scope.activations(image, ["wider"])["wider"][0]  # (rows, columns, units)
    row, column, unit = (values == values.max()).nonzero()[0].tolist()
    assert torch.equal(look(scope, "activations", image=image, layer="wider").tensors["wider"][0], values.movedim(2, 0))
    assert look(scope, "saliency", image=image, layer="wider", unit="max").heading == f"saliency: of wider, unit {unit}"
    found = look(scope, "receptive_field", image=image, layer="wider", unit="max", position="max")
    assert f"at row {row}, column {column} of 4×4" in found.heading
    strongest = int(scope.logits(image)[0].argmax())
    found = look(scope, "saliency", image=image, layer="fc", unit="max")
    assert found.heading == f"saliency: of fc, unit {strongest}"


def test_an_edited_image_is_shown_to_the_lens(reported: Run, tmp_path: Path) -> None:
    test = reported.load_data().test
    wanted = [["paste", 5, [0, 0, 4, 4], [2, 2]], ["rotate", 15]]
    raw = tmp_path / "t.safetensors"
    _, found = look_at(
        open_subject(reported.path), "grad_cam", "3", edit=json.dumps(wanted), out=tmp_path / "p.png", raw=raw
    )
    edited = apply(test.images([3]), wanted, test)
    assert torch.equal(read_tensors(raw)[0]["values"], Scope(reported).grad_cam(edited).values)
    said = "; image edited: 4×4 px of image 5 from 0, 0 pasted at 2, 2; rotated by 15°"
    assert found.heading.endswith(said)
    directly = look(Scope(reported), "grad_cam", image=test[3][0], test=test, edit=wanted)
    assert directly.heading == found.heading
    assert (directly.figures[0][1] == picture(edited[0])).all()


@pytest.mark.parametrize(
    ("lens", "image", "edit", "expected"),
    [
        ("grad_cam", "3", '[["rotate"]]', r"^edit 1 \(rotate\): "),
        (
            "maximize",
            None,
            '[["rotate", 5]]',
            "^--edit: maximize is shown no image to edit; leave it out, or ask edit_effect$",
        ),
        ("statistics", None, '[["rotate", 5]]', "^--edit: statistics is shown no image to edit"),
    ],
)
def test_an_edit_that_cannot_be_made(
    reported: Run, tmp_path: Path, lens: str, image: str | None, edit: str, expected: str
) -> None:
    with pytest.raises(SettingError, match=expected):
        look_at(open_subject(reported.path), lens, image, edit=edit, out=tmp_path / "out.png")
    assert not list(tmp_path.iterdir())


def test_an_image_file_of_any_size_is_read(reported: Run, tmp_path: Path) -> None:
    Image.new("L", (50, 30), 90).save(tmp_path / "grey.png")
    path, _ = look_at(open_subject(reported.path), "saliency", str(tmp_path / "grey.png"), out=tmp_path / "out.png")
    assert path.exists()


@pytest.mark.parametrize("lens", [*ATTRIBUTIONS, *CAPTUM_METHODS])
def test_a_scope_shows_of_a_file_what_look_does(reported: Run, tmp_path: Path, lens: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 8  # the camera was turned
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    _, found = look_at(open_subject(reported.path), lens, str(tmp_path / "photo.png"), out=tmp_path / "out.png")
    assert torch.equal(found.tensors["values"], Scope(reported.path).attribute(lens, tmp_path / "photo.png").values)


@pytest.mark.parametrize(
    ("arguments", "error", "expected"),
    [
        (("grad_camm", "0"), UnknownNameError, "lens 'grad_camm' is not one of .*did you mean 'grad_cam'"),
        (("grad_cam", None), SettingError, "--image: grad_cam needs one; give a file"),
        (("grad_cam", "99999"), SettingError, "--image 99999: there are test images 0 to"),
        (("grad_cam", "no.png"), DataError, "no.png: there is no such file"),
        (("grad_cam", "²"), DataError, "²: there is no such file, nor a test image of that name or number; check --image"),
        (("grad_cam", "9" * 5000), DataError, "9: there is no such file, nor a test image of that name or number"),
        (("grad_cam", __file__), DataError, "is no image; give another image"),
        (("grad_cam", "0", "conv9"), UnknownNameError, "layer 'conv9' is not in this network"),
        (("grad_cam", "0", None, 3), SettingError, "--unit: grad_cam has no such setting"),
        (("saliency", "0", "conv1", 99), RequestError, "unit 99 is not in layer 'conv1'; it has units 0 to 7"),
        (("saliency", "0", "conv1", "most"), SettingError, "--unit most: expected a number, or max"),
        (("maximize", None, "conv1", "max"), SettingError, "--unit max: the unit that answers an image most; give --image"),
        (("saliency", "0", None, "max"), SettingError, "--unit max: the unit that answers an image most"),
        (("saliency", "0", "conv1", 1, "x"), SettingError, "--position x: expected row and column"),
        (("saliency", "0", "conv1", 1, "²,3"), SettingError, "--position ²,3: expected row and column"),
        (("saliency", "0", None, None, None, "zebra"), UnknownNameError, "class 'zebra' is not one of this network's"),
        (("saliency", "0", None, None, None, "9"), RequestError, "9 is not a class of this network"),
        (("activations", "0", None), SettingError, "--layer: activations needs one; convscope anatomy lists them"),
        (("activations", "0", "fc1"), RequestError, "no maps"),
        *(((name, "0"), SettingError, f"--image: {name} has no such setting")
          for name in ("filters", "statistics", "faithfulness", "ablate", "invariance")),
        (("maximize", "0", "conv1", 2), SettingError, "--image: maximize has no such setting; leave it out"),
        (("top_patches", "0", "conv1"), SettingError, "--image: top_patches has no such setting"),
        (("filters", None, "fc1"), RequestError, "no filters with rows and columns"),
        (("filters", None, None, None, None, None, "5"), SettingError, "--size: filters has no such setting"),
        (("occlusion", "0", None, None, None, None, "9"), RequestError, "a square of 9×9 is larger than the images"),
        (("occlusion", "0", None, None, None, None, "3,x"), SettingError, "--size 3,x: expected pixels, such as 5"),
        (("occlusion", "0", None, None, None, None, "4x²"), SettingError, "--size 4x²: expected pixels, such as 5"),
        (("occlusion", "0", None, None, None, None, "3", None, "mauve"), RequestError, "fill: 'mauve'; expected"),
        (("maximize", None, "conv1", 8), RequestError, "unit 8 is not in layer 'relu1'; it has 0 to 7"),
        (("maximize", None, "conv1", 0, "max"), RequestError, "--position max: without an image"),
        (("receptive_field", "0", "conv1", None, "9,9"), RequestError, "position .9, 9. is not on this map"),
    ],
)  # fmt: skip
def test_wrong_requests_write_nothing(
    reported: Run, tmp_path: Path, arguments: tuple[str, ...], error: type, expected: str
) -> None:
    lens, image, *given = arguments
    settings = dict(zip(("layer", "unit", "position", "target", "size", "stride", "fill"), given, strict=False))
    subject = open_subject(reported.path)
    with pytest.raises(error, match=expected):
        look_at(subject, lens, image, out=tmp_path / "out.png", **settings)
    assert not list(tmp_path.iterdir())


def test_occlusion_at_several_sizes_shares_one_scale_and_says_the_sums(reported: Run, tmp_path: Path) -> None:
    subject = open_subject(reported.path)
    raw = tmp_path / "maps.safetensors"
    _, found = look_at(subject, "occlusion", "0", size="3,2x4", fill="0.25", out=tmp_path / "p.png", raw=raw)
    tensors, _ = read_tensors(raw)
    image = reported.load_data().test[0][0]
    for name, size in (("3x3", 3), ("2x4", (2, 4))):
        expected = subject.scope.occlusion(image, size, fill=0.25)
        torch.testing.assert_close(tensors[f"probabilities.{name}"], expected.probabilities)
    assert found.heading.startswith("occlusion by 3×3, 2×4 pixels: ")


def test_maximize_of_a_convolution_excites_the_relu_behind_it(reported: Run) -> None:
    found = look(Scope(reported), "maximize", layer="conv1", unit=2)
    assert found.heading == "what maximally activates relu1: activation reached"
    expected = Scope(reported).maximize("relu1", [2])
    assert torch.equal(found.tensors["picture"], expected.picture)


def test_the_receptive_field_of_the_strongest_position_holds_it(reported: Run) -> None:
    scope, image = Scope(reported), reported.load_data().test[0][0]
    found = look(scope, "receptive_field", image=image, layer="conv1", unit=1, position="max")
    best = int(scope.activations(image, ["conv1"])["conv1"][0, 1].argmax())
    assert tuple(found.tensors["box"].tolist()) == scope.receptive_field("conv1").box(*divmod(best, 8))


MODULE = """
from torch import nn

def small():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
"""


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a module of the user's own, weights for it, names and an image."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MODULE)
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    save_file(net.state_dict(), "mine.safetensors")
    Path("names.txt").write_text("left\nright\n")
    Image.new("L", (9, 9), 90).save("grey.png")
    return tmp_path


def test_a_network_that_is_no_run(foreign: Path) -> None:
    subject = open_subject(
        net="mine:small", weights=Path("mine.safetensors"), input="1x8x8", mean="0.5", classes=Path("names.txt")
    )
    path, found = look_at(subject, "saliency", "grey.png", target="right")
    assert path == Path("look-saliency.png")
    assert path.is_file()
    assert "right" in found.heading
    image = read_image("grey.png", (1, 8, 8))
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    net.load_state_dict(load_file("mine.safetensors"))
    expected = Scope(net, torch.zeros(1, 1, 8, 8), normalize=([0.5], [1.0])).saliency(image, 1).values
    assert torch.equal(found.tensors["values"], expected)


@pytest.mark.parametrize(
    ("given", "error", "expected"),
    [
        ({}, SettingError, "nothing to look at; give a run's folder, or --net"),
        ({"run": "runs/x", "net": "mine:small"}, SettingError, "--net mine:small: a run has its own network"),
        ({"run": "runs/x", "weights": Path("w")}, SettingError, "--weights: a run knows its own"),
        ({"run": "runs/x", "pretrained": True}, SettingError, "--pretrained: a run knows its own"),
        ({"run": "runs/x", "seed": 0}, SettingError, "--seed: a run knows its own"),
        ({"run": "runs/x", "options": {"width": 3}}, SettingError, "--set: a run knows its own"),
        ({"net": "net1", "pretrained": True, "weights": Path("w")}, SettingError, "--pretrained: the weights come from w"),
        ({"net": "net1", "pretrained": True}, UnknownNameError, "option 'pretrained' is not one of net1's"),
        ({"net": "mine:small", "pretrained": True}, SettingError, "mine:small does not take these options: .*'pretrained'"),
        ({"net": "mine:small", "input": "8x8"}, SettingError, "--input 8x8: expected channels, height and width"),
        ({"net": "mine:small", "input": "1x8x8", "mean": "grey"}, SettingError, "--mean grey: expected a number"),
        ({"net": "mine:small", "input": "1x8x8", "mean": "0,0"}, RequestError, "a mean and a positive deviation"),
        ({"net": "mine:small", "input": "1x8x8", "classes": Path("no.txt")}, SettingError, "--classes no.txt"),
        ({"net": "mine:small", "input": "1x8x8", "weights": Path("no")}, RunFolderError, "no is missing"),
        ({"net": "mine:small", "input": "1x8x8", "weights": Path("other")}, RunFolderError, "other does not belong"),
    ],
)  # fmt: skip
def test_wrong_subjects(foreign: Path, given: dict[str, Any], error: type, expected: str) -> None:
    save_file({"x": torch.zeros(1)}, "other")
    with pytest.raises(error, match=expected):
        open_subject(**given)


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_of_torch_save_are_refused_with_the_line_that_converts_them(foreign: Path, zipped: bool) -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    torch.save(net.state_dict(), "my.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        RunFolderError, match=r"^my\.pt is a pickle, .* may run any code when opened; convert it: [^\n]*$"
    ) as caught:
        open_subject(net="mine:small", input="1x8x8", weights=Path("my.pt"))
    line = str(caught.value).partition("convert it: python ")[2]
    subprocess.run([sys.executable, *shlex.split(line)], check=True)
    found = open_subject(net="mine:small", input="1x8x8", weights=Path("my.safetensors")).scope.net.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"out": Path("x.gif")}, "--out x.gif: the picture is a PNG; give a name that ends with .png"),
        (
            {"raw": Path("x.npy")},
            "--raw x.npy: the tensors are written as safetensors; give a name that ends with .safetens",
        ),
    ],
)
def test_a_file_whose_name_says_something_else_is_refused(foreign: Path, given: dict[str, Any], expected: str) -> None:
    subject = open_subject(net="mine:small", input="1x8x8")
    with pytest.raises(SettingError, match=expected):
        look_at(subject, "saliency", "grey.png", **given)
    assert not any(path.exists() for path in given.values())


def test_a_network_without_a_run_has_no_test_images(foreign: Path) -> None:
    subject = open_subject(net="mine:small", input="1x8x8")
    with pytest.raises(SettingError, match="--image 3: a network that is no run has no test images; give a file"):
        look_at(subject, "saliency", "3")


def test_results_show_themselves_in_a_notebook(reported: Run) -> None:
    scope, images = Scope(reported), reported.load_data().test.images([0, 1])
    results = (scope.saliency(images), scope.grad_cam(images), scope.occlusion(images, 3), scope.maximize("conv1", [0]))
    for result in results:
        with Image.open(io.BytesIO(result._repr_png_())) as shown:
            assert shown.size[0] > 150
            assert len(shown.convert("RGB").getcolors(1 << 24)) > 20
    assert scope.anatomy()._repr_html_().startswith("<table>")


@pytest.fixture
def photo(tmp_path: Path) -> str:
    Image.effect_noise((90, 70), 90).convert("RGB").save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def test_a_network_of_timm_is_looked_at_as_it_was_made(photo: str, tmp_path: Path) -> None:
    open_zoo()
    import timm

    torch.manual_seed(0)
    net = timm.create_model("test_resnet").eval()
    image = read_image(photo, (3, 160, 160))
    expected = Scope(net, torch.zeros(1, 3, 160, 160), normalize=((0.5,) * 3, (0.5,) * 3)).saliency(image).values
    subject = open_subject(net="timm:test_resnet")
    assert subject.random_weights == "random weights"
    _, found = look_at(subject, "saliency", photo, out=tmp_path / "p.png")
    assert torch.equal(found.tensors["values"], expected)


def test_random_weights_are_named_in_the_heading_and_in_the_picture(photo: str, tmp_path: Path) -> None:
    subject = open_subject(net="net1")
    path, found = look_at(subject, "saliency", photo, out=tmp_path / "random.png")
    assert found.heading.startswith("random weights: saliency: class ")
    weights = tmp_path / "net1.safetensors"
    save_file(subject.scope.net.state_dict(), weights)
    same = open_subject(net="net1", weights=weights)
    plain, told = look_at(same, "saliency", photo, out=tmp_path / "told.png")
    assert found.heading == f"random weights: {told.heading}"
    with Image.open(path) as with_words, Image.open(plain) as without:
        band = with_words.height - without.height
        assert band > 20
        words = np.asarray(with_words)[:band]
        below = np.asarray(with_words)[band:, : without.width]
        assert np.array_equal(below, np.asarray(without))
        assert len(np.unique(words.reshape(-1, 3), axis=0)) > 10  # letters on a ground of another colour


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"mean": "0.1,0.2,0.3"}, ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))),
        ({"deviation": "1,1,1"}, ((0.5, 0.5, 0.5), (1.0, 1.0, 1.0))),
        ({"input": "1x64x64", "options": {"classes": 4}}, ((0.5,), (0.5,))),
    ],
)
def test_what_is_given_comes_before_the_networks_own(settings: dict[str, Any], expected: Any) -> None:
    open_zoo()
    scope = open_subject(net="timm:test_resnet", **settings).scope
    image = torch.full(scope.input_shape, 0.7)
    mean, deviation = (torch.tensor(values).view(-1, 1, 1) for values in expected)
    torch.testing.assert_close(scope.prepare(image)[0], (image - mean) / deviation)
    if "options" in settings:
        assert scope.logits(image).shape == (1, 4)
