"""The loader's own work for a batch: one integer of a list at a time, in order.

Nothing is read and next to nothing is collated, so that what a batch costs is the loader's bookkeeping: feedline
against torch, and against a bare loop that makes an array of each number.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness import Bar, Case, Contender

__all__ = ["build"]


def build(samples: int = 20_000) -> Case:
    """The case, with data of its own."""
    import torch.utils.data

    import feedline

    numbers = list(range(samples))
    ours: Any = feedline.DataLoader(numbers, batch_size=1, seed=0)
    theirs: Any = torch.utils.data.DataLoader(numbers, batch_size=1)
    return Case(
        name="overhead",
        samples=samples,
        batches=samples,
        nbytes=8 * samples,
        contenders=(
            Contender("feedline", lambda _round: ours),
            Contender("torch", lambda _round: theirs),
            Contender("np.array", lambda _round: (np.array([numbers[index]]) for index in range(samples))),
        ),
        bars=(Bar("feedline", "torch"),),
        count=len,
        fingerprint=lambda batch: (int(batch[0]) + 1) ** 2,
        expected=sum((number + 1) ** 2 for number in numbers),
        settings={"batch_size": 1, "shuffled": False, "num_workers": 0},
    )
