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
from typing import BinaryIO, Literal

from anvil.errors import OutputForbidden

Container = Literal["gzip", "xz", "zstd", "bzip2", "cpio", "tar", "squashfs", "iso9660", "fat", "zfs"]

JSON_LIMIT = 16 * 1024 * 1024
_HEAD = 40 * 1024
_TEXT_LIMIT = 1024 * 1024
_BOOT_CODE_LIMIT = 1024 * 1024
_DYNAMIC_LIMIT = 1024 * 1024


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
    return Judgement(kind="elf-static")


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


def _kernel(_file: BinaryIO, head: bytes, _size: int, _name: str) -> Judgement | None:
    if len(head) > 0x206 and head[0x1FE:0x200] == b"\x55\xaa" and head[0x202:0x206] == b"HdrS":
        return Judgement(kind="kernel-image")
    return None


def _efi_program(_file: BinaryIO, head: bytes, _size: int, name: str) -> Judgement | None:
    if head[:2] != b"MZ" or len(head) < 0x40:
        return None
    (offset,) = struct.unpack_from("<I", head, 0x3C)
    if head[offset : offset + 4] != b"PE\0\0" or offset + 0x5E > len(head):
        return None
    (subsystem,) = struct.unpack_from("<H", head, offset + 0x5C)
    if subsystem not in {10, 11, 12, 13}:  # EFI application, boot and runtime driver, ROM
        raise OutputForbidden(f"{name} is a PE program, but not one for EFI")
    return Judgement(kind="boot-loader")


def _boot_sector(_file: BinaryIO, head: bytes, size: int, _name: str) -> Judgement | None:
    """What a CD or disk starts with: GRUB's code, by the words it says when it fails, or El Torito's catalogue."""
    cd = b"no boot info" in head[:2048] and b"cdrom read fails" in head[:2048]
    disk = b"GRUB \0Geom\0Hard Disk\0Read\0 Error" in head[:512]
    if (cd or disk) and size <= _BOOT_CODE_LIMIT:
        return Judgement(kind="boot-loader")
    # the catalogue of boot images: its first entry's words add up to nothing (El Torito 1.0, section 2.1)
    catalogue = size == 2048 and head[:1] == b"\x01" and head[30:32] == b"\x55\xaa"
    if catalogue and sum(struct.unpack("<16H", head[:32])) & 0xFFFF == 0:
        return Judgement(kind="boot-loader")
    return None


def _bytecode(_file: BinaryIO, head: bytes, _size: int, _name: str) -> Judgement | None:
    # "M", version 6, flags (no native code: architecture bits 0), small-int bits
    if head[:2] == b"M\x06" and len(head) > 4 and head[2] >> 2 & 0xF == 0 and head[3] in {31, 63}:
        return Judgement(kind="bytecode")
    return None


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
