"""A permuted order is a bijection, looks random wherever one looks, never changes, and costs no memory.

Statistics are taken at fixed seeds, hence the same on every run; thresholds are four standard deviations.
"""

import math
import random
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feedline.order.permutation import FeistelNetwork, PermutedOrder

THRESHOLD = 65_536  # where the shuffle ends and the network begins
LENGTHS = [1_000, THRESHOLD - 1, THRESHOLD, 257 * 257, 100_000]


def deviations(counts, expected=None):
    """Chi-square of counts as a standard normal deviate, by Wilson and Hilferty's approximation."""
    expected = counts.mean() if expected is None else expected
    freedom = counts.size - 1
    ratio = ((counts - expected) ** 2 / expected).sum() / freedom
    return (ratio ** (1 / 3) - 1 + 2 / (9 * freedom)) / math.sqrt(2 / (9 * freedom))


def whole(length, seed=1, epoch=0):
    return PermutedOrder(length, seed, epoch).take(0, length)


def is_permutation(indices):
    return np.array_equal(np.sort(indices), np.arange(len(indices)))


# -------------------------------------------------------------------------------------------------- bijection


@given(length=st.integers(0, 3_000), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 2**64 - 1))
def test_every_index_comes_once_in_a_shuffle(length, seed, epoch):
    assert is_permutation(whole(length, seed, epoch))


@settings(max_examples=30, deadline=None)
@given(
    length=st.one_of(st.integers(THRESHOLD - 300, THRESHOLD + 300), st.integers(THRESHOLD, 300_000)),
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 1_000),
)
@example(length=THRESHOLD - 1, seed=0, epoch=0)
@example(length=THRESHOLD, seed=0, epoch=0)
@example(length=257 * 257, seed=0, epoch=0)
@example(length=257 * 257 + 1, seed=0, epoch=0)
def test_every_index_comes_once_on_both_sides_of_the_threshold(length, seed, epoch):
    assert is_permutation(whole(length, seed, epoch))


@given(length=st.integers(1, 5_000), keys=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=9))
def test_a_network_of_any_keys_is_a_permutation_of_any_length(length, keys):
    images = np.arange(length, dtype=np.uint64)
    FeistelNetwork(length, tuple(keys)).encipher(images)
    assert is_permutation(images)


@pytest.mark.parametrize("length", [10**9, 2**30 + 1, 2**40 - 1, 2**62 - 1, 2**62])
def test_indices_of_long_orders_are_distinct_and_in_range(length):
    order = PermutedOrder(length, seed=3, epoch=1)
    with np.errstate(all="raise"):
        taken = np.concatenate([order.take(0, 50_000), order.take(length - 50_000, length)])
    assert taken.min() >= 0
    assert taken.max() < length
    assert len(np.unique(taken)) == 100_000
    assert abs(deviations(np.bincount((taken / (length / 64)).astype(np.int64), minlength=64))) < 4


# ----------------------------------------------------------------------------------------------------- pinned


@pytest.mark.parametrize(
    ("length", "seed", "epoch", "first"),
    [
        (8, 1, 0, [5, 2, 3, 1, 4, 6, 7, 0]),
        (1_000, 1, 0, [130, 229, 996, 923, 954, 5, 687, 155]),
        (1_000, 1, 1, [529, 633, 781, 59, 338, 830, 626, 793]),
        (1_000, 2, 0, [388, 346, 795, 398, 134, 997, 941, 618]),
        (65_535, 1, 0, [26111, 37721, 54586, 56222, 6338, 28412, 21772, 44562]),
        (65_536, 1, 0, [4494, 63912, 41397, 21869, 9168, 7178, 36494, 33915]),
        (257 * 257, 1, 0, [40197, 40673, 57738, 15825, 5943, 26074, 39044, 7545]),
        (10**6, 3, 4, [187634, 915694, 762630, 425465, 753228, 933387, 330927, 237541]),
        (
            10**9,
            1,
            0,
            [133886124, 513840624, 52278624, 869377332, 460760671, 218786077, 576433088, 23454422],
        ),
        (
            2**30 + 1,
            1,
            0,
            [213051478, 999836022, 130043833, 906700847, 281765537, 973937566, 180637778, 674192543],
        ),
        (
            2**62,
            2**64 - 1,
            5,
            [3160662505106672509, 2998383996368459714, 24919673868413871, 3926635403638398000],
        ),
    ],
)
def test_orders_never_change_between_releases(length, seed, epoch, first):
    assert PermutedOrder(length, seed, epoch).take(0, len(first)).tolist() == first


