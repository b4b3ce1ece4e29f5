"""One look at an Airflow over its REST API: what it does, what waits in it, and what is due.

A look sends at most twelve requests and a login (through Amazon MWAA, four more and none), one for each page
of a hundred unpaused DAGs and for each canary, the further pages of what waits, is deferred for long, or
runs, and a few about DAGs that are late, are missing or have no next run.
What cannot be asked is a `Gap`, never an empty list.

A look is a value: `health.diagnose` decides what is wrong. Neither imports Airflow.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from ..core.needs import Canary, Needs, read_needs
from .airflow_api import LOGIN_HINT, iso, seconds
from .first_seen import FirstSeen
from .task_instances import AirflowApiError

if TYPE_CHECKING:
    from .airflow_api import AirflowApi

T = TypeVar("T")

PAGE_SIZE = 100
"""Rows on a page. Source: ``[api] maximum_page_limit``, 100 by default on 2.11 and 3.x."""

MAX_PAGES = 50
"""Pages of one list; what is on further ones is counted, not read."""

MAX_ENDED_PAGES = 10
"""Pages of what has ended since the look before: it is shown, and nothing is concluded from it."""

MAX_LOOK_SECONDS = 60.0
"""For a whole look; what has not been read by then is a gap."""

MAX_DETAILS = 5
"""DAGs without a next run whose end date is asked for in one look."""

_LATE_SECONDS = 30.0  # for which a run is due, before others are asked for that have started
_SIGN_SECONDS = 3600.0  # within which it matters that a run has started
_MAX_ROUNDS = 3  # to read a list of several pages whose rows move meanwhile

REQUEUED = "stuck in queued reschedule"
GAVE_UP = "stuck in queued tries exceeded"
"""Events of the audit log. Source: ``_maybe_requeue_stuck_ti`` of ``SchedulerJobRunner`` (2.11 to 3.3)."""

UNFINISHED_RUNS = ("queued", "running")
UNFINISHED = ("scheduled", "queued", "running", "deferred")
"""States of task instances that are read here, of those that have not ended."""


@dataclass(frozen=True)
class Gap:
    """A part of a look that could not be read.

    :param part: such as ``pools``.
    :param reason: the error, or how much is missing.
    :param denied: the account is not allowed to read it.
    """

    part: str
    reason: str
    denied: bool = False


@dataclass(frozen=True)
class Component:
    """A process of Airflow, or all of a kind where Airflow does not tell them apart.

    :param kind: ``scheduler``, ``triggerer`` or ``dag_processor``.
    :param heartbeat: the latest one, in seconds since 1970; ``None``: there never was one.
    :param hostname: empty where `heartbeat` is the latest one of all of that kind.
    :param id: of its job; 0 for all of a kind.
    :param executor: class of a scheduler's executor, where Airflow tells it.
    """

    kind: str
    heartbeat: float | None
    hostname: str = ""
    id: int = 0
    executor: str = ""


@dataclass(frozen=True)
class Dag:
    """A DAG that is not paused.

    :param next_due: when its next run is due, in seconds since 1970; ``None``: none is planned.
    :param parsed: when its file was read the last time.
    :param scheduled: it has a schedule by time; an asset or a person starts the runs of others.
    :param max_active_runs: how many of its runs may be unfinished at a time.
    :param max_active_tasks: how many of its task instances may be queued or running at a time: on 2.11 in all
        runs together, on 3.x in each.
    :param needs: what its tags say.
    :param end: its end date, where that was asked for: 0, if it has none.
    """

    dag_id: str
    next_due: float | None = None
    parsed: float | None = None
    scheduled: bool = True
    max_active_runs: int = 16
    max_active_tasks: int = 16
    needs: Needs = field(default_factory=Needs)
    end: float | None = None


@dataclass(frozen=True)
class Run:
    """A DAG run.

    :param due: when it was due: ``run_after``, on 2.11 the end of its data interval.
    :param queued: when it was created, where Airflow tells it.
    :param decided: when a scheduler has dealt with it last.
    :param ended: when it has ended.
    :param automatic: the scheduler has made it, for a time or an asset; neither a person nor a backfill.
    :param backfill: a backfill has made it; it does not count for ``max_active_runs``.
    """

    dag_id: str
    run_id: str
    state: str
    due: float | None = None
    queued: float | None = None
    started: float | None = None
    decided: float | None = None
    ended: float | None = None
    automatic: bool = True
    backfill: bool = False


@dataclass(frozen=True)
class Waiting:
    """A task instance that waits to run, waits in the triggerer, runs, or has ended.

    :param since: when Airflow says that this began: scheduled, queued, deferred or started; for one that has
        ended, when it began to wait.
    :param queued: when it was queued the last time, for one that is queued, runs, or has ended.
    :param started: when it has started, for one that has ended.
    :param ended: when it has ended.
    :param triggerer: id of the job of its triggerer, for one that is deferred; ``None``: it has none.
    :param executor: that it names; empty: the default one.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    try_number: int = 1
    state: str = "queued"
    pool: str = "default_pool"
    slots: int = 1
    queue: str = "default"
    since: float | None = None
    queued: float | None = None
    triggerer: int | None = None
    started: float | None = None
    ended: float | None = None
    executor: str = ""

    @property
    def key(self) -> str:
        """Identifies this try of it."""
        return f"{self.dag_id}/{self.run_id}/{self.task_id}/{self.map_index}/{self.try_number}"

    @property
    def name(self) -> str:
        """DAG, run, task and map index."""
        index = "" if self.map_index < 0 else f"[{self.map_index}]"
        return f"{self.dag_id} / {self.run_id} / {self.task_id}{index}"


