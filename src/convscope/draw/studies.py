"""Runs of a study → charts: learning curves of several runs, spread over seeds, accuracy against cost."""

from __future__ import annotations

import json
from textwrap import wrap
from typing import Any

import altair as alt
import pandas as pd

from convscope.draw.charts import COLOURS, TRAIN, VAL, specification, tooltips

_LOW_PANEL, _MOST_TICKS = 150, 8
_NAME_LETTERS = 28  # in a line of a row's name


def run_curves(history: pd.DataFrame, measure: str, reach: tuple[float, float]) -> dict[str, Any]:
    """Train and val curves of several runs, a line each; the pointer names the run and reads its values.

    Args:
        history: a row a run and epoch: run, epoch, and train_ and val_ of the measure.
        measure: "loss" or "accuracy".
        reach: of the axis, the same for all panels that are compared; what lies beyond is cut off.
    """
    names = {f"{split}_{measure}": split for split in ("train", "val")}
    long = history.melt(["run", "epoch"], list(names), "images", "value").replace({"images": names}).dropna()
    percent = measure == "accuracy"
    last = int(history["epoch"].max()) if len(history) else 1
    ticks = alt.Axis(format="d", grid=False, values=list(range(1, last + 1, -(-last // _MOST_TICKS))))
    base = alt.Chart(long).encode(
        x=alt.X("epoch:Q", title=None if percent else "epoch", axis=ticks, scale=alt.Scale(nice=False)),
        y=alt.Y(
            "value:Q",
            title=measure,
            axis=alt.Axis(format=_axis(percent), tickCount=4, minExtent=34),
            scale=alt.Scale(domain=list(reach)),
        ),
        color=alt.Color("images:N", scale=COLOURS, legend=None),
        detail="run:N",
        tooltip=["run:N", "images:N", "epoch:Q", alt.Tooltip("value:Q", title=measure, format=_tooltip(percent))],
    )
    line = base.mark_line(strokeWidth=1.5, opacity=0.8, clip=True)
    inside = alt.FieldRangePredicate("value", list(reach))  # a clipped dot would be half a dot at the edge
    points = base.mark_circle(size=22 if last > 1 else 40, opacity=0.8).transform_filter(inside)
    n, number = history["run"].nunique(), _tooltip(percent)
    ends = long[long["epoch"] == last].groupby("images", sort=False)["value"].agg(["min", "max"])
    ranges = "; ".join(f"{split} {low:{number}} to {high:{number}}" for split, low, high in ends.itertuples())
    about = f"{measure} by epoch of {n} run{'' if n == 1 else 's'}, at epoch {last}: {ranges}"
    chart = alt.layer(line, points).properties(width="container", height=_LOW_PANEL, description=about)
    return specification(chart)


def spread(
    groups: pd.DataFrame, runs: pd.DataFrame, title: str, highest: float = 1.0, *, percent: bool = True
) -> dict[str, Any]:
    """A row for each setting: its runs as small dots, their mean as a large one with its 95 % interval; rows as they come.

    Args:
        groups: setting, value, low, high, n; low and high may be missing values.
        runs: setting, run, value.
        title: of the axis.
        highest: value that is shown; what lies beyond is cut off.
        percent: whether the values are shares.
    """
    low, high = runs["value"].min(), min(highest, runs["value"].max())
    edge = 0.08 * (high - low) or 0.01
    scale = alt.Scale(domain=[max(0.0, low - edge), min(1.0, high + edge) if percent else high + edge], nice=True)
    x = alt.X("value:Q", title=title, scale=scale, axis=alt.Axis(format=_axis(percent), orient="top", tickCount=5))
    names = {name: wrap(str(name), _NAME_LETTERS) for name in groups["setting"]}
    lines = f"{json.dumps(names)}[datum.label]"  # all of a name, in lines: cut ones would look alike
    axis = alt.Axis(labelExpr=lines, labelLimit=0, labelLineHeight=12, grid=True, ticks=False, domain=False)
    y = alt.Y("setting:N", sort=None, title=None, axis=axis)
    figures = tooltips(_tooltip(percent), "value", "low", "high")
    means = alt.Chart(groups).encode(x=x, y=y, tooltip=["setting:N", *figures, "n:Q"])
    interval = means.transform_filter("isValid(datum.low)").mark_rule(
        strokeWidth=5, opacity=0.3, color=TRAIN, clip=True
    )
    single = alt.Chart(runs).mark_circle(size=26, opacity=0.9, color=VAL, clip=True)
    layers = [
        interval.encode(x=alt.X("low:Q", scale=scale), x2="high:Q"),
        means.mark_circle(size=80, opacity=1, color=TRAIN, clip=True),
        single.encode(x=x, y=y, tooltip=["run:N", *tooltips(_tooltip(percent), "value")]),
    ]
    row_px = 8 + 12 * max(map(len, names.values()))
    first, last = (f"{row.setting} {row.value:{_tooltip(percent)}}" for row in groups.iloc[[0, -1]].itertuples())
    chart = alt.layer(*layers).properties(
        width="container", height=row_px * len(names), autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
        description=f"mean {title} of {len(groups)} settings, from {first} to {last}",
    )  # fmt: skip
    return specification(chart)


def cost(table: pd.DataFrame, key: str, title: str, metric: str, *, percent: bool = True) -> dict[str, Any]:
    """A metric against a cost, a dot a setting; those of the Pareto front in colour, joined by a line.

    Args:
        table: setting, value, low, high, n, front (whether on it) and the cost.
        key: column of the cost; on a logarithmic axis.
        title: of that axis.
        metric: title of the axis of values.
        percent: whether the values are shares.
    """
    whole = bool((table[key] >= 1000).all())
    axis = alt.Axis(format="~s" if whole else "~g", tickCount=4, grid=False)
    x = alt.X(f"{key}:Q", title=title, axis=axis, scale=alt.Scale(type="log", nice=False, padding=14))
    y = alt.Y(
        "value:Q",
        title=metric,
        axis=alt.Axis(format=_axis(percent), tickCount=5),
        scale=alt.Scale(zero=False, padding=10),
    )
    figures = tooltips(_tooltip(percent), "value", "low", "high")
    base = alt.Chart(table).encode(x=x, y=y)
    front = base.transform_filter("datum.front").mark_line(interpolate="step-after", color=TRAIN, strokeWidth=1.5)
    colour = alt.condition("datum.front", alt.value(TRAIN), alt.value("#9aa0a8"))
    dots = base.mark_circle(size=60, opacity=0.9).encode(
        color=colour, tooltip=["setting:N", *figures, "n:Q", alt.Tooltip(f"{key}:Q", title=title, format=",.4~r")]
    )
    about = (
        f"{metric} against {title} of {len(table)} settings, {int(table['front'].sum())} of them on the Pareto front"
    )
    return specification(alt.layer(front, dots).properties(width="container", height=220, description=about))


def _axis(percent: bool) -> str:
    return "~%" if percent else "~r"


def _tooltip(percent: bool) -> str:
    return ".2%" if percent else ".4f"
