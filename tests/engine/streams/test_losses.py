"""Laws of streams whose readers die: by chance, nothing is lost; always, it is told, and the epoch ends."""

import itertools
import os
import signal
import threading

import pytest

from feedline import DataLoader, ErrorPolicy, IterableDataset
from feedline.errors import WorkerError


class Deadly(IterableDataset):
    """0, 1, 2, … up to ``length``; whoever reads number ``at`` is killed, or, given a path, only the first who does."""

    def __init__(self, length, at, mark=None):
        self.length, self.at, self.mark = length, at, mark

    def __iter__(self):
        return self.numbers(0, self.length)

    def numbers(self, start, stop):
        for number in range(start, stop):
            if number == self.at and not (self.mark and self.mark.exists()):
                if self.mark:
                    self.mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield number


class DeadlyShards(Deadly):
    """The same, in shards of ten."""

    def shards(self):
        return self.length // 10

    def iter_shard(self, shard):
        return self.numbers(10 * shard, 10 * shard + 10)


def same(number):
    return number


KINDS = {
    "plain": Deadly,
    "mapped": lambda *how: Deadly(*how).map(same),
    "sharded": DeadlyShards,
    "sharded and mapped": lambda *how: DeadlyShards(*how).map(same),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def loader_of(dataset, *, backend="process", **how):
    return DataLoader(dataset, 4, num_workers=2, backend=backend, seed=1, **how)


def drained(loader):
    """The numbers of an epoch, and its errors, until it ends."""
    numbers, errors = [], []
    iterator = iter(loader)
    for _ in range(100):
        try:
            numbers += next(iterator).tolist()
        except WorkerError as error:
            errors.append(error)
        except StopIteration:
            break
    else:
        raise AssertionError("the epoch does not end")
    return numbers, errors


@kinds
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_stream_whose_reader_always_dies_ends_after_errors(kind, on_error):
    dataset = KINDS[kind](60, 33)
    with loader_of(dataset, on_error=ErrorPolicy(on_error)) as loader:
        numbers, errors = drained(loader)
    assert 1 <= len(errors) <= 2
    assert all("SIGKILL" in str(error) for error in errors)
    assert numbers == sorted(set(numbers))
    if "sharded" in kind:  # shards 1, 3 and 5 are those of the reader that dies
        others = [*range(10), *range(20, 30), *range(40, 50)]
        assert [number for number in numbers if number // 10 % 2 == 0] == others
        assert max(numbers) < 50
    else:
        assert max(numbers, default=0) < 33


@kinds
def test_a_reader_that_dies_once_loses_nothing(kind, tmp_path):
    with loader_of(KINDS[kind](60, 33, tmp_path / "died")) as loader:
        assert drained(loader) == ([*range(60)], [])
        assert loader.stats().restarts == 1


@kinds
def test_one_death_too_many_is_one_loss_whatever_was_under_way(kind, tmp_path):
    """A pool that gives up answers all that is under way with an error; what follows is read."""
    with loader_of(KINDS[kind](120, 33, tmp_path / "died"), max_restarts=0) as loader:
        numbers, errors = drained(loader)
    assert errors
    assert numbers[-20:] == [*range(100, 120)]


def test_a_resume_over_a_reader_that_always_dies_delivers_nothing_from_a_wrong_place():
    with loader_of(DeadlyShards(60, -1)) as loader:
        iterator = iter(loader)
        for _ in range(6):
            next(iterator)
        state = loader.state_dict()
    with loader_of(DeadlyShards(60, 13)) as loader:
        loader.load_state_dict(state)
        numbers, errors = drained(loader)
    assert numbers == []
    assert errors
    assert all("SIGKILL" in str(error) for error in errors)


class Hanging(DeadlyShards):
    """In threads: whoever reads number ``at`` waits until it is let go."""

    def __init__(self, length, at):
        super().__init__(length, -1)
        self.hangs_at, self.go = at, threading.Event()

    def numbers(self, start, stop):
        for number in super().numbers(start, stop):
            if number == self.hangs_at:
                self.go.wait(30)
            yield number


def test_a_stream_whose_reader_always_hangs_ends_after_errors():
    dataset = Hanging(60, 33)
    with loader_of(dataset, backend="thread", timeout=0.3) as loader:
        numbers, errors = drained(loader)
        dataset.go.set()
    assert errors
    assert all("timed out after 0.3 seconds" in str(error) for error in errors)
    assert [number for number in numbers if number // 10 % 2 == 0] == [*range(10), *range(20, 30), *range(40, 50)]


class Stamped(DeadlyShards):
    """Each copy of it has a stamp of its own, which is all that it gives."""

    stamps = itertools.count()

    def __getstate__(self):
        return {**self.__dict__, "stamp": next(self.stamps)}

    def numbers(self, start, stop):
        return itertools.repeat(self.stamp, stop - start)


def test_all_readers_of_an_epoch_read_the_same_copy():
    with loader_of(Stamped(40, -1)) as loader:
        numbers, errors = drained(loader)
    assert len(numbers) == 40
    assert len(set(numbers)) == 1
    assert errors == []


# ---------------------------------------------------------------------------------------------------------- shuffling


SHUFFLED = {
    "plain": lambda *how: Deadly(*how).shuffle(7),
    "mapped": lambda *how: Deadly(*how).map(same).shuffle(7),
    "sharded": lambda *how: DeadlyShards(*how).shuffle(7, interleave=2),
    "sharded and mapped": lambda *how: DeadlyShards(*how).shuffle(7).map(same),
}
shuffled_kinds = pytest.mark.parametrize("kind", SHUFFLED)


@shuffled_kinds
def test_a_reader_beneath_a_shuffle_that_dies_once_loses_nothing(kind, tmp_path):
    expected = [number for batch in DataLoader(SHUFFLED[kind](60, -1), 4, seed=1) for number in batch.tolist()]
    with loader_of(SHUFFLED[kind](60, 33, tmp_path / "died")) as loader:
        assert drained(loader) == (expected, [])
        assert loader.stats().restarts == 1


@shuffled_kinds
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_shuffled_stream_whose_reader_always_dies_ends_after_errors(kind, on_error):
    with loader_of(SHUFFLED[kind](60, 33), on_error=ErrorPolicy(on_error)) as loader:
        numbers, errors = drained(loader)
    assert 1 <= len(errors) <= 2
    assert all("SIGKILL" in str(error) for error in errors)
    assert len(numbers) == len(set(numbers))
    assert 33 not in numbers


@pytest.mark.parametrize("at", [13, 43])
def test_a_resume_over_a_reader_of_shuffled_shards_that_always_dies_delivers_nothing_from_a_wrong_place(at):
    with loader_of(DeadlyShards(60, -1).shuffle(7)) as loader:
        expected = drained(loader)[0]
        iterator = iter(loader)
        loader.set_epoch(0)
        for _ in range(12):
            next(iterator)
        state = loader.state_dict()
    with loader_of(DeadlyShards(60, at).shuffle(7)) as loader:
        loader.load_state_dict(state)
        numbers, errors = drained(loader)
    assert errors
    assert all("SIGKILL" in str(error) for error in errors)
    assert set(numbers).isdisjoint(expected[:48])
