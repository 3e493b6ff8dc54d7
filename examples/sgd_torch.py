"""The same epoch of mini-batch SGD, with torch and its autograd.

`sgd_from_scratch.py` derives the gradient by hand. Here torch derives it: ``loss.backward()`` follows the arithmetic
backwards and leaves the gradient in ``parameter.grad``, and ``optimizer.step()`` subtracts the learning rate times it.
The loader needs no change: samples that are torch tensors come out as batches of torch tensors. The last column shows
that both ways give the same weights, up to the rounding of the last bits.

Run it: ``python examples/sgd_torch.py`` (needs torch: ``pip install 'feedline[torch]'``)
"""

from __future__ import annotations

import torch
from sgd_from_scratch import FEATURES, LEARNING_RATE, ORDER, TARGETS, Step, train_one_epoch

from feedline import DataLoader, TensorDataset


def train_one_epoch_in_torch(batch_size: int) -> list[Step]:
    """One epoch of gradient descent from w = 0, b = 0: its steps."""
    features, targets = torch.from_numpy(FEATURES), torch.from_numpy(TARGETS)
    w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    b = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([w, b], lr=LEARNING_RATE)
    steps = []
    for x, y in DataLoader(TensorDataset(features, targets), batch_size=batch_size, sampler=ORDER):
        optimizer.zero_grad()  # gradients add up until they are cleared
        loss = torch.nn.functional.mse_loss(x @ w + b, y)
        loss.backward()
        optimizer.step()
        steps.append(Step(loss.item(), w.detach().numpy().copy(), b.item()))
    return steps


def main() -> None:
    """Print the epoch, step by step, next to the one made by hand."""
    print("batch   loss of it        w1        w2         b   largest difference to the gradient by hand")
    pairs = zip(train_one_epoch_in_torch(batch_size=2), train_one_epoch(batch_size=2), strict=True)
    for number, (step, by_hand) in enumerate(pairs, start=1):
        difference = max(abs(step.w - by_hand.w).max(), abs(step.b - by_hand.b))
        print(f"{number:5} {step.loss:12.4f} {step.w[0]:9.4f} {step.w[1]:9.4f} {step.b:9.4f}   {difference:.0e}")


if __name__ == "__main__":
    main()
