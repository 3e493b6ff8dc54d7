"""Ways of choosing samples, each a row of what must work with everything else: another one is one line of `WAYS`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from doubles import Own, Pairs, Sized, Stateful, Stream, noisy
from elastic_law import SEED, Epoch, LoaderRank, PlanRank, Stage

import feedline
from feedline import (
    BatchSampler,
    DataLoader,
    Dataset,
    LengthBucketBatchSampler,
    RandomSampler,
    StratifiedBatchSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)


class Shards(Stream):
    """A stream in seven shards, of which some are empty where it is short."""

    def shards(self):
        return 7

    def iter_shard(self, shard):
        return iter(range(shard * self.length // 7, (shard + 1) * self.length // 7))


class Rows(Dataset):
    """Sequences packed into rows: row r is the sum of the numbers of its sequences."""

    thread_safe = True
    uses_global_rng = False

    def __init__(self, length):
        self.packing = packed(length)

    def __len__(self):
        return self.packing.num_rows

    def __getitem__(self, row):
        begin, end = self.packing.offsets[row : row + 2]
        return int(self.packing.sequences[begin:end].sum())


@cache
def packed(length):
    """Sequences in rows, about half as many as ``length``."""
    return feedline.pack_sequences(lengths(6 * length), 60)


def rows(length):
    """The rows as lists of sequences."""
    packing = packed(length)
    return [part.tolist() for part in np.split(packing.sequences, packing.offsets[1:-1])]


def lengths(count):
    """Of sequences: from 1 to 60, most of them short."""
    return 60 // (np.arange(count) * 7 % 60 + 1)


def mixed(length):
    return feedline.mix({"a": range(length), "b": range(10_000, 10_000 + length // 3 + 1)}, [0.7, 0.3], stop="all")


class Numbers(Dataset):
    """Sample i is i."""

    thread_safe = True
    uses_global_rng = False

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return int(index)


@dataclass(frozen=True)
class Way:
    """A way of choosing samples.

    Attributes:
        make: arguments of a loader, but for the dataset, for a dataset's length and a stage.
        dataset: what they are chosen from, by a number of numbers.
        least: the smallest batch size that it takes.
        has_batches: whether it decides itself what a batch is; the division is one of batches then.
        knows_head: whether what padding repeats is always the epoch's beginning. A sampler that is resumed by its own
            state knows of it what the world before had needed, and no more.
    """

    make: Callable
    dataset: Callable = Numbers
    least: int = 1
    has_batches: bool = False
    knows_head: bool = True

    def arguments(self, length, stage):
        dataset = self.dataset(length)
        return {"dataset": dataset.map(noisy), **self.make(length, stage)}


def cut(**chosen):
    """Batches are what the loader cuts."""
    return lambda n, stage: {**chosen, "batch_size": stage.size, "drop_last": stage.drop_last}


def batched(make):
    """The arguments that make a batch sampler of ours."""
    return lambda n, stage: {"batch_sampler": make(n, stage.size, stage.drop_last)}


def drawn(make):
    """The arguments that give a sampler."""
    return lambda n, stage: {"sampler": make(n), "batch_size": stage.size, "drop_last": stage.drop_last}


WAYS = {
    "sequential": Way(cut()),
    "random": Way(cut(shuffle=True)),
    "replacement": Way(drawn(lambda n: RandomSampler(range(n), replacement=True))),
    "passes": Way(drawn(lambda n: RandomSampler(range(n), num_samples=2 * n + 3))),
    "subset": Way(drawn(lambda n: SubsetRandomSampler(range(0, n, 2)))),
    "weighted": Way(drawn(lambda n: WeightedRandomSampler(np.arange(n) % 5 + 1, 2 * n))),
    "distinct": Way(drawn(lambda n: WeightedRandomSampler(np.arange(n) % 5 + 1, n, replacement=False))),
    "balanced": Way(drawn(lambda n: WeightedRandomSampler.balanced(np.arange(n) % 5))),
    "list": Way(drawn(lambda n: [*range(n), 0, 0])),
    "batches": Way(batched(lambda n, size, drop: BatchSampler(RandomSampler(range(n)), size, drop))),
    "stratified": Way(
        batched(lambda n, size, drop: StratifiedBatchSampler(np.arange(n) % 2, size, group_size=2, drop_last=drop)),
        least=2,
    ),
    "buckets": Way(
        batched(
            lambda n, size, drop: LengthBucketBatchSampler(lengths(n), size, drop_last=drop, bucket_size=64, buckets=2)
        ),
    ),
    "tokens": Way(batched(lambda n, size, drop: LengthBucketBatchSampler(lengths(n), max_tokens=64)), has_batches=True),
    "rows": Way(cut(shuffle=True), dataset=Rows),
    "lists": Way(
        batched(lambda n, size, drop: rows(n)),
        dataset=lambda n: Numbers(6 * n),
        has_batches=True,
    ),
    "mixed": Way(cut(), dataset=mixed),
    "mixed, shuffled": Way(cut(shuffle=True), dataset=mixed),
    "own": Way(drawn(Own)),
    "sized": Way(drawn(Sized)),
    "batches, own": Way(batched(lambda n, size, drop: BatchSampler(Own(n), size, drop))),
    "batches, list": Way(batched(lambda n, size, drop: BatchSampler([*range(1, n), 0], size, drop))),
    "stateful": Way(drawn(Stateful), knows_head=False),
    "pairs": Way(lambda n, stage: {"batch_sampler": Pairs(n)}, has_batches=True),
    "stream": Way(cut(), dataset=Stream),
    "shards": Way(cut(), dataset=Shards),
    "stream, shuffled": Way(cut(), dataset=lambda n: Stream(n).shuffle(9)),
    "shards, shuffled": Way(cut(), dataset=lambda n: Shards(n).shuffle(9, interleave=2)),
}
STREAMS = ["stream", "shards", "stream, shuffled", "shards, shuffled"]
OWN = ["lists", "own", "sized", "batches, own", "stateful", "pairs"]  # users', whose order is known as it goes
DATASETS = ["rows", "mixed", "mixed, shuffled"]  # their orders are others' too
PLANNED = [kind for kind in WAYS if kind not in {*OWN, *DATASETS, *STREAMS}]
ENDLESS = [*PLANNED, *DATASETS, "sized"]


def made(kind, length, stage, number):
    """The sampler and the order of an epoch, where it is known beforehand."""
    loader = DataLoader(**WAYS[kind].arguments(length, stage), seed=SEED)
    return loader._source, loader._source.order(SEED, number)


@cache
def indices(kind, length, size, drop_last, number):
    """The epoch's one sequence of what the dataset is asked for, or of batches of it; a stream's of its samples."""
    way, stage = WAYS[kind], Stage(1, size, drop_last=drop_last)
    _, order = made(kind, length, stage, number)
    if order is not None and way.has_batches:
        return tuple(tuple(order.batch(batch).tolist()) for batch in range(order.length))
    if order is not None:
        return tuple(order.take(0, order.length).tolist())
    if kind in STREAMS:
        dataset = way.dataset(length)
        return tuple(dataset.read(seed=SEED, epoch=number) if "shuffled" in kind else dataset)
    how = way.make(length, stage)
    items = how.get("batch_sampler", how.get("sampler"))
    if not way.has_batches:
        items = getattr(items, "sampler", items)
    return tuple(tuple(item) if way.has_batches else item for item in items)


def values(kind, items, length):
    """What the dataset has at these indices."""
    if kind not in DATASETS:
        return items
    dataset = WAYS[kind].dataset(length)
    return tuple(int(dataset[item]) for item in items)


@cache
def samples(kind, length, size, drop_last, number):
    """The epoch's one sequence of samples."""
    return values(kind, indices(kind, length, size, drop_last, number), length)


