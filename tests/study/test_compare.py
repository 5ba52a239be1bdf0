"""Runs side by side: every figure against SciPy, statsmodels or scikit-learn on the stored predictions."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from scipy import stats
from sklearn.metrics import confusion_matrix
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

import convscope as cs
from convscope.data import DataBundle, load_data
from convscope.errors import RequestError, RunFolderError, SettingError, UnknownNameError
from convscope.nets import build_net
from convscope.runs import ANSWERS, METRICS, MODEL, OUTCOME, PREDICTIONS, Recipe, Run, open_run
from convscope.scans import evaluate, kept_epoch
from convscope.study import ImageComparison, compare
from convscope.training import Silent, train
from tests.planted import Plant, answer_with, chosen_logits


def _right(run: Run) -> np.ndarray:
    """Which test images are right, from the file itself."""
    stored = load_file(run.path / PREDICTIONS)
    return stored["logits"].argmax(1) == stored["target.class"]


def test_two_runs_are_compared_by_mcnemars_exact_test_on_the_same_images(plant: Plant) -> None:
    a, b = plant("a", wrong=range(5)), plant("b", wrong=range(3, 22), width=4)
    found = compare([a.path, str(b.path)])
    [pair] = found.pairs
    right = [_right(run) for run in (a, b)]
    table = [[int((x & y).sum()) for y in (right[1], ~right[1])] for x in (right[0], ~right[0])]
    assert (pair.compared.both, pair.compared.only_a, pair.compared.only_b, pair.compared.neither) == (98, 17, 3, 2)
    assert pair.compared.p == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert pair.compared.difference.value == pytest.approx(14 / 120)
    assert pair.p is None
    assert pair.verdict.startswith("a is better than b by 11.7 points (")
    assert pair.basis == "exact McNemar test on the same 120 test images, one run of each"


def test_several_pairs_are_corrected_by_holm(plant: Plant) -> None:
    runs = [plant("a", wrong=range(4)), plant("b", wrong=range(12), width=4), plant("c", wrong=range(10, 40), width=2)]
    found = compare(runs)
    ps = [pair.compared.p for pair in found.pairs]
    assert [(pair.a, pair.b) for pair in found.pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [pair.p for pair in found.pairs] == pytest.approx(multipletests(ps, method="holm")[1])


def test_groups_of_seeds_are_compared_by_a_paired_t_test(plant: Plant) -> None:
    wrong = {("wide", 0): 6, ("wide", 1): 9, ("wide", 2): 5, ("slim", 0): 14, ("slim", 1): 21, ("slim", 2): 12}
    runs = [
        plant(f"{name}-{seed}", wrong=range(n), seed=seed, width=8 if name == "wide" else 4)
        for (name, seed), n in wrong.items()
    ]
    found = compare(runs)
    [pair] = found.over_seeds
    shares = np.array([1 - n / 120 for n in wrong.values()]).reshape(2, 3)
    oracle = stats.ttest_rel(*shares)
    limits = oracle.confidence_interval()
    assert pair.compared.p == pytest.approx(oracle.pvalue)
    assert pair.compared.difference.figures[1:] == pytest.approx((limits.low, limits.high))
    assert (pair.a, pair.b, pair.basis) == ("net.width 8", "net.width 4", "paired t test over 3 seeds")
    assert [group.runs for group in found.groups] == [
        ("wide-0", "wide-1", "wide-2"),
        ("slim-0", "slim-1", "slim-2"),
    ]
    assert len(found.pairs) == 15
    assert found.settings == ("net.width", "recipe.seed")


def test_other_seeds_are_compared_by_welchs_test(plant: Plant) -> None:
    wide = [plant(f"w{s}", wrong=range(n), seed=s, width=8) for s, n in ((0, 6), (1, 9), (2, 5))]
    slim = [plant(f"s{s}", wrong=range(n), seed=s, width=4) for s, n in ((5, 14), (6, 21))]
    [pair] = compare(wide + slim).over_seeds
    oracle = stats.ttest_ind([114, 111, 115], [106, 99], equal_var=False)
    assert pair.compared.p == pytest.approx(oracle.pvalue)
    assert pair.basis == "Welch's t test over 3 and 2 seeds"


def test_intervals_of_few_seeds_stay_within_what_an_accuracy_can_be(plant: Plant) -> None:
    """Of 10 % and 70 % Student's interval would reach from −341 to 421 %, and that of the difference beyond 100 too."""
    wrong = {("slim", 0): 108, ("slim", 1): 36, ("wide", 0): 12, ("wide", 1): 9}
    runs = [
        plant(f"{name}-{seed}", wrong=range(n), seed=seed, width=8 if name == "wide" else 4)
        for (name, seed), n in wrong.items()
    ]
    found = compare(runs)
    assert found.groups[0].accuracy.mean.figures == pytest.approx((0.4, 0.0, 1.0))
    [pair] = found.over_seeds
    assert pair.compared.difference.figures == pytest.approx((-0.5125, -1.0, 1.0))
    assert not pair.told_apart


