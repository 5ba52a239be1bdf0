"""Tensors and tables → pictures, charts and drawings. Knows no other room: it takes numbers and gives what one can see."""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.draw.charts import (
        changes,
        chart_picture,
        chart_png,
        curves,
        histograms,
        learning_curve,
        moved,
        points,
        rate_curve,
        reliability,
        vega_script,
    )
    from convscope.draw.heatmaps import Scale, coloured, framed, on_image, overlay, panel, remarked, scale_of
    from convscope.draw.network_map import network_map
    from convscope.draw.pictures import (
        Picture,
        enlarge,
        enlarge_to,
        filter_picture,
        map_picture,
        photo,
        picture,
        png,
        sheet,
        signed_picture,
        tinted_picture,
    )
    from convscope.draw.studies import cost, run_curves, spread
else:
    load_when_used(__name__)

__all__ = [
    "Picture",
    "Scale",
    "changes",
    "chart_picture",
    "chart_png",
    "coloured",
    "cost",
    "curves",
    "enlarge",
    "enlarge_to",
    "filter_picture",
    "framed",
    "histograms",
    "learning_curve",
    "map_picture",
    "moved",
    "network_map",
    "on_image",
    "overlay",
    "panel",
    "photo",
    "picture",
    "png",
    "points",
    "rate_curve",
    "reliability",
    "remarked",
    "run_curves",
    "scale_of",
    "sheet",
    "signed_picture",
    "spread",
    "tinted_picture",
    "vega_script",
]
