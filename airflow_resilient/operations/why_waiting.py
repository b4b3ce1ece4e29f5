"""Why a task instance waits, and what to do then. Pure functions."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .mwaa import command, is_mwaa
from .report import counted, some, span

if TYPE_CHECKING:
    from .snapshot import Dag, Pool, Waiting


class Why(Enum):
    """Why a task instance waits."""

    GHOSTS = "ghosts"
    """The pool is full of task instances whose runs have ended."""
    RUN_ENDED = "run-ended"
    """It is one of them."""
    DAG_PAUSED = "dag-paused"
    POOL_MISSING = "pool-missing"
    POOL_NEGATIVE = "pool-negative"
    POOL_TOO_SMALL = "pool-too-small"
    POOL_OVERCOMMITTED = "pool-overcommitted"
    POOL_FULL = "pool-full"
    MAX_ACTIVE_TASKS = "max-active-tasks"
    NO_WORKER = "no-worker"
    NOT_STARTED = "not-started"
    """It is queued, others of its queue start, and nothing takes it back from the executor."""
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class WaitingFacts:
    """What tells why a task instance waits; ``None``: it is not known.

    :param url: of the Airflow.
    :param on_3: it is Airflow 3: ``max_active_tasks`` counts in each run, not in all runs of a DAG.
    :param dags: the DAGs that are not paused, by id.
    :param pools: by name.
    :param ended: keys of what waits although its run has ended.
    :param waiting: every task instance that is scheduled or queued.
    :param running: every task instance that runs.
    :param executors: classes of executors.
    """

    url: str = ""
    on_3: bool = True
    dags: Mapping[str, Dag] | None = None
    pools: Mapping[str, Pool] | None = None
    ended: frozenset[str] = frozenset()
    waiting: tuple[Waiting, ...] = ()
    running: tuple[Waiting, ...] | None = None
    executors: tuple[str, ...] = ()

    def ghosts(self, pool: str) -> list[Waiting]:
        """Queued task instances of ended runs, which occupy slots of a pool."""
        queued = [each for each in self.waiting if each.pool == pool and each.state == "queued"]
        return [each for each in queued if each.key in self.ended]

    def active(self, each: Waiting) -> int | None:
        """How many task instances count for ``max_active_tasks`` of its DAG."""
        if self.running is None:
            return None
        queued = [other for other in self.waiting if other.state == "queued"]
        return sum(
            other.dag_id == each.dag_id and (not self.on_3 or other.run_id == each.run_id)
            for other in (*queued, *self.running)
        )


@dataclass(frozen=True)
class Late:
    """A task instance that has waited too long, and why.

    :param since: in seconds since 1970, by our clock.
    :param subject: what the cause is about: a pool, a DAG, a queue.
    :param limit: for how many seconds it may wait.
    """

    waiting: Waiting
    since: float
    why: Why
    subject: str
    limit: float = 0.0


@dataclass(frozen=True)
class Request:
    """A request to Airflow's REST API.

    :param path: below ``/api/v1`` or ``/api/v2``.
    """

    method: str
    path: str
    body: Mapping[str, Any]


def why_waiting(each: Waiting, facts: WaitingFacts) -> tuple[Why, str]:
    """Why a task instance waits, and what it is about: a pool, a DAG, a queue."""
    if each.key in facts.ended:
        return Why.RUN_ENDED, each.pool
    if facts.dags is not None and each.dag_id not in facts.dags:
        return Why.DAG_PAUSED, each.dag_id
    if each.state == "scheduled" and facts.pools is not None:
        why = _why_pool(each, facts.pools.get(each.pool), facts)
        if why is not None:
            return why, each.pool
    dag = facts.dags.get(each.dag_id) if facts.dags is not None else None
    if each.state == "scheduled":
        active = facts.active(each)
        if dag is not None and active is not None and active >= dag.max_active_tasks:
            return Why.MAX_ACTIVE_TASKS, each.dag_id
        return Why.UNKNOWN, each.dag_id
    if facts.running is not None and any("Celery" in name for name in facts.executors):
        served = {other.queue for other in facts.running}
        if each.queue not in served:
            return Why.NO_WORKER, each.queue
    return Why.NOT_STARTED, each.queue


def _why_pool(each: Waiting, pool: Pool | None, facts: WaitingFacts) -> Why | None:
    """Why its pool does not let it start; ``None``: it does."""
    if pool is None:
        return Why.POOL_MISSING
    if pool.total < -1:
        return Why.POOL_NEGATIVE
    if pool.total != -1 and each.slots > pool.total:
        return Why.POOL_TOO_SMALL
    if pool.open >= each.slots:
        return None
    if facts.ghosts(each.pool):
        return Why.GHOSTS
    return Why.POOL_OVERCOMMITTED if pool.occupied > pool.total else Why.POOL_FULL


def explain(why: Why, subject: str, oldest: Waiting, facts: WaitingFacts) -> tuple[str, str]:
    """The cause as a sentence, and the next step: where possible a command.

    :param subject: what `why_waiting` has named.
    :param oldest: the task instance that has waited longest for this cause.
    """
    pool = (facts.pools or {}).get(oldest.pool)
    used = f"{pool.occupied} of {pool.total} slots are in use" if pool is not None else ""
    ghosts = facts.ghosts(subject)
    causes = {
        Why.RUN_ENDED: "its run has ended"
        + (f", and it still occupies slots of the pool {subject!r}" if oldest.state == "queued" else ""),
        Why.GHOSTS: f"the pool {subject!r} is full ({used}): {counted(len(ghosts), 'queued task instance')} "
        f"of runs that have ended occupy it: {some(each.name for each in ghosts)}",
        Why.DAG_PAUSED: "the DAG is paused, or deleted: its unfinished runs stand still",
        Why.POOL_MISSING: f"there is no pool {subject!r} (apache/airflow#63551)",
        Why.POOL_NEGATIVE: f"the pool {subject!r} has a negative number of slots",
        Why.POOL_TOO_SMALL: f"it needs {oldest.slots} slots, more than the pool {subject!r} has",
        Why.POOL_OVERCOMMITTED: f"the pool {subject!r} was made smaller, or counts what is deferred: {used}",
        Why.POOL_FULL: f"the pool {subject!r} is full: {used}",
        Why.MAX_ACTIVE_TASKS: f"{subject!r} has as many active task instances as max_active_tasks allows",
        Why.NO_WORKER: f"nothing of the queue {subject!r} runs: probably no worker listens on it",
        Why.NOT_STARTED: f"it has its slot, and the executor does not start it: {_busy(subject, facts)}"
        "Airflow takes it back after [scheduler] task_queued_timeout, but not from every executor "
        "(LocalExecutor, up to 3.3)",
        Why.UNKNOWN: "not known: the pool has free slots, and the DAG may run more task instances; perhaps "
        "the executor is full ([core] parallelism)",
    }
    return causes[why], _next_step(why, subject, oldest, ghosts, facts)


def _next_step(
    why: Why, subject: str, oldest: Waiting, ghosts: Sequence[Waiting], facts: WaitingFacts
) -> str:
    name = shlex.quote(subject)
    enough = max(128, oldest.slots)
    clear = clear_command(oldest, facts)
    steps = {
        Why.RUN_ENDED: f"{mark_failed_command(oldest, facts)}; {_CLEARS}",
        Why.GHOSTS: f"{mark_failed_command((*ghosts, oldest)[0], facts)}; {_CLEARS}",
        Why.DAG_PAUSED: f"airflow dags unpause {name}",
        Why.POOL_MISSING: f"airflow pools set {name} {enough} ''",
        Why.POOL_NEGATIVE: slots_command(subject, enough, facts),
        Why.POOL_TOO_SMALL: f"{slots_command(subject, oldest.slots, facts)}; or lower pool_slots of the task",
        Why.POOL_OVERCOMMITTED: "wait, or give it more slots in the UI",
        Why.POOL_FULL: "wait, or give it more slots in the UI",
        Why.MAX_ACTIVE_TASKS: "wait, or raise max_active_tasks of the DAG",
        Why.NO_WORKER: f"airflow celery worker --queues {name}",
        Why.NOT_STARTED: "look at the executor's workers, and add some if they are busy; if they are not: "
        f"{clear}; if that does not help, restart the scheduler, too (apache/airflow#28206)",
        Why.UNKNOWN: "look at the scheduler's log, for the task",
    }
    return steps[why]


_CLEARS = "Airflow then clears failed tasks downstream of it, and their run goes on: look at that run first"
"""Source: ``set_task_instance_state`` in ``airflow/models/dag.py`` (2.11) and of ``SerializedDAG`` (3.3)."""


def is_lost(
    each: Waiting, facts: WaitingFacts, *, after: float, queues_have_workers: bool
) -> tuple[bool, str]:
    """Whether the executor has lost a queued task instance; and why, or why that is not proved.

    :param after: by so many seconds another one must have been queued later, and run already: several
        schedulers, and a broker, do not keep the order to the second.
    :param queues_have_workers: somebody says that living workers listen on every queue.
    """
    if is_mwaa(facts.url):
        return False, "the queue of Amazon MWAA keeps no order, so its queue may just be long"
    if facts.running is None or each.queued is None:
        return False, "whether its queue is just long is not known"
    place = (each.queue, each.executor)
    running = [other for other in facts.running if (other.queue, other.executor) == place]
    later = max(((other.queued or 0.0) - each.queued for other in running), default=0.0)
    if later > after:
        return True, f"something of its queue that was queued {span(later)} later runs already"
    if running:
        return False, (
            "nothing that was queued much later runs, so its queue may just be long: clearing it would put "
            "it at the end"
        )
    if queues_have_workers:
        return True, "nothing of its queue runs, although workers listen on it"
    return False, (
        "nothing of its queue runs: perhaps no worker listens on it; where workers listen on every queue, "
        "say so with --queues-have-workers"
    )


def _busy(queue: str, facts: WaitingFacts) -> str:
    """What else runs in the same queue."""
    count = sum(other.queue == queue for other in facts.running or ())
    return (
        f"its workers may be busy ({counted(count, 'task instance')} of the queue running); " if count else ""
    )


def slots_command(pool: str, slots: int, facts: WaitingFacts) -> str:
    """What gives a pool so many slots; ``airflow pools set`` would also empty its description and more.

    With a mask, v2 demands ``include_deferred``, and does not set it.

    Source: ``create_or_update_pool`` in ``airflow/models/pool.py`` sets everything (2.11, 3.3); a request to
    3.3.2 without ``include_deferred`` was answered with 422, and one with it left it as it was.
    """
    path = f"/pools/{quote(pool, safe='')}?update_mask=slots"
    demanded = {"include_deferred": False} if facts.on_3 else {}
    return _curl(Request("PATCH", path, {"name": pool, "slots": slots, **demanded}), facts)


def clear_command(each: Waiting, facts: WaitingFacts) -> str:
    """What clears this task instance in its run alone: ``airflow tasks clear`` would clear it in all runs."""
    return _curl(clear_request(each, on_3=facts.on_3), facts)


def clear_request(each: Waiting, *, on_3: bool, dry_run: bool = False) -> Request:
    """What clears this task instance in its run alone, and leaves the state of the run as it is.

    On 2.11, all map indexes of a mapped task are cleared.

    Source: ``post_clear_task_instances`` in ``airflow/api_connexion`` (2.11) and ``airflow/api_fastapi``
    (3.3); ``reset_dag_runs`` would let a run that has ended meanwhile go on.

    :param dry_run: Airflow lists what it would clear, and changes nothing.
    """
    task: Any = each.task_id if each.map_index < 0 or not on_3 else [each.task_id, each.map_index]
    body = {
        "dry_run": dry_run,
        "only_failed": False,
        "reset_dag_runs": False,
        "task_ids": [task],
        "dag_run_id": each.run_id,
    }
    return Request("POST", f"/dags/{quote(each.dag_id, safe='')}/clearTaskInstances", body)


def mark_failed_command(each: Waiting, facts: WaitingFacts) -> str:
    """What marks this task instance as failed."""
    return _curl(mark_request(each, "failed", on_3=facts.on_3), facts)


def mark_request(each: Waiting, state: str, *, on_3: bool) -> Request:
    """What gives this task instance a state: ``success``, ``failed`` or ``skipped``."""
    body = {"new_state": state} if on_3 else {"dry_run": False, "new_state": state}
    return Request("PATCH", path_of(each), body)


def path_of(each: Waiting, *more: str) -> str:
    """The path of a task instance, and of what is below it."""
    index = [] if each.map_index < 0 else [str(each.map_index)]
    return _path("dags", each.dag_id, "dagRuns", each.run_id, "taskInstances", each.task_id, *index, *more)


def run_path(each: Waiting, *more: str) -> str:
    """The path of the run of a task instance, and of what is below it."""
    return _path("dags", each.dag_id, "dagRuns", each.run_id, *more)


def _path(*parts: str) -> str:
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def _curl(request: Request, facts: WaitingFacts) -> str:
    if is_mwaa(facts.url):
        return command(facts.url, request.method, request.path, request.body)
    url = f"{facts.url}/api/{'v2' if facts.on_3 else 'v1'}{request.path}"
    login = '"Authorization: Bearer $AIRFLOW_API_TOKEN"' if facts.on_3 else ""
    who = f"-H {login}" if login else '-u "$AIRFLOW_API_USER:$AIRFLOW_API_PASSWORD"'
    return (
        f"curl -X {request.method} {who} -H 'Content-Type: application/json' "
        f"-d {shlex.quote(json.dumps(request.body))} {shlex.quote(url)}"
    )
