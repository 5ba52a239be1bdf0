"""A copy of the explorer's pages in a folder, which a browser opens from disk: no server, no Python.

The pages are those of the server, made with all that they ask for; links become names of files, modules ordinary scripts (a
browser loads no modules from disk), and answers that a page would ask the server for stand in the page. What needs the network
at hand is left out: editing images, switching units off, judging mistakes.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import suppress
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
    write_folder_whole(run.path / FOLDER, dict(_Copy([explored]).files()))
    return str(run.path / FOLDER / "index.html")


class _Copy(State):
    """The pages of a copy, whose addresses are files, and what belongs to them."""

    is_copy: ClassVar[bool] = True

    @cached_property
    def wanted(self) -> set[tuple[str, int]]:
        """Images that pages show, by split and row."""
        return set()

    @cached_property
    def units(self) -> dict[str, int]:
        """How many units of each convolution have a page."""
        return report.shown_units(self.run.subject) if report.has_filters(self.run.subject) else {}

    def link(self, page: str, **query: Any) -> str:
        kind, _, rest = page.partition("/")
        if kind == "unit":
            layer, number = (unquote(part) for part in rest.rsplit("/", 1))
            if int(number) < self.units.get(layer, 0):
                return f"unit-{list(self.units).index(layer)}-{number}.html"
            kind, query = "units", {"layer": layer}  # that of its layer, where it has none
        if kind == "units" and query.get("layer") in self.units:
            return f"units-{list(self.units).index(query['layer'])}.html"
        if kind == "lab":
            row = query["image"]
            return f"examples.html#image-{row}" if row in self.examples else self.image(row, 0)
        return "index.html" if kind == "overview" else f"{kind}.html"

    def image(self, row: int, side: int, box: str = "") -> str:
        if box:
            return f"data:image/png;base64,{base64.b64encode(self.run.png('test', row, box=box)).decode()}"
        self.wanted.add(("test", row))
        return f"images/test-{row}.png"

    def files(self) -> Iterator[tuple[str, bytes | str]]:
        """All files, each with its name, the images last."""
        for name, html in self._pages():
            yield name, _FILE.sub(r'\1="static/', _MODULE.sub(r'<script src="static/\1" defer></script>', html))
        for name in ("app.css", "common.js", "map.js", "mistakes.js", "overview.js", "unit.js"):
            text = (resources.files("convscope.app") / "static" / name).read_text("utf-8")
            yield f"static/{name}", _as_script(text) if name.endswith(".js") else text
        for name in ("report.css", "report.js", "tables.js"):
            yield f"static/{name}", str(report.static(name))
        yield "static/vega.js", str(report.vega())
        lens = self.run.lenses[0]
        for row in self._mistaken:
            yield f"images/{lens}-{row}.png", png(attribution_of(self.run, row, lens, {}))
        for split, row in sorted(self.wanted):
            yield f"images/{split}-{row}.png", self.run.png(split, row)

    def _pages(self) -> Iterator[tuple[str, str]]:
        yield "mistakes.html", self._mistakes()
        yield "examples.html", pages.render("examples", self, {"examples": self.examples})
        yield from self._overview()
        yield "map.html", self._map()
        if not self.units:
            yield "units.html", pages.render("units", self, {"unfinished": "This network has no convolutions."})
        for place, (layer, n) in enumerate(self.units.items()):
            parts = self._parts("units", layer=layer)
            html = pages.render("units", self, parts | {"sheet": parts["sheet"][:n]})
            yield f"units-{place}.html", html
            if place == 0:
                yield "units.html", html
            for unit in range(n):
                parts = self._parts("unit", layer=layer, unit=str(unit))
                yield f"unit-{place}-{unit}.html", pages.render("unit", self, parts)

    def _overview(self) -> Iterator[tuple[str, str]]:
        parts = self._parts("overview")
        matrix = torch.tensor(parts["matrices"][0]["matrix"])
        order = matrix.flatten().argsort(descending=True, stable=True).tolist()[:_MOST_CELLS]
        cells = [divmod(k, len(matrix)) for k in order if matrix.flatten()[k]]
        for true, predicted in cells:
            cell = self._parts("images", true=str(true), predicted=str(predicted))
            yield f"images-{true}-{predicted}.html", pages.render("images", self, cell)
        names = [f"{true}-{predicted}" for true, predicted in cells]
        yield "index.html", pages.render("overview", self, parts, cells=names)

    def _map(self) -> str:
        points = points_of(self.run, QUESTIONS["projection"](self.run, layer=None, method="pca"))
        step = -(-len(points["row"]) // _MOST_POINTS)
        of_points = ("row", "name", "x", "y", "confidence", "class", "predicted")
        sample = points | {key: points[key][::step] for key in of_points}
        self.wanted.update(("test", row) for row in sample["row"])
        return pages.render("map", self, self._parts("map") | {"answers": {"projection": sample}})

    @cached_property
    def _queue(self) -> dict[str, Any]:
        """The parts of the page of mistakes, with as many of these as the copy shows."""
        parts = self._parts("mistakes")
        return parts | {"queue": parts["queue"][: _MANY if self._is_small else _FEW], "lenses": self.run.lenses[:1]}

    @property
    def _mistaken(self) -> list[int]:
        return [one["row"] for one in self._queue["queue"]]

    def _mistakes(self) -> str:
        rows, near = self._mistaken, dict[int, dict[str, Any]]()
        self.wanted.update(("test", row) for row in rows)
        if rows:
            nearest = self.run.scope.nearest(self.run.test.subset(rows), self.run.data.train)
            near = dict(zip(rows, nearest_of(self.run, nearest), strict=True))
            self.wanted.update(("train", k) for k in nearest.index.flatten().tolist())
        return pages.render(
            "mistakes", self, self._queue | {"answers": {"review": review_of(self.run), "nearest": near}}
        )

    @property
    def _is_small(self) -> bool:
        _, height, width = self.run.run.input_shape
        return height * width <= _SMALL

    @cached_property
    def examples(self) -> dict[int, dict[str, Any]]:
        """The worst mistakes and some right answers, by their test images, each with what some lenses show of it."""
        answers = self.run.subject.answers[0]
        right = (answers.predicted == answers.true).nonzero()[:, 0].tolist()
        names = answers.head.classes
        return {
            row: {"name": self.run.test.name(row), "true": names[answers.true[row]],
                  "predicted": names[answers.predicted[row]], "probability": float(answers.confidence[row]),
                  "looks": self._looks(row)}
            for row in [*self._mistaken[:_EXAMPLES], *right[:: max(1, len(right) // _EXAMPLES)][:_EXAMPLES]]
        }  # fmt: skip

    def _looks(self, row: int) -> list[dict[str, Any]]:
        looks = []
        for lens in _LOOKS if self._is_small else _LOOKS[:1]:  # the smallest square of a large image takes minutes
            with suppress(RequestError, NetworkError):
                looks.append(analysis(self.run, lens, self.run.image(row)))
        return looks

    def _parts(self, page: str, **query: str) -> dict[str, Any]:
        return pages.parts_of(page, State([self.run], query=query), self._know)

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
        return report.measured_effects(self.run.subject)

    @cached_property
    def _visualizations(self) -> dict[str, Any]:
        return report.visualizations(self.run.subject, self.units)


_MODULE = re.compile(r'<script type="module" src="/static/([\w.]+)"></script>')
_FILE = re.compile(r'\b(href|src)="/static/')
_IMPORT = re.compile(r'^import (\{[^}]*\}) from "./common.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:const|(?:async )?function) ([\w$]+))", re.MULTILINE)


def _as_script(module: str) -> str:
    """One of our modules as an ordinary script, which browsers load from disk."""
    names = ", ".join(_EXPORT.findall(module))
    own = f"globalThis.convscope = {{ {names} }};\n" if names else ""
    body = _IMPORT.sub(r"const \1 = globalThis.convscope;", _EXPORT.sub("", module))
    return f'(() => {{\n"use strict";\n{body}{own}}})();\n'
