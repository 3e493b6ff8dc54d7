"""Listed indices come back as they are, or are refused by name."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedline.order.indices import checked_indices, checksum, listed_indices


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_indices_come_back_as_they_are(indices):
    for take in (checked_indices, listed_indices):
        taken = take(np.array(indices, dtype=np.int64))
        assert taken.dtype == np.int64
        assert taken.tolist() == indices


def test_indices_are_a_fresh_array():
    given_array = np.array([4, 5])
    kept = [checked_indices(given_array), listed_indices(given_array)]
    given_array[:] = 0
    assert [indices.tolist() for indices in kept] == [[4, 5], [4, 5]]


def test_what_is_no_list_of_integers_is_refused_where_indices_are_asked_for():
    for wrong in ([0.5], [[0, 1]], ["a"], [True, False]):
        with pytest.raises(ValueError, match=r"indices must be a one-dimensional sequence of integers, got dtype"):
            checked_indices(wrong)
    for beyond in (checked_indices, listed_indices):
        with pytest.raises(ValueError, match=rf"indices must be below 2\*\*63, got {2**63}"):
            beyond(np.array([2**63], dtype=np.uint64))


def test_what_is_no_list_of_integers_is_not_known_as_one_but_a_mask_is_an_error():
    assert [listed_indices(other) for other in ([0.5], [[0], [1, 2]], iter([1]), {1}, "1")] == [None] * 5
    with pytest.raises(TypeError, match=r"sampler must yield indices, got a mask of booleans; use numpy\.flatnonzero"):
        listed_indices([True, False])


def test_a_checksum_tells_contents_apart_and_is_the_same_for_any_layout():
    values = np.arange(10)
    assert checksum(values[::2]) == checksum(values[::2].copy()) != checksum(values[1::2])
    assert checksum(values[:0]) == "empty"
