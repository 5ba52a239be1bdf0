"""Numbers → charts, as Vega-Lite specifications: interactive in a page, PNG or SVG through vl-convert."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from PIL import Image

from convscope.draw.letters import tell_missing
from convscope.draw.pictures import Picture

_MOST_FIGURES = 12  # classes of a matrix whose cells have room for figures
_FAINT = "#6e747e"
_PLAIN = {
    "view": {"stroke": None},
    "axis": {
        "titleFontWeight": "normal",
        "labelColor": _FAINT,
        "titleColor": _FAINT,
        "labelFontSize": 11,
        "titleFontSize": 11.5,
        "labelLimit": 0,  # cut names may look alike
    },
    "legend": {"labelFontSize": 11.5, "titleFontWeight": "normal", "titleColor": _FAINT, "labelLimit": 0},
    "header": {"labelLimit": 0},
    "text": {"color": _FAINT},
}
TRAIN, VAL = "#3b76c4", "#e0762f"
CLASSES = (
    "#0996f9", "#c24306", "#33896c", "#7850c7", "#bf8c2a", "#242295", "#bd78b3", "#424001", "#275d86", "#611d53",
)  # fmt: skip
"""Of classes: each at 3:1 on white, and told apart by eyes that see no red or no green as far as ten can be."""
COLOURS = alt.Scale(domain=["train", "val"], range=[TRAIN, VAL])


def learning_curve(history: pd.DataFrame, measure: str, test_accuracy: float | None = None) -> dict[str, Any]:
    """Loss or accuracy of train and val images by epoch; the pointer reads the values of the nearest epoch.

    Args:
        history: a row an epoch with epoch, train_loss, val_loss, train_accuracy, val_accuracy; and stage, whose names then
            stand above a line where each begins.
        measure: "loss" or "accuracy".
        test_accuracy: a dashed line in the accuracy chart, where given.
    """
    percent = measure == "accuracy"
    title, number, test = ("accuracy", ".2%", test_accuracy) if percent else ("loss (nats)", ".4f", None)
    wide = history[["epoch", f"train_{measure}", f"val_{measure}"]]
    wide = wide.rename(columns={f"train_{measure}": "train", f"val_{measure}": "val"})
    long = wide.melt("epoch", var_name="images", value_name="value")
    near = alt.selection_point(nearest=True, on="pointerover", fields=["epoch"], empty=False)
    every = max(1, len(wide) // 10)
    ticks = alt.Axis(values=wide["epoch"].tolist()[every - 1 :: every], format="d", grid=False)
    epochs = alt.Scale(domain=axis_domain([1, *wide["epoch"]]), nice=False)
    x = alt.X("epoch:Q", title="epoch", axis=ticks, scale=epochs)
    reach = alt.Scale(domain=axis_domain([*long["value"], *([] if test is None else [test])]), nice=True)
    y = alt.Y("value:Q", title=title, axis=alt.Axis(format="%" if percent else alt.Undefined), scale=reach)
    legend = alt.Legend(title=None, orient="top", offset=18 if "stage" in history else 2)
    base = alt.Chart(long).encode(x=x, y=y, color=alt.Color("images:N", scale=COLOURS, legend=legend))
    shown = alt.condition(near, alt.value(1), alt.value(0))
    rule = alt.Chart(wide).mark_rule(color="#8888", strokeWidth=1).add_params(near)
    rule = rule.encode(x=x, opacity=shown, tooltip=["epoch:Q", *tooltips(number, "train", "val")])
    alone = len(wide) == 1
    dots = base.mark_point(filled=True, size=60 if alone else 34)
    layers = [base.mark_line(strokeWidth=2), dots if alone else dots.transform_filter(near), rule]
    if test is not None:
        line = alt.Chart(pd.DataFrame({"value": [test], "what": [f"test {test:.2%}"]}))
        layers += [line.mark_rule(strokeDash=[5, 4], color="#888").encode(y="value:Q", tooltip="what:N")]
    about = f"{title} by epoch: {_ends_in_words(history, measure, number)}"
    chart = alt.layer(*_stages(history, x), *layers)
    return specification(chart.properties(width="container", height=230, description=about))


def tooltips(form: str, *columns: str) -> list[alt.Tooltip]:
    """Numbers that the pointer reads, in one format."""
    return [alt.Tooltip(f"{column}:Q", format=form) for column in columns]


def _ends_in_words(history: pd.DataFrame, measure: str, number: str) -> str:
    """Both curves by their first and last epoch, for readers who do not see the chart."""
    ends = history.iloc[:: max(1, len(history) - 1)]
    return "; ".join(
        f"{split} " + " and ".join(
            f"{value:{number}} at epoch {epoch}" for epoch, value in zip(ends["epoch"], ends[f"{split}_{measure}"], strict=True)
        )
        for split in ("train", "val")
    )  # fmt: skip


def axis_domain(values: Iterable[float]) -> list[float] | alt.UndefinedType:
    """From the lowest to the highest finite value; left to Vega-Lite where there is none.

    Stated because Vega-Lite otherwise takes the extent of every layer, and warns of one that is empty until somebody points.
    """
    finite = [float(value) for value in values if np.isfinite(value)]
    return [min(finite), max(finite)] if finite else alt.Undefined


def _stages(history: pd.DataFrame, x: alt.X) -> list[alt.Chart]:
    """A line before the first epoch of each stage but the first, and the names of the stages at the top."""
    if "stage" not in history:
        return []
    starts = history.groupby("stage", sort=False)["epoch"].min().reset_index()
    starts["epoch"] = (starts["epoch"] - 0.5).clip(lower=1)
    base = alt.Chart(starts).encode(x=x)
    rules = base.transform_filter("datum.epoch > 1").mark_rule(color="#888", strokeDash=[2, 3])
    late = 0.9 * float(history["epoch"].max())  # a name there goes to the left, or it would leave the picture
    names = [
        base.transform_filter(f"datum.epoch {which} {late}")
        .mark_text(align=align, baseline="bottom", dx=dx, dy=-3, fontSize=11)
        .encode(y=alt.value(0), text="stage:N")
        for which, align, dx in (("<=", "left", 3), (">", "right", -3))
    ]
    return [rules, *names]


def rate_curve(table: pd.DataFrame, rate: float) -> dict[str, Any]:
    """The loss of a learning-rate range test over the rate, each step and smoothed; a dashed line at the rate that was chosen.

    Args:
        table: a row a step with rate, loss and smoothed, in nats.
        rate: that was chosen.
    """
    x = alt.X(
        "rate:Q",
        title="learning rate",
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(format="~g", tickCount=6),
    )
    low, high = table["smoothed"].min(), table["smoothed"].max()
    scale = alt.Scale(domain=[float(low - 0.15 * (high - low)), float(high)], nice=True)
    base = alt.Chart(table).encode(x=x)
    loss, smoothed = (alt.Y(f"{column}:Q", title="loss (nats)", scale=scale) for column in ("loss", "smoothed"))
    steps = base.mark_circle(size=16, color="#9aa0a8", clip=True).encode(y=loss)
    line = base.mark_line(strokeWidth=2, color=TRAIN).encode(y=smoothed)
    chosen = alt.Chart(pd.DataFrame({"rate": [rate], "name": [f"{rate:g}"]})).encode(x=x)
    rule = chosen.mark_rule(strokeDash=[5, 4], color=VAL)
    name = chosen.mark_text(align="left", dx=4, baseline="top", color=VAL).encode(y=alt.value(2), text="name:N")
    chart = alt.layer(steps, line, rule, name).properties(width=460, height=230)
    about = f"loss over learning rate in {len(table)} steps, smoothed from {low:.4g} to {high:.4g}; chosen is {rate:g}"
    return specification(chart.properties(description=about))


def reliability(bins: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy against confidence, one point a bin, its size the number of images; on the line a network is honest."""
    table = pd.DataFrame(list(bins))
    shares, axis = alt.Scale(domain=[0, 1]), alt.Axis(format="%")
    points = (
        alt.Chart(table)
        .mark_circle(color=TRAIN, opacity=0.9)
        .encode(
            x=alt.X("confidence:Q", title="confidence", scale=shares, axis=axis),
            y=alt.Y("accuracy:Q", title="accuracy", scale=shares, axis=axis),
            size=alt.Size("images:Q", legend=None, scale=alt.Scale(range=[30, 500])),
            tooltip=[*tooltips(".1%", "confidence", "accuracy"), *tooltips(",", "images")],
        )
    )
    ends = alt.Chart(pd.DataFrame({"x": [0, 1], "y": [0, 1]})).encode(x="x:Q", y="y:Q")
    honest = ends.mark_line(strokeDash=[4, 4], color="#888", strokeWidth=1)
    bins_in_words = (f"{b['confidence']:.0%} {b['accuracy']:.0%} of {b['images']:,}" for b in bins)
    about = f"at each confidence the accuracy, and of how many images: {'; '.join(bins_in_words)}"
    return specification(alt.layer(honest, points).properties(width="container", height=230, description=about))


