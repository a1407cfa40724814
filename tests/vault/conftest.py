"""Vaults to try."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from anvil.vault import Layers, Vault, discard
from tests.vault.support import IS_ROOT, NOBODY

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    made = Vault(tmp_path / "vault")
    yield made
    made.generations.close()


@pytest.fixture
def layers(vault: Vault) -> Layers:
    return Layers(vault)


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A temporary folder that the unprivileged user owns."""
    path = Path(tempfile.mkdtemp(prefix="anvil-vault-"))
    if IS_ROOT:
        os.chown(path, NOBODY, NOBODY)
    yield path
    discard(path)
