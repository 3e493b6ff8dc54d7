"""What a shipment holds, what comes out of it, and when it is still right."""

import functools
import multiprocessing
import os
import pickle
import resource
import sys
import threading
import tracemalloc
import weakref
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from feedline import StackDataset, Subset, TensorDataset
from feedline.datasets import MapDataset
from feedline.engine.processes.shipping import Shipment, ship, unpack
from feedline.errors import CannotShip
from feedline.sharing import Block, block_of

LARGE = 64 * 1024


def _private(block):
    return Block.attach(block.nbytes, descriptor=os.dup(block.descriptor), private=True)


def _unpacked(shipment):
    descriptors = [os.dup(descriptor) for descriptor in shipment.descriptors]
    return unpack(shipment.payload, [_private(block) for block in shipment.blocks], shipment.spans, descriptors)


def _carried(value):
    shipment = ship(value)
    try:
        assert shipment.matches(value)
        return _unpacked(shipment)
    finally:
        shipment.close()


class Thing:
    """An object of a user's."""

    def __init__(self, **attributes):
        vars(self).update(attributes)


# --- arrays


def test_large_arrays_lie_in_one_aligned_block_and_small_ones_in_the_payload():
    value = [np.arange(20_000), np.ones((300, 300)), np.arange(1_000), np.zeros(70_000, "u1")]
    shipment = ship(value)
    assert len(shipment.blocks) == 1
    assert [span[2] for span in shipment.spans] == [160_000, 720_000, 70_000]
    assert all(span[1] % 64 == 0 for span in shipment.spans)
    for array, got in zip(value, _unpacked(shipment), strict=True):
        np.testing.assert_array_equal(got, array)
    shipment.close()


def test_arrays_lie_in_the_private_mapping_which_lives_as_long_as_they_do():
    shipment = ship(np.arange(20_000))
    block = _private(shipment.blocks[0])
    alive = weakref.finalize(block, lambda: None)
    array = unpack(shipment.payload, [block], shipment.spans, ())
    assert block_of(array) is block
    del block
    part = array[5:10]
    del array
    assert alive.alive
    part[0] = 77
    assert part.tolist() == [77, 6, 7, 8, 9]
    assert _unpacked(shipment)[5] == 5
    del part
    assert not alive.alive
    shipment.close()


layouts = st.sampled_from([
    lambda a: a, lambda a: a.T, lambda a: a[::-1], lambda a: a[:, ::3], lambda a: a[3:], lambda a: a[:, 5:].T,
    np.asfortranarray, lambda a: np.broadcast_to(a[:1], a.shape), lambda a: a[::-2, ::-1],
])  # fmt: skip


