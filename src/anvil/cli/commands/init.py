"""Make a project of your own: a first recipe that extends the ISO, a roadmap and a lock for your sources.

The recipe is whole and can be forged as it is: it puts a program built from source, a file, a user and a service into
the root and an option into the kernel, and boots the result. Change it line by line. Nothing that is there is written
over: the folder must be empty, or not be there.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from anvil.errors import UsageError

if TYPE_CHECKING:
    import argparse

EXAMPLE = "anvil init my-os"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder to make")
    parser.add_argument("--name", default="", help="the system's name (default: the folder's)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Make it. 0. 2: the folder has something in it, or the name cannot be one."""
    from anvil.mainframe import newproject

    if str(args.folder) == "":
        raise UsageError("DIR is empty", hint="anvil init my-os")
    folder = Path(os.path.normpath(args.folder.absolute()))
    newproject.require_empty(folder)
    name = newproject.name_for(folder, args.name)
    made = newproject.create(folder, name)
    if args.json:
        import json

        print(json.dumps({"project": str(folder), "name": name, "files": [str(path) for path in made]}, indent=2))
        return 0
    print(f"  made {folder}")
    for path in made:
        print(f"    {path}")
    print("\n  next:")
    if folder != Path.cwd():
        print(f"    cd {shlex.quote(min(os.path.relpath(folder), str(folder), key=len))}")
    print(f"    anvil plan {name}")
    print(f"    anvil forge {name}")
    print("    anvil boot build_artifacts/anvilos-phase2.iso")
    return 0
