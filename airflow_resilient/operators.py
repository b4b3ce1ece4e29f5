"""Airflow's side: an operator and a sensor for every kind of remote job. The only file that defers."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from . import compat, settings
from .compat import BaseOperator, BaseSensorOperator, conf
from .errors import (
    InvalidParameter,
    JobCancelled,
    JobError,
    JobFailed,
    JobLost,
    JobTimeout,
    NoCapacity,
    Unobservable,
)
from .jobs import (
    Finish,
    Job,
    Memory,
    OutOfRoom,
    Owner,
    Pause,
    Phase,
    Policy,
    RemoteJobs,
    Senses,
    TimedOut,
    Watch,
    family,
    reconcile,
)
from .parameters import reject, require_choice, say_instead

if TYPE_CHECKING:
    from airflow.sdk import Context

    from .watch import Patience

MEMORY_XCOM = "remote_job"
"""Key of the XCom in which a try keeps what it remembers, for the case that its trigger times out or
crashes."""

LEFT_XCOM = "airflow_resilient_left"
"""Key of the XCom in which a try names the jobs that run on after it on purpose, for the orphan sweep."""

MOST_CRASHES = 5
"""Triggers of one try that may crash in a row; in a triggerer without this package every one does."""

_said: set[str] = set()


@dataclass(frozen=True)
class LogTail:
    """The end of the job's log, as far as it was forwarded."""

    lines: tuple[str, ...] = ()

    @property
    def last_line(self) -> str | None:
        """The last line, ``None`` when there is none."""
        return self.lines[-1] if self.lines else None


