"""A strict reader of OCI archives: it refuses what the specification does not say."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Read:
    manifest: str
    reference: str
    config: dict[str, Any]
    entries: dict[str, tarfile.TarInfo]
    contents: dict[str, bytes]


def require(fact: object, what: str) -> None:
    if not fact:
        raise ValueError(what)


def read(path: Path) -> Read:
    """Everything in the archive. Raises ValueError for what no image layout has."""
    with tarfile.open(path, "r:") as archive:
        members = archive.getmembers()
        names = [member.name for member in members]
        require(len(set(names)) == len(names), "a name twice")
        files = {member.name: _content(archive, member) for member in members if member.isfile()}
    require(json.loads(files.pop("oci-layout")) == {"imageLayoutVersion": "1.0.0"}, "the layout's version")
    index = json.loads(files.pop("index.json"))
    require(index["schemaVersion"] == 2, "the index's version")
    [described] = index["manifests"]
    blobs = {f"sha256:{name.removeprefix('blobs/sha256/')}": data for name, data in files.items()}
    for digest, data in blobs.items():
        require(_DIGEST.fullmatch(digest), f"a file that is no blob: {digest}")
        require(digest == f"sha256:{hashlib.sha256(data).hexdigest()}", f"a blob's digest: {digest}")
    manifest = json.loads(_described(blobs, described, "application/vnd.oci.image.manifest.v1+json"))
    config = json.loads(_described(blobs, manifest["config"], "application/vnd.oci.image.config.v1+json"))
    [layer] = manifest["layers"]
    plain = gzip.decompress(_described(blobs, layer, "application/vnd.oci.image.layer.v1.tar+gzip"))
    require(len(blobs) == 3, "a blob that nothing refers to")
    require(config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(plain).hexdigest()}"], "the layer's diff id")
    entries: dict[str, tarfile.TarInfo] = {}
    contents: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as inner:
        for member in inner.getmembers():
            parts = member.name.split("/")
            require(member.name not in entries, f"a name twice: {member.name}")
            require(not {"", ".", ".."} & set(parts), f"a path that leads elsewhere: {member.name}")
            above = "/".join(parts[:-1])
            require(not above or entries[above].isdir(), f"no folder holds {member.name}")
            require(member.isdir() or member.issym() or member.isreg(), f"a special file: {member.name}")
            entries[member.name] = member
            if member.isreg():
                contents[member.name] = _content(inner, member)
    reference = described["annotations"]["org.opencontainers.image.ref.name"]
    return Read(described["digest"], reference, config, entries, contents)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None
    return file.read()


def _described(blobs: dict[str, bytes], described: dict[str, Any], kind: str) -> bytes:
    require(described["mediaType"] == kind, f"not {kind}")
    data = blobs[described["digest"]]
    require(len(data) == described["size"], "a blob's size")
    return data
