"""convscope cache: what is cached, how large it is, and what can go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convscope.cli.options import Json
from convscope.cli.show import print_json, print_line, print_table
from convscope.errors import RunFolderError, SettingError


def cache(
    folder: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="A run, for its scans; the user's cache if left out.")
    ] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Remove what was not used for longest.")] = False,
    limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="What --prune leaves, such as 2GB; CONVSCOPE_CACHE_LIMIT, or 256MB of a run, if left out.",
        ),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove all entries.")] = False,
    json: Json = False,
) -> None:
    """List what is cached, or remove it.

    Decoded images, results of scans, indexes of tables, the script of charts. What was removed is made again when it is
    needed. The cache is in CONVSCOPE_CACHE, by default the user's cache folder, and takes at most CONVSCOPE_CACHE_LIMIT, by
    default 20GB: what was not used for longest goes first."""
    from datetime import datetime

    from convscope import compute
    from convscope.runs import SPEC

    if limit and not prune:
        raise SettingError("--limit: it says what --prune leaves; give both")
    if folder and not (folder / SPEC).exists():
        raise RunFolderError(f"{folder} holds no run: {SPEC} is missing; leave it out to see the user's cache")
    root = folder or compute.cache_folder()
    size = 0 if clear else compute.RUN_LIMIT if folder and not limit else compute.cache_limit(limit)
    removed = compute.prune(root, size) if prune or clear else []
    entries = sorted(compute.list_entries(root), key=lambda entry: (entry.kind, -entry.used))
    rows = [
        (each.kind, each.name, each.size_bytes, datetime.fromtimestamp(each.used).isoformat(" ", "seconds"))
        for each in entries
    ]
    if json:
        records = [dict(zip(("kind", "name", "bytes", "used"), row, strict=True)) for row in rows]
        print_json({"folder": root, "entries": records, "removed": len(removed)})
        return
    total = sum(each.size_bytes for each in entries) / 1e6
    print_line(f"{root}: {len(entries)} entries, {total:,.1f} MB" + (f"; {len(removed)} removed" if removed else ""))
    cells = [(kind, name, f"{size / 1e6:,.1f}", used) for kind, name, size, used in rows]
    print_table("", ("kind", "name", "MB", "last used"), cells, left=2)
