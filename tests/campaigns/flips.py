"""``make campaign-flips``: single bits flipped at random places of a vault, found each time and never served.

Every flip is made in a blob (a file's bytes, a manifest, file times), in a cached tree or in its label, as a medium
does it: size and times stay. Then ``verify`` must name the very thing, and everything that a card or a person can get
of the layers it is in must have the right bytes or be refused (see ``served``). Some flips are looked at by the whole
command too. The result is kept as bench/results/flips.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from anvil.errors import IntegrityError
from anvil.vault import Layer, Layers, OutputLimits, Vault, discard, verify
from anvil.vault.layers import LABEL, TREE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from anvil.model.layer import Digest

RESULT = Path(__file__).parents[2] / "bench" / "results" / "flips.json"
LIMITS = OutputLimits(total_bytes=1 << 40)
WHOLE = 1000
"""One flip in so many is looked at by the whole command, too."""
CONTROLS = {
    "trees": ("anvil.vault.layers.difference", lambda *_words: ""),
    "blobs": ("anvil.vault.store.Vault.check", lambda *_words: 0),
    "verify": ("anvil.vault.verify._blob_problem", lambda *_words: ""),
}
"""What is taken away to show that its lack is seen: comparing trees, verifying blobs that are bound, reading them."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """A vault with layers, and what is in them: of each stack the right bytes by path, and the files it stands on."""

    home: Path
    vault: Vault
    stacks: tuple[tuple[Layer, ...], ...]
    content: tuple[dict[str, bytes], ...]
    grounds: tuple[frozenset[Path], ...]

    @property
    def layers(self) -> list[Layer]:
        """All layers."""
        return list(dict.fromkeys(layer for stack in self.stacks for layer in stack))


def make(folder: Path, seed: str) -> Made:
    """Some hundred blobs, from a byte to two MiB, in stacks of two layers, all with cached trees."""
    chance = random.Random(seed)
    vault = Vault(folder / "home" / "vault")
    layers = Layers(vault)
    stacks, content, grounds = [], [], []
    for number in range(8):
        files: dict[str, bytes] = {}
        stack: tuple[Layer, ...] = ()
        for height in range(2):
            out = folder / f"out-{number}-{height}"
            for count in range(10):
                name = f"d{count % 3}/{height if count % 2 else 'b'}{count}"
                files[name] = chance.randbytes(chance.choice((1, 30, 700, 5000, 70_000)))
                if number == count == height == 0:
                    files[name] = chance.randbytes((2 << 20) + 5)  # more than is read at once
                path = out / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(files[name])
                path.chmod(0o755 if count % 4 == 0 else 0o644)
            layer = layers.collect(out, kind="changes", limits=LIMITS, below=stack).layer
            stack = (layer, *stack)
            shutil.rmtree(out)
        stacks.append(stack)
        content.append(files)
        layers.lowers(stack)
        blobs = {vault.path(digest) for layer in stack for digest in layers.closure(layer)}
        grounds.append(frozenset(blobs | {layers.home(layer) for layer in stack}))
    return Made(
        home=folder / "home",
        vault=vault,
        stacks=tuple(stacks),
        content=tuple(content),
        grounds=tuple(grounds),
    )


def places(made: Made) -> dict[str, list[Path]]:
    """Every file that a bit may be flipped in, by what it is."""
    vault = made.home / "vault"
    names = {str(digest) for layer in made.layers for digest in (layer.digest, layer.times)}
    blobs = [path for path in sorted((vault / "blobs").rglob("*")) if path.is_file()]
    trees = sorted((vault / "trees").iterdir())
    return {
        "blob": [path for path in blobs if path.parent.name + path.name not in names],
        "manifest or times": [path for path in blobs if path.parent.name + path.name in names],
        "tree": [path for tree in trees for path in sorted((tree / TREE).rglob("*")) if path.is_file()],
        "label": [tree / LABEL for tree in trees],
    }


def flip(path: Path, bit: int) -> None:
    """Change one bit; size and times stay."""
    before = path.stat()
    fd = os.open(path, os.O_RDWR)
    try:
        byte = os.pread(fd, 1, bit // 8)[0]
        os.pwrite(fd, bytes([byte ^ 1 << (bit % 8)]), bit // 8)
        os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))
    finally:
        os.close(fd)


def served(made: Made, named: Path, scratch: Path) -> Iterator[tuple[str, bool]]:
    """Everything that a card or a person gets of the stacks that a blob or cached tree belongs to.

    In which way, and whether its bytes are right; what is refused is not there. Each way begins as a process that has
    seen nothing; the cached trees are as they are.
    """
    for stack, content, ground in zip(made.stacks, made.content, made.grounds, strict=True):
        for way, get in WAYS.items() if named in ground else ():
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            try:
                right = get(Layers(made.vault), stack, content, scratch)
            except IntegrityError:
                continue
            finally:
                made.vault.settle()
            yield way, right


def _lowers(layers: Layers, stack: Sequence[Layer], content: dict[str, bytes], _scratch: Path) -> bool:
    """What an overlay shows."""
    trees = layers.lowers(stack)
    return all(_topmost(trees, name) == data for name, data in content.items())


def _topmost(trees: Sequence[Path], name: str) -> bytes:
    return next((tree / name).read_bytes() for tree in trees if (tree / name).exists())


def _materialise(layers: Layers, stack: Sequence[Layer], content: dict[str, bytes], scratch: Path) -> bool:
    layers.materialise(stack, scratch / "m")
    return all((scratch / "m" / name).read_bytes() == data for name, data in content.items())


def _present_files(layers: Layers, stack: Sequence[Layer], content: dict[str, bytes], _scratch: Path) -> bool:
    return all(layers.present(stack, name).read_bytes() == data for name, data in content.items())


def _present_folder(layers: Layers, stack: Sequence[Layer], content: dict[str, bytes], _scratch: Path) -> bool:
    tree = layers.present(stack, "d1")
    return all((tree / name[3:]).read_bytes() == data for name, data in content.items() if name.startswith("d1/"))


def _export(layers: Layers, stack: Sequence[Layer], content: dict[str, bytes], scratch: Path) -> bool:
    for name, data in content.items():
        layers.export(stack, name, scratch / "file")
        if (scratch / "file").read_bytes() != data:
            return False
    return True


def _bytes(layers: Layers, stack: Sequence[Layer], content: dict[str, bytes], _scratch: Path) -> bool:
    view = layers.view(stack)
    return all(layers.vault.read_bytes(_digest(view.lookup(name))) == data for name, data in content.items())


def _checked(layers: Layers, stack: Sequence[Layer], content: dict[str, bytes], _scratch: Path) -> bool:
    view = layers.view(stack)
    return all(layers.vault.checked(_digest(view.lookup(n))).read_bytes() == data for n, data in content.items())


def _digest(entry: Any) -> Digest:
    digest: Digest = entry.sha256
    return digest


WAYS: dict[str, Callable[[Layers, Sequence[Layer], dict[str, bytes], Path], bool]] = {
    "lowers": _lowers,
    "materialise": _materialise,
    "present a file": _present_files,
    "present a folder": _present_folder,
    "export": _export,
    "read_bytes": _bytes,
    "checked": _checked,
}


def run(flips: int, seed: int, *, without: str = "", folder: Path, say: bool = False) -> dict[str, Any]:
    """Make so many flips; counts of what was seen. without: see CONTROLS."""
    chance = random.Random(seed)
    seen: Counter[str] = Counter(flips=0, found=0, missed=0, served_right=0, served_wrong=0)
    troubles: list[str] = []
    made = make(folder, str(seed))
    good = folder / "good"
    shutil.copytree(made.home, good, symlinks=True)
    all_places = places(made)
    with ExitStack() as stack:
        if without:
            stack.enter_context(mock.patch(CONTROLS[without][0], CONTROLS[without][1]))
        while seen["flips"] < flips:
            seen["flips"] += 1
            kind = chance.choices(list(all_places), weights=(5, 2, 5, 1))[0]
            path = chance.choice(all_places[kind])
            bit = chance.randrange(path.stat().st_size * 8)
            flip(path, bit)
            name = f"bit {bit} of {kind} {path.relative_to(made.home)}"
            said = _one(made, kind, path, folder / "scratch", seen, whole=seen["flips"] % WHOLE == 0)
            troubles.extend(f"{trouble}: {name}" for trouble in said)
            _restore(made, good, path)
            if say and seen["flips"] % 500 == 0:
                sys.stdout.write(f"  {dict(seen)}\n")
                sys.stdout.flush()
    return {**seen, "seed": seed, "without": without, "troubles": troubles[:20]}


def _one(made: Made, kind: str, path: Path, scratch: Path, seen: Counter[str], *, whole: bool) -> Iterator[str]:
    vault = made.home / "vault"
    named = (
        path if path.is_relative_to(vault / "blobs") else vault / "trees" / path.relative_to(vault / "trees").parts[0]
    )
    findings = [finding.path for finding in verify(made.vault, layers=made.layers) if finding.kind != "layer"]
    seen[f"flips in {kind}"] += 1
    # a damaged manifest makes its tree unverifiable too; whatever else is named, this must be
    if named in findings and (kind == "manifest or times" or findings == [named]):
        seen["found"] += 1
    else:
        seen["missed"] += 1
        yield f"missed, found was {findings}"
    if whole:
        seen["whole"] += 1
        words = [sys.executable, "-m", "anvil.cli.main", "vault", "verify", "--home", str(made.home)]
        told = subprocess.run(words, capture_output=True, text=True, check=False)
        if told.returncode != 1 or named.name not in told.stdout:
            yield f"not told by the command: {told.stdout}"
    for way, right in served(made, named, scratch):
        seen["served_right" if right else "served_wrong"] += 1
        if not right:
            yield f"served wrong by {way}"


def _restore(made: Made, good: Path, path: Path) -> None:
    """The vault as it was made, trees too: those that were made again are taken away."""
    for part in ("blobs", "trees"):
        here, there = made.home / "vault" / part, good / "vault" / part
        names = {p.name for p in there.iterdir()}
        for extra in [p for p in here.iterdir() if p.name not in names]:
            discard(extra)
    if path.is_relative_to(made.home / "vault" / "trees"):
        tree = path.relative_to(made.home).parts[2]
        discard(made.home / "vault" / "trees" / tree)
        shutil.copytree(good / "vault" / "trees" / tree, made.home / "vault" / "trees" / tree, symlinks=True)
    else:
        path.chmod(0o600)
        shutil.copyfile(good / path.relative_to(made.home), path)
        path.chmod(0o444)


def main() -> int:
    """Carry the campaign out, with its controls."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    began = time.monotonic()
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="anvil-flips-", dir=place) as folder:
        result = run(args.flips, args.seed, folder=Path(folder) / "real", say=True)
        controls = {name: run(200, args.seed, without=name, folder=Path(folder) / name) for name in CONTROLS}
    result["controls"] = {
        name: {"missed": control["missed"], "served_wrong": control["served_wrong"]}
        for name, control in controls.items()
    }
    result["seconds"] = round(time.monotonic() - began)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    red = all(control["missed"] or control["served_wrong"] for control in controls.values())
    return 0 if red and not result["troubles"] else 1


if __name__ == "__main__":
    sys.exit(main())
