"""Where a pinned file may be had: the user's own mirrors, and nowhere that the user did not name.

Anvil ships no mirror's address. It takes those of apt's configuration, or a setting's, and after them a snapshot
archive if a setting names one. A file with an address of its own (url) comes from there, or from what the setting
ANVIL_MIRROR_UPSTREAM names in the place of all such addresses. What a mirror serves is judged by its sha256 alone, so
their order is about speed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from anvil.errors import EnvironmentLack, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from anvil.model.lock import PinnedFile

APT = Path("/etc/apt")
UPSTREAM = "upstream"
"""The archive's name under which mirrors of upstream addresses are set: each has HOST/PATH below its base."""

PROJECT = "project"
"""The archive's name of the project's own folder."""

_MAX_CONFIG_BYTES = 1024 * 1024
# A mirror's last folder names its archive; a snapshot service puts the moment after it.
_ARCHIVE = re.compile(r"/(debian|debian-security)(/\d{8}T\d{6}Z)?/?$")
_SIBLING = {"debian": "debian-security", "debian-security": "debian"}


@dataclass(frozen=True, kw_only=True)
class Mirrors:
    """The addresses of archives.

    bases: archive name to base addresses, the best first, without a trailing slash. snapshot: an address with
    {archive}, {path}, {day} (YYYYMMDD) and {sha256} to fill in, tried last. days: the locks' (YYYY-MM-DD).
    """

    bases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    snapshot: str = ""
    days: tuple[str, ...] = ()

    def addresses(self, file: PinnedFile) -> tuple[str, ...]:
        """Every address at which a file may be, the best first; empty when no mirror of its archive is known."""
        if file.url:
            return self.upstream(file.url)
        return self.of_path(file.archive, file.path, file.sha256)

    def upstream(self, url: str) -> tuple[str, ...]:
        """Where an upstream address's file may be: below mirrors if any are set, else at the address itself."""
        path = below_mirror(url)
        return tuple(f"{base}/{path}" for base in self.bases.get(UPSTREAM, ())) or (url,)

    def of_path(self, archive: str, path: str, sha256: str = "") -> tuple[str, ...]:
        """Every address at which a path of an archive may be, the best first."""
        quoted = quote(path, safe="/+~:")
        found = [f"{base}/{quoted}" for base in self.bases.get(archive, ())]
        if self.snapshot and archive != PROJECT:
            days = self.days if "{day}" in self.snapshot else ("",)
            found += [
                self.snapshot.format(archive=archive, path=quoted, day=day, sha256=sha256)
                for day in dict.fromkeys(day.replace("-", "") for day in days)
            ]
        return tuple(found)


def below_mirror(url: str) -> str:
    """Where a mirror of upstream addresses, or a folder that was filled from one, has a url's file: HOST/PATH."""
    parts = urlsplit(url)
    return f"{parts.netloc}{parts.path}" + (f"?{parts.query}" if parts.query else "")


def find(
    *,
    apt: Path = APT,
    settings: Mapping[str, str] | None = None,
    snapshot: str = "",
    days: Iterable[str] = (),
    project: Path | None = None,
) -> Mirrors:
    """The mirrors of this machine.

    settings: archive name to addresses (separated by white space) that take the place of apt's for that archive; a
    setting for one of debian and debian-security also gives the other's address, from the folder beside it.
    days: of the locks, the most useful first. project: the folder that is the archive "project". Raises UsageError for
    a setting or a snapshot address that is not one.
    """
    chosen = {name: tuple(_base(name, word) for word in value.split()) for name, value in (settings or {}).items()}
    if snapshot:
        _check_snapshot(snapshot)
    configured = from_apt(apt)
    bases: dict[str, tuple[str, ...]] = {}
    for archive in sorted({*chosen, *configured, *_SIBLING}):
        found = chosen.get(archive) or (*_beside(archive, chosen), *configured.get(archive, ()))
        if unique := tuple(dict.fromkeys(found or _beside(archive, configured))):
            bases[archive] = unique
    if project is not None:
        bases[PROJECT] = (project.absolute().as_uri(),)
    return Mirrors(bases=bases, snapshot=snapshot, days=tuple(days))


