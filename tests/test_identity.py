"""Laws of identity: what a loader yields is the same to the last bit, whatever makes it and wherever it was resumed."""

import json
import multiprocessing
import random
from contextlib import contextmanager

import numpy as np
import pytest
import torch

import feedline
from feedline import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    StratifiedBatchSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    transforms,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*excessive worker creation:UserWarning",
    "ignore:fork with .* other thread:UserWarning",
    "ignore:os.fork:RuntimeWarning",  # of JAX, where another test has imported it
)
SIZE = 37
WORKERS = [
    {"num_workers": 1, "backend": "thread"},
    {"num_workers": 5, "backend": "thread"},
    {"num_workers": 1, "backend": "process"},
    {"num_workers": 2, "backend": "process"},
    {"num_workers": 5, "backend": "process"},
    {"num_workers": 2, "backend": "process", "multiprocessing_context": "fork"},
    {"num_workers": 2, "backend": "process", "multiprocessing_context": "spawn"},
]
names = "-".join


def named(workers):
    return names(str(value) for value in workers.values())


class Images(Dataset):
    """Crops, flips and numbers of `feedline.rng`."""

    thread_safe = True
    uses_global_rng = False

    def __init__(self):
        self.images = np.random.default_rng(0).integers(0, 256, (SIZE, 12, 12, 3), dtype=np.uint8)
        self.augment = transforms.Compose([
            transforms.RandomCrop(8, padding=2), transforms.RandomHorizontalFlip(), transforms.ToFloat(),
        ])  # fmt: skip

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        return {"image": self.augment(self.images[index]), "index": index, "noise": feedline.rng().normal(size=3)}


class Globals(Images):
    """And numbers of all global generators."""

    uses_global_rng = True

    def __getitem__(self, index):
        return super().__getitem__(index) | {"drawn": drawn()}


def drawn():
    return np.array([random.random(), np.random.rand(), float(torch.rand((), dtype=torch.float64))])


def collate(samples):
    return feedline.default_collate(samples) | {"collate": drawn(), "rng": feedline.rng().random()}


def transform(batch):
    return batch | {"transform": drawn(), "mean": batch["image"].mean() + feedline.rng().random()}


def pure(samples):
    return feedline.default_collate(samples) | {"rng": feedline.rng().random()}


def transform_purely(batch):
    return batch | {"mean": batch["image"].mean() + feedline.rng().random()}


def assert_same(got, expected):
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert type(value) is type(theirs[name])
            assert np.asarray(value).dtype == np.asarray(theirs[name]).dtype
            assert np.asarray(value).tobytes() == np.asarray(theirs[name]).tobytes(), name


def epochs(count=2, dataset=None, **options):
    with DataLoader(dataset or Images(), seed=11, **options) as loader:
        return [batch for _ in range(count) for batch in loader]


@pytest.fixture(scope="module")
def expected():
    """What the calling thread makes."""
    own = {"collate_fn": collate, "batch_transform": transform}
    return {
        "own": epochs(dataset=Globals(), batch_size=4, shuffle=True, **own),
        "pure": epochs(batch_size=4, shuffle=True, collate_fn=pure, batch_transform=transform_purely),
        "default": epochs(batch_size=4, shuffle=True),
    }


@pytest.mark.parametrize("workers", WORKERS, ids=named)
def test_the_stream_is_the_same_whatever_makes_it(workers, expected):
    if workers["backend"] == "process":
        kind, options = "own", {"dataset": Globals(), "collate_fn": collate, "batch_transform": transform}
    else:
        kind, options = "pure", {"collate_fn": pure, "batch_transform": transform_purely}
    assert_same(epochs(batch_size=4, shuffle=True, **options, **workers), expected[kind])
    assert len(expected[kind]) == 20


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_the_stream_is_the_same_however_far_it_is_made_ahead(backend, expected):
    got = epochs(batch_size=4, shuffle=True, num_workers=2, backend=backend, prefetch_factor=7)
    assert_same(got, expected["default"])


def test_the_loop_finds_the_global_generators_as_it_left_them():
    with DataLoader(Globals(), 4, seed=1, num_workers=2, backend="process") as loader:
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        before = drawn()
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        list(loader)
        assert np.array_equal(drawn(), before)


# ----------------------------------------------------------------------------------------------------- samplers, shards


class Own:
    """A user's sampler, which draws from Python's generator and saves its place."""

    def __init__(self):
        self.place = 0

    def __iter__(self):
        order = list(range(SIZE))
        random.Random(5).shuffle(order)
        while self.place < SIZE:
            self.place += 1
            yield order[self.place - 1]
        self.place = 0

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


class Plain:
    """A user's sampler that only yields, from Python's global generator."""

    def __iter__(self):
        order = list(range(SIZE))
        random.shuffle(order)
        return iter(order)


LABELS = [index % 3 for index in range(SIZE)]
KINDS = {
    "shuffle": lambda: {"batch_size": 4, "shuffle": True},
    "sequential": lambda: {"batch_size": 4},
    "drop_last": lambda: {"batch_size": 4, "shuffle": True, "drop_last": True},
    "weighted": lambda: {"batch_size": 4, "sampler": WeightedRandomSampler(np.arange(1, SIZE + 1), SIZE)},
    "subset": lambda: {"batch_size": 4, "sampler": SubsetRandomSampler(range(3, 30))},
    "stratified": lambda: {"batch_sampler": StratifiedBatchSampler(LABELS, 6)},
    "own": lambda: {"batch_size": 4, "sampler": Own()},
    "plain": lambda: {"batch_size": 4, "sampler": Plain()},
    "batches": lambda: {"batch_sampler": [[1, 2, 3], [4], [30, 5, 3, 1], [7, 8], [9, 10], [11]]},
    "batch sampler": lambda: {"batch_sampler": BatchSampler(Own(), 5, drop_last=False)},
    "single": lambda: {"batch_size": None, "shuffle": True},
    "rank": lambda: {"batch_size": 3, "shuffle": True, "shard": (1, 2)},
}


