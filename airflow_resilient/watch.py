"""One watch for all waits of a service: who is looked at when, and what a look means.

`after_look` and `plan` are pure. `SharedWatch` carries the plan out: one of it per service and address serves
every trigger of a triggerer, because what AWS limits is the number of calls, not of waits.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from .jobs import Job, Phase, RemoteJobs, doubling, jitter

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """How often to look and how much trouble to put up with. Durations are seconds.

    :param poll: longest time between two looks at a job that is well.
    :param first: shortest time between two looks; a young job is looked at more often than an old one.
    :param longest: ceiling of the back-off after throttling and other trouble.
    :param missing: looks in a row at which the service does not know the job before it counts as lost ...
    :param missing_for: ... and the time that they must span: a new ECS task may be unknown for seconds to
        minutes. Source: "eventual consistency" in the RunTask reference advises back-off of up to five
        minutes.
    :param refused: looks in a row that the service refuses for a reason that does not pass (access denied)
        before the wait is given up.
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
    :param alone: look at it by itself: a batch with it was refused, and it may be the reason.
    """

    job: Job
    patience: Patience
    since: float
    due: float
    missing: int = 0
    missing_since: float = 0.0
    refused: int = 0
    alone: bool = False

    def early(self, now: float) -> float:
        """How many seconds before it is due this wait may join a call that others need: half its interval.

        Not before its first look is due; `SharedWatch.follow` says why.
        """
        age = now - self.since
        return 0.0 if age < self.patience.first else self.patience.interval(age) / 2


def after_look(waiting: Waiting, look: Look, now: float, batch: int = 1) -> Waiting:
    """Say what `look` means for a wait. The wait is over when its job has ended or `refused` is at its limit.

    :param look: what the service answered: a job, ``None`` when it does not know the job, or a refusal. A
        transient error must not be passed in: it is no look at all.
    :param batch: how many jobs the refused call asked about.
    :return: the wait with the look taken in and the next one due.
    """
    patience = waiting.patience
    due = now + patience.interval(now - waiting.since)
    if isinstance(look, Refused):
        if batch > 1:  # one bad id or one denied cluster must not harm its neighbours
            return replace(waiting, due=now, alone=True)
        refused = waiting.refused + 1
        return replace(
            waiting,
            due=now + doubling(patience.first, refused, min(patience.longest, 2 * patience.poll)),
            refused=refused,
        )
    if look is None:
        missing, since = waiting.missing + 1, waiting.missing_since if waiting.missing else now
        waiting = replace(waiting, due=due, missing=missing, missing_since=since, refused=0, alone=False)
        if missing >= patience.missing and now - since >= patience.missing_for:
            reason = f"the service has not known it for {now - since:.0f} s; it may have ended either way"
            return replace(waiting, job=replace(waiting.job, phase=Phase.LOST, reason=reason))
        return waiting
    # Somebody else may watch the same job without a claim on it, and have asked in the same call.
    job = replace(waiting.job.learn(look), claim=waiting.job.claim)
    return replace(waiting, job=job, due=due, missing=0, refused=0, alone=False)


def plan(now: float, waits: Iterable[Waiting], batch_size: int) -> tuple[list[list[Job]], float]:
    """Say whom to look at now and how long to sleep when there is nobody.

    Waits of one scope (an ECS cluster, an EMR cluster) share a call: when one of them is due, the others come
    along, as far as they are in the second half of their interval.

    :return: batches of jobs, each of one scope and of at most `batch_size`, and the seconds until the next
        look.
    """
    scopes: dict[str, list[Waiting]] = defaultdict(list)
    for waiting in waits:
        scopes[waiting.job.scope].append(waiting)
    batches: list[list[Job]] = []
    for _, members in sorted(scopes.items()):
        if all(waiting.due > now for waiting in members):
            continue
        batches += [[waiting.job] for waiting in members if waiting.alone and waiting.due <= now]
        along = {
            waiting.job.id: waiting.job
            for waiting in sorted(members, key=lambda waiting: waiting.due)
            if not waiting.alone and waiting.due <= now + waiting.early(now)
        }
        jobs = list(along.values())
        batches += [jobs[start : start + batch_size] for start in range(0, len(jobs), batch_size)]
    nearest = min((waiting.due for members in scopes.values() for waiting in members), default=now + 3600.0)
    return batches, max(0.0, nearest - now)


InThread: TypeAlias = Callable[..., Awaitable[Any]]


@dataclass
class _Wait:
    """A `Waiting` and where its news goes."""

    waiting: Waiting
    news: asyncio.Queue[Job | Refused | BaseException] = field(default_factory=asyncio.Queue)


class SharedWatch:
    """Look at many jobs of one service for many who wait, in batches, from one event loop.

    :param service: what is asked. Its calls run through `in_thread`, so they never hold the event loop up.
    :param in_thread: ``await in_thread(function, *args)`` runs a blocking function.

    :ivar reading: held by whoever reads a job's log: one at a time, because AWS limits these calls, too.

    A transient error delays the next look at every job, with back-off and jitter, and is no news about any.
    """

    def __init__(
        self,
        service: RemoteJobs,
        in_thread: InThread,
        now: Callable[[], float] = time.time,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.service = service
        self.trouble = 0
        self.reading = asyncio.Lock()
        self._in_thread = in_thread
        self._now = now
        self._random = random
        self._waits: dict[int, _Wait] = {}
        self._serial = 0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waits)

    async def follow(self, job: Job, patience: Patience) -> AsyncIterator[Job]:
        """Yield a look whenever the job's phase or facts change; the last one is its end.

        :raises Exception: the error with which the service keeps refusing to be asked about this job.
        """
        now = self._now()
        self._serial += 1
        # Not at once: when a task instance is to resume before the scheduler has heard that its visit to a
        # worker has ended, the scheduler takes that for the task's end and fails it ("state mismatch").
        # Source: ``process_executor_events`` in ``airflow/jobs/scheduler_job_runner.py``.
        ticket, wait = self._serial, _Wait(Waiting(job, patience, since=now, due=now + patience.first))
        self._waits[ticket] = wait
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="airflow-resilient-watch")
        self._wake.set()
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
            self._waits.pop(ticket, None)
            if not self._waits and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _run(self) -> None:
        try:
            while self._waits:
                self._wake.clear()
                waits = [wait.waiting for wait in self._waits.values()]
                batches, sleep = plan(self._now(), waits, getattr(self.service, "batch_size", 100))
                # After trouble another one has its turn first: a cluster that never answers starves nobody.
                turn = self.trouble % len(batches) if batches else 0
                for batch in batches[turn:] + batches[:turn]:
                    if not await self._look(batch):
                        sleep = jitter(self._backoff(), self._random)
                        log.warning(
                            "no answer %d times in a row: looking again in %.0f s", self.trouble, sleep
                        )
                        await asyncio.sleep(sleep)
                        break
                if not batches:
                    await self._nap(jitter(sleep, self._random))
        except Exception as error:  # noqa: BLE001 - a defect here must reach everybody who waits, not strand them
            for wait in self._waits.values():
                wait.news.put_nowait(error)

    def _backoff(self) -> float:
        patiences = [wait.waiting.patience for wait in self._waits.values()] or [Patience()]
        longest = max(patience.longest for patience in patiences)
        return doubling(max(patience.first for patience in patiences), self.trouble, longest)

    async def _nap(self, seconds: float) -> None:
        """Sleep, but wake up when somebody joins."""
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except asyncio.TimeoutError:
            return

    async def _look(self, batch: Sequence[Job]) -> bool:
        """Look at one batch and tell the news. ``False`` when there was no answer to rely on."""
        found: dict[str, Job] = {}
        refusal: Refused | None = None
        try:
            found = {job.id: job for job in await self._in_thread(self.service.observe, list(batch))}
        except Exception as error:  # noqa: BLE001 - sorted out by is_transient, or said
            if self.service.is_transient(error):
                self.trouble += 1
                return False
            refusal = Refused(error)
        self.trouble = 0
        asked = {job.id for job in batch}
        now = self._now()
        for wait in list(self._waits.values()):
            before = wait.waiting
            if before.job.id not in asked or not before.job.live:
                continue
            after = after_look(before, refusal or found.get(before.job.id), now, len(batch))
            wait.waiting = after
            if refusal and after.refused >= after.patience.refused:
                wait.news.put_nowait(refusal)
                wait.waiting = replace(after, due=now + 3600.0)
            elif (after.job.phase, after.job.facts) != (before.job.phase, before.job.facts):
                wait.news.put_nowait(after.job)
                if not after.job.live:
                    wait.waiting = replace(after, due=now + 3600.0)
        return True
