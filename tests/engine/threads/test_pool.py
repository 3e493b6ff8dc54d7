"""Laws of the thread backend: the serial backend's batches, whatever hangs, dies, is interrupted or forked."""

import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import feedline
from feedline import default_collate, get_worker_info
from feedline.engine.arena import Arena
from feedline.engine.executor import SerialExecutor
from feedline.engine.making import MapMaker
from feedline.engine.policy import ErrorPolicy
from feedline.engine.task import Recipe, Role, StreamStart, Task
from feedline.engine.threads.pool import ThreadPool
from feedline.errors import WorkerError
from feedline.order.plan import BatchPlan, Geometry

LONG_S = 30  # for waits that end at once unless a law is broken


class Made:
    """A dataset whose sample ``i`` is ``function(i)``."""

    uses_global_rng = False

    def __init__(self, function):
        self.function = function

    def __getitem__(self, index):
        return self.function(index)


def role(dataset, **how):
    given = {"collate_fn": default_collate, "batched": True, "batch_transform": None, "seed": 3}
    function = dataset if callable(dataset) else None
    dataset = dataset if function is None else Made(function)
    return Role(Recipe(dataset=dataset, policy=how.pop("policy", ErrorPolicy()), **(given | how)), epoch=1)


def tasks(length, size):
    indices = np.arange(length)
    return [
        Task(BatchPlan(1, step, indices[start : start + size], start, min(start + size, length)))
        for step, start in enumerate(range(0, length, size))
    ]


def collected(executor, todo):
    """All outcomes, by step."""
    for task in todo:
        executor.submit(task)
    return sorted((executor.collect() for _ in todo), key=lambda outcome: outcome.task.plan.step)


@pytest.fixture
def pool():
    """Makes pools that are closed after the test."""
    pools = []

    def make(num_workers, **how):
        pools.append(ThreadPool(num_workers, arena=how.pop("arena", None) or Arena(), **how))
        return pools[-1]

    yield make
    for each in pools:
        each.close()


def failing(i):
    if i % 11 == 7:
        raise KeyError(i)
    return i


FUNCTIONS = {
    "number": lambda i: i,
    "array": lambda i: np.full((3, 2), i, dtype=np.float32),
    "large": lambda i: (np.full((64, 64), i), i),
    "nested": lambda i: {"x": (i, [np.int8(i)]), "y": i / 3},
    "text": lambda i: (f"sample {i}", i),
    "wider": lambda i: i if i % 5 else i / 7,
    "drawn": lambda i: (i, feedline.rng().random(3)),
    "failing": failing,
}


def shown(outcome):
    """All that an outcome says, comparable; the place of an error aside."""
    if outcome.error is not None:
        notes = [re.sub("in (the main process|worker .)", "somewhere", note) for note in outcome.error.__notes__]
        return type(outcome.error), str(outcome.error), notes, [failed.index for failed in outcome.failures]
    return _shown(outcome.batch.value), outcome.batch[1:3], [failed.index for failed in outcome.failures]


def _shown(value):
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    if isinstance(value, tuple | list):
        return type(value), [_shown(part) for part in value]
    return {key: _shown(part) for key, part in value.items()} if isinstance(value, dict) else value


@given(
    st.sampled_from(sorted(FUNCTIONS)),
    st.integers(1, 5),
    st.integers(1, 60),
    st.integers(1, 20),
    st.sampled_from(["raise", "skip", "replace"]),
    st.booleans(),
)
def test_threads_make_the_serial_batches(name, workers, length, size, policy, transforms):
    transform = (lambda batch: (batch, feedline.rng().random())) if transforms else None
    what = role(FUNCTIONS[name], policy=ErrorPolicy(policy), batch_transform=transform)
    todo = tasks(length, size)
    expected = collected(SerialExecutor(MapMaker(what.recipe, Arena())), todo)
    threads = ThreadPool(workers, arena=Arena())
    try:
        outcomes = collected(threads.open(what), todo)
    finally:
        threads.close()
    assert [outcome.task.plan.step for outcome in outcomes] == list(range(len(todo)))
    assert [shown(outcome) for outcome in outcomes] == [shown(outcome) for outcome in expected]


