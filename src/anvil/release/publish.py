"""Artifacts into the output folder: the file and its human JSON beside it, each in one step or not at all."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anvil.errors import DiskFull, EnvironmentLack, OutputForbidden

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

PUBLISHED_TIME = 1_767_225_600
"""Every artifact's file time (2026-01-01 UTC, as in the cells): a file with another one was touched since."""


WRITER_NAME = 200
"""So many characters of a file's name are in that of its temporary file (see vault.plant.export_file)."""


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

    The sidecar vouches for the file: it is taken away before the file changes and is written last, so one that is
    there belongs to the file beside it, whenever the machine stopped. Two forges take turns.

    write: makes the artifact's bytes at a path that does not exist yet. Raises OutputForbidden for a name that leads
    out of the folder, DiskFull or EnvironmentLack; then what was there before is still there.
    """
    target = folder / _plain(artifact.name)
    try:
        _refuse_detour(folder, target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _turn(folder) as alone:
            if alone:
                _sweep(target)
            return _place(artifact, target, write)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFull(
                f"no space left for {target}", hint="free some space; everything forged is kept, only copying is left"
            ) from error
        raise EnvironmentLack(
            f"{target} cannot be written: {error.strerror}", hint="name another folder with --output DIR"
        ) from error


def is_laid(artifact: Artifact, folder: Path) -> bool:
    """Whether ``publish`` would find both there already. Raises as it does for a name or a link that leads out."""
    target = folder / _plain(artifact.name)
    _refuse_detour(folder, target)
    return _is_there(target, artifact)


def _plain(name: str) -> str:
    if "\0" in name or not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise OutputForbidden(f"{name!r} is no name for an artifact", hint="a relative path without '.' and '..'")
    return name


def _refuse_detour(folder: Path, target: Path) -> None:
    """The output folder may be reached by a link; from there on no link may lead out of it."""
    try:
        inside = target.parent.resolve().is_relative_to(folder.resolve())
    except RuntimeError:  # links in a ring, as Python 3.11 says it
        inside = False
    if not inside:
        raise EnvironmentLack(f"a link in {folder} leads {target} elsewhere", hint="remove the link, or use --output")


@contextmanager
def _turn(folder: Path) -> Iterator[bool]:
    """Hold the folder for this forge alone; False where its file system knows no locks (some network ones)."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        alone = True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP}:
                raise
            alone = False
        yield alone
    finally:
        os.close(fd)


def _sweep(target: Path) -> None:
    """Remove what a killed forge left of this artifact: the fresh file, and what its writer made beside that."""
    fresh = f".{target.name}."
    stale = re.compile(
        rf"{re.escape(fresh)}[0-9a-f]{{8}}|\.{re.escape(fresh[:WRITER_NAME])}[0-9a-f]{{,8}}\.anvil-[0-9a-f]{{12}}"
    )
    for path in target.parent.iterdir():
        if stale.fullmatch(path.name):
            path.unlink()


def _place(artifact: Artifact, target: Path, write: Callable[[Path], None]) -> bool:
    if _is_there(target, artifact):
        return False
    beside = target.with_name(f"{target.name}.json")
    fresh, account = (target.with_name(f".{target.name}.{secrets.token_hex(4)}") for _ in range(2))
    try:
        write(fresh)
        fresh.chmod(0o755 if artifact.executable else 0o644)
        os.utime(fresh, (PUBLISHED_TIME, PUBLISHED_TIME))
        _sync(fresh)
        account.write_bytes(artifact.sidecar())
        _sync(account)
        beside.unlink(missing_ok=True)
        _sync(target.parent)  # or the disk could keep the new file and the old account
        fresh.replace(target)
        _sync(target.parent)
        account.replace(beside)
        _sync(target.parent)
    finally:
        fresh.unlink(missing_ok=True)
        account.unlink(missing_ok=True)
    return True


def _is_there(target: Path, artifact: Artifact) -> bool:
    return _unchanged(target, artifact) and _holds(target.with_name(f"{target.name}.json"), artifact.sidecar())


def _unchanged(target: Path, artifact: Artifact) -> bool:
    try:
        found = target.lstat()
    except FileNotFoundError:
        return False
    return (
        stat.S_ISREG(found.st_mode)
        and found.st_size == artifact.size
        and int(found.st_mtime) == PUBLISHED_TIME
        and bool(found.st_mode & 0o100) == artifact.executable
    )


def _holds(path: Path, data: bytes) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == len(data) and path.read_bytes() == data


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
