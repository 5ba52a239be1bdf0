"""Projections against scikit-learn and plain loops."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from convscope.errors import FailedError, MissingPackageError, RequestError, UnknownNameError
from convscope.nets import make_task
from convscope.runs import Run
from convscope.scans import project, write_embeddings
from convscope.scans.neighbours import largest
from convscope.scope import Scope
from tests.scans.scan_networks import CLASSES, HEIGHT, WIDTH, bytes_of, make_images, make_scope, network


def distinct(n: int = 60, seed: int = 4) -> Tensor:
    """Images no two of which are the same."""
    return torch.rand(n, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))


def unit_features(scope: Scope, images: Tensor, layer: str | None = None) -> np.ndarray:
    """By the modules themselves; of a layer with positions their mean."""
    seen: dict[str, Tensor] = {}
    module = scope.net.get_submodule(layer or "flatten")
    # a clone: an activation may be changed in place by the next module
    with module.register_forward_hook(lambda _, given, result: seen.update(result=result.clone())), torch.no_grad():
        scope.net(scope.prepare(images))
    found = seen["result"].double()
    found = found.mean(dim=(2, 3)) if found.ndim == 4 else found
    return (found / found.norm(dim=1, keepdim=True)).numpy()


def nearest_by_loop(rows: np.ndarray, i: int, cosine: bool = False) -> list[int]:
    far = [-float(rows[i] @ other) if cosine else float(np.linalg.norm(rows[i] - other)) for other in rows]
    return sorted((k for k in range(len(rows)) if k != i), key=lambda k: (far[k], k))[:10]


@pytest.mark.parametrize("layer", [None, "conv1", "relu2", "fc"])
@pytest.mark.parametrize("n", [60, 200])
def test_pca_is_that_of_scikit_learn(layer: str | None, n: int) -> None:
    """With more images than features, and with fewer: the features before the logits are 100."""
    decomposition = pytest.importorskip("sklearn.decomposition")
    scope, images = make_scope(network().eval()), distinct(n)
    found = scope.projection(images, layer)
    assert found.layer == (layer or "flatten")
    expected = decomposition.PCA(2, svd_solver="full").fit_transform(unit_features(scope, images, layer))
    for k in range(2):
        mine, theirs = found.points[:, k].double().numpy(), expected[:, k]
        assert mine[np.abs(mine).argmax()] > 0
        assert mine == pytest.approx(theirs * np.sign(mine @ theirs), abs=2e-6)  # float32 features


def test_neighbours_and_the_share_that_is_kept_are_those_of_loops() -> None:
    """Cosines to the precision of float32, in which the features are held; near ties may come in either order."""
    scope, images = make_scope(network().eval()), distinct()
    found, features = scope.projection(images), unit_features(scope, images)
    for i, (near, similarity) in enumerate(zip(found.neighbours.tolist(), found.similarity.tolist(), strict=True)):
        expected = [features[i] @ features[k] for k in nearest_by_loop(features, i, cosine=True)]
        assert len({*near} - {i}) == 10
        assert [features[i] @ features[k] for k in near] == pytest.approx(expected, abs=1e-6)
        assert similarity == pytest.approx(expected, abs=1e-6)
    points = found.points.double().numpy()
    shares = [len({*near} & {*nearest_by_loop(points, i)}) / 10 for i, near in enumerate(found.neighbours.tolist())]
    assert found.kept == pytest.approx(sum(shares) / len(shares))
    assert 0.1 < found.kept < 0.9


def test_equal_images_are_neighbours_in_order_and_never_their_own() -> None:
    """`make_images` holds image 3 six times."""
    found = make_scope().projection(make_images(50))
    assert found.neighbours[25, :5].tolist() == [3, 26, 27, 28, 29]
    assert all(i not in row for i, row in enumerate(found.neighbours.tolist()))


def test_the_largest_of_a_table_with_ties() -> None:
    values = torch.randint(0, 4, (40, 23), generator=torch.Generator().manual_seed(0)).float()
    top, columns = largest(values, 6)
    expected = values.sort(dim=1, descending=True, stable=True)
    assert top.equal(expected.values[:, :6])
    assert columns.equal(expected.indices[:, :6])


def test_tsne_is_that_of_scikit_learn_and_the_same_again() -> None:
    manifold = pytest.importorskip("sklearn.manifold")
    limits = pytest.importorskip("threadpoolctl")
    scope, images = make_scope(network().eval()), distinct(50)
    first, second = (scope.projection(images, method="tsne") for _ in range(2))
    assert bytes_of(first) == bytes_of(second)
    model = manifold.TSNE(init="pca", perplexity=49 / 3, random_state=0)
    with limits.threadpool_limits(1):
        expected = model.fit_transform(scope.embeddings(images).features.numpy())
    assert (first.points.numpy() == expected).all()


def test_of_many_images_some_are_shown_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules["convscope.scans.projection"].MOST_SHOWN, "pca", 8)
    found = make_scope().projection(make_images(50))
    assert found.index.tolist() == [0, 7, 14, 21, 28, 35, 42, 49]
    assert found.neighbours.shape == (8, 7)
    assert found.table()["index"].tolist() == found.index.tolist()


def test_without_scikit_learn_pca_is_there_and_tsne_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sklearn", "sklearn.manifold"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("convscope.base.optional.find_spec", lambda name: None)
    assert make_scope().projection(distinct()).method == "pca"
    with pytest.raises(MissingPackageError, match=r"^t-SNE needs .*'scikit-learn'.*pip install 'convscope\[map\]'$"):
        make_scope().projection(distinct(), method="tsne")


def test_kept_in_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = SimpleNamespace(
        net=network().eval(), classes=CLASSES, normalization=None, input_shape=(3, HEIGHT, WIDTH), path=tmp_path,
        task=make_task("softmax", {"class": CLASSES}),
    )  # fmt: skip
    first = Scope(run).projection(make_images(), "conv1", progress=False)
    default = Scope(run).projection(make_images(), progress=False)
    with monkeypatch.context() as patched:
        patched.setattr("convscope.scans.projection._nearest_others", None)
        second = Scope(run).projection(make_images(), "conv1", progress=False)
    assert bytes_of(second) == bytes_of(first)
    assert (second.layer, default.layer) == ("conv1", "flatten")
    assert len(list((tmp_path / "scans").glob("embeddings-*.json"))) == 2
    assert len(list((tmp_path / "scans").glob("projection-*.json"))) == 2


def test_the_file_for_other_viewers(reported: Run) -> None:
    data = reported.load_data()
    shown = Scope(reported).projection(data.test)
    path = write_embeddings(reported, data.test, shown)
    try:
        table = pd.read_parquet(path)
    finally:
        path.unlink()
    assert path.name == "embeddings.parquet"
    assert list(table) == ["index", "name", "class", "predicted", "confidence", "x", "y", "neighbors"]
    answers = pd.read_parquet(reported.path / "predictions.parquet")
    assert table["name"].tolist() == answers["name"].tolist()
    assert table["class"].tolist() == answers["target"].tolist()
    assert table["predicted"].tolist() == answers["predicted"].tolist()
    assert table["confidence"].tolist() == pytest.approx(answers.filter(like="p(").max(axis=1).tolist())
    assert table["y"].tolist() == shown.points[:, 1].tolist()
    neighbours = table["neighbors"][4]
    assert set(neighbours) == {"ids", "distances"}
    assert list(neighbours["ids"]) == shown.neighbours[4].tolist()
    assert list(neighbours["distances"]) == pytest.approx((1 - shown.similarity[4]).tolist())


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"layer": "conv9"}, UnknownNameError, "conv9"),
        ({"method": "umap"}, UnknownNameError, "method 'umap' is not one of a projection's; .*pca, tsne"),
        ({"images": distinct(2)}, RequestError, "a map shows three images or more, and there are 2"),
        ({"images": distinct(1).expand(5, -1, -1, -1)}, RequestError, "'flatten' gives the same features for all images"),
    ],
)  # fmt: skip
def test_wrong_requests(asked: dict[str, object], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        project(make_scope(), **({"images": distinct()} | asked))  # type: ignore[arg-type]


def test_a_layer_of_one_unit_and_numbers_that_overflow() -> None:
    net = nn.Sequential(nn.Conv2d(3, 1, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3)).eval()
    with pytest.raises(RequestError, match="gives one number for an image, of which there is no map"):
        Scope(net, torch.zeros(1, 3, HEIGHT, WIDTH)).projection(distinct())
    overflowing = network().eval()
    with torch.no_grad():
        overflowing.conv1.weight.mul_(1e36)
        overflowing.conv2.weight.mul_(1e36)
    with pytest.raises(FailedError, match="'conv2' gives NaN or infinity"):
        make_scope(overflowing).projection(distinct(), "conv2")
