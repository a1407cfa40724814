"""Arguments that several commands share, and the environment: nobody else reads either."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from anvil.errors import UsageError
from anvil.mainframe.project import OUTPUT, find
from anvil.mainframe.settings import Settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping


def add_home(parser: argparse.ArgumentParser) -> None:
    """``--home``."""
    parser.add_argument(
        "--home", type=Path, metavar="DIR", help="Anvil's home (default: $ANVIL_HOME, else in your data folder)"
    )


def add_project(parser: argparse.ArgumentParser) -> None:
    """``--project``."""
    parser.add_argument(
        "--project",
        type=Path,
        metavar="DIR",
        help="a folder whose recipes/ and sources come first (default: the current one or one above it, if it has "
        "recipes/ and ROADMAP.md)",
    )


def add_forge(parser: argparse.ArgumentParser, *, output: bool = True, recipe: bool = True) -> None:
    """What ``forge`` and ``plan`` have in common. output: whether the command takes ``--output`` too; recipe: one."""
    if recipe:
        parser.add_argument("recipe", nargs="?", default="iso", help="the recipe to make (default: iso)")
    parser.add_argument("--profile", default="debian", help="the source lock: debian (default) or seed")
    add_project(parser)
    parser.add_argument("--force", action="append", default=[], metavar="CARD", help="run this card again")
    parser.add_argument("--jobs", type=int, metavar="N", help="cells and compiler jobs at once (default: all cores)")
    parser.add_argument("--offline", action="store_true", help="fetch nothing")
    parser.add_argument("--from", dest="from_dir", type=Path, metavar="DIR", help="take source files from here first")
    if output:
        parser.add_argument(
            "--output", type=Path, metavar="DIR", help="default: build_artifacts, of the project or here"
        )
    add_home(parser)


def home(args: argparse.Namespace) -> Path:
    """The home that the arguments and the environment name."""
    if args.home is not None:
        return Path(args.home).absolute()
    if named := os.environ.get("ANVIL_HOME"):
        return Path(named).absolute()
    try:
        data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    except RuntimeError as error:
        raise UsageError("this user has no home folder to keep things in", hint="name one: --home DIR") from error
    return Path(data).absolute() / "anvil"


def settings(args: argparse.Namespace) -> Settings:
    """All that a forge is told. Raises UsageError for what cannot be."""
    jobs = getattr(args, "jobs", None)
    if jobs is not None and not 1 <= jobs <= 1024:
        raise UsageError(f"--jobs is a number from 1 to 1024, not {jobs}")
    project = getattr(args, "project", None)
    if project is not None and not (project / "recipes").is_dir():
        raise UsageError(f"{project} has no folder recipes/", hint="name the folder that holds recipes/")
    project = find(Path.cwd()) if project is None else project.absolute()
    bwrap = os.environ.get("ANVIL_BWRAP")
    return Settings(
        home=home(args),
        output=_output(getattr(args, "output", None), project),
        project=project,
        profile=getattr(args, "profile", "debian"),
        jobs=jobs or len(os.sched_getaffinity(0)),
        offline=getattr(args, "offline", False),
        from_dir=getattr(args, "from_dir", None),
        mirrors=_mirrors(),
        snapshot=os.environ.get("ANVIL_MIRROR_SNAPSHOT", ""),
        forced=frozenset(getattr(args, "force", [])),
        bwrap=Path(bwrap) if bwrap else None,
    )


def _output(named: Path | None, project: Path | None) -> Path:
    """Where artifacts go. A link in the project's folder, which may be a stranger's, does not decide that."""
    if named is not None:
        return named.absolute()
    default = (project or Path.cwd()) / OUTPUT
    if default.is_symlink():
        raise UsageError(
            f"{OUTPUT} is a link to {default.readlink()}", hint="say so with --output DIR if that is meant"
        )
    return default


def _mirrors() -> Mapping[str, str]:
    """The mirrors that the environment names, by archive."""
    named = {
        "debian": os.environ.get("ANVIL_MIRROR_DEBIAN", ""),
        "debian-security": os.environ.get("ANVIL_MIRROR_DEBIAN_SECURITY", ""),
        "upstream": os.environ.get("ANVIL_MIRROR_UPSTREAM", ""),
    }
    return {archive: text for archive, text in named.items() if text.strip()}
