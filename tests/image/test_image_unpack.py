"""The unpacker against packages that want out."""

from __future__ import annotations

import contextlib
import io
import lzma
import os
import stat
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anvil.errors import IntegrityError
from anvil.image.deb import Deb
from anvil.image.unpack import Caps, Tally, Tree, unpack
from tests.image.forged_debs import BASE, MTIME, TOOL, Member, ar, deb, folder, link, tar

if TYPE_CHECKING:
    from collections.abc import Sequence

SECRET = "the host's own\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What an escape would reach."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "secret").write_text(SECRET)
    return place


def place(root: Path, *members: Member, caps: Caps | None = None) -> Tally:
    tally = Tally()
    with Tree(root) as tree:
        unpack(tree, io.BytesIO(tar(*members)), where="forged.deb", caps=caps or Caps(), tally=tally)
    return tally


def is_untouched(outside: Path) -> bool:
    return os.listdir(outside) == ["secret"] and (outside / "secret").read_text() == SECRET


def test_files_links_modes_and_times_arrive(root: Path) -> None:
    tally = place(
        root,
        folder("./"),
        folder("./a/", 0o750),
        Member(name="./a/run", data=b"x" * 3000, mode=0o755, mtime=MTIME + 5),
        Member(name="./a/same", type=tarfile.LNKTYPE, link="a/run"),
        link("./a/also", "run"),
    )
    assert (root / "a/run").read_bytes() == b"x" * 3000
    assert stat.S_IMODE((root / "a/run").stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o750
    assert (root / "a/run").stat().st_mtime == MTIME + 5
    assert (root / "a/run").stat().st_ino == (root / "a/same").stat().st_ino
    assert os.readlink(root / "a/also") == "run"
    assert (tally.newest, tally.unpacked_bytes, tally.entries) == (MTIME + 5, 3000, 5)
    assert (root / "a/run").stat().st_uid == os.geteuid()


def test_the_links_of_a_merged_usr_lead_inside(root: Path) -> None:
    place(root, folder("./usr/lib"), link("./lib", "usr/lib"), link("./lib64", "/usr/lib"))
    place(root, folder("./lib/"), Member(name="./lib/libc.so", data=b"c"), Member(name="./lib64/ld.so", data=b"l"))
    assert sorted(os.listdir(root / "usr/lib")) == ["ld.so", "libc.so"]
    assert (root / "lib").is_symlink()


def test_set_id_bits_are_dropped_and_devices_left_out(root: Path) -> None:
    tally = place(
        root,
        Member(name="su", mode=0o6755),
        folder("sticky", 0o7777),
        Member(name="null", type=tarfile.CHRTYPE),
        Member(name="disk", type=tarfile.BLKTYPE),
        Member(name="pipe", type=tarfile.FIFOTYPE),
    )
    assert stat.S_IMODE((root / "su").stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "sticky").stat().st_mode) == 0o777
    assert tally.skipped == ["/null", "/disk", "/pipe"]
    assert sorted(os.listdir(root)) == ["sticky", "su"]


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "./a/..", "line\nbreak", "bell\x07"])
def test_names_that_lead_out_are_refused(root: Path, name: str) -> None:
    with pytest.raises(IntegrityError, match="holds a"):
        place(root, Member(name=name, data=b"x"))
    assert os.listdir(root) == []


def test_a_name_that_is_not_utf8_is_refused(root: Path) -> None:
    raw = tar(Member(name="X" * 7)).replace(b"X" * 7, b"\xff" + b"X" * 6)
    raw = _with_sum(raw)
    with Tree(root) as tree, pytest.raises(IntegrityError, match="damaged"):
        unpack(tree, io.BytesIO(raw), where="forged.deb", caps=Caps(), tally=Tally())


def _with_sum(raw: bytes) -> bytes:
    """Mend a first header's checksum."""
    header = bytearray(raw[:512])
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + raw[512:]


