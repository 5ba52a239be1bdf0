import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import precision_recall_fscore_support
from torch.nn import functional as F

from convscope.data import DataBundle, load_data
from convscope.errors import FailedError, RequestError
from convscope.nets import build_net
from convscope.runs import ANSWERS, PREDICTIONS, Recipe, Run, open_run
from convscope.scans import evaluate
from convscope.scans.evaluate import _fed
from convscope.scans.metrics import AllRight
from convscope.study import table
from convscope.training import Silent, train
from tests.conftest import spots_of, write_spots
from tests.gpus import on_gpu


@pytest.fixture
def trained(spots: Callable[..., DataBundle], tmp_path: Path) -> tuple[Run, DataBundle]:
    torch.manual_seed(0)
    data = spots(240)
    net = build_net("c8b M f8", classes=3, image_size=8)
    return train(net, data, Recipe(epochs=3, batch=24), tmp_path / "run", device="cpu", watcher=Silent()), data


def test_figures_by_hand(trained: tuple[Run, DataBundle]) -> None:
    run, data = trained
    metrics = evaluate(run, data, "cpu")
    logits = run.net(
        (data.test.images() - torch.tensor(data.mean).view(3, 1, 1)) / torch.tensor(data.std).view(3, 1, 1)
    )
    targets = data.test.targets_of("class")
    assert metrics["accuracy"]["value"] == pytest.approx((logits.argmax(1) == targets).double().mean().item())
    expected = torch.nn.functional.cross_entropy(logits.detach(), targets).item()
    assert metrics["loss"]["value"] == pytest.approx(expected, rel=1e-5)
    assert sum(map(sum, metrics["heads"]["class"]["confusion"])) == len(data.test)
    difference = 100 * (metrics["train_accuracy"]["value"] - metrics["accuracy"]["value"])
    assert metrics["overfit_percent"]["value"] == pytest.approx(difference)


def test_the_test_images_are_looked_at_once(trained: tuple[Run, DataBundle], monkeypatch: pytest.MonkeyPatch) -> None:
    run, data = trained
    first = evaluate(run, data, "cpu")

    def never(*_: object) -> None:
        raise AssertionError("the network was run again")

    monkeypatch.setattr(sys.modules["convscope.scans.evaluate"], "feed", never)
    assert evaluate(open_run(run.path), data, "cpu") == first


def test_other_images_or_other_weights_are_predicted_anew(
    trained: tuple[Run, DataBundle], spots: Callable[..., DataBundle]
) -> None:
    """Also where their number is the same: stored predictions belong to one set of images and one set of weights."""
    run, data = trained
    evaluate(run, data, "cpu")
    shifted = spots(240, seed=5)
    assert len(shifted.test) == len(data.test)
    metrics = evaluate(open_run(run.path), shifted, "cpu")
    images = (shifted.test.images() - torch.tensor(data.mean).view(3, 1, 1)) / torch.tensor(data.std).view(3, 1, 1)
    targets = shifted.test.targets_of("class")
    with torch.no_grad():
        assert metrics["loss"]["value"] == pytest.approx(F.cross_entropy(run.net(images), targets).item(), rel=1e-5)
        run.net.fc2.bias.add_(torch.tensor([3.0, 0.0, 0.0]))
        expected = F.cross_entropy(run.net(images), targets).item()
    run.write_model(run.net, run.card)
    assert evaluate(open_run(run.path), shifted, "cpu")["loss"]["value"] == pytest.approx(expected, rel=1e-5)


def test_images_of_other_classes_or_another_shape_are_refused(trained: tuple[Run, DataBundle], tmp_path: Path) -> None:
    """Classes 1, 2 and 3 would be counted as the run's 0, 1 and 2."""
    run, data = trained
    others = replace(data, digest="other", test=replace(data.test, classes={"class": ("1", "2", "3")}))
    larger = load_data(str(write_spots(tmp_path / "larger.npz", 240)), image_size=9)
    for given, message in ((others, "its classes of 'class' are"), (larger, "images are 3×9×9, and .* takes 3×8×8")):
        with pytest.raises(RequestError, match=message):
            evaluate(run, given, "cpu")
    assert not run.has(PREDICTIONS)


def test_many_large_images_are_predicted_a_few_at_a_time(tmp_path: Path) -> None:
    """On a CPU, however many a training step takes."""
    images, labels = spots_of(150)
    np.savez(tmp_path / "large.npz", x=np.kron(images, np.ones((1, 28, 28, 1), np.uint8)), y=labels)
    data = load_data(str(tmp_path / "large.npz"))
    net = build_net("c2s8b M f4", classes=3, image_size=224)
    run = train(net, data, Recipe(epochs=1, batch=32), tmp_path / "run", device="cpu", watcher=Silent())
    seen: list[int] = []
    run.net.register_forward_pre_hook(lambda net, given: seen.append(len(given[0])))
    evaluate(run, data, "cpu")
    assert len(data.test) > 13
    assert max(seen) == 13


def test_damaged_predictions_are_made_again(trained: tuple[Run, DataBundle]) -> None:
    run, data = trained
    first = evaluate(run, data, "cpu")
    (run.path / PREDICTIONS).write_bytes(b"garbage")
    assert evaluate(open_run(run.path), data, "cpu") == first


