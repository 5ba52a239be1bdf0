"""The image lab: what a network answers to an edited image, layer by layer, beside its answer to the image as it is."""

from __future__ import annotations

import json
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from convscope import edits
from convscope.analyses import shown_map
from convscope.app.explored import ExploredRun
from convscope.draw import Scale, picture
from convscope.errors import FailedError, RequestError
from convscope.graph import INPUT
from convscope.lenses import ATTRIBUTIONS, WEIGHINGS, attribute_by_name, class_activation_map, last_map
from convscope.scope import Scope

LIVE_LENSES = tuple(ATTRIBUTIONS)
"""Attributions of one gradient pass, which keep up with a brush."""

_LARGEST_SIDE = 64  # of a map that is sent; a larger one is averaged down
_ORIGINALS_HELD, _BYTES_HELD = 64, 2**28
_NAME = Annotated[str, Field(max_length=400)]


def _check_lens(name: str) -> str:
    if name not in LIVE_LENSES:
        raise ValueError(f"expected one of {', '.join(LIVE_LENSES)}")
    return name


class LabRequest(BaseModel):
    """One state of the lab.

    Attributes:
        seq: number of the request; a newer one of the same client drops an older.
        run: number of the run.
        image: of the test images, by its number; or what was uploaded, by its name.
        edits: see `convscope.edits`.
        layers: whose units are sent.
        show: the units' values, or their change against the image as it is.
        units: how many of each layer, those that changed most; without a change, those that answer most.
        off: units that are switched off, by layer.
        lens: one of LIVE_LENSES; None for none.
        target: the class that it explains; by default the class predicted for the image as it is.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    seq: int = 0
    run: Annotated[int, Field(ge=0)] = 0
    image: Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=r"^u[0-9a-f]{16}$")] = 0
    edits: Annotated[list[Any], Field(max_length=200)] = []
    layers: Annotated[list[_NAME], Field(max_length=64)] = []
    show: Literal["value", "change"] = "change"
    units: Annotated[int, Field(ge=1, le=64)] = 12
    off: dict[_NAME, Annotated[list[int], Field(max_length=4096)]] = {}
    lens: Annotated[str, AfterValidator(_check_lens)] | None = None
    target: Annotated[int, Field(ge=0)] | None = None


@dataclass
class _Original:
    """An image as it is, and what the network with all its units answers to it: results of operations by name."""

    image: Float[Tensor, "C H W"]
    results: dict[str, Tensor] = field(default_factory=dict)
    attributions: dict[tuple[str, int], tuple[Tensor, Scale]] = field(default_factory=dict)


class _SupersededError(Exception):
    """A newer request has come."""


class Lab:
    """Answers the requests of a run's lab, one at a time.

    Args:
        explored: the run.
    """

    def __init__(self, explored: ExploredRun) -> None:
        self.explored = explored
        self._originals: OrderedDict[int | str, _Original] = OrderedDict()

    def answer(
        self, request: LabRequest, uploaded: Callable[[str], Tensor], is_superseded: Callable[[], bool] = lambda: False
    ) -> Iterator[dict[str, Any] | bytes]:
        """The parts of the answer, in the order in which they are sent; see `frame` for those of bytes.

        First a dict: `seq`, `ms`, `probabilities` of the edited image, and `before` of the image as it is. Then frames:
        "input", the edited image in 8 bits; each layer; "attribution", of both images, in this order.
        Last a dict with `seq`, `done` and `ms`, the whole time; and `error`, where the network has no such attribution.

        Args:
            request: what is asked.
            uploaded: gives an uploaded image by its name.
            is_superseded: whether a newer request has come, which ends this one.
        Raises:
            RequestError: there is no such image, layer or unit; or an edit is not what it should be.
            FailedError: the network's answer is NaN or infinite.
        """
        start = time.perf_counter()

        def check() -> None:
            if is_superseded():
                raise _SupersededError

        with suppress(_SupersededError):
            for part in self._parts(request, uploaded, check):
                took_ms = round((time.perf_counter() - start) * 1000, 2)
                yield part if isinstance(part, bytes) else {"seq": request.seq, "ms": took_ms} | part

    def _parts(
        self, request: LabRequest, uploaded: Callable[[str], Tensor], check: Callable[[], None]
    ) -> Iterator[dict[str, Any] | bytes]:
        check()
        whole, scope = self.explored.scope, self.explored.scope_without(request.off)
        checked = edits.check(request.edits)
        original, names = self._original(request.image, uploaded), self._in_order(request.layers)
        image = self._edited(original.image, checked)
        is_as_it_is = scope is whole and image is original.image
        before = _pass(whole, original.image, names, request.lens, check, original.results)
        after = before if is_as_it_is else _pass(scope, image, names, request.lens, check)
        original_probabilities, probabilities = _probabilities(whole, before), _probabilities(scope, after)
        if not (probabilities.isfinite().all() and original_probabilities.isfinite().all()):
            raise FailedError("the network's answer to this image is NaN or infinite; train it again")
        yield {"probabilities": probabilities.tolist(), "before": original_probabilities.tolist()}
        check()
        yield frame(request.seq, "input", picture(image))
        for name in names:
            check()
            yield layer_frame(request, name, self._as_maps(name, after[name]), self._as_maps(name, before[name]))
        end: dict[str, Any] = {"done": True}
        if request.lens is not None:
            check()
            key = request.lens, int(original_probabilities.argmax()) if request.target is None else request.target
            try:
                if key not in original.attributions:
                    original.attributions[key] = _attribution(whole, *key, before)
                attribution = original.attributions[key] if is_as_it_is else _attribution(scope, *key, after)
                yield attribution_frame(request.seq, key[1], original.attributions[key], attribution)
            except RequestError as error:  # the rest of the answer stands
                end["error"] = str(error)
        yield end

    def image(self, request: LabRequest, uploaded: Callable[[str], Tensor]) -> Float[Tensor, "C H W"]:
        """The edited image of a request, in [0, 1]."""
        return self._edited(self._image(request.image, uploaded), edits.check(request.edits))

    def _image(self, key: int | str, uploaded: Callable[[str], Tensor]) -> Tensor:
        return uploaded(key) if isinstance(key, str) else self.explored.image(key)

    def _edited(self, image: Tensor, checked: Sequence[Any]) -> Tensor:
        if not checked:
            return image
        return edits.apply(image[None], checked, self.explored.test)[0]

    def _original(self, key: int | str, uploaded: Callable[[str], Tensor]) -> _Original:
        if key not in self._originals:
            self._originals[key] = _Original(self._image(key, uploaded))
            while len(self._originals) > _ORIGINALS_HELD or self._bytes_held() > _BYTES_HELD:
                self._originals.popitem(last=False)
        self._originals.move_to_end(key)
        return self._originals[key]

    def _bytes_held(self) -> int:
        return sum(result.nbytes for original in self._originals.values() for result in original.results.values())

    def _in_order(self, names: Sequence[str]) -> list[str]:
        """Layers by name, each once, in the network's order; raises UnknownNameError as `TracedGraph.operation`."""
        graph = self.explored.scope.graph
        requested = {graph.operation(name).name for name in names}
        return [operation.name for operation in graph.operations if operation.name in requested]

    def _as_maps(self, name: str, result: Tensor) -> Float[Tensor, "U h w"]:
        """The result of an operation for one image as maps; units of a dense layer have one position."""
        where = self.explored.positions.get(name)
        maps = result.flatten(1)[..., None, None] if where is None or result.ndim < 3 else where.as_map(result)
        return maps[0].float()


