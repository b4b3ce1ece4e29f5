"""`after_poll`, `after_event` and `plan` as tables and properties; `SharedWatch` in virtual time.

Tests of the pure part take the core as an argument, so that `test_watch_mutants` can hand them a wrong one.
"""

import asyncio
import re
from collections import Counter
from contextlib import aclosing
from dataclasses import replace
from itertools import accumulate, pairwise, permutations, product
from math import ceil
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_resilient.core import polling
from airflow_resilient.core.job import NO_CLAIM, Claim, Job, Phase
from airflow_resilient.core.polling import PollPolicy
from airflow_resilient.core.service import DEFAULT_BUDGET, Budget, Way
from airflow_resilient.testing.in_memory_jobs import InMemoryJobs, Throttled
from airflow_resilient.testing.virtual_time import VirtualTimeLoop, in_line
from airflow_resilient.watching import plan, shared_watch
from airflow_resilient.watching.budget import Bucket
from airflow_resilient.watching.shared_watch import SharedWatch

# What is said of one wait, and of many.
real = SimpleNamespace(**(vars(polling) | vars(plan)))
TASK_KEY = "abcdefghijklmnop"
POLICY = PollPolicy(
    interval=30.0,
    first_interval=2.0,
    max_backoff=300.0,
    lost_after_polls=3,
    lost_after_seconds=60.0,
    give_up_after_denials=4,
)
DENIED = PermissionError("denied")
ENDLESS = {DEFAULT_BUDGET: Bucket.full(DEFAULT_BUDGET, 1e6)}


def job(name: str = "a", phase: Phase = Phase.RUNNING, scope: str = "here") -> Job:
    return Job(name, Claim(TASK_KEY, 1), phase, 0.0, scope)


def waiting(name="a", since=0.0, due=0.0, scope="here", core=real, **more):
    return core.Wait(job(name, scope=scope), POLICY, since, due, **more)


def names(planned):
    return [[job.id for job in batch.jobs] for batch in planned.batches]


# --- after_poll -----------------------------------------------------------------------------------


AFTER_POLL = {
    "a young job is polled again soon": ({}, job(), 8.0, 1, {"due": 10.0}),
    "an old job is polled at the longest interval": ({}, job(), 10_000.0, 1, {"due": 10_030.0}),
    "a job that was old when the wait began, too": ({"age": 3600.0}, job(), 8.0, 1, {"due": 38.0}),
    "an answer makes up for everything": (
        {"missing": 2, "missing_since": 1.0, "refused": 3, "batch_limit": 1},
        job(),
        8.0,
        1,
        {"missing": 0, "refused": 0, "batch_limit": 0},
    ),
    "it is known when it was polled": ({}, job(), 8.0, 1, {"polled": 8.0}),
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
    "a refused batch is halved at once": ({}, DENIED, 8.0, 5, {"batch_limit": 2, "due": 8.0, "refused": 0}),
    "of a refused pair, each is asked about alone": (
        {"batch_limit": 2},
        DENIED,
        8.0,
        2,
        {"batch_limit": 1, "due": 8.0},
    ),
    "a job refused alone is asked for again later": (
        {"batch_limit": 1},
        DENIED,
        8.0,
        1,
        {"batch_limit": 1, "due": 10.0, "refused": 1},
    ),
    "and ever later": ({"batch_limit": 1, "refused": 2}, DENIED, 8.0, 1, {"due": 16.0, "refused": 3}),
    "a miss is an answer, and no refusal": (
        {"batch_limit": 1, "refused": 2},
        None,
        8.0,
        1,
        {"refused": 0, "batch_limit": 0},
    ),
    "a job whose end was reported is polled again soon, however old": (
        {"fast_polls_left": 3},
        job(),
        1000.0,
        1,
        {"due": 1002.0, "fast_polls_left": 2},
    ),
    "until a poll shows a change": (
        {"fast_polls_left": 3},
        replace(job(), facts={"steps": "COMPLETED"}),
        1000.0,
        1,
        {"due": 1030.0, "fast_polls_left": 0},
    ),
    "but not forever": ({"fast_polls_left": 0}, job(), 1000.0, 1, {"due": 1030.0, "fast_polls_left": 0}),
}


def wrong_rows(core=real):
    """Rows of the table that `core` gets wrong."""
    wrong = []
    for name, (fields, observation, now, batch, expected) in AFTER_POLL.items():
        seen = core.Refused(observation) if isinstance(observation, Exception) else observation
        after = core.after_poll(waiting(core=core, **fields), seen, now, batch)
        known = vars(after) | {"phase": after.job.phase}
        if {field: known[field] for field in expected} != expected:
            wrong.append(name)
    return wrong


@pytest.fixture(scope="module")
def core():
    """What is tested; other tests pass a core in which a rule is broken."""
    return real


def test_after_poll():
    assert wrong_rows() == []


def test_a_poll_never_takes_a_wait_back():
    before = replace(waiting(), job=job(phase=Phase.STOPPING))
    assert real.after_poll(before, job(phase=Phase.RUNNING), 1.0).job.phase is Phase.STOPPING


def test_a_poll_that_shows_nothing_new_keeps_the_known_job():
    """Thousands of new ones would make the garbage collector halt the event loop."""
    before = waiting()
    assert real.after_poll(before, job(), 1.0).job is before.job
    assert real.after_poll(before, job(phase=Phase.STOPPING), 1.0).job is not before.job


some_answers = st.one_of(
    st.none(), st.just(real.Refused(DENIED)), st.sampled_from(Phase).map(lambda phase: job(phase=phase))
)


@given(st.lists(st.tuples(some_answers, st.floats(0.0, 1e5)), min_size=1, max_size=12), st.integers(1, 3))
def test_the_next_poll_is_due_in_time(observations, batch):
    wait, now = waiting(), 0.0
    for observation, later in observations:
        now += later
        wait = real.after_poll(wait, observation, now, batch)
        assert now <= wait.due <= now + POLICY.max_backoff


@given(st.lists(st.tuples(st.one_of(st.none(), st.just(job())), st.floats(0.0, 100.0)), max_size=20))
def test_a_job_is_lost_only_after_misses_in_a_row_over_some_time(observations):
    wait, now, first_miss, misses = waiting(), 0.0, None, 0
    for observation, later in observations:
        now += later
        wait = real.after_poll(wait, observation, now)
        misses = 0 if observation else misses + 1
        first_miss = now if misses == 1 else first_miss
        lost = misses >= POLICY.lost_after_polls and now - first_miss >= POLICY.lost_after_seconds
        assert (wait.job.phase is Phase.LOST) == lost
        if lost:
            return


# --- after_archive --------------------------------------------------------------------------------------