@cache
def draws(kind, length, size, drop_last, number):
    """What is drawn for each of them in one process that nothing interrupts."""
    rank = LoaderRank(WAYS[kind], length, Stage(1, size, drop_last=drop_last), 0, number)
    found = []
    while rank.take() is not None:
        found += rank.drawn
    return tuple(found)


def by_stage(of, kind, length, number):
    """The sequence at a stage: a batch size plays a part under `StratifiedBatchSampler` alone, which fills it up."""
    fixed = kind != "stratified"
    return lambda stage: of(kind, length, 1 if fixed else stage.size, stage.drop_last and not fixed, number)


def by_loaders(kind, length, number):
    """An epoch whose ranks have loaders."""
    way = WAYS[kind]
    return Epoch(
        ranks=lambda stage: [LoaderRank(way, length, stage, rank, number) for rank in range(stage.world)],
        whole=by_stage(samples, kind, length, number),
        number=number,
        knows_head=way.knows_head,
        draws=by_stage(draws, kind, length, number),
    )


def by_plans(kind, length, number):
    """An epoch whose ranks have plans and cursors, and nothing else."""

    def ranks(stage):
        source, order = made(kind, length, stage, number)
        fixed = source.length is not None
        return [PlanRank(order, source.name, stage, rank, number, fixed) for rank in range(stage.world)]

    return Epoch(ranks, by_stage(indices, kind, length, number), number)


def endless(kind, length):
    """Passes end to end: gives the first so many items of them."""

    def first(count):
        items, number = (), 0
        while len(items) < count:
            items += samples(kind, length, max(WAYS[kind].least, 1), kind == "stratified", number)
            number += 1
        return items[:count]

    return first


def one_batch_size(kind, plan):
    """Whole batches are dealt one by one."""
    return [replace(stage, size=1, drop_last=False) for stage in plan] if WAYS[kind].has_batches else plan
