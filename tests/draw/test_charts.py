import io
import re
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from convscope.draw import (
    changes,
    chart_png,
    cost,
    curves,
    histograms,
    learning_curve,
    moved,
    network_map,
    points,
    rate_curve,
    reliability,
    run_curves,
)
from tests.contrast import LEAST, contrast, mixed, rgb

HISTORY = pd.DataFrame({
    "epoch": [1, 2, 3], "train_loss": [2.0, 1.0, 0.5], "val_loss": [1.8, 1.1, 0.9],
    "train_accuracy": [0.3, 0.6, 0.8], "val_accuracy": [0.35, 0.6, 0.7],
})  # fmt: skip
AXES = ("x", "x2", "y", "y2")
LAYERS = [
    {"name": "conv1", "kind": "conv", "output_shape": [16, 32, 32], "parameters": 448, "receptive_field": 3},
    {"name": "body.<bn>", "kind": "batch_norm", "output_shape": [16, 32, 32], "parameters": 32, "receptive_field": 3},
    {"name": "flatten", "kind": "flatten", "output_shape": [16384], "parameters": 0, "receptive_field": 32},
    {"name": "fc1", "kind": "dense", "output_shape": [10], "parameters": 163850, "receptive_field": None},
]


def test_charts_become_pictures() -> None:
    bins = [{"images": 10, "accuracy": 0.5, "confidence": 0.6}]
    for chart in (learning_curve(HISTORY, "loss"), learning_curve(HISTORY, "accuracy", 0.65), reliability(bins)):
        image = Image.open(io.BytesIO(chart_png(chart)))
        assert image.width > 400
        assert len(image.convert("L").getcolors() or []) > 10


def test_a_chart_carries_every_value() -> None:
    text = str(learning_curve(HISTORY, "accuracy", 0.65))
    assert all(str(value) in text for value in (0.3, 0.35, 0.8, 0.7, 0.65))


def _rows(chart: dict[str, Any], *names: str) -> list[dict[str, Any]]:
    """The table of a chart that has these columns, and perhaps others."""
    [rows] = [rows for rows in chart["datasets"].values() if set(names) <= set(rows[0])]
    return rows


def _axes(layer: dict[str, Any]) -> dict[str, tuple[str, str | None]]:
    """Column and title of each axis of a layer."""
    return {name: (one["field"], one.get("title")) for name, one in layer["encoding"].items() if name in AXES}


def _centre(pixels: np.ndarray) -> tuple[float, float]:
    """Row and column of the middle of some pixels."""
    rows, columns = np.nonzero(pixels)
    assert len(rows) > 100
    return float(rows.mean()), float(columns.mean())


def _reddish(chart: dict[str, Any]) -> np.ndarray:
    """By how much red outweighs blue in each pixel of a chart."""
    shown = np.asarray(Image.open(io.BytesIO(chart_png(chart))).convert("RGB")).astype(int)
    return shown[..., 0] - shown[..., 2]


@pytest.mark.parametrize("measure", ["loss", "accuracy"])
def test_each_learning_curve_has_its_own_values_and_colour(measure: str) -> None:
    """Blue for the training images, orange for those of validation; also where the pointer reads them."""
    chart = learning_curve(HISTORY, measure)
    for split in ("train", "val"):
        expected = HISTORY[f"{split}_{measure}"].tolist()
        of_line = [row for row in _rows(chart, "images", "value") if row["images"] == split]
        assert [(row["epoch"], row["value"]) for row in of_line] == list(zip([1, 2, 3], expected, strict=True))
        assert [row[split] for row in _rows(chart, "train", "val")] == expected
    axis = chart["layer"][0]["encoding"]["y"]
    assert axis["title"].startswith(measure)
    assert axis["axis"].get("format") == ("%" if measure == "accuracy" else None)
    rising = pd.DataFrame({
        "epoch": [1, 2, 3], "train_loss": [9.0, 9.0, 9.0], "val_loss": [1.0, 1.0, 1.0],
        "train_accuracy": [0.9, 0.9, 0.9], "val_accuracy": [0.1, 0.1, 0.1],
    })  # fmt: skip
    reddish = _reddish(learning_curve(rising, measure))
    assert _centre(reddish < -60)[0] < _centre(reddish > 60)[0]  # train lies higher


def test_panels_of_several_runs_have_the_values_of_their_splits() -> None:
    history = HISTORY.assign(run="a")
    for split in ("train", "val"):
        rows = _rows(run_curves(history, "loss", (0.0, 2.0)), "images", "value")
        values = [row["value"] for row in rows if row["images"] == split]
        assert values == HISTORY[f"{split}_loss"].tolist()


def test_a_panel_has_every_epoch_of_many_long_runs() -> None:
    """51 runs of 50 epochs: more rows than Altair takes by itself."""
    history = pd.DataFrame({"run": np.repeat(np.arange(51), 50), "epoch": [*range(1, 51)] * 51})
    chart = run_curves(history.assign(train_loss=1.0, val_loss=1.0), "loss", (0.0, 2.0))
    assert len(_rows(chart, "images", "value")) == 51 * 50 * 2