NO_ANSWER = TimeoutError("no answer")
AFTER_ARCHIVE = {
    "what nobody knows is lost": (None, 68.0, Phase.LOST),
    "an end is believed": (job(phase=Phase.SUCCEEDED), 68.0, Phase.SUCCEEDED),
    "a bad end, too": (job(phase=Phase.FAILED), 68.0, Phase.FAILED),
    "that it ran is no end": (job(phase=Phase.RUNNING), 68.0, Phase.LOST),
    "that the archive has lost it is no end": (job(phase=Phase.LOST), 68.0, Phase.LOST),
    "no answer is not that nobody knows": (NO_ANSWER, 68.0, Phase.RUNNING),
    "no answer for a while neither": (NO_ANSWER, 167.9, Phase.RUNNING),
    "but it is not waited for without end": (NO_ANSWER, 168.0, Phase.LOST),
}


@pytest.mark.parametrize("row", AFTER_ARCHIVE)
def test_after_archive(core, row):
    answer, now, phase = AFTER_ARCHIVE[row]
    before = waiting(core=core, missing=2, missing_since=8.0)
    lost = core.after_poll(before, None, 68.0)
    assert lost.job.phase is Phase.LOST
    after = core.after_archive(before, lost, answer, now, 100.0)
    assert (after.job.phase, after.job.claim, after.due) == (phase, before.job.claim, lost.due)
    assert (after.missing, after.missing_since) == (3, 8.0)


def test_the_archive_does_not_change_whose_job_it_is(core):
    before = waiting(core=core, missing=2, missing_since=8.0)
    lost = core.after_poll(before, None, 68.0)
    theirs = replace(job(phase=Phase.SUCCEEDED), claim=Claim("b" * 16, 7))
    assert core.after_archive(before, lost, theirs, 68.0, 100.0).job.claim == before.job.claim


# --- after_event ----------------------------------------------------------------------------------------


def test_an_event_makes_a_poll_due(core):
    wait = core.after_event(waiting(due=130.0, core=core), 100.0, ended=True)
    assert (wait.due, wait.fast_polls_left) == (100.0, real.FAST_POLLS)


def test_an_event_that_reports_no_end_makes_one_poll_due_and_not_several(core):
    wait = core.after_event(waiting(due=130.0, core=core), 100.0, ended=False)
    assert (wait.due, wait.fast_polls_left) == (100.0, 0)


def test_an_event_does_not_bring_the_first_poll_forward(core):
    """Airflow may not know of the deferral yet; see `SharedWatch._join`."""
    wait = core.after_event(waiting(since=99.5, due=101.5, core=core), 100.0, ended=True)
    assert wait.due == 101.5


def test_many_events_make_no_more_polls_than_the_shortest_interval_allows(core):
    wait = core.after_event(waiting(due=130.0, polled=99.0, core=core), 100.0, ended=True)
    assert wait.due == 101.0


def test_an_event_delays_nothing(core):
    wait = core.after_event(waiting(due=90.0, polled=99.0, core=core), 100.0, ended=True)
    assert wait.due == 90.0


# --- plan -----------------------------------------------------------------------------------------

some_waits = st.lists(
    st.builds(
        waiting,
        name=st.sampled_from("abcdefghijkl"),
        since=st.integers(0, 90),
        due=st.integers(80, 150),
        batch_limit=st.sampled_from([0, 0, 0, 1, 2]),
    ),
    max_size=12,
).map(
    lambda waits: [replace(wait, job=replace(wait.job, scope="ab"[ord(wait.job.id) % 2])) for wait in waits]
)
in_any_situation = given(waits=some_waits, size=st.integers(1, 5))


@in_any_situation
def test_every_wait_that_is_due_is_polled(waits, size, core):
    planned = core.plan(100.0, waits, ENDLESS, size=size, concurrency=core.Concurrency(100, 100))
    asked = {name for batch in names(planned) for name in batch}
    assert {wait.job.id for wait in waits if wait.due <= 100.0} <= asked


@in_any_situation
def test_a_batch_has_one_scope_and_the_right_size(waits, size, core):
    limits = {}
    for wait in waits:
        limits.setdefault(wait.job.id, []).append(wait.batch_limit)
    for batch in core.plan(100.0, waits, ENDLESS, size=size, concurrency=core.Concurrency(100, 100)).batches:
        assert 1 <= len(batch.jobs) <= size
        assert {job.scope for job in batch.jobs} == {batch.scope}
        for job_ in batch.jobs:
            assert len(batch.jobs) <= max(batch_limit or size for batch_limit in limits[job_.id])


@in_any_situation
def test_a_job_stands_in_a_batch_once(waits, size, core):
    for batch in names(core.plan(100.0, waits, ENDLESS, size=size, concurrency=core.Concurrency(100, 100))):
        assert max(Counter(batch).values()) == 1


@in_any_situation
def test_no_call_is_made_in_which_nobody_is_due(waits, size, core):
    due = {wait.job.id for wait in waits if wait.due <= 100.0}
    for batch in names(core.plan(100.0, waits, ENDLESS, size=size, concurrency=core.Concurrency(100, 100))):
        assert due & set(batch)


@in_any_situation
def test_it_sleeps_until_the_next_one_is_due_and_no_longer(waits, size, core):
    planned = core.plan(100.0, waits, ENDLESS, size=size, concurrency=core.Concurrency(100, 100))
    later = [wait.due - 100.0 for wait in waits if wait.due > 100.0]
    assert planned.sleep == min(later, default=3600.0)
    assert bool(planned.batches) == any(wait.due <= 100.0 for wait in waits)


def test_nobody_is_asked_about_when_nobody_is_due(core):
    waits = [waiting(due=130.0, core=core), waiting("b", due=107.0, core=core)]
    assert core.plan(100.0, waits, ENDLESS) == core.Plan((), 7.0)


def test_a_wait_that_is_due_soon_joins_the_batch(core):
    soon, later = (
        waiting("b", due=114.0, since=-1000.0, core=core),
        waiting("c", due=116.0, since=-1000.0, core=core),
    )
    planned = core.plan(100.0, [waiting(due=100.0, core=core), soon, later], ENDLESS)
    assert names(planned) == [["a", "b"]]


def test_a_wait_that_is_due_soon_makes_no_call_of_its_own(core):
    soon = waiting("b", due=114.0, since=-1000.0, core=core)
    assert names(core.plan(100.0, [waiting(due=100.0, core=core), soon], ENDLESS, size=1)) == [["a"]]


def test_the_wait_that_is_due_next_joins_a_batch_with_one_free_place(core):
    waits = [
        waiting(name, due=due, since=-1000.0, core=core)
        for name, due in (("a", 100.0), ("b", 112.0), ("c", 108.0))
    ]
    assert names(core.plan(100.0, waits, ENDLESS, size=2)) == [["a", "c"]]


