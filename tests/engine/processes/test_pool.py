"""What comes out of worker processes is what the serial backend makes, whatever happens to the workers."""

import contextlib
import ctypes
import os
import signal
import sys
import threading

import numpy as np
import pytest

import feedline
from feedline import DataLoader, Dataset, ErrorPolicy, IterableDataset
from feedline.errors import WorkerError

SOON_S = 60.0  # for what takes a moment, on a machine that is busy


class Numbers(Dataset):
    """Rows that hold their index; subclasses do something besides, in a worker."""

    def __init__(self, size=24, **fields):
        self.size = size
        self.__dict__.update(fields)

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if feedline.get_worker_info() is not None:
            self.happens(index)
        return np.full(3, index)

    def happens(self, index):
        pass


class Once(Numbers):
    """``act`` happens at ``at`` the first time only: ``flag`` is a file that then exists."""

    def happens(self, index):
        if index == self.at:
            try:
                self.flag.touch(exist_ok=False)
            except FileExistsError:
                return
            self.act()


class Always(Numbers):
    def happens(self, index):
        if index in self.at:
            self.act()


def loader_of(dataset, batch_size=4, **options):
    options = {"num_workers": 2, "backend": "process", "seed": 0} | options
    return DataLoader(dataset, batch_size, **options)


def listed(batches):
    return [np.asarray(batch).tolist() for batch in batches]


def serial(dataset, batch_size=4, **options):
    return listed(DataLoader(dataset, batch_size, seed=0, **options))


def crew(loader):
    return list(loader._workers._pool._crew)


def kill(member):
    with contextlib.suppress(ProcessLookupError):  # it was killed before, and this is not noticed yet
        os.kill(member.pid, signal.SIGKILL)


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def crash():
    ctypes.string_at(0)


# ------------------------------------------------------------------------------------------------------ all is as alone


@pytest.mark.parametrize("num_workers", [1, 2, 5])
@pytest.mark.parametrize("method", ["forkserver", "fork", "spawn"])
@pytest.mark.filterwarnings("ignore:num_workers")
def test_batches_do_not_depend_on_workers_or_their_start(num_workers, method):
    dataset = Numbers(50)
    with loader_of(
        dataset, shuffle=True, num_workers=num_workers, multiprocessing_context=method, prefetch_factor=3
    ) as loader:
        reference = DataLoader(dataset, 4, seed=0, shuffle=True)
        for _ in range(2):
            assert listed(loader) == listed(reference)


def test_thousands_of_tiny_batches_arrive_once_and_in_order():
    with loader_of(Numbers(3000), batch_size=1) as loader:
        assert [int(batch[0, 0]) for batch in loader] == list(range(3000))


def test_out_of_order_each_batch_arrives_once():
    with loader_of(Numbers(400), in_order=False) as loader:
        assert sorted(listed(loader)) == serial(Numbers(400))


def test_huge_and_empty_batches_arrive():
    class Sizes(Numbers):
        def __getitem__(self, index):
            return np.full([25_000_000, 0, 3][index], index, np.float32)

    with loader_of(Sizes(3), batch_size=1) as loader:
        huge, empty, tiny = loader
        assert (huge.shape, empty.shape, tiny.tolist()) == ((1, 25_000_000), (1, 0), [[2.0] * 3])
        assert huge[0, 0] == huge[0, -1] == 0.0
        del huge, empty, tiny


def test_iterators_over_one_loader_are_independent():
    with loader_of(Numbers(), shuffle=True) as loader:
        reference = DataLoader(Numbers(), 4, seed=0, shuffle=True)
        got = [listed(pair) for pair in zip(loader, loader, strict=True)]
        assert got == [listed(pair) for pair in zip(reference, reference, strict=True)]
        assert got[0][0] != got[0][1]


