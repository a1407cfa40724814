"""Locks: exactly which bytes a base image and a source are."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class PinnedFile:
    """One file that the fetcher may fetch.

    name: the file's own name. sha256, size (bytes): what it must be. archive and path: a pool-relative path in one
    of the named archives ("debian", "debian-security") that the user's mirrors serve, or in "project", the project's
    own folder; or url: a public upstream address. One of the two is set.
    """

    name: str
    sha256: str
    size: int
    archive: str = ""
    path: str = ""
    url: str = ""


@dataclass(frozen=True, kw_only=True)
class Package:
    """A binary package of a base image."""

    name: str
    version: str
    architecture: str
    file: PinnedFile


@dataclass(frozen=True, kw_only=True)
class ImageLock:
    """A base image: its packages in the order in which they are configured."""

    name: str
    resolved: str
    architecture: str
    packages: tuple[Package, ...]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source: its files (the first is the upstream tarball) and facts read from it when the lock was made.

    facts: for instance {"linux-maximum": "6.14"} from OpenZFS's META. licence: an SPDX expression.
    """

    name: str
    version: str
    licence: str
    files: tuple[PinnedFile, ...]
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SourceLock:
    """All sources of a profile, or a project's own; resolved: the day (YYYY-MM-DD) it was made.

    replaces: the names of those that are meant to take the place of a profile's; only a project's lock has any.
    """

    profile: str
    resolved: str
    sources: dict[str, Source]
    replaces: frozenset[str] = frozenset()