def escapes(outside: Path) -> dict[str, Sequence[Member]]:
    up = "../" * 12
    return {
        "through an absolute link": (link("x", str(outside)), Member(name="x/new", data=b"x")),
        "through a relative link": (link("x", f"{up}{str(outside)[1:]}"), Member(name="x/new", data=b"x")),
        "through two links": (link("x", "y"), link("y", str(outside)), Member(name="x/new", data=b"x")),
        "onto a link": (link("x", str(outside / "secret")), Member(name="x", data=b"x")),
        "a folder onto a link": (link("x", str(outside)), folder("x", 0o777), Member(name="x/new", data=b"x")),
    }


ESCAPES = sorted(escapes(Path("/")))


@pytest.mark.parametrize("way", ESCAPES)
def test_no_way_leads_out(root: Path, outside: Path, way: str) -> None:
    # Refused, or the link's target taken as a path inside the root: both are right, outside must not know.
    with contextlib.suppress(IntegrityError):
        place(root, *escapes(outside)[way])
    assert is_untouched(outside)


@pytest.mark.parametrize("way", ESCAPES)
def test_each_way_does_lead_out_for_a_careless_unpacker(root: Path, outside: Path, way: str) -> None:
    """The negative control: without the resolver these archives reach the host."""
    with tarfile.open(fileobj=io.BytesIO(tar(*escapes(outside)[way]))) as archive:
        for member in archive:
            target = root / member.name
            if member.issym():
                target.symlink_to(member.linkname)
            elif member.isreg():
                file = archive.extractfile(member)
                assert file is not None
                target.write_bytes(file.read())
    assert not is_untouched(outside)


def test_a_hard_link_brings_nothing_in(root: Path, outside: Path) -> None:
    for target in ("x/secret", "y", str(outside / "secret"), "../outside/secret"):
        with pytest.raises(IntegrityError):
            place(
                root,
                link(f"{len(os.listdir(root))}", "nowhere"),
                *([] if (root / "x").is_symlink() else [link("x", str(outside)), link("y", str(outside / "secret"))]),
                Member(name="stolen", type=tarfile.LNKTYPE, link=target),
            )
        assert not os.path.lexists(root / "stolen")


def test_links_in_a_ring_end(root: Path) -> None:
    with pytest.raises(IntegrityError, match="cannot be unpacked"):
        place(root, link("a", "b"), link("b", "a"), Member(name="a/file"))


def test_two_packages_may_not_hold_one_file(root: Path) -> None:
    place(root, Member(name="etc/file", data=b"first"))
    with pytest.raises(IntegrityError, match="/etc/file"):
        place(root, Member(name="etc/file", data=b"second"))
    assert (root / "etc/file").read_bytes() == b"first"


def test_a_file_is_no_folder(root: Path) -> None:
    with pytest.raises(IntegrityError):
        place(root, Member(name="a"), Member(name="a/b"))


def test_caps_on_entries_and_bytes(root: Path) -> None:
    with pytest.raises(IntegrityError, match="3 entries"):
        place(root, *[folder(f"d{n}") for n in range(4)], caps=Caps(entries=3))
    with pytest.raises(IntegrityError, match="1000 bytes"):
        place(root, Member(name="big", data=b"x" * 1001), caps=Caps(unpacked_bytes=1000))
    assert not (root / "big").exists()


NAMES = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map("/".join)
TARGETS = st.lists(st.sampled_from(["a", "b", "..", "", "OUT"]), min_size=1, max_size=6).map("/".join)
MEMBERS = st.one_of(
    NAMES.map(folder),
    st.builds(link, NAMES, TARGETS.filter(bool)),
    NAMES.map(lambda name: Member(name=name, data=b"x")),
    st.builds(lambda name, target: Member(name=name, type=tarfile.LNKTYPE, link=target), NAMES, NAMES),
)


