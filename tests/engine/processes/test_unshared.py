"""Where shared memory has names, or is not to be had, epochs are the same, and nothing is left."""

import contextlib
import itertools
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import feedline
from feedline import DataLoader, Dataset, PackedList, sharing

SOON_S = 60.0
SHARED = Path("/dev/shm")
ROWS = np.arange(40_000).reshape(400, 100)  # a shipment's block: 320 kB


class Rows(Dataset):
    """Rows, and words; workers make memory under names too."""

    def __init__(self):
        self.rows = ROWS.copy()
        self.words = PackedList(f"word {number}" for number in range(20_000))

    def __setstate__(self, state):
        self.__dict__.update(state)
        sharing.ANONYMOUS = False

    def __len__(self):
        return 400

    def __getitem__(self, index):
        if feedline.get_worker_info() is not None:
            self.rows[index] += 1  # in this worker alone
            self.rows[index] -= 1
        return self.rows[index], self.words[index]


def names():
    return (
        {each.name for each in SHARED.iterdir() if each.name.startswith(("fl_", "psm_"))} if SHARED.exists() else set()
    )


def listed(loader):
    return [(rows.tolist(), list(words)) for rows, words in loader]


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_memory_made_under_a_name_serves_as_well_and_the_name_is_gone(method, monkeypatch):
    expected = listed(DataLoader(Rows(), 50))
    monkeypatch.setattr(sharing, "ANONYMOUS", False)
    before = names()
    context = multiprocessing.get_context(method)
    dataset = Rows()
    with DataLoader(dataset, 50, num_workers=2, backend="process", multiprocessing_context=context) as loader:
        iterator = iter(loader)
        first = next(iterator)
        assert names() == before
        assert [(first[0].tolist(), list(first[1])), *listed(iterator)] == expected
        assert listed(loader) == expected
    assert names() == before


SCRIPT = """
import os, signal, sys
import numpy as np
from feedline import DataLoader, sharing
sharing.ANONYMOUS = False

class Data:
    def __init__(self):
        self.rows = np.ones((400, 100))
    def __len__(self):
        return 400
    def __getitem__(self, index):
        return self.rows[index]

if __name__ == "__main__":
    loader = DataLoader(Data(), 10, num_workers=2, backend="process", multiprocessing_context="fork")
    iterator = iter(loader)
    assert next(iterator).sum() == 1000
    if sys.argv[1] == "killed":
        print(*(member.pid for member in loader._workers._pool._crew), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    elif sys.argv[1] == "exits":
        sys.exit(0)
    list(iterator)
"""


@pytest.mark.parametrize(("end", "code"), [("killed", -signal.SIGKILL), ("exits", 0), ("to the end", 0)])
def test_however_a_program_ends_it_leaves_no_named_memory_and_no_complaint(end, code, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    before = names()
    done = subprocess.run(
        [sys.executable, "-W", "error", script, end], check=False, capture_output=True, text=True, timeout=SOON_S
    )
    assert (done.returncode, done.stderr) == (code, "")
    assert names() <= before
    deadline = time.monotonic() + SOON_S
    for pid in map(int, done.stdout.split()):
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.kill(pid, 0)
                if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                    break
                assert time.monotonic() < deadline, "a worker outlives its parent"
                time.sleep(0.005)


class Plain(Dataset):
    def __init__(self, shape):
        self.shape = shape

    def __len__(self):
        return 24

    def __getitem__(self, index):
        return index if self.shape is None else np.full(self.shape, index)


def refuse_memory(_):
    """From now on this worker may write no file beyond 100 bytes, which memory is to the system."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))


def test_without_shared_memory_batches_arrive_and_it_is_said_once():
    options = {"num_workers": 2, "backend": "process", "worker_init_fn": refuse_memory}
    said = r"^no shared memory for a batch of 32000 bytes: batches come through a pipe, more slowly; free memory, allow"
    with DataLoader(Plain((1000,)), 4, **options) as loader:
        with pytest.warns(UserWarning, match=said) as caught:
            got = [batch[:, 0].tolist() for batch in loader] + [batch[:, 0].tolist() for batch in loader]
        assert len(caught) == 1
    assert got == 2 * [list(range(start, start + 4)) for start in range(0, 24, 4)]


def test_of_batches_without_arrays_nothing_is_said():
    options = {"num_workers": 2, "backend": "process", "worker_init_fn": refuse_memory, "collate_fn": list}
    with warnings.catch_warnings(), DataLoader(Plain(None), 4, **options) as loader:
        warnings.simplefilter("error")
        assert list(itertools.chain(*loader)) == list(range(24))
