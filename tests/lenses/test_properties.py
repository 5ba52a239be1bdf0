"""What must hold for every lens: a table of lenses × properties. A new lens is one row of `LENSES`."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from convscope.errors import RequestError
from convscope.graph import TracedGraph, trace
from convscope.lenses.activations import activations
from convscope.lenses.cam import grad_cam, grad_cam_plus_plus, hires_cam, layer_cam, xgrad_cam
from convscope.lenses.captum_adapter import attribute
from convscope.lenses.gradients import gradient_times_input, saliency
from convscope.lenses.occlusion import occlusion
from convscope.lenses.rectified import deconvnet, guided_backprop
from tests.gpus import CUDA, assert_near, on_gpu
from tests.lenses.lens_networks import Mixed, evaluated, lived_in, state, traced

SHAPE = (3, 9, 8)
IMAGES = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@dataclass(frozen=True)
class Row:
    """A lens as a function of graph and images, the shape of what it gives for three images, a wrong request."""

    look: Callable[[TracedGraph, Tensor], Tensor]
    shape: tuple[int, ...]
    wrong: Callable[[TracedGraph, Tensor], Any]
    of_images: bool = True  # False: what it gives is no row for each image


def attributing(lens: Callable[..., Any], shape: tuple[int, ...], **settings: Any) -> Row:
    return Row(
        lambda graph, images: lens(graph, images, **settings).values, shape, partial(lens, **settings, target=99)
    )


ON_IMAGE, ON_LAYER = (3, *SHAPE), (3, 1, 5, 4)
NEURON: dict[str, Any] = {"layer": "branches.grouped", "unit": 1, "position": "max"}
LENSES = {
    "activations": Row(
        lambda graph, images: activations(graph, images, ["dilated"])["dilated"],
        (3, 4, 5, 4),
        lambda graph, images: activations(graph, images, ["no layer"]),
    ),
    "saliency": attributing(saliency, ON_IMAGE),
    "saliency of a neuron": Row(
        lambda graph, images: saliency(graph, images, **NEURON).values,
        ON_IMAGE,
        partial(saliency, **(NEURON | {"unit": 99})),
    ),
    "gradient_times_input": attributing(gradient_times_input, ON_IMAGE),
    "guided_backprop": attributing(guided_backprop, ON_IMAGE),
    "deconvnet": attributing(deconvnet, ON_IMAGE),
    "grad_cam": attributing(grad_cam, ON_LAYER, layer="gelu"),
    "grad_cam, its own layer": attributing(grad_cam, (3, 1, 2, 1)),
    "grad_cam_plus_plus": attributing(grad_cam_plus_plus, ON_LAYER, layer="gelu"),
    "hires_cam": attributing(hires_cam, ON_LAYER, layer="gelu"),
    "xgrad_cam": attributing(xgrad_cam, ON_LAYER, layer="gelu"),
    "layer_cam": attributing(layer_cam, ON_LAYER, layer="gelu", relu=True),
    "integrated_gradients": attributing(attribute, ON_IMAGE, method="integrated_gradients", n_steps=3),
    "smooth_grad": attributing(attribute, ON_IMAGE, method="smooth_grad", n_samples=3),
    "gradient_shap": attributing(attribute, ON_IMAGE, method="gradient_shap", n_samples=3, noise=0.1),
    "occlusion": Row(
        lambda graph, images: occlusion(graph, images, torch.zeros_like(images), (3, 2), 2).probabilities,
        (3, 4, 4),
        lambda graph, images: occlusion(graph, images, torch.zeros_like(images), target=99),
    ),
    "lrp": attributing(attribute, ON_IMAGE, method="lrp"),
}
rows = pytest.mark.parametrize("row", LENSES.values(), ids=LENSES)


@pytest.fixture(scope="module")
def graph() -> TracedGraph:
    """Of a float64 network, so that what differs by rounding differs by little."""
    return trace(lived_in(evaluated(Mixed().double())), torch.zeros(1, *SHAPE, dtype=torch.float64))


@rows
def test_finite_of_the_right_shape_and_type(graph: TracedGraph, row: Row) -> None:
    found = row.look(graph, IMAGES)
    assert (tuple(found.shape), found.dtype, found.requires_grad) == (row.shape, torch.float64, False)
    assert found.isfinite().all()
    assert found.any()


@rows
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_type_stays(row: Row, dtype: torch.dtype) -> None:
    found = row.look(traced(Mixed, SHAPE, dtype), IMAGES.to(dtype))
    assert found.dtype == dtype
    assert found.isfinite().all()


@rows
def test_twice_the_same_bytes_wherever_it_is_called(graph: TracedGraph, row: Row) -> None:
    first = row.look(graph, IMAGES).numpy().tobytes()
    with torch.no_grad():
        assert row.look(graph, IMAGES).numpy().tobytes() == first
    with torch.inference_mode():
        assert row.look(graph, IMAGES.clone()).numpy().tobytes() == first


@rows
def test_a_batch_equals_its_images(graph: TracedGraph, row: Row) -> None:
    """To 1e-12 of the largest value: sums of some hundred float64 terms may round in another order."""
    if row.of_images:
        whole = row.look(graph, IMAGES)
        single = torch.cat([row.look(graph, image[None]) for image in IMAGES])
        torch.testing.assert_close(whole, single, rtol=0, atol=1e-12 * float(whole.abs().max()))


@rows
def test_success_leaves_everything_as_it_was(graph: TracedGraph, row: Row) -> None:
    images, before = IMAGES.clone(), state(graph.net)
    row.look(graph, images)
    assert state(graph.net) == before
    assert torch.equal(images, IMAGES)
    assert (images.requires_grad, images.grad) == (False, None)


@rows
def test_a_wrong_request_leaves_everything_as_it_was(graph: TracedGraph, row: Row) -> None:
    before = state(graph.net)
    with pytest.raises(RequestError, match=r"^[^\n]*(is not|has)[^\n]*$"):
        row.wrong(graph, IMAGES)
    with pytest.raises(RequestError, match="images have the shape 3×3×8×8; this graph was traced for N×3×9×8"):
        row.look(graph, IMAGES[:, :, 1:])
    assert state(graph.net) == before


@rows
@pytest.mark.parametrize("error", [ArithmeticError, KeyboardInterrupt])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
def test_a_crash_on_the_way_leaves_everything_as_it_was(
    graph: TracedGraph, row: Row, error: type[BaseException], share: float
) -> None:
    row.look(graph, IMAGES)  # once before, for a graph's gradient is checked but once
    with Failing() as counting:
        row.look(graph, IMAGES)
    before = state(graph.net)
    with pytest.raises(error), Failing(error, at=max(1, int(share * counting.calls))):
        row.look(graph, IMAGES)
    assert state(graph.net) == before


@pytest.fixture(scope="module")
def trained_on(graph: TracedGraph) -> TracedGraph:
    """Of a network of its own, whose weights change."""
    return trace(deepcopy(graph.net), IMAGES[:1])


@rows
def test_weights_are_read_anew(trained_on: TracedGraph, row: Row) -> None:
    """A lens keeps nothing of the network between calls."""
    before, weights = row.look(trained_on, IMAGES), deepcopy(trained_on.net.state_dict())
    with torch.no_grad():
        for parameter in trained_on.net.parameters():
            parameter.mul_(0.5)
    assert not torch.equal(row.look(trained_on, IMAGES), before)
    trained_on.net.load_state_dict(weights)


@on_gpu
@pytest.mark.parametrize("name", LENSES)
@pytest.mark.parametrize("traced_on", ["cuda", "cpu"])
def test_on_a_gpu_as_on_the_cpu(name: str, traced_on: str) -> None:
    """Also where the graph was made before the network moved. Lenses with noise draw it on the device: other numbers there."""
    look, net = LENSES[name].look, lived_in(evaluated(Mixed().double()))
    here = look(trace(net, IMAGES[:1]), IMAGES)
    graph, images = trace(net.to(traced_on), IMAGES[:1].to(traced_on)), IMAGES.to(CUDA)
    net.to(CUDA)
    before = state(net)
    there = look(graph, images)
    assert state(net) == before
    if name in ("smooth_grad", "gradient_shap"):
        assert_near(there, look(graph, images).cpu())  # CUDA adds up gradients in any order
        assert (there.device, there.shape, bool(there.isfinite().all())) == (CUDA, here.shape, True)
    else:
        assert_near(there, here)


class Failing(TorchDispatchMode):
    """Counts torch's operations, in the way back too, and fails at one of them."""

    def __init__(self, error: type[BaseException] | None = None, at: int = 0) -> None:
        super().__init__()
        self.error, self.at, self.calls = error, at, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        if self.error is not None and self.calls == self.at:
            raise self.error
        return func(*args, **(kwargs or {}))
