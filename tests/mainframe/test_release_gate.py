"""The gate sees every byte of an archive that any reader could see; each trick stands beside a twin that passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from anvil.mainframe.graph import build_graph
from anvil.mainframe.keys import card_key
from anvil.model.lock import ImageLock
from anvil.recipe import Recipe, elf_static
from anvil.release.gate import POLICY

if TYPE_CHECKING:
    from tests.conftest import Project

pytestmark = pytest.mark.cell

RECIPE = r'''
from anvil.recipe import Recipe, archive

r = Recipe("box", licence="MIT", image="machine")
common = r.run("common", None, r"""
cat > newc.py <<'END'
import struct

# the least that the gate takes for a program, and what must never come out
GOOD = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 64, 0, 0)
GOOD += struct.pack("<IIQQQQQQ", 1, 4, 0, 0, 0, 120, 120, 8)
EVIL = b"int main(void) { return 0; }\n"
open("good", "wb").write(GOOD)
open("evil", "wb").write(EVIL)

def entry(name, data=b"", mode=0o100644, ino=0, nlink=1, fill=b"\0"):
    name = name.encode() + b"\0"
    fields = (ino, mode, 0, 0, nlink, 0, len(data), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return head + fill * (-len(head) % 4) + data + fill * (-len(data) % 4)

END = entry("TRAILER!!!")

def box(*parts):
    open("box", "wb").write(b"".join(parts))
END
python3 newc.py
mkdir bin
cp good bin/good
ln -s good bin/link
ln -s ../bin/good bin/far
ln -s /proc/mounts mtab
pack() { cpio --create --format=newc --reproducible --quiet; }
find bin mtab | sort | pack > good.cpio
echo evil | pack > evil.cpio
tar -cf good.tar bin mtab
tar -cf evil.tar evil
""")
'''

CPIO = 'python3 -c "from newc import *; box({})"'

GOOD = [
    "cp good.cpio box",
    CPIO.format("entry('bin', mode=0o40755), entry('bin/good', GOOD), END, bytes(512)"),
    # find's own names, as an initramfs has them; hard links
    "(cd bin && find . -print0 | sort -z | cpio --null -o -H newc --quiet) | gzip -9n > box",
    "ln bin/good bin/twin && find bin | cpio -o -H newc --quiet > box",
    # streams that every reader puts together
    "{ head -c 300 good.cpio | gzip; tail -c +301 good.cpio | gzip; } > box",
    "{ head -c 9 good | xz; tail -c +10 good | xz; } > box",
    "zstd -q -c good > box",
    "{ head -c 9 good | zstd -q; tail -c +10 good | zstd -q; } > box",
    "cp good.tar box",
    # as the census of a pool: no blocking, on a disk that is larger
    "tar --blocking-factor=1 -cf box -C bin . && truncate --size=2M box",
    "long=$(printf 'n%.0s' {1..200}) && mkdir $long && cp good $long/$long && tar -cf box $long",
    "ln bin/good bin/twin && tar -cf box bin",
]
EVIL = {
    "cpio-behind-cpio": "cat good.cpio evil.cpio > box",
    "cpio-behind-cpio-in-two-streams": "{ gzip -c good.cpio; gzip -c evil.cpio; } > box",
    "gzip-behind-cpio": "{ cat good.cpio; gzip -c evil.cpio; } > box",
    "cpio-trailer-with-data": CPIO.format("entry('good', GOOD), entry('TRAILER!!!', EVIL)"),
    "cpio-name-twice": CPIO.format("entry('x', GOOD), entry('x', EVIL), END"),
    "cpio-name-twice-otherwise-written": CPIO.format("entry('x', GOOD), entry('./x', EVIL), END"),
    "cpio-name-twice-by-a-detour": CPIO.format("entry('x', GOOD), entry('y/../x', EVIL), END"),
    "cpio-name-twice-from-the-root": CPIO.format("entry('x', GOOD), entry('/x', EVIL), END"),
    "cpio-hard-link-with-other-data": CPIO.format(
        "entry('x', GOOD, ino=7, nlink=2), entry('y', EVIL, ino=7, nlink=2), END"
    ),
    "cpio-through-a-link": CPIO.format("entry('d', b'/tmp', 0o120777), entry('d/x', EVIL), END"),
    "cpio-twice-through-a-link": CPIO.format(
        "entry('s', mode=0o40755), entry('d', b's', 0o120777), entry('s/x', GOOD), entry('d/x', EVIL), END"
    ),
    "cpio-name-that-leads-out": CPIO.format("entry('../../tmp/x', EVIL), END"),
    "cpio-folder-with-data": CPIO.format("entry('x', EVIL, 0o40755), END"),
    "cpio-device": CPIO.format("entry('null', mode=0o20666), END"),
    "cpio-something-in-the-padding": CPIO.format("entry('good', GOOD + b'x', fill=b'x'), END"),
    "cpio-other-format-behind": CPIO.format("entry('x', GOOD), entry('y', EVIL).replace(b'070701', b'070702'), END"),
    "cpio-without-end": CPIO.format("entry('good', GOOD)"),
    "cpio-cut-short": "head -c 200 good.cpio > box",
    "tar-name-twice": "tar -cf box evil && tar -rf box --transform=s/good/evil/ good",
    "tar-name-twice-otherwise-written": "tar -cf box ./evil && tar -rf box --transform=s/good/evil/ good",
    "tar-name-twice-from-the-root":
        "tar -P -cf box --transform=s,^,/, evil && tar -rf box --transform=s/good/evil/ good",
    "tar-twice-through-a-link":
        "mkdir s && ln -s s d && cp evil s/x && tar -cf box s d && tar -rf box --transform=s,good,d/x, good",
    "tar-through-a-link": "ln -s /tmp d && tar -cf box d && tar -rf box --transform=s,evil,d/x, evil",
    "tar-name-that-leads-out": "tar -P -cf box --transform=s,evil,../../tmp/x, evil",
    "tar-behind-tar": "cat good.tar evil.tar > box",
    "tar-behind-a-lone-block-of-zeros":
        "tar --blocking-factor=1 -cf box good && truncate --size=-512 box && cat evil.tar >> box",
    "tar-something-in-the-last-byte": "cp good.tar box && truncate --size=2M box && printf x >> box",
    "tar-without-end": "tar --blocking-factor=1 -cf box good && truncate --size=-1024 box",
    "tar-device": "tar -cf box -C /dev null",
    "gzip-something-behind": "{ gzip -c good; cat evil; } > box",
    "xz-something-behind": "{ xz -c good; cat evil; } > box",
    "zstd-frame-that-is-skipped": "{ zstd -q -c good; printf 'P*M\\x18\\x04\\0\\0\\0evil'; } > box",
    "zstd-something-behind": "{ zstd -q -c good; cat evil; } > box",
}  # fmt: skip


def recipe(scripts: dict[str, str]) -> str:
    """A recipe that makes every script's archive and offers it to the gate."""
    text = RECIPE
    for name, script in scripts.items():
        text += f'made = r.run("make-{name}", common, r"""\n{script}\n""")\n'
        text += f'r.artifact("{name}", made / "box", kind=archive)\n'
    return text


def test_honest_archives_pass(project: Project, machine_image: object) -> None:
    assert machine_image
    project.recipe("box", recipe({f"good-{number}": script for number, script in enumerate(GOOD)}))
    done = project.forge("box")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(project.output.glob("good-*.json"))) == len(GOOD)


