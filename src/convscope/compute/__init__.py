"""Where work runs, by one interface, and where results are cached: written whole or not at all."""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.compute.cache import (
        RUN_LIMIT as RUN_LIMIT,
        Entry as Entry,
        ListedEntry as ListedEntry,
        NotCachedError as NotCachedError,
        cache_folder as cache_folder,
        cache_limit as cache_limit,
        cached as cached,
        entry_path as entry_path,
        list_entries as list_entries,
        only_cached as only_cached,
        prune as prune,
        read_entry as read_entry,
        write_entry as write_entry,
    )
    from convscope.compute.cluster import (
        Kept as Kept,
        Line as Line,
        Ray as Ray,
        node_name as node_name,
        value_of as value_of,
    )
    from convscope.compute.device import (
        choose_device as choose_device,
        evaluation_batch as evaluation_batch,
        own_random_state as own_random_state,
    )
    from convscope.compute.executor import (
        Executor as Executor,
        LocalProcesses as LocalProcesses,
        check_executor as check_executor,
        executor_in_use as executor_in_use,
        share_of_cores as share_of_cores,
        using as using,
    )
    from convscope.compute.parallel import (
        chunks as chunks,
        in_order as in_order,
        share_threads as share_threads,
        threads as threads,
    )
    from convscope.compute.presence import is_present as is_present, present as present
    from convscope.compute.whole import (
        Content as Content,
        check_writable as check_writable,
        write_folder_whole as write_folder_whole,
        write_whole as write_whole,
    )
else:
    load_when_used(__name__)
