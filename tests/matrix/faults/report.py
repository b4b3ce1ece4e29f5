"""The table: every case of both implementations side by side, as Markdown for ``docs/_generated``."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .cases import BY_ID, FATES, ROWS, Row, Wanted
from .environment import AWS_SERVICES, DOCKER, IMPLEMENTATIONS, SWEPT

if TYPE_CHECKING:
    from .judge import Figures
    from .mutants import Broken
    from .runner import Result

PERFECT, NAMED, BROKEN, NONE = "✓", "○", "✗", ""
"""As wanted; as good as it can be, with a reason; neither; there is no such case."""
REPORTED = {
    "equal": "=",
    "unknown": "?",
    "stale": "old",
    "false success": "false ✓",
    "false failure": "false ✗",
    "not as asked": "≠",
    "hangs": "hangs",
}
NAMES = {
    "ours": "airflow-resilient",
    "provider": "amazon provider",
    SWEPT: "airflow-resilient, with the sweep",
}
JOB = {
    "runs on": "runs on",
    "well": "has ended well",
    "badly": "has failed",
    "forgotten": "has ended well and is forgotten",
    "badly forgotten": "has failed and is forgotten",
}

SWEEP_TITLE = "With an orphan sweep that runs by itself"
SWEEP_TEXT = (
    "The cases above in which a job may be left running, once more, beside the maintenance DAG of "
    "[Find and cancel orphans](../recipes/find-and-cancel-orphans.md) with `cancel`: here it runs every ten "
    "seconds, and jobs and task instances count as young for five."
)

DOCKER_TITLE = "The same with Docker containers"
DOCKER_TEXT = (
    "Faults that hit a submission, a pause or a cancel, on a fake engine; what AWS throttles, "
    "this engine answers with an error 500. [The kill matrix](kills.md) has more faults, with real "
    "containers, beside the docker provider's operator."
)

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


def short(figures: Figures | Wanted) -> str:
    """Figures in short: made, left, wronged, reported, retries.

    >>> short(Wanted(made=2, retries=1))
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
        if any(row.applies(service, fate) for service in AWS_SERVICES)
    ]


def markdown(results: Sequence[Result], versions: Mapping[str, str], command: str) -> str:
    """Write the whole page."""
    found = cells(results)
    out = [
        "# Fault matrix: the result of every case",
        "",
        f"<!-- made by `{command}`, not by hand -->",
        "",
        f"{len(results)} cases on a real Airflow, with PostgreSQL and a fake AWS, all on one machine: "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ".",
        "Both get the same parameters: `retries=2`, `deferrable=True`, and on ECS `reattach=True`.",
        "[The fault matrix](../faults.md) says how to read the tables, and what cannot be perfect.",
        "",
        "![rows and implementations as a grid](../_static/faults.svg)",
        "",
        "## Summary",
        "",
        *_summary(results),
    ]
    header = [
        "what happens",
        "the job",
        "wanted",
        *(f"{NAMES[i]}, {service.upper()}" for i in IMPLEMENTATIONS for service in AWS_SERVICES),
    ]
    group = ""
    for row, fate in lines():
        if row.group != group:
            group = row.group
            out += ["", f"## {group}", "", *_table_head(header)]
        shown = [
            _cell(found.get((row.id, fate, service, implementation)))
            for implementation in IMPLEMENTATIONS
            for service in AWS_SERVICES
        ]
        out.append(
            "| " + " | ".join([f"{row.what} (`{row.id}`)", JOB[fate], short(row.ideal(fate)), *shown]) + " |"
        )
    return "\n".join([*out, *_with_the_sweep(found), *_with_docker(found), ""])


NOT_ENDED = "it did not come to its end"


def read_page(page: str) -> list[Result]:
    """The results that a page shows, as `markdown` has written them."""
    from .runner import Result

    fates = {words: fate for fate, words in JOB.items()}
    columns: list[tuple[str, str] | None] = []
    results = []
    for line in page.splitlines():
        shown = [cell.strip() for cell in line.strip("|").split("|")]
        if shown[0] == "what happens":
            columns = [_column(header) for header in shown]
        elif (row := re.search(r"\(`([\w-]+)`\)$", shown[0])) and len(shown) == len(columns):
            for column, cell in zip(columns, shown, strict=True):
                if column is not None and (figures := _read_cell(cell)) is not None:
                    result = Result(BY_ID[row[1]], fates[shown[1]], *column, figures)
                    results.append(result if sign(result) == cell[0] else replace(result, note=NOT_ENDED))
    return results


