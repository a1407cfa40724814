"""Artifacts appear whole or not at all, and are not written again when they are there."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from anvil.errors import DiskFull, EnvironmentLack
from anvil.release.publish import Artifact, publish

if TYPE_CHECKING:
    from pathlib import Path

ARTIFACT = Artifact(
    name="bin/it", sha256="a" * 64, size=5, kind="elf-static", executable=True, licence="MIT", redistribution="",
    recipe="it", cards=(), sources=(), images={}, members={}, verdicts=(),
)  # fmt: skip


def write(path: Path) -> None:
    path.write_bytes(b"bytes")


def fail(number: int) -> None:
    raise OSError(number, "said the test")


def test_file_and_sidecar_appear_with_mode_and_account(tmp_path: Path) -> None:
    assert publish(ARTIFACT, tmp_path, write)
    assert (tmp_path / "bin/it").read_bytes() == b"bytes"
    assert (tmp_path / "bin/it").stat().st_mode & 0o777 == 0o755
    assert json.loads((tmp_path / "bin/it.json").read_text())["sha256"] == "a" * 64
    assert sorted(path.name for path in (tmp_path / "bin").iterdir()) == ["it", "it.json"]


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    publish(ARTIFACT, tmp_path, write)
    assert not publish(ARTIFACT, tmp_path, lambda _path: fail(errno.EIO))


def test_a_touched_file_a_lost_sidecar_and_another_account_are_written_again(tmp_path: Path) -> None:
    publish(ARTIFACT, tmp_path, write)
    (tmp_path / "bin/it").write_bytes(b"other")
    assert publish(ARTIFACT, tmp_path, write)
    assert (tmp_path / "bin/it").read_bytes() == b"bytes"
    (tmp_path / "bin/it.json").unlink()
    assert publish(ARTIFACT, tmp_path, write)
    assert publish(replace(ARTIFACT, licence="ISC"), tmp_path, write)


@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EACCES, EnvironmentLack)]
)
def test_a_failing_disk_leaves_what_was_there(tmp_path: Path, number: int, error: type[Exception]) -> None:
    publish(ARTIFACT, tmp_path, write)

    def half(path: Path) -> None:
        path.write_bytes(b"by")
        fail(number)

    with pytest.raises(error):
        publish(replace(ARTIFACT, size=6), tmp_path, half)
    assert (tmp_path / "bin/it").read_bytes() == b"bytes"
    assert sorted(path.name for path in (tmp_path / "bin").iterdir()) == ["it", "it.json"]
