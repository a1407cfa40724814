"""Artifacts into the output folder: the file and its human JSON beside it, each in one step or not at all."""

from __future__ import annotations

import errno
import json
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anvil.errors import DiskFull, EnvironmentLack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

PUBLISHED_TIME = 1_767_225_600
"""Every artifact's file time (2026-01-01 UTC, as in the cells): a file with another one was touched since."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A released file and the account of what it was made from; digests are sha256, sizes bytes."""

    name: str
    sha256: str
    size: int
    kind: str
    executable: bool
    licence: str
    redistribution: str
    recipe: str
    cards: Sequence[Mapping[str, str]]
    sources: Sequence[Mapping[str, Any]]
    images: Mapping[str, Any]
    members: Mapping[str, int]
    verdicts: Sequence[Mapping[str, Any]]

    def sidecar(self) -> bytes:
        """The human JSON beside the artifact: the same artifact gives the same bytes."""
        data: dict[str, Any] = {
            "name": self.name,
            "sha256": self.sha256,
            "size": self.size,
            "kind": self.kind,
            "licence": self.licence,
            "recipe": self.recipe,
            "cards": list(self.cards),
            "sources": list(self.sources),
            "images": dict(self.images),
        }
        if self.redistribution:
            data["redistribution"] = self.redistribution
        if self.members:
            data["members"] = dict(self.members)
        if self.verdicts:
            data["verdicts"] = list(self.verdicts)
        return json.dumps(data, indent=2, ensure_ascii=False).encode() + b"\n"


def publish(artifact: Artifact, folder: Path, write: Callable[[Path], None]) -> bool:
    """Put an artifact and its sidecar into ``folder``; False when both are there already.

    write: makes the artifact's bytes at a path that does not exist yet. Raises DiskFull or EnvironmentLack; then
    what was there before is still there.
    """
    target = folder / artifact.name
    beside = folder / f"{artifact.name}.json"
    sidecar = artifact.sidecar()
    try:
        if _unchanged(target, artifact) and beside.is_file() and beside.read_bytes() == sidecar:
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}"
        try:
            write(temporary)
            temporary.chmod(0o755 if artifact.executable else 0o644)
            os.utime(temporary, (PUBLISHED_TIME, PUBLISHED_TIME))
            _sync(temporary)
            temporary.replace(target)
            temporary.write_bytes(sidecar)
            _sync(temporary)
            temporary.replace(beside)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(target.parent)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFull(
                f"no space left for {target}", hint="free some space; everything forged is kept, only copying is left"
            ) from error
        raise EnvironmentLack(
            f"{target} cannot be written: {error.strerror}", hint="name another folder with --output DIR"
        ) from error
    return True


def _unchanged(target: Path, artifact: Artifact) -> bool:
    try:
        found = target.stat()
    except FileNotFoundError:
        return False
    return found.st_size == artifact.size and int(found.st_mtime) == PUBLISHED_TIME


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
