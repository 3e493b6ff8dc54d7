import dataclasses
import pickle
import random

import cloudpickle
import numpy as np
import pytest

from feedline import seeding, transforms
from feedline.transforms import (
    CenterCrop,
    Compose,
    Lambda,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomVerticalFlip,
    Resize,
    ToChannelsFirst,
    ToFloat,
)

IMAGE = np.random.default_rng(1).integers(0, 256, (16, 18, 3), np.uint8)

EVERY = [
    RandomHorizontalFlip(0.3),
    RandomVerticalFlip(layout="HWC"),
    RandomCrop(8, padding=(1, 2), padding_mode="reflect"),
    CenterCrop((4, 5)),
    Resize(9, interpolation="area"),
    RandomResizedCrop((6, 7), scale=(0.2, 0.9)),
    Normalize((0.1, 0.2, 0.3), 2),
    ToFloat(),
    ToChannelsFirst(),
    Lambda(np.negative),
    Compose([RandomHorizontalFlip(), Compose([ToFloat()])]),
]


def keyed(transform, image=IMAGE, seed=0, epoch=0, position=0, index=0):
    with seeding.Scope().begin(seed, epoch) as scope:
        scope.enter(position, index)
        return transform(image)


def test_members_are_applied_in_order():
    chain = Compose([lambda image: image + 1, lambda image: image * 10])
    assert chain(np.array([[1]])).tolist() == [[20]]


def test_empty_chain_is_identity():
    assert Compose([])(IMAGE) is IMAGE


def test_chain_of_chains_draws_as_the_flat_chain():
    parts = [RandomHorizontalFlip(), RandomCrop(10, padding=3), RandomVerticalFlip(), RandomCrop(5)]
    nested = Compose([Compose(parts[:2]), Compose([Compose(parts[2:])])])
    for position in range(20):
        flat = keyed(Compose(parts), position=position)
        np.testing.assert_array_equal(keyed(nested, position=position), flat)


@pytest.mark.parametrize("member", [3, None, "flip"])
def test_member_that_is_not_callable_is_named_by_index(member):
    with pytest.raises(TypeError, match=rf"transforms\[1\] must be callable, got {member!r}"):
        Compose([ToFloat(), member])


def test_single_callable_must_be_in_a_list():
    with pytest.raises(TypeError, match=r"transforms must be a sequence of callables, got ToFloat; put a single"):
        Compose(ToFloat())


def test_lambda_takes_a_callable():
    with pytest.raises(TypeError, match=r"fn must be callable, got 3"):
        Lambda(3)


def test_lambda_is_given_the_image_as_it_comes():
    image = object()
    assert Lambda(lambda given: given is image)(image)


# -------------------------------------------------------------------------------- randomness


AUGMENT = Compose([RandomHorizontalFlip(), RandomVerticalFlip(), RandomCrop(12, padding=3), RandomResizedCrop(7)])


def test_same_key_gives_the_same_bits():
    for position in range(20):
        first = keyed(AUGMENT, seed=1, epoch=2, position=position, index=9)
        np.testing.assert_array_equal(first, keyed(AUGMENT, seed=1, epoch=2, position=position, index=9))


@pytest.mark.parametrize("part", ["seed", "epoch", "position", "index"])
def test_each_part_of_the_key_changes_the_draws(part):
    results = {keyed(AUGMENT, **{part: value}).tobytes() for value in range(20)}
    assert len(results) == 20


def test_two_of_a_kind_in_a_chain_draw_apart():
    mirror = Compose([RandomHorizontalFlip(), RandomHorizontalFlip()])
    flipped = [(keyed(mirror, position=p) != IMAGE).any() for p in range(200)]
    assert 60 < sum(flipped) < 140


@pytest.mark.parametrize(
    ("never", "always"),
    [
        (RandomHorizontalFlip(0), RandomHorizontalFlip(1)),
        (RandomVerticalFlip(0), RandomVerticalFlip(1)),
        (RandomCrop((16, 18)), RandomCrop((16, 18), padding=0, padding_mode="edge")),
        (RandomHorizontalFlip(0), RandomResizedCrop((16, 18))),
    ],
)
def test_what_comes_of_one_draw_leaves_the_next_as_it_was(never, always):
    """Each random transform takes exactly one place in the chain; the others none."""
    last = RandomCrop(3)
    drawn = []

    class Spy:
        def __call__(self, image):
            drawn.append(last.draw(seeding.words(last.word_count), 16, 18))

    for position in range(10):
        keyed(Compose([never, ToFloat(), Spy()]), position=position)
        keyed(Compose([always, CenterCrop(9), Resize(4), Spy()]), position=position)
    assert drawn[::2] == drawn[1::2]
    assert len(set(drawn)) > 5


def test_global_generators_are_left_alone_within_a_loader():
    random.seed(3)
    np.random.seed(3)
    states = random.getstate(), np.random.get_state()[1].tobytes()
    keyed(AUGMENT)
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == states


# -------------------------------------------------------------------------------- promises


@pytest.mark.parametrize("transform", EVERY, ids=repr)
@pytest.mark.parametrize("module", [pickle, cloudpickle])
def test_pickling_gives_an_equal_transform_that_does_the_same(transform, module):
    again = module.loads(module.dumps(transform))
    assert again == transform
    assert repr(again) == repr(transform)
    image = IMAGE.astype(np.float32) if isinstance(transform, Normalize) else IMAGE
    np.testing.assert_array_equal(keyed(again, image), keyed(transform, image))


@pytest.mark.parametrize("transform", EVERY, ids=repr)
def test_transforms_are_frozen_and_hashable(transform):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(transform, dataclasses.fields(transform)[0].name, 1)
    assert {transform: 1}[transform] == 1


def test_every_public_transform_is_among_those_tested():
    assert {type(transform).__name__ for transform in EVERY} == set(transforms.__all__)


@pytest.mark.parametrize("transform", [t for t in EVERY if not isinstance(t, Lambda)], ids=repr)
def test_our_transforms_are_fit_for_threads_and_draw_from_no_global_generator(transform):
    assert transform.thread_safe is True
    assert transform.uses_global_rng is False


def test_of_a_function_that_says_nothing_the_worst_is_assumed():
    for chain in (
        Lambda(np.negative),
        Compose([ToFloat(), np.negative]),
        Compose([Compose([Lambda(np.negative)])]),
    ):
        assert chain.thread_safe is False
        assert chain.uses_global_rng is True


def test_what_a_function_declares_is_believed():
    def negative(image):
        return -image

    negative.thread_safe = True
    negative.uses_global_rng = False
    for chain in (Lambda(negative), Compose([ToFloat(), negative]), Compose([Lambda(negative)])):
        assert chain.thread_safe is True
        assert chain.uses_global_rng is False


def test_empty_chain_promises_all():
    assert Compose([]).thread_safe is True
    assert Compose([]).uses_global_rng is False