def curves(
    table: pd.DataFrame,
    x: str,
    y: str,
    percent: bool = False,
    ticks: Sequence[str] | None = None,
    reach: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Lines with their 95 % bands.

    Args:
        table: a row a point with curve, x, value, low and high; low and high may be missing values. A column group, where
            there is one, breaks the lines.
        x, y: titles of the axes.
        percent: whether x is a share.
        ticks: names for x = 1, 2, …
        reach: of the axis of y; by default that of the table.
    """
    axis = alt.Axis(format="%" if percent else "d", grid=False)
    if ticks:
        axis.values = list(range(1, len(ticks) + 1))
        axis.labelExpr, axis.labelOverlap, axis.labelAngle = f"{json.dumps(list(ticks))}[datum.value - 1]", False, -35
    base = alt.Chart(table).encode(
        x=alt.X("x:Q", title=x, axis=axis, scale=alt.Scale(nice=False)),
        color=alt.Color("curve:N", sort=None, legend=alt.Legend(title=None, orient="top", symbolOpacity=1)),
        detail="group:N" if "group" in table else alt.Undefined,
    )
    scale = alt.Scale(domain=list(reach)) if reach else alt.Undefined
    band = base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q", title=y, scale=scale), y2="high:Q")
    line = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=24)).encode(
        y=alt.Y("value:Q", title=y, scale=scale),
        tooltip=["curve:N", "x:Q", *tooltips(".3f", "value", "low", "high")],
    )
    return specification(alt.layer(band, line).properties(width=520, height=260))


def histograms(counts: Mapping[str, Sequence[int]], edges: Sequence[float]) -> dict[str, Any]:
    """How often numbers of each size occur, a row for each name; sizes on an axis that is linear about 0, else logarithmic.

    Args:
        counts: by name, one for each bin.
        edges: of the bins, one more than there are; the outermost are infinite.
    """
    rows = [
        {"name": name, "low": max(low, 2 * edges[1]), "high": min(high, 2 * edges[-2]), "share": n / max(1, sum(bins))}
        for name, bins in counts.items()
        for low, high, n in zip(edges, edges[1:], bins, strict=False)
        if n
    ]
    axis = alt.Axis(format="~g", values=[sign * 10**power for sign in (-1, 1) for power in range(-1, 5)] + [0])
    chart = (
        alt.Chart(pd.DataFrame(rows))
        .mark_rect(color=TRAIN)
        .encode(
            x=alt.X("low:Q", title="activation", scale=alt.Scale(type="symlog", constant=0.05), axis=axis),
            x2="high:Q",
            y=alt.Y("share:Q", title=None, axis=alt.Axis(format="%", tickCount=2)),
            y2=alt.datum(0),
            row=alt.Row("name:N", sort=None, title=None, header=alt.Header(labelAngle=0, labelAlign="left")),
            tooltip=["name:N", *tooltips(".3g", "low", "high", "share")],
        )
        .properties(width=520, height=48)
        .resolve_scale(y="independent")
    )
    return specification(chart)


def changes(table: pd.DataFrame, x: str) -> dict[str, Any]:
    """Differences as points with their 95 % intervals, a row for each name; rows of equal name lie in one line.

    Args:
        table: name, value, low and high, as shares; low and high may be missing values.
        x: title of the axis.
    """
    base = alt.Chart(table).encode(y=alt.Y("name:N", sort=None, title=None, axis=alt.Axis(grid=True)))
    axis = alt.Axis(format="+~%", grid=False)
    interval = base.mark_rule(color=TRAIN, opacity=0.35).encode(x=alt.X("low:Q", title=x, axis=axis), x2="high:Q")
    points = base.mark_circle(color=TRAIN, size=42, opacity=0.75).encode(
        x=alt.X("value:Q", title=x, axis=axis),
        tooltip=["name:N", *tooltips("+.2%", "value", "low", "high")],
    )
    zero = alt.Chart(pd.DataFrame({"at": [0.0]})).mark_rule(color="#888", strokeDash=[4, 4]).encode(x="at:Q")
    height = max(60, 24 * table["name"].nunique())
    return specification(alt.layer(zero, interval, points).properties(width=460, height=height))


def moved(change: Sequence[Sequence[int]], classes: Sequence[str]) -> dict[str, Any]:
    """How many images more (red) or fewer (blue) lie in each cell of a confusion matrix; up to twelve classes in figures.

    Args:
        change: a row for each true class, a column for each predicted one.
        classes: their names.
    """
    rows = [
        {"true": true, "predicted": predicted, "images": n}
        for true, line in zip(classes, change, strict=True)
        for predicted, n in zip(classes, line, strict=True)
    ]
    most = max(1, *(abs(n) for line in change for n in line))
    few = len(classes) <= _MOST_FIGURES
    names = {} if few else {"labelOverlap": True, "labelFontSize": 9}  # of many classes as many as have room
    base = alt.Chart(pd.DataFrame(rows)).encode(
        x=alt.X("predicted:N", sort=None, title="predicted class", axis=alt.Axis(labelAngle=-45, **names)),
        y=alt.Y("true:N", sort=None, title="true class", axis=alt.Axis(**names)),
        tooltip=["true:N", "predicted:N", *tooltips("+d", "images")],
    )
    colour = alt.Scale(scheme="redblue", reverse=True, domain=[-most, most])
    cells = base.mark_rect().encode(color=alt.Color("images:Q", scale=colour, title="images more"))
    figures = (
        base.transform_filter("datum.images != 0")
        .mark_text(fontSize=10)
        .encode(
            text=alt.Text("images:Q", format="+d"),
            # where white is read as well as black on the colours of the scheme, at 4.5:1
            color=alt.condition(
                f"datum.images > {0.66 * most} || datum.images < {-0.71 * most}", alt.value("white"), alt.value("black")
            ),
        )
    )
    side = 28 * len(classes) if few else 336
    return specification(alt.layer(*([cells, figures] if few else [cells])).properties(width=side, height=side))


def points(table: pd.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    """Images as points, in the colours of their classes.

    Args:
        table: a row an image with x, y and class.
        classes: in their order; beyond ten the colours come again, in another shape.
    """
    shape = {name: ("circle", "triangle-up", "square", "diamond", "cross")[k // len(CLASSES) % 5]
             for k, name in enumerate(classes)}  # fmt: skip
    colours = [CLASSES[k % len(CLASSES)] for k in range(len(classes))]
    plain = alt.Axis(title=None, labels=False, ticks=False, grid=False, domain=False)
    chart = alt.Chart(table[["x", "y", "class"]]).mark_point(filled=True, size=16, opacity=0.75)
    legend = alt.Legend(title=None, symbolOpacity=1, symbolSize=70, columns=1 + (len(classes) - 1) // 20)
    chart = chart.encode(
        x=alt.X("x:Q", axis=plain, scale=alt.Scale(zero=False)),
        y=alt.Y("y:Q", axis=plain, scale=alt.Scale(zero=False)),
        color=alt.Color("class:N", scale=alt.Scale(domain=list(classes), range=colours), legend=legend),
        shape=alt.Shape("class:N", scale=alt.Scale(domain=list(classes), range=list(shape.values())), legend=legend),
    )
    return specification(chart.properties(width=480, height=420))


def chart_picture(chart: dict[str, Any], scale: float = 1.6) -> Picture:
    """A chart as a picture, with axes in the letters of the other pictures."""
    with Image.open(io.BytesIO(chart_png({**chart, "config": _PLAIN}, scale))) as image:
        return np.asarray(image.convert("RGB"))


def specification(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """As Vega-Lite takes it, of any number of rows."""
    with alt.data_transformers.enable("default", max_rows=None):  # Altair refuses more than 5,000
        return chart.to_dict()


def chart_png(chart: dict[str, Any], scale: float = 2.0) -> bytes:
    """A chart as a PNG file."""
    import vl_convert

    tell_missing(json.dumps(chart, ensure_ascii=False))
    fixed = {**chart, "width": 360} if chart.get("width") == "container" else chart
    return vl_convert.vegalite_to_png(fixed, scale=scale)


def vega_script() -> str:
    """Vega, Vega-Lite and vega-embed as one script, for pages that open without a network."""
    import vl_convert

    return vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub lacks the default
