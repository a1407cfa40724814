"""The disk under a cortex: everything that is done to its files and not by SQLite itself."""

from __future__ import annotations

import os


class Disk:
    """The system's. A simulated or failing one takes its place in tests. vfs: the SQLite VFS that goes with it."""

    vfs = ""

    def make(self, path: str) -> bool:
        """Make an empty file that is the owner's alone; False if there is one already."""
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            # Not opened: closing a descriptor of an open database would drop SQLite's locks on it.
            return False
        return True

    def sync(self, path: str) -> None:
        """Return when a file's bytes, or a folder's names, are on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def replace(self, old: str, new: str) -> None:
        """Give a file another name, whatever has that name."""
        os.replace(old, new)

    def remove(self, path: str) -> None:
        """Remove a file if it is there."""
        try:
            os.remove(path)
        except FileNotFoundError:
            return
