"""The home of a second making: made, given what it may have, gone on with after a stop, taken away."""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

from anvil.errors import EnvironmentLack, IntegrityError, Interrupted
from anvil.image.build import find_image
from anvil.image.tidy import tree_digest
from anvil.mainframe.services import Services
from anvil.model.layer import Digest
from anvil.vault.discard import discard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from anvil.mainframe.graph import Graph
    from anvil.mainframe.settings import Settings
    from anvil.model.lock import ImageLock

_NAME = "the second making of "

_ENDED = "ended"
"""The file in a second home whose making was compared: it is of no more use."""


@contextmanager
def second_home(first: Path, recipe: str, *, images: bool) -> Iterator[Path]:
    """The folder of the second home below the first, held for one check alone; it need not be there yet.

    One that a stopped check has left is gone on with, if it is of the same kind. images: it has its own base images.
    """
    folder = _folder(first)
    folder.mkdir(mode=0o700, exist_ok=True)
    home = folder / f"{_NAME}{recipe}"
    fd = _lock(home)
    if fd is None:
        raise EnvironmentLack(
            f"another check of {recipe} is running", where=str(home), hint="wait for it, or use --home DIR"
        )
    try:
        if (home / _ENDED).exists() or (home / "images").is_symlink() is images:
            take_away(home)
        yield home
    finally:
        os.close(fd)


def left_homes(first: Path) -> Iterator[Path]:
    """The second homes below the first that no check holds now."""
    for home in sorted(_folder(first).glob(f"{_NAME}*")):
        if (fd := _lock(home)) is not None:
            os.close(fd)
            yield home


def collect(home: Path) -> None:
    """``take_away`` one of ``left_homes``, unless a check has begun in it meanwhile."""
    if (fd := _lock(home)) is None:
        return
    try:
        take_away(home)
    finally:
        os.close(fd)


def _folder(first: Path) -> Path:
    return first / "check"


def _lock(home: Path) -> int | None:
    """Hold a second home; None when somebody else does."""
    fd = os.open(home.with_name(f"{home.name.removeprefix(_NAME)}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def mark_ended(home: Path) -> None:
    """Say that what was made there was compared: the next check begins with an empty home."""
    (home / _ENDED).touch()


def take_away(home: Path) -> None:
    """Delete a second home, and what a check that was killed while it did so has left."""
    if home.exists():
        home.rename(home.with_name(f"dead-{secrets.token_hex(8)}"))
    for left in home.parent.glob("dead-*"):
        discard(left)


def prepare(ours: Services, graph: Graph, settings: Settings, *, images: bool, tick: Callable[[], bool]) -> None:
    """Give the second home what it may have: sources by their digests, and verified images or their packages.

    ours: the first home's. settings: the second making's. Raises IntegrityError for an image that was changed since it
    was made, Interrupted when ``tick`` says so.
    """
    settings.home.mkdir(mode=0o700, exist_ok=True)
    files = [
        Digest(file["sha256"]) for node in graph.nodes.values() if node.op == "fetch" for file in node.extra["files"]
    ]
    locks = used_images(ours, graph)
    if images:
        packages = [package.file for lock in locks for package in lock.packages]
        ours.fetch_into_vault(packages, lambda _data: None, tick)
        files += [Digest(file.sha256) for file in packages]
    else:
        for lock in locks:
            _verify(ours, lock)
            _pause(tick)
        if not (settings.home / "images").is_symlink():
            (settings.home / "images").symlink_to(ours.home.images)
    with Services(settings) as theirs:
        for digest in files:
            _pause(tick)
            if not theirs.vault.has(digest):
                theirs.vault.put_file(ours.vault.path(digest), expect=digest)


def used_images(services: Services, graph: Graph) -> list[ImageLock]:
    """The locks of the base images that a graph's cards name, and of the one in which recipes are evaluated."""
    used = {services.image_locks["eval"][0], *(node.image for node in graph.nodes.values() if node.image)}
    return [lock for digest, lock in services.image_locks.values() if digest in used]


def _verify(ours: Services, lock: ImageLock) -> None:
    image = find_image(lock, ours.home.images)
    if image is None or tree_digest(image.rootfs) != image.tree:
        raise IntegrityError(
            f"the base image {lock.name} is not what it was when it was made",
            where=str(image.rootfs if image else ours.home.images),
            hint="remove its folder; the next forge makes it again",
        )


def _pause(tick: Callable[[], bool]) -> None:
    if tick():
        raise stopped()


def stopped() -> Interrupted:
    """What a stopped check raises."""
    return Interrupted("stopped; both makings keep what they have done", hint="run the same command to go on")
