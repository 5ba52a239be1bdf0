"""A copy of the explorer's pages in a folder, which a browser opens from disk: no server, no Python.

The pages are those of the server, made with all that they ask for; links become names of files, modules ordinary scripts (a
browser loads no modules from disk), and answers that a page would ask the server for stand in the page. What needs the network
at hand is left out: editing images, switching units off, judging mistakes.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from typing import Any, ClassVar
from urllib.parse import unquote

import torch

from convscope import report
from convscope.app import pages
from convscope.app.explored import ExploredRun
from convscope.app.questions import QUESTIONS, analysis
from convscope.app.routes import attribution_of, nearest_of, points_of, review_of
from convscope.app.state import State
from convscope.compute import write_folder_whole
from convscope.draw import png
from convscope.errors import NetworkError, RequestError
from convscope.runs import Run, check_writable

FOLDER = "explorer"
"""Of the copy, in the run's folder."""

_MOST_POINTS, _MOST_CELLS = 2000, 400
_MANY, _FEW = 200, 40  # mistakes of small images, and of large ones
_SMALL = 64 * 64
_EXAMPLES = 4  # misclassified, and as many right ones
_LOOKS = ("grad_cam", "smallest_occlusion", "unit_effects")


def write_twin(run: Run, trust: bool = False) -> str:
    """Writes the folder `explorer` of a run, whole, in place of one that is there; index.html is its first page.

    Args:
        run: evaluated; its report should be there, whose results are used.
        trust: whether it was opened with leave to run the code that it names as its network.
    Returns:
        The path of index.html.
    Raises:
        RunFolderError: the run is not evaluated yet.
        NetworkError: its network cannot be traced.
        ReadOnlyError, WriteError: the folder cannot be written.
    """
    run.metrics, run.predictions  # noqa: B018 (says at once what is missing)
    check_writable(run.path)
    explored = ExploredRun(run, trust)
    explored.scope.graph  # noqa: B018 (says why it cannot be traced)
    write_folder_whole(run.path / FOLDER, dict(_Copy(explored).files()))
    return str(run.path / FOLDER / "index.html")


@dataclass(frozen=True)
class _CopiedState(State):
    """The state of a page of the copy, whose addresses are files.

    Attributes:
        units: how many units of each convolution have a page.
        examples: test images on the page of examples.
        wanted: images that pages show, by split and row.
    """

    is_copy: ClassVar[bool] = True
    units: dict[str, int] = field(default_factory=dict)
    examples: Sequence[int] = ()
    wanted: set[tuple[str, int]] = field(default_factory=set)

    def link(self, page: str, **query: Any) -> str:
        kind, _, rest = page.partition("/")
        if kind == "unit":
            layer, number = (unquote(part) for part in rest.rsplit("/", 1))
            return self.unit_file(layer, int(number))
        if kind == "units" and "layer" in query:
            return f"units-{self._place(query['layer'])}.html"
        if kind == "lab":
            row = query["image"]
            return f"examples.html#image-{row}" if row in self.examples else self.image(row, 0)
        return "index.html" if kind == "overview" else f"{kind}.html"

    def unit_file(self, layer: str, number: int) -> str:
        """The page of a unit; that of its layer where it has none."""
        if number < self.units.get(layer, 0):
            return f"unit-{self._place(layer)}-{number}.html"
        return f"units-{self._place(layer)}.html" if layer in self.units else "units.html"

    def image(self, row: int, side: int, box: str = "") -> str:
        if box:
            return f"data:image/png;base64,{base64.b64encode(self.run.png('test', row, box=box)).decode()}"
        self.wanted.add(("test", row))
        return f"images/test-{row}.png"

    def _place(self, layer: str) -> int:
        return list(self.units).index(layer)


