"""What torchrun, which starts several processes of one command, says of this one."""

from __future__ import annotations

import os


def launched() -> tuple[int, int]:
    """The rank of this process, and how many there are: (0, 1) where torchrun has not started it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
