"""A strict reader of ISO 9660 media; the output gate's cell runs this file itself, as it does newc.py.

A medium has more than its files: what lies between them, in a second tree that only another system reads, in the
first sectors, in partitions. So every sector is accounted for here: it is a file's, a folder's, a table's, a
partition's, or zero. The trees (one for the medium, and one for each partition that holds it again) must name the
same bytes; a tree in another form (Joliet, UDF), an older session, or a field that nobody defined is refused.
(ECMA-119; IEEE P1281 and P1282, "SUSP" and "Rock Ridge"; El Torito 1.0; UEFI 2.10, chapter 5, "GPT".)

The members are ``files/…``, ``boot/mbr`` (the first 512 bytes) and ``boot/partition-N``.

Standard library only, and nothing of Anvil's: a cell has only this text.
"""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path
from typing import BinaryIO, NamedTuple

_SECTOR = 2048
_SYSTEM_AREA = 16 * _SECTOR
_CHUNK = 512 * _SECTOR
_DEEPEST = 64
_MOST_FOLDERS = 100_000
_FOLDER = 2
_TORITO = b"EL TORITO SPECIFICATION"
_WORDS = re.compile(rb"[ -~]*")
# What Rock Ridge says of itself, with either of its names.
_EXTENSION = re.compile(
    rb"(IEEE_1282|IEEE_P1282|RRIP_1991A)"
    rb"THE ?(IEEE P1282 PROTOCOL|ROCK RIDGE INTERCHANGE PROTOCOL) PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS\.?"
    rb"PLEASE CONTACT[ A-Z,.()0-9-]{0,200}"
)


class Extent(NamedTuple):
    """Where a file's bytes are: the first byte and how many."""

    at: int
    size: int


class Medium:
    """An opened medium, and which of its bytes are accounted for."""

    def __init__(self, image: BinaryIO) -> None:
        self.image = image
        image.seek(0, 2)
        self.size = image.tell()
        self.seen: list[Extent] = []

    def read(self, at: int, size: int, *, seen: bool = True) -> bytes:
        """Bytes that are understood; with ``seen`` they are accounted for."""
        self.image.seek(at)
        data = self.image.read(size)
        if len(data) != size:
            raise ValueError("it points to what is not there")
        if seen:
            self.account(Extent(at, size))
        return data

    def account(self, extent: Extent) -> None:
        """Note what has been understood; up to the next sector's start there must be zeros."""
        if extent.at + extent.size > self.size:
            raise ValueError("it points to what is not there")
        self.seen.append(extent)

    def finish(self) -> None:
        """Everything that nothing has accounted for must be zero."""
        here = 0
        for extent in sorted(self.seen):
            self._zero(here, extent.at)
            here = max(here, extent.at + extent.size)
        self._zero(here, self.size)

    def _zero(self, at: int, end: int) -> None:
        while at < end:
            size = min(end - at, _CHUNK)
            if self.read(at, size, seen=False).strip(b"\0"):
                raise ValueError(f"there is something between byte {at} and {at + size} that belongs to nothing")
            at += size


def extract(image: BinaryIO, members: Path) -> None:
    """Write everything that a reader of any kind could find below ``members``. Raises ValueError, OSError."""
    medium = Medium(image)
    partitions = _system_area(medium, members)
    files, catalogue = _volume(medium, 0)
    for number, part in partitions.items():
        if part.size > _SYSTEM_AREA + _SECTOR and _is_volume(medium, part.at):
            again, _ = _volume(medium, part.at)
            if again != files:
                raise ValueError(f"partition {number} shows other files than the medium")
        elif part.at >= _SYSTEM_AREA and _holds_something(medium, part):
            _write(medium, part, members / "boot" / f"partition-{number}")
    for path, extent in files.items():
        _write(medium, extent, members / "files" / path)
    _boot_images(medium, catalogue, [*files.values(), *partitions.values()])
    medium.finish()


