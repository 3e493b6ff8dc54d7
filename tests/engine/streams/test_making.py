"""Laws of streams: in order, each sample once, on the rank whose turn it is; errors and Ctrl-C lose nothing."""

import random
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import feedline
from feedline import DataLoader, ErrorPolicy, FeedlineError, IterableDataset, Shard


class Counting(IterableDataset):
    """0, 1, 2, … by an iterator that goes on after an error, or by a generator, which does not."""

    def __init__(self, length, faults=None, *, generator=False):
        self.length = length
        self.faults = {position: list(errors) for position, errors in (faults or {}).items()}
        self.generator = generator
        self.opened = 0

    def __iter__(self):
        self.opened += 1
        items = _Items(self)
        return (item for item in items) if self.generator else items


class _Items:
    def __init__(self, dataset):
        self.dataset = dataset
        self.place = 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.dataset.faults.get(self.place):
            raise self.dataset.faults[self.place].pop(0)
        if self.place >= self.dataset.length:
            raise StopIteration
        self.place += 1
        return self.place - 1


def run(iterator, *errors):
    got = []
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return got
        except errors as error:
            got.append(type(error).__name__)
        else:
            got.append(np.asarray(batch).tolist())


@given(
    st.integers(0, 30), st.integers(1, 6), st.integers(1, 4), st.sampled_from(["pad", "drop", "exact"]), st.booleans()
)
def test_a_stream_is_dealt_as_a_list_is(length, size, world, end, drop_last):
    for rank in range(world):
        shape = {"batch_size": size, "drop_last": drop_last, "shard": Shard(rank, world, end), "seed": 1}
        known = [batch.tolist() for batch in DataLoader(range(length), **shape)]
        assert [batch.tolist() for batch in DataLoader(Counting(length), **shape)] == known


def test_a_stream_is_opened_once_an_epoch_at_the_first_batch():
    dataset = Counting(5)
    loader = DataLoader(dataset, batch_size=2)
    iterator = iter(loader)
    assert dataset.opened == 0
    next(iterator)
    assert dataset.opened == 1
    assert [len(list(loader)) for _ in range(2)] == [3, 3]
    assert dataset.opened == 3


def test_an_endless_stream_is_read_no_further_than_needed():
    read = []

    class Endless(IterableDataset):
        def __iter__(self):
            number = 0
            while True:
                read.append(number)
                yield number
                number += 1

    iterator = iter(DataLoader(Endless(), batch_size=3))
    assert [next(iterator).tolist() for _ in range(2)] == [[0, 1, 2], [3, 4, 5]]
    assert read == list(range(6))


@pytest.mark.parametrize("generator", [False, True])
@pytest.mark.parametrize("position", [0, 3, 4, 9])
def test_ctrl_c_while_reading_loses_nothing(position, generator):
    dataset = Counting(10, {position: [KeyboardInterrupt()]}, generator=generator)
    got = run(iter(DataLoader(dataset, batch_size=4)), KeyboardInterrupt)
    assert "KeyboardInterrupt" in got
    assert [batch for batch in got if batch != "KeyboardInterrupt"] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


class Mapped(Counting):
    """A map() over a generator: neither says, once Ctrl-C has ended the generator, that it is over."""

    def __init__(self, length, faults, interrupts):
        super().__init__(length, faults, generator=True)
        self.interrupts = interrupts

    def __iter__(self):
        return map(self.double, super().__iter__())

    def double(self, number):
        if number in self.interrupts:
            self.interrupts.remove(number)
            raise KeyboardInterrupt
        return 2 * number


@pytest.mark.parametrize("position", [0, 3, 4, 9])
@pytest.mark.parametrize("where", ["generator", "function"])
def test_ctrl_c_in_a_map_over_a_generator_loses_nothing(position, where):
    faults = {position: [KeyboardInterrupt()]} if where == "generator" else {}
    dataset = Mapped(10, faults, [position] if where == "function" else [])
    got = run(iter(DataLoader(dataset, batch_size=4)), KeyboardInterrupt)
    assert got.count("KeyboardInterrupt") == 1
    assert [batch for batch in got if batch != "KeyboardInterrupt"] == [[0, 2, 4, 6], [8, 10, 12, 14], [16, 18]]


