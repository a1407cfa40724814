"""What a new lock says otherwise than the old one, in a person's words. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anvil.model.lock import ImageLock, PinnedFile, SourceLock

if TYPE_CHECKING:
    from collections.abc import Mapping

Lock = SourceLock | ImageLock


def compare(old: Lock | None, new: Lock) -> tuple[str, ...]:
    """What a new lock says otherwise than the old one, but for the day; a line each."""
    after = _pins(new)
    if old is None:
        return (f"made for the first time: {len(after)} entries",)
    before = _pins(old)
    lines = [
        _difference(name, before.get(name), after.get(name))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
    if not lines and isinstance(new, ImageLock) and list(before) != list(after):
        lines.append("its packages are set up in another order")
    return tuple(lines)


@dataclass(frozen=True, kw_only=True)
class _Pin:
    version: str
    files: tuple[PinnedFile, ...]
    facts: Mapping[str, str]


def _pins(lock: Lock) -> dict[str, _Pin]:
    if isinstance(lock, SourceLock):
        return {
            name: _Pin(version=source.version, files=source.files, facts={"licence": source.licence, **source.facts})
            for name, source in lock.sources.items()
        }
    return {
        package.name: _Pin(
            version=package.version, files=(package.file,), facts={"architecture": package.architecture}
        )
        for package in lock.packages
    }


def _difference(name: str, old: _Pin | None, new: _Pin | None) -> str:
    if old is None or new is None:
        there = old or new
        assert there is not None
        return f"{name} {there.version}: {'new' if old is None else 'not needed any more'}"
    if old.version != new.version:
        return f"{name} {old.version} -> {new.version}"
    if [file.sha256 for file in old.files] != [file.sha256 for file in new.files]:
        return f"{name} {new.version}: another file of the same version"
    facts = [
        f"{fact} {old.facts.get(fact, 'none')} -> {new.facts.get(fact, 'none')}"
        for fact in sorted({*old.facts, *new.facts})
        if old.facts.get(fact) != new.facts.get(fact)
    ]
    return f"{name} {new.version}: " + (", ".join(facts) or f"the same file at {_place(new.files[0])}")


def _place(file: PinnedFile) -> str:
    return file.url or f"{file.archive} {file.path}"
