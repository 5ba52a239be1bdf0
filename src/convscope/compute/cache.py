"""The cache: results that take long to make, found again by what they were made from.

An entry is a card, `<root>/<kind>/<name>-<digest of its key>.json`, and the files of the same stem beside it. The key names all
that the result depends on: digests of weights and images, the request, the version of the analysis. The card holds the key,
plain values, and size and digest of each file.

- Each file is written whole or not at all, the card last. Two writers of one entry do the same work.
- A reader takes an entry that is damaged, or another key's, as missing: the result is made anew.
- Where nothing can be written, results are made each time.

There are two roots: the user's cache folder, and run folders, whose scans travel with the run. Each has a limit of bytes: after
an entry is written, those least recently used are removed until the rest fits. A use is the time of modification of the card,
which readers set, because many file systems keep no time of access.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

from convscope.base.unfinished import remove_abandoned
from convscope.compute.whole import write_whole
from convscope.errors import ConvscopeError, FailedError, SettingError

KINDS = ("charts", "data", "scans", "steps", "tables")
"""The folders of entries in a root: the script of charts, decoded images, results of scans, what steps of a training took,
indexes of folders of runs."""

RUN_LIMIT = 2**28
"""Bytes of the entries in one run folder."""

_NAME = re.compile(r".+-[0-9a-f]{16,24}")  # earlier versions had 16 digits

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """What is kept under a key.

    Attributes:
        values: plain ones; of an entry that was read, with the key among them.
        files: ending → content. What a function writes, see `write_whole`, is taken for large: its size alone is checked, and
            of an entry that was read its path is here.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ListedEntry:
    """An entry as `convscope cache` lists it; `used` is when it was last used, in seconds since 1970."""

    kind: str
    name: str
    size_bytes: int
    used: float
    files: tuple[Path, ...]


def cache_folder() -> Path:
    """The user's cache: $CONVSCOPE_CACHE, else $XDG_CACHE_HOME/convscope, else ~/.cache/convscope."""
    if chosen := os.environ.get("CONVSCOPE_CACHE"):
        return Path(chosen).expanduser().absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # the XDG rules: a relative path there is to be ignored
    return (base if base.is_absolute() else Path.home() / ".cache") / "convscope"


def cache_limit(size: str | None = None) -> int:
    """Bytes that the user's cache may take: of a size such as "500MB" or "2GiB", else $CONVSCOPE_CACHE_LIMIT, else 20 GB.

    Raises:
        SettingError: it is no size.
    """
    from pydantic import ByteSize, TypeAdapter, ValidationError

    text = size or os.environ.get("CONVSCOPE_CACHE_LIMIT") or "20GB"
    try:
        return TypeAdapter(ByteSize).validate_python(text)
    except ValidationError:
        setting = "--limit" if size else "CONVSCOPE_CACHE_LIMIT"
        raise SettingError(f"{setting}: {text!r} is no size; give one such as 500MB or 20GB") from None


class NotCachedError(LookupError):
    """A result is not in the cache, and nothing may be made within `only_cached`."""


_MAY_MAKE = ContextVar("may make", default=True)


@contextmanager
def only_cached() -> Iterator[None]:
    """Within it `cached` gives what is in the cache, and raises NotCachedError for all else."""
    token = _MAY_MAKE.set(False)
    try:
        yield
    finally:
        _MAY_MAKE.reset(token)


def entry_path(root: Path, kind: str, name: str, key: Mapping[str, Any]) -> Path:
    """Where the card of a key lies; `name` is for people who list the folder."""
    return root / kind / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', name)[:40]}-{_digest_of_json(key)}.json"


def cached(
    path: Path, key: Mapping[str, Any], make: Callable[[], T], pack: Callable[[T], Entry], unpack: Callable[[Entry], T]
) -> T:
    """The result of a key: from its entry, else made, and kept where the folder can be written.

    Args:
        path: see `entry_path`; or that of a product with a name of its own, which no limit removes.
        key: plain values, as they come back from JSON.
        make, pack, unpack: the result, and to and from its entry.
    Raises:
        NotCachedError: it is not in the cache, within `only_cached`.
    """
    entry = read_entry(path, key)
    if entry is not None:
        with suppress(LookupError, TypeError, ValueError, AttributeError, OSError, ConvscopeError):
            return unpack(entry)
    if not _MAY_MAKE.get():
        raise NotCachedError(path.name)
    result = make()
    with suppress(FailedError):
        write_entry(path, key, pack(result))
    return result


