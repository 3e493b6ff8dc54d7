"""What every test is held to: it leaves no thread, process or descriptor behind."""

import gc
import multiprocessing
import os
import random
import signal
import threading
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

import numpy as np
import pytest
from doubles import WORKERS
from hypothesis import settings

settings.register_profile("feedline", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("feedline")

# A shell has jobs in the background ignore Ctrl-C, and so would the scripts that tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Scripts, which tests and `make chaos` run, and what test files share; no modules to be collected for doctests.
collect_ignore = [f"engine/processes/{name}.py" for name in ("chaos", "injection", "leaks")]
collect_ignore += ["common"]


def _held() -> set[str]:
    """Names of the threads, child processes and descriptors of this process.

    The server of forked processes and the tracker of named resources, of which there is one each, stay until the
    interpreter exits; so do the pipes that hold them.
    """
    folder = Path("/proc/self/fd")
    stays = {str(forkserver._forkserver._forkserver_alive_fd), str(resource_tracker._resource_tracker._fd)}
    found = {f"thread {thread.name}" for thread in threading.enumerate()}
    found |= {f"process {child.pid}" for child in multiprocessing.active_children()}
    for entry in folder.iterdir() if folder.exists() else ():
        if entry.name in stays:
            continue
        try:
            found.add(f"descriptor {entry.name} -> {os.readlink(entry)}")  # noqa: PTH115 -- pipes are no paths
        except OSError:
            continue
    return found


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """Threads, child processes and descriptors are those from before the test."""
    before = _held()
    yield
    left = _held() - before
    if left:  # a cycle may hold it: collecting costs 0.3 s with torch and JAX imported, hence only now
        gc.collect()
        left = _held() - before
    assert not left, left


@pytest.fixture(params=WORKERS)
def workers(request):
    """Who makes the batches."""
    return WORKERS[request.param]


@pytest.fixture
def same_global_generators():
    """The test changes neither Python's nor NumPy's global generator."""


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """Compare right around the call: pytest-randomly seeds the global generators before each phase of a test."""
    before = _global_states() if "same_global_generators" in pyfuncitem.fixturenames else None
    result = yield
    assert before is None or _global_states() == before
    return result


def _global_states():
    name, key, *rest = np.random.get_state(legacy=True)
    return random.getstate(), name, key.tolist(), rest
