"""Laws of the digest: equal for equal streams, whoever made them; different for others; parts add up to the whole."""

import copy
import pickle
import subprocess
import sys
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import feedline
from feedline import DataLoader, Dataset, IterableDataset, add_digests
from feedline.insight.digest import mark
from feedline.order.plan import BatchPlan

LENGTH = 60
NOTHING = "0" * 32
WORKERS = [(0, "auto"), (1, "thread"), (2, "thread"), (1, "process"), (2, "process")]


class Numbers(Dataset):
    """Its samples are their indices; some fail."""

    thread_safe = True
    uses_global_rng = False

    def __init__(self, bad=()):
        self.bad = frozenset(bad)

    def __len__(self):
        return LENGTH

    def __getitem__(self, index):
        if index in self.bad:
            raise KeyError(index)
        return int(index)


class Stream(IterableDataset):
    """Numbers, one after the other."""

    def __init__(self, length=LENGTH):
        self.length = length

    def __iter__(self):
        return iter(range(self.length))


def run(dataset=None, *, epochs=1, **options):
    """The digest of some epochs."""
    options = {"batch_size": 4, "seed": 1} | options
    with DataLoader(Numbers() if dataset is None else dataset, **options) as loader:
        for _ in range(epochs):
            for _ in loader:
                pass
        return loader.digest()


def of(indices, *, epoch=0, step=0):
    return mark(BatchPlan(epoch, step, indices, 0, 0), 0, 0)


# --------------------------------------------------------------------------------------------------------------- equal


@pytest.mark.parametrize(("num_workers", "backend"), WORKERS)
def test_equal_streams_have_equal_digests_whoever_makes_them(num_workers, backend):
    workers = {"num_workers": num_workers, "backend": backend}
    assert run(shuffle=True, epochs=2, **workers) == run(shuffle=True, epochs=2)
    assert run(shuffle=True, in_order=False, **workers) == run(shuffle=True)
    if num_workers:
        assert run(shuffle=True, prefetch_factor=7, **workers) == run(shuffle=True)


@pytest.mark.parametrize(("num_workers", "backend"), WORKERS[1:])
@pytest.mark.parametrize(
    ("dataset", "on_error"),
    [
        (Numbers([3, 4, 20]), "skip"),
        (Numbers([3, 4, 20]), "replace"),
        (Stream().map(lambda x: 1 // (x % 17 - 3)), "skip"),
    ],
    ids=["skip", "replace", "stream"],
)
def test_samples_that_fail_fail_everywhere_alike(num_workers, backend, dataset, on_error):
    workers = {"num_workers": num_workers, "backend": backend}
    assert run(dataset, on_error=on_error, **workers) == run(dataset, on_error=on_error)


@pytest.mark.parametrize(("num_workers", "backend"), WORKERS[1:])
def test_streams_have_equal_digests_whoever_reads_them(num_workers, backend):
    assert run(Stream(), num_workers=num_workers, backend=backend) == run(Stream())


@pytest.mark.parametrize(
    "sampler",
    [
        [str(number) for number in range(30)],
        [(number, [1.5, None]) for number in range(30)],
        (number for number in range(30)),
        [b"a", 2**70, {"a": 1}, frozenset({"x", "y"}), np.arange(3), np.float32(0.5)],
    ],
    ids=["strings", "tuples", "integers", "of all kinds"],
)
def test_what_a_users_sampler_yields_counts_whoever_makes_the_batches(sampler):
    sampler = list(sampler)
    options = {"sampler": sampler, "collate_fn": len}
    expected = run(Any(), **options)
    assert run(Any(), num_workers=2, backend="process", **options) == expected
    assert run(Any(), **options | {"sampler": sampler[::-1]}) != expected
    assert run(Any(), **options | {"sampler": sampler[:-1]}) != expected


class Any(Dataset):
    """Has any sample."""

    def __len__(self):
        return LENGTH

    def __getitem__(self, index):
        return 0


def test_another_interpreter_has_the_same_digest():
    code = (
        "from feedline.insight.digest import mark; from feedline.order.plan import BatchPlan;"
        "print(mark(BatchPlan(0, 0, [{'a', 'b', 'c'}, '\\xfc', (1, 2.5), 3], 0, 0), 0, 0))"
    )
    printed = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(4)}
    assert printed == {f"{of([{'c', 'b', 'a'}, chr(0xFC), [1, 2.5], 3])}\n".encode()}


def test_integers_are_equal_in_an_array_in_a_list_and_as_numpys():
    assert of(np.arange(5)) == of(list(range(5))) == of(range(5)) == of([np.int8(number) for number in range(5)])
    assert of(np.arange(10)[::2]) == of([0, 2, 4, 6, 8])
    assert run(sampler=list(range(LENGTH))) == run() == run(sampler=iter(range(LENGTH)))
    assert run(batch_size=1, batch_sampler=[[1, 2], [3]]) == run(batch_size=2, sampler=[1, 2, 3])


def test_a_digest_is_the_sum_of_blake2b_of_epoch_step_and_indices():
    loader, total = DataLoader(Numbers(), 7, shuffle=True, seed=1), 0
    for _ in range(2):
        list(loader)
    for epoch in range(2):
        for step, batch in enumerate(loader.plan(epoch)):
            salt = np.array([epoch, step], "<u8").tobytes()
            data = batch.indices.astype("<i8").tobytes()
            hashed = blake2b(data, digest_size=16, salt=salt, person=b"integers").digest()
            total += int.from_bytes(hashed, "little")
    assert loader.digest() == f"{total % 2**128:032x}"


# ----------------------------------------------------------------------------------------------------------- different


def test_another_seed_epoch_step_index_order_or_end_is_another_digest():
    digests = [
        NOTHING,
        run(shuffle=True),
        run(shuffle=True, seed=2),
        run(shuffle=True, epochs=2),
        run(),
        run(batch_size=5),
        run(drop_last=True, batch_size=7),
        run(batch_size=7),
        run(on_error="skip", dataset=Numbers([3])),
        run(on_error="skip", dataset=Numbers([4])),
        run(on_error="replace", dataset=Numbers([3])),
        run(Stream()),
        run(Stream(LENGTH - 1)),
        run(Stream(), batch_size=5),
        run(shard=(0, 2)),
        run(shard=(1, 2)),
    ]
    same = {8: 10}  # the same samples failed: what stands for them is not looked at
    assert len({digest for number, digest in enumerate(digests) if number not in same.values()}) == len(digests) - 1


ITEMS = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda item: st.lists(item) | st.dictionaries(st.text(), item),
    max_leaves=5,
)


