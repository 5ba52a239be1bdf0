"""The command line: one small file per verb, which parses, calls and prints.

Exit status: 0 done; 2 the request is wrong (one line says what, and what to do); 1 it failed on the way.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, redirect_stderr, redirect_stdout, suppress
from importlib import import_module
from typing import Annotated, Any

import typer

from convscope.__main__ import main
from convscope.base.console import printing_safely
from convscope.base.launched import launched
from convscope.base.signals import INTERRUPTED
from convscope.errors import ConvscopeError, FailedError, SettingError, system_error_in_words

__all__ = ["VERBS", "main", "run"]

VERBS = (
    "study", "sweep", "reproduce", "train", "evaluate", "predict", "report", "compare", "look", "serve", "table", "anatomy",
    "nets", "conv", "data", "cache", "export", "card", "publish",
)  # fmt: skip
"""Each is the function of its name in the file of its name."""

# Typer carries its own copy of Click, whose errors it exports only in part: BadParameter is a UsageError.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]
_TYPERS_CTRL_C = 130
"""Typer turns a KeyboardInterrupt into this status, without a word."""


def _version(asked: bool) -> bool:
    if asked:
        from convscope import __version__

        typer.echo(f"convscope {__version__}")
        raise typer.Exit
    return asked


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; goes with every command.")
    ] = False,
) -> None:
    pass


def _command(arguments: list[str]) -> Any:
    """The command line; of the verb that is asked for alone, or of all."""
    app = typer.Typer(
        name="convscope",
        no_args_is_help=True,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Trains convolutional image classifiers, compares them honestly, and lets you look inside.",
    )
    app.callback()(_root)
    for verb in [verb for verb in arguments[:1] if verb in VERBS] or VERBS:
        file = import_module(f"convscope.cli.{verb}")
        app.command(**getattr(file, "COMMAND", {}))(getattr(file, verb))
    return typer.main.get_command(app)


def run(arguments: list[str]) -> int:
    """Runs a command line and gives its exit status; errors are one line on stderr."""
    rank, count = launched()
    if count > 1:
        os.environ.setdefault(
            "TORCH_CPP_LOG_LEVEL", "ERROR"
        )  # before PyTorch is loaded; it warns of each process' network
    with printing_safely(), ExitStack() as quiet:
        if rank:  # beside a first process, which speaks for all; `_complain` is heard
            nothing = quiet.enter_context(open(os.devnull, "w", encoding="utf-8"))
            quiet.enter_context(redirect_stdout(nothing))
            quiet.enter_context(redirect_stderr(nothing))
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    debug = "--debug" in arguments
    arguments = [word for word in arguments if word != "--debug"] or ["--help"]
    try:
        _check_words(arguments)
        _check_working_folder()
        if launched()[1] > 1 and arguments[0] != "train":
            raise SettingError(f"torchrun: starts convscope train alone; give convscope {arguments[0]} without it")
        status = _command(arguments).main(arguments, prog_name="convscope", standalone_mode=False)
        if status == _TYPERS_CTRL_C:
            raise KeyboardInterrupt
        _flush()
    except ConvscopeError as error:
        return _complain(error, str(error), error.exit_status, debug)
    except _UsageError as error:
        message = error.format_message().rstrip(".")  # type: ignore[attr-defined]
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "convscope"
        return _complain(error, f"{message}; {command} --help lists what there is", 2, debug)
    except (typer.Abort, KeyboardInterrupt) as error:
        return _complain(error, INTERRUPTED, 1, debug)
    except BrokenPipeError:  # the reader of our output has gone, as in `convscope anatomy net4 | head`
        _discard(sys.stdout, sys.stderr)
        return 1
    except OSError as error:  # of a file that was named, or of a system that is full or read-only
        return _complain(error, system_error_in_words(error), 1, debug)
    except Exception as error:
        what = " ".join(str(error).split()) or "no message"
        return _complain(error, f"unexpected {type(error).__name__}: {what} (--debug shows where)", 1, debug)
    return status or 0


def _check_words(arguments: list[str]) -> None:
    """Parquet, safetensors and YAML files cannot hold other names, nor be opened by them."""
    if odd := [word for word in arguments if any("\ud800" <= letter <= "\udfff" for letter in word)]:
        raise SettingError(f"{odd[0]}: this name is not valid UTF-8; rename the file or folder")


def _check_working_folder() -> None:
    """PyTorch cannot be loaded in a folder that was removed, and names another reason."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise FailedError("the working folder was removed; change to one that is there") from None


def _complain(error: BaseException, message: str, status: int, debug: bool) -> int:
    rank, _ = launched()
    if rank and status == 2:  # the first process says the same
        return status
    words = f"process {rank}: {message}" if rank else message
    if debug:
        import traceback

        traceback.print_exception(error)
    with suppress(OSError):  # the reader of stderr, or the terminal, has gone
        print(f"convscope: {words}".replace("\n", "\\n"), file=sys.__stderr__ if rank else sys.stderr)
    return status


def _flush() -> None:
    """Here, so that what goes wrong with the output is said as any other error."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _discard(sys.stdout)
        raise FailedError(f"the output cannot be written: {error.strerror or error}") from None


def _discard(*streams: Any) -> None:
    """What is still in the streams' buffers has no reader; Python would complain of it at its end."""
    for stream in streams:
        with suppress(OSError, ValueError, AttributeError):  # one that is no file, or closed
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
