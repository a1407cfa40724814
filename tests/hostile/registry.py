"""All attacks of the package: every module that has a tuple ``ATTACKS``."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

import tests.hostile

if TYPE_CHECKING:
    from tests.hostile.attack import Attack

_NOT_MODULES_OF_ATTACKS = ("test_", "conftest")


def all_attacks() -> dict[str, Attack]:
    """Every attack by its name, in the order of the modules' names."""
    found: dict[str, Attack] = {}
    for module in sorted(pkgutil.iter_modules(tests.hostile.__path__), key=lambda one: one.name):
        if module.name.startswith(_NOT_MODULES_OF_ATTACKS):
            continue
        for attack in getattr(importlib.import_module(f"tests.hostile.{module.name}"), "ATTACKS", ()):
            if attack.name in found:
                raise ValueError(f"two attacks are called {attack.name}")
            found[attack.name] = attack
    return found
