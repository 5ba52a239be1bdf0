import io
from itertools import pairwise
from xml.etree import ElementTree

import pandas as pd
from PIL import Image

from convscope.draw import chart_png, curves, learning_curve, moved, network_map, reliability

HISTORY = pd.DataFrame({
    "epoch": [1, 2, 3], "train_loss": [2.0, 1.0, 0.5], "val_loss": [1.8, 1.1, 0.9],
    "train_accuracy": [0.3, 0.6, 0.8], "val_accuracy": [0.35, 0.6, 0.7],
})  # fmt: skip
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
