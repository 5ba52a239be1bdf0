"""Occlusion against a plain loop of whole passes, against Captum's, and by hand."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import Occlusion
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.errors import NetworkError, RequestError
from convscope.graph import Incremental, trace
from convscope.lenses import Fill, OcclusionMap, fill_images, occlusion
from convscope.nets import build_net
from convscope.scope import Scope
from tests.gpus import CUDA, assert_near, on_gpu
from tests.graph.graph_networks import SqueezeExcite, Transformer, chain
from tests.lenses.lens_networks import ByModules, Mixed, evaluated, traced

SHAPE = (3, 9, 8)
NETS: dict[str, Callable[[], nn.Module]] = {
    "mixed": Mixed,
    "whole from a layer on": lambda: chain(SqueezeExcite(), nn.Flatten(), nn.Linear(288, 3)),
    "one logit": lambda: chain(Mixed(), nn.Linear(5, 1)),
}
SQUARES: dict[str, tuple[Any, Any]] = {
    "a pixel": (1, 1),
    "a square": (3, 1),
    "a rectangle": ((2, 5), 1),
    "stride": (3, 2),
    "two strides that leave a rest": ((4, 2), (2, 5)),
    "stride larger than the square": (1, 3),
    "the whole image": ((9, 8), 1),
    "whole columns": ((9, 1), 1),
}


# However the cost model chooses, the answers are the same up to rounding: (number of the block's side, steps followed).
WAYS: dict[str, Callable[..., tuple[int, int]]] = {
    "whole passes": lambda network, ways, *_: (0, 0),
    "half the network in boxes, largest blocks": lambda network, ways, *_: (len(ways) - 1, len(network.steps) // 2),
    "as far as it goes, single squares": lambda network, ways, *_: (0, len(network.steps)),
    "as far as it goes, largest blocks": lambda network, ways, *_: (len(ways) - 1, len(network.steps)),
}


def random_images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loop(net: nn.Module, image: Tensor, fill: Tensor, size: Any, stride: Any) -> Tensor:
    """The oracle: the logits of a whole pass for each position, (rows, columns, K)."""
    (height, width), (down, across) = ((x, x) if isinstance(x, int) else x for x in (size, stride))
    rows, columns = range(0, image.shape[1] - height + 1, down), range(0, image.shape[2] - width + 1, across)
    found = []
    for r, c in product(rows, columns):
        covered = image.clone()
        covered[:, r : r + height, c : c + width] = fill[:, r : r + height, c : c + width]
        with torch.no_grad():
            found.append(net(covered[None])[0])
    return torch.stack(found).unflatten(0, (len(rows), len(columns)))


def chances(logits: Tensor) -> Tensor:
    if logits.shape[-1] > 1:
        return logits.softmax(-1)
    return torch.cat([1 / (1 + logits.exp()), 1 / (1 + (-logits).exp())], -1)


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
@pytest.mark.parametrize(("size", "stride"), SQUARES.values(), ids=SQUARES)
@pytest.mark.parametrize("way", WAYS)
def test_every_position_equals_a_whole_pass(
    make: Callable[[], nn.Module], size: Any, stride: Any, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another target and another cover for each image; to 1e-12, some roundings of float64."""
    monkeypatch.setattr(Incremental, "cheapest", WAYS[way])
    graph = traced(make, SHAPE, torch.float64)
    net, images, fills = graph.net, random_images(2), random_images(2, seed=1)
    targets = [1, 0] if make is NETS["one logit"] else [2, 0]
    found = occlusion(graph, images, fills, size, stride, targets, logits=True)
    assert found.logits is not None
    for i, target in enumerate(targets):
        expected = by_loop(net, images[i], fills[i], size, stride)
        torch.testing.assert_close(found.logits[i], expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.probabilities[i], chances(expected)[..., target], rtol=0, atol=1e-12)
        torch.testing.assert_close(found.whole[i], chances(net(images[i : i + 1]))[0, target], rtol=0, atol=1e-12)
    torch.testing.assert_close(found.sum, found.probabilities.sum((1, 2)))
    torch.testing.assert_close(found.drop[1], found.whole[1] - found.probabilities[1])