def test_a_job_that_two_wait_for_is_asked_about_once(core):
    waits = [waiting(due=90.0, core=core), waiting(due=95.0, core=core), waiting("b", due=99.0, core=core)]
    planned = core.plan(100.0, waits, ENDLESS)
    assert (names(planned), planned.batches[0].due) == ([["a", "b"]], 90.0)


def test_a_new_wait_does_not_join_a_batch_early(core):
    early = waiting("b", due=100.5, since=98.5, core=core)
    assert names(core.plan(100.0, [waiting(due=100.0, core=core), early], ENDLESS)) == [["a"]]


def test_a_refused_job_is_polled_in_a_smaller_batch(core):
    waits = [
        waiting(name, batch_limit=batch_limit, core=core)
        for name, batch_limit in [*dict.fromkeys("ac", 0).items(), ("b", 1)]
    ]
    assert sorted(names(core.plan(100.0, waits, ENDLESS))) == [["a", "c"], ["b"]]
    waits = [waiting(name, batch_limit=2, core=core) for name in "abcd"]
    assert names(core.plan(100.0, waits, ENDLESS)) == [["a", "b"], ["c", "d"]]


def test_the_wait_that_was_due_first_is_polled_first_whatever_its_scope(core):
    waits = [
        waiting(name, due=due, scope=name, core=core) for name, due in (("a", 90.0), ("b", 70.0), ("c", 80.0))
    ]
    assert names(core.plan(100.0, waits, ENDLESS)) == [["b"], ["c"], ["a"]]


def calls_by_scope(jobs):
    """Polling ``big`` is expensive."""
    return [Way(DEFAULT_BUDGET.name, 6.0 if jobs[0].scope == "big" else 1.0)]


def bucket(tokens, rate=0.5, burst=10.0):
    return {DEFAULT_BUDGET: Bucket(rate=rate, burst=burst, ceiling=rate, tokens=tokens, at=100.0)}


def big_and_small(core):
    return [
        waiting("a", due=90.0, scope="small", core=core),
        waiting("b", due=91.0, scope="big", core=core),
        waiting("c", due=92.0, scope="tiny", core=core),
    ]


def test_what_the_bucket_does_not_afford_is_waited_for(core):
    planned = core.plan(100.0, big_and_small(core), bucket(5.0), ways=calls_by_scope)
    assert names(planned) == [["a"]], (
        "and a cheap batch does not go before an expensive one that was due before it"
    )
    assert (planned.short, planned.late) == ({DEFAULT_BUDGET: 6.0}, 9.0)
    assert planned.sleep == pytest.approx(4.0)


def test_what_the_bucket_affords_is_done(core):
    planned = core.plan(100.0, big_and_small(core), bucket(8.0), ways=calls_by_scope)
    assert names(planned) == [["a"], ["b"], ["c"]]
    assert [batch.way.calls for batch in planned.batches] == [1.0, 6.0, 1.0]
    assert (planned.short, planned.late) == ({}, 0.0)


def test_the_bucket_is_refilled_up_to_now(core):
    planned = core.plan(104.0, big_and_small(core), bucket(6.0), ways=calls_by_scope)
    assert names(planned) == [["a"], ["b"], ["c"]]


def test_what_costs_more_than_a_full_bucket_is_done_when_it_is_full(core):
    waits = [waiting("b", due=91.0, scope="big", core=core)]
    planned = core.plan(100.0, waits, bucket(4.0, burst=5.0), ways=calls_by_scope)
    assert (names(planned), planned.sleep) == ([], pytest.approx(2.0))
    assert names(core.plan(102.0, waits, bucket(4.0, burst=5.0), ways=calls_by_scope)) == [["b"]]


def test_a_scope_that_gave_no_answer_pauses_and_the_others_do_not(core):
    waits = [waiting("a", scope="bad", core=core), waiting("b", scope="good", core=core)]
    planned = core.plan(100.0, waits, ENDLESS, concurrency=core.Concurrency(paused={"bad": 107.0}))
    assert (names(planned), planned.sleep) == ([["b"]], 7.0)


def test_after_the_pause_it_is_asked_one_call_at_a_time(core):
    waits = [waiting(name, scope="bad", core=core) for name in "abc"]
    planned = core.plan(108.0, waits, ENDLESS, size=1, concurrency=core.Concurrency(paused={"bad": 107.0}))
    assert names(planned) == [["a"]]
    concurrency = core.Concurrency(paused={"bad": 107.0}, in_flight={"bad": 1})
    assert names(core.plan(108.0, waits, ENDLESS, size=1, concurrency=concurrency)) == []


def test_one_scope_does_not_take_all_concurrency(core):
    waits = [waiting(name, due=80.0, scope="slow", core=core) for name in "abcd"]
    waits += [waiting("e", due=90.0, scope="other", core=core)]
    concurrency = core.Concurrency(free=3, per_scope=2, in_flight={"slow": 1})
    assert names(core.plan(100.0, waits, ENDLESS, size=1, concurrency=concurrency)) == [["a"], ["e"]]


def test_no_more_polls_are_started_than_concurrency_allows(core):
    waits = [waiting(name, scope=name, core=core) for name in "abcd"]
    assert len(core.plan(100.0, waits, ENDLESS, concurrency=core.Concurrency(free=3)).batches) == 3
    assert core.plan(100.0, waits, ENDLESS, concurrency=core.Concurrency(free=0)).batches == ()


SCOPES = st.lists(st.tuples(st.integers(1, 25), st.integers(1, 4)), min_size=1, max_size=8)


class Ideal:
    """A watch whose polls take no time, as `plan` and `after_poll` alone make it; nothing ever ends."""

    budgets = (DEFAULT_BUDGET,)

    def __init__(self, core, scopes, rate, burst, size=10):
        self.core, self.size = core, size
        self.prices = {f"scope-{number}": price for number, (_, price) in enumerate(scopes)}
        self.buckets = {
            budget: Bucket(rate=rate, burst=burst, ceiling=rate, tokens=burst, at=0.0)
            for budget in self.budgets
        }
        self.waits = {
            f"{scope}-{each}": waiting(f"{scope}-{each}", due=2.0, scope=scope, core=core)
            for scope, (count, _) in zip(self.prices, scopes, strict=True)
            for each in range(count)
        }
        self.now, self.calls, self.late, self.reported = 0.0, [], [], []

    def ways(self, jobs):
        return [Way(DEFAULT_BUDGET.name, float(self.prices[jobs[0].scope]))]

    @property
    def everybody(self):
        """Calls in which every job is polled once."""
        counts = Counter(wait.job.scope for wait in self.waits.values())
        return sum(ceil(count / self.size) * self.prices[scope] for scope, count in counts.items())

    def run(self, until):
        concurrency = self.core.Concurrency(10_000, 10_000)
        while self.now < until:
            planned = self.core.plan(
                self.now,
                self.waits.values(),
                self.buckets,
                size=self.size,
                ways=self.ways,
                concurrency=concurrency,
            )
            self.reported.append(planned.late)
            self.buckets = {budget: bucket.refilled(self.now) for budget, bucket in self.buckets.items()}
            for batch in planned.batches:
                for budget in self.buckets:
                    if budget.counts(batch.way.operation):
                        self.buckets[budget] = self.buckets[budget].spent(batch.way.calls)
                self.calls.append((self.now, batch.way))
                for each in batch.jobs:
                    wait = self.waits[each.id]
                    self.late.append(self.now - wait.due)
                    self.waits[each.id] = self.core.after_poll(wait, each, self.now)
            if not planned.batches:
                assert planned.sleep > 0, "it makes no progress"
                self.now += max(planned.sleep, 0.01)
        return self


