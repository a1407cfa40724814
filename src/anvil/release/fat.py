"""A strict reader of FAT file systems; the output gate's cell runs this file itself, as it does newc.py.

mcopy reads what the folders name. What lies in clusters that belong to no file, behind a file's end in its last
cluster, in the names of deleted files, or between the file system's parts, it passes over. So every byte is accounted
for here (Microsoft, "FAT: General Overview of On-Disk Format"): it is a field, a name, a file's data, boot code that
is known, or zero.

Standard library only, and nothing of Anvil's: a cell has only this text.
"""

from __future__ import annotations

import hashlib
import re
import struct
import sys
from pathlib import Path
from typing import BinaryIO

_BOOT_CODE = {
    # what mtools' mformat writes (its mformat.c): bytes 62 or, on a wide one, 90 to 446
    "76b28c5f258fb4b8fad99721639d3911b44dbbf5f7a416e2137026b2024f2996",
    "4f2e91368e3f7eedaae94477e90e4401fcf4f825ebaf95749ca9fd5351409b6e",
}
_LONG, _LABEL, _FOLDER = 0x0F, 0x08, 0x10
_SHORT = re.compile(rb"[A-Z0-9!#$%&'()@^_`{}~-]{1,8} *")
_MOST_CLUSTERS = 1 << 22
_DEEPEST = 32


