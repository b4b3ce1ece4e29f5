"""`reconcile`: what is asked of the service, in which order, and what a try remembers.

Every test takes the core that it tests, so that `test_mutants` can hand it one with a broken rule.
"""

import json
from dataclasses import replace

import pytest
from mutants import Translated

from airflow_resilient import jobs
from airflow_resilient.jobs import CLOCK_SKEW, Cause, Claim, Phase
from airflow_resilient.testing.memory import Crash, InMemoryJobs, JobPlan

FAMILY = "abcdefghijklmnop"
SPOT = JobPlan(5.0, phase=Phase.FAILED, cause=Cause.INFRASTRUCTURE)
BAD = JobPlan(5.0, phase=Phase.FAILED)


@pytest.fixture
def core():
    return jobs


class Stage:
    """A service in memory and a worker that visits it."""

    def __init__(self, core, kind=InMemoryJobs, **settings) -> None:
        settings = {"seconds": None, "lag": 5.0, "interfere": self._count, **settings}
        self.core, self.calls, self.slept = core, 0, []
        self.jobs = kind(**settings)
        self.run_started = self.jobs.now()
        self.clock_ahead = 0.0

    def _count(self, method, moment):
        self.calls += 1
        assert self.calls < 200, "it does not come to an end"

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.jobs.advance(seconds)

    def now(self):
        return self.jobs.now() + self.clock_ahead

    def visit(
        self, memory=None, *, try_number=1, since=0, deadline=None, reattach=False, restarted=False, **policy
    ):
        """One visit of a try; without memory its first one."""
        core = self.core
        self.journal = len(self.jobs.journal)
        return core.reconcile(
            Translated(self.jobs, core),
            core.Owner(FAMILY, try_number, since, self.run_started, reattach, restarted),
            core.Memory(self.now())
            if memory is None
            else core.Memory.unpack(json.loads(json.dumps(memory.pack()))),
            core.Policy(**policy),
            core.Senses(self.now, self.sleep, lambda: 0.5),
            deadline=deadline,
            fresh=memory is None,
        )

    def asked(self):
        """What the last visit asked of the service, in order."""
        return [call.method for call in self.jobs.journal[self.journal :]]

    def wait(self, memory, seconds):
        """What the trigger brings back after some time."""
        self.jobs.advance(seconds)
        return memory.update(Translated(self.jobs, self.core).observe(memory.seen))


def kind(verdict):
    return type(verdict).__name__


def names(verdict):
    return [job.id for job in verdict.jobs]


def test_a_first_try_submits_and_asks_nothing(core):
    stage = Stage(core)
    memory, verdict = stage.visit()
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-1"])
    assert (stage.asked(), stage.slept) == (["submit"], [])
    assert memory.news == {"job-1"}


def test_a_first_try_that_is_begun_again_looks_for_what_it_did_before(core):
    stage = Stage(core)
    stage.visit()
    stage.jobs.advance(20)
    _, watch = stage.visit(restarted=True)
    assert stage.asked() == ["find"]
    assert names(watch) == ["job-1"]


def test_the_failure_of_its_own_job_is_reported_by_a_try_that_is_begun_again(core):
    stage = Stage(core, seconds=BAD)
    stage.visit()
    stage.jobs.advance(20)
    _, finish = stage.visit(restarted=True)
    assert (kind(finish), finish.job.id, finish.job.phase) == ("Finish", "job-1", Phase.FAILED)


def test_a_later_try_waits_for_the_listing_before_it_looks(core):
    stage = Stage(core, tokens=False)
    stage.jobs.crash("submit", "after")
    with pytest.raises(Crash):
        stage.visit()
    _, verdict = stage.visit(try_number=2)
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-1"])
    assert (stage.asked(), stage.slept) == (["find"], [5.0])


def test_a_try_after_a_clear_looks_too_and_waits_for_its_predecessor(core):
    stage = Stage(core, cancel_seconds=30.0)
    stage.visit()
    memory, verdict = stage.visit(try_number=2, since=1)
    assert (kind(verdict), names(verdict), memory.news) == ("Watch", ["job-1"], frozenset())
    assert stage.asked() == ["find", "cancel"]
    _, verdict = stage.visit(stage.wait(memory, 30.0), try_number=2, since=1)
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-2"])


