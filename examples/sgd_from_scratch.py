"""Mini-batch stochastic gradient descent, written out by hand.

A linear model ``prediction = x · w + b`` learns the rule y = 2·x₁ - x₂ + 1 from eight samples. The loss is the mean
squared error of a batch of B samples; its gradient, by the chain rule, is

    loss = 1/B · Σ error²        d loss / dw = 2/B · Σ error · x        d loss / db = 2/B · Σ error

where error = prediction - y. Each step takes the next batch and moves weights and bias a little (the learning rate)
against the gradient. After four steps of two samples the model has seen every sample once: one epoch. Compare that
with one step on all eight samples, which costs as much arithmetic: the four small steps get further.

Run it: ``python examples/sgd_from_scratch.py``
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feedline import DataLoader, TensorDataset

FEATURES = np.array([[1, 0.5], [2, 1], [0.5, 2], [1.5, 0.5], [3, 1.5], [0.5, 0.5], [2.5, 2], [1, 1.5]])
TARGETS = 2 * FEATURES[:, 0] - FEATURES[:, 1] + 1
ORDER = [1, 5, 0, 7, 2, 4, 3, 6]  # a shuffled epoch, written down so that everyone gets the same numbers
LEARNING_RATE = 0.05


@dataclass(frozen=True)
class Step:
    """What one step saw, and the weights and the bias after it."""

    loss: float
    w: np.ndarray
    b: float


def loss_and_gradient(w: np.ndarray, b: float, x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray, float]:
    """The mean squared error on a batch, and its derivatives with respect to w (shape (2,)) and b."""
    error = x @ w + b - y
    return float(np.mean(error**2)), 2 / len(y) * x.T @ error, float(2 * error.mean())


def loss_on_all(w: np.ndarray, b: float) -> float:
    """The mean squared error on the eight samples."""
    return loss_and_gradient(w, b, FEATURES, TARGETS)[0]


def train_one_epoch(batch_size: int) -> list[Step]:
    """One epoch of gradient descent from w = 0, b = 0: its steps."""
    w, b, steps = np.zeros(2), 0.0, []
    for x, y in DataLoader(TensorDataset(FEATURES, TARGETS), batch_size=batch_size, sampler=ORDER):
        loss, w_gradient, b_gradient = loss_and_gradient(w, b, x, y)
        w = w - LEARNING_RATE * w_gradient
        b = b - LEARNING_RATE * b_gradient
        steps.append(Step(loss, w, b))
    return steps


def main() -> None:
    """Print the epoch, step by step."""
    before = loss_on_all(np.zeros(2), 0.0)
    print(f"loss on all eight samples before training: {before:.5f}\n")
    print("batch  samples   loss of it        w1        w2         b  (after the step)")
    steps = train_one_epoch(batch_size=2)
    for number, step in enumerate(steps):
        samples = ORDER[2 * number : 2 * number + 2]
        print(f"{number + 1:5}  {samples!s:7} {step.loss:12.4f} {step.w[0]:9.4f} {step.w[1]:9.4f} {step.b:9.4f}")
    after = loss_on_all(steps[-1].w, steps[-1].b)
    print(f"\nloss on all eight samples after four steps of 2: {after:.4f} ({1 - after / before:.1%} less)")
    (whole,) = train_one_epoch(batch_size=8)
    print(f"loss on all eight samples after one step of 8:   {loss_on_all(whole.w, whole.b):.4f}")


if __name__ == "__main__":
    main()
