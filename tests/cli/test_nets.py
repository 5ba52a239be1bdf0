"""convscope nets: the catalogue, and what timm and torchvision have, without building it."""

from __future__ import annotations

import sys

import pytest

from convscope.nets import build_net, catalogue
from tests.cli.conftest import Command
from tests.zoo import open_zoo


@pytest.fixture(autouse=True, scope="module")
def zoo() -> None:
    open_zoo()


def test_the_catalogue_is_listed_and_the_libraries_counted(command: Command) -> None:
    found = command("nets")
    assert (found.status, found.err) == (0, "")
    lines = found.out.splitlines()
    assert [line.split()[0] for line in lines if line.split() and line.split()[0] in catalogue()] == list(catalogue())
    [net1] = [line for line in lines if line.startswith("net1 ")]
    assert net1.split()[1:3] == ["3×32×32", "173,026"]
    import timm
    import torchvision

    of_timm, of_torchvision = len(timm.list_models()), len(torchvision.models.list_models(module=torchvision.models))
    [line] = [line for line in lines if line.startswith("timm: ")]
    assert line.startswith(f"timm: {of_timm:,} networks, ")
    assert "--net timm:NAME" in line
    assert any(line.startswith(f"torchvision: {of_torchvision:,} networks, ") for line in lines)


def test_what_is_listed_in_json_is_so(command: Command) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    found = command("nets", "--json").json
    listed = {net["name"]: net for net in found["networks"]}
    assert set(listed) == set(catalogue())
    assert (listed["lite0"]["input"], listed["lite0"]["parameters"]) == ([3, 224, 224], 4_652_008)
    assert (listed["lite0"]["weights"], listed["net1"]["weights"]) == (["ImageNet"], [])
    assert [(zoo["name"], zoo["problem"]) for zoo in found["libraries"]] == [("timm", None), ("torchvision", None)]
    assert all(0 < zoo["pretrained"] <= zoo["networks"] for zoo in found["libraries"])


@pytest.mark.parametrize(
    ("text", "some", "none"),
    [
        ("ResNet18", {"timm:resnet18", "torchvision:resnet18", "timm:seresnet18"}, {"timm:resnet34", "net1"}),
        ("timm:resnet18*", {"timm:resnet18", "timm:resnet18d"}, {"torchvision:resnet18", "timm:seresnet18"}),
        ("vit_?_16", {"torchvision:vit_b_16", "torchvision:vit_l_16", "torchvision:vit_h_14"} - {"torchvision:vit_h_14"},
         {"torchvision:vit_b_32"}),
        ("lite", {"lite0", "timm:efficientnet_lite0"}, {"net4"}),
        ("[cm]n*-net", {"mnist-net"}, {"lines-net"}),
    ],
)  # fmt: skip
def test_names_are_searched_by_a_part_or_a_pattern(command: Command, text: str, some: set[str], none: set[str]) -> None:
    names = {net["name"] for net in command("nets", "--search", text, "--json").json["networks"]}
    assert some <= names
    assert not none & names
    shown = command("nets", "--search", text).out
    assert all(f"{name} " in shown for name in some)


def test_inputs_weights_and_parameters_are_those_of_the_networks(command: Command) -> None:
    nets = command("nets", "--search", "*", "--json").json["networks"]
    listed = {net["name"]: net for net in nets}
    assert listed["timm:test_resnet"]["input"] == [3, 160, 160]
    assert listed["timm:test_resnet"]["weights"] == ["r160_in1k"]
    assert listed["timm:selecsls42"]["weights"] == []
    assert listed["torchvision:inception_v3"]["input"] == [3, 299, 299]
    small = "torchvision:shufflenet_v2_x0_5"
    assert listed[small]["parameters"] == sum(parameter.numel() for parameter in build_net(small).parameters())


def test_no_match_suggests_names_alike(command: Command) -> None:
    found = command("nets", "--search", "resnt18")
    assert found.status == 2
    assert found.complaint.startswith("--search resnt18: no network has such a name; did you mean timm:resnet18 or ")
    found = command("nets", "--search", "zzzz*")
    assert (found.status, found.complaint) == (
        2,
        "--search zzzz*: no network has such a name; convscope nets lists what there is",
    )


def test_a_missing_library_is_a_line_and_a_broken_one_too(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    found = command("nets")
    assert (found.status, found.err) == (0, "")
    [line] = [line for line in found.out.splitlines() if line.startswith("timm")]
    assert "'timm', which is" in line
    assert any(line.startswith("torchvision: ") for line in found.out.splitlines())
    found = command("nets", "--search", "resnet18")
    assert "torchvision:resnet18" in found.out
    assert line in found.out
    assert command("nets", "--search", "vit_tiny").complaint.endswith(
        "; timm cannot be looked through (convscope nets says why)"
    )
