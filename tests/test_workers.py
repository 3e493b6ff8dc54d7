"""Laws of workers: what the user's code finds there, what comes back, what fails, and who is chosen."""

import dataclasses
import logging
import os
import random
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from doubles import WORKERS

import feedline
from feedline import (
    DataLoader,
    Dataset,
    ErrorPolicy,
    FeedlineError,
    TensorDataset,
    get_worker_info,
    register_collate,
    transforms,
)

TWO = {name: WORKERS[name] for name in ("thread", "process")}


class Safe(Dataset):
    """A dataset for any backend."""

    thread_safe = True
    uses_global_rng = False

    def __init__(self, length=12):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return index


class Asking(Safe):
    """Says where it is read."""

    start = 0

    def __getitem__(self, index):
        info = get_worker_info()
        if info is None:
            return None
        return {
            "id": info.id, "num_workers": info.num_workers, "seed": info.seed, "same": info.dataset is self,
            "start": self.start, "process": os.getpid(),
        }  # fmt: skip


def as_list(samples):
    return samples


class Tagging:
    """Notes where it is called."""

    def __call__(self, batch):
        return batch, get_worker_info() is not None, os.getpid()


def give_start(number):
    info = get_worker_info()
    assert info.id == number
    info.dataset.start = 10


# ------------------------------------------------------------------------------------------------ what workers find


@pytest.mark.parametrize("kind", TWO)
def test_code_in_a_worker_knows_its_number_the_seed_and_its_dataset_and_the_init_may_change_that(kind):
    with DataLoader(Asking(), 3, seed=5, collate_fn=as_list, worker_init_fn=give_start, **TWO[kind]) as loader:
        found = [sample for batch in loader for sample in batch]
    assert {each["id"] for each in found} <= {0, 1}
    assert {(each["num_workers"], each["seed"], each["same"], each["start"]) for each in found} == {(2, 5, True, 10)}
    assert ({each["process"] for each in found} == {os.getpid()}) == (kind == "thread")
    assert get_worker_info() is None
    assert list(DataLoader(Asking(2), 2, collate_fn=as_list)) == [[None, None]]


@pytest.mark.parametrize("kind", TWO)
def test_batch_transform_runs_in_the_worker(kind):
    with DataLoader(Safe(), 6, batch_transform=Tagging(), **TWO[kind]) as loader:
        for batch, in_worker, process in loader:
            assert len(batch) == 6
            assert in_worker
            assert (process == os.getpid()) == (kind == "thread")


class Seeded(Safe):
    def __init__(self, length=12):
        super().__init__(length)
        self.drawn = None

    def __getitem__(self, index):
        return [get_worker_info().id, self.drawn]


def draw_in_init(number):
    get_worker_info().dataset.drawn = (random.random(), np.random.rand())


def test_the_init_finds_the_global_generators_seeded_for_its_worker():
    runs = []
    for _ in range(2):
        with DataLoader(
            Seeded(), 1, seed=5, collate_fn=as_list, worker_init_fn=draw_in_init, **TWO["process"]
        ) as loader:
            runs.append({number: drawn for ((number, drawn),) in loader})
    assert runs[0].keys() & runs[1].keys()
    for number in runs[0].keys() & runs[1].keys():
        assert runs[0][number] == runs[1][number]
    assert len(set(runs[0].values())) == len(runs[0])


def refuse(number):
    raise LookupError(f"no device for worker {number}")


@pytest.mark.parametrize("kind", TWO)
def test_an_error_of_the_init_arrives_as_itself(kind):
    with (
        DataLoader(Safe(), 4, worker_init_fn=refuse, **TWO[kind]) as loader,
        pytest.raises(LookupError, match="no device for worker"),
    ):
        next(iter(loader))


class Custom(UserWarning):
    pass


class Surveying(Safe):
    """What a worker has taken over."""

    def __getitem__(self, index):
        import torch

        caught = []
        with warnings.catch_warnings(record=True) as shown:
            warnings.warn("as the loop's filters say", DeprecationWarning, stacklevel=1)
        for number in range(2):
            try:
                warnings.warn(f"raised {number}", FutureWarning, stacklevel=1)
            except FutureWarning:
                caught.append(number)
        names = ["OMP_NUM_THREADS", "JAX_PLATFORMS", "FEEDLINE_TEST"]
        return {
            "threads": torch.get_num_threads(), "dtype": str(torch.zeros(1).dtype), "cwd": str(Path.cwd()),
            "path": sys.path[0], "raised": caught, "shown": len(shown),
            **{name: os.environ.get(name) for name in names},
        }  # fmt: skip


