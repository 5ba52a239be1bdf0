"""Where a run was made: what someone needs to know who wants to make it again."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from convscope import __version__

_PACKAGES = ("torch", "numpy", "datasets", "safetensors", "pandas", "pyarrow", "pillow")


def describe_environment() -> dict[str, Any]:
    """Date, versions and hardware of this process, as JSON values; no user and no host; of paths, those in the command."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "convscope": __version__,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _processor() -> str:
    """The processor's name; Linux tells it only in /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
