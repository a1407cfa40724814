"""Facts as text: figures with their spread, ratios to the peers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.part import Facts


def text(facts: Facts) -> str:
    """The facts of one part, a line per figure. Everything that is not a summary is a setting or a remark."""
    settings = ", ".join(f"{name} {value}" for name, value in facts.items() if isinstance(value, (int, float)))
    lines = [f"  {settings}"] if settings else []
    for group, summaries in facts.items():
        if not isinstance(summaries, dict) or group == "lacks":
            continue
        lines.append(f"  {group.replace('_', ' ')}:")
        lines += [f"    {name:44} {_summary(value)}" for name, value in summaries.items()]
    lines += [f"  without {name}: {why}" for name, why in facts.get("lacks", {}).items()]
    return "\n".join(lines)


def _summary(value: Facts) -> str:
    spread = f"  ({number(value['min'])} to {number(value['max'])})" if len(value["values"]) > 1 else ""
    return f"{number(value['median']):>9} {value['unit']:3}{spread}"


def number(value: float) -> str:
    """Three figures, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
