"""The Debian archive's chain of signatures: InRelease, index, stanza, file.

Who holds the keyring trusts an InRelease; that names every index by sha256, and an index every file. Each step is
checked before the next is read. The signature itself is checked by ``gpgv``, which Anvil runs in a cell: here it is
a callable, and only what it hands back as signed is ever parsed (what stands around a signature in an InRelease is an
attacker's to choose).
"""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, Protocol, cast

from anvil.errors import EnvironmentLack, IntegrityError
from anvil.model.lock import PinnedFile
from anvil.sources.signature import check_frame
from anvil.sources.stanza import Stanza, field, read_stanzas, sums

Verify = Callable[[bytes, bytes], bytes]
"""(InRelease, keyring) to the signed text; raises IntegrityError when no key of the keyring made the signature.

``anvil.sources.signature`` has the command, and reads its answer.
"""

_MAX_INRELEASE = 8 * 1024 * 1024
_EMPTY = ("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 0)
# A clock that is a little slow is no attack; a Release from tomorrow is a wrong clock or worse.
_CLOCK_SLACK = timedelta(hours=12)


class Getter(Protocol):
    """What of the fetcher is used here."""

    def read(self, archive: str, path: str, *, limit: int) -> bytes:
        """An unpinned small file."""
        ...

    def fetch(self, file: PinnedFile, deliver: Callable[[PinnedFile, Path], None]) -> None:
        """A pinned file."""
        ...


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A suite of an archive. name: the folder below dists/, which must be the Release's Codename or Suite."""

    archive: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Release:
    """What a verified Release file says. indexes: path below dists/SUITE/ to (sha256, size)."""

    suite: str
    codename: str
    date: datetime
    valid_until: datetime | None
    indexes: Mapping[str, tuple[str, int]]


def read_release(text: bytes, wanted: Suite, *, now: datetime, allow_expired: bool = False) -> Release:
    """Read the signed text of a Release file, and check that it is the wanted one and in date.

    Raises IntegrityError for another suite's, an expired or a future one (unless allow_expired), or one that cannot
    be read. now: aware.
    """
    where = f"{wanted.archive} {wanted.name}"
    stanzas = list(read_stanzas(text.splitlines(keepends=True)))
    if len(stanzas) != 1:
        raise IntegrityError("a Release file is one stanza", where=where)
    stanza = stanzas[0]
    release = Release(
        suite=field(stanza, "Suite"),
        codename=field(stanza, "Codename"),
        date=_date(field(stanza, "Date")),
        valid_until=_date(stanza["valid-until"]) if stanza.get("valid-until") else None,
        indexes={name: (sha256, size) for sha256, size, name in sums(field(stanza, "SHA256"))},
    )
    if wanted.name not in (release.codename, release.suite):
        raise IntegrityError(
            f"the mirror serves {release.codename} ({release.suite}) in the place of {wanted.name}", where=where
        )
    if not allow_expired:
        _check_dates(release, now, where)
    return release


class Archive:
    """The signed indexes of archives.

    get: the fetcher. verify, keyring: how and with which keys an InRelease is checked. work: a folder for indexes.
    """

    def __init__(
        self,
        get: Getter,
        *,
        verify: Verify,
        keyring: bytes,
        work: Path,
        now: datetime,
        allow_expired: bool = False,
    ) -> None:
        self._get = get
        self._verify = verify
        self._keyring = keyring
        self._work = work
        self._now = now
        self._allow_expired = allow_expired
        self._releases: dict[Suite, Release] = {}

    def release(self, suite: Suite) -> Release:
        """The suite's Release, verified; asked for once."""
        if suite not in self._releases:
            inrelease = self._get.read(suite.archive, f"dists/{suite.name}/InRelease", limit=_MAX_INRELEASE)
            check_frame(inrelease)
            signed = self._verify(inrelease, self._keyring)
            self._releases[suite] = read_release(signed, suite, now=self._now, allow_expired=self._allow_expired)
        return self._releases[suite]

    def sources(self, suite: Suite, component: str) -> Iterator[Stanza]:
        """The stanzas of a component's source packages; empty when the suite has no such index."""
        return self._index(suite, f"{component}/source/Sources")

    def packages(self, suite: Suite, component: str, architecture: str) -> Iterator[Stanza]:
        """The stanzas of a component's binary packages; empty when the suite has no such index."""
        return self._index(suite, f"{component}/binary-{architecture}/Packages")

    def _index(self, suite: Suite, base: str) -> Iterator[Stanza]:
        indexes = self.release(suite).indexes
        names = [name for name in (base + ".xz", base + ".gz", base) if name in indexes]
        if not names or indexes.get(base) == _EMPTY:
            return
        with _open(self._fetch_index(suite, names)) as stream:
            yield from read_stanzas(stream)

    def _fetch_index(self, suite: Suite, names: list[str]) -> Path:
        """Fetch the first form of an index that a mirror has; its verified file below the work folder."""
        lack: EnvironmentLack | None = None
        for name in names:
            sha256, size = self.release(suite).indexes[name]
            target = self._work / f"{sha256}{Path(name).suffix or '.txt'}"
            if target.is_file():
                return target
            folder = f"dists/{suite.name}/{name.rpartition('/')[0]}"
            # By hash first: a mirror that is being updated serves a newer index under the plain name.
            for path in (f"{folder}/by-hash/SHA256/{sha256}", f"dists/{suite.name}/{name}"):
                pinned = PinnedFile(
                    name=name.replace("/", "_"), sha256=sha256, size=size, archive=suite.archive, path=path
                )
                try:
                    self._get.fetch(pinned, lambda _, arrived, target=target: move(arrived, target))  # type: ignore[misc]
                except EnvironmentLack as error:
                    lack = lack or error
                else:
                    return target
        assert lack is not None
        raise lack


def move(arrived: Path, target: Path) -> None:
    """Take a delivered file: to be called from a ``deliver``."""
    target.parent.mkdir(parents=True, exist_ok=True)
    arrived.replace(target)


def _plain(path: Path) -> IO[bytes]:
    return path.open("rb")


def _xz(path: Path) -> IO[bytes]:
    return lzma.open(path)


def _gz(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path))


_OPENERS = {".xz": _xz, ".gz": _gz}


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """An index, unpacked while it is read."""
    try:
        with _OPENERS.get(path.suffix, _plain)(path) as stream:
            yield stream
    except (lzma.LZMAError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise IntegrityError(f"the index cannot be unpacked: {error}", where=str(path)) from error


def _check_dates(release: Release, now: datetime, where: str) -> None:
    if release.valid_until and release.valid_until < now:
        raise IntegrityError(
            f"the mirror's Release of {release.codename} expired on {release.valid_until:%Y-%m-%d %H:%M} UTC",
            where=where,
            hint="check this machine's clock; try another mirror; or accept it knowingly: --allow-expired",
        )
    if release.date > now + _CLOCK_SLACK:
        raise IntegrityError(
            f"the mirror's Release of {release.codename} is from the future: {release.date:%Y-%m-%d %H:%M} UTC",
            where=where,
            hint="check this machine's clock",
        )


def _date(text: str) -> datetime:
    try:
        date = parsedate_to_datetime(text)
    except ValueError as error:
        raise IntegrityError(f"a Release file has a date that is none: {text!r}") from error
    if date.tzinfo is None:
        raise IntegrityError(f"a Release file has a date without a time zone: {text!r}")
    return date
