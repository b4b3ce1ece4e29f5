"""`after_look` and `plan` as tables and properties; `SharedWatch` on an event loop whose time is made up."""

import asyncio
from collections import Counter
from contextlib import aclosing
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_resilient.jobs import Claim, Job, Phase
from airflow_resilient.testing.memory import InMemoryJobs
from airflow_resilient.watch import Patience, Refused, SharedWatch, Waiting, after_look, plan

FAMILY = "abcdefghijklmnop"
PATIENCE = Patience(poll=30.0, first=2.0, longest=300.0, missing=3, missing_for=60.0, refused=4)
DENIED = Refused(PermissionError("denied"))


def job(name: str = "a", phase: Phase = Phase.RUNNING, scope: str = "here") -> Job:
    return Job(name, Claim(FAMILY, 1), phase, 0.0, scope)


def waiting(name: str = "a", since: float = 0.0, due: float = 0.0, scope: str = "here", **more) -> Waiting:
    return Waiting(job(name, scope=scope), PATIENCE, since, due, **more)


# --- after_look -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "look", "now", "batch", "expected"),
    [
        pytest.param(
            waiting(),
            job(),
            8.0,
            1,
            {"due": 10.0},
            id="a young job is looked at again soon",
        ),
        pytest.param(
            waiting(),
            job(),
            10_000.0,
            1,
            {"due": 10_030.0},
            id="an old job is looked at at the longest interval",
        ),
        pytest.param(
            waiting(missing=2, missing_since=1.0, refused=3, alone=True),
            job(),
            8.0,
            1,
            {"missing": 0, "refused": 0, "alone": False},
            id="an answer makes up for everything",
        ),
        pytest.param(
            waiting(),
            None,
            8.0,
            1,
            {"missing": 1, "missing_since": 8.0, "due": 10.0},
            id="a miss is counted",
        ),
        pytest.param(
            waiting(missing=9, missing_since=8.0),
            None,
            67.0,
            1,
            {"missing": 10, "phase": Phase.RUNNING},
            id="many misses in a short time are not a loss",
        ),
        pytest.param(
            waiting(missing=1, missing_since=8.0),
            None,
            1000.0,
            1,
            {"missing": 2, "phase": Phase.RUNNING},
            id="few misses in a long time are not a loss",
        ),
        pytest.param(
            waiting(missing=2, missing_since=8.0),
            None,
            68.0,
            1,
            {"phase": Phase.LOST},
            id="enough misses over enough time are a loss",
        ),
        pytest.param(
            waiting(),
            DENIED,
            8.0,
            5,
            {"alone": True, "due": 8.0, "refused": 0},
            id="a refused batch is taken apart at once",
        ),
        pytest.param(
            waiting(alone=True),
            DENIED,
            8.0,
            1,
            {"alone": True, "due": 10.0, "refused": 1},
            id="a job refused alone is asked for again later",
        ),
        pytest.param(
            waiting(alone=True, refused=2),
            DENIED,
            8.0,
            1,
            {"due": 16.0, "refused": 3},
            id="and ever later",
        ),
        pytest.param(
            waiting(alone=True, refused=2),
            None,
            8.0,
            1,
            {"refused": 0, "alone": False},
            id="a miss is an answer, and no refusal",
        ),
    ],
)
def test_after_look(before, look, now, batch, expected):
    after = after_look(before, look, now, batch)
    known = vars(after) | {"phase": after.job.phase}
    assert {name: known[name] for name in expected} == expected


def test_a_look_never_takes_a_wait_back():
    before = replace(waiting(), job=job(phase=Phase.STOPPING))
    assert after_look(before, job(phase=Phase.RUNNING), 1.0).job.phase is Phase.STOPPING


some_looks = st.one_of(st.none(), st.just(DENIED), st.sampled_from(Phase).map(lambda phase: job(phase=phase)))


