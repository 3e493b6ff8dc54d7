"""Whose an array is, told without importing anybody."""

import numpy as np
import pytest

from feedline.frameworks import from_numpy, is_array, is_foreign, is_jax, is_masked, is_numeric, is_torch, stacking_of

jax = pytest.importorskip("jax")
torch = pytest.importorskip("torch")


class Held:
    """An array in ``.data``, and what else it is given."""

    def __init__(self, data, **others):
        self.data = data
        vars(self).update(others)


@pytest.mark.parametrize(
    ("value", "whose"),
    [
        (np.zeros(2), {is_array}),
        (np.ma.zeros(2), {is_array, is_masked}),
        (torch.zeros(2), {is_array, is_torch}),
        (torch.nn.Parameter(torch.zeros(2)), {is_array, is_torch}),
        (jax.numpy.zeros(2), {is_array, is_jax}),
        (Held(np.zeros(2)), {is_foreign}),
        (Held(np.zeros(2), shape=(2,)), {is_foreign}),
        (Held(np.zeros(2), shape=(9, 9)), set()),
        (Held(np.zeros((2, 2)), shape=(2, 2), nnz=4), set()),
        (Held([0, 0]), set()),
        ([0.0, 0.0], set()),
        (None, set()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_array_has_one_owner(value, whose):
    asked = {is_array, is_foreign, is_jax, is_masked, is_torch}
    assert {ask for ask in asked if ask(value)} == whose


def test_what_jax_traces_is_jaxs():
    assert jax.jit(lambda x: x + is_jax(x))(1) == 2


@pytest.mark.parametrize("like", [np.zeros(1), torch.zeros(1), jax.numpy.zeros(1), Held(np.zeros(1))])
def test_an_array_goes_the_way_of_its_like_where_that_is_a_frameworks(like):
    made = from_numpy(np.arange(2, dtype=np.int32), like)
    assert is_torch(made) == is_torch(like)
    assert is_jax(made) == is_jax(like)
    assert np.asarray(made).tolist() == [0, 1]
    stacking = stacking_of(like)
    assert (stacking is not None) == (is_torch(like) or is_jax(like))
    assert stacking is None or np.asarray(stacking[1]([made, made])).shape == (2, 2)


@pytest.mark.parametrize("code", ["?", "i1", "u8", ">f4", "f2", "c16", "g"])
def test_numbers_have_numeric_dtypes(code):
    assert is_numeric(np.dtype(code))


@pytest.mark.parametrize("code", ["U1", "S1", "O", "M8[s]", "m8[s]", "V4", "i4,i4"])
def test_what_is_no_number_has_none(code):
    assert not is_numeric(np.dtype(code))


def test_dtypes_that_packages_add_are_numeric():
    assert is_numeric(np.dtype(jax.numpy.bfloat16))
