"""A small Debian archive, made and signed by a test."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import io
import lzma
import tarfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from anvil.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
KEYRING = b"a keyring"
_BEGIN = b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n"
_MIDDLE = b"-----BEGIN PGP SIGNATURE-----\n\n"
_END = b"\n-----END PGP SIGNATURE-----\n"
_PACK: dict[str, Callable[[bytes], bytes]] = {".xz": lzma.compress, ".gz": gzip.compress, "": bytes}


def sign(text: bytes, keyring: bytes = KEYRING) -> bytes:
    """A stand-in for a clear-signed text: the text and a keyed digest of it, in gpg's frame."""
    return _BEGIN + text + _MIDDLE + hmac.digest(keyring, text, "sha256").hex().encode() + _END


def verify(inrelease: bytes, keyring: bytes) -> bytes:
    """The counterpart of ``sign``, as ``gpgv`` is of ``gpg``."""
    text, _, signature = inrelease.removeprefix(_BEGIN).partition(_MIDDLE)
    if not hmac.compare_digest(hmac.digest(keyring, text, "sha256").hex().encode() + _END, signature):
        raise IntegrityError("the signature is not good")
    return text


def tarball(files: dict[str, bytes], *, top: str = "x-1") -> bytes:
    """A .tar.gz with one folder at its top."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, body in files.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    return out.getvalue()


def zfs_tarball(lowest: str, highest: str) -> bytes:
    meta = f"Meta: 1\nName: zfs\nLinux-Maximum: {highest}\nLinux-Minimum: {lowest}\n"
    return tarball({"AUTHORS": b"x", "module/META": b"Linux-Maximum: 99\n", "META": meta.encode()}, top="zfs-2")


@dataclass
class SmallSuite:
    """One suite of an archive: its source packages, and how its Release file is written."""

    name: str = "trixie"
    suite: str = "stable"
    date: datetime = NOW - timedelta(days=1)
    valid_until: datetime | None = NOW + timedelta(days=6)
    forms: tuple[str, ...] = (".xz", ".gz", "")
    by_hash: bool = True
    files: dict[str, bytes] = field(default_factory=dict)
    stanzas: dict[str, list[str]] = field(default_factory=lambda: {"main/source/Sources": []})

    def source(self, package: str, version: str, body: bytes, *, component: str = "main", there: bool = True) -> None:
        """Add a source package with one upstream tarball; ``there``: whether the mirror has its file."""
        upstream = version.partition(":")[2] or version
        name = f"{package}_{upstream.rpartition('-')[0]}.orig.tar.gz"
        folder = f"pool/{component}/{package[0]}/{package}"
        sha256 = hashlib.sha256(body).hexdigest()
        self.stanzas.setdefault(f"{component}/source/Sources", []).append(
            f"Package: {package}\nBinary: a,\n b\nVersion: {version}\nDirectory: {folder}\nChecksums-Sha256:\n"
            f" {'1' * 64} 10 {package}.dsc\n"
            f" {'2' * 64} 11 {name}.asc\n"
            f" {sha256} {len(body)} {name}\n"
        )
        if there:
            self.files[f"{folder}/{name}"] = body

    def binary(self, package: str, version: str, body: bytes) -> None:
        """Add a binary package for amd64."""
        path = f"pool/main/{package[0]}/{package}/{package}_{version}_amd64.deb"
        self.stanzas.setdefault("main/binary-amd64/Packages", []).append(
            f"Package: {package}\nVersion: {version}\nFilename: {path}\nSize: {len(body)}\n"
            f"SHA256: {hashlib.sha256(body).hexdigest()}\nDescription: a package\n .\n of a test\n"
        )
        self.files[path] = body

    def release(self) -> bytes:
        """The text of its Release file; the indexes are put among its files."""
        date = "%a, %d %b %Y %H:%M:%S UTC"
        lines = ["Origin: Debian", f"Suite: {self.suite}", f"Codename: {self.name}", f"Date: {self.date:{date}}"]
        if self.valid_until:
            lines.append(f"Valid-Until: {self.valid_until:{date}}")
        lines.append("SHA256:")
        for base, stanzas in self.stanzas.items():
            for form in self.forms:
                body = _PACK[form]("\n".join(stanzas).encode())
                sha256 = hashlib.sha256(body).hexdigest()
                lines.append(f" {sha256} {len(body):8} {base}{form}")
                folder = f"dists/{self.name}/{base.rpartition('/')[0]}"
                self.files[f"dists/{self.name}/{base}{form}"] = body
                if self.by_hash:
                    self.files[f"{folder}/by-hash/SHA256/{sha256}"] = body
        return "\n".join(lines).encode() + b"\n"

    def publish(self, files: dict[str, bytes], keyring: bytes = KEYRING) -> None:
        """Put it, signed, among a mirror's files."""
        self.files[f"dists/{self.name}/InRelease"] = sign(self.release(), keyring)
        files.update(self.files)