@pytest.mark.parametrize("how", [{"batched": False}, {"collate_fn": list}, {"collate_fn": sum}])
def test_other_collate_functions_and_single_samples(pool, how):
    what, todo = role(lambda i: i, **how), tasks(8, 1 if "batched" in how else 4)
    if "batched" in how:
        what = role(lambda i: i, batched=False, collate_fn=lambda sample: sample)
    expected = collected(SerialExecutor(MapMaker(what.recipe, Arena())), todo)
    got = collected(pool(2).open(what), todo)
    assert [outcome.batch.value for outcome in got] == [outcome.batch.value for outcome in expected]


def test_num_workers_is_positive():
    with pytest.raises(ValueError, match="num_workers must be a positive integer, got 0"):
        ThreadPool(0, arena=Arena())


def test_nothing_starts_before_the_first_task(pool):
    before = threading.active_count()
    threads = pool(3)
    executor = threads.open(role(lambda i: i))
    assert threading.active_count() == before
    collected(executor, tasks(2, 2))
    assert threading.active_count() == before + 3
    threads.close()
    assert threading.active_count() == before


def test_all_threads_work_at_the_first_batch(pool):
    together = threading.Barrier(2, timeout=LONG_S)

    def meet(i):
        if i in (0, 2):
            together.wait()
        return i

    (outcome,) = collected(pool(2).open(role(meet)), tasks(4, 4))
    assert outcome.batch.value.tolist() == [0, 1, 2, 3]


