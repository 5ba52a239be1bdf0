import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings, strategies as st
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from convscope.errors import RequestError
from convscope.study import Importance, compare_seeds, importance

WIDTHS, KERNELS, ACTS = (6, 12, 18), (3, 5), ("relu", "gelu")


def grid(seeds: int = 3, noise: float = 0.004, seed: int = 0) -> pd.DataFrame:
    """A run for each width, kernel, activation and seed: width matters, and at the least width the kernel."""
    rows = product(WIDTHS, KERNELS, ACTS, range(seeds))
    table = pd.DataFrame(rows, columns=["width", "kernel", "act", "seed"])
    table["accuracy"] = 0.9 + 0.001 * table.width - 0.008 * ((table.width == 6) & (table.kernel == 5))
    table["accuracy"] += np.random.default_rng(seed).normal(0, noise, len(table))
    return table


def by_name(found: Importance) -> dict[str, tuple[float, ...]]:
    return {term.name: (term.squares, term.freedom, term.f, term.p) for term in found.terms}


def test_worked_by_hand() -> None:
    """Means 2, 4, 4, 10 of a 2 × 2 grid, each cell ±1: effects of 4 and 4 (2·4·2² = 32 each), interaction 2 (8·1² = 8)."""
    cells = {(0, 0): 2, (0, 1): 4, (1, 0): 4, (1, 1): 10}
    table = pd.DataFrame([(a, b, mean + e) for (a, b), mean in cells.items() for e in (-1, 1)], columns=["a", "b", "y"])
    found = importance(table.astype({"y": float}), ["a", "b"], "y")
    assert by_name(found) == {
        "a": (pytest.approx(32), 1, pytest.approx(16), pytest.approx(0.016130, abs=1e-6)),
        "b": (pytest.approx(32), 1, pytest.approx(16), pytest.approx(0.016130, abs=1e-6)),
        "a × b": (pytest.approx(8), 1, pytest.approx(4), pytest.approx(0.116117, abs=1e-6)),
    }
    (rest,) = found.rest
    assert (rest.name, rest.squares, rest.freedom, rest.share) == ("chance", pytest.approx(8), 4, pytest.approx(0.1))
    assert [term.share for term in found.terms] == pytest.approx([0.4, 0.4, 0.1])
    assert [term.corrected_share for term in found.terms] == pytest.approx([30 / 82, 30 / 82, 6 / 82])
    assert [term.corrected_p for term in found.terms] == pytest.approx([0.048390, 0.048390, 0.116117], abs=1e-6)
    assert [term.name for term in found.matter] == ["a", "b"]
    assert found.adds_up


@pytest.mark.parametrize("dropped", [[], [0, 5, 9, 10], [1, 2, 12, 13, 20, 35]])
def test_type_ii_is_statsmodels(dropped: list[int]) -> None:
    table = grid().drop(dropped)
    expected = anova_lm(ols("accuracy ~ (C(width) + C(kernel) + C(act)) ** 2", table).fit(), typ=2)
    found = importance(table, ["width", "kernel", "act"], "accuracy")
    for term in found.terms:
        row = expected.loc[":".join(f"C({name})" for name in term.settings)]
        assert (term.squares, term.freedom) == (pytest.approx(row["sum_sq"]), row["df"])
        assert (term.f, term.p) == pytest.approx((row["F"], row["PR(>F)"]))
    assert len(found.terms) == 6
    assert sum(rest.squares for rest in found.rest) == pytest.approx(expected.loc["Residual", "sum_sq"])
    assert sum(rest.freedom for rest in found.rest) == expected.loc["Residual", "df"]
    assert found.adds_up == (not dropped)


def residual(table: pd.DataFrame, terms: list[tuple[str, ...]]) -> tuple[float, int]:
    """What least squares leaves, and the rank, with a column for each level and each combination of levels."""
    columns = [np.ones((len(table), 1))]
    for term in terms:
        level = table.groupby(list(term)).ngroup().to_numpy()
        columns.append(np.eye(level.max() + 1)[level])
    design = np.concatenate(columns, axis=1)
    fitted = design @ np.linalg.pinv(design) @ table["accuracy"].to_numpy()
    return float(((table["accuracy"] - fitted) ** 2).sum()), int(np.linalg.matrix_rank(design))


@settings(max_examples=15, deadline=None)
@given(st.sets(st.integers(0, 35), max_size=14), st.integers(0, 9))
def test_missing_runs_and_cells_are_two_fits_by_pseudoinverse(dropped: set[int], seed: int) -> None:
    table = grid(seed=seed).drop(sorted(dropped)).reset_index(drop=True)
    names = ["width", "kernel", "act"]
    found = importance(table, names, "accuracy")
    terms = [*[(n,) for n in names], ("width", "kernel"), ("width", "act"), ("kernel", "act")]
    assume(not found.not_estimable)
    for term in found.terms:
        others = [t for t in terms if not set(term.settings) <= set(t)]
        (less, fewer), (more, rank) = residual(table, others), residual(table, [*others, term.settings])
        assert term.squares == pytest.approx(less - more, abs=1e-12)
        assert term.freedom == rank - fewer
    left, rank = residual(table, terms)
    assert sum(rest.squares for rest in found.rest) == pytest.approx(left, abs=1e-12)
    assert sum(rest.freedom for rest in found.rest) == len(table) - rank


