import numpy as np
import pytest

from feedline.demo.network import Momentum, Network

INPUTS, HIDDEN, CLASSES, BATCH = 5, 7, 3, 4


@pytest.fixture
def network():
    """In float64, so that numerical differentiation has digits to spare, and with biases that are not zero."""
    network = Network(INPUTS, HIDDEN, CLASSES, seed=3)
    shift = np.random.default_rng(4)
    network.parameters = [parameter + shift.normal(0, 0.1, parameter.shape) for parameter in network.parameters]
    return network


@pytest.fixture
def batch():
    rng = np.random.default_rng(5)
    return rng.normal(size=(BATCH, INPUTS)), np.array([2, 0, 1, 2])


@pytest.mark.parametrize("place", range(4), ids=["w1", "b1", "w2", "b2"])
def test_gradients_are_those_of_numerical_differentiation(network, batch, place):
    _, gradients = network.gradients(*batch)
    parameter, step = network.parameters[place], 1e-6
    for index in np.ndindex(parameter.shape):
        value = parameter[index]
        parameter[index] = value + step
        above, _ = network.gradients(*batch)
        parameter[index] = value - step
        below, _ = network.gradients(*batch)
        parameter[index] = value
        assert gradients[place][index] == pytest.approx((above - below) / (2 * step), rel=1e-6, abs=1e-8)


def test_no_gradient_vanishes_here(network, batch):
    """Otherwise the comparison above would compare zeros."""
    _, gradients = network.gradients(*batch)
    assert all(np.abs(gradient).max() > 1e-3 for gradient in gradients)


def test_the_loss_is_the_cross_entropy_of_the_softmax_of_the_scores(network, batch):
    features, labels = batch
    powers = np.exp(network.scores(features))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    expected = -np.mean([np.log(probabilities[row, label]) for row, label in enumerate(labels)])
    assert network.gradients(features, labels)[0] == pytest.approx(expected, rel=1e-12)


def test_great_scores_do_not_overflow(network, batch):
    features, labels = batch
    loss, gradients = network.gradients(features * 1e6, labels)
    assert np.isfinite(loss)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_weights_are_the_seeds():
    first, again, other = (Network(INPUTS, HIDDEN, CLASSES, seed=seed).parameters for seed in (1, 1, 2))
    assert all((one == two).all() for one, two in zip(first, again, strict=True))
    assert (first[0] != other[0]).all()
    assert [parameter.dtype for parameter in first] == [np.float32] * 4


def test_momentum_is_polyaks_formula():
    """Twice by hand: 1 + (-0.1 * 2) = 0.8, then 0.8 + (0.9 * -0.2 - 0.1 * 3) = 0.32; in place."""
    position = np.array([1.0])
    descent = Momentum([position], learning_rate=0.1)
    descent.step([np.array([2.0])])
    assert position == pytest.approx([0.8])
    descent.step([np.array([3.0])])
    assert position == pytest.approx([0.32])
