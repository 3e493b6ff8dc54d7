"""Laws of stacking: NumPy, numbers, text and containers of them."""

import dataclasses
import enum
from collections import OrderedDict, UserDict, defaultdict
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from feedline.batching import default_collate
from feedline.errors import CollateError


class Point(NamedTuple):
    x: object
    y: object


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    image: object
    label: object

    def __post_init__(self):
        if isinstance(self.label, np.ndarray):
            raise TypeError("a sample has one label")


@dataclasses.dataclass(frozen=True)
class Named(Record):
    name: object = "?"


class Color(enum.IntEnum):
    RED = 1


def equal(one, other):
    return np.array_equal(one, other, equal_nan=np.asarray(one).dtype.kind in "fcmM")


# ------------------------------------------------------------------------------------------- the law of structure

DTYPES = hnp.boolean_dtypes() | hnp.integer_dtypes(endianness="=") | hnp.floating_dtypes(endianness="=")
DTYPES |= hnp.complex_number_dtypes(endianness="=") | hnp.datetime64_dtypes(endianness="=")
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.array_shapes(min_dims=0, max_dims=3, max_side=3, min_side=0).map(
        lambda shape: hnp.arrays(dtype, shape)
    )
)
LEAVES = ARRAYS | st.sampled_from(
    [
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(),
        st.complex_numbers(),
        st.text(),
        st.binary(),
        st.floats(width=32).map(np.float32),
        st.integers(0, 255).map(np.uint8),
    ]
)


def containers(children):
    """Strategies of samples of one structure, given strategies of samples of its elements' structures."""
    return (
        st.lists(children, max_size=3).map(lambda parts: st.tuples(*parts))
        | st.lists(children, max_size=3).map(lambda parts: st.tuples(*parts).map(list))
        | st.dictionaries(st.text(max_size=2) | st.integers(), children, max_size=3).map(st.fixed_dictionaries)
        | st.tuples(children, children).map(lambda parts: st.builds(Point, *parts))
        | st.tuples(children, children).map(lambda parts: st.builds(lambda *p: UserDict(x=p), *parts))
    )


def at(batch, i):
    """Sample ``i`` of a batch."""
    if isinstance(batch, np.ndarray):
        return batch[i]
    if isinstance(batch, Leaf):
        return batch.values[i]
    if hasattr(batch, "_fields"):
        return type(batch)(*(at(part, i) for part in batch))
    if isinstance(batch, dict | UserDict):
        return type(batch)({key: at(part, i) for key, part in batch.items()})
    return type(batch)(at(part, i) for part in batch)


@dataclasses.dataclass
class Leaf:
    values: list


def marked(batch, sample):
    """The batch with lists of text marked, which look like lists of parts."""
    if isinstance(sample, str | bytes):
        assert isinstance(batch, list)
        return Leaf(batch)
    if isinstance(sample, dict | UserDict):
        return type(batch)({key: marked(batch[key], sample[key]) for key in sample})
    if isinstance(sample, tuple | list):
        parts = [marked(part, element) for part, element in zip(batch, sample, strict=True)]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return batch


def same(one, other):
    if isinstance(other, np.ndarray | np.generic | int | float | complex):
        return np.shape(one) == np.shape(other) and equal(one, other)
    if isinstance(other, str | bytes):
        return one == other
    if isinstance(other, dict | UserDict):
        return type(one) is type(other) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in other)
    return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))


@given(st.recursive(LEAVES, containers, max_leaves=6), st.integers(1, 4), st.data())
def test_index_i_of_the_batch_is_sample_i(structure, count, data):
    samples = [data.draw(structure) for _ in range(count)]
    batch = marked(default_collate(samples), samples[0])
    for i, sample in enumerate(samples):
        assert same(at(batch, i), sample)


# ------------------------------------------------------------------------------------------------ arrays and dtypes


@given(
    hnp.array_shapes(min_dims=0, max_dims=2, max_side=3),
    st.lists(
        hnp.boolean_dtypes() | hnp.integer_dtypes() | hnp.floating_dtypes() | hnp.complex_number_dtypes(),
        min_size=1,
        max_size=4,
    ),
    st.data(),
)
def test_arrays_of_several_dtypes_and_byte_orders_are_stacked_as_numpy_does(shape, dtypes, data):
    arrays = [data.draw(hnp.arrays(dtype, shape)) for dtype in dtypes]
    stacked, batch = np.stack(arrays), default_collate(arrays)
    assert batch.dtype == stacked.dtype
    assert batch.dtype.isnative
    assert equal(batch, stacked)


