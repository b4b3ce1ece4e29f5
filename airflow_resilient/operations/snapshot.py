"""One look at an Airflow over its REST API: what it does, what waits in it, and what is due.

A look sends at most twelve requests, a login, one for each page of a hundred unpaused DAGs, and the further
pages of what waits, is deferred for long, or runs. What cannot be asked is a `Gap`, never an empty list.

A look is a value: `health.diagnose` decides what is wrong. Neither imports Airflow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from ..core.needs import Needs, read_needs
from .airflow_api import iso, seconds
from .task_instances import AirflowApiError

if TYPE_CHECKING:
    from .airflow_api import AirflowApi

T = TypeVar("T")

PAGE_SIZE = 100
"""Rows on a page. Source: ``[api] maximum_page_limit``, 100 by default on 2.11 and 3.x."""

MAX_PAGES = 50
"""Pages of one list; what is on further ones is counted, not read."""

REQUEUED = "stuck in queued reschedule"
GAVE_UP = "stuck in queued tries exceeded"
"""Events of the audit log. Source: ``_maybe_requeue_stuck_ti`` of ``SchedulerJobRunner`` (2.11 to 3.3)."""

UNFINISHED_RUNS = ("queued", "running")


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
    """

    dag_id: str
    next_due: float | None = None
    parsed: float | None = None
    scheduled: bool = True
    max_active_runs: int = 16
    max_active_tasks: int = 16
    needs: Needs = field(default_factory=Needs)


@dataclass(frozen=True)
class Run:
    """A DAG run.

    :param due: when it was due: ``run_after``, on 2.11 the end of its data interval.
    :param queued: when it was created, where Airflow tells it.
    :param decided: when a scheduler has dealt with it last.
    :param scheduled: the scheduler has made it, neither a person nor a backfill.
    """

    dag_id: str
    run_id: str
    state: str
    due: float | None = None
    queued: float | None = None
    started: float | None = None
    decided: float | None = None
    scheduled: bool = True


@dataclass(frozen=True)
class Waiting:
    """A task instance that waits to run, waits in the triggerer, or runs.

    :param since: the earliest time that Airflow tells: scheduled, queued, deferred or started.
    :param queued: when it was queued the last time, for one that is queued.
    :param triggerer: id of the job of its triggerer, for one that is deferred; ``None``: it has none.
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
    """

    name: str
    total: int
    occupied: int = 0
    queued: int = 0

    @property
    def open(self) -> float:
        """Slots that are free."""
        return float("inf") if self.total == -1 else self.total - self.occupied