@pytest.mark.parametrize("position", [0, 3, 5, 19])
def test_ctrl_c_in_an_iterator_that_cannot_be_opened_anew_loses_and_repeats_nothing(position):
    dataset = map(abs, iter(Counting(20, {position: [KeyboardInterrupt()]})))
    got = run(iter(DataLoader(dataset, batch_size=4)), KeyboardInterrupt)
    assert got.count("KeyboardInterrupt") == 1
    assert [number for batch in got if batch != "KeyboardInterrupt" for number in batch] == list(range(20))


def test_ctrl_c_in_the_function_of_a_map_takes_what_the_function_held_and_no_more():
    """The map() itself has dropped it; those read before it are still there."""
    held = [5]

    def same(number):
        if number in held:
            held.remove(number)
            raise KeyboardInterrupt
        return number

    got = run(iter(DataLoader(map(same, range(20)), batch_size=4)), KeyboardInterrupt)
    assert got[:2] == [[0, 1, 2, 3], "KeyboardInterrupt"]
    assert [number for batch in got[2:] for number in batch] == [4, *range(6, 20)]


@pytest.mark.parametrize("stage", ["collate_fn", "batch_transform"])
def test_ctrl_c_after_reading_loses_nothing(stage):
    interrupts = [KeyboardInterrupt()]

    def interrupted(batch):
        if 4 in np.asarray(batch) and interrupts:
            raise interrupts.pop()
        return batch

    got = run(iter(DataLoader(Counting(10), batch_size=4, **{stage: interrupted})), KeyboardInterrupt)
    assert got == [[0, 1, 2, 3], "KeyboardInterrupt", [4, 5, 6, 7], [8, 9]]


def test_ctrl_c_in_a_mapped_function_loses_nothing():
    interrupts = [KeyboardInterrupt()]

    def interrupted(number):
        if number == 6 and interrupts:
            raise interrupts.pop()
        return number

    got = run(iter(DataLoader(Counting(10).map(interrupted), batch_size=4)), KeyboardInterrupt)
    assert got == [[0, 1, 2, 3], "KeyboardInterrupt", [4, 5, 6, 7], [8, 9]]


class Shards(IterableDataset):
    """Shards of four, each a generator."""

    def __init__(self, count, faults=None):
        self.count = count
        self.faults = dict(faults or {})
        self.opened = []

    def shards(self):
        return self.count

    def iter_shard(self, shard):
        self.opened.append(shard)
        for number in range(4 * shard, 4 * shard + 4):
            if number in self.faults:
                raise self.faults.pop(number)
            yield number

    def __iter__(self):
        raise AssertionError("shards are there")


