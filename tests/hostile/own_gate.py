"""Attacks of our own on the output gate: what an image or archive holds beside its files, and what only looks right.

Each has the same control: the recipe is forged again with the gate as it would be if it trusted the ordinary tools and
the magic at the beginning of a file; there it passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.errors import OutputForbidden
from anvil.mainframe.ops import release
from anvil.release import gate
from anvil.release.judge import Judgement, judge
from tests.hostile.attack import Attack, Seen, Wire, jammed
from tests.hostile.controls import without

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO

    from tests.hostile.ground import Ground

_TOOLS = {
    "gzip": "gzip -dcq /in/file > members/content",
    "bzip2": 'python3 -c \'import bz2; r = bz2.BZ2Decompressor(); open("members/content", "wb").write('
    'r.decompress(open("/in/file", "rb").read()))\'',
    "tar": "tar --extract --no-same-owner --directory=members --file=/in/file",
    "squashfs": "unsquashfs -quiet -no-progress -no-xattrs -force -dest members /in/file",
    "iso9660": "xorriso -report_about FAILURE -osirrox on:auto_chmod_on -indev /in/file -extract / members/files",
    "fat": "mcopy -s -n -i /in/file ::/ members",
}
_MAGIC = (
    (0, b"\x7fELF", "elf-static"),
    (0x202, b"HdrS", "kernel-image"),
    (0, b"MZ", "boot-loader"),
    (0, b"M\x06", "bytecode"),
)


def trusting_gate() -> None:
    """Ordinary tools open, and the first bytes of a file say what it is."""

    def by_its_beginning(file: BinaryIO, size: int, **words: Any) -> Judgement:
        try:
            return judge(file, size, **words)
        except OutputForbidden:
            file.seek(0)
            head = file.read(4096)
            for at, mark, kind in _MAGIC:
                if head[at : at + len(mark)] == mark:
                    return Judgement(kind=kind)
            if b"cdrom read fails" in head and b"no boot info" in head:
                return Judgement(kind="boot-loader")
            raise

    vars(gate)["judge"] = by_its_beginning
    release.OPEN = {**release.OPEN, **_TOOLS}


# What every script may use: a program of 120 bytes, and what must never come out.
GROUND = r"""
cat >ground.py <<'END'
import struct
GOOD = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 64, 0, 0)
GOOD += struct.pack("<IIQQQQQQ", 1, 4, 0, 0, 0, 120, 120, 8)
EVIL = b"#!/bin/sh\necho a script that nobody has seen\n"
open("good", "wb").write(GOOD)
open("evil", "wb").write(EVIL)

def put(name, at, data=EVIL):
    with open(name, "r+b") as file:
        file.seek(at)
        file.write(data)

def hole(name, size, start=0):
    "Where so many zeros lie in a row."
    data = open(name, "rb").read()
    at = data.index(bytes(size), start)
    return at + -at % 512
