"""What `airflow-resilient export` shows a person: what is wrong first, then four answers.

One page without scripts, which refreshes itself. Jinja escapes every name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .exported_metrics import Exported, waiting_since
from .health import summary
from .report import moment, span

if TYPE_CHECKING:
    from .snapshot import Snapshot

ROWS = 10
"""Of each table."""


@dataclass(frozen=True)
class Row:
    """A row: its cells, a value as text, and how long its bar is."""

    cells: tuple[str, ...]
    shown: str
    percent: float


@dataclass(frozen=True)
class Table:
    """A table with a bar in each row.

    :param unit: heading of the values.
    :param empty: what is written where there is no row.
    """

    caption: str
    columns: tuple[str, ...]
    unit: str
    rows: tuple[Row, ...]
    empty: str = "nothing"


@dataclass(frozen=True)
class Section:
    """A question, and the tables that answer it."""

    title: str
    tables: tuple[Table, ...]


def render(exported: Exported, every: float, now: float) -> str:
    """The page.

    :param every: seconds between two looks.
    :param now: seconds since 1970.
    """
    look = exported.snapshot
    return str(
        _template().render(
            every=max(5, round(every)),
            title=summary(look, exported.findings) if look else "Airflow: no look has succeeded",
            about=_about(exported, now),
            findings=exported.findings,
            sections=[] if look is None or look.silent else sections(exported, look, now),
            moment=moment,
            span=span,
            now=now,
        )
    )


def _about(exported: Exported, now: float) -> str:
    if exported.answered is None:
        return f"No look has had an answer until {moment(now)}."
    return (
        f"Looked at {moment(exported.answered)}, {span(now - exported.answered)} ago; "
        f"this page is of {moment(now)}."
    )


def sections(exported: Exported, look: Snapshot, now: float) -> list[Section]:
    """The four answers."""
    recent = exported.recent
    beats = [
        ((each.kind, each.hostname), now - each.heartbeat)
        for each in (look.peers if look.peers is not None else look.overall or ())
        if each.heartbeat is not None
    ]
    overdue = [
        ((dag.dag_id,), now - dag.next_due)
        for dag in look.dags or ()
        if dag.next_due is not None and dag.next_due < now
    ]
    waiting = [
        ((each.name, each.state, each.pool, each.queue), now - waiting_since(each, exported))
        for each in look.waiting or ()
    ]
    pools = [
        (
            (pool.name, f"{pool.occupied} of {pool.total}", str(pool.scheduled)),
            100.0 * pool.occupied / pool.total,
        )
        for pool in look.pools or ()
        if pool.total > 0
    ]
    running = [((each.name,), now - each.since) for each in look.running or () if each.since is not None]
    return [
        Section(
            "Is it scheduling?",
            (
                _ages("Latest heartbeats", ("process", "host"), beats),
                _ages("Runs that are due and do not exist", ("DAG",), overdue, empty="none"),
            ),
        ),
        Section(
            "What is the delay?",
            (
                _ages(
                    "From the moment the latest run of a DAG was due to its start",
                    ("DAG",),
                    [((dag,), times.delay) for dag, times in recent.dags.items()],
                ),
                _ages(
                    "From the moment a task instance was queued to its start",
                    ("DAG", "task"),
                    [(task, times.delay) for task, times in recent.tasks.items()],
                ),
            ),
        ),
        Section(
            "What is slowest?",
            (
                _ages(
                    "Latest run of a DAG that has ended",
                    ("DAG",),
                    [((dag,), times.duration) for dag, times in recent.dags.items()],
                ),
                _ages(
                    "Latest try of a task that has ended",
                    ("DAG", "task"),
                    [(task, times.duration) for task, times in recent.tasks.items()],
                ),
                _ages("Runs now, for longest", ("task instance",), running),
            ),
        ),
        Section(
            "Is anything stuck?",
            (
                _ages("Waits, for longest", ("task instance", "state", "pool", "queue"), waiting),
                _table(
                    "Pools, the fullest ones",
                    ("pool", "slots in use", "slots waited for"),
                    "in use",
                    [(cells, value, f"{value:.0f} %") for cells, value in pools],
                    full=100.0,
                ),
            ),
        ),
    ]


def _ages(
    caption: str,
    columns: tuple[str, ...],
    values: Iterable[tuple[tuple[str, ...], float | None]],
    *,
    empty: str = "nothing",
) -> Table:
    """A table of durations, the longest first."""
    known = [(cells, max(0.0, value), span(value)) for cells, value in values if value is not None]
    return _table(caption, columns, "time", known, empty=empty)


def _table(
    caption: str,
    columns: tuple[str, ...],
    unit: str,
    values: Sequence[tuple[tuple[str, ...], float, str]],
    *,
    full: float = 0.0,
    empty: str = "nothing",
) -> Table:
    """The largest values.

    :param full: the value of a whole bar; 0: the largest one.
    """
    largest = sorted(values, key=lambda each: (-each[1], each[0]))[:ROWS]
    whole = full or max((value for _, value, _ in largest), default=0.0) or 1.0
    rows = tuple(
        Row(cells, shown, round(min(100.0, 100.0 * value / whole), 1)) for cells, value, shown in largest
    )
    return Table(caption, columns, unit, rows, empty)


@cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(Path(__file__).with_suffix(".html").read_text("utf-8"))
