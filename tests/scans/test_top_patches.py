"""Top patches against brute force (store everything, sort), answers by hand, and planted truths."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from convscope.data import load_data
from convscope.errors import RequestError, SettingError, UnknownNameError
from convscope.nets import build_net
from convscope.scans.top_patches import NONE, indices_of, ranks, values_of
from convscope.scope import Scope
from tests.graph.graph_networks import Hierarchical
from tests.scans.scan_networks import bytes_of, make_images, make_scope


def brute_force(maps: Tensor, labels: Tensor, top: int, score: str, boxes: Tensor) -> list[list[tuple]]:
    """For each unit (image, response, activation, row, column, box, label), strongest first, by plain sorting."""
    responses = {"sum": maps.sum((2, 3)), "max": maps.amax((2, 3)), "mean": maps.mean((2, 3))}[score]
    found = []
    for unit in range(maps.shape[1]):
        order = sorted(range(len(maps)), key=lambda i: (-float(responses[i, unit]), i))[:top]
        rows = []
        for i in order if float(maps[:, unit].max()) > 0 else []:
            place = int(maps[i, unit].flatten().argmax())
            row, column = divmod(place, maps.shape[3])
            box = tuple(boxes[:, row, column].tolist())
            rows.append((i, float(responses[i, unit]), float(maps[i, unit].max()), row, column, *box, int(labels[i])))
        found.append(rows)
    return found


def as_rows(found: object, labels: Tensor) -> list[list[tuple]]:
    return [
        [
            (i, r, a, *p, *b, int(labels[i]))
            for i, r, a, p, b in zip(
                *(
                    getattr(found, name)[unit, :n].tolist()
                    for name in ("index", "response", "activation", "position", "box")
                ),
                strict=True,
            )
        ]
        for unit, n in enumerate(found.count.tolist())
    ]


@pytest.mark.parametrize("score", ["sum", "max", "mean"])
@pytest.mark.parametrize("before_relu", [True, False])
def test_brute_force(score: str, before_relu: bool) -> None:
    scope, images = make_scope(), make_images()
    found = scope.top_patches(images, ["conv*"], 7, score=score, before_relu=before_relu, batch_size=8)
    for layer, looked_at in (
        [("conv1", "conv1"), ("conv2", "conv2")] if before_relu else [("conv1", "relu1"), ("conv2", "relu2")]
    ):
        parts = [scope.activations(images.images(slice(i, i + 8)), [looked_at])[looked_at] for i in range(0, 50, 8)]
        maps, labels, boxes = torch.cat(parts), images.targets_of(), scope.receptive_field(looked_at).boxes
        expected = brute_force(maps, labels, 7, score, boxes)
        record = found[layer]
        assert record.looked_at == looked_at
        assert as_rows(record, labels) == expected
        counts = [[sum(row[-1] == k for row in rows) for k in range(3)] for rows in expected]
        assert record.class_counts.tolist() == counts
        responses = {"sum": maps.sum((2, 3)), "max": maps.amax((2, 3)), "mean": maps.mean((2, 3))}[score]
        assert torch.equal(record.largest, responses.amax(0))
        # to the rounding of doubles: both add the same float32 responses
        torch.testing.assert_close(record.mean, responses.double().mean(0), rtol=1e-14, atol=1e-14)


def test_positions_of_a_hierarchical_transformer() -> None:
    """Rows and columns of units that come last; those of shifted windows are at their places in the image again."""
    images = torch.rand(9, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    scope = Scope(Hierarchical(), torch.zeros(1, 3, 16, 24))
    found = scope.top_patches(images, ["block1.add", "block2.roll", "norm"], 4, score="max", batch_size=9)
    for layer, shift in (("block1.add", 0), ("block2.roll", 1), ("norm", 0)):
        maps = scope.activations(images, [layer])[layer].permute(0, 3, 1, 2).roll((shift, shift), (2, 3))
        boxes = scope.receptive_field(layer).boxes
        assert as_rows(found[layer], torch.zeros(9)) == brute_force(maps, torch.zeros(9), 4, "max", boxes)
    row, column = found["block1.add"].position[0, 0].tolist()
    top, left = row // 2 * 4, column // 2 * 4  # windows of 2×2 positions, of 2×2 pixels each
    assert found["block1.add"].box[0, 0].tolist() == [top, left, top + 4, left + 4]
    assert found["block1.add"].patches(images, 0)[0].shape == (3, 4, 4)


def test_a_dead_unit_has_no_patches_and_says_so() -> None:
    found = make_scope().top_patches(make_images(), "conv1", 3, before_relu=False)["conv1"]
    assert found.fired.tolist() == [True, True, False, True, True, True]
    assert found.count.tolist() == [3, 3, 0, 3, 3, 3]
    assert found.index[2].tolist() == [-1] * 3
    assert found.response[2].isnan().all()
    assert found.class_counts[2].sum() == 0
    assert found.patches(make_images(), 2) == []


def test_equal_responses_are_ordered_by_index_and_copies_agree() -> None:
    """Images 3 and 25 … 29 have the same pixels; units 1 and 4 of conv1 the same filter."""
    found = make_scope().top_patches(make_images(), ["conv1"], 50, batch_size=7)["conv1"]
    for order in found.index.tolist():
        if 3 in order:
            at = order.index(3)
            assert order[at : at + 6] == [3, 25, 26, 27, 28, 29]
    assert torch.equal(found.index[1], found.index[4])


def bright_spot() -> Scope:
    """One unit that is the grey value of a pixel at stride 1; its field is the pixel and its right neighbour."""
    net = nn.Sequential(nn.Conv2d(1, 1, (1, 2), bias=False))
    with torch.no_grad():
        net[0].weight[:] = torch.tensor([[[[1.0, 0.5]]]])
    return Scope(net, torch.zeros(1, 1, 2, 3))


def test_by_hand() -> None:
    images = torch.tensor([[[[0.0, 0.0, 0.0], [0.0, 0.5, 0.25]]], [[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]]])
    found = bright_spot().top_patches(images, ["conv"], 3, score="max")["0"]
    # maps: [[0, 0], [0.25, 0.625]] and [[1, 0], [0, 0.5]]
    assert (found.index.tolist(), found.response[0, :2].tolist()) == ([[1, 0, -1]], [1.0, 0.625])
    assert found.position[0, :2].tolist() == [[0, 0], [1, 1]]
    assert found.box[0, :2].tolist() == [[0, 0, 1, 2], [1, 1, 2, 3]]
    assert [patch.tolist() for patch in found.patches(images, 0)] == [[[[1.0, 0.0]]], [[[0.5, 0.25]]]]
    assert (found.mean.tolist(), found.class_counts, found.n_images) == ([0.8125], None, 2)
    assert found.table().values.tolist() == [
        ["0", 0, 0, 1, 1.0, 1.0, 0, 0, 0, 0, 1, 2], ["0", 0, 1, 0, 0.625, 0.625, 1, 1, 1, 1, 2, 3],
    ]  # fmt: skip


def test_one_class_only() -> None:
    scope, images = make_scope(), make_images()
    rows = (images.targets_of() == 1).nonzero()[:, 0]
    found = scope.top_patches(images, ["conv2"], 5, of_class="b", batch_size=50)["conv2"]
    alone = scope.top_patches(images.subset(rows), ["conv2"], 5, batch_size=50)["conv2"]
    assert found.fired.any()
    assert torch.equal(found.index[found.fired], rows[alone.index[alone.fired]])
    assert torch.equal(found.response[found.fired], alone.response[alone.fired])
    assert found.n_images == len(rows)
    assert found.class_counts[:, 1].tolist() == found.count.tolist()


def test_neurons_without_positions_see_what_their_layer_sees() -> None:
    found = make_scope().top_patches(make_images(), ["fc"], 2)["fc"]
    assert found.box[found.fired].unique(dim=0).shape[0] == 1
    assert found.patches(make_images(), int(found.fired.nonzero()[0]))[0].shape == (3, 9, 12)


def test_ranks_order_as_values_and_then_indices() -> None:
    values = torch.tensor([[-torch.inf, -2.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, 3e38]])
    index = torch.tensor([5, 4, 3, 2, 2**31, 1, 0, 7])
    found = ranks(values, index)
    assert found[0].argsort().tolist() == [0, 1, 2, 4, 3, 5, 6, 7]
    assert torch.equal(values_of(found), values + 0.0)
    assert torch.equal(indices_of(found)[0], index)
    nothing = torch.tensor([NONE])
    assert values_of(nothing).isnan().all()
    assert indices_of(nothing).tolist() == [-1]


def test_real_images(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVSCOPE_DATA", str(real_data))
    images = load_data("cifar10", limit=2000).test.subset(slice(0, 150))
    torch.manual_seed(0)
    scope = Scope(build_net("c8b M c12b M f10", classes=10, image_size=32), torch.zeros(1, 3, 32, 32))
    found = scope.top_patches(images, ["conv2"], 20, batch_size=32)["conv2"]
    maps = torch.cat(
        [scope.activations(images.images(slice(i, i + 32)), ["conv2"])["conv2"] for i in range(0, 150, 32)]
    )
    labels = images.targets_of()
    assert as_rows(found, labels) == brute_force(maps, labels, 20, "sum", scope.receptive_field("conv2").boxes)


def test_bad_requests() -> None:
    scope, images = make_scope(), make_images()
    with pytest.raises(UnknownNameError, match="layer 'conv9' is not in this network"):
        scope.top_patches(images, ["conv9"])
    with pytest.raises(RequestError, match="no ReLU follows layer 'fc' alone"):
        scope.top_patches(images, ["fc"], before_relu=False)
    with pytest.raises(RequestError, match="of_class: 'z' is no class of these images; there is a, b, c"):
        scope.top_patches(images, ["conv1"], of_class="z")
    with pytest.raises(SettingError, match="of_class: 3 is no class; there is 0 to 2"):
        scope.top_patches(images, ["conv1"], of_class=3)
    with pytest.raises(RequestError, match="the images came without classes; give an ImageSet"):
        scope.top_patches(images.images(), ["conv1"], of_class=1)
    with pytest.raises(SettingError, match="top: 0 is out of range"):
        scope.top_patches(images, ["conv1"], top=0)
    found = scope.top_patches(images, ["conv1"], 2)["conv1"]
    with pytest.raises(RequestError, match="unit 6 is not in layer 'conv1'; it has 0 to 5"):
        found.patches(images, 6)
    with pytest.raises(RequestError, match="give those that were scanned"):
        found.patches(images.subset([0]), 0)


def test_twice_the_same_bytes() -> None:
    first, second = (make_scope().top_patches(make_images(), ["conv*"])["conv2"] for _ in range(2))
    assert bytes_of(first) == bytes_of(second)
