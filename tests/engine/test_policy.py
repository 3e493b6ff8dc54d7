"""Laws of the error policy: checked data, and a budget counted in the order of delivery."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedline.engine.policy import ErrorPolicy, FailedSample, FailureBudget
from feedline.errors import FeedlineError


def failures(count):
    return tuple(FailedSample(index, 2, 5, KeyError(f"bad {index}")) for index in range(count))


@pytest.mark.parametrize("action", ["ignore", "", None, 1, [], True])
def test_the_action_is_one_of_three(action):
    with pytest.raises(ValueError, match="on_error must be 'raise', 'skip', 'replace' or an ErrorPolicy, got"):
        ErrorPolicy(action)


@pytest.mark.parametrize("count", [-1, True, 1.5, "3"])
def test_max_count_is_a_number_of_samples(count):
    with pytest.raises((ValueError, TypeError), match="max_count must be a non-negative integer, got"):
        ErrorPolicy("skip", max_count=count)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan"), "half"])
def test_max_rate_is_a_share(rate):
    with pytest.raises((ValueError, TypeError), match="max_rate must be None or a share from 0 to 1, got"):
        ErrorPolicy("skip", max_rate=rate)


@pytest.mark.parametrize("budget", [{"max_count": 0}, {"max_count": 3}, {"max_rate": 0.0}])
def test_without_tolerance_there_is_no_budget(budget):
    with pytest.raises(ValueError, match="max_count and max_rate need the action 'skip' or 'replace'"):
        ErrorPolicy("raise", **budget)


def test_a_callback_cannot_stop_an_iteration():
    def stops(failed):
        raise StopIteration

    with pytest.raises(RuntimeError, match="the callback of on_error raised StopIteration; raise an error of your own"):
        FailureBudget(ErrorPolicy("skip", callback=stops)).spend(failures(1), 1)


def test_a_callback_is_callable():
    with pytest.raises(TypeError, match="callback must be callable, got 3"):
        ErrorPolicy("skip", callback=3)


def test_a_policy_is_frozen():
    with pytest.raises(AttributeError):
        ErrorPolicy().action = "skip"


@given(st.integers(0, 5), st.lists(st.integers(0, 3), max_size=6))
def test_the_budget_is_exceeded_at_the_first_batch_beyond_it(limit, batches):
    budget, failed = FailureBudget(ErrorPolicy("skip", max_count=limit)), 0
    for count in batches:
        failed += count
        if failed > limit:
            with pytest.raises(FeedlineError, match=f"{failed} of .* samples failed, more than max_count={limit}"):
                budget.spend(failures(count), 4)
            return
        budget.spend(failures(count), 4)
    assert (budget.failed, budget.samples) == (failed, 4 * len(batches))


def test_a_rate_counts_from_a_hundred_samples_on():
    budget = FailureBudget(ErrorPolicy("skip", max_rate=0.05))
    budget.spend(failures(9), 10)
    budget.spend((), 89)
    message = (
        r"10 of 100 samples failed, more than max_rate=0.05 allows; the last was index 0 in epoch 2, step 5: KeyError"
    )
    with pytest.raises(FeedlineError, match=message) as caught:
        budget.spend(failures(1), 1)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_rate_that_is_kept_raises_nothing():
    budget = FailureBudget(ErrorPolicy("skip", max_rate=0.05))
    for _ in range(20):
        budget.spend(failures(1), 20)
    assert budget.failed == 20


def test_the_callback_gets_each_failure_in_order_before_the_budget_raises():
    seen = []
    budget = FailureBudget(ErrorPolicy("skip", max_count=1, callback=seen.append))
    bad = failures(3)
    with pytest.raises(FeedlineError):
        budget.spend(bad, 4)
    assert seen == list(bad)
