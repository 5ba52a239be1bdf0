"""The keyword settings of the lenses, for the type checker where they are handed on; each lens explains its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from torch import Tensor

from convscope.lenses.occlusion import Fill, Size
from convscope.lenses.parametrize import Parametrization
from convscope.lenses.regularizers import Regularizer
from convscope.lenses.targets import Position


class NeuronSettings(TypedDict, total=False):
    """Of `saliency`, `gradient_times_input`, `guided_backprop`, `deconvnet`."""

    layer: str | None
    unit: int | None
    position: Position
    max_memory: int | None


class CamSettings(TypedDict, total=False):
    """Of the class-activation maps."""

    relu: bool
    max_memory: int | None


class CaptumSettings(TypedDict, total=False):
    """Of single methods of Captum; see `attribute`."""

    n_steps: int
    n_samples: int
    noise: float
    epsilon: float


class MaximizeSettings(TypedDict, total=False):
    """Of `maximize`."""

    steps: int
    rate: float
    noise: float
    parametrization: Parametrization
    regularizers: Sequence[Regularizer] | None
    seed: int
    max_memory: int | None


class LensSettings(CaptumSettings, total=False):
    """Of any attribution lens but for `seed` and `max_memory`; or of `occlusion`, whose fill is called `occlusion_fill`."""

    layer: str | None
    unit: int | None
    position: Position
    relu: bool
    baseline: Tensor | None
    size: Size
    stride: Size
    occlusion_fill: Fill
    logits: bool


class SeededSettings(LensSettings, total=False):
    """Of any attribution lens by its name."""

    seed: int
    max_memory: int | None
