"""Gradients that a network defines itself: carried into the graph, or refused; never those of other operations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from convscope.errors import NetworkError
from convscope.graph import check_gradient, positions, receptive_fields, trace
from convscope.graph.traced import MIXED
from convscope.lenses import occlusion, saliency
from convscope.lenses.cam import grad_cam, last_map


class Sign(torch.autograd.Function):
    """A straight-through sign, scaled: the gradient passes as if nothing were there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        return x.sign() * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class HalfSign(torch.autograd.Function):
    """Calls the forward and the backward of another function, with its own context."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return Sign.forward(ctx, x, 0.5)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return Sign.backward(ctx, *gradients)[0]


class Spike(torch.autograd.Function):
    """A step, with the gradient of a fast sigmoid; its result and what is left over."""

    @staticmethod
    def forward(x: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        fired = (x > threshold).to(x.dtype)
        return fired, x - fired

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x, threshold = ctx.saved_tensors
        slope = 1 / (1 + 10 * (x - threshold).abs()) ** 2
        found = gradients[0] * slope + gradients[1]
        return found, -found.sum_to_size(threshold.shape)


class Doubling(torch.autograd.Function):
    """Writes on its input, and so cannot be carried."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * 100


spike = Spike.apply  # as spiking networks keep it


class Net(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)
        self.threshold = nn.Parameter(torch.full((4, 1, 1), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        if self.kind == "straight through":
            h = Sign.apply(h, 0.5)
        elif self.kind == "through another":
            h = HalfSign.apply(h)
        elif self.kind == "surrogate":
            left = torch.zeros_like(h)
            total = torch.zeros_like(h)
            for _ in range(3):
                fired, left = spike(0.9 * left + h, self.threshold)
                total = total + fired
            h = total
        elif self.kind == "checkpoint":
            h = checkpoint(F.gelu, h, use_reentrant=False)
        elif self.kind == "written":
            h = Doubling.apply(h.clone())
        elif self.kind == "part without gradients":
            with torch.no_grad():
                scale = h.mean((2, 3), keepdim=True)
            h = h * scale
        return self.fc(h.mean((2, 3)))


def _net(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return Net(kind).double().eval()


IMAGES = torch.randn(2, 3, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["straight through", "through another", "surrogate", "checkpoint"])
def test_saliency_is_the_gradient_of_the_module(kind: str) -> None:
    net = _net(kind)
    pixels = IMAGES.clone().requires_grad_()
    (own,) = torch.autograd.grad(net(pixels)[:, 1].sum(), pixels)
    assert own.abs().max() > 1e-4
    ours = saliency(trace(net, IMAGES), IMAGES, 1).values
    torch.testing.assert_close(ours, own, rtol=0, atol=1e-14)


def test_a_weight_that_the_function_takes_is_read_anew() -> None:
    net = _net("surrogate")
    graph = trace(net, IMAGES)
    with torch.no_grad():
        net.threshold.add_(0.3)
    assert torch.equal(graph.run(IMAGES)[graph.outputs[0]], net(IMAGES))


def test_the_function_is_an_operation_with_positions_and_a_field() -> None:
    graph = trace(_net("straight through"), IMAGES)
    assert graph.operation("sign_2").kind == "sign"
    assert receptive_fields(graph)["sign_2"].size == (3, 3)
    assert positions(graph)["sign_2"].size == (6, 5)
    assert last_map(graph, IMAGES) == "sign_2"
    assert grad_cam(graph, IMAGES, 1).values.any()


def test_occlusion_follows_the_function_in_boxes() -> None:
    net = _net("straight through")
    found = occlusion(trace(net, IMAGES), IMAGES, torch.zeros_like(IMAGES), 2, 2, 1)
    assert found.note is None
    covered = IMAGES.clone()
    covered[:, :, :2, :2] = 0
    torch.testing.assert_close(found.probabilities[:, 0, 0], net(covered).softmax(1)[:, 1], rtol=0, atol=1e-12)


def test_tracing_leaves_autograd_as_it_was() -> None:
    trace(_net("straight through"), IMAGES)
    x = torch.tensor([2.0], requires_grad=True)
    Sign.apply(x, 3.0).backward()
    assert x.grad == 1
    assert "__getattribute__" not in vars(torch.autograd.function.FunctionMeta)


@pytest.mark.parametrize("kind", ["written", "part without gradients"])
def test_a_gradient_that_is_not_that_of_the_operations_is_refused(kind: str) -> None:
    graph = trace(_net(kind), IMAGES)
    for _ in range(2):
        with pytest.raises(NetworkError, match=r"^the gradient of network Net is not that of its operations: [^\n]*$"):
            saliency(graph, IMAGES, 1)


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_hooks_on_the_way_back(factor: float) -> None:
    net = _net("plain")
    net.conv.register_full_backward_hook(
        lambda module, before, after: tuple(g and g * factor for g in before[:0]) or None
    )
    net.fc.register_full_backward_hook(lambda module, before, after: (before[0] * factor,))
    graph = trace(net, IMAGES)
    if factor == 1:
        assert saliency(graph, IMAGES, 1).note is None
        return
    with pytest.raises(NetworkError, match=r"differ by 0\.5 of the largest value"):
        saliency(graph, IMAGES, 1)


def test_images_beside_and_chance_are_noted() -> None:
    class Beside(Net):
        def forward(self, x: Tensor) -> Tensor:
            h = self.conv(x)
            return self.fc((h + h.flip(0)).mean((2, 3)))

    class Chance(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc(F.dropout(self.conv(x), training=True).mean((2, 3)))

    def note(net: nn.Module) -> str | None:
        return saliency(trace(net.double().eval(), IMAGES), IMAGES, 1).note

    assert note(Beside("")) == MIXED
    assert note(Chance("")) == "the network answers at random: the same image gets another answer each time"
    assert note(Net("")) is None


def test_it_is_compared_once() -> None:
    calls = []
    net = _net("plain")
    graph = trace(net, IMAGES)
    net.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(3):
        check_gradient(graph, IMAGES)
    assert len(calls) == 2  # twice, to see whether the network itself gives the same again
