"""Laws of padding."""

from collections import namedtuple
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedline.batching import default_collate, pad_collate
from feedline.errors import CollateError

Pair = namedtuple("Pair", "ids label")  # noqa: PYI024 -- as users make them

LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=6)


def ramps(lengths, *rest, dtype=np.int32):
    """Arrays without a zero, of these lengths."""
    return [np.arange(1, n * int(np.prod(rest)) + 1).reshape(n, *rest).astype(dtype) for n in lengths]


@given(
    LENGTHS, st.sampled_from([(), (2,), (2, 3)]), st.integers(-5, 5), st.integers(1, 5), st.integers(1, 3) | st.none()
)
def test_each_row_is_its_sample_then_padding(lengths, rest, value, multiple_of, multiples):
    max_length = None if multiples is None else multiples * multiple_of
    arrays = ramps(lengths, *rest)
    options = {"value": value, "multiple_of": multiple_of, "max_length": max_length}
    padded, kept = pad_collate(arrays, **options, extra="lengths")
    longest = max(min(n, max_length or n) for n in lengths)
    assert padded.dtype == np.int32
    assert padded.shape[2:] == rest
    assert longest <= padded.shape[1] < longest + multiple_of
    assert padded.shape[1] % multiple_of == 0
    assert kept.dtype == np.int64
    for row, array, n in zip(padded, arrays, kept, strict=True):
        assert n == min(len(array), max_length or len(array))
        assert (row[:n] == array[:n]).all()
        assert (row[n:] == value).all()
    _, mask = pad_collate(arrays, **options, extra="mask")
    assert mask.dtype == np.bool_
    assert mask.shape == padded.shape[:2]
    assert mask.sum(axis=1).tolist() == kept.tolist()
    assert (np.diff(mask.astype(int), axis=1) <= 0).all()
    assert (pad_collate(arrays, **options) == padded).all()


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(1, 4))
def test_samples_of_one_length_are_padded_as_they_are_collated(values, length):
    samples = [{"x": np.full((length, 2), v), "y": v, "name": str(v)} for v in values]
    padded, collated = pad_collate(samples), default_collate(samples)
    assert padded.keys() == collated.keys()
    assert (padded["x"] == collated["x"]).all()
    assert (padded["y"] == collated["y"]).all()
    assert padded["name"] == collated["name"]


@given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4), min_size=1, max_size=4))
def test_lists_of_numbers_are_sequences(samples):
    padded, lengths = pad_collate(samples, extra="lengths")
    assert padded.dtype == np.int64
    assert [row[:n].tolist() for row, n in zip(padded, lengths, strict=True)] == samples


@pytest.mark.parametrize(
    ("samples", "dtype"),
    [
        ([[], []], np.int64),
        ([[1], []], np.int64),
        ([[0.5], [1, 2]], np.float64),
        ([[True], [False, True]], np.bool_),
        ([[2**63], [1, 2]], np.uint64),
        ([[np.float32(1)], [np.float32(2), np.float32(3)]], np.float32),
    ],
)
def test_the_dtype_of_lists_is_that_of_their_numbers(samples, dtype):
    padded = pad_collate(samples)
    assert padded.dtype == dtype
    assert [row[: len(sample)].tolist() for row, sample in zip(padded, samples, strict=True)] == samples


@pytest.mark.parametrize("samples", [[[2**64]], [[2**63], [-1]], [[2**63, -1]]])
def test_lists_of_integers_that_share_no_dtype_are_refused(samples):
    with pytest.raises(CollateError, match=r"sample\['x'\]: no integer dtype holds all its numbers; make them floats"):
        pad_collate([{"x": sample} for sample in samples])


def test_structures_keep_their_type_and_every_array_in_them_is_padded():
    batch = pad_collate([Pair([1], {"a": np.ones((2, 1)), "b": 1}), Pair([2, 3], {"a": np.ones((1, 1)), "b": 2})])
    assert type(batch) is Pair
    assert batch.ids.tolist() == [[1, 0], [2, 3]]
    assert batch.label["a"][..., 0].tolist() == [[1, 1], [1, 0]]
    assert batch.label["b"].tolist() == [1, 2]


def test_a_list_of_arrays_is_a_structure():
    batch = pad_collate([[np.ones(1), np.ones(2)], [np.ones(2), np.ones(1)]])
    assert [part.shape for part in batch] == [(2, 2), (2, 2)]


def test_only_the_named_elements_are_padded():
    samples = [{"image": np.zeros((3, 2, 2)), "ids": [1]}, {"image": np.ones((3, 2, 2)), "ids": [2, 3]}]
    collate_fn = partial(pad_collate, only="ids", multiple_of=4, extra="lengths")
    batch = collate_fn(samples)
    assert batch["image"].shape == (2, 3, 2, 2)
    assert batch["ids"].data.tolist() == [[1, 0, 0, 0], [2, 3, 0, 0]]
    assert batch["ids"].lengths.tolist() == [1, 2]
    both = pad_collate([(s["image"], s["ids"], s["ids"]) for s in samples], only=(1, 2), multiple_of=4)
    assert [part.shape for part in both] == [(2, 3, 2, 2), (2, 4), (2, 4)]


def test_elements_may_have_paddings_of_their_own():
    samples = [Pair([1], [1]), Pair([1, 2], [1, 2])]
    batch = pad_collate(samples, value={"label": -100})
    assert batch.ids.tolist() == [[1, 0], [1, 2]]
    assert batch.label.tolist() == [[1, -100], [1, 2]]


