"""Makes the pictures of the README and of the pages on lenses and scans.

python docs/pictures.py report runs/cifar10     from a run's report, in Chromium
python docs/pictures.py lenses [NAME …]         by the commands that stand in docs/lenses/*.md
python docs/pictures.py scans [NAME …]          by those in docs/scans/*.md
python docs/pictures.py by-hand                 by those in docs/convolution-by-hand.md

For lenses and scans it is called where runs/, data/, lite0.py and imagenet.txt lie; see docs/lenses/README.md.
"""

from __future__ import annotations

import io
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from torch import Tensor

import convscope as cs
from convscope.analyses import small_picture
from convscope.cli import run as convscope
from convscope.data import read_image
from convscope.draw import Picture, Scale, coloured, overlay, panel, picture, png

FOLDER = Path(__file__).with_name("pictures")
PAGES = {kind: Path(__file__).with_name(kind) for kind in ("lenses", "scans")}
PARTS = {
    "report-confusion": "#confusion",
    "report-mistakes": "#mistakes",
    "report-network": "#network",
    "report-maps": "#maps",
}
FLAGS = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]
DOG, BEAGLE = "data/cats-dogs/test/dog/dog.111.jpg", 162
SIDE = 224


def report(run: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1080, "height": 860})
        page.goto((run / "report.html").resolve().as_uri())
        page.wait_for_selector("[data-chart] svg")
        _keep("report-top", page.screenshot())
        for name, part in PARTS.items():
            box = page.locator(part).bounding_box()
            box["height"] = min(box["height"], 700)
            _keep(name, page.screenshot(full_page=True, clip=box))
        browser.close()


def lenses(*names: str) -> None:
    """Every picture of the pages on lenses, or those named."""
    commands = look_commands("lenses")
    for name in names or [*commands, *DRAWN]:
        if name in DRAWN:
            _keep(name, DRAWN[name](), width=1040)
        else:
            _look(name, commands[name])


def scans(*names: str) -> None:
    """Every picture of the pages on scans, or those named."""
    commands = look_commands("scans")
    for name in names or commands:
        _look(name, commands[name], width=1100)


def by_hand() -> None:
    """Every picture of the page on convolution by hand."""
    text = Path(__file__).with_name("convolution-by-hand.md").read_text("utf-8")
    for command, name in re.findall(r"^convscope (conv .*) --out (\S+)\.png$", text, re.MULTILINE):
        _look(name, shlex.split(command))


def _look(name: str, command: list[str], width: int | None = None) -> None:
    with TemporaryDirectory() as folder:
        out = Path(folder) / "look.png"
        status = convscope([*command, "--out", str(out)])
        if status:
            sys.exit(status)
        _keep(name, out.read_bytes(), width)


def look_commands(kind: str) -> dict[str, list[str]]:
    """Picture → the arguments that make it, as the pages of a kind give them with `--out NAME.png`."""
    text = "\n".join(page.read_text("utf-8") for page in sorted(PAGES[kind].glob("*.md")))
    lite0 = "".join(re.findall(r'^LITE0="(.*)"$', text, re.MULTILINE))
    found = {}
    for command in re.findall(r"^convscope (look .*) --out (\S+)\.png$", text, re.MULTILINE):
        found[command[1]] = shlex.split(command[0].replace("$LITE0", lite0))
    return found


def all_lenses() -> bytes:
    """One photograph through six lenses, side by side."""
    scope, image = _lite0(), read_image(DOG, (3, SIDE, SIDE))
    names = ("saliency", "guided_backprop", "integrated_gradients", "grad_cam")
    maps = ((name.replace("_", " "), small_picture(scope.attribute(name, image), image)) for name in names)
    parts = [("a photograph", picture(image)), *maps]
    found = scope.occlusion(image, 32, 8)
    scale = Scale(-float(found.drop.abs().max()), float(found.drop.abs().max()), "")
    parts.append(("occlusion", overlay(image, found.on_image(SIDE, SIDE)[0], scale)))
    probability = float(scope.probabilities(image)[0, BEAGLE])
    return png(panel(parts, f"beagle, probability {probability:.3f}: what speaks for it", side=SIDE))


