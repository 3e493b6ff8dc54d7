"""Laws of the endless loader whose batches hold sequences of like lengths: by a number of them, or of tokens."""

import json
from itertools import islice

import numpy as np
import pytest

from feedline import DataLoader, InfiniteDataLoader, LengthBucketBatchSampler

COUNT, STEPS = 300, 17
LENGTHS = np.random.default_rng(5).lognormal(3, 1, COUNT).astype(int) + 1
KINDS = {"samples": {"batch_size": 8}, "tokens": {"max_tokens": 400}}


def endless(kind, steps=STEPS, **arguments):
    sampler = LengthBucketBatchSampler(LENGTHS, **KINDS[kind])
    return InfiniteDataLoader(np.arange(COUNT), batch_sampler=sampler, seed=3, batches_per_epoch=steps, **arguments)


def ordinary(kind):
    return DataLoader(np.arange(COUNT), batch_sampler=LengthBucketBatchSampler(LENGTHS, **KINDS[kind]), seed=3)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.mark.parametrize("workers", [{}, {"num_workers": 2, "backend": "process"}])
def test_passes_are_the_epochs_of_an_ordinary_loader(kind, workers):
    with endless(kind, **workers) as loader, ordinary(kind) as passes:
        stream = np.concatenate([batch for _ in range(8) for batch in loader])
        expected = np.concatenate([batch for _ in range(1 + len(stream) // COUNT) for batch in passes])
    assert len(stream) > 2 * COUNT
    assert np.array_equal(stream, expected[: len(stream)])


def test_batches_by_tokens_keep_their_bound_on_both_sides_of_a_border():
    with endless("tokens") as loader:
        batches = [batch for _ in range(6) for batch in loader]
    assert len(batches) == 6 * STEPS > 2 * len(ordinary("tokens"))
    assert all(LENGTHS[batch].max() * len(batch) <= 400 for batch in batches)


@pytest.mark.parametrize("steps", [STEPS, None])
def test_a_run_goes_on_exactly_on_another_number_of_ranks(kind, steps):
    def delivered(world, state, count):
        seen, states = [], []
        for rank in range(world):
            loader = endless(kind, steps, shard=(rank, world))
            if state is not None:
                loader.load_state_dict(state)
            seen.append([batch.tolist() for batch in islice(loader, count)])
            states.append(json.dumps(loader.state_dict()))
        assert len(set(states)) == 1
        return [batch for step in zip(*seen, strict=True) for batch in step], json.loads(states[0])

    before, state = delivered(4, None, 5)
    after, _ = delivered(3, state, 9)
    whole, _ = delivered(1, None, None if steps else 47)
    assert (before + after)[: len(whole)] == whole


def test_a_plan_tells_the_batches_of_a_later_virtual_epoch(kind):
    with endless(kind) as loader:
        planned = [loader.plan(2)[step].indices.tolist() for step in range(STEPS)]
        epochs = [[batch.tolist() for batch in loader] for _ in range(3)]
    assert planned == epochs[2]


def test_fresh_orders_each_virtual_epoch_hold_every_sample_once_a_pass(kind):
    with endless(kind, steps=200, reshuffle="virtual_epoch") as loader:
        epochs = [np.concatenate(list(loader)) for _ in range(2)]
    assert not np.array_equal(epochs[0][:COUNT], epochs[1][:COUNT])
    for epoch in epochs:
        assert sorted(epoch[:COUNT]) == sorted(epoch[COUNT : 2 * COUNT]) == list(range(COUNT))
