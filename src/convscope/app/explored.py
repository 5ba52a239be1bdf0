"""A run as the explorer holds it: its scope, its test images, and scopes in which units are switched off."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar

from jaxtyping import Float
from torch import Tensor

from convscope import report
from convscope.analyses import ablation_plan
from convscope.data import DataBundle, ImageSet
from convscope.draw import enlarge_to, picture, png
from convscope.errors import NetworkError, RequestError
from convscope.graph import Positions, positions, relu_after
from convscope.lenses import ATTRIBUTIONS
from convscope.runs import METRICS, MODEL, PREDICTIONS, SPEC, Run, open_run
from convscope.scope import Scope

T = TypeVar("T")

UnitsOff = Mapping[str, Sequence[int]]
"""Layer → units that are switched off."""

_SCOPES_HELD = 8
_ROWS_SHOWN = 6


_LOADING = RLock()  # of all runs: two threads may neither trace networks nor import rooms at the same time


class _Loaded(cached_property[T]):
    """A part that is loaded when first asked for, by one thread at a time."""

    def __get__(self, run: Any, owner: type[Any] | None = None) -> T:  # type: ignore[override]
        with _LOADING:
            return super().__get__(run, owner)


class ExploredRun:
    """A run that is explored; its parts are loaded when first asked for.

    Args:
        run: its folder, opened.
        trust: whether it was opened with leave to run the code that it names as its network.
    """

    def __init__(self, run: Run, trust: bool = False) -> None:
        self.run, self.trust = run, trust
        self._scopes: OrderedDict[str, Scope] = OrderedDict()
        self.made_at = times_of(run.path)

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.run.name

    @property
    def is_evaluated(self) -> bool:
        """Whether there is something to look into: a trained network with its figures."""
        return self.run.is_trained and self.run.has(METRICS) and self.run.has(PREDICTIONS)

    @_Loaded
    def data(self) -> DataBundle:
        """Its data set."""
        return self.run.load_data()

    @property
    def test(self) -> ImageSet:
        """Its test images."""
        return self.data.test

    @_Loaded
    def subject(self) -> report.ReportedRun:
        """What its report is about."""
        return report.ReportedRun(self.run, self.data)

    @_Loaded
    def figures(self) -> dict[str, Any]:
        """What the overview shows of it: metrics, anatomy, findings, charts, confusion matrices."""
        subject = self.subject
        return {
            "metrics": subject.metrics, "anatomy": subject.anatomy, "findings": report.findings(subject),
            "charts": report.charts(subject), "matrices": report.confusion_matrices(subject),
        }  # fmt: skip

    @_Loaded
    def scope(self) -> Scope:
        """Over its network as it was trained, traced where it can be."""
        with suppress(NetworkError):  # which is said where its layers are asked for
            self.subject.scope.graph  # noqa: B018
        return self.subject.scope

    @cached_property
    def lenses(self) -> tuple[str, ...]:
        """The attributions that pages offer, the one that they show first in front: without maps there is no CAM."""
        names, first = list(ATTRIBUTIONS), "grad_cam"
        try:
            self.scope.grad_cam(self.image(0))
        except RequestError:
            names, first = [name for name in names if "cam" not in name], "saliency"
        return tuple(sorted(names, key=lambda name: name != first))

    def scope_without(self, off: UnitsOff) -> Scope:
        """Over its network with units switched off: set to 0 where the next layer reads them; itself where there are none.

        Raises:
            UnknownNameError: there is no such layer.
            RequestError: a layer has no such unit.
        """
        chosen = {layer: units for layer, units in off.items() if units}
        if not chosen:
            return self.scope
        key = repr(sorted((layer, sorted(units)) for layer, units in chosen.items()))
        with _LOADING:
            if key not in self._scopes:
                for layer, units in chosen.items():
                    self.check_unit(layer, *units)
                plan = ablation_plan(self.scope, chosen)
                self._scopes[key] = self.scope.ablate(plan.units_at(chosen), plan.how)
                if len(self._scopes) > _SCOPES_HELD:
                    self._scopes.popitem(last=False)
            self._scopes.move_to_end(key)
            return self._scopes[key]

    def check_unit(self, layer: str, *units: int) -> None:
        """Raises UnknownNameError or RequestError where the network has no such layer or unit."""
        n = self.scope.n_units(layer)
        for unit in units:
            if not 0 <= unit < n:
                raise RequestError(f"unit {unit} is not in layer {layer!r}; it has 0 to {n - 1}")

    def image(self, row: int) -> Float[Tensor, "C H W"]:
        """A test image, in [0, 1].

        Raises:
            RequestError: there is none of this number.
        """
        if not 0 <= row < len(self.test):
            raise RequestError(f"image {row}: there are test images 0 to {len(self.test) - 1}")
        return self.test[row][0]

    def png(self, split: str, row: int, side: int = 0, box: str = "") -> bytes:
        """An image of its data as a file, or its part in a box; enlarged as far as its longer side is within `side` px.

        Raises:
            RequestError: there is no such image, or the box is not "top,left,bottom,right" within it.
        """
        images = getattr(self.data, split, None) if split in ("train", "val", "test") else None
        if images is None or not 0 <= row < len(images):
            raise RequestError(f"image {row} of {split}: there is none")
        image = images[row][0]
        if box:
            edges = [int(edge) for edge in box.split(",") if edge.isdecimal() and len(edge) < 9]
            _, height, width = image.shape
            if len(edges) != 4 or not (0 <= edges[0] < edges[2] <= height and 0 <= edges[1] < edges[3] <= width):
                raise RequestError(f"box {box}: expected top,left,bottom,right in pixels of the image")
            image = image[:, edges[0] : edges[2], edges[1] : edges[3]]
        pixels = picture(image)
        return png(enlarge_to(pixels, min(side, 512)) if side else pixels)

    @cached_property
    def positions(self) -> dict[str, Positions]:
        """Where the units and positions of each operation lie in its result."""
        return positions(self.scope.graph)

    @cached_property
    def layers(self) -> list[dict[str, Any]]:
        """The operations whose results are maps or rows of units: what the lab can show, in order of execution.

        Each: name, kind, shape (units, rows, columns), `units_of`, the layer by whose name its units go (the convolution in
        front of a ReLU), and `shown`, whether the lab shows it at first: the ReLUs behind some of the convolutions, or the
        convolutions themselves, evenly over the network.

        Raises:
            NetworkError: the network cannot be traced.
        """
        graph, layers, owner = self.scope.graph, list[dict[str, Any]](), ""
        for operation in graph.operations:
            shape = operation.output_shape
            place = self.positions.get(operation.name) if len(shape) > 1 else None
            has_units = place is not None or len(shape) == 1
            if operation.kind in ("conv", "dense"):
                owner = operation.name if has_units else ""
            if not has_units:
                continue
            units, size = (shape[0], (1, 1)) if place is None else (place.n_units(shape), place.size)
            keeps = owner and units == self.scope.n_units(owner)
            layers.append({
                "name": operation.name, "kind": operation.kind, "shape": [units, *size],
                "units_of": owner if keeps else operation.name,
            })  # fmt: skip
        convolutions = [each["name"] for each in layers if each["kind"] == "conv"]
        maps = [relu_after(graph, name) or name for name in convolutions] or [layers[0]["name"]]
        n = min(_ROWS_SHOWN, len(maps))
        shown = {maps[round(k * (len(maps) - 1) / max(1, n - 1))] for k in range(n)}
        return [each | {"shown": each["name"] in shown} for each in layers]

    @property
    def unfinished(self) -> str:
        """Why one cannot look into it; '' where one can."""
        if not self.run.is_trained:
            return "This run is being trained. Its curves are on the overview; the rest follows when it is done."
        if not self.is_evaluated:
            return f"This run is not evaluated yet: {self.run.command('evaluate')}"
        with suppress(NetworkError):
            if self.scope.graph.operations:
                return ""
        return "The network of this run cannot be traced, so its layers cannot be shown."

    @property
    def first_head(self) -> str:
        """Of several heads the one whose classes and accuracy the pages show; '' of a single one."""
        heads = self.run.task.heads
        return heads[0].target if len(heads) > 1 else ""


class ExploredRuns:
    """All runs that are explored; those of a folder with runs below it are added as they come.

    Args:
        folders: of runs, or with runs below them.
        trust: whether runs may run the code that they name as their network.

    Attributes:
        runs: in the order in which they were found, by which their numbers go.
        trust: as given.
    Raises:
        RunFolderError: a folder is no run, and holds none.
    """

    def __init__(self, folders: Sequence[Path], trust: bool = False) -> None:
        self.trust, self._folders = trust, [Path(folder) for folder in folders]
        self.runs = [self._opened(path) for path in self._paths()]

    def __len__(self) -> int:
        return len(self.runs)

    def __getitem__(self, number: int) -> ExploredRun:
        """A run as its folder is now: one that was trained or evaluated again is opened again.

        Raises:
            RequestError: there is no such run, or its folder is not there any more.
        """
        if not 0 <= number < len(self.runs):
            raise RequestError(f"run {number}: there are runs 0 to {len(self.runs) - 1}")
        explored = self.runs[number]
        path = explored.run.path
        if not (path / SPEC).exists():
            raise RequestError(f"{path} was removed or renamed; start the explorer again with the folder that is there")
        if explored.made_at != times_of(path):
            self.runs[number] = self._opened(path)
        return self.runs[number]

    def refresh(self) -> None:
        """Adds the runs that have come below the folders, and opens those again that changed, as far as they can be read."""
        for number in range(len(self.runs)):
            with suppress(RequestError):
                self[number]
        for path in set(self._paths()) - {explored.run.path for explored in self.runs}:
            with suppress(RequestError):
                self.runs.append(self._opened(path))

    def _opened(self, path: Path) -> ExploredRun:
        return ExploredRun(open_run(path, trust=self.trust), self.trust)

    def _paths(self) -> Iterator[Path]:
        """The folders themselves, or those of the runs below them."""
        for folder in self._folders:
            if (folder / SPEC).exists() or not report.holds_runs(folder):
                yield folder
            else:
                yield from sorted({path.parent for depth in ("*", "*/*") for path in folder.glob(f"{depth}/{SPEC}")})


def times_of(folder: Path) -> list[int]:
    """When its files of results were written, 0 for none; other times mean that it was trained or evaluated again."""
    files = [folder / name for name in (MODEL, METRICS, PREDICTIONS)]
    return [file.stat().st_mtime_ns if file.exists() else 0 for file in files]
