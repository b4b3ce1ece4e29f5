"""`reconcile`: what is asked of the service, in which order, and what a try remembers.

Every test takes the core that it tests, so that `test_mutants` can hand it one with a broken rule.
"""

import json
from dataclasses import replace
from functools import partial

import pytest
from whole_core import REAL, Translated

from airflow_resilient.core.job import CLOCK_SKEW, Cause, Claim, Phase
from airflow_resilient.testing.in_memory_jobs import Crash, InMemoryJobs, JobPlan

TASK_KEY = "abcdefghijklmnop"
SPOT = JobPlan(5.0, phase=Phase.FAILED, cause=Cause.INFRASTRUCTURE)
BAD = JobPlan(5.0, phase=Phase.FAILED)


@pytest.fixture
def core():
    return REAL


class Harness:
    """A service in memory, and a worker that reconciles with it."""

    def __init__(self, core, kind=InMemoryJobs, **settings) -> None:
        settings = {"seconds": None, "lag": 5.0, "interfere": self._count, **settings}
        self.core, self.calls, self.slept = core, 0, []
        self.jobs = kind(**settings)
        self.run_started = self.jobs.now()
        self.clock_ahead = 0.0

    def _count(self, method, moment):
        self.calls += 1
        assert self.calls < 200, "it does not end"

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.jobs.advance(seconds)

    def now(self):
        return self.jobs.now() + self.clock_ahead

    def visit(  # noqa: PLR0913 - what a visit can be told
        self,
        memory=None,
        *,
        try_number=1,
        cleared_after_try=0,
        deadline=None,
        reattach=False,
        restarted=False,
        stops=lambda: False,
        keep=lambda memory: None,
        generation="",
        still_ours=lambda: True,
        **policy,
    ):
        """One visit of a try; without memory its first one."""
        core = self.core
        self.journal = len(self.jobs.journal)
        return core.reconcile(
            Translated(self.jobs, core),
            core.Owner(
                TASK_KEY, try_number, cleared_after_try, self.run_started, reattach, restarted, generation
            ),
            core.Memory(self.now())
            if memory is None
            else core.Memory.from_dict(json.loads(json.dumps(memory.to_dict()))),
            core.Policy(**policy),
            core.Runtime(self.now, self.sleep, lambda: 0.5),
            deadline=deadline,
            first_visit=memory is None,
            stops=stops,
            keep=keep,
            still_ours=still_ours,
        )

    def until_it_ends(self, memory=None, *, hours=48.0, **visit):
        """Visit again after each pause; the last memory and verdict, and the hours that have passed."""
        began = self.jobs.now()
        memory, verdict = self.visit(memory, **visit)
        while kind(verdict) == "Pause" and self.jobs.now() < began + hours * 3600:
            self.calls = 0
            self.jobs.advance(verdict.seconds)
            memory, verdict = self.visit(memory, **visit)
        return memory, verdict, (self.jobs.now() - began) / 3600

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
    harness = Harness(core)
    memory, verdict = harness.visit()
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-1"])
    assert (harness.asked(), harness.slept) == (["submit"], [])
    assert memory.own_job_ids == {"job-1"}


def test_a_first_try_that_is_begun_again_searches_for_what_it_did_before(core):
    harness = Harness(core)
    harness.visit()
    harness.jobs.advance(20)
    _, watch = harness.visit(restarted=True)
    assert harness.asked() == ["find"]
    assert names(watch) == ["job-1"]


def test_the_failure_of_its_own_job_is_reported_by_a_try_that_is_begun_again(core):
    harness = Harness(core, seconds=BAD)
    harness.visit()
    harness.jobs.advance(20)
    _, finish = harness.visit(restarted=True)
    assert (kind(finish), finish.job.id, finish.job.phase) == ("Finish", "job-1", Phase.FAILED)


def test_a_later_try_waits_for_the_listing_before_it_searches(core):
    harness = Harness(core, tokens=False)
    harness.jobs.crash("submit", "after")
    with pytest.raises(Crash):
        harness.visit()
    _, verdict = harness.visit(try_number=2)
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-1"])
    assert (harness.asked(), harness.slept) == (["find"], [5.0])


def test_a_try_after_a_clear_searches_too_and_waits_for_its_predecessor(core):
    harness = Harness(core, cancel_seconds=30.0)
    harness.visit()
    memory, verdict = harness.visit(try_number=2, cleared_after_try=1)
    assert (kind(verdict), names(verdict), memory.own_job_ids) == ("Watch", ["job-1"], frozenset())
    assert harness.asked() == ["find", "cancel"]
    _, verdict = harness.visit(harness.wait(memory, 30.0), try_number=2, cleared_after_try=1)
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-2"])


def test_a_predecessor_that_still_stops_is_remembered(core):
    harness = Harness(core, cancel_seconds=30.0)
    harness.visit()
    memory, _ = harness.visit(try_number=2, cleared_after_try=1)
    _, verdict = harness.visit(memory, try_number=2, cleared_after_try=1)
    assert (kind(verdict), names(verdict), harness.asked()) == ("Watch", ["job-1"], [])


def test_a_return_from_the_watch_asks_nothing(core):
    harness = Harness(core, seconds=60.0)
    memory, _ = harness.visit()
    _, verdict = harness.visit(harness.wait(memory, 60.0))
    assert (kind(verdict), verdict.job.phase, harness.asked()) == ("Finish", Phase.SUCCEEDED, [])


def test_a_failure_that_was_watched_is_reported(core):
    harness = Harness(core, seconds=BAD)
    memory, _ = harness.visit()
    _, verdict = harness.visit(harness.wait(memory, 60.0))
    assert (kind(verdict), verdict.job.phase, harness.asked()) == ("Finish", Phase.FAILED, [])


def test_a_failure_of_a_job_that_was_taken_over_is_reported(core):
    harness = Harness(core, seconds=JobPlan(50.0, phase=Phase.FAILED))
    harness.visit()
    memory, _ = harness.visit(try_number=2)
    _, verdict = harness.visit(harness.wait(memory, 60.0), try_number=2)
    assert (kind(verdict), len(harness.jobs.history)) == ("Finish", 1)


