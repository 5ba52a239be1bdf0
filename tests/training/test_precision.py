"""The number format that `precision: auto` settles on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from convscope.data import DataBundle
from convscope.errors import NetworkError
from convscope.nets import build_net, make_task
from convscope.runs import Recipe, make_spec, open_run
from convscope.training import Silent, Trainer, measure_step, precision, rates, train

Make = Callable[..., DataBundle]
NET = "c8b M f16"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVSCOPE_CACHE", str(tmp_path / "cache"))


def _net() -> nn.Module:
    torch.manual_seed(0)
    return build_net(NET, classes=3, image_size=8)


def _train(out: Path, data: DataBundle, **more: Any) -> dict[str, Any]:
    recipe = Recipe(epochs=2, batch=24, rate=0.01)
    return train(_net(), data, recipe, out, device="cpu", watcher=more.pop("watcher", Silent()), **more).environment[
        "precision"
    ]


@pytest.mark.parametrize(("seconds", "expected"), [((1.0, 0.7), "bf16"), ((1.0, 0.9), "fp32"), ((1.0, 3.0), "fp32")])
def test_bf16_where_it_is_a_fifth_faster(
    spots: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, float], expected: str
) -> None:
    times = dict(zip(("fp32", "bf16"), seconds, strict=True))
    used = []
    began = Trainer.fit

    def noted(self: Trainer, *given: Any) -> None:
        used.append(self.dtype)
        began(self, *given)

    monkeypatch.setattr(precision, "has_bf16", lambda: True)
    monkeypatch.setattr(precision, "_step_seconds", lambda recipe, name, *given: times[name])
    monkeypatch.setattr(Trainer, "fit", noted)
    assert _train(tmp_path / "run", spots()) == {"format": expected, "seconds_a_step": times}
    assert used == [{"bf16": torch.bfloat16, "fp32": torch.float32}[expected]]
    assert open_run(tmp_path / "run").spec.recipe.precision == "auto"


def test_a_dry_run_measures_the_step_that_a_training_takes(
    spots: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    monkeypatch.setattr(precision, "has_bf16", lambda: True)
    monkeypatch.setattr(precision, "_step_seconds", lambda recipe, name, *given: {"fp32": 2.0, "bf16": 1.0}[name])
    monkeypatch.setattr(rates, "step_seconds", lambda trainer: used.append(trainer.dtype) or 1.0)
    measure_step(make_spec({"data": "lines", "net": NET, "recipe": {"batch": 24}}), spots(), "cpu")
    assert used == [torch.bfloat16]


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(epochs=2, batch=24, rate=0.01, train="head"),
        Recipe(
            batch=24,
            stages=[
                {"name": "a", "train": "all", "epochs": 1, "rate": 0.1},
                {"name": "b", "train": "head", "epochs": 1, "rate": 0.01},
            ],
        ),
    ],
    ids=["head", "stages"],
)
def test_steps_are_timed_of_what_learns(spots: Make, monkeypatch: pytest.MonkeyPatch, recipe: Recipe) -> None:
    """Gradients of all of a large network would not fit into the memory of a machine that trains its head."""
    net, learns = _net(), []
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}

    def noted(trainer: Trainer) -> float:
        learns.append([name for name, parameter in trainer.net.named_parameters() if parameter.requires_grad])
        return timed(trainer)

    timed = precision.step_seconds
    monkeypatch.setattr(precision, "has_bf16", lambda: True)
    monkeypatch.setattr(precision, "step_seconds", noted)
    data = spots()
    precision.settled_precision(recipe, net, data, make_task("softmax", data.train.classes), torch.device("cpu"))
    assert learns == [["fc2.weight", "fc2.bias"]] * 2
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_the_choice_is_made_once_and_kept_by_a_resumed_training(
    spots: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that later measures otherwise: the same training makes the same choice, and a resumed one does not choose."""

    class Stop(Silent):
        def step(self, epoch: int, step: int, loss: float | None) -> None:
            if epoch:
                raise KeyboardInterrupt

    monkeypatch.setattr(precision, "has_bf16", lambda: True)
    monkeypatch.setattr(precision, "_step_seconds", lambda recipe, name, *given: {"fp32": 2.0, "bf16": 1.0}[name])
    whole = _train(tmp_path / "whole", spots())
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "halves", spots(), watcher=Stop())
    monkeypatch.setattr(precision, "_step_seconds", lambda *given: 1.0)
    monkeypatch.setenv("CONVSCOPE_CACHE", str(tmp_path / "other"))
    assert whole["format"] == _train(tmp_path / "halves", spots(), resume=True)["format"] == "bf16"
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "halves")]
    assert models[0] == models[1]
    assert _train(tmp_path / "third", spots())["format"] == "fp32"
    monkeypatch.setenv("CONVSCOPE_CACHE", str(tmp_path / "cache"))
    assert _train(tmp_path / "fourth", spots()) == whole


def test_measuring_leaves_the_training_as_it_was(spots: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _train(tmp_path / "plain", spots())
    monkeypatch.setattr(precision, "has_bf16", lambda: True)
    monkeypatch.setattr(precision, "FASTER", 0.0)
    found = _train(tmp_path / "measured", spots())
    assert set(found["seconds_a_step"]) == {"fp32", "bf16"}
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "measured")]
    assert models[0] == models[1]


def test_a_network_that_fails_in_bf16_is_trained_in_fp32(
    spots: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Waves(nn.Sequential):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            outputs = super().forward(images)
            return torch.complex(outputs, outputs).abs()  # which PyTorch does not have for bf16

    monkeypatch.setattr(precision, "has_bf16", lambda: True)
    net, data, recipe = Waves(nn.Flatten(), nn.Linear(192, 3)), spots(), Recipe(epochs=1, batch=24)
    run = train(net, data, recipe, tmp_path / "run", device="cpu", watcher=Silent())
    assert run.environment["precision"]["format"] == "fp32"
    bf16 = recipe.model_copy(update={"precision": "bf16"})
    with pytest.raises(NetworkError, match=r"fails in training mode and bf16 \(recipe.precision\): Expected both"):
        train(net, data, bf16, tmp_path / "bf16", device="cpu")


def test_a_last_batch_that_is_not_full_is_not_timed(spots: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training leaves it out, and batch norm of a single image cannot be computed."""
    sizes, data = [], spots()
    step = Trainer._step

    def noted(self: Trainer, images: torch.Tensor, *given: Any) -> Any:
        sizes.append(len(images))
        return step(self, images, *given)

    monkeypatch.setattr(precision, "has_bf16", lambda: True)
    monkeypatch.setattr(Trainer, "_step", noted)
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    net(data.train.images([0, 1]))
    task, n = make_task("softmax", data.train.classes), len(data.train)
    for batch, timed in ((n - 1, n - 1), (2 * n, n)):
        sizes.clear()
        precision.settled_precision(Recipe(batch=batch, rate=0.01), net, data, task, torch.device("cpu"))
        assert set(sizes) == {timed}


def test_what_a_recipe_names_is_taken(spots: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda: pytest.fail("nothing is to be chosen"))
    run = train(
        _net(), spots(), Recipe(epochs=1, batch=24, precision="bf16"), tmp_path / "run", device="cpu", watcher=Silent()
    )
    assert run.environment["precision"] == {"format": "bf16"}


@pytest.mark.parametrize(
    ("limit", "has"),
    [("", True), ("ALL", True), ("AVX512_CORE_AMX", True), ("avx512_core_bf16", True), ("AVX2", False)],
)
def test_what_onednn_is_told_to_leave_is_not_there(limit: str, has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert precision.has_bf16() is has