@given(st.lists(hnp.arrays(hnp.unicode_string_dtypes() | st.just("U1"), 2), min_size=1, max_size=4))
@example([np.array(["a", "b"]), np.array(["longer", "text"])])
def test_arrays_of_text_become_as_wide_as_the_widest(arrays):
    batch = default_collate(arrays)
    assert batch.dtype == np.stack(arrays).dtype
    assert equal(batch, np.stack(arrays))


@pytest.mark.parametrize(
    "values",
    [
        [np.bytes_(b"a"), np.bytes_(b"long")],
        [np.str_("a"), np.str_("long")],
        [np.datetime64("2020-01-01"), np.datetime64("2020-01-01T12:00")],
        [np.timedelta64(1, "s"), np.timedelta64(1, "ms")],
        [np.float16(1), np.float64(2)],
        [np.uint8(255), np.int8(-1)],
        [np.bool_(True), np.int64(5)],
        [np.longdouble(1), np.float32(2)],
        list(np.array([(1, 2.0), (3, 4.0)], dtype=[("a", int), ("b", float)])),
    ],
    ids=lambda values: type(values[0]).__name__,
)
def test_numpy_scalars_give_an_array_of_their_dtype(values):
    batch = default_collate(values)
    assert batch.dtype == np.stack(values).dtype
    assert equal(batch, np.stack(values)) or (batch == np.stack(values)).all()


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([True, False], np.bool_),
        ([1, -2], np.int64),
        ([1.5, 2.0], np.float64),
        ([1j, 2.0], np.complex128),
        ([1, 2.5], np.float64),
        ([2.5, 1], np.float64),
        ([True, 2], np.int64),
        ([2, True], np.int64),
        ([1, np.int8(2)], np.int64),
        ([np.int8(2), 1], np.int64),
        ([np.float32(0.5), 1], np.float64),
        ([2**63, 1], np.uint64),
        ([1, 2**63, 2, 0], np.uint64),
        ([2**64 - 1], np.uint64),
        ([np.uint64(3), 1], np.uint64),
        ([-(2**63), 2**63 - 1], np.int64),
        ([Color.RED, Color.RED], np.int64),
        ([1, np.zeros(())], np.float64),
        ([np.zeros((), np.int64), 1, np.int64(4)], np.int64),
    ],
)
def test_numbers_give_an_array(values, dtype):
    batch = default_collate(values)
    assert type(batch) is np.ndarray
    assert batch.dtype == dtype
    assert batch.tolist() == values


@pytest.mark.parametrize(
    ("values", "position", "number"),
    [
        ([2**64], 0, 2**64),
        ([1, 2**64], 1, 2**64),
        ([-(2**63) - 1], 0, -(2**63) - 1),
        ([-1, 2**63], 1, 2**63),
        ([2**63, 5, -1], 2, -1),
        ([np.uint64(1), -1], 1, -1),
        ([np.zeros(()), 2**64], 1, 2**64),
    ],
)
def test_integers_that_share_no_dtype_are_refused(values, position, number):
    message = f"cannot stack sample: no integer dtype holds {number} at index {position} and those before it"
    with pytest.raises(CollateError, match=message) as caught:
        default_collate(values)
    assert caught.value.position == position


def test_masks_are_kept():
    masked = np.ma.MaskedArray([1, 2], mask=[False, True])
    for samples in ([masked, masked], [np.array([5, 6]), masked, np.array([7, 8])]):
        batch, stacked = default_collate(samples), np.ma.stack(samples)
        assert batch.dtype == stacked.dtype
        assert np.ma.getmaskarray(batch).tolist() == stacked.mask.tolist()
        assert batch.filled(-1).tolist() == stacked.filled(-1).tolist()


def test_elements_of_a_masked_array_stay_masked():
    masked = np.ma.MaskedArray([1, 2, 3], mask=[False, True, False])
    batch = default_collate(list(masked))
    assert batch.dtype == masked.dtype
    assert batch.tolist() == [1, None, 3]


def test_a_mask_does_not_outlive_a_refused_sample():
    from feedline.batching import BatchWriter

    writer = BatchWriter(2)
    writer.add((np.zeros(1), "a"))
    with pytest.raises(CollateError, match=r"sample\[1\]: str at index 0 and int at index 1"):
        writer.add((np.ma.MaskedArray([1.0], mask=[True]), 5))
    writer.add((np.ones(1), "b"))
    assert writer.finish()[0].tolist() == [[0.0], [1.0]]


