from __future__ import annotations

import os
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from anvil.errors import EnvironmentLack, HashMismatch, IntegrityError
from anvil.sources.debian import Archive, Suite, Verify, read_release
from anvil.sources.fetch import Fetcher
from anvil.sources.mirrors import Mirrors
from anvil.sources.signature import check_frame, gpgv_command, signers
from anvil.sources.stanza import package_file, read_stanzas, source_files, sums
from anvil.sources.transfer import Patience

from .misbehaving_server import Mirror, serving
from .small_archive import KEYRING, NOW, SmallSuite, sign, verify

if TYPE_CHECKING:
    from collections.abc import Iterator

TRIXIE = Suite(archive="debian", name="trixie")
BODY = b"a tarball"


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serving() as one:
        yield one


@pytest.fixture
def suite() -> SmallSuite:
    small = SmallSuite()
    small.source("zlib", "1:1.3-1", BODY)
    small.source("bzip2", "1.0-1", b"other")
    small.binary("bash", "5.2-1", b"a deb")
    return small


def archive(
    tmp_path: Path, mirror: Mirror, *, check: Verify = verify, keyring: bytes = KEYRING, allow_expired: bool = False
) -> Archive:
    quick = Patience(silence_seconds=2, attempts=1, pause_seconds=0.01)
    fetcher = Fetcher(Mirrors(bases={"debian": (mirror.base,)}), tmp_path / "downloads", patience=quick)
    return Archive(
        fetcher, verify=check, keyring=keyring, work=tmp_path / "work", now=NOW, allow_expired=allow_expired
    )


def packages(one: Archive) -> list[str]:
    return [stanza["package"] for stanza in one.sources(TRIXIE, "main")]


def test_the_chain_from_the_signature_to_the_file(tmp_path: Path, mirror: Mirror, suite: SmallSuite) -> None:
    suite.publish(mirror.files)
    one = archive(tmp_path, mirror)
    stanza = next(stanza for stanza in one.sources(TRIXIE, "main") if stanza["package"] == "zlib")
    file = source_files(stanza, "debian")[2]
    got: list[bytes] = []
    fetcher = Fetcher(Mirrors(bases={"debian": (mirror.base,)}), tmp_path / "downloads")
    fetcher.fetch(file, lambda _, path: got.append(path.read_bytes()))
    assert got == [BODY]
    deb = package_file(next(one.packages(TRIXIE, "main", "amd64")), "debian")
    fetcher.fetch(deb, lambda _, path: got.append(path.read_bytes()))
    assert got[1] == b"a deb"
    assert list(one.sources(TRIXIE, "contrib")) == []
    assert [ask[1] for ask in mirror.asked].count("dists/trixie/InRelease") == 1


@pytest.mark.parametrize("form", [".xz", ".gz", ""])
@pytest.mark.parametrize("by_hash", [True, False])
def test_every_form_of_an_index(
    tmp_path: Path, mirror: Mirror, suite: SmallSuite, form: str, *, by_hash: bool
) -> None:
    suite.forms, suite.by_hash = (form,), by_hash
    suite.publish(mirror.files)
    one = archive(tmp_path, mirror)
    assert packages(one) == ["zlib", "bzip2"]
    asked = len(mirror.asked)
    assert packages(one) == ["zlib", "bzip2"]
    assert len(mirror.asked) == asked


def test_another_form_when_the_first_is_not_there(tmp_path: Path, mirror: Mirror, suite: SmallSuite) -> None:
    suite.by_hash = False
    suite.publish(mirror.files)
    del mirror.files["dists/trixie/main/source/Sources.xz"]
    assert packages(archive(tmp_path, mirror)) == ["zlib", "bzip2"]
    del mirror.files["dists/trixie/main/source/Sources.gz"], mirror.files["dists/trixie/main/source/Sources"]
    with pytest.raises(EnvironmentLack):
        packages(archive(tmp_path / "again", mirror))


def _change_text(files: dict[str, bytes]) -> None:
    files["dists/trixie/InRelease"] = files["dists/trixie/InRelease"].replace(b"Origin: Debian", b"Origin: Debiam")


def _change_a_digest(files: dict[str, bytes]) -> None:
    files["dists/trixie/InRelease"] = files["dists/trixie/InRelease"].replace(b"SHA256:\n ", b"SHA256:\n 0", 1)


def _sign_with_another_key(files: dict[str, bytes]) -> None:
    text = verify(files["dists/trixie/InRelease"], KEYRING)
    files["dists/trixie/InRelease"] = sign(text, b"another keyring")


