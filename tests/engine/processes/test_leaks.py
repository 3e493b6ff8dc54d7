"""Loops that are given up and programs that are killed leave nothing; what streams by does not pile up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("leaks.py")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [("--epochs 60", "60 epochs were given up"), ("--parents 9", "9 programs were killed: nothing is left")],
)
def test_nothing_is_left_behind(arguments, said):
    done = subprocess.run(
        [sys.executable, SCRIPT, *arguments.split()], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert said in done.stdout


STREAM = """
import os, resource, sys
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
import numpy as np
import feedline

class File:
    nbytes = 12 * limit // 8000

    def __init__(self, path):
        self.path = path
        self.descriptor = None

    def __len__(self):
        return 8000

    def __getitem__(self, index):
        if self.descriptor is None:
            self.descriptor = os.open(self.path, os.O_RDONLY)
        sample = np.frombuffer(os.pread(self.descriptor, self.nbytes, index * self.nbytes), np.uint8)
        return index, sample

def peak(pid):
    status = open(f"/proc/{pid}/status").read()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

with open(sys.argv[1], "wb") as file:  # of holes, but for each sample's number
    file.truncate(8000 * File.nbytes)
    for index in range(8000):
        os.pwrite(file.fileno(), index.to_bytes(8, "little"), index * File.nbytes)

loader = feedline.DataLoader(File(sys.argv[1]), 8, num_workers=2, backend="process")
peaks = []
for step, (index, samples) in enumerate(loader, 1):
    assert samples.nbytes == 8 * File.nbytes
    assert samples[:, :8].copy().view(np.int64)[:, 0].tolist() == index.tolist()
    if step in (200, 1000):
        pids = [os.getpid(), *[member.pid for member in loader._workers._pool._crew]]
        peaks.append([peak(pid) for pid in pids])
assert step == 1000
for early, late in zip(*peaks, strict=True):
    assert late < early + 4 * samples.nbytes, peaks  # a worker may make a slot more; a leak would be 800 of them
    assert late < limit, peaks
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit, and /proc")
def test_a_file_twelve_times_larger_than_the_memory_limit_streams_by(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(STREAM)
    limit = 384 << 20  # of address space, for each process: the interpreter and NumPy take half of it
    done = subprocess.run(
        [sys.executable, script, tmp_path / "data", str(limit)],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
