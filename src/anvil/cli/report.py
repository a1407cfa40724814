"""What a person reads after a forge: the artifacts, the boot verdicts, or the jam and its mend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anvil.cli import terminal
from anvil.microjson.registry import MessageID

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anvil.mainframe.forge import Jam, Outcome


def show_outcome(outcome: Outcome, took: float) -> None:
    """The artifacts with their sizes and digests, the verdicts, and how much was kept."""
    print()
    for artifact in outcome.artifacts:
        mark = "" if artifact.written else "  (unchanged)"
        print(f"  {terminal.size(artifact.size):>8}  {artifact.sha256[:16]}  {artifact.path}{mark}")
    if outcome.contested:
        print(
            f"\n  {', '.join(outcome.contested)}: OpenZFS (CDDL) is built into Linux (GPL-2.0). You may make and use"
        )
        print("  this; whether you may hand it on is contested. The sidecar says so too.")
    for verdict in outcome.verdicts:
        print(f"\n  boot {verdict.card}: {terminal.plain(verdict.text)}")
    print(f"\n  {outcome.ran} cards run, {outcome.kept} kept, in {terminal.seconds(took)}")


def messages(outcome: Outcome, took: float) -> Iterator[tuple[MessageID, dict[str, Any]]]:
    """The outcome for a program: every artifact and verdict, every jam with its log's end, and how it ended."""
    for artifact in outcome.artifacts:
        data = {
            "path": str(artifact.path),
            "sha256": artifact.sha256,
            "size": artifact.size,
            "written": artifact.written,
        }
        yield MessageID.ARTIFACT_RELEASED, data
    for verdict in outcome.verdicts:
        yield MessageID.BOOT_VERDICT, {"card": verdict.card, "text": verdict.text}
    for jam in outcome.jams:
        yield MessageID.CARD_JAM, {**vars(jam), "tail": list(jam.tail)}
    verdict_word = "jammed" if outcome.jams else "done"
    counts = {"ran": outcome.ran, "kept": outcome.kept, "ms": round(took * 1000)}
    yield MessageID.FORGE_ENDED, {"deck": outcome.deck, "verdict": verdict_word, **counts}


def show_jam(jam: Jam) -> None:
    """What jammed, where, the log's last lines and the next command."""
    print(f"\nJAM  {jam.card}: {terminal.plain(jam.message)}")
    if jam.where:
        print(f"  where: {terminal.plain(jam.where)}")
    print(f"  recipe: {jam.recipe}")
    for line in jam.detail.splitlines():
        print(f"  | {terminal.plain(line)}")
    if jam.log:
        print(f"  log:    {jam.log}")
        if jam.tail:
            print("  its last lines:")
            for line in jam.tail:
                print(f"  | {terminal.plain(line)}")
    if jam.hint:
        print(f"  mend:   {terminal.plain(jam.hint)}")
    print(f"  next:   anvil jam shows this again; mend the recipe, then: {jam.command}")
