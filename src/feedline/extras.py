"""Optional packages: one place that imports them, with an error that names the extra to install.

Guarantee: nothing is imported before it is asked for; an error within an installed package passes as it is.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["require"]


def require(module: str, *, extra: str, purpose: str) -> Any:
    """Import and return an optional module.

    Args:
        module: its import name, as ``"cv2"``.
        extra: the extra of the package ``feedline`` that installs it, as ``"image"``.
        purpose: what needs it, for the error.

    Raises:
        ImportError: it is not installed; the message says how to install it.

    Example:
        >>> require("no_such_module", extra="image", purpose="Resize")
        Traceback (most recent call last):
        ...
        ImportError: Resize needs no_such_module, which is not installed: pip install 'feedline[image]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        raise ImportError(
            f"{purpose} needs {module}, which is not installed: pip install 'feedline[{extra}]'", name=module
        ) from error
