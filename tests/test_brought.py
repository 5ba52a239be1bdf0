"""Networks and arguments that people brought and that went wrong: each the right value, or one clear line."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convscope.data import load_data
from convscope.errors import DataError, RequestError
from convscope.scope import Scope
from tests.cli.conftest import Command, command

__all__ = ["command"]

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def _normed(size: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.LocalResponseNorm(size), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("size", [3, 5])
def test_a_local_response_norm_keeps_the_positions(size: int) -> None:
    net = _normed(size)
    scope = Scope(net, IMAGES)
    maps = net[:6](IMAGES)
    found = scope.grad_cam(IMAGES, target=1)
    assert found.layer == "5"
    torch.testing.assert_close(found.values[:, 0], (net[8].weight[1] / 25)[:, None, None].mul(maps).sum(1).detach())
    assert scope.receptive_field("4").box(0, 0) == (0, 0, 8, 8)  # two of 3, a pool of 2
    assert scope.n_units("4") == 8
    assert scope.statistics(IMAGES, "4")["4"].mean.tolist() == pytest.approx(
        net[:5](IMAGES).mean((0, 2, 3)).tolist(), abs=1e-6
    )
    assert scope.top_patches(IMAGES, "4")["4"].fired.shape == (8,)


class _EndsIn(nn.Module):
    def __init__(self, last: Any, outputs: int = 5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head, self.last = nn.Conv2d(3, 8, 3), nn.Linear(8, outputs), last

    def logits(self, x: Tensor) -> Tensor:
        return 6 * self.head(self.conv(x).relu().mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.logits(x))


def test_a_sigmoid_of_each_class_is_not_put_through_a_softmax() -> None:
    net = _EndsIn(torch.sigmoid).eval()
    scope = Scope(net, IMAGES)
    torch.testing.assert_close(scope.logits(IMAGES), net.logits(IMAGES).detach())
    torch.testing.assert_close(scope.probabilities(IMAGES), net.logits(IMAGES).softmax(1).detach())
    assert "ends in a sigmoid" in scope.note
    assert "one softmax over the classes" in scope.note


@pytest.mark.parametrize(
    ("last", "outputs", "said"),
    [
        (lambda x: x.squeeze(1), 1, "one number an image, without an axis of classes: return shape (N, 1)"),
        (lambda x: x[..., None, None], 5, "5×1×1 numbers an image, not a row of logits: flatten its answer"),
        (lambda x: x[..., None].expand(-1, -1, 2), 5, "5×2 numbers an image, not a row of logits: use a classifier"),
    ],
)
def test_what_is_no_row_of_logits_says_what_to_do(last: Any, outputs: int, said: str) -> None:
    scope = Scope(_EndsIn(last, outputs).eval(), IMAGES)
    for ask in (scope.probabilities, scope.saliency):
        with pytest.raises(RequestError) as error:
            ask(IMAGES)
        assert said in str(error.value)


@pytest.mark.parametrize("names", ["abc", "abcdef"])
def test_as_many_names_as_outputs(names: str) -> None:
    scope = Scope(_EndsIn(nn.Identity()).eval(), IMAGES, list(names))
    with pytest.raises(RequestError, match=f"classes: {len(names)} names, but the network gives 5 outputs"):
        scope.probabilities(IMAGES)


def test_a_name_stands_once() -> None:
    with pytest.raises(RequestError, match="classes: 'a' stands there twice"):
        Scope(_EndsIn(nn.Identity()).eval(), IMAGES, list("abcda"))


@pytest.mark.skipif(bool(os.environ.get("CONVSCOPE_CHECK_ANNOTATIONS")), reason="the annotation refuses it before")
@pytest.mark.parametrize("normalize", [(0.5, 0.5), (0.5, [0.5] * 3)])
def test_a_normalization_of_one_number_is_refused(normalize: Any) -> None:
    with pytest.raises(RequestError, match="expected a list of 3 means, and one of as many deviations"):
        Scope(_EndsIn(nn.Identity()).eval(), IMAGES, normalize=normalize)


@pytest.mark.parametrize("method", ["xgrad_cam", "grad_cam_plus_plus"])
def test_every_method_of_the_catalogue_is_one_of_all(method: str) -> None:
    scope = Scope(_normed(3), IMAGES)
    torch.testing.assert_close(scope.attribute(method, IMAGES).values, getattr(scope, method)(IMAGES).values)
    assert scope.faithfulness(method, IMAGES, torch.tensor([0, 1])).method == method


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.full((9, 8, 8, 3), 200.0, dtype=np.float32), "images are float32 and run from 200 to 200"),
        (np.linspace(-1, 1, 9 * 192).reshape(9, 8, 8, 3), "images are float64 and run from -1 to 1"),
        (np.full((9, 8, 8, 3), np.nan), "images are float64 and hold NaN"),
    ],
)
def test_floats_of_another_range_are_named(tmp_path: Path, pixels: np.ndarray, said: str) -> None:
    np.savez(tmp_path / "set.npz", images=pixels, labels=np.arange(9) % 3)
    with pytest.raises(DataError, match=said):
        load_data(tmp_path / "set.npz")


def test_labels_are_counted_from_0(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=np.zeros((9, 8, 8, 3), np.uint8), labels=np.arange(9) % 3 - 1)
    with pytest.raises(DataError, match="classes are counted from 0"):
        load_data(tmp_path / "set.npz")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{run}"], "a run's folder without a lens; expected both, such as {run} grad_cam"),
        (["{run}", "ablate", "--units", ""], "--units: expected a value after it"),
        (
            ["--net", "net1", "saliency", "--image", "x.png", "--classes", "no.txt"],
            "--classes no.txt: No such file or directory",
        ),
    ],
)
def test_one_line_says_what_to_do(command: Command, reported: Any, words: list[str], said: str) -> None:
    found = command("look", *(word.format(run=reported.path) for word in words))
    assert found.status == 2
    assert said.format(run=reported.path) in found.complaint
