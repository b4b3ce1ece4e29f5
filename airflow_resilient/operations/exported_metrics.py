"""What `airflow-resilient export` tells Prometheus: the table of metrics, and their values. Pure functions.

Times are timestamps, not ages: an age would stay fresh while the exporter stands still. Source: "Timestamps,
not time since" in Prometheus' guide to instrumentation.

Labels are bounded: of the values of one metric at most `MAX_SERIES` are shown, and `OTHER` stands for the
rest.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .health import Finding, Kind, Severity
from .recent import Recent

if TYPE_CHECKING:
    from .first_seen import FirstSeen
    from .snapshot import Pool, Snapshot, Waiting

PREFIX = "airflow_resilient_"
MAX_SERIES = 50
MAX_PER_KIND = 20
"""Findings of one kind and severity that are shown by themselves: many of one kind hide none of another."""

OTHER = "other"
"""Label of what is not shown by itself."""

COMPLETE, INCOMPLETE, SILENT, FAILED = "complete", "incomplete", "silent", "failed"
OUTCOMES = (COMPLETE, INCOMPLETE, SILENT, FAILED)
"""What comes of a look: everything was read, something could not be read, there was no answer, or it failed
here."""

Values = Iterable[tuple[tuple[str, ...], float]]


@dataclass(frozen=True)
class Exported:
    """What is exported after a look.

    :param snapshot: ``None``: there was no look yet, or the last one failed here.
    :param findings: of that look.
    :param seen: what was seen until then.
    :param recent: what has run lately.
    :param looks: how many looks there were, by outcome.
    :param requests: how many requests were sent.
    :param answered: when the latest look that had an answer was taken.
    """

    snapshot: Snapshot | None = None
    findings: tuple[Finding, ...] = ()
    seen: FirstSeen | None = None
    recent: Recent = field(default_factory=Recent)
    looks: Mapping[str, int] = field(default_factory=dict)
    requests: int = 0
    answered: float | None = None

    @property
    def silent(self) -> bool:
        """Whether there is nothing to tell of Airflow itself."""
        return self.snapshot is None or bool(self.snapshot.silent)


@dataclass(frozen=True)
class Metric:
    """One metric.

    :param name: without the prefix; a counter's ends with ``_total``.
    :param about: one sentence.
    :param labels: their names.
    :param values: given what is exported, pairs of the labels' values and a number. Without a known value
        there is no pair.
    :param shown: which values are shown by themselves: the largest or the smallest ones.
    :param rest: makes one value of the others.
    :param limit: how many values are shown by themselves.
    :param always: it is known although Airflow has not answered.
    """

    name: str
    about: str
    labels: tuple[str, ...]
    values: Callable[[Exported], Values]
    shown: Callable[[float], float] = math.fabs
    rest: Callable[[Iterable[float]], float] = max
    limit: int = MAX_SERIES
    always: bool = False

    @property
    def full_name(self) -> str:
        """The name as Prometheus shows it."""
        return PREFIX + self.name

    @property
    def is_counter(self) -> bool:
        """Whether it only grows; else it is a gauge."""
        return self.name.endswith("_total")

    def bounded(self, exported: Exported) -> list[tuple[tuple[str, ...], float]]:
        """Its values, at most `limit` of them and one for the rest."""
        if exported.silent and not self.always:
            return []
        ordered = sorted(self.values(exported), key=lambda pair: (-self.shown(pair[1]), pair[0]))
        first: dict[tuple[str, ...], float] = {}
        for labels, value in ordered:
            first.setdefault(labels, value)  # two findings, or processes, may have the same labels
        found = list(first.items())
        few, rest = found[: self.limit], found[self.limit :]
        if rest:
            few.append(((OTHER,) * len(self.labels), self.rest([value for _, value in rest])))
        return few


def _smallest(value: float) -> float:
    return -value


def _oldest(
    name: str,
    about: str,
    labels: tuple[str, ...],
    values: Callable[[Exported], Values],
    *,
    limit: int = MAX_SERIES,
    always: bool = False,
) -> Metric:
    """A metric of moments, the earliest of which count."""
    return Metric(name, about, labels, values, shown=_smallest, rest=min, limit=limit, always=always)


def _of(exported: Exported) -> Snapshot:
    assert exported.snapshot is not None  # noqa: S101 - `Metric.bounded` asks only where there is one
    return exported.snapshot


def _one(value: float | None) -> Values:
    return () if value is None else (((), value),)


# --- the look itself ---


def _up(exported: Exported) -> Values:
    yield (), float(not exported.silent)


def _answered(exported: Exported) -> Values:
    return _one(exported.answered)


def _duration(exported: Exported) -> Values:
    return _one(exported.snapshot.seconds if exported.snapshot else None)


def _requests(exported: Exported) -> Values:
    yield (), exported.requests


def _looks(exported: Exported) -> Values:
    for outcome in OUTCOMES:
        yield (outcome,), exported.looks.get(outcome, 0)


def _info(exported: Exported) -> Values:
    yield (_of(exported).version,), 1.0


# --- findings ---


def _findings(exported: Exported) -> Values:
    counts = Counter(each.kind for each in exported.findings)
    if exported.snapshot is not None:
        yield from (((kind.value,), counts[kind]) for kind in Kind)


def _finding_since(exported: Exported) -> Values:
    shown: Counter[tuple[str, str]] = Counter()
    taken = _of(exported).taken if exported.findings else 0.0
    for each in sorted(exported.findings, key=lambda finding: finding.since or taken):
        group = (each.kind.value, each.severity.value)
        shown[group] += 1
        few = shown[group] <= MAX_PER_KIND
        cause = each.key.split("/")[1] if each.kind is Kind.WAITING else ""
        yield (*group, each.subject if few else OTHER, cause if few else ""), each.since or taken


def _about(kind: Kind) -> Callable[[Exported], Values]:
    """The subjects of the findings of a kind, each as 1."""

    def values(exported: Exported) -> Values:
        return (((each.subject,), 1.0) for each in exported.findings if each.kind is kind)

    return values


def _overdue(exported: Exported) -> Iterator[float]:
    for dag in _of(exported).dags or ():
        if dag.next_due is not None and dag.next_due < _of(exported).taken:
            yield dag.next_due


def _waiting_over_limit(exported: Exported) -> Values:
    counts: Counter[str] = Counter()
    for each in exported.findings:
        if each.kind is Kind.WAITING:
            counts[each.key.split("/")[1]] += each.count
    return (((cause,), float(count)) for cause, count in counts.items())


# --- is it scheduling? ---


def _heartbeats(exported: Exported) -> Values:
    look = _of(exported)
    for each in look.peers if look.peers is not None else look.overall or ():
        if each.heartbeat is not None:
            yield (each.kind, each.hostname), each.heartbeat


def _created(exported: Exported) -> Values:
    return _one(exported.recent.created)


def _first_overdue(exported: Exported) -> Values:
    known = _of(exported).dags is not None
    return _one(min(_overdue(exported), default=None) if known else None)


def _late_dags(exported: Exported) -> Values:
    if _of(exported).dags is not None:
        yield (), sum(each.kind is Kind.RUN_OVERDUE for each in exported.findings)


def _parsed(exported: Exported) -> Values:
    parsed = [dag.parsed for dag in _of(exported).dags or () if dag.parsed is not None]
    return _one(max(parsed, default=None))


def _import_errors(exported: Exported) -> Values:
    problems = _of(exported).import_errors
    return _one(None if problems is None else float(len(problems)))


# --- is anything stuck? ---


def waiting_since(each: Waiting, exported: Exported) -> float:
    """When it began to wait: when it was first seen, or earlier, if Airflow says so."""
    taken = _of(exported).taken
    first = exported.seen.first(f"waiting/{each.key}", taken) if exported.seen is not None else taken
    return first if each.since is None else min(first, each.since)


def _waiting(exported: Exported) -> Values:
    oldest: dict[tuple[str, ...], float] = {}
    for each in _of(exported).waiting or ():
        key = (each.state, each.queue, each.pool)
        since = waiting_since(each, exported)
        oldest[key] = min(since, oldest.get(key, since))
    return oldest.items()


def _states(exported: Exported) -> Values:
    look = _of(exported)
    if look.waiting is not None:
        counts = Counter(each.state for each in look.waiting)
        yield from (((state,), counts[state]) for state in ("scheduled", "queued"))
    if look.running is not None:
        yield ("running",), len(look.running)


def _tightest(exported: Exported) -> list[Pool]:
    """The pools with the fewest open slots."""
    return sorted(_of(exported).pools or (), key=lambda pool: (pool.open, pool.name))[:MAX_SERIES]


_POOL_STATES = ("running", "queued", "scheduled", "deferred")


def _pool_slots(exported: Exported) -> Values:
    for pool in _tightest(exported):
        yield (pool.name, "open"), pool.open
        for state in _POOL_STATES:
            yield (pool.name, state), getattr(pool, state)


def _pool_size(exported: Exported) -> Values:
    for pool in _tightest(exported):
        yield (pool.name,), math.inf if pool.total == -1 else pool.total


def _deferred(exported: Exported) -> Values:
    since = [each.since for each in _of(exported).deferred or () if each.since is not None]
    return _one(min(since, default=None))


def _canaries(exported: Exported) -> Values:
    for leg in _of(exported).legs or ():
        if leg.succeeded is not None:
            yield (leg.dag_id, leg.leg), leg.succeeded


def _requeues(exported: Exported) -> Values:
    if _of(exported).requeues is not None:
        yield (), exported.recent.requeue_count


# --- what is late, what is slow? ---


def _dag_delays(exported: Exported) -> Values:
    dags = exported.recent.dags.items()
    return (((dag,), times.delay) for dag, times in dags if times.delay is not None)


def _dag_durations(exported: Exported) -> Values:
    dags = exported.recent.dags.items()
    return (((dag,), times.duration) for dag, times in dags if times.duration is not None)


def _task_delays(exported: Exported) -> Values:
    tasks = exported.recent.tasks.items()
    return ((task, times.delay) for task, times in tasks if times.delay is not None)


def _task_durations(exported: Exported) -> Values:
    tasks = exported.recent.tasks.items()
    return ((task, times.duration) for task, times in tasks if times.duration is not None)


METRICS = (
    Metric("up", "Whether the latest look has got an answer from Airflow.", (), _up, always=True),
    Metric(
        "look_timestamp_seconds",
        "When the latest look that has got an answer was taken.",
        (),
        _answered,
        always=True,
    ),
    Metric("look_duration_seconds", "How long the latest look took.", (), _duration, always=True),
    Metric("looks_total", "Looks, by what came of them.", ("outcome",), _looks, always=True),
    Metric("requests_total", "Requests sent to Airflow.", (), _requests, always=True),
    Metric("airflow_info", "The version of the API server.", ("version",), _info),
    Metric(
        "findings",
        "What is wrong: findings of each kind.",
        ("kind",),
        _findings,
        rest=sum,
        always=True,
    ),
    _oldest(
        "finding_since_timestamp_seconds",
        "Since when something is wrong.",
        ("kind", "severity", "subject", "cause"),
        _finding_since,
        limit=MAX_PER_KIND * len(Kind) * len(Severity),
        always=True,
    ),
    Metric(
        "heartbeat_timestamp_seconds",
        "The latest heartbeat of each process; on Airflow 2.11 of each kind of process.",
        ("component", "hostname"),
        _heartbeats,
    ),
    Metric("run_created_timestamp_seconds", "When the latest run was created.", (), _created),
    Metric(
        "run_due_timestamp_seconds",
        "Since when a run is due that does not exist, the earliest of all; absent if none is.",
        (),
        _first_overdue,
    ),
    Metric("dags_overdue", "DAGs of which a run is due for too long.", (), _late_dags),
    Metric("dag_parse_timestamp_seconds", "When a DAG file was read the last time.", (), _parsed),
    Metric("import_errors", "DAG files that cannot be imported.", (), _import_errors),
    _oldest(
        "task_waiting_since_timestamp_seconds",
        "Since when the task instance waits that waits longest.",
        ("state", "queue", "pool"),
        _waiting,
    ),
    Metric(
        "tasks_waiting_over_limit",
        "Task instances that have waited for too long.",
        ("cause",),
        _waiting_over_limit,
        rest=sum,
    ),
    Metric("task_instances", "Task instances that have not ended.", ("state",), _states, rest=sum),
    Metric(
        "pool_slots",
        "Slots that are open, in use, or waited for, of the pools with the fewest open ones.",
        ("pool", "state"),
        _pool_slots,
        limit=MAX_SERIES * (1 + len(_POOL_STATES)),
    ),
    Metric("pool_size_slots", "Slots that these pools have.", ("pool",), _pool_size),
    Metric(
        "deferred_since_timestamp_seconds",
        "Since when the task instance is deferred that is longest; absent if none is for long.",
        (),
        _deferred,
    ),
    _oldest(
        "canary_success_timestamp_seconds",
        "When a leg of a canary has succeeded the last time; absent if it has not for long.",
        ("dag_id", "leg"),
        _canaries,
    ),
    Metric(
        "requeues_total",
        "How often Airflow has put a task instance back from queued.",
        (),
        _requeues,
    ),
    Metric(
        "need_by_missed",
        "DAGs that have missed a time by which they are needed.",
        ("dag_id",),
        _about(Kind.NEED_BY_MISSED),
        rest=sum,
    ),
    Metric(
        "dag_schedule_delay_seconds",
        "From the moment at which the latest run was due to its start.",
        ("dag_id",),
        _dag_delays,
    ),
    Metric(
        "dag_run_duration_seconds",
        "From start to end of the latest run that has ended.",
        ("dag_id",),
        _dag_durations,
    ),
    Metric(
        "task_queue_delay_seconds",
        "From the moment at which the latest first try was scheduled to its start.",
        ("dag_id", "task_id"),
        _task_delays,
    ),
    Metric(
        "task_duration_seconds",
        "From start to end of the latest try that has ended.",
        ("dag_id", "task_id"),
        _task_durations,
    ),
)
"""Every metric that is exported."""
