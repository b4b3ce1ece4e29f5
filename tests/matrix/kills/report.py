"""The table as Markdown for ``docs/_generated``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .cases import IMPLEMENTATIONS, NAMES, ROWS

if TYPE_CHECKING:
    from .cases import Figures
    from .runner import Result


def short(figures: Figures | None) -> str:
    """Figures in short."""
    if figures is None:
        return ""
    false = "" if figures.done else "**false** "
    state = f"{false}{figures.state}, {figures.tries} {'try' if figures.tries == 1 else 'tries'}"
    lines = f"{figures.lost} / {figures.doubled}" if figures.state == "success" and figures.done else "-"
    left = f"{figures.running} / {figures.kept}"
    at_once = f" ({figures.at_once} at once)" if figures.at_once > 1 else ""
    return f"{figures.made}{at_once} · {left} · {state} · {lines}"


def table(results: Iterable[Result]) -> str:
    """The whole table."""
    found = {(each.row, each.implementation): each.figures for each in results}
    head = ["done while the container runs", *(NAMES[name] for name in IMPLEMENTATIONS)]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in ROWS:
        cells = [row.what, *(short(found.get((row.id, name))) for name in IMPLEMENTATIONS)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
