"""A gate that lets only some runs of a DAG go on: those that are not late, or one in each hour or day.

Airflow's ``LatestOnlyOperator`` compares the clock at the moment when the gate runs with the schedule, so
work before the gate that takes longer than one interval makes it skip *every* run.  Here the answer follows
from what Airflow has recorded of the run (when it was due, when it started) and of the runs before it.  The
clock is never asked, so that a retry gets the same answer, and neither is the timetable.

The decision is `decide`, a pure function; everything else in this module gathers what it needs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from .compat import (
    AirflowSkipException,
    BaseOperator,
    SkipMixin,
    current_context,
    earlier_runs,
    earlier_runs_that_passed,
    sees_earlier_runs,
)
from .errors import InvalidParameter
from .parameters import reject, require_choice
from .timezones import checked_zone, zone_of

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = [
    "Bucket",
    "Decision",
    "LatestOnlyIntervalOperator",
    "Rule",
    "Run",
    "bucket_of",
    "decide",
    "is_latest",
]

SCHEDULED, BACKFILL = "scheduled", "backfill"  # values of DagRunType that are the same on all versions
DAY = timedelta(days=1)
# A Monday: buckets of seven days are the weeks of ISO 8601.
_FIRST_MIDNIGHT = datetime(1, 1, 1)  # noqa: DTZ001 - a reading of the local clock


# ----- buckets


@dataclass(frozen=True)
class Bucket:
    """A piece of local time.

    :param start: what the local clock shows when it begins; without a zone.
    :param fold: 1 when it begins at the second time the clock shows that, after it was set back.
    """

    start: datetime
    fold: int = 0


def bucket_of(moment: datetime, every: timedelta, zone: tzinfo) -> Bucket:
    """Say in which piece of local time a moment lies.

    A bucket begins whenever the local clock shows a multiple of ``every``, counted from midnight.  Buckets
    follow each other without gap or overlap:

    * Where the clock is set forward, what it does not show is missing: that bucket is shorter, or does not
      exist.
    * Where the clock is set back, hours that come twice are two buckets if ``every`` is not longer than what
      comes twice; a longer bucket gets longer.  So a day of 25 hours has 25 buckets of one hour, but 4 of six
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
    # After the clock was set back, what began shortly before goes on, until the clock has caught up with it.
    while fold and _comes_twice(latest + every, zone):
        latest += every
    return Bucket(latest)


