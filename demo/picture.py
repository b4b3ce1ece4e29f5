"""The picture: the pool's slots over time, for both runs, on one time scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from demo.slots import lanes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from demo.slots import Span

_COLOURS = {
    "orders": "#4477aa",
    "stock": "#66ccee",
    "rates": "#ccbb44",
    "report": "#aa3377",
    "invoices": "#228833",
}
_KILL = "#cc3311"


@dataclass(frozen=True)
class Panel:
    """One run.

    :param events: what happened from outside: text by seconds since the first sample.
    """

    title: str
    spans: Sequence[Span]
    events: Mapping[float, str]


def draw(panels: Sequence[Panel], slots: int, path: Path) -> None:
    """Draw the panels below each other and save the picture; the suffix of ``path`` says the format."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    waits = [_waiting_rows(panel) for panel in panels]
    ratios = [
        slots * 1.6 + len(rows) * 0.62 + len(panel.events) * 0.5 + 0.4
        for panel, rows in zip(panels, waits, strict=True)
    ]
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(11, 0.34 * sum(ratios) + 1.5), height_ratios=ratios, sharex=True
    )
    longest = max((span.end for panel in panels for span in panel.spans), default=1.0)
    axes[-1].set_xlim(0, longest * 1.01)
    for panel, rows, ax in zip(panels, waits, axes, strict=True):
        _draw_panel(ax, panel, rows, slots, longest / 120)
    axes[-1].set_xlabel("seconds since the first DAG was triggered")
    legend = [Patch(color=colour, label=f"DAG {dag}") for dag, colour in _COLOURS.items()]
    legend.append(Patch(facecolor="#dddddd", edgecolor="#888888", label="deferred: no slot"))
    legend.append(Patch(facecolor="white", edgecolor="#888888", hatch="////", label="wants a slot"))
    figure.legend(handles=legend, loc="lower center", ncols=len(legend), fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.035, 1, 1))
    figure.savefig(path, dpi=110, metadata={"Software": None} if path.suffix == ".png" else None)
    plt.close(figure)


def _waiting_rows(panel: Panel) -> list[str]:
    """Names that need a row of their own below the slots, in the order in which they began to wait."""
    return list(dict.fromkeys(span.name for span in panel.spans if _shown(span)))


def _shown(span: Span) -> bool:
    # Every task instance is "scheduled" for a moment, which the picture leaves out.
    return span.kind == "deferred" or (span.kind == "scheduled" and span.seconds >= 1)


def _draw_panel(ax: Axes, panel: Panel, rows: Sequence[str], slots: int, letter: float) -> None:
    """Draw one run.

    :param rows: names that wait, one row each.
    :param letter: width of a letter in seconds of the time scale.
    """
    colour = {span.name: _COLOURS.get(span.name.split(".")[0], "#777777") for span in panel.spans}
    ticks: dict[float, str] = {}
    for number, lane in enumerate(lanes(span for span in panel.spans if span.kind == "slot")):
        y = -1.6 * number
        ticks[y] = f"slot {number + 1}" if number < slots else ""
        for span in lane:
            ax.barh(y, span.seconds, left=span.start, height=1.3, color=colour[span.name], edgecolor="white")
            if span.seconds > letter * len(_task(span.name)):
                middle = span.start + span.seconds / 2
                ax.text(middle, y, _task(span.name), ha="center", va="center", fontsize=8, color="white")
    for number, name in enumerate(rows):
        y = -1.6 * slots - 0.62 * number
        ticks[y] = _task(name)
        for span in panel.spans:
            if span.name == name and _shown(span):
                wants = span.kind == "scheduled"
                ax.barh(
                    y,
                    span.seconds,
                    left=span.start,
                    height=0.42,
                    color="white" if wants else "#dddddd",
                    edgecolor=colour[name],
                    hatch="////" if wants else None,
                    linewidth=0.8,
                )
    bottom = -1.6 * slots - 0.62 * len(rows) + 0.1
    top = 0.7 + 0.5 * len(panel.events)
    for number, (at, text) in enumerate(sorted(panel.events.items())):
        y = top - 0.5 * number
        ax.plot([at, at], [bottom, y], color=_KILL, linewidth=1, linestyle="--", clip_on=False)
        ax.text(at + letter, y, text, color=_KILL, fontsize=7.5, va="center", ha="left")
    ax.set_yticks(list(ticks), list(ticks.values()), fontsize=7)
    ax.set_ylim(bottom, top + 0.3)
    ax.set_title(panel.title, fontsize=10, loc="left")
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelbottom=True, labelsize=7)


def _task(name: str) -> str:
    return name.split(".", 1)[1]
