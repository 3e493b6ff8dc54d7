"""Laws of shards: checked data, and what launchers say."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as torch_distributed

import feedline
from feedline.order.shard import UNSHARDED, Shard, detect_shard

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


@pytest.mark.parametrize("name", LAUNCHERS[1:])
def test_half_of_what_a_launcher_says_is_nothing(no_launcher, name):
    no_launcher.setenv(name, "1")
    assert detect_shard() == Shard(0, 1)


@pytest.mark.parametrize(
    ("name", "value", "other"), [("RANK", "0", "WORLD_SIZE"), ("RANK", "1", "WORLD_SIZE"), ("WORLD_SIZE", "4", "RANK")]
)
def test_a_rank_without_a_world_is_no_single_process(no_launcher, name, value, other):
    no_launcher.setenv(name, value)
    with pytest.raises(ValueError, match=f"variable {name} is set \\('{value}'\\) and {other} is not; set both"):
        detect_shard()


def test_half_of_what_one_launcher_says_leaves_it_to_the_next(no_launcher):
    no_launcher.setenv("RANK", "7")
    no_launcher.setenv("SLURM_PROCID", "3")
    no_launcher.setenv("SLURM_NTASKS", "4")
    assert detect_shard() == Shard(3, 4)


@pytest.mark.parametrize(("rank", "world"), [("2", "2"), ("-1", "2"), ("0", "0")])
def test_variables_that_contradict_each_other_are_named(no_launcher, rank, world):
    no_launcher.setenv("SLURM_PROCID", rank)
    no_launcher.setenv("SLURM_NTASKS", world)
    message = (
        f"the environment variable SLURM_PROCID must be from 0 to SLURM_NTASKS - 1, got SLURM_PROCID={rank} and "
        f"SLURM_NTASKS={world}; correct them, or pass shard="
    )
    with pytest.raises(ValueError, match=message):
        detect_shard()


def test_the_first_launcher_that_says_both_is_believed(no_launcher):
    """Slurm's tasks, each of which torchrun starts processes in, have both; torchrun knows more."""
    for place in reversed(range(3)):
        rank, world = LAUNCHERS[2 * place : 2 * place + 2]
        no_launcher.setenv(rank, str(place))
        no_launcher.setenv(world, str(place + 4))
        assert detect_shard() == Shard(place, place + 4)


def test_torch_distributed_is_believed_before_variables(no_launcher):
    no_launcher.setenv("RANK", "3")
    no_launcher.setenv("WORLD_SIZE", "8")
    torch_distributed.init_process_group("gloo", store=torch_distributed.HashStore(), rank=0, world_size=1)
    try:
        assert detect_shard() == Shard(0, 1)
    finally:
        torch_distributed.destroy_process_group()
    assert detect_shard() == Shard(3, 8)


def test_none_found_is_told_from_one_rank_that_was_said(no_launcher):
    assert detect_shard() is UNSHARDED
    no_launcher.setenv("RANK", "0")
    no_launcher.setenv("WORLD_SIZE", "1")
    assert detect_shard() == UNSHARDED
    assert detect_shard() is not UNSHARDED


PROCESS = """
import os, sys
import jax
from feedline.order.shard import detect_shard
print(detect_shard().world_size)
os.environ |= {"RANK": "6", "WORLD_SIZE": "7"}  # JAX is believed before
jax.distributed.initialize(f"127.0.0.1:{sys.argv[2]}", num_processes=2, process_id=int(sys.argv[1]))
shard = detect_shard()
print(shard.rank, shard.world_size)
del jax.distributed.is_initialized  # as in releases that have none
assert detect_shard() == shard
jax.distributed.shutdown()
assert detect_shard().world_size == 7
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
