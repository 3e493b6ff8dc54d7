"""How values of a user's types become a batch: the registry behind `register_collate`.

Guarantee: the most specific registered class of a value's method resolution order decides; looking up changes
nothing. Registrations hold for this process alone: whoever starts workers hands `registrations` on to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    CollateValues = Callable[[list[Any]], Any]

__all__ = ["register_collate", "registered", "registrations"]

_registry: dict[type, CollateValues] = {}


def register_collate(cls: type, fn: CollateValues) -> Callable[[], None]:
    """Let `default_collate` make a batch of the values of one type by a function of the user's.

    A registration comes before the built-in handling, also for built-in types such as ``np.ndarray``. It
    holds for subclasses that are not registered themselves (``bool`` is one of ``int``), and for the virtual
    subclasses of an abstract class. Registering a type again replaces its function.

    Args:
        cls: the type of the values, wherever they stand in a sample.
        fn: takes the list of a batch's values, in the order of the samples, and returns their batch.

    Returns:
        A function that puts back what was registered for ``cls`` before.

    Raises:
        TypeError: ``cls`` is not a class, or ``fn`` cannot be called.

    Example:
        >>> from fractions import Fraction
        >>> from feedline.batching import default_collate
        >>> undo = register_collate(Fraction, lambda values: [float(value) for value in values])
        >>> default_collate([{"x": Fraction(1, 2)}, {"x": Fraction(1, 4)}])
        {'x': [0.5, 0.25]}
        >>> undo()
    """
    if not isinstance(cls, type):
        raise TypeError(f"cls must be a class, got {cls!r}; register the type of the values, not a value")
    if not callable(fn):
        raise TypeError(f"fn must be a function of a list of values, got {fn!r}")
    before = _registry.get(cls)
    _registry[cls] = fn

    def undo() -> None:
        if before is None:
            _registry.pop(cls, None)
        else:
            _registry[cls] = before

    return undo


def registered(value: object) -> CollateValues | None:
    """The function registered for the type of ``value``, or None."""
    if not _registry:
        return None
    for cls in type(value).__mro__:
        fn = _registry.get(cls)
        if fn is not None:
            return fn
    for cls, fn in registrations().items():  # abstract classes, whose virtual subclasses no order lists
        if isinstance(value, cls):
            return fn
    return None


def registrations() -> dict[type, CollateValues]:
    """All registrations of this process, for handing on to a worker's `register_collate`."""
    return dict(_registry)
