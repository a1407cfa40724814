"""Checks of the file systems that a forge writes on: the home's and that of the artifacts. See preflight."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import stat
from typing import TYPE_CHECKING

from anvil.cortex.filesystem import filesystem_type, refuse_network
from anvil.errors import DiskFull, EnvironmentLack
from anvil.mainframe.doctor_machine import Doubt
from anvil.mainframe.home import LEAST_FREE, NEEDED
from anvil.vault.disk import foreign

if TYPE_CHECKING:
    from pathlib import Path

LEAST_INODES = 1_000
NEEDED_INODES = 300_000
"""The trees of the kernel and of four base images."""

_ELSEWHERE = "name a folder on another disk with --home DIR"


def space(home: Path) -> str | Doubt:
    """Free bytes and inodes where the home is. Raises DiskFull when there is too little to begin."""
    facts = os.statvfs(home)
    free = facts.f_bavail * facts.f_frsize
    if free < LEAST_FREE:
        raise DiskFull(
            f"only {free // 1_000_000} MB are free where Anvil's home is",
            where=str(home),
            hint=f"anvil vault gc frees what nobody needs; or free some space, or {_ELSEWHERE}",
        )
    if facts.f_files and facts.f_favail < LEAST_INODES:
        raise DiskFull(
            f"only {facts.f_favail} more files (inodes) fit where Anvil's home is",
            where=str(home),
            hint=f"remove files there (df -i tells how many there are), or {_ELSEWHERE}",
        )
    if free < NEEDED:
        return Doubt(
            message=f"{free / 1e9:.1f} GB are free; a forge of the ISO takes up to {NEEDED / 1e9:.0f} GB",
            where=str(home),
            hint=f"free some space, or {_ELSEWHERE}",
        )
    if facts.f_files and facts.f_favail < NEEDED_INODES:
        return Doubt(
            message=f"{facts.f_favail} more files (inodes) fit; a forge of the ISO makes up to {NEEDED_INODES}",
            where=str(home),
            hint=f"remove files there, or {_ELSEWHERE}",
        )
    return f"{free / 1e9:.1f} GB free at {home}"


def file_system(home: Path) -> str:
    """Whether the home's file system does what the vault and the cells ask of it. Raises EnvironmentLack.

    Tried, not looked up: links of both kinds, locks, modes, names that differ in case only; and the mount's flags.
    """
    refuse_network(str(home))
    flags = os.statvfs(home).f_flag
    if flags & os.ST_RDONLY:
        raise _refused(home, "is read-only", "sudo mount -o remount,rw MOUNTPOINT; or ")
    if flags & os.ST_NOEXEC:
        raise _refused(home, "lets no program be started (noexec)", "sudo mount -o remount,exec MOUNTPOINT; or ")
    trial = home / f".trial-{secrets.token_hex(8)}"
    try:
        trial.mkdir(mode=0o700)
    except PermissionError as problem:
        hint = f"chmod u+rwx {home}"
        raise EnvironmentLack(f"{problem.strerror} while trying to write", where=str(home), hint=hint) from problem
    except OSError as problem:
        raise foreign(problem, "trying to write", home) from problem
    try:
        _try(home, trial)
    except OSError as problem:
        raise foreign(problem, "trying what the file system can", home) from problem
    finally:
        shutil.rmtree(trial, ignore_errors=True)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        return f"{filesystem_type(os.path.realpath(home), mounts)}: links, locks, modes and names are as they must be"


def _try(home: Path, trial: Path) -> None:
    one = trial / "Name"
    fd = os.open(one, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fchmod(fd, 0o751)
        if stat.S_IMODE(os.fstat(fd).st_mode) != 0o751:
            raise _refused(home, "does not keep the modes of files")
    finally:
        os.close(fd)
    if (trial / "nAME").exists():
        raise _refused(home, "takes names that differ in case only for the same")
    for make, what in ((os.link, "hard links"), (os.symlink, "symbolic links")):
        try:
            make(one, trial / what)
        except OSError as problem:
            if problem.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise
            raise _refused(home, f"has no {what}") from problem


def _refused(home: Path, what: str, mend: str = "") -> EnvironmentLack:
    return EnvironmentLack(f"the home's file system {what}", where=str(home), hint=mend + _ELSEWHERE)


def output(folder: Path) -> str:
    """Whether artifacts can be put into that folder, which need not be there yet. Raises EnvironmentLack."""
    hint = "name a folder you may write with --output DIR"
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise EnvironmentLack(f"artifacts cannot be put into {folder}: {there} is not a folder", hint=hint)
    facts = os.statvfs(there)
    if facts.f_flag & os.ST_RDONLY:
        raise EnvironmentLack(f"artifacts cannot be put into {folder}: that file system is read-only", hint=hint)
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
        raise EnvironmentLack(f"artifacts cannot be put into {folder}: you may not write in {there}", hint=hint)
    if facts.f_blocks and facts.f_bavail * facts.f_frsize < LEAST_FREE:
        free = facts.f_bavail * facts.f_frsize // 1_000_000
        raise DiskFull(f"only {free} MB are free for artifacts at {there}", hint=f"free some space, or {hint}")
    return str(folder)
