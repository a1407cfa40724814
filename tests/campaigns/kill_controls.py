"""The campaign's negative controls: Anvil is weakened in one place, and the check that is there for it turns red."""

from __future__ import annotations

import os
import random
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import apsw

from anvil.cell import kernel, limits
from anvil.cortex.db_interface import CortexDB
from anvil.mainframe import forge, liveness
from anvil.mainframe.services import Services
from tests.campaigns import kill_run
from tests.campaigns.kill_plan import Kill
from tests.campaigns.small_deck import Turn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anvil.cortex.records import StoredResult
    from anvil.model.card import Card, Status
    from tests.campaigns.kill_lab import Lab

_ALL = Kill(target="all", moment="event", part=0, event="claimed", op="run", later=0.02)
_TRIES = 3
_MAIN = Kill(target="main", moment="event", part=0, event="claimed", op="run", later=0.3)


@dataclass(frozen=True, kw_only=True)
class Control:
    """One way to weaken Anvil.

    says: how the problem begins that must be found. weaken: called with the lab in each forge before it begins. slow:
    see Turn. possible: whether this machine lets it be done. clean: takes away what was left on purpose.
    """

    says: str
    weaken: Callable[[Lab], None]
    kills: tuple[Kill, ...] = (_ALL,)
    slow: int = 0
    possible: Callable[[], bool] = lambda: True
    clean: Callable[[Path], None] = field(default=lambda _folder: None)


def is_red(lab: Lab, control: Control) -> bool:
    """Carry out turns with the weakened Anvil, at most _TRIES; whether the check saw it."""
    lab.first = lambda: control.weaken(lab)
    lab.grace, lab.longest = 2.0, 12.0
    lab.fresh()
    try:
        for number in range(_TRIES):
            made = Turn(nonce=f"control{number}", slow=control.slow)
            done = lab.carry_out(made, list(control.kills), number, random.Random(number))
            if any(problem.startswith(control.says) for problem in done.problems):
                return True
        return False
    finally:
        lab.first = lambda: None
        control.clean(lab.folder)


def _no_death_with_parent(_lab: Lab) -> None:
    vars(kernel)["die_with_parent"] = lambda _signal: None


def _end_orphans(_folder: Path) -> None:
    for pid in kill_run.orphans():
        kill_run.end(pid)


def _mount(lab: Lab) -> None:
    place = lab.folder / "mounted"
    place.mkdir(exist_ok=True)
    kernel.mount("left", str(place), "tmpfs")


def _unmount(folder: Path) -> None:
    while subprocess.run(["umount", folder / "mounted"], check=False, capture_output=True).returncode == 0:
        pass


def _loop(lab: Lab) -> None:
    file = lab.folder / "looped"
    file.write_bytes(bytes(4096))
    subprocess.run(["losetup", "--find", file], check=True)


def _no_loop(folder: Path) -> None:
    for more in iter(lambda: _loop_of(folder), ""):
        subprocess.run(["losetup", "--detach", more], check=True)


def _loop_of(folder: Path) -> str:
    said = subprocess.run(["losetup", "--associated", folder / "looped"], check=True, capture_output=True, text=True)
    return said.stdout.partition(":")[0]


def _loops_possible() -> bool:
    return os.geteuid() == 0 and os.path.exists("/dev/loop0")


def _no_recovery(_lab: Lab) -> None:
    vars(forge)["recover"] = lambda _services: None


def _no_sweep(_lab: Lab) -> None:
    vars(limits)["sweep"] = list


def _sweep(_folder: Path) -> None:
    limits.sweep()


def _nothing_known(_lab: Lab) -> None:
    setattr(Services, Services.known.__name__, lambda _self, _node, _key: None)


def _change_ledger(lab: Lab) -> None:
    path = lab.home / "cortex.db"
    if not path.exists():
        return
    db = apsw.Connection(str(path))
    with db:
        ((seal,),) = db.execute("SELECT sql FROM sqlite_schema WHERE name = 'events_no_update'").fetchall()
        db.execute("DROP TRIGGER events_no_update")
        db.execute("UPDATE events SET at_us = at_us + 1 WHERE seq = 3")
        db.execute(str(seal))
    db.close()


def _flip_a_blob(lab: Lab) -> None:
    """Once the source was unpacked nothing reads it any more."""
    stamp = CortexDB.log_result

    def stamped(
        self: CortexDB, card: Card, *, stat: Status, ret: str, key: str = "", result: StoredResult | None = None
    ) -> Card:
        done = stamp(self, card, stat=stat, ret=ret, key=key, result=result)
        if card.op == "unpack":
            (source,) = lab.deck.sources.iterdir()
            for blob in (lab.home / "vault" / "blobs").rglob("*"):
                if blob.is_file() and blob.stat().st_size == source.stat().st_size:
                    blob.chmod(0o600)
                    with blob.open("r+b") as file:
                        file.write(b"\xff")
        return done

    setattr(CortexDB, stamp.__name__, stamped)


def _nobody_is_dead(_lab: Lab) -> None:
    vars(liveness)["is_dead"] = lambda _folder, _token: False


def _nothing_published(_lab: Lab) -> None:
    vars(forge)["publish"] = lambda _artifact, _folder, _write: False


CONTROLS = {
    "a child outlives its parent": Control(
        says="process left", weaken=_no_death_with_parent, kills=(_MAIN,), slow=6, clean=_end_orphans
    ),
    "a mount is left": Control(
        says="mount left", weaken=_mount, possible=lambda: os.geteuid() == 0, clean=_unmount
    ),
    "a loop device is left": Control(
        says="loop device left", weaken=_loop, possible=_loops_possible, clean=_no_loop
    ),
    "nobody takes up after the dead": Control(says="file left", weaken=_no_recovery),
    "control groups are not swept": Control(
        says="control group left", weaken=_no_sweep, slow=1, kills=(_MAIN,),
        possible=lambda: limits.survey().kind != "watchdog", clean=_sweep,
    ),
    "what was punched is not known": Control(says="ran again", weaken=_nothing_known),
    "the ledger is changed": Control(says="ledger:", weaken=_change_ledger),
    "a blob is changed": Control(says="vault: blob", weaken=_flip_a_blob),
    "the dead are taken for living": Control(says="the next run ended with None", weaken=_nobody_is_dead, slow=1),
    "nothing is published": Control(says="bin/program is not", weaken=_nothing_published),
}  # fmt: skip
