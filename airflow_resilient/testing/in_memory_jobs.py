"""A service in memory, for tests of operators and of everything else that works with a `RemoteService`.

Jobs take time by a clock that the test moves, end the way the test says, are listed late and forgotten in
the end. Calls are throttled, lose their answers, or take the process down on demand. The record
shows the true state, whatever the code under test assumes. Imports the standard library only.
"""

from __future__ import annotations

import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, count
from threading import RLock
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from airflow_resilient.core.job import FROM_ARCHIVE, NO_CLAIM, Cause, Claim, Job, Phase
from airflow_resilient.core.service import NoCapacityMarker, RemoteService

__all__ = ["AnswerLost", "Call", "Crash", "InMemoryJobs", "JobPlan", "RealJob", "Throttled"]

Method: TypeAlias = Literal["find", "submit", "observe", "cancel", "find_forgotten", "recover"]
Moment: TypeAlias = Literal["before", "after"]
_Answer = TypeVar("_Answer")


class Throttled(Exception):
    """The service throttled a call; nothing was carried out."""


class AnswerLost(Exception):
    """The call was carried out, and its answer did not arrive."""


class Crash(BaseException):
    """The process that made the call died. No ``except Exception`` sees it, as none would see a SIGKILL."""


@dataclass(frozen=True)
class JobPlan:
    """The course of a job without interference.

    :param seconds: how long it runs; ``None``: until :meth:`InMemoryJobs.finish` or a cancel ends it.
    :param queued: seconds before it begins to run.
    :param phase: SUCCEEDED, FAILED, or CANCELLED (by a person, whatever `cause` says).
    :param cause: what ended it; by default UNKNOWN for success, APPLICATION for failure, USER for CANCELLED.
    :param exit_code: by default 0 for success and 1 for failure by the application.
    """

    seconds: float | None = 60.0
    queued: float = 0.0
    phase: Phase = Phase.SUCCEEDED
    cause: Cause | None = None
    exit_code: int | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        if self.phase not in _ENDS:
            raise ValueError(
                f"a plan ends with one of {[phase.name for phase in _ENDS]}, not with {self.phase!r}"
            )
        default_cause, default_code = _ENDS[self.phase]
        if self.cause is None:
            object.__setattr__(self, "cause", default_cause)
        if self.exit_code is None and self.cause is default_cause:
            object.__setattr__(self, "exit_code", default_code)


_ENDS: dict[Phase, tuple[Cause, int | None]] = {
    Phase.SUCCEEDED: (Cause.UNKNOWN, 0),
    Phase.FAILED: (Cause.APPLICATION, 1),
    Phase.CANCELLED: (Cause.USER, None),
}


@dataclass
class RealJob:
    """The service's record of one job: its true state, whatever the code under test assumes.

    :param ends: when it ends or ended, by the service's clock; ``None`` while that is open.
    :param stop_asked: when its end was asked for with ``cancel`` for the first time, with `stop_reason`.
    """

    id: str
    claim: Claim
    scope: str
    created: float
    plan: JobPlan
    ends: float | None = None
    stop_asked: float | None = None
    stop_reason: str = ""
    stopped: bool = False

    def ended(self, now: float) -> bool:
        """Whether it has ended by `now`."""
        return self.ends is not None and self.ends <= now

    def observe(self, now: float) -> Job:
        """The true observation at `now`."""
        # A claim is read back from the name on the job, and the resubmission is not part of that.
        job = Job(self.id, replace(self.claim, resubmission=0), Phase.RUNNING, self.created, self.scope)
        if not self.ended(now):
            if self.stop_asked is not None:
                return replace(job, phase=Phase.STOPPING, reason=self.stop_reason)
            return replace(job, phase=Phase.QUEUED) if now < self.created + self.plan.queued else job
        if self.stopped:
            return replace(
                job, phase=Phase.CANCELLED, cause=Cause.USER, reason=self.stop_reason, ended=self.ends
            )
        cause = self.plan.cause or Cause.UNKNOWN
        end = replace(job, phase=self.plan.phase, cause=cause, ended=self.ends)
        return replace(end, reason=self.plan.reason, exit_code=self.plan.exit_code)

    def overlaps(self, other: RealJob, now: float) -> bool:
        """Whether both were alive at one moment up to `now`."""
        first, second = sorted((self, other), key=lambda job: job.created)
        return first.ends is None or min(first.ends, now) > second.created


