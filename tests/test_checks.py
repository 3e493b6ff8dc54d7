"""The checks that many arguments share."""

import numpy as np
import pytest
import torch

from feedline.checks import integer


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
