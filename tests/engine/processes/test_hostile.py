"""Code of the user's that does what no worker expects costs no batch, no process and no descriptor."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from multiprocessing import connection
from pathlib import Path

import numpy as np
import pytest

import feedline
from feedline import DataLoader, Dataset, register_collate
from feedline.engine.processes import watching
from feedline.errors import WorkerError

SOON_S = 60.0  # for what takes a moment, on a machine that is busy


class Numbers(Dataset):
    """Rows that hold their index; in a worker, ``happens`` comes before."""

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


class Waiting(Numbers):
    """Writes down what it reads; samples ``at`` wait for the file ``flag``."""

    def happens(self, index):
        with (self.folder / "reads").open("a") as file:
            file.write(f"{index}\n")
        while index in self.at and not (self.folder / "flag").exists():
            time.sleep(0.005)

    def reads(self):
        file = self.folder / "reads"
        return list(map(int, file.read_text().split())) if file.exists() else []


def loader_of(dataset, batch_size=4, **options):
    return DataLoader(dataset, batch_size, **{"num_workers": 2, "backend": "process", "seed": 0} | options)


def listed(batches):
    return [np.asarray(batch).tolist() for batch in batches]


def serial(size=24):
    return listed(DataLoader(Numbers(size), 4))


def eventually(holds):
    deadline = time.monotonic() + SOON_S
    while not (found := holds()):
        assert time.monotonic() < deadline, "it has not come to pass"
        time.sleep(0.002)
    return found


def turned(loader, holds):
    """Lead the workers without waiting for a batch, until it is so."""
    pool = loader._workers._pool

    def once():
        pool.turn()
        return holds()

    return eventually(once)


# --------------------------------------------------------------------------------------------------- what workers do


def test_a_batch_may_have_any_number_of_arrays():
    with loader_of(range(4), 2, num_workers=1, collate_fn=lambda _: [np.zeros(1)] * 70_000) as loader:
        assert [len(batch) for batch in loader] == [70_000] * 2
        assert loader.stats().restarts == 0


def test_each_epoch_finds_the_dataset_and_the_registrations_that_it_was_begun_with():
    class Kept(Numbers):
        def __getitem__(self, index):
            return self.x, feedline.get_worker_info().dataset.x, Fraction(1, 2)

    dataset = Kept(40, x=1)
    undo = [register_collate(Fraction, lambda _: "first")]
    with loader_of(dataset, num_workers=1) as loader:
        older = iter(loader)
        got = [next(older)]
        dataset.x = 2
        undo.append(register_collate(Fraction, lambda _: "second"))
        newer = iter(loader)
        later = [next(newer)]
        got += older
        later += newer
    for each in reversed(undo):
        each()
    for batches, x, word in ((got, 1, "first"), (later, 2, "second")):
        assert {(int(one), int(other), text) for a, b, text in batches for one, other in zip(a, b, strict=True)} == {
            (x, x, word)
        }


def test_a_process_that_a_sample_forks_and_lets_return_ends_quietly(tmp_path):
    class Forking(Numbers):
        def happens(self, index):
            if index == 5 and not os.fork():
                (tmp_path / str(os.getpid())).touch()

    with loader_of(Forking()) as loader:
        assert listed(loader) == serial()
        assert loader.stats().restarts == 0
        (pid,) = (path.name for path in eventually(lambda: list(tmp_path.iterdir())))
        stat = Path(f"/proc/{pid}/stat")
        eventually(lambda: not stat.exists() or ") Z " in stat.read_text())  # its parent, the worker, knows it not


class Odd(BaseException):
    pass


@pytest.mark.parametrize("kind", [Odd, KeyboardInterrupt, GeneratorExit])
def test_what_is_no_exception_is_an_error_in_its_place(kind):
    class Raising(Numbers):
        def happens(self, index):
            if index == 5:
                raise kind

    with loader_of(Raising()) as loader:
        iterator = iter(loader)
        got = listed([next(iterator)])
        with pytest.raises(WorkerError, match=rf"epoch 0, step 1 raised {kind.__name__} in worker \d"):
            next(iterator)
        assert got + listed(iterator) == serial()[:1] + serial()[2:]
        assert loader.stats().restarts == 0


# --------------------------------------------------------------------------------------------- what the program does


def test_a_forked_copy_of_the_program_may_use_loaders():
    with loader_of(Numbers()) as loader:
        assert listed(loader) == serial()
        child = os.fork()
        if not child:
            code = 1
            try:
                with loader_of(Numbers()) as other:
                    code = 0 if listed(other) == serial() and listed(loader) == serial() else 2
                loader.close()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert listed(loader) == serial()


IGNORING = """
import multiprocessing, os, signal, sys
import numpy as np
import feedline

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
flag = sys.argv[2]

