"""Weighted draws follow their weights: the table to within rounding, the draws by chi-square."""

import itertools
import math
import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feedline import seeding
from feedline.order.samplers import WeightedRandomSampler
from feedline.order.weighted import (
    AliasTable,
    WeightedDistinctOrder,
    WeightedOrder,
    _ascending,
    _log,
    check_distinct,
    checked_weights,
)

weight = st.one_of(
    st.just(0.0),
    st.floats(0.1, 10),
    st.floats(1e-300, 1e300),
    st.floats(0, allow_infinity=False, allow_nan=False),
)
some_weights = st.lists(weight, min_size=1, max_size=60).filter(any)


def deviations(counts, expected):
    """Chi-square of counts as a standard normal deviate, by Wilson and Hilferty's approximation."""
    freedom = counts.size - 1
    ratio = ((counts - expected) ** 2 / expected).sum() / freedom
    return (ratio ** (1 / 3) - 1 + 2 / (9 * freedom)) / math.sqrt(2 / (9 * freedom))


def shares(weights):
    scaled = np.asarray(weights, dtype=np.float64) / max(weights)
    return scaled / math.fsum(scaled)


def assert_implied_probabilities_are_the_weights(weights):
    implied, wanted = AliasTable(weights).probabilities(), shares(weights)
    scale = np.maximum(wanted, 1 / len(weights))
    assert (np.abs(implied - wanted) <= 1e-12 * scale).all()
    assert np.array_equal(implied > 0, np.asarray(weights) > 0)
    assert implied.sum() == pytest.approx(1, abs=1e-12)


