"""Laws of the endless loader: full batches, so many a loop, whoever makes them, and on any rank."""

import copy
import pickle
from collections import UserList
from itertools import chain, islice

import numpy as np
import pytest
from doubles import WORKERS, SafeNoisy, indices, plain, read, through_json
from hypothesis import given, settings
from hypothesis import strategies as st

import feedline
from feedline import (
    BatchSampler,
    DataLoader,
    DatasetChanged,
    DistributedSampler,
    InfiniteDataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Shard,
    StratifiedBatchSampler,
)

SAMPLERS = {"sequential": {}, "random": {"shuffle": True}}
MODES = ["pass", "virtual_epoch"]


def build(kind, length, size, steps, **how):
    """A loader of a kind."""
    how = {"batch_size": size, "seed": 7, **SAMPLERS[kind], **how}
    return InfiniteDataLoader(SafeNoisy(length), batches_per_epoch=steps, **how)


def endless(kind, length, count):
    """The first indices of the sequence, by the epochs of an ordinary loader."""
    loader = DataLoader(range(length), 1, seed=7, **SAMPLERS[kind])
    return list(islice((int(batch[0]) for _ in iter(int, 1) for batch in loader), count))


# -------------------------------------------------------------------------------------------------------- the sequence


def test_every_sample_comes_once_a_pass():
    loader = InfiniteDataLoader(range(10), 4, shuffle=True, batches_per_epoch=3, seed=1)
    drawn = [int(index) for _ in range(5) for batch in loader for index in batch]
    assert all(sorted(drawn[at : at + 10]) == list(range(10)) for at in range(0, 60, 10))
    assert drawn[:10] != drawn[10:20]


@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 6))
def test_a_virtual_epoch_may_begin_passes_of_its_own(length, size, steps):
    loader = build("random", length, size, steps, reshuffle="virtual_epoch")
    ordinary = DataLoader(range(length), length, shuffle=True, seed=7)
    for first, _ in zip(ordinary, range(3), strict=False):
        drawn = indices(read(loader))
        assert len(drawn) == steps * size
        assert drawn[:length] == first.tolist()[: len(drawn)]
        whole = len(drawn) - len(drawn) % length
        assert all(sorted(drawn[at : at + length]) == list(range(length)) for at in range(0, whole, length))


def test_virtual_epochs_with_passes_of_their_own_follow_the_ordinary_epochs():
    loader = build("random", 50, 10, 10, reshuffle="virtual_epoch")
    ordinary = DataLoader(range(50), 50, shuffle=True, seed=7)
    passes = []
    for _ in range(3):
        drawn, (first,) = indices(read(loader)), list(ordinary)
        assert drawn[:50] == first.tolist()
        passes += [tuple(drawn[:50]), tuple(drawn[50:])]
    assert len(set(passes)) == 6


@pytest.mark.parametrize("mode", MODES)
def test_all_workers_give_the_same(workers, mode):
    with build("random", 23, 4, 7, reshuffle=mode, **workers) as loader:
        found = [read(loader) for _ in range(4)]
    straight = build("random", 23, 4, 7, reshuffle=mode)
    assert found == [read(straight) for _ in range(4)]


@pytest.mark.parametrize("mode", MODES)
def test_the_next_virtual_epoch_is_begun_early_and_used(mode):
    begun = []
    with build("random", 23, 4, 7, reshuffle=mode, **WORKERS["process"]) as loader:
        for _ in range(3):
            for _batch in loader:
                early = loader._course._early
            begun.append(early)
            iterator = iter(loader)
            next(iterator)
            assert loader._course._last is early
            list(iterator)
    assert [epoch.number for epoch in begun] == [1, 3, 5]


def test_a_sample_drawn_twice_in_a_virtual_epoch_is_augmented_twice():
    drawn = list(chain(*read(build("sequential", 3, 3, 4))))
    assert len({number for _, number in drawn}) == 12