def test_a_job_that_fails_at_once_is_reported(core):
    harness = Harness(core, seconds=JobPlan(0.0, phase=Phase.FAILED))
    _, verdict = harness.visit()
    assert (kind(verdict), len(harness.jobs.history)) == ("Finish", 1)


# --- lost answers and other errors ---------------------------------------------------------------


def test_after_a_lost_answer_it_searches_before_it_submits_again(core):
    harness = Harness(core, tokens=False)
    harness.jobs.lose_answer("submit")
    _, verdict = harness.visit()
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-1"])
    assert harness.asked() == ["submit", "find"]
    assert harness.slept == [5.0], "as long as a new job may not be listed yet"


def test_after_a_lost_answer_it_searches_on_its_next_visit_too(core):
    harness = Harness(core, tokens=False)
    harness.jobs.lose_answer("submit")
    memory, verdict = harness.visit(quick_retries=0)
    assert (kind(verdict), memory.unconfirmed_submission) == ("Pause", 1)
    harness.jobs.advance(verdict.seconds)
    _, verdict = harness.visit(memory)
    assert (kind(verdict), harness.asked(), len(harness.jobs.history)) == ("Watch", ["find"], 1)


def test_after_a_lost_answer_a_pause_that_was_cut_short_is_made_up_for(core):
    harness = Harness(core, tokens=False)
    harness.jobs.lose_answer("submit")
    memory, _ = harness.visit(quick_retries=0)
    harness.visit(memory)  # the trigger crashed at once
    assert len(harness.jobs.history) == 1


def test_the_failure_of_a_job_behind_a_lost_answer_is_reported(core):
    harness = Harness(core, seconds=JobPlan(1.0, phase=Phase.FAILED))
    harness.jobs.lose_answer("submit")
    _, verdict = harness.visit()
    assert (kind(verdict), len(harness.jobs.history)) == ("Finish", 1)


def test_past_the_deadline_it_finds_out_about_a_lost_answer_before_it_says_so(core):
    harness = Harness(core)
    harness.jobs.lose_answer("submit")
    deadline = harness.jobs.now() + 100.0
    memory, _ = harness.visit(quick_retries=0, deadline=deadline)
    harness.jobs.advance(100.0)
    memory, verdict = harness.visit(memory, deadline=deadline)
    assert (harness.asked(), harness.jobs.live()) == (["find", "cancel"], [])
    assert (kind(verdict), verdict.job.id) == ("TimedOut", "job-1")


def test_transient_errors_give_the_slot_back_after_quick_retries(core):
    harness = Harness(core)
    harness.jobs.fail_next(TimeoutError("no answer"), times=100)
    memory, verdict = harness.visit(quick_retries=2)
    assert (kind(verdict), len(harness.slept), memory.transient_errors) == ("Pause", 2, 3)
    memory, later = harness.visit(memory)
    assert (kind(later), harness.slept[2:]) == ("Pause", [5.0]), "one observation, and that not too early"
    assert later.seconds > verdict.seconds


def test_transient_errors_are_forgotten_when_they_are_over(core):
    harness = Harness(core)
    harness.jobs.throttle(3)
    memory, _ = harness.visit()
    memory, verdict = harness.visit(memory)
    assert (kind(verdict), memory.transient_errors) == ("Watch", 0)


def test_a_transient_error_of_a_cancel_leads_to_another_cancel(core):
    harness = Harness(core)
    harness.visit()
    harness.jobs.throttle(2, "cancel")
    _, verdict = harness.visit(try_number=2, cleared_after_try=1)
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-2"])
    assert harness.jobs.calls["cancel"] == 3


def test_an_error_that_is_not_transient_is_raised(core):
    harness = Harness(core)
    harness.jobs.fail_next(PermissionError("denied"))
    with pytest.raises(PermissionError):
        harness.visit()


def test_past_the_deadline_a_later_try_searches_before_it_says_that_nothing_was_there(core):
    harness = Harness(core, lag=30.0)
    harness.visit()
    deadline = harness.jobs.now() + 50.0
    harness.jobs.throttle(1, "find")
    _, verdict = harness.visit(try_number=2, cleared_after_try=1, deadline=deadline)
    assert harness.jobs.live() == []
    assert (kind(verdict), harness.asked()) == ("TimedOut", ["find", "find", "cancel"])


# --- errors that do not pass ---------------------------------------------------------------------

ALWAYS = 5000
NO_CONNECTION = ConnectionRefusedError("nobody listens")


def test_a_service_that_was_never_reached_is_given_up_after_ten_minutes(core):
    harness = Harness(core)
    harness.jobs.fail_next(NO_CONNECTION, times=ALWAYS)
    _, verdict, hours = harness.until_it_ends()
    assert (kind(verdict), hours) == ("GaveUp", pytest.approx(1 / 6, abs=0.01))
    assert "ConnectionRefusedError: nobody listens" in verdict.why
    assert "errors in 10 min" in verdict.why
    assert not verdict.may_have_left


def test_a_service_that_has_answered_is_given_up_after_an_hour(core):
    harness = Harness(core)
    harness.jobs.throttle(ALWAYS)
    _, verdict, hours = harness.until_it_ends()
    assert (kind(verdict), hours) == ("GaveUp", pytest.approx(1, abs=0.01))
    assert harness.jobs.history == []


def test_the_limit_is_a_setting(core):
    harness = Harness(core)
    harness.jobs.throttle(ALWAYS)
    _, verdict, hours = harness.until_it_ends(transient_error_timeout=7200.0)
    assert (kind(verdict), hours) == ("GaveUp", pytest.approx(2, abs=0.01))


