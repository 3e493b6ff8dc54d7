"""Laws of the registry of types."""

from collections.abc import Hashable
from fractions import Fraction
from numbers import Rational

import numpy as np
import pytest

from feedline.batching import default_collate, pad_collate, register_collate
from feedline.batching.registry import registered, registrations
from feedline.errors import CollateError


class Half(Fraction):
    pass


@pytest.fixture
def register():
    """`register_collate`, undone when the test ends."""
    undos = []
    yield lambda cls, fn: undos.append(register_collate(cls, fn))
    for undo in reversed(undos):
        undo()
    assert registrations() == {}


def test_a_registered_type_is_collated_by_its_function_at_any_depth(register):
    register(Fraction, lambda values: np.array([float(value) for value in values]))
    batch = default_collate([{"x": [Fraction(1, 2)]}, {"x": [Fraction(1, 4)]}])
    assert batch["x"][0].tolist() == [0.5, 0.25]


def test_pad_collate_uses_it_too(register):
    register(Fraction, list)
    register(np.ndarray, len)
    assert pad_collate([(Fraction(1, 2), np.zeros(1)), (Fraction(1, 4), np.zeros(2))]) == (
        [Fraction(1, 2), Fraction(1, 4)],
        2,
    )


@pytest.mark.parametrize(
    "values",
    [[np.zeros(1), np.ones(2)], [None, None], [1, 2], [{"a": 1}, {"a": 2}], [(1,), (2,)], ["a", "b"]],
)
def test_a_registration_comes_before_the_built_in_handling(register, values):
    register(type(values[0]), lambda given: ("mine", given))
    assert default_collate(values) == ("mine", values)


def test_the_most_specific_registration_decides(register):
    register(Fraction, lambda values: "fractions")
    assert default_collate([Half(1)]) == "fractions"
    register(Half, lambda values: "halves")
    assert default_collate([Half(1)]) == "halves"
    assert default_collate([Fraction(1)]) == "fractions"


def test_an_abstract_class_holds_for_its_virtual_subclasses(register):
    register(Rational, lambda values: "rational")
    assert default_collate([1, 2]) == "rational"
    assert default_collate([0.5]).tolist() == [0.5]
    register(Hashable, lambda values: "hashable")
    assert default_collate([0.5]) == "hashable"
    assert default_collate([[0.5]])[0] == "hashable"


def test_values_of_one_registration_may_be_of_several_types(register):
    register(Fraction, len)
    assert default_collate([Fraction(1), Half(1)]) == 2


def test_registered_values_do_not_mix_with_others(register):
    register(Fraction, len)
    with pytest.raises(CollateError, match="sample: Fraction at index 0 and int at index 1"):
        default_collate([Fraction(1), 1])
    with pytest.raises(CollateError, match="sample: number of float64 at index 0 and Fraction at index 1"):
        default_collate([0.5, Fraction(1)])


def test_a_registered_number_does_not_mix_with_others(register):
    """A batch of floats would take a truth value, had its type no function."""
    register(bool, list)
    with pytest.raises(CollateError, match="sample: number of float64 at index 0 and bool at index 1"):
        default_collate([0.5, True])


def test_an_error_of_the_function_arrives_as_itself(register):
    def fail(values):
        raise ZeroDivisionError("mine")

    register(Fraction, fail)
    with pytest.raises(ZeroDivisionError, match="mine"):
        default_collate([Fraction(1)])


def test_undoing_puts_back_what_was_there():
    first = register_collate(Fraction, lambda values: 1)
    second = register_collate(Fraction, lambda values: 2)
    assert default_collate([Fraction(1)]) == 2
    second()
    assert default_collate([Fraction(1)]) == 1
    first()
    first()
    assert registered(Fraction(1)) is None
    with pytest.raises(TypeError, match="cannot collate sample of type Fraction"):
        default_collate([Fraction(1)])


@pytest.mark.parametrize(
    ("cls", "fn", "message"),
    [
        (Fraction(1), list, r"cls must be a class, got Fraction\(1, 1\); register the type"),
        ("Fraction", list, "cls must be a class, got 'Fraction'"),
        (Fraction, 5, "fn must be a function of a list of values, got 5"),
    ],
)
def test_register_collate_refuses_what_is_no_class_or_function(cls, fn, message):
    with pytest.raises(TypeError, match=message):
        register_collate(cls, fn)
