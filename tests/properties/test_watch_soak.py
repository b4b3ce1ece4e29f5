"""`SharedWatch` for hours of virtual time: joins, leaves, throttles, errors, and what is left of them."""

import asyncio
import contextvars
import gc
import logging
import random
import tracemalloc
from collections import Counter
from contextlib import aclosing
from dataclasses import replace

import pytest

from airflow_resilient.core import polling
from airflow_resilient.core.job import Claim, Job, Phase
from airflow_resilient.core.polling import PollPolicy
from airflow_resilient.core.service import Budget, RemoteService
from airflow_resilient.services.ecs.client import EcsTasks
from airflow_resilient.testing.virtual_time import VirtualTimeLoop, in_line
from airflow_resilient.watching import plan, shared_watch
from airflow_resilient.watching.budget import Bucket, SharedBucket
from airflow_resilient.watching.shared_watch import SharedWatch

pytestmark = pytest.mark.pure

TASK_KEY = "abcdefghijklmnop"
POLICY = PollPolicy(interval=20.0, give_up_after_denials=3)
RATE, BURST = 2.0, 20.0


class TooManyCalls(Exception):
    pass


class Timetable(RemoteService):
    """A service without a memory: when a job ends stands in its id. It is throttled as AWS throttles.

    :ivar allowed: calls per second that it allows now; others use the rest of the budget.
    :ivar down: scopes that give no answer.
    :ivar denied: jobs that may not be polled: a batch with one of them is refused.
    """

    batch_size = 20
    name = "timetable"
    scope_noun = "cluster"
    budget = Budget("test:Observe", RATE, BURST)

    def __init__(self, now):
        self.now, self.allowed = now, RATE
        self.down, self.denied = set(), set()
        self.endpoint = Bucket.full(self.budget)
        self.calls, self.answers = [], Counter()

    def is_transient(self, error):
        return isinstance(error, TimeoutError | TooManyCalls)

    def is_throttle(self, error):
        return isinstance(error, TooManyCalls)

    def observe(self, jobs):
        now = self.now()
        self.calls.append((now, len(jobs)))
        self.endpoint = replace(self.endpoint.refilled(now), rate=self.allowed)
        answer = self._answer(jobs)
        self.answers[answer] += 1
        if answer == "throttled":
            raise TooManyCalls
        self.endpoint = self.endpoint.spent(1)
        if answer == "down":
            raise TimeoutError
        if answer == "denied":
            raise PermissionError
        ended = {job.id: float(job.id.partition("@")[2]) <= now for job in jobs}
        return [replace(job, phase=Phase.SUCCEEDED) if ended[job.id] else job for job in jobs]

    def find(self, claims):
        raise NotImplementedError

    def submit(self, claim):
        raise NotImplementedError

    def cancel(self, job, reason):
        raise NotImplementedError

    def address(self):
        return {}

    def _answer(self, jobs):
        if not self.endpoint.affords(1):
            return "throttled"
        if jobs[0].scope in self.down:
            return "down"
        return "denied" if self.denied.intersection(job.id for job in jobs) else "ok"


class Soak:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.loop = VirtualTimeLoop()
        self.service = Timetable(self.loop.time)
        bucket = SharedBucket(self.service.budget, now=self.loop.time)
        self.watch = SharedWatch(
            self.service, in_line, self.loop.time, self.random.random, wall=self.loop.time, buckets=[bucket]
        )
        self.serial, self.late, self.outcomes = 0, [], Counter()
        self.waits = {}  # each with whether its task may be cancelled; in the order in which they came

    def job(self, scope, seconds):
        self.serial += 1
        now = self.loop.time()
        name = f"{scope}/{self.serial}@{now + seconds:.1f}"
        return Job(name, Claim(TASK_KEY, 1), Phase.RUNNING, now, scope)

    async def wait_for(self, job):
        """Wait for the end, and note how late it was noticed."""
        began = self.loop.time()
        end = max(float(job.id.partition("@")[2]), began)
        try:
            async with aclosing(self.watch.follow(job, POLICY)) as follow:
                async for observed in follow:
                    assert self.loop.time() >= began + POLICY.first_interval
                    if not observed.live:
                        self.outcomes[observed.phase] += 1
                        self.late.append((end, self.loop.time() - end))
        except (PermissionError, asyncio.CancelledError) as error:
            self.outcomes[type(error)] += 1

    def start(self, job, *, leaves=True):
        task = asyncio.ensure_future(self.wait_for(job))
        self.waits[task] = leaves
        task.add_done_callback(self.waits.pop)

    async def come_and_go(self, until):
        """Waits join and leave: one large scope, many small ones."""
        while self.loop.time() < until:
            await asyncio.sleep(self.random.expovariate(1.0))
            scope = "large" if self.random.random() < 0.5 else f"small-{self.random.randrange(30)}"
            self.start(self.job(scope, self.random.expovariate(1 / 120)))
            if self.random.random() < 0.1 and (leaving := [wait for wait in self.waits if self.waits[wait]]):
                self.random.choice(leaving).cancel()

    async def wait_for_all(self):
        """Wait for everybody who waits."""
        while self.waits:
            await asyncio.wait(self.waits)

    def run(self, coroutine):
        """Run it; then end all waits that are left, as when a triggerer stops."""

        async def main():
            result = await coroutine
            for wait in self.waits:
                wait.cancel()
            await self.wait_for_all()
            return result

        return self.loop.run_until_complete(main())