def test_single_samples_and_batches_of_a_batch_sampler():
    single = InfiniteDataLoader(range(3), None, batches_per_epoch=5)
    assert [int(sample) for sample in single] == [0, 1, 2, 0, 1]
    sampler = BatchSampler(SequentialSampler(range(3)), 2, drop_last=True)
    loader = InfiniteDataLoader(range(3), batch_sampler=sampler, batches_per_epoch=2)
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 0]]


def test_batches_of_a_users_sampler_cross_the_border_of_a_pass():
    class Own(UserList):
        epochs = ()

        def set_epoch(self, epoch):
            self.epochs += (epoch,)

    sampler = Own([2, 1, 0])
    loader = InfiniteDataLoader(range(3), batch_sampler=BatchSampler(sampler, 2, False), batches_per_epoch=2)
    assert sampler.epochs == ()
    assert [[batch.tolist() for batch in loader] for _ in range(2)] == [[[2, 1], [0, 2]], [[1, 0], [2, 1]]]
    assert sampler.epochs == (0, 1, 2)


def test_an_error_of_a_users_sampler_comes_at_its_batch():
    class Short(list):
        def __iter__(self):
            return iter([0, 1] if len(self) == 3 else [])

    loader = InfiniteDataLoader(range(3), 2, sampler=Short([0, 0, 0]), batches_per_epoch=2)
    with pytest.raises(
        ValueError, match="sampler must yield as many indices in each pass, 3, got 2 of Short in pass 0"
    ):
        next(iter(loader))


def test_stratified_batches_hold_all_classes_across_passes():
    labels = np.array([0] * 20 + [1] * 5)
    sampler = StratifiedBatchSampler(labels, 8)
    loader = InfiniteDataLoader(labels, batch_sampler=sampler, batches_per_epoch=11, seed=1)
    assert all(set(batch.tolist()) == {0, 1} for _ in range(4) for batch in loader)


def test_a_batch_may_hold_many_passes():
    assert InfiniteDataLoader(range(3), 10, batches_per_epoch=1).plan(0)[0].indices.tolist() == [0, 1, 2] * 3 + [0]


def test_a_failed_sample_is_replaced_in_the_same_way_by_all_workers(workers):
    class Bad(SafeNoisy):
        def __getitem__(self, index):
            if index == 3:
                raise KeyError(index)
            return super().__getitem__(index)

    def build_bad(**how):
        return InfiniteDataLoader(Bad(9), 4, True, batches_per_epoch=5, seed=2, on_error="replace", **how)

    with build_bad(**workers) as loader:
        found = [read(loader) for _ in range(3)]
    straight = build_bad()
    assert found == [read(straight) for _ in range(3)]
    assert all(len(batch) == 4 for batch in chain(*found))


# --------------------------------------------------------------------------------------------------------------- ranks


@given(st.integers(1, 12), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.sampled_from(MODES))
@settings(max_examples=40)
def test_each_rank_has_all_its_batches_and_together_they_are_the_sequence(length, world, size, steps, mode):
    for end in ("pad", "drop", "exact"):
        ranks = []
        for rank in range(world):
            loader = build("random", length, size, steps, shard=Shard(rank, world, end), reshuffle=mode)
            ranks.append([read(loader) for _ in range(3)])
        dealt = [[batch for step in zip(*epoch, strict=True) for batch in step] for epoch in zip(*ranks, strict=True)]
        one = build("random", length, size, steps * world, reshuffle=mode)
        assert dealt == [read(one) for _ in range(3)]


# --------------------------------------------------------------------------------------------------- epochs, and breaks


def test_a_loop_that_is_left_goes_on_with_the_next_virtual_epoch():
    loader, straight = build("random", 10, 3, 4), build("random", 10, 3, 4)
    epochs = [read(straight) for _ in range(3)]
    for batch in loader:
        assert plain(batch) == epochs[0][0]
        break
    assert read(loader) == epochs[1]
    assert read(loader) == epochs[2]


