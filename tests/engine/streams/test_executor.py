"""Laws of streams with workers: the batches of one worker, for any number of them, whatever is lost on the way."""

import dataclasses
import pickle
import queue
import threading
import typing
from collections import deque
from contextlib import contextmanager
from itertools import chain

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import feedline
from feedline import DataLoader, ErrorPolicy, FeedlineError, IterableDataset, Shard, get_worker_info
from feedline.batching import default_collate, default_convert
from feedline.engine.arena import Arena
from feedline.engine.executor import SerialExecutor
from feedline.engine.pipeline import Pipeline
from feedline.engine.policy import FailedSample
from feedline.engine.streams import executor as stages
from feedline.engine.streams.executor import StreamExecutor
from feedline.engine.streams.making import stream_maker
from feedline.engine.streams.merging import Line, Source
from feedline.engine.streams.reading import Read
from feedline.engine.task import Batch, Outcome, Recipe, Role, StreamStart, Task
from feedline.engine.window import Window
from feedline.engine.worker import WorkerInfo, entered
from feedline.errors import WorkerError
from feedline.order.plan import BatchPlan, Geometry

# ------------------------------------------------------------------------------------------------------------ a pool


class Pool:
    """Threads as workers. Remote ones share nothing: what passes is pickled, and each has its own copy of the role.

    A death is the number of a task, counted over all workers: its outcome is lost, with all that its worker holds, and
    it is done again.
    """

    def __init__(self, num_workers, *, remote=False, deaths=()):
        self.num_workers = num_workers
        self.shares_memory = not remote
        self.deaths = set(deaths)
        self.done = 0
        self.given = 0
        self.changed = threading.Condition()
        self.queues = [queue.SimpleQueue() for _ in range(num_workers)]
        self.threads = [threading.Thread(target=self._work, args=(number,)) for number in range(num_workers)]
        for thread in self.threads:
            thread.start()

    def open(self, role, *, pinned=None, like=None):
        return Session(self, role, pinned)

    def wait(self, executors):
        with self.changed:
            assert self.changed.wait_for(lambda: any(each.arrived for each in executors), timeout=30)

    def close(self):
        for each in self.queues:
            each.put(None)
        for thread in self.threads:
            thread.join()

    def _work(self, number):
        makers = {}
        while (job := self.queues[number].get()) is not None:
            session, task = job
            while True:
                if session not in makers:
                    role = cloudpickle.loads(session.packed) if session.packed else session.role
                    makers[session] = stream_maker(role, Arena(), where=f"worker {number}", seeds_globals=False)
                info = WorkerInfo(number, self.num_workers, seed=1, dataset=None)
                with entered(info):
                    outcome = makers[session].make(task if session.packed is None else pickle.loads(task))
                packed = outcome if session.packed is None else cloudpickle.dumps(outcome)
                with self.changed:
                    self.done += 1
                    if self.done not in self.deaths:
                        session.arrived.append(packed)
                        self.changed.notify_all()
                        break
                makers.clear()


class Session:
    interrupt = None

    def __init__(self, pool, role, pinned):
        self.pool, self.role, self.pinned = pool, role, pinned
        self.packed = None if pool.shares_memory else cloudpickle.dumps(role)
        self.arrived = deque()
        self.steps = set()

    def submit(self, task):
        assert task.plan.step not in self.steps, "two tasks of a step are under way"
        self.steps.add(task.plan.step)
        self.pool.given += 1
        worker = self.pool.given % self.pool.num_workers if self.pinned is None else self.pinned
        self.pool.queues[worker].put((self, pickle.dumps(task) if self.packed else task))

    def poll(self):
        if not self.arrived:
            return None
        outcome = self.arrived.popleft()
        if self.interrupt is not None:
            raise self.interrupt
        outcome = pickle.loads(outcome) if self.packed else outcome
        self.steps.remove(outcome.task.plan.step)
        return outcome

    def close(self):
        pass


# ------------------------------------------------------------------------------------------------------- an epoch of it


@contextmanager
def open_pool(num_workers, **how):
    pool = Pool(num_workers, **how) if num_workers else None
    try:
        yield pool
    finally:
        if pool is not None:
            pool.close()


def role_of(dataset, size, *, shard=(0, 1), position=0, origin=0, drop_last=False, on_error="raise", epoch=0, **how):
    recipe = Recipe(
        dataset=dataset,
        collate_fn=how.get("collate_fn", default_collate if size else default_convert),
        batched=bool(size),
        batch_transform=how.get("batch_transform"),
        seed=1,
        policy=ErrorPolicy(on_error),
    )
    return Role(recipe, epoch, StreamStart(Geometry(size or 1, drop_last, Shard(*shard)), origin, position))