def test_a_predecessor_that_still_stops_is_remembered(core):
    stage = Stage(core, cancel_seconds=30.0)
    stage.visit()
    memory, _ = stage.visit(try_number=2, since=1)
    _, verdict = stage.visit(memory, try_number=2, since=1)
    assert (kind(verdict), names(verdict), stage.asked()) == ("Watch", ["job-1"], [])


def test_a_return_from_the_watch_asks_nothing(core):
    stage = Stage(core, seconds=60.0)
    memory, _ = stage.visit()
    _, verdict = stage.visit(stage.wait(memory, 60.0))
    assert (kind(verdict), verdict.job.phase, stage.asked()) == ("Finish", Phase.SUCCEEDED, [])


def test_a_failure_that_was_watched_is_reported(core):
    stage = Stage(core, seconds=BAD)
    memory, _ = stage.visit()
    _, verdict = stage.visit(stage.wait(memory, 60.0))
    assert (kind(verdict), verdict.job.phase, stage.asked()) == ("Finish", Phase.FAILED, [])


def test_a_failure_of_a_job_that_was_taken_over_is_reported(core):
    stage = Stage(core, seconds=JobPlan(50.0, phase=Phase.FAILED))
    stage.visit()
    memory, _ = stage.visit(try_number=2)
    _, verdict = stage.visit(stage.wait(memory, 60.0), try_number=2)
    assert (kind(verdict), len(stage.jobs.history)) == ("Finish", 1)


def test_a_job_that_fails_at_once_is_reported(core):
    stage = Stage(core, seconds=JobPlan(0.0, phase=Phase.FAILED))
    _, verdict = stage.visit()
    assert (kind(verdict), len(stage.jobs.history)) == ("Finish", 1)


# --- lost answers and other trouble ---------------------------------------------------------------


def test_after_a_lost_answer_it_looks_before_it_submits_again(core):
    stage = Stage(core, tokens=False)
    stage.jobs.lose_answer("submit")
    _, verdict = stage.visit()
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-1"])
    assert stage.asked() == ["submit", "find"]
    assert stage.slept == [5.0], "as long as a new job may not be listed yet"


def test_after_a_lost_answer_it_looks_on_its_next_visit_too(core):
    stage = Stage(core, tokens=False)
    stage.jobs.lose_answer("submit")
    memory, verdict = stage.visit(quick_retries=0)
    assert (kind(verdict), memory.unsure) == ("Pause", 1)
    stage.jobs.advance(verdict.seconds)
    _, verdict = stage.visit(memory)
    assert (kind(verdict), stage.asked(), len(stage.jobs.history)) == ("Watch", ["find"], 1)


def test_after_a_lost_answer_a_pause_that_was_cut_short_is_made_up_for(core):
    stage = Stage(core, tokens=False)
    stage.jobs.lose_answer("submit")
    memory, _ = stage.visit(quick_retries=0)
    stage.visit(memory)  # the trigger crashed at once
    assert len(stage.jobs.history) == 1


def test_the_failure_of_a_job_behind_a_lost_answer_is_reported(core):
    stage = Stage(core, seconds=JobPlan(1.0, phase=Phase.FAILED))
    stage.jobs.lose_answer("submit")
    _, verdict = stage.visit()
    assert (kind(verdict), len(stage.jobs.history)) == ("Finish", 1)


def test_past_the_deadline_it_finds_out_about_a_lost_answer_before_it_says_so(core):
    stage = Stage(core)
    stage.jobs.lose_answer("submit")
    deadline = stage.jobs.now() + 100.0
    memory, _ = stage.visit(quick_retries=0, deadline=deadline)
    stage.jobs.advance(100.0)
    memory, verdict = stage.visit(memory, deadline=deadline)
    assert (stage.asked(), stage.jobs.live()) == (["find", "cancel"], [])
    assert (kind(verdict), verdict.job.id) == ("TimedOut", "job-1")