@given(scopes=SCOPES, rate=st.sampled_from([0.1, 0.5, 3.0]), burst=st.sampled_from([5.0, 20.0]))
def test_nobody_waits_longer_than_it_takes_to_poll_every_job_once(scopes, rate, burst, core):
    ideal = Ideal(core, scopes, rate, burst)
    ideal.run(min(400.0, 4 * ideal.everybody / rate + 60))
    assert max(ideal.late, default=0.0) <= ideal.everybody / rate + 0.1
    for wait in ideal.waits.values():
        assert ideal.now - wait.due <= ideal.everybody / rate + 0.1, f"{wait.job.id} is starved"


@given(scopes=SCOPES, rate=st.sampled_from([0.1, 0.5, 3.0]), burst=st.sampled_from([5.0, 20.0]))
def test_polls_never_exceed_the_budget_in_any_window(scopes, rate, burst, core):
    ideal = Ideal(core, scopes, rate, burst).run(100.0)
    assert_within_the_budget([(now, way.calls) for now, way in ideal.calls], rate, burst)


def assert_within_the_budget(calls, rate, burst):
    spent = [0.0, *accumulate(cost for _, cost in calls)]
    for first, (begin, _) in enumerate(calls):
        for last in range(first, len(calls)):
            assert spent[last + 1] - spent[first] <= burst + rate * (calls[last][0] - begin) + 1e-3


@given(scopes=SCOPES)
def test_a_poll_is_never_late_when_the_budget_allows_it(scopes, core):
    ideal = Ideal(core, scopes, rate=1e6, burst=1e6).run(80.0)
    assert max(ideal.late, default=0.0) <= 0.02
    assert set(ideal.reported) == {0.0}


def test_freshness_is_the_time_in_which_every_job_is_polled(core):
    waits = [waiting(f"{number}", scope=f"{number % 31}", core=core) for number in range(2300)]
    pages = core.divide_waits(
        waits, bucket(10.0), size=50, ways=lambda jobs: [Way(DEFAULT_BUDGET.name, ceil(len(jobs) / 50))]
    )
    assert pages.seconds == 31 * 2 / 0.5
    assert core.divide_waits([], bucket(10.0)).seconds == 0.0


# --- several ways -------------------------------------------------------------------------------


PAGES, EACH = Budget("jobs:List", 0.5, 10.0), Budget("jobs:Describe", 0.5, 10.0)
ALL = Budget("jobs", 5.0, 25.0, ("jobs:*",))


def list_or_describe(jobs):
    """One call for a scope, or one for each job; jobs of ``locked`` can only be listed."""
    listing, describing = Way(PAGES.name, 1.0), Way(EACH.name, float(len(jobs)), size=1)
    return [listing] if jobs[0].scope == "locked" else [listing, describing]


def purse(listing, describing, everything=25.0):
    """Buckets with so many calls left."""
    left = ((PAGES, listing), (EACH, describing), (ALL, everything))
    return {
        budget: Bucket(budget.per_second, budget.burst, budget.per_second, calls, at=100.0)
        for budget, calls in left
    }


def crowd(core, *counts, scopes="abcdefghij"):
    """As many waits in each scope, all of them due, one scope after the other."""
    return [
        waiting(f"{scope}{number}", due=60.0 + place, scope=scope, core=core)
        for place, (scope, count) in enumerate(zip(scopes, counts, strict=False))
        for number in range(count)
    ]


def ways_of(planned):
    return [(batch.scope, batch.way.operation) for batch in planned.batches]


def several(core, waits, buckets, **more):
    return core.plan(100.0, waits, buckets, ways=list_or_describe, **more)


def test_the_preferred_way_is_taken_as_long_as_it_affords_all_that_is_due(core):
    planned = several(core, crowd(core, 1, 1, 9), purse(3.0, 10.0))
    assert ways_of(planned) == [(scope, PAGES.name) for scope in "abc"]


def test_else_scopes_are_divided_among_the_ways(core):
    planned = several(core, crowd(core, 1, 9, 1, 9), purse(2.0, 10.0))
    assert ways_of(planned) == [
        ("a", EACH.name),
        ("b", PAGES.name),
        ("c", EACH.name),
        ("d", PAGES.name),
    ]


def test_what_waits_for_one_way_holds_up_no_other(core):
    planned = several(core, crowd(core, 9, 1, 9, 1), purse(0.0, 1.0))
    assert ways_of(planned) == [("b", EACH.name)]
    assert planned.short == {PAGES: 1.0, EACH: 1.0}
    assert (planned.late, planned.sleep) == (40.0, pytest.approx(2.0))


def test_it_sleeps_until_the_first_of_the_ways_affords_what_waits_for_it(core):
    planned = several(core, crowd(core, 9, 1, 9, 1), purse(-1.0, 0.5))
    assert (planned.batches, planned.sleep) == ((), pytest.approx(1.0))


def test_it_wakes_for_who_is_due_though_another_waits_for_calls(core):
    waits = [*crowd(core, 9), waiting("b0", due=100.5, scope="b", core=core)]
    planned = several(core, waits, purse(0.0, 10.0))
    assert (planned.batches, planned.sleep) == ((), 0.5)


def test_who_was_due_first_is_first_in_each_way(core):
    planned = several(core, crowd(core, 9, 9, 1, 1), purse(1.0, 1.0))
    assert ways_of(planned) == [("a", PAGES.name), ("c", EACH.name)]
    again = several(core, crowd(core, 9, 2, 9, 1, 9, 9), purse(0.0, 1.0))
    assert ways_of(again) == [("b", EACH.name)], "one of its two jobs, and not the one of the other scope"
    assert names(again) == [["b0"]]


