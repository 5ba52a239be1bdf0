"""What the explorer asks of a run beside the lab: each a function of the run to plain records, most of them cached.

They may take long, so a process beside the server answers them; see `convscope.app.jobs`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from convscope.analyses import Inputs, ablation_plan, find, look
from convscope.app.explored import ExploredRun, UnitsOff, times_of
from convscope.base.console import following_progress
from convscope.compute import Entry, cached, entry_path
from convscope.draw import png
from convscope.report import effects_of
from convscope.runs import open_run
from convscope.scans import (
    Ablation,
    LayerEffects,
    LayerPatches,
    LayerStatistics,
    Nearest,
    Projection,
    digest_of_scope,
    digest_of_weights,
    layer_similarity,
    patches_and_statistics,
)

_EFFECT_IMAGES = 1000
_SIMILARITY_IMAGES = 300


def strongest(explored: ExploredRun) -> tuple[dict[str, LayerPatches], dict[str, LayerStatistics]]:
    """The strongest images and the statistics of the units of all convolutions, as the filter page has them."""
    return patches_and_statistics(explored.scope, explored.test, ["conv"], top=20, score="max")


def effects(explored: ExploredRun) -> Any:
    """What the ablation of each unit of the convolutions does to the accuracy, as the filter page has it."""
    return effects_of(explored.subject)


def effect(explored: ExploredRun, layer: str, unit: int) -> LayerEffects:
    """What the ablation of one unit does to the accuracy, by class; on at most 1,000 test images, evenly over the set."""
    test = explored.test
    images = test.subset(torch.linspace(0, len(test) - 1, min(len(test), _EFFECT_IMAGES)).long())
    return ablation_plan(explored.scope, [layer]).effects(images, {layer: [unit]})[layer]


def without(explored: ExploredRun, off: UnitsOff) -> Ablation:
    """What switching units off together does to the answers to all test images."""
    return ablation_plan(explored.scope, off).ablation(
        explored.test, {layer: list(units) for layer, units in off.items()}
    )


def maximized(explored: ExploredRun, layer: str, unit: int) -> dict[str, Tensor]:
    """The picture that maximally activates a unit, (C, H, W) in [0, 1], and the `activation` that it reaches."""

    def make() -> dict[str, Tensor]:
        analysis = find("maximize")
        visualization = analysis.compute(explored.scope, analysis.request(layer=layer, unit=unit), Inputs())  # type: ignore[call-arg]
        return {"picture": visualization.picture[0], "activation": visualization.activation[0]}

    return _cached_tensors(explored, "maximized", {"layer": layer, "unit": unit}, make)


def similarity(
    explored: ExploredRun, other: str, made_at: list[int], layers: list[list[str]], trust: bool
) -> dict[str, Tensor]:
    """`cka`: of layers of a run with those of another, in the folder `other`, on some test images; see `layer_similarity`.

    With `made_at`, of `times_of`, a question about a run that was trained again is another question.
    """
    second, test = _opened(other, trust, *made_at).scope, explored.test
    n_images = min(len(test), _SIMILARITY_IMAGES)

    def make() -> dict[str, Tensor]:
        images = test.images(torch.linspace(0, len(test) - 1, n_images).long())
        return {"cka": layer_similarity(explored.scope, second, images, {"first": layers[0], "second": layers[1]})}

    settings = {
        "other": digest_of_weights(second.net),
        "layers": layers,
        "images": n_images,
        "data": explored.data.digest,
    }
    return _cached_tensors(explored, "similarity", settings, make)


def _cached_tensors(
    explored: ExploredRun, name: str, settings: dict[str, Any], make: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Tensors by name, from the cache of the run's folder or made."""
    scope = explored.scope
    key = {
        "name": name,
        "version": 1,
        "weights": digest_of_weights(scope.net),
        "scope": digest_of_scope(scope),
    } | settings
    path = entry_path(explored.run.path, "scans", name, key)
    return cached(path, key, make, lambda tensors: Entry({}, {".safetensors": save(tensors)}),
                  lambda entry: load(entry.files[".safetensors"]))  # fmt: skip


def nearest(explored: ExploredRun, row: int) -> Nearest:
    """The training images that are nearest to a test image, by the features that the logits are read from."""
    return explored.scope.nearest(explored.test.subset([row]), explored.data.train)


def projection(explored: ExploredRun, layer: str | None, method: str) -> Projection:
    """The test images as points of a plane, by their features at a layer; None for those that the logits are read from."""
    return explored.scope.projection(explored.test, layer, method)


def analysis(
    explored: ExploredRun, name: str, image: Any = None, settings: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Any analysis of the catalogue: its heading, note, table and tensors, and its picture as a PNG.

    Args:
        name: of the analysis.
        image: (C, H, W) in [0, 1], for those that look at one.
        settings: of its request; text is read as on the command line.
    """
    test = explored.test if find(name).reads == "test images" else None
    view = look(explored.scope, name, image=image, test=test, **(settings or {}))
    rows = None if view.table is None else view.table.to_json(orient="records")
    return {"heading": view.heading, "note": view.note, "remark": view.remark, "table": rows, "png": png(view.picture),
            "tensors": {key: tensor.detach().cpu().contiguous() for key, tensor in view.tensors.items()}}  # fmt: skip


def ready(explored: ExploredRun) -> bool:
    """Whether data and network are loaded where this is asked; afterwards they are."""
    return bool(explored.layers)


QUESTIONS: dict[str, Callable[..., Any]] = {
    each.__name__: each
    for each in (strongest, effects, effect, without, maximized, similarity, nearest, projection, analysis, ready)
}
"""By name, as a job knows them; all but the analyses keep their answer in the run's cache."""


def answer(path: str, trust: bool, question: str, arguments: dict[str, Any], progress: Path) -> Any:
    """The answer to a question by name, of the run in a folder; a process holds the runs it was asked about.

    How far it is stands in the file `progress` meanwhile, as a share in [0, 1].
    """
    with following_progress(lambda label, share: progress.write_text(f"{share:.4f}")):
        return QUESTIONS[question](_held(path, trust), **arguments)


def _held(path: str, trust: bool) -> ExploredRun:
    return _opened(path, trust, *times_of(Path(path)))


@lru_cache(4)
def _opened(path: str, trust: bool, *made_at: int) -> ExploredRun:
    return ExploredRun(open_run(path, trust=trust), trust)