END
python3 ground.py
mkdir tree; cp good tree/
py() { python3 -c "from ground import *
$1"; }
"""


def offered(script: str, kind: str) -> str:
    """The recipe whose card leaves /out/it and offers it to the gate."""
    text = GROUND + script + "\necho TRIED"
    return (
        f"from anvil.recipe import Recipe, {kind}\n"
        'r = Recipe("@NAME@", licence="MIT", image="machine")\n'
        f't = r.run("try", None, {text!r}, wall=60)\n'
        f'r.artifact("it", t.out / "it", kind={kind})\n'
    )


def unopened() -> None:
    """The gate opens nothing."""
    release._members = lambda *_: iter(())


def attack(
    name: str, script: str, reason: str, *, kind: str = "archive", lax: Callable[[], None] = trusting_gate
) -> Attack:
    """One thing that the gate must refuse, saying why."""
    return Attack(name=f"gate-{name}", recipe=offered(script, kind), verdict=jammed(reason), control=without(lax))


TAR = """
py 'import tarfile, io
tar = tarfile.open("/out/it", "w", format=tarfile.{form})
info = tarfile.TarInfo("good"); info.size = len(GOOD); {more}
tar.addfile(info, io.BytesIO(GOOD)); tar.close()'
"""
FAT = "mformat -C -i /out/it -T 2880 -h 2 -s 18 :: && mcopy -i /out/it good ::/GOOD\n"
ISO = "xorriso -as mkisofs -quiet -r -o /out/it tree\n"
SQUASH = "mksquashfs tree /out/it -noappend -quiet -no-progress -all-root {}\n"

CONTAINERS = (
    attack("gzip-comment", 'py "import gzip; z = gzip.compress(GOOD); '
           'open(\'/out/it\', \'wb\').write(z[:3] + bytes([16]) + z[4:10] + EVIL + bytes(1) + z[10:])"', "a comment"),
    attack("gzip-extra-field", 'py "import gzip; z = gzip.compress(GOOD); '
           "open('/out/it', 'wb').write(z[:3] + bytes([4]) + z[4:10] + struct.pack('<H', 45) + EVIL + z[10:])\"",
           "an extra field"),
    attack("bzip2-something-behind", 'py "import bz2; open(\'/out/it\', \'wb\').write(bz2.compress(GOOD) + EVIL)"',
           "cannot be opened"),
    attack("tar-comment", TAR.format(form="PAX_FORMAT", more='info.pax_headers = {"comment": EVIL.decode()}'),
           "a record that no reader needs"),
    attack("tar-padding", TAR.format(form="USTAR_FORMAT", more="pass") + 'py "put(\'/out/it\', 512 + len(GOOD))"',
           "between two members"),
    attack("tar-owner-that-speaks", TAR.format(form="USTAR_FORMAT", more='info.uname = "echo a script that nobody"'),
           "an owner has a strange name"),
    attack("tar-sparse-giant", "cp good hole; truncate -s 8M hole; tar --sparse -cf /out/it hole",
           "behind a name's end|behind the header"),
    attack("tar-record-about-nothing",
           TAR.format(form="USTAR_FORMAT", more="pass")
           + 'py "d = bytearray(open(\'/out/it\', \'rb\').read()); h = bytearray(d[:512]); h[156:157] = b\'K\'; '
           "h[0:100] = b'././@LongLink'.ljust(100, bytes(1)); h[124:136] = b'%011o ' % len(EVIL + bytes(1)); "
           "h[148:156] = b' ' * 8; h[148:156] = b'%06o' % sum(h) + bytes(1) + b' '; "
           "open('/out/it', 'wb').write(d[:1024] + h + (EVIL + bytes(1)).ljust(512, bytes(1)) + bytes(1024))\"",
           "ends where a member should begin"),
    attack("squashfs-something-behind", SQUASH.format("") + "cat evil >>/out/it", "behind its end"),
    attack("squashfs-attributes", SQUASH.format("-p 'good x user.note=a-script-that-nobody-has-seen'"),
           "extended attributes"),
    attack("fat-free-cluster", FAT + 'py "put(\'/out/it\', 700 * 1024)"', "free clusters", kind="disk_image"),
    attack("fat-behind-a-files-end",
           FAT + 'py "put(\'/out/it\', open(\'/out/it\', \'rb\').read().index(GOOD) + 300)"', "behind the end of",
           kind="disk_image"),
    attack("fat-deleted-file", FAT + "mcopy -i /out/it evil ::/EVIL && mdel -i /out/it ::/EVIL", "a deleted name",
           kind="disk_image"),
    attack("fat-boot-code", FAT + 'py "put(\'/out/it\', 200)"', "boot code is not", kind="disk_image"),
    attack("fat-tables-that-differ",
           FAT + 'py "put(\'/out/it\', 512 + 9 * 512 + 600, b\'evil\')"', "tables differ", kind="disk_image"),
    attack("iso-other-tree",
           "mkdir more; cp good evil more/\n"
           "xorriso -as mkisofs -quiet -r -J -hide evil -o /out/it more", "second tree", kind="iso_image"),
    attack("iso-between-files", ISO + 'py "put(\'/out/it\', hole(\'/out/it\', 8192, 40960))"', "belongs to nothing",
           kind="iso_image"),
    attack("iso-behind-a-files-end",
           ISO + 'py "put(\'/out/it\', open(\'/out/it\', \'rb\').read().index(GOOD) + 300)"', "belongs to nothing",
           kind="iso_image"),
    attack("iso-first-sectors", ISO + 'py "put(\'/out/it\', 4096)"', "belongs to nothing", kind="iso_image"),
    attack("iso-boot-sector", ISO + 'py "put(\'/out/it\', 0, EVIL.ljust(440) + bytes(70) + bytes([0x55, 0xaa]))"',
           "it:boot/mbr is neither a binary", kind="iso_image"),
    attack("iso-older-session",
           "cp evil tree/; xorriso -as mkisofs -quiet -r -o /out/it tree\n"
           "xorriso -report_about FAILURE -dev /out/it -rm evil -- -commit", "belongs to nothing|second tree",
           kind="iso_image"),
    attack("iso-attributes",
           "xorriso -report_about FAILURE -outdev /out/it -xattr any -map tree / "
           "-setfattr user.note a-script-that-nobody-has-seen /good -- -commit", "fields that are not known",
           kind="iso_image"),
    attack("iso-partition-of-text",
           "head -c 100K /dev/zero >part; py \"put('part', 0)\"\n"
           "xorriso -as mkisofs -quiet -r -append_partition 2 0x83 part -o /out/it tree",
           "it:boot/(mbr|partition-2) is neither", kind="iso_image"),
    attack("iso-description", ISO + 'py "put(\'/out/it\', 16 * 2048 + 900)"', "volume's description",
           kind="iso_image"),
    attack("archive-in-archive-in-image",
           "mkdir a b; cp good evil a; tar -cf b/a.tar -C a good evil\n"
           "(cd b && echo a.tar | cpio -o -H newc --quiet) >c\n"
           "mkdir d e; gzip -n <c >d/c.gz; mksquashfs d e/d.squashfs -noappend -quiet -no-progress\n"
           "xorriso -as mkisofs -quiet -r -o /out/it e", r"d.squashfs:c.gz:content:a.tar:evil is neither",
           kind="iso_image", lax=unopened),
)  # fmt: skip

LEAVES = (
    attack("program-with-a-script-behind", "cat good evil >/out/it", "behind its last part", kind="elf_static"),
    attack("script-that-begins-like-a-kernel",
           'py "d = bytearray(EVIL.ljust(4096, b\'#\')); d[0x1fe:0x206] = bytes([85, 170, 235, 106]) + b\'HdrS\'; '
           "open('/out/it', 'wb').write(d)\"", "begins like a kernel", kind="kernel_image"),
    attack("script-that-is-a-program-for-efi",
           'py "d = bytearray(b\'MZqFpD=1 # the shell goes on\\n\' + EVIL + b\'exit\\n\'); d = d.ljust(512, b\'#\'); '
           "struct.pack_into('<I', d, 0x3c, 128); d[128:132] = b'PE' + bytes(2); "
           "struct.pack_into('<H', d, 128 + 0x5c, 10); open('e', 'wb').write(d)\"; tar -cf /out/it e",
           "something else as well"),
    attack("script-with-the-words-of-a-boot-loader",
           "(echo '# no boot info, cdrom read fails'; cat evil) >e; tar -cf /out/it e", "neither a binary"),
    attack("script-that-begins-like-bytecode", "(printf 'M\\6\\0\\37'; cat evil) >/out/it", "is damaged|behind",
           kind="bytecode"),
)  # fmt: skip


def with_few(name: str, value: int) -> Any:
    """An attempt under a lowered limit of the gate's; its control forges with the usual one."""

    def lower() -> None:
        vars(gate)[name] = value

    def attempt(ground: Ground, attack: Attack, wire: Wire) -> Seen:
        return ground.forge(attack, wire, weaken=(lower,))

    return attempt


MANY = "mkdir m; for n in 1 2 3 4 5 6; do gzip -n$n <good >m/$n; done; tar -cf /out/it m"
DEEP = "cp good x; for n in $(seq 10); do gzip -n <x >y; mv y x; done; cp x /out/it"

LIMITS = (
    Attack(
        name="gate-archives-without-number",
        recipe=offered(MANY, "archive"),
        verdict=jammed("more than 3 archives"), attempt=with_few("CONTAINER_LIMIT", 3), control=without(),
    ),
    Attack(
        name="gate-more-bytes-than-a-disk", recipe=offered("tar -cf /out/it good tree", "archive"),
        verdict=jammed("more than 200 bytes together"), attempt=with_few("BYTES_LIMIT", 200), control=without(),
    ),
    Attack(
        name="gate-archives-without-end", recipe=offered(DEEP, "archive"), verdict=jammed("deep"),
        control=without(lambda: vars(gate).update(DEPTH_LIMIT=100)),
    ),
)  # fmt: skip

ATTACKS = (*CONTAINERS, *LEAVES, *LIMITS)
