"""A deck with a card of every kind whose cards take milliseconds, and a home for it: what campaigns forge.

The recipe's source is a tarball of a lock of its own, its kernel a few bytes that QEMU starts like a Linux: they write
a boot sector on the disk, which the boot card then boots. Everything depends on a nonce: with another one every card
runs again.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import struct
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anvil.mainframe import services
from tests.machine.boot_sectors import HALT, POWER_OFF, sector

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROFILE = "small"
CARDS = {
    "sources/small": "fetch",
    "small/unpack-small": "unpack",
    "small/patch": "patch",
    "small/text": "write",
    "small/build": "run",
    "small/same": "check",
    "small/pack": "run",
    "small/artifact:bin/program": "release",
    "small/artifact:facts.tar": "release",
}
"""Every card and its operation."""
MACHINES = {"small/disk": "forge", "small/boot": "boot"}
"""Those of a deck with machines besides."""

_RECIPE = '''"""A card of every kind, number {nonce}."""
from anvil.recipe import MiB, Recipe, archive, elf_static

small = Recipe("small", licence="MIT")
tree = small.unpack(small.source("small"))
patched = small.patch("patch", tree, small.file("small.patch"))
text = small.write("text", patched, "nonce", "{nonce}\\n")
build = small.run(
    "build", text,
    """
    {slow}grep -qx changed first
    LC_ALL=C sed "s/@{{40}}/$(printf %-40s "$(cat nonce)")/" -E /in/program > /out/program
    chmod 755 /out/program
    printf '{{\\\\n  "nonce": "%s"\\\\n}}\\\\n' "$(cat nonce)" > /out/facts.json
    """,
    inputs={{"program": small.file("program")}},
)
build.check("same", "[ \\"$(cat nonce)\\" = {nonce} ]; grep -q nonce /in/out/facts.json")
pack = small.run(
    "pack", None, "cp /in/facts.json .; tar --mtime=@0 --owner=0 --group=0 -cf /out/facts.tar facts.json",
    inputs={{"facts.json": build.out / "facts.json"}}, keep="out",
)
small.artifact("bin/program", build.out / "program", kind=elf_static)
small.artifact("facts.tar", pack.out / "facts.tar", kind=archive)
'''
_MACHINES = """disk = small.forge(
    "disk", kernel=small.file("kernel"), initrd=small.file("initrd"), disks={{"disk.img": MiB}},
    append="{nonce}", done="ANVIL FORGE DONE", memory=64 * MiB, deterministic=True,
)
small.boot(
    "boot", medium=disk.out / "disk.img", firmware="bios", attach="disk", expect="ANVILOS READY {nonce}",
    memory=64 * MiB,
)
"""
_PATCH = b"--- a/first\n+++ b/first\n@@ -1 +1 @@\n-first\n+changed\n"


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One making of the deck.

    nonce: letters and digits, at most 40. machines: with the forge and boot cards. slow: seconds that the build sleeps
    besides.
    """

    nonce: str
    machines: bool = False
    slow: int = 0

    @property
    def cards(self) -> dict[str, str]:
        """Every card and its operation."""
        return CARDS | (MACHINES if self.machines else {})

    @property
    def artifacts(self) -> dict[str, bytes]:
        """What must be in the output folder, sidecars aside: a name, and bytes that the file holds."""
        return {"bin/program": f"{self.nonce:<40}".encode(), "facts.tar": f'"nonce": "{self.nonce}"'.encode()}