def outcomes(role, pool):
    """What comes of all tasks of an epoch, in order."""
    start = role.stream
    first = (start.position - start.origin) // start.geometry.span
    executor = SerialExecutor(stream_maker(role, Arena())) if pool is None else StreamExecutor(pool, role)
    plans = (BatchPlan(role.epoch, step, (), 0, 0) for step in range(first, first + 200))
    pipeline = Pipeline(plans, executor, Window(4 if pool else 1))
    while (outcome := pipeline.take()) is not None:
        yield outcome
    pipeline.close()


def told(outcome):
    """An outcome as plain data, the place in it left out."""
    failures = [(failed.index, failed.step, str(failed.error)) for failed in outcome.failures]
    if outcome.error is not None:
        notes = [note.split(", in ")[0] for note in getattr(outcome.error, "__notes__", ())]
        return outcome.task.plan.step, type(outcome.error), str(outcome.error), notes, failures
    batch = outcome.batch
    leaves = batch.value if isinstance(batch.value, list | tuple) else [batch.value]
    return outcome.task.plan.step, [np.asarray(leaf).tolist() for leaf in leaves], batch.samples, batch.until, failures


def run(role, num_workers=0, **how):
    with open_pool(num_workers, **how) as pool:
        return [told(outcome) for outcome in outcomes(role, pool)]


# ------------------------------------------------------------------------------------------------------------- streams


class Numbers(IterableDataset):
    """0, 1, 2, … each with a number drawn for it; those in ``bad`` raise, so often."""

    def __init__(self, length, bad=None):
        self.length = length
        self.bad = dict.fromkeys(bad, 1) if isinstance(bad, list) else dict(bad or {})

    def __iter__(self):
        return Items(range(self.length), self.bad)


class Items:
    def __init__(self, numbers, bad):
        self.numbers, self.bad, self.place = numbers, dict(bad), 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.place >= len(self.numbers):
            raise StopIteration
        number = self.numbers[self.place]
        if self.bad.get(number):
            self.bad[number] -= 1
            raise ValueError(f"cannot read {number}")
        self.place += 1
        return number, feedline.rng().integers(1 << 40)


class Sharded(IterableDataset):
    """Shards of these lengths; number i of shard s is 100 s + i."""

    def __init__(self, lengths, bad=None, *, as_list=False):
        self.lengths, self.bad, self.as_list = lengths, bad, as_list
        self.closed = set()

    def shards(self):
        return list(self.lengths) if self.as_list else len(self.lengths)

    def iter_shard(self, shard):
        if shard in self.closed:
            raise OSError(f"cannot open {shard}")
        return Items(range(100 * shard, 100 * shard + self.lengths[shard]), dict.fromkeys(self.bad or (), 1))

    def __iter__(self):
        for shard in range(len(self.lengths)):
            yield from self.iter_shard(shard)


def noisy(sample):
    number, drawn = sample
    return number, drawn, feedline.rng().integers(1 << 40)


def shaken(drawn):
    return drawn + feedline.rng().random()


def fails_on(*bad):
    def check(sample):
        if sample[0] in bad:
            raise KeyError(f"bad {sample[0]}")
        return sample

    return check


