"""Build tools that run as many trivial tasks: three without a sandbox, which tell what safety costs, and one with."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.homes import Took, timed

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.part import Scale

NOT_HERE = "not installed: make bench installs it"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A tool and its files. A second run of it is a no-op."""

    argv: list[str]
    folder: Path
    env: dict[str, str] | None = None

    def run(self, watch: Callable[[int], None] = lambda _pid: None) -> Took:
        """Run it to its end; watch as in ``timed``."""
        return timed(self.argv, cwd=self.folder, env=self.env, watch=watch)


def peers(top: Path, scale: Scale, lacks: dict[str, str]) -> dict[str, Peer]:
    """Each tool without a sandbox that is here, its files written below ``top``. lacks: is told of the others."""
    found: dict[str, Peer] = {}
    for name, write in (("ninja", _ninja), ("make", _make), ("doit", _doit)):
        here = top / name
        here.mkdir(parents=True)
        argv = write(here, scale)
        if argv is None:
            lacks[name] = NOT_HERE
        else:
            found[name] = Peer(argv=argv, folder=here)
    return found


def program(name: str) -> str | None:
    """A program of this Python's environment, else one of the machine's."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.is_file() else shutil.which(name)


def _ninja(here: Path, scale: Scale) -> list[str] | None:
    lines = ["rule touch", "  command = touch $out"]
    lines += [f"build s{n}: touch" for n in range(scale.cards)]
    (here / "build.ninja").write_text("\n".join(lines) + "\n", encoding="ascii")
    found = program("ninja")
    return [found, f"-j{scale.lanes}"] if found else None


def _make(here: Path, scale: Scale) -> list[str] | None:
    names = " ".join(f"s{n}" for n in range(scale.cards))
    (here / "Makefile").write_text(f"all: {names}\n{names}:\n\ttouch $@\n", encoding="ascii")
    found = program("make")
    return [found, "-s", f"-j{scale.lanes}"] if found else None


_DODO = """DOIT_CONFIG = {{"verbosity": 0}}


def task_touch():
    for n in range({cards}):
        yield {{"name": str(n), "actions": [f"touch s{{n}}"], "targets": [f"s{{n}}"], "file_dep": ["dodo.py"]}}
"""


def _doit(here: Path, scale: Scale) -> list[str] | None:
    (here / "dodo.py").write_text(_DODO.format(cards=scale.cards), encoding="ascii")
    if importlib.util.find_spec("doit") is None:
        return None
    return [sys.executable, "-m", "doit", "run", "-n", str(scale.lanes)]


_BST = ["--no-interactive", "--no-colors", "build"]


def buildstream(top: Path, scale: Scale, rootfs: Path, lacks: dict[str, str]) -> Peer | None:
    """BuildStream with as many trivial elements over the tree of a base image, which it has imported already.

    None, and ``lacks`` told why, where it is not installed or does not run.
    """
    bst = program("bst")
    if bst is None:
        lacks["buildstream"] = NOT_HERE
        return None
    elements = top / "elements"
    elements.mkdir(parents=True)
    shutil.copytree(rootfs, top / "root", symlinks=True)
    cache = top / "cache"
    (top / "buildstream.conf").write_text(f"cachedir: {cache}\nscheduler:\n  builders: {scale.lanes}\n")
    (top / "project.conf").write_text("name: trivial\nmin-version: 2.0\nelement-path: elements\n")
    (elements / "base.bst").write_text("kind: import\nsources:\n- {kind: local, path: root}\n")
    for n in range(scale.cards):
        text = f'kind: manual\nbuild-depends: [base.bst]\nconfig:\n  build-commands: ["true {n}"]\n'
        (elements / f"c{n}.bst").write_text(text)
    names = "".join(f"- c{n}.bst\n" for n in range(scale.cards))
    (elements / "all.bst").write_text(f"kind: stack\ndepends:\n{names}")
    words = [bst, "--config", str(top / "buildstream.conf"), *_BST]
    env = {**os.environ, "XDG_CACHE_HOME": str(cache), "HOME": str(top)}
    try:
        Peer(argv=[*words, "base.bst"], folder=top, env=env).run()
        Peer(argv=[*words, "c0.bst"], folder=top, env=env).run()
    except SystemExit as error:
        lacks["buildstream"] = f"does not run here: {str(error)[-300:]}"
        return None
    return Peer(argv=[*words, "all.bst"], folder=top, env=env)