@pytest.mark.parametrize("name", EVIL)
def test_what_a_reader_could_pass_over_is_refused(project: Project, machine_image: object, name: str) -> None:
    assert machine_image
    project.recipe("box", recipe({name: EVIL[name]}))
    done = project.forge("box")
    assert done.returncode == 1, done.stdout + done.stderr
    said = done.stdout.partition(f"\nJAM  box/artifact:{name}: ")[2]
    assert "cannot be opened" in said or "neither a binary" in said, done.stdout
    assert not project.output.exists()


def key(policy: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """The key of a small recipe's release under a policy."""
    monkeypatch.setattr("anvil.mainframe.graph.POLICY", policy)
    small = Recipe("small", licence="MIT")
    small.artifact("it", small.run("make", None, "cc").out / "it", kind=elf_static)
    lock = ImageLock(name="build", resolved="2026-01-01", architecture="amd64", packages=())
    graph = build_graph("small", {"small": small.deck()}, sources={}, images={"build": ("b" * 64, lock)}, files={})
    return card_key(graph.nodes["small/artifact:it"], base=(), inputs={"file": "d"})


def test_another_policy_judges_everything_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert key(POLICY, monkeypatch) == key(POLICY, monkeypatch)
    assert key(POLICY + 1, monkeypatch) != key(POLICY, monkeypatch)
