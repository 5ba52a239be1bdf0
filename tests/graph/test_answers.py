"""Which of several results is the answer, and answers that are probabilities already."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convscope.errors import UnknownNameError
from convscope.graph import answering_logits, trace
from convscope.lenses import saliency

Both = namedtuple("Both", "aux, out")
EXAMPLE = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))


@dataclass
class Record:
    aux: Tensor
    logits: Tensor
    hidden: Tensor | None = None


class Net(nn.Module):
    """An auxiliary head of 3 classes, a head of 4, and features of 5."""

    def __init__(self, give: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.give = give
        self.conv, self.aux, self.head = nn.Conv2d(3, 5, 3, padding=1), nn.Linear(5, 3), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Any:
        features = self.conv(x).relu().mean((2, 3)) * 5
        return self.give(self.aux(features), self.head(features), features)


RESULTS: dict[str, tuple[Callable[[Tensor, Tensor, Tensor], Any], list[str], int]] = {
    "one": (lambda a, h, f: h, [""], 0),
    "tuple": (lambda a, h, f: (a, h), ["0", "1"], 0),
    "tuple of one": (lambda a, h, f: (h,), ["0"], 0),
    "dict": (lambda a, h, f: {"aux": a, "out": h}, ["aux", "out"], 1),
    "aux alone has a name": (lambda a, h, f: {"aux_1": a, "x": h}, ["aux_1", "x"], 1),
    "named tuple": (lambda a, h, f: Both(a, h), ["aux", "out"], 1),
    "dataclass": (lambda a, h, f: Record(a, h), ["aux", "logits"], 1),
    "dataclass with features": (lambda a, h, f: Record(a, h, f), ["aux", "logits", "hidden"], 1),
    "nested": (lambda a, h, f: {"extra": [a, f], "main": {"logits": h}}, ["extra.0", "extra.1", "main.logits"], 2),
    "map first": (lambda a, h, f: (f[:, :, None, None], h), ["0", "1"], 1),
}


@pytest.mark.parametrize(("give", "names", "chosen"), RESULTS.values(), ids=RESULTS)
def test_the_answer_by_default(give: Callable[..., Any], names: list[str], chosen: int) -> None:
    net = Net(give)
    graph = trace(net, EXAMPLE)
    assert list(graph.results) == names
    assert graph.outputs[0] == graph.results[names[chosen]]
    rows = [name for name in names if len(graph.operation(graph.results[name]).output_shape) == 1]
    assert (graph.note is None) == (len(rows) == 1)
    assert graph.note is None or f"{names[chosen]} is taken" in graph.note


@pytest.mark.parametrize(("output", "width"), [("aux", 3), ("hidden", 5), (2, 5), (1, 4), ("logits", 4)])
def test_the_answer_that_is_asked_for(output: str | int, width: int) -> None:
    graph = trace(Net(lambda a, h, f: Record(a, h, f)), EXAMPLE, output)
    assert graph.run(EXAMPLE)[graph.outputs[0]].shape == (2, width)
    assert graph.note is None


def test_the_answer_by_the_number_of_classes() -> None:
    for n_classes, width in ((3, 3), (4, 4), (None, 3), (7, 3)):
        graph = trace(Net(lambda a, h, f: (a, h, f)), EXAMPLE, n_classes=n_classes)
        assert graph.operation(graph.outputs[0]).output_shape == (width,)


@pytest.mark.parametrize("output", ["nothing", 3, -1])
def test_an_unknown_output(output: str | int) -> None:
    with pytest.raises(UnknownNameError, match=rf"output '{output}' is not .*there is 0, 1$"):
        trace(Net(lambda a, h, f: (a, h)), EXAMPLE, output)


PROBABILITIES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "softmax": (lambda z: z.softmax(1), "the network ends in a softmax"),
    "softmax over the last axis": (lambda z: nn.Softmax(-1)(z), "the network ends in a softmax"),
    "by hand": (lambda z: z.exp() / z.exp().sum(1, keepdim=True), "the network gives probabilities"),
    "mean of two": (lambda z: (z.softmax(1) + (2 * z).softmax(1)) / 2, "the network gives probabilities"),
    "in another shape": (lambda z: z.softmax(1)[:, :, None].flatten(1), "the network gives probabilities"),
}


@pytest.mark.parametrize(("give", "note"), PROBABILITIES.values(), ids=PROBABILITIES)
def test_probabilities_get_no_second_softmax(give: Callable[[Tensor], Tensor], note: str) -> None:
    net = Net(lambda a, h, f: give(h))
    graph = answering_logits(trace(net, EXAMPLE))
    logits = graph.run(EXAMPLE)[graph.outputs[0]]
    torch.testing.assert_close(logits.softmax(1), net(EXAMPLE), rtol=1e-5, atol=1e-6)
    assert note in (graph.note or "")
    if "ends in" in note:
        torch.testing.assert_close(logits, net.head(net.conv(EXAMPLE).relu().mean((2, 3)) * 5), rtol=1e-5, atol=1e-6)


def test_of_probabilities_the_gradient_is_that_of_their_logarithm() -> None:
    net = Net(lambda a, h, f: PROBABILITIES["mean of two"][0](h))
    graph, pixels = answering_logits(trace(net, EXAMPLE)), EXAMPLE.clone().requires_grad_()
    expected = torch.autograd.grad(net(pixels)[:, 1].log().sum(), pixels)[0]
    torch.testing.assert_close(saliency(graph, EXAMPLE, 1).values, expected)


def test_a_single_sigmoid() -> None:
    net = Net(lambda a, h, f: h[:, :1].sigmoid())
    graph = answering_logits(trace(net, EXAMPLE))
    torch.testing.assert_close(graph.run(EXAMPLE)[graph.outputs[0]].sigmoid(), net(EXAMPLE))


@pytest.mark.parametrize(("width", "advice"), [(1, ""), (4, ", and probabilities are one softmax over the classes")])
@pytest.mark.parametrize("give", [nn.Sigmoid(), nn.LogSigmoid()])
def test_logits_stand_before_a_sigmoid_and_its_logarithm(give: nn.Module, width: int, advice: str) -> None:
    net = Net(lambda a, h, f: give(h[:, :width]))
    graph = answering_logits(trace(net, EXAMPLE))
    torch.testing.assert_close(give(graph.run(EXAMPLE)[graph.outputs[0]]), net(EXAMPLE))
    assert f"; its logits are taken before it{advice}" in (graph.note or "")


@pytest.mark.parametrize(
    "give", [lambda z: z, lambda z: z.log_softmax(1), lambda z: z.relu(), lambda z: z.tanh()], ids=range(4)
)
def test_other_answers_stay(give: Callable[[Tensor], Tensor]) -> None:
    net = Net(lambda a, h, f: give(h))
    graph = answering_logits(trace(net, EXAMPLE))
    assert graph.note is None
    torch.testing.assert_close(graph.run(EXAMPLE)[graph.outputs[0]], net(EXAMPLE))
