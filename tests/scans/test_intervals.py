import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats
from sklearn.metrics import f1_score, precision_recall_fscore_support

from convscope.scans import (
    Estimate,
    bootstrap,
    difference,
    f_score,
    mean,
    mean_of,
    mean_over_classes,
    paired_difference,
    proportion,
)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_proportion_is_wilsons_interval(counts: tuple[int, int]) -> None:
    right, n = counts
    found = proportion(right, n)
    expected = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert found.value == right / n
    assert found.low == pytest.approx(expected.low, abs=1e-12)
    assert found.high == pytest.approx(expected.high, abs=1e-12)


def test_a_share_of_nothing_is_not_defined() -> None:
    assert proportion(0, 0).value is None
    assert f_score(0, 0, 0).value is None


def test_f_score_is_scikit_learns() -> None:
    true, predicted = np.array([1, 1, 1, 1, 0, 0, 0, 1, 0, 0]), np.array([1, 0, 1, 1, 1, 0, 0, 1, 0, 1])
    right = int(((true == 1) & (predicted == 1)).sum())
    found = f_score(right, int(predicted.sum()), int(true.sum()))
    assert found.value == pytest.approx(f1_score(true, predicted))
    assert 0 < found.low < found.value < found.high < 1


@pytest.mark.parametrize("n", [2, 3, 4, 7, 30, 201, 202, 5000])
def test_the_mean_of_images_is_students_interval(n: int) -> None:
    values = np.random.default_rng(n).exponential(size=n)
    found = mean_of(values.tolist())
    low, high = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12 * (high - low))


def test_the_mean_of_few_images() -> None:
    assert mean_of([]).value is None
    single = mean_of([0.3])
    assert (single.value, single.low, single.high) == (0.3, None, None)
    assert mean_of([0.0, 0.1, 0.9], 0, 1).low == 0
    assert mean_of([0.5, 0.5]).figures == (0.5, 0.5, 0.5)


def test_mean_is_the_normal_interval() -> None:
    values = np.random.default_rng(0).exponential(size=400)
    assert mean(0.5, 0.25, 1) == Estimate(0.5, None, None)
    found = mean(values.sum(), (values**2).sum(), len(values))
    low, high = stats.norm.interval(0.95, values.mean(), stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), low, high))


def test_a_means_interval_stays_within_what_a_value_can_be() -> None:
    """A loss of one image in a hundred: below the mean of 0.05 by a standard error there are no losses."""
    assert mean(5.0, 25.0, 100, lowest=0).low == 0
    assert mean(-5.0, 25.0, 100, highest=0).high == 0


def test_difference_is_newcombes_example() -> None:
    """Newcombe 1998, table II, (a): 56/70 - 48/80 = 0.2 with 0.0524 to 0.3339 by method 10."""
    found = difference(proportion(56, 70), proportion(48, 80))
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


def test_bootstrap_of_a_share_agrees_with_scipys() -> None:
    counts = np.array([150, 50])
    found = bootstrap(counts, lambda tables: tables[:, 0] / tables.sum(1))
    data = (np.repeat([1.0, 0.0], counts),)
    expected = stats.bootstrap(data, np.mean, n_resamples=3000, method="percentile", rng=1).confidence_interval
    assert found.value == 0.75
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_bootstrap_covers_the_truth_as_often_as_it_says() -> None:
    """Of 300 samples of 200 images the 95 % interval must hold the true share in 95 %: 300 × 0.95 ± 4 standard errors."""
    draws = np.random.default_rng(7).binomial(200, 0.7, size=300)
    held = 0
    for right in draws:
        found = bootstrap(np.array([right, 200 - right]), lambda tables: tables[:, 0] / tables.sum(1))
        held += found.low <= 0.7 <= found.high
    assert 285 - 4 * (300 * 0.95 * 0.05) ** 0.5 <= held <= 300


def test_the_mean_of_one_class_has_the_classs_interval() -> None:
    one = proportion(7, 9)
    assert mean_over_classes([one]) == one


def test_a_mean_without_any_error_keeps_a_width() -> None:
    found = mean_over_classes([proportion(50, 50)] * 4)
    assert found.value == found.high == 1
    assert 0.95 < found.low < 0.99


@pytest.mark.parametrize("accuracy", [0.6, 0.95])
def test_means_over_classes_cover_the_truth_as_often_as_they_say(accuracy: float) -> None:
    """Confusion matrices of 4 classes × 60 images, drawn 400 times; recall's, precision's and F1's mean must be held."""
    generator = np.random.default_rng(5)
    chances = np.full((4, 4), (1 - accuracy) / 3)
    np.fill_diagonal(chances, accuracy)
    held = dict.fromkeys(("recall", "precision", "f1"), 0)
    for _ in range(400):
        matrix = np.stack([generator.multinomial(60, row) for row in chances])
        for key, estimate in _means(matrix).items():  # by symmetry all three means are the accuracy
            held[key] += estimate.low <= accuracy <= estimate.high
    least = 380 - 4 * (400 * 0.95 * 0.05) ** 0.5
    assert all(count >= least for count in held.values()), held


