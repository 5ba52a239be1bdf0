"""Networks whose weights, or numbers on the way, are NaN or infinite: every lens and scan says so in one line, and ends."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from convscope.analyses import look, names
from convscope.errors import FailedError
from convscope.graph import broken_weights, is_finite
from convscope.lenses import ATTRIBUTIONS, CAPTUM_METHODS
from convscope.scope import Scope
from tests.analyses.kinds import OF_IMAGES, SCANS
from tests.scans.scan_networks import HEIGHT, WIDTH, make_images, make_scope, network

IMAGES = torch.rand(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
SET = make_images(12)

BREAKS: dict[str, Callable[[Any], Any]] = {
    "NaN in a filter": lambda net: net.conv1.weight[0, 0, 0].fill_(torch.nan),
    "NaN behind the layer that is asked about": lambda net: net.bn1.weight[0].fill_(torch.nan),
    "NaN in a class that is not asked about": lambda net: net.fc.bias[2].fill_(torch.nan),
    "NaN in the statistics of a norm": lambda net: net.bn1.running_mean[0].fill_(torch.nan),
    "an infinite weight": lambda net: net.conv2.weight[0, 0, 0, 0].fill_(torch.inf),
    "an infinite bias that a ReLU hides": lambda net: net.conv2.bias[0].fill_(-torch.inf),
    "an infinite variance": lambda net: net.bn1.running_var[0].fill_(torch.inf),
    "finite weights, and numbers that overflow": lambda net: (net.conv1.weight.mul_(1e36), net.conv2.weight.mul_(1e36)),
}

LENSES: dict[str, Callable[[Scope], object]] = {
    **{name: lambda scope, name=name: scope.attribute(name, IMAGES, 0) for name in (*ATTRIBUTIONS, *CAPTUM_METHODS)},
    "the most probable class": lambda scope: scope.saliency(IMAGES),
    "occlusion": lambda scope: scope.occlusion(IMAGES, 3, 3),
    "maximize": lambda scope: scope.maximize("fc", [0], steps=2),
    "top_patches": lambda scope: scope.top_patches(IMAGES, "conv2"),
    "statistics": lambda scope: scope.statistics(IMAGES, "conv"),
    "statistics without correlations": lambda scope: scope.statistics(IMAGES, "conv1", correlations=False),
    "filter_effects": lambda scope: scope.filter_effects(SET, "conv1", progress=False),
    "filter_effects, some": lambda scope: scope.filter_effects(SET, "conv1", screen=2, progress=False),
    "ablation": lambda scope: scope.ablation({"conv1": [0]}, SET, progress=False),
    "faithfulness": lambda scope: scope.faithfulness("saliency", IMAGES, steps=3),
    "randomization": lambda scope: scope.randomization_check("saliency", IMAGES),
    "invariance": lambda scope: scope.invariance(IMAGES, ["conv1"], shift=[1], rotate=(), scale=()),
}


@cache
def broken(how: str) -> Scope:
    net = network().eval()
    with torch.no_grad():
        BREAKS[how](net)
    return make_scope(net)


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("lens", LENSES)
def test_every_lens_and_scan_says_so(how: str, lens: str) -> None:
    with pytest.raises(FailedError, match=r"NaN|infinite") as caught:
        LENSES[lens](broken(how))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lens", names())
def test_every_look_says_so(lens: str) -> None:
    asked = {"test": SET} if lens in SCANS else {"image": IMAGES[0]} if lens in OF_IMAGES else {}
    layer = "conv1" if lens in ("activations", "receptive_field", "top_patches") else None
    edit = [["rotate", 15]] if lens == "edit_effect" else None
    with pytest.raises(FailedError, match=r"the network is broken: 'bn1\.weight' holds NaN"):
        look(broken("NaN behind the layer that is asked about"), lens, layer=layer, edit=edit, **asked)


def test_a_picture_of_activations_that_overflow() -> None:
    scope = broken("finite weights, and numbers that overflow")
    with pytest.raises(FailedError, match="layer 'conv2' gives NaN or infinity for this image"):
        look(scope, "activations", image=IMAGES[0], layer="conv2")


def test_numbers_that_are_finite_and_whose_squares_are_not() -> None:
    net = network().eval()
    with torch.no_grad():
        net.conv1.weight.mul_(1e25)
    for correlations in (True, False):
        with pytest.raises(FailedError, match="numbers to be summed are NaN or infinite"):
            make_scope(net).statistics(IMAGES, "conv1", correlations)


def test_the_first_broken_weight_is_named() -> None:
    net = network()
    assert broken_weights(net) is None
    with torch.no_grad():
        net.fc.bias[0] = torch.inf
        assert broken_weights(net) == "'fc.bias' holds NaN or infinity"
        net.bn1.running_var[1] = torch.nan
        net.conv2.weight[0] = -torch.inf
    assert broken_weights(net) == "'conv2.weight' and 2 more of its weights hold NaN or infinity"


def test_a_mask_of_minus_infinity_and_large_finite_weights_are_no_fault() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3, 2, bias=False))
    net.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))
    with torch.no_grad():
        net[1].weight.fill_(3e38)  # whose sum is infinite
    assert broken_weights(net) is None
    net.mask[0, 0] = torch.nan
    assert broken_weights(net) == "'mask' holds NaN or infinity"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64])
def test_is_finite(dtype: torch.dtype) -> None:
    values = torch.full((5,), 4e4, dtype=dtype)  # whose sum no float16 holds
    assert is_finite(values)
    for wrong in (torch.nan, torch.inf, -torch.inf):
        values[2] = wrong
        assert not is_finite(values)
    assert is_finite(torch.arange(3))
    assert is_finite(torch.zeros(0))
