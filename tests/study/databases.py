"""A real PostgreSQL for tests, started in a temporary folder and stopped again."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The address of an empty database. Without Debian's package: skipped, or failed if CONVSCOPE_REQUIRE_POSTGRESQL is set."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        lack = pytest.fail if os.environ.get("CONVSCOPE_REQUIRE_POSTGRESQL") else pytest.skip
        lack("no PostgreSQL: apt-get install postgresql")
    pytest.importorskip("psycopg")
    folder = Path(tempfile.mkdtemp(prefix="convscope-postgresql-"))
    try:
        yield from _served(programs[-1].parent, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _served(programs: Path, folder: Path) -> Iterator[str]:
    user = _other_user(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {"check": True, "capture_output": True, "cwd": folder}
    initdb = [*user, str(programs / "initdb"), "-D", "data", "-U", "convscope", "-A", "trust", "--no-sync"]
    subprocess.run(initdb, **quiet)
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off"
    server = [*user, str(programs / "pg_ctl"), "-D", "data", "-w", "-l", "log"]
    subprocess.run(
        [*server, "-o", options, "start"], **{**quiet, "capture_output": False, "stdout": subprocess.DEVNULL}
    )
    try:
        yield f"postgresql://convscope@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*server, "-m", "immediate", "stop"], **quiet)


def _other_user(folder: Path) -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    name = (
        "postgres" if subprocess.run(["id", "postgres"], capture_output=True, check=False).returncode == 0 else "nobody"
    )
    shutil.chown(folder, name)
    return ["runuser", "-u", name, "--"]
