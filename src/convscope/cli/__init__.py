"""The command line: one small file per verb, which parses, calls and prints.

Exit status: 0 done; 2 the request is wrong (one line says what, and what to do); 1 it failed on the way.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from convscope.cli import anatomy, compare, conv, data, evaluate, look, report, reproduce, study, sweep, table, train
from convscope.errors import ConvscopeError, system_error_in_words

app = typer.Typer(
    name="convscope",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Trains convolutional image classifiers, compares them honestly, and lets you look inside.",
)
# Typer carries its own copy of Click, whose errors it exports only in part: BadParameter is a UsageError.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]

for verb in (
    study.study,
    sweep.sweep,
    reproduce.reproduce,
    train.train,
    evaluate.evaluate,
    report.report,
    compare.compare,
    look.look,
    table.table,
    anatomy.anatomy,
    conv.conv,
    data.data,
):
    app.command()(verb)


def _version(asked: bool) -> bool:
    if asked:
        from convscope import __version__

        typer.echo(f"convscope {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; goes with every verb.")
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Runs a command line and exits with its status."""
    _speak_utf8()
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def _speak_utf8() -> None:
    """Makes names of files UTF-8, and what is printed possible, in locales such as C, whose encoding is ASCII.

    The encoding of names is fixed when Python starts: so it starts once more, as a later Python does by itself.
    """
    ascii_names = sys.getfilesystemencoding() in ("ascii", "iso8859-1") and not sys.flags.utf8_mode
    if ascii_names and os.name == "posix" and sys.orig_argv[1:]:
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace" if stream is sys.stderr else "replace")


def run(arguments: list[str]) -> int:
    """Runs a command line and gives its exit status; errors are one line on stderr."""
    debug = "--debug" in arguments
    arguments = arguments or ["--help"]
    command = typer.main.get_command(app)
    try:
        status = command.main([a for a in arguments if a != "--debug"], prog_name="convscope", standalone_mode=False)
    except ConvscopeError as error:
        return _complain(error, str(error), error.exit_status, debug)
    except _UsageError as error:
        message = error.format_message().rstrip(".")  # type: ignore[attr-defined]
        return _complain(error, f"{message}; convscope --help lists what there is", 2, debug)
    except (typer.Abort, KeyboardInterrupt) as error:
        return _complain(error, "interrupted", 1, debug)
    except BrokenPipeError:  # the reader of our output has gone, as in `convscope anatomy net4 | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # of a file that was named, or of a system that is full or read-only
        return _complain(error, system_error_in_words(error), 1, debug)
    except Exception as error:
        what = " ".join(str(error).split()) or "no message"
        return _complain(error, f"unexpected {type(error).__name__}: {what} (--debug shows where)", 1, debug)
    return status or 0


def _complain(error: BaseException, message: str, status: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
    print(f"convscope: {message}", file=sys.stderr)  # noqa: T201
    return status
