"""Templates filled in: what all pages of a report share."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.metadata import version
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, pass_environment, select_autoescape
from markupsafe import Markup

from convscope import draw
from convscope.base.words import shape_text
from convscope.compute import Entry, cache_folder, cached, entry_path
from convscope.draw import Picture, photo, png
from convscope.study import duration


@dataclass(frozen=True, eq=False)
class Photo:
    """A picture that a page may show with less detail, as JPEG."""

    picture: Picture


def fill(template: str, room: str = "convscope.report", **parts: Any) -> str:
    """HTML from a file in the `templates/` of a room, which may include those of the report."""
    return _environment(room).get_template(template).render(**parts)


@cache
def _environment(room: str) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(room), PackageLoader(__package__)]), autoescape=select_autoescape(),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"figure": _figure, "points": _points, "thousands": "{:,}".format, "uri": _uri}
    environment.filters |= {"percent": _percent, "interval": _interval, "side": _side, "embed": _embed, "short": _short}
    environment.filters["duration"] = duration
    return environment


def static(name: str) -> Markup:
    """A file of `static/`, to stand in a page as it is."""
    return Markup((resources.files("convscope.report") / "static" / name).read_text("utf-8"))


def vega() -> Markup:
    """The script that draws charts in a page, cached: bundling it takes seconds."""
    key = {"vl-convert-python": version("vl-convert-python")}
    path = entry_path(cache_folder(), "charts", "vega", key)
    script = cached(
        path,
        key,
        lambda: draw.vega_script(),  # here, for it loads Altair, which most pages of the explorer do without
        lambda text: Entry({"script": text}),
        lambda entry: entry.values["script"],
    )
    return Markup(script.replace("</script", "<\\/script"))


def _embed(values: Any) -> Markup:
    """JSON that cannot end the <script> it stands in; pictures are data URIs."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), default=_uri)
    return Markup(text.replace("<", "\\u003c"))


def _uri(image: Picture | Photo | bytes) -> str:
    """A picture, or the PNG file of one, as a data URI, so that a page needs no file beside it."""
    content = image if isinstance(image, bytes) else photo(image.picture) if isinstance(image, Photo) else png(image)
    kind = "jpeg" if content.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:z.2f}".replace("-", "−")


def _points(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+z.1f}".replace("+0.0", "0.0").replace("-", "−")


@pass_environment
def _interval(environment: Environment, figure: Any, scale: float = 100, digits: int = 1) -> str:
    """Of an `Estimate`, or of what it is in JSON."""
    low, high = (environment.getattr(figure, key) for key in ("low", "high"))
    if low is None or high is None:
        return ""
    return f"{scale * low:z.{digits}f} to {scale * high:z.{digits}f}".replace("-", "−")


def _side(value: int | list[int] | None) -> str:
    return "" if value is None else shape_text(value) if isinstance(value, list) else str(value)


def _short(value: float) -> str:
    """To three digits, without exponents where it can be."""
    rounded = float(f"{value:.3g}")
    style = "z,.0f" if 1e3 <= abs(rounded) < 1e7 else "z.3g"
    return f"{rounded:{style}}".replace("-", "−")
