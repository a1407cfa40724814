"""The output gate: judges a file and, when it is an archive or an image, everything in it.

The gate opens nothing itself. ``opener`` does, in a cell, and hands the members over; so the code that reads hostile
archives never runs where it could do harm.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from anvil.errors import OutputForbidden
from anvil.release.judge import Container, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

POLICY = 3
"""Raised when the gate, or how members are found, changes: part of every release's key, so all are judged again."""

MEMBER_LIMIT = 200_000
DEPTH_LIMIT = 8
CONTAINER_LIMIT = 1000
"""Archives and images in one artifact: each is opened in a cell of its own."""
BYTES_LIMIT = 64 * 1024**3
"""Bytes of all members together: what is unpacked of one artifact must end somewhere."""


@dataclass(frozen=True, kw_only=True)
class File:
    """A file to judge: what to call it, its digest and size, and how to read it."""

    name: str
    sha256: str
    size: int
    open: Callable[[], BinaryIO]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the gate found: the file's own kind, and how many members of each kind lie in it."""

    kind: str
    members: Mapping[str, int]


@dataclass(kw_only=True)
class Gate:
    """One judgement of one artifact.

    opener: the members of a container. declared: sha256 of texts that the recipes show, allowed inside images.
    released: sha256 to kind of artifacts that have passed already, which may lie inside this one.
    """

    opener: Callable[[Container, File], Iterable[File]]
    declared: frozenset[str] = frozenset()
    released: Mapping[str, str] = field(default_factory=dict)
    _members: Counter[str] = field(default_factory=Counter)
    _opened: int = 0
    _bytes: int = 0

    def admit(self, file: File, claimed: str) -> Report:
        """Judge an artifact. Raises OutputForbidden naming the first member that does not pass."""
        kind = self._judge(file, depth=0)
        if kind != claimed:
            raise OutputForbidden(
                f"{file.name} is a {kind}, not the {claimed} that the recipe says", hint=f"say kind={kind}"
            )
        return Report(kind=kind, members=dict(sorted(self._members.items())))

    def _judge(self, file: File, *, depth: int) -> str:
        if depth > DEPTH_LIMIT:
            raise OutputForbidden(f"{file.name}: archives lie in archives more than {DEPTH_LIMIT} deep")
        with file.open() as stream:
            judgement = judge(stream, file.size, name=file.name, inside=depth > 0, declared=self.declared)
        if judgement.container:
            self._opened += 1
            if self._opened > CONTAINER_LIMIT:
                raise OutputForbidden(f"{file.name}: there are more than {CONTAINER_LIMIT} archives in the artifact")
            for member in self.opener(judgement.container, file):
                self._bytes += member.size
                if self._bytes > BYTES_LIMIT:
                    raise OutputForbidden(f"{member.name}: the members have more than {BYTES_LIMIT} bytes together")
                kind = self.released.get(member.sha256) or self._judge(member, depth=depth + 1)
                self._members[kind] += 1
                if self._members.total() > MEMBER_LIMIT:
                    raise OutputForbidden(f"{file.name} has more than {MEMBER_LIMIT} members")
        return judgement.kind
