"""Laws of `DistributedSampler`: torch's contract, by itself and in a loader, and epochs that advance by themselves."""

import json
from itertools import chain

import pytest
import torch.utils.data as torch_data
from hypothesis import given, settings
from hypothesis import strategies as st

from feedline import DataLoader, DistributedSampler
from feedline.errors import StateError
from feedline.order.permutation import PermutedOrder

LENGTHS, WORLDS, SIZES = st.integers(1, 80), st.integers(1, 9), st.integers(1, 9)


def world_of(module, length, world, **how):
    return [module(range(length), world, rank, **how) for rank in range(world)]


@given(LENGTHS, WORLDS, st.booleans(), st.integers(0, 3))
def test_ranks_take_turns_at_one_order_which_wraps_or_loses_its_end(length, world, drop_last, epoch):
    samplers = world_of(DistributedSampler, length, world, seed=5, drop_last=drop_last)
    for sampler in samplers:
        sampler.set_epoch(epoch)
    shares = [list(sampler) for sampler in samplers]
    order = PermutedOrder(length, 5, epoch).take(0, length).tolist()
    total = length // world * world if drop_last else -(-length // world) * world
    assert list(chain(*zip(*shares, strict=True))) == (order * (1 + world))[:total]
    if drop_last:
        assert len(set(chain(*shares))) == total, "disjoint"
    else:
        assert set(chain(*shares)) == set(range(length)), "complete"


def batches_of(module, sampler, size, epoch=None, **how):
    loader = module(range(len(sampler.dataset)), size, sampler=sampler, **how)
    if epoch is not None:
        sampler.set_epoch(epoch)
    return [batch.tolist() for batch in loader]


@given(LENGTHS, WORLDS, SIZES, st.booleans(), st.booleans())
@settings(max_examples=60)
def test_in_a_loader_it_is_torchs(length, world, size, drop_last, drop_samples):
    how = {"drop_last": drop_samples, "seed": 3}
    ours = world_of(DistributedSampler, length, world, shuffle=False, **how)
    theirs = world_of(torch_data.DistributedSampler, length, world, shuffle=False, **how)
    for mine, other in zip(ours, theirs, strict=True):
        expected = batches_of(torch_data.DataLoader, other, size, drop_last=drop_last)
        assert batches_of(DataLoader, mine, size, drop_last=drop_last) == expected
        assert len(DataLoader(range(length), size, sampler=mine, drop_last=drop_last)) == len(expected)
    shuffled = world_of(DistributedSampler, length, world, **how)
    for mine, other in zip(shuffled, theirs, strict=True):
        got = batches_of(DataLoader, mine, size, epoch=4)
        assert [len(batch) for batch in got] == [len(batch) for batch in batches_of(torch_data.DataLoader, other, size)]
        mine.set_epoch(4)
        assert list(chain(*got)) == list(mine)


@pytest.mark.parametrize("workers", [{}, {"num_workers": 2, "backend": "thread"}])
def test_in_a_loader_epochs_advance_by_themselves_and_are_set_at_the_sampler(workers):
    def epoch(number):
        sampler = DistributedSampler(range(40), 4, 1)
        sampler.set_epoch(number)
        return list(sampler)

    sampler = DistributedSampler(range(40), 4, 1)
    with DataLoader(range(40), 3, sampler=sampler, **workers) as loader:
        read = [list(chain(*(batch.tolist() for batch in loader))) for _ in range(3)]
        assert read == [epoch(0), epoch(1), epoch(2)]
        sampler.set_epoch(7)
        read = [list(chain(*(batch.tolist() for batch in loader))) for _ in range(2)]
        assert read == [epoch(7), epoch(8)]


@given(LENGTHS, WORLDS, SIZES, SIZES, st.integers(0, 9))
@settings(max_examples=60)
def test_a_loader_goes_on_where_any_ranks_state_says(length, world, size, other, done):
    samplers = world_of(DistributedSampler, length, world)
    loaders = [DataLoader(range(length), size, sampler=sampler, seed=1) for sampler in samplers]
    states = []
    for loader in loaders:
        iterator = iter(loader)
        for _ in range(min(done, len(loader))):
            next(iterator)
        states.append(json.dumps(loader.state_dict()))
    assert states == states[:1] * world
    for rank, sampler in enumerate(world_of(DistributedSampler, length, world)):
        resumed = DataLoader(range(length), other, sampler=sampler)
        resumed.load_state_dict(json.loads(states[0]))
        got = list(chain(*(batch.tolist() for batch in resumed)))
        assert got == list(samplers[rank])[min(done, len(loaders[rank])) * size :]


def test_a_state_of_another_world_is_refused():
    """Its ranks' orders are other ones; ``shard=`` resumes with any world."""
    state = DataLoader(range(40), 4, sampler=DistributedSampler(range(40), 4, 1)).state_dict()
    with pytest.raises(StateError, match=r"num_replicas=4\), this one has .*num_replicas=2\)"):
        DataLoader(range(40), 4, sampler=DistributedSampler(range(40), 2, 1)).load_state_dict(state)
