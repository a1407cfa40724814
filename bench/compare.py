"""Two results side by side: what a change did to each ratio, and on the same machine to each figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.show import number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.part import Facts

SAME = ("cpu", "cores", "kernel", "python")
"""What must agree for times to be compared; ratios to a peer of the same run can be compared across machines."""


def text(old: Facts, new: Facts) -> str:
    """A line per number that is in both results: old, new, and new over old."""
    differing = [name for name in SAME if old["machine"].get(name) != new["machine"].get(name)]
    lines = [f"{result['machine']['commit'][:12]} {result['machine']['date']}" for result in (old, new)]
    lines = [f"old: {lines[0]}", f"new: {lines[1]}"]
    if differing:
        lines.append(f"not the same machine ({', '.join(differing)}): only ratios are compared")
    for part in old["parts"]:
        if part in new["parts"]:
            lines += ["", f"{part}:", *_rows(old["parts"][part], new["parts"][part], ratios_only=bool(differing))]
    return "\n".join(lines)


def _rows(old: Facts, new: Facts, *, ratios_only: bool) -> Iterator[str]:
    settings = {name for name, value in old.items() if isinstance(value, (int, float)) and new.get(name) != value}
    if settings:
        yield f"  not measured alike: {', '.join(sorted(settings))}"
        return
    for group, summaries in old.items():
        if not isinstance(summaries, dict) or group == "lacks" or (ratios_only and group != "ratios"):
            continue
        yield f"  {group.replace('_', ' ')}:"
        for name, before in summaries.items():
            if (after := new.get(group, {}).get(name)) is not None:
                yield f"    {name:44} {_row(before, after)}"


def _row(before: Facts, after: Facts) -> str:
    apart = before["max"] < after["min"] or after["max"] < before["min"]
    change = f"x {after['median'] / before['median']:.2f}" if before["median"] else "-"
    remark = "" if apart or len(before["values"]) < 2 else "  (the spreads overlap)"
    return f"{number(before['median']):>9} -> {number(after['median']):>9} {before['unit']:3} {change:>7}{remark}"
