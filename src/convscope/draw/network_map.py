"""A network as a drawing: one slab an operation, as tall as its map and as thick as it has channels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from convscope.base.words import shape_text

_FAMILIES = {
    "input": ("input",),
    "conv": ("conv", "conv_transpose"),
    "pool": ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "global_avg_pool", "pool"),
    "dense": ("dense", "matmul", "attention"),
    "join": ("add", "concat", "mul"),
    "none": ("flatten", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "expand", "contiguous", "part"),
}
"""Kinds of operations by how they are drawn: those that change sizes alone not at all, all others as thin slabs."""
_HEIGHT, _TALLEST, _GAP = 190, 120, 14
_THIN, _DEPTH = 3, 9


def network_map(layers: Sequence[Mapping[str, Any]], input_shape: tuple[int, int, int]) -> str:
    """An SVG of the network, from left to right in order of execution; hovering tells each operation's figures.

    Args:
        layers: rows of an anatomy table: name, kind, output_shape, parameters, receptive_field.
        input_shape: (C, H, W) of the images.
    """
    largest = max(input_shape[1:])
    all_layers = [{"name": "image", "kind": "input", "output_shape": input_shape, "parameters": 0}, *layers]
    x, pieces, labels_end = 6.0, [], 0.0
    for layer in all_layers:
        shape = layer["output_shape"]
        family = next((family for family, kinds in _FAMILIES.items() if layer["kind"] in kinds), "other")
        if family == "none":
            continue
        if family == "other":  # norms, activations, dropout: a thin slab right behind the one they work on
            pieces.append(_slab(x, _THIN, _side(shape, largest), family, layer))
            x += _THIN + 2
            continue
        name, size = str(layer["name"]).split(".")[-1], shape_text(shape)
        label = max(6.8 * len(name), 6.1 * len(size))  # about its width; SVG text cannot be measured here
        thickness = 9.0 if len(shape) < 3 else 5 + 3.2 * math.log2(1 + shape[0])
        centre = max(x + _GAP + thickness / 2, labels_end + label / 2)  # labels of neighbours must not touch
        x, labels_end = centre - thickness / 2, centre + label / 2 + 8
        pieces.append(
            f"{_slab(x, thickness, _side(shape, largest), family, layer)}"
            f'<text x="{centre:.1f}" y="{_HEIGHT - 24}" text-anchor="middle">{escape(name)}</text>'
            f'<text class="shape" x="{centre:.1f}" y="{_HEIGHT - 10}" text-anchor="middle">{size}</text>'
        )
        x += thickness + _DEPTH + 2
    width = max(x + _DEPTH, labels_end)
    return (
        f'<svg class="network-map" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {_HEIGHT}" '
        f'width="{width:.0f}" height="{_HEIGHT}" role="img" aria-label="drawing of the network">{"".join(pieces)}</svg>'
    )


def _side(shape: Sequence[int], largest: int) -> float:
    """Height of the slab: the map's side to the power of ½, so that 4×4 maps can still be seen."""
    if len(shape) < 3:
        return min(_TALLEST, 14 + 10 * math.log2(1 + shape[-1]) if shape else 14)
    return max(8.0, _TALLEST * math.sqrt(max(shape[1:]) / largest))


def _slab(x: float, thickness: float, side: float, family: str, layer: Mapping[str, Any]) -> str:
    """A box seen from the front: a face, and the top and right side that give it depth."""
    top, depth = 12 + (_TALLEST - side) / 2 + 10, min(float(_DEPTH), side / 6)
    right, bottom = x + thickness, top + side
    lid = ((x, top), (x + depth, top - depth), (right + depth, top - depth), (right, top))
    edge = ((right, top), (right + depth, top - depth), (right + depth, bottom - depth), (right, bottom))
    polygons = []
    for name, corners in (("lid", lid), ("edge", edge)):
        points = " ".join(f"{across:.1f},{down:.1f}" for across, down in corners)
        polygons.append(f'<polygon class="{name}" points="{points}"/>')
    return (
        f'<g class="slab {family}"><title>{escape(_title(layer))}</title>'
        f'<rect x="{x:.1f}" y="{top:.1f}" width="{thickness:.1f}" height="{side:.1f}"/>{"".join(polygons)}</g>'
    )


def _title(layer: Mapping[str, Any]) -> str:
    parts = [f"{layer['name']} ({layer['kind']})", shape_text(layer["output_shape"])]
    if layer["parameters"]:
        parts.append(f"{layer['parameters']:,} parameters")
    if layer.get("receptive_field"):
        parts.append(f"receptive field {layer['receptive_field']}")
    return " · ".join(parts)
