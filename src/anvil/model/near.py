"""A name that was mistyped, and what was probably meant: one way of saying it, for every kind of name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST = 3
_CLOSE = 0.6
"""How alike two names must be, from 0 to 1 (difflib's ratio): a few letters wrong, missing or too many."""


def nearest(word: str, known: Iterable[str], *, most: int = MOST) -> list[str]:
    """Those of the known names that a person who wrote ``word`` may have meant, likeliest first, at most ``most``.

    Alike but for a few letters, their case and the dashes of an option; or the last part of a name with a path
    ("build" for "kernel/build").
    """
    import difflib  # 10 ms, which only somebody who mistypes waits for

    folded: dict[str, list[str]] = {}
    for name in known:
        folded.setdefault(_bare(name), []).append(name)
    meant = _bare(word)
    close = difflib.get_close_matches(meant, folded, n=most, cutoff=_CLOSE)
    close += [name for name in folded if name not in close and name.rpartition("/")[2] == meant]
    return [name for each in close for name in folded[each]][:most]


def _bare(name: str) -> str:
    return name.lstrip("-").casefold()


def hint(word: str, known: Iterable[str], *, otherwise: str = "", form: str = "{}") -> str:
    """The next step for a mistyped name: "did you mean: …", or ``otherwise`` when none is near.

    form: how a name is written in the sentence, such as "anvil {}".
    """
    found = nearest(word, known)
    return f"did you mean: {', '.join(form.format(name) for name in found)}" if found else otherwise