class RemoteJobOperator(BaseOperator):
    """Run a remote job, at most one at a time per task instance, and wait for it without a worker slot.

    Subclass it for a service of your own: override `remote_jobs`, name the templated parameters in
    ``template_fields``, and override the hooks `submitted`, `conclude`, `failure`, `timed_out` and `job_log`
    where you need more.

    :param infrastructure_retries: how many times one try submits the job again after a failure of the
        infrastructure (Spot, lost host, no capacity). It costs none of Airflow's ``retries``.
    :param on_clear: ``"restart"``: clearing the task instance cancels a job that still runs, waits for its
        end and starts a new one. ``"reattach"``: a job that still runs is taken over.
    :param on_timeout: when ``execution_timeout`` has passed, counted from the first start of the try over all
        deferrals: ``"cancel"`` the job, wait for its end and fail, or ``"leave"`` it running and fail.
    :param patience: how often to look; default every 2 s at first and every 30 s later, unless ``first_look``
        and ``poll_interval`` in ``[airflow_resilient]`` say otherwise.
    :raises InvalidParameter: a parameter is wrong.

    At run time `execute` raises `JobFailed`, `JobCancelled`, `JobLost`, `JobTimeout`, `NotSubmitted`,
    `NoCapacity`, `SubmitRefused` or `Unobservable`.
    """

    def __init__(
        self,
        *,
        infrastructure_retries: int = 2,
        on_clear: Literal["restart", "reattach"] = "restart",
        on_timeout: Literal["cancel", "leave"] = "cancel",
        patience: Patience | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require_choice(self, "on_clear", on_clear, ("restart", "reattach"))
        require_choice(self, "on_timeout", on_timeout, ("cancel", "leave"))
        if not isinstance(infrastructure_retries, int) or infrastructure_retries < 0:
            reject(self, "infrastructure_retries", infrastructure_retries, "a whole number, 0 or more")
        self.infrastructure_retries = infrastructure_retries
        self.on_clear = on_clear
        self.on_timeout = on_timeout
        self.patience = patience or settings.current().patience()
        self.wait_for_completion = True

    # --- what a subclass overrides ---

    def remote_jobs(self, context: Context) -> RemoteJobs:
        """The service, with the request, for one visit to a worker. Called after templates are rendered."""
        raise NotImplementedError(f"{type(self).__name__} must override remote_jobs()")

    def submitted(self, context: Context, job: Job) -> None:
        """Push XComs and links: whenever a visit ends with a live job of this try, or adopts an ended one."""

    def conclude(self, context: Context, job: Job, log: LogTail) -> Any:
        """The value to return for `job`, which succeeded (or was submitted, where nobody waits for it)."""
        return job.id

    def failure(self, context: Context, job: Job, log: LogTail) -> Exception:
        """The exception to raise for `job`, which ended otherwise."""
        return error_of(job, log)

    def timed_out(self, context: Context, job: Job) -> None:
        """Tidy up behind `job`, which has ended, when the deadline has passed; then the error is raised."""

    def job_log(self) -> Mapping[str, Any] | None:
        """Where the job's log is, for the service's ``read_log``; ``None`` when it is not forwarded."""
        return None

    log_interval: float = 10.0
    """Seconds between two reads of the job's log."""
    log_lines: int = 10
    """How many of the last lines of its log an error shows."""

    _limit: timedelta | None = None  # the user's execution_timeout, where `pre_execute` has moved Airflow's
    _current: tuple[Memory, RemoteJobs, Context] | None = None  # what `on_kill` knows of the visit

    # --- what Airflow calls ---

    def pre_execute(self, context: Context) -> None:
        """Take ``execution_timeout`` over where Airflow would enforce it before the job can be cancelled.

        Airflow 2 fails a resume past the deadline without calling any code but `on_kill`. Its own limit is
        moved behind ours, and remains for a visit to a worker that hangs.
        Source: ``_execute_task`` and ``_defer_task`` in ``airflow/models/taskinstance.py`` (2.11).
        """
        super().pre_execute(context)
        if self.execution_timeout is not None and compat.enforces_timeout_over_deferrals():
            self._limit = self.execution_timeout
            self.execution_timeout += timedelta(seconds=self._policy().cancel_grace + 60)

    def execute(self, context: Context) -> Any:
        """Find or submit the job, then defer."""
        return self._visit(context, self._first_memory(context), fresh=True)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Take in what the trigger saw, and decide again."""
        memory = Memory.unpack(event["memory"])
        jobs = [Job.unpack(job) for job in event["jobs"]]
        if event["refused"]:
            job = jobs[0]
            text = (
                f"{job.id}: the service refuses to be asked about it ({event['refused']}). It may still run; "
                "it was not cancelled. Mend the access and let Airflow retry: the next try takes it over."
            )
            raise Unobservable(text, job)
        memory = replace(memory.update(jobs), crashes=0)
        return self._visit(context, memory, fresh=False, log=LogTail(tuple(event["log"])))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Look again when the trigger timed out or crashed: no news about the job, and no retry spent."""
        if not compat.deferral_failed(next_method):
            return super().resume_execution(next_method, next_kwargs, context)
        error = (next_kwargs or {}).get("error", "unknown")
        self.log.warning("the trigger ended without an event (%s): looking at the job again", error)
        for line in (next_kwargs or {}).get("traceback") or ():
            self.log.warning("trigger: %s", line.rstrip())
        memory = self._recalled_memory(context)
        memory = replace(memory, crashes=memory.crashes + 1)
        if memory.crashes > MOST_CRASHES:
            job = next((job for job in memory.seen if job.id in memory.news), None)
            who = job.id if job else "the job, if there is one,"
            text = (
                f"the trigger ended {memory.crashes} times in a row without an event, at last by: {error}. "
                f"So nobody watches, but {who} may still run; it was not cancelled. See that the triggerer "
                "runs and has this package installed, and let Airflow retry: the next try takes it over."
            )
            raise Unobservable(text, job)
        return self._visit(context, memory, fresh=False)

    def on_kill(self) -> None:
        """Cancel the job if its deadline has passed; leave it running otherwise.

        Airflow calls this when the worker is told to stop (deploy, scale-in), which is no wish to end the
        job: the next try takes it over. It also calls it when ``execution_timeout`` passes on the worker.
        """
        if self._current is None:
            return
        memory, service, context = self._current
        deadline = self._deadline(memory)
        live = [job for job in memory.seen if job.live and job.id in memory.news]
        if deadline is None or time.time() < deadline or self.on_timeout == "leave":
            self.log.info("the worker stops; the job is left running for the next try")
            if deadline is not None and time.time() >= deadline:
                self._leave(context, *live)
            return
        for job in live:
            self.log.info("cancelling %s: execution_timeout reached", job.id)
            service.cancel(job, "execution_timeout reached")

    # --- the one path ---

    def _visit(self, context: Context, memory: Memory, *, fresh: bool, log: LogTail = LogTail()) -> Any:
        """One visit to a worker: reconcile, then wait, return or raise."""
        service = self.remote_jobs(context)
        service_name(self, service)  # refuse what the triggerer could not import before anything is submitted
        owner = self._owner(context)
        self._current = (memory, service, context)
        deadline = self._deadline(memory)
        senses = Senses(time.time, time.sleep, random.random, self.log)
        before = memory.news
        memory, verdict = reconcile(
            service, owner, memory, self._policy(), senses, deadline=deadline, fresh=fresh
        )
        self._current = (memory, service, context)
        if memory.news - before:
            say_default_namespace(self)
        if isinstance(verdict, Finish) and fresh:  # adopted: nothing was pushed by this try yet
            self.submitted(context, verdict.job)
        if isinstance(verdict, Watch):
            job = verdict.jobs[0]
            ours = job.id in memory.news
            if ours:
                self.submitted(context, job)
                if not self.wait_for_completion:
                    self._leave(context, job)
                    return self.conclude(context, job, log)
            self._wait(
                context,
                service,
                memory,
                jobs=verdict.jobs,
                deadline=deadline,
                log=self.job_log() if ours else None,
            )
        if isinstance(verdict, Pause):
            self.log.info("%s", verdict.why)
            now = time.time()
            wake = now + verdict.seconds
            if deadline is not None and now < deadline:
                wake = min(wake, deadline)
            self._wait(context, service, memory, deadline=wake)
        if isinstance(verdict, TimedOut):
            if self.on_timeout == "leave" and verdict.job is not None and verdict.job.live:
                self._leave(context, verdict.job)
            elif verdict.job is not None and not verdict.job.live:
                self.timed_out(context, verdict.job)
            raise JobTimeout(self._timed_out(memory, verdict), verdict.job)
        if isinstance(verdict, OutOfRoom):
            raise NoCapacity(
                f"{verdict.why}; the service's last answers stand above. Retry later or ask for less."
            )
        assert isinstance(verdict, Finish)  # noqa: S101 - the union is exhausted; mypy needs the word
        if verdict.job.phase is Phase.SUCCEEDED:
            return self.conclude(context, verdict.job, log)
        raise self.failure(context, verdict.job, log)

    def _wait(
        self,
        context: Context,
        service: RemoteJobs,
        memory: Memory,
        *,
        jobs: Sequence[Job] = (),
        deadline: float | None = None,
        log: Mapping[str, Any] | None = None,
    ) -> NoReturn:
        """Defer: give the slot back until the jobs have ended or the time has come."""
        from .triggers import RemoteJobTrigger

        if jobs and memory.overdue_since is not None:
            deadline = memory.overdue_since + self._policy().cancel_grace
        context["ti"].xcom_push(key=MEMORY_XCOM, value=memory.pack())
        trigger = RemoteJobTrigger(
            service=service_name(self, service),
            address=service.address(),
            jobs=[job.pack() for job in jobs],
            memory=memory.pack(),
            patience=asdict(self.patience),
            deadline=deadline,
            log=log,
            log_interval=self.log_interval,
            log_lines=self.log_lines,
            on_clear=self.on_clear,
        )
        self.defer(trigger=trigger, method_name="execute_complete")

    def _leave(self, context: Context, *jobs: Job) -> None:
        """Note that these jobs go on running on purpose: the orphan sweep leaves them alone."""
        context["ti"].xcom_push(key=LEFT_XCOM, value=[job.id for job in jobs])

    def _policy(self) -> Policy:
        return Policy(infrastructure_retries=self.infrastructure_retries, on_timeout=self.on_timeout)

    def _owner(self, context: Context) -> Owner:
        ti = context["ti"]
        return Owner(
            family(
                namespace(), ti.dag_id, ti.run_id, ti.task_id, -1 if ti.map_index is None else ti.map_index
            ),
            ti.try_number,
            since=min(max(0, ti.max_tries - (self.retries or 0)), ti.try_number - 1),
            run_started=compat.run_start(context),
            reattach=self.on_clear == "reattach",
            restarted=compat.started_before(context),
        )

    def _first_memory(self, context: Context) -> Memory:
        started = getattr(context["ti"], "start_date", None)
        return Memory(started=started.timestamp() if started else time.time())

    def _recalled_memory(self, context: Context) -> Memory:
        """What the try remembered when it deferred last."""
        ti = context["ti"]
        kept = ti.xcom_pull(task_ids=ti.task_id, key=MEMORY_XCOM, map_indexes=ti.map_index)
        return Memory.unpack(kept) if kept else self._first_memory(context)

    def _deadline(self, memory: Memory) -> float | None:
        limit = self._limit or self.execution_timeout
        return None if limit is None else memory.started + limit.total_seconds()

    def _timed_out(self, memory: Memory, verdict: TimedOut) -> str:
        unsure = (
            " Whether a job was started is not known: the service gave no reliable answer."
            if memory.unsure
            else ""
        )
        return (
            f"execution_timeout of {self._limit or self.execution_timeout} passed, "
            "counted from the start of this try: "
            f"{verdict.why}.{unsure} Raise execution_timeout, or find out why the job takes so long."
        )


class RemoteJobSensor(BaseSensorOperator):
    """Wait for a remote job that somebody else started, without a worker slot. It never submits or cancels.

    Subclass it: override `remote_jobs`, `watched`, `until` and `arrived`. ``poke_interval`` is the longest
    time between two looks; ``timeout``, ``soft_fail`` and ``execution_timeout`` keep their meaning; ``mode``
    has none left.
    """

    def __init__(self, *, mode: str = "poke", **kwargs: Any) -> None:
        super().__init__(mode=mode, **kwargs)
        say_instead(self, {"mode": ("poke", "waiting always defers, which holds no slot")})

    def remote_jobs(self, context: Context) -> RemoteJobs:
        """The service to ask. Called after templates are rendered."""
        raise NotImplementedError(f"{type(self).__name__} must override remote_jobs()")

    def watched(self, context: Context) -> Job:
        """The job to look at, in phase QUEUED as long as nothing is known of it."""
        raise NotImplementedError(f"{type(self).__name__} must override watched()")

    def until(self) -> tuple[str, Sequence[str]] | None:
        """A fact's name and the values of it that are worth a visit; ``None``: only the job's end is."""
        return None

    def arrived(self, job: Job) -> bool:
        """Whether `job` is what the sensor waits for.

        :raises JobError: it cannot come any more.
        """
        if job.phase is Phase.SUCCEEDED:
            return True
        if job.live:
            return False
        raise error_of(job)

    def execute(self, context: Context) -> None:
        """Defer at once: the triggerer looks for all sensors together."""
        self._start(context)

    def _start(self, context: Context, *, crashed: bool = False) -> NoReturn:
        started = getattr(context["ti"], "start_date", None)
        memory = Memory(started=started.timestamp() if started else time.time())
        job = self.watched(context)
        if crashed and time.time() > memory.started + self._limit():
            self._time_out(memory, job)
        self._wait(context, memory, job)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> None:
        """Return, raise, or wait on."""
        job = Job.unpack(event["jobs"][0])
        if event["refused"]:
            raise Unobservable(f"{job.id}: the service refuses to be asked about it: {event['refused']}", job)
        if self.arrived(job):
            self.log.info(
                "%s: %s", job.id, job.facts.get(until[0]) if (until := self.until()) else job.phase.value
            )
            return
        memory = Memory.unpack(event["memory"])
        if event["time"]:
            self._time_out(memory, job)
        self._wait(context, memory, job)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Look again when the trigger timed out or crashed."""
        if not compat.deferral_failed(next_method):
            return super().resume_execution(next_method, next_kwargs, context)
        self.log.warning(
            "the trigger ended without an event (%s): looking again", (next_kwargs or {}).get("error")
        )
        return self._start(context, crashed=True)

    def _limit(self) -> float:
        limit = float(self.timeout)
        return limit if self.execution_timeout is None else min(limit, self.execution_timeout.total_seconds())

    def _time_out(self, memory: Memory, job: Job) -> NoReturn:
        from airflow.providers.common.compat.sdk import AirflowSensorTimeout

        waited = time.time() - memory.started
        raise AirflowSensorTimeout(
            f"waited {waited:.0f} s for {job.id}, which is {job.phase.value}; "
            f"timeout is {self._limit():.0f} s"
        )

    def _wait(self, context: Context, memory: Memory, job: Job) -> NoReturn:
        from .triggers import RemoteJobTrigger

        service = self.remote_jobs(context)
        trigger = RemoteJobTrigger(
            service=service_name(self, service),
            address=service.address(),
            jobs=[job.pack()],
            memory=memory.pack(),
            patience=asdict(settings.current().patience(float(self.poke_interval))),
            deadline=memory.started + self._limit(),
            until=self.until(),
            cancel_on_kill=False,
        )
        self.defer(trigger=trigger, method_name="execute_complete")


def error_of(job: Job, log: LogTail = LogTail()) -> JobError:
    """The exception for a job that did not end well: facts as attributes, the log's end in the message."""
    message = f"{job.id} {job.phase.value}: {job.reason or 'the service gave no reason'}"
    if log.lines:
        message += "\nLast lines of its log:\n" + "\n".join(log.lines)
    if job.phase is Phase.CANCELLED:
        return JobCancelled(
            message
            + " It was stopped on purpose, so Airflow does not retry; clear the task to run it again.",
            job,
        )
    if job.phase is Phase.LOST:
        return JobLost(message + " Look at its output before you run it again.", job)
    return JobFailed(message, job)


# --- this deployment ----------------------------------------------------------------------------


def namespace() -> str:
    """What tells this deployment's jobs from others: ``[airflow_resilient] namespace``, else the base URL."""
    return str(conf.get("airflow_resilient", "namespace", fallback="") or compat.base_url())


def say_default_namespace(task: Any) -> None:
    """Say once per process that nothing tells this deployment from others."""
    if "namespace" in _said:
        return
    _said.add("namespace")
    if not namespace() or "://localhost" in namespace():
        task.log.warning(
            "Neither [airflow_resilient] namespace nor a public base URL is set. A second Airflow that "
            "runs the same DAGs in this account would share its remote jobs with this one: give each its "
            "own namespace."
        )


def service_name(task: Any, service: RemoteJobs) -> str:
    """``module:Class`` of a service, as the triggerer imports it.

    :raises InvalidParameter: the triggerer cannot import it, or its address is not JSON.
    """
    kind = type(service)
    if kind.__module__.startswith("unusual_prefix_") or kind.__module__ == "__main__":
        where = getattr(sys.modules.get(kind.__module__), "__file__", "a DAG file")
        raise InvalidParameter(
            f"task {task.task_id!r}: {kind.__qualname__} is defined in {where}, which the triggerer "
            "cannot import; move the class to a module on the Python path (or in the plugins folder)"
        )
    try:
        json.dumps(service.address())
    except TypeError as error:
        raise InvalidParameter(
            f"task {task.task_id!r}: {kind.__qualname__}.address() must return JSON values: {error}"
        ) from None
    return f"{kind.__module__}:{kind.__qualname__}"