@pytest.mark.parametrize(("name", "scale"), [("net1", 20), ("net4", 500), ("lean-cifar", 20), ("lenet-bn", 20)])
def test_float32_networks_of_the_catalogue(name: str, scale: float) -> None:
    """Where rounding is that of float32: within 1e-5 of a probability, on last weights that make classes differ."""
    torch.manual_seed(0)
    net = build_net(name).eval()
    channels, side = (1, 28) if name == "lenet-bn" else (3, 32)
    image = torch.rand(1, channels, side, side)
    with torch.no_grad():
        list(net.parameters())[-2].mul_(scale)
    grey = fill_images(image, "grey")
    found = occlusion(trace(net, image), image, grey, 7, 6)
    expected = chances(by_loop(net, image[0], grey[0], 7, 6))[..., found.targets[0]]
    assert expected.max() - expected.min() > 1e-3
    torch.testing.assert_close(found.probabilities[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("size", "stride"), [((3, 3), (1, 1)), ((2, 2), (2, 2)), ((3, 2), (1, 2))])
def test_captum(size: tuple[int, int], stride: tuple[int, int]) -> None:
    """Captum spreads the drops over the pixels they are of, in float32; the last square of each row fits the image."""
    net, images = evaluated(ByModules().double()), random_images(2)[:, :, :8]
    found = occlusion(trace(net, images), images, torch.zeros_like(images[:1]), size, stride, [1, 3])
    expected = Occlusion(lambda x: net(x).softmax(1)).attribute(
        images, (3, *size), (3, *stride), baselines=0, target=torch.tensor([1, 3])
    )[:, 0]
    square = torch.ones(1, 1, *size, dtype=torch.float64)
    drops, squares = (
        F.conv_transpose2d(x[:, None], square, stride=stride)[:, 0] for x in (found.drop, torch.ones_like(found.drop))
    )
    torch.testing.assert_close(drops / squares, expected.double(), rtol=0, atol=1e-6)


def test_by_hand() -> None:
    """One logit, the sum of pixels 1 2 3: covering a pixel with 0 takes its value away, before the sigmoid."""
    net = chain(nn.Flatten(), nn.Linear(3, 1, bias=False))
    nn.init.ones_(net[1].weight)
    image = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    found = occlusion(trace(net, image), image, torch.zeros_like(image), 1, logits=True)
    assert found.logits is not None
    assert found.logits.flatten().tolist() == [5, 4, 3]
    torch.testing.assert_close(found.probabilities, torch.tensor([[[5.0, 4.0, 3.0]]]).sigmoid())
    torch.testing.assert_close(found.whole, torch.tensor([6.0]).sigmoid())


@pytest.mark.usefixtures("annotations_unchecked")
def test_several_sizes_in_one_call() -> None:
    images = random_images(2)
    graph, grey = traced(Mixed, SHAPE, torch.float64), fill_images(images, "grey")
    sizes = [1, (2, np.int64(3)), 8]
    together = occlusion(graph, images, grey, sizes, 2)
    assert occlusion(graph, images, grey, []) == []
    assert [m.size for m in together] == [(1, 1), (2, 3), (8, 8)]
    for one, size in zip(together, sizes, strict=True):
        alone = occlusion(graph, images, grey, size, 2)
        assert torch.equal(one.probabilities, alone.probabilities)
        assert (one.logits, one.note, one.stride) == (None, None, (2, 2))


def test_the_default_target_is_the_most_probable() -> None:
    graph, images = traced(Mixed), random_images(3).float()
    found = occlusion(graph, images, fill_images(images, "zero"), 5)
    assert torch.equal(found.targets, graph.net(images).argmax(1))


def test_little_memory_gives_the_same() -> None:
    """One square at a time, and as many as fit: to the rounding of float64."""
    images = random_images(1)
    graph, grey = traced(Mixed, SHAPE, torch.float64), fill_images(images, "grey")
    few, many = (occlusion(graph, images, grey, 3, max_memory=m).probabilities for m in (1, 1 << 30))
    torch.testing.assert_close(few, many, rtol=0, atol=1e-13)


@pytest.mark.parametrize("n_threads", [2, 3, 7])
@pytest.mark.parametrize("way", WAYS)
def test_several_threads_give_the_same(way: str, n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each position in its place, however positions are shared out; to the rounding of float64."""
    monkeypatch.setattr(Incremental, "cheapest", WAYS[way])
    images, before = random_images(2), torch.get_num_threads()
    graph, grey = traced(Mixed, SHAPE, torch.float64), fill_images(images, "grey")
    found = []
    for n in (1, n_threads):
        torch.set_num_threads(n)
        try:
            found.append(occlusion(graph, images, grey, [1, 3], 2))
            assert torch.get_num_threads() == n
        finally:
            torch.set_num_threads(before)
    for one, several in zip(*found, strict=True):
        torch.testing.assert_close(several.probabilities, one.probabilities, rtol=0, atol=1e-13)


def test_the_note_says_what_was_run_whole() -> None:
    image = torch.rand(1, 3, 8, 8)
    net = evaluated(Transformer())
    note = occlusion(trace(net, image), image, torch.zeros_like(image), 2).note
    assert note == "run whole, with all that follows: flatten (aten.flatten.using_ints)"


def test_several_heads() -> None:
    """The first that the network returns counts, as for all lenses."""

    class Heads(Mixed):
        def forward(self, x: Tensor) -> Any:
            x = super().forward(x)
            return x[:, :3] * 2, x

    net, images = evaluated(Heads().double()), random_images(1)
    found = occlusion(trace(net, images), images, fill_images(images, "grey"), 3, 3, 1)
    expected = by_loop(lambda x: net(x)[0], images[0], torch.full_like(images[0], 0.5), 3, 3)  # type: ignore[arg-type]
    torch.testing.assert_close(found.probabilities[0], chances(expected)[..., 1], rtol=0, atol=1e-12)


def test_layouts_stay_with_the_lens() -> None:
    net, images = evaluated(Mixed()), random_images(1).float()
    found = occlusion(trace(net, images), images, fill_images(images, "grey"), 3, logits=True)
    assert all(p.is_contiguous() for p in net.parameters())
    assert images.is_contiguous()
    assert found.logits is not None
    assert found.logits.is_contiguous()
    assert found.probabilities.is_contiguous()


REQUESTS: dict[str, tuple[dict[str, Any], str]] = {
    "size 0": ({"size": 0}, "size: 0; expected"),
    "size of three": ({"size": (1, 2, 3)}, r"size: \(1, 2, 3\); expected"),
    "half a pixel": ({"size": 2.5}, "size: 2.5; expected"),
    "larger than the image": ({"size": (3, 10)}, "a square of 3×10 is larger than the images of 9×8"),
    "one of several": ({"size": [3, 12]}, "a square of 12×12 is larger"),
    "stride 0": ({"stride": 0}, "stride: 0; expected"),
    "negative stride": ({"stride": (1, -2)}, r"stride: \(1, -2\); expected"),
    "target": ({"target": 5}, "target: 5 is not a class of this network; it has 0 to 4"),
    "targets": ({"target": [1]}, "1 targets for 2 images"),
    "memory": ({"max_memory": 0}, "max_memory: 0 bytes"),
    "fill of another size": ({"fill": torch.zeros(1, 3, 8, 9)}, r"fill: shape \(1, 3, 8, 9\)"),
    "too many fills": ({"fill": torch.zeros(3, 3, 9, 8)}, r"fill: shape \(3, 3, 9, 8\)"),
    "images of another size": ({"images": torch.zeros(2, 3, 8, 9)}, "images have the shape 2×3×8×9"),
    "no images": ({"images": torch.zeros(0, 3, 9, 8)}, "images: there is none"),
}


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize(("asked", "message"), REQUESTS.values(), ids=REQUESTS)
def test_wrong_requests(asked: dict[str, Any], message: str) -> None:
    graph = traced(Mixed)
    arguments = {"images": torch.zeros(2, *SHAPE), "fill": torch.zeros(1, *SHAPE)} | asked
    with pytest.raises(RequestError, match=f"^[^\n]*{message}[^\n]*$"):
        occlusion(graph, **arguments)


def test_a_network_without_logits() -> None:
    net = chain(nn.Conv2d(3, 2, 3))
    with pytest.raises(NetworkError, match="2×7×6 for an image: add its head"):
        occlusion(trace(net, torch.zeros(1, *SHAPE)), torch.zeros(1, *SHAPE), torch.zeros(1, *SHAPE))


class TestFills:
    """Colours and images to cover with, before normalisation."""

    IMAGES = random_images(2).float()

    @pytest.mark.usefixtures("annotations_unchecked")
    @pytest.mark.parametrize(
        ("fill", "value"), [("grey", 0.5), ("zero", 0.0), (0.25, 0.25), (1, 1.0), (np.float32(0.5), 0.5)]
    )
    def test_one_value(self, fill: Fill, value: float) -> None:
        assert torch.equal(fill_images(self.IMAGES, fill), torch.full((1, *SHAPE), value))

    def test_mean_of_each_image_and_channel(self) -> None:
        found = fill_images(self.IMAGES, "mean")
        assert found.shape == self.IMAGES.shape
        torch.testing.assert_close(found[1, 2, 4, 5], self.IMAGES[1, 2].mean())

    def test_blur(self) -> None:
        """Against a Gaussian written out; a flat image stays flat up to its border."""
        flat = torch.full((1, 2, 40, 32), 0.3)
        torch.testing.assert_close(fill_images(flat, "blur"), flat)
        spot = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
        spot[0, 0, 15, 16] = 1
        offsets = torch.arange(32, dtype=torch.float64)
        rows, columns = (torch.exp(-((offsets - at) ** 2) / 2 / 2**2) for at in (15, 16))
        rows, columns = (x * (x > 0.01) for x in (rows, columns))  # cut at 3 deviations: exp(−4.5) = 0.0111
        torch.testing.assert_close(
            fill_images(spot, "blur")[0, 0], rows[:, None] * columns / rows.sum() / columns.sum()
        )

    def test_colours_and_images(self) -> None:
        colour, image = torch.tensor([0.1, 0.2, 0.3]), self.IMAGES[0]
        assert torch.equal(fill_images(self.IMAGES, colour)[0, :, 3, 3], colour)
        assert torch.equal(fill_images(self.IMAGES, image), image[None])
        assert torch.equal(fill_images(self.IMAGES, self.IMAGES.flip(0)), self.IMAGES.flip(0))
        assert fill_images(self.IMAGES, image.double()).dtype == torch.float32

    @pytest.mark.usefixtures("annotations_unchecked")
    @pytest.mark.parametrize(
        "fill",
        ["gray", 1.5, -1, float("nan"), True, None, torch.zeros(4), torch.zeros(3, 8, 9), torch.zeros(3, *SHAPE),
         torch.zeros(2, 1, *SHAPE), torch.tensor(0.5)],
    )  # fmt: skip
    def test_wrong_fills(self, fill: Any) -> None:
        with pytest.raises(RequestError, match=r"^fill: [^\n]*expected[^\n]*$"):
            fill_images(self.IMAGES, fill)


class TestScope:
    """Pixels in, a fill in pixels, normalised on the way."""

    def test_normalises_image_and_fill(self) -> None:
        net = evaluated(Mixed().double())
        mean, deviation = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.25]).view(3, 1, 1)
        scope = Scope(net, torch.zeros(1, *SHAPE), normalize=(mean.flatten().tolist(), deviation.flatten().tolist()))
        image = random_images(1)[0]
        found = scope.occlusion(image, size=4, stride=2, target=3, fill="mean")
        fill = image.mean((1, 2), keepdim=True).expand(SHAPE)
        expected = by_loop(net, (image - mean) / deviation, (fill - mean) / deviation, 4, 2)
        torch.testing.assert_close(found.probabilities[0], chances(expected)[..., 3], rtol=0, atol=1e-6)

    def test_arguments_and_results(self) -> None:
        scope = Scope(evaluated(Mixed()), torch.zeros(1, *SHAPE))
        maps = scope.occlusion(random_images(2).float(), [2, 3], fill=0.25, logits=True, max_memory=1 << 20)
        assert all(isinstance(m, OcclusionMap) for m in maps)
        assert [tuple(m.logits.shape) for m in maps if m.logits is not None] == [(2, 8, 7, 5), (2, 7, 6, 5)]

    @pytest.mark.usefixtures("annotations_unchecked")
    def test_no_such_fill(self) -> None:
        scope = Scope(evaluated(Mixed()), torch.zeros(1, *SHAPE))
        with pytest.raises(RequestError, match="fill: 'white'; expected"):
            scope.occlusion(random_images(1)[0].float(), fill="white")  # type: ignore[arg-type]


def placed(drop: list[list[float]], size: int, stride: tuple[int, int], height: int, width: int) -> Tensor:
    """Drops of a map made by hand on the pixels of its image."""
    values = torch.tensor(drop)[None]
    found = OcclusionMap(1 - values, torch.ones(1), torch.zeros(1).long(), (size, size), stride)
    return found.on_image(height, width)[0]


def test_a_map_of_a_square_lies_at_its_centres() -> None:
    """3×3 squares on 5×5 pixels have their centres at 1, 2, 3; beyond them the outermost values go on."""
    found = placed([[0, 0.125, 0.25], [0.375, 0.5, 0.625], [0.75, 0.875, 1]], 3, (1, 1), 5, 5)
    torch.testing.assert_close(found[1:4, 1:4], torch.arange(9.0).view(3, 3) / 8)
    assert found[0, 0] == 0
    assert found[4, 4] == 1


def test_with_a_stride_the_pixels_between_are_interpolated() -> None:
    torch.testing.assert_close(placed([[0.0, 1.0]], 1, (1, 4), 1, 6), torch.tensor([[0, 0.25, 0.5, 0.75, 1, 1]]))


def test_a_single_position_fills_the_image() -> None:
    assert (placed([[0.5]], 4, (1, 1), 4, 4) == 0.5).all()


@on_gpu
@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
@pytest.mark.parametrize(("size", "stride"), SQUARES.values(), ids=SQUARES)
def test_on_a_gpu_every_position_equals_a_whole_pass_on_the_cpu(
    make: Callable[[], nn.Module], size: Any, stride: Any
) -> None:
    net = evaluated(make().double())
    images, fills = random_images(2), random_images(2, seed=1)
    expected = torch.stack([by_loop(net, *pair, size, stride) for pair in zip(images, fills, strict=True)])
    net.to(CUDA)
    found = occlusion(trace(net, images.to(CUDA)), images.to(CUDA), fills.to(CUDA), size, stride, logits=True)
    assert found.logits is not None
    assert_near(found.logits, expected)
    assert found.on_image(9, 8).device == CUDA


@on_gpu
@pytest.mark.usefixtures("full_float32")
def test_float32_on_a_gpu_is_as_near_as_whole_passes_are() -> None:
    """net4 at 32×32, 100 positions: at most twice as far from float64 as whole passes in float32 on the same GPU."""
    torch.manual_seed(0)
    net, image = build_net("net4").eval(), torch.rand(1, 3, 32, 32)
    exact = by_loop(net.double(), image[0].double(), torch.full((3, 32, 32), 0.5).double(), 5, 3)
    net.float().to(CUDA)
    image = image.to(CUDA)
    found = occlusion(trace(net, image), image, torch.full_like(image, 0.5), 5, 3, logits=True).logits
    whole = by_loop(net, image[0], torch.full_like(image[0], 0.5), 5, 3)
    assert found is not None
    ours, theirs = (float((one.squeeze(0).cpu() - exact).abs().max()) for one in (found, whole))
    assert ours <= 2 * theirs
