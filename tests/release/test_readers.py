"""The gate's strict readers of tar, gzip, bzip2 and squashfs: every trick beside a twin that passes.

Those of FAT and ISO 9660 need images that only their tools make: they are tested in the cell (tests.hostile.own_gate,
tests/mainframe/test_release_gate.py).
"""

from __future__ import annotations

import bz2
import gzip
import io
import struct
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from anvil.release import squash, streams, ustar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXT = b"a script that nobody has seen\n"


def members(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tar(*entries: tuple[str, bytes, dict[str, Any]], form: int = tarfile.USTAR_FORMAT) -> bytes:
    """An archive of (name, data, fields of TarInfo)."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as archive:
        for name, data, fields in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(data))
    return made.getvalue()


FOLDER = {"type": tarfile.DIRTYPE}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_honest_tar_archives_are_read(tmp_path: Path, form: int) -> None:
    long = "/".join(["n" * 60] * 3)
    link = {"type": tarfile.SYMTYPE, "linkname": "../" * 20 + "x"}
    data = tar(
        ("./bin", b"", FOLDER),
        ("./bin/one", TEXT, {"mtime": 1.5 if form == tarfile.PAX_FORMAT else 1, "uname": "anvil"}),
        (long, b"two", {}),
        ("bin/link", b"", link),
        ("bin/twin", b"", {"type": tarfile.LNKTYPE, "linkname": "./bin/one"}),
        form=form,
    )
    ustar.extract(io.BytesIO(data), tmp_path)
    assert members(tmp_path) == {"bin/one": TEXT, long: b"two"}


def _bad_tars() -> Iterator[tuple[str, bytes]]:
    good = tar(("one", TEXT, {}))
    yield "between two members", good[: 512 + len(TEXT)] + b"x" + good[513 + len(TEXT) :]
    yield "behind the archive's end", good[:2048] + good
    yield "has no end", good[:1024]
    yield "ends in the middle", good[:520]
    yield "damaged or missing", good[:100] + b"7" + good[101:]
    yield "no reader needs", tar(("one", TEXT, {"pax_headers": {"comment": "x"}}), form=tarfile.PAX_FORMAT)
    yield "no reader needs", tar(("one", TEXT, {"pax_headers": {"SCHILY.xattr.user.x": "x"}}), form=tarfile.PAX_FORMAT)
    yield "a strange mtime", tar(("one", TEXT, {"pax_headers": {"mtime": "a text"}}), form=tarfile.PAX_FORMAT)
    yield "strange name", tar(("one", TEXT, {"uname": "a text of words"}))
    yield "there twice", tar(("one", TEXT, {}), ("./one", TEXT, {}))
    yield "no plain relative path", tar(("../one", TEXT, {}))
    yield "below a link", tar(("d", b"", {"type": tarfile.SYMTYPE, "linkname": "/tmp"}), ("d/x", TEXT, {}))
    yield "neither a file", tar(("null", b"", {"type": tarfile.CHRTYPE}))
    yield "neither a file", tar(("d", TEXT, FOLDER))
    yield "neither a file", tar(("twin", b"", {"type": tarfile.LNKTYPE, "linkname": "gone"}))


@pytest.mark.parametrize(("why", "data"), list(_bad_tars()))
def test_what_tar_would_pass_over_is_refused(tmp_path: Path, why: str, data: bytes) -> None:
    with pytest.raises(ValueError, match=why):
        ustar.extract(io.BytesIO(data), tmp_path)


BIG = bytes(range(256)) * 20_000


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(BIG, mtime=0),
        gzip.compress(BIG[:9]) + gzip.compress(BIG[9:]),
        gzip.compress(BIG) + bytes(1000),
        gzip.compress(BIG)[:3] + b"\x08" + gzip.compress(BIG)[4:10] + b"name.img\0" + gzip.compress(BIG)[10:],
        bz2.compress(BIG),
        bz2.compress(BIG[:9]) + bz2.compress(BIG[9:]),
    ],
)
def test_honest_streams_are_read(tmp_path: Path, data: bytes) -> None:
    streams.extract(io.BufferedReader(io.BytesIO(data)), tmp_path)
    assert (tmp_path / "content").read_bytes() == BIG


def _with(flag: int, more: bytes) -> bytes:
    whole = gzip.compress(BIG)
    return whole[:3] + bytes([flag]) + whole[4:10] + more + whole[10:]


@pytest.mark.parametrize(
    "data",
    [
        _with(16, TEXT + b"\0"),
        _with(4, struct.pack("<H", len(TEXT)) + TEXT),
        _with(8, b"a\x1bname\0"),
        gzip.compress(BIG) + TEXT,
        gzip.compress(BIG) + bytes(100) + gzip.compress(TEXT),
        gzip.compress(BIG)[:-1] + b"x",
        gzip.compress(BIG)[:-20],
        bz2.compress(BIG) + TEXT,
        bz2.compress(BIG)[:-20],
    ],
)
def test_what_a_stream_hides_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises((ValueError, OSError, EOFError)):
        streams.extract(io.BufferedReader(io.BytesIO(data)), tmp_path)


def squashfs(*, end: int = 200, attributes: int = (1 << 64) - 1, version: int = 4) -> bytes:
    block = bytearray(200)
    struct.pack_into("<HH", block, 28, version, 0)
    struct.pack_into("<QQQ", block, 40, end, 96, attributes)
    return bytes(block)


def test_a_squashfs_ends_where_it_says_and_has_no_attributes() -> None:
    squash.check(io.BytesIO(squashfs() + bytes(4096)))
    for bad in (squashfs() + TEXT, squashfs(attributes=150), squashfs(end=300), squashfs(version=3), b"hsqs"):
        with pytest.raises(ValueError, match=r"end|attributes|superblock"):
            squash.check(io.BytesIO(bad))
