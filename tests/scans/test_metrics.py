"""Metrics against scikit-learn and torchmetrics; and merged in any order against seen at once."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score
from torchmetrics.classification import MulticlassCalibrationError

from convscope.errors import FailedError
from convscope.nets import make_task
from convscope.scans import (
    AllRight,
    BatchOutputs,
    Calibration,
    Confusion,
    ExactSum,
    Loss,
    Predictions,
    Scan,
    TopK,
    checked,
)

K, N = 12, 500
TASK = make_task("softmax", {"class": tuple(f"k{i}" for i in range(K))})
HEAD = TASK.heads[0]
MAKERS: dict[str, Callable[[], Scan]] = {
    "predictions": lambda: Predictions(TASK),
    "loss": lambda: Loss(TASK.heads),
    "all right": lambda: AllRight(TASK),
    "confusion": lambda: Confusion(HEAD),
    "top 5": lambda: TopK(HEAD),
    "calibration": lambda: Calibration(HEAD),
}


def _seen(seed: int = 0) -> BatchOutputs:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, K, (N,), generator=generator)
    outputs = torch.randn(N, K, generator=generator) + 2.5 * torch.nn.functional.one_hot(targets, K)
    return BatchOutputs(torch.arange(N), outputs, {"class": targets})


def _rows(seen: BatchOutputs, rows: torch.Tensor) -> BatchOutputs:
    return BatchOutputs(
        seen.index[rows], seen.outputs[rows], {name: target[rows] for name, target in seen.targets.items()}
    )


def _plain(result: Any) -> Any:
    """A result as nested plain values, so that `==` compares every bit."""
    if isinstance(result, dict):
        return {name: tensor.tolist() for name, tensor in result.items()}
    if hasattr(result, "tolist"):
        return result.tolist()
    return [str(part.tolist()) if hasattr(part, "tolist") else part for part in vars(result).values()]


@pytest.mark.parametrize("name", MAKERS)
def test_merging_is_exact_however_the_data_was_cut(name: str) -> None:
    seen = _seen()
    whole = MAKERS[name]()
    whole.update(seen)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    parts = []
    for rows in (order[:7], order[7:300], order[300:301], order[301:]):
        part = MAKERS[name]()
        for piece in rows.split(64):
            part.update(_rows(seen, piece))
        parts.append(part)
    merged = parts[2]
    for other in (parts[3], parts[0], parts[1]):
        merged.merge(other)
    assert _plain(merged.result()) == _plain(whole.result())


def _result(name: str) -> Any:
    scan = MAKERS[name]()
    scan.update(_seen())
    return scan.result()


def test_loss_is_scikit_learns() -> None:
    seen = _seen()
    expected = log_loss(seen.targets["class"], seen.outputs.double().softmax(1))
    assert _result("loss").value == pytest.approx(expected, abs=1e-6)


def test_confusion_is_scikit_learns() -> None:
    seen = _seen()
    expected = confusion_matrix(seen.targets["class"], seen.outputs.argmax(1))
    assert _result("confusion").tolist() == expected.tolist()


def test_top_five_is_scikit_learns() -> None:
    seen = _seen()
    assert _result("top 5").value == pytest.approx(top_k_accuracy_score(seen.targets["class"], seen.outputs, k=5))


def test_calibration_is_torchmetrics() -> None:
    seen = _seen()
    oracle = MulticlassCalibrationError(num_classes=K, n_bins=15, norm="l1")
    expected = oracle(seen.outputs.softmax(1), seen.targets["class"]).item()
    assert _result("calibration").error.value == pytest.approx(expected, abs=1e-6)


def test_calibration_by_hand() -> None:
    """Two answers at confidence 0.8, one right: the gap is 0.3; two at 0.6, both right: 0.4; the mean is 0.35."""
    logit = [math.log(p / (1 - p)) for p in (0.8, 0.8, 0.6, 0.6)]
    outputs = torch.tensor([[value, 0.0] for value in logit])
    scan = Calibration(make_task("softmax", {"class": ("a", "b")}).heads[0])
    scan.update(BatchOutputs(torch.arange(4), outputs, {"class": torch.tensor([0, 1, 0, 0])}))
    assert scan.result().error.value == pytest.approx(0.35, abs=1e-6)
    assert scan.result().count.sum() == 4


def test_a_confidence_on_an_edge_belongs_to_the_bin_below() -> None:
    """Equal logits of k classes give 1/k to the bit: of four bins (a, b], 1/4 is in the first and 1/2 in the second."""
    task = make_task("softmax", {"class": ("a", "b", "c", "d")})
    scan, far = Calibration(task.heads[0], bins=4), -1000.0
    outputs = torch.tensor([[0.0, 0, 0, 0], [0, 0, far, far], [0, 0, far, far], [0, far, far, far]])
    scan.update(BatchOutputs(torch.arange(4), outputs, {"class": torch.tensor([0, 0, 1, 1])}))
    found = scan.result()
    assert found.count.tolist() == [1, 2, 0, 1]
    assert found.confidence[[0, 1, 3]].tolist() == [0.25, 0.5, 1]
    assert found.accuracy[[0, 1, 3]].tolist() == [1, 0.5, 0]
    # gaps of 0.75, 0 and 1, in bins of 1, 2 and 1 of the 4 images
    assert found.error.value == (0.75 + 0 + 1) / 4


def test_predictions_come_out_in_the_order_of_the_images() -> None:
    seen = _seen()
    scan = Predictions(TASK)
    for rows in torch.arange(N).flip(0).split(99):
        scan.update(_rows(seen, rows))
    found = scan.result()
    assert torch.equal(found["logits"], seen.outputs)
    assert torch.equal(found["target.class"], seen.targets["class"])


@pytest.mark.parametrize("values", [[1e-9, 3e4, 5.6e-5] * 400, [0.0], [1e300, -1e300, 1e-300]])
def test_sums_are_exact(values: list[float]) -> None:
    total = ExactSum()
    for part in torch.tensor(values, dtype=torch.float64).split(7):
        total.add(part)
    assert total.value == math.fsum(values)


def test_broken_weights_are_refused() -> None:
    seen = _seen()
    seen.outputs[3, 2] = float("nan")
    with pytest.raises(FailedError, match="NaN or infinity; its weights are broken"):
        checked(seen)
