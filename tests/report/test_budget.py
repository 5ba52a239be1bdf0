"""What a report leaves out of a large network: chosen by the work, said on the page, with the figures of what was looked at."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import pytest
import torch

from convscope.nets import build_net
from convscope.report import ReportedRun, ablation, filters, render, saliency, validation, visualization
from convscope.report.budget import MINUTES, SHARES, WORK_PER_S, Fit
from convscope.report.filters import effects_of, filters_page
from convscope.runs import Run
from convscope.scans import proportion
from convscope.scope import Scope

PART = "Ablation"
MINUTE = 60 * WORK_PER_S * SHARES[PART]
"""The work of that part in a budget of one minute."""


@pytest.mark.parametrize(
    ("minutes", "fewest", "n"),
    [(10, 1, 100), (9.99, 1, 50), (5, 1, 50), (4.9, 1, 25), (1.3, 12, 12), (1.3, 13, 0), (1e-9, 1, 0), (math.inf, 1, 100)],
)  # fmt: skip
def test_halves_until_it_fits(minutes: float, fewest: int, n: int) -> None:
    found = Fit.of(minutes, PART, 100, lambda n: n * MINUTE / 10, fewest)
    assert found == Fit(n, 100, minutes, 10)
    assert found.reduced == (n < 100)
    assert Fit.of(found.needed, PART, 100, lambda n: n * MINUTE / 10).n == 100


def test_less_than_the_fewest_is_enough_where_there_is_no_more() -> None:
    assert Fit.of(MINUTES, PART, 3, lambda n: n, fewest=40).n == 3
    assert Fit.of(MINUTES, PART, 0, lambda n: n).n == 0


def test_the_shares_are_of_one_whole() -> None:
    assert 0.8 < sum(SHARES.values()) < 1


def subject_of(net: torch.nn.Module, shape: tuple[int, ...], classes: int, tests: int) -> ReportedRun:
    """A network that nobody trained, with so many test images, all right."""
    names = tuple(map(str, range(classes)))
    scope, subject = Scope(net, torch.zeros(1, *shape), names), object.__new__(ReportedRun)
    true = torch.arange(tests) % classes
    answers = SimpleNamespace(
        true=true, wrong=torch.zeros(tests, dtype=torch.bool), head=SimpleNamespace(classes=names)
    )
    subject.__dict__ |= {
        "scope": scope, "anatomy": scope.anatomy(), "minutes": MINUTES, "answers": [answers],
        "run": SimpleNamespace(input_shape=shape), "data": SimpleNamespace(test=torch.zeros(()).expand(tests, *shape)),
    }  # fmt: skip
    return subject


def fits(subject: ReportedRun) -> dict[str, Fit]:
    """Of all parts but the picture sheets of the report."""
    convolutions = [op.name for op in subject.scope.graph.operations if op.kind == "conv"]
    _, occluded = saliency._occlusion_fit(subject)
    size = saliency.occlusion_sizes(min(subject.run.input_shape[1:]))[1]
    kinds = saliency._kinds(subject, ["guided_backprop", "grad_cam"], size)
    return {
        "Saliency maps": occluded,
        "Heatmap validation": validation.validation_fit(subject, kinds),
        "Ablation": ablation.ablation_fit(subject, ablation.chosen_filters(subject)),
        "Filters: images and statistics": filters.filters_fit(subject),
        "Filters: feature visualization": visualization.visualization_fit(
            subject, {name: subject.scope.n_units(name) for name in convolutions}
        ),
        "Feature visualization": visualization.feature_visualization_fit(subject),
    }


@pytest.mark.parametrize(
    ("name", "shape", "classes", "tests"),
    [
        ("mnist-net", (1, 28, 28), 10, 10_000),
        ("lean-cifar", (3, 32, 32), 10, 10_000),
        ("lines-net", (3, 28, 28), 96, 38_400),
        ("lenet5", (1, 32, 32), 10, 10_000),
        ("net1", (3, 32, 32), 10, 10_000),
    ],
)
def test_reports_of_small_networks_are_whole(name: str, shape: tuple[int, ...], classes: int, tests: int) -> None:
    net = build_net(name, classes=classes, channels=shape[0], image_size=shape[1])
    found = fits(subject_of(net, shape, classes, tests))
    assert list(found) == sorted(found, key=list(found).index)
    assert not {part: fit for part, fit in found.items() if fit.reduced}


def test_a_network_of_photographs_gets_less_of_each_part_and_the_same_each_time() -> None:
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 64, 7, 2, 3), torch.nn.ReLU(), torch.nn.Conv2d(64, 128, 3, 2, 1), torch.nn.ReLU(),
        torch.nn.Conv2d(128, 512, 3, 2, 1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(512, 10),
    )  # fmt: skip
    first, second = (fits(subject_of(net, (3, 224, 224), 10, 5000)) for _ in range(2))
    assert first == second
    assert all(fit.reduced for fit in first.values())
    assert first["Filters: images and statistics"].n in (5000 // 2**k for k in range(1, 7))
    assert first["Ablation"].n in (1000 // 2**k for k in range(1, 6))


def within(run: Run, part: str, share: float, monkeypatch: pytest.MonkeyPatch) -> ReportedRun:
    """The run with a budget in which that share of a part fits, but no more."""
    subject = ReportedRun(run, run.load_data(), math.inf)
    found: list[float] = []
    fit = Fit.of

    def measured(minutes, name, whole, work, fewest=1):
        if name == part:
            found.append(work(whole) / (60 * WORK_PER_S * SHARES[name]))
        return fit(minutes, name, whole, work, fewest)

    with monkeypatch.context() as patched:
        patched.setattr(Fit, "of", measured)
        {"Ablation": lambda: ablation.ablation_fit(subject, ablation.chosen_filters(subject)),
         "Filters: images and statistics": lambda: filters.filters_fit(subject)}[part]()  # fmt: skip
    return ReportedRun(run, subject.data, found[0] * share)


def test_an_ablation_of_fewer_images_has_their_figures_and_says_so(
    reported: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "_FEWEST_IMAGES", 4)
    subject = within(reported, "Ablation", 0.5, monkeypatch)
    found, n = ablation.ablation_section(subject), len(subject.data.test)
    rows = torch.linspace(0, n - 1, n // 2).long()
    assert found is not None
    assert found["n"] == n // 2
    right = (~subject.answers[0].wrong)[rows]
    assert found["before"] == proportion(int(right.sum()), n // 2).to_json()
    page = " ".join(render(subject).split())
    told = rf"{n // 2} of {n} images: the budget of \S+ minutes; <code>convscope report {subject.run.path} --minutes 1</code>"
    assert re.search(told, page.split('id="ablation"')[1])


def test_what_does_not_fit_is_left_out_with_the_command_that_makes_it(reported: Run) -> None:
    subject = ReportedRun(reported, reported.load_data(), minutes=1e-6)
    page = " ".join(render(subject).split())
    for look in (
        "maximize",
        "occlusion",
        "faithfulness --method grad_cam",
        "ablate --units 'conv1:0,1'",
        "top_patches --layer LAYER",
    ):
        assert f"<code>convscope look {reported.path} {look}</code> makes it" in page.replace("&#39;", "'")
    assert page.count("does not fit the budget of 1e-06 minutes") == 5
    assert 'href="filters.html"' not in page
    assert "Occlusion by a square" not in page
    assert "Guided backpropagation" in page


def test_without_a_limit_and_within_it_nothing_is_said(reported: Run) -> None:
    data = reported.load_data()
    plain, unlimited = (render(ReportedRun(reported, data, minutes)) for minutes in (3.0, math.inf))
    assert plain == unlimited
    assert "the budget of" not in plain


def test_filters_of_fewer_images_name_those_of_the_set(reported: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "_FEWEST_IMAGES", 4)
    subject = within(reported, "Filters: images and statistics", 0.5, monkeypatch)
    test, n = subject.data.test, len(subject.data.test)
    chosen = torch.linspace(0, n - 1, n // 2).long()
    found, labels = filters.filters(subject), test.targets_of("class")
    patches = Scope(reported).top_patches(test.subset(chosen), ["conv"], top=20, score="max")["conv1"]
    assert found["tests"] == n // 2
    assert [labels[row] for row in found["images"]["row"]] == found["images"]["class"]
    for unit, images in enumerate(found["layers"][0]["image"]):
        rows = [found["images"]["row"][image] for image in images]
        assert rows == chosen[patches.index[unit, : len(rows)]].tolist()
    page = " ".join(filters_page(subject).split())
    assert re.search(rf"Evenly over the set: {n // 2} of {n} images: the budget of", page)


def test_ablation_of_each_filter_grows_with_the_budget(reported: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "_FEWEST_EFFECT_IMAGES", 10)
    subject = ReportedRun(reported, reported.load_data())
    units = subject.scope.n_units("conv1") * subject.anatomy.multiply_adds
    monkeypatch.setattr(filters, "_EFFECT_COST", 5.5 * units)
    assert effects_of(subject) is None
    assert "filter_effects --layer LAYER</code> makes it" in filters_page(subject)
    found = effects_of(ReportedRun(reported, subject.data, minutes=6))
    assert found is not None
    assert found["conv1"][0]["images"] == 11  # type: ignore[index]
