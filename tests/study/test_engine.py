"""Workers in processes of their own, which are killed, stopped and replaced. `spots` are learned in a second."""

import errno
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from convscope.compute import Executor, LocalProcesses
from convscope.errors import FailedError, RunFolderError, SettingError, WriteError
from convscope.runs import MODEL, OUTCOME
from convscope.study import Study, open_study, read_study, sweep
from convscope.study.live import Finished, Silent, Standing
from convscope.study.store import Store, deaths_of, owner_of
from tests.conftest import write_spots
from tests.study.databases import postgresql
from tests.study.sweeps import command_line, going, in_the_middle, results, study_text, worked, workers_of

__all__ = ["postgresql"]

pytestmark = pytest.mark.own_processes

EPOCHS = 90


class Looking(Silent):
    """Remembers what it is shown, and does something the first time that it may."""

    def __init__(self, act: Callable[[], bool] = lambda: True) -> None:
        self.act, self.acted, self.lines, self.ended = act, False, [], []

    def show(self, standing: Standing) -> None:
        super().show(standing)
        self.acted = self.acted or self.act()

    def say(self, line: str) -> None:
        self.lines.append(line)

    def finished(self, each: Finished) -> None:
        self.ended.append(each)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return study_text(tmp_path_factory.mktemp("asked"), "recipe.rate: [0.001, 0.01]", epochs=EPOCHS, seeds=[0, 3])


@pytest.fixture(scope="module")
def undisturbed(text: str, tmp_path_factory: pytest.TempPathFactory) -> Study:
    study, store = worked(tmp_path_factory.mktemp("whole") / "study", text)
    store.close()
    return study


def _wait(until: Callable[[], object], process: object = None) -> None:
    for _ in range(1200):
        if until():
            return
        assert getattr(process, "poll", lambda: None)() is None, "it ended before its time"
        time.sleep(0.05)
    pytest.fail("nothing happened for a minute")


def _kill_one(folder: Path) -> bool:
    """Kills the worker of a run that is in the middle of its training."""
    if not going(folder) or not in_the_middle(folder):
        return False
    workers_of()[0].kill()
    return True


@pytest.mark.slow
def test_a_sweep_stopped_killed_and_bereft_of_its_worker_comes_to_the_same_bits(
    text: str, undisturbed: Study, tmp_path: Path
) -> None:
    asked, folder = tmp_path / "asked.yaml", tmp_path / "study"
    asked.write_text(text)
    command = ("sweep", asked, "--out", folder, "--device", "cpu")

    stopped = command_line(*command)
    _wait(lambda: in_the_middle(folder), stopped)
    stopped.send_signal(signal.SIGINT)
    _, said = stopped.communicate(timeout=60)
    assert stopped.returncode == 1
    assert said.splitlines()[-1].startswith("convscope: stopped with ")
    assert said.splitlines()[-1].endswith("of 4 runs done; all is saved: go on with the same command")
    assert going(folder) == {}

    killed = command_line(*command)
    _wait(lambda: any((folder / "runs").glob(f"*/{MODEL}")) and going(folder) and in_the_middle(folder), killed)
    for process in (*workers_of(killed.pid), killed):
        process.kill()
    killed.communicate()
    done = {path: path.stat().st_mtime_ns for path in (folder / "runs").glob(f"*/{MODEL}")}
    assert 0 < len(done) < 4

    view = Looking(lambda: _kill_one(folder))
    study = sweep(asked, folder, device="cpu", view=view)
    assert view.acted
    assert any("its worker died and is replaced: it was ended by SIGKILL" in line for line in view.lines)
    assert results(study) == results(undisturbed)
    assert {path: path.stat().st_mtime_ns for path in done} == done  # never twice
    store = Store(folder, study.spec)
    assert sum(deaths_of(trial) for trial in store.trials()) == 1  # that all was killed was no run's fault
    values = [trial.value for trial in store.trials()]
    store.close()
    assert values == _values(undisturbed)


