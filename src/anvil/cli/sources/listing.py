"""``anvil sources list``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.cli import terminal
from anvil.cli.sources.telling import print_json, print_table
from anvil.model.layer import Digest

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from anvil.mainframe.services import Services
    from anvil.model.lock import PinnedFile, Source

TEXT = """The sources of the profile and of the project, and the base images: what is pinned, and what is here."""

EXAMPLE = "anvil sources list --json"


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """No words of its own."""


def run(services: Services, args: argparse.Namespace) -> int:
    """Print it. 0."""
    lock = services.sources
    images = {name: [package.file for package in lock.packages] for name, (_, lock) in services.image_locks.items()}
    if args.json:
        data = {
            "profile": lock.profile,
            "resolved": lock.resolved,
            "sources": [_source_data(services, source) for source in lock.sources.values()],
            "images": [
                {
                    "name": name,
                    "packages": len(files),
                    "bytes": sum(file.size for file in files),
                    "missing": len(missing(services, files)),
                }
                for name, files in images.items()
            ],
        }
        print_json(data)
        return 0
    print(f"  profile {lock.profile}, resolved {lock.resolved}\n")
    rows: list[tuple[str, ...]] = [("source", "version", "size", "in vault", "file", "licence")]
    own = _own(services)
    rows += [_row(services, one, file) for one in lock.sources.values() if one.name not in own for file in one.files]
    print_table(rows)
    if own:
        _print_own(services, own)
    rows = [("base image", "packages", "size", "in vault")]
    for name, files in images.items():
        here = len(files) - len(missing(services, files))
        total = terminal.size(sum(file.size for file in files))
        rows.append((name, str(len(files)), total, "yes" if here == len(files) else f"{here} of {len(files)}"))
    print()
    print_table(rows)
    return 0


def missing(services: Services, files: Iterable[PinnedFile]) -> list[PinnedFile]:
    """Those of some files that the vault lacks."""
    return [file for file in files if not services.vault.has(Digest(file.sha256))]


def _own(services: Services) -> dict[str, Source]:
    """The sources that the project pins itself."""
    return services.project_lock.sources if services.project_lock else {}


def _print_own(services: Services, own: dict[str, Source]) -> None:
    from anvil.mainframe.pinning import TRUST, TRUSTS

    print(f"\n  pinned by the project {services.settings.project}\n")
    rows: list[tuple[str, ...]] = [("source", "version", "size", "in vault", "file", "licence", "believed by")]
    for source in own.values():
        trust = TRUSTS.get(source.facts.get(TRUST, ""), "its lock")
        rows += [(*_row(services, source, file), trust) for file in source.files]
    print_table([tuple(terminal.plain(cell) for cell in row) for row in rows])


def _source_data(services: Services, source: Source) -> dict[str, object]:
    files = [
        {
            "name": file.name,
            "sha256": file.sha256,
            "size": file.size or None,
            "from": file.url or f"{file.archive} {file.path}",
            "in_vault": services.vault.has(Digest(file.sha256)),
        }
        for file in source.files
    ]
    return {
        "name": source.name,
        "version": source.version,
        "licence": source.licence,
        "facts": dict(source.facts),
        "pinned_by": "project" if source.name in _own(services) else "profile",
        "files": files,
    }


def _row(services: Services, source: Source, file: PinnedFile) -> tuple[str, ...]:
    here = services.vault.has(Digest(file.sha256))
    size = terminal.size(file.size) if file.size else "?"
    return (source.name, source.version, size, "yes" if here else "no", file.name, source.licence)
