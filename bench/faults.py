"""Faults on purpose: kills after each file operation, full and read-only disks, run folders with hostile files.

    python bench/faults.py [--only kills|full|read-only|hostile] [--every N] [--verbose]      (make faults)

Each try is a process of its own, forked from this one, so that it costs no start; a kill is SIGKILL. Passed means:

    kills       the same command, given again, ends well, with the same files as without the kill and nothing left over
    full        one line and status 1; with room again the same command ends well, with the same weights
    read-only   done, or refused in one line; nothing is changed
    hostile     done, or refused in one line, within a minute

It prints tried and passed of each, and what did not pass. Small disks are mounted, for which it must be root on Linux.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests import test_kills as kills
from tests.hostile import DAMAGES
from tests.killing import Life, lived

from convscope.cli import run
from convscope.runs import MODEL
from convscope.study import engine

_LIMIT_S = 120
_PAGES = {
    "convscope.report.build.render": lambda *given: "<p>report",
    "convscope.report.build.filters_page": lambda *given: "<p>filters",
    "convscope.report.build.effects_of": lambda *given: None,
    "convscope.report.study.study_page": lambda *given: "<p>study",
}

Passed = list[tuple[str, str]]
"""What was tried, and why it did not pass: '' where it did."""


def main() -> None:
    parsed = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parsed.add_argument("--only", choices=tuple(BENCHES), help="one kind of faults")
    parsed.add_argument("--every", type=int, default=1, metavar="N", help="every N-th kill, disk and damage")
    parsed.add_argument("--verbose", action="store_true", help="a line for each try that did not pass, with its output")
    given = parsed.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        os.environ["CONVSCOPE_CACHE"] = f"{folder}/cache"
        made = kills.make(Path(folder) / "made")
        with _patched(_PAGES), open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            run(kills.COMMANDS["study"](made, made / "first"))  # so that what it imports is there for all
        print(f"{'faults':10} {'command':14} {'tried':>6} {'passed':>7} {'seconds':>8}")
        for kind, bench in BENCHES.items():
            if given.only in (None, kind):
                failed += _shown(kind, bench(made, Path(folder) / kind, given.every), given.verbose)
    sys.exit(failed > 0)


def _shown(kind: str, benches: Iterator[tuple[str, Passed]], verbose: bool) -> int:
    """Prints a line a command; how many tries did not pass."""
    failed, began = 0, time.monotonic()
    for command, tried in benches:
        wrong = [(what, why) for what, why in tried if why]
        seconds, began = time.monotonic() - began, time.monotonic()
        print(f"{kind:10} {command:14} {len(tried):6} {len(tried) - len(wrong):7} {seconds:8.0f}", flush=True)
        for what, why in wrong:
            print(f"    {what}: {why if verbose else why.splitlines()[-1][:150]}")
        failed += len(wrong)
    return failed


def _killed(made: Path, folder: Path, every: int) -> Iterator[tuple[str, Passed]]:
    for name, command in kills.COMMANDS.items():
        yield name, list(_killed_one(command, name, made, folder / name.replace(" ", ""), every, _PAGES))
    report = kills.COMMANDS["report"]
    yield "report, whole", list(_killed_one(report, "report", made, folder / "whole-report", 7 * every, {}))


def _killed_one(
    command: kills.Command, name: str, made: Path, folder: Path, every: int, pages: dict[str, Callable[..., object]]
) -> Iterator[tuple[str, str]]:
    whole = folder / "whole" / "out"
    given = _prepared(command, made, whole)
    with _patched(pages), patch.object(engine, "LocalProcesses", kills.in_this_process):
        done = (folder / "done").absolute()
        _in_child(partial(_lives, given, whole, None, done), folder / "log")
        operations = done.read_text().splitlines()
        expected = kills.files(whole, with_pages=bool(pages))
        for last in range(1, len(operations) + 1, every):
            out = folder / str(last) / "out"
            given = _prepared(command, made, out)
            status, _ = _in_child(partial(_lives, given, out, last, None), folder / "log")
            if status == 0 and 10 * last > 9 * len(operations):  # a sweep also commits by the clock, so often or less
                print(f"    {name} came to its end before its operation {last} of {len(operations)}: not tried")
                shutil.rmtree(out.parent)
                continue
            again, said = _in_child(partial(run, given), folder / "log")
            finished = name == "train" and (out / MODEL).exists() and "finished run already" in said
            same = kills.files(out, with_pages=bool(pages)) == expected
            why = "" if status == -signal.SIGKILL else f"was not killed: {status}"
            why = (
                why or ("" if again == 0 or finished else f"status {again}\n{said}") or ("" if same else "other files")
            )
            yield f"{name} after {operations[last - 1]}", why
            shutil.rmtree(out.parent)


def _lives(command: list[str], out: Path, last: int | None, done: Path | None) -> int:
    own = os.getpid()
    life = Life(out, last=last, end=lambda: os.kill(own, signal.SIGKILL))
    with lived(life):
        status = run(command)
    if done:
        done.write_text("\n".join(life.done))
    return status


def _prepared(command: kills.Command, made: Path, out: Path) -> list[str]:
    """The words of a command, after what must be there before it was done in a process of its own."""
    out.parent.mkdir(parents=True, exist_ok=True)
    _in_child(lambda: (command(made, out), 0)[1], out.parent / "log")
    return command(made, out)


def _full(made: Path, folder: Path, every: int) -> Iterator[tuple[str, Passed]]:
    for name in ("train", "study", "sweep"):
        yield name, list(_full_one(kills.COMMANDS[name], made, folder / name, every))


def _full_one(command: kills.Command, made: Path, folder: Path, every: int) -> Iterator[tuple[str, str]]:
    whole = folder / "whole" / "out"
    with _patched(_PAGES), patch.object(engine, "LocalProcesses", kills.in_this_process):
        _in_child(partial(run, _prepared(command, made, whole)), folder / "log")
        weights = _weights(whole)
        need = sum(4096 * (2 + path.stat().st_size // 4096) for path in whole.rglob("*")) // 4096
        for pages in range(1, need, max(1, every * need // 12)):
            with _disk(folder / f"{pages}", f"size={4 * pages}k") as disk:
                given = command(made, disk / "out")
                status, said = _in_child(partial(run, given), folder / "log")
                why = _in_one_line(status, said)
                subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
                again, said = _in_child(partial(run, given), folder / "log")
                finished = "finished run already" in said
                why = why or ("" if again == 0 or finished else f"with room again: status {again}\n{said}")
                yield f"with {4 * pages} kB", why or ("" if _weights(disk / "out") == weights else "other weights")


def _read_only(made: Path, folder: Path, every: int) -> Iterator[tuple[str, Passed]]:
    with _patched(_PAGES), _disk(folder, "size=64m") as disk:
        one = _two_runs(made, disk)
        begun = shutil.copytree(one, disk / "begun")
        for file in (MODEL, "metrics.json", "predictions.safetensors"):
            (begun / file).unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        words = _commands(disk / "runs", one, begun, made)
        before = kills.files(disk)
        for name, given in words.items():
            status, said = _in_child(partial(run, given), folder.parent / "log")
            why = _in_one_line(status, said) or ("" if kills.files(disk) == before else "something has changed")
            yield name, [(" ".join(given), why)]


def _hostile(made: Path, folder: Path, every: int) -> Iterator[tuple[str, Passed]]:
    folder.mkdir(parents=True, exist_ok=True)
    one = _two_runs(made, folder)
    tried: dict[str, Passed] = {}
    with _patched(_PAGES):
        for damage, act in list(DAMAGES.items())[::every]:
            bad = shutil.copytree(one, folder / "runs" / "bad")
            act(bad)
            for name, given in _commands(folder / "runs", bad, bad, made).items():
                status, said = _in_child(partial(run, given), folder / "log")
                tried.setdefault(name, []).append((damage, _in_one_line(status, said)))
            shutil.rmtree(bad)
    yield from tried.items()


def _two_runs(made: Path, folder: Path) -> Path:
    """Evaluated runs in runs/a and runs/b of the folder; the first of them."""
    for name in ("b", "a"):
        out = folder / "runs" / name
        work = partial(lambda out: run(kills.COMMANDS["train"](made, out)) or run(["evaluate", str(out)]), out)
        _in_child(work, folder / "log")
    return out


def _commands(runs: Path, one: Path, begun: Path, made: Path) -> dict[str, list[str]]:
    """Commands on a folder of runs, and on one of them, by name."""
    return {
        "table": ["table", str(runs)],
        "compare": ["compare", str(runs / "a"), str(runs / "b")],
        "compare it": ["compare", str(runs / "b"), str(one)],
        "report of all": ["report", str(runs)],
        "report": ["report", str(one)],
        "evaluate": ["evaluate", str(one), "--device", "cpu"],
        "look": ["look", str(one), "filters"],
        "resume": ["train", "--resume", str(begun), "--device", "cpu"],
        "study": ["study", str(made / "one.yaml"), "--out", str(one), "--device", "cpu"],
        "train": ["train", str(made / "one.yaml"), "--out", str(begun), "--device", "cpu"],
        "reproduce": ["reproduce", "net1-grid", "--out", str(runs)],
    }


def _in_one_line(status: int, said: str) -> str:
    """Why a command did not end as it should: well, or with one line."""
    complaints = [line for line in said.splitlines() if line.startswith("convscope: ")]
    if status < 0:
        return f"ended by {signal.Signals(-status).name}\n{said}"
    if status and (len(complaints) != 1 or "unexpected" in complaints[0]):
        return said or f"status {status} without a word"
    return said if "Traceback" in said else ""


def _in_child(work: Callable[[], int], log: Path) -> tuple[int, str]:
    """Status of a process that does that, minus its signal where one ended it, and what it said."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            for stream in (1, 2):
                os.dup2(said.fileno(), stream)
            signal.alarm(_LIMIT_S)
            status = 1
            try:
                status = work()
            finally:
                sys.stdout.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        return status, said.read().decode("utf-8", "replace")


def _weights(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob(MODEL))}


@contextmanager
def _patched(pages: dict[str, Callable[..., object]]) -> Iterator[None]:
    """Pages without content: here the files count."""
    with ExitStack() as stack:
        for name, page in pages.items():
            stack.enter_context(patch(name, page))
        yield


@contextmanager
def _disk(folder: Path, options: str) -> Iterator[Path]:
    """A small disk of its own."""
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        sys.exit(f"no disk can be mounted ({mounted.stderr.strip()}): run it as root, or with --only kills or hostile")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


BENCHES = {"kills": _killed, "full": _full, "read-only": _read_only, "hostile": _hostile}

if __name__ == "__main__":
    main()
