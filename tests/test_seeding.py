"""Randomness as a function of place: the words, the numbers made of them, scopes and global generators."""

import random
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from feedline import seeding
from feedline.generators import GlobalGenerators
from feedline.seeding import (
    Scope,
    Stream,
    below,
    bulk_words,
    rng,
    uniform,
    words,
)

WORD = st.integers(0, 2**64 - 1)
MASK = 2**64 - 1


def philox(counter, key):
    """Philox4x64-10 as the paper defines it: four words from a counter of four words and a key of two."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1 = product1 >> 64 ^ c1 ^ k0, product1 & MASK
        c2, c3 = product0 >> 64 ^ c3 ^ k1, product0 & MASK
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & MASK, (k1 + 0xBB67AE8584CAA73B) & MASK
    return [c0, c1, c2, c3]


# --------------------------------------------------------------------------------------------------- words


def test_the_reference_gives_the_published_answer():
    """The known-answer test for counter and key of zeros that the paper's authors publish with their code."""
    assert philox((0, 0, 0, 0), (0, 0)) == [
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    ]


@given(seed=WORD, epoch=st.integers(0, 2**32), stream=WORD, start=st.integers(0, 50), count=st.integers(0, 20))
def test_bulk_words_are_philox_of_their_block(seed, epoch, stream, start, count):
    blocks = [philox((block, 0, 0, stream), (seed, epoch)) for block in range(1, 19)]
    expected = [word for block in blocks for word in block][start : start + count]
    assert bulk_words(seed, epoch, stream, start, count).tolist() == expected


def test_bulk_words_start_anywhere_at_once():
    far = 4 * 10**15
    assert bulk_words(1, 2, 3, far, 4).tolist() == philox((10**15 + 1, 0, 0, 3), (1, 2))


@given(seed=WORD, epoch=st.integers(0, 2**32), position=st.integers(0, 2**60), index=st.integers(-5, 2**60))
def test_a_samples_words_are_philox_of_its_place(seed, epoch, position, index):
    with Scope().begin(seed, epoch) as scope:
        scope.enter(position, index)
        for place, count in enumerate([3, 1, 6]):
            stream = Stream.TRANSFORM.word(place)
            blocks = [philox((b, index & MASK, position, stream), (seed, epoch)) for b in (1, 2)]
            assert words(count) == (blocks[0] + blocks[1])[:count]
        user = philox((1, index & MASK, position, Stream.USER.word()), (seed, epoch))
        assert rng().bit_generator.random_raw(4).tolist() == user
        kept = philox((1, index & MASK, position, Stream.GLOBAL.word()), (seed, epoch))[0]
        assert scope.global_seed() == kept


def test_streams_share_no_word():
    streams = [kind.word(detail) for kind in Stream for detail in (0, 1, 2**32 - 1)]
    assert len(set(streams)) == len(streams)
    drawn = [word for stream in streams for word in bulk_words(0, 0, stream, 0, 8).tolist()]
    assert len(set(drawn)) == len(drawn)


def test_every_part_of_the_key_matters():
    def first(seed, epoch, position, index):
        scope = Scope()
        scope.begin(seed, epoch)
        scope.enter(position, index)
        return scope.words(1)[0]

    places = [
        (0, 0, 0, 0),
        (1, 0, 0, 0),
        (0, 1, 0, 0),
        (0, 0, 1, 0),
        (0, 0, 0, 1),
        (0, 0, 0, "a"),
        (0, 0, 0, "b"),
    ]
    assert len({first(*place) for place in places}) == len(places)


def test_an_index_of_any_integer_type_is_the_same_sample():
    scope = Scope()
    drawn = []
    for index in (3, np.int64(3), np.uint8(3)):
        scope.enter(0, index)
        drawn.append(scope.words(2))
    assert drawn[0] == drawn[1] == drawn[2]


def test_a_samples_words_do_not_depend_on_what_was_drawn_before():
    scope = Scope()
    scope.begin(1, 2)
    scope.enter(5, 5)
    alone = scope.words(3)
    scope.enter(4, 4)
    scope.words(7)
    scope.rng().normal(size=3)
    scope.global_seed()
    scope.enter(5, 5)
    assert scope.words(3) == alone


