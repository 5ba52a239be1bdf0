"""Attributions by Captum's methods, with the arguments and the result of our own lenses."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from numbers import Integral, Real
from typing import Any, Unpack

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from convscope.base.optional import import_optional
from convscope.base.words import shape_text
from convscope.compute import own_random_state
from convscope.errors import RequestError, SettingError, UnknownNameError, shortened
from convscope.graph import Operation, TracedGraph
from convscope.lenses.attribution import Attribution, join
from convscope.lenses.gradients import portions_of_pass
from convscope.lenses.rectified import is_rectifier, passing_back
from convscope.lenses.settings import CaptumSettings
from convscope.lenses.targets import Target, resolve_target
from convscope.nets import Task


@dataclass(frozen=True, eq=False)
class _Look:
    """One image, what is asked of it, and how many variants of it fit the memory at once."""

    graph: TracedGraph
    output: str
    task: Task
    image: Float[Tensor, "1 C H W"]
    target: int
    baseline: Float[Tensor, "1 C H W"]
    at_once: int
    settings: Mapping[str, Any]

    def scores(self, images: Tensor) -> Tensor:
        """What speaks for each class: its logit, or the negative one of a sigmoid's first class."""
        images = images.to(self.image.dtype)  # Captum's noise, in float32, widens those of half precision
        return self.task.scores(self.graph.run(images, [self.output])[self.output])

    @property
    def noise(self) -> float:
        """The setting is a share of the image's own range; Captum wants it in the image's unit."""
        return float(self.settings["noise"]) * float(self.image.max() - self.image.min())


def attribute(
    graph: TracedGraph,
    images: Float[Tensor, "N C H W"],
    method: str,
    target: Target = None,
    *,
    baseline: Float[Tensor, "#N C H W"] | None = None,
    seed: int = 0,
    max_memory: int | None = None,
    **settings: Unpack[CaptumSettings],
) -> Attribution:
    """What a method of Captum attributes to each pixel, for the logit of the target.

    Captum runs the traced graph, never the module: no hook is set on the network. Each image is looked at on its
    own, from the same seed, so that a batch gives what its images give one by one.

    Args:
        graph: the traced network, in evaluation mode whatever mode the network is in.
        images: normalised, of the size that the graph was traced with.
        method: one of `CAPTUM_METHODS`:
            "integrated_gradients": gradient × input, averaged over `n_steps` (50) between baseline and image;
            "smooth_grad": the gradient, averaged over `n_samples` (50) with noise;
            "gradient_shap": as integrated gradients, at `n_samples` (50) random points, with noise (0);
            "lrp": layer-wise relevance propagation, the ε-rule (`epsilon`, 1e-9) at each layer.
            `noise` is the deviation as a share of the image's own range, 0.15 for smooth_grad as in its paper.
        target: see `Target`; the class to explain, the most probable of each image by default.
        baseline: normalised, one for all images or one for each: what counts as nothing. By default zeros, which
            is the mean colour. Of use to integrated_gradients and gradient_shap.
        seed: of the noise.
        max_memory: bytes to work in; by default a share of what is free. (gradient_shap takes all its samples at
            once, whatever this says.)
        settings: those named above.

    Returns:
        An `Attribution` of values (N, C, H, W), in logits; of smooth_grad in logits per unit of the normalised
        pixel. Zero: no part in the answer. Of integrated_gradients the note says by how much the values miss
        the sum that they should have, the logit less that of the baseline.

    Raises:
        UnknownNameError: there is no such method or setting; the message lists those there are.
        SettingError: a setting is out of its range.
        RequestError: images, target or baseline do not fit, or lrp knows no rule for an operation.
        MissingPackageError, BrokenPackageError: Captum is not installed, or its import fails.

    Source: Sundararajan et al. 2017, arXiv 1703.01365 (integrated gradients); Smilkov et al. 2017, arXiv
        1706.03825 (SmoothGrad); Lundberg & Lee 2017, arXiv 1705.07874 (SHAP); Bach et al. 2015, doi
        10.1371/journal.pone.0130140 (LRP). Computed by Captum, Kokhlikyan et al. 2020, arXiv 2009.07896.

    Example:
        >>> attribute(graph, images, "integrated_gradients", n_steps=100).values.shape
        torch.Size([8, 3, 32, 32])
    """
    if method not in CAPTUM_METHODS:
        raise UnknownNameError("method", method, CAPTUM_METHODS, "among Captum's")
    run, defaults = _METHODS[method]
    for name in settings.keys() - defaults.keys():
        raise UnknownNameError("setting", name, settings_of(method), f"one of {method}")
    _check_numbers({**settings, "seed": seed})
    resolved = resolve_target(graph, images, target)
    assert resolved.target is not None  # a class is asked about
    baselines = _baselines(images, baseline)
    captum = import_optional("captum.attr", "this attribution")
    at_once = next(portions_of_pass(graph, resolved.operation, 2**31, images, max_memory)).stop
    attributions, gaps = [], []
    for i in range(len(images)):
        part = slice(i, i + 1)
        with torch.inference_mode(False), torch.enable_grad(), _alone(seed, images.device):
            image = images[part].clone().detach()
            with torch.no_grad():
                _, fields = resolved.of(part).read(graph.run(image, [resolved.operation])[resolved.operation])
            look = _Look(
                graph, resolved.operation, resolved.target.task, image, int(fields["target"]), baselines[part], at_once,
                defaults | settings,
            )  # fmt: skip
            values, gap = run(captum, look)
        attributions.append(Attribution(values.detach().to(images.dtype), method, **fields))
        gaps += [gap] if gap is not None else []
    note = f"the values miss the logit's rise over the baseline by at most {max(gaps):.2g}" if gaps else None
    return join(attributions).noting(note)