def test_a_seed_that_was_run_twice_counts_once(plant: Plant) -> None:
    runs = [plant("a", wrong=range(6)), plant("again", wrong=range(10)), plant("b", wrong=range(3), seed=1)]
    [group] = compare(runs).groups
    assert group.values == pytest.approx({0: 1 - 8 / 120, 1: 1 - 3 / 120})
    assert group.accuracy.n == 2


def test_another_setting_can_count_as_the_seed(plant: Plant) -> None:
    runs = [plant(f"{w}{d}", wrong=range(w + d), width=w, step_epochs=d) for w in (4, 8) for d in (1, 2)]
    assert compare(runs).over_seeds == ()
    found = compare(runs, seeds_by="recipe.step_epochs")
    assert [group.label for group in found.groups] == ["net.width 4", "net.width 8"]
    assert [group.values.keys() for group in found.groups] == [{1, 2}, {1, 2}]
    with pytest.raises(UnknownNameError, match=r"setting 'recipe.sed' .* did you mean 'recipe.seed'"):
        compare(runs, seeds_by="recipe.sed")
    with pytest.raises(SettingError, match=r"--seeds-by net.name: 41 has 'lines-net'; expected whole numbers"):
        compare(runs, seeds_by="net.name")


def test_what_can_be_told_is_said_as_far_as_it_goes(plant: Plant) -> None:
    a, b, c = plant("a"), plant("b", wrong=[1], seed=1), plant("c", wrong=[2], width=4)
    assert "They differ in the seed alone" in " ".join(compare([a, b]).notes())
    assert "not their recipes; for that, give several seeds" in " ".join(compare([a, c]).notes())
    assert compare([a, c]).over_seeds == ()
    [pair] = compare([a, b, c]).over_seeds
    assert "a single run gives no measure of chance" in pair.verdict


def test_images_that_only_one_gets_right_are_those_of_a_plain_loop(
    plant: Plant, spotted: tuple[Run, DataBundle]
) -> None:
    runs = [plant("a", wrong=range(20)), plant("b", wrong=range(10, 40)), plant("c", wrong=range(15, 60))]
    logits = chosen_logits(spotted[1], range(15, 60)) * torch.linspace(0.5, 1.5, 120)[:, None]
    answer_with(runs[2], spotted[1], logits)  # surer of some images than of others
    right = [_right(run) for run in runs]
    found = compare([open_run(run.path) for run in runs]).only_right()
    for place, name in enumerate("abc"):
        expected = [i for i in range(120) if [bool(r[i]) for r in right] == [other == place for other in range(3)]]
        assert sorted(found[name].tolist()) == expected
    assert found["a"].tolist() == list(range(20, 40))[::-1]  # c errs on them, the surer the later they come
    assert found["b"].tolist() == []
    assert found["c"].tolist() == list(range(10, 15))[::-1]


