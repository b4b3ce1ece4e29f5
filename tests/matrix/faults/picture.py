"""The picture: a grid of rows and implementations; signs show what colours show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .cases import FATES, ROWS
from .environment import AWS_SERVICES, IMPLEMENTATIONS
from .report import BROKEN, JOB, NAMED, NAMES, PERFECT, cells, sign

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .runner import Result

COLOURS = {PERFECT: "#88aacc", NAMED: "#eedd88", BROKEN: "#bb4433"}  # apart in grey, too
LETTERS = {"runs on": "r", "well": "w", "badly": "f", "forgotten": "?", "badly forgotten": "¿"}
MEANING = {
    PERFECT: "as wanted",
    NAMED: "as good as it can be; the reason is named",
    BROKEN: "not as wanted",
}


def draw(results: Sequence[Result], path: Path) -> None:
    """Draw the grid; the suffix of ``path`` says the format."""
    import matplotlib as mpl

    mpl.use("Agg")
    # The same picture each time, and a small one.
    mpl.rcParams.update({"svg.hashsalt": "faults", "svg.fonttype": "none"})
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch, Rectangle

    found = cells(results)
    columns = [(implementation, service) for implementation in IMPLEMENTATIONS for service in AWS_SERVICES]
    wide, high = len(FATES) + 0.6, 1.0
    figure, ax = plt.subplots(figsize=(12.5, 0.205 * (len(ROWS) + 16) + 1))
    y = 0.0
    group = ""
    for row in ROWS:
        if row.group != group:
            group = row.group
            y += 1.5
            ax.text(-0.4, y - 0.55, group, ha="right", va="center", fontsize=8, fontweight="bold")
        ax.text(-0.4, y + 0.45, row.what.replace("`", ""), ha="right", va="center", fontsize=7)
        for number, (implementation, service) in enumerate(columns):
            fates = [fate for fate in FATES if row.applies(service, fate)]
            for place, fate in enumerate(fates):
                mark = sign(found.get((row.id, fate, service, implementation)))
                x = number * wide + place
                box = Rectangle(
                    (x, y), 0.92, high * 0.88, facecolor=COLOURS.get(mark, "white"), edgecolor="white"
                )
                ax.add_patch(box)
                ink = "white" if mark == BROKEN else "black"
                ax.text(x + 0.3, y + 0.45, mark, ha="center", va="center", fontsize=7, color=ink)
                ax.text(x + 0.7, y + 0.47, LETTERS[fate], ha="center", va="center", fontsize=5.5, color=ink)
        y += 1
    for number, (implementation, service) in enumerate(columns):
        ax.text(number * wide, -0.1, f"{NAMES[implementation]}\n{service.upper()}", fontsize=8, va="bottom")
    ax.set_xlim(-22, wide * len(columns))
    ax.set_ylim(y + 0.2, -2)
    ax.axis("off")
    legend = [Patch(color=COLOURS[mark], label=f"{mark}  {text}") for mark, text in MEANING.items()]
    title = "the job: " + ", ".join(f"{letter} {JOB[fate]}" for fate, letter in LETTERS.items())
    figure.legend(handles=legend, loc="lower center", ncols=3, fontsize=8, frameon=False, title=title)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