@dataclass(frozen=True)
class Pool:
    """A pool.

    :param total: slots that it has; -1: as many as one likes.
    :param occupied: slots in use.
    :param queued: slots of queued task instances, which are in use.
    :param running: slots of running ones, which are in use.
    :param scheduled: slots of task instances that wait for them.
    :param deferred: slots of deferred ones, which are in use if the pool includes them.
    """

    name: str
    total: int
    occupied: int = 0
    queued: int = 0
    running: int = 0
    scheduled: int = 0
    deferred: int = 0

    @property
    def open(self) -> float:
        """Slots that are free."""
        return float("inf") if self.total == -1 else self.total - self.occupied


@dataclass(frozen=True)
class ImportProblem:
    """A DAG file that cannot be imported.

    :param error: class of the error; its text may contain a secret.
    """

    file: str
    since: float | None
    error: str


@dataclass(frozen=True)
class Requeue:
    """An entry of the audit log: a task instance was stuck in *queued*, and was put back or given up.

    :param gave_up: Airflow has failed it.
    """

    name: str
    when: float
    gave_up: bool


@dataclass(frozen=True)
class Leg:
    """A task of a canary, and what became of it in the last runs.

    :param succeeded: when a task instance of it has succeeded the last time; ``None``: in none of these runs.
    :param tried: since when runs have followed each other in which it has not succeeded: when the first of
        these was due. ``None``: it has succeeded in the latest run, or there is none.
    :param pool: of its latest task instance.
    :param queue: of its latest task instance.
    """

    dag_id: str
    leg: str
    succeeded: float | None = None
    tried: float | None = None
    pool: str = "default_pool"
    queue: str = "default"


