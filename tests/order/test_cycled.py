"""Laws of passes laid end to end: one endless sequence, seekable at any position."""

import pickle
from functools import partial
from threading import Barrier, Thread

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedline import (
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    StratifiedBatchSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from feedline.order.batched import BatchOrder
from feedline.order.bucketed import TokenBuckets, TokenOrder
from feedline.order.cycled import CycledCuts, CycledOrder, Permutations
from feedline.order.passes import Passes, pass_order
from feedline.order.sequence import ListedOrder, SequentialOrder

SAMPLERS = {
    "sequential": lambda n: SequentialSampler(range(n)),
    "random": lambda n: RandomSampler(range(n)),
    "more": lambda n: RandomSampler(range(n), num_samples=n + 2),
    "subset": lambda n: SubsetRandomSampler(range(0, 2 * n, 2)),
    "weighted": lambda n: WeightedRandomSampler(np.arange(1, n + 1), 2 * n),
    "distinct": lambda n: WeightedRandomSampler(np.arange(1, n + 1), n, replacement=False),
    "distributed": lambda n: DistributedSampler(range(n), 2, 1),
    "stratified": lambda n: StratifiedBatchSampler([i % 2 for i in range(n)], 2).sampler,
    "list": lambda n: list(range(n)),
}


def cycled(sampler, seed=1, length=None):
    return CycledOrder(partial(Passes(sampler).endless, seed), pass_order(sampler, 0, 0).length, length)


@pytest.mark.parametrize("kind", SAMPLERS)
@given(st.integers(1, 9), st.integers(0, 2**64 - 1), st.data())
def test_any_stretch_is_cut_from_the_passes_end_to_end(kind, count, seed, data):
    sampler = SAMPLERS[kind](count)
    whole = np.concatenate([pass_order(sampler, seed, number).take(0, size) for number, size in passes(sampler, 5)])
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    assert cycled(sampler, seed).take(start, stop).tolist() == whole[start:stop].tolist()


def passes(sampler, count):
    return [(number, pass_order(sampler, 0, number).length) for number in range(count)]


def test_a_far_position_costs_its_pass_alone():
    made = []

    def number(given):
        made.append(given)
        return SequentialOrder(10)

    assert CycledOrder(number, 10).take(10**12 + 8, 10**12 + 12).tolist() == [8, 9, 0, 1]
    assert made == [10**11, 10**11 + 1]


def test_a_batch_costs_its_pass_alone_wherever_the_epoch_ends():
    made = []

    def number(given):
        made.append(given)
        return TokenOrder(TokenBuckets.of(np.array([4, 4, 4]), 4, 0.0), shuffle=True, seed=1, epoch=given)

    indices, position = BatchOrder(CycledCuts(number, 3, 3, 10**9)).placed(7)
    assert (len(indices), position) == (1, 7)
    assert set(made) == {2}


def test_the_pass_that_is_read_is_made_once():
    class Counting(RandomSampler):
        made = 0

        def order(self, seed, epoch):
            self.made += 1
            return super().order(seed, epoch)

    sampler = Counting(range(100))
    order = CycledOrder(partial(Passes(sampler).endless, 1), 100)
    for start in range(0, 300, 7):
        order.take(start, start + 7)
    assert sampler.made == 4


def test_a_pass_without_end_has_no_successor():
    order = CycledOrder(lambda number: SequentialOrder(None), None)
    assert order.take(10**9, 10**9 + 2).tolist() == [10**9, 10**9 + 1]


def test_threads_read_the_same():
    order, barrier, found = cycled(RandomSampler(range(7))), Barrier(4), {}
    whole = cycled(RandomSampler(range(7))).take(0, 400).tolist()

    def read(first):
        barrier.wait()
        found[first] = [order.take(at, at + 5).tolist() for at in range(first, 390, 4)]

    threads = [Thread(target=read, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {first: [whole[at : at + 5] for at in range(first, 390, 4)] for first in range(4)}


def test_the_passes_of_a_stratified_sampler_know_no_batch_size():
    labels = [i % 3 for i in range(40)]
    orders = [cycled(StratifiedBatchSampler(labels, size, group_size=6).sampler) for size in (7, 16)]
    assert orders[0].period == orders[1].period
    assert orders[0].take(0, 300).tolist() == orders[1].take(0, 300).tolist()


def test_an_order_is_pickled_without_what_it_keeps():
    order = cycled(RandomSampler(range(1000)), length=5000)
    taken = order.take(0, 100).tolist()
    copied = pickle.dumps(order)
    assert len(copied) < 1000
    assert pickle.loads(copied).take(0, 100).tolist() == taken


def test_an_empty_pass_is_refused():
    with pytest.raises(ValueError, match="period must be a positive integer, or None for a pass without end, got 0"):
        CycledOrder(lambda number: SequentialOrder(0), 0)


def test_passes_of_different_lengths_are_refused():
    order = CycledOrder(lambda number: ListedOrder(np.arange(number + 3)), 3)
    assert order.take(0, 3).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"all passes must have the same length .* pass 1 has 4 positions, others 3"):
        order.take(2, 4)


def test_positions_beyond_the_end_are_refused():
    with pytest.raises(IndexError, match="positions must satisfy"):
        cycled(RandomSampler(range(3)), length=5).take(4, 6)


def test_nothing_is_taken_from_an_empty_stretch():
    assert cycled(RandomSampler(range(3))).take(3, 3).tolist() == []


def repeated(population, length, seed, epoch):
    return CycledOrder(Permutations(population, seed, epoch), population, length)


@given(st.integers(1, 20), st.integers(0, 100), st.integers(0, 2**64 - 1), st.integers(0, 99))
def test_more_indices_than_samples_are_whole_permutations_and_one_cut_short(population, length, seed, epoch):
    taken = repeated(population, length, seed, epoch).take(0, length).tolist()
    assert len(taken) == length
    for start in range(0, length, population):
        part = taken[start : start + population]
        assert len(set(part)) == len(part)
        assert set(part) <= set(range(population))


@given(st.integers(1, 20), st.integers(0, 100), st.data())
def test_any_split_of_permutations_gives_the_same(population, length, data):
    order = repeated(population, length, 1, 2)
    a = data.draw(st.integers(0, length))
    b = data.draw(st.integers(a, length))
    assert order.take(a, b).tolist() == repeated(population, length, 1, 2).take(0, length)[a:b].tolist()


def test_permutations_of_passes_and_of_epochs_differ():
    order = repeated(50, 200, 1, 0)
    passes = {tuple(order.take(start, start + 50).tolist()) for start in range(0, 200, 50)}
    passes.add(tuple(repeated(50, 200, 1, 1).take(0, 50).tolist()))
    assert len(passes) == 5


def test_positions_outside_an_epoch_of_permutations_are_refused():
    with pytest.raises(IndexError, match="positions must satisfy"):
        repeated(5, 12, 1, 0).take(0, 13)
