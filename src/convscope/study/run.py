"""A study: from a spec to a trained and evaluated run. (Several runs, and the table across them, build on this.)"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from convscope.base.memory import memory_returned
from convscope.compute import write_whole
from convscope.data import DataBundle, data_names, load_data
from convscope.errors import RunFolderError, SettingError, UnknownNameError
from convscope.graph import Anatomy, anatomy
from convscope.nets import build_natural, check_name
from convscope.runs import (
    CHECKPOINT,
    FIND,
    RATE,
    SPEC,
    Run,
    RunSpec,
    as_network_wants,
    load_spec,
    open_run,
    parse_mapping,
    read_spec,
)
from convscope.scans import evaluate
from convscope.study.spec import StudySpec, load_study, read_study
from convscope.training import Watcher, check_free, check_trackers, find_rate, together, track_results, train_spec

_OF_DATA = (".npz", ".parquet", ".zip", ".tar")


def shipped_studies() -> dict[str, str]:
    """The studies that come with convscope: name → a line about it."""
    return {name: str(parse_mapping(text, f"{name}.yaml").get("about", "")) for name, text in shipped_texts().items()}


def find_spec(
    name: str | None, overrides: Iterable[str] = (), data: str | None = None, net: str | None = None
) -> tuple[str, RunSpec]:
    """A study's short name and its spec.

    Args:
        name: a shipped study ("lines") or a YAML file; none is needed where data and net are given.
        overrides: `key=value`, see convscope.runs.read_spec.
        data, net: in place of the spec's own, before the overrides.
    Raises:
        UnknownNameError: neither a shipped study nor a file.
        SettingError: the file or an override is wrong; or nothing says what to train.
    """
    parts = [
        f"{key}={json.dumps(part, ensure_ascii=False)}"
        for key, part in (("data", data), ("net", net))
        if part is not None
    ]
    overrides = [*parts, *overrides]
    if name is None:
        if data is None or net is None:
            raise SettingError(
                "give a study, such as lines, or --data and --net, such as --data photos --net lean-cifar"
            )
        short = "-".join(re.findall(r"[\w.]+", f"{Path(data).stem} {net}"))
        return short, read_spec("{}", "--data and --net", overrides)
    source = _find(name)
    if isinstance(source, Path):
        return source.stem, load_spec(source, overrides)
    return name, read_spec(source, f"{name}.yaml (shipped)", overrides)


def find_study(name: str, overrides: Iterable[str] = ()) -> tuple[str, StudySpec]:
    """As find_spec, for a study of several runs."""
    source = _find(name)
    if isinstance(source, Path):
        return source.stem, load_study(source, overrides)
    return name, read_study(source, f"{name}.yaml (shipped)", overrides)


def run_study(
    spec: RunSpec,
    out: Path,
    *,
    data: DataBundle | None = None,
    device: str = "auto",
    watcher: Watcher | None = None,
    track: Sequence[str] = (),
) -> Run:
    """A trained and evaluated run of the spec in the folder `out`.

    What is there already of the same spec is kept: an unfinished training goes on, a finished one is not done again.

    Args:
        spec: data, network, task and recipe.
        out: the run folder.
        data: the spec's data set; loaded where not given.
        device: see convscope.compute.choose_device.
        watcher: see convscope.train.
        track: see convscope.train; the trackers also get the figures of the test images.
    Raises:
        RunFolderError: `out` holds a run of another spec.
    """
    check_trackers(track)
    spec, data = _loaded(spec, data)
    spec = _with_rate(spec, data, out, device)
    if os.path.exists(out / SPEC) and (run := open_run(out, trust=True)).is_trained:
        _check_same(run, spec, data)
    else:
        with memory_returned():
            run = train_spec(
                spec, data, out, device=device, resume=os.path.exists(out / SPEC), watcher=watcher, track=track
            )
    with memory_returned():
        track_results(run, evaluate(run, data, device), track)
    return run


def train_study(
    spec: RunSpec, out: Path, *, device: str = "auto", watcher: Watcher | None = None, track: Sequence[str] = ()
) -> Run:
    """A trained run of the spec in the folder `out`; an unfinished one that is there of the same spec goes on.

    Raises:
        RunFolderError: `out` holds a finished run already, or one of another spec.
    """
    check_trackers(track)
    with together(device) as (ranks, where):
        if ranks.count > 1 and spec.recipe.rate == FIND:
            raise SettingError("recipe.rate: find works in a single process; find it there, then give the number")
        first = spec
        spec, data = ranks.after_the_first(lambda: _loaded(first), where)
        spec = _with_rate(spec, data, out, device)
        begun = (out / SPEC).exists()
        was_ended = _ended_by_a_kill(out) if begun and ranks.is_first else None
        if was_ended:
            _check_same(was_ended, spec, data)
        if ranks.any(bool(was_ended), where):
            return was_ended or open_run(out)
        resume = begun and not Run(out).is_trained
        return train_spec(spec, data, out, device=device, resume=resume, watcher=watcher, track=track)


def resume_run(
    folder: Path,
    *,
    device: str = "auto",
    watcher: Watcher | None = None,
    track: Sequence[str] = (),
    trust: bool = False,
) -> Run:
    """The unfinished training in a folder, taken to its end.

    Args:
        folder: of the run.
        device, watcher, track: see convscope.train.
        trust: see open_run.
    Raises:
        UntrustedCodeError: see open_run.
        RunFolderError: the folder holds no run, or a finished one.
    """
    check_trackers(track)
    with together(device) as (ranks, where):
        ended = _ended_by_a_kill(folder) if ranks.is_first else None
        run = ended or open_run(folder, trust=trust)
        if ranks.any(bool(ended), where):
            return run
        run.check_trust()
        if run.is_trained:
            raise RunFolderError(f"{folder} holds a finished run; there is nothing to resume")
        data = ranks.after_the_first(run.load_data, where)
        return train_spec(run.spec, data, folder, device=device, resume=True, watcher=watcher, track=track)


def _ended_by_a_kill(folder: Path) -> Run | None:
    """The run in a folder whose training was killed when all but its checkpoint's removal was done; that is done here."""
    run = Run(folder)
    return open_run(folder) if run.is_trained and run.has(CHECKPOINT) and run.has(SPEC) else None


