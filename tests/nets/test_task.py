import pytest
import torch
from torch.nn import functional as F

from convscope.errors import SettingError, UnknownNameError
from convscope.nets import make_task

CLASSES = {"class": ("a", "b", "c"), "width": ("thin", "thick"), "angle": ("0°", "45°", "90°", "135°")}


def test_one_softmax_is_cross_entropy() -> None:
    task = make_task("softmax", CLASSES)
    outputs, targets = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    assert task.outputs == 3
    expected = F.cross_entropy(outputs, targets, label_smoothing=0.1)
    torch.testing.assert_close(task.loss(outputs, {"class": targets}, 0.1), expected)


def test_one_sigmoid_is_binary_cross_entropy() -> None:
    classes = {"class": ("cat", "dog")}
    task = make_task("sigmoid", classes)
    outputs, targets = torch.randn(6, 1), torch.tensor([0, 1, 1, 0, 1, 0])
    assert task.outputs == 1
    expected = F.binary_cross_entropy_with_logits(outputs[:, 0], targets.float())
    torch.testing.assert_close(task.loss(outputs, {"class": targets}), expected)
    probabilities = task.heads[0].logits(outputs).softmax(1)
    torch.testing.assert_close(probabilities[:, 1], outputs[:, 0].sigmoid())


def test_heads_read_their_own_slices_and_add_their_losses() -> None:
    task = make_task({"width": "sigmoid", "angle": "softmax"}, CLASSES)
    outputs = torch.randn(4, 5)
    targets = {"width": torch.tensor([0, 1, 1, 0]), "angle": torch.tensor([3, 2, 1, 0])}
    assert task.outputs == 5
    expected = F.binary_cross_entropy_with_logits(outputs[:, 0], targets["width"].float())
    expected = expected + F.cross_entropy(outputs[:, 1:], targets["angle"])
    torch.testing.assert_close(task.loss(outputs, targets), expected)


def test_an_image_is_right_when_every_head_is() -> None:
    task = make_task({"width": "sigmoid", "angle": "softmax"}, CLASSES)
    outputs = torch.tensor([[3.0, 9, 0, 0, 0], [-3, 9, 0, 0, 0], [3, 0, 9, 0, 0]])  # thick 0°, thin 0°, thick 45°
    targets = {"width": torch.tensor([1, 1, 1]), "angle": torch.tensor([0, 0, 0])}
    assert task.correct(outputs, targets).tolist() == [True, False, False]


def test_what_the_data_cannot_answer() -> None:
    with pytest.raises(UnknownNameError, match="target 'colour' is not one of the data's"):
        make_task({"colour": "softmax"}, CLASSES)
    with pytest.raises(SettingError, match="a sigmoid tells 2 classes apart; 'angle' has 4"):
        make_task({"angle": "sigmoid"}, CLASSES)
