"""The service in memory keeps the promises of every service; with hooks missing, tests say so."""

import unittest
from dataclasses import replace

import pytest

from airflow_resilient.core.job import Phase
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
        "finish": NoHooks().test_success_and_failure_are_distinguished,
        "lose_answer_of_next_submit": NoHooks().test_a_lost_answer_leads_to_one_job,
        "throttle_next_call": NoHooks().test_a_throttled_call_is_transient,
    }
    with pytest.raises(unittest.SkipTest, match=f"NoHooks does not support {hook}"):
        tests[hook]()


class FindsNothing(InMemoryJobs):
    """Finds nothing."""

    def find(self, claims):
        return []


class InventsJobs(InMemoryJobs):
    """Makes unknown jobs up."""

    def observe(self, jobs):
        return list(jobs)


class IgnoresCancel(InMemoryJobs):
    """Does not cancel."""

    def cancel(self, job, reason):
        return job


class BelievesIds(InMemoryJobs):
    """Stops and observes whatever has the id."""

    def trusting(self, job):
        return replace(job, claim=self.real(job).claim)

    def observe(self, jobs):
        known = [job for job in jobs if any(real.id == job.id for real in self.history)]
        seen = {job.id: job for job in super().observe([self.trusting(job) for job in known])}
        return [replace(seen[job.id], claim=job.claim) for job in known]

    def cancel(self, job, reason):
        return replace(super().cancel(self.trusting(job), reason), claim=job.claim)


class AllTransient(InMemoryJobs):
    """Takes every error for a transient one."""

    def is_transient(self, error):
        return True


class NoneTransient(InMemoryJobs):
    """Takes no error for a transient one."""

    def is_transient(self, error):
        return False


class IgnoresTokens(InMemoryJobs):
    """Claims to take tokens, and does not."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings | {"tokens": False})


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (FindsNothing, "test_a_live_job_is_found_by_its_claim"),
        (FindsNothing, "test_an_ended_job_is_found_by_its_claim"),
        (InventsJobs, "test_unknown_jobs_are_left_out"),
        (IgnoresCancel, "test_cancel_stops_a_live_job"),
        (BelievesIds, "test_a_job_of_another_claim_is_not_stopped"),
        (BelievesIds, "test_a_job_of_another_claim_is_not_observed"),
        (BelievesIds, "test_a_success_that_only_an_xcom_knows_is_no_result"),
        (AllTransient, "test_a_mistake_is_not_transient"),
        (NoneTransient, "test_a_throttled_call_is_transient"),
        (IgnoresTokens, "test_one_token_starts_one_job"),
    ],
)
def test_a_broken_promise_is_noticed(broken, test):
    contract = TestWithTokens()
    contract.jobs = broken(seconds=None)
    contract.service = lambda: contract.jobs
    with pytest.raises(AssertionError):
        getattr(contract, test)()
