"""Laws of verifying: a state that resumes is explained; any other file is one line that says what is wrong with it."""

import copy
import json
import random
from collections import UserList

import pytest

from feedline import (
    DataLoader,
    InfiniteDataLoader,
    LengthBucketBatchSampler,
    RandomSampler,
    Shard,
    StratifiedBatchSampler,
)
from feedline.cli import main
from feedline.errors import StateError
from feedline.insight.verifying import explained, verified
from feedline.order.cursor import Cursor

MIDDLE = Cursor(42, 3, 25_600, 0, 32, 8, 60_000, "RandomSampler")


def saved(tmp_path, content):
    path = tmp_path / "state.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def rows(cursor):
    """The table of an explanation, by name, and the rest in one line."""
    table, *notes = explained(cursor).split("\n\n")
    found, name = {}, ""
    for line in table.splitlines():
        name = line[2:13].strip() or name
        found[name] = f"{found.get(name, '')} {line[13:].strip()}".strip()
    return found, " ".join(" ".join(notes).split())


def test_a_state_in_the_middle_of_an_epoch(tmp_path):
    assert verified(saved(tmp_path, MIDDLE.to_state())).startswith(f"{tmp_path}/state.json: a valid state")
    table, notes = rows(MIDDLE)
    assert table == {
        "order": "RandomSampler, seed 42",
        "epoch": "3 (the first is 0)",
        "batches": "32 samples on each of 8 ranks: 256 a step",
        "delivered": "25,600 of 60,000 samples (42.6%), in 100 steps",
        "left": "34,400 samples: 134 steps and one of 96 unless drop_last",
    }
    assert "goes on with step 100. With another batch size" in notes
    assert "the same 34,400 samples" in notes


def test_a_state_at_the_end_of_an_epoch_says_that_nothing_is_left():
    table, notes = rows(Cursor(42, 3, 60_000, 0, 32, 8, 60_000, "RandomSampler"))
    assert table["delivered"] == "60,000 of 60,000 samples (100.0%), in 235 steps"
    assert table["left"] == "nothing of this epoch"
    assert "its end was not seen: the next loop of a loader that takes this state has nothing left" in notes
    assert "begins epoch 4." in notes


def test_not_all_is_never_100_percent():
    assert "(99.9%)" in rows(Cursor(1, 0, 9_999_999, 0, 1, 1, 10_000_000, "RandomSampler"))[0]["delivered"]


def test_a_state_after_an_elastic_resume_counts_steps_from_there():
    table, _ = rows(Cursor(42, 0, 26_176, 25_600, 48, 4, 60_000, "RandomSampler"))
    assert table["delivered"].endswith("in 3 steps since sample 25,600")
    assert table["resumed"].startswith("at sample 25,600 with this batch size and these ranks")


def test_a_state_of_what_is_still_out_is_of_one_rank():
    cursor = Cursor(1, 0, 320, 0, 32, 1, 1_000, "list", None, (2, 4, 5, 6, 7, 8))
    table, notes = rows(cursor)
    assert table["still out"] == "steps 2, 4, 5, 6, 7 and 1 more, which in_order=False let others overtake"
    assert table["delivered"].endswith("but for those still out")
    assert "of one rank alone" in notes
    assert "then goes on with step 10; others are refused" in notes
    assert rows(Cursor(1, 0, 64, 0, 32, 1, 64, "list", None, (0,)))[0]["left"] == "the steps still out"


def test_a_state_of_unknown_length_says_so():
    table, notes = rows(Cursor(None, 0, 64, 0, 32, 1, None, "IterableDataset"))
    assert table["order"] == "IterableDataset, seed not drawn yet"
    assert table["delivered"] == "64 samples, of a number that is not known, in 2 steps"
    assert "the rest of them" in notes


def test_a_state_of_an_endless_loader_tells_of_its_loop():
    loader = InfiniteDataLoader(range(10), 4, batches_per_epoch=3, shuffle=True, seed=0)
    for _ in range(2):
        list(loader)
    next(iter(loader))
    table, notes = rows(Cursor.from_state(loader.state_dict()))
    assert table["delivered"] == "28 samples of the passes laid end to end, in 1 step since sample 24"
    assert table["left"] == "passes over the data without end; batches_per_epoch says where the epoch ends"
    assert "resumed" not in table
    assert "goes on with the rest of them" in notes