@given(st.lists(ITEMS, min_size=1), st.lists(ITEMS, min_size=1))
def test_items_differ_where_their_digests_do(one, other):
    assert (of(one) == of(other)) == (repr(one) == repr(other))


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1), st.integers(0, 2**64 - 1), st.integers(0, 2**63 - 1))
def test_a_mark_is_of_epoch_step_and_indices(indices, epoch, step):
    marks = [
        of(indices, epoch=epoch, step=step),
        of(indices, epoch=epoch ^ 1, step=step),
        of(indices, epoch=epoch, step=step ^ 1),
        of([*indices, 0], epoch=epoch, step=step),
        of([indices[0] ^ 1, *indices[1:]], epoch=epoch, step=step),
        of([str(index) for index in indices], epoch=epoch, step=step),
    ]
    assert len(set(marks)) == len(marks)
    assert all(0 <= each < 2**128 for each in marks)


class Nasty:
    """Refuses to be looked at."""

    def __index__(self):
        raise RuntimeError("no")

    __repr__ = __index__

    @property
    def tolist(self):
        raise RuntimeError("no")


def test_no_item_of_a_sampler_stops_the_delivery():
    itself = []
    itself.append([itself, itself])
    huge = 10**5000
    for items in ([Nasty()], itself, [huge, "x"], [1, "\ud800"], [np.longdouble(1)], [np.datetime64("2020")]):
        assert of(items) != of([1])


# ------------------------------------------------------------------------------------------------------------- adds up


@given(cuts=st.lists(st.integers(0, 14), max_size=3), in_order=st.booleans())
def test_the_parts_of_a_run_add_up_to_the_run(cuts, in_order):
    options = {"batch_size": 4, "shuffle": True, "seed": 5, "in_order": in_order}
    state, digests = None, []
    for cut in [*cuts, None]:
        loader = DataLoader(Numbers(), **options)
        if state is not None:
            loader.load_state_dict(state)
        iterator = iter(loader)
        for _ in iterator if cut is None else zip(range(cut), iterator, strict=False):
            pass
        state = pickle.loads(pickle.dumps(loader.state_dict()))
        digests.append(loader.digest())
    if sum(cuts) <= LENGTH // 4 and state["epoch"] == 1:
        assert add_digests(*digests) == run(shuffle=True, seed=5)


