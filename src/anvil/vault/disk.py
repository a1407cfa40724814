"""What the standard library lacks of the kernel's file calls, and the door where foreign errors become ours.

Sources of the numbers: ``linux/fs.h`` (FICLONE), ``linux/openat2.h`` (resolve flags), ``asm-generic/unistd.h``.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import re
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from anvil.errors import AnvilError, DiskFull, EnvironmentLack

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 1 << 20
"""How much is read, hashed and written at a time."""

_FICLONE = 0x40049409
_SYS_OPENAT2 = 437
_RESOLVE_NO_XDEV = 0x01
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_ZEROS = bytes(CHUNK)
_DIRTY = re.compile(rb"^(?:Dirty|Writeback): *(\d+) kB$", re.MULTILINE)
_LITTLE_KIB = 4096
_libc = ctypes.CDLL(None, use_errno=True)

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
REGULAR = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
PATH_ONLY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


@contextmanager
def translated(doing: str, where: object = "") -> Iterator[None]:
    """Turn an ``OSError`` of the block into DiskFull (no space, inodes or quota) or EnvironmentLack."""
    try:
        yield
    except AnvilError:
        raise
    except OSError as problem:
        raise foreign(problem, doing, where) from problem


def foreign(problem: OSError, doing: str, where: object = "") -> AnvilError:
    """The error of ours that an ``OSError`` met while ``doing`` something is."""
    place = str(where) or str(problem.filename or "")
    if problem.errno in {errno.ENOSPC, errno.EDQUOT}:
        hint = "free some space, or name a larger disk with --home DIR"
        return DiskFull(f"the disk is full while {doing}", where=place, hint=hint)
    hint = "anvil doctor"
    if problem.errno == errno.EIO:
        hint = "the disk reports a fault: look at the kernel's log, then run: anvil vault verify"
    elif problem.errno == errno.EROFS:
        hint = "the file system is read-only: choose another home with --home"
    elif problem.errno == errno.EMFILE:
        hint = "raise the number of open files: ulimit -n 4096"
    return EnvironmentLack(f"{problem.strerror} while {doing}", where=place, hint=hint)


def sync_file_system(fd: int) -> None:
    """Make everything written to the file system of ``fd`` durable (syncfs(2))."""
    if _libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def little_is_dirty() -> bool:
    """Whether less than 4 MiB wait in memory to be written to any disk (Dirty and Writeback of proc_meminfo(5))."""
    try:
        with open("/proc/meminfo", "rb", buffering=0) as file:
            text = file.read(4096)
    except OSError:
        return False
    found = _DIRTY.findall(text)
    return len(found) == 2 and sum(map(int, found)) < _LITTLE_KIB


def open_directory(name: str, parent: int) -> int:
    """Open the directory ``name`` of the directory ``parent``: no link is followed, no mount is entered.

    Raises OSError: ELOOP or ENOTDIR for a link, EXDEV for a mount point.
    """
    resolve = _RESOLVE_NO_XDEV | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH
    how = _OpenHow(flags=DIRECTORY, mode=0, resolve=resolve)
    fd: int = _libc.syscall(_SYS_OPENAT2, parent, os.fsencode(name), ctypes.byref(how), ctypes.sizeof(how))
    if fd >= 0:
        return fd
    number = ctypes.get_errno()
    if number != errno.ENOSYS:
        raise OSError(number, os.strerror(number), name)
    # before Linux 5.6, or a filter that does not know the call: the weaker way sees other file systems only
    fd = os.open(name, DIRECTORY, dir_fd=parent)
    if os.fstat(fd).st_dev != os.fstat(parent).st_dev:
        os.close(fd)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
    return fd


def chmod_entry(name: str, parent: int, mode: int) -> None:
    """Change the mode of a file or directory that its own mode may forbid to open. A link is left as it is."""
    fd = os.open(name, PATH_ONLY, dir_fd=parent)
    try:
        if not stat.S_ISLNK(os.fstat(fd).st_mode):
            os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)


def extents(fd: int, size: int) -> Iterator[tuple[int, int, bool]]:
    """The (start, end, has data) pieces of a file, in order; one piece of data where holes are not known."""
    position = 0
    while position < size:
        try:
            data = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as problem:
            # ENXIO: nothing but a hole up to the end; anything else: this file system knows no holes
            yield position, size, problem.errno != errno.ENXIO
            return
        if data > position:
            yield position, min(data, size), False
        if data >= size:
            return
        end = min(os.lseek(fd, data, os.SEEK_HOLE), size)
        yield data, end, True
        position = end


def copy_and_hash(source: int, target: int, size: int, *, clone: bool = True) -> str:
    """Copy ``size`` bytes of a regular file into an empty one and return their sha256.

    The extents are shared where the file system can (FICLONE); holes stay holes. What is hashed is what was read
    from the source, or from the clone, whose bytes nobody else can change.
    """
    cloned = clone and size >= CHUNK and _reflink(source, target)
    hasher = hashlib.sha256()
    reader = target if cloned else source
    for start, end, has_data in extents(reader, size):
        if not has_data:
            _hash_zeros(hasher, end - start)
            continue
        for position, piece in _pieces(reader, start, end):
            hasher.update(piece)
            if not cloned:
                _write_at(target, piece, position)
    if not cloned:
        os.ftruncate(target, size)
    return hasher.hexdigest()


def hash_file(fd: int, size: int) -> str:
    """The sha256 of an open regular file of ``size`` bytes; holes are not read."""
    hasher = hashlib.sha256()
    for start, end, has_data in extents(fd, size):
        if not has_data:
            _hash_zeros(hasher, end - start)
            continue
        for _, piece in _pieces(fd, start, end):
            hasher.update(piece)
    return hasher.hexdigest()


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data`` at the file's position."""
    done = os.write(fd, data)
    while done < len(data):
        done += os.write(fd, memoryview(data)[done:])


def _pieces(fd: int, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """The bytes of a range with their positions."""
    while start < end:
        piece = os.pread(fd, min(CHUNK, end - start), start)
        if not piece:
            raise OSError(errno.ESTALE, "the file became shorter")
        yield start, piece
        start += len(piece)


def _write_at(fd: int, data: bytes, position: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, memoryview(data)[done:], position + done)


def _hash_zeros(hasher: hashlib._Hash, count: int) -> None:
    while count > 0:
        piece = min(count, CHUNK)
        hasher.update(memoryview(_ZEROS)[:piece])
        count -= piece


def _reflink(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True
