"""The output gate's eye: it says what kind of thing some bytes are.

Pure: it reads a file object and names its kind, or refuses. The name of a file counts for nothing. Formats and
where their marks are from: ELF (System V gABI, elf.h), bzImage (Linux Documentation/arch/x86/boot.rst), newc cpio
(cpio(5)), ustar (POSIX.1 pax), gzip (RFC 1952), xz and zstd (their format documents), squashfs (kernel
Documentation/filesystems/squashfs.rst), ISO 9660 (ECMA-119), FAT (Microsoft's EFI FAT32 specification), ZFS (the
on-disk format document: vdev labels), PE/COFF (Microsoft's specification), MicroPython .mpy (its py/persistentcode.h).
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal

from anvil.errors import OutputForbidden

if TYPE_CHECKING:
    from collections.abc import Iterator

Container = Literal["gzip", "xz", "zstd", "bzip2", "cpio", "tar", "squashfs", "iso9660", "fat", "zfs"]

JSON_LIMIT = 16 * 1024 * 1024
_HEAD = 40 * 1024
_TEXT_LIMIT = 1024 * 1024
_BOOT_CODE_LIMIT = 1024 * 1024
_DYNAMIC_LIMIT = 1024 * 1024
_BYTECODE_LIMIT = 16 * 1024 * 1024
_STUB_LIMIT = 1024
_DEPTH = 64  # how deep constants and functions of bytecode may lie in each other
# gzip, xz, lzma, bzip2, lzo, lz4, zstd (Linux, scripts/Makefile.lib), and a kernel that is not compressed
_KERNEL_PAYLOADS = (
    b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x5d\0\0", b"BZh", b"\x89LZO", b"\x02\x21\x4c\x18", b"\x28\xb5\x2f\xfd",
    b"\x7fELF",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """kind: one of the release kinds, or "text" for a declared one. container: how to open it, "" for a leaf."""

    kind: str
    container: Container | Literal[""] = ""


def judge(
    file: BinaryIO, size: int, *, name: str, inside: bool = False, declared: frozenset[str] = frozenset()
) -> Judgement:
    """Name the kind of ``size`` bytes of ``file``.

    name: only for messages. inside: the file lies in an archive or image, where two kinds of text may be: tables of
    numbers or of checksums, and texts that the recipes show to every reader (declared: their sha256; scripts,
    configuration). Raises OutputForbidden for anything else, OSError only for a disk that fails.
    """
    try:
        return _judge(file, size, name=name, inside=inside, declared=declared)
    except (ValueError, OverflowError, struct.error) as error:
        raise _unsound(name) from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise _unsound(name) from error


def _unsound(name: str) -> OutputForbidden:
    return OutputForbidden(f"{name} is damaged: its headers point to what is not there")


def _judge(file: BinaryIO, size: int, *, name: str, inside: bool, declared: frozenset[str]) -> Judgement:
    head = file.read(_HEAD)
    if size == 0 and inside:
        return Judgement(kind="text")
    for test in (_elf, _kernel, _efi_program, _boot_sector, _bytecode, _container):
        found = test(file, head, size, name)
        if found is not None:
            return found
    file.seek(0)
    if head[:1] in b"{[" and size <= JSON_LIMIT:
        return _human_json(file.read(size), name)
    if inside and _is_table(head, size):
        return Judgement(kind="table")
    file.seek(0)
    if inside and size <= _TEXT_LIMIT and hashlib.sha256(file.read(size)).hexdigest() in declared:
        return Judgement(kind="text")
    raise OutputForbidden(
        f"{name} is neither a binary, nor human JSON, nor a text that a recipe declares",
        hint="release static programs, kernels, bytecode, archives and images of these, or indented JSON;"
        " texts inside images must be files beside the recipe or Recipe.write",
    )


def _elf(file: BinaryIO, head: bytes, size: int, name: str) -> Judgement | None:
    if head[:4] != b"\x7fELF":
        return None
    if len(head) < 64 or head[4] != 2 or head[5] != 1:
        raise OutputForbidden(f"{name} is an ELF file, but not a 64-bit little-endian one")
    kind, phoff, phentsize, phnum = _elf_header(head)
    if kind not in {2, 3}:  # ET_EXEC, ET_DYN
        raise OutputForbidden(f"{name} is an ELF object file, not a program", hint="link it")
    if phentsize != 56 or phnum == 0 or phoff + 56 * phnum > size:
        raise OutputForbidden(f"{name} has no sound program headers")
    ends = [64, phoff + 56 * phnum]
    for number in range(phnum):
        file.seek(phoff + 56 * number)
        p_type, _, offset, _, _, filesz = struct.unpack("<IIQQQQ", file.read(40))
        if p_type == 3:  # PT_INTERP
            raise OutputForbidden(
                f"{name} is dynamically linked (it names an interpreter)", hint="link it with -static"
            )
        if p_type == 2 and (filesz > _DYNAMIC_LIMIT or offset + filesz > size):
            raise OutputForbidden(f"{name} has no sound dynamic section")
        if p_type == 2 and _needs_libraries(file, offset, filesz):
            raise OutputForbidden(f"{name} needs shared libraries", hint="link it with -static or -static-pie")
        ends.append(offset + filesz)
    if size > max([*ends, *_section_ends(file, head, size, name)]):
        raise OutputForbidden(f"{name} has something behind its last part, which no program needs")
    return Judgement(kind="elf-static")


def _section_ends(file: BinaryIO, head: bytes, size: int, name: str) -> Iterator[int]:
    """Where the sections end, and the table of them."""
    shoff, shentsize, shnum = struct.unpack_from("<Q", head, 40) + struct.unpack_from("<HH", head, 58)
    if not shoff:
        return
    if shentsize != 64 or shoff + 64 * shnum > size:
        raise OutputForbidden(f"{name} has no sound section headers")
    yield shoff + 64 * shnum
    file.seek(shoff)
    for section in struct.iter_unpack("<IIQQQQIIQQ", file.read(64 * shnum)):
        if section[1] != 8:  # SHT_NOBITS has no bytes in the file
            yield section[4] + section[5]


def _elf_header(head: bytes) -> tuple[int, int, int, int]:
    (kind,) = struct.unpack_from("<H", head, 16)
    (phoff,) = struct.unpack_from("<Q", head, 32)
    phentsize, phnum = struct.unpack_from("<HH", head, 54)
    return kind, phoff, phentsize, phnum


def _needs_libraries(file: BinaryIO, offset: int, length: int) -> bool:
    file.seek(offset)
    table = file.read(length)
    for tag, _ in struct.iter_unpack("<qQ", table[: len(table) // 16 * 16]):
        if tag == 0:  # DT_NULL
            break
        if tag == 1:  # DT_NEEDED
            return True
    return False


def _kernel(file: BinaryIO, head: bytes, size: int, name: str) -> Judgement | None:
    """A bzImage, by its setup header: it says how long it is, and where in it the compressed kernel lies."""
    if len(head) <= 0x250 or head[0x1FE:0x200] != b"\x55\xaa" or head[0x202:0x206] != b"HdrS":
        return None
    setup, version = head[0x1F1], struct.unpack_from("<H", head, 0x206)[0]
    (paragraphs,), (at, length) = struct.unpack_from("<I", head, 0x1F4), struct.unpack_from("<II", head, 0x248)
    start = 512 * ((setup or 4) + 1)
    file.seek(start + at)
    mark = file.read(8)
    if version < 0x208 or head[0x200] != 0xEB or size != start + 16 * paragraphs or at + length > size - start:
        raise OutputForbidden(f"{name} begins like a kernel, but its setup header does not fit it")
    if not mark.startswith(_KERNEL_PAYLOADS):
        raise OutputForbidden(f"{name} begins like a kernel, but there is none in it")
    return Judgement(kind="kernel-image")


def _efi_program(file: BinaryIO, head: bytes, size: int, name: str) -> Judgement | None:
    if head[:2] != b"MZ" or len(head) < 0x40:
        return None
    (offset,) = struct.unpack_from("<I", head, 0x3C)
    if head[offset : offset + 4] != b"PE\0\0" or offset + 0x5E > len(head):
        return None
    (subsystem,) = struct.unpack_from("<H", head, offset + 0x5C)
    if subsystem not in {10, 11, 12, 13}:  # EFI application, boot and runtime driver, ROM
        raise OutputForbidden(f"{name} is a PE program, but not one for EFI")
    # some shells run a file that begins with "MZ" and goes on as a script
    if b"\0" not in head[2:8] or offset > _STUB_LIMIT:
        raise OutputForbidden(f"{name} is a PE program that is something else as well")
    count, optional = struct.unpack_from("<H", head, offset + 6)[0], struct.unpack_from("<H", head, offset + 20)[0]
    table = offset + 24 + optional
    file.seek(table)
    sections = file.read(40 * count)
    ends = [table + 40 * count]
    for place in range(0, 40 * count, 40):
        length, start = struct.unpack_from("<II", sections, place + 16)
        ends.append(start + length)
    if size > max(ends):
        raise OutputForbidden(f"{name} has something behind its last part, which no program needs")
    return Judgement(kind="boot-loader")


def _boot_sector(_file: BinaryIO, head: bytes, size: int, _name: str) -> Judgement | None:
    """What a CD or disk starts with: GRUB's code, by how it begins and what it says when it fails, or a catalogue.

    GRUB's code for CDs may have been told its own length (xorriso's boot information table, at byte 8). The first
    entry of El Torito's catalogue has words that add up to nothing (El Torito 1.0, section 2.1).
    """
    if head[:5] == b"\xe8\0\0\xeb\x3b" and b"no boot info" in head[:2048] and b"cdrom read fails" in head[:2048]:
        told = struct.unpack_from("<I", head, 16)[0]
        return Judgement(kind="boot-loader") if size <= _BOOT_CODE_LIMIT and told in {0, size} else None
    if size == 512 and head[:2] == b"\xeb\x63" and b"GRUB \0Geom\0Hard Disk\0Read\0 Error" in head:
        return Judgement(kind="boot-loader")
    catalogue = size == 2048 and head[:1] == b"\x01" and head[30:32] == b"\x55\xaa" and not head[4:28].strip(b"\0")
    if catalogue and sum(struct.unpack("<16H", head[:32])) & 0xFFFF == 0 and not _words_in_catalogue(head):
        return Judgement(kind="boot-loader")
    return None


def _words_in_catalogue(data: bytes) -> bool:
    """Whether its entries hold more than numbers: a name in a section's header, selection criteria, another entry."""
    for at in range(32, 2048, 32):
        entry = data[at : at + 32]
        rest = entry[4:] if entry[0] in {0x90, 0x91} else entry[12:] if entry[0] in {0, 0x88} else b"x"
        if rest.strip(b"\0"):
            return True
    return False


