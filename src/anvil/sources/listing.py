"""What a source archive holds, name by name; run in a cell, since an archive is as hostile as who wrote it.

The archive is standard input's path, ``sys.argv[1]``. One line of JSON leaves on standard output for every name below
the archive's one top folder, which is stripped as it is when a card unpacks it: ``[path, kind, executable, size,
sha256 or target]``, kind being "file", "dir" or "link". A hard link is a file of its own with the bytes of the first.

Standard library only, and nothing of Anvil's: a cell has only this text.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tarfile

_CHUNK = 1 << 20


def rows(archive: tarfile.TarFile) -> list[list[object]]:
    """Every name of an archive; of a name that comes twice the last counts, as it does for ``tar --extract``.

    Raises ValueError for members without one common top folder, and for kinds that no source needs.
    """
    found: dict[str, list[object]] = {}
    tops: set[str] = set()
    for member in archive:
        parts = [part for part in member.name.split("/") if part not in {"", "."}]
        if not parts or ".." in parts:
            raise ValueError(f"a member is called {member.name!r}")
        tops.add(parts[0])
        path = "/".join(parts[1:])
        if not path:
            continue
        executable = bool(member.mode & 0o100)
        if member.isdir():
            found[path] = [path, "dir", False, 0, ""]
        elif member.issym():
            found[path] = [path, "link", False, 0, member.linkname]
        elif member.islnk():
            first = found["/".join(part for part in member.linkname.split("/")[1:] if part not in {"", "."})]
            found[path] = [path, *first[1:]]
        elif member.isreg():
            found[path] = [path, "file", executable, member.size, _sha256(archive, member)]
        else:
            raise ValueError(f"{member.name} is neither a file, a folder nor a link")
    if len(tops) != 1:
        raise ValueError(f"the archive has {len(tops)} top folders, not one")
    return list(found.values())


def _sha256(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    data = archive.extractfile(member)
    if data is None:
        raise ValueError(f"{member.name} cannot be read")
    digest = hashlib.sha256()
    while block := data.read(_CHUNK):
        digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    with tarfile.open(sys.argv[1], mode="r|*") as opened:
        listing = rows(opened)
    for row in listing:
        sys.stdout.write(json.dumps(row) + "\n")
