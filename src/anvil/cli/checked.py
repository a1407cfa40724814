"""What a person reads after a check: whether both makings are the same, and file by file where they are not."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from anvil.cli import report, terminal
from anvil.microjson.registry import MessageID

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anvil.mainframe.check import Checked
    from anvil.mainframe.check_compare import Difference

_SHORT = 16  # digits of a digest that are shown


def show(found: Checked, took: float) -> None:
    """Every artifact in both makings, what differs, what was varied, and the verdict."""
    for jam in found.first.jams or found.jams:
        report.show_jam(jam)
    if found.jams:
        print("\n  this card jammed in the second making alone: it depends on something that was varied")
        print(f"  there:  anvil jam --home {shlex.quote(found.home)}")
    if found.first.jams:
        return
    print()
    for artifact in found.artifacts:
        same = artifact.sha256 == artifact.second
        digests = artifact.sha256 if same else f"{artifact.sha256[:_SHORT]} / {artifact.second[:_SHORT]}"
        print(f"  {'same   ' if same else 'DIFFERS'}  {terminal.size(artifact.size):>8}  {artifact.name}  {digests}")
    causes = [each for each in found.differences if each.cause]
    _show_all("\n  what began it (the same went in, something else came out):", causes)
    _show_all("\n  what followed:", [each for each in found.differences if not each.cause])
    for name, path in found.told:
        print(f"  diffoscope: {terminal.plain(name)}: {path}")
    for title, words in (("varied", found.varied), ("not varied", found.same)):
        for number, word in enumerate(words):
            print(f"  {f'{title}:' if number == 0 else '':<12}{word}")
    _verdict(found, took)


def _verdict(found: Checked, took: float) -> None:
    count = f"{found.cards} cards, {found.layers} trees and outputs with {found.files} files compared"
    if found.home:
        print(f"\n  the second making lies in {found.home}")
        print("  it is there until the next check, or until anvil vault gc finds it old")
    if found.ok:
        print(f"\n  made twice, the same in every byte: {count}, in {terminal.seconds(took)}")
    elif found.differences:
        cards = len({each.card for each in found.differences})
        print(f"\n  {cards} cards differ, {len(found.differences)} differences: {count}, in {terminal.seconds(took)}")


def _show_all(title: str, differences: Sequence[Difference]) -> None:
    if differences:
        print(title)
    last = ""
    for each in differences:
        place = f"{each.card} /{each.tree}" if each.tree != "artifact" else each.card
        if place != last:
            print(f"    {terminal.plain(place)}")
            last = place
        print(f"      {terminal.plain(' : '.join(each.path))}  {terminal.plain(difference_words(each))}")
        for mark, line in zip("-+", each.lines, strict=False):
            print(f"        {mark} {terminal.plain(line)}")


def difference_words(each: Difference) -> str:
    """What is different, in a few words."""
    one, two = each.sizes
    match each.what:
        case "bytes":
            sizes = terminal.size(one) if one == two else f"{one} and {two} bytes"
            return f"{sizes}, {each.first[:_SHORT]} / {each.second[:_SHORT]}, from byte {each.offset} on"
        case "only first" | "only second":
            return f"{each.what} ({each.first})"
        case "more":
            return f"and {each.first} more"
        case "unopened":
            return f"could not be opened: {each.first}"
        case _:
            return f"{each.what}: {each.first} / {each.second}"


def messages(found: Checked, took: float) -> Iterator[tuple[MessageID, dict[str, Any]]]:
    """The outcome for a program: jams, every difference, and the verdict with all artifacts."""
    for jam in found.first.jams or found.jams:
        yield MessageID.CARD_JAM, {**vars(jam), "tail": list(jam.tail)}
    for each in found.differences:
        yield MessageID.DIFFERENCE, each.as_data()
    yield (
        MessageID.CHECK_ENDED,
        {
            "same": found.ok,
            "artifacts": [vars(each) for each in found.artifacts],
            "differences": len(found.differences),
            "varied": list(found.varied),
            "not_varied": list(found.same),
            "diffoscope": [list(pair) for pair in found.told],
            "home": found.home,
            "cards": found.cards,
            "layers": found.layers,
            "files": found.files,
            "ms": round(took * 1000),
        },
    )
