"""Networks in what people wrap around them, and networks that cannot be opened."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from convscope.errors import NetworkError
from convscope.graph import anatomy, trace

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit")  # torch.compile imports it
EXAMPLE = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, *images: Tensor) -> Tensor:
        return self.fc(self.conv(images[0]).relu().mean((2, 3)))


class OfLength(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).relu().view(len(x), 4, -1).mean(2))


class Looping(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.fc(one.mean((1, 2))) for one in self.conv(x)])


class OfOne(Plain):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] != 1:
            raise ValueError("one image at a time")
        return self.fc(self.conv(x).mean((2, 3)))


class Branching(Plain):
    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        return self.fc((h if h.sum() > 0 else -h).mean((2, 3)))


def _exported(dynamic: bool) -> nn.Module:
    sizes = ({0: torch.export.Dim("n")},) if dynamic else None
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5))
    return torch.export.export(net.eval(), (EXAMPLE,), dynamic_shapes=sizes).module()


def _compiled_in_place() -> nn.Module:
    net = Plain()
    net.compile()
    return net


def _lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))


def _where(net: nn.Module) -> Tensor:
    """The example where the network is: DataParallel moves it to a GPU that it finds."""
    return EXAMPLE.to(next(net.parameters()).device)


def _in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return Plain()


OPEN: dict[str, Callable[[], nn.Module]] = {
    "any number of inputs": Plain,
    "data parallel": lambda: nn.DataParallel(Plain()),
    "compiled": lambda: torch.compile(Plain()),
    "compiled data parallel": lambda: torch.compile(nn.DataParallel(Plain())),
    "compiled in place": _compiled_in_place,
    "a compiled part": lambda: nn.Sequential(torch.compile(nn.Conv2d(3, 4, 3)), nn.Flatten(), nn.Linear(144, 5)),
    "exported": lambda: _exported(dynamic=True),
}


@pytest.mark.parametrize("make", OPEN.values(), ids=OPEN)
def test_wrapped_networks_open(make: Callable[[], nn.Module]) -> None:
    net = make()
    images = _where(net)
    graph = trace(net, images)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        torch.testing.assert_close(graph.run(images)[graph.outputs[0]], net(images))
    assert anatomy(net, images).parameters == sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("make", [OPEN["data parallel"], OPEN["compiled"], OPEN["compiled data parallel"]])
def test_layers_have_their_own_names(make: Callable[[], nn.Module]) -> None:
    net = make()
    assert {"conv", "fc"} <= {op.name for op in trace(net, _where(net)).operations}


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_lazy_modules_are_initialised_on_a_copy(random_state_kept: None) -> None:
    net = _lazy()
    graph = trace(net, EXAMPLE)
    assert graph.run(EXAMPLE)[graph.outputs[0]].shape == (2, 5)
    assert isinstance(net[0], nn.LazyConv2d)
    assert net.training


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "TorchScript": (lambda: torch.jit.trace(Plain(), EXAMPLE), "is compiled TorchScript"),
    "TorchScript within": (
        lambda: nn.Sequential(torch.jit.trace(nn.Conv2d(3, 4, 3), EXAMPLE), nn.Flatten()),
        "is compiled TorchScript",
    ),
    "inference mode": (_in_inference_mode, "was made under torch.inference_mode"),
    "len": (OfLength, r"it fixes the number of images in a batch, as do len\(x\)"),
    "loop": (Looping, "it fixes the number of images in a batch"),
    "one": (OfOne, "ValueError: one image at a time"),
    "branch": (Branching, "its path depends on the values of pixels"),
    "exported for one size": (lambda: _exported(dynamic=False), "it fixes the number of images in a batch"),
}


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_possible_gets_one_line(make: Callable[[], nn.Module], reason: str) -> None:
    net = make()
    modes = [module.training for module in net.modules()]
    with pytest.raises(NetworkError, match=rf"^[^\n]*{reason}[^\n]*$"):
        trace(net, EXAMPLE)
    if "compiled" in reason or "inference" in reason:
        with pytest.raises(NetworkError, match=rf"^[^\n]*{reason}[^\n]*$"):
            anatomy(net, EXAMPLE)
    elif make is not REFUSED["exported for one size"][0]:
        assert "read by forward hooks" in (anatomy(net, EXAMPLE[:1]).note or "")
    assert [module.training for module in net.modules()] == modes
