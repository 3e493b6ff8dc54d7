"""Laws of working ahead: so much and no more, nothing before the first batch, and nothing is lost by it."""

import gc
import json
import multiprocessing
import threading

import numpy as np
import pytest

from feedline import DataLoader, Dataset

WORKERS = {
    "thread": {"num_workers": 2, "backend": "thread"},
    "process": {"num_workers": 2, "backend": "process"},
}


@pytest.fixture(params=WORKERS)
def workers(request):
    """Who makes the batches."""
    return WORKERS[request.param]


class Counting(Dataset):
    """Writes down what it was asked for."""

    thread_safe = True
    uses_global_rng = False

    def __init__(self, path, length=1000, nbytes=8):
        self.path, self.length, self.nbytes = path, length, nbytes
        self.made = None
        path.touch()

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        with self.path.open("ab", buffering=0) as file:
            file.write(b"%d\n" % index)
        if self.made is not None:
            self.made.release()
        return np.full(self.nbytes // 8, index)

    @property
    def asked(self):
        return [int(line) for line in self.path.read_bytes().split()]


@pytest.fixture
def dataset(tmp_path):
    """A dataset that counts."""
    return Counting(tmp_path / "asked")


def children():
    return len(multiprocessing.active_children())


@pytest.mark.parametrize("factor", [1, 3])
def test_at_most_prefetch_factor_batches_a_worker_are_under_way(workers, dataset, factor):
    most = 2 * factor
    with DataLoader(dataset, 4, prefetch_factor=factor, **workers) as loader:
        for taken, batch in enumerate(loader, 1):
            assert batch[0, 0] == 4 * (taken - 1)
            assert len(dataset.asked) <= 4 * (taken + most)
            if taken == 20:
                break
    asked = len(dataset.asked)
    assert 4 * 20 <= asked <= 4 * (20 + most)


def test_workers_go_on_while_the_loop_is_busy(dataset, workers):
    dataset.made = multiprocessing.get_context("forkserver").Semaphore(0)
    with DataLoader(dataset, 1, prefetch_factor=3, **workers) as loader:
        iterator = iter(loader)
        assert next(iterator)[0, 0] == 0
        for _ in range(6):  # made while the loop does something else: nobody calls next()
            assert dataset.made.acquire(timeout=30)


def test_large_batches_are_bounded_by_their_bytes(workers, tmp_path):
    dataset = Counting(tmp_path / "asked", nbytes=1 << 20)
    with DataLoader(dataset, 1, prefetch_factor=30, **workers) as loader:
        loader._workers._max_nbytes = 8 << 20
        iterator = iter(loader)
        for _ in range(65):
            next(iterator)
        taken = 65
        for _ in range(20):
            next(iterator)
            taken += 1
            assert len(dataset.asked) <= taken + 8


def test_nothing_happens_before_the_first_batch(workers, dataset):
    before = children()
    loader = DataLoader(dataset, 4, **workers)
    iterators = [iter(loader) for _ in range(5)]
    assert dataset.asked == []
    assert children() == before
    assert loader.state_dict()["seed"] is None
    next(iterators[0])
    assert dataset.asked
    loader.close()


class Own:
    """A sampler of a user's, which counts what it is asked for, and may raise."""

    def __init__(self, bad=()):
        self.bad, self.begun, self.drawn = bad, 0, []

    def __iter__(self):
        self.begun += 1
        return _Drawing(self)


class _Drawing:
    def __init__(self, owner):
        self.owner, self.place = owner, 0

    def __iter__(self):
        return self

    def __next__(self):
        place, self.place = self.place, self.place + 1
        if place >= 40:
            raise StopIteration
        if place in self.owner.bad:
            raise KeyError(place)
        self.owner.drawn.append(place)
        return place


def test_a_users_sampler_is_drawn_once_in_order_and_not_for_the_next_epoch(workers, dataset):
    sampler = Own()
    with DataLoader(dataset, 4, sampler=sampler, **workers) as loader:
        for epoch in range(1, 3):
            assert [batch[0, 0] for batch in loader] == list(range(0, 40, 4))
            assert (sampler.begun, sampler.drawn) == (epoch, list(range(40)) * epoch)
    assert set(dataset.asked) == set(range(40))
    # a batch that was given to another worker when it had been begun is made twice, and delivered once
    assert 80 <= len(dataset.asked) < 120


def test_an_error_of_the_sampler_comes_at_its_place_and_the_state_before_it_is_right(workers, dataset):
    with DataLoader(dataset, 4, sampler=Own(bad=[9, 21]), **workers) as loader:
        iterator = iter(loader)
        got = [next(iterator)[:, 0].tolist() for _ in range(2)]
        assert got == [[0, 1, 2, 3], [4, 5, 6, 7]]
        state = json.loads(json.dumps(loader.state_dict()))
        with pytest.raises(KeyError, match="9"):
            next(iterator)
        assert loader.state_dict() == state
        assert [next(iterator)[:, 0].tolist() for _ in range(2)] == [[8, 10, 11, 12], [13, 14, 15, 16]]
        assert next(iterator)[:, 0].tolist() == [17, 18, 19, 20]
        with pytest.raises(KeyError, match="21"):
            next(iterator)
        assert [batch[:, 0].tolist() for batch in iterator][-1] == [38, 39]


def test_the_next_epoch_is_made_while_the_present_one_ends_by_processes_that_stay(tmp_path):
    for persistent in (True, False):
        dataset = Counting(tmp_path / f"asked {persistent}", length=16)
        with DataLoader(
            dataset, 2, num_workers=2, backend="process", prefetch_factor=2, persistent_workers=persistent
        ) as loader:
            list(loader)
            iterator = iter(loader)
            next(iterator)
            iterator.close()
        counts = np.bincount(dataset.asked)
        assert counts[:2].min() >= 2
    assert len(dataset.asked) <= 16 + 2 * 5 + 2 * 4  # a batch that goes to another worker late is made twice


def test_another_epoch_that_is_asked_for_ends_the_work_ahead_at_once(tmp_path):
    dataset = Counting(tmp_path / "asked", length=16)
    with DataLoader(dataset, 2, num_workers=2, backend="process") as loader:
        list(loader)
        assert loader._course._early is not None
        loader.set_epoch(1)
        assert loader._course._early is not None
        loader.set_epoch(5)
        assert loader._course._early is None
        assert len(list(loader)) == 8


# ------------------------------------------------------------------------------------------- workers that do not stay


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_workers_that_do_not_stay_end_with_the_last_epoch_that_is_open(backend, dataset):
    def alive():
        named = [thread.name for thread in threading.enumerate() if thread.name.startswith("feedline worker")]
        return children() if backend == "process" else len(named)

    dataset.length = 24
    before = alive()
    loader = DataLoader(dataset, 4, num_workers=2, backend=backend, persistent_workers=False)
    iterator = iter(loader)
    next(iterator)
    assert alive() == before + 2
    list(iterator)
    assert alive() == before
    for batch in loader:
        assert batch is not None
        break
    gc.collect()
    assert alive() == before
    first, second = iter(loader), iter(loader)
    next(first)
    next(second)
    assert len(list(first)) == 5
    assert alive() == before + 2
    assert len(list(second)) == 5
    assert alive() == before
    next(iter(loader))
    assert alive() == before
    assert loader.stats().restarts == 0
