"""Evaluating recipes: one cell for all that are not known yet; their decks are kept by what they were made from."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anvil
from anvil.errors import AnvilError, RecipeError
from anvil.mainframe.deckcheck import check_deck
from anvil.microjson.codec import MicroJSON, canonical, parse_canonical
from anvil.microjson.registry import MessageID
from anvil.recipe.deck import extenders, received, references, uses

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anvil.mainframe.book import RecipeBook
    from anvil.model.lock import SourceLock

Data = dict[str, Any]

_PACKAGE = Path(anvil.__file__).parent
_LANGUAGE = ("__init__.py", "errors.py", "microjson", "recipe")
_DECK_LIMIT = 64 * 1024 * 1024

EVALUATE = (
    "/usr/bin/python3", "-I", "-S", "-B", "-c",
    "import sys; sys.path.insert(0, '/in/language'); from anvil.recipe.evaluate import main; main()",
)  # fmt: skip
"""The command of the evaluation cell."""


class DeckStore:
    """What the evaluator needs from the cortex: two calls."""

    def __init__(self, get: Callable[[str], bytes | None], put: Callable[[str, bytes], None]) -> None:
        self.get = get
        self.put = put


def evaluate(
    wanted: str,
    *,
    book: RecipeBook,
    lock: SourceLock,
    store: DeckStore,
    cell: Callable[[bytes], bytes],
) -> dict[str, Data]:
    """The decks of a recipe, of the chain of recipes that it extends, and of all they use.

    A deck of another recipe than the wanted one holds what the chain adds to it, so it is this forge's own, under its
    usual name. cell: runs the evaluator in a cell: request bytes in, answer bytes out. A deck that is in the store is
    not evaluated again. Raises RecipeError with file and line.
    """
    desk = _Desk(wanted=wanted, book=book, lock=lock, store=store)
    answer: Mapping[str, Any] = {}
    decks, chain, missing = desk.look(answer)
    if missing:
        request = {
            "profile": lock.profile,
            "sources": desk.sources,
            "recipes": desk.texts,
            "wanted": missing,
            "chain": [{key: deck[key] for key in ("recipe", "extends", "additions")} for deck in chain],
        }
        answer = _ask(request, book, cell)
        if strange := sorted(set(answer) - set(desk.texts)):
            raise RecipeError(f"the evaluation gave decks of recipes that do not exist: {strange!r:.200}")
        decks, chain, absent = desk.look(answer)
        if absent:
            raise AnvilError("the evaluation cell gave no sound answer", detail=f"no deck of {sorted(absent)!r:.200}")
        if unasked := sorted(set(answer) - set(decks)):
            raise RecipeError(f"the evaluation gave decks that nobody asked for: {unasked!r:.200}")
    _refuse_homeless(decks, chain, book)
    for name in answer:
        store.put(desk.key(name, chain), canonical(decks[name], max_bytes=_DECK_LIMIT))
    return decks


class _Desk:
    """Where decks are looked up and checked: in the store, then in an answer of the evaluation cell."""

    def __init__(self, *, wanted: str, book: RecipeBook, lock: SourceLock, store: DeckStore) -> None:
        self.wanted = wanted
        self.texts = book.texts()
        self.sources: dict[str, Data] = {
            name: {"version": source.version, "facts": dict(source.facts)} for name, source in lock.sources.items()
        }
        self._ground = hashlib.sha256(canonical([language_digest(), lock.profile, self.sources])).hexdigest()
        self._book, self._lock, self._store = book, lock, store

    def key(self, name: str, chain: Sequence[Data]) -> str:
        """What a deck is kept by: the recipe's text and, where it is extended, by whom and what they add to it."""
        parts = [self._ground, name, self.texts[name]]
        added: list[object] = [received(chain, name), extenders(chain, name)]
        if any(added):
            return hashlib.sha256(canonical([*parts, *added], max_bytes=_DECK_LIMIT)).hexdigest()
        return hashlib.sha256(canonical(parts)).hexdigest()

    def look(self, answer: Mapping[str, object]) -> tuple[dict[str, Data], list[Data], list[str]]:
        """All decks that are known, the chain from the wanted recipe inwards, and the names that have no deck.

        A deck that is kept wins over one that the cell gave unasked: no recipe decides what another's deck is.
        """
        chain: list[Data] = []
        decks: dict[str, Data] = {}
        name = self.wanted
        while name:
            _refuse_ring(chain, name, self._book)
            deck = self._deck(name, chain, answer)
            if deck is None:
                used = [used for known in chain for used in uses(known)]
                return decks, chain, list(dict.fromkeys([name, *used]))
            chain.append(deck)
            decks[name] = deck
            name = deck["extends"]
        queue, absent = [used for deck in chain for used in uses(deck)], []
        while queue:
            name = queue.pop()
            if name in decks or name in absent:
                continue
            deck = self._deck(name, chain, answer)
            if deck is None:
                absent.append(name)
                continue
            if deck["extends"]:
                _refuse_stranger(name, chain, decks, self._book)
            decks[name] = deck
            queue += uses(deck)
        return decks, chain, absent

    def _deck(self, name: str, chain: Sequence[Data], answer: Mapping[str, object]) -> Data | None:
        data = self._store.get(self.key(name, chain)) if name in self.texts else None
        if data is not None:
            deck = self._sound(name, parse_canonical(data, max_bytes=_DECK_LIMIT), chain)
            if name in answer and answer[name] != deck and any(name == link["extends"] for link in chain):
                # what else was answered was evaluated with what the other one adds
                raise RecipeError(f"recipe {name} does not give the same deck each time", where=f"{name}.py")
            return deck
        return self._sound(name, answer[name], chain) if name in answer else None

    def _sound(self, name: str, deck: Any, chain: Sequence[Data]) -> Data:
        check_deck(name, deck, received(chain, name))
        _check_sources(name, deck, self._lock)
        return dict(deck)


