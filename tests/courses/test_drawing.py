"""Pictures of worked examples: every number that belongs there stands there, once."""

import re
from collections import Counter
from xml.etree import ElementTree

import numpy as np

from convscope import courses

SVG = "{http://www.w3.org/2000/svg}"


def _texts(drawing: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(drawing).iter(f"{SVG}text")]


def test_a_window_shows_input_filter_products_sums_and_output() -> None:
    image, weight = np.arange(11.0, 20).reshape(3, 3), np.array([[2.0, 3], [5, 7]])
    found = courses.worked_conv(image, weight, [0.5])
    texts = _texts(courses.worked_drawing(found, [found.window(0, 0, 1)]))
    products = [12 * 2, 13 * 3, 15 * 5, 16 * 7]
    before = 11 * 2 + 12 * 3 + 14 * 5 + 15 * 7 + 0.5
    shown = [*range(11, 20), 2, 3, 5, 7, *products, sum(products), before, sum(products) + 0.5]
    numbers = [text for text in texts if re.fullmatch(r"[\d.]+", text)]
    assert Counter(numbers) == Counter(f"{value:g}" for value in shown)
    assert f"{sum(products)} + 0.5 = {sum(products) + 0.5}" in texts


def test_the_frame_lies_about_what_the_window_reads() -> None:
    """Cell (0, 0) of the input is the first rectangle behind the ground; the frame's place and size are counted in cells."""
    found = courses.worked_conv(np.ones((5, 6)), np.ones((2, 3)), dilation=(2, 1))
    boxes = [
        rect.attrib
        for rect in ElementTree.fromstring(courses.worked_drawing(found, [found.window(0, 1, 2)])).iter(f"{SVG}rect")
    ]
    first, frame = boxes[1], next(box for box in boxes if box.get("fill") == "none")
    side = {"x": float(first["width"]), "y": float(first["height"])}
    assert (float(frame["y"]) - float(first["y"])) / side["y"] == 1
    assert (float(frame["x"]) - float(first["x"])) / side["x"] == 2
    assert (float(frame["height"]) / side["y"], float(frame["width"]) / side["x"]) == (3, 3)


def test_what_does_not_fit_is_said() -> None:
    large = courses.worked_conv(np.zeros((9, 40, 40)), np.ones((1, 9, 2, 2)))
    texts = _texts(courses.worked_drawing(large))
    assert "the first 16 of 1521 windows" in texts
    assert "the first 8 of 9 channels" in texts
    assert "of the input only what lies about the window" in texts


def test_a_notebook_is_given_a_png() -> None:
    for name, pool in (("report-e", None), ("report-e", "max"), ("upsample", None)):
        assert courses.worked_example(name, pool=pool)._repr_png_().startswith(b"\x89PNG")


def test_every_number_lies_on_the_paper() -> None:
    for settings in ({}, {"padding": 3, "dilation": 2}, {"pool": "average", "padding": 1}, {"bias": "1000.5"}):
        root = ElementTree.fromstring(courses.worked_drawing(courses.worked_example("report-e", **settings)))
        width, height = float(root.get("width", 0)), float(root.get("height", 0))
        for text in root.iter(f"{SVG}text"):
            assert 0 < float(text.get("x", 0)) < width
            assert 0 < float(text.get("y", 0)) < height
