"""The pool image is the same bit for bit whoever makes it, and the shipped kernel takes it as its own.

A sample of the campaign (``make campaign-pool``, tests/campaigns/pool.py): its first makings, and one with counted
instructions.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from anvil.cell.spec import MiB
from anvil.machine.machine import Place, running
from anvil.machine.spec import MachineSpec
from anvil.mainframe.services import Services
from anvil.mainframe.settings import Settings
from tests.campaigns import pool
from tests.conftest import user_home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anvil.image.build import Image

pytestmark = [pytest.mark.iso, pytest.mark.timeout(3600)]

PATIENCE = 300.0


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifacts of a forge in the user's own home."""
    folder = tmp_path_factory.mktemp("output")
    environment = {**os.environ, "ANVIL_HOME": str(user_home())}
    words = [sys.executable, "-m", "anvil.cli.main", "forge", "iso", "--output", str(folder)]
    subprocess.run(words, cwd=folder, env=environment, check=True)
    return folder


@pytest.fixture(scope="module")
def card(output: Path) -> Iterator[pool.Card]:
    """The card that fills the pool, as the engine has run it."""
    assert output
    with Services(Settings(home=user_home(), output=output)) as services:
        yield pool.card(services)


VARIED = [
    pool.Conditions(memory=384, processor="qemu64", load=2, icount=False),
    pool.Conditions(memory=1536, processor="max,-rdrand,-rdseed", load=0, icount=False),
    pool.Conditions(memory=768, processor="max", load=0, icount=True),
]


@pytest.mark.parametrize("conditions", VARIED, ids=["small-and-busy", "large-without-chance", "counted"])
def test_memory_processor_load_and_clock_do_not_change_a_bit(
    card: pool.Card, tmp_path: Path, conditions: pool.Conditions
) -> None:
    made = pool.make(card, conditions, tmp_path, kernel=card.kernel, initrd=card.initrd)
    sys.stdout.write(f"{conditions} {made}\n")
    assert made["sha256"] == card.made


def test_the_shipped_kernel_gives_another_image_each_time(card: pool.Card, tmp_path: Path) -> None:
    plain = pool.Conditions(memory=512, processor="max", load=0, icount=False)
    made = {pool.make(card, plain, tmp_path, kernel=card.shipped, initrd=card.initrd)["sha256"] for _ in range(2)}
    assert len(made) == 2
    assert card.made not in made


def test_another_payload_gives_another_pool(card: pool.Card, tmp_path: Path) -> None:
    plain = pool.Conditions(memory=1024, processor="max", load=0, icount=False)
    more = pool.larger(card.initrd, tmp_path)
    made = [pool.make(card, plain, tmp_path, kernel=card.kernel, initrd=more)["sha256"] for _ in range(2)]
    assert made[0] == made[1] != card.made


def test_the_image_is_imported_and_scrubbed_by_the_shipped_kernel(
    output: Path, machine_image: Image, tmp_path: Path
) -> None:
    """With the shipped initramfs, stopped in its shell: read-only, then read-write with a scrub."""
    spec = MachineSpec(
        kernel=output / "bzImage",
        initrd=output / "initramfs.cpio.gz",
        append="console=ttyS0 anvil.emergency",
        medium=output / "rootfs.img",
        attach="disk",
        memory_bytes=512 * MiB,
        nic=False,
    )
    place = Place(image=machine_image.rootfs)
    with running(spec, place, transcript=tmp_path / "console", wall_seconds=PATIENCE) as guest:
        assert guest.wait_for("never said", timeout=PATIENCE).reason == "emergency"
        shell = guest.emergency()
        assert shell.run("losetup /dev/loop7 /dev/sda").status == 0
        found = "zpool import -d /dev/loop7 -o cachefile=none -N"
        assert shell.run(f"{found} -o readonly=on anvil_pool", timeout=60).status == 0
        assert shell.run("zpool status -x").output == "all pools are healthy"
        assert shell.run("zpool export anvil_pool", timeout=60).status == 0
        assert shell.run(f"{found} anvil_pool", timeout=60).status == 0
        assert shell.run("zpool scrub -w anvil_pool", timeout=120).status == 0
        status = shell.run("zpool status anvil_pool").output
        assert "scrub repaired 0B" in status
        assert "with 0 errors" in status
        assert "errors: No known data errors" in status
        guid = shell.run("zpool get -H -o value guid anvil_pool").output
        assert int(guid) > 0
        assert guest.power_off()
