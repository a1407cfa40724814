"""Can a cell be made here; if not, why not, and what mends it."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from anvil.cell import limits, program, run
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