@pytest.fixture
def soak(request):
    made = Soak(getattr(request, "param", 1))
    yield made
    made.loop.close()


@pytest.mark.parametrize("soak", range(3), indirect=True, ids="seed {}".format)
def test_half_an_hour_of_joins_leaves_throttles_and_errors(soak, caplog):
    service = soak.service

    async def errors():
        await asyncio.sleep(300)
        service.down = {"small-1", "small-2"}
        await asyncio.sleep(300)
        service.allowed = RATE / 4  # others use the account
        await asyncio.sleep(300)
        service.down, service.allowed = set(), RATE
        service.denied = {soak.job("large", 1e6).id}
        (denied,) = service.denied
        soak.start(Job(denied, Claim(TASK_KEY, 1), Phase.RUNNING, 0.0, "large"), leaves=False)
        await asyncio.sleep(300)
        service.down = {"large", *(f"small-{number}" for number in range(30))}  # the network
        await asyncio.sleep(120)
        service.down = set()

    async def main():
        await asyncio.gather(soak.come_and_go(1800.0), errors())
        await soak.wait_for_all()

    with caplog.at_level(logging.INFO, "airflow_resilient.watching.shared_watch"):
        soak.run(main())
    assert soak.outcomes[PermissionError] == 1, "the denied one, and no other"
    assert soak.outcomes[Phase.SUCCEEDED] > 1200
    assert set(soak.outcomes) <= {Phase.SUCCEEDED, PermissionError, asyncio.CancelledError}
    calm = [late for end, late in soak.late if not 270 <= end <= 1560]
    assert max(calm) <= POLICY.interval + 20.0, "in quiet times ends are noticed in time"
    assert max(late for _, late in soak.late) <= 600.0 + POLICY.max_backoff, "in the worst of times, too"
    assert service.answers["throttled"] <= 0.1 * len(service.calls)
    assert_no_window_exceeds_the_budget(service.calls)
    messages = [record.message for record in caplog.records]
    assert sum(message.startswith("throttled by AWS") for message in messages) <= 3
    assert sum("ends are noticed later" in message for message in messages) <= 4


def assert_no_window_exceeds_the_budget(calls):
    times = [time for time, _ in calls]
    for first, begin in enumerate(times):
        for last in range(first, len(times), 7):
            assert last - first + 1 <= BURST + RATE * (times[last] - begin) + 1


def kinds_alive():
    """How many objects of each class of the watch there are in this process, also those of other tests."""
    gc.collect()
    return Counter(
        type(each).__name__
        for each in gc.get_objects()
        if type(each).__module__ in (plan.__name__, polling.__name__, shared_watch.__name__)
    )


def test_memory_does_not_grow(soak):
    before = kinds_alive()

    async def main():
        sizes = []
        for cycle in range(1, 6):
            await soak.come_and_go(cycle * 150.0)
            await soak.wait_for_all()
            soak.late.clear()
            soak.service.calls.clear()
            soak.watch.counts.clear()
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
        return sizes

    tracemalloc.start()
    try:
        sizes = soak.run(main())
    finally:
        tracemalloc.stop()
    assert sizes[-1] - sizes[1] < 20_000, f"bytes after each of five cycles: {sizes}"
    assert not {"Wait", "_Subscription", "Batch", "_Backoff"} & set(kinds_alive() - before)


