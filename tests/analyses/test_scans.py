"""Scans of a run's test images as pictures and tables."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from convscope.analyses import look, look_at, open_subject
from convscope.analyses.catalogue.filter_effects import largest_loss
from convscope.analyses.catalogue.statistics import notable_units
from convscope.analyses.catalogue.top_patches import patch_square
from convscope.draw import picture, sheet
from convscope.edits import apply
from convscope.errors import RequestError, SettingError, UnknownNameError
from convscope.nets import build_net
from convscope.runs import Run
from convscope.scope import Scope
from tests.analyses.kinds import SCANS
from tests.lenses.lens_networks import evaluated, replaced


@pytest.mark.parametrize("scan", SCANS)
def test_every_scan_gives_a_picture_and_a_table(reported: Run, scan: str) -> None:
    test = reported.load_data().test
    few = None if scan in ("top_patches", "statistics", "ablate") else 30
    edit = [["rotate", 15]] if scan == "edit_effect" else None
    layer = "conv1" if scan == "top_patches" else None
    found = look(Scope(reported), scan, test=test, edit=edit, layer=layer, images=few)
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
    found = look(Scope(reported), "top-patches", test=reported.load_data().test, layer="conv1", unit=2, top=6)
    assert found.heading.startswith("unit 2 of conv1: response ")
    assert set(found.table["unit"]) == {2}
    assert len(found.table) <= 6


def test_a_unit_that_never_fires_says_so(reported: Run) -> None:
    scope = Scope(reported).ablate({"conv1": [0]})
    found = look(scope, "top_patches", test=reported.load_data().test, layer="conv1", unit=0)
    assert found.table is not None
    assert found.table.empty
    sheet = look(scope, "top_patches", test=reported.load_data().test, layer="conv1")
    assert sheet.heading == "strongest patches of conv1: 8 of 8 units, nine each"


def test_units_that_stand_out_are_named(reported: Run) -> None:
    """Of three planted ones: one without weights, a copy of another, one that a large bias keeps on."""
    trained, test = Scope(reported), reported.load_data().test
    channels, height, width = trained.input_shape
    torch.manual_seed(0)  # or else the other units may stand out too
    conv = torch.nn.Conv2d(channels, 8, 3)
    with torch.no_grad():
        conv.weight[5], conv.bias[5] = 0, -1
        conv.weight[7], conv.bias[7] = conv.weight[6], conv.bias[6]
        conv.weight[2], conv.bias[2] = 0, 100
    classify = torch.nn.Linear(8 * (height - 2) * (width - 2), len(trained.classes))
    layers = {"conv1": conv, "relu1": torch.nn.ReLU(), "flatten": torch.nn.Flatten(), "fc1": classify}
    scope = Scope(torch.nn.Sequential(OrderedDict(layers)), torch.zeros(1, channels, height, width), trained.classes)
    found = look(scope, "statistics", test=test, layer="conv1")
    assert found.heading.startswith("8 units of 1 layer; dead: 1 (conv1 5); always on: 1 (conv1 2); pairs alike: ")
    assert "conv1 6 and 7 (1.00)" in found.heading
    assert found.table["best_class"][5] == "none"
    assert set(found.table["best_class"]) <= {"none", *trained.classes}


def test_a_long_list_of_units_is_cut() -> None:
    conv = torch.nn.Conv2d(1, 6, 3)
    with torch.no_grad():
        conv.weight[:5], conv.bias[:5] = 0, -1
        conv.weight[5], conv.bias[5] = 1, 0
    layers = {"conv1": conv, "relu1": torch.nn.ReLU(), "flatten": torch.nn.Flatten()}
    scope = Scope(torch.nn.Sequential(OrderedDict(layers)), torch.zeros(1, 1, 6, 6))
    said = notable_units(scope.statistics(torch.linspace(0.1, 1, 72).view(2, 1, 6, 6), ["conv1"]))
    names = "conv1 0, conv1 1, conv1 2, conv1 3, …"
    assert said == f"dead: 5 ({names}); always on: 1 (conv1 5); pairs alike: 0"


def test_ablate_by_itself_asks_a_layer_of_one_unit_for_one(reported: Run) -> None:
    trained, test = Scope(reported), reported.load_data().test
    channels, height, width = trained.input_shape
    classify = torch.nn.Linear(3 * height * width, len(trained.classes))
    layers = {
        "conv1": torch.nn.Conv2d(channels, 1, 1),
        "conv2": torch.nn.Conv2d(1, 3, 1),
        "flatten": torch.nn.Flatten(),
        "fc": classify,
    }
    scope = Scope(torch.nn.Sequential(OrderedDict(layers)), torch.zeros(1, channels, height, width), trained.classes)
    assert ", conv1: 0; conv2: 0, 1: accuracy" in look(scope, "ablate", test=test, images=9).heading


def test_tables_are_those_of_the_scan(reported: Run) -> None:
    scope, test = Scope(reported), reported.load_data().test
    found = look(scope, "statistics", test=test)
    expected = scope.statistics(test, ["conv"])["conv1"].table()
    assert (found.table["mean"].to_numpy() == expected["mean"].to_numpy()).all()
    rows = torch.linspace(0, len(test) - 1, 5).long()
    shown = look(scope, "faithfulness", test=test, method="saliency", images=5).table
    curves = scope.faithfulness("saliency", test.images(rows))
    deleted = shown[shown["curve"] == "deleted"]["value"].to_numpy()
    assert deleted == pytest.approx([one.value for one in curves.course(curves.deletion)])


def test_switching_units_off_is_told_by_class_and_by_unit(reported: Run) -> None:
    scope, test = Scope(reported), reported.load_data().test
    together = look(scope, "ablate", test=test, units={"conv1": [0, 3]}, how="zero_weights")
    edited = scope.ablate({"conv1": [0, 3]}).probabilities(test.images()).argmax(1)
    right = float((edited == test.targets_of("class")).float().mean())
    assert together.table.iloc[-1]["after"] == pytest.approx(right)
    assert f"{100 * right:.2f} % after" in together.heading
    each = look(scope, "filter-effects", test=test, images=len(test), how="zero-weights")
    assert set(each.table["off"]) == {"weights 0"}
    assert "(weights and bias 0)" in each.heading
    alone = scope.ablate({"conv1": [3]}).probabilities(test.images()).argmax(1)
    assert each.table["accuracy"][3] == pytest.approx(float((alone == test.targets_of("class")).float().mean()))
    assert each.table["change"].is_monotonic_increasing  # the worst first
    worst = each.table.iloc[0]
    said = (
        f"accuracy falls most without unit {worst['unit']} of {worst['layer']}, by {-100 * worst['change']:.1f} points"
    )
    assert each.heading.endswith(said if worst["change"] < 0 else "none of them lowers the accuracy")


@pytest.mark.parametrize("how", [None, "mean_activation"])
def test_units_are_switched_off_where_the_next_layer_reads_them(reported: Run, how: str | None) -> None:
    """Against hooks on the ReLU, behind the batch norm."""
    scope, test = Scope(reported), reported.load_data().test
    images, labels = test.images(), test.targets_of("class")
    seen: list[torch.Tensor] = []
    with scope.net.relu1.register_forward_hook(lambda module, inputs, output: seen.append(output)):
        scope.net(scope.prepare(images))
    means = seen[0].mean((0, 2, 3)).tolist() if how else [0.0] * 8
    each = look(scope, "filter_effects", test=test, images=len(test), how=how)
    assert each.table is not None
    assert set(each.table["layer"]) == {"conv1"}
    assert set(each.table["off"]) == {"mean in relu1" if how else "0 in relu1"}
    for unit in range(8):
        with replaced(scope.net, "relu1", {unit: means[unit]}):
            after = scope.net(scope.prepare(images)).softmax(1)
        row = each.table.loc[unit]
        assert row["accuracy"] == pytest.approx(float((after.argmax(1) == labels).float().mean()))
        assert row["probability"] == pytest.approx(float(after.gather(1, labels[:, None]).mean()), abs=1e-6)
    weights = look(scope, "filter_effects", test=test, images=len(test), how="zero_weights").table
    assert abs(weights["probability"] - each.table["probability"]).max() > 1e-3
    together = look(scope, "ablate", test=test, units={"conv1": [0, 1, 3]}, how=how)
    assert together.table is not None
    with replaced(scope.net, "relu1", {unit: means[unit] for unit in (0, 1, 3)}):
        after = scope.net(scope.prepare(images)).argmax(1)
    right = float((after == labels).float().mean())
    assert together.table.iloc[-1]["after"] == pytest.approx(right)
    said = "mean behind the ReLU" if how else "0 behind the ReLU"
    assert together.heading.startswith(f"ablation ({said}), conv1: 0, 1, 3: accuracy ")
    assert f"{100 * right:.2f} % after" in together.heading


def test_without_a_relu_a_unit_is_switched_off_where_it_is_read(reported: Run) -> None:
    """In the batch norm where one follows, else in what the layer gives."""
    test, trained = reported.load_data().test, Scope(reported)
    net = build_net("c6bl c6l M f8", classes=3, channels=3, image_size=8)
    evaluated(net)
    scope = Scope(net, torch.zeros(1, *trained.input_shape), trained.classes)
    images, labels = test.images(), test.targets_of("class")
    found = look(scope, "filter_effects", test=test, images=len(test))
    assert "(0 behind the batch norm, where one follows)" in found.heading
    table = found.table
    assert table is not None
    for layer, at in (("conv1", "bn1"), ("conv2", "conv2")):
        rows = table[table["layer"] == layer].set_index("unit")
        assert set(rows["off"]) == {f"0 in {at}"}
        for unit in range(6):
            with replaced(net, at, {unit: 0}):
                after = net(images).softmax(1)
            expected = float(after.gather(1, labels[:, None]).mean())
            assert rows.loc[unit, "probability"] == pytest.approx(expected, abs=1e-6)
    last = look(scope, "ablate", test=test, units={"fc2": [1]})
    assert "(0 in place of what the layer gives)" in last.heading
    with replaced(net, "fc2", {1: 0}):
        right = float((net(images).argmax(1) == labels).float().mean())
    assert f"{100 * right:.2f} % after" in last.heading


def test_a_screen_measures_the_units_that_it_names_and_says_so(reported: Run) -> None:
    scope, test = Scope(reported), reported.load_data().test
    found = look(scope, "filter_effects", test=test, images=15, screen=3)
    rows = torch.linspace(0, len(test) - 1, 15).long()
    screened = scope.filter_effects(test.subset(rows), ["relu1"], "zero_activation", screen=3)["relu1"]
    assert sorted(found.table["unit"]) == screened.measured.nonzero()[:, 0].tolist()
    said = (
        "3 of 8 units ablated, each alone (0 behind the ReLU), in each layer the 3 that an estimate names first, on 15 "
    )
    assert found.heading.startswith(said)
    assert found.table["estimate"].min() >= screened.estimate[~screened.measured].max()


def test_only_a_loss_is_called_one() -> None:
    ranked = pd.DataFrame({"layer": ["b", "a"], "unit": [7, 1], "change": [-0.0312, 0.2]})
    assert largest_loss(ranked) == "accuracy falls most without unit 7 of b, by 3.1 points"
    assert largest_loss(ranked.tail(1)) == "none of them lowers the accuracy"


def test_the_effect_of_an_edit_is_told_with_the_images_that_change_most(reported: Run) -> None:
    scope, test = Scope(reported), reported.load_data().test
    wanted = [["rectangle", [0, 0, 4, 8], "grey"], ["paste", 20, [4, 0, 4, 8], [0, 0]]]
    found = look(scope, "edit_effect", test=test, edit=wanted, images=21)
    rows = torch.linspace(0, len(test) - 1, 21).long()
    images = test.images(rows)
    edited, labels = apply(images, wanted, test.images()), test.targets_of()[rows]
    before, after = (scope.probabilities(shown) for shown in (images, edited))
    was, now = (float((each.argmax(1) == labels).double().mean()) for each in (before, after))
    said = "grey rectangle 4×8 at 0, 0; 4×8 px of image 20 from 4, 0 pasted at 0, 0: accuracy of 21 test images "
    assert found.heading.startswith(f"{said}{100 * was:.2f} → {100 * now:.2f} %, difference ")
    assert found.table is not None
    assert found.table.iloc[-1]["difference"] == pytest.approx(now - was)
    change = (after - before).gather(1, labels[:, None])[:, 0].abs()
    flips = before.argmax(1) != after.argmax(1)
    first = int((change + 2 * flips).argmax())
    names = [scope.classes[int(k)] for k in (labels[first], before[first].argmax(), after[first].argmax())]
    line, shown = found.figures[0]
    assert line == "{}, {}: {} → {}".format(int(rows[first]), *names)
    assert (shown == sheet([picture(images[first]), picture(edited[first])], columns=2)).all()
    assert len(found.figures) == 8
    assert found.remark is not None
    assert found.remark.startswith(f"{int(flips.sum())} are predicted as another class: ")


def test_fewer_images_for_ablate_lie_evenly(reported: Run) -> None:
    test = reported.load_data().test
    found = look(Scope(reported), "ablate", test=test, units={"conv1": [0]}, images=9)
    expected = torch.bincount(test.targets_of("class")[torch.linspace(0, len(test) - 1, 9).long()], minlength=3)
    assert found.table["images"].tolist() == [*expected.tolist(), 9]


def test_invariance_is_that_of_what_the_next_layer_reads(reported: Run) -> None:
    scope, test = Scope(reported), reported.load_data().test
    found = look(scope, "invariance", test=test, images=4)
    assert set(found.table["curve"]) == {"relu1"}
    images = test.images(torch.linspace(0, len(test) - 1, 4).long())
    assert torch.equal(found.tensors["distance"], scope.invariance(images, ["relu1"]).distance)
    assert look(scope, "invariance", test=test, images=1).heading.startswith("invariance on 1 test image:")


def test_a_network_without_convolutions_is_asked_for_its_layers(reported: Run) -> None:
    test = reported.load_data().test
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
    scope = Scope(net, torch.zeros(1, 3, 8, 8), ("a", "b", "c"))
    for scan, expected in (("invariance", "name layers with --layer"), ("ablate", "name units with --units")):
        with pytest.raises(RequestError, match=f"this network has no convolution; {expected}"):
            look(scope, scan, test=test)


def test_a_verdict_is_said_once(reported: Run) -> None:
    test = reported.load_data().test
    for scan in ("faithfulness", "randomization"):
        one = look(Scope(reported), scan, test=test, method="saliency", images=1)  # without an interval
        assert one.heading.count("1 ") == 1
        found = look(Scope(reported), scan, test=test, method="saliency", images=6)
        assert found.heading.count("6 ") == 1
        assert found.heading.count("saliency") == 1


@pytest.mark.parametrize(
    ("arguments", "error", "expected"),
    [
        ({"lens": "edit_effect"}, SettingError, "^--edit: edit_effect needs one$"),
        ({"lens": "edit_effect", "edit": "[[]]"}, SettingError, r"^edit 1: \[\]; expected a list that begins with"),
        ({"lens": "top-patches"}, SettingError, "--layer: top_patches needs one"),
        ({"lens": "top-patches", "layer": "conv7"}, UnknownNameError, "layer 'conv7' is not in this network"),
        ({"lens": "top-patches", "layer": "conv1", "unit": 8}, RequestError, "unit 8 is not in layer 'conv1'"),
        ({"lens": "faithfulness", "method": "grad_cm"}, UnknownNameError, "attribution lens 'grad_cm'"),
        ({"lens": "ablate", "units": "conv1"}, SettingError, "--units conv1: expected layers with their units"),
        ({"lens": "ablate", "units": "conv1:²"}, SettingError, "--units conv1:²: expected layers with their units"),
        ({"lens": "ablate", "units": "conv1:9"}, RequestError, "unit 9 is not in layer 'conv1'; it has 0 to 7"),
        (
            {"lens": "ablate", "units": "pool1:0", "how": "zero_weights"},
            UnknownNameError,
            "layer with filters of its own 'pool1'",
        ),
        ({"lens": "ablate", "units": "conv7:0"}, UnknownNameError, "layer 'conv7' is not in this network"),
        (
            {"lens": "ablate", "how": "zero-weight"},
            SettingError,
            "^--how zero-weight: expected zero_activation, mean_activation or zero_weights$",
        ),
        ({"lens": "filter_effects", "how": "off"}, SettingError, "--how off: expected zero_activation, "),
        (
            {"lens": "filter_effects", "screen": 0},
            SettingError,
            "^--screen 0: Input should be greater than or equal to 1$",
        ),
        ({"lens": "ablate", "screen": 2}, SettingError, "--screen: ablate has no such setting"),
        ({"lens": "statistics", "how": "zero_weights"}, SettingError, "--how: statistics has no such setting"),
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


def test_a_projection_names_the_images_and_says_what_it_keeps(reported: Run) -> None:
    scope, test = Scope(reported), reported.load_data().test
    rows = torch.linspace(0, len(test) - 1, 21).long()
    expected = scope.projection(test.subset(rows), "conv1")
    found = look(scope, "projection", test=test, layer="conv1", images=21)
    assert found.table is not None
    assert list(found.table) == ["index", "class", "x", "y"]
    assert found.table["index"].tolist() == rows.tolist()
    assert found.table["class"].tolist() == [test.classes["class"][k] for k in test.targets_of()[rows]]
    assert found.table[["x", "y"]].to_numpy().tolist() == expected.points.tolist()
    assert found.tensors["index"].equal(rows)
    assert found.heading.startswith("PCA of 21 test images, by the features of conv1; the picture keeps ")
    assert f"{100 * expected.kept:.1f} %" in found.heading
    with pytest.raises(SettingError, match=r"^--method umap: Input should be 'pca' or 'tsne'$"):
        look(scope, "projection", test=test, method="umap")
