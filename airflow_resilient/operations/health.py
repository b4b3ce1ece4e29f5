"""What is wrong with an Airflow, since when, why, and what to do next. Pure functions.

`diagnose` takes a look (`snapshot`), what earlier looks saw (`first_seen`) and the limits, and returns
findings. What could not be read is a finding, too: unknown is not well.

One cause is one finding: a scheduler that is gone explains every run that is overdue, so these are not listed
beside it.
"""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from ..core.needs import EXECUTOR_LEG, QUEUE_LEG, TRIGGERER_LEG, Canary
from .mwaa import describe_command, is_mwaa, step_there
from .report import counted, moment, some, span
from .snapshot import Waiting
from .why_waiting import Late, WaitingFacts, Why, explain, why_waiting

if TYPE_CHECKING:
    from .first_seen import FirstSeen
    from .limits import Limits
    from .snapshot import Component, Dag, Leg, Run, Snapshot


class Severity(Enum):
    """How soon somebody must act."""

    PAGE = "page"
    """Now: runs are late, or will be."""
    TICKET = "ticket"
    """In working hours."""
    UNKNOWN = "unknown"
    """Whether somebody must is not known: find that out."""


class Kind(Enum):
    """What is wrong."""

    API_SILENT = "api-silent"
    LOGIN_REFUSED = "login-refused"
    NOT_SHOWN = "not-shown"
    DATABASE_UNHEALTHY = "database-unhealthy"
    HEARTBEAT_LOST = "heartbeat-lost"
    PEER_LOST = "peer-lost"
    NOT_SCHEDULING = "not-scheduling"
    RUN_OVERDUE = "run-overdue"
    RUN_NOT_STARTED = "run-not-started"
    NEVER_RUNS_AGAIN = "never-runs-again"
    WAITING = "waiting"
    DEFERRED_TOO_LONG = "deferred-too-long"
    NO_TRIGGERER = "no-triggerer"
    CANARY_LATE = "canary-late"
    NOT_PARSED = "not-parsed"
    DAGS_VANISHED = "dags-vanished"
    IMPORT_ERROR = "import-error"
    NEED_BY_MISSED = "need-by-missed"
    NEED_UNREADABLE = "need-unreadable"
    REQUEUED = "requeued"
    VERSION_SKEW = "version-skew"
    CLOCK_SKEW = "clock-skew"
    MEMORY_LOST = "memory-lost"


BLIND = (Kind.API_SILENT, Kind.LOGIN_REFUSED, Kind.NOT_SHOWN, Kind.NEED_UNREADABLE, Kind.MEMORY_LOST)
"""Kinds of finding beside which others may be hidden."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, or unknown.

    :param subject: what it is about: a DAG, a pool, a component …
    :param since: in seconds since 1970, as far as it is known.
    :param evidence: what was seen.
    :param cause: why it is so, as far as that is known.
    :param next_step: what to do: where possible a command.
    :param key: stays the same while it lasts.
    :param count: of task instances, legs, runs or DAGs that it is about.
    """

    kind: Kind
    subject: str
    severity: Severity
    since: float | None
    evidence: str
    cause: str
    next_step: str
    key: str
    count: int = 1

    def row(self) -> dict[str, Any]:
        """The finding as JSON values."""
        return {
            "kind": self.kind.value,
            "subject": self.subject,
            "severity": self.severity.value,
            "since": self.since,
            "evidence": self.evidence,
            "cause": self.cause,
            "next_step": self.next_step,
            "key": self.key,
            "count": self.count,
        }