def test_a_submission_that_fails_each_time_is_given_up_although_each_search_succeeds(core):
    harness = Harness(core)
    harness.jobs.fail_next(TimeoutError("no answer"), "submit", times=ALWAYS)
    memory, verdict, hours = harness.until_it_ends()
    assert (kind(verdict), hours) == ("GaveUp", pytest.approx(1, abs=0.1))
    assert "TimeoutError: no answer" in verdict.why
    assert memory.unconfirmed_submission == 0, "it was searched for"


def test_a_submission_that_may_have_taken_effect_is_never_given_up(core):
    harness = Harness(core)
    harness.jobs.lose_answer("submit")
    harness.jobs.throttle(ALWAYS, "find")
    memory, verdict, hours = harness.until_it_ends(hours=30)
    assert (kind(verdict), hours > 30) == ("Pause", True)
    assert "a job may exist, so this try goes on" in verdict.why
    harness.jobs._account.faults.clear()
    harness.calls = 0
    _, verdict = harness.visit(memory)
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-1"])


def test_a_live_job_is_never_given_up(core):
    harness = Harness(core)
    harness.visit()
    harness.jobs.throttle(ALWAYS, "cancel")
    _, verdict, hours = harness.until_it_ends(hours=30, try_number=2, cleared_after_try=1)
    assert (kind(verdict), hours > 30) == ("Pause", True)


def test_a_retry_that_cannot_search_says_that_an_earlier_job_may_run(core):
    harness = Harness(core)
    harness.visit()
    harness.jobs.fail_next(NO_CONNECTION, times=ALWAYS)
    _, verdict, hours = harness.until_it_ends(try_number=2)
    assert (kind(verdict), hours) == ("GaveUp", pytest.approx(1, abs=0.01))
    assert verdict.may_have_left
    assert len(harness.jobs.live()) == 1


def test_a_retry_that_has_searched_knows_that_nothing_is_at_stake(core):
    harness = Harness(core)
    harness.jobs.fail_next(NO_CONNECTION, "submit", times=ALWAYS)
    _, verdict, _ = harness.until_it_ends(try_number=2)
    assert (kind(verdict), verdict.may_have_left) == ("GaveUp", False)


def test_errors_that_passed_do_not_count_later(core):
    harness = Harness(core)
    harness.jobs.fail_next(NO_CONNECTION, times=5)
    memory, verdict, _ = harness.until_it_ends()
    assert (kind(verdict), memory.transient_errors) == ("Watch", 0)
    assert (memory.transient_for, memory.submit_errors_for, memory.last_error) == (0.0, 0.0, "")


def test_time_in_which_nobody_asked_does_not_count(core):
    harness = Harness(core)
    harness.jobs.fail_next(NO_CONNECTION, times=4)
    memory, verdict = harness.visit()
    assert kind(verdict) == "Pause"
    harness.jobs.advance(7200)  # no triggerer runs
    memory, verdict = harness.visit(memory)
    assert kind(verdict) == "Pause"
    harness.jobs.advance(verdict.seconds)
    _, verdict = harness.visit(memory)
    assert kind(verdict) == "Watch"


def test_a_search_that_succeeds_after_hours_is_followed_by_a_submission(core):
    harness = Harness(core)
    harness.jobs.fail_next(TimeoutError("no answer"), "submit")
    harness.jobs.fail_next(NO_CONNECTION, "find", times=60)
    _, verdict, hours = harness.until_it_ends()
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-1"])
    assert hours > 3


class Lasting(InMemoryJobs):
    """It knows what no wait will heal."""

    def lasting(self, error, attempts):
        return "Set verify" if attempts > 1 else ""


def test_errors_that_no_wait_heals_end_the_try_with_advice(core):
    harness = Harness(core, Lasting)
    harness.jobs.fail_next(NO_CONNECTION, times=ALWAYS)
    _, verdict = harness.visit()
    assert (kind(verdict), verdict.why) == (
        "GaveUp",
        "ConnectionRefusedError: nobody listens. Set verify",
    )
    assert harness.asked() == ["submit", "find"]


def test_errors_that_no_wait_heals_are_waited_out_while_a_job_may_run(core):
    harness = Harness(core, Lasting)
    harness.jobs.lose_answer("submit")
    harness.jobs.fail_next(NO_CONNECTION, "find", times=ALWAYS)
    _, verdict, _ = harness.until_it_ends(hours=3)
    assert kind(verdict) == "Pause"


# --- a visit that is ended in the middle ---------------------------------------------------------


def test_a_worker_that_stops_submits_nothing_and_another_one_goes_on(core):
    for try_number, moment in ((1, "at once"), (2, "before"), (2, "after")):
        stopped = [moment == "at once"]

        def signal(method, when, stopped=stopped, moment=moment):
            stopped.append((method, when) == ("find", moment))

        harness = Harness(core, interfere=signal)
        memory, verdict = harness.visit(try_number=try_number, stops=partial(any, stopped))
        assert (kind(verdict), harness.jobs.history) == ("Pause", []), moment
        stopped.clear()
        _, verdict = harness.visit(memory, try_number=try_number)
        assert names(verdict) == ["job-1"]


def test_a_worker_that_stops_while_it_submits_keeps_the_job(core):
    stopped = []
    harness = Harness(core, interfere=lambda method, when: stopped.append(method))
    memory, verdict = harness.visit(stops=lambda: bool(stopped))
    assert (kind(verdict), names(verdict), memory.own_job_ids) == ("Watch", ["job-1"], {"job-1"})


def test_a_visit_that_is_ended_in_its_submission_has_stored_what_is_unconfirmed(core):
    for moment in ("before", "after"):
        harness, kept = Harness(core), []
        harness.jobs.crash("submit", moment)
        with pytest.raises(Crash):
            harness.visit(keep=kept.append)
        assert kept[-1].unconfirmed_submission == 1


def test_a_visit_that_is_ended_after_its_submission_has_stored_the_job(core):
    harness, kept = Harness(core, cancel_seconds=30.0), []
    harness.visit(keep=kept.append)
    assert [job.id for job in kept[-1].seen] == ["job-1"]
    assert (kept[-1].own_job_ids, kept[-1].unconfirmed_submission) == ({"job-1"}, 0)