def test_trouble_gives_the_slot_back_after_quick_retries(core):
    stage = Stage(core)
    stage.jobs.throttle(100)
    memory, verdict = stage.visit(quick_retries=2)
    assert (kind(verdict), len(stage.slept), memory.trouble) == ("Pause", 2, 3)
    memory, later = stage.visit(memory)
    assert (kind(later), stage.slept[2:]) == ("Pause", [5.0]), "one look, and that not too early"
    assert later.seconds > verdict.seconds


def test_trouble_is_forgotten_when_it_is_over(core):
    stage = Stage(core)
    stage.jobs.throttle(3)
    memory, _ = stage.visit()
    memory, verdict = stage.visit(memory)
    assert (kind(verdict), memory.trouble) == ("Watch", 0)


def test_trouble_with_a_cancel_leads_to_another_cancel(core):
    stage = Stage(core)
    stage.visit()
    stage.jobs.throttle(2, "cancel")
    _, verdict = stage.visit(try_number=2, since=1)
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-2"])
    assert stage.jobs.calls["cancel"] == 3


def test_what_is_no_trouble_is_raised(core):
    stage = Stage(core)
    stage.jobs.fail_next(PermissionError("denied"))
    with pytest.raises(PermissionError):
        stage.visit()


def test_past_the_deadline_a_later_try_looks_before_it_says_that_nothing_was_there(core):
    stage = Stage(core, lag=30.0)
    stage.visit()
    deadline = stage.jobs.now() + 50.0
    stage.jobs.throttle(1, "find")
    _, verdict = stage.visit(try_number=2, since=1, deadline=deadline)
    assert stage.jobs.live() == []
    assert (kind(verdict), stage.asked()) == ("TimedOut", ["find", "find", "cancel"])


# --- tokens ---------------------------------------------------------------------------------------


def test_a_token_spent_by_an_earlier_try_leads_to_the_next_number(core):
    stage = Stage(core, seconds=BAD, lag=1e6, listing_lag=0.0)
    stage.visit()
    stage.jobs.advance(CLOCK_SKEW + 60.0)
    stage.jobs.plan(seconds=None)
    memory, verdict = stage.visit(try_number=2)
    assert (kind(verdict), names(verdict), memory.news) == ("Watch", ["job-2"], {"job-2"})
    assert stage.jobs.history[1].claim.token == f"af-{FAMILY}-2"


def test_a_token_that_answers_with_a_live_job_takes_it_over(core):
    stage = Stage(core, lag=1e6, listing_lag=0.0)
    stage.visit()
    stage.jobs.advance(CLOCK_SKEW + 60.0)
    memory, verdict = stage.visit(try_number=2)
    assert (kind(verdict), names(verdict), memory.news) == ("Watch", ["job-1"], {"job-1"})


def test_a_token_used_by_a_resubmission_nobody_remembers_is_not_used_again(core):
    stage = Stage(core, forget_after=60.0)
    stage.jobs.plan(SPOT, replace(SPOT, seconds=100.0))
    memory, _ = stage.visit()
    memory, pause = stage.visit(stage.wait(memory, 5.0))
    stage.jobs.advance(pause.seconds)
    stage.visit(memory)
    stage.jobs.advance(60.0)  # the first job is forgotten now, the second still runs
    memory, verdict = stage.visit(try_number=2)
    assert names(verdict) == ["job-2"]
    memory, pause = stage.visit(stage.wait(memory, 50.0), try_number=2)
    for _ in range(2):  # the token turns out to be used up; the next one waits as well
        stage.jobs.advance(pause.seconds)
        memory, verdict = stage.visit(memory, try_number=2)
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-3"])


def test_a_token_spent_by_a_deleted_run_of_the_same_name_is_not_taken_for_ours(core):
    stage = Stage(core, seconds=5.0)
    stage.visit()
    stage.jobs.advance(1000.0)
    stage.run_started = stage.jobs.now()
    stage.jobs.plan(seconds=None)
    memory, verdict = stage.visit()
    assert (kind(verdict), names(verdict), memory.news) == ("Watch", ["job-2"], {"job-2"})
    assert stage.jobs.history[1].claim == Claim(FAMILY, 1), "or the next clear takes it for its own"


