"""In what two identities of a card differ: every input by name and digest. Pure; look-ups are handed in."""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from anvil.microjson.codec import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from anvil.mainframe.keys import Identity

What = Literal[
    "script", "file", "source", "image", "card", "texts", "setting", "contract", "architecture", "operation", "keep"
]

OWN = frozenset({"script", "file", "source", "image", "setting", "contract", "architecture", "operation", "keep"})
"""What an edit changes in a card itself; the others ("card", "texts") follow from what is above it."""

MOST_LINES = 40
_VALUE_LIMIT = 200
_PLAIN = {"contract": "contract", "architecture": "architecture", "op": "operation", "keep": "keep"}


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that a card is given and was not given before.

    what: what kind of thing; "texts" are those that the output gate may take for the recipes' own words. name: a
    recipe file's path, a source's or image's name, the id of another card (of a script its own), the name of a
    setting. before, after: a digest (of a script or longer text its sha256) or value; "" where there is or was none.
    known: False where ``after`` is not known before another card has run. lines: what is different in it: a text's
    lines with "-" and "+" before them, or the packages of an image. place: where the card sees it: "/in/NAME" or
    "/work". path: of what is taken from another card's tree. was: where the recipe takes it from another thing than
    before, what that was ("nothing" where there was none).
    """

    what: What
    name: str
    before: str = ""
    after: str = ""
    known: bool = True
    lines: tuple[str, ...] = ()
    place: str = ""
    path: str = ""
    was: str = ""

    @property
    def own(self) -> bool:
        """Whether the card's recipe, a file, a source or an image changed, and not only what another card gives."""
        return self.what in OWN or bool(self.was)

    def as_data(self) -> dict[str, Any]:
        """As JSON."""
        return {**vars(self), "lines": list(self.lines), "own": self.own}


class Lookup(Protocol):
    """What a comparison asks."""

    def pin(self, digest: str) -> Mapping[str, Any]:
        """What a digest stands for (see Architect.push); {} when nobody knows."""

    def text(self, digest: str) -> str | None:
        """A file's text, if it is still there and is one."""

    def path(self, card: str, name: str, digest: str) -> str:
        """The path, from the recipe's folder, of a file called ``name`` that a card is given; else the name."""

    def named(self, digest: str) -> str:
        """The path of a recipe's file with that digest; "" when none of the plan has it."""


def changes(then: Identity, now: Identity, lookup: Lookup) -> tuple[Change, ...]:
    """Every difference, a card's own ones first. What ``now`` does not know yet counts as one."""
    comparison = _Comparison(then=then, now=now, lookup=lookup)
    found = [*comparison.fields(), *comparison.base(), *comparison.inputs()]
    return tuple(sorted(found, key=lambda each: not each.own))


def text_lines(before: str, after: str) -> tuple[str, ...]:
    """The lines in which two texts differ, with "-" or "+" before them, and " " for the one line around them."""
    found = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=1)
    lines = [line for line in found if not line.startswith(("---", "+++", "@@"))]
    if len(lines) > MOST_LINES:
        lines[MOST_LINES:] = [f"… and {len(lines) - MOST_LINES} more lines"]
    return tuple(lines)


