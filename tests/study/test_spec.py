import json
from pathlib import Path

import pytest

from convscope.errors import RunFolderError, SettingError
from convscope.study import Range, StudySpec, dump_study, find_study, load_study, read_study
from convscope.study.folder import settings_of
from convscope.study.spec import make_study
from convscope.study.store import place
from tests.conftest import write_spots

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

STUDY = """
about: widths
data: mnist
net: net1
recipe:
  epochs: 2
sweep:
  net.width: [6, 12, 18]
  recipe.optimizer: [adamw, sgd]
seeds: [0, 3]
"""


def _read(old: str = "", new: str = "", *overrides: str) -> StudySpec:
    return read_study(STUDY.replace(old, new), "study.yaml", overrides)


def test_a_grid_is_every_combination_the_last_key_changing_fastest() -> None:
    spec = _read()
    assert [tuple(settings.values()) for settings in spec.grid()] == [
        (6, "adamw"), (6, "sgd"), (12, "adamw"), (12, "sgd"), (18, "adamw"), (18, "sgd"),
    ]  # fmt: skip
    assert (spec.n_settings, spec.n_trials, spec.n_runs) == (6, 12, 12)


def test_a_rate_that_was_not_given_follows_the_optimizer_of_each_run() -> None:
    """0.05 is the rate of sgd, 0.002 that of adamw, the base's optimizer."""
    spec = _read()
    rates = [spec.run_spec({"recipe.optimizer": name}, 0).recipe.rate for name in ("adamw", "sgd")]
    assert rates == [0.002, 0.05]
    given = _read("epochs: 2", "rate: 0.007")
    assert given.run_spec({"recipe.optimizer": "sgd"}, 0).recipe.rate == 0.007


def test_settings_and_seed_reach_the_run() -> None:
    run = _read().run_spec({"net.width": 12, "recipe.augmentation.crop": 2}, 3)
    assert (run.net.options, run.recipe.augmentation.crop, run.recipe.seed) == ({"width": 12}, 2, 3)
    assert _read().run_spec({"net": "net2"}, 0).net.name == "net2"


def test_stages_are_swept_and_their_epochs_follow() -> None:
    """Whole lists against none at all, and one value inside."""
    head = [{"name": "head", "train": "fc1", "epochs": 3, "rate": 0.01}]
    spec = read_study(
        f"{{data: mnist, net: net1, recipe: {{epochs: 2}}, sweep: {{recipe.stages: [null, {head}]}}}}", "s"
    )
    without, staged = (spec.run_spec(settings, 0).recipe for settings in spec.grid())
    assert (without.epochs, without.rate, without.stages) == (2, 0.002, None)
    assert (staged.epochs, staged.rate) == (3, 0.01)
    inside = read_study(
        f"{{data: mnist, net: net1, recipe: {{stages: {head}}}, sweep: {{recipe.stages.0.epochs: [3, 5]}}}}", "s"
    )
    runs = [inside.run_spec(settings, 0) for settings in inside.grid()]
    assert [run.recipe.epochs for run in runs] == [3, 5]
    assert [settings_of(run, inside) for run in runs] == inside.grid()
    with pytest.raises(SettingError, match=r"sweep.recipe.stages: recipe.stages.0.rate: is missing"):
        read_study("{data: mnist, net: net1, sweep: {recipe.stages: [[{name: head, epochs: 3}]]}}", "s")


def test_what_is_written_reads_as_the_same_study_and_states_every_value() -> None:
    spec = _read()
    again = read_study(dump_study(spec), "again")
    assert again == spec
    assert again.run_spec({"recipe.optimizer": "sgd"}, 0).recipe.rate == 0.05
    assert "label_smoothing: 0.0" in dump_study(spec)


def test_two_studies_differ_in_what_decides_the_runs_and_not_in_the_budget() -> None:
    spec = _read()
    assert spec.differences(_read("about: widths", "about: w")) == []
    assert spec.differences(_read("seeds: [0, 3]", "seeds: [0, 3]\nbudget: {runs: 4}")) == []
    assert spec.differences(_read("[6, 12, 18]", "[6, 12]")) == ["sweep"]
    assert spec.differences(_read("[6, 12, 18]", "[6.0, 12, 18]")) == ["sweep"]
    assert spec.differences(_read("epochs: 2", "epochs: 3")) == ["recipe"]
    width, optimizer = "  net.width: [6, 12, 18]\n", "  recipe.optimizer: [adamw, sgd]\n"
    order = "order of the keys of sweep, there net.width, recipe.optimizer,"
    assert spec.differences(_read(width + optimizer, optimizer + width)) == [order]


