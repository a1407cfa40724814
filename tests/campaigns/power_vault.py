"""Power cuts under the vault: real processes write into one, recorded; then every cut that a disk may make of it.

At a random moment of the recording the power is cut: what was not synced is lost, torn, zeroed or reordered (see
``disk_model``). The vault is opened on what is left. Then every blob whose keeping had been acknowledged must be there
with its bytes, no blob may have other bytes than its name says, nothing temporary and no cached tree may be left, and
the vault must take new blobs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from anvil.errors import AnvilError
from anvil.model.layer import Digest
from anvil.vault import Layers, OutputLimits, Vault, batch, verify
from anvil.vault.disk import CHUNK
from tests.campaigns import disk_trace
from tests.campaigns.disk_model import Disk

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.campaigns.disk_trace import Event

LIMITS = OutputLimits(total_bytes=1 << 30)
CUTS_PER_RECORDING = 500
STEPS = 14


def run(
    cuts: int, seed: int, *, without: Sequence[str] = (), scratch: Path | None = None, say: bool = False
) -> dict[str, Any]:
    """Make so many cuts; what was seen of each kind, and the first troubles in words.

    without: syncs that the simulated disk forgets ("file", "folder", "syncfs"), to show that their lack is seen.
    scratch: where to work; in memory by default, for nothing here needs a real disk. Raises RuntimeError where strace
    cannot record.
    """
    if not disk_trace.available():
        raise RuntimeError("strace is not here or may not trace: nothing can be recorded")
    seen: Counter[str] = Counter(cuts=0, acknowledged=0, lost=0, wrong=0, unclean=0, refused=0)
    words: list[str] = []
    memory = Path("/dev/shm")
    place = scratch or (memory if os.access(memory, os.W_OK) else None)
    with tempfile.TemporaryDirectory(prefix="anvil-power-vault-", dir=place) as folder:
        while seen["cuts"] < cuts:
            number = seen["cuts"] // CUTS_PER_RECORDING
            events = recording(Path(folder), f"{seed}.{number}")
            chance = random.Random(f"{seed}.{number}")
            for _ in range(min(CUTS_PER_RECORDING, cuts - seen["cuts"])):
                seen["cuts"] += 1
                for trouble, said in _one_cut(Path(folder), events, chance, without, seen):
                    seen[trouble] += 1
                    words.append(said)
            if say:
                sys.stdout.write(f"  vault: {dict(seen)}\n")
                sys.stdout.flush()
    return {**seen, "seed": seed, "without": list(without), "troubles": words[:20]}


def recording(folder: Path, seed: str) -> list[Event]:
    """What ``work`` does to its disk, acknowledgements among it (writes to the file ``ack``)."""
    shutil.rmtree(folder / "home", ignore_errors=True)
    (folder / "home").mkdir()
    (folder / "ack").write_bytes(b"")
    command = [sys.executable, "-m", "tests.campaigns.power_vault", "work", str(folder), seed]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    code = disk_trace.record(command, folder / "trace", env=environment)
    assert code == 0, f"the recorded work ended with {code}"
    return list(disk_trace.read(folder / "trace", [folder / "home", folder / "ack"]))


def _one_cut(
    folder: Path, events: Sequence[Event], chance: random.Random, without: Sequence[str], seen: Counter[str]
) -> Iterator[tuple[str, str]]:
    """Cut the power at a random moment; each trouble in a word and a sentence."""
    disk = Disk(folder / "home", without=without)
    moment = chance.randrange(len(events) + 1)
    acknowledged: set[Digest] = set()
    for event in events[:moment]:
        if event.path.endswith("/ack"):
            acknowledged.update(Digest(word) for word in event.data.decode().split())
        else:
            disk.apply(event)
    seen["acknowledged"] += len(acknowledged)
    place = folder / "after"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    disk.cut(place, chance)
    told = f"cut after event {moment} of {len(events)}"
    with mock.patch("anvil.vault.layers.boot_id", return_value="the next start"):
        try:
            for trouble, said in _look(place / "vault", acknowledged):
                yield trouble, f"{told}: {said}"
        except (AnvilError, OSError) as error:
            yield "refused", f"{told}: {error}"


def _look(root: Path, acknowledged: set[Digest]) -> Iterator[tuple[str, str]]:
    vault = Vault(root)
    layers = Layers(vault)
    for digest in sorted(acknowledged):
        if not vault.has(digest):
            yield "lost", f"blob {digest} was acknowledged and is gone"
    vault.settle()
    for finding in verify(vault):
        yield (
            ("wrong" if finding.kind == "blob" else "unclean"),
            f"{finding.kind} {finding.subject}: {finding.message}",
        )
    left = [*os.listdir(vault.tmp), *os.listdir(vault.trees)]
    if left:
        yield "unclean", f"left behind: {left}"
    # everything that was going on can be done again
    again = vault.put_bytes(b"after the cut")
    assert layers.vault.read_bytes(again) == b"after the cut"


# --- what is recorded ----------------------------------------------------------------------------------------


def work(folder: Path, seed: str) -> None:
    """Keep blobs and layers in a vault in all ways there are, and acknowledge each one that is kept."""
    chance = random.Random(seed)
    ack = os.open(folder / "ack", os.O_WRONLY | os.O_APPEND)
    vault = Vault(folder / "home" / "vault")
    layers = Layers(vault)
    known: list[bytes] = []
    ways = (_few, _few, _many, _stream, _layer, _given_up, _killed)
    for step in range(STEPS):
        data = [_bytes(chance, known) for _ in range(chance.randint(1, 6))]
        kept = chance.choice(ways)(vault, layers, data, folder / f"out-{step}")
        known += data
        os.write(ack, "".join(f"{digest}\n" for digest in kept).encode())
    vault.settle()


def _bytes(chance: random.Random, known: list[bytes]) -> bytes:
    if known and chance.random() < 0.3:
        return chance.choice(known)
    return chance.randbytes(chance.choice((0, 1, 20, 511, 513, 3000, 9000)))


def _few(vault: Vault, _layers: Layers, data: list[bytes], _out: Path) -> list[Digest]:
    # side by side, as it is done while others write, and together, as it is done when nobody does
    with mock.patch.object(batch, "little_is_dirty", return_value=len(data) % 2 == 0), vault.batch() as taking:
        return [taking.put_bytes(piece) for piece in data]


def _many(vault: Vault, _layers: Layers, data: list[bytes], _out: Path) -> list[Digest]:
    with mock.patch.object(batch, "_FEW", 4), vault.batch() as taking:
        return [taking.put_bytes(piece + bytes([number])) for number in range(3) for piece in data]


def _stream(vault: Vault, _layers: Layers, data: list[bytes], out: Path) -> list[Digest]:
    out.write_bytes(b"".join(data) + bytes(CHUNK))
    with out.open("rb") as stream:
        stream.seek(1)
        return [vault.put_file(stream), vault.put_file(out)]


def _layer(vault: Vault, layers: Layers, data: list[bytes], out: Path) -> list[Digest]:
    out = vault.root.parent / out.name
    out.mkdir()
    for number, piece in enumerate(data):
        (out / str(number)).write_bytes(piece)
    left = layers.collect(out, kind="tree", limits=LIMITS)
    tree = layers.adopt(out, left)
    if len(data) % 2:
        vault.throw_away(tree.parent)
        layers.tree(left.layer.digest, left.layer.times)
    return sorted(layers.closure(left.layer))


def _given_up(vault: Vault, _layers: Layers, data: list[bytes], _out: Path) -> list[Digest]:
    try:
        with vault.batch() as taking:
            for piece in data:
                taking.put_bytes(piece)
            raise InterruptedError
    except InterruptedError:
        return []


def _killed(vault: Vault, _layers: Layers, data: list[bytes], _out: Path) -> list[Digest]:
    """Another process is killed in the middle of keeping the same: what it left visible may not be durable."""
    child = os.fork()
    if child == 0:
        with _killed_at(len(data)):
            other = Vault(vault.root)
            with other.batch() as taking:
                for piece in data:
                    taking.put_bytes(piece)
        os._exit(0)
    os.waitpid(child, 0)
    with vault.batch() as taking:
        return [taking.put_bytes(piece) for piece in data]


@contextmanager
def _killed_at(count: int) -> Iterator[None]:
    """Be killed when so many blobs have got their names, before the names are durable."""
    real, done = os.rename, 0

    def rename(*words: Any, **more: Any) -> None:
        nonlocal done
        real(*words, **more)
        done += 1
        if done >= count:
            os.kill(os.getpid(), signal.SIGKILL)

    with mock.patch("os.rename", rename):
        yield


def main() -> int:
    """Record when told to; else make cuts and say what was seen."""
    if sys.argv[1:2] == ["work"]:
        work(Path(sys.argv[2]), sys.argv[3])
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without", action="append", default=[], choices=("file", "folder", "syncfs"))
    args = parser.parse_args()
    result = run(args.cuts, args.seed, without=args.without, say=True)
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return 1 if result["troubles"] else 0


if __name__ == "__main__":
    sys.exit(main())