def test_when_nobody_waits_any_more_nothing_of_them_is_kept(soak):
    async def main():
        soak.service.down = {"small-1"}
        for number in range(5):
            soak.start(soak.job(f"small-{number % 2}", 1e6))
        await asyncio.sleep(60)

    soak.run(main())
    watch = soak.watch
    left = (
        watch._waits,
        watch._by_job,
        watch._by_key,
        watch._polls,
        watch._backing_off,
        watch.buckets[0]._waiting,
    )
    assert not any(map(len, left))
    soak.run(asyncio.sleep(0))
    assert not [task for task in asyncio.all_tasks(soak.loop) if not task.done()]


@pytest.mark.parametrize("count", [1000])
def test_a_wait_costs_kilobytes(soak, count):
    """Not megabytes, as a client of its own would."""

    async def main():
        soak.start(soak.job("large", 1e6))
        await asyncio.sleep(60)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(count):
            soak.start(soak.job(f"small-{number % 10}", 1e6))
        await asyncio.sleep(60)
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) / count

    tracemalloc.start()
    try:
        each = soak.run(main())
    finally:
        tracemalloc.stop()
    assert each < 10_000


def test_the_garbage_collector_tracks_few_objects_for_a_wait(soak):
    """A full collection looks at each of them: with thousands of waits, that is what holds up the loop."""

    async def main():
        soak.start(soak.job("large", 1e6))
        await asyncio.sleep(60)
        gc.collect()
        before = len(gc.get_objects())
        for number in range(1000):
            soak.start(soak.job(f"small-{number % 10}", 1e6))
        await asyncio.sleep(60)
        gc.collect()
        return (len(gc.get_objects()) - before) / 1000

    assert soak.run(main()) < 25


class ManyTasks(Timetable):
    """As ECS: a hundred in a call, twenty calls a second for the account."""

    batch_size = 100
    budget = EcsTasks.budget


def test_ten_thousand_tasks_are_polled_every_fifteen_seconds_within_half_the_budget_of_ecs():
    loop = VirtualTimeLoop()
    service = ManyTasks(loop.time)
    service.allowed = service.budget.per_second
    bucket = SharedBucket(service.budget, 0.5, now=loop.time)
    watch = SharedWatch(service, in_line, loop.time, lambda: 0.5, wall=loop.time, buckets=[bucket])
    job = Job("", Claim(TASK_KEY, 1), Phase.RUNNING, -1e4, "etl")

    async def wait_for(number):
        async with aclosing(
            watch.follow(replace(job, id=f"{number}@1e9"), PollPolicy(interval=15.0))
        ) as follow:
            async for _ in follow:
                pass

    async def main():
        waits = [asyncio.ensure_future(wait_for(number)) for number in range(10_000)]
        oldest = []
        for _ in range(3):
            await asyncio.sleep(10)
            oldest.append(watch.gauges()["oldest_poll"])
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        return oldest

    try:
        oldest = loop.run_until_complete(main())
    finally:
        loop.close()
    assert max(oldest) <= 15.0 + 0.1
    assert service.answers == {"ok": len(service.calls)}
    times = [time for time, _ in service.calls]
    for begin in times:
        assert sum(begin <= time <= begin + 10 for time in times) <= 50 + 10 * 10
    assert len(times) <= 30 / (15 * 0.8) * 100 + 100, "a hundred tasks in a call"


def test_a_cluster_with_one_step_is_not_starved_by_one_with_two_hundred(soak):
    soak.service.batch_size = 1  # each poll of the large one takes two hundred calls
    seen = Counter()
    observe = soak.service.observe

    def noted(jobs):
        seen[jobs[0].scope] += 1
        return observe(jobs)

    soak.service.observe = noted

    async def main():
        for _ in range(200):
            soak.start(soak.job("large", 1e6))
        await asyncio.sleep(60)
        soak.start(soak.job("small-1", 1e6))
        before = seen.copy()
        await asyncio.sleep(1000)
        return seen["small-1"], (seen["large"] - before["large"]) / 200

    small, large = soak.run(main())
    assert small >= large - 1, "each job of the large one is polled no more often than that of the small one"
    assert small >= 8


def test_errors_of_one_cluster_delay_no_other(soak):
    soak.service.down = {"large"}

    async def main():
        for _ in range(40):
            soak.start(soak.job("large", 1e6))
        for number in range(10):
            soak.start(soak.job(f"small-{number}", 200.0 + number))
        await asyncio.sleep(400)

    soak.run(main())
    assert len(soak.late) == 10
    assert max(late for _, late in soak.late) <= POLICY.interval
    assert soak.service.answers["down"] <= 10, "and it is not asked again and again"


