from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.errors import RequestError, UnknownNameError
from convscope.graph import TracedGraph, positions, trace
from convscope.lenses.by_name import attribute_by_name
from convscope.lenses.cam import (
    WEIGHINGS,
    class_activation_map,
    grad_cam,
    grad_cam_plus_plus,
    hires_cam,
    last_map,
    layer_cam,
)
from tests.graph.graph_networks import Hierarchical, Recurrent, Transformer, vgg_like
from tests.lenses.lens_networks import ByFunctions, ByModules, Mixed, evaluated, traced
from tests.zoo import open_zoo

captum = pytest.importorskip("captum.attr")


def by_hand(weights: list[list[float]]) -> TracedGraph:
    """Two maps of 1×2 positions, which are the image's channels; the logits weigh all four numbers."""
    net = nn.Sequential(OrderedDict(maps=nn.Conv2d(2, 2, 1, bias=False), flat=nn.Flatten(), fc=nn.Linear(4, 2)))
    with torch.no_grad():
        net.maps.weight.copy_(torch.eye(2).view(2, 2, 1, 1))
        net.fc.weight.copy_(torch.tensor(weights))
        net.fc.bias.zero_()
    return trace(net, torch.zeros(1, 2, 1, 2))


IMAGE = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])


def test_by_hand() -> None:
    """A₁ = (1, 2), A₂ = (3, 4); g₁ = (1, 3), g₂ = (−1, 2); their means are 2 and ½."""
    graph = by_hand([[1, 3, -1, 2], [0, 0, 0, 0]])
    assert grad_cam(graph, IMAGE).values.flatten().tolist() == [2 * 1 + 0.5 * 3, 2 * 2 + 0.5 * 4]
    assert hires_cam(graph, IMAGE).values.flatten().tolist() == [1 * 1 - 1 * 3, 3 * 2 + 2 * 4]
    assert hires_cam(graph, IMAGE, relu=True).values.flatten().tolist() == [0, 14]
    assert layer_cam(graph, IMAGE).values.flatten().tolist() == [1 * 1 + 0 * 3, 3 * 2 + 2 * 4]
    # g² / (2 g² + Σ A · g³) is 1 / (2 + Σ A · g); Σ A is 3 and 7
    weights = 1 / (2 + 3 * 1) * 1 + 1 / (2 + 3 * 3) * 3, 1 / (2 + 7 * 2) * 2
    expected = [weights[0] * 1 + weights[1] * 3, weights[0] * 2 + weights[1] * 4]
    assert grad_cam_plus_plus(graph, IMAGE).values.flatten().tolist() == pytest.approx(expected)


def test_grad_cam_plus_plus_at_a_layer_that_is_not_the_last() -> None:
    """Equation 19 by hand, where a sum of A · g³ over positions in place of (Σ A) · g³ would give other weights.

    A = (2, −1, 3), then the sums of neighbours (1, 2), squared by being multiplied with themselves; s = 1 + 4 · 2 = 9.
    So ∂s/∂A = (2, 2 + 8, 8), Σ A = 4, and α = 1 / (2 + 4 g).
    """

    class Squares(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 1, 1, bias=False), nn.Conv2d(1, 1, (1, 2), bias=False)

        def forward(self, x: Tensor) -> Tensor:
            y = self.second(self.first(x)).flatten(1)
            return (y * y * torch.tensor([1.0, 2.0])).sum(1, keepdim=True)

    net = Squares()
    for parameter in net.parameters():
        nn.init.ones_(parameter)
    image = torch.tensor([[[[2.0, -1.0, 3.0]]]])
    weight = 2 / (2 + 4 * 2) + 10 / (2 + 4 * 10) + 8 / (2 + 4 * 8)
    found = grad_cam_plus_plus(trace(net, image), image, 1, "first").values.flatten()
    assert found.tolist() == pytest.approx([2 * weight, -weight, 3 * weight])
    summed = 2 * 2**3 - 10**3 + 3 * 8**3  # of A · g³, which is not the formula
    other = sum(g**3 / (2 * g**2 + summed) for g in (2, 10, 8))
    assert abs(other - weight) > 0.1 * weight


def test_grad_cam_plus_plus_where_the_denominator_is_zero() -> None:
    """Σ A = −1 and g = 2 make 2 g² + Σ A · g³ = 0: no weight, and no division by zero."""
    graph = by_hand([[2, 2, 1, 1], [0, 0, 0, 0]])
    image = torch.tensor([[[[1.0, -2.0]], [[3.0, 4.0]]]])
    found = grad_cam_plus_plus(graph, image, 0).values.flatten().tolist()
    assert found == pytest.approx([2 / (2 + 7) * 3, 2 / (2 + 7) * 4])