def _integrated_gradients(captum: Any, look: _Look) -> tuple[Tensor, float | None]:
    values, gap = captum.IntegratedGradients(look.scores).attribute(
        look.image,
        look.baseline,
        look.target,
        n_steps=look.settings["n_steps"],
        internal_batch_size=look.at_once,
        return_convergence_delta=True,
    )
    return values, float(gap.abs())


def _smooth_grad(captum: Any, look: _Look) -> tuple[Tensor, float | None]:
    noisy = captum.NoiseTunnel(captum.Saliency(look.scores))
    n = look.settings["n_samples"]
    values = noisy.attribute(
        look.image,
        nt_type="smoothgrad",
        nt_samples=n,
        nt_samples_batch_size=min(n, look.at_once),
        stdevs=look.noise,
        target=look.target,
        abs=False,
    )
    return values, None


def _gradient_shap(captum: Any, look: _Look) -> tuple[Tensor, float | None]:
    values = captum.GradientShap(look.scores).attribute(
        look.image,
        look.baseline,
        n_samples=look.settings["n_samples"],
        stdevs=look.noise,
        target=look.target,
    )
    return values, None


def _lrp(captum: Any, look: _Look) -> tuple[Tensor, float | None]:
    from captum.attr._utils.lrp_rules import EpsilonRule

    # 0, to which 1e-9 rounds in float16, is NaN
    epsilon = max(look.settings["epsilon"], torch.finfo(look.image.dtype).tiny)
    steps = RelevanceSteps(look.graph, look.output, lambda: EpsilonRule(epsilon))
    output, sign = look.task.output_of(look.target)
    return sign * captum.LRP(steps).attribute(look.image, output), None


_METHODS: dict[str, tuple[Callable[[Any, _Look], tuple[Tensor, float | None]], dict[str, Any]]] = {
    "integrated_gradients": (_integrated_gradients, {"n_steps": 50}),
    "smooth_grad": (_smooth_grad, {"n_samples": 50, "noise": 0.15}),
    "gradient_shap": (_gradient_shap, {"n_samples": 50, "noise": 0.0}),
    "lrp": (_lrp, {"epsilon": 1e-9}),
}
CAPTUM_METHODS = tuple(_METHODS)
"""What `attribute` offers."""


def settings_of(method: str) -> tuple[str, ...]:
    """The names of all settings that `attribute` takes with one of its methods."""
    return (*_METHODS[method][1], "baseline", "seed", "max_memory")