def test_a_live_job_of_a_deleted_run_is_stopped_and_awaited_when_its_token_shows_it(core):
    stage = Stage(core, cancel_seconds=20.0)
    stage.visit()
    stage.jobs.advance(1000.0)
    stage.run_started = stage.jobs.now()
    memory, verdict = stage.visit()
    assert (kind(verdict), names(verdict), memory.news) == ("Watch", ["job-1"], frozenset())
    _, verdict = stage.visit(stage.wait(memory, 20.0))
    assert (names(verdict), stage.jobs.overlaps()) == (["job-2"], [])


def test_a_job_that_a_deleted_run_is_giving_up_is_awaited_and_not_taken_for_ours(core):
    stage = Stage(core, cancel_seconds=20.0)
    stage.visit()
    stage.jobs.cancel(stage.jobs.history[0], "its run was deleted")
    stage.run_started = stage.jobs.now()  # within the minute by which clocks may differ
    memory, verdict = stage.visit()
    assert (kind(verdict), names(verdict), memory.news) == ("Watch", ["job-1"], frozenset())
    memory, verdict = stage.visit(stage.wait(memory, 20.0))
    assert (kind(verdict), names(verdict), memory.news) == ("Watch", ["job-2"], {"job-2"})
    assert stage.jobs.history[1].claim == Claim(FAMILY, 1), "or the next clear takes it for its own"
    assert stage.jobs.overlaps() == []


def test_a_job_that_a_deleted_run_has_given_up_a_moment_ago_is_not_reported(core):
    stage = Stage(core)
    stage.visit()
    stage.jobs.cancel(stage.jobs.history[0], "its run was deleted")
    stage.jobs.advance(30.0)
    stage.run_started = stage.jobs.now()
    memory, verdict = stage.visit()
    assert (kind(verdict), names(verdict), memory.news) == ("Watch", ["job-2"], {"job-2"})
    assert stage.jobs.history[1].claim == Claim(FAMILY, 1)


def test_clocks_that_differ_are_reported_instead_of_submitting_for_ever(core):
    stage = Stage(core)
    stage.clock_ahead = 1000.0
    stage.run_started = stage.now()
    with pytest.raises(RuntimeError, match="clock"):
        stage.visit()


# --- resubmissions and refusals -------------------------------------------------------------------


def test_a_resubmission_waits_once_and_then_goes_out(core):
    stage = Stage(core, seconds=SPOT)
    memory, _ = stage.visit()
    memory, verdict = stage.visit(stage.wait(memory, 5.0))
    assert (kind(verdict), verdict.seconds, stage.asked()) == ("Pause", 10.0, ["find"])
    stage.jobs.advance(10.0)
    memory, verdict = stage.visit(memory)
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-2"])
    assert stage.jobs.history[1].claim.token == f"af-{FAMILY}-1-1"


def test_the_budget_of_resubmissions_counts_over_all_visits(core):
    stage = Stage(core, seconds=SPOT)
    memory, verdict = stage.visit()
    for _ in range(10):
        if kind(verdict) == "Finish":
            break
        wait = verdict.seconds if kind(verdict) == "Pause" else 5.0
        memory, verdict = stage.visit(stage.wait(memory, wait), infrastructure_retries=2)
    assert (kind(verdict), len(stage.jobs.history)) == ("Finish", 3)


def test_a_refusal_pauses_and_too_many_are_reported(core):
    stage = Stage(core, capacity=0)
    memory, verdict = stage.visit()
    assert (kind(verdict), memory.refusals) == ("Pause", 1)
    memory, verdict = stage.visit(memory)
    assert (kind(verdict), memory.refusals) == ("Pause", 2)
    memory, verdict = stage.visit(memory)
    assert (kind(verdict), verdict.refusals) == ("OutOfRoom", 3)


# --- ends that are our own doing ------------------------------------------------------------------


def test_the_end_of_a_cancelled_duplicate_is_no_news(core):
    stage = Stage(core, tokens=False, cancel_seconds=5.0)
    older = stage.jobs.submit(Claim(FAMILY, 1))
    stage.jobs.advance(2.0)
    memory, _ = stage.visit()  # another worker that believes in the same try
    stage.jobs.advance(5.0)
    memory, verdict = stage.visit(replace(memory, unsure=1))
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-1", "job-2"])
    stage.jobs.finish(older, Phase.FAILED)
    _, verdict = stage.visit(stage.wait(memory, 5.0))
    assert (kind(verdict), verdict.job.id) == ("Finish", "job-1")


