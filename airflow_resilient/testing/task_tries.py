"""Run the tries of one task instance in the process of a test: no scheduler, no database.

Operator and trigger are the real ones, and all values between them are serialized as JSON, as in Airflow.
Processes that die, the scheduler and the triggerer need `LocalAirflow`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from importlib import import_module
from types import SimpleNamespace
from typing import Any

__all__ = ["Deferred", "TaskTries"]


@dataclass(frozen=True)
class Deferred:
    """A try that has released its worker slot.

    :param classpath: of the trigger.
    :param kwargs: of the trigger, as JSON values.
    :param method: the operator's method that is resumed.
    """

    classpath: str
    kwargs: Mapping[str, Any]
    method: str

    def trigger(self) -> Any:
        """The trigger, made from what was stored, as a triggerer makes it."""
        module, _, name = self.classpath.rpartition(".")
        return getattr(import_module(module), name)(**json.loads(json.dumps(self.kwargs)))


def _execute(task: Any, context: dict[str, Any]) -> Any:
    """Call ``execute`` without Airflow's guard against calls outside of a task, which a mixin's has not."""
    execute = type(task).execute
    return getattr(execute, "__wrapped__", execute)(task, context)


@dataclass
class TaskTries:
    """The tries of one task instance, one after the other.

    :param make_operator: creates the operator; called for every visit to a worker, as a worker parses the
        DAG again.
    :param map_index: of a mapped task instance; -1 for one that is not mapped.

    >>> from airflow_resilient.testing import TaskTries
    >>> tries = TaskTries(lambda: NightlyOperator(task_id="nightly"))      # doctest: +SKIP
    >>> tries.run()                                                        # doctest: +SKIP
    """

    make_operator: Callable[[], Any]
    dag_id: str = "dag"
    run_id: str = "run"
    map_index: int = -1
    try_number: int = 0
    max_tries: int = 0
    xcoms: dict[str, Any] = field(default_factory=dict)
    run_started: datetime = field(default_factory=lambda: datetime.now(timezone.utc) - timedelta(seconds=1))
    started: datetime | None = None
    begun_again: int = 0
    left_xcoms: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.max_tries = self.max_tries or (self.make_operator().retries or 0)

    def context(self, task: Any) -> dict[str, Any]:
        """The context of ``execute``, as far as operators of this library read it."""
        ti = SimpleNamespace(
            dag_id=self.dag_id,
            run_id=self.run_id,
            task_id=task.task_id,
            map_index=self.map_index,
            try_number=self.try_number,
            max_tries=self.max_tries,
            start_date=self.started,
            task=task,
            _ti_context_from_server=SimpleNamespace(xcom_keys_to_clear=self.left_xcoms),
            xcom_push=lambda key, value: self.xcoms.update({key: json.loads(json.dumps(value))}),
            xcom_pull=lambda key, **_: self.xcoms.get(key),
        )
        run = SimpleNamespace(run_id=self.run_id, start_date=self.run_started)
        return {
            "ti": ti,
            "task_instance": ti,
            "task": task,
            "dag_run": run,
            "run_id": self.run_id,
            "task_reschedule_count": self.begun_again,
        }

    def start(self) -> Any:
        """Begin the next try: the returned value, or `Deferred`. Earlier tries' XComs go, as in Airflow."""
        self.try_number += 1
        self.begun_again = 0
        return self._begin()

    def begin_again(self, *, rescheduled: bool = True) -> Any:
        """Begin the same try again. The try's memory is lost.

        :param rescheduled: as Airflow does from 3.1.7 on when a worker cannot load the DAG; ``False``: as it
            does when its scheduler has failed a healthy try that was queued to resume. See
            `airflow_resilient.compat.started_before`.
        """
        self.begun_again += rescheduled
        return self._begin()

    def _begin(self) -> Any:
        self.started = datetime.now(timezone.utc)
        self.left_xcoms = [*self.xcoms]
        self.xcoms.clear()
        try:
            return self._visit(_execute)
        finally:
            self.left_xcoms = []  # at a resume, Airflow names none

    def clear(self) -> None:
        """Clear the task instance, which is not running. Source: ``clear_task_instances`` in Airflow."""
        self.max_tries = self.try_number + (self.make_operator().retries or 0)

    def watch(self, deferred: Deferred, timeout: float = 60.0) -> dict[str, Any]:
        """Run the trigger until it reports; its payload.

        :raises TimeoutError: it reported nothing for `timeout` seconds.
        """

        async def first_event() -> Any:
            """The first event's payload."""
            async for event in deferred.trigger().run():
                return event.payload
            raise AssertionError("the trigger ended without an event")

        try:
            payload = asyncio.run(asyncio.wait_for(first_event(), timeout))
        except asyncio.TimeoutError:  # not TimeoutError before Python 3.11
            raise TimeoutError(f"the trigger reported nothing for {timeout:.1f} s") from None
        return dict(json.loads(json.dumps(payload)))

    def resume(self, deferred: Deferred, payload: Mapping[str, Any]) -> Any:
        """Go on with the event's payload: the returned value, or `Deferred` again."""
        method, kwargs = deferred.method, {"event": dict(payload)}
        return self._visit(lambda task, context: task.resume_execution(method, kwargs, context))

    def resume_failed(self, error: str = "Trigger timeout") -> Any:
        """Go on as Airflow does when the trigger timed out or crashed: without an event."""
        return self._visit(lambda task, context: task.resume_execution("__fail__", {"error": error}, context))

    def finish(self, outcome: Any, timeout: float = 60.0) -> Any:
        """Watch and resume until the try has ended: the returned value. Raises what the task raises."""
        end = time.monotonic() + timeout
        while isinstance(outcome, Deferred):
            outcome = self.resume(outcome, self.watch(outcome, max(0.1, end - time.monotonic())))
        return outcome

    def run(self, timeout: float = 60.0) -> Any:
        """One whole try: the returned value. Raises what the task raises."""
        return self.finish(self.start(), timeout)

    def _visit(self, call: Callable[[Any, dict[str, Any]], Any]) -> Any:
        from airflow_resilient.compat import TaskDeferred

        task = self.make_operator()
        context = self.context(task)
        task.pre_execute(context)
        try:
            return call(task, context)
        except TaskDeferred as deferral:
            classpath, kwargs = deferral.trigger.serialize()
            return Deferred(classpath, json.loads(json.dumps(kwargs)), deferral.method_name)