# --- tokens ---------------------------------------------------------------------------------------


def test_a_token_spent_by_an_earlier_try_leads_to_the_next_number(core):
    harness = Harness(core, seconds=BAD, lag=1e6, listing_lag=0.0)
    harness.visit()
    harness.jobs.advance(CLOCK_SKEW + 60.0)
    harness.jobs.plan(seconds=None)
    memory, verdict = harness.visit(try_number=2)
    assert (kind(verdict), names(verdict), memory.own_job_ids) == ("Watch", ["job-2"], {"job-2"})
    assert harness.jobs.history[1].claim.token == f"af-{TASK_KEY}-2"


def test_a_token_that_answers_with_a_live_job_takes_it_over(core):
    harness = Harness(core, lag=1e6, listing_lag=0.0)
    harness.visit()
    harness.jobs.advance(CLOCK_SKEW + 60.0)
    memory, verdict = harness.visit(try_number=2)
    assert (kind(verdict), names(verdict), memory.own_job_ids) == ("Watch", ["job-1"], {"job-1"})


def test_a_token_used_by_a_resubmission_nobody_remembers_is_not_used_again(core):
    harness = Harness(core, forget_after=60.0)
    harness.jobs.plan(SPOT, replace(SPOT, seconds=100.0))
    memory, _ = harness.visit()
    memory, pause = harness.visit(harness.wait(memory, 5.0))
    harness.jobs.advance(pause.seconds)
    harness.visit(memory)
    harness.jobs.advance(60.0)  # the first job is forgotten now, the second still runs
    memory, verdict = harness.visit(try_number=2)
    assert names(verdict) == ["job-2"]
    memory, pause = harness.visit(harness.wait(memory, 50.0), try_number=2)
    for _ in range(2):  # the token turns out to be used up; the next one waits as well
        harness.jobs.advance(pause.seconds)
        memory, verdict = harness.visit(memory, try_number=2)
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-3"])


def test_a_token_spent_by_a_deleted_run_of_the_same_name_is_not_taken_for_ours(core):
    harness = Harness(core, seconds=5.0)
    harness.visit()
    harness.jobs.advance(1000.0)
    harness.run_started = harness.jobs.now()
    harness.jobs.plan(seconds=None)
    memory, verdict = harness.visit()
    assert (kind(verdict), names(verdict), memory.own_job_ids) == ("Watch", ["job-2"], {"job-2"})
    assert harness.jobs.history[1].claim == Claim(TASK_KEY, 1), "or the next clear takes it for its own"


def test_a_live_job_of_a_deleted_run_is_stopped_and_awaited_when_its_token_shows_it(core):
    harness = Harness(core, cancel_seconds=20.0)
    harness.visit()
    harness.jobs.advance(1000.0)
    harness.run_started = harness.jobs.now()
    memory, verdict = harness.visit()
    assert (kind(verdict), names(verdict), memory.own_job_ids) == ("Watch", ["job-1"], frozenset())
    _, verdict = harness.visit(harness.wait(memory, 20.0))
    assert (names(verdict), harness.jobs.overlaps()) == (["job-2"], [])


def test_a_job_that_a_deleted_run_is_giving_up_is_awaited_and_not_taken_for_ours(core):
    harness = Harness(core, cancel_seconds=20.0)
    harness.visit()
    harness.jobs.cancel(harness.jobs.history[0], "its run was deleted")
    harness.run_started = harness.jobs.now()  # within the minute by which clocks may differ
    memory, verdict = harness.visit()
    assert (kind(verdict), names(verdict), memory.own_job_ids) == ("Watch", ["job-1"], frozenset())
    memory, verdict = harness.visit(harness.wait(memory, 20.0))
    assert (kind(verdict), names(verdict), memory.own_job_ids) == ("Watch", ["job-2"], {"job-2"})
    assert harness.jobs.history[1].claim == Claim(TASK_KEY, 1), "or the next clear takes it for its own"
    assert harness.jobs.overlaps() == []


def test_a_job_that_a_deleted_run_has_given_up_a_moment_ago_is_not_reported(core):
    harness = Harness(core)
    harness.visit()
    harness.jobs.cancel(harness.jobs.history[0], "its run was deleted")
    harness.jobs.advance(30.0)
    harness.run_started = harness.jobs.now()
    memory, verdict = harness.visit()
    assert (kind(verdict), names(verdict), memory.own_job_ids) == ("Watch", ["job-2"], {"job-2"})
    assert harness.jobs.history[1].claim == Claim(TASK_KEY, 1)


def test_clocks_that_differ_are_reported_instead_of_submitting_forever(core):
    harness = Harness(core)
    harness.clock_ahead = 1000.0
    harness.run_started = harness.now()
    with pytest.raises(RuntimeError, match="clock"):
        harness.visit()


def test_clocks_that_differ_leave_no_job_behind(core):
    harness = Harness(core)
    harness.clock_ahead = 1000.0
    harness.run_started = harness.now()
    with pytest.raises(RuntimeError, match="clock"):
        harness.visit()
    assert harness.jobs.live() == []


def test_a_run_that_is_made_again_and_again_looks_before_it_uses_a_second_token(core):
    harness = Harness(core, seconds=5.0)
    for run in range(1, 31):
        harness.run_started = harness.jobs.now()
        _, verdict = harness.visit()
        assert (kind(verdict), names(verdict)) == ("Watch", [f"job-{run}"])
        assert harness.asked() == (["submit"] if run == 1 else ["submit", "find", "submit"])
        harness.jobs.advance(1000.0)
    assert len(harness.jobs.history) == 30


# --- clears and `retries` that change -------------------------------------------------------------


