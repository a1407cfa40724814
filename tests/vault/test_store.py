"""Blobs: what goes in comes out, whole or not at all, and a wrong bit is seen."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import resource
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from anvil.errors import DiskFull, EnvironmentLack, HashMismatch, IntegrityError
from anvil.model.layer import Digest
from anvil.vault import Vault, attic, batch, verify, workspace
from anvil.vault.disk import CHUNK
from tests.vault.support import IS_ROOT, in_namespace, python_script

if TYPE_CHECKING:
    from pathlib import Path


def sha256(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


def blobs(vault: Vault) -> list[Path]:
    return sorted(path for path in vault.blobs.rglob("*") if path.is_file())


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
def test_bytes_come_back(vault: Vault, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    digest = vault.put_bytes(data)
    assert digest == sha256(data)
    assert vault.has(digest)
    assert vault.size(digest) == size
    assert vault.read_bytes(digest) == data
    path = tmp_path / "file"
    path.write_bytes(data)
    assert vault.put_file(path) == digest
    assert vault.put_file(io.BytesIO(data)) == digest
    with path.open("rb") as stream:
        assert vault.put_file(stream) == digest
    fd = os.open(path, os.O_RDONLY)
    try:
        os.lseek(fd, size // 2, os.SEEK_SET)
        assert vault.put_file(fd) == digest
    finally:
        os.close(fd)
    assert len(blobs(vault)) == 1


def test_a_pipe_and_the_rest_of_a_stream_can_be_kept(vault: Vault, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"through a pipe")
    os.close(writer)
    assert vault.read_bytes(vault.put_file(reader)) == b"through a pipe"
    os.close(reader)
    path = tmp_path / "file"
    path.write_bytes(b"head and rest")
    with path.open("rb") as stream:
        stream.read(5)
        assert vault.read_bytes(vault.put_file(stream)) == b"and rest"


def test_a_blob_is_private_and_read_only(vault: Vault) -> None:
    path = vault.path(vault.put_bytes(b"x"))
    assert path.stat().st_mode & 0o777 == 0o444
    assert vault.root.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("size", [10, 2 * CHUNK])
def test_a_file_that_is_not_the_pinned_one_is_refused_and_not_kept(vault: Vault, size: int) -> None:
    data = bytes(size)
    with pytest.raises(HashMismatch, match="pinned"):
        vault.put_file(io.BytesIO(data), expect=sha256(b"other"))
    assert not blobs(vault)
    assert not os.listdir(vault.tmp)
    assert vault.put_file(io.BytesIO(data), expect=sha256(data)) == sha256(data)


def test_a_sparse_file_stays_sparse(vault: Vault, tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as stream:
        stream.truncate(300 * CHUNK)
        stream.seek(7 * CHUNK + 13)
        stream.write(b"island")
    if path.stat().st_blocks * 512 > CHUNK:
        pytest.skip("this file system has no holes")
    digest = vault.put_file(path)
    with path.open("rb") as stream:
        assert digest == hashlib.file_digest(stream, "sha256").hexdigest()
    assert vault.path(digest).stat().st_blocks * 512 <= CHUNK
    assert vault.check(digest) == 300 * CHUNK


def test_a_flipped_bit_is_seen_and_the_mend_named(vault: Vault) -> None:
    digest = vault.put_bytes(b"all is well")
    path = vault.path(digest)
    path.chmod(0o600)
    path.write_bytes(b"all is vell")
    with pytest.raises(IntegrityError, match=digest) as caught:
        vault.read_bytes(digest)
    assert "anvil vault verify --mend" in caught.value.hint
    assert vault.read_bytes(digest, verify=False) == b"all is vell"
    with pytest.raises(IntegrityError):
        vault.check(digest)


def test_a_blob_that_was_cut_short_is_mended_by_the_next_put(vault: Vault) -> None:
    digest = vault.put_bytes(b"all is well")
    vault.path(digest).chmod(0o600)
    os.truncate(vault.path(digest), 3)
    Vault(vault.root).put_bytes(b"all is well")
    assert vault.read_bytes(digest) == b"all is well"


def test_a_missing_blob_is_told(vault: Vault) -> None:
    digest = sha256(b"never put")
    assert not vault.has(digest)
    for ask in (vault.size, vault.open, vault.read_bytes, vault.check):
        with pytest.raises(IntegrityError, match="missing"):
            ask(digest)


@pytest.mark.parametrize("text", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 63 + "/", "a" * 64 + "\n"])
def test_only_a_digest_becomes_a_path(vault: Vault, text: str) -> None:
    with pytest.raises(IntegrityError, match="not a sha256"):
        vault.path(Digest(text))


def test_a_newer_format_is_refused(vault: Vault) -> None:
    (vault.root / "format").write_text("2\n", encoding="ascii")
    with pytest.raises(EnvironmentLack, match="format '2'") as caught:
        Vault(vault.root)
    assert "--home" in caught.value.hint


def test_nothing_of_a_batch_is_seen_before_its_end_and_nothing_of_one_that_fails(vault: Vault) -> None:
    with vault.batch() as batch:
        digest = batch.put_bytes(b"one")
        assert batch.put_bytes(b"one") == digest
        assert not vault.has(digest)
    assert vault.has(digest)
    with contextlib.suppress(KeyError), vault.batch() as batch:
        lost = batch.put_bytes(b"two")
        raise KeyError
    assert not vault.has(lost)
    assert not os.listdir(vault.tmp)


def test_a_batch_of_many(vault: Vault) -> None:
    started = time.process_time()
    with vault.batch() as batch:
        digests = [batch.put_bytes(b"%d" % number) for number in range(800)]
    assert time.process_time() - started < 5
    assert len(blobs(vault)) == 800
    assert vault.read_bytes(digests[77]) == b"77"
    with vault.batch() as batch:
        assert batch.put_bytes(b"77") == digests[77]


def test_two_vaults_on_one_root_write_the_same_blobs(vault: Vault) -> None:
    other = Vault(vault.root)
    with vault.batch() as one, other.batch() as two:
        for number in range(50):
            assert one.put_bytes(b"%d" % number) == two.put_bytes(b"%d" % number)
    assert len(blobs(vault)) == 50
    assert not list(verify(vault))


def keep_for_ever(root: Path) -> None:
    vault, number = Vault(root), 0
    while True:
        with vault.batch() as batch:
            for number in range(number, number + 200):  # noqa: B020 - it goes on counting
                batch.put_bytes(b"%d" % number)


@pytest.mark.parametrize("wait", [0.0, 0.02, 0.08, 0.2])
def test_kill_9_during_a_batch_leaves_a_clean_vault(vault: Vault, wait: float) -> None:
    child = os.fork()
    if child == 0:
        try:
            keep_for_ever(vault.root)
        finally:
            os._exit(1)
    time.sleep(wait)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    again = Vault(vault.root)
    again.settle()
    assert not os.listdir(again.tmp)
    assert not list(verify(again))


def test_what_a_living_writer_has_not_finished_is_left_alone(vault: Vault) -> None:
    with vault.batch() as batch:
        batch.put_bytes(b"unfinished")
        Vault(vault.root)
        assert len(os.listdir(vault.tmp)) == 1
    assert vault.has(sha256(b"unfinished"))


def test_a_stray_file_and_a_dead_writers_folder_are_swept(vault: Vault) -> None:
    (vault.tmp / "dead").mkdir()
    (vault.tmp / "dead" / "1").write_bytes(b"half")
    (vault.tmp / "stray").write_bytes(b"")
    Vault(vault.root).settle()
    assert not os.listdir(vault.tmp)


@pytest.mark.skipif(not IS_ROOT, reason="a small tmpfs is mounted by root")
def test_a_full_disk_is_told_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    script = python_script("""
        from anvil.errors import DiskFull
        from anvil.vault import Vault, attic, batch, verify, workspace
        vault = Vault(Path(sys.argv[1]))
        kept = vault.put_bytes(b"before")
        for data in (bytes(7 << 20), os.urandom(7 << 20)):
            try:
                vault.put_bytes(data)
            except DiskFull as problem:
                assert problem.exit_code == 3 and "free some space" in problem.hint
            else:
                raise SystemExit("it fitted")
        try:
            with vault.batch() as batch:
                for number in range(100_000):
                    batch.put_bytes(b"%d" % number)
        except DiskFull:
            pass
        else:
            raise SystemExit("the inodes sufficed")
        assert not os.listdir(vault.tmp)
        assert vault.read_bytes(kept) == b"before"
        assert not list(verify(vault))
        vault.put_bytes(b"after")
    """)
    in_namespace(f'mount -t tmpfs -o size=4m,nr_inodes=2000 tmpfs "$1"; {script} "$1/vault"', tmp_path / "small")


def test_errors_of_the_disk_are_translated(vault: Vault) -> None:
    assert issubclass(DiskFull, EnvironmentLack)
    (vault.root / "tmp").rmdir()
    with pytest.raises(EnvironmentLack, match="writing into the vault"):
        vault.put_bytes(b"x")


def test_a_blob_that_was_taken_and_written_anew_is_made_durable_again(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[list[str]] = []
    monkeypatch.setattr(batch, "_sync_each", lambda names, _folder: synced.append(list(names)))
    digest = vault.put_bytes(b"again")
    synced.clear()
    vault.put_bytes(b"again")
    assert not any(synced)  # this process has seen it made durable
    vault.path(digest).unlink()
    Vault(vault.root).put_bytes(b"again")  # another process, which may not have come to the sync
    synced.clear()
    vault.put_bytes(b"again")
    assert [digest[:2]] in synced


def test_a_workspace_that_cannot_be_deleted_now_is_left_to_the_next(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> None:
        raise OSError(errno.EIO, "no", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(workspace, "discard", broken)
        digest = vault.put_bytes(b"kept all the same")
    assert vault.read_bytes(digest) == b"kept all the same"
    assert list(vault.tmp.iterdir())
    again = Vault(vault.root)
    assert again.settle(10)
    assert not list(vault.tmp.iterdir())


def test_throwing_away_needs_no_room(vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_parent: Path) -> None:
        raise DiskFull("no room for a folder")

    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "y").write_bytes(b"y")
    monkeypatch.setattr(attic, "make_workspace", full)
    vault.throw_away(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_without_threads_everything_is_done_all_the_same(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    monkeypatch.setattr(batch, "little_is_dirty", lambda: False)
    with vault.batch() as taking:
        digests = [taking.put_bytes(bytes([number])) for number in range(5)]
    assert all(vault.has(digest) for digest in digests)
    (tmp_path / "x").mkdir()
    vault.throw_away(tmp_path / "x")
    assert not (tmp_path / "x").exists()
    assert not list(vault.tmp.iterdir())


def test_a_machine_without_descriptors_says_nothing_about_a_blob(vault: Vault) -> None:
    digest = vault.put_bytes(b"whole")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))  # no descriptor above those in use
    try:
        with pytest.raises(EnvironmentLack) as caught:
            vault.read_bytes(digest)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "ulimit" in caught.value.hint
    assert vault.read_bytes(digest) == b"whole"