def test_iterators_of_several_threads_share_the_workers():
    expected = sorted(serial(Numbers(200)))
    with loader_of(Numbers(200)) as loader:
        found = []
        threads = [threading.Thread(target=lambda: found.append(listed(loader))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [sorted(each) for each in found] == [expected] * 3


def test_batches_that_are_held_stay_what_they_are():
    with loader_of(Numbers(400), batch_size=2) as loader:
        assert listed(list(loader)) == serial(Numbers(400), batch_size=2)


# --------------------------------------------------------------------------------------------------- workers that die


@pytest.mark.parametrize(
    "act", [kill_self, lambda: os._exit(7), lambda: sys.exit(8), crash], ids=["SIGKILL", "_exit", "exit", "segfault"]
)
@pytest.mark.parametrize("at", [0, 13])
def test_a_worker_that_ends_is_replaced_and_its_batches_are_made_again(act, at, tmp_path):
    dataset = Once(at=at, flag=tmp_path / "flag", act=act)
    with loader_of(dataset) as loader:
        assert listed(loader) == serial(dataset)
        assert loader.stats().restarts == 1


def test_workers_that_are_killed_while_they_have_nothing_to_do_are_replaced():
    with loader_of(Numbers(), max_restarts=20) as loader:
        for _ in range(3):
            assert listed(loader) == serial(Numbers())
            for member in crew(loader):
                kill(member)


def test_workers_that_are_killed_one_after_the_other_are_replaced():
    with loader_of(Numbers(200), max_restarts=100) as loader:
        got = []
        for step, batch in enumerate(loader):
            got.append(batch.tolist())
            if step % 5 == 0:
                for member in crew(loader)[: 1 + step % 2]:
                    kill(member)
        assert got == serial(Numbers(200))


def test_a_worker_that_ends_in_worker_init_fn_is_replaced(tmp_path):
    def init(number):
        if number == 1:
            with contextlib.suppress(FileExistsError):
                (tmp_path / "flag").touch(exist_ok=False)
                os._exit(1)

    with loader_of(Numbers(), worker_init_fn=init) as loader:
        assert listed(loader) == serial(Numbers())


def test_a_sample_that_ends_every_worker_is_named():
    dataset = Always(at={9}, act=kill_self)
    with loader_of(dataset) as loader:
        iterator = iter(loader)
        got = listed(next(iterator) for _ in range(2))
        with pytest.raises(
            WorkerError,
            match=r"(?s)sample index 9 \(epoch 0, step 2\) ends every worker.*read alone: worker \d.*SIGKILL",
        ):
            next(iterator)
        assert got + listed(iterator) == serial(Numbers())[:2] + serial(Numbers())[3:]


def test_a_sample_that_ends_every_worker_is_skipped():
    failed = []
    policy = ErrorPolicy("skip", callback=failed.append)
    with loader_of(Always(at={9, 10}, act=crash), on_error=policy, max_restarts=20) as loader:
        got = listed(loader)
    expected = serial(Numbers())
    expected[2] = [row for row in expected[2] if row[0] not in (9, 10)]
    assert got == expected
    assert [(failure.index, type(failure.error)) for failure in failed] == [(9, WorkerError), (10, WorkerError)]


def test_a_sample_that_ends_every_worker_is_replaced_as_one_that_raises():
    class Raises(Numbers):
        def __getitem__(self, index):
            if index == 9:
                raise ValueError(index)
            return super().__getitem__(index)

    with loader_of(Always(at={9}, act=kill_self), on_error="replace", shuffle=True) as loader:
        assert listed(loader) == serial(Raises(), on_error="replace", shuffle=True)


def test_datasets_that_read_many_samples_at_once_are_read_one_by_one_around_the_one_that_kills():
    class Many(Always):
        def __getitems__(self, indices):
            return [self[index] for index in indices]

    with loader_of(Many(at={9}, act=kill_self), on_error="skip") as loader:
        got = listed(loader)
    expected = serial(Numbers())
    assert got == [[row for row in rows if row[0] != 9] for rows in expected]


def test_the_function_of_a_stream_that_ends_every_worker_skips_its_sample():
    def kill(value):
        if value == 9:
            kill_self()
        return value

    with loader_of(Counted(24).map(kill), on_error="skip") as loader:
        got = listed(loader)
    assert [value for batch in got for value in batch] == [value for value in range(24) if value != 9]


class Counted(IterableDataset):
    def __init__(self, size):
        self.size = size

    def __iter__(self):
        return iter(range(self.size))


def test_a_batch_that_ends_every_worker_though_no_sample_does_is_named():
    def collate(samples):
        if len(samples) > 1 and samples[0][0] == 8:
            kill_self()
        return np.stack(samples)

    with loader_of(Numbers(), collate_fn=collate) as loader:
        iterator = iter(loader)
        got = listed(next(iterator) for _ in range(2))
        with pytest.raises(WorkerError, match=r"epoch 0, step 2 ended 3 workers, but none of its samples.*collate_fn"):
            next(iterator)
        assert got + listed(iterator) == serial(Numbers())[:2] + serial(Numbers())[3:]


def test_a_batch_over_which_workers_died_by_chance_is_made_all_the_same(tmp_path):
    class Thrice(Numbers):
        def happens(self, index):
            for number in range(3):
                with contextlib.suppress(FileExistsError):
                    if index == 9:
                        (self.folder / str(number)).touch(exist_ok=False)
                        kill_self()

    with loader_of(Thrice(folder=tmp_path)) as loader:
        assert listed(loader) == serial(Numbers())
    assert len(list(tmp_path.iterdir())) == 3


def test_beyond_max_restarts_there_is_one_error_and_the_loader_can_be_used_again(tmp_path):
    def init(number):
        if not (tmp_path / "mended").exists():
            os._exit(3)

    with loader_of(Numbers(), max_restarts=1, worker_init_fn=init) as loader:
        for _ in range(2):
            with pytest.raises(WorkerError, match=r"status 3.*max_restarts=1\).*raise max_restarts"):
                list(loader)
        (tmp_path / "mended").touch()
        assert listed(loader) == serial(Numbers())


def test_the_end_of_a_reader_of_a_stream_changes_nothing(tmp_path):
    class Counted(IterableDataset):
        def __iter__(self):
            for index in range(30):
                Once(at=13, flag=tmp_path / "flag", act=kill_self).happens(index)
                yield index

    (tmp_path / "flag").touch()
    expected = serial(Counted().map(lambda value: -value))
    (tmp_path / "flag").unlink()
    with loader_of(Counted().map(lambda value: -value)) as loader:
        assert listed(loader) == expected
        assert loader.stats().restarts == 1