class _Copy:
    """Makes the files of a copy."""

    def __init__(self, explored: ExploredRun) -> None:
        self.run, self.subject = explored, explored.subject
        self.units = report.shown_units(self.subject) if report.has_filters(self.subject) else {}
        self.state = _CopiedState([explored], query={}, units=self.units)

    def files(self) -> Iterator[tuple[str, bytes | str]]:
        """Each with its name, the images last."""
        for name, html in self.pages():
            yield name, _from_disk(html)
        for name in ("app.css", "common.js", "map.js", "mistakes.js", "overview.js", "unit.js"):
            text = (resources.files("convscope.app") / "static" / name).read_text("utf-8")
            yield f"static/{name}", _as_script(text) if name.endswith(".js") else text
        for name in ("report.css", "report.js", "tables.js"):
            yield f"static/{name}", str(report.static(name))
        yield "static/vega.js", str(report.vega())
        for split, row in sorted(self.state.wanted):
            yield f"images/{split}-{row}.png", self.run.png(split, row)

    def pages(self) -> Iterator[tuple[str, str | bytes]]:
        """All pages, and the pictures that belong to them alone."""
        yield from self._mistakes()
        yield "examples.html", self._render("examples", {"examples": self.examples})
        yield from self._overview()
        yield "map.html", self._map()
        if not self.units:
            yield "units.html", self._render("units", {"unfinished": "This network has no convolutions."})
        for place, (layer, n) in enumerate(self.units.items()):
            parts = self._parts("units", layer=layer)
            html = self._render("units", parts | {"sheet": parts["sheet"][:n]})
            yield f"units-{place}.html", html
            if place == 0:
                yield "units.html", html
            for unit in range(n):
                yield (
                    f"unit-{place}-{unit}.html",
                    self._render("unit", self._parts("unit", layer=layer, unit=str(unit))),
                )

    def _overview(self) -> Iterator[tuple[str, str]]:
        parts = self._parts("overview")
        matrix = torch.tensor(parts["matrices"][0]["matrix"])
        order = matrix.flatten().argsort(descending=True, stable=True).tolist()[:_MOST_CELLS]
        cells = [divmod(k, len(matrix)) for k in order if matrix.flatten()[k]]
        for true, predicted in cells:
            cell = self._parts("images", true=str(true), predicted=str(predicted))
            yield f"images-{true}-{predicted}.html", self._render("images", cell)
        yield "index.html", self._render("overview", parts, cells=[f"{true}-{predicted}" for true, predicted in cells])

    def _map(self) -> str:
        points = points_of(self.run, QUESTIONS["projection"](self.run, layer=None, method="pca"))
        n = len(points["row"])
        step = -(-n // _MOST_POINTS)
        of_points = ("row", "name", "x", "y", "confidence", "class", "predicted")
        sample = points | {key: points[key][::step] for key in of_points}
        self.state.wanted.update(("test", row) for row in sample["row"])
        return self._render("map", self._parts("map"), answers={"projection": sample})

    def _mistakes(self) -> Iterator[tuple[str, str | bytes]]:
        parts, test = self._parts("mistakes"), self.run.test
        queue = parts["queue"][: _MANY if self._is_small else _FEW]
        rows = [one["row"] for one in queue]
        self.state.wanted.update(("test", row) for row in rows)
        near: dict[int, dict[str, Any]] = {}
        if rows:
            nearest = self.run.scope.nearest(test.subset(rows), self.run.data.train)
            near = dict(zip(rows, nearest_of(self.run, nearest), strict=True))
            self.state.wanted.update(("train", k) for k in nearest.index.flatten().tolist())
        for row in rows:
            lens = self.run.lenses[0]
            yield f"images/{lens}-{row}.png", png(attribution_of(self.run, row, lens, {}))
        answers = {"review": review_of(self.run), "nearest": near}
        yield (
            "mistakes.html",
            self._render("mistakes", parts | {"queue": queue, "lenses": self.run.lenses[:1]}, answers=answers),
        )

    @property
    def _is_small(self) -> bool:
        _, height, width = self.run.run.input_shape
        return height * width <= _SMALL

    @cached_property
    def examples(self) -> list[dict[str, Any]]:
        """The worst mistakes and some right answers, each with what some lenses show of it."""
        answers = self.subject.answers[0]
        right = (answers.predicted == answers.true).nonzero()[:, 0].tolist()
        wrong = [one["row"] for one in self._parts("mistakes")["queue"][:_EXAMPLES]]
        rows = [*wrong, *right[:: max(1, len(right) // _EXAMPLES)][:_EXAMPLES]]
        self.state = _CopiedState([self.run], query={}, units=self.units, examples=rows, wanted=self.state.wanted)
        names = answers.head.classes
        return [
            {"row": row, "name": self.run.test.name(row), "true": names[answers.true[row]],
             "predicted": names[answers.predicted[row]], "probability": float(answers.confidence[row]),
             "looks": list(self._looks(row))}
            for row in rows
        ]  # fmt: skip

    def _looks(self, row: int) -> Iterator[dict[str, str]]:
        for lens in _LOOKS if self._is_small else _LOOKS[:1]:  # the smallest square of a large image takes minutes
            try:
                result = analysis(self.run, lens, self.run.image(row))
            except (RequestError, NetworkError):
                continue
            picture = base64.b64encode(result["png"]).decode()
            yield {"heading": result["heading"], "note": result["note"], "picture": f"data:image/png;base64,{picture}"}

    def _parts(self, page: str, **query: str) -> dict[str, Any]:
        state = State([self.run], query=query)
        return pages.page_of(page)(state, self._know)

    def _know(self, question: str, words: str, **arguments: Any) -> Any:
        """The answer at once; of single units from what the filter page has of all."""
        if question == "effect":
            effects = self._effects and self._effects.get(arguments["layer"])
            return effects if effects and effects.measured[arguments["unit"]] else None
        if question == "maximized":
            of_layer, unit = self._visualizations.get(arguments["layer"]), arguments["unit"]
            if of_layer is None or unit >= len(of_layer.pictures):
                return None
            return {"picture": of_layer.pictures[unit].movedim(-1, 0) / 255, "activation": of_layer.activation[unit]}
        return QUESTIONS[question](self.run, **arguments)

    @cached_property
    def _effects(self) -> Any:
        return report.measured_effects(self.subject)

    @cached_property
    def _visualizations(self) -> dict[str, Any]:
        return report.visualizations(self.subject, self.units)

    def _render(self, name: str, parts: dict[str, Any], cells: Sequence[str] = (), **more: Any) -> str:
        return pages.render(name, self.state, parts | more, cells=cells)


_MODULE = re.compile(r'<script type="module" src="/static/([\w.]+)"></script>')
_FILE = re.compile(r'\b(href|src)="/static/')
_IMPORT = re.compile(r'^import (\{[^}]*\}) from "./common.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:const|(?:async )?function) ([\w$]+))", re.MULTILINE)


def _from_disk(page: str | bytes) -> str | bytes:
    """A page whose scripts and styles lie beside it."""
    if isinstance(page, bytes):
        return page
    return _FILE.sub(r'\1="static/', _MODULE.sub(r'<script src="static/\1" defer></script>', page))


def _as_script(module: str) -> str:
    """One of our modules as an ordinary script, which browsers load from disk."""
    names = ", ".join(_EXPORT.findall(module))
    own = f"globalThis.convscope = {{ {names} }};\n" if names else ""
    body = _IMPORT.sub(r"const \1 = globalThis.convscope;", _EXPORT.sub("", module))
    return f'(() => {{\n"use strict";\n{body}{own}}})();\n'