def test_what_is_for_others_is_kept_unread_and_decides_no_run() -> None:
    told = {"report": "Z", "of its own": [1, {"a": None}]}
    spec = read_study(f"{STUDY}reproduces: {json.dumps(told)}\n", "study.yaml", settings={"reproduces.budget": "small"})
    assert spec.reproduces == {**told, "budget": "small"}
    assert read_study(dump_study(spec), "study.yaml") == spec
    assert spec.differences(_read()) == []


def test_overrides() -> None:
    spec = _read("", "", "sweep.net.width=[4]", "recipe.epochs=7", "seeds=[5]", "net.kernel=7")
    assert (spec.sweep["net.width"], spec.recipe["epochs"], spec.seeds) == ((4,), 7, (5,))
    assert spec.net.options == {"kernel": 7}


def test_numbers_as_people_write_them() -> None:
    assert _read("net.width: [6, 12, 18]", "recipe.rate: [1e-3, 1E2]").sweep["recipe.rate"] == (0.001, 100.0)


def test_seeds_alone_are_a_study_and_the_recipes_seed_is_the_default() -> None:
    text = "data: mnist\nnet: net1\nrecipe: {seed: 4}\n"
    assert read_study(text + "seeds: [0, 1, 2]", "s").n_runs == 3
    assert read_study(text + "sweep: {net.width: [6]}", "s").seeds == (4,)


def test_one_at_a_time_changes_one_setting_from_the_first() -> None:
    sweep = "sweep: {net.width: [6, 12, 18], recipe.rate: [0.1, 0.2]}"
    text = f"{{data: mnist, net: net1, sampler: one-at-a-time, seeds: [0, 1], {sweep}}}"
    spec = read_study(text, "s")
    settings = [(each["net.width"], each["recipe.rate"]) for each in spec.grid()]
    assert settings == [(6, 0.1), (12, 0.1), (18, 0.1), (6, 0.2)]
    assert (spec.n_settings, spec.n_runs) == (4, 8)
    assert place(spec, 5) == (2, (1,))


def test_a_budget_of_runs() -> None:
    assert _read("seeds: [0, 3]", "seeds: [0, 3]\nbudget: {runs: 5}").n_trials == 5
    search = _read("seeds: [0, 3]", "seeds: [0, 3]\nsampler: tpe\nbudget: {runs: 7}")
    assert (search.n_trials, search.n_runs) == (3, 6)  # settings, and their runs


def test_ranges() -> None:
    assert Range(low=1, high=8).is_whole
    assert not Range(low=1, high=8.0).is_whole
    spec = _read(
        "net.width: [6, 12, 18]", "recipe.rate: {low: 1e-4, high: 0.1, log: true}", "sampler=random", "budget.minutes=2"
    )
    assert spec.sweep["recipe.rate"] == Range(low=1e-4, high=0.1, log=True)
    assert spec.n_runs is None


