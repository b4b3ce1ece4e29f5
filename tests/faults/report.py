"""The table: every case of both implementations side by side, as Markdown for ``docs/_generated``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from .rows import FATES, ROWS, Row, Wanted
from .stage import IMPLEMENTATIONS, SERVICES

if TYPE_CHECKING:
    from .broken import Broken
    from .judge import Figures
    from .play import Result

PERFECT, NAMED, BROKEN, NONE = "✓", "○", "✗", ""
"""As wanted; as good as it can be, with a reason; neither; there is no such case."""
REPORTED = {
    "equal": "=",
    "unknown": "?",
    "stale": "old",
    "false success": "false ✓",
    "false failure": "false ✗",
    "not as told": "≠",
    "hangs": "hangs",
}
NAMES = {"ours": "airflow-resilient", "provider": "amazon provider"}
JOB = {
    "runs on": "runs on",
    "well": "has ended well",
    "badly": "has failed",
    "forgotten": "has ended well and is forgotten",
    "badly forgotten": "has failed and is forgotten",
}

Cells = Mapping[tuple[str, str, str, str], "Result"]
"""By id of the row, fate, service and implementation."""


def cells(results: Iterable[Result]) -> Cells:
    """Sort results into the table."""
    return {(r.row.id, r.fate, r.service, r.implementation): r for r in results}


def sign(result: Result | None) -> str:
    """One of the four signs."""
    if result is None:
        return NONE
    if result.perfect:
        return PERFECT
    limit = result.row.limit(result.service, result.fate)
    return NAMED if limit and result.held else BROKEN


def told(figures: Figures | Wanted) -> str:
    """Figures in short: made, left, wronged, reported, retries.

    >>> told(Wanted(made=2, retries=1))
    '2 / 0 / 0 / = / 1'
    """
    shown = (figures.made, figures.left, figures.wronged, REPORTED[figures.reported], figures.retries)
    return " / ".join(map(str, shown))


def lines(rows: Sequence[Row] = ROWS) -> list[tuple[Row, str]]:
    """The table's lines: row and fate."""
    return [
        (row, fate)
        for row in rows
        for fate in FATES
        if any(row.applies(service, fate) for service in SERVICES)
    ]


def markdown(results: Sequence[Result], versions: Mapping[str, str], command: str) -> str:
    """Write the whole page."""
    found = cells(results)
    out = [
        "# What the fault matrix measured",
        "",
        f"<!-- made by `{command}`, not by hand -->",
        "",
        f"{len(results)} cases on a real Airflow, with PostgreSQL and a fake AWS, all on one machine: "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ".",
        "Both got the same parameters: `retries=2`, `deferrable=True`, and on ECS `reattach=True`.",
        "[How to read it](../faults.md) stands on a page of its own, and so does what cannot be perfect.",
        "",
        "![rows and implementations as a grid](../_static/faults.svg)",
        "",
        "## In all",
        "",
        *_summary(results),
    ]
    header = [
        "what happens",
        "the job",
        "wanted",
        *(f"{NAMES[i]}, {service.upper()}" for i in IMPLEMENTATIONS for service in SERVICES),
    ]
    group = ""
    for row, fate in lines():
        if row.group != group:
            group = row.group
            out += ["", f"## {group}", "", *_table_head(header)]
        shown = [
            _cell(found.get((row.id, fate, service, implementation)))
            for implementation in IMPLEMENTATIONS
            for service in SERVICES
        ]
        out.append(
            "| " + " | ".join([f"{row.what} (`{row.id}`)", JOB[fate], told(row.ideal(fate)), *shown]) + " |"
        )
    return "\n".join([*out, ""])


def _cell(result: Result | None) -> str:
    if result is None:
        return ""
    extra = f" (+{result.figures.by_scheduler})" if result.figures.by_scheduler else ""
    once = f", {result.figures.at_once} at once" if result.figures.at_once > 1 else ""
    return f"{sign(result)} {told(result.figures)}{once}{extra}"


def _summary(results: Sequence[Result]) -> list[str]:
    header = [
        "",
        "cases",
        f"as wanted {PERFECT}",
        f"named as impossible {NAMED}",
        f"otherwise {BROKEN}",
        "jobs too many",
        "jobs too few",
        "jobs left",
        "jobs wronged",
        "reported wrongly",
        "retries too many",
        "tries failed by the scheduler",
    ]
    out = _table_head(header)
    by: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by[result.implementation].append(result)
    for implementation, mine in by.items():
        signs = [sign(result) for result in mine]
        more = [result.figures.made - result.row.ideal(result.fate).made for result in mine]
        retries = [result.figures.retries - result.row.ideal(result.fate).retries for result in mine]
        figures = [
            len(mine),
            signs.count(PERFECT),
            signs.count(NAMED),
            signs.count(BROKEN),
            sum(n for n in more if n > 0),
            -sum(n for n in more if n < 0),
            sum(result.figures.left for result in mine),
            sum(result.figures.wronged for result in mine),
            sum(result.figures.reported != result.row.ideal(result.fate).reported for result in mine),
            sum(n for n in retries if n > 0),
            sum(result.figures.by_scheduler for result in mine),
        ]
        out.append("| " + " | ".join([NAMES[implementation], *map(str, figures)]) + " |")
    return out


def rules_told(rules: Iterable[Broken]) -> list[str]:
    """The rules that are broken on purpose, as a table, with the rows that are played."""
    return [
        *_table_head(["the rule that was broken", "rows that were played"]),
        *(
            f"| {rule.rule} | "
            + "; ".join(f"`{row}` ({service.upper()}, {JOB[fate]})" for row, fate, service in rule.rows)
            + " |"
            for rule in rules
        ),
    ]


def _table_head(header: Sequence[str]) -> list[str]:
    return ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
