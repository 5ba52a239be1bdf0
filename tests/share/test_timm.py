"""A published network of timm's opens by timm alone, from the folder and from the Hub, and answers to the bit as the run."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image

import convscope as cs
from convscope.nets import build_net
from convscope.runs import Recipe, Run
from convscope.share import publish_run, write_card
from convscope.training import Silent, train
from tests.conftest import write_spots
from tests.share.test_publish import hub
from tests.zoo import open_zoo

__all__ = ["hub"]


@pytest.fixture(autouse=True, scope="module")
def zoo() -> None:
    open_zoo()


def _trained(folder: Path, name: str, channels: int = 3, side: int = 32, **options: Any) -> Run:
    data = cs.load_data(str(write_spots(folder / "spots.npz", 90, channels=channels, side=side)))
    net = build_net(name, classes=3, channels=channels, image_size=side, **options)
    recipe = Recipe(epochs=1, batch=24, rate=0.001)
    run = train(net, data, recipe, folder / "run", device="cpu", watcher=Silent())
    cs.evaluate(run, data)
    return cs.open_run(run.path)


def _opened(name: str, **options: Any) -> torch.nn.Module:
    import timm

    return timm.create_model(name, pretrained=True, **options).eval()


@pytest.mark.parametrize(
    ("name", "channels", "options"),
    [
        ("timm:test_resnet.r160_in1k", 3, {}),
        ("timm:test_resnet", 1, {"drop_rate": 0.2}),
        ("timm:test_vit", 3, {"patch_size": 8}),
        ("timm:test_efficientnet", 3, {}),
    ],
)
def test_timm_opens_the_folder_and_answers_to_the_bit(
    tmp_path: Path, name: str, channels: int, options: dict[str, Any]
) -> None:
    run = _trained(tmp_path, name, channels, **options)
    card = write_card(run)
    net: Any = _opened(f"local-dir:{card}")
    images = torch.rand(5, channels, 32, 32)
    with torch.no_grad():
        assert torch.equal(net(images), run.net(images))
    assert type(net) is type(run.net)
    assert list(net.pretrained_cfg["label_names"]) == list(run.classes)
    assert 'timm.create_model("local-dir:path/to/this/folder", pretrained=True)' in (card / "README.md").read_text(
        "utf-8"
    )
    assert cs.open_run(card).predict(images).equals(run.predict(images))


def test_timm_opens_what_was_published_and_prepares_images_likewise(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from timm.data import create_transform, resolve_model_data_config

    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    run = _trained(tmp_path, "timm:test_resnet")
    publish_run(run, "somebody/spots")
    net = _opened("hf-hub:somebody/spots", cache_dir=tmp_path / "cache")
    transform = create_transform(**resolve_model_data_config(net))
    random = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    for size in ((32, 32), (64, 64), (20, 20)):
        photo = Image.fromarray(random).resize(size, Image.Resampling.BICUBIC)
        photo.save(tmp_path / "photo.png")
        images = cs.load_images(tmp_path / "photo.png", like=run)
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in run.normalization)
        prepared: torch.Tensor = transform(photo)  # type: ignore[assignment]
        # the same pixels, normalised and back; of others than squares timm cuts out the centre after scaling, to whole pixels
        assert float((prepared * std + mean - images[0]).abs().max()) < 1e-6
        with torch.no_grad():
            expected = run.task.probabilities(run.net(prepared[None]))
            assert torch.equal(net(prepared[None]).softmax(1), expected)


def test_other_heads_are_not_said_to_be_timms(tmp_path: Path) -> None:
    run = _trained(tmp_path, "timm:test_resnet", head="f8")
    card = write_card(run)
    assert json.loads((card / "config.json").read_text())["architecture"] == "timm:test_resnet"
    text = (card / "README.md").read_text("utf-8")
    assert "create_model" not in text
    assert "library_name: convscope" in text
    images = torch.rand(5, 3, 32, 32)
    assert cs.open_run(card).predict(images).equals(run.predict(images))


def test_where_the_first_weights_lay_stays_at_home(tmp_path: Path) -> None:
    torch.save(build_net("timm:test_resnet").state_dict(), tmp_path / "own.pth")
    overlay = {"file": str(tmp_path / "own.pth")}
    run = _trained(tmp_path, "timm:test_resnet", pretrained=True, pretrained_cfg_overlay=overlay)
    (tmp_path / "own.pth").unlink()
    card = write_card(cs.open_run(run.path, trust=True))
    for file in ("README.md", "config.json", "spec.yaml"):
        assert str(tmp_path) not in (card / file).read_text("utf-8")
    images = torch.rand(5, 3, 32, 32)
    expected = cs.open_run(run.path, trust=True).predict(images)
    assert cs.open_run(card).predict(images).equals(expected)
    with torch.no_grad():
        assert torch.equal(_opened(f"local-dir:{card}")(images), cs.open_run(card).net(images))
