"""Laws of shuffled streams: every item once an epoch, in an order that is a function of seed and epoch."""

import random
from collections import Counter
from itertools import chain, permutations

import numpy as np
import pytest
import torch
from doubles import Count, noisy
from hypothesis import given
from hypothesis import strategies as st

import feedline
from feedline import ChainDataset, DataLoader, IterableDataset, Shard, ShuffledStream
from feedline.datasets import MapIterableDataset
from feedline.datasets.mapped import taken_apart
from feedline.datasets.shuffled import ShuffleBuffer, beneath, stream_name, unshuffled
from feedline.errors import StateError

pytestmark = pytest.mark.filterwarnings("ignore:num_workers=")  # more than there are CPUs, where there are few


class Shards(IterableDataset):
    """Shards of these lengths: sample i of shard s is 1000 s + i."""

    def __init__(self, lengths):
        self.lengths = lengths

    def shards(self):
        return len(self.lengths)

    def iter_shard(self, shard):
        yield from range(1000 * shard, 1000 * shard + self.lengths[shard])

    def __iter__(self):
        return chain.from_iterable(map(self.iter_shard, range(len(self.lengths))))


def in_epoch(shuffled, seed=1, epoch=0):
    return list(shuffled.read(seed=seed, epoch=epoch))


def rows(batches):
    """Samples of batches, as plain data."""
    found = []
    for batch in batches:
        leaves = batch if isinstance(batch, list | tuple) else [batch]
        found += zip(*(leaf.tolist() for leaf in leaves), strict=True)
    return found


LENGTHS = st.lists(st.integers(0, 9), max_size=9)


# ------------------------------------------------------------------------------------------------------------ the order