def _cut(files: dict[str, bytes]) -> None:
    files["dists/trixie/InRelease"] = files["dists/trixie/InRelease"][:100]


def _empty(files: dict[str, bytes]) -> None:
    files["dists/trixie/InRelease"] = b""


@pytest.mark.parametrize("tamper", [_change_text, _change_a_digest, _sign_with_another_key, _cut, _empty])
def test_a_tampered_inrelease_is_refused(tmp_path: Path, mirror: Mirror, suite: SmallSuite, tamper: object) -> None:
    suite.publish(mirror.files)
    assert callable(tamper)
    tamper(mirror.files)
    with pytest.raises(IntegrityError):
        packages(archive(tmp_path, mirror))


def test_a_tampered_index_is_refused(tmp_path: Path, mirror: Mirror, suite: SmallSuite) -> None:
    suite.forms = ("",)
    suite.publish(mirror.files)
    for path in [path for path in mirror.files if path.startswith("dists/") and not path.endswith("InRelease")]:
        mirror.files[path] = mirror.files[path].replace(b"zlib", b"zlid")
    with pytest.raises(HashMismatch):
        packages(archive(tmp_path, mirror))


def test_an_index_of_another_day_is_refused(tmp_path: Path, mirror: Mirror, suite: SmallSuite) -> None:
    suite.by_hash = False
    suite.publish(mirror.files)
    later = SmallSuite(by_hash=False, forms=suite.forms)
    later.source("zlib", "1:1.4-1", BODY)
    later.release()
    mirror.files.update({path: body for path, body in later.files.items() if "Sources" in path})
    with pytest.raises((HashMismatch, EnvironmentLack)):
        packages(archive(tmp_path, mirror))


def test_a_broken_index_with_the_right_digest_is_refused(
    tmp_path: Path, mirror: Mirror, suite: SmallSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    from . import small_archive

    for form in (".xz", ".gz"):
        monkeypatch.setitem(small_archive._PACK, form, lambda body: b"\xfd7zXZ\0\0\0" + body)
        suite.forms = (form,)
        suite.publish(mirror.files)
        with pytest.raises(IntegrityError, match="unpacked"):
            packages(archive(tmp_path / form, mirror))


def test_an_expired_release_is_refused_unless_allowed(tmp_path: Path, mirror: Mirror, suite: SmallSuite) -> None:
    suite.valid_until = NOW - timedelta(seconds=1)
    suite.publish(mirror.files)
    with pytest.raises(IntegrityError, match="expired") as caught:
        packages(archive(tmp_path, mirror))
    assert "clock" in caught.value.hint
    assert packages(archive(tmp_path, mirror, allow_expired=True)) == ["zlib", "bzip2"]


def test_a_release_without_an_end_is_good(tmp_path: Path, mirror: Mirror, suite: SmallSuite) -> None:
    suite.valid_until = None
    suite.publish(mirror.files)
    assert packages(archive(tmp_path, mirror)) == ["zlib", "bzip2"]


def test_a_release_from_the_future_is_refused(tmp_path: Path, mirror: Mirror, suite: SmallSuite) -> None:
    suite.date, suite.valid_until = NOW + timedelta(days=1), None
    suite.publish(mirror.files)
    with pytest.raises(IntegrityError, match="future"):
        packages(archive(tmp_path, mirror))


def test_another_suites_release_is_refused(tmp_path: Path, mirror: Mirror, suite: SmallSuite) -> None:
    suite.publish(mirror.files)
    mirror.files["dists/sid/InRelease"] = mirror.files["dists/trixie/InRelease"]
    one = archive(tmp_path, mirror)
    with pytest.raises(IntegrityError, match="in the place of sid"):
        one.release(Suite(archive="debian", name="sid"))
    assert one.release(TRIXIE).codename == "trixie"
    stable = read_release(suite.release(), Suite(archive="debian", name="stable"), now=NOW)
    assert stable.codename == "trixie"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Codename: trixie\n", b""),
        (b"Date: ", b"Date: no "),
        (b" UTC\nValid", b" -0000\nValid"),
        (b"SHA256:\n", b"SHA256:\n nonsense\n"),
        (b"SHA256:\n", b"MD5Sum:\n"),
        (b"Suite: stable\n", b"Suite: stable\nSuite: other\n"),
        (b"Suite: stable\n", b"Suite: stable\n\nSuite: other\n"),
    ],
)
def test_a_release_that_cannot_be_read_is_refused(suite: SmallSuite, old: bytes, new: bytes) -> None:
    text = suite.release()
    assert read_release(text, TRIXIE, now=NOW)
    with pytest.raises(IntegrityError):
        read_release(text.replace(old, new, 1), TRIXIE, now=NOW)