def _write(medium: Medium, extent: Extent, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    medium.account(extent)
    with path.open("xb") as file:
        for at in range(extent.at, extent.at + extent.size, _CHUNK):
            file.write(medium.read(at, min(_CHUNK, extent.at + extent.size - at), seen=False))


def _holds_something(medium: Medium, part: Extent) -> bool:
    return any(
        medium.read(at, min(_CHUNK, part.at + part.size - at), seen=False).strip(b"\0")
        for at in range(part.at, part.at + part.size, _CHUNK)
    )


def _is_volume(medium: Medium, base: int) -> bool:
    return medium.read(base + _SYSTEM_AREA, 6, seen=False) == b"\1CD001"


# ---- partitions


def _system_area(medium: Medium, members: Path) -> dict[int, Extent]:
    """The partitions of the first sectors: the MBR is a member (it holds code), a GPT is understood."""
    first = medium.read(0, 512, seen=False)
    if not first.strip(b"\0"):
        return {}
    if first[510:] != b"\x55\xaa":
        raise ValueError("its first sector is no boot sector")
    _write(medium, Extent(0, 512), members / "boot" / "mbr")
    found: dict[int, Extent] = {}
    for number in range(4):
        kind, start, count = first[450 + 16 * number], *struct.unpack_from("<II", first, 454 + 16 * number)
        if kind not in {0, 0xEE} and count:
            found[number + 1] = Extent(start * 512, count * 512)
    if medium.read(512, 8, seen=False) == b"EFI PART":
        for number, part in _gpt(medium).items():
            if found.get(number, part) != part:
                raise ValueError("its two partition tables differ")
            found[number] = part
    for part in found.values():
        if part.at + part.size > medium.size:
            raise ValueError("a partition points to what is not there")
    return found


def _gpt(medium: Medium) -> dict[int, Extent]:
    entries = [_gpt_table(medium, at) for at in (512, medium.size - 512)]
    if entries[0] != entries[1]:
        raise ValueError("its two partition tables differ")
    found: dict[int, Extent] = {}
    for number in range(len(entries[0]) // 128):
        entry = entries[0][128 * number : 128 * (number + 1)]
        if not entry[:16].strip(b"\0"):
            if entry.strip(b"\0"):
                raise ValueError("there is something in its partition table")
            continue
        start, end = struct.unpack_from("<QQ", entry, 32)
        name, _, rest = entry[56:].decode("utf-16-le").partition("\0")
        if rest.strip("\0") or not name.isascii() or (name and not name.isprintable()) or end < start:
            raise ValueError("a partition's entry is not sound")
        found[number + 1] = Extent(start * 512, (end - start + 1) * 512)
    return found


def _gpt_table(medium: Medium, at: int) -> bytes:
    header = medium.read(at, 512)
    place, count, size = struct.unpack_from("<QII", header, 72)
    if header[:12] != b"EFI PART\0\0\1\0" or header[12:16] != b"\x5c\0\0\0" or header[92:].strip(b"\0"):
        raise ValueError("its partition table is not sound")
    if size != 128 or not 0 < count <= 1024:
        raise ValueError("its partition table is not sound")
    return medium.read(place * 512, count * size)


# ---- the tree


def _volume(medium: Medium, base: int) -> tuple[dict[str, Extent], int]:
    """The files of the volume that begins at a byte, and the place of its catalogue of boot images (0: none)."""
    primary, catalogue = b"", 0
    for number in range(16, 48):
        block = medium.read(base + number * _SECTOR, _SECTOR)
        if block[1:6] != b"CD001":
            raise ValueError("its volume's description has no end")
        if block[0] == 255:
            if block[7:].strip(b"\0"):
                raise ValueError("there is something at the end of the volume's description")
            break
        if block[0] == 1 and not primary:
            primary = block
        elif block[0] == 0 and not catalogue and block[7:39].rstrip(b"\0") == _TORITO:
            catalogue = struct.unpack_from("<I", block, 71)[0] * _SECTOR
            if block[39:71].strip(b"\0") or block[75:].strip(b"\0"):
                raise ValueError("its boot record is not sound")
        else:
            raise ValueError("it has a second tree, which other systems read")
    if not primary or struct.unpack_from("<H", primary, 128)[0] != _SECTOR:
        raise ValueError("its volume is not described")
    # the fields that nobody defined, and those for the application that wrote it
    for start, end in ((7, 8), (72, 80), (88, 120), (882, 883), (1395, 2048)):
        if primary[start:end].strip(b"\0"):
            raise ValueError("there is something in the volume's description")
    if primary[883:1395].strip(b"\0 ") or not _WORDS.fullmatch(primary[8:72] + primary[190:813]):
        raise ValueError("there is something in the volume's description")
    tree = _Tree(medium, base)
    tree.walk(primary[156:190])
    _path_tables(medium, base, primary, tree)
    return tree.files, catalogue


class _Tree:
    def __init__(self, medium: Medium, base: int) -> None:
        self.medium = medium
        self.base = base
        self.files: dict[str, Extent] = {}
        self.folders: dict[int, Extent] = {}  # by its sector
        self.names: set[bytes] = set()  # as path tables have them

    def walk(self, root: bytes) -> None:
        """Everything below the root's record."""
        self.folder(root, "", 0)

    def folder(self, record: bytes, path: str, depth: int) -> None:
        sector, size = struct.unpack_from("<I", record, 2)[0], struct.unpack_from("<I", record, 10)[0]
        if depth > _DEEPEST or sector in self.folders or len(self.folders) > _MOST_FOLDERS or size % _SECTOR:
            raise ValueError(f"the folder {path!r} is not sound")
        self.folders[sector] = Extent(self.base + sector * _SECTOR, size)
        data = self.medium.read(self.base + sector * _SECTOR, size)
        names: set[str] = set()
        for number, found in enumerate(_records(data)):
            name, is_link = self.record(found, first=number == 0 and depth == 0)
            if number < 2:
                if found[33:34] != bytes([number]) or not found[25] & _FOLDER:
                    raise ValueError(f"the folder {path!r} is not sound")
                continue
            if name in names or name in {"", ".", ".."} or "/" in name:
                raise ValueError(f"{path}{name!r} is there twice, or is no name")
            names.add(name)
            if found[25] & _FOLDER:
                self.names.add(found[33 : 33 + found[32]])
                self.folder(found, f"{path}{name}/", depth + 1)
            elif not is_link:
                at, length = struct.unpack_from("<I", found, 2)[0], struct.unpack_from("<I", found, 10)[0]
                self.files[path + name] = Extent(self.base + at * _SECTOR if length else 0, length)

    def record(self, record: bytes, *, first: bool) -> tuple[str, bool]:
        """A record's name, and whether it is a link."""
        # flags: hidden, folder, and with extended attributes, but neither associated nor in several pieces
        if record[1] or record[25] & ~0x13 or record[26] or record[27]:
            raise ValueError("a record is not sound")
        if record[2:6] != record[9:5:-1] or record[10:14] != record[17:13:-1]:
            raise ValueError("a record says two things, one to each kind of machine")
        end = 33 + record[32]
        area = record[end + (end & 1) :]
        if first:
            if area[:7] != b"SP\7\1\xbe\xef\0" and area.strip(b"\0"):
                raise ValueError("what lies behind the names is no Rock Ridge")
            area = area[7:]
        pieces: list[bytes] = []
        is_link = self.fields(area, pieces, 0)
        plain = record[33:end].decode("ascii").removesuffix(";1").removesuffix(".")
        return (b"".join(pieces).decode() if pieces else plain), is_link

    def fields(self, area: bytes, pieces: list[bytes], depth: int) -> bool:
        """The fields of Rock Ridge behind a record; its name's pieces go into ``pieces``."""
        is_link = False
        while len(area) >= 4 and area[:4].strip(b"\0"):
            sign, length, version, field = area[:2], area[2], area[3], area[4 : area[2]]
            if length < 4 or length > len(area) or version != 1 or depth > 8:
                raise ValueError("a field of Rock Ridge is not sound")
            if sign == b"NM":
                if not field[0] & ~1:  # else it is a folder's name for itself or the one above
                    pieces.append(field[1:])
            elif sign == b"CE":
                block, at, size = (struct.unpack_from("<I", field, start)[0] for start in (0, 8, 16))
                if at + size > _SECTOR:
                    raise ValueError("a field of Rock Ridge is not sound")
                more = self.medium.read(self.base + block * _SECTOR + at, size)
                is_link = self.fields(more, pieces, depth + 1) or is_link
            elif sign == b"SL":
                is_link = True
            elif sign == b"ER":
                if not _EXTENSION.fullmatch(field[4:]):
                    raise ValueError("it is of an extension that is not known")
            elif sign not in {b"PX", b"TF", b"RR"} and not (sign == b"PD" and not field.strip(b"\0")):
                raise ValueError(f"it has fields that are not known: {sign!r}")
            area = area[length:]
        if area.strip(b"\0"):
            raise ValueError("there is something behind a record's fields")
        return is_link


def _records(folder: bytes) -> list[bytes]:
    """A folder's records; none crosses a sector's end, before which there are zeros."""
    found: list[bytes] = []
    for start in range(0, len(folder), _SECTOR):
        sector = folder[start : start + _SECTOR]
        while sector and sector[0]:
            length = sector[0]
            if length < 34 or length > len(sector) or 33 + sector[32] > length:
                raise ValueError("a record is not sound")
            found.append(sector[:length])
            sector = sector[length:]
        if sector.strip(b"\0"):
            raise ValueError("there is something behind a folder's end")
    if len(found) < 2:
        raise ValueError("a folder is empty")
    return found


def _path_tables(medium: Medium, base: int, primary: bytes, tree: _Tree) -> None:
    """The lists of all folders, which the oldest systems read: nothing but the folders of the tree may be in them."""
    (size,) = struct.unpack_from("<I", primary, 132)
    for order, place in (("<", 140), ("<", 144), (">", 148), (">", 152)):
        (sector,) = struct.unpack_from(order + "I", primary, place)
        if not sector:
            continue
        table, met = medium.read(base + sector * _SECTOR, size), 0
        while table:
            length, at = table[0], struct.unpack_from(order + "I", table, 2)[0]
            name = table[8 : 8 + length]
            if at not in tree.folders or table[1] or not (name in tree.names or (name == b"\0" and not met)):
                raise ValueError("its list of folders is not sound")
            if table[8 + length : 8 + length + (length & 1)].strip(b"\0"):
                raise ValueError("its list of folders is not sound")
            table, met = table[8 + length + (length & 1) :], met + 1
        if met != len(tree.folders):
            raise ValueError("its list of folders is not sound")


# ---- boot images


def _boot_images(medium: Medium, catalogue: int, known: list[Extent]) -> None:
    """What firmware would start: each image must be a file or a partition, which are judged as such."""
    if not catalogue:
        return
    entries = medium.read(catalogue, _SECTOR)
    if entries[:2] not in {b"\1\0", b"\1\xef"} or entries[2:28].strip(b"\0") or entries[30:32] != b"\x55\xaa":
        raise ValueError("its catalogue of boot images is not sound")
    starts = {extent.at for extent in known}
    for at in range(32, _SECTOR, 32):
        entry = entries[at : at + 32]
        if entry[0] in {0x90, 0x91}:
            if entry[4:].strip(b"\0"):
                raise ValueError("its catalogue of boot images is not sound")
        elif entry.strip(b"\0"):
            start = struct.unpack_from("<I", entry, 8)[0] * _SECTOR
            if entry[0] not in {0, 0x88} or entry[12:].strip(b"\0") or start not in starts:
                raise ValueError("its catalogue of boot images is not sound")


if __name__ == "__main__":
    with Path(sys.argv[1]).open("rb") as opened:
        try:
            extract(opened, Path(sys.argv[2]))
        except (ValueError, OSError, struct.error, IndexError) as problem:
            sys.exit(f"iso: {problem}")
