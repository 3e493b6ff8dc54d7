"""Gradient accumulation: a large batch when only a small one fits into memory.

Load small batches, add up their gradients, and step once every few batches: the step is the one that the large batch
would have made. That needs two things.

1. The small batches must hold the samples of the large one. Feedline's order depends on the seed and the epoch, never
   on the batch size: two batches of 2 are one of 4, also when shuffling.
2. Every *sample* must count alike. Add up the gradients' sums, and divide by the number of samples when you step. The
   usual shortcut, dividing each batch's mean gradient by the number of batches in a step, is right only while all of
   them are there and full. Where the epoch's length is no multiple, it counts the last samples too little (batches
   are missing in the last step) or too much (the last batch is short).

(Layers that mix the samples of a batch, such as batch normalisation, still see the small one.)

Run it: ``python examples/gradient_accumulation.py``
"""

from __future__ import annotations

import numpy as np
from sgd_from_scratch import FEATURES, LEARNING_RATE, TARGETS, loss_and_gradient

from feedline import DataLoader, TensorDataset

EPOCHS = 3
SEED = 7


def train(batch_size: int, batches: int = 1, *, shortcut: bool = False) -> np.ndarray:
    """The parameters (w1, w2, b) after three shuffled epochs with a step every ``batches`` batches."""
    loader = DataLoader(TensorDataset(FEATURES, TARGETS), batch_size=batch_size, shuffle=True, seed=SEED)
    parameters, total, samples = np.zeros(3), np.zeros(3), 0
    for _ in range(EPOCHS):
        for number, (x, y) in enumerate(loader, start=1):
            _, w_gradient, b_gradient = loss_and_gradient(parameters[:2], parameters[2], x, y)
            gradient = np.append(w_gradient, b_gradient)  # the mean over this batch
            total += gradient / batches if shortcut else gradient * len(y)
            samples += len(y)
            if number % batches == 0 or number == len(loader):
                parameters -= LEARNING_RATE * (total if shortcut else total / samples)
                total, samples = np.zeros(3), 0
    return parameters


def difference(batch_size: int, batches: int, *, shortcut: bool = False) -> float:
    """How far accumulating ends from the large batch: the largest difference in w1, w2 and b."""
    large = train(batch_size * batches)
    return float(abs(train(batch_size, batches, shortcut=shortcut) - large).max())


def main() -> None:
    """Compare both ways of accumulating with the large batch."""
    print(f"{len(TARGETS)} samples, {EPOCHS} shuffled epochs; the largest difference to the large batch in w1, w2, b\n")
    print("small batch   batches a step   large batch   each sample alike   by the shortcut")
    for batch_size, batches in [(1, 4), (2, 2), (2, 4), (2, 3), (3, 2), (3, 3)]:
        alike, shortcut = difference(batch_size, batches), difference(batch_size, batches, shortcut=True)
        print(f"{batch_size:11} {batches:16} {batch_size * batches:13} {alike:19.0e} {shortcut:17.0e}")
    print("\n8 is no multiple of 6 or 9: there the shortcut learns something else.")


if __name__ == "__main__":
    main()
