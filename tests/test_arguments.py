"""Laws of the constructor: what is wrong is said when the loader is built: argument, rule and value."""

import itertools
import multiprocessing
import random
import warnings

import numpy as np
import pytest

from feedline import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    ErrorPolicy,
    FeedlineError,
    IterableDataset,
    LengthBucketBatchSampler,
    RandomSampler,
    Sampler,
    Shard,
)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(5))


class NoLength:
    def __getitem__(self, index):
        return index


def quietly(*args, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return DataLoader(*args, **how)


@pytest.mark.parametrize("size", [0, -1, 1.5, 2.0, True, False, np.True_, "2", [1], np.array([2]), float("nan")])
def test_a_batch_size_is_a_positive_integer(size):
    with pytest.raises(ValueError, match="batch_size must be a positive integer, got"):
        DataLoader([1, 2], batch_size=size)


@pytest.mark.parametrize("size", [2, np.int64(2), np.uint8(2), np.array(2)])
def test_a_batch_size_may_be_an_integer_of_numpy(size):
    loader = DataLoader(range(5), batch_size=size)
    assert [len(batch) for batch in loader] == [2, 2, 1]
    assert type(loader.batch_size) is int


def test_a_batch_size_beyond_any_dataset_has_a_state_like_any_other():
    loader = DataLoader(range(5), batch_size=10**20)
    assert next(iter(loader)).tolist() == [0, 1, 2, 3, 4]
    loader.load_state_dict(loader.state_dict())
    assert list(loader) == []


@pytest.mark.parametrize("dataset", [None, 5, 1.5, object()])
def test_a_dataset_has_samples(dataset):
    with pytest.raises(TypeError, match=r"dataset must have __getitem__ \(and __len__\), or be iterable, got"):
        DataLoader(dataset)


@pytest.mark.parametrize("how", [{}, {"shuffle": True}, {"shuffle": False}, {"batch_size": None}])
def test_without_a_length_a_sampler_is_needed(how):
    with pytest.raises(TypeError, match="dataset must have a length where no sampler is given, and NoLength has none"):
        DataLoader(NoLength(), **how)
    assert next(iter(DataLoader(NoLength(), sampler=itertools.count()))).tolist() == [0]


WRONG = [
    (ValueError, "backend must be one of 'auto', 'serial', 'thread', 'process', 'ray', got", {"backend": "gpu"}),
    (ValueError, "num_workers should be non-negative, got -1; 0 makes batches", {"num_workers": -1}),
    (TypeError, "num_workers must be an integer or 'auto', got 1.5", {"num_workers": 1.5}),
    (TypeError, "num_workers must be an integer or 'auto', got True", {"num_workers": True}),
    (TypeError, "num_workers must be an integer or 'auto', got 'many'", {"num_workers": "many"}),
    (TypeError, "num_workers must be an integer or 'auto', got None", {"num_workers": None}),
    (TypeError, "timeout must be a number of seconds, got 'soon'", {"timeout": "soon"}),
    (TypeError, "timeout must be a number of seconds, got True", {"timeout": True}),
    (ValueError, "timeout should be non-negative, got -1", {"timeout": -1}),
    (ValueError, "timeout should be non-negative, got nan", {"timeout": float("nan")}),
    (ValueError, "timeout needs num_workers > 0, got timeout=1", {"timeout": 1}),
    (ValueError, "prefetch_factor could only be specified in multiprocessing, got 2", {"prefetch_factor": 2}),
    (ValueError, "prefetch_factor should be non-negative, got -1", {"num_workers": 1, "prefetch_factor": -1}),
    (ValueError, "prefetch_factor must be a positive integer, got 0", {"num_workers": 1, "prefetch_factor": 0}),
    (TypeError, "prefetch_factor must be an integer or 'auto', got 1.5", {"num_workers": 1, "prefetch_factor": 1.5}),
    (ValueError, "persistent_workers needs num_workers > 0, got num_workers=0", {"persistent_workers": True}),
    (ValueError, "multiprocessing_context needs num_workers > 0, got 'spawn'", {"multiprocessing_context": "spawn"}),
    (ValueError, "must be one of .*, got 'x'", {"num_workers": 1, "multiprocessing_context": "x"}),
    (TypeError, "multiprocessing_context must be None, the name", {"num_workers": 1, "multiprocessing_context": 3}),
    (TypeError, "collate_fn must be callable, got 3", {"collate_fn": 3}),
    (TypeError, "worker_init_fn must be callable, got 'f'", {"worker_init_fn": "f"}),
    (TypeError, "batch_transform must be callable, got 3", {"batch_transform": 3}),
    (ValueError, "on_error must be 'raise', 'skip', 'replace' or an ErrorPolicy, got 'ignore'", {"on_error": "ignore"}),
    (TypeError, "shard must be None, .rank, world_size., a Shard or 'auto', got 3", {"shard": 3}),
    (TypeError, "shard must be None, .rank, world_size., a Shard or 'auto', got .1,.", {"shard": (1,)}),
    (TypeError, "shard must be None, .* got 'first'", {"shard": "first"}),
    (ValueError, "rank must be from 0 to world_size - 1 = 1, got 2", {"shard": (2, 2)}),
    (ValueError, "drop_last must be True or False, got None", {"drop_last": None}),
    (TypeError, "shuffle must be True, False or None, got 1", {"shuffle": 1}),
    (TypeError, "sampler must be iterable, got int", {"sampler": 5}),
    (TypeError, "batch_sampler must be iterable, got int", {"batch_sampler": 5}),
    (ValueError, "sampler is mutually exclusive with shuffle", {"sampler": [0], "shuffle": True}),
    (ValueError, "batch_sampler is mutually exclusive with batch_size", {"batch_sampler": [[0]], "batch_size": 2}),
    (ValueError, "batch_sampler is mutually exclusive with batch_size", {"batch_sampler": [[0]], "batch_size": None}),
    (ValueError, "batch_sampler is mutually exclusive with batch_size", {"batch_sampler": [[0]], "shuffle": True}),
    (ValueError, "batch_sampler is mutually exclusive with batch_size", {"batch_sampler": [[0]], "sampler": [0]}),
    (ValueError, "batch_sampler is mutually exclusive with batch_size", {"batch_sampler": [[0]], "drop_last": True}),
    (ValueError, "batch_size=None is mutually exclusive with drop_last", {"batch_size": None, "drop_last": True}),
    (ValueError, "seed is mutually exclusive with generator", {"seed": 1, "generator": random.Random(0)}),
    (TypeError, "seed must be an integer from 0 to .*, got 'a'", {"seed": "a"}),
    (TypeError, "seed must be an integer from 0 to .*, got True", {"seed": True}),
    (ValueError, "seed must be an integer from 0 to .*, got -1", {"seed": -1}),
    (ValueError, "seed must be an integer from 0 to", {"seed": 1 << 64}),
    (TypeError, "generator must be a random.Random, .* got int; give an integer as seed=", {"generator": 3}),
    (ValueError, "max_restarts must be a non-negative integer, got -1", {"max_restarts": -1}),
    ((TypeError, ValueError), "max_restarts must be a non-negative integer, got 'x'", {"max_restarts": "x"}),
    (TypeError, "in_order must be True or False, got 'x'", {"in_order": "x"}),
    (TypeError, "pin_memory must be True or False, got 'x'", {"pin_memory": "x"}),
    (
        TypeError,
        "persistent_workers must be True, False or None, got 'x'",
        {"num_workers": 1, "persistent_workers": "x"},
    ),
    (TypeError, "pin_memory_device must be", {"pin_memory_device": 3}),
    (TypeError, "sampler must be iterable, got .*RandomSampler", {"sampler": RandomSampler}),
    (
        TypeError,
        r"sampler must yield indices, got one that yields whole batches \(LengthBucketBatchSampler",
        {"sampler": LengthBucketBatchSampler([1, 2, 3], max_tokens=4).sampler},
    ),
]


@pytest.mark.parametrize(("error", "message", "how"), WRONG, ids=[f"{how}" for _, _, how in WRONG])
def test_a_wrong_argument_is_named_when_the_loader_is_built(error, message, how):
    with pytest.raises(error, match=message):
        quietly([1, 2, 3], **how)


@pytest.mark.parametrize("name", ["shuffle", "sampler", "batch_sampler"])
def test_a_stream_has_its_own_order(name):
    value = {"shuffle": True, "sampler": [0], "batch_sampler": [[0]]}[name]
    with pytest.raises(
        ValueError, match=f"DataLoader with an iterable dataset expected unspecified {name}, got {name}="
    ):
        DataLoader(Stream(), **{name: value})
    assert len(list(DataLoader(Stream(), shuffle=False))) == 5


def test_a_stream_has_no_replacements():
    for on_error in ("replace", ErrorPolicy("replace")):
        with pytest.raises(ValueError, match="on_error='replace' needs a dataset with __getitem__"):
            DataLoader(Stream(), on_error=on_error)


def test_an_epoch_is_not_divided_twice():
    """Each rank would get its part of a part, and the rest be lost."""
    sampler = DistributedSampler(range(8), 2, 0)
    for how in ({"sampler": sampler}, {"batch_sampler": BatchSampler(sampler, 2, False)}):
        with pytest.raises(ValueError, match="DistributedSampler"):
            DataLoader(range(8), shard=(0, 2), **how)


def test_shuffling_nothing_is_an_error_and_reading_nothing_is_not():
    with pytest.raises(ValueError, match="num_samples=0"):
        DataLoader([], shuffle=True)
    assert list(DataLoader([])) == []
    assert len(DataLoader([])) == 0


def test_values_that_are_not_wrong_are_taken():
    loader = quietly(
        [1, 2, 3],
        num_workers="auto",
        prefetch_factor="auto",
        multiprocessing_context=multiprocessing.get_context("spawn"),
        timeout=0.5,
        seed=np.uint64((1 << 64) - 1),
        shard=[Shard(0, 1), (0, 1), "auto", None][random.randrange(4)],
        backend="serial",
        persistent_workers=False,
    )
    assert loader.seed == (1 << 64) - 1
    assert loader.multiprocessing_context.get_start_method() == "spawn"
    assert [batch.tolist() for batch in loader] == [[1], [2], [3]]


@pytest.mark.parametrize("name", ["num_workers", "backend", "prefetch_factor"])
def test_an_array_where_a_number_belongs_is_named(name):
    with pytest.raises((TypeError, ValueError), match=f"{name} must be"):
        quietly([1], **{"num_workers": 1, name: np.array([1, 2])})


def test_ranks_may_be_integers_of_numpy():
    assert quietly(range(4), shard=(np.int64(1), np.int64(2))).shard == Shard(1, 2)


def test_more_workers_than_cpus_warn():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        DataLoader([1], num_workers=5000)
    assert "num_workers=5000 is excessive worker creation: this process may use" in str(caught[0].message)


def test_warnings_point_at_the_line_that_builds_the_loader():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        DataLoader([1], num_workers=5000)
    assert [warning.filename for warning in caught] == [__file__]


class Counted(Sampler):
    def __iter__(self):
        return iter([0, 2])


CHOICES = {
    "dataset": [[1, 2, 3], range(4), np.arange(5.0), {0: 1, 1: 2}, "abc", [], Stream(), iter([1]), NoLength(), None, 3],
    "batch_size": [1, 2, 10**9, None, 0, -1, 1.5, True, "2", np.int64(3)],
    "shuffle": [None, False, True, 1, "yes"],
    "sampler": [None, None, [0, 1], Counted(), RandomSampler([1, 2]), (), np.array([1, 0]), 3, [[0], [1, 2]], "ab"],
    "batch_sampler": [None, None, None, [[0], [1]], BatchSampler([0, 1], 2, False), [0, 1], [[]], 3, [[0], []]],
    "num_workers": [0, 0, 0, 1, "auto", -1, 1.5, None, np.int64(1)],
    "collate_fn": [None, list, 3, lambda batch: batch],
    "pin_memory": [False, False, False, 0],
    "drop_last": [False, True, None, 1],
    "timeout": [0, 1, -1, float("inf"), float("nan"), "x", None],
    "worker_init_fn": [None, print, 3],
    "multiprocessing_context": [None, None, "spawn", "x", 3],
    "generator": [None, None, random.Random(0), np.random.default_rng(0), 3],
    "prefetch_factor": [None, None, 2, 0, -1, "auto", 1.5],
    "persistent_workers": [None, None, True, False, "x"],
    "in_order": [True, False, None],
    "seed": [None, 0, 1 << 63, -1, 1 << 64, "a", 1.0, True],
    "backend": ["auto", "serial", "process", "x", None, 3],
    "batch_transform": [None, str, 3],
    "on_error": ["raise", "skip", "replace", "x", None, ErrorPolicy("skip", max_count=3), 3],
    "max_restarts": [8, 0, -1, "x"],
    "shard": [None, None, (0, 2), (1, 2), (2, 2), Shard(1, 3, "exact"), (0,), "auto", "x", 3],
    "device": [None, None, None, "cpu", "x", 3],
}


def test_three_thousand_combinations_raise_value_or_type_errors_or_work():
    chooser, built = random.Random(7), 0
    for _ in range(3000):
        names = chooser.sample(sorted(CHOICES), chooser.randint(0, 6))
        how = {name: chooser.choice(CHOICES[name]) for name in names}
        dataset = how.pop("dataset", [1, 2, 3])
        try:
            loader = quietly(dataset, **how)
        except (ValueError, TypeError):
            continue
        built += 1
        assert repr(loader).startswith("DataLoader(")
        assert loader._repr_html_()
        loader.load_state_dict(loader.state_dict())
        try:
            assert sum(1 for _ in itertools.islice(loader, 20)) <= 20
        except (ValueError, TypeError, IndexError, KeyError, FeedlineError):  # of the dataset, or of its order
            continue
        loader.load_state_dict(loader.state_dict())
    assert built > 600
