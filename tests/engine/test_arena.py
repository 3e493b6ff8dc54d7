"""Laws of the arena: memory is used again, and never while anybody sees it."""

import gc
import itertools
import sys
import threading
import weakref

import jax
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from feedline import DataLoader, TensorDataset
from feedline.engine.arena import Arena

SHAPE = (64, 32, 32, 3)


def address(array):
    return array.__array_interface__["data"][0]


def spans(arrays):
    return sorted((address(array), address(array) + array.nbytes) for array in arrays)


VIEWS = {
    "slice": lambda array: array[1:],
    "slice of a slice": lambda array: array[1:][2:],
    "other dtype": lambda array: array.view(np.int8),
    "reshaped": lambda array: array.reshape(-1),
    "one row": lambda array: array[3],
    "memoryview": memoryview,
    "torch": torch.from_numpy,
    "torch slice": lambda array: torch.from_numpy(array)[2:, 1],
    "dlpack": torch.from_dlpack,
    "jax": jax.device_put,
    "asarray": lambda array: np.asarray(array[:2]),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_memory_is_not_used_again_while_a_view_of_it_lives(view):
    arena = Arena()
    array = arena.empty(SHAPE, np.uint8)
    array[:] = 7
    place, held = address(array), view(array)
    del array
    gc.collect()
    others = [arena.empty(SHAPE, np.uint8) for _ in range(3)]
    for other in others:
        other[:] = 0
    assert all(place != address(other) for other in others)
    assert (np.asarray(held).view(np.uint8) == 7).all()
    places = {place, *map(address, others)}
    del held, other
    others.clear()
    gc.collect()
    again = [arena.empty(SHAPE, np.uint8) for _ in range(4)]
    assert {address(array) for array in again} == places
    assert arena.nbytes <= 5 * np.prod(SHAPE)


def test_a_saved_tensor_of_autograd_holds_its_memory():
    arena = Arena()
    array = arena.empty((64, 512), np.float32)
    array[:] = 2
    weight = torch.ones(512, requires_grad=True)
    loss = (torch.from_numpy(array) * weight).sum()
    del array
    other = arena.empty((64, 512), np.float32)
    other[:] = 0
    loss.backward()
    assert (weight.grad == 128).all()


def test_memory_that_nobody_sees_is_used_again():
    arena = Arena()
    places = set()
    for _ in range(50):
        array = arena.empty(SHAPE, np.uint8)
        places.add(address(array))
        del array
    assert len(places) == 1
    assert arena.nbytes == np.prod(SHAPE)


def test_a_slot_is_used_for_no_less_than_half_of_it():
    arena, size = Arena(), 1 << 18
    large = arena.empty((4 * size,), np.uint8)
    place = address(large)
    del large
    half = arena.empty((2 * size,), np.uint8)
    assert address(half) == place
    del half
    less = arena.empty((2 * size - 1,), np.uint8)
    assert address(less) != place
    assert arena.nbytes == 6 * size - 1


def test_what_is_kept_free_does_not_grow_with_the_number_of_sizes():
    arena, largest = Arena(), 1 << 20
    arrays = [arena.empty((largest - 1000 * number,), np.uint8) for number in range(40)]
    del arrays
    assert arena.nbytes <= 4 * largest
    for number in range(40):
        arena.empty((int(largest / 1.1**number) + (1 << 16),), np.uint8)
        assert arena.nbytes <= 5 * largest


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 5)), max_size=60))
def test_arrays_alive_at_one_time_never_overlap(steps):
    arena, alive = Arena(), []
    for number, (rows, drop) in enumerate(steps):
        array = arena.empty((rows, 8192), np.uint8)
        array[:] = number
        alive.append((number, array))
        del array
        for _ in range(min(drop, len(alive) - 1)):
            alive.pop(0)
        edges = spans(array for _, array in alive)
        assert all(stop <= start for (_, stop), (start, _) in itertools.pairwise(edges))
        assert all((array == number).all() for number, array in alive)


