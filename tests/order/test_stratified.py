"""Every stretch of a stratified epoch holds each class, in proportion, and every sample comes."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feedline.order.stratified import Strata, StratifiedOrder


@st.composite
def problems(draw):
    """Class sizes, a least number a class and a group size that allows it."""
    counts = draw(st.lists(st.one_of(st.integers(1, 5), st.integers(1, 200)), min_size=1, max_size=8))
    least = draw(st.integers(0, 3))
    group = draw(st.integers(max(1, least * len(counts)), max(1, least * len(counts)) + 40))
    return counts, group, least


def labels_of(counts, seed=0):
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))


def epoch_of(labels, group, least, seed=1, epoch=0, multiple=1):
    order = StratifiedOrder(Strata.of(labels), group, least, seed, epoch, multiple)
    return order, order.take(0, order.length)


def rates_of(counts, group, least):
    """Each class's positions a group: proportional, but at least ``least``; by bisection."""
    counts = np.asarray(counts, dtype=np.float64)
    low, high = 0.0, float(group)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(least, middle * counts).sum() < group else (low, middle)
    return np.maximum(least, low * counts)


# ------------------------------------------------------------------------------------------------------- laws


@settings(deadline=None)
@given(problems())
@example(([1000, 10], 32, 1))
@example(([1000, 10], 2, 1))
@example(([1], 1, 1))
@example(([5, 5, 5], 3, 1))
@example(([1, 1, 1, 500], 4, 1))
def test_any_window_of_a_group_holds_the_least_number_of_each_class(problem):
    counts, group, least = problem
    labels = labels_of(counts)
    _, indices = epoch_of(labels, group, least)
    seen = np.cumsum(labels[indices][:, None] == np.arange(len(counts)), axis=0)
    seen = np.vstack([np.zeros((1, len(counts)), dtype=np.int64), seen])
    assert (seen[group:] - seen[:-group]).min() >= least


@settings(deadline=None)
@given(problems())
@example(([1000, 10], 32, 1))
@example(([7, 11, 13], 10, 0))
def test_each_group_holds_floor_or_ceil_of_each_classes_rate_and_the_epoch_too(problem):
    counts, group, least = problem
    labels = labels_of(counts)
    order, indices = epoch_of(labels, group, least)
    held = (labels[indices].reshape(-1, group)[:, :, None] == np.arange(len(counts))).sum(axis=1)
    rates = rates_of(counts, group, least)
    assert (np.abs(held - rates) < 1 + 1e-6).all()
    assert (np.abs(held.sum(axis=0) - rates * order.length / group) < 1 + 1e-4).all()


@settings(deadline=None)
@given(problems(), st.integers(1, 120))
@example(([100] * 10, 32, 1), 50)
@example(([500, 300, 200], 32, 1), 50)
@example(([73, 168], 32, 1), 57)
@example(([600, *[20] * 20], 42, 1), 60)
@example(([5_000] * 7, 32, 1), 100)
@example(([1, 1], 3, 0), 24)
def test_a_window_of_any_width_holds_about_its_share_of_each_class(problem, width):
    """The places of a class are spread evenly, within groups and over them."""
    counts, group, least = problem
    labels = labels_of(counts)
    _, indices = epoch_of(labels, group, least, multiple=width)
    seen = np.cumsum(labels[indices][:, None] == np.arange(len(counts)), axis=0)
    seen = np.vstack([np.zeros((1, len(counts)), dtype=np.int64), seen])
    assert np.abs(seen[width:] - seen[:-width] - rates_of(counts, group, least) * width / group).max() < 4


@settings(deadline=None)
@given(problems(), st.integers(1, 3_000))
@example(([103, 87], 32, 1), 47)
@example(([2, 1], 2, 1), 1_000)
def test_a_longer_epoch_begins_with_the_shorter_one(problem, multiple):
    counts, group, least = problem
    labels = labels_of(counts)
    order, indices = epoch_of(labels, group, least)
    longer, more = epoch_of(labels, group, least, multiple=multiple)
    assert more[: order.length].tolist() == indices.tolist()
    assert longer.length % multiple == 0
    assert order.length <= longer.length < order.length + multiple
    assert longer.repeats == longer.length - len(labels)