@pytest.mark.parametrize(
    ("how", "item"),
    [
        ({"batch_sampler": LengthBucketBatchSampler([3] * 10, 2)}, "sample"),
        ({"batch_sampler": LengthBucketBatchSampler([3] * 10, max_tokens=6)}, "item"),
        ({"batch_sampler": StratifiedBatchSampler([0, 1] * 5, 2)}, "sample"),
        ({"sampler": RandomSampler(range(10), num_samples=20)}, "sample"),
        ({"sampler": iter(range(10))}, "item"),
    ],
)
@pytest.mark.parametrize("kind", [DataLoader, InfiniteDataLoader])
def test_what_is_counted_is_called_samples_where_it_is_known_to_be(how, item, kind):
    if kind is InfiniteDataLoader and not hasattr(next(iter(how.values())), "__len__"):
        how = {"sampler": UserList(range(10))}
    loader = kind(range(10), **how)
    next(iter(loader))
    assert f" {item}" in rows(Cursor.from_state(loader.state_dict()))[0]["delivered"]


def test_a_beginning_an_empty_epoch_and_a_samplers_own_state():
    _, notes = rows(Cursor(1, 5, 0, 0, 32, 2, 100, "RandomSampler"))
    assert notes == "A loader that takes this state begins epoch 5, with any batch size and number of ranks."
    assert rows(Cursor(1, 5, 0, 0, 32, 2, 0, "RandomSampler"))[0]["delivered"] == "nothing: the epoch is empty"
    table, notes = rows(Cursor(1, 0, 1, 0, 1, 1, 2, "Mine", {"sampler": 1}))
    assert table["sampler"] == "has a state of its own, which it goes on from"
    assert table["batches"] == "1 item on one rank"
    assert notes.endswith("under a batch sampler a whole batch.")


