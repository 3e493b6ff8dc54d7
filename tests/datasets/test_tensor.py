"""`TensorDataset`: rows of arrays of any library, one by one and in batches."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import TensorDataset as TorchTensorDataset

from feedline.datasets import TensorDataset


class Tensor:
    """As teaching frameworks have it: an array in ``.data``, and a constructor that takes one."""

    def __init__(self, data):
        assert isinstance(data, np.ndarray)
        self.data = data


def pixels(size=6):
    return np.arange(size * 4, dtype=np.uint8).reshape(size, 2, 2)


def memory_map(array, path):
    np.save(path, array)
    return np.load(path, mmap_mode="r")


KINDS = {
    "numpy": (lambda array: array, np.ndarray),
    "torch": (torch.from_numpy, torch.Tensor),
    "jax": (jnp.asarray, jax.Array),
    "foreign": (Tensor, Tensor),
}


def plain(value):
    return value.data if isinstance(value, Tensor) else np.asarray(value)


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


# ------------------------------------------------------------------------------------------------- samples


def test_a_sample_is_the_tuple_of_rows(kind):
    make, cls = kind
    array = pixels()
    dataset = TensorDataset(make(array), make(array[:, 0, 0].copy()))
    assert len(dataset) == 6
    for index in [0, 5, -1, -6, np.int64(3), np.uint8(3)]:
        image, value = dataset[index]
        assert isinstance(image, cls)
        np.testing.assert_array_equal(plain(image), array[index])
        assert plain(value) == array[index, 0, 0]


def test_a_row_of_a_foreign_vector_is_of_its_class():
    (row,) = TensorDataset(Tensor(np.arange(3.0)))[1]
    assert isinstance(row, Tensor)
    assert row.data == 1.0


def test_the_sample_of_one_array_is_a_tuple():
    assert TensorDataset(np.arange(3))[1] == (1,)


def test_rows_of_numpy_arrays_are_views():
    array = pixels()
    assert np.shares_memory(TensorDataset(array)[1][0], array)


def test_tensors_are_held_as_given(kind):
    tensor = kind[0](pixels())
    dataset = TensorDataset(tensor, tensor)
    assert isinstance(dataset.tensors, tuple)
    assert dataset.tensors[0] is tensor


@pytest.mark.parametrize("index", [100, -101, np.int64(100)])
def test_out_of_range_is_an_index_error(index):
    with pytest.raises(IndexError, match=f"Index {index} out of range for dataset of size 100"):
        TensorDataset(np.zeros(100))[index]


@pytest.mark.parametrize("index", [1.0, "1", None, (0, 1)])
def test_an_index_that_is_no_integer_is_a_type_error(index):
    with pytest.raises(TypeError, match="index must be an integer, got"):
        TensorDataset(np.zeros(100))[index]


def test_a_slice_gives_the_rows_of_each_array(kind):
    make, cls = kind
    array = pixels()
    images, values = TensorDataset(make(array), make(array[:, 0, 0].copy()))[1:5:2]
    assert isinstance(images, cls)
    np.testing.assert_array_equal(plain(images), array[1:5:2])
    np.testing.assert_array_equal(plain(values), array[1:5:2, 0, 0])


@pytest.mark.parametrize("index", [[2, -1], np.array([2, -1]), torch.tensor([2, -1]), [], torch.tensor([3])])
def test_a_list_gives_the_rows_of_each_array(kind, index):
    make, cls = kind
    array = pixels()
    (images,) = TensorDataset(make(array))[index]
    assert isinstance(images, cls)
    np.testing.assert_array_equal(plain(images), array[np.asarray(index, dtype=np.int64)])


@pytest.mark.parametrize("index", [0, -1, slice(1, 4), [2, 0], torch.tensor([1, 1])])
def test_indexing_agrees_with_torch(index):
    x, y = torch.arange(12.0).reshape(6, 2), torch.arange(6)
    for mine, theirs in zip(TensorDataset(x, y)[index], TorchTensorDataset(x, y)[index], strict=True):
        assert torch.equal(mine, theirs)


def test_it_travels_by_pickle(kind):
    dataset = pickle.loads(pickle.dumps(TensorDataset(kind[0](pixels()))))
    np.testing.assert_array_equal(plain(dataset[-1][0]), pixels()[-1])


def test_it_promises_safe_threads_and_no_global_randomness():
    dataset = TensorDataset(np.zeros(1))
    assert dataset.thread_safe is True
    assert dataset.uses_global_rng is False


# --------------------------------------------------------------------------------------------- the arrays


def test_different_lengths_are_refused_with_the_sizes():
    with pytest.raises(ValueError, match="All tensors must have same size in first dimension, got 100, 99, 100"):
        TensorDataset(np.zeros((100, 2)), torch.zeros(99), Tensor(np.zeros(100)))


def test_no_arrays_are_refused():
    with pytest.raises(ValueError, match="TensorDataset needs at least one array, got none"):
        TensorDataset()


@pytest.mark.parametrize("tensor", [np.array(1.0), torch.tensor(1.0), jnp.asarray(1.0), Tensor(np.array(1))])
def test_arrays_of_no_dimension_are_refused(tensor):
    with pytest.raises(ValueError, match=r"tensors\[1\] must have samples along a first dimension, got a 0-d"):
        TensorDataset(np.zeros(1), tensor)


@pytest.mark.parametrize("tensor", [[1, 2], "ab", range(2), None])
def test_what_is_no_array_is_refused(tensor):
    message = rf"tensors\[0\] must be an array, got {type(tensor).__name__}; use np\.asarray"
    with pytest.raises(TypeError, match=message):
        TensorDataset(tensor)


def test_masked_arrays_are_refused_since_a_batch_would_lose_the_mask():
    with pytest.raises(TypeError, match=r"tensors\[0\] must be a plain array, got a masked one; use its \.fi"):
        TensorDataset(np.ma.masked_array([1, 2], mask=[True, False]))


def test_tensors_may_be_assigned_anew():
    dataset = TensorDataset(np.arange(10), np.arange(10))
    dataset.tensors = [np.arange(4)]
    assert isinstance(dataset.tensors, tuple)
    assert len(dataset) == 4
    assert dataset[-1] == (3,)
    with pytest.raises(ValueError, match="same size in first dimension, got 4, 5"):
        dataset.tensors = (np.arange(4), np.arange(5))
    assert len(dataset) == 4


def test_the_length_is_read_from_the_arrays_each_time():
    short, other = Tensor(np.arange(10)), Tensor(np.arange(10))
    dataset = TensorDataset(short, other)
    short.data = short.data[:7]
    for use in (lambda: len(dataset), lambda: dataset[0], lambda: dataset.gather([0])):
        with pytest.raises(ValueError, match="same size in first dimension, got 7, 10"):
            use()
    other.data = other.data[:7]
    assert len(dataset) == 7


def test_arrays_that_are_resized_apart_are_refused_when_they_are_used():
    arrays = np.arange(6), np.arange(6)
    dataset = TensorDataset(*arrays)
    arrays[1].resize(4, refcheck=False)
    for use in (lambda: len(dataset), lambda: dataset[0], lambda: dataset.gather([0])):
        with pytest.raises(ValueError, match="same size in first dimension, got 6, 4"):
            use()


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "dia", "bsr"])
@pytest.mark.parametrize("fill", [np.eye, np.ones], ids=["eye", "ones"])
def test_sparse_matrices_are_refused_since_their_data_are_not_their_rows(form, fill):
    sparse = pytest.importorskip("scipy.sparse")
    matrix = sparse.csr_matrix(fill((3, 3)) if fill is np.ones else fill(3)).asformat(form)
    with pytest.raises(TypeError, match=rf"tensors\[0\] must be an array, got {form}_matrix; use np\.asarray"):
        TensorDataset(matrix)


# -------------------------------------------------------------------------------------------------- gather


def stacked(dataset, indices):
    """The reference: the samples, one by one, put together by NumPy alone."""
    columns = zip(*(dataset[int(index)] for index in indices), strict=True)
    return [np.stack([plain(row) for row in column]) for column in columns]


@settings(deadline=None, max_examples=60)
@given(data=st.data(), name=st.sampled_from(sorted(KINDS)))
def test_gather_equals_the_samples_stacked(data, name):
    make, cls = KINDS[name]
    size = data.draw(st.integers(1, 20))
    dtype = data.draw(st.sampled_from(["u1", "i4", "f4", "?"]))
    shape = data.draw(st.sampled_from([(), (3,), (2, 3), (0,)]))
    values = np.arange(size * int(np.prod(shape))).reshape(size, *shape).astype(dtype)
    dataset = TensorDataset(make(values), make(np.arange(size, dtype=np.int32)))
    indices = np.array(data.draw(st.lists(st.integers(-size, size - 1), min_size=1, max_size=12)))
    batch = dataset.gather(indices)
    assert isinstance(batch, tuple)
    for mine, reference in zip(batch, stacked(dataset, indices), strict=True):
        assert isinstance(mine, cls)
        assert plain(mine).dtype == reference.dtype
        np.testing.assert_array_equal(plain(mine), reference)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), name=st.sampled_from(["numpy", "torch", "foreign"]))
def test_gather_fills_the_batch_it_is_given(data, name):
    """Of the same kind, or NumPy arrays, whatever the memory order of the source."""
    make, _ = KINDS[name]
    size = data.draw(st.integers(1, 20))
    values = np.arange(size * 6, dtype=np.float32).reshape(size, 2, 3)
    if data.draw(st.booleans()):
        values = np.asfortranarray(values)
    dataset = TensorDataset(make(values))
    indices = data.draw(st.lists(st.integers(-size, size - 1), min_size=1, max_size=12))
    memory = np.full((len(indices), 2, 3), -1.0, dtype=np.float32)
    place = data.draw(st.sampled_from([memory, make(memory)]))
    (filled,) = dataset.gather(indices, (place,))
    assert filled is place
    np.testing.assert_array_equal(memory, stacked(dataset, indices)[0])


def test_gather_fills_numpy_memory_from_jax():
    memory = np.zeros((2, 2, 2), dtype=np.uint8)
    (filled,) = TensorDataset(jnp.asarray(pixels())).gather([4, 0], (memory,))
    assert filled is memory
    np.testing.assert_array_equal(memory, pixels()[[4, 0]])


def test_gather_from_a_memory_map_gives_plain_arrays(tmp_path):
    dataset = TensorDataset(memory_map(pixels(), tmp_path / "pixels.npy"))
    (batch,) = dataset.gather([5, 1])
    assert type(batch) is np.ndarray
    np.testing.assert_array_equal(batch, pixels()[[5, 1]])
    np.testing.assert_array_equal(dataset[5][0], pixels()[5])


@pytest.mark.parametrize(
    "array",
    [
        pixels().transpose(0, 2, 1),
        pixels()[:, ::2],
        pixels()[::-1],
        np.asfortranarray(pixels()),
        pixels().astype(">i4"),
        np.arange(5, dtype=np.uint8)[1:].view(">u2"),
        np.zeros(6, dtype=[("a", "u1"), ("b", "<i4")])["b"],
    ],
)
def test_gather_from_any_memory_layout_gives_contiguous_native_batches(array):
    (batch,) = TensorDataset(array).gather([1, 0])
    assert batch.flags.c_contiguous
    assert batch.dtype.isnative
    np.testing.assert_array_equal(batch, np.stack([array[1], array[0]]))


def test_gather_keeps_gradients_and_dtypes_that_numpy_has_not():
    leaf = torch.arange(4.0, requires_grad=True)
    batch, halves = TensorDataset(leaf, torch.arange(4, dtype=torch.bfloat16)).gather([3, 1])
    batch.sum().backward()
    assert leaf.grad.tolist() == [0, 1, 0, 1]
    assert halves.dtype == torch.bfloat16
    assert halves.tolist() == [3, 1]
    place = torch.zeros(2, dtype=torch.bfloat16)
    (filled,) = TensorDataset(torch.arange(4, dtype=torch.bfloat16)).gather([3, 1], (place,))
    assert filled is place
    assert place.tolist() == [3, 1]


def test_gather_gives_memory_of_its_own(kind):
    array = pixels()
    (batch,) = TensorDataset(kind[0](array)).gather(range(6))
    assert not np.shares_memory(plain(batch), array)


def test_gather_of_nothing_is_an_empty_batch(kind):
    (batch,) = TensorDataset(kind[0](pixels())).gather([])
    assert plain(batch).shape == (0, 2, 2)
    (batch,) = TensorDataset(kind[0](pixels(0))).gather([])
    assert plain(batch).shape == (0, 2, 2)


@pytest.mark.parametrize("index", [6, -7])
def test_gather_refuses_what_lies_outside(kind, index):
    """It neither clips, as NumPy would be told to, nor clamps, as JAX does."""
    with pytest.raises(IndexError, match=f"Index {index} out of range for dataset of size 6"):
        TensorDataset(kind[0](pixels())).gather([0, index])


def test_gather_refuses_places_of_another_shape():
    message = r"out must have the batch's shape \(1, 2, 2\), got \(2, 2, 2\)"
    sources = pixels(), np.asfortranarray(pixels()), torch.from_numpy(pixels()), jnp.asarray(pixels())
    for source in sources:
        with pytest.raises(ValueError, match=message):
            TensorDataset(source).gather([0], (np.zeros((2, 2, 2), dtype=np.uint8),))
    with pytest.raises(ValueError, match="shorter"):
        TensorDataset(pixels(), pixels()).gather([0], (np.zeros((1, 2, 2), dtype=np.uint8),))


def test_gather_refuses_places_that_would_lose_digits():
    for array in (np.arange(4), np.arange(8)[::2], torch.arange(4), Tensor(np.arange(4))):
        with pytest.raises(TypeError, match="out must have the batch's dtype int64, got int8"):
            TensorDataset(array).gather([0], (np.zeros(1, dtype=np.int8),))
    with pytest.raises(TypeError, match="out must have the batch's dtype int32, got int8"):
        TensorDataset(jnp.arange(4)).gather([0], (np.zeros(1, dtype=np.int8),))
