"""Laws of loaders under torch.distributed: real processes, which are really killed."""

import json
import os
import random
import select
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

import feedline

LIMIT_S = 120  # of any wait: importing torch takes a second, on a loaded machine ten


@contextmanager
def ranks(program, world, folder, *arguments):
    """Processes that run a program, each told its rank, the world's size and where to meet; they are killed at last."""
    folder.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(feedline.__file__).parents[1]),
        "GLOO_SOCKET_IFNAME": "lo",
        "RANK": "7",  # torch.distributed, which is initialised otherwise, is asked before
        "WORLD_SIZE": "9",
    }
    (folder / "program.py").write_text(program)
    meet = (folder / "meet").as_uri()
    processes = []
    try:
        for rank in range(world):
            with (folder / f"{rank}.err").open("wb") as errors:
                command = [sys.executable, folder / "program.py", str(rank), str(world), meet, *map(str, arguments)]
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
                processes.append(subprocess.Popen(command, env=environment, **pipes))
        yield processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait(LIMIT_S)
            process.stdin.close()
            process.stdout.close()


def line_of(process, errors):
    """A line that the process prints, waited for."""
    found = b""
    while not found.endswith(b"\n"):
        assert select.select([process.stdout], [], [], LIMIT_S)[0], f"it printed {found!r} and no more"
        part = os.read(process.stdout.fileno(), 1 << 16)
        assert part, f"it ended:\n{errors.read_text()}"
        found += part
    return json.loads(found)


def lines_of_all(processes, folder):
    return [line_of(process, folder / f"{rank}.err") for rank, process in enumerate(processes)]


PREAMBLE = """
import json, os, sys
from datetime import timedelta
import torch.distributed as dist
import feedline

rank, world, meet = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

def join():
    dist.init_process_group(
        "gloo", init_method=meet, rank=rank, world_size=world, timeout=timedelta(seconds=100)
    )

def say(value):
    print(json.dumps(value), flush=True)
"""

TRAIN = """
join()
loader = feedline.DataLoader(range(1001), 8, shuffle=True, shard="auto", num_workers=2, backend="thread")
with open(sys.argv[4] + f"/{rank}.log", "a") as log:
    for number, batch in enumerate(loader, 1):
        print(json.dumps([batch.tolist(), loader.state_dict()]), file=log, flush=True)
        if number == 7:
            dist.barrier()
            say("all have saved seven")
        if number == 7 + rank:
            sys.stdin.read()  # until it is killed
"""

GO_ON = """
join()
loader = feedline.DataLoader(range(1001), 8, shuffle=True, shard="auto")
with open(sys.argv[4]) as state:
    loader.load_state_dict(json.load(state))
say([[batch.tolist() for batch in loader], [loader.shard.rank, loader.shard.world_size], loader.state_dict()])
dist.barrier()
dist.destroy_process_group()
"""


def test_three_ranks_end_the_epoch_in_which_four_were_killed(tmp_path):
    with ranks(PREAMBLE + TRAIN, 4, tmp_path / "four", tmp_path) as four:
        assert lines_of_all(four, tmp_path / "four") == ["all have saved seven"] * 4
        for process in four:
            process.kill()
    logs = [(tmp_path / f"{rank}.log").read_text().splitlines(keepends=True) for rank in range(4)]
    logs = [[json.loads(line) for line in log if line.endswith("\n")] for log in logs]
    common = min(map(len, logs))  # what a rank delivered after that, not all have saved: it does not count
    assert common == 7
    states = [log[common - 1][1] for log in logs]
    assert states == states[:1] * 4
    before = [index for log in logs for batch, _ in log[:common] for index in batch]
    (tmp_path / "state.json").write_text(json.dumps(states[0]))

    with ranks(PREAMBLE + GO_ON, 3, tmp_path / "three", tmp_path / "state.json") as three:
        told = lines_of_all(three, tmp_path / "three")
        assert [process.wait(LIMIT_S) for process in three] == [0, 0, 0]
    assert [shard for _, shard, _ in told] == [[0, 3], [1, 3], [2, 3]]
    after = [index for batches, _, _ in told for batch in batches for index in batch]
    assert sorted(before + after) == list(range(1001)), "each sample once: what is left divides by three"
    assert len({len(batches) for batches, _, _ in told}) == 1
    ends = [state for _, _, state in told]
    assert ends == ends[:1] * 3
    assert (ends[0]["epoch"], ends[0]["position"], ends[0]["seed"]) == (1, 0, states[0]["seed"])


