"""Balanced sampling draws each class equally often, whatever its labels are, resumes and shards."""

import json
import math
import re
from array import array
from collections import Counter, deque
from fractions import Fraction
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from feedline import DataLoader, Shard, WeightedRandomSampler
from feedline.order.balanced import class_weights

label = st.one_of(st.none(), st.integers(-3, 3), st.sampled_from(["a", "b", "1"]), st.tuples(st.integers(0, 1)))


# ----------------------------------------------------------------------------------------------------- weights


@given(st.lists(label, min_size=1, max_size=50))
def test_each_sample_weighs_one_over_the_count_of_its_class(labels):
    counts = Counter(labels)
    weights = class_weights(labels)
    assert weights.dtype == np.float64
    assert weights.tolist() == [1 / counts[label] for label in labels]


@pytest.mark.parametrize(
    "labels",
    [
        ["b", "a", "b", "c"],
        "bAbc",
        b"bAbc",
        (True, 0, 1, None),
        deque([2**70, -1, 2**70, 7]),
        array("d", [1.5, math.nan, 1.5, 0]),
        [(0, 1), (1,), (0, 1), ()],
        [math.nan, 1, float("nan"), "1"],
        [np.float32("nan"), 1.0, math.nan, 2.0],
        [Fraction(1, 2), 1, 0.5, 2],
        [np.int8(3), 4, 3.0, 5],
        [torch.tensor(3), torch.tensor(4), 3, torch.tensor(5)],
        [np.array(3), 4, np.array(3), 5],
        np.array([1, 0, 1, 2], dtype=np.uint8),
        np.array([1.5, math.nan, 1.5, 0]),
        np.array([math.nan, 1.5, math.nan, 0]),
        np.array(["b", "a", "b", "c"]),
        np.array(["b", None, "b", 3], dtype=object),
        np.array([math.nan, 1, float("nan"), "1"], dtype=object),
        np.array(["2020", "2021", "2020", "NaT"], dtype="datetime64[Y]"),
        np.array([7, 0, 5, 0, 7, 0, 6, 0])[::2],
        torch.tensor([1, 0, 1, 2]),
    ],
    ids=repr,
)
def test_labels_of_any_kind_are_told_apart_by_equality(labels):
    assert class_weights(labels).tolist() == [0.5, 1, 0.5, 1]


def test_a_number_and_its_text_are_different_classes():
    assert class_weights([1, "1", 1.0]).tolist() == [0.5, 1, 0.5]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_an_array_and_a_list_of_the_same_labels_weigh_the_same(labels):
    for other in (np.array(labels), np.array(labels, dtype=object), [str(label) for label in labels]):
        assert class_weights(other).tolist() == class_weights(labels).tolist()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "labels must hold at least one label, got none"),
        (np.array([]), "labels must hold at least one label, got none"),
        (np.zeros((2, 2)), "labels must be one-dimensional, one a sample, got shape (2, 2)"),
        (np.array(3), "labels must be one-dimensional, one a sample, got shape ()"),
        (torch.zeros(3, 1), "labels must be one-dimensional, one a sample, got shape (3, 1)"),
        (
            ["a", [1, 2]],
            "one-dimensional, one hashable label a sample, got a list at index 1: a tuple may stand for several labels",
        ),
        ([1, np.zeros(2)], "labels must be one-dimensional, one a sample, got a label of shape (2,) at index 1"),
        (
            [torch.zeros(1)],
            "labels must be one-dimensional, one a sample, got a label of shape (1,) at index 0",
        ),
        (3, "labels must be a one-dimensional sequence or array, one label a sample, got int: give a list of them"),
        ({"a": 1}, "labels must be a one-dimensional sequence or array, one label a sample, got dict: give a list"),
        ({1, 2}, "labels must be a one-dimensional sequence or array, one label a sample, got set: give a list"),
        (iter(range(2)), "one label a sample, got range_iterator: give a list of them in the order of the samples"),
    ],
)
def test_labels_that_are_no_labels_are_a_value_error(labels, message):
    for take in (class_weights, WeightedRandomSampler.balanced):
        with pytest.raises(ValueError, match=re.escape(message)):
            take(labels)


# ------------------------------------------------------------------------------------------------- the sampler


def test_a_balanced_epoch_is_as_long_as_there_are_labels_or_as_asked():
    assert len(WeightedRandomSampler.balanced("aab")) == 3
    sampler = WeightedRandomSampler.balanced("aab", 2, False)
    assert (len(sampler), sampler.replacement) == (2, False)
    assert WeightedRandomSampler.balanced("aab", num_samples=10).replacement is True
    with pytest.raises(ValueError, match="num_samples must be a positive integer, got 0"):
        WeightedRandomSampler.balanced("aab", 0)
    with pytest.raises(ValueError, match=r"num_samples must be at most the number of positive weights \(3\)"):
        WeightedRandomSampler.balanced("aab", 4, replacement=False)


