"""Numbers → charts, as Vega-Lite specifications: interactive in a page, PNG or SVG through vl-convert."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

TRAIN, VAL = "#3b76c4", "#e0762f"
_COLOURS = alt.Scale(domain=["train", "val"], range=[TRAIN, VAL])


def learning_curve(history: pd.DataFrame, measure: str, test_accuracy: float | None = None) -> dict[str, Any]:
    """Loss or accuracy of train and val images by epoch; the pointer reads the values of the nearest epoch.

    Args:
        history: a row an epoch with epoch, train_loss, val_loss, train_accuracy, val_accuracy.
        measure: "loss" or "accuracy".
        test_accuracy: a dashed line in the accuracy chart, where given.
    """
    titles = {"loss": ("loss (nats)", None), "accuracy": ("accuracy", "%")}
    return _specification(_curves(history, measure, *titles[measure], test_accuracy).properties(width="container"))


def _curves(history: pd.DataFrame, measure: str, title: str, form: str | None, test: float | None) -> alt.LayerChart:
    wide = history[["epoch", f"train_{measure}", f"val_{measure}"]]
    wide = wide.rename(columns={f"train_{measure}": "train", f"val_{measure}": "val"})
    long = wide.melt("epoch", var_name="images", value_name="value")
    near = alt.selection_point(nearest=True, on="pointerover", fields=["epoch"], empty=False)
    every = max(1, len(wide) // 10)
    ticks = alt.Axis(values=wide["epoch"].tolist()[every - 1 :: every], format="d", grid=False)
    x = alt.X("epoch:Q", title="epoch", axis=ticks, scale=alt.Scale(domainMin=1, nice=False))
    y = alt.Y("value:Q", title=title, axis=alt.Axis(format=form or alt.Undefined), scale=alt.Scale(zero=False))
    colour = alt.Color("images:N", scale=_COLOURS, legend=alt.Legend(title=None, orient="top", offset=2))
    base = alt.Chart(long).encode(x=x, y=y, color=colour)
    number = ".2%" if form else ".4f"
    rule = (
        alt.Chart(wide)
        .mark_rule(color="#8888", strokeWidth=1)
        .encode(
            x=x,
            opacity=alt.condition(near, alt.value(1), alt.value(0)),
            tooltip=["epoch:Q", *(alt.Tooltip(f"{name}:Q", format=number) for name in ("train", "val"))],
        )
        .add_params(near)
    )
    layers = [base.mark_line(strokeWidth=2), base.mark_point(filled=True, size=34).transform_filter(near), rule]
    if len(wide) == 1:
        layers[1] = base.mark_point(filled=True, size=60)
    if test is not None and measure == "accuracy":
        line = alt.Chart(pd.DataFrame({"value": [test], "what": [f"test {test:.2%}"]}))
        layers += [line.mark_rule(strokeDash=[5, 4], color="#888").encode(y="value:Q", tooltip="what:N")]
    return alt.layer(*layers).properties(height=230)


def reliability(bins: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy against confidence, one point a bin, its size the number of images; on the line a network is honest."""
    table = pd.DataFrame(list(bins))
    shares = alt.Scale(domain=[0, 1])
    axis = alt.Axis(format="%")
    points = (
        alt.Chart(table)
        .mark_circle(color=TRAIN, opacity=0.9)
        .encode(
            x=alt.X("confidence:Q", title="confidence", scale=shares, axis=axis),
            y=alt.Y("accuracy:Q", title="accuracy", scale=shares, axis=axis),
            size=alt.Size("images:Q", legend=None, scale=alt.Scale(range=[30, 500])),
            tooltip=[
                alt.Tooltip("confidence:Q", format=".1%"),
                alt.Tooltip("accuracy:Q", format=".1%"),
                alt.Tooltip("images:Q", format=","),
            ],
        )
    )
    honest = alt.Chart(pd.DataFrame({"x": [0, 1], "y": [0, 1]})).mark_line(
        strokeDash=[4, 4], color="#888", strokeWidth=1
    )
    chart = alt.layer(honest.encode(x="x:Q", y="y:Q"), points).properties(width="container", height=230)
    return _specification(chart)


def _specification(chart: alt.LayerChart) -> dict[str, Any]:
    with alt.data_transformers.enable("default", max_rows=None):  # a history may have thousands of epochs
        return chart.to_dict()


def chart_png(chart: dict[str, Any], scale: float = 2.0) -> bytes:
    """A chart as a PNG file."""
    import vl_convert

    fixed = {**chart, "width": 360} if chart.get("width") == "container" else chart
    return vl_convert.vegalite_to_png(fixed, scale=scale)


def vega_script() -> str:
    """Vega, Vega-Lite and vega-embed as one script, for pages that open without a network."""
    import vl_convert

    return vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub lacks the default
