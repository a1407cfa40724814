"""What runs in the bootstrap cell: the packages' own set-up scripts, in the lock's order.

The cell has the new tree as a writable root, no network and one unprivileged uid, so nothing can be given to another
owner: ``chown`` and its kin are shadowed by stand-ins that succeed (every file of an image has one owner anyway).
The scripts find a dpkg database, written here, which says that every package is installed; it goes when they are done.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anvil.image.deb import Control
    from anvil.image.unpack import Tree
    from anvil.model.lock import Package

DATABASE = "var/lib/dpkg"
STAND_INS = "var/lib/anvil-bootstrap"
MOUNT_POINTS = ("dev", "in", "out", "proc", "run", "sys", "tmp", "work")
# Owners cannot be given here, services are not started, and nobody logs in to an image: no users but its own.
SILENCED = (
    "addgroup",
    "adduser",
    "chgrp",
    "chown",
    "deb-systemd-helper",
    "deb-systemd-invoke",
    "groupadd",
    "invoke-rc.d",
    "shadowconfig",
    "systemctl",
    "update-rc.d",
    "useradd",
    "usermod",
)
# Not taken into the status file: what dpkg itself adds or does not keep.
_NOT_STATUS = frozenset({"Package", "Status", "Version", "Architecture"})


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """A package whose data lies in the tree: what dpkg's database has to say of it."""

    package: Package
    control: Control
    paths: tuple[str, ...]

    @property
    def info_name(self) -> str:
        """The stem of its files in dpkg's info folder: with the architecture where several may be installed."""
        if self.control.fields.get("Multi-Arch") == "same":
            return f"{self.package.name}:{self.package.architecture}"
        return self.package.name


def write_database(tree: Tree, packages: list[Unpacked]) -> None:
    """Write dpkg's status, info and empty bookkeeping files into the tree."""
    status: list[str] = []
    for unpacked in packages:
        fields = unpacked.control.fields
        package = unpacked.package
        lines = [f"Package: {package.name}", "Status: install ok installed"]
        lines += [f"Version: {package.version}", f"Architecture: {package.architecture}"]
        lines += [f"{name}: {value}" for name, value in fields.items() if name not in _NOT_STATUS]
        status.append("\n".join(lines) + "\n")
        stem = f"{DATABASE}/info/{unpacked.info_name}"
        tree.write(f"{stem}.list", "".join(f"{path}\n" for path in unpacked.paths).encode())
        for name, body in unpacked.control.files.items():
            script = name in ("preinst", "postinst", "prerm", "postrm", "config")
            tree.write(f"{stem}.{name}", body, mode=0o755 if script else 0o644)
    tree.write(f"{DATABASE}/status", "\n".join(status).encode())
    tree.write(f"{DATABASE}/info/format", b"1\n")
    for name in ("available", "diversions", "statoverride", "triggers/File", "triggers/Unincorp", "updates/.keep"):
        tree.write(f"{DATABASE}/{name}", b"")
    for name in SILENCED:
        tree.write(f"{STAND_INS}/{name}", b"#!/bin/sh\nexit 0\n", mode=0o755)
    for name in MOUNT_POINTS:
        os.close(tree.resolve(name, create=True))
    # No service may be started while the tree is made (none could be; the scripts ask this first).
    tree.write("usr/sbin/policy-rc.d", b"#!/bin/sh\nexit 101\n", mode=0o755)


def bootstrap_script(packages: list[Unpacked]) -> str:
    """The cell's bash script: each package's preinst, then each one's postinst; stops at the first that fails."""
    lines = [
        "set -euo pipefail",
        # Nothing of the cell's own environment may show in the tree (SOURCE_DATE_EPOCH changes Python's byte code).
        "unset -v $(compgen -e)",
        "umask 022",
        f"export PATH=/{STAND_INS}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true DEBCONF_NOWARNINGS=yes",
        f"export DPKG_ROOT= DPKG_ADMINDIR=/{DATABASE} DPKG_FORCE=not-root,unsafe-io DPKG_RUNNING_VERSION=1.22",
        # Byte code carries no trace of the order in which a process met its strings.
        "export PYTHONHASHSEED=0 LC_ALL=C.UTF-8 TZ=UTC HOME=/root PERL_HASH_SEED=0",
        "run() {",
        "  export DPKG_MAINTSCRIPT_PACKAGE=$1 DPKG_MAINTSCRIPT_ARCH=$2 DPKG_MAINTSCRIPT_NAME=$4",
        "  export DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1",
        '  echo "$4 $1"',
        f'  "/{DATABASE}/info/$3.$4" "$5" "" < /dev/null || {{ echo "the $4 script of $1 failed" >&2; exit 1; }}',
        "}",
    ]
    for script, word in (("preinst", "install"), ("postinst", "configure")):
        for unpacked in packages:
            if script in unpacked.control.files:
                package = unpacked.package
                words = (package.name, package.architecture, unpacked.info_name, script, word)
                lines.append(f"run {shlex.join(words)}")
    # What the triggers of all the libraries ask for, once.
    lines += ["ldconfig", "echo bootstrap done"]
    return "\n".join(lines) + "\n"
