"""A project of one's own: where it is, and what lies where in it.

::

    recipes/NAME.py, recipes/NAME/   its first recipe, and the files beside it
    ROADMAP.md                       what is to be made
    sources.json                     the sources that it pins itself (see sources/lockfile.py)
    sources/                         files of this machine that it has pinned
    build_artifacts/                 what a forge lets out; git leaves it alone

This module imports next to nothing: a forge with nothing to do begins here too.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

RECIPES = "recipes"
ROADMAP = "ROADMAP.md"
OUTPUT = "build_artifacts"
LOCK = "sources.json"
OWN_FILES = "sources"
"""Where files of this machine lie that a project has pinned (the archive ``project``)."""


def lock_file(project: Path | None) -> Path | None:
    """Where a project's own lock is, or would be."""
    return None if project is None else project / LOCK


def find(start: Path) -> Path | None:
    """The project that a folder is in: the folder itself, else the nearest above it.

    A folder above counts only when it is this user's own, with its recipes/ and ROADMAP.md, when nobody else may
    write into it, and on the same file system: else whoever may write into /tmp could say what is forged in /tmp/x.
    """
    if _is_project(start):
        return start
    device = start.stat().st_dev
    for folder in start.parents:
        found = folder.stat()
        if found.st_dev != device:
            return None
        if _is_project(folder) and not found.st_mode & 0o002 and _is_ours(folder):
            return folder
    return None


def _is_project(folder: Path) -> bool:
    return (folder / RECIPES).is_dir() and (folder / ROADMAP).is_file()


def _is_ours(folder: Path) -> bool:
    return all(os.lstat(path).st_uid == os.geteuid() for path in (folder, folder / RECIPES, folder / ROADMAP))