@settings(deadline=None)
@given(problems())
def test_every_sample_comes_and_the_repeats_are_counted(problem):
    counts, group, least = problem
    order, indices = epoch_of(labels_of(counts), group, least)
    assert order.length % group == 0
    assert set(indices.tolist()) == set(range(sum(counts)))
    assert order.repeats == order.length - sum(counts) == len(indices) - len(set(indices.tolist()))


@settings(deadline=None)
@given(problems())
def test_the_epoch_is_no_longer_than_it_must_be(problem):
    """Some class would miss a sample in one group less, even with the ceiling of its share."""
    counts, group, least = problem
    order, _ = epoch_of(labels_of(counts), group, least)
    fewer = order.length // group - 1
    assert (fewer * rates_of(counts, group, least) < np.array(counts) + 1e-6).any()


@settings(deadline=None)
@given(problems(), st.integers(1, 1_000))
def test_a_class_is_used_up_before_it_begins_again(problem, multiple):
    counts, group, least = problem
    labels = labels_of(counts)
    _, indices = epoch_of(labels, group, least, multiple=multiple)
    for number, count in enumerate(counts):
        dealt = indices[labels[indices] == number]
        for begin in range(0, len(dealt), count):
            cycle = dealt[begin : begin + count].tolist()
            assert len(set(cycle)) == len(cycle)


def test_a_class_that_runs_out_begins_again_in_another_order():
    labels = np.repeat([0, 1], [3_000, 30])
    _, indices = epoch_of(labels, 32, 1)
    rare = indices[labels[indices] == 1]
    assert rare[:30].tolist() != rare[30:60].tolist()


def test_a_thousand_to_ten_in_batches_of_32_each_hold_both():
    labels = np.repeat([0, 1], [1_000, 10])
    order, indices = epoch_of(labels, 32, 1)
    assert (order.length, order.repeats) == (1056, 46)
    assert {tuple(np.bincount(batch)) for batch in labels[indices].reshape(-1, 32)} == {(31, 1)}


def test_balanced_classes_come_exactly_in_proportion():
    labels = np.arange(1_000) % 10
    order, indices = epoch_of(labels, 20, 1)
    assert order.repeats == 0
    assert (np.sort(labels[indices].reshape(-1, 20)) == np.repeat(np.arange(10), 2)).all()


