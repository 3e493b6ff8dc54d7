from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import feedline
from feedline.datasets import PackedList, packed
from feedline.sharing import block_of

# Any str: lone surrogates, and pairs of them that UTF-16 would join, among them.
TEXT = st.text(st.characters(codec=None), max_size=6) | st.sampled_from(["\ud83d\ude00", "\udcff", "\x00", "é"])
OBJECT = st.none() | st.booleans() | st.integers() | st.tuples(st.integers(), TEXT) | TEXT | st.binary(max_size=6)
LISTS = st.lists(TEXT, max_size=20) | st.lists(st.binary(max_size=6), max_size=20) | st.lists(OBJECT, max_size=20)
BOUND = st.none() | st.integers(-25, 25)
SLICES = st.builds(slice, BOUND, BOUND, st.none() | st.integers(-4, 4).filter(bool))


def typed(items):
    return [(type(item), item) for item in items]


@given(LISTS, SLICES)
@example(["a", b"a"], slice(None))
def test_it_reads_as_the_list_does(items, part):
    packed_list = PackedList(iter(items))
    assert len(packed_list) == len(items)
    assert typed(packed_list) == typed(items)
    assert typed(packed_list[place] for place in range(-len(items), len(items))) == typed(items + items)
    assert typed(reversed(packed_list)) == typed(reversed(items))
    assert typed(packed_list[part]) == typed(items[part])
    assert packed_list[part] == items[part]
    places = list(range(-len(items), len(items), 2))
    assert packed_list.__getitems__(places) == [items[place] for place in places]


@given(LISTS, LISTS, OBJECT)
def test_it_compares_as_the_list_does(items, others, value):
    packed_list = PackedList(items)
    assert (packed_list == items, items == packed_list, packed_list == tuple(items)) == (True, True, True)
    assert (packed_list == others) == (items == others)
    assert (packed_list != PackedList(others)) == (items != others)
    assert (value in packed_list) == (value in items)
    for item in items:
        assert item in packed_list
        assert packed_list.index(item) == items.index(item)
        assert packed_list.count(item) == items.count(item)


@given(LISTS, SLICES)
def test_a_pickled_list_is_the_same_list(items, part):
    for packed_list in (PackedList(items), PackedList(items)[part]):
        again = pickle.loads(pickle.dumps(packed_list))
        assert typed(again) == typed(packed_list)
        assert typed(copy.deepcopy(packed_list)) == typed(packed_list)
        assert again.nbytes == packed_list.nbytes


def test_a_slice_is_equal_whatever_memory_it_lies_in():
    letters = PackedList("abcabc")
    assert letters[:3] == letters[3:] == PackedList("abc")
    assert letters[1:3] != letters[:2]
    assert letters[:0] == PackedList() == [] == letters[4:2]


@pytest.mark.parametrize(
    "items", [["a", b"a"], [b"a", 1], ["a"] * 200 + [1], [1] * 200 + ["a"], ["a"] * 9000 + [b"a"] * 9000]
)
def test_a_mixture_keeps_each_items_type(items):
    assert typed(PackedList(iter(items))) == typed(items)


class Name(str):
    __slots__ = ()


def test_a_subclass_of_str_stays_one():
    assert typed(PackedList([Name("a"), Name("b")])) == typed([Name("a"), Name("b")])


@pytest.mark.parametrize("array", [np.array(["ab", "c", ""]), np.array([b"ab", b"c"]), np.array([1.5, 2.5])])
def test_arrays_of_strings_give_pythons_strings(array):
    assert PackedList(array) == array.tolist()
    assert type(PackedList(array)[0]) in {str, bytes, np.float64}


def test_a_path_that_is_no_utf8_comes_back():
    path = os.fsdecode(b"/data/\xff\xfe.png")
    assert os.fsencode(PackedList([path])[0]) == b"/data/\xff\xfe.png"


@pytest.mark.parametrize("index", [3, -4, np.int64(3), 10**30])
def test_an_index_outside_is_an_indexerror(index):
    with pytest.raises(IndexError, match=f"^PackedList index out of range: {index} in a list of 3$"):
        PackedList("abc")[index]


@pytest.mark.parametrize("index", ["0", 0.0, None, (0,)])
def test_an_index_is_an_integer_or_a_slice(index):
    name = type(index).__name__
    with pytest.raises(TypeError, match=f"^PackedList indices must be integers or slices, not {name}$"):
        PackedList("abc")[index]


def test_numpys_integers_are_indices():
    assert [PackedList("abc")[place] for place in np.array([0, -1], np.int8)] == ["a", "c"]


