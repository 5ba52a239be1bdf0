"""The command `convscope`, from its first line on: Ctrl-C, SIGTERM and SIGHUP end it with one line and exit status 1."""

from __future__ import annotations

import sys

from convscope.signals import INTERRUPTED, Stop, say


def main(arguments: list[str] | None = None) -> None:
    """Runs a command line and exits with its status."""
    stop = Stop()
    try:
        from convscope.cli import run  # takes a while, in which Ctrl-C may come

        status = run(sys.argv[1:] if arguments is None else arguments)
    except BaseException:
        if not stop.asked:
            raise
        say(INTERRUPTED)
        status = 1
    finally:
        stop.end()
    sys.exit(status)
