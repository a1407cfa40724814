"""What must hold after a kill, and after the run that came next. Each check has a control that turns it red."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from anvil.cell import limits
from anvil.cortex.db_interface import CortexDB
from anvil.errors import AnvilError
from anvil.mainframe.services import Services
from anvil.mainframe.settings import Settings
from anvil.microjson.registry import MessageID
from anvil.model.card import Status
from anvil.vault.verify import verify
from tests.campaigns import kill_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.campaigns.kill_run import Claim

GRACE = 10.0
"""Seconds that the processes of a killed forge may take to be gone on a busy machine."""


def processes_left(grace: float) -> list[str]:
    """What still runs of forges that have ended."""
    end = time.monotonic() + grace
    while (left := kill_run.orphans()) and time.monotonic() < end:
        time.sleep(0.002)
    return [f"process left: {kill_run.describe(pid)}" for pid in left]


def mounts_left(folder: Path) -> list[str]:
    """Mounts on the host that name the campaign's folder, or are a stage."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file]
    return [f"mount left: {line}" for line in lines if str(folder) in line or " - tmpfs anvil " in line]


def loops_left(folder: Path) -> list[str]:
    """Loop devices on files of the campaign's folder."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = path.read_text()
        except OSError:
            continue
        if str(folder) in backing:
            found.append(f"loop device left: {path.parts[3]} {backing.strip()}")
    return found


def own_groups(folder: Path) -> None:
    """Give the control groups of this process's forges names of their own.

    Else other forges on the machine would take away what these leave, and nobody would see it.
    """
    prefix = f"anvil-cell-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}-"
    vars(limits)["_prefix"] = lambda: prefix


def dead_groups() -> set[str]:
    """Control groups of cells whose maker is gone: the next forge's to remove."""
    prefix = limits._prefix()
    parents = limits.survey().parents.values()
    return {
        os.path.join(parent, name)
        for parent in parents
        for name in os.listdir(parent)
        if name.startswith(prefix) and not limits._maker_lives(name)
    }


def groups_left(before: set[str]) -> list[str]:
    """Those of ``before`` that are still there."""
    return [f"control group left: {path}" for path in sorted(before) if os.path.isdir(path)]


def files_left(home: Path, output: Path, temporary: Path) -> list[str]:
    """Temporary files in the home, beside the artifacts and in TMPDIR."""
    left: list[Path] = []
    for place in ("cells", "vault/tmp", "workers", "downloads"):
        left += (home / place).iterdir()
    left += (home / "language").glob("tmp-*")
    left += (home / "vault" / "trees").glob("*damaged*")
    left += output.rglob(".*")
    left += temporary.iterdir()
    return [f"file left: {path}" for path in left]


def accounts_wrong(output: Path, released: int) -> list[str]:
    """Artifacts that are not what the JSON beside them says, or not as many as were told."""
    accounts = list(output.rglob("*.json"))
    wrong = [] if len(accounts) == released else [f"{len(accounts)} artifacts instead of {released}"]
    for account in accounts:
        said = json.loads(account.read_bytes())
        with account.with_suffix("").open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != said["sha256"]:
                wrong.append(f"{said['name']} is not what its sidecar says")
    return wrong


class Books:
    """The cortex and the vault of one home, looked at after each run that must end well; reads only what is new."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._after = 0
        self._kept: dict[str, tuple[int, str]] = {}
        self._punched: dict[str, int] = {}
        self._decks: dict[str, int] = {}
        self.ran = 0

    def problems(self, claims: Iterable[Claim], *, vault: bool) -> list[str]:
        """All that is wrong; claims: what the runs since the last look said that they run."""
        found: list[str] = []
        try:
            with CortexDB(self._home / "cortex.db") as db:
                db.verify_ledger()
                found += self._ran_again(db)
                found += [f"still open: {forge.id}" for forge in db.forges(1000) if not forge.ended]
                if db.counts()[Status.PROCESSING]:
                    found.append("a card is still claimed")
        except AnvilError as error:
            found.append(f"ledger: {error.message}")
        found += self._claimed_again(claims)
        if vault:
            found += self._vault()
        return found

    def _ran_again(self, db: CortexDB) -> Iterator[str]:
        """A key whose result is kept is stamped with that very result; any other stamp is of a second run."""
        for event in db.events(after=self._after):
            self._after = event.seq
            body = json.loads(event.body)
            key, card = body.get("key", ""), body.get("id", "")
            if "deck" in body:
                self._decks.setdefault(body["deck"], event.seq)
            if event.kind == MessageID.RESULT_KEPT:
                self.ran += 1
                if key in self._kept:
                    yield f"ran again: {card}, whose result was kept twice"
                self._kept[key] = (event.seq, body["ret"])
            elif event.kind == MessageID.RESULT_FORGOTTEN:
                yield f"ran again: the result of {card} was forgotten"
            elif event.kind == MessageID.CARD_PUNCHED:
                again = key in self._kept and body["op"] not in {"fetch", "image"}
                if again and body["ret"] != self._kept[key][1]:
                    yield f"ran again: {card} was stamped with another result"
                self._punched.setdefault(key, event.seq)

    def _claimed_again(self, claims: Iterable[Claim]) -> Iterator[str]:
        """No forge said that it runs a key which was punched before that forge began, or earlier in it."""
        for claim in claims:
            punched = self._punched.get(claim.key)
            if claim.punched_before or (punched and punched < self._decks.get(claim.deck, 0)):
                yield f"ran again: {claim.card} began although it was punched"

    def _vault(self) -> Iterator[str]:
        settings = Settings(home=self._home, output=self._home)
        try:
            with Services(settings) as services:
                layers = list(services.kept_layers())
                for finding in verify(services.vault, layers=layers):
                    yield f"vault: {finding.kind} {finding.subject}: {finding.message}"
                services.vault.settle()
        except AnvilError as error:
            yield f"vault: {error.message}"