def test_it_cannot_be_changed():
    letters = PackedList("abc" * 50_000)
    with pytest.raises(TypeError, match="does not support item assignment"):
        letters[0] = "b"
    with pytest.raises(TypeError, match="doesn't support item deletion"):
        del letters[0]
    with pytest.raises(AttributeError):
        letters.append("d")
    with pytest.raises(TypeError, match="unhashable"):
        hash(letters)
    with pytest.raises(ValueError, match="read-only"):
        letters._data[0] = 0


def test_it_is_a_sequence_that_threads_may_read():
    letters = PackedList("abc")
    assert isinstance(letters, Sequence)
    assert (letters.thread_safe, letters.uses_global_rng) == (True, False)
    assert letters != "abc"
    assert letters != {"a", "b", "c"}


def test_threads_read_what_is_there():
    numbers = PackedList(map(str, range(10_000)))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(numbers.__getitem__, range(10_000))) == list(numbers)


def test_its_repr_is_short():
    assert repr(PackedList("ab")) == "PackedList(['a', 'b'])"
    assert repr(PackedList(["a" * 100] * 1000)).endswith(", ...]; 1,000 items, 104,004 bytes)")
    assert len(repr(PackedList([b"a" * 100] * 1000))) < 250


def test_many_items_lie_in_one_block_that_slices_and_copies_share():
    paths = PackedList(f"{number:09}" for number in range(20_000))
    block = block_of(paths._data)
    assert block is not None
    assert block_of(paths._offsets) is block
    for shared in (paths[100:10_000], PackedList(paths)):
        assert np.shares_memory(shared._data, paths._data)
        assert np.shares_memory(shared._offsets, paths._offsets)
    _, (_, data, offsets) = paths.__reduce__()
    assert block_of(data) is block_of(offsets) is block


def test_few_items_take_no_descriptor():
    before = len(list(Path("/proc/self/fd").iterdir()))
    lists = [PackedList(["a", "b"]) for _ in range(100)]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert lists[99] == ["a", "b"]


def test_nbytes_are_the_items_bytes_and_their_offsets():
    assert PackedList(["ab", "é"]).nbytes == 4 + 3 * 4
    assert PackedList(["ab", "é"])[1:].nbytes == 2 + 2 * 4


def test_offsets_are_long_where_short_ones_do_not_reach(monkeypatch):
    monkeypatch.setattr(packed, "_SHORT_OFFSETS_BELOW", 100_000)
    short, long = PackedList(["ab"] * 49_999), PackedList(["ab"] * 50_000)
    assert (short._offsets.dtype, long._offsets.dtype) == (np.uint32, np.int64)
    assert long == ["ab"] * 50_000


def test_while_it_is_built_there_is_no_second_copy():
    paths = (f"/data/train/{number:060}.jpg" for number in range(100_000))
    gc.collect()
    tracemalloc.start()
    try:
        packed_list = PackedList(paths)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    block = block_of(packed_list._data)
    assert block.nbytes - packed_list.nbytes < 2 * 4096 + 8
    assert peak < packed_list.nbytes / 3, "the block itself is not Python's memory"


def test_large_items_are_not_gathered_by_the_thousand():
    items = (bytes(100_000) for _ in range(1000))
    tracemalloc.start()
    try:
        PackedList(items)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


def test_a_failing_iterable_leaves_nothing():
    def items():
        yield from map(str, range(100_000))
        raise OSError("the list of files broke off")

    with pytest.raises(OSError, match="broke off"):
        PackedList(items())


def test_where_memory_is_made_under_a_name_the_list_is_the_same_and_the_name_is_gone():
    code = (
        "import os, pathlib\n"
        "from feedline import sharing, PackedList\n"
        "sharing.ANONYMOUS = False\n"
        "items = [str(number) for number in range(50_000)]\n"
        "packed = PackedList(items)\n"
        "assert packed == items\n"
        "descriptor = sharing.block_of(packed._data).descriptor\n"
        "link = pathlib.Path(f'/proc/self/fd/{descriptor}')\n"
        "assert not link.parent.exists() or os.readlink(link).endswith(' (deleted)')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_read_takes_less_than_a_microsecond_and_building_less_than_one_an_item():
    paths = [f"/data/imagenet/train/n{number:08}.JPEG" for number in range(100_000)]
    packed_list = PackedList(paths)

    def seconds(function):
        begin = time.process_time()
        function()
        return time.process_time() - begin

    assert min(seconds(lambda: PackedList(paths)) for _ in range(3)) < 0.075
    assert min(seconds(lambda: [packed_list[place] for place in range(100_000)]) for _ in range(3)) < 0.1
    assert min(seconds(lambda: list(packed_list)) for _ in range(3)) < 0.05


def test_it_is_a_dataset():
    lengths = feedline.DataLoader(PackedList(["a", "bb", "ccc"]), 2, collate_fn=lambda batch: [len(x) for x in batch])
    assert list(lengths) == [[1, 2], [3]]
