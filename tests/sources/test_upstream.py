"""A file that nobody has pinned: brought in, hashed, and the signature beside it found."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from anvil.errors import IntegrityError, NetworkLack, SourceGone, UsageError
from anvil.sources.mirrors import Mirrors
from anvil.sources.signature import binary_keyring, is_signature
from anvil.sources.transfer import Patience
from anvil.sources.upstream import Address, Upstream
from tests.mainframe.small_signer import Signer

from .misbehaving_server import Mirror, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUICK = Patience(silence_seconds=2, attempts=2, pause_seconds=0.01)
BODY = b"an archive" * 1000
ARMOURED = b"-----BEGIN PGP SIGNATURE-----\n\nabc\n-----END PGP SIGNATURE-----\n"


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serving() as one:
        one.files["/dl/tool-1.2.tar.xz"] = BODY
        yield one


def address(mirror: Mirror, path: str = "/dl/tool-1.2.tar.xz") -> Address:
    return Address.of(mirror.base.removesuffix("/debian") + path)


@pytest.mark.parametrize(
    ("url", "name", "guess"),
    [
        ("https://example.org/dl/hello-2.12.1.tar.gz", "hello-2.12.1.tar.gz", ("hello", "2.12.1")),
        ("https://example.org/v/Lua_Rocks-v3.11.tgz", "Lua_Rocks-v3.11.tgz", ("lua-rocks", "3.11")),
        ("https://example.org/zfs-2.2.2.tar.gz?x=1", "zfs-2.2.2.tar.gz", ("zfs", "2.2.2")),
        ("file:///srv/a%20b/openssl-3.5.0-beta1.tar.gz", "openssl-3.5.0-beta1.tar.gz", ("openssl", "3.5.0-beta1")),
        ("http://example.org/archive/main.tar.gz", "main.tar.gz", ("", "")),
        ("http://example.org/tool", "tool", ("", "")),
    ],
)
def test_an_address_names_its_file_and_mostly_its_source(url: str, name: str, guess: tuple[str, str]) -> None:
    found = Address.of(url)
    assert (found.name, found.guess) == (name, guess)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/x", "https://u:p@example.org/x", "https://example.org/", "https://example.org", "https:///x",
        "file://host/x", "file:", "https://example.org/..", "https://example.org/a%2fb", "https://example.org/x#y",
        "./x-1.tar.gz", "https://example.org/x\n",
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_file_is_wrong_words(url: str) -> None:
    with pytest.raises(UsageError):
        Address.of(url)


def test_a_file_comes_with_its_digest_and_the_way_it_came(mirror: Mirror, tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    upstream = Upstream(mirrors=Mirrors(), report=lambda *data: said.append(data), patience=QUICK)
    arrived = upstream.bring(address(mirror), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == BODY
    assert (arrived.sha256, arrived.size) == (hashlib.sha256(BODY).hexdigest(), len(BODY))
    assert not arrived.private
    assert said[-1] == ("tool-1.2.tar.xz", len(BODY), len(BODY))


def test_it_is_asked_again_after_a_fault_and_from_the_start(mirror: Mirror, tmp_path: Path) -> None:
    mirror.faults["/dl/tool-1.2.tar.xz"] = ["drop"]
    upstream = Upstream(mirrors=Mirrors(), patience=QUICK)
    assert upstream.bring(address(mirror), tmp_path / "x").size == len(BODY)
    assert [asked[2] for asked in mirror.asked] == ["", ""]


@pytest.mark.parametrize(
    ("fault", "error"), [("404", SourceGone), ("500", NetworkLack), ("drop", NetworkLack), ("403", NetworkLack)]
)
def test_what_does_not_come_is_told(mirror: Mirror, tmp_path: Path, fault: str, error: type[Exception]) -> None:
    mirror.always["/dl/tool-1.2.tar.xz"] = fault
    with pytest.raises(error):
        Upstream(mirrors=Mirrors(), patience=QUICK).bring(address(mirror), tmp_path / "x")


def test_a_file_without_end_is_cut_off(mirror: Mirror, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="larger than 100"):
        Upstream(mirrors=Mirrors(), patience=QUICK).bring(address(mirror), tmp_path / "x", limit=100)


def test_mirrors_of_upstream_stand_in_the_place_of_every_address(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["/up/example.invalid/dl/tool-1.2.tar.xz"] = BODY
    mirrors = Mirrors(bases={"upstream": (mirror.base.removesuffix("/debian") + "/up",)})
    upstream = Upstream(mirrors=mirrors, patience=QUICK)
    assert upstream.bring(Address.of("https://example.invalid/dl/tool-1.2.tar.xz"), tmp_path / "x").size == len(BODY)
    with pytest.raises(SourceGone):
        upstream.bring(Address.of("https://example.invalid/dl/tool-1.3.tar.xz"), tmp_path / "x")


def test_a_folder_comes_first_and_is_all_there_is_offline(mirror: Mirror, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    offline = Upstream(mirrors=Mirrors(), offline=True, from_dir=given, patience=QUICK)
    with pytest.raises(NetworkLack, match="--offline"):
        offline.bring(address(mirror), tmp_path / "x")
    (given / "tool-1.2.tar.xz").write_bytes(b"from the folder")
    arrived = offline.bring(address(mirror), tmp_path / "x")
    assert (arrived.size, arrived.address[:5], arrived.private) == (15, "file:", True)
    assert mirror.asked == []


@pytest.mark.parametrize("kind", ["pipe", "folder", "missing"])
def test_nothing_but_a_file_is_read_from_this_machine(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x-1.tar.gz"
    if kind == "pipe":
        os.mkfifo(path)  # a reader would wait for ever
    elif kind == "folder":
        path.mkdir()
    with pytest.raises((NetworkLack, SourceGone)):
        Upstream(mirrors=Mirrors(), patience=QUICK).bring(Address.of(path.as_uri()), tmp_path / "out")


@pytest.mark.parametrize(
    ("beside", "unpacker"),
    [
        ("tool-1.2.tar.xz.asc", ""),
        ("tool-1.2.tar.xz.sig", ""),
        ("tool-1.2.tar.sign", "xz"),
        ("tool-1.2.tar.asc", "xz"),
    ],
)
def test_the_signature_is_found_where_authors_put_it(
    mirror: Mirror, tmp_path: Path, beside: str, unpacker: str
) -> None:
    mirror.files[f"/dl/{beside}"] = ARMOURED
    found = Upstream(mirrors=Mirrors(), patience=QUICK).signature(address(mirror), tmp_path / "s")
    assert found is not None
    assert (found.address.rpartition("/")[2], found.unpacker, found.data) == (beside, unpacker, ARMOURED)


def test_a_page_in_the_place_of_a_signature_is_none(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["/dl/tool-1.2.tar.xz.asc"] = b"<html>no such file</html>"
    mirror.always["/dl/tool-1.2.tar.xz.sig"] = "500"
    assert Upstream(mirrors=Mirrors(), patience=QUICK).signature(address(mirror), tmp_path / "s") is None


def test_keys_are_taken_armoured_and_binary() -> None:
    signer = Signer(3)
    assert binary_keyring(signer.keyring) == signer.keyring
    assert binary_keyring(signer.armoured) == signer.keyring
    assert binary_keyring(b"words before\n" + signer.armoured + Signer(4).armoured) == (
        signer.keyring + Signer(4).keyring
    )
    for bad in (b"", b"no key", ARMOURED, signer.detached(b"x")):
        with pytest.raises(IntegrityError):
            binary_keyring(bad)
    assert is_signature(signer.detached(b"x"))
    assert is_signature(ARMOURED)
    assert not is_signature(signer.keyring)
    assert not is_signature(b"")
