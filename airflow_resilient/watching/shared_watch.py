"""One watch for all waits of a service: it polls their jobs in batches.

`after_poll`, `after_event` and `plan` are pure. `SharedWatch` carries the plan out: one watch per service and
address serves every trigger of a triggerer, because AWS limits the number of calls, not of waits.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias

from ..core.decide import Policy
from ..core.job import Phase
from ..core.polling import (
    FIRST_WARNING_SECONDS,
    MAX_CONCURRENT_POLLS,
    PollPolicy,
    Refused,
    Silence,
    Wait,
    after_archive,
    after_poll,
    after_silence,
    archive_warning,
    backoff_after,
    early_part,
    is_logged,
)
from ..core.service import name_of
from ..core.text import error_text
from ..core.threads import contained, in_own_thread
from .budget import SharedBucket
from .plan import Concurrency, Division, Pressure, after_event, divide_waits, plan

if TYPE_CHECKING:
    from ..core.job import Claim, Job
    from ..core.service import Budget, RemoteService, Way
    from .plan import Batch


log = logging.getLogger(__name__)

MAX_CONCURRENT_LOG_READS = 4
"""How many logs of jobs are read at the same time."""

RECENT_KEYS_KEPT = 5000
"""How many keys of jobs without a wait are kept, to recognise late events."""

_MAX_PLANNING_PART = 0.1  # of the time; planning blocks the event loop
_MIN_SLEEP_SECONDS = 0.01  # sums of floats differ; without it the loop would be busy

InThread: TypeAlias = Callable[..., Awaitable[Any]]


@dataclass(frozen=True)
class _Answer:
    """The answer to the poll of a batch.

    :param jobs: observations of the jobs that the service knows.
    :param refused: the refusal, if the service refused the call.
    :param concerns: how many jobs the refusal applies to.
    :param error: the transient error, if the call failed with one.
    :param throttled: the call was throttled.
    """

    jobs: Sequence[Job] = ()
    refused: Refused | None = None
    concerns: int = 1
    error: Exception | None = None
    throttled: bool = False


class _Inbox:
    """The updates of one wait. An `asyncio.Queue` would take three kilobytes for each."""

    __slots__ = ("_arrived", "_updates")

    def __init__(self) -> None:
        self._updates: list[Job | Refused | Silence | BaseException] = []
        self._arrived: asyncio.Future[None] | None = None

    def put(self, update: Job | Refused | Silence | BaseException) -> None:
        """Add an update."""
        self._updates.append(update)
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    async def get(self) -> Job | Refused | Silence | BaseException:
        """Remove and return the oldest update; wait for one if there is none."""
        while not self._updates:
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        return self._updates.pop(0)


@dataclass
class _Subscription:
    """A `Wait` and the inbox of the trigger that waits.

    :param keys: the names of its job in events.
    :param in_flight: a poll of its job is in flight.
    :param over: no more updates follow.
    :param warn_after: seconds without an answer after which the wait is notified.
    """

    waiting: Wait
    keys: tuple[str, ...] = ()
    inbox: _Inbox = field(default_factory=_Inbox)
    in_flight: bool = False
    over: bool = False
    warn_after: float = FIRST_WARNING_SECONDS


@dataclass
class _Backoff:
    """A scope that fails: how often in a row, since when, and until when it is not polled."""

    times: int
    began: float
    until: float


class SharedWatch:
    """Poll many jobs of one service for many waits, in batches, from one event loop.

    It needs no Airflow: ``SharedWatch(service)`` polls in threads of its own, and shares no budget.

    :param service: the service to poll. Its calls run through `in_thread`, so they never block the event
        loop.
    :param in_thread: ``await in_thread(function, *args)`` runs a blocking function.
    :param now: the clock for intervals, in seconds; the buckets must use the same one.
    :param wall: the time in seconds since 1970, from which the age of a job is computed.
    :param buckets: the calls that may be made, one of each budget of the service, in its order; shared with
        all users of the same APIs.
    :param max_concurrent_polls: how many polls may be in flight at the same time.
    :param archive_timeout: seconds for which an archive of ended jobs that does not answer is asked again,
        before a job that the service has forgotten counts as lost.

    :ivar log_turns: limits how many logs of jobs are read at the same time: AWS limits these calls, too.
    :ivar counts: counters ``polls``, ``errors``, ``refused``, ``woken`` and ``ended.PHASE``.

    Errors of one scope (a cluster that does not answer) delay the polls of this scope, with back-off and
    jitter; throttling slows all users of the bucket. Neither says anything about a job.
    """

    def __init__(
        self,
        service: RemoteService,
        in_thread: InThread = in_own_thread,
        now: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
        *,
        wall: Callable[[], float] = time.time,
        buckets: Sequence[SharedBucket] = (),
        max_concurrent_polls: int = MAX_CONCURRENT_POLLS,
        archive_timeout: float = Policy.transient_error_timeout,
    ) -> None:
        self.service = service
        published = (service.budget, *service.more_budgets)
        self.buckets = tuple(buckets) or tuple(SharedBucket(budget, now=now) for budget in published)
        self.name = name_of(service)
        self.log_turns = asyncio.Semaphore(MAX_CONCURRENT_LOG_READS)
        self.counts: Counter[str] = Counter()
        self._in_thread = in_thread
        self._now = now
        self._wall = wall
        self._random = random
        self._max_concurrent_polls = max_concurrent_polls
        self._size = service.batch_size
        self._ways: Callable[[Sequence[Job]], Sequence[Way]] = partial(contained, service.ways)
        self._waits: dict[int, _Subscription] = {}
        self._by_job: dict[str, set[int]] = defaultdict(set)
        self._by_key: dict[str, set[int]] = defaultdict(set)
        self._serial = 0
        self._wake = asyncio.Event()
        self._sleeps_until = -inf
        self._task: asyncio.Task[None] | None = None
        self._polls: dict[asyncio.Task[None], str] = {}
        self._archive_timeout = archive_timeout
        self._archive_turn = asyncio.Semaphore(1)  # an archive allows few calls
        self._archive_calls: set[asyncio.Task[None]] = set()
        self._archive_fails = False
        self._backing_off: dict[str, _Backoff] = {}
        self._answered = -inf
        self._recent_keys: dict[str, None] = {}
        self._pressure = Pressure()
        self._throttled = ""
        counted = [service.count_calls(bucket) for bucket in self.buckets]
        self._counts_calls = all(counted)

    def __len__(self) -> int:
        return len(self._waits)

    async def follow(
        self, job: Job, policy: PollPolicy, on_silence: Callable[[Silence], object] = id
    ) -> AsyncIterator[Job]:
        """Yield the observation whenever the job's phase or facts change; the last one is its end.

        :param on_silence: is called when the service has not answered for a while, and when it answers again.
        :raises Unanswered: the policy's ``unanswered_timeout`` has passed without an answer.
        :raises Exception: the error with which the service keeps refusing to answer about this job.
        """
        ticket, wait = self._join(job, policy)
        try:
            while True:
                update = await wait.inbox.get()
                if isinstance(update, Silence):
                    on_silence(update)
                    continue
                if isinstance(update, Refused):
                    raise update.error
                if isinstance(update, BaseException):
                    raise update
                yield update
                if not update.live:
                    return
        finally:
            self._leave(ticket, wait)

    def wake(self, keys: Iterable[str], *, ended: bool = False) -> int:
        """Poll soon the jobs that an event names.

        :param keys: ids of jobs, or claims.
        :param ended: the event reports an end.
        :return: how many waits it matches.
        """
        tickets = {ticket for key in keys for ticket in self._by_key.get(key, ())}
        now = self._now()
        for ticket in tickets:
            wait = self._waits[ticket]
            wait.waiting = after_event(wait.waiting, now, ended=ended)
        if tickets:
            self.counts["woken"] += len(tickets)
            self._wake.set()
        return len(tickets)

    def remembers(self, keys: Iterable[str]) -> bool:
        """Whether a wait for such a job existed here recently."""
        return any(key in self._recent_keys for key in keys)

    def gauges(self) -> dict[str, float]:
        """Current values: ``waits``, ``unanswered``, ``freshness``, ``oldest_poll``, ``calls_per_second``."""
        now = self._now()
        open_waits = [wait.waiting for wait in self._waits.values() if not wait.over]
        return {
            "waits": float(len(open_waits)),
            "freshness": self._divide(open_waits).seconds,
            "unanswered": float(
                sum(
                    not wait.over and wait.warn_after > FIRST_WARNING_SECONDS for wait in self._waits.values()
                )
            ),
            "oldest_poll": max((now - max(each.polled, each.since) for each in open_waits), default=0.0),
            "calls_per_second": self.buckets[0].state.rate,
        }

    # --- waits ---

    def _join(self, job: Job, policy: PollPolicy) -> tuple[int, _Subscription]:
        now = self._now()
        # Not immediately: when a task instance is to resume before the worker has reported the end of its
        # visit, the scheduler takes that report for the end of the task and fails it ("state mismatch").
        # Source: ``process_executor_events`` in ``airflow/jobs/scheduler_job_runner.py``.
        waiting = Wait.begin(job, policy, now, self._wall())
        keys = contained(self.service.event_keys, job)
        wait = _Subscription(waiting, (*keys, str(job.claim)) if job.claim.task_key else keys)
        self._serial += 1
        ticket = self._serial
        self._waits[ticket] = wait
        self._by_job[job.id].add(ticket)
        for key in wait.keys:
            self._by_key[key].add(ticket)
        if self._task is None or self._task.done():
            self._sleeps_until = -inf  # the new task plans as soon as it runs
            self._task = self._start_task(self._run(), "airflow-resilient-watch")
        if waiting.due < self._sleeps_until:  # a plan for each of thousands of new waits would take minutes
            self._wake.set()
        return ticket, wait

    def _leave(self, ticket: int, wait: _Subscription) -> None:
        self._waits.pop(ticket, None)
        for index, names in ((self._by_job, (wait.waiting.job.id,)), (self._by_key, wait.keys)):
            for name in names:
                index[name].discard(ticket)
                if not index[name]:
                    del index[name]
        self._recent_keys.update(dict.fromkeys(wait.keys))
        while len(self._recent_keys) > RECENT_KEYS_KEPT:
            del self._recent_keys[next(iter(self._recent_keys))]
        if not self._waits:
            for task in (self._task, *self._polls, *self._archive_calls):
                if task is not None:
                    task.cancel()
            self._task = None
            self._polls.clear()
            self._archive_calls.clear()
            self._backing_off.clear()
            self._mark_waiting({}, 0.0)

    def _start_task(self, coroutine: Any, name: str) -> asyncio.Task[None]:
        """Start a task that belongs to no trigger, so that its log lines go to the triggerer's log."""
        context = contextvars.Context()
        task: asyncio.Task[None] = context.run(asyncio.get_running_loop().create_task, coroutine, name=name)
        return task

    # --- the loop ---

    async def _run(self) -> None:
        try:
            while self._waits:
                self._wake.clear()
                now = self._now()
                in_flight: dict[bool, list[Wait]] = {False: [], True: []}
                for wait in self._waits.values():
                    if not wait.over:
                        in_flight[wait.in_flight].append(wait.waiting)
                planned = plan(
                    now,
                    in_flight[False],
                    {bucket.budget: bucket.available_to(self, now) for bucket in self.buckets},
                    size=self._size,
                    ways=self._ways,
                    concurrency=self._concurrency(),
                    others=in_flight[True],
                )
                self._mark_waiting(planned.short, now)
                for batch in planned.batches:
                    self._start_poll(batch)
                self._log_pressure(now, planned.late)
                self._sleeps_until = now + planned.sleep
                # The more waits there are, the longer a plan takes, and the less often one is made.
                await asyncio.sleep((self._now() - now) * (1 / _MAX_PLANNING_PART - 1))
                await self._sleep_until_woken(self._sleeps_until - self._now())
        except Exception as error:  # noqa: BLE001 - raised in each wait
            self._fail_all(error)

    def _concurrency(self) -> Concurrency:
        return Concurrency(
            free=self._max_concurrent_polls - len(self._polls),
            per_scope=max(1, self._max_concurrent_polls // 2),
            in_flight=Counter(self._polls.values()),
            paused={scope: backoff.until for scope, backoff in self._backing_off.items()},
        )

    async def _sleep_until_woken(self, seconds: float) -> None:
        """Sleep, but wake up for a new wait, the end of a poll or an event."""
        try:
            await asyncio.wait_for(self._wake.wait(), max(seconds, _MIN_SLEEP_SECONDS))
        except asyncio.TimeoutError:
            return

    def _start_poll(self, batch: Batch) -> None:
        polled = [wait for job in batch.jobs for wait in self._waits_for(job.id)]
        for wait in polled:
            wait.in_flight = True
        for bucket in self._buckets_of(batch.way.operation):
            bucket.reserve(batch.way.calls)
        task = self._start_task(self._poll(batch, polled), f"airflow-resilient-poll-{batch.scope}")
        self._polls[task] = batch.scope

    def _buckets_of(self, operation: str) -> list[SharedBucket]:
        """The buckets that a call of `operation` takes from; the first is that of the operation itself."""
        return [bucket for bucket in self.buckets if bucket.budget.counts(operation)]

    def _mark_waiting(self, short: Mapping[Budget, float], now: float) -> None:
        for bucket in self.buckets:
            bucket.mark_waiting(self, short.get(bucket.budget), now)

    def _waits_for(self, job_id: str) -> list[_Subscription]:
        return [self._waits[ticket] for ticket in self._by_job.get(job_id, ())]

    async def _poll(self, batch: Batch, polled: Sequence[_Subscription]) -> None:
        """Poll one batch and apply the answer."""
        try:
            answer: _Answer = await self._in_thread(self._observe, batch)
            for wait in polled:
                wait.in_flight = False
            if answer.error is None:
                self._apply(batch, answer, polled)
            else:
                self._apply_error(batch, answer.error, throttled=answer.throttled)
        except Exception as error:  # noqa: BLE001 - raised in each wait
            self._fail_all(error)
        finally:
            task = asyncio.current_task()
            if task is not None:
                self._polls.pop(task, None)
            self._wake.set()

    def _observe(self, batch: Batch) -> _Answer:
        """Ask the service, in a thread, where locks and imports may block too."""
        try:
            taken = self._buckets_of(batch.way.operation)
            with ExitStack() as stack:
                for bucket in self.buckets:
                    stack.enter_context(bucket.spend(batch.way.calls if bucket in taken else 0.0))
                counted = () if self._counts_calls else taken
                try:
                    jobs = contained(self.service.observe_by, batch.way.operation, list(batch.jobs))
                except Exception as error:
                    for bucket in counted:
                        bucket.record("throttled" if self.service.is_throttle(error) else "error")
                    raise
                for bucket in counted:
                    bucket.record("ok", calls=int(batch.way.calls))
                return _Answer(jobs=jobs)
        except Exception as error:  # noqa: BLE001 - classified by the service
            if self.service.is_throttle(error):
                return _Answer(error=error, throttled=True)
            if self.service.is_transient(error):
                return _Answer(error=error)
            whole_scope = self.service.refuses_scope(error)
            return _Answer(refused=Refused(error), concerns=1 if whole_scope else len(batch.jobs))

    # --- answers ---

    def _apply(self, batch: Batch, answer: _Answer, polled: Sequence[_Subscription]) -> None:
        now = self._now()
        self._end_backoff(batch.scope, now)
        self.counts["polls"] += len(batch.jobs)
        self.counts["refused"] += answer.refused is not None
        found = {job.id: job for job in answer.jobs}
        # Drawn once: jobs that are polled together stay together, else calls would be half empty.
        early = early_part(self._random)
        forgotten: list[tuple[_Subscription, Wait]] = []
        for wait in polled:
            before = wait.waiting
            if wait.over or not before.job.live:
                continue
            if wait.warn_after > FIRST_WARNING_SECONDS:
                wait.warn_after = FIRST_WARNING_SECONDS
                wait.inbox.put(Silence(wait.waiting.silent_for(now), None))
            after = after_poll(before, answer.refused or found.get(before.job.id), now, answer.concerns)
            after = replace(after, due=now + (after.due - now) * early)
            if after.job.phase is Phase.LOST:
                wait.in_flight = True  # until the archive has answered
                forgotten.append((wait, after))
                continue
            wait.waiting = after
            if answer.refused and after.refused >= after.policy.give_up_after_denials:
                wait.over = True
                wait.inbox.put(answer.refused)
            else:
                self._tell_change(wait, before)
        if forgotten:
            call = self._start_task(self._ask_archive(forgotten), f"airflow-resilient-archive-{batch.scope}")
            self._archive_calls.add(call)

    def _tell_change(self, wait: _Subscription, before: Wait) -> None:
        """Tell a wait of its job, if that has changed."""
        job = wait.waiting.job
        if (job.phase, job.facts) != (before.job.phase, before.job.facts):
            wait.over = not job.live
            wait.inbox.put(job)
            if wait.over:
                self.counts[f"ended.{job.phase.value}"] += 1

    async def _ask_archive(self, forgotten: Sequence[tuple[_Subscription, Wait]]) -> None:
        """Ask the service's archive about jobs that count as lost otherwise, and apply the answer."""
        try:
            async with self._archive_turn:
                answers = await self._in_thread(self._recover, [lost.job for _, lost in forgotten])
            now = self._now()
            for wait, lost in forgotten:
                wait.in_flight = False
                if wait.over:
                    continue
                before, job = wait.waiting, lost.job
                answer = answers if isinstance(answers, Exception) else answers.get((job.id, job.claim))
                wait.waiting = after_archive(before, lost, answer, now, self._archive_timeout)
                self._tell_change(wait, before)
        except Exception as error:  # noqa: BLE001 - raised in each wait
            self._fail_all(error)
        finally:
            task = asyncio.current_task()
            if task is not None:
                self._archive_calls.discard(task)
            self._wake.set()

    def _recover(self, jobs: Sequence[Job]) -> Mapping[tuple[str, Claim], Job] | Exception:
        """Ask the archive, in a thread; an error: it may answer later."""
        try:
            found = contained(self.service.recover, list(jobs))
        except Exception as error:  # noqa: BLE001 - classified by the service
            again = self.service.is_transient(error)
            if not self._archive_fails or not again:
                names = jobs[0].id if len(jobs) == 1 else f"{_grouped(len(jobs))} jobs"
                again_for = self._archive_timeout if again else 0.0
                log.warning("%s", archive_warning(names, error_text(error), again_for))
            self._archive_fails = again
            return error if again else {}
        if self._archive_fails:
            log.info("the archive of ended jobs answers again")
        self._archive_fails = False
        return {(job.id, job.claim): job for job in found}

    def _end_backoff(self, scope: str, now: float) -> None:
        """Record that a scope answers. If no scope answered for a while, the others are polled again now."""
        ended = self._backing_off.pop(scope, None)
        if ended is not None:
            log.info("%s answers again, after %.0f s", scope, now - ended.began)
        for backoff in self._backing_off.values():
            if backoff.began > self._answered:
                backoff.until = now
        self._answered = now

    def _tell_silence(self, scope: str, error: Exception, now: float) -> None:
        """Tell the waits of a scope for how long there was no answer; end those that believe no longer."""
        for wait in self._waits.values():
            if wait.over or wait.waiting.job.scope != scope:
                continue
            wait.warn_after, notice = after_silence(
                wait.waiting.silent_for(now),
                error_text(error),
                wait.waiting.policy.unanswered_timeout,
                wait.warn_after,
                answered=self._answered > -inf,
            )
            if notice is not None:
                wait.over = not isinstance(notice, Silence)
                wait.inbox.put(notice)

    def _apply_error(self, batch: Batch, error: Exception, *, throttled: bool) -> None:
        now, scope = self._now(), batch.scope
        self._tell_silence(scope, error, now)
        if throttled:
            if not self._throttled:
                bucket = self._buckets_of(batch.way.operation)[0]
                self._throttled = bucket.budget.name
                log.warning(
                    "throttled by AWS: polling of %s slowed to %.2g calls/s (%s)",
                    self._throttled,
                    bucket.state.rate,
                    error,
                )
            return
        self.counts["errors"] += 1
        policies = [wait.waiting.policy for wait in self._waits.values() if wait.waiting.job.scope == scope]
        first = max((policy.first_interval for policy in policies), default=PollPolicy.first_interval)
        longest = max((policy.max_backoff for policy in policies), default=PollPolicy.max_backoff)
        backoff = self._backing_off.setdefault(scope, _Backoff(0, now, now))
        backoff.times += 1
        seconds = backoff_after(backoff.times, first, longest, self._random)
        backoff.until = now + seconds
        if is_logged(backoff.times):
            log.warning(
                "%s: no answer %d times in a row, polling again in %.0f s (%s: %s)",
                scope,
                backoff.times,
                seconds,
                type(error).__name__,
                error,
            )

    def _fail_all(self, error: Exception) -> None:
        for wait in self._waits.values():
            wait.over = True
            wait.inbox.put(error)

    # --- logging ---

    def _divide(self, waits: Iterable[Wait]) -> Division:
        buckets = {bucket.budget: bucket.state for bucket in self.buckets}
        return divide_waits(waits, buckets, size=self._size, ways=self._ways)

    def _rates(self, operations: Iterable[str]) -> str:
        """The present rates of these operations."""
        buckets = [bucket for each in sorted(operations) for bucket in self._buckets_of(each)[:1]]
        rates = (f"{bucket.state.rate:.2g} calls/s of {bucket.budget.name}" for bucket in buckets)
        return " and ".join(rates)

    def _log_pressure(self, now: float, late: float) -> None:
        if self._throttled and all(each.state.rate >= each.state.ceiling for each in self.buckets):
            log.info("polling of %s is no longer throttled by AWS", self._throttled)
            self._throttled = ""
        self._pressure, change = self._pressure.after(now, late)
        if change is None:
            return
        waits = [wait.waiting for wait in self._waits.values() if not wait.over]
        scopes, division = len({waiting.job.scope for waiting in waits}), self._divide(waits)
        text = (
            f"freshness {division.seconds:.0f} s: {_grouped(len(waits))} waits on {_grouped(scopes)} "
            f"{self.service.scope_noun}s share {self._rates(division.operations)}"
        )
        if change == "begins":
            log.warning("%s; nothing fails, but ends are noticed later than the poll interval allows", text)
        else:
            log.info("%s; polls are on time again", text)


def _grouped(number: int) -> str:
    """A number with spaces between its thousands.

    >>> _grouped(2300)
    '2 300'
    """
    return f"{number:,}".replace(",", " ")
