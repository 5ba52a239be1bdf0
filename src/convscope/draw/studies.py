"""Runs of a study → charts: learning curves of several runs, spread over seeds, accuracy against cost."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from convscope.draw.charts import TRAIN, VAL

_SPLITS = alt.Scale(domain=["train", "val"], range=[TRAIN, VAL])
_LOW_PANEL, _MOST_TICKS = 150, 8


def run_curves(history: pd.DataFrame, measure: str, reach: tuple[float, float]) -> dict[str, Any]:
    """Train and val curves of several runs, a line each; the pointer names the run and reads its values.

    Args:
        history: a row a run and epoch: run, epoch, and train_ and val_ of the measure.
        measure: "loss" or "accuracy".
        reach: of the axis, the same for all panels that are compared.
    """
    names = {f"{split}_{measure}": split for split in ("train", "val")}
    long = history.melt(["run", "epoch"], list(names), "images", "value").replace({"images": names}).dropna()
    form, axis = (".4f", alt.Undefined) if measure == "loss" else (".2%", "%")
    last = int(history["epoch"].max()) if len(history) else 1
    ticks = alt.Axis(format="d", grid=False, values=list(range(1, last + 1, -(-last // _MOST_TICKS))))
    base = alt.Chart(long).encode(
        x=alt.X("epoch:Q", title="epoch", axis=ticks, scale=alt.Scale(nice=False)),
        y=alt.Y("value:Q", title=None, axis=alt.Axis(format=axis, tickCount=4), scale=alt.Scale(domain=list(reach))),
        color=alt.Color("images:N", scale=_SPLITS, legend=None),
        detail="run:N",
        tooltip=["run:N", "images:N", "epoch:Q", alt.Tooltip("value:Q", title=measure, format=form)],
    )
    line = base.mark_line(strokeWidth=1.5, opacity=0.8)
    points = base.mark_circle(size=22 if last > 1 else 40, opacity=0.8)
    return alt.layer(line, points).properties(width="container", height=_LOW_PANEL).to_dict()
