"""A base image as an OCI archive: what Podman, Docker and skopeo load.

An image layout in a tar (OCI image specification 1.1, image-layout.md): ``oci-layout``, ``index.json`` and, under
``blobs/sha256``, a manifest, a configuration and one layer. The same trees and the same configuration give the same
bytes: names are sorted, every owner is 0, every time is EPOCH, gzip says no time and no name.

A file's user-extended attributes and device nodes are not in our images and so not in the layer.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from anvil.errors import DiskFull, EnvironmentLack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

EPOCH = 1_767_225_600
"""2026-01-01 UTC, as everywhere in what Anvil makes."""

CREATED = "2026-01-01T00:00:00Z"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_LEVEL = 6
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What is in the layer. trees: folders of the host by where they are put (absolute; not there in the rootfs)."""

    rootfs: Path
    trees: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Config:
    """How the image is called and run. folders: empty ones that are made, to be bound over."""

    name: str
    entrypoint: tuple[str, ...]
    env: Mapping[str, str]
    folders: tuple[str, ...] = ()
    architecture: str = "amd64"


@dataclass(frozen=True, kw_only=True)
class _Blob:
    kind: str
    data: bytes | Path
    sha256: str
    size: int

    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.kind, "digest": f"sha256:{self.sha256}", "size": self.size}


def export(contents: Contents, config: Config, path: Path) -> str:
    """Write the archive at ``path``, whole or not at all; the digest of its manifest.

    Raises DiskFull and EnvironmentLack when it cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    layer = path.with_name(f".{path.name}.{os.getpid()}.layer")
    try:
        blob, diff = _layer(contents, config, layer)
        configuration = _json_blob(_CONFIG, _configuration(config, diff))
        manifest = _json_blob(
            _MANIFEST,
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": configuration.descriptor(),
                "layers": [blob.descriptor()],
            },
        )
        with aside.open("wb") as file:
            _archive(file, config, manifest, [blob, configuration, manifest])
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        if error.errno in {28, 122}:
            raise DiskFull("no space is left for the archive", where=str(path), hint="free some space") from error
        raise EnvironmentLack(
            f"the archive cannot be written: {error.strerror}", where=str(path), hint="name a file that you may write"
        ) from error
    finally:
        for left in (aside, layer):
            left.unlink(missing_ok=True)
    return manifest.sha256


def _archive(file: IO[bytes], config: Config, manifest: _Blob, blobs: list[_Blob]) -> None:
    reference = {"org.opencontainers.image.ref.name": f"{config.name}:latest"}
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{**manifest.descriptor(), "annotations": reference}],
    }
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("blobs", "blobs/sha256"):
            archive.addfile(_entry(name, tarfile.DIRTYPE, 0o755))
        for blob in sorted(blobs, key=lambda each: each.sha256):
            _add(archive, f"blobs/sha256/{blob.sha256}", blob.data)
        _add(archive, "index.json", _json(index))
        _add(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))


def _configuration(config: Config, diff: str) -> dict[str, Any]:
    return {
        "created": CREATED,
        "architecture": config.architecture,
        "os": "linux",
        "config": {
            "Env": [f"{name}={value}" for name, value in sorted(config.env.items())],
            "Entrypoint": list(config.entrypoint),
            "Cmd": ["--help"],
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff}"]},
        "history": [{"created": CREATED, "created_by": "anvil container export"}],
    }


class _Writer(Protocol):
    def write(self, data: bytes, /) -> object: ...


class _Hashed(io.RawIOBase):
    """Passes bytes on, and knows their digest and number."""

    def __init__(self, below: _Writer) -> None:
        self._below = below
        self.sha = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.sha.update(data)
        self.size += len(data)
        self._below.write(data)
        return len(data)


def _layer(contents: Contents, config: Config, path: Path) -> tuple[_Blob, str]:
    """Write the layer, compressed; and the digest of what it is uncompressed."""
    with path.open("wb") as file:
        packed = _Hashed(file)
        with gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=packed, mtime=0) as stream:
            plain = _Hashed(stream)
            with tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT) as archive:
                for name, source in _names(contents, config):
                    _add_path(archive, name, source)
    return _Blob(kind=_LAYER, data=path, sha256=packed.sha.hexdigest(), size=packed.size), plain.sha.hexdigest()


def _names(contents: Contents, config: Config) -> Iterator[tuple[str, Path | None]]:
    """Every name in the layer with where it comes from, parents first; None for a folder that is only made."""
    found: dict[str, Path | None] = {}
    for name in (*contents.trees, *config.folders):
        for parent in [*Path(name).parents][-2::-1]:
            found[str(parent).lstrip("/")] = None
        found[name.lstrip("/")] = None
    found.update(_walk("", contents.rootfs))
    for name, tree in contents.trees.items():
        found.update(_walk(f"{name.lstrip('/')}/", tree))
    yield from sorted(found.items())


def _walk(prefix: str, top: Path) -> Iterator[tuple[str, Path]]:
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = Path(folder) / name
            yield prefix + str(path.relative_to(top)), path


def _add_path(archive: tarfile.TarFile, name: str, source: Path | None) -> None:
    if source is None:
        archive.addfile(_entry(name, tarfile.DIRTYPE, 0o755))
        return
    found = source.lstat()
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISLNK(found.st_mode):
        entry = _entry(name, tarfile.SYMTYPE, 0o777)
        entry.linkname = os.readlink(source)
        archive.addfile(entry)
    elif stat.S_ISDIR(found.st_mode):
        archive.addfile(_entry(name, tarfile.DIRTYPE, mode))
    elif stat.S_ISREG(found.st_mode):
        entry = _entry(name, tarfile.REGTYPE, mode)
        entry.size = found.st_size
        with source.open("rb") as file:
            archive.addfile(entry, file)


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, EPOCH
    return entry


def _add(archive: tarfile.TarFile, name: str, data: bytes | Path) -> None:
    entry = _entry(name, tarfile.REGTYPE, 0o644)
    if isinstance(data, Path):
        entry.size = data.stat().st_size
        with data.open("rb") as file:
            archive.addfile(entry, file)
    else:
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))


def _json(data: object) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def _json_blob(kind: str, data: object) -> _Blob:
    found = _json(data)
    return _Blob(kind=kind, data=found, sha256=hashlib.sha256(found).hexdigest(), size=len(found))
