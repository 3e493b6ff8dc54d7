"""Laws of length buckets: every sample once, whatever the batch size and the world, within the bound, padded little."""

import json
import pickle
import random
import re
from itertools import chain

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import feedline
from feedline import DataLoader, ErrorPolicy, LengthBucketBatchSampler, Shard
from feedline.errors import StateError
from feedline.order.batches import unwrapped

LENGTHS = st.one_of(
    st.lists(st.integers(0, 9), min_size=1, max_size=60),
    st.lists(st.integers(0, 5_000), min_size=1, max_size=200),
)


def log_normal(count, sigma=1.0):
    normal = np.random.default_rng(0).normal(5, sigma, count)
    return np.clip(np.exp(normal).astype(np.int64), 1, 8192)


def loader_of(lengths, size=None, tokens=None, shard=None, **how):
    """A loader whose samples are their indices."""
    how = {"bucket_size": 16, "buckets": 2} | how if tokens is None else how
    sampler = LengthBucketBatchSampler(lengths, size, tokens, **how)
    return DataLoader(range(len(lengths)), batch_sampler=sampler, seed=7, shard=shard)


def read(loader):
    return [batch.tolist() for batch in loader]


# ------------------------------------------------------------------------------------------------------- by samples


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_order_does_not_depend_on_the_batch_size(shuffle):
    lengths = log_normal(1_000)
    whole = {
        tuple(chain(*read(loader_of(lengths, size, bucket_size=64, buckets=4, shuffle=shuffle))))
        for size in (8, 32, 50)
    }
    assert len(whole) == 1


def test_default_buckets_hold_all_batches_up_to_256_and_the_next_power_of_two_from_there_on():
    sizes = [LengthBucketBatchSampler([1], size).sampler.bucket_size for size in (1, 256, 257, 512, 600)]
    assert sizes == [256, 256, 512, 512, 1024]


def test_drop_last_leaves_out_a_shorter_batch():
    lengths = log_normal(50)
    kept, dropped = (read(loader_of(lengths, 8, drop_last=drop)) for drop in (False, True))
    assert dropped == kept[:6]
    sampler = LengthBucketBatchSampler(lengths, 8, drop_last=True)
    assert len(sampler) == len(list(sampler)) == 6


# -------------------------------------------------------------------------------------------------------- by tokens


@given(LENGTHS, st.floats(0, 0.9), st.booleans(), st.integers(0, 3), st.data())
@settings(deadline=None)
@example([0, 0, 0], 0.0, True, 0, None)
def test_no_batch_is_over_the_bound_and_every_sample_comes_once(lengths, slack, shuffle, epoch, data):
    longest = max(*lengths, 1)
    tokens = longest if data is None else data.draw(st.integers(longest, 40 * longest), label="max_tokens")
    how = {"slack": slack} if shuffle else {}
    sampler = LengthBucketBatchSampler(lengths, max_tokens=tokens, shuffle=shuffle, generator=random.Random(0), **how)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert sorted(chain(*batches)) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= tokens // max(1, *(lengths[i] for i in batch)) for batch in batches)
    assert len(batches) == len(sampler)


def test_epochs_have_batches_of_the_same_sizes_in_another_order_and_of_other_samples():
    lengths = log_normal(5_000)
    loader = loader_of(lengths, tokens=8192)
    first, second = read(loader), read(loader)
    assert len(first) == len(second) == len(loader)
    sizes = [[len(batch) for batch in epoch] for epoch in (first, second)]
    assert sizes[0] != sizes[1]
    assert sorted(sizes[0]) == sorted(sizes[1])
    pairs = [{frozenset(batch[:2]) for batch in epoch if len(batch) > 2} for epoch in (first, second)]
    assert len(pairs[0] & pairs[1]) < 5
    again = loader_of(lengths, tokens=8192)
    assert (read(again), read(again)) == (first, second)