def test_reliability_has_confidence_across_and_accuracy_up() -> None:
    chart = reliability([{"images": 10, "accuracy": 0.5, "confidence": 0.6}])
    assert _axes(chart["layer"][1]) == {"x": ("confidence", "confidence"), "y": ("accuracy", "accuracy")}


def test_cells_with_more_images_are_red_and_stand_in_the_row_of_the_true_class() -> None:
    """More cats taken for dogs: red at the top right; fewer dogs taken for cats: blue at the bottom left."""
    chart = moved([[0, 9], [-9, 0]], ["cat", "dog"])
    assert _axes(chart["layer"][0]) == {"x": ("predicted", "predicted class"), "y": ("true", "true class")}
    reddish = _reddish(chart)[:, :170]  # without the colour bar
    (row, column), (low_row, low_column) = _centre(reddish > 60), _centre(reddish < -60)
    assert (row < low_row, column > low_column) == (True, True)


def test_bands_and_intervals_reach_from_low_to_high() -> None:
    table = pd.DataFrame({"curve": ["a", "a"], "x": [1, 2], "value": [0.1, 0.2], "low": [0.0, 0.1], "high": [0.2, 0.3]})
    band, line = curves(table, "epoch", "accuracy")["layer"]
    assert _axes(band) == {"x": ("x", "epoch"), "y": ("low", "accuracy"), "y2": ("high", None)}
    assert _axes(line) == {"x": ("x", "epoch"), "y": ("value", "accuracy")}
    table = pd.DataFrame({"name": ["a"], "value": [0.1], "low": [-0.1], "high": [0.2]})
    _, interval, points = changes(table, "change of accuracy")["layer"]
    assert _axes(interval) == {
        "x": ("low", "change of accuracy"), "x2": ("high", None), "y": ("name", None),
    }  # fmt: skip
    assert _axes(points) == {"x": ("value", "change of accuracy"), "y": ("name", None)}
    assert points["encoding"]["x"]["axis"]["format"] == "+~%"  # shares, and small ones apart


def test_a_histogram_says_what_share_of_the_numbers_lies_in_each_bin() -> None:
    inf = float("inf")
    rows = _rows(histograms({"a": [1, 0, 6, 3], "b": [0, 2, 0, 0]}, [-inf, -1, 0, 1, inf]), "name", "share")
    assert [(row["name"], row["low"], row["high"], row["share"]) for row in rows] == [
        ("a", -2, -1, 0.1), ("a", 0, 1, 0.6), ("a", 1, 2, 0.3), ("b", -1, 0, 1.0),
    ]  # fmt: skip


def test_settings_on_the_pareto_front_are_blue_and_the_others_grey() -> None:
    """The front is at the top left, where little cost gives much."""
    table = pd.DataFrame({
        "setting": ["good", "bad"], "value": [0.9, 0.1], "low": [0.9, 0.1], "high": [0.9, 0.1], "n": [1, 1],
        "front": [True, False], "parameters": [1000, 9000],
    })  # fmt: skip
    chart = cost(table, "parameters", "parameters", "accuracy")
    assert _axes(chart["layer"][1]) == {"x": ("parameters", "parameters"), "y": ("value", "accuracy")}
    row, column = _centre(_reddish(chart) < -80)
    assert (row < 200, column < 360) == (True, True)  # of about 500 by 800 pixels


def test_stages_are_named_where_they_begin() -> None:
    chart = learning_curve(HISTORY.assign(stage=["frozen", "last block", "last block"]), "loss")
    [begun] = [rows for rows in chart["datasets"].values() if set(rows[0]) == {"stage", "epoch"}]
    assert begun == [{"stage": "frozen", "epoch": 1.0}, {"stage": "last block", "epoch": 1.5}]
    assert "frozen" not in str(learning_curve(HISTORY, "loss"))


def test_a_matrix_of_changes_has_its_figures_in_the_cells_of_few_classes_only() -> None:
    chart = moved([[-3, 3], [1, -1]], ["cat", "dog"])
    [rows] = chart["datasets"].values()
    assert rows[1] == {"true": "cat", "predicted": "dog", "images": 3}
    assert [layer["mark"]["type"] for layer in chart["layer"]] == ["rect", "text"]
    assert chart["layer"][0]["encoding"]["color"]["scale"]["domain"] == [-3, 3]
    many = moved([[0] * 13 for _ in range(13)], list("abcdefghijklm"))
    assert [layer["mark"]["type"] for layer in many["layer"]] == ["rect"]
    assert Image.open(io.BytesIO(chart_png(many))).width > 400


def test_curves_reach_as_far_as_they_are_told() -> None:
    table = pd.DataFrame({"curve": ["a", "a"], "x": [1, 2], "value": [0.1, 0.2], "low": [0.0, 0.1], "high": [0.2, 0.3]})
    told = curves(table, "x", "y", reach=(-0.2, 1.0))
    assert [layer["encoding"]["y"]["scale"]["domain"] for layer in told["layer"]] == [[-0.2, 1.0]] * 2
    assert all("scale" not in layer["encoding"]["y"] for layer in curves(table, "x", "y")["layer"])