def _loaded(spec: RunSpec, data: DataBundle | None = None) -> tuple[RunSpec, DataBundle]:
    """The data, and the spec with all that was left to the network's and the data set's own defaults stated."""
    check_name(spec.net.name)  # before a download
    adapted = as_network_wants(spec)
    data = data or load_data(adapted.data)
    _say_what_is_wanted(spec, adapted, data)
    return spec.model_copy(update={"data": data.spec}), data


def _with_rate(spec: RunSpec, data: DataBundle, out: Path, device: str) -> RunSpec:
    """The spec with its rate as a number: where it is to be found, that of the run in `out`, else from a range test.

    A picture of the test is written to `out`; it also says of a run there that its rate was found.
    """
    if spec.recipe.rate != FIND:
        return spec
    if os.path.exists(out / SPEC):
        run = open_run(out, trust=True)
        if not run.has(RATE):
            raise RunFolderError(
                f"{out} holds a run whose rate was given, not found; choose another --out, or that rate"
            )
        rate = run.spec.recipe.peak_rate
    else:
        from convscope.draw import chart_png, rate_curve  # takes a second to load

        check_free(out)
        rate, losses = find_rate(spec, data, device)
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / RATE, chart_png(rate_curve(losses, rate)))
        first, best = losses.iloc[0], losses.iloc[losses["smoothed"].argmin()]
        print(  # noqa: T201
            f"recipe.rate: {rate:g}, a quarter of {best['rate']:.2g}, where the smoothed loss of a range test is least "
            f"({best['smoothed']:.3g}; {first['smoothed']:.3g} at first); picture: {out / RATE}",
            file=sys.stderr,
        )
    return spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"rate": rate})})


def _say_what_is_wanted(spec: RunSpec, adapted: RunSpec, data: DataBundle) -> None:
    notes = []
    if adapted.data.image_size != spec.data.image_size:
        notes.append(f"data.image_size: {adapted.data.image_size}")
    if adapted.data.normalize != spec.data.normalize:
        notes.append("data.normalize: as for its weights")
    if adapted.data.channels != spec.data.channels and data.repeats_grey:
        notes.append("data.channels: 3, which repeats the channel of these grey images")
    if notes:
        print(f"note: {spec.net.name} wants {'; '.join(notes)}", file=sys.stderr)  # noqa: T201
    if data.is_reduced:
        print("note: images of 16 bits are scaled to 8; data.bits: 16 keeps them", file=sys.stderr)  # noqa: T201


def _check_same(run: Run, spec: RunSpec, data: DataBundle) -> None:
    different = run.spec.differences(spec)
    if not different and run.environment["data"]["digest"] != data.digest:
        different = ["other images in the data set"]
    if different:
        raise RunFolderError(
            f"{run.path} holds a finished run with other settings ({', '.join(different)}); "
            "choose another --out, or delete it"
        )


def _find(name: str) -> Path | str:
    """The file of that name, or the text of a shipped study."""
    path, texts = Path(name), shipped_texts()
    # of a run, a study or data it is said which command or setting it belongs to
    if (path / SPEC).is_file():
        raise SettingError(f"{path} is a run's folder; to go on with it: {Run(path).command('train --resume')}")
    if (path / "study.yaml").is_file():
        raise SettingError(
            f"{path} is a study's folder; to go on with it: "
            f"convscope sweep {quote(str(path / 'study.yaml'))} --out {quote(str(path))}"
        )
    if path.is_dir() or path.suffix.lower() in _OF_DATA or path.name in set(data_names()) - set(texts):
        raise SettingError(
            f"{path} is data; name a network too: convscope train --data {quote(str(path))} --net lean-cifar"
        )
    if path.suffix in {".yaml", ".yml"} or os.path.isfile(path):
        if not os.path.exists(path):
            raise UnknownNameError("study file", name, sorted(str(p) for p in Path().glob("*.y*ml")), "there")
        return path
    if name not in texts:
        raise UnknownNameError("study", name, texts, "shipped, and no YAML file")
    return texts[name]


def shipped_texts() -> dict[str, str]:
    """The YAML of each shipped study, by name."""
    folder = resources.files("convscope.study") / "shipped"
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    return {f.name.removesuffix(".yaml"): f.read_text("utf-8") for f in files if f.name.endswith(".yaml")}


def anatomy_by_name(name: str, shape: str | None = None, options: dict[str, Any] | None = None) -> Anatomy:
    """The anatomy of a network by name.

    Args:
        name: see convscope.nets.build_net.
        shape: of the images, "3x32x32"; by default what the network was made for, see convscope.nets.natural_input.
        options: of its builder; its classes, too, are by default those that it was made for.
    Raises:
        SettingError: the shape is not CxHxW.

    Example:
        >>> anatomy_by_name("net4").parameters
        4403518
    """
    if "name" in (options or {}):
        raise SettingError("--set name: the network is named by the first argument; leave it out")
    net, made_for = build_natural(name, shape, options)
    return anatomy(net, torch.zeros(2, *made_for.shape), name)
