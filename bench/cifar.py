"""The study cifar10's recipe against airbench94 (Jordan 2024, arXiv 2404.00498) on the same CPU, images, threads and precision.

    git clone https://github.com/KellerJordan/cifar10-airbench
    python bench/cifar.py cifar10-airbench [--epochs 8] [--width 32] [--batch 2000] [--limit N] [--threads N]
        [--precision fp32|bf16] [--smoke]

airbench94_muon.py is no part of convscope: it is read as text from the clone (or its git directory), and run with the
substitutions below, which take away the GPU, half precision, compilation and the download. Network, optimizer, schedule,
augmentation and batch size are its own. Both train in one precision (bf16: in autocast) on the images that convscope does not
validate with, by their own recipes, for the same number of epochs and at the same width. Time is that of the training steps
with their images, without validation. Accuracy is that of the test images as they are; airbench's own figure, over flipped
and moved copies, is beside it.
--smoke: 2,000 images, one epoch, width 8: shows that the program runs, no more.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch

import convscope as cs
from convscope.base.memory import tune_memory
from convscope.data import DataBundle, ImageSet
from convscope.nets import build_net
from convscope.scans import evaluate, proportion
from convscope.study import find_spec
from convscope.training import Silent
from machine import describe

PEER = "airbench94_muon.py"
SUBSTITUTIONS = (
    ("with open(sys.argv[0]) as f:\n    code = f.read()\n", ""),
    ("import torchvision\nimport torchvision.transforms as T\n", ""),
    ("@torch.compile\n", ""),
    ("G.bfloat16()", "G.to(PRECISION)"),
    (
        """        data_path = os.path.join(path, "train.pt" if train else "test.pt")
        if not os.path.exists(data_path):
            dset = torchvision.datasets.CIFAR10(path, download=True, train=train)
            images = torch.tensor(dset.data)
            labels = torch.tensor(dset.targets)
            torch.save({"images": images, "labels": labels, "classes": dset.classes}, data_path)

        data = torch.load(data_path, map_location=torch.device("cuda"))
""",
        '        data = DATA["train" if train else "test"]\n',
    ),
    ("self.images.half()", "self.images.float()"),
    (
        "T.Normalize(CIFAR_MEAN, CIFAR_STD)",
        "lambda images: (images - CIFAR_MEAN.view(3, 1, 1)) / CIFAR_STD.view(3, 1, 1)",
    ),
    ("block1=64, block2=256, block3=256", "block1=WIDTH, block2=4 * WIDTH, block3=4 * WIDTH"),
    ("mod.half()", "mod.float()"),
    ("    batch_size = 2000\n", "    batch_size = BATCH\n"),
    ("ceil(8 * len(train_loader))", "ceil(EPOCHS * len(train_loader))"),
    ("starter = torch.cuda.Event(enable_timing=True)", "starter = Clock()"),
    ("ender = torch.cuda.Event(enable_timing=True)", "ender = Clock()"),
    ("        torch.cuda.synchronize()\n", ""),
)


class Clock:
    """In the place of a CUDA event: `spent` is told the wall and processor seconds between two of them."""

    spent: ClassVar[list[tuple[float, float]]] = []

    def record(self) -> None:
        self.at = time.perf_counter(), time.process_time()

    def elapsed_time(self, later: Clock) -> float:
        wall, cpu = (after - before for before, after in zip(self.at, later.at, strict=True))
        self.spent.append((wall, cpu))
        return 1e3 * wall


class Stopwatch(Silent):
    """Wall and processor seconds of the steps; validation, which follows the last step of an epoch, is left out."""

    def __init__(self) -> None:
        self.spent: list[tuple[float, float]] = []
        self.clock, self.steps = Clock(), 0
        self.clock.record()

    def begin(self, epochs: int, steps: int, history: list[dict[str, Any]]) -> None:
        self.steps = steps

    def step(self, epoch: int, step: int, loss: float | None) -> None:
        if step == self.steps:
            now = Clock()
            now.record()
            self.spent.append(tuple(after - before for before, after in zip(self.clock.at, now.at, strict=True)))

    def epoch(self, row: dict[str, Any]) -> None:
        self.clock.record()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("peer", type=Path, help="a clone of KellerJordan/cifar10-airbench")
    options.add_argument("--epochs", type=int, default=8)
    options.add_argument("--width", type=int, default=32)
    options.add_argument("--batch", type=int, default=2000, help="of airbench")
    options.add_argument("--limit", type=int, help="images of data.limit")
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    options.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    options.add_argument("--smoke", action="store_true")
    given = options.parse_args()
    if given.smoke:
        given.epochs, given.width, given.batch, given.limit = 1, 8, 200, 2000
    tune_memory()  # as commands do
    torch.set_num_threads(given.threads)
    program = substituted(peer_text(given.peer))
    data = cs.load_data("cifar10", limit=given.limit)
    print(describe())
    numbers = f"{len(data.train):,} training images, {len(data.test):,} test images"
    print(f"width {given.width}, {given.epochs} epochs, {numbers}, precision {given.precision}")
    ours = _ours(data, given)
    theirs = _theirs(program, data, given)
    print(f"time of airbench / time of convscope: wall {theirs[0] / ours[0]:.2f}, processor {theirs[1] / ours[1]:.2f}")


def peer_text(clone: Path) -> str:
    """The peer's program."""
    if (clone / PEER).is_file():
        return (clone / PEER).read_text()
    shown = subprocess.run(["git", "--git-dir", str(clone), "show", f"HEAD:{PEER}"], capture_output=True, text=True)
    if shown.returncode:
        raise SystemExit(f"{clone}: there is no {PEER}; give a clone of KellerJordan/cifar10-airbench")
    return shown.stdout


