"""One independent stream of random numbers for each purpose; the global random state is left alone."""

from __future__ import annotations

import numpy as np


def generator(purpose: str, *key: int) -> np.random.Generator:
    """A NumPy generator that depends on the purpose and the key alone.

    The purpose keeps streams apart that have the same key: `("order", 0, 3)` shuffles the third epoch of
    seed 0, `("augment", 0, 3, 0)` distorts its first batch, and neither tells anything about the other.

    Args:
        purpose: a word that no other use has.
        key: integers from 0 up, such as seed, epoch and step.
    """
    return np.random.default_rng([int.from_bytes(purpose.encode(), "little"), *key])
