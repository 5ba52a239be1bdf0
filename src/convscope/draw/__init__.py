"""Tensors and tables → pictures, charts and drawings. Knows no other room: it takes numbers and gives what one can see."""

from convscope.draw.charts import chart_png, learning_curve, reliability, vega_script
from convscope.draw.network_map import network_map
from convscope.draw.pictures import (
    Picture,
    data_uri,
    enlarge,
    filter_picture,
    map_picture,
    picture,
    png,
    sheet,
    signed_picture,
    tinted_picture,
)

__all__ = [
    "Picture",
    "chart_png",
    "data_uri",
    "enlarge",
    "filter_picture",
    "learning_curve",
    "map_picture",
    "network_map",
    "picture",
    "png",
    "reliability",
    "sheet",
    "signed_picture",
    "tinted_picture",
    "vega_script",
]
