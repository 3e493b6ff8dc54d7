from time import perf_counter

import numpy as np
import pytest

from feedline import TensorDataset
from feedline.demo.problem import Problem, digits
from feedline.demo.training import Settings, epochs_for, train


def losses(seed, epochs=3):
    return [result.loss for result in train(digits(seed), Settings(epochs, batch_size=32, seed=seed))]


@pytest.mark.parametrize("seed", range(5))
def test_digits_are_learned(seed):
    *_, last = train(digits(seed), Settings(epochs=20, batch_size=32, seed=seed))
    assert last.accuracy >= 0.95
    assert last.accuracy == last.correct / 359


def test_losses_are_the_seeds_to_the_last_bit():
    assert losses(seed=7) == losses(seed=7)


def test_another_seed_gives_other_losses():
    assert not set(losses(seed=7)) & set(losses(seed=8))


def test_losses_fall():
    first, second, third = losses(seed=0)
    assert first > second > third


def test_each_batch_is_told_and_each_sample_counted():
    """1,438 samples in batches of 100: 14 full ones and one of 38."""
    ticks = []
    results = train(digits(0), Settings(epochs=2, batch_size=100, seed=0), on_batch=lambda: ticks.append(None))
    first = next(results)
    assert len(ticks) == 15
    second = next(results)
    assert len(ticks) == 30
    assert [(result.number, result.samples, result.checked) for result in (first, second)] == [
        (1, 1438, 359),
        (2, 1438, 359),
    ]
    assert next(results, None) is None


def test_the_loss_is_the_mean_over_samples_of_batches_of_unequal_size():
    """A network that cannot learn (one pixel, always the middle of its range) has a loss that follows from the labels.

    Weights cannot move with such features, and a single batch precedes no step: its loss is that of equal scores.
    """
    images = np.full((5, 1, 1), 1, np.uint8)
    problem = Problem("grey", TensorDataset(images, np.zeros(5, np.int64)), TensorDataset(images, np.zeros(5)), 4, 2)
    (result,) = train(problem, Settings(epochs=1, batch_size=5, seed=0))
    assert result.loss == pytest.approx(np.log(4), rel=1e-6)


def test_time_in_the_loader_is_waiting_and_time_in_the_display_is_neither():
    loading_s, display_s = [], []

    def load(sample):
        begun = perf_counter()
        sum(range(1_000))
        loading_s.append(perf_counter() - begun)
        return sample

    def display():
        begun = perf_counter()
        sum(range(10_000))
        display_s.append(perf_counter() - begun)

    whole = digits(0)
    problem = Problem("slow", whole.train.map(load), whole.validation, 10, 16)
    begun = perf_counter()
    (result,) = train(problem, Settings(epochs=1, batch_size=32, seed=0), display)
    wall_s = perf_counter() - begun
    assert result.waiting_s >= sum(loading_s[-result.samples :])  # before them, samples were read for their shape
    assert 0 < result.computing_s < wall_s - result.waiting_s - sum(display_s)


@pytest.mark.parametrize(("count", "epochs"), [(1, 20), (250_000, 12), (10_000_000, 1)])
def test_the_more_pixels_the_fewer_epochs(count, epochs):
    pixels = np.broadcast_to(np.uint8(0), (count, 8, 8))
    data = TensorDataset(pixels, np.broadcast_to(np.int64(0), count))
    assert epochs_for(Problem("zeros", data, data, 2)) == epochs
