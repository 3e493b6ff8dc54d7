"""Laws of bulk reads: what a dataset's gather or __getitems__ draws is keyed to its batch, and fails but once."""

import random

import numpy as np
import pytest

import feedline
from feedline import DataLoader, Dataset


def drawn(count):
    return np.array([[feedline.rng().random(), random.random(), np.random.rand()] for _ in range(count)])


class Columns(Dataset):
    """Draws in its bulk read from all that there is to draw from."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        raise AssertionError("gather is there")

    def gather(self, indices, out=None):
        return np.concatenate([indices[:, None].astype(float), drawn(len(indices))], axis=1)


class Bulk(Columns):
    gather = None

    def __getitems__(self, indices):
        return list(Columns.gather(self, np.array(indices)))


@pytest.mark.parametrize("kind", [Columns, Bulk])
def test_what_a_bulk_read_draws_is_keyed_to_its_batch(kind, same_global_generators):
    def loader(**how):
        return DataLoader(kind(), 3, shuffle=True, **how)

    straight = loader(seed=1)
    epochs = [[batch.tolist() for batch in straight] for _ in range(2)]
    numbers = [number for epoch in epochs for batch in epoch for row in batch for number in row[1:]]
    assert len(set(numbers)) == len(numbers) == 2 * 12 * 3
    interrupted = loader(seed=1)
    iterator = iter(interrupted)
    assert [next(iterator).tolist() for _ in range(2)] == epochs[0][:2]
    resumed = loader()
    resumed.load_state_dict(interrupted.state_dict())
    assert [batch.tolist() for batch in resumed] == epochs[0][2:]
    ranks = [[batch.tolist() for batch in loader(seed=1, shard=(rank, 2))] for rank in range(2)]
    assert [batch for pair in zip(*ranks, strict=True) for batch in pair] == epochs[0]


class Plain(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return index


class PlainColumns(Plain):
    def gather(self, indices, out=None):
        return indices + 0


class PlainBulk(Plain):
    def __getitems__(self, indices):
        return list(indices)


@pytest.mark.parametrize("kind", [Plain, PlainColumns, PlainBulk])
@pytest.mark.parametrize("policy", ["raise", "skip", "replace"])
def test_a_batch_transform_that_raises_is_called_once_and_its_error_is_raised(kind, policy):
    """It is no sample's fault: no sample is skipped for it, and nothing is counted."""
    batches, told = [], []

    def raises(batch):
        batches.append(batch.tolist())
        raise OSError("no luck")

    how = {"on_error": feedline.ErrorPolicy(policy, callback=told.append), "batch_transform": raises}
    iterator = iter(DataLoader(kind(), 2, **how))
    for number in range(2):
        with pytest.raises(OSError, match="no luck"):
            next(iterator)
        assert batches == [[0, 1], [2, 3]][: number + 1]
    assert not told