def test_what_can_only_be_polled_in_one_way_is_polled_in_it(core):
    waits = crowd(core, 1, 1, scopes=["locked", "open"])
    planned = several(core, waits, purse(1.0, 1.0))
    assert ways_of(planned) == [("locked", PAGES.name), ("open", EACH.name)]


def test_a_batch_that_cannot_be_polled_in_the_way_of_its_scope_is_polled_in_the_preferred_one(core):
    """A job that lacks steps can only be listed; here the division was made before it was known."""
    calls = []

    def ways(jobs):
        calls.append(jobs)
        return list_or_describe(jobs)[: 1 if len(calls) > 4 else None]

    planned = core.plan(100.0, crowd(core, 1, 1), purse(1.0, 1.0), ways=ways)
    assert {way for _, way in ways_of(planned)} == {PAGES.name}


def test_the_calls_of_all_ways_together_have_a_budget_too(core):
    waits = crowd(core, 9, 1, 9, 1)
    assert len(several(core, waits, purse(1.0, 10.0, everything=2.0)).batches) == 2
    planned = several(core, waits, purse(1.0, 10.0, everything=1.0))
    assert (ways_of(planned), planned.short) == ([("a", PAGES.name)], {ALL: 1.0, PAGES: 1.0})


def test_what_waits_for_calls_of_all_ways_is_not_overtaken_by_what_needs_fewer_of_them(core):
    def ways(jobs):
        dear = 4.0 if jobs[0].scope in "ac" else 1.0
        return [Way(PAGES.name, dear), Way(EACH.name, dear * len(jobs))]

    planned = core.plan(100.0, crowd(core, 9, 1, 9, 1), purse(10.0, 10.0, everything=3.0), ways=ways)
    assert (ways_of(planned), planned.short[ALL]) == ([], 4.0)


def test_who_has_a_poll_in_flight_has_a_part_in_the_division(core):
    waits = crowd(core, 9, 2, 1)
    alone = several(core, waits, purse(0.0, 10.0))
    assert ways_of(alone) == [("c", EACH.name)]
    others = crowd(core, 9, 9, 9, 9, scopes="defg")
    planned = several(core, waits, purse(0.0, 10.0), others=others)
    assert set(ways_of(planned)) == {("b", EACH.name), ("c", EACH.name)}


def test_what_waits_for_one_way_keeps_no_calls_of_all_ways(core):
    waits = crowd(core, 9, 9, 9, 9, 1)
    planned = several(core, waits, purse(0.0, 10.0, everything=1.0))
    assert ways_of(planned) == [("e", EACH.name)]


def test_a_scope_changes_only_to_a_way_in_which_all_of_it_can_be_polled(core):
    waits = [waiting(f"{scope}{number}", scope=scope, core=core) for scope in "ab" for number in range(2)]

    def ways(jobs):
        return list_or_describe(jobs)[: 1 if jobs[0].id == "a1" else None]

    division = core.divide_waits(waits, purse(0.0, 10.0), size=1, ways=ways)
    assert division.by_scope == {"a": Way(PAGES.name, 2.0), "b": Way(EACH.name, 2.0, size=1)}
    assert division.seconds == 4.0


# Each scope with the calls that it takes by one way and by the other; 0: it cannot be polled in this way.
OFFERS = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9)), min_size=1, max_size=7)
RATES = st.tuples(*[st.sampled_from([0.1, 0.5, 2.0])] * 3)


def offered(offers):
    return {
        f"scope-{number}": [Way(PAGES.name, float(one)), *([Way(EACH.name, float(other))] if other else [])]
        for number, (one, other) in enumerate(offers)
    }


def with_rates(rates):
    return {
        budget: Bucket(rate, 10.0, rate, 10.0, at=0.0)
        for budget, rate in zip((PAGES, EACH, ALL), rates, strict=True)
    }


def seconds(ways, buckets):
    """Time in which calls in these ways can be made."""
    return max(
        sum(way.calls for way in ways if budget.counts(way.operation)) / bucket.rate
        for budget, bucket in buckets.items()
    )


@given(offers=OFFERS, rates=RATES)
def test_a_division_is_as_fresh_as_it_says_and_never_slower_than_the_preferred_way(offers, rates, core):
    ways, buckets = offered(offers), with_rates(rates)
    division = core.divide(ways, buckets)
    assert division.by_scope.keys() == ways.keys()
    assert all(way in ways[scope] for scope, way in division.by_scope.items())
    assert division.seconds == pytest.approx(seconds(division.by_scope.values(), buckets))
    assert division.seconds <= seconds([each[0] for each in ways.values()], buckets) + 1e-9


@given(offers=OFFERS, rates=RATES)
def test_no_division_is_faster_by_more_than_one_scope_takes(offers, rates, core):
    ways, buckets = offered(offers), with_rates(rates)
    best = min(seconds(chosen, buckets) for chosen in product(*ways.values()))
    one = max(seconds([way], buckets) for each in ways.values() for way in each)
    assert core.divide(ways, buckets).seconds <= best + one + 1e-9


def test_scopes_change_to_the_other_way_that_lose_least_by_it_whatever_their_order(core):
    for order in permutations([(1, 9), (1, 9), (1, 9), (1, 2), (2, 2), (1, 1)]):
        division = core.divide(offered(order), with_rates((0.5, 0.5, 5.0)))
        changed = {scope for scope, way in division.by_scope.items() if way.operation == EACH.name}
        assert changed == {f"scope-{order.index(each)}" for each in ((2, 2), (1, 1))}
        assert division.operations == {PAGES.name, EACH.name}
        assert division.seconds == 8.0


def test_a_scope_that_is_too_large_for_the_other_way_keeps_no_smaller_one_from_it(core):
    division = core.divide(offered([(4, 8), (1, 3)]), with_rates((0.5, 0.5, 5.0)))
    assert [way.operation for way in division.by_scope.values()] == [PAGES.name, EACH.name]
    assert division.seconds == 8.0


class IdealOfSeveralWays(Ideal):
    """A scope can be listed, or each of its jobs described."""

    budgets = (PAGES, EACH, ALL)

    def __init__(self, core, scopes, rate, burst, together):
        super().__init__(core, scopes, rate, burst)
        self.buckets[ALL] = replace(self.buckets[ALL], rate=rate * together, ceiling=rate * together)

    def ways(self, jobs):
        price = float(self.prices[jobs[0].scope])
        return [Way(PAGES.name, price), Way(EACH.name, float(len(jobs)), size=1)]

    @property
    def freshness(self):
        counts = Counter(wait.job.scope for wait in self.waits.values())
        ways = {
            scope: [
                Way(PAGES.name, float(ceil(count / self.size) * self.prices[scope])),
                Way(EACH.name, float(count)),
            ]
            for scope, count in counts.items()
        }
        return self.core.divide(ways, self.buckets).seconds