@dataclass(frozen=True)
class ImportProblem:
    """A DAG file that cannot be imported.

    :param error: the last line of the traceback.
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
class Snapshot:
    """One look. Times are seconds since 1970, by our clock or by that of the database.

    A list is ``None`` where it could not be read; `gaps` says why.

    :param url: of the Airflow.
    :param silent: why there is nothing else: the API does not answer, or refuses the login.
    :param login_refused: it is the login.
    :param version: of the API server that has answered.
    :param database: whether the metadata database works, as Airflow says.
    :param overall: components as ``/health`` tells them: the latest heartbeat of each kind.
    :param peers: each process for itself, that Airflow believes to run; on 3.x.
    :param waiting: every task instance that is scheduled or queued.
    :param running: those that run, the first `MAX_PAGES` pages of them.
    :param deferred: those that have been deferred for longer than was asked for.
    :param runs: every unfinished run.
    :param dags: every DAG that is neither paused nor deleted.
    :param needed: the scheduled runs of DAGs with a *need by*, which were due in the last days.
    :param seconds: how long the look took.
    """

    url: str
    taken: float
    silent: str = ""
    login_refused: bool = False
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
    import_errors: tuple[ImportProblem, ...] | None = None
    requeues: tuple[Requeue, ...] | None = None
    needed: tuple[Run, ...] | None = None
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
    deferred_for: float = 300.0,
    requeued_within: float = 3600.0,
    progress: Callable[[str], object] = str,
    now: Callable[[], float] = time.time,
) -> Snapshot:
    """Take one look. Raises nothing: what cannot be read is a gap, or the whole look is silent.

    :param deferred_for: seconds; task instances that have been deferred for less are not read.
    :param requeued_within: seconds; how far back the audit log is read.
    :param progress: called with the name of each part before it is read.
    """
    began, before = now(), api.requests
    progress("version")
    try:
        v2 = api.is_v2
        version = api.version()
    except AirflowApiError as error:
        return Snapshot(
            api.url,
            began,
            silent=str(error),
            login_refused=error.status in (401, 403),
            requests=api.requests - before,
            seconds=now() - began,
        )
    reader = _Reader(api, v2=v2, progress=progress)
    dags = reader.part("dags", reader.dags)
    # Task instances before runs: a run that ends in between leaves none behind that seems to wait.
    waiting = reader.part("task instances", lambda: reader.instances([("state", "scheduled"), _QUEUED]))
    running = reader.part("running task instances", lambda: reader.instances([("state", "running")]))
    old = iso(began - deferred_for)
    deferred = reader.part(
        "deferred task instances",
        lambda: reader.instances([("state", "deferred"), ("updated_at_lte", old)]),
    )
    runs = reader.part("runs", reader.runs)
    health = reader.part("health", reader.health)
    database, overall = health if health is not None else (None, None)
    return Snapshot(
        api.url,
        began,
        version=version,
        clock_ahead=api.clock_ahead,
        database=database,
        overall=overall,
        peers=reader.part("jobs", reader.jobs) if v2 else None,
        pools=reader.part("pools", reader.pools),
        waiting=waiting,
        running=running,
        deferred=deferred,
        runs=runs,
        dags=dags,
        import_errors=reader.part("import errors", reader.import_errors),
        requeues=reader.part("audit log", lambda: reader.requeues(began - requeued_within)),
        needed=reader.part("runs that are needed", lambda: reader.needed(dags or (), began)),
        gaps=tuple(reader.gaps),
        requests=api.requests - before,
        seconds=now() - began,
    )


_QUEUED = ("state", "queued")
_KINDS = {
    "SchedulerJob": "scheduler",
    "TriggererJob": "triggerer",
    "DagProcessorJob": "dag_processor",
}


class _Reader:
    """Reads the parts of one look, and notes those that cannot be read."""

    def __init__(self, api: AirflowApi, *, v2: bool, progress: Callable[[str], object]) -> None:
        self.api, self.v2, self.gaps = api, v2, list[Gap]()
        self._progress = progress
        self._part = ""

    def part(self, name: str, read: Callable[[], T]) -> T | None:
        """What `read` returns; ``None``, and a gap, where it cannot be read."""
        self._part = name
        self._progress(name)
        try:
            return read()
        except AirflowApiError as error:
            self.gaps.append(Gap(name, str(error), denied=error.status in (401, 403)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self.gaps.append(Gap(name, f"the answer is not that of Airflow's API: {error!r}"))
        return None

    def _pages(
        self, path: str, field_name: str, query: Sequence[tuple[str, str]] = ()
    ) -> list[Mapping[str, Any]]:
        """All rows of a list, at most `MAX_PAGES` pages; the rest is a gap."""
        rows: list[Mapping[str, Any]] = []
        for _ in range(MAX_PAGES):
            page = [("limit", str(PAGE_SIZE)), ("offset", str(len(rows)))]
            found, total = self.api.read_list(path, field_name, [*query, *page])
            rows += found
            if not found or len(rows) >= total:
                return rows
        self.gaps.append(Gap(self._part, f"there are {total}, of which the first {len(rows)} were read"))
        return rows

    def dags(self) -> tuple[Dag, ...]:
        query = [("paused", "false"), ("exclude_stale" if self.v2 else "only_active", "true")]
        return tuple(_dag(row) for row in self._pages("/dags", "dags", query))

    def instances(self, query: Sequence[tuple[str, str]]) -> tuple[Waiting, ...]:
        rows = self._pages("/dags/~/dagRuns/~/taskInstances", "task_instances", query)
        return tuple({each.key: each for each in map(_waiting, rows)}.values())

    def runs(self) -> tuple[Run, ...]:
        query = [("state", state) for state in UNFINISHED_RUNS]
        rows = self._pages("/dags/~/dagRuns", "dag_runs", query)
        return tuple({(each.dag_id, each.run_id): each for each in map(_run, rows)}.values())

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
            Pool(row["name"], int(row["slots"]), int(row["occupied_slots"]), int(row["queued_slots"]))
            for row in self._pages("/pools", "pools")
        )

    def import_errors(self) -> tuple[ImportProblem, ...]:
        rows = self._pages("/importErrors", "import_errors")
        return tuple(
            ImportProblem(str(row["filename"]), seconds(row.get("timestamp")), _last_line(row["stack_trace"]))
            for row in rows
        )

    def requeues(self, after: float) -> tuple[Requeue, ...]:
        events = [REQUEUED, GAVE_UP]
        wanted = [("included_events", each) for each in events]
        query = wanted if self.v2 else [("included_events", ",".join(events))]
        rows = self._pages("/eventLogs", "event_logs", [*query, ("after", iso(after))])
        return tuple(
            Requeue(
                f"{row['dag_id']} / {row['run_id']} / {row['task_id']}",
                seconds(row["when"]) or 0.0,
                row["event"] == GAVE_UP,
            )
            for row in rows
        )

    def needed(self, dags: Iterable[Dag], now: float) -> tuple[Run, ...]:
        """The scheduled runs that count for a *need by*, of all DAGs that have one."""
        needed = {dag.dag_id: dag.needs.by for dag in dags if dag.needs.by}
        if not needed:
            return ()
        first = min(need.deadlines(now)[0] for by in needed.values() for need in by)
        rows: list[Mapping[str, Any]] = []
        # On 2.11 a run is due at the end of its data interval, which cannot be asked for; one that is due now
        # may have begun a month ago, and is among the last ones of its DAG.
        after = {"run_after_gte": iso(first)} if self.v2 else {"end_date_gte": iso(first)}
        for _ in range(MAX_PAGES):
            page = {"page_limit": PAGE_SIZE, "page_offset": len(rows)}
            body = {"dag_ids": sorted(needed), **after, **page}
            answer = self.api.read("/dags/~/dagRuns/list", body=body)
            rows += answer["dag_runs"]
            if not answer["dag_runs"] or len(rows) >= answer["total_entries"]:
                break
        else:
            self.gaps.append(Gap(self._part, f"there are more than {len(rows)}"))
        return tuple(run for run in map(_run, rows) if run.scheduled and (run.due or 0.0) >= first)


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


_NOT_BY_TIME = (
    "",
    "null",
    "none",
    "@once",
    "@continuous",
    "asset",
    "dataset",
    "never, external triggers only",
)


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
    shown = interval.get("value") if isinstance(interval, Mapping) else interval
    described = str(row.get("timetable_description") or "").lower()
    return str(shown or "").lower() not in _NOT_BY_TIME and described not in _NOT_BY_TIME


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
        scheduled=row["run_type"] == "scheduled",
    )


def _waiting(row: Mapping[str, Any]) -> Waiting:
    """A task instance of v1 or v2."""
    trigger = row.get("trigger") or {}
    if row["state"] in ("deferred", "running"):
        moments = [trigger.get("created_date") or row["start_date"]]
    else:
        moments = [row.get("scheduled_when"), row["queued_when"]]
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
        seconds(row["queued_when"]) if row["state"] == "queued" else None,
        trigger.get("triggerer_id"),
    )


def _last_line(traceback: Any) -> str:
    lines = str(traceback or "").strip().splitlines()
    return lines[-1].strip()[:200] if lines else ""
