"""Laws of freshness: an epoch delivers the dataset as it is when the loop asks for that epoch, whoever makes it."""

import multiprocessing
import threading

import numpy as np
import pytest

from feedline import CannotShip, DataLoader, Dataset, DatasetChanged, StackDataset, Subset, TensorDataset

pytestmark = pytest.mark.filterwarnings(
    "ignore:fork with .* other thread:UserWarning",
    "ignore:os.fork:RuntimeWarning",  # of JAX, where another test has imported it
)
LARGE = 20_000  # of 8 bytes each: beyond what is sent within the pickle
KINDS = {
    "serial": {},
    "thread": {"num_workers": 2, "backend": "thread"},
    "forkserver": {"num_workers": 2, "backend": "process"},
    "fork": {"num_workers": 2, "backend": "process", "multiprocessing_context": "fork"},
    "spawn": {"num_workers": 1, "backend": "process", "multiprocessing_context": "spawn"},
}


@pytest.fixture(params=KINDS)
def workers(request):
    """Who makes the batches."""
    return KINDS[request.param]


class Scale:
    """A transform with an attribute."""

    def __init__(self):
        self.factor = 1

    def __call__(self, value):
        return value * self.factor


class Add:
    """A collate function with an attribute."""

    def __init__(self):
        self.offset = 0

    def __call__(self, samples):
        return np.array(samples) + self.offset


class Part:
    size = 1


class Sized(Dataset):
    def __init__(self, length=8):
        self.length = length
        self.size = 1
        self.part = Part()
        self.part.size = 1
        self.sizes = {"first": [1]}
        self.transform = Scale()
        self.table = np.arange(LARGE)
        self.small = np.arange(8)

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        factor = self.size * self.part.size * self.sizes["first"][0]
        return self.transform(self.table[index] + self.small[index] - index) * factor


def totals(loader, epochs=1):
    """The sums of an epoch's batches; of the last one of several."""
    for _ in range(epochs):
        got = [int(np.sum(batch)) for batch in loader]
    return got


def first_batches(loader):
    """Ends an epoch in its midst."""
    return int(np.sum(next(iter(loader))))


def test_what_was_replaced_in_the_dataset_or_the_loader_counts_from_the_next_epoch_on(workers):
    dataset, collate = Sized(), Add()
    with DataLoader(dataset, 4, collate_fn=collate, seed=1, **workers) as loader:
        assert totals(loader, 2) == [6, 22]
        dataset.size = 160
        assert totals(loader) == [960, 3520]
        dataset.size = 1
        dataset.part.size = 2
        assert totals(loader) == [12, 44]
        dataset.part = Part()
        assert totals(loader) == [6, 22]
        dataset.sizes["first"][0] = 3
        assert totals(loader) == [18, 66]
        dataset.sizes = {"first": [1]}
        dataset.transform.factor = 5
        assert totals(loader) == [30, 110]
        dataset.transform = abs
        assert totals(loader) == [6, 22]
        dataset.table = np.arange(1, LARGE + 1)
        assert totals(loader) == [10, 26]
        dataset.table = dataset.table - 1
        dataset.small[0] = 7
        assert totals(loader) == [13, 22]
        dataset.small[0] = 0
        collate.offset = 100
        assert totals(loader) == [406, 422]
        loader.collate_fn = np.array
        assert totals(loader) == [6, 22]
        loader.batch_transform = Scale()
        loader.batch_transform.factor = 2
        assert totals(loader) == [12, 44]
        loader.batch_transform.factor = 3
        assert totals(loader) == [18, 66]
        loader.batch_transform = None
        assert totals(loader) == [6, 22]
        dataset.length = 4
        assert totals(loader) == [6]
        dataset.length = 8
        assert totals(loader) == [6, 22]


def test_a_change_in_the_midst_of_an_epoch_counts_from_the_next_one_on_also_when_the_loop_left_early(workers):
    dataset = Sized()
    with DataLoader(dataset, 1, seed=1, **workers) as loader:
        iterator = iter(loader)
        next(iterator)
        iterator.close()
        dataset.size = 10
        assert totals(loader) == [0, 10, 20, 30, 40, 50, 60, 70]
        for batch in loader:
            if batch == 60:
                dataset.size = 100
        assert totals(loader) == [0, 100, 200, 300, 400, 500, 600, 700]
        iterators = iter(loader), iter(loader)
        assert next(iterators[0]) == 0
        dataset.size = 1
        next(iterators[1])
        assert [int(batch[0]) for batch in iterators[1]] == [1, 2, 3, 4, 5, 6, 7]


def test_a_length_that_changes_in_an_epoch_is_an_error_and_the_next_epoch_has_the_new_one(workers):
    dataset = Sized()
    with DataLoader(dataset, 2, seed=1, **workers) as loader:
        iterator = iter(loader)
        next(iterator)
        dataset.length = 6
        with pytest.raises(DatasetChanged, match="had 8 samples when epoch 0 began and has 6 now"):
            next(iterator)
        assert totals(loader) == [1, 5, 9]
        assert len(loader) == 3


