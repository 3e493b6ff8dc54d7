"""Laws of an epoch that is dealt batch by batch: a batch is one item, its samples keep their positions."""

import numpy as np
import pytest

from feedline.order.batched import BatchOrder, samples_of
from feedline.order.bucketed import TokenBuckets, TokenOrder
from feedline.order.plan import EpochPlan, Geometry
from feedline.order.sequence import SequentialOrder
from feedline.order.shard import Shard


def test_a_batch_that_repeats_has_positions_of_its_own():
    order = BatchOrder(TokenOrder(TokenBuckets.of(np.array([4, 4, 4]), 4, 0.0), shuffle=False, seed=1, epoch=0))
    plans = [EpochPlan(0, order, Geometry(1, shard=Shard(rank, 8))) for rank in range(8)]
    assert [len(plan) for plan in plans] == [1] * 8
    assert [plan[0].position for plan in plans] == list(range(8))
    assert [plan[0].indices.tolist() for plan in plans] == [[0], [1], [2], [0], [1], [2], [0], [1]]


def test_a_batch_that_an_epoch_does_not_have_is_an_index_error():
    order = BatchOrder(TokenOrder(TokenBuckets.of(np.array([4, 4]), 4, 0.0), shuffle=False, seed=1, epoch=0))
    with pytest.raises(IndexError, match="positions must satisfy 0 <= start <= stop <= 2"):
        order.batch(2)


def test_the_samples_of_an_order_are_itself_unless_it_is_of_batches():
    plain = SequentialOrder(3)
    tokens = TokenOrder(TokenBuckets.of(np.array([4, 4]), 4, 0.0), shuffle=False, seed=1, epoch=0)
    assert samples_of(plain) is plain
    assert samples_of(BatchOrder(tokens)) is tokens
