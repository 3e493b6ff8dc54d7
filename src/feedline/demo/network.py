"""A small neural network in NumPy, and how it learns: what the demo feeds with batches.

Guarantee: everything is a function of the seed and of the batches, in their order. The backward pass is the exact
gradient of the loss; the tests compare it with numerical differentiation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from feedline.seeding import Stream, bulk_words, uniform

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating]

__all__ = ["Momentum", "Network"]


class Network:
    """Two layers: ``scores = relu(features @ w1 + b1) @ w2 + b2``, a score for each class.

    ``parameters`` are ``[w1, b1, w2, b2]``, float32. The weights begin at random, scaled so that what passes through
    the layers keeps its size (K. He et al., "Delving deep into rectifiers", 2015); the biases begin at zero.

    Args:
        inputs: features of an image.
        hidden: units between the two layers.
        classes: how many classes there are.
        seed: of the weights.

    Example:
        >>> network = Network(64, 128, 10, seed=0)
        >>> network.scores(np.zeros((32, 64), np.float32)).shape
        (32, 10)
    """

    def __init__(self, inputs: int, hidden: int, classes: int, *, seed: int) -> None:
        def weights(layer: int, rows: int, columns: int) -> Floats:
            """Uniform with variance 2 / rows (He et al., 2015)."""
            drawn = uniform(bulk_words(seed, layer, Stream.USER.word(), 0, rows * columns))
            values: Floats = (2 * drawn - 1) * np.sqrt(6 / rows)
            return values.reshape(rows, columns).astype(np.float32)

        self.parameters = [
            weights(0, inputs, hidden),
            np.zeros(hidden, np.float32),
            weights(1, hidden, classes),
            np.zeros(classes, np.float32),
        ]

    def scores(self, features: Floats) -> Floats:
        """A score for each class, (B, classes), of features (B, inputs): the greatest is the network's guess."""
        w1, b1, w2, b2 = self.parameters
        scores: Floats = np.maximum(features @ w1 + b1, 0) @ w2 + b2
        return scores

    def gradients(self, features: Floats, labels: NDArray[np.int64]) -> tuple[float, list[Floats]]:
        """The loss of a batch, and how it changes with each of the ``parameters``.

        The loss is the cross entropy between the labels, (B,), and the softmax of the scores, averaged over the batch.
        """
        w1, b1, w2, b2 = self.parameters
        rows = np.arange(len(labels))

        # Forward: from the features to the loss.
        hidden = np.maximum(features @ w1 + b1, 0)
        scores = hidden @ w2 + b2
        scores -= scores.max(axis=1, keepdims=True)  # changes no probability, and exp() cannot overflow
        log_probabilities = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        loss = -log_probabilities[rows, labels].mean()

        # Backward: from the loss to the parameters, by the chain rule.
        d_scores = np.exp(log_probabilities)
        d_scores[rows, labels] -= 1
        d_scores /= len(labels)
        d_hidden = (d_scores @ w2.T) * (hidden > 0)
        return float(loss), [
            features.T @ d_hidden,
            d_hidden.sum(axis=0),
            hidden.T @ d_scores,
            d_scores.sum(axis=0),
        ]


class Momentum:
    """Stochastic gradient descent with momentum (B. Polyak, 1964): each step goes on, in part, where the last one went.

    Args:
        parameters: the arrays to be changed, in place.
        learning_rate: how far a step goes along the gradient.
        momentum: how much of the last step is in the next one, from 0 to below 1.

    Example:
        >>> position = np.array([1.0])
        >>> descent = Momentum([position], learning_rate=0.1, momentum=0.5)
        >>> for _ in range(50):
        ...     descent.step([2 * position])  # the gradient of its square
        >>> bool(abs(position[0]) < 1e-6)
        True
    """

    def __init__(self, parameters: list[Floats], *, learning_rate: float, momentum: float = 0.9) -> None:
        self.parameters = parameters
        self.learning_rate = learning_rate
        self.momentum = momentum
        self._velocities = [np.zeros_like(parameter) for parameter in parameters]

    def step(self, gradients: list[Floats]) -> None:
        """Move the parameters against the gradients."""
        for parameter, velocity, gradient in zip(self.parameters, self._velocities, gradients, strict=True):
            velocity[...] = self.momentum * velocity - self.learning_rate * gradient
            parameter[...] += velocity
