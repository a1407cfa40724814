from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from anvil.errors import UsageError
from anvil.model.lock import PinnedFile
from anvil.sources import mirrors
from anvil.sources.mirrors import Mirrors, find, from_apt

from .misbehaving_server import pin

if TYPE_CHECKING:
    from pathlib import Path

LIST = """\
# deb http://commented.example/debian trixie main
deb http://one.example/debian/ trixie main contrib
deb-src [arch=amd64 signed-by=/usr/share/keyrings/k.gpg] https://two.example/pub/debian trixie main
 deb http://one.example/debian trixie-updates main # the same again
deb [ trusted=yes ] http://sec.example/debian-security trixie-security main
deb http://other.example/ubuntu noble main
deb cdrom:[Debian]/debian trixie main
deb mirror+file:/etc/apt/mirrors/debian trixie main
deb ftp://old.example/debian trixie main
deb tor+https://onion.example/debian trixie main
deb https://user:word@private.example/debian trixie main
deb file:/srv/mirror/debian trixie main
rpm http://no.example/debian x y
debris http://no.example/debian x y
"""
SOURCES = """\
# a comment
Types: deb
# http://snapshot.example/archive/debian/20250520T000000Z
URIs: http://one.example/debian
  https://cache.example/debian
Suites: trixie trixie-updates
Components: main

Types: deb deb-src
URIs: http://one.example/debian-security/
Suites: trixie-security

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: trixie

Types: deb
uris: http://snap.example/archive/debian/20250520T000000Z
Suites: trixie
"""


def apt(tmp_path: Path, *, one: str = "", lists: str = "", sources: str = "") -> Path:
    folder = tmp_path / "apt"
    (folder / "sources.list.d").mkdir(parents=True, exist_ok=True)
    (folder / "sources.list").write_text(one)
    (folder / "sources.list.d/x.list").write_text(lists)
    (folder / "sources.list.d/x.list.disabled").write_text("deb http://no.example/debian trixie main\n")
    (folder / "sources.list.d/debian.sources").write_text(sources)
    return folder


def test_one_line_lists(tmp_path: Path) -> None:
    assert from_apt(apt(tmp_path, one=LIST)) == {
        "debian": ("http://one.example/debian", "https://two.example/pub/debian", "file:///srv/mirror/debian"),
        "debian-security": ("http://sec.example/debian-security",),
    }


def test_deb822_sources(tmp_path: Path) -> None:
    assert from_apt(apt(tmp_path, sources=SOURCES)) == {
        "debian": (
            "http://one.example/debian",
            "https://cache.example/debian",
            "http://snap.example/archive/debian/20250520T000000Z",
        ),
        "debian-security": ("http://one.example/debian-security",),
    }


def test_all_of_apts_files_and_the_security_archive_beside(tmp_path: Path) -> None:
    folder = apt(tmp_path, one="deb http://a.example/debian x main", lists="deb http://b.example/debian x main")
    assert find(apt=folder).bases == {
        "debian": ("http://a.example/debian", "http://b.example/debian"),
        "debian-security": ("http://a.example/debian-security", "http://b.example/debian-security"),
    }
    snap = apt(tmp_path, sources="URIs: http://s.example/archive/debian/20250520T000000Z\n")
    assert find(apt=snap).bases["debian-security"] == ("http://s.example/archive/debian-security/20250520T000000Z",)
    security = apt(tmp_path, one="deb http://a.example/debian-security x main", sources="")
    assert find(apt=security).bases["debian"] == ("http://a.example/debian",)


def test_a_setting_takes_apts_place(tmp_path: Path) -> None:
    folder = apt(tmp_path, one="deb http://a.example/debian x main\ndeb http://s.example/debian-security x main")
    found = find(apt=folder, settings={"debian": " http://mine.example/debian/  https://two.example/debian\n"})
    assert found.bases["debian"] == ("http://mine.example/debian", "https://two.example/debian")
    assert found.bases["debian-security"] == (
        "http://mine.example/debian-security",
        "https://two.example/debian-security",
        "http://s.example/debian-security",
    )
    assert find(apt=folder, settings={"local": "file:///srv/x"}).bases["local"] == ("file:///srv/x",)
    assert find(apt=folder, settings={"debian": " "}).bases["debian"] == ("http://a.example/debian",)