class FileSystem:
    """An opened file system. Raises ValueError for whatever is not as the specification says."""

    def __init__(self, image: BinaryIO) -> None:
        self.image = image
        image.seek(0, 2)
        self.size = image.tell()
        boot = self.read(0, 512)
        sector, self.per_cluster, reserved, self.fats = struct.unpack_from("<HBHB", boot, 11)
        self.root_entries, small = struct.unpack_from("<HH", boot, 17)
        fat_size, large = struct.unpack_from("<H", boot, 22)[0], struct.unpack_from("<I", boot, 32)[0]
        self.wide = self.root_entries == 0
        if self.wide:
            fat_size = struct.unpack_from("<I", boot, 36)[0]
        sectors = small or large
        if sector not in {512, 1024, 2048, 4096} or not self.per_cluster or not reserved or not 1 <= self.fats <= 2:
            raise ValueError("its parameters are not sound")
        self.sector: int = sector
        self.fat_at, self.fat_bytes = reserved * sector, fat_size * sector
        self.root_at = self.fat_at + self.fats * self.fat_bytes
        self.data_at: int = self.root_at + -(-self.root_entries * 32 // sector) * sector
        self.cluster: int = self.per_cluster * sector
        self.count = (sectors * sector - self.data_at) // self.cluster
        if not 0 < self.count < _MOST_CLUSTERS or sectors * sector > self.size:
            raise ValueError("its parameters are not sound")
        self.bits = 32 if self.wide else 12 if self.count < 4085 else 16
        self.used: set[int] = set()
        self.table = self._table()
        self._boot(boot, reserved)

    def read(self, at: int, size: int) -> bytes:
        """``size`` bytes from ``at`` on."""
        self.image.seek(at)
        data = self.image.read(size)
        if len(data) != size:
            raise ValueError("it ends in the middle")
        return data

    def zero(self, at: int, end: int, what: str) -> None:
        """Everything from ``at`` to ``end`` must be zero."""
        while at < end:
            size = min(end - at, 1 << 20)
            if self.read(at, size).strip(b"\0"):
                raise ValueError(f"there is something in {what}")
            at += size

    def _boot(self, boot: bytes, reserved: int) -> None:
        """Boot code is one of those that are known, or nothing; so are the other reserved sectors."""
        code = boot[90 if self.wide else 62 : 446]
        if code.strip(b"\0") and hashlib.sha256(code).hexdigest() not in _BOOT_CODE:
            raise ValueError("its boot code is not a known one")
        if boot[510:512] != b"\x55\xaa":
            raise ValueError("its parameters are not sound")
        # mformat puts a partition table of one entry there: the file system itself
        if boot[446:510].strip(b"\0") and (boot[446] not in {0, 0x80} or boot[462:510].strip(b"\0")):
            raise ValueError("there is something behind its boot code")
        backups: dict[int, bytes] = {}
        if self.wide:
            info, copy = struct.unpack_from("<HH", boot, 48)
            found = self.read(info * self.sector, 512)
            if found[:4] != b"RRaA" or found[4:484].strip(b"\0") or found[484:488] != b"rrAa":
                raise ValueError("its information sector is not sound")
            if found[496:508].strip(b"\0"):
                raise ValueError("its information sector is not sound")
            backups = {info: found, copy: boot, copy + info: found}
        for number in range(1, reserved):
            data = self.read(number * self.sector, self.sector)
            if data[:512].strip(b"\0") and data[:512] != backups.get(number):
                raise ValueError("there is something in its reserved sectors")
            if data[512:].strip(b"\0"):
                raise ValueError("there is something in its reserved sectors")
        self.zero(512, self.sector, "its first sector")

    def _table(self) -> list[int]:
        """The next cluster of each; all copies of the table must be the same."""
        data = self.read(self.fat_at, self.fat_bytes)
        if self.fats > 1 and self.read(self.fat_at + self.fat_bytes, self.fat_bytes) != data:
            raise ValueError("its two tables differ")
        entries = self.count + 2
        need = -(-entries * self.bits // 8)
        if need > len(data):
            raise ValueError("its table is too short")
        table: list[int] = []
        if self.bits == 12:
            for number in range(entries):
                at = number * 3 // 2
                pair = int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "little")
                table.append(pair >> 4 if number & 1 else pair & 0xFFF)
            rest = data[entries * 3 // 2 + 1 :] if entries & 1 else data[need:]
        else:
            form = f"<{entries}{'I' if self.wide else 'H'}"
            table = [entry & 0x0FFFFFFF for entry in struct.unpack_from(form, data)]
            rest = data[need:]
        if rest.strip(b"\0"):
            raise ValueError("there is something behind its table")
        return table

    def chain(self, first: int) -> list[int]:
        """The clusters of a file or folder, which become used."""
        found: list[int] = []
        at, end = first, (1 << min(self.bits, 28)) - 8
        while at < end:
            if not 2 <= at < self.count + 2 or at in self.used:
                raise ValueError("a file's clusters are not sound")
            self.used.add(at)
            found.append(at)
            at = self.table[at]
        return found

    def at(self, cluster: int) -> int:
        """Where a cluster begins."""
        return self.data_at + (cluster - 2) * self.cluster

    def finish(self) -> None:
        """What no file uses is free, and holds nothing."""
        for number in range(2, self.count + 2):
            if number not in self.used:
                if self.table[number]:
                    raise ValueError("clusters are taken that belong to no file")
                self.zero(self.at(number), self.at(number) + self.cluster, "free clusters")
        self.zero(self.at(self.count + 2), self.size, "what lies behind the last cluster")


def extract(image: BinaryIO, members: Path) -> None:
    """Write every file below ``members``. Raises ValueError for what mcopy would pass over."""
    system = FileSystem(image)
    if system.wide:
        chain = system.chain(struct.unpack_from("<I", system.read(0, 512), 44)[0])
        root = b"".join(system.read(system.at(number), system.cluster) for number in chain)
    else:
        root = system.read(system.root_at, system.data_at - system.root_at)
    _folder(system, root, members, top=True, depth=0)
    system.finish()


def _folder(system: FileSystem, data: bytes, place: Path, *, top: bool, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError("folders lie too deep in each other")
    seen: set[str] = set()
    pieces: list[bytes] = []
    for at in range(0, len(data), 32):
        entry = data[at : at + 32]
        if entry[0] == 0:
            if data[at:].strip(b"\0") or pieces:
                raise ValueError("there is something behind a folder's end")
            return
        if entry[0] == 0xE5:
            raise ValueError("there is a deleted name")
        if entry[11] == _LONG:
            pieces.append(entry)
            continue
        first, size = struct.unpack_from("<H", entry, 20)[0] << 16 | struct.unpack_from("<H", entry, 26)[0], 0
        (size,) = struct.unpack_from("<I", entry, 28)
        if entry[11] & _LABEL:
            if not top or pieces or first or size:
                raise ValueError("a label is not sound")
            continue
        if entry[:11] in {b".          ", b"..         "} and not top and at < 64:
            continue
        name = _long_name(pieces, entry) if pieces else _short_name(entry)
        pieces = []
        if name.lower() in seen:
            raise ValueError(f"{name!r} is there twice")
        seen.add(name.lower())
        _entry(system, entry[11], first, size, place / name, depth)
    if pieces:
        raise ValueError("a long name belongs to nothing")


def _entry(system: FileSystem, attributes: int, first: int, size: int, path: Path, depth: int) -> None:
    if attributes & _FOLDER:
        if size:
            raise ValueError(f"{path.name!r}: a folder has no size")
        path.mkdir()
        data = b"".join(system.read(system.at(number), system.cluster) for number in system.chain(first))
        _folder(system, data, path, top=False, depth=depth + 1)
        return
    chain = system.chain(first) if first else []
    if len(chain) != -(-size // system.cluster):
        raise ValueError(f"{path.name!r} has more clusters than bytes")
    with path.open("xb") as file:
        left = size
        for number in chain:
            data = system.read(system.at(number), system.cluster)
            file.write(data[:left])
            if data[left:].strip(b"\0") and left < system.cluster:
                raise ValueError(f"there is something behind the end of {path.name!r}")
            left = max(0, left - system.cluster)


def _short_name(entry: bytes) -> str:
    stem, ending = entry[:8].rstrip(b" "), entry[8:11].rstrip(b" ")
    if not _SHORT.fullmatch(entry[:8]) or (ending and not _SHORT.fullmatch(ending)):
        raise ValueError(f"a strange name: {entry[:11]!r}")
    name = stem.decode().lower() if entry[12] & 8 else stem.decode()
    if ending:
        name += "." + (ending.decode().lower() if entry[12] & 16 else ending.decode())
    return name


def _long_name(pieces: list[bytes], entry: bytes) -> str:
    """The name that the pieces before an entry make, last piece first."""
    checksum = 0
    for byte in entry[:11]:
        checksum = ((checksum & 1) << 7 | checksum >> 1) + byte & 0xFF
    for number, piece in enumerate(reversed(pieces), 1):
        last = 0x40 if number == len(pieces) else 0
        if piece[0] != number | last or piece[12] or piece[13] != checksum or piece[26:28] != b"\0\0":
            raise ValueError("a long name is not sound")
    text = b"".join(piece[1:11] + piece[14:26] + piece[28:32] for piece in reversed(pieces))
    name, _, filling = text.decode("utf-16-le").partition("\0")
    if filling.strip("\uffff") or name in {"", ".", ".."} or "/" in name or not name.isprintable():
        raise ValueError(f"a strange name: {name!r}")
    return name


if __name__ == "__main__":
    with Path(sys.argv[1]).open("rb") as opened:
        try:
            extract(opened, Path(sys.argv[2]))
        except (ValueError, OSError, struct.error) as problem:
            sys.exit(f"fat: {problem}")
