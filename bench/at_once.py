"""Small networks trained at the same time on one device: one after another, by vmap, and on CUDA streams.

    python bench/at_once.py [--net net1] [--count 5] [--batch 128] [--device cpu] [--rounds 5]

A training step of a small network leaves most of a GPU idle. The networks are seeds of one setting, each with its own images;
a step is forward, backward and SGD with momentum. "vmap" stacks their weights (torch.func.stack_module_state) and maps the
gradient over them; "streams" gives each network its own CUDA stream; "graph" replays the captured steps of all, each on its
stream, as one CUDA graph. The ways take turns, begin with equal weights, and must end with equal ones: the largest difference
is printed. The last line is JSON.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from convscope.nets import build_net
from machine import describe, in_turns

RATE, MOMENTUM = 0.01, 0.9
Step = Callable[[], None]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--net", default="net1")
    options.add_argument("--count", type=int, default=5)
    options.add_argument("--batch", type=int, default=128)
    options.add_argument("--device", default="cpu")
    options.add_argument("--rounds", type=int, default=5)
    given = options.parse_args()
    device = torch.device(given.device)
    nets = [_net(given.net, seed).to(device) for seed in range(given.count)]
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(given.count, given.batch, 3, 32, 32, generator=draws).to(device)
    labels = torch.randint(10, (given.count, given.batch), generator=draws).to(device)
    in_turn = _InTurn(nets, images, labels)
    ways = {"one after another": (in_turn.step, in_turn.weights), "vmap": _stacked(nets, images, labels)}
    if device.type == "cuda":
        streams, graph = (_InTurn(nets, images, labels, streams=True) for _ in range(2))
        ways |= {"streams": (streams.step, streams.weights), "graph": (graph.captured(), graph.weights)}
    tens = {name: lambda step=step: [step() for _ in range(10)] for name, (step, _) in ways.items()}
    taken, _ = in_turns(tens, given.rounds, device)
    ms = {name: 1e3 * median(seconds) / 10 for name, seconds in taken.items()}
    weights = {name: read() for name, (_, read) in ways.items()}
    first = weights["one after another"]
    apart = {
        name: max(float((a - b).abs().max()) for a, b in zip(first, other, strict=True))
        for name, other in weights.items()
    }
    print(describe(device))
    for name, own in ms.items():
        ratio = ms["one after another"] / own
        print(f"{name}: {own:.2f} ms a step of {given.count}, {ratio:.2f} × the speed; weights apart {apart[name]:.1e}")
    found = {"net": given.net, "count": given.count, "batch": given.batch, "machine": describe(device)}
    print(json.dumps({**found, "ms": {name: round(own, 3) for name, own in ms.items()}, "apart": apart}))


def _net(name: str, seed: int) -> Any:
    torch.manual_seed(seed)
    return build_net(name).train()


class _InTurn:
    """Networks that are trained one after another, or each on its own CUDA stream."""

    def __init__(self, nets: list[nn.Module], images: Tensor, labels: Tensor, streams: bool = False) -> None:
        self.nets, self.images, self.labels = copy.deepcopy(nets), images, labels
        self.optimizers = [torch.optim.SGD(net.parameters(), RATE, MOMENTUM) for net in self.nets]
        self.streams = [torch.cuda.Stream() for _ in nets] if streams else []

    def step(self) -> None:
        for stream in self.streams:
            stream.wait_stream(torch.cuda.current_stream())
        streams = self.streams or [None] * len(self.nets)
        for net, optimizer, stream, images, labels in zip(
            self.nets, self.optimizers, streams, self.images, self.labels, strict=True
        ):
            with torch.cuda.stream(stream):  # of None: where the others are
                optimizer.zero_grad()
                F.cross_entropy(net(images), labels).backward()
                optimizer.step()
        for stream in self.streams:
            torch.cuda.current_stream().wait_stream(stream)

    def weights(self) -> list[Tensor]:
        return [
            torch.stack([one.detach() for one in ones])
            for ones in zip(*(net.parameters() for net in self.nets), strict=True)
        ]

    def captured(self) -> Step:
        """The steps of all networks as one CUDA graph; what the recording trained is undone."""
        before = copy.deepcopy([net.state_dict() for net in self.nets])
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # PyTorch asks for some steps before a capture
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        for net, optimizer, state in zip(self.nets, self.optimizers, before, strict=True):
            net.load_state_dict(state)
            for slots in optimizer.state.values():
                slots["momentum_buffer"].zero_()
        return graph.replay


def _stacked(nets: list[nn.Module], images: Tensor, labels: Tensor) -> tuple[Step, Callable[[], list[Tensor]]]:
    parameters, buffers = stack_module_state(nets)
    weights = {name: tensor.detach().clone() for name, tensor in parameters.items()}
    momenta = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    base = copy.deepcopy(nets[0]).to("meta")

    def loss(weights: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(base, (weights, buffers), (images,)), labels)

    gradients = vmap(grad(loss), randomness="different")

    def step() -> None:
        found = list(gradients(weights, buffers, images, labels).values())
        slots, values = list(momenta.values()), list(weights.values())
        torch._foreach_mul_(slots, MOMENTUM)
        torch._foreach_add_(slots, found)
        torch._foreach_add_(values, slots, alpha=-RATE)

    return step, lambda: list(weights.values())


if __name__ == "__main__":
    main()
