"""The driver of a cluster, whose tasks are done at once."""

from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from convscope.compute import Executor
from convscope.errors import WriteError
from convscope.study import cluster, sweep
from convscope.study.live import Silent
from convscope.study.spec import make_study
from convscope.study.store import Store
from convscope.study.worker import Job
from tests.study.sweeps import study_text


class AtOnce(Executor):
    """Stands for a cluster whose tasks give back a file."""

    is_remote, gpus, checkpoint_s, count = True, 0.0, 30.0, 3

    def __init__(self) -> None:
        """Of nothing."""

    def shares(self, folder: Path) -> bool:
        return False

    def line(self, key: str) -> str:
        return key

    def messages(self) -> list[Any]:
        return []

    def put(self, value: Any) -> Any:
        return value

    def kill(self) -> None:
        """Nothing runs."""

    def submit(self, *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(cluster.Reply("done", "", 0.5, {"spec.yaml": b""}, ()))
        return future


@pytest.mark.usefixtures("annotations_unchecked")
def test_where_there_is_no_room_for_a_runs_files_it_is_said_and_the_screen_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise WriteError("no room")

    monkeypatch.setattr(cluster, "write_files", full)
    ended: list[bool] = []
    view = Silent()
    view.end = lambda: ended.append(True)  # type: ignore[method-assign]
    (tmp_path / "study.yaml").write_text(study_text(tmp_path, "recipe.rate: [0.1, 0.2, 0.3]"))
    with pytest.raises(WriteError, match="no room"):
        sweep(tmp_path / "study.yaml", tmp_path / "out", executor=AtOnce(), view=view)
    assert ended == [True]


@pytest.mark.usefixtures("annotations_unchecked")
def test_a_driver_looks_on_while_another_machine_has_a_unit_of_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AtOnce, "submit", lambda *arguments: Future())  # a task that goes on
    spec = make_study(yaml.safe_load(study_text(tmp_path, "recipe.rate: [0.1, 0.2, 0.3]")))
    with closing(Store(tmp_path, spec)) as store, closing(Store(tmp_path, spec, owner="elsewhere")) as other:
        store.fill()
        assert other.claim()
        engine = cluster.ClusterEngine(store, AtOnce(), Job(str(tmp_path), None, "cpu"), Silent())
        engine._advance(cluster._Unit(store.claim()))
        engine._look()
        assert (len(engine.workers), engine._n_lacking()) == (1, 1)