@given(st.lists(st.tuples(some_looks, st.floats(0.0, 1e5)), min_size=1, max_size=12), st.integers(1, 3))
def test_the_next_look_is_due_in_time(looks, batch):
    wait, now = waiting(), 0.0
    for look, later in looks:
        now += later
        wait = after_look(wait, look, now, batch)
        assert now <= wait.due <= now + PATIENCE.longest


@given(st.lists(st.tuples(st.one_of(st.none(), st.just(job())), st.floats(0.0, 100.0)), max_size=20))
def test_a_job_is_lost_only_after_misses_in_a_row_over_some_time(looks):
    wait, now, first_miss, misses = waiting(), 0.0, None, 0
    for look, later in looks:
        now += later
        wait = after_look(wait, look, now)
        misses = 0 if look else misses + 1
        first_miss = now if misses == 1 else first_miss
        lost = misses >= PATIENCE.missing and now - first_miss >= PATIENCE.missing_for
        assert (wait.job.phase is Phase.LOST) == lost
        if lost:
            return


# --- plan -----------------------------------------------------------------------------------------

some_waits = st.lists(
    st.builds(
        waiting,
        name=st.sampled_from("abcdefghijkl"),
        since=st.integers(0, 90),
        due=st.integers(80, 150),
        scope=st.sampled_from(["here", "there"]),
        alone=st.booleans(),
    ),
    max_size=12,
).map(
    lambda waits: [replace(wait, job=replace(wait.job, scope="ab"[ord(wait.job.id) % 2])) for wait in waits]
)
in_any_situation = given(some_waits, st.integers(1, 5))


@in_any_situation
def test_whoever_is_due_is_looked_at(waits, size):
    batches, _ = plan(100.0, waits, size)
    asked = {job.id for batch in batches for job in batch}
    assert {wait.job.id for wait in waits if wait.due <= 100.0} <= asked


@in_any_situation
def test_a_batch_has_one_scope_and_the_right_size(waits, size):
    batches, _ = plan(100.0, waits, size)
    for batch in batches:
        assert 1 <= len(batch) <= size
        assert len({job.scope for job in batch}) == 1


@in_any_situation
def test_a_job_stands_in_a_batch_once(waits, size):
    batches, _ = plan(100.0, waits, size)
    for batch in batches:
        assert max(Counter(job.id for job in batch).values()) == 1


@in_any_situation
def test_it_sleeps_until_the_next_one_is_due_and_no_longer(waits, size):
    batches, sleep = plan(100.0, waits, size)
    if waits:
        assert sleep == max(0.0, min(wait.due for wait in waits) - 100.0)
    assert bool(batches) == any(wait.due <= 100.0 for wait in waits)


def test_nobody_is_asked_about_when_nobody_is_due():
    assert plan(100.0, [waiting(due=130.0), waiting("b", due=107.0)], 100) == ([], 7.0)


def test_who_is_due_soon_comes_along():
    soon, later = waiting("b", due=114.0, since=-1000.0), waiting("c", due=116.0, since=-1000.0)
    batches, _ = plan(100.0, [waiting(due=100.0), soon, later], 100)
    assert [[job.id for job in batch] for batch in batches] == [["a", "b"]]


def test_who_was_refused_is_asked_about_alone():
    batches, _ = plan(100.0, [waiting(), waiting("b", alone=True), waiting("c")], 100)
    assert sorted([job.id for job in batch] for batch in batches) == [["a", "c"], ["b"]]


# --- SharedWatch ----------------------------------------------------------------------------------