def test_the_parts_add_up_where_batches_overtake_each_other():
    options = {"batch_size": 4, "shuffle": True, "seed": 5, "in_order": False, "num_workers": 2, "backend": "thread"}
    with DataLoader(Numbers(), **options) as first, DataLoader(Numbers(), **options) as rest:
        for _ in zip(range(6), first, strict=False):
            pass
        rest.load_state_dict(first.state_dict())
        for _ in rest:
            pass
        assert add_digests(first.digest(), rest.digest()) == run(shuffle=True, seed=5)


def test_no_digests_add_up_to_that_of_nothing():
    loader = DataLoader(Numbers())
    iter(loader)
    assert add_digests() == loader.digest() == NOTHING
    assert add_digests("F" * 32, "0" * 31 + "2") == "0" * 31 + "1"


@pytest.mark.parametrize("digest", ["", "0" * 31, "0" * 33, "g" * 32, 0, None, "0" * 31 + "\n", "0x" + "0" * 30])
def test_a_digest_is_32_hexadecimal_digits(digest):
    with pytest.raises(ValueError, match=r"a digest must be the 32 hexadecimal digits of loader.digest\(\), got "):
        add_digests(NOTHING, digest)


# ------------------------------------------------------------------------------------------------------ what is counted


def test_only_what_was_handed_out_counts():
    with DataLoader(Numbers(), 4, seed=1, num_workers=2, backend="thread", prefetch_factor=3) as loader:
        iterator = iter(loader)
        next(iterator)
        assert loader.digest() == f"{of(range(4)):032x}"
        list(iterator)
        assert loader.digest() == run()
        next(iter(loader))
        assert loader.digest() == add_digests(run(), f"{of(range(4), epoch=1):032x}")


def test_batches_in_whose_place_came_an_error_or_nothing_do_not_count():
    loader = DataLoader(Numbers([2]), 4)
    iterator = iter(loader)
    with pytest.raises(KeyError):
        next(iterator)
    assert loader.digest() == NOTHING
    next(iterator)
    assert loader.digest() == f"{of(range(4, 8), step=1):032x}"
    emptied = DataLoader(Numbers(), 30, collate_fn=lambda batch: [] if batch[0] == 0 else batch)
    assert len(list(emptied)) == 1
    assert emptied.digest() == f"{of(range(30, 60), step=1):032x}"


class Interrupting:
    """A lock; Ctrl-C comes as it is given back, once for each time that it is due."""

    def __init__(self, lock):
        self.lock, self.due = lock, False

    def __enter__(self):
        self.lock.acquire()

    def __exit__(self, *_):
        self.lock.release()
        due, self.due = self.due, False
        if due:
            raise KeyboardInterrupt


def test_a_batch_that_is_taken_back_counts_once():
    loader = DataLoader(Numbers(), 20, seed=1)
    iterator = iter(loader)
    iterator._lock = lock = Interrupting(iterator._lock)
    digests = [loader.digest()]
    for _ in range(3):
        lock.due = True
        with pytest.raises(KeyboardInterrupt):
            next(iterator)
        assert loader.digest() == digests[-1]
        next(iterator)
        digests.append(loader.digest())
    assert len(set(digests)) == 4
    assert digests[-1] == run(batch_size=20)


def test_a_copy_begins_anew():
    loader = DataLoader(Numbers(), 4, seed=1)
    next(iter(loader))
    for other in (copy.copy(loader), pickle.loads(pickle.dumps(DataLoader(range(LENGTH), 4, seed=1)))):
        assert other.digest() == NOTHING
        list(other)
    assert loader.digest() == f"{of(range(4)):032x}"


def test_what_the_dataset_does_to_the_list_of_indices_is_not_seen():
    class Sorting(Numbers):
        def __getitems__(self, indices):
            indices.sort()
            return indices

    sampler = [str(number) for number in (3, 1, 2)]
    expected = run(Sorting(), sampler=sampler, num_workers=1, backend="process", collate_fn=len)
    assert run(Sorting(), sampler=sampler, collate_fn=len) == expected


def test_the_name_is_public():
    assert feedline.add_digests is add_digests
