from __future__ import annotations

from typing import Any

import pytest
import torch

from convscope.errors import RequestError
from convscope.lenses.units import choose_units


@pytest.mark.parametrize(
    ("units", "expected"),
    [(None, (0, 1, 2)), (1, (1,)), ([2, 0, 2], (2, 0, 2)), (range(2), (0, 1)), (torch.tensor([1]), (1,))],
)
def test_units(units: Any, expected: tuple[int, ...]) -> None:
    assert choose_units(units, 3, "conv1") == expected


@pytest.mark.parametrize(
    ("units", "message"),
    [(3, "unit 3 is not in layer 'conv1'; it has 0 to 2"), ([0, -1], "unit -1 is not in layer 'conv1'"),
     ([], "expected a whole number or a list of them")],
)  # fmt: skip
def test_wrong_units(units: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        choose_units(units, 3, "conv1")