@pytest.mark.parametrize("options", [{"only": "x"}, {"value": {"x": 1}}, {"value": {"x": 1}, "only": "ids"}])
def test_elements_that_do_not_exist_are_refused(options):
    with pytest.raises(KeyError, match="only and value must name elements of the samples, which have no 'x'"):
        pad_collate([{"ids": [1]}], **options)


@pytest.mark.parametrize("options", [{"only": 0}, {"value": {"x": 1}}])
def test_samples_without_elements_have_none_to_name(options):
    with pytest.raises(TypeError, match="only= and a value by element need samples with elements, got ndarray"):
        pad_collate([np.zeros(1)], **options)


def test_text_and_dates_are_padded_with_their_zero():
    assert pad_collate([np.array(["a"]), np.array(["long", "b"])]).tolist() == [["a", ""], ["long", "b"]]
    assert pad_collate([np.array(["a"]), np.array(["b", "c"])], value="-").tolist() == [["a", "-"], ["b", "c"]]
    days = np.array(["2020-01-01", "2020-01-02"], dtype="M8[D]")
    assert pad_collate([days[:1], days])[0, 1] == np.datetime64(0, "D")
    assert np.isnat(pad_collate([days[:1], days], value=np.datetime64("NaT"))[0, 1])


def test_dtypes_are_promoted_and_empty_arrays_count_too():
    assert pad_collate([np.zeros(1, np.int8), np.zeros(2, np.float32)]).dtype == np.float32
    assert pad_collate([np.zeros(1, ">i4")]).dtype.isnative
    assert pad_collate([np.zeros(0), np.zeros(2, np.int32)]).dtype == np.float64


@pytest.mark.parametrize("value", [np.nan, -1.5, np.float32(0.25), 10**6])
def test_floats_are_padded_with_the_nearest_float(value):
    padded = pad_collate([np.ones(1, np.float32), np.ones(2, np.float32)], value=value)
    assert np.array_equal(padded[0, 1], np.float32(value), equal_nan=True)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (np.uint8, -100),
        (np.uint8, 256),
        (np.int64, 0.5),
        (np.int64, np.nan),
        (np.bool_, 2),
        ("U1", "pad"),
        (np.float32, "x"),
        (np.int64, [1, 2]),
        (np.int64, None),
        ("M8[s]", "x"),
    ],
)
def test_a_value_that_the_dtype_does_not_hold_is_refused(dtype, value):
    with pytest.raises(ValueError, match=r"value must be a number that sample\['x'\] of dtype .* can hold, got"):
        pad_collate([{"x": np.zeros(1, dtype)}], value=value)


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "2"])
@pytest.mark.parametrize("name", ["multiple_of", "max_length"])
def test_lengths_are_positive_integers(name, number):
    with pytest.raises(ValueError, match=f"{name} must be a positive integer, got {number!r}"):
        pad_collate([[1]], **{name: number})


def test_numpy_integers_are_integers():
    assert pad_collate([[1, 2, 3]], max_length=np.int64(2), multiple_of=np.int64(2)).tolist() == [[1, 2]]


def test_the_greatest_length_is_a_multiple():
    with pytest.raises(ValueError, match="max_length must be a multiple of multiple_of=4, got 6"):
        pad_collate([[1]], max_length=6, multiple_of=4)


def test_extra_is_lengths_or_mask():
    with pytest.raises(ValueError, match="extra must be None, 'lengths' or 'mask', got 'both'"):
        pad_collate([[1]], extra="both")


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (
            [np.zeros((3, 2)), np.zeros((4, 2)), np.zeros((4, 3))],
            r"sample: shapes \(3, 2\) at index 0 and \(4, 3\) at index 2; only first axes may differ: resize",
        ),
        ([np.zeros(3), np.zeros(())], r"sample: shapes \(3,\) at index 0 and \(\) at index 1"),
        ([np.zeros(3), None], "sample: ndarray at index 0 and NoneType at index 1"),
        ([np.zeros(3), [1.0]], "sample: ndarray at index 0 and list at index 1"),
        ([np.zeros(3), np.ma.zeros(3)], "sample: ndarray at index 0 and MaskedArray at index 1"),
        ([np.zeros(3), np.array(["a"])], "sample: ndarray of float64 at index 0 and ndarray of <U1 at index 1"),
        ([(1, [2]), (1,)], "sample: 2 elements at index 0 and 1 at index 1"),
        ([{"a": [1]}, {"b": [1]}], "sample: index 1 is without 'a' and with 'b'"),
        ([{"a": 1}, {"a": "x"}], r"sample\['a'\]: number of int64 at index 0 and str at index 1"),
        ([[1], ["a"]], r"sample\[0\]: number of int64 at index 0 and str at index 1"),
    ],
)
def test_samples_that_cannot_be_padded_are_refused(samples, message):
    with pytest.raises(CollateError, match=f"cannot stack {message}"):
        pad_collate(samples)


def test_objects_are_refused():
    with pytest.raises(TypeError, match="cannot collate sample of type ndarray at index 0 and dtype object"):
        pad_collate([np.array([None])])
    with pytest.raises(TypeError, match="cannot collate sample of type NoneType"):
        pad_collate([None])


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="cannot collate an empty batch"):
        pad_collate([])
