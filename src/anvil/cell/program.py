"""Which bubblewrap makes the cells: the host's if it is recent enough, else the base image's own."""

from __future__ import annotations

import functools
import os
import re
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from anvil.cell.process import capture
from anvil.errors import CellUnavailable

OLDEST = (0, 11)
"""The first bubblewrap with ``--overlay``."""

_LOADER = "lib64/ld-linux-x86-64.so.2"
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_BWRAP = "usr/bin/bwrap"


@dataclass(frozen=True, kw_only=True)
class Bubblewrap:
    """A bubblewrap that can be started: the program's words, with paths below ``root`` when it is an image's."""

    words: tuple[Path | str, ...]


def find(rootfs: Path, wanted: Path | None = None) -> Bubblewrap:
    """The bubblewrap to use: ``wanted``, or the host's if it is recent enough, or the one of the base image.

    Raises CellUnavailable when there is none, or ``wanted`` is too old.
    """
    if wanted is not None:
        found = version(wanted)
        if found < OLDEST:
            raise CellUnavailable(
                f"bubblewrap {dotted(found)} is too old, {dotted(OLDEST)} is needed", where=str(wanted),
                hint="unset ANVIL_BWRAP to use the base image's",
            )  # fmt: skip
        return Bubblewrap(words=(wanted,))
    host = of_host()
    return Bubblewrap(words=(host,)) if host else _of_image(rootfs)


@functools.cache
def of_host() -> Path | None:
    """The host's bubblewrap, if it can be used: a setuid one lays no trees over each other, an old one neither."""
    found = shutil.which("bwrap")
    if not found or os.stat(found).st_mode & stat.S_ISUID:
        return None
    return Path(found) if version(Path(found)) >= OLDEST else None


def _of_image(rootfs: Path) -> Bubblewrap:
    loader, program = rootfs / _LOADER, rootfs / _BWRAP
    if not (os.path.isfile(loader) and os.path.isfile(program)):
        raise CellUnavailable(
            f"no bubblewrap: the host has none of version {dotted(OLDEST)} or later, the base image has none at all",
            where=str(rootfs),
            hint="install bubblewrap, or add it to the image's packages",
        )
    return Bubblewrap(words=(loader, "--library-path", rootfs / _LIBRARIES, program))


@functools.cache
def version(path: Path) -> tuple[int, ...]:
    """What a bubblewrap says that it is; (0,) when it does not run or says nothing of the kind."""
    try:
        _, said = capture((str(path), "--version"))
    except CellUnavailable:
        return (0,)
    match = re.search(rb"bubblewrap (\d+(?:\.\d+)*)", said)
    return tuple(map(int, match[1].split(b"."))) if match else (0,)


def dotted(numbers: tuple[int, ...]) -> str:
    """A version as people write it."""
    return ".".join(map(str, numbers))
