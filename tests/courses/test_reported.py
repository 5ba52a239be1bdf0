"""The key `reproduces` of study files, and the shipped studies that have it."""

import re
import shlex
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from convscope.analyses import names
from convscope.courses import Reproduces, find_reproduction, read_reproducing, reproduced, reproduces, reproductions
from convscope.courses.outcomes import matches
from convscope.errors import ConvscopeError, SettingError, UnknownNameError
from convscope.study import StudySpec, dump_study, read_study
from tests.courses.repeats import NAME, TEXT

BUDGETS = ("smoke", "laptop", "full")
GIVEN = TEXT.format(source="mnist")
SHIPPED = list(reproductions())


def _changed(change: Callable[[dict[str, Any]], object]) -> str:
    given = yaml.safe_load(GIVEN)
    change(given)
    return yaml.safe_dump(given, sort_keys=False)


def _told(given: dict[str, Any]) -> dict[str, Any]:
    return given["reproduces"]


def test_a_budget_changes_what_it_names_and_nothing_else() -> None:
    full, smoke = read_reproducing(GIVEN, NAME), read_reproducing(GIVEN, NAME, budget="smoke")
    assert (smoke.data.limit, smoke.recipe["epochs"], smoke.seeds) == (90, 1, (0,))
    assert (smoke.n_runs, full.n_runs) == (2, 6)
    assert full.differences(smoke) == ["data", "recipe", "seeds"]
    assert (smoke.net, smoke.sweep) == (full.net, full.sweep)
    assert smoke.reproduces["budget"] == "smoke"
    assert read_reproducing(GIVEN, NAME, budget="full") == full
    assert full.reproduces["budget"] == "full"


def test_a_budget_changes_the_sweep_and_set_comes_after_it() -> None:
    text = _changed(lambda given: _told(given)["budgets"]["smoke"].update({"sweep.net.width": [4]}))
    assert read_reproducing(text, NAME, budget="smoke").n_runs == 1
    told = read_reproducing(text, NAME, ["recipe.epochs=7"], budget="smoke")
    assert (told.recipe["epochs"], told.data.limit) == (7, 90)


def test_what_is_reproduced_is_kept_in_the_studys_file_and_decides_no_run() -> None:
    smoke = read_reproducing(GIVEN, NAME, budget="smoke")
    again = read_study(dump_study(smoke), "study.yaml")
    assert again == smoke
    without = read_study(_changed(lambda given: given.pop("reproduces")), NAME)
    assert read_reproducing(GIVEN, NAME).differences(without) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda told: told.update(report="F"), r"line \d+: reproduces.report: 'F'.*'A', 'B', 'C', 'D' or 'E'"),
        (lambda told: told.pop("reported"), "reproduces.reported: is missing"),
        (lambda told: told.update(reported=[]), "reproduces.reported: .*at least 1 item"),
        (lambda told: told.update(raported=[]), "reproduces.raported: there is no such setting"),
        (
            lambda told: told["reported"][0].update(metric="accuracy"),
            "reported.0.metric: 'accuracy'; expected one of test_accuracy, .* heads.NAME.accuracy",
        ),
        (lambda told: told["reported"][0].pop("n"), "reported.0: an accuracy is a share .* on how many images"),
        (lambda told: told["reported"][0].update(value=67.04), "reported.0: an accuracy is a share from 0 to 1"),
        (lambda told: told["reported"][0].update(what=""), "reported.0.what"),
        (lambda told: told["looks"][0].update(lair="conv1"), "looks.0: --lair: filters has no such setting"),
        (lambda told: told["budgets"]["smoke"].update({"recipe.epocs": 1}), "recipe.epocs: there is no such setting"),
        (
            lambda told: told["budgets"]["smoke"].update({"sweep.recipe.epocs": [1]}),
            "sweep.recipe.epocs: recipe.epocs: there is no such setting",
        ),
        (lambda told: told["budgets"].update(smoke=3), r"reproduces.budgets.smoke: 3: expected settings by their keys"),
    ],
)
def test_a_wrong_key_or_value_is_named_in_one_line(change: Callable[[dict[str, Any]], object], expected: str) -> None:
    with pytest.raises(SettingError, match=rf"^mine\.yaml.*{expected}") as told:
        read_reproducing(_changed(lambda given: change(_told(given))), "mine.yaml", budget="smoke")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("value", [3, [1], "B"])