@pytest.mark.parametrize("mode", MODES)
def test_set_epoch_and_plan_know_where_a_virtual_epoch_begins(mode):
    straight = build("random", 10, 3, 4, reshuffle=mode)
    epochs = [read(straight) for _ in range(6)]
    loader = build("random", 10, 3, 4, reshuffle=mode)
    for epoch in (0, 1, 5, 2, 2, 0):
        loader.set_epoch(epoch)
        plan = loader.plan(epoch)
        assert len(plan) == 4
        assert [part.indices.tolist() for part in plan] == [[index for index, _ in batch] for batch in epochs[epoch]]
        assert read(loader) == epochs[epoch]


def test_an_epoch_before_those_of_another_geometry_does_not_begin_below_zero():
    loader = build("sequential", 50, 1, 5)
    read(loader), read(loader)
    state = through_json(loader)
    resumed = build("sequential", 50, 4, 5)
    resumed.load_state_dict(state)
    assert [resumed.plan(epoch)[0].position for epoch in range(4)] == [0, 20, 10, 30]


def test_the_samplers_own_set_epoch_is_heard():
    sampler = RandomSampler(range(10))
    loader = InfiniteDataLoader(range(10), 3, sampler=sampler, batches_per_epoch=2, seed=7)
    sampler.set_epoch(4)
    assert [batch.tolist() for batch in loader] == [part.indices.tolist() for part in loader.plan(4)]
    assert loader.state_dict()["epoch"] == 5


def test_a_copy_goes_on_with_the_next_virtual_epoch():
    straight = build("random", 10, 3, 4)
    epochs = [read(straight) for _ in range(3)]
    loader = build("random", 10, 3, 4)
    read(loader)
    next(iter(loader))
    for other in (pickle.loads(pickle.dumps(loader)), copy.deepcopy(loader)):
        assert read(other) == epochs[2]
        assert len(other) == 4


# ------------------------------------------------------------------------------------------------------- without an end


def test_without_a_number_of_batches_a_loop_never_ends(workers):
    with InfiniteDataLoader(SafeNoisy(10), 4, True, seed=7, **workers) as loader:
        got = [plain(batch) for batch in islice(loader, 20)]
        assert indices(got) == endless("random", 10, 80)
        with pytest.raises(TypeError, match=r"batches_per_epoch=None: a loop over it does not end; give the number"):
            len(loader)
        with pytest.raises(TypeError, match="no len"):
            len(loader.plan(0))
        assert loader.plan(0)[19].indices.tolist() == [index for index, _ in got[19]]
        state = through_json(loader)
    with InfiniteDataLoader(SafeNoisy(10), 5, True, seed=7, **workers) as resumed:
        resumed.load_state_dict(state)
        assert indices(plain(batch) for batch in islice(resumed, 4)) == endless("random", 10, 100)[80:]


def test_an_endless_loop_that_is_left_goes_on_behind_the_last_batch():
    loader = InfiniteDataLoader(range(10), 4)
    taken = [[batch.tolist() for batch in islice(loader, 2)] for _ in range(2)]
    assert list(chain(*chain(*taken))) == [number % 10 for number in range(16)]
    assert (loader.state_dict()["epoch"], loader.state_dict()["position"]) == (1, 16)
    assert [loader.plan(epoch)[0].position for epoch in range(3)] == [0, 8, 16]
    loader.set_epoch(1)
    assert next(iter(loader)).tolist() == [8, 9, 0, 1]


def test_an_endless_loop_with_passes_of_its_own_begins_afresh():
    loader = InfiniteDataLoader(range(50), 25, True, seed=7, reshuffle="virtual_epoch")
    ordinary = DataLoader(range(50), 25, True, seed=7)
    for _ in range(3):
        assert [b.tolist() for b in islice(loader, 2)] == [b.tolist() for b in ordinary]


