"""Every lens on networks that people bring: timm's, torchvision's, and modules written in unusual ways.

Each answer is held against the module itself, without the traced graph: logits against its own, gradients against autograd
through it, Grad-CAM and activations against hooks on it, integrated gradients against a sum of its gradients, occlusion
against a pass for each position, ablation against a copy with the filter at zero. All networks have random weights (seed 0).

    python bench/zoo.py [--only resnet …] [--out docs/networks.md]
"""

from __future__ import annotations

import argparse
import gc
import re
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convscope import Scope
from convscope.errors import ConvscopeError
from convscope.nets import build_natural
from machine import describe
from zoo_checks import LENSES, Case, Check, NoOracle, Wrong, known

# after zoo_checks, which puts the repository on the path
from tests.odd_networks import ODD, answer  # isort: skip
from tests.zoo import open_zoo  # isort: skip

TIMM = {  # name → side of the images in pixels: as small as the network permits
    "resnet18": 64, "resnet26t": 64, "resnext26ts": 64, "skresnet18": 64, "resnest14d": 64, "efficientnet_b0": 64,
    "mobilenetv3_small_050": 64, "mobilenetv4_conv_small_050": 64, "mnasnet_small": 64, "ghostnet_050": 64, "rexnet_100": 64,
    "regnetx_002": 64, "regnety_002": 64, "densenet121": 64, "inception_v3": 96, "vgg11_bn": 64, "dpn48b": 64,
    "hrnet_w18_small": 64, "eca_nfnet_l0": 64, "nf_regnet_b0": 64, "repvgg_a0": 64, "tresnet_m": 64, "ese_vovnet19b_dw": 64,
    "convnext_atto": 64, "convnextv2_atto": 64, "edgenext_xx_small": 64, "fastvit_t8": 64, "mobileone_s0": 64,
    "poolformer_s12": 64, "vit_tiny_patch16_224": 96, "deit_tiny_patch16_224": 96, "swin_tiny_patch4_window7_224": 224,
    "swinv2_cr_tiny_ns_224": 224, "levit_128s": 224, "mixer_s32_224": 96, "resmlp_12_224": 96, "pit_ti_224": 96,
    "xcit_nano_12_p16_224": 96, "cait_xxs24_224": 96, "convit_tiny": 96, "maxvit_rmlp_pico_rw_256": 128,
    "coatnet_pico_rw_224": 96, "mobilevit_xxs": 64, "efficientformerv2_s0": 96,
}  # fmt: skip
TORCHVISION = {
    "alexnet": 64, "squeezenet1_1": 64, "googlenet": 64, "shufflenet_v2_x0_5": 64, "mobilenet_v2": 64, "swin_t": 64,
    "swin_v2_t": 64,
}  # fmt: skip
SIDE_OF_ODD = 32
NEAR = 1e-3
"""Of the largest value: how far a right answer may be from the oracle's, in float32."""
MOST_SECONDS = 120
"""Of one lens on one network."""
SIGNS = {"right": "✓", "unchecked": "·", "refused": "–", "slow": "slow", "WRONG": "✗", "CRASH": "✗✗"}


@dataclass
class Cell:
    """What became of one lens on one network; the line is a note, or says what is wrong."""

    verdict: str
    seconds: float
    line: str = ""


@dataclass
class Row:
    """One network; and the lens that left it changed, if one did."""

    name: str
    side: int
    parameters: int = 0
    cells: dict[str, Cell] = field(default_factory=dict)
    changed: str = ""