def _check_numbers(settings: Mapping[str, Any]) -> None:
    for name, value in settings.items():
        is_whole, least = name in ("n_steps", "n_samples", "seed"), 1 if name in ("n_steps", "n_samples") else 0
        if (
            not isinstance(value, Integral if is_whole else Real)
            or isinstance(value, bool)
            or not least <= float(value) < inf
        ):
            kind = "a whole number" if is_whole else "a number"
            raise SettingError(f"{name}: {shortened(value)}; expected {kind} from {least} up")


def _baselines(images: Tensor, baseline: Tensor | None) -> Tensor:
    if baseline is None:
        return torch.zeros_like(images)
    if not isinstance(baseline, Tensor):
        raise RequestError(
            f"baseline: {shortened(baseline)}; expected an image as a tensor, normalised as the images are; for one value in "
            "all pixels torch.full_like(images[:1], value)"
        )
    if baseline.shape[1:] != images.shape[1:] or len(baseline) not in (1, len(images)):
        given, want = shape_text(baseline.shape), shape_text(images.shape)
        raise RequestError(f"baseline: shape {given}; expected {want}, or one image for all, normalised as they are")
    return baseline.to(images).expand_as(images)


@contextmanager
def _alone(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers from `seed`; afterwards the global states are as before. Captum's warnings are silenced."""
    numpy_state = np.random.get_state()  # noqa: NPY002 (GradientShap draws from it)
    try:
        with own_random_state(device), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(int(seed))
            np.random.seed(seed % 2**32)  # noqa: NPY002
            yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002


_SHARED_OUT = {"conv", "conv_transpose", "dense", "batch_norm", "avg_pool", "adaptive_avg_pool", "mean", "sum", "add"}
_PASSED_ON = (
    {"max_pool", "adaptive_max_pool", "dropout", "pad", "concat", "split", "part", "slice", "select"}
    | {"flatten", "reshape", "squeeze", "unsqueeze", "permute", "transpose", "expand"}
    | {"contiguous", "clone", "alias", "to"}
)


class RelevanceSteps(nn.Module):
    """A network whose children are the operations that share relevance out among their inputs, each once.

    Captum sets its hooks on these children and none on the user's network, so functional, reused and residual
    parts of it are reached. Rectifiers pass all relevance on; so do operations that only move values, and max
    pools to where the maximum was.

    Args:
        graph: the traced network.
        output: the operation whose result is returned.
        rule: makes the rule of one operation, a `PropagationRule` of Captum.

    Raises:
        RequestError: there is no rule for an operation of the network, such as attention.
    """

    def __init__(self, graph: TracedGraph, output: str, rule: Callable[[], Any]) -> None:
        super().__init__()
        self._graph, self._output = graph, output
        self._instead: dict[str, Callable[..., Tensor]] = {}
        for op in graph.needed_for(output):
            if is_rectifier(op):
                self._instead[op.name] = partial(passing_back, positive_only=False)
            elif op.kind in _SHARED_OUT:
                step = _Step(op, {graph.image, *(o.node for o in graph.operations)}, rule())
                self.add_module(op.name.replace(".", "/"), step)
                self._instead[op.name] = step.stand_in
            elif op.kind not in _PASSED_ON:
                raise RequestError(f"lrp has no rule for {op.name!r}, of kind {op.kind}; try integrated_gradients")

    def forward(self, images: Float[Tensor, "N C H W"]) -> Tensor:
        return self._graph.run(images, [self._output], instead=self._instead)[self._output]


class _Step(nn.Module):
    """One operation, as a module of those arguments that depend on the image."""

    def __init__(self, op: Operation, of_image: set[Any], rule: Any) -> None:
        super().__init__()
        self.rule = rule
        self._places = [i for i, argument in enumerate(op.node.args) if argument in of_image]
        self._compute: Callable[..., Tensor] | None = None

    def stand_in(self, operator: Callable[..., Tensor], *arguments: Any, **more: Any) -> Tensor:
        def compute(*maps: Tensor) -> Tensor:
            inputs = list(arguments)
            for place, value in zip(self._places, maps, strict=True):
                inputs[place] = value
            return operator(*inputs, **more)

        self._compute = compute
        return self(*(arguments[place].clone() for place in self._places))  # a tensor of its own for Captum's hook

    def forward(self, *maps: Tensor) -> Tensor:
        return self._compute(*maps)  # type: ignore[misc]
