"""Why a card runs: the very input that changed since its last result, by name and digest, down to what began it.

Of a card that is kept it tells why it ran the last time. Without a card: all that would run for a reason of their own;
when nothing would, those that the last forge ran. Nothing is run, and nothing is guessed: what went into a card is
noted with its key when the card is run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anvil.cli import options, outline, terminal
from anvil.errors import UsageError
from anvil.mainframe.forge import Forge, Quiet
from anvil.mainframe.history import Scope
from anvil.mainframe.services import Services
from anvil.mainframe.why import Explainer, Reason
from anvil.microjson.codec import parse_canonical
from anvil.model.near import nearest

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from anvil.mainframe.difference import Change
    from anvil.mainframe.graph import Graph
    from anvil.mainframe.settings import Settings
    from anvil.mainframe.why import Why

EXAMPLE = "anvil why kernel/build\n  anvil why"

_SHORT = 16  # digits of a digest that are shown
_MOST_FORGES = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    parser.add_argument("card", nargs="?", default="", help="RECIPE/STEP, as anvil plan shows it")
    parser.add_argument(
        "--recipe", default="", metavar="RECIPE", help="what would be forged (default: what this project forged last)"
    )
    options.add_forge(parser, output=False, recipe=False)
    parser.add_argument("--json", action="store_true", help="print the reasons as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the reasons. 0, also when nothing changed; 2 for a card that there is not."""
    settings = options.settings(args)
    recipe = args.recipe or _usual(settings, args.card)
    with Forge(settings, Quiet(), stopped=lambda: False).planned(recipe) as (services, graph, plan):
        if args.card:
            _refuse_unknown(args.card, recipe, graph)
        scope = Scope(db=services.db, recipe=recipe, profile=settings.profile, project=str(settings.project or ""))
        explainer = Explainer(services=services, graph=graph, plan=plan, scope=scope)
        found = [explainer.why(args.card)] if args.card else explainer.all()
    if args.json:
        import json

        print(json.dumps({"recipe": recipe, "cards": [why.as_data() for why in found]}, indent=2))
        return 0
    for number, why in enumerate(found):
        if number:
            print()
        for line in _told(why):
            print(line)
    if not found:
        print(f"  nothing of {recipe} would run, and no forge of it is on record")
    return 0


def _usual(settings: Settings, card: str) -> str:
    """The recipe that was forged last with this project and profile; a card's own where there is none, else iso."""
    with Services(settings) as services:
        for forge in services.db.forges(_MOST_FORGES):
            machine = parse_canonical(forge.machine)
            here = (machine.get("profile", ""), machine.get("project", ""))
            if here == (settings.profile, str(settings.project or "")):
                return forge.recipe
        own = card.partition("/")[0]
        return own if own in services.book.paths else "iso"


def _refuse_unknown(card: str, recipe: str, graph: Graph) -> None:
    if card in graph.nodes:
        return
    near = nearest(card, graph.nodes)
    own = card.partition("/")[0]
    hint = f"did you mean: {', '.join(near)}" if near else f"anvil plan {recipe} --all shows all"
    if own in {node.recipe for node in graph.nodes.values()} and not near:
        hint = "its cards: " + ", ".join(name for name, node in graph.nodes.items() if node.recipe == own)
    raise UsageError(f"{recipe} has no card called {card!r}", hint=hint)


# ---- in words


def _told(why: Why) -> Iterator[str]:
    """The card, what changed for it, and for what other cards give it the way down to what began that."""
    verb = {"kept": "is kept", "run": "runs", "may run": "may run", "ran": "ran"}[why.fate]
    place = f" in {why.now}" if why.now else ""
    yield from outline.filled(f"{why.card} {verb}{place}: {_reason(why)}", rest="  ")
    if why.since and why.reason is not Reason.JAMMED:
        yield from outline.filled(f"beside its result of {why.since}:", first="  ", rest="    ")
    for cause in why.causes:
        yield from outline.filled(change_words(cause.change), first="  - ", rest="    ")
        yield from change_lines(cause.change, "    ")
    roots = [(way, change, end) for way, change, end in why.roots() if len(way) > 1]
    if roots:
        yield "  what began it:"
    for way, change, end in roots:
        yield from outline.filled(" <- ".join(way), first="  - ", rest="      ")
        yield from outline.filled(change_words(change) if change else _reason(end), first="    ", rest="      ")
        yield from change_lines(change, "    ")


def change_lines(change: Change | None, indent: str) -> Iterator[str]:
    """The lines of a change that has some, after an indent."""
    if change is None:
        return
    for line in change.lines:
        yield outline.cut(f"{indent}{terminal.plain(line).expandtabs(4)}", outline.width())


def _reason(why: Why) -> str:
    text = {
        Reason.CHANGED: "what goes into it changed" if why.own else "what is above it changed",
        Reason.JAMMED: "it jammed with the same inputs",
        Reason.NEVER: "it never ran before",
        Reason.FORCED: "it was forced",
        Reason.COLLECTED: "its result is not kept any more",
        Reason.OTHER: "from the same inputs it gave other bytes",
        Reason.UNKNOWN: "what went into it last time is not on record",
        Reason.SAME: "nothing changed",
    }[why.reason]
    if why.reason is Reason.CHANGED and why.fate == "may run" and not any(c.change.known for c in why.causes):
        text = "what other cards give it may change"
    return f"{text} ({terminal.plain(why.note)})" if why.note else text


def change_words(change: Change) -> str:
    """A change in one sentence."""
    after = change.after[:_SHORT] or ("nothing" if change.known else "not known before it has run")
    digests = f"{change.before[:_SHORT] or 'nothing'} -> {after}"
    at = f" at {change.place}" if change.place else ""
    was = f" (it was {terminal.plain(change.was)} before)" if change.was else ""
    match change.what:
        case "script":
            return f"the script of {change.name}: {digests}"
        case "file":
            return f"file {terminal.plain(change.name)}{at}: {digests}{was}"
        case "source":
            return f"source {change.name}{at}: {digests}"
        case "image":
            return f"base image {change.name}: {digests}" if change.after else f"base image {change.name}"
        case "card":
            return f"{terminal.plain(change.path) or 'output'} of {change.name}{at}: {digests}{was}"
        case "texts":
            return "what its recipes declare as their own texts"
        case "setting" if change.lines:
            return f"setting {change.name}: {digests}"
        case _:
            name = f"setting {change.name}" if change.what == "setting" else change.what
            before, now = (terminal.plain(each) or "nothing" for each in (change.before, change.after))
            return f"{name}: {before} -> {now}"
