"""Laws of a pass of a user's own sampler: read once, when it is needed, and as an epoch of a loader reads it."""

import pickle
import random
import sys
from pathlib import Path
from threading import Barrier, Thread

import numpy as np
import pytest

from feedline import DataLoader
from feedline.order.listed_pass import ListedPass


class Own:
    """A user's sampler that draws from global generators."""

    told = None
    read = 0

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def set_epoch(self, epoch):
        self.told = epoch

    def __iter__(self):
        self.read += 1
        for place in range(self.length):
            yield (place + random.randrange(3) + int(np.random.randint(5))) % self.length


@pytest.mark.usefixtures("same_global_generators")
def test_it_is_read_once_at_the_first_take_as_an_epoch_of_a_loader_reads_it():
    sampler = Own(20)
    order = ListedPass(sampler, 20, 7, 3)
    assert (sampler.told, sampler.read) == (None, 0)
    parts = [order.take(at, at + 5).tolist() for at in range(0, 20, 5)]
    assert (sampler.told, sampler.read) == (3, 1)
    loader = DataLoader(range(20), 5, sampler=Own(20), seed=7)
    loader.set_epoch(3)
    assert parts == [batch.tolist() for batch in loader]


def test_what_it_gives_is_not_for_writing():
    assert not ListedPass([2, 1], 2, 0, 0).take(0, 2).flags.writeable


def test_a_copy_holds_the_indices_and_not_the_sampler():
    sampler = Own(4)
    with Path(__file__).open(encoding="utf-8") as sampler.open:
        order = ListedPass(sampler, 4, 7, 3)
        assert pickle.loads(pickle.dumps(order)).take(0, 4).tolist() == order.take(0, 4).tolist()


def test_passes_of_one_sampler_that_threads_read_at_once_do_not_mix():
    barrier, found = Barrier(4), {}
    orders = {number: ListedPass(shared, 500, 7, number) for shared in [Own(500)] for number in range(4)}

    def read(number):
        barrier.wait()
        found[number] = orders[number].take(0, 500).tolist()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns in the midst of a pass
    try:
        threads = [Thread(target=read, args=(number,)) for number in orders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert found == {number: ListedPass(Own(500), 500, 7, number).take(0, 500).tolist() for number in range(4)}


def test_positions_outside_are_refused():
    with pytest.raises(IndexError, match="positions must satisfy"):
        ListedPass([2, 1], 2, 0, 0).take(0, 3)


@pytest.mark.parametrize(("items", "number"), [([1, 2, 3], "more than 2"), ([1], "1")])
def test_another_number_of_indices_is_refused(items, number):
    with pytest.raises(ValueError, match=f"as many indices in each pass, 2, got {number} of list in pass 5"):
        ListedPass(items, 2, 0, 5).take(0, 1)


@pytest.mark.parametrize("item", [1.0, "a", 1 << 63, None])
def test_what_is_no_index_is_refused(item):
    with pytest.raises(TypeError, match=r"sampler must yield integers below 2\*\*63 .* and list does not"):
        ListedPass([0, item], 2, 0, 5).take(0, 1)


def test_a_stop_iteration_outside_the_iterator_is_an_error():
    class Stopping(Own):
        def set_epoch(self, epoch):
            raise StopIteration

    with pytest.raises(RuntimeError, match="Stopping raised StopIteration outside its iterator"):
        ListedPass(Stopping(3), 3, 0, 0).take(0, 1)
