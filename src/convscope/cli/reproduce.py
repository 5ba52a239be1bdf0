"""convscope reproduce: the five reports' studies, run again and compared with what was reported."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convscope.cli.options import Device, Json
from convscope.cli.show import print_aside, print_json, print_line, print_table
from convscope.errors import ConvscopeError, FailedError, StoppedError

if TYPE_CHECKING:
    from convscope.courses import Reproduction

_WHAT, _REPORTED, _FOUND, _SEEDS = 34, 9, 23, 5


def reproduce(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]…", help="Studies such as net1-grid; all by default.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="smoke|laptop|full", help="Run them at this budget; full is as reported."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the runs.")] = Path("runs/reproduce"),
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="Processes that share the cores.")] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Estimate the time of each at the budget; train none.")
    ] = False,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table as a page, too.")] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Repeat the studies of five reports, and compare.

    Without --budget: a table of what was reported and what came out so far.

    Finished runs are kept: the same command goes on after a Ctrl-C, a kill, a power cut.
    """
    from convscope.courses import reproduced, reproduction_page, reproduction_to_json
    from convscope.runs import write_whole

    names = names or []
    if dry_run:
        _print_plans(names, budget or "full", workers, device, json)
        return
    studies = reproduced(out, names, budget)  # says at once which name or budget there is not
    failed = [] if budget is None else _run(studies, budget, out, workers, device)
    studies = reproduced(out, names, budget)
    print_json([reproduction_to_json(each) for each in studies]) if json else _print(studies, out)
    if markdown:
        write_whole(markdown, reproduction_page(studies, _command(names, budget, out, markdown)))
        None if json else print_line(f"page: {markdown}")
    if failed:
        raise FailedError(f"{len(failed)} of {len(studies)} studies did not come to their end; {failed[0]}")


def _command(names: list[str], budget: str | None, out: Path, markdown: Path) -> str:
    words = ["convscope", "reproduce", *names, *(["--budget", budget] if budget else [])]
    if out != Path("runs/reproduce"):
        words += ["--out", str(out)]
    return shlex.join([*words, "--markdown", str(markdown)])


def _run(studies: list[Reproduction], budget: str, out: Path, workers: int, device: str) -> list[str]:
    """What went wrong, a line a study; the others go on."""
    from convscope.compute import LocalProcesses
    from convscope.courses import budget_in_words, reproduce as run_one, study_sections
    from convscope.report import write_study_report

    failed = []
    with LocalProcesses(workers) as executor:
        for number, each in enumerate(studies, 1):
            print_aside(f"{number}/{len(studies)} {each.name}, {budget_in_words(each)}")
            try:
                study = run_one(each.name, budget, out, device=device, executor=executor)
                write_study_report(study.path, study_sections(study.path))
            except StoppedError:
                raise
            except ConvscopeError as error:
                if len(studies) == 1:
                    raise
                failed.append(f"{each.name}: {error}")
                print_aside(f"{each.name}: {error}")
    return failed


def _print(studies: list[Reproduction], out: Path) -> None:
    from convscope.courses import EXPLAINED, claim_rows, reproduction_rows, state_in_words
    from convscope.runs import REPORT

    head = f"{'':{_WHAT}} {'reported':>{_REPORTED}}  {'came out (95 %)':<{_FOUND}} {'seeds':>{_SEEDS}}  verdict"
    print_line(head.rstrip())
    for each in studies:
        print_line(f"\n{each.report} {each.name}: {each.spec.about}")
        report = each.folder / REPORT
        print_line(f"  {state_in_words(each)}" + (f"\n  {report}" if report.exists() else ""))
        for what, reported, came_out, seeds, verdict in reproduction_rows(each):
            print_line(
                f"  {what:{_WHAT - 2}} {reported:>{_REPORTED}}  {came_out:<{_FOUND}} {seeds:>{_SEEDS}}  {verdict}"
            )
        for says, difference, basis, verdict in claim_rows(each):
            if basis:
                print_line(f"  {verdict}: {says}\n    {difference}, over {basis}")
        for problem in each.problems:
            print_line(f"  ! {problem}")
    print_line("\n" + EXPLAINED)
    if not any(each.n_runs for each in studies):
        print_line(f"There are no runs in {out} yet: convscope reproduce --budget laptop")


def _print_plans(names: list[str], budget: str, workers: int, device: str, json: bool) -> None:
    from convscope.courses import find_reproduction, reproductions
    from convscope.study import duration, plan

    plans = {name: plan(find_reproduction(name, budget), workers, device) for name in names or reproductions()}
    if json:
        print_json([{"study": name, "runs": one.n_runs, "seconds": one.seconds} for name, one in plans.items()])
        return
    cells = [
        (name, str(one.n_runs), "" if one.seconds is None else duration(one.seconds)) for name, one in plans.items()
    ]
    print_table(f"{budget} budget", ["study", "runs", "time"], cells)
    print_line(f"with --workers {workers} (training steps alone, from a measured step)")