def test_stanzas() -> None:
    text = b"\n\nA: 1\nb:\n x\n\ty\n# note\nC:2\r\n\n \nD: e: f\n"
    assert list(read_stanzas(text.splitlines(keepends=True))) == [{"a": "1", "b": "\nx\ny", "c": "2"}, {"d": "e: f"}]
    assert list(read_stanzas([])) == []


@pytest.mark.parametrize("bad", [b" x\n", b"no field\n", b":x\n", b"A: 1\na: 2\n"])
def test_broken_stanzas_are_refused(bad: bytes) -> None:
    with pytest.raises(IntegrityError):
        list(read_stanzas(bad.splitlines(keepends=True)))


def test_a_stanza_without_end_is_refused() -> None:
    def lines() -> Iterator[bytes]:
        yield b"A:\n"
        while True:
            yield b" " + b"x" * 100_000 + b"\n"

    with pytest.raises(IntegrityError, match="larger"):
        list(read_stanzas(lines()))


@pytest.mark.parametrize(
    "stanza",
    [
        {"filename": "../../etc/passwd", "sha256": "0" * 64, "size": "1"},
        {"filename": "/pool/x", "sha256": "0" * 64, "size": "1"},
        {"filename": "pool/x", "sha256": "0" * 63, "size": "1"},
        {"filename": "pool/x", "sha256": "z" * 64, "size": "1"},
        {"filename": "pool/x", "sha256": "0" * 64, "size": "x"},
        {"filename": "pool/x", "size": "1"},
    ],
)
def test_a_stanza_that_names_no_file_is_refused(stanza: dict[str, str]) -> None:
    with pytest.raises(IntegrityError):
        package_file(stanza, "debian")


def test_sums_are_read_strictly() -> None:
    assert list(sums(f"\n{'A' * 64}  7 x\n")) == [("a" * 64, 7, "x")]
    for bad in (f"{'a' * 64} 7", f"{'a' * 63} 7 x", f"{'a' * 64} -7 x", f"{'g' * 64} 7 x"):
        with pytest.raises(IntegrityError):
            list(sums(bad))


GOOD = "[GNUPG:] GOODSIG 9A79 a\n[GNUPG:] VALIDSIG F1 2026-11-24 1 0 4 0 22 8 01 F1\n"
UNKNOWN = "[GNUPG:] NEWSIG b\n[GNUPG:] ERRSIG 1FCC 22 8 01 1 9 F2\n[GNUPG:] NO_PUBKEY 1FCC\n"


def test_who_signed() -> None:
    assert signers(GOOD) == ("F1",)
    assert signers(UNKNOWN + GOOD + UNKNOWN) == ("F1",)
    assert signers(GOOD + GOOD.replace("F1", "F2").replace(" 8 01", " 10 00")) == ("F1", "F2")


@pytest.mark.parametrize(
    "status",
    [
        "",
        UNKNOWN,
        GOOD + "[GNUPG:] BADSIG 9A79 a\n",
        GOOD + "[GNUPG:] ERROR proc_pkt.plaintext 89_BAD_DATA\n",
        GOOD.replace("GOODSIG", "EXPKEYSIG"),
        GOOD.replace("GOODSIG", "REVKEYSIG"),
        GOOD.replace("GOODSIG", "EXPSIG"),
        GOOD.replace(" 8 01", " 2 01"),
        GOOD.replace(" 8 01", " 8 10"),
        GOOD.split("\n", maxsplit=1)[0],
        GOOD.split("\n")[1],
        GOOD.split("\n", maxsplit=1)[0] + "\n[GNUPG:] NEWSIG\n" + GOOD.split("\n")[1],
    ],
)
def test_what_counts_as_no_signature(status: str) -> None:
    with pytest.raises(IntegrityError):
        signers(status)


def test_the_frame_of_a_signed_text() -> None:
    good = sign(b"Suite: x\n")
    check_frame(good)
    check_frame(good.replace(b"\n", b"\r\n") + b"\n\n")
    for bad in (
        b"",
        b"\n",
        b"x\n" + good,
        good + b"x",
        good + good,
        good[:-10],
        good.replace(b"BEGIN PGP SIGNA", b""),
    ):
        with pytest.raises(IntegrityError):
            check_frame(bad)


