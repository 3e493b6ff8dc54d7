"""Laws of the samplers: each yields what its definition says, as torch's do where torch has it."""

import random
import time
import tracemalloc
from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch.utils.data as torch_data
from hypothesis import given, settings
from hypothesis import strategies as st

from feedline.checks import integer
from feedline.order.samplers import (
    DistributedSampler,
    RandomSampler,
    Sampler,
    SeekableSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    known_order,
    seekable,
)
from feedline.order.sequence import SequentialOrder

LENGTHS, SEEDS, EPOCHS = st.integers(1, 60), st.integers(0, (1 << 64) - 1), st.integers(0, 1000)


def taken(sampler, seed=0, epoch=0):
    return sampler.order(seed, epoch).take(0, len(sampler)).tolist()


@pytest.mark.parametrize("value", [0, -1, 1.5, 2.0, True, np.True_, "2", None, [1], np.array([2])])
def test_only_positive_integers_are_positive_integers(value):
    with pytest.raises(ValueError, match="size must be a positive integer, got"):
        integer("size", value, least=1)


@pytest.mark.parametrize("value", [2, np.int64(2), np.uint8(2)])
def test_integers_of_numpy_become_plain(value):
    assert type(integer("size", value, least=1)) is int


def test_a_sampler_defines_its_iterator():
    with pytest.raises(TypeError, match="abstract"):
        Sampler()


def test_a_users_sampler_may_hand_its_data_to_the_base():
    class Backwards(Sampler):
        def __init__(self, data):
            super().__init__(data)
            self.data = data

        def __iter__(self):
            return iter(range(len(self.data) - 1, -1, -1))

    assert list(Backwards("abc")) == [2, 1, 0]


def test_sequential_follows_the_length_of_its_source():
    data = [1, 2, 3]
    sampler = SequentialSampler(data)
    assert list(sampler) == list(torch_data.SequentialSampler(data)) == [0, 1, 2]
    data.append(4)
    assert list(sampler) == [0, 1, 2, 3]
    assert len(sampler) == 4


@given(LENGTHS, SEEDS, EPOCHS)
def test_random_visits_each_index_once(length, seed, epoch):
    sampler = RandomSampler(range(length))
    assert sorted(taken(sampler, seed, epoch)) == list(range(length))
    assert len(sampler) == sampler.num_samples == length


@given(LENGTHS, st.integers(1, 200), st.booleans(), SEEDS)
def test_num_samples_is_the_epochs_length(length, count, replacement, seed):
    sampler = RandomSampler(range(length), replacement, count)
    theirs = torch_data.RandomSampler(range(length), replacement, count)
    indices = taken(sampler, seed)
    assert len(sampler) == len(theirs) == len(indices) == len(list(sampler)) == count
    assert set(indices) <= set(range(length))
    if not replacement:  # each pass is complete before the next
        counts = Counter(indices)
        assert max(counts.values()) - min(counts.get(index, 0) for index in range(length)) <= 1


def test_with_replacement_draws_repeat():
    assert len(set(taken(RandomSampler(range(100), replacement=True)))) < 90


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
def test_num_samples_is_positive_as_in_torch(count):
    with pytest.raises(ValueError, match="num_samples must be a positive integer, got"):
        RandomSampler(range(3), num_samples=count)
    if count is not True:
        with pytest.raises(ValueError):
            torch_data.RandomSampler(range(3), num_samples=count)


@pytest.mark.parametrize("make", [RandomSampler, lambda data, flag: WeightedRandomSampler([1, 1], 2, flag)])
@pytest.mark.parametrize("value", [1, None, "no"])
def test_replacement_is_a_boolean(make, value):
    error = TypeError if make is RandomSampler else ValueError  # as torch's
    with pytest.raises(error, match="replacement must be True or False, got"):
        make([1, 2], value)


