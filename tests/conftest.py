"""What all tests share: base images, made once in the user's own home, and fresh homes that borrow them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from anvil.mainframe.images import ensure_image
from anvil.mainframe.services import Services
from anvil.mainframe.settings import Settings

if TYPE_CHECKING:
    from anvil.image.build import Image


def user_home() -> Path:
    """The home that keeps base images between runs of the tests."""
    named = os.environ.get("ANVIL_HOME")
    return Path(named) if named else Path.home() / ".local" / "share" / "anvil"


@pytest.fixture(scope="session", autouse=True)
def usual_signals() -> None:
    """Under nohup, or in the background of a script, these are ignored, and all that tests start would be born so."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def image_maker() -> Services:
    """Makes base images in the user's home; slow the first time, and then kept."""
    return Services(Settings(home=user_home(), output=user_home() / "unused"))


def _image(maker: Services, name: str) -> Image:
    return ensure_image(maker, name)


@pytest.fixture(scope="session")
def build_image(image_maker: Services) -> Image:
    """The image with the compilers."""
    return _image(image_maker, "build")


@pytest.fixture(scope="session")
def eval_image(image_maker: Services) -> Image:
    """The image in which recipes are evaluated."""
    return _image(image_maker, "eval")


@pytest.fixture(scope="session")
def machine_image(image_maker: Services) -> Image:
    """The image with QEMU and the tools of media."""
    return _image(image_maker, "machine")


@pytest.fixture
def home(tmp_path: Path, eval_image: Image, build_image: Image) -> Path:
    """An empty home that borrows the user's base images."""
    assert eval_image.rootfs.parents[1] == build_image.rootfs.parents[1]
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    (path / "images").symlink_to(build_image.rootfs.parents[1])
    return path


@dataclass(kw_only=True)
class Project:
    """A project of one's own, and Anvil's command line on it."""

    folder: Path
    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    def recipe(self, name: str, text: str) -> Path:
        """Write a recipe."""
        path = self.folder / "recipes" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    @property
    def output(self) -> Path:
        """Where artifacts land."""
        return self.folder / "build_artifacts"

    def command(self, *words: str) -> list[str]:
        """The command line as a list."""
        return [sys.executable, "-m", "anvil.cli.main", *words]

    def anvil(self, *words: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a command in the project's folder."""
        environment = {**os.environ, "ANVIL_HOME": str(self.home), **self.environment}
        return subprocess.run(
            self.command(*words), cwd=self.folder, env=environment, capture_output=True, text=True, timeout=timeout,
            check=False,
        )  # fmt: skip

    def start(self, recipe: str, *words: str, **more: Any) -> subprocess.Popen[str]:
        """Start a forge of a recipe; its output and errors are pipes unless ``more`` says otherwise."""
        command = self.command("forge", recipe, "--project", str(self.folder), *words)
        environment = {**os.environ, "ANVIL_HOME": str(self.home), **self.environment}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        return subprocess.Popen(command, cwd=self.folder, env=environment, text=True, **streams)

    def forge(self, recipe: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Forge a recipe of the project."""
        return self.anvil("forge", recipe, "--project", str(self.folder), *words)


@pytest.fixture
def project(tmp_path: Path, home: Path) -> Project:
    """An empty project with a home of its own."""
    folder = tmp_path / "project"
    (folder / "recipes").mkdir(parents=True)
    return Project(folder=folder, home=home)