@dataclass(frozen=True)
class Snapshot:
    """One look. Times are seconds since 1970, by our clock or by that of the database.

    A list is ``None`` where it could not be read; `gaps` says why.

    :param url: of the Airflow.
    :param silent: why there is nothing else: the API does not answer, or refuses the login.
    :param login_refused: it is the login.
    :param login_hint: what to do then.
    :param version: of the API server that has answered.
    :param database: whether the metadata database works, as Airflow says.
    :param overall: components as ``/health`` tells them: the latest heartbeat of each kind.
    :param peers: each process for itself, that Airflow believes to run; on 3.x.
    :param waiting: every task instance that is scheduled or queued.
    :param running: those that run, the first `MAX_PAGES` pages of them.
    :param deferred: those that have been deferred for longer than was asked for.
    :param runs: every unfinished run.
    :param dags: every DAG that is neither paused nor deleted.
    :param paused: of the DAGs that were asked for because they are missing, those that are paused.
    :param stale: of the DAGs that are needed and missing, those that nobody has paused or deleted.
    :param needed: the automatic runs of DAGs with a *need by*, which were due in the last days.
    :param started: runs that have started lately, as far as they were asked for.
    :param legs: of all canaries that are not paused.
    :param ended_runs: runs that have ended since a moment that was asked for, at most `MAX_ENDED_PAGES`
        pages of them.
    :param ended: task instances that have; the same.
    :param seconds: how long the look took.
    """

    url: str
    taken: float
    silent: str = ""
    login_refused: bool = False
    login_hint: str = LOGIN_HINT
    version: str = ""
    clock_ahead: float | None = None
    database: bool | None = None
    overall: tuple[Component, ...] | None = None
    peers: tuple[Component, ...] | None = None
    pools: tuple[Pool, ...] | None = None
    waiting: tuple[Waiting, ...] | None = None
    running: tuple[Waiting, ...] | None = None
    deferred: tuple[Waiting, ...] | None = None
    runs: tuple[Run, ...] | None = None
    dags: tuple[Dag, ...] | None = None
    paused: frozenset[str] = frozenset()
    stale: frozenset[str] = frozenset()
    import_errors: tuple[ImportProblem, ...] | None = None
    requeues: tuple[Requeue, ...] | None = None
    needed: tuple[Run, ...] | None = None
    started: tuple[Run, ...] | None = None
    legs: tuple[Leg, ...] | None = None
    ended_runs: tuple[Run, ...] | None = None
    ended: tuple[Waiting, ...] | None = None
    gaps: tuple[Gap, ...] = ()
    requests: int = 0
    seconds: float = 0.0

    @property
    def on_3(self) -> bool:
        """Whether it is Airflow 3."""
        return not self.version.startswith("2.")


def look(
    api: AirflowApi,
    *,
    seen: FirstSeen | None = None,
    deferred_for: float = 300.0,
    requeued_within: float = 3600.0,
    canary_limit: float = 0.0,
    ended_since: float | None = None,
    progress: Callable[[str], object] = str,
    now: Callable[[], float] = time.time,
) -> Snapshot:
    """Take one look. Raises nothing: what cannot be read is a gap, or the whole look is silent.

    :param seen: earlier looks: if DAGs are missing that were active, the paused ones are asked for; if some
        are due again and again, the runs that have started since.
    :param deferred_for: seconds; task instances that have been deferred for less are not read.
    :param requeued_within: seconds; how far back the audit log is read.
    :param canary_limit: seconds without a success after which a leg of a canary is late; 0: by its interval.
    :param ended_since: read what has ended since then, in seconds since 1970; ``None``: do not.
    :param progress: called with the name of each part before it is read.
    """
    began, before = now(), api.requests
    progress("version")
    try:
        v2 = api.is_v2
        version = api.first_version
        reader = _Reader(api, v2=v2, progress=progress, until=began + MAX_LOOK_SECONDS, now=now)
        found = _read(reader, began, seen or FirstSeen(), deferred_for, requeued_within, canary_limit)
        if ended_since is not None:
            found |= _read_ended(reader, ended_since)
    except AirflowApiError as error:
        return Snapshot(
            api.url,
            began,
            silent=str(error),
            login_refused=error.status in (401, 403),
            login_hint=api.login_hint,
            requests=api.requests - before,
            seconds=now() - began,
        )
    return Snapshot(
        api.url,
        began,
        version=version,
        clock_ahead=api.clock_ahead,
        gaps=tuple(reader.gaps),
        requests=api.requests - before,
        seconds=now() - began,
        **found,
    )


