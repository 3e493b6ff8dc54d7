"""Messages about dead workers name indices as the user writes them."""

import numpy as np
import pytest

from feedline.engine.processes.deaths import Death, fork_lock, killer_sample
from feedline.engine.task import Task
from feedline.order.plan import BatchPlan

KILLED = {"number": 0, "pid": 7, "code": 1, "late_s": 0.0, "peak_rss_kib": 0, "memory_kills": 0, "stack": ""}


@pytest.mark.parametrize(
    ("indices", "said"),
    [
        (np.array([4, 5]), "5"),
        ([4, np.int64(5)], "5"),
        ([4, (np.int64(5), "a")], "(5, 'a')"),
        ([4, [np.int64(5), [np.float32(0.5)]]], "[5, [0.5]]"),
        (["a", "b"], "'b'"),
    ],
)
def test_indices_are_said_as_python_writes_them(indices, said):
    task = Task(BatchPlan(1, 2, indices, 10, 12))
    death = Death(tasks=(task,), **KILLED)
    assert killer_sample(task, 11, death).startswith(f"sample index {said} (epoch 1, step 2) ends every worker")
    assert f"{said})" in str(death)
    assert "np." not in str(death)


def test_a_lock_of_forks_is_named_with_its_remedy():
    error = fork_lock("dataset.lock", "spawn")
    assert str(error) == (
        "dataset.lock cannot be sent to a worker process started by 'spawn': it was made in a fork context; make it by "
        "multiprocessing.get_context('spawn'), or give multiprocessing_context='fork'"
    )
    assert (error.path, error.reason) == ("dataset.lock", "it was made in a fork context")
    assert str(error).endswith(error.remedy)
