"""``make campaign-pool``: make the pool image again and again under changing conditions, and compare every bit.

What is made is the card ``rootfs/pool`` of the home that ANVIL_HOME names (``anvil forge rootfs`` first), outside the
engine: the same kernel, initrd and kernel line, in a machine that differs each time in memory, processor model, the
host's load and how QEMU counts time. Two payloads are made: the root as it is, and one with 60 MB more in it. The
negative control is the same with the kernel that is shipped, whose images must differ.

Every making is a line of bench/results/pool.json; what is there already is not made again (delete the file to begin
anew). Ends with 1 when two images of one payload differ, or when all those of the control are equal.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anvil.cell.spec import MiB
from anvil.machine import machine
from anvil.machine.kvm import newc
from anvil.machine.machine import Place
from anvil.machine.spec import Disk, MachineSpec
from anvil.mainframe.architect_daemon import Architect
from anvil.mainframe.graph import StepRef
from anvil.mainframe.plan import Fate
from anvil.mainframe.services import Services
from anvil.mainframe.settings import Settings
from anvil.mainframe.vmwork import kernel_line
from anvil.release.newc import extract
from tests.conftest import user_home

if TYPE_CHECKING:
    from collections.abc import Iterator

RESULT = Path(__file__).parents[2] / "bench" / "results" / "pool.json"
SEED = 20260101
MAKINGS = 40
"""Of the root as it is; a quarter as many of the larger payload, and of the control."""

LARGER = 60 * MiB
MEMORY = (384, 448, 512, 640, 768, 1024, 1536, 2048)
PROCESSORS = ("max", "max,-rdrand,-rdseed", "qemu64", "Nehalem", "Haswell-noTSX", "EPYC")


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What differs from one making to the next.

    memory: MiB of the guest. load: busy processes on the host meanwhile. icount: QEMU's clock counts instructions.
    """

    memory: int
    processor: str
    load: int
    icount: bool


@dataclass(frozen=True, kw_only=True)
class Varied(MachineSpec):
    """The machine of the card, changed as the conditions say."""

    processor: str = "max"
    icount: bool = False

    def argv(self) -> tuple[str, ...]:
        """QEMU and its words."""
        words = list(super().argv())
        words[words.index("-cpu") + 1] = self.processor
        more = ("-icount", "shift=0,sleep=off", "-rtc", "clock=vm") if self.icount else ()
        return (*words, *more)


@dataclass(frozen=True, kw_only=True)
class Card:
    """The card ``rootfs/pool``: what it is made of, and what it left when the engine ran it ("" if it has not)."""

    kernel: Path
    shipped: Path
    initrd: Path
    append: str
    disk: Disk
    wall: int
    image: Path
    made: str


def card(services: Services) -> Card:
    """The card of a home in which the root has been forged."""
    architect = Architect(services)
    graph = architect.draw("rootfs")
    plan = architect.plan(graph)
    for name in ("kernel/build", "rootfs/forge-initrd", "rootfs/pool"):
        if plan[name].fate is not Fate.KEPT:
            sys.exit(f"{services.home.path} lacks {name}: anvil forge rootfs")

    def path(node: str, tree: str, name: str) -> Path:
        result = plan[node].result
        assert result is not None
        stack = result.stack if tree == "work" else (() if result.out is None else (result.out,))
        return services.layers.present(stack, name)

    pool = graph.nodes["rootfs/pool"]
    refs = [pool.inputs["kernel"], pool.inputs["initrd"], graph.nodes["kernel/artifact:bzImage"].inputs["file"]]
    kernel, initrd, shipped = (path(ref.node, ref.tree, ref.path) for ref in refs if isinstance(ref, StepRef))
    [(name, size)] = pool.extra["disks"]
    return Card(
        kernel=kernel, shipped=shipped, initrd=initrd, append=pool.extra["append"], disk=Disk(name=name, size=size),
        wall=pool.wall, image=services.rootfs(pool.image), made=_sha256(path("rootfs/pool", "out", name)),
    )  # fmt: skip


