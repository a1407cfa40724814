"""Making a base image: its packages by the fetcher, its set-up scripts in a bootstrap cell."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anvil.cell import probe
from anvil.cell import run as cell
from anvil.cell.spec import CellSpec, Limits
from anvil.errors import Interrupted
from anvil.image import build
from anvil.image.build import Bootstrap, Image, Maker, find_image
from anvil.model.layer import Digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from anvil.mainframe.services import Services
    from anvil.model.lock import ImageLock, PinnedFile

BOOTSTRAP_SECONDS = 600


def ensure_image(
    services: Services,
    name: str,
    report: Callable[[dict[str, Any]], None] = lambda _data: None,
    tick: Callable[[], bool] = lambda: False,
) -> Image:
    """The base image of that name, made when it is not there; see ``make_image``."""
    _, lock = services.image_locks[name]
    return find_image(lock, services.home.images) or make_image(services, lock, report, tick)


@functools.cache
def ability(services: Services) -> probe.Ability:
    """What the cells of this machine are like. Raises CellUnavailable with the mend when there can be none."""
    rootfs = ensure_image(services, "eval").rootfs
    settings = services.settings
    with tempfile.TemporaryDirectory(prefix=f"{services.worker.token}-", dir=services.home.cells) as folder:
        return probe.available(rootfs, Path(folder), host_uid=settings.cell_uid, bwrap=settings.bwrap)


def make_image(
    services: Services, lock: ImageLock, report: Callable[[dict[str, Any]], None], tick: Callable[[], bool]
) -> Image:
    """Fetch what lacks, unpack, run the set-up scripts, put in place. Raises Interrupted when ``tick`` says so."""
    services.fetch_into_vault([package.file for package in lock.packages], report, tick)

    def package(file: PinnedFile) -> Path:
        return services.vault.path(Digest(file.sha256))

    def bootstrap(asked: Bootstrap) -> int:
        spec = CellSpec(
            rootfs=asked.rootfs,
            command=("/bin/bash", "-c", asked.script),
            writable=True,
            limits=Limits(wall_seconds=BOOTSTRAP_SECONDS),
            host_uid=services.settings.cell_uid,
            bwrap=services.settings.bwrap,
        )
        outcome = cell.run(spec, asked.log, cancel=tick)
        if outcome.reason == "cancelled":
            raise Interrupted(f"making the image {lock.name} was stopped")
        return outcome.exit_code if outcome.exit_code is not None else 1

    def progress(stage: str, done: int, of: int) -> None:
        if tick():
            raise Interrupted(f"making the image {lock.name} was stopped")
        report({"note": f"{stage} {done} of {of}" if of else stage})

    uid = services.settings.cell_uid if os.geteuid() == 0 else None
    maker = Maker(debs=package, run_cell=bootstrap, cell_uid=uid, progress=progress)
    return build.ensure_image(lock, services.home.images, maker)
