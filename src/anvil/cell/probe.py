"""Can a cell be made here; if not, why not, and what mends it."""

from __future__ import annotations

import errno
import os
import re
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from anvil.cell import kernel, limits, process, program, run
from anvil.cell.spec import HOST_UID, CellSpec, Limits, WorkTree
from anvil.errors import CellUnavailable

APPARMOR_PROFILE = """\
abi <abi/4.0>,
include <tunables/global>
profile anvil-cell {path} flags=(unconfined) {{
  userns,
}}
"""
"""For systems where AppArmor lets only named programs make user namespaces (Ubuntu 24.04 and later)."""


@dataclass(frozen=True, kw_only=True)
class Ability:
    """What the cells of this machine are like.

    bwrap: the program that makes them. fence: "cgroup2", "cgroup1" or "watchdog" (weaker: sampled). overlay: whether
    trees can be laid over each other without copying.
    """

    bwrap: str
    fence: str
    overlay: bool


def available(rootfs: Path, folder: Path, *, host_uid: int | None = None, bwrap: Path | None = None) -> Ability:
    """Make a cell of this base image and see it work; ``folder`` is where work trees will be.

    Raises CellUnavailable with the cause and the mend when none can be made.
    """
    found = program.find(rootfs, bwrap)
    refuse_if_forbidden(str(found.words[-1]))
    overlay = True
    try:
        _try(rootfs, folder, host_uid, bwrap, overlay=True)
    except CellUnavailable as error:
        if "overlay" not in f"{error.message} {error.detail}":
            raise
        _try(rootfs, folder, host_uid, bwrap, overlay=False)
        overlay = False
    return Ability(bwrap=str(found.words[-1]), fence=limits.survey().kind, overlay=overlay)


def refuse_if_forbidden(path: str, sysctl: Path = Path("/proc/sys")) -> None:
    """Raise CellUnavailable when the kernel's settings say that there can be no user namespace for bubblewrap."""
    if _setting(sysctl / "user/max_user_namespaces") == "0":
        raise CellUnavailable("user namespaces are switched off", hint="sudo sysctl -w user.max_user_namespaces=15000")
    if os.geteuid() == 0 and not _is_mapped(HOST_UID):
        raise CellUnavailable(
            f"this is root of a user namespace in which uid {HOST_UID}, as which cells run, is not mapped",
            hint="run it as yourself, outside of that namespace (leave unshare -r: exit), or in a container as a user "
            "other than root (--user 1000)",
        )
    if os.geteuid() != 0 and _setting(sysctl / "kernel/unprivileged_userns_clone") == "0":
        raise CellUnavailable(
            "user namespaces are switched off for ordinary users",
            hint="sudo sysctl -w kernel.unprivileged_userns_clone=1",
        )
    if _setting(sysctl / "kernel/apparmor_restrict_unprivileged_userns") == "1" and not _profile_loaded():
        raise CellUnavailable(
            "AppArmor lets only named programs make user namespaces, and bubblewrap is not one of them",
            where=path,
            hint="write the profile below to /etc/apparmor.d/anvil-cell, then: sudo apparmor_parser -r "
            "/etc/apparmor.d/anvil-cell",
            detail=APPARMOR_PROFILE.format(path=path),
        )


def refuse_if_blocked() -> None:
    """Raise CellUnavailable, with the cause, when a process of this user's cannot make a user namespace.

    Tried by a child: what the kernel's settings do not tell is a filter of system calls around a container, a limit of
    a namespace that this one is in, a chroot, or a kernel without them (unshare(2), "ERRORS").
    """
    child = process.fork_worker(_unshare, quiet=True)
    child.reap()
    code = child.exit_code or 0
    if code == 0:
        return
    if code == errno.EPERM and _status("Seccomp") == "2":
        raise CellUnavailable(
            "a seccomp filter around this process forbids user namespaces: a container's, most likely",
            hint="start the container with --security-opt seccomp=unconfined (Docker, Podman), or run Anvil outside",
        )
    if code == errno.ENOSPC:
        raise CellUnavailable(
            "no more user namespaces may be made: a limit of this namespace, or of one around it, is reached",
            hint="sudo sysctl -w user.max_user_namespaces=15000, also outside of the container",
        )
    if code in {errno.EINVAL, errno.ENOSYS}:
        raise CellUnavailable(
            "this kernel has no user namespaces (CONFIG_USER_NS)", hint="start a kernel that has them: Debian's does"
        )
    raise CellUnavailable(
        f"the kernel refuses user namespaces: {os.strerror(code)}",
        hint="leave the chroot if this is one; else look what forbids it: sudo dmesg | tail",
    )