@pytest.mark.parametrize("budget", ["full", "smoke"])
def test_the_key_is_a_mapping(value: object, budget: str) -> None:
    with pytest.raises(ConvscopeError, match=r"mine\.yaml"):
        read_reproducing(_changed(lambda given: given.update(reproduces=value)), "mine.yaml", budget=budget)


def test_an_unknown_budget_or_study_lists_those_that_there_are() -> None:
    with pytest.raises(
        UnknownNameError, match=r"budget 'smok' is not .*did you mean 'smoke'\? there is smoke, laptop, full"
    ):
        read_reproducing(GIVEN, "mine.yaml", budget="smok")
    with pytest.raises(
        UnknownNameError, match=r"study 'net9-grid' is not one that repeats a report; did you mean 'net"
    ):
        find_reproduction("net9-grid")
    with pytest.raises(UnknownNameError, match="study 'mnist' is not one that repeats a report"):
        find_reproduction("mnist")  # a shipped study, but nobody's report


# the shipped ones, against docs and reports


@cache
def _spec(name: str, budget: str = "full") -> StudySpec:
    return find_reproduction(name, budget)


def _of(name: str, budget: str = "full") -> Reproduces:
    return reproduces(_spec(name, budget), name)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("budget", BUDGETS)
def test_every_shipped_reproduction_is_a_study_at_every_budget(name: str, budget: str) -> None:
    spec = _spec(name, budget)
    in_full = budget == "laptop" and "laptop" not in _of(name).budgets
    assert _of(name, budget).budget == ("full" if in_full else budget)
    assert len(_runs(spec)) == spec.n_runs
    if budget != "full":
        assert spec.n_runs <= _spec(name).n_runs


def _runs(spec: StudySpec) -> list[Any]:
    return [spec.run_spec(settings, seed) for settings in spec.grid() for seed in spec.seeds]


def test_the_reports_come_in_order_and_all_are_there() -> None:
    reports = [_of(name).report for name in SHIPPED]
    assert reports == sorted(reports)
    assert {report: reports.count(report) for report in "ABCDE"} == {"A": 2, "B": 5, "C": 3, "D": 5, "E": 3}


def test_report_b_has_the_44_runs_that_it_reports() -> None:
    found = {name: _spec(name).n_runs for name in SHIPPED if name.startswith("net")}
    assert found == {"net1-grid": 24, "net2-grid": 9, "net3-grid": 9, "net4-depth": 2}
    assert sum(found.values()) == 44
    epochs = {name: _spec(name).recipe["epochs"] for name in found}
    assert epochs == {"net1-grid": 30, "net2-grid": 30, "net3-grid": 60, "net4-depth": 100}


COUNTS = {
    "vgg-batchnorm": {6_216_074},
    "net1-grid": {173_026},
    "net2-grid": {4_870_654, 756_442, 1_505_470, 3_773_950},
    "net3-grid": {1_506_430, 3_775_870, 6_819_454},
    "net4-depth": {4_403_518},
    "lenet-grey": {3_274_634},
}


def test_every_count_of_parameters_in_the_reports_is_met_exactly(tmp_path: Path) -> None:
    found = {
        each.name: {o.found.value for o in each.outcomes if o.reported.metric == "parameters"}
        for each in reproduced(tmp_path, list(COUNTS))
    }
    assert found == COUNTS
    told = {name: _counts(_of(name)) for name in SHIPPED}
    assert {name: counts for name, counts in told.items() if counts} == COUNTS


def _counts(told: Reproduces) -> set[float]:
    return {each.value for each in told.reported if each.metric == "parameters"}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_laptop_budget_keeps_all_images(name: str) -> None:
    """Fewer images ended several networks near chance."""
    assert _spec(name, "laptop").data == _spec(name).data