def test_the_order_does_not_depend_on_global_generators():
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()
    taken = [PermutedOrder(n, 1, 0).take(0, 100).tolist() for n in LENGTHS]
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    random.seed(2)
    np.random.seed(2)
    assert [PermutedOrder(n, 1, 0).take(0, 100).tolist() for n in LENGTHS] == taken


@pytest.mark.parametrize("length", LENGTHS)
def test_seeds_and_epochs_give_unrelated_orders(length):
    """Two random permutations agree in one position on average; a count above 8 has a probability of 1e-6."""
    keys = [(0, 0), (0, 1), (1, 0), (1, 1), (2**63, 0), (0, 2**63)]
    orders = [whole(length, *key) for key in keys]
    for number, order in enumerate(orders):
        for other in orders[:number]:
            assert np.count_nonzero(order == other) <= 8


# ------------------------------------------------------------------------------------------------------- take


@settings(deadline=None)
@given(length=st.sampled_from([THRESHOLD - 1, THRESHOLD, 10**5 + 1, 10**9, 2**30 + 1]), data=st.data())
def test_any_split_of_take_gives_the_same_indices(length, data):
    start = data.draw(st.integers(0, length))
    stop = min(length, start + data.draw(st.integers(0, 20_000)))
    cuts = sorted(data.draw(st.lists(st.integers(start, stop), max_size=20)))
    order = PermutedOrder(length, seed=1, epoch=0)
    parts = [order.take(a, b) for a, b in zip([start, *cuts], [*cuts, stop], strict=True)]
    expected = PermutedOrder(length, seed=1, epoch=0).take(start, stop)
    assert np.array_equal(np.concatenate(parts), expected)
    assert expected.dtype == np.int64


@pytest.mark.parametrize("length", LENGTHS)
def test_what_is_taken_is_read_only_or_apart_from_the_order(length):
    order = PermutedOrder(length, seed=1, epoch=0)
    first = order.take(0, 64)
    expected = first.tolist()
    if first.flags.writeable:
        first[:] = -1
    else:
        assert length < THRESHOLD
    assert order.take(0, 64).tolist() == expected


def test_threads_may_share_an_order():
    order = PermutedOrder(10**6, seed=1, epoch=0)
    expected = order.take(0, 200_000)
    starts = np.random.default_rng(0).integers(0, 199_900, size=2_000).tolist()
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(lambda start: order.take(start, start + 100), starts)
        for start, part in zip(starts, parts, strict=True):
            assert np.array_equal(part, expected[start : start + 100])


@pytest.mark.parametrize("length", [10, 10**6])
def test_positions_outside_the_epoch_are_an_index_error_with_the_numbers(length):
    order = PermutedOrder(length, seed=1, epoch=0)
    for start, stop in [(-1, 1), (2, 1), (0, length + 1)]:
        with pytest.raises(IndexError, match=rf"<= {length} \(the epoch's length\), got start={start}, stop={stop}"):
            order.take(start, stop)


def test_a_length_that_cannot_be_permuted_is_a_value_error():
    with pytest.raises(ValueError, match="length must be from 0 to"):
        PermutedOrder(-1, seed=1, epoch=0)
    with pytest.raises(ValueError, match=r"length must be at most 2\*\*62 to be permuted, got 4611686018427387905"):
        PermutedOrder(2**62 + 1, seed=1, epoch=0)


# ----------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("length", [THRESHOLD - 1, 10**9])
def test_successive_batches_hold_and_use_less_than_a_mebibyte(length):
    PermutedOrder(length, seed=1, epoch=0).take(0, 64)  # imports and caches of NumPy's own
    tracemalloc.start()
    try:
        order = PermutedOrder(length, seed=1, epoch=0)
        for start in range(0, 60_000, 256):
            order.take(start, start + 256)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < (528 if length < THRESHOLD else 256) * 1024
    assert peak < 1024 * 1024 + 256 * 1024 * (length < THRESHOLD)  # a shuffle is words and numbers at first


def test_takes_across_a_blocks_border_compute_nothing_twice():
    order = PermutedOrder(10**9, seed=1, epoch=0)
    order.take(4090, 4100)
    blocks = order._blocks
    for start in (0, 4096, 4090, 8000, 100):
        order.take(start, start + 64)
    assert order._blocks is blocks


def test_a_long_take_needs_little_more_than_its_result():
    tracemalloc.start()
    try:
        PermutedOrder(10**9, seed=1, epoch=0).take(0, 10**6)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 10**6 + 2 * 1024 * 1024


# ------------------------------------------------------------------------------------------------- uniformity