@settings(deadline=None)  # scikit-learn is slow at first
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
def test_means_over_classes_are_scikit_learns_of_the_classes_that_have_the_figure(
    answers: list[tuple[int, int]],
) -> None:
    """Of five classes, some without images, some never predicted, some neither."""
    true, predicted = np.array(answers).T
    expected = precision_recall_fscore_support(true, predicted, labels=range(5), average="macro", zero_division=np.nan)
    matrix = np.zeros((5, 5), int)
    np.add.at(matrix, (true, predicted), 1)
    found = _means(matrix)
    assert [found[key].value for key in ("precision", "recall", "f1")] == pytest.approx(expected[:3])
    assert all(0 <= one.low <= one.value <= one.high <= 1 for one in found.values())


def test_a_class_without_images_and_predictions_is_left_out() -> None:
    """60 of 60 right, a third class absent: as if there were two classes."""
    for found in _means(np.diag([30, 30, 0])).values():
        assert found == mean_over_classes([proportion(30, 30)] * 2) or found.value == 1 == found.high
        assert 0.9 < found.low < 1


def test_a_precision_that_was_not_seen_is_anything_from_0_to_1() -> None:
    """Of two classes the second is never predicted: (1/2 + p) / 2 for a p from 0 to 1, and the first's own chance."""
    found = mean_over_classes([proportion(500, 1000), proportion(0, 0)], unknown=1)
    assert found.value == 0.5
    assert 0.24 < found.low < 0.25
    assert 0.75 < found.high < 0.76
    assert mean_over_classes([proportion(0, 0)]).value is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("predicted", "images"),
    [((0.45, 0.45, 0.1), 20), ((0.6, 0.39, 0.01), 60), ((0.5, 0.49, 0.01), 300), ((0.5, 0.5, 0.0), 60)],
)
def test_the_mean_precision_covers_the_truth_where_a_class_is_rarely_predicted(
    predicted: tuple[float, ...], images: int
) -> None:
    """Each predicted class is right in 9 of 10 images, the rare one in 4 of 10; the truth is the mean over the classes that
    the network predicts at all. 2,000 samples; at least 95 % - 4 standard errors are held. With the rare class's precision
    taken as exactly 0 where it was not seen the second case is held in 42 %, with that class left out in 51 %."""
    generator, precisions = np.random.default_rng(3), (0.9, 0.9, 0.4)
    truth = float(np.mean([p for p, share in zip(precisions, predicted, strict=True) if share]))
    joint = np.array([
        [share * (p if true == k else (1 - p) / 2) for k, (p, share) in enumerate(zip(precisions, predicted, strict=True))]
        for true in range(3)
    ])  # fmt: skip
    held = 0
    for _ in range(2000):
        found = _means(generator.multinomial(images, joint.ravel()).reshape(3, 3))["precision"]
        held += found.low <= truth <= found.high
    assert held >= 1900 - 4 * (2000 * 0.95 * 0.05) ** 0.5


def _means(matrix: np.ndarray) -> dict[str, Estimate]:
    """As an evaluation makes them of a confusion matrix: rows true classes, columns predicted ones."""
    right, images, predicted = (counts.tolist() for counts in (matrix.diagonal(), matrix.sum(1), matrix.sum(0)))
    unknown = sum(n > 0 and not p for n, p in zip(images, predicted, strict=True))
    return {
        "precision": mean_over_classes(list(map(proportion, right, predicted)), unknown=unknown),
        "recall": mean_over_classes(list(map(proportion, right, images))),
        "f1": mean_over_classes(list(map(f_score, right, predicted, images)), 2),
    }


def test_a_paired_difference_is_the_published_example() -> None:
    """Altman et al. 2000, "Statistics with Confidence", table 6.2: 0.122 with 0.011 to 0.226."""
    found = paired_difference(14, 5, 0, 22)
    assert [round(figure, 3) for figure in found.figures] == [0.122, 0.011, 0.226]


@given(st.tuples(*[st.integers(0, 60)] * 4))
def test_a_paired_difference_does_not_mind_which_way_is_first(counts: tuple[int, int, int, int]) -> None:
    both, first, second, neither = counts
    found, turned = paired_difference(both, first, second, neither), paired_difference(both, second, first, neither)
    wrong_for_right = paired_difference(neither, second, first, both)
    if not sum(counts):
        assert found.value is None
        return
    assert found.value == (first - second) / sum(counts)
    assert -1 - 1e-12 <= found.low <= found.value <= found.high <= 1 + 1e-12
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    assert wrong_for_right.figures == pytest.approx(turned.figures)


@pytest.mark.slow
def test_a_paired_difference_covers_the_truth_as_often_as_it_says() -> None:
    """Of all outcomes of 30 images, weighed by their probability: 95 % to within 2.5 %."""
    n, shares = 30, (0.6, 0.15, 0.05, 0.2)
    covered = 0.0
    for a in range(n + 1):
        for b in range(n + 1 - a):
            for c in range(n + 1 - a - b):
                counts = (a, b, c, n - a - b - c)
                found = paired_difference(*counts)
                covered += (found.low <= 0.1 <= found.high) * float(stats.multinomial.pmf(counts, n, shares))
    assert 0.925 < covered < 0.975
