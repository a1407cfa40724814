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
from anvil.recipe.deck import references, uses

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
    """The decks of a recipe and of all it uses.

    cell: runs the evaluator in a cell: request bytes in, answer bytes out. A deck that is in the store is not
    evaluated again. Raises RecipeError with file and line.
    """
    texts = book.texts()
    sources: dict[str, Data] = {
        name: {"version": source.version, "facts": dict(source.facts)} for name, source in lock.sources.items()
    }
    ground = hashlib.sha256(canonical([language_digest(), lock.profile, sources])).hexdigest()
    keys = {name: _deck_key(ground, name, text) for name, text in texts.items()}

    def sound(name: str, deck: Data) -> Data:
        check_deck(name, deck)
        _check_sources(name, deck, lock)
        return deck

    def kept(name: str) -> Data | None:
        data = store.get(keys[name]) if name in keys else None
        return None if data is None else sound(name, parse_canonical(data, max_bytes=_DECK_LIMIT))

    decks, missing = _walk([wanted], {}, kept)
    if missing:
        request = {"profile": lock.profile, "sources": sources, "recipes": texts, "wanted": missing}
        answer = _ask(request, book, cell)
        if strange := sorted(set(answer) - set(texts)):
            raise RecipeError(f"the evaluation gave decks of recipes that do not exist: {strange!r:.200}")

        # A deck that is kept wins over one that the cell gave unasked: no recipe decides what another's deck is.
        def fresh(name: str) -> Data | None:
            return kept(name) or (sound(name, answer[name]) if name in answer else None)

        decks, absent = _walk(missing, decks, fresh)
        if absent:
            raise AnvilError("the evaluation cell gave no sound answer", detail=f"no deck of {sorted(absent)!r:.200}")
        if unasked := sorted(set(answer) - set(decks)):
            raise RecipeError(f"the evaluation gave decks that nobody asked for: {unasked!r:.200}")
        for name in answer:
            store.put(keys[name], canonical(decks[name], max_bytes=_DECK_LIMIT))
    return decks


def _walk(
    start: list[str], known: Mapping[str, Data], deck_of: Callable[[str], Data | None]
) -> tuple[dict[str, Data], list[str]]:
    """The decks of ``start`` and of all they use, with those known before; and the names that have no deck."""
    decks, absent, queue = dict(known), [], list(start)
    while queue:
        name = queue.pop()
        if name in decks or name in absent:
            continue
        deck = deck_of(name)
        if deck is None:
            absent.append(name)
            continue
        decks[name] = deck
        queue += uses(deck)
    return decks, absent


def _check_sources(name: str, deck: Data, lock: SourceLock) -> None:
    for ref in references(deck):
        if "source" in ref and ref["source"] not in lock.sources:
            raise RecipeError(f"recipe {name}: no source is called {ref['source']!r}", where=f"{name}.py")


def named_files(decks: Mapping[str, Data]) -> set[tuple[str, str]]:
    """Every (recipe, path) that the decks name beside recipes."""
    return {(recipe, ref["file"]) for recipe, deck in decks.items() for ref in references(deck) if "file" in ref}


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


def _deck_key(ground: str, name: str, text: str) -> str:
    return hashlib.sha256(canonical([ground, name, text])).hexdigest()


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
