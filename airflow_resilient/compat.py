"""Every import and behaviour that depends on the version of Airflow. No other module asks for the version.

Fast to import: heavy modules (triggers, XCom) are imported where they are used.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    BaseOperator,
    BaseOperatorLink,
    BaseSensorOperator,
    SkipMixin,
    TaskDeferred,
    conf,
)

from .core.threads import contained, in_own_thread

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = [
    "AirflowException",
    "AirflowFailException",
    "AirflowSkipException",
    "BaseOperator",
    "BaseOperatorLink",
    "BaseSensorOperator",
    "SkipMixin",
    "TaskDeferred",
    "airflow_version",
    "base_url",
    "calling_task",
    "calls_on_kill",
    "conf",
    "current_context",
    "earlier_runs",
    "earlier_runs_that_passed",
    "hearing_kill",
    "hostname",
    "in_thread",
    "interrupts",
    "is_same_task",
    "recall",
    "remember",
    "sees_earlier_runs",
    "short_trigger",
    "state_of",
    "stats",
    "variable",
    "with_task_instance",
    "works_on",
]

log = logging.getLogger(__name__)

T = TypeVar("T")


def airflow_version() -> tuple[int, int]:
    """Major and minor version of the installed Airflow, for example ``(3, 3)``."""
    from airflow import __version__

    major, minor = __version__.split(".")[:2]
    return int(major), int(minor)


def base_url() -> str:
    """The base URL of this Airflow: ``[api] base_url``, on 2.11 the webserver's; may be empty."""
    section = "api" if airflow_version() >= (3, 0) else "webserver"
    return str(conf.get(section, "base_url", fallback="") or "")


def calls_on_kill() -> bool:
    """Whether Airflow calls a trigger's ``on_kill`` when a user ends its task instance: from 3.3 on.

    Before, the trigger is only cancelled, as it also is when the triggerer stops.
    """
    return airflow_version() >= (3, 3)


def deferral_failed(next_method: str) -> bool:
    """Whether a task was resumed only because its trigger timed out or crashed.

    Source: ``TRIGGER_FAIL_REPR`` in ``airflow/sdk/bases/operator.py`` (3.x) and
    ``airflow/models/baseoperator.py`` (2.11).
    """
    return next_method == "__fail__"


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    """`in_own_thread`, for functions that may request a connection from Airflow.

    Before Airflow 3.3 a trigger's thread can get connections only through asgiref's bridge, which is used
    there. Source: ``TriggerCommsDecoder.send`` in ``airflow/jobs/triggerer_job_runner.py``.
    """
    if (3, 0) <= airflow_version() < (3, 3):
        from asgiref.sync import sync_to_async

        # Shielded: a trigger that is cancelled must not cancel a request that has been sent. On 3.0 and 3.1
        # its response would be taken for that of the next request, and the triggerer dies ("Response read
        # out of order").
        call = asyncio.ensure_future(sync_to_async(contained, thread_sensitive=False)(function, *args))
        return await asyncio.shield(call)
    return await in_own_thread(function, *args)


def stats() -> Any:
    """Airflow's metrics client of this process: an object with ``incr`` and ``gauge``.

    Its module has moved. A triggerer of Airflow 3 needs the core's, which that process configures; the Task
    SDK has its own, for tasks. Source: ``TriggererJobRunner._execute``.
    """
    if airflow_version() >= (3, 2):
        from airflow.observability import stats as module
    else:
        from airflow import stats as module  # type: ignore[no-redef]
    return module.Stats


def variable(name: str) -> str | None:
    """The value of an Airflow variable; ``None``: there is none. It is read from any secrets backend."""
    from airflow.providers.common.compat.sdk import Variable

    default: Any = {"default": None} if airflow_version() >= (3, 0) else {"default_var": None}
    found = Variable.get(name, **default)
    return None if found is None else str(found)


def short_trigger(delay: timedelta) -> Any:
    """Airflow's own trigger that fires after a time."""
    from airflow.providers.common.compat.standard.triggers import TimeDeltaTrigger

    return TimeDeltaTrigger(delay)


def hostname() -> str:
    """The name of this machine, as Airflow reports it."""
    from airflow.utils.net import get_hostname

    return str(get_hostname())  # type: ignore[no-untyped-call]


def remember(ti: Any, key: str, value: Any) -> None:
    """Write an XCom of a task instance from its trigger (blocking)."""
    identity = {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id}
    map_index = -1 if ti.map_index is None else ti.map_index
    if airflow_version() >= (3, 0):
        from airflow.sdk.execution_time.xcom import XCom

        XCom.set(key=key, value=value, map_index=map_index, **identity)
    else:
        from airflow.models.xcom import XCom as ModelXCom

        ModelXCom.set(key=key, value=value, map_index=map_index, **identity)


def recall(ti: Any, key: str) -> Any:
    """Read an XCom of a task instance from its trigger (blocking); ``None`` when there is none."""
    identity = {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id}
    map_index = -1 if ti.map_index is None else ti.map_index
    if airflow_version() >= (3, 0):
        from airflow.sdk.execution_time.xcom import XCom

        return XCom.get_one(key=key, map_index=map_index, **identity)
    from airflow.models.xcom import XCom as ModelXCom

    return ModelXCom.get_one(key=key, map_index=map_index, **identity)


