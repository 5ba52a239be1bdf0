"""Tensors and tables → pictures, charts and drawings. Knows no other room: it takes numbers and gives what one can see."""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.draw.charts import (
        changes as changes,
        chart_picture as chart_picture,
        chart_png as chart_png,
        curves as curves,
        histograms as histograms,
        learning_curve as learning_curve,
        moved as moved,
        points as points,
        rate_curve as rate_curve,
        reliability as reliability,
        vega_script as vega_script,
    )
    from convscope.draw.heatmaps import (
        Scale as Scale,
        coloured as coloured,
        framed as framed,
        on_image as on_image,
        overlay as overlay,
        panel as panel,
        remarked as remarked,
        scale_of as scale_of,
    )
    from convscope.draw.network_map import network_map as network_map
    from convscope.draw.pictures import (
        Picture as Picture,
        enlarge as enlarge,
        enlarge_to as enlarge_to,
        filter_picture as filter_picture,
        map_picture as map_picture,
        photo as photo,
        picture as picture,
        png as png,
        sheet as sheet,
        shrink_to as shrink_to,
        signed_picture as signed_picture,
        tinted_picture as tinted_picture,
    )
    from convscope.draw.studies import cost as cost, run_curves as run_curves, spread as spread
else:
    load_when_used(__name__)
