"""`train`: opens or makes the run folder, then lets a Trainer do the work."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convscope.base.signals import stop_wish
from convscope.base.unfinished import UNFINISHED
from convscope.compute import own_random_state, threads
from convscope.data import DataBundle, Normalizer, batches, check_bundle
from convscope.errors import (
    ConvscopeError,
    NetworkError,
    RequestError,
    RunFolderError,
    SettingError,
    StoppedError,
    shortened,
)
from convscope.nets import HeadSpec, NetSpec, Task, TaskSpec, Whitening, make_task
from convscope.runs import (
    CHECKPOINT,
    ENVIRONMENT,
    FIND,
    GIVEN,
    RATE,
    SPEC,
    Card,
    Recipe,
    Run,
    RunSpec,
    alone_in,
    build_from_spec,
    describe_environment,
    make_spec,
    open_run,
)
from convscope.training.checks import check_fit, check_images, check_shares
from convscope.training.imbalance import class_weights
from convscope.training.live import Lines, LiveTable, Silent, Watcher
from convscope.training.loop import Trainer
from convscope.training.precision import settled_precision
from convscope.training.ranks import FollowedRun, together
from convscope.training.state import save_state
from convscope.training.trackers import check_trackers, tracked

_WHITENING_PIXELS = 5_000 * 32**2
"""Of the training images that a whitening layer is fitted to."""


def train(
    net: nn.Module,
    data: DataBundle,
    recipe: Recipe | None = None,
    out: str | Path | None = None,
    *,
    task: TaskSpec | Mapping[str, Any] = "softmax",
    device: str = "auto",
    resume: bool = False,
    watcher: Watcher | None = None,
    track: Sequence[str] = (),
) -> Run:
    """A run: the network trained by the recipe, with history and weights in the folder `out`.

    Trainings at the same time each want a process: threads of one share PyTorch's random state.

    Args:
        net: takes normalised images (N, C, H, W), gives logits; trained in place and left in evaluation mode.
        data: see load_data. Only its train and val images are looked at.
        recipe: how; `Recipe()` by default.
        out: the run folder, new or empty; runs/<data>-<network> by default.
        task: what the outputs mean; see make_task.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        resume: go on from the checkpoint in `out`, which must be of the same spec.
        watcher: is told of every step and epoch; a live table on a terminal by default.
        track: also tell "tensorboard" (in `out`/tensorboard), "mlflow" or "wandb" of the settings and of every epoch.
    Raises:
        RunFolderError: `out` holds another run already, or nothing to resume.
        NetworkError: the network does not fit the images or the task, or has no weights that can be trained.
        SettingError: the task is none, or the data has too few images.
        RequestError: net, data or watcher is none.
        DivergedError, StoppedError: see Trainer.fit.
        UnknownNameError: a class, module or tracker is not known.
        MissingPackageError, TrackerError: a tracker is not installed, or cannot be begun.

    Example:
        >>> run = cs.train(cs.build_net("net1"), cs.load_data("cifar10"), out="runs/first")   # doctest: +SKIP
    """
    if not isinstance(net, nn.Module):
        raise NetworkError(f"net: {shortened(net)} is no torch.nn.Module; convscope.build_net makes one of a name")
    check_bundle(data)
    if watcher is not None and not isinstance(watcher, Watcher):
        raise RequestError(
            f"watcher: {shortened(watcher)}; expected an object with begin, stage, step, epoch and end, as "
            "convscope.training.Silent has them"
        )
    net_spec = getattr(net, "convscope_spec", NetSpec(name=GIVEN))
    spec = make_spec({"data": data.spec, "net": net_spec, "task": task, "recipe": recipe or Recipe()}, "train")
    folder = Path(out) if out else Path("runs") / f"{data.name}-{net_spec.name}"
    return train_spec(spec, data, folder, net=net, device=device, resume=resume, watcher=watcher, track=track)


@torch.inference_mode(mode=False)
@torch.enable_grad()
def train_spec(
    spec: RunSpec,
    data: DataBundle,
    out: Path,
    *,
    net: nn.Module | None = None,
    device: str = "auto",
    resume: bool = False,
    watcher: Watcher | None = None,
    track: Sequence[str] = (),
) -> Run:
    """As `train`, with everything named by a spec; the network is built from it, seeded, where none is given."""
    check_trackers(track)
    if spec.recipe.rate == FIND:
        raise SettingError("recipe.rate: find belongs to a spec (convscope train, study, sweep); give a number here")
    task = make_task(spec.task, data.train.classes)
    card = make_card(data, task)
    with together(device) as (ranks, where), own_random_state(where), threads(spec.recipe.threads):
        torch.manual_seed(spec.recipe.seed)
        given = net is not None
        net = build_from_spec(spec, card) if net is None else net
        check_fit(net, card, task, spec.recipe)
        if given and not _is_built_so(net, spec, card):
            spec = spec.model_copy(update={"net": NetSpec(name=GIVEN)})
        check_images(net, data, spec.recipe)
        check_shares(net, spec.recipe, ranks, where)
        class_weights(spec.recipe, task, data.train)  # says before anything is written which class is not there
        if not resume and ranks.is_first:
            with suppress(OSError):  # the first that is written says why
                out.mkdir(parents=True, exist_ok=True)
        with alone_in(out) if ranks.is_first else nullcontext():
            run: Run = FollowedRun(out)
            if ranks.is_first and resume:
                run = _reopen(out, spec, data)
            elif ranks.is_first:
                precision = settled_precision(spec.recipe, net, data, task, where)
                run = _begin(out, spec, data, net, given, precision)
            goes_on = ranks.any(
                ranks.is_first and resume and run.has(CHECKPOINT), where
            )  # the others wait for the folder
            precision = run.environment.get("precision") or {"format": spec.recipe.precision}
            fit_whitening(net, data)
            if spec.recipe.sync_batch_norm and ranks.count > 1:
                net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
            recipe = spec.recipe.model_copy(update={"precision": precision["format"]})
            trainer = Trainer(run, net, data, task, recipe, where, goes_on, ranks)
            if given and not goes_on:  # its first weights cannot be made again from the spec
                save_state(run, trainer.state, net, trainer.optimizer)
            if not ranks.is_first:
                watcher, track = Silent(), ()
            watcher = watcher or (LiveTable() if sys.stderr.isatty() else Lines())
            with stop_wish() as wish, tracked(watcher, track, run, trainer.state.history) as watcher:
                trainer.fit(watcher, wish)
            run.check_there()
            run.write_model(net, card)
            if ranks.is_first:
                (run.path / CHECKPOINT).unlink(missing_ok=True)
            ranks.any(False, where)  # the others wait for the model
    if wish.asked:  # after the last step
        raise StoppedError(f"{out}: stopped when the training had just come to its end; go on with the same command")
    return open_run(out, None if spec.net.name != GIVEN else net, trust=True)


def make_card(data: DataBundle, task: Task) -> Card:
    """The card of a network for that data and task."""
    classes = {head.target: head.classes for head in task.heads}
    heads = {head.target: HeadSpec(kind=head.kind, weight=head.weight).plain() for head in task.heads}
    return Card(data.input_shape, data.mean, data.std, classes, heads)


def _is_built_so(net: nn.Module, spec: RunSpec, card: Card) -> bool:
    """Whether the spec still says what a given network is: its owner may have changed it since build_net."""
    try:
        built = build_from_spec(spec, card, trained_weights=False)
    except ConvscopeError:
        return False
    shapes, own = ({name: value.shape for name, value in one.state_dict().items()} for one in (built, net))
    words, own_words = (re.sub("0x[0-9a-f]+", "", str(one)) for one in (built, net))  # without addresses in memory
    return shapes == own and words == own_words


def _begin(out: Path, spec: RunSpec, data: DataBundle, net: nn.Module, given: bool, precision: dict[str, Any]) -> Run:
    """A new run folder."""
    check_free(out)
    run = Run(out)
    environment = {
        **describe_environment(),
        "first_weights": "given" if given else "spec",
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "precision": precision,
        "data": {
            "name": data.name,
            "source": data.shared_source,
            "digest": data.digest,
            "images": {"train": len(data.train), "val": len(data.val), "test": len(data.test)},
            "duplicates": data.duplicates,
            "left_out": [list(pair) for pair in data.left_out],
        },
    }
    run.write_json(ENVIRONMENT, environment)
    run.write_spec(spec)
    return run


def check_free(out: Path) -> None:
    """Refuses a folder that holds a run, or anything but what is there of a run that was killed when it began."""
    if os.path.exists(out / SPEC):
        run = Run(out)
        state = "a finished run" if run.is_trained else f"an unfinished run ({run.command('train --resume')})"
        raise RunFolderError(f"{out} holds {state} already; choose another --out, or delete it")
    names = os.listdir(out) if os.path.isdir(out) else [""]
    leftovers = [name in (ENVIRONMENT, RATE) or (name.startswith(".") and name.endswith(UNFINISHED)) for name in names]
    if os.path.exists(out) and not all(leftovers):
        raise RunFolderError(f"{out} exists and is no run; choose another --out")


def _reopen(out: Path, spec: RunSpec, data: DataBundle) -> Run:
    """The unfinished run in a folder, after making sure that it is the same one."""
    run = open_run(out)
    if run.is_trained:
        raise RunFolderError(f"{out} holds a finished run; there is nothing to resume")
    if different := run.spec.differences(spec):
        raise RunFolderError(f"{out} holds a run with other settings ({', '.join(different)}); choose another --out")
    threads_before, threads_now = run.environment.get("threads"), torch.get_num_threads()
    if threads_before not in (None, threads_now):
        print(  # noqa: T201
            f"note: {out} began with {threads_before} threads and goes on with {threads_now}: its weights will differ in their "
            f"last bits from those of a run that was not interrupted; OMP_NUM_THREADS={threads_before} keeps them",
            file=sys.stderr,
        )
    digest = run.environment["data"]["digest"]
    if digest != data.digest:
        raise RunFolderError(
            f"{out}: the data set {data.name!r} has changed since this run began; train again elsewhere"
        )
    return run


def fit_whitening(net: nn.Module, data: DataBundle) -> None:
    """Fits whitening layers that are not fitted yet to some training images."""
    layers = [module for module in net.modules() if isinstance(module, Whitening) and not module.fitted]
    if layers:
        n_images = max(1, _WHITENING_PIXELS // math.prod(data.input_shape[1:]))
        images = next(batches(data.train, min(n_images, len(data.train)), seed=0)).images
        for layer in layers:
            layer.fit(Normalizer(data.mean, data.std, images.device)(images))
