"""Artifacts appear whole or not at all, and are not written again when they are there."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from anvil.errors import DiskFull, EnvironmentLack, OutputForbidden
from anvil.model.layer import Entry
from anvil.release.publish import PUBLISHED_TIME, Artifact, publish
from anvil.vault import Vault, plant

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


@pytest.mark.parametrize("name", ["/etc/it", "../it", "bin/../../it", "bin/..", "bin//it", "./it", "", "a\0b"])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "out"
    with pytest.raises(OutputForbidden, match="no name"):
        publish(replace(ARTIFACT, name=name), folder, write)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["../elsewhere", "bin"])
def test_a_link_that_leads_out_is_not_followed(tmp_path: Path, target: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "bin").symlink_to(target)
    with pytest.raises(EnvironmentLack, match="link"):
        publish(ARTIFACT, folder, write)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_folder_itself_may_be_a_link_and_links_may_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "real/programs").mkdir(parents=True)
    (tmp_path / "real/bin").symlink_to("programs")
    (tmp_path / "out").symlink_to("real")
    assert publish(ARTIFACT, tmp_path / "out", write)
    assert (tmp_path / "real/programs/it").read_bytes() == b"bytes"


def test_a_kill_between_file_and_sidecar_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(ARTIFACT, tmp_path, write)
    other = replace(ARTIFACT, sha256="b" * 64)

    class KilledError(BaseException):
        pass

    def replaced(path: Path, target: Path) -> Path:
        os.replace(path, target)
        raise KilledError

    def write_other(path: Path) -> None:
        path.write_bytes(b"other")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replaced)
        with pytest.raises(KilledError):
            publish(other, tmp_path, write_other)
    assert (tmp_path / "bin/it").read_bytes() == b"other"
    assert not (tmp_path / "bin/it.json").exists()
    assert publish(ARTIFACT, tmp_path, write)
    assert (tmp_path / "bin/it").read_bytes() == b"bytes"


def test_what_is_no_file_or_has_another_mode_is_not_the_artifact(tmp_path: Path) -> None:
    publish(ARTIFACT, tmp_path, write)
    target = tmp_path / "bin/it"
    target.chmod(0o644)
    assert publish(ARTIFACT, tmp_path, write)
    assert target.stat().st_mode & 0o777 == 0o755
    target.rename(tmp_path / "away")
    target.symlink_to("../away")
    assert publish(ARTIFACT, tmp_path, write)
    assert not target.is_symlink()
    target.with_name("it.json").rename(tmp_path / "away")
    target.with_name("it.json").symlink_to("../away")
    assert publish(ARTIFACT, tmp_path, write)
    assert not target.with_name("it.json").is_symlink()
    assert int(target.lstat().st_mtime) == PUBLISHED_TIME


def test_what_a_killed_forge_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in (".it.0123abcd", ".it.json", ".it.0123abcde", ".its.0123abcd", "it.0123abcd"):
        (folder / name).write_bytes(b"")
    publish(ARTIFACT, tmp_path, write)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        {".it.json", ".it.0123abcde", ".its.0123abcd", "it.0123abcd", "it", "it.json"}
    )


@pytest.mark.parametrize("name", ["it", "n" * 240])
def test_what_the_vault_left_when_it_was_killed_is_swept(tmp_path: Path, name: str) -> None:
    vault = Vault(tmp_path / "vault")
    entry = Entry(path=name, type="file", mode=0o644, size=4, sha256=vault.put_bytes(b"data"))
    artifact = replace(ARTIFACT, name=name)
    folder = tmp_path / "out"
    pid = os.fork()
    if pid == 0:
        vars(os)["rename"] = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        publish(artifact, folder, lambda path: plant.export_file(vault, entry, path))
    os.waitpid(pid, 0)
    assert len(list(folder.iterdir())) == 1
    publish(artifact, folder, lambda path: plant.export_file(vault, entry, path))
    assert sorted(path.name for path in folder.iterdir()) == [name, f"{name}.json"]


def test_two_forges_take_turns(tmp_path: Path) -> None:
    begun = threading.Event()

    def told(path: Path) -> None:
        begun.set()
        write(path)

    thread = threading.Thread(target=publish, args=(ARTIFACT, tmp_path, told))
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        thread.start()
        assert not begun.wait(0.3)
    finally:
        os.close(fd)
    thread.join(10)
    assert begun.is_set()
    assert not publish(ARTIFACT, tmp_path, write)
