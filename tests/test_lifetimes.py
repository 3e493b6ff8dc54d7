"""Laws of lifetimes: iterators are independent, what is dropped is gone, and the interpreter exits at once."""

import gc
import multiprocessing
import pickle
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from feedline import DataLoader, Dataset, TensorDataset

BACKENDS = {
    "serial": {},
    "thread": {"num_workers": 2, "backend": "thread"},
    "process": {"num_workers": 2, "backend": "process"},
}
STARTED = BACKENDS | {
    "fork": {"num_workers": 2, "backend": "process", "multiprocessing_context": "fork"},
    "spawn": {"num_workers": 2, "backend": "process", "multiprocessing_context": "spawn"},
}


@pytest.fixture(params=BACKENDS)
def workers(request):
    """Who makes the batches."""
    return BACKENDS[request.param]


def alive():
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("feedline worker")]
    return len(threads) + len(multiprocessing.active_children())


def listed(batches):
    return [batch.tolist() for batch in batches]


EPOCH = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_iterators_of_one_loader_are_independent(workers):
    with DataLoader(range(10), 4, **workers) as loader:
        assert [(one.tolist(), other.tolist()) for one, other in zip(loader, loader, strict=True)] == [
            (batch, batch) for batch in EPOCH
        ]
        first = iter(loader)
        next(first)
        assert listed(loader) == EPOCH
        assert listed(first) == EPOCH[1:]
        assert listed(loader) == EPOCH
        assert loader.stats().epochs == 5


def test_iterators_of_one_loader_have_epochs_of_their_own(workers):
    with DataLoader(range(64), 64, shuffle=True, seed=3, **workers) as loader:
        plans = [loader.plan(epoch)[0].indices.tolist() for epoch in range(3)]
        iterators = [iter(loader) for _ in range(3)]
        assert [next(iterator).tolist() for iterator in iterators] == plans
        loader.set_epoch(0)
        assert listed(loader) == plans[:1]


def test_iterators_that_are_dropped_hold_nothing_and_others_go_on(workers):
    with DataLoader(range(10), 4, **workers) as loader:
        kept = iter(loader)
        next(kept)
        for _ in range(20):
            iterator = iter(loader)
            next(iterator)
            del iterator
        assert alive() <= 2
        abandoned = [iter(loader) for _ in range(20)]
        assert [next(iterator).tolist() for iterator in abandoned] == [EPOCH[0]] * 20
        assert alive() <= 2
        assert listed(kept) == EPOCH[1:]
        del abandoned
        assert listed(loader) == EPOCH


def test_a_loader_that_nobody_holds_takes_its_workers_with_it(workers):
    before = alive()
    gc.disable()  # counting references is enough: nothing waits for the collector
    try:
        loader = DataLoader(range(10), 4, **workers)
        assert listed(loader) == EPOCH
        for batch in loader:
            kept = batch
            break
        assert alive() == before + workers.get("num_workers", 0)
        del loader
        assert alive() == before
        assert kept.tolist() == EPOCH[0]
        assert [batch.tolist() for batch in DataLoader(range(10), 4, **workers)] == EPOCH
        iterator = iter(DataLoader(range(10), 4, **workers))
        assert listed(iterator) == EPOCH
        next(iter(DataLoader(range(10), 4, **workers)))
        del iterator
        assert alive() == before
    finally:
        gc.enable()


def test_batches_outlive_the_loader(workers):
    with DataLoader(TensorDataset(np.arange(40.0).reshape(10, 4)), 4, **workers) as loader:
        iterator = iter(loader)
        (kept,) = next(iterator)
        view = kept[1:, ::2]
    del loader, iterator
    gc.collect()
    view += 1
    assert kept.tolist() == [[0, 1, 2, 3], [5, 5, 7, 7], [9, 9, 11, 11], [13, 13, 15, 15]]


def test_after_closing_iterators_end_with_an_error_and_the_loader_may_be_used_again(workers):
    loader = DataLoader(range(10), 4, **workers)
    iterator = iter(loader)
    next(iterator)
    loader.close()
    loader.close()
    assert alive() == 0
    with pytest.raises(RuntimeError, match="the loader was closed: iterate over it again"):
        next(iterator)
    assert listed(loader) == EPOCH
    loader.close()