def state_of(ti: Any) -> str | None:
    """The state of a task instance in Airflow's database, read from its trigger or its worker (blocking).

    :return: ``"deferred"``, ``"failed"`` ...; ``None`` when it has none (cleared) or does not exist (run
        deleted).
    """
    if airflow_version() < (3, 0):
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session

        with create_session() as session:
            found = (
                session.query(TaskInstance.state)
                .filter_by(dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index)
                .one_or_none()
            )
        return str(found[0]) if found and found[0] else None
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    map_index = -1 if ti.map_index is None else ti.map_index
    states: Mapping[str, Mapping[str, Any]] = RuntimeTaskInstance.get_task_states(
        dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=map_index
    )
    of_run = states.get(ti.run_id, {})
    name = ti.task_id if map_index < 0 else f"{ti.task_id}_{map_index}"
    state = of_run.get(name, of_run.get(ti.task_id))
    return None if state is None else str(getattr(state, "value", state))


def with_task_instance(context: Any) -> Context:
    """The context of ``execute``, completed where somebody calls it with an empty one, or a part of one.

    :raises RuntimeError: there is none, because no task runs in this process.
    """
    missing = [name for name in ("ti", "task", "dag_run") if name not in (context or {})]
    if not missing:
        return cast("Context", context)
    current: Any = current_context()
    return cast("Context", {**context, **{name: current[name] for name in missing}} if context else current)


def is_same_task(operator: Any, task: Any) -> bool:
    """Whether `task`, the task of a context, is this very operator, or what it was made from.

    A mapped task becomes an operator for each of its task instances, and 2.11 runs a copy of the operator
    that the DAG file has made. Source: ``unmap`` of ``MappedOperator``, and ``prepare_for_execution``.
    """
    if task is operator:
        return True
    kind = getattr(task, "operator_class", None) or type(task)
    return kind is type(operator) and task.task_id == operator.task_id


def calling_task(operator: Any, context: Context) -> Any:
    """The task that calls ``execute`` of an operator that is not its own; ``None``: it is its own."""
    tasks = (getattr(context["ti"], "task", None), context["task"])
    if any(is_same_task(operator, task) for task in tasks if task is not None):
        return None
    return next(task for task in reversed(tasks) if task is not None)


_HEARING = threading.Lock()


@contextmanager
def hearing_kill(context: Context, call: Callable[[], object]) -> Iterator[None]:
    """Let `call` be called, too, when Airflow calls ``on_kill`` of the task that runs in this process.

    Airflow calls it in a signal handler, in the main thread, and only for the task that it knows: neither for
    an operator that is called inside of it, nor where a subclass overrides ``on_kill`` without ``super()``.
    Source: ``_on_term`` in ``airflow/sdk/execution_time/task_runner.py`` (3.x), ``signal_handler`` in
    ``airflow/models/taskinstance.py`` (2.11).

    :param call: must not wait for anything, not even for a lock.
    """
    task: Any = getattr(context["ti"], "task", None) or context["task"]
    kept: dict[str, Any] = vars(task)
    with _HEARING:
        listeners = kept.setdefault(_LISTENERS, [])
        if not listeners:
            original = task.on_kill

            def on_kill() -> Any:
                for each in tuple(listeners):
                    each()
                return original()

            kept[_OWN_ON_KILL] = kept.get("on_kill")  # that a user has set on this very object
            kept["on_kill"] = on_kill
        listeners.append(call)
    try:
        yield
    finally:
        with _HEARING:
            listeners.remove(call)
            if not listeners:
                kept.pop("on_kill", None)
                if (own := kept.pop(_OWN_ON_KILL, None)) is not None:
                    kept["on_kill"] = own
                kept.pop(_LISTENERS, None)


_LISTENERS, _OWN_ON_KILL = "_airflow_resilient_on_kill", "_airflow_resilient_own_on_kill"


def interrupts() -> tuple[type[BaseException], ...]:
    """What Airflow raises in the middle of a task, first that of ``execution_timeout``.

    From 3.0 on, SIGTERM raises nothing; on 2.11 the signal handler raises ``AirflowTaskTerminated``.
    """
    if airflow_version() >= (3, 2):
        from airflow.sdk.exceptions import AirflowTaskTerminated, AirflowTaskTimeout
    else:
        from airflow.exceptions import (  # type: ignore[no-redef]
            AirflowTaskTerminated,
            AirflowTaskTimeout,
        )
    return AirflowTaskTimeout, AirflowTaskTerminated, SystemExit, KeyboardInterrupt