class Data:
    def __len__(self):
        return 24
    def __getitem__(self, index):
        if index == 9 and not os.path.exists(flag):
            open(flag, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return np.full(3, index)

with feedline.DataLoader(Data(), 4, num_workers=2, backend="process", multiprocessing_context=sys.argv[1]) as loader:
    assert [int(batch[0, 0]) for batch in loader] == list(range(0, 24, 4))
    assert loader.stats().restarts == 1
assert not multiprocessing.active_children()
print("done")
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_program_that_ignores_the_end_of_its_children_gets_its_batches(method, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(IGNORING)
    done = subprocess.run(
        [sys.executable, script, method, tmp_path / "flag"], capture_output=True, text=True, timeout=SOON_S, check=False
    )
    assert (done.stdout, done.stderr) == ("done\n", "")


@pytest.mark.parametrize("changes", [False, True])
def test_an_epoch_may_be_left_while_a_batch_of_it_is_looked_into(changes):
    class Killing(Numbers):
        def happens(self, index):
            if index == 20:
                os.kill(os.getpid(), signal.SIGKILL)

    dataset = Killing(40, x=0)
    with loader_of(dataset) as loader:
        iterator = iter(loader)
        got = listed(next(iterator) for _ in range(4))
        turned(loader, lambda: loader._workers._pool._probes)
        restarts = loader.stats().restarts
        del iterator
        dataset.x += changes
        assert listed(batch for batch, _ in zip(loader, range(4), strict=False)) == got
        assert not loader._workers._pool._probes
        assert loader.stats().restarts <= restarts + 1


def test_workers_that_hang_before_they_are_ready_are_not_started_for_ever(monkeypatch):
    monkeypatch.setattr(watching, "_LOADING_S", 0.5)
    with (
        loader_of(Numbers(), timeout=0.5, worker_init_fn=lambda _: time.sleep(1000)) as loader,
        pytest.raises(
            WorkerError,
            match=r"(?s)3 workers in turn hung while they were made ready; look at worker_init_fn.*or raise timeout"
            r".*timed out after 1 seconds of starting up",
        ),
    ):
        next(iter(loader))


def test_workers_that_die_at_once_are_blamed_for_what_they_were_at_alone(tmp_path):
    dataset = Waiting(8, folder=tmp_path, at={4})
    with loader_of(dataset) as loader:
        iterator = iter(loader)
        got = listed([next(iterator)])
        pool = loader._workers._pool
        turned(loader, lambda: 4 in dataset.reads() and all(member.is_ready for member in pool._crew))
        members = list(pool._crew)
        for member in members:
            os.kill(member.pid, signal.SIGKILL)
        eventually(lambda: len(connection.wait([member.process.sentinel for member in members], 0)) == len(members))
        (session,) = pool._sessions.values()
        turned(loader, lambda: not set(members) & set(pool._crew))
        assert [task.attempt for task in session.pending.values()] == [1]
        (tmp_path / "flag").touch()
        assert got + listed(iterator) == serial(8)


# ----------------------------------------------------------------------------------------------- what is not done twice


class Halves:
    """In the first epoch the first sixteen, afterwards the next."""

    def __init__(self):
        self.epochs = 0

    def __len__(self):
        return 16

    def __iter__(self):
        self.epochs += 1
        return iter(range(16) if self.epochs == 1 else range(16, 32))


def test_a_task_that_another_worker_took_over_is_done_once(tmp_path):
    dataset = Waiting(32, folder=tmp_path, at={0})
    with loader_of(dataset, sampler=Halves(), in_order=False) as loader:
        iterator = iter(loader)
        got = listed([next(iterator)])
        turned(loader, lambda: set(range(4, 16)) <= set(dataset.reads()))
        (tmp_path / "flag").touch()
        got += listed(iterator)
        assert sorted(got) == serial(16)
        list(loader)  # the workers have done all they were told before
    assert sorted(index for index in dataset.reads() if index < 16) == list(range(16))


def test_after_an_epoch_was_left_no_further_batch_of_it_is_made(tmp_path):
    dataset = Waiting(32, folder=tmp_path, at={4})
    with loader_of(dataset, sampler=Halves(), num_workers=1, prefetch_factor=4) as loader:
        iterator = iter(loader)
        next(iterator)
        turned(loader, lambda: 4 in dataset.reads())
        del iterator
        (tmp_path / "flag").touch()
        assert listed(loader) == serial(32)[4:]
    assert set(dataset.reads()) & set(range(16)) <= set(range(8))


def test_what_was_sent_before_a_change_is_given_up_at_once():
    def large():
        """The descriptors of large blocks of memory that this process holds."""
        found = set()
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                found |= {entry.name} if entry.stat().st_size > 1 << 20 else set()
        return found

    dataset, before, counts = Numbers(table=np.zeros(1 << 18)), large(), []
    with loader_of(dataset) as loader:
        for number in range(4):
            dataset.table = np.full(1 << 18, number)
            list(loader)
            counts.append(len(large() - before))
    assert counts[0] > 0
    assert counts == counts[:1] * 4
