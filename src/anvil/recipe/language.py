"""Recipes, their steps and what steps refer to.

``Recipe.deck()`` is the result: plain data (dicts, lists, strings, integers) with one entry per step, in the order
the recipe made them, which is also an order in which they can run.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from anvil.errors import RecipeError
from anvil.recipe.extension import Extension, begin
from anvil.recipe.kinds import KINDS, Kind
from anvil.recipe.reference import Ref
from anvil.recipe.values import relative as _relative

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB

Keep = Literal["all", "out"]
Data = dict[str, Any]

_NAME = re.compile(r"[a-z0-9][a-z0-9_.+-]{0,63}")
_INPUT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
_SCRIPT_LIMIT = 100_000  # Linux takes at most 128 KiB in one argument; a longer script belongs in a file


@dataclass(frozen=True, kw_only=True)
class Source(Ref):
    """A pinned source of the profile's lock.

    version: the upstream version. facts: what was read from the source when the lock was made.
    """

    name: str
    version: str
    facts: Mapping[str, str]

    def older_than(self, version: str) -> bool:
        """Compare by the dotted numbers at the start of both versions: "6.6.14" is older than "6.9"."""
        return version_numbers(self.version) < version_numbers(version)

    def newer_than(self, version: str) -> bool:
        """Newer in the numbers that ``version`` names: "6.12.107" is not newer than "6.12"."""
        limit = version_numbers(version)
        return version_numbers(self.version)[: len(limit)] > limit


@dataclass(frozen=True, kw_only=True)
class Step:
    """One card to be: the state after it is what the next step starts from."""

    recipe: Recipe
    name: str

    @property
    def work(self) -> Ref:
        """Everything in its work tree."""
        return Ref(data={"step": self.name, "tree": "work", "path": ""})

    @property
    def out(self) -> Ref:
        """Everything it left in /out."""
        return Ref(data={"step": self.name, "tree": "out", "path": ""})

    def __truediv__(self, path: str) -> Ref:
        """A file or folder of its work tree."""
        return self.work / path

    def check(self, name: str, script: str, *, inputs: Mapping[str, Ref] | None = None, wall: int = 300) -> Step:
        """A card that must pass: the script sees /work as this step left it and its output at /in/out.

        What it changes is thrown away. Nothing of the recipe is released while a check fails.
        """
        taken = {"out": self.out, **(inputs or {})}
        return self.recipe.step("check", name, base=self, script=script, inputs=taken, wall=wall, keep="out")


@dataclass(kw_only=True)
class Recipe(Extension):
    """A recipe: what it is called, what licence its artifacts carry, and its steps.

    name: must be the file's name without ".py". licence: an SPDX expression. image: the base image of steps that
    do not name another. extends: a recipe that is made with this one, changed by what this one adds to it and to the
    recipes that it uses. Errors: RecipeError for anything that cannot be a deck.
    """

    name: str
    licence: str
    summary: str = ""
    image: str = "build"
    extends: str = ""
    _steps: dict[str, Data] = field(default_factory=dict, repr=False)
    _artifacts: dict[str, Data] = field(default_factory=dict, repr=False)
    _exports: dict[str, Data] = field(default_factory=dict, repr=False)

    def __init__(self, name: str, *, licence: str, summary: str = "", image: str = "build", extends: str = "") -> None:
        for called in (name, extends or name):
            if not _NAME.fullmatch(called):
                raise RecipeError(f"a recipe cannot be called {called!r}", hint="use a-z, 0-9, _ . + -")
        if extends == name:
            raise RecipeError(f"{name} cannot extend itself")
        self.name = name
        self.licence = licence
        self.summary = summary
        self.image = image
        self._steps = {}
        self._artifacts = {}
        self._exports = {}
        self.extends = extends
        self._additions = {}
        self._slots = {}
        _made.append(self)

    # ---- what steps take in

    def source(self, name: str) -> Source:
        """The source called ``name`` in the profile's lock; as an input it is its tarball."""
        entry = _sources.get(name)
        if entry is None:
            raise RecipeError(
                f"no source is called {name!r} in the lock of profile {_profile[0]!r}",
                hint="known sources: " + ", ".join(sorted(_sources)),
            )
        return Source(data={"source": name}, name=name, version=entry["version"], facts=dict(entry["facts"]))

    def file(self, path: str) -> Ref:
        """A file that lies beside the recipe, by its path relative to the recipe's folder."""
        return Ref(data={"file": _relative(path)})

    def use(self, recipe: str, name: str) -> Ref:
        """An artifact or export of another recipe."""
        if recipe == self.name:
            raise RecipeError(f"{recipe} cannot use itself", hint="refer to the step instead")
        return Ref(data={"use": [recipe, name], "path": ""})

    # ---- steps

    def unpack(self, source: Source, *, name: str = "") -> Step:
        """The source's tree in /work, its single top folder stripped."""
        return self.step("unpack", name or f"unpack-{source.name}", inputs={"source": source}, wall=600)

    def patch(self, name: str, base: Step, patch: Ref, *, strip: int = 1) -> Step:
        """Apply a unified diff to the tree; a hunk that does not apply jams."""
        script = f"patch --batch --forward --fuzz=0 --no-backup-if-mismatch -p{int(strip)} < /in/patch"
        return self.step("patch", name, base=base, script=script, inputs={"patch": patch}, wall=300)

    def write(self, name: str, base: Step | None, path: str, text: str, *, mode: int = 0o644) -> Step:
        """Write a text file into /work; missing folders are made."""
        extra = {"path": _relative(path), "text": text, "mode": mode}
        return self.step("write", name, base=base, wall=60, extra=extra)

    def run(
        self,
        name: str,
        base: Step | None,
        script: str,
        *,
        inputs: Mapping[str, Ref] | None = None,
        image: str = "",
        memory: int = 8 * GiB,
        wall: int = 3600,
        expect: int = 0,
        keep: Keep = "all",
    ) -> Step:
        """Run a bash script (-euo pipefail) in a cell.

        /work is the tree that ``base`` left (empty without one), /in/<name> each input, read-only, /out what other
        steps may take. memory: bytes. wall: seconds until it is ended. expect: seconds it usually takes, a hint for
        the first estimate, not part of its identity. keep="out": the work tree is thrown away afterwards.
        """
        return self.step(
            "run", name, base=base, script=script, inputs=inputs, image=image, memory=memory, wall=wall,
            expect=expect, keep=keep,
        )  # fmt: skip

    def forge(
        self,
        name: str,
        *,
        kernel: Ref,
        initrd: Ref,
        disks: Mapping[str, int],
        append: str,
        done: str,
        memory: int = GiB,
        wall: int = 600,
        expect: int = 20,
        deterministic: bool = False,
    ) -> Step:
        """Boot a virtual machine that fills disks.

        disks: name to size in bytes, sparse, /dev/vda onwards in the order given; they land in ``out``. done: the
        line on the serial console that means success; anything else (a panic, the time gone) jams. append: the kernel
        line, in which ``$SOURCE_DATE_EPOCH`` is the cells' and ``$SEED`` a number made of the initrd's bytes, from 1
        to 2^63 - 1. deterministic: one emulated processor and no source of chance, never KVM, so that a guest that
        takes no notice of time does the same each time; slower where KVM runs.
        """
        if not disks:
            raise RecipeError(f"forge {name!r} makes no disk")
        for disk in disks:
            _relative(disk)
        extra = {
            "disks": [[name, size] for name, size in disks.items()],
            "append": append,
            "done": done,
            "deterministic": deterministic,
        }
        return self.step(
            "forge", name, inputs={"kernel": kernel, "initrd": initrd}, image="machine", memory=memory, wall=wall,
            expect=expect, keep="out", extra=extra,
        )  # fmt: skip

    def boot(
        self, name: str, *, medium: Ref, firmware: str, attach: str, expect: str, memory: int = GiB, wall: int = 300
    ) -> Step:
        """A check that boots a medium: firmware "bios" or "uefi", attach "cdrom", "disk" or "usb".

        It passes when ``expect`` is seen on the serial console. It leaves no output; the verdict is in the sidecars of
        the recipe's artifacts. memory: bytes. wall: seconds.
        """
        if firmware not in {"bios", "uefi"} or attach not in {"cdrom", "disk", "usb"}:
            raise RecipeError(f"boot {name!r}: firmware is bios or uefi, attach is cdrom, disk or usb")
        extra = {"firmware": firmware, "attach": attach, "expect": expect}
        return self.step(
            "boot", name, inputs={"medium": medium}, image="machine", memory=memory, wall=wall, expect=30,
            keep="out", extra=extra,
        )  # fmt: skip

    def step(
        self,
        op: str,
        name: str,
        *,
        base: Step | None = None,
        script: str = "",
        inputs: Mapping[str, Ref] | None = None,
        image: str = "",
        memory: int = 8 * GiB,
        wall: int = 3600,
        expect: int = 0,
        keep: Keep = "all",
        extra: Data | None = None,
    ) -> Step:
        """Add a step of any operation; the calls above are made of this one."""
        if not _NAME.fullmatch(name):
            raise RecipeError(f"a step cannot be called {name!r}", hint="use a-z, 0-9, _ . + -")
        if name in self._steps:
            raise RecipeError(f"two steps are called {name!r}")
        if base is not None and (base.recipe is not self or base.name not in self._steps):
            raise RecipeError(f"step {name!r} starts from a step of another recipe", hint="use Recipe.use")
        if keep not in {"all", "out"}:
            raise RecipeError(f"step {name!r}: keep is 'all' or 'out'")
        script = textwrap.dedent(script).strip()
        if len(script.encode()) > _SCRIPT_LIMIT:
            raise RecipeError(f"the script of {name!r} is over {_SCRIPT_LIMIT} bytes", hint="put it in a file")
        for key, ref in (inputs or {}).items():
            if not _INPUT.fullmatch(key):
                raise RecipeError(f"step {name!r}: an input cannot be called {key!r}")
            if not isinstance(ref, Ref):
                kind = type(ref).__name__
                raise RecipeError(
                    f"step {name!r}: input {key!r} is a {kind}, not a file or folder", hint="step / 'path'"
                )
        self._steps[name] = {
            "name": name,
            "op": op,
            "image": image or self.image,
            "base": base.name if base else "",
            "inputs": {key: ref.data for key, ref in sorted((inputs or {}).items())},
            "script": script,
            "limits": {"memory": _positive("memory", memory), "wall": _positive("wall", wall)},
            "expect": int(expect),
            "keep": keep,
            "extra": extra or {},
        }
        return Step(recipe=self, name=name)

    # ---- what leaves the recipe

    def export(self, name: str, ref: Ref) -> None:
        """A result that other recipes may use; it is not released."""
        self._add(self._exports, name, {"ref": ref.data})

    def artifact(
        self,
        name: str,
        ref: Ref,
        *,
        kind: Kind,
        licence: str = "",
        redistribution: str = "",
        opener: Mapping[str, Ref] | None = None,
    ) -> None:
        """A file that is released under ``name`` once the output gate has judged it to be ``kind``.

        redistribution: a word for the sidecar ("contested") where handing the file on is not simply allowed. opener:
        {"kernel": ref, "initrd": ref} that can read an image which only a kernel can (a ZFS pool): booted with the
        image as /dev/sda (read-only in effect) and ``anvil.census`` on its command line, it writes a tar of all files
        in the image to /dev/vda, says ``ANVIL CENSUS DONE`` and powers off.
        """
        if kind not in KINDS:
            raise RecipeError(f"artifact {name!r}: {kind!r} is no kind", hint="kinds: " + ", ".join(sorted(KINDS)))
        data = {"ref": ref.data, "kind": kind, "licence": licence or self.licence, "redistribution": redistribution}
        data["opener"] = {key: value.data for key, value in sorted((opener or {}).items())}
        self._add(self._artifacts, name, data)

    def require(self, condition: bool, message: str, *, hint: str = "") -> None:  # noqa: FBT001 - reads as a sentence
        """Refuse the recipe, before anything runs, unless the condition holds."""
        if not condition:
            raise RecipeError(message, hint=hint)

    def deck(self) -> Data:
        """The recipe as plain data. Raises RecipeError for an addition that no slot has taken."""
        self.refuse_homeless()
        return {
            "recipe": self.name,
            "licence": self.licence,
            "summary": self.summary,
            "extends": self.extends,
            "additions": list(self._additions.values()),
            "slots": self._slots,
            "steps": list(self._steps.values()),
            "exports": self._exports,
            "artifacts": self._artifacts,
        }

    def _add(self, table: dict[str, Data], name: str, data: Data) -> None:
        _relative(name)
        if name in self._exports or name in self._artifacts:
            raise RecipeError(f"two results are called {name!r}")
        table[name] = data


_sources: dict[str, Data] = {}
_profile: list[str] = [""]
_made: list[Recipe] = []


def provide(
    profile: str, sources: Mapping[str, Data], *, received: Sequence[Data] = (), extenders: Sequence[str] = ()
) -> None:
    """Begin an evaluation: the profile's sources (name to {"version", "facts"}), and no recipe made yet.

    received: what is added to the recipe that will be made (``deck.received``). extenders: the recipes that extend it.
    """
    _made.clear()
    _profile[0] = profile
    _sources.clear()
    _sources.update(sources)
    begin(received, extenders)


def made() -> list[Recipe]:
    """Every recipe that was made since the start, in order."""
    return list(_made)


def version_numbers(version: str) -> tuple[int, ...]:
    """The leading dotted numbers of a version: (6, 12, 107) of "6.12.107-rc1"."""
    match = re.match(r"\d+(\.\d+)*", version)
    if match is None:
        raise RecipeError(f"{version!r} does not begin with a number")
    return tuple(int(part) for part in match.group().split("."))


def _positive(what: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise RecipeError(f"{what} is a number above 0, not {value!r}")
    return value