def test_unshuffled_the_longest_come_first_in_as_few_batches_as_greed_needs():
    sampler = LengthBucketBatchSampler([2, 5, 1, 5, 4, 2, 0], max_tokens=10, shuffle=False)
    assert list(sampler) == list(sampler) == [[1, 3], [4, 0], [5, 2, 6]]


def test_a_plan_tells_the_batches_without_reading_them():
    loader = loader_of(log_normal(500), tokens=8192)
    plan = loader.plan(1)
    assert [batch.indices.tolist() for batch in plan] == [plan[step].indices.tolist() for step in range(len(plan))]
    loader.set_epoch(1)
    assert [batch.indices.tolist() for batch in plan] == read(loader)
    positions = [batch.position for batch in plan]
    sizes = [len(batch.indices) for batch in plan]
    assert positions == [0, *np.cumsum(sizes)[:-1].tolist()]
    assert not plan[0].indices.flags.writeable
    assert plan[-1].until == len(plan)
    assert plan[0].indices.dtype == np.int64


def test_each_sample_is_augmented_under_its_global_position_whatever_the_world():
    lengths = log_normal(400)
    data = feedline.TensorDataset(np.arange(400)).map(lambda index: (index, feedline.rng().integers(1 << 40)), key=0)

    def drawn(shard):
        sampler = LengthBucketBatchSampler(lengths, max_tokens=8192)
        loader = DataLoader(data, batch_sampler=sampler, seed=3, shard=shard)
        return [pair for (batch,) in loader for pair in zip(*map(np.ndarray.tolist, batch), strict=True)]

    alone = drawn(None)
    assert len({number for _, number in alone}) == 400
    assert sorted(alone) == sorted(drawn(Shard(0, 2, "exact")) + drawn(Shard(1, 2, "exact")))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_replacement_is_of_like_length_and_keeps_the_bound(workers):
    class Half(feedline.Dataset):
        def __len__(self):
            return 100

        def __getitem__(self, index):
            if index % 2:
                raise ValueError(index)
            return index

    lengths = 1 + np.arange(100)
    sampler = LengthBucketBatchSampler(lengths, max_tokens=200)
    with DataLoader(Half(), batch_sampler=sampler, seed=1, on_error="replace", num_workers=workers) as loader:
        batches = read(loader)
    planned = [batch.indices.tolist() for batch in loader.plan(0)]
    assert [len(batch) for batch in batches] == [len(batch) for batch in planned]
    assert all(lengths[batch].max() * len(batch) <= 200 for batch in batches)
    assert all(not index % 2 for batch in batches for index in batch)
    pairs = [pair for batch, plan in zip(batches, planned, strict=True) for pair in zip(batch, plan, strict=True)]
    assert any(index not in plan for batch, plan in zip(batches, planned, strict=True) for index in batch)
    assert all(index == wanted for index, wanted in pairs if not wanted % 2)
    with DataLoader(Half(), batch_sampler=sampler, seed=1, on_error=ErrorPolicy("replace")) as loader:
        assert read(loader) == batches


# ---------------------------------------------------------------------------------------- both: shards, resume, waste

MODES = {"samples": {"size": 6}, "tokens": {"tokens": 700}}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("end", ["pad", "drop", "exact"])
@given(st.integers(1, 120), st.integers(1, 5))
@settings(deadline=None, max_examples=20)
def test_ranks_share_an_epoch(mode, end, count, world):
    lengths = log_normal(count).clip(max=700)
    alone = sorted(chain(*read(loader_of(lengths, **MODES[mode]))))
    ranks = [read(loader_of(lengths, **MODES[mode], shard=Shard(rank, world, end))) for rank in range(world)]
    got = sorted(chain(*chain(*ranks)))
    assert alone == list(range(count))
    if end == "exact":
        assert got == alone
    elif end == "pad":
        assert set(got) == set(alone)
        assert len({len(rank) for rank in ranks}) == 1
    else:
        assert len(set(got)) == len(got)
        assert len({len(rank) for rank in ranks}) == 1
    assert [len(rank) for rank in ranks] == [
        len(loader_of(lengths, **MODES[mode], shard=Shard(rank, world, end))) for rank in range(world)
    ]


