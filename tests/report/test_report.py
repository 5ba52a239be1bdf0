"""What is in the report's file."""

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from convscope.data import DataBundle, load_data
from convscope.errors import RunFolderError
from convscope.nets import build_net
from convscope.report import ReportedRun, render, write_comparison, write_report
from convscope.report.findings import findings
from convscope.report.inside import feature_maps
from convscope.report.mistakes import confused_pairs, confusion_matrices, orders
from convscope.report.saliency import saliency_maps
from convscope.report.visualization import feature_visualization
from convscope.runs import FILTERS, REPORT, Recipe, Run, open_run
from convscope.scans import evaluate
from convscope.study import compare
from convscope.training import Silent, train
from tests.conftest import spots_of


class _Links(HTMLParser):
    """All addresses that a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key in {"src", "href", "srcset", "data"} and value is not None:
                self.found.append(value)
            if tag == "section" and key == "id" and value is not None:
                self.parts.append(value)


def _read(run: Run) -> tuple[str, _Links]:
    text = (run.path / REPORT).read_text()
    links = _Links()
    links.feed(text)
    return text, links


def test_one_file_that_needs_no_network(reported: Run) -> None:
    text, links = _read(reported)
    assert all(link.startswith(("data:", "#")) or link == FILTERS for link in links.found), links.found
    assert "@import" not in text.split("</style>")[0]
    assert len(text) < 8_000_000


def test_all_parts_are_there(reported: Run) -> None:
    _, links = _read(reported)
    expected = [
        "answers",
        "training",
        "confusion",
        "classes",
        "mistakes",
        "network",
        "filters",
        "visualization",
        "maps",
        "saliency",
        "ablation",
        "data",
        "again",
    ]
    assert links.parts == expected


def test_a_right_image_of_each_class_is_explained_by_figures_of_the_lenses(reported: Run) -> None:
    subject = ReportedRun(reported, reported.load_data())
    found = saliency_maps(subject)
    answers = subject.answers[0]
    assert [one["answer"] for one in found["rows"]] == [
        answers.head.classes[answers.true[r["row"]]] for r in found["rows"]
    ]
    assert not any(answers.wrong[one["row"]] for one in found["rows"])
    first, image = found["rows"][0], subject.data.test.images([found["rows"][0]["row"]])
    for size, shown in zip(found["sizes"], first["occluded"], strict=True):
        expected = subject.scope.occlusion(image, size, fill="mean").sum.item()
        assert shown["sum"].startswith(f"sum {expected:.1f} of ")
    text, _ = _read(reported)
    assert all(one["occluded"][0]["sum"] in text for one in found["rows"])


def test_feature_maps_are_named_by_the_true_class_and_count_their_silent_units(
    reported: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = ReportedRun(reported, reported.load_data())
    [answers] = subject.answers
    subject.__dict__["answers"] = [replace(answers, predicted=(answers.true + 1) % 3)]
    monkeypatch.setattr(subject, "chosen_images", lambda: [0, 2])
    images, true = subject.data.test.images([0, 2]), subject.data.test.targets_of()[[0, 2]]
    for shown in feature_maps(subject):
        maps = subject.scope.activations(images, [shown["layer"]])[shown["layer"]]
        assert [one["class"] for one in shown["images"]] == [reported.classes[k] for k in true]
        assert [one["silent"] for one in shown["images"]] == [
            sum(not bool((unit > 0).any()) for unit in units) for units in maps
        ]
        assert shown["size"] == "×".join(map(str, maps.shape[2:]))


def test_what_excites_the_units_is_shown_of_the_first_and_last_layers_and_of_the_classes(reported: Run) -> None:
    found = feature_visualization(ReportedRun(reported, reported.load_data()))
    assert [(one["layer"], one["shown"]) for one in found["parts"]] == [("relu1", 8), (None, 3)]
    assert found["parts"][1]["names"] == list(reported.classes)


def test_figures_are_those_of_the_metrics(reported: Run) -> None:
    text, _ = _read(reported)
    metrics = reported.metrics
    assert f"{100 * metrics['accuracy']['value']:.2f} %" in text
    assert f"{metrics['loss']['value']:.3f}" in text
    for row in metrics["heads"]["class"]["per_class"]:
        assert f"{100 * row['recall']['value']:.1f} %" in text


def test_text_from_outside_cannot_become_markup(reported: Run, tmp_path: Path) -> None:
    subject = ReportedRun(open_run(reported.path), reported.load_data())
    head = subject.metrics["heads"]["class"]
    head["classes"][0] = head["per_class"][0]["class"] = "</script><script>alert(1)</script>"
    text = render(subject)
    assert "<script>alert(1)" not in text
    assert re.search(r"&lt;/script&gt;", text)


def test_the_most_confused_pair_is_the_matrixs_largest(reported_96: Run) -> None:
    subject = ReportedRun(reported_96, reported_96.load_data())
    matrix = reported_96.metrics["heads"]["class"]["confusion"]
    largest = max(n for i, row in enumerate(matrix) for j, n in enumerate(row) if i != j)
    first = confused_pairs(subject)[0]
    assert first["images"] == largest
    assert all(row["true"] == first["true"] and row["predicted"] == first["predicted"] for row in first["examples"])


def test_every_order_of_classes_has_each_once(reported_96: Run) -> None:
    [matrix] = confusion_matrices(ReportedRun(reported_96, reported_96.load_data()))
    assert all(sorted(order) == list(range(96)) for order in matrix["orders"].values())


def test_findings_are_sentences(reported: Run) -> None:
    found = findings(ReportedRun(reported, reported.load_data()))
    assert len(found) >= 4
    assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in found)


@pytest.mark.slow
def test_classes_without_images_are_borne(tmp_path: Path) -> None:
    """The third class has no test images, the fourth is only a name; the filter page and a comparison too."""
    images, targets = spots_of(150)
    tested = targets != 2
    tested[:90] = False
    arrays = {"x_train": images[:90], "y_train": targets[:90], "x_test": images[tested], "y_test": targets[tested]}
    np.savez(tmp_path / "few.npz", classes=np.array(["left", "middle", "right", "nowhere"]), **arrays)
    data = load_data(str(tmp_path / "few.npz"))
    runs = []
    for name in ("one", "two"):
        torch.manual_seed(len(runs))
        net = build_net("c4b M f8", classes=4, image_size=8)
        run = train(net, data, Recipe(epochs=2, batch=16), tmp_path / name, device="cpu", watcher=Silent())
        evaluate(run, data, "cpu")
        text = write_report(run, data).read_text()
        runs.append(run)
    head = run.metrics["heads"]["class"]
    assert 'nowhere <span class="faint">no training images</span>' in text
    assert "of recall 2, without test images;" in text
    assert (run.path / FILTERS).is_file()
    assert [row["images"] for row in head["per_class"]] == [20, 20, 0, 0]
    assert orders(head["confusion"])["hardest first"][2:] == [2, 3]
    write_comparison(compare(runs), tmp_path / "compared.html")


def test_a_run_without_evaluation_is_refused(reported: Run, tmp_path: Path) -> None:
    for file in reported.path.iterdir():
        if file.is_file() and file.name not in {"metrics.json", REPORT}:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(RunFolderError, match="convscope evaluate makes it"):
        write_report(open_run(tmp_path))
    assert not (tmp_path / REPORT).exists()


class Deciding(torch.nn.Module):
    """A path that depends on pixels, which torch.export refuses; and a convolution that is no module."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(4, 3, 3, 3) * 0.2)
        self.head = torch.nn.Linear(4 * 36, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = torch.nn.functional.conv2d(images, self.weight)
        if maps.mean() > 1e9:
            maps = -maps
        return self.head(maps.relu().flatten(1))


def test_a_network_that_cannot_be_traced_has_a_report_without_its_maps(
    spots: Callable[..., DataBundle], tmp_path: Path
) -> None:
    data = spots(120)
    run = train(Deciding(), data, Recipe(epochs=1, batch=24), tmp_path / "run", device="cpu", watcher=Silent())
    evaluate(run, data, "cpu")
    write_report(run, data)
    text, links = _read(run)
    assert not {"maps", "visualization", "saliency", "ablation"} & set(links.parts)
    assert "cannot be traced" in text
    assert "given its first weights in Python" in text
    assert FILTERS not in text
    assert not (run.path / FILTERS).exists()
