"""Laws of keys: all randomness is keyed by seed, epoch, position and index; global generators are put back."""

import functools
import random
import sys

import numpy as np
import pytest

import feedline
from feedline import default_collate
from feedline.engine.keys import Keys
from feedline.engine.policy import ErrorPolicy
from feedline.engine.task import Recipe


class Foreign:
    def __getitem__(self, index):
        return index


class Ours(Foreign):
    uses_global_rng = False


def user_collate(batch):
    return batch


def own_words(batch):
    return batch


own_words.uses_global_rng = False


def recipe(dataset=None, collate_fn=default_collate, batch_transform=None, seed=1):
    return Recipe(Foreign() if dataset is None else dataset, collate_fn, True, batch_transform, seed, ErrorPolicy())


def drawn():
    numbers = [random.random(), float(np.random.rand()), feedline.rng().random()]
    torch = sys.modules.get("torch")
    return [*numbers, float(torch.rand(()))] if torch else numbers


def draws(place, seed=1, epoch=0):
    with Keys(recipe(collate_fn=user_collate, seed=seed))(epoch) as keys:
        place(keys)
        return drawn()


PLACES = [
    lambda keys: keys.sample(0, 0),
    lambda keys: keys.sample(0, 1),
    lambda keys: keys.sample(1, 0),
    lambda keys: keys.sample(0, "name"),
    lambda keys: keys.batch(0),
    lambda keys: keys.batch(1),
]


def test_each_place_has_its_own_numbers_and_always_the_same():
    keyed = {}
    for name, place in enumerate(PLACES):
        for seed, epoch in [(1, 0), (1, 1), (2, 0)]:
            assert draws(place, seed, epoch) == draws(place, seed, epoch)
            keyed[name, seed, epoch] = draws(place, seed, epoch)
    for column in zip(*keyed.values(), strict=True):
        assert len(set(column)) == len(keyed)


def test_global_generators_are_put_back(same_global_generators):
    import torch

    before = torch.random.get_rng_state()
    with pytest.raises(KeyError), Keys(recipe())(0) as keys:
        keys.sample(0, 0)
        drawn()
        raise KeyError
    assert (torch.random.get_rng_state() == before).all()


@pytest.mark.parametrize(
    ("made", "samples", "batch"),
    [
        (recipe(Foreign()), True, False),
        (recipe(Ours()), False, False),
        (recipe([1, 2]), False, False),
        (recipe(np.arange(3)), False, False),
        (recipe([1], collate_fn=user_collate), False, True),
        (recipe([1], collate_fn=lambda batch: batch), False, True),
        (recipe([1], collate_fn=own_words), False, False),
        (recipe([1], collate_fn=functools.partial(default_collate)), False, False),
        (recipe([1], collate_fn=functools.partial(user_collate)), False, True),
        (recipe([1], batch_transform=user_collate), False, True),
        (recipe([1], batch_transform=feedline.transforms.Normalize(0, 1)), False, False),
    ],
)
def test_global_generators_are_seeded_only_where_code_may_draw_from_them(made, samples, batch):
    keys = Keys(made)
    assert (keys.seeds_samples, keys._seeds_batch) == (samples, batch)


def test_a_lambda_in_a_transform_of_ours_may_draw():
    compose = feedline.transforms.Compose([feedline.transforms.Lambda(lambda x: x + random.random())])
    assert Keys(recipe([1], batch_transform=compose))._seeds_batch


def test_keys_nest():
    with Keys(recipe())(0) as outer:
        outer.sample(3, 3)
        first = feedline.rng().random()
        with Keys(recipe(seed=9))(4) as inner:
            inner.sample(1, 1)
            drawn()
        second = feedline.rng().random()
    with Keys(recipe())(0) as keys:
        keys.sample(3, 3)
        generator = feedline.rng()
        assert [first, second] == [generator.random(), generator.random()]
