"""Networks that write on their own tensors, and that read a tensor's shape or type alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.graph import receptive_fields, trace
from convscope.graph.traced import TracedGraph

SHAPE = (3, 6, 5)


def _written(write: Callable[[Tensor], Tensor]) -> nn.Module:
    """A convolution, what `write` does to a copy of its map, and a dense layer; in float64."""

    class Writing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(write(self.conv(x).sigmoid().clone()).mean((2, 3)))

    torch.manual_seed(0)
    return Writing().double().eval()


def _into(tensor: Tensor, place: object, value: Tensor | float) -> Tensor:
    tensor[place] = value  # type: ignore[index]
    return tensor


def _then(tensor: Tensor, written: Tensor) -> Tensor:
    """The tensor, after something was written on a view of it."""
    return tensor


def _shifted(h: Tensor) -> Tensor:
    out = torch.zeros_like(h)
    out[:, :2, 1:] = h[:, :2, :-1]
    out[:, 2:] = h[:, 2:]
    return out


WRITES: dict[str, Callable[[Tensor], Tensor]] = {
    "slice *=": lambda h: _into(h, (slice(None), slice(0, 2)), h[:, :2] * 2),
    "slice of a slice": lambda h: _then(h, h[:, :2][:, :, 1:].mul_(3)),
    "slice = slice": _shifted,
    "row = number": lambda h: _into(h, (slice(None), 0), 0.25),
    "position = map": lambda h: _into(h, (..., 0), h[..., 1]),
    "half type": lambda h: _into(h, (slice(None), 1), h[:, 0].float()),
    "copy_": lambda h: h.copy_(h.flip(-1)),
    "copy_ broadcast": lambda h: h.copy_(h.mean(1, keepdim=True)),
    "fill_": lambda h: _then(h, h[:, :1].fill_(2)),
    "zero_": lambda h: _then(h, h[:, :, :2].zero_()),
    "masked_fill_": lambda h: h.masked_fill_(h > 0.5, 0.1),
    "masked write": lambda h: _into(h, h > 0.6, 0.6),
    "index_put_": lambda h: _into(h, (slice(None), torch.tensor([0, 2]), 1), h[:, :2, 0] * 2),
    "index_copy_": lambda h: h.index_copy_(1, torch.tensor([3, 0]), h[:, :2] * 5),
    "index_add_": lambda h: h.index_add_(2, torch.tensor([0, 2]), h[:, :, 1:3] * 2),
    "index_fill_": lambda h: h.index_fill_(3, torch.tensor([1]), -1.0),
    "scatter_": lambda h: h.scatter_(1, torch.zeros_like(h[:, :1], dtype=torch.long), h[:, 2:3] * 7),
    "scatter_add_": lambda h: h.scatter_add_(1, torch.ones_like(h[:, :1], dtype=torch.long), h[:, 2:3]),
    "lerp_": lambda h: h.lerp_(h.flip(1), 0.3),
    "addcmul_": lambda h: h.addcmul_(h.flip(1), h.flip(2)),
    "clamp_": lambda h: h.clamp_(0.4, 0.6),
    "diagonal": lambda h: _then(h, h.diagonal(dim1=2, dim2=3).mul_(2)),
    "transposed view": lambda h: _then(h, h.transpose(1, 2)[:, 0].mul_(2)),
    "out = [...] in turn": lambda h: _into(_into(h, (slice(None), 0), h[:, 1]), (slice(None), 1), h[:, 0] * 2),
}
METADATA: dict[str, Callable[[Tensor], Tensor]] = {
    "new_zeros": lambda h: h + h.new_zeros(4, 1, 1),
    "new_ones": lambda h: h * h.new_ones(1),
    "new_full": lambda h: h + h.new_full((5,), 0.5),
    "new_empty": lambda h: h + h.new_empty(5).fill_(2.0),
    "new_tensor": lambda h: h + h.new_tensor([1.0, 2.0, 3.0, 4.0, 5.0]),
    "zeros_like": lambda h: h + torch.zeros_like(h),
    "ones_like of one image": lambda h: h + torch.ones_like(h[0]),
    "full_like": lambda h: h + torch.full_like(h, 3.0),
    "empty_like": lambda h: h + torch.empty_like(h).fill_(1.0),
    "type_as": lambda h: h * torch.ones(5).type_as(h),
    "to another": lambda h: h * torch.ones(5).to(h),
    "expand_as": lambda h: h * torch.full((1, 4, 1, 1), 2.0).to(h.dtype).expand_as(h[:1]),
    "view_as": lambda h: h * torch.arange(120.0, dtype=h.dtype).view_as(h[0]) if h[0].numel() == 120 else h,
    "reshape_as": lambda h: h * torch.arange(120.0, dtype=h.dtype).reshape_as(h[0]),
    "sizes": lambda h: h / (h.shape[2] * h.size(3)) + torch.zeros(h.shape[1], 1, 1, dtype=h.dtype),
    "arange": lambda h: h * torch.arange(h.shape[-1], device=h.device, dtype=h.dtype),
}


@pytest.mark.parametrize("write", [*WRITES.values(), *METADATA.values()], ids=[*WRITES, *METADATA])
def test_the_graph_computes_and_differentiates_as_the_network_does(write: Callable[[Tensor], Tensor]) -> None:
    """Float64: both run the same operations but for those written out, so rounding alone differs."""
    net = _written(write)
    images = torch.randn(2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    graph = trace(net, images)
    own, ours = _answer(net, images), _answer(lambda x: graph.run(x)[graph.outputs[0]], images)
    for a, b in zip(own, ours, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    alone = torch.cat([graph.run(image[None])[graph.outputs[0]] for image in images])
    torch.testing.assert_close(alone, own[0], rtol=0, atol=1e-12)


def _answer(net: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    pixels = images.clone().requires_grad_()
    logits = net(pixels)
    return logits.detach(), torch.autograd.grad(logits[:, 1].sum(), pixels)[0]


@pytest.mark.parametrize("name", ["new_zeros", "zeros_like", "ones_like of one image", "full_like"])
def test_metadata_adds_nothing_to_the_receptive_field(name: str) -> None:
    class Shallow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.far = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 5, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            like = METADATA[name](self.far(x)) if name == "new_zeros" else None
            h = self.conv(x)
            return METADATA[name](h)[:, :, :2, :2] + (0 if like is None else h.new_zeros(1))

    graph = trace(Shallow(), torch.zeros(1, 3, 7, 7))
    assert _last(graph) == (3, 3)


def _last(graph: TracedGraph) -> tuple[int, int]:
    return receptive_fields(graph)[graph.outputs[0]].size


def test_a_dropout_that_is_always_on_stays_on() -> None:
    net = _written(lambda h: F.dropout(_into(h, (slice(None), 0), h[:, 1] * 2), 0.5, training=True))
    graph = trace(net, torch.zeros(1, *SHAPE, dtype=torch.float64))
    image = torch.ones(1, *SHAPE, dtype=torch.float64)
    assert not torch.equal(graph.run(image)[graph.outputs[0]], graph.run(image)[graph.outputs[0]])
