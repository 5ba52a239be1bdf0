"""Where results are cached: found again by what they were made from, written whole or not at all."""

from convscope.compute.cache import (
    RUN_LIMIT,
    Entry,
    ListedEntry,
    cache_folder,
    cache_limit,
    cached,
    entry_path,
    list_entries,
    prune,
    read_entry,
    write_entry,
)
from convscope.compute.whole import Content, check_writable, object_in, read_object, write_whole

__all__ = [
    "RUN_LIMIT",
    "Content",
    "Entry",
    "ListedEntry",
    "cache_folder",
    "cache_limit",
    "cached",
    "check_writable",
    "entry_path",
    "list_entries",
    "object_in",
    "prune",
    "read_entry",
    "read_object",
    "write_entry",
    "write_whole",
]
