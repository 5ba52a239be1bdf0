"""Small classifiers to look into, and what a network's state is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.graph import TracedGraph, trace
from tests.graph.graph_networks import Branches, Residual


class Mixed(nn.Module):
    """Batch norm, dropout, a reused in-place ReLU, a residual sum, branches, groups, strides, dilation, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.residual = Residual(3, 2, stride=2)
        self.branches = Branches()
        self.dilated = nn.Conv2d(3, 4, 3, padding=2, dilation=2)
        self.drop = nn.Dropout(0.5)
        self.pool = nn.AdaptiveAvgPool2d((2, 1))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.dilated(self.branches(self.residual(x))))
        return self.fc(self.drop(self.pool(x).flatten(1)))


class ByModules(nn.Module):
    """A network whose rectifiers are all modules of their own, which is where Captum is right."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=2, dilation=2, stride=2, groups=2)
        self.conv3 = nn.Conv2d(6, 4, 1)
        self.relu1, self.relu2, self.relu3, self.relu4 = (nn.ReLU() for _ in range(4))
        self.pool, self.drop = nn.MaxPool2d(2), nn.Dropout()
        self.fc1, self.fc2 = nn.Linear(16, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.conv2(x) + x[..., ::2, ::2])
        x = self.pool(self.relu3(self.conv3(x)))
        return self.fc2(self.drop(self.relu4(self.fc1(x.flatten(1)))))


class ByFunctions(ByModules):
    """The same function: its rectifiers are a method, a function, in place, and one module used twice."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu_()
        x = F.relu(self.conv2(x) + x[..., ::2, ::2], inplace=True)
        x = self.pool(self.relu3(self.conv3(x)))
        return self.fc2(self.drop(self.relu3(self.fc1(x.flatten(1)))))


def evaluated(net: nn.Module, seed: int = 0) -> nn.Module:
    """The network in evaluation mode, with statistics and weights that are not those of the start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in (*net.parameters(), *net.buffers()):
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator, dtype=value.dtype) * 0.8 - 0.3)
        for name, value in net.named_buffers():
            if name.endswith("running_var"):
                value.add_(1)
    return net.eval()


@cache
def traced(
    make: Callable[[], nn.Module], shape: tuple[int, int, int] = (3, 9, 8), dtype: torch.dtype = torch.float32
) -> TracedGraph:
    """The graph of ``evaluated(make())`` for images of a shape, one in a process: for tests that change nothing of it."""
    return trace(evaluated(make().to(dtype)), torch.zeros(1, *shape, dtype=dtype))


@contextmanager
def replaced(net: nn.Module, path: str, values: Mapping[int, float]) -> Iterator[None]:
    """While it lasts, what a module gives for some units is another value; in evaluation mode, without gradients."""

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        edited = output.clone()
        for unit, value in values.items():
            edited[:, unit] = value
        return edited

    net.eval()
    with torch.no_grad(), net.get_submodule(path).register_forward_hook(hook):
        yield


def lived_in(net: nn.Module) -> nn.Module:
    """The network as a user may have it: in training mode, with a hook, gradients and a frozen weight."""
    net.train()
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    next(net.parameters()).requires_grad_(False)
    net.register_forward_hook(lambda module, inputs, output: None)
    return net


def state(net: nn.Module) -> list[Any]:
    """All of a network and of the process that a lens may not change, as values to compare."""
    tensors = [*net.named_parameters(), *net.named_buffers()]
    found: list[Any] = [(name, value.detach().cpu().numpy().tobytes(), value.requires_grad) for name, value in tensors]
    found += [(value.device, value.data_ptr()) for _, value in tensors]
    found += [None if p.grad is None else p.grad.cpu().numpy().tobytes() for p in net.parameters()]
    for module in net.modules():
        found += [module.training, sorted(vars(module))]
        found += [list(v) for k, v in vars(module).items() if k.endswith("_hooks") and v is not None]
    numpy_state = np.random.get_state()  # noqa: NPY002
    found += [torch.get_rng_state().tolist(), numpy_state[1].tolist(), numpy_state[2]]
    found += [state.tolist() for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_initialized() else []
    return [*found, torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()]
