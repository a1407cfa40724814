"""``anvil sources fetch``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.cli import terminal
from anvil.cli.sources.listing import missing
from anvil.cli.sources.telling import Teller, print_json

if TYPE_CHECKING:
    import argparse

    from anvil.mainframe.services import Services

TEXT = """Bring every file that the profile, the project and the base images need into the vault.

What is there already is not fetched again; what was interrupted goes on where it was."""

EXAMPLE = "anvil sources fetch && anvil forge iso --offline"


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """No words of its own."""


def run(services: Services, args: argparse.Namespace) -> int:
    """Fetch. 0 when all is there."""
    from anvil.mainframe.locks import pinned_files

    files = pinned_files(services)
    lacking = missing(services, files)
    teller = Teller(silent=args.json)
    if lacking:
        volume = sum(file.size for file in lacking)
        teller.note(f"fetching {len(lacking)} of {len(files)} files, {terminal.size(volume)} …")
        try:
            services.fetch_into_vault(lacking, teller.report, lambda: False)
        finally:
            teller.end()
    if args.json:
        fetched = [{"name": file.name, "sha256": file.sha256, "size": file.size or None} for file in lacking]
        print_json({"profile": services.sources.profile, "files": len(files), "fetched": fetched})
    else:
        print(f"  all {len(files)} files are in the vault, {len(lacking)} of them new; --offline works from now on")
    return 0
