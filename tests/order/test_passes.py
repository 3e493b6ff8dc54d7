"""Laws of passes: one permutation after the other, seekable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedline.order.passes import PassesOrder


@given(st.integers(1, 20), st.integers(0, 100), st.integers(0, 2**64 - 1), st.integers(0, 99))
def test_each_pass_is_complete_and_the_last_cut_short(population, length, seed, epoch):
    taken = PassesOrder(population, length, seed, epoch).take(0, length).tolist()
    assert len(taken) == length
    for start in range(0, length, population):
        part = taken[start : start + population]
        assert len(set(part)) == len(part)
        assert set(part) <= set(range(population))


@given(st.integers(1, 20), st.integers(0, 100), st.data())
def test_any_split_gives_the_same(population, length, data):
    order = PassesOrder(population, length, 1, 2)
    a = data.draw(st.integers(0, length))
    b = data.draw(st.integers(a, length))
    assert order.take(a, b).tolist() == PassesOrder(population, length, 1, 2).take(0, length)[a:b].tolist()


def test_passes_and_epochs_differ():
    order = PassesOrder(50, 200, 1, 0)
    passes = {tuple(order.take(start, start + 50).tolist()) for start in range(0, 200, 50)}
    passes.add(tuple(PassesOrder(50, 200, 1, 1).take(0, 50).tolist()))
    assert len(passes) == 5


def test_positions_outside_the_epoch_are_refused():
    with pytest.raises(IndexError, match="positions must satisfy"):
        PassesOrder(5, 12, 1, 0).take(0, 13)