@contextmanager
def loader_of(kind, workers):
    with DataLoader(Images(), seed=7, **KINDS[kind](), **workers) as loader:
        yield loader


TWO = [{"num_workers": 2, "backend": "thread"}, {"num_workers": 2, "backend": "process"}]


@pytest.mark.parametrize("kind", KINDS)
def test_every_sampler_gives_the_same_stream_and_is_resumed_by_any_workers(kind):
    with loader_of(kind, {}) as serial:
        whole = [batch for _ in range(2) for batch in serial]
    previous = {}
    for workers in [*TWO, {}]:
        with loader_of(kind, workers) as loader, loader_of(kind, previous) as before:
            assert_same([batch for _ in range(2) for batch in loader], whole)
            taken = len(whole) // 2 + 2  # in the second epoch, with batches under way
            got = []
            while len(got) < taken:
                for batch in before:
                    got.append(batch)
                    if len(got) == taken:
                        state = json.loads(json.dumps(before.state_dict()))
                        break
            loader.load_state_dict(state)
            assert_same(got + list(loader), whole)
        previous = workers


def test_an_iterable_is_read_once_and_the_same_by_any_workers():
    expected = epochs(dataset=Stream(), batch_size=4)
    for workers in [*TWO, {"num_workers": 1, "backend": "process"}]:
        assert_same(epochs(dataset=Stream(), batch_size=4, **workers), expected)
        assert_same(epochs(dataset=Stream(), batch_size=4, in_order=False, **workers), expected)


class Stream(IterableDataset):
    thread_safe = True
    uses_global_rng = False

    def __iter__(self):
        for index in range(SIZE):
            yield {"index": index, "noise": feedline.rng().random()}


# ------------------------------------------------------------------------------------------------------------- in_order


class Held(Dataset):
    """One sample waits for its permission."""

    thread_safe = True
    uses_global_rng = False

    def __init__(self, event, index=0):
        self.event, self.index = event, index

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        if index == self.index:
            assert self.event.wait(30)
        return index


@pytest.mark.parametrize("backend", ["thread", "process"])
@pytest.mark.parametrize("sampler", [None, Own, Plain])
def test_without_order_a_slow_batch_holds_up_nothing_and_the_state_lists_it(backend, sampler):
    event = multiprocessing.get_context("forkserver").Event()
    options = {"batch_size": 4, "seed": 3, "in_order": False}

    def build(wait, **workers):
        order = {} if sampler is None else {"sampler": sampler()}
        return DataLoader(Held(event, wait), **options, **order, **workers)

    with build(-1) as serial:
        expected = [batch.tolist() for batch in serial]
    with build(expected[1][2], num_workers=2, backend=backend, prefetch_factor=3) as loader:
        iterator = iter(loader)
        got = [next(iterator).tolist() for _ in range(5)]
        state = json.loads(json.dumps(loader.state_dict()))
        steps = set(range(-(-state["position"] // 4))) - set(state["undelivered"])
        assert sorted(got) == sorted(expected[step] for step in steps)
        assert state["undelivered"][0] == 1
        event.set()
        assert sorted(got + [batch.tolist() for batch in iterator]) == sorted(expected)
        assert loader.stats().batches == len(expected)
    for workers in ({}, {"num_workers": 2, "backend": "process"}):
        with build(-1, **workers) as resumed:
            resumed.load_state_dict(state)
            iterator = iter(resumed)
            first = next(iterator).tolist()
            if not workers:
                assert first == expected[1]
                assert resumed.state_dict() == state | {"undelivered": state["undelivered"][1:]} | {
                    "sampler_state": resumed.state_dict()["sampler_state"]
                }
            assert sorted(got + [first] + [batch.tolist() for batch in iterator]) == sorted(expected)


def test_a_state_with_undelivered_steps_keeps_its_geometry():
    state = DataLoader(range(SIZE), 4, seed=3).state_dict() | {"position": 16, "undelivered": [1, 2]}
    loader = DataLoader(range(SIZE), 4, seed=3)
    loader.load_state_dict(state)
    assert [batch[0] for batch in loader] == [4, 8, *range(16, SIZE, 4)]
    for other in (DataLoader(range(SIZE), 5, seed=3), DataLoader(range(SIZE), 2, seed=3, shard=(0, 2))):
        with pytest.raises(feedline.errors.StateError, match="lists steps still to come of batch_size=4 and 1 ranks"):
            other.load_state_dict(state)


@pytest.mark.parametrize("steps", [[3], [2, 1], [1, 1], [-1], [True], "12", [1.0], {}, None])
def test_undelivered_steps_that_cannot_be_are_refused(steps):
    state = DataLoader(range(SIZE), 4, seed=3).state_dict() | {"position": 16, "undelivered": steps}
    with pytest.raises(feedline.errors.StateError, match=r"state\['undelivered'\]"):
        DataLoader(range(SIZE), 4).load_state_dict(state)
