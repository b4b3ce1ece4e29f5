"""`after_look`, `woken` and `plan` as tables and properties; `SharedWatch` in a time that is made up.

Tests of the pure part take the core as an argument, so that `test_watch_mutants` can hand them a wrong one.
"""

import asyncio
from collections import Counter
from contextlib import aclosing
from dataclasses import replace
from itertools import accumulate, pairwise
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_resilient import watch as real
from airflow_resilient.budget import DEFAULT_BUDGET, Bucket
from airflow_resilient.jobs import Claim, Job, Phase
from airflow_resilient.testing._made_up_time import MadeUpTime, in_line
from airflow_resilient.testing.memory import InMemoryJobs
from airflow_resilient.watch import SharedWatch

FAMILY = "abcdefghijklmnop"
LIMITS = {"poll": 30.0, "first": 2.0, "longest": 300.0, "missing": 3, "missing_for": 60.0, "refused": 4}
PATIENCE = real.Patience(**LIMITS)
DENIED = PermissionError("denied")
ENDLESS = DEFAULT_BUDGET.bucket(1e6)


def job(name: str = "a", phase: Phase = Phase.RUNNING, scope: str = "here") -> Job:
    return Job(name, Claim(FAMILY, 1), phase, 0.0, scope)


def waiting(name="a", since=0.0, due=0.0, scope="here", core=real, **more):
    return core.Waiting(job(name, scope=scope), core.Patience(**LIMITS), since, due, **more)


def names(planned):
    return [[job.id for job in batch.jobs] for batch in planned.batches]


# --- after_look -----------------------------------------------------------------------------------


AFTER_LOOK = {
    "a young job is looked at again soon": ({}, job(), 8.0, 1, {"due": 10.0}),
    "an old job is looked at at the longest interval": ({}, job(), 10_000.0, 1, {"due": 10_030.0}),
    "a job that was old when the wait began, too": ({"age": 3600.0}, job(), 8.0, 1, {"due": 38.0}),
    "an answer makes up for everything": (
        {"missing": 2, "missing_since": 1.0, "refused": 3, "crowd": 1},
        job(),
        8.0,
        1,
        {"missing": 0, "refused": 0, "crowd": 0},
    ),
    "it is known when it was looked at": ({}, job(), 8.0, 1, {"looked": 8.0}),
    "a miss is counted": ({}, None, 8.0, 1, {"missing": 1, "missing_since": 8.0, "due": 10.0}),
    "many misses in a short time are not a loss": (
        {"missing": 9, "missing_since": 8.0},
        None,
        67.0,
        1,
        {"missing": 10, "phase": Phase.RUNNING},
    ),
    "few misses in a long time are not a loss": (
        {"missing": 1, "missing_since": 8.0},
        None,
        1000.0,
        1,
        {"missing": 2, "phase": Phase.RUNNING},
    ),
    "enough misses over enough time are a loss": (
        {"missing": 2, "missing_since": 8.0},
        None,
        68.0,
        1,
        {"phase": Phase.LOST},
    ),
    "a refused batch is halved at once": ({}, DENIED, 8.0, 5, {"crowd": 2, "due": 8.0, "refused": 0}),
    "of a refused pair, each is asked about alone": ({"crowd": 2}, DENIED, 8.0, 2, {"crowd": 1, "due": 8.0}),
    "a job refused alone is asked for again later": (
        {"crowd": 1},
        DENIED,
        8.0,
        1,
        {"crowd": 1, "due": 10.0, "refused": 1},
    ),
    "and ever later": ({"crowd": 1, "refused": 2}, DENIED, 8.0, 1, {"due": 16.0, "refused": 3}),
    "a miss is an answer, and no refusal": (
        {"crowd": 1, "refused": 2},
        None,
        8.0,
        1,
        {"refused": 0, "crowd": 0},
    ),
    "whose end was heard of is looked at again soon, however old": (
        {"hurried": 3},
        job(),
        1000.0,
        1,
        {"due": 1002.0, "hurried": 2},
    ),
    "until there is news": (
        {"hurried": 3},
        replace(job(), facts={"steps": "COMPLETED"}),
        1000.0,
        1,
        {"due": 1030.0, "hurried": 0},
    ),
    "but not for ever": ({"hurried": 0}, job(), 1000.0, 1, {"due": 1030.0, "hurried": 0}),
}


def wrong_rows(core=real):
    """Rows of the table that `core` gets wrong."""
    wrong = []
    for name, (fields, look, now, batch, expected) in AFTER_LOOK.items():
        seen = core.Refused(look) if isinstance(look, Exception) else look
        after = core.after_look(waiting(core=core, **fields), seen, now, batch)
        known = vars(after) | {"phase": after.job.phase}
        if {field: known[field] for field in expected} != expected:
            wrong.append(name)
    return wrong


