"""Overlays to mount, trees to write, and another user to be."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import textwrap
import traceback
from typing import TYPE_CHECKING

import pytest

from anvil.vault import OutputLimits, discard

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

LIMITS = OutputLimits(total_bytes=1 << 40)
NOBODY = 65534
IS_ROOT = os.geteuid() == 0


def as_user(function: Callable[[], None]) -> None:
    """Run a function as an ordinary user, in a child when we are root."""
    if not IS_ROOT:
        function()
        return
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            function()
        except BaseException:  # noqa: BLE001 - everything is told to the parent
            os.write(writer, traceback.format_exc().encode()[-60_000:])
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        told = stream.read().decode()
    _, status = os.waitpid(child, 0)
    assert status == 0, told


def in_namespace(script: str, *arguments: object) -> None:
    """Run a shell script that may mount; its mounts are gone with it."""
    flags = ["--mount"] if IS_ROOT else ["--mount", "--map-root-user"]
    command = ["unshare", *flags, "sh", "-euc", script, "sh", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def on_overlay(lowers: Sequence[Path], script: str, work: Path) -> tuple[Path, Path]:
    """Run a script in a real overlay over ``lowers`` (topmost first).

    Gives the upper directory, and a plain copy of what the overlay showed at the end.
    """
    for name in ("upper", "scratch", "view", "copy", "none"):
        (work / name).mkdir(parents=True, exist_ok=True)
    options = f"userxattr,lowerdir={':'.join(map(str, lowers)) or work / 'none'}"
    options += f",upperdir={work / 'upper'},workdir={work / 'scratch'}"
    in_namespace(
        'mount -t overlay -o "$1" overlay "$2"; cd "$2"; eval "$4"; cd /; cp -a "$2/." "$3"',
        options,
        work / "view",
        work / "copy",
        script,
    )
    discard(work / "scratch")
    return work / "upper", work / "copy"


def write_tree(root: Path, files: dict[str, str]) -> Path:
    """A directory of files."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    root.mkdir(parents=True, exist_ok=True)
    return root


needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root can make this")
needs_unshare = pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare(1)")


def python_script(text: str) -> str:
    """A command that runs a Python text with this interpreter, for a shell script."""
    text = "import os, sys\nfrom pathlib import Path\n" + textwrap.dedent(text)
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(text)}"
