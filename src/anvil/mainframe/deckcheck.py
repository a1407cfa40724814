"""The check of a deck that came out of the evaluation cell, before the host reads anything in it.

Recipes are hostile: what the language refuses inside the cell, a recipe can get around there. So the host accepts
only what ``Recipe.deck()`` can make: exact keys, exact types, plain names, earlier steps. Pure; nothing is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from anvil.errors import RecipeError
from anvil.recipe.kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

Data = dict[str, Any]

# Written out again on purpose: the language's own patterns live in the process that a recipe can change.
_NAME = re.compile(r"[a-z0-9][a-z0-9_.+-]{0,63}")
_INPUT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
_DISK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")  # a comma would begin another option of QEMU's
_SURROGATE = re.compile("[\ud800-\udfff]")

PATH_CHARACTERS = 200
SCRIPT_BYTES = 100_000
STEPS = 10_000
ADDITIONS = 10_000
VALUE_KEYS = 16
TEXT_BYTES = 1024 * 1024
"""Of one value in an addition; the output gate takes no longer text either."""
MEMORY_BYTES = 64 * 1024**3
DISK_BYTES = 64 * 1024**3
WALL_SECONDS = 7 * 24 * 3600
_SECTOR = 512

_STEP_KEYS = ("name", "op", "image", "base", "inputs", "script", "limits", "expect", "keep", "extra")
_DECK_KEYS = ("recipe", "licence", "summary", "extends", "additions", "slots", "steps", "exports", "artifacts")
_ADDITION_KEYS = ("recipe", "slot", "name", "value", "refs")
_ARTIFACT_KEYS = ("ref", "kind", "licence", "redistribution", "opener")
_REF_FORMS = (("step", "tree", "path"), ("file",), ("source",), ("use", "path"))

# What an operation takes in; None: whatever the recipe names. Operations that are not here are the host's own.
_INPUTS: dict[str, tuple[str, ...] | None] = {
    "unpack": ("source",), "patch": ("patch",), "write": (), "run": None, "check": None,
    "forge": ("kernel", "initrd"), "boot": ("medium",),
}  # fmt: skip


def check_deck(name: str, deck: object, received: Sequence[Data] = ()) -> None:
    """Accept the deck of the recipe ``name`` only as the language makes it.

    received: what is added to it, of decks that have been checked; it may refer to what came with that and to nothing
    else of another recipe's. Raises RecipeError that names the recipe, the step and the field.
    """
    lent: dict[str, set[str]] = {}
    for addition in received:
        for ref in addition["refs"].values():
            lent.setdefault(_but_path({**ref, "of": addition["by"]}), set()).add(ref.get("path", ""))
    _Check(recipe=name, lent=lent).deck(deck)


@dataclass(kw_only=True)
class _Check:
    recipe: str
    lent: Mapping[str, set[str]]  # references of others that came with what they add: all but the path, to paths
    steps: set[str] = field(default_factory=set)
    part: str = ""  # the step or result that is being looked at

    def deck(self, deck: object) -> None:
        found = self.mapping("deck", deck, _DECK_KEYS)
        self.name("recipe", found["recipe"])
        if found["recipe"] != self.recipe:
            self.refuse("recipe", f"the deck is of {_shown(found['recipe'])}")
        self.text("licence", found["licence"])
        self.text("summary", found["summary"])
        steps = self.sequence("steps", found["steps"])
        if len(steps) > STEPS:
            self.refuse("steps", f"there are {len(steps)}, more than {STEPS}")
        for number, step in enumerate(steps):
            self.part = f"step {number + 1}"
            self.step(step)
        self.part = ""
        exports, artifacts = self.table("exports", found["exports"]), self.table("artifacts", found["artifacts"])
        for name, entry in exports.items():
            self.part = f"export {_shown(name)}"
            self.path("name", name)
            self.ref("ref", self.mapping("export", entry, ("ref",))["ref"])
        for name, entry in artifacts.items():
            self.part = f"artifact {_shown(name)}"
            self.path("name", name)
            if name in exports:
                self.refuse("name", "an export is called the same")
            self.artifact(entry)
        self.extending(found)

    def extending(self, deck: Data) -> None:
        self.part = ""
        if self.text("extends", deck["extends"]) and self.name("extends", deck["extends"]) == self.recipe:
            self.refuse("extends", "a recipe cannot extend itself")
        for name, summary in self.table("slots", deck["slots"]).items():
            self.name("slots", name)
            self.text("slots", summary)
        additions = self.sequence("additions", deck["additions"])
        if len(additions) > ADDITIONS or (additions and not deck["extends"]):
            self.refuse("additions", f"there are {len(additions)}, and it extends {_shown(deck['extends'])}")
        for number, addition in enumerate(additions):
            self.part = f"addition {number + 1}"
            self.addition(addition)

    def addition(self, addition: object) -> None:
        found = self.mapping("addition", addition, _ADDITION_KEYS)
        if self.name("recipe", found["recipe"]) == self.recipe:
            self.refuse("recipe", "a recipe cannot add to itself")
        self.name("slot", found["slot"])
        name = self.text("name", found["name"], empty=False)
        if len(name) > PATH_CHARACTERS or not name.isprintable():
            self.refuse("name", f"{_shown(name)} is no line of at most {PATH_CHARACTERS} characters")
        value, refs = self.table("value", found["value"]), self.table("refs", found["refs"])
        if len(value) + len(refs) > VALUE_KEYS or not value.keys().isdisjoint(refs):
            self.refuse("value", f"it has more than {VALUE_KEYS} parts, or two of one name")
        for key, part in value.items():
            self.part_name("value", key)
            if type(part) is str:
                if len(self.text(f"value.{key}", part, nul=False).encode()) > TEXT_BYTES:
                    self.refuse(f"value.{key}", f"it is over {TEXT_BYTES} bytes")
            elif type(part) is not bool:
                self.number(f"value.{key}", part, -(2**53) + 1, 2**53 - 1)
        for key, ref in refs.items():
            self.part_name("refs", key)
            self.own_ref(f"refs.{key}", ref)

    def part_name(self, what: str, key: str) -> None:
        if not _INPUT.fullmatch(key):
            self.refuse(what, f"a part cannot be called {_shown(key)}")

    def step(self, step: object) -> None:
        found = self.mapping("step", step, _STEP_KEYS)
        name, op = self.name("name", found["name"]), self.text("op", found["op"])
        self.part = f"step {_shown(name)}"
        if name in self.steps:
            self.refuse("name", "two steps are called this")
        if op not in _INPUTS:
            self.refuse("op", f"{_shown(op)} is no operation of a recipe")
        self.name("image", found["image"])
        if self.text("base", found["base"]):
            self.earlier("base", found["base"])
        self.inputs(op, self.table("inputs", found["inputs"]))
        if len(self.text("script", found["script"], nul=False).encode()) > SCRIPT_BYTES:
            self.refuse("script", f"it is over {SCRIPT_BYTES} bytes")
        limits = self.mapping("limits", found["limits"], ("memory", "wall"))
        self.number("limits.memory", limits["memory"], 1, MEMORY_BYTES)
        self.number("limits.wall", limits["wall"], 1, WALL_SECONDS)
        # It is added up over the deck: without a bound the sum would not fit the database.
        self.number("expect", found["expect"], 0, WALL_SECONDS)
        self.one_of("keep", found["keep"], ("all", "out"))
        self.more(op, found["extra"])
        self.steps.add(name)

    def inputs(self, op: str, inputs: Data) -> None:
        wanted = _INPUTS[op]
        if wanted is not None:
            self.mapping("inputs", inputs, wanted)
        for key, ref in inputs.items():
            if not _INPUT.fullmatch(key):
                self.refuse("inputs", f"an input cannot be called {_shown(key)}")
            self.ref(f"inputs.{key}", ref)

    def more(self, op: str, extra: object) -> None:
        kinds: dict[str, tuple[tuple[str, ...], Callable[[Data], None]]] = {
            "write": (("path", "text", "mode"), self.write),
            "forge": (("disks", "append", "done", "deterministic"), self.forge),
            "boot": (("firmware", "attach", "expect"), self.boot),
        }
        keys, check = kinds.get(op, ((), None))
        found = self.mapping("extra", extra, keys)
        if check is not None:
            check(found)

    def write(self, extra: Data) -> None:
        self.path("extra.path", extra["path"])
        self.text("extra.text", extra["text"])
        self.number("extra.mode", extra["mode"], 0, 0o777)

    def forge(self, extra: Data) -> None:
        disks = self.sequence("extra.disks", extra["disks"])
        names = set()
        for disk in disks:
            if len(self.sequence("extra.disks", disk)) != 2:
                self.refuse("extra.disks", "a disk is a name and a size")
            if type(disk[0]) is not str or not _DISK.fullmatch(disk[0]):
                self.refuse("extra.disks", f"a disk cannot be called {_shown(disk[0])}")
            names.add(disk[0])
            if self.number("extra.disks", disk[1], 1, DISK_BYTES) % _SECTOR:
                self.refuse("extra.disks", f"{disk[1]} is no multiple of {_SECTOR}")
        if not disks or len(names) != len(disks):
            self.refuse("extra.disks", "there is none, or two are called the same")
        self.text("extra.append", extra["append"], nul=False)
        self.text("extra.done", extra["done"], empty=False)
        if type(extra["deterministic"]) is not bool:
            self.refuse("extra.deterministic", f"{_shown(extra['deterministic'])} is neither true nor false")

    def boot(self, extra: Data) -> None:
        self.one_of("extra.firmware", extra["firmware"], ("bios", "uefi"))
        self.one_of("extra.attach", extra["attach"], ("cdrom", "disk", "usb"))
        self.text("extra.expect", extra["expect"], empty=False)

    def artifact(self, artifact: object) -> None:
        found = self.mapping("artifact", artifact, _ARTIFACT_KEYS)
        self.ref("ref", found["ref"])
        self.one_of("kind", found["kind"], KINDS)
        self.text("licence", found["licence"])
        self.text("redistribution", found["redistribution"])
        for key, ref in self.table("opener", found["opener"]).items():
            self.one_of("opener", key, ("kernel", "initrd"))
            self.ref(f"opener.{key}", ref)

    def ref(self, what: str, ref: object) -> None:
        found = self.table(what, ref)
        if "of" not in found:
            self.own_ref(what, ref)
            return
        path = found.get("path", "")
        if path != "":
            self.path(f"{what}.path", path)
        # it may lead further into a folder that was lent, by a plain path
        parts = path.split("/")
        ways = {"", *("/".join(parts[:count]) for count in range(1, len(parts) + 1))}
        if ways.isdisjoint(self.lent.get(_but_path(found), ())):
            self.refuse(what, "no such thing came with what others add")

    def own_ref(self, what: str, ref: object) -> None:
        found = self.table(what, ref)
        form = next((keys for keys in _REF_FORMS if set(keys) == set(found)), None)
        if form is None:
            self.refuse(what, f"{_shown(sorted(found))} are the keys of no reference")
        if "path" in form and found["path"] != "":
            self.path(f"{what}.path", found["path"])
        match form[0]:
            case "step":
                self.earlier(f"{what}.step", found["step"])
                self.one_of(f"{what}.tree", found["tree"], ("work", "out"))
            case "file":
                self.path(f"{what}.file", found["file"])
            case "source":
                self.name(f"{what}.source", found["source"])
            case _:
                used = self.sequence(f"{what}.use", found["use"])
                if len(used) != 2:
                    self.refuse(f"{what}.use", "it is a recipe and a name")
                if self.name(f"{what}.use", used[0]) == self.recipe:
                    self.refuse(f"{what}.use", "a recipe cannot use itself")
                self.path(f"{what}.use", used[1])

    # ---- what every field is made of

    def mapping(self, what: str, value: object, keys: Collection[str]) -> Data:
        found = self.table(what, value)
        if set(found) != set(keys):
            excess = sorted(set(found) ^ set(keys))
            self.refuse(what, f"{_shown(excess)} is missing or too much")
        return found

    def table(self, what: str, value: object) -> Data:
        if type(value) is not dict or any(type(key) is not str for key in value):
            self.refuse(what, f"{_shown(value)} is no object")
        return value

    def sequence(self, what: str, value: object) -> list[Any]:
        if type(value) is not list:
            self.refuse(what, f"{_shown(value)} is no list")
        return value

    def text(self, what: str, value: object, *, nul: bool = True, empty: bool = True) -> str:
        if type(value) is not str:
            self.refuse(what, f"{_shown(value)} is no text")
        if not empty and not value:
            self.refuse(what, "it is empty")
        if not nul and "\0" in value:
            self.refuse(what, "it holds a NUL")
        if _SURROGATE.search(value):
            self.refuse(what, "it holds a lone surrogate, which has no UTF-8 form")
        return value

    def name(self, what: str, value: object) -> str:
        if type(value) is not str or not _NAME.fullmatch(value):
            self.refuse(what, f"{_shown(value)} is no name")
        return value

    def path(self, what: str, value: object) -> str:
        # isprintable also refuses the marks that turn the direction of what a person reads
        plain = type(value) is str and len(value) <= PATH_CHARACTERS and value.isprintable()
        if type(value) is not str or not plain or not {"", ".", ".."}.isdisjoint(value.split("/")):
            self.refuse(what, f"{_shown(value)} is not a plain relative path of at most {PATH_CHARACTERS} characters")
        return value

    def number(self, what: str, value: object, least: int, most: int) -> int:
        if type(value) is not int or not least <= value <= most:
            self.refuse(what, f"{_shown(value)} is no number from {least} to {most}")
        return value

    def one_of(self, what: str, value: object, known: Collection[str]) -> None:
        if type(value) is not str or value not in known:
            self.refuse(what, f"{_shown(value)} is none of {', '.join(sorted(known))}")

    def earlier(self, what: str, value: object) -> None:
        if type(value) is not str or value not in self.steps:
            self.refuse(what, f"{_shown(value)} is no earlier step of the recipe")

    def refuse(self, what: str, why: str) -> NoReturn:
        part = f", {self.part}" if self.part else ""
        raise RecipeError(
            f"recipe {self.recipe}{part}: {what}: {why}",
            where=f"{self.recipe}.py",
            hint="make every step with the calls of anvil.recipe",
        )


def _but_path(ref: Data) -> str:
    """A reference without its path, as a key; whether it has one is part of it."""
    return repr(sorted((key, "" if key == "path" else value) for key, value in ref.items()))


def _shown(value: object) -> str:
    """A value as a person may see it: short, and without anything that a terminal obeys."""
    text = ascii(value) if isinstance(value, str | int | list | None) else type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."