def test_one_epoch_is_a_chart_too() -> None:
    assert chart_png(learning_curve(HISTORY[:1], "loss"))[:4] == b"\x89PNG"


def test_the_drawing_is_svg_with_a_slab_for_each_operation_that_computes() -> None:
    drawing = ElementTree.fromstring(network_map(LAYERS, (3, 32, 32)))
    slabs = [element for element in drawing.iter() if element.get("class", "").startswith("slab")]
    assert [slab.get("class") for slab in slabs] == ["slab input", "slab conv", "slab other", "slab dense"]
    labels = ["".join(element.itertext()) for element in drawing.iter() if element.tag.endswith("text")]
    assert labels == ["image", "3×32×32", "conv1", "16×32×32", "fc1", "10"]


def test_labels_do_not_touch() -> None:
    many = [{**LAYERS[0], "name": f"convolution{i}", "output_shape": [512, 128, 128]} for i in range(6)]
    drawing = ElementTree.fromstring(network_map(many, (3, 128, 128)))
    centres = [float(e.get("x", 0)) for e in drawing.iter() if e.tag.endswith("text") and e.get("class") is None]
    assert all(b - a > 6 * len("convolution0") for a, b in pairwise(centres[1:]))


RED_TO_BLUE = (
    "67001f",
    "b2182b",
    "d6604d",
    "f4a582",
    "fddbc7",
    "f7f7f7",
    "d1e5f0",
    "92c5de",
    "4393c3",
    "2166ac",
    "053061",
)


def test_figures_of_a_matrix_are_read_on_every_colour() -> None:
    """The colours of Vega's scheme are ColorBrewer's RdBu; from its middle on, for 0, the blue ones are of fewer images."""
    layers = moved([[0, 100], [-100, 0]], ["a", "b"])["layer"]
    colour = layers[1]["encoding"]["color"]
    above, below = map(float, re.findall(r"-?[\d.]+", colour["condition"]["test"].replace("datum.images", "")))
    assert (colour["condition"]["value"], colour["value"]) == ("white", "black")
    for images in range(-100, 101):
        place = 5 - images / 20
        first = min(9, int(place))
        ground = mixed(rgb(f"#{RED_TO_BLUE[first + 1]}"), rgb(f"#{RED_TO_BLUE[first]}"), place - first)
        ink = [255.0] * 3 if images > above or images < below else [0.0] * 3
        assert contrast(ink, ground) >= LEAST, images


def test_a_description_says_the_first_and_the_last_epoch() -> None:
    assert learning_curve(HISTORY, "accuracy")["description"] == (
        "accuracy by epoch: train 30.00% at epoch 1 and 80.00% at epoch 3; val 35.00% at epoch 1 and 70.00% at epoch 3"
    )
    assert learning_curve(HISTORY.head(1), "loss")["description"].endswith(
        "train 2.0000 at epoch 1; val 1.8000 at epoch 1"
    )


def test_the_axes_of_a_learning_curve_reach_from_the_lowest_to_the_highest() -> None:
    """Also where an epoch diverged, and to the test's accuracy."""
    history = HISTORY.assign(train_loss=[2.0, np.inf, np.nan])
    for chart, domain in (
        (learning_curve(history, "loss"), [0.9, 2.0]),
        (learning_curve(HISTORY, "accuracy", 0.95), [0.3, 0.95]),
    ):
        line = next(layer for layer in chart["layer"] if layer["mark"]["type"] == "line")
        assert line["encoding"]["y"]["scale"]["domain"] == domain
        assert line["encoding"]["x"]["scale"]["domain"] == [1.0, 3.0]


def test_a_range_test_shows_the_steps_the_smoothed_loss_and_the_rate_that_was_chosen() -> None:
    table = pd.DataFrame({"rate": [1e-3, 1e-2, 1e-1], "loss": [2.0, 1.0, 9.0], "smoothed": [2.0, 1.5, 3.0]})
    chart = rate_curve(table, 0.0025)
    assert "chosen is 0.0025" in chart["description"]
    assert [layer["mark"]["type"] for layer in chart["layer"]] == ["circle", "line", "rule", "text"]
    assert all(layer["encoding"]["x"]["scale"]["type"] == "log" for layer in chart["layer"])
    assert chart["layer"][1]["encoding"]["y"]["scale"]["domain"] == pytest.approx([1.275, 3.0])  # 9 is beyond it
    assert chart_png(chart).startswith(b"\x89PNG")


def test_points_of_more_than_ten_classes_differ_by_colour_or_shape() -> None:
    classes = [f"class {k}" for k in range(23)]
    table = pd.DataFrame({"x": range(23), "y": range(23), "class": classes})
    encoding = points(table, classes)["encoding"]
    drawn = list(zip(encoding["color"]["scale"]["range"], encoding["shape"]["scale"]["range"], strict=True))
    assert len(set(drawn)) == 23
    assert len(set(encoding["color"]["scale"]["range"])) == 10
    assert encoding["color"]["scale"]["domain"] == classes
    assert min(contrast(rgb(one), rgb("#ffffff")) for one in encoding["color"]["scale"]["range"]) >= 3