@given(
    dtype=npst.scalar_dtypes() | st.just(np.dtype([("a", "i1"), ("b", ">f8")])),
    layout=layouts,
    is_writable=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_any_array_arrives_as_it_was(dtype, layout, is_writable, seed):
    if not dtype.itemsize:
        dtype = np.dtype("U3")
    raw = np.random.default_rng(seed).integers(0, 127, (300, 256, dtype.itemsize), np.uint8)
    array = layout(raw.view(dtype)[..., 0] if dtype.kind != "U" else np.full((300, 256), "né", dtype))
    if not is_writable:
        array = array.view()
        array.flags.writeable = False
    got = _carried(array)
    assert (got.dtype, got.shape) == (array.dtype, array.shape)
    if array.nbytes >= LARGE:  # NumPy itself forgets it of small ones that are not contiguous
        assert got.flags.writeable == array.flags.writeable
    assert got.tobytes() == array.tobytes()


def test_arrays_that_share_memory_share_it_in_the_worker():
    whole = np.arange(100_000)
    first, second, third, copy = _carried([whole[:60_000], whole[50_000:], whole[::-1], whole.copy()])
    first[55_000] = -1
    assert (second[5_000], third[44_999], copy[55_000]) == (-1, -1, 55_000)
    assert third.strides == (-8,)


def test_an_array_repeated_by_broadcasting_is_sent_once():
    shipment = ship(np.broadcast_to(np.arange(10.0), (1_000_000, 10)))
    assert sum(block.nbytes for block in shipment.blocks) <= 4096
    assert _unpacked(shipment).shape == (1_000_000, 10)
    shipment.close()


def test_a_view_does_not_bring_the_array_that_it_was_cut_from():
    shipment = ship([np.zeros((1000, 10_000))[:, :10], np.zeros((100, 100_000))[:, 5]])
    assert sum(block.nbytes for block in shipment.blocks) < 100_000
    assert len(shipment.payload) < 2000
    shipment.close()


def test_arrays_in_a_block_are_sent_as_references_to_it():
    block = Block.create(1_000_000)
    array = np.asarray(block)[64:].view(np.float64)[:100_000]
    array[:] = 5
    value = [array, array[::2], np.ones(10_000)]
    shipment = ship(value)
    assert block in shipment.blocks
    assert len(shipment.blocks) == 2
    assert sum(each.nbytes for each in shipment.blocks if each is not block) == 81_920
    assert shipment.matches(value)
    for got, expected in zip(_unpacked(shipment), value, strict=True):
        np.testing.assert_array_equal(got, expected)
    shipment.close()
    assert os.fstat(block.descriptor)  # it is not the shipment's
    assert not shipment.matches([array.copy(), array[::2], value[2]])


def test_arrays_in_a_block_that_cannot_be_sent_are_copied():
    block = Block.create(100_000)
    np.asarray(block)[:] = 3
    block.close_descriptor()
    shipment = ship(np.asarray(block))
    assert block not in shipment.blocks
    assert _unpacked(shipment)[99] == 3
    shipment.close()


def test_large_pickles_lie_in_the_block_too():
    words, array = [f"word {number}" for number in range(20_000)], np.arange(50_000)
    shipment = ship([words, array])
    assert shipment.payload == b""
    assert len(shipment.blocks) == 1
    assert len(shipment.spans) == 2
    got = _unpacked(shipment)
    assert got[0] == words
    assert got[1][49_999] == 49_999
    assert shipment.matches([words, array])
    words[19_999] = "changed"
    assert not shipment.matches([words, array])
    shipment.close()


def test_large_buffers_of_other_packages_lie_in_the_block():
    class Column:
        def __init__(self, data):
            self.data = data

        def __reduce_ex__(self, protocol):
            return bytearray, (pickle.PickleBuffer(self.data),)

    data = np.random.default_rng(0).integers(0, 255, 100_000, np.uint8)
    column, few = Column(data), Column(data[:10])
    shipment = ship([column, few])
    assert [span[2] for span in shipment.spans] == [100_000]
    assert _unpacked(shipment) == [data.tobytes(), data[:10].tobytes()]
    assert shipment.matches([column, few])
    data[50] += 1
    assert not shipment.matches([column, few])
    shipment.close()


def test_object_arrays_travel_with_what_they_hold():
    array = np.array([np.arange(20_000), "text", None], dtype=object)
    first, *rest = _carried(array)
    assert first[19_999] == 19_999
    assert rest == ["text", None]


# --- torch


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def test_tensors_arrive_as_they_were(torch):
    base = torch.arange(60_000)
    tensors = [
        base.float(), base.to(torch.bfloat16), base.to(torch.float8_e4m3fn), base.to(torch.complex64), base > 7,
        base.view(200, 300).t(), base[7:], base[::2], torch.zeros(1).expand(50_000),
        torch.nn.Parameter(torch.ones(150, 150)), torch.nn.Parameter(torch.ones(150, 150), requires_grad=False),
        torch.ones(3, 4).t(), torch.tensor(3.5), torch.empty(0, 3), torch.ones(2, requires_grad=True),
        torch.ones(5).to(torch.bfloat16), torch.complex(torch.ones(2), torch.ones(2)).conj(),
    ]  # fmt: skip
    shipment = ship(tensors)
    assert shipment.matches(tensors)
    for tensor, got in zip(tensors, _unpacked(shipment), strict=True):
        assert (type(got), got.dtype, got.requires_grad) == (type(tensor), tensor.dtype, tensor.requires_grad)
        assert got.shape == tensor.shape
        assert torch.equal(got.to(torch.complex64), tensor.to(torch.complex64))
    assert len(shipment.blocks) == 1
    shipment.close()


def test_tensors_that_share_memory_share_it_in_the_worker_and_keep_their_attributes(torch):
    base = torch.arange(60_000)
    base.label = "a"
    got, turned = _carried([base, base.view(200, 300).t()])
    got[1] = 9
    assert turned[1, 0] == 9
    assert turned.stride() == (1, 300)
    assert got.label == "a"


def test_a_view_of_a_tensor_does_not_bring_its_storage(torch):
    assert len(ship(torch.zeros(1_000_000)[5:10]).payload) < 1000


def test_tensors_changed_in_place_no_longer_match_and_others_do(torch):
    tensor = torch.zeros(200, 200)
    value = Thing(weight=tensor)
    shipment = ship(value)
    assert shipment.matches(value)
    tensor[3, 3] = 0  # the same again: its version changed, but no byte
    assert shipment.matches(value)
    tensor[3, 3] = float("nan")
    assert not shipment.matches(value)
    shipment.close()
    with torch.inference_mode():
        untracked = torch.zeros(200, 200)
    shipment = ship(untracked)
    assert shipment.matches(untracked)
    shipment.close()


# --- staleness


def _nothing(sample):
    return sample


def _local_class():
    class Local(Thing):
        size = 3

        def method(self):
            return super().__repr__(), self.size

    return Local


class Cached:
    @functools.cached_property
    def table(self):
        return {"b": 1, "a": 2}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Thing(names={"x", "yy", "zzz"}, table={1: "a", "k": (2.5, None)}, fn=lambda x: x + 1),
        lambda: functools.partial(_nothing, key=Thing),
        lambda: MapDataset([1, 2], lambda x, k=frozenset("abc"): x),
        lambda: [Thing.__init__, np.float32, np.dtype("f4"), np.random.default_rng(0)],
        lambda: _local_class()(x="x" * 3),
        lambda: StackDataset(a=TensorDataset(np.zeros(5)), b=[1, 2, 3, 4, 5]),
        lambda: [float("nan"), "a" + str(5), "a5", b"", ()],
        lambda: (Cached(), Cached().table),
    ],
)
def test_an_unchanged_value_matches_however_often_it_is_asked(make):
    value = make()
    shipment = ship(value)
    assert all(shipment.matches(value) for _ in range(3))
    cloudpickle.dumps(value)
    assert shipment.matches(value)
    shipment.close()


