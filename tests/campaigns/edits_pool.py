"""Edits: each changes one thing as a person would, and knows what ``anvil why`` must name and which cards must run.

What must be named is told by the edit: the digests of the file before and after, the version that was put into the
lock, the line that was put into the script. Which cards must run is told by the recipes as data, or, where real cells
make the same bytes again, by hand.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Mapping

    from tests.campaigns.edits_ground import Ground


@dataclass(frozen=True, kw_only=True)
class Told:
    """What must be named: the cards whose input it is, what kind of thing, its name, and words of its difference.

    before, after: digests or values, "" where they need not be checked. words: of the new value or of the lines.
    """

    cards: frozenset[str]
    what: str
    name: str
    before: str = ""
    after: str = ""
    lines: tuple[str, ...] = ()
    words: str = ""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One edit. kind: of what. told: None when nothing may run. ran: the cards that must run, and no other."""

    kind: str
    what: str
    told: Told | None
    ran: frozenset[str]

    def wrongly_ran(self, ground: Ground, ran: set[str]) -> str:
        """What ran and should not have, or the other way round; of cards that are alike one is enough."""
        deck = Deck(ground.decks())
        done = {deck.alike(card) for card in ran}
        lacking = sorted(card for card in self.ran - ran if deck.alike(card) not in done)
        more = sorted(ran - self.ran)
        return f"ran {more} besides, and not {lacking}" if more or lacking else ""


# ---- the recipes as data


class Deck:
    """Who takes what from whom, read from the evaluated recipes alone."""

    def __init__(self, decks: Mapping[str, Any]) -> None:
        self.takes: dict[str, set[str]] = {}
        self.steps: dict[str, Any] = {}
        self.files: dict[str, set[str]] = {}
        self.releases: set[str] = set()
        self.opened: set[str] = set()
        self._decks = decks
        for recipe, deck in decks.items():
            for step in deck["steps"]:
                card = f"{recipe}/{step['name']}"
                self.steps[card] = step
                self.takes[card] = {f"{recipe}/{step['base']}"} if step["base"] else set()
                for ref in step["inputs"].values():
                    self.takes[card] |= self._of(recipe, ref, card)
            for name, artifact in deck["artifacts"].items():
                card = f"{recipe}/artifact:{name}"
                self.releases.add(card)
                if artifact["kind"] in {"archive", "disk-image", "iso-image"}:
                    self.opened.add(card)
                self.takes[card] = set()
                for ref in (artifact["ref"], *artifact["opener"].values()):
                    self.takes[card] |= self._of(recipe, ref, card)

    def _of(self, recipe: str, ref: Mapping[str, Any], card: str) -> set[str]:
        if "step" in ref:
            return {f"{recipe}/{ref['step']}"}
        if "source" in ref:
            return {f"sources/{ref['source']}"}
        if "file" in ref:
            self.files.setdefault(ref["file"], set()).add(card)
            return set()
        used, name = ref["use"]
        deck = self._decks[used]
        return self._of(used, (deck["exports"].get(name) or deck["artifacts"][name])["ref"], card)

    def alike(self, card: str) -> str:
        """Cards of which this is the same are one: the second that comes has the result of the first."""
        step = self.steps.get(card)
        if step is None or step["base"]:
            return card
        inputs = {name: sorted(self._of(card.partition("/")[0], ref, card)) for name, ref in step["inputs"].items()}
        if not all(name.startswith("sources/") for taken in inputs.values() for name in taken):
            return card
        return json.dumps([step["op"], step["image"], step["script"], step["keep"], step["extra"], inputs])

    def below(self, cards: Iterable[str]) -> frozenset[str]:
        """These cards and all that is made of theirs."""
        found = set(cards)
        while True:
            more = {card for card, taken in self.takes.items() if taken & found} - found
            if not more:
                return frozenset(found)
            found |= more


# ---- small things


def _swap(ground: Ground, name: str, old: str, new: str) -> tuple[str, str]:
    """Change a file beside the recipes; its digests before and after."""
    path = ground.recipes / name
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{name} has {old!r} {text.count(old)} times"
    path.write_text(text.replace(old, new), encoding="utf-8")
    return _sha(text), _sha(path.read_text(encoding="utf-8"))


