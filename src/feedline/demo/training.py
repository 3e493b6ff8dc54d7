"""The training loop: an epoch after the other, with a clock that tells waiting for data from computing.

Guarantee: losses and accuracies are a function of the problem and the settings, to the last bit on one machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from feedline.demo.network import Momentum, Network
from feedline.demo.problem import ToFeatures
from feedline.loader import DataLoader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from feedline.demo.problem import Problem

__all__ = ["EpochResult", "Settings", "epochs_for", "train"]

_HIDDEN = 128  # OpenBLAS leaves products up to 32 x 64 x 128, the digits', to one thread, which waits for no busy core
_LEARNING_RATE = 0.8  # over the root of the inputs; found good on the digits, on MNIST and on CIFAR-10
_MOST_EPOCHS = 20  # by then the digits have settled
_PIXELS = 200_000_000  # what two cores learn from in ten seconds; other work on them may triple it


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train: the number of epochs, the samples in a batch, the seed of the weights and of the order."""

    epochs: int
    batch_size: int
    seed: int


@dataclass(frozen=True, slots=True)
class EpochResult:
    """What an epoch came to.

    Args:
        number: of the epoch, from 1.
        loss: averaged over the samples trained on.
        correct: how many of the images to check with were told right afterwards, out of ``checked``.
        samples: how many were trained on.
        waiting_s: the time in which the loop waited for the loader, in seconds.
        computing_s: the time in which the network learned.
    """

    number: int
    loss: float
    correct: int
    checked: int
    samples: int
    waiting_s: float
    computing_s: float

    @property
    def accuracy(self) -> float:
        """The share of the images to check with that were told right."""
        return self.correct / self.checked


def epochs_for(problem: Problem) -> int:
    """How many epochs end within half a minute or so, if images are quick to load: from 1 to 20.

    Example:
        >>> from feedline.demo.problem import digits
        >>> epochs_for(digits(seed=0))
        20
    """
    pixels = len(problem.train) * math.prod(problem.image_shape)
    return min(_MOST_EPOCHS, max(1, _PIXELS // pixels))


def train(problem: Problem, settings: Settings, on_batch: Callable[[], None] = lambda: None) -> Iterator[EpochResult]:
    """Train a network and give each epoch as it ends; ``on_batch`` is called after each batch."""
    to_features = ToFeatures(problem.brightest)
    train_loader: DataLoader[Any] = DataLoader(
        problem.train, settings.batch_size, shuffle=True, seed=settings.seed, batch_transform=to_features
    )
    validation_loader: DataLoader[Any] = DataLoader(
        problem.validation, settings.batch_size, seed=settings.seed, batch_transform=to_features
    )
    inputs = math.prod(problem.image_shape)
    network = Network(inputs, _HIDDEN, problem.classes, seed=settings.seed)
    descent = Momentum(network.parameters, learning_rate=_LEARNING_RATE / math.sqrt(inputs))

    for number in range(1, settings.epochs + 1):
        samples, loss_sum, waiting_s, computing_s = 0, 0.0, 0.0, 0.0
        batches = iter(train_loader)
        while True:  # a for loop, written out to time its next()
            asked = perf_counter()
            batch = next(batches, None)
            got = perf_counter()
            if batch is None:
                break
            features, labels = batch
            loss, gradients = network.gradients(features, labels)
            descent.step(gradients)
            computing_s += perf_counter() - got
            waiting_s += got - asked
            loss_sum += loss * len(labels)
            samples += len(labels)
            on_batch()
        correct = _count_correct(network, validation_loader)
        checked = len(problem.validation)
        yield EpochResult(number, loss_sum / samples, correct, checked, samples, waiting_s, computing_s)


def _count_correct(network: Network, loader: DataLoader[Any]) -> int:
    return sum(int((network.scores(features).argmax(axis=1) == labels).sum()) for features, labels in loader)