def test_shuffling_nothing_is_an_error_as_in_torch():
    with pytest.raises(ValueError, match="num_samples=0: shuffling needs at least one sample"):
        RandomSampler([])
    with pytest.raises(ValueError, match="num_samples=0"):
        torch_data.RandomSampler([])


@pytest.mark.parametrize("replacement", [False, True])
def test_a_billion_samples_start_at_once_in_a_mebibyte(replacement):
    RandomSampler(range(10**9), replacement).order(0, 0).take(0, 64)
    best = 1.0
    for seed in range(3):
        begin = time.perf_counter()
        first = RandomSampler(range(10**9), replacement).order(seed, 1).take(0, 1)
        best = min(best, time.perf_counter() - begin)
        assert 0 <= first[0] < 10**9
    assert best < 0.005
    tracemalloc.start()
    iterator = iter(RandomSampler(range(10**9), replacement))
    assert len({next(iterator) for _ in range(100)}) > 90
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_by_itself_a_sampler_draws_its_seed_once_and_goes_through_epochs():
    def epochs():
        random.seed(0)
        sampler = RandomSampler(range(50))
        first = list(sampler)
        state = random.getstate()
        second = list(sampler)
        assert random.getstate() == state
        return first, second

    assert epochs() == epochs()
    first, second = epochs()
    assert first != second


def test_by_itself_a_sampler_takes_its_seed_from_its_generator(same_global_generators):
    first, again = (list(RandomSampler(range(50), generator=np.random.default_rng(3))) for _ in range(2))
    assert first == again


def test_set_epoch_asks_for_an_epoch_once():
    sampler = RandomSampler(range(50), generator=random.Random(0))
    assert sampler.requested_epoch() is None
    first = list(sampler)
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert sampler.requested_epoch() is None
    sampler.set_epoch(7)
    assert sampler.requested_epoch() == 7
    assert sampler.requested_epoch() is None
    with pytest.raises(ValueError, match="epoch must be an integer from 0"):
        sampler.set_epoch(-1)


@given(st.lists(st.integers(-5, 100), max_size=30), SEEDS)
def test_a_subset_is_permuted(indices, seed):
    sampler = SubsetRandomSampler(indices)
    assert sorted(taken(sampler, seed)) == sorted(indices) == sorted(torch_data.SubsetRandomSampler(indices))


def test_a_subset_is_not_changed_by_what_happens_to_its_array():
    indices = np.array([4, 5, 6])
    sampler = SubsetRandomSampler(indices)
    indices[:] = 0
    assert sorted(taken(sampler)) == [4, 5, 6]


@pytest.mark.parametrize("indices", [[True, False], [0.0, 1.0], [[0, 1]], ["a"], 3])
def test_a_subset_is_of_integers(indices):
    with pytest.raises(ValueError, match=r"indices must be a one-dimensional sequence of integers.*flatnonzero"):
        SubsetRandomSampler(indices)


def test_indices_beyond_int64_are_refused_not_wrapped_around():
    indices = np.array([0, 2**63], dtype=np.uint64)
    with pytest.raises(ValueError, match=rf"indices must be below 2\*\*63, got {2**63}"):
        SubsetRandomSampler(indices)
    with pytest.raises(ValueError, match=rf"indices must be below 2\*\*63, got {2**63}"):
        known_order(indices, 0, 0)
    assert sorted(taken(SubsetRandomSampler(np.array([0, 2**63 - 1], dtype=np.uint64)))) == [0, 2**63 - 1]


@given(st.lists(st.sampled_from([0, 0.5, 1, 3]), min_size=1, max_size=20), st.integers(1, 40), SEEDS)
def test_weights_of_zero_are_never_drawn(weights, count, seed):
    if not any(weights):
        with pytest.raises(ValueError, match="weights must not all be zero"):
            WeightedRandomSampler(weights, count)
        return
    sampler = WeightedRandomSampler(weights, count)
    indices = taken(sampler, seed)
    assert len(indices) == len(sampler) == count
    assert all(weights[index] for index in indices)


