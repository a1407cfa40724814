"""Make a configured tree a function of its lock: drop what a cell never reads, settle times, modes and owners.

The set-up scripts have run in the tree, so it is walked as something hostile: by descriptor, without following a
link; what is not a file, a directory or a link is removed, and set-id bits are dropped.
"""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from anvil.image.bootstrap import MOUNT_POINTS
from anvil.image.unpack import DIRECTORY, Tree

if TYPE_CHECKING:
    from collections.abc import Iterator

# Folders whose content no cell reads. The licence texts stay (usr/share/common-licenses).
EMPTIED = (
    "boot",
    "dev",
    "home",
    "media",
    "mnt",
    "opt",
    "proc",
    "root",
    "run",
    "srv",
    "sys",
    "tmp",
    "usr/share/bash-completion",
    "usr/share/bug",
    "usr/share/doc",
    "usr/share/doc-base",
    "usr/share/gdb",
    "usr/share/icons",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/pixmaps",
    "usr/share/zsh",
    "var/backups",
    "var/cache",
    "var/lib/anvil-bootstrap",
    "var/lib/dpkg",
    "var/lib/pam",
    "var/lib/systemd",
    "var/log",
    "var/tmp",
)
REMOVED = (
    "etc/.pwd.lock",
    "etc/apt/apt.conf.d",
    "etc/fstab",
    "etc/group-",
    "etc/gshadow",
    "etc/gshadow-",
    "etc/mtab",
    "etc/passwd-",
    "etc/resolv.conf",
    "etc/shadow",
    "etc/shadow-",
    "etc/subgid",
    "etc/subgid-",
    "etc/subuid",
    "etc/subuid-",
    "usr/sbin/policy-rc.d",
)
USER = "anvil:x:1000:1000:Anvil:/tmp/home:/bin/bash"
GROUP = "anvil:x:1000:"
WORKERS = 4


def tidy(root: str | os.PathLike[str], *, epoch: int, owner: int | None) -> None:
    """Settle the tree.

    epoch: the time, in seconds, given to whatever was made or changed after it was unpacked, and to every directory.
    owner: the uid and gid to give everything to; None leaves owners as they are (who is not root has no choice).
    """
    top = os.open(root, DIRECTORY)
    try:
        for path in EMPTIED:
            _empty(top, path)
        for path in REMOVED:
            _delete_at(top, path)
        _write_accounts(root, top)
        _settle(top, epoch, owner)
    finally:
        os.close(top)


def _write_accounts(root: str | os.PathLike[str], top: int) -> None:
    with Tree(root) as tree:
        for name in MOUNT_POINTS:
            os.close(tree.resolve(name, create=True))
        for name, line in (("passwd", USER), ("group", GROUP)):
            lines = [each for each in _read(top, f"etc/{name}").splitlines() if not each.startswith("anvil:")]
            # Debian's accounts have "*" or "x"; an "x" without a shadow file lets nobody in either.
            tree.write(f"etc/{name}", "".join(f"{each}\n" for each in [*lines, line]).encode())
        tree.write("etc/machine-id", b"")
        tree.write("etc/hostname", b"anvil\n")
        tree.write("etc/hosts", b"127.0.0.1 localhost anvil\n::1 localhost anvil\n")


def _read(top: int, path: str) -> str:
    folder, name = os.path.split(path)
    parent = _open_at(top, folder)
    if parent is None:
        return ""
    try:
        with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent), "rb") as file:
            return file.read(1 << 20).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(parent)


def _open_at(top: int, path: str) -> int | None:
    """A directory below top, or None when it is not one; never through a link."""
    descriptor = os.dup(top)
    for part in filter(None, path.split("/")):
        try:
            below = os.open(part, DIRECTORY, dir_fd=descriptor)
        except OSError:
            return None
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor


def _empty(top: int, path: str) -> None:
    folder = _open_at(top, path)
    if folder is None:
        return
    try:
        _clear(folder)
    finally:
        os.close(folder)


def _delete_at(top: int, path: str) -> None:
    folder, name = os.path.split(path)
    parent = _open_at(top, folder)
    if parent is None:
        return
    try:
        _delete(parent, name)
    finally:
        os.close(parent)


def _clear(folder: int) -> None:
    for name in os.listdir(folder):
        _delete(folder, name)


def _delete(parent: int, name: str) -> None:
    try:
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(info.st_mode):
        os.unlink(name, dir_fd=parent)
        return
    os.chmod(name, 0o700, dir_fd=parent)
    below = os.open(name, DIRECTORY, dir_fd=parent)
    try:
        _clear(below)
    finally:
        os.close(below)
    os.rmdir(name, dir_fd=parent)


def _settle(folder: int, epoch: int, owner: int | None) -> None:
    """Modes, times and owners of everything below an open directory, and of the directory itself."""
    for name in os.listdir(folder):
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        kind = stat.S_IFMT(info.st_mode)
        if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            os.unlink(name, dir_fd=folder)
            continue
        if owner is not None:
            os.chown(name, owner, owner, dir_fd=folder, follow_symlinks=False)
        if kind == stat.S_IFDIR:
            os.chmod(name, 0o755, dir_fd=folder)  # noqa: S103 -- a cell's user, not the owner, reads it
            below = os.open(name, DIRECTORY, dir_fd=folder)
            try:
                _settle(below, epoch, owner)
            finally:
                os.close(below)
            continue
        if kind == stat.S_IFREG:
            # After chown, which drops set-id bits as well. The cell's user is another than the owner: all may read.
            os.chmod(name, 0o755 if info.st_mode & 0o111 else 0o644, dir_fd=folder)
        settled = min(int(info.st_mtime), epoch)
        os.utime(name, (settled, settled), dir_fd=folder, follow_symlinks=False)
    if owner is not None:
        os.fchown(folder, owner, owner)
    os.fchmod(folder, 0o755)
    os.utime(folder, (epoch, epoch))


def give(root: str | os.PathLike[str], owner: int) -> None:
    """Give a whole tree to one uid (and the gid of that number)."""
    for folder, folders, files in os.walk(root):
        os.chown(folder, owner, owner, follow_symlinks=False)
        for name in folders + files:
            os.chown(os.path.join(folder, name), owner, owner, follow_symlinks=False)


def tree_lines(root: str | os.PathLike[str]) -> Iterator[str]:
    """The tree as sorted lines: path, type and mode, time, and the content's sha256 or a link's target.

    Owners are left out: they are root's or the user's, and nothing in a cell can tell.
    """
    paths = sorted(
        os.path.join(folder, name) for folder, folders, files in os.walk(root) for name in [*folders, *files]
    )
    top = os.fspath(root)
    with ThreadPoolExecutor(WORKERS) as pool:
        for path, content in zip(paths, pool.map(_content, paths, chunksize=64), strict=True):
            info = os.lstat(path)
            yield f"{os.path.relpath(path, top)!r} {info.st_mode:o} {int(info.st_mtime)} {content}"


def tree_digest(root: str | os.PathLike[str]) -> str:
    """The sha256 of ``tree_lines``: equal on any machine for equal locks."""
    digest = hashlib.sha256()
    for line in tree_lines(root):
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def _content(path: str) -> str:
    if os.path.islink(path):
        return os.readlink(path)
    if os.path.isdir(path):
        return "/"
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
