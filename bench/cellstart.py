"""Starting a cell: ``anvil.cell.run`` beside bare bubblewrap of the same make-up, unshare, and no sandbox at all."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING

from anvil.cell import run as cell
from bench import homes
from bench.bare import Bare, card_spec
from bench.part import Facts, Rounds

if TYPE_CHECKING:
    from pathlib import Path

    from anvil.cell.spec import CellSpec
    from bench.part import Scale

NAME = "cell"
WHAT = "from the start of a cell to its end, one after the other; its command does nothing"

UNSHARE = ("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--ipc", "--net", "--uts", "--cgroup")


def measure(scale: Scale) -> Facts:
    """Milliseconds a cell, the mean of ``scale.cards`` / 5 of them."""
    count = max(20, scale.cards // 5)
    borrowed = homes.images(scale)
    rounds = Rounds(unit="ms")
    lacks: dict[str, str] = {}
    shell = ("/bin/bash", "-euo", "pipefail", "-c", "true")
    plain = {"unshare": (shutil.which(UNSHARE[0]) or "", *UNSHARE[1:], *shell), "no sandbox": shell}
    if not plain["unshare"][0]:
        lacks["unshare"] = "not installed"
        del plain["unshare"]
    with homes.folder(scale) as top:
        spec = card_spec(homes.Project.make(top / "spec", scale, borrowed))
        for number in range(scale.rounds):
            here = top / str(number)
            ours, bare = Bare.make(spec, here / "ours", count), Bare.make(spec, here / "bare", count)
            rounds.add("anvil", _cells(ours.specs, here) / count * 1000)
            rounds.add("bare bubblewrap", bare.run(1) / count * 1000)
            for name, argv in plain.items():
                rounds.add(name, _spawned(argv, count) / count * 1000)
    return {
        "cells": count,
        "figures": rounds.figures(),
        "ratios": {f"anvil / {name}": rounds.ratio("anvil", name) for name in rounds.taken if name != "anvil"},
        "lacks": lacks,
    }


def _cells(specs: tuple[CellSpec, ...], top: Path) -> float:
    began = time.monotonic()
    for spec in specs:
        outcome = cell.run(spec, top / "log")
        if not outcome.ok:
            raise SystemExit(f"a cell ended with {outcome}")
    return time.monotonic() - began


def _spawned(argv: tuple[str, ...], count: int) -> float:
    began = time.monotonic()
    for _ in range(count):
        pid = os.posix_spawn(argv[0], argv, {"PATH": os.defpath})
        _, status = os.waitpid(pid, 0)
        if status:
            raise SystemExit(f"{argv[0]} ended with {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - began
