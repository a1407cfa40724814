"""Directories made to harm whoever collects them, each beside what a careless collector would do."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from anvil.errors import LimitExceeded, OutputForbidden
from anvil.vault import Layers, OutputLimits, Vault, discard
from anvil.vault.disk import hash_file
from anvil.vault.scan import scan, shown
from tests.vault.support import IS_ROOT, LIMITS, as_user, needs_root, write_tree

if TYPE_CHECKING:
    from pathlib import Path

    from anvil.model.layer import Digest
    from anvil.vault.scan import Kind

KINDS: tuple[Kind, ...] = ("tree", "changes")
both_kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


def refused(layers: Layers, out: Path, kind: Kind, name: str, limits: OutputLimits = LIMITS) -> str:
    """That a directory is refused because of one name, and that nothing of it was kept; the message."""
    with pytest.raises((OutputForbidden, LimitExceeded)) as caught:
        layers.collect(out, kind=kind, limits=limits)
    assert name in caught.value.where
    assert caught.value.hint
    assert caught.value.message.isprintable()
    assert not [path for path in layers.vault.blobs.rglob("*") if path.is_file()]
    return caught.value.message


@both_kinds
@pytest.mark.parametrize("target", ["/etc/passwd", "../../../etc/passwd", "..", "/", "loop", "secret"])
def test_links_are_kept_as_they_are_and_never_followed(layers: Layers, out: Path, kind: Kind, target: str) -> None:
    (out.parent / "secret").write_text("tripwire", encoding="utf-8")
    (out / "loop").symlink_to(target)
    left = layers.collect(out, kind=kind, limits=LIMITS)
    [entry] = left.manifest.entries
    assert (entry.type, entry.target) == ("link", target)
    assert left.bytes == 0
    assert layers.lookup([left.layer], "loop/passwd") is None
    with pytest.raises(OutputForbidden, match="link"):
        layers.export([left.layer], "loop", out.parent / "exported")
    with pytest.raises(OutputForbidden, match="link"):
        layers.present([left.layer], "loop")


@both_kinds
def test_a_folder_that_becomes_a_link_while_it_is_collected_is_not_entered(
    layers: Layers, out: Path, kind: Kind
) -> None:
    """A survivor swaps a folder for a link to a secret, again and again; whatever is kept, the secret is not."""
    secret = write_tree(out.parent / "secret", {"inner": "tripwire"})
    write_tree(out, {f"d{number}/inner": "harmless" for number in range(20)})
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for number in range(20):
                path = out / f"d{number}"
                os.rename(path, out.parent / "aside")
                path.symlink_to(secret)
                path.unlink()
                os.rename(out.parent / "aside", path)

    survivor = threading.Thread(target=swap)
    survivor.start()
    followed = 0
    try:
        for _ in range(60):
            try:
                left = layers.collect(out, kind=kind, limits=LIMITS)
            except Exception:  # noqa: BLE001 - refusing is right, and so is whatever else is not a success
                continue
            for entry in left.manifest.entries:
                if entry.type == "file":
                    assert layers.vault.read_bytes(entry.sha256) == b"harmless"
        # the negative control: walking by path does follow the link now and then
        for _ in range(20_000):
            for number in range(20):
                try:
                    with open(out / f"d{number}" / "inner", encoding="utf-8") as stream:
                        followed += stream.read() == "tripwire"
                except OSError:
                    continue
            if followed:
                break
    finally:
        stop.set()
        survivor.join()
    assert followed


@both_kinds
@pytest.mark.parametrize("what", ["fifo", "socket"])
def test_a_fifo_or_socket_is_refused_without_waiting_for_it(
    layers: Layers, out: Path, kind: Kind, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(out)
    if what == "fifo":
        os.mkfifo("trap")
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("trap")
    assert what.upper() in refused(layers, out, kind, "trap").upper()


@needs_root
@both_kinds
@pytest.mark.parametrize(
    ("mode", "major"), [(stat.S_IFCHR, 1), (stat.S_IFBLK, 7), (stat.S_IFBLK, 0)], ids=["char", "block", "block 0:0"]
)
def test_a_device_is_refused(layers: Layers, out: Path, kind: Kind, mode: int, major: int) -> None:
    os.mknod(out / "dev", mode | 0o666, os.makedev(major, 3 if major else 0))
    assert "device" in refused(layers, out, kind, "dev")


def test_a_whiteout_in_an_output_is_a_device(layers: Layers, out: Path) -> None:
    os.mknod(out / "white", stat.S_IFCHR, 0)
    assert "device" in refused(layers, out, "tree", "white")
    assert layers.collect(out, kind="changes", limits=LIMITS).manifest.entries == ()


@both_kinds
@pytest.mark.parametrize("bits", [0o4755, 0o2755, 0o6777, 0o1777])
def test_set_id_and_sticky_bits_are_stripped(layers: Layers, out: Path, kind: Kind, bits: int) -> None:
    (out / "tool").write_bytes(b"#!")
    (out / "folder").mkdir()
    for name in ("tool", "folder"):
        (out / name).chmod(bits)
    assert (out / "tool").stat().st_mode & 0o7000  # the control: the file system took them
    left = layers.collect(out, kind=kind, limits=LIMITS)
    assert {entry.mode for entry in left.manifest.entries} == {bits & 0o777}
    tree = layers.adopt(out, left)
    for name in ("tool", "folder"):
        assert (tree / name).stat().st_mode & 0o7777 == bits & 0o777


@both_kinds
def test_attributes_are_dropped(layers: Layers, out: Path, kind: Kind) -> None:
    (out / "tool").write_bytes(b"x")
    os.setxattr(out / "tool", "user.mark", b"x")
    if IS_ROOT:
        # cap_setuid+ep, version 2: linux/capability.h
        os.setxattr(out / "tool", "security.capability", bytes.fromhex("0100000280000000000000000000000000000000"))
    left = layers.collect(out, kind=kind, limits=LIMITS)
    tree = layers.adopt(out, left)
    assert not os.listxattr(tree / "tool")


@pytest.mark.parametrize("name", ["redirect", "metacopy", "whiteout", "opaque"])
def test_overlay_attributes_with_a_meaning_elsewhere_are_refused(layers: Layers, out: Path, name: str) -> None:
    (out / "d").mkdir()
    os.setxattr(out / "d", f"user.overlay.{name}", b"/etc" if name == "redirect" else b"x")
    assert name in refused(layers, out, "changes", "d")
    # in an output they mean nothing, and do not come along
    left = layers.collect(out, kind="tree", limits=LIMITS)
    assert not os.listxattr(layers.adopt(out, left) / "d")


@pytest.mark.parametrize("name", ["origin", "impure", "uuid", "nlink", "overlay.redirect", "overlay.overlay.opaque"])
def test_overlayfs_own_notes_are_dropped(layers: Layers, out: Path, name: str) -> None:
    (out / "d").mkdir()
    os.setxattr(out / "d", f"user.overlay.{name}", b"y")
    left = layers.collect(out, kind="changes", limits=LIMITS)
    assert not os.listxattr(layers.adopt(out, left) / "d")


@both_kinds
@pytest.mark.parametrize(
    "name", [b"new\nline", b"esc\x1b[31m", b"tab\t", b"\xff\xfe", b"c1\xc2\x9b", b"del\x7f", b"cut\xc3"]
)
def test_names_that_could_deceive_are_refused(layers: Layers, out: Path, kind: Kind, name: bytes) -> None:
    with open(os.fsencode(out) + b"/" + name, "wb"):
        pass
    refused(layers, out, kind, shown(os.fsdecode(name)))


def test_hostile_names_are_shown_harmlessly() -> None:
    assert shown("a\x1b[2Jb\n\udcff\u202e") == "a\\x1b[2Jb\\n\\xff\\u202e"
    assert len(shown("x" * 5000)) < 220


@both_kinds
def test_a_bad_link_target_is_refused(layers: Layers, out: Path, kind: Kind) -> None:
    os.symlink(b"\xff", os.fsencode(out) + b"/l")
    refused(layers, out, kind, "l")


@both_kinds
def test_255_byte_names_are_kept(layers: Layers, out: Path, kind: Kind) -> None:
    name = "é" * 127 + "x"
    write_tree(out, {f"{name}/{name}": "x"})
    left = layers.collect(out, kind=kind, limits=LIMITS)
    assert left.manifest.entries[1].path == f"{name}/{name}"
    assert layers.adopt(out, left).joinpath(name, name).read_text(encoding="utf-8") == "x"


@both_kinds
@pytest.mark.parametrize(("name", "count"), [("d", 300), ("d" * 250, 20), ("d" * 250, 400)])
def test_a_path_that_no_tool_could_open_is_refused_and_deleted(
    layers: Layers, out: Path, kind: Kind, name: str, count: int
) -> None:
    here = os.open(out, os.O_RDONLY)
    for _ in range(count):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    refused(layers, out, kind, "d")
    discard(out)
    assert not out.exists()


@both_kinds
def test_a_huge_sparse_file_is_refused_by_its_apparent_size(layers: Layers, out: Path, kind: Kind) -> None:
    with open(out / "huge", "wb") as stream:
        stream.truncate(1 << 40)
    assert (out / "huge").stat().st_blocks == 0  # the control: it takes no space, so only its size can tell
    assert "holes counted" in refused(layers, out, kind, "huge", OutputLimits(total_bytes=1 << 30))


@both_kinds
def test_sizes_are_summed_and_hard_links_counted_again(layers: Layers, out: Path, kind: Kind) -> None:
    (out / "a").write_bytes(bytes(600))
    os.link(out / "a", out / "b")
    refused(layers, out, kind, "b", OutputLimits(total_bytes=1000))
    left = layers.collect(out, kind=kind, limits=OutputLimits(total_bytes=1200))
    assert left.bytes == 1200
    tree = layers.tree(left.manifest_digest, left.times_digest)
    assert (tree / "a").stat().st_ino != (tree / "b").stat().st_ino


@both_kinds
def test_the_number_of_files_is_limited(layers: Layers, out: Path, kind: Kind) -> None:
    write_tree(out, {f"{number:03}": "" for number in range(11)})
    refused(layers, out, kind, "010", OutputLimits(total_bytes=1, entries=10))


def test_a_hard_link_into_the_store_becomes_a_file_of_its_own(vault: Vault, out: Path) -> None:
    layers = Layers(vault)
    blob = vault.path(vault.put_bytes(b"precious"))
    os.link(blob, out / "stolen")
    left = layers.collect(out, kind="tree", limits=LIMITS)
    tree = layers.tree(left.manifest_digest, left.times_digest)
    assert not os.path.samefile(tree / "stolen", blob)


def test_a_file_that_changes_while_it_is_read_is_refused(layers: Layers, out: Path) -> None:
    (out / "moving").write_bytes(bytes(100))

    class Writer:
        """A keeper during whose reading a survivor writes."""

        def put_descriptor(self, fd: int, size: int) -> Digest:
            digest = hash_file(fd, size)
            with open(out / "moving", "ab") as stream:
                stream.write(b"more")
            return digest  # type: ignore[return-value]

    with pytest.raises(OutputForbidden, match="changed while"):
        scan(out, kind="tree", limits=LIMITS, keep=Writer())
    assert layers.collect(out, kind="tree", limits=LIMITS).bytes == 104


@both_kinds
def test_a_user_collects_and_discards_what_its_mode_closes(open_path: Path, kind: Kind) -> None:
    def act() -> None:
        layers = Layers(Vault(open_path / "vault"))
        out = write_tree(open_path / "out", {"closed/deep/file": "x", "file": "secret", "write-only": "w"})
        modes = {"closed/deep": 0, "closed": 0o300, "file": 0, "write-only": 0o200}
        for name, mode in modes.items():
            (out / name).chmod(mode)
        with pytest.raises(PermissionError):
            (out / "file").read_bytes()  # the control
        left = layers.collect(out, kind=kind, limits=LIMITS)
        found = {entry.path: entry.mode for entry in left.manifest.entries}
        assert {name: found[name] for name in modes} == modes
        assert "closed/deep/file" in found
        assert (out / "file").stat().st_mode & 0o777 == 0
        assert (out / "closed").stat().st_mode & 0o777 == 0o300
        tree = layers.adopt(out, left)
        assert not out.exists()
        again = layers.collect(tree, kind=kind, limits=LIMITS)
        assert again.layer == left.layer
        discard(tree.parent)
        assert (
            layers.collect(layers.tree(left.manifest_digest, left.times_digest), kind=kind, limits=LIMITS).layer
            == left.layer
        )
        discard(open_path / "vault")
        assert not os.listdir(open_path)

    as_user(act)


def test_a_user_adopts_an_unclean_tree_with_closed_folders(open_path: Path) -> None:
    def act() -> None:
        layers = Layers(Vault(open_path / "vault"))
        out = write_tree(open_path / "out", {"closed/file": "x"})
        (out / "closed/file").chmod(0o4755)
        (out / "closed").chmod(0)
        left = layers.collect(out, kind="tree", limits=LIMITS)
        tree = layers.adopt(out, left)
        (tree / "closed").chmod(0o700)
        assert (tree / "closed/file").stat().st_mode & 0o7777 == 0o755

    as_user(act)


def test_negative_control_a_careless_copy_takes_the_trap(out: Path) -> None:
    """What these tests guard against does happen to shutil: it follows a link out of the tree."""
    secret = write_tree(out.parent / "secret", {"inner": "tripwire"})
    (out / "link").symlink_to(secret)
    shutil.copytree(out, out.parent / "copy")
    assert (out.parent / "copy/link/inner").read_text(encoding="utf-8") == "tripwire"
