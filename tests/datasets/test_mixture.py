"""Laws of the choice among several sources: each has its share at every prefix, exactly."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from feedline.datasets import mixture as module
from feedline.datasets.mixture import Mixture

NUMBERS = st.one_of(
    st.integers(0, 9),
    st.floats(0, 1e3),
    st.fractions(0, 2, max_denominator=50),
    st.sampled_from([0, 1e-300, 0.1, 0.7, 1e300, 1]),
)
WEIGHTS = st.lists(NUMBERS, min_size=1, max_size=7).filter(any)
SHORT_PERIODS = st.lists(st.integers(0, 6), min_size=1, max_size=5).filter(any)


def tijdeman(weights, count):
    """The rule as it is printed, one position after the other, in fractions; it holds itself to its bound."""
    total = sum(map(Fraction, weights))
    shares = [Fraction(weight) / total for weight in weights]
    active = [source for source, share in enumerate(shares) if share]
    slack = Fraction(1, 2 * len(active) - 2) if len(active) > 1 else Fraction(1)
    seen, chosen = [0] * len(weights), []
    for now in range(1, count + 1):
        lag = {source: shares[source] * now - seen[source] for source in active}
        able = [source for source in active if lag[source] >= slack]
        source = min(able, key=lambda source: ((1 - slack - lag[source]) / shares[source], source))
        seen[source] += 1
        chosen.append(source)
        assert all(abs(share * now - times) <= 1 - slack for share, times in zip(shares, seen, strict=True))
    return chosen


@given(WEIGHTS)
def test_the_choices_are_those_of_the_printed_rule(weights):
    assert Mixture(weights).sources(0, 60).tolist() == tijdeman(weights, 60)


@given(WEIGHTS)
def test_at_every_prefix_no_source_is_off_its_share_by_as_much_as_one(weights):
    total = sum(map(Fraction, weights))
    active = sum(weight > 0 for weight in weights)
    bound = 1 - Fraction(1, 2 * active - 2) if active > 1 else 0
    seen = [0] * len(weights)
    for n, source in enumerate(Mixture(weights).sources(0, 300).tolist(), 1):
        seen[source] += 1
        assert all(abs(s - n * Fraction(w) / total) <= bound < 1 for s, w in zip(seen, weights, strict=True))


def test_the_bound_holds_for_many_sources_and_far_positions():
    draw = np.random.default_rng(1)
    for weights in (draw.random(300), draw.random(40) ** 8, np.append(np.full(200, 1e-3), 1.0)):
        exact = [Fraction(weight) for weight in weights.tolist()]
        mixture, total = Mixture(weights), sum(exact)
        counts = np.zeros(len(weights), dtype=np.int64)
        shares = np.array([float(weight / total) for weight in exact])
        for n, source in enumerate(mixture.sources(0, 5_000).tolist(), 1):
            counts[source] += 1
            off = np.abs(counts - n * shares)
            assert off.max() < 1 - 1 / (2 * len(weights)) / 2
        assert mixture.counts(5_000).tolist() == counts.tolist()


@given(WEIGHTS)
def test_a_source_of_weight_zero_is_never_chosen(weights):
    assert all(weights[source] for source in Mixture([0, *weights, 0.0]).sources(0, 100) - 1)


@given(WEIGHTS, st.integers(0, 3_000), st.integers(0, 200))
def test_seeking_gives_what_going_from_zero_gives(weights, start, count):
    mixture = Mixture(weights)
    there = mixture.sources(start, start + count).tolist()
    whole = Mixture(weights).sources(0, start + count).tolist()
    assert there == whole[start:]
    assert mixture.counts(start).tolist() == [whole[:start].count(source) for source in range(len(weights))]


@given(WEIGHTS, st.lists(st.integers(0, 2_500), max_size=20))
def test_looking_up_any_positions_counts_what_came_before(weights, places):
    whole = Mixture(weights).sources(0, 2_501).tolist()
    sources, counts = Mixture(weights).look_up(np.array(places, dtype=np.int64))
    assert sources.tolist() == [whole[place] for place in places]
    assert counts.tolist() == [whole[:place].count(whole[place]) for place in places]
    assert [Mixture(weights).at(place) for place in places[:3]] == list(zip(sources, counts, strict=True))[:3]


def test_many_positions_are_looked_up_in_parts():
    mixture = Mixture([0.5, 0.3, 0.2])
    places = np.random.default_rng(2).permutation(3_000)
    sources, counts = mixture.look_up(places)
    order = np.argsort(places)
    for source in range(3):
        assert counts[order][sources[order] == source].tolist() == list(range(int((sources == source).sum())))


@given(WEIGHTS, st.integers(0, 1_500))
def test_a_place_is_where_the_source_comes_so_often_and_lies_within_its_bounds(weights, position):
    mixture = Mixture(weights)
    (source,), (times,) = (found.tolist() for found in mixture.look_up(np.array([position])))
    assert Mixture(weights).place(source, times) == position
    first, last = mixture.bounds(source, times)
    assert first <= position <= last


@given(SHORT_PERIODS, st.integers(0, 10**6), st.integers(0, 40))
def test_whole_numbers_repeat_after_their_sum_and_seek_at_once(weights, lap, offset):
    mixture = Mixture(weights)
    period, start = mixture.period, lap * mixture.period + offset
    pattern = mixture.sources(0, period).tolist()
    assert [pattern.count(source) for source in range(len(weights))] == list(mixture.shares)
    assert mixture.sources(start, start + 50).tolist() == [
        pattern[place % period] for place in range(offset, offset + 50)
    ]
    assert mixture.counts(start).sum() == start
    source, times = mixture.at(start)
    assert (source, times) == (pattern[offset % period], mixture.counts(start)[source])
    assert [found.tolist() for found in mixture.look_up(np.array([start]))] == [[source], [times]]
    assert mixture.place(source, times) == start
    assert mixture._table.sources.size == 1024, "one block, wherever it was asked"


def test_a_billion_positions_on_whole_numbers_hold_their_shares():
    mixture = Mixture([7, 2, 1])
    assert mixture.counts(10**9 + 10).tolist() == [700_000_007, 200_000_002, 100_000_001]
    assert mixture.sources(10**18, 10**18 + 10).tolist() == mixture.sources(0, 10).tolist()


@pytest.mark.parametrize(
    "weights",
    [
        [Fraction(7, 10), Fraction(3, 10)],
        [Decimal("0.7"), Decimal("0.3")],
        np.array([7, 3]),
        torch.tensor([14, 6]),
        [np.float32(3.5), np.int8(0) + 1.5],
        (70, 30),
    ],
)
def test_weights_are_numbers_of_any_kind_and_unit(weights):
    assert Mixture(weights).shares == (7, 3)


def test_floats_are_the_fractions_that_they_are():
    shares = Mixture([0.7, 0.3]).shares
    assert Fraction(*shares) == Fraction(0.7) / Fraction(0.3) != Fraction(7, 3)


@pytest.mark.parametrize("count", [1, 2, 256, 257, 2_000])
def test_a_choice_takes_one_byte_or_two(count):
    mixture = Mixture([1] * count)
    assert mixture.sources(0, count).tolist() == list(range(count))
    table = mixture._table
    assert table.sources.dtype == (np.uint8 if count <= 256 else np.uint16)
    assert table.before[0].nbytes <= table.sources[0].size


def test_what_was_made_travels_and_equal_weights_are_equal():
    mixture = Mixture([0.6, 0.4])
    mixture.sources(0, 2_000)
    copy = pickle.loads(pickle.dumps(mixture))
    assert copy == mixture == Mixture([0.6, 0.4]) != Mixture([0.4, 0.6])
    assert copy._table.sources.size == mixture._table.sources.size > 0
    assert copy.sources(0, 5_000).tolist() == mixture.sources(0, 5_000).tolist()


def test_threads_that_meet_read_the_same():
    mixture = Mixture([0.5, 0.3, 0.2])
    ends = [1_000 * (1 + place % 7) for place in range(40)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda end: mixture.counts(end).tolist(), ends))
    assert found == [Mixture([0.5, 0.3, 0.2]).counts(end).tolist() for end in ends]


def test_sources_are_fresh():
    mixture = Mixture([1, 1])
    mixture.sources(0, 4)[:] = 9
    assert mixture.sources(0, 4).tolist() == [0, 1, 0, 1]
    mixture.counts(0)[:] = 9
    assert mixture.counts(0).tolist() == [0, 0]


@pytest.mark.parametrize("wrong", [-1, -0.5, float("nan"), float("inf"), Fraction(-1, 2), np.float32("nan")])
def test_a_weight_that_is_negative_or_not_finite_is_refused(wrong):
    with pytest.raises(ValueError, match=rf"^weights must be finite and not negative, got {wrong} at index 1$"):
        Mixture([1, wrong])


def test_weights_that_choose_nothing_are_refused():
    with pytest.raises(ValueError, match=r"^weights must not all be zero, got 2 zeros$"):
        Mixture([0, 0.0])
    with pytest.raises(ValueError, match=r"^weights must hold at least one weight, got none$"):
        Mixture([])


@pytest.mark.parametrize("wrong", ["1", None, 1j])
def test_a_weight_that_is_no_number_is_refused(wrong):
    with pytest.raises(TypeError, match=r"^weights must be numbers, got .* at index 0$"):
        Mixture([wrong, 1])


def test_positions_out_of_order_are_refused():
    with pytest.raises(ValueError, match="start must be a non-negative integer, got -1"):
        Mixture([1]).sources(-1, 2)
    with pytest.raises(ValueError, match="stop must be an integer of at least 3, got 2"):
        Mixture([1]).sources(3, 2)
    with pytest.raises(ValueError, match="n must be a non-negative integer, got -2"):
        Mixture([1]).counts(-2)


def test_more_choices_than_can_be_held_are_refused():
    limit = module._MOST_POSITIONS
    assert limit == 2**32
    with pytest.raises(
        ValueError,
        match=rf"at most 2\*\*32 = 4294967296 where its weights do not repeat before, got {limit + 1} with the weights "
        r"\[0\.7, 0\.3\]; give small whole numbers as weights$",
    ):
        Mixture([0.7, 0.3]).counts(limit + 1)
    with pytest.raises(ValueError, match=r"positions of a mixture must be at most 2\*\*32"):
        Mixture([1, 1e-300]).place(1, 0)
