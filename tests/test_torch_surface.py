"""What torch.utils.data does without workers, ours does: checked side by side, row by row."""

import inspect
import random
import re
import warnings
from itertools import chain

import numpy as np
import pytest
import torch
import torch.utils.data as theirs
from hypothesis import given
from hypothesis import strategies as st

import feedline as ours


def outcome(module, function):
    """What a call gives under a module, or the type of its error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(module)
        except (ValueError, TypeError, IndexError, RuntimeError) as error:
            return next(kind for kind in (ValueError, TypeError, IndexError, RuntimeError) if isinstance(error, kind))


def listed(batch):
    if isinstance(batch, list | tuple):
        return [listed(part) for part in batch]
    return batch.tolist() if hasattr(batch, "tolist") else batch


def test_the_signature_begins_with_torchs():
    mine = list(inspect.signature(ours.DataLoader).parameters.values())
    expected = list(inspect.signature(theirs.DataLoader).parameters.values())
    assert [(part.name, part.kind) for part in mine[: len(expected)]] == [(part.name, part.kind) for part in expected]
    defaults = {part.name: part.default for part in mine}
    different = {part.name for part in expected if part.default != defaults[part.name]}
    assert different == {"persistent_workers"}  # None: workers stay, once there are some


def test_the_loader_is_subscriptable():
    assert ours.DataLoader[int]([1], 1).batch_size == 1


REFUSED = [
    {"num_workers": -1},
    {"num_workers": 1, "timeout": -1},
    {"num_workers": 1, "prefetch_factor": -1},
    {"prefetch_factor": 2},
    {"persistent_workers": True},
    {"multiprocessing_context": "spawn"},
    {"num_workers": 1, "multiprocessing_context": "no such"},
    {"num_workers": 1, "multiprocessing_context": 3},
    {"sampler": [0], "shuffle": True},
    {"batch_sampler": [[0]], "batch_size": 2},
    {"batch_sampler": [[0]], "shuffle": True},
    {"batch_sampler": [[0]], "sampler": [0]},
    {"batch_sampler": [[0]], "drop_last": True},
    {"batch_size": None, "drop_last": True},
    {"batch_size": 0},
    {"batch_size": -1},
    {"batch_size": True},
    {"batch_size": 2.0},
]


@pytest.mark.parametrize("how", REFUSED, ids=str)
def test_what_torch_refuses_is_refused_with_the_same_type(how):
    mine = outcome(ours, lambda module: module.DataLoader([1, 2], **how))
    assert mine == outcome(theirs, lambda module: module.DataLoader([1, 2], **how))
    assert mine in (ValueError, TypeError)


@pytest.mark.parametrize(
    "how", [{"shuffle": True}, {"sampler": [0]}, {"batch_sampler": [[0]]}, {"shuffle": False}], ids=str
)
def test_streams_take_no_order_as_in_torch(how):
    def build(module):
        class Stream(module.IterableDataset):
            def __iter__(self):
                return iter([1, 2])

        return listed(list(module.DataLoader(Stream(), **how)))

    assert outcome(ours, build) == outcome(theirs, build)


def test_where_torch_speaks_late_ours_speaks_at_once():
    """Torch: an AssertionError, and only when iterated."""
    for how in ({"timeout": 1}, {"num_workers": 1, "prefetch_factor": 0}):
        assert outcome(ours, lambda module: module.DataLoader([1], **how)) is ValueError
    assert next(iter(ours.DataLoader([1, 2], np.int64(2)))).tolist() == [1, 2]  # torch refuses it


def test_an_empty_dataset_gives_no_batches_or_refuses_to_be_shuffled():
    for module in (ours, theirs):
        assert outcome(module, lambda module: list(module.DataLoader([]))) == []
        assert outcome(module, lambda module: list(module.DataLoader([], shuffle=True))) is ValueError


@pytest.mark.parametrize(
    "name", ["dataset", "batch_size", "sampler", "batch_sampler", "drop_last", "persistent_workers"]
)
def test_what_torch_does_not_let_be_set_later_stays(name):
    loader = ours.DataLoader([1, 2])
    assert hasattr(theirs.DataLoader([1, 2]), name)
    assert outcome(theirs, lambda module: setattr(module.DataLoader([1, 2]), name, None)) is ValueError
    with pytest.raises(ValueError, match=f"{name} should not be set after the loader is built; build another loader"):
        setattr(loader, name, None)


def test_the_attributes_are_torchs():
    def attributes(module, **how):
        loader = module.DataLoader(range(4), **how)
        names = "batch_size drop_last num_workers timeout pin_memory prefetch_factor persistent_workers in_order"
        values = {name: getattr(loader, name) for name in [*names.split(), "pin_memory_device"]}
        kinds = {name: type(getattr(loader, name)).__name__ for name in ("sampler", "batch_sampler", "dataset")}
        return values, kinds, loader.generator, loader.worker_init_fn, loader.multiprocessing_context

    for how in (
        {},
        {"batch_size": 2, "drop_last": True},
        {"shuffle": True},
        {"batch_size": None},
        {"batch_sampler": [[1]]},
    ):
        assert attributes(ours, **how) == attributes(theirs, **how)


@given(st.integers(0, 30), st.integers(1, 7), st.booleans())
def test_sequential_loaders_give_the_same_batches(length, size, drop_last):
    mine, expected = (module.DataLoader(range(length), size, drop_last=drop_last) for module in (ours, theirs))
    assert [batch.tolist() for batch in mine] == [batch.tolist() for batch in expected]
    assert len(mine) == len(expected) == len(iter(mine))


NESTED = [
    {"x": np.float32(1.5), "y": [1, 2.5], "name": "a", "t": (True, b"b")},
    {"x": np.float32(2.5), "y": [3, 4.5], "name": "c", "t": (False, b"d")},
]


@pytest.mark.parametrize(
    "data",
    [
        [1, 2, 3],
        [1.5, 2.5],
        ["a", "b"],
        [(1, "a"), (2, "b")],
        NESTED,
        [np.arange(2), np.arange(2)],
        [torch.ones(2), torch.zeros(2)],
        [b"x", b"y"],
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [1, 2, None])
def test_batches_hold_what_torchs_hold(data, size):
    mine, expected = ([*module.DataLoader(data, size)] for module in (ours, theirs))
    assert repr([plain(batch) for batch in mine]) == repr([plain(batch) for batch in expected])


def plain(batch):
    if isinstance(batch, dict):
        return {name: plain(part) for name, part in batch.items()}
    return listed(batch)


@pytest.mark.parametrize("data", [[None], [{1}], [object()]], ids=str)
def test_what_torch_does_not_collate_is_a_type_error(data):
    for module in (ours, theirs):
        assert outcome(module, lambda module: next(iter(module.DataLoader(data)))) is TypeError


def test_torch_samples_give_torch_batches():
    dataset = theirs.TensorDataset(torch.arange(6.0).reshape(3, 2), torch.arange(3))
    for data in (dataset, ours.TensorDataset(*dataset.tensors), theirs.Subset(dataset, [0, 1, 2])):
        x, y = next(iter(ours.DataLoader(data, 2)))
        assert isinstance(x, torch.Tensor)
        assert (x.dtype, y.tolist()) == (torch.float32, [0, 1])


def test_lengths_of_streams_are_torchs_and_exceeding_them_warns():
    def run(module):
        class Stream(module.IterableDataset):
            def __len__(self):
                return 5

            def __iter__(self):
                return iter(range(14))

        loader = module.DataLoader(Stream(), 2)
        length = len(loader)
        with pytest.warns(UserWarning, match=r"(?i)length|len"):
            batches = listed(list(loader))
        return length, batches, len(module.DataLoader(Stream(), 2, drop_last=True))

    assert run(ours) == run(theirs)


def test_without_a_length_there_is_none_as_in_torch():
    def run(module):
        class Stream(module.IterableDataset):
            def __iter__(self):
                return iter(range(8))

        return len(module.DataLoader(Stream(), 2))

    assert outcome(ours, run) is TypeError
    assert outcome(theirs, run) is TypeError


def test_lengths_by_sampler_are_torchs():
    for how in ({"sampler": [1, 0, 1], "batch_size": 2}, {"batch_sampler": [[0], [1]]}, {"batch_size": None}):
        assert len(ours.DataLoader([1, 2], **how)) == len(theirs.DataLoader([1, 2], **how))


def test_getitems_is_used_as_in_torch():
    class Bulk:
        def __len__(self):
            return 4

        def __getitems__(self, indices):
            return [10 * index for index in indices]

        def __getitem__(self, index):
            return -index

    for size in (3, None):
        mine, expected = (listed(list(module.DataLoader(Bulk(), size))) for module in (ours, theirs))
        assert mine == expected


def test_stop_iteration_of_a_sample_does_not_end_the_epoch():
    """Torch: it does, silently."""

    class Stops:
        def __len__(self):
            return 4

        def __getitem__(self, index):
            if index == 2:
                raise StopIteration
            return index

    assert len(list(theirs.DataLoader(Stops()))) == 2
    with pytest.raises(RuntimeError, match=r"dataset\[2\] raised StopIteration"):
        list(ours.DataLoader(Stops()))


def test_iterating_leaves_torchs_generator_alone():
    """Torch: each ``iter()`` draws from it."""
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    list(ours.DataLoader([1, 2], shuffle=True, collate_fn=lambda batch: torch.rand(2)))
    assert (torch.random.get_rng_state() == before).all()


def test_a_generator_of_torch_makes_a_run_repeatable():
    def run():
        generator = torch.Generator().manual_seed(3)
        return [listed(batch) for batch in ours.DataLoader(range(20), 4, shuffle=True, generator=generator)]

    assert run() == run()


def test_there_is_no_worker_in_the_main_process():
    seen = []
    list(ours.DataLoader([1], collate_fn=lambda batch: seen.append(ours.get_worker_info())))
    assert seen == [None] == [theirs.get_worker_info()]


@given(st.integers(0, 60), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_random_split_by_fractions_has_torchs_lengths(length, parts):
    fractions = [part / sum(parts) for part in parts]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mine = ours.random_split(range(length), fractions, seed=1)
        expected = outcome(theirs, lambda module: module.random_split(range(length), fractions))
    if expected is ValueError:  # torch takes fractions whose sum was rounded to more than 1 for lengths
        return
    assert [len(part) for part in mine] == [len(part) for part in expected]
    assert sorted(sample for part in mine for sample in part) == list(range(length))


@pytest.mark.parametrize("lengths", [[1, 2], [0.5, 0.6], [0.2, 0.2]])
def test_random_split_refuses_what_torchs_refuses(lengths):
    for module in (ours, theirs):
        assert outcome(module, lambda module: module.random_split(range(4), lengths)) is ValueError


@pytest.mark.parametrize("kind", ["Subset", "random_split", "StackDataset", "ConcatDataset"])
def test_augmentation_under_torchs_combinators_does_not_depend_on_the_batch_size(kind):
    class Augmented(theirs.Dataset):
        def __len__(self):
            return 12

        def __getitem__(self, index):
            return index, random.random(), float(np.random.rand()), float(torch.rand(()))

    dataset = {
        "Subset": lambda: theirs.Subset(Augmented(), range(12)),
        "random_split": lambda: theirs.random_split(Augmented(), [12])[0],
        "StackDataset": lambda: theirs.StackDataset(Augmented()),
        "ConcatDataset": lambda: theirs.ConcatDataset([Augmented()]),
    }[kind]()

    def samples(size):
        return re.findall(r"[\d.e-]+", repr(listed(list(ours.DataLoader(dataset, size, seed=1, collate_fn=list)))))

    assert samples(2) == samples(3) == samples(12)


def test_torchs_samplers_are_taken():
    data = range(12)
    for sampler in (theirs.SequentialSampler(data), theirs.DistributedSampler(data, 2, 1, shuffle=False)):
        assert listed(list(ours.DataLoader(data, 2, sampler=sampler))) == listed(
            list(theirs.DataLoader(data, 2, sampler=sampler))
        )
    batches = theirs.BatchSampler(theirs.SequentialSampler(data), 5, drop_last=False)
    assert listed(list(ours.DataLoader(data, batch_sampler=batches))) == [[*range(5)], [*range(5, 10)], [10, 11]]
    assert sorted(chain(*ours.DataLoader(data, 5, sampler=theirs.RandomSampler(data)))) == list(data)
