"""Anvil's home: where the cortex, the vault, images and logs of a user's projects live."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anvil.errors import DiskFull, EnvironmentLack

if TYPE_CHECKING:
    from pathlib import Path

NEEDED = 8_000_000_000
"""Bytes that a forge of the ISO takes, with room to spare: the kernel's trees are kept twice."""

LEAST_FREE = 64 * 1024 * 1024
"""Below this many free bytes nothing is begun: SQLite and the logs need room to say what went wrong."""

_RESERVE = 8 * 1024 * 1024
_PLENTY = 1024 * 1024 * 1024
"""The reserve is made only where so many bytes are free."""


@dataclass(frozen=True, kw_only=True)
class Home:
    """Paths below one folder, 0700 and owned by the user who runs Anvil."""

    path: Path

    @classmethod
    def open(cls, path: Path, *, least_free: int = LEAST_FREE) -> Home:
        """Make the folders where they lack. Raises EnvironmentLack or DiskFull with the mend.

        From then on this process makes files that others may read: the home itself is closed to them, and a cell,
        which may be another user on the host, must be able to read what is bound into it, whatever the user's umask.
        """
        os.umask(0o022)
        home = cls(path=path)
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = path.lstat()
            if not stat.S_ISDIR(found.st_mode):
                raise EnvironmentLack(f"Anvil's home is not a folder: {path}", hint="name another with --home")
            if found.st_uid != os.geteuid():
                raise EnvironmentLack(
                    f"Anvil's home {path} belongs to uid {found.st_uid}, you are {os.geteuid()}",
                    hint="use that account, or name another folder with --home",
                )
            if stat.S_IMODE(found.st_mode) != 0o700:
                path.chmod(0o700)
            for folder in home.folders:
                folder.mkdir(exist_ok=True)
        except OSError as error:
            raise _translated(error, path) from error
        free = shutil.disk_usage(path).free
        if free < least_free:
            raise DiskFull(
                f"only {free // 1024 // 1024} MB are free where Anvil's home is ({path})",
                hint="anvil vault gc frees what nobody needs; or free some space, or name another disk with --home",
            )
        if free > _PLENTY and not home.reserve.exists():
            _set_aside(home.reserve)
        return home

    @property
    def reserve(self) -> Path:
        """Space set aside: ``anvil vault gc`` gives it back when the disk is full, to have room to work in."""
        return self.path / "reserve"

    @property
    def cortex(self) -> Path:
        """The database."""
        return self.path / "cortex.db"

    @property
    def vault(self) -> Path:
        """Everything kept by digest."""
        return self.path / "vault"

    @property
    def images(self) -> Path:
        """Base images, a folder per digest."""
        return self.path / "images"

    @property
    def cells(self) -> Path:
        """Staging of running cells, a folder each; whatever a dead worker left here is swept."""
        return self.path / "cells"

    @property
    def downloads(self) -> Path:
        """Unfinished downloads."""
        return self.path / "downloads"

    @property
    def workers(self) -> Path:
        """One locked file per living worker."""
        return self.path / "workers"

    @property
    def logs(self) -> Path:
        """What cards printed in the forges of late, byte for byte, a folder per forge."""
        return self.path / "logs"

    @property
    def jams(self) -> Path:
        """What jammed cards left, as they left it, a folder per deck (see ``mainframe.shellstate``)."""
        return self.path / "jams"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Those that every home has from the start."""
        return (self.images, self.cells, self.downloads, self.workers, self.language, self.logs, self.jams)

    @property
    def language(self) -> Path:
        """Copies of the recipe language for the evaluation cell, a folder per digest."""
        return self.path / "language"


def log_path(home: Home, deck: str, card: str) -> Path:
    """Where a card's output is written while it runs, and kept for the last forges."""
    return home.logs / deck / f"{_file_name(card)}.log"


def jam_path(home: Home, deck: str, card: str) -> Path:
    """Where a jammed card's state is kept until its deck is taken off the stack."""
    return home.jams / deck / _file_name(card)


def _file_name(card: str) -> str:
    return card.replace("/", ".").replace(":", ".")


def _set_aside(path: Path) -> None:
    with contextlib.suppress(OSError):  # another was first; and nothing that is begun now needs it
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, _RESERVE)
        finally:
            os.close(fd)


def _translated(error: OSError, path: Path) -> EnvironmentLack:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFull(f"no space left for Anvil's home at {path}", hint="free some space, or use --home DIR")
    return EnvironmentLack(
        f"Anvil's home at {path} cannot be used: {error.strerror}", hint="name a folder you may write with --home DIR"
    )
