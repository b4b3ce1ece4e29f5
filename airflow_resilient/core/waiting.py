"""Wait for jobs in this thread, as a worker does that keeps its slot, and the choice whether it does.

Imports the standard library only; a test enforces it.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from threading import Lock
from typing import TYPE_CHECKING, Any

from .decide import Policy
from .job import Phase
from .polling import (
    FIRST_WARNING_SECONDS,
    Refused,
    Silence,
    Unanswered,
    Wait,
    after_archive,
    after_poll,
    after_silence,
    archive_warning,
    backoff_after,
    early_part,
    is_logged,
    tell_change,
)
from .text import error_text

if TYPE_CHECKING:
    from .job import Job
    from .logs import LogCopy
    from .polling import PollPolicy
    from .retry import Runtime
    from .service import RemoteService

NAP_SECONDS = 0.25
"""Seconds after which a sleeping worker looks whether it is being stopped.

Airflow 3 kills the process of a task instance that a user has ended five seconds after SIGTERM, and a sleep
goes on after a signal. Source: ``kill`` in ``airflow/sdk/execution_time/supervisor.py``; PEP 475.
"""

KILLED_EXIT_CODE = 143
"""With which a try ends that is stopped while it waits in the worker: 128 and SIGTERM."""

_HOLDS_A_SLOT = "waiting in the worker, which keeps its slot: "


def why_in_worker(
    *,
    inside: str = "",
    again: bool = False,
    overrides: str = "",
    pokes: str = "",
    deferrable: bool | None = None,
) -> str:
    """Why a task waits in the worker, and how it would wait without a slot; empty: it defers.

    Code after ``super().execute(context)`` expects that the job is over, unless its author says
    ``deferrable=True``: then it leaves with the deferral, as with the providers' operators. Nothing can be
    deferred from inside of another task.

    :param inside: the task that has called ``execute`` of an operator that is not its own.
    :param again: it is not the first call of ``execute`` of this task in this try.
    :param overrides: the class outside of this package that overrides ``execute``.
    :param pokes: that which overrides ``poke``, of a sensor.
    :param deferrable: what the user says; ``None``: nothing.

    >>> why_in_worker(), why_in_worker(deferrable=True)
    ('', '')
    """
    if inside:
        return (
            f"{_HOLDS_A_SLOT}task {inside!r} calls execute() of this operator. Make the operator a task of "
            "the DAG, and it waits without a slot"
        )
    if again:
        return (
            f"{_HOLDS_A_SLOT}execute() is called again in one try, for a further job. Make each job a task "
            "of the DAG, and they wait without a slot"
        )
    if overrides and not deferrable:
        return (
            f"{_HOLDS_A_SLOT}{overrides} overrides execute(), and its code expects the job to be over when "
            "super().execute() returns. To wait without a slot, override remote_jobs(), conclude() and "
            "failure() instead, or arrived() of a sensor; deferrable=True leaves execute() while the job runs"
        )
    if pokes:
        return (
            f"{_HOLDS_A_SLOT}{pokes} overrides poke(), which a triggerer does not call. To wait without a "
            "slot, override until() and arrived() instead"
        )
    if deferrable is False:
        return f"{_HOLDS_A_SLOT}deferrable=False. Leave it out to wait without a slot"
    return ""


class Calls:
    """Counts the calls of ``execute`` of each operator within one visit of a task instance to a worker.

    One process may run several task instances, and one of them several times (``dag.test``). Calls from
    several threads are counted in the order in which they begin.

    :param kept: how many visits are remembered.
    """

    def __init__(self, kept: int = 64) -> None:
        self._kept = kept
        self._lock = Lock()
        self._visits: OrderedDict[tuple[int, Any], tuple[Any, Counter[str]]] = OrderedDict()

    def next(self, ti: Any, attempt: Any, task_id: str) -> int:
        """The number of this call, from 1.

        :param ti: the object that stands for the task instance during this visit.
        :param attempt: its try.
        """
        with self._lock:
            # The object is kept, so that no other one gets its identity.
            _, counts = self._visits.setdefault((id(ti), attempt), (ti, Counter()))
            while len(self._visits) > self._kept:
                self._visits.popitem(last=False)
            counts[task_id] += 1
            return counts[task_id]


def nap(seconds: float, stops: Callable[[], bool], sleep: Callable[[float], None]) -> None:
    """Sleep, but not longer than until `stops` says that the worker is being stopped."""
    while seconds > 0 and not stops():
        sleep(min(seconds, NAP_SECONDS))
        seconds -= NAP_SECONDS


@dataclass(frozen=True)
class Waited:
    """What is known of the jobs at the end of a wait.

    :param jobs: the latest observation of each, in the order in which they were named.
    :param refused: why the wait has ended though a job has not: the service refuses to describe it.
    :param unanswered: it is not a refusal, the service does not answer.
    """

    jobs: tuple[Job, ...]
    refused: str | None = None
    unanswered: bool = False


@dataclass
class _Patience:
    """How long the service has not answered, and what is logged of it."""

    policy: PollPolicy
    runtime: Runtime
    errors: int = 0
    warn_after: float = FIRST_WARNING_SECONDS
    answered: bool = False

    def after_error(self, wait: Wait, text: str) -> float | Unanswered:
        """Seconds until the next poll after an error that may pass, or why there is none."""
        runtime, job_id = self.runtime, wait.job.id
        self.errors += 1
        silent, limit = wait.silent_for(runtime.now()), self.policy.unanswered_timeout
        self.warn_after, notice = after_silence(silent, text, limit, self.warn_after, answered=self.answered)
        if isinstance(notice, Unanswered):
            return notice
        pause = backoff_after(
            self.errors, self.policy.first_interval, self.policy.max_backoff, runtime.random
        )
        if notice is not None:
            notice.tell(job_id, runtime.log)
        elif is_logged(self.errors):
            runtime.log.warning(
                "%s: no answer %d times in a row, polling again in %.0f s (%s)",
                job_id,
                self.errors,
                pause,
                text,
            )
        return pause

    def after_answer(self, wait: Wait) -> None:
        """The service answers."""
        if self.warn_after > FIRST_WARNING_SECONDS:
            Silence(wait.silent_for(self.runtime.now()), None).tell(wait.job.id, self.runtime.log)
        self.errors, self.warn_after, self.answered = 0, FIRST_WARNING_SECONDS, True


def ask_archive(
    service: RemoteService, lost: Job, runtime: Runtime, again_for: float, asked: int = 0
) -> Job | Exception | None:
    """How a job has ended that counts as lost otherwise; an error: its archive may answer later.

    :param asked: how often it has been asked without an answer.
    """
    try:
        return next((job for job in service.recover([lost]) if job.id == lost.id), None)
    except Exception as error:  # noqa: BLE001 - sorted out by is_transient
        again = service.is_transient(error)
        text = service.hide(error_text(error))
        if not again or is_logged(asked + 1):
            runtime.log.warning("%s", archive_warning(lost.id, text, again_for if again else 0.0))
        return error if again else None


def wait_for(
    service: RemoteService,
    jobs: Sequence[Job],
    policy: PollPolicy,
    runtime: Runtime,
    *,
    until: float | None = None,
    stops: Callable[[], bool] = lambda: False,
    reached: Callable[[Job], bool] = lambda job: not job.live,
    log: LogCopy | None = None,
    archive_timeout: float = Policy.transient_error_timeout,
) -> Waited:
    """Poll until each of `jobs` has ended, or until it makes no sense any more (blocking).

    The rules are those of the shared watch of a triggerer; errors that pass end no wait of an operator.

    :param until: the deadline, in seconds since 1970.
    :param stops: whether the worker is being stopped.
    :param reached: whether nothing more is awaited of a job; what has ended is not polled again in any case.
    :param log: copies the log of the first job.
    :param archive_timeout: seconds for which an archive of ended jobs that does not answer is asked again.
    :raises: nothing that the service raises.
    """
    began = runtime.now()
    waits = {job.id: Wait.begin(job, policy, began, began) for job in jobs}
    longest, asked = max(policy.interval, policy.max_backoff), 0
    patience = _Patience(policy, runtime)

    def waited(refused: str | None = None, *, unanswered: bool = False) -> Waited:
        return Waited(tuple(wait.job for wait in waits.values()), refused, unanswered)

    while waiting := [wait for wait in waits.values() if wait.job.live and not reached(wait.job)]:
        now = runtime.now()
        if stops() or (until is not None and now >= until):
            break
        if log is not None and now >= log.due:
            log.copy(next(iter(waits.values())).job, stops)
            continue
        wait = min(waiting, key=lambda each: each.due)
        left = wait.due - now
        if 0 < left <= longest:  # more: the clock was set back
            others = (inf if until is None else until, log.due if log is not None else inf)
            nap(min(wait.due, *others) - now, stops, runtime.sleep)
            continue
        try:
            found = service.observe([wait.job])
        except Exception as error:  # noqa: BLE001 - sorted out by is_transient
            now, text = runtime.now(), service.hide(error_text(error))
            if not service.is_transient(error):
                after = after_poll(wait, Refused(error), now)
                waits[wait.job.id] = after
                if after.refused >= policy.give_up_after_denials:
                    return waited(text)
                continue
            pause = patience.after_error(wait, text)
            if isinstance(pause, Unanswered):
                return waited(f"Unanswered: {pause}", unanswered=True)
            waits = {name: replace(each, due=max(each.due, now + pause)) for name, each in waits.items()}
            continue
        now = runtime.now()
        patience.after_answer(wait)
        seen = next((job for job in found if job.id == wait.job.id), None)
        after = after_poll(wait, seen, now)
        if after.job.phase is Phase.LOST:
            answer = ask_archive(service, after.job, runtime, archive_timeout, asked)
            asked += 1
            after = after_archive(wait, after, answer, now, archive_timeout)
        tell_change(wait.job, after.job, now, runtime.log)
        waits[wait.job.id] = replace(after, due=now + (after.due - now) * early_part(runtime.random))
    return waited()
