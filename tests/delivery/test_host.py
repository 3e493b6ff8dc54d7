"""Laws of delivery: untouched unless asked; copies on a device are the receiver's own."""

import sys
import warnings

import jax
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


def test_a_jax_device_gets_copies():
    device = jax.devices("cpu")[0]
    source = np.arange(4096.0, dtype=np.float32)
    placed = deliverer(pin_memory=False, device=device)([source])[0]
    assert isinstance(placed, jax.Array)
    source[:] = 0
    assert float(placed[-1]) == 4095


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


@pytest.mark.parametrize(
    ("how", "purpose"), [({"pin_memory": True}, "pin_memory=True"), ({"device": "cpu"}, "device='cpu'")]
)
def test_without_torch_the_error_names_the_extra(monkeypatch, how, purpose):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=rf"{purpose} needs torch, which is not installed.*feedline\[torch\]"):
        deliverer(**{"pin_memory": False, **how})


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