@pytest.fixture(scope="module")
def core():
    """What is tested; other tests pass a core in which a rule is broken."""
    return real


def test_after_look():
    assert wrong_rows() == []


def test_a_look_never_takes_a_wait_back():
    before = replace(waiting(), job=job(phase=Phase.STOPPING))
    assert real.after_look(before, job(phase=Phase.RUNNING), 1.0).job.phase is Phase.STOPPING


def test_a_look_that_tells_nothing_new_leaves_the_job_that_is_known():
    """Thousands of new ones would make the garbage collector halt the event loop."""
    before = waiting()
    assert real.after_look(before, job(), 1.0).job is before.job
    assert real.after_look(before, job(phase=Phase.STOPPING), 1.0).job is not before.job


some_looks = st.one_of(
    st.none(), st.just(real.Refused(DENIED)), st.sampled_from(Phase).map(lambda phase: job(phase=phase))
)


@given(st.lists(st.tuples(some_looks, st.floats(0.0, 1e5)), min_size=1, max_size=12), st.integers(1, 3))
def test_the_next_look_is_due_in_time(looks, batch):
    wait, now = waiting(), 0.0
    for look, later in looks:
        now += later
        wait = real.after_look(wait, look, now, batch)
        assert now <= wait.due <= now + PATIENCE.longest


@given(st.lists(st.tuples(st.one_of(st.none(), st.just(job())), st.floats(0.0, 100.0)), max_size=20))
def test_a_job_is_lost_only_after_misses_in_a_row_over_some_time(looks):
    wait, now, first_miss, misses = waiting(), 0.0, None, 0
    for look, later in looks:
        now += later
        wait = real.after_look(wait, look, now)
        misses = 0 if look else misses + 1
        first_miss = now if misses == 1 else first_miss
        lost = misses >= PATIENCE.missing and now - first_miss >= PATIENCE.missing_for
        assert (wait.job.phase is Phase.LOST) == lost
        if lost:
            return


# --- woken ----------------------------------------------------------------------------------------


def test_an_event_makes_a_look_due(core):
    wait = core.woken(waiting(due=130.0, core=core), 100.0, ended=True)
    assert (wait.due, wait.hurried) == (100.0, real.HURRIED)


def test_an_event_that_tells_of_no_end_makes_one_look_due_and_not_several(core):
    wait = core.woken(waiting(due=130.0, core=core), 100.0, ended=False)
    assert (wait.due, wait.hurried) == (100.0, 0)


def test_an_event_does_not_bring_the_first_look_forward(core):
    """Airflow may not have heard of the deferral yet; see `SharedWatch.follow`."""
    wait = core.woken(waiting(since=99.5, due=101.5, core=core), 100.0, ended=True)
    assert wait.due == 101.5


def test_many_events_make_no_more_looks_than_the_shortest_interval_allows(core):
    wait = core.woken(waiting(due=130.0, looked=99.0, core=core), 100.0, ended=True)
    assert wait.due == 101.0


def test_an_event_delays_nothing(core):
    wait = core.woken(waiting(due=90.0, looked=99.0, core=core), 100.0, ended=True)
    assert wait.due == 90.0


# --- plan -----------------------------------------------------------------------------------------

some_waits = st.lists(
    st.builds(
        waiting,
        name=st.sampled_from("abcdefghijkl"),
        since=st.integers(0, 90),
        due=st.integers(80, 150),
        crowd=st.sampled_from([0, 0, 0, 1, 2]),
    ),
    max_size=12,
).map(
    lambda waits: [replace(wait, job=replace(wait.job, scope="ab"[ord(wait.job.id) % 2])) for wait in waits]
)
in_any_situation = given(waits=some_waits, size=st.integers(1, 5))


@in_any_situation
def test_whoever_is_due_is_looked_at(waits, size, core):
    planned = core.plan(100.0, waits, ENDLESS, size=size, rooms=core.Rooms(100, 100))
    asked = {name for batch in names(planned) for name in batch}
    assert {wait.job.id for wait in waits if wait.due <= 100.0} <= asked


@in_any_situation
def test_a_batch_has_one_scope_and_the_right_size(waits, size, core):
    crowds = {}
    for wait in waits:
        crowds.setdefault(wait.job.id, []).append(wait.crowd)
    for batch in core.plan(100.0, waits, ENDLESS, size=size, rooms=core.Rooms(100, 100)).batches:
        assert 1 <= len(batch.jobs) <= size
        assert {job.scope for job in batch.jobs} == {batch.scope}
        for job_ in batch.jobs:
            assert len(batch.jobs) <= max(crowd or size for crowd in crowds[job_.id])


