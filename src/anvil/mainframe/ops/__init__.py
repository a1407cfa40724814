"""The operations of cards, one module each: adding an operation adds a file."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, cast

from anvil.errors import RecipeError

if TYPE_CHECKING:
    from anvil.mainframe.context import Operation

HOST_OPS = ("fetch", "image")
"""Work of the host set: it runs no recipe's code and has workers of its own, so that downloads never wait for a
compiler."""


def operation(op: str) -> Operation:
    """The module that does ``op``. Raises RecipeError for one that does not exist."""
    try:
        if not re.fullmatch(r"[a-z_]+", op):
            raise ModuleNotFoundError(op)
        return cast("Operation", importlib.import_module(f"{__name__}.{op}"))
    except ModuleNotFoundError as error:
        raise RecipeError(f"no operation is called {op!r}") from error