def _add(ground: Ground, name: str, line: str) -> tuple[str, str]:
    path = ground.recipes / name
    text = path.read_text(encoding="utf-8")
    path.write_text(text + line, encoding="utf-8")
    return _sha(text), _sha(text + line)


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _name(chance: random.Random) -> str:
    return f"w{chance.randrange(10**9):09}"


# ---- edits of the small deck, in real cells


def small_script(ground: Ground, chance: random.Random) -> Edit:
    """Another line in a script; everything below gets other bytes."""
    word = _name(chance)
    _swap(
        ground, "parts.py", "cat first options > /out/made", f"cat first options > /out/made; echo {word} >> /out/made"
    )
    told = Told(cards=frozenset({"parts/made"}), what="script", name="parts/made", lines=(word,))
    ran = {"parts/made", "whole/pack", "whole/good", "whole/artifact:facts.json"}
    return Edit(kind="recipe: script", what=f"parts/made says {word}", told=told, ran=frozenset(ran))


def small_fragment(ground: Ground, chance: random.Random) -> Edit:
    """Another option in the fragment."""
    word = _name(chance)
    before, after = _add(ground, "parts.fragment", f"{word.upper()}=1\n")
    cards = frozenset({"parts/options"})
    told = Told(cards=cards, what="file", name="parts.fragment", before=before, after=after, lines=(word.upper(),))
    ran = {"parts/options", "parts/made", "whole/pack", "whole/good", "whole/artifact:facts.json"}
    return Edit(kind="fragment", what=f"parts.fragment has {word}", told=told, ran=frozenset(ran))


def small_equal(ground: Ground, chance: random.Random) -> Edit:
    """A comment in the fragment: its card runs and gives the same bytes; the gate is asked about the new text."""
    word = _name(chance)
    before, after = _add(ground, "parts.fragment", f"# {word}\n")
    cards = frozenset({"parts/options"})
    told = Told(cards=cards, what="file", name="parts.fragment", before=before, after=after, lines=(word,))
    ran = frozenset({"parts/options", "whole/artifact:facts.json"})
    return Edit(kind="equal output", what=f"parts.fragment has the comment {word}", told=told, ran=ran)


def small_equal_script(ground: Ground, chance: random.Random) -> Edit:
    """A script that does the same in other words."""
    word = _name(chance)
    _swap(ground, "whole.py", '"grep -q facts /in/out/facts.json"', f'"test {word}; grep -q facts /in/out/facts.json"')
    told = Told(cards=frozenset({"whole/good"}), what="script", name="whole/good", lines=(word,))
    return Edit(kind="recipe: check", what=f"whole/good says {word}", told=told, ran=frozenset({"whole/good"}))


def small_text(ground: Ground, chance: random.Random) -> Edit:
    """Another text for a card that writes one."""
    word = _name(chance)
    _swap(ground, "parts.py", '"hello ', f'"{word}\\nhello ')
    told = Told(cards=frozenset({"parts/text"}), what="setting", name="text", lines=(word,))
    ran = {"parts/text", "whole/pack", "whole/good", "whole/artifact:facts.json"}
    return Edit(kind="option: text", what=f"the greeting says {word}", told=told, ran=frozenset(ran))


def small_mode(ground: Ground, chance: random.Random) -> Edit:
    """Another mode of the file that is written."""
    old, new = 0o644, chance.choice([0o600, 0o755])
    _swap(ground, "parts.py", f"mode=0o{old:o}", f"mode=0o{new:o}")
    told = Told(cards=frozenset({"parts/text"}), what="setting", name="mode", before=str(old), after=str(new))
    # of a file's mode others see whether it may be run; and what is made of the words stays as it was
    ran = {"parts/text", "whole/pack"} if new & 0o111 else {"parts/text"}
    return Edit(kind="option: mode", what=f"the greeting has mode {new:o}", told=told, ran=frozenset(ran))


def small_source(ground: Ground, chance: random.Random) -> Edit:
    """A new version of the source; what the deck takes from it is as it was."""
    lock = json.loads(ground.lock_path.read_text(encoding="utf-8"))
    source = lock["sources"]["small"]
    version = f"2.{chance.randrange(10**6)}"
    after = ground.pin(version, f"second {version}\n".encode())
    told = Told(
        cards=frozenset({"parts/unpack-small"}),
        what="source",
        name="small",
        before=source["files"][0]["sha256"],
        after=after,
        lines=(f"- small {source['version']} ", f"+ small {version} "),
    )
    ran = {"sources/small", "parts/unpack-small", "parts/patch", "parts/options", "parts/made"}
    return Edit(kind="source", what=f"small {version}", told=told, ran=frozenset(ran))


