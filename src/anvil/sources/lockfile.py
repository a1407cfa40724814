"""Locks on disk: human JSON, indented and sorted, read strictly.

A lock is reviewed by people, so it is pretty JSON; it is trusted by machines, so nothing in it is guessed: an unknown
field, a wrong type, a path that leaves the archive or a digest that is not one is refused with the field's name.
A size of null means "not known when the lock was written" and reads as 0: the fetcher then caps the file instead.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tempfile
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from anvil.errors import RecipeError
from anvil.microjson.codec import canonical
from anvil.model.layer import Digest
from anvil.model.lock import ImageLock, Package, PinnedFile, Source, SourceLock

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

FORMAT = 1
_MAX_BYTES = 16 * 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
# A file's name becomes a name below downloads/; "+" and "~" are common in Debian's.
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~:%-]{0,254}")
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]{0,127}")


def read_source_lock(path: Path) -> SourceLock:
    """The source lock in a file.

    Raises RecipeError (with the file and the field in ``where``) when there is none or it is not a lock.
    """
    fields = _Fields(_load(path), path, "")
    fields.header("source-lock")
    sources: dict[str, Source] = {}
    for name, value in fields.mapping("sources").items():
        sources[name] = _source(name, _Fields(value, path, f"sources.{name}"))
    lock = SourceLock(
        profile=fields.name("profile"),
        resolved=fields.day("resolved"),
        sources=sources,
        replaces=fields.names("replaces", sources),
    )
    fields.end()
    return lock


def write_source_lock(lock: SourceLock, path: Path) -> None:
    """Write a source lock; the same lock gives the same bytes. Replaces the file in one step."""
    sources: dict[str, object] = {
        name: {
            "version": source.version,
            "licence": source.licence,
            "files": [_file_data(file) for file in source.files],
            "facts": dict(source.facts),
        }
        for name, source in lock.sources.items()
    }
    replaces = {"replaces": sorted(lock.replaces)} if lock.replaces else {}
    _write(
        path,
        {"kind": "source-lock", "profile": lock.profile, "resolved": lock.resolved, "sources": sources, **replaces},
    )


def read_image_lock(path: Path) -> ImageLock:
    """The image lock in a file; the order of its packages is kept.

    Raises RecipeError (with the file and the field in ``where``) when there is none or it is not a lock.
    """
    fields = _Fields(_load(path), path, "")
    fields.header("image-lock")
    packages = tuple(
        _package(_Fields(value, path, f"packages[{index}]")) for index, value in enumerate(fields.list("packages"))
    )
    lock = ImageLock(
        name=fields.name("name"),
        resolved=fields.day("resolved"),
        architecture=fields.name("architecture"),
        packages=packages,
    )
    fields.end()
    return lock


def write_image_lock(lock: ImageLock, path: Path) -> None:
    """Write an image lock; the same lock gives the same bytes. Replaces the file in one step."""
    packages: list[object] = [
        {
            "name": package.name,
            "version": package.version,
            "architecture": package.architecture,
            "file": _file_data(package.file),
        }
        for package in lock.packages
    ]
    data: dict[str, object] = {
        "kind": "image-lock",
        "name": lock.name,
        "resolved": lock.resolved,
        "architecture": lock.architecture,
        "packages": packages,
    }
    _write(path, data)


def digest(lock: SourceLock | ImageLock) -> Digest:
    """The sha256 of what a lock's content is.

    Left out: the day and the lock's own name (they say when and why, not what), sizes (the sha256 implies them), and
    archive, path and url (where the bytes are got; a file that moved is still the same file).
    """
    if isinstance(lock, SourceLock):
        content: object = {
            name: {
                "version": source.version,
                "licence": source.licence,
                "files": [{"name": file.name, "sha256": file.sha256} for file in source.files],
                "facts": dict(source.facts),
            }
            for name, source in lock.sources.items()
        }
    else:
        content = {
            "architecture": lock.architecture,
            "packages": [
                [package.name, package.version, package.architecture, package.file.sha256] for package in lock.packages
            ],
        }
    return Digest(hashlib.sha256(canonical(content, max_bytes=_MAX_BYTES)).hexdigest())


def files(lock: SourceLock | ImageLock) -> Iterable[PinnedFile]:
    """Every file that a lock pins, each digest once, in the lock's order."""
    seen: set[str] = set()
    groups = (
        (source.files for source in lock.sources.values())
        if isinstance(lock, SourceLock)
        else ((package.file,) for package in lock.packages)
    )
    for group in groups:
        for file in group:
            if file.sha256 not in seen:
                seen.add(file.sha256)
                yield file


def _source(name: str, fields: _Fields) -> Source:
    if not _NAME.fullmatch(name):
        fields.refuse("", "a source's name is lower-case letters, digits, '+', '.' and '-'")
    facts = fields.mapping("facts")
    for key, value in facts.items():
        if not _NAME.fullmatch(key):
            fields.refuse(f"facts.{key}", "a fact's name is lower-case letters, digits, '+', '.' and '-'")
        if not isinstance(value, str):
            fields.refuse(f"facts.{key}", "must be a text")
    pinned = tuple(_file(fields.below(value, f"files[{index}]")) for index, value in enumerate(fields.list("files")))
    if not pinned:
        fields.refuse("files", "a source has at least one file")
    source = Source(
        name=name,
        version=fields.text("version"),
        licence=fields.text("licence"),
        files=pinned,
        facts={key: str(value) for key, value in facts.items()},
    )
    fields.end()
    return source


def _package(fields: _Fields) -> Package:
    package = Package(
        name=fields.name("name"),
        version=fields.text("version"),
        architecture=fields.name("architecture"),
        file=_file(fields.below(fields.mapping("file"), "file")),
    )
    fields.end()
    return package


