"""The sources and base images: what is pinned, what is here, fetching all of it, making the locks anew.

list    the profile's sources and the base images, and whether their files are in the vault
fetch   bring every pinned file into the vault, so that --offline works afterwards
update  make the locks anew from the newest signed indexes of the archive
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anvil.cli import options, terminal
from anvil.errors import Interrupted, UsageError
from anvil.mainframe.services import Services
from anvil.model.layer import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from anvil.mainframe.locks import Proposal
    from anvil.model.lock import PinnedFile, Source

EXAMPLE = "anvil sources fetch --profile debian"

_FETCH = """Bring every file that the profile and the base images need into the vault.

What is there already is not fetched again; what was interrupted goes on where it was."""

_UPDATE = """Make the locks anew: the newest versions that the archive has signed and its mirrors have.

Signatures are checked by gpgv, and packages chosen by apt, in cells. A lock that says the same as before is left as
it is, and nothing is written before everything has been decided."""

_SPEAK_SECONDS = 15


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|fetch|update")

    one = _action(actions, "list", "The profile's sources and the base images.", "anvil sources list --json")
    _add_profile(one)

    one = _action(actions, "fetch", _FETCH, "anvil sources fetch && anvil forge iso --offline")
    _add_profile(one)
    _add_places(one)

    one = _action(actions, "update", _UPDATE, "anvil sources update --check")
    one.add_argument("--sources", action="store_true", help="only the locks of sources")
    one.add_argument("--images", action="store_true", help="only the locks of base images")
    where = one.add_mutually_exclusive_group()
    where.add_argument(
        "--check", action="store_true", help="only say what would change; exit code 1 if anything would"
    )
    where.add_argument("--into", type=Path, metavar="DIR", help="write all locks there, not into this checkout")
    one.add_argument("--keyring", type=Path, metavar="FILE", help="trust these keys (default: Debian's, of this host)")
    one.add_argument("--allow-expired", action="store_true", help="take indexes whose date of expiry has passed")
    _add_places(one)


def run(args: argparse.Namespace) -> int:
    """Run an action. update --check: 1 when something would change."""
    if (folder := getattr(args, "from_dir", None)) is not None and not folder.is_dir():
        raise UsageError(f"--from {folder}: there is no such folder")
    with _interruptible(), Services(options.settings(args)) as services:
        if args.action == "list":
            return _list(services, as_json=args.json)
        if args.action == "fetch":
            return _fetch(services, as_json=args.json)
        return _update(services, args)


def _action(actions: Any, name: str, text: str, example: str) -> argparse.ArgumentParser:
    """The parser of one action."""
    parser: argparse.ArgumentParser = actions.add_parser(
        name, description=text, epilog=f"example:\n  {example}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options.add_home(parser)
    return parser


def _add_profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", default="debian", help="the source lock: debian (default) or seed")


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--offline", action="store_true", help="ask no mirror: --from is all there is")
    parser.add_argument("--from", dest="from_dir", type=Path, metavar="DIR", help="look for files here first")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM stop it as Ctrl-C does: at once, wherever it is; what holds a cell or a download lets go of it."""

    def on_signal(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the clearing up is not to be interrupted in its turn
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("stopped", hint="what was fetched is kept: run the same command to go on") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---- list


def _list(services: Services, *, as_json: bool) -> int:
    lock = services.sources
    images = {name: [package.file for package in lock.packages] for name, (_, lock) in services.image_locks.items()}
    if as_json:
        data = {
            "profile": lock.profile,
            "resolved": lock.resolved,
            "sources": [_source_data(services, source) for source in lock.sources.values()],
            "images": [
                {
                    "name": name,
                    "packages": len(files),
                    "bytes": sum(file.size for file in files),
                    "missing": len(_missing(services, files)),
                }
                for name, files in images.items()
            ],
        }
        _print_json(data)
        return 0
    print(f"  profile {lock.profile}, resolved {lock.resolved}\n")
    rows: list[tuple[str, ...]] = [("source", "version", "size", "in vault", "file", "licence")]
    rows += [_row(services, source, file) for source in lock.sources.values() for file in source.files]
    _print_table(rows)
    rows = [("base image", "packages", "size", "in vault")]
    for name, files in images.items():
        here = len(files) - len(_missing(services, files))
        total = terminal.size(sum(file.size for file in files))
        rows.append((name, str(len(files)), total, "yes" if here == len(files) else f"{here} of {len(files)}"))
    print()
    _print_table(rows)
    return 0


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
        "files": files,
    }