@given(
    scopes=SCOPES,
    rate=st.sampled_from([0.1, 0.5, 3.0]),
    burst=st.sampled_from([5.0, 20.0]),
    together=st.sampled_from([1.0, 1.5, 10.0]),  # EMR: 5 calls a second, 0.5 for each of two operations
)
def test_nobody_waits_longer_than_it_takes_to_poll_every_job_once_in_all_ways(
    scopes, rate, burst, together, core
):
    ideal = IdealOfSeveralWays(core, scopes, rate, burst, together)
    # At last, a batch may have to wait for calls of all ways. What waits for one budget uses none of another,
    # so that budgets which are scarce at the same time are not used to the full.
    bound = ideal.freshness * (1 if together > 2 else 2) + 4 / (rate * together) + 0.1
    ideal.run(min(400.0, 4 * bound + 60))
    assert max(ideal.late, default=0.0) <= bound
    for wait in ideal.waits.values():
        assert ideal.now - wait.due <= bound, f"{wait.job.id} is starved"
    for budget in ideal.budgets:
        calls = [(now, way.calls) for now, way in ideal.calls if budget.counts(way.operation)]
        allowed = max([burst, *(price for _, price in calls)])
        assert_within_the_budget(calls, ideal.buckets[budget].rate, allowed)


# --- pressure -------------------------------------------------------------------------------------


def test_late_polls_are_logged_once_and_so_is_their_end(core):
    pressure, changes = core.Pressure(), []
    for now in range(400):
        pressure, change = pressure.after(float(now), 20.0 if 50 <= now < 200 else 0.0)
        changes += [(now, change)] if change else []
    assert changes == [(50, "begins"), (260, "ends")]


def test_a_little_lateness_is_not_logged(core):
    assert core.Pressure().after(10.0, real.LATE_SECONDS) == (core.Pressure(), None)


def test_a_moment_without_pressure_is_not_the_end_of_it(core):
    pressure, changes = core.Pressure(), []
    for now in range(400):
        pressure, change = pressure.after(float(now), 20.0 if now % 50 == 0 else 0.0)
        changes += [change] if change else []
    assert changes == ["begins"]


# --- SharedWatch ----------------------------------------------------------------------------------


class Harness:
    """A watch, a service in memory, and the waits."""

    def __init__(self, kind=InMemoryJobs, **settings) -> None:
        self.loop = VirtualTimeLoop()
        self.jobs = kind(clock=self.loop.time, **settings)
        self.watch = SharedWatch(self.jobs, in_line, self.jobs.now, lambda: 0.5, wall=self.jobs.now)
        self.seen = {}

    def start(self, count, **settings):
        handle = InMemoryJobs(self.jobs.name, **settings)
        first = len(self.jobs.history)
        return [handle.submit(Claim(TASK_KEY, number)) for number in range(first + 1, first + count + 1)]

    async def wait_for(self, job, poll_policy=POLICY):
        observations = self.seen[job.id] = []
        async with aclosing(self.watch.follow(job, poll_policy)) as follow:
            async for observation in follow:
                observations.append(observation.phase)  # noqa: PERF401 - what was seen must be there when it is cancelled
        return observations

    def run(self, main):
        try:
            return self.loop.run_until_complete(main)
        finally:
            self.loop.close()

    def batches(self):
        return [len(call.about) for call in self.jobs.journal if call.method == "observe"]


def test_many_waits_share_calls():
    harness = Harness(seconds=600.0, batch_size=100)
    jobs = harness.start(250)

    async def main():
        return await asyncio.gather(*(harness.wait_for(job) for job in jobs))

    assert all(observations[-1] is Phase.SUCCEEDED for observations in harness.run(main()))
    assert max(harness.batches()) == 100
    assert len(harness.batches()) < 3 * 60, "three calls for each round, not 250"


