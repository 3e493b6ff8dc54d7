"""Loops that are given up, and programs that are killed: what they leave behind.

A script: ``python tests/engine/processes/leaks.py --epochs 500 --parents 50``.
"""

import argparse
import contextlib
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from chaos import left

from feedline import DataLoader

GONE_S = 2.0  # after which nothing may be left of a program that was killed
SCRIPT = Path(__file__)


class Rows:
    """Small samples, of which one is bad; with a delay, slow ones."""

    def __init__(self, delay_s=0.0):
        self.delay_s = delay_s
        self.table = np.arange(30_000.0)

    def __len__(self):
        return 60

    def __getitem__(self, index):
        time.sleep(self.delay_s)
        if index == 41:
            raise ValueError("bad")
        return self.table[index : index + 200] if not self.delay_s else np.array([os.getpid()])


def give_up(number):
    """An epoch that is not taken to its end, in one way or another."""
    loader = DataLoader(
        Rows(),
        3,
        num_workers=2,
        backend="process",
        persistent_workers=bool(number % 2),
        multiprocessing_context="fork" if number % 10 == 9 else None,
    )
    how = number % 5
    if how == 0:  # left by break, and collected
        for _ in loader:
            break
    elif how == 1:  # by an error of a sample
        with contextlib.suppress(ValueError):
            list(loader)
    elif how == 2:  # by an error in the loop; the batch outlives the loader
        with contextlib.suppress(ZeroDivisionError):
            for step, _ in enumerate(loader):
                1 / (3 - step)
    elif how == 3:  # in a cycle
        iterator = iter(loader)
        next(iterator)
        cycle = [loader, iterator]
        cycle.append(cycle)
    else:  # closed amid two loops
        for step, _ in enumerate(zip(loader, loader, strict=True)):
            if step == 2:
                loader.close()
                break


def abort(epochs):
    """What is held more after so many epochs than before; the server of forked processes is there before."""
    give_up(0)
    gc.collect()
    before = left()
    begin = time.monotonic()
    for number in range(epochs):
        give_up(number)
        if number % 5 == 3:
            gc.collect()
    seconds = time.monotonic() - begin
    after = left()
    assert after == before, f"left after {epochs} epochs: {after}, before {before}"
    assert not multiprocessing.active_children()
    sys.stdout.write(f"{epochs} epochs were given up in {seconds:.0f} s: nothing is left\n")


def live(method):
    """A program to be killed: says who its workers are."""
    loader = DataLoader(
        Rows(delay_s=1000), 1, num_workers=2, backend="process",
        multiprocessing_context=method,
    )  # fmt: skip
    signal.signal(signal.SIGALRM, lambda *_: tell(loader))
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    next(iter(loader))


def tell(loader):
    """Once both workers are at their slow sample."""
    pool = loader._workers._pool
    members = [] if pool is None or pool._crew is None else list(pool._crew)
    if len(members) == 2 and all(member.is_ready and member.tasks for member in members):
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.write(" ".join(str(member.pid) for member in members) + "\n")
        sys.stdout.flush()


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def kill_parents(count):
    """Programs killed by SIGKILL, some at a time."""
    done = 0
    while done < count:
        batch = [
            subprocess.Popen([sys.executable, SCRIPT, "--live", ("forkserver", "fork", "spawn")[(done + place) % 3]],
                             stdout=subprocess.PIPE, text=True)
            for place in range(min(5, count - done))
        ]  # fmt: skip
        pids = []
        for program in batch:
            found = program.stdout.readline().split()
            assert len(found) == 2, f"a program said {found}"
            pids += map(int, found)
        assert all(map(is_alive, pids))
        for program in batch:
            program.kill()
        for program in batch:
            program.wait()
            program.stdout.close()
        deadline = time.monotonic() + GONE_S
        while any(map(is_alive, pids)):
            assert time.monotonic() < deadline, f"alive after {GONE_S} s: {[pid for pid in pids if is_alive(pid)]}"
        done += len(batch)
    assert not list(Path("/dev/shm").glob("feedline*"))
    sys.stdout.write(f"{count} programs were killed: nothing is left\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=0, help="epochs to be given up")
    parser.add_argument("--parents", type=int, default=0, help="programs to be killed")
    parser.add_argument("--live", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.live:
        live(options.live)
    if options.epochs:
        abort(options.epochs)
    if options.parents:
        kill_parents(options.parents)


if __name__ == "__main__":
    main()
