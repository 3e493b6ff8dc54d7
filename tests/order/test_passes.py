"""Laws of a sampler's passes: each is an epoch of it, and a virtual epoch has passes of its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedline import RandomSampler, StratifiedBatchSampler
from feedline.order.passes import Passes, pass_order


@given(st.integers(0, 2**64 - 1), st.integers(0, 99))
def test_the_first_pass_of_a_virtual_epoch_is_that_epoch_and_all_differ(seed, epoch):
    of = Passes(RandomSampler(range(50)))
    found = [of.virtual(seed, epoch, number).take(0, 50).tolist() for number in range(3)]
    found += [of.virtual(seed, epoch + 1, number).take(0, 50).tolist() for number in range(3)]
    assert found[0] == RandomSampler(range(50)).order(seed, epoch).take(0, 50).tolist()
    assert all(sorted(taken) == list(range(50)) for taken in found)
    assert len(set(map(tuple, found))) == 6


def test_what_a_sampler_of_the_users_yields_has_no_known_pass():
    assert pass_order(iter([1, 2]), 0, 0) is None


@pytest.mark.parametrize("number", [0, 3])
def test_a_pass_is_the_epoch_of_its_number_without_what_fills_the_last_batch(number):
    sampler = RandomSampler(range(20))
    assert pass_order(sampler, 1, number).take(0, 20).tolist() == sampler.order(1, number).take(0, 20).tolist()
    stratified = StratifiedBatchSampler([place % 3 for place in range(40)], 16, group_size=6).sampler
    found, epoch = pass_order(stratified, 1, number), stratified.order(1, number)
    assert found.length < epoch.length
    assert found.take(0, found.length).tolist() == epoch.take(0, found.length).tolist()