@in_any_situation
def test_a_job_stands_in_a_batch_once(waits, size, core):
    for batch in names(core.plan(100.0, waits, ENDLESS, size=size, rooms=core.Rooms(100, 100))):
        assert max(Counter(batch).values()) == 1


@in_any_situation
def test_no_call_is_made_in_which_nobody_is_due(waits, size, core):
    due = {wait.job.id for wait in waits if wait.due <= 100.0}
    for batch in names(core.plan(100.0, waits, ENDLESS, size=size, rooms=core.Rooms(100, 100))):
        assert due & set(batch)


@in_any_situation
def test_it_sleeps_until_the_next_one_is_due_and_no_longer(waits, size, core):
    planned = core.plan(100.0, waits, ENDLESS, size=size, rooms=core.Rooms(100, 100))
    later = [wait.due - 100.0 for wait in waits if wait.due > 100.0]
    assert planned.sleep == min(later, default=3600.0)
    assert bool(planned.batches) == any(wait.due <= 100.0 for wait in waits)


def test_nobody_is_asked_about_when_nobody_is_due(core):
    waits = [waiting(due=130.0, core=core), waiting("b", due=107.0, core=core)]
    assert core.plan(100.0, waits, ENDLESS) == core.Plan((), 7.0)


def test_who_is_due_soon_comes_along(core):
    soon, later = (
        waiting("b", due=114.0, since=-1000.0, core=core),
        waiting("c", due=116.0, since=-1000.0, core=core),
    )
    planned = core.plan(100.0, [waiting(due=100.0, core=core), soon, later], ENDLESS)
    assert names(planned) == [["a", "b"]]


def test_who_is_due_soon_makes_no_call_of_its_own(core):
    soon = waiting("b", due=114.0, since=-1000.0, core=core)
    assert names(core.plan(100.0, [waiting(due=100.0, core=core), soon], ENDLESS, size=1)) == [["a"]]


def test_who_is_due_next_comes_along_where_there_is_room_for_one(core):
    waits = [
        waiting(name, due=due, since=-1000.0, core=core)
        for name, due in (("a", 100.0), ("b", 112.0), ("c", 108.0))
    ]
    assert names(core.plan(100.0, waits, ENDLESS, size=2)) == [["a", "c"]]


def test_a_job_that_two_wait_for_is_asked_about_once(core):
    waits = [waiting(due=90.0, core=core), waiting(due=95.0, core=core), waiting("b", due=99.0, core=core)]
    planned = core.plan(100.0, waits, ENDLESS)
    assert (names(planned), planned.batches[0].due) == ([["a", "b"]], 90.0)


def test_who_has_just_begun_to_wait_does_not_come_along(core):
    early = waiting("b", due=100.5, since=98.5, core=core)
    assert names(core.plan(100.0, [waiting(due=100.0, core=core), early], ENDLESS)) == [["a"]]


def test_who_was_refused_is_asked_about_in_smaller_company(core):
    waits = [
        waiting(name, crowd=crowd, core=core) for name, crowd in [*dict.fromkeys("ac", 0).items(), ("b", 1)]
    ]
    assert sorted(names(core.plan(100.0, waits, ENDLESS))) == [["a", "c"], ["b"]]
    waits = [waiting(name, crowd=2, core=core) for name in "abcd"]
    assert names(core.plan(100.0, waits, ENDLESS)) == [["a", "b"], ["c", "d"]]


def test_who_was_due_first_is_first_whatever_its_scope(core):
    waits = [
        waiting(name, due=due, scope=name, core=core) for name, due in (("a", 90.0), ("b", 70.0), ("c", 80.0))
    ]
    assert names(core.plan(100.0, waits, ENDLESS)) == [["b"], ["c"], ["a"]]


def calls_by_scope(jobs):
    """The look at ``big`` is dear."""
    return 6.0 if jobs[0].scope == "big" else 1.0


def bucket(tokens, rate=0.5, burst=10.0):
    return Bucket(rate=rate, burst=burst, ceiling=rate, tokens=tokens, at=100.0)


def big_and_small(core):
    return [
        waiting("a", due=90.0, scope="small", core=core),
        waiting("b", due=91.0, scope="big", core=core),
        waiting("c", due=92.0, scope="tiny", core=core),
    ]


