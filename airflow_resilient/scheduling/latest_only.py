"""A gate that lets only some runs of a DAG continue: those that are not late, or one in each hour or day.

Airflow's ``LatestOnlyOperator`` compares the clock at the moment when the gate runs with the schedule, so
work before the gate that takes longer than one interval makes it skip *every* run. Here the decision depends
on Airflow's records of the run (when it was due, when it started) and of earlier runs. It never reads the
clock or the timetable, so that a retry decides in the same way.

The decision is `decide`, a pure function; everything else in this module gathers its facts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from ..compat import (
    AirflowSkipException,
    BaseOperator,
    SkipMixin,
    current_context,
    earlier_runs,
    earlier_runs_that_passed,
    sees_earlier_runs,
)
from ..errors import InvalidParameter
from ..parameters import reject, require_choice
from .timezones import checked_zone, zone_of

if TYPE_CHECKING:
    from airflow.sdk import Context


__all__ = [
    "Bucket",
    "Decision",
    "LatestOnlyIntervalOperator",
    "LatestOnlyOperator",
    "Rule",
    "Run",
    "bucket_of",
    "decide",
    "is_latest",
]

SCHEDULED, BACKFILL = "scheduled", "backfill"  # values of DagRunType that are the same on all versions

DAY = timedelta(days=1)

_LONGEST_GAP = timedelta(days=14)
"""Between two runs of a timetable that leaves out weekends and holidays."""

# A Monday: buckets of seven days are the weeks of ISO 8601.
_FIRST_MIDNIGHT = datetime(1, 1, 1)  # noqa: DTZ001 - a reading of the local clock

_UNITS = (("week", 604_800), ("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))

# ----- buckets


@dataclass(frozen=True)
class Bucket:
    """An interval of local time.

    :param start: the reading of the local clock when it begins; without a zone.
    :param fold: 1 when it begins at the second occurrence of that reading, after the clock was set back.
    """

    start: datetime
    fold: int = 0


def bucket_of(moment: datetime, every: timedelta, zone: tzinfo) -> Bucket:
    """Return the bucket that contains a moment.

    A bucket begins whenever the local clock shows a multiple of ``every``, counted from midnight. Buckets
    follow each other without gap or overlap:

    * Where the clock is set forward, the skipped readings are missing: that bucket is shorter, or does not
      exist.
    * Where the clock is set back, repeated hours are two buckets if ``every`` is not longer than the repeated
      interval; a longer bucket becomes longer. So a day of 25 hours has 25 buckets of one hour, but 4 of six
      hours, and one of a day.

    :param moment: aware.
    :param every: divides a day evenly, or is a number of days.
    """
    local = moment.astimezone(zone)
    fold, reading = local.fold, local.replace(tzinfo=None, fold=0)
    latest = _FIRST_MIDNIGHT + (reading - _FIRST_MIDNIGHT) // every * every
    if _comes_twice(reading, zone) and not fold:
        return Bucket(latest)
    if every <= _comes_twice(latest, zone):
        return Bucket(latest, 1)
    # After the clock was set back, a bucket that began shortly before continues until the clock catches up.
    while fold and _comes_twice(latest + every, zone):
        latest += every
    return Bucket(latest)


def _comes_twice(reading: datetime, zone: tzinfo) -> timedelta:
    """By how much the clock is set back around this reading; zero when it occurs once, or never."""
    first, second = (reading.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
    return max((first or timedelta()) - (second or timedelta()), timedelta())


# ----- the decision


@dataclass(frozen=True)
class Rule:
    """The parameters of the gate; see `LatestOnlyIntervalOperator`.

    :param zone: the zone of buckets, and of moments in messages.
    """

    max_lateness: timedelta | None = None
    every: timedelta | None = None
    zone: tzinfo = timezone.utc
    backfill: Literal["skip", "run", "bucket"] = "skip"
    cleared: Literal["run", "recheck"] = "run"
    count: Literal["runs", "passes"] = "runs"

    @property
    def counted(self) -> frozenset[str]:
        """Types of runs that compete for a bucket."""
        return frozenset({SCHEDULED, BACKFILL} if self.backfill == "bucket" else {SCHEDULED})


@dataclass(frozen=True)
class Run:
    """Airflow's record of a DAG run.

    :param kind: its ``run_type``.
    :param due: when it was due to start; ``None`` when it has no logical date.
    :param started: when its first task could be scheduled; ``None`` when that has not happened.
    :param cleared: it was cleared before.
    :param logical_date: by which Airflow sorts runs; ``None``: not known.
    """

    kind: str
    due: datetime | None
    started: datetime | None = None
    cleared: bool = False
    logical_date: datetime | None = None


@dataclass(frozen=True)
class Decision:
    """Whether a run passes, and why.

    :param reason: a sentence for the log.
    """

    passes: bool
    reason: str


def decide(rule: Rule, run: Run, earlier: Iterable[Run]) -> Decision:  # noqa: C901, PLR0911, PLR0912 - a decision reads from top to bottom
    """Decide whether a run passes.

    :param earlier: the earlier runs, latest first; with ``rule.count == "passes"`` only those that have
        passed. Read only as far as needed, and only for ``rule.every``.
    :raises: nothing.
    """
    if run.due is None:
        return Decision(True, f"passed: a run without a logical date ({run.kind}) always passes")
    name = f"run {_format_moment(run.due, rule.zone)}"
    if run.kind == BACKFILL:
        if rule.backfill != "bucket":
            passes = rule.backfill == "run"
            return Decision(
                passes, f"{_verb(passes)}: {name} belongs to a backfill (backfill={rule.backfill!r})"
            )
    elif run.kind != SCHEDULED:
        return Decision(True, f"passed: {name} was not scheduled ({run.kind})")
    elif run.cleared and rule.cleared == "run":
        return Decision(True, f"passed: {name} was cleared (cleared='run')")

    timing = f"{name} {_timing(run, rule)}"
    if _is_late(run, rule, run.started):
        return Decision(False, f"skipped: {timing}")
    if rule.every is None:
        return Decision(True, f"passed: {timing}")

    bucket = bucket_of(run.due, rule.every, rule.zone)
    interval = _format_bucket(bucket, rule.every, run.due, rule.zone)
    for other in earlier:
        if _is_before(other, run, bucket, rule):
            break
        if other.kind not in rule.counted or other.due is None:
            continue
        if bucket_of(other.due, rule.every, rule.zone) != bucket:
            break
        if rule.count == "passes":
            return Decision(
                False,
                f"skipped: {name} is in {interval}, in which run {_format_time(other.due, rule.zone)} has "
                "passed",
            )
        # A run that started too late has not passed. A cleared run may have: its first start is unknown.
        if other.cleared or not _is_late(other, rule, run.started):
            return Decision(
                False,
                f"skipped: {name} is in {interval}, in which run {_format_time(other.due, rule.zone)} came "
                "first",
            )
    first = "the first that passes" if rule.count == "passes" or rule.max_lateness else "the first run"
    return Decision(True, f"passed: {name} is {first} in {interval}")


def _is_before(other: Run, run: Run, bucket: Bucket, rule: Rule) -> bool:
    """Whether no run from `other` on, whose logical dates are earlier, can be due in the bucket.

    There may be thousands of runs that do not count, such as those of a backfill, and each costs a query.
    Runs of the timetable are due in the order of their logical dates. A run that was triggered by hand may be
    due before a scheduled run whose logical date is earlier, by the length of a data interval.
    """
    if other.due is None or run.due is None or rule.every is None:
        return False
    if other.kind in (SCHEDULED, BACKFILL):
        latest = other.due
    else:
        own = run.due - run.logical_date if run.logical_date else timedelta()
        latest = (other.logical_date or other.due) + max(2 * own, _LONGEST_GAP)
    return latest < run.due and bucket_of(latest, rule.every, rule.zone) != bucket


def _is_late(run: Run, rule: Rule, at_least: datetime | None) -> bool:
    """Whether a run started too late.

    :param at_least: its earliest possible start, if it has not started yet.
    """
    started = run.started or at_least
    if rule.max_lateness is None or run.kind == BACKFILL or started is None or run.due is None:
        return False
    return started - run.due > rule.max_lateness


# ----- messages


def _verb(passes: bool) -> str:
    return "passed" if passes else "skipped"


def _format_time(moment: datetime, zone: tzinfo) -> str:
    local = moment.astimezone(zone)
    return local.strftime("%H:%M:%S" if local.second else "%H:%M")


def _format_moment(moment: datetime, zone: tzinfo) -> str:
    local = moment.astimezone(zone)
    return f"{local:%Y-%m-%d} {_format_time(moment, zone)} {local.tzname()}"


def _format_bucket(bucket: Bucket, every: timedelta, moment: datetime, zone: tzinfo) -> str:
    """Name a bucket; its date is left out when it is that of the moment.

    >>> start = datetime(2026, 3, 2, 12, tzinfo=timezone.utc)
    >>> for minutes in (5, 60, 240):
    ...     _format_bucket(Bucket(datetime(2026, 3, 2, 12)), timedelta(minutes=minutes), start, timezone.utc)
    'the 5 minutes from 12:00'
    'the hour that begins at 12:00'
    'the 4 hours from 12:00'
    """
    same_day = bucket.start.date() == moment.astimezone(zone).date()
    clock = "%H:%M:%S" if bucket.start.second else "%H:%M"
    start = bucket.start.strftime(clock if same_day else f"%Y-%m-%d {clock}")
    seconds = every.total_seconds()
    unit, size = next(((unit, size) for unit, size in _UNITS if seconds % size == 0), _UNITS[-1])
    if seconds == size:
        return f"the {unit} that begins at {start}"
    return f"the {seconds / size:g} {unit}s from {start}"


def _timing(run: Run, rule: Rule) -> str:
    """Say when a run started, and how late that is."""
    if run.started is None or run.due is None:
        return "has no recorded start"
    late = run.started - run.due
    same_day = run.started.astimezone(rule.zone).date() == run.due.astimezone(rule.zone).date()
    started = (_format_time if same_day else _format_moment)(run.started, rule.zone)
    lateness = f"{_format_duration(late)} late" if late >= timedelta(seconds=1) else "on time"
    text = f"started at {started}, {lateness}"
    return (
        text if rule.max_lateness is None else f"{text} (max_lateness {_format_duration(rule.max_lateness)})"
    )


def _format_duration(length: timedelta) -> str:
    """Format a duration in its two largest units.

    >>> _format_duration(timedelta(minutes=7, seconds=3)), _format_duration(timedelta(days=1))
    ('7 min 3 s', '1 d')
    """
    seconds = int(length.total_seconds())
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, seconds = divmod(seconds, size)
        if number:
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2]) or "less than 1 s"


# ----- facts


def read_run(dag_run: Any) -> Run:
    """Read the facts from a DAG run as Airflow passes it to tasks.

    A run is due at the end of its data interval, else at its logical date, but not before Airflow may start
    it (``run_after``, 3.x): some timetables wait for a while after the interval has ended.
    """
    logical_date = dag_run.logical_date
    due = getattr(dag_run, "data_interval_end", None) or logical_date
    run_after = getattr(dag_run, "run_after", None)
    return Run(
        kind=str(getattr(dag_run.run_type, "value", dag_run.run_type)),
        due=None if logical_date is None else _plain(max(due, run_after or due)),
        started=None if dag_run.start_date is None else _plain(dag_run.start_date),
        cleared=bool(dag_run.clear_number),
        logical_date=None if logical_date is None else _plain(logical_date),
    )


def _plain(moment: datetime) -> datetime:
    """Convert a moment to the standard library's class; pendulum's, in Airflow 2, subtracts differently."""
    utc = moment.astimezone(timezone.utc)
    return datetime.combine(utc.date(), utc.time(), timezone.utc)


def _decide(rule: Rule, context: Context) -> Decision:
    """Gather the facts, and decide."""

    def earlier() -> Iterator[Run]:
        query = earlier_runs_that_passed if rule.count == "passes" else earlier_runs
        yield from map(read_run, query(context))

    return decide(rule, read_run(context["dag_run"]), earlier())


# ----- parameters


def _rule(
    task: Any,
    *,
    max_lateness: Any,
    every: Any,
    zone: Any,
    backfill: Any,
    cleared: Any,
    count: Any = "runs",
    skip_mode: Any = "self",
) -> Rule:
    """Check all parameters.

    :param task: the task whose ``task_id`` is in error messages.
    :raises InvalidParameter: a parameter is wrong.
    """
    if max_lateness is None and every is None:
        reject(
            task, "max_lateness", None, "at least one of max_lateness and every, such as timedelta(minutes=5)"
        )
    require_choice(task, "backfill", backfill, ("skip", "run", "bucket"))
    require_choice(task, "cleared", cleared, ("run", "recheck"))
    require_choice(task, "count", count, ("runs", "passes"))
    require_choice(task, "skip_mode", skip_mode, ("self", "downstream"))
    if every is None:
        for parameter, value, needs in (("backfill", backfill, "bucket"), ("count", count, "passes")):
            if value == needs:
                reject(task, parameter, value, "every, too, which is the length of a bucket")
    if count == "passes" and skip_mode == "downstream":
        reject(
            task, "count", count, "skip_mode='self', because the task's state records which runs have passed"
        )
    lateness, length = _duration(task, "max_lateness", max_lateness), _duration(task, "every", every)
    if length is not None:
        if length < timedelta(seconds=1) or (DAY % length and length % DAY):
            reject(
                task,
                "every",
                every,
                "a duration that divides a day evenly (1, 2, 3, 4, 6, 8 or 12 hours, 5 or 15 minutes ...) or "
                "whole days; otherwise the last bucket of each local day would be shorter than the others",
            )
        if not sees_earlier_runs():
            reject(
                task,
                "every",
                every,
                "max_lateness alone, or upgrade Airflow: tasks of Airflow 3.0.0 to 3.0.5 cannot query "
                "earlier runs",
            )
    return Rule(lateness, length, _zone(task, zone), backfill, cleared, count)


def _duration(task: Any, parameter: str, value: Any) -> timedelta | None:
    """Check a ``timedelta`` or pendulum ``Duration``."""
    if value is None:
        return None
    wanted = "a timedelta or pendulum Duration longer than zero, such as timedelta(minutes=5)"
    if not isinstance(value, timedelta):
        reject(task, parameter, value, wanted)
    if getattr(value, "months", 0) or getattr(value, "years", 0):
        reject(task, parameter, value, "a number of days: months and years differ in length")
    length = timedelta(seconds=value.total_seconds())
    if length <= timedelta(0):
        reject(task, parameter, value, wanted)
    return length


def _zone(task: Any, value: Any) -> tzinfo:
    """Check a zone, or the name of a zone; UTC by default."""
    try:
        return timezone.utc if value is None else zone_of(value)
    except InvalidParameter as error:
        raise InvalidParameter(f"task {task.task_id!r}: timezone={value!r} is not valid: {error}") from None


def shortest_interval(timetable: Any) -> timedelta | None:
    """The shortest time between two runs of a schedule; ``None`` when it is unknown.

    Reads the arguments of cron and delta timetables (``expression``, ``delta``), on 2.11 with a leading
    underscore, and never calls the timetable.
    """
    delta, expression = (
        getattr(timetable, name, None) or getattr(timetable, f"_{name}", None)
        for name in ("delta", "expression")
    )
    if isinstance(delta, timedelta):
        return delta
    if not isinstance(expression, str):
        return None
    from croniter import croniter  # type: ignore[import-untyped,unused-ignore]

    start = datetime(2026, 1, 1)  # noqa: DTZ001 - no day of it has other than 24 hours
    try:
        fires = croniter(expression, start)
        moments = [fires.get_next(datetime) for _ in range(30)]
    except ValueError:  # a custom timetable, whose expressions are not cron's
        return None
    shortest: timedelta = min(after - before for before, after in pairwise(moments))
    return shortest


def next_due(timetable: Any, due: datetime) -> datetime | None:
    """When the next run of a schedule is due after a run that was due at `due`; ``None`` when it is unknown.

    Reads the arguments of Airflow's timetables, as `shortest_interval` does, and never calls the timetable.

    :param due: aware, in UTC.
    """

    def argument(name: str) -> Any:
        found = getattr(timetable, name, None)
        return getattr(timetable, f"_{name}", None) if found is None else found

    inner = argument("timetables") or ([argument("timetable")] if argument("timetable") else [])
    if inner:  # of several crons, or of assets or time
        return min((found for each in inner if (found := next_due(each, due))), default=None)
    if (dates := argument("event_dates")) is not None:
        return min((_plain(each) for each in dates if _plain(each) > due), default=None)
    if (delta := argument("delta")) is not None:
        return _plain(due + delta)
    if not isinstance(expression := argument("expression"), str):
        return None
    from croniter import croniter

    zone = argument("timezone") or timezone.utc
    zone = zone_of(zone) if isinstance(zone, str) else zone
    try:
        fires = croniter(expression, due.astimezone(zone).replace(tzinfo=None))
        moments = (_plain(fires.get_next(datetime).replace(tzinfo=zone)) for _ in range(100))
        return next((moment for moment in moments if moment > due), None)  # a repeated hour is passed over
    except ValueError:  # a custom timetable, whose expressions are not cron's; or a date that never comes
        return None


# ----- the operators and the function


class LatestOnlyOperator(BaseOperator, SkipMixin):  # type: ignore[misc,unused-ignore]
    """Let the direct downstream tasks run only in the latest run of a schedule.

    A drop-in for Airflow's operator of this name, without a parameter that must be set. It skips the direct
    downstream tasks, whatever their trigger rules, of a run that *started* when the next run was already due,
    by Airflow's record of the run. Airflow's own operator compares the time at which the task runs, so work
    before it that takes longer than an interval makes it skip every run.

    Runs that were not scheduled pass, and so do cleared runs, because a user has decided so. Runs of
    backfills are skipped. A run passes whose next one is unknown: ``@once``, ``@continuous``, a timetable of
    your own without data intervals.

    :param max_lateness: skip runs that started later than this after they were due, instead (``timedelta`` or
        pendulum ``Duration``).
    :return: ids of the direct downstream tasks that may run, as Airflow's operator does.
    :raises InvalidParameter: when the DAG is parsed.

    In a mapped task group the task skips itself, because Airflow ignores there which tasks another one skips
    (verified: ``SkipMixin._set_state_to_skipped`` does nothing in a mapped task instance).
    """

    ui_color = "#e9ffdb"

    def __init__(self, *, max_lateness: timedelta | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_lateness = max_lateness
        _duration(self, "max_lateness", max_lateness)

    def execute(self, context: Context) -> list[str]:
        """Decide, log the reason, and skip or succeed."""
        run = read_run(context["dag_run"])
        allowed = _duration(self, "max_lateness", self.max_lateness) or _until_next(context, run)
        decision = decide(Rule(max_lateness=allowed, zone=_zone(self, context["dag"].timezone)), run, ())
        self.log.info("%s", decision.reason)
        following = sorted(self.get_direct_relative_ids(upstream=False)) if decision.passes else []
        if not decision.passes and self.get_closest_mapped_task_group() is not None:
            raise AirflowSkipException(decision.reason)
        self.skip_all_except(context["ti"], following)
        return following


def _until_next(context: Context, run: Run) -> timedelta | None:
    """The time from when a run was due until the next one is; ``None`` when it is unknown."""
    if run.due is None:
        return None
    if following := next_due(context["dag"].timetable, run.due):
        return following - run.due
    start, end = (getattr(context["dag_run"], f"data_interval_{name}", None) for name in ("start", "end"))
    return _plain(end) - _plain(start) if start and end and end > start else None


class LatestOnlyIntervalOperator(BaseOperator, SkipMixin):  # type: ignore[misc,unused-ignore]
    """Let the tasks after it run only for some runs: those that started in time, or one in each hour or day.

    At least one of ``max_lateness`` and ``every`` is required. With both, the first run of each bucket that
    started in time passes. Runs that were not scheduled (triggered by hand, by another DAG, by assets) and
    runs without a logical date always pass.

    :param max_lateness: skip a run that *started* later than this after it was due (``timedelta`` or pendulum
        ``Duration``). Work before the gate may take any time; of a backlog after an outage, most runs are
        skipped.
    :param every: let one run pass in each interval of local time of this length (a *bucket*): the first that
        is due in it. It must divide a day evenly, or be whole days; weeks begin on Monday.
    :param timezone: the zone of the buckets: the name of a zone or a ``tzinfo``; default: the DAG's zone.
    :param backfill: what happens to runs of backfills: ``"skip"``, ``"run"``, or ``"bucket"``, which counts
        them as scheduled runs (needs ``every``; they cannot be late).
    :param cleared: cleared runs pass (``"run"``, because a user has decided so), or are checked again
        (``"recheck"``), with the time at which they started again. It does not apply to backfills.
        On Airflow 2.11 a clear is recognised only when the run had ended before.
    :param count: what fills a bucket: ``"runs"``, whatever their outcome, so that two runs never pass; or
        ``"passes"``, so that a later run passes when the first one failed before this task. Then two runs can
        pass, if runs overlap and the earlier one reaches this task after the later one;
        ``max_active_runs=1`` prevents that.
    :param skip_mode: ``"self"`` skips this task, and trigger rules decide about its downstream tasks; its
        state records which runs passed. ``"downstream"`` succeeds and skips all direct downstream tasks
        regardless of their trigger rules, as ``LatestOnlyOperator`` does.
    :raises InvalidParameter: when the DAG is parsed.

    A bucket whose first run fails before the gate stays closed with ``count="runs"`` until that run is
    retried or cleared.
    """

    ui_color = "#e9ffdb"

    def __init__(
        self,
        *,
        max_lateness: timedelta | None = None,
        every: timedelta | None = None,
        timezone: str | tzinfo | None = None,
        backfill: Literal["skip", "run", "bucket"] = "skip",
        cleared: Literal["run", "recheck"] = "run",
        count: Literal["runs", "passes"] = "runs",
        skip_mode: Literal["self", "downstream"] = "self",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_lateness = max_lateness
        self.every = every
        self.timezone = timezone
        self.backfill = backfill
        self.cleared = cleared
        self.count = count
        self.skip_mode = skip_mode
        self._check(self._rule())
        if timezone is not None:
            checked_zone(timezone, stacklevel=4)  # warns of names such as "EST"

    def execute(self, context: Context) -> None:
        """Decide, log the reason, and skip or succeed."""
        decision = _decide(self._rule(), context)
        self.log.info("%s", decision.reason)
        if decision.passes:
            return
        if self.skip_mode == "downstream":
            self.skip_all_except(context["ti"], [])
        else:
            raise AirflowSkipException(decision.reason)

    def _rule(self) -> Rule:
        zone = self.timezone
        if zone is None and (dag := self.get_dag()):
            zone = dag.timezone
        return _rule(
            self,
            max_lateness=self.max_lateness,
            every=self.every,
            zone=zone,
            backfill=self.backfill,
            cleared=self.cleared,
            count=self.count,
            skip_mode=self.skip_mode,
        )

    def _check(self, rule: Rule) -> None:
        """Check the parameters that depend on the DAG, if it is known already."""
        if self.skip_mode == "downstream" and self.get_closest_mapped_task_group() is not None:
            # Verified: SkipMixin._set_state_to_skipped does nothing in a mapped task instance.
            reject(
                self,
                "skip_mode",
                self.skip_mode,
                "skip_mode='self': Airflow ignores 'downstream' in a mapped group",
            )
        dag = self.get_dag()
        between = shortest_interval(dag.timetable) if rule.every and dag else None
        if rule.every and between and rule.every < between:
            shortest = _format_duration(between)
            wanted = f"at least {shortest}, the time between two runs: every run would be the first"
            reject(self, "every", self.every, wanted)


def is_latest(
    context: Context | None = None,
    *,
    max_lateness: timedelta | None = None,
    every: timedelta | None = None,
    timezone: str | tzinfo | None = None,
    backfill: Literal["skip", "run", "bucket"] = "skip",
    cleared: Literal["run", "recheck"] = "run",
) -> bool:
    """Whether the run of the current task passes: `LatestOnlyIntervalOperator` as a function.

    For ``@task.short_circuit``, ``@task.branch`` and ``@task.run_if``::

        @task.short_circuit
        def once_an_hour():
            return is_latest(every=timedelta(hours=1))

        @task.run_if(lambda context: is_latest(context, max_lateness=timedelta(minutes=5)))
        @task
        def publish(): ...

    The parameters are the operator's. The decision and its reason are in the task's log.

    :param context: of the task; default: that of the task that runs in this process.
    :raises InvalidParameter: when it is called.
    """
    here = current_context() if context is None else context
    rule = _rule(
        SimpleNamespace(task_id=here["ti"].task_id),
        max_lateness=max_lateness,
        every=every,
        zone=here["dag"].timezone if timezone is None else timezone,
        backfill=backfill,
        cleared=cleared,
    )
    decision = _decide(rule, here)
    logging.getLogger(__name__).info("%s", decision.reason)
    return decision.passes