def test_a_result_from_before_a_clear_does_not_count_though_retries_were_raised(core):
    harness = Harness(core, seconds=5.0)
    harness.visit(generation="1.1")
    harness.jobs.advance(10.0)
    harness.jobs.plan(seconds=None)
    memory, verdict = harness.visit(try_number=2, generation="2.3")
    assert (kind(verdict), names(verdict), memory.own_job_ids) == ("Watch", ["job-2"], {"job-2"})
    assert str(harness.jobs.history[1].claim) == f"af-{TASK_KEY}-2"
    _, verdict = harness.visit(try_number=3, generation="2.3")
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-2"])


def test_a_token_that_answers_with_a_job_from_before_a_clear_does_not_make_it_ours(core):
    harness = Harness(core, seconds=5.0, lag=1e6, listing_lag=0.0)
    harness.visit(generation="1.1")
    harness.jobs.advance(10.0)
    memory, verdict = harness.visit(try_number=2, generation="2.3")
    assert (kind(verdict), names(verdict), memory.own_job_ids) == ("Watch", ["job-2"], {"job-2"})


def test_a_job_survives_that_retries_were_lowered(core):
    harness = Harness(core)
    harness.visit(generation="3.3")
    harness.jobs.advance(10.0)
    _, verdict = harness.visit(try_number=2, cleared_after_try=1, generation="3.0")
    assert (kind(verdict), names(verdict), harness.jobs.calls["cancel"]) == ("Watch", ["job-1"], 0)


def test_what_a_try_has_given_up_stays_given_up_though_retries_change_between_its_visits(core):
    for before, cleared, after in (("3.3", "3.2", "3.5"), ("", "", "")):
        harness = Harness(core, seconds=40.0, cancel_seconds=1000.0)
        harness.visit(generation=before)
        memory, verdict = harness.visit(try_number=2, cleared_after_try=1, generation=cleared)
        assert (kind(verdict), names(verdict), memory.own_job_ids) == ("Watch", ["job-1"], frozenset())
        memory = harness.wait(memory, 60.0)
        _, verdict = harness.visit(memory, try_number=2, generation=after)
        assert (kind(verdict), names(verdict)) == ("Watch", ["job-2"])


# --- a memory that others can write ---------------------------------------------------------------


def forged(core, harness, **changes):
    """A memory that names one job, which is said to be this try's own."""
    said = {"id": "job-1", "claim": Claim(TASK_KEY, 1), "phase": Phase.SUCCEEDED, "created": 0.0, **changes}
    job = core.Job(**{"scope": "memory", **said})
    seen = (replace(job, created=harness.now()),)
    return core.Memory(harness.now(), seen, frozenset({job.id}), unproved=True)


OTHER = Claim("a" * 16, 1)


def test_a_made_up_success_is_no_result(core):
    harness = Harness(core)
    _, verdict = harness.visit(forged(core, harness, id="made-up"))
    assert (kind(verdict), verdict.job.phase) == ("Finish", Phase.LOST)


def test_a_made_up_success_of_a_job_of_somebody_else_is_no_result(core):
    harness = Harness(core, seconds=5.0)
    harness.jobs.submit(OTHER)
    harness.jobs.advance(10.0)
    _, verdict = harness.visit(forged(core, harness))
    assert (kind(verdict), verdict.job.phase) == ("Finish", Phase.LOST)


def test_a_made_up_end_of_our_live_job_is_not_believed(core):
    harness = Harness(core)
    harness.visit()
    harness.jobs.advance(10.0)
    for phase in (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED, Phase.LOST):
        _, verdict = harness.visit(forged(core, harness, phase=phase))
        assert (kind(verdict), names(verdict)) == ("Watch", ["job-1"])
    assert len(harness.jobs.history) == 1


def test_a_job_of_somebody_else_is_not_stopped_at_the_deadline_whoever_names_it(core):
    harness = Harness(core)
    harness.jobs.submit(OTHER)
    memory = forged(core, harness, phase=Phase.RUNNING)
    memory, _ = harness.visit(memory, deadline=harness.now())
    memory, _ = harness.visit(memory, deadline=harness.now())
    assert [real.stop_asked for real in harness.jobs.history] == [None]


def test_a_made_up_live_job_does_not_displace_the_real_one(core):
    harness = Harness(core)
    harness.visit()
    harness.jobs.advance(10.0)
    memory = forged(core, harness, id="made-up", phase=Phase.RUNNING)
    memory = replace(memory, seen=(replace(memory.seen[0], created=0.0),))
    _, verdict = harness.visit(memory)
    assert (kind(verdict), names(verdict), harness.jobs.calls["cancel"]) == ("Watch", ["job-1"], 0)


class ReadsNoGeneration(InMemoryJobs):
    """Observes a job under the claim that it is asked for, as far as the name goes."""

    def observe(self, jobs):
        asked = {job.id: job.claim for job in jobs}
        return [replace(seen, claim=asked[seen.id]) for seen in super().observe(jobs)]


def test_a_job_from_before_the_clear_is_not_made_ours_by_another_generation(core):
    harness = Harness(core, ReadsNoGeneration, seconds=5.0)
    harness.visit(generation="1.1")
    harness.jobs.advance(10.0)
    memory = replace(forged(core, harness, claim=Claim(TASK_KEY, 1, 0, "2.1")), own_job_ids=frozenset())
    _, verdict = harness.visit(memory, try_number=2, cleared_after_try=1, generation="2.1")
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-2"])


def test_a_job_from_before_the_clear_is_not_made_our_own_by_its_id(core):
    harness = Harness(core, seconds=5.0)
    harness.visit()
    harness.jobs.advance(10.0)
    for phase in (Phase.SUCCEEDED, Phase.RUNNING):
        memory = forged(core, harness, claim=Claim(TASK_KEY, 2), phase=phase)
        harness.jobs.plan(seconds=None)
        _, verdict = harness.visit(memory, try_number=2, cleared_after_try=1)
        assert (kind(verdict), names(verdict)) == ("Watch", ["job-2"])