@dataclass(kw_only=True)
class _Comparison:
    then: Identity
    now: Identity
    lookup: Lookup

    def fields(self) -> Iterator[Change]:
        """Everything but what comes from other cards."""
        one, two = self.then.body, self.now.body
        for name in sorted({*one, *two} - {"base", "inputs"}):
            before, after = one.get(name), two.get(name)
            if before == after:
                continue
            if name == "script":
                yield _text("script", self.now.card, before or "", after or "")
            elif name == "image":
                yield self._image(before or "", after or "")
            elif name == "extra":
                yield from self._extra(before or {}, after or {})
            else:
                yield Change(what=_PLAIN.get(name, "setting"), name=name, before=_value(before), after=_value(after))  # type: ignore[arg-type]

    def _image(self, before: str, after: str) -> Change:
        old, new = self.lookup.pin(before), self.lookup.pin(after)
        lines: tuple[str, ...] = ()
        if "packages" in old and "packages" in new:
            lines = package_lines(old["packages"], new["packages"]) or ("its packages are set up in another order",)
        name = str(new.get("image") or old.get("image") or "base image")
        return Change(what="image", name=name, before=before, after=after, lines=lines)

    def _extra(self, one: Mapping[str, Any], two: Mapping[str, Any]) -> Iterator[Change]:
        if self.now.body["op"] == "image":
            yield self._image(str(one.get("digest", "")), str(two.get("digest", "")))
            return
        if self.now.body["op"] == "fetch":
            old, new = ([file["sha256"] for file in each.get("files", [])][:1] for each in (one, two))
            if old != new:
                yield self._source("".join(old), "".join(new), "")
                return
        for name in sorted({*one, *two}):
            before, after = one.get(name), two.get(name)
            if before == after:
                continue
            if self.now.body["op"] == "release" and name == "texts":
                yield self._texts(before or [], after or [])
            elif isinstance(before, str) and isinstance(after, str) and _is_long(before + after):
                yield _text("setting", name, before, after)
            else:
                yield Change(what="setting", name=name, before=_value(before), after=_value(after))

    def _texts(self, before: Sequence[str], after: Sequence[str]) -> Change:
        gone = [f"- {digest} {self.lookup.named(digest)}" for digest in before if digest not in after]
        new = [f"+ {digest} {self.lookup.named(digest)}" for digest in after if digest not in before]
        return Change(what="texts", name="texts", lines=tuple(line.rstrip() for line in (*gone, *new)))

    def base(self) -> Iterator[Change]:
        """What it starts from."""
        before, after = self.then.body["base"], self.now.body["base"]
        if before == after:
            return
        name, was = self.now.origins["base"], self.then.origins["base"]
        yield Change(
            what="card",
            name=name or was,
            before=before[0] if before else "",
            after=after[0] if after else "",
            known=after is not None,
            place="/work",
            was=(was or "nothing") if was != name else "",
        )

    def inputs(self) -> Iterator[Change]:
        """What it is given at /in."""
        one, two = self.then.body["inputs"], self.now.body["inputs"]
        for name in sorted({*one, *two}):
            before, after = one.get(name, ""), two.get(name, "")
            if before != after:
                yield self._input(name, before, after)

    def _input(self, name: str, before: str, after: str | None) -> Change:
        old, new = (each.origins["inputs"].get(name) for each in (self.then, self.now))
        was = "" if old and new and _origin(old) == _origin(new) else _origin(old) if old else "nothing"
        place = f"/in/{name}"
        origin = new or old
        if "step" in origin:
            node, _tree, path = origin["step"]
            known = after is not None
            return Change(
                what="card", name=node, before=before, after=after or "", known=known, place=place, path=path, was=was
            )
        _, file, source = origin["blob"]
        after = after or ""
        if source:
            return replace(self._source(before, after, place), name=source.partition("/")[2])
        one, two = self.lookup.text(before), self.lookup.text(after)
        lines = text_lines(one, two) if one is not None and two is not None else ()
        path = self.lookup.path(self.now.card, file, after or before)
        return Change(what="file", name=path, before=before, after=after, lines=lines, place=place, was=was)

    def _source(self, before: str, after: str, place: str) -> Change:
        old, new = self.lookup.pin(before), self.lookup.pin(after)
        lines = tuple(
            f"{sign} {pin['source']} {pin['version']} ({pin['file']})" for sign, pin in (("-", old), ("+", new)) if pin
        )
        name = str(new.get("source") or old.get("source") or self.now.card.partition("/")[2])
        return Change(what="source", name=name, before=before, after=after, lines=lines, place=place)


def _origin(origin: Mapping[str, Any]) -> str:
    """Where an input comes from, in words; a source by its name, whatever its version."""
    if "step" in origin:
        node, tree, path = origin["step"]
        return f"/{tree}/{path} of {node}".replace("// of", " of").replace("/ of", " of")
    _, file, source = origin["blob"]
    return str(source or file)


def package_lines(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    """In what two sets of packages differ; each is a name to a version, or to a version and a sha256."""
    lines = []
    one: tuple[str, ...]
    two: tuple[str, ...]
    for name in sorted({*old, *new}):
        one, two = _package(old.get(name)), _package(new.get(name))
        if one == two:
            continue
        if not one or not two:
            lines.append(f"{'- ' if one else '+ '}{name} {(one or two)[0]}")
        elif one[0] != two[0]:
            lines.append(f"{name} {one[0]} -> {two[0]}")
        else:
            lines.append(f"{name} {one[0]}: {one[1][:16]} -> {two[1][:16]}")
    if len(lines) > MOST_LINES:
        lines[MOST_LINES:] = [f"… and {len(lines) - MOST_LINES} more packages"]
    return tuple(lines)


def _package(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _is_long(text: str) -> bool:
    return "\n" in text or len(text) > _VALUE_LIMIT


def _text(what: What, name: str, before: str, after: str) -> Change:
    one, two = (hashlib.sha256(text.encode()).hexdigest() if text else "" for text in (before, after))
    if "\n" not in before + after and _is_long(before + after):  # one long line: word by word
        before, after = (text.replace(" ", "\n") for text in (before, after))
    return Change(what=what, name=name, before=one, after=two, lines=text_lines(before, after))


def _value(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else canonical(value).decode()
    return text if len(text) <= _VALUE_LIMIT else f"{text[:_VALUE_LIMIT]}…"
