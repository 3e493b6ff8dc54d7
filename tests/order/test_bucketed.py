"""Laws of orders by length: every sample once, like lengths side by side, anything else at random."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from feedline.order.bucketed import BucketedOrder, TokenBuckets, TokenOrder, filled_in_turn

LENGTHS = st.one_of(
    st.lists(st.integers(0, 9), min_size=1, max_size=60),
    st.lists(st.integers(0, 5_000), min_size=1, max_size=200),
)


def log_normal(count, sigma=1.0):
    normal = np.random.default_rng(0).normal(5, sigma, count)
    return np.clip(np.exp(normal).astype(np.int64), 1, 8192)


def bucketed(lengths, size=8, buckets=4, seed=1, epoch=0, shuffle=True):
    order = BucketedOrder(np.array(lengths), size, buckets, shuffle=shuffle, seed=seed, epoch=epoch)
    return order.take(0, order.length)


@given(LENGTHS, st.integers(1, 20), st.integers(1, 9), st.booleans(), st.integers(0, 3))
@settings(deadline=None)
def test_an_epoch_holds_every_sample_once(lengths, size, buckets, shuffle, epoch):
    indices = bucketed(lengths, size, buckets, epoch=epoch, shuffle=shuffle)
    assert sorted(indices.tolist()) == list(range(len(lengths)))


def test_the_order_is_fixed_by_seed_and_epoch():
    lengths = log_normal(3_000)
    assert np.array_equal(bucketed(lengths), bucketed(lengths))
    orders = [bucketed(lengths, seed=seed, epoch=epoch) for seed in (1, 2) for epoch in (0, 1)]
    assert len({order.tobytes() for order in orders}) == 4


def test_the_order_is_the_same_in_every_release_and_on_every_machine():
    lengths = np.arange(20) * 7 % 11
    by_samples = [4, 18, 2, 15, 16, 0, 10, 19, 12, 6, 17, 7, 8, 13, 11, 5, 1, 9, 3, 14]
    by_tokens = [7, 19, 0, 9, 17, 8, 10, 16, 4, 14, 3, 1, 6, 12, 5, 2, 13, 18, 15, 11]
    assert bucketed(lengths, 4, 3).tolist() == by_samples
    order = TokenOrder(TokenBuckets.of(lengths, 20, 1 / 32), shuffle=True, seed=1, epoch=0)
    assert order.take(0, 20).tolist() == by_tokens
    assert order.starts.tolist() == [0, 3, 5, 8, 10, 12, 14, 17, 20]


@given(LENGTHS, st.integers(1, 12), st.integers(1, 6))
@settings(deadline=None)
def test_each_whole_bucket_is_a_stretch_of_the_sorted_group(lengths, size, buckets):
    """No sample outside a bucket, of its group, lies strictly between the bucket's shortest and longest: by rank."""
    lengths = np.array(lengths)
    indices = bucketed(lengths, size, buckets)
    if len(lengths) > size * buckets:
        lengths = lengths[: size * buckets]  # one group, of which the buckets are known
        indices = bucketed(lengths, size, buckets)
    whole = len(lengths) // size * size
    rows = [np.sort(row) for row in lengths[indices[:whole]].reshape(-1, size)]
    rows = [*rows, *([np.sort(lengths[indices[whole:]])] if whole < len(lengths) else [])]
    rows.sort(key=lambda row: (row[0], row[-1]))
    assert np.array_equal(np.concatenate(rows), np.sort(lengths))


def test_what_is_left_over_comes_last_and_is_of_any_length():
    lengths = np.arange(100)
    last = {tuple(np.sort(bucketed(lengths, 8, 100, epoch=epoch)[96:])) for epoch in range(200)}
    assert last == {tuple(range(96 - 8 * place, 100 - 8 * place)) for place in range(13)}


def test_buckets_change_places_all_over_the_epoch_and_samples_within_them():
    lengths = np.arange(4_000)
    first, second = (bucketed(lengths, 8, 10_000, epoch=epoch).reshape(-1, 8) for epoch in (0, 1))
    assert {frozenset(row.tolist()) for row in first} == {frozenset(row.tolist()) for row in second}
    correlation = np.corrcoef(first.min(axis=1), second.min(axis=1))[0, 1]
    assert abs(correlation) < 4 / 500**0.5
    places = np.stack([first % 8, second % 8])  # uniform: each place holds each member in an eighth of the buckets
    for rows in places:
        counts = (rows[:, :, None] == np.arange(8)).sum(axis=0)
        assert (((counts - 62.5) ** 2) / 62.5).sum() < 49 + 5 * (2 * 49) ** 0.5


def test_samples_of_a_batch_differ_from_epoch_to_epoch():
    lengths = log_normal(20_000)
    pairs = [
        {frozenset(pair) for pair in bucketed(lengths, 16, 16, epoch=epoch).reshape(-1, 2).tolist()} for epoch in (0, 1)
    ]
    assert len(pairs[0] & pairs[1]) < 20


def test_unshuffled_groups_keep_their_order_and_are_sorted_the_longest_first():
    lengths = np.array([3, 1, 2, 3, 2, 9, 8, 9, 1])
    assert bucketed(lengths, 2, 2, shuffle=False).tolist() == [0, 3, 2, 1, 5, 7, 6, 4, 8]
    assert bucketed(lengths, 2, 9, shuffle=False, epoch=3).tolist() == [5, 7, 6, 0, 3, 2, 4, 1, 8]


def test_lengths_of_any_size_are_sorted():
    for top in (200, 60_000, 1 << 30, (1 << 63) - 1):
        lengths = np.random.default_rng(0).integers(0, top, 500)
        assert np.array_equal(bucketed(lengths, 500, 1, shuffle=False), np.argsort(-lengths, kind="stable"))


def test_a_bucket_is_no_wider_than_the_slack_or_four_batches():
    lengths = log_normal(20_000)
    table = TokenBuckets.of(lengths, 16_384, 1 / 32)
    for bucket in range(int(table.bucket.max())):
        own = lengths[table.bucket == bucket]
        assert own.min() >= own.max() * 31 / 32 or len(own) == 4 * (16_384 // own.max())
    assert (np.diff(table.starts) > 0).all()


def test_few_distinct_lengths_make_few_buckets():
    table = TokenBuckets.of(np.repeat([5, 3, 0], 100_000), 10, 0.0)
    assert table.bucket.max() < 6


@given(LENGTHS, st.integers(0, 300))
@settings(deadline=None)
def test_batches_filled_in_turn_take_all_that_fits(lengths, more):
    tokens = max(*lengths, 1) + more
    starts = filled_in_turn(np.array(lengths), tokens).tolist()
    assert starts[0] == 0
    for start, stop in zip(starts, [*starts[1:], len(lengths)], strict=True):
        assert max(lengths[start:stop]) * (stop - start) <= tokens
        assert stop - start <= tokens
        one_more = lengths[start : stop + 1]
        assert stop == len(lengths) or max(1, *one_more) * len(one_more) > tokens
