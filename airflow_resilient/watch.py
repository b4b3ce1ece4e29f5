"""One watch for all waits of a service: who is looked at when, and what a look means.

`after_look`, `woken` and `plan` are pure. `SharedWatch` carries the plan out: one of it per service and
address serves every trigger of a triggerer, because what AWS limits is the number of calls, not of waits.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import time
from collections import Counter, defaultdict
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from math import inf
from typing import Any, Literal, TypeAlias

from .budget import DEFAULT_BUDGET, Bucket, Budget, SharedBucket
from .jobs import Job, Phase, RemoteJobs, doubling, jitter
from .threads import in_own_thread

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Looks of one watch that may be under way at the same time; botocore's pool holds 10 connections."""
LATE = 5.0
"""Seconds by which a look may be late for want of calls before the log says so."""
CALM = 60.0
"""Seconds without a late look after which the log says that this is over."""
HURRIED = 3
"""Quick looks at a job of which an end was heard; AWS's answers may lag behind its events."""
LEFT = 5000
"""Names of jobs that are kept when nobody waits for them any more: late events are known by them."""
_LONGEST_NAP = 3600.0
_PLANNING = 0.1  # share of the time that plans take at most; the event loop stands still for them
_LEAST_NAP = 0.01  # sums of floats differ; without it the loop would turn on the spot
_SPREAD = 0.2  # a look comes up to a fifth of its interval early, so that batches do not march in step


@dataclass(frozen=True)
class Patience:
    """How often to look and how much trouble to put up with. Durations are seconds.

    :param poll: longest time between two looks at a job that is well.
    :param first: shortest time between two looks; a young job is looked at more often than an old one.
    :param longest: ceiling of the back-off after trouble.
    :param missing: looks in a row at which the service does not know the job before it counts as lost ...
    :param missing_for: ... and the time that they must span: a new ECS task may be unknown for seconds to
        minutes. Source: "eventual consistency" in the RunTask reference advises back-off of up to five
        minutes.
    :param refused: looks in a row that the service refuses for a reason that does not pass (access denied)
        before the wait is given up.

    The intervals are promises, which the budget of calls may forbid to keep: then looks become rarer.
    """

    poll: float = 30.0
    first: float = 2.0
    longest: float = 300.0
    missing: int = 5
    missing_for: float = 120.0
    refused: int = 10

    def interval(self, age: float) -> float:
        """Seconds between two looks at a job that has been watched for `age` seconds.

        >>> [Patience(poll=30).interval(age) for age in (0, 30, 100, 3600)]
        [2.0, 3.75, 12.5, 30.0]
        """
        return float(min(self.poll, max(self.first, age / 8)))


@dataclass(frozen=True)
class Refused:
    """A look that the service refused for a reason that does not pass by itself."""

    error: Exception


Look: TypeAlias = Job | Refused | None


@dataclass(frozen=True)
class Waiting:
    """One job that somebody waits for.

    :param job: the latest look at it.
    :param since: when the wait began.
    :param due: when the next look is due.
    :param missing: looks in a row at which the service did not know it, the first of them at `missing_since`.
    :param refused: looks in a row that were refused.
    :param crowd: how many may be asked about together; 0: any number. A larger batch with it was refused, and
        it may be the reason.
    :param age: how old the job was when the wait began, in seconds: after a restart of the triggerer, what
        had been looked at rarely is not looked at often again.
    :param hurried: quick looks that are left to it, because an end was heard of and not seen yet.
    :param looked: when it was last looked at; at first, when the wait began.
    """

    job: Job
    patience: Patience
    since: float
    due: float
    missing: int = 0
    missing_since: float = 0.0
    refused: int = 0
    crowd: int = 0
    age: float = 0.0
    hurried: int = 0
    looked: float = -inf

    def interval(self, now: float) -> float:
        """Seconds until the next look after one at `now`."""
        return self.patience.interval(now - self.since + self.age)

    def early(self, now: float) -> float:
        """How many seconds before it is due this wait may join a call that others need: half its interval.

        Not before its first look is due; `SharedWatch.follow` says why.
        """
        return 0.0 if now - self.since < self.patience.first else self.interval(now) / 2


