"""What the gate's eye calls some bytes, and what it refuses; every refusal stands beside a near twin that passes."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import io
import json
import os
import struct
from typing import TYPE_CHECKING

import pytest

from anvil.errors import OutputForbidden
from anvil.release.judge import judge

if TYPE_CHECKING:
    from pathlib import Path


def kind_of(data: bytes, *, inside: bool = False, declared: frozenset[str] = frozenset()) -> str:
    return judge(io.BytesIO(data), len(data), name="it", inside=inside, declared=declared).kind


def elf(*, kind: int = 2, bits: int = 2, segments: tuple[tuple[int, bytes], ...] = ((1, b""),)) -> bytes:
    """An ELF file with program headers of these types and contents."""
    header = b"\x7fELF" + bytes([bits, 1, 1]) + b"\0" * 9
    header += struct.pack("<HHIQQQIHHHHHH", kind, 62, 1, 0, 64, 0, 0, 64, 56, len(segments), 64, 0, 0)
    offset = 64 + 56 * len(segments)
    table, data = b"", b""
    for number, content in segments:
        place = offset + len(data)
        table += struct.pack("<IIQQQQQQ", number, 4, place, 0, 0, len(content), len(content), 8)
        data += content
    return header + table + data


NEEDED = struct.pack("<qQqQ", 1, 5, 0, 0)
NOTHING_NEEDED = struct.pack("<qQqQ", 7, 5, 0, 0)


@pytest.mark.parametrize("kind", [2, 3])
def test_a_static_program_passes(kind: int) -> None:
    program = elf(kind=kind, segments=((1, b""), (2, NOTHING_NEEDED)))
    assert kind_of(program) == "elf-static"
    with pytest.raises(OutputForbidden, match="behind its last part"):
        kind_of(program + b"#!/bin/sh\n")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (elf(segments=((3, b"/lib64/ld-linux-x86-64.so.2\0"),)), "interpreter"),
        (elf(kind=3, segments=((1, b""), (2, NEEDED))), "shared libraries"),
        (elf(kind=1), "object file"),
        (elf(kind=4), "object file"),
        (elf(bits=1), "64-bit"),
        (elf(segments=()), "program headers"),
        (elf()[:40], "64-bit"),
        (elf()[:56] + b"\xff\xff" + elf()[58:], "program headers"),
    ],
)
def test_other_elf_files_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(OutputForbidden, match=why):
        judge(io.BytesIO(data), len(data) if len(data) != 40 else 40, name="it")


@pytest.mark.parametrize(
    ("offset", "length"), [(2**64 - 1, 16), (2**63 - 1, 16), (176, 17), (0, 2**64 - 1), (2**40, 0)]
)
def test_a_dynamic_section_that_is_not_in_the_file_is_refused(offset: int, length: int) -> None:
    program = bytearray(elf(segments=((1, b""), (2, NOTHING_NEEDED[:16]))))
    struct.pack_into("<Q", program, 64 + 56 + 8, offset)
    struct.pack_into("<Q", program, 64 + 56 + 32, length)
    with pytest.raises(OutputForbidden, match="dynamic section"):
        kind_of(bytes(program))


def test_a_vast_dynamic_section_is_not_read(tmp_path: Path) -> None:
    size = 16 * 1024**3
    program = bytearray(elf(segments=((2, NOTHING_NEEDED),)))
    struct.pack_into("<Q", program, 64 + 32, size - 120)
    path = tmp_path / "vast"
    path.write_bytes(program)
    os.truncate(path, size)
    with path.open("rb") as file, pytest.raises(OutputForbidden, match="dynamic section"):
        judge(file, size, name="vast")


@pytest.mark.parametrize("place", [2**63 - 200, 2**64 - 200])
def test_program_headers_beyond_every_file_are_refused_even_when_the_size_lies(place: int) -> None:
    program = bytearray(elf())
    struct.pack_into("<Q", program, 32, place)
    with pytest.raises(OutputForbidden, match="damaged"):
        judge(io.BytesIO(program), 2**64, name="it")


class Failing(io.BytesIO):
    """A file on a disk that answers a seek with an error."""

    def __init__(self, number: int) -> None:
        super().__init__(elf())
        self._number = number

    def seek(self, _offset: int, _whence: int = 0, /) -> int:
        """Fail."""
        raise OSError(self._number, "said the test")


def test_an_offset_that_the_system_refuses_is_a_verdict_and_a_failing_disk_is_none() -> None:
    with pytest.raises(OutputForbidden, match="damaged"):
        judge(Failing(errno.EINVAL), 120, name="it")
    with pytest.raises(OSError, match="said the test"):
        judge(Failing(errno.EIO), 120, name="it")


@pytest.mark.parametrize("inside", [False, True])
def test_no_short_head_breaks_a_parser(inside: bool) -> None:  # noqa: FBT001 - a parameter of the test
    whole = (elf(), bzimage(), efi(10), iso(), fat(), gzip.compress(b"x"), b"M\x06\0\x1f\0", b"\1" * 32)
    for data in whole:
        for length in (*range(100), *range(250, 270), *range(505, 530), 2048):
            for size in {length, 2048, len(data)}:
                with contextlib.suppress(OutputForbidden):
                    judge(io.BytesIO(data[:length]), size, name="it", inside=inside)


@pytest.mark.parametrize("offset", [0x3F, 511, 2**31, 2**32 - 1])
def test_a_pe_header_elsewhere_is_no_program(offset: int) -> None:
    program = bytearray(efi(10))
    struct.pack_into("<I", program, 0x3C, offset)
    with pytest.raises(OutputForbidden):
        kind_of(bytes(program))


def bzimage() -> bytes:
    """One sector of set-up after the first, then a kernel of 1 KiB, of which 100 bytes are the payload."""
    data = bytearray(2048)
    data[0x1F1] = 1
    struct.pack_into("<I", data, 0x1F4, 64)
    data[0x1FE:0x206] = b"\x55\xaa\xeb\x6aHdrS"
    struct.pack_into("<H", data, 0x206, 0x20F)
    struct.pack_into("<II", data, 0x248, 16, 100)
    data[1024 + 16 : 1024 + 19] = b"\x1f\x8b\x08"
    return bytes(data)


def test_a_kernel_is_known_by_its_boot_header() -> None:
    assert kind_of(bzimage()) == "kernel-image"
    script = b"#!/bin/sh\necho not a kernel\n"
    for bad in (
        bzimage().replace(b"HdrS", b"HdrT"),
        bzimage().replace(b"\x1f\x8b\x08", b"#!/"),
        bzimage() + script,
        script + bzimage()[len(script) : 0x1F0] + bytes(16) + bzimage()[0x200:],
    ):
        with pytest.raises(OutputForbidden):
            kind_of(bad)


def efi(subsystem: int) -> bytes:
    data = bytearray(512)
    data[:2] = b"MZ"
    struct.pack_into("<I", data, 0x3C, 0x80)
    data[0x80:0x84] = b"PE\0\0"
    struct.pack_into("<HH", data, 0x80 + 6, 1, 0)  # one section, behind an empty optional header
    struct.pack_into("<II", data, 0x80 + 24 + 16, 256, 256)
    struct.pack_into("<H", data, 0x80 + 0x5C, subsystem)
    return bytes(data)


def test_an_efi_program_is_a_boot_loader_and_a_windows_one_is_not() -> None:
    assert kind_of(efi(10), inside=True) == "boot-loader"
    with pytest.raises(OutputForbidden, match="not one for EFI"):
        kind_of(efi(3), inside=True)
    with pytest.raises(OutputForbidden, match="behind its last part"):
        kind_of(efi(10) + b"#!/bin/sh\n", inside=True)
    with pytest.raises(OutputForbidden, match="something else as well"):
        kind_of(b"MZqFpD=1" + efi(10)[8:], inside=True)


def zfs_pool() -> bytes:
    data = bytearray(64 * 1024 * 1024)
    data[128 * 1024 : 128 * 1024 + 8] = struct.pack("<Q", 0x00BAB10C)
    return bytes(data)


def iso() -> bytes:
    data = bytearray(40 * 1024)
    data[32769:32774] = b"CD001"
    return bytes(data)


def fat() -> bytes:
    data = bytearray(4096)
    data[54:59] = b"FAT12"
    data[510:512] = b"\x55\xaa"
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "kind", "container"),
    [
        (gzip.compress(b"x"), "archive", "gzip"),
        (b"\xfd7zXZ\0" + b"\0" * 20, "archive", "xz"),
        (b"\x28\xb5\x2f\xfd" + b"\0" * 20, "archive", "zstd"),
        (b"BZh9" + b"\0" * 20, "archive", "bzip2"),
        (b"070701" + b"0" * 104, "archive", "cpio"),
        (b"\0" * 257 + b"ustar\0", "archive", "tar"),
        (b"hsqs" + b"\0" * 100, "archive", "squashfs"),
        (iso(), "iso-image", "iso9660"),
        (fat(), "disk-image", "fat"),
        (zfs_pool(), "disk-image", "zfs"),
    ],
)
def test_containers_are_known_so_that_they_are_opened(data: bytes, kind: str, container: str) -> None:
    judgement = judge(io.BytesIO(data), len(data), name="it")
    assert (judgement.kind, judgement.container) == (kind, container)


def test_human_json_is_indented_and_sound() -> None:
    value = {"name": "it", "list": [1, 2]}
    assert kind_of(json.dumps(value, indent=2).encode()) == "human-json"
    for bad in (json.dumps(value), '{"a": NaN\n}', '{"a": 1,\n}', '{"a":\n"\ud800"}', "[" * 5000 + "\n" + "]" * 5000):
        with pytest.raises(OutputForbidden):
            kind_of(bad.encode("utf-8", "surrogatepass"))


TEXT = b"#!/bin/sh\necho hello\n"


def test_a_text_passes_only_inside_an_image_and_only_when_a_recipe_shows_it() -> None:
    shown = frozenset({hashlib.sha256(TEXT).hexdigest()})
    assert kind_of(TEXT, inside=True, declared=shown) == "text"
    for inside, declared in ((False, shown), (True, frozenset[str]())):
        with pytest.raises(OutputForbidden, match="neither a binary"):
            kind_of(TEXT, inside=inside, declared=declared)


@pytest.mark.parametrize("table", [b"1 2\n30 4\n", b"a" * 64 + b"  rootfs.squashfs\n"])
def test_a_table_passes_only_inside(table: bytes) -> None:
    assert kind_of(table, inside=True) == "table"
    with pytest.raises(OutputForbidden):
        kind_of(table)


@pytest.mark.parametrize(
    "text", [b"1 2", b"1;2\n", b"a" * 63 + b"  x\n", b"1 2\n\n", b"print(1)\n", b"a" * 64 + b"  \xff\n"]
)
def test_what_only_looks_like_a_table_is_refused(text: bytes) -> None:
    with pytest.raises(OutputForbidden):
        kind_of(text, inside=True)


def test_boot_sectors_are_known_by_what_they_say_when_they_fail() -> None:
    cd = (b"\xe8\0\0\xeb\x3b" + b"\0" * 59 + b"no boot info\0cdrom read fails\0").ljust(2048, b"\0")
    disk = (b"\xeb\x63" + b"\0" * 380 + b"GRUB \0Geom\0Hard Disk\0Read\0 Error\r\n\0").ljust(512, b"\0")
    assert kind_of(cd) == "boot-loader"
    assert kind_of(cd[:16] + struct.pack("<I", 2048) + cd[20:]) == "boot-loader"
    assert kind_of(disk) == "boot-loader"
    for bad in (
        cd.replace(b"cdrom", b"cdram"),
        cd.ljust(2 * 1024 * 1024, b"\0"),
        cd[:16] + struct.pack("<I", 2048) + cd[20:] + b"#!/bin/sh\n",
        b"# no boot info, cdrom read fails\necho hello\n",
        disk + b"#!/bin/sh\n",
        b"# " + disk[2:],
    ):
        with pytest.raises(OutputForbidden):
            kind_of(bad)


def test_the_catalogue_of_a_cd_is_known_by_its_checksum() -> None:
    entry = bytearray(2048)
    entry[0], entry[30], entry[31] = 1, 0x55, 0xAA
    struct.pack_into("<H", entry, 28, -(1 + 0xAA55) & 0xFFFF)
    assert kind_of(bytes(entry), inside=True) == "boot-loader"
    for place in (4, 32 + 15, 64, 2047):
        bad = bytearray(entry)
        bad[place] = 1
        with pytest.raises(OutputForbidden):
            kind_of(bytes(bad), inside=True)


def test_bytecode_without_native_code_passes() -> None:
    # one name of three letters and one that is known, a text and a tuple of None; code of four bytes with one function
    module = b"M\x06\0\x1f" + b"\2\2" + b"\6abc\0" + b"\x0b" + b"\5\2hi\0" + b"\x0a\1\1" + b"\x24code\1\x08f"
    assert kind_of(module) == "bytecode"
    for bad in (module[:2] + b"\x08" + module[3:], module[:-1], module + b"#!/bin/sh\n", b"M\x06\0\x1f#!/bin/sh\n"):
        with pytest.raises(OutputForbidden):
            kind_of(bad)


def test_an_empty_file_is_no_artifact_but_may_lie_in_an_image() -> None:
    assert kind_of(b"", inside=True) == "text"
    with pytest.raises(OutputForbidden):
        kind_of(b"")
