"""How much disk a cell uses: looked at coarsely while it runs, counted when it has ended."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from anvil.cell.spec import CellSpec, Reason

EVERY = 0.5
"""Seconds between two looks at the file system's free space."""

PER_NAME = 1024
"""What each name counts at least, so that a flood of empty files ends too."""

FLOOR = 256 << 20
"""When the disk has less than this free, cells that write are ended with reason "disk"."""


class Meter:
    """Watches the folders that a cell writes into.

    The walk that counts exactly is made only when the file system's free space has shrunk by as much as the cell may
    still use, and never takes more than a twentieth of the time; and once when the cell has ended.
    """

    def __init__(self, spec: CellSpec) -> None:
        self._cap = spec.limits.output_bytes
        self._folders = [spec.work.upper] if spec.work else []
        self._folders += [spec.out] if spec.out else []
        self._due = time.monotonic() + EVERY
        self._walk_due = 0.0
        self._used = 0
        self._free, self._names = self._room()

    def look(self) -> Reason | None:
        """The broken limit, if it is time to look and one is broken."""
        now = time.monotonic()
        if now < self._due or not self._folders:
            return None
        self._due = now + EVERY
        free, names = self._room()
        shrunk = max(self._free - free, (self._names - names) * PER_NAME)
        if shrunk + self._used > self._cap and now > self._walk_due:
            self._used = usage(self._folders)
            self._walk_due = now + 20 * (time.monotonic() - now)
            self._free, self._names = free, names
        if self._used > self._cap:
            return "output"
        return "disk" if free < FLOOR else None

    def final(self) -> Reason | None:
        """The exact count, when the cell has ended."""
        return "output" if self._folders and usage(self._folders) > self._cap else None

    def _room(self) -> tuple[int, int]:
        if not self._folders:
            return 0, 0
        facts = os.statvfs(self._folders[0])
        return facts.f_bavail * facts.f_frsize, facts.f_favail


def usage(folders: Iterable[Path]) -> int:
    """Bytes on disk of everything in some folders (their own blocks not counted). Names that vanish are left out."""
    total = 0
    for folder in folders:
        for _, names, files, fd in os.fwalk(folder, onerror=None, follow_symlinks=False):
            for name in (*names, *files):
                try:
                    total += max(os.stat(name, dir_fd=fd, follow_symlinks=False).st_blocks * 512, PER_NAME)
                except OSError:
                    continue
    return total