def random_class_layer() -> bytes:
    """Guided backpropagation and the gradient, with the trained network and with a random last layer."""
    scope, image = _lite0(), read_image(DOG, (3, SIDE, SIDE))
    net = deepcopy(scope.net)
    torch.manual_seed(1)
    net.get_submodule("_fc").reset_parameters()
    other = cs.Scope(net, torch.zeros(1, 3, SIDE, SIDE), normalize=([127 / 255] * 3, [128 / 255] * 3))
    parts: list[tuple[str, Picture]] = [("image", picture(image))]
    for lens, name in (("guided_backprop", "guided backprop"), ("saliency", "gradient")):
        for one, what in ((scope, "trained"), (other, "last layer random")):
            found = one.attribute(lens, image, BEAGLE).saliency()[0, 0]
            parts.append((f"{name}, {what}", coloured(found, Scale(0, float(found.flatten().quantile(0.99)), ""))))
    return png(panel(parts, "the class layer replaced by random numbers: which map notices?", side=SIDE))


def ablated_units() -> bytes:
    """Accuracy with one unit of a layer silenced, in three ways, as a chart."""
    import altair
    import pandas as pd

    run = cs.open_run("runs/cifar10")
    scope, test = cs.Scope(run), run.load_data().test
    images, labels = test.images(range(1000)), _classes(test, 1000)

    def accuracy(one: cs.Scope) -> float:
        return 100 * (one.logits(images).argmax(1) == labels).double().mean().item()

    whole = accuracy(scope)
    rows = [
        {"unit": unit, "silenced by": words, "lost": whole - accuracy(scope.ablate({layer: [unit]}, how, images[:100]))}
        for layer, how, words in (
            ("conv1", "zero_weights", "zero weights in conv1"),
            ("relu1", "zero_activation", "zero activation in relu1"),
            ("relu1", "mean_activation", "mean activation in relu1"),
        )
        for unit in range(scope.n_units("conv1"))
    ]
    chart = altair.Chart(pd.DataFrame(rows)).mark_point(filled=True, size=45, opacity=0.85)
    chart = chart.encode(
        x=altair.X("unit:O", title="unit of conv1", axis=altair.Axis(labelAngle=0)),
        xOffset=altair.XOffset("silenced by:N", sort=None),
        y=altair.Y("lost:Q", title="accuracy lost, points"),
        color=altair.Color("silenced by:N", sort=None, legend=altair.Legend(orient="top", title=None)),
    )
    buffer = io.BytesIO()
    chart.properties(width=700, height=240).save(buffer, format="png", scale_factor=1.3)
    return buffer.getvalue()


DRAWN: dict[str, Callable[[], bytes]] = {
    "lens-all": all_lenses,
    "lens-guided-backprop-random": random_class_layer,
    "lens-ablate": ablated_units,
}
"""Pictures that no single command makes."""


def _lite0() -> cs.Scope:
    from lite0 import lite0

    normalize = ([127 / 255] * 3, [128 / 255] * 3)
    return cs.Scope(lite0().eval(), torch.zeros(1, 3, SIDE, SIDE), normalize=normalize)


def _classes(test: cs.data.ImageSet, n: int) -> Tensor:
    return torch.tensor([int(test[i][1]) for i in range(n)])


def _keep(name: str, made: bytes, width: int | None = None) -> None:
    """As a PNG of 256 colours: a third of the size, and hardly a difference to be seen; not wider than `width`.

    The colours are chosen to cover those of the bars as well, which are few pixels among those of a photograph.
    """
    FOLDER.mkdir(exist_ok=True)
    image = Image.open(io.BytesIO(made)).convert("RGB")
    if width and image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    image = image.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    image.save(FOLDER / f"{name}.png", optimize=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    what, *rest = sys.argv[1:]
    kinds = {"lenses": lenses, "scans": scans, "by-hand": by_hand}
    report(Path(rest[0])) if what == "report" else kinds[what](*rest)