SHAPES = {
    "dataset": TensorDataset,
    "subset": lambda x: Subset(TensorDataset(x), range(8)),
    "stack": lambda x: StackDataset(TensorDataset(x), x),
    "mapped": lambda x: TensorDataset(x).map(Scale()),
    "array": lambda x: x,
    "subset of an array": lambda x: Subset(x, np.arange(8)),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["thread", "forkserver", "fork"])
def test_array_datasets_are_seen_as_they_are_however_they_were_changed(shape, kind):
    array = np.arange(LARGE)

    def first(batch):
        while isinstance(batch, tuple):
            batch = batch[0]
        return batch.tolist()

    dataset = TensorDataset(array).map(Scale(), key=0) if shape == "mapped" else SHAPES[shape](array)
    with DataLoader(dataset, 4, sampler=range(8), **KINDS[kind]) as loader:
        assert [first(batch) for batch in loader] == [[0, 1, 2, 3], [4, 5, 6, 7]]
        array[:2] = -1
        assert [first(batch) for batch in loader] == [[-1, -1, 2, 3], [4, 5, 6, 7]]
        assert [first(batch) for batch in loader] == [[-1, -1, 2, 3], [4, 5, 6, 7]]
        array[7] = 0
        assert [first(batch) for batch in loader] == [[-1, -1, 2, 3], [4, 5, 6, 0]]


def test_the_arrays_of_a_dataset_of_ones_own_are_sent_again_by_refresh(workers):
    dataset = Sized()
    with DataLoader(dataset, 4, seed=1, **workers) as loader:
        assert totals(loader, 2) == [6, 22]
        dataset.table += 1
        loader.refresh()
        assert totals(loader) == [10, 26]


# ------------------------------------------------------------------------------------------- what was begun early


class Noting(Dataset):
    """Says what it is asked for, through a file."""

    def __init__(self, path, length=8):
        self.path, self.length, self.size = path, length, 1
        self.made = None

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        with self.path.open("ab") as file:
            file.write(b"%d\n" % index)
        if self.made is not None:
            self.made.release()
        return index * self.size


@pytest.fixture
def early(tmp_path):
    """A loader whose second epoch is under way, at the end of the first one."""
    dataset = Noting(tmp_path / "asked")
    with DataLoader(dataset, 2, shuffle=True, seed=3, num_workers=2, backend="process") as loader:
        list(loader)
        yield loader, dataset


def expected(epoch, start=0):
    with DataLoader(range(8), 2, shuffle=True, seed=3) as loader:
        return [plan.indices.tolist() for plan in loader.plan(epoch)][start:]


def test_the_next_epoch_is_begun_before_the_loop_asks_for_it(early):
    loader, dataset = early
    dataset.made = multiprocessing.get_context("forkserver").Semaphore(0)
    assert [batch.tolist() for batch in loader] == expected(1)
    for _ in range(8 + 1):  # this epoch's samples, and one of the next
        assert dataset.made.acquire(timeout=30)


def test_a_late_set_epoch_discards_what_was_begun(early):
    loader, _ = early
    loader.set_epoch(7)
    assert [batch.tolist() for batch in loader] == expected(7)
    assert [batch.tolist() for batch in loader] == expected(8)
    loader.set_epoch(9)
    assert [batch.tolist() for batch in loader] == expected(9)


def test_a_state_loaded_late_discards_what_was_begun(early):
    loader, _ = early
    state = DataLoader(range(8), 2, shuffle=True, seed=3).state_dict()
    loader.load_state_dict(state | {"epoch": 1, "position": 4})
    assert [batch.tolist() for batch in loader] == expected(1, 2)
    assert [batch.tolist() for batch in loader] == expected(2)


def test_a_change_discards_what_was_begun(early):
    loader, dataset = early
    dataset.size = 10
    got = [batch.tolist() for batch in loader]
    assert got == [[10 * index for index in indices] for indices in expected(1)]
    loader.collate_fn = list
    assert list(loader) == [[10 * index for index in indices] for indices in expected(2)]
    dataset.size = 1
    dataset.length = 6
    assert sorted(index for batch in loader for index in batch) == [0, 1, 2, 3, 4, 5]


def test_the_state_says_nothing_of_what_was_begun(early):
    loader, _ = early
    assert (loader.state_dict()["epoch"], loader.state_dict()["position"]) == (1, 0)


@pytest.mark.parametrize("make", [list, np.array], ids=["list", "array"])
def test_an_order_of_ones_own_that_is_changed_between_epochs_is_that_of_the_next_one(workers, make):
    order = make(range(16))
    with DataLoader(range(16), 4, sampler=order, **workers) as loader:
        for _ in range(3):
            assert np.concatenate(list(loader)).tolist() == list(order)
            order[:] = list(order)[5:] + list(order)[:5]


def test_what_cannot_be_sent_is_an_error_of_the_next_epoch_and_not_of_the_present_one(tmp_path):
    dataset = Noting(tmp_path / "asked", length=40)
    with DataLoader(dataset, 4, num_workers=2, backend="process") as loader:
        iterator = iter(loader)
        got = next(iterator).tolist()
        dataset.lock = threading.Lock()
        for batch in iterator:
            got += batch.tolist()
        assert got == list(range(40))
        with pytest.raises(CannotShip, match=r"dataset\.lock"):
            next(iter(loader))
        del dataset.lock
        assert np.concatenate(list(loader)).tolist() == list(range(40))
