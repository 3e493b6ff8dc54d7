"""Laws of stacking tensors of torch, JAX and other libraries: types go through."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedline.batching import default_collate, default_convert, pad_collate
from feedline.errors import CollateError
from feedline.frameworks import is_foreign

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")
jnp = jax.numpy


class Tensor:
    """A teaching framework's tensor."""

    def __init__(self, data, requires_grad=False):
        self.data = np.asarray(data)
        self.requires_grad = requires_grad


class Special(Tensor):
    pass


class Sparse:
    """As scipy's: the array in ``.data`` holds the non-zeros only."""

    def __init__(self, data):
        self.data = np.asarray(data)
        self.shape = (10, 10)


class NoConstructor:
    def __init__(self):
        self.data = np.zeros(2)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.uint8, torch.complex64]
)
def test_torch_tensors_are_stacked_as_torch_does(dtype):
    samples = [(torch.tensor([i, 1]).to(dtype), i) for i in range(3)]
    ours, theirs = default_collate(samples), torch.utils.data.default_collate(samples)
    assert type(ours) is tuple
    assert ours[0].dtype == theirs[0].dtype == dtype
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(torch.from_numpy(ours[1]), theirs[1])


@given(st.lists(st.tuples(st.integers(-9, 9), st.floats(-9, 9), st.booleans(), st.text()), min_size=1, max_size=5))
def test_numbers_and_text_are_as_torch_has_them(samples):
    samples = [{"all": list(sample), "array": np.asarray(sample[1], np.float32)} for sample in samples]
    ours, theirs = default_collate(samples), torch.utils.data.default_collate(samples)
    for mine, its in zip(ours["all"][:3], theirs["all"][:3], strict=True):
        assert torch.equal(torch.from_numpy(mine), its)
    assert ours["all"][3] == list(theirs["all"][3])
    assert torch.equal(torch.from_numpy(ours["array"]), theirs["array"])


def test_autograd_reaches_each_sample():
    samples = [torch.tensor(float(i), requires_grad=True) for i in range(3)]
    (default_collate(samples) ** 2).sum().backward()
    assert [float(sample.grad) for sample in samples] == [0.0, 2.0, 4.0]


def test_a_torch_parameter_and_a_tensor_stack():
    batch = default_collate([torch.nn.Parameter(torch.zeros(2)), torch.ones(2)])
    assert batch.requires_grad
    assert batch.tolist() == [[0, 0], [1, 1]]


def test_torch_tensors_of_other_shapes_are_refused_by_place():
    with pytest.raises(CollateError, match=r"sample\['x'\]: shapes \(2,\) at index 1 and \(3,\) at index 2; use pad"):
        default_collate([{"x": torch.zeros(2)}, {"x": torch.zeros(2)}, {"x": torch.zeros(3)}])
    with pytest.raises(CollateError, match="sample: Tensor at index 0 and ndarray at index 1"):
        default_collate([torch.zeros(2), np.zeros(2)])
    with pytest.raises(CollateError, match="sample: ndarray of float64 at index 0 and Tensor at index 1"):
        default_collate([np.zeros(2), torch.zeros(2)])


def test_what_torch_itself_refuses_is_told_with_the_place():
    with pytest.raises(CollateError, match=r"cannot stack sample\[0\]: .*[Ss]parse") as caught:
        default_collate([(torch.ones(2),), (torch.ones(2).to_sparse(),)])
    assert caught.value.__cause__ is not None
    assert caught.value.position is None


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.bool_])
def test_jax_arrays_give_a_jax_array(dtype):
    samples = [jnp.asarray([i, 1], dtype=dtype) for i in range(3)]
    batch = default_collate([{"x": sample} for sample in samples])["x"]
    assert isinstance(batch, jax.Array)
    assert batch.dtype == dtype
    assert (batch == jnp.stack(samples)).all()


def test_jax_arrays_of_other_shapes_are_refused_by_place():
    with pytest.raises(CollateError, match=r"sample: shapes \(2,\) at index 0 and \(3,\) at index 1"):
        default_collate([jnp.zeros(2), jnp.zeros(3)])


def test_collating_is_traced_by_jax():
    gradient = jax.grad(lambda x: default_collate([x, 2 * x]).sum())
    assert float(gradient(1.0)) == 3.0


@pytest.mark.parametrize("cls", [Tensor, Special])
def test_another_library_gets_its_class_back(cls):
    batch = default_collate([(cls([1, 2]), 0), (cls([3.5, 4]), 1)])[0]
    assert type(batch) is cls
    assert batch.data.tolist() == [[1, 2], [3.5, 4]]


