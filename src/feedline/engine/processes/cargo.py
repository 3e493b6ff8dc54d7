"""What the workers were sent: the dataset and the functions, as they were at the beginning of an epoch.

Guarantee: an epoch gets the dataset as it is when the epoch is asked for. What did not change is sent once; what is
no longer needed is given up.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from feedline.engine.processes import messages
from feedline.engine.processes.deaths import fork_lock
from feedline.engine.processes.messages import Order
from feedline.engine.processes.shipping import Shipment, ship
from feedline.engine.task import Recipe
from feedline.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from feedline.engine.policy import ErrorPolicy
    from feedline.engine.processes.starting import Starter

__all__ = ["Cargo", "Kit"]


class Kit(NamedTuple):
    """What workers are sent once: all of a recipe that is the same from epoch to epoch, and how they are made ready."""

    dataset: Any
    collate_fn: Any
    batch_transform: Any
    worker_init_fn: Callable[[int], None] | None
    batched: bool
    seed: int
    on_error: ErrorPolicy
    registrations: dict[type, Any]

    @classmethod
    def of(cls, recipe: Recipe, init: Callable[[int], None] | None, registrations: dict[type, Any]) -> Self:
        """The kit for a recipe; the policy's callback stays behind: it is called in the parent."""
        policy = replace(recipe.policy, callback=None)
        functions = recipe.collate_fn, recipe.batch_transform, init
        return cls(recipe.dataset, *functions, recipe.batched, recipe.seed, policy, registrations)

    def recipe(self) -> Recipe:
        """The recipe, without the order of an epoch."""
        return Recipe(self.dataset, self.collate_fn, self.batched, self.batch_transform, self.seed, self.on_error)


class Cargo:
    """Shipments by number, and which of them holds the dataset as it is."""

    def __init__(self) -> None:
        self._shipments: dict[int, Shipment] = {}
        self._current: int | None = None
        self._made = 0

    def __getitem__(self, number: int) -> Shipment:
        return self._shipments[number]

    def is_current(self, number: int, kit: Kit) -> bool:
        """Whether a shipment holds what ``kit`` is now."""
        return number == self._current and self._shipments[number].matches(kit)

    def of(self, kit: Kit, starter: Starter) -> tuple[int, bool, Starter]:
        """The number of a shipment of what ``kit`` is now, whether it was made just now, and who starts its workers.

        Raises:
            CannotShip: a part of it cannot be sent.
            WorkerError: there is no shared memory for it.
        """
        try:
            number, is_new = self._of(kit, forked=starter.method == "fork")
            if is_new and (path := self._shipments[number].needs_fork) is not None:
                if not starter.may_fork:
                    self.forget()
                    raise fork_lock(path, starter.method)
                starter = starter.forking()
                self.forget()
                number, is_new = self._of(kit, forked=True)
        except (OSError, MemoryError) as error:
            raise WorkerError(f"the dataset could not be put into shared memory for the workers: {error!r}") from error
        return number, is_new, starter

    def _of(self, kit: Kit, *, forked: bool) -> tuple[int, bool]:
        if self._current is not None and self._shipments[self._current].matches(kit):
            return self._current, False
        shipment = ship(kit, name="", forked=forked)
        self._made += 1
        self._shipments[self._made] = shipment
        self._current = self._made
        return self._made, True

    def message(self, number: int) -> tuple[bytes, tuple[int, ...]]:
        """What is said to a worker that is sent a shipment, and the descriptors that go with it."""
        shipment = self._shipments[number]
        sizes = [block.nbytes for block in shipment.blocks]
        descriptors = tuple(block.descriptor for block in shipment.blocks)
        return messages.order(
            Order.SHIPMENT, number, shipment.payload, sizes, shipment.spans
        ), descriptors + shipment.descriptors

    def forget(self) -> None:
        """Take no shipment for current any more."""
        self._current = None

    def keep(self, used: Collection[int]) -> list[int]:
        """Give up all shipments but the current one and those in use; the numbers of those given up."""
        unused = [number for number in self._shipments if number != self._current and number not in used]
        for number in unused:
            self._shipments.pop(number).close()
        return unused

    def close(self) -> None:
        """Give up all of them."""
        self._current = None
        self.keep(())
