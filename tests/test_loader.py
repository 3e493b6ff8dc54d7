"""Laws of the loader: lazy, repeatable, one epoch an iterator, clear when the dataset changes, apart from itself."""

import gc
import itertools
import random
import threading
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import feedline
from feedline import DataLoader, Dataset, DatasetChanged, IterableDataset, RandomSampler, Shard, TensorDataset


class Squares(Dataset):
    def __init__(self, length=10):
        self.length = length
        self.asked = []

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.asked.append(index)
        return index**2


class Drawing(Dataset):
    """Draws from everything that there is to draw from."""

    def __init__(self, length=12):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return (
            index,
            feedline.rng().random(),
            random.random(),
            np.random.rand(),
            float(torch.rand((), dtype=torch.float64)),
        )


def listed(loader):
    return [batch.tolist() for batch in loader]


def samples(loader):
    return [tuple(float(part[i]) for part in batch) for batch in loader for i in range(len(batch[0]))]


# ---------------------------------------------------------------------------------------------------- lazy, repeatable


def test_building_and_iter_read_nothing_and_draw_nothing(same_global_generators):
    dataset = Squares()
    loader = DataLoader(dataset, shuffle=True)
    iterator = iter(loader)
    assert (dataset.asked, loader.seed, len(loader), len(iterator)) == ([], None, 10, 10)
    assert "drawn at the first batch" in repr(loader)


def test_the_seed_is_drawn_once_at_the_first_batch_from_pythons_random():
    def run():
        random.seed(0)
        loader = DataLoader(range(50), 50, shuffle=True)
        iterator = iter(loader)
        first = next(iterator).tolist()
        state = random.getstate()
        rest = [*iterator, *loader, *loader]
        assert random.getstate() == state
        return first, [batch.tolist() for batch in rest], loader.seed

    assert run() == run()
    first, rest, seed = run()
    assert listed(DataLoader(range(50), 50, shuffle=True, seed=seed)) == [first]
    assert len({tuple(first), *map(tuple, rest)}) == 3


@pytest.mark.parametrize("make", [lambda: random.Random(1), lambda: np.random.default_rng(1)])
def test_a_generator_gives_the_seed_and_leaves_the_global_ones_alone(make, same_global_generators):
    first, again = (listed(DataLoader(range(20), 3, shuffle=True, generator=make())) for _ in range(2))
    sampled = listed(DataLoader(range(20), 3, sampler=RandomSampler(range(20), generator=make())))
    assert first == again == sampled


def test_no_global_generator_is_changed_by_code_that_draws_from_it(same_global_generators):
    before = torch.random.get_rng_state()
    loader = DataLoader(Drawing(), 5, seed=1, collate_fn=lambda batch: random.random() + np.random.rand())
    list(loader)
    iterator = iter(loader)
    next(iterator)
    assert (torch.random.get_rng_state() == before).all()


@given(st.integers(0, 2**64 - 1), st.integers(1, 12), st.integers(1, 12))
def test_what_users_draw_is_a_function_of_seed_and_epoch_whatever_the_batch_size(seed, size, other):
    def epochs(size):
        loader = DataLoader(Drawing(), size, shuffle=True, seed=seed)
        return [samples(loader), samples(loader)]

    assert epochs(size) == epochs(other)
    first, second = epochs(size)
    numbers = [number for sample in first + second for number in sample[1:]]
    assert len(set(numbers)) == len(numbers)


def test_a_sample_drawn_twice_in_an_epoch_is_augmented_twice_differently():
    drawn = samples(DataLoader(Drawing(), 2, sampler=[3, 3, 3, 3], seed=1))
    assert len(set(drawn)) == 4
    assert {index for index, *_ in drawn} == {3}


def test_transforms_of_ours_give_the_same_bits_at_any_batch_size():
    images = np.arange(12 * 8 * 8 * 3, dtype=np.uint8).reshape(12, 8, 8, 3)
    chain = feedline.transforms.Compose(
        [feedline.transforms.RandomCrop(8, padding=2), feedline.transforms.RandomHorizontalFlip(0.5)]
    )
    data = TensorDataset(images, np.arange(12)).map(chain, key=0)

    def epochs(size):
        loader = DataLoader(data, size, shuffle=True, seed=5)
        return [np.concatenate([x for x, _ in loader]) for _ in range(2)]

    for one, other in zip(epochs(3), epochs(5), strict=True):
        assert (one == other).all()
    assert (epochs(3)[0] != epochs(3)[1]).any()


def test_a_loader_inside_a_dataset_does_not_disturb_the_keys_around_it():
    class Nesting(Drawing):
        def __getitem__(self, index):
            before = super().__getitem__(index)
            list(DataLoader(Drawing(3), 2, shuffle=True, seed=9))
            return before + super().__getitem__(index)

    class Twice(Drawing):
        def __getitem__(self, index):
            return super().__getitem__(index) + super().__getitem__(index)

    assert samples(DataLoader(Nesting(), 4, seed=1)) == samples(DataLoader(Twice(), 4, seed=1))