def test_a_stretch_of_groups_is_in_proportion_too():
    """Spare places are spread over the epoch, not left to chance: no prefix misses by three samples."""
    counts = [500, 300, 150, 49, 1_001]
    labels = labels_of(counts)
    order, indices = epoch_of(labels, 13, 1)
    held = (labels[indices].reshape(-1, 13)[:, :, None] == np.arange(5)).sum(axis=1).cumsum(axis=0)
    ideal = rates_of(counts, 13, 1) * np.arange(1, order.length // 13 + 1)[:, None]
    assert np.abs(held - ideal).max() < 3


# ------------------------------------------------------------------------------------------------- randomness


def test_the_order_within_groups_and_classes_is_uniform():
    """Which sample comes at a place, over epochs: chi-square at fixed seeds."""
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    strata = Strata.of(labels)
    epochs = np.array([StratifiedOrder(strata, 8, 1, 3, epoch).take(0, 8) for epoch in range(4_000)])
    for place in (0, 3, 7):
        counts = np.bincount(epochs[:, place], minlength=8)
        assert ((counts - 500) ** 2 / 500).sum() < 24.3  # 7 degrees of freedom: 0.1%


def test_the_orders_of_a_class_each_time_round_are_uniform_and_independent():
    """All pairs of consecutive rounds of three samples, over epochs: chi-square at fixed seeds."""
    strata = Strata.of([0, 0, 0, 1])
    permutations = list(itertools.permutations(range(3)))
    for skipped in (0, 3):
        pairs = np.zeros((6, 6))
        for epoch in range(3_600):
            taken = StratifiedOrder(strata, 4, 1, 3, epoch, 12).take(0, 12)
            drawn = taken[taken < 3][skipped : skipped + 6].tolist()
            pairs[permutations.index(tuple(drawn[:3])), permutations.index(tuple(drawn[3:]))] += 1
        assert ((pairs - 100) ** 2 / 100).sum() < 66.6  # 35 degrees of freedom: 0.1%


def test_seeds_and_epochs_give_different_orders():
    strata = Strata.of(labels_of([50, 30, 20]))
    drawn = [StratifiedOrder(strata, 10, 1, *key).take(0, 100).tolist() for key in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    assert all(one != other for one, other in itertools.combinations(drawn, 2))


def test_stratified_orders_are_pinned():
    order, indices = epoch_of(np.repeat([0, 1, 2], [9, 4, 1]), 6, 1)
    assert indices.tolist() == [7, 9, 6, 13, 12, 5, 0, 11, 8, 13, 10, 1, 3, 9, 2, 13, 4, 2]
    assert order.repeats == 4


def test_global_generators_are_neither_read_nor_changed():
    labels = np.arange(100) % 3
    np.random.seed(1)
    before = np.random.get_state()[1].tolist()
    first = epoch_of(labels, 7, 1)[1].tolist()
    assert np.random.get_state()[1].tolist() == before
    np.random.seed(2)
    assert epoch_of(labels, 7, 1)[1].tolist() == first


# ------------------------------------------------------------------------------------------------------- take


@given(start=st.integers(0, 1056), stop=st.integers(0, 1056), cut=st.integers(0, 1056))
def test_any_split_of_take_gives_the_same_indices(start, stop, cut):
    start, cut, stop = sorted([start, stop, cut])
    labels = np.repeat([0, 1], [1_000, 10])
    order, whole = epoch_of(labels, 32, 1)
    parts = [order.take(start, cut), order.take(cut, stop)]
    assert np.concatenate(parts).tolist() == whole[start:stop].tolist()
    assert whole.dtype == np.int64


def test_what_is_taken_is_read_only():
    _, indices = epoch_of([0, 1, 1], 2, 1)
    with pytest.raises(ValueError, match="read-only"):
        indices[0] = 5


def test_positions_outside_the_epoch_are_an_index_error_with_the_numbers():
    order, _ = epoch_of([0, 1, 1], 2, 1)
    with pytest.raises(IndexError, match=r"<= 4 \(the epoch's length\), got start=0, stop=5"):
        order.take(0, 5)


# ----------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    "labels",
    [
        ["b", "a", "b", "c"],
        [True, False, True, True],
        (2**62, -1, 2**62, 7),
        np.array([1, 0, 1, 2], dtype=np.uint8),
        np.array([1.5, 0.5, 1.5, 2.5]),
    ],
)
def test_labels_of_any_kind_make_strata(labels):
    strata = Strata.of(labels)
    _, inverse = np.unique(np.asarray(labels), return_inverse=True)
    assert strata.members.tolist() == sorted(range(4), key=lambda i: (inverse[i], i))
    assert strata.counts.tolist() == np.bincount(inverse).tolist()
    _, indices = epoch_of(labels, 3, 1)
    assert set(indices.tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "labels must hold at least one label, got none"),
        ([[1, 2], [3, 4]], "labels must be one-dimensional, one a sample, got shape (2, 2)"),
        (3, "labels must be one-dimensional, one a sample, got shape ()"),
    ],
)
def test_labels_that_are_no_labels_are_a_value_error(labels, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Strata.of(labels)


@pytest.mark.parametrize(
    ("group", "least", "message"),
    [
        (5, 2, "group_size must be at least min_per_class * number of classes (2 * 3 = 6), got 5"),
        (0, 0, "group_size must be a positive integer, got 0"),
        (3.0, 1, "group_size must be a positive integer, got 3.0"),
        (True, 0, "group_size must be a positive integer, got True"),
        (8, -1, "min_per_class must be a non-negative integer, got -1"),
        (8, 1.5, "min_per_class must be a non-negative integer, got 1.5"),
        (8, True, "min_per_class must be a non-negative integer, got True"),
    ],
)
def test_wrong_numbers_are_a_value_error_that_names_them(group, least, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        StratifiedOrder(Strata.of([0, 1, 2]), group, least, 1, 0)


@pytest.mark.parametrize("multiple", [0, -1, 2.0, True])
def test_a_wrong_multiple_is_a_value_error_that_names_it(multiple):
    with pytest.raises(ValueError, match=re.escape(f"multiple must be a positive integer, got {multiple!r}")):
        StratifiedOrder(Strata.of([0, 1, 2]), 8, 1, 1, 0, multiple)


def test_numpy_integers_are_integers():
    order = StratifiedOrder(Strata.of(np.arange(200)), np.int64(400), np.int8(1), 1, 0, np.int8(100))
    assert type(order.length) is int
    assert sorted(order.take(0, 400).tolist()) == sorted([*range(200)] * 2)
