import pytest
import torch
from torch.nn import functional as F

from convscope.errors import SettingError, UnknownNameError
from convscope.nets import HeadSpec, make_task, task_over

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


def test_a_weight_multiplies_a_heads_loss() -> None:
    plain = make_task({"width": "sigmoid", "angle": "softmax"}, CLASSES)
    weighted = make_task({"width": "sigmoid", "angle": {"kind": "softmax", "weight": 2.5}}, CLASSES)
    outputs = torch.randn(4, 5)
    targets = {"width": torch.tensor([0, 1, 1, 0]), "angle": torch.tensor([3, 2, 1, 0])}
    of_angle = F.cross_entropy(outputs[:, 1:], targets["angle"])
    torch.testing.assert_close(weighted.loss(outputs, targets), plain.loss(outputs, targets) + 1.5 * of_angle)


def test_a_head_is_written_as_short_as_can_be() -> None:
    task = {"width": HeadSpec(kind="sigmoid"), "angle": HeadSpec(weight=2)}
    assert {key: head.model_dump() for key, head in task.items()} == {
        "width": "sigmoid",
        "angle": {"kind": "softmax", "weight": 2.0},
    }


def test_classes_of_several_heads_lie_side_by_side() -> None:
    task = make_task({"width": "sigmoid", "angle": "softmax"}, CLASSES)
    assert task.classes == ("width=thin", "width=thick", "angle=0°", "angle=45°", "angle=90°", "angle=135°")
    assert [task.output_name(k) for k in range(5)] == ["width=thick", *task.classes[2:]]
    assert [task.first_class(n) for n in range(2)] == [0, 2]
    outputs = torch.randn(3, 5)
    thick = 1 / (1 + (-outputs[:, 0]).exp())
    expected = torch.cat([1 - thick[:, None], thick[:, None], outputs[:, 1:].exp()], 1)
    expected[:, 2:] /= expected[:, 2:].sum(1, keepdim=True)
    torch.testing.assert_close(task.probabilities(outputs), expected)
    scores = task.scores(outputs)  # what speaks for the class: its log-odds, where there are two
    torch.testing.assert_close(scores[:, 0], ((1 - thick) / thick).log(), rtol=1e-4, atol=1e-5)
    assert torch.equal(scores[:, 1:], outputs)


def test_a_network_that_came_without_a_task() -> None:
    assert task_over(1, ["cat", "dog"]).classes == ("cat", "dog")
    assert task_over(1).outputs == 1
    assert task_over(3, ["cat"]).classes == ("cat", "class 1", "class 2")


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
    with pytest.raises(SettingError, match="task: there is no head"):
        make_task({}, CLASSES)


@pytest.mark.parametrize(
    "head", ["sofmax", 3, {"kind": "softmax", "weight": 0}, {"wight": 2}, {"weight": float("nan")}]
)
def test_a_head_that_is_none_is_named(head: object) -> None:
    with pytest.raises(
        SettingError, match=r"^task\.angle: [^\n]* expected softmax or sigmoid, or both settings[^\n]*$"
    ):
        make_task({"angle": head}, CLASSES)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_are_torchs(smoothing: float) -> None:
    """Σ w·loss / Σ w over the images, by torch's own function and by hand."""
    task, weights = make_task("softmax", CLASSES), torch.tensor([0.5, 1, 7])
    outputs, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 1, 0, 0])
    found = task.loss(outputs, {"class": targets}, smoothing, {"class": weights})
    oracle = torch.nn.CrossEntropyLoss(weight=weights, label_smoothing=smoothing)
    torch.testing.assert_close(found, oracle(outputs, targets))
    logs = -outputs.log_softmax(1)
    of_targets = (1 - smoothing) * weights[targets] * logs[range(6), targets]
    by_hand = (of_targets + smoothing / 3 * (weights * logs).sum(1)).sum() / weights[targets].sum()
    torch.testing.assert_close(found, by_hand)


def test_a_sigmoids_class_weights_are_those_of_the_true_class() -> None:
    task, weights = make_task("sigmoid", {"class": ("cat", "dog")}), torch.tensor([0.25, 3])
    outputs, targets = torch.randn(6, 1), torch.tensor([0, 1, 1, 0, 1, 0])
    own = weights[targets]
    expected = (
        F.binary_cross_entropy_with_logits(outputs[:, 0], targets.float(), weight=own, reduction="sum") / own.sum()
    )
    torch.testing.assert_close(task.loss(outputs, {"class": targets}, class_weights={"class": weights}), expected)


def test_class_weights_of_two_heads() -> None:
    task = make_task({"width": "sigmoid", "angle": {"kind": "softmax", "weight": 2}}, CLASSES)
    outputs = torch.randn(5, 5)
    targets = {"width": torch.tensor([0, 1, 1, 0, 1]), "angle": torch.tensor([3, 2, 1, 0, 3])}
    weights = {"width": torch.tensor([2.0, 5]), "angle": torch.tensor([1.0, 2, 3, 4])}
    own = weights["width"][targets["width"]]
    of_width = F.binary_cross_entropy_with_logits(outputs[:, 0], targets["width"].float(), weight=own, reduction="sum")
    of_angle = F.cross_entropy(outputs[:, 1:], targets["angle"], weight=weights["angle"])
    torch.testing.assert_close(task.loss(outputs, targets, 0.0, weights), of_width / own.sum() + 2 * of_angle)
    equal = {target: torch.full_like(of, 3.0) for target, of in weights.items()}
    torch.testing.assert_close(task.loss(outputs, targets, 0.1, equal), task.loss(outputs, targets, 0.1))