def test_what_the_bucket_does_not_afford_is_waited_for(core):
    planned = core.plan(100.0, big_and_small(core), bucket(5.0), cost=calls_by_scope)
    assert names(planned) == [["a"]], (
        "and what is cheap does not go before what is dear and was due before it"
    )
    assert (planned.short, planned.late) == (6.0, 9.0)
    assert planned.sleep == pytest.approx(4.0)


def test_what_the_bucket_affords_is_done(core):
    planned = core.plan(100.0, big_and_small(core), bucket(8.0), cost=calls_by_scope)
    assert names(planned) == [["a"], ["b"], ["c"]]
    assert [batch.cost for batch in planned.batches] == [1.0, 6.0, 1.0]
    assert (planned.short, planned.late) == (None, 0.0)


def test_the_bucket_is_refilled_up_to_now(core):
    planned = core.plan(104.0, big_and_small(core), bucket(6.0), cost=calls_by_scope)
    assert names(planned) == [["a"], ["b"], ["c"]]


def test_what_costs_more_than_a_full_bucket_is_done_when_it_is_full(core):
    waits = [waiting("b", due=91.0, scope="big", core=core)]
    planned = core.plan(100.0, waits, bucket(4.0, burst=5.0), cost=calls_by_scope)
    assert (names(planned), planned.sleep) == ([], pytest.approx(2.0))
    assert names(core.plan(102.0, waits, bucket(4.0, burst=5.0), cost=calls_by_scope)) == [["b"]]


def test_a_scope_that_gave_no_answer_pauses_and_the_others_do_not(core):
    waits = [waiting("a", scope="bad", core=core), waiting("b", scope="good", core=core)]
    planned = core.plan(100.0, waits, ENDLESS, rooms=core.Rooms(paused={"bad": 107.0}))
    assert (names(planned), planned.sleep) == ([["b"]], 7.0)


def test_after_the_pause_it_is_asked_one_call_at_a_time(core):
    waits = [waiting(name, scope="bad", core=core) for name in "abc"]
    planned = core.plan(108.0, waits, ENDLESS, size=1, rooms=core.Rooms(paused={"bad": 107.0}))
    assert names(planned) == [["a"]]
    rooms = core.Rooms(paused={"bad": 107.0}, taken={"bad": 1})
    assert names(core.plan(108.0, waits, ENDLESS, size=1, rooms=rooms)) == []


def test_one_scope_does_not_take_all_rooms(core):
    waits = [waiting(name, due=80.0, scope="slow", core=core) for name in "abcd"]
    waits += [waiting("e", due=90.0, scope="other", core=core)]
    rooms = core.Rooms(free=3, each=2, taken={"slow": 1})
    assert names(core.plan(100.0, waits, ENDLESS, size=1, rooms=rooms)) == [["a"], ["e"]]


def test_no_more_looks_are_started_than_there_are_rooms(core):
    waits = [waiting(name, scope=name, core=core) for name in "abcd"]
    assert len(core.plan(100.0, waits, ENDLESS, rooms=core.Rooms(free=3)).batches) == 3
    assert core.plan(100.0, waits, ENDLESS, rooms=core.Rooms(free=0)).batches == ()


SCOPES = st.lists(st.tuples(st.integers(1, 25), st.integers(1, 4)), min_size=1, max_size=8)


class Ideal:
    """A watch whose looks take no time, as `plan` and `after_look` alone make it; nothing ever ends."""

    def __init__(self, core, scopes, rate, burst, size=10):
        self.core, self.size = core, size
        self.prices = {f"scope-{number}": price for number, (_, price) in enumerate(scopes)}
        self.bucket = Bucket(rate=rate, burst=burst, ceiling=rate, tokens=burst, at=0.0)
        self.waits = {
            f"{scope}-{each}": waiting(f"{scope}-{each}", due=2.0, scope=scope, core=core)
            for scope, (count, _) in zip(self.prices, scopes, strict=True)
            for each in range(count)
        }
        self.now, self.calls, self.late, self.told = 0.0, [(0.0, 0.0)], [], []

    def cost(self, jobs):
        return float(self.prices[jobs[0].scope])

    @property
    def everybody(self):
        """Calls in which everybody is looked at once."""
        counts = Counter(wait.job.scope for wait in self.waits.values())
        return sum(ceil(count / self.size) * self.prices[scope] for scope, count in counts.items())

    def run(self, until):
        rooms = self.core.Rooms(10_000, 10_000)
        while self.now < until:
            planned = self.core.plan(
                self.now, self.waits.values(), self.bucket, size=self.size, cost=self.cost, rooms=rooms
            )
            self.told.append(planned.late)
            self.bucket = self.bucket.refilled(self.now)
            for batch in planned.batches:
                self.bucket = self.bucket.spent(batch.cost)
                self.calls.append((self.now, batch.cost))
                for each in batch.jobs:
                    wait = self.waits[each.id]
                    self.late.append(self.now - wait.due)
                    self.waits[each.id] = self.core.after_look(wait, each, self.now)
            if not planned.batches:
                assert planned.sleep > 0, "it turns on the spot"
                self.now += max(planned.sleep, 0.01)
        return self


