"""Packages made by hand, good and bad, for the tests of the unpacker."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anvil.model.lock import ImageLock, Package, PinnedFile

if TYPE_CHECKING:
    from pathlib import Path

MTIME = 1_700_000_000

COMPRESS = {"": lambda data: data, ".xz": lzma.compress, ".gz": gzip.compress, ".bz2": bz2.compress}


@dataclass(frozen=True, kw_only=True)
class Member:
    """A member of a data.tar; by default a plain file."""

    name: str
    data: bytes = b""
    type: bytes = tarfile.REGTYPE
    mode: int = 0o644
    link: str = ""
    mtime: int = MTIME


def folder(name: str, mode: int = 0o755) -> Member:
    return Member(name=name, type=tarfile.DIRTYPE, mode=mode)


def link(name: str, target: str) -> Member:
    return Member(name=name, type=tarfile.SYMTYPE, link=target)


def tar(*members: Member) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.type, info.mode, info.linkname = member.type, member.mode, member.link
            info.size, info.mtime = len(member.data), member.mtime
            info.uid = info.gid = 4321
            archive.addfile(info, io.BytesIO(member.data))
    return buffer.getvalue()


def ar(**parts: bytes) -> bytes:
    """An ar archive; "data_tar_xz" stands for the member data.tar.xz."""
    out = b"!<arch>\n"
    for name, data in parts.items():
        title = name.replace("_", ".").replace("debian.binary", "debian-binary")
        out += f"{title:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data
        out += b"\n" if len(data) % 2 else b""
    return out


def deb(*members: Member, scripts: dict[str, str] | None = None, fields: str = "", compress: str = ".xz") -> bytes:
    control = f"Package: forged\nVersion: 1\nArchitecture: amd64\n{fields}".encode()
    files = [Member(name="./control", data=control)]
    files += [Member(name=f"./{name}", data=text.encode(), mode=0o755) for name, text in (scripts or {}).items()]
    parts = {
        "debian_binary": b"2.0\n",
        "control_tar_gz": gzip.compress(tar(*files)),
        f"data_tar{compress.replace('.', '_')}": COMPRESS[compress](tar(*members)),
    }
    return ar(**parts)


@dataclass(kw_only=True)
class Shelf:
    """Packages on a disk, and the lock that names them."""

    folder: Path
    packages: list[Package] = field(default_factory=list)

    def add(self, name: str, data: bytes) -> PinnedFile:
        file = PinnedFile(
            name=f"{name}_1_amd64.deb",
            sha256=hashlib.sha256(data).hexdigest(),
            size=len(data),
            archive="debian",
            path=f"pool/{name}_1_amd64.deb",
        )
        (self.folder / file.name).write_bytes(data)
        self.packages.append(Package(name=name, version="1", architecture="amd64", file=file))
        return file

    def path(self, file: PinnedFile) -> Path:
        return self.folder / file.name

    def lock(self, name: str = "small") -> ImageLock:
        return ImageLock(name=name, resolved="2026-01-01", architecture="amd64", packages=tuple(self.packages))


BASE = deb(
    folder("./"),
    folder("./usr/"),
    folder("./usr/bin/"),
    folder("./usr/lib/"),
    folder("./etc/"),
    folder("./root/", 0o700),
    folder("./var/lib/", 0o755),
    link("./bin", "usr/bin"),
    link("./lib", "usr/lib"),
    Member(name="./etc/passwd", data=b"root:*:0:0:root:/root:/bin/bash\n"),
    Member(name="./etc/group", data=b"root:*:0:\n"),
    Member(name="./usr/share/doc/base/README", data=b"nobody reads me in a cell\n"),
    scripts={"postinst": "#!/bin/sh\nexit 0\n"},
)
TOOL = deb(
    folder("./bin/"),
    Member(name="./bin/tool", data=b"#!/bin/sh\n", mode=0o4755),
    Member(name="./usr/bin/tool-again", type=tarfile.LNKTYPE, link="./bin/tool"),
    scripts={"preinst": "#!/bin/sh\nexit 0\n", "templates": "Template: x\n"},
    fields="Multi-Arch: same\nDescription: a tool\n of two lines\n",
)