def test_after_an_outage_of_everything_all_are_asked_again_at_once(soak):
    everything = {f"small-{number}" for number in range(10)}

    async def main():
        for scope in sorted(everything):
            soak.start(soak.job(scope, 500.0))
        await asyncio.sleep(100)
        soak.service.down = everything
        await asyncio.sleep(1000)
        soak.service.down = set()
        await soak.wait_for_all()
        return soak.loop.time()

    done = soak.run(main())
    first = min(end + late for end, late in soak.late)
    assert done - first < 15, "after the first answer the others are polled, too"


def test_throttling_slows_all_who_share_the_bucket_and_fails_nobody(soak, caplog):
    service = soak.service
    service.allowed = 0.4
    other = SharedWatch(service, in_line, soak.loop.time, wall=soak.loop.time, buckets=soak.watch.buckets)

    async def main():
        for number in range(60):
            soak.start(soak.job(f"small-{number % 30}", 1e6))
        soak.watch = other
        for number in range(60):
            soak.start(soak.job(f"small-{number % 30}", 1e6))
        await asyncio.sleep(1500)
        service.calls.clear()
        service.answers.clear()
        await asyncio.sleep(4000)

    with caplog.at_level(logging.WARNING, "airflow_resilient.watching.shared_watch"):
        soak.run(main())
    assert service.answers["ok"] / 4000 == pytest.approx(0.4, rel=0.1), "the rate has settled"
    assert not soak.late
    assert not [kind for kind in soak.outcomes if kind is PermissionError]
    messages = [record.message for record in caplog.records if record.message.startswith("throttled by AWS")]
    assert len(messages) <= 2, "logged once by each watch"


def test_what_the_watch_logs_is_not_taken_for_the_log_of_the_trigger_that_came_first(soak):
    trigger = contextvars.ContextVar("trigger", default="none")
    seen = set()
    observe = soak.service.observe

    def noted(jobs):
        seen.add(trigger.get())
        return observe(jobs)

    soak.service.observe = noted

    async def main():
        trigger.set("first")
        soak.start(soak.job("small-1", 10.0))
        await asyncio.sleep(60)

    soak.run(main())
    assert seen == {"none"}


def test_a_restarted_triggerer_does_not_poll_old_jobs_as_if_they_were_young(soak):
    async def main():
        await asyncio.sleep(5000)
        old = Job("small-1/1@1e9", Claim(TASK_KEY, 1), Phase.RUNNING, 10.0, "small-1")
        soak.start(old)
        await asyncio.sleep(100)

    soak.run(main())
    assert len(soak.service.calls) <= 8


def test_a_job_that_is_being_stopped_is_polled_often_however_old(soak):
    async def main():
        await asyncio.sleep(5000)
        old = Job("small-1/1@1e9", Claim(TASK_KEY, 1), Phase.STOPPING, 10.0, "small-1")
        soak.start(old)
        await asyncio.sleep(20)

    soak.run(main())
    assert len(soak.service.calls) >= 6


def test_an_event_causes_a_poll_and_a_second_one_if_the_first_came_too_early(soak):
    async def main():
        await asyncio.sleep(5000)
        job = replace(soak.job("small-1", 163.0), created=0.0)
        soak.start(job)
        await asyncio.sleep(160.0)
        before = len(soak.service.calls)
        assert soak.watch.wake([job.id], ended=True) == 1
        assert soak.watch.wake(["somebody else's"], ended=True) == 0
        await asyncio.sleep(6.0)
        return len(soak.service.calls) - before

    assert 2 <= soak.run(main()) <= 3
    ((_, late),) = soak.late
    assert late <= 2 * POLICY.first_interval


def test_gauges_show_the_present_state(soak):
    async def main():
        for number in range(30):
            soak.start(soak.job(f"small-{number % 3}", 1e6))
        await asyncio.sleep(100)
        return soak.watch.gauges()

    gauges = soak.run(main())
    assert gauges["waits"] == 30
    assert gauges["freshness"] == 3 / RATE
    assert 0 < gauges["oldest_poll"] <= POLICY.interval
    assert gauges["calls_per_second"] == RATE
    assert soak.watch.counts["polls"] >= 30
