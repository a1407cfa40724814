"""In what two forges, or two artifacts, differ: inputs, cards, sizes, kernel options, and every file inside.

A forge is named by its number, by last or last~1, or by its id (anvil forges lists them), an artifact by its file or
its sha256. Archives and images are opened in cells, as the output gate opens them; --quick leaves that out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anvil.cli import options, outline, terminal
from anvil.cli.checked import difference_words
from anvil.cli.commands.why import change_lines, change_words
from anvil.cli.progress import Progress
from anvil.mainframe.inside import Inside
from anvil.mainframe.lookup import Pinned
from anvil.mainframe.services import Services
from anvil.mainframe.sides import compare, side

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from anvil.mainframe.check_compare import Difference
    from anvil.mainframe.sides import Product, Side, Sides

EXAMPLE = "anvil diff last~1 last\n  anvil diff old/anvilos-phase2.iso build_artifacts/anvilos-phase2.iso"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    parser.add_argument("one", metavar="A", help="a forge, or an artifact's file or sha256")
    parser.add_argument("two", metavar="B", help="the other")
    parser.add_argument("--quick", action="store_true", help="do not look into the artifacts")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options.add_home(parser)


def run(args: argparse.Namespace) -> int:
    """Print the differences. 0: there is none. 1: there is."""
    progress = Progress(stopped="stopped; not everything was compared", quiet=args.json)
    with progress, Services(options.settings(args)) as services, services.vault.generations.steady():
        found = compare(services, side(services, args.one), side(services, args.two), Pinned(services))
        inside = Inside(services=services, found=found, pause=lambda: progress.tell("comparing"))
        files = [] if args.quick else list(inside.run())
        progress.clear()
    if args.json:
        import json

        print(json.dumps(_data(found, files), indent=2))
    else:
        for line in _told(found, files):
            print(line)
    return 1 if _differs(found) else 0


def _differs(found: Sides) -> bool:
    return bool(
        found.inputs or found.options or [row for row in found.cards if not row.same]
        or [1 for one, two in found.products.values() if not one or not two or one.sha256 != two.sha256]
    )  # fmt: skip


def _data(found: Sides, files: Sequence[tuple[str, Difference]]) -> dict[str, Any]:
    return {
        "a": _side(found.one),
        "b": _side(found.two),
        "same": not _differs(found),
        "inputs": [{"card": card, **change.as_data()} for card, change in found.inputs],
        "cards": [
            {"card": row.card, "states": list(row.states), "seconds": list(row.seconds), "same": row.same}
            for row in found.cards
        ],
        "cards_alike": found.alike,
        "artifacts": [
            {"name": name, "a": _product(one), "b": _product(two)} for name, (one, two) in found.products.items()
        ],
        "options": [
            {"file": file, "name": name, "a": before, "b": after} for file, name, before, after in found.options
        ],
        "files": [{"artifact": name, **each.as_data()} for name, each in files],
    }


def _side(each: Side) -> dict[str, Any]:
    return {"label": each.label, "began": each.began, "seconds": each.seconds, "verdict": each.verdict}


def _product(product: Product | None) -> dict[str, Any] | None:
    return None if product is None else {"sha256": product.sha256, "size": product.size, "kind": product.kind}


def _told(found: Sides, files: Sequence[tuple[str, Difference]]) -> Iterator[str]:
    for mark, each in (("A", found.one), ("B", found.two)):
        took = f", {each.verdict}, {terminal.seconds(each.seconds)}" if each.verdict else ""
        yield from outline.filled(f"{mark}  {terminal.plain(each.label)}{took}", rest="   ")
    yield from _title("inputs", [line for card, change in found.inputs for line in _input(card, change)])
    yield from _title("cards", list(_cards(found)))
    yield from _title("artifacts", [line for name in found.products for line in _sizes(name, *found.products[name])])
    yield from _title("options", list(_options(found)))
    yield from _title("files", [line for _, each in files for line in _file(each)])
    if not _differs(found):
        yield from outline.filled("nothing is different", first="  ")


def _title(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield ""
        yield title
        yield from lines


def _input(card: str, change: Any) -> Iterator[str]:
    head = f"{card}: " if card and change.what != "script" else ""
    yield from outline.filled(head + change_words(change), first="  - ", rest="    ")
    yield from change_lines(change, "    ")


def _cards(found: Sides) -> Iterator[str]:
    for row in found.cards:
        one, two = (
            f"{state or 'absent'} {terminal.seconds(seconds) if state == 'ran' else ''}".rstrip()
            for state, seconds in zip(row.states, row.seconds, strict=True)
        )
        mark = "same" if row.same else "other"
        yield from outline.filled(f"{mark:<5} {row.card}: {one} / {two}", first="  ", rest="        ")
    if found.alike:
        yield f"  {found.alike} more the same, kept"


def _sizes(name: str, one: Product | None, two: Product | None) -> Iterator[str]:
    if one and two and one.sha256 == two.sha256:
        yield from outline.filled(f"same  {name}: {terminal.size(one.size)}", first="  ", rest="        ")
        return
    sizes = " -> ".join(f"{each.size} bytes" if each else "absent" for each in (one, two))
    more = f" ({two.size - one.size:+d})" if one and two else ""
    yield from outline.filled(f"other {name}: {sizes}{more}", first="  ", rest="        ")


def _options(found: Sides) -> Iterator[str]:
    last = ""
    for file, name, before, after in found.options:
        if file != last:
            yield from outline.filled(file, first="  ", rest="    ")
            last = file
        text = f"{name}: {before or 'absent'} -> {after or 'absent'}"
        yield from outline.filled(terminal.plain(text), first="    ", rest="      ")


def _file(each: Difference) -> Iterator[str]:
    text = f"{' : '.join(each.path)}: {difference_words(each)}"
    yield from outline.filled(terminal.plain(text), first="  ", rest="    ")
    for mark, line in zip("-+", each.lines, strict=False):
        yield outline.cut(f"    {mark} {terminal.plain(line)}", outline.width())
