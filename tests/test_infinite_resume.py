"""Laws of the endless loader's one sequence: ordinary epochs end to end, that a resume on any geometry goes on with."""

import itertools
import random
from itertools import chain, islice

import numpy as np
import pytest
import torch
from doubles import WORKERS, SafeNoisy, Sized, indices, plain, read, through_json
from hypothesis import given, settings
from hypothesis import strategies as st

from feedline import (
    DataLoader,
    DistributedSampler,
    InfiniteDataLoader,
    RandomSampler,
    Shard,
    StratifiedBatchSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from feedline.errors import StateError


class Drawing(Sized):
    """A user's sampler that counts epochs, and draws from a global generator."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter([(index + self.epoch) % self.length for index in random.sample(range(self.length), self.length)])


SAMPLERS = {
    "sequential": lambda n: {},
    "random": lambda n: {"shuffle": True},
    "replacement": lambda n: {"sampler": RandomSampler(range(n), replacement=True)},
    "more": lambda n: {"sampler": RandomSampler(range(n), num_samples=2 * n + 3)},
    "subset": lambda n: {"sampler": SubsetRandomSampler(range(0, n, 2))},
    "weighted": lambda n: {"sampler": WeightedRandomSampler(np.arange(1, n + 1), 2 * n)},
    "distinct": lambda n: {"sampler": WeightedRandomSampler(np.arange(1, n + 1), n, replacement=False)},
    "distributed": lambda n: {"sampler": DistributedSampler(range(n), 2, 1)},
    "list": lambda n: {"sampler": [*range(n), 0, 0]},
    "own": lambda n: {"sampler": Sized(n)},
    "drawing": lambda n: {"sampler": Drawing(n)},
    "torch": lambda n: {"sampler": torch.utils.data.RandomSampler(range(n))},
}
KINDS = [*SAMPLERS, "stratified"]
MODES = ["pass", "virtual_epoch"]


def build(kind, length, size, steps, **how):
    """A loader of a kind, as a program that is started again would build it."""
    if kind == "stratified":
        sampler = StratifiedBatchSampler([i % 3 for i in range(length)], size, group_size=3)
        how = {"batch_sampler": sampler, **how}
    else:
        how = {"batch_size": size, **SAMPLERS[kind](length), **how}
    return InfiniteDataLoader(SafeNoisy(length), batches_per_epoch=steps, **{"seed": 7, **how})


def endless(kind, length, size, count):
    """The first indices of the sequence, by the epochs of an ordinary loader."""
    if kind == "stratified":
        sampler = StratifiedBatchSampler([i % 3 for i in range(length)], size, group_size=3, drop_last=True).sampler
        loader = DataLoader(range(length), 1, sampler=sampler, seed=7)
    else:
        loader = DataLoader(range(length), 1, seed=7, **SAMPLERS[kind](length))
    drawn = []
    for epoch in itertools.count():
        loader.set_epoch(epoch)
        drawn += (int(batch[0]) for batch in loader)
        if len(drawn) >= count:
            return drawn[:count]
    return None


@pytest.mark.parametrize("kind", KINDS)
@given(st.integers(2, 12), st.integers(3, 7), st.integers(1, 5), st.integers(1, 4))
@settings(max_examples=20)
def test_virtual_epochs_are_cuts_of_ordinary_epochs_laid_end_to_end(kind, length, size, steps, epochs):
    loader = build(kind, length + 1, size, steps)
    found = [read(loader) for _ in range(epochs)]
    assert [len(batches) for batches in found] == [steps] * epochs
    assert {len(batch) for batch in chain(*found)} == {size}
    assert indices(chain(*found)) == endless(kind, length + 1, size, epochs * steps * size)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [(kind, mode) for kind in KINDS for mode in MODES if (kind, mode) != ("distributed", "virtual_epoch")],
)
@given(st.integers(3, 12), st.integers(3, 5), st.integers(1, 5), st.integers(0, 2), st.data())
@settings(max_examples=10)
def test_a_prefix_its_state_and_a_new_loader_yield_the_rest(kind, mode, length, size, steps, epoch, data):
    straight = build(kind, length, size, steps, reshuffle=mode)
    epochs = [read(straight) for _ in range(epoch + 3)]
    done = data.draw(st.integers(0, steps), label="batches delivered")
    loader = build(kind, length, size, steps, reshuffle=mode)
    loader.set_epoch(epoch)
    iterator = iter(loader)
    assert [plain(next(iterator)) for _ in range(done)] == epochs[epoch][:done]
    resumed = build(kind, length, size, steps, reshuffle=mode, seed=None)
    resumed.load_state_dict(through_json(loader))
    assert resumed.state_dict() == loader.state_dict() or not done
    assert read(resumed) == epochs[epoch][done:]
    assert [read(resumed) for _ in range(2)] == epochs[epoch + 1 :]


def test_resumes_in_the_middle_with_all_workers(workers):
    straight = build("random", 23, 4, 7)
    epochs = [read(straight) for _ in range(4)]
    with build("random", 23, 4, 7, **workers) as loader:
        read(loader)
        iterator = iter(loader)
        assert [plain(next(iterator)) for _ in range(3)] == epochs[1][:3]
        state = through_json(loader)
    with build("random", 23, 4, 7, **workers) as resumed:
        resumed.load_state_dict(state)
        assert [read(resumed) for _ in range(3)] == [epochs[1][3:], *epochs[2:]]


@pytest.mark.parametrize("mode", MODES)
def test_after_the_last_batch_nothing_is_left_until_the_end_was_seen(mode):
    straight = build("random", 10, 3, 4, reshuffle=mode)
    epochs = [read(straight) for _ in range(3)]
    loader = build("random", 10, 3, 4, reshuffle=mode)
    read(loader)
    iterator = iter(loader)
    for _ in range(4):
        next(iterator)
    before = through_json(loader)
    assert list(iterator) == []
    after = through_json(loader)
    assert (before["epoch"], after["epoch"], after["position"]) == (1, 2, 24 if mode == "pass" else 0)
    resumed = build("random", 10, 3, 4, reshuffle=mode)
    resumed.load_state_dict(before)
    assert read(resumed) == []
    assert read(resumed) == epochs[2]
    resumed.load_state_dict(after)
    assert read(resumed) == epochs[2]


def deliver(kind, length, steps, stages, mode="pass"):
    """What all ranks deliver together, with another world and batch size a stage; and the batches of each call."""
    got, state, lengths = [], None, []
    for world, size, batches in stages:
        states, ranks = [], []
        for rank in range(world):
            loader = build(kind, length, size, steps, shard=Shard(rank, world), reshuffle=mode)
            if state is not None:
                loader.load_state_dict(state)
            taken, batch_counts = [], []
            while len(taken) < batches:
                part = [plain(batch) for batch in islice(iter(loader), batches - len(taken))]
                batch_counts.append(len(part))
                taken += part
            ranks.append(taken)
            states.append(through_json(loader))
        lengths.append(batch_counts)
        assert all(other == states[0] for other in states)
        state = states[0]
        got += chain(*(batch for step in zip(*ranks, strict=True) for batch in step))
    return [index for index, _ in got], lengths


def test_two_ranks_of_four_go_on_as_three_of_five():
    got, lengths = deliver("random", 50, 6, [(2, 4, 9), (3, 5, 14)])
    assert lengths == [[6, 3], [6, 6, 2]]
    assert got == endless("random", 50, 1, 9 * 8 + 14 * 15)


@given(
    st.sampled_from(sorted(SAMPLERS.keys() - {"distributed"})),
    st.integers(1, 30),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 6)), min_size=1, max_size=4),
)
@settings(max_examples=60)
def test_through_any_changes_of_geometry_the_ranks_deliver_the_one_sequence(kind, length, steps, stages):
    got, _ = deliver(kind, length, steps, stages)
    assert got == endless(kind, length, 1, len(got))


def test_a_stratified_sequence_goes_on_with_another_batch_size():
    got, _ = deliver("stratified", 31, 4, [(1, 4, 6), (2, 7, 5)])
    assert got == endless("stratified", 31, 4, len(got))


def test_a_virtual_epoch_of_its_own_passes_goes_on_with_another_geometry():
    whole = indices(read(build("random", 10, 1, 200, reshuffle="virtual_epoch")))
    got, _ = deliver("random", 10, 5, [(2, 3, 3), (1, 4, 5)], "virtual_epoch")
    assert got == whole[: len(got)]


def test_what_remains_is_counted_by_the_new_number_of_batches():
    straight = build("sequential", 100, 1, 100)
    whole = indices(read(straight))
    loader = build("sequential", 100, 1, 10)
    iterator = iter(loader)
    for _ in range(6):
        next(iterator)
    for steps, left in ((10, 4), (15, 9), (6, 0), (4, 0)):
        resumed = build("sequential", 100, 1, steps)
        resumed.load_state_dict(through_json(loader))
        rest, after = indices(read(resumed)), indices(read(resumed))
        assert (len(rest), len(after)) == (left, steps)
        assert rest + after == whole[6 : 6 + left + steps]


def test_out_of_order_batches_resume():
    loader = build("random", 20, 2, 8, in_order=False, **WORKERS["thread"])
    straight = build("random", 20, 2, 8)
    epochs = [sorted(chain(*read(straight))) for _ in range(3)]
    with loader:
        assert sorted(chain(*read(loader))) == epochs[0]
        iterator = iter(loader)
        got = [plain(next(iterator)) for _ in range(3)]
        state = through_json(loader)
    with build("random", 20, 2, 8, in_order=False, **WORKERS["thread"]) as resumed:
        resumed.load_state_dict(state)
        assert sorted(chain(*got, *read(resumed))) == epochs[1]
        assert sorted(chain(*read(resumed))) == epochs[2]


def test_states_of_other_kinds_are_refused():
    state = build("random", 10, 2, 3).state_dict()
    assert state["sampler"] == "Infinite(pass, population=10, RandomSampler)"
    others = [
        build("random", 10, 2, 3, reshuffle="virtual_epoch"),
        build("random", 11, 2, 3),
        build("sequential", 10, 2, 3),
        DataLoader(range(10), 2, shuffle=True),
    ]
    for other in others:
        with pytest.raises(StateError, match="the state is of a loader with"):
            other.load_state_dict(state)
        with pytest.raises(StateError, match="the state is of a loader with"):
            build("random", 10, 2, 3).load_state_dict(other.state_dict())


def test_a_long_name_is_told_apart_by_a_checksum():
    def name(least):
        sampler = StratifiedBatchSampler([0, 1, 2] * 400_000, 32, min_per_class=least)
        loader = InfiniteDataLoader(range(1_200_000), batch_sampler=sampler, reshuffle="virtual_epoch")
        return loader.state_dict()["sampler"]

    names = {name(least) for least in (1, 2)}
    assert len(names) == 2
    assert all(len(name) < 100 for name in names)


def test_setting_the_epoch_that_comes_anyway_changes_nothing():
    got, state = deliver("random", 50, 6, [(2, 4, 9)])[0], None
    loader = build("random", 50, 4, 6, shard=(0, 2))
    read(loader)
    list(islice(iter(loader), 3))
    resumed = build("random", 50, 5, 6)
    state = through_json(loader)
    resumed.load_state_dict(state)
    for epoch in (1, 2, 3):
        assert resumed.plan(epoch)[0].position == 72 + (epoch - 1) * 30
        resumed.set_epoch(epoch)
        got += indices(read(resumed))
    assert got == endless("random", 50, 1, 72 + 90)