class MadeUpTime(asyncio.SelectorEventLoop):
    """An event loop that skips all waiting: its time is that of what it waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped = 0.0
        select = self._selector.select

        def skip(timeout):
            assert timeout is not None, "everybody waits, and nothing will happen"
            self.skipped += timeout
            assert self.skipped < 1e6, "nothing happens any more"
            return select(0)

        self._selector.select = skip

    def time(self) -> float:
        return self.skipped


class Hall:
    """A watch, a service in memory, and those who wait."""

    def __init__(self, kind=InMemoryJobs, **settings) -> None:
        self.loop = MadeUpTime()
        self.jobs = kind(clock=self.loop.time, **settings)
        self.watch = SharedWatch(self.jobs, self.in_line, self.jobs.now, lambda: 0.5)
        self.seen = {}

    async def in_line(self, function, *args):
        await asyncio.sleep(0)
        return function(*args)

    def start(self, count, **settings):
        handle = InMemoryJobs(self.jobs.name, **settings)
        first = len(self.jobs.history)
        return [handle.submit(Claim(FAMILY, number)) for number in range(first + 1, first + count + 1)]

    async def wait_for(self, job, patience=PATIENCE):
        looks = self.seen[job.id] = []
        async with aclosing(self.watch.follow(job, patience)) as follow:
            async for look in follow:
                looks.append(look.phase)  # noqa: PERF401 - what was seen must be there when it is cancelled
        return looks

    def run(self, main):
        try:
            return self.loop.run_until_complete(main)
        finally:
            self.loop.close()

    def batches(self):
        return [len(call.about) for call in self.jobs.journal if call.method == "observe"]


def test_many_waits_share_calls():
    hall = Hall(seconds=600.0, batch_size=100)
    jobs = hall.start(250)

    async def main():
        return await asyncio.gather(*(hall.wait_for(job) for job in jobs))

    assert all(looks[-1] is Phase.SUCCEEDED for looks in hall.run(main()))
    assert max(hall.batches()) == 100
    assert len(hall.batches()) < 3 * 60, "three calls for each round, not 250"


def test_scopes_do_not_share_calls():
    hall = Hall(seconds=60.0)
    jobs = hall.start(3, scope="a") + hall.start(3, scope="b")

    async def main():
        await asyncio.gather(*(hall.wait_for(job) for job in jobs))

    hall.run(main())
    assert set(hall.batches()) == {3}


def test_two_who_wait_for_one_job_are_both_told():
    hall = Hall(seconds=60.0)
    (job,) = hall.start(1)

    async def main():
        return await asyncio.gather(hall.wait_for(job), hall.wait_for(job))

    assert [looks[-1] for looks in hall.run(main())] == [Phase.SUCCEEDED] * 2
    assert set(hall.batches()) == {1}


def test_who_joins_later_is_looked_after_soon_but_not_before_airflow_has_heard_of_it():
    hall = Hall(seconds=1000.0)
    jobs = hall.start(2)

    async def main():
        first = asyncio.ensure_future(hall.wait_for(jobs[0]))
        await asyncio.sleep(500.5)
        hall.jobs.finish(jobs[1])
        before = hall.loop.time()
        await hall.wait_for(jobs[1])
        first.cancel()
        return hall.loop.time() - before

    assert hall.run(main()) == Patience.first


def test_throttling_delays_and_never_fails():
    hall = Hall(seconds=60.0)
    jobs = hall.start(5)
    hall.jobs.throttle(12)

    async def main():
        await asyncio.gather(*(hall.wait_for(job) for job in jobs))
        return hall.loop.time()

    spent = hall.run(main())
    assert {looks[-1] for looks in hall.seen.values()} == {Phase.SUCCEEDED}
    assert spent > 1000.0, "the pauses have grown"
    times = [call.time for call in hall.jobs.journal if call.method == "observe"]
    pauses = [later - sooner for sooner, later in pairwise(times[:13])]
    assert pauses == sorted(pauses)
    assert max(pauses) <= PATIENCE.longest


def test_trouble_with_one_cluster_does_not_starve_the_others():
    class OneIsDown(InMemoryJobs):
        def observe(self, jobs):
            if jobs[0].scope == "a" and self.now() < 5000.0:
                raise TimeoutError
            return super().observe(jobs)

    hall = Hall(OneIsDown, seconds=60.0)
    jobs = hall.start(1, scope="a") + hall.start(1, scope="b")

    async def main():
        first = asyncio.ensure_future(hall.wait_for(jobs[0]))
        await hall.wait_for(jobs[1])
        spent = hall.loop.time()
        await first
        return spent

    assert hall.run(main()) < 400.0


class OneIsDenied(InMemoryJobs):
    """Refuses every call that is about the job ``job-2``."""

    def observe(self, jobs):
        if any(job.id == "job-2" for job in jobs):
            self.calls["refused"] += 1
            raise PermissionError("denied")
        return super().observe(jobs)


def test_a_refused_job_does_not_harm_its_neighbours():
    hall = Hall(OneIsDenied, seconds=600.0)
    jobs = hall.start(4)

    async def main():
        return await asyncio.gather(*(hall.wait_for(job) for job in jobs), return_exceptions=True)

    results = hall.run(main())
    assert isinstance(results[1], PermissionError)
    assert [looks[-1] for looks in (results[0], *results[2:])] == [Phase.SUCCEEDED] * 3
    assert hall.jobs.calls["refused"] == PATIENCE.refused + 1, "once in the batch, then alone"


def test_a_job_that_the_service_forgot_is_lost():
    hall = Hall(seconds=10.0, forget_after=5.0)
    (job,) = hall.start(1)
    hall.jobs.advance(100.0)

    async def main():
        return await hall.wait_for(job)

    assert hall.run(main()) == [Phase.LOST]
    assert hall.loop.time() >= PATIENCE.missing_for


def test_a_job_that_is_not_known_yet_is_not_lost():
    hall = Hall(seconds=100.0, unknown_for=50.0)
    (job,) = hall.start(1)

    async def main():
        return await hall.wait_for(job)

    assert hall.run(main())[-1] is Phase.SUCCEEDED


def test_who_stops_waiting_leaves_the_others_alone():
    hall = Hall(seconds=60.0)
    jobs = hall.start(3)

    async def main():
        waits = [asyncio.ensure_future(hall.wait_for(job)) for job in jobs]
        await asyncio.sleep(5.0)
        waits[1].cancel()
        return await asyncio.gather(*waits, return_exceptions=True)

    results = hall.run(main())
    assert isinstance(results[1], asyncio.CancelledError)
    assert [results[0][-1], results[2][-1]] == [Phase.SUCCEEDED] * 2
    assert len(hall.watch) == 0


def test_the_last_one_turns_off_the_light():
    hall = Hall(seconds=60.0)
    (job,) = hall.start(1)

    async def main():
        wait = asyncio.ensure_future(hall.wait_for(job))
        await asyncio.sleep(5.0)
        wait.cancel()
        await asyncio.gather(wait, return_exceptions=True)
        calls = hall.jobs.calls["observe"]
        await asyncio.sleep(500.0)
        return hall.jobs.calls["observe"] - calls

    assert hall.run(main()) == 0


def test_a_watch_that_has_stopped_starts_again():
    hall = Hall(seconds=60.0)
    jobs = hall.start(2)

    async def main():
        await hall.wait_for(jobs[0])
        await asyncio.sleep(100.0)
        return await hall.wait_for(jobs[1])

    assert hall.run(main()) == [Phase.SUCCEEDED]


def test_a_defect_in_the_watch_reaches_everybody_who_waits():
    class Defect(InMemoryJobs):
        def is_transient(self, error):
            raise ZeroDivisionError

    hall = Hall(Defect, seconds=60.0)
    jobs = hall.start(3)
    hall.jobs.throttle(1)

    async def main():
        return await asyncio.gather(*(hall.wait_for(job) for job in jobs), return_exceptions=True)

    assert [type(result) for result in hall.run(main())] == [ZeroDivisionError] * 3


def test_a_change_of_facts_is_told_even_if_the_phase_stays():
    class Reports(InMemoryJobs):
        def observe(self, jobs):
            return [replace(job, facts={"state": int(self.now() / 20)}) for job in super().observe(jobs)]

    hall = Hall(Reports, seconds=None)
    (job,) = hall.start(1)

    async def main():
        async with aclosing(hall.watch.follow(job, PATIENCE)) as follow:
            async for look in follow:
                if look.facts["state"] == 3:
                    break
        return look.phase

    assert hall.run(main()) is Phase.RUNNING
