"""Tables of runs against what pandas, SciPy and the run folders themselves say."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

import convscope as cs
from convscope.compute import cache_folder
from convscope.errors import RequestError, RunFolderError, SettingError, UnknownNameError
from convscope.runs import HISTORY, METRICS, MODEL, OUTCOME, SPEC, open_run
from convscope.study import Runs, histories, importance, importance_in_words, summary_of, table


def unlike(grid: Path, name: str, like: str = "0000-s0", **settings: object) -> Path:
    """A copy of a run with other settings in its recipe."""
    made = grid / "runs" / name
    shutil.copytree(grid / "runs" / like, made)
    spec = yaml.safe_load((made / SPEC).read_text())
    spec["recipe"] |= settings
    (made / SPEC).write_text(yaml.safe_dump(spec))
    return made


def stopped(grid: Path, name: str, state: str | None, epochs: int, **settings: object) -> Path:
    """A run that did not come to its end."""
    made = unlike(grid, name, **settings)
    for part in (METRICS, MODEL):
        (made / part).unlink()
    open_run(made).history.head(epochs).to_parquet(made / HISTORY, index=False)
    if not epochs:
        (made / HISTORY).unlink()
    if state:
        (made / OUTCOME).write_text(json.dumps({"state": state, "message": f"it {state}", "attempts": 1}))
    return made


def by_hand(grid: Path) -> pd.DataFrame:
    """Each run, opened one by one."""
    rows = []
    for path in sorted((grid / "runs").iterdir()):
        run = open_run(path)
        last, test = run.history.iloc[-1], run.metrics
        rows.append({
            "run": f"runs/{path.name}", "net.width": run.spec.net.options["width"],
            "net.kernel": run.spec.net.options["kernel"], "seed": run.spec.recipe.seed, "state": "finished",
            "epoch": int(last["epoch"]),
            "val_accuracy": last["val_accuracy"], "test_accuracy": test["accuracy"]["value"],
            "test_accuracy_low": test["accuracy"]["low"], "test_accuracy_high": test["accuracy"]["high"],
            "train_accuracy": last["train_accuracy"],
            "overfit_percent": 100 * (last["train_accuracy"] - test["accuracy"]["value"]),
            "val_loss": last["val_loss"], "train_loss": last["train_loss"],
            "parameters": sum(p.numel() for p in run.net.parameters()), "seconds": run.history["seconds"].sum(),
        })  # fmt: skip
    return pd.DataFrame(rows)


def test_runs_stand_in_the_order_of_their_names(tmp_path: Path) -> None:
    names = ["s001", "s01", "s1", "s2", "s10"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / OUTCOME).write_text('{"state": "failed"}')
    assert [*table(tmp_path)["run"]] == names


def test_a_row_a_run(grid: Path) -> None:
    found, expected = table(grid), by_hand(grid)
    assert [c for c in found.columns if not c.startswith("overfit_percent_")] == [*expected.columns, "message"]
    assert found["message"].isna().all()
    pd.testing.assert_frame_equal(found[expected.columns], expected, check_dtype=False, rtol=1e-9)
    assert found.attrs["notes"] == []


def test_all_settings_and_any_metric(grid: Path) -> None:
    found = table(grid, metrics=["test_recall", "parameters", "rate"], all_settings=True)
    run = open_run(grid / "runs" / "0003-s1")
    row = found.set_index("run").loc["runs/0003-s1"]
    assert row["test_recall_low"] == run.metrics["recall"]["low"]
    assert row["recipe.augmentation.flip"] == "none"
    assert row["recipe.batch"] == 24
    assert row["rate"] == run.history["rate"].iloc[-1]
    assert "val_accuracy" not in found
    assert list(found.columns).count("parameters") == 1


@pytest.mark.parametrize("by", [["net.width"], ["net.width", "net.kernel"], ["net.kernel", "seed"]])
def test_groups_against_pandas_and_scipy(grid: Path, by: list[str]) -> None:
    found, rows = table(grid, by=by), by_hand(grid)
    keys = ["recipe.seed" if key == "seed" else key for key in by]
    for metric in ("val_accuracy", "test_accuracy", "overfit_percent", "train_loss", "parameters", "seconds"):
        groups = rows.groupby(by)[metric]
        np.testing.assert_allclose(found[metric], groups.mean(), rtol=1e-12)
        np.testing.assert_allclose(found[f"{metric}_deviation"], groups.std(), rtol=1e-9, atol=1e-12)
        half = stats.t.ppf(0.975, groups.count() - 1) * groups.sem()
        least, most = -np.inf if metric == "overfit_percent" else 0, 1 if metric.endswith("accuracy") else np.inf
        np.testing.assert_allclose(found[f"{metric}_low"], np.maximum(groups.mean() - half, least), rtol=1e-8)
        np.testing.assert_allclose(found[f"{metric}_high"], np.minimum(groups.mean() + half, most), rtol=1e-8)
        assert found[f"{metric}_n"].tolist() == groups.count().tolist()
    assert list(zip(*(found[key] for key in keys), strict=True)) == sorted(
        {tuple(row) for row in rows[by].itertuples(index=False)}
    )


def test_a_group_of_one_has_no_interval(grid: Path) -> None:
    found = table(grid, by=["net.width", "net.kernel", "recipe.seed"], metrics=["val_loss"])
    assert (found["val_loss_n"] == 1).all()
    assert found[["val_loss_deviation", "val_loss_low", "val_loss_high"]].isna().all(axis=None)


def test_matrices_against_pivots(grid: Path) -> None:
    unlike(grid, "0009-s0", rate=0.5)
    rows = table(grid)
    [one] = Runs(grid).matrices(["net.width", "net.kernel"], ["val_loss"])
    assert (one.rows, one.columns, one.over) == ("net.width", "net.kernel", ())
    three = Runs(grid).matrices(["net.width", "net.kernel", "recipe.rate"], ["val_loss"])
    assert [(m.rows, m.columns, m.over) for m in three] == [
        ("net.width", "net.kernel", ("recipe.rate",)),
        ("net.width", "recipe.rate", ("net.kernel",)),
        ("net.kernel", "recipe.rate", ("net.width",)),
    ]
    for found in (one, *three):
        pivot = rows.pivot_table(values="val_loss", index=found.rows, columns=found.columns)
        np.testing.assert_allclose(found.cells.to_numpy(), pivot.to_numpy(), rtol=1e-12)
        assert found.cells.index.tolist() == pivot.index.tolist()
    assert np.isnan(three[1].cells.to_numpy()).any()  # width 8 has no run of that rate


def test_a_setting_of_very_many_values_is_in_no_matrix(grid: Path) -> None:
    for number in range(50):
        made = grid / "runs" / f"1{number:03d}-s0"
        made.mkdir()
        spec = yaml.safe_load((grid / "runs" / "0000-s0" / SPEC).read_text())
        spec["recipe"]["rate"] = 0.001 + number / 1e5
        (made / SPEC).write_text(yaml.safe_dump(spec))
    found = Runs(grid).matrices(["net.width", "recipe.rate", "net.kernel"], ["val_loss"])
    assert [(one.rows, one.columns, one.over) for one in found] == [("net.width", "net.kernel", ("recipe.rate",))]


def test_the_epoch_shown(grid: Path) -> None:
    """Where the last epoch is not the best, test figures belong to whichever was kept."""
    for name, patience in (("0100-s0", None), ("0101-s0", 5)):
        made = unlike(grid, name, patience=patience)
        open_run(made).history.assign(val_loss=[0.3, 0.1, 0.2]).to_parquet(made / HISTORY, index=False)

    def shown(name: str, epoch: str | int | None) -> tuple[int, bool]:
        row = table(grid, epoch=epoch).set_index("run").loc[f"runs/{name}"]
        return int(row["epoch"]), bool(np.isfinite(row["test_accuracy"]))

    assert [shown("0100-s0", epoch) for epoch in (None, "last", "best", 2, "3")] == [
        (3, True), (3, True), (2, False), (2, False), (3, True)]  # fmt: skip
    assert [shown("0101-s0", epoch) for epoch in (None, "last", "best", 2, "3")] == [
        (2, True), (3, False), (2, True), (2, True), (3, False)]  # fmt: skip
    assert "kept another epoch's" in table(grid, epoch=1).attrs["notes"][0]
    assert table(grid, metrics=["val_loss"], epoch=1).attrs["notes"] == []
    accuracy = unlike(grid, "0102-s0", watch="val_accuracy")
    open_run(accuracy).history.assign(val_accuracy=[0.9, 0.5, 0.9]).to_parquet(accuracy / HISTORY, index=False)
    assert shown("0102-s0", "best") == (1, False)  # the first of equals, as the training keeps


def test_runs_that_did_not_finish_are_rows_and_count_in_no_mean(grid: Path) -> None:
    before = table(grid, by=["net.width"])
    stopped(grid, "0020-s0", "diverged", 1, rate=30.0)
    stopped(grid, "0021-s0", "pruned", 2)
    stopped(grid, "0022-s0", None, 0)
    (unlike(grid, "0023-s0") / METRICS).unlink()
    (grid / "runs" / "0024-s0").mkdir()
    (grid / "runs" / "0024-s0" / OUTCOME).write_text('{"state": "failed", "message": "net.kernel: 99 is too large"}')
    rows = table(grid).set_index("run")
    states = ["diverged", "pruned", "unfinished", "trained", "failed"]
    assert rows["state"].tolist()[8:] == states
    assert rows["message"].tolist()[8:10] == ["it diverged", "it pruned"]
    assert rows.loc["runs/0020-s0", "recipe.rate"] == 30
    assert rows["epoch"].tolist()[8:] == [1, 2, pd.NA, 3, pd.NA]
    assert np.isfinite(rows["val_loss"]).tolist()[8:] == [True, True, False, True, False]
    assert rows["test_accuracy"].isna().tolist()[8:] == [True] * 5
    assert rows.loc["runs/0022-s0", "parameters"] == rows.loc["runs/0000-s0", "parameters"]
    assert "data.source" not in rows  # the failed run without a spec is not one of other settings
    after = table(grid, by=["net.width"]).set_index("net.width")
    assert after.index.tolist() == [None, 4, 8]
    assert [type(width) for width in rows["net.width"][7:9]] == [int, int]
    assert after["runs"].tolist() == [0, 5, 4]  # the trained one counts
    assert after["not_finished"].tolist() == [1, 3, 0]
    assert after.loc[8, "val_loss"] == before.set_index("net.width").loc[8, "val_loss"]
    assert after.loc[4, "test_accuracy_n"] == 4


def test_damaged_files_are_named_and_stop_nothing(grid: Path) -> None:
    (grid / "runs" / "0000-s0" / METRICS).write_text("{")
    (grid / "runs" / "0001-s0" / HISTORY).write_bytes(b"PAR1 no more")
    (grid / "runs" / "0002-s0" / SPEC).write_text("a: b: c")
    (grid / "runs" / "0003-s0" / METRICS).write_text('{"accuracy": {"value": "high", "low": [], "high": 1}}')
    rows = table(grid).set_index("run")
    for number, part in enumerate((METRICS, HISTORY, SPEC)):
        row = rows.loc[f"runs/000{number}-s0"]
        assert (row["state"], row["message"]) == ("damaged", f"{part} is damaged")
    assert np.isfinite(rows.loc["runs/0000-s0", "val_loss"])
    assert np.isnan(rows.loc["runs/0003-s0", "test_accuracy"])
    assert np.isfinite(rows.loc["runs/0003-s1", "test_accuracy"])


def test_histories_in_one_table(grid: Path) -> None:
    stopped(grid, "0020-s0", "diverged", 1)
    found = histories(grid)
    parts = [open_run(path).history.assign(run=f"runs/{path.name}") for path in sorted((grid / "runs").iterdir())]
    expected = pd.concat(parts, ignore_index=True)
    pd.testing.assert_frame_equal(found[expected.columns], expected)
    assert len(found) == 8 * 3 + 1
    assert list(found.columns[:5]) == ["run", "net.width", "net.kernel", "seed", "epoch"]
    assert found.loc[found.run == "runs/0003-s1", "net.width"].tolist() == [8, 8, 8]


def test_importance_is_that_of_the_rows(grid: Path) -> None:
    stopped(grid, "0020-s0", "diverged", 1, rate=30.0)
    found = Runs(grid).importance(metrics=["val_loss"])
    rows = table(grid).query("state == 'finished'")
    assert found == importance(rows, ["net.width", "net.kernel"], "val_loss")
    assert importance_in_words(found).startswith("Of the variance of val_loss over 8 runs, ")


def test_importance_in_words() -> None:
    rows = pd.DataFrame({"a": [0, 0, 1, 1] * 4, "b": [0, 1] * 8, "y": [0.0, 0.1, 5.0, 5.2] * 4})
    rows["y"] += np.tile([0.0, 0.3, 0.1, 0.2], 4).repeat(1) + np.arange(16) % 5 * 0.2
    said = importance_in_words(importance(rows, ["a", "b"], "y", interactions=False))
    share = 100 * (rows.groupby("a").y.mean() - rows.y.mean()).pow(2).sum() * 8 / ((rows.y - rows.y.mean()) ** 2).sum()
    assert said == (
        f"Of the variance of y over 16 runs, a explains {share:.0f} % (p < 0.0001 (Holm)); what b explains may be chance"
    )


def test_mixed_data_sets_are_said(grid: Path) -> None:
    made = grid / "runs" / "0000-s0" / "environment.json"
    made.write_text(json.dumps(json.loads(made.read_text()) | {"data": {"name": "spots", "digest": "f" * 64}}))
    [note] = table(grid).attrs["notes"]
    assert note.startswith("the runs are of 2 data sets (1 of spots ffffffff, 7 of spots ")


def test_copies_count_once(grid: Path) -> None:
    """Two more folders of one run, as an older search left them: n, interval and importance are those without them."""
    before, matters = table(grid, by=["net.width"]), Runs(grid).importance()
    for name in ("0090-s0", "0091-s0"):
        shutil.copytree(grid / "runs" / "0000-s0", grid / "runs" / name)
    after = table(grid, by=["net.width"])
    pd.testing.assert_frame_equal(after, before)
    assert Runs(grid).importance() == matters
    assert Runs(grid).matrices(["net.width", "net.kernel"])[0].cells.notna().any(axis=None)
    assert len(table(grid)) == len(by_hand(grid))
    assert table(grid).attrs["notes"] == [
        "2 runs are the same to the bit as another of these, and counted once with it"
    ]
    assert cs.compare([grid / "runs" / name for name in ("0000-s0", "0090-s0", "0000-s1")]).groups[0].accuracy.n == 2


def test_runs_of_one_seed_that_differ_count_each(grid: Path) -> None:
    """As of another number of threads: they are no copies."""
    made = unlike(grid, "0090-s0")
    open_run(made).history.assign(val_loss=lambda frame: frame.val_loss + 1e-9).to_parquet(made / HISTORY, index=False)
    assert table(grid, by=["net.width"])["runs"].sum() == len(by_hand(grid))


class TestIndex:
    @pytest.fixture(autouse=True)
    def own_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CONVSCOPE_CACHE", str(tmp_path / "cache"))

    def index(self) -> Path:
        """The only one."""
        [found] = (cache_folder() / "tables").glob("*.parquet")
        return found

    def reads(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The runs that are read from now on."""
        read: list[str] = []
        real = cs.study.facts.read_facts

        def spied(folder: Path) -> object:
            read.append(folder.name)
            return real(folder)

        monkeypatch.setattr("convscope.study.index.read_facts", spied)
        return read

    def test_only_what_has_changed_is_read_again(self, grid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        read = self.reads(monkeypatch)
        first = table(grid)
        assert len(read) == 8
        written = self.index().stat().st_mtime_ns
        read.clear()
        pd.testing.assert_frame_equal(table(grid), first)
        assert read == []
        assert self.index().stat().st_mtime_ns == written
        os.utime(grid / "runs" / "0001-s1" / METRICS)
        (grid / "runs" / "0002-s0" / OUTCOME).write_text('{"state": "diverged"}')
        shutil.rmtree(grid / "runs" / "0003-s1")
        unlike(grid, "0000-s2", seed=2)
        second = table(grid)
        assert sorted(read) == ["0000-s2", "0001-s1", "0002-s0"]
        self.index().unlink()
        pd.testing.assert_frame_equal(table(grid), second)
        assert second["run"].tolist()[:3] == ["runs/0000-s0", "runs/0000-s1", "runs/0000-s2"]

    @pytest.mark.parametrize("damage", [b"", b"PAR1", "cut"])
    def test_a_damaged_index_is_made_anew(self, grid: Path, damage: bytes | str) -> None:
        first = table(grid)
        whole = self.index().read_bytes()
        self.index().write_bytes(whole[: len(whole) // 2] if isinstance(damage, str) else damage)
        pd.testing.assert_frame_equal(table(grid), first)
        assert self.index().read_bytes() == whole

    def test_nothing_is_written_beside_the_runs(self, grid: Path) -> None:
        before = sorted(grid.rglob("*"))
        pd.DataFrame({"mine": [1]}).to_parquet(grid / "table.parquet")
        theirs = (grid / "table.parquet").read_bytes()
        assert len(table(grid)) == 8
        assert (grid / "table.parquet").read_bytes() == theirs
        assert sorted(grid.rglob("*")) == sorted([*before, grid / "table.parquet"])

    def test_a_folder_of_the_same_name_has_an_index_of_its_own(self, grid: Path, tmp_path: Path) -> None:
        first = table(grid)
        other = shutil.copytree(grid, tmp_path / "other" / grid.name)
        shutil.rmtree(other / "runs" / "0000-s0")
        assert len(table(other)) == len(first) - 1
        pd.testing.assert_frame_equal(table(grid), first)
        assert len(list((cache_folder() / "tables").glob(f"{grid.name}-*.json"))) == 2

    def test_a_cache_that_cannot_be_written(self, grid: Path) -> None:
        expected = by_hand(grid)
        cache_folder().write_text("a file where the folder should be")
        assert table(grid)["val_loss"].tolist() == expected["val_loss"].tolist()
        assert list(grid.glob(".*")) == []

    def test_two_processes_at_once(self, grid: Path) -> None:
        expected = table(grid).to_json()
        code = (
            "import sys; from convscope.compute import cache_folder, prune; from convscope.study import table\n"
            "for _ in range(10): prune(cache_folder(), 0); print(table(sys.argv[1]).to_json())"
        )
        arguments = [sys.executable, "-c", code, str(grid)]
        processes = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        printed = [process.communicate()[0].splitlines() for process in processes]
        assert printed == [[expected] * 10] * 2
        assert {path.name for path in grid.iterdir()} == {"runs", "spots.npz"}
        assert {path.suffix for path in self.index().parent.iterdir()} == {".json", ".parquet"}


def test_any_folder_with_runs_below_it(grid: Path, tmp_path: Path) -> None:
    """Deep ones, links to runs; not hidden ones, and not what is inside a run."""
    (tmp_path / "mine" / "deep" / "er").mkdir(parents=True)
    shutil.copytree(grid / "runs" / "0000-s0", tmp_path / "mine" / "deep" / "er" / "a10")
    shutil.copytree(grid / "runs" / "0000-s1", tmp_path / "mine" / "deep" / "er" / "a9")
    shutil.copytree(grid / "runs" / "0000-s1", tmp_path / "mine" / ".hidden")
    shutil.copytree(grid / "runs" / "0000-s1", tmp_path / "mine" / "deep" / "er" / "a9" / "inner")
    (tmp_path / "mine" / "linked").symlink_to(grid / "runs" / "0003-s0")
    (tmp_path / "mine" / "round").symlink_to(tmp_path / "mine")
    assert table(tmp_path / "mine")["run"].tolist() == ["deep/er/a9", "deep/er/a10", "linked"]


def test_settings_of_several_networks(grid: Path) -> None:
    """Options that only some networks have, lists, and words beside numbers."""
    for name, net in (
        ("0030-s0", {"name": "c8 M f8"}),
        ("0031-s0", {"name": "net1", "width": "wide", "sizes": [1, 2]}),
    ):
        made = unlike(grid, name)
        spec = yaml.safe_load((made / SPEC).read_text())
        (made / SPEC).write_text(yaml.safe_dump(spec | {"net": {**net, "init": "default"}}))
    rows = table(grid).set_index("run")
    assert rows["net.width"].tolist() == [4, 4, 4, 4, 8, 8, 8, 8, None, "wide"]
    assert rows.loc["runs/0031-s0", "net.sizes"] == "[1, 2]"
    assert table(grid, by=["net.width"])["net.width"].tolist() == [None, 4, 8, "wide"]


def test_bad_requests(grid: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"setting 'net\.widht' is not in these runs; did you mean 'net\.width'"):
        table(grid, by=["net.widht"])
    with pytest.raises(UnknownNameError, match="metric 'accuracy' is not in these runs; did you mean 'val_accuracy'"):
        table(grid, metrics=["accuracy"])
    with pytest.raises(RequestError, match="no run has an epoch 4; the longest has 3"):
        table(grid, epoch=4)
    for epoch in ("first", 0, "-1"):
        with pytest.raises(SettingError, match="expected best, last, or a number from 1"):
            table(grid, epoch=epoch)
    with pytest.raises(RunFolderError, match="no-such is no folder; expected one with runs below it"):
        table(tmp_path / "no-such")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunFolderError, match="empty has no runs below it"):
        table(tmp_path / "empty")
    with pytest.raises(RunFolderError, match="0000-s0 is a run itself"):
        table(grid / "runs" / "0000-s0")
    assert list((tmp_path / "empty").iterdir()) == []


def test_what_follows_from_a_setting_of_a_study_is_none_itself(grid: Path) -> None:
    """Momentum differs with the optimizer, which alone was asked for."""
    unlike(grid, "0900-s0", optimizer="sgd", momentum=0.9)
    assert {"recipe.optimizer", "recipe.momentum"} <= set(Runs(grid).settings)
    (grid / "study.yaml").write_text("sweep: {net.width: [6, 12], recipe.optimizer: [adamw, sgd]}\n")
    assert Runs(grid).settings == ("net.width", "recipe.optimizer")


def test_a_swept_mapping_is_one_setting(grid: Path) -> None:
    """Its parts change together, so that only the whole can be told to matter: here width 4 has kernel 3, and 8 has 5."""
    for name in ("0001-s0", "0001-s1", "0002-s0", "0002-s1"):
        shutil.rmtree(grid / "runs" / name)
    with pytest.raises(RequestError, match="changed together"):
        Runs(grid).importance()
    (grid / "study.yaml").write_text("sweep: {net: [{name: net1, width: 4, kernel: 3}, {width: 8, kernel: 5}]}\n")
    [term] = Runs(grid).importance().terms
    assert term.settings == ("net",)
    assert term.share == pytest.approx(Runs(grid).importance(["net.width"]).terms[0].share)
    assert table(grid)["net"].map(json.loads).tolist() == 2 * [{"width": 4, "kernel": 3}] + 2 * [
        {"width": 8, "kernel": 5}
    ]
    assert table(grid, by=["net"])["runs"].tolist() == [2, 2]


def test_a_swept_key_within_a_list_is_a_setting(grid: Path) -> None:
    """What follows from it, here the whole list, is none."""
    for path in (grid / "runs").glob("*/spec.yaml"):
        spec = yaml.safe_load(path.read_text())
        epochs = 3 if spec["net"]["width"] == 4 else 5
        spec["recipe"] |= {
            "epochs": 1 + epochs,
            "stages": [{"name": "a", "epochs": 1}, {"name": "b", "epochs": epochs}],
        }
        path.write_text(yaml.safe_dump(spec))
    (grid / "study.yaml").write_text("sweep: {recipe.stages.1.epochs: [3, 5], net.kernel: [3, 5]}\n")
    assert Runs(grid).settings == ("net.kernel", "recipe.stages.1.epochs")
    assert table(grid, by=["recipe.stages.1.epochs"])["recipe.stages.1.epochs"].tolist() == [3, 5]
    assert len(Runs(grid).importance().terms) == 3
    for unknown in ("recipe.stages.2.epochs", "recipe.stages.epochs", "net.width.x"):
        with pytest.raises(UnknownNameError):
            table(grid, by=[unknown])


def test_a_swept_name_is_told_from_its_mapping_by_its_name(grid: Path) -> None:
    for name in ("0002-s0", "0002-s1", "0003-s0", "0003-s1"):
        path = grid / "runs" / name / SPEC
        path.write_text(path.read_text().replace("name: net1", "name: net2"))
    (grid / "study.yaml").write_text("sweep: {net: [net1, net2]}\n")
    assert Runs(grid).settings == ("net.name",)


@pytest.mark.parametrize("sweep", ["5", "net.width", "[net.width]", "true", "2026-01-01"])
def test_a_sweep_that_is_no_mapping_is_refused_in_one_line(grid: Path, sweep: str) -> None:
    (grid / "study.yaml").write_text(f"sweep: {sweep}\n")
    with pytest.raises(
        SettingError, match=r"^[^\n]*study\.yaml: sweep: [^\n]+: expected keys with a list of values each"
    ):
        table(grid)


def test_class_weights_are_one_setting_in_tables_and_importance(grid: Path) -> None:
    """A word, weights by class, and none: three values of one setting, not a setting for each class."""
    values = [None, "balanced", {"0": 1.0, "1": 3.0}]
    for number, weights in enumerate(values):
        for seed in (0, 1):
            unlike(grid, f"01{number}-s{seed}", f"0000-s{seed}", class_weights=weights, patience=None)
    shutil.rmtree(grid / "runs" / "0000-s0")
    shutil.rmtree(grid / "runs" / "0000-s1")
    for path in (grid / "runs").glob("000*"):
        shutil.rmtree(path)
    for place, path in enumerate(
        sorted((grid / "runs").iterdir())
    ):  # figures that differ, so that they can be explained
        history = open_run(path).history
        history["val_accuracy"] = 0.5 + 0.1 * (place // 2) + 0.01 * (place % 2)
        history.to_parquet(path / HISTORY, index=False)
    assert Runs(grid).settings == ("recipe.class_weights",)
    found = table(grid, by=["recipe.class_weights"], metrics=["val_accuracy"])
    assert found["recipe.class_weights"].tolist() == [None, "balanced", '{"0": 1.0, "1": 3.0}']
    assert found["val_accuracy"].tolist() == pytest.approx([0.505, 0.605, 0.705])
    [term] = Runs(grid).importance().terms
    assert (term.name, term.freedom) == ("recipe.class_weights", 2)
    assert term.share > 0.99


@pytest.mark.parametrize("name", ["test_recall", "test_f1", "test_calibration_error", "val_accuracy"])
def test_the_interval_of_a_share_stays_from_0_to_1(name: str) -> None:
    spread = summary_of(name, [0.01, 0.99, 0.98])
    assert (spread.mean.low, spread.mean.high) == (0, 1)
    loss = summary_of("val_loss", [0.01, 9.0, 4.0])
    assert loss.mean.low == 0
    assert (loss.mean.high or 0) > 9
