"""Scans of a run's test images as pictures and tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from convscope.errors import RequestError, SettingError, UnknownNameError
from convscope.looks import SCANS, Asked, look, look_at, open_subject
from convscope.looks.scanned import patch_square
from convscope.runs import Run
from convscope.scope import Scope


@pytest.mark.parametrize("scan", SCANS)
def test_every_scan_gives_a_picture_and_a_table(reported: Run, scan: str) -> None:
    test = reported.load_data().test
    few = None if scan in ("top_patches", "statistics") else 4
    found = look(Scope(reported), scan, Asked(test=test, layer="conv1" if scan == "top_patches" else None, n=few))
    assert found.picture.dtype == np.uint8
    assert min(found.picture.shape[:2]) >= 100
    assert len(np.unique(found.picture.reshape(-1, 3), axis=0)) > 20
    assert found.table is not None
    assert len(found.table) > 0


def test_the_patches_on_a_sheet_are_those_of_the_scan(reported: Run) -> None:
    scope, test = Scope(reported), reported.load_data().test
    found = scope.top_patches(test, ["conv1"], top=9)["conv1"]
    unit = int(found.fired.nonzero()[0])
    square = patch_square(found, test, unit)
    row, box = int(found.index[unit, 0]), found.box[unit, 0].tolist()
    patch = test[row][0][:, box[0] : box[2], box[1] : box[3]]
    expected = (patch * 255).round().byte().expand(3, -1, -1).permute(1, 2, 0).numpy()
    side = (square.shape[0] - 2) // 3
    top, left = ((side - n) // 2 for n in expected.shape[:2])
    assert (square[top : top + expected.shape[0], left : left + expected.shape[1]] == expected).all()


def test_one_unit_shows_its_images_and_its_rows_alone(reported: Run) -> None:
    found = look(Scope(reported), "top-patches", Asked(test=reported.load_data().test, layer="conv1", unit=2, top=6))
    assert found.heading.startswith("unit 2 of conv1: response ")
    assert set(found.table["unit"]) == {2}
    assert len(found.table) <= 6


def test_a_unit_that_never_fires_says_so(reported: Run) -> None:
    scope = Scope(reported).ablate({"conv1": [0]})
    found = look(scope, "top_patches", Asked(test=reported.load_data().test, layer="conv1", unit=0))
    assert found.table is not None
    assert found.table.empty
    sheet = look(scope, "top_patches", Asked(test=reported.load_data().test, layer="conv1"))
    assert sheet.heading == "strongest patches of conv1: 8 of 8 units, nine each"


def test_tables_are_those_of_the_scan(reported: Run) -> None:
    scope, test = Scope(reported), reported.load_data().test
    found = look(scope, "statistics", Asked(test=test))
    expected = scope.statistics(test, ["conv"])["conv1"].table()
    assert (found.table["mean"].to_numpy() == expected["mean"].to_numpy()).all()
    rows = torch.linspace(0, len(test) - 1, 5).long()
    shown = look(scope, "faithfulness", Asked(test=test, method="saliency", n=5)).table
    curves = scope.faithfulness("saliency", test.images(rows))
    deleted = shown[shown["curve"] == "deleted"]["value"].to_numpy()
    assert deleted == pytest.approx([one.value for one in curves.course(curves.deletion)])


@pytest.mark.parametrize(
    ("arguments", "error", "expected"),
    [
        ({"lens": "top-patches"}, SettingError, "--layer: top_patches needs one"),
        ({"lens": "top-patches", "layer": "conv7"}, UnknownNameError, "layer 'conv7' is not in this network"),
        ({"lens": "top-patches", "layer": "conv1", "unit": 8}, RequestError, "unit 8 is not in layer 'conv1'"),
        ({"lens": "faithfulness", "method": "grad_cm"}, UnknownNameError, "attribution lens 'grad_cm'"),
        ({"lens": "statistics", "unit": 1}, SettingError, "--unit: statistics has no such setting"),
        ({"lens": "grad_cam", "image": "0", "top": 3}, SettingError, "--top: grad_cam has no such setting"),
    ],
)
def test_wrong_requests_write_nothing(
    reported: Run, tmp_path: Path, arguments: dict[str, object], error: type, expected: str
) -> None:
    with pytest.raises(error, match=expected):
        look_at(open_subject(reported.path), **arguments, out=tmp_path / "out.png")
    assert not list(tmp_path.iterdir())


def test_a_network_that_is_no_run_has_no_test_images() -> None:
    with pytest.raises(SettingError, match="statistics looks at the test images of a run; give a run's folder"):
        look_at(open_subject(net="lenet5"), "statistics")
