"""The lab's answers against `Scope` on the edited image, to the bit, over a real socket."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convscope import edits
from convscope.app import ExploredRun, routes
from convscope.app.lab import LIVE_LENSES, Lab, LabRequest
from convscope.data import load_data
from convscope.errors import FailedError, RequestError, SettingError, UnknownNameError
from convscope.nets import build_net
from convscope.runs import Recipe, Run
from convscope.scans import evaluate
from convscope.scope import Scope
from convscope.training import Silent, train
from tests.app.serving import answer, get, lab, served
from tests.conftest import write_spots
from tests.reported import made_once


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """A run of each kind of network: a chain, one with a transposed look at positions, one with branches."""
    from convscope.runs import open_run

    def make(folder: Path) -> None:
        data = load_data(str(write_spots(folder / "spots.npz", 120)))
        for number, text in enumerate(("c8b M f8", "c6k5 M c4b M f8", "c6b R c6b R M f8")):
            torch.manual_seed(number)
            net = build_net(text, classes=3, channels=3, image_size=8)
            run = train(net, data, Recipe(epochs=1, batch=24), folder / str(number), device="cpu", watcher=Silent())
            evaluate(run, data)

    folder = made_once(tmp_path_factory, "labs", make)
    return [open_run(folder / str(number)) for number in range(3)]


@pytest.fixture(scope="module")
def address(runs: list[Run]) -> Iterator[str]:
    with served(*(run.path for run in runs)) as found:
        yield found


def some_edits(generator: random.Random, size: int = 8) -> list[Any]:
    fills = ["grey", "black", "white", "mean", "blur", "noise", "#d04020"]

    def place() -> list[float]:
        return [round(generator.uniform(0, size), 2) for _ in range(2)]

    known = [
        lambda: [
            "paint",
            [place() for _ in range(generator.randint(1, 4))],
            generator.uniform(0.5, 3),
            generator.choice(fills),
        ],
        lambda: ["rectangle", [*(generator.randint(0, size - 2) for _ in range(2)), 2, 3], generator.choice(fills)],
        lambda: ["paste", generator.randint(0, 5), [1, 1, 4, 3], [generator.randint(-2, 6), generator.randint(-2, 6)]],
        lambda: ["blend", generator.randint(0, 5), generator.random()],
        lambda: ["rotate", generator.uniform(-90, 90)],
        lambda: ["shift", generator.randint(-3, 3), generator.randint(-3, 3)],
        lambda: ["brightness", generator.uniform(0.3, 2)],
        lambda: ["noise", generator.uniform(0, 0.3), generator.randint(0, 9)],
        lambda: ["jpeg", generator.randint(5, 95)],
    ]
    return [generator.choice(known)() for _ in range(generator.randint(0, 4))]


@pytest.mark.parametrize("number", range(3))
def test_every_answer_is_the_scopes_on_the_edited_image(address: str, runs: list[Run], number: int) -> None:
    run, generator = runs[number], random.Random(number)
    scope, test = Scope(run), run.load_data().test
    layers = [operation.name for operation in scope.graph.operations if len(operation.output_shape) == 3]
    with lab(address) as socket:
        for seq in range(12):
            image, chosen = generator.randrange(len(test)), some_edits(generator)
            show, lens = generator.choice(["value", "change"]), generator.choice(LIVE_LENSES)
            first, frames = answer(socket, {
                "seq": seq, "run": number, "image": image, "edits": chosen, "layers": layers, "show": show, "units": 3,
                "lens": lens,
            })  # fmt: skip
            original = test[image][0]
            edited = edits.apply(original[None], chosen, test)[0]
            assert first["probabilities"] == scope.probabilities(edited)[0].tolist()
            assert first["before"] == scope.probabilities(original)[0].tolist()
            assert np.array_equal(frames["input"][1], (edited * 255).round().byte().movedim(0, 2).numpy())
            for layer in layers:
                check_layer(scope, frames[layer], original, edited, layer, show)
            check_attribution(scope, frames["attribution"], original, edited, lens)


def test_what_is_kept_of_an_image_is_the_scopes(address: str, runs: list[Run]) -> None:
    """Attributions, layers and edits in turn, so that each answer finds something that an earlier one has left."""
    scope, test = Scope(runs[2]), runs[2].load_data().test
    layers = [operation.name for operation in scope.graph.operations if len(operation.output_shape) == 3]
    original = test[4][0]
    with lab(address) as socket:
        for seq, (chosen, lens) in enumerate(product(([], [["rotate", 9]], []), LIVE_LENSES)):
            some, edited = layers[seq % len(layers) :], edits.apply(original[None], chosen, test)[0]
            first, frames = answer(socket, {
                "seq": seq, "run": 2, "image": 4, "edits": chosen, "layers": some, "show": "value", "units": 3, "lens": lens,
            })  # fmt: skip
            assert first["probabilities"] == scope.probabilities(edited)[0].tolist()
            assert first["before"] == scope.probabilities(original)[0].tolist()
            for layer in some:
                check_layer(scope, frames[layer], original, edited, layer, "value")
            check_attribution(scope, frames["attribution"], original, edited, lens)


def test_what_is_kept_of_images_is_bounded(runs: list[Run]) -> None:
    work = Lab(ExploredRun(runs[0]))
    for seq in range(1000):
        name = f"u{seq % 200:016}"
        request = LabRequest(image=name, edits=[["shift", 1, 0]], layers=["conv1", "relu1"], lens="grad_cam")
        assert len(list(work.answer(request, lambda name: torch.full((3, 8, 8), int(name[1:]) / 200)))) == 6
        assert len(work._originals) <= 64
    held = sum(len(original.results) + len(original.attributions) for original in work._originals.values())
    assert held <= 64 * (5 + 1)  # the pixels, two layers, that of the attribution, the answer; and the attribution


def check_layer(scope: Scope, frame: Any, original: torch.Tensor, edited: torch.Tensor, layer: str, show: str) -> None:
    """The units of the largest mean change, in order, and their values in steps of the scale."""
    header, values = frame
    [before], [after] = (scope.activations(image, [layer])[layer] for image in (original, edited))
    size = (after - before).abs().flatten(1).mean(1)
    if not size.any():
        size = after.flatten(1).amax(1)
    expected = sorted(range(len(size)), key=lambda unit: (-float(size[unit]), unit))[:3]
    assert header["units"] == expected
    shown = (after - before if show == "change" else after)[expected]
    low, high = header["scale"]
    assert np.array_equal(values, ((shown - low) * (255 / (high - low))).round().clamp(0, 255).byte().numpy())
    assert max(abs(low), high) == (float(shown.abs().max()) or 1.0)


def check_attribution(scope: Scope, frame: Any, original: torch.Tensor, edited: torch.Tensor, lens: str) -> None:
    header, values = frame
    target = int(scope.probabilities(original)[0].argmax())
    assert header["target"] == target
    low, high = header["scale"]
    for image, shown in ((original, values[0]), (edited, values[1])):
        found = scope.attribute(lens, image, target)
        of_size = lens in ("saliency", "guided_backprop", "deconvnet")
        expected = found.saliency()[0, 0] if of_size else found.values[0].sum(0)
        assert np.array_equal(shown, ((expected - low) * (255 / (high - low))).round().clamp(0, 255).byte().numpy())


def test_units_that_are_off_are_zero_where_they_are_read(address: str, runs: list[Run]) -> None:
    scope, test = Scope(runs[0]), runs[0].load_data().test
    relu = next(operation.name for operation in scope.graph.operations if operation.kind == "relu")
    conv = next(operation.name for operation in scope.graph.operations if operation.kind == "conv")
    with lab(address) as socket:
        first, frames = answer(socket, {"seq": 1, "image": 3, "off": {conv: [2, 5]}, "layers": [relu], "units": 8})
    expected = scope.ablate({relu: [2, 5]}, "zero_activation").probabilities(test[3][0])
    assert first["probabilities"] == expected[0].tolist()
    assert first["before"] == scope.probabilities(test[3][0])[0].tolist()
    header, _ = frames[relu]
    assert {unit for unit, change in zip(header["units"], header["change"], strict=True) if change} <= {2, 5}


def test_units_named_by_two_layers_that_are_read_at_one_place_are_all_off(runs: list[Run]) -> None:
    explored, image = ExploredRun(runs[0]), runs[0].load_data().test[3][0]
    expected = explored.scope.ablate({"relu1": [0, 1]}, "zero_activation").probabilities(image)
    assert explored.scope_without({"conv1": [0], "relu1": [1]}).probabilities(image).equal(expected)
    assert explored.scope_without({"conv1": [0, 1], "relu1": [1]}).probabilities(image).equal(expected)


def test_a_newer_edit_ends_the_answer_to_an_older_one(runs: list[Run]) -> None:
    """Wherever it comes: within the network, between layers, before the attribution."""
    work = Lab(ExploredRun(runs[0]))
    request = LabRequest(layers=["conv1", "relu1"], lens="saliency", edits=[["rotate", 5]])

    def answered(n_checks: int) -> tuple[int, int, bool]:
        """How often it looked for a newer request, which comes at the n-th look; how many parts came; whether all."""
        looks = 0

        def look() -> bool:
            nonlocal looks
            looks += 1
            return looks > n_checks

        parts = list(work.answer(request, lambda name: torch.zeros(3, 8, 8), look))
        return looks, len(parts), bool(parts) and isinstance(parts[-1], dict) and "done" in parts[-1]

    answered(10_000)  # what belongs to the image as it is, is known from here on
    looks, n_parts, done = answered(10_000)
    assert (n_parts, done) == (6, True)
    counts = [answered(n)[1] for n in range(looks)]
    assert counts == sorted(counts)
    assert set(counts) == {0, 1, 2, 3, 4}
    assert counts.count(0) > len(work.explored.scope.graph.operations)
    assert not any(answered(n)[2] for n in range(looks))


def test_a_turn_ends_in_time_and_no_part_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "_TURN_S", 60)
    assert routes._turn(iter(range(4))) == ([0, 1, 2, 3], False)
    monkeypatch.setattr(routes, "_TURN_S", -1)
    parts = iter(range(4))
    assert [routes._turn(parts) for _ in range(5)] == [([0], True), ([1], True), ([2], True), ([3], True), ([], False)]


def test_many_at_once_end_with_the_newest(address: str) -> None:
    with lab(address) as socket:
        for seq in range(50):
            socket.send(json.dumps({"seq": seq, "image": seq % 7, "edits": [["rotate", seq]], "layers": ["conv1"]}))
        while True:
            message = socket.recv(60)
            found = {} if isinstance(message, bytes) else json.loads(message)
            if found.get("done") and found["seq"] == 49:
                break


def test_an_upload_is_decoded_as_the_runs_data(address: str, runs: list[Run], tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray((np.random.default_rng(0).random((20, 30, 3)) * 255).astype("uint8")).save(path)
    status, body, _ = get(address, "/uploads", "POST", path.read_bytes())
    assert status == 200
    with lab(address) as socket:
        first, _ = answer(socket, {"seq": 1, "image": json.loads(body)["image"]})
    scope = Scope(runs[0])
    assert first["probabilities"] == scope.probabilities(str(path))[0].tolist()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"image": 10_000}, "there are test images 0 to"),
        ({"image": "u0123456789abcdef"}, "not here any more"),
        ({"image": "../../etc/passwd"}, "image"),
        ({"layers": ["conv9"]}, "conv9"),
        ({"off": {"conv1": [99]}}, "unit 99"),
        ({"edits": [["melt", 3]]}, "melt"),
        ({"edits": [["rotate", 1e999]]}, "rotate"),
        ({"lens": "occlusion"}, "lens"),
        ({"run": 9}, "there are runs 0 to"),
        ({"more": 1}, "more"),
        ({"target": 77}, "77"),
    ],
)
def test_a_wrong_request_is_answered_in_a_line_and_the_socket_goes_on(
    address: str, wrong: dict[str, Any], words: str
) -> None:
    with lab(address) as socket:
        found, _ = answer(socket, {"seq": 1, "lens": "saliency", **wrong})
        assert words in found["error"]
        assert "\n" not in found["error"]
        found, _ = answer(socket, {"seq": 2})
        assert found["done"]


def test_what_is_no_json_is_answered_in_a_line(address: str) -> None:
    with lab(address) as socket:
        for text in ("{", "[" * 100_000, '"x"', "null", b"{}", b"\xff"):
            socket.send(text)
            assert "error" in json.loads(socket.recv(60))
        socket.send(json.dumps({"edits": ["x" * 300_000]}))
        assert "characters" in json.loads(socket.recv(60))["error"]
        assert answer(socket, {"seq": 2})[0]["done"]


def test_a_fault_of_ours_is_answered_in_a_line_and_the_socket_goes_on(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lab(address) as socket:
        with monkeypatch.context() as broken:
            broken.setattr(Lab, "_edited", lambda *given: 1 // 0)
            found, _ = answer(socket, {"seq": 1, "image": 11})
        assert "a fault of convscope: ZeroDivisionError" in found["error"]
        assert answer(socket, {"seq": 2, "image": 11})[0]["done"]


class _Tokens(torch.nn.Module):
    """A small transformer, in which layers have several axes of units."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.classes = torch.nn.Conv2d(3, 16, 2, 2), torch.nn.Linear(16, 3)
        self.encoder = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classes(self.encoder(self.patches(images).flatten(2).transpose(1, 2)).mean(1))