@pytest.fixture(scope="module", params=[64, THRESHOLD, 70_001])
def first_indices(request):
    """The length, and the first indices of 3,000 epochs, one row an epoch."""
    length = request.param
    count = min(length, 600)
    return length, np.array([PermutedOrder(length, seed=9, epoch=e).take(0, count) for e in range(3_000)])


@pytest.mark.parametrize("position", [0, 1, 31, 63, -1])
def test_the_index_at_a_position_is_uniform_over_epochs(first_indices, position):
    length, rows = first_indices
    images = rows[:, position]
    assert abs(deviations(np.bincount(images * 64 // length, minlength=64))) < 4
    for modulus in (2, 16):
        expected = np.bincount(np.arange(length) % modulus) * len(images) / length
        assert abs(deviations(np.bincount(images % modulus, minlength=modulus), expected)) < 4


@pytest.mark.parametrize(("one", "other"), [(0, 1), (0, 2), (1, 63), (0, -1)])
def test_the_indices_at_two_positions_are_independent_over_epochs(first_indices, one, other):
    length, rows = first_indices
    cells = 8 * (rows[:, one] * 8 // length) + rows[:, other] * 8 // length
    size = np.bincount(np.arange(length) * 8 // length)
    pairs = np.outer(size, size) - np.diag(size)  # two positions never hold the same index
    expected = pairs.reshape(-1) * (len(rows) / (length * (length - 1)))
    assert abs(deviations(np.bincount(cells, minlength=64), expected)) < 4


@pytest.mark.parametrize("positions", [(0, 1, 256, 257), (0, 2, 512, 514)])
def test_rectangles_of_the_grid_have_no_relation(first_indices, positions):
    """The alternating sum over a rectangle, where a network of too few rounds gives itself away."""
    length, rows = first_indices
    if length == 64:
        positions = (0, 1, 8, 9)
    a, b, c, d = (rows[:, position] for position in positions)
    sums = (a - b - c + d) % length
    assert abs(deviations(np.bincount(sums * 32 // length, minlength=32))) < 4


@pytest.mark.parametrize("length", LENGTHS)
def test_neighbours_are_unrelated(length):
    order = whole(length, seed=4)
    for lag in (1, 2, 255, 256, 257):
        correlation = np.corrcoef(order[:-lag], order[lag:])[0, 1]
        assert abs(correlation) < 4 / math.sqrt(length - lag)
    steps = (order[1:] - order[:-1]) % length
    assert abs(deviations(np.bincount(steps * 64 // length, minlength=64))) < 4


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("modulus", [2, 3, 8, 13])
def test_residues_of_positions_say_nothing_about_residues_of_indices(length, modulus):
    cells = np.arange(length) % modulus * modulus + whole(length, seed=5) % modulus
    size = np.bincount(np.arange(length) % modulus)
    counts = np.bincount(cells, minlength=modulus**2)
    expected = np.outer(size, size).reshape(-1) / length
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = (modulus - 1) ** 2  # both margins are given
    assert statistic < freedom + 4 * math.sqrt(2 * freedom) + 8


@pytest.mark.parametrize(("length", "epochs"), [(500, 2_000), (THRESHOLD, 300), (257 * 257, 300)])
def test_fixed_points_are_as_many_as_chance_has_them(length, epochs):
    """Their number follows Poisson's law of mean 1."""
    positions = np.arange(length)
    found = np.array([np.count_nonzero(whole(length, 6, epoch) == positions) for epoch in range(epochs)])
    law = np.exp(-1) / np.array([1, 1, 2, 6])
    expected = epochs * np.append(law, 1 - law.sum())
    assert abs(deviations(np.bincount(found.clip(max=4), minlength=5), expected)) < 4


def is_odd(permutation):
    """Whether a permutation is odd: its length less its number of cycles is."""
    following = permutation.tolist()
    cycles = 0
    for start in range(len(following)):
        place = start
        cycles += following[start] >= 0
        while following[place] >= 0:
            following[place], place = -1, following[place]
    return (len(following) - cycles) % 2 == 1


def test_parity_is_counted_right():
    assert [is_odd(np.array(p)) for p in ([0, 1, 2], [1, 0, 2], [1, 2, 0], [1, 0, 3, 2])] == [
        False,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("length", [1_000, THRESHOLD, 257 * 257])
def test_half_of_the_epochs_are_odd_permutations(length):
    """Also where the length is an odd square, on whose square grid every round would be even."""
    odd = sum(is_odd(whole(length, 7, epoch)) for epoch in range(24))
    assert 3 <= odd <= 21  # a binomial count falls outside once in 28,000
