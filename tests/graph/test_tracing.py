from __future__ import annotations

import copy
import logging
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convscope.errors import NetworkError, RequestError
from convscope.graph import anatomy, trace
from convscope.graph.tracing import check_images
from tests.graph.graph_networks import Deciding, Failing, FullPrecision, Recurrent, Residual


def state(net: nn.Module) -> list:
    """All that a user could find changed."""
    modules = [(m.training, list(m._forward_hooks.items()), sorted(vars(m))) for m in net.modules()]
    parameters = [(id(p), p.requires_grad, p.grad, p.tolist()) for p in net.parameters()]
    return [
        *modules,
        *parameters,
        [(id(b), b.tolist()) for b in net.buffers()],
        torch.get_rng_state().tolist(),
    ]


def prepared(net: nn.Module) -> nn.Module:
    """In a mixed state: partly in training mode, partly frozen, with a hook."""
    net.train()
    first = next(net.children())
    first.eval()
    next(net.parameters()).requires_grad_(False)
    first.register_forward_hook(lambda module, inputs, output: None)
    return net


class Last(nn.Module):
    """Each row is a step; the last steps and the last states."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        steps, states = self.layer(x[:, 0].transpose(0, 1))
        states = states[0] if isinstance(states, tuple) else states
        return torch.cat([steps[-1], states.transpose(0, 1).flatten(1)], 1)


@pytest.mark.parametrize("net", [Residual(), Recurrent(), Deciding(), Failing()], ids=lambda net: type(net).__name__)
def test_the_network_is_left_as_found(net: nn.Module) -> None:
    prepared(net)
    example = torch.rand(1, 1, 7, 8) if isinstance(net, Recurrent) else torch.rand(1, 3, 9, 8)
    before = state(net)
    for look in (trace, anatomy):
        try:
            look(net, example)
        except NetworkError:
            assert isinstance(net, Deciding | Failing)
        assert state(net) == before
    copy.deepcopy(net)  # nothing of the tracing hangs on it


def test_weight_norm_by_hook() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(1, 2, 3)))
    weight = net[0].weight
    trace(net, torch.zeros(1, 1, 5, 5))
    assert net[0].weight is weight


def test_what_runs_without_autocast_is_layers_as_any() -> None:
    net, images = FullPrecision().eval(), torch.rand(2, 3, 6, 7)
    graph = trace(net, images)
    assert {graph.operation(name).kind for name in ("conv", "relu", "fc")} == {"conv", "relu", "dense"}
    assert torch.equal(graph.run(images)["fc"], net(images))


RECURRENT: dict[str, Callable[..., nn.RNNBase]] = {
    "rnn": lambda **options: nn.RNN(4, 3, nonlinearity="relu", **options),
    "gru, 2 layers": lambda **options: nn.GRU(4, 3, 2, **options),
    "lstm, projected": lambda **options: nn.LSTM(4, 3, proj_size=2, **options),
}


@pytest.mark.parametrize("layer", RECURRENT)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_layers_are_traced_by_their_shapes(layer: str, bidirectional: bool) -> None:
    """Step by step, 300 steps take torch.export 10 s and more."""
    net = Last(RECURRENT[layer](bidirectional=bidirectional)).eval()
    began = time.process_time()
    graph = trace(net, torch.zeros(1, 1, 300, 4))
    assert time.process_time() - began < 5
    images = torch.rand(3, 1, 300, 4)
    assert torch.equal(graph.run(images)[graph.outputs[0]], net(images))


def test_reasons_are_one_line() -> None:
    with pytest.raises(
        NetworkError,
        match=r"network Failing cannot be traced for 3×9×8 images; ValueError: no forward today$",
    ):
        trace(Failing(), torch.zeros(1, 3, 9, 8))
    with pytest.raises(NetworkError) as error:
        trace(Deciding(), torch.zeros(1, 3, 9, 8))
    assert "\n" not in str(error.value)


def test_images_that_act_on_each_other_are_refused() -> None:
    class Centred(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x - x.mean()

    with pytest.raises(NetworkError, match=r"aten.mean.default works out one value from all images of a batch"):
        trace(Centred(), torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize("answer", [lambda x: "cat", lambda x: None, lambda x: torch.zeros(x.shape[0], 3), lambda x: x])
def test_an_answer_that_no_operation_works_out_from_the_images_is_refused(answer: Callable[[Tensor], Any]) -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return answer(x)

    with pytest.raises(NetworkError, match="network Constant gives no tensor that is worked out from the images"):
        trace(Constant(), torch.zeros(1, 1, 2, 2))


def test_threads_trace_one_after_the_other() -> None:
    """Export keeps state of the process, and so does its silence: without a lock standard output was lost."""
    stream, nets = sys.stdout, [Residual() for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        graphs = list(threads.map(lambda net: trace(net, torch.zeros(1, 3, 8, 8)), nets))
    assert len({tuple(graph.by_name) for graph in graphs}) == 1
    assert sys.stdout is stream


def test_export_is_silent(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    for net, shape in ((Recurrent(), (1, 7, 8)), (Deciding(), (3, 9, 8))):
        anatomy(net, torch.zeros(1, *shape))
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert logging.root.manager.disable == 0


@pytest.mark.parametrize("example", [torch.zeros(3, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "photo.png"])
def test_an_example_must_be_a_batch_of_images(example: object) -> None:
    with pytest.raises(RequestError, match="expected a float tensor"):
        check_images(example)