def test_balanced_is_a_sampler_of_these_weights():
    balanced, weighted = WeightedRandomSampler.balanced("aabc", 50), WeightedRandomSampler([0.5, 0.5, 1, 1], 50)
    assert balanced.name == weighted.name
    assert balanced.order(3, 1).take(0, 50).tolist() == weighted.order(3, 1).take(0, 50).tolist()


def test_a_subclass_is_balanced_as_itself():
    class Own(WeightedRandomSampler):
        pass

    assert type(Own.balanced("ab")) is Own


def test_by_itself_a_balanced_sampler_takes_its_seed_from_its_generator(same_global_generators):
    def drawn():
        return list(WeightedRandomSampler.balanced("aabc", 50, generator=np.random.default_rng(3)))

    assert drawn() == drawn()


def test_classes_and_the_samples_of_each_come_equally_often():
    """Chi-square: 4 classes of 1 to 100,000 samples, a million draws."""
    sizes = np.array([100_000, 1_000, 10, 1])
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(4), sizes))
    drawn = WeightedRandomSampler.balanced(labels, 10**6).order(1, 0).take(0, 10**6)
    counts = np.bincount(labels[drawn], minlength=4)
    assert ((counts - 250_000) ** 2 / 250_000).sum() < 16.3  # 3 degrees of freedom: 0.1%
    in_third = np.bincount(drawn, minlength=len(labels))[labels == 2]
    assert ((in_third - in_third.mean()) ** 2 / in_third.mean()).sum() < 27.9  # 9 degrees of freedom: 0.1%


def test_without_replacement_the_first_draw_is_of_each_class_equally_often():
    labels = np.repeat([0, 1, 2], [12, 3, 1])
    sampler = WeightedRandomSampler.balanced(labels, replacement=False)
    first = np.bincount([labels[sampler.order(2, epoch).take(0, 1)[0]] for epoch in range(3_000)])
    assert ((first - 1_000) ** 2 / 1_000).sum() < 13.8  # 2 degrees of freedom: 0.1%


# -------------------------------------------------------------------------------------------------- the loader

KINDS = {
    "balanced": lambda n: WeightedRandomSampler.balanced(np.arange(n) % 3 % 2, 2 * n),
    "balanced distinct": lambda n: WeightedRandomSampler.balanced(np.arange(n) % 3 % 2, replacement=False),
    "skewed": lambda n: WeightedRandomSampler(2.0 ** np.arange(n), n),
    "distinct with zeros": lambda n: WeightedRandomSampler([0, *range(1, n), 0, 1e300], n, replacement=False),
    "a short distinct epoch": lambda n: WeightedRandomSampler(np.arange(1, 2 * n + 1), n, replacement=False),
}


def build(kind, length, size, **how):
    return DataLoader(np.arange(2 * length + 2), size, sampler=KINDS[kind](length), **{"seed": 7, **how})


def read(loader):
    return [batch.tolist() for batch in loader]


@pytest.mark.parametrize("kind", KINDS)
@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2), st.data())
@settings(max_examples=15)
def test_a_prefix_its_state_and_a_new_loader_yield_the_rest(kind, length, size, other, epoch, data):
    straight = build(kind, length, size)
    epochs = [list(chain(*read(straight))) for _ in range(epoch + 2)]
    loader = build(kind, length, size)
    loader.set_epoch(epoch)
    iterator = iter(loader)
    for _ in range(data.draw(st.integers(0, len(loader)), label="batches delivered")):
        next(iterator)
    text = json.dumps(loader.state_dict())
    assert len(text) < 1024
    resumed = build(kind, length, other, seed=None)
    position = min(loader.state_dict()["position"], len(epochs[epoch]))
    resumed.load_state_dict(json.loads(text))
    assert list(chain(*read(resumed))) == epochs[epoch][position:]
    assert list(chain(*read(resumed))) == epochs[epoch + 1]


@pytest.mark.parametrize("kind", KINDS)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 4))
@settings(max_examples=15)
def test_shards_are_complete_and_without_replacement_disjoint(kind, length, size, world):
    whole = list(chain(*read(build(kind, length, size))))
    ranks = [list(chain(*read(build(kind, length, size, shard=Shard(r, world, end="exact"))))) for r in range(world)]
    assert sorted(chain(*ranks)) == sorted(whole)
    if "distinct" in kind:
        assert len(set(chain(*ranks))) == len(whole)