TWO = """
import pickle, random, warnings
import torch.utils.data as torch_data
from feedline import BatchSampler, DataLoader, DistributedSampler, IterableDataset, RandomSampler, Shard

class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(4))

class Own:
    def __iter__(self):
        return iter(range(4))

data = range(8)
del os.environ["RANK"], os.environ["WORLD_SIZE"]
too_early = DataLoader(data, 2, shard="auto")
join()
theirs, ours = torch_data.DistributedSampler(data), DistributedSampler(data)
divided = [
    DataLoader(data, 2, shard="auto"),
    DataLoader(data, 2, shard=(0, 1)),
    DataLoader(data, 2, shard=Shard(0, 1)),
    DataLoader(data, 2, sampler=ours),
    DataLoader(data, 2, sampler=theirs),
    DataLoader(data, batch_sampler=BatchSampler(ours, 2, False)),
    DataLoader(data, batch_sampler=BatchSampler(theirs, 2, False)),
    DataLoader(data, batch_sampler=torch_data.BatchSampler(theirs, 2, False)),
    DataLoader(data, 2, sampler=Own()),
    DataLoader(data, 2, sampler=[rank, rank + 2]),
    DataLoader(Stream(), 2),
]
whole = {
    "default": DataLoader(data, 2),
    "shuffled": DataLoader(data, 2, shuffle=True),
    "single": DataLoader(data, None),
    "sampler": DataLoader(data, 2, sampler=RandomSampler(data)),
    "batch sampler": DataLoader(data, batch_sampler=BatchSampler(RandomSampler(data), 2, False)),
    "too early": too_early,
    "copied": pickle.loads(pickle.dumps(DataLoader(data, 2))),
}

def warnings_of(*loaders):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for loader in loaders:
            iterator = iter(loader)
            loader.state_dict(), repr(loader)
            assert not caught
            list(iterator)
    return [[str(each.message), each.filename == __file__] for each in caught]

for loader in divided:
    assert warnings_of(loader) == [], loader
told = {}
for kind, loader in whole.items():
    feedline.order.undivided._warned = False
    told[kind] = warnings_of(loader)
    assert warnings_of(loader, DataLoader(data, 2)) == []

drawn = DataLoader(data, 2, shuffle=True, shard="auto", generator=random.Random(rank))
random.seed(rank)
undrawn = DataLoader(data, 2, shuffle=True, shard="auto")
undrawn.plan(0)
shares = [index for batch in drawn for index in batch.tolist()]
say([told, drawn.seed, undrawn.seed, shares])
dist.barrier()
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """What two ranks tell, each the same."""
    folder = tmp_path_factory.mktemp("ranks") / "two"
    with ranks(PREAMBLE + TWO, 2, folder) as two:
        told = lines_of_all(two, folder)
        assert [process.wait(LIMIT_S) for process in two] == [0, 0]
    return told


def test_loaders_that_nobody_divided_are_told_of_once_at_the_first_batch(two_ranks):
    message = (
        "each of the 2 processes of torch.distributed goes through every sample: this loader is not sharded; build it "
        "with shard='auto' after init_process_group, or with shard=(0, 1) if each process is to have them all"
    )
    for warned, *_ in two_ranks:
        assert len(warned) == 7
        assert all(each == [[message, True]] for each in warned.values()), warned


def test_the_first_ranks_draw_is_every_ranks_seed_also_from_a_generator(two_ranks):
    expected = random.Random(0).getrandbits(63)
    assert [seeds for _, *seeds, _ in two_ranks] == [[expected, expected]] * 2
    assert sorted(two_ranks[0][-1] + two_ranks[1][-1]) == list(range(8))
