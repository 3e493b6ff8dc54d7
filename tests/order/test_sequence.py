"""The simple orders yield what their definitions say, for any length, stride, padding and split."""

import math
import random
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedline import seeding
from feedline.order.cycled import CycledOrder
from feedline.order.permutation import PermutedOrder
from feedline.order.sequence import (
    ListedOrder,
    MappedOrder,
    ReplacementOrder,
    SequentialOrder,
    StridedOrder,
    check_count,
    check_span,
    take_spans,
)


def assert_uniform(counts):
    """Chi-square against equal counts, by Wilson and Hilferty's approximation, at 4 standard deviations."""
    freedom = counts.size - 1
    statistic = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    deviations = ((statistic / freedom) ** (1 / 3) - 1 + 2 / (9 * freedom)) / math.sqrt(2 / (9 * freedom))
    assert abs(deviations) < 4, f"chi-square {statistic:.1f} at {freedom} degrees of freedom"


def some_orders():
    values = np.arange(100, 150)
    return [
        SequentialOrder(50),
        SequentialOrder(None),
        ListedOrder(values),
        ReplacementOrder(10, 50, seed=1, epoch=0),
        StridedOrder(SequentialOrder(70), total=100, offset=0, stride=2),
        MappedOrder(values, PermutedOrder(50, seed=1, epoch=0)),
    ]


# -------------------------------------------------------------------------------------- what every order does


@pytest.mark.parametrize("order", some_orders(), ids=lambda order: type(order).__name__)
def test_any_split_of_take_gives_the_same_indices(order):
    whole = order.take(0, 50)
    assert whole.dtype == np.int64
    assert whole.shape == (50,)
    for cut in range(51):
        assert np.concatenate([order.take(0, cut), order.take(cut, 50)]).tolist() == whole.tolist()


@pytest.mark.parametrize(
    "order",
    [
        *some_orders(),
        PermutedOrder(70_000, seed=1, epoch=0),
        MappedOrder(np.arange(70_000) + 5, PermutedOrder(70_000, seed=1, epoch=0)),
        CycledOrder(lambda number: PermutedOrder(20, seed=1, epoch=number), 20, 50),
        CycledOrder(lambda number: PermutedOrder(70_000, seed=1, epoch=number), 70_000),
    ],
    ids=lambda order: f"{type(order).__name__}-{order.length}",
)
@pytest.mark.parametrize(
    ("start", "size", "stride", "count"), [(0, 5, 5, 10), (3, 4, 8, 6), (2, 1, 9, 5), (46, 4, 8, 1)]
)
def test_spans_are_what_is_taken_at_each_place(order, start, size, stride, count):
    places = [start + number * stride for number in range(count)]
    expected = np.concatenate([order.take(place, place + size) for place in places])
    assert take_spans(order, start, size, stride, count).tolist() == expected.tolist()


@pytest.mark.parametrize("length", [50, 70_000])
def test_spans_outside_the_epoch_are_an_index_error(length):
    with pytest.raises(IndexError, match=f"stop <= {length}"):
        take_spans(PermutedOrder(length, seed=1, epoch=0), length - 10, 2, 9, 2)


@pytest.mark.parametrize("order", some_orders(), ids=lambda order: type(order).__name__)
def test_what_is_taken_may_be_overwritten_without_changing_the_order(order):
    first = order.take(0, 50)
    expected = first.tolist()
    first[:] = -1
    assert order.take(0, 50).tolist() == expected


@pytest.mark.parametrize("order", some_orders(), ids=lambda order: type(order).__name__)
@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (4, 3), (0, 51), (51, 51)])
def test_positions_outside_the_epoch_are_an_index_error_with_the_numbers(order, start, stop):
    if order.length is None and 0 <= start <= stop:
        assert order.take(start, stop).tolist() == list(range(start, stop))
        return
    with pytest.raises(
        IndexError, match=f"positions must satisfy 0 <= start <= stop.*, got start={start}, stop={stop}"
    ):
        order.take(start, stop)


def test_the_bound_named_is_the_epochs_length():
    message = "0 <= start <= stop <= 10 (the epoch's length), got start=0, stop=11"
    with pytest.raises(IndexError, match=re.escape(message)):
        check_span(0, 11, 10)
    with pytest.raises(IndexError, match=re.escape("0 <= start <= stop, got start=3, stop=1")):
        check_span(3, 1, None)