def test_those_who_join_together_make_one_plan_and_not_one_each(monkeypatch):
    """With a plan for each, 5 000 of them took a minute of the event loop."""
    harness = Harness(seconds=600.0)
    jobs = harness.start(200)
    plans, plan = [], real.plan
    monkeypatch.setattr(shared_watch, "plan", lambda *args, **more: plans.append(args) or plan(*args, **more))

    async def main():
        waits = []
        for job in jobs:
            waits.append(asyncio.ensure_future(harness.wait_for(job)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        made = len(plans)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        return made

    assert harness.run(main()) == 1


class TwoWays(InMemoryJobs):
    """Jobs that can be listed, or described one by one; it counts nothing by itself."""

    budget, more_budgets = PAGES, (EACH, ALL)

    def ways(self, jobs):
        return list_or_describe(jobs)

    def observe_by(self, operation, jobs):
        self.calls[operation] += 1 if operation == PAGES.name else len(jobs)
        return self.observe(jobs)


def test_a_service_is_polled_in_all_its_ways_and_each_call_counts_in_each_of_its_budgets():
    harness = Harness(TwoWays, seconds=None)
    jobs = [job for scope in "abcdefghij" for job in harness.start(1 + 8 * (scope > "e"), scope=scope)]

    async def main():
        often = replace(POLICY, interval=2.0)
        waits = [asyncio.ensure_future(harness.wait_for(job, often)) for job in jobs]
        await asyncio.sleep(600)
        freshness = harness.watch.gauges()["freshness"]
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        return freshness

    assert harness.run(main()) == 5 / 0.5, "not ten clusters, one call each"
    listed, described = harness.jobs.calls[PAGES.name], harness.jobs.calls[EACH.name]
    assert min(listed, described) >= 0.9 * 600 * 0.5, "each is called as often as its budget allows"
    assert [bucket.calls for bucket in harness.watch.buckets] == [listed, described, listed + described]


def test_scopes_do_not_share_calls():
    harness = Harness(seconds=60.0)
    jobs = harness.start(3, scope="a") + harness.start(3, scope="b")

    async def main():
        await asyncio.gather(*(harness.wait_for(job) for job in jobs))

    harness.run(main())
    assert set(harness.batches()) == {3}


def test_two_waits_for_one_job_both_get_its_end():
    harness = Harness(seconds=60.0)
    (job,) = harness.start(1)

    async def main():
        return await asyncio.gather(harness.wait_for(job), harness.wait_for(job))

    assert [observations[-1] for observations in harness.run(main())] == [Phase.SUCCEEDED] * 2
    assert set(harness.batches()) == {1}


def test_a_later_wait_is_polled_soon_but_not_before_airflow_has_registered_its_deferral():
    harness = Harness(seconds=1000.0)
    jobs = harness.start(2)

    async def main():
        first = asyncio.ensure_future(harness.wait_for(jobs[0]))
        await asyncio.sleep(500.5)
        harness.jobs.finish(jobs[1])
        before = harness.loop.time()
        await harness.wait_for(jobs[1])
        first.cancel()
        return harness.loop.time() - before

    assert harness.run(main()) == POLICY.first_interval


def test_errors_delay_and_never_fail():
    harness = Harness(seconds=60.0)
    jobs = harness.start(5)
    harness.jobs.fail_next(TimeoutError("no answer"), "observe", times=12)

    async def main():
        await asyncio.gather(*(harness.wait_for(job) for job in jobs))
        return harness.loop.time()

    spent = harness.run(main())
    assert {observations[-1] for observations in harness.seen.values()} == {Phase.SUCCEEDED}
    assert spent > 1000.0, "the pauses have grown"
    times = [call.time for call in harness.jobs.journal if call.method == "observe"]
    pauses = [later - sooner for sooner, later in pairwise(times[:13])]
    assert pauses == sorted(pauses)
    assert max(pauses) <= POLICY.max_backoff


def test_errors_of_one_cluster_do_not_starve_the_others():
    class OneIsDown(InMemoryJobs):
        def observe(self, jobs):
            if jobs[0].scope == "a" and self.now() < 5000.0:
                raise TimeoutError
            return super().observe(jobs)

    harness = Harness(OneIsDown, seconds=60.0)
    jobs = harness.start(1, scope="a") + harness.start(1, scope="b")

    async def main():
        first = asyncio.ensure_future(harness.wait_for(jobs[0]))
        await harness.wait_for(jobs[1])
        spent = harness.loop.time()
        await first
        return spent

    assert harness.run(main()) < 400.0


class OneIsDenied(InMemoryJobs):
    """Refuses every call that is about the job ``job-2``."""

    def observe(self, jobs):
        if any(job.id == "job-2" for job in jobs):
            self.calls["refused"] += 1
            raise PermissionError("denied")
        return super().observe(jobs)


def test_a_refused_job_does_not_harm_its_neighbours():
    harness = Harness(OneIsDenied, seconds=600.0)
    jobs = harness.start(4)

    async def main():
        return await asyncio.gather(*(harness.wait_for(job) for job in jobs), return_exceptions=True)

    results = harness.run(main())
    assert isinstance(results[1], PermissionError)
    assert [observations[-1] for observations in (results[0], *results[2:])] == [Phase.SUCCEEDED] * 3
    assert harness.jobs.calls["refused"] == POLICY.give_up_after_denials + 2, (
        "once with four, once with two, then alone"
    )


def test_a_job_that_the_service_forgot_is_lost():
    harness = Harness(seconds=10.0, forget_after=5.0)
    (job,) = harness.start(1)
    harness.jobs.advance(100.0)

    async def main():
        return await harness.wait_for(job)

    assert harness.run(main()) == [Phase.LOST]
    assert harness.loop.time() >= POLICY.lost_after_seconds


def lose(harness, count=1, **settings):
    """Jobs that have ended and that the service has forgotten."""
    jobs = harness.start(count, **settings)
    harness.jobs.advance(100.0)
    return jobs


def test_the_archive_says_how_a_forgotten_job_ended():
    harness = Harness(seconds=10.0, forget_after=5.0, archive=True)
    (job,) = lose(harness)

    async def main():
        return await harness.wait_for(job)

    assert harness.run(main()) == [Phase.SUCCEEDED]
    assert harness.jobs.calls["recover"] == 1
    assert (harness.watch.counts["ended.succeeded"], harness.watch.counts["ended.lost"]) == (1, 0)


def test_a_job_that_is_known_is_looked_up_in_no_archive():
    harness = Harness(seconds=600.0, archive=True)
    (job,) = harness.start(1)

    async def main():
        return await harness.wait_for(job)

    assert harness.run(main())[-1] is Phase.SUCCEEDED
    assert harness.jobs.calls["recover"] == 0


def test_forgotten_jobs_share_a_call_of_the_archive():
    harness = Harness(seconds=10.0, forget_after=5.0, archive=True)
    jobs = lose(harness, 50)

    async def main():
        return await asyncio.gather(*(harness.wait_for(job) for job in jobs))

    assert harness.run(main()) == [[Phase.SUCCEEDED]] * 50
    assert harness.jobs.calls["recover"] == 1


def test_an_archive_that_does_not_answer_delays_the_end_and_does_not_change_it(caplog):
    harness = Harness(seconds=10.0, forget_after=5.0, archive=True)
    jobs = lose(harness, 2)
    harness.jobs.fail_next(TimeoutError("no answer"), "recover", times=5)

    async def main():
        return await asyncio.gather(*(harness.wait_for(job) for job in jobs))

    with caplog.at_level("INFO"):
        assert harness.run(main()) == [[Phase.SUCCEEDED]] * 2
    assert harness.jobs.calls["recover"] == 6
    assert caplog.text.count("the archive cannot be asked how 2 jobs ended") == 1
    assert caplog.text.count("the archive of ended jobs answers again") == 1


def test_an_archive_that_never_answers_does_not_delay_the_loss_for_ever():
    harness = Harness(seconds=10.0, forget_after=5.0, archive=True)
    (job,) = lose(harness)
    harness.jobs.fail_next(TimeoutError("no answer"), "recover", times=10_000)

    async def main():
        return await harness.wait_for(job)

    assert harness.run(main()) == [Phase.LOST]
    assert 3600.0 <= harness.loop.time() < 3600.0 + 300.0


def test_an_archive_that_refuses_is_as_no_archive(caplog):
    harness = Harness(seconds=10.0, forget_after=5.0, archive=True)
    (job,) = lose(harness)
    harness.jobs.fail_next(PermissionError("denied"), "recover")

    async def main():
        return await harness.wait_for(job)

    assert harness.run(main()) == [Phase.LOST]
    assert "the archive cannot be asked how job-1 ended" in caplog.text
    assert "PermissionError: denied). How they ended stays unknown" in caplog.text


def test_the_archive_is_asked_under_each_claim_and_answers_each():
    harness = Harness(seconds=10.0, forget_after=5.0, archive=True)
    (job,) = lose(harness)
    sensors, theirs = replace(job, claim=NO_CLAIM), replace(job, claim=Claim("b" * 16, 1))

    async def main():
        # `wait_for` keeps what it saw by the id of the job, so each is returned.
        return await asyncio.gather(*(harness.wait_for(each) for each in (job, sensors, theirs)))

    assert harness.run(main()) == [[Phase.SUCCEEDED], [Phase.SUCCEEDED], [Phase.LOST]]


def test_a_wait_that_leaves_while_the_archive_is_asked_does_no_harm():
    harness = Harness(seconds=10.0, forget_after=5.0, archive=True)
    jobs = lose(harness, 2)
    harness.jobs.fail_next(TimeoutError("no answer"), "recover", times=3)

    async def main():
        waits = [asyncio.ensure_future(harness.wait_for(job)) for job in jobs]
        await asyncio.sleep(90.0)
        assert harness.jobs.calls["recover"]
        waits[0].cancel()
        return await asyncio.gather(*waits, return_exceptions=True)

    left, stayed = harness.run(main())
    assert isinstance(left, asyncio.CancelledError)
    assert stayed == [Phase.SUCCEEDED]


def test_a_job_that_is_not_known_yet_is_not_lost():
    harness = Harness(seconds=100.0, unknown_for=50.0)
    (job,) = harness.start(1)

    async def main():
        return await harness.wait_for(job)

    assert harness.run(main())[-1] is Phase.SUCCEEDED


def test_a_wait_that_leaves_does_not_disturb_the_others():
    harness = Harness(seconds=60.0)
    jobs = harness.start(3)

    async def main():
        waits = [asyncio.ensure_future(harness.wait_for(job)) for job in jobs]
        await asyncio.sleep(5.0)
        waits[1].cancel()
        return await asyncio.gather(*waits, return_exceptions=True)

    results = harness.run(main())
    assert isinstance(results[1], asyncio.CancelledError)
    assert [results[0][-1], results[2][-1]] == [Phase.SUCCEEDED] * 2
    assert len(harness.watch) == 0


def test_a_watch_stops_with_its_last_wait():
    harness = Harness(seconds=60.0)
    (job,) = harness.start(1)

    async def main():
        wait = asyncio.ensure_future(harness.wait_for(job))
        await asyncio.sleep(5.0)
        wait.cancel()
        await asyncio.gather(wait, return_exceptions=True)
        calls = harness.jobs.calls["observe"]
        await asyncio.sleep(500.0)
        return harness.jobs.calls["observe"] - calls

    assert harness.run(main()) == 0


def test_a_watch_that_has_stopped_starts_again():
    harness = Harness(seconds=60.0)
    jobs = harness.start(2)

    async def main():
        await harness.wait_for(jobs[0])
        await asyncio.sleep(100.0)
        return await harness.wait_for(jobs[1])

    assert harness.run(main()) == [Phase.SUCCEEDED]


def test_a_defect_in_the_watch_reaches_everybody_who_waits():
    class Defect(InMemoryJobs):
        def is_transient(self, error):
            raise ZeroDivisionError

    harness = Harness(Defect, seconds=60.0)
    jobs = harness.start(3)
    harness.jobs.fail_next(TimeoutError())

    async def main():
        return await asyncio.gather(*(harness.wait_for(job) for job in jobs), return_exceptions=True)

    assert [type(result) for result in harness.run(main())] == [ZeroDivisionError] * 3


def test_a_change_of_facts_is_reported_even_if_the_phase_stays():
    class Reports(InMemoryJobs):
        def observe(self, jobs):
            return [replace(job, facts={"state": int(self.now() / 20)}) for job in super().observe(jobs)]

    harness = Harness(Reports, seconds=None)
    (job,) = harness.start(1)

    async def main():
        async with aclosing(harness.watch.follow(job, POLICY)) as follow:
            async for observation in follow:
                if observation.facts["state"] == 3:
                    break
        return observation.phase

    assert harness.run(main()) is Phase.RUNNING


# --- a service that does not answer ---------------------------------------------------------------


def watched_for(harness, job, seconds, policy=POLICY, heal_after=None):
    """What a wait is notified of while its service is silent, the result, and the gauge."""
    received = []

    async def wait():
        follow = harness.watch.follow(job, policy, lambda each: received.append((each.seconds, each.error)))
        async with aclosing(follow) as observations:
            async for _ in observations:
                pass

    async def main():
        waiting = asyncio.ensure_future(wait())
        if heal_after is not None:
            await asyncio.sleep(heal_after)
            harness.jobs._account.interfere = None
            seen.append(harness.watch.gauges()["unanswered"])
        done, _ = await asyncio.wait([waiting], timeout=seconds - (heal_after or 0))
        seen.append(harness.watch.gauges()["unanswered"])
        waiting.cancel()
        (result,) = await asyncio.gather(waiting, return_exceptions=True)
        return result if done else None

    seen = []
    return harness.run(main()), received, seen


@pytest.mark.parametrize("error", [TimeoutError("no answer"), Throttled("too many calls")], ids=str)
def test_a_wait_is_notified_that_its_service_does_not_answer_and_that_it_answers_again(error):
    harness = Harness(seconds=None)
    (job,) = harness.start(1)

    def fail(method, moment):
        if method == "observe":
            raise error

    harness.jobs._account.interfere = fail
    result, received, gauges = watched_for(harness, job, 20_000, heal_after=10_000)
    assert result is None, "the job is watched on"
    minutes = [seconds / 60 for seconds, error in received if error]
    assert minutes[0] == pytest.approx(5, abs=6)
    assert minutes[-1] > 30
    assert all(later > 1.5 * sooner for sooner, later in pairwise(minutes)), "ever more rarely"
    assert received[-1][1] is None
    assert [(seconds, error) for seconds, error in received[:-1] if not error] == []
    assert gauges == [1.0, 0.0]


def test_a_service_that_answers_in_between_is_not_silent():
    harness, calls = Harness(seconds=None), []
    (job,) = harness.start(1)

    def fail_every_other(method, moment):
        if (method, moment) == ("observe", "before"):
            calls.append(method)
            if len(calls) % 2:
                raise TimeoutError("no answer")

    harness.jobs._account.interfere = fail_every_other
    result, received, gauges = watched_for(harness, job, 20_000)
    assert (result, received, gauges) == (None, [], [0.0])


@pytest.mark.parametrize(
    ("answered", "minutes"), [(True, 60), (False, 10)], ids=["has-answered", "has-never-answered"]
)
def test_a_wait_that_believes_for_a_limited_time_ends_with_the_last_error(answered, minutes):
    harness = Harness(seconds=None)
    (job,) = harness.start(1)
    calls = []

    def fail_later(method, moment):
        if (method, moment) == ("observe", "before"):
            calls.append(method)
            if len(calls) > answered:
                raise TimeoutError("no answer")

    harness.jobs._account.interfere = fail_later
    policy = replace(POLICY, unanswered_timeout=3600.0)
    result, _, _ = watched_for(harness, job, 20_000, policy)
    assert isinstance(result, polling.Unanswered)
    found = re.fullmatch(r"no answer for (\d+) min, the last error: TimeoutError: no answer", str(result))
    assert int(found[1]) == pytest.approx(minutes, abs=6)
