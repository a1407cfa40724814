"""What is wrong inside a home, and mending it.

To mend is to take the damaged thing away, with the results that need it: whatever a forge needs again it makes again,
and fetches again. The ledger and the cards are the one thing that nothing can make again.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from anvil.errors import EnvironmentLack
from anvil.image.build import ROOT, STAMP
from anvil.image.tidy import tree_digest
from anvil.mainframe import leftovers, liveness
from anvil.mainframe.forge import recover
from anvil.microjson.codec import parse_canonical
from anvil.model.card import Status
from anvil.vault.digests import is_digest
from anvil.vault.discard import discard
from anvil.vault.disk import foreign
from anvil.vault.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from anvil.cortex.records import ForgeRun
    from anvil.mainframe.services import Services
    from anvil.vault.verify import Finding

_FORGES_LOOKED_AT = 1000


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One thing that is wrong; mend: takes it away."""

    message: str
    mend: Callable[[], object]


def folders(services: Services) -> str:
    """Try to write in each of the home's folders. Raises EnvironmentLack or DiskFull, naming the folder."""
    home = services.home
    places = (home.path, home.vault, *home.folders)
    for place in places:
        if place.exists():
            _try_to_write(place)
    return f"{len(places)} folders can be written"


def _try_to_write(place: Path) -> None:
    trial = place / f".trial-{secrets.token_hex(8)}"
    owner = place.stat().st_uid
    if owner != os.geteuid():
        raise EnvironmentLack(
            f"a folder of the home belongs to uid {owner}, you are {os.geteuid()}",
            where=str(place),
            hint=f"as root: chown -R {os.geteuid()} {place}",
        )
    try:
        fd = os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, bytes(4096))
            os.fsync(fd)
        finally:
            os.close(fd)
            os.unlink(trial)
    except PermissionError as problem:
        hint = f"chmod u+rwx {place}"
        raise EnvironmentLack(f"{problem.strerror} while trying to write", where=str(place), hint=hint) from problem
    except OSError as problem:
        raise foreign(problem, "trying to write", place) from problem


def left_behind(services: Services) -> Iterator[Damage]:
    """What dead processes left; every forge takes it away before it begins, too."""
    home, db = services.home, services.db
    things = len(leftovers.dead_cells(services)) + len(leftovers.arrived(services))
    things += len(leftovers.torn_copies(services))
    forges = sum(1 for forge in db.forges(_FORGES_LOOKED_AT) if was_killed(services, forge))
    claims = 0 if others(services) else db.counts()[Status.PROCESSING]
    if things + forges + claims:
        message = f"forges that were killed: {forges}, cards they had claimed: {claims}, folders and files: {things}"
        yield Damage(message=message, mend=partial(recover, services))
    for path in home.images.glob("tmp-*"):
        if _is_nobodys(path):
            yield Damage(message=f"a base image half made: {path}", mend=partial(_discard_image, services, path))


def was_killed(services: Services, forge: ForgeRun) -> bool:
    """Whether a forge has no verdict and never will have one."""
    machine = parse_canonical(forge.machine)
    if forge.ended or "standing" in machine:  # these are taken up by the standing mainframe when it starts again
        return False
    return liveness.is_dead(services.home.workers, machine.get("worker", "nobody"))


def missing(services: Services) -> Iterator[Damage]:
    """Results whose layers are not whole; bytes are not read (``verify_vault`` does)."""
    if keys := services.damaged_results():
        yield Damage(
            message=f"{len(keys)} results need what the vault has not, or not whole", mend=services.forget_damaged
        )


def images(services: Services) -> Iterator[Damage]:
    """Base images that are not as they were made: every file of each is read."""
    for folder in sorted(services.home.images.iterdir()):
        if is_digest(folder.name) and (problem := _image_problem(folder)):
            message = f"the base image {folder} {problem}"
            yield Damage(message=message, mend=partial(_discard_image, services, folder))


def _image_problem(folder: Path) -> str:
    try:
        stamp = json.loads((folder / STAMP).read_bytes())
        if stamp["digest"] != folder.name:
            return "has the stamp of another"
        return "" if tree_digest(folder / ROOT) == stamp["tree"] else "was changed since it was made"
    except (ValueError, KeyError, TypeError):
        return "has no valid stamp"
    except OSError as problem:
        return f"cannot be read: {problem.strerror}"


def verify_vault(
    services: Services,
    tell: Callable[[Finding], None],
    *,
    mend: bool,
    progress: Callable[[str], None] = lambda _text: None,
) -> tuple[int, int]:
    """Read every byte of the vault; how much is damaged, and how many results were forgotten to mend it.

    tell: gets each finding. progress: told in a few words what is being read; may raise to stop it. Raises
    EnvironmentLack, when all else is mended, if a damaged tree may be in use.
    """
    damaged, waiting = 0, 0
    for finding in verify(services.vault, layers=services.kept_layers(), tell=progress):
        damaged += 1
        tell(finding)
        if mend and finding.kind == "tree" and others(services):
            waiting += 1
        elif mend and finding.kind != "layer":
            discard(finding.path)
    forgotten = services.forget_damaged() if mend and damaged else 0
    if waiting:
        raise _in_use(f"{waiting} damaged trees")
    return damaged, forgotten


def others(services: Services) -> list[str]:
    """The tokens of the workers of this home that live, without this process's own."""
    return liveness.living(services.home.workers, but=services.worker.token)


def _discard_image(services: Services, folder: Path) -> None:
    if others(services):
        raise _in_use(f"the base image {folder.name}")
    with _maker(folder):
        discard(folder)


def _in_use(what: str) -> EnvironmentLack:
    return EnvironmentLack(
        f"{what} may be in use: a forge is running",
        hint="when it has ended: anvil doctor --mend",
    )


def _is_nobodys(path: Path) -> bool:
    """Whether nobody is making this image now."""
    try:
        with _maker(path):
            return path.exists()
    except BlockingIOError:
        return False


@contextmanager
def _maker(path: Path) -> Iterator[None]:
    """Be the one who may make an image (see ``anvil.image.build``). Raises BlockingIOError when somebody else is."""
    fd = os.open(
        path.with_name(path.name.removeprefix("tmp-") + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)