def test_a_map_against_the_class_says_so() -> None:
    graph = by_hand([[-1, -1, -1, -1], [0, 0, 0, 0]])
    found = grad_cam(graph, IMAGE, target=0)
    assert found.values.flatten().tolist() == [-4, -6]
    assert found.note == "all values are negative: nothing in this image speaks for the class"
    rectified = grad_cam(graph, IMAGE, target=0, relu=True)
    assert (rectified.values.any(), rectified.note) == (False, found.note)
    assert grad_cam(graph, IMAGE).note == "all values are zero: the class does not depend on this layer here"
    pair = torch.cat([IMAGE, -IMAGE, IMAGE])
    assert grad_cam(graph, pair, 0).note.startswith("images 0, 2: all values are negative")


@pytest.mark.parametrize("network", [ByModules, ByFunctions])
@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3", "pool"])
def test_captum(network: type[nn.Module], layer: str) -> None:
    graph = traced(network, (3, 8, 8))
    net, images, target = graph.net, torch.randn(4, 3, 8, 8), torch.tensor([0, 4, 2, 2])
    found = grad_cam(graph, images, target, layer)
    peer = captum.LayerGradCam(net, getattr(net, layer))
    torch.testing.assert_close(found.values, peer.attribute(images, target))
    torch.testing.assert_close(
        found.on_image(8, 8), captum.LayerAttribution.interpolate(found.values, (8, 8), "bilinear")
    )
    assert (found.layer, found.method, found.target.tolist()) == (layer, "grad_cam", target.tolist())


def test_brute_force() -> None:
    """Position by position, on a layer within a residual block, from gradients that autograd gives by itself."""
    graph = traced(Mixed, dtype=torch.float64)
    images = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    layer = "residual.conv2"
    activations = graph.run(images, [layer])[layer].detach().requires_grad_()
    logits = graph.run(images, given={layer: activations})["fc"]
    (g,) = torch.autograd.grad(logits[:, 1].sum(), activations)
    a = activations.detach()
    expected = {lens: torch.zeros(2, 1, 5, 4, dtype=torch.float64) for lens in (grad_cam, hires_cam, layer_cam)}
    plus_plus = torch.zeros(2, 1, 5, 4, dtype=torch.float64)
    for n in range(2):
        for u in range(a.shape[1]):
            places = [(i, j) for i in range(5) for j in range(4)]
            total = sum(a[n, u, i, j] for i, j in places)
            weight = 0.0
            for i, j in places:
                below = 2 * g[n, u, i, j] ** 2 + total * g[n, u, i, j] ** 3
                weight += g[n, u, i, j] ** 2 / below * max(g[n, u, i, j], 0) if below else 0.0
            for i, j in places:
                expected[grad_cam][n, 0, i, j] += sum(g[n, u, y, x] for y, x in places) / 20 * a[n, u, i, j]
                expected[hires_cam][n, 0, i, j] += g[n, u, i, j] * a[n, u, i, j]
                expected[layer_cam][n, 0, i, j] += max(g[n, u, i, j], 0) * a[n, u, i, j]
                plus_plus[n, 0, i, j] += weight * a[n, u, i, j]
    for lens, values in (expected | {grad_cam_plus_plus: plus_plus}).items():
        torch.testing.assert_close(lens(graph, images, 1, layer).values, values)


def test_the_default_layer() -> None:
    images = torch.zeros(1, 3, 32, 32)
    assert last_map(trace(vgg_like(), images), images) == "pool3"
    images = torch.zeros(1, 3, 8, 8)
    graph = traced(ByModules, (3, 8, 8))
    assert last_map(graph, images) == grad_cam(graph, images).layer == "pool"
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    assert last_map(trace(pooled, images), images) == "1"
    with pytest.raises(RequestError, match="no layer of this network has maps"):
        grad_cam(trace(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), images), images)


def test_hires_cam_before_a_global_average_pool_is_grad_cam() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    images = torch.randn(2, 3, 8, 8)
    graph = trace(net, images)
    torch.testing.assert_close(hires_cam(graph, images).values, grad_cam(graph, images).values)
    logits = graph.run(images)["4"].detach()
    target = logits.argmax(1)
    torch.testing.assert_close(
        grad_cam(graph, images).values.sum((1, 2, 3)), logits.amax(1) - net[4].bias[target].detach()
    )