def try_network(name: str, side: int, build: Callable[[], nn.Module]) -> Row:
    """Every lens on it."""
    row = Row(name, side)
    torch.manual_seed(0)
    images = torch.rand(3, 3, side, side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = shaken(build())
    row.parameters = sum(parameter.numel() for parameter in known(net.parameters()))
    before = _state(net)
    try:
        case = Case(net, Scope(net, images[:1], _classes(net, images[:1])), images)
    except ConvscopeError as error:
        row.cells = {lens: Cell("refused", 0.0, str(error)) for lens in LENSES}
        return row
    for lens, check in LENSES.items():
        row.cells[lens] = _cell(check, case)
        if not row.changed and _state(net) != before:
            row.changed = lens
    return row


def _classes(net: nn.Module, image: torch.Tensor) -> list[str] | None:
    """A name for each class, by which a scope finds the answer among several results; None where the network does not run."""
    with suppress(Exception), torch.no_grad():
        return [str(k) for k in range(answer(deepcopy(net)(image)).shape[1])]
    return None


def shaken(net: nn.Module) -> nn.Module:
    """In evaluation mode, and without the constants of an initialisation, which would hide faults: scales of 0 or 1e-6, and
    statistics of a batch norm that normalises nothing."""
    statistics = [one for name, one in net.named_buffers() if name.endswith(("running_mean", "running_var"))]
    with torch.no_grad():
        for one in [*known(net.parameters()), *known(statistics)]:
            if (
                one.is_floating_point()
                and not one.is_inference()
                and one.numel() > 1
                and bool((one == one.max()).all())
            ):
                one.uniform_(*((-0.1, 0.1) if not one.any() else (0.5, 1.5)))
    with suppress(NotImplementedError):  # an exported program's module has one mode
        net.eval()
    return net


def _cell(check: Check, case: Case) -> Cell:
    start = time.process_time()
    try:
        with _at_most(MOST_SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            note, difference = check(case)
        verdict, line = ("unchecked" if difference is None else "right"), note or ""
        if difference is not None and difference > NEAR:
            off = f"differs from the oracle by {100 * difference:.2g} % of the largest value"
            verdict, line = "WRONG", f"{off}; {note}" if note else off
    except NoOracle:
        verdict, line = "unchecked", "the module itself cannot be asked"
    except Wrong as error:
        verdict, line = "WRONG", str(error)
    except TimeoutError:
        verdict, line = "slow", ""
    except ConvscopeError as error:
        verdict, line = "refused", str(error)
    except Exception as error:  # a fault, of any kind
        place = traceback.extract_tb(error.__traceback__)[-1]
        first_line = (str(error) or "no reason given").splitlines()[0][:200]
        verdict, line = "CRASH", f"{type(error).__name__}: {first_line} ({Path(place.filename).name}:{place.lineno})"
    return Cell(verdict, time.process_time() - start, line)


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _state(net: nn.Module) -> tuple[Any, ...]:
    """What a lens has to leave as it was."""
    values = [*known(net.parameters()), *known(net.buffers())]
    hooked = [module for module in net.modules() if hasattr(module, "_forward_hooks")]
    return (
        [module.training for module in net.modules()],
        [(len(module._forward_hooks), len(module._backward_hooks)) for module in hooked],
        [(one.requires_grad, one.grad is None) for one in values],
        [float(one.detach().double().sum()) for one in values if not one.is_complex()],
    )


def page(rows: list[Row], minutes: float) -> str:
    """The table as markdown, with the lines that the signs stand for below."""
    lines: dict[str, int] = {}
    count = {verdict: sum(cell.verdict == verdict for row in rows for cell in row.cells.values()) for verdict in SIGNS}
    changed = ", ".join(f"{row.name} by {row.changed}" for row in rows if row.changed) or "none"
    body = [_line(row, lines) for row in rows]
    return "\n".join([
        "# Networks and lenses",
        "",
        "Written by `make zoo` (bench/zoo.py): every lens on networks of timm and torchvision, and on modules written in odd",
        "ways (tests/odd_networks.py), with random weights (seed 0), on small images. An answer is right where it differs from",
        f"that of the module itself, without the traced graph, by at most {100 * NEAR:g} % of the largest value.",
        "",
        f"{describe()}; {len(rows)} networks in {minutes:.0f} minutes.",
        "",
        "| sign | meaning | cells |",
        "| --- | --- | --- |",
        f"| ✓ 1.2 | right, in 1.2 s | {count['right']} |",
        f"| · 1.2 | finite; nothing to hold it against here | {count['unchecked']} |",
        f"| – | refused in one line | {count['refused']} |",
        f"| slow | more than {MOST_SECONDS} s | {count['slow']} |",
        f"| ✗ | wrong | {count['WRONG']} |",
        f"| ✗✗ | failed with a traceback | {count['CRASH']} |",
        "",
        "A number in brackets leads to a line below the table: the note of the lens, or what is wrong. Seconds are of the",
        f"processor; those of the first column contain the tracing. Networks that a lens left changed: {changed}.",
        "",
        "| network | px | parameters | " + " | ".join(name.replace("_", " ") for name in LENSES) + " |",
        "| --- " * (len(LENSES) + 3) + "|",
        *body,
        "",
        "## Notes and refusals",
        "",
        *(f"{number}. {line}" for line, number in lines.items()),
        "",
    ])  # fmt: skip


def _line(row: Row, lines: dict[str, int]) -> str:
    cells = []
    for cell in row.cells.values():
        seconds = f" {cell.seconds:.1f}" if cell.verdict in ("right", "unchecked") else ""
        text = re.sub(r"\s+", " ", cell.line).replace("|", "\\|").replace("<", "&lt;")
        number = f" ({lines.setdefault(text, len(lines) + 1)})" if text else ""
        cells.append(f"{SIGNS[cell.verdict]}{seconds}{number}")
    return f"| {row.name} | {row.side} | {row.parameters:,} | " + " | ".join(cells) + " |"


def networks() -> Iterator[tuple[str, int, Callable[[], nn.Module]]]:
    """Name, side of the images, and builder."""
    for package, names in (("timm", TIMM), ("torchvision", TORCHVISION)):
        for name, side in names.items():
            yield f"{package}:{name}", side, partial(_named, f"{package}:{name}", side)
    for name, build in ODD.items():
        yield name, SIDE_OF_ODD, build


def _named(name: str, side: int) -> nn.Module:
    return build_natural(name, f"3x{side}x{side}", {"classes": 10})[0]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--only", nargs="*", default=[], help="Parts of names; the page is printed.")
    options.add_argument("--out", type=Path, help="docs/networks.md by default, without --only.")
    given = options.parse_args()
    open_zoo()
    torch.set_num_threads(1)
    start, rows = time.perf_counter(), []
    for name, side, build in networks():
        if given.only and not any(part in name for part in given.only):
            continue
        began = time.process_time()
        rows.append(try_network(name, side, build))
        gc.collect()
        cells = rows[-1].cells.items()
        said = " ".join(f"{lens}={cell.verdict}" for lens, cell in cells if cell.verdict != "right")
        print(f"{name:45} {time.process_time() - began:6.1f} s  {said}", flush=True)
    text = page(rows, (time.perf_counter() - start) / 60)
    if given.only and given.out is None:
        print(text)
    else:
        (given.out or Path(__file__).resolve().parents[1] / "docs" / "networks.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