def small_words(ground: Ground, chance: random.Random) -> Edit:
    """Another line in a file that a recipe names."""
    word = _name(chance)
    before, after = _add(ground, "whole.words", f"{word}\n")
    cards = frozenset({"whole/pack"})
    told = Told(cards=cards, what="file", name="whole.words", before=before, after=after, lines=(word,))
    ran = frozenset({"whole/pack", "whole/good", "whole/artifact:facts.json"})
    return Edit(kind="recipe: file", what=f"whole.words has {word}", told=told, ran=ran)


def small_input(ground: Ground, chance: random.Random) -> Edit:
    """One more thing that a card is given, and takes no notice of."""
    word = _name(chance)
    (ground.recipes / f"{word}.more").write_text(f"{word}\n", encoding="utf-8")
    _swap(ground, "whole.py", '"words": whole.file(', f'"{word}": whole.file("{word}.more"), "words": whole.file(')
    cards = frozenset({"whole/pack"})
    told = Told(cards=cards, what="file", name=f"{word}.more", after=_sha(f"{word}\n"))
    ran = frozenset({"whole/pack", "whole/artifact:facts.json"})
    return Edit(kind="recipe: input", what=f"whole/pack is given {word}.more", told=told, ran=ran)


SMALL = (
    small_script, small_fragment, small_equal, small_equal_script, small_text, small_mode, small_source, small_words,
    small_input,
)  # fmt: skip


# ---- edits of the road to the ISO, where a builder pretends


def _all_below(ground: Ground, cards: Iterable[str]) -> frozenset[str]:
    return Deck(ground.decks()).below(cards)


def iso_file(ground: Ground, chance: random.Random) -> Edit:
    """One more line in any of the files that recipes name."""
    deck = Deck(ground.decks())
    name = chance.choice(sorted(deck.files))
    word = _name(chance)
    before, after = _add(ground, name, f"{word}\n")
    cards = frozenset(deck.files[name])
    told = Told(cards=cards, what="file", name=name, before=before, after=after, lines=(word,))
    return Edit(kind="recipe: file", what=f"{name} has {word}", told=told, ran=deck.below(cards))


def iso_fragment(ground: Ground, chance: random.Random) -> Edit:
    """Another option of the kernel."""
    deck = Deck(ground.decks())
    word = f"CONFIG_{_name(chance).upper()}=y"
    before, after = _add(ground, "kernel/base.fragment", f"{word}\n")
    cards = frozenset({"kernel/config", "kernel/config-zfs"})
    told = Told(cards=cards, what="file", name="kernel/base.fragment", before=before, after=after, lines=(word,))
    return Edit(kind="fragment", what=f"the kernel's fragment has {word}", told=told, ran=deck.below(cards))


def iso_equal(ground: Ground, chance: random.Random) -> Edit:
    """A comment in a fragment: the cards give the same bytes, and only the gate is asked about the new text."""
    deck = Deck(ground.decks())
    name = chance.choice(["kernel/base.fragment", "kernel/mitigations.fragment"])
    word = _name(chance)
    before, after = _add(ground, name, f"# {word}\n")
    cards = frozenset(deck.files[name])
    told = Told(cards=cards, what="file", name=name, before=before, after=after, lines=(word,))
    ran = cards | (deck.below(cards) & deck.releases)
    return Edit(kind="equal output", what=f"{name} has the comment {word}", told=told, ran=ran)


def iso_script(ground: Ground, chance: random.Random) -> Edit:
    """Another line in one of the scripts."""
    places = {
        "kernel/build": ("kernel.py", "make bzImage\ncp arch", "{}\nmake bzImage\ncp arch"),
        "rootfs/root": ("rootfs.py", "    mkdir root && cd root\n", "    mkdir root && cd root\n    {}\n"),
        "iso/squash": ("iso.py", "    python3 -I /in/map", "    {}\n    python3 -I /in/map"),
        "iso/iso": ("iso.py", "    mkdir -p iso/boot/grub", "    {}\n    mkdir -p iso/boot/grub"),
        "kernel/zfs": ("kernel.py", "./copy-builtin /work\n", "{}\n./copy-builtin /work\n"),
    }
    card = chance.choice(sorted(places))
    name, old, new = places[card]
    word = f"true {_name(chance)}"
    _swap(ground, name, old, new.format(word))
    told = Told(cards=frozenset({card}), what="script", name=card, lines=(word,))
    return Edit(kind="recipe: script", what=f"{card} says {word}", told=told, ran=_all_below(ground, {card}))