KINDS = {
    "plain": Numbers,
    "mapped": lambda length: Numbers(length).map(noisy).map(shaken, key=2),
    "sharded": lambda length: Sharded([length // 2, 0, length - length // 2 - length // 5, length // 5]),
    "sharded and mapped": lambda length: Sharded([length // 3, length - length // 3], as_list=True).map(noisy),
    "shuffled": lambda length: Numbers(length).shuffle(7),
    "mapped, shuffled and mapped": lambda length: Numbers(length).map(noisy).shuffle(5).map(shaken, key=2),
    "shards shuffled": lambda length: Sharded(
        [length // 2, 0, length - length // 2 - length // 5, length // 5]
    ).shuffle(9, interleave=2),
    "shards shuffled and mapped": lambda length: (
        Sharded([*[3] * (length // 3), length % 3]).shuffle(30, interleave=3).map(noisy)
    ),
}
kinds = pytest.mark.parametrize("kind", KINDS)
remotes = pytest.mark.parametrize("remote", [False, True], ids=["threads", "remote"])


@kinds
@remotes
@pytest.mark.parametrize("num_workers", [1, 2, 5])
def test_any_number_of_workers_makes_the_batches_of_none(kind, remote, num_workers):
    role = role_of(KINDS[kind](61), 4)
    expected = run(role)
    numbers = [number for _, leaves, *_ in expected for number in leaves[0]]
    assert len(set(numbers)) == len(numbers) == 61
    assert run(role, num_workers, remote=remote) == expected


@kinds
def test_single_samples_come_from_workers_as_without_them(kind):
    role = role_of(KINDS[kind](20), None, batch_transform=lambda sample: (*sample, feedline.rng().random()))
    assert run(role, 3, remote=True) == run(role)


@given(
    kind=st.sampled_from([*KINDS]),
    length=st.integers(0, 60),
    size=st.integers(1, 7),
    world=st.integers(1, 4),
    end=st.sampled_from(["pad", "drop", "exact"]),
    drop_last=st.booleans(),
    remote=st.booleans(),
    num_workers=st.integers(1, 3),
    data=st.data(),
)
def test_ranks_resumes_and_deaths_change_nothing(kind, length, size, world, end, drop_last, remote, num_workers, data):
    rank = data.draw(st.integers(0, world - 1))
    steps = data.draw(st.integers(0, length // (size * world)))
    deaths = data.draw(st.sets(st.integers(1, 30), max_size=4))
    dataset = KINDS[kind](length)
    shape = {"shard": (rank, world, end), "drop_last": drop_last}
    whole = run(role_of(dataset, size, **shape))
    resumed = role_of(dataset, size, position=steps * size * world, **shape)
    assert run(resumed) == whole[steps:]
    assert run(resumed, num_workers, remote=remote, deaths=deaths) == whole[steps:]


@kinds
def test_a_resume_with_another_geometry_gives_the_rest(kind):
    dataset = KINDS[kind](40)
    role = role_of(dataset, 3, position=11, origin=11, shard=(1, 2))
    assert run(role, 2, remote=True) == run(role)


@kinds
@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_a_resume_beyond_the_end_is_an_error(kind, num_workers):
    role = role_of(KINDS[kind](20), 4, position=40)
    with open_pool(num_workers) as pool:
        first = next(outcomes(role, pool))
    assert isinstance(first.error, FeedlineError)
    assert "40 samples were delivered, but the stream ended after 20" in str(first.error)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("bad", [{6: 1}, {0: 1, 7: 3}, {13: 1, 14: 1, 29: 1}])
@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_errors_of_reading_come_as_without_workers(on_error, bad, mapped, num_workers):
    dataset = Numbers(30, bad).map(noisy) if mapped else Numbers(30, bad)
    role = role_of(dataset, 4, on_error=on_error)
    expected = run(role)
    assert sum(len(made[-1]) for made in expected) == sum(bad.values())
    assert run(role, num_workers, remote=True) == expected
    assert run(role, num_workers, remote=True, deaths=[2, 5, 9]) == expected


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_errors_in_shards_come_as_without_workers(on_error, num_workers):
    role = role_of(Sharded([9, 3, 12, 5], bad=[3, 102, 204, 404]), 4, on_error=on_error)
    expected = run(role)
    failures = [index for made in expected for index, *_ in made[-1]]
    assert failures == [(0, 3), (1, 2), (2, 4), (4, 4)][: len(failures)]
    assert run(role, num_workers, remote=True) == expected
    assert run(role, num_workers, remote=True, deaths=[2, 5, 9]) == expected


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_a_shard_that_cannot_be_opened_is_an_error_and_the_next_one_follows(num_workers):
    dataset = Sharded([5, 5, 5])
    dataset.closed = {1}
    made = run(role_of(dataset, 5, on_error="skip"), num_workers, remote=True)
    assert [entry[1] if isinstance(entry[1], type) else entry[1][0][0] for entry in made] == [0, OSError, 200]
    assert made[1][3][0] == "while opening shard 1 of the stream"
    role = role_of(dataset, 5, position=5)
    assert [entry[1][0][0] for entry in run(role, num_workers) if not isinstance(entry[1], type)] == [200]


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_an_error_of_a_function_says_which_sample_and_takes_its_batch(num_workers):
    dataset = Numbers(12).map(fails_on(5))
    made = run(role_of(dataset, 4), num_workers, remote=True)
    assert [entry[0] for entry in made] == [0, 1, 2]
    assert made[1][1:3] == (KeyError, "'bad 5'")
    assert made[1][3] == ["in sample 5 of the stream", "while making epoch 0, step 1"]
    assert [entry[3] for entry in (made[0], made[2])] == [4, 12]


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_under_skip_a_function_that_fails_makes_the_batch_shorter(num_workers):
    dataset = Numbers(12, [1, 9]).map(fails_on(0, 5, 6, 8, 9, 10, 11))
    first, second, third = run(role_of(dataset, 4, on_error="skip"), num_workers, remote=True)
    assert first[1][0] == [1, 2, 3]
    assert first[2:] == (5, 4, [(1, 0, "cannot read 1"), (0, 0, "'bad 0'")])
    assert second[1][0] == [4, 7]
    assert third[1] is FeedlineError
    assert "all 4 samples of the batch failed (epoch 0, step 2); the first was index 8" in third[2]


@pytest.mark.parametrize("num_workers", [0, 1, 2])
@pytest.mark.parametrize("mapped", [False, True])
def test_a_generator_that_an_error_has_ended_is_not_taken_for_complete(num_workers, mapped):
    class Broken(IterableDataset):
        def __iter__(self):
            yield from range(5)
            raise ValueError("bad")

    dataset = Broken().map(abs) if mapped else Broken()
    made = run(role_of(dataset, 2, on_error="skip"), num_workers, remote=True)
    assert [entry[1] for entry in made] == [[[0, 1]], [[2, 3]], ValueError, [[4]]]
    assert made == run(role_of(dataset, 2, on_error="skip"))


_loaded = []  # the threads that unpickled an item


class Counted:
    def __init__(self, number):
        self.number = number

    def __reduce__(self):
        return _counted, (self.number,)


def _counted(number):
    _loaded.append(threading.current_thread())
    return Counted(number)


@pytest.mark.parametrize("sharded", [False, True])
def test_items_pass_through_unopened(sharded):
    class Stream(IterableDataset):
        def __iter__(self):
            return map(Counted, range(10))

        if sharded:

            def shards(self):
                return 2

            def iter_shard(self, shard):
                return map(Counted, range(5 * shard, 5 * shard + 5))

    _loaded.clear()
    made = run(role_of(Stream().map(lambda item: item.number), 3), 2, remote=True)
    assert [number for entry in made for number in entry[1][0]] == list(range(10))
    assert len(_loaded) == 10
    assert threading.main_thread() not in _loaded


def test_an_item_that_cannot_be_pickled_is_an_error_at_its_place():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([0, 1, threading.Lock(), 3])

    dataset = Stream().map(lambda item: item if isinstance(item, int) else -1)
    made = run(role_of(dataset, 2), 2, remote=True)
    assert made[0][1] == [[0, 1]]
    assert made[1][1] is TypeError
    assert "cannot be pickled" in made[1][2]
    assert "in sample 2 of the stream" in made[1][3]
    assert run(role_of(dataset, 2), 2)[1][1] == [[-1, 3]]


@pytest.mark.parametrize("num_workers", [1, 3])
@kinds
def test_a_reader_is_told_that_it_is_alone_and_a_function_where_it_runs(kind, num_workers):
    readers, finishers = set(), set()

    class Told(IterableDataset):
        def __iter__(self):
            for number in range(40):
                info = get_worker_info()
                readers.add((info.id, info.num_workers))
                yield number

    class ToldByShard(Told):
        def shards(self):
            return 4

        def iter_shard(self, shard):
            return iter(self)

    def where(number):
        info = get_worker_info()
        finishers.add((info.id, info.num_workers))
        return number

    dataset = ToldByShard() if "sharded" in kind else Told()
    run(role_of(dataset.map(where) if "mapped" in kind else dataset, 4), num_workers)
    assert readers == {(0, 1)}
    assert finishers == ({(number, num_workers) for number in range(num_workers)} if "mapped" in kind else set())


@pytest.mark.parametrize("mapped", [False, True])
def test_an_iterator_whose_reader_is_lost_is_an_error(mapped):
    items = iter(range(40))
    dataset = feedline.datasets.MapIterableDataset(items, abs) if mapped else items
    made = run(role_of(dataset, 4), 2, deaths=range(3, 100, 50))
    errors = [entry for entry in made if entry[1] is FeedlineError]
    assert "range_iterator is an iterator, which cannot be read again" in errors[0][2]


@pytest.mark.parametrize("mapped", [False, True])
def test_what_a_new_reader_does_not_find_again_is_an_error(mapped):
    class Shrinking(IterableDataset):
        opened = 0

        def __iter__(self):
            self.opened += 1
            return iter(range(40 if self.opened == 1 else 5))

    dataset = Shrinking().map(abs) if mapped else Shrinking()
    made = run(role_of(dataset, 4), 2, deaths=range(6, 60, 3))
    errors = [entry for entry in made if entry[1] is FeedlineError]
    assert "read anew it ended after 5; a stream that has workers must be the same" in errors[0][2]


class Sized(Numbers):
    def __len__(self):
        return 4


@pytest.mark.parametrize("mapped", [False, True])
def test_a_stream_longer_than_its_length_warns_where_the_loop_is(mapped):
    dataset = Sized(8).map(noisy) if mapped else Sized(8)
    with open_pool(2) as pool, pytest.warns(UserWarning, match=r"len\(\) is 4, but it goes on beyond that") as told_of:
        assert len(list(outcomes(role_of(dataset, 2), pool))) == 4
    assert len(told_of) == 1


@pytest.mark.parametrize("mapped", [False, True])
def test_an_iterator_that_is_used_up_warns_where_the_loop_is(mapped):
    dataset = feedline.datasets.MapIterableDataset(iter([]), abs) if mapped else iter([])
    with open_pool(2) as pool, pytest.warns(UserWarning, match="epoch 1 is empty: the dataset is an iterator"):
        assert list(outcomes(role_of(dataset, 2, epoch=1), pool)) == []


class Endless(IterableDataset):
    def __iter__(self):
        self.read = 0
        while True:
            self.read += 1
            yield self.read - 1


@pytest.mark.parametrize("size", [3, 400])
def test_an_endless_stream_is_read_no_further_than_what_is_under_way(size):
    dataset = Endless()
    with open_pool(2) as pool:
        made = outcomes(role_of(dataset.map(abs), size), pool)
        assert [next(made).batch.value[0] for _ in range(3)] == [0, size, 2 * size]
        assert dataset.read <= 7 * size + 256


def test_shards_that_follow_are_read_ahead_up_to_a_bound():
    read = [0, 0, 0]

    class Long(IterableDataset):
        def shards(self):
            return 3

        def iter_shard(self, shard):
            for number in range(100_000):
                read[shard] += 1
                yield number

        def __iter__(self):
            raise AssertionError("shards are there")

    with open_pool(2) as pool:
        made = outcomes(role_of(Long(), 8), pool)
        for _ in range(20):
            next(made)
    assert 0 < read[1] <= 1024 + 256
    assert read[2] == 0


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("count", [-1, 1.5, None])
def test_the_number_of_shards_is_checked(num_workers, count):
    dataset = Sharded([3])
    dataset.shards = lambda: count
    with open_pool(num_workers) as pool:
        error = next(outcomes(role_of(dataset, 2), pool)).error
    assert isinstance(error, ValueError)
    assert "dataset.shards() must be a non-negative integer" in str(error)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_stop_iteration_of_opening_is_an_error(num_workers):
    dataset = Sharded([3])
    dataset.iter_shard = lambda shard: next(iter(()))
    with open_pool(num_workers) as pool:
        error = next(outcomes(role_of(dataset, 2), pool)).error
    assert isinstance(error, RuntimeError)
    assert "the stream raised StopIteration when it was opened" in str(error)


@pytest.mark.parametrize("dataset", [Numbers(8), Numbers(8).map(noisy)], ids=["plain", "mapped"])
def test_a_closed_executor_and_an_idle_one_say_so(dataset):
    with open_pool(2) as pool:
        executor = StreamExecutor(pool, role_of(dataset, 2))
        with pytest.raises(RuntimeError, match="nothing is under way"):
            executor.collect()
        executor.close()
        executor.close()
        with pytest.raises(RuntimeError, match="the loader was closed"):
            executor.collect()


@pytest.mark.parametrize("dataset", [Numbers(8), Numbers(8).map(noisy)], ids=["plain", "mapped"])
def test_after_an_interrupt_that_may_have_lost_a_batch_nothing_goes_on_as_if_it_had_not(dataset):
    role = role_of(dataset, 2)
    with open_pool(2) as pool:
        executor = StreamExecutor(pool, role)
        for session in executor.executors:
            session.interrupt = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            list(iter_all(executor))
        with pytest.raises(RuntimeError, match=r"interrupted while its batches were handed on.*resume from state_dict"):
            executor.collect()


def iter_all(executor):
    for step in range(4):
        executor.submit(Task(BatchPlan(0, step, (), 0, 0)))
    while True:
        yield executor.collect()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_sample_that_is_known_to_kill_its_worker_fails_without_being_made(num_workers):
    made = []
    role = role_of(Numbers(4).map(made.append).map(lambda _: 1), 4, on_error="skip")
    start = role.stream
    role = dataclasses.replace(role, stream=dataclasses.replace(start, stage="finish"))
    plan = BatchPlan(0, 0, range(4), 0, 4)
    task = Task(plan, fatal=((2, "sample 2 kills its worker"),), items=[10, 11, 12, 13])
    if num_workers:
        with open_pool(num_workers) as pool:
            executor = pool.open(role)
            executor.submit(task)
            pool.wait([executor])
            outcome = executor.poll()
    else:
        outcome = stream_maker(role, Arena()).make(task)
    assert made == [10, 11, 13]
    assert outcome.batch.value.tolist() == [1, 1, 1]
    assert [(failed.index, str(failed.error)) for failed in outcome.failures] == [(2, "sample 2 kills its worker")]


@remotes
@pytest.mark.parametrize("mapped", [False, True])
def test_where_the_pool_gives_up_a_reader_its_batch_is_read_again_or_passed_over(remote, mapped):
    """Where other workers finish, nothing is known of the batch; where one worker does it all, it is its batch."""
    dataset = Numbers(12).map(noisy) if mapped else Numbers(12)
    with open_pool(2, remote=remote) as pool:
        executor = StreamExecutor(pool, role_of(dataset, 4))
        reader = executor.executors[0]
        submit = reader.submit

        def refused(task):
            reader.steps.add(task.plan.step)
            outcome = Outcome(task, error=WorkerError("the reader died"))
            reader.arrived.append(cloudpickle.dumps(outcome) if remote else outcome)
            reader.submit = submit

        reader.submit = refused
        outcomes = iter_all(executor)
        made = [next(outcomes) for _ in range(4)]
        executor.close()
    made.sort(key=lambda outcome: outcome.task.plan.step)
    assert isinstance(made[0].error, WorkerError)
    batches = [(outcome.batch.value[0].tolist(), outcome.batch.until) for outcome in made[1:] if outcome.batch]
    whole = [([0, 1, 2, 3], 4), ([4, 5, 6, 7], 8), ([8, 9, 10, 11], 12)]
    assert batches == (whole if mapped else whole[1:])


# ------------------------------------------------------------------------------------------------------- particulars


@kinds
def test_what_a_batch_transform_draws_is_the_batchs_own(kind):
    role = role_of(KINDS[kind](40), 4, batch_transform=lambda batch: (*batch, feedline.rng().integers(1 << 40)))
    expected = run(role)
    assert len({made[1][-1] for made in expected}) == 10
    assert run(role, 2, remote=True) == expected


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("position", [0, 12])
@remotes
def test_ranks_that_lack_the_first_items_are_padded_with_them(rank, position, remote):
    dataset = Numbers(25).map(noisy)
    role = role_of(dataset, 4, shard=(rank, 3, "pad"), position=position)
    expected = run(role_of(dataset, 4, shard=(rank, 3, "pad")))[position // 12 :]
    assert expected[-1][1][0] == [24 if rank == 0 else rank - 1]
    assert run(role, 2, remote=remote) == expected


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("num_workers", [2, 3])
def test_an_error_at_a_shards_first_item_is_that_shards(monkeypatch, on_error, num_workers):
    """Also where the stretch before has read the shard before to its last item, and not that it was the last."""
    monkeypatch.setattr(stages, "_BLOCK", 4)
    role = role_of(Sharded([8, 4, 8, 4, 4, 3, 8], bad=[200, 300, 400, 500, 600]), 3, on_error=on_error)
    assert run(role, num_workers, remote=True) == run(role)


class Heavy(IterableDataset):
    """Two shards of items of a kilobyte."""

    read: typing.ClassVar = [0, 0]

    def shards(self):
        return 2

    def iter_shard(self, shard):
        for number in range(100):
            self.read[shard] += 1
            yield np.full(128, 100 * shard + number)

    def __iter__(self):
        raise AssertionError("shards are there")


def test_items_read_ahead_are_bounded_by_their_bytes(monkeypatch):
    monkeypatch.setattr(stages, "_BLOCK", 4)
    monkeypatch.setattr(stages, "_AHEAD_NBYTES", 10_000)
    Heavy.read[:] = 0, 0
    with open_pool(2, remote=True) as pool:
        made = outcomes(role_of(Heavy(), 4, collate_fn=lambda batch: [item[0] for item in batch]), pool)
        numbers = [number for _ in range(10) for number in next(made).batch.value]
        assert 0 < Heavy.read[1] <= 12
        numbers += [number for outcome in made for number in outcome.batch.value]
    assert numbers == [*range(200)]


class Answers:
    """An executor whose answers are given by hand."""

    def __init__(self):
        self.tasks, self.arrived = deque(), deque()
        self.closed = False

    def close(self):
        self.closed = True

    def submit(self, task):
        self.tasks.append(task)

    def poll(self):
        return self.arrived.popleft() if self.arrived else None

    def answer(self, until, samples, *, bad=None):
        task = self.tasks.popleft()
        failures = () if bad is None else (FailedSample(bad, 0, 0, ValueError()),)
        error = None if bad is None else ValueError()
        self.arrived.append(Outcome(task, Batch("some" if samples else None, samples, until), error, failures))

    def lose(self, error):
        self.arrived.append(Outcome(self.tasks.popleft(), error=error))


def test_a_reader_lost_twice_in_a_row_is_closed_and_what_it_was_asked_for_costs_no_more_workers():
    executor = Answers()
    source = Source(executor, 0, 0)
    plan = BatchPlan(0, 0, (), 0, 0)
    for _ in range(5):
        source.line.ask(plan, 4)
    exhausted = WorkerError("no more workers")
    executor.lose(exhausted)
    executor.lose(exhausted)
    assert not source.hear()
    executor.answer(0, 0)  # a new reader lives
    assert not source.hear()
    executor.lose(WorkerError("killed"))
    assert not source.hear()
    assert not executor.closed
    executor.lose(WorkerError("killed"))
    assert source.hear()
    assert not source.hear()
    assert executor.closed
    assert source.has_ended


def test_after_a_short_answer_nothing_is_asked_until_all_is_answered():
    executor = Answers()
    line = Line(executor, 0)
    plan = BatchPlan(0, 0, (), 0, 0)
    for _ in range(3):
        line.ask(plan, 4)
    executor.answer(2, 2)
    assert len(list(line.answers())) == 1
    assert not line.may_ask
    executor.answer(2, 0)
    executor.answer(2, 0)
    assert list(line.answers()) == []
    assert line.may_ask
    assert line.next == 2


def test_a_new_reader_is_told_of_the_failures_since_the_last_item_and_no_others():
    executor = Answers()
    line = Line(executor, 0)
    told_of = []
    for until, samples, bad in [(0, 0, 0), (4, 4, None), (4, 0, 4), (4, 0, 4), (8, 4, None), (8, 0, 8)]:
        line.ask(BatchPlan(0, 0, (), 0, 0), 4)
        told_of.append(executor.tasks[0].items.failed)
        executor.answer(until, samples, bad=bad)
        assert len(list(line.answers())) == 1
    assert told_of == [(), (0,), (), (4,), (4, 4), ()]


# ---------------------------------------------------------------------------------------------------------- shuffling


FAULTY = {
    "plain": lambda bad: Numbers(30, dict.fromkeys(bad, 1)).shuffle(5),
    "mapped": lambda bad: Numbers(30, dict.fromkeys(bad, 1)).map(noisy).shuffle(5),
    "sharded": lambda bad: Sharded([9, 0, 12, 5, 4], [100 * (n % 5) + n // 5 for n in bad]).shuffle(5, interleave=2),
    "sharded and mapped": lambda bad: Sharded([9, 21], [100 * (n % 2) + n // 2 for n in bad]).shuffle(5).map(noisy),
}
faulty = pytest.mark.parametrize("kind", FAULTY)


def without_steps(made):
    """What came of an epoch, without the numbers of steps (an error takes one): values and until, or type and text."""
    told_of = [[(index, text) for index, _, text in entry[-1]] for entry in made]
    places = [(1, 2) if isinstance(entry[1], type) else (1, 3) for entry in made]
    return [(*(entry[at] for at in place), told) for entry, place, told in zip(made, places, told_of, strict=True)]


@faulty
@settings(max_examples=40)
@given(
    bad=st.sets(st.integers(0, 29), max_size=6),
    on_error=st.sampled_from(["raise", "skip"]),
    size=st.integers(1, 5),
    remote=st.booleans(),
    num_workers=st.integers(1, 3),
    deaths=st.sets(st.integers(1, 30), max_size=4),
)
def test_errors_beneath_a_shuffle_come_as_without_workers(kind, bad, on_error, size, remote, num_workers, deaths):
    role = role_of(FAULTY[kind](bad), size, on_error=on_error)
    expected = run(role)
    assert run(role, num_workers, remote=remote, deaths=deaths) == expected
    numbers = [number for entry in expected if not isinstance(entry[1], type) for number in entry[1][0]]
    assert len(numbers) == len(set(numbers)) == 30  # a number that could not be read is read the next time
    assert sum(len(entry[-1]) for entry in expected) <= len(bad)


@faulty
@settings(max_examples=40)
@given(
    bad=st.sets(st.integers(0, 29), max_size=6),
    on_error=st.sampled_from(["raise", "skip"]),
    num_workers=st.integers(0, 3),
    data=st.data(),
)
def test_a_resume_tells_of_no_error_beneath_a_shuffle_twice(kind, bad, on_error, num_workers, data):
    whole = without_steps(run(role_of(FAULTY[kind](bad), 4, on_error=on_error)))
    full = [at for at, entry in enumerate(whole) if not isinstance(entry[0], type) and entry[1] % 4 == 0]
    last = data.draw(st.sampled_from(full))
    role = role_of(FAULTY[kind](bad), 4, on_error=on_error, position=whole[last][1])
    assert without_steps(run(role, num_workers, remote=True)) == whole[last + 1 :]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("interleave", [1, 3])
def test_a_generator_of_a_shard_that_an_error_has_ended_is_not_taken_for_complete(num_workers, interleave):
    class Broken(Sharded):
        def iter_shard(self, shard):
            yield from range(100 * shard, 100 * shard + 4)
            if shard == 1:
                raise ValueError("bad")

    role = role_of(Broken([4, 4, 4]).shuffle(2, interleave=interleave), 3, on_error="skip")
    made = run(role, num_workers, remote=True)
    (error,) = [entry for entry in made if isinstance(entry[1], type)]
    assert error[1:3] == (ValueError, "bad")
    assert error[3][0] == "while reading shard 1 of the stream, before it is shuffled"
    assert error[3][1].startswith("in sample ")
    assert " of group " in error[3][1]
    assert sum(len(entry[1][0]) for entry in made if entry is not error) == 12


@pytest.mark.parametrize("mapped", [False, True])
def test_a_generator_that_an_error_has_ended_gives_what_the_buffer_holds_and_is_resumed(mapped):
    class Broken(IterableDataset):
        def __iter__(self):
            yield from range(9)
            raise ValueError("bad")

    dataset = Broken().map(abs).shuffle(4) if mapped else Broken().shuffle(4)
    made = run(role_of(dataset, 3, on_error="skip"))
    assert [entry[1] if isinstance(entry[1], type) else 3 for entry in made] == [3, 3, ValueError, 3]
    assert run(role_of(dataset, 3, on_error="skip"), 2, remote=True) == made
    rest = without_steps(run(role_of(dataset, 3, on_error="skip", position=6), 2))
    assert rest == without_steps(made)[2:]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_shard_beneath_a_shuffle_that_cannot_be_opened_is_an_error_and_the_others_follow(num_workers):
    dataset = Sharded([5, 5, 5])
    dataset.closed = {1}
    made = run(role_of(dataset.shuffle(3, interleave=2), 5, on_error="skip"), num_workers, remote=True)
    (error,) = [entry for entry in made if isinstance(entry[1], type)]
    assert error[1] is OSError
    assert error[3][0] == "while opening shard 1 of the stream"
    numbers = [number for entry in made if entry is not error for number in entry[1][0]]
    assert sorted(numbers) == [*range(5), *range(200, 205)]


def test_an_iterator_beneath_a_shuffle_whose_reader_is_lost_is_an_error():
    dataset = feedline.ShuffledStream(iter(range(40)), 4)
    made = run(role_of(dataset, 4), 2, deaths=range(3, 100, 50))
    errors = [entry for entry in made if entry[1] is FeedlineError]
    assert "range_iterator is an iterator, which cannot be read again" in errors[0][2]


class _Held(IterableDataset):
    """Two shards that wait, after some items, for leave to go on."""

    def __init__(self):
        self.leave = threading.Event()

    def shards(self):
        return 2

    def iter_shard(self, number):
        for item in range(500):
            if item == 20:
                self.leave.wait()
            yield number * 1_000 + item

    def __iter__(self):
        return chain.from_iterable(map(self.iter_shard, range(2)))


def test_the_first_batch_of_a_slow_stream_waits_for_few_items():
    dataset = _Held()
    with DataLoader(dataset, 4, num_workers=2, backend="thread", timeout=30) as loader:
        batches = iter(loader)
        try:
            assert len(next(batches)) == 4  # while no shard has come to its 21st item
        finally:
            dataset.leave.set()
        assert sum(map(len, batches)) == 996


def test_of_slow_items_no_more_are_asked_for_than_are_read_in_the_time_allowed():
    executor = Answers()
    source = Source(executor, 0, 0)
    assert source.within(0.05, 256) == 256  # nothing is known yet
    source.line.ask(BatchPlan(0, 0, (), 0, 0), 4)
    read = Read([0] * 4, [0] * 4, [], shard=0, shards=1, head=[], took_s=2.0)
    executor.arrived.append(Outcome(executor.tasks.popleft(), Batch(read, 4, 4)))
    source.hear()
    assert [source.within(seconds, 256) for seconds in (0.05, 5, 1_000)] == [1, 10, 256]


def test_the_number_of_shards_is_no_text():
    class Texts(_Held):
        def shards(self):
            return "2"

    with pytest.raises(ValueError, match=r"^dataset.shards\(\) must be a non-negative integer, got '2'\n"):
        list(DataLoader(Texts(), 4))
