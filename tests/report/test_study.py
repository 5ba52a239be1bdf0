"""The page of a study against the table's own figures, and in a browser without a network."""

import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from playwright.sync_api import expect

from convscope.errors import RunFolderError, SettingError
from convscope.report import Section, holds_runs, study_page, write_study_report
from convscope.report.study_curves import pareto, reach_of_losses
from convscope.report.study_results import StudyResults
from convscope.runs import ANATOMY
from convscope.study import Runs, dump_study, open_study, read_study
from tests.report.made import EPOCHS, make_run

BAD = "<script>alert(1)</script>"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Three widths and two rates, three seeds each; at the high rate and the largest width one run diverged."""
    generator = np.random.default_rng(1)
    for number, (width, rate) in enumerate((w, r) for w in (4, 8, 16) for r in (0.01, 0.1)):
        for seed in range(3):
            val = 0.7 + 0.01 * number + float(generator.normal(0, 0.005))
            diverged = (width, rate, seed) == (16, 0.1, 2)
            make_run(
                tmp_path / "study" / "runs" / f"{number:04d}-s{seed}", val + 0.05 * (number == 5), train=val + 0.02,
                seed=seed, rate=rate, width=width, parameters=1000 * width,
                state="diverged" if diverged else "finished", message=f"the loss is infinite {BAD}",
            )  # fmt: skip
    return tmp_path / "study"


def _text(page: str, part: str) -> str:
    found = re.search(rf'<section id="{part}">(.*?)</section>', page, re.S)
    assert found, part
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", found[1])).split())


def _charts(page: str) -> dict[str, Any]:
    return json.loads(re.search(r'id="charts">(.*?)</script>', page, re.S)[1])


def test_the_best_setting_is_that_of_the_table_among_those_that_all_finished(study: Path) -> None:
    runs = Runs(study)
    table = runs.grouped(["net.width", "recipe.rate"])
    whole = table[table.not_finished == 0]
    best = whole.loc[whole.val_accuracy.idxmax()]
    assert table.val_accuracy.idxmax() not in whole.index  # the highest has lost a run
    top = _text(study_page(runs), "study")
    assert f"{100 * best.val_accuracy:.2f} % validation accuracy of the best setting" in top
    assert f"95 %: {100 * best.val_accuracy_low:.2f} to {100 * best.val_accuracy_high:.2f}, mean of 3 runs" in top
    assert f"width {best['net.width']:.0f}, rate {best['recipe.rate']} the best setting, chosen on validation" in top
    assert f"{100 * best.test_accuracy:.2f} % its test accuracy" in top
    assert "17 finished, 1 diverged" in top
    assert "17 runs of this study have been tested" in top
    assert "seeds 0, 1, 2" in top


def test_a_section_that_is_given_stands_behind_the_first_and_is_linked(study: Path) -> None:
    own = '<section id="mine"><p>Own &amp; said</p></section>'
    page = study_page(Runs(study), [Section("mine", "A <title>", own)])
    assert page.index('id="study"') < page.index(own) < page.index('id="findings"')
    assert '<a href="#mine">A &lt;title&gt;</a>' in page
    assert "mine" not in study_page(Runs(study))


def _asks_for(folder: Path, metric: str) -> None:
    sweep = "net.width: [4, 8, 16], recipe.rate: [0.01, 0.1]"
    text = f"data: mnist\nnet: net1\nsweep: {{{sweep}}}\nseeds: [0, 1, 2]\nmetric: {metric}\n"
    (folder / "study.yaml").write_text(dump_study(read_study(text, "study.yaml")))


@pytest.fixture
def torn(tmp_path: Path) -> Path:
    """Widths and rates of which accuracy and loss name different ones as the best; the least loss of all lost a run."""
    generator = np.random.default_rng(2)
    for number, (width, rate) in enumerate(((w, r) for w in (4, 8, 16) for r in (0.01, 0.1)), 1):
        for seed in range(3):
            made = {"width": width, "rate": rate, "seed": seed, "parameters": 1000 * width}
            val = 0.6 + 0.04 * number + float(generator.normal(0, 0.002))
            loss = {1: 0.001, 2: 0.02}.get(number, 0.5 + 0.05 * number) + 0.03 * seed**2
            state = "diverged" if (number, seed) == (1, 2) else "finished"
            make_run(tmp_path / "runs" / f"{number:04d}-s{seed}", val, loss=loss, state=state, **made)
    return tmp_path


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_report_and_ranking_name_the_same_best_setting_by_the_studys_metric(torn: Path, metric: str) -> None:
    _asks_for(torn, metric)
    table, sign = Runs(torn).grouped(["net.width", "recipe.rate"]), 1 if metric == "val_accuracy" else -1
    whole = table[table.not_finished == 0]
    best = whole.loc[(sign * whole[metric]).idxmax()]
    results, ranking = StudyResults(Runs(torn)), open_study(torn).ranking()
    asked = {"net.width": best["net.width"], "recipe.rate": best["recipe.rate"]}
    assert results.best is not None
    assert results.best.values == asked == ranking[0].settings
    assert (ranking[0].value, ranking[0].n) == (best[metric], 3)
    assert [(one.number, one.not_finished) for one in ranking][-1] == (1, 1)
    assert [group.values for group in results.whole] == [one.settings for one in ranking[:-1]]


def test_a_study_by_loss_speaks_of_losses_in_nats(torn: Path) -> None:
    _asks_for(torn, "val_loss")
    page, runs = study_page(Runs(torn)), Runs(torn)
    best = runs.grouped(["net.width", "recipe.rate"], ["val_loss", "test_loss"]).iloc[1]
    top = _text(page, "study")
    assert f"{best.val_loss:.4f} validation loss of the best setting (nats)" in top
    assert best.val_loss_low == 0  # Student's own limit lies below
    assert f"95 %: 0.0000 to {best.val_loss_high:.4f}, mean of 3 runs" in top
    assert f"{best.test_loss:.4f} its test loss (nats)" in top
    assert "The best setting has the lowest mean validation loss" in top
    spread = _charts(page)["spread"]["datasets"].values()
    means = [row["value"] for rows in spread for row in rows if "n" in row]
    assert means == sorted(runs.grouped(["net.width", "recipe.rate"]).val_loss)
    [matrix] = runs.matrices(StudyResults(runs).by_importance, ["val_loss"])
    for value, row in matrix.cells.iterrows():
        assert f"{value} " + " ".join(f"{cell:.3f}" for cell in row) in _text(page, "settings")
    deepest = re.search(r'--share:1.0">([\d.]+)<', page)
    assert deepest
    assert deepest[1] == f"{np.nanmin(matrix.cells.to_numpy(float)):.3f}"
    dots = [row for rows in _charts(page)["cost-0"]["datasets"].values() for row in rows]
    front = _front_by_hand([(row["parameters"], -row["value"]) for row in dots])
    assert {(row["parameters"], -row["value"]) for row in dots if row["front"]} == front


@pytest.mark.parametrize("text", ["metric: f1\n", "metric: [val_loss]\n", "metric: {a: b\n"])
def test_a_metric_that_cannot_be_read_is_said_in_one_line(torn: Path, text: str) -> None:
    (torn / "study.yaml").write_text(text)
    with pytest.raises(SettingError, match=r"study\.yaml.*(expected val_accuracy or val_loss|no YAML)"):
        write_study_report(torn)


def test_every_group_has_the_figures_of_the_table(study: Path) -> None:
    runs = Runs(study)
    table = runs.grouped(["net.width", "recipe.rate"])
    groups = StudyResults(runs).groups
    assert [tuple(group.values.values()) for group in groups] == list(
        zip(table["net.width"], table["recipe.rate"], strict=True)
    )
    for metric in ("val_accuracy", "test_accuracy", "train_accuracy", "parameters", "seconds"):
        means = [group.summary(metric).mean for group in groups]
        assert [m.value for m in means] == table[metric].tolist()
        assert [m.low for m in means] == table[f"{metric}_low"].tolist()
        assert [m.high for m in means] == table[f"{metric}_high"].tolist()
    shown = _text(study_page(runs), "table")
    assert all(f"{100 * value:.2f} %" in shown for value in table.val_accuracy)


def test_the_panels_hold_every_epoch_of_every_run(study: Path) -> None:
    charts = {name: chart for name, chart in _charts(study_page(Runs(study))).items() if name.startswith("curves")}
    assert len(charts) == 2 * 6
    for measure in ("accuracy", "loss"):
        shown = [chart for name, chart in charts.items() if name.endswith(measure)]
        points = [row for chart in shown for rows in chart["datasets"].values() for row in rows]
        assert len(points) == 2 * (17 * EPOCHS + 2)
        drawn = {(p["run"], p["epoch"], p["images"]): p["value"] for p in points}
        for row in Runs(study).histories().to_dict("records"):
            for split in ("train", "val"):
                assert drawn[row["run"], row["epoch"], split] == row[f"{split}_{measure}"]


def _domain(chart: dict[str, Any]) -> list[float]:
    return chart["layer"][0]["encoding"]["y"]["scale"]["domain"]


def test_one_exploded_run_does_not_flatten_the_losses_of_all(tmp_path: Path) -> None:
    for number, width in enumerate((4, 8)):
        for seed in range(3):
            loss = 1e6 if (width, seed) == (8, 0) else 0.5
            make_run(tmp_path / f"{number}-s{seed}", 0.8, width=width, seed=seed, loss=loss)
    page = study_page(Runs(tmp_path))
    domains = [_domain(chart) for name, chart in _charts(page).items() if name.endswith("loss")]
    assert domains == [[0.0, 2.0], [0.0, 2.0]]  # 1.75 is where the others begin
    assert "The axis of the losses ends at 2, so that what most runs do can be seen; 1 run goes beyond it" in _text(
        page, "curves"
    )


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=20), st.integers(0, 9))
def test_the_losses_axis_holds_all_runs_but_those_far_above_the_median(highest: list[float], exploded: int) -> None:
    low, high = reach_of_losses(highest)
    median = float(np.median(highest))
    assert low == 0
    assert all(loss <= high for loss in highest if loss <= 3 * median)
    assert high <= 1.5 * 3 * median * (1 + 1e-9)  # never far more than that
    few = highest + [1e9] * min(exploded, max(0, len(highest) - 1) // 2)
    assert reach_of_losses(few)[1] < 1e4
    assert reach_of_losses([*highest, float("nan")]) == (low, high)


def test_a_run_that_did_not_finish_stands_with_its_message_and_no_markup(study: Path) -> None:
    page = study_page(Runs(study))
    assert f"runs/0005-s2 diverged the loss is infinite {BAD}" in _text(page, "unfinished")
    assert BAD not in page


def test_what_can_be_shown_of_one_run_or_of_seeds_alone(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 0.8)
    assert "width" not in _text(study_page(Runs(tmp_path)), "study")
    make_run(tmp_path / "b", 0.9, seed=1)
    page = study_page(Runs(tmp_path))
    assert "85.00 % validation accuracy of the best setting" in _text(page, "study")
    assert "all runs" in _text(page, "table")
    assert 'id="unfinished"' not in page


def test_where_no_run_has_an_epoch_nothing_is_best(tmp_path: Path) -> None:
    for seed in (0, 1):
        run = make_run(tmp_path / f"s{seed}", 0.8, seed=seed, state="failed", message="killed")
        (run / "history.parquet").unlink()
    page = study_page(Runs(tmp_path))
    assert "No run has a validation accuracy yet" in _text(page, "study")
    assert 'id="curves"' not in page


def test_which_folders_are_a_studys(study: Path, tmp_path: Path) -> None:
    assert holds_runs(study)
    assert holds_runs(study / "runs")
    assert not holds_runs(study / "runs" / "0000-s0")
    (tmp_path / "empty").mkdir()
    assert not holds_runs(tmp_path / "empty")
    assert not holds_runs(tmp_path / "missing")
    (tmp_path / "empty" / "study.yaml").touch()
    with pytest.raises(RunFolderError, match="no runs below it"):
        write_study_report(tmp_path / "empty")


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_fits_the_screen_and_draws_all_charts(
    study: Path, open_page: Callable[..., Any], width: int, scheme: str
) -> None:
    path = write_study_report(study)
    n = len(_charts(path.read_text()))
    with open_page(path, width=width, scheme=scheme) as page:
        expect(page.locator("[data-chart] svg")).to_have_count(n)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.locator("#table thead th", has_text="validation accuracy").click()
        first = page.locator("#table tbody tr").first
        expect(first.locator("th").first).to_have_text("16")


def _front_by_hand(points: list[tuple[float, float]]) -> set[tuple[float, float]]:
    """The points that no other betters, each asked against all."""
    return {(c, v) for c, v in points if not any(d <= c and w >= v and (d, w) != (c, v) for d, w in points)}


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=12))
def test_the_front_holds_what_no_other_betters(whole: list[tuple[int, int]]) -> None:
    points = [(float(c), float(v)) for c, v in whole]
    found = [points[place] for place in pareto(points)]
    assert set(found) == _front_by_hand(points)
    assert found == sorted(set(found))


def test_spread_and_costs_have_the_figures_of_the_table(study: Path) -> None:
    charts, table = _charts(study_page(Runs(study))), Runs(study).grouped(["net.width", "recipe.rate"])
    rows = [row for rows in charts["spread"]["datasets"].values() for row in rows]
    assert [row["value"] for row in rows if "n" in row] == sorted(table.val_accuracy, reverse=True)
    assert sum("run" in row for row in rows) == 17
    whole = table[table.not_finished == 0]
    [dots] = charts["cost-0"]["datasets"].values()
    assert {(d["parameters"], d["value"]) for d in dots} == set(zip(whole.parameters, whole.val_accuracy, strict=True))
    front = _front_by_hand([(d["parameters"], d["value"]) for d in dots])
    assert {(d["parameters"], d["value"]) for d in dots if d["front"]} == front


def test_multiply_adds_are_shown_where_runs_keep_them(study: Path) -> None:
    page = study_page(Runs(study))
    assert "multiply-adds" not in _text(page, "costs")
    for path in sorted((study / "runs").iterdir())[:9]:  # three settings of two widths
        (path / ANATOMY).write_text(json.dumps({"multiply_adds": 7000 * (1 + (path.name >= "0002"))}))
    assert "as few multiply-adds:" in _text(page := study_page(Runs(study)), "costs")
    assert "Known of 3 of 5 settings" in _text(page, "costs")


def test_matrices_and_shares_are_those_of_the_table(study: Path) -> None:
    runs = Runs(study)
    page = _text(study_page(runs), "settings")
    [matrix] = runs.matrices(StudyResults(runs).by_importance, ["val_accuracy"])
    for value, row in matrix.cells.iterrows():
        assert f"{value} " + " ".join(f"{100 * cell:.1f}" for cell in row) in page
    for term in runs.importance(metrics=["val_accuracy"]).terms:
        assert f"{term.name} {100 * term.share:.1f} %" in page


def test_why_settings_cannot_be_told_apart_is_said(tmp_path: Path) -> None:
    for place, (width, kernel) in enumerate([(4, 3), (8, 5), (4, 3), (8, 5)]):
        make_run(tmp_path / f"{place}", 0.8 + 0.01 * place, width=width, kernel=kernel, seed=place // 2)
    assert "net.width and net.kernel changed together" in _text(study_page(Runs(tmp_path)), "settings")


def test_batch_norm_and_rates_each_have_a_panel(tmp_path: Path) -> None:
    for place, (norm, rate) in enumerate((n, r) for n in (True, False) for r in (0.001, 0.01, 0.1)):
        for seed in (0, 1):
            val = 0.6 + 0.05 * place + 0.003 * seed
            make_run(tmp_path / f"{place:04d}-s{seed}", val, seed=seed, rate=rate, batch_norm=norm)
    curves = _text(study_page(Runs(tmp_path)), "curves")
    for norm in ("true", "false"):
        for rate in ("0.001", "0.01", "0.1"):
            assert f"batch_norm {norm}, rate {rate} 2 runs" in curves


def test_a_hundred_runs_make_a_page_of_less_than_three_megabytes(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for place in range(100):
        val = float(generator.uniform(0.5, 0.9))
        rate, width = float(10 ** generator.uniform(-4, -1)), int(generator.integers(4, 64))
        make_run(tmp_path / f"{place:04d}-s0", val, rate=rate, width=width, parameters=1000 * width)
    assert write_study_report(tmp_path).stat().st_size < 3_000_000


def test_the_commands_name_the_folder_so_that_a_shell_reads_them(tmp_path: Path) -> None:
    for seed, width in enumerate((4, 8)):
        make_run(tmp_path / "my study" / f"s{seed}", 0.8, seed=seed, width=width)
    folder = f"'{tmp_path / 'my study'}'"
    again = _text(study_page(Runs(tmp_path / "my study")), "again")
    assert f"convscope table {folder} --by net.width convscope report {folder}" in again
    (tmp_path / "my study" / "study.yaml").touch()
    again = _text(study_page(Runs(tmp_path / "my study")), "again")
    assert f"convscope sweep '{tmp_path / 'my study' / 'study.yaml'}' --out again" in again