def diagnose(
    snapshot: Snapshot, seen: FirstSeen, limits: Limits, now: float
) -> tuple[list[Finding], FirstSeen]:
    """Say what is wrong; see `diagnosis`.

    :return: the findings, the most urgent ones first, and what to give to the next call.
    """
    made = diagnosis(snapshot, seen, limits, now)
    return made.findings, made.seen


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong, and what is behind it.

    :param findings: the most urgent ones first.
    :param seen: what to give to the next call.
    :param late: every task instance that has waited too long; empty where nothing is scheduled at all.
    :param facts: by which `late` was judged.
    :param scheduled: a scheduler is known to be alive, and is not known to stand still.
    """

    findings: list[Finding]
    seen: FirstSeen
    late: tuple[Late, ...]
    facts: WaitingFacts
    scheduled: bool


def diagnosis(snapshot: Snapshot, seen: FirstSeen, limits: Limits, now: float) -> Diagnosis:
    """Say what is wrong, and what is behind it. Times in it are by our clock.

    :param seen: what earlier looks saw; an empty one, if there were none.
    :param now: in seconds since 1970.
    """
    ahead, seen = snapshot.clock_ahead or 0.0, seen.unless_broken(now)
    look = _Look(in_our_time(snapshot, ahead) if abs(ahead) > limits.clock else snapshot, seen, limits, now)
    found = list(look.findings())
    if is_mwaa(snapshot.url):
        found = [replace(each, next_step=step_there(each.next_step, snapshot.url)) for each in found]
    found.sort(key=lambda each: (list(Severity).index(each.severity), each.since or now, each.key))
    alive = {kind: len(each) for kind, each in look.alive().items()} if snapshot.peers is not None else {}
    return Diagnosis(
        found,
        seen.after(look.snapshot, look.marks, alive, now, look.owed),
        tuple(look.late),
        look.facts(),
        scheduled=look.beats(_SCHEDULER) and not any(each.kind is Kind.NOT_SCHEDULING for each in found),
    )


def in_our_time(snapshot: Snapshot, ahead: float) -> Snapshot:
    """A look whose times are by our clock.

    :param ahead: seconds by which the clock of Airflow is ahead.
    """

    def shifted(values: Sequence[Any] | None, *names: str) -> Any:
        if values is None:
            return None
        return tuple(
            replace(
                each,
                **{
                    name: None if getattr(each, name) is None else getattr(each, name) - ahead
                    for name in names
                },
            )
            for each in values
        )

    return replace(
        snapshot,
        overall=shifted(snapshot.overall, "heartbeat"),
        peers=shifted(snapshot.peers, "heartbeat"),
        waiting=shifted(snapshot.waiting, "since", "queued"),
        running=shifted(snapshot.running, "since", "queued"),
        deferred=shifted(snapshot.deferred, "since"),
        runs=shifted(snapshot.runs, "due", "queued", "started", "decided"),
        started=shifted(snapshot.started, "due", "queued", "started", "decided"),
        needed=shifted(snapshot.needed, "queued", "started"),
        ended_runs=shifted(snapshot.ended_runs, "due", "queued", "started", "ended"),
        ended=shifted(snapshot.ended, "since", "queued", "started", "ended"),
        dags=shifted(snapshot.dags, "next_due", "parsed"),
        import_errors=shifted(snapshot.import_errors, "since"),
        legs=shifted(snapshot.legs, "succeeded", "tried"),
    )


_SCHEDULER, _TRIGGERER, _PROCESSOR = "scheduler", "triggerer", "dag_processor"
_TITLES = {_SCHEDULER: "scheduler", _TRIGGERER: "triggerer", _PROCESSOR: "DAG processor"}
_COMMANDS = {
    _SCHEDULER: "airflow scheduler",
    _TRIGGERER: "airflow triggerer",
    _PROCESSOR: "airflow dag-processor",
}
_NO_RUNS = (Kind.RUN_OVERDUE, Kind.RUN_NOT_STARTED, Kind.NEVER_RUNS_AGAIN)
_OF_POOLS = (
    Why.POOL_MISSING,
    Why.POOL_NEGATIVE,
    Why.POOL_TOO_SMALL,
    Why.GHOSTS,
    Why.POOL_OVERCOMMITTED,
    Why.POOL_FULL,
)
_VITAL = ("health", "dags", "runs")
_FEW = 2  # DAGs that may vanish in any case
_SURE_SECONDS = 60.0  # for which a run is not among the unfinished ones, before it counts as ended


@dataclass
class _Look:
    """One diagnosis: facts that several rules need.

    :ivar marks: keys of what was seen now, for the memory.
    :ivar late: what has waited too long.
    """

    snapshot: Snapshot
    seen: FirstSeen
    limits: Limits
    now: float
    marks: set[str] = field(default_factory=set)
    late: list[Late] = field(default_factory=list)

    def __post_init__(self) -> None:
        look = self.snapshot
        self.dags: dict[str, Dag] = {dag.dag_id: dag for dag in look.dags or ()}
        # On 3.x, a backfill has a limit of its own; on 2.11, its runs count for `max_active_runs`.
        ours = [run for run in look.runs or () if not (look.on_3 and run.backfill)]
        self.unfinished: dict[str, int] = dict(Counter(run.dag_id for run in ours))
        self.running: dict[str, int] = dict(Counter(run.dag_id for run in ours if run.state == "running"))
        if look.database is False:  # then Airflow knows no heartbeat
            self.snapshot = replace(look, overall=None)
        self.partial = {gap.part for gap in look.gaps}
        self.owed = self._owed()
        self.lost = {kind for kind, _, _ in self._lost_components()}
        backs = () if look.silent else (self._scheduler_back(), self._moves_again(), self._answers_again())
        self.back = max(backs, default=0.0)

    def _scheduler_back(self) -> float:
        """Since when a scheduler is there again; 0: it was not gone. What is late gets its time once more."""
        if _SCHEDULER in self.lost:
            self.first("scheduler-gone")
            return 0.0
        known = {"scheduler-gone", "scheduler-back"} & self.seen.marks.keys()
        return self.first("scheduler-back") if known and self.snapshot.overall is not None else 0.0

    def _moves_again(self) -> float:
        """Since when a scheduler that stood still does something again; 0: it did not stand still."""
        stood = self.seen.marks.get("scheduler-stood")
        if stood is not None and (self._last_sign() or 0.0) <= stood:
            self.first("scheduler-stood")
            return 0.0
        known = {"scheduler-stood", "scheduler-moves"} & self.seen.marks.keys()
        return self.first("scheduler-moves") if known else 0.0

    def _answers_again(self) -> float:
        """Since when Airflow answers again, after it was silent for longer than a restart takes."""
        last, looked = self.seen.last, self.seen.looked
        if last is not None and looked is not None and looked - last > self.limits.heartbeat:
            return self.first(f"answers-again/{last:.0f}")
        before = [key for key in self.seen.marks if key.startswith("answers-again/")]
        return self.first(max(before, key=lambda key: self.seen.marks[key])) if before else 0.0

    def findings(self) -> Iterator[Finding]:
        look = self.snapshot
        if look.silent:
            yield self._silent()
            return
        yield from self._gaps()
        yield from self._clocks()
        if look.database is False:
            long = self.lasts("database", self.limits.heartbeat) is not None and self.seen.known
            yield Finding(
                Kind.DATABASE_UNHEALTHY,
                "metadata database",
                Severity.PAGE if long else Severity.UNKNOWN,
                self.first("database"),
                "Airflow's health endpoint says that the metadata database is unhealthy",
                "the API server cannot query it",
                "airflow db check",
                "database-unhealthy",
            )
        yield from self._heartbeats()
        yield from self._peers()
        overdue = [*self._overdue(), *self._not_started()]
        stands = self._not_scheduling(overdue)
        if stands is not None:
            yield stands
        elif _SCHEDULER not in self.lost:
            yield from overdue
        never, deferred = list(self._never_again()), list(self._deferred())
        yield from (*never, *deferred)
        if stands is None and _SCHEDULER not in self.lost:
            waiting = list(self._waiting())
            yield from waiting
            yield from self._canaries({each.key for each in (*overdue, *never, *deferred, *waiting)})
        yield from self._parsed()
        yield from self._needs()
        yield from self._requeued()

    def first(self, key: str) -> float:
        """When this was seen first, in an unbroken row of looks; now, if it is new."""
        self.marks.add(key)
        return self.seen.first(key, self.now)

    def lasts(self, key: str, limit: float) -> float | None:
        """Since when this has been seen, if that is longer than a limit; ``None``: it is not.

        Without an earlier look nobody can tell, and it counts.
        """
        since = self.first(key)
        return since if self.now - since > limit or not self.seen.known else None

    # --- whether there is an answer at all ---

    def _silent(self) -> Finding:
        look, key = self.snapshot, "login-refused" if self.snapshot.login_refused else "api-silent"
        since = self.first(key)
        # An API server that restarts is silent for a minute.
        severity = Severity.PAGE if self.now - since > self.limits.heartbeat else Severity.UNKNOWN
        if look.login_refused:
            return Finding(
                Kind.LOGIN_REFUSED,
                look.url,
                severity,
                since,
                look.silent,
                "the token or the credentials have expired, or the account may not read this",
                look.login_hint,
                key,
            )
        return Finding(
            Kind.API_SILENT,
            look.url,
            severity,
            since,
            look.silent,
            "the API server is down, or something between it and here is",
            describe_command(look.url)
            if is_mwaa(look.url)
            else f"curl --max-time 10 --head {shlex.quote(look.url)}",
            key,
        )

    def _gaps(self) -> Iterator[Finding]:
        for gap in self.snapshot.gaps:
            cause = "the account may not read them" if gap.denied else "see the evidence"
            step = (
                "give the account the permission to read them"
                if gap.denied
                else "look again; if it stays, ask the API server's log"
            )
            # Without these, nobody knows whether anything is scheduled.
            since, vital = self.first(f"not-shown/{gap.part}"), gap.part in _VITAL and not gap.denied
            long = self.now - since > self.limits.heartbeat
            yield Finding(
                Kind.NOT_SHOWN,
                gap.part,
                Severity.PAGE if vital and long else Severity.UNKNOWN,
                since,
                gap.reason,
                cause,
                step,
                f"not-shown/{gap.part}",
            )

    def _clocks(self) -> Iterator[Finding]:
        ahead = self.snapshot.clock_ahead
        if ahead is not None and abs(ahead) > self.limits.clock:
            word = "ahead of" if ahead > 0 else "behind"
            yield Finding(
                Kind.CLOCK_SKEW,
                self.snapshot.url,
                Severity.TICKET,
                self.first("clock-skew"),
                f"the clock of Airflow's API server is {abs(ahead):.0f} s {word} that of this machine",
                "one of the two machines does not follow a time server",
                "timedatectl, on both machines",
                "clock-skew",
            )
        versions = self.seen.versions(self.snapshot.version, self.now)
        if len(versions) > 1:
            yield Finding(
                Kind.VERSION_SKEW,
                self.snapshot.url,
                Severity.TICKET,
                self.first("version-skew"),
                f"API servers have answered in turns with versions {' and '.join(sorted(versions))}",
                "API servers of different versions share one address",
                "airflow version, on each API server",
                "version-skew",
            )

    # --- components ---

    def _lost_components(self) -> Iterator[tuple[str, float | None, str]]:
        """Kinds of component without a fresh heartbeat: kind, latest heartbeat, evidence."""
        for each in self.snapshot.overall or ():
            title = _TITLES[each.kind]
            if each.heartbeat is None:
                if each.kind != _TRIGGERER and self.lasts(f"no-heartbeat/{each.kind}", self.limits.heartbeat):
                    yield each.kind, None, f"Airflow has never seen a heartbeat of a {title}"
                continue
            age = self.now - each.heartbeat
            if age > self.limits.heartbeat:
                yield each.kind, each.heartbeat, f"the latest heartbeat of a {title} is {span(age)} old"

    def beats(self, kind: str) -> bool:
        """Whether the latest heartbeat of a kind of component is known, and fresh."""
        latest = [each.heartbeat for each in self.snapshot.overall or () if each.kind == kind]
        return any(each is not None and self.now - each <= self.limits.heartbeat for each in latest)

    def _heartbeats(self) -> Iterator[Finding]:
        for kind, heartbeat, evidence in self._lost_components():
            title = _TITLES[kind]
            effect = {
                _SCHEDULER: "no run is created and no task instance starts",
                _TRIGGERER: "what is deferred waits for ever",
                _PROCESSOR: "changes of DAG files are not seen",
            }[kind]
            idle = kind == _TRIGGERER and self._nothing_deferred()  # some are started only when needed
            yield Finding(
                Kind.HEARTBEAT_LOST,
                title,
                Severity.TICKET if idle else Severity.PAGE,
                self.first(f"heartbeat-lost/{kind}") if heartbeat is None else heartbeat,
                f"{evidence}: {effect}",
                f"every {title} is down, stands still, or cannot reach the database",
                f"restart it: {_COMMANDS[kind]}",
                f"heartbeat-lost/{kind}",
            )

    def _nothing_deferred(self) -> bool:
        """Whether nothing is known to be deferred, and nothing hides it."""
        look = self.snapshot
        if look.deferred is None or look.pools is None or {"pools", "deferred task instances"} & self.partial:
            return False
        if any(leg.leg == TRIGGERER_LEG for leg in look.legs or ()):
            return False
        return not look.deferred and not any(pool.deferred for pool in look.pools)

    def _peers(self) -> Iterator[Finding]:
        """One of several is gone: there are fewer than there were in the last hours."""
        if self.snapshot.peers is None:
            return
        alive = self.alive()
        for kind, title in _TITLES.items():
            count, usual = len(alive[kind]), self.seen.usual(kind, self.now)
            if kind in self.lost or count >= usual:
                continue
            since = self.first(f"peer-lost/{kind}")
            if self.now - since <= self.limits.heartbeat:
                continue
            gone = [
                f"{each.hostname} (heartbeat {moment(each.heartbeat)})"
                for each in self.snapshot.peers
                if each.kind == kind and each not in alive[kind] and each.heartbeat is not None
            ]
            yield Finding(
                Kind.PEER_LOST,
                title,
                Severity.TICKET,
                since,
                f"{count} of {usual} {title}s are alive" + (f"; silent: {some(gone)}" if gone else ""),
                f"a {title} is down; the others go on",
                f"restart it: {_COMMANDS[kind]}",
                f"peer-lost/{kind}",
            )

    def alive(self) -> dict[str, list[Component]]:
        """Processes with a fresh heartbeat, by kind."""
        found: dict[str, list[Component]] = {kind: [] for kind in _TITLES}
        for each in self.snapshot.peers or ():
            if each.heartbeat is not None and self.now - each.heartbeat <= self.limits.heartbeat:
                found[each.kind].append(each)
        return found

    # --- runs ---

    def _overdue(self) -> Iterator[Finding]:
        for dag in self.dags.values():
            since = self._overdue_since(dag)
            if since is None or self.now - since <= self.limits.overdue_of(dag):
                continue
            assert dag.next_due is not None  # noqa: S101 - else it is not overdue
            yield Finding(
                Kind.RUN_OVERDUE,
                dag.dag_id,
                Severity.PAGE,
                since,
                f"the run that is due since {moment(dag.next_due)} does not exist "
                f"({span(self.now - dag.next_due)} late)",
                f"{self._scheduler_is()}; it has not created the run: it may be busy, or fail at this DAG",
                f"look at the scheduler's log, for {dag.dag_id}",
                f"run-overdue/{dag.dag_id}",
            )

    def _scheduler_is(self) -> str:
        """What is known of the scheduler, where it is not known to be lost."""
        known = self.snapshot.overall is not None
        return "a scheduler is alive" if known else "whether a scheduler is alive is not known"

    def _not_started(self) -> Iterator[Finding]:
        """Runs that exist, are queued, and are not kept so by ``max_active_runs``."""
        if self.snapshot.runs is None or "runs" in self.partial:
            return
        late: dict[str, list[tuple[float, Run]]] = defaultdict(list)
        for run in self.snapshot.runs:
            dag = self.dags.get(run.dag_id)
            if dag is None or run.backfill or run.state != "queued":
                continue
            if run.due is not None and run.due > self.now:
                continue  # Airflow starts it then
            limit, since = self.limits.overdue_of(dag), self.first(f"queued/{run.dag_id}/{run.run_id}")
            if dag.needs.start_within is not None and run.automatic:
                since = min(since, run.due or since)  # whatever keeps it: the DAG needs it
            elif self.running.get(run.dag_id, 0) >= dag.max_active_runs:
                continue
            elif not self.seen.known:
                since = run.queued or since
            since = max(since, self.back)
            if self.now - since > limit:
                late[run.dag_id].append((since, run))
        for dag_id, found in late.items():
            since, oldest = min(found, key=lambda pair: pair[0])
            yield Finding(
                Kind.RUN_NOT_STARTED,
                dag_id,
                Severity.PAGE,
                since,
                f"{counted(len(found), 'queued run')} not started, the oldest for "
                f"{span(self.now - since)}: {oldest.run_id}",
                f"{self._scheduler_is()}; it does not start it: it is busy, or earlier runs last too long",
                f"look at the runs of {dag_id} in the UI, then at the scheduler's log",
                f"run-not-started/{dag_id}",
            )

    def _overdue_since(self, dag: Dag) -> float | None:
        """Since when a run of this DAG is due that could exist; ``None``: none is."""
        if dag.next_due is None or dag.next_due > self.now:
            return None
        if self.unfinished.get(dag.dag_id, 0) >= dag.max_active_runs:
            return None  # intended: `max_active_runs`
        if self.snapshot.runs is None or "runs" in self.partial:
            return None  # whether it is intended is not known; the gap is a finding of its own
        key = f"due/{dag.dag_id}/{dag.next_due:.0f}"
        # A DAG that was unpaused just now, or catches up, is due since long ago; then it moves on.
        first = self.first(key)
        if dag.dag_id in self.owed:
            return max(self.owed[dag.dag_id], self.back)
        return max(dag.next_due, first, self.back) if self.seen.known else dag.next_due

    def _owed(self) -> dict[str, float]:
        """DAGs whose next run has moved on without a run that was created, and since when one is due.

        Where ``catchup`` is off, the DAG processor moves it on whenever it reads the file. Source:
        ``update_dags`` in ``airflow/dag_processing/collection.py`` (3.3), ``bulk_write_to_db`` of ``DAG``
        (2.11).
        """
        look = self.snapshot
        if look.started is None or look.runs is None or {"runs", "runs that have started"} & self.partial:
            return {}
        latest: dict[str, float] = {}
        for run in (*look.runs, *look.started):
            if run.automatic:  # on 2.11, when a run was due is not always known: its start is later
                known = max(run.due or 0.0, run.started or 0.0)
                latest[run.dag_id] = max(known, latest.get(run.dag_id, 0.0))
        return {
            dag_id: since
            for dag_id, since in self.seen.passed(self.dags.values(), self.now).items()
            if latest.get(dag_id, 0.0) < since
            and self.unfinished.get(dag_id, 0) < self.dags[dag_id].max_active_runs
        }

    def _last_sign(self) -> float | None:
        """When a scheduler was seen to do something."""
        signs: list[float | None] = []
        for run in (*(self.snapshot.runs or ()), *(self.snapshot.started or ())):
            signs += [run.decided, run.queued, run.started]
        signs += [each.since for each in (*(self.snapshot.waiting or ()), *(self.snapshot.running or ()))]
        return max((sign for sign in signs if sign is not None), default=None)

    def _not_scheduling(self, overdue: Sequence[Finding]) -> Finding | None:
        """A scheduler beats, there is work, and nothing happens."""
        if _SCHEDULER in self.lost or self.snapshot.overall is None:
            return None
        undecided = [
            (run, self.first(f"undecided/{run.dag_id}/{run.run_id}/{run.decided:.0f}"))
            for run in self.snapshot.runs or ()
            if run.state == "running"
            and run.dag_id in self.dags
            and run.decided is not None
            # The scheduler of 2.11 leaves them to the command that has made them.
            and (self.snapshot.on_3 or not run.backfill)
        ]
        if not overdue and not undecided:
            return None
        work = []
        if overdue:
            work.append(f"{counted(len(overdue), 'DAG')} late: {some(each.subject for each in overdue)}")
        if undecided:
            work.append(f"{counted(len(undecided), 'unfinished run')} that no scheduler has looked at")
        begins = [each.since or self.now for each in overdue]
        # A DAG that was just unpaused has runs that no scheduler has looked at for long.
        begins += [first if self.seen.known else run.decided or first for run, first in undecided]
        since = max(filter(None, [self._last_sign(), min(begins), self.back]))
        if self.now - since <= self.limits.scheduling:
            return None
        self.first("scheduler-stood")
        return Finding(
            Kind.NOT_SCHEDULING,
            "scheduler",
            Severity.PAGE,
            since,
            f"a scheduler sends heartbeats, and nothing was scheduled since {moment(since)}; "
            + "; ".join(work),
            "its loop stands still, or [scheduler] use_job_schedule is off",
            "restart it: airflow scheduler; before that, airflow config get-value scheduler use_job_schedule",
            "not-scheduling",
        )

    def _never_again(self) -> Iterator[Finding]:
        """Without a next start, and without a reason for it."""
        for dag in self.dags.values():
            if not dag.scheduled or dag.next_due is not None or self.unfinished.get(dag.dag_id):
                continue
            if self.snapshot.runs is None or "runs" in self.partial:
                continue
            # Right after a run has ended, and after a file was read the first time, it has none for a moment.
            since = self.lasts(f"never/{dag.dag_id}", self.limits.overdue_of(dag))
            if since is None or 0 < (dag.end or 0.0) < self.now:
                continue
            yield Finding(
                Kind.NEVER_RUNS_AGAIN,
                dag.dag_id,
                Severity.TICKET if dag.end is None else Severity.PAGE,  # it may have ended on purpose
                since,
                "it has a schedule, it is not paused, no run of it is unfinished, and no next run is planned",
                "Airflow has lost its next run (apache/airflow#17638, #19901), or its timetable has no more",
                f"airflow dags details {shlex.quote(dag.dag_id)}; the next run is computed when the file is "
                "read: if that was long ago, airflow dags reserialize",
                f"never-runs-again/{dag.dag_id}",
            )

    # --- task instances ---

    def _waiting(self) -> Iterator[Finding]:
        facts = self.facts()
        self.late = list(self._too_long(facts))
        groups: dict[tuple[Why, str], list[Late]] = defaultdict(list)
        for each in self.late:
            groups[each.why, each.subject].append(each)
        for found in groups.values():
            yield self._late(found, facts)
        known = {subject for why, subject in groups if why is Why.DAG_PAUSED}
        yield from self._frozen(known)

    def _too_long(self, facts: WaitingFacts) -> Iterator[Late]:
        """What waits too long, and why: the only place where that is decided."""
        for each in self.snapshot.waiting or ():
            first = self.first(f"waiting/{each.key}")
            since = first if each.since is None else min(first, each.since)
            limit = self.limits.waiting_of(each.dag_id, self.dags.get(each.dag_id))
            if self.now - since > limit:
                why, subject = why_waiting(each, facts)
                if not self._is_starting(each, why):
                    yield Late(each, since, why, subject, limit)

    def _is_starting(self, each: Waiting, why: Why) -> bool:
        """Whether nothing keeps it any more, for a short time only: it is about to be queued, or to start."""
        if why not in (Why.UNKNOWN, Why.NOT_STARTED, Why.NO_WORKER):
            return False
        key = f"starting/{each.state}/{each.queued or 0.0:.0f}/{each.key}"
        since = self.first(key) if self.seen.known else each.queued
        return since is not None and self.now - since <= self.limits.scheduling

    def _frozen(self, known: set[str]) -> Iterator[Finding]:
        """Runs of DAGs that were paused in the middle: nothing of them waits in a pool, and nothing goes on.

        :param known: DAGs of which something waits too long, which is a finding already.
        """
        look = self.snapshot
        if None in (look.dags, look.runs, look.running, look.deferred) or self.partial:
            return
        active = {(each.dag_id, each.run_id) for each in (*(look.running or ()), *(look.deferred or ()))}
        frozen: dict[str, list[tuple[float, Run]]] = defaultdict(list)
        for run in look.runs or ():
            limit = self.limits.waiting_of(run.dag_id, None)
            ours = run.state == "running" and run.dag_id not in self.dags and run.dag_id not in known
            if ours and (run.dag_id, run.run_id) not in active and run.decided is not None:
                since = self.first(f"frozen/{run.dag_id}/{run.run_id}") if self.seen.known else run.decided
                if self.now - max(since, run.decided) > limit:
                    frozen[run.dag_id].append((max(since, run.decided), run))
        for dag_id, runs in frozen.items():
            yield Finding(
                Kind.WAITING,
                dag_id,
                Severity.TICKET,
                min(since for since, _ in runs),
                f"{counted(len(runs), 'unfinished run')} of which nothing runs: "
                f"{some(run.run_id for _, run in runs)}",
                "the DAG is paused, or deleted: its unfinished runs stand still",
                f"airflow dags unpause {shlex.quote(dag_id)}",
                f"waiting/{Why.DAG_PAUSED.value}/{dag_id}",
            )

    def _late(self, found: list[Late], facts: WaitingFacts) -> Finding:
        """The finding of all that wait for the same cause."""
        found.sort(key=lambda each: (each.since, each.waiting.key))
        since, oldest, why, subject = found[0].since, found[0].waiting, found[0].why, found[0].subject
        count = counted(len(found), "task instance")
        cause, step = explain(why, subject, oldest, facts)
        return Finding(
            Kind.WAITING,
            subject,
            Severity.TICKET if why is Why.DAG_PAUSED else Severity.PAGE,  # somebody has paused it
            since,
            f"{count} {'has' if len(found) == 1 else 'have'} waited too long, the oldest for "
            f"{span(self.now - since)} ({oldest.state}): {some(each.waiting.name for each in found)}",
            cause,
            step,
            f"waiting/{why.value}/{subject}",
            len(found),
        )

    def facts(self) -> WaitingFacts:
        """What tells why a task instance waits."""
        look = self.snapshot
        complete = "task instances" not in self.partial and "running task instances" not in self.partial
        return WaitingFacts(
            url=look.url,
            on_3=look.on_3,
            ended=frozenset(self._ended()),
            dags=None if look.dags is None or "dags" in self.partial else self.dags,
            pools=None
            if look.pools is None or "pools" in self.partial
            else {pool.name: pool for pool in look.pools},
            waiting=tuple(look.waiting or ()),
            running=tuple(look.running) if look.running is not None and complete else None,
            executors=tuple(sorted({each.executor for each in look.peers or () if each.executor})),
        )

    def _ended(self) -> Iterator[str]:
        """Keys of what waits although its run has ended: in several looks, since runs come and go."""
        if self.snapshot.runs is None or "runs" in self.partial:
            return
        unfinished = {(run.dag_id, run.run_id) for run in self.snapshot.runs}
        for each in self.snapshot.waiting or ():
            gone = (each.dag_id, each.run_id) not in unfinished
            if gone and self.lasts(f"ended/{each.key}", _SURE_SECONDS) is not None:
                yield each.key

    def _deferred(self) -> Iterator[Finding]:
        deferred = self.snapshot.deferred or ()
        overall = {each.kind: each for each in self.snapshot.overall or ()}
        if not deferred or _TRIGGERER in self.lost:
            return
        if (about := overall.get(_TRIGGERER)) is not None and about.heartbeat is None:
            oldest = min(each.since or self.now for each in deferred)
            yield Finding(
                Kind.NO_TRIGGERER,
                "triggerer",
                Severity.PAGE,
                oldest,
                f"no triggerer has ever run, and what is deferred waits for one ({len(deferred)}): "
                f"{some(each.name for each in deferred)}",
                "no triggerer was started",
                "airflow triggerer",
                "no-triggerer",
            )
            return
        yield from self._unattended(deferred)
        limit = self.limits.deferred
        late = [each for each in deferred if limit and each.since and self.now - each.since > limit]
        if late:
            yield Finding(
                Kind.DEFERRED_TOO_LONG,
                "triggerer",
                Severity.TICKET,
                min(each.since or self.now for each in late),
                f"{counted(len(late), 'task instance')} deferred for more than {span(limit)}: "
                f"{some(each.name for each in late)}",
                "what they wait for does not come, or their triggers do not notice it",
                "airflow-resilient explain DAG RUN TASK, for each of them that is a remote job",
                "deferred-too-long",
            )

    def _unattended(self, deferred: Sequence[Waiting]) -> Iterator[Finding]:
        """Deferred, and with no living triggerer for so long that one should have it."""
        if self.snapshot.peers is None:
            return
        alive = {each.id for each in self.alive()[_TRIGGERER]}
        late = []
        for each in deferred:
            if each.triggerer in alive:
                continue
            since = self.lasts(f"unattended/{each.key}", self.limits.triggerer)
            if since is not None:
                late.append((since, each))
        if late:
            yield Finding(
                Kind.NO_TRIGGERER,
                "triggerer",
                Severity.PAGE,
                min(since for since, _ in late),
                f"no living triggerer has taken what is deferred ({len(late)}): "
                f"{some(each.name for _, each in late)}",
                "the living triggerers are full ([triggerer] capacity), or do not take over from a dead one",
                "start one more: airflow triggerer",
                "unattended",
            )

    # --- canaries ---

    def _canaries(self, known: set[str]) -> Iterator[Finding]:
        """Legs that do not succeed.

        :param known: keys of findings that may be the cause.
        """
        if "canaries" in self.partial:
            return
        legs: dict[str, list[Leg]] = defaultdict(list)
        for leg in self.snapshot.legs or ():
            legs[leg.dag_id].append(leg)
        for dag_id, every in legs.items():
            canary = self.dags[dag_id].needs.canary
            no_runs = {f"{kind.value}/{dag_id}" for kind in _NO_RUNS}
            if canary is None or no_runs & known:
                continue
            late = []
            for leg in every:
                if leg.leg == TRIGGERER_LEG and _TRIGGERER in self.lost:
                    continue
                since = self._without_success(leg, canary)
                if self.now - since > canary.late_after(self.limits.canary) and not _explained(leg, known):
                    late.append((since, leg))
            if late:
                yield self._late_legs(dag_id, late, every)

    def _without_success(self, leg: Leg, canary: Canary) -> float:
        """Since when a leg has not succeeded, although it was expected to."""
        # Marked while it is expected only: after a scheduler was gone, it has its time once more.
        # Where its interval was changed, the old one says nothing.
        first = self.first(f"leg/{canary.every:.0f}/{leg.dag_id}/{leg.leg}")
        if self.seen.known:
            return max(first, leg.succeeded or first, self.back)
        return self.now if leg.tried is None else leg.tried

    def _late_legs(self, dag_id: str, late: Sequence[tuple[float, Leg]], every: Sequence[Leg]) -> Finding:
        since = min(since for since, _ in late)
        cause, step = self._why_late([leg for _, leg in late], every)
        word = "has" if len(late) == 1 else "have"
        times = (
            f"{leg.leg} (last success: {'none lately' if leg.succeeded is None else moment(leg.succeeded)})"
            for _, leg in late
        )
        return Finding(
            Kind.CANARY_LATE,
            dag_id,
            Severity.PAGE,
            since,
            f"{len(late)} of {counted(len(every), 'leg')} {word} not succeeded for {span(self.now - since)}: "
            f"{some(times)}",
            cause,
            step,
            f"{Kind.CANARY_LATE.value}/{dag_id}",
            len(late),
        )

    def _why_late(self, late: Sequence[Leg], every: Sequence[Leg]) -> tuple[str, str]:
        """Cause and next step, by which legs are late."""
        facts = self.facts()
        if len(late) == len(every):  # they share a pool
            each = Waiting(late[0].dag_id, "", late[0].leg, pool=late[0].pool, state="scheduled")
            why, subject = why_waiting(each, facts)
            if why in _OF_POOLS:
                return explain(why, subject, each, facts)
            if len(every) > 1:
                return (
                    "Airflow as a whole runs no task",
                    f"look at the newest run of {late[0].dag_id}, then at the logs of scheduler and workers",
                )
        celery = not facts.executors or any("Celery" in name for name in facts.executors)
        work = [leg for leg in late if leg.leg != TRIGGERER_LEG]
        found = [_why_no_work(leg, celery=celery) for leg in work]
        # It starts on a worker before it defers.
        starts = {leg.queue for leg in work if leg.leg.startswith(QUEUE_LEG)}
        if any(leg.leg == TRIGGERER_LEG and leg.queue not in starts for leg in late):
            beats = [each.heartbeat for each in self.snapshot.overall or () if each.kind == _TRIGGERER]
            if not beats:
                cause = "no trigger fires, and whether a triggerer is alive is not known"
            elif beats[0] is None:
                cause = "no triggerer has ever run"
            else:
                cause = "a triggerer sends heartbeats, and runs nothing"
            step = "start one" if beats == [None] else "restart it"
            found.append((cause, f"{step}: {_COMMANDS[_TRIGGERER]}"))
        return "; ".join(cause for cause, _ in found), "; ".join(step for _, step in found)

    # --- DAG files ---

    def _parsed(self) -> Iterator[Finding]:
        look = self.snapshot
        if look.dags is None:
            return
        parsed = [dag.parsed for dag in look.dags if dag.parsed is not None]
        age = self.now - max(parsed, default=self.now)
        if age > self.limits.parsed and _PROCESSOR not in self.lost and _SCHEDULER not in self.lost:
            yield Finding(
                Kind.NOT_PARSED,
                "DAG files",
                Severity.PAGE,
                max(parsed),
                f"no DAG file was read for {span(age)}",
                "the DAG processor stands still, or a file keeps it busy",
                "airflow dags list-import-errors; then restart it: "
                + (_COMMANDS[_PROCESSOR] if look.on_3 else "airflow scheduler, or airflow dag-processor"),
                "not-parsed",
            )
        gone = self.seen.vanished(look, self.now)
        many = len(gone) > max(_FEW, self.limits.vanished * self.seen.dag_count)
        hidden = {"dags", "paused DAGs"} & self.partial
        since = self.first("dags-vanished") if many and not hidden else self.now
        if self.now - since > self.limits.heartbeat:  # a deploy may replace the folder
            yield Finding(
                Kind.DAGS_VANISHED,
                "DAG files",
                Severity.PAGE,
                since,
                f"{len(gone)} of {self.seen.dag_count} DAGs that were active are not: {some(sorted(gone))}",
                "their files are gone, or cannot be read",
                "airflow dags list; then look at the folder of DAG files of the DAG processor",
                "dags-vanished",
            )
        if look.stale and self.now - self.first("stale") > self.limits.heartbeat:
            yield Finding(
                Kind.DAGS_VANISHED,
                "DAGs that are needed",
                Severity.PAGE,
                self.first("stale"),
                f"the files of DAGs with a need_by, or of a canary, are not read any more: "
                f"{some(sorted(look.stale))}",
                "their files are gone, or cannot be imported",
                "airflow dags list-import-errors; if they were removed on purpose, delete the DAGs in the UI",
                "dags-vanished/needed",
            )
        for problem in look.import_errors or ():
            yield Finding(
                Kind.IMPORT_ERROR,
                problem.file,
                Severity.TICKET,
                problem.since,
                problem.error or "the file cannot be imported",
                "the file, or what it imports, is broken; its DAGs keep their last state, or vanish",
                "airflow dags list-import-errors",
                f"import-error/{problem.file}",
            )
        for dag in look.dags:
            for tag in dag.needs.wrong:
                yield Finding(
                    Kind.NEED_UNREADABLE,
                    dag.dag_id,
                    Severity.UNKNOWN,
                    self.first(f"need-unreadable/{dag.dag_id}/{tag}"),
                    f"the tag {tag!r} cannot be read, so what the DAG needs is not known",
                    "it was written by hand, or by another version",
                    "make it with need_by, start_within, wait_at_most or canary_dag of airflow_resilient",
                    f"need-unreadable/{dag.dag_id}/{tag}",
                )

    # --- what DAGs need ---

    def _needs(self) -> Iterator[Finding]:
        look = self.snapshot
        if look.needed is None or look.runs is None:
            return
        runs: dict[str, dict[str, Run]] = defaultdict(dict)
        for run in (*look.needed, *look.runs):
            if run.automatic:
                runs[run.dag_id][run.run_id] = run
        for dag in self.dags.values():
            for need in dag.needs.by:
                before, deadline, _ = need.deadlines(look.taken)
                evidence = missed(dag, runs[dag.dag_id].values(), before, deadline)
                # A DAG that was deployed or unpaused after that could not have kept it.
                joined = self.seen.joined.get(dag.dag_id, self.now) if self.seen.known else 0.0
                if evidence and joined < deadline:
                    yield Finding(
                        Kind.NEED_BY_MISSED,
                        dag.dag_id,
                        Severity.PAGE,
                        deadline,
                        f"it was needed by {need} ({moment(deadline)}): {evidence}",
                        "see the other findings, and the runs of the DAG",
                        f"look at the runs of {dag.dag_id} in the UI",
                        f"need-by-missed/{dag.dag_id}/{need}",
                    )

    def _requeued(self) -> Iterator[Finding]:
        events = self.snapshot.requeues or ()
        counts = Counter(each.name for each in events if not each.gave_up)
        gave_up = {each.name for each in events if each.gave_up}
        for name in sorted({each.name for each in events}):
            count = counts[name]
            if name not in gave_up and count <= self.limits.requeues:
                continue
            mine = [each.when for each in events if each.name == name]
            yield Finding(
                Kind.REQUEUED,
                name,
                Severity.TICKET,
                min(mine),
                f"Airflow has put it back from queued {count} times within an hour"
                + (", and has failed it" if name in gave_up else ""),
                "the executor takes it, and no worker starts it",
                "look at the log of the executor's workers, for this task",
                f"requeued/{name}",
            )


def _why_no_work(leg: Leg, *, celery: bool) -> tuple[str, str]:
    """Cause and next step of a late leg of a queue or an executor.

    :param celery: there may be workers that listen on queues.
    """
    log = f"look at the newest task instance of {leg.dag_id} / {leg.leg}, then at the scheduler's log"
    if leg.leg.startswith(EXECUTOR_LEG):
        return f"the executor {leg.leg.removeprefix(EXECUTOR_LEG)!r} runs nothing", log
    queue = leg.queue or leg.leg.removeprefix(QUEUE_LEG)
    if not celery:
        return f"nothing of the queue {queue!r} succeeds: the executor does not run it", log
    return (
        f"nothing of the queue {queue!r} succeeds: probably no worker listens on it",
        f"airflow celery worker --queues {shlex.quote(queue)}",
    )


def _explained(leg: Leg, known: set[str]) -> bool:
    """Whether a finding about what waits is the cause of a late leg, too."""
    full = [why for why in _OF_POOLS if why is not Why.POOL_TOO_SMALL]  # which keeps nobody else
    keys = {f"{Kind.WAITING.value}/{why.value}/{leg.pool}" for why in full}
    keys.add(f"{Kind.WAITING.value}/{Why.NO_WORKER.value}/{leg.queue}")
    if leg.leg == TRIGGERER_LEG:
        keys |= {"no-triggerer", "unattended"}
    return bool(keys & known)


def summary(snapshot: Snapshot, findings: Sequence[Finding]) -> str:
    """Which Airflow it is, and how many findings there are of each severity."""
    counts = Counter(each.severity for each in findings)
    found = ", ".join(f"{counts[each]} {each.value}" for each in Severity if counts[each]) or "all is well"
    version = f"Airflow {snapshot.version}" if snapshot.version else "Airflow"
    return f"{version} at {snapshot.url}: {found}"


def memory_lost(problem: str, now: float) -> Finding:
    """The finding of a memory that cannot be used: what depends on earlier looks is not known."""
    return Finding(
        Kind.MEMORY_LOST,
        "memory",
        Severity.UNKNOWN,
        now,
        problem,
        "what lasts since earlier looks is not known, and counts from now on",
        "make the file writable for this command, and give each Airflow a file of its own",
        "memory-lost",
    )


def missed(dag: Dag, runs: Iterable[Run], before: float, deadline: float) -> str:
    """Why what a DAG needed by `deadline` is not there; empty: it is, or nothing was due.

    :param runs: its scheduled runs, of the time since `before`.
    :param before: the deadline before: what was due before it counts for that one.
    """
    runs = list(runs)
    due = [run for run in runs if run.due is not None and before <= run.due < deadline]
    if dag.next_due is not None and dag.next_due < deadline:
        return f"the run that is due since {moment(dag.next_due)} was never created"
    if dag.next_due is None and dag.scheduled:  # up to 3.1, while its runs are at max_active_runs
        older = [run for run in runs if run.state == "running" and (run.due or deadline) < before]
        if older:
            return f"run {older[0].run_id}, which was due before, still runs, and the next one waits for it"
    bad = sorted((run for run in due if run.state != "success"), key=lambda run: run.due or 0.0)
    if not bad:
        return ""
    return f"run {bad[-1].run_id} is {bad[-1].state}"
