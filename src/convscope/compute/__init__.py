"""Where work runs: in this process or in several of this machine, by one interface."""

from typing import TYPE_CHECKING

from convscope.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.compute.executor import Executor, LocalProcesses, share_of_cores
    from convscope.compute.presence import is_present, present
else:
    load_when_used(__name__)

__all__ = [
    "Executor",
    "LocalProcesses",
    "is_present",
    "present",
    "share_of_cores",
]