def test_a_job_from_before_the_clear_that_was_taken_over_stays_our_own(core):
    harness = Harness(core, seconds=JobPlan(20.0, phase=Phase.FAILED))
    harness.visit()
    memory, verdict = harness.visit(try_number=2, cleared_after_try=1, reattach=True)
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-1"])
    harness.jobs.advance(20.0)
    memory = replace(memory, unproved=True)
    _, verdict = harness.visit(memory, try_number=2, cleared_after_try=1, reattach=True)
    assert (kind(verdict), verdict.job.id) == ("Finish", "job-1")


def test_a_recalled_memory_leads_to_one_look_and_not_to_two(core):
    harness = Harness(core, seconds=60.0)
    memory, _ = harness.visit()
    harness.jobs.advance(10.0)
    memory, verdict = harness.visit(replace(memory, unproved=True))
    assert (kind(verdict), names(verdict), harness.asked()) == ("Watch", ["job-1"], ["find", "observe"])
    _, verdict = harness.visit(harness.wait(memory, 60.0))
    assert (kind(verdict), harness.asked()) == ("Finish", [])


def test_what_a_memory_lacks_may_not_be_listed_yet(core):
    harness = Harness(core, tokens=False)
    harness.visit()
    memory = core.Memory(harness.now(), unproved=True)
    _, verdict = harness.visit(memory)
    assert (kind(verdict), names(verdict), harness.slept) == ("Watch", ["job-1"], [5.0])


def test_a_recalled_memory_is_looked_at_again_after_trouble(core):
    harness = Harness(core)
    harness.jobs.throttle(1, "observe")
    _, verdict = harness.visit(forged(core, harness, id="made-up"))
    assert (harness.asked(), verdict.job.phase) == (["find", "observe", "find", "observe"], Phase.LOST)


def test_a_recalled_memory_stays_unproved_while_the_service_is_in_trouble(core):
    harness = Harness(core)
    harness.jobs.throttle(3)
    memory, verdict = harness.visit(forged(core, harness, id="made-up"))
    assert (kind(verdict), memory.unproved) == ("Pause", True)
    memory, verdict = harness.visit(memory)
    assert (verdict.job.phase, memory.unproved) == (Phase.LOST, False)


def test_a_try_is_not_given_up_while_an_xcom_may_lack_what_it_has_submitted(core):
    harness = Harness(core)
    harness.visit()
    harness.jobs.throttle(ALWAYS)
    empty = core.Memory(harness.now(), unproved=True)
    memory, verdict, hours = harness.until_it_ends(empty, hours=5.0)
    assert (kind(verdict), memory.unproved, hours >= 5) == ("Pause", True, True)
    harness.jobs._account.faults.clear()
    _, verdict = harness.visit(memory)
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-1"])


def test_a_recalled_memory_is_not_looked_at_when_the_time_is_over(core):
    harness = Harness(core)
    harness.jobs.throttle(100)
    memory = replace(forged(core, harness, phase=Phase.RUNNING), overdue_since=harness.now() - 1e6)
    _, verdict = harness.visit(memory, deadline=harness.now() - 1e6)
    assert (kind(verdict), harness.asked()) == ("TimedOut", [])
    memory = replace(forged(core, harness), overdue_since=harness.now() - 1e6)
    _, verdict = harness.visit(memory, deadline=harness.now() - 1e6)
    assert kind(verdict) == "TimedOut", "and a success that nobody has proved is none"
    assert (verdict.job and verdict.job.phase) is Phase.LOST
    old = replace(memory, seen=(replace(memory.seen[0], claim=Claim(TASK_KEY, 1)),))
    _, verdict = harness.visit(old, try_number=2, cleared_after_try=1, deadline=harness.now() - 1e6)
    assert verdict.job is None, "and what cannot be the try's own is not"


def test_many_jobs_of_a_recalled_memory_are_asked_about_in_batches_of_one_scope(core):
    harness = Harness(core, batch_size=2)
    memory = forged(core, harness, phase=Phase.RUNNING)
    scopes = ("memory", "memory", "memory", "elsewhere")
    seen = tuple(replace(memory.seen[0], id=f"x-{n}", scope=scope) for n, scope in enumerate(scopes))
    harness.visit(replace(memory, seen=seen))
    observed = [call.about for call in harness.jobs.journal if call.method == "observe"]
    assert observed == [("x-0", "x-1"), ("x-2",), ("x-3",)]


# --- a stale worker -------------------------------------------------------------------------------


def test_a_stale_try_leaves_the_job_to_its_successor_at_the_deadline(core):
    harness = Harness(core)
    deadline = harness.now() + 100.0
    memory, _ = harness.visit(deadline=deadline)
    memory = harness.wait(memory, 100.0)
    _, verdict = harness.visit(memory, deadline=deadline, still_ours=lambda: False)
    assert (kind(verdict), harness.asked(), len(harness.jobs.live())) == ("TimedOut", [], 1)


def test_whether_a_try_is_stale_is_asked_only_at_the_deadline(core):
    asked = []
    harness = Harness(core)
    harness.visit(still_ours=lambda: asked.append(1))
    harness.visit(try_number=2, cleared_after_try=1, still_ours=lambda: asked.append(1))
    assert (asked, harness.jobs.calls["cancel"]) == ([], 1)


# --- resubmissions and refusals -------------------------------------------------------------------


def test_a_resubmission_waits_once_and_then_goes_out(core):
    harness = Harness(core, seconds=SPOT)
    memory, _ = harness.visit()
    memory, verdict = harness.visit(harness.wait(memory, 5.0))
    assert (kind(verdict), verdict.seconds, harness.asked()) == ("Pause", 10.0, ["find"])
    harness.jobs.advance(10.0)
    memory, verdict = harness.visit(memory)
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-2"])
    assert harness.jobs.history[1].claim.token == f"af-{TASK_KEY}-1-1"


def test_the_budget_of_resubmissions_counts_over_all_visits(core):
    harness = Harness(core, seconds=SPOT)
    memory, verdict = harness.visit()
    for _ in range(10):
        if kind(verdict) == "Finish":
            break
        wait = verdict.seconds if kind(verdict) == "Pause" else 5.0
        memory, verdict = harness.visit(harness.wait(memory, wait), infrastructure_retries=2)
    assert (kind(verdict), len(harness.jobs.history)) == ("Finish", 3)