@pytest.mark.parametrize("value", [-1, 1 << 63])
def test_counts_must_fit_int64(value):
    message = re.escape(f"total must be from 0 to 2**63 - 1, got {value}")
    with pytest.raises(ValueError, match=message):
        check_count(value, "total")
    with pytest.raises(ValueError, match=message):
        StridedOrder(SequentialOrder(3), total=value, offset=0, stride=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SequentialOrder(-1), "length must be from 0"),
        (lambda: ReplacementOrder(0, 5, 1, 0), "population must be from 1"),
        (lambda: ReplacementOrder(5, -5, 1, 0), "length must be from 0"),
        (lambda: StridedOrder(SequentialOrder(3), 3, -1, 1), "offset must be from 0"),
        (lambda: StridedOrder(SequentialOrder(3), 3, 0, 0), "stride must be from 1"),
        (
            lambda: StridedOrder(SequentialOrder(0), 3, 0, 1),
            "total must be 0 for an inner order without positions, got 3",
        ),
    ],
)
def test_a_wrong_number_is_a_value_error_that_names_it(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ------------------------------------------------------------------------------------------------ replacement


def test_draws_with_replacement_are_pinned():
    assert ReplacementOrder(10, 8, 1, 0).take(0, 8).tolist() == [3, 8, 6, 2, 5, 3, 0, 4]
    huge = [357844394528, 825180348939, 671485034220, 212263853667]
    assert ReplacementOrder(10**12 + 39, 8, 1, 0).take(0, 4).tolist() == huge


@given(
    population=st.one_of(
        st.integers(1, 100),
        st.integers(2**32 - 2, 2**32 + 2),
        st.integers(1, 2**63 - 1),
    ),
    seed=st.integers(0, 2**64 - 1),
    start=st.integers(0, 10**6),
)
def test_each_draw_is_the_high_word_of_an_exact_product(population, seed, start):
    words = seeding.bulk_words(seed, 7, seeding.Stream.DRAW.word(), start, 9).tolist()
    drawn = ReplacementOrder(population, start + 9, seed, 7).take(start, start + 9)
    assert drawn.tolist() == [word * population >> 64 for word in words]


@given(word=st.lists(st.integers(0, 2**64 - 1), min_size=1), bound=st.integers(1, 2**64 - 1))
def test_below_is_exact_for_arrays_and_any_bound(word, bound):
    assert seeding.below(np.array(word, dtype=np.uint64), bound).tolist() == [w * bound >> 64 for w in word]


def test_draws_with_replacement_are_uniform_and_independent():
    drawn = ReplacementOrder(100, 100_000, seed=5, epoch=2).take(0, 100_000)
    assert_uniform(np.bincount(drawn, minlength=100))
    pairs = drawn[0::2] // 10 * 10 + drawn[1::2] // 10
    assert_uniform(np.bincount(pairs, minlength=100))


def test_orders_neither_read_nor_change_global_generators():
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()
    taken = ReplacementOrder(100, 10, seed=3, epoch=0).take(0, 10)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    random.seed(2)
    np.random.seed(2)
    assert ReplacementOrder(100, 10, seed=3, epoch=0).take(0, 10).tolist() == taken.tolist()


# ---------------------------------------------------------------------------------------------------- strided


@given(
    length=st.integers(1, 40),
    total=st.integers(0, 200),
    stride=st.integers(1, 20),
    offset=st.integers(0, 30),
    data=st.data(),
)
def test_a_stride_takes_its_share_of_the_padded_epoch(length, total, stride, offset, data):
    inner = PermutedOrder(length, seed=1, epoch=0)
    order = StridedOrder(inner, total, offset, stride)
    epoch = inner.take(0, length).tolist()
    padded = (epoch * (total // length + 1))[:total]
    expected = padded[offset::stride]
    assert order.length == len(expected)
    start = data.draw(st.integers(0, order.length))
    stop = data.draw(st.integers(start, order.length))
    assert order.take(start, stop).tolist() == expected[start:stop]


def test_ranks_together_take_every_position_once():
    inner = PermutedOrder(100_000, seed=1, epoch=0)
    ranks = [StridedOrder(inner, 100_000, rank, 7) for rank in range(7)]
    taken = np.concatenate([rank.take(0, rank.length) for rank in ranks])
    assert np.sort(taken).tolist() == list(range(100_000))


@pytest.mark.parametrize("stride", [3, 65_535, 65_536, 65_537, 1_000_000])
def test_strides_longer_than_a_window_agree_with_the_definition(stride):
    inner = SequentialOrder(2_500_000)
    order = StridedOrder(inner, total=6_000_000, offset=5, stride=stride)
    expected = np.arange(5, 6_000_000, stride) % 2_500_000
    assert order.take(0, order.length).tolist() == expected.tolist()


def test_a_stride_over_an_endless_order_does_not_wrap():
    order = StridedOrder(SequentialOrder(None), total=10**12, offset=3, stride=10)
    assert order.take(10**10, 10**10 + 2).tolist() == [10**11 + 3, 10**11 + 13]


# --------------------------------------------------------------------------------------------- listed, mapped


@given(st.lists(st.integers(0, 2**62)))
def test_listed_indices_come_as_listed(values):
    order = ListedOrder(np.array(values, dtype=np.int64))
    assert order.length == len(values)
    assert order.take(0, len(values)).tolist() == values


def test_mapped_indices_are_the_values_at_the_inner_orders_positions():
    values = np.array([40, 50, 60, 70])
    order = MappedOrder(values, ListedOrder(np.array([3, 0, 0])))
    assert order.length == 3
    assert order.take(0, 3).tolist() == [70, 40, 40]
