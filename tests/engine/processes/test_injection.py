"""Each call that can fail does so in turn: an epoch is whole, or ends with one error of ours, and nothing is left."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("injection.py")


@pytest.mark.parametrize(
    ("arguments", "least"),
    [
        ("parent memfd", 1),
        ("parent fallocate", 1),
        ("parent mmap", 5),
        ("parent dup", 2),
        ("parent pipe", 2),
        ("parent forkserver", 5),
        ("parent send", 10),
        ("parent receive", 8),
        ("parent pickle", 10),
        ("parent fork --method fork", 2),
        ("worker memfd", 2),
        ("worker fallocate", 2),
        ("worker mmap", 2),
        ("worker send", 5),
        ("worker receive", 5),
        ("worker pickle", 3),
        ("workers memfd", 2),
        ("workers mmap", 2),
        ("workers send", 3),
    ],
)
def test_whichever_call_fails_the_run_ends_whole_or_with_one_error(arguments, least):
    done = subprocess.run(
        [sys.executable, SCRIPT, *arguments.split()], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert int(done.stdout.split()[0]) >= least, done.stdout
