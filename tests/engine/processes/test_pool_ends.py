"""Workers that hang, batches and errors that do not travel, and the end of it all: nothing is lost, nothing is left."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import feedline
from feedline import DataLoader, Dataset, FeedlineError
from feedline.engine.processes import watching
from feedline.errors import CannotShip, WorkerError

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


class Pids(Numbers):
    def __getitem__(self, index):
        return os.getpid()


def loader_of(dataset, batch_size=4, **options):
    options = {"num_workers": 2, "backend": "process", "seed": 0} | options
    return DataLoader(dataset, batch_size, **options)


def listed(batches):
    return [np.asarray(batch).tolist() for batch in batches]


def serial(dataset, batch_size=4, **options):
    return listed(DataLoader(dataset, batch_size, seed=0, **options))


def eventually(holds):
    deadline = time.monotonic() + SOON_S
    while not (found := holds()):
        assert time.monotonic() < deadline, "it has not come to pass"
        time.sleep(0.005)
    return found


def crew(loader):
    return list(loader._workers._pool._crew)


def kill(member):
    with contextlib.suppress(ProcessLookupError):  # it was killed before, and this is not noticed yet
        os.kill(member.pid, signal.SIGKILL)


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def stop_self():
    os.kill(os.getpid(), signal.SIGSTOP)


def hang():
    time.sleep(1000)


# ---------------------------------------------------------------------------------------------------- workers that hang


@pytest.mark.parametrize("act", [hang, stop_self])
def test_a_worker_that_is_late_is_replaced(act, tmp_path):
    dataset = Once(at=13, flag=tmp_path / "flag", act=act)
    with loader_of(dataset, timeout=1.0) as loader:
        assert listed(loader) == serial(Numbers())
        assert loader.stats().restarts == 1


def test_a_sample_that_hangs_every_worker_is_named_with_the_line_where_it_hangs():
    with loader_of(Always(at={9}, act=hang), timeout=0.5) as loader:
        iterator = iter(loader)
        got = listed(next(iterator) for _ in range(2))
        with pytest.raises(WorkerError, match=r"(?s)sample index 9 .*timed out after 0.5 seconds.*line \d+ in hang"):
            next(iterator)
        assert got + listed(iterator) == serial(Numbers())[:2] + serial(Numbers())[3:]


def test_a_slow_loop_makes_no_worker_late():
    with loader_of(Numbers(64), timeout=0.2, num_workers=1) as loader:
        iterator = iter(loader)
        got = listed([next(iterator)])
        signal.sigtimedwait([], 0.6)  # the loop is at something else
        assert got + listed(iterator) == serial(Numbers(64))
        assert loader.stats().restarts == 0


def test_a_lock_that_a_dead_worker_held_is_told_of(tmp_path, monkeypatch):
    class Locking(Once):
        def happens(self, index):
            with self.lock:
                super().happens(index)

    monkeypatch.setattr(watching, "_PATIENCE_S", 0.5)
    lock = multiprocessing.get_context("forkserver").Lock()
    dataset = Locking(at=0, flag=tmp_path / "flag", act=kill_self, lock=lock)
    with loader_of(dataset, num_workers=1) as loader:
        iterator = iter(loader)
        with pytest.raises(
            UserWarning, match=r"no worker has finished.*worker 0 \(process \d+\) was killed by SIGKILL"
        ):
            next(iterator)
        lock.release()
        with contextlib.suppress(UserWarning):
            assert next(iterator).tolist() == serial(Numbers())[0]


def test_a_worker_late_for_a_lock_names_the_one_that_died_with_it(tmp_path):
    class Locking(Once):
        def happens(self, index):
            with self.lock:
                super().happens(index)

    lock = multiprocessing.get_context("forkserver").Lock()
    dataset = Locking(at=0, flag=tmp_path / "flag", act=kill_self, lock=lock)
    with (
        loader_of(dataset, num_workers=1, timeout=0.5) as loader,
        pytest.raises(
            WorkerError, match=r"(?s)timed out.*before it, worker 0 \(process \d+\) was killed by SIGKILL.*lock"
        ),
    ):
        next(iter(loader))


# ------------------------------------------------------------------------------------------------- what does not travel


def test_a_batch_that_cannot_be_pickled_is_an_error_that_names_the_part():
    def collate(samples):
        return {"rows": np.stack(samples), "lock": threading.Lock()} if samples[0][0] == 4 else np.stack(samples)

    with loader_of(Numbers(), collate_fn=collate) as loader:
        iterator = iter(loader)
        assert next(iterator)[0, 0] == 0
        with pytest.raises(
            CannotShip,
            match=r"^batch\['lock'\] cannot be sent from a worker process: it is a _thread\.lock; "
            r"return arrays, numbers or text, or use backend='thread'$",
        ) as caught:
            next(iterator)
        assert (caught.value.path, caught.value.reason) == ("batch['lock']", "it is a _thread.lock")
        assert caught.value.remedy == "return arrays, numbers or text, or use backend='thread'"
        assert len(list(iterator)) == 4


class Fragile:
    def __init__(self, value):
        self.value = value

    def __setstate__(self, state):
        if feedline.get_worker_info() is None and state["value"] == 4:
            raise LookupError("it will not be put together")
        self.__dict__.update(state)


def test_a_batch_that_cannot_be_unpickled_is_an_error_in_its_place():
    with loader_of(Numbers(), collate_fn=lambda samples: Fragile(int(samples[0][0]))) as loader:
        iterator = iter(loader)
        assert next(iterator).value == 0
        with pytest.raises(LookupError, match="it will not be put together") as caught:
            next(iterator)
        assert caught.value.__notes__ == ["while a worker's batch was unpickled in the main process"]
        assert [batch.value for batch in iterator] == [8, 12, 16, 20]


class Unpicklable(Exception):
    def __init__(self, text, lock):
        super().__init__(text, lock)

    def __reduce__(self):
        raise TypeError("it cannot be pickled")


def test_an_exception_that_cannot_be_pickled_arrives():
    def fail():
        raise Unpicklable("told all the same", threading.Lock())

    loader = loader_of(Always(at={5}, act=fail))
    with loader, pytest.raises((Unpicklable, WorkerError), match="told all the same"):
        list(loader)


def test_an_index_that_cannot_be_sent_is_an_error_in_its_place():
    with loader_of(Numbers(), batch_size=1, batch_sampler=[[0, 1], [threading.Lock()], [2, 3]]) as loader:
        iterator = iter(loader)
        assert next(iterator)[:, 0].tolist() == [0, 1]
        with pytest.raises(CannotShip, match=r"indices\[0\]"):
            next(iterator)
        assert next(iterator)[:, 0].tolist() == [2, 3]


def test_an_exception_shows_the_users_line_in_the_worker_first():
    def fail():
        raise KeyError("of the user")

    with loader_of(Always(at={5}, act=fail)) as loader, pytest.raises(KeyError, match="of the user") as caught:
        list(loader)
    lines = str(caught.value.__cause__).splitlines()
    assert lines[0].startswith("Traceback")
    assert Path(__file__).name in lines[1]
    assert "src/feedline" not in str(caught.value.__cause__)


# ----------------------------------------------------------------------------------------------------------- the end


def test_closing_returns_soon_while_workers_are_busy(tmp_path):
    loader = loader_of(Always(at={4}, act=lambda: ((tmp_path / "busy").touch(), hang())))
    iterator = iter(loader)  # kept: one that is collected takes its tasks back
    next(iterator)
    eventually((tmp_path / "busy").exists)
    pids = [member.pid for member in crew(loader)]
    begin = time.monotonic()
    loader.close()
    assert time.monotonic() - begin < 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_signal_handler_may_close_the_loader(tmp_path):
    loader = loader_of(Always(at={4}, act=hang))
    iterator = iter(loader)
    next(iterator)
    before = signal.signal(signal.SIGALRM, lambda *_: loader.close())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(RuntimeError, match="closed"):
            next(iterator)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert loader._workers._pool is None


def test_a_forked_copy_that_closes_or_exits_harms_nothing():
    with loader_of(Pids(400), batch_size=1) as loader:
        iterator = iter(loader)
        pids = {int(next(iterator)[0])}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            child = os.fork()
        if not child:
            code = 1
            try:
                del iterator
                loader.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        pids |= {int(batch[0]) for batch in iterator}
        assert len(pids) <= 2
        assert loader.stats().restarts == 0


SCRIPT = """
import os, sys, time
import numpy as np
import feedline

