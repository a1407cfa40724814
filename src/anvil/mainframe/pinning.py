"""A project's own sources: pinned into its lock, and taken out of it.

A Debian source package is followed from the signed InRelease to its file; a file at an address is brought in and
hashed, and a signature beside it is checked where a key is given. What was and what was not verified is said, and kept
with the source as the fact ``trust``.
"""

from __future__ import annotations

import fcntl
import filecmp
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from anvil.errors import HashMismatch, IntegrityError, UsageError
from anvil.mainframe import chain
from anvil.mainframe.gpgv import Gpgv
from anvil.mainframe.lockdiff import compare
from anvil.mainframe.project import OWN_FILES, lock_file
from anvil.mainframe.services import LOCKS
from anvil.model.layer import Digest
from anvil.model.lock import PinnedFile, Source, SourceLock
from anvil.sources import lockfile, mirrors
from anvil.sources.debian import Suite
from anvil.sources.overlay import with_source, without_source
from anvil.sources.resolve import UNKNOWN_LICENCE, resolve_package
from anvil.sources.upstream import ENDINGS, Address, Arrived, Signature, Upstream
from anvil.vault.disk import translated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from anvil.mainframe.chain import Trust, Watch
    from anvil.mainframe.services import Services

TRUST = "trust"
"""The fact that says what a project's source was believed by: one of the sentences of TRUSTS."""

TRUSTS = {
    "archive": "the archive's signature",
    "signature": "a signature by a key that was given",
    "given": "a sha256 that was given",
    "first-use": "nothing but what came first",
}


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be pinned, and how.

    what: an address, or a Debian source package's name. name, version, licence: of the source, "" for what the address
    or the archive says. replace: in the place of a source of that name. trust, suites: for a package. key: a file of
    public keys, sha256: what it must be; for an address.
    """

    what: str
    trust: Trust
    name: str = ""
    version: str = ""
    licence: str = ""
    replace: bool = False
    suites: tuple[str, ...] = ()
    key: Path | None = None
    sha256: str = ""

    @property
    def address(self) -> Address | None:
        """The address, when it is one."""
        return Address.of(self.what) if ":" in self.what or "/" in self.what else None


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """A source that was pinned. verified, unverified: what was and was not, a line each. changes: of the lock."""

    source: Source
    lock: Path
    verified: tuple[str, ...]
    unverified: tuple[str, ...]
    changes: tuple[str, ...]


def pin(services: Services, wish: Wish, watch: Watch, *, now: datetime) -> Pinned:
    """Pin a source into the project's lock; its file is in the vault afterwards.

    Nothing is written unless all that was asked for is verified. Raises UsageError without a project, for words that
    do not fit and for a name that is taken; SourceGone, NetworkLack, IntegrityError, HashMismatch, as they come.
    """
    path = _lock_path(services)
    address = wish.address
    _check_words(wish, address)
    name = wish.name or (address.guess[0] if address else wish.what)
    version = wish.version or (address.guess[1] if address else "")
    if address and not (name and version):
        raise UsageError(
            f"the name {address.name!r} does not say which source and version it is",
            hint="say it: --name NAME --version VERSION",
        )
    if not lockfile.is_name(name):
        raise UsageError(
            f"a source cannot be called {name!r}", hint="give a name of a-z, 0-9, '+', '.' and '-': --name NAME"
        )
    replaces = _require_free(services, name, replace=wish.replace)
    with chain.scratch(services) as folder, translated("pinning a source", folder):
        maker = _Maker(services=services, wish=wish, watch=watch, folder=folder, now=now)
        found = maker.of_address(address) if address else maker.of_package()
        source = replace(found.source, name=name, version=version or found.source.version)
        day = f"{now:%Y-%m-%d}"
        added = SourceLock(
            profile="project", resolved=day, sources={name: source}, replaces=frozenset({name} if replaces else ())
        )
        with _alone(path):
            before = _read(path)
            _require_unpinned(before, name, replace=wish.replace)  # somebody may have been quicker
            after = added if before is None else with_source(before, added)
            lockfile.write_source_lock(after, path)
    return Pinned(
        source=source, lock=path, verified=found.verified, unverified=found.unverified, changes=compare(before, after)
    )


def _check_words(wish: Wish, address: Address | None) -> None:
    """Refuse words that say nothing about what is to be pinned."""
    if address is None and (wish.key or wish.sha256 or wish.version):
        raise UsageError(
            f"{wish.what} is a package: its version, sha256 and signature are those that the archive has signed",
            hint="leave --version, --sha256 and --key away; or give the file's address",
        )
    if address is not None and (wish.suites or wish.trust.keyring or wish.trust.allow_expired):
        raise UsageError(
            f"{address.name} is a file at an address, and in no suite of an archive",
            hint="leave --suite, --keyring and --allow-expired away; --key FILE checks a signature beside it",
        )


def unpin(services: Services, name: str) -> Path:
    """Take a source out of the project's lock; the lock's file. What was fetched stays in the vault until it is old.

    Raises UsageError when the project pins no such source.
    """
    path = _lock_path(services)
    with _alone(path):
        lock = _read(path)
        if lock is None or name not in lock.sources:
            known = ", ".join(lock.sources) if lock and lock.sources else "none"
            profile = " (it is the profile's)" if lock is None or name in services.sources.sources else ""
            raise UsageError(
                f"the project pins no source called {name!r}{profile}", where=str(path), hint=f"it pins: {known}"
            )
        lockfile.write_source_lock(without_source(lock, name), path)
    return path


def _lock_path(services: Services) -> Path:
    path = lock_file(services.settings.project)
    if path is None:
        raise UsageError(
            "here is no project that a source could be pinned in",
            hint="go into one, or name it: --project DIR; anvil init DIR makes one",
        )
    return path


def _read(path: Path) -> SourceLock | None:
    return lockfile.read_source_lock(path) if path.exists() else None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time change a lock: two that read it at once would each lose what the other added."""
    with translated("changing the project's lock", path):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