# ----------------------------------------------------------------------------------------------------- epochs and plans


@given(st.integers(0, 40), st.integers(1, 7), st.booleans(), st.integers(1, 3), st.integers(0, 5))
def test_what_is_planned_is_what_is_delivered(length, size, drop_last, world, epoch):
    for rank in range(world):
        loader = DataLoader(range(length), size, length > 0, drop_last=drop_last, shard=(rank, world), seed=3)
        loader.set_epoch(epoch)
        plan = loader.plan(epoch)
        got = listed(loader)
        assert [plan[step].indices.tolist() for step in range(len(plan))] == got
        assert len(loader) == len(plan) == len(got)


def test_after_a_resume_the_plan_is_that_of_the_new_geometry():
    loader = DataLoader(range(20), 3, shuffle=True, seed=1)
    iterator = iter(loader)
    next(iterator), next(iterator)
    resumed = DataLoader(range(20), 4, shuffle=True)
    resumed.load_state_dict(loader.state_dict())
    plan = [batch.indices.tolist() for batch in resumed.plan(0)]
    assert listed(resumed) == plan
    assert len(resumed.plan(1)) == 5


def test_epochs_advance_by_themselves_and_can_be_set():
    loader = DataLoader(range(30), 30, shuffle=True, seed=1)
    orders = [listed(loader)[0] for _ in range(3)]
    assert orders == [loader.plan(epoch)[0].indices.tolist() for epoch in range(3)]
    loader.set_epoch(1)
    assert [listed(loader)[0] for _ in range(2)] == orders[1:]
    with pytest.raises(ValueError, match="epoch must be an integer from 0 to"):
        loader.set_epoch(-1)
    with pytest.raises(TypeError, match="epoch must be an integer from 0 to"):
        loader.plan("first")


def test_an_epoch_set_on_the_sampler_is_honoured_once():
    loader = DataLoader(range(30), 30, shuffle=True, seed=1)
    loader.sampler.set_epoch(5)
    assert listed(loader)[0] == loader.plan(5)[0].indices.tolist()
    assert listed(loader)[0] == loader.plan(6)[0].indices.tolist()
    loader.batch_sampler.set_epoch(2)
    assert listed(loader)[0] == loader.plan(2)[0].indices.tolist()


def test_without_a_known_order_there_is_no_plan_and_no_length():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([1])

    for loader, name in [(DataLoader(Stream()), "Stream"), (DataLoader([1], sampler=iter([0])), "list_iterator")]:
        with pytest.raises(
            TypeError, match=rf"plan\(\) needs a sampler whose order is known beforehand; {name} yields"
        ):
            loader.plan(0)
        with pytest.raises(TypeError, match=f"the number of batches is unknown: {name} has no length"):
            len(loader)
        assert "batches=unknown number" in repr(loader)


# ------------------------------------------------------------------------------------------------------------ iterators


def test_several_iterators_are_epochs_of_their_own():
    loader = DataLoader(range(6), 2, shuffle=True, seed=1)
    pairs = [(one.tolist(), other.tolist()) for one, other in zip(loader, loader, strict=True)]
    assert [one for one, _ in pairs] == [batch.indices.tolist() for batch in loader.plan(0)]
    assert [other for _, other in pairs] == [batch.indices.tolist() for batch in loader.plan(1)]


def test_nested_loops_and_breaks_leave_whole_epochs():
    loader = DataLoader(range(6), 2, seed=1)
    assert [(a.tolist(), len(list(loader))) for a in loader] == [([0, 1], 3), ([2, 3], 3), ([4, 5], 3)]
    for _ in loader:
        break
    assert listed(loader) == [[0, 1], [2, 3], [4, 5]]


def test_an_iterator_is_at_its_end_for_good():
    iterator = iter(DataLoader([1]))
    assert iter(iterator) is iterator
    next(iterator)
    for _ in range(3):
        with pytest.raises(StopIteration):
            next(iterator)


def test_two_threads_share_an_iterator_without_losing_or_doubling_a_batch():
    iterator = iter(DataLoader(Squares(400), 2, seed=1))
    got = []

    def take():
        got.extend(int(x) for batch in iterator for x in batch)

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [index**2 for index in range(400)]


def test_code_run_by_an_iterator_cannot_ask_it_for_more():
    class Greedy(Squares):
        def __getitem__(self, index):
            return next(iterator)

    iterator = iter(DataLoader(Greedy()))
    message = r"next\(\) was called on an iterator by code that this iterator runs: use another iterator"
    with pytest.raises(RuntimeError, match=message):
        next(iterator)


