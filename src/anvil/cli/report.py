"""What a person reads after a forge: the artifacts, the boot verdicts, or the jam and its mend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anvil.cli import terminal
from anvil.errors import Interrupted
from anvil.microjson.registry import MessageID, message_id

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from anvil.errors import AnvilError
    from anvil.mainframe.jamreport import JamReport
    from anvil.mainframe.outcome import Jam, Outcome
    from anvil.mainframe.settings import Settings


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


def begun(recipe: str, settings: Settings) -> tuple[MessageID, dict[str, Any]]:
    """The first message to a program."""
    data = {"recipe": recipe, "profile": settings.profile, "jobs": settings.jobs}
    return MessageID.FORGE_STARTED, data


def failed(error: AnvilError, took: float) -> Iterator[tuple[MessageID, dict[str, Any]]]:
    """The last messages of a forge that came to no outcome: why, and how it ended."""
    yield message_id(error.message_id), error.as_data()
    verdict = "stopped" if isinstance(error, Interrupted) else "failed"
    yield MessageID.FORGE_ENDED, {"deck": "", "verdict": verdict, "ran": 0, "kept": 0, "ms": round(took * 1000)}


def messages(outcome: Outcome, took: float) -> Iterator[tuple[MessageID, dict[str, Any]]]:
    """The outcome for a program: every artifact and verdict, every jam with its log's end, and how it ended."""
    from anvil.microjson.registry import MessageID

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
    _show_what(jam, line=0)
    _show_log_end(jam)
    if jam.hint:
        print(f"  mend:   {terminal.plain(jam.hint)}")
    print("  more:   anvil jam tells all that is known, and where to look: anvil shell, anvil why")
    print(f"  next:   mend the recipe, then: {jam.command}")


def show_jam_in_full(report: JamReport) -> None:
    """All of it: with the line of the recipe and of the script, the log's telling lines, and the machine."""
    jam = report.jam
    _show_what(jam, line=report.line)
    number, text = report.script_line
    if number:
        print(f"  script: line {number}: {terminal.plain(text)}")
    shown = set(jam.tail)
    if telling := [symptom for symptom in report.symptoms if symptom.text not in shown]:
        print("  likely: these lines of the log")
        for symptom in telling:
            print(f"  {symptom.line:>7} | {terminal.plain(symptom.text)}")
    _show_log_end(jam, telling={symptom.text for symptom in report.symptoms})
    attempts = f", attempt {report.attempts}" if report.attempts > 1 else ""
    limits = f"{terminal.size(report.memory)} of memory and {terminal.seconds(report.wall)}" if report.memory else "-"
    print(f"  card:   {report.op}{attempts}; it may use {limits}")
    free = f"{terminal.size(report.disk_free)} of disk and {terminal.size(report.memory_free)} of memory free now"
    print(f"  here:   {report.jobs} jobs; {free}")
    if jam.hint:
        print(f"  mend:   {terminal.plain(jam.hint)}")
    if jam.log:
        print(f"  next:   anvil jam {jam.card} --log    all that it said")
    if report.op in SHELLED:
        seen = "at the very state of the failure" if report.state_kept else "in the state before its script"
        print(f"          anvil shell {jam.card}    a shell in its cell, {seen}")
    print(f"          anvil why {jam.card}    which of its inputs changed")
    print("          anvil retry    forge on as it is")
    print(f"          {jam.command}    when the recipe is mended")


SHELLED = frozenset({"run", "patch", "unpack", "write", "check"})
"""The operations in whose cells there can be a shell."""


def _show_what(jam: Jam, *, line: int) -> None:
    print(f"\nJAM  {jam.card}: {terminal.plain(jam.message)}")
    if jam.where:
        print(f"  where:  {terminal.plain(jam.where)}")
    print(f"  recipe: {jam.recipe}" + (f", line {line}" if line else ""))
    for text in jam.detail.splitlines():
        print(f"  | {terminal.plain(text)}")


def _show_log_end(jam: Jam, telling: Container[str] = ()) -> None:
    """The log's last lines, the telling ones marked."""
    if not jam.log:
        return
    print(f"  log:    {jam.log}")
    if jam.tail:
        print("  its last lines:")
        for line in jam.tail:
            print(f"  {'>' if line in telling else '|'} {terminal.plain(line)}")