def test_a_network_of_nan_has_no_figures(trained: tuple[Run, DataBundle]) -> None:
    run, data = trained
    with torch.no_grad():
        run.net.conv1.weight.fill_(float("nan"))
    run.write_model(run.net, run.card)
    with pytest.raises(FailedError, match="NaN or infinity"):
        evaluate(open_run(run.path), data, "cpu")
    assert not run.has("metrics.json")


def test_a_class_without_test_images_is_left_out_of_the_means(tmp_path: Path) -> None:
    """The third of three classes: as scikit-learn's means over the classes that are there."""
    images, targets = spots_of(150)
    few = targets != 2
    few[:90] = False
    np.savez(tmp_path / "few.npz", x_train=images[:90], y_train=targets[:90], x_test=images[few], y_test=targets[few])
    data = load_data(str(tmp_path / "few.npz"))
    torch.manual_seed(0)
    net = build_net("c8b M f8", classes=3, image_size=8)
    run = train(net, data, Recipe(epochs=12, batch=16), tmp_path / "run", device="cpu", watcher=Silent())
    metrics = evaluate(run, data, "cpu")
    head = metrics["heads"]["class"]
    true, predicted = (np.repeat(places, np.ravel(head["confusion"])) for places in np.indices((3, 3)).reshape(2, -1))
    assert set(true.tolist()) == {0, 1}
    expected = precision_recall_fscore_support(true, predicted, labels=range(3), average="macro", zero_division=np.nan)
    found = [metrics[key] for key in ("precision", "recall", "f1")]
    assert [figure["value"] for figure in found] == pytest.approx(expected[:3])
    assert metrics["accuracy"]["value"] > 0.9
    assert metrics["recall"]["value"] > 0.9
    assert metrics["recall"]["left_out"] == 1
    assert head["per_class"][2]["recall"] == {"value": None, "low": None, "high": None}
    assert table(tmp_path, metrics=["test_recall"]).attrs["notes"] == [
        "test_recall is the mean over the classes that have one: 1 of 1 runs lack some"
    ]


@on_gpu
@pytest.mark.usefixtures("full_float32")
def test_on_a_gpu_as_on_the_cpu(trained: tuple[Run, DataBundle]) -> None:
    run, data = trained
    here = evaluate(run, data, "cpu")
    (run.path / PREDICTIONS).unlink()
    there = evaluate(run, data, "cuda")
    assert there["accuracy"] == here["accuracy"]
    assert there["loss"]["value"] == pytest.approx(here["loss"]["value"], rel=1e-5)
    assert {parameter.device.type for parameter in run.net.parameters()} == {"cpu"}


def test_the_network_is_where_it_was_after_an_error(
    trained: tuple[Run, DataBundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device without numbers stands for a GPU: on it the network fails."""
    run, data = trained
    module = sys.modules["convscope.scans.evaluate"]
    monkeypatch.setattr(run.net, "forward", lambda images: 1 / 0)
    moves: list[str] = []
    monkeypatch.setattr(run.net, "to", lambda device: moves.append(str(device)) or run.net)
    monkeypatch.setattr(module, "choose_device", lambda name: torch.device("meta"))
    with pytest.raises(ZeroDivisionError):
        evaluate(run, data, "cpu")
    assert moves == ["meta", "cpu"]


def test_each_answer_stands_in_a_table_for_other_tools(trained: tuple[Run, DataBundle]) -> None:
    run, data = trained
    named = tuple(f"photos/{row:03}.png" for row in range(len(data.test.pixels)))
    data = replace(data, test=replace(data.test, names=named))
    metrics = evaluate(run, data, "cpu")

    table = pd.read_parquet(run.path / ANSWERS)

    assert table["name"].tolist() == [named[row] for row in data.test.index.tolist()]
    assert list(table) == ["split", "name", "target", "predicted", *(f"p({name})" for name in data.classes)]
    assert (table["target"] == table["predicted"]).mean() == pytest.approx(metrics["accuracy"]["value"])
    probabilities = table.iloc[:, 4:].to_numpy()
    assert probabilities == pytest.approx(run.predictions["logits"].softmax(1).numpy())
    assert [data.classes[k] for k in probabilities.argmax(1)] == table["predicted"].tolist()
    (run.path / ANSWERS).unlink()
    evaluate(run, data, "cpu")  # from the stored predictions
    pd.testing.assert_frame_equal(pd.read_parquet(run.path / ANSWERS), table)


def test_a_kill_between_predictions_and_answers_leaves_no_answers_to_other_images(
    trained: tuple[Run, DataBundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data = trained
    evaluate(run, data)
    whole = pd.read_parquet(run.path / ANSWERS)
    evaluate(run, replace(data, test=data.test.subset(torch.arange(5)), digest="other"))
    with monkeypatch.context() as killed:
        killed.setattr(Run, "write_table", lambda *given: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            evaluate(run, data)
    evaluate(run, data)
    pd.testing.assert_frame_equal(pd.read_parquet(run.path / ANSWERS), whole)


def test_a_share_of_no_batches_sees_no_image(trained: tuple[Run, DataBundle]) -> None:
    """It may not begin with the first batch, whose images another share has."""
    run, data = trained
    right = AllRight(run.task)
    before = dict(vars(right))
    _fed(data.test, run, [right], 16, "cpu", iter(()))
    assert vars(right) == before
    _fed(data.test, run, [right], 16, "cpu", iter((1,)))
    assert vars(right) != before