def test_a_missing_cell_is_counted_and_costs_the_interaction_a_degree() -> None:
    table = grid()
    table = table[~((table.width == 6) & (table.kernel == 5))]
    found = importance(table, ["width", "kernel"], "accuracy")
    assert (found.missing_cells, found.adds_up) == (1, False)
    assert by_name(found)["width × kernel"][1] == 1


def test_an_interaction_that_the_runs_cannot_show_is_named() -> None:
    table = grid()
    table = table[~((table.kernel == 5) & (table.act == "gelu"))]
    found = importance(table, ["kernel", "act"], "accuracy")
    assert found.not_estimable == (("kernel", "act"),)
    assert [term.name for term in found.terms if len(term.settings) == 2] == []


def test_replicates_tell_chance_from_what_was_not_fitted() -> None:
    found = importance(grid(), ["width", "kernel", "act"], "accuracy")
    assert [(rest.name, rest.freedom) for rest in found.rest] == [
        ("chance", 24),
        ("interactions of three and more settings", 2),
    ]
    within = grid().groupby(["width", "kernel", "act"])["accuracy"].var(ddof=1).sum() * 2
    assert found.rest[0].squares == pytest.approx(within)
    (rest,) = importance(grid(1), ["width", "kernel", "act"], "accuracy").rest
    assert (rest.name, rest.freedom) == ("interactions of three and more settings, and chance", 2)


def test_without_replicates_two_settings_leave_the_interaction_to_the_rest() -> None:
    table = grid(1)
    found = importance(table[table.act == "relu"], ["width", "kernel"], "accuracy")
    assert [term.name for term in found.terms] == ["width", "kernel"]
    assert (found.not_estimable, found.rest[0].name) == ((("width", "kernel"),), "interactions, and chance")


def test_a_setting_tied_to_an_interaction_is_judged_without_interactions() -> None:
    """Half of a 2 × 2 × 2 grid, chosen so that c is a times b."""
    rows = [(a, b, a * b) for a, b in product((-1, 1), (-1, 1)) for _ in range(3)]
    table = pd.DataFrame(rows, columns=["a", "b", "c"])
    table["y"] = table.a + np.random.default_rng(0).normal(size=12)
    found = importance(table, ["a", "b", "c"], "y")
    assert len(found.not_estimable) == 3
    assert sorted(term.name for term in found.terms) == ["a", "b", "c"]
    assert found.matter[0].name == "a"


def test_interactions_can_be_left_out() -> None:
    expected = anova_lm(ols("accuracy ~ C(width) + C(kernel)", grid()).fit(), typ=2)
    found = importance(grid(), ["width", "kernel"], "accuracy", interactions=False)
    assert by_name(found)["width"] == pytest.approx(tuple(expected.loc["C(width)"]))
    assert [(rest.name, rest.freedom) for rest in found.rest] == [("chance", 30), ("interactions", 2)]
    assert found.not_estimable == ()


def test_what_matters_is_found_and_nothing_else() -> None:
    found = importance(grid(seeds=5), ["kernel", "act", "width"], "accuracy")
    assert found.terms[0].name == "width"
    assert {term.name for term in found.matter} == {"width", "kernel", "kernel × width"}


def test_settings_that_do_not_matter_are_told_apart_as_often_as_said() -> None:
    """500 grids of noise, 2 runs lost of each: 5 % of the tests err, and 5 % of the grids by the corrected p, or fewer."""
    table, generator = grid(2).drop([3, 8]), np.random.default_rng(11)
    erred, families, shares = np.zeros(6), 0, []
    for _ in range(500):
        table["accuracy"] = generator.normal(size=len(table))
        found = importance(table, ["width", "kernel", "act"], "accuracy")
        terms = sorted(found.terms, key=lambda term: term.name)
        erred += [term.p < 0.05 for term in terms]
        families += bool(found.matter)
        shares.append([term.share for term in terms])
    bound = 4 * np.sqrt(500 * 0.05 * 0.95)
    assert (abs(erred - 25) < bound).all()
    assert 0 < families < 25 + bound
    expected = np.array([term.freedom for term in terms]) / (len(table) - 1)  # what the docstring of Term says
    assert np.mean(shares, axis=0) == pytest.approx(expected, abs=0.012)


