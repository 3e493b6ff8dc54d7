"""Laws of values at given times, against brute force and NumPy's interpolation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedline.batching.alignment import align, in_place

TIMES = st.lists(st.integers(0, 40).map(lambda n: n / 4), max_size=12).map(lambda times: np.array(sorted(times), float))
TARGETS = st.lists(st.integers(-8, 48).map(lambda n: n / 4 + 0.0625), max_size=8).map(np.array)
TARGETS |= TIMES
TOLERANCES = st.sampled_from([0.0, 0.0625, 0.25, 1.0, np.inf])


def brute_nearest(times, target, tolerance):
    near = [i for i, t in enumerate(times) if abs(t - target) <= tolerance]
    return min(near, key=lambda i: (abs(times[i] - target), times[i], -i), default=None)


def brute_previous(times, target, tolerance):
    return max((i for i, t in enumerate(times) if 0 <= target - t <= tolerance), default=None)


@pytest.mark.parametrize(("method", "brute"), [("nearest", brute_nearest), ("previous", brute_previous)])
@given(times=TIMES, targets=TARGETS, tolerance=TOLERANCES)
def test_nearest_and_previous_choose_as_brute_force_does(method, brute, times, targets, tolerance):
    source = align(times, targets.astype(float), method, tolerance)
    chosen = [int(i) if valid else None for i, valid in zip(source.before, source.valid, strict=True)]
    assert chosen == [brute(times, target, tolerance) for target in targets]
    assert not source.weight.any()


@given(TIMES, TARGETS, TOLERANCES, st.data())
def test_linear_is_numpys_interpolation_between_near_neighbours(times, targets, tolerance, data):
    times = np.unique(times)
    targets = targets.astype(float)
    values = np.array([data.draw(st.floats(-100, 100, width=32)) for _ in times])
    source = align(times, targets, "linear", tolerance)
    out = np.full(len(targets), np.nan)
    source.write(values, out)
    for target, value, valid in zip(targets, out, source.valid, strict=True):
        before, after = times[times <= target], times[times >= target]
        near = len(before) > 0 and len(after) > 0
        near = near and max(target - before[-1], after[0] - target) <= tolerance
        assert valid == near
        if near:
            assert value == pytest.approx(np.interp(target, times, values), abs=1e-9)
        else:
            assert np.isnan(value)


@given(TIMES)
def test_at_its_own_times_linear_gives_the_last_of_equal_ones_exactly(times):
    values = np.arange(len(times), dtype=float)
    values[::3] = np.inf
    out = np.empty(len(times))
    source = align(times, times, "linear", 0.0)
    source.write(values, out)
    assert source.valid.all()
    assert out.tolist() == [values[np.flatnonzero(times == t)[-1]] for t in times]


def test_linear_is_by_element():
    out = np.zeros((1, 2, 2))
    align(np.array([0.0, 2.0]), np.array([0.5]), "linear", np.inf).write(
        np.array([[[0, 4], [8, 12]], [[4, 4], [0, 0]]]), out
    )
    assert out.tolist() == [[[1, 4], [6, 9]]]


def test_what_is_not_valid_is_left_as_it_is():
    out = np.array([7, 7])
    align(np.array([1.0]), np.array([0.0, 1.0]), "previous", np.inf).write(np.array([5]), out)
    assert out.tolist() == [7, 5]


def test_a_stream_in_place_is_itself():
    out = np.zeros((3, 2))
    source = in_place(3)
    source.write(np.arange(6).reshape(3, 2), out)
    assert source.valid.all()
    assert out.ravel().tolist() == list(range(6))