def _values(study: Study) -> list[float]:
    runs = sorted(study.runs, key=lambda run: (run.seed, run.number))
    return [float(run.open().history["val_accuracy"].iloc[-1]) for run in runs]


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_two_sweeps_on_one_folder_share_the_work(
    database: str, undisturbed: Study, text: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    asked, folder = tmp_path / "asked.yaml", tmp_path / f"shared-{database}"
    asked.write_text(text)
    url = request.getfixturevalue("postgresql") if database == "postgresql" else None
    storage = ("--storage", url) if url else ()
    both = [command_line("sweep", asked, "--out", folder, "--device", "cpu", *storage) for _ in range(2)]
    said = [each.communicate(timeout=300)[1] for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    assert results(open_study(folder)) == results(undisturbed)
    store = Store(folder, undisturbed.spec, url)
    trials = store.trials()
    store.close()
    assert len(trials) == 4
    assert [trial.value for trial in trials] == _values(undisturbed)
    assert len({owner_of(trial) for trial in trials}) == 2
    assert (folder / "study.db").exists() == (url is None)
    assert "secret" not in "".join(said)


@pytest.mark.slow
def test_sweeps_take_turns_on_the_processes_of_one_executor(tmp_path: Path) -> None:
    """Each finds its own work, and the second need not wait for a process to start."""
    workers = []
    with LocalProcesses(1) as executor:
        for rates in ("[0.01, 0.02]", "[0.005]"):
            text = study_text(tmp_path, f"recipe.rate: {rates}", epochs=1)
            study = sweep(dict_of(text), tmp_path / rates, view=Looking(), device="cpu", executor=executor)
            assert [run.state for run in study.runs] == ["done"] * len(study.runs)
            workers.append([worker.pid for worker in workers_of()])
    assert len(workers[0]) == 1
    assert workers[0] == workers[1]
    assert workers_of() == []


BUILDERS = """
import os, signal, sys
from convscope.nets import build_net

def deadly(dies, **shape):
    if dies and sys.argv[0].endswith("worker.py"):
        os.kill(os.getpid(), signal.SIGKILL)
    return build_net("c4b M f8", **shape)
"""


@pytest.mark.slow
def test_a_run_that_ends_its_worker_twice_has_failed_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "builders.py").write_text(BUILDERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    text = study_text(tmp_path, "net.dies: [true, false]").replace("net: c8b M f8", "net: {name: 'builders:deadly'}")
    view = Looking()
    study = sweep(dict_of(text), tmp_path / "study", view=view, device="cpu")
    assert [run.state for run in study.runs] == ["failed", "done"]
    assert study.runs[0].message.startswith("its worker died 2 times: it was ended by SIGKILL")
    assert study.runs[0].open().read_json(OUTCOME)["attempts"] == 2
    assert [each.state for each in sorted(view.ended, key=lambda each: each.name)] == ["failed", "done"]
    again = sweep(dict_of(text), tmp_path / "study", view=Looking(), device="cpu")  # nothing is left to do
    assert [run.state for run in again.runs] == ["failed", "done"]


@pytest.mark.slow
def test_a_run_of_a_machine_that_fell_silent_is_taken_over_and_one_that_gives_signs_of_life_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs are claimed elsewhere; one claim beats on until the other has been done here, then is given back."""
    monkeypatch.setattr("convscope.study.engine.STALE_S", 2.5)
    folder = tmp_path / "study"
    folder.mkdir()
    spec = read_study(study_text(tmp_path, "recipe.rate: [0.01, 0.02]", epochs=1), "study.yaml")
    with closing(Store(folder, spec)) as elsewhere:
        elsewhere.fill()
        silent, alive = elsewhere.claim(), elsewhere.claim()
        assert silent
        assert alive

        def heartbeat() -> bool:
            elsewhere.heartbeat(elsewhere.look(alive))
            if open_study(folder).runs[silent.trial].state != "done":
                return False
            return elsewhere.requeue(elsewhere.look(alive))

        study = sweep(spec, folder, view=Looking(heartbeat), device="cpu")
        assert [run.state for run in study.runs] == ["done", "done"]
        assert (deaths_of(elsewhere.look(silent)), deaths_of(elsewhere.look(alive))) == (1, 0)


def dict_of(text: str) -> dict[str, object]:
    import yaml

    return yaml.safe_load(text)


def test_where_every_run_fails_the_sweep_has_failed(tmp_path: Path) -> None:
    text = study_text(tmp_path, "recipe.rate: [1.0e+9, 1.0e+10]")
    with pytest.raises(FailedError, match=r"no run came to its end; the first: the loss is"):
        sweep(dict_of(text), tmp_path / "study", view=Looking(), device="cpu")


def test_workers_that_cannot_begin_are_not_started_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convscope.compute.executor.sys.executable", "/bin/false")
    text = study_text(tmp_path, "recipe.rate: [0.01, 0.02]")
    with pytest.raises(FailedError, match="workers end before they have begun: it ended with status 1"):
        sweep(dict_of(text), tmp_path / "study", view=Looking(), device="cpu")


def test_what_is_there_is_refused_in_one_line(tmp_path: Path) -> None:
    text = study_text(tmp_path, "recipe.rate: [0.001, 0.01]", epochs=1)
    study, store = worked(tmp_path / "study", text)
    store.close()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    for folder, expected in [
        (study.path, r"holds another study \(sweep differ\)"),
        (study.runs[0].path, "holds a run, not a study"),
        (tmp_path / "other", "exists and is no study"),
    ]:
        with pytest.raises(RunFolderError, match=expected):
            sweep(dict_of(text.replace("[0.001, 0.01]", "[0.001]")), folder, view=Looking(), device="cpu")
    with pytest.raises(RunFolderError, match="holds no study"):
        open_study(tmp_path / "other")
    assert [file.name for file in (tmp_path / "other").iterdir()] == ["notes.txt"]


def test_seeds_are_added_to_a_finished_grid_and_they_alone_are_trained(tmp_path: Path) -> None:
    text = study_text(tmp_path, "recipe.rate: [0.001, 0.01]", epochs=1, seeds=[3, 1])
    study, store = worked(tmp_path / "study", text)
    store.close()
    before, view = results(study), Looking()
    for seeds in ("[1, 3]", "[3]", "[3, 2, 1]"):
        with pytest.raises(RunFolderError, match=r"\(seeds differ\); .*; seeds can be added behind \[3, 1\]"):
            sweep(dict_of(text.replace("[3, 1]", seeds)), study.path, view=view, device="cpu")
    after = sweep(dict_of(text.replace("[3, 1]", "[3, 1, 2]")), study.path, view=view, device="cpu")
    assert [one.name for one in view.ended] == ["0001-s2", "0002-s2"]
    assert {name: results(after)[name] for name in before} == before
    assert [run.state for run in after.runs] == ["done"] * 6


def test_a_search_has_the_seeds_it_began_with(tmp_path: Path) -> None:
    text = study_text(tmp_path, "recipe.rate: [0.001, 0.01]", epochs=1, sampler="random", budget={"runs": 4})
    study, store = worked(tmp_path / "study", text)
    store.close()
    with pytest.raises(
        RunFolderError, match=r"holds another study \(seeds differ\); choose another --out, or delete it$"
    ):
        sweep({**dict_of(text), "seeds": [0, 1]}, study.path, view=Looking(), device="cpu")


def test_a_run_whose_folder_was_deleted_is_said_not_to_be_trained_again(tmp_path: Path) -> None:
    text, view = study_text(tmp_path, "recipe.rate: [0.001, 0.01]", epochs=1), Looking()
    study, store = worked(tmp_path / "study", text)
    store.close()
    shutil.rmtree(study.runs[1].path)
    sweep(dict_of(text), study.path, view=view, device="cpu")
    assert view.lines == [
        "0002-s0: done before, and now without a folder; to train what is gone again, delete "
        f"{study.path / 'study.db'} too"
    ]
    (study.path / "study.db").unlink()
    again, store = worked(study.path, text)
    store.close()
    assert [run.state for run in again.runs] == ["done", "done"]


def test_what_every_run_would_stumble_over_is_found_before_the_first(text: str, tmp_path: Path) -> None:
    for old, new, expected in [
        ("recipe.rate: [0.001, 0.01]", "net.widht: [1, 2]", "net: 'layers'|option 'widht'"),
        (
            "recipe.rate: [0.001, 0.01]",
            "net.name: [c8b M f8, nett4]",
            "net.name: network 'nett4' is not in the catalogue",
        ),
    ]:
        with pytest.raises(SettingError, match=expected):
            sweep(dict_of(text.replace(old, new)), tmp_path / "study", view=Looking(), device="cpu")
    assert not (tmp_path / "study").exists()
    with pytest.raises(SettingError, match="workers: 0"):
        sweep(dict_of(text), tmp_path / "study", workers=0)


@pytest.mark.parametrize("nets", [["c8b M f8", "net1"], ["net1", "c8b M f8"]])
def test_an_option_that_one_of_several_networks_lacks_fails_in_its_runs_alone(nets: list[str], tmp_path: Path) -> None:
    write_spots(tmp_path / "spots.npz", 120, side=16)
    text = study_text(tmp_path, f"net.name: {nets}, net.width: [4]", epochs=1)
    study = sweep(dict_of(text), tmp_path / "study", view=Looking(), device="cpu")
    assert {run.path.name: run.state for run in study.runs} == {
        f"{number:04d}-s0": "done" if name == "net1" else "failed" for number, name in enumerate(nets, 1)
    }


def test_a_storage_with_another_study_of_this_name(text: str, postgresql: str, tmp_path: Path) -> None:
    (tmp_path / "a" / "same").mkdir(parents=True)
    Store(tmp_path / "a" / "same", read_study(text, "s"), postgresql).close()
    with pytest.raises(SettingError, match="--storage holds another study named 'same'"):
        sweep(dict_of(text.replace("0.01]", "0.02]")), tmp_path / "b" / "same", storage=postgresql, device="cpu")


def test_a_store_that_finds_no_room_is_one_line(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import OperationalError

    def full(self: Store) -> None:
        raise StorageInternalError("during the commit") from OperationalError("UPDATE", {}, Exception("disk is full"))

    monkeypatch.setattr(Store, "fill", full)
    with pytest.raises(
        FailedError, match=r"store of the study cannot be used: .*disk is full; free space, or "
    ) as told:
        sweep(dict_of(text), tmp_path / "study", view=Looking(), device="cpu")
    assert "\n" not in str(told.value)


def test_where_there_is_no_room_no_run_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room again the same sweep goes on, and every run comes to its end."""
    text = study_text(tmp_path, "recipe.rate: [0.001, 0.01]", epochs=1)
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target).name == MODEL:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as at_first:
        at_first.setattr("convscope.compute.whole.os.replace", full)
        with pytest.raises(WriteError, match=r"0001-s0/model.safetensors cannot be written: .*; free space there"):
            sweep(dict_of(text), tmp_path / "study", view=Looking(), device="cpu", executor=Executor())
    study = sweep(dict_of(text), tmp_path / "study", view=Looking(), device="cpu", executor=Executor())
    assert [run.state for run in study.runs] == ["done", "done"]
