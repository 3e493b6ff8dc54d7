"""Laws of shards: checked data, and what launchers say."""

import pytest

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
