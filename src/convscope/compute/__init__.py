"""Where work runs, by one interface, and where results are cached: written whole or not at all."""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.compute.cache import (
        RUN_LIMIT,
        Entry,
        ListedEntry,
        NotCachedError,
        cache_folder,
        cache_limit,
        cached,
        entry_path,
        list_entries,
        only_cached,
        prune,
        read_entry,
        write_entry,
    )
    from convscope.compute.cluster import Kept, Line, Ray, node_name, value_of
    from convscope.compute.device import choose_device, evaluation_batch, own_random_state
    from convscope.compute.executor import Executor, LocalProcesses, executor_in_use, share_of_cores, using
    from convscope.compute.parallel import chunks, in_order, share_threads, threads
    from convscope.compute.presence import is_present, present
    from convscope.compute.whole import Content, check_writable, write_folder_whole, write_whole
else:
    load_when_used(__name__)

__all__ = [
    "RUN_LIMIT",
    "Content",
    "Entry",
    "Executor",
    "Kept",
    "Line",
    "ListedEntry",
    "LocalProcesses",
    "NotCachedError",
    "Ray",
    "cache_folder",
    "cache_limit",
    "cached",
    "check_writable",
    "choose_device",
    "chunks",
    "entry_path",
    "evaluation_batch",
    "executor_in_use",
    "in_order",
    "is_present",
    "list_entries",
    "node_name",
    "only_cached",
    "own_random_state",
    "present",
    "prune",
    "read_entry",
    "share_of_cores",
    "share_threads",
    "threads",
    "using",
    "value_of",
    "write_entry",
    "write_folder_whole",
    "write_whole",
]
