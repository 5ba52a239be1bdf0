"""A study's folder in an object store: what has ended is copied there, and comes back to a machine that lacks it.

ADDRESS/study.yaml               as in the folder
ADDRESS/study.db                 a copy of the store, where that is SQLite
ADDRESS/runs/0007-s2/…           the files of a run that has ended, and last archive.json: their sizes and digests
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

from convscope.base.optional import import_optional
from convscope.errors import ConvscopeError, FailedError, MissingPackageError, RunFolderError, SettingError, first_line
from convscope.runs import Run, write_whole
from convscope.study.folder import RUNS, STUDY, has_ended, read_files, write_files
from convscope.study.spec import StudySpec, dump_study, read_study

_CONTENTS, _DATABASE = "archive.json", "study.db"
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs"}
_AT_ONCE = 4


class Archive(AbstractContextManager["Archive"]):
    """Where a study is copied to. As a context manager it waits at its end until all is there.

    Args:
        address: as fsspec understands it: s3://bucket/folder, gs://…, or a folder.
        folder: of the study on this machine.
        spec: of the study.
    Raises:
        SettingError: nothing is known of such addresses.
        MissingPackageError: the package for them is not installed.
    """

    def __init__(self, address: str, folder: Path, spec: StudySpec) -> None:
        self.address, self.folder, self.spec = address.rstrip("/"), folder, spec
        self._files, self._root = _opened(self.address)
        self._threads = ThreadPoolExecutor(_AT_ONCE, "convscope-archive")
        self._going: dict[str, Future[None]] = {}
        self._there: set[str] = set()
        self._copying = Lock()

    def restore(self) -> list[str]:
        """Fetches what this machine lacks; afterwards the archive is known to be this study's, and to be writable.

        Returns:
            The names of the runs that were fetched.
        Raises:
            RunFolderError: the archive holds another study.
            FailedError: it cannot be read or written.
        """
        with self._in_one_line():
            self._files.invalidate_cache()  # others write there too
            names = self._listed()
            if not (self.folder / STUDY).exists() and self._files.exists(f"{self._root}/{_DATABASE}"):
                write_whole(self.folder / _DATABASE, self._files.cat_file(f"{self._root}/{_DATABASE}"))
            fetched = [name for name in names if self._fetch(name)]
            self._files.pipe_file(f"{self._root}/{STUDY}", dump_study(self.spec).encode())
        return fetched

    def _listed(self) -> list[str]:
        """The runs that are wholly there."""
        if not self._files.exists(f"{self._root}/{STUDY}"):
            return []
        text = self._files.cat_file(f"{self._root}/{STUDY}").decode("utf-8", "replace")
        if different := read_study(text, f"{self.address}/{STUDY}").differences(self.spec):
            raise RunFolderError(
                f"{self.address} holds another study ({', '.join(different)} differ); choose another --archive"
            )
        paths = self._files.glob(f"{self._root}/{RUNS}/*/{_CONTENTS}")
        return sorted(PurePosixPath(str(path)).parent.name for path in paths)

    def _fetch(self, name: str) -> bool:
        """Brings a run here, unless it has ended here too."""
        if has_ended(run := Run(self.folder / RUNS / name)):
            self._there.add(name)
            return False
        place = f"{self._root}/{RUNS}/{name}"
        try:
            contents = _checked_contents(self._files.cat_file(f"{place}/{_CONTENTS}"))
            files = {file: self._files.cat_file(f"{place}/{file}") for file in contents}
        except (ValueError, RecursionError, FileNotFoundError):
            return False
        if any(_entry(files[file]) != contents[file] for file in contents):
            return False  # half of an upload: it is trained here and copied again
        write_files(run.path, files)
        self._there.add(name)
        return True

    def keep_up(self) -> list[str]:
        """Begins to copy the runs that have ended since, and those whose copy failed; it returns at once.

        Returns:
            A line for each reason for which copies have failed.
        """
        ended = {name: future.exception() for name, future in self._going.items() if future.done()}
        for name, error in ended.items():
            del self._going[name]
            if error is None:
                self._there.add(name)
        failed = {first_line(error) for error in ended.values() if error}
        runs = self.folder / RUNS
        names = {path.name for path in runs.iterdir()} if runs.is_dir() else set()
        for name in sorted(names - self._there - self._going.keys()):
            if has_ended(Run(runs / name)):
                self._going[name] = self._threads.submit(self._copy, name)
        return [f"archive {self.address}: {reason}; it is tried again" for reason in sorted(failed)]

    def _copy(self, name: str) -> None:
        place, files = f"{self._root}/{RUNS}/{name}", read_files(self.folder / RUNS / name)
        for file, content in files.items():
            self._files.makedirs(str(PurePosixPath(f"{place}/{file}").parent), exist_ok=True)
            self._files.pipe_file(f"{place}/{file}", content)
        if not self.spec.is_grid:  # whose runs are known by their number; a search must know what it drew for this one
            self._copy_database()
        contents = {file: _entry(content) for file, content in files.items()}
        self._files.pipe_file(f"{place}/{_CONTENTS}", json.dumps(contents, indent=1).encode())

    def __exit__(self, *error: object) -> None:
        # of several things that go wrong the first is said
        with self._threads, suppress(FailedError) if error[0] else nullcontext(), self._in_one_line():
            for _ in range(2):  # once more what fails
                self.keep_up()
                wait(self._going.values())
            for future in self._going.values():
                future.result()
            self._copy_database()

    def _copy_database(self) -> None:
        """A SQLite file as of one moment, while others write to it; one copy at a time, so that the newest stays."""
        if not (self.folder / _DATABASE).exists():
            return
        with self._copying, TemporaryDirectory() as folder:
            path = Path(folder) / _DATABASE
            with closing(sqlite3.connect(self.folder / _DATABASE)) as source, closing(sqlite3.connect(path)) as copy:
                source.backup(copy)
            self._files.pipe_file(f"{self._root}/{_DATABASE}", path.read_bytes())

    @contextmanager
    def _in_one_line(self) -> Iterator[None]:
        try:
            yield
        except ConvscopeError:
            raise
        except Exception as error:  # each store has errors of its own
            raise FailedError(
                f"archive {self.address}: {first_line(error)}; all is kept in {self.folder}: go on with the same command"
            ) from None


def _opened(address: str) -> tuple[Any, str]:
    protocol = address.partition("://")[0] if "://" in address else "file"
    fsspec = import_optional("fsspec.core", "--archive")
    try:
        files, root = fsspec.url_to_fs(address, **({"auto_mkdir": True} if protocol == "file" else {}))
    except ImportError:
        package = _PACKAGES.get(protocol, protocol)
        raise MissingPackageError(package, f"--archive {protocol}://", "s3" if package == "s3fs" else None) from None
    except ValueError as error:
        raise SettingError(
            f"--archive {address}: {first_line(error)}; expected an address such as s3://bucket/folder"
        ) from None
    return files, str(root).rstrip("/")


def _entry(content: bytes) -> list[Any]:
    return [len(content), blake2b(content, digest_size=16).hexdigest()]


def _checked_contents(text: bytes) -> dict[str, Any]:
    """What archive.json lists; no name in it leaves the run's folder."""
    listed = json.loads(text)
    if not isinstance(listed, dict):
        raise ValueError("expected names of files")
    for name in listed:
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or "\\" in name or name.startswith("/"):
            raise RunFolderError(
                f"{_CONTENTS} names {name!r}, which is no file of a run; this archive is not to be trusted"
            )
    return listed
