"""Heatmap validation: the scans' figures, a sample that is even over the classes, words as intervals allow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from playwright.sync_api import expect

from convscope.report import ReportedRun
from convscope.report.budget import Fit
from convscope.report.saliency import _kinds, saliency_maps
from convscope.report.validation import HeatmapKind, HeatmapValidation, in_words, sample
from convscope.runs import REPORT, Run
from convscope.scans import Faithfulness, FaithfulnessCurves, Randomization, RandomizationCheck
from convscope.scope import Scope


@pytest.fixture(scope="module")
def subject(reported: Run) -> ReportedRun:
    return ReportedRun(reported, reported.load_data())


def test_figures_are_those_of_the_scans(subject: ReportedRun, reported: Run) -> None:
    found = saliency_maps(subject)
    rows, middle = (
        sample(subject, [row["row"] for row in found["rows"]], found["validation"]["n"]),
        len(found["sizes"]) // 2,
    )
    images, size = subject.data.test.images(rows), found["sizes"][middle]
    bare = Scope(reported.net, images[:1], reported.classes, reported.normalization)  # which keeps nothing
    covering = lambda s, x, t: s.occlusion(x, size, 1, t, fill="mean").on_image(8, 8)  # noqa: E731
    for place, lens in ((0, "guided_backprop"), (-1, covering)):
        shown, curves = found["validation"]["kinds"][place], bare.faithfulness(lens, images, steps=10)
        for name in ("deletion", "insertion"):
            assert shown[name] == pytest.approx(curves.area(getattr(curves, name)).to_json())
        assert shown["deletion_gain"] == pytest.approx(curves.deletion_gain.to_json())
        assert shown["insertion_gain"] == pytest.approx(curves.insertion_gain.to_json())
        check = bare.randomization_check(lens, images, layers=["conv1"])
        assert shown["similarity"] == pytest.approx(check.similarities["conv1"].to_json())
        first = [float(curves.areas(curve)[0]) for curve in (curves.deletion, curves.insertion)]
        row = found["rows"][0]
        areas = row["attributed"][0]["areas"] if place == 0 else row["occluded"][middle]["areas"]
        assert areas == pytest.approx(first)
        assert row["random"] == pytest.approx(float(curves.areas(curves.random)[0]))
    assert found["validation"]["random"] == pytest.approx(curves.area(curves.random).to_json())


def test_the_same_report_runs_no_scan_again(subject: ReportedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    first = saliency_maps(subject)
    monkeypatch.setattr(Faithfulness, "update", lambda *asked: pytest.fail("made again"))
    monkeypatch.setattr(Randomization, "update", lambda *asked: pytest.fail("made again"))
    assert saliency_maps(subject)["validation"] == first["validation"]


def test_the_sample_is_right_even_and_begins_with_what_is_shown(subject: ReportedRun, reported_96: Run) -> None:
    answers = subject.answers[0]
    shown = subject.chosen_images(10)
    rows = sample(subject, shown, 9)
    assert rows[: len(shown)] == shown
    assert len(set(rows)) == 9
    assert not answers.wrong[rows].any()
    counts = answers.true[rows].bincount(minlength=3)
    assert counts.max() - counts.min() <= 1
    assert sample(subject, shown, 9) == rows
    many = ReportedRun(reported_96, reported_96.load_data())
    chosen = sample(many, many.chosen_images(10), 12)
    assert len(set(many.answers[0].true[chosen].tolist())) == 12


def test_of_a_large_network_the_square_moves_by_more(subject: ReportedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        "convscope.report.saliency.validation_fit", lambda subject, kinds: asked.append(kinds) or Fit(15, 32, 3, 9)
    )
    monkeypatch.setattr(type(subject.run), "input_shape", (3, 32, 32))
    kinds = _kinds(subject, ["grad_cam"], 5)
    assert [kind.lens for kind in kinds] == ["grad_cam", "occlusion"]
    assert [asked[0][1].settings["stride"], kinds[1].settings["stride"]] == [2, 4]
    assert [asked[0][1].at_random["stride"], kinds[1].at_random["stride"]] == [4, 4]


def test_a_network_that_is_too_large_is_not_examined(reported: Run) -> None:
    found = saliency_maps(ReportedRun(reported, reported.load_data(), minutes=1e-6))
    assert found["validation"] is None
    assert found["rows"][0]["attributed"][0]["areas"] is None


def examined(deletion: list[float], insertion: list[float], similarity: list[float]) -> HeatmapValidation:
    """Straight curves from 1 down to 0.2, of which those areas are added or taken at every share but the ends."""
    n, shares = len(deletion), torch.linspace(0, 1, 11, dtype=torch.float64)
    level = torch.linspace(1, 0.2, 11, dtype=torch.float64).expand(n, 11)
    curves = [level + torch.tensor(moved, dtype=torch.float64)[:, None] for moved in (deletion, insertion)]
    index, target = torch.arange(n), torch.zeros(n).long()
    check = RandomizationCheck("a", ["conv1"], index, target, torch.tensor(similarity, dtype=torch.float64)[:, None])
    return HeatmapValidation(
        HeatmapKind("a", "A map"),
        list(range(n)),
        FaithfulnessCurves("a", "blur", index, target, shares, *curves, level),
        check,
    )


BETTER, WORSE, NEITHER = [0.1, 0.11, 0.12], [-0.1, -0.11, -0.12], [0.1, -0.1, 0.02]


@pytest.mark.parametrize(
    ("deletion", "insertion", "said"),
    [
        (WORSE, BETTER, "A map finds what the answer hangs on better than chance. Without its first 10 % of pixels the "
         "probability is 0.81 (95 %: 0.79 to 0.83); without 10 % at random 0.92 (95 %: 0.92 to 0.92)."),
        (NEITHER, BETTER, "A map is better than chance at insertion, no better than chance at deletion. "),
        (BETTER, NEITHER, "A map is worse than chance at deletion, no better than chance at insertion. "),
        (NEITHER, NEITHER, "A map is no better than chance, as far as these images tell. "),
    ],
)  # fmt: skip
def test_the_words_say_what_the_intervals_carry(deletion: list[float], insertion: list[float], said: str) -> None:
    assert in_words(examined(deletion, insertion, NEITHER)).startswith(said)


@pytest.mark.parametrize(
    ("similarity", "said"),
    [
        (
            [0.9, 0.91, 0.92],
            "its maps stay much the same (rank correlation 0.91, 95 %: 0.89 to 0.93): they show the image",
        ),
        ([0.1, 0.11, 0.12], "little is left of its maps (rank correlation 0.11, 95 %: 0.09 to 0.13): they depend"),
        ([0.1, 0.5, 0.9], "a part of its maps stays (rank correlation 0.50, 95 %: −0.49 to 1.00)."),
    ],
)
def test_what_is_left_with_random_weights_in_words(similarity: list[float], said: str) -> None:
    assert f"With all weights random {said}" in in_words(examined(WORSE, BETTER, similarity))


def test_from_one_image_nothing_is_claimed() -> None:
    said = in_words(examined([-0.1], [0.1], [0.9]))
    assert said == (
        "A map is no better than chance, as far as these images tell. Without its first 10 % of pixels the probability "
        "is 0.82; without 10 % at random 0.92."
    )


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1000, "light"), (390, "dark")])
def test_pictures_carry_their_figures_and_captions_stay_below_them(
    open_page: Callable[..., Any], reported: Run, subject: ReportedRun, width: int, scheme: str
) -> None:
    found = saliency_maps(subject)
    with open_page(reported.path / REPORT, "#saliency", width=width, scheme=scheme) as page:
        heads = page.locator(".saliency thead th").all_inner_texts()
        assert heads == ["test image", *found["titles"].values(), "Occlusion 2×2"]
        assert heads[1] == "Guided backpropagation"
        deletion, insertion = found["rows"][0]["attributed"][0]["areas"]
        cell = page.locator(".saliency tbody tr").first.locator("td").nth(1)
        expect(cell).to_contain_text(f"deletion {deletion:.2f}\ninsertion {insertion:.2f}", use_inner_text=True)
        expect(page.locator("table.validation tbody tr")).to_have_count(len(found["validation"]["kinds"]) + 1)
        expect(page.locator("#saliency ul.plain")).to_contain_text(found["validation"]["words"][0])
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        if width >= 1000:
            assert page.evaluate(
                "[...document.querySelectorAll('#saliency .scroll')].every((e) => e.scrollWidth <= e.clientWidth)"
            )
        wide = "[...document.querySelectorAll('.saliency td small')].every((e) => e.offsetWidth <= 122)"
        assert page.evaluate(wide)