@given(st.lists(MEMBERS, max_size=12))
def test_whatever_an_archive_holds_outside_stays_as_it_was(members: list[Member]) -> None:
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        (top / "root").mkdir()
        (top / "outside").mkdir()
        (top / "outside/secret").write_text(SECRET)
        out = str(top / "outside")
        members = [
            Member(name=each.name, data=each.data, type=each.type, link=each.link.replace("OUT", out))
            for each in members
        ]
        with contextlib.suppress(IntegrityError):
            place(top / "root", *members)
        assert is_untouched(top / "outside")
        assert sorted(os.listdir(top)) == ["outside", "root"]


# ---- the package itself


def read(tmp_path: Path, data: bytes, limit: int = 1 << 20) -> bytes:
    path = tmp_path / "x.deb"
    path.write_bytes(data)
    package = Deb(path, max_unpacked=limit)
    package.control()
    spool = io.BytesIO()
    package.expand_data(spool)
    return spool.read()


@pytest.mark.parametrize("compress", ["", ".xz", ".gz", ".bz2"])
def test_every_compression_of_old_and_new_packages(tmp_path: Path, compress: str) -> None:
    members = (Member(name="./a", data=os.urandom(5000)), Member(name="./b", data=b"y" * 3_000_000))
    assert read(tmp_path, deb(*members, compress=compress), 4 << 20) == tar(*members)


def test_control_fields_and_scripts(tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_bytes(TOOL)
    control = Deb(tmp_path / "x.deb", max_unpacked=1).control()
    assert control.fields["Multi-Arch"] == "same"
    assert control.fields["Description"] == "a tool\n of two lines"
    assert sorted(control.files) == ["preinst", "templates"]


@pytest.mark.parametrize("compress", [".xz", ".gz", ".bz2", ""])
def test_a_bomb_stops_at_the_cap(tmp_path: Path, compress: str) -> None:
    bomb = deb(Member(name="zeros", data=bytes(64 << 20)), compress=compress)
    with pytest.raises(IntegrityError, match=r"unpacks to more than 1048576 bytes"):
        read(tmp_path, bomb)


def test_zstd_is_named_when_it_is_met(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"data\.tar\.zst has a compression that is not supported"):
        read(tmp_path, ar(debian_binary=b"2.0\n", control_tar=tar(), data_tar_zst=b"(\xb5/\xfd"))


GOOD = deb(Member(name="a", data=os.urandom(2000)))
DAMAGE = {
    "not ar": b"PK\x03\x04" + GOOD[4:],
    "cut in a header": GOOD[:30],
    "cut in the data": GOOD[:-100],
    "empty": b"",
    "no data.tar": ar(debian_binary=b"2.0\n", control_tar=tar()),
    "no control.tar": ar(debian_binary=b"2.0\n", data_tar=tar()),
    "a size that is no number": GOOD.replace(b"4         `", b"-4        `"),
    "a flipped byte": GOOD[:-700] + bytes([GOOD[-700] ^ 1]) + GOOD[-699:],
    "xz without an end": ar(debian_binary=b"2.0\n", control_tar=tar(), data_tar_xz=lzma.compress(bytes(99))[:-8]),
    "too many members": ar(debian_binary=b"2.0\n", **{f"m{n}": b"" for n in range(20)}),
    "control not UTF-8": ar(control_tar=tar(Member(name="control", data=b"\xff")), data_tar=tar()),
}


@pytest.mark.parametrize("what", sorted(DAMAGE))
def test_damage_is_an_integrity_error_that_names_the_package(tmp_path: Path, what: str) -> None:
    with pytest.raises(IntegrityError, match=r"x\.deb") as caught:
        read(tmp_path, DAMAGE[what])
    assert "anvil sources update" in caught.value.hint


def test_a_damaged_tar_is_an_integrity_error(root: Path) -> None:
    raw = bytearray(tar(Member(name="a", data=b"x" * 600)))
    with Tree(root) as tree, pytest.raises(IntegrityError):
        unpack(tree, io.BytesIO(bytes(raw[:700])), where="forged.deb", caps=Caps(), tally=Tally())


def test_the_base_package_of_the_other_tests_is_good(tmp_path: Path) -> None:
    assert read(tmp_path, BASE)
