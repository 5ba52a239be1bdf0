from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from convscope.errors import NetworkError, RequestError, UnknownNameError
from convscope.nets import make_task
from convscope.scope import Scope

MEAN, DEVIATION = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def network() -> nn.Sequential:
    layers = OrderedDict(conv1=nn.Conv2d(3, 4, 3), bn1=nn.BatchNorm2d(4), relu1=nn.ReLU(inplace=True))
    return nn.Sequential(layers | {"drop1": nn.Dropout(), "flatten": nn.Flatten(), "fc1": nn.Linear(4 * 36, 5)})


@pytest.fixture
def scope() -> Scope:
    return Scope(network(), example=torch.zeros(1, 3, 8, 8), classes="abcde", normalize=(MEAN, DEVIATION))


def test_answers_are_the_networks_in_evaluation_mode(scope: Scope) -> None:
    images = torch.rand(3, 3, 8, 8)
    scope.net.train()
    logits = scope.logits(images)
    assert scope.net.training
    scope.net.eval()
    normalised = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)
    with torch.no_grad():
        assert torch.equal(logits, scope.net(normalised))
    assert torch.equal(scope.probabilities(images), logits.softmax(1))
    torch.testing.assert_close(scope.logits(images[1]), logits[1:2])


def test_looking(scope: Scope) -> None:
    assert scope.anatomy().parameters == sum(p.numel() for p in scope.net.parameters())
    assert scope.activations(torch.rand(2, 3, 8, 8), ["conv"])["conv1"].shape == (2, 4, 6, 6)
    assert scope.anatomy().layers[0].name == "conv1"
    assert scope.filters("conv1").shape == (4, 3, 3, 3)
    assert scope.receptive_field("relu1").box(0, 5) == (0, 5, 3, 8)
    assert repr(scope) == "Scope(Sequential, 3×8×8 images, 5 classes)"


def test_a_single_sigmoid() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    scope = Scope(net, example=torch.zeros(1, 1, 2, 2))
    image = torch.rand(1, 2, 2)
    second = scope.logits(image).sigmoid()
    torch.testing.assert_close(scope.probabilities(image), torch.cat([1 - second, second], 1))
    named = Scope(net, torch.zeros(1, 1, 2, 2), ["cat", "dog"])
    assert torch.equal(named.saliency(image, "cat").values, -named.saliency(image, "dog").values)


def test_a_run_brings_all_that_a_scope_needs() -> None:
    task = make_task("softmax", {"class": tuple("abcde")})
    run = SimpleNamespace(
        net=network(), classes=tuple("abcde"), normalization=(MEAN, DEVIATION), input_shape=(3, 8, 8), task=task
    )
    scope = Scope(run)
    assert (scope.classes, scope.input_shape) == (tuple("abcde"), (3, 8, 8))
    same = Scope(run.net, torch.zeros(1, 3, 8, 8), normalize=run.normalization)
    image = torch.rand(3, 8, 8)
    assert torch.equal(scope.logits(image), same.logits(image))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 9, 8), "images have the shape 3×9×8; this network takes 3×8×8 or N×3×8×8"),
        (torch.zeros(0, 3, 8, 8), "images have the shape 0×3×8×8"),
        (torch.full((3, 8, 8), 255.0), r"pixels run from 255 to 255; expected \[0, 1\]"),
        (torch.randn(4, 3, 8, 8), r"expected \[0, 1\] before normalisation"),
        (torch.full((3, 8, 8), torch.nan), "pixels run from nan to nan"),
    ],
)
def test_bad_images(scope: Scope, images: torch.Tensor, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        scope.prepare(images)


def test_whole_numbers(scope: Scope) -> None:
    with pytest.raises(RequestError, match=r"images are torch\.uint8; expected floats"):
        scope.prepare(torch.zeros(3, 8, 8, dtype=torch.uint8))


def test_bad_requests(scope: Scope) -> None:
    with pytest.raises(RequestError, match="needs an example of shape"):
        Scope(network())
    with pytest.raises(RequestError, match="a positive deviation for each of 3 channels"):
        Scope(network(), torch.zeros(1, 3, 8, 8), normalize=((0.5,), (0.5,)))
    with pytest.raises(UnknownNameError, match="layer 'conv2' is not in this network"):
        scope.receptive_field("conv2")
    with pytest.raises(NetworkError, match="cannot be traced for 3×9×9 images"):
        Scope(network(), torch.zeros(1, 3, 9, 9)).logits(torch.zeros(3, 9, 9))
