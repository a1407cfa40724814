"""Choosing versions: the newest of each wanted source that is signed for and still there.

So the ``debian`` source lock is made, and so a project pins a Debian source of its own.

An index may list a version whose file no mirror has any more; a lock of it would be useless, so the file is asked for
before it is chosen. OpenZFS is chosen first: its META says which kernels it can be built into.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from anvil.errors import EnvironmentLack, IntegrityError, SourceGone
from anvil.model.lock import PinnedFile, Source, SourceLock
from anvil.model.near import nearest
from anvil.sources.debian import Archive, Getter, Suite, move
from anvil.sources.stanza import Stanza, source_files
from anvil.sources.stanza import field as stanza_field
from anvil.sources.version import number_key, sort_key, upstream_version

_STABLE = (
    Suite(archive="debian", name="trixie"),
    Suite(archive="debian-security", name="trixie-security"),
    Suite(archive="debian", name="trixie-updates"),
)
_BACKPORTS = (
    (Suite(archive="debian", name="trixie-backports"),),
    (Suite(archive="debian", name="bookworm-backports"),),
)
_COMPONENTS = ("main", "contrib", "non-free-firmware", "non-free")
_MAX_META = 64 * 1024

UNKNOWN_LICENCE = "NOASSERTION"
"""What SPDX calls a licence that nobody has stated."""

Facts = Callable[[Path], dict[str, str]]
"""Reads facts from a tarball."""


class Prober(Getter, Protocol):
    """What of the fetcher is used here."""

    def answers(self, file: PinnedFile) -> bool:
        """Whether a mirror has the file."""
        ...


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A source to pin.

    package: its name in Debian. series: the beginning of its version ("6.12" takes 6.12.x alone), because the
    recipes are written for it. tiers: suites to look in; the next tier only when nothing in one is to be had. native:
    whether a package that is Debian's own will do, which has one tarball and no upstream's.
    """

    name: str
    package: str
    licence: str
    component: str = "main"
    series: str = ""
    tiers: Sequence[Sequence[Suite]] = (_STABLE,)
    facts: Facts | None = None
    native: bool = False


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    suite: Suite
    version: str
    file: PinnedFile


def read_zfs_meta(tarball: Path) -> dict[str, str]:
    """The kernels that an OpenZFS release supports: linux-minimum and linux-maximum, from its META file."""
    fields: dict[str, str] = {}
    for line in _member(tarball, "META").decode("utf-8", "replace").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields[name.strip().lower()] = value.strip()
    try:
        return {name: fields[name] for name in ("linux-minimum", "linux-maximum")}
    except KeyError as error:
        raise IntegrityError(f"OpenZFS's META does not say {error}", where=str(tarball)) from error


def kernel_supported(version: str, facts: dict[str, str]) -> bool:
    """Whether OpenZFS's facts allow a kernel. A maximum of 6.14 allows every 6.14.x."""
    kernel = number_key(version)
    lowest, highest = number_key(facts["linux-minimum"]), number_key(facts["linux-maximum"])
    return lowest <= kernel and kernel[: len(highest)] <= highest


WANTED = (
    Wanted(
        name="zfs",
        package="zfs-linux",
        licence="CDDL-1.0",
        component="contrib",
        series="2.3",
        tiers=(_STABLE, *_BACKPORTS),
        facts=read_zfs_meta,
    ),
    Wanted(name="linux", package="linux", licence="GPL-2.0-only WITH Linux-syscall-note", series="6.12"),
    Wanted(name="busybox", package="busybox", licence="GPL-2.0-only"),
    Wanted(
        name="util-linux",
        package="util-linux",
        licence="GPL-2.0-or-later AND LGPL-2.1-or-later AND BSD-3-Clause",
    ),
    Wanted(name="zlib", package="zlib", licence="Zlib"),
    Wanted(name="openssl", package="openssl", licence="Apache-2.0"),
    Wanted(name="libtirpc", package="libtirpc", licence="BSD-3-Clause"),
    Wanted(name="musl", package="musl", licence="MIT"),
    # its own code is MIT; scp is BSD-2-Clause, libtomcrypt and libtommath are in the public domain
    Wanted(name="dropbear", package="dropbear", licence="MIT AND BSD-2-Clause AND Unlicense"),
)


