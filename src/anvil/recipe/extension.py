"""Extending a recipe, and being extended: what one adds, and what comes in by the slots of the other."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from anvil.errors import RecipeError
from anvil.recipe.reference import Addition, Ref, merged, receive
from anvil.recipe.words import Words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anvil.recipe.reference import Plain

Data = dict[str, Any]

_NAME = re.compile(r"[a-z0-9][a-z0-9_.+-]{0,63}")

_received: list[Data] = []
_extenders: list[str] = []


def begin(received: Sequence[Data], extenders: Sequence[str]) -> None:
    """Begin the evaluation of a recipe: what is added to it (``deck.received``), and by whom it is extended."""
    _received[:] = received
    _extenders[:] = extenders


class Extension(Words):
    """The half of a recipe that has to do with other recipes' insides."""

    name: str
    extends: str
    _additions: dict[tuple[str, str, str], Data]
    _slots: dict[str, str]

    def extend(self, recipe: str, slot: str, name: str, value: Mapping[str, Plain | Ref]) -> None:
        """Add to a slot of the recipe that this one extends, or of one that is made with it.

        name: what is unique in the slot: a path, a user, an option. value: by key, plain values (texts, whole numbers,
        True and False), and files or folders of this recipe or of those it uses. The receiving recipe says what it
        takes; see its ``slot`` calls. The words (``Words``) are made of this one.
        """
        if not self.extends:
            raise RecipeError(f"{self.name} extends nothing", hint='say what: Recipe(…, extends="iso")')
        if recipe == self.name:
            raise RecipeError(f"{recipe} cannot add to itself")
        if not _NAME.fullmatch(recipe) or not _NAME.fullmatch(slot) or not name.isprintable():
            raise RecipeError(f"{name!r} cannot be added to {slot!r} of {recipe!r}: these are no names")
        plain = {key: part for key, part in value.items() if not isinstance(part, Ref)}
        for key, part in plain.items():
            if not isinstance(part, str | int | bool):
                raise RecipeError(f"{slot} {name!r}: {key} is a {type(part).__name__}; a file is Recipe.file(…)")
        refs = {key: part.data for key, part in sorted(value.items()) if isinstance(part, Ref)}
        addition = {"recipe": recipe, "slot": slot, "name": name, "value": plain, "refs": refs}
        if self._additions.setdefault((recipe, slot, name), addition) != addition:
            raise RecipeError(f"{slot} {name!r} of {recipe} is added twice, differently")

    def slot(self, name: str, summary: str) -> list[Addition]:
        """What others add to this recipe under ``name``; innermost extender first, in the order they said it.

        summary: for people, what may be added. One of each name comes: two that say the same are one. Raises
        RecipeError, in the extenders' names, for two that do not.
        """
        if not _NAME.fullmatch(name) or name in self._slots:
            raise RecipeError(f"a slot cannot be called {name!r}, or there is one", hint="use a-z, 0-9, _ . + -")
        self._slots[name] = summary
        return merged([addition for addition in receive(_received) if addition.slot == name])

    @property
    def extended(self) -> bool:
        """Whether this recipe is made for another one that extends it."""
        return bool(_extenders)

    def refuse_homeless(self) -> None:
        """Raise RecipeError, in the extender's name, for an addition that no slot has taken."""
        for addition in receive(_received):
            if addition.slot not in self._slots:
                slots = "; ".join(f"{name}: {summary}" for name, summary in sorted(self._slots.items()))
                addition.refuse(f"{self.name} has no such slot", hint=f"slots of {self.name}: {slots or 'none'}")
