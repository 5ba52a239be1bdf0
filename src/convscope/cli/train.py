"""convscope train: a network, trained; no evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convscope.base.launched import launched
from convscope.cli import options
from convscope.cli.show import print_json, print_line
from convscope.errors import SettingError


def train(
    spec: Annotated[str | None, typer.Argument(help="A shipped study or a YAML file.")] = None,
    data: options.Data = None,
    net: options.Net = None,
    set_: options.Set = [],  # noqa: B006 (typer copies it)
    out: options.Out = None,
    seed: options.Seed = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    skip_bad: options.SkipBad = False,
    track: options.Track = [],  # noqa: B006
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with an unfinished run.")] = None,
    find_rate: Annotated[
        bool, typer.Option("--find-rate", help="Find the learning rate by a range test, and train with it.")
    ] = False,
    trust_code: options.TrustCode = False,
    json: options.Json = False,
) -> None:
    """Train a network, or go on with an unfinished run."""
    from convscope.scans import validation_in_words
    from convscope.study import find_spec, resume_run, train_study

    if (spec or data or net) is None and resume is None:
        raise SettingError("train: give a spec, such as lines, or --data and --net, or --resume RUN")
    if resume is not None:
        if spec or data or net or set_ or out or seed is not None or skip_bad or threads or find_rate:
            raise SettingError(
                "train: --resume goes on with the run's own spec; "
                "leave a spec, --data, --net, --set, --out, --seed, --skip-bad, --threads, --find-rate out"
            )
        run = resume_run(options.opened(resume, trust_code).path, device=device, track=track, trust=trust_code)
    else:
        if find_rate and (rate := next((one for one in set_ if one.startswith("recipe.rate=")), None)):
            raise SettingError(f"train: --find-rate finds the rate that --set {rate} gives; leave one of them out")
        settings = [*options.overrides(set_, seed, skip_bad, threads), *(["recipe.rate=find"] if find_rate else [])]
        name, run_spec = find_spec(spec, settings, data, net)
        run = train_study(run_spec, out or Path("runs") / name, device=device, track=track)
    if launched()[0]:  # the first process speaks
        return
    if json:
        print_json({"run": run.path, "history": run.history.to_dict("records")})
    else:
        for sentence in validation_in_words(run, run.load_data(), device):
            print_line(sentence)
        print_line(f"trained: {run.path}; next: {run.command('evaluate')}")
