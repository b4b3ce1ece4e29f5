"""The operator for every kind of remote job. With `sensors`, the only place that waits.

There are two ways to wait and one core. A visit to a worker ends with a result, an error, or a `_Wait`. A
thin shell defers it, or carries it out in the worker and goes on; both go on with the same reconciler.
"""

from __future__ import annotations

import inspect
import math
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from functools import cache, partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn

from . import compat, settings
from .compat import BaseOperator
from .core.decide import (
    TAKEN_OVER,
    Finish,
    GaveUp,
    OutOfCapacity,
    Policy,
    RequestChanged,
    TimedOut,
    Watch,
    should_cancel,
    submitted_by_this_try,
)
from .core.job import Claim, Job, LogTail, Owner, Phase, call_key, generation_of, task_key
from .core.logs import LOG_END_ATTEMPTS, LogCopy, LogPosition, copy_rest, read_position
from .core.overrides import NotCalled, check_overrides, overriding_class
from .core.polling import PollPolicy
from .core.reconcile import (
    LOG_XCOM,
    MAX_CRASHES,
    MEMORY_XCOM,
    Memory,
    Pause,
    memory_key,
    reconcile,
    running_on_key,
)
from .core.request import UNKNOWN, content_hash
from .core.retry import MAX_ATTEMPTS, Runtime, retry_transient
from .core.text import error_text, without_passwords
from .core.waiting import KILLED_EXIT_CODE, Calls, Waited, nap, wait_for, why_in_worker
from .deployment import namespace, service_name, warn_default_namespace
from .errors import JobTimeout, JobUnreachable, NoCapacity, NotSubmitted, error_of, hiding
from .parameters import is_true, reject, reject_hidden, require_choice

if TYPE_CHECKING:
    from airflow.sdk import Context

    from .core.service import RemoteService

NO_LOG = LogTail()

LEFT_RUNNING = "the worker stops; the job is left running for the next try"


KILL_ATTEMPTS = 2
"""Attempts to cancel a job while Airflow stops the worker, which it gives five seconds."""

_CALLS = Calls()
_OWN = "\0"  # no task_id: the calls of the task's own operator
_HOW_TO_WAIT = {"wait_for_completion", "waiter_delay", "waiter_max_attempts"}


@dataclass
class _Visit:
    """The current visit to a worker, for `on_kill`.

    :param memory: what the visit has done so far.
    :param here: it waits in the worker.
    :param under_way: it has neither returned nor raised: `on_kill` is called by a signal handler.
    :param log_position: how far the job's log has been copied, as JSON values.
    :param job: what it watches, or has seen end.
    """

    context: Context
    service: RemoteService
    owner: Owner
    memory: Memory
    here: bool = False
    under_way: bool = True
    settled: bool = False
    log_position: Any = None
    job: Job | None = None

    def keep(self, memory: Memory) -> None:
        self.memory = memory

    @property
    def call(self) -> str:
        """Which call within the task instance it is; mostly empty. See `Claim.call`."""
        return Claim(self.owner.task_key, 0).call


@dataclass(frozen=True)
class _Wait:
    """The end of a visit that has to wait before it goes on.

    :param jobs: wait until they have ended.
    :param deadline: or until this time, in seconds since 1970.
    :param log: the location of the log of the first one, if it is forwarded.
    :param paused: only the deadline ends the wait; the jobs are not watched.
    :param unconfirmed: claims of submissions that may have taken effect.
    """

    jobs: Sequence[Job] = ()
    deadline: float | None = None
    log: Mapping[str, Any] | None = None
    paused: bool = False
    unconfirmed: Sequence[Claim] = ()


@dataclass(frozen=True)
class _Result:
    """The end of a visit with the return value of the task."""

    value: Any


