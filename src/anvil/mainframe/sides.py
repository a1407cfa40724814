"""Two forges, or two artifacts, side by side: inputs, cards, sizes, kernel options, and what is in the artifacts."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anvil.errors import IntegrityError, UsageError
from anvil.mainframe.difference import Change, changes, package_lines
from anvil.mainframe.history import Past, find_forge
from anvil.mainframe.keys import Identity
from anvil.mainframe.results import StepResult
from anvil.microjson.codec import MicroJSON
from anvil.model.card import Status
from anvil.model.layer import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from anvil.cortex.records import StoredResult
    from anvil.mainframe.difference import Lookup
    from anvil.mainframe.results import LayerRef
    from anvil.mainframe.services import Services

_SHA256 = re.compile(r"[0-9a-f]{64}")
_OPTION = re.compile(r"(?:# )?(CONFIG_[A-Za-z0-9_]+)(?:=(.*)| is not set)")
_CONFIGS = frozenset({"config", ".config"})
_CONFIG_LIMIT = 4 * 1024 * 1024
_MARK = "# Automatically generated file; DO NOT EDIT."


@dataclass(frozen=True, kw_only=True)
class SideCard:
    """A card of a side. state: "ran", "kept", "jammed", "pending" or "made" (of an artifact). seconds: of its run."""

    key: str
    state: str
    seconds: float
    identity: Identity | None
    result: StepResult | None


@dataclass(frozen=True, kw_only=True)
class Product:
    """An artifact. card: the one that released it, as far as it is known. file: where its bytes are, or None."""

    sha256: str
    size: int
    kind: str
    card: str = ""
    file: Path | None = None


@dataclass(kw_only=True)
class Side:
    """A forge or an artifact. sources: name to (version, sha256). images: name to packages by name."""

    label: str
    began: int = 0
    seconds: float = 0.0
    verdict: str = ""
    cards: dict[str, SideCard] = field(default_factory=dict)
    products: dict[str, Product] = field(default_factory=dict)
    sources: dict[str, tuple[str, str]] = field(default_factory=dict)
    images: dict[str, Mapping[str, Any]] = field(default_factory=dict)


def side(services: Services, word: str) -> Side:
    """What a word means: an artifact's path or sha256, else a forge.

    Raises UsageError for what there is not and for a file without a sidecar, IntegrityError for one that is another.
    """
    if _SHA256.fullmatch(word):
        return _by_digest(services, word)
    path = Path(word)
    if path.is_file():
        return _by_path(services, path)
    if "/" in word:
        raise UsageError(f"there is no artifact {word}", hint="a path, a sha256, or a forge: anvil forges lists them")
    return _forge(services, word)


# ---- a forge


def _forge(services: Services, word: str) -> Side:
    number, forge = find_forge(services.db, word)
    past = Past(services.db, forge.deck)
    if not past.rows:
        raise UsageError(
            f"the cards of forge {number} are not on record",
            where=forge.id,
            hint="forges from before cards were noted cannot be compared; their artifacts can: anvil diff FILE FILE",
        )
    found = Side(
        label=f"forge {number}, {forge.id}",
        began=forge.started,
        seconds=(forge.ended - forge.started) / 1e6 if forge.ended else 0.0,
        verdict=forge.verdict,
    )
    for name, row in past.rows.items():
        punched = "ran" if row.ran else "kept"
        state = {Status.PUNCHED: punched, Status.JAMMED: "jammed"}.get(row.stat, "pending")
        result = past.result(name)
        seconds = result.milliseconds / 1000 if result else 0.0
        found.cards[name] = SideCard(
            key=row.key, state=state, seconds=seconds, identity=past.identity(name), result=result
        )
        if result is not None:
            _take(services, found, name, row.op, result)
    return found


def _take(services: Services, found: Side, name: str, op: str, result: StepResult) -> None:
    """What a card of a forge says of the artifacts, sources and images."""
    facts = result.facts
    if op == "release":
        product = Product(sha256=facts["sha256"], size=facts["size"], kind=facts["kind"], card=name)
        found.products[name.partition("/artifact:")[2]] = product
    elif op == "fetch":
        for file in facts["files"][:1]:
            pin = services.db.pin(file["sha256"]) or {}
            found.sources[name.partition("/")[2]] = (str(pin.get("version", "")), file["sha256"])
    elif op == "image":
        pin = services.db.pin(facts["digest"]) or {}
        packages = pin.get("packages", {})
        found.images[str(facts["image"])] = {package: version for package, (version, _) in packages.items()}


# ---- an artifact


def _by_path(services: Services, path: Path) -> Side:
    sidecar = path.with_name(f"{path.name}.json")
    try:
        account = json.loads(sidecar.read_bytes())
        found = Side(label=str(path))
        found.products[account["name"]] = Product(
            sha256=account["sha256"],
            size=account["size"],
            kind=account["kind"],
            card=account["cards"][-1]["card"],
            file=path,
        )
        found.sources = {each["name"]: (each["version"], each["sha256"]) for each in account["sources"]}
        found.images = {name: image["tools"] for name, image in account["images"].items()}
        keys = {each["card"]: each["key"] for each in account["cards"]}
    except FileNotFoundError as error:
        raise UsageError(f"{path} has no sidecar", where=str(sidecar), hint="name a released artifact") from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UsageError(f"the sidecar of {path} is none: {error!r}", where=str(sidecar)) from error
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != account["sha256"]:
            raise IntegrityError(
                f"{path} is not what its sidecar says", where=str(sidecar), hint="forge again, or name another file"
            )
    stored = services.db.find_results(list(keys.values()))
    for card, key in keys.items():
        found.cards[card] = _made(services, card, key, stored.get(key))
    return found


def _made(services: Services, card: str, key: str, stored: StoredResult | None) -> SideCard:
    result = StepResult.from_data(MicroJSON.decode(stored.ret)["data"]) if stored else None
    noted = (Identity.from_noted(each) for each in services.db.identities(key, card))
    return SideCard(
        key=key,
        state="made",
        seconds=result.milliseconds / 1000 if result else 0.0,
        identity=next((each for each in noted if each is not None), None),
        result=result,
    )


def _by_digest(services: Services, sha256: str) -> Side:
    """An artifact of this home: at the place where it was released, else as its release card left it."""
    for release in services.db.releases():
        if release.sha256 == sha256 and Path(release.path).is_file():
            found = _by_path(services, Path(release.path))
            if any(product.sha256 == sha256 for product in found.products.values()):
                return found
    for stored in services.db.all_results():
        facts = MicroJSON.decode(stored.ret)["data"]["facts"] if stored.op == "release" else {}
        if facts.get("sha256") == sha256:
            name = stored.card.partition("/artifact:")[2]
            card = _made(services, stored.card, stored.key, stored)
            product = Product(sha256=sha256, size=facts["size"], kind=facts["kind"], card=stored.card)
            return Side(label=f"{name} {sha256[:16]}", cards={stored.card: card}, products={name: product})
    raise UsageError(f"no artifact of this home is {sha256}", hint="name its file")


# ---- comparing


@dataclass(frozen=True, kw_only=True)
class CardRow:
    """A card on both sides; "" and 0 where it is on one only."""

    card: str
    states: tuple[str, str]
    seconds: tuple[float, float]
    same: bool


@dataclass(frozen=True, kw_only=True)
class Sides:
    """What two sides have different, files aside.

    inputs: by card, what an edit changed ("" for sources and tools). cards: those that ran on either side or are not
    the same. products: name to both, None where there is none. options: (file, name, before, after).
    """

    one: Side
    two: Side
    inputs: tuple[tuple[str, Change], ...]
    cards: tuple[CardRow, ...]
    alike: int
    products: Mapping[str, tuple[Product | None, Product | None]]
    options: tuple[tuple[str, str, str, str], ...]


def compare(services: Services, one: Side, two: Side, lookup: Lookup) -> Sides:
    """Compare without opening anything."""
    rows = []
    for name in dict.fromkeys([*one.cards, *two.cards]):
        pair = (one.cards.get(name), two.cards.get(name))
        states = tuple(each.state if each else "" for each in pair)
        seconds = tuple(each.seconds if each else 0.0 for each in pair)
        same = all(pair) and pair[0].key == pair[1].key  # type: ignore[union-attr]
        rows.append(CardRow(card=name, states=states, seconds=seconds, same=bool(same)))  # type: ignore[arg-type]
    shown = tuple(row for row in rows if not row.same or "ran" in row.states or "jammed" in row.states)
    names = dict.fromkeys([*one.products, *two.products])
    if len(one.products) == len(two.products) == 1:  # two artifacts, whatever they are called
        names = dict.fromkeys(one.products)
        two.products = dict(zip(one.products, two.products.values(), strict=True))
    return Sides(
        one=one,
        two=two,
        inputs=tuple(_inputs(one, two, lookup)),
        cards=shown,
        alike=len(rows) - len(shown),
        products={name: (one.products.get(name), two.products.get(name)) for name in names},
        options=tuple(_options(services, one, two)),
    )


def _inputs(one: Side, two: Side, lookup: Lookup) -> Iterator[tuple[str, Change]]:
    for name in sorted({*one.sources, *two.sources}):
        before, after = one.sources.get(name, ("", "")), two.sources.get(name, ("", ""))
        if before != after:
            lines = tuple(f"{sign} {name} {each[0]}" for sign, each in (("-", before), ("+", after)) if each[0])
            yield "", Change(what="source", name=name, before=before[1], after=after[1], lines=lines)
    for name in sorted({*one.images, *two.images}):
        old, new = one.images.get(name, {}), two.images.get(name, {})
        if old != new:
            yield "", Change(what="image", name=name, lines=package_lines(old, new))
    for card in one.cards:
        first, second = one.cards[card].identity, two.cards[card].identity if card in two.cards else None
        if first is None or second is None or first.key == second.key:
            continue
        for change in changes(first, second, lookup):
            if change.own and change.what not in {"source", "image"}:
                yield card, change


def _options(services: Services, one: Side, two: Side) -> Iterator[tuple[str, str, str, str]]:
    """The options in which files called config differ that Kconfig wrote and a card left in /out on both sides."""
    for card in one.cards:
        pair = [each.cards[card].result if card in each.cards else None for each in (one, two)]
        outs = [result.out if result else None for result in pair]
        if outs[0] is None or outs[1] is None or outs[0].digest == outs[1].digest:
            continue
        tables = [_configs(services, out) for out in outs if out]
        for path in sorted(tables[0].keys() & tables[1].keys()):
            before, after = tables[0][path], tables[1][path]
            for name in sorted(before.keys() | after.keys()):
                values = before.get(name, ""), after.get(name, "")
                if values[0] != values[1]:
                    yield f"{card}/{path}", name, *values


def _configs(services: Services, out: LayerRef) -> dict[str, dict[str, str]]:
    """Every configuration in an output: option to value; "n" for one that is said not to be set."""
    if not services.vault.has(out.digest):
        return {}
    found = {}
    for entry in services.layers.manifest(out.digest).entries:
        name = entry.path.rpartition("/")[2]
        if entry.type == "file" and name in _CONFIGS and entry.size <= _CONFIG_LIMIT:
            options = config_options(services.vault.read_bytes(Digest(entry.sha256)))
            if options:
                found[entry.path] = options
    return found


def config_options(data: bytes) -> dict[str, str]:
    """The options of a file that Kconfig wrote; {} for another."""
    text = data.decode("utf-8", "replace")
    if _MARK not in text[:200]:
        return {}
    matches = (_OPTION.fullmatch(line) for line in text.splitlines())
    return {match[1]: "n" if match[2] is None else match[2] for match in matches if match}