def make(card: Card, conditions: Conditions, folder: Path, *, kernel: Path, initrd: Path) -> dict[str, Any]:
    """Make the image once; its sha256 and the seconds it took."""
    spec = Varied(
        kernel=kernel,
        initrd=initrd,
        append=kernel_line(card.append, initrd),
        disks=(card.disk,),
        memory_bytes=conditions.memory * MiB,
        nic=False,
        repeatable=True,
        processor=conditions.processor,
        icount=conditions.icount,
    )
    began = time.monotonic()
    with _busy(conditions.load), tempfile.TemporaryDirectory(dir=folder) as here:
        out = Path(here) / "out"
        transcript = Path(here) / "console"
        patience = card.wall * (10 if conditions.icount else 1 + conditions.load)
        place = Place(image=card.image)
        verdict = machine.forge(spec, place, out=out, done="ANVIL FORGE DONE", timeout=patience, transcript=transcript)
        assert verdict.ok, (conditions, verdict.sentence, verdict.tail)
        return {"sha256": _sha256(out / card.disk.name), "seconds": round(time.monotonic() - began, 1)}


def larger(initrd: Path, folder: Path) -> Path:
    """The initrd with a root in which 60 MB of noise lie as well: a later archive's file takes the place of one."""
    with initrd.open("rb") as packed:
        extract(packed, folder / "members")
    tar = folder / "members" / "root.tar"
    with tarfile.open(tar, "a:", format=tarfile.GNU_FORMAT) as archive:
        noise = tarfile.TarInfo("./noise")
        noise.size = LARGER
        archive.addfile(noise, io.BytesIO(random.Random(SEED).randbytes(LARGER)))
    made = folder / "larger.cpio"
    more = newc("root.tar", 0o100644, tar.read_bytes()) + newc("TRAILER!!!", 0, b"")
    made.write_bytes(initrd.read_bytes() + more)
    return made


def series() -> Iterator[tuple[str, Conditions]]:
    """Every making of the campaign: its series, and its conditions."""
    chance = random.Random(SEED)
    for name, count in (("root", MAKINGS), ("larger", MAKINGS // 4), ("control", MAKINGS // 4)):
        for number in range(count):
            # the larger root and its initrd want room
            memory = chance.choice(MEMORY if name != "larger" else MEMORY[4:])
            slow = number % 8 == 7 and name != "control"  # counted instructions take five times as long
            processor, load = chance.choice(PROCESSORS), chance.choice((0, 0, 2, 4))
            yield name, Conditions(memory=memory, processor=processor, load=load, icount=slow)


@contextmanager
def _busy(count: int) -> Iterator[None]:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def summary(done: list[dict[str, Any]], made: str) -> dict[str, Any]:
    """The figures: by series how many images and how many different ones, and whether the engine's is one of them."""
    digests = {name: [each["sha256"] for each in done if each["series"] == name] for name, _ in series()}
    return {name: {"images": len(found), "different": len(set(found))} for name, found in digests.items()} | {
        "as_the_engine_made_it": set(digests["root"]) == {made}
    }


def main() -> int:
    """Make what is lacking, and say what was found."""
    kept = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
    with (
        Services(Settings(home=user_home(), output=user_home() / "unused")) as services,
        tempfile.TemporaryDirectory(prefix="anvil-pool-", dir=os.environ.get("TMPDIR")) as here,
    ):
        folder = Path(here)
        folder.chmod(0o755)
        ours = card(services)
        done = kept.get("makings", []) if kept.get("engine") == ours.made else []
        payloads = {"root": ours.initrd, "control": ours.initrd, "larger": larger(ours.initrd, folder)}
        for number, (name, conditions) in enumerate(series()):
            if number < len(done):
                continue
            kernel = ours.shipped if name == "control" else ours.kernel
            found = make(ours, conditions, folder, kernel=kernel, initrd=payloads[name])
            done.append({"series": name, **asdict(conditions), **found})
            sys.stdout.write(f"{json.dumps(done[-1])}\n")
            sys.stdout.flush()
            result = {"seed": SEED, "engine": ours.made, "figures": summary(done, ours.made), "makings": done}
            RESULT.parent.mkdir(parents=True, exist_ok=True)
            RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        figures = summary(done, ours.made)
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    same = figures["root"]["different"] == figures["larger"]["different"] == 1 and figures["as_the_engine_made_it"]
    return 0 if same and figures["control"]["different"] > 1 else 1


if __name__ == "__main__":
    sys.exit(main())
