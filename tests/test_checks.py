"""The checks that many arguments share."""

import array
from collections import deque

import numpy as np
import pytest
import torch

from feedline.checks import column, integer


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3), torch.tensor(3)])
def test_an_integer_of_any_library_comes_back_as_pythons(value):
    number = integer("size", value, least=1)
    assert type(number) is int
    assert number == 3


@pytest.mark.parametrize(
    "value",
    [
        *(True, np.True_, np.array(True), torch.tensor(True)),
        *(3.0, np.float64(3), np.array(3.0), float("nan"), "3", None, object()),
        *([3], np.array([3]), np.array([3, 4]), torch.tensor([3])),
    ],
    ids=repr,
)
def test_what_is_no_integer_is_refused(value):
    with pytest.raises(ValueError, match=r"^size must be a positive integer, got ") as caught:
        integer("size", value, least=1)
    assert str(caught.value).endswith(repr(value))


@pytest.mark.parametrize(
    ("least", "rule"),
    [(0, "a non-negative integer"), (1, "a positive integer"), (2, "an integer of at least 2")],
)
def test_the_least_is_accepted_and_what_is_below_is_refused_by_its_rule(least, rule):
    assert integer("n", least, least=least) == least
    with pytest.raises(ValueError, match=f"^n must be {rule}, got {least - 1}$"):
        integer("n", least - 1, least=least)


class _Sequence:
    """What has a length and an index, and no more."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return [3, 1, 2][index]


@pytest.mark.parametrize(
    "values",
    [
        *([3, 1, 2], (3, 1, 2), np.array([3, 1, 2]), torch.tensor([3, 1, 2]), array.array("q", [3, 1, 2])),
        *(torch.tensor([3, 1, 2], dtype=torch.bfloat16), torch.tensor([3.0, 1, 2], requires_grad=True)),
        *(deque([3, 1, 2]), _Sequence()),
    ],
    ids=lambda values: type(values).__name__,
)
def test_a_column_is_read_from_whatever_has_an_order(values):
    assert column("lengths", values, "one a sample").tolist() == [3, 1, 2]


@pytest.mark.parametrize(
    "values",
    [{3, 1}, frozenset([3]), {0: 3, 1: 1}, {0: 3}.values(), (n for n in (3, 1)), iter([3]), map(int, "31")],
    ids=lambda values: type(values).__name__,
)
def test_a_column_without_an_order_or_that_comes_once_is_refused(values):
    message = f"^lengths must be a one-dimensional sequence or array, one a sample, got {type(values).__name__}: give a"
    with pytest.raises(ValueError, match=message):
        column("lengths", values, "one a sample")


def test_a_column_of_columns_of_different_lengths_is_refused():
    with pytest.raises(ValueError, match=r"^lengths must be one-dimensional, one a sample, got sequences of different"):
        column("lengths", [[1], [1, 2]], "one a sample")


def test_an_array_that_cannot_be_read_raises_its_own_error():
    class Broken:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("on another device")

    with pytest.raises(RuntimeError, match="on another device"):
        column("lengths", Broken(), "one a sample")
