"""How noisy is a mini-batch's gradient? Every possible batch, counted.

The gradient of a mini-batch is an estimate of the gradient of the whole data set. Drawn at random, it is right on
average (no bias), and off by a variance that shrinks as the batch grows. With σ² the variance of the gradient over the
N single samples, a batch of B samples has the variance

    σ²/B                      when each sample is drawn from all N (with replacement),
    σ²/B · (N - B)/(N - 1)    when no sample is drawn twice, as in an epoch (without replacement).

The second factor is why a batch of all N samples has no noise, and why epochs shuffle rather than draw.

Eight samples are few enough to check both formulas without any luck: the loader is given *every* batch there is. With
replacement there are 8^B ordered draws, 16.8 million for B = 8, but the order within a batch does not change its mean:
6,435 different batches are left, each counted as often as it can be ordered.

The numbers below are those of the eight samples of `sgd_from_scratch.py` at w = 0, b = 0. Each parameter has a σ² of
its own; w1's is 112.671875.

Run it: ``python examples/gradient_noise.py``
"""

from __future__ import annotations

from collections import Counter
from itertools import combinations, combinations_with_replacement
from math import factorial, prod

import numpy as np
from sgd_from_scratch import FEATURES, TARGETS, loss_and_gradient

from feedline import DataLoader, TensorDataset

N = len(TARGETS)
PARAMETERS = ("w1", "w2", "b")


def gradients(batches: list[list[int]]) -> np.ndarray:
    """The gradient (w1, w2, b) at w = 0, b = 0 of each batch, shape (len(batches), 3)."""
    loader = DataLoader(TensorDataset(FEATURES, TARGETS), batch_sampler=batches)
    rows = []
    for x, y in loader:
        _, w_gradient, b_gradient = loss_and_gradient(np.zeros(2), 0.0, x, y)
        rows.append([*w_gradient, b_gradient])
    return np.array(rows)


def mean_and_variance(batch_size: int, *, replacement: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the batch gradient over all batches of this size, each of shape (3,): w1, w2, b."""
    if replacement:
        batches = [list(batch) for batch in combinations_with_replacement(range(N), batch_size)]
        ways = [orderings(batch) for batch in batches]
        assert sum(ways) == N**batch_size, "every ordered draw is counted once"
    else:
        batches = [list(batch) for batch in combinations(range(N), batch_size)]
        ways = [1] * len(batches)
    found = gradients(batches)
    mean = np.average(found, axis=0, weights=ways)
    return mean, np.average((found - mean) ** 2, axis=0, weights=ways)


def orderings(batch: list[int]) -> int:
    """In how many orders the samples of a batch can be drawn: B! over the product of the repeats' factorials.

    >>> orderings([1, 2]), orderings([1, 1]), orderings([1, 1, 2])
    (2, 1, 3)
    """
    return factorial(len(batch)) // prod(factorial(times) for times in Counter(batch).values())


def main() -> None:
    """Print what the formulas say next to what counting every batch gives."""
    mean, sigma2 = mean_and_variance(1, replacement=True)
    print("gradient of single samples at w = 0, b = 0\n")
    print("parameter        mean    variance")
    for name, centre, variance in zip(PARAMETERS, mean, sigma2, strict=True):
        print(f"{name:9} {centre:11.4f} {variance:11.6f}")
    print("\nvariance of the batch gradient of w1\n")
    print(" B   with replacement: formula, counted   without replacement: formula, counted")
    for B in (1, 2, 4, 8):
        drawn = mean_and_variance(B, replacement=True)[1][0]
        dealt = mean_and_variance(B, replacement=False)[1][0]
        formula = sigma2[0] / B
        print(f"{B:2} {formula:27.2f} {drawn:9.2f} {formula * (N - B) / (N - 1):31.2f} {dealt:9.2f}")


if __name__ == "__main__":
    main()
