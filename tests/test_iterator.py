"""Laws of iterators: each takes an epoch of its own at its first next(), whichever thread asks."""

import sys
import threading

import pytest

from feedline import DataLoader


@pytest.fixture
def busy_switching():
    """Threads take turns as often as the interpreter lets them."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("seed", [1, None])
def test_iterators_begun_in_threads_at_once_have_epochs_of_their_own(seed, busy_switching):
    for _ in range(60):
        loader = DataLoader(range(64), 64, shuffle=True, seed=seed)
        barrier, got = threading.Barrier(4, timeout=30), []

        def take(loader=loader, barrier=barrier, got=got):
            iterator = iter(loader)
            barrier.wait()
            got.append(tuple(next(iterator).tolist()))

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(got) == sorted(tuple(loader.plan(epoch)[0].indices.tolist()) for epoch in range(4))