def test_what_a_loader_saves_is_valid(tmp_path, capsys):
    loader = DataLoader(range(100), 8, shuffle=True, shard=Shard(1, 3, "exact"))
    for _ in loader:
        assert main(["verify", str(saved(tmp_path, loader.state_dict()))]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert f"seed {loader.seed}\n" in output.out


def test_states_among_the_values_of_a_checkpoint_are_found(tmp_path):
    checkpoint = {"model": [1.0], "train": MIDDLE.to_state(), "valid": MIDDLE.to_state(), "step": {"feed": 1}}
    text = verified(saved(tmp_path, checkpoint))
    assert text.count("a valid state of a Feedline loader") == 2
    assert 'state.json, "train": a valid' in text
    checkpoint["valid"]["epoch"] = -1
    with pytest.raises(StateError, match=r"state.json, \"valid\": state\['epoch'\] must be an integer"):
        verified(saved(tmp_path, checkpoint))


def test_states_are_found_at_any_depth_and_named_by_their_place(tmp_path):
    state = MIDDLE.to_state()
    nested = {"loops": {"fit": {"loaders": [state, state]}}, "weights": [[1.0, 2.0], {}], "last": state}
    text = verified(saved(tmp_path, nested))
    places = ["loops.fit.loaders[0]", "loops.fit.loaders[1]", "last"]
    assert [text.find(f'state.json, "{place}": a valid') >= 0 for place in places] == [True] * 3
    assert sorted(places, key=lambda place: text.find(f'"{place}"')) == places
    assert 'state.json, "[0]": a valid' in verified(saved(tmp_path, [state]))


def test_samples_are_counted_as_such_by_buckets_and_without_end():
    for name in ("LengthBucketBatchSampler(crc32=1, 256*2, shuffled)", "Infinite(pass, population=64, RandomSampler)"):
        table, notes = rows(Cursor(1, 0, 8, 0, 4, 1, None, name))
        assert table["delivered"].startswith("8 samples")
        assert "An item is" not in notes
    assert table["left"] == "passes over the data without end; batches_per_epoch says where the epoch ends"
    for name in ("LengthBucketBatchSampler(crc32=1, max_tokens=9, sorted)", "Infinite(pass, population=6, crc32=1)"):
        assert rows(Cursor(1, 0, 8, 0, 1, 1, None, name))[0]["delivered"].startswith("8 items")


def test_one_item_is_one_item():
    assert "goes on with the same 1 item, and" in rows(Cursor(1, 0, 2, 0, 2, 1, 3, "list"))[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"is no JSON file \(Expecting value: line 1 column 1 \(char 0\)\); write one by json.dump"),
        ("{", "is no JSON file"),
        ("9" * 5_000, r"is no JSON file \(ValueError\)"),
        ("[" * 100_000, r"is no JSON file \(RecursionError\)"),
        ("3", r"must hold the object that state_dict\(\) gave, got int"),
        ("[]", "holds no state of a loader"),
        ("{}", r"no object with the field 'feedline'; write loader.state_dict\(\) to it"),
        ({"model": {"weight": 1}}, "holds no state of a loader"),
        (MIDDLE.to_state() | {"position": 25_601}, r"state\['position'\] is 25601, not a whole number of steps"),
        (MIDDLE.to_state() | {"extra": 1}, "state has fields that no version 1 state has: 'extra'"),
        ({k: v for k, v in MIDDLE.to_state().items() if k != "feedline"}, r"state\['feedline'\] must be 1"),
        ({k: v for k, v in MIDDLE.to_state().items() if k != "epoch"}, r"state\['epoch'\] must be an integer"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, content, message, capsys):
    path = saved(tmp_path, content)
    with pytest.raises(StateError, match=message):
        verified(path)
    assert main(["verify", str(path)]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"feedline: error: {path}")
    assert output.err.count("\n") == 1


def test_what_is_nested_too_deeply_for_a_message_is_one_line(tmp_path):
    for depth in range(850, 1000, 3):
        state = json.dumps(MIDDLE.to_state()).replace('"feedline": 1', f'"feedline": {"[" * depth}{"]" * depth}')
        with pytest.raises(StateError, match=r"state.json(: state\['feedline'\] must|: .*nested too|.*RecursionError)"):
            verified(saved(tmp_path, state))


def test_a_file_that_is_not_there_or_no_text_is_one_line(tmp_path, capsys):
    assert main(["verify", str(tmp_path / "none.json")]) == 1
    assert capsys.readouterr().err == (
        f"feedline: error: {tmp_path}/none.json cannot be read: No such file or directory\n"
    )
    with pytest.raises(StateError, match="cannot be read: Is a directory"):
        verified(tmp_path)
    (tmp_path / "weights.pt").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(StateError, match=r"weights.pt is no JSON file \(UnicodeDecodeError\)"):
        verified(tmp_path / "weights.pt")


def test_a_name_does_nothing_to_the_terminal(tmp_path):
    text = verified(saved(tmp_path, MIDDLE.to_state() | {"sampler": "\x1b[2J\ud800é\n"}))
    assert "\\x1b[2J\\ud800\\xe9\\n, seed 42" in text
    assert text.isascii()


VALUES = (
    None,
    True,
    -1,
    0,
    1,
    7,
    2**63,
    2**64,
    2**200,
    0.5,
    float("nan"),
    "",
    "x",
    "\x1b",
    [],
    [0],
    [3, 1],
    {},
    {"a": []},
)


def mutated(state, random_):
    """The state, as text, after some accidents."""
    state = copy.deepcopy(state)
    for _ in range(random_.randint(1, 3)):
        name = random_.choice([*state, "more"])
        accident = random_.randrange(4)
        if accident == 0:
            state.pop(name, None)
        elif accident == 1 and isinstance(state.get(name), int):
            state[name] += random_.choice([-1, 1, 256, 10**9])
        else:
            state[name] = random_.choice(VALUES)
    text = json.dumps(state)
    if random_.random() < 0.2:
        at = random_.randrange(len(text))
        text = text[:at] + random_.choice(["", "]", '"', "\\", "9"]) + text[at + random_.randint(0, 5) :]
    return text if random_.random() < 0.9 else f'{{"loader": {text}}}'


def test_no_damage_gives_a_traceback(tmp_path, capsys):
    random_, path = random.Random(0), tmp_path / "state.json"
    states = [
        MIDDLE.to_state(),
        Cursor(None, 0, 0, 0, 1, 1, None, "IterableDataset").to_state(),
        Cursor(1, 0, 320, 0, 32, 1, 1_000, "list", {"sampler": 1, "head": []}, (2, 4)).to_state(),
    ]
    statuses = []
    for _ in range(2_000):
        path.write_text(mutated(random_.choice(states), random_))
        statuses.append(main(["verify", str(path)]))
        output = capsys.readouterr()
        assert (output.err.count("\n"), bool(output.out)) == ((0, True) if statuses[-1] == 0 else (1, False))
    assert {0, 1} == set(statuses)