def _file(fields: _Fields) -> PinnedFile:
    name = fields.text("name")
    if not _FILE_NAME.fullmatch(name):
        fields.refuse("name", "is not a plain file name")
    sha256 = fields.text("sha256")
    if not _SHA256.fullmatch(sha256):
        fields.refuse("sha256", "must be 64 lower-case hex digits")
    size = fields.size("size")
    archive, path, url = fields.text("archive", ""), fields.text("path", ""), fields.text("url", "")
    if bool(archive) == bool(url) or bool(archive) != bool(path):
        fields.refuse("", "a file has either 'archive' and 'path' or 'url'")
    if archive and not _NAME.fullmatch(archive):
        fields.refuse("archive", "is not the name of an archive")
    if path and not is_pool_path(path):
        fields.refuse("path", "must be a relative path without '.', '..' or empty parts")
    if url and not is_web_address(url):
        fields.refuse("url", "must be an http or https address without a user name")
    fields.end()
    return PinnedFile(name=name, sha256=sha256, size=size, archive=archive, path=path, url=url)


def is_name(text: str) -> bool:
    """Whether a source could be called so."""
    return _NAME.fullmatch(text) is not None


def is_file_name(text: str) -> bool:
    """Whether a pinned file could be called so."""
    return _FILE_NAME.fullmatch(text) is not None


def is_pool_path(path: str) -> bool:
    """Whether a path is relative, plain and stays below its root."""
    parts = path.split("/")
    return path.isprintable() and "\\" not in path and all(part not in ("", ".", "..") for part in parts)


def is_web_address(url: str) -> bool:
    """Whether a text is an http or https address without a user name."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc and url.isprintable()


def _file_data(file: PinnedFile) -> dict[str, object]:
    data: dict[str, object] = {"name": file.name, "sha256": file.sha256, "size": file.size or None}
    if file.url:
        data["url"] = file.url
    else:
        data["archive"] = file.archive
        data["path"] = file.path
    return data


class _Fields:
    """A JSON object being read: every field is taken once and by type, and none may be left over."""

    def __init__(self, value: object, file: Path, at: str) -> None:
        self._file = file
        self._at = at
        if not isinstance(value, dict):
            self.refuse("", "must be an object")
        self._left: dict[str, Any] = dict(value) if isinstance(value, dict) else {}

    def below(self, value: object, at: str) -> _Fields:
        return _Fields(value, self._file, f"{self._at}.{at}".lstrip("."))

    def refuse(self, field: str, why: str) -> None:
        at = ".".join(part for part in (self._at, field) if part)
        raise RecipeError(
            f"{at or 'the lock'}: {why}",
            where=str(self._file),
            hint="a lock is written by `anvil sources update`, a project's by `anvil sources add`; put back the last "
            "good one",
        )

    def header(self, kind: str) -> None:
        if self._take("kind") != kind:
            self.refuse("kind", f"must be {kind!r}")
        if self._take("format") != FORMAT:
            self.refuse("format", f"must be {FORMAT}; this lock is for another version of Anvil")

    def text(self, field: str, default: str | None = None) -> str:
        if default is not None and field not in self._left:
            return default
        value = self._take(field)
        if not isinstance(value, str) or not value or not value.isprintable():
            self.refuse(field, "must be a text of one line")
        return str(value)

    def name(self, field: str) -> str:
        value = self.text(field)
        if not _NAME.fullmatch(value):
            self.refuse(field, "must be lower-case letters, digits, '+', '.' and '-'")
        return value

    def day(self, field: str) -> str:
        value = self.text(field)
        if not _DAY.fullmatch(value):
            self.refuse(field, "must be a day as YYYY-MM-DD")
        return value

    def size(self, field: str) -> int:
        value = self._take(field)
        if value is None:
            return 0
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**53:
            self.refuse(field, "must be a number of bytes, or null when it is not known")
        return int(value)

    def list(self, field: str) -> list[Any]:
        value = self._take(field)
        if not isinstance(value, list):
            self.refuse(field, "must be a list")
        return list(value)

    def names(self, field: str, known: Collection[str]) -> frozenset[str]:
        """A list of names that are known; none when the field is not there."""
        found = self.list(field) if field in self._left else []
        for name in found:
            if not isinstance(name, str) or name not in known or found.count(name) > 1:
                self.refuse(field, "must be names of the lock's sources, each once")
        return frozenset(found)

    def mapping(self, field: str) -> Mapping[str, Any]:
        value = self._take(field)
        if not isinstance(value, dict):
            self.refuse(field, "must be an object")
        return dict(value)

    def end(self) -> None:
        for field in sorted(self._left):
            self.refuse(field, "is not a field of a lock")

    def _take(self, field: str) -> Any:
        if field not in self._left:
            self.refuse(field, "is missing")
        return self._left.pop(field)


def _load(path: Path) -> object:
    try:
        # A project's lock may be a stranger's: a pipe in its place would be waited for.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise RecipeError(f"the lock {path.name} is not a file", where=str(path))
            raw = stream.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise RecipeError(
            f"there is no lock {path.name}", where=str(path), hint="make it with `anvil sources update`"
        ) from None
    except OSError as error:
        raise RecipeError(f"the lock {path.name} cannot be read: {error.strerror}", where=str(path)) from error
    if len(raw) > _MAX_BYTES:
        raise RecipeError(f"the lock {path.name} is larger than {_MAX_BYTES} bytes", where=str(path))
    try:
        return json.loads(raw, object_pairs_hook=_no_twice, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"the lock {path.name} is not JSON: {error}", where=str(path)) from error


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is there twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _write(path: Path, data: dict[str, object]) -> None:
    text = json.dumps({**data, "format": FORMAT}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