def test_the_end_at_the_deadline_is_reported_with_its_job(core):
    stage = Stage(core, cancel_seconds=5.0)
    deadline = stage.jobs.now() + 100.0
    memory, _ = stage.visit(deadline=deadline)
    memory, verdict = stage.visit(stage.wait(memory, 100.0), deadline=deadline)
    assert (kind(verdict), stage.asked()) == ("Watch", ["cancel"])
    _, verdict = stage.visit(stage.wait(memory, 5.0), deadline=deadline)
    assert (kind(verdict), verdict.job and verdict.job.id) == ("TimedOut", "job-1")


def test_the_end_of_a_cancelled_job_is_not_awaited_for_ever(core):
    stage = Stage(core, cancel_seconds=1e6)
    deadline = stage.jobs.now() + 100.0
    memory, _ = stage.visit(deadline=deadline)
    memory, _ = stage.visit(stage.wait(memory, 100.0), deadline=deadline)
    memory, verdict = stage.visit(stage.wait(memory, 200.0), deadline=deadline, cancel_grace=300.0)
    assert kind(verdict) == "Watch"
    memory, verdict = stage.visit(stage.wait(memory, 101.0), deadline=deadline, cancel_grace=300.0)
    assert kind(verdict) == "TimedOut"


def test_a_job_that_an_earlier_try_was_stopping_is_awaited_and_is_history(core):
    stage = Stage(core, cancel_seconds=50.0)
    _, verdict = stage.visit()
    stage.jobs.cancel(verdict.jobs[0], "its deadline; then the worker died")
    memory, verdict = stage.visit(try_number=2)
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-1"])
    _, verdict = stage.visit(stage.wait(memory, 50.0), try_number=2)
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-2"])


class SaysRunning(InMemoryJobs):
    """Answers a cancel as ECS does: the task is RUNNING, as yet."""

    def cancel(self, job, reason):
        look = super().cancel(job, reason)
        return replace(look, phase=Phase.RUNNING) if look.live else look


def test_a_job_is_cancelled_once_even_if_it_still_looks_alive(core):
    stage = Stage(core, SaysRunning, cancel_seconds=30.0)
    stage.visit()
    _, verdict = stage.visit(try_number=2, since=1)
    assert (kind(verdict), stage.asked()) == ("Watch", ["find", "cancel"])


def test_a_job_that_the_service_has_forgotten_is_left_to_the_watch(core):
    stage = Stage(core, seconds=30.0, forget_after=60.0)
    deadline = stage.jobs.now() + 100.0
    memory, _ = stage.visit(deadline=deadline)
    stage.jobs.advance(200.0)
    _, verdict = stage.visit(memory, deadline=deadline)
    assert (kind(verdict), names(verdict), stage.asked()) == ("Watch", ["job-1"], ["cancel"])


class ListsStale(InMemoryJobs):
    """Lists every job as if it ran."""

    def find(self, claims):
        return [replace(job, phase=Phase.RUNNING) for job in super().find(claims)]


def test_a_stale_listing_does_not_undo_an_end_that_was_seen(core):
    stage = Stage(core, ListsStale, seconds=SPOT)
    memory, _ = stage.visit()
    _, verdict = stage.visit(stage.wait(memory, 5.0))
    assert kind(verdict) == "Pause"


def test_any_news_is_more_than_none(core):
    lost = core.Job("a", Claim(FAMILY, 1), Phase.LOST, 0.0)
    for phase in Phase:
        look = replace(lost, phase=phase)
        assert lost.learn(look) == look.learn(lost) == look


def test_neither_looks_nor_the_watch_make_a_try_forget_which_token_is_used_up(core):
    known = core.Job("a", Claim(FAMILY, 1, again=3), Phase.RUNNING, 0.0)
    look = replace(known, claim=Claim(FAMILY, 1), phase=Phase.FAILED)
    assert known.learn(look).claim.again == 3
    assert core.Memory(0.0, seen=(known,)).update([look]).seen[0].claim.again == 3