# The real thing: keys made by gpg, signatures judged by gpgv, as a cell does it for `anvil sources update`.

GPG = shutil.which("gpg")
GPGV = shutil.which("gpgv")
needs_gpg = pytest.mark.skipif(GPG is None or GPGV is None, reason="no gpg and gpgv here")


class Keys:
    """A gpg home with one key."""

    def __init__(self, home: Path, name: str) -> None:
        home.mkdir(mode=0o700)
        self._env = {**os.environ, "GNUPGHOME": str(home)}
        self._names = [f"{name}@example.org"]
        self._run("--quick-gen-key", "--passphrase", "", f"{name} <{name}@example.org>", "ed25519", "sign", "1y")
        self.keyring = self._run("--export")

    def sign(self, text: bytes, *, by: int = 1) -> bytes:
        users = [word for name in self._names[:by] for word in ("--local-user", name)]
        return self._run("--clearsign", "--digest-algo", "SHA256", *users, given=text)

    def adopt(self, other: Keys) -> None:
        self._run("--import", given=other._run("--export-secret-keys"))
        self._names += other._names

    def close(self) -> None:
        subprocess.run(["gpgconf", "--kill", "all"], env=self._env, check=False, capture_output=True)

    def _run(self, *words: str, given: bytes = b"") -> bytes:
        command = [str(GPG), "--batch", "--quiet", *words]
        return subprocess.run(command, env=self._env, input=given, capture_output=True, check=True, timeout=60).stdout


def gpgv(tmp_path: Path) -> Verify:
    def check(inrelease: bytes, keyring: bytes) -> bytes:
        (tmp_path / "keyring.gpg").write_bytes(keyring)
        (tmp_path / "InRelease").write_bytes(inrelease)
        (tmp_path / "text").unlink(missing_ok=True)
        command = gpgv_command(*(str(tmp_path / name) for name in ("keyring.gpg", "InRelease", "text")))
        done = subprocess.run(command, capture_output=True, check=False, timeout=60)
        signers(done.stdout.decode())
        return (tmp_path / "text").read_bytes()

    return check


@needs_gpg
def test_the_chain_with_real_signatures(tmp_path: Path, mirror: Mirror, suite: SmallSuite) -> None:
    # gpg's agent has a socket in its home, whose path must be short.
    keys = Keys(Path(f"/tmp/anvil-gpg-{os.getpid()}"), "archive")
    stranger = Keys(Path(f"/tmp/anvil-gpg-{os.getpid()}-2"), "stranger")
    try:
        suite.publish(mirror.files)
        text = suite.release()
        good = keys.sign(text)
        before = b"Codename: evil\n\n" + good
        bad: dict[str, bytes] = {
            "changed": good.replace(b"Origin: Debian", b"Origin: Debiam"),
            "another key": stranger.sign(text),
            "unsigned": text,
            "empty": b"",
            "cut": good[: len(good) // 2],
        }
        mirror.files["dists/trixie/InRelease"] = good
        assert packages(archive(tmp_path, mirror, check=gpgv(tmp_path), keyring=keys.keyring)) == ["zlib", "bzip2"]
        for name, inrelease in bad.items():
            mirror.files["dists/trixie/InRelease"] = inrelease
            with pytest.raises(IntegrityError):
                packages(archive(tmp_path, mirror, check=gpgv(tmp_path), keyring=keys.keyring))
            assert name
        # gpgv alone would accept the first: its text is the signed part only, but ours to read is the whole file.
        for around in (before, good + b"\nCodename: evil\n", good + good, keys.sign(text) + stranger.sign(text)):
            mirror.files["dists/trixie/InRelease"] = around
            with pytest.raises(IntegrityError, match="not one signed text"):
                packages(archive(tmp_path, mirror, check=gpgv(tmp_path), keyring=keys.keyring))
        # A signature by a key we do not know, beside one we do, is how archives change their keys.
        keys.adopt(stranger)
        mirror.files["dists/trixie/InRelease"] = keys.sign(text, by=2)
        for known in (keys.keyring, stranger.keyring):
            assert packages(archive(tmp_path, mirror, check=gpgv(tmp_path), keyring=known)) == ["zlib", "bzip2"]
    finally:
        for home in (keys, stranger):
            home.close()
        shutil.rmtree(f"/tmp/anvil-gpg-{os.getpid()}", ignore_errors=True)
        shutil.rmtree(f"/tmp/anvil-gpg-{os.getpid()}-2", ignore_errors=True)
