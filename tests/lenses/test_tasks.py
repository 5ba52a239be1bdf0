"""Lenses on networks that are no softmax of convolutions: recurrent ones, several heads, one sigmoid."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convscope.errors import RequestError
from convscope.graph import TracedGraph, trace
from convscope.lenses import (
    TaskTarget,
    attribute,
    deconvnet,
    grad_cam,
    gradient_times_input,
    guided_backprop,
    hires_cam,
    layer_cam,
    occlusion,
    saliency,
)
from convscope.nets import Task, build_net, make_task, task_over
from tests.lenses.lens_networks import evaluated, lived_in, state

SIDE = 6
IMAGES = torch.randn(3, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
FACTORS = {"width": ("thin", "thick"), "colour": ("red", "blue"), "angle": ("0°", "45°", "90°")}
HEADS = make_task({"width": "sigmoid", "colour": "sigmoid", "angle": "softmax"}, FACTORS)
SIGMOID = task_over(1, ["cat", "dog"])
shaped = partial(build_net, channels=2, image_size=SIDE)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Task]] = {
    "rnn": (lambda: shaped("rows", cell="rnn", hidden=4, classes=3), task_over(3)),
    "lstm": (lambda: shaped("rows", cell="lstm", hidden=4, classes=3), task_over(3)),
    "gru": (lambda: shaped("rows", cell="gru", hidden=4, classes=3), task_over(3)),
    "several heads": (lambda: shaped("c4b M f6", classes=5), HEADS),
    "one sigmoid": (lambda: shaped("c4b M f6", classes=1), SIGMOID),
    "inception": (lambda: shaped("blocks-cifar", block="inception", image_size=8, classes=3), task_over(3)),
}
RECURRENT = ("rnn", "lstm", "gru")
ATTRIBUTIONS: dict[str, Callable[..., Any]] = {
    "saliency": saliency,
    "gradient_times_input": gradient_times_input,
    "guided_backprop": guided_backprop,
    "deconvnet": deconvnet,
    "grad_cam": grad_cam,
    "hires_cam": hires_cam,
    "layer_cam": layer_cam,
    "integrated_gradients": partial(attribute, method="integrated_gradients", n_steps=200),
    "smooth_grad": partial(attribute, method="smooth_grad", n_samples=3),
    "lrp": partial(attribute, method="lrp"),
}
REFUSED = {
    "guided_backprop": "no rectifier lies between",
    "deconvnet": "no rectifier lies between",
    "grad_cam": "no layer of this network has maps",
    "hires_cam": "no layer of this network has maps",
    "layer_cam": "no layer of this network has maps",
    "lrp": "lrp has no rule for",
}
every_network = pytest.mark.parametrize("name", NETWORKS)


@pytest.fixture(scope="module")
def graphs() -> dict[str, TracedGraph]:
    return {
        name: trace(lived_in(evaluated(make().double())), images_for(name)[:1]) for name, (make, _) in NETWORKS.items()
    }


def images_for(name: str) -> Tensor:
    return IMAGES if name != "inception" else nn.functional.pad(IMAGES, (1, 1, 1, 1))


def log_odds(outputs: Tensor, task: Task, k: int) -> Tensor:
    """What speaks for class k, from the definition: of a sigmoid the logarithm of its odds, of a softmax its logit."""
    classes = [(head, c) for head in task.heads for c in range(len(head.classes))]
    head, c = classes[k]
    if head.kind == "softmax":
        return outputs[:, head.start + c]
    second = outputs[:, head.start].sigmoid()
    return (second / (1 - second)).log() if c else ((1 - second) / second).log()


@every_network
@pytest.mark.parametrize("lens", ATTRIBUTIONS)
def test_finite_and_everything_as_it_was_or_a_clear_refusal(
    graphs: dict[str, TracedGraph], name: str, lens: str
) -> None:
    graph, images, target = graphs[name], images_for(name), TaskTarget(NETWORKS[name][1], 1)
    before = state(graph.net)
    if name in RECURRENT and lens in REFUSED:
        with pytest.raises(RequestError, match=rf"^{REFUSED[lens]}[^\n]*$"):
            ATTRIBUTIONS[lens](graph, images, target=target)
    else:
        found = ATTRIBUTIONS[lens](graph, images, target=target)
        assert found.values.isfinite().all()
        assert found.values.any()
        assert found.target.tolist() == [1, 1, 1]
        assert len(found.values) == 3
    assert state(graph.net) == before


@every_network
def test_saliency_of_every_class_is_the_gradient_of_what_speaks_for_it(
    graphs: dict[str, TracedGraph], name: str
) -> None:
    graph, images, task = graphs[name], images_for(name), NETWORKS[name][1]
    net = graph.net.eval()
    for k in range(len(task.classes)):
        pixels = images.clone().requires_grad_()
        [expected] = torch.autograd.grad(log_odds(net(pixels), task, k).sum(), pixels)
        found = saliency(graph, images, TaskTarget(task, k))
        torch.testing.assert_close(found.values, expected, rtol=1e-8, atol=1e-10)
    lived_in(net)


@every_network
def test_integrated_gradients_sum_to_the_rise_of_what_speaks_for_the_class(
    graphs: dict[str, TracedGraph], name: str
) -> None:
    """To a hundredth of the rise: the midpoint sum of 200 steps is no integral, and ReLUs bend within a step."""
    graph, images, task = graphs[name], images_for(name), NETWORKS[name][1]
    found = attribute(graph, images, "integrated_gradients", TaskTarget(task, 0), n_steps=200)
    with torch.no_grad():
        net = graph.net.eval()
        rise = log_odds(net(images), task, 0) - log_odds(net(torch.zeros_like(images)), task, 0)
    torch.testing.assert_close(found.values.sum((1, 2, 3)), rise, rtol=0.01, atol=1e-4)
    lived_in(net)


@every_network
@pytest.mark.parametrize("size", [(1, SIDE), (1, 1)], ids=["a row", "a pixel"])
def test_occlusion_by_rows_and_pixels_equals_a_loop(
    graphs: dict[str, TracedGraph], name: str, size: tuple[int, int]
) -> None:
    graph, images, task = graphs[name], images_for(name), NETWORKS[name][1]
    size = (1, images.shape[3]) if size[1] > 1 else size
    found = occlusion(graph, images, torch.zeros_like(images), size, target=TaskTarget(task, [0, 1, 1]))
    net = graph.net.eval()
    rows, columns = images.shape[2], images.shape[3] - size[1] + 1
    assert found.probabilities.shape == (3, rows, columns)
    for i, k in enumerate([0, 1, 1]):
        for row in range(rows):
            for column in range(columns):
                covered = images[i : i + 1].clone()
                covered[:, :, row, column : column + size[1]] = 0
                with torch.no_grad():
                    odds = log_odds(net(covered), task, k).exp()
                    softmax = net(covered).softmax(1)
                expected = odds / (1 + odds) if task.heads[0].kind == "sigmoid" else softmax[:, k]
                torch.testing.assert_close(found.probabilities[i, row, column], expected[0], rtol=0, atol=1e-10)
    lived_in(net)


def test_relevance_for_the_first_class_is_that_against_the_second(graphs: dict[str, TracedGraph]) -> None:
    first, second = (attribute(graphs["one sigmoid"], IMAGES, "lrp", TaskTarget(SIGMOID, k)).values for k in (0, 1))
    assert second.any()
    assert torch.equal(first, -second)


def test_each_image_its_own_head(graphs: dict[str, TracedGraph]) -> None:
    graph = graphs["several heads"]
    both = saliency(graph, IMAGES, TaskTarget(HEADS, [0, 3, 6]))
    for i, k in enumerate([0, 3, 6]):
        alone = saliency(graph, IMAGES[i : i + 1], TaskTarget(HEADS, k))
        torch.testing.assert_close(both.values[i : i + 1], alone.values, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(both.probability[i : i + 1], alone.probability)
    assert saliency(graph, IMAGES, TaskTarget(HEADS, None, 2)).target.min() >= 4  # the most probable angle