@pytest.mark.parametrize("name", SHIPPED)
def test_every_figure_and_every_look_belongs_to_a_run(name: str) -> None:
    spec = _spec(name)
    runs = _runs(spec)
    for each in (*_of(name).reported, *_of(name).looks):
        assert any(matches(run, each.at) for run in runs), each


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("budget", ["smoke", "laptop"])
def test_every_look_has_a_run_to_look_at_at_every_budget(name: str, budget: str) -> None:
    spec = _spec(name, budget)
    runs = _runs(spec)
    assert all(any(matches(run, look.at) for run in runs) for look in _of(name, budget).looks)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_look_is_one_that_convscope_has_and_every_line_fits(name: str) -> None:
    told = _of(name)
    assert told.looks
    for look in told.looks:
        assert look.lens in names()
        assert look.about
    assert max(len(each.what) for each in told.reported) <= 32  # a column of the table
    assert all(re.match(r"\S", line) and not line.endswith(".") for line in (*told.otherwise, *told.disagrees))


BEST = {
    ("A", 0.882), ("A", 0.87), ("B", 0.6704), ("B", 0.7503), ("B", 0.875), ("B", 0.8874), ("B", 0.9), ("C", 0.52),
    ("C", 0.671), ("C", 0.9727), ("C", 0.987), ("C", 0.9908), ("D", 0.9657), ("D", 0.9848), ("D", 0.9939),
    ("E", 0.7125), ("E", 0.855), ("E", 0.87),
}  # fmt: skip


def test_the_reports_best_test_accuracies_are_among_the_figures() -> None:
    specs = [_of(name) for name in SHIPPED]
    found = {(told.report, f.value) for told in specs for f in told.reported if f.metric == "test_accuracy"}
    assert found >= BEST
    heads = {f.metric: f.value for f in _of("lines-heads").reported}
    assert heads == {
        "heads.length.accuracy": 0.9982, "heads.width.accuracy": 0.9987, "heads.colour.accuracy": 0.9999,
        "heads.angle.accuracy": 0.9588,
    }  # fmt: skip


def test_a_looks_command_gives_all_its_options_to_the_shell() -> None:
    looks = _of("net4-depth").looks
    ablate = next(look for look in looks if look.lens == "ablate")
    words = shlex.split(ablate.command("my runs/a"))
    assert words[:4] == ["convscope", "look", "my runs/a", "ablate"]
    options = dict(zip(words[4::2], words[5::2], strict=True))
    assert options == {
        "--units": "conv1:0,1 conv2:0,1 conv3:0,1 conv4:0,1 conv5:0,1", "--how": "zero_weights"
    }  # fmt: skip
    assert ablate.settings == {key.removeprefix("--"): value for key, value in options.items()}
    occlusion = next(look for look in looks if look.lens == "occlusion")
    assert (occlusion.image, occlusion.settings) == (3, {"size": "3,7,11"})


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ({}, True), ({"net": "net1"}, True), ({"net": "net2"}, False), ({"net.name": "net1"}, True),
        ({"net": {"name": "net1", "width": 4}}, True), ({"net": {"name": "net1", "width": 8}}, False),
        ({"net.width": 4, "recipe.batch": 24}, True), ({"net.width": 4, "recipe.batch": 25}, False),
        ({"net.depth": 4}, False), ({"net.depth": None}, True),
        ({"recipe.rates": "conv1"}, False), ({"recipe.rates": {}}, True),
    ],
)  # fmt: skip
def test_which_runs_a_figure_belongs_to(at: dict[str, Any], expected: bool) -> None:
    run = read_reproducing(GIVEN, NAME).run_spec({"net.width": 4, "recipe.rates": {}}, 0)
    assert matches(run, at) == expected


def test_a_stage_is_named_by_its_place() -> None:
    spec = _spec("cats-dogs-transfer")
    runs = _runs(spec)
    told = {each.what: [matches(run, each.at) for run in runs] for each in _of("cats-dogs-transfer").reported}
    assert told == {
        "frozen": [True, False, False],
        "then the last block unfrozen": [False, True, False],
        "frozen with augmentation": [False, False, True],
    }