def test_memory_maps_and_other_subclasses_give_plain_arrays(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(6).reshape(3, 2))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert type(mapped[0]) is np.memmap
    batch = default_collate([mapped[0], mapped[1], np.array([7, 8])])
    assert type(batch) is np.ndarray
    assert batch.tolist() == [[0, 1], [2, 3], [7, 8]]
    assert not np.shares_memory(batch, mapped)
    records = np.zeros(2, dtype=[("a", int)]).view(np.recarray)
    assert type(default_collate([records, records])) is np.ndarray


def test_arrays_of_types_added_to_numpy_are_promoted_where_numpy_can():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    half = np.ones(2, dtype=ml_dtypes.bfloat16)
    assert default_collate([half, half]).dtype == ml_dtypes.bfloat16
    assert default_collate([half[0], half[1]]).dtype == ml_dtypes.bfloat16
    assert default_collate([half, np.ones(2, np.float32)]).dtype == np.float32
    with pytest.raises(CollateError, match="ndarray of bfloat16 at index 0 and ndarray of int64 at index 1"):
        default_collate([half, np.ones(2, np.int64)])


def test_the_batch_shares_no_memory_with_the_samples():
    x = np.arange(3)
    batch = default_collate([x])
    assert not np.shares_memory(batch, x)


# --------------------------------------------------------------------------------------------------- text, containers


@pytest.mark.parametrize("values", [["a", "long"], [b"a", b""], [bytearray(b"x")], ["a", np.str_("b")]])
def test_text_gives_a_list(values):
    batch = default_collate(values)
    assert type(batch) is list
    assert batch == values


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"x": 1, "y": 2}, {"y": 4, "x": 3}),
        (OrderedDict(x=1, y=2), OrderedDict(x=3, y=4)),
        (UserDict(x=1, y=2), {"x": 3, "y": 4}),
        (MappingProxyType({"x": 1, "y": 2}), {"y": 4, "x": 3}),
    ],
)
def test_mappings_keep_their_type(first, second):
    batch = default_collate([first, second])
    assert type(batch) is type(first)
    assert list(batch) == list(first)
    assert [batch[key].tolist() for key in batch] == [[1, 3], [2, 4]]
    assert dict(first) == {"x": 1, "y": 2}


def test_a_defaultdict_keeps_its_factory_and_is_not_filled_by_looking():
    one, other = defaultdict(list, x=1), defaultdict(list, y=1)
    assert default_collate([one]).default_factory is list
    with pytest.raises(CollateError, match="index 1 is without 'x' and with 'y', unlike index 0"):
        default_collate([one, other])
    assert list(other) == ["y"]


def test_named_tuples_and_dataclasses_keep_their_type_unchecked():
    batch = default_collate([Point(1, "a"), Point(2, "b")])
    assert type(batch) is Point
    assert (batch.x.tolist(), batch.y) == ([1, 2], ["a", "b"])
    batch = default_collate([Record(np.zeros(2), 0), Named(np.ones(2), 1)][:1] * 2)
    assert type(batch) is Record
    assert batch.image.shape == (2, 2)
    assert batch.label.tolist() == [0, 0]


def test_other_sequences_keep_their_type_or_become_lists():
    assert [x.tolist() for x in default_collate([range(2), range(2)])] == [[0, 0], [1, 1]]
    assert default_collate([(), ()]) == ()
    assert default_collate([[], []]) == []
    assert default_collate([{}, {}]) == {}


# ----------------------------------------------------------------------------------------------------- other batches


@pytest.mark.parametrize("batch", [range(3), (0, 1, 2), np.arange(3), iter([0, 1, 2]), (i for i in range(3))])
def test_any_iterable_of_samples_is_a_batch(batch):
    assert default_collate(batch).tolist() == [0, 1, 2]


@pytest.mark.parametrize("batch", [[], (), iter([]), np.zeros((0, 3))])
def test_an_empty_batch_is_refused(batch):
    with pytest.raises(ValueError, match="cannot collate an empty batch"):
        default_collate(batch)


@pytest.mark.parametrize("batch", [{"x": 1}, "text", b"text", 5, None])
def test_what_is_no_sequence_of_samples_is_refused(batch):
    message = f"batch must be a sequence of samples, got {type(batch).__name__}; put one in a list"
    with pytest.raises(TypeError, match=message):
        default_collate(batch)
