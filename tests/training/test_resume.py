"""A training that is stopped or killed goes on to the same bits, and has its folder to itself."""

import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

from convscope.errors import (
    FailedError,
    FolderInUseError,
    RunFolderError,
    StoppedError,
)
from convscope.runs import CHECKPOINT, MODEL, open_run, read_tensors, write_tensors
from convscope.training import Silent, train
from tests.gpus import on_gpu
from tests.killing import dead_process
from tests.training.trainings import NET, Make, StopAt, die, digest_of, short_recipe, small_net, with_threads


@pytest.mark.parametrize(
    ("net", "changes"),
    [
        *((NET, {"optimizer": optimizer}) for optimizer in ("sgd", "adam", "adamw", "rmsprop", "muon")),
        (NET, {"averaging": "ema"}),
        (NET, {"averaging": "lookahead", "optimizer": "muon"}),
        (NET, {"averaging": "ema", "patience": 5}),
        (NET, {"precision": "bf16", "optimizer": "muon"}),
        ("We c8lo M Bn E c8noe fo", {"optimizer": "muon"}),
    ],
)
def test_interrupted_and_resumed_gives_the_same_bits(
    spots: Make, tmp_path: Path, net: str, changes: dict[str, Any]
) -> None:
    """Stopped in the middle of the second epoch; resumed with a network of other weights; the result is the same file."""
    data, recipe = spots(), short_recipe(**{"rate": 0.004} | changes)
    train(small_net(text=net), data, recipe, tmp_path / "whole", device="cpu", watcher=Silent())
    stop = StopAt(1, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(
        StoppedError, match=r"stopped in epoch 2 of 3 after step 2 .*convscope train --resume '.*two halves'$"
    ):
        train(small_net(text=net), data, recipe, tmp_path / "two halves", device="cpu", watcher=stop)
    assert not (tmp_path / "two halves" / MODEL).exists()
    train(
        small_net(seed=9, text=net), data, recipe, tmp_path / "two halves", device="cpu", resume=True, watcher=Silent()
    )
    assert digest_of(tmp_path / "whole") == digest_of(tmp_path / "two halves")
    timeless = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "rate"]
    whole, halves = (open_run(tmp_path / name).history[timeless] for name in ("whole", "two halves"))
    pd.testing.assert_frame_equal(whole, halves, check_exact=True)


