"""Fixtures of the cell's tests; the laboratory itself is cell_lab.py."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from anvil.cell.spec import Bind
from tests.cell.cell_lab import ORDINARY, Lab, Without

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anvil.image.build import Image


@pytest.fixture(scope="session")
def rootfs(request: pytest.FixtureRequest) -> Path:
    """A base image with gcc, make 4.4 and python3. THE one place that says where it comes from."""
    if named := os.environ.get("ANVIL_TEST_ROOTFS"):
        return Path(named)
    image: Image = request.getfixturevalue("build_image")
    return image.rootfs


@pytest.fixture(scope="session")
def probe(rootfs: Path) -> Iterator[Path]:
    """``probe.c``, compiled in a cell."""
    lab = Lab(rootfs, os.geteuid())
    source = Path(__file__).with_name("probe.c")
    copy = lab.folder() / "probe.c"
    shutil.copyfile(source, copy)
    result = lab.cell(
        "gcc -Wall -Wextra -Werror -O1 -static -o /out/probe /in/probe.c",
        inputs=(Bind(name="probe.c", source=copy),),
    )
    assert result.outcome.ok, result.text
    yield result.out / "probe"
    lab.close()


@pytest.fixture(params=["root", "user"])
def lab(request: pytest.FixtureRequest, rootfs: Path, probe: Path) -> Iterator[Lab]:
    """A lab of each kind of user that this process can be."""
    if os.geteuid() != 0 and request.param == "root":
        pytest.skip("this process is not root")
    uid = 0 if request.param == "root" else (ORDINARY if os.geteuid() == 0 else os.geteuid())
    made = Lab(rootfs, uid, probe)
    yield made
    made.close()


@pytest.fixture
def root_lab(rootfs: Path, probe: Path) -> Iterator[Lab]:
    """A lab of root's, for what only root's cells have."""
    if os.geteuid() != 0:
        pytest.skip("this process is not root")
    made = Lab(rootfs, 0, probe)
    yield made
    made.close()


@pytest.fixture
def without() -> type[Without]:
    return Without
