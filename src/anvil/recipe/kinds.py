"""The kinds of thing that may leave the forge. A recipe claims one; the output gate judges the bytes."""

from __future__ import annotations

from typing import NewType

Kind = NewType("Kind", str)

elf_static = Kind("elf-static")
"""An ELF program or relocatable without an interpreter and without needed libraries."""

kernel_image = Kind("kernel-image")
"""A Linux x86 boot image (bzImage)."""

bytecode = Kind("bytecode")
"""MicroPython bytecode (.mpy)."""

archive = Kind("archive")
"""A tar, cpio or squashfs archive, bare or compressed, whose members all pass."""

disk_image = Kind("disk-image")
"""A disk or file system image whose members all pass."""

iso_image = Kind("iso-image")
"""An ISO 9660 image whose members all pass."""

human_json = Kind("human-json")
"""JSON that a person can read."""

KINDS = frozenset({elf_static, kernel_image, bytecode, archive, disk_image, iso_image, human_json})
