"""Laws of the cursor: small, exact, and proof against damage."""

import json
import random
from dataclasses import replace

import pytest

from feedline.errors import FeedlineError, StateError
from feedline.order.cursor import Cursor

CURSOR = Cursor(
    seed=(1 << 64) - 1,
    epoch=10**6,
    position=96 * 10**12,
    origin=0,
    batch_size=32,
    world_size=1000,
    length=10**15,
    sampler="RandomSampler",
)


def test_a_state_is_json_under_a_kilobyte_and_comes_back_equal():
    text = json.dumps(CURSOR.to_state())
    assert len(text) < 1024
    assert Cursor.from_state(json.loads(text)) == CURSOR


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feedline": 2}, r"state\['feedline'\] must be 1, the version of the format, got 2"),
        ({"feedline": True}, r"state\['feedline'\] must be 1"),
        ({"epoch": -1}, r"state\['epoch'\] must be an integer from 0 to \d+, got -1"),
        ({"position": 1.5}, r"state\['position'\] must be an integer .* got 1.5"),
        ({"batch_size": 0}, r"state\['batch_size'\] must be an integer from 1 to"),
        ({"seed": 1 << 64}, r"state\['seed'\] must be an integer"),
        ({"epoch": 10**5000}, r"state\['epoch'\] must be an integer from 0 to \d+, got an integer of 16610 bits"),
        ({"feedline": 10**5000}, r"state\['feedline'\] must be 1, .* got an integer of 16610 bits"),
        ({"sampler": None}, r"state\['sampler'\] must be the name of a sampler, got None"),
        ({"sampler": "x" * 101}, r"state\['sampler'\] must be the name of a sampler"),
        ({"extra": 1}, r"state has fields that no version 1 state has: 'extra'"),
        ({"length": 5}, r"state\['position'\] is \d+, beyond state\['length'\], 5"),
        ({"origin": 97 * 10**12}, r"state\['origin'\] is \d+, beyond state\['position'\]"),
        ({"position": 7}, r"state\['position'\] is 7, not a whole number of steps of 32000 after state\['origin'\], 0"),
    ],
)
def test_damage_is_named(change, message):
    with pytest.raises(StateError, match=message):
        Cursor.from_state(CURSOR.to_state() | change)


@pytest.mark.parametrize("state", [None, [], "state", 3])
def test_a_state_is_a_mapping(state):
    with pytest.raises(StateError, match="state must be the dict that state_dict"):
        Cursor.from_state(state)


def test_twenty_thousand_mutated_states_raise_nothing_but_feedline_errors():
    random_ = random.Random(20)
    values = [None, True, -1, 0, 1, 2, 31, 1 << 63, 1 << 64, 1e308, float("nan"), "", "x" * 200, [], {}, [[]], b"\0"]
    text = bytearray(json.dumps(CURSOR.to_state()).encode())
    survivors = refusals = 0
    for _ in range(10_000):
        state = CURSOR.to_state()
        for _ in range(random_.randint(1, 3)):
            key = random_.choice([*state, "unknown", 3])
            if random_.random() < 0.2:
                state.pop(key, None)
            else:
                state[key] = random_.choice(values)
        mutated = bytearray(text)
        for _ in range(random_.randint(1, 4)):
            mutated[random_.randrange(len(mutated))] = random_.randrange(32, 127)
        states = [state]
        try:
            states.append(json.loads(mutated))
        except ValueError:
            states.append(bytes(mutated))
        for candidate in states:
            try:
                cursor = Cursor.from_state(candidate)
            except FeedlineError:
                refusals += 1
            else:
                survivors += 1
                assert Cursor.from_state(cursor.to_state()) == cursor
    assert survivors + refusals == 20_000
    assert survivors > 100
    assert refusals > 10_000


def test_a_state_of_another_size_of_data_says_that_the_sampler_is_alike():
    start = Cursor(1, 0, 0, 0, 4, 1, None, "Infinite(pass, population=11, RandomSampler)")
    with pytest.raises(
        StateError, match=r"it had \(of the same size, lengths, weights, labels and options\), or start"
    ):
        replace(start, sampler="Infinite(pass, population=10, RandomSampler)").resumed_by(start)
    with pytest.raises(StateError, match="with the sampler that it had, or start anew"):
        replace(start, sampler="RandomSampler").resumed_by(start)
