"""How much of a report's heavy parts is made: what fits a time, by an estimate of the work and not by the clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

MINUTES = 3.0
"""Of a whole report, with its page of filters, on two cores."""

WORK_PER_S = 44e9
"""Multiply-adds that two cores do in a second: 22 G each, as measured on an AMD EPYC with PyTorch 2.13."""

PER_VALUE = 30
"""What a number that an operation gives costs beside its products, in multiply-adds: it is written and read."""

SHARES: Mapping[str, float] = MappingProxyType({
    "Feature visualization": 0.16,
    "Saliency maps": 0.08,
    "Heatmap validation": 0.19,
    "Ablation": 0.08,
    "Filters: images and statistics": 0.20,
    "Filters: feature visualization": 0.20,
})  # fmt: skip
"""Of the time, for each heavy part; what is left is for the ablation of each filter and for the parts that take seconds."""


@dataclass(frozen=True)
class Fit:
    """How much of a part fits what a report may take.

    The same run has the same report whatever else the machine does: sizes are 1, 1/2, 1/4 … of the whole, and which of them is
    taken hangs on the minutes and on the multiply-adds of the network alone.

    Attributes:
        n: how many of its images or units; 0 where not even the fewest fit.
        whole: how many there would be without a limit.
        minutes: what the report may take on two cores; infinite for no limit.
        needed: the whole minutes that hold the whole.
    """

    n: int
    whole: int
    minutes: float
    needed: int

    @classmethod
    def of(cls, minutes: float, part: str, whole: int, work: Callable[[int], float], fewest: int = 1) -> Fit:
        """The largest of `whole`, half of it, a quarter … whose work fits the part's share; 0 if it is below `fewest`.

        Args:
            minutes: of the whole report.
            part: of `SHARES`.
            whole: all that there is to look at.
            work: of so many of them, in multiply-adds.
            fewest: below this the part says nothing.
        """
        per_minute = 60 * WORK_PER_S * SHARES[part]
        n = whole
        while n and work(n) > minutes * per_minute:
            n //= 2
        return cls(n if n >= min(fewest, whole) else 0, whole, minutes, math.ceil(work(whole) / per_minute))

    @property
    def reduced(self) -> bool:
        return self.n < self.whole
