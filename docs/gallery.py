"""Makes the pictures and captions of docs/gallery.md: every analysis of the catalogue on four trained networks.

python docs/gallery.py FOLDER [NAME …]     all, or the analyses or networks that are named

FOLDER holds the runs of the four commands in RUNS; they take about 40 minutes on one core, the pictures 15. The page itself is
written by `make docs`, from the captions in docs/gallery/captions.json.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from convscope.analyses import find, names
from convscope.cli import run as convscope

FOLDER = Path(__file__).with_name("gallery")
CAPTIONS = FOLDER / "captions.json"
WIDTH, HEIGHT, QUALITY = 520, 560, 55  # a higher picture is cut off below


@dataclass(frozen=True)
class Subject:
    """A trained network: how it is called on the page, the command that trains it, and what the analyses look at."""

    title: str
    trained_by: str
    image: int
    early: str
    late: str
    n_images: int
    unsure: int | None = None
    unit: int = 5


RUNS = {
    "cifar10": Subject(
        "CIFAR-10",
        "convscope study cifar10 --set net.width=32 --set recipe.epochs=10 --set recipe.resize=null",
        7,
        "relu1",
        "relu5",
        500,
    ),
    "mnist": Subject("MNIST", "convscope study mnist --set recipe.epochs=2", 0, "relu1", "relu4", 500),
    "lines": Subject("Lines", "convscope study lines --set recipe.epochs=2", 20000, "relu1", "relu4", 500),
    "photos": Subject(
        "A photograph",
        "convscope train --data cats-dogs --net lite0 --set net.pretrained=true --set recipe.train=head "
        "--set recipe.epochs=3 --out runs/photos",
        150,
        "_swish",
        "_blocks.10._project_conv.conv",
        24,
        141,
    ),
}
"""By the name of the run."""


def command(name: str, run: str) -> str:
    """The command of a picture, without its output file."""
    subject, analysis = RUNS[run], find(name)
    words = [f"convscope look runs/{run} {name}"]
    if analysis.reads == "image":
        # the search for the smallest square takes long where the network is sure
        words.append(f"--image {subject.unsure or subject.image if name == 'smallest_occlusion' else subject.image}")
    words += _settings(name, subject)
    return " ".join(words)


def _settings(name: str, subject: Subject) -> list[str]:
    """Of each analysis what makes it quick, and a picture that can be read."""
    large = subject.n_images < 100
    few = f"--images {subject.n_images}"
    return {
        "ablate": [few, f"--units {subject.early}:0,1,2,3"],
        "activations": [f"--layer {subject.early}"],
        "edit_effect": [few, """--edit '[["rotate", 20]]'"""],
        "faithfulness": [f"--images {8 if large else 32}"],
        "filter_effects": [few, f"--layer {subject.late}", *(["--screen 8"] if large else [])],
        "invariance": [f"--images {8 if large else 32}"],
        "maximize": [f"--layer {subject.late}", f"--unit {subject.unit}"],
        "occlusion": ["--size 32 --stride 16"] if large else [],
        "projection": [f"--images {100 if large else 500}"],
        "randomization": [f"--images {4 if large else 16}"],
        "receptive_field": [f"--layer {subject.late}"],
        "statistics": [f"--layer {subject.late}"],
        "top_patches": [f"--layer {subject.late}", f"--unit {subject.unit}"],
    }.get(name, [])


def make(folder: Path, wanted: list[str]) -> None:
    """Makes the pictures; what was made before stays."""
    captions = json.loads(CAPTIONS.read_text("utf-8")) if CAPTIONS.exists() else {}
    os.chdir(folder)
    for run in RUNS:
        for name in names():
            if (not wanted or {run, name} & set(wanted)) and Path("runs", run).exists():
                captions[f"{name}-{run}"] = _make_one(name, run)
                CAPTIONS.write_text(json.dumps(captions, indent=1, ensure_ascii=False, sort_keys=True) + "\n", "utf-8")


def _make_one(name: str, run: str) -> str:
    shown = io.StringIO()
    with TemporaryDirectory() as folder, contextlib.redirect_stdout(shown):
        file = Path(folder) / "look.png"
        status = convscope([*shlex.split(command(name, run))[1:], "--json", "--out", str(file)])
        assert status == 0, command(name, run)
        picture = Image.open(file).convert("RGB")
        if picture.width > WIDTH:
            picture = picture.resize((WIDTH, picture.height * WIDTH // picture.width), Image.Resampling.LANCZOS)
        picture = picture.crop((0, 0, picture.width, min(picture.height, HEIGHT)))
        picture.save(FOLDER / f"{name}-{run}.webp", quality=QUALITY, method=6)
    print(name, run, (FOLDER / f"{name}-{run}.webp").stat().st_size)  # noqa: T201
    return str(json.loads(shown.getvalue())["heading"])


def page() -> Iterator[str]:
    """The parts of docs/gallery.md."""
    captions = json.loads(CAPTIONS.read_text("utf-8"))
    yield "Every analysis of the catalogue, on four networks that were trained by these commands:"
    yield "\n".join(f"- {subject.title}: `{subject.trained_by}`" for subject in RUNS.values())
    yield (
        "A picture shows one image or one layer of one network, so take it as an example of the method, not as a finding. "
        "What each method does not show is on its page: [lenses](lenses/README.md), [scans](scans/README.md). "
        "The commands give the same pictures, larger; of very high ones the page shows the top."
    )
    for name in names():
        figures = [_figure(name, run, captions[f"{name}-{run}"]) for run in RUNS if f"{name}-{run}" in captions]
        yield f"## {name}\n\n{find(name).about}"
        yield "\n\n".join(['<div class="gallery" markdown>', *figures, "</div>"])


def _figure(name: str, run: str, caption: str) -> str:
    title = RUNS[run].title
    return "\n".join(
        [
            "<figure markdown>",
            f"![{name.replace('_', ' ')} on {title}](gallery/{name}-{run}.webp){{ loading=lazy }}",
            "<figcaption markdown>",
            f"**{title}.** {caption}\n\n`{command(name, run)}`",
            "</figcaption>\n</figure>",
        ]
    )


if __name__ == "__main__":
    make(Path(sys.argv[1]), sys.argv[2:])