def setting_name(archive: str) -> str:
    """The name of the setting that holds an archive's mirrors: ANVIL_MIRROR_DEBIAN for "debian"."""
    return "ANVIL_MIRROR_" + re.sub(r"[^A-Z0-9]", "_", archive.upper())


def no_mirror(archive: str, name: str) -> EnvironmentLack:
    """The error for a file of an archive that has no mirror here."""
    return EnvironmentLack(
        f"no mirror of the archive {archive!r} is known on this machine, so {name} cannot be fetched",
        hint=f"name one: {setting_name(archive)}=https://MIRROR/{archive}, or a folder with the files: --from DIR",
    )


def from_apt(folder: Path = APT) -> dict[str, tuple[str, ...]]:
    """The mirrors in apt's configuration, by archive name; empty where there is none, or it cannot be read.

    Kinds of address that only apt can follow (cdrom:, mirror:, mirror+file:, tor+https:, with a password in it) are
    passed over.
    """
    found: dict[str, list[str]] = {}
    for uri in _apt_addresses(folder):
        archive = _ARCHIVE.search(uri)
        if archive and _usable(uri):
            found.setdefault(archive[1], []).append(_plain(uri))
    return {archive: tuple(dict.fromkeys(bases)) for archive, bases in found.items()}


def one_line_addresses(text: str) -> Iterator[str]:
    """The addresses in a ``.list`` file: ``deb [options] URI suite component…`` a line (sources.list(5))."""
    for line in text.splitlines():
        entry = re.match(r"\s*deb(?:-src)?\s+(?:\[[^\]]*\]\s*)?([^\s#]+)\s+[^\s#]", line)
        if entry:
            yield entry[1]


def deb822_addresses(text: str) -> Iterator[str]:
    """The addresses in a ``.sources`` file: stanzas with a URIs field (sources.list(5)); disabled ones are not."""
    for stanza in re.split(r"\n(?:[ \t]*\n)+", _without_comments(text)):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1] in (" ", "\t"):
                fields[name] = f"{fields.get(name, '')} {line.strip()}"
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if fields.get("enabled", "yes").strip().lower() not in ("no", "false", "without", "off", "disable", "0"):
            yield from fields.get("uris", "").split()


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


def _apt_addresses(folder: Path) -> Iterable[str]:
    lists = [folder / "sources.list", *sorted(folder.glob("sources.list.d/*.list"))]
    for path in lists:
        yield from one_line_addresses(_text(path))
    for path in sorted(folder.glob("sources.list.d/*.sources")):
        yield from deb822_addresses(_text(path))


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(_MAX_CONFIG_BYTES)
    except OSError:
        return ""


def _usable(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
    except ValueError:
        return False
    if parts.scheme == "file":
        return parts.netloc in ("", "localhost")
    return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc


def _plain(uri: str) -> str:
    if uri.startswith("file:"):
        return "file://" + urlsplit(uri).path.rstrip("/")
    return uri.rstrip("/")


def _base(archive: str, uri: str) -> str:
    if not _usable(uri):
        raise UsageError(
            f"{uri!r} is not a mirror's address",
            where=setting_name(archive),
            hint="an address is http://…, https://… or file:///…, without a user name",
        )
    return _plain(uri)


def _beside(archive: str, bases: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The addresses of an archive that lie beside another's: …/debian has …/debian-security next to it."""
    sibling = _SIBLING.get(archive, "")
    found = []
    for base in bases.get(sibling, ()):
        match = _ARCHIVE.search(base)
        if match:
            found.append(f"{base[: match.start()]}/{archive}{match[2] or ''}")
    return tuple(found)


def _check_snapshot(template: str) -> None:
    try:
        filled = template.format(archive="debian", path="pool/x", day="20260101", sha256="0" * 64)
        good = _usable(filled) and "{path}" in template
    except (KeyError, IndexError, ValueError, AttributeError):
        good = False
    if not good:
        raise UsageError(
            "the snapshot archive's address is not one",
            where=template,
            hint="it is like https://HOST/archive/{archive}/{day}T000000Z/{path}",
        )
