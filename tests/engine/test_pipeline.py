"""Laws of the pipeline: each batch once and in order; an error takes its batch's place; nothing is made too early."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedline.engine.executor import SerialExecutor
from feedline.engine.pipeline import Pipeline
from feedline.engine.task import Batch, Outcome, Task
from feedline.engine.window import Window
from feedline.order.plan import BatchPlan


class Maker:
    """Makes of each plan its step; what ``faults`` names for a step happens, each once."""

    def __init__(self, faults=None, end=None):
        self.faults = {step: list(errors) for step, errors in (faults or {}).items()}
        self.end = end
        self.made = []

    def make(self, task):
        step = task.plan.step
        if self.faults.get(step):
            error = self.faults[step].pop(0)
            if not isinstance(error, Exception):
                raise error
            return Outcome(task, error=error)
        if self.end is not None and step >= self.end:
            return Outcome(task)
        self.made.append(step)
        return Outcome(task, Batch(step, 1, step + 1))


class Reversed:
    """An executor that finishes the newest task first, as workers may."""

    has_outcome = False

    def __init__(self, maker):
        self.maker, self.tasks, self.most = maker, [], 0

    def submit(self, task):
        self.tasks.append(task)
        self.most = max(self.most, len(self.tasks))

    def collect(self):
        return self.maker.make(self.tasks.pop())

    def close(self):
        self.tasks.clear()


def plans(count):
    return (BatchPlan(0, step, [step], step, step + 1) for step in range(count))


def run(pipeline):
    return [str(outcome.error) if outcome.error else outcome.batch.value for outcome in iter(pipeline.take, None)]


@given(st.integers(0, 20), st.integers(1, 5), st.sets(st.integers(0, 19)))
def test_batches_leave_once_in_order_and_errors_take_their_place(count, most_under_way, bad):
    faults = {step: [ValueError(f"bad {step}")] for step in bad}
    expected = [f"bad {step}" if step in bad else step for step in range(count)]
    assert run(Pipeline(plans(count), SerialExecutor(Maker(faults)), Window(most_under_way))) == expected
    executor = Reversed(Maker(faults))
    assert run(Pipeline(plans(count), executor, Window(most_under_way))) == expected
    assert executor.most <= most_under_way


@given(st.integers(0, 12), st.integers(1, 5))
def test_a_stream_ends_where_its_maker_says(end, most_under_way):
    for executor in (SerialExecutor(Maker(end=end)), Reversed(Maker(end=end))):
        pipeline = Pipeline(plans(10**6), executor, Window(most_under_way))
        assert run(pipeline) == list(range(end))
        assert pipeline.take() is None


def test_nothing_is_made_before_it_is_asked_for():
    maker = Maker()
    pipeline = Pipeline(plans(5), SerialExecutor(maker), Window(1))
    assert maker.made == []
    pipeline.take()
    assert maker.made == [0]


def test_an_interrupted_batch_is_made_at_the_next_call():
    pipeline = Pipeline(plans(3), SerialExecutor(Maker({1: [KeyboardInterrupt(), KeyboardInterrupt()]})), Window(1))
    assert pipeline.take().batch.value == 0
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            pipeline.take()
    assert run(pipeline) == [1, 2]


def test_an_error_of_the_plans_is_raised_as_it_is():
    def broken():
        yield BatchPlan(0, 0, [0], 0, 1)
        raise ValueError("the sampler broke")

    pipeline = Pipeline(broken(), SerialExecutor(Maker()), Window(1))
    assert pipeline.take().batch.value == 0
    with pytest.raises(ValueError, match="the sampler broke"):
        pipeline.take()


def test_a_closed_pipeline_is_at_its_end():
    pipeline = Pipeline(plans(3), SerialExecutor(Maker()), Window(1))
    pipeline.take()
    pipeline.close()
    pipeline.close()
    assert pipeline.take() is None


def test_an_executor_may_be_closed_by_what_it_makes():
    class Closing(Maker):
        def make(self, task):
            executor.close()
            return super().make(task)

    executor = SerialExecutor(Closing())
    executor.submit(Task(BatchPlan(0, 0, [0], 0, 1)))
    assert executor.collect().batch.value == 0


@given(st.integers(0, 6), st.integers(0, 6), st.integers(1, 5))
def test_as_many_are_begun_as_is_said_and_there_is_room_for(count, most, room):
    executor = Reversed(Maker())
    pipeline = Pipeline(plans(count), executor, Window(room))
    assert pipeline.fill(most) == min(count, most, room) == len(executor.tasks)


def test_a_task_whose_submission_was_interrupted_is_submitted_again():
    class Interrupted(SerialExecutor):
        calls = 0

        def submit(self, task):
            self.calls += 1
            if self.calls == 1:
                raise KeyboardInterrupt
            super().submit(task)
            if self.calls == 3:
                raise KeyboardInterrupt

    pipeline = Pipeline(plans(4), Interrupted(Maker()), Window(2))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            pipeline.take()
    assert run(pipeline) == [0, 1, 2, 3]