def test_the_difference_of_confusion_is_that_of_scikit_learns_matrices(plant: Plant) -> None:
    runs = [plant("a", wrong=range(9)), plant("b", wrong=range(30, 60), width=4)]
    found = compare(runs)
    matrices = []
    for run in runs:
        stored = load_file(run.path / PREDICTIONS)
        matrices.append(confusion_matrix(stored["target.class"], stored["logits"].argmax(1)))
    change = matrices[0] - matrices[1]
    assert (found.confusion_change()["class"] == change).all()
    moved = found.moved()
    assert moved["images"].abs().tolist() == sorted(np.abs(change[change != 0]).tolist(), reverse=True)
    first = moved.iloc[0]
    classes = list(runs[0].classes)
    assert change[classes.index(first["true"]), classes.index(first["predicted"])] == first["images"]


def test_figures_are_those_of_the_runs(plant: Plant) -> None:
    runs = [plant("a", wrong=range(9)), plant("b", wrong=range(30), width=4)]
    table = compare(runs).figures()
    for run, wrong in zip(runs, (9, 30), strict=True):
        [row] = table[(table["run"] == run.name) & (table["metric"] == "accuracy")].to_dict("records")
        assert (row["low"], row["high"]) == pytest.approx(proportion_confint(120 - wrong, 120, method="wilson"))
        [val] = table[(table["run"] == run.name) & (table["metric"] == "val_accuracy")]["value"]
        assert val == pytest.approx(run.history["val_accuracy"].iloc[-1])
    assert "top5" not in set(table["metric"])  # of three classes there is none


def test_the_kept_epoch_is_the_best_one_under_patience(plant: Plant) -> None:
    run = plant("a", patience=2, watch="val_loss")
    row = run.history.iloc[0].to_dict()
    losses = [0.5, 0.3, 0.4]
    run.write_history([{**row, "epoch": n + 1, "val_loss": loss} for n, loss in enumerate(losses)])
    assert kept_epoch(open_run(run.path))["epoch"] == 2
    spec = run.spec.model_copy(update={"recipe": run.spec.recipe.model_copy(update={"patience": None})})
    run.write_spec(spec)
    assert kept_epoch(open_run(run.path))["epoch"] == 3


def test_with_stages_the_kept_epoch_is_the_best_one_of_the_last(plant: Plant) -> None:
    run = plant("a", patience=2, watch="val_loss")
    row = run.history.iloc[0].to_dict()
    course = [("head", 0.2), ("head", 0.4), ("all", 0.5), ("all", 0.3), ("all", 0.4)]
    run.write_history([{**row, "epoch": n, "stage": s, "val_loss": loss} for n, (s, loss) in enumerate(course, 1)])
    assert kept_epoch(open_run(run.path))["epoch"] == 4
    assert cs.table(run.path.parent)["epoch"].tolist() == [4]


def test_settings_of_the_data_do_not_differ_where_the_images_are_the_same(plant: Plant) -> None:
    """As where one set lies in two folders."""
    a, b = plant("a"), plant("b", wrong=[0], seed=1)
    moved = b.spec.data.model_copy(update={"source": "elsewhere/spots.npz"})
    b.write_spec(b.spec.model_copy(update={"data": moved}))
    found = compare([a, open_run(b.path)])
    assert found.settings == ("recipe.seed",)
    assert len(found.groups) == 1


def test_runs_on_other_images_are_not_compared_by_images(plant: Plant, elsewhere: Run) -> None:
    found = compare([plant("a"), elsewhere])
    assert not found.same_images
    assert (found.pairs, found.only_right()) == ((), {})
    assert "These runs cannot be compared on the same test images" in found.notes()[0]
    assert {"data.source", "data.split"} <= set(found.settings)
    some = compare([plant("b"), plant("c", wrong=[1]), elsewhere])
    assert [(pair.a, pair.b) for pair in some.pairs] == [("b", "c")]
    assert "Some of these runs cannot" in some.notes()[0]


