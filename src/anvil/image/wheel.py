"""The Python packages of the container's image that Debian does not have as Anvil needs them, each a pinned wheel.

A wheel is a zip file (PEP 427) whose members go into one folder. Nothing of it is run while it is unpacked.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anvil.errors import EnvironmentLack, HashMismatch, IntegrityError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

LOCK = Path(__file__).parent / "wheels.json"
MOST_BYTES = 256 * 1024 * 1024
EPOCH = 1_767_225_600
"""Every file's time (2026-01-01), as everywhere in what Anvil makes."""

_NAME = re.compile(r"[A-Za-z0-9_.-]+\.whl")
_KINDS = {0, stat.S_IFREG, stat.S_IFDIR}
_MEMBER = re.compile(r"[A-Za-z0-9_.+-]+(/[A-Za-z0-9_.+-]+)*/?")


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A pinned wheel. name: of its file, which says version, Python and platform."""

    name: str
    sha256: str
    size: int
    why: str


def read_lock(path: Path = LOCK) -> tuple[Wheel, ...]:
    """The wheels that the container's image needs. RecipeError when the lock is none."""
    try:
        rows = json.loads(path.read_bytes())["wheels"]
        found = tuple(Wheel(**row) for row in rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"the list of wheels cannot be read: {error}", where=str(path)) from error
    if not all(_NAME.fullmatch(wheel.name) and re.fullmatch("[0-9a-f]{64}", wheel.sha256) for wheel in found):
        raise RecipeError("a wheel has a file name and a sha256", where=str(path))
    return found


def digest(wheels: Sequence[Wheel]) -> str:
    """What the unpacked folder is kept by."""
    text = "".join(f"{wheel.sha256}\n" for wheel in wheels)
    return hashlib.sha256(f"anvil wheels 1\n{text}".encode()).hexdigest()


def verified(wheel: Wheel, path: Path) -> Path:
    """The path, if its bytes are the pinned ones. Raises HashMismatch."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wheel.sha256:
        raise HashMismatch(
            f"the wheel {wheel.name} is not the pinned one",
            where=str(path),
            hint="take another copy of it",
            detail=f"pinned {wheel.sha256}\nfound  {found}",
        )
    return path


def unpack(path: Path, folder: Path) -> None:
    """Unpack a wheel below a folder. Raises IntegrityError for members that a wheel of ours does not have."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > MOST_BYTES:
                raise IntegrityError("a wheel of more than 256 MiB", where=str(path))
            for member in members:
                kind = stat.S_IFMT(member.external_attr >> 16)
                parts = member.filename.split("/")
                if not _MEMBER.fullmatch(member.filename) or {".", ".."} & set(parts) or kind not in _KINDS:
                    raise IntegrityError(f"a wheel has no member like {member.filename!r}", where=str(path))
                if member.is_dir():
                    continue
                to = folder / member.filename
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(archive.read(member))
                to.chmod(0o644)
    except (zipfile.BadZipFile, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise EnvironmentLack(f"a wheel cannot be unpacked: {error.strerror}", where=str(folder)) from error
        raise IntegrityError(f"this is no wheel: {error}", where=str(path)) from error
    for parent, _, names in os.walk(folder, topdown=False):
        for name in (*names, "."):
            os.utime(os.path.join(parent, name), (EPOCH, EPOCH))
