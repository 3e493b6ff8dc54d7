"""Threads that use one pool do not wait for each other's batches."""

import contextlib
import sys
import threading
import time

import cloudpickle
import numpy as np
import pytest
from cloudpickle.cloudpickle import list_registry_pickle_by_value

from feedline import DataLoader, Dataset
from feedline.engine.processes.shipping import ship

SOON_S = 60.0  # for what takes a moment, on a machine that is busy


class Slow(Dataset):
    """From ``at`` on, samples wait until a file is there."""

    def __init__(self, at, flag):
        self.at = at
        self.flag = flag

    def __len__(self):
        return 64

    def __getitem__(self, index):
        while index >= self.at and not self.flag.exists():
            time.sleep(0.01)
        return np.full(3, index)


def begun(loader, got):
    """A thread that takes batches to the end of an epoch, once it waits for one that is slow."""
    thread = threading.Thread(target=lambda: got.extend(batch[0, 0] for batch in loader))
    thread.start()
    deadline = time.monotonic() + SOON_S
    while not got:
        assert time.monotonic() < deadline, "there is no batch"
        time.sleep(0.005)
    return thread


@pytest.mark.parametrize("in_order", [True, False])
def test_a_thread_gets_its_batches_while_another_waits_for_a_slow_one(in_order, tmp_path):
    flag = tmp_path / "flag"
    got = []
    # The sampler's first epoch meets the slow sample in its second batch, which one of the two workers makes.
    orders = iter([[0, 1, 63, 63], list(range(60))])

    class Orders:
        def __iter__(self):
            return iter(next(orders))

        def __len__(self):
            return 60

    options = {"num_workers": 2, "backend": "process", "in_order": in_order, "prefetch_factor": 1}
    with DataLoader(Slow(63, flag), 2, sampler=Orders(), **options) as loader:
        slow = begun(loader, got)
        try:
            fast = sorted(int(batch[0, 0]) for batch in loader)
            assert slow.is_alive()
        finally:
            flag.touch()
            slow.join()
    assert fast == list(range(0, 60, 2))
    assert got == [0, 63]


def test_a_thread_closes_the_loader_while_another_waits(tmp_path):
    flag, got = tmp_path / "flag", []
    loader = DataLoader(Slow(2, flag), 2, num_workers=1, backend="process")
    ended = []

    def take():
        try:
            got.extend(int(batch[0, 0]) for batch in loader)
        except RuntimeError as error:
            ended.append(str(error))

    thread = threading.Thread(target=take)
    thread.start()
    deadline = time.monotonic() + SOON_S
    while not (loader._workers and loader._workers._pool and loader._workers._pool._crew):
        assert time.monotonic() < deadline, "no worker has started"
        time.sleep(0.005)
    loader.close()
    thread.join(SOON_S)
    assert not thread.is_alive()
    assert ended == ["the loader was closed: iterate over it again for a new epoch"]


def test_threads_that_begin_epochs_at_once_send_their_classes_by_value_all_the_same():
    ready, got = threading.Barrier(4), []

    def begin():
        for _ in range(200):
            ready.wait()
            with contextlib.closing(ship(Slow(0, None))) as shipment:
                got.append(len(shipment.payload))

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 800
    assert len(set(got)) == 1


def test_a_module_that_the_user_wants_by_value_stays_so():
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    try:
        ship(Slow(0, None)).close()
        assert __name__ in list_registry_pickle_by_value()
    finally:
        cloudpickle.unregister_pickle_by_value(module)