def test_looks_are_the_evaluated_runs_of_the_same_data_that_lie_beside(
    plant: Plant, elsewhere: Run, tmp_path: Path
) -> None:
    runs = [plant(name, wrong=[n]) for n, name in enumerate("abcd")]
    (runs[3].path / "metrics.json").unlink()  # trained, never looked at
    shutil.copytree(runs[0].path, tmp_path / "damaged")
    (tmp_path / "damaged" / "environment.json").write_text("{")
    assert {path.name for path in compare(runs[:2]).looks} == {"a", "b", "c"}
    assert elsewhere.has("metrics.json")  # of other data
    assert "have been looked at for 3 runs in" in compare(runs[:2]).notes()[-1]


def test_comparing_writes_nothing(plant: Plant, tmp_path: Path) -> None:
    runs = [plant("a"), plant("b", wrong=[3])]

    def state() -> dict[Path, str]:
        return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in tmp_path.rglob("*") if p.is_file()}

    before = state()
    compare(runs).to_json()
    assert state() == before


def test_json_holds_all_of_it_and_no_number_that_json_lacks(plant: Plant, spotted: tuple[Run, DataBundle]) -> None:
    runs = [plant(f"{w}{s}", wrong=range(w + s), width=w, seed=s) for w in (4, 8) for s in (0, 1)]
    test = spotted[1].test
    pd.DataFrame({"name": [test.name(i) for i in range(len(test))]}).to_parquet(runs[0].path / ANSWERS)
    found = json.loads(json.dumps(compare(runs).to_json(), allow_nan=False))
    asked = [row for rows in found["only_right"].values() for row in rows]
    assert asked
    assert found["image_names"] == {str(row): test.name(row) for row in sorted(asked)}
    assert [run["settings"] for run in found["runs"]] == [
        {"net.width": w, "recipe.seed": s} for w in (4, 8) for s in (0, 1)
    ]
    assert found["over_seeds"][0]["difference"]["value"] == pytest.approx(4 / 120)
    assert len(found["pairs"]) == 6
    assert found["looks"] == 4
    assert found["groups"][0]["accuracy"]["n"] == 2
    assert sum(cell["images"] for cell in found["confusion_change"][0]["cells"]) == 0


def test_a_figure_without_an_interval_has_null_for_its_limits(plant: Plant) -> None:
    runs = [plant("a", wrong=[0]), plant("b")]
    for run in runs:  # as of a single test image
        run.write_json(METRICS, run.metrics | {"loss": {"value": 0.5, "low": None, "high": None}})
    found = compare([run.path for run in runs]).to_json()
    assert json.loads(json.dumps(found, allow_nan=False))["runs"][0]["figures"]["loss"] == {
        "value": 0.5, "low": None, "high": None,
    }  # fmt: skip


def test_an_image_is_right_where_every_head_is(tmp_path: Path) -> None:
    data = load_data("lines", limit=960)
    task = {"colour": "sigmoid", "angle": "softmax"}
    runs = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        net = build_net("c4b M c8b f8", classes=13, channels=3, image_size=28)
        recipe = Recipe(epochs=2, batch=32, seed=seed)
        runs.append(train(net, data, recipe, tmp_path / f"run{seed}", task=task, device="cpu", watcher=Silent()))
        evaluate(runs[-1], data)
    found = compare(runs)
    right = []
    for run in runs:
        stored = load_file(run.path / PREDICTIONS)
        colour = (stored["logits"][:, 0] > 0) == stored["target.colour"]
        right.append(colour & (stored["logits"][:, 1:].argmax(1) == stored["target.angle"]))
    expected = ((right[0] & ~right[1]).sum(), (right[1] & ~right[0]).sum())
    assert isinstance(found.pairs[0].compared, ImageComparison)
    assert (found.pairs[0].compared.only_a, found.pairs[0].compared.only_b) == expected
    assert set(found.confusion_change()) == {"colour", "angle"}
    metrics = set(found.figures()["metric"])
    assert {"accuracy of colour", "accuracy of angle"} <= metrics
    assert not {"top5", "calibration_error"} & metrics  # which are those of the first head alone
    first = found.runs[0]
    assert first.named(first.answers.true[0]) == (
        f"{data.test.classes['colour'][data.test.targets_of('colour')[0]]}, "
        f"{data.test.classes['angle'][data.test.targets_of('angle')[0]]}"
    )
    shares = torch.tensor(load_file(runs[0].path / PREDICTIONS)["logits"])
    top = torch.maximum(shares[:, 0].sigmoid(), 1 - shares[:, 0].sigmoid()) * shares[:, 1:].softmax(1).amax(1)
    assert torch.allclose(first.answers.probability, top, atol=1e-5)