# ------------------------------------------------------------------------------------------------- numbers


@given(drawn=st.lists(WORD, min_size=1), bound=st.integers(1, 2**32) | st.integers(1, 2**64 - 1))
def test_numbers_are_the_same_from_a_word_and_from_an_array(drawn, bound):
    array = np.array(drawn, dtype=np.uint64)
    assert uniform(array).tolist() == [uniform(word) for word in drawn]
    assert below(array, bound).tolist() == [below(word, bound) for word in drawn]


@given(word=WORD, bound=st.integers(1, 2**70))
def test_numbers_stay_in_their_range(word, bound):
    assert 0 <= uniform(word) < 1
    assert 0 <= below(word, bound) < bound


def test_the_ends_of_the_ranges():
    assert uniform(0) == 0
    assert uniform(MASK) == 1 - 2**-53
    assert below(0, 10) == 0
    assert below(MASK, 10) == 9
    assert below(np.array([MASK], dtype=np.uint64), MASK).tolist() == [MASK - 1]


@pytest.mark.parametrize("bound", [0, -1, 2**64])
def test_a_bound_that_would_overflow_is_refused(bound):
    message = rf"bound must be from 1 to 2\*\*64 - 1 for an array of words, got {bound}"
    with pytest.raises(ValueError, match=message):
        below(np.zeros(1, dtype=np.uint64), bound)


# --------------------------------------------------------------------------------------------------- seeds


@pytest.mark.parametrize("seed", [0, 2**64 - 1, np.int64(5), np.uint64(2**64 - 1)])
def test_a_checked_seed_is_a_plain_integer(seed):
    assert seeding.checked_seed(seed) == int(seed)
    assert type(seeding.checked_seed(seed)) is int


def test_wrong_seeds_are_refused():
    for seed in (1.0, "1", None, True):
        with pytest.raises(TypeError, match=rf"seed must be an integer from 0 to 2\*\*64 - 1, got {seed!r} \("):
            seeding.checked_seed(seed)
    for seed in (-1, 2**64):
        with pytest.raises(ValueError, match=rf"split must be an integer from 0 to 2\*\*64 - 1, got {seed}"):
            seeding.checked_seed(seed, "split")


def test_a_drawn_seed_is_repeatable_under_python_random():
    random.seed(0)
    drawn = [seeding.draw_seed(), seeding.draw_seed()]
    random.seed(0)
    assert drawn == [seeding.draw_seed(), seeding.draw_seed()]
    assert drawn[0] != drawn[1]
    assert all(0 <= seed < 2**63 for seed in drawn)


def test_a_shared_seed_is_nought_without_a_process_group():
    assert seeding.shared_seed() == 0


def test_a_shared_seed_is_the_first_ranks_draw():
    distributed = torch.distributed
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        random.seed(0)
        drawn = seeding.shared_seed()
    finally:
        distributed.destroy_process_group()
    random.seed(0)
    assert drawn == seeding.draw_seed()


@pytest.mark.parametrize("is_initialized", [False, True])
def test_a_shared_seed_is_the_generators_draw_where_there_is_one(is_initialized):
    distributed = torch.distributed
    if is_initialized:
        distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        assert seeding.shared_seed(random.Random(3)) == seeding.seed_from(random.Random(3))
        with pytest.raises(TypeError, match=r"generator must be a random\.Random"):
            seeding.shared_seed("a generator")
    finally:
        if is_initialized:
            distributed.destroy_process_group()


GENERATORS = [
    random.Random,
    np.random.default_rng,
    lambda seed: np.random.Generator(np.random.MT19937(seed)),
    lambda seed: torch.Generator().manual_seed(seed),
]


@pytest.mark.parametrize("make", GENERATORS)
def test_a_seed_from_a_generator_is_its_next_draw(make):
    generator = make(3)
    drawn = [seeding.seed_from(generator) for _ in range(20)]
    again = make(3)
    assert drawn == [seeding.seed_from(again) for _ in range(20)]
    assert len(set(drawn)) == 20
    assert all(type(seed) is int and 0 <= seed < 2**63 for seed in drawn)
    assert max(drawn) > 2**60


