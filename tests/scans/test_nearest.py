"""Nearest images by the features before the logits, against hooks and plain loops."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from convscope.errors import RequestError
from convscope.nets import make_task
from convscope.runs import Run
from convscope.scans import embeddings, nearest
from convscope.scope import Scope
from tests.scans.scan_networks import CLASSES, HEIGHT, WIDTH, bytes_of, make_images, make_scope, network


def features_of(scope: Scope, images: Tensor) -> list[list[float]]:
    """What the last dense layer is given, by a hook."""
    seen: list[Tensor] = []
    with scope.net.fc.register_forward_pre_hook(lambda module, given: seen.append(given[0])), torch.no_grad():
        scope.net(scope.prepare(images))
    return seen[0].double().tolist()


def cosine(a: list[float], b: list[float]) -> float:
    def length(v: list[float]) -> float:
        return sum(x * x for x in v) ** 0.5

    return sum(x * y for x, y in zip(a, b, strict=True)) / (length(a) * length(b))


def test_nearest_are_those_of_a_loop() -> None:
    scope, among, asked = make_scope(network().eval()), make_images(40, seed=1), make_images(6, seed=2)
    found = scope.nearest(asked, among, 5, batch_size=16, progress=False)
    train, test = features_of(scope, among.images()), features_of(scope, asked.images())
    for row, each in enumerate(test):
        ranked = sorted(((cosine(each, other), -i) for i, other in enumerate(train)), reverse=True)
        assert found.similarity[row].tolist() == pytest.approx([value for value, _ in ranked[:5]], abs=1e-6)
        for i, value in zip(found.index[row].tolist(), found.similarity[row].tolist(), strict=True):
            assert cosine(each, train[i]) == pytest.approx(value, abs=1e-6)


def test_an_image_is_nearest_to_itself_and_ties_keep_their_order() -> None:
    """`make_images` holds image 3 six times."""
    scope, among = make_scope(), make_images(50)
    found = nearest(scope, among.images([7, 3]), among, 7)
    assert found.index[0, 0] == 7
    assert found.similarity[:, 0].tolist() == pytest.approx([1, 1], abs=1e-6)
    assert found.index[1, :6].tolist() == [3, 25, 26, 27, 28, 29]


def test_of_a_large_set_some_are_looked_at_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convscope.scans.neighbours.MOST", 8)
    scope, among = make_scope(), make_images(50)
    found = scope.nearest(among.images([14]), among, 20)
    assert sorted(found.index[0].tolist()) == [0, 7, 14, 21, 28, 35, 42, 49]
    assert found.index[0, 0] == 14


def test_features_before_a_pooled_convolution_and_of_zeros() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        net[0].bias.fill_(-100)
    found = embeddings(Scope(net.eval(), torch.zeros(1, 3, HEIGHT, WIDTH)), make_images(5))
    assert found.layer == "1"
    assert found.features.shape == (5, 4 * (HEIGHT - 2) * (WIDTH - 2))
    assert bool((found.features == 0).all())


def test_kept_in_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = SimpleNamespace(
        net=network().eval(), classes=CLASSES, normalization=None, input_shape=(3, HEIGHT, WIDTH), path=tmp_path,
        task=make_task("softmax", {"class": CLASSES}),
    )  # fmt: skip
    first = Scope(run).embeddings(make_images(), progress=False)
    with monkeypatch.context() as patched:
        patched.setattr("convscope.scans.neighbours._Embedding.update", None)
        second = Scope(run).embeddings(make_images(), progress=False)
    assert bytes_of(second) == bytes_of(first)
    assert second.layer == "flatten"
    Scope(run).embeddings(make_images().images([0]))
    assert len(list((tmp_path / "scans").glob("embeddings-*.json"))) == 1


def test_of_a_trained_run(reported: Run) -> None:
    scope, data = Scope(reported), reported.load_data()
    found = scope.nearest(data.test, data.train, 3)
    labels = data.train.targets_of()[found.index[:, 0]]
    assert float((labels == data.test.targets_of()).double().mean()) > 0.6  # of three classes


@pytest.mark.usefixtures("annotations_unchecked")
def test_wrong_requests() -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * HEIGHT * WIDTH, 3))
    with pytest.raises(RequestError, match="n: 0 is out of range; give 1 or more"):
        make_scope().nearest(make_images(), make_images(), 0)
    with pytest.raises(RequestError, match="among: a Tensor; expected a set of images"):
        make_scope().nearest(make_images(), make_images().images())  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="setting 'm' is not one of this scan's; there is n, batch_size"):
        make_scope().nearest(make_images(), make_images(), m=3)  # type: ignore[call-arg]
    bare = nn.Sequential(nn.Conv2d(3, 3, (HEIGHT, WIDTH)), nn.Flatten())
    with pytest.raises(RequestError, match="reads its logits from the image itself"):
        embeddings(Scope(bare.eval(), torch.zeros(1, 3, HEIGHT, WIDTH)), make_images())
    assert embeddings(Scope(linear.eval(), torch.zeros(1, 3, HEIGHT, WIDTH)), make_images()).layer == "0"
