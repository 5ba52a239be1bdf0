"""The clients of TensorBoard, MLflow and Weights & Biases, each behind the same four calls."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal, Protocol, runtime_checkable

from convscope.base.bounded import flattened
from convscope.runs import TENSORBOARD, TRACKERS, Run

Status = Literal["finished", "stopped", "diverged", "failed"]
_PROJECT = "convscope"
_LAST = "images_per_s"
"""The last figure of an epoch's row: an epoch that has it is there whole."""


@runtime_checkable
class Tracker(Protocol):
    """What is asked of a tracker. Each method may fail in any way."""

    def open(self, run: Run) -> int:
        """Begins the tracker's run, or goes on with it; gives the last epoch that is there."""

    def row(self, epoch: int, figures: dict[str, float]) -> None: ...
    def results(self, epoch: int, figures: dict[str, float]) -> None: ...
    def close(self, status: Status) -> None: ...


def flat_settings(values: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Nested settings as dotted keys; what is no plain value is written as JSON.

    Example:
        >>> flat_settings({"net": {"name": "net4", "widths": [6, 12]}, "limit": None})
        {'net.name': 'net4', 'net.widths': '[6, 12]', 'limit': 'null'}
    """
    plain = bool | int | float | str
    return {key: value if isinstance(value, plain) else json.dumps(value) for key, value in flattened(values)}


def _kept_ids(run: Run) -> dict[str, str]:
    return run.read_json(TRACKERS) if run.has(TRACKERS) else {}


def _keep_id(run: Run, name: str, number: str) -> None:
    ids = _kept_ids(run)
    if ids.get(name) != number:
        run.write_json(TRACKERS, {**ids, name: number})


class _TensorBoard:
    """Event files in RUN/tensorboard, with the settings for its HPARAMS page.

    TensorBoard's record writer writes them at once. Its usual one does so in a thread, where a full disk ends in a traceback.
    """

    def __init__(self) -> None:
        self.marks: set[str] = set()

    def open(self, run: Run) -> int:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from torch.utils.tensorboard.summary import hparams

        folder = run.path / TENSORBOARD
        folder.mkdir(exist_ok=True)
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        self.tags = events.Tags()["scalars"]
        with suppress(KeyError):  # raised where nothing is there
            self.marks = set(events.PluginTagToContent("hparams"))
        self.file = folder / f"events.out.tfevents.{time.time_ns()}.convscope"
        self._write(file_version="brain.Event:2")
        metrics = dict.fromkeys(("val_loss", "val_accuracy", "test_loss", "test_accuracy"), 0.0)
        experiment, start, self.ending = hparams(flat_settings(run.spec.model_dump(mode="json")), metrics)
        self._mark(experiment)
        self._mark(start)
        return max((event.step for event in events.Scalars(_LAST)), default=0) if _LAST in self.tags else 0

    def row(self, epoch: int, figures: dict[str, float]) -> None:
        from torch.utils.tensorboard.summary import scalar

        for tag, value in figures.items():
            self._write(step=epoch, summary=scalar(tag, value))

    def results(self, epoch: int, figures: dict[str, float]) -> None:
        self.row(epoch, {tag: value for tag, value in figures.items() if tag not in self.tags})

    def close(self, status: Status) -> None:
        """The first end is final there; so none is written where the training can go on."""
        from tensorboard.plugins.hparams.api_pb2 import Status as Ends
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

        ends = {"finished": Ends.STATUS_SUCCESS, "diverged": Ends.STATUS_FAILURE}
        if status in ends:
            record = self.ending.value[0].metadata.plugin_data
            content = HParamsPluginData.FromString(record.content)
            content.session_end_info.status = ends[status]
            content.session_end_info.end_time_secs = time.time()
            record.content = content.SerializeToString()
            self._mark(self.ending)

    def _mark(self, summary: Any) -> None:
        """One of the HPARAMS page's own records, unless it is there."""
        if (tag := summary.value[0].tag) not in self.marks:
            self._write(summary=summary)
            self.marks.add(tag)

    def _write(self, **event: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        with self.file.open("ab") as file:
            RecordWriter(file).write(Event(wall_time=time.time(), **event).SerializeToString())


class _MLflow:
    """A run of MLflow's experiment convscope (or MLFLOW_EXPERIMENT_NAME), at MLFLOW_TRACKING_URI."""

    def open(self, run: Run) -> int:
        from mlflow import MlflowClient

        self.client = MlflowClient()
        number = self._same(_kept_ids(run).get("mlflow"))
        if number is None:
            number = self._create(run)
        else:
            self.client.update_run(number, "RUNNING")
        self.number = number
        _keep_id(run, "mlflow", number)
        return max((metric.step for metric in self.client.get_metric_history(number, _LAST)), default=0)

    def _same(self, number: str | None) -> str | None:
        """The run that was begun before, unless it was deleted or is on another server."""
        from mlflow.exceptions import MlflowException

        if number is None:
            return None
        try:
            return number if self.client.get_run(number).info.lifecycle_stage == "active" else None
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def _create(self, run: Run) -> str:
        from mlflow.entities import Param

        number = str(self.client.create_run(self._experiment(), run_name=run.name).info.run_id)
        settings = [
            Param(_plain(key), str(value)) for key, value in flat_settings(run.spec.model_dump(mode="json")).items()
        ]
        for first in range(0, len(settings), 100):  # it takes no more at once
            self.client.log_batch(number, params=settings[first : first + 100])
        return number

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        try:
            return str(self.client.create_experiment(name))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return str(self.client.get_experiment_by_name(name).experiment_id)

    def row(self, epoch: int, figures: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self.client.log_batch(self.number, [Metric(_plain(key), value, now, epoch) for key, value in figures.items()])

    def results(self, epoch: int, figures: dict[str, float]) -> None:
        metrics = self.client.get_run(self.number).data.metrics
        self.row(epoch, {key: value for key, value in figures.items() if _plain(key) not in metrics})

    def close(self, status: Status) -> None:
        ends = {"finished": "FINISHED", "stopped": "KILLED"}
        self.client.set_terminated(self.number, ends.get(status, "FAILED"))


def _plain(key: str) -> str:
    """A key with _ for what MLflow takes in no name: of "recipe.rates.blocks*" the star."""
    return re.sub(r"[^/\w.\- :]", "_", key)


class _WandB:
    """A run of the project convscope (or WANDB_PROJECT) of Weights & Biases; its other variables decide the rest."""

    def open(self, run: Run) -> int:
        import wandb

        settings = flat_settings(run.spec.model_dump(mode="json"))
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT), name=run.name, config=settings,
            id=_kept_ids(run).get("wandb"), resume="allow", reinit="create_new",
        )  # fmt: skip
        _keep_id(run, "wandb", self.run.id)
        return max(0, self.run.starting_step - 1)  # its steps are our epochs, and this is the next one

    def row(self, epoch: int, figures: dict[str, float]) -> None:
        self.run.log(figures, step=epoch)

    def results(self, epoch: int, figures: dict[str, float]) -> None:
        self.run.summary.update(figures)

    def close(self, status: Status) -> None:
        self.run.finish(exit_code=0 if status == "finished" else 1)


CLIENTS: dict[str, type[Tracker]] = {
    "tensorboard": _TensorBoard,
    "mlflow": _MLflow,
    "wandb": _WandB,
}