@pytest.mark.parametrize("dtype", ["u1", "i8", "f4", "c16", "?", ">f4"])
def test_arrays_are_what_empty_gives_and_aligned(dtype):
    array = Arena().empty((100, 1000), np.dtype(dtype))
    assert array.shape == (100, 1000)
    assert array.dtype == np.dtype(dtype)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert address(array) % 64 == 0
    array[:] = 1
    assert (array == 1).all()


def test_small_arrays_and_other_dtypes_are_numpys_own():
    for array in (Arena().empty((3,), np.uint8), Arena().empty((50_000,), "U4"), Arena().empty((50_000,), object)):
        assert array.base is None


def test_batches_outlive_the_arena():
    arena = Arena()
    array = arena.empty(SHAPE, np.uint8)
    array[:] = 5
    gone = weakref.ref(arena)
    arena.close()
    del arena
    assert gone() is None
    Arena().empty(SHAPE, np.uint8)[:] = 0
    assert (array == 5).all()


def test_closing_gives_free_memory_back():
    arena = Arena()
    array = arena.empty(SHAPE, np.uint8)
    assert arena.nbytes == array.nbytes
    del array
    arena.close()
    assert arena.nbytes == 0


def test_views_may_die_in_other_threads():
    arena = Arena()
    for _ in range(20):
        arrays = [arena.empty(SHAPE, np.uint8) for _ in range(4)]
        threads = [threading.Thread(target=arrays.pop) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert arena.nbytes <= 5 * np.prod(SHAPE)


def test_threads_that_share_an_arena_never_share_memory():
    arena, barrier, wrong = Arena(), threading.Barrier(8, timeout=30), []

    def work(number):
        kept = []
        barrier.wait()
        try:
            for step in range(200):
                array = arena.empty(((1 << 16) + step % 3,), np.uint8)
                array[:] = (31 * number + step) % 251
                kept.append((array, (31 * number + step) % 251))
                del array
                if len(kept) > 3:
                    old, value = kept.pop(step % 3)
                    wrong.extend([number] * (not (old == value).all()))
                    del old
        except BaseException as error:  # noqa: BLE001 -- whatever it is, the test is to see it
            wrong.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong
    assert arena.nbytes <= 4 * ((1 << 16) + 2)


def test_a_closed_loader_holds_no_memory():
    loader = DataLoader(TensorDataset(np.zeros((64, 8192), np.uint8)), batch_size=16)
    for _ in loader:
        pass
    del _
    assert loader._arena.nbytes > 0
    loader.close()
    assert loader._arena.nbytes == 0


def test_a_loader_uses_memory_again_and_keeps_kept_batches_correct():
    x = np.random.default_rng(0).integers(0, 255, (4096, 32, 32), dtype=np.uint8)
    loader = DataLoader(TensorDataset(x, np.arange(4096)), batch_size=256, seed=1, shuffle=True)
    places = {address(images) for images, _ in loader}
    assert len(places) == 2  # the batch in the loop's hands, and the one being made
    kept = list(loader)
    assert all((images == x[numbers]).all() for images, numbers in kept)
    loader.close()
    assert all((images == x[numbers]).all() for images, numbers in kept)
    assert {address(images) for images, _ in loader}.isdisjoint({address(images) for images, _ in kept})


def test_samples_one_by_one_are_written_into_memory_of_the_arena():
    rows = [np.full((64, 64), number, np.float32) for number in range(64)]
    loader = DataLoader(rows, batch_size=8)
    seen = [(address(batch), batch[:, 0, 0].tolist()) for batch in loader]
    assert [numbers for _, numbers in seen] == [list(range(at, at + 8)) for at in range(0, 64, 8)]
    assert len({place for place, _ in seen}) == 2


def test_arrays_that_change_between_batches_are_taken_as_they_are():
    dataset = TensorDataset(np.ones((8, 40_000), np.uint8))
    iterator = iter(DataLoader(dataset, batch_size=4))
    assert next(iterator)[0].dtype == np.uint8
    dataset.tensors = (np.full((8, 30_000), 0.5, np.float32),)
    batch = next(iterator)[0]
    assert (batch.dtype, batch.shape) == (np.float32, (4, 30_000))
    assert (batch == 0.5).all()
