"""Templates filled in: what all pages of a report share."""

from __future__ import annotations

import json
from contextlib import suppress
from importlib import resources
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from convscope.data import cache_folder
from convscope.draw import vega_script
from convscope.errors import FailedError
from convscope.runs import write_whole


def fill(template: str, room: str = "convscope.report", **parts: Any) -> str:
    """HTML from a file in the `templates/` of a room."""
    environment = Environment(
        loader=PackageLoader(room), autoescape=select_autoescape(), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"figure": _figure, "points": _points, "thousands": "{:,}".format}
    environment.filters |= {"percent": _percent, "interval": _interval, "side": _side, "embed": _embed, "short": _short}
    return environment.get_template(template).render(**parts)


def static(name: str) -> Markup:
    """A file of `static/`, to stand in a page as it is."""
    return Markup((resources.files("convscope.report") / "static" / name).read_text("utf-8"))


def vega() -> Markup:
    """The script that draws charts in a page; kept in the cache folder where it can be: to put it together takes seconds."""
    kept = cache_folder() / f"vega-{version('vl-convert-python')}.js"
    try:
        script = kept.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        script = vega_script()
        with suppress(FailedError):
            write_whole(kept, script)
    return Markup(script.replace("</script", "<\\/script"))


def _embed(values: Any) -> Markup:
    """JSON that cannot end the <script> it stands in."""
    return Markup(json.dumps(values, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".replace("-", "−")


def _points(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f}".replace("-", "−") if value else "0.0"


def _interval(figure: dict[str, float | None], scale: float = 100, digits: int = 1) -> str:
    if figure["low"] is None or figure["high"] is None:
        return ""
    return f"{scale * figure['low']:.{digits}f} to {scale * figure['high']:.{digits}f}"


def _side(value: int | list[int] | None) -> str:
    return "" if value is None else "×".join(map(str, value)) if isinstance(value, list) else str(value)


def _short(value: float) -> str:
    """To three digits, without exponents where it can be."""
    text = f"{float(f'{value:.3g}'):,.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:.3g}"
    return text.replace("-", "−")
