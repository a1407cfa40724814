"""Debian's version numbers: their order, and the upstream version inside one.

The order is that of the Debian Policy Manual, 5.6.12: epoch, upstream version, revision; in each, runs of other
characters and runs of digits in turn; letters before other characters, and "~" before everything, even the end.
"""

from __future__ import annotations

import re

from anvil.errors import IntegrityError

Key = tuple[int, tuple[tuple[tuple[int, ...], int], ...], tuple[tuple[tuple[int, ...], int], ...]]

_EPOCH = re.compile(r"\d{1,9}", re.ASCII)
_UPSTREAM = re.compile(r"\d[0-9A-Za-z.+~:-]*", re.ASCII)
_REVISION = re.compile(r"[0-9A-Za-z.+~]+", re.ASCII)
_RUN = re.compile(r"(\D*)(\d*)", re.ASCII)
# What packagers add when they take files out of the upstream tarball.
_REPACKED = re.compile(r"[.+~-](?:ds|dfsg|repack|debian)[.\d]*$")


def sort_key(version: str) -> Key:
    """What sorts versions as Debian does. Raises IntegrityError for a text that is no version."""
    epoch, upstream, revision = _split(version)
    return int(epoch), _runs(upstream), _runs(revision)


def upstream_version(version: str) -> str:
    """The version that upstream gave: "6.12.107" of "6.12.107-1", "1.3.1" of "1:1.3.dfsg+really1.3.1-1"."""
    upstream = _split(version)[1]
    upstream = upstream.rpartition("+really")[2]
    return _REPACKED.sub("", upstream)


def number_key(version: str) -> tuple[int, ...]:
    """The leading dotted numbers of an upstream version, for comparing kernels: (6, 12, 107) of "6.12.107"."""
    match = re.match(r"\d+(?:\.\d+)*", version, re.ASCII)
    if not match:
        raise IntegrityError(f"{version!r} is not a version")
    return tuple(int(part) for part in match[0].split("."))


def _split(version: str) -> tuple[str, str, str]:
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, dash, revision = rest.rpartition("-")
    if not dash:
        upstream, revision = rest, "0"
    if not (_EPOCH.fullmatch(epoch) and _UPSTREAM.fullmatch(upstream) and _REVISION.fullmatch(revision)):
        raise IntegrityError(f"{version!r} is not a version as Debian has them")
    return epoch, upstream, revision


def _runs(text: str) -> tuple[tuple[tuple[int, ...], int], ...]:
    # A run of digits that is not there counts as 0: "1." is "1.0".
    runs = [(_weights(other), int(digits or "0")) for other, digits in _RUN.findall(text) if other or digits]
    # The end, to be less than anything that may follow but "~".
    return (*runs, (_weights(""), 0))


def _weights(run: str) -> tuple[int, ...]:
    return (*(-1 if char == "~" else ord(char) if char.isalpha() else ord(char) + 256 for char in run), 0)
