"""What every test is held to: it leaves no thread, process, descriptor or changed global random state behind."""

import gc
import multiprocessing
import os
import random
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("feedline", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("feedline")


def _descriptors() -> set[str]:
    folder = Path("/proc/self/fd")
    found = set()
    for entry in folder.iterdir() if folder.exists() else ():
        try:
            found.add(f"{entry.name} -> {os.readlink(entry)}")  # noqa: PTH115 -- sockets and pipes are no paths
        except OSError:
            continue
    return found


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """Threads, child processes and descriptors are those from before the test."""
    threads, descriptors = set(threading.enumerate()), _descriptors()
    yield
    gc.collect()
    assert not multiprocessing.active_children()
    left = [
        thread for thread in set(threading.enumerate()) - threads if not thread.name.startswith(("pjrt", "jax", "grpc"))
    ]
    assert not left, left
    new = {entry for entry in _descriptors() - descriptors if not entry.endswith((".so", ".py", ".pyc"))}
    assert not new, new


@pytest.fixture
def same_global_generators():
    """The test changes no global generator."""
    before = random.getstate(), np.random.get_state(legacy=True)
    yield
    after = random.getstate(), np.random.get_state(legacy=True)
    assert before[0] == after[0]
    assert before[1][0] == after[1][0]
    assert (before[1][1] == after[1][1]).all()
    assert before[1][2:] == after[1][2:]
