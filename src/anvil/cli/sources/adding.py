"""``anvil sources add``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from anvil.cli import terminal
from anvil.cli.sources.telling import Teller, print_json
from anvil.cli.sources.updating import add_trust, require_file
from anvil.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from anvil.mainframe.pinning import Pinned
    from anvil.mainframe.services import Services

TEXT = """Pin a source of your own into the project's lock, sources.json.

A Debian source package is taken from your mirrors, along the signatures from InRelease to its file. An address
(https, http or file) is fetched, hashed, and looked for a signature beside it, which --key checks. What was verified
is said, and so is what was not. A file of this machine is copied into the project. The forge fetches it like any
other source: by its sha256, from mirrors, offline or --from DIR."""

EXAMPLE = "anvil sources add lua5.4\n  anvil sources add https://example.org/hello-2.12.tar.gz --key author.asc"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the action."""
    parser.add_argument("what", metavar="URL|PACKAGE", help="the file's address, or a Debian source package's name")
    parser.add_argument("--name", default="", help="what recipes call it (default: what it is called)")
    parser.add_argument("--version", default="", help="its version, where the address does not say it")
    parser.add_argument("--licence", default="", metavar="SPDX", help="its licence, as SPDX writes it")
    parser.add_argument("--key", type=Path, metavar="FILE", help="public keys that must have signed the file")
    parser.add_argument("--sha256", default="", metavar="HEX", help="what the file must be, as its author says it")
    parser.add_argument("--replace", action="store_true", help="in the place of a source of that name")
    parser.add_argument(
        "--suite", action="append", default=[], metavar="NAME", help="look for the package here (default: trixie's)"
    )
    add_trust(parser)


def run(services: Services, args: argparse.Namespace) -> int:
    """Pin it. 0. 1: what came is not what was said, or not signed."""
    from anvil.mainframe import chain, pinning

    require_file("--keyring", args.keyring)
    require_file("--key", args.key)
    if args.sha256 and not (len(args.sha256) == 64 and set(args.sha256.lower()) <= set("0123456789abcdef")):
        raise UsageError("--sha256 is 64 hex digits", hint="as sha256sum prints them")
    wish = pinning.Wish(
        what=args.what,
        trust=chain.Trust(keyring=args.keyring, allow_expired=args.allow_expired),
        name=args.name,
        version=args.version,
        licence=args.licence,
        replace=args.replace,
        suites=tuple(args.suite),
        key=args.key,
        sha256=args.sha256,
    )
    teller = Teller(silent=args.json)
    try:
        watch = chain.Watch(note=teller.note, report=teller.report)
        pinned = pinning.pin(services, wish, watch, now=datetime.now(UTC))
    finally:
        teller.end()
    _tell(pinned, as_json=args.json)
    return 0


def _tell(pinned: Pinned, *, as_json: bool) -> None:
    source = pinned.source
    file = source.files[0]
    place = file.url or f"{file.archive}: {file.path}"
    if as_json:
        about = {"name": source.name, "version": source.version, "licence": source.licence, "facts": source.facts}
        pinned_file = {"file": file.name, "sha256": file.sha256, "size": file.size, "from": place}
        checked = {"verified": pinned.verified, "not_verified": pinned.unverified}
        print_json({**about, **pinned_file, **checked, "lock": str(pinned.lock)})
        return
    said = terminal.plain
    print(f"\n  {said(source.name)} {said(source.version)} is pinned in {pinned.lock}")
    print(f"    {said(file.name)}, {terminal.size(file.size)}, from {said(place)}\n    sha256 {file.sha256}\n")
    for line in pinned.verified:
        print(f"  verified      {said(line)}")
    for line in pinned.unverified:
        print(f"  NOT verified  {said(line)}")
    print(f'\n  in a recipe: RECIPE.unpack(RECIPE.source("{source.name}"))')
