"""That wrong annotations are refused where they are checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from convscope.study import holm
from tests.typechecking import checked

if TYPE_CHECKING:
    from nowhere import Unknown


@checked
def product(a: Float[Tensor, "n c"], b: Float[Tensor, "n d"], more: int = 0) -> Float[Tensor, "c d"]:
    return torch.zeros(a.shape[1], b.shape[1] + more)


@checked
def later(one: Later | Unknown, two: Later) -> float:  # of the first nothing is known
    return 1


@checked
def counted(n: int) -> Iterator[int]:
    yield from range(n)


@checked
@dataclass
class Later:
    square: Float[Tensor, "n n"]


SQUARE = torch.zeros(2, 2)


@pytest.mark.parametrize(
    "call",
    [
        lambda: product(torch.zeros(2, 3), torch.zeros(3, 2)),
        lambda: product(SQUARE, SQUARE, 1),
        lambda: product(SQUARE, SQUARE, "1"),
        lambda: Later(torch.zeros(2, 3)),
        lambda: later(1, 1),
        lambda: counted("3"),
        pytest.param(
            lambda: holm(3),
            marks=pytest.mark.skipif(not os.environ.get("CONVSCOPE_CHECK_ANNOTATIONS"), reason="they are not checked"),
        ),
    ],
)
def test_what_is_annotated_otherwise_is_refused(call: Callable[[], Any]) -> None:
    with pytest.raises((BeartypeCallHintViolation, TypeCheckError)):
        call()


def test_what_is_as_annotated_is_not() -> None:
    assert product(SQUARE, b=torch.zeros(2, 5)).shape == (2, 5)
    assert later(1, Later(SQUARE)) == 1
    assert list(counted(2)) == [0, 1]


@pytest.mark.usefixtures("annotations_unchecked")
def test_nothing_is_refused_while_it_is_switched_off() -> None:
    assert later(1, 1) == 1