# -------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([], "weights must hold at least one weight, got none"),
        ([[1.0, 2.0]], "weights must be one-dimensional, one a sample, got shape (1, 2)"),
        (3.0, "weights must be one-dimensional, one a sample, got shape ()"),
        ([1.0, -0.5], "weights must be finite and not negative, got -0.5 at index 1"),
        ([math.nan, 1.0], "weights must be finite and not negative, got nan at index 0"),
        ([1.0, 2.0, math.inf], "weights must be finite and not negative, got inf at index 2"),
        ([0.0, 0.0], "weights must not all be zero, got 2 zeros"),
        ([[1.0], [1.0, 2.0]], "weights must be one-dimensional, one a sample, got sequences of different lengths"),
        (["1", "2"], "weights must be real numbers, got dtype <U1"),
        ([1j, 2], "weights must be real numbers, got dtype complex128"),
        (np.zeros(2, "datetime64[s]"), "weights must be real numbers, got dtype datetime64[s]"),
        ([10**400, 1], "weights must be real numbers within the range of float64: int too large"),
        ([Fraction(1, 3), {}], "weights must be real numbers within the range of float64: float() argument"),
        ([1.0, None], "weights must be finite and not negative, got nan at index 1"),
        (np.array([1, np.longdouble("1e4000")]), "weights must be finite and not negative, got inf at index 1"),
    ],
)
def test_weights_that_are_no_weights_are_a_value_error(weights, message):
    for take in (
        checked_weights,
        AliasTable,
        lambda weights: WeightedDistinctOrder(weights, 1, 1, 0),
        lambda weights: WeightedRandomSampler(weights, 1),
        lambda weights: WeightedRandomSampler(weights, 1, replacement=False),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            take(weights)


def test_lengths_are_checked():
    for make in (
        lambda: WeightedOrder(AliasTable([1]), -1, 1, 0),
        lambda: WeightedDistinctOrder(np.ones(2), -1, 1, 0),
    ):
        with pytest.raises(ValueError, match=r"length must be from 0 to .*, got -1"):
            make()


def test_more_distinct_draws_than_positive_weights_are_a_value_error():
    message = r"at most the number of positive weights \(2\).*without replacement, got 3: draw fewer, or with"
    with pytest.raises(ValueError, match=message):
        WeightedDistinctOrder(np.array([1.0, 0.0, 2.0]), length=3, seed=1, epoch=0)
    with pytest.raises(ValueError, match="^num_samples must be " + message):
        WeightedRandomSampler([1.0, 0.0, 2.0], 3, replacement=False)
    with pytest.raises(ValueError, match="^count must be " + message):
        check_distinct(3, np.array([1.0, 0.0, 2.0]), "count")


@pytest.mark.parametrize(
    "weights",
    [
        (3, 0, 1),
        np.array([3, 0, 1], dtype=np.float32),
        np.array([3, 0, 1], dtype=np.float16),
        np.array([3, 0, 1], dtype=np.uint8),
        np.array([3, 0, 1], dtype=np.longdouble),
        np.array([3, 9, 0, 9, 1], dtype=">f8")[::2],
        [Fraction(3), 0, Decimal(1)],
        [np.float32(3), False, True],
    ],
)
def test_weights_of_any_real_type_are_the_same_weights(weights):
    checked = checked_weights(weights)
    assert (checked.dtype, checked.tolist()) == (np.float64, [3, 0, 1])
    assert AliasTable(weights).probabilities().tolist() == [0.75, 0, 0.25]


def test_subnormal_weights_of_float32_are_positive():
    assert checked_weights(np.array([1e-45], dtype=np.float32))[0] > 0


def test_a_samplers_weights_are_a_copy_that_nothing_changes():
    given_weights = np.array([1.0, 2.0, 3.0])
    for replacement in (True, False):
        sampler = WeightedRandomSampler(given_weights, 3, replacement)
        name, before = sampler.name, sampler.order(1, 0).take(0, 3).tolist()
        given_weights[0] = 1e9
        assert (sampler.name, sampler.order(1, 0).take(0, 3).tolist()) == (name, before)
        given_weights[0] = 1.0
        with pytest.raises(ValueError, match="read-only"):
            sampler.weights[0] = 5


@pytest.mark.parametrize(
    "order", [WeightedOrder(AliasTable([1, 2]), 2, 1, 0), WeightedDistinctOrder(np.ones(2), 2, 1, 0)]
)
def test_positions_outside_the_epoch_are_an_index_error_with_the_numbers(order):
    for start, stop in [(-1, 1), (2, 1), (0, 3)]:
        with pytest.raises(IndexError, match=rf"<= 2 \(the epoch's length\), got start={start}, stop={stop}"):
            order.take(start, stop)


def test_the_weights_given_are_not_changed_and_not_kept():
    weights = np.array([1.0, 3.0])
    table = AliasTable(weights)
    assert weights.tolist() == [1, 3]
    weights[:] = 0
    assert table.probabilities().tolist() == [0.25, 0.75]


# -------------------------------------------------------------------------------------------------- the table


@given(some_weights)
@example([1.0])
@example([5e-324, 5e-324, 0.0])
@example([1e-300, 1e300, 1.0])
@example([1.7e308] * 20)
@example([1e300] + [1e-300] * 40)
@example([1e-308, 1e308, 5e-324, 0.0, 1.7976931348623157e308])
@example([1e308] * 3 + [1e-308] * 3)
@example([1 / 3] * 7)
def test_the_table_implies_the_weights(weights):
    with np.errstate(all="raise"):
        AliasTable(weights)
    assert_implied_probabilities_are_the_weights(weights)


@settings(deadline=None, max_examples=25)
@given(
    size=st.integers(1, 20_000),
    law=st.sampled_from(["uniform", "pareto", "powers of ten", "zeros", "equal"]),
    seed=st.integers(0, 2**32),
)
@example(size=10**6, law="uniform", seed=0)
@example(size=10**6, law="pareto", seed=0)
@example(size=10**6, law="powers of ten", seed=0)
def test_large_tables_imply_the_weights(size, law, seed):
    source = np.random.default_rng(seed)
    weights = {
        "uniform": lambda: source.random(size) + 1e-9,
        "pareto": lambda: source.pareto(0.5, size) + 1e-9,
        "powers of ten": lambda: 10.0 ** source.uniform(-300, 300, size),
        "zeros": lambda: np.append(source.integers(0, 2, size), 1.0),
        "equal": lambda: np.append(np.full(size, 0.3), 1e6),
    }[law]()
    assert_implied_probabilities_are_the_weights(weights)


def test_each_bucket_draws_its_own_sample_or_its_alias_as_its_coin_says():
    """Over all buckets and a fine grid of coins the draws are as many as the probabilities say."""
    weights = [1.0, 2.0, 3.0, 4.0, 0.0, 6.0]
    coins = 1 << 12
    bucket = np.array([(b << 64) // 6 + 1 for b in range(6)], dtype=np.uint64)
    coin = np.arange(coins, dtype=np.uint64) << np.uint64(52)
    drawn = AliasTable(weights).draw(np.repeat(bucket, coins), np.tile(coin, 6))
    assert drawn.dtype == np.int64
    counts = np.bincount(drawn, minlength=6)
    assert np.abs(counts - np.array(weights) / 16 * 6 * coins).max() <= 6
    assert counts[4] == 0


# ------------------------------------------------------------------------------------------- with replacement


def test_weighted_draws_are_pinned():
    order = WeightedOrder(AliasTable([1, 2, 3, 4]), length=12, seed=1, epoch=0)
    assert order.take(0, 12).tolist() == [3, 2, 2, 2, 1, 2, 3, 3, 2, 1, 3, 0]


@pytest.mark.parametrize(
    "weights",
    [[1, 2, 3, 4], [1000, 100, 50], list(range(1, 101)), [0.001, 1, 1, 1000]],
)
def test_a_million_draws_come_as_often_as_their_weights(weights):
    drawn = WeightedOrder(AliasTable(weights), 10**6, seed=2, epoch=0).take(0, 10**6)
    assert abs(deviations(np.bincount(drawn, minlength=len(weights)), shares(weights) * 10**6)) < 4


@pytest.mark.parametrize(
    "weights",
    [2.0 ** -np.arange(20), np.random.default_rng(0).pareto(1, 5_000) + 0.1, 1e-308 / np.arange(1, 101)],
    ids=["geometric", "pareto", "subnormal"],
)
def test_ten_million_draws_come_as_often_as_their_weights(weights):
    draws, block = 10**7, 1 << 20
    order = WeightedOrder(AliasTable(weights), draws, seed=6, epoch=0)
    counts = np.zeros(len(weights), dtype=np.int64)
    for start in range(0, draws, block):
        counts += np.bincount(order.take(start, min(start + block, draws)), minlength=len(weights))
    expected = shares(weights) * draws
    assert expected.min() > 5  # what chi-square asks for
    assert abs(deviations(counts, expected)) < 4


def test_successive_draws_are_independent():
    weights = np.arange(1, 9)
    drawn = WeightedOrder(AliasTable(weights), 10**6, seed=3, epoch=0).take(0, 10**6)
    pairs = np.bincount(drawn[0::2] * 8 + drawn[1::2], minlength=64)
    assert abs(deviations(pairs, np.outer(shares(weights), shares(weights)).reshape(-1) * len(drawn) / 2)) < 4


def test_zero_weights_are_never_drawn():
    weights = np.tile([0.0, 1e-12, 5.0, 0.0], 1_000)
    drawn = WeightedOrder(AliasTable(weights), 200_000, seed=4, epoch=0).take(0, 200_000)
    assert weights[drawn].min() > 0


@given(
    start=st.integers(0, 1_000),
    count=st.integers(0, 300),
    cut=st.integers(0, 300),
    seed=st.integers(0, 2**64 - 1),
)
def test_any_split_of_take_gives_the_same_indices(start, count, cut, seed):
    table, cut = AliasTable([3, 1, 4, 1, 5, 9, 2, 6]), min(cut, count)
    order = WeightedOrder(table, 2_000, seed, epoch=1)
    whole = order.take(0, 2_000)
    parts = [order.take(start, start + cut), order.take(start + cut, start + count)]
    assert np.concatenate(parts).tolist() == whole[start : start + count].tolist()


def test_seeds_and_epochs_give_different_draws():
    table = AliasTable(np.ones(1_000))
    drawn = [WeightedOrder(table, 100, *key).take(0, 100).tolist() for key in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    assert all(one != other for one, other in itertools.combinations(drawn, 2))


# ---------------------------------------------------------------------------------------- without replacement


def test_distinct_draws_are_pinned():
    order = WeightedDistinctOrder(np.arange(10.0), length=9, seed=1, epoch=0)
    assert order.take(0, 9).tolist() == [7, 9, 8, 4, 1, 2, 5, 6, 3]


@given(weights=some_weights, seed=st.integers(0, 2**64 - 1), data=st.data())
def test_distinct_draws_are_distinct_and_of_positive_weight(weights, seed, data):
    positive = np.count_nonzero(weights)
    length = data.draw(st.integers(0, positive))
    cut = data.draw(st.integers(0, length))
    with np.errstate(all="raise"):
        order = WeightedDistinctOrder(np.array(weights), length, seed, epoch=0)
        drawn = order.take(0, length)
    assert len(set(drawn.tolist())) == length
    assert all(weights[index] > 0 for index in drawn)
    assert np.concatenate([order.take(0, cut), order.take(cut, length)]).tolist() == drawn.tolist()
    everything = WeightedDistinctOrder(np.array(weights), int(positive), seed, epoch=0).take(0, int(positive))
    assert everything[:length].tolist() == drawn.tolist()


def test_each_distinct_draw_is_in_proportion_to_the_weights_left():
    """All 24 sequences of 4 samples come as often as successive draws without replacement have them."""
    weights = np.array([1.0, 2.0, 3.0, 6.0])
    epochs = 20_000
    found = dict.fromkeys(itertools.permutations(range(4)), 0)
    for epoch in range(epochs):
        found[tuple(WeightedDistinctOrder(weights, 4, 5, epoch).take(0, 4).tolist())] += 1
    law = [
        math.prod(weights[p] / (weights.sum() - weights[list(sequence[:k])].sum()) for k, p in enumerate(sequence))
        for sequence in found
    ]
    assert abs(deviations(np.array(list(found.values())), epochs * np.array(law))) < 4


@pytest.mark.parametrize("scale", [1.0, 1e307, 2.0**-1074], ids=["common", "the sum overflows", "subnormal"])
def test_first_and_second_draws_and_inclusions_have_their_exact_probabilities(scale):
    """Successive sampling of 3 out of 6: the probabilities are summed over all 120 sequences."""
    weights, epochs = np.array([1.0, 2.0, 0.0, 16.0, 4.0, 3.0, 8.0]), 6_000
    first, second, included = np.zeros((3, 7))
    for sequence in itertools.permutations(np.flatnonzero(weights), 3):
        chance, left = 1.0, weights.sum()
        for index in sequence:
            chance, left = chance * weights[index] / left, left - weights[index]
        first[sequence[0]] += chance
        second[sequence[1]] += chance
        included[list(sequence)] += chance
    assert first == pytest.approx(weights / weights.sum())
    drawn = np.array([WeightedDistinctOrder(weights * scale, 3, 8, epoch).take(0, 3) for epoch in range(epochs)])
    positive = weights > 0
    for place, law in [(0, first), (1, second)]:
        counts = np.bincount(drawn[:, place], minlength=7)
        assert abs(deviations(counts[positive], epochs * law[positive])) < 4
    counts = np.bincount(drawn.reshape(-1), minlength=7)
    assert counts[~positive].tolist() == [0]
    spread = np.sqrt(epochs * included * (1 - included))[positive]
    assert (np.abs(counts - epochs * included)[positive] < 4 * spread).all()


def test_many_samples_are_drawn_by_one_law():
    """Of 200,000 samples in two kinds, the heavy ones among the first 10,000 are as many as a heap of each gives."""
    weights = np.tile([1.0, 3.0], 100_000)
    drawn = WeightedDistinctOrder(weights, 10_000, seed=9, epoch=0).take(0, 10_000)
    # After a fraction t of Exp(1) time a light sample is drawn with 1 - exp(-t), a heavy one with 1 - exp(-3 t).
    light, heavy = np.bincount((weights[drawn] == 3).astype(int))
    time = -math.log(1 - light / 100_000)
    expected = 100_000 * (1 - math.exp(-3 * time))
    assert abs(heavy - expected) < 4 * math.sqrt(expected + 9 * light)


@pytest.mark.parametrize("weights", [[2.5], [5e-324], [1.7976931348623157e308]])
def test_one_weight_is_all_there_is_to_draw(weights):
    assert WeightedRandomSampler(weights, 4).order(1, 0).take(0, 4).tolist() == [0] * 4
    assert WeightedRandomSampler(weights, 1, replacement=False).order(1, 0).take(0, 1).tolist() == [0]


def test_the_least_and_the_greatest_weight_go_together():
    weights = np.array([1e-308, 1e308, 5e-324, 1e-308, 1e308])
    for epoch in range(50):
        drawn = WeightedDistinctOrder(weights, 5, 1, epoch).take(0, 5).tolist()
        assert (sorted(drawn[:2]), sorted(drawn[2:4]), drawn[4]) == ([1, 4], [0, 3], 2)
        assert WeightedDistinctOrder(weights, 2, 1, epoch).take(0, 2).tolist() == drawn[:2]
        assert set(WeightedOrder(AliasTable(weights), 20, 1, epoch).take(0, 20).tolist()) <= {1, 4}


@pytest.mark.parametrize("replacement", [True, False])
@given(seed=st.integers(0, 2**64 - 1), block=st.integers(1, 20_000))
@settings(max_examples=20)
def test_the_order_is_the_same_whatever_block_is_asked_for(replacement, seed, block):
    """Keys of 40,000 samples are made in three chunks; a shorter epoch, which sorts fewer, begins the longer one."""
    weights = np.arange(40_000) % 7
    length = int(np.count_nonzero(weights))
    whole = WeightedRandomSampler(weights, length, replacement).order(seed, 2).take(0, length)
    order = WeightedRandomSampler(weights, length // 3, replacement).order(seed, 2)
    parts = [order.take(start, min(start + block, order.length)) for start in range(0, order.length, block)]
    assert np.concatenate(parts).tolist() == whole[: length // 3].tolist()
    assert replacement or len(set(whole.tolist())) == length


@given(st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.5, 1e300, -1e300]) | st.floats(-2, 2), max_size=60))
@example([1.0] * 50 + [0.0] * 50)
def test_keys_are_sorted_stably(keys):
    keys = np.array(keys, dtype=np.float64)
    assert _ascending(keys).tolist() == np.argsort(keys, kind="stable").tolist()


def test_extreme_weights_come_in_their_order():
    weights = 10.0 ** np.arange(-300, 301, 60)
    drawn = WeightedDistinctOrder(weights, len(weights), seed=1, epoch=0).take(0, len(weights))
    assert drawn.tolist() == list(range(len(weights)))[::-1]


def test_distinct_draws_are_read_only():
    taken = WeightedDistinctOrder(np.ones(5), 5, 1, 0).take(0, 3)
    with pytest.raises(ValueError, match="read-only"):
        taken[0] = 1


def test_distinct_draws_do_not_depend_on_the_scale_of_the_weights():
    weights = np.random.default_rng(0).random(1_000) + 0.1
    one = WeightedDistinctOrder(weights, 1_000, seed=1, epoch=0).take(0, 1_000)
    assert np.array_equal(WeightedDistinctOrder(weights * 2.0**900, 1_000, seed=1, epoch=0).take(0, 1_000), one)


@given(st.floats(min_value=0, exclude_min=True, allow_infinity=False))
@example(1.0)
@example(math.nextafter(1, 0))
@example(math.sqrt(0.5))
@example(5e-324)
def test_our_logarithm_is_the_logarithm(value):
    assert _log(np.array([value]))[0] == pytest.approx(math.log(value), rel=1e-15, abs=0)


def test_draws_neither_read_nor_change_global_generators():
    def draws():
        return (
            WeightedOrder(AliasTable([1, 2, 3]), 50, 1, 0).take(0, 50).tolist(),
            WeightedDistinctOrder(np.arange(1.0, 60.0), 50, 1, 0).take(0, 50).tolist(),
        )

    np.random.seed(1)
    before, first = np.random.get_state()[1].tolist(), draws()
    assert np.random.get_state()[1].tolist() == before
    np.random.seed(2)
    assert draws() == first


def test_positions_use_the_words_that_the_docstring_names():
    words = seeding.bulk_words(7, 3, seeding.Stream.DRAW.word(), 0, 40)
    table = AliasTable([1, 2, 3])
    assert np.array_equal(WeightedOrder(table, 20, 7, 3).take(0, 20), table.draw(words[0::2], words[1::2]))
