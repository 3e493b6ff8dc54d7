"""Laws of an epoch under way: what is delivered counts, what failed counts too, and its end is its end."""

import pytest

from feedline import DataLoader, Dataset, ErrorPolicy, FeedlineError


class Bad(Dataset):
    def __init__(self, length, bad=()):
        self.length, self.bad = length, set(bad)

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index in self.bad:
            raise KeyError(index)
        return index


def test_the_samples_of_a_batch_without_a_good_one_count_in_the_budget():
    iterator = iter(DataLoader(Bad(8, [2, 3]), 2, on_error=ErrorPolicy("skip", max_count=1)))
    next(iterator)
    with pytest.raises(FeedlineError, match="2 of 4 samples failed, more than max_count=1 allows"):
        next(iterator)


def test_every_attempt_at_a_replacement_counts_in_the_budget():
    iterator = iter(DataLoader(Bad(8, range(8)), 2, seed=1, on_error=ErrorPolicy("replace", max_count=3)))
    with pytest.raises(FeedlineError, match="11 of 11 samples failed, more than max_count=3 allows"):
        next(iterator)


class Placed:
    """A user's sampler that saves its place."""

    place = 0

    def __iter__(self):
        while self.place < 6:
            self.place += 1
            yield self.place - 1

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


def test_the_samplers_state_is_that_of_the_last_delivery():
    loader = DataLoader(Bad(6, [2]), 2, sampler=Placed())
    iterator = iter(loader)
    assert loader.state_dict()["sampler_state"] is None
    next(iterator)
    assert loader.state_dict()["sampler_state"] == {"sampler": {"place": 2}, "head": []}
    with pytest.raises(KeyError):
        next(iterator)
    assert loader.state_dict()["sampler_state"] == {"sampler": {"place": 2}, "head": []}
    next(iterator)
    assert loader.state_dict()["sampler_state"] == {"sampler": {"place": 6}, "head": []}


def test_an_epoch_at_its_end_stays_there_when_the_dataset_changes():
    dataset = Bad(4)
    iterator = iter(DataLoader(dataset, 2))
    assert len(list(iterator)) == 2
    dataset.length = 9
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(iterator)
