"""A network of four heads, and one of a single sigmoid, from the training to the figures of each head."""

from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from convscope import Scope
from convscope.data import DataBundle, load_data
from convscope.nets import build_net
from convscope.runs import Recipe, Run, open_run
from convscope.scans import evaluate
from convscope.training import Silent, train

HEADS: dict[str, Any] = {
    "length": "sigmoid",
    "width": "sigmoid",
    "colour": "sigmoid",
    "angle": {"kind": "softmax", "weight": 2},
}
RECIPE = Recipe(optimizer="adamw", rate=0.01, batch=64, epochs=5, schedule="one-cycle")
Trained = tuple[Run, DataBundle, dict[str, Any]]


def _trained(folder: Path, task: dict[str, Any], n_outputs: int) -> Trained:
    data = load_data("lines", split="60/40", limit=4000)
    torch.manual_seed(0)
    net = build_net("c8b M c16b M c16b M f32b", classes=n_outputs, channels=3, image_size=28)
    run = train(net, data, RECIPE, folder / "run", task=task, device="cpu", watcher=Silent())
    metrics = evaluate(run, data, "cpu")
    return open_run(folder / "run"), data, metrics


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return _trained(tmp_path_factory.mktemp("four"), HEADS, 1 + 1 + 1 + 12)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return _trained(tmp_path_factory.mktemp("single"), {"colour": "sigmoid"}, 1)


def _normalised_logits(run: Run, data: DataBundle) -> torch.Tensor:
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (data.mean, data.std))
    with torch.no_grad():
        return run.net.eval()((data.test.images() - mean) / deviation)


def _predicted(logits: torch.Tensor, name: str) -> torch.Tensor:
    """By the definition: a sigmoid's second class where its logit is above 0, the largest of a softmax's twelve."""
    at = list(HEADS).index(name)
    return (logits[:, at] > 0).long() if name != "angle" else logits[:, 3:].argmax(1)


def test_the_most_frequent_class_of_each_head_and_its_share(four: Trained) -> None:
    _, data, metrics = four
    for name, head in metrics["heads"].items():
        counts = data.test.targets_of(name).bincount(minlength=len(head["classes"]))
        assert head["train_images"] == data.train.targets_of(name).bincount(minlength=len(head["classes"])).tolist()
        assert head["most_frequent"]["class"] == data.test.classes[name][int(counts.argmax())]
        assert head["most_frequent"]["share"] == pytest.approx(int(counts.max()) / len(data.test))


def test_every_head_learns(four: Trained) -> None:
    _, _, metrics = four
    accuracy = {name: head["accuracy"]["value"] for name, head in metrics["heads"].items()}
    assert list(accuracy) == list(HEADS)
    assert accuracy["colour"] > 0.95
    assert accuracy["width"] > 0.8
    assert accuracy["length"] > 0.7
    assert accuracy["angle"] > 3 / 12  # guessing: one of twelve


def test_figures_of_each_head_are_those_of_scikit_learn(four: Trained) -> None:
    run, data, metrics = four
    logits, right = _normalised_logits(run, data), torch.ones(len(data.test), dtype=torch.bool)
    for name, head in metrics["heads"].items():
        true, predicted = data.test.targets_of(name), _predicted(logits, name)
        labels = range(len(head["classes"]))
        assert head["confusion"] == confusion_matrix(true, predicted, labels=labels).tolist()
        expected = precision_recall_fscore_support(true, predicted, labels=labels, average="macro", zero_division=0)
        assert [head[key]["value"] for key in ("precision", "recall", "f1")] == pytest.approx(expected[:3])
        right &= true == predicted
    assert metrics["accuracy"]["value"] == pytest.approx(right.double().mean().item())


def test_a_reopened_run_knows_its_heads_and_their_weights(four: Trained) -> None:
    run, _, _ = four
    assert [(head.target, head.kind, head.weight) for head in run.task.heads] == [
        ("length", "sigmoid", 1), ("width", "sigmoid", 1), ("colour", "sigmoid", 1), ("angle", "softmax", 2),
    ]  # fmt: skip


def test_probabilities_of_a_scope_are_those_of_each_head(four: Trained) -> None:
    run, data, _ = four
    scope, logits = Scope(run), _normalised_logits(run, data)[:5]
    found = scope.probabilities(data.test.images(list(range(5))))
    second = 1 / (1 + (-logits[:, :3]).exp())
    expected = torch.cat([torch.stack([1 - second, second], 2).flatten(1), logits[:, 3:].softmax(1)], 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_one_sigmoid_from_the_training_to_a_lens(single: Trained) -> None:
    run, data, metrics = single
    logit = _normalised_logits(run, data)[:, 0]
    true = data.test.targets_of("colour")
    assert metrics["accuracy"]["value"] > 0.95
    assert metrics["accuracy"]["value"] == pytest.approx(((logit > 0) == true).double().mean().item())
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, true.float()).item()
    assert metrics["loss"]["value"] == pytest.approx(loss, rel=1e-4)
    scope, image = Scope(run), data.test.images([0])
    red, blue = (scope.saliency(image, name) for name in ("red", "blue"))
    assert float(red.probability + blue.probability) == pytest.approx(1)
    torch.testing.assert_close(red.values, -blue.values)


def test_the_first_head_is_asked_about_by_default(four: Trained) -> None:
    run, data, _ = four
    scope, image, place = Scope(run), data.test.images([0]), run.task.classes.index
    assert int(scope.saliency(image).target) in {place("length=7px"), place("length=15px")}
    assert int(scope.saliency(image, "angle=45°").target) == place("angle=45°")
    assert int(scope.saliency(image, ("angle", "45°")).target) == place("angle=45°")
    assert int(scope.saliency(image, "angle").target) >= place("angle=0°")
