"""Laws of the window: credits, order, and each step once."""

import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedline.engine.window import Window


@given(st.integers(1, 6), st.booleans(), st.integers(0, 40), st.randoms(use_true_random=False))
def test_each_step_leaves_once_within_the_credits_and_in_order(limit, in_order, steps, random):
    window = Window(limit, in_order=in_order)
    todo, running, completions, left = list(range(steps)), [], [], []
    while todo or not window.is_empty:
        moves = ["release"]
        if todo and window.free:
            moves.append("admit")
        if running:
            moves += ["complete"] * 2
        move = random.choice(moves)
        if move == "admit":
            running.append(todo.pop(0))
            window.admit(running[-1])
        elif move == "complete":
            step = running.pop(random.randrange(len(running)))
            completions.append(step)
            assert window.complete(step, step)
            assert not window.complete(step, "a second run")
        else:
            waiting = [step for step in completions if step not in left]
            due = ([len(left)] if len(left) in waiting else []) if in_order else waiting[:1]
            assert window.release() == (due[0] if due else None)
            left += due
        assert len(running) + len(completions) - len(left) <= limit
    assert left == (list(range(steps)) if in_order else completions)


def test_admission_without_credit_is_an_error():
    window = Window(1)
    window.admit(0)
    with pytest.raises(RuntimeError, match="step 1 admitted without credit: 1 are under way, of 1 batches"):
        window.admit(1)


def test_a_step_is_admitted_once():
    window = Window(2)
    window.admit(0)
    with pytest.raises(RuntimeError, match="step 0 admitted twice"):
        window.admit(0)


@given(st.integers(1, 40))
def test_there_is_room_for_batches_when_a_few_are_free_and_always_when_half_are(limit):
    window = Window(limit)
    for step in range(limit):
        assert window.has_room or not (2 * window.free >= limit or window.free >= 4)
        assert window.free >= min(4, limit / 3) or not window.has_room
        window.admit(step)
    assert not window.has_room


def test_a_completion_nobody_waits_for_changes_nothing():
    window = Window(1)
    assert not window.complete(3, "unexpected")
    assert window.is_empty


def test_credits_are_positive():
    with pytest.raises(ValueError, match="credits must be a positive integer, got 0"):
        Window(0)


def test_a_window_that_forgets_holds_no_result_and_takes_them_again():
    class Result:
        pass

    window = Window(2)
    window.admit(0)
    window.admit(1)
    result = Result()
    held = weakref.ref(result)
    window.complete(0, result)
    window.forget()
    del result
    assert held() is None
    assert window.release() is None
    assert 0 in window
    assert 2 not in window
    assert window.complete(0, "again")
    assert window.release() == "again"
    assert 0 not in window
