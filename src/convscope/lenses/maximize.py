"""The picture that maximally activates a unit: feature visualization by gradient ascent, also out of silence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from numbers import Integral, Real
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.base.shown import Shown
from convscope.data import check_unit_range
from convscope.errors import FailedError, RequestError, SettingError, shortened
from convscope.graph import (
    Operation,
    Positions,
    TracedGraph,
    check_gradient,
    check_weights,
    cuts_at_zero,
    positions,
    receptive_fields,
)
from convscope.lenses.gradients import portions_of_pass
from convscope.lenses.parametrize import Fourier, Parametrization
from convscope.lenses.regularizers import Jitter, Regularizer
from convscope.lenses.targets import check_position
from convscope.lenses.units import Units, choose_units, count_units

Normalization = tuple[Sequence[float] | Tensor, Sequence[float] | Tensor]
"""Means and deviations, one number a channel, by which a network wants pixels in [0, 1] normalised."""

_DEPTH = (0.01, 0.99)  # of the plain image, for the sigmoid hardly moves at black and white


@dataclass(frozen=True, eq=False)
class Maximized(Shown):
    """What gradient ascent found, a picture a unit.

    Attributes:
        picture: in [0, 1], before normalisation, of the size that the network takes.
        activation: of the unit for its picture, untransformed and with no penalty taken off. For a map its
            mean, or its value at the position asked for.
        course: the activation in each step, of the picture as the network was shown it (jittered, blurred);
            the first is that of the start.
        layer: the layer's name.
        units: the unit of each picture.
        note: what a reader has to know of the network; None if nothing.
    """

    picture: Float[Tensor, "N C H W"]
    activation: Float[Tensor, " N"]
    course: Float[Tensor, "N steps"]
    layer: str
    units: tuple[int, ...]
    note: str | None = None


def maximize(
    graph: TracedGraph,
    layer: str | None = None,
    units: Units = None,
    position: tuple[int, int] | None = None,
    *,
    normalize: Normalization | None = None,
    steps: int = 128,
    rate: float = 0.05,
    noise: float = 0.1,
    parametrization: Parametrization = Fourier(),
    regularizers: Sequence[Regularizer] | None = None,
    seed: int = 0,
    max_memory: int | None = None,
) -> Maximized:
    """The pictures that maximally activate units of a layer, found by gradient ascent (Adam) from one that is nearly plain.

    Numbers climb activation − penalties. A picture is the sigmoid of the image that their parametrization
    makes of them, added to a plain one: the mean image that the normalisation knows, so that for lines on black
    the start is black, too. (From grey, the class scores of such a network end below those of its images.)

    A class is a unit of the network's output, before any softmax that the network does not compute itself.
    Only the operations that the layer needs are run, in evaluation mode.

    Where the gradient dies in silent ReLUs, it is led to those that it would wake; see `redirected_relus`.

    Before its ReLU a map's mean counts negative values too, and that of a first convolution is even linear in
    the pixels: its best picture is plain colour. To see the filter, ask for the ReLU, or for a position.

    Args:
        graph: the traced network.
        layer: the name of an operation that gives maps, tokens or neurons; None means the network's (first)
            output.
        units: see `choose_units`; each gets a picture. They share the start and the random numbers, so a
            unit's picture does not depend, but for rounding, on those it is asked for with.
        position: (row, column) on the map, for one neuron; None climbs the mean over the map.
        normalize: (means, deviations), one number a channel, by which the network wants pixels in [0, 1]
            normalised; None where it takes them as they are, and then the start is mid-grey.
        steps: of gradient ascent. 128 suffice for form; more add contrast.
        rate: of Adam, the usual size of a step in each number.
        noise: deviation of the numbers at the start; 0 starts from the plain image itself.
        parametrization: `Fourier` for smooth pictures, `Pixels` for pixels that are free of each other.
        regularizers: applied in this order. None means jitter by a sixteenth of the layer's receptive field;
            () means none at all.
        seed: of the start and of the jitter.
        max_memory: bytes that the units done at once may take; see `portions`.

    Returns:
        See `Maximized`. Tensors have the network's type and device.

    Raises:
        UnknownNameError: there is no such layer; the message lists those there are.
        RequestError: the layer has no such unit or position, or it is not known which of its numbers are a unit's,
            or no gradient leads from it to the image; or the normalisation does not fit the channels.
        NetworkError: the graph's gradients are not the network's own; see `convscope.graph.check_gradient`.
        SettingError: steps, rate or noise is out of range.
        FailedError: a weight or an activation is infinite or not a number.

    Source: Erhan, Bengio, Courville & Vincent 2009, "Visualizing Higher-Layer Features of a Deep Network"; for
        classes Simonyan, Vedaldi & Zisserman 2013, section 2, arXiv 1312.6034; for what makes pictures clear
        Olah, Mordvintsev & Schubert 2017, "Feature Visualization", doi 10.23915/distill.00007.

    Example:
        >>> result = maximize(graph, "conv3", units=[0, 1, 2])
        >>> result.picture.shape, result.activation > result.course[:, 0]
        (torch.Size([3, 3, 32, 32]), tensor([True, True, True]))
    """
    operation = graph.operation(graph.outputs[0] if layer is None else layer)
    where = positions(graph).get(operation.name)
    chosen = choose_units(units, count_units(operation, where), operation.name)
    if position is not None:
        check_position(operation.name, position, where)
    if not isinstance(steps, Integral) or steps < 1:
        raise SettingError(f"steps: {shortened(steps)}; expected a whole number above 0")
    if not isinstance(rate, Real) or not 0 < rate < inf:
        raise SettingError(f"rate: {shortened(rate)}; expected a number above 0, such as 0.05")
    if not isinstance(noise, Real) or not 0 <= noise < inf:
        raise SettingError(f"noise: {shortened(noise)}; expected a number from 0 up, such as 0.1")
    if not isinstance(seed, Integral):
        raise SettingError(f"seed: {shortened(seed)}; expected a whole number")
    if regularizers is None:  # small against what the unit sees: none for 3×3 pixels, 2 px for 32×32, 14 px for 224×224
        field = receptive_fields(graph)[operation.name]
        regularizers = [Jitter(round(min(*field.size, *graph.input_shape[1:]) / 16))]
    # A gradient is wanted even where the caller has switched them off.
    with torch.inference_mode(mode=False), torch.enable_grad():
        check_weights(graph.net)
        ascent = _Ascent(graph, operation, where, position, normalize, parametrization, regularizers)
        image = torch.randn((1, *graph.input_shape), generator=torch.Generator().manual_seed(int(seed)))
        check_gradient(graph, image.to(ascent.like))
        parts = portions_of_pass(graph, operation.name, len(chosen), ascent.like, max_memory)
        results = [ascent.climb(chosen[part], steps, rate, noise, seed) for part in parts]
    picture, activation, course = (torch.cat(tensors) for tensors in zip(*results, strict=True))
    if not (course.isfinite().all() and activation.isfinite().all()):
        raise FailedError(
            f"layer {operation.name!r} gives activations that are infinite or not a number; check the network's weights"
        )
    return Maximized(picture, activation, course, operation.name, chosen, graph.note)


def normalization(
    normalize: Normalization | None, channels: int
) -> tuple[Float[Tensor, "C 1 1"], Float[Tensor, "C 1 1"]]:
    """Means and deviations in float64; 0 and 1 where pixels are taken as they are.

    Raises:
        RequestError: there is not a mean and a positive deviation for each channel, or they are not for pixels in [0, 1].
    """
    mean, deviation = normalize or ((0.0,) * channels, (1.0,) * channels)
    if not isinstance(mean, Iterable) or not isinstance(deviation, Iterable):
        raise RequestError(
            f"normalize is {normalize}; expected a list of {channels} means, and one of as many deviations"
        )
    mean, deviation = list(map(float, mean)), list(map(float, deviation))
    numbers = [isfinite(m) and 0 < d < inf for m, d in zip(mean, deviation, strict=False)]
    if not len(mean) == len(deviation) == channels or not all(numbers):
        raise RequestError(
            f"normalize is {normalize}; expected a mean and a positive deviation for each of {channels} channels"
        )
    try:
        check_unit_range(mean, deviation)
    except ValueError as error:
        raise RequestError(f"normalize: {error}") from None
    means, deviations = torch.tensor([mean, deviation], dtype=torch.float64).view(2, -1, 1, 1)
    return means, deviations


class _Ascent:
    """Gradient ascent with Adam on pictures of a layer's units, from the same start for each."""

    def __init__(
        self,
        graph: TracedGraph,
        operation: Operation,
        where: Positions | None,
        position: tuple[int, int] | None,
        normalize: Normalization | None,
        parametrization: Parametrization,
        regularizers: Sequence[Regularizer],
    ) -> None:
        self.graph, self.operation, self.where, self.position = graph, operation, where, position
        self.parametrization, self.regularizers = parametrization, regularizers
        self.like, self.instead = graph.like, redirected_relus(graph)
        self.mean, self.deviation = (n.to(self.like) for n in normalization(normalize, graph.input_shape[0]))
        blank = torch.full_like(self.mean, 0.5) if normalize is None else self.mean.clamp(*_DEPTH)
        self.blank = blank.logit()

    def climb(
        self, chosen: tuple[int, ...], steps: int, rate: float, noise: float, seed: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures, activations and courses of some units, each climbing for itself."""
        generator = torch.Generator().manual_seed(int(seed))
        units = torch.tensor(chosen, device=self.like.device)
        shape = self.parametrization.shape(self.graph.input_shape)
        # Drawn in float64 on the CPU, so that a seed means the same start for each type and device.
        start = noise * torch.randn(shape, generator=generator, dtype=torch.float64)
        # The numbers climb by small steps and pass a Fourier transform: too fine for half precision.
        start = start.to(self.like.device, torch.promote_types(self.like.dtype, torch.float32))
        numbers = start.repeat(len(chosen), *[1] * len(shape)).requires_grad_()
        adam = torch.optim.Adam([numbers], lr=rate)
        course = []
        for _ in range(steps):
            shown = pictures = self._pictures(numbers)
            for piece in self.regularizers:
                shown = piece.transform(shown, generator)
            activation = self._activation(shown, units)
            course.append(activation.detach())
            gain = activation - sum(piece.penalty(pictures) for piece in self.regularizers)
            numbers.grad = _gradient(-gain.sum(), numbers, self.operation)
            adam.step()
        with torch.no_grad():
            pictures = self._pictures(numbers).to(self.like)
            return pictures, self._activation(pictures, units), torch.stack(course, dim=1)

    def _pictures(self, numbers: Tensor) -> Float[Tensor, "N C H W"]:
        """In [0, 1]."""
        return (self.blank + self.parametrization.image(numbers, self.graph.input_shape)).sigmoid()

    def _activation(self, pictures: Float[Tensor, "N C H W"], units: Tensor) -> Float[Tensor, " N"]:
        """Of the n-th unit for the n-th picture."""
        name, normalised = self.operation.name, (pictures.to(self.like) - self.mean) / self.deviation
        values = self.graph.run(normalised, [name], instead=self.instead)[name]
        maps = values if self.where is None else self.where.as_map(values)  # (N, U) or (N, U, H, W)
        activations = maps[torch.arange(len(units), device=units.device), units]
        if self.position is not None:
            return activations[:, *self.position]
        return activations.flatten(1).mean(1) if activations.ndim > 1 else activations


def _gradient(loss: Tensor, numbers: Tensor, operation: Operation) -> Tensor:
    gradient = torch.autograd.grad(loss, [numbers], allow_unused=True)[0] if loss.requires_grad else None
    if gradient is None:
        raise RequestError(f"no gradient leads from layer {operation.name!r} to the image; choose another")
    return gradient


def redirected_relus(graph: TracedGraph) -> dict[str, Callable[..., Tensor]]:
    """Stand-ins for a network's rectifiers, for `TracedGraph.run(…, instead=…)`.

    Values are the rectifier's own, and so is the gradient, but for an image of which nothing comes through one
    of them. There the gradient of the loss passes to the silent units that it would wake (those where it is
    negative), as if they were open.

    ReLU6 is one of them, and so is any clamp from 0 up; what lets some of the negative through needs no waking.

    Source: Olah et al., Lucid, `redirected_relu_grad`, https://github.com/tensorflow/lucid.
    """
    return {op.name: _wake for op in graph.operations if cuts_at_zero(op)}


def _wake(operator: Callable[..., Tensor], x: Tensor, *settings: Any, **more: Any) -> Tensor:
    return _Waking.apply(lambda values: operator(values, *settings, **more), x)


class _Waking(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, operator: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        y = operator(x)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        x, y = ctx.saved_tensors
        through = torch.where((x > 0) & (x == y), gradient, 0)
        silent = ~through.flatten(1).any(1)  # (N,)
        if not silent.any():
            return None, through
        waking = torch.where(x <= 0, gradient.clamp(max=0), 0)
        return None, torch.where(silent.view(-1, *[1] * (x.ndim - 1)), waking, through)