def test_what_was_replaced_no_longer_matches():
    large = np.zeros(20_000)
    value = Thing(size=100, fn=lambda x: x, large=large, table={"a": [1]}, large2=large[:10_000])
    shipment = ship(value)
    changes = [
        lambda: setattr(value, "size", 160),
        lambda: setattr(value, "fn", lambda x: x + 1),
        lambda: value.table["a"].append(2),
        lambda: setattr(value, "large", np.ones(20_000)),
        lambda: setattr(value, "large", np.zeros(20_001)),
        lambda: setattr(value, "extra", 1),
        lambda: setattr(value, "extra", threading.Lock()),
    ]
    for change in changes:
        before = dict(vars(value), table={"a": [1]})
        change()
        assert not shipment.matches(value)
        vars(value).clear()
        vars(value).update(before)
        assert shipment.matches(value)
    shipment.close()


def test_arrays_of_a_users_object_are_compared_by_identity_and_else_by_content():
    value = Thing(large=np.zeros(20_000))
    shipment = ship(value)
    value.large[5] = 1  # in place, inside a user's object: only a refresh finds it
    assert shipment.matches(value)
    value.large = np.zeros(20_000)
    assert shipment.matches(value)  # another array, of the bytes that were shipped
    value.large[5] = 1
    assert not shipment.matches(value)
    shipment.close()


def test_arrays_that_are_made_for_each_pickle_match_by_content():
    class Table:
        def __init__(self):
            self.columns = np.arange(30_000.0)

        def __getstate__(self):
            return {"columns": self.columns * 2, "view": self.columns[1:]}

    table = Table()
    shipment = ship(table)
    assert shipment.matches(table)
    table.columns = table.columns + 1
    assert not shipment.matches(table)
    shipment.close()