def read_entry(path: Path, key: Mapping[str, Any]) -> Entry | None:
    """The entry of a key; None where it is missing, damaged, or another key's."""
    try:
        card = json.loads(path.read_text("utf-8"))
        check, files = card.pop("check"), card.get("files", {})
        if check != _digest_of_json(card) or any(card[name] != value for name, value in key.items()):
            return None
        contents = {suffix: _content(path.with_suffix(suffix), *described) for suffix, described in files.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    if path.parent.name in KINDS:
        with suppress(OSError):
            os.utime(path)
    return Entry(card, contents)


def write_entry(path: Path, key: Mapping[str, Any], entry: Entry) -> None:
    """Writes an entry, and then removes others of the same root that do not fit its limit.

    Raises:
        FailedError: it cannot be written; see `write_whole`.
    """
    files: dict[str, list[Any]] = {}
    try:
        for suffix, content in entry.files.items():
            write_whole(path.with_suffix(suffix), content)
            files[suffix] = [path.with_suffix(suffix).stat().st_size, None if callable(content) else _digest(content)]
        # as JSON gives it back: tuples are lists, all keys are text
        card = json.loads(json.dumps({**entry.values, **key, **({"files": files} if files else {})}))
        write_whole(path, json.dumps({**card, "check": _digest_of_json(card)}, indent=1) + "\n")
    except (FailedError, OSError) as error:  # OSError: another process has just removed what was written
        for suffix in entry.files:  # nothing finds them without the card
            with suppress(OSError):
                path.with_suffix(suffix).unlink()
        if isinstance(error, FailedError):
            raise
        raise FailedError(f"{path} cannot be written: {error}") from error
    if path.parent.name in KINDS:
        root = path.parent.parent
        prune(root, cache_limit() if root == cache_folder() else RUN_LIMIT, spare=path)


def _content(path: Path, size: int, digest: str | None) -> bytes | Path:
    """Of a file, or its path where its size alone is known; a ValueError where it is not what was written."""
    content = None if digest is None else path.read_bytes()
    if path.stat().st_size != size or (content is not None and _digest(content) != digest):
        raise ValueError
    return path if content is None else content


def _digest_of_json(values: Any) -> str:
    return _digest(json.dumps(values, sort_keys=True).encode())


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=12).hexdigest()


def list_entries(root: Path) -> list[ListedEntry]:
    """The entries of a root, least recently used first; what killed processes left there is removed."""
    entries = []
    for kind in KINDS:
        remove_abandoned(root / kind)
        by_stem = defaultdict(list)
        for path in (root / kind).glob("*-*.*"):
            if _NAME.fullmatch(path.stem):
                by_stem[path.stem].append(path)
        for stem, paths in by_stem.items():
            with suppress(OSError):  # another process is just removing it
                stats = [path.stat() for path in paths]
                size, used = sum(stat.st_size for stat in stats), max(stat.st_mtime for stat in stats)
                entries.append(ListedEntry(kind, stem.rpartition("-")[0], size, used, tuple(paths)))
    return sorted(entries, key=lambda entry: entry.used)


def prune(root: Path, limit: int, spare: Path | None = None) -> list[ListedEntry]:
    """Removes the least recently used entries of a root until the others fit the limit.

    Args:
        root: the user's cache, or a run folder, of which only the results of scans are entries.
        limit: bytes.
        spare: the card of an entry that stays, however large it is.

    Returns:
        The entries that were removed.
    """
    entries, removed = list_entries(root), []
    excess = sum(entry.size_bytes for entry in entries) - limit
    for entry in entries:
        if excess > 0 and spare not in entry.files:
            for path in sorted(entry.files, key=lambda path: path.suffix != ".json"):  # the card first
                with suppress(OSError):  # another process has removed it, or nothing can be removed there
                    path.unlink()
            if not any(map(os.path.exists, entry.files)):
                removed.append(entry)
                excess -= entry.size_bytes
    return removed
