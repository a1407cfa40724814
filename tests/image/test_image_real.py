"""The committed locks, made into real images in real cells."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from anvil.cell import run as cell
from anvil.cell.spec import HOST_UID, CellSpec, Limits
from anvil.errors import CardJam
from anvil.image.build import Bootstrap, Image, Maker, ensure_image
from anvil.image.cells import cell_solver
from anvil.image.resolve import Universe, resolve
from anvil.image.tidy import tree_digest
from anvil.image.wanted import Wanted
from anvil.mainframe import images
from anvil.model.layer import Digest
from tests.image.test_image_resolve import stanza

if TYPE_CHECKING:
    from pathlib import Path

    from anvil.mainframe.services import Services

pytestmark = pytest.mark.cell


@pytest.fixture(scope="session")
def lock_image(image_maker: Services) -> Image:
    """The image with apt."""
    return images.ensure_image(image_maker, "lock")


def said(image: Image, script: str, tmp_path: Path) -> str:
    """What a script says in a cell on the image; it must succeed."""
    spec = CellSpec(
        rootfs=image.rootfs, command=("/bin/bash", "-euo", "pipefail", "-c", script), out=tmp_path / "out"
    )  # fmt: skip
    outcome = cell.run(spec, tmp_path / "log")
    text = (tmp_path / "log").read_text()
    assert outcome.ok, text
    return text


def test_eval_runs_python(eval_image: Image, tmp_path: Path) -> None:
    modules = "ast, dataclasses, enum, hashlib, importlib, json, pathlib, re, textwrap, typing"
    assert said(eval_image, f"python3 -c 'import {modules}; print(hashlib.sha256().name)'", tmp_path) == "sha256\n"


def test_build_compiles(build_image: Image, tmp_path: Path) -> None:
    script = """
        cd /tmp
        printf '#include <stdio.h>\\nint main(void) { puts("hello"); }\\n' > hello.c
        cc -O2 -o glibc hello.c
        musl-gcc -static -o musl hello.c
        printf 'all:\\n\\t@./glibc; ./musl\\n' > Makefile
        make
        file musl | grep -o 'statically linked'
        make --version | head -1
        for tool in awk bc bison cpio flex m4 patch perl pkg-config python3 rsync xz yacc zstd; do
            command -v "$tool" > /dev/null
        done
    """
    lines = said(build_image, script, tmp_path).splitlines()
    assert lines[:3] == ["hello", "hello", "statically linked"]
    assert lines[3] >= "GNU Make 4.4"


def test_machine_has_its_tools(machine_image: Image, tmp_path: Path) -> None:
    script = """
        mkdir /tmp/media; cd /tmp/media
        qemu-system-x86_64 --version
        qemu-system-x86_64 -accel help
        grub-mkimage -O i386-pc -o core.img -p /boot/grub biosdisk iso9660
        grub-mkimage -O x86_64-efi -o boot.efi -p /boot/grub iso9660
        mkdir tree; echo x > tree/file
        mksquashfs tree root.sqfs -quiet -no-progress > /dev/null
        mkfs.fat -C efi.img 1440 > /dev/null; mcopy -i efi.img boot.efi ::/
        xorriso -as mkisofs -quiet -o out.iso tree 2> /dev/null
        test -s /usr/share/OVMF/OVMF_CODE_4M.fd -a -s /usr/share/seabios/bios-256k.bin
        test -s /usr/lib/grub/i386-pc/boot_hybrid.img
        ls
    """
    text = said(machine_image, script, tmp_path)
    assert "QEMU emulator version" in text
    assert "tcg" in text
    assert text.split()[-6:] == ["boot.efi", "core.img", "efi.img", "out.iso", "root.sqfs", "tree"]


def test_an_image_is_read_only_and_owned_by_another(eval_image: Image, tmp_path: Path) -> None:
    script = """
        for path in /etc/new /usr/bin/new /var/new /new; do
            if touch $path 2> /dev/null; then echo "$path can be made"; fi
        done
        find /etc /usr /var -xdev -perm /7000
        id -un
    """
    assert said(eval_image, script, tmp_path) == "anvil\n"


def test_the_same_lock_gives_the_same_bytes(lock_image: Image, image_maker: Services, tmp_path: Path) -> None:
    def bootstrap(asked: Bootstrap) -> int:
        spec = CellSpec(
            rootfs=asked.rootfs, command=("/bin/bash", "-c", asked.script), writable=True, limits=Limits()
        )  # fmt: skip
        return cell.run(spec, asked.log).exit_code or 0

    maker = Maker(
        debs=lambda file: image_maker.vault.path(Digest(file.sha256)),
        run_cell=bootstrap,
        cell_uid=HOST_UID if os.geteuid() == 0 else None,
    )
    lock = image_maker.image_locks["lock"][1]
    # a home keeps its images after their packages have been collected
    image_maker.fetch_into_vault([package.file for package in lock.packages], lambda _data: None, lambda: False)
    again = ensure_image(lock, tmp_path / "images", maker)
    assert again.rootfs != lock_image.rootfs
    assert again.tree == lock_image.tree == tree_digest(lock_image.rootfs)


@pytest.fixture
def universe(tmp_path: Path) -> Universe:
    main = [
        stanza("base", essential="yes"),
        stanza("tool", depends="lib (>= 2)", recommends="unwanted"),
        stanza("lib"),
        stanza("unwanted"),
        stanza("fighter", conflicts="base"),
    ]
    return Universe(tmp_path / "universe", [("debian", main), ("debian-security", [stanza("lib", "2")])])


def test_the_real_solver(lock_image: Image, universe: Universe, tmp_path: Path) -> None:
    solver = cell_solver(lock_image.rootfs, tmp_path / "log")
    lock = resolve(Wanted(name="x", packages={"tool": "to try"}), universe, solver=solver, today="2026-01-02")
    assert {(each.name, each.version, each.file.archive) for each in lock.packages} == {
        ("base", "1", "debian"),
        ("lib", "2", "debian-security"),
        ("tool", "1", "debian"),
    }
    order = [each.name for each in lock.packages]
    assert order.index("lib") < order.index("tool")


def test_packages_that_cannot_be_together(lock_image: Image, universe: Universe, tmp_path: Path) -> None:
    solver = cell_solver(lock_image.rootfs, tmp_path / "log")
    with pytest.raises(CardJam, match="no way") as caught:
        resolve(Wanted(name="x", packages={"fighter": "no"}), universe, solver=solver, today="2026-01-02")
    assert "fighter" in caught.value.detail
