import math
import random
from itertools import permutations

import pytest
import torch
from hypothesis import given, strategies as st

from convscope.errors import FailedError
from convscope.scans import ExactSum

finite = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300)


def total_of(values: torch.Tensor, pieces: list[torch.Tensor]) -> bytes:
    found = ExactSum(tuple(values.shape[1:]))
    for piece in pieces:
        part = ExactSum(tuple(values.shape[1:]))
        part.add(values[piece])
        found.merge(part)
    return found.value.numpy().tobytes()


@given(st.lists(finite, max_size=20))
def test_a_sum_is_that_of_fsum(values: list[float]) -> None:
    total = ExactSum()
    for part in torch.tensor(values, dtype=torch.float64).split(7):
        total.add(part)
    assert float(total.value) == pytest.approx(math.fsum(values), rel=2.3e-16, abs=0)


@pytest.mark.parametrize("values", [[5e-324] * 3, [1.7e308], [1e308, 5e-324, -1e308], [-1.5, 1.5], [2.0**32, -1.0]])
def test_sums_at_the_ends_of_the_range(values: list[float]) -> None:
    total = ExactSum()
    total.add(torch.tensor(values, dtype=torch.float64))
    assert float(total.value) == math.fsum(values)


def test_cells_are_summed_each_by_itself() -> None:
    values = torch.randn(40, 3, 4, dtype=torch.float64) * 10.0 ** torch.arange(-5, 7).view(3, 4)
    total = ExactSum((3, 4))
    total.add(values)
    expected = [[math.fsum(values[:, i, j].tolist()) for j in range(4)] for i in range(3)]
    assert total.value.tolist() == expected


def test_every_order_and_partition_gives_the_same_bytes() -> None:
    values = torch.randn(24, 5) * 10.0 ** torch.randint(-20, 20, (24, 5))
    whole = total_of(values, [torch.arange(24)])
    rng = random.Random(0)
    for _ in range(20):
        order = torch.tensor(rng.sample(range(24), 24))
        cuts = sorted(rng.sample(range(1, 24), 3))
        pieces = list(order.tensor_split(cuts))
        for arranged in permutations(pieces):
            assert total_of(values, list(arranged)) == whole


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_is_refused(wrong: float) -> None:
    total = ExactSum((2,))
    with pytest.raises(FailedError, match="numbers to be summed are NaN or infinite"):
        total.add(torch.tensor([[1.0, wrong]]))


def test_a_sum_beyond_doubles_is_refused() -> None:
    total = ExactSum()
    total.add(torch.tensor([1.7e308, 1.7e308, -1.7e308], dtype=torch.float64))
    assert float(total.value) == 1.7e308
    total.add(torch.tensor([1.7e308], dtype=torch.float64))
    with pytest.raises(FailedError, match="too large for a number of 64 bits"):
        _ = total.value