@dataclass
class _Choice:
    """The state of one resolution: what is looked in, and what was already decided."""

    archive: Archive
    get: Prober
    work: Path
    note: Callable[[str], None]
    packages: frozenset[str]
    sources: dict[str, Source] = field(default_factory=dict)
    indexes: dict[tuple[Suite, str], list[Stanza]] = field(default_factory=dict)

    def listed(self, suite: Suite, component: str) -> list[Stanza]:
        """The wanted packages' stanzas of an index, which is read once: it has tens of megabytes."""
        key = (suite, component)
        if key not in self.indexes:
            stanzas = self.archive.sources(suite, component)
            self.indexes[key] = [stanza for stanza in stanzas if stanza.get("package") in self.packages]
        return self.indexes[key]


def resolve_debian(
    archive: Archive,
    get: Prober,
    *,
    work: Path,
    day: str,
    wanted: Iterable[Wanted] = WANTED,
    note: Callable[[str], None] = lambda _: None,
) -> SourceLock:
    """Make the source lock. work: a folder for tarballs that facts are read from. note: told each decision.

    Raises IntegrityError for a broken chain, SourceGone when no version of a wanted source is to be had, and
    EnvironmentLack when the only kernels to be had are ones that this OpenZFS does not support.
    """
    wanted = tuple(wanted)
    packages = frozenset(one.package for one in wanted)
    choice = _Choice(archive=archive, get=get, work=work, note=note, packages=packages)
    for one in wanted:
        choice.sources[one.name] = _choose(choice, one)
    return SourceLock(profile="debian", resolved=day, sources=choice.sources)


def resolve_package(
    archive: Archive,
    get: Prober,
    package: str,
    *,
    work: Path,
    suites: Sequence[Suite] = (),
    licence: str = UNKNOWN_LICENCE,
    note: Callable[[str], None] = lambda _: None,
) -> Source:
    """One source package, under its own name: the newest version that is signed for and still there.

    suites: where to look; Debian's stable ones by default. work: as for ``resolve_debian``. Raises what that raises;
    SourceGone, with the name of the source or with names that are near, when there is no such source package.
    """
    choice = _Choice(archive=archive, get=get, work=work, note=note, packages=frozenset((package,)))
    tier = tuple(suites) or _STABLE
    for component in _COMPONENTS:
        wanted = Wanted(
            name=package, package=package, licence=licence, component=component, tiers=(tier,), native=True
        )
        if _candidates(choice, wanted, tier):
            return _choose(choice, wanted)
    names, owner = _names(archive, tier, package)
    near = nearest(package, names)
    raise SourceGone(
        f"no source package is called {package!r}" + (f": it is made from the source {owner}" if owner else ""),
        where=", ".join(suite.name for suite in tier),
        hint=f"anvil sources add {owner or near[0]}" if owner or near else "name a suite that has it: --suite NAME",
        detail=f"near: {', '.join(near)}" if near and not owner else "",
    )


def _names(archive: Archive, suites: Sequence[Suite], binary: str) -> tuple[set[str], str]:
    """Every source package of some suites, and the one that a binary package is made from ("" for none)."""
    names: set[str] = set()
    owner = ""
    for suite in suites:
        for component in _COMPONENTS:
            for stanza in archive.sources(suite, component):
                names.add(stanza_field(stanza, "Package"))
                if binary in re.split(r"[,\s]+", stanza.get("binary", "")):
                    owner = stanza_field(stanza, "Package")
    return names, owner


def with_libraries_of(seed: SourceLock, debian: SourceLock) -> SourceLock:
    """The ``seed`` lock with its archive sources (the libraries) as in a newer ``debian`` lock.

    Its upstream pins are what they are: they are never resolved.
    """
    sources = {
        name: debian.sources[name] if source.files[0].archive and name in debian.sources else source
        for name, source in seed.sources.items()
    }
    return SourceLock(profile=seed.profile, resolved=debian.resolved, sources=sources)