def _unshare() -> int:
    """In a child: 0, or the number of the error."""
    if os.geteuid() == 0:
        os.setresgid(HOST_UID, HOST_UID, HOST_UID)
        os.setresuid(HOST_UID, HOST_UID, HOST_UID)
    try:
        kernel.unshare(kernel.CLONE_NEWUSER)
    except OSError as problem:
        return problem.errno or errno.EPERM
    return 0


def bubblewrap(wanted: Path | None) -> str:
    """Which bubblewrap there is. Raises CellUnavailable for one that was asked for and cannot be used.

    One of the host's that is too old is no lack: then the base image's is taken (see ``program``).
    """
    if wanted is None:
        found = program.of_host()
        return str(found) if found else f"the base image's (the host has none of {program.dotted(program.OLDEST)})"
    unset = "unset ANVIL_BWRAP to use the base image's"
    try:
        mode = wanted.stat().st_mode
    except OSError as problem:
        raise CellUnavailable(
            f"the bubblewrap that was asked for cannot be used: {problem.strerror}", where=str(wanted), hint=unset
        ) from problem
    if not stat.S_ISREG(mode) or not os.access(wanted, os.X_OK):
        raise CellUnavailable(
            "the bubblewrap that was asked for is not a program",
            where=str(wanted),
            hint=f"chmod +x {wanted}; or {unset}",
        )
    if mode & stat.S_ISUID:
        raise CellUnavailable(
            "the bubblewrap that was asked for is setuid, and then lays no trees over each other",
            where=str(wanted),
            hint=f"sudo chmod u-s {wanted}; or {unset}",
        )
    version = program.version(wanted)
    if version == (0,):
        raise CellUnavailable(
            "the bubblewrap that was asked for does not say its version: it is none, or does not run here",
            where=str(wanted),
            hint=unset,
        )
    if version < program.OLDEST:
        raise CellUnavailable(
            f"bubblewrap {program.dotted(version)} is too old, {program.dotted(program.OLDEST)} is needed",
            where=str(wanted),
            hint=unset,
        )
    return f"{wanted}, {program.dotted(version)}"


def _is_mapped(uid: int) -> bool:
    """Whether a uid is one in this user namespace: lines of first, first outside, count (user_namespaces(7))."""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            ranges = [(int(first), int(count)) for first, _, count in map(str.split, file)]
    except OSError:
        return True
    return any(first <= uid < first + count for first, count in ranges)


def _status(name: str) -> str:
    """A line of this process's status (proc_pid_status(5)), or ""."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        found = re.search(rf"^{name}:\s*(.*)$", file.read(), re.MULTILINE)
    return found[1] if found else ""


def _setting(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _profile_loaded() -> bool:
    """Whether somebody has written the profile; if it is not right, making the cell says so."""
    return os.path.exists("/etc/apparmor.d/anvil-cell")


def _try(rootfs: Path, folder: Path, host_uid: int | None, bwrap: Path | None, *, overlay: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="probe-", dir=folder) as made:
        top = Path(made)
        lower = top / "lower"
        lower.mkdir()
        if os.geteuid() == 0:
            uid = HOST_UID if host_uid is None else host_uid
            os.chown(lower, uid, uid)
        spec = CellSpec(
            rootfs=rootfs,
            command=("/bin/sh", "-c", "echo cell >/work/made && cat /work/made"),
            work=WorkTree(lower=(lower,) if overlay else (), upper=top / "upper", scratch=top / "scratch"),
            limits=Limits(wall_seconds=30),
            host_uid=host_uid,
            bwrap=bwrap,
        )
        outcome = run.run(spec, top / "log")
        said = (top / "log").read_text(encoding="utf-8", errors="replace")
        if not outcome.ok or said != "cell\n":
            raise CellUnavailable(
                f"a cell was made but does not work (code {outcome.exit_code}, {outcome.reason})",
                hint="what the cell said is below; try another bubblewrap: ANVIL_BWRAP=FILE anvil doctor",
                detail=said,
            )
