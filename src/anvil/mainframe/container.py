"""Anvil inside its own base image: the image is made, a command is run in it, the home is the host's.

Law 2: the container has no database of its own, the home is bound in from the host. Law 3: it has no source code but
Anvil's package, which is bound in read-only, recipes included; nothing is copied. Everything of the host is seen at
its own path, so that what a daemon in here writes into the cortex is true outside as well.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anvil
from anvil.cell.container import SCRATCH, Bound, ContainerSpec
from anvil.errors import EnvironmentLack
from anvil.image import wheel
from anvil.image.build import find_image
from anvil.mainframe.images import ensure_image
from anvil.model.layer import Digest
from anvil.vault.discard import discard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anvil.image.build import Image
    from anvil.image.wheel import Wheel
    from anvil.mainframe.services import Services

IMAGE = "container"
NAME = "anvil-container"

CODE = "/opt/anvil/code"
"""Where Anvil's package is bound, inside."""

WHEELS = "/opt/anvil/wheels"
PYTHON = "/usr/bin/python3"

_FROM_HOST = ("/etc/resolv.conf", "/etc/hosts", "/etc/apt")
"""How the host finds others, and its mirrors: the fetcher asks these."""

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "PYTHONPATH": f"{CODE}:{WHEELS}",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONSAFEPATH": "1",
}


@dataclass(frozen=True, kw_only=True)
class Built:
    """The container's image, and the folder of its wheels."""

    image: Image
    wheels: Path


def build(
    services: Services,
    report: Callable[[dict[str, Any]], None] = lambda _data: None,
    tick: Callable[[], bool] = lambda: False,
) -> Built:
    """The container's image, made when it is not there.

    Raises what making an image does, and for a wheel that lacks EnvironmentLack with the command that brings it.
    """
    locked = wheel.read_lock()
    found = built(services)
    if found is None:
        paths = [_bring(services, each) for each in locked]
        image = ensure_image(services, IMAGE, report, tick)
        found = Built(image=image, wheels=_unpacked(services, locked, paths))
    return found


def built(services: Services) -> Built | None:
    """The container's image, if it has been made."""
    image = find_image(services.image_locks[IMAGE][1], services.home.images)
    wheels = _folder(services) / wheel.digest(wheel.read_lock())
    return Built(image=image, wheels=wheels) if image and wheels.is_dir() else None


def required(services: Services) -> Built:
    """As ``built``; raises EnvironmentLack when it has not been made."""
    found = built(services)
    if found is None:
        raise EnvironmentLack("the container's image has not been made", hint="anvil container build")
    return found


def environment() -> dict[str, str]:
    """What is fixed of the environment inside."""
    return dict(_ENVIRONMENT)


def words(command: Sequence[str]) -> list[str]:
    """What runs an Anvil command inside."""
    return [PYTHON, "-m", "anvil.cli.main", *command]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to run. shared: folders of the host that it sees and may write. env: more than the fixed environment."""

    command: Sequence[str]
    shared: Sequence[Path] = ()
    cwd: Path = Path("/")
    env: Mapping[str, str]
    fds: Sequence[int] = (0, 1, 2)
    terminal: bool = False


def specification(services: Services, made: Built, wanted: Wanted) -> ContainerSpec:
    """The container of a command, on this home."""
    home = services.home.path
    folder = home / "mainframe" / "root"
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(exist_ok=True)
    bound = [
        *(Bound(source=Path(path)) for path in _FROM_HOST if os.path.exists(path)),
        Bound(source=Path(anvil.__file__).parent, to=f"{CODE}/anvil"),
        Bound(source=made.wheels, to=WHEELS),
        *(Bound(source=path, writable=True) for path in sorted({*wanted.shared, *_own(wanted.cwd)})),
        Bound(source=home, writable=True),
    ]
    if (images := services.home.images).is_symlink():  # a home may share another one's images
        bound.append(Bound(source=images.resolve(), writable=True))
    return ContainerSpec(
        rootfs=made.image.rootfs,
        command=wanted.command,
        bound=bound,
        env={**_ENVIRONMENT, "HOME": "/run", **wanted.env, "ANVIL_HOME": str(home)},
        folder=folder,
        cwd=str(wanted.cwd),
        fds=wanted.fds,
        terminal=wanted.terminal,
    )


def _own(cwd: Path) -> tuple[Path, ...]:
    return () if str(cwd) in {"/", *SCRATCH} else (cwd,)


def _folder(services: Services) -> Path:
    return services.home.path / "wheels"


def _bring(services: Services, wanted: Wheel) -> Path:
    """A pinned wheel: from the vault, or from --from DIR."""
    digest = Digest(wanted.sha256)
    if not services.vault.claim(digest):
        folder = services.settings.from_dir
        if folder is None or not (folder / wanted.name).is_file():
            name, version, python, *_ = wanted.name.split("-")
            raise EnvironmentLack(
                f"the wheel {wanted.name} is not here: {wanted.why}",
                where=str(folder or wheel.LOCK),
                hint=f"pip download {name}=={version} --no-deps --only-binary=:all: "
                f"--python-version {python[2]}.{python[3:]} -d wheels, then: anvil container build --from wheels",
            )
        services.vault.put_file(wheel.verified(wanted, folder / wanted.name), expect=digest)
    return services.vault.path(digest)


def _unpacked(services: Services, locked: Sequence[Wheel], paths: Sequence[Path]) -> Path:
    to = _folder(services) / wheel.digest(locked)
    if not to.is_dir():
        to.parent.mkdir(exist_ok=True)
        aside = to.with_name(f"tmp-{services.worker.token}")
        aside.mkdir()
        try:
            for path in paths:
                wheel.unpack(path, aside)
            shutil.copymode(to.parent, aside)
            if not to.is_dir():
                aside.rename(to)
        finally:
            if aside.is_dir():
                discard(aside)
    return to