@given(st.lists(st.sampled_from([0, 1, 3]), min_size=1, max_size=20), st.integers(1, 20), SEEDS)
def test_without_replacement_each_positive_weight_is_drawn_at_most_once(weights, count, seed):
    positive = {index for index, weight in enumerate(weights) if weight}
    if count > len(positive):
        with pytest.raises(ValueError, match=r"weights must not all be zero|at most the number of positive weights"):
            WeightedRandomSampler(weights, count, replacement=False)
        return
    indices = taken(WeightedRandomSampler(weights, count, replacement=False), seed)
    assert len(set(indices)) == count
    assert set(indices) <= positive


@pytest.mark.parametrize("weights", [[1, -1], [1, float("nan")], [float("inf")], [[1, 2]], []])
def test_weights_are_finite_and_not_negative(weights):
    with pytest.raises(ValueError, match="weights must"):
        WeightedRandomSampler(weights, 2)


def test_weights_of_the_wrong_shape_are_a_value_error_as_in_torch():
    with pytest.raises(ValueError):
        torch_data.WeightedRandomSampler([[1, 2]], 2)


@pytest.mark.parametrize("count", [0, -1, 2.5, True])
def test_a_weighted_epoch_has_a_positive_length(count):
    with pytest.raises(ValueError, match="num_samples must be a positive integer"):
        WeightedRandomSampler([1, 2], count)
    with pytest.raises(ValueError):
        torch_data.WeightedRandomSampler([1, 2], count)


def test_weights_by_inverse_frequency_draw_a_third_each():
    sizes = np.array([1000, 100, 50])
    sampler = WeightedRandomSampler(np.repeat(1 / sizes, sizes), 30_000)
    share = np.bincount(np.repeat([0, 1, 2], sizes)[taken(sampler, seed=1)]) / 30_000
    assert np.abs(share - 1 / 3).max() < 0.012  # over four standard deviations


@given(LENGTHS, st.integers(1, 8), st.booleans(), st.booleans(), EPOCHS)
def test_ranks_share_an_epoch_as_in_torch(length, world, shuffle, drop_last, epoch):
    def ranks(module):
        made = [
            module.DistributedSampler(range(length), world, rank, shuffle=shuffle, seed=3, drop_last=drop_last)
            for rank in range(world)
        ]
        for sampler in made:
            sampler.set_epoch(epoch)
        return made

    import feedline

    ours, theirs = ranks(feedline), ranks(torch_data)
    assert [len(sampler) for sampler in ours] == [len(sampler) for sampler in theirs]
    assert {sampler.num_samples for sampler in ours} == {theirs[0].num_samples}
    assert {sampler.total_size for sampler in ours} == {theirs[0].total_size}
    mine, expected = [list(sampler) for sampler in ours], [list(sampler) for sampler in theirs]
    if not shuffle:
        assert mine == expected
    union = Counter(chain(*mine))
    assert sorted(union.values()) == sorted(Counter(chain(*expected)).values())


def test_a_distributed_epoch_is_set_by_seed_and_epoch():
    def epoch(number, seed=0):
        sampler = DistributedSampler(range(40), 2, 0, seed=seed)
        sampler.set_epoch(number)
        return list(sampler)

    assert epoch(0) == epoch(0)
    assert len({tuple(epoch(0)), tuple(epoch(1)), tuple(epoch(0, seed=1))}) == 3
    sampler = DistributedSampler(range(40), 2, 0)
    assert [list(sampler), list(sampler)] == [epoch(0), epoch(1)]


@pytest.mark.parametrize("rank", [2, -1])
def test_a_rank_is_within_its_world_as_in_torch(rank):
    with pytest.raises(ValueError, match="rank must be from 0 to world_size - 1 = 1"):
        DistributedSampler(range(4), num_replicas=2, rank=rank)
    with pytest.raises(ValueError):
        torch_data.DistributedSampler(range(4), num_replicas=2, rank=rank)