def _bytecode(file: BinaryIO, head: bytes, size: int, name: str) -> Judgement | None:
    # "M", version 6, flags (no native code: architecture bits 0), small-int bits
    if head[:2] != b"M\x06" or len(head) <= 4 or head[2] >> 2 & 0xF or head[3] not in {31, 63}:
        return None
    if size > _BYTECODE_LIMIT:
        raise OutputForbidden(f"{name} is bytecode of more than {_BYTECODE_LIMIT} bytes")
    file.seek(4)
    reader = _Bytecode(file.read(size))
    reader.module()
    if reader.rest():
        raise OutputForbidden(f"{name} has something behind its bytecode")
    return Judgement(kind="bytecode")


class _Bytecode:
    """Goes over MicroPython's persistent code (py/persistentcode.c) to its end. Raises ValueError."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def module(self) -> None:
        """Names, constants, and the module's code with the functions in it."""
        names, constants = self._number(), self._number()
        for _ in range(names):
            length = self._number()
            if not length & 1:  # else the number of a name that every MicroPython knows
                self._skip((length >> 1) + 1)
        for _ in range(constants):
            self._constant(0)
        self._code(0)

    def rest(self) -> int:
        """How many bytes are left."""
        return len(self._data) - self._at

    def _constant(self, depth: int) -> None:
        kind = self._skip(1)[0]
        if kind > 10 or depth > _DEPTH:
            raise ValueError("no constant")
        if kind in {5, 6}:  # a text or bytes, with a zero behind
            self._skip(self._number() + 1)
        elif kind in {7, 8, 9}:  # a number, as text
            self._skip(self._number())
        elif kind == 10:  # a tuple
            for _ in range(self._number()):
                self._constant(depth + 1)

    def _code(self, depth: int) -> None:
        head = self._number()
        if head & 3 or depth > _DEPTH:  # bytecode is kind 0
            raise ValueError("no bytecode")
        self._skip(head >> 3)
        if head & 4:
            for _ in range(self._number()):
                self._code(depth + 1)

    def _number(self) -> int:
        value = 0
        for _ in range(5):
            byte = self._skip(1)[0]
            value = value << 7 | byte & 0x7F
            if not byte & 0x80:
                return value
        raise ValueError("no number")

    def _skip(self, count: int) -> bytes:
        data = self._data[self._at : self._at + count]
        if len(data) != count:
            raise ValueError("it ends in the middle")
        self._at += count
        return data