def test_a_stream_of_shards_is_read_shard_by_shard():
    dataset = Shards(3)
    iterator = iter(DataLoader(dataset, batch_size=3))
    assert next(iterator).tolist() == [0, 1, 2]
    assert dataset.opened == [0]
    assert run(iterator) == [[3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert dataset.opened == [0, 1, 2]


def test_after_ctrl_c_a_shard_alone_is_opened_anew():
    dataset = Shards(3, {6: KeyboardInterrupt()})
    got = run(iter(DataLoader(dataset, batch_size=3)), KeyboardInterrupt)
    assert got == [[0, 1, 2], [3, 4, 5], "KeyboardInterrupt", [6, 7, 8], [9, 10, 11]]
    assert dataset.opened == [0, 1, 1, 2]


def test_after_an_error_that_ended_a_shard_the_next_one_follows():
    got = run(iter(DataLoader(Shards(3, {6: ValueError("bad")}), batch_size=3)), ValueError)
    assert got == [[0, 1, 2], [3, 4, 5], "ValueError", [8, 9, 10], [11]]


def test_a_function_that_is_mapped_draws_by_its_position_and_not_what_was_drawn_for_reading():
    class Drawing(IterableDataset):
        def __iter__(self):
            for _ in range(8):
                yield feedline.rng().random(), random.random()

    def draw(sample):
        return *sample, feedline.rng().random(), random.random()

    def drawn(size):
        return np.concatenate(
            [np.stack(batch, 1) for batch in DataLoader(Drawing().map(draw), batch_size=size, seed=1)]
        )

    assert (drawn(3) == drawn(8)).all()
    assert len(np.unique(drawn(3))) == 32


def test_after_an_error_the_samples_already_read_come_in_the_next_batch():
    dataset = Counting(10, {6: [ValueError("bad")]})
    assert run(iter(DataLoader(dataset, batch_size=4)), ValueError) == [
        [0, 1, 2, 3],
        "ValueError",
        [4, 5, 6, 7],
        [8, 9],
    ]


def test_an_error_says_where():
    dataset = Counting(10, {6: [KeyError("bad")]})
    iterator = iter(DataLoader(dataset, batch_size=4))
    next(iterator)
    with pytest.raises(KeyError, match="bad") as caught:
        next(iterator)
    notes = " ".join(caught.value.__notes__)
    assert "sample 6 of the stream" in notes
    assert "epoch 0, step 1" in notes


def test_a_stream_that_raised_before_is_resumed_beyond_its_error():
    def dataset():
        return Counting(10, {2: [ValueError("bad")]})

    loader = DataLoader(dataset(), batch_size=3)
    iterator = iter(loader)
    with pytest.raises(ValueError):
        next(iterator)
    assert next(iterator).tolist() == [0, 1, 2]
    again = DataLoader(dataset(), batch_size=3)
    again.load_state_dict(loader.state_dict())
    assert run(iter(again), ValueError) == [[3, 4, 5], [6, 7, 8], [9]]


@pytest.mark.parametrize("stage", ["collate_fn", "batch_transform"])
def test_stop_iteration_of_a_function_is_an_error(stage):
    def stops(batch):
        raise StopIteration

    with pytest.raises(RuntimeError, match=r"raised StopIteration \(epoch 0, step 0\)"):
        next(iter(DataLoader(Counting(3), **{stage: stops})))


def test_bad_samples_are_skipped_counted_and_told():
    told = []
    faults = {2: [ValueError("bad")], 5: [ValueError("bad"), KeyError("worse")]}
    policy = ErrorPolicy("skip", max_count=3, callback=lambda failed: told.append((failed.index, failed.step)))
    got = run(iter(DataLoader(Counting(8, faults), batch_size=4, on_error=policy)))
    assert got == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert told == [(2, 0), (5, 1), (5, 1)]


def test_too_many_bad_samples_are_an_error():
    faults = {1: [ValueError("bad")] * 3}
    policy = ErrorPolicy("skip", max_count=2)
    with pytest.raises(FeedlineError, match=r"3 of 7 samples failed, more than max_count=2 allows.*ValueError: bad"):
        list(DataLoader(Counting(8, faults), batch_size=4, on_error=policy))


def test_a_generator_that_an_error_has_ended_is_not_taken_for_complete():
    dataset = Counting(8, {3: [ValueError("bad")]}, generator=True)
    with pytest.raises(ValueError, match="bad"):
        list(DataLoader(dataset, batch_size=2, on_error="skip"))


class Broken(_Items):
    """Raises from its third sample on, for ever."""

    asked = 0

    def __next__(self):
        if self.place < 2:
            return super().__next__()
        self.asked += 1
        if self.asked > 5000:
            pytest.fail("nobody gives up")  # no Exception, which would be skipped too
        raise OSError("no disk")


def test_a_source_that_is_lost_is_given_up_after_a_thousand_errors_in_a_row():
    items = Broken(Counting(8))
    iterator = iter(DataLoader(items, batch_size=4, on_error="skip"))
    with pytest.raises(OSError, match="no disk") as caught:
        next(iterator)
    assert items.asked == 1001
    assert "1001 samples in a row failed: the stream is given up" in caught.value.__notes__


def test_a_source_that_is_lost_is_given_up_by_a_resume_too():
    loader = DataLoader(Counting(8), batch_size=4, on_error="skip")
    next(iter(loader))
    items = Broken(Counting(8))
    resumed = DataLoader(items, batch_size=4, on_error="skip")
    resumed.load_state_dict(loader.state_dict())
    with pytest.raises(OSError, match="no disk"):
        next(iter(resumed))
    assert items.asked == 1001


def test_a_thousand_errors_that_are_not_in_a_row_are_skipped():
    faults = {position: [OSError("bad")] * 600 for position in (1, 2, 3)}
    (batch,) = DataLoader(Counting(4, faults), batch_size=4, on_error="skip")
    assert batch.tolist() == [0, 1, 2, 3]


def test_a_resume_beyond_the_streams_end_is_an_error():
    loader = DataLoader(Counting(10), batch_size=4)
    iterator = iter(loader)
    next(iterator), next(iterator)
    shorter = DataLoader(Counting(5), batch_size=4)
    shorter.load_state_dict(loader.state_dict())
    with pytest.raises(FeedlineError, match="8 samples were delivered, but the stream ended after 5"):
        next(iter(shorter))


class Sized(Counting):
    def __len__(self):
        return 4


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_stream_of_its_length_whose_last_batch_is_short_warns_of_nothing(num_workers):
    with DataLoader(Sized(4), batch_size=3, num_workers=num_workers, backend="auto") as loader:
        assert [batch.tolist() for batch in loader] == [[0, 1, 2], [3]]


@pytest.mark.parametrize("position", [0, 3, 4, 5, 9])
@pytest.mark.parametrize("generator", [False, True])
def test_ctrl_c_beneath_a_shuffle_loses_nothing(position, generator):
    expected = run(iter(DataLoader(Counting(10).shuffle(3), batch_size=4, seed=1)), KeyboardInterrupt)
    dataset = Counting(10, {position: [KeyboardInterrupt()]}, generator=generator).shuffle(3)
    got = run(iter(DataLoader(dataset, batch_size=4, seed=1)), KeyboardInterrupt)
    assert got.count("KeyboardInterrupt") == 1
    assert [batch for batch in got if batch != "KeyboardInterrupt"] == expected


@pytest.mark.parametrize("fault", [0, 7, 10])
@pytest.mark.parametrize("interleave", [1, 2])
def test_ctrl_c_in_a_generator_of_shuffled_shards_loses_nothing(fault, interleave):
    expected = run(
        iter(DataLoader(Shards(3).shuffle(3, interleave=interleave), batch_size=4, seed=1)), KeyboardInterrupt
    )
    dataset = Shards(3, {fault: KeyboardInterrupt()}).shuffle(3, interleave=interleave)
    got = run(iter(DataLoader(dataset, batch_size=4, seed=1)), KeyboardInterrupt)
    assert got.count("KeyboardInterrupt") == 1
    assert [batch for batch in got if batch != "KeyboardInterrupt"] == expected


def test_a_stream_longer_than_its_length_warns_and_loses_nothing():
    loader = DataLoader(Sized(6), batch_size=2)
    assert len(loader) == 2
    iterator = iter(loader)
    next(iterator), next(iterator)
    with pytest.warns(UserWarning, match=r"len\(\) is 4, but it goes on beyond that"):
        assert next(iterator).tolist() == [4, 5]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(DataLoader(Sized(4), batch_size=2))) == 2


class Shuffled(IterableDataset):
    """Draws when it is opened, as shuffled shards do, and for each sample."""

    def __init__(self, draw):
        self.draw = draw

    def __iter__(self):
        order = list(range(12))
        self.draw(order)
        return iter(order)


@pytest.mark.parametrize(
    "draw",
    [random.shuffle, np.random.shuffle, lambda order: feedline.rng().shuffle(order)],
    ids=["python", "numpy", "rng"],
)
def test_what_a_stream_draws_when_it_is_opened_is_keyed(draw, same_global_generators):
    def epochs(size):
        loader = DataLoader(Shuffled(draw), batch_size=size, seed=5)
        return [np.concatenate(list(loader)).tolist() for _ in range(2)]

    first, second = epochs(3)
    assert first != second
    assert epochs(3) == epochs(4) == [first, second]


def test_samples_draw_by_their_position():
    class Noisy(IterableDataset):
        def __iter__(self):
            for _ in range(10):
                yield random.random(), np.random.rand(), feedline.rng().random()

    def drawn(size, seed):
        loader = DataLoader(Noisy(), batch_size=size, seed=seed)
        return [tuple(map(tuple, np.concatenate([np.stack(batch, 1) for batch in loader]))) for _ in range(2)]

    assert drawn(3, 1) == drawn(4, 1)
    first, second = drawn(3, 1)
    assert len({number for sample in first + second + drawn(3, 2)[0] for number in sample}) == 90