def _comes_twice(reading: datetime, zone: tzinfo) -> timedelta:
    """How far the clock is set back around this reading; zero when it is shown once, or never."""
    first, second = (reading.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
    return max((first or timedelta()) - (second or timedelta()), timedelta())


# ----- the decision


@dataclass(frozen=True)
class Rule:
    """What was asked for; `LatestOnlyIntervalOperator` says what the fields mean.

    :param zone: in which buckets are counted and moments are told.
    """

    max_lateness: timedelta | None = None
    every: timedelta | None = None
    zone: tzinfo = timezone.utc
    backfill: Literal["skip", "run", "bucket"] = "skip"
    cleared: Literal["run", "recheck"] = "run"
    count: Literal["runs", "passes"] = "runs"

    @property
    def counted(self) -> frozenset[str]:
        """Types of runs of which the first in a bucket passes."""
        return frozenset({SCHEDULED, BACKFILL} if self.backfill == "bucket" else {SCHEDULED})


@dataclass(frozen=True)
class Run:
    """What Airflow has recorded of a DAG run.

    :param kind: its ``run_type``.
    :param due: when it was to start; ``None`` when it has no logical date.
    :param started: when its first task could be scheduled; ``None`` when that has not happened.
    :param cleared: it is not its first time.
    """

    kind: str
    due: datetime | None
    started: datetime | None = None
    cleared: bool = False


@dataclass(frozen=True)
class Decision:
    """What becomes of a run, and why.

    :param reason: a sentence for the log.
    """

    passes: bool
    reason: str


def decide(rule: Rule, run: Run, earlier: Iterable[Run]) -> Decision:
    """Say whether a run passes.

    :param earlier: the runs before it, latest first; with ``rule.count == "passes"`` only those that have
        passed.  Read no further than needed, and only for ``rule.every``.
    :raises: nothing.
    """
    if run.due is None:
        return Decision(True, f"passed: a run without a logical date ({run.kind}) always passes")
    name = f"run {_told(run.due, rule.zone)}"
    if run.kind == BACKFILL:
        if rule.backfill != "bucket":
            passes = rule.backfill == "run"
            return Decision(
                passes, f"{_verb(passes)}: {name} belongs to a backfill, and backfill={rule.backfill!r}"
            )
    elif run.kind != SCHEDULED:
        return Decision(True, f"passed: {name} was not scheduled ({run.kind})")
    elif run.cleared and rule.cleared == "run":
        return Decision(True, f"passed: {name} was cleared, and cleared='run'")

    timing = f"{name} {_timing(run, rule)}"
    if _is_late(run, rule, run.started):
        return Decision(False, f"skipped: {timing}")
    if rule.every is None:
        return Decision(True, f"passed: {timing}")

    bucket = bucket_of(run.due, rule.every, rule.zone)
    piece = f"the {_length(rule.every)} from {_told_bucket(bucket, run.due, rule.zone)}"
    for other in earlier:
        if other.kind not in rule.counted or other.due is None:
            continue
        if bucket_of(other.due, rule.every, rule.zone) != bucket:
            break
        if rule.count == "passes":
            return Decision(
                False, f"skipped: {name} is in {piece}, in which run {_time(other.due, rule.zone)} has passed"
            )
        # One that started too late has not passed; one that was cleared may have, who knows when it started.
        if other.cleared or not _is_late(other, rule, run.started):
            return Decision(
                False, f"skipped: {name} is in {piece}, of which run {_time(other.due, rule.zone)} came first"
            )
    first = "the first that passes" if rule.count == "passes" or rule.max_lateness else "the first run"
    return Decision(True, f"passed: {name} is {first} in {piece}")


def _is_late(run: Run, rule: Rule, at_least: datetime | None) -> bool:
    """Whether a run started too late.

    :param at_least: when it has not started by then, that is when it starts at the earliest.
    """
    started = run.started or at_least
    if rule.max_lateness is None or run.kind == BACKFILL or started is None or run.due is None:
        return False
    return started - run.due > rule.max_lateness


# ----- sentences


def _verb(passes: bool) -> str:
    return "passed" if passes else "skipped"


def _time(moment: datetime, zone: tzinfo) -> str:
    local = moment.astimezone(zone)
    return local.strftime("%H:%M:%S" if local.second else "%H:%M")


def _told(moment: datetime, zone: tzinfo) -> str:
    return f"{moment.astimezone(zone):%Y-%m-%d} {_time(moment, zone)} {moment.astimezone(zone).tzname()}"


def _told_bucket(bucket: Bucket, moment: datetime, zone: tzinfo) -> str:
    same_day = bucket.start.date() == moment.astimezone(zone).date()
    clock = "%H:%M:%S" if bucket.start.second else "%H:%M"
    return bucket.start.strftime(clock if same_day else f"%Y-%m-%d {clock}")


def _timing(run: Run, rule: Rule) -> str:
    """Say when a run started and what that means."""
    if run.started is None or run.due is None:
        return "has no recorded start"
    late = run.started - run.due
    same_day = run.started.astimezone(rule.zone).date() == run.due.astimezone(rule.zone).date()
    started = (_time if same_day else _told)(run.started, rule.zone)
    told = f"started {started}, " + (f"{_length(late)} late" if late >= timedelta(seconds=1) else "on time")
    return told if rule.max_lateness is None else f"{told}, allowed {_length(rule.max_lateness)}"


def _length(length: timedelta) -> str:
    """Two units are enough.

    >>> _length(timedelta(minutes=7, seconds=3)), _length(timedelta(hours=1)), _length(timedelta(days=1))
    ('7 min 3 s', '1 h', '1 d')
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
    """Read the facts from a DAG run as Airflow gives it to tasks.

    Due is the end of the data interval, else the logical date, but not before Airflow itself was allowed to
    start the run (``run_after``, 3.x): some timetables wait for a while after the interval has ended.
    """
    logical_date = dag_run.logical_date
    due = getattr(dag_run, "data_interval_end", None) or logical_date
    run_after = getattr(dag_run, "run_after", None)
    return Run(
        kind=str(getattr(dag_run.run_type, "value", dag_run.run_type)),
        due=None if logical_date is None else _plain(max(due, run_after or due)),
        started=None if dag_run.start_date is None else _plain(dag_run.start_date),
        cleared=bool(dag_run.clear_number),
    )


def _plain(moment: datetime) -> datetime:
    """Give a moment as the standard library's; Airflow 2 has pendulum's, whose differences are not ours."""
    utc = moment.astimezone(timezone.utc)
    return datetime.combine(utc.date(), utc.time(), timezone.utc)


def _decide(rule: Rule, context: Context) -> Decision:
    """Gather the facts, and decide."""

    def earlier() -> Iterator[Run]:
        look = earlier_runs_that_passed if rule.count == "passes" else earlier_runs
        yield from map(read_run, look(context))

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

    :param task: whose ``task_id`` an error names.
    :raises InvalidParameter: with what to write instead.
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
                reject(task, parameter, value, "every, too, which says how long a bucket is")
    if count == "passes" and skip_mode == "downstream":
        reject(task, "count", count, "skip_mode='self', because its state tells which run has passed")
    lateness, piece = _duration(task, "max_lateness", max_lateness), _duration(task, "every", every)
    if piece is not None:
        if piece < timedelta(seconds=1) or (DAY % piece and piece % DAY):
            reject(
                task,
                "every",
                every,
                "a duration that divides a day evenly (1, 2, 3, 4, 6, 8 or 12 hours, 5 or 15 minutes ...) or "
                "whole days; otherwise the last piece of each local day would be shorter than the others",
            )
        if not sees_earlier_runs():
            reject(
                task,
                "every",
                every,
                "max_lateness alone, or upgrade: a task of Airflow 3.0.0 to 3.0.5 cannot see earlier runs",
            )
    return Rule(lateness, piece, _zone(task, zone), backfill, cleared, count)


def _duration(task: Any, parameter: str, value: Any) -> timedelta | None:
    """Read a ``timedelta`` or pendulum ``Duration``."""
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
    """Read the name of a zone, or a zone; UTC when there is none."""
    try:
        return timezone.utc if value is None else zone_of(value)
    except InvalidParameter as error:
        raise InvalidParameter(f"task {task.task_id!r}: timezone={value!r} is not valid: {error}") from None


def shortest_interval(timetable: Any) -> timedelta | None:
    """The shortest time between two runs of a schedule; ``None`` where only the timetable itself could tell.

    Reads what cron and delta timetables were made from (``expression``, ``delta``), on 2.11 with a leading
    underscore, and never calls them.
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
    except ValueError:  # somebody's own timetable, whose expressions are not cron's
        return None
    shortest: timedelta = min(after - before for before, after in pairwise(moments))
    return shortest


# ----- the operator, and the function


class LatestOnlyIntervalOperator(BaseOperator, SkipMixin):  # type: ignore[misc,unused-ignore]
    """Let the tasks after it run only for some runs: those that started in time, or one in each hour or day.

    At least one of ``max_lateness`` and ``every`` is needed.  With both, the first run of each bucket that
    started in time passes.  Runs that were not scheduled (by hand, by another DAG, by assets) and runs
    without a logical date always pass.

    :param max_lateness: skip a run that *started* later than this after it was due (``timedelta`` or pendulum
        ``Duration``).  Work before the gate may take as long as it likes; a backlog after an outage is
        thinned.
    :param every: let one run pass in each piece of local time of this length (a *bucket*), the first that is
        due in it.  It must divide a day evenly, or be whole days; weeks begin on Monday.
    :param timezone: in which buckets are counted: the name of a zone or a ``tzinfo``; the DAG's own by
        default.
    :param backfill: what happens to runs of backfills: ``"skip"``, ``"run"``, or ``"bucket"``, which counts
        them as scheduled runs (needs ``every``; they cannot be late).
    :param cleared: runs that were cleared pass (``"run"``: a person decided so), or are judged again
        (``"recheck"``), then by the moment at which they started again.  It does not apply to backfills.
        On Airflow 2.11 a clear is seen only when the run had ended before.
    :param count: what fills a bucket: ``"runs"``, whatever became of them, so that there are never two
        passes; or ``"passes"``, so that a run takes over when the first one failed before this task.  Then
        there can be two passes, if runs overlap and the earlier one comes to this task after the later one;
        ``max_active_runs=1`` rules that out.
    :param skip_mode: ``"self"`` skips this task, and trigger rules decide about those after it; its state
        tells which runs passed.  ``"downstream"`` succeeds and skips all tasks directly after it whatever
        their trigger rule, as ``LatestOnlyOperator`` does.
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
            checked_zone(timezone, stacklevel=4)  # warns of "EST" and the like

    def execute(self, context: Context) -> None:
        """Decide, say why, and skip or not."""
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
        """Check what depends on the DAG, as far as it is known yet."""
        if self.skip_mode == "downstream" and self.get_closest_mapped_task_group() is not None:
            # Verified: SkipMixin._set_state_to_skipped does nothing in a mapped task instance.
            reject(
                self, "skip_mode", self.skip_mode, "skip_mode='self': Airflow ignores it in a mapped group"
            )
        dag = self.get_dag()
        between = shortest_interval(dag.timetable) if rule.every and dag else None
        if rule.every and between and rule.every < between:
            wanted = f"at least {_length(between)}, the time between two runs: each would be the first"
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
    """Say whether the run of the current task passes: `LatestOnlyIntervalOperator` as a function.

    For ``@task.short_circuit``, ``@task.branch`` and ``@task.run_if``::

        @task.short_circuit
        def once_an_hour():
            return is_latest(every=timedelta(hours=1))

        @task.run_if(lambda context: is_latest(context, max_lateness=timedelta(minutes=5)))
        @task
        def publish(): ...

    The parameters are the operator's.  The answer stands in the task's log, with its reason.

    :param context: of the task; that of the task that runs in this process by default.
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
