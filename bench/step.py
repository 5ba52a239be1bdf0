"""What a training step costs beside the arithmetic that cannot be avoided.

The whole step of `convscope train` (fetch a batch, augment, normalise, forward, backward, optimizer, bookkeeping) against the
bare forward + backward + optimizer step of the same network on one fixed batch, in the same number format and layout.
The two take turns, so that whatever else the machine does falls on both.

    python bench/step.py [--net net4] [--batch 128] [--device cpu] [--precision auto] [--rounds 7]

A CPU without bf16 of its own emulates it, slowly: the flags that PyTorch knows of the processor are printed.

The rate of arithmetic counts 2 operations for each multiply-add of a convolution or dense layer, three times: forward, and
backward to the layer's input and to its weights.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import torch

from convscope.base.memory import tune_memory
from convscope.data import Augmentation, Batch, DataBundle, batches, load_data
from convscope.graph import anatomy
from convscope.nets import build_net, make_task
from convscope.runs import Recipe, Run
from convscope.training import Trainer, autocast, make_optimizer
from convscope.training.precision import has_bf16
from machine import describe, flags, in_turns, matrix_product_rate

AUGMENTATION = Augmentation(crop=4, padding="reflect", flip="random", brightness=0.2, contrast=0.2, saturation=0.2)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--net", default="net4")
    options.add_argument("--batch", type=int, default=128)
    options.add_argument("--device", default="cpu")
    options.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    options.add_argument("--rounds", type=int, default=7)
    given = options.parse_args()
    tune_memory()  # as commands do
    device = torch.device(given.device)
    data = _images(given.batch * 4)
    recipe = Recipe(optimizer="sgd", batch=given.batch, augmentation=AUGMENTATION, epochs=1000,
                    precision=given.precision)  # fmt: skip
    trainer = _trainer(given.net, data, recipe, device)
    ours, bare = _whole_steps(trainer), _bare_step(trainer)
    inner = 1 if device.type == "cpu" else 50
    ways = {"whole": lambda: [ours() for _ in range(inner)], "bare": lambda: [bare() for _ in range(inner)]}
    times, _ = in_turns(ways, given.rounds, device, warm_up=2)
    whole_s, bare_s = (median(seconds) / inner for seconds in times.values())
    operations = 6 * given.batch * anatomy(trainer.net, torch.zeros(1, *data.input_shape, device=device)).multiply_adds
    print(describe(device))
    if device.type == "cpu":
        print(f"flags: {flags()}")
    emulated = device.type == "cpu" and not has_bf16()
    sides = dict.fromkeys((torch.float32, torch.bfloat16), 2048 if device.type == "cpu" else 8192)
    if emulated:
        sides[torch.bfloat16] = 512  # larger ones take minutes
    rates = {dtype: matrix_product_rate(device, dtype, side) for dtype, side in sides.items()}
    for dtype, rate in rates.items():
        print(f"matrix product {sides[dtype]}³ in {str(dtype)[6:]}: {rate / 1e9:,.0f} GFLOP/s")
    print(f"{given.net}, batch {given.batch}, {str(trainer.dtype)[6:]}, augmentation: shift, flip, colour jitter")
    print(f"bare step {1e3 * bare_s:.2f} ms, whole step {1e3 * whole_s:.2f} ms, ratio {whole_s / bare_s:.3f} (median)")
    for name, seconds in (("bare", bare_s), ("whole", whole_s)):
        share = operations / seconds / rates[trainer.dtype]
        print(f"{name}: {given.batch / seconds:,.0f} images/s, arithmetic at {share:.1%} of the matrix product's rate")


def _images(n: int) -> DataBundle:
    """Random images of CIFAR-10's shape: the time does not depend on what they show."""
    import numpy as np

    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.npz"
        np.savez(path, x=generator.integers(0, 256, (n * 2, 32, 32, 3), dtype=np.uint8), y=np.arange(n * 2) % 10)
        return load_data(str(path), split="70/10/20")


def _trainer(name: str, data: DataBundle, recipe: Recipe, device: torch.device) -> Trainer:
    torch.manual_seed(0)
    net = build_net(name)
    task = make_task("softmax", data.train.classes)
    return Trainer(Run(Path(tempfile.mkdtemp())), net, data, task, recipe, device, resume=False)


def _whole_steps(trainer: Trainer) -> Callable[[], None]:
    """Steps of the training loop, epoch after epoch."""
    trainer.net.train()

    def endless() -> Iterator[Batch]:
        epoch = 0
        while True:
            yield from batches(
                trainer.data.train, trainer.batch, device=trainer.device, seed=0, epoch=epoch, drop_last=True,
                augmentation=trainer.recipe.augmentation,
            )  # fmt: skip
            epoch += 1

    source = endless()

    def step() -> None:
        batch = next(source)
        loss, _ = trainer._step(batch.images, batch.targets)
        if trainer.look_every == 1:
            float(loss)

    return step


def _bare_step(trainer: Trainer) -> Callable[[], None]:
    """Forward, backward and optimizer on one batch that lies ready."""
    net = copy.deepcopy(trainer.net)
    optimizer = make_optimizer(net, trainer.recipe)
    batch = next(batches(trainer.data.train, trainer.batch, device=trainer.device, drop_last=True))
    layout = torch.channels_last if trainer.recipe.channels_last else torch.contiguous_format
    images, targets = trainer.normalize(batch.images).contiguous(memory_format=layout), batch.targets["class"]

    def step() -> None:
        with autocast(trainer.device, trainer.dtype):
            outputs = net(images)
        torch.nn.functional.cross_entropy(outputs.float(), targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == "__main__":
    main()