# --------------------------------------------------------------------------------------------- what is refused or shown


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(3))


def test_a_stream_is_refused_with_the_remedy():
    with pytest.raises(TypeError, match=r"InfiniteDataLoader needs a dataset with __getitem__, got a stream.*for ever"):
        InfiniteDataLoader(Stream(), 2, batches_per_epoch=3)


def test_samplers_without_a_length_are_refused_with_the_remedy():
    with pytest.raises(TypeError, match=r"sampler must be an iterable with a length .* got Stream; give it __len__"):
        InfiniteDataLoader(range(3), 2, sampler=Stream(), batches_per_epoch=3)
    for sampler in ([[0], [1, 2]], Stream()):
        with pytest.raises(TypeError, match=r"batch_sampler must be a feedline.BatchSampler over an iterable"):
            InfiniteDataLoader(range(3), batch_sampler=sampler, batches_per_epoch=3)
    with pytest.raises(TypeError, match=r"sampler must be an iterable with a length .* got Stream"):
        InfiniteDataLoader(range(3), batch_sampler=BatchSampler(Stream(), 2, False), batches_per_epoch=3)


def test_no_sample_is_refused():
    for how in ({}, {"sampler": []}):
        with pytest.raises(ValueError, match="needs a dataset, or sampler, of at least one sample, got none"):
            InfiniteDataLoader([], 2, batches_per_epoch=3, **how)


@pytest.mark.parametrize("number", [0, -1, 1.0, True, "3"])
def test_a_number_of_batches_that_is_none_is_refused(number):
    with pytest.raises(ValueError, match="batches_per_epoch must be a positive integer, got"):
        InfiniteDataLoader(range(3), batches_per_epoch=number)


def test_another_word_for_reshuffle_is_refused():
    with pytest.raises(ValueError, match="reshuffle must be 'pass' or 'virtual_epoch', got 'epoch'"):
        InfiniteDataLoader(range(3), batches_per_epoch=2, reshuffle="epoch")


def test_passes_of_one_order_are_refused():
    sampler = DistributedSampler(range(9), 3, 0)
    with pytest.raises(ValueError, match="'virtual_epoch' is mutually exclusive with a DistributedSampler"):
        InfiniteDataLoader(range(9), sampler=sampler, batches_per_epoch=2, reshuffle="virtual_epoch")


def test_a_dataset_that_grew_is_refused():
    data = [1, 2, 3]
    loader = InfiniteDataLoader(data, 2, batches_per_epoch=2)
    list(loader)
    data.append(4)
    with pytest.raises(DatasetChanged, match="a pass had 3 samples when the loader was built and has 4 now"):
        next(iter(loader))


def test_what_is_fixed_at_building_is_not_set_later():
    loader = InfiniteDataLoader(range(3), batches_per_epoch=2)
    for name in ("batches_per_epoch", "reshuffle"):
        with pytest.raises(ValueError, match=f"{name} should not be set after the loader is built"):
            setattr(loader, name, None)


def test_its_appearance():
    loader = InfiniteDataLoader(range(3000), 2, batches_per_epoch=1500, seed=1)
    assert repr(loader) == (
        "InfiniteDataLoader(dataset=range of 3,000 samples, batch_size=2, "
        "sampler=Infinite(pass, population=3000, SequentialSampler), batches=1,500 a virtual epoch, seed=1, "
        "num_workers=0)"
    )
    assert "<caption>feedline.InfiniteDataLoader</caption>" in loader._repr_html_()
    assert "batches=endless" in repr(InfiniteDataLoader(range(3)))
    assert len(iter(loader)) == len(loader) == 1500


def test_check_finds_nothing_to_say_of_a_border():
    for steps in (None, 1, 2):
        findings = feedline.check(InfiniteDataLoader(np.zeros((9, 2)), 2, True, batches_per_epoch=steps, seed=1))
        assert len(findings) == 0, findings
