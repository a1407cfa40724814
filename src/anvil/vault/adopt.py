"""Making a collected directory safe to be used again, in place."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from anvil.vault.disk import DIRECTORY
from anvil.vault.manifest import parent_of
from anvil.vault.scan import carried_attributes, open_entry, open_folder

if TYPE_CHECKING:
    from pathlib import Path

    from anvil.vault.collect import Cleaning


def clean(root: Path, cleaning: Cleaning, *, owner: int | None) -> None:
    """Bring a directory that was just collected into its layer's overlay form.

    Raises OSError for what cannot be done here (an ordinary user meets a closed folder): the directory is then to
    be discarded and made from the vault.
    """
    top = os.open(root, DIRECTORY)
    try:
        for path in cleaning.needless:
            _change_whiteout(top, path, cover=False, owner=owner)
        for path in cleaning.whiteouts:
            _change_whiteout(top, path, cover=True, owner=owner)
        for path in filter(None, cleaning.unclean):
            fd = open_entry(top, path)
            try:
                _strip(fd, owner)
            finally:
                os.close(fd)
        _strip(top, owner)
        os.fchmod(top, 0o755)
    finally:
        os.close(top)


def _strip(fd: int, owner: int | None) -> None:
    """Take from an entry all that is never kept; its times stay."""
    place = f"/proc/self/fd/{fd}"  # a path-only descriptor takes no other way, and this one leads nowhere else
    status = os.fstat(fd)
    is_link = stat.S_ISLNK(status.st_mode)
    if owner is not None and status.st_uid != owner:
        os.chown(place, owner, owner)
    if is_link:
        return
    if not stat.S_ISCHR(status.st_mode):
        os.chmod(place, status.st_mode & 0o777)
    for name in carried_attributes(place):
        os.removexattr(place, name)


def _change_whiteout(top: int, path: str, *, cover: bool, owner: int | None) -> None:
    """Put a whiteout at a path, or take it away; the folder's time stays."""
    folder = open_folder(top, parent_of(path))
    name = path.rpartition("/")[2]
    try:
        before = os.fstat(folder).st_mtime_ns
        if not cover:
            os.unlink(name, dir_fd=folder)
        else:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=folder)
            if owner is not None:
                os.chown(name, owner, owner, dir_fd=folder, follow_symlinks=False)
        os.utime(folder, ns=(before, before))
    finally:
        os.close(folder)
