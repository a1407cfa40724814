"""What a garbage collection may not touch, and why: everything that somebody still refers to."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from anvil.errors import AnvilError
from anvil.mainframe import liveness
from anvil.mainframe.graph import BlobRef, Node
from anvil.mainframe.results import StepResult
from anvil.microjson.codec import MicroJSON, parse_canonical
from anvil.model.card import Status
from anvil.model.layer import Digest
from anvil.vault.manifest import Layer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from anvil.cortex.records import DeckState, KeptResult, Release
    from anvil.mainframe.services import Services
    from anvil.model.card import Card

Kind = Literal["released", "jam", "forge", "lease", "stack"]
_FORGES_LOOKED_AT = 1000
_ACCOUNT_LIMIT = 64 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Layers, single blobs (logs, sources, files), base images and results by key that something needs."""

    layers: frozenset[Layer] = frozenset()
    blobs: frozenset[Digest] = frozenset()
    images: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()

    def __or__(self, other: Needs) -> Needs:
        """Both."""
        return Needs(
            layers=self.layers | other.layers,
            blobs=self.blobs | other.blobs,
            images=self.images | other.images,
            keys=self.keys | other.keys,
        )


@dataclass(frozen=True, kw_only=True)
class Root:
    """A reason to keep things. name: an artifact's path, or a deck."""

    kind: Kind
    name: str
    needs: Needs


def result_needs(ret: str) -> Needs:
    """What a kept result, or a punched card, consists of. ret: the text that the card was stamped with."""
    result = StepResult.from_data(MicroJSON.decode(ret)["data"])
    layers = [*result.stack, *([result.out] if result.out else [])]
    blobs = {result.log} | {file["sha256"] for file in result.facts.get("files", ())}
    image = {str(result.facts["digest"])} if "image" in result.facts else set()
    return Needs(
        layers=frozenset(Layer(digest=layer.digest, times=layer.times) for layer in layers),
        blobs=frozenset(map(Digest, filter(None, blobs))),
        images=frozenset(image),
    )


def find_roots(services: Services, results: Mapping[str, KeptResult]) -> list[Root]:
    """Every root, those that last longest first. results: the kept ones by key."""
    return [*_released(services, results), *_on_the_stack(services)]


def _released(services: Services, results: Mapping[str, KeptResult]) -> Iterator[Root]:
    for release in services.db.releases():
        if is_there(release):
            needs = Needs(
                keys=frozenset(release.keys),
                blobs=frozenset(map(Digest, release.blobs)),
                images=frozenset(release.images),
            )
            for key in release.keys:
                if key in results:
                    needs |= result_needs(results[key].ret)
            yield Root(kind="released", name=release.path, needs=needs)


def is_there(release: Release) -> bool:
    """Whether a released artifact is still where it was put, by its size and its account; so it is when in doubt."""
    try:
        found = os.lstat(release.path)
        with open(f"{release.path}.json", "rb") as file:
            account = json.loads(file.read(_ACCOUNT_LIMIT))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        return True
    sha256 = account.get("sha256") if isinstance(account, dict) else ""
    return stat.S_ISREG(found.st_mode) and found.st_size == release.size and sha256 == release.sha256


def _on_the_stack(services: Services) -> Iterator[Root]:
    running, past = _forges(services)
    decks: dict[str, list[Card]] = {}
    for card in services.db.all_cards():
        decks.setdefault(card.deck, []).append(card)
    for state in services.db.decks():
        if state.deck in past and not state.jammed and not _is_leased(services, decks.get(state.deck, [])):
            continue  # the next forge takes it off the stack
        needs = Needs()
        parts = [_card_needs(card) for card in decks.get(state.deck, ())]
        if parts:
            needs = Needs(
                layers=frozenset().union(*(part.layers for part in parts)),
                blobs=frozenset().union(*(part.blobs for part in parts)),
                images=frozenset().union(*(part.images for part in parts)),
                keys=frozenset().union(*(part.keys for part in parts)),
            )
        yield Root(kind=_kind(state, running), name=state.deck, needs=needs)


def _forges(services: Services) -> tuple[set[str], set[str]]:
    """The decks of forges that run, and of those that ended or were killed."""
    running: set[str] = set()
    past: set[str] = set()
    for forge in services.db.forges(_FORGES_LOOKED_AT):
        worker = parse_canonical(forge.machine).get("worker", "nobody")
        is_past = forge.ended or liveness.is_dead(services.home.workers, worker)
        (past if is_past else running).add(forge.deck)
    return running, past


def _is_leased(services: Services, cards: list[Card]) -> bool:
    return any(card.lease and not liveness.is_dead(services.home.workers, card.lease) for card in cards)


def _kind(state: DeckState, running: set[str]) -> Kind:
    if state.deck in running:
        return "forge"
    if state.claimed:
        return "lease"
    return "jam" if state.jammed else "stack"


def _card_needs(card: Card) -> Needs:
    try:
        return _needs_of(card, Node.from_data(MicroJSON.decode(card.pld)["data"]))
    except (AnvilError, KeyError, TypeError, ValueError):
        return Needs(keys=frozenset({card.key} - {""}))  # no card that any operation could run, or has run


def _needs_of(card: Card, node: Node) -> Needs:
    blobs = {ref.sha256 for ref in node.inputs.values() if isinstance(ref, BlobRef)}
    if node.op == "fetch":
        blobs |= {file["sha256"] for file in node.extra["files"]}
    needs = Needs(
        blobs=frozenset(map(Digest, blobs)),
        images=frozenset({node.image} - {""}),
        keys=frozenset({card.key} - {""}),
    )
    return needs | result_needs(card.ret) if card.stat is Status.PUNCHED else needs