def test_later_batches_are_whole(pool):
    threads = {}

    def note(i):
        threads.setdefault(i // 8, set()).add(threading.get_ident())
        return i

    collected(pool(2).open(role(note)), tasks(80, 8))
    assert all(len(threads[step]) == 1 for step in range(2, 10))


def test_epochs_are_independent_and_share_the_threads(pool):
    threads = pool(2)
    one, other = threads.open(role(lambda i: i)), threads.open(role(lambda i: -i))
    for task in tasks(40, 4):
        one.submit(task)
        other.submit(task)
    ones = sorted(one.collect().batch.value.sum() for _ in range(10))
    others = sorted(-other.collect().batch.value.sum() for _ in range(10))
    assert ones == others == [6 + 16 * step for step in range(10)]


class Held:
    """Sample ``at`` waits until it is let go."""

    def __init__(self, at=0):
        self.at = at
        self.inside, self.go = threading.Event(), threading.Event()
        self.read = []

    def __call__(self, i):
        self.read.append(i)
        if i == self.at:
            self.inside.set()
            assert self.go.wait(LONG_S)
        return i


def test_a_closed_epoch_ends_before_its_next_sample_and_others_go_on(pool):
    held = Held()
    threads = pool(1)
    closed = threads.open(role(held))
    for task in tasks(40, 10):
        closed.submit(task)
    assert held.inside.wait(LONG_S)
    following = threads.open(role(lambda i: i))
    following.submit(tasks(4, 4)[0])
    closed.close()
    closed.close()
    held.go.set()
    assert following.collect().batch.value.tolist() == [0, 1, 2, 3]
    assert held.read == [0]
    with pytest.raises(RuntimeError, match="the loader was closed: iterate over it again"):
        closed.collect()
    with pytest.raises(RuntimeError, match="the loader was closed: iterate over it again"):
        closed.submit(tasks(4, 4)[0])


def test_closing_takes_a_second_at_most_though_a_thread_hangs(pool):
    held = Held()
    threads = pool(2)
    executor = threads.open(role(held))
    executor.submit(tasks(8, 8)[0])
    assert held.inside.wait(LONG_S)
    hung = [thread for thread in threading.enumerate() if thread.name.startswith("feedline worker")]
    began = time.monotonic()
    threads.close()
    assert time.monotonic() - began < 1
    threads.close()
    held.go.set()
    for thread in hung:
        thread.join(LONG_S)


def test_a_closed_pool_wakes_who_waits_and_may_be_used_again(pool):
    held = Held()
    threads = pool(1)
    executor = threads.open(role(held))
    executor.submit(tasks(2, 2)[0])
    assert held.inside.wait(LONG_S)
    errors = []

    def wait():
        try:
            executor.collect()
        except RuntimeError as error:
            errors.append(str(error))

    waiting = threading.Thread(target=wait)
    waiting.start()
    held.go.set()
    threads.close()
    waiting.join(LONG_S)
    assert not waiting.is_alive()
    assert errors in ([], ["the loader was closed: iterate over it again for a new epoch"])
    assert collected(threads.open(role(lambda i: i)), tasks(2, 2))[0].batch.value.tolist() == [0, 1]


def test_the_users_code_may_close_the_pool(pool):
    threads = pool(2)

    def close(i):
        threads.close()
        return i

    executor = threads.open(role(close))
    executor.submit(tasks(1, 1)[0])
    with pytest.raises(RuntimeError, match="the loader was closed"):
        executor.collect()


def test_a_pool_that_nobody_holds_ends_its_threads():
    before = threading.active_count()
    threads = ThreadPool(2, arena=Arena())
    executor = threads.open(role(lambda i: i))
    collected(executor, tasks(4, 2))
    gone = weakref.ref(threads)
    del threads
    assert gone() is not None  # the epoch goes on
    assert len(collected(executor, tasks(4, 2))) == 2
    executor.close()
    gc.collect()
    assert gone() is None
    assert threading.active_count() == before


def test_a_thread_past_its_deadline_is_given_up_and_replaced(pool):
    held = Held(at=2)
    threads = pool(1, timeout_s=0.5)
    executor = threads.open(role(held))
    before = threading.enumerate()
    for task in tasks(8, 2):
        executor.submit(task)
    (hung,) = set(threading.enumerate()) - set(before)
    outcomes = sorted((executor.collect() for _ in range(4)), key=lambda outcome: outcome.task.plan.step)
    assert [outcome.error is None for outcome in outcomes] == [True, False, True, True]
    error = outcomes[1].error
    assert isinstance(error, WorkerError)
    message = r"epoch 1, step 1 timed out after 0.5 seconds in worker 0, .*give a larger timeout"
    assert re.match(message, str(error))
    assert "assert self.go.wait(LONG_S)" in str(error)
    assert hung.is_alive()
    held.go.set()
    hung.join(LONG_S)
    assert not hung.is_alive()
    assert held.read.count(3) == 0  # what hung ends before its next sample
    executor.submit(tasks(10, 2)[4])
    assert executor.collect().batch.value.tolist() == [8, 9]  # the late outcome was dropped


def test_a_part_past_its_deadline_fails_its_batch(pool):
    held = Held(at=5)
    executor = pool(2, timeout_s=0.5).open(role(held))
    outcomes = collected(executor, tasks(16, 8))
    assert isinstance(outcomes[0].error, WorkerError)
    assert outcomes[1].batch.value.tolist() == list(range(8, 16))
    held.go.set()


def test_where_a_part_hangs_the_others_read_no_further(pool):
    first, second = threading.Event(), threading.Event()
    go, goes_on, meeting = threading.Event(), threading.Event(), threading.Barrier(2)
    hung, read = [], []

    def sample(i):
        read.append(i)
        if i == 0:
            hung.append(threading.current_thread())
            first.set()
            assert go.wait(LONG_S)
        elif i == 4:
            second.set()
            assert goes_on.wait(LONG_S)
        elif i >= 8:
            meeting.wait(LONG_S)
        return i

    executor = pool(2, timeout_s=LONG_S).open(role(sample))
    executor.submit(tasks(8, 8)[0])
    assert first.wait(LONG_S)
    assert second.wait(LONG_S)
    hung[0].begun -= 2 * LONG_S  # as if it had hung for so long
    assert isinstance(executor.collect().error, WorkerError)
    goes_on.set()
    for task in tasks(10, 1)[8:]:  # both threads come to them: the part is over
        executor.submit(task)
    assert sorted(executor.collect().batch.value.tolist() for _ in range(2)) == [[8], [9]]
    assert sorted(read) == [0, 4, 8, 9]
    go.set()


def test_threads_that_hang_in_a_closed_epoch_do_not_hold_up_the_next(pool):
    held = Held()
    threads = pool(1, timeout_s=0.5)
    closed = threads.open(role(held))
    closed.submit(tasks(2, 2)[0])
    assert held.inside.wait(LONG_S)
    closed.close()
    following = threads.open(role(lambda i: i))
    assert collected(following, tasks(2, 2))[0].batch.value.tolist() == [0, 1]
    held.go.set()


def test_what_waits_in_the_queue_has_no_deadline_yet(pool):
    spent = threading.Event()

    def slow(i):
        spent.wait(0.1)  # nobody sets it: the time itself is meant
        return i

    executor = pool(1, timeout_s=0.5).open(role(slow))
    assert all(outcome.error is None for outcome in collected(executor, tasks(8, 1)))


def test_an_error_says_where_and_the_next_batches_follow(pool):
    outcomes = collected(pool(1).open(role(failing)), tasks(12, 4))
    assert [outcome.error is None for outcome in outcomes] == [True, False, True]
    assert outcomes[1].error.__notes__ == ["in sample index 7", "while making epoch 1, step 1, in worker 0"]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("size", [2, 8])
def test_what_would_end_a_thread_is_an_error(pool, error, size):
    def leave(i):
        if i == 0:
            raise error
        return i

    executor = pool(2).open(role(leave))
    first, second = collected(executor, tasks(2 * size, size))
    assert isinstance(first.error, WorkerError)
    assert re.match(
        rf"the code of epoch 1, step 0 raised {error.__name__} in worker \d; raise an Exc", str(first.error)
    )
    assert isinstance(first.error.__cause__, error)
    assert second.batch is not None


def test_worker_init_fn_is_called_once_in_each_thread_before_its_first_task(pool):
    both, called = threading.Barrier(2, timeout=LONG_S), []

    def init(number):
        called.append((number, threading.get_ident(), get_worker_info().id))
        both.wait()

    threads = pool(2, worker_init_fn=init)
    for _ in range(2):
        outcomes = collected(threads.open(role(lambda i: threading.get_ident())), tasks(40, 2))
        made_by = {int(ident) for outcome in outcomes for ident in outcome.batch.value}
        assert made_by <= {ident for _, ident, _ in called}
    assert sorted((number, known) for number, _, known in called) == [(0, 0), (1, 1)]


def test_an_error_of_worker_init_fn_is_that_of_its_batches(pool):
    def init(number):
        raise OSError("no data here")

    outcomes = collected(pool(1, worker_init_fn=init).open(role(lambda i: i)), tasks(6, 2))
    assert [str(outcome.error) for outcome in outcomes] == ["no data here"] * 3
    assert outcomes[0].error.__notes__ == ["in worker_init_fn of worker 0"]


@pytest.mark.parametrize("error", [StopIteration, SystemExit])
def test_worker_init_fn_ends_neither_the_epoch_nor_the_program(pool, error):
    def init(number):
        raise error

    (outcome,) = collected(pool(1, worker_init_fn=init).open(role(lambda i: i)), tasks(2, 2))
    message = f"worker_init_fn raised {error.__name__} in worker 0; raise an error of your own"
    assert (type(outcome.error), str(outcome.error)) == (WorkerError, message)


def test_get_worker_info_tells_a_thread_of_itself(pool):
    def info(i):
        info = get_worker_info()
        return info.id, info.num_workers, info.seed, info.dataset is what.recipe.dataset

    what = role(info)
    (outcome,) = collected(pool(3).open(what), tasks(1, 1))
    number, *rest = (int(column[0]) for column in outcome.batch.value)
    assert number in range(3)
    assert rest == [3, 3, True]
    assert get_worker_info() is None


def test_threads_leave_global_generators_alone(pool, same_global_generators):
    class Foreign(Made):
        uses_global_rng = True

    executor = pool(2).open(role(Foreign(lambda i: i), collate_fn=lambda batch: batch))
    assert len(collected(executor, tasks(20, 4))) == 5


def interrupt_main():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


@pytest.fixture
def interruption():
    """A switch: while it is on, the next signal interrupts the main thread, and turns it off."""
    switch = SimpleNamespace(on=False)  # no Event: its lock is no place to be interrupted in

    def handler(*_):
        if switch.on:
            switch.on = False
            raise KeyboardInterrupt

    usual = signal.signal(signal.SIGINT, handler)
    yield switch
    signal.signal(signal.SIGINT, usual)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent to a thread")
def test_an_interrupted_collect_loses_nothing(pool, interruption):
    interrupted = threading.Event()

    def interrupt(i):
        if i == 0:
            while not interrupted.wait(0.01):  # again: one that comes just before a thread sleeps does not wake it
                interrupt_main()
        return i

    executor = pool(1).open(role(interrupt))
    for task in tasks(6, 2):
        executor.submit(task)
    with pytest.raises(KeyboardInterrupt):
        interruption.on = True
        executor.collect()
    interrupted.set()
    assert sorted(executor.collect().task.plan.step for _ in range(3)) == [0, 1, 2]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent to a thread")
def test_interruptions_at_any_time_lose_nothing(pool, interruption):
    """Signals while outcomes come and go: each submitted task is collected, once."""

    def interrupt(i):
        interrupt_main()
        return i

    executor, todo = pool(2).open(role(interrupt)), tasks(1000, 2)
    steps, submitted, interruptions = [], 0, 0
    while len(steps) < len(todo):
        while submitted < min(len(todo), len(steps) + 4):
            executor.submit(todo[submitted])
            submitted += 1
        try:
            interruption.on = True
            step = executor.collect().task.plan.step
            steps.append(step)
            interruption.on = False
        except KeyboardInterrupt:
            interruptions += 1
    assert sorted(steps) == list(range(len(todo)))
    assert interruptions


def test_memory_of_batches_is_used_again(pool):
    arena = Arena()
    executor = pool(2, arena=arena).open(role(lambda i: np.full((64, 1024), i, dtype=np.float32)))
    sizes = set()
    for task in tasks(200, 4):
        executor.submit(task)
        batch = executor.collect().batch
        sizes.add(batch.nbytes)
        del batch
    assert sizes == {4 * 64 * 1024 * 4}
    assert arena.nbytes < 8 * 4 * 64 * 1024 * 4


@pytest.mark.parametrize(
    ("function", "nbytes"),
    [
        (lambda i: np.zeros(3), 48),
        (lambda i: (np.zeros(3), i), 64),
        (lambda i: {"x": i, "y": [np.int8(1)]}, 18),
        (lambda i: (f"{i}", np.int8(1)), 2),
    ],
)
def test_a_batch_tells_its_memory(pool, function, nbytes):
    (outcome,) = collected(pool(1).open(role(function)), tasks(2, 2))
    assert outcome.batch.nbytes == nbytes


def test_memory_is_counted_where_it_is_known(pool):
    import torch

    class Wayward(list):
        def __iter__(self):
            raise OSError

    dense, sparse = torch.zeros(2, dtype=torch.int16), torch.eye(2).to_sparse()
    for value, nbytes in [(dense, 4), (sparse, 0), (Wayward([1]), 0), (object(), 0)]:
        executor = pool(1).open(role(lambda i: i, collate_fn=lambda batch, value=value: value))
        assert collected(executor, tasks(2, 2))[0].batch.nbytes == nbytes


def test_a_thread_that_cannot_be_started_is_told(pool):
    executor = pool(2).open(role(lambda i: i))
    usual = threading.stack_size(1 << 46)
    try:
        executor.submit(tasks(2, 2)[0])
    finally:
        threading.stack_size(usual)
    error = executor.collect().error
    assert isinstance(error, WorkerError)
    assert re.match("the thread of worker 0 could not be started: .*; lower num_workers", str(error))
    assert collected(executor, tasks(2, 2))[0].batch is not None


class Counting:
    """A stream of numbers, which notes who reads them."""

    def __init__(self, length):
        self.length = length
        self.readers = set()

    def __iter__(self):
        for number in range(self.length):
            self.readers.add(threading.get_ident())
            yield number


def stream_role(dataset):
    return Role(role(dataset).recipe, 1, StreamStart(Geometry(4), 0, 0))


def stream_tasks(count):
    return [Task(BatchPlan(1, step, (), 0, 0)) for step in range(count)]


def test_a_stream_is_read_in_order_by_one_thread(pool):
    threads, streams = pool(3), [Counting(10), Counting(10)]
    for executor, stream in [(threads.open(stream_role(stream)), stream) for stream in streams]:
        outcomes = collected(executor, stream_tasks(5))
        values = [None if outcome.batch is None else outcome.batch.value.tolist() for outcome in outcomes]
        assert values == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], None, None]
        assert len(stream.readers) == 1
        executor.close()


