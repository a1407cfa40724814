"""How good estimates are after one earlier forge: a recipe is forged in a home of its own, and forged again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from anvil.microjson.codec import MicroJSON

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LONG_SECONDS = 5
CLOSE = 0.25


def measure(folder: Path, user_home: Path, recipe: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Forge twice, the second time everything that took long; what was estimated beside what it took.

    The base images and the sources are borrowed from the user's home, so that no network is in the measure.
    """
    home = folder / "home"
    home.mkdir(mode=0o700)
    (home / "images").symlink_to(user_home / "images")
    sources = folder / "sources"
    sources.mkdir()
    _anvil(home, folder, "forge", recipe, "--json", *_from(user_home, sources))
    plan = json.loads(_anvil(home, folder, "plan", recipe, "--json"))
    cells = [row for row in plan["cards"] if row["op"] not in {"fetch", "image"}]
    forced = [word for row in cells for word in ("--force", row["card"])]
    before = json.loads(_anvil(home, folder, "plan", recipe, "--json", *forced))
    expected = {row["card"]: row for row in before["cards"]}
    began = time.monotonic()
    said = _anvil(home, folder, "forge", recipe, "--json", *forced)
    took = time.monotonic() - began
    rows = []
    for line in said.splitlines():
        message = MicroJSON.decode(line.encode())
        if message["@ID"] == 112 and message["data"]["ms"] > LONG_SECONDS * 1000:
            card, seconds = message["data"]["card"], message["data"]["ms"] / 1000
            row = expected[card]
            rows.append({
                "card": card, "estimate": row["seconds"], "low": row["low"], "high": row["high"], "took": seconds,
                "off": round(row["seconds"] / seconds - 1, 3),
            })  # fmt: skip
            say(f"{card:<30} estimated {row['seconds']:7.1f} s, took {seconds:7.1f} s, {rows[-1]['off']:+.0%}")
    return {
        "recipe": recipe,
        "cards_over_5_s": len(rows),
        "within_a_quarter": sum(abs(row["off"]) <= CLOSE for row in rows),
        "inside_the_spread": sum(row["low"] <= row["took"] <= row["high"] for row in rows),
        "wall_estimate": before["wall"],
        "wall_took": round(took, 1),
        "rows": rows,
    }


def _from(user_home: Path, sources: Path) -> list[str]:
    """The fetched sources of the user's home under their names, where it has them."""
    from anvil.mainframe.services import Services
    from anvil.mainframe.settings import Settings
    from anvil.model.layer import Digest

    with Services(Settings(home=user_home, output=user_home / "unused")) as services:
        for source in services.sources.sources.values():
            file = source.files[0]
            if services.vault.has(Digest(file.sha256)):
                shutil.copyfile(services.vault.path(Digest(file.sha256)), sources / file.name)
    return ["--from", str(sources)]


def _anvil(home: Path, folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "anvil.cli.main", *words]
    environment = {**os.environ, "ANVIL_HOME": str(home)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)} ended with {done.returncode}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        )
    return done.stdout