@given(st.integers(0, 60), st.integers(1, 70), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_every_item_comes_once(length, size, seed, epoch):
    assert sorted(in_epoch(Count(length).shuffle(size), seed, epoch)) == list(range(length))


@given(LENGTHS, st.integers(1, 30), st.integers(1, 5))
def test_every_item_of_every_shard_comes_once(lengths, size, interleave):
    stream = Shards(lengths)
    assert sorted(in_epoch(stream.shuffle(size, interleave=interleave))) == list(stream)


def test_epochs_and_seeds_differ_and_equal_ones_are_equal():
    shuffled = Shards([10, 0, 30, 7]).shuffle(8, interleave=2)
    orders = {(seed, epoch): in_epoch(shuffled, seed, epoch) for seed in range(3) for epoch in range(3)}
    assert len(set(map(tuple, orders.values()))) == 9
    again = Shards([10, 0, 30, 7]).shuffle(8, interleave=2)
    assert all(in_epoch(again, *key) == order for key, order in orders.items())


def test_the_order_is_pinned():
    """Golden values: an order that changed would break every state that was saved."""
    assert in_epoch(Count(12).shuffle(4)) == [0, 4, 1, 2, 6, 5, 7, 8, 9, 10, 3, 11]
    assert in_epoch(Shards([2, 3, 0, 4]).shuffle(1, interleave=2)) == [1000, 3000, 1001, 3001, 1002, 3002, 3003, 0, 1]


@given(LENGTHS, st.integers(1, 5), st.integers(0, 9))
def test_groups_of_shards_are_read_by_turns(lengths, interleave, epoch):
    """A buffer of one leaves the sequence: in each group the n-th item of each shard, before any has its next one."""
    found = in_epoch(Shards(lengths).shuffle(1, interleave=interleave), epoch=epoch)
    groups, expected = list(dict.fromkeys(number // 1000 for number in found)), []
    sizes = [length for length in lengths if length]
    if interleave == 1:
        expected = [1000 * shard + place for shard in groups for place in range(lengths[shard])]
    elif interleave >= len(lengths):
        by_turn = [(place, turn) for turn, shard in enumerate(groups) for place in range(lengths[shard])]
        expected = [1000 * groups[turn] + place for place, turn in sorted(by_turn)]
    if expected or not sizes:
        assert found == expected
    for shard in groups:
        assert [number for number in found if number // 1000 == shard] == list(Shards(lengths).iter_shard(shard))


def test_the_order_of_shards_is_drawn_evenly():
    shuffled = Shards([1, 1, 1]).shuffle(1)
    seen = Counter(tuple(in_epoch(shuffled, epoch=epoch)) for epoch in range(1200))
    assert set(seen) == set(permutations([0, 1000, 2000]))
    assert sum((count - 200) ** 2 / 200 for count in seen.values()) < 20.5  # χ², 5 degrees of freedom: 0.1%


def test_a_stream_that_fits_the_buffer_is_shuffled_evenly():
    shuffled = Count(4).shuffle(10)
    seen = Counter(tuple(in_epoch(shuffled, epoch=epoch)) for epoch in range(2400))
    assert set(seen) == set(permutations(range(4)))
    assert sum((count - 100) ** 2 / 100 for count in seen.values()) < 49.7  # χ², 23 degrees of freedom: 0.1%


@given(st.integers(1, 40), st.integers(0, 100))
def test_no_item_comes_before_the_buffer_could_hold_it(size, epoch):
    order = in_epoch(Count(200).shuffle(size), epoch=epoch)
    assert all(number - position <= size - 1 for position, number in enumerate(order))


def test_items_move_further_the_larger_the_buffer_is():
    moved = []
    for size in (1, 10, 100, 1000):
        order = np.array(in_epoch(Count(20_000).shuffle(size)))
        moved.append(np.abs(order - np.arange(20_000)).mean())
    assert moved[0] == 0
    for size, mean in zip((10, 100, 1000), moved[1:], strict=True):  # late by a geometric number less size - 1
        expected = 2 * size * (1 - 1 / size) ** size
        assert abs(mean / expected - 1) < 0.1


def test_words_are_drawn_by_position_whatever_their_block():
    whole = list(ShuffleBuffer(iter(range(5000)), 7, seed=3, epoch=1))
    buffer = ShuffleBuffer(iter(range(5000)), 7, seed=3, epoch=1)
    kept = []
    buffer.keep(kept, 3)
    assert [next(buffer) for _ in range(5000)] == whole
    assert kept == whole[:3]
    assert (buffer.position, buffer.is_over) == (5000, False)
    assert list(buffer) == []
    assert buffer.is_over


@given(st.integers(0, 50), st.integers(1, 20), st.data())
def test_reach_is_how_far_the_source_is_read(length, size, data):
    position = data.draw(st.integers(0, length))
    source = iter(range(length))
    buffer = ShuffleBuffer(source, size, 1, 0)
    for _ in range(position):
        next(buffer)
    assert next(source, length) == min(ShuffleBuffer.reach(position, size), length)


# --------------------------------------------------------------------------------------------------- without a loader


def test_without_a_loader_each_pass_is_drawn_from_pythons_generator():
    shuffled = Count(30).shuffle(30)
    state = random.getstate()
    try:
        random.seed(5)
        first, second = list(shuffled), list(shuffled)
        random.seed(5)
        assert [list(shuffled), list(shuffled)] == [first, second]
    finally:
        random.setstate(state)
    assert first != second
    assert sorted(first) == sorted(second) == list(range(30))


def test_maps_before_and_after_apply_to_each_sample():
    shuffled = Count(10).map(str).shuffle(4).map(lambda text: text + "!")
    assert sorted(shuffled) == sorted(f"{number}!" for number in range(10))
    before = Count(10).map(str).shuffle(4)
    assert in_epoch(before) == list(map(str, in_epoch(Count(10).shuffle(4))))


def test_maps_beneath_a_shuffle_are_taken_out():
    stream = Count(3)
    source, maps = taken_apart(stream.map(abs).shuffle(2).map(str).shuffle(3).map(int))
    assert [step.fn for step in maps] == [abs, str, int]
    assert (type(source), source.buffer_size) == (ShuffledStream, 3)
    assert (type(source.stream), source.stream.buffer_size, source.stream.stream) == (ShuffledStream, 2, stream)


def test_an_error_costs_no_other_item():
    class Bad(Count):
        def __iter__(self):
            return self.Items()

        class Items:
            place = -1

            def __iter__(self):
                return self

            def __next__(self):
                self.place += 1
                if self.place in {2, 9, 19}:
                    raise ValueError(f"cannot read {self.place}")
                if self.place > 19:
                    raise StopIteration
                return self.place

    found, errors = [], []
    items = Bad(20).shuffle(6).read(seed=1, epoch=0)
    while True:
        try:
            found.append(next(items))
        except ValueError as error:
            errors.append(str(error))
        except StopIteration:
            break
    assert errors == ["cannot read 2", "cannot read 9", "cannot read 19"]
    assert sorted(found) == [number for number in range(20) if number not in {2, 9, 19}]


def test_a_shard_that_cannot_be_opened_costs_no_other_one():
    class Closed(Shards):
        def iter_shard(self, shard):
            if shard == 1:
                raise OSError("cannot open")
            return super().iter_shard(shard)

    items = Closed([3, 3, 3]).shuffle(1, interleave=3).read(seed=1, epoch=0)
    found = []
    with pytest.raises(OSError, match="cannot open") as raised:
        while True:
            found.append(next(items))
    found += items
    assert sorted(found) == [0, 1, 2, 2000, 2001, 2002]
    assert raised.value.__notes__ == ["while opening shard 1 of the stream"]


def test_stop_iteration_of_opening_a_shard_is_an_error():
    class Stopping(Shards):
        def iter_shard(self, shard):
            return next(iter(()))

    with pytest.raises(RuntimeError, match="the stream raised StopIteration when a shard was opened"):
        in_epoch(Stopping([1]).shuffle(2))


def test_promises_and_length_are_the_streams():
    assert len(Count(7).shuffle(3)) == 7
    with pytest.raises(TypeError):
        len(Shards([1]).shuffle(3))
    assert Count(7).shuffle(3).thread_safe
    assert not Count(7).shuffle(3).uses_global_rng
    assert not Shards([1]).shuffle(3).thread_safe
    assert Shards([1]).shuffle(3).parents[0].lengths == [1]


def test_unshuffled_is_the_streams_own_order_with_its_maps():
    stream = Count(5)
    assert unshuffled(stream) is stream
    assert beneath(stream.shuffle(3)) is stream
    assert list(unshuffled(stream.map(str).shuffle(3).map(int))) == [0, 1, 2, 3, 4]


def test_wrong_arguments_are_refused():
    for size in (0, -1, 1.5, True, None):
        with pytest.raises(ValueError, match="buffer_size must be a positive integer, got"):
            Count(3).shuffle(size)
    for interleave in (0, 1.5):
        with pytest.raises(ValueError, match="interleave must be a positive integer, got"):
            Shards([3]).shuffle(3, interleave=interleave)
    with pytest.raises(
        ValueError, match=r"interleave must be 1 for a stream without shards, got 2; give Count .*shards"
    ):
        Count(3).shuffle(3, interleave=2)
    with pytest.raises(
        TypeError, match=r"takes an iterable-style dataset, got list; .*DataLoader\(dataset, shuffle=True"
    ):
        ShuffledStream([1, 2], 3)
    with pytest.raises(ValueError, match="seed must be an integer from 0"):
        Count(3).shuffle(3).read(seed=-1, epoch=0)
    with pytest.raises(TypeError, match="epoch must be an integer from 0"):
        Count(3).shuffle(3).read(seed=1, epoch=None)


# ------------------------------------------------------------------------------------------------------- in a loader


KINDS = {
    "plain": lambda: Count(53).shuffle(11),
    "mapped": lambda: Count(53).map(noisy).shuffle(11).map(lambda pair: (*pair, feedline.rng().random())),
    "sharded": lambda: Shards([7, 0, 20, 1, 12, 13]).shuffle(11, interleave=2),
    "sharded and mapped": lambda: Shards([7, 0, 20, 1, 12, 13]).map(noisy).shuffle(11),
}
kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
def test_a_loader_delivers_the_order_of_its_seed_and_epoch(kind):
    dataset = KINDS[kind]()
    loader = DataLoader(dataset, 5, seed=9)
    plain = unshuffled_numbers(dataset)
    for epoch in range(3):
        assert [row[0] for row in rows(loader)] == list(plain.read(seed=9, epoch=epoch))


def unshuffled_numbers(dataset):
    """The same shuffling without its maps, whose samples are not numbers alone."""
    return taken_apart(dataset)[0]


@kinds
def test_workers_of_any_kind_and_number_deliver_the_same(kind):
    expected = [rows(epoch) for epoch in epochs(DataLoader(KINDS[kind](), 5, seed=9))]
    assert len(expected[0]) == len(set(expected[0])) == 53
    assert expected[0] != expected[1]
    for how in ({"num_workers": 1}, {"num_workers": 2}, {"num_workers": 3}):
        with DataLoader(KINDS[kind](), 5, seed=9, backend="thread", **how) as loader:
            assert [rows(epoch) for epoch in epochs(loader)] == expected
    with DataLoader(KINDS[kind](), 5, seed=9, backend="process", num_workers=2) as loader:
        assert [rows(epoch) for epoch in epochs(loader)] == expected


def epochs(loader):
    return [list(loader) for _ in range(2)]


@kinds
@given(data=st.data())
def test_a_resume_with_other_workers_ranks_and_batches_gives_exactly_the_rest(kind, data):
    dataset = KINDS[kind]()
    size, world = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 3))
    steps = data.draw(st.integers(0, 53 // (size * world)))
    ranks = [DataLoader(dataset, size, seed=3, shard=Shard(rank, world, end="exact")) for rank in range(world)]
    delivered, states = [], []
    for loader in ranks:
        loader.set_epoch(2)
        iterator = iter(loader)
        delivered += rows(next(iterator) for _ in range(steps))
        states.append(loader.state_dict())
    assert all(state == states[0] for state in states)
    size, world, workers = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 3)), data.draw(st.integers(0, 3))
    for rank in range(world):
        shard = Shard(rank, world, end="exact")
        with DataLoader(
            dataset, size, num_workers=workers, backend="auto" if not workers else "thread", shard=shard
        ) as rest:
            rest.load_state_dict(states[0])
            delivered += rows(rest)
    whole = DataLoader(dataset, 7, seed=3)
    whole.set_epoch(2)
    assert len(delivered) == 53
    assert sorted(delivered) == sorted(rows(whole))


def test_ranks_are_padded_with_the_first_items_of_the_shuffled_order():
    dataset = Shards([5, 4]).shuffle(4)
    order = list(dataset.read(seed=1, epoch=0))
    found = [[row[0] for row in rows(DataLoader(dataset, 2, seed=1, shard=(rank, 4)))] for rank in range(4)]
    dealt = [*order, order[0], order[1], order[2]]
    assert found == [[*dealt[2 * rank : 2 * rank + 2], dealt[8 + rank]] for rank in range(4)]


@pytest.mark.parametrize(
    "other",
    [Count(30), Count(30).shuffle(6), Shards([30]).shuffle(5, interleave=2), Count(30).shuffle(5).shuffle(5)],
    ids=["unshuffled", "buffer", "interleave", "twice"],
)
def test_a_state_of_another_shuffling_is_refused(other):
    state = DataLoader(Count(30).map(abs).shuffle(5).map(abs), 4, seed=1).state_dict()
    assert state["sampler"] == "IterableDataset(shuffled, buffer=5, interleave=1)"
    with pytest.raises(StateError, match=r"with IterableDataset\(shuffled, buffer=5, interleave=1\), this one has"):
        DataLoader(other, 4).load_state_dict(state)


def test_names_tell_every_shuffling():
    assert stream_name(Count(3).shuffle(2).map(abs).shuffle(4)) == (
        "IterableDataset(shuffled, buffer=2, interleave=1)(shuffled, buffer=4, interleave=1)"
    )


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_torch_stream_is_shuffled(num_workers):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(torch.arange(40))

    shuffled = ShuffledStream(Stream(), 10)
    with DataLoader(
        shuffled, 8, seed=1, num_workers=num_workers, backend="thread" if num_workers else "auto"
    ) as loader:
        batches = list(loader)
    assert all(type(batch) is torch.Tensor for batch in batches)
    assert torch.cat(batches).tolist() == [int(item) for item in shuffled.read(seed=1, epoch=0)]
    assert isinstance(shuffled.map(int), MapIterableDataset)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_shuffled_streams_in_a_chain_are_keyed_by_the_loader_and_resume(num_workers):
    dataset = ChainDataset([Count(20).shuffle(8), Count(20).shuffle(8)])
    how = {"num_workers": num_workers, "backend": "thread" if num_workers else "auto"}
    whole = rows(DataLoader(dataset, 4, seed=1))
    halves = [row[0] for row in whole[:20]], [row[0] for row in whole[20:]]
    assert sorted(halves[0]) == sorted(halves[1]) == list(range(20))
    assert halves[0] != halves[1]
    with DataLoader(dataset, 4, seed=1, **how) as loader:
        iterator = iter(loader)
        head = rows(next(iterator) for _ in range(7))
        state = loader.state_dict()
    with DataLoader(dataset, 5) as loader:
        loader.load_state_dict(state)
        assert head + rows(loader) == whole
    assert rows(DataLoader(dataset, 4, seed=2)) != whole


def test_a_stream_shuffled_twice_is_the_same_every_time():
    dataset = Shards([9, 9, 9]).shuffle(4, interleave=3).shuffle(6)
    first = rows(DataLoader(dataset, 4, seed=1))
    assert sorted(row[0] for row in first) == list(Shards([9, 9, 9]))
    with DataLoader(dataset, 4, seed=1, num_workers=2, backend="thread") as loader:
        assert rows(loader) == first


def test_a_check_reads_few_samples_of_a_shuffled_stream():
    read = []

    class Told(Count):
        def __iter__(self):
            for number in range(self.length):
                read.append(number)
                yield number

    feedline.check(DataLoader(Told(1000).shuffle(500), 4))
    assert read == [0, 1, 2, 3]


def test_shuffling_by_the_loader_names_the_remedy():
    with pytest.raises(
        ValueError, match=r"a stream has its own order; shuffle the stream itself: dataset\.shuffle\(n\)"
    ):
        DataLoader(Count(3), shuffle=True)
    with pytest.raises(ValueError, match=r"a stream has its own order$"):
        DataLoader(Count(3), sampler=[0])


def test_a_buffer_may_be_larger_than_any_list():
    stream = ShuffledStream(iter(range(5)), 2**70)
    assert sorted(stream.read(seed=1, epoch=0)) == list(range(5))
