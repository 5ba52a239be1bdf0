"""Evaluated runs whose answers to the test images are chosen, so that figures can be worked out by hand.

The fixtures import what they need themselves: pytest loads this file before every test.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import write_spots

if TYPE_CHECKING:
    import torch

    from convscope.data import DataBundle
    from convscope.runs import Run

Plant = Callable[..., "Run"]


@pytest.fixture(scope="session")
def spotted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, DataBundle]:
    """A trained run of three classes, 120 test images, and its data."""
    from convscope.data import load_data
    from convscope.nets import build_net
    from convscope.runs import Recipe
    from convscope.training import Silent, train

    folder = tmp_path_factory.mktemp("planted")
    data = load_data(str(write_spots(folder / "spots.npz", 300)), split="60/40")
    net = build_net("c4 M f8", classes=3, channels=3, image_size=8)
    return train(net, data, Recipe(epochs=1, batch=24), folder / "run", device="cpu", watcher=Silent()), data


@pytest.fixture
def plant(spotted: tuple[Run, DataBundle], tmp_path: Path) -> Plant:
    """``plant("a", wrong=[0, 7], seed=1, width=8)``: a run in `tmp_path / "a"` that errs on these test images."""

    def make(name: str, wrong: Sequence[int] = (), seed: int = 0, sure: float = 4.0, **options: Any) -> Run:
        from convscope.runs import open_run

        trained, data = spotted
        folder = tmp_path / name
        shutil.copytree(trained.path, folder)
        run = open_run(folder)
        spec = run.spec
        changes = {
            "net": spec.net.model_copy(update={"name": "lines-net", "width": options.pop("width", 6)}),
            "recipe": spec.recipe.model_copy(update={"seed": seed, **options}),
        }
        run.write_spec(spec.model_copy(update=changes))
        answer_with(run, data, chosen_logits(data, wrong, sure))
        return open_run(folder)

    return make


@pytest.fixture
def elsewhere(tmp_path: Path, spots: Callable[..., DataBundle]) -> Run:
    """A run of the same classes on other test images."""
    from convscope.nets import build_net
    from convscope.runs import Recipe
    from convscope.scans import evaluate
    from convscope.training import Silent, train

    data = spots(150)
    run = train(
        build_net("c4 M f8", classes=3, channels=3, image_size=8), data, Recipe(epochs=1, batch=24), tmp_path / "other",
        device="cpu", watcher=Silent(),
    )  # fmt: skip
    evaluate(run, data)
    return run


def chosen_logits(data: DataBundle, wrong: Sequence[int], sure: float = 4.0) -> torch.Tensor:
    """Logits that name the right class of each test image, and of some the next one."""
    import torch

    true = data.test.targets_of()
    answers = true.clone()
    answers[list(wrong)] = (answers[list(wrong)] + 1) % len(data.classes)
    return sure * torch.nn.functional.one_hot(answers, len(data.classes)).float()


def answer_with(run: Run, data: DataBundle, logits: torch.Tensor) -> None:
    """Gives a run these answers, and evaluates it: what is stored of the same weights and data is used again."""
    import torch

    from convscope.runs import MODEL, PREDICTIONS
    from convscope.scans import evaluate

    key = {"model": hashlib.sha256((run.path / MODEL).read_bytes()).hexdigest(), "data": data.digest, "split": "test"}
    tensors = {"index": torch.arange(len(logits)), "logits": logits, "target.class": data.test.targets_of()}
    run.write_tensors(PREDICTIONS, tensors, key)
    evaluate(run, data)