def _pass(
    scope: Scope, image: Tensor, names: Sequence[str], lens: str | None, check: Callable[[], None],
    earlier: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Results of one pass by name: the network's answer, the layers, the layer at which the lens draws its map, and its input.

    Args:
        check: called before each operation; what it raises ends the pass.
        earlier: results of earlier passes of this image; those of this pass are added.
    """
    results = {} if earlier is None else earlier
    pixels = results[INPUT] = results[INPUT] if INPUT in results else scope.prepare(image[None])
    needed = [scope.graph.outputs[0], *names]
    with suppress(RequestError):  # which is said where the map is asked for
        needed += [last_map(scope.graph, pixels)] if lens in WEIGHINGS else []
    if missing := [name for name in needed if name not in results]:
        with torch.no_grad():
            results |= scope.graph.run(pixels, missing, before_each=check)
    return results


def _probabilities(scope: Scope, results: Mapping[str, Tensor]) -> Float[Tensor, " K"]:
    return scope.task.probabilities(results[scope.graph.outputs[0]])[0]


def _attribution(scope: Scope, lens: str, target: int, results: Mapping[str, Tensor]) -> tuple[Tensor, Scale]:
    """As `Scope.attribute`; a class-activation map goes on from what a pass has found."""
    graph, pixels, task_target = scope.graph, results[INPUT], scope.target(target)
    if lens not in WEIGHINGS:
        return shown_map(attribute_by_name(graph, pixels, lens, task_target))
    maps = results[last_map(graph, pixels)]
    return shown_map(class_activation_map(graph, pixels, task_target, None, lens, WEIGHINGS[lens], known=maps))


def attribution_frame(seq: int, target: int, *shown: tuple[Tensor, Scale]) -> bytes:
    """The attributions of both images as a frame, on one scale."""
    reach = max(max(abs(scale.low), scale.high) for _, scale in shown)
    low = -reach if any(scale.signed for _, scale in shown) else 0.0
    header = {"units": [0, 1], "scale": [low, reach], "target": target, "label": shown[0][1].label}
    return frame(seq, "attribution", _scaled(torch.stack([values for values, _ in shown]), low, reach), header)


def layer_frame(request: LabRequest, name: str, after: Float[Tensor, "U h w"], before: Float[Tensor, "U h w"]) -> bytes:
    """The chosen units of a layer as a frame.

    Those of the largest mean size of change come first; where nothing changed, those of the largest activation. All have one
    scale. The header says, beside what `frame` says: `units`; `scale`, the values of 0 and 255; `n_units` of the layer;
    `size` of its maps; and `change`, the mean size of change of each unit that is sent as a share of the layer's mean size.
    """
    difference = after - before
    change = difference.abs().mean((1, 2))
    score = change if bool(change.any()) else after.amax((1, 2))
    chosen = score.argsort(descending=True, stable=True)[: request.units]
    values = (difference if request.show == "change" else after)[chosen]
    reach = float(values.abs().max()) or 1.0
    low = -reach if request.show == "change" or bool((values < 0).any()) else 0.0
    size = before.abs().mean()
    header = {
        "units": chosen.tolist(), "scale": [low, reach], "n_units": len(after), "size": list(after.shape[1:]),
        "change": [float(f"{value:.3g}") for value in (change[chosen] / size.clamp(min=1e-12)).tolist()],
    }  # fmt: skip
    return frame(request.seq, name, _scaled(values, low, reach), header)


def frame(seq: int, layer: str, values: np.ndarray, header: Mapping[str, Any] | None = None) -> bytes:
    """A binary message: the header's length (32 bits, little-endian), the header as JSON, and the values as bytes.

    The header has `seq`, `layer` and `shape`.
    """
    header_bytes = json.dumps({"seq": seq, "layer": layer, "shape": list(values.shape), **(header or {})}).encode()
    return struct.pack("<I", len(header_bytes)) + header_bytes + values.tobytes()


def _scaled(values: Float[Tensor, "U h w"], low: float, high: float) -> UInt8[np.ndarray, "U h w"]:
    """In 8 bits, 0 for `low` and 255 for `high`; maps with a side of more than 64 are averaged down."""
    side = max(values.shape[1:])
    if side > _LARGEST_SIDE:
        height, width = (max(1, edge * _LARGEST_SIDE // side) for edge in values.shape[1:])
        values = adaptive_avg_pool2d(values[None], (height, width))[0]
    return ((values - low) * (255 / (high - low))).round().clamp(0, 255).byte().numpy()