def test_a_refusal_pauses_and_too_many_are_reported(core):
    harness = Harness(core, capacity=0)
    memory, verdict = harness.visit()
    assert (kind(verdict), memory.refusals) == ("Pause", 1)
    memory, verdict = harness.visit(memory)
    assert (kind(verdict), memory.refusals) == ("Pause", 2)
    memory, verdict = harness.visit(memory)
    assert (kind(verdict), verdict.refusals) == ("OutOfCapacity", 3)


# --- ends that are our own doing ------------------------------------------------------------------


def test_the_end_of_a_cancelled_duplicate_is_not_reported(core):
    harness = Harness(core, tokens=False, cancel_seconds=5.0)
    older = harness.jobs.submit(Claim(TASK_KEY, 1))
    harness.jobs.advance(2.0)
    memory, _ = harness.visit()  # another worker that believes in the same try
    harness.jobs.advance(5.0)
    memory, verdict = harness.visit(replace(memory, unconfirmed_submission=1))
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-1", "job-2"])
    harness.jobs.finish(older, Phase.FAILED)
    _, verdict = harness.visit(harness.wait(memory, 5.0))
    assert (kind(verdict), verdict.job.id) == ("Finish", "job-1")


def test_the_end_at_the_deadline_is_reported_with_its_job(core):
    harness = Harness(core, cancel_seconds=5.0)
    deadline = harness.jobs.now() + 100.0
    memory, _ = harness.visit(deadline=deadline)
    memory, verdict = harness.visit(harness.wait(memory, 100.0), deadline=deadline)
    assert (kind(verdict), harness.asked()) == ("Watch", ["cancel"])
    _, verdict = harness.visit(harness.wait(memory, 5.0), deadline=deadline)
    assert (kind(verdict), verdict.job and verdict.job.id) == ("TimedOut", "job-1")


def test_the_end_of_a_cancelled_job_is_not_awaited_forever(core):
    harness = Harness(core, cancel_seconds=1e6)
    deadline = harness.jobs.now() + 100.0
    memory, _ = harness.visit(deadline=deadline)
    memory, _ = harness.visit(harness.wait(memory, 100.0), deadline=deadline)
    memory, verdict = harness.visit(harness.wait(memory, 200.0), deadline=deadline, cancel_grace=300.0)
    assert kind(verdict) == "Watch"
    memory, verdict = harness.visit(harness.wait(memory, 101.0), deadline=deadline, cancel_grace=300.0)
    assert kind(verdict) == "TimedOut"


def test_a_job_that_an_earlier_try_was_stopping_is_awaited_and_is_history(core):
    harness = Harness(core, cancel_seconds=50.0)
    _, verdict = harness.visit()
    harness.jobs.cancel(verdict.jobs[0], "its deadline; then the worker died")
    memory, verdict = harness.visit(try_number=2)
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-1"])
    _, verdict = harness.visit(harness.wait(memory, 50.0), try_number=2)
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-2"])


class SaysRunning(InMemoryJobs):
    """Answers a cancel as ECS does: the task is RUNNING, as yet."""

    def cancel(self, job, reason):
        observed = super().cancel(job, reason)
        return replace(observed, phase=Phase.RUNNING) if observed.live else observed


def test_a_job_is_cancelled_once_even_if_it_still_seems_to_run(core):
    harness = Harness(core, SaysRunning, cancel_seconds=30.0)
    harness.visit()
    _, verdict = harness.visit(try_number=2, cleared_after_try=1)
    assert (kind(verdict), harness.asked()) == ("Watch", ["find", "cancel"])


def test_a_job_that_the_service_has_forgotten_is_left_to_the_watch(core):
    harness = Harness(core, seconds=30.0, forget_after=60.0)
    deadline = harness.jobs.now() + 100.0
    memory, _ = harness.visit(deadline=deadline)
    harness.jobs.advance(200.0)
    _, verdict = harness.visit(memory, deadline=deadline)
    assert (kind(verdict), names(verdict), harness.asked()) == ("Watch", ["job-1"], ["cancel"])


class ListsStale(InMemoryJobs):
    """Lists every job as if it ran."""

    def find(self, claims):
        return [replace(job, phase=Phase.RUNNING) for job in super().find(claims)]


def test_a_stale_listing_does_not_undo_an_end_that_was_seen(core):
    harness = Harness(core, ListsStale, seconds=SPOT)
    memory, _ = harness.visit()
    _, verdict = harness.visit(harness.wait(memory, 5.0))
    assert kind(verdict) == "Pause"


def test_any_observation_replaces_a_lost_one(core):
    lost = core.Job("a", Claim(TASK_KEY, 1), Phase.LOST, 0.0)
    for phase in Phase:
        observed = replace(lost, phase=phase)
        assert lost.merge(observed) == observed.merge(lost) == observed


def test_neither_looks_nor_the_watch_make_a_try_forget_which_token_is_used_up(core):
    known = core.Job("a", Claim(TASK_KEY, 1, 3, "4.3"), Phase.RUNNING, 0.0)
    observed = replace(known, claim=Claim(TASK_KEY, 1), phase=Phase.FAILED)
    assert known.merge(observed).claim.resubmission == 3
    assert known.merge(observed).claim.generation == observed.merge(known).claim.generation == "4.3"
    assert core.Memory(0.0, seen=(known,)).update([observed]).seen[0].claim.resubmission == 3


# --- jobs that the service has forgotten ----------------------------------------------------------


def forgotten(core, plan=None, **settings):
    """A service that has forgotten the job of a first try that died."""
    settings = {"forget_after": 5.0, "archive": True, "seconds": plan or JobPlan(10.0), **settings}
    harness = Harness(core, **settings)
    harness.jobs.crash("submit", "after")
    with pytest.raises(Crash):
        harness.visit()
    harness.jobs.advance(1000.0)
    return harness


