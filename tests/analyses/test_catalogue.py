"""The catalogue: every analysis is found by its file, keeps its network as it was, and is a method of a scope."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from convscope.analyses import Request, find, look, names, option_of
from convscope.errors import UnknownNameError
from convscope.lenses import ATTRIBUTIONS, CAPTUM_METHODS
from convscope.runs import Run
from convscope.scope import Scope
from tests.analyses.kinds import OF_IMAGES, SCANS
from tests.cli.conftest import Command, command

__all__ = ["command"]

_OTHER_METHOD = {"randomization": "randomization_check"}
_SETTINGS = {
    "activations": {"layer": "conv1"},
    "edit_effect": {"edit": [["rotate", 15]]},
    "receptive_field": {"layer": "conv1"},
    "top_patches": {"layer": "conv1"},
}
_FEW = ("faithfulness", "randomization", "invariance", "filter_effects")


@pytest.mark.parametrize("name", names())
def test_it_is_a_method_of_a_scope_with_the_same_settings(name: str) -> None:
    analysis = find(name)
    assert issubclass(analysis.request, Request)
    assert analysis.about.endswith((".", "?"))
    assert all(field.description for field in analysis.request.model_fields.values())
    assert callable(getattr(Scope, _OTHER_METHOD.get(name, name), None))


def test_an_edit_on_the_command_line(reported: Run, command: Command, tmp_path: Path) -> None:
    """Of one image before a lens, and of the test images."""
    edit, out = '[["rotate", 15]]', tmp_path / "out.png"
    one = command("look", reported.path, "saliency", "--image", "3", "--edit", edit, "--out", out)
    assert one.out.splitlines()[0].endswith("; image edited: rotated by 15°")
    all_of_them = command(
        "look", reported.path, "edit-effect", f"--edit={edit}", "--images", "20", "--out", out, "--json"
    ).json
    assert all_of_them["heading"].startswith("rotated by 15°: accuracy of 20 test images ")
    assert [row["class"] for row in all_of_them["rows"]] == [*reported.classes, "all"]
    refused = command("look", reported.path, "edit_effect", "--edit", '[["rotate", 500]]')
    assert (refused.status, refused.complaint) == (
        2,
        "edit 1 (rotate): degrees: 500; expected a number from -360 to 360",
    )


def test_all_attributions_are_analyses() -> None:
    assert {*ATTRIBUTIONS, *CAPTUM_METHODS} <= set(OF_IMAGES)


@pytest.mark.parametrize("name", names())
def test_the_network_is_left_as_it_was_and_the_same_question_has_the_same_answer(reported: Run, name: str) -> None:
    if name in CAPTUM_METHODS:
        pytest.importorskip("captum")
    scope, test = Scope(reported), reported.load_data().test
    inputs = {"test": test} if name in SCANS else {"image": test[0][0]} if name in OF_IMAGES else {}
    settings = _SETTINGS.get(name, {}) | ({"images": 4} if name in _FEW else {})
    before = {key: value.clone() for key, value in scope.net.state_dict().items()}
    training, random = scope.net.training, torch.get_rng_state()
    first, second = (look(scope, name, **inputs, **settings) for _ in range(2))
    assert scope.net.training == training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[key], value) for key, value in scope.net.state_dict().items())
    assert all(parameter.grad is None for parameter in scope.net.parameters())
    assert first.heading == second.heading
    assert all(torch.equal(tensor, second.tensors[key]) for key, tensor in first.tensors.items())


def test_an_unknown_analysis_is_one_line_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match=r"lens 'grad_kam' is not one of .*did you mean 'grad_cam'"):
        find("grad_kam")


def test_the_command_lists_them_and_gives_the_schemas(command: Command) -> None:
    listed = command("look", "--list")
    assert [line.split()[0] for line in listed.out.splitlines()] == list(names())
    schemas = command("look", "--list", "--json").json
    assert [each["name"] for each in schemas] == list(names())
    [occlusion] = [each for each in schemas if each["name"] == "occlusion"]
    assert occlusion["reads"] == "image"
    assert set(occlusion["request"]["properties"]) == {"target", "size", "stride", "fill"}
    json.dumps(schemas)


def test_help_has_each_analysis_and_option(command: Command) -> None:
    shown = " ".join(command("look", "--help").out.split())
    for name in names():
        assert f" {name} " in shown
        assert all(f"{option_of(option)} " in shown for option in find(name).request.model_fields)


def test_an_option_says_the_same_in_all_analyses_for_the_help_shows_it_once() -> None:
    said: dict[str, set[str | None]] = {}
    for name in names():
        for option, field in find(name).request.model_fields.items():
            said.setdefault(option, set()).add(field.description)
    assert {option: texts for option, texts in said.items() if len(texts) > 1} == {}


def test_the_catalogue_and_its_requests_need_no_pytorch() -> None:
    code = (
        "import sys; from convscope.analyses import find, names; "
        "[find(name).request.model_json_schema() for name in names()]; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--layer",), "--layer: expected a value after it"),
        (("--stride=x",), "--stride x: Input should be a valid integer"),
        (
            ("--layr", "conv1"),
            "--layr: occlusion has no such setting; leave it out (its settings: --target, --size, --stride",
        ),
        (("--strid", "1"), "--strid: occlusion has no such setting; did you mean --stride? (its settings: --target"),
        ((), "--image: occlusion needs one; give a file, or the index of a test image"),
    ],
)
def test_wrong_options_are_one_line(command: Command, reported: Run, words: tuple[str, ...], expected: str) -> None:
    image = () if not words else ("--image", "0")
    found = command("look", reported.path, "occlusion", *image, *words)
    assert (found.status, expected in found.complaint) == (2, True), found.complaint


def test_xgrad_cam_by_autograd(reported: Run) -> None:
    scope, image = Scope(reported), reported.load_data().test[3][0]
    maps = scope.activations(image[None], ["relu1"])["relu1"].requires_grad_()
    logits = scope.graph.run(scope.prepare(image), given={"relu1": maps})[scope.graph.outputs[0]]
    [gradient] = torch.autograd.grad(logits[0, 1], maps)
    expected = torch.zeros(maps.shape[2:])
    for activation, slope in zip(maps[0].detach(), gradient[0], strict=True):
        if activation.sum() != 0:
            expected += (activation * slope).sum() / activation.sum() * activation
    found = look(scope, "xgrad_cam", image=image, layer="relu1", target=1)
    torch.testing.assert_close(found.tensors["values"][0, 0], expected)