@given(scopes=SCOPES, rate=st.sampled_from([0.1, 0.5, 3.0]), burst=st.sampled_from([5.0, 20.0]))
def test_nobody_waits_longer_than_it_takes_to_look_at_everybody_once(scopes, rate, burst, core):
    ideal = Ideal(core, scopes, rate, burst)
    ideal.run(min(400.0, 4 * ideal.everybody / rate + 60))
    assert max(ideal.late, default=0.0) <= ideal.everybody / rate + 0.1
    for wait in ideal.waits.values():
        assert ideal.now - wait.due <= ideal.everybody / rate + 0.1, f"{wait.job.id} is starved"


@given(scopes=SCOPES, rate=st.sampled_from([0.1, 0.5, 3.0]), burst=st.sampled_from([5.0, 20.0]))
def test_looks_never_exceed_the_budget_in_any_window(scopes, rate, burst, core):
    ideal = Ideal(core, scopes, rate, burst).run(100.0)
    spent = [0.0, *accumulate(cost for _, cost in ideal.calls)]
    for first, (begin, _) in enumerate(ideal.calls):
        for last in range(first, len(ideal.calls)):
            window = ideal.calls[last][0] - begin
            assert spent[last + 1] - spent[first] <= burst + rate * window + 1e-3


@given(scopes=SCOPES)
def test_a_look_is_never_late_when_the_budget_allows_it(scopes, core):
    ideal = Ideal(core, scopes, rate=1e6, burst=1e6).run(80.0)
    assert max(ideal.late, default=0.0) <= 0.02
    assert set(ideal.told) == {0.0}


def test_freshness_is_the_time_in_which_everybody_is_looked_at(core):
    waits = [waiting(f"{number}", scope=f"{number % 31}", core=core) for number in range(2300)]
    got = core.freshness(waits, bucket(10.0), size=50, cost=lambda jobs: ceil(len(jobs) / 50))
    assert got == 31 * 2 / 0.5
    assert core.freshness([], bucket(10.0)) == 0.0


# --- pressure -------------------------------------------------------------------------------------


def test_that_looks_are_late_is_told_once_and_so_is_the_end_of_it(core):
    pressure, told = core.Pressure(), []
    for now in range(400):
        pressure, said = pressure.after(float(now), 20.0 if 50 <= now < 200 else 0.0)
        told += [(now, said)] if said else []
    assert told == [(50, "begins"), (260, "ends")]


def test_a_little_lateness_is_not_worth_a_word(core):
    assert core.Pressure().after(10.0, real.LATE) == (core.Pressure(), None)


def test_a_moment_without_pressure_is_not_the_end_of_it(core):
    pressure, told = core.Pressure(), []
    for now in range(400):
        pressure, said = pressure.after(float(now), 20.0 if now % 50 == 0 else 0.0)
        told += [said] if said else []
    assert told == ["begins"]


# --- SharedWatch ----------------------------------------------------------------------------------


class Hall:
    """A watch, a service in memory, and those who wait."""

    def __init__(self, kind=InMemoryJobs, **settings) -> None:
        self.loop = MadeUpTime()
        self.jobs = kind(clock=self.loop.time, **settings)
        self.watch = SharedWatch(self.jobs, in_line, self.jobs.now, lambda: 0.5, wall=self.jobs.now)
        self.seen = {}

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


def test_those_who_join_together_make_one_plan_and_not_one_each(monkeypatch):
    """With a plan for each, 5 000 of them took a minute of the event loop."""
    hall = Hall(seconds=600.0)
    jobs = hall.start(200)
    plans, plan = [], real.plan
    monkeypatch.setattr(real, "plan", lambda *args, **more: plans.append(args) or plan(*args, **more))

    async def main():
        waits = []
        for job in jobs:
            waits.append(asyncio.ensure_future(hall.wait_for(job)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        made = len(plans)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        return made

    assert hall.run(main()) == 1


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

    assert hall.run(main()) == PATIENCE.first


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
    assert hall.jobs.calls["refused"] == PATIENCE.refused + 2, "once with four, once with two, then alone"


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
