"""Every import and behaviour that depends on the version of Airflow. Nothing else may ask for the version.

Light to import: what is heavy (triggers, XCom) is imported where it is used.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

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

from .threads import in_own_thread

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
    "calls_on_kill",
    "conf",
    "current_context",
    "earlier_runs",
    "earlier_runs_that_passed",
    "hostname",
    "in_thread",
    "recall",
    "remember",
    "sees_earlier_runs",
    "state_of",
    "stats",
]

T = TypeVar("T")


def airflow_version() -> tuple[int, int]:
    """Major and minor version of the Airflow that runs, for example ``(3, 3)``."""
    from airflow import __version__

    major, minor = __version__.split(".")[:2]
    return int(major), int(minor)


def base_url() -> str:
    """What users type to see this Airflow: ``[api] base_url``, on 2.11 the webserver's; may be empty."""
    section = "api" if airflow_version() >= (3, 0) else "webserver"
    return str(conf.get(section, "base_url", fallback="") or "")


def enforces_timeout_over_deferrals() -> bool:
    """Whether Airflow itself counts ``execution_timeout`` from the first start of a try: 2.x does."""
    return airflow_version() < (3, 0)


def calls_on_kill() -> bool:
    """Whether Airflow calls a trigger's ``on_kill`` when a person ends its task instance: from 3.3 on.

    Before, the trigger is stopped without a word, as it also is when the triggerer stops.
    """
    return airflow_version() >= (3, 3)


def deferral_failed(next_method: str) -> bool:
    """Whether a resume only reports that the trigger timed out or crashed.

    Source: ``TRIGGER_FAIL_REPR`` in ``airflow/sdk/bases/operator.py`` (3.x) and
    ``airflow/models/baseoperator.py`` (2.11).
    """
    return next_method == "__fail__"


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    """`in_own_thread`, for functions that may ask Airflow for a connection.

    Before Airflow 3.3 a trigger's thread can reach connections only through asgiref's bridge, so that is used
    there. Source: ``TriggerCommsDecoder.send`` in ``airflow/jobs/triggerer_job_runner.py``.
    """
    if (3, 0) <= airflow_version() < (3, 3):
        from asgiref.sync import sync_to_async

        # Shielded: a trigger that is cancelled must not take along a question that has been sent. On 3.0 and
        # 3.1 its answer would be taken for the next one's, and the triggerer dies ("Response read out of
        # order").
        asking = asyncio.ensure_future(sync_to_async(function, thread_sensitive=False)(*args))
        return await asyncio.shield(asking)
    return await in_own_thread(function, *args)


def stats() -> Any:
    """Airflow's metrics in this process: something with ``incr`` and ``gauge``.

    Its place has moved. In a triggerer of Airflow 3 it must be the core's, which that process sets up; the
    Task SDK has one of its own, for tasks. Source: ``TriggererJobRunner._execute``.
    """
    if airflow_version() >= (3, 2):
        from airflow.observability import stats as module
    else:
        from airflow import stats as module  # type: ignore[no-redef]
    return module.Stats


def hostname() -> str:
    """The name of this machine, as Airflow tells it."""
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
    """The state of a task instance by Airflow's record, asked from its trigger (blocking).

    :return: ``"deferred"``, ``"failed"`` ...; ``None`` when it has none (cleared) or does not exist (run
        deleted).
    :raises LookupError: this version of Airflow does not tell.
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


def started_before(context: Context) -> bool:
    """Whether Airflow has begun this very try before and begins it again, without what it remembered.

    From 3.1.7 on, a worker that cannot load the DAG (a broken deploy, a bundle that is not there yet) sends
    the task instance back; a try that was to go on after a deferral then starts from its beginning, under the
    same number. Source: ``_maybe_reschedule_startup_failure`` in Airflow's ``task_runner.py``
    and ``TIRescheduleStatePayload`` in the execution API's ``task_instances.py``.
    """
    return bool(context.get("task_reschedule_count"))


def run_start(context: Context) -> float:
    """Start of the DAG run in seconds since 1970; 0 when it is not known (``dag.test``)."""
    run: Any = context["dag_run"]
    started = getattr(run, "start_date", None)
    return started.timestamp() if started else 0.0


def current_context() -> Context:
    """The context of the task that runs in this process."""
    from airflow.providers.common.compat.sdk import get_current_context

    return get_current_context()


def sees_earlier_runs() -> bool:
    """Whether a task can ask for the DAG runs before its own.

    Airflow 3.0.0 to 3.0.5 cannot: their task instances have no ``get_previous_dagrun``.
    Source: ``RuntimeTaskInstance`` in ``airflow/sdk/execution_time/task_runner.py``.
    """
    from airflow import __version__

    numbers = tuple(int(part) for part in re.findall(r"\d+", __version__)[:3])
    return not (3, 0, 0) <= numbers < (3, 0, 6)


@dataclass(frozen=True)
class _AskedFrom:
    """Stands in for a task instance of another run in ``get_previous_dagrun``, which reads only these."""

    dag_id: str
    logical_date: datetime

    def get_template_context(self) -> dict[str, Any]:
        return {"dag_run": self}


def _run_before(context: Context, moment: datetime) -> Any:
    """The DAG run with the latest logical date before `moment`, of any type, or ``None`` (Airflow 3)."""
    ti: Any = context["ti"]
    return type(ti).get_previous_dagrun(_AskedFrom(ti.dag_id, moment))


def earlier_runs(context: Context) -> Iterator[Any]:
    """DAG runs with an earlier logical date, latest first; one query each, made when it is asked for.

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
    """`earlier_runs` in which this very task instance, same map index, has succeeded."""
    ti: Any = context["ti"]
    map_index = -1 if ti.map_index is None else ti.map_index
    if hasattr(ti, "get_previous_ti") and airflow_version() >= (3, 2):
        moment = context["dag_run"].logical_date
        # One query for the task instance, one for its run: however many runs did not pass in between.
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
