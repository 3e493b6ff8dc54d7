"""The window, model-checked: whatever happens in whatever order, it agrees with a model that is plainly right."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from feedline.engine.window import Window


class WindowMachine(RuleBasedStateMachine):
    """Plans are admitted, done by workers once or several times, lost and done again, and released.

    The model keeps every step's history as lists; sizes are what the batches turn out to have.
    """

    running = Bundle("running")

    @initialize(limit=st.integers(1, 6), in_order=st.booleans(), bound=st.none() | st.integers(0, 40))
    def begin(self, limit, in_order, bound):
        self.window = Window(limit, in_order=in_order, max_nbytes=bound)
        self.credits, self.in_order, self.bound = limit, in_order, bound
        self.admitted, self.completed, self.released = [], [], []
        self.largest = 0

    def under_way(self):
        return len(self.admitted) - len(self.released)

    def allowed(self):
        more = self.under_way() + 1
        fits = self.bound is None or more * self.largest <= self.bound
        return self.under_way() == 0 or (more <= self.credits and fits)

    @precondition(lambda self: self.allowed())
    @rule(target=running)
    def admit(self):
        step = len(self.admitted)
        self.window.admit(step)
        self.admitted.append(step)
        return step

    @precondition(lambda self: not self.allowed())
    @rule()
    def admit_without_credit(self):
        with pytest.raises(RuntimeError, match="admitted without credit"):
            self.window.admit(len(self.admitted))

    @rule(step=consumes(running), nbytes=st.integers(0, 20))
    def complete(self, step, nbytes):
        assert self.window.complete(step, (step, nbytes), nbytes)
        self.completed.append(step)
        self.largest = max(self.largest, nbytes)

    @rule(step=st.integers(0, 40), nbytes=st.integers(0, 99))
    def complete_again_or_unasked(self, step, nbytes):
        """A second worker did it too, or a dead one's word comes late: refused, and nothing changes."""
        if step in self.completed or step >= len(self.admitted):
            assert not self.window.complete(step, "late", nbytes)

    @rule(data=st.data())
    def admit_again(self, data):
        """A step that is under way or waits is not begun anew: resubmission is the executor's, under the same name."""
        alive = [step for step in self.admitted if step not in self.released]
        if alive and self.allowed():
            with pytest.raises(RuntimeError, match="admitted twice"):
                self.window.admit(data.draw(st.sampled_from(alive)))

    def next_out(self):
        """The step that may leave, by the model; None: none."""
        if self.in_order:
            step = len(self.released)
            return step if step in self.completed else None
        waiting = [step for step in self.completed if step not in self.released]
        return waiting[0] if waiting else None

    @rule()
    def release(self):
        expected = self.next_out()
        if expected is None:
            assert self.window.release() is None
        else:
            assert self.window.release()[0] == expected
            self.released.append(expected)

    @invariant()
    def agrees(self):
        if not hasattr(self, "window"):
            return
        assert self.window.may_admit == self.allowed()
        assert self.window.is_empty == (self.under_way() == 0)
        assert self.under_way() <= self.credits
        assert len(set(self.released)) == len(self.released)


TestWindow = WindowMachine.TestCase
TestWindow.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
