"""The sensor for every kind of remote job that it did not start itself."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from . import compat, settings
from .compat import AirflowFailException, AirflowSkipException, BaseSensorOperator
from .core.job import Job, Phase
from .core.overrides import NotCalled, check_overrides, overriding_class
from .core.polling import Refused, Wait, after_archive, after_poll
from .core.reconcile import MAX_CRASHES, MEMORY_XCOM, Memory
from .core.retry import Runtime
from .core.text import error_text
from .core.waiting import KILLED_EXIT_CODE, ask_archive, nap, wait_for, why_in_worker
from .deployment import service_name
from .errors import JobError, JobUnreachable, error_of
from .parameters import is_true, warn_ignored_parameters

if TYPE_CHECKING:
    from airflow.sdk import Context

    from .core.polling import PollPolicy
    from .core.service import RemoteService


class _RefusedAtFirstPoll(JobUnreachable, AirflowFailException):
    """The service refused the first poll of a sensor: a retry does not help."""


class RemoteJobSensor(BaseSensorOperator):
    """Wait, without a worker slot, for a remote job that it did not start. It never submits or cancels.

    Subclass it: override `remote_jobs`, `watched`, `until` and `arrived`. ``poke_interval`` is the longest
    time between two polls, at least a second; ``timeout``, ``soft_fail`` and ``execution_timeout`` keep their
    meaning; ``mode`` is ignored where the sensor defers.

    It waits in the worker where it cannot do otherwise. A subclass outside of this package that overrides
    ``poke`` is poked as any sensor of Airflow, as its ``mode`` says, and ``super().poke(context)`` observes
    once. In one that overrides ``execute``, ``super().execute(context)`` returns when the job has arrived, or
    reschedules, where ``mode`` says so; likewise where ``execute`` is called inside of another task, which
    is never rescheduled, and with ``deferrable=False``.

    :param deferrable: ``False``: wait in the worker. Left out: decided as above.
    """

    not_called: ClassVar[Mapping[str, NotCalled]] = {}
    """See `RemoteJobOperator.not_called`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check what a subclass overrides.

        :raises TypeError: a method that decides what is a success, and is never called.
        """
        super().__init_subclass__(**kwargs)
        check_overrides(cls, cls.not_called)

    def __init__(self, *, mode: str = "poke", deferrable: bool | None = None, **kwargs: Any) -> None:
        super().__init__(mode=mode, **kwargs)
        self.deferrable = deferrable
        self._says_deferrable = deferrable is not None
        if not self._why_in_worker():
            warn_ignored_parameters(self, {"mode": ("poke", "the sensor defers, which holds no slot")})

    def remote_jobs(self, context: Context) -> RemoteService:
        """The service to poll. Called after templates are rendered."""
        raise NotImplementedError(f"{type(self).__name__} must override remote_jobs()")

    def watched(self, context: Context) -> Job:
        """The job to observe, in phase QUEUED while its state is unknown."""
        raise NotImplementedError(f"{type(self).__name__} must override watched()")

    def until(self) -> tuple[str, Sequence[str]] | None:
        """A fact's name and the values of it that resume the sensor; ``None``: only the job's end does."""
        return None

    def arrived(self, job: Job) -> bool:
        """Whether `job` has reached the state that the sensor waits for.

        :raises JobError: it cannot reach that state any more.
        """
        if job.phase is Phase.SUCCEEDED:
            return True
        if job.live:
            return False
        raise error_of(job)

    _watched: Job | None = None  # what the pokes of this process observe
    _poked: Wait | None = None  # and what they have observed
    _asked = 0  # how often the archive has been asked about it

    def poke(self, context: Context) -> bool:
        """Observe the job once: whether it has arrived; see `arrived`.

        The pokes of one process follow the rules of every wait: which job is lost, which refusal is final.

        :raises JobUnreachable: the service refuses the first poke, or many in a row.
        """
        now, service = time.time(), self.remote_jobs(context)
        if self._watched is None or self._poked is None:
            self._watched = self.watched(context)
            self._poked = Wait.begin(self._watched, self._poll_policy(), now, now)
            return self._arrived_already(service, self._watched)
        try:
            found = service.observe([self._watched])
        except Exception as error:  # noqa: BLE001 - sorted out by is_transient
            if service.is_transient(error):
                self.log.info("transient error for %s: %s", self._watched.id, error_text(error))
                return False
            self._poked = after_poll(self._poked, Refused(error), now)
            if self._poked.refused >= self._poked.policy.give_up_after_denials:
                raise _unreachable(self._watched, error_text(error)) from None
            return False
        after = after_poll(self._poked, next(iter(found), None), now)
        if after.job.phase is Phase.LOST:
            patience = settings.current().transient_error_timeout
            runtime = Runtime(time.time, time.sleep, random.random, self.log)
            answer = ask_archive(service, after.job, runtime, patience, self._asked)
            self._asked += 1
            after = after_archive(self._poked, after, answer, now, patience)
        self._poked = after
        return self._has_arrived(after.job)

    def execute(self, context: Context) -> Any:
        """Poll once, to succeed or fail at once where possible; else wait: deferred, or in the worker."""
        context = compat.with_task_instance(context)
        caller = compat.calling_task(self, context)
        why = self._why_in_worker(caller.task_id if caller is not None else "")
        self._watched, self._poked, self._asked = None, None, 0
        with self._skipping():
            if not why:
                return self._start(context)
            self.log.info("%s", why)
            pokes = overriding_class(type(self), RemoteJobSensor, "poke")
            if pokes or (self.reschedule and caller is None):
                return super().execute(context)
            return self._wait_here(context, caller)

    def _why_in_worker(self, inside: str = "") -> str:
        return why_in_worker(
            inside=inside,
            overrides=overriding_class(type(self), RemoteJobSensor, "execute"),
            pokes=overriding_class(type(self), RemoteJobSensor, "poke"),
            deferrable=is_true(self.deferrable) if self._says_deferrable else None,
        )

    def _wait_here(self, context: Context, caller: Any) -> None:
        """Wait in this process until the job has arrived.

        :param caller: the task that has called `execute`, if it is not this sensor's own.
        """
        service, job = self.remote_jobs(context), self.watched(context)
        if self._arrived_already(service, job):
            return
        began, until = time.time() if caller is not None else _started(context), self.until()
        stopped: list[bool] = []

        def stops() -> bool:
            return bool(stopped)

        runtime = Runtime(time.time, partial(nap, stops=stops, sleep=time.sleep), random.random, self.log)
        with compat.hearing_kill(context, partial(stopped.append, True)):
            while True:
                waited = wait_for(
                    service,
                    [job],
                    self._poll_policy(),
                    runtime,
                    until=began + self._limit(),
                    stops=stops,
                    reached=lambda seen: bool(until and seen.facts.get(until[0]) in until[1]),
                    archive_timeout=settings.current().transient_error_timeout,
                )
                seen = waited.jobs[0]
                if stops():
                    raise SystemExit(KILLED_EXIT_CODE)
                if waited.refused:
                    raise _unreachable(job, waited.refused, answers=not waited.unanswered)
                if self._has_arrived(seen):
                    return
                if time.time() >= began + self._limit():
                    self._time_out(began, seen)

    @contextmanager
    def _skipping(self) -> Iterator[None]:
        """Skip the task instead of failing it, where ``soft_fail`` or ``never_fail`` asks for it.

        Airflow does this for an event of the trigger, and for nothing else of a deferrable sensor.
        Source: ``resume_execution`` in ``airflow/sdk/bases/sensor.py``.
        """
        from airflow.providers.common.compat.sdk import AirflowSensorTimeout

        try:
            yield
        except (JobError, JobUnreachable, AirflowSensorTimeout) as error:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(str(error)) from error
            raise

    def _start(self, context: Context, crashes: int = 0) -> None:
        """Poll once; defer if the job has not arrived."""
        job = self.watched(context)
        if self._arrived_already(self.remote_jobs(context), job):
            return
        memory = Memory(started=_started(context), crashes=crashes)
        if crashes and time.time() > memory.started + self._limit():
            self._time_out(memory.started, job)
        self._wait(context, memory, job)

    def _arrived_already(self, service: RemoteService, job: Job) -> bool:
        """Whether the job has already reached the state that the sensor waits for.

        :raises JobUnreachable: the service refuses the poll; Airflow does not retry.
        """
        try:
            found = service.observe([job])
        except Exception as error:  # noqa: BLE001 - sorted out by is_transient, or raised
            if not service.is_transient(error):
                raise _RefusedAtFirstPoll(
                    f"cannot observe {job.id}: the service refuses to describe it: {error_text(error)}", job
                ) from None
            if advice := service.lasting(error, 1):
                raise _RefusedAtFirstPoll(
                    f"cannot observe {job.id}: {error_text(error)}. {advice}", job
                ) from None
            self.log.info("transient error for %s (%s): it is polled later", job.id, error_text(error))
            return False
        return bool(found) and self._has_arrived(found[0])

    def _has_arrived(self, job: Job) -> bool:
        """Whether the job has arrived, which is logged; see `arrived`."""
        if not self.arrived(job):
            return False
        self.log.info("%s: %s", job.id, self._state(job))
        return True

    def _state(self, job: Job) -> str:
        """The job's state, in the terms of the state that the sensor waits for."""
        until = self.until()
        return str(job.facts.get(until[0]) if until else job.phase.value)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> None:
        """Succeed, fail, or wait further."""
        job = Job.from_dict(event["jobs"][0])
        if why := event["refused"]:
            raise _unreachable(job, why, answers=not event.get("unanswered"))
        if self._has_arrived(job):
            return
        memory = Memory.from_dict(event["memory"])
        if event["time"]:
            self._time_out(memory.started, job)
        if memory.crashes:
            memory = replace(memory, crashes=0)
            context["ti"].xcom_push(key=MEMORY_XCOM, value=memory.to_dict())
        self._wait(context, memory, job)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Observe the job again when the trigger timed out or crashed.

        :raises JobUnreachable: it has crashed several times in a row.
        """
        if not compat.deferral_failed(next_method):
            return super().resume_execution(next_method, next_kwargs, context)
        error = (next_kwargs or {}).get("error", "unknown")
        self.log.warning("the trigger ended without an event (%s): observing the job again", error)
        ti = context["ti"]
        kept = ti.xcom_pull(task_ids=ti.task_id, key=MEMORY_XCOM, map_indexes=ti.map_index)
        crashes = Memory.recall_crashes(kept) + 1
        with self._skipping():
            if crashes > MAX_CRASHES:
                text = (
                    f"the trigger ended {crashes} times in a row without an event; the last error: {error}. "
                    "Make sure that the triggerer runs and has this package installed"
                )
                raise JobUnreachable(text, None)
            ti.xcom_push(key=MEMORY_XCOM, value=Memory(started=time.time(), crashes=crashes).to_dict())
            return self._start(context, crashes)

    def _limit(self) -> float:
        limit = float(self.timeout)
        return limit if self.execution_timeout is None else min(limit, self.execution_timeout.total_seconds())

    def _time_out(self, began: float, job: Job) -> NoReturn:
        from airflow.providers.common.compat.sdk import AirflowSensorTimeout

        waited = time.time() - began
        raise AirflowSensorTimeout(
            f"waited {waited:.0f} s for {job.id}, which is {job.phase.value}; "
            f"the timeout is {self._limit():.0f} s"
        )

    def _poll_policy(self) -> PollPolicy:
        options = settings.current()
        return replace(
            options.poll_policy(float(self.poke_interval)), unanswered_timeout=options.transient_error_timeout
        )

    def _wait(self, context: Context, memory: Memory, job: Job) -> NoReturn:
        from .triggers import RemoteJobTrigger

        service = self.remote_jobs(context)
        trigger = RemoteJobTrigger(
            service=service_name(self, service),
            address=service.address(),
            jobs=[job.to_dict()],
            memory=memory.to_dict(),
            poll_policy=asdict(self._poll_policy()),
            deadline=memory.started + self._limit(),
            until=self.until(),
            cancel_on_kill=False,
        )
        self.defer(trigger=trigger, method_name="execute_complete")


def _started(context: Context) -> float:
    """The start of the try, in seconds since 1970."""
    started = getattr(context["ti"], "start_date", None)
    return started.timestamp() if started else time.time()


def _unreachable(job: Job, why: str, *, answers: bool = True) -> JobUnreachable:
    problem = "refuses to describe it" if answers else "does not answer"
    return JobUnreachable(f"cannot observe {job.id}: the service {problem}: {why}", job)