class RemoteJobOperator(BaseOperator):
    """Run a remote job, at most one at a time per task instance, and wait for it without a worker slot.

    It waits in the worker, and keeps its slot, where it cannot do otherwise: in a subclass outside of this
    package that overrides ``execute``, so that ``super().execute(context)`` returns or raises when the job is
    over; where ``execute`` is called inside of another task; and with ``deferrable=False``. Such a subclass
    defers with ``deferrable=True``, and leaves ``execute`` there.

    Subclass it for a service of your own: override `remote_jobs`, list the templated parameters in
    ``template_fields``, and override the hooks `submitted`, `conclude`, `failure`, `timed_out` and `job_log`
    as needed.

    :param infrastructure_retries: how many times one try resubmits the job after an infrastructure failure
        (Spot, lost host, no capacity). A resubmission uses none of Airflow's ``retries``.
    :param on_clear: ``"restart"``: clearing the task instance cancels a job that still runs, waits for its
        end and starts a new one. ``"reattach"``: a job that still runs is taken over.
    :param on_timeout: when ``execution_timeout`` has passed, counted from the first start of the try over all
        deferrals: ``"cancel"`` the job, wait for its end and fail, or ``"leave"`` it running and fail.
    :param poll_policy: how often to poll; default every 2 s at first and every 30 s later, or as set by
        ``first_poll_interval`` and ``poll_interval`` in ``[airflow_resilient]``.
    :param deferrable: ``False``: wait in the worker, which keeps its slot. Left out: decided as above.
    :raises InvalidParameter: a parameter is wrong.

    At run time `execute` raises `JobFailed`, `JobCancelled`, `JobLost`, `JobTimeout`, `NotSubmitted`,
    `NoCapacity`, `SubmitRefused` or `JobUnreachable`. Where the code of a subclass, or of another task, has
    called it, the deadline raises Airflow's ``AirflowTaskTimeout``, with ``job``, which no ``except
    Exception`` catches.
    """

    not_called: ClassVar[Mapping[str, NotCalled]] = {}
    """What a provider's class of this name calls and this class does not, for subclasses that override it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check what a subclass overrides.

        :raises TypeError: a method that decides which job runs, or what is a success, and is never called.
        """
        super().__init_subclass__(**kwargs)
        check_overrides(cls, cls.not_called)

    def __init__(
        self,
        *,
        infrastructure_retries: int = 2,
        on_clear: Literal["restart", "reattach"] = "restart",
        on_timeout: Literal["cancel", "leave"] = "cancel",
        poll_policy: PollPolicy | None = None,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deferrable = deferrable
        self._says_deferrable = deferrable is not None
        require_choice(self, "on_clear", on_clear, ("restart", "reattach"))
        require_choice(self, "on_timeout", on_timeout, ("cancel", "leave"))
        if not isinstance(infrastructure_retries, int) or infrastructure_retries < 0:
            reject(self, "infrastructure_retries", infrastructure_retries, "a whole number, 0 or more")
        if poll_policy is not None and not isinstance(poll_policy, PollPolicy):
            reject_hidden(self, "poll_policy", poll_policy, "a PollPolicy: PollPolicy(interval=60)")
        if poll_policy is not None and not min(poll_policy.interval, poll_policy.first_interval) > 0:
            reject(self, "poll_policy", poll_policy, "intervals longer than 0 seconds")
        self.infrastructure_retries = infrastructure_retries
        self.on_clear = on_clear
        self.on_timeout = on_timeout
        self.poll_policy = poll_policy or settings.current().poll_policy()
        self.wait_for_completion = True

    # --- hooks for subclasses ---

    def remote_jobs(self, context: Context) -> RemoteService:
        """The service, with the request, for one visit to a worker. Called after templates are rendered.

        Called once for each ``execute`` that waits in the worker; otherwise each time that the task comes to
        a worker, on a new operator: it must ask for the same job then.
        """
        raise NotImplementedError(f"{type(self).__name__} must override remote_jobs()")

    def submitted(self, context: Context, job: Job) -> None:
        """Push XComs and links: when a visit ends with a live job of this try, or adopts an ended one."""

    def conclude(self, context: Context, job: Job, log: LogTail) -> Any:
        """The return value for `job`, which succeeded (or was submitted, without ``wait_for_completion``)."""
        return job.id

    def failure(self, context: Context, job: Job, log: LogTail) -> Exception:
        """The exception for `job`, which did not succeed."""
        return error_of(job, log)

    def timed_out(self, context: Context, job: Job) -> None:
        """Clean up after `job`, which has ended, before `JobTimeout` is raised."""

    def job_log(self) -> Mapping[str, Any] | None:
        """The location of the job's log, for the service's ``read_log``; ``None``: it is not forwarded."""
        return None

    def current_job(self) -> Job | None:
        """The job of this try that was submitted, adopted or seen last; ``None`` while none is known.

        Not a job that the try gives up, nor one whose end it only awaits.
        """
        visit = self._current
        if visit is None:
            return None
        own = [job for job in visit.memory.seen if job.id in visit.memory.own_job_ids]
        return visit.job or max(own, key=lambda job: job.created, default=None)

    log_interval: float = 10.0
    """Seconds between two reads of the job's log."""
    log_lines: int = 10
    """How many of the last lines of the job's log an error contains."""

    _limit: timedelta | None = None  # execution_timeout of the user, where `pre_execute` has extended it
    _current: _Visit | None = None
    _owned: tuple[Any, Owner] | None = None  # the owner of the latest visit, and its context
    _stops = False  # the worker is being stopped
    _first_visit = True  # else `execute` may have filled in parameters of another object

    # --- called by Airflow ---

    def __deepcopy__(self, memo: Any) -> Any:
        """A copy of the operator, as Airflow makes of DAGs. The copy has not run."""
        memo[id(self._current)] = None  # it has clients and the context, which cannot be copied
        memo[id(self._owned)] = None
        return super().__deepcopy__(memo)

    def pre_execute(self, context: Context) -> None:
        """Enforce ``execution_timeout`` here, where Airflow would enforce it before the job can be cancelled.

        Airflow 3 interrupts a visit at any line, also in the middle of a submission. Airflow 2 also fails a
        resume past the deadline without calling any code but `on_kill`. Airflow's own limit is extended
        beyond ours, and remains for a visit to a worker that hangs.
        Source: ``_execute_task`` and ``_defer_task`` in ``airflow/models/taskinstance.py`` (2.11);
        ``_run_execute_callable`` in ``airflow/sdk/execution_time/task_runner.py`` (3.3).
        """
        super().pre_execute(context)
        if self.execution_timeout is not None and self._limit is None:
            self._limit = self.execution_timeout
            self.execution_timeout += timedelta(seconds=self._policy().cancel_grace + 60)

    def execute(self, context: Context) -> Any:
        """Find or submit the job, and wait for it: deferred, or in the worker; then the log says why.

        :return: what `conclude` returns; deferred, Airflow goes on with `execute_complete`.
        """
        context = compat.with_task_instance(context)
        caller = compat.calling_task(self, context)
        owner = self._owner_of_call(context, caller)
        overrides = overriding_class(type(self), RemoteJobOperator, "execute")
        why = why_in_worker(
            inside=caller.task_id if caller is not None else "",
            again=bool(Claim(owner.task_key, 0).call),
            overrides=overrides,
            deferrable=is_true(self.deferrable) if self._says_deferrable else None,
        )
        if not why:
            return self._visit(context, self._first_memory(context), owner, first_visit=True)
        memory = Memory(time.time()) if caller is not None else self._first_memory(context)
        try:
            return self._visit_here(context, memory, owner, caller, why)
        except JobTimeout as error:
            if caller is None and not overrides:
                raise
            # Code around this call may catch Exception, as it does with the provider's operator: Airflow's
            # own error of a timeout is none.
            timeout: Any = compat.interrupts()[0](str(error))
            timeout.job = error.job
            raise timeout from error

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Process the event of the trigger, and decide again."""
        memory = Memory.from_dict(event["memory"])
        jobs = [Job.from_dict(job) for job in event["jobs"]]
        if event["refused"]:
            raise _unreachable(jobs[0], event["refused"])
        memory = replace(memory.update(jobs), crashes=0)
        position = event.get("log_position")
        if position is None and jobs and self.job_log() is not None and not event["log"]:
            position = self._stored_log_position(context) or LogPosition(jobs[0].id).to_dict()
        log = LogTail(tuple(event["log"]))
        return self._visit(context, memory, first_visit=False, log=log, log_position=position)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Observe the job again when the trigger timed out or crashed.

        That says nothing about the job, so it uses no retry.
        """
        if not compat.deferral_failed(next_method):
            return super().resume_execution(next_method, next_kwargs, context)
        error = (next_kwargs or {}).get("error", "unknown")
        self.log.warning("the trigger ended without an event (%s): observing the job again", error)
        for line in (next_kwargs or {}).get("traceback") or ():
            self.log.warning("trigger: %s", line.rstrip())
        memory = self._recalled_memory(context)
        memory = replace(memory, crashes=memory.crashes + 1)
        if memory.crashes > MAX_CRASHES:
            job = next((job for job in memory.seen if job.id in memory.own_job_ids), None)
            subject = job.id if job else "the job, if it was submitted,"
            text = (
                f"the trigger ended {memory.crashes} times in a row without an event; the last error: "
                f"{error}. Nothing watches the job any more, but {subject} may still run; it was not "
                "cancelled. Make sure that the triggerer runs and has this package installed, and let "
                "Airflow retry: the next try takes the job over."
            )
            raise JobUnreachable(text, job)
        return self._visit(context, memory, first_visit=False)

    def on_kill(self) -> None:
        """Cancel the job if its deadline has passed; leave it running otherwise.

        Airflow calls this when the worker is stopped (deploy, scale-in), which must not end the job: the next
        try takes it over. That call comes from a signal handler, in the middle of any line, where locks may
        be held: it only makes the visit end without a submission. Airflow also calls this when
        ``execution_timeout`` has passed on the worker; then the visit has ended.
        """
        visit = self._current
        if visit is None or visit.under_way:
            self._stops = True
            return
        if visit.settled:
            return
        deadline = self._deadline(visit.memory)
        if deadline is None or time.time() < deadline:
            self.log.info(LEFT_RUNNING)
            return
        self._end_at_timeout(visit)

    def _end_at_timeout(self, visit: _Visit) -> None:
        """Do what ``on_timeout`` says with the live jobs of a visit that Airflow has ended."""
        if self.on_timeout == "leave":
            own = [job for job in visit.memory.seen if job.live and job.id in visit.memory.own_job_ids]
            self._mark_left_running(visit, *own)
            return
        self._cancel_at_timeout(visit)

    def _cancel_at_timeout(self, visit: _Visit) -> None:
        """Cancel the live jobs of a visit that Airflow has ended, also one whose submission was under way.

        Not when Airflow shows that another try has the task instance by now: then the job is that try's.
        """
        if not compat.works_on(visit.context["ti"]):
            self.log.info(TAKEN_OVER)
            return
        self._cancel_live(visit, "execution_timeout reached")

    def _cancel_live(self, visit: _Visit, reason: str, attempts: int = MAX_ATTEMPTS) -> None:
        """Cancel the live jobs of a visit, also one whose submission was under way. Raises nothing."""
        service, memory = visit.service, visit.memory
        owner, runtime = memory.first_owner(visit.owner), self._runtime()
        live = {job.id: job for job in memory.seen if job.live and job.id in memory.own_job_ids}

        def find() -> list[Job]:
            return service.find(owner.claims())

        try:
            if unconfirmed := memory.unconfirmed_submission:
                runtime.sleep(service.listing_lag)
                for job in retry_transient(find, service.is_transient, runtime, attempts):
                    if job.live and submitted_by_this_try(job, owner, unconfirmed):
                        live[job.id] = job
            for job in live.values():
                self.log.info("cancelling %s: %s", job.id, reason)
                cancel = partial(service.cancel, job, reason)
                retry_transient(cancel, service.is_transient, runtime, attempts)
        except Exception as error:  # noqa: BLE001 - the try ends anyway, whatever this says
            names = ", ".join(live) or f"the job of claim {memory.unconfirmed_submission}"
            self.log.warning("%s may still run: %s", names, service.hide(error_text(error)))

    # --- one visit to a worker ---

    def _begin(self, context: Context, memory: Memory, owner: Owner, *, here: bool = False) -> _Visit:
        self._owned = (context, owner)
        service = self.remote_jobs(context)
        service_name(self, service)  # before a submission: reject a service that the triggerer cannot import
        service.unattended = not self.wait_for_completion or self.on_timeout == "leave"
        visit = self._current = _Visit(context, service, owner, memory, here=here)
        return visit

    def _visit(
        self,
        context: Context,
        memory: Memory,
        owner: Owner | None = None,
        *,
        first_visit: bool,
        log: LogTail = NO_LOG,
        log_position: Any = None,
    ) -> Any:
        """Do what is due now, then defer, return or raise."""
        self._first_visit = first_visit
        visit = self._begin(context, memory, owner or self._owner_of(context, self))
        visit.log_position = log_position
        try:
            end = self._act(visit, first_visit=first_visit, log=log)
            if isinstance(end, _Wait):
                self._defer(visit, end)
            return end.value
        finally:
            visit.under_way = False
            if self._stops and any(job.live for job in visit.memory.seen):
                self.log.info(LEFT_RUNNING)

    def _visit_here(self, context: Context, memory: Memory, owner: Owner, caller: Any, why: str) -> Any:
        """Do what is due, wait in this process, and go on, until there is something to return or to raise.

        :param caller: the task that has called `execute`, if it is not this operator's own.
        :param why: the reason for waiting here; it is logged when the wait begins.
        """
        with compat.hearing_kill(context, self._stop):
            visit = self._begin(context, memory, owner, here=True)
            deadline = self._deadline_here(visit, caller)
            try:
                end = self._act(visit, first_visit=True, log=NO_LOG, deadline=deadline)
                if isinstance(end, _Wait):
                    self.log.info("%s", why)
                while isinstance(end, _Wait):
                    self._wait_here(visit, end)
                    end = self._act(visit, first_visit=False, log=NO_LOG, deadline=deadline)
            except compat.interrupts() as error:
                self._interrupted(visit, error)
                raise
            finally:
                visit.under_way, visit.settled = False, True
        return end.value

    def _deadline_here(self, visit: _Visit, caller: Any) -> float | None:
        """The deadline of this operator; in a thread, that of the task that has called it, too.

        Airflow enforces that one in the main thread, which may wait for this thread.
        """
        deadline = self._deadline(visit.memory)
        limit = getattr(caller, "execution_timeout", None)
        if limit is None or threading.current_thread() is threading.main_thread():
            return deadline
        theirs = self._first_memory(visit.context).started + float(limit.total_seconds())
        return theirs if deadline is None else min(deadline, theirs)

    def _wait_here(self, visit: _Visit, wait: _Wait) -> None:
        """Carry out a wait in this process.

        :raises SystemExit: the worker is being stopped.
        :raises JobUnreachable: the service refuses to describe the job.
        """
        self._keep_memory(visit)
        if wait.paused:
            nap(max(0.0, (wait.deadline or 0.0) - time.time()), self._is_stopping, time.sleep)
            waited = Waited(())
        else:
            log = self._log_copy(visit, wait)
            waited = wait_for(
                visit.service,
                wait.jobs,
                self.poll_policy,
                self._runtime(visit),
                until=wait.deadline,
                stops=self._is_stopping,
                log=log,
                archive_timeout=self._policy().transient_error_timeout,
            )
            if log is not None:
                visit.log_position = log.position.to_dict()
        visit.keep(visit.memory.update(waited.jobs))
        if self._stops and (wait.paused or any(job.live for job in waited.jobs)):
            raise SystemExit(KILLED_EXIT_CODE)
        if waited.refused:
            raise _unreachable(waited.jobs[0], waited.refused)

    def _log_copy(self, visit: _Visit, wait: _Wait) -> LogCopy | None:
        if not wait.log:
            return None
        job_id = wait.jobs[0].id
        position = read_position(visit.log_position, job_id) or LogPosition(job_id)
        return LogCopy(visit.service, wait.log, position, self._runtime(visit), self.log_interval)

    def _interrupted(self, visit: _Visit, error: BaseException) -> None:
        """Decide about the jobs of a visit that Airflow ends in the middle, outside of its signal handler.

        SIGTERM says nothing about the reason: a deploy must leave the job to the next try, a user's clear or
        mark must end it. So Airflow is asked for the state of the task instance.
        """
        visit.settled = True
        if isinstance(error, compat.interrupts()[0]):  # execution_timeout, of the task that Airflow runs
            self._end_at_timeout(visit)
            return
        if not visit.memory.unconfirmed_submission and not any(job.live for job in visit.memory.seen):
            return
        try:
            state = compat.state_of(visit.context["ti"])
        except Exception as problem:  # noqa: BLE001 - whatever it is, the state is unknown
            self.log.warning("%s; its state in Airflow is unknown: %s", LEFT_RUNNING, error_text(problem))
            return
        if should_cancel(state, self.on_clear):
            reason = f"task instance {state or 'cleared or deleted'} in Airflow"
            self._cancel_live(visit, reason, KILL_ATTEMPTS)
        else:
            self.log.info(LEFT_RUNNING)

    def _stop(self) -> None:
        self._stops = True

    def _is_stopping(self) -> bool:
        return self._stops

    def _act(
        self, visit: _Visit, *, first_visit: bool, log: LogTail, deadline: float | None = None
    ) -> _Wait | _Result:
        """Reconcile: the result, or what must be waited for.

        :param deadline: by default that of the operator.
        :raises: the error of the job, or of the try.
        """
        context, service, memory = visit.context, visit.service, visit.memory
        deadline = self._deadline(memory) if deadline is None else deadline
        before = memory.own_job_ids
        with hiding(service.hide):
            memory, verdict = reconcile(
                service,
                visit.owner,
                memory,
                self._policy(),
                self._runtime(visit),
                deadline=deadline,
                first_visit=first_visit,
                stops=self._is_stopping,
                keep=visit.keep,
                still_ours=partial(compat.works_on, context["ti"]),
            )
        visit.keep(memory)
        self._copy_log_of_ended(visit, verdict)
        if memory.own_job_ids - before:
            warn_default_namespace(self)
        visit.job = verdict.job if isinstance(verdict, Finish) else None
        if isinstance(verdict, Finish) and first_visit:  # adopted: this try has pushed nothing yet
            self.submitted(context, verdict.job)
        if isinstance(verdict, Watch):
            job = verdict.jobs[0]
            ours = job.id in memory.own_job_ids
            if ours:
                self.submitted(context, job)
                if not self.wait_for_completion:
                    self._mark_left_running(visit, job)
                    return _Result(self.conclude(context, job, log))
            if memory.overdue_since is not None:
                deadline = memory.overdue_since + self._policy().cancel_grace
            return _Wait(verdict.jobs, deadline, log=self.job_log() if ours else None)
        if isinstance(verdict, Pause):
            self.log.info("%s", verdict.why)
            now = time.time()
            wake = now + verdict.seconds
            if deadline is not None and now < deadline:
                wake = min(wake, deadline)
            return self._pause(visit, wake)
        if isinstance(verdict, TimedOut | OutOfCapacity | GaveUp | RequestChanged):
            raise self._without_result(visit, verdict)
        assert isinstance(verdict, Finish)  # noqa: S101 - the union is exhausted; mypy needs the assertion
        log = self._end_of_log(visit, verdict.job, log, self.lines_of_log_needed(verdict.job))
        if verdict.job.phase is Phase.SUCCEEDED:
            return _Result(self.conclude(context, verdict.job, log))
        raise self.failure(context, verdict.job, log)

    def _keep_memory(self, visit: _Visit) -> str:
        """Store the memory of the try, and how its service is reached; the name of the service."""
        service = visit.service
        name, address = service_name(self, service), service.address()
        reachable = {"service": name, "address": without_passwords(address), "lookup": service.lookup()}
        # An XCom, which everybody may read.
        kept = {**visit.memory.to_dict(), **reachable, "request": {}}
        visit.context["ti"].xcom_push(key=memory_key(visit.call), value=kept)
        return name

    def _defer(self, visit: _Visit, wait: _Wait) -> NoReturn:
        """Release the slot until the wait is over."""
        from .triggers import RemoteJobTrigger

        service, memory = visit.service, visit.memory
        name = self._keep_memory(visit)
        if wait.log and visit.log_position:
            visit.context["ti"].xcom_push(key=LOG_XCOM, value=visit.log_position)
        trigger = RemoteJobTrigger(
            service=name,
            address=service.address(),
            jobs=[job.to_dict() for job in wait.jobs],
            memory=memory.to_dict(),
            poll_policy=asdict(self.poll_policy),
            deadline=wait.deadline,
            log=wait.log,
            log_interval=self.log_interval,
            log_lines=1 if self.do_xcom_push else 0,
            on_clear=self.on_clear,
            paused=wait.paused,
            unconfirmed=[asdict(claim) for claim in wait.unconfirmed],
            lookup=service.lookup() if wait.unconfirmed else {},
        )
        self.defer(trigger=trigger, method_name="execute_complete")

    def _pause(self, visit: _Visit, until: float) -> _Wait:
        """A wait until a time. A user who ends the task instance meanwhile ends its job, too."""
        memory = visit.memory
        number = memory.unconfirmed_submission
        claims = [claim for claim in visit.owner.claims() if claim.number == number]
        return _Wait(
            jobs=[job for job in memory.seen if job.live],
            deadline=until,
            paused=True,
            unconfirmed=claims,
        )

    def _without_result(
        self, visit: _Visit, verdict: TimedOut | OutOfCapacity | GaveUp | RequestChanged
    ) -> Exception:
        """The error of a try that ends without the end of its job."""
        if isinstance(verdict, RequestChanged):
            differs = (
                f"the request that was built now differs in {', '.join(verdict.fields)} from the one that "
                "this try has submitted before, so another job would have run"
                if verdict.fields
                else "its trigger failed, and with it the record of what this try has submitted before, so "
                "another job might have run, because execute() is overridden"
            )
            return NotSubmitted(
                f"no further job was submitted ({verdict.why}): {differs}. Build the request in "
                "remote_jobs(), from parameters and templates that have the same values at each visit of a "
                "try; a retry submits what it builds itself."
            )
        if isinstance(verdict, TimedOut):
            if self.on_timeout == "leave" and verdict.job is not None and verdict.job.live:
                self._mark_left_running(visit, verdict.job)
            elif verdict.job is not None and not verdict.job.live:
                self.timed_out(visit.context, verdict.job)
            return JobTimeout(self._timed_out(visit, verdict), verdict.job)
        if isinstance(verdict, OutOfCapacity):
            return NoCapacity(
                f"{verdict.why}; the service's responses are in the log above. Retry later, or request less."
            )
        if not verdict.may_have_left:
            return NotSubmitted(f"no job was submitted: {verdict.why}")
        text = (
            f"the service could not be searched: {verdict.why}. A job of an earlier try may still run; it "
            "was not cancelled. The next try, or the orphan sweep, finds it."
        )
        return JobUnreachable(text, None)

    def _runtime(self, visit: _Visit | None = None) -> Runtime:
        """Clock, sleep and log; in a visit that waits in the worker, what stops the worker ends a sleep."""
        sleep = time.sleep
        if visit is not None and visit.here:
            sleep = partial(nap, stops=self._is_stopping, sleep=time.sleep)
        return Runtime(time.time, sleep, random.random, self.log)

    def lines_of_log_needed(self, job: Job) -> int:
        """How many of the last lines of the log of `job`, which has ended, `conclude` or `failure` needs.

        By default one where the return value of a job that has succeeded is pushed, `log_lines` for an error.
        """
        if job.phase is Phase.SUCCEEDED:
            return int(self.do_xcom_push)
        return self.log_lines

    def _stored_log_position(self, context: Context) -> Any:
        """The position that the trigger of this try has stored; ``None`` when there is none."""
        ti = context["ti"]
        try:
            return ti.xcom_pull(task_ids=ti.task_id, key=LOG_XCOM, map_indexes=ti.map_index)
        except Exception as error:  # noqa: BLE001 - the log never changes the result
            self.log.warning("the position in the job's log is unknown: %s", error_text(error))
            return None

    def _copy_log_of_ended(self, visit: _Visit, verdict: Any) -> None:
        """Copy what is left of the log of a job whose end does not end the try well or badly."""
        job_id = visit.log_position.get("job") if isinstance(visit.log_position, Mapping) else None
        for job in visit.memory.seen if not isinstance(verdict, Finish) else ():
            if job.id == job_id and not job.live:
                self._end_of_log(visit, job, NO_LOG, 0)

    def _end_of_log(self, visit: _Visit, job: Job, log: LogTail, needed: int) -> LogTail:
        """Copy what is left of the job's log, and return the last lines that are needed.

        An error of the log is logged, and changes nothing else.

        :param log: the last lines from the trigger, if it has read the log to its end.
        """
        where = self.job_log()
        if where is None or job.phase is Phase.LOST:
            return log
        service, runtime = visit.service, self._runtime(visit)
        lines, known = log.lines, len(log.lines) >= needed
        try:
            stored = visit.log_position or (None if visit.here else self._stored_log_position(visit.context))
            position = read_position(stored, job.id) or LogPosition(job.id)
            if not position.complete:
                wait = needed and not known
                drained = min(job.ended or math.inf, runtime.now()) + service.log_drain if wait else 0.0
                rest, to_the_end = copy_rest(
                    service, job, where, position, runtime, drained=drained, keep=needed
                )
                if not known:
                    lines = rest
                    known = to_the_end and (len(lines) >= needed or position.cursor is None)
        except Exception as error:  # noqa: BLE001 - the log never changes the result
            self.log.warning("the job's log cannot be read: %s", service.hide(error_text(error)))
        if not known:
            try:
                read = partial(service.last_lines, job, where, needed)
                lines = tuple(retry_transient(read, service.is_transient, runtime, LOG_END_ATTEMPTS))
            except Exception as error:  # noqa: BLE001 - the log never changes the result
                self.log.warning(
                    "the end of the job's log cannot be read: %s", service.hide(error_text(error))
                )
        return LogTail(lines)

    def _mark_left_running(self, visit: _Visit, *jobs: Job) -> None:
        """Record that these jobs are left running on purpose: the orphan sweep ignores them."""
        for number in sorted({job.claim.number for job in jobs}):
            ids = [job.id for job in jobs if job.claim.number == number]
            visit.context["ti"].xcom_push(key=running_on_key(number, visit.call), value=ids)

    def _policy(self) -> Policy:
        return Policy(
            infrastructure_retries=self.infrastructure_retries,
            on_timeout=self.on_timeout,
            transient_error_timeout=settings.current().transient_error_timeout,
        )

    def _owner(self, context: Context) -> Owner:
        """The owner of the jobs of the latest visit with this context, else of the try."""
        if self._owned is not None and self._owned[0] is context:
            return self._owned[1]
        return self._owner_of(context, self)

    def _owner_of_call(self, context: Context, caller: Any) -> Owner:
        """The owner of the jobs of this call of `execute`.

        The try's own jobs are those of the first call of the task's own operator. Each other call has jobs of
        its own, and a retry that makes the same calls finds them again.

        :param caller: the task that has called, if it is not this operator's own.
        """
        ti = context["ti"]
        owner = self._owner_of(context, self if caller is None else caller)
        if caller is None and _CALLS.next(ti, ti.try_number, _OWN) == 1:
            return owner
        content = content_hash(self._asked())
        number = _CALLS.next(ti, ti.try_number, f"{self.task_id}\0{content}")
        return replace(owner, task_key=call_key(owner.task_key, self.task_id, number, content))

    def _asked(self) -> dict[str, Any]:
        """What this operator asks for, as far as its parameters say: those given, as they are now."""
        given = getattr(self, "_BaseOperator__init_kwargs", {})  # of Airflow, 2.11 to 3.3
        names = {*self.template_fields, *given} - _of_every_operator()
        return {name: getattr(self, name, given.get(name)) for name in names}

    def _owner_of(self, context: Context, task: Any) -> Owner:
        """The try of the task instance. Retries and clears are those of `task`, which Airflow knows."""
        ti, retries = context["ti"], task.retries or 0
        return Owner(
            task_key(
                namespace(), ti.dag_id, ti.run_id, ti.task_id, -1 if ti.map_index is None else ti.map_index
            ),
            ti.try_number,
            cleared_after_try=min(max(0, ti.max_tries - retries), ti.try_number - 1),
            run_started=compat.run_start(context),
            reattach=self.on_clear == "reattach",
            restarted=compat.started_before(context),
            generation=generation_of(ti.max_tries, retries),
        )

    def _jobs(self, context: Context) -> RemoteService:
        """The service of the current visit, where there is one."""
        visit = self._current
        return visit.service if visit is not None and visit.context is context else self.remote_jobs(context)

    def _first_memory(self, context: Context) -> Memory:
        started = getattr(context["ti"], "start_date", None)
        return Memory(started=started.timestamp() if started else time.time())

    def _recalled_memory(self, context: Context) -> Memory:
        """The memory that the try stored at its last deferral."""
        ti = context["ti"]
        kept = ti.xcom_pull(task_ids=ti.task_id, key=MEMORY_XCOM, map_indexes=ti.map_index)
        memory = Memory.recall(kept, self._owner(context)) if kept else None
        first = self._first_memory(context)
        if memory is None:
            self.log.warning("the XCom %r is missing, or not what this try has stored", MEMORY_XCOM)
            memory = replace(first, unproved=True)
        # An XCom has no record of the request, and what an `execute` of one's own has changed is gone.
        overrides = overriding_class(type(self), RemoteJobOperator, "execute")
        request = UNKNOWN if overrides else memory.request
        return replace(memory, started=min(memory.started, first.started), request=request)

    def _deadline(self, memory: Memory) -> float | None:
        limit = self._limit or self.execution_timeout
        return None if limit is None else memory.started + limit.total_seconds()

    def _timed_out(self, visit: _Visit, verdict: TimedOut) -> str:
        unconfirmed = (
            " It is unknown whether a job was started: the response of the service was lost."
            if visit.memory.unconfirmed_submission
            else ""
        )
        limit = self._limit or self.execution_timeout
        start = "this call" if visit.call else "this try"
        return (
            f"execution_timeout of {limit or 'the calling task'} passed, "
            f"counted from the start of {start}: "
            f"{verdict.why}.{unconfirmed} Raise execution_timeout, or find out why the job takes so long."
        )


@cache
def _of_every_operator() -> frozenset[str]:
    """The parameters that say when and how an operator runs, and not which job: a deploy may change them."""
    classes = (BaseOperator, RemoteJobOperator)
    names = {name for each in classes for name in inspect.signature(each.__init__).parameters}
    return frozenset(names | _HOW_TO_WAIT)


def _unreachable(job: Job, refused: str) -> JobUnreachable:
    text = (
        f"cannot observe {job.id}: the service refuses to describe it ({refused}). The job "
        "may still run; it was not cancelled. Fix the access and let Airflow retry: the next try "
        "takes the job over."
    )
    return JobUnreachable(text, job)
