"""Some filters ablated: figures of the scans and of edited weights, and what the section says and shows."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import expect

from convscope.cli import run as convscope
from convscope.data import DataBundle
from convscope.nets import build_net
from convscope.report import ReportedRun, ablation, render, write_report
from convscope.report.ablation import ablation_section, chosen_filters
from convscope.runs import REPORT, Recipe, Run
from convscope.scans import Ablation, LayerEffects, evaluate, proportion
from convscope.training import Silent, train
from tests.lenses.lens_networks import replaced
from tests.report.test_report import Deciding


@pytest.fixture(scope="module")
def subject(reported: Run) -> ReportedRun:
    return ReportedRun(reported, reported.load_data())


@pytest.fixture(scope="module")
def found(subject: ReportedRun) -> dict[str, Any]:
    return ablation_section(subject)


def answered(subject: ReportedRun, off: Iterable[int] = ()) -> torch.Tensor:
    """What the network answers to the test images, with 0 in place of what the ReLU gives for some units."""
    net = subject.scope.net
    with replaced(net, "relu1", dict.fromkeys(off, 0)):
        return net(subject.scope.prepare(subject.data.test.images())).argmax(1)


def right(subject: ReportedRun, off: Iterable[int] = ()) -> torch.Tensor:
    """Which test images it gets right then."""
    return answered(subject, off) == subject.data.test.targets_of("class")


def test_each_filter_is_as_silent_behind_the_relu(subject: ReportedRun, found: dict[str, Any]) -> None:
    was = right(subject)
    n = len(was)
    assert (found["n"], found["filters"], found["off"]) == (n, 2, "0 behind the ReLU")
    assert {row["layer"] for row in found["rows"]} == {"conv1"}
    assert found["before"] == proportion(int(was.sum()), n).to_json()
    for row in found["rows"]:
        now = right(subject, [row["unit"]])
        assert (row["lost"], row["gained"]) == (int((was & ~now).sum()), int((now & ~was).sum()))
        assert row["after"] == pytest.approx(int(now.sum()) / n)
        assert row["difference"]["value"] == pytest.approx((int(now.sum()) - int(was.sum())) / n)
    now = right(subject, [0, 1])
    assert found["together"]["after"] == pytest.approx(int(now.sum()) / n)


def test_details_are_of_the_largest_change_and_of_all_together(
    subject: ReportedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "_UNITS", 6)  # of 8, so that answers change
    found = ablation_section(subject)
    alone, together = found["details"]
    largest = max(found["rows"], key=lambda row: (abs(row["difference"]["value"]), row["lost"] + row["gained"]))
    assert alone["title"] == f"Without {largest['name']}, the largest change"
    assert together["title"] == "Without all 6 together"
    test = subject.data.test
    labels = test.targets_of("class")
    for card, units in ((alone, [largest["unit"]]), (together, range(6))):
        before, after = answered(subject), answered(subject, units)
        matrices = [torch.zeros(3, 3).long() for _ in range(2)]
        for matrix, answers in zip(matrices, (before, after), strict=True):
            for true, answer in zip(labels.tolist(), answers.tolist(), strict=True):
                matrix[true, answer] += 1
        assert card["matrix"]["cells"] == (matrices[1] - matrices[0]).tolist()
        changes = [abs(row["difference"]["value"]) for row in card["classes"]]
        assert changes == sorted(changes, reverse=True)
        for row in card["classes"]:
            k = subject.run.classes.index(row["class"])
            assert row["before"] == pytest.approx(int(matrices[0][k, k]) / row["images"])
            assert row["after"] == pytest.approx(int(matrices[1][k, k]) / row["images"])
        lost = ((before == labels) & (after != labels)).nonzero()[:, 0].tolist()
        gained = ((before != labels) & (after == labels)).nonzero()[:, 0].tolist()
        for flip, rows in zip(card["flips"], (lost, gained), strict=True):
            assert flip["n"] == len(rows)
            shown = [one["row"] for one in flip["images"]]
            assert set(shown) <= set(rows)
            assert len(shown) == min(len(rows), 8)
            for one in flip["images"]:
                assert one["after"] == subject.run.classes[after[one["row"]]]
    assert together["flips"][0]["n"] > 3


def test_a_sample_names_the_images_of_the_whole_set(subject: ReportedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "_MOST_IMAGES", 9)
    some = ablation_section(subject)
    n = len(subject.data.test)
    rows = torch.linspace(0, n - 1, 9).long()
    was = right(subject)[rows]
    now = right(subject, [0, 1])[rows]
    assert (some["n"], some["tests"]) == (9, n)
    [lost, gained] = some["details"][1]["flips"]
    assert {one["row"] for one in lost["images"]} == set(rows[was & ~now].tolist())
    assert {one["row"] for one in gained["images"]} == set(rows[now & ~was].tolist())


@pytest.mark.parametrize("n", [9, 1000])
def test_the_command_on_the_page_gives_its_figures(
    reported: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], n: int
) -> None:
    monkeypatch.setattr(ablation, "_MOST_IMAGES", n)
    subject = ReportedRun(reported, reported.load_data())
    found = ablation_section(subject)
    [command] = re.findall(r"<code>convscope (look \S+ ablate .*?)</code>", render(subject))
    assert ("--images" in command) == (n < len(subject.data.test))
    assert convscope([*shlex.split(unescape(command)), "--json", "--out", str(tmp_path / "look.png")]) == 0
    row = json.loads(capsys.readouterr().out)["rows"][-1]
    together = found["together"]
    assert row["images"] == found["n"]
    assert (row["lost"], row["gained"]) == (together["lost"], together["gained"])
    assert row["after"] == pytest.approx(together["after"])


def test_classes_of_equal_change_keep_their_order() -> None:
    """Of five classes with two images each the second loses one, the fourth gains two, the others nothing."""
    target = torch.arange(5).repeat_interleave(2)
    before, after = target.clone(), target.clone()
    after[2], before[6], before[7] = 0, 0, 0
    probability = torch.full((10,), 0.5, dtype=torch.float64)
    answers = (torch.arange(10), target, before, after, probability, probability)
    found = Ablation(list("abcde"), *answers, {"conv1": [0]}, "zero_weights")
    assert [row["class"] for row in ablation._by_change(found)] == ["d", "b", "a", "c", "e"]


def test_moves_and_flips_by_hand(subject: ReportedRun) -> None:
    """Of eight images of a, b or c, without a unit two of b and one of a are lost to c, and one of c is found."""
    target, before = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2]), torch.tensor([0, 0, 1, 1, 1, 2, 2, 0])
    after = torch.tensor([0, 2, 2, 1, 2, 2, 2, 2])
    was = torch.tensor([0.9, 0.8, 0.6, 0.7, 0.9, 0.5, 0.5, 0.2], dtype=torch.float64)
    now = torch.tensor([0.9, 0.3, 0.5, 0.7, 0.1, 0.5, 0.5, 0.6], dtype=torch.float64)
    answers = (torch.arange(8), target, before, after, was, now)
    found = Ablation(list("abc"), *answers, {"conv1": [0]}, "zero_weights")
    assert ablation._moves(found) == [
        "“b” predicted as “c”: 0 before, 2 after", "“a” predicted as “c”: 0 before, 1 after",
        "“c” predicted as “a”: 1 before, 0 after",
    ]  # fmt: skip
    rows = torch.arange(8) + 10
    lost, gained = (ablation._images(subject, found, flipped, rows) for flipped in (found.lost, found.gained))
    assert [(one["row"], one["true"], one["before"], one["after"]) for one in lost] == [
        (14, "b", "b", "c"), (11, "a", "a", "c"), (12, "b", "b", "c"),
    ]  # fmt: skip
    assert [one["probabilities"] for one in lost] == [[0.9, 0.1], [0.8, 0.3], [0.6, 0.5]]
    assert [(one["row"], one["true"], one["before"], one["after"]) for one in gained] == [(17, "c", "a", "c")]


def answers(lost: list[int], gained: list[int], n: int = 1000, right: int = 900) -> list[Any]:
    """Filters of a layer that so many images of one class are lost and gained without."""
    units = len(lost)
    found = LayerEffects(
        "conv2", "zero_weights", ["a", "b"], torch.tensor([n, 0]), torch.tensor([right, 0]),
        torch.tensor([0.9, torch.nan], dtype=torch.float64),
        *(torch.tensor([[k, 0] for k in moved]) for moved in (lost, gained)),
        torch.full((units, 2), 0.8, dtype=torch.float64), torch.zeros(units, dtype=torch.float64),
        torch.zeros(0, 5).long(), torch.ones(units, dtype=torch.bool), None,
    )  # fmt: skip
    return [(found, unit) for unit in range(units)]


def test_only_a_clear_change_is_said_to_cost(subject: ReportedRun) -> None:
    together = subject.scope.ablation({"conv1": [0]}, subject.data.test)
    said = ablation.in_words(answers([2, 80, 3], [1, 2, 2]), together)
    assert said.startswith(
        "Ablating unit 1 of conv2 alone costs most: −7.8 points (95 %, widened for having looked at 3:"
    )
    said = ablation.in_words(answers([2, 13], [1, 4]), together)
    assert said.startswith("No filter alone changes the accuracy clearly; the largest change is −0.9 points")
    [(alone, unit)] = answers([13], [4])
    assert alone.change(unit).high < 0  # of one filter alone the same change is clear
    said = ablation.in_words(answers([3], [30]), together)
    assert said == f"Ablating unit 0 of conv2 alone gains most: {said.split(': ', 1)[1]}"
    assert "together" not in said


@pytest.mark.slow
def test_many_classes_are_a_picture_and_the_layers_are_the_first(reported_96: Run) -> None:
    many = ReportedRun(reported_96, reported_96.load_data())
    card = ablation_section(many)["details"][0]
    assert card["matrix"]["cells"] is None
    assert card["matrix"]["picture"].shape == (384, 384, 3)
    assert len(card["classes"]) == 96


def test_the_first_two_of_the_first_five_convolutions(spots: Callable[..., DataBundle], tmp_path: Path) -> None:
    data = spots(120)
    net = build_net("c4 c1 c4 c4 c4 c4 M f8", classes=3, channels=3, image_size=8)
    run = train(net, data, Recipe(epochs=1, batch=24), tmp_path / "run", device="cpu", watcher=Silent())
    evaluate(run, data, "cpu")
    asked = chosen_filters(ReportedRun(run, data))
    assert asked == {"conv1": [0, 1], "conv2": [0], "conv3": [0, 1], "conv4": [0, 1], "conv5": [0, 1]}


@pytest.mark.parametrize("net", ["functional", "dense"])
def test_without_filters_of_its_own_there_is_no_such_part(
    spots: Callable[..., DataBundle], tmp_path: Path, net: str
) -> None:
    class Functional(Deciding):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(torch.nn.functional.conv2d(images, self.weight).relu().flatten(1))

    dense = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
    data = spots(120)
    built = Functional() if net == "functional" else dense
    run = train(built, data, Recipe(epochs=1, batch=24), tmp_path / "run", device="cpu", watcher=Silent())
    evaluate(run, data, "cpu")
    assert ablation_section(ReportedRun(run, data)) is None
    write_report(run, data)
    assert 'id="ablation"' not in (run.path / REPORT).read_text()


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_table_sorts_and_details_open(
    open_page: Callable[..., Any], reported: Run, found: dict[str, Any], width: int, scheme: str
) -> None:
    with open_page(reported.path / REPORT, "#ablation", width=width, scheme=scheme) as page:
        expect(page.locator("#ablation .lead")).to_have_text(found["words"])
        page.locator("#ablation thead th", has_text="right → wrong").first.click()
        lost = [int(text) for text in page.locator("#ablation > .scroll tbody td:nth-child(5)").all_inner_texts()]
        assert lost == sorted((row["lost"] for row in found["rows"]), reverse=True)
        details = page.locator("#ablation details").nth(1)
        expect(details.locator(".matrix")).to_be_hidden()
        details.locator("summary").click()
        expect(details.locator(".matrix")).to_be_visible()
        cells = details.locator(".matrix td:not(.corner)").all_inner_texts()
        flat = [n for row in found["details"][1]["matrix"]["cells"] for n in row]
        assert cells == [f"{n:+d}".replace("-", "−") if n else "" for n in flat]
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
