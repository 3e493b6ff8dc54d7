"""Thirty of the schedules of `chaos.py`, and that they are what they say."""

import importlib.util
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("chaos.py")


@pytest.mark.parametrize("first", range(0, 30, 10))
def test_each_epoch_delivers_what_the_serial_backend_does_whatever_happens(first):
    command = [sys.executable, SCRIPT, "--first", str(first), "--schedules", "10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.endswith("failed: none\n")


def test_a_schedule_is_fixed_by_its_seed_and_all_kinds_come():
    spec = importlib.util.spec_from_file_location("chaos", SCRIPT)
    chaos = importlib.util.module_from_spec(spec)
    sys.modules["chaos"] = chaos  # dataclasses look there
    try:
        spec.loader.exec_module(chaos)
        schedules = [chaos.Schedule.of(seed) for seed in range(200)]
        assert schedules == [chaos.Schedule.of(seed) for seed in range(200)]
    finally:
        del sys.modules["chaos"]
    assert set(Counter(each.method for each in schedules)) == {"forkserver", "fork", "spawn"}
    assert {each.num_workers for each in schedules} == {1, 2, 3, 4}
    assert {how for each in schedules for how in each.iterations} == {"whole", "break", "zip"}
    faults = {fault for each in schedules for fault in each.faults.values()}
    assert faults == {"exit", "kill", "segfault", "sys.exit", "stop", "hang"}
    assert any(each.blows for each in schedules)
    assert any(each.timer_s for each in schedules)