def _column(header: str) -> tuple[str, str] | None:
    """Service and implementation of a column; none: it shows neither, or what another table shows, too."""
    services = {service.upper(): service for service in AWS_SERVICES}
    if header == NAMES["ours"]:
        return DOCKER, "ours"
    first, _, last = header.partition(", ")
    if last == "with the sweep":
        return services[first], SWEPT
    implementations = {NAMES[name]: name for name in IMPLEMENTATIONS}
    return (services[last], implementations[first]) if first in implementations else None


def _read_cell(cell: str) -> Figures | None:
    """The figures of a cell that `_cell` has written."""
    from .judge import Figures

    found = re.fullmatch(
        r"\S (\d+) / (\d+) / (\d+) / (.+) / (\d+)(?:, (\d+) at once)?(?: \(\+(\d+)\))?", cell
    )
    if found is None:
        return None
    made, left, wronged, reported, retries, at_once, by_scheduler = found.groups()
    words = {word: name for name, word in REPORTED.items()}
    return Figures(
        made=int(made),
        left=int(left),
        wronged=int(wronged),
        reported=words[reported],
        retries=int(retries),
        at_once=int(at_once or 1),
        by_scheduler=int(by_scheduler or 0),
    )


def _with_the_sweep(found: Cells) -> list[str]:
    """The cases that may leave a job, without the orphan sweep and with it."""
    columns = [(implementation, service) for service in AWS_SERVICES for implementation in ("ours", SWEPT)]
    header = [
        "what happens",
        "the job",
        *(
            f"{service.upper()}, {'with' if which == SWEPT else 'without'} the sweep"
            for which, service in columns
        ),
    ]
    out = ["", f"## {SWEEP_TITLE}", "", SWEEP_TEXT, "", *_table_head(header)]
    for row, fate in lines():
        if any(row.applies(service, fate) and row.leaves_a_job(service, fate) for service in AWS_SERVICES):
            shown = [
                _cell(found.get((row.id, fate, service, which)))
                if row.applies(service, fate) and row.leaves_a_job(service, fate)
                else ""
                for which, service in columns
            ]
            out.append("| " + " | ".join([f"{row.what} (`{row.id}`)", JOB[fate], *shown]) + " |")
    return out


def _with_docker(found: Cells) -> list[str]:
    """The cases with containers."""
    out = ["", f"## {DOCKER_TITLE}", "", DOCKER_TEXT, ""]
    out += _table_head(["what happens", "the job", "wanted", NAMES["ours"]])
    for row, fate in lines():
        if row.applies(DOCKER, fate):
            shown = [JOB[fate], short(row.ideal(fate)), _cell(found.get((row.id, fate, DOCKER, "ours")))]
            out.append(f"| {row.group}: {row.what} (`{row.id}`) | " + " | ".join(shown) + " |")
    return out


def _cell(result: Result | None) -> str:
    if result is None:
        return ""
    extra = f" (+{result.figures.by_scheduler})" if result.figures.by_scheduler else ""
    once = f", {result.figures.at_once} at once" if result.figures.at_once > 1 else ""
    return f"{sign(result)} {short(result.figures)}{once}{extra}"


def _summary(results: Sequence[Result]) -> list[str]:
    header = [
        "",
        "cases",
        f"as wanted {PERFECT}",
        f"known limit {NAMED}",
        f"neither {BROKEN}",
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
        docker = ", Docker containers" if result.service == DOCKER else ""
        by[NAMES[result.implementation] + docker].append(result)
    for name, mine in by.items():
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
        out.append("| " + " | ".join([name, *map(str, figures)]) + " |")
    return out


def rules_table(rules: Iterable[Broken]) -> list[str]:
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
