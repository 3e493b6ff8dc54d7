"""Which packages the server of forked processes shall import ahead, so that workers need not.

Guarantee: a guess and no more: a package that is missed is imported by each worker when it needs it, one that is there
in vain costs the time of one import. Nothing is imported here, and no code of the user's runs.
"""

from __future__ import annotations

import re
import sys
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

__all__ = ["needed"]

_TEXT = re.compile(rb"\x8c.([A-Za-z_][\w.]*)", re.DOTALL)  # a short text, as pickles hold names of modules
_NAMED = (type, ModuleType, FunctionType, BuiltinFunctionType)
_LOOKED_AT = 1 << 20  # bytes: what refers to code stands before the data


def needed(payload: bytes | memoryview, packages: tuple[str, ...]) -> list[str]:
    """Those of ``packages`` that this process has and that a pickle refers to: itself, or through code that uses them.

    Example:
        >>> import pickle, textwrap
        >>> needed(pickle.dumps(textwrap.dedent, 5), ("re", "json"))
        ['re']
    """
    names = {match.decode() for match in _TEXT.findall(payload[:_LOOKED_AT])}
    roots = {name.partition(".")[0] for name in names & sys.modules.keys()}
    modules = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] in roots]
    return [
        package
        for package in packages
        if package in sys.modules
        and (package.partition(".")[0] in roots or any(_uses(module, package) for module in modules))
    ]


def _uses(module: Any, package: str) -> bool:
    """Whether something of a package stands in a module's namespace."""
    root = package.partition(".")[0]
    inside = root + "."
    for value in list(vars(module).values()) if type(module) is ModuleType else ():
        if not issubclass(type(value), _NAMED):  # others may run code when they are asked
            continue
        home = value.__name__ if type(value) is ModuleType else value.__module__
        if isinstance(home, str) and (home == root or home.startswith(inside)):
            return True
    return False
