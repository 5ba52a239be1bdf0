"""How results show themselves in a notebook. Lenses draw nothing: what shows them is looked up here when a notebook asks."""

from __future__ import annotations

from functools import singledispatch

from convscope.analyses.attribution import shown_map
from convscope.analyses.catalogue.occlusion import drop_scale
from convscope.draw import Picture, Scale, coloured, panel, picture, png
from convscope.lenses import Attribution, Maximized, OcclusionMap

MOST = 10
"""Images or units in one picture."""


def notebook_picture(result: object) -> bytes | None:
    """A result of a lens as a PNG; None where there is no picture of its kind."""
    drawing = _shown(result)
    return None if drawing is None else png(drawing)


@singledispatch
def _shown(result: object) -> Picture | None:
    return None


@_shown.register
def _(result: Attribution) -> Picture:
    """The maps on one scale, in the order of the images."""
    maps, scales = zip(*(shown_map(result, image) for image in range(min(MOST, len(result.values)))), strict=True)
    reach = max(max(abs(one.low), one.high) for one in scales)
    beyond = any(one.open for one in scales)
    scale = Scale(-reach if scales[0].signed else 0.0, reach, scales[0].label, beyond)
    parts = [(f"image {n}{_about(result, n)}", coloured(one, scale)) for n, one in enumerate(maps)]
    place = f" at {result.layer}" if result.layer else ""
    return panel(parts, f"{result.method.replace('_', ' ')}{place}", scale, side=160, note=result.note, columns=5)


@_shown.register
def _(result: OcclusionMap) -> Picture:
    """The drop in probability by position of the square, on one scale."""
    drops = result.drop[:MOST]
    scale = drop_scale([result], slice(MOST))
    parts = [(f"image {n}: sum {float(result.sum[n]):.1f}", coloured(one, scale)) for n, one in enumerate(drops)]
    heading = f"occlusion by {'×'.join(map(str, result.size))} pixels"
    return panel(parts, heading, scale, side=160, note=result.note, columns=5)


@_shown.register
def _(result: Maximized) -> Picture:
    """The pictures, each with the activation reached."""
    rows = zip(result.units, result.activation.tolist(), result.picture, strict=True)
    parts = [(f"unit {unit}: {activation:.3g}", picture(image)) for unit, activation, image in list(rows)[:MOST]]
    return panel(parts, f"what maximally activates {result.layer}", side=128, columns=5)


def _about(result: Attribution, n: int) -> str:
    if result.target is None or result.probability is None:
        return ""
    return f": class {int(result.target[n])}, {float(result.probability[n]):.2f}"
