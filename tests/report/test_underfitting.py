"""What is said of runs that underfit: made histories for each piece of advice, and one run that is really trained."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from convscope.data import DataBundle, DataSpec, load_data
from convscope.nets import NetSpec, build_net
from convscope.report import ReportedRun
from convscope.report.findings import findings, underfitting
from convscope.runs import Recipe, Run, RunSpec, Stage
from convscope.scans import evaluate
from convscope.training import Silent, train

Make = Callable[..., DataBundle]
FLAT = (2.0, 1.5, 1.4, 1.39)
FALLING = (2.0, 1.5, 1.2, 1.0)
CONSTANT = (0.1, 0.1, 0.1, 0.1)
ANNEALED = (0.02, 0.1, 0.04, 0.01)  # as in one-cycle: up, and down again


class _Made(Run):
    """A run without a folder."""

    environment = {"parameters": 12345}  # type: ignore[assignment]  # noqa: RUF012


def _run(
    train: float = 0.6, val: float = 0.58, *, losses: tuple[float, ...] = FLAT, rates: tuple[float, ...] = CONSTANT,
    net: dict[str, Any] | None = None, **recipe: Any,
) -> Run:  # fmt: skip
    """A run with that history, whose last epoch has those accuracies."""
    n = len(losses)
    accuracies = {"train_accuracy": [*[0.1] * (n - 1), train], "val_accuracy": [*[0.1] * (n - 1), val]}
    run = _Made(Path())
    run.history = pd.DataFrame({"train_loss": losses, "val_loss": losses, "rate": rates[:n], **accuracies})
    run.spec = RunSpec(
        data=DataSpec(source="photos"), net=NetSpec(**({"name": "net1"} | (net or {}))),
        recipe=Recipe(**({"epochs": n, "batch": 8} | recipe)),
    )  # fmt: skip
    return run


@pytest.fixture
def grey(spots: Make) -> DataBundle:
    """Images with nothing to advise: grey, and not scaled."""
    data = spots()
    one = replace(data.train, pixels=data.train.pixels[:, :1])
    return replace(data, train=one, spec=DataSpec(source="photos"))


def _steps(said: str) -> list[str]:
    return said.partition("in this order: ")[2].removesuffix(".").split("; ")


def test_a_run_that_fits_or_overfits_is_not_said_to_underfit(grey: DataBundle) -> None:
    for train_accuracy, val in [(1.0, 1.0), (0.91, 0.7), (0.6, 0.54), (0.55, 0.92), (0.9, 0.89)]:
        assert underfitting(_run(train_accuracy, val), grey) == ""
    for train_accuracy, val in [(0.6, 0.56), (0.89, 0.89), (0.5, 0.8)]:
        assert underfitting(_run(train_accuracy, val), grey).startswith("The network underfits")


def test_the_epoch_of_the_kept_weights_is_looked_at(grey: DataBundle) -> None:
    run = _run(0.6, 0.58, losses=(1.0, 2.0, 3.0, 4.0), patience=5)
    run.history.loc[0, ["train_accuracy", "val_accuracy"]] = [0.99, 0.98]
    assert underfitting(run, grey) == ""
    assert underfitting(_run(0.6, 0.58, losses=(1.0, 2.0, 3.0, 4.0)), grey) != ""


def test_more_epochs_where_the_loss_was_still_falling(grey: DataBundle) -> None:
    def first(**changes: Any) -> str:
        return _steps(underfitting(_run(**changes), grey))[0]

    assert first(losses=FALLING) == "more epochs (the training loss was still falling)"
    assert first(losses=FLAT).startswith("a wider network")
    assert first(losses=(2.0,)) == "more epochs (there was only one)"


def test_while_the_rate_is_annealed_a_falling_loss_says_nothing(grey: DataBundle) -> None:
    """The second epoch is the last whose rate is half its peak or more."""
    early = underfitting(_run(losses=(2.0, 1.5, 1.2, 1.0), rates=ANNEALED), grey)
    late = underfitting(_run(losses=(2.0, 1.99, 1.5, 1.0), rates=ANNEALED), grey)
    assert "more epochs (the training loss was still falling before the rate was annealed)" in early
    assert "more epochs" not in late


def test_of_several_stages_the_last_is_looked_at(grey: DataBundle) -> None:
    for losses, falling in {
        (3.0, 1.0, 1.0, 0.99): False,
        (1.0, 1.0, 1.0, 0.5): True,
        (3.0, 1.0, 1.0, 1.5): False,
    }.items():
        run = _run(losses=losses)
        run.history["stage"] = ["head", "head", "all", "all"]
        stages = tuple(Stage(name=name, epochs=2, rate=0.1) for name in ("head", "all"))
        run.spec = run.spec.model_copy(update={"recipe": Recipe(stages=stages)})
        assert ("more epochs" in underfitting(run, grey)) == falling


def test_where_patience_ended_the_training_more_epochs_are_not_advised(grey: DataBundle) -> None:
    assert "more epochs" in underfitting(_run(losses=FALLING, patience=2), grey)
    assert "more epochs" not in underfitting(_run(losses=FALLING, patience=2, epochs=9), grey)


def test_a_smaller_batch_where_an_epoch_has_few_steps(grey: DataBundle) -> None:
    n = len(grey.train)
    said = _steps(underfitting(_run(batch=n // 2), grey))
    assert said[0] == f"a smaller recipe.batch (an epoch has 2 steps of {n // 2} images)"
    assert _steps(underfitting(_run(batch=4 * n), grey))[0].endswith(f"(an epoch has 1 step of {n} images)")
    assert "recipe.batch" not in underfitting(_run(batch=n // 10), grey)


def test_a_wider_or_pretrained_network_where_it_is_not_pretrained(grey: DataBundle, spots: Make) -> None:
    own, pretrained = _run(), _run(net={"name": "lite0", "pretrained": True})
    coloured = replace(spots(), spec=DataSpec(source="photos"))
    wider = "a wider network (this one has 12,345 parameters)"
    assert _steps(underfitting(own, grey)) == [wider]
    n = f"{len(coloured.train):,}"
    assert _steps(underfitting(own, coloured)) == [
        wider,
        f"a pretrained network (there are {n} training images in colour)",
    ]
    assert underfitting(pretrained, coloured) == (
        "The network underfits: train accuracy is 60.0 %, validation accuracy 58.0 %."
    )
    assert "pretrained" not in underfitting(own, replace(coloured, spec=DataSpec(source="lines")))


def test_a_larger_image_where_the_source_has_larger_ones(grey: DataBundle) -> None:
    larger = "a larger data.image_size (it is 8, the median shorter side of the images 100 px)"
    assert _steps(underfitting(_run(), replace(grey, own_side=100)))[-1] == larger
    for side in (8, 5, None):  # as they are, enlarged, not known
        assert "image_size" not in underfitting(_run(), replace(grey, own_side=side))


def test_the_order_of_the_advice(spots: Make) -> None:
    data = replace(spots(), own_side=100, spec=DataSpec(source="photos"))
    steps = _steps(underfitting(_run(losses=FALLING), data))
    assert [step.partition(" (")[0] for step in steps] == [
        "more epochs", "a wider network", "a pretrained network", "a larger data.image_size",
    ]  # fmt: skip


def test_a_source_says_how_large_its_images_are(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i, side in enumerate((20, 24, 24, 30, 40) * 4):
            pixels = generator.integers(0, 256, (side, side + 10, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    photos = str(tmp_path / "photos")
    assert load_data(photos, image_size=16).own_side == 24
    assert load_data(photos, image_size=16).own_side == 24  # from the cache
    assert load_data("lines", limit=960).own_side is None


def test_a_run_that_hardly_learned_is_told_so_and_one_that_learned_is_not(spots: Make, tmp_path: Path) -> None:
    data = spots(1200)
    said = []
    slow = {"rate": 1e-4, "epochs": 2}
    for name, settings in {"slow": slow, "whole": {"rate": 0.01, "epochs": 4}, "mixed": slow | {"mixup": 0.2}}.items():
        torch.manual_seed(2)
        net = build_net("c8b M c8b f16b", classes=3, image_size=8)
        run = train(net, data, Recipe(batch=24, **settings), tmp_path / name, device="cpu", watcher=Silent())
        evaluate(run, data)
        said.append([sentence for sentence in findings(ReportedRun(run, data)) if "underfits" in sentence])
    assert len(said[0]) == 1
    assert "Try, in this order: " in said[0][0]
    assert said[1] == said[2] == []  # of mixed images train accuracy says nothing