class Failure(Exception):
    pass

class Data:
    def __len__(self):
        return 100
    def __getitem__(self, index):
        if index == 30:
            raise Failure(index)
        return np.full(3, index)

loader = feedline.DataLoader(Data(), 4, num_workers=2, backend="process")
got = 0
try:
    for batch in loader:
        got += 1
except Failure as error:
    print(got, error.args, type(error) is Failure, error.__notes__[0], flush=True)
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
def test_exceptions_of_a_script_keep_their_class(method, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("num_workers=2", f"num_workers=2, multiprocessing_context='{method}'"))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=SOON_S, check=True)
    assert (done.stdout, done.stderr) == ("7 (30,) True in sample index 30\n", "")


INTERRUPTED = """
import os, sys, time
import numpy as np
import feedline

class Slow:
    def __len__(self):
        return 100_000
    def __getitem__(self, index):
        time.sleep(0.002)
        return os.getpid()

loader = feedline.DataLoader(Slow(), 4, num_workers=2, backend="process", multiprocessing_context=sys.argv[1])
seen = set()
for step, batch in enumerate(loader):
    new = set(batch.tolist()) - seen
    seen |= new
    for pid in new:
        print(pid, flush=True)
    if step == 3:
        print("running", flush=True)
"""


@pytest.mark.parametrize("method", ["forkserver", "fork"])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("after_s", [0.0, 0.013])
def test_an_interrupt_ends_all_with_one_traceback(method, times, after_s, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    child = subprocess.Popen(
        [sys.executable, script, method],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with child:
        pids = []
        while (line := child.stdout.readline().strip()) != "running":
            assert line, child.stderr.read()
            pids.append(int(line))
        for _ in range(times):
            signal.sigtimedwait([], after_s)  # at one moment or another
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGINT)
        begin = time.monotonic()
        _, errors = child.communicate(timeout=SOON_S)
        took = time.monotonic() - begin
    assert took < 2
    tracebacks = errors.split("Traceback (most recent call last)")[1:]
    ours = sum(str(Path(feedline.__file__).parent) in each for each in tracebacks)
    early = 'print("running"' in tracebacks[0]  # the script had not come back to the loader yet
    assert ours == 1 or (early and ours == 0), errors
    assert len(tracebacks) <= times, errors  # a second interrupt may hit the interpreter while it ends
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


CRAMPED = """
import resource, sys
import numpy as np
import feedline

resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))

class Data:
    def __len__(self):
        return 2000
    def __getitem__(self, index):
        return np.full(500, index)

loader = feedline.DataLoader(Data(), 1, num_workers=2, backend="process")
batches = list(loader) if sys.argv[1] == "held" else loader
assert [int(batch[0, -1]) for batch in batches] == list(range(2000))
"""


@pytest.mark.parametrize("how", ["held", "not held"])
def test_few_descriptors_are_enough_for_many_batches(how, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(CRAMPED)
    subprocess.run([sys.executable, script, how], timeout=SOON_S, check=True)


def test_an_error_of_the_pool_is_one_of_ours():
    assert issubclass(WorkerError, FeedlineError)