def _require_free(services: Services, name: str, *, replace: bool) -> bool:
    """Refuse a name that is taken unless it is to be replaced; whether a profile has it."""
    _require_unpinned(services.project_lock, name, replace=replace)
    profiles = {path.stem: lockfile.read_source_lock(path) for path in sorted(LOCKS.glob("*.json"))}
    having = {profile: lock.sources[name].version for profile, lock in profiles.items() if name in lock.sources}
    if not replace and having:
        said = ", ".join(f"{version} in profile {profile}" for profile, version in having.items())
        raise UsageError(
            f"Anvil has a source called {name} itself: {said}",
            hint="its recipes would be made from yours: say --replace if that is meant; else --name ANOTHER",
        )
    return bool(having)


def _require_unpinned(own: SourceLock | None, name: str, *, replace: bool) -> None:
    if not replace and own is not None and name in own.sources:
        raise UsageError(
            f"the project pins {name} {own.sources[name].version} already",
            hint=f"another name: --name; or in its place: --replace; or first: anvil sources remove {name}",
        )


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A source, but for its name and version, and what was and was not verified of it."""

    source: Source
    verified: tuple[str, ...]
    unverified: tuple[str, ...]


@dataclass(kw_only=True)
class _Maker:
    """The making of one pin, in a scratch folder."""

    services: Services
    wish: Wish
    watch: Watch
    folder: Path
    now: datetime

    def of_package(self) -> _Found:
        """A Debian source package: InRelease, index, file."""
        wish = self.wish
        image = chain.lock_image(self.services, self.watch)
        get = chain.Getter(self.services, self.watch, self.folder / "kept")
        archive = chain.open_archive(get, image, wish.trust, folder=self.folder, now=self.now)
        source = resolve_package(
            archive,
            get,
            wish.what,
            work=self.folder / "tarballs",
            suites=[Suite(archive=_archive_of(suite), name=suite) for suite in wish.suites],
            licence=wish.licence or UNKNOWN_LICENCE,
            note=self.watch.note,
        )
        self.services.fetch_into_vault(source.files, self.watch.report, self.watch.tick)
        suite = source.facts["debian-suite"]
        verified = (
            f"gpgv: the InRelease of {suite} is signed by a key of the archive's keyring",
            f"sha256: that names the index Sources, and this names {source.files[0].name}",
        )
        unverified = ["whether upstream has the same file; Debian's own patches are not in it"]
        if source.licence == UNKNOWN_LICENCE:
            unverified.append(_NO_LICENCE)
        facts = {**source.facts, TRUST: "archive"}
        return _Found(source=replace(source, facts=facts), verified=verified, unverified=tuple(unverified))

    def of_address(self, address: Address) -> _Found:
        """A file at an address."""
        wish, settings = self.wish, self.services.settings
        upstream = Upstream(
            mirrors=mirrors.find(settings=settings.mirrors),
            offline=settings.offline,
            from_dir=settings.from_dir,
            report=lambda name, done, of: self.watch.report({"note": f"fetching {name}", "done": done, "of": of}),
        )
        arrived = upstream.bring(address, self.folder / "file")
        verified, unverified, facts = [], [], {TRUST: "first-use"}
        if wish.sha256:
            if arrived.sha256 != wish.sha256.lower():
                raise HashMismatch(
                    f"{address.name} is not the file whose sha256 was given",
                    where=arrived.address,
                    detail=f"given sha256 {wish.sha256.lower()}\ncame  sha256 {arrived.sha256}",
                    hint="nothing was kept; one of the two is another version, or was changed on its way",
                )
            verified.append("sha256: it is the one that was given")
            facts[TRUST] = "given"
        signature = upstream.signature(address, self.folder / "signature")
        if wish.key is None:
            unverified.append(_unsigned(address, signature))
        else:
            keys = self._signers(address, arrived, signature, wish.key)
            verified.append(f"gpgv: the signature {_last(signature)} was made by {', '.join(keys)}")
            unverified.append("whether that key is the author's: compare its fingerprint with one they have published")
            facts |= {TRUST: "signature", "signed-by": " ".join(keys)}
        _tell_way(address, arrived, verified, unverified)
        if not wish.licence:
            unverified.append(_NO_LICENCE)
        self.services.vault.put_file(arrived.path, expect=Digest(arrived.sha256))
        source = Source(
            name=address.guess[0],
            version=address.guess[1],
            licence=wish.licence or UNKNOWN_LICENCE,
            files=(self._file(address, arrived),),
            facts=facts,
        )
        return _Found(source=source, verified=tuple(verified), unverified=tuple(unverified))

    def _signers(self, address: Address, arrived: Arrived, signature: Signature | None, key: Path) -> tuple[str, ...]:
        if signature is None:
            raise IntegrityError(
                f"a key was given, and no signature lies beside {address.name}",
                where=address.url,
                hint="without --key it is pinned by its sha256 alone; compare that with one the author has published",
                detail=f"looked for: {address.name} with {', '.join(ENDINGS)} at its end",
            )
        with translated("reading the keys", key):
            keys = key.read_bytes()
        self.watch.report({"note": f"checking the signature of {address.name}"})
        image = chain.lock_image(self.services, self.watch)
        check = Gpgv(rootfs=image.rootfs, folder=self.folder, settings=self.services.settings, cancel=self.watch.tick)
        named = self.folder / "named" / address.name  # what is said of it names it
        named.parent.mkdir()
        os.link(arrived.path, named)
        named.chmod(0o644)
        return check.detached(named, signature.data, keys, signature.unpacker)

    def _file(self, address: Address, arrived: Arrived) -> PinnedFile:
        """The pin: of the address, or of a copy in the project for a file of this machine, which no other has."""
        if not address.local:
            return PinnedFile(name=address.name, sha256=arrived.sha256, size=arrived.size, url=address.url)
        project = self.services.settings.project
        assert project is not None
        copy = project / OWN_FILES / address.name
        with translated("copying the file into the project", copy):
            copy.parent.mkdir(exist_ok=True)
            if copy.exists() and not self.wish.replace and not filecmp.cmp(copy, arrived.path, shallow=False):
                raise UsageError(
                    f"{OWN_FILES}/{address.name} is in the project already, and is another file",
                    where=str(copy),
                    hint="rename one of the two; or in its place: --replace",
                )
            aside = copy.with_name(f".{copy.name}.new")
            shutil.copyfile(arrived.path, aside)
            aside.replace(copy)
        return PinnedFile(
            name=address.name,
            sha256=arrived.sha256,
            size=arrived.size,
            archive=mirrors.PROJECT,
            path=f"{OWN_FILES}/{address.name}",
        )


_NO_LICENCE = f"its licence: it is noted as {UNKNOWN_LICENCE}; say it with --licence, as SPDX writes it"


def _archive_of(suite: str) -> str:
    return "debian-security" if suite.endswith("-security") else "debian"


def _last(signature: Signature | None) -> str:
    return signature.address.rpartition("/")[2] if signature else ""


def _unsigned(address: Address, signature: Signature | None) -> str:
    if signature is None:
        return f"a signature: none lies beside {address.name} ({', '.join(ENDINGS)})"
    return f"the signature {_last(signature)} that lies beside it: no key was given to check it with (--key FILE)"


def _tell_way(address: Address, arrived: Arrived, verified: list[str], unverified: list[str]) -> None:
    """Say what the way it came by is worth."""
    if address.local:
        return
    if arrived.address.startswith("file:"):
        unverified.append(f"whether {address.url} has the same file: it was taken from a folder of this machine")
    elif arrived.private:
        host = urlsplit(arrived.address).netloc
        verified.append(f"TLS: nobody changed it on its way from {host}, whose certificate is good")
    else:
        unverified.append("the way: it came over plain http, where anyone may change it; compare its sha256")
