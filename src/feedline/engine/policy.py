"""What happens to a sample that cannot be made: the error policy.

Guarantee: a policy is plain checked data; failures are counted in the order of delivery, so that a run fails at the
same batch whatever made it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from feedline.checks import integer
from feedline.errors import FeedlineError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ErrorPolicy", "FailedSample", "FailureBudget"]

Action = Literal["raise", "skip", "replace"]


@dataclass(frozen=True, slots=True)
class FailedSample:
    """A sample that could not be made.

    Attributes:
        index: what the dataset was asked for.
        epoch: in which epoch.
        step: for which batch.
        error: the exception of the dataset, or of a transform in it.
    """

    index: Any
    epoch: int
    step: int
    error: Exception


@dataclass(frozen=True, slots=True)
class ErrorPolicy:
    """What to do when the dataset raises for a sample.

    Args:
        action: ``"raise"`` the error; ``"skip"`` the sample, which makes the batch shorter; or ``"replace"`` it by a
            sample of another index, drawn by the sample's key and the number of the attempt.
        max_count: raise when more than so many samples have failed; None: no limit. Counted from the epoch's beginning,
            or from where it was resumed; under ``"replace"`` each attempt counts.
        max_rate: raise when more than this share of the samples so far has failed, from 100 samples on; None: no limit.
        callback: called with a `FailedSample` in the order of delivery, for logs and quarantine lists.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> ErrorPolicy("skip", max_count=10)
        ErrorPolicy(action='skip', max_count=10, max_rate=None, callback=None)
    """

    action: Action = "raise"
    max_count: int | None = None
    max_rate: float | None = None
    callback: Callable[[FailedSample], object] | None = None

    def __post_init__(self) -> None:
        if self.action not in get_args(Action):
            raise ValueError(f"on_error must be 'raise', 'skip', 'replace' or an ErrorPolicy, got {self.action!r}")
        count, rate = self.max_count, self.max_rate
        if count is not None:
            integer("max_count", count, least=0)
        if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1):
            raise ValueError(f"max_rate must be None or a share from 0 to 1, got {self.max_rate!r}")
        if self.action == "raise" and (count is not None or rate is not None):
            raise ValueError(
                "max_count and max_rate need the action 'skip' or 'replace': with 'raise' there is no budget"
            )
        if self.callback is not None and not callable(self.callback):
            raise TypeError(f"callback must be callable, got {self.callback!r}")


_RATE_FROM = 100  # a rate over fewer samples says little: one bad sample in the first batch is no trend


class FailureBudget:
    """Counts failures against a policy, in the order of delivery."""

    def __init__(self, policy: ErrorPolicy) -> None:
        self._policy = policy
        self.failed = 0
        self.samples = 0

    def spend(self, failures: tuple[FailedSample, ...], samples: int) -> None:
        """Count a delivered batch.

        Raises:
            FeedlineError: the budget is exceeded; the cause is the last failed sample's error.
        """
        self.samples += samples
        for failure in failures:
            self.failed += 1
            if self._policy.callback is not None:
                self._tell(self._policy.callback, failure)
        if not failures:
            return
        limit = self._exceeded()
        if limit:
            last = failures[-1]
            raise FeedlineError(
                f"{self.failed} of {self.samples} samples failed, more than {limit} allows; the last was index "
                f"{last.index!r} in epoch {last.epoch}, step {last.step}: {type(last.error).__name__}: {last.error}"
            ) from last.error

    @staticmethod
    def _tell(callback: Callable[[FailedSample], object], failure: FailedSample) -> None:
        try:
            callback(failure)
        except StopIteration as error:  # it would end the epoch
            raise RuntimeError("the callback of on_error raised StopIteration; raise an error of your own") from error

    def _exceeded(self) -> str | None:
        policy = self._policy
        if policy.max_count is not None and self.failed > policy.max_count:
            return f"max_count={policy.max_count}"
        if policy.max_rate is not None and self.samples >= _RATE_FROM and self.failed > policy.max_rate * self.samples:
            return f"max_rate={policy.max_rate}"
        return None
