"""Calls that fail: the first, the second, and so on, of a kind, in an epoch by worker processes.

Guarantee tested: each run ends with what the serial backend delivers, or with one `FeedlineError`; the loader can be
used again, never hangs, and leaves nothing.

A script: ``python tests/engine/processes/injection.py parent mmap`` makes each call of a kind fail in turn.
"""

import argparse
import contextlib
import errno
import faulthandler
import mmap
import multiprocessing.forkserver
import multiprocessing.reduction
import os
import pickle
import socket
import sys
import tempfile
import time
from pathlib import Path

import cloudpickle
import numpy as np
from chaos import left

from feedline import DataLoader, FeedlineError

DEADLINE_S = 60.0  # of one run, which takes 0.1 s: beyond it hangs
MOST = 200  # calls of a kind that are made to fail: an epoch has fewer, or a part of it is repeated

CALLS = {
    "memfd": [(os, "memfd_create", OSError(errno.EMFILE, "injected"))],
    "fallocate": [(os, "posix_fallocate", OSError(errno.ENOSPC, "injected"))],
    "mmap": [(mmap, "mmap", OSError(errno.ENOMEM, "injected"))],
    "dup": [(os, "dup", OSError(errno.EMFILE, "injected"))],
    "pipe": [(socket, "socketpair", OSError(errno.EMFILE, "injected"))],
    "forkserver": [
        (multiprocessing.forkserver, "connect_to_new_process", OSError(errno.EAGAIN, "injected")),
        (multiprocessing.reduction, "dump", MemoryError("injected")),
    ],
    "fork": [(os, "fork", OSError(errno.EAGAIN, "injected"))],
    "send": [
        (socket.socket, "send", OSError(errno.ENOBUFS, "injected")),
        (socket.socket, "sendmsg", BrokenPipeError(errno.EPIPE, "injected")),
    ],
    "receive": [(socket.socket, "recvmsg_into", OSError(errno.EMFILE, "injected"))],
    "pickle": [
        (cloudpickle, "dumps", MemoryError("injected")),
        (pickle, "dumps", MemoryError("injected")),
        (pickle, "loads", MemoryError("injected")),
    ],
}


class Fault:
    """While entered, the n-th of certain calls raises."""

    def __init__(self, calls, nth, flag=None):
        self.calls, self.nth, self.flag, self.count = calls, nth, flag, 0
        self.originals = []

    def __enter__(self):
        for owner, name, error in self.calls:
            original = getattr(owner, name)
            self.originals.append((owner, name, vars(owner).get(name)))
            setattr(owner, name, self.failing(name, original, error))
        return self

    def failing(self, name, original, error):
        def call(*args, **options):
            if name == "dup" and "feedline" not in sys._getframe(1).f_code.co_filename:
                return original(*args, **options)  # multiprocessing leaks what it had when this fails
            self.count += 1
            if self.count == self.nth:
                self.comes()
                raise type(error)(*error.args)
            return original(*args, **options)

        if isinstance(original, type):  # isinstance() goes on to work
            return type(original.__name__, (original,), {"__new__": lambda _, *args, **options: call(*args, **options)})
        return call

    def comes(self):
        """The fault is about to be raised."""
        if self.flag is not None:
            os.close(os.open(self.flag, os.O_CREAT | os.O_WRONLY))

    def __exit__(self, *_):
        for owner, name, original in self.originals:
            if original is None:
                delattr(owner, name)
            else:
                setattr(owner, name, original)

    @property
    def came(self):
        return self.count >= self.nth


class Data:
    """Samples of several kinds; where it is unpickled a fault may begin."""

    def __init__(self, fault=None):
        self.fault = fault  # kind, nth, and a folder: it comes once; or None: it comes in each worker
        self.table = np.arange(20_000.0)

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return {"row": self.table[index * 3 : index * 3 + 3], "name": f"sample {index}"}

    def __setstate__(self, state):
        self.__dict__.update(state)
        if self.fault is not None:
            kind, nth, folder, always = self.fault
            if always or not (Path(folder) / "begun").exists():
                (Path(folder) / "begun").touch()
                Fault(CALLS[kind], nth, Path(folder) / "came").__enter__()


def plain(batch):
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in batch.items()}


def loader_of(data, method):
    return DataLoader(
        data, 2, num_workers=2, backend="process", multiprocessing_context=method, max_restarts=3, timeout=20
    )


def epoch(loader):
    """The batches of an epoch, all held until its end, and the error that ended it."""
    held, ended = [], None
    try:
        held.extend(loader)
    except Exception as error:  # noqa: BLE001 -- looked at by the caller
        ended = error
    return [plain(batch) for batch in held], ended


EXPECTED = [plain(batch) for batch in DataLoader(Data(), 2)]


def check(got, error):
    """Whether the epoch was whole; an AssertionError if it ended in no way that it may."""
    if error is None:
        assert got == EXPECTED, "batches differ"
        return True
    if not isinstance(error, FeedlineError):
        raise AssertionError(f"it ended with {error!r}") from error
    assert got == EXPECTED[: len(got)], "batches before the error differ"
    return False


def again(loader):
    got, error = epoch(loader)
    if not check(got, error):
        raise AssertionError("the loader cannot be used again") from error


def settled(before, *, stays):
    """Nothing more is held than before, soon; ``stays``: but pipes, which multiprocessing leaks."""
    deadline = time.monotonic() + 10
    while (now := left()) != before:
        if stays and now[1:] == before[1:]:
            return
        assert time.monotonic() < deadline, f"left behind: {now}, before {before}"


def in_parent(kind, nth, method):
    """One run with a fault here; whether it came, and whether the epoch was whole all the same."""
    loader = loader_of(Data(), method)
    try:
        with Fault(CALLS[kind], nth) as fault:
            whole = check(*epoch(loader))
        again(loader)
        loader.close()
        with Fault(CALLS[kind], nth):  # while it starts anew and while it is closed
            iterator = iter(loader)
            with contextlib.suppress(FeedlineError):
                next(iterator)
            loader.close()
    finally:
        loader.close()
    return fault.came, whole


def in_worker(kind, nth, method, *, always):
    """One run with a fault in a worker, or in each."""
    with tempfile.TemporaryDirectory() as folder:
        loader = loader_of(Data((kind, nth, folder, always)), method)
        try:
            whole = check(*epoch(loader))
            if not always:
                again(loader)
        finally:
            loader.close()
        return (Path(folder) / "came").exists(), whole


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("where", choices=["parent", "worker", "workers"])
    parser.add_argument("kind", choices=CALLS)
    parser.add_argument("--method", default="forkserver")
    parser.add_argument("--nth", type=int, help="make this call alone fail")
    options = parser.parse_args()
    warm = loader_of(Data(), options.method)
    check(*epoch(warm))
    warm.close()
    before = left()
    whole, ends = 0, 0
    for nth in range(1, MOST) if options.nth is None else [options.nth]:
        faulthandler.dump_traceback_later(DEADLINE_S, exit=True)
        try:
            if options.where == "parent":
                came, is_whole = in_parent(options.kind, nth, options.method)
            else:
                came, is_whole = in_worker(options.kind, nth, options.method, always=options.where == "workers")
            settled(before, stays=options.kind == "fork")
        except BaseException:
            sys.stderr.write(f"--- {options.where} {options.kind} --method {options.method} --nth {nth}\n")
            raise
        if not came:
            break
        whole, ends = whole + is_whole, ends + (not is_whole)
    faulthandler.cancel_dump_traceback_later()
    sys.stdout.write(f"{whole + ends} calls failed: {whole} epochs were whole, {ends} ended with an error\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
