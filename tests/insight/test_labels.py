from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import feedline
from feedline.insight.labels import come_in_blocks, kept_labels, label_of, spread_indices
from feedline.order.permutation import PermutedOrder
from feedline.order.sequence import SequentialOrder

LABELS = [0] * 30 + [2] * 30 + [1] * 30


@given(st.lists(st.integers(2, 30), min_size=2, max_size=8).filter(lambda counts: sum(counts) >= 20))
def test_classes_one_after_the_other_come_in_blocks(counts):
    labels = np.repeat(np.arange(len(counts))[::-1], counts)
    if sum(counts) - max(counts) > 4:  # with fewer, chance may do it
        assert come_in_blocks(labels)
        assert come_in_blocks([str(label) for label in labels])


@given(st.integers(0, 2**32), st.integers(2, 1000))
def test_labels_in_random_order_hardly_ever_do(seed, classes):
    labels = np.random.default_rng(seed).integers(0, classes, 100)
    assert not come_in_blocks(labels)


@pytest.mark.parametrize("labels", [[], [1], [1] * 100, [0, 1], [0, 0, 1, 1], list(range(100)), [0] * 99 + [1]])
def test_what_chance_explains_is_none(labels):
    assert not come_in_blocks(labels)


@pytest.mark.parametrize(
    ("sample", "label"),
    [
        (("image", 3), 3),
        (["image", "cat", 1], "cat"),
        ({"image": 1, "target": 2}, 2),
        ((0, np.int64(4)), 4),
        ((0, np.array(5)), 5),
        ((0, np.array([5])), 5),
        ((0, torch.tensor(6)), 6),
        ((0, 0.5), None),
        ((0, np.zeros(2, int)), None),
        ((0, None), None),
        (("image",), None),
        ({"image": 1}, None),
        (np.zeros((2, 2), int), None),
        (3, None),
    ],
)
def test_the_label_of_a_sample(sample, label):
    assert label_of(sample) == label
    assert type(label_of(sample)) is type(label)


class Labelled:
    def __init__(self, **columns):
        vars(self).update(columns)

    def __len__(self):
        return len(LABELS)

    def __getitem__(self, index):
        raise AssertionError("no sample is read")


ARRAY = np.array(LABELS)
DATASETS = [
    Labelled(targets=LABELS),
    Labelled(labels=ARRAY),
    Labelled(targets=torch.tensor(LABELS)),
    Labelled(labels=feedline.PackedList(map(str, LABELS))),
    feedline.TensorDataset(np.zeros((90, 2)), ARRAY),
    feedline.TensorDataset(np.zeros((90, 2)), torch.tensor(LABELS)).map(abs, key=0),
    torch.utils.data.TensorDataset(torch.zeros(90), torch.tensor(LABELS)),
    feedline.Subset(Labelled(targets=LABELS), range(90)).cache(),
    torch.utils.data.Subset(Labelled(targets=LABELS), list(range(90))),
]


@pytest.mark.parametrize("dataset", DATASETS)
def test_labels_that_are_kept_are_found(dataset):
    assert kept_labels(dataset, SequentialOrder(90), 90).astype(int).tolist() == LABELS


def test_labels_come_in_the_order_of_the_epoch_and_through_subsets():
    order = PermutedOrder(90, 1, 0)
    indices = order.take(0, 90)
    assert kept_labels(Labelled(targets=LABELS), order, 90).tolist() == ARRAY[indices].tolist()
    backwards = feedline.Subset(feedline.Subset(Labelled(targets=LABELS), range(89, -1, -1)), [0, 89])
    assert kept_labels(backwards, SequentialOrder(2), 2).tolist() == [LABELS[89], LABELS[0]]


@pytest.mark.parametrize(
    "dataset",
    [
        Labelled(targets=[0.5] * 90),
        Labelled(labels=[1, 2, 3]),
        Labelled(targets=np.zeros((90, 2), int)),
        Labelled(),
        Labelled(indices=0, dataset=3),
        feedline.TensorDataset(np.zeros((90, 2))),
        feedline.TensorDataset(np.zeros((90, 2)), np.zeros(90)),
    ],
)
def test_what_names_no_classes_is_no_label(dataset):
    assert kept_labels(dataset, SequentialOrder(90), 90) is None


def test_of_a_long_epoch_few_places_are_looked_at():
    labels = np.repeat(np.arange(1000), 10_000)
    found = kept_labels(Labelled(dataset=None, targets=labels), SequentialOrder(10**7), 10**7)
    assert found is None, "the lengths differ"
    places = spread_indices(SequentialOrder(10**7), 10**7, 512)
    assert (len(places), places[0], places[1], places[-1]) == (1024, 0, 1, 10**7 - 1)
    assert come_in_blocks(labels[places])


@given(st.integers(0, 200), st.integers(1, 20))
def test_spread_indices_lie_in_the_epoch(length, pairs):
    indices = spread_indices(SequentialOrder(length), length, pairs)
    assert len(indices) == (length if length <= max(2 * pairs, 2) else 2 * pairs)
    assert all(0 <= index < length for index in indices)