def test_a_distributed_sampler_asks_the_environment(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    sampler = DistributedSampler(range(9), shuffle=False)
    assert (sampler.rank, sampler.num_replicas, list(sampler)) == (1, 3, [1, 4, 7])


@given(LENGTHS, SEEDS, st.data())
@settings(max_examples=50)
def test_every_order_may_be_read_in_any_pieces(length, seed, data):
    weights = np.arange(1, length + 1)
    samplers = [
        SequentialSampler(range(length)),
        RandomSampler(range(length)),
        RandomSampler(range(length), replacement=True, num_samples=2 * length),
        RandomSampler(range(length), num_samples=2 * length + 1),
        SubsetRandomSampler(range(length)),
        WeightedRandomSampler(weights, length),
        WeightedRandomSampler(weights, length, replacement=False),
        DistributedSampler(range(length), 2, 1),
    ]
    for sampler in samplers:
        whole = taken(sampler, seed, 5)
        middle = data.draw(st.integers(0, len(whole)))
        order = sampler.order(seed, 5)
        assert order.take(middle, len(whole)).tolist() == whole[middle:]
        assert order.take(0, middle).tolist() == whole[:middle]
        assert all(type(index) is int for index in sampler)


def test_names_tell_orders_apart():
    samplers = [
        SequentialSampler("ab"),
        RandomSampler("ab"),
        RandomSampler("ab", replacement=True),
        SubsetRandomSampler([1]),
        WeightedRandomSampler([1, 1], 2),
        WeightedRandomSampler([1, 1], 2, replacement=False),
        DistributedSampler("ab", 2, 0),
        DistributedSampler("ab", 2, 0, shuffle=False),
        DistributedSampler("ab", 2, 0, seed=1),
        DistributedSampler("ab", 3, 0),
    ]
    assert len({sampler.name for sampler in samplers}) == len(samplers)
    assert DistributedSampler("ab", 2, 0).name == DistributedSampler("ab", 2, 1).name  # states are rank independent


class Endless(SeekableSampler):
    def order(self, seed, epoch):
        return SequentialOrder(None)


def test_an_endless_sampler_goes_on_and_has_no_length():
    iterator = iter(Endless())
    assert [next(iterator) for _ in range(5000)] == list(range(5000))
    with pytest.raises(TypeError, match=r"Endless is endless and has no len\(\)"):
        len(Endless())


def test_a_subclass_that_iterates_itself_is_the_users_own():
    class Backwards(SequentialSampler):
        def __iter__(self):
            return reversed(list(super().__iter__()))

    assert seekable(Backwards("abc")) is None
    assert known_order(Backwards("abc"), 0, 0) is None
    assert seekable(SequentialSampler("abc")) is not None


@pytest.mark.parametrize("indices", [[2, 0, 1], (2, 0), range(2, 5), np.array([3, 1], dtype=np.uint8), []])
def test_the_order_of_a_sequence_of_integers_is_known(indices):
    order = known_order(indices, 0, 0)
    assert order.take(0, order.length).tolist() == list(indices)


@pytest.mark.parametrize("sampler", [["a"], [0.5], np.zeros((2, 2), int), [[0, 1], [2]], iter([1])])
def test_the_order_of_anything_else_is_not_known(sampler):
    assert known_order(sampler, 0, 0) is None


def test_a_list_that_iterates_in_its_own_way_is_the_users_own():
    class Backwards(list):
        def __iter__(self):
            return reversed([self[place] for place in range(len(self))])

    assert known_order(Backwards([0, 1, 2]), 0, 0) is None


def test_a_mask_is_no_sampler():
    with pytest.raises(TypeError, match=r"sampler must yield indices, got a mask of booleans; use numpy\.flatnonzero"):
        known_order([True, False], 0, 0)