class SmallDeck:
    """A project with the recipe, the lock and the sources, all below ``folder``; ``write`` makes them for a turn."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        self.sources = folder / "sources"
        self.locks = folder / "locks"
        (self.project / "recipes").mkdir(parents=True, exist_ok=True)
        self.sources.mkdir(exist_ok=True)
        if not self.locks.is_dir():
            shutil.copytree(services.LOCKS, self.locks)
        recipes = self.project / "recipes"
        (recipes / "small.patch").write_bytes(_PATCH)
        (recipes / "program").write_bytes(program())
        (recipes / "initrd").write_bytes(b"not used")

    def write(self, turn: Turn) -> None:
        """Write the recipe, the guest and the source of a turn."""
        words = {"nonce": turn.nonce, "slow": f"sleep {turn.slow}; " if turn.slow else ""}
        text = _RECIPE + (_MACHINES if turn.machines else "")
        (self.project / "recipes" / "small.py").write_text(text.format(**words), encoding="utf-8")
        (self.project / "recipes" / "kernel").write_bytes(kernel(f"ANVILOS READY {turn.nonce}\r\n"))
        data = _tarball(turn.nonce)
        name = f"small-{turn.nonce}.tar"
        for old in self.sources.iterdir():
            old.unlink()
        (self.sources / name).write_bytes(data)
        file = {
            "archive": "debian", "name": name, "path": f"pool/{name}", "sha256": hashlib.sha256(data).hexdigest(),
            "size": len(data),
        }  # fmt: skip
        source = {"version": "1.0", "licence": "MIT", "files": [file], "facts": {}}
        lock = {
            "format": 1, "kind": "source-lock", "profile": PROFILE, "resolved": "2026-01-01",
            "sources": {"small": source},
        }  # fmt: skip
        (self.locks / f"{PROFILE}.json").write_text(json.dumps(lock), encoding="utf-8")

    def words(self, home: Path, output: Path, *, jobs: int = 2) -> list[str]:
        """The command line that forges it; the locks must be ``use_locks``'s in that process."""
        return [
            "forge", "small", "--profile", PROFILE, "--project", str(self.project), "--from", str(self.sources),
            "--home", str(home), "--output", str(output), "--jobs", str(jobs), "--json",
        ]  # fmt: skip

    def use_locks(self) -> None:
        """Let this process, and what it forks, take its locks from here."""
        vars(services)["LOCKS"] = self.locks


def empty_home(home: Path, images: Path) -> None:
    """A home with nothing in it that borrows base images."""
    home.mkdir(mode=0o700)
    (home / "images").symlink_to(images)


def wrong_artifacts(turn: Turn, output: Path) -> Iterator[str]:
    """What is not as it must be in the output folder."""
    for name, part in turn.artifacts.items():
        file = output / name
        data = file.read_bytes() if file.is_file() else b""
        account = file.with_name(f"{file.name}.json")
        if part not in data:
            yield f"{name} is not the one of {turn.nonce}"
        elif not account.is_file():
            yield f"{name} has no sidecar"
        elif json.loads(account.read_bytes())["sha256"] != hashlib.sha256(data).hexdigest():
            yield f"{name} is not what its sidecar says"


def program() -> bytes:
    """A static x86-64 ELF that ends with 0, and has room for a nonce."""
    code = b"\xb8\x3c\x00\x00\x00\x31\xff\x0f\x05" + b"@" * 40  # mov eax, 60 (exit); xor edi, edi; syscall
    base, headers = 0x400000, 64 + 56
    size = headers + len(code)
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return head + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000) + code


def kernel(words: str) -> bytes:
    """What QEMU takes for a Linux: in real mode it writes a boot sector, says that it is done and powers off.

    The header is that of the kernel's boot protocol 2.02 (Documentation/arch/x86/boot.rst); the entry point is byte
    0x200 with cs:ip = 0x1020:0.
    """
    start, said, payload = 0x270, 0x2E0, 0x400
    code = (
        b"\x8c\xc8\x8e\xd8\x8e\xc0\xfc\xfb"  # ds = es = cs; cld; sti
        b"\xbb" + struct.pack("<H", payload - 0x200) +  # bx = the sector
        b"\xb8\x01\x03\xb9\x01\x00\xba\x80\x00\xcd\x13"  # write one sector; cylinder 0, sector 1; disk 0x80
        b"\xbe" + struct.pack("<H", said - 0x200) +  # si = the words
        b"\xac\x84\xc0\x74\x11"  # lodsb; at the zero go on below
        b"\x88\xc4\xba\xfd\x03\xec\xa8\x20\x74\xfb"  # wait for bit 5 of port 0x3fd: the port can take a byte
        b"\x88\xe0\xb2\xf8\xee\xeb\xea" + POWER_OFF  # out 0x3f8; again
    )  # fmt: skip
    image = bytearray(5 * 512 + 512)
    image[0x1F1] = 4  # sectors of setup code, besides the first
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x200:0x202] = b"\xeb" + bytes([start - 0x202])
    image[0x202:0x206] = b"HdrS"
    image[0x206:0x208] = struct.pack("<H", 0x0202)
    image[0x211] = 1  # loaded high
    image[start : start + len(code)] = code
    text = b"ANVIL FORGE DONE\r\n\0"
    image[said : said + len(text)] = text
    image[payload : payload + 512] = sector(words, HALT)[:512]
    return bytes(image)


def _tarball(nonce: str) -> bytes:
    """A tarball with one top folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in (("first", "first\n"), ("second", f"{nonce}\n")):
            facts = tarfile.TarInfo(f"small/{name}")
            facts.size = len(text)
            tar.addfile(facts, io.BytesIO(text.encode()))
    return out.getvalue()
