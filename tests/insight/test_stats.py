from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedline.insight import Counters, Stats

EVENTS = st.lists(
    st.tuples(st.sampled_from(["delivered", "failed"]), st.integers(0, 100))
    | st.tuples(st.sampled_from(["passed_over", "restarted", "epoch_ended"])),
)


@given(EVENTS)
def test_the_counts_are_those_of_the_events(events):
    counters = Counters()
    for name, *arguments in events:
        getattr(counters, name)(*arguments)
    names = [name for name, *_ in events]
    assert counters.snapshot() == Stats(
        batches=names.count("delivered"),
        samples=sum(rest[0] for name, *rest in events if name == "delivered"),
        failed_samples=sum(rest[0] for name, *rest in events if name == "failed"),
        empty_batches=names.count("passed_over"),
        restarts=names.count("restarted"),
        epochs=names.count("epoch_ended"),
    )


def test_a_snapshot_stays_as_it_was():
    counters = Counters()
    before = counters.snapshot()
    counters.delivered(4)
    assert (before, before.batches) == (Stats(), 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.batches = 1


def test_counters_begin_at_zero_when_they_are_reset():
    counters = Counters()
    counters.delivered(4)
    counters.failed(1)
    counters.passed_over()
    counters.restarted()
    counters.epoch_ended()
    assert counters.snapshot() == Stats(1, 4, 1, 1, 1, 1)
    counters.reset()
    assert counters.snapshot() == Stats()
