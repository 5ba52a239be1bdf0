"""A regular expression on the names of files, with a limit of time: some take longer than anyone waits."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence

from convscope.errors import DataError, FailedError

_LIMIT_S = 60
"""A million names take a few seconds."""

_SEARCH = """
import json, re, sys
text, names = json.load(sys.stdin)
pattern = re.compile(text)
keys = list(pattern.groupindex) or [1]
json.dump([m and [m[key] or "" for key in keys] for m in map(pattern.search, names)], sys.stdout)
"""


def search_all(pattern: str, names: Sequence[str]) -> dict[str, list[str]]:
    """The text of each group in each name, '' where it does not fit; a group without a name is 'label'.

    It runs in a process of its own, for Python cannot end a search: one such as `(a+)+$` takes for ever on the right name, and
    a pattern may come from the run folder of a stranger.

    Raises:
        DataError: it takes longer than a minute.
        FailedError: the process failed.
    """
    given = json.dumps([pattern, names])  # ASCII, also of names that are no UTF-8
    command = [sys.executable, "-I", "-c", _SEARCH]
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=_LIMIT_S, check=True)
    except subprocess.TimeoutExpired:
        raise DataError(
            f"the pattern {pattern[:200]!r} takes more than {_LIMIT_S} s on {len(names):,} names of files; write it without "
            "a repetition in a repetition, such as (a+)+"
        ) from None
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", "") or str(error)
        raise FailedError(
            f"the pattern {pattern[:200]!r} could not be searched for: {reason.splitlines()[-1]}"
        ) from None
    groups = tuple(re.compile(pattern).groupindex) or ("label",)
    found = [values or [""] * len(groups) for values in json.loads(done.stdout)]
    return (
        dict(zip(groups, map(list, zip(*found, strict=True)), strict=True)) if found else {name: [] for name in groups}
    )
