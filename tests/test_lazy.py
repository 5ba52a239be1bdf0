"""Faces whose files are loaded when their names are first used."""

import subprocess
import sys
from pathlib import Path

import pytest

from convscope import scans, study


def _alone(code: str) -> str:
    """What a fresh Python prints, without the tests' own imports."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_only_the_file_of_a_name_is_loaded() -> None:
    code = (
        "import sys; from convscope.study import summary; print(summary([1.0, 3.0]).mean.value, 'torch' in sys.modules)"
    )
    assert _alone(code) == "2.0 False"


def test_a_function_wins_over_the_file_of_its_name() -> None:
    code = (
        "import convscope; from convscope.study.importance import Term; from convscope.scans.evaluate import _digest;"
        "print(callable(convscope.study.importance), callable(convscope.scans.evaluate))"
    )
    assert _alone(code) == "True True"


def test_names_are_listed_and_unknown_ones_refused() -> None:
    assert {"summary", "importance"} <= set(dir(study))
    with pytest.raises(AttributeError, match="no attribute"):
        scans.no_such  # noqa: B018


def test_a_training_loads_no_more_than_it_needs(tmp_path: Path) -> None:
    """torch._dynamo takes 2 s; torchmetrics and scikit-learn are of the tests alone, altair of pictures."""
    code = f"""
import sys
from convscope.cli import run
run(["train", "lines", "--set", "data.limit=200", "--set", "recipe.epochs=1", "--out", {str(tmp_path / "run")!r}])
print([name for name in ("torch._dynamo", "torchmetrics", "sklearn", "altair") if name in sys.modules])
"""
    assert _alone(code).splitlines()[-1] == "[]"
    assert (tmp_path / "run" / "model.safetensors").exists()