@pytest.mark.parametrize("make", GENERATORS)
def test_a_seed_from_a_generator_leaves_global_state(make):
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    seeding.seed_from(make(0))
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_a_seed_from_anything_else_is_refused():
    for generator in (42, np.random, None):
        message = f"generator must be a .*, got {type(generator).__name__}; give an integer as seed="
        with pytest.raises(TypeError, match=message):
            seeding.seed_from(generator)


# -------------------------------------------------------------------------------------------------- scopes


def test_nested_scopes_put_back_the_one_before():
    def outer_words(*, nest):
        with Scope().begin(1, 0) as outer:
            outer.enter(10, 10)
            drawn = words(2)
            noise = rng().normal()
            if nest:
                with Scope().begin(2, 5) as inner:
                    inner.enter(0, 0)
                    assert words(2) != drawn
                    with Scope().begin(3, 0):
                        rng().normal()
                    assert seeding._current.scope is inner
                assert seeding._current.scope is outer
            return drawn, noise, words(2), rng().normal()

    assert outer_words(nest=True) == outer_words(nest=False)
    assert seeding._current.scope is None


def test_a_scope_ends_with_an_error_too():
    with pytest.raises(KeyError), Scope().begin(1, 0):
        raise KeyError
    assert seeding._current.scope is None


def test_a_scope_begins_clean():
    """Whatever a batch before has drawn."""
    with Scope().begin(1, 0):
        fresh = words(1), rng().normal()
    with Scope().begin(1, 0):
        assert (words(1), rng().normal()) == fresh


def test_rng_is_one_generator_until_the_next_sample():
    with Scope().begin(1, 0) as scope:
        scope.enter(3, 3)
        generator = rng()
        assert rng() is generator
        first = generator.normal(size=2).tolist()
        assert rng().normal(size=2).tolist() != first
        scope.enter(3, 3)
        assert rng().normal(size=2).tolist() == first


def test_outside_a_loader_numbers_come_from_python_random():
    def draw():
        return words(3), rng().normal(), rng().normal()

    random.seed(7)
    drawn = draw()
    assert drawn != draw()
    assert drawn[1] != drawn[2]
    random.seed(7)
    assert draw() == drawn


def test_threads_have_scopes_of_their_own():
    """Two threads interleave inside their scopes and draw what each draws alone."""

    def draw(seed, meet):
        with Scope().begin(seed, 0) as scope:
            drawn = []
            for position in range(5):
                scope.enter(position, position)
                meet()
                drawn.append((words(2), rng().normal()))
                meet()
            return drawn

    alone = [draw(seed, lambda: None) for seed in (1, 2)]
    barrier = threading.Barrier(2, timeout=30)
    together = [None, None]

    def run(place):
        together[place] = draw(place + 1, barrier.wait)

    threads = [threading.Thread(target=run, args=(place,)) for place in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert together == alone
    assert alone[0] != alone[1]


# --------------------------------------------------------------------------------------- global generators


def draw_globally():
    return random.random(), np.random.random(), torch.rand(2).tolist(), random.gauss(0, 1), np.random.normal()


def test_global_generators_are_put_back_exactly():
    """Also the spare normal number that `random` and NumPy keep between two draws."""
    random.gauss(0, 1)
    np.random.normal()
    states = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()
    with GlobalGenerators() as generators:
        generators.seed(3)
        draw_globally()
    assert random.getstate() == states[0]
    assert repr(np.random.get_state(legacy=False)) == repr(states[1])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1]["state"]["key"])
    assert torch.equal(torch.get_rng_state(), states[2])


def test_global_generators_are_put_back_after_an_error():
    state = random.getstate()
    with pytest.raises(KeyError), GlobalGenerators() as generators:
        generators.seed(3)
        raise KeyError
    assert random.getstate() == state


@given(seed=WORD)
def test_global_generators_are_seeded_from_one_number(seed):
    with GlobalGenerators() as generators:
        generators.seed(seed)
        first = draw_globally()
        draw_globally()
        generators.seed(seed)
        assert draw_globally() == first
        generators.seed(seed ^ 1)
        assert all(a != b for a, b in zip(draw_globally(), first, strict=True))