def _row(services: Services, source: Source, file: PinnedFile) -> tuple[str, ...]:
    here = services.vault.has(Digest(file.sha256))
    size = terminal.size(file.size) if file.size else "?"
    return (source.name, source.version, size, "yes" if here else "no", file.name, source.licence)


# ---- fetch


def _fetch(services: Services, *, as_json: bool) -> int:
    from anvil.mainframe.locks import pinned_files

    files = pinned_files(services)
    missing = _missing(services, files)
    teller = _Teller(silent=as_json)
    if missing:
        volume = sum(file.size for file in missing)
        teller.note(f"fetching {len(missing)} of {len(files)} files, {terminal.size(volume)} …")
        try:
            services.fetch_into_vault(missing, teller.report, lambda: False)
        finally:
            teller.end()
    if as_json:
        fetched = [{"name": file.name, "sha256": file.sha256, "size": file.size or None} for file in missing]
        _print_json({"profile": services.sources.profile, "files": len(files), "fetched": fetched})
    else:
        print(f"  all {len(files)} files are in the vault, {len(missing)} of them new; --offline works from now on")
    return 0


# ---- update


def _update(services: Services, args: argparse.Namespace) -> int:
    from anvil.mainframe import locks

    if args.keyring is not None and not args.keyring.is_file():
        raise UsageError(f"--keyring {args.keyring}: there is no such file")
    folder = args.into.absolute() if args.into else None if args.check else locks.own_folder()
    both = args.sources == args.images
    wish = locks.Wish(
        sources=both or args.sources,
        images=both or args.images,
        keyring=args.keyring,
        allow_expired=args.allow_expired,
    )
    teller = _Teller(silent=args.json)
    try:
        watch = locks.Watch(note=teller.note, report=teller.report)
        proposals = locks.propose(services, wish, watch, now=datetime.now(UTC))
    finally:
        teller.end()
    written = locks.write(proposals, folder, unchanged=args.into is not None) if folder else ()
    _tell(proposals, written, as_json=args.json)
    return 1 if args.check and any(proposal.changes for proposal in proposals) else 0


def _tell(proposals: Sequence[Proposal], written: Sequence[Path], *, as_json: bool) -> None:
    if as_json:
        _print_json(
            {
                "locks": [{"name": each.name, "changes": list(each.changes)} for each in proposals],
                "written": [str(path) for path in written],
            }
        )
        return
    for proposal in proposals:
        count = len(proposal.changes)
        print(f"\n  {proposal.name}: " + (f"{count} change{'s' * (count > 1)}" if count else "as it was"))
        for line in proposal.changes:
            print(f"    {terminal.plain(line)}")
    if written:
        print()
    for path in written:
        print(f"  written: {path}")


# ---- printing


class _Teller:
    """Progress: repainted in place on a terminal; elsewhere a line now and then. silent: not at all."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._live = not silent and terminal.is_interactive()
        self._spoke = time.monotonic()

    def note(self, text: str) -> None:
        """Say something that stays."""
        if not self._silent:
            self._clear()
            print(f"  {terminal.plain(text)}", flush=True)
            self._spoke = time.monotonic()

    def report(self, data: dict[str, Any]) -> None:
        """Show how far it is: data as ``Services.fetch_into_vault`` and ``images.ensure_image`` report it."""
        now = time.monotonic()
        if self._silent or "note" not in data or now - self._spoke < (0.1 if self._live else _SPEAK_SECONDS):
            return
        self._spoke = now
        share = f" ({100 * data['done'] // data['of']} %)" if data.get("of") else ""
        text = f"  {terminal.plain(str(data['note']))}{share}"
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            sys.stdout.write(f"\r\033[K{text[:width]}")
            sys.stdout.flush()
        else:
            print(text, flush=True)

    def end(self) -> None:
        """Take the repainted line away."""
        self._clear()

    def _clear(self) -> None:
        if self._live:
            sys.stdout.write("\r\033[K")
            sys.stdout.flush()


def _missing(services: Services, files: Iterable[PinnedFile]) -> list[PinnedFile]:
    return [file for file in files if not services.vault.has(Digest(file.sha256))]


def _print_json(data: object) -> None:
    import json

    print(json.dumps(data, indent=2))


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Columns as wide as they need, the last as it is."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
