"""What a sweep would do: its runs, their networks' sizes, and the time from a measured step."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from convscope.compute import choose_device, own_random_state, share_of_cores, threads
from convscope.data import DataBundle, DataSpec, load_data
from convscope.errors import ConvscopeError, SettingError
from convscope.nets import make_task
from convscope.runs import RunSpec, as_network_wants, build_from_spec
from convscope.study.draws import drawn_beforehand
from convscope.study.spec import StudySpec
from convscope.training import StepCost, make_card, measure_step

_MEASURE_S = 30.0
"""So long networks are measured; those after that are taken to cost what the others do on average."""

_COSTLY = ("batch", "accumulate", "optimizer", "augmentation", "channels_last", "precision", "class_weights")


@dataclass(frozen=True)
class PlannedRun:
    """One run of a plan.

    Attributes:
        number, seed: as in its folder's name.
        settings: dotted keys and values.
        parameters: of its network; None where it was not built, or cannot be.
        seconds: its training steps alone; None where the network cannot be built.
        problem: why it will fail; '' for others.
    """

    number: int
    seed: int
    settings: Mapping[str, Any]
    parameters: int | None
    seconds: float | None
    problem: str = ""


@dataclass(frozen=True)
class Plan:
    """What a sweep would do.

    Attributes:
        runs: in order of their numbers; of a search whose settings follow from results, only one that stands for all.
        n_runs: how many there will be; None where only minutes limit them.
        seconds: of all, with so many workers at once; None where nothing limits them or nothing could be measured.
        workers: how many.
        is_known: whether `runs` are the runs, not an example.
    """

    runs: list[PlannedRun]
    n_runs: int | None
    seconds: float | None
    workers: int
    is_known: bool


def plan(spec: StudySpec, workers: int = 1, device: str = "auto") -> Plan:
    """The runs of a study, each with the size of its network and an estimate of its time; nothing is trained or written.

    Raises:
        SettingError: not one of the runs can be trained.

    The estimate is the measured time of a step × steps × epochs, for the share of the cores that a worker has. Loading,
    validation and evaluation come on top.
    """
    planned = spec.grid() if spec.is_grid else drawn_beforehand(spec)
    settings = planned or [spec.example]
    meter, runs = _Meter(device), []
    with threads(share_of_cores(workers)):
        for number, seed in spec.places(len(settings)):
            parameters, seconds, problem = None, None, ""
            try:
                parameters, seconds = meter.cost(as_network_wants(spec.run_spec(settings[number - 1], seed)))
            except ConvscopeError as error:
                problem = str(error)
            runs.append(PlannedRun(number, seed, settings[number - 1], parameters, seconds, problem))
    if runs and all(run.problem for run in runs):
        raise SettingError(f"none of these runs can be trained: {runs[0].problem}")
    durations = [run.seconds for run in runs if run.seconds is not None]
    total_s = math.inf if spec.budget.minutes is None else 60 * spec.budget.minutes
    if durations and spec.n_runs is not None:
        whole = fmean(durations) * spec.n_runs
        total_s = min(total_s, max(whole / min(workers, spec.n_runs), max(durations)))
    return Plan(runs, spec.n_runs, total_s if math.isfinite(total_s) else None, workers, bool(planned))


class _Meter:
    """Measures each kind of run once, as long as there is time for it."""

    def __init__(self, device: str) -> None:
        self.device, self.began = device, time.monotonic()
        self.costs: dict[str, StepCost | ConvscopeError] = {}
        self.sizes: dict[str, int] = {}
        self.whole: list[float] = []
        self.data: tuple[DataSpec, DataBundle | ConvscopeError] | None = None

    def cost(self, run: RunSpec) -> tuple[int, float | None]:
        """Parameters of its network, and seconds of its steps: as measured, or, once the time for that is over, what the others
        take on average."""
        key = repr((run.data, run.net, run.task, [getattr(run.recipe, part) for part in _COSTLY]))
        if key not in self.costs:
            if time.monotonic() - self.began > _MEASURE_S:
                return self._size(run), fmean(self.whole) if self.whole else None
            try:
                self.costs[key] = measure_step(run, self._loaded(run.data), self.device)
            except ConvscopeError as error:
                self.costs[key] = error
        cost = self.costs[key]
        if isinstance(cost, ConvscopeError):
            raise cost
        self.whole.append(cost.seconds * cost.steps * run.recipe.epochs)
        return cost.parameters, self.whole[-1]

    def _size(self, run: RunSpec) -> int:
        """Parameters of a network that is not measured."""
        key = repr((run.data, run.net, run.task))
        if key not in self.sizes:
            data = self._loaded(run.data)
            with own_random_state(choose_device(self.device)):
                net = build_from_spec(run, make_card(data, make_task(run.task, data.train.classes)))
            self.sizes[key] = sum(parameter.numel() for parameter in net.parameters())
        return self.sizes[key]

    def _loaded(self, spec: DataSpec) -> DataBundle:
        """The data set, or why there is none: to find that it cannot be downloaded takes half a minute."""
        if self.data is None or self.data[0] != spec:
            try:
                self.data = spec, load_data(spec)
            except ConvscopeError as error:
                self.data = spec, error
        data = self.data[1]
        if isinstance(data, ConvscopeError):
            raise data
        return data