def test_the_result_of_a_forgotten_job_counts(core):
    harness = forgotten(core)
    _, verdict = harness.visit(try_number=2)
    assert (kind(verdict), verdict.job.id, verdict.job.phase) == ("Finish", "job-1", Phase.SUCCEEDED)
    assert harness.asked() == ["find", "find_forgotten"]
    assert harness.jobs.journal[-1].about == (f"af-{TASK_KEY}-1",)


def test_the_failure_of_a_forgotten_job_is_history(core):
    harness = forgotten(core, BAD)
    memory, verdict = harness.visit(try_number=2)
    assert (kind(verdict), names(verdict), memory.own_job_ids) == ("Watch", ["job-2"], {"job-2"})
    assert [real.claim.number for real in harness.jobs.history] == [1, 2]


def test_a_forgotten_job_from_before_a_clear_does_not_count(core):
    harness = forgotten(core)
    _, verdict = harness.visit(try_number=2, cleared_after_try=1)
    assert names(verdict) == ["job-2"]


def test_a_forgotten_job_of_a_deleted_run_does_not_count(core):
    harness = forgotten(core)
    harness.run_started = harness.jobs.now()
    _, verdict = harness.visit(try_number=2)
    assert names(verdict) == ["job-2"]


def test_an_archive_that_knows_a_job_without_its_end_says_nothing(core):
    class KnowsNoEnds(InMemoryJobs):
        def find_forgotten(self, claims, since):
            found = super().find_forgotten(claims, since)
            return [replace(job, phase=phase) for job in found for phase in (Phase.RUNNING, Phase.LOST)]

    harness = forgotten(core, kind=KnowsNoEnds)
    _, verdict = harness.visit(try_number=2)
    assert names(verdict) == ["job-2"]


def test_no_archive_is_asked_where_the_service_shows_the_job(core):
    harness = Harness(core, archive=True, seconds=BAD)
    harness.visit()
    harness.jobs.advance(20)
    harness.visit(try_number=2)
    assert harness.asked() == ["find", "submit"]


def test_an_archive_that_does_not_answer_is_asked_again(core):
    harness = forgotten(core)
    harness.jobs.throttle(5, "find_forgotten")
    memory, verdict = harness.visit(try_number=2)
    assert (kind(verdict), memory.unconfirmed_submission) == ("Pause", 0)
    _, verdict, _ = harness.until_it_ends(memory, try_number=2)
    assert (kind(verdict), verdict.job.id) == ("Finish", "job-1")
    assert len(harness.jobs.history) == 1


def held_up(core, **memory):
    """Hours for which an archive that never answers holds a try up, before it submits."""
    harness = forgotten(core)
    harness.jobs.throttle(10_000, "find_forgotten")
    memory = core.Memory(harness.now(), **memory)
    _, verdict, hours = harness.until_it_ends(memory, try_number=2)
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-2"])
    return hours


def test_an_archive_that_never_answers_holds_a_try_up_for_an_hour_and_no_longer(core):
    assert 1.0 <= held_up(core) <= 1.2


def test_not_even_a_try_that_may_have_submitted_waits_longer_for_an_archive(core):
    assert 1.0 <= held_up(core, unconfirmed_submission=2) <= 1.2


def test_an_archive_that_refuses_is_as_no_archive(core):
    harness = forgotten(core)
    harness.jobs.fail_next(PermissionError("denied"), "find_forgotten")
    _, verdict = harness.visit(try_number=2)
    assert names(verdict) == ["job-2"]


def test_an_hour_in_which_the_service_was_away_does_not_count_against_its_archive(core):
    harness = forgotten(core)
    memory = replace(core.Memory(harness.now()), transient_for=4000.0, unconfirmed_submission=2)
    _, verdict = harness.visit(memory, try_number=2)
    assert (kind(verdict), verdict.job.id) == ("Finish", "job-1")


# --- never a different request --------------------------------------------------------------------


class Requested(InMemoryJobs):
    """Jobs of a request that a test changes."""

    request = {"image": "etl:7", "password": "hunter2"}  # noqa: RUF012 - replaced as a whole

    def request_fields(self):
        return self.request


def test_the_same_request_is_submitted_again(core):
    harness = Harness(core, Requested)
    harness.jobs.plan(SPOT)
    memory, _ = harness.visit()
    _, verdict, _ = harness.until_it_ends(harness.wait(memory, 10))
    assert (kind(verdict), names(verdict)) == ("Watch", ["job-2"])


def test_another_request_is_not_submitted_in_the_same_try(core):
    harness = Harness(core, Requested)
    harness.jobs.plan(SPOT)
    memory, _ = harness.visit()
    harness.jobs.request = {"image": "etl:7", "password": "hunter3"}
    memory, verdict, _ = harness.until_it_ends(harness.wait(memory, 10))
    assert (kind(verdict), verdict.fields) == ("RequestChanged", ("password",))
    assert len(harness.jobs.history) == 1
    assert "hunter" not in json.dumps(memory.to_dict())


def test_nor_after_a_visit_that_could_not_tell_its_request(core):
    harness = Harness(core, Requested)
    harness.jobs.plan(SPOT, SPOT)
    memory, _ = harness.visit()
    first, harness.jobs.request = harness.jobs.request, {}
    memory, verdict, _ = harness.until_it_ends(harness.wait(memory, 10))
    assert names(verdict) == ["job-2"]
    harness.jobs.request = {**first, "image": "etl:8"}
    _, verdict, _ = harness.until_it_ends(harness.wait(memory, 10))
    assert (kind(verdict), verdict.fields) == ("RequestChanged", ("image",))


def test_another_try_submits_another_request(core):
    harness = Harness(core, Requested)
    harness.jobs.plan(BAD)
    harness.visit()
    harness.jobs.advance(10)
    harness.jobs.request = {"image": "etl:8"}
    _, verdict = harness.visit(try_number=2)
    assert names(verdict) == ["job-2"]