def _choose(choice: _Choice, wanted: Wanted) -> Source:
    refused: list[str] = []
    for tier in wanted.tiers:
        for candidate in _candidates(choice, wanted, tier):
            version = upstream_version(candidate.version)
            if why := _unsupported(choice, wanted, version):
                refused.append(f"{candidate.version}: {why}")
            elif choice.get.answers(candidate.file):
                choice.note(
                    f"{wanted.name} {version}, from {wanted.package} {candidate.version} of {candidate.suite.name}"
                )
                return _source(choice, wanted, candidate, version)
            else:
                refused.append(f"{candidate.version} of {candidate.suite.name}: listed, but no mirror has its file")
    for line in refused:
        choice.note(f"{wanted.name}: {line}")
    if any("OpenZFS" in line for line in refused):
        raise EnvironmentLack(
            f"no version of {wanted.package} that this OpenZFS supports is to be had",
            detail="\n".join(refused),
            hint="wait for an OpenZFS that supports it, or name a mirror that still has an older kernel",
        )
    raise SourceGone(
        f"no version of {wanted.package} is to be had",
        where=", ".join(suite.name for tier in wanted.tiers for suite in tier),
        detail="\n".join(refused) or "no index lists it",
        hint="try another mirror, or a snapshot archive",
    )


def _candidates(choice: _Choice, wanted: Wanted, tier: Sequence[Suite]) -> list[_Candidate]:
    """The versions that a tier's indexes list, newest first; one for each upstream tarball."""
    found = []
    for suite in tier:
        for stanza in choice.listed(suite, wanted.component):
            if stanza.get("package") == wanted.package:
                version = stanza_field(stanza, "Version")
                if _in_series(upstream_version(version), wanted.series):
                    tarball = _tarball(stanza, suite.archive, native=wanted.native)
                    found.append(_Candidate(suite=suite, version=version, file=tarball))
    found.sort(key=lambda candidate: sort_key(candidate.version), reverse=True)
    # Revisions of one upstream version share its tarball; another archive may still have it when the first has not.
    unique: dict[tuple[str, str], _Candidate] = {}
    for one in found:
        unique.setdefault((one.file.sha256, one.file.archive), one)
    return list(unique.values())


def _in_series(version: str, series: str) -> bool:
    return not series or version == series or version.startswith(series + ".")


def _tarball(stanza: Stanza, archive: str, *, native: bool) -> PinnedFile:
    files = [file for file in source_files(stanza, archive) if not file.name.endswith(".asc")]
    found = [file for file in files if ".orig.tar." in file.name]
    if native and not found:
        found = [file for file in files if ".tar." in file.name and ".orig" not in file.name]
    if found:
        return found[0]
    raise IntegrityError(f"{stanza.get('package')} {stanza.get('version')} has no upstream tarball")


def _unsupported(choice: _Choice, wanted: Wanted, version: str) -> str:
    zfs = choice.sources.get("zfs")
    if wanted.name != "linux" or zfs is None or kernel_supported(version, zfs.facts):
        return ""
    return f"OpenZFS {zfs.version} supports Linux {zfs.facts['linux-minimum']} to {zfs.facts['linux-maximum']}"


def _source(choice: _Choice, wanted: Wanted, candidate: _Candidate, version: str) -> Source:
    facts = {"debian-version": candidate.version, "debian-suite": candidate.suite.name}
    if wanted.facts is not None:
        target = choice.work / candidate.file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        choice.get.fetch(candidate.file, lambda _, arrived: move(arrived, target))
        facts.update(wanted.facts(target))
    return Source(name=wanted.name, version=version, licence=wanted.licence, files=(candidate.file,), facts=facts)


def _member(tarball: Path, name: str) -> bytes:
    """A small file at the top of a tarball's one folder."""
    try:
        with tarfile.open(tarball, "r|*") as archive:
            for member in archive:
                if member.isfile() and member.name.count("/") == 1 and member.name.endswith("/" + name):
                    stream = archive.extractfile(member)
                    if stream is not None and member.size <= _MAX_META:
                        return stream.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise IntegrityError(f"the tarball cannot be read: {error}", where=str(tarball)) from error
    raise IntegrityError(f"there is no {name} in the tarball", where=str(tarball))
