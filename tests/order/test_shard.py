"""Laws of shards: checked data, and what launchers say."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import feedline
from feedline.order.shard import Shard, detect_shard

LAUNCHERS = ["RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"]


@pytest.fixture
def no_launcher(monkeypatch):
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(("rank", "world"), [(-1, 2), (2, 2), (5, 1)])
def test_a_rank_is_within_its_world(rank, world):
    with pytest.raises(ValueError, match=f"rank must be from 0 to world_size - 1 = {world - 1}, got {rank}"):
        Shard(rank, world)


def test_a_world_has_at_least_one_rank():
    with pytest.raises(ValueError, match="world_size must be a positive integer, got 0"):
        Shard(0, 0)


@pytest.mark.parametrize("value", [1.0, "1", True, None])
def test_ranks_are_integers(value):
    with pytest.raises(TypeError, match="rank must be an integer, got"):
        Shard(value, 2)


def test_the_end_is_one_of_three():
    with pytest.raises(ValueError, match="end must be 'pad', 'drop' or 'exact', got 'wrap'"):
        Shard(0, 1, "wrap")


@pytest.mark.parametrize(("rank", "world"), [LAUNCHERS[:2], LAUNCHERS[2:4], LAUNCHERS[4:]])
def test_a_launchers_variables_are_found(no_launcher, rank, world):
    no_launcher.setenv(rank, "3")
    no_launcher.setenv(world, "8")
    assert detect_shard() == Shard(3, 8)


def test_without_a_launcher_there_is_one_rank(no_launcher):
    assert detect_shard() == Shard(0, 1)


def test_a_variable_that_is_no_number_is_named(no_launcher):
    no_launcher.setenv("RANK", "first")
    no_launcher.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="environment variable RANK must be an integer, got 'first'"):
        detect_shard()


@pytest.mark.parametrize("name", LAUNCHERS)
def test_half_of_what_a_launcher_says_is_nothing(no_launcher, name):
    no_launcher.setenv(name, "1")
    assert detect_shard() == Shard(0, 1)


def test_half_of_what_one_launcher_says_leaves_it_to_the_next(no_launcher):
    no_launcher.setenv("RANK", "7")
    no_launcher.setenv("SLURM_PROCID", "3")
    no_launcher.setenv("SLURM_NTASKS", "4")
    assert detect_shard() == Shard(3, 4)


PROCESS = """
import sys
import jax
from feedline.order.shard import detect_shard
print(detect_shard().world_size)
jax.distributed.initialize(f"127.0.0.1:{sys.argv[2]}", num_processes=2, process_id=int(sys.argv[1]))
shard = detect_shard()
print(shard.rank, shard.world_size)
jax.distributed.shutdown()
"""


def test_processes_of_jax_are_ranks(no_launcher):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(Path(feedline.__file__).parents[1]), "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [output for output, _ in outputs] == ["1\n0 2\n", "1\n1 2\n"], outputs
