"""Laws of users' own samplers: consumed in order, resumed exactly, their generators left alone."""

import random
from itertools import chain, count, islice

import numpy as np
import pytest
import torch
from doubles import Noisy, Own, Pairs, Stateful, plain, read, through_json

import feedline
from feedline import DataLoader, Shard


@pytest.mark.parametrize("how", [{"sampler": Own(24), "batch_size": 2}, {"batch_sampler": Pairs(24)}])
def test_augmentation_under_a_users_sampler_is_the_same_in_any_world(how):
    def samples(shard):
        return list(chain(*read(DataLoader(Noisy(24), seed=7, shard=shard, **how))))

    assert sorted(chain(*(samples(Shard(rank, 3, "exact")) for rank in range(3)))) == sorted(samples(None))


class StatefulBatches:
    def __init__(self):
        self.place = 0

    def __iter__(self):
        while self.place < 6:
            self.place += 1
            yield [2 * self.place - 2, 2 * self.place - 1]
        self.place = 0

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


def test_augmentation_under_a_stateful_batch_sampler_survives_a_resume():
    whole = read(DataLoader(Noisy(12), batch_sampler=StatefulBatches(), seed=7))
    loader = DataLoader(Noisy(12), batch_sampler=StatefulBatches(), seed=7)
    iterator = iter(loader)
    next(iterator), next(iterator)
    resumed = DataLoader(Noisy(12), batch_sampler=StatefulBatches())
    resumed.load_state_dict(through_json(loader))
    assert read(resumed) == whole[2:]


def test_a_state_that_a_sampler_keeps_changing_is_that_of_the_last_delivery():
    class Live(Stateful):
        def state_dict(self):
            self.__dict__.setdefault("live", {})["place"] = self.place
            return self.live

    class Stumbling(Noisy):
        def __getitem__(self, index):
            if index == (7 * 4 + 3) % 12:
                raise KeyError(index)
            return super().__getitem__(index)

    loader = DataLoader(Stumbling(12), 3, sampler=Live(12), seed=7)
    iterator = iter(loader)
    next(iterator)
    with pytest.raises(KeyError):
        next(iterator)
    resumed = DataLoader(Noisy(12), 3, sampler=Live(12))
    resumed.load_state_dict(through_json(loader))
    assert read(resumed) == read(DataLoader(Noisy(12), 3, sampler=Own(12), seed=7))[1:]


def test_the_generator_of_a_users_sampler_is_its_own():
    """Torch's samplers have one: a seed drawn from it would change their order, in the first run only."""

    def sampler():
        return torch.utils.data.RandomSampler(range(30), generator=torch.Generator().manual_seed(3))

    expected = list(sampler())
    loader = DataLoader(range(30), 4, sampler=sampler())
    iterator = iter(loader)
    got = [*next(iterator), *next(iterator)]
    resumed = DataLoader(range(30), 4, sampler=sampler())
    resumed.load_state_dict(through_json(loader))
    assert got + list(chain(*resumed)) == expected


def test_a_users_sampler_that_draws_from_a_global_generator_is_resumed_exactly(same_global_generators):
    class Shuffling(Own):
        def __iter__(self):
            order = list(range(self.length))
            random.shuffle(order)
            return iter(order)

    loader = DataLoader(range(30), 4, sampler=Shuffling(30), seed=3)
    iterator = iter(loader)
    got = [*next(iterator), *next(iterator)]
    resumed = DataLoader(range(30), 4, sampler=Shuffling(30))
    resumed.load_state_dict(through_json(loader))
    assert sorted(got + list(chain(*resumed))) == list(range(30))


def test_an_interrupted_replay_is_taken_up_again():
    class Interrupted(Own):
        interrupts = 0

        def __iter__(self):
            if self.interrupts:
                self.interrupts -= 1
                raise KeyboardInterrupt
            return super().__iter__()

    sampler = Interrupted(20)
    loader = DataLoader(Noisy(20), 4, sampler=sampler, seed=7)
    whole, iterator = read(loader), iter(loader)
    loader.set_epoch(0)
    next(iterator)
    loader.load_state_dict(loader.state_dict())
    sampler.interrupts = 1
    iterator = iter(loader)
    with pytest.raises(KeyboardInterrupt):
        next(iterator)
    assert [plain(batch) for batch in iterator] == whole[1:]


def test_an_endless_sampler_is_resumed():
    loader = DataLoader(Noisy(10**9), 4, sampler=count(), seed=1)
    iterator = iter(loader)
    first = [plain(next(iterator)) for _ in range(4)]
    loader = DataLoader(Noisy(10**9), 4, sampler=count(), seed=1)
    iterator = iter(loader)
    next(iterator), next(iterator)
    resumed = DataLoader(Noisy(10**9), 4, sampler=count())
    resumed.load_state_dict(through_json(loader))
    iterator = iter(resumed)
    assert [plain(next(iterator)) for _ in range(2)] == first[2:]


