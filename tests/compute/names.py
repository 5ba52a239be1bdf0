"""Names of processes, see convscope.compute.presence."""

from __future__ import annotations

import subprocess
import sys
from uuid import uuid4

CODE = """
import sys
from convscope.compute import present
with present(sys.argv[1]):
    print("here", flush=True)
    sys.stdin.readline()
"""


def taken_elsewhere(name: str) -> subprocess.Popen[str]:
    """A process that has the name, until it is killed or told to end."""
    other = subprocess.Popen(
        [sys.executable, "-c", CODE, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout
    assert other.stdout.readline() == "here\n"
    return other


def name_of_a_dead_process() -> str:
    """A name whose process was killed."""
    name = uuid4().hex
    with taken_elsewhere(name) as other:
        other.kill()
    return name
