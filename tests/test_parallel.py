"""PyTorch's threads shared out among tasks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from convscope.compute.parallel import share_threads


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(("n_tasks", "each"), [(9, 1), (4, 1), (3, 1), (2, 2), (1, 4)])
def test_each_task_has_its_share(n_tasks: int, each: int) -> None:
    found = list(share_threads(lambda task: (task, torch.get_num_threads()), iter(range(n_tasks))))
    assert found == [(task, each) for task in range(n_tasks)]
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_threads")
def test_the_number_comes_back_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError):
        list(share_threads(lambda task: 1 / task, [2, 1, 0]))
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_threads")
def test_no_task_no_result() -> None:
    assert list(share_threads(lambda task: task, [])) == []