def _read(
    reader: _Reader,
    began: float,
    seen: FirstSeen,
    deferred_for: float,
    requeued_within: float,
    canary_limit: float,
) -> dict[str, Any]:
    """The parts of a look.

    :raises AirflowApiError: the login is refused.
    """
    part = reader.part
    # First what tells whether anything is scheduled: a slow Airflow may leave no time for the rest.
    health = part("health", reader.health)
    dags = part("dags", reader.dags)
    runs = part("runs", reader.runs)
    waiting = part("task instances", lambda: reader.instances([("state", "scheduled"), _QUEUED]))
    running = part("running task instances", lambda: reader.instances([("state", "running")]))
    old = iso(began - deferred_for)
    query = [("state", "deferred"), ("updated_at_lte", old)]
    deferred = part("deferred task instances", lambda: reader.instances(query))
    if dags is not None and runs is not None:
        dags = part("details of DAGs", partial(reader.with_end, dags, runs)) or dags
    missing = set(seen.active) - {dag.dag_id for dag in dags or ()}
    stale = {dag for dag in seen.vital if dag not in {each.dag_id for each in dags or ()}}
    waits = [run for run in runs or () if run.state == "running" and run.decided is not None]
    late = [dag for dag in dags or () if dag.next_due is not None and began - dag.next_due > _LATE_SECONDS]
    passed = seen.passed(dags or (), began)
    return {
        "runs": runs,
        "started": (
            (late or passed or any(began - (run.decided or 0.0) > _LATE_SECONDS for run in waits))
            and part("runs that have started", partial(reader.started, passed, began))
        )
        or (),
        "waiting": waiting,
        "running": running,
        "deferred": deferred,
        "dags": dags,
        "paused": (dags and missing and part("paused DAGs", lambda: reader.paused(missing))) or frozenset(),
        "stale": (dags is not None and stale and part("DAGs that are needed", lambda: reader.stale(stale)))
        or frozenset(),
        "database": None if health is None else health[0],
        "overall": None if health is None else health[1],
        "peers": part("jobs", reader.jobs) if reader.v2 else None,
        "pools": part("pools", reader.pools),
        "import_errors": part("import errors", reader.import_errors),
        "requeues": part("audit log", lambda: reader.requeues(began - requeued_within)),
        "needed": part("runs that are needed", lambda: reader.needed(dags or (), began)),
        "legs": part("canaries", lambda: reader.legs(dags or (), began, canary_limit)),
    }


def _read_ended(reader: _Reader, since: float) -> dict[str, Any]:
    """What has ended since a moment; it is shown, and nothing is concluded from it.

    :raises AirflowApiError: the login is refused.
    """
    query = [("end_date_gte", iso(since))]
    return {
        "ended_runs": reader.part("runs that have ended", lambda: reader.ended_runs(query)),
        "ended": reader.part("task instances that have ended", lambda: reader.ended(query)),
    }


_UNAUTHORIZED, _DENIED, _NOT_FOUND = 401, 403, 404
_QUEUED = ("state", "queued")
_SLOTS = ("occupied", "queued", "running", "scheduled", "deferred")
_KINDS = {
    "SchedulerJob": "scheduler",
    "TriggererJob": "triggerer",
    "DagProcessorJob": "dag_processor",
}