def test_runs_on_folds_err_no_more_often_for_what_they_share() -> None:
    """400 studies of 3 settings on 5 folds, whose runs vary together as `overlap_of` says; F is that of Student's t."""
    table, generator = pd.DataFrame({"width": np.repeat(WIDTHS, 5)}), np.random.default_rng(5)
    erred = np.zeros(2)
    for _ in range(400):
        table["accuracy"] = generator.normal(0, 0.2**0.5, 3).repeat(5) + generator.normal(0, 0.8**0.5, 15)
        erred += [importance(table, ["width"], "accuracy", overlap=o).terms[0].p < 0.05 for o in (0.25, 0.0)]
    assert erred[0] < 400 * 0.05 + 4 * (400 * 0.05 * 0.95) ** 0.5 < erred[1]
    two = table[table.width < 18]
    a, b = (dict(enumerate(two.accuracy[two.width == width], start)) for width, start in ((6, 0), (12, 5)))
    [term], seeds = importance(two, ["width"], "accuracy", overlap=0.25).terms, compare_seeds(a, b, overlap=0.25)
    t = seeds.difference.figures[0] / (seeds.deviation * (2 * (1 / 5 + 0.25)) ** 0.5)
    assert term.f == pytest.approx(t**2)


def test_the_order_of_runs_and_settings_does_not_matter() -> None:
    table = grid().drop([0, 5, 9])
    there = importance(table, ["width", "kernel", "act"], "accuracy")
    back = importance(table.sample(frac=1, random_state=3), ["act", "width", "kernel"], "accuracy")
    squares = {frozenset(term.settings): term.squares for term in there.terms}
    assert {frozenset(term.settings): pytest.approx(term.squares) for term in back.terms} == squares


def test_levels_can_be_anything_null_too() -> None:
    table = grid()
    renamed = table.assign(
        width=table.width.map({6: None, 12: "12", 18: 3.5}),
        kernel=[[k, k] for k in table.kernel],
        act=table.act == "relu",
    )
    there, back = (importance(t, ["width", "kernel", "act"], "accuracy") for t in (table, renamed))
    assert by_name(there) == by_name(back)


def test_where_nothing_is_left_to_chance() -> None:
    table = grid(2, noise=0)
    found = importance(table, ["width", "kernel"], "accuracy")
    assert [term.f for term in found.terms] == [None] * 3
    ways = (
        [math.comb(12, 4) * math.comb(8, 4)] * 2,
        [math.comb(8, 4)] * 3,
        [math.factorial(24) / math.factorial(4) ** 6],
    )
    names = 6, 2, 720
    assert [term.p for term in found.terms] == pytest.approx(
        [n / math.prod(w) for n, w in zip(names, ways, strict=True)]
    )
    assert sum(term.share for term in found.terms) == pytest.approx(1)


def test_equal_runs_of_a_few_seeds_are_no_proof() -> None:
    """As on a small validation set. `compare_seeds` says the same of these settings."""
    runs = pd.DataFrame({"width": [6, 6, 12, 12], "seed": [0, 1, 2, 3], "accuracy": [0.9, 0.9, 0.8, 0.8]})
    [term] = importance(runs, ["width"], "accuracy").terms
    assert term.p == pytest.approx(compare_seeds({0: 0.9, 1: 0.9}, {2: 0.8, 3: 0.8}).p)
    two = pd.DataFrame({"width": [6, 6, 12, 12], "act": [0, 1, 0, 1], "accuracy": [0.9, 0.9, 0.8, 0.8]})
    assert [term.p for term in importance(two, ["width", "act"], "accuracy").terms] == [pytest.approx(1 / 2), 1]


TABLE = grid()


@pytest.mark.parametrize(
    ("table", "names", "message"),
    [
        (TABLE, ["depth"], "'depth' is no column of the table; there is width, kernel, act, seed, accuracy"),
        (TABLE, [], "no settings were named"),
        (TABLE, ["accuracy"], "accuracy is the metric, and cannot be a setting too"),
        (TABLE[TABLE.width == 6], ["width"], "width is 6 in all 12 runs; leave it out"),
        (TABLE.assign(accuracy=0.5), ["width"], "accuracy is the same in all 36 runs"),
        (
            TABLE.assign(accuracy=[np.nan, *TABLE.accuracy[1:]]),
            ["width"],
            "no finite number in 1 of 36 runs; leave out",
        ),
        (TABLE.assign(depth=TABLE.width / 6), ["width", "depth"], "width and depth changed together in these 36 runs"),
        (TABLE.assign(rate=np.arange(36.0)), ["rate"], "36 runs leave nothing to judge rate by"),
        (pd.concat([TABLE] * 60).assign(rate=np.arange(2160)), ["rate", "act"], "too many values, rate alone 2,160"),
    ],
)
def test_what_cannot_be_analysed_is_refused_with_one_line(table: pd.DataFrame, names: list[str], message: str) -> None:
    with pytest.raises(RequestError) as refused:
        importance(table, names, "accuracy")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