def test_another_library_may_mix_subclasses_but_not_types():
    assert type(default_collate([Tensor([1]), Special([2])])) is Tensor
    with pytest.raises(CollateError, match="sample: Special at index 0 and Tensor at index 1"):
        default_collate([Special([2]), Tensor([1])])
    with pytest.raises(CollateError, match=r"sample: shapes \(1,\) at index 0 and \(2,\) at index 1"):
        default_collate([Tensor([1]), Tensor([1, 2])])


def test_a_class_that_takes_no_array_is_refused():
    with pytest.raises(TypeError, match=r"NoConstructor: its constructor takes no array .* or register_collate"):
        default_collate([NoConstructor()])


def test_an_object_whose_data_is_not_its_array_is_no_tensor():
    assert not is_foreign(Sparse([1, 2]))
    with pytest.raises(TypeError, match="cannot collate sample of type Sparse"):
        default_collate([Sparse([1, 2])])


@pytest.mark.parametrize("make", [torch.zeros, jnp.zeros, Tensor])
def test_default_convert_leaves_tensors_alone(make):
    tensor = make(2)
    assert default_convert([tensor])[0] is tensor


def test_collating_imports_no_framework():
    program = (
        "import sys, numpy as np; from feedline.batching import default_collate, pad_collate;"
        "default_collate([{'x': np.zeros(2), 'y': 1}]); pad_collate([[1, 2], [3]]);"
        "assert not {'torch', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# ------------------------------------------------------------------------------------------------------------ padding


@pytest.mark.parametrize("extra", [None, "lengths", "mask"])
def test_padding_torch_and_jax_is_padding_numpy(extra):
    arrays = [np.arange(2 * n, dtype=np.float32).reshape(n, 2) for n in (1, 3, 0)]
    expected = pad_collate(arrays, value=-1, multiple_of=2, extra=extra)
    for make, cls in (torch.from_numpy, torch.Tensor), (jnp.asarray, jax.Array):
        padded = pad_collate([make(array) for array in arrays], value=-1, multiple_of=2, extra=extra)
        if extra is None:
            assert isinstance(padded, cls)
            assert np.array_equal(np.asarray(padded), expected)
        else:
            assert type(padded) is type(expected)
            assert all(isinstance(part, cls) for part in padded)
            assert all(map(np.array_equal, map(np.asarray, padded), expected))


@pytest.mark.parametrize("extra", [None, "lengths"])
def test_padding_another_library_gives_its_class(extra):
    padded = pad_collate([Tensor([1]), Tensor([2, 3])], extra=extra)
    data = padded if extra is None else padded.data
    assert type(data) is Tensor
    assert data.data.tolist() == [[1, 0], [2, 3]]
    assert extra is None or padded.lengths.tolist() == [1, 2]


def test_autograd_reaches_through_the_padding():
    samples = [torch.ones(n, requires_grad=True) for n in (1, 3)]
    pad_collate(samples, max_length=2).sum().backward()
    assert [sample.grad.tolist() for sample in samples] == [[1], [1, 1, 0]]


def test_padded_tensors_are_promoted_as_torch_does():
    assert (
        pad_collate([torch.zeros(1, dtype=torch.int32), torch.zeros(2, dtype=torch.bfloat16)]).dtype == torch.bfloat16
    )


@pytest.mark.parametrize("value", [0.5, float("nan"), "x", 2**70])
def test_a_padding_value_that_the_tensor_cannot_hold_is_refused(value):
    with pytest.raises(ValueError, match=r"value must be a number that sample of dtype torch\.int64 can hold, got"):
        pad_collate([torch.zeros(2, dtype=torch.int64)], value=value)


@pytest.mark.parametrize("make", [torch.zeros, jnp.zeros, lambda n: Tensor(np.zeros(n))])
def test_padding_does_not_mix_libraries(make):
    with pytest.raises(CollateError, match=r"sample: .* at index 0 and ndarray at index 1"):
        pad_collate([make(2), np.zeros(2)])


def test_padding_tensors_needs_the_other_axes_alike():
    with pytest.raises(CollateError, match=r"shapes \(1, 2\) at index 0 and \(1, 3\) at index 1; only first axes"):
        pad_collate([torch.zeros(1, 2), torch.zeros(1, 3)])


@pytest.mark.parametrize("make", [torch.tensor, jnp.asarray, Tensor])
def test_tensors_without_dimensions_are_stacked(make):
    batch = pad_collate([make(1.0), make(2.0)])
    assert np.asarray(batch.data if isinstance(batch, Tensor) else batch).tolist() == [1, 2]