def works_on(ti: Any) -> bool:
    """Whether this try, which is on a worker, has no successor yet, as far as Airflow tells (blocking).

    After a lost heartbeat the worker may go on for a while beside the next try. When that one waits for its
    turn, or has deferred, the task instance has another state than one that runs; when it runs, too, the two
    cannot be distinguished here.

    :return: ``True`` also where the state cannot be read (no connection to Airflow).
    """
    of_a_successor = {"up_for_retry", "queued", "deferred"}
    if airflow_version() >= (3, 0):  # in `dag.test` of 2.11 it is the state of the try itself
        of_a_successor.add("scheduled")
    try:
        return state_of(ti) not in of_a_successor
    except Exception as error:  # noqa: BLE001 - whatever it is, the state is unknown
        log.debug("cannot read the state of %s.%s: %s", ti.dag_id, ti.task_id, error)
        return True


def started_before(context: Context) -> bool:
    """Whether Airflow has started this very try before and starts it again, without the try's memory.

    It does in two cases:

    * From 3.1.7 on, a worker that cannot load the DAG (a broken deploy, a bundle that is not available yet)
      reschedules the task instance; a try that was to resume after a deferral then starts from the beginning,
      with the same number. Source: ``_maybe_reschedule_startup_failure`` in Airflow's ``task_runner.py``
      and ``TIRescheduleStatePayload`` in the execution API's ``task_instances.py``.
    * The scheduler fails a healthy try ("state mismatch": it reads of the end of the first visit when the
      task instance is queued to resume), and forgets where it was to go on. What was queued starts as the
      same try from its beginning, if it comes to a worker when the next try is queued. The XComs of the first
      visit are still there then; of the later tries the number alone says that there were others. Seen on
      3.3.2, with an executor that was busy. Source: ``process_executor_events`` in
      ``airflow/jobs/scheduler_job_runner.py``, ``fetch_handle_failure_context`` in
      ``airflow/models/taskinstance.py`` and ``ti_run`` in the execution API's ``task_instances.py`` of 3.3.2.
    """
    ti: Any = context["ti"]
    start = getattr(ti, "_ti_context_from_server", None)
    visited = ti.try_number == 1 and bool(getattr(start, "xcom_keys_to_clear", None))
    return visited or bool(context.get("task_reschedule_count"))


def run_start(context: Context) -> float:
    """Start of the DAG run in seconds since 1970; 0 when it is unknown (``dag.test``)."""
    run: Any = context["dag_run"]
    started = getattr(run, "start_date", None)
    return started.timestamp() if started else 0.0


def current_context() -> Context:
    """The context of the task that runs in this process."""
    from airflow.providers.common.compat.sdk import get_current_context

    return get_current_context()


def sees_earlier_runs() -> bool:
    """Whether a task can query the DAG runs before its own.

    Airflow 3.0.0 to 3.0.5 cannot: their task instances have no ``get_previous_dagrun``.
    Source: ``RuntimeTaskInstance`` in ``airflow/sdk/execution_time/task_runner.py``.
    """
    from airflow import __version__

    numbers = tuple(int(part) for part in re.findall(r"\d+", __version__)[:3])
    return not (3, 0, 0) <= numbers < (3, 0, 6)


@dataclass(frozen=True)
class _OtherTaskInstance:
    """A task instance of another run, for ``get_previous_dagrun``, which reads only these attributes."""

    dag_id: str
    logical_date: datetime

    def get_template_context(self) -> dict[str, Any]:
        return {"dag_run": self}


def _run_before(context: Context, moment: datetime) -> Any:
    """The DAG run with the latest logical date before `moment`, of any type, or ``None`` (Airflow 3)."""
    ti: Any = context["ti"]
    return type(ti).get_previous_dagrun(_OtherTaskInstance(ti.dag_id, moment))


def earlier_runs(context: Context) -> Iterator[Any]:
    """DAG runs with an earlier logical date, latest first; each is queried when the iterator reaches it.

    On 2.11 manual runs are left out, on 3.x they are not.
    """
    run: Any = context["dag_run"]
    if airflow_version() < (3, 0):
        while run := run.get_previous_scheduled_dagrun(run.id):
            yield run
        return
    while run := _run_before(context, run.logical_date):
        yield run


def earlier_runs_that_passed(context: Context) -> Iterator[Any]:
    """`earlier_runs` in which this task, with the same map index, has succeeded."""
    ti: Any = context["ti"]
    map_index = -1 if ti.map_index is None else ti.map_index
    if hasattr(ti, "get_previous_ti") and airflow_version() >= (3, 2):
        moment = context["dag_run"].logical_date
        # Two queries for each run: its task instance, then the run. Runs in between that did not pass cost
        # none.
        while moment and (
            other := ti.get_previous_ti(state="success", logical_date=moment, map_index=map_index)
        ):
            if found := _run_before(context, other.logical_date + timedelta(microseconds=1)):
                yield found
            moment = other.logical_date
        return
    for run in earlier_runs(context):
        if airflow_version() >= (3, 0):
            states = ti.get_task_states(
                dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[run.run_id], map_index=map_index
            )
            passed = "success" in (states.get(run.run_id) or {}).values()
        else:
            instance = run.get_task_instance(ti.task_id, map_index=map_index)
            passed = instance is not None and instance.state == "success"
        if passed:
            yield run
