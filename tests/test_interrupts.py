"""Laws of Ctrl-C: wherever it comes, the iterator goes on with nothing lost or repeated, and the state says so."""

import multiprocessing
import sys
from pathlib import Path

import pytest

import feedline
from feedline import DataLoader, Dataset, IterableDataset

LENGTH = 12
DRIVING = {
    "iterator",
    "course",
    "epoch",
    "pipeline",
    "window",
    "executor",
    "session",
    "plan",
    "drawn",
    "sequence",
    "cursor",
    "digest",
}
PACKAGE = str(Path(feedline.__file__).parent)


class Numbers(Dataset):
    """Its samples are their indices."""

    thread_safe = True
    uses_global_rng = False

    def __len__(self):
        return LENGTH

    def __getitem__(self, index):
        return int(index)


class Stream(IterableDataset):
    """The same, one after the other."""

    def __iter__(self):
        return iter(range(LENGTH))


class Interrupting:
    """Raises KeyboardInterrupt at the n-th place where Python hears signals: a function begins, or one of C returns."""

    def __init__(self, number):
        self.left = number

    def __call__(self, frame, event, _):
        path = Path(frame.f_code.co_filename)
        if event in {"call", "c_return"} and path.stem in DRIVING and str(path).startswith(PACKAGE):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt


def epoch_with_interrupt(loader, number):
    """What an epoch delivers, and whether it was so long that it was interrupted."""
    interrupting, delivered, iterator = Interrupting(number), [], iter(loader)
    take = iterator.__next__
    while True:
        before = sys.getprofile()
        try:
            if interrupting.left > 0:
                sys.setprofile(interrupting)
            batch = take()
        except KeyboardInterrupt:
            sys.setprofile(before)
            assert loader.state_dict()["position"] == len(delivered) or len(delivered) == LENGTH
        except StopIteration:
            return delivered, interrupting.left <= 0
        else:
            delivered += batch.tolist()
        finally:
            sys.setprofile(before)


def interrupted_everywhere(loader, numbers):
    for number in numbers:
        delivered, interrupted = epoch_with_interrupt(loader, number)
        assert delivered == list(range(LENGTH)), f"interrupted at place {number}"
        if not interrupted:
            return number
    return None


@pytest.mark.parametrize(
    ("dataset", "options"),
    [
        (Numbers(), {}),
        (Numbers(), {"in_order": False}),
        (Numbers(), {"sampler": range(LENGTH)}),
        (Numbers(), {"sampler": [str(number) for number in range(LENGTH)]}),
        (Numbers(), {"shard": (0, 1), "drop_last": True}),
        (Stream(), {}),
    ],
    ids=["map", "any order", "known order", "drawn order", "shard", "stream"],
)
def test_an_interrupt_anywhere_loses_and_repeats_nothing(dataset, options):
    with DataLoader(dataset, batch_size=4, seed=1, **options) as loader:
        assert interrupted_everywhere(loader, range(1, 1000)) is not None  # every place there is


@pytest.mark.parametrize("in_order", [True, False])
def test_an_interrupt_anywhere_counts_each_batch_once_in_the_digest(in_order):
    with DataLoader(Numbers(), batch_size=4, seed=1) as whole:
        list(whole)
    for number in range(1, 1000):
        with DataLoader(Numbers(), batch_size=4, seed=1, in_order=in_order) as loader:
            _, interrupted = epoch_with_interrupt(loader, number)
            assert loader.digest() == whole.digest(), f"interrupted at place {number}"
        if not interrupted:
            return
    raise AssertionError("no end")


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_an_interrupt_between_workers_and_delivery_loses_and_repeats_nothing(backend):
    with DataLoader(Numbers(), batch_size=4, seed=1, num_workers=2, backend=backend) as loader:
        assert interrupted_everywhere(loader, range(1, 140 if backend == "thread" else 90)) is None  # each was reached


def test_an_epoch_whose_beginning_is_interrupted_leaves_no_workers_behind():
    before = len(multiprocessing.active_children())
    loader = DataLoader(Numbers(), 4, num_workers=2, backend="process", persistent_workers=False)
    for number in range(1, 36, 2):
        delivered, _ = epoch_with_interrupt(loader, number)
        assert delivered == list(range(LENGTH))
        assert len(multiprocessing.active_children()) == before, f"interrupted at place {number}"