class Lazy:
    """Draws as it goes, for ever."""

    def __iter__(self):
        while True:
            yield random.randrange(1000)


def test_a_lazy_samplers_draws_are_one_sequence_whatever_the_batch_size(same_global_generators):
    def drawn(size, count, state=None):
        loader = DataLoader(range(1000), size, sampler=Lazy(), seed=None if state else 3)
        if state:
            loader.load_state_dict(state)
        batches = list(islice(loader, count))
        return [int(index) for batch in batches for index in batch]

    whole = drawn(2, 15)
    assert drawn(3, 10) == whole
    assert len(set(whole)) > 20
    loader = DataLoader(range(1000), 2, sampler=Lazy(), seed=3)
    iterator = iter(loader)
    next(iterator), next(iterator)
    assert drawn(2, 5, through_json(loader)) == whole[4:14]
    assert drawn(3, 5, through_json(loader)) == whole[4:19]


@pytest.mark.parametrize(
    "sampler",
    [
        lambda: map(random.randrange, [10] * 6),
        lambda: (random.randrange(10) for _ in range(6)),
        lambda: iter(lambda: int(np.random.randint(1, 10)), 0),
    ],
    ids=["map", "generator", "callable"],
)
def test_an_iterator_as_a_sampler_leaves_the_users_generators_alone(sampler, same_global_generators):
    assert len(list(islice(DataLoader(range(10), 2, sampler=sampler(), seed=1), 3))) == 3


def test_a_stateful_sampler_is_resumed_again_and_again_and_never_replayed():
    class Counted(Stateful):
        draws = 0

        def __iter__(self):
            for index in super().__iter__():
                self.draws += 1
                yield index

    whole = read(DataLoader(Noisy(20), 2, sampler=Own(20), seed=7))
    loader, got = DataLoader(Noisy(20), 2, sampler=Counted(20), seed=7), []
    for number in range(5):
        state = through_json(loader)
        assert (state["sampler_state"] is None) == (number == 0)
        sampler = Counted(20)
        loader = DataLoader(Noisy(20), 2, sampler=sampler, seed=7)
        loader.load_state_dict(state)
        got.append(plain(next(iter(loader))))
        assert sampler.draws == 2
    assert got == whole[:5]


class Backwards(feedline.RandomSampler):
    def __iter__(self):
        return reversed(list(super().__iter__()))


def test_an_epoch_set_on_a_sampler_that_iterates_itself_does_not_stick_to_the_loader():
    loader = DataLoader(range(8), 4, sampler=Backwards(range(8)), seed=1)
    loader.sampler.set_epoch(3)
    epochs = []
    for _ in range(3):
        iterator = iter(loader)
        next(iterator)
        epochs.append(loader.state_dict()["epoch"])
    assert epochs == [0, 1, 2]
    loader.set_epoch(7)
    assert len(list(loader)) == 2
    assert loader.state_dict()["epoch"] == 8


class Stops:
    """Raises StopIteration where it is told to."""

    def __init__(self, where):
        self.where = where

    def stop(self, here):
        if self.where == here:
            raise StopIteration

    def __iter__(self):
        self.stop("__iter__")
        yield from range(4)

    def state_dict(self):
        self.stop("state_dict")
        return {}

    def load_state_dict(self, state):
        self.stop("load_state_dict")


class Opening(Stops):
    def __iter__(self):
        self.stop("__iter__")
        return iter(range(4))


class Batches(Stops):
    def __iter__(self):
        return iter([Opening("__iter__")])


@pytest.mark.parametrize(
    "how",
    [
        {"sampler": Opening("__iter__"), "batch_size": 2},
        {"sampler": Opening("state_dict"), "batch_size": 2},
        {"batch_sampler": Batches("")},
        {"batch_sampler": Opening("__iter__")},
    ],
    ids=["sampler", "state_dict", "batch", "batch sampler"],
)
def test_stop_iteration_of_a_sampler_is_no_silent_end(how):
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        list(DataLoader(range(4), **how))


def test_stop_iteration_of_a_sampler_that_takes_its_state_is_no_silent_end():
    loader = DataLoader(range(4), 2, sampler=Opening(""))
    next(iter(loader))
    resumed = DataLoader(range(4), 2, sampler=Opening("load_state_dict"))
    resumed.load_state_dict(through_json(loader))
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        list(resumed)


def test_stop_iteration_of_the_datasets_length_is_no_silent_end():
    class Unsteady(Noisy):
        stops = False

        def __len__(self):
            if self.stops:
                raise StopIteration
            return 4

    for after in (0, 1):
        dataset = Unsteady(4)
        iterator = iter(DataLoader(dataset, 2))
        for _ in range(after):
            next(iterator)
        dataset.stops = True
        with pytest.raises(RuntimeError, match="raised StopIteration"):
            next(iterator)
