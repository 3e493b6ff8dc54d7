"""Laws of delivery: untouched unless asked; copies on a device are the receiver's own."""

import os
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from feedline import DataLoader
from feedline.delivery import deliverer

BATCH = {"x": np.arange(4.0), "names": ["a", "b"], "y": (torch.ones(2), 3, np.array(["text"]))}


def test_without_a_wish_nothing_is_done():
    assert deliverer(pin_memory=False) is None


def test_a_torch_device_gets_every_number():
    batch = deliverer(pin_memory=False, device="cpu")(BATCH)
    assert isinstance(batch["x"], torch.Tensor)
    assert batch["x"].tolist() == [0, 1, 2, 3]
    assert batch["y"][0] is BATCH["y"][0]
    assert batch["names"] == ["a", "b"]
    assert isinstance(batch["y"][2], np.ndarray)
    assert deliverer(pin_memory=False, device=torch.device("meta"))(BATCH)["x"].device.type == "meta"


def on_jax(batch):
    return deliverer(pin_memory=False, device=jax.devices("cpu")[0])(batch)


def aligned(array):
    """The same numbers where JAX on a CPU would use the memory itself: at a multiple of 64 bytes."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@pytest.mark.parametrize("size", [2, 4096])
def test_a_jax_device_gets_copies(size):
    source = aligned(np.arange(size, dtype=np.float32))
    (placed,) = on_jax([source])
    assert isinstance(placed, jax.Array)
    source[:] = 0
    assert float(placed[-1]) == size - 1


def test_a_jax_device_gets_every_number():
    batch = on_jax({**BATCH, "jax": jnp.ones(2), "half": np.ones(2, jnp.bfloat16)})
    assert [type(x) for x in (batch["names"], *batch["y"][1:])] == [list, int, np.ndarray]
    for leaf, expected in (batch["x"], [0, 1, 2, 3]), (batch["y"][0], [1, 1]), (batch["jax"], [1, 1]):
        assert isinstance(leaf, jax.Array)
        assert leaf.tolist() == expected
    assert isinstance(batch["half"], jax.Array)
    assert batch["half"].dtype == jnp.bfloat16


def test_jax_arrays_move_to_the_device_that_is_asked_for():
    program = (
        "import jax; from feedline.delivery import deliverer\n"
        "last = jax.devices()[-1]\n"
        "[placed] = deliverer(pin_memory=False, device=last)([jax.numpy.ones(2)])\n"
        "assert placed.devices() == {last} != {jax.devices()[0]}"
    )
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool, torch.bfloat16, torch.complex64])
def test_torch_tensors_reach_a_jax_device_with_their_dtype(dtype):
    source = torch.tensor([0, 1]).to(dtype)
    (placed,) = on_jax([source])
    assert isinstance(placed, jax.Array)
    assert placed.dtype == {torch.int64: "int32"}.get(dtype, str(dtype).removeprefix("torch."))
    source[:] = 0
    assert placed.tolist() == [0, 1]


def test_tensors_with_a_gradient_reach_a_jax_device():
    assert on_jax(torch.ones(2, requires_grad=True)).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("numbers", "dtype", "lost"),
    [
        (np.array([1, 2**40]), "int32 of int64", "1099511627776"),
        (np.array([-(2**31) - 1]), "int32 of int64", "-2147483649"),
        (np.array([1, 2**32], np.uint64), "uint32 of uint64", "4294967296"),
        (np.array([1, 2**40], ">i8"), "int32 of >i8", "1099511627776"),
        (np.array(2**40), "int32 of int64", "1099511627776"),
        (np.array([1e300, 0]), "float32 of float64", "1e"),
        (np.array([0, 1e300j]), "complex64 of complex128", "1e"),
        (torch.tensor([2**40]), "int32 of int64", "1099511627776"),
    ],
)
def test_a_number_that_jax_would_wrap_is_refused(numbers, dtype, lost):
    with pytest.raises(ValueError, match=rf"JAX makes {dtype}, which does not hold .*{lost}.*; turn on jax_enable_x64"):
        on_jax({"x": numbers})


@pytest.mark.parametrize(
    "numbers",
    [np.array([2**31 - 1, -(2**31)]), np.array([2**32 - 1], np.uint64), np.array([0.1, np.inf, np.nan]), np.array([])],
)
def test_numbers_that_fit_are_what_jax_makes_of_them(numbers):
    placed = on_jax(numbers)
    expected = jnp.asarray(numbers)
    assert placed.dtype == expected.dtype
    np.testing.assert_array_equal(placed, expected)


@pytest.mark.parametrize("device", ["cpu", jax.devices("cpu")[0]], ids=["torch", "jax"])
def test_a_mask_is_not_lost_on_the_way(device):
    batch = {"x": np.ma.array([1, 2], mask=[True, False])}
    with pytest.raises(TypeError, match="a batch for a device must be without masks, got a masked array; fill it"):
        deliverer(pin_memory=False, device=device)(batch)


@pytest.mark.parametrize("device", ["no such", 3.5, [], object()])
def test_a_device_that_is_none_is_named(device):
    with pytest.raises(TypeError, match="device must be a torch device, its name, or a JAX device, got"):
        DataLoader([1], device=device)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is an accelerator")
@pytest.mark.parametrize("kind", ["", "cuda"])
def test_without_an_accelerator_pinning_warns_and_changes_nothing(kind):
    with pytest.warns(UserWarning, match="pin_memory=True has no effect: no accelerator"):
        assert deliverer(pin_memory=True, pin_memory_device=kind) is None


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="there is no accelerator")
def test_pinned_batches_are_page_locked():
    batch = deliverer(pin_memory=True)(BATCH)
    assert batch["x"].is_pinned()
    assert batch["y"][0].is_pinned()


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is an accelerator")
def test_the_warning_points_at_the_users_line():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        DataLoader([1], pin_memory=True)
    assert [warning.filename for warning in caught] == [__file__]


def test_without_torch_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"device='cpu' needs torch, which is not installed.*feedline\[torch\]"):
        deliverer(pin_memory=False, device="cpu")


def test_without_torch_pinning_is_pointless_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.warns(UserWarning, match="pin_memory=True has no effect: torch is not installed"):
        assert deliverer(pin_memory=True) is None


def test_numpy_batches_on_a_torch_device_may_be_written():
    (batch,) = DataLoader(np.arange(4.0), batch_size=4, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch += 1
    assert batch.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("dtype", ["u2", "u4", ">f4", "c16", "f2", "?"])
def test_every_number_of_numpy_reaches_a_torch_device(dtype):
    (batch,) = DataLoader(np.arange(2).astype(dtype), batch_size=2, device="cpu")
    assert isinstance(batch, torch.Tensor)
    assert batch.tolist() == [0, 1]


def test_single_read_only_samples_reach_a_torch_device_without_a_warning():
    array = np.arange(4.0).reshape(2, 2)
    array.flags.writeable = False
    assert [x.tolist() for x in DataLoader(array, batch_size=None, device="cpu")] == [[0, 1], [2, 3]]


def test_single_samples_of_any_layout_reach_a_torch_device():
    array = np.arange(4.0).reshape(2, 2)
    assert [x.tolist() for x in DataLoader(array[:, ::-1], batch_size=None, device="cpu")] == [[1, 0], [3, 2]]
    assert [x.tolist() for x in DataLoader(array.astype(">f4"), batch_size=None, device="cpu")] == [[0, 1], [2, 3]]


def test_what_a_device_gets_is_not_the_datasets_own_memory():
    array = np.zeros((2, 2))
    for sample in DataLoader(array, batch_size=None, device="cpu"):
        sample.add_(1)
    assert not array.any()