def after_look(waiting: Waiting, look: Look, now: float, batch: int = 1) -> Waiting:
    """Say what `look` means for a wait. The wait is over when its job has ended or `refused` is at its limit.

    :param look: what the service answered: a job, ``None`` when it does not know the job, or a refusal. A
        transient error must not be passed in: it is no look at all.
    :param batch: how many jobs the refused call asked about; 1 for a refusal that concerns each of them.
    :return: the wait with the look taken in and the next one due.
    """
    patience = waiting.patience
    due, hurried = now + waiting.interval(now), waiting.hurried
    if isinstance(look, Job) and (look.phase, look.facts) != (waiting.job.phase, waiting.job.facts):
        hurried = 0  # what was heard of is seen now
    elif hurried:
        due, hurried = min(due, now + patience.first), hurried - 1
    if isinstance(look, Refused):
        if batch > 1:  # one bad id or one denied cluster must not harm its neighbours
            return replace(waiting, looked=now, due=now, crowd=batch // 2)
        refused = waiting.refused + 1
        pause = doubling(patience.first, refused, min(patience.longest, 2 * patience.poll))
        return replace(waiting, looked=now, due=now + pause, refused=refused)
    if look is None:
        missing, since = waiting.missing + 1, waiting.missing_since if waiting.missing else now
        job = waiting.job
        if missing >= patience.missing and now - since >= patience.missing_for:
            reason = f"the service has not known it for {now - since:.0f} s; it may have ended either way"
            job = replace(job, phase=Phase.LOST, reason=reason)
    else:
        missing, since = 0, waiting.missing_since
        # Somebody else may watch the same job without a claim on it, and have asked in the same call.
        job = replace(waiting.job.learn(look), claim=waiting.job.claim)
        if job == waiting.job:  # what lives long costs the garbage collector, which halts the event loop
            job = waiting.job
    return replace(
        waiting,
        job=job,
        due=due,
        missing=missing,
        missing_since=since,
        refused=0,
        crowd=0,
        hurried=hurried,
        looked=now,
    )


def woken(waiting: Waiting, now: float, *, ended: bool) -> Waiting:
    """Say what it means for a wait that something was heard of its job: a look, as soon as it may be.

    Never before the first look is due, and not more often than the shortest interval allows.

    :param ended: what was heard is the job's end, so it is looked at again soon if the look does not show it.
    """
    patience = waiting.patience
    soonest = max(now, waiting.since + patience.first, waiting.looked + patience.first)
    return replace(waiting, due=min(waiting.due, soonest), hurried=HURRIED if ended else waiting.hurried)


# --- plan -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Jobs of one scope that are asked about together.

    :param cost: calls that this takes, as far as one can know.
    :param due: when the first of them was due.
    """

    jobs: tuple[Job, ...]
    cost: float
    due: float

    @property
    def scope(self) -> str:
        """Where they live."""
        return self.jobs[0].scope


@dataclass(frozen=True)
class Rooms:
    """How many looks may be under way at the same time.

    :param free: how many more may be started.
    :param each: how many of one scope may be under way, so that one that never answers does not hold all.
    :param taken: how many of a scope are under way.
    :param paused: scopes that gave no answer: when to look there again. One look at a time, then.
    """

    free: int = AT_ONCE
    each: int = AT_ONCE // 2
    taken: Mapping[str, int] = field(default_factory=dict)
    paused: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What to do now.

    :param batches: to be looked at, in this order.
    :param sleep: seconds until there is something to do again, if nothing happens until then.
    :param short: calls that the next batch needs and the bucket has not; ``None``: there is no such batch.
    :param late: seconds by which that batch is late.
    """

    batches: tuple[Batch, ...]
    sleep: float
    short: float | None = None
    late: float = 0.0


def one_call(jobs: Sequence[Job]) -> float:  # noqa: ARG001 - other services look at them
    """The cost of a look at one batch where a service does not say: one call."""
    return 1.0


def plan(
    now: float,
    waits: Collection[Waiting],
    bucket: Bucket,
    *,
    size: int = 100,
    cost: Callable[[Sequence[Job]], float] = one_call,
    rooms: Rooms = Rooms(),
) -> Plan:
    """Say whom to look at now and how long to sleep then.

    Waits of one scope (an ECS cluster, an EMR cluster) share a call: when one of them is due, the others come
    along, as far as they are in the second half of their interval. Who was due first is first, whatever its
    scope, and is waited for when the bucket does not afford it: what is cheap does not starve what is dear,
    nor a large scope a small one. So nobody waits longer, after a look is due, than it takes to look at all
    others once.

    :param waits: those that are not being looked at.
    :param bucket: the calls that may be made.
    :param size: the largest batch.
    :param cost: how many calls a look at a batch takes.
    """
    bucket = bucket.refilled(now)
    scopes = _by_scope(waits)
    paused = {scope: until for scope, until in rooms.paused.items() if until > now and scope in scopes}
    # A scope's batches are made only when its turn has come: there may be thousands of waits, and the event
    # loop stands still meanwhile.
    in_turn: list[tuple[float, str, int, list[Job]]] = []
    nearest = inf
    for scope, members in scopes.items():
        dues = [waiting.due for waiting in members]
        first = min(dues)
        if scope in paused:
            nearest = min(nearest, max(paused[scope], first))
            continue
        if first <= now:
            in_turn.append((first, scope, -1, []))
            first = min((due for due in dues if due > now), default=inf)
        nearest = min(nearest, first)
    heapify(in_turn)
    batches: list[Batch] = []
    taken = Counter(rooms.taken)
    while in_turn and len(batches) < rooms.free:
        due, scope, _, jobs = heappop(in_turn)
        if taken[scope] >= (1 if scope in rooms.paused else rooms.each):
            continue  # the end of a look there is the next occasion
        if not jobs:
            for number, (first, portion) in enumerate(_together(now, scopes[scope], size)):
                heappush(in_turn, (first, scope, number, portion))
            continue
        price = cost(jobs)
        if not bucket.affords(price):
            return Plan(tuple(batches), bucket.wait_for(price) + 1e-6, price, now - due)
        bucket = bucket.spent(price)
        taken[scope] += 1
        batches.append(Batch(tuple(jobs), price, due))
    return Plan(tuple(batches), min(_LONGEST_NAP, nearest - now))


def freshness(
    waits: Iterable[Waiting],
    bucket: Bucket,
    *,
    size: int = 100,
    cost: Callable[[Sequence[Job]], float] = one_call,
) -> float:
    """Seconds in which every wait can be looked at once at the rate of `bucket`."""
    calls = 0.0
    for members in _by_scope(waits).values():
        jobs = list({waiting.job.id: waiting.job for waiting in members}.values())
        calls += sum(cost(portion) for portion in _portions(jobs, size))
    return calls / bucket.rate


def _by_scope(waits: Iterable[Waiting]) -> dict[str, list[Waiting]]:
    scopes: dict[str, list[Waiting]] = defaultdict(list)
    for waiting in waits:
        scopes[waiting.job.scope].append(waiting)
    return scopes


def _together(now: float, members: Sequence[Waiting], size: int) -> list[tuple[float, list[Job]]]:
    """Batches of one scope with somebody in them who is due, and since when."""
    crowds: dict[int, dict[str, Waiting]] = defaultdict(dict)
    later: list[Waiting] = []
    for waiting in members:
        if waiting.due <= now:
            crowd = crowds[waiting.crowd]
            other = crowd.get(waiting.job.id)
            if other is None or waiting.due < other.due:
                crowd[waiting.job.id] = waiting
        elif not waiting.crowd and waiting.due <= now + waiting.patience.poll / 2:  # no interval is longer
            later.append(waiting)
    if 0 in crowds:
        _take_along(now, crowds[0], later, size)
    batches: list[tuple[float, list[Job]]] = []
    for most, found in crowds.items():
        in_turn = sorted(found.values(), key=lambda waiting: waiting.due)
        batches += [
            (portion[0].due, [waiting.job for waiting in portion])
            for portion in _portions(in_turn, min(size, most or size))
        ]
    return batches


def _take_along(now: float, crowd: dict[str, Waiting], later: list[Waiting], size: int) -> None:
    """Fill the last call for those who are due with others of their scope."""
    room = -len(crowd) % size
    if not room:
        return
    for waiting in sorted(later, key=lambda waiting: waiting.due):
        if waiting.due <= now + waiting.early(now) and waiting.job.id not in crowd:
            crowd[waiting.job.id] = waiting
            room -= 1
            if not room:
                return


def _portions(items: Sequence[Any], size: int) -> Iterator[Any]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


@dataclass(frozen=True)
class Pressure:
    """Whether looks are late for want of calls, so that the log says so once and not every second.

    :param on: looks are late.
    :param last: when one was late last.
    """

    on: bool = False
    last: float = -inf

    def after(self, now: float, late: float) -> tuple[Pressure, Literal["begins", "ends"] | None]:
        """Take in by how many seconds the plan is late at `now`; say what is to be told."""
        if late > LATE:
            return Pressure(on=True, last=now), None if self.on else "begins"
        if self.on and now - self.last > CALM:
            return Pressure(), "ends"
        return self, None


# --- the shell ------------------------------------------------------------------------------------


InThread: TypeAlias = Callable[..., Awaitable[Any]]


@dataclass(frozen=True)
class _Answer:
    """What a look at a batch brought.

    :param jobs: what the service knows.
    :param refused: it will not answer.
    :param concerns: how many jobs the refusal is about.
    :param trouble: it did not answer.
    :param throttled: because there were too many calls.
    """

    jobs: Sequence[Job] = ()
    refused: Refused | None = None
    concerns: int = 1
    trouble: Exception | None = None
    throttled: bool = False


class _Post:
    """News for one who waits. An `asyncio.Queue` would do, and take three kilobytes for each wait."""

    __slots__ = ("_arrived", "_news")

    def __init__(self) -> None:
        self._news: list[Job | Refused | BaseException] = []
        self._arrived: asyncio.Future[None] | None = None

    def put(self, news: Job | Refused | BaseException) -> None:
        """Hand something over."""
        self._news.append(news)
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    async def get(self) -> Job | Refused | BaseException:
        """Take the oldest news out, or wait for some."""
        while not self._news:
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        return self._news.pop(0)


@dataclass
class _Wait:
    """A `Waiting` and where its news goes.

    :param keys: names under which events speak of its job.
    :param under_way: it is being looked at.
    :param over: nothing more will be told.
    """

    waiting: Waiting
    keys: tuple[str, ...] = ()
    news: _Post = field(default_factory=_Post)
    under_way: bool = False
    over: bool = False


@dataclass
class _Trouble:
    """A scope that gives no answer: how often in a row, since when, and when to look there again."""

    times: int
    began: float
    until: float


class SharedWatch:
    """Look at many jobs of one service for many who wait, in batches, from one event loop.

    It needs no Airflow: ``SharedWatch(service)`` looks in threads of its own, and shares no budget.

    :param service: what is asked. Its calls run through `in_thread`, so they never hold the event loop up.
    :param in_thread: ``await in_thread(function, *args)`` runs a blocking function.
    :param now: the clock that intervals are measured with, in seconds; the bucket's must be the same.
    :param wall: the time since 1970, which a job's age is told by.
    :param bucket: the calls that may be made; shared with others who call the same API.
    :param at_once: how many looks may be under way at the same time.

    :ivar reading: held by whoever reads a job's log: one at a time, because AWS limits these calls, too.
    :ivar counts: what has happened so far, by name: ``looks``, ``trouble``, ``refused``, ``woken`` and
        ``ended.PHASE``.

    Trouble with one scope (a cluster that does not answer, a denied one) delays the looks there, with
    back-off and jitter; throttling slows all who share the bucket. Neither is news about a job.
    """

    def __init__(
        self,
        service: RemoteJobs,
        in_thread: InThread = in_own_thread,
        now: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
        *,
        wall: Callable[[], float] = time.time,
        bucket: SharedBucket | None = None,
        at_once: int = AT_ONCE,
    ) -> None:
        self.service = service
        self.budget: Budget = getattr(service, "budget", DEFAULT_BUDGET)
        self.bucket = bucket or SharedBucket(self.budget, now=now)
        self.kind = str(getattr(service, "kind", type(service).__name__.lower()))
        self.reading = asyncio.Lock()
        self.counts: Counter[str] = Counter()
        self._in_thread = in_thread
        self._now = now
        self._wall = wall
        self._random = random
        self._at_once = at_once
        self._size = int(getattr(service, "batch_size", 100))
        self._cost: Callable[[Sequence[Job]], float] = getattr(service, "cost", one_call)
        self._waits: dict[int, _Wait] = {}
        self._by_job: dict[str, set[int]] = defaultdict(set)
        self._by_key: dict[str, set[int]] = defaultdict(set)
        self._serial = 0
        self._wake = asyncio.Event()
        self._sleeps_until = -inf
        self._task: asyncio.Task[None] | None = None
        self._looks: dict[asyncio.Task[None], str] = {}
        self._troubled: dict[str, _Trouble] = {}
        self._answered = -inf
        self._left: dict[str, None] = {}
        self._pressure = Pressure()
        self._slow = False
        meter = getattr(service, "meter", None)
        self._metered = meter is not None
        if meter is not None:
            meter(self.bucket)

    def __len__(self) -> int:
        return len(self._waits)

    async def follow(self, job: Job, patience: Patience) -> AsyncIterator[Job]:
        """Yield a look whenever the job's phase or facts change; the last one is its end.

        :raises Exception: the error with which the service keeps refusing to be asked about this job.
        """
        ticket, wait = self._join(job, patience)
        try:
            while True:
                news = await wait.news.get()
                if isinstance(news, Refused):
                    raise news.error
                if isinstance(news, BaseException):
                    raise news
                yield news
                if not news.live:
                    return
        finally:
            self._leave(ticket, wait)

    def wake(self, keys: Iterable[str], *, ended: bool = False) -> int:
        """Look soon at the jobs that an event spoke of.

        :param keys: ids of jobs, or claims.
        :param ended: the event tells of an end.
        :return: how many waits it concerns.
        """
        tickets = {ticket for key in keys for ticket in self._by_key.get(key, ())}
        now = self._now()
        for ticket in tickets:
            wait = self._waits[ticket]
            wait.waiting = woken(wait.waiting, now, ended=ended)
        if tickets:
            self.counts["woken"] += len(tickets)
            self._wake.set()
        return len(tickets)

    def remembers(self, keys: Iterable[str]) -> bool:
        """Whether somebody waited here for such a job a while ago, and does not any more."""
        return any(key in self._left for key in keys)

    def gauges(self) -> dict[str, float]:
        """What is the case now: ``waits``, ``freshness``, ``oldest_look`` and ``calls_per_second``."""
        now = self._now()
        open_waits = [wait.waiting for wait in self._waits.values() if not wait.over]
        return {
            "waits": float(len(open_waits)),
            "freshness": self._freshness(open_waits),
            "oldest_look": max((now - max(each.looked, each.since) for each in open_waits), default=0.0),
            "calls_per_second": self.bucket.state.rate,
        }

    # --- those who wait ---

    def _join(self, job: Job, patience: Patience) -> tuple[int, _Wait]:
        now = self._now()
        # Whoever is being stopped may stop any second, however old it is.
        age = 0.0 if job.phase is Phase.STOPPING else max(0.0, self._wall() - job.created)
        # Not at once: when a task instance is to resume before the scheduler has heard that its visit to a
        # worker has ended, the scheduler takes that for the task's end and fails it ("state mismatch").
        # Source: ``process_executor_events`` in ``airflow/jobs/scheduler_job_runner.py``.
        waiting = Waiting(job, patience, since=now, due=now + patience.first, age=age)
        names = getattr(self.service, "event_keys", None)
        keys = tuple(names(job)) if names else (job.id,)
        wait = _Wait(waiting, (*keys, str(job.claim)) if job.claim.family else keys)
        self._serial += 1
        ticket = self._serial
        self._waits[ticket] = wait
        self._by_job[job.id].add(ticket)
        for key in wait.keys:
            self._by_key[key].add(ticket)
        if self._task is None or self._task.done():
            self._sleeps_until = -inf  # it plans as soon as it runs
            self._task = self._start_task(self._run(), "airflow-resilient-watch")
        if waiting.due < self._sleeps_until:  # a plan for each of thousands who join would take minutes
            self._wake.set()
        return ticket, wait

    def _leave(self, ticket: int, wait: _Wait) -> None:
        self._waits.pop(ticket, None)
        for index, names in ((self._by_job, (wait.waiting.job.id,)), (self._by_key, wait.keys)):
            for name in names:
                index[name].discard(ticket)
                if not index[name]:
                    del index[name]
        self._left.update(dict.fromkeys(wait.keys))
        while len(self._left) > LEFT:
            del self._left[next(iter(self._left))]
        if not self._waits:
            for task in (self._task, *self._looks):
                if task is not None:
                    task.cancel()
            self._task = None
            self._looks.clear()
            self._troubled.clear()
            self.bucket.short(self, None, 0.0)

    def _start_task(self, coroutine: Any, name: str) -> asyncio.Task[None]:
        """Start a task that belongs to no trigger: what it logs goes to the triggerer's log."""
        context = contextvars.Context()
        task: asyncio.Task[None] = context.run(asyncio.get_running_loop().create_task, coroutine, name=name)
        return task

    # --- the loop ---

    async def _run(self) -> None:
        try:
            while self._waits:
                self._wake.clear()
                now = self._now()
                waits = [
                    wait.waiting for wait in self._waits.values() if not wait.under_way and not wait.over
                ]
                planned = plan(
                    now,
                    waits,
                    self.bucket.offer(self, now),
                    size=self._size,
                    cost=self._cost,
                    rooms=self._rooms(),
                )
                self.bucket.short(self, planned.short, now)
                for batch in planned.batches:
                    self._start_look(batch)
                self._tell_pressure(now, planned.late)
                self._sleeps_until = now + planned.sleep
                # A plan takes the longer, the more there are who wait: they are made the more rarely.
                await asyncio.sleep((self._now() - now) * (1 / _PLANNING - 1))
                await self._nap(self._sleeps_until - self._now())
        except Exception as error:  # noqa: BLE001 - a defect here must reach everybody who waits, not strand them
            self._fail(error)

    def _rooms(self) -> Rooms:
        return Rooms(
            free=self._at_once - len(self._looks),
            each=max(1, self._at_once // 2),
            taken=Counter(self._looks.values()),
            paused={scope: trouble.until for scope, trouble in self._troubled.items()},
        )

    async def _nap(self, seconds: float) -> None:
        """Sleep, but wake up when somebody joins, a look has ended or an event has come."""
        try:
            await asyncio.wait_for(self._wake.wait(), max(seconds, _LEAST_NAP))
        except asyncio.TimeoutError:
            return

    def _start_look(self, batch: Batch) -> None:
        asked = [wait for job in batch.jobs for wait in self._waits_for(job.id)]
        for wait in asked:
            wait.under_way = True
        self.bucket.reserve(batch.cost)
        task = self._start_task(self._look(batch, asked), f"airflow-resilient-look-{batch.scope}")
        self._looks[task] = batch.scope

    def _waits_for(self, job_id: str) -> list[_Wait]:
        return [self._waits[ticket] for ticket in self._by_job.get(job_id, ())]

    async def _look(self, batch: Batch, asked: Sequence[_Wait]) -> None:
        """Look at one batch and tell the news."""
        try:
            answer: _Answer = await self._in_thread(self._ask, batch)
            for wait in asked:
                wait.under_way = False
            if answer.trouble is None:
                self._take(batch, answer, asked)
            else:
                self._take_trouble(batch.scope, answer.trouble, throttled=answer.throttled)
        except Exception as error:  # noqa: BLE001 - as in `_run`
            self._fail(error)
        finally:
            task = asyncio.current_task()
            if task is not None:
                self._looks.pop(task, None)
            self._wake.set()

    def _ask(self, batch: Batch) -> _Answer:
        """Ask the service, in a thread, where a lock or an import may take its time, too."""
        try:
            with self.bucket.paying(batch.cost):
                try:
                    jobs = self.service.observe(list(batch.jobs))
                except Exception as error:
                    if not self._metered:
                        self.bucket.heard("throttled" if self._is_throttle(error) else "error")
                    raise
                if not self._metered:
                    self.bucket.heard("well", calls=int(batch.cost))
                return _Answer(jobs=jobs)
        except Exception as error:  # noqa: BLE001 - sorted out by the service, or said
            if self._is_throttle(error):
                return _Answer(trouble=error, throttled=True)
            if self.service.is_transient(error):
                return _Answer(trouble=error)
            whole = getattr(self.service, "refuses_scope", None)
            each = whole is not None and whole(error)
            return _Answer(refused=Refused(error), concerns=1 if each else len(batch.jobs))

    def _is_throttle(self, error: Exception) -> bool:
        judge = getattr(self.service, "is_throttle", None)
        return judge is not None and bool(judge(error))

    # --- what a look brought ---

    def _take(self, batch: Batch, answer: _Answer, asked: Sequence[_Wait]) -> None:
        now = self._now()
        self._answers(batch.scope, now)
        self.counts["looks"] += len(batch.jobs)
        self.counts["refused"] += answer.refused is not None
        found = {job.id: job for job in answer.jobs}
        # Drawn once: those who were asked about together stay together, or calls would be made half empty.
        early = 1 - _SPREAD * self._random()
        for wait in asked:
            before = wait.waiting
            if wait.over or not before.job.live:
                continue
            after = after_look(before, answer.refused or found.get(before.job.id), now, answer.concerns)
            wait.waiting = replace(after, due=now + (after.due - now) * early)
            if answer.refused and after.refused >= after.patience.refused:
                wait.over = True
                wait.news.put(answer.refused)
            elif (after.job.phase, after.job.facts) != (before.job.phase, before.job.facts):
                wait.over = not after.job.live
                wait.news.put(after.job)
                if wait.over:
                    self.counts[f"ended.{after.job.phase.value}"] += 1

    def _answers(self, scope: str, now: float) -> None:
        """Note that a scope answers. When none did for a while, all are asked again now."""
        over = self._troubled.pop(scope, None)
        if over is not None:
            log.info("%s answers again, after %.0f s", scope, now - over.began)
        for trouble in self._troubled.values():
            if trouble.began > self._answered:
                trouble.until = now
        self._answered = now

    def _take_trouble(self, scope: str, error: Exception, *, throttled: bool) -> None:
        now = self._now()
        if throttled:
            if not self._slow:
                self._slow = True
                log.warning(
                    "AWS throttles %s: looks become rarer, to %.2g calls/s for now, and never stop (%s)",
                    self.budget.name,
                    self.bucket.state.rate,
                    error,
                )
            return
        self.counts["trouble"] += 1
        patiences = [
            wait.waiting.patience for wait in self._waits.values() if wait.waiting.job.scope == scope
        ]
        first = max((patience.first for patience in patiences), default=Patience.first)
        longest = max((patience.longest for patience in patiences), default=Patience.longest)
        trouble = self._troubled.setdefault(scope, _Trouble(0, now, now))
        trouble.times += 1
        seconds = jitter(doubling(first, trouble.times, longest), self._random)
        trouble.until = now + min(seconds, longest)
        if trouble.times in (1, 5) or trouble.times % 20 == 0:
            log.warning(
                "%s: no answer %d times in a row, looking again in %.0f s (%s: %s)",
                scope,
                trouble.times,
                seconds,
                type(error).__name__,
                error,
            )

    def _fail(self, error: Exception) -> None:
        for wait in self._waits.values():
            wait.over = True
            wait.news.put(error)

    # --- what the log says ---

    def _freshness(self, waits: Iterable[Waiting]) -> float:
        return freshness(waits, self.bucket.state, size=self._size, cost=self._cost)

    def _tell_pressure(self, now: float, late: float) -> None:
        if self._slow and self.bucket.state.rate >= self.bucket.state.ceiling:
            self._slow = False
            log.info("AWS does not throttle %s any more", self.budget.name)
        self._pressure, told = self._pressure.after(now, late)
        if told is None:
            return
        waits = [wait.waiting for wait in self._waits.values() if not wait.over]
        scopes = len({waiting.job.scope for waiting in waits})
        text = (
            f"freshness {self._freshness(waits):.0f} s: {_grouped(len(waits))} waits on {_grouped(scopes)} "
            f"{self.budget.places} share {self.bucket.state.rate:.2g} calls/s of {self.budget.name}"
        )
        if told == "begins":
            log.warning("%s; nothing fails, but ends are noticed later than asked for", text)
        else:
            log.info("%s; looks are in time again", text)


def _grouped(number: int) -> str:
    """A number with spaces between its thousands.

    >>> _grouped(2300)
    '2 300'
    """
    return f"{number:,}".replace(",", " ")