class _Reader:
    """Reads the parts of one look, and notes those that cannot be read."""

    def __init__(
        self,
        api: AirflowApi,
        *,
        v2: bool,
        progress: Callable[[str], object],
        until: float,
        now: Callable[[], float],
    ) -> None:
        self.api, self.v2, self.gaps = api, v2, list[Gap]()
        self._progress, self._until, self._now = progress, until, now
        self._part = ""

    def part(self, name: str, read: Callable[[], T]) -> T | None:
        """What `read` returns; ``None``, and a gap, where it cannot be read.

        :raises AirflowApiError: the login is refused, as it will be for all that follows.
        """
        self._part = name
        self._progress(name)
        try:
            if self._now() > self._until:
                raise AirflowApiError(f"it was not read: the look has taken {MAX_LOOK_SECONDS:.0f} s already")
            return read()
        except AirflowApiError as error:
            if error.status == _UNAUTHORIZED:
                raise
            self.gaps.append(Gap(name, str(error), denied=error.status == _DENIED))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self.gaps.append(Gap(name, f"the answer is not that of Airflow's API: {error!r}"))
        return None

    def _pages(
        self, path: str, field_name: str, query: Sequence[tuple[str, str]] = ()
    ) -> list[Mapping[str, Any]]:
        """All rows of a list, at most `MAX_PAGES` pages of each request for it; the rest is a gap."""
        rows: dict[Any, Mapping[str, Any]] = {}
        for each in self.api.one_value_each(query):
            rows |= self._pages_of_one(path, field_name, each)
        return list(rows.values())

    def _pages_of_one(
        self, path: str, field_name: str, query: Sequence[tuple[str, str]]
    ) -> dict[Any, Mapping[str, Any]]:
        """All rows by what identifies them.

        Airflow counts the rows and reads a page of them by two statements, and pages by offset shift when
        rows come and go: then all are read once more.
        """
        rows: dict[Any, Mapping[str, Any]] = {}
        for _ in range(_MAX_ROUNDS):
            offset = total = pages = 0
            cut = False  # by a bound
            while not cut:
                page = [("limit", str(PAGE_SIZE)), ("offset", str(offset))]
                found, total = self.api.read_list(path, field_name, [*query, *page])
                rows.update((_identity(row), row) for row in found)
                offset, pages = offset + len(found), pages + 1
                if not found or offset >= total:
                    break
                cut = pages == MAX_PAGES or self._now() > self._until
            if cut or len(rows) >= total:
                break
        if len(rows) < total:
            self.gaps.append(Gap(self._part, f"there are {total}, of which {len(rows)} were read"))
        return rows

    def _first_pages(
        self, path: str, field_name: str, query: Sequence[tuple[str, str]]
    ) -> Iterator[Mapping[str, Any]]:
        """Rows of a list, at most `MAX_ENDED_PAGES` pages; others are left out, and so are some that move."""
        offset = 0
        for _ in range(MAX_ENDED_PAGES):
            page = [("limit", str(PAGE_SIZE)), ("offset", str(offset))]
            found, total = self.api.read_list(path, field_name, [*query, *page])
            yield from found
            offset += len(found)
            if not found or offset >= total or self._now() > self._until:
                return

    def dags(self) -> tuple[Dag, ...]:
        query = [("paused", "false"), ("exclude_stale" if self.v2 else "only_active", "true")]
        return tuple(_dag(row) for row in self._pages("/dags", "dags", query))

    def instances(self, query: Sequence[tuple[str, str]]) -> tuple[Waiting, ...]:
        rows = self._pages("/dags/~/dagRuns/~/taskInstances", "task_instances", query)
        return tuple(map(_waiting, rows))

    def runs(self) -> tuple[Run, ...]:
        query = [("state", state) for state in UNFINISHED_RUNS]
        rows = self._pages("/dags/~/dagRuns", "dag_runs", query)
        return tuple(map(_run, rows))

    def started(self, passed: Mapping[str, float], now: float) -> tuple[Run, ...]:
        """The runs of these DAGs that have started since their moments, and the latest one of all.

        :param passed: see `FirstSeen.passed`.
        """
        recent = [("start_date_gte", iso(now - _SIGN_SECONDS)), ("order_by", "-start_date"), ("limit", "1")]
        rows = list(self.api.read_list("/dags/~/dagRuns", "dag_runs", recent)[0])
        if passed:
            since = iso(min(passed.values()) - 1.0)
            rows += self._posted({"dag_ids": sorted(passed), "start_date_gte": since})
        return tuple(map(_run, rows))

    def ended_runs(self, query: Sequence[tuple[str, str]]) -> tuple[Run, ...]:
        return tuple(map(_run, self._first_pages("/dags/~/dagRuns", "dag_runs", query)))

    def ended(self, query: Sequence[tuple[str, str]]) -> tuple[Waiting, ...]:
        rows = self._first_pages("/dags/~/dagRuns/~/taskInstances", "task_instances", query)
        return tuple(_waiting(row) for row in rows if row["state"] is not None)

    def with_end(self, dags: Sequence[Dag], runs: Sequence[Run]) -> tuple[Dag, ...]:
        """The DAGs, with the end date of the first few that have a schedule, and no next or current run."""
        current = {run.dag_id for run in runs}
        left, found = MAX_DETAILS, []
        for dag in dags:
            if (
                dag.scheduled
                and dag.next_due is None
                and dag.dag_id not in current
                and left
                and self._now() <= self._until
            ):
                left -= 1
                details = self.api.read(f"/dags/{quote(dag.dag_id, safe='')}/details")
                dag = replace(dag, end=seconds(details["end_date"]) or 0.0)  # noqa: PLW2901
            found.append(dag)
        return tuple(found)

    def paused(self, missing: Collection[str]) -> frozenset[str]:
        """Which of these DAGs are paused."""
        rows = self._pages("/dags", "dags", [("paused", "true")])
        return frozenset(str(row["dag_id"]) for row in rows) & frozenset(missing)

    def stale(self, missing: Collection[str]) -> frozenset[str]:
        """Which of these DAGs exist, are not paused, and are not read from a file any more."""
        found = set()
        for dag_id in sorted(missing)[:MAX_DETAILS]:
            try:
                row = self.api.read(f"/dags/{quote(dag_id, safe='')}")
            except AirflowApiError as error:
                if error.status != _NOT_FOUND:  # it was deleted
                    raise
                continue
            gone = bool(row["is_stale"]) if self.v2 else not row["is_active"]
            if gone and not row["is_paused"]:
                found.add(dag_id)
        return frozenset(found)

    def health(self) -> tuple[bool, tuple[Component, ...]]:
        found = self.api.read("/monitor/health" if self.v2 else "/health")
        components = []
        for kind in _KINDS.values():
            about = found.get(kind) or {}
            heartbeat = about.get(f"latest_{kind}_heartbeat")
            # Without a status there need not be one: on 2.11 the scheduler itself reads DAG files.
            if about.get("status") is not None or heartbeat is not None or kind == "triggerer":
                components.append(Component(kind, seconds(heartbeat)))
        return found["metadatabase"]["status"] == "healthy", tuple(components)

    def jobs(self) -> tuple[Component, ...]:
        query = [("job_state", "running"), ("limit", str(PAGE_SIZE)), ("order_by", "-latest_heartbeat")]
        rows, _ = self.api.read_list("/jobs", "jobs", query)
        return tuple(
            Component(
                _KINDS[row["job_type"]],
                seconds(row["latest_heartbeat"]),
                str(row.get("hostname") or ""),
                int(row["id"]),
                str(row.get("executor_class") or ""),
            )
            for row in rows
            if row["job_type"] in _KINDS
        )

    def pools(self) -> tuple[Pool, ...]:
        return tuple(
            Pool(str(row["name"]), int(row["slots"]), **{name: int(row[f"{name}_slots"]) for name in _SLOTS})
            for row in self._pages("/pools", "pools")
        )

    def import_errors(self) -> tuple[ImportProblem, ...]:
        rows = self._pages("/importErrors", "import_errors")
        return tuple(
            ImportProblem(str(row["filename"]), seconds(row.get("timestamp")), _class_of(row["stack_trace"]))
            for row in rows
        )

    def requeues(self, after: float) -> tuple[Requeue, ...]:
        events = [REQUEUED, GAVE_UP]
        wanted = [("included_events", each) for each in events]
        query = wanted if self.v2 else [("included_events", ",".join(events))]
        rows = self._pages("/eventLogs", "event_logs", [*query, ("after", iso(after))])
        return tuple(
            Requeue(
                f"{row['dag_id']} / {row['run_id']} / {row['task_id']}{_index(row.get('map_index'))}",
                seconds(row["when"]) or 0.0,
                row["event"] == GAVE_UP,
            )
            for row in rows
        )

    def needed(self, dags: Iterable[Dag], now: float) -> tuple[Run, ...]:
        """The automatic runs that count for a *need by*, of all DAGs that have one."""
        needed = {dag.dag_id: dag.needs.by for dag in dags if dag.needs.by}
        if not needed:
            return ()
        first = min(need.deadlines(now)[0] for by in needed.values() for need in by)
        # On 2.11 a run is due at the end of its data interval, which cannot be asked for; one that is due now
        # may have begun a month ago, and is among the last ones of its DAG.
        after = {"run_after_gte": iso(first)} if self.v2 else {"end_date_gte": iso(first)}
        runs = map(_run, self._posted({"dag_ids": sorted(needed), **after}))
        return tuple(run for run in runs if run.automatic and (run.due or 0.0) >= first)

    def _posted(self, wanted: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Runs that are asked for with more than fits into a URL; what is on further pages is a gap."""
        rows: list[Mapping[str, Any]] = []
        for _ in range(MAX_PAGES):
            page = {"page_limit": PAGE_SIZE, "page_offset": len(rows)}
            answer = self.api.read("/dags/~/dagRuns/list", body={**wanted, **page})
            rows += answer["dag_runs"]
            if not answer["dag_runs"] or len(rows) >= answer["total_entries"]:
                return rows
            if self._now() > self._until:
                break
        self.gaps.append(Gap(self._part, f"there are more than {len(rows)}"))
        return rows

    def legs(self, dags: Iterable[Dag], now: float, limit: float) -> tuple[Leg, ...]:
        """The legs of all canaries.

        No version can be asked for the latest success of a task, and v1 does not sort: so all task instances
        are read that have changed in twice the time after which a leg is late.
        """
        found: list[Leg] = []
        for dag in dags:
            if (canary := dag.needs.canary) is not None:
                path = f"/dags/{quote(dag.dag_id, safe='')}/dagRuns/~/taskInstances"
                query = [("updated_at_gte", iso(now - 2 * canary.late_after(limit)))]
                rows = self._pages(path, "task_instances", query)
                found += (_leg(dag.dag_id, name, canary, rows) for name in canary.legs)
        return tuple(found)


def _leg(dag_id: str, name: str, canary: Canary, rows: Iterable[Mapping[str, Any]]) -> Leg:
    """A leg, from task instances of v1 or v2 of its DAG."""
    mine = [(_due(row, canary), row) for row in rows if row["task_id"] == name]
    latest_first = sorted(mine, key=_first, reverse=True)
    ends = [seconds(row["end_date"]) for _, row in latest_first if row["state"] == "success"]
    tried: float | None = None
    for due, row in latest_first:
        # A pause, or a scheduler that was gone, is no try.
        if row["state"] == "success" or (tried is not None and tried - due > 2 * canary.every):
            break
        tried = due
    latest = latest_first[0][1] if latest_first else {"pool": "default_pool", "queue": "default"}
    succeeded = max((end for end in ends if end is not None), default=None)
    return Leg(dag_id, name, succeeded, tried, str(latest["pool"]), str(latest["queue"] or ""))


def _first(pair: tuple[float, Any]) -> float:
    return pair[0]


def _due(row: Mapping[str, Any], canary: Canary) -> float:
    """When the run of a task instance was due. On 2.11 that is the end of its data interval."""
    due = row.get("run_after") or row.get("logical_date")
    return (seconds(due) if due else (seconds(row["execution_date"]) or 0.0) + canary.every) or 0.0


def _dag(row: Mapping[str, Any]) -> Dag:
    """A DAG of v1 or v2."""
    planned = row.get("next_dagrun_run_after", row.get("next_dagrun_create_after"))
    return Dag(
        str(row["dag_id"]),
        seconds(planned),
        seconds(row["last_parsed_time"]),
        scheduled=_scheduled_by_time(row),
        max_active_runs=int(row["max_active_runs"] or 16),
        max_active_tasks=int(row["max_active_tasks"] or 16),
        needs=read_needs(str(tag["name"]) for tag in row["tags"] or ()),
    )


def _identity(row: Mapping[str, Any]) -> Any:
    """What tells a row of a list from all others."""
    names = ("event_log_id", "import_error_id", "name", "dag_id", "dag_run_id", "task_id", "map_index")
    return tuple(row.get(name) for name in names)


def _index(map_index: Any) -> str:
    return f"[{map_index}]" if isinstance(map_index, int) and map_index >= 0 else ""


_NEVER = "never, external triggers only"
_NOT_BY_TIME = ("", "null", "none", "@once", "@continuous", "asset", "partitioned asset", "dataset", _NEVER)


def _scheduled_by_time(row: Mapping[str, Any]) -> bool:
    """Whether runs of the DAG are due at certain times, again and again.

    Source: ``timetable_periodic`` (3.3); ``timetable_summary`` (3.x), ``summary`` of the timetables in
    ``airflow/timetables/simple.py``; ``schedule_interval`` and ``timetable_description`` (2.11).
    """
    if "timetable_periodic" in row:
        return bool(row["timetable_periodic"])
    if "timetable_summary" in row:
        return str(row["timetable_summary"] or "").lower() not in _NOT_BY_TIME
    interval = row.get("schedule_interval")
    if isinstance(interval, Mapping) and interval.get("__type") not in (None, "CronExpression"):
        return True  # a length of time
    shown = interval.get("value") if isinstance(interval, Mapping) else interval
    described = str(row.get("timetable_description") or "").lower()
    return str(shown or "").lower() not in _NOT_BY_TIME and described != _NEVER


def _run(row: Mapping[str, Any]) -> Run:
    """A run of v1 or v2."""
    return Run(
        str(row["dag_id"]),
        str(row["dag_run_id"]),
        str(row["state"]),
        seconds(row.get("run_after") or row.get("data_interval_end") or row.get("logical_date")),
        seconds(row.get("queued_at")),
        seconds(row["start_date"]),
        seconds(row["last_scheduling_decision"]),
        seconds(row.get("end_date")),
        automatic=row["run_type"] in ("scheduled", "asset_triggered", "dataset_triggered"),
        backfill=row["run_type"] == "backfill",
    )


def _waiting(row: Mapping[str, Any]) -> Waiting:
    """A task instance of v1 or v2.

    Its ``queued_when`` counts while it is queued only: one that comes back from a deferral, or is tried
    again, keeps the old one. Source: ``schedule_tis`` of ``DagRun``, ``handle_event_submit`` in
    ``airflow/models/trigger.py`` (2.11, 3.3). v1 has no ``scheduled_when``.
    """
    trigger = row.get("trigger") or {}
    ended = None if row["state"] in UNFINISHED else seconds(row.get("end_date"))
    if row["state"] in ("deferred", "running"):
        moments = [trigger.get("created_date") or row["start_date"]]
    elif row["state"] == "queued" or ended is not None:
        moments = [row.get("scheduled_when"), row["queued_when"]]
    else:
        moments = [row.get("scheduled_when")]
    known = [moment for moment in map(seconds, moments) if moment is not None]
    return Waiting(
        str(row["dag_id"]),
        str(row["dag_run_id"]),
        str(row["task_id"]),
        int(row["map_index"]),
        int(row["try_number"] or 0),
        str(row["state"]),
        str(row["pool"]),
        int(row["pool_slots"] or 1),
        str(row["queue"] or ""),
        min(known, default=None),
        seconds(row["queued_when"]) if row["state"] in ("queued", "running") or ended is not None else None,
        trigger.get("triggerer_id"),
        seconds(row["start_date"]) if ended is not None else None,
        ended,
        str(row.get("executor") or ""),
    )


def _class_of(traceback: Any) -> str:
    """The class of the error at the end of a traceback."""
    lines = str(traceback or "").strip().splitlines()
    found = re.match(r"[\w.]+", lines[-1].strip()) if lines else None
    return found[0] if found else ""