def iso_source(ground: Ground, chance: random.Random) -> Edit:
    """A new version of one of the sources."""
    lock = json.loads(ground.lock_path.read_text(encoding="utf-8"))
    deck = Deck(ground.decks())
    names = sorted({card.partition("/")[2] for taken in deck.takes.values() for card in taken if "sources/" in card})
    name = chance.choice(names)
    source = lock["sources"][name]
    before, version = source["files"][0]["sha256"], source["version"]
    source["version"] = f"{version}.{chance.randrange(10, 99)}"
    source["files"][0]["sha256"] = after = _sha(_name(chance))
    ground.lock_path.write_text(json.dumps(lock), encoding="utf-8")
    told = Told(
        cards=frozenset(card for card, taken in deck.takes.items() if f"sources/{name}" in taken),
        what="source",
        name=name,
        before=before,
        after=after,
        lines=(f"- {name} {version} ", f"+ {name} {source['version']} "),
    )
    ran = deck.below({f"sources/{name}"})
    return Edit(kind="source", what=f"{name} {version} -> {source['version']}", told=told, ran=ran)


def iso_image(ground: Ground, chance: random.Random) -> Edit:
    """A new version of a package of a base image."""
    name = chance.choice(["build", "machine"])
    path = ground.locks / "images" / f"{name}.json"
    lock = json.loads(path.read_text(encoding="utf-8"))
    package = chance.choice(lock["packages"])
    old = package["version"]
    package["version"] = f"{old}+w{chance.randrange(10**6)}"
    package["file"]["sha256"] = _sha(_name(chance))
    path.write_text(json.dumps(lock), encoding="utf-8")
    deck = Deck(ground.decks())
    cards = {card for card, step in deck.steps.items() if step["image"] == name}
    opened = deck.opened if name == "machine" else set()
    told = Told(
        cards=frozenset(cards | opened),
        what="image",
        name=name,
        lines=(f"{package['name']} {old} -> {package['version']}",),
    )
    ran = deck.below(cards | opened) | {f"images/{name}"}
    return Edit(kind="base lock", what=f"{name}: {told.lines[0]}", told=told, ran=ran)


def iso_option(ground: Ground, chance: random.Random) -> Edit:
    """Another value of something that is no script: a machine's kernel line, what a boot expects, a licence."""
    number = chance.randrange(10**6)
    places = {
        ("rootfs/pool", "append"): (
            "rootfs.py",
            '"zfs.zfs_txg_timeout": ',
            f'"zfs.w{number}": 1, "zfs.zfs_txg_timeout": ',
        ),
        ("rootfs/pool", "done"): ("rootfs.py", 'done="', f'done="{number} '),
        ("iso/bios-cdrom", "expect"): ("iso.py", 'attach="cdrom", expect="', f'attach="cdrom", expect="{number} '),
        ("iso/artifact:anvilos-phase2.iso", "licence"): ("iso.py", 'licence="', f'licence="LicenseRef-{number} AND '),
    }
    card, name = chance.choice(sorted(places))
    file, old, new = places[card, name]
    _swap(ground, file, old, new)
    told = Told(cards=frozenset({card}), what="setting", name=name, words=str(number))
    return Edit(kind="option", what=f"{card} has another {name}", told=told, ran=_all_below(ground, {card}))


ISO = (iso_file, iso_fragment, iso_equal, iso_script, iso_source, iso_image, iso_option)


def comment(ground: Ground, chance: random.Random) -> Edit:
    """A comment in a recipe, between its steps: nothing may run."""
    path = ground.recipes / f"{chance.choice(['parts', 'whole'] if ground.kind == 'small' else ['kernel', 'iso'])}.py"
    with path.open("a", encoding="utf-8") as file:
        file.write(f"# {_name(chance)}\n")
    return Edit(kind="comment", what=f"a comment in {path.name}", told=None, ran=frozenset())