def substituted(text: str) -> str:
    """The peer's program for a CPU; a substitution that does not match exactly once ends this one."""
    for old, new in SUBSTITUTIONS:
        if (n := text.count(old)) != 1:
            first = old.strip().splitlines()[0]
            raise SystemExit(f"{PEER}: {first!r} is there {n} times, expected once; take an earlier commit")
        text = text.replace(old, new)
    return text


def _ours(data: DataBundle, given: argparse.Namespace) -> tuple[float, float]:
    changes = {"epochs": given.epochs, "precision": given.precision, "threads": given.threads}
    recipe = find_spec("cifar10")[1].recipe.model_copy(update=changes)
    torch.manual_seed(recipe.seed)
    net = build_net("air-cifar", init="dirac", width=given.width)
    with tempfile.TemporaryDirectory() as folder:
        watch = Stopwatch()
        run = cs.train(net, data, recipe, Path(folder) / "run", device="cpu", watcher=watch)
        right = round(evaluate(run, data, device="cpu")["accuracy"]["value"] * len(data.test))
    return _told("convscope", right, len(data.test), watch.spent)


def _theirs(program: str, data: DataBundle, given: argparse.Namespace) -> tuple[float, float]:
    torch.manual_seed(0)
    sets = {name: _as_peer(getattr(data, name)) for name in ("train", "test")}
    precision = torch.bfloat16 if given.precision == "bf16" else torch.float32
    names: dict[str, Any] = {
        "__name__": "airbench", "DATA": sets, "Clock": Clock, "PRECISION": precision,
        "WIDTH": given.width, "BATCH": given.batch, "EPOCHS": given.epochs,
    }  # fmt: skip
    exec(compile(program, PEER, "exec"), names)
    model = names["CifarNet"]().to(memory_format=torch.channels_last)
    model.forward = _in(precision, model)
    names["print_columns"](names["logging_columns_list"], is_head=True)
    with_copies = names["main"](0, model)
    accuracy = names["evaluate"](model, names["CifarLoader"]("", train=False), tta_level=0)
    n = len(data.test)
    found = _told("airbench", round(accuracy * n), n, Clock.spent[:-1])  # the last is its evaluation with copies
    print(f"airbench with flipped and moved copies of the test images: {100 * with_copies:.2f} %")
    return found


def _in(precision: torch.dtype, model: torch.nn.Module) -> Callable[..., torch.Tensor]:
    """Its pass, in training in this precision."""
    forward = model.forward

    def passed(*given: Any, **options: Any) -> torch.Tensor:
        with torch.autocast("cpu", precision, enabled=model.training and precision != torch.float32):
            return forward(*given, **options).float()

    return passed


def _as_peer(images: ImageSet) -> dict[str, Any]:
    pixels = images.pixels[images.index.long()].permute(0, 2, 3, 1).contiguous()
    return {"images": pixels, "labels": images.targets_of("class").long(), "classes": list(images.classes["class"])}


def _told(name: str, right: int, n: int, spent: list[tuple[float, float]]) -> tuple[float, float]:
    wall, cpu = (sum(column) for column in zip(*spent, strict=True))
    value, low, high = (100 * figure for figure in proportion(right, n).figures)
    accuracy = f"test accuracy {value:.2f} % (95 %: {low:.2f} to {high:.2f}, n = {n:,})"
    print(f"{name}: {accuracy}, wall {wall:.1f} s, processor {cpu:.1f} s")
    return wall, cpu


if __name__ == "__main__":
    main()