def test_modules_that_were_given_differ_by_their_tensors(spotted: tuple[Run, DataBundle], tmp_path: Path) -> None:
    data = spotted[1]
    runs = []
    for name, width, seed in (("a", 4, 0), ("b", 4, 1), ("c", 8, 0)):
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, width), torch.nn.Linear(width, 3))
        recipe = Recipe(epochs=1, batch=24, seed=seed)
        runs.append(train(net, data, recipe, tmp_path / name, device="cpu", watcher=Silent()))
        evaluate(runs[-1], data)
    found = compare([run.path for run in runs])
    assert [group.runs for group in found.groups] == [("a", "b"), ("c",)]
    assert found.settings == ("net.tensors", "recipe.seed")


def test_folders_of_one_name_are_told_by_their_paths(plant: Plant, tmp_path: Path) -> None:
    runs = [plant("x/run"), plant("y/run", wrong=[1])]
    assert compare(runs).names == [str(tmp_path / "x" / "run"), str(tmp_path / "y" / "run")]


def test_bad_requests(plant: Plant, reported_96: Run, tmp_path: Path) -> None:
    a, b = plant("a"), plant("my b", wrong=[1])
    with pytest.raises(RequestError, match=r"expected two or more runs, such as runs/a runs/b; given 1"):
        compare([a])
    with pytest.raises(RequestError, match="a is given twice; give each run once"):
        compare([a, b, a.path / ".." / "a"])
    with pytest.raises(
        RequestError, match=r"96 of 'class' .* apart, and .* 3 of 'class'.*give runs of the same classes"
    ):
        compare([a, reported_96])
    with pytest.raises(RunFolderError, match="nowhere is no folder"):
        compare([a, tmp_path / "nowhere"])
    (b.path / "metrics.json").unlink()
    with pytest.raises(RunFolderError, match=r"my b has no test figures yet: convscope evaluate '.*my b' makes them"):
        compare([a, b])
    (b.path / MODEL).unlink()
    with pytest.raises(
        RunFolderError, match=r"my b is not trained to its end: convscope train --resume '.*my b' takes it there"
    ):
        compare([a, b])


def test_predictions_of_another_network_are_refused(plant: Plant) -> None:
    a, b = plant("a"), plant("b")
    tensors = {"index": torch.arange(4), "logits": torch.zeros(4, 3)}
    b.write_tensors(PREDICTIONS, tensors, {"data": a.environment["data"]["digest"]})
    with pytest.raises(RunFolderError, match=r"is not what this run answers; delete it, and convscope evaluate"):
        compare([a, open_run(b.path)])


def test_it_is_on_the_public_face() -> None:
    assert cs.compare is compare


def test_a_run_that_did_not_come_to_its_end_says_why(plant: Plant) -> None:
    a, b = plant("a", wrong=range(5)), plant("b", wrong=range(3))
    b.write_json(OUTCOME, {"state": "diverged", "message": "the loss is nan", "attempts": 1})
    with pytest.raises(RunFolderError, match=r"b did not come to its end: diverged.*the loss is nan.*leave it out"):
        compare([a.path, b.path])