class Call(NamedTuple):
    """One call: when, which, and about which claims or job ids."""

    time: float
    method: str
    about: tuple[str, ...]


@dataclass
class _Fault:
    error: BaseException
    moment: Moment
    method: Method | None


@dataclass
class _Account:
    """The state that all handles of one name share."""

    now: float
    clock: Callable[[], float] | None
    tokens: bool
    lag: float
    unknown_for: float
    forget_after: float | None
    archive: bool
    cancel_seconds: float
    capacity: int | None
    call_seconds: float
    interfere: Callable[[Method, Moment], None] | None
    listing_lag: float
    batch_size: int
    plan: JobPlan | Callable[[Claim], JobPlan]
    plans: deque[JobPlan] = field(default_factory=deque)
    faults: list[_Fault] = field(default_factory=list)
    history: list[RealJob] = field(default_factory=list)
    journal: list[Call] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    lock: RLock = field(default_factory=RLock)


_ACCOUNTS: weakref.WeakValueDictionary[str, _Account] = weakref.WeakValueDictionary()
_SERIAL = count(1)


class InMemoryJobs(RemoteService):
    """A service of remote jobs in memory: a `RemoteService` that a test controls.

    It replaces your operator's service, and needs no Airflow and no network:

    >>> from airflow_resilient.core.decide import Policy
    >>> from airflow_resilient.core.job import Owner
    >>> from airflow_resilient.core.reconcile import Memory, reconcile
    >>> from airflow_resilient.core.retry import Runtime
    >>> jobs = InMemoryJobs(seconds=300)
    >>> me, runtime = Owner("abcdefghijklmnop", try_number=1), Runtime(jobs.now, jobs.advance, lambda: 0.5)
    >>> jobs.crash("submit", "after")  # the worker dies right after its job was accepted
    >>> try:
    ...     reconcile(jobs, me, Memory(jobs.now()), Policy(), runtime)
    ... except Crash:
    ...     print(len(jobs.live()))
    1

    The next try finds the job and waits for it:

    >>> me = Owner("abcdefghijklmnop", try_number=2)
    >>> memory, verdict = reconcile(jobs, me, Memory(jobs.now()), Policy(), runtime)
    >>> verdict.why
    'job-1: found job of claim af-abcdefghijklmnop-1, still running: watching it'
    >>> jobs.advance(300)
    >>> memory = memory.update(jobs.observe(verdict.jobs))
    >>> memory, verdict = reconcile(jobs, me, memory, Policy(), runtime, first_visit=False)
    >>> verdict.job.phase.name, len(jobs.history), jobs.overlaps()
    ('SUCCEEDED', 1, [])

    ``InMemoryJobs(**jobs.address())`` is another handle on the same jobs, as the triggerer makes one (in the
    same process). The jobs live as long as one of the handles does.

    :param name: names the account; handles of one name share everything, and the first one's settings apply.
    :param scope: where the jobs of this handle live. `find` and tokens do not reach beyond it; observations
        and cancels do.
    :param tokens: whether a repeated token is answered by the job that it has started, as long as that job is
        known.
    :param seconds: how long a job runs, unless :meth:`plan` says otherwise: a number, ``None`` for "until
        :meth:`finish`", a `JobPlan`, or a function of the claim that returns one.
    :param lag: seconds before `find` lists a new job.
    :param unknown_for: seconds before `observe` knows a new job.
    :param forget_after: seconds after its end at which a job is forgotten; ``None``: never.
    :param archive: whether an archive knows how forgotten jobs have ended.
    :param cancel_seconds: how long a cancelled job takes to stop; it may end by itself before.
    :param capacity: how many jobs can live at once; beyond that `submit` raises `NoCapacityMarker`.
    :param call_seconds: how long a call takes: moves the clock, so that jobs end while somebody polls.
    :param clock: where time comes from; by default it starts now and moves only by :meth:`advance` and calls.
    :param interfere: called before and after the effect of each call with its name and ``"before"`` or
        ``"after"``; what it raises, the caller gets. For random faults, and for doing something in between.
    :param listing_lag: what the service claims its lag to be; by default the truth.
    :param batch_size: how many jobs `observe` takes at once.

    :ivar history: every job that was ever started, as `RealJob`.
    :ivar calls: how often each method was called.
    :ivar journal: every `Call`.
    """

    def __init__(  # noqa: PLR0913 - all are keyword-only
        self,
        name: str = "",
        *,
        scope: str = "memory",
        tokens: bool = True,
        seconds: float | JobPlan | Callable[[Claim], JobPlan] | None = 60.0,
        lag: float = 0.0,
        unknown_for: float = 0.0,
        forget_after: float | None = None,
        archive: bool = False,
        cancel_seconds: float = 0.0,
        capacity: int | None = None,
        call_seconds: float = 0.0,
        clock: Callable[[], float] | None = None,
        interfere: Callable[[Method, Moment], None] | None = None,
        listing_lag: float | None = None,
        batch_size: int = 100,
    ) -> None:
        self.name = name or f"memory-{next(_SERIAL)}"
        self.scope = scope
        known = _ACCOUNTS.get(self.name)
        if known is None:
            plan = seconds if callable(seconds) or isinstance(seconds, JobPlan) else JobPlan(seconds)
            now = 0.0 if clock else time.time()
            _ACCOUNTS[self.name] = known = _Account(
                now,
                clock,
                tokens,
                lag,
                unknown_for,
                forget_after,
                archive,
                cancel_seconds,
                capacity,
                call_seconds,
                interfere,
                lag if listing_lag is None else listing_lag,
                batch_size,
                plan,
            )
        self._account = known
        self.listing_lag = known.listing_lag
        self.batch_size = known.batch_size

    def __repr__(self) -> str:
        return f"InMemoryJobs({self.name!r}, scope={self.scope!r})"

    # -- the clock

    def now(self) -> float:
        """The time by the service's clock, in seconds since 1970."""
        return self._account.now + (self._account.clock() if self._account.clock else 0.0)

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass. Serves as the ``sleep`` of `Runtime`."""
        if seconds < 0:
            raise ValueError(f"time does not go back: {seconds}")
        self._account.now += seconds

    # -- planning

    def plan(self, *plans: JobPlan, **changes: Any) -> None:
        """Set the plans of the next jobs, in the order of their submission; later jobs have the default plan.

        >>> jobs = InMemoryJobs()
        >>> jobs.plan(JobPlan(phase=Phase.FAILED, cause=Cause.INFRASTRUCTURE), JobPlan(seconds=5))
        >>> jobs.plan(seconds=None)  # the third one runs until it is ended

        :param changes: fields of one more `JobPlan`.
        """
        self._account.plans.extend(plans)
        if changes or not plans:
            self._account.plans.append(JobPlan(**changes))

    def finish(
        self, job: Job | RealJob, phase: Phase = Phase.SUCCEEDED, cause: Cause | None = None, reason: str = ""
    ) -> None:
        """End `job` now; with ``Phase.CANCELLED`` as a person would with the service's own console."""
        with self._account.lock:
            real = self.real(job)
            if not real.ended(self.now()):
                real.plan = JobPlan(self.now() - real.created, phase=phase, cause=cause, reason=reason)
                real.ends, real.stopped = self.now(), False

    def fail_next(
        self, error: BaseException, method: Method | None = None, moment: Moment = "before", times: int = 1
    ) -> None:
        """Let the next `times` calls (of `method`, or of any) raise `error` before or after their effect."""
        self._account.faults.extend(_Fault(error, moment, method) for _ in range(times))

    def throttle(self, times: int = 1, method: Method | None = None) -> None:
        """Let the next `times` calls be throttled."""
        self.fail_next(Throttled("too many calls"), method, times=times)

    def lose_answer(self, method: Method | None = "submit", times: int = 1) -> None:
        """Carry out the next `times` calls and lose their answers."""
        self.fail_next(AnswerLost("the connection was closed"), method, "after", times)

    def crash(self, method: Method | None = None, moment: Moment = "before") -> None:
        """Let the calling process die before or after the effect of its next call."""
        self.fail_next(Crash(method or "any call"), method, moment)

    def refuse(self, times: int = 1) -> None:
        """Let the next `times` submissions be refused for lack of capacity."""
        self.fail_next(NoCapacityMarker("no capacity"), "submit", times=times)

    # -- the record

    @property
    def history(self) -> list[RealJob]:
        """Every job that was ever started, in order."""
        return self._account.history

    @property
    def calls(self) -> Counter[str]:
        """How often each method was called."""
        return self._account.calls

    @property
    def journal(self) -> list[Call]:
        """Every call."""
        return self._account.journal

    def real(self, job: Job | RealJob) -> RealJob:
        """The record of `job`."""
        return next(real for real in self.history if real.id == job.id)

    def live(self) -> list[RealJob]:
        """The jobs that are alive now."""
        return [real for real in self.history if not real.ended(self.now())]

    def overlaps(self) -> list[tuple[RealJob, RealJob]]:
        """Every two jobs of one task instance that were alive at one moment."""
        pairs = combinations(self.history, 2)
        return [
            (a, b) for a, b in pairs if a.claim.task_key == b.claim.task_key and a.overlaps(b, self.now())
        ]

    # -- RemoteService

    def find(self, claims: Sequence[Claim]) -> list[Job]:
        """Jobs of this scope that bear one of these claims, as far as they are listed already and still."""
        names = {str(claim) for claim in claims}

        def effect() -> list[Job]:
            now = self.now()
            named = (real for real in self.history if str(real.claim) in names and real.scope == self.scope)
            listed = [real for real in named if self._known(real) and now >= real.created + self._account.lag]
            return [real.observe(now) for real in listed]

        return self._call("find", sorted(names), effect)

    def submit(self, claim: Claim) -> Job:
        """Start a job, or return the one that ``claim.token`` has started in this scope."""

        def effect() -> Job:
            if self._account.tokens:
                for real in self.history:
                    if real.claim.token == claim.token and real.scope == self.scope and self._known(real):
                        return real.observe(self.now())
            if self._account.capacity is not None and len(self.live()) >= self._account.capacity:
                raise NoCapacityMarker(f"{self._account.capacity} jobs are alive, which is the capacity")
            return self._start(claim).observe(self.now())

        return self._call("submit", [claim.token], effect)

    def observe(self, jobs: Sequence[Job]) -> list[Job]:
        """Observe each of `jobs` that is known already and still."""
        if len(jobs) > self.batch_size:
            raise ValueError(f"{len(jobs)} jobs in one call, {self.batch_size} at most")
        ids = [job.id for job in jobs]

        def effect() -> list[Job]:
            now, asked = self.now(), set(ids)
            claims: dict[str, set[Claim]] = {}
            for job in jobs:
                claims.setdefault(job.id, set()).add(job.claim)
            known = (
                real
                for real in self.history
                if real.id in asked and self._known(real) and claims[real.id] & {real.claim, NO_CLAIM}
            )
            return [real.observe(now) for real in known if now >= real.created + self._account.unknown_for]

        return self._call("observe", ids, effect)

    def cancel(self, job: Job, reason: str) -> Job:
        """Cancel `job`. A job that is not known (any more), or not under this claim, is returned as LOST."""

        def effect() -> Job:
            now = self.now()
            real = next((real for real in self.history if real.id == job.id and self._known(real)), None)
            if real is None or real.claim != job.claim:
                return replace(job, phase=Phase.LOST, reason="no such job, or not under this claim")
            if not real.ended(now) and real.stop_asked is None:
                real.stop_asked, real.stop_reason = now, reason
                stops = now + self._account.cancel_seconds
                if real.ends is None or real.ends > stops:
                    real.ends, real.stopped = stops, True
            return real.observe(now)

        return self._call("cancel", [job.id], effect)

    def find_forgotten(self, claims: Sequence[Claim], since: float) -> list[Job]:
        """The ends of forgotten jobs of this scope with these claims, if there is an archive."""
        names = {str(claim) for claim in claims}

        def effect() -> list[Job]:
            named = (real for real in self._archived() if real.scope == self.scope and real.created >= since)
            return [self._from_archive(real) for real in named if str(real.claim) in names]

        return self._call("find_forgotten", sorted(names), effect) if self._account.archive else []

    def recover(self, jobs: Sequence[Job]) -> list[Job]:
        """The ends of those of `jobs` that are forgotten, if there is an archive."""

        def effect() -> list[Job]:
            archived = {real.id: real for real in self._archived()}
            known = [(archived[job.id], job.claim) for job in jobs if job.id in archived]
            return [
                replace(self._from_archive(real), claim=claim)
                for real, claim in known
                if claim in (real.claim, NO_CLAIM)
            ]

        return self._call("recover", [job.id for job in jobs], effect) if self._account.archive else []

    def is_transient(self, error: Exception) -> bool:
        """Whether `error` is throttling or a lost answer."""
        return isinstance(error, Throttled | AnswerLost | TimeoutError | ConnectionError)

    def is_throttle(self, error: Exception) -> bool:
        """Whether `error` is throttling."""
        return isinstance(error, Throttled)

    def may_have_submitted(self, error: Exception) -> bool:
        """Whether the call was carried out: not when it was throttled, or never reached the service."""
        return not isinstance(error, Throttled | ConnectionRefusedError)

    def address(self) -> dict[str, Any]:
        """The keywords for another handle on the same jobs."""
        return {"name": self.name, "scope": self.scope}

    # -- internals

    def _known(self, real: RealJob) -> bool:
        forget_after = self._account.forget_after
        return real.ends is None or forget_after is None or self.now() < real.ends + forget_after

    def _archived(self) -> list[RealJob]:
        return [real for real in self.history if real.ended(self.now()) and not self._known(real)]

    def _from_archive(self, real: RealJob) -> Job:
        return replace(real.observe(self.now()), facts={FROM_ARCHIVE: "the archive in memory"})

    def _start(self, claim: Claim) -> RealJob:
        account, now = self._account, self.now()
        if account.plans:
            plan = account.plans.popleft()
        else:
            plan = account.plan(claim) if callable(account.plan) else account.plan
        ends = None if plan.seconds is None else now + plan.queued + plan.seconds
        real = RealJob(f"job-{len(self.history) + 1}", claim, self.scope, now, plan, ends)
        self.history.append(real)
        return real

    def _call(self, method: Method, about: Iterable[str], effect: Callable[[], _Answer]) -> _Answer:
        with self._account.lock:
            self.calls[method] += 1
            self.journal.append(Call(self.now(), method, tuple(about)))
            self._raise_fault(method, "before")
            answer = effect()
            self._account.now += self._account.call_seconds
            self._raise_fault(method, "after")
            return answer

    def _raise_fault(self, method: Method, moment: Moment) -> None:
        if self._account.interfere:
            self._account.interfere(method, moment)
        for fault in self._account.faults:
            if fault.moment == moment and fault.method in (None, method):
                self._account.faults.remove(fault)
                raise fault.error
