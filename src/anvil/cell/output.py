"""How much disk a cell uses: looked at coarsely while it runs, counted when it has ended."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from typing import TYPE_CHECKING

from anvil.cell.process import below

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from pathlib import Path

    from anvil.cell.spec import CellSpec, Reason

EVERY = 0.5
"""Seconds between two looks at the file system's free space."""

AT_LEAST_EVERY = 5.0
"""Seconds between two counts even when the disk has not shrunk: somebody else may have freed as much."""

PER_NAME = 1024
"""What each name counts at least, so that a flood of empty files ends too."""

DEEPEST = 256
"""How deep folders may lie in each other; more ends the cell with reason "output"."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

FLOOR = 256 << 20
"""When the disk has less than this free, cells that write are ended with reason "disk"."""


class Meter:
    """Watches the folders that a cell writes into.

    The walk that counts exactly is made when the file system's free space has shrunk by as much as the cell may still
    use, else seldom, and never takes more than a twentieth of the time; and once when the cell has ended.
    """

    def __init__(self, spec: CellSpec) -> None:
        self._cap = spec.limits.output_bytes
        self._folders = [spec.work.upper] if spec.work else []
        self._folders += [spec.out] if spec.out else []
        self._due = time.monotonic() + EVERY
        self._walk_due = 0.0
        self._walk_anyway = self._due + AT_LEAST_EVERY
        self._used = 0
        self._free, self._names = self._room()

    def look(self, first: int = 0) -> Reason | None:
        """The broken limit, if it is time to look and one is broken; ``first``: the cell's first process, if known."""
        now = time.monotonic()
        if now < self._due or not self._folders:
            return None
        self._due = now + EVERY
        free, names = self._room()
        shrunk = max(self._free - free, (self._names - names) * PER_NAME)
        if (shrunk + self._used > self._cap and now > self._walk_due) or now > self._walk_anyway:
            self._used = self._count() + (unlinked(below(first)) if first else 0)
            self._walk_due = now + 20 * (time.monotonic() - now)
            self._walk_anyway = max(self._walk_due, now + AT_LEAST_EVERY)
            self._free, self._names = free, names
        if self._used > self._cap:
            return "output"
        return "disk" if free < FLOOR else None

    def final(self) -> Reason | None:
        """The exact count, when the cell has ended."""
        return "output" if self._folders and self._count() > self._cap else None

    def _count(self) -> int:
        try:
            return usage(self._folders)
        except TooDeep:
            return self._cap + 1

    def _room(self) -> tuple[int, int]:
        if not self._folders:
            return 0, 0
        facts = os.statvfs(self._folders[0])
        return facts.f_bavail * facts.f_frsize, facts.f_favail


class TooDeep(Exception):
    """Folders lie deeper in each other than DEEPEST."""


def usage(folders: Iterable[Path]) -> int:
    """Bytes on disk of everything in some folders (their own blocks not counted).

    Follows no link and needs no path, so whatever the cell does meanwhile it stays inside. Names that vanish, and
    folders that may not be read, are left out. Raises TooDeep.
    """
    total = 0
    for folder in folders:
        waiting = [_entries(os.open(folder, _FOLDER))]
        try:
            while waiting:
                for name, is_folder, fd in waiting[-1]:
                    with contextlib.suppress(OSError):
                        total += max(os.stat(name, dir_fd=fd, follow_symlinks=False).st_blocks * 512, PER_NAME)
                        if is_folder:
                            below = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=fd)
                            waiting.append(_entries(below))
                            break
                else:
                    waiting.pop()
                if len(waiting) > DEEPEST:
                    raise TooDeep
        finally:
            for level in waiting:
                level.close()
    return total


def unlinked(pids: Iterable[int]) -> int:
    """Bytes on disk of the nameless files that some processes hold open."""
    files: dict[tuple[int, int], int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    facts = os.stat(f"/proc/{pid}/fd/{name}")
                    if facts.st_nlink == 0 and stat.S_ISREG(facts.st_mode):
                        files[facts.st_dev, facts.st_ino] = facts.st_blocks * 512
    return sum(files.values())


def _entries(fd: int) -> Generator[tuple[str, bool, int], None, None]:
    """(name, whether a folder, ``fd``) of a folder's entries; closes ``fd`` at the end."""
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                yield entry.name, entry.is_dir(follow_symlinks=False), fd
    finally:
        os.close(fd)