def test_tokens_without_the_class_token() -> None:
    net, images = evaluated(Transformer()), torch.randn(2, 3, 8, 12)
    graph = trace(net, images)
    found = grad_cam(graph, images, 3)
    assert (found.layer, found.values.shape) == ("norm", (2, 1, 2, 3))  # of the sum that follows only a token is read
    tokens = graph.run(images, ["norm"])["norm"].detach().requires_grad_()
    (gradients,) = torch.autograd.grad(graph.run(images, given={"norm": tokens})["head"][:, 3].sum(), tokens)
    expected = (gradients[:, 1:].mean(1, keepdim=True) * tokens[:, 1:]).sum(-1).view(2, 1, 2, 3)
    torch.testing.assert_close(found.values, expected.detach())
    assert grad_cam(graph, images, 3, "add").note == (
        "images 0, 1: all values are zero: the class does not depend on this layer here"
    )


def test_a_hierarchical_transformer() -> None:
    """The last norm, 4×6 positions, though windows were cut and patches merged before it."""
    images = torch.randn(2, 3, 16, 24)
    graph = trace(evaluated(Hierarchical()), images)
    found = grad_cam(graph, images, 3)
    assert (found.layer, found.values.shape) == ("norm", (2, 1, 4, 6))
    assert "positions are lost" not in (found.note or "")
    result = graph.run(images, ["norm"])["norm"].detach().requires_grad_()
    (gradients,) = torch.autograd.grad(graph.run(images, given={"norm": result})["head"][:, 3].sum(), result)
    expected = (gradients.mean((1, 2), keepdim=True) * result).sum(-1)[:, None]
    torch.testing.assert_close(found.values, expected.detach())
    shifted = grad_cam(graph, images, 3, "block2.roll").values  # within shifted windows, at their places in the image
    result = graph.run(images, ["block2.roll"])["block2.roll"].detach().requires_grad_()
    rest = graph.run(images, given={"block2.roll": result})["head"][:, 3].sum()
    (gradients,) = torch.autograd.grad(rest, result)
    expected = (gradients.mean((1, 2), keepdim=True) * result).sum(-1)[:, None].roll((1, 1), (2, 3))
    torch.testing.assert_close(shifted, expected.detach())


def test_a_note_where_positions_are_lost_before_the_last_layers() -> None:
    class Latents(nn.Module):
        """Three tokens of its own read the image; two more layers follow."""

        def __init__(self) -> None:
            super().__init__()
            self.patches, self.tokens = nn.Conv2d(3, 4, 2, stride=2), nn.Parameter(torch.randn(1, 3, 4))
            self.norm, self.mixed, self.head = nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.patches(x).flatten(2).transpose(1, 2))
            x = F.scaled_dot_product_attention(self.tokens.expand(x.shape[0], -1, -1), x, x)
            return self.head(self.mixed(x).mean(1))

    images = torch.randn(2, 3, 8, 12)
    graph = trace(evaluated(Latents()), images)
    found = grad_cam(graph, images)
    assert (found.layer, found.values.shape) == ("norm", (2, 1, 4, 6))
    assert found.note is not None
    assert found.note.startswith("the map is taken at norm: positions are lost after it")
    assert "positions are lost" not in (grad_cam(graph, images, layer="norm").note or "")  # it was asked for