def test_what_is_pinned_is_done_by_one_thread_in_order(pool):
    made_by = []

    def note(i):
        made_by.append((threading.get_ident(), get_worker_info().id, get_worker_info().num_workers))
        return i

    threads = pool(3)
    executors = [threads.open(role(note), pinned=number) for number in (1, 4)]
    for executor in executors:
        for task in tasks(20, 2):
            executor.submit(task)
        assert [executor.collect().task.plan.step for _ in range(10)] == list(range(10))
    assert {info for _, *info in map(tuple, made_by) for info in [tuple(info)]} == {(1, 3)}
    assert len({ident for ident, *_ in made_by}) == 2
    before = threading.active_count()
    executors[0].close()
    threads.close()
    assert threading.active_count() == before - 2


def test_several_epochs_are_waited_for_together(pool):
    held = Held()
    threads = pool(2)
    slow, quick = threads.open(role(held)), threads.open(role(lambda i: i))
    slow.submit(tasks(2, 2)[0])
    assert held.inside.wait(LONG_S)
    assert slow.poll() is None
    quick.submit(tasks(2, 2)[0])
    threads.wait([slow, quick])
    threads.wait([slow, quick])
    assert slow.poll() is None
    assert quick.poll().batch.value.tolist() == [0, 1]
    assert quick.poll() is None
    held.go.set()
    threads.wait([slow, quick])
    assert slow.poll().batch.value.tolist() == [0, 1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_process_has_its_own_threads_and_may_close(pool):
    threads = pool(2)
    executor = threads.open(role(lambda i: i))
    executor.submit(tasks(2, 2)[0])
    executor.collect()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            executor.submit(tasks(2, 2)[0])
            told = "stayed behind when the process was forked" in str(executor.collect().error)
            try:
                executor.collect()
            except WorkerError:
                own = collected(threads.open(role(lambda i: i)), tasks(8, 4))
                executor.close()
                threads.close()
                code = 0 if told and len(own) == 2 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert collected(executor, tasks(8, 4))[1].batch.value.tolist() == [4, 5, 6, 7]


def test_the_interpreter_ends_within_a_second_whatever_a_thread_does():
    script = """
import threading, time
from feedline import default_collate
from feedline.engine.arena import Arena
from feedline.engine.policy import ErrorPolicy
from feedline.engine.task import Recipe, Role, Task
from feedline.engine.threads.pool import ThreadPool
from feedline.order.plan import BatchPlan
inside = threading.Event()
class Hangs:
    def __getitem__(self, i):
        inside.set()
        threading.Event().wait()
pool = ThreadPool(2, arena=Arena())
executor = pool.open(Role(Recipe(Hangs(), default_collate, True, None, 0, ErrorPolicy()), 0))
executor.submit(Task(BatchPlan(0, 0, [0, 1], 0, 2)))
inside.wait()
print(time.monotonic(), flush=True)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=LONG_S, check=True)
    assert time.monotonic() - float(ran.stdout) < 2  # the interpreter's own end included
    assert not ran.stderr