def test_a_closed_loader_ends_its_iterators_with_an_error_and_can_be_iterated_anew():
    with DataLoader(range(4), 2) as loader:
        iterator = iter(loader)
        next(iterator)
    with pytest.raises(RuntimeError, match="the loader was closed: iterate over it again for a new epoch"):
        next(iterator)
    assert listed(loader) == [[0, 1], [2, 3]]
    loader.close()
    loader.close()


@pytest.mark.parametrize("stage", ["collate_fn", "batch_transform"])
def test_a_loader_closed_by_code_that_it_runs_ends_cleanly(stage):
    loader = DataLoader(range(6), 2, **{stage: lambda batch: loader.close() or batch})
    iterator = iter(loader)
    next(iterator)
    with pytest.raises(RuntimeError, match="the loader was closed"):
        next(iterator)


def test_a_loader_that_nobody_holds_is_gone_at_once():
    class Held(Squares):
        pass

    import weakref

    dataset = Held()
    gone = weakref.ref(dataset)
    gc.disable()
    try:
        for _ in DataLoader(dataset, 2):
            break
        del dataset
        assert gone() is None
    finally:
        gc.enable()


def test_an_endless_sampler_over_a_dataset_without_length_takes_constant_memory():
    class Endless:
        def __getitem__(self, index):
            return index

    iterator = iter(DataLoader(Endless(), 64, sampler=itertools.count(), seed=1))
    for _ in range(10):
        next(iterator)
    tracemalloc.start()
    last = [next(iterator) for _ in range(300)][-1]
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert last[-1] == 310 * 64 - 1
    assert used < 400_000  # the 300 batches that are held, 200,000 bytes, and no more


# ------------------------------------------------------------------------------------------ interrupts, changes, shards


@pytest.mark.parametrize("kind", ["getitem", "collate", "batch_transform"])
def test_an_interrupted_batch_is_the_next_one(kind):
    interrupts = [KeyboardInterrupt(), KeyboardInterrupt()]

    def interrupted(value):
        if interrupts and 4 in np.atleast_1d(value):
            raise interrupts.pop()
        return value

    class Interrupted(Drawing):
        def __getitem__(self, index):
            return interrupted(index) if kind == "getitem" else index

    functions = {"collate": {"collate_fn": lambda batch: interrupted(np.stack(batch))}}
    functions["batch_transform"] = {"batch_transform": interrupted}
    loader = DataLoader(Interrupted(8), 3, seed=1, **functions.get(kind, {}))
    iterator = iter(loader)
    got = [next(iterator).tolist()]
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            next(iterator)
        assert loader.state_dict()["position"] == 3
    assert got + listed(iterator) == [[0, 1, 2], [3, 4, 5], [6, 7]]


def changes():
    tensors = TensorDataset(np.arange(10))
    shorter, longer, replaced = list(range(10)), list(range(10)), Squares()
    yield tensors, lambda: setattr(tensors, "tensors", (np.arange(7),)), 7
    yield shorter, lambda: shorter.__delitem__(slice(5, None)), 5
    yield longer, lambda: longer.append(10), 11
    yield replaced, lambda: setattr(replaced, "length", 3), 3


@pytest.mark.parametrize("case", range(4))
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("after", [1, 5])
def test_a_dataset_that_changes_its_length_within_an_epoch_is_an_error(case, shuffle, after):
    dataset, change, length = list(changes())[case]
    loader = DataLoader(dataset, 2, shuffle, seed=1)
    iterator = iter(loader)
    for _ in range(after):
        next(iterator)
    change()
    with pytest.raises(DatasetChanged, match=rf"the dataset had 10 samples when epoch 0 began and has {length} now"):
        next(iterator)
    assert sum(len(batch[0] if isinstance(batch, tuple) else batch) for batch in loader) == length


@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 5), st.sampled_from(["pad", "drop", "exact"]))
def test_ranks_together_deliver_the_epoch(length, size, world, end):
    ranks = [
        listed(DataLoader(range(length), size, True, shard=Shard(rank, world, end), seed=1)) for rank in range(world)
    ]
    got = sorted(itertools.chain(*itertools.chain(*ranks)))
    if end == "exact":
        assert got == list(range(length))
    elif end == "pad":
        assert set(got) == set(range(length))
        assert len(got) < length + world
    else:
        assert len(set(got)) == len(got) > length - world
    if end != "exact":
        assert len({tuple(map(len, batches)) for batches in ranks}) == 1


def test_a_shard_is_found_in_the_environment(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    loader = DataLoader(range(8), 2, shard="auto")
    assert listed(loader) == [[2, 3], [6, 7]]
    assert "shard=rank 1 of 2" in repr(loader)


def test_ranks_that_cannot_agree_on_a_seed_take_zero(same_global_generators):
    loaders = [DataLoader(range(20), 4, shuffle=True, shard=(rank, 2)) for rank in range(2)]
    assert sorted(itertools.chain(*(itertools.chain(*loader) for loader in loaders)))[:20] == list(range(20))
    assert [loader.seed for loader in loaders] == [0, 0]
