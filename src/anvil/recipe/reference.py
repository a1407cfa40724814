"""What a step can take in, and what an extender adds to another recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from anvil.errors import RecipeError
from anvil.recipe.values import relative

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Data = dict[str, Any]
Plain = str | int | bool
Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Ref:
    """Something a step can take in: a file, a folder, or another recipe's result. Made by the calls of a Recipe."""

    data: Data

    def __truediv__(self, path: str) -> Ref:
        """The file or folder at ``path`` below this folder."""
        if "path" not in self.data:
            raise RecipeError(f"nothing can be named below {self.data}: only a step's tree or output is a folder")
        below = "/".join(part for part in (self.data["path"], relative(path)) if part)
        return Ref(data={**self.data, "path": below})


@dataclass(frozen=True, kw_only=True)
class Addition:
    """What one recipe adds to a slot of another, as the other receives it.

    by: the recipe that adds it, or several joined by " and " that add the same. name: what is unique in the slot (a
    path, a user, an option). value: plain values. refs: what of the extender's, or of a recipe that it uses, is taken
    in.
    """

    by: str
    slot: str
    name: str
    value: Mapping[str, Plain] = field(default_factory=dict)
    refs: Mapping[str, Ref] = field(default_factory=dict)

    def sound(self, check: Callable[[object], Value], key: str = "") -> Value:
        """The part ``key`` of the value (its name, where ``key`` is "") as ``check`` gives it back.

        What ``check`` (one of ``anvil.recipe.values``) refuses is refused in the name of who added it.
        """
        try:
            return check(self.value.get(key) if key else self.name)
        except RecipeError as error:
            self.refuse(f"its {key} is wrong: {error.message}" if key else error.message, hint=error.hint)

    def ref(self, key: str) -> Ref:
        """The file or folder ``key`` that comes with it."""
        return self.refs[key] if key in self.refs else self.refuse(f"no file or folder called {key!r} comes with it")

    def refuse(self, why: str, *, hint: str = "") -> NoReturn:
        """Refuse it, in the name of who added it."""
        raise AdditionRefused(f"{self.by} adds {self.name!r} to {self.slot}: {why}", self, hint=hint)

    def contradict(self, other: Addition, why: str, *, hint: str = "") -> NoReturn:
        """Refuse two that cannot both be, in both names."""
        message = f"{self.by} and {other.by} contradict each other: {why}"
        if self.by == other.by:
            message = f"{self.by} contradicts itself: {why}"
        raise AdditionRefused(message, self, hint=hint or f"take it out of {self.by} or of {other.by}")

    @property
    def told(self) -> str:
        """Its value in short, for a person."""
        plain = [f"{key} {_short(value)}" for key, value in sorted(self.value.items())]
        taken = [f"{key} {_told(ref.data)}" for key, ref in sorted(self.refs.items())]
        return ", ".join([*plain, *taken])

    def same_as(self, other: Addition) -> bool:
        """Tell whether both say the same. A file of one extender is none of the other's, whatever its name."""
        return self._exact() == other._exact() and self._taken() == other._taken()

    def _exact(self) -> Data:
        return {key: (type(value), value) for key, value in self.value.items()}  # True is no 1

    def _taken(self) -> Data:
        """The references; who named a source or another recipe's result makes no difference."""
        shared = {"use", "source"}
        return {
            name: {key: part for key, part in ref.data.items() if key != "of" or shared.isdisjoint(ref.data)}
            for name, ref in self.refs.items()
        }


class AdditionRefused(RecipeError):
    """An addition that its receiver does not take; ``blame`` is the recipe that must change."""

    def __init__(self, message: str, addition: Addition, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.blame = addition.by.split(" and ", maxsplit=1)[0]


def receive(additions: list[Data]) -> Iterator[Addition]:
    """Additions as the evaluator hands them over: each reference is told whose it is."""
    for data in additions:
        refs = {key: Ref(data={**ref, "of": data["by"]}) for key, ref in data["refs"].items()}
        yield Addition(by=data["by"], slot=data["slot"], name=data["name"], value=data["value"], refs=refs)


def merged(additions: list[Addition]) -> list[Addition]:
    """One of each name; two that say the same are one. Raises AdditionRefused for two that do not, naming both."""
    found: dict[str, Addition] = {}
    for addition in additions:
        before = found.setdefault(addition.name, addition)
        if before is addition:
            continue
        if not before.same_as(addition):
            why = f"{addition.slot} {addition.name!r} is ({before.told}) for one and ({addition.told}) for the other"
            before.contradict(addition, why)
        found[addition.name] = Addition(
            by=f"{before.by} and {addition.by}", slot=before.slot, name=before.name, value=before.value,
            refs=before.refs,
        )  # fmt: skip
    return list(found.values())


def _told(ref: Data) -> str:
    """A reference in short, for a person."""
    if "use" in ref:
        return ":".join(ref["use"]) + (f"/{ref['path']}" if ref["path"] else "")
    return str(ref.get("file") or ref.get("source") or f"{ref['step']}/{ref['path']}") + f" of {ref.get('of')}"


def _short(value: Plain) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
