"""Which modules a worker can import: what others define travels by value.

Guarantee: the answer for a module is the same for as long as this process lives. Nothing is imported.
"""

from __future__ import annotations

import sys
from functools import cache

__all__ = ["is_findable"]


@cache
def is_findable(name: str) -> bool:
    """Whether ``import name`` would find a module, also in a process that has not imported it yet.

    Not so where it was made by hand, or loaded from a file that is on no path: by a test runner, say.

    Example:
        >>> import types
        >>> sys.modules["made_by_hand"] = types.ModuleType("made_by_hand")
        >>> is_findable("made_by_hand"), is_findable("feedline.errors")
        (False, True)
        >>> del sys.modules["made_by_hand"]
    """
    parent = name.rpartition(".")[0]
    if parent and not is_findable(parent):
        return False
    path = getattr(sys.modules.get(parent), "__path__", None) if parent else None
    if parent and path is None:  # a name that a module gives to one of its own, as os.path
        return True
    for finder in sys.meta_path:
        try:
            if finder.find_spec(name, path) is not None:
                return True
        except Exception:  # noqa: BLE001 -- a finder of the user's; importing would say what is wrong with it
            return True
    return False