@pytest.mark.parametrize("bad", ["mirror.example/debian", "ftp://a/debian", "https://u:p@a/debian", "file://host/x"])
def test_a_setting_that_is_no_address_is_a_usage_error(tmp_path: Path, bad: str) -> None:
    with pytest.raises(UsageError) as caught:
        find(apt=tmp_path, settings={"debian": bad})
    assert caught.value.where == "ANVIL_MIRROR_DEBIAN"


def test_no_apt_is_no_mirror(tmp_path: Path) -> None:
    assert find(apt=tmp_path / "none").bases == {}
    assert find(apt=tmp_path).addresses(pin("pool/a", b"")) == ()
    assert mirrors.setting_name("debian-security") == "ANVIL_MIRROR_DEBIAN_SECURITY"


@pytest.mark.parametrize("text", ["URIs", "\0\xff", " URIs: http://a.example/debian", ":", "URIs: http://[bad/debian"])
def test_a_broken_configuration_gives_nothing(tmp_path: Path, text: str) -> None:
    assert from_apt(apt(tmp_path, one=text, sources=text)) == {}


def test_addresses_in_order() -> None:
    file = pin("pool/main/z/zlib_1.3+really1~.tar gz", b"x")
    found = Mirrors(
        bases={"debian": ("http://a.example/debian", "file:///srv/debian")},
        snapshot="https://snap.example/archive/{archive}/{day}T000000Z/{path}",
        days=("2026-11-24",),
    )
    assert found.addresses(file) == (
        "http://a.example/debian/pool/main/z/zlib_1.3+really1~.tar%20gz",
        "file:///srv/debian/pool/main/z/zlib_1.3+really1~.tar%20gz",
        "https://snap.example/archive/debian/20261124T000000Z/pool/main/z/zlib_1.3+really1~.tar%20gz",
    )
    other = PinnedFile(name="x", sha256="0" * 64, size=1, url="https://up.example/x")
    assert found.addresses(other) == ("https://up.example/x",)


@pytest.mark.parametrize(
    "bad", ["https://s.example/{day}", "{path}", "https://s.example/{nope}/{path}", "https://s/{path"]
)
def test_a_snapshot_address_is_checked(tmp_path: Path, bad: str) -> None:
    with pytest.raises(UsageError):
        find(apt=tmp_path, snapshot=bad)
    assert find(apt=tmp_path, snapshot="https://s.example/{archive}/{path}").snapshot


def test_upstream_addresses_come_from_a_mirror_where_one_is_set(tmp_path: Path) -> None:
    file = PinnedFile(name="x", sha256="0" * 64, size=1, url="https://up.example:8443/dl/x?v=1")
    assert find(apt=tmp_path).addresses(file) == ("https://up.example:8443/dl/x?v=1",)
    found = find(apt=tmp_path, settings={"upstream": "http://a.example/up/ file:///srv/up"})
    assert found.addresses(file) == (
        "http://a.example/up/up.example:8443/dl/x?v=1",
        "file:///srv/up/up.example:8443/dl/x?v=1",
    )
    assert mirrors.setting_name("upstream") == "ANVIL_MIRROR_UPSTREAM"


def test_a_snapshot_is_asked_for_the_day_of_each_lock_once(tmp_path: Path) -> None:
    snapshot = "https://s.example/{archive}/{day}/{path}"
    file = pin("pool/a", b"")
    found = find(apt=tmp_path, snapshot=snapshot, days=["2026-11-24", "2026-12-01", "2026-11-24"])
    assert found.addresses(file) == (
        "https://s.example/debian/20261124/pool/a",
        "https://s.example/debian/20261201/pool/a",
    )
    assert find(apt=tmp_path, snapshot=snapshot).addresses(file) == ()
    no_day = "https://s.example/{archive}/{path}"
    assert find(apt=tmp_path, snapshot=no_day).addresses(file) == ("https://s.example/debian/pool/a",)


def test_the_project_is_an_archive_of_its_own_and_in_no_snapshot(tmp_path: Path) -> None:
    found = find(apt=tmp_path, snapshot="https://s.example/{archive}/{path}", project=tmp_path / "my os")
    assert found.addresses(pin("sources/a b", b"", archive="project")) == (f"file://{tmp_path}/my%20os/sources/a%20b",)