STAGES = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 16), st.integers(0, 3)), max_size=4)


@pytest.mark.parametrize("mode", MODES)
@given(st.integers(1, 120), STAGES)
@settings(deadline=None, max_examples=30)
def test_exact_shards_deliver_every_sample_once_through_any_changes_of_batch_size_and_world(mode, count, stages):
    lengths = log_normal(count).clip(max=700)
    got, state = [], None
    for world, size, steps in [*stages, (2, 3, None)]:
        states = []
        for rank in range(world):
            how = {"size": size} if mode == "samples" else MODES[mode]
            loader = loader_of(lengths, **how, shard=Shard(rank, world, "exact"))
            if state is not None:
                loader.load_state_dict(state)
            units = count if mode == "samples" else len(loader.plan(0).order.samples.table.starts) - 1
            left = units - loader.state_dict()["position"]
            full = None if steps is None else min(steps, left // (world * (size if mode == "samples" else 1)))
            iterator = iter(loader)
            batches = iterator if full is None else (next(iterator) for _ in range(full))
            got += chain(*(batch.tolist() for batch in batches))
            states.append(json.loads(json.dumps(loader.state_dict())))
        if steps is not None:
            assert all(other == states[0] for other in states)
            state = states[0]
    assert sorted(got) == list(range(count))


@pytest.mark.parametrize("mode", MODES)
def test_a_state_is_of_these_lengths_and_this_shape(mode):
    lengths = log_normal(100).clip(max=700)
    loader = loader_of(lengths, **MODES[mode])
    next(iter(loader))
    state = loader.state_dict()
    assert len(state["sampler"]) < 100
    shapes = [{"bucket_size": 32}, {"buckets": 3}] if mode == "samples" else [{"slack": 0.5}, {"tokens": 701}]
    for shape in [*shapes, {"shuffle": False}]:
        with pytest.raises(StateError, match="the state is of a loader with LengthBucketBatchSampler"):
            loader_of(lengths, **(MODES[mode] | shape)).load_state_dict(state)
    with pytest.raises(StateError, match="build the loader with the sampler that it had"):
        loader_of(np.roll(lengths, 1), **MODES[mode]).load_state_dict(state)


@pytest.mark.parametrize("mode", MODES)
def test_names_are_short_whatever_is_in_them(mode):
    large = {"size": 10**9, "bucket_size": 10**9, "buckets": 10**9} if mode == "samples" else {"tokens": 2**62}
    name = loader_of([1], **large).state_dict()["sampler"]
    assert len(name) < 100
    assert name.endswith(")")


@pytest.mark.parametrize("mode", MODES)
def test_the_seed_is_drawn_from_the_generator(mode):
    def first(seed):
        lengths = log_normal(100).clip(max=700)
        return list(
            LengthBucketBatchSampler(
                lengths, MODES[mode].get("size"), MODES[mode].get("tokens"), generator=random.Random(seed)
            )
        )

    assert first(1) == first(1)
    assert first(1) != first(2)


@pytest.mark.parametrize("mode", MODES)
def test_epochs_advance_and_can_be_asked_for(mode):
    loader = loader_of(log_normal(100).clip(max=700), **MODES[mode])
    first, second = read(loader), read(loader)
    assert first != second
    loader.batch_sampler.set_epoch(0)
    assert read(loader) == first


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backend", ["thread", "process"])
def test_workers_make_the_same_batches(mode, backend):
    lengths = log_normal(200).clip(max=700)
    sampler = LengthBucketBatchSampler(lengths, MODES[mode].get("size"), MODES[mode].get("tokens"))
    with DataLoader(range(200), batch_sampler=sampler, seed=7, num_workers=2, backend=backend) as loader:
        epochs = read(loader), read(loader)
    alone = DataLoader(range(200), batch_sampler=sampler, seed=7)
    assert (read(alone), read(alone)) == epochs


@pytest.mark.parametrize("mode", MODES)
def test_orders_travel_by_pickle(mode):
    sampler = loader_of(log_normal(50).clip(max=700), **MODES[mode]).batch_sampler.sampler
    order = sampler.order(1, 0)
    taken = order.take(0, 50)
    for copy in (order, sampler.order(1, 0)):
        assert np.array_equal(pickle.loads(pickle.dumps(copy)).take(0, 50), taken)


@pytest.mark.parametrize("size", [16, 32, 50, 256])
def test_buckets_waste_a_fraction_of_what_shuffling_does(size):
    sampler = LengthBucketBatchSampler(log_normal(50_000), size)
    assert 4 * sampler.padding_waste() < sampler.padding_waste(bucketed=False)


def test_batches_by_tokens_waste_a_few_hundredths():
    sampler = LengthBucketBatchSampler(log_normal(50_000), max_tokens=16_384)
    assert sampler.padding_waste() < 0.03 < 0.6 < sampler.padding_waste(bucketed=False)
    sorted_once = LengthBucketBatchSampler(log_normal(50_000), max_tokens=16_384, shuffle=False)
    assert sorted_once.padding_waste() <= sampler.padding_waste()


@given(LENGTHS, st.integers(1, 30), st.booleans(), st.integers(0, 2))
@settings(deadline=None)
def test_the_waste_is_that_of_the_batches(lengths, size, drop_last, epoch):
    lengths = np.array(lengths)
    by_samples = LengthBucketBatchSampler(lengths, size, drop_last=drop_last)
    by_tokens = LengthBucketBatchSampler(lengths, max_tokens=size * max(int(lengths.max()), 1))
    for sampler in (by_samples, by_tokens):
        plan = DataLoader(range(len(lengths)), batch_sampler=sampler, seed=5).plan(epoch)
        padded = sum(len(batch.indices) * int(lengths[batch.indices].max()) for batch in plan)
        real = sum(int(lengths[batch.indices].sum()) for batch in plan)
        expected = (padded - real) / padded if padded else 0.0
        assert sampler.padding_waste(5, epoch) == pytest.approx(expected)
        assert 0 <= sampler.padding_waste(5, epoch, bucketed=False) < 1


def test_batches_of_ours_come_apart_unless_they_are_overridden():
    class Own(LengthBucketBatchSampler):
        def __iter__(self):
            return iter([[0]])

    by_samples = LengthBucketBatchSampler([1, 2], 2, drop_last=True)
    by_tokens = LengthBucketBatchSampler([1, 2], max_tokens=2)
    assert unwrapped(by_samples) == (by_samples.sampler, 2, True)
    assert unwrapped(by_tokens) == (by_tokens.sampler, 1, False)
    assert unwrapped(Own([1, 2], 2)) is None
    assert read(DataLoader(range(2), batch_sampler=Own([1, 2], 2))) == [[0]]
    assert unwrapped([[0]]) is None


def test_a_loader_shows_the_batch_size_where_there_is_one():
    assert "batch_size=6" in repr(loader_of([1] * 20, 6))
    shown = repr(loader_of([1] * 20, tokens=10))
    assert "batch_size=None" in shown
    assert "max_tokens=10" in shown
    assert "batches=2 an epoch" in shown


def test_check_collates_the_first_batch_of_a_loader_by_tokens():
    data = [np.zeros(length) for length in (3, 5, 4, 4)]
    sampler = LengthBucketBatchSampler([len(array) for array in data], max_tokens=20)
    report = feedline.check(DataLoader(data, batch_sampler=sampler))
    assert "of the first 4 samples it raises" in str(report)
    padded = feedline.check(DataLoader(data, batch_sampler=sampler, collate_fn=feedline.pad_collate))
    assert "collate_fn" not in str(padded)


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([], "lengths must be one-dimensional, one a sample, and at least one, got shape (0,)"),
        ([[1, 2]], "lengths must be one-dimensional, one a sample, and at least one, got shape (1, 2)"),
        ({1, 2}, "lengths must be a one-dimensional sequence or array, one a sample, got set: give a list of them"),
        ([1.0, 2.0], "lengths must be integers, got dtype float64; count tokens, frames or bytes"),
        ([True, False], "lengths must be integers, got dtype bool"),
        ([3, -1], "lengths must be from 0 to 2**63 - 1, got -1 at index 1"),
        (np.array([3, 1 << 63], np.uint64), "lengths must be from 0 to 2**63 - 1, got 9223372036854775808 at index 1"),
    ],
)
def test_lengths_that_are_no_lengths_are_a_value_error(lengths, message):
    for how in ({"batch_size": 2}, {"max_tokens": 9}):
        with pytest.raises(ValueError, match=re.escape(message)):
            LengthBucketBatchSampler(lengths, **how)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({}, "exactly one of batch_size and max_tokens must be given, got batch_size=None and max_tokens=None"),
        ({"batch_size": 2, "max_tokens": 9}, "exactly one of batch_size and max_tokens must be given"),
        ({"batch_size": 0}, "batch_size must be a positive integer, got 0"),
        ({"batch_size": 2.0}, "batch_size must be a positive integer, got 2.0"),
        ({"max_tokens": 0}, "max_tokens must be a positive integer, got 0"),
        ({"max_tokens": True}, "max_tokens must be a positive integer, got True"),
        ({"batch_size": 2, "shuffle": 1}, "shuffle must be True or False, got 1"),
        ({"batch_size": 2, "drop_last": 1}, "drop_last must be True or False, got 1"),
        ({"batch_size": 2, "bucket_size": 0}, "bucket_size must be a positive integer, got 0"),
        ({"batch_size": 8, "bucket_size": 7}, "bucket_size must be at least batch_size = 8, so that a batch can come"),
        ({"batch_size": 2, "buckets": 0}, "buckets must be a positive integer, got 0"),
        ({"batch_size": 2, "slack": 0.1}, "slack is for max_tokens only, got slack=0.1 with batch_size; leave it out"),
        ({"max_tokens": 9, "bucket_size": 8}, "bucket_size is for batch_size only, got bucket_size=8 with max_tokens"),
        ({"max_tokens": 9, "buckets": 8}, "buckets is for batch_size only, got buckets=8 with max_tokens"),
        ({"max_tokens": 9, "drop_last": True}, "drop_last is for batch_size only, got drop_last=True with max_tokens"),
        ({"max_tokens": 9, "slack": 1}, "slack must be a share from 0 to below 1, got 1"),
        ({"max_tokens": 9, "slack": -0.1}, "slack must be a share from 0 to below 1, got -0.1"),
        ({"max_tokens": 9, "slack": float("nan")}, "slack must be a share from 0 to below 1, got nan"),
        ({"max_tokens": 9, "slack": "1"}, "slack must be a share from 0 to below 1, got '1'"),
        ({"max_tokens": 9, "slack": True}, "slack must be a share from 0 to below 1, got True"),
    ],
)
def test_an_argument_that_breaks_its_rule_is_a_value_error_that_names_it(how, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        LengthBucketBatchSampler([3, 1, 2], **how)


def test_a_sample_that_fits_in_no_batch_is_named():
    message = (
        "max_tokens must be at least the longest length, so that a batch can hold it, got 8: sample 2 has length 9; "
        "raise max_tokens, or cut or leave out longer samples"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        LengthBucketBatchSampler([3, 1, 9, 9], max_tokens=8)


def test_numpy_integers_and_small_types_are_lengths():
    lengths = np.array([3, 250, 7], np.uint8)
    assert sorted(chain(*LengthBucketBatchSampler(lengths, np.int64(2)))) == [0, 1, 2]
    assert sorted(chain(*LengthBucketBatchSampler(lengths, max_tokens=np.int64(250)))) == [0, 1, 2]
