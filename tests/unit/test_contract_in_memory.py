"""The service in memory keeps the promises of every service; with hooks missing, tests say so."""

import unittest

import pytest

from airflow_resilient.jobs import Phase
from airflow_resilient.testing import InMemoryJobs, RemoteJobsContract


class InMemory(RemoteJobsContract):
    @pytest.fixture(autouse=True)
    def _jobs(self):
        self.jobs = InMemoryJobs(
            tokens=self.tokens, seconds=None, lag=5.0, unknown_for=2.0, cancel_seconds=8.0
        )

    def service(self):
        return InMemoryJobs(**self.jobs.address())

    def now(self):
        return self.jobs.now()

    def let_time_pass(self, seconds):
        self.jobs.advance(seconds)

    def finish(self, job, succeeded=True):
        self.jobs.finish(job, Phase.SUCCEEDED if succeeded else Phase.FAILED)

    def lose_answer_of_next_submit(self):
        self.jobs.lose_answer("submit")

    def throttle_next_call(self):
        self.jobs.throttle()


class TestWithTokens(InMemory):
    tokens = True


class TestWithoutTokens(InMemory):
    tokens = False


class NoHooks(RemoteJobsContract):
    def service(self):
        return InMemoryJobs("no hooks", seconds=None)


@pytest.mark.parametrize("hook", ["finish", "lose_answer_of_next_submit", "throttle_next_call"])
def test_a_hook_that_is_missing_is_reported(hook):
    tests = {
        "finish": NoHooks().test_success_and_failure_are_told_apart,
        "lose_answer_of_next_submit": NoHooks().test_a_lost_answer_leads_to_one_job,
        "throttle_next_call": NoHooks().test_a_throttled_call_is_transient,
    }
    with pytest.raises(unittest.SkipTest, match=f"NoHooks does not support {hook}"):
        tests[hook]()


class Forgetful(InMemoryJobs):
    """Finds nothing."""

    def find(self, claims):
        return []


class Hasty(InMemoryJobs):
    """Makes unknown jobs up."""

    def observe(self, jobs):
        return list(jobs)


class Deaf(InMemoryJobs):
    """Does not cancel."""

    def cancel(self, job, reason):
        return job


class Nervous(InMemoryJobs):
    """Takes every error for one that passes."""

    def is_transient(self, error):
        return True


class Stolid(InMemoryJobs):
    """Takes no error for one that passes."""

    def is_transient(self, error):
        return False


class Doubling(InMemoryJobs):
    """Claims to take tokens, and does not."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings | {"tokens": False})


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (Forgetful, "test_a_live_job_is_found_by_its_claim"),
        (Forgetful, "test_an_ended_job_is_found_by_its_claim"),
        (Hasty, "test_unknown_jobs_are_left_out"),
        (Deaf, "test_cancel_stops_a_live_job"),
        (Nervous, "test_a_mistake_is_not_transient"),
        (Stolid, "test_a_throttled_call_is_transient"),
        (Doubling, "test_one_token_starts_one_job"),
    ],
)
def test_a_broken_promise_is_noticed(broken, test):
    contract = TestWithTokens()
    contract.jobs = broken(seconds=None)
    contract.service = lambda: contract.jobs
    with pytest.raises(AssertionError):
        getattr(contract, test)()
