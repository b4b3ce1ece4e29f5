"""`decide` as a table: one row per situation, and what holds in every situation."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_resilient.core.decide import (
    DUPLICATE,
    OVERDUE,
    SUPERSEDED,
    Cancel,
    Facts,
    Finish,
    OutOfCapacity,
    Policy,
    Submit,
    TimedOut,
    Watch,
    decide,
)
from airflow_resilient.core.job import CLOCK_SKEW, Cause, Claim, Job, Owner, Phase

TASK_KEY = "abcdefghijklmnop"
RUN_STARTED = 1_000_000.0
POLICY = Policy(infrastructure_retries=2, first_backoff=10.0)
LEAVE = replace(POLICY, on_timeout="leave")


def job(
    name: str,
    number: int,
    phase: Phase = Phase.RUNNING,
    after: float = 0.0,
    resubmission: int = 0,
    generation: str = "",
    **more,
) -> Job:
    """A job created `after` seconds after the start of the run."""
    if phase is Phase.FAILED:
        more.setdefault("cause", Cause.APPLICATION)
    claim = Claim(TASK_KEY, number, resubmission, generation)
    return Job(name, claim, phase, RUN_STARTED + after, **more)


def foreign(name: str, phase: Phase = Phase.RUNNING) -> Job:
    """A job of another task instance."""
    return replace(job(name, 1, phase), claim=Claim("a" * 16, 1))


def spot(name: str, number: int, after: float = 0.0, resubmission: int = 0) -> Job:
    """A job that the infrastructure ended."""
    return job(name, number, Phase.FAILED, after, resubmission, cause=Cause.INFRASTRUCTURE, reason="Spot")


def owner(try_number: int, cleared_after_try: int = 0, **more) -> Owner:
    return Owner(TASK_KEY, try_number, cleared_after_try, RUN_STARTED, **more)


def facts(*jobs: Job, own_job_ids: str = "", **more) -> Facts:
    return Facts(jobs, frozenset(own_job_ids.split()), **more)


def submit(number: int, resubmission: int = 0, after: float = 0.0) -> tuple:
    return "Submit", Claim(TASK_KEY, number, resubmission).token, after


def cancel(name: str, why: str) -> tuple:
    return "Cancel", name, why


def watch(*names: str) -> tuple:
    return "Watch", *names


def finish(name: str) -> tuple:
    return "Finish", name


def timed_out(name: str | None) -> tuple:
    return "TimedOut", name


def gist(action) -> tuple:
    """What the table says about an action: all but the sentence for people."""
    kind = type(action).__name__
    match kind:
        case "Submit":
            return kind, action.claim.token, action.after
        case "Cancel":
            return kind, action.job.id, action.why
        case "Watch":
            return kind, *(job.id for job in action.jobs)
        case "OutOfCapacity":
            return kind, action.refusals
        case _:
            return kind, action.job.id if action.job else None


STOPPING, DONE, BAD = Phase.STOPPING, Phase.SUCCEEDED, Phase.FAILED
OTHER_RUN = -CLOCK_SKEW - 1.0

TABLE = {
    # nothing there
    "first try submits the first claim": (owner(1), facts(), submit(1)),
    "a try that crashed before it submitted leaves its claim to the next": (owner(2), facts(), submit(1)),
    "after a clear the numbers go on where the cleared try stood": (
        owner(4, cleared_after_try=3),
        facts(),
        submit(4),
    ),
    # a live job of mine
    "the job this try submitted is watched": (owner(1), facts(job("a", 1), own_job_ids="a"), watch("a")),
    "a job an earlier try left running is taken over": (owner(2), facts(job("a", 1)), watch("a")),
    "a queued job is a live job": (owner(2), facts(job("a", 1, Phase.QUEUED)), watch("a")),
    "a job that is being stopped is watched until it has stopped": (
        owner(2),
        facts(job("a", 1, STOPPING)),
        watch("a"),
    ),
    "a live job counts more than an earlier one that failed": (
        owner(2),
        facts(job("a", 1, BAD), job("b", 2, after=9)),
        watch("b"),
    ),
    # whose job it is
    "a live job of another task instance is left alone": (owner(2), facts(foreign("x")), submit(1)),
    "whoever says that it is ours": (owner(1), facts(foreign("x"), own_job_ids="x"), submit(1)),
    "its success is no result": (owner(1), facts(foreign("x", DONE), own_job_ids="x"), submit(1)),
    "it is not cancelled at the deadline": (
        owner(1),
        facts(foreign("x"), own_job_ids="x", overdue=True),
        timed_out(None),
    ),
    "nor where jobs survive a clear": (owner(2, reattach=True), facts(foreign("x")), submit(1)),
    "after a clear that the numbers hide the old job is cancelled": (
        owner(2, generation="2.3"),
        facts(job("a", 1, generation="1.1")),
        cancel("a", SUPERSEDED),
    ),
    "after a clear that the numbers hide the numbers go on": (
        owner(2, generation="2.3"),
        facts(job("a", 1, DONE, generation="1.1")),
        submit(2),
    ),
    "a job that is older than one from before the clear is from before it, too": (
        owner(3, generation="3.3"),
        facts(job("a", 1, DONE, generation="3.3"), job("b", 2, DONE, after=9, generation="2.1")),
        submit(3),
    ),
    "a younger job with a lower number than one from before the clear is from after it": (
        owner(3, generation="3.3"),
        facts(job("a", 1, DONE, after=9, generation="3.3"), job("b", 2, DONE, generation="2.1")),
        finish("a"),
    ),
    "a job with a higher number than one from before the clear is from after it": (
        owner(3, generation="3.3"),
        facts(job("a", 2, DONE, generation="3.3"), job("b", 1, DONE, after=9, generation="2.1")),
        finish("a"),
    ),
    "after retries were lowered a job of the same generation stays ours": (
        owner(2, 1, generation="3.1"),
        facts(job("a", 1, generation="3.3")),
        watch("a"),
    ),
    # duplicates
    "of two live jobs the oldest stays": (
        owner(2),
        facts(job("new", 1, after=5), job("old", 1)),
        cancel("new", DUPLICATE),
    ),
    "a cancelled duplicate is awaited beside the one that counts": (
        owner(2),
        facts(job("new", 1, STOPPING, after=5), job("old", 1)),
        watch("old", "new"),
    ),
    "of an old job that is being stopped and a young one the young one stays": (
        owner(2),
        facts(job("old", 1, STOPPING), job("new", 2, after=5)),
        watch("new", "old"),
    ),
    "the end of a cancelled duplicate is not reported": (
        owner(2),
        facts(job("old", 1, BAD), job("new", 1, Phase.CANCELLED, after=5), own_job_ids="old"),
        finish("old"),
    ),
    # the end of the job of this try
    "success is reported": (owner(1), facts(job("a", 1, DONE), own_job_ids="a"), finish("a")),
    "a success that was not observed is adopted": (owner(2), facts(job("a", 1, DONE)), finish("a")),
    "a success counts more than a later failure": (
        owner(3),
        facts(job("a", 1, DONE), job("b", 2, BAD, after=9), own_job_ids="b"),
        finish("a"),
    ),
    "a failure of the application is reported by the try that watched it": (
        owner(1),
        facts(job("a", 1, BAD), own_job_ids="a"),
        finish("a"),
    ),
    "a failure of unknown cause is reported": (
        owner(1),
        facts(job("a", 1, BAD, cause=Cause.UNKNOWN), own_job_ids="a"),
        finish("a"),
    ),
    "a job stopped by a person is reported": (
        owner(1),
        facts(job("a", 1, Phase.CANCELLED), own_job_ids="a"),
        finish("a"),
    ),
    "a lost job is reported": (owner(1), facts(job("a", 1, Phase.LOST), own_job_ids="a"), finish("a")),
    "a taken over job that failed is reported": (
        owner(2),
        facts(job("a", 1, BAD), own_job_ids="a"),
        finish("a"),
    ),
    "the last of several failures is the one reported": (
        owner(1),
        facts(spot("a", 1), job("b", 1, BAD, after=9, resubmission=1), own_job_ids="a b"),
        finish("b"),
    ),
    # history
    "a failure of an earlier try is history": (owner(2), facts(job("a", 1, BAD)), submit(2)),
    "a job cancelled in an earlier try is history": (
        owner(2),
        facts(job("a", 1, Phase.CANCELLED)),
        submit(2),
    ),
    "a job lost in an earlier try is history": (owner(2), facts(job("a", 1, Phase.LOST)), submit(2)),
    "a failure of the infrastructure that an earlier try has seen is history": (
        owner(2),
        facts(spot("a", 1)),
        submit(2),
    ),
    "numbers that were given stay given": (
        owner(4),
        facts(job("a", 1, BAD), job("b", 3, BAD, after=9)),
        submit(4),
    ),
    # infrastructure
    "a failure of the infrastructure is submitted again under its number": (
        owner(3),
        facts(job("a", 1, BAD), spot("b", 2, after=9), own_job_ids="b"),
        submit(2, resubmission=1, after=10.0),
    ),
    "the second resubmission waits twice as long": (
        owner(1),
        facts(spot("a", 1), spot("b", 1, after=9, resubmission=1), own_job_ids="a b"),
        submit(1, resubmission=2, after=20.0),
    ),
    "a spent budget of resubmissions reports the failure": (
        owner(1),
        facts(spot("a", 1), spot("b", 1, 9, 1), spot("c", 1, 19, 2), own_job_ids="a b c"),
        finish("c"),
    ),
    "each try has a budget of its own": (
        owner(2),
        facts(spot("a", 1), spot("b", 1, 9, 1), spot("c", 1, 19, 2), spot("d", 2, 29), own_job_ids="d"),
        submit(2, resubmission=1, after=10.0),
    ),
    "a token that is known to be used up is not used again": (
        owner(2),
        facts(spot("b", 1, after=9, resubmission=4), own_job_ids="b"),
        submit(1, resubmission=5, after=10.0),
    ),
    "a lost job is not taken for a failure of the infrastructure": (
        owner(1),
        facts(job("a", 1, Phase.LOST, cause=Cause.INFRASTRUCTURE), own_job_ids="a"),
        finish("a"),
    ),
    # refusals
    "a refusal for lack of capacity is submitted again after a wait": (
        owner(1),
        facts(refusals=1),
        submit(1, after=10.0),
    ),
    "refusals back off": (owner(1), facts(refusals=2), submit(1, after=20.0)),
    "refusals beyond the budget are reported": (owner(1), facts(refusals=3), ("OutOfCapacity", 3)),
    "refusals and failures of the infrastructure share one budget": (
        owner(1),
        facts(spot("a", 1), own_job_ids="a", refusals=2),
        finish("a"),
    ),
    "refusals do not hide a live job": (owner(2), facts(job("a", 1), refusals=9), watch("a")),
    # clears
    "a live job from before the clear is cancelled": (
        owner(2, cleared_after_try=1),
        facts(job("a", 1), own_job_ids=""),
        cancel("a", SUPERSEDED),
    ),
    "its end is awaited before the successor starts": (
        owner(2, cleared_after_try=1),
        facts(job("a", 1, STOPPING)),
        watch("a"),
    ),
    "when it has stopped the successor starts": (
        owner(2, cleared_after_try=1),
        facts(job("a", 1, Phase.CANCELLED)),
        submit(2),
    ),
    "a success from before the clear does not count": (
        owner(4, cleared_after_try=3),
        facts(job("a", 1, DONE)),
        submit(4),
    ),
    "a predecessor that ended well at the last moment does not count": (
        owner(2, cleared_after_try=1),
        facts(job("a", 1, DONE)),
        submit(2),
    ),
    "mine is watched while the predecessor still stops": (
        owner(3, cleared_after_try=1),
        facts(job("a", 1, STOPPING), job("b", 2, after=9)),
        watch("b", "a"),
    ),
    "a predecessor is cancelled even if mine is there already": (
        owner(3, cleared_after_try=1),
        facts(job("a", 1), job("b", 2, after=9), own_job_ids="b"),
        cancel("a", SUPERSEDED),
    ),
    "reattach takes a live job from before the clear over": (
        owner(2, cleared_after_try=1, reattach=True),
        facts(job("a", 1)),
        watch("a"),
    ),
    "reattach does not take a success from before the clear": (
        owner(2, cleared_after_try=1, reattach=True),
        facts(job("a", 1, DONE)),
        submit(2),
    ),
    "a reattached job that has ended well since is reported": (
        owner(2, cleared_after_try=1, reattach=True),
        facts(job("a", 1, DONE), own_job_ids="a"),
        finish("a"),
    ),
    "what is submitted again after a clear is from after the clear": (
        owner(2, cleared_after_try=1, reattach=True),
        facts(spot("a", 1), own_job_ids="a"),
        submit(2, after=10.0),
    ),
    # other runs
    "a success of a deleted run of the same name does not count": (
        owner(1),
        facts(job("a", 1, DONE, after=OTHER_RUN)),
        submit(1, resubmission=1),
    ),
    "a live job of a deleted run is cancelled": (
        owner(2),
        facts(job("a", 1, after=OTHER_RUN)),
        cancel("a", SUPERSEDED),
    ),
    "the jobs of a deleted run do not push my numbers up": (
        owner(1),
        facts(job("a", 1, BAD, after=OTHER_RUN - 9), job("b", 2, BAD, after=OTHER_RUN)),
        submit(1, resubmission=1),
    ),
    "clocks may differ by a minute": (owner(2), facts(job("a", 1, after=-CLOCK_SKEW)), watch("a")),
    # a stale worker
    "a live job of a later try is not cancelled": (
        owner(1),
        facts(job("a", 1), job("b", 2, after=9), own_job_ids="a"),
        watch("a", "b"),
    ),
    "nor when mine has ended": (
        owner(1),
        facts(job("a", 1, BAD), job("b", 2, after=9), own_job_ids="a"),
        watch("b"),
    ),
    "nor at my deadline": (owner(1), facts(job("b", 2), overdue=True), watch("b")),
    "a later try's success is not mine": (owner(1), facts(job("b", 2, DONE)), submit(1)),
    # the deadline
    "at the deadline the job is cancelled": (
        owner(1),
        facts(job("a", 1), own_job_ids="a", overdue=True),
        cancel("a", OVERDUE),
    ),
    "its end is awaited": (owner(1), facts(job("a", 1, STOPPING), own_job_ids="a", overdue=True), watch("a")),
    "when it has stopped the timeout is reported": (
        owner(1),
        facts(job("a", 1, Phase.CANCELLED), own_job_ids="a", overdue=True),
        timed_out("a"),
    ),
    "a failure at the last moment is a timeout": (
        owner(1),
        facts(job("a", 1, BAD), own_job_ids="a", overdue=True),
        timed_out("a"),
    ),
    "a success at the last moment wins over the deadline": (
        owner(1),
        facts(job("a", 1, DONE), own_job_ids="a", overdue=True),
        finish("a"),
    ),
    "a job that does not stop is reported when its grace is over": (
        owner(1),
        facts(job("a", 1, STOPPING), own_job_ids="a", overdue=True, cancel_grace_over=True),
        timed_out("a"),
    ),
    "a job that cannot be cancelled is reported when its grace is over": (
        owner(1),
        facts(job("a", 1), own_job_ids="a", overdue=True, cancel_grace_over=True),
        timed_out("a"),
    ),
    "past the deadline nothing is submitted": (owner(1), facts(overdue=True), timed_out(None)),
    "past the deadline nothing is submitted again": (
        owner(1),
        facts(spot("a", 1), own_job_ids="a", overdue=True),
        timed_out("a"),
    ),
    "past the deadline a refusal is a timeout": (owner(1), facts(refusals=9, overdue=True), timed_out(None)),
    "history is not what timed out": (owner(2), facts(job("a", 1, BAD), overdue=True), timed_out(None)),
    "past the deadline a predecessor is cancelled and awaited all the same": (
        owner(2, cleared_after_try=1),
        facts(job("a", 1), overdue=True),
        cancel("a", SUPERSEDED),
    ),
}
LEAVE_TABLE = {
    "a job that is to be left is reported at once": (
        owner(1),
        facts(job("a", 1), own_job_ids="a", overdue=True),
        timed_out("a"),
    ),
    "before the deadline it is watched": (owner(1), facts(job("a", 1), own_job_ids="a"), watch("a")),
    "a predecessor is not left": (
        owner(2, cleared_after_try=1),
        facts(job("a", 1), overdue=True),
        cancel("a", SUPERSEDED),
    ),
}


def rows(table: dict):
    return [pytest.param(*row, id=name) for name, row in table.items()]


@pytest.mark.parametrize(("me", "known", "expected"), rows(TABLE))
def test_decide(me, known, expected):
    assert gist(decide(me, known, POLICY)) == expected


@pytest.mark.parametrize(("me", "known", "expected"), rows(LEAVE_TABLE))
def test_decide_when_jobs_are_left_at_the_deadline(me, known, expected):
    assert gist(decide(me, known, LEAVE)) == expected


# --- what holds whatever the facts ----------------------------------------------------------------

CAUSES = st.sampled_from(Cause)
some_jobs = st.lists(
    st.builds(
        Job,
        id=st.sampled_from("abcdefgh"),
        claim=st.builds(Claim, st.just(TASK_KEY), st.integers(1, 5), st.integers(0, 2)),
        phase=st.sampled_from(Phase),
        created=st.integers(-100, 100).map(lambda seconds: RUN_STARTED + seconds),
        cause=CAUSES,
    ),
    max_size=6,
    unique_by=lambda job: job.id,
).map(tuple)
some_facts = st.builds(
    Facts,
    some_jobs,
    st.frozensets(st.sampled_from("abcdefgh")),
    overdue=st.booleans(),
    cancel_grace_over=st.booleans(),
    refusals=st.integers(0, 4),
)
some_owners = st.integers(1, 5).flatmap(
    lambda number: st.builds(
        Owner,
        st.just(TASK_KEY),
        st.just(number),
        st.integers(0, number - 1),
        st.just(RUN_STARTED),
        st.booleans(),
    )
)
some_policies = st.builds(Policy, st.integers(0, 3), st.sampled_from(["cancel", "leave"]))
in_any_situation = given(some_owners, some_facts, some_policies)


@in_any_situation
def test_there_is_always_exactly_one_action_with_a_reason(me, known, policy):
    action = decide(me, known, policy)
    assert isinstance(action, Submit | Cancel | Watch | Finish | TimedOut | OutOfCapacity)
    assert action.why


def test_the_next_submission_says_why_the_job_of_an_earlier_try_failed():
    action = decide(owner(2), facts(job("a", 1, BAD, reason="exit code 1")), POLICY)
    assert action.why == "a of an earlier try failed (exit code 1): submitting the next job"


@in_any_situation
def test_nothing_is_submitted_beside_a_live_job(me, known, policy):
    action = decide(me, known, policy)
    assert not (isinstance(action, Submit) and any(job.live for job in known.jobs))


@in_any_situation
def test_a_submission_uses_a_token_that_no_known_job_has_used(me, known, policy):
    action = decide(me, known, policy)
    if isinstance(action, Submit):
        assert action.claim.token not in {job.claim.token for job in known.jobs}
        assert action.claim.number > me.cleared_after_try or any(
            job.id in known.own_job_ids for job in known.jobs
        )


@given(some_owners, some_facts, some_policies, st.integers(0, 1000))
def test_the_order_of_facts_does_not_matter(me, known, policy, seed):
    shuffled = list(known.jobs)
    random.Random(seed).shuffle(shuffled)
    assert decide(me, known, policy) == decide(me, replace(known, jobs=tuple(shuffled)), policy)


@in_any_situation
def test_only_live_jobs_are_cancelled_or_watched_and_only_once(me, known, policy):
    action = decide(me, known, policy)
    if isinstance(action, Cancel):
        assert action.job.live
        assert action.job.phase is not Phase.STOPPING
    if isinstance(action, Watch):
        assert {job.id for job in action.jobs} == {job.id for job in known.jobs if job.live}


@in_any_situation
def test_every_cancel_brings_the_end_of_cancelling_nearer(me, known, policy):
    for _ in range(len(known.jobs) + 1):
        action = decide(me, known, policy)
        if not isinstance(action, Cancel):
            return
        stopped = replace(action.job, phase=Phase.STOPPING)
        known = replace(known, jobs=tuple(stopped if job.id == stopped.id else job for job in known.jobs))
    raise AssertionError("it keeps cancelling")


@in_any_situation
def test_what_is_reported_has_ended_and_is_mine(me, known, policy):
    action = decide(me, known, policy)
    if isinstance(action, Finish):
        assert not action.job.live
        assert me.owns(action.job) or action.job.id in known.own_job_ids
        assert action.job.phase is Phase.SUCCEEDED or action.job.id in known.own_job_ids


@in_any_situation
def test_jobs_of_a_later_try_are_never_cancelled(me, known, policy):
    action = decide(me, known, policy)
    if isinstance(action, Cancel):
        assert action.job.claim.number <= me.try_number or action.job.id in known.own_job_ids


@in_any_situation
def test_past_the_deadline_nothing_is_submitted(me, known, policy):
    action = decide(me, replace(known, overdue=True), policy)
    assert not isinstance(action, Submit | OutOfCapacity)


# --- observations and claims -----------------------------------------------------------------------------

observations = st.builds(job, st.just("a"), st.just(1), st.sampled_from(Phase))


@given(observations, observations, observations)
def test_merging_does_not_depend_on_the_order_of_observations(a, b, c):
    assert a.merge(b) == b.merge(a)
    assert a.merge(a) == a
    assert a.merge(b).merge(c) == a.merge(b.merge(c))


@given(st.integers(1, 10**6), st.integers(0, 99), st.text(" -[]()abc19", max_size=5))
def test_a_claim_is_read_back_from_any_name_it_stands_in(number, again, before):
    claim = Claim(TASK_KEY, number, again)
    assert Claim.read(f"{before}[{claim}] ") == claim
    assert len(claim.token) <= 40