def _refuse_ring(chain: Sequence[Data], name: str, book: RecipeBook) -> None:
    names = [deck["recipe"] for deck in chain]
    if name in names:
        ring = " -> ".join([*names[names.index(name) :], name])
        where = str(book.paths.get(names[-1], ""))
        raise RecipeError(f"recipes extend each other in a ring: {ring}", where=where, hint="cut one extends=")


def _refuse_stranger(name: str, chain: Sequence[Data], decks: Mapping[str, Data], book: RecipeBook) -> None:
    """A recipe that is only used has no say in how others are made: there would be two of each in one forge."""
    user = next((deck["recipe"] for deck in decks.values() if name in uses(deck)), "")
    raise RecipeError(
        f"{user} uses {name}, which extends another recipe; in one forge only {chain[0]['recipe']} and what it extends"
        " may change others",
        where=str(book.paths.get(user, "")),
        hint=f"extend {name}, or move what {user} needs of it into a recipe that extends nothing",
    )


def _refuse_homeless(decks: Mapping[str, Data], chain: Sequence[Data], book: RecipeBook) -> None:
    """Every addition is to a recipe of this forge, and in a chain to one further in."""
    names = [deck["recipe"] for deck in chain]
    for number, deck in enumerate(chain):
        for addition in deck["additions"]:
            target, by = addition["recipe"], deck["recipe"]
            where = str(book.paths.get(by, ""))
            if target in names[: number + 1]:
                raise RecipeError(f"{by} adds to {target}, which itself extends {by}", where=where)
            if target not in decks:
                open_to = ", ".join(sorted(name for name, other in decks.items() if other["slots"])) or "none"
                raise RecipeError(
                    f"{by} adds to {addition['slot']} of {target!r}, which is no recipe of this forge",
                    where=where,
                    hint=f"recipes that can be added to: {open_to}",
                )


def _check_sources(name: str, deck: Data, lock: SourceLock) -> None:
    for ref in references(deck):
        if "source" in ref and ref["source"] not in lock.sources:
            raise RecipeError(f"recipe {name}: no source is called {ref['source']!r}", where=f"{name}.py")


def named_files(decks: Mapping[str, Data]) -> set[tuple[str, str]]:
    """Every (recipe, path) that the decks name beside recipes: the recipe's own, or that of who added it."""
    return {
        (ref.get("of", recipe), ref["file"])
        for recipe, deck in decks.items()
        for ref in references(deck)
        if "file" in ref
    }


@cache
def language_digest() -> str:
    """The digest of every file of the recipe language and its evaluator."""
    digest = hashlib.sha256()
    for path in _language_files():
        digest.update(f"{path.relative_to(_PACKAGE)}\n{path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def place_language(folder: Path) -> Path:
    """Copy the language below ``folder`` for the evaluation cell to read; done once per digest.

    Nothing of the copy is synced, and a power cut may leave a torn one: it is compared each time, and made again.
    """
    place = folder / language_digest()
    if _is_copy(place):
        return place
    staging = Path(tempfile.mkdtemp(prefix="tmp-", dir=folder))
    try:
        for path in _language_files():
            target = staging / "copy" / "anvil" / path.relative_to(_PACKAGE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            target.chmod(0o644)
        if place.is_dir() and not _is_copy(place):
            place.rename(staging / "torn")
        (staging / "copy").rename(place)
    except OSError:
        if not _is_copy(place):  # else another forge was quicker
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return place


def _is_copy(place: Path) -> bool:
    try:
        return all(
            (place / "anvil" / path.relative_to(_PACKAGE)).read_bytes() == path.read_bytes()
            for path in _language_files()
        )
    except FileNotFoundError:
        return False


def _language_files() -> list[Path]:
    found: list[Path] = []
    for name in _LANGUAGE:
        path = _PACKAGE / name
        found += [path] if path.is_file() else sorted(path.glob("*.py"))
    return found


def _ask(request: Data, book: RecipeBook, cell: Callable[[bytes], bytes]) -> dict[str, Data]:
    try:
        answer = MicroJSON.decode(cell(MicroJSON.message(MessageID.EVALUATION_REQUEST, request)))["data"]
        if "error" in answer:
            raise _told(answer["recipe"], answer["error"], book)
        decks = answer["decks"]
        if type(decks) is not dict:
            raise TypeError(type(decks))
    except (KeyError, TypeError, AttributeError) as error:
        raise AnvilError("the evaluation cell gave no sound answer", detail=repr(error)) from error
    return decks


def _told(name: str, error: Data, book: RecipeBook) -> RecipeError:
    """The error that the evaluator tells of a recipe; TypeError or KeyError when it is none."""
    message, line, hint = error["message"], error["line"], error["hint"]
    if (type(message), type(line), type(hint)) != (str, int, str):
        raise TypeError(message)
    path = book.paths.get(name)
    return RecipeError(message, where=f"{path}:{line}" if path and line else str(path or ""), hint=hint)
