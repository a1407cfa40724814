"""The vault before the cortex: no result is written into the database whose bytes are not durable in the vault.

Seen from below: a real forge is recorded, and whenever it writes the digest of a blob into the cortex, that blob must
already be one that no power cut can take.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.campaigns import disk_trace
from tests.campaigns.disk_model import Disk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.campaigns.disk_trace import Event
    from tests.conftest import Project

pytestmark = [
    pytest.mark.cell,
    pytest.mark.slow,
    pytest.mark.skipif(not disk_trace.available(), reason="strace is not here or may not trace"),
]

RECIPE = '''from anvil.recipe import Recipe, human_json
r = Recipe("facts", licence="MIT")
made = r.write("text", None, "text", "TEXT")
more = r.run("more", made, """
echo said; echo left > left
printf '{\\n  "a": 7\\n}\\n' > /out/facts.json
""")
more.check("same", "test -s /in/f", inputs={"f": more.out / "facts.json"})
r.artifact("facts.json", more.out / "facts.json", kind=human_json)
'''
# the architect names the texts of a recipe itself, before anything of it is made
_NAMED = {hashlib.sha256(b"TEXT").hexdigest()}
_DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


@pytest.fixture
def events(project: Project, tmp_path: Path) -> list[Event]:
    """What a forge does to the vault and the cortex."""
    project.recipe("facts", RECIPE)
    command = project.command("forge", "facts", "--project", str(project.folder), "--output", str(project.output))
    environment = {**os.environ, "ANVIL_HOME": str(project.home)}
    assert disk_trace.record(command, tmp_path / "trace", env=environment) == 0
    return list(disk_trace.read(tmp_path / "trace", [project.home / "vault", project.home / "cortex.db"]))


def too_early(home: Path, events: Sequence[Event], *, without: Sequence[str] = ()) -> tuple[int, set[str]]:
    """How many times a blob was named in the cortex, and which ones before they were durable."""
    blobs = home / "vault" / "blobs"
    ever = {
        event.to.removeprefix(f"{blobs}/").replace("/", "") for event in events if event.to.startswith(f"{blobs}/")
    }
    disk = Disk(home, without=without)
    named, early = 0, set()
    for event in events:
        if event.call == "write" and Path(event.path).name == "cortex.db-wal":
            for digest in {found.decode() for found in _DIGEST.findall(event.data)} & ever - _NAMED:
                named += 1
                if not disk.is_durable(str(blobs / digest[:2] / digest[2:])):
                    early.add(digest)
        try:
            disk.apply(event)
        except (KeyError, AssertionError):
            # what a cell makes is not seen from here, so what is moved and deleted of it is not known to the model
            assert str(blobs) not in event.path + event.to
    return named, early


def test_the_cortex_names_no_blob_that_is_not_durable(project: Project, events: list[Event]) -> None:
    named, early = too_early(project.home, events)
    assert named > 4
    assert not early
    for without in (["file", "syncfs"], ["folder", "syncfs"]):
        assert too_early(project.home, events, without=without)[1], f"the control without {without} saw nothing"