ZOO = {
    "swin_tiny_patch4_window7_224": ("norm", (7, 7)),
    "swinv2_tiny_window8_256": ("norm", (8, 8)),
    "swinv2_cr_tiny_ns_224": ("stages.3.permute_2", (7, 7)),
    "vit_tiny_patch16_224": ("blocks.11.norm1", (14, 14)),
    "cait_xxs24_224": ("blocks_token_only.1.norm1", (14, 14)),
    "xcit_nano_12_p16_224": ("cls_attn_blocks.1.norm1", (14, 14)),
    "pit_ti_224": ("transformers.2.blocks.3.norm1", (7, 7)),
    "levit_128s": ("stages.2.blocks.3.add_2", (4, 4)),
    "mixer_s32_224": ("norm", (7, 7)),
    "poolformer_s12": ("stages.3.blocks.1.add_2", (7, 7)),
    "convnext_atto": ("stages.3.blocks.1.add", (7, 7)),
    "maxvit_pico_rw_256": ("norm.permute_2", (8, 8)),
    "coatnet_nano_rw_224": ("norm.permute_2", (7, 7)),
    "hiera_tiny_224": ("blocks.11.add_2", (7, 7)),
    "nest_tiny": ("permute_2", (14, 14)),
    "mobilevit_xxs": ("final_conv.bn.act", (8, 8)),
}
"""The layer that the answer is read from, or the input of the last attention where it is read from a class token."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_the_default_layer_of_real_networks(name: str) -> None:
    """And where one square of the image changes, the map changes most, in random weights: what passes by stays in place."""
    open_zoo()
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    net = timm.create_model(name).eval()
    image = torch.randn(1, *net.pretrained_cfg["input_size"])
    graph = trace(net, image)
    layer, (rows, columns) = ZOO[name]
    assert (last_map(graph, image), positions(graph)[layer].size) == (layer, (rows, columns))
    row, column, side = rows // 4, 2 * columns // 3, image.shape[2] // rows
    changed = image.clone()
    square = changed[:, :, row * side : (row + 1) * side, column * side : (column + 1) * side]
    square.copy_(3 * torch.randn(square.shape))
    with torch.no_grad():
        before, after = (positions(graph)[layer].as_map(graph.run(x, [layer])[layer]) for x in (image, changed))
    most = divmod(int((after - before).abs().mean(1).argmax()), columns)
    if name != "levit_128s":  # nothing passes by the attention between its stages, and random weights spread it evenly
        assert max(abs(most[0] - row), abs(most[1] - column)) <= 1
    assert "positions are lost" not in (grad_cam(graph, image).note or "")


def test_frozen_and_detached_networks() -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(F.relu(self.conv(x)).detach().mean((2, 3)))

    net, images = Head().requires_grad_(False), torch.randn(2, 3, 8, 8)
    graph = trace(net, images)
    assert grad_cam(graph, images).values.any()
    with pytest.raises(RequestError, match="no gradient comes back"):
        grad_cam(graph, images, layer="conv")


@pytest.mark.parametrize("method", WEIGHINGS)
@pytest.mark.parametrize("network", [ByModules, ByFunctions, Mixed])
def test_from_a_result_that_is_known_it_is_the_same_to_the_bit(network: type[nn.Module], method: str) -> None:
    graph, image = traced(network, (3, 8, 8)), torch.randn(1, 3, 8, 8)
    for layer in positions(graph):
        with torch.no_grad():
            known = graph.run(image, [layer, graph.outputs[0]])[layer]
        before = known.clone()
        found = class_activation_map(graph, image, 1, layer, method, WEIGHINGS[method], known=known)
        assert torch.equal(found.values, attribute_by_name(graph, image, method, 1, layer=layer).values)
        assert torch.equal(known, before)


def test_magnitudes_are_kept_when_enlarged() -> None:
    graph = by_hand([[1, 3, -1, 2], [0, 0, 0, 0]])
    found = grad_cam(graph, IMAGE)
    enlarged = found.on_image(4, 8)
    assert (enlarged.shape, enlarged.dtype) == ((1, 1, 4, 8), torch.float32)
    assert (float(enlarged.min()), float(enlarged.max())) == (3.5, 6.0)
    assert torch.equal(enlarged[0, 0, 0], enlarged[0, 0, 3])


def test_wrong_requests() -> None:
    graph = traced(ByModules, (3, 8, 8))
    images = torch.zeros(1, 3, 8, 8)
    with pytest.raises(UnknownNameError, match="layer 'conv9' is not in this network; did you mean 'conv"):
        grad_cam(graph, images, layer="conv9")
    with pytest.raises(RequestError, match="layer 'fc1' has no rows and columns, and a map needs them; there is conv1"):
        layer_cam(graph, images, layer="fc1")
    with pytest.raises(RequestError, match="target: 7 is not a class"):
        hires_cam(graph, images, 7)
    rows = trace(Recurrent(), torch.zeros(1, 1, 7, 8))
    with pytest.raises(RequestError, match="layer 'rnn' has no rows and columns, and a map needs them; there is none"):
        grad_cam(rows, torch.zeros(1, 1, 7, 8), layer="rnn")


def test_indices_of_a_max_pool_are_no_map() -> None:
    class Unpooling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            pooled, indices = F.max_pool2d(self.conv(x), 2, return_indices=True)
            return self.fc(F.max_unpool2d(pooled, indices, 2).mean((2, 3)))

    images = torch.rand(2, 3, 6, 4)
    graph = trace(Unpooling().eval(), images)
    assert grad_cam(graph, images).values.shape[:2] == (2, 1)
    assert last_map(graph, images) == "part"  # of the pool: its values; after the unpooling positions are not known
