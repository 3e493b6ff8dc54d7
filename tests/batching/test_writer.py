"""Laws of the batch written sample by sample."""

import tracemalloc
import weakref

import numpy as np
import pytest

from feedline.batching import BatchWriter
from feedline.errors import CollateError


def written(samples, size=None, **options):
    writer = BatchWriter(size or len(samples), **options)
    for sample in samples:
        writer.add(sample)
    return writer.finish()


def test_a_batch_costs_its_own_memory_and_about_one_sample():
    count, shape = 128, (3, 224, 224)
    sample_nbytes = 4 * 3 * 224 * 224
    batch_nbytes = count * sample_nbytes
    assert batch_nbytes == 77_070_336
    writer = BatchWriter(count)
    tracemalloc.start()
    try:
        for sample in (np.full(shape, i, dtype=np.float32) for i in range(count)):
            writer.add(sample)
        batch = writer.finish()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert batch.nbytes == batch_nbytes
    assert batch_nbytes < peak < batch_nbytes + 2.5 * sample_nbytes  # one kept by the loop, one being made
    assert (batch[:, 0, 0, 0] == np.arange(count)).all()


def test_extend_keeps_no_sample_alive_while_the_next_is_made():
    alive = []

    def samples():
        for number in range(4):
            assert [sample() for sample in alive] == [None] * number
            sample = np.full(3, number)
            alive.append(weakref.ref(sample))
            yield_it = [sample]
            del sample
            yield yield_it.pop()

    writer = BatchWriter(4)
    writer.extend(samples())
    assert len(alive) == 4
    assert writer.finish()[:, 0].tolist() == [0, 1, 2, 3]


def test_a_sample_is_written_at_once_and_not_kept():
    memory = []

    def allocate(shape, dtype):
        memory.append(np.zeros(shape, dtype))
        return memory[-1]

    writer = BatchWriter(3, allocate=allocate)
    sample = np.array([1, 2])
    writer.add({"x": sample, "y": 5})
    sample[:] = 0
    assert [array.tolist() for array in memory] == [[[1, 2], [0, 0], [0, 0]], [5, 0, 0]]
    writer.add({"x": sample, "y": 6})
    batch = writer.finish()
    assert batch["x"].base is memory[0]
    assert batch["x"].tolist() == [[1, 2], [0, 0]]
    assert batch["y"].tolist() == [5, 6]


def test_a_full_batch_is_the_allocated_memory_itself():
    memory = np.zeros((2, 3), dtype=np.float32)
    assert written([np.ones(3, dtype=np.float32)] * 2, allocate=lambda shape, dtype: memory) is memory


def test_wider_dtypes_ask_for_memory_again():
    asked = []

    def allocate(shape, dtype):
        asked.append((shape, dtype))
        return np.empty(shape, dtype)

    batch = written([np.int8(1), np.int16(300), np.float32(0.5)], size=4, allocate=allocate)
    assert asked == [((4,), np.int8), ((4,), np.int16), ((4,), np.float32)]
    assert batch.tolist() == [1, 300, 0.5]


def test_the_writer_counts_its_samples():
    writer = BatchWriter(2)
    assert len(writer) == 0
    writer.add(1)
    assert len(writer) == 1


def test_a_batch_never_grows_beyond_its_size():
    writer = BatchWriter(np.int64(1))
    writer.add(1)
    with pytest.raises(ValueError, match="a batch of 1 takes no more samples once it is full or finished"):
        writer.add(2)
    assert writer.finish().tolist() == [1]


def test_a_batch_is_handed_out_once():
    writer = BatchWriter(2)
    writer.add(1)
    writer.finish()
    with pytest.raises(ValueError, match="once it is full or finished"):
        writer.add(2)
    with pytest.raises(ValueError, match="cannot collate an empty batch"):
        writer.finish()


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="cannot collate an empty batch"):
        BatchWriter(3).finish()


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "2", None])
def test_a_size_that_is_no_positive_integer_is_refused(size):
    with pytest.raises(ValueError, match=f"size must be a positive integer, got {size!r}"):
        BatchWriter(size)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ((np.zeros(3), "b", 2), r"sample\[0\]: shapes"),
        ((np.zeros(2), 7, 2), r"sample\[1\]: str at index 0 and int at index 1"),
        ((np.zeros(2), "b", None), r"sample\[2\]: number of int64 at index 0 and NoneType at index 1"),
        ((np.zeros(2), "b"), "sample: 3 elements at index 0 and 2 at index 1"),
        (None, "sample: tuple at index 0 and NoneType at index 1"),
    ],
)
def test_a_refused_sample_leaves_the_batch_as_it_was(bad, message):
    good = [(np.full(2, i), chr(97 + i), i) for i in range(3)]
    writer = BatchWriter(3)
    writer.add(good[0])
    with pytest.raises(CollateError, match=message):
        writer.add(bad)
    assert len(writer) == 1
    writer.add(good[1])
    writer.add(good[2])
    x, name, y = writer.finish()
    assert x.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert name == ["a", "b", "c"]
    assert y.tolist() == [0, 1, 2]


def test_a_refused_first_sample_teaches_nothing():
    writer = BatchWriter(1)
    with pytest.raises(TypeError, match="NoneType"):
        writer.add((1, None))
    writer.add("text")
    assert writer.finish() == ["text"]
