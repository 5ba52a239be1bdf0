"""Options that several verbs share, each explained once."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext, suppress
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convscope.cli.show import print_aside
from convscope.errors import SettingError

if TYPE_CHECKING:
    from convscope.compute import Executor
    from convscope.runs import Run

Set = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a setting, such as recipe.epochs=20; may be given several times."
    ),
]
Data = Annotated[
    str | None,
    typer.Option("--data", metavar="NAME|PATH", help="The data set; with --net no spec is needed."),
]
Net = Annotated[
    str | None,
    typer.Option("--net", metavar="NAME", help="The network: a name, a plain text, timm:NAME, module:callable."),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Folder of the run, new or of the same spec; runs/NAME if left out."),
]
CardFolder = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="The folder; card in the run folder if left out.")
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="Compute on auto, cpu, cuda, cuda:1 or mps.")]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed", metavar="N", help="Seed of weights, order and augmentation; that of the spec (0) if left out."
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        min=1,
        help="CPU threads in training, all cores if left out; the spec keeps the number, for the same bits elsewhere.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, to stdout.")]
Track = Annotated[
    list[str],
    typer.Option(
        "--track", metavar="NAME", help="Also write to tensorboard, mlflow or wandb; may be given several times."
    ),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out files that cannot be read, and count them.")]
TrustCode = Annotated[
    bool, typer.Option("--trust-code", help="Import and run the code that the run names as its network.")
]
Minutes = Annotated[
    str,
    typer.Option(
        "--minutes",
        metavar="N",
        help="About how long a run's report may take on two cores, or all for no limit: parts that would take longer are made "
        "of fewer images or units, or left out, and say so.",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="auto|local|HOST:PORT",
        help="Work on a Ray cluster: auto is the one that this machine belongs to, local begins one here.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", min=1, help="With a folder as --out: processes that share the cores."),
]
CpusPerRun = Annotated[
    int, typer.Option("--cpus-per-run", metavar="N", min=1, help="With --ray: cores, and threads, of each task.")
]
GpusPerRun = Annotated[
    float,
    typer.Option(
        "--gpus-per-run", metavar="F", min=0, help="With --ray: GPUs of each task; 0.5 lets two tasks share one."
    ),
]
AllowDifferent = Annotated[
    bool,
    typer.Option(
        "--allow-different",
        help="With --ray: also take nodes with other versions or processors; the last bits may then differ.",
    ),
]
RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, such as runs/lines.")]


def cluster(
    address: str | None, cpus: int, gpus: float, allow_different: bool, tasks: int | None = None
) -> AbstractContextManager[Executor | None]:
    """The cluster of --ray and the options that belong to it; None without it."""
    if address is None:
        for option, given in (
            ("--cpus-per-run", cpus != 1),
            ("--gpus-per-run", gpus),
            ("--allow-different", allow_different),
        ):
            if given:
                raise SettingError(f"{option}: it is a setting of a cluster; give --ray too")
        return nullcontext()
    from convscope.compute import Ray

    return Ray(address, cpus=cpus, gpus=gpus, tasks=tasks, allow_different=allow_different)


def read_minutes(text: str) -> float:
    """The value of --minutes.

    Raises:
        SettingError: it is neither a number above 0 nor "all".
    """
    if text == "all":
        return inf
    with suppress(ValueError):
        if 0 < float(text) < inf:
            return float(text)
    raise SettingError(f"--minutes {text}: expected a number above 0, such as 20, or all for no limit")


def opened(folder: Path, trust_code: bool) -> Run:
    """The run in a folder; says which code of others it will run."""
    from convscope.nets import code_in
    from convscope.runs import open_run

    run = open_run(folder, trust=trust_code)
    if trust_code and (code := code_in(run.spec.net)):
        print_aside(f"note: {folder} runs {code}")
    return run


def overrides(
    given: list[str], seed: int | None = None, skip_bad: bool = False, threads: int | None = None
) -> list[str]:
    """--set, --seed, --skip-bad and --threads as one list of overrides of a run's spec."""
    own = {"recipe.seed": seed, "recipe.threads": threads, "data.skip_bad": "true" if skip_bad else None}
    return [*given, *(f"{key}={value}" for key, value in own.items() if value is not None)]
