"""The command `convscope`, from its first line on: Ctrl-C, SIGTERM and SIGHUP end it with one line and exit status 1."""

from __future__ import annotations

import io
import os
import sys

from convscope.base.memory import tune_memory
from convscope.base.signals import INTERRUPTED, Stop, say


def main(arguments: list[str] | None = None) -> None:
    """Runs a command line and exits with its status."""
    _speak_utf8()
    tune_memory()
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


def _speak_utf8() -> None:
    """Makes names of files UTF-8, also on stdin, and what is printed possible, in locales such as C, whose encoding is ASCII.

    The encoding of names is fixed when Python starts: so it starts once more, as a later Python does by itself.
    """
    for name, errors in {"stdin": "surrogateescape", "stdout": "replace", "stderr": "backslashreplace"}.items():
        if getattr(sys, name) is None:  # it was closed: what is printed is lost, as by Python's own print
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors=errors)
    ascii_names = sys.getfilesystemencoding() in ("ascii", "iso8859-1") and not sys.flags.utf8_mode
    if ascii_names and os.name == "posix" and sys.orig_argv[1:]:
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


if __name__ == "__main__":
    main()
