"""Names of processes: taken by one on this machine, which lives, or does no more."""

import tempfile
from pathlib import Path
from uuid import uuid4

import pytest

from convscope.compute import is_present, present
from tests.compute.names import name_of_a_dead_process, taken_elsewhere


def test_a_name_is_present_as_long_as_its_process_lives() -> None:
    name = uuid4().hex
    assert is_present(name) is None  # of another machine, for all that is known
    with taken_elsewhere(name) as other:
        assert is_present(name) is True
        other.communicate("\n")
    assert is_present(name) is None
    assert is_present(name_of_a_dead_process()) is False


def test_a_name_of_this_process() -> None:
    name = uuid4().hex
    with present(name):
        assert is_present(name) is True
    assert is_present(name) is None


def test_a_folder_that_is_not_this_users_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with present("a"):
        [folder] = tmp_path.iterdir()
    folder.rmdir()
    (tmp_path / "other").mkdir()
    folder.symlink_to(tmp_path / "other")
    with present("a"):
        assert is_present("a") is None
        assert not list((tmp_path / "other").iterdir())