def of_network(net: torch.nn.Module, folder: Path) -> Lab:
    data = load_data(str(write_spots(folder / "spots.npz", 120)))
    run = train(net, data, Recipe(epochs=1, batch=24), folder / "run", device="cpu", watcher=Silent())
    evaluate(run, data)
    return Lab(ExploredRun(run))


def parts_of(work: Lab, **request: Any) -> list[Any]:
    return list(work.answer(LabRequest(**request), lambda name: torch.zeros(3, 8, 8)))


def test_a_transformer_has_a_lab(tmp_path: Path) -> None:
    work = of_network(_Tokens(), tmp_path)
    layers = work.explored.layers
    owners = {layer["name"]: layer["units_of"] for layer in layers}
    assert owners["encoder.linear1"] == "encoder.linear1"
    assert owners["encoder.norm1"] == "encoder.norm1"
    found = parts_of(work, layers=[layer["name"] for layer in layers], lens="saliency")
    assert len(found) == len(layers) + 4
    assert "error" not in found[-1]


def test_without_maps_the_rest_of_the_answer_stands(tmp_path: Path) -> None:
    *parts, end = parts_of(of_network(build_net("f8", classes=3, channels=3, image_size=8), tmp_path), lens="grad_cam")
    assert len(parts) == 2
    assert end["done"]
    assert "ask for saliency" in end["error"]


def test_an_answer_that_is_no_number_is_said(tmp_path: Path) -> None:
    work = of_network(build_net("c4 M f8", classes=3, channels=3, image_size=8), tmp_path)
    with torch.no_grad():
        work.explored.scope.net.conv1.bias.fill_(torch.inf)  # type: ignore[union-attr,operator]
    with pytest.raises(FailedError, match="NaN or infinite"):
        parts_of(work)


def test_the_lab_refuses_in_python_what_it_refuses_by_its_socket(runs: list[Run]) -> None:
    work = Lab(ExploredRun(runs[0]))
    for request, error in (
        (LabRequest(layers=["conv9"]), UnknownNameError),
        (LabRequest(image=9999), RequestError),
        (LabRequest(edits=[["rotate"]]), SettingError),
    ):
        with pytest.raises(error):
            list(work.answer(request, lambda name: torch.zeros(3, 8, 8)))
