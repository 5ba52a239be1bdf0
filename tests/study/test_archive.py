"""`sweep(archive=…)`: what has ended is in the object store, and a machine that has nothing goes on from there."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from convscope.compute import Executor
from convscope.errors import FailedError, MissingPackageError, RunFolderError, SettingError
from convscope.runs import METRICS, MODEL
from convscope.study import Study, open_study, read_study, sweep
from convscope.study.archive import Archive
from tests.study.sweeps import results, study_text, worked
from tests.study.test_engine import Looking


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return study_text(tmp_path_factory.mktemp("asked"), "recipe.rate: [0.001, 0.01]", seeds=[0, 3])


@pytest.fixture(scope="module")
def whole(text: str, tmp_path_factory: pytest.TempPathFactory) -> Study:
    study, store = worked(tmp_path_factory.mktemp("whole") / "study", text)
    store.close()
    return study


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The address of a bucket on a server of this machine that speaks S3."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    own = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    with pytest.MonkeyPatch.context() as patched:
        for name, value in (own | {"AWS_DEFAULT_REGION": "us-east-1"}).items():
            patched.setenv(name, value)
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
    server.stop()


@pytest.fixture(params=["s3", pytest.param("memory", marks=pytest.mark.slow), "folder"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "shelf" / "widths")
    return f"{request.getfixturevalue('bucket') if request.param == 's3' else 'memory:/'}/{uuid4().hex}"


def swept(text: str, folder: Path, address: str, view: Looking | None = None) -> Study:
    return sweep(read_study(text, "study.yaml"), folder, view=view or Looking(), executor=Executor(), archive=address)


def test_a_machine_with_nothing_fetches_all_and_trains_nothing(
    text: str, whole: Study, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert results(swept(text, tmp_path / "first", address)) == results(whole)
    shutil.rmtree(tmp_path / "first")
    monkeypatch.setattr("convscope.study.worker.run_study", lambda *given, **named: pytest.fail("it was trained again"))
    view = Looking()
    assert results(swept(text, tmp_path / "second", address, view)) == results(whole)
    assert view.lines[0] == f"4 runs came from {address}"


def test_what_is_missing_here_is_fetched_and_what_is_missing_there_is_copied(
    text: str, whole: Study, address: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(whole.path, tmp_path / "study"))
    swept(text, folder, address)
    files, root = fsspec.core.url_to_fs(address)
    names = sorted(run.path.name for run in whole.runs)
    files.rm(f"{root}/runs/{names[0]}", recursive=True)
    shutil.rmtree(folder / "runs" / names[1])
    view = Looking()
    assert results(swept(text, folder, address, view)) == results(whole)
    assert view.lines[0] == f"1 run came from {address}"
    copied = files.cat_file(f"{root}/runs/{names[0]}/{MODEL}")
    assert copied == (folder / "runs" / names[0] / MODEL).read_bytes()


@pytest.mark.parametrize("harm", ["no contents", "another model", "half of the contents", "contents of another kind"])
def test_half_of_an_upload_is_done_again(text: str, whole: Study, harm: str, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    swept(text, Path(shutil.copytree(whole.path, tmp_path / "study")), str(shelf))
    [harmed] = [path for path in (shelf / "runs").iterdir() if path.name.endswith("s3")][:1]
    contents = harmed / "archive.json"
    if harm == "no contents":
        contents.unlink()
    elif harm == "another model":
        (harmed / MODEL).write_bytes(b"half")
    elif harm == "contents of another kind":
        contents.write_text("[5]")
    else:
        contents.write_bytes(contents.read_bytes()[:100])
    assert results(swept(text, tmp_path / "elsewhere", str(shelf))) == results(whole)
    assert (harmed / MODEL).read_bytes() == (whole.path / "runs" / harmed.name / MODEL).read_bytes()
    assert json.loads(contents.read_bytes()).keys() >= {MODEL, METRICS}


def test_a_search_goes_on_with_the_settings_that_it_drew(tmp_path: Path, address: str) -> None:
    text = study_text(tmp_path, "recipe.rate: {low: 0.001, high: 0.1, log: true}", sampler="tpe", budget={"runs": 4})
    first = results(swept(text, tmp_path / "first", address))
    longer = text.replace('{"runs": 4}', '{"runs": 6}')
    assert longer != text
    shutil.rmtree(tmp_path / "first")
    again = results(swept(text, tmp_path / "second", address))
    assert again == first


def test_of_a_search_whose_machine_is_lost_the_archive_knows_what_it_drew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = "recipe.rate: {low: 0.001, high: 0.1, log: true}"
    text = study_text(tmp_path, drawn, epochs=90, sampler="random", budget={"runs": 6})
    spec, shelf = read_study(text, "study.yaml"), str(tmp_path / "shelf")

    def cut_when_one_is_there() -> bool:
        if list(Path(shelf).glob("runs/*/archive.json")):
            raise RuntimeError("the power is cut")
        return False

    def forgotten(self: Archive, *error: object) -> None:
        self._threads.shutdown()  # what was begun before the cut is there, nothing else

    with monkeypatch.context() as patched:
        patched.setattr(Archive, "__exit__", forgotten)
        with pytest.raises(RuntimeError, match="power"):
            sweep(spec, tmp_path / "lost", view=Looking(cut_when_one_is_there), archive=shelf)
    there = list(Path(shelf).glob("runs/*/archive.json"))
    with closing(sqlite3.connect(Path(shelf) / "study.db")) as database:
        [[known]] = database.execute("select count(*) from trials natural join trial_params where state = 'COMPLETE'")
    assert known >= len(there) > 0


def test_an_archive_of_another_study_is_refused_and_left(text: str, address: str, tmp_path: Path) -> None:
    swept(text, tmp_path / "first", address)
    other = text.replace("0.001", "0.002")
    with pytest.raises(RunFolderError, match=r"holds another study .* choose another --archive"):
        swept(other, tmp_path / "other", address)
    assert not (tmp_path / "other" / "runs").exists()


def test_a_name_that_leaves_the_folder_is_refused(text: str, whole: Study, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    swept(text, Path(shutil.copytree(whole.path, tmp_path / "study")), str(shelf))
    contents = next((shelf / "runs").glob("*/archive.json"))
    contents.write_text(json.dumps({"../../../escaped": [1, ""]}))
    with pytest.raises(RunFolderError, match="which is no file of a run"):
        swept(text, tmp_path / "a" / "b" / "elsewhere", str(shelf))
    assert not list(tmp_path.rglob("escaped"))


def test_what_is_wrong_with_an_address_is_one_line(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match=r"--archive nowhere://y: Protocol not known: nowhere.*s3://bucket/folder"):
        swept(text, tmp_path / "study", "nowhere://y")
    (tmp_path / "file").touch()
    with pytest.raises(FailedError, match=r"archive .*file/in: .*go on with the same command"):
        swept(text, tmp_path / "study", str(tmp_path / "file" / "in"))
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingPackageError, match="--archive gs:// needs the package 'gcsfs'"):
        swept(text, tmp_path / "study", "gs://bucket/widths")


def test_a_copy_that_fails_once_stops_nothing(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied, begun = Archive._copy, set[str]()

    def fails_at_first(self: Archive, name: str) -> None:
        if name not in begun:
            begun.add(name)
            raise OSError("connection reset")
        copied(self, name)

    monkeypatch.setattr(Archive, "_copy", fails_at_first)
    study = swept(text, tmp_path / "study", str(tmp_path / "shelf"))
    assert len(begun) == len(study.runs) == len(list((tmp_path / "shelf" / "runs").glob("*/archive.json")))


def test_where_the_copy_fails_the_runs_are_kept_and_copied_by_the_next_command(
    text: str, whole: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Archive, name: str) -> None:
        raise OSError("the bucket is full")

    with monkeypatch.context() as patched:
        patched.setattr(Archive, "_copy", fails)
        with pytest.raises(FailedError, match="the bucket is full; all is kept in"):
            swept(text, tmp_path / "study", str(tmp_path / "shelf"))
    assert open_study(tmp_path / "study").runs
    swept(text, tmp_path / "study", str(tmp_path / "shelf"))
    assert len(list((tmp_path / "shelf" / "runs").glob("*/archive.json"))) == len(whole.runs)