def _container(file: BinaryIO, head: bytes, size: int, _name: str) -> Judgement | None:
    archives: tuple[tuple[int, bytes, Container], ...] = (
        (0, b"\x1f\x8b\x08", "gzip"),
        (0, b"\xfd7zXZ\0", "xz"),
        (0, b"\x28\xb5\x2f\xfd", "zstd"),
        (0, b"BZh", "bzip2"),
        (0, b"070701", "cpio"),
        (257, b"ustar", "tar"),
        (0, b"hsqs", "squashfs"),
    )
    if head[32769:32774] == b"CD001":
        return Judgement(kind="iso-image", container="iso9660")
    for offset, mark, container in archives:
        if head[offset : offset + len(mark)] == mark:
            return Judgement(kind="archive", container=container)
    if head[510:512] == b"\x55\xaa" and (head[54:57] == b"FAT" or head[82:87] == b"FAT32"):
        return Judgement(kind="disk-image", container="fat")
    if size >= 64 * 1024 * 1024 and _has_uberblock(file):
        return Judgement(kind="disk-image", container="zfs")
    return None


def _has_uberblock(file: BinaryIO) -> bool:
    """A ZFS label holds 128 KiB of uberblocks from 128 KiB on; the magic is 0x00bab10c in either byte order."""
    file.seek(128 * 1024)
    ring = file.read(128 * 1024)
    marks = {b"\x0c\xb1\xba\0\0\0\0\0", b"\0\0\0\0\0\xba\xb1\x0c"}
    return any(ring[at : at + 8] in marks for at in range(0, len(ring), 1024))


_TABLE_LINE = re.compile(rb"[0-9a-f]{64}  [!-~]{1,200}|[0-9]{1,20}( [0-9]{1,20}){0,15}")


def _is_table(head: bytes, size: int) -> bool:
    """Lines of numbers, or of sha256sum's form: data that a program reads and that can say nothing else."""
    return size <= len(head) and head.endswith(b"\n") and all(map(_TABLE_LINE.fullmatch, head[:-1].split(b"\n")))


def _human_json(data: bytes, name: str) -> Judgement:
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise OutputForbidden(f"{name} begins like JSON but is none: {error}") from error
    if value and b"\n" not in data.strip():
        raise OutputForbidden(f"{name} is JSON on one line, which no person reads", hint="indent it")
    return Judgement(kind="human-json")


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no JSON")
