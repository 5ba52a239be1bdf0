"""The claims of the reports, tested on runs: against tests worked out by other means, and on networks whose answer is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from convscope.courses import (
    Claim,
    JudgedClaim,
    Reproduction,
    claim_rows,
    find_reproduction,
    reproduce,
    reproduced,
    reproduction_page,
    reproduction_to_json,
    reproductions,
)
from convscope.courses.claims import _alike, measure_networks, verdict_of_claim
from convscope.courses.measured import MEASUREMENTS
from convscope.data import ImageSet
from convscope.runs import open_run
from convscope.scans import Estimate
from convscope.scope import Scope
from convscope.study import StudyRun, open_study
from tests.conftest import write_spots
from tests.courses.repeats import NAME, TEXT, add, begin, ship_texts

CLAIMS = """
  claims:
    - says: wide is better
      metric: test_accuracy
      terms: [[1, {net.width: 8}], [-1, {net.width: 4}]]
    - says: narrow is better
      metric: test_accuracy
      terms: [[-1, {net.width: 8}], [1, {net.width: 4}]]
    - says: they are within 20 points
      metric: test_accuracy
      terms: [[1, {net.width: 8}], [-1, {net.width: 4}]]
      within: 0.2
    - says: three widths
      metric: test_accuracy
      terms: [[1, {net.width: 8}], [-2, {net.width: 4}], [1, {net.width: 64}]]
    - says: the wide one takes longer
      metric: epoch_seconds
      terms: [[1, {net.width: 8}], [-1, {net.width: 4}]]
    - {says: filters matter, metric: filters_off}
  budgets:
"""
ACCURACIES = {(1, 0): 0.55, (1, 1): 0.57, (1, 2): 0.56, (2, 0): 0.62, (2, 1): 0.61, (2, 2): 0.64}


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    source = tmp_path / "spots.npz"
    write_spots(source, 120, side=16)
    text = TEXT.format(source=source).replace("\n  budgets:\n", CLAIMS.rstrip() + "\n")
    ship_texts(monkeypatch, {NAME: text})
    return tmp_path / "runs"


def _judged(out: Path) -> dict[str, JudgedClaim]:
    return {each.claim.says: each for each in reproduced(out, [NAME])[0].claims}


def test_pairs_of_runs_are_tested_by_student(out: Path) -> None:
    folder = begin(out)
    for (number, seed), accuracy in ACCURACIES.items():
        add(folder, number, seed, accuracy)
    found = _judged(out)
    runs = [run.open() for run in open_study(folder).runs]
    value = {(run.spec.net.options["width"], run.spec.recipe.seed): run.metrics["accuracy"]["value"] for run in runs}
    differences = [value[8, seed] - value[4, seed] for seed in (0, 1, 2)]
    interval = stats.ttest_1samp(differences, 0).confidence_interval()
    wide = found["wide is better"]
    assert wide.difference.figures == pytest.approx((np.mean(differences), interval.low, interval.high))
    assert (wide.verdict, wide.basis) == ("confirmed", "3 pairs")
    narrow = found["narrow is better"]
    assert narrow.difference.figures == pytest.approx((-np.mean(differences), -interval.high, -interval.low))
    assert narrow.verdict == "contradicted"
    assert found["they are within 20 points"].verdict == "confirmed"
    assert found["three widths"] == JudgedClaim(found["three widths"].claim)  # no run has the third width
    assert found["filters matter"].verdict == "not run"
    seconds = [run.history.seconds for run in runs]
    assert found["the wide one takes longer"].basis == f"{3 * len(seconds[0])} epochs"


def test_of_few_pairs_without_seeds_the_images_tell(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = TEXT.format(source=out.parent / "spots.npz").replace("seeds: [0, 1, 2]", "seeds: [0]")
    claims = CLAIMS.replace("metric: test_accuracy", "metric: mean_val_accuracy").rstrip() + "\n"
    ship_texts(monkeypatch, {NAME: text.replace("\n  budgets:\n", claims)})
    folder = begin(out)
    runs = [open_run(add(folder, number, 0, 0.5 + 0.1 * number)) for number in (1, 2)]
    wide = _judged(out)["wide is better"]
    narrow_mean, wide_mean = (run.history.val_accuracy.mean() for run in runs)
    assert wide.difference.value == pytest.approx(wide_mean - narrow_mean)
    normal = 1.96 * np.sqrt(sum(p * (1 - p) / 2000 for p in (narrow_mean, wide_mean)))
    assert wide.difference.high - wide.difference.value == pytest.approx(normal, rel=0.01)
    assert wide.basis == "1 pair, 2,000 images"


def test_while_runs_are_to_come_nothing_is_said(out: Path) -> None:
    folder = begin(out)
    add(folder, 1, 0, 0.5)
    add(folder, 2, 0, 0.9, finished=False)
    assert _judged(out)["wide is better"].verdict == "unfinished"


@pytest.mark.parametrize(
    ("interval", "within", "verdict"),
    [
        ((0.01, 0.03), None, "confirmed"),
        ((-0.03, -0.01), None, "contradicted"),
        ((-0.01, 0.03), None, "cannot be told"),
        ((None, None), None, "cannot be told"),
        ((-0.01, 0.01), 0.02, "confirmed"),
        ((-0.01, 0.03), 0.02, "cannot be told"),
        ((0.021, 0.03), 0.02, "contradicted"),
        ((-0.03, -0.021), 0.02, "contradicted"),
    ],
)
def test_the_verdict_is_the_intervals(interval: tuple[float, float], within: float | None, verdict: str) -> None:
    claim = Claim(says="a", metric="test_accuracy", terms=((1, {}), (-1, {})), within=within)
    assert verdict_of_claim(claim, Estimate(0.0, *interval)) == verdict


@pytest.mark.parametrize("name", reproductions())
def test_every_shipped_claim_has_runs_that_differ_in_it_alone(name: str) -> None:
    spec = find_reproduction(name)
    runs = [
        StudyRun(number, seed, settings, "done", Path())
        for number, settings in enumerate(spec.grid(), 1)
        for seed in spec.seeds
    ]
    for claim in map(Claim.model_validate, spec.reproduces["claims"]):
        assert claim.metric in MEASUREMENTS or _alike(claim, spec, runs), claim.says
        assert sum(factor for factor, _ in claim.terms) == 0


def test_the_page_and_the_json_have_each_claim(out: Path) -> None:
    folder = begin(out)
    for (number, seed), accuracy in ACCURACIES.items():
        add(folder, number, seed, accuracy)
    found: Reproduction = reproduced(out, [NAME])[0]
    rows = {row[0]: row for row in claim_rows(found)}
    assert rows["filters matter"] == ("filters matter", "–", "", "not run")
    value, low, high = (100 * x for x in found.claims[0].difference.figures)
    assert rows["wide is better"][1:] == (
        f"+{value:.2f} (+{low:.2f} to +{high:.2f}) points",
        "3 pairs",
        "confirmed",
    )
    page = reproduction_page([found], "convscope reproduce")
    for row in rows.values():
        assert f"| B | [{NAME}](#{NAME}) | {' | '.join(row)} |" in page
    told = reproduction_to_json(found)["claims"][0]
    assert (told["says"], told["verdict"], told["difference"]["value"]) == ("wide is better", "confirmed", value / 100)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metric": "test_acuracy", "terms": [[1, {}], [-1, {}]]}, "'test_acuracy'; expected one of test_accuracy"),
        ({"metric": "parameters", "terms": [[1, {}], [-1, {}]]}, "'parameters'; expected one of"),
        ({"metric": "test_accuracy"}, "terms are of runs"),
        ({"metric": "epoch_seconds", "terms": [[1, {}]]}, "terms are of runs"),
        ({"metric": "filters_off", "terms": [[1, {}]]}, "terms are of runs"),
    ],
)
def test_a_claim_that_cannot_be_tested_is_refused(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Claim.model_validate({"says": "a", **given})


class _Two(nn.Module):
    """Two convolutions; the first passes on red and nothing, the second has a unit that never fires."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.relu1 = nn.Conv2d(3, 3, 1, bias=False), nn.ReLU()
        self.conv2, self.relu2 = nn.Conv2d(3, 4, 1), nn.ReLU()
        self.head = nn.Linear(4, 2)
        with torch.no_grad():
            self.conv1.weight.copy_(torch.eye(3)[..., None, None])
            self.conv2.weight.zero_()
            self.conv2.weight[0, 0] = 1
            self.conv2.weight[2, 2] = 1
            self.conv2.bias.copy_(torch.tensor([0.0, -1, 0, -1]))
            self.head.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0]]))
            self.head.bias.copy_(torch.tensor([0.0, 0.01]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.relu2(self.conv2(self.relu1(self.conv1(x))))
        return self.head(h.mean((2, 3)))


def _coloured(n: int) -> ImageSet:
    """Images of red (class 0) and blue (class 1) squares: half the image."""
    pixels = torch.zeros(n, 3, 12, 12, dtype=torch.uint8)
    labels = torch.arange(n) % 2
    for i, label in enumerate(labels.tolist()):
        pixels[i, 2 * label, :, :6] = 100 + i
    return ImageSet(pixels, torch.arange(n), {"class": labels}, {"class": ("red", "blue")})


def test_filters_off_is_what_a_network_without_them_loses() -> None:
    net, test = _Two().eval(), _coloured(40)
    found, basis = MEASUREMENTS["filters_off"](Scope(net, test.images([0])), test)
    off = _Two().eval()
    with torch.no_grad():
        off.conv1.weight[:2] = 0
        off.conv2.weight[:2] = 0
        off.conv2.bias[:2] = 0
        before = (net(test.images()).argmax(1) == test.targets_of()).float().mean()
        after = (off(test.images()).argmax(1) == test.targets_of()).float().mean()
    assert before == 1
    assert found.value == pytest.approx(float(before - after))
    assert 0 < found.low < found.value < found.high
    assert basis == "40 test images"


def test_occlusion_by_size_is_the_mean_over_all_places_of_a_loop() -> None:
    net, test = _Two().eval(), _coloured(4)
    scope = Scope(net, test.images([0]))
    found, _ = MEASUREMENTS["occlusion_by_size"](scope, test)
    means = []
    for size in (3, 11):
        each = []
        for image, label in zip(test.images(), test.targets_of().tolist(), strict=True):
            covered = []
            for r in range(12 - size + 1):
                for c in range(12 - size + 1):
                    one = image.clone()
                    one[:, r : r + size, c : c + size] = 0.5
                    covered.append(scope.probabilities(one[None])[0, label])
            each.append(torch.stack(covered).mean())
        means.append(torch.stack(each))
    differences = (means[0] - means[1]).numpy()
    interval = stats.ttest_1samp(differences, 0).confidence_interval()
    assert found.figures == pytest.approx((differences.mean(), interval.low, interval.high), abs=1e-5)


def test_sparser_with_depth_is_the_share_of_zeros() -> None:
    net, test = _Two().eval(), _coloured(10)
    found, basis = MEASUREMENTS["sparser_with_depth"](Scope(net, test.images([0])), test)
    with torch.no_grad():
        first = net.relu1(net.conv1(test.images()))
        last = net.relu2(net.conv2(first))
    shares = [(maps == 0).float().mean((0, 2, 3)).numpy() for maps in (last, first)]
    assert found.value == pytest.approx(shares[0].mean() - shares[1].mean())
    welch = stats.ttest_ind(*shares, equal_var=False).confidence_interval()
    assert found.figures[1:] == pytest.approx((welch.low, welch.high))
    assert basis == "4 and 3 units, 10 test images"


def test_a_single_pair_is_tested_on_its_images_and_a_network_once(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = reproduce(NAME, "smoke", out)
    wide, off = (_judged(out)[says] for says in ("wide is better", "filters matter"))
    labels = [run.open().load_data().test.targets_of() for run in study.runs]
    right = [
        (run.open().predictions["logits"].argmax(1) == of).numpy().astype(float)
        for run, of in zip(study.runs, labels, strict=True)
    ]
    interval = stats.ttest_rel(right[1], right[0]).confidence_interval()
    assert wide.difference.figures == pytest.approx((np.mean(right[1] - right[0]), interval.low, interval.high))
    assert wide.basis == f"1 pair, {len(labels[0])} test images"
    assert (wide.verdict, off.verdict) == ("not compared", "not compared")
    assert off.basis.endswith(f", {len(labels[0])} test images")
    monkeypatch.setitem(MEASUREMENTS, "filters_off", lambda *_: pytest.fail("measured again"))
    measure_networks(study, reproduced(out, [NAME], "smoke")[0].told)
    for damaged in (
        "[",
        "[]",
        "[" * 3000,
        '{"filters_off": 3}',
        f'{{"filters_off": {{"value": 1{"0" * 400}, "low": null, "high": null, "run": "", "basis": ""}}}}',
        '{"filters_off": {"value": "x", "low": null, "high": null, "run": "", "basis": ""}}',
    ):
        (study.path / "claims.json").write_text(damaged)
        assert _judged(out)["filters matter"].verdict == "not run"