def test_data_beside_the_file_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_spots(tmp_path / "spots.npz")
    (tmp_path / "widths.yaml").write_text(STUDY.replace("mnist", "spots.npz"))
    name, spec = find_study(str(tmp_path / "widths.yaml"))
    assert (name, spec.data.source) == ("widths", str(tmp_path / "spots.npz"))
    assert load_study(tmp_path / "widths.yaml") == spec
    monkeypatch.chdir(tmp_path)
    assert make_study({"data": "spots.npz", "net": "net1", "seeds": [0, 1]}).data.source == str(tmp_path / "spots.npz")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("about:", "abuot:", "study.yaml line 2: abuot: there is no such setting"),
        ("data: mnist", "", "study.yaml: data: is missing"),
        ("  epochs: 2", "  epocs: 2", "study.yaml line 6: recipe.epocs: there is no such setting"),
        ("epochs: 2", "epochs: -2", "study.yaml line 6: recipe.epochs: -2: Input should be greater than or equal to 1"),
        ("recipe:\n  epochs", "recipe: [", "study.yaml line 5: this is no YAML|study.yaml line 6: this is no YAML"),
        ("data: mnist", "data: \x07", "study.yaml: this is no YAML: unacceptable character #x0007: control characters"),
        ("net.width: [6, 12, 18]", "net.width: []", "line 8: sweep: net.width: the list is empty"),
        ("net.width: [6, 12, 18]", "net.width: 6", "line 8: sweep: net.width: 6: expected a list such as"),
        ("net.width: [6, 12, 18]", "net.width: [6, 6]", "line 8: sweep.net.width: 6 is there twice"),
        ("net.width: [6, 12, 18]", "recipe.epocs: [1]", "line 8: sweep.recipe.epocs: recipe.epocs: there is no such setting"),
        ("[adamw, sgd]", "[adamw, sdg]", "line 9: sweep.recipe.optimizer: recipe.optimizer: 'sdg'"),
        ("net.width: [6, 12, 18]", "recipe.epochs.x: [1]", "line 8: sweep.recipe.epochs.x: recipe.epochs.x: 'epochs' is"),
        ("net.width: [6, 12, 18]", "recipe.seed: [1]", "line 8: sweep.recipe.seed: seeds have a key of their own"),
        ("[6, 12, 18]", "{low: 6, high: 18}", "line 8: sweep.net.width: a grid takes a list of values"),
        ("[6, 12, 18]", "{low: 6}", "line 8: sweep.net.width.high: is missing"),
        ("[6, 12, 18]", "{low: 18, high: 6}", "line 8: sweep.net.width: low is 18 and high 6; expected low < high"),
        ("[6, 12, 18]", "{low: 0, high: 6, log: true}", "sweep.net.width: low is 0; a range with log begins above 0"),
        ("[6, 12, 18]", "{low: 1, high: 6, log: true, step: 1}", "sweep.net.width: log and step do not go together"),
        ("[6, 12, 18]", "{low: .nan, high: 6}", "line 8: sweep.net.width.low"),
        ("sweep:\n", "sweep: 3\nx:\n", "line 7: sweep: expected keys with a list of values each|there is no such setting"),
        ("seeds: [0, 3]", "seeds: [0, 0]", "line 10: seeds: 0 is there twice"),
        ("seeds: [0, 3]", "seeds: []", "line 10: seeds: "),
        ("seeds: [0, 3]", "seeds: [-1]", "line 10: seeds.0: -1"),
        ("seeds: [0, 3]", "metric: test_accuracy", "line 10: metric: 'test_accuracy': Input should be"),
        ("seeds: [0, 3]", "sampler: bogus", "line 10: sampler: 'bogus'"),
        ("seeds: [0, 3]", "sampler: tpe", "budget: a search by tpe does not end by itself"),
        ("seeds: [0, 3]", "seeds: [0, 3]\nsampler: tpe\nbudget: {runs: 1}", "budget.runs: 1 is less than one setting's"),
        ("seeds: [0, 3]", "budget: {runs: 0}", "line 10: budget.runs: 0"),
        ("seeds: [0, 3]", "prune: maybe", "line 10: prune: 'maybe'"),
    ],
)  # fmt: skip
def test_a_wrong_study_is_named_by_file_line_and_key(old: str, new: str, expected: str) -> None:
    with pytest.raises(SettingError) as raised:
        _read(old, new)
    assert any(each in str(raised.value) for each in expected.split("|")), raised.value
    assert len(str(raised.value).splitlines()) == 1


def test_nothing_to_sweep() -> None:
    with pytest.raises(SettingError, match="there is nothing to sweep"):
        read_study("data: mnist\nnet: net1", "s.yaml")
    with pytest.raises(SettingError, match="there is nothing to sweep"):
        find_study("lines")


def test_a_study_of_a_newer_convscope() -> None:
    with pytest.raises(RunFolderError, match="written by a newer convscope"):
        _read("about: widths", "format: 99")


def test_class_weights_are_swept_as_words_and_mappings() -> None:
    text = "{data: mnist, net: net1, sweep: {recipe.class_weights: [null, balanced, {7: 2, other: 3}]}}"
    study = read_study(text, "s")
    recipes = [study.run_spec(settings, 0).recipe for settings in study.grid()]
    assert [recipe.class_weights for recipe in recipes] == [None, "balanced", {"7": 2.0, "other": 3.0}]
    assert read_study(dump_study(study), "again").differences(study) == []
    with pytest.raises(
        SettingError, match=r"s line 1: sweep\.recipe\.class_weights: recipe\.class_weights: 'even': expected"
    ):
        read_study(text.replace("balanced", "even"), "s")
