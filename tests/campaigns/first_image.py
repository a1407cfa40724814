"""``make campaign-first-image``: follow docs/PROJECT.md to the letter, from nothing to a booted image of one's own.

Every ``sh`` block of the document is run in its order, as it stands there, by one shell in a fresh checkout (a copy of
the files that git knows or would take), with a fresh .venv, a fresh user's folder and a fresh home of Anvil's. It must
take 15 minutes or less from ``anvil init`` to the end of the first ``anvil boot``. Then the image is booted once more
and asked for one's own program, file, kernel option, user and service; as the negative control the plain ISO is asked
the same, and must have none of them.

--home DIR: a home in which the ISO has been forged, so that this is not done again; it is changed. --keep: leave the
folder that all happened in. The result is bench/results/first_image.json; ends with 1 when anything of it is not so.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]
DOCUMENT = CHECKOUT / "docs" / "PROJECT.md"
RESULT = CHECKOUT / "bench" / "results" / "first_image.json"
BOUND_SECONDS = 15 * 60
_MARK = "@@ first-image:"
_DONE = re.compile(r"\] done +(\S+) in (\S+)")

ASKED = {
    "program": "hello | grep -x 'hello from my-os'",
    "file": "grep -x 'This is my-os, forged by Anvil.' /etc/motd",
    "kernel option": "zcat /proc/config.gz | grep -x CONFIG_EXFAT_FS=y && grep exfat /proc/filesystems",
    "user": "grep ^ada: /etc/passwd",
    "service": "ps -o user,args | grep '^ada .*hello --serv[e]' && grep 'hello from my-os' /run/log/hello/current",
}
"""What is asked of the image, and what it must answer with exit code 0; the plain ISO must not."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of commands of the document. heading: the section it is in."""

    heading: str
    text: str


@dataclass(kw_only=True)
class Followed:
    """What came of following the document: the seconds of each block, by number; cards: what the forges said."""

    exit_code: int = 0
    seconds: list[float] = field(default_factory=list)
    cards: dict[str, str] = field(default_factory=dict)


def blocks(page: str) -> list[Block]:
    """Every ``sh`` block, in order."""
    found, heading = [], ""
    for match in re.finditer(r"^## ([^\n]+)$|^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        if match[1]:
            heading = match[1]
        else:
            found.append(Block(heading=heading, text=match[2]))
    return found


def script(listed: list[Block]) -> str:
    """All blocks as one shell runs them, which ends at the first command that fails; a mark before each."""
    marked = [f"printf '\\n{_MARK} {number}\\n'\n{block.text}" for number, block in enumerate(listed)]
    return "\n".join(["set -e", *marked, f"printf '\\n{_MARK} end\\n'"])


def timed(listed: list[Block]) -> slice:
    """From the block that begins with ``anvil init`` to the first that has ``anvil boot`` in it."""
    first = next(n for n, block in enumerate(listed) if block.text.startswith("anvil init "))
    last = next(n for n, block in enumerate(listed) if "\nanvil boot " in block.text)
    return slice(first, last + 1)


def follow(listed: list[Block], checkout: Path, environment: dict[str, str], log: Path) -> Followed:
    """Run it; what it says is shown and kept in ``log``."""
    found = Followed()
    began: float | None = None
    with (
        log.open("w", encoding="utf-8") as kept,
        subprocess.Popen(
            ["bash", "-c", script(listed)], cwd=checkout, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        ) as shell,
    ):  # fmt: skip
        assert shell.stdout is not None
        for line in shell.stdout:
            now = time.monotonic()
            if line.startswith(_MARK):
                if began is not None:
                    found.seconds.append(round(now - began, 1))
                began = now
            if done := _DONE.search(line):
                found.cards[done[1]] = done[2]
            for stream in (kept, sys.stdout):
                stream.write(line)
                stream.flush()
    found.exit_code = shell.returncode
    return found


def fresh_checkout(folder: Path) -> Path:
    """A copy of what git knows of this checkout, or would take."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(words, cwd=CHECKOUT, capture_output=True, check=True).stdout.split(b"\0")
    for name in sorted({name.decode() for name in names if name}):
        if (CHECKOUT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, folder / name)
    return folder


def ask(anvil: Path, iso: Path, environment: dict[str, str]) -> dict[str, bool]:
    """Boot a medium and ask it everything: what it answered with 0."""
    words = [word for command in ASKED.values() for word in ("--run", command)]
    booted = subprocess.run(
        [anvil, "boot", iso, "--json", *words], env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    told: dict[str, Any] = json.loads(booted.stdout)
    return {name: answer["status"] == 0 for name, answer in zip(ASKED, told["answers"], strict=True)}


def main() -> int:
    """Follow the document, ask the image, write what was found."""
    words = argparse.ArgumentParser()
    words.add_argument("--home", type=Path)
    words.add_argument("--keep", action="store_true")
    given = words.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="anvil-first-image-", dir=os.environ.get("TMPDIR")))
    try:
        result = measure(folder, given.home)
    finally:
        if given.keep:
            sys.stdout.write(f"kept: {folder}\n")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return 0 if result["ok"] else 1


def measure(folder: Path, home: Path | None) -> dict[str, Any]:
    """All of it, in a folder of its own."""
    listed = blocks(DOCUMENT.read_text(encoding="utf-8"))
    user = folder / "user"
    user.mkdir()
    checkout = fresh_checkout(folder / "checkout")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANVIL_HOME", "VIRTUAL"))}
    environment |= {"HOME": str(user), "ANVIL_HOME": str(home.absolute() if home else folder / "home")}
    load = os.getloadavg()[0]
    followed = follow(listed, checkout, environment, folder / "log")
    counted = timed(listed)
    whole = len(followed.seconds) == len(listed) and followed.exit_code == 0
    took = round(sum(followed.seconds[counted]), 1) if len(followed.seconds) >= counted.stop else None
    anvil, plain = checkout / ".venv" / "bin" / "anvil", checkout / "build_artifacts" / "anvilos-phase2.iso"
    image = ask(anvil, user / "my-os" / "build_artifacts" / "anvilos-phase2.iso", environment) if whole else {}
    control = ask(anvil, plain, environment) if whole else {}
    return {
        "processors": len(os.sched_getaffinity(0)),
        "load_before": round(load, 1),
        "iso_forged_before": home is not None,
        "bound_seconds": BOUND_SECONDS,
        "init_to_booted_seconds": took,
        "blocks": [
            {**asdict(block), "seconds": seconds} for block, seconds in zip(listed, followed.seconds, strict=False)
        ],
        "exit_code": followed.exit_code,
        "cards": followed.cards,
        "image_has": image,
        "plain_iso_has": control,
        "ok": whole
        and took is not None
        and took <= BOUND_SECONDS
        and all(image.values())
        and not any(control.values()),
    }


if __name__ == "__main__":
    sys.exit(main())
