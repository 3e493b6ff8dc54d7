from __future__ import annotations

import random
from collections import OrderedDict
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import feedline
from feedline.insight.held import held_generators, kept

MODULES = random.Random(3)

GENERATORS = [
    lambda: random.Random(0),
    lambda: np.random.default_rng(0),
    lambda: np.random.RandomState(0),
    lambda: np.random.PCG64(0),
    lambda: torch.Generator().manual_seed(0),
]


class Holder:
    def __init__(self, **attributes):
        vars(self).update(attributes)


class Point(NamedTuple):
    x: int
    y: Any


class Slotted:
    __slots__ = ("empty", "held")


class Reads:
    def __getitem__(self, index):
        return MODULES.random()


def paths(value):
    return [path for path, _ in held_generators({"dataset": value})]


def keyword(*, source):
    return lambda sample, rng=source: rng.random() + sample


@pytest.mark.parametrize("make", GENERATORS)
def test_each_kind_of_generator_is_found(make):
    generator = make()
    assert held_generators({"dataset": Holder(rng=generator)}) == [("dataset.rng", generator)]


def held_places(rng):
    slotted = Slotted()
    slotted.held = rng
    cell = lambda sample: sample + rng.random()
    point = Point(1, Holder(rng=rng))
    return [
        (Holder(a=Holder(b=rng)), "dataset.a.b"),
        ([0, [rng]], "dataset[1][0]"),
        (point, "dataset[1].rng"),
        (OrderedDict(a={"b": rng}), "dataset['a']['b']"),
        (slotted, "dataset.held"),
        (cell, "dataset.rng"),
        (keyword(source=rng), "dataset[0]"),
        (partial(cell, 1), "dataset.rng"),
        (partial(len, rng), "dataset[0]"),
        (partial(len, x=rng), "dataset.x"),
        (rng.random, "dataset"),
        (feedline.TensorDataset(np.zeros(3)).map(cell).cache(), "dataset.dataset.fn.rng"),
        (feedline.transforms.Compose([cell]), "dataset.transforms[0].fn.rng"),
    ]


@pytest.mark.parametrize("place", range(len(held_places(random.Random(0)))))
def test_a_generator_is_found_by_its_path(place):
    rng = random.Random(0)
    value, path = held_places(rng)[place]
    found = held_generators({"dataset": value})
    assert [generator for _, generator in found] == [rng]
    if place != 12:  # how a chain keeps its members is its own business
        assert found[0][0] == path


def test_a_variable_of_the_module_is_found_where_a_method_that_reads_uses_it():
    assert paths(Reads()) == ["dataset.MODULES"]
    assert paths(lambda: MODULES.random() + 1) == ["dataset.MODULES"]


def test_the_generators_that_all_share_are_none():
    shared = [random.random, np.random.rand, random, np.random, torch.default_generator, random.SystemRandom()]
    assert paths(shared) == []
    assert paths(lambda: random.random() + np.random.rand() + torch.rand(1)) == []


def test_our_own_rng_is_none():
    rng = feedline.rng
    with feedline.seeding.Scope().begin(0, 0) as scope:
        scope.enter(0, 0)
        rng().random()
        assert paths([lambda sample: sample + rng().normal(), rng, feedline.default_collate]) == []


def test_each_is_found_once_and_circles_end():
    rng = random.Random(0)
    ring = [rng, rng]
    ring.append(ring)
    assert paths(Holder(ring=ring, again=rng)) == ["dataset.again"]


def test_no_property_is_read():
    class Loud:
        @property
        def rng(self):
            raise AssertionError("read")

        def __getattr__(self, name):
            raise AssertionError(name)

    class LoudSlots:
        __slots__ = ()

        def __getattr__(self, name):
            raise AssertionError(name)

    class LoudList(list):
        def __iter__(self):
            raise AssertionError("iterated")

    assert paths([Loud(), LoudList([Holder(rng=random.Random(0))]), LoudSlots()]) == ["dataset[1][0].rng"]


def test_millions_of_objects_are_not_all_looked_at():
    deep = None
    for _ in range(50_000):
        deep = [deep, Holder()]
    assert paths([deep, list(range(10**6))]) == []


@pytest.mark.parametrize("make", GENERATORS)
def test_generators_are_put_back(make):
    def draw(generator):
        if isinstance(generator, np.random.BitGenerator):
            return generator.random_raw()
        return (
            float(torch.rand((), generator=generator)) if isinstance(generator, torch.Generator) else generator.random()
        )

    generator, other = make(), make()
    with pytest.raises(KeyError), kept([generator]):
        draw(generator)
        raise KeyError
    assert draw(generator) == draw(other)


def test_a_closure_that_is_not_filled_yet_holds_nothing():
    def reads():
        return later

    assert paths(reads) == []
    later = random.Random(0)
    assert paths(reads) == ["dataset.later"]