def test_killed_between_checkpoints_and_resumed_gives_the_same_bits(spots: Make, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def die() -> None:
        raise Killed

    data, recipe = spots(), short_recipe(patience=5)
    train(small_net(), data, recipe, tmp_path / "whole", device="cpu", watcher=Silent())
    with pytest.raises(Killed):
        train(small_net(), data, recipe, tmp_path / "halves", device="cpu", watcher=StopAt(1, 3, die))
    train(small_net(seed=9), data, recipe, tmp_path / "halves", device="cpu", resume=True, watcher=Silent())
    assert digest_of(tmp_path / "whole") == digest_of(tmp_path / "halves")
    assert not (tmp_path / "halves" / CHECKPOINT).exists()


def test_killed_before_the_first_checkpoint_begins_again(spots: Make, tmp_path: Path) -> None:
    data = spots()
    with pytest.raises(KeyboardInterrupt):
        train(small_net(), data, short_recipe(), tmp_path / "run", device="cpu", watcher=StopAt(0, 1, die))
    train(small_net(), data, short_recipe(), tmp_path / "run", device="cpu", resume=True, watcher=Silent())
    train(small_net(), data, short_recipe(), tmp_path / "other", device="cpu", watcher=Silent())
    assert digest_of(tmp_path / "run") == digest_of(tmp_path / "other")


def test_resumed_after_the_best_epoch_the_best_weights_come_back(spots: Make, tmp_path: Path) -> None:
    """Stopped in the epoch after the best: what is best was seen before the stop alone."""
    data, recipe = spots(), short_recipe(epochs=40, rate=0.05, schedule="constant", patience=2, watch="val_accuracy")
    whole = train(small_net(), data, recipe, tmp_path / "whole", device="cpu", watcher=Silent())
    best = int(whole.history.val_accuracy.idxmax())
    stop = StopAt(best + 1, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(StoppedError):
        train(small_net(), data, recipe, tmp_path / "halves", device="cpu", watcher=stop)
    halves = train(small_net(seed=9), data, recipe, tmp_path / "halves", device="cpu", resume=True, watcher=Silent())
    assert len(halves.history) == len(whole.history) == best + 3
    assert digest_of(tmp_path / "halves") == digest_of(tmp_path / "whole")


def test_a_folder_that_is_taken_is_refused(spots: Make, tmp_path: Path) -> None:
    data = spots()
    train(small_net(), data, short_recipe(epochs=1), tmp_path / "run", device="cpu", watcher=Silent())
    with pytest.raises(RunFolderError, match="holds a finished run already; choose another --out"):
        train(small_net(), data, short_recipe(epochs=1), tmp_path / "run", device="cpu")
    with pytest.raises(RunFolderError, match="there is nothing to resume"):
        train(small_net(), data, short_recipe(epochs=1), tmp_path / "run", device="cpu", resume=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunFolderError, match="exists and is no run"):
        train(small_net(), data, short_recipe(epochs=1), tmp_path / "mine", device="cpu")


def test_another_spec_or_other_data_is_not_resumed(spots: Make, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(small_net(), spots(), short_recipe(), tmp_path / "run", device="cpu", watcher=StopAt(1, 1, die))
    with pytest.raises(RunFolderError, match=r"other settings \(recipe\)"):
        train(small_net(), spots(), short_recipe(epochs=9), tmp_path / "run", device="cpu", resume=True)
    with pytest.raises(RunFolderError, match="has changed since this run began"):
        train(small_net(), spots(210), short_recipe(), tmp_path / "run", device="cpu", resume=True)


def test_what_a_kill_left_half_written_is_swept(spots: Make, tmp_path: Path) -> None:
    data = spots()
    with pytest.raises(KeyboardInterrupt):
        train(small_net(), data, short_recipe(), tmp_path / "run", device="cpu", watcher=StopAt(1, 1, die))
    (tmp_path / "run" / f".checkpoint.safetensors.{dead_process()}-ab.unfinished").write_bytes(b"half")
    train(small_net(), data, short_recipe(), tmp_path / "run", device="cpu", resume=True, watcher=Silent())
    assert not list((tmp_path / "run").glob(".*"))


def test_one_training_at_a_time_is_in_a_folder(spots: Make, tmp_path: Path) -> None:
    """The second is refused, and the first goes on as if it had not been there."""
    data, refused = spots(), []

    def second() -> None:
        for resume in (True, False):
            with pytest.raises(FolderInUseError, match="is in use: another process is training there") as error:
                train(
                    small_net(seed=9),
                    data,
                    short_recipe(),
                    tmp_path / "run",
                    device="cpu",
                    resume=resume,
                    watcher=Silent(),
                )
            refused.append(error)

    train(small_net(), data, short_recipe(), tmp_path / "run", device="cpu", watcher=StopAt(1, 2, second))
    train(small_net(), data, short_recipe(), tmp_path / "alone", device="cpu", watcher=Silent())
    assert len(refused) == 2
    assert digest_of(tmp_path / "run") == digest_of(tmp_path / "alone")


@pytest.mark.parametrize("act", [shutil.rmtree, lambda path: path.rename(path.with_name("elsewhere"))])
def test_a_folder_that_is_removed_or_renamed_meanwhile_ends_the_training(
    spots: Make, tmp_path: Path, act: Callable[[Path], object]
) -> None:
    with pytest.raises(FailedError, match="was removed or renamed during the training, which stops here"):
        train(
            small_net(),
            spots(),
            short_recipe(),
            tmp_path / "run",
            device="cpu",
            watcher=StopAt(1, 2, lambda: act(tmp_path / "run")),
        )
    assert not (tmp_path / "run").exists()
    if (tmp_path / "elsewhere").exists():
        train(small_net(), spots(), short_recipe(), tmp_path / "elsewhere", device="cpu", resume=True, watcher=Silent())


def test_a_checkpoint_that_a_kill_left_beside_the_model_is_removed(spots: Make, tmp_path: Path) -> None:
    run = train(small_net(), spots(), short_recipe(), tmp_path / "run", device="cpu", watcher=Silent())
    (run.path / CHECKPOINT).write_bytes(b"left")
    open_run(run.path)
    assert not run.has(CHECKPOINT)


def test_ctrl_c_after_the_last_step_is_heard(spots: Make, tmp_path: Path) -> None:
    class Last(Silent):
        def epoch(self, row: dict[str, Any]) -> None:
            if row["epoch"] == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError, match="had just come to its end"):
        train(small_net(), spots(), short_recipe(), tmp_path / "run", device="cpu", watcher=Last())
    assert open_run(tmp_path / "run").is_trained


def test_a_given_network_is_resumed_from_its_own_first_weights(spots: Make, tmp_path: Path) -> None:
    data = spots()
    train(small_net(seed=3), data, short_recipe(), tmp_path / "whole", device="cpu", watcher=Silent())
    with pytest.raises(KeyboardInterrupt):
        train(small_net(seed=3), data, short_recipe(), tmp_path / "run", device="cpu", watcher=StopAt(0, 1, die))
    train(small_net(seed=9), data, short_recipe(), tmp_path / "run", device="cpu", resume=True, watcher=Silent())
    assert digest_of(tmp_path / "run") == digest_of(tmp_path / "whole")


@on_gpu
@pytest.mark.parametrize(
    "changes",
    [{"optimizer": "sgd"}, {"averaging": "ema"}, {"averaging": "lookahead"}, {"optimizer": "rmsprop", "patience": 2}],
)
def test_a_training_on_a_gpu_is_resumed_and_evaluated(spots: Make, tmp_path: Path, changes: dict[str, Any]) -> None:
    from convscope.scans import evaluate

    data, recipe = spots(), short_recipe(rate=0.004, **changes)
    stop = StopAt(1, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(StoppedError):
        train(small_net(), data, recipe, tmp_path / "run", device="cuda", watcher=stop)
    run = train(small_net(seed=9), data, recipe, tmp_path / "run", device="cuda", resume=True, watcher=Silent())
    assert len(run.history) == 3
    assert evaluate(run, data, "cuda")["images"] == len(data.test)


@pytest.mark.parametrize(
    ("threads", "note"), [(None, "began with 2 threads and goes on with 1:.*OMP_NUM_THREADS=2"), (2, "")]
)
def test_a_resumed_training_says_where_its_threads_changed(
    threads: int | None, note: str, spots: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, recipe = spots(), short_recipe(threads=threads)
    stop = StopAt(1, 1, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(StoppedError):
        with_threads(2, lambda: train(small_net(), data, recipe, tmp_path / "run", device="cpu", watcher=stop))
    capsys.readouterr()
    with_threads(
        1, lambda: train(small_net(), data, recipe, tmp_path / "run", device="cpu", resume=True, watcher=Silent())
    )
    said = capsys.readouterr().err
    assert re.search(note, said) if note else said == ""


class Counting(nn.Linear):
    """Counts its steps, and learns less with each."""

    n_steps = 0

    def get_extra_state(self) -> torch.Tensor:
        return torch.arange(self.n_steps)

    def set_extra_state(self, state: torch.Tensor) -> None:
        self.n_steps = len(state)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.n_steps += self.training
        return super().forward(images) * 0.9**self.n_steps


def test_a_modules_extra_state_is_resumed_and_opened(spots: Make, tmp_path: Path) -> None:
    def net() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), Counting(192, 3))

    data, recipe = spots(), short_recipe()
    trained = net()
    train(trained, data, recipe, tmp_path / "whole", device="cpu", watcher=Silent())
    with pytest.raises(KeyboardInterrupt):
        train(net(), data, recipe, tmp_path / "halves", device="cpu", watcher=StopAt(1, 2, die))
    train(net(), data, recipe, tmp_path / "halves", device="cpu", resume=True, watcher=Silent())
    assert digest_of(tmp_path / "halves") == digest_of(tmp_path / "whole")
    assert open_run(tmp_path / "whole", net()).net[1].n_steps == trained[1].n_steps == 3 * (len(data.train) // 24)


@pytest.mark.parametrize("change", [{"epoch": None}, {"phase": 1}])
def test_a_checkpoint_of_another_program_or_version_is_refused(
    change: dict[str, int | None], spots: Make, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(small_net(), spots(), short_recipe(), tmp_path / "run", device="cpu", watcher=StopAt(1, 1, die))
    tensors, card = read_tensors(tmp_path / "run" / CHECKPOINT)
    changed = {key: value for key, value in (card | change).items() if value is not None}
    write_tensors(tmp_path / "run" / CHECKPOINT, tensors, changed)
    with pytest.raises(RunFolderError, match="is no checkpoint of this convscope"):
        train(small_net(), spots(), short_recipe(), tmp_path / "run", device="cpu", resume=True)