@pytest.mark.parametrize("fill", [0.0, float("nan")])
@pytest.mark.parametrize(
    "make",
    [
        lambda array: array,
        TensorDataset,
        lambda array: ("recipe", array),
        lambda array: Subset(TensorDataset(np.zeros(300), array), [1, 2]),
        lambda array: Subset(Subset(array, np.arange(10)), [0]),
        lambda array: StackDataset(array, array),
        lambda array: TensorDataset(array.T),
        lambda array: TensorDataset(array[:, 3:]),
        lambda array: TensorDataset(array[:, ::2]),
        lambda array: [TensorDataset(array)],
    ],
)
def test_changes_in_place_are_found_in_array_datasets(make, fill):
    array = np.full((300, 300), fill)
    value = make(array)
    shipment = ship(value)
    assert shipment.matches(value)
    array[299, 298] = 7
    assert not shipment.matches(value)
    array[299, 298] = fill
    assert shipment.matches(value)
    shipment.close()


def test_changes_in_place_are_found_in_tensors_of_array_datasets(torch):
    array = np.zeros((300, 300))
    dataset = TensorDataset(torch.from_numpy(array))
    shipment = ship(dataset)
    assert shipment.matches(dataset)
    array[0, 0] = 1  # behind torch's back
    assert not shipment.matches(dataset)
    shipment.close()


def test_matching_makes_no_copy_and_leaves_nothing():
    dataset = TensorDataset(np.zeros(4_000_000))
    shipment = ship(dataset)
    tracemalloc.start()
    assert shipment.matches(dataset)
    assert tracemalloc.get_traced_memory()[1] < 8_000_000
    tracemalloc.stop()
    shipment.close()


def test_shipping_makes_one_copy():
    value = [np.zeros((2_000, 1_000)), np.zeros((1_000, 4_000))[:, ::2], np.zeros((2_000, 1_000)).T]
    tracemalloc.start()
    shipment = ship(value)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
    assert sum(block.nbytes for block in shipment.blocks) < 48_100_000
    shipment.close()


def test_nothing_but_the_shipment_holds_on_to_the_value():
    thing = Thing(large=np.zeros(20_000))
    shipment = ship(thing)
    shipment.matches(thing)
    alive = weakref.ref(thing), weakref.ref(thing.large)
    del thing
    assert [each() for each in alive] == [None, None]
    shipment.close()


# --- ownership and faults


def test_a_closed_shipment_has_no_descriptors_and_may_be_closed_again():
    reader, writer = multiprocessing.Pipe()
    with reader, writer:
        shipment = ship([np.zeros(20_000), reader])
        (descriptor,) = shipment.descriptors
        assert os.fstat(descriptor).st_ino == os.fstat(reader.fileno()).st_ino
        assert shipment.matches
        shipment.close()
        shipment.close()
        with pytest.raises(OSError):
            os.fstat(descriptor)
        with pytest.raises(ValueError, match="has no descriptor"):
            _ = shipment.blocks[0].descriptor
        assert os.fstat(reader.fileno())
    assert isinstance(shipment, Shipment)


def test_descriptors_that_nobody_takes_are_closed():
    payload = ship([1]).payload
    reader, writer = os.pipe()
    assert unpack(payload, (), (), [reader, writer]) == [1]
    with pytest.raises(OSError):
        os.fstat(reader)
    reader, writer = os.pipe()
    with pytest.raises(pickle.UnpicklingError, match="invalid load key"):
        unpack(b"no pickle", (), (), [reader, writer])
    with pytest.raises(OSError):
        os.fstat(writer)


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted there")
def test_running_out_of_descriptors_is_an_os_error_and_leaves_none_open():
    reader, writer = multiprocessing.Pipe()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with reader, writer:
        before = sorted(Path("/proc/self/fd").iterdir())
        probe = os.dup(0)
        os.close(probe)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (probe, hard))
            with pytest.raises(OSError):
                ship(np.zeros(20_000))
            with pytest.raises(OSError):
                ship([reader, writer])
            resource.setrlimit(resource.RLIMIT_NOFILE, (probe + 1, hard))
            with pytest.raises(OSError):
                ship([reader, writer])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_what_is_too_deep_or_fails_for_no_part_is_refused_as_a_whole():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(CannotShip, match="dataset cannot be sent to a worker process: PicklingError: Could not pickle"):
        ship(deep)
    while deep:
        deep = deep.pop()
