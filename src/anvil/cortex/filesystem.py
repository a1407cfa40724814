"""Which file system a path is on, and whether SQLite's WAL is safe there.

WAL needs memory shared by all users of the file and locks that every one of them honours; network file systems give
neither to users on different machines (sqlite.org/wal.html, "All processes using a database must be on the same host
computer").
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from anvil.errors import DatabaseRefused

if TYPE_CHECKING:
    from collections.abc import Iterable

_NETWORK_NAMES = """
    9p afs beegfs ceph cifs coda gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs pvfs2 smb3 smbfs vboxsf
    fuse.ceph fuse.ceph-fuse fuse.davfs fuse.davfs2 fuse.glusterfs fuse.gvfsd-fuse fuse.juicefs fuse.rclone fuse.s3fs
    fuse.smbnetfs fuse.sshfs fuse.vmhgfs-fuse
"""
NETWORK = frozenset(_NETWORK_NAMES.split())


def filesystem_type(path: str, mountinfo: Iterable[str]) -> str:
    """Type of the file system that holds ``path`` (absolute, links resolved), or "" if no mount holds it.

    mountinfo: lines of /proc/self/mountinfo (format: proc(5)). The longest mount point wins; of equal ones the last,
    which hides the others.
    """
    best, kind = "", ""
    for line in mountinfo:
        before, separator, after = line.partition(" - ")
        fields = before.split(" ")
        if not separator or len(fields) < 6:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, after.split(" ", 1)[0]
    return kind


def refuse_network(path: str, mountinfo: str = "/proc/self/mountinfo") -> None:
    """Raise DatabaseRefused if the folder ``path`` is on a network file system.

    Where there is no /proc nothing is known, and nothing is refused.
    """
    try:
        with open(mountinfo, encoding="utf-8", errors="surrogateescape") as file:
            kind = filesystem_type(os.path.realpath(path), file)
    except OSError:
        return
    if kind in NETWORK:
        raise DatabaseRefused(
            f"the home is on a network file system ({kind}), where a database can be damaged",
            where=path,
            hint="choose a folder on a local disk: --home DIR or ANVIL_HOME=DIR",
        )