class Reentering(Dataset):
    """Asks its own iterator for more."""

    iterator = None

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return next(self.iterator)


def test_code_of_an_iterator_that_asks_it_for_more_is_told_so():
    dataset = Reentering()
    loader = DataLoader(dataset, 2)
    dataset.iterator = iter(loader)
    with pytest.raises(RuntimeError, match=r"next\(\) was called on an iterator by code that this iterator runs"):
        next(dataset.iterator)
    dataset.iterator = None


def test_threads_that_share_an_iterator_get_each_batch_once(workers):
    with DataLoader(range(2000), 4, **workers) as loader:
        iterator, got = iter(loader), []

        def take():
            got.extend(batch.tolist() for batch in iterator)

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(got) == [list(range(start, start + 4)) for start in range(0, 2000, 4)]


def test_threads_that_share_a_loader_have_iterators_of_their_own(workers):
    with DataLoader(range(400), 4, **workers) as loader:
        got = []
        threads = [threading.Thread(target=lambda: got.append(listed(loader))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == [[list(range(start, start + 4)) for start in range(0, 400, 4)]] * 4


def test_a_pickled_loader_goes_on_where_it_was(workers):
    loader = DataLoader(range(10), 4, shuffle=True, seed=4, **workers)
    plans = [[plan.indices.tolist() for plan in loader.plan(epoch)] for epoch in range(2)]
    assert listed(loader) == plans[0]
    with pickle.loads(pickle.dumps(loader)) as copy:
        assert listed(copy) == plans[1]
    assert listed(loader) == plans[1]
    loader.close()


SCRIPT = """
import sys, numpy as np
from feedline import DataLoader, TensorDataset
options = {options}
loader = DataLoader(TensorDataset(np.arange(400.0).reshape(100, 4)), 4, **options)
iterator = iter(loader)
kept = [next(iterator) for _ in range(3)]
{end}
"""
ENDS = {
    "the end": "",
    "an error": "raise KeyError('mine')",
    "exit": "sys.exit(3)",
    "a cycle": "holder = [loader, iterator]; holder.append(holder); loader.me = holder",
    "a name": "sys.modules['kept'] = iterator",
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", ["serial", "thread", "process", "fork"])
def test_the_interpreter_exits_at_once_and_in_silence_with_an_open_iterator(kind, end):
    script = SCRIPT.format(options=STARTED[kind], end=ENDS[end])
    script += "\n" if end in ("an error", "exit") else "\nimport time; print(time.time())\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    left = time.time()
    if end == "an error":
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == "KeyError: 'mine'"
        assert len(done.stderr.splitlines()) <= 4
        return
    assert (done.returncode, done.stderr) == (3 if end == "exit" else 0, "")
    if done.stdout:
        assert left - float(done.stdout) < 1


def test_the_interpreter_exits_at_once_while_samples_hang():
    script = """
import time
from feedline import DataLoader, Dataset
class Hanging(Dataset):
    thread_safe, uses_global_rng = True, False
    def __len__(self): return 8
    def __getitem__(self, index):
        if index: time.sleep(60)
        return index
open_ = []
for options in ({"backend": "process"}, {"backend": "thread"}):
    loader = DataLoader(Hanging(), 1, num_workers=2, **options)
    iterator = iter(loader)
    next(iterator)
    open_.append((loader, iterator))
print(time.time())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    left = time.time()
    assert (done.returncode, done.stderr) == (0, "")
    assert left - float(done.stdout) < 2


class Collecting(Dataset):
    """Sets off the collector while it is sent to the workers."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return index

    def __reduce__(self):
        gc.collect()
        return Collecting, ()


def test_an_epoch_that_the_collector_ends_leaves_the_workers_to_the_one_being_begun():
    before = alive()
    loader = DataLoader(Collecting(), 4, num_workers=2, backend="process", persistent_workers=False)
    gc.disable()
    try:
        iterator = iter(loader)
        next(iterator)
        cycle = [iterator]
        cycle.append(cycle)
        del iterator, cycle  # as a traceback may leave it
        loader.dataset.__dict__["changed"] = True  # so that it is sent again
        assert listed(loader) == EPOCH
    finally:
        gc.enable()
    loader.close()
    assert alive() == before
