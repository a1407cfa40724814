"""Statements, one per file, read once when first used."""

from __future__ import annotations

import os
from functools import cache

_FOLDER = os.path.dirname(__file__)


@cache
def sql(name: str) -> str:
    """Text of ``queries/NAME.sql``."""
    with open(os.path.join(_FOLDER, f"{name}.sql"), encoding="utf-8") as file:
        return file.read()