def test_workers_take_over_environment_folder_path_filters_and_dtype_and_use_one_thread(tmp_path, monkeypatch):
    import torch

    monkeypatch.setenv("FEEDLINE_TEST", "yes")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    monkeypatch.setattr(torch, "get_default_dtype", torch.get_default_dtype)
    torch.set_default_dtype(torch.float64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("error", FutureWarning)
            with DataLoader(Surveying(1), None, **TWO["process"]) as loader:
                (found,) = loader
    finally:
        torch.set_default_dtype(torch.float32)
    assert found == {
        "threads": 1, "dtype": "torch.float64", "cwd": str(tmp_path), "path": str(tmp_path / "mine"), "raised": [0, 1],
        "shown": 0, "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu", "FEEDLINE_TEST": "yes",
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------------- what comes back


class Reading:
    """A user's own type."""

    def __init__(self, value):
        self.value = value


@dataclasses.dataclass
class Pair:
    x: np.ndarray
    name: str


class Tensor:
    """A teaching framework's tensor."""

    def __init__(self, data):
        self.data = np.asarray(data)
        self.grad = None


class Kinds(Safe):
    def __getitem__(self, index):
        import jax.numpy as jnp
        import torch

        return {
            "int": index, "float": index / 2, "bool": index > 2, "text": str(index), "bytes": b"%d" % index,
            "numpy": np.full((2, 3), index, np.float16), "scalar": np.uint8(index),
            "strided": np.arange(12, dtype=">i4").reshape(3, 4)[::2, 1:], "words": np.array(["a", "bc"]),
            "torch": torch.full((2,), float(index)), "bfloat": torch.full((2,), index, dtype=torch.bfloat16),
            "jax": jnp.full((2,), index), "pair": Pair(np.zeros(2), "p"), "tensor": Tensor([index, 1.0]),
            "nested": ([index, (index, {"deep": np.zeros(1)})],), "time": np.datetime64("2020-01-01"),
            "structured": np.zeros(2, [("a", "i4"), ("b", "f8")]), "masked": np.ma.masked_equal([index, 1], 1),
            "reading": Reading(index),
        }  # fmt: skip


def gathered(values):
    return [value.value for value in values]


def described(value):
    """Types, dtypes and bytes of a batch."""
    if isinstance(value, dict):
        return {key: described(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [described(part) for part in value]
    if isinstance(value, Pair | Tensor):
        return type(value), described(vars(value))
    if isinstance(value, np.ma.MaskedArray):
        return type(value), value.dtype, value.tolist()
    if hasattr(value, "dtype"):
        plain = value.float() if str(value.dtype) == "torch.bfloat16" else value
        return type(value), str(value.dtype), np.asarray(plain).shape, np.asarray(plain).tobytes()
    return type(value), value


def test_batches_are_of_the_same_types_and_bytes_from_everywhere():
    undo = register_collate(Reading, gathered)
    try:
        expected = [described(batch) for batch in DataLoader(Kinds(6), 3)]
        assert expected[0]["reading"] == (list, [(int, 0), (int, 1), (int, 2)])
        for workers in TWO.values():
            with DataLoader(Kinds(6), 3, **workers) as loader:
                assert [described(batch) for batch in loader] == expected
        single = [described(sample) for sample in DataLoader(Kinds(2), None, collate_fn=without_reading)]
        with DataLoader(Kinds(2), None, collate_fn=without_reading, **TWO["process"]) as loader:
            assert [described(sample) for sample in loader] == single
    finally:
        undo()


def without_reading(sample):
    return {key: value for key, value in sample.items() if key != "reading"}


def test_batches_can_be_written_to_outlive_the_loader_and_are_all_there_when_kept(workers):
    with DataLoader(TensorDataset(np.arange(4000.0).reshape(1000, 4)), 4, **workers) as loader:
        kept = list(loader)
        kept += list(loader)
        for (batch,) in kept[:250]:
            np.add(batch, 1, out=batch)
    assert len(kept) == 500
    assert np.array_equal(np.concatenate([batch for (batch,) in kept[:250]]).ravel(), np.arange(1.0, 4001))
    assert np.array_equal(np.concatenate([batch for (batch,) in kept[250:]]).ravel(), np.arange(4000.0))


# ------------------------------------------------------------------------------------------------------------- errors


class Bad(Safe):
    def __init__(self, length=24, bad=()):
        super().__init__(length)
        self.bad = set(bad)

    def __getitem__(self, index):
        if index in self.bad:
            raise ValueError(f"sample {index} is bad")
        return index


def through(loader):
    """All that comes of an epoch, errors too."""
    iterator, got = iter(loader), []
    while True:
        try:
            got.append(next(iterator).tolist())
        except StopIteration:
            return got
        except (ValueError, FeedlineError) as error:
            got.append(f"{type(error).__name__}: {error}".partition(";")[0])


POLICIES = {
    "raise": {},
    "skip": {"max_count": 3},
    "replace": {"max_rate": 0.5},
}


def test_failures_are_dealt_with_and_counted_the_same_by_any_workers():
    for action, budget in POLICIES.items():
        results = []
        for number, workers in [
            (1, {}),
            (2, TWO["thread"]),
            (3, TWO["process"]),
            (1, TWO["process"] | {"num_workers": 1}),
        ]:
            told = []

            def tell(failed, told=told):
                told.append((failed.index, failed.epoch, failed.step, str(failed.error), os.getpid()))

            policy = ErrorPolicy(action, callback=tell, **budget)
            dataset = Bad(bad=[1, 4, 5, 6, 7, 13, 23])
            with DataLoader(dataset, 4, shuffle=True, seed=3, on_error=policy, **workers) as loader:
                results.append((through(loader) + through(loader), told, loader.stats()))
            assert number
        assert results[0] == results[1] == results[2] == results[3]
        assert len(results[0][1]) == results[0][2].failed_samples > 6
        assert {process for *_, process in results[0][1]} == {os.getpid()}


def test_an_error_takes_its_batchs_place_and_the_next_call_goes_on(workers):
    with DataLoader(Bad(12, [5]), 4, **workers) as loader:
        iterator = iter(loader)
        assert next(iterator).tolist() == [0, 1, 2, 3]
        state = loader.state_dict()
        with pytest.raises(ValueError, match="sample 5 is bad") as caught:
            next(iterator)
        assert "in sample index 5" in caught.value.__notes__[0]
        assert loader.state_dict() == state
        assert [batch.tolist() for batch in iterator] == [[8, 9, 10, 11]]
        assert loader.stats() == feedline.insight.stats.Stats(batches=2, samples=8, failed_samples=1, epochs=1)


class Sometimes(Safe):
    def __getitem__(self, index):
        return None if index // 4 == 1 or index == 9 else index


def drop_none(samples):
    return feedline.default_collate([sample for sample in samples if sample is not None])


EMPTY = {"None": lambda: None, "list": list, "tuple": tuple, "dict": dict, "array": lambda: np.zeros((0, 3))}


@pytest.mark.parametrize("empty", EMPTY)
def test_an_empty_batch_is_passed_over_and_counted(workers, empty):
    make = EMPTY[empty]

    def collate(samples):
        kept = [sample for sample in samples if sample is not None]
        return np.array(kept) if kept else make()

    with DataLoader(Sometimes(), 4, collate_fn=collate, batch_transform=lambda batch: batch * 2, **workers) as loader:
        assert [batch.tolist() for batch in loader] == [[0, 2, 4, 6], [16, 20, 22]]
        assert (loader.stats().empty_batches, loader.stats().batches, loader.stats().samples) == (1, 2, 8)


def test_a_collate_function_that_drops_all_samples_before_it_calls_ours_is_understood(workers):
    with DataLoader(Sometimes(), 4, collate_fn=drop_none, batch_transform=lambda batch: batch * 2, **workers) as loader:
        iterator = iter(loader)
        assert next(iterator).tolist() == [0, 2, 4, 6]
        assert next(iterator).tolist() == [16, 20, 22]
        assert loader.state_dict()["position"] == 12
        assert list(iterator) == []
        assert loader.stats().empty_batches == 1
    with pytest.raises(ValueError, match="cannot collate an empty batch"):
        feedline.default_collate([])


def test_an_empty_sample_is_delivered(workers):
    with DataLoader([[], None, [1]], None, **workers) as loader:
        assert list(loader) == [[], None, [1]]


class Stuck(Safe):
    def __init__(self, length, stuck):
        super().__init__(length)
        self.stuck, self.event = stuck, threading.Event()

    def __getitem__(self, index):
        if index == self.stuck:
            self.event.wait(30)
        return index


def test_a_batch_past_its_timeout_raises_in_a_thread_and_the_next_ones_come():
    dataset = Stuck(12, 5)
    with DataLoader(dataset, 4, timeout=0.3, **TWO["thread"]) as loader:
        iterator = iter(loader)
        assert next(iterator).tolist() == [0, 1, 2, 3]
        with pytest.raises(feedline.errors.WorkerError, match=r"timed out after 0\.3 seconds"):
            next(iterator)
        assert [batch.tolist() for batch in iterator] == [[8, 9, 10, 11]]
        stuck = [thread for thread in threading.enumerate() if thread.name.startswith("feedline worker")]
        dataset.event.set()
    for thread in stuck:
        thread.join(30)


# ------------------------------------------------------------------------------------------------------ who is chosen


class Declared:
    thread_safe = True
    uses_global_rng = False

    def __call__(self, batch):
        return batch, os.getpid()


class Undeclared(Declared):
    thread_safe = False


def chosen(dataset, **options):
    options = {"num_workers": 2, "batch_size": 4, "batch_transform": Declared()} | options
    with DataLoader(dataset, **options) as loader:
        return "thread" if next(iter(loader))[1] == os.getpid() else "process"


class Unsafe(Safe):
    thread_safe = False


class Global(Safe):
    uses_global_rng = True


def test_threads_are_chosen_where_everything_says_that_they_may_be():
    assert chosen(Safe()) == "thread"
    assert chosen(list(range(8))) == "thread"
    assert chosen(TensorDataset(np.arange(8))) == "thread"
    assert chosen(Safe(), collate_fn=Declared()) == "thread"
    assert chosen(TensorDataset(np.zeros((8, 9, 9, 3), np.uint8)).map(transforms.RandomHorizontalFlip(), 0)) == "thread"
    assert chosen(Unsafe()) == "process"
    assert chosen(Global()) == "process"
    assert chosen(Safe(), collate_fn=as_array) == "process"
    assert chosen(Safe(), worker_init_fn=int) == "process"
    assert chosen(TensorDataset(np.arange(8)).map(abs, 0)) == "process"
    assert chosen(Safe(), batch_transform=transforms.Compose([Declared()])) == "thread"
    assert chosen(Safe(), batch_transform=transforms.Compose([Undeclared()])) == "process"


def test_who_makes_the_batches_is_chosen_again_when_other_functions_are_assigned():
    with DataLoader(Safe(8), 4, num_workers=2, batch_transform=Declared()) as loader:
        for function, in_this_process in [(Declared(), True), (Undeclared(), False), (Declared(), True)]:
            loader.batch_transform = function
            assert {process == os.getpid() for _, process in loader} == {in_this_process}


def as_array(samples):
    return np.array(samples)


def test_ray_is_not_there_yet_and_processes_stand_in():
    with pytest.warns(UserWarning, match="backend='ray'.* processes of this machine"):
        assert chosen(Safe(), backend="ray") == "process"
    assert [batch.tolist() for batch in DataLoader(Safe(4), 2, backend="ray")] == [[0, 1], [2, 3]]


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_auto_workers_are_as_many_as_the_processors_and_work_two_batches_ahead(backend):
    with DataLoader(
        Asking(), 1, num_workers="auto", prefetch_factor="auto", backend=backend, collate_fn=as_list
    ) as loader:
        assert {sample["num_workers"] for (sample,) in loader} == {len(os.sched_getaffinity(0))}
        assert loader._workers.credits == 2 * len(os.sched_getaffinity(0))


class Nested(Safe):
    def __getitem__(self, index):
        with DataLoader(Safe(3), 3, num_workers=2, backend="process") as inner:
            (batch,) = inner
        return int(batch.sum()) + index


@pytest.mark.parametrize("kind", TWO)
def test_a_loader_within_a_worker_makes_its_batches_there(kind, caplog):
    with caplog.at_level(logging.WARNING, "feedline"), DataLoader(Nested(4), 2, **TWO[kind]) as loader:
        assert [batch.tolist() for batch in loader] == [[3, 4], [5, 6]]
    if kind == "thread":
        assert "num_workers=2 is used within a worker" in caplog.text


def test_the_state_after_an_empty_batch_is_beyond_it(workers):
    def collate(samples):
        kept = [sample for sample in samples if sample is not None]
        if 8 in kept:
            raise ValueError("the last one")
        return np.array(kept)

    with DataLoader(Sometimes(), 4, collate_fn=collate, **workers) as loader:
        iterator = iter(loader)
        assert next(iterator).tolist() == [0, 1, 2, 3]
        with pytest.raises(ValueError, match="the last one"):
            next(iterator)
        assert loader.state_dict()["position"] == 8
        assert list(iterator) == []
        state = loader.state_dict()
        assert (state["epoch"], state["position"]) == (1, 0)


class Scheduled(Dataset):
    """Samples say how the system schedules the process that makes them."""

    def __len__(self):
        return 4

    def __getitem__(self, _):
        return os.sched_getscheduler(0)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such policy")
def test_worker_processes_are_batch_jobs_to_the_system_which_do_not_take_the_place_of_the_loop():
    with DataLoader(Scheduled(), 2, num_workers=2, backend="process") as loader:
        assert np.concatenate(list(loader)).tolist() == [os.SCHED_BATCH] * 4
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
