"""The contract of every `RemoteService`, as a test class."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn
from unittest import SkipTest

from airflow_resilient.core.decide import Finish, Policy, Watch
from airflow_resilient.core.job import CLOCK_SKEW, NO_CLAIM, Claim, Job, Owner, Phase, call_key, task_key
from airflow_resilient.core.reconcile import Memory, reconcile
from airflow_resilient.core.retry import Runtime

if TYPE_CHECKING:
    from airflow_resilient.core.service import RemoteService

__all__ = ["RemoteJobsContract"]


class RemoteJobsContract:
    """Subclass it for a service of your own; pytest then tests whether a crash-safe operator can use it.

    ::

        class TestGlueRuns(RemoteJobsContract):
            tokens = False

            def service(self):
                return GlueRuns(job_name="compact")

            def let_time_pass(self, seconds):
                self.clock.advance(seconds)

            def finish(self, job, succeeded=True):
                self.fake_glue.end(job.id, "SUCCEEDED" if succeeded else "FAILED")

    A hook that is not overridden calls `not_applicable`, and the tests that need it are reported as skipped,
    with the name of the hook: nothing passes silently.

    Jobs must run until a test ends them, and all services that one test makes must see the same jobs.
    """

    tokens: bool = True
    """Whether `submit` with a repeated token returns the job that the token has started."""

    # --- hooks for subclasses ---

    def service(self) -> RemoteService:
        """Create the service, with a request that it accepts."""
        raise NotImplementedError(f"{type(self).__name__} must override service()")

    def now(self) -> float:
        """The time by the service's clock, in seconds since 1970."""
        return time.time()

    def let_time_pass(self, seconds: float) -> None:
        """Advance the service's clock by `seconds`."""
        self.not_applicable("let_time_pass")

    def finish(self, job: Job, succeeded: bool = True) -> None:
        """Let `job` end by itself."""
        self.not_applicable("finish")

    def lose_answer_of_next_submit(self) -> None:
        """Carry out the next submission and lose its answer."""
        self.not_applicable("lose_answer_of_next_submit")

    def throttle_next_call(self) -> None:
        """Throttle the next call to the service, whichever it is."""
        self.not_applicable("throttle_next_call")

    def unknown(self, job: Job) -> Job:
        """A job like `job` that the service does not know; by default its id ends with another character."""
        return replace(job, id=job.id[:-1] + ("0" if job.id[-1] != "0" else "1"))

    def not_applicable(self, hook: str) -> NoReturn:
        """Skip a test, because the service or its fake does not support `hook`."""
        raise SkipTest(f"not applicable: {type(self).__name__} does not support {hook}()")

    # --- names ---

    def test_no_archive_says_that_a_live_job_has_ended(self) -> None:
        """What `find_forgotten` and `recover` return is believed, so they tell only of forgotten jobs."""
        service, claim = self.service(), self._claim()
        job = self._submitted(service, claim)
        assert service.find_forgotten([claim], 0.0) == []
        assert service.recover([job]) == []

    def test_nothing_is_found_under_an_unused_name(self) -> None:
        """A claim of another task instance, in another run or another deployment, finds nothing of ours."""
        self._submitted(self.service(), self._claim())
        assert self.service().find([self._claim()]) == []

    def test_a_live_job_is_found_by_its_claim(self) -> None:
        """A later try, in another process, finds what an earlier one has left running."""
        claim = self._claim()
        job = self._submitted(self.service(), claim)
        found = self._only(self.service().find([claim]))
        assert (found.id, found.claim) == (job.id, claim)
        assert found.live

    def test_an_ended_job_is_found_by_its_claim(self) -> None:
        """A result that was not observed is not lost, and the work is not repeated."""
        claim = self._claim()
        job = self._submitted(self.service(), claim)
        self._ended(job)
        found = self._only(self.service().find([claim]))
        assert (found.id, found.phase) == (job.id, Phase.SUCCEEDED)

    def test_a_number_is_not_the_beginning_of_another_one(self) -> None:
        """Claim 1 is not found under claim 11, nor the other way round."""
        first = self._claim()
        eleventh = replace(first, number=11)
        job = self._submitted(self.service(), first)
        assert self.service().find([eleventh]) == []
        self._ended(job)
        other = self._submitted(self.service(), eleventh)
        assert [found.id for found in self.service().find([first])] == [job.id]
        assert {found.id for found in self.service().find([first, eleventh])} == {job.id, other.id}

    def test_a_call_within_a_task_instance_has_jobs_of_its_own(self) -> None:
        """The claim of an operator that is called inside of a task is taken, read back, and no other."""
        own = self._claim()
        call = replace(own, task_key=call_key(own.task_key, "load", 1))
        job = self._submitted(self.service(), own)
        self._ended(job)
        other = self._submitted(self.service(), call)
        assert [found.id for found in self.service().find([own])] == [job.id]
        found = self._only(self.service().find([call]))
        assert (found.id, found.claim) == (other.id, call)

    # --- submitting ---

    def test_one_token_starts_one_job(self) -> None:
        """Two workers that submit the same claim start one job; without tokens, the second one finds it."""
        claim = self._claim()
        job = self._submitted(self.service(), claim)
        if self.tokens:
            assert self.service().submit(claim).id == job.id
        else:
            assert [found.id for found in self.service().find([claim])] == [job.id]

    def test_a_resubmission_starts_another_job_of_the_same_name(self) -> None:
        """After an infrastructure failure the same number is submitted with another token."""
        claim = self._claim()
        first = self._submitted(self.service(), claim)
        self._ended(first, succeeded=False)
        second = self._submitted(self.service(), replace(claim, resubmission=1))
        assert second.id != first.id
        assert {found.id for found in self.service().find([claim])} == {first.id, second.id}

    def test_a_lost_answer_leads_to_one_job(self) -> None:
        """The job behind a submission whose answer was lost is found instead of started again."""
        claim = self._claim()
        self.lose_answer_of_next_submit()
        _, verdict = self._visit(claim.task_key)
        assert isinstance(verdict, Watch), verdict
        self._wait_for_listing(self.service())
        assert [found.id for found in self.service().find([claim])] == [verdict.jobs[0].id]

    # --- observing ---

    def test_each_of_several_jobs_is_observed(self) -> None:
        """One call returns every job of a batch, whatever its phase."""
        service = self.service()
        jobs = [self._submitted(service, self._claim()) for _ in range(3)]
        self._ended(jobs[1])
        observed = {each.id: each for each in service.observe(jobs)}
        assert set(observed) == {job.id for job in jobs}
        assert [observed[job.id].live for job in jobs] == [True, False, True]

    def test_unknown_jobs_are_left_out(self) -> None:
        """A job that the service does not know is not an error, and neither success nor failure."""
        job = self._submitted(self.service(), self._claim())
        observed = self.service().observe([self.unknown(job), job])
        assert [each.id for each in observed] == [job.id]
        assert self.service().observe([self.unknown(job)]) == []

    def test_an_observation_keeps_what_identifies_a_job(self) -> None:
        """Id, claim, scope and (about) the time of creation are the same from submit, find and observe."""
        claim = self._claim()
        job = self._submitted(self.service(), claim)
        found = self._only(self.service().find([claim]))
        seen = self._only(self.service().observe([job]))
        for each in (found, seen):
            assert (each.id, each.claim, each.scope) == (job.id, claim, job.scope)
            assert abs(each.created - job.created) <= CLOCK_SKEW / 2, f"{each.created} is not {job.created}"
        assert abs(job.created - self.now()) <= CLOCK_SKEW + self.service().listing_lag

    def test_success_and_failure_are_distinguished(self) -> None:
        """A job that ended well is SUCCEEDED, one that did not is FAILED."""
        service = self.service()
        good, bad = (self._submitted(service, self._claim()) for _ in range(2))
        assert self._ended(good).phase is Phase.SUCCEEDED
        assert self._ended(bad, succeeded=False).phase is Phase.FAILED

    # --- cancelling ---

    def test_cancel_stops_a_live_job(self) -> None:
        """A cancelled job ends, and not as a success."""
        job = self._submitted(self.service(), self._claim())
        observed = self.service().cancel(job, "the contract asks for it")
        assert observed.id == job.id
        assert self._end_of(job).phase is Phase.CANCELLED

    def test_cancelling_a_job_that_has_ended_is_no_error(self) -> None:
        """A job may end while it is being cancelled; that does not change its outcome."""
        job = self._submitted(self.service(), self._claim())
        self._ended(job)
        assert not self.service().cancel(job, "the contract asks for it").live
        assert self._end_of(job).phase is Phase.SUCCEEDED

    def test_a_job_of_another_claim_is_not_stopped(self) -> None:
        """An id that comes from an XCom proves nothing: `cancel` looks whether the job bears the claim."""
        job = self._submitted(self.service(), self._claim())
        for claim in (self._claim(), replace(job.claim, number=11), NO_CLAIM):
            answer = self.service().cancel(replace(job, claim=claim), "the contract asks for it")
            assert answer.phase is Phase.LOST, f"{answer} is not a job of {claim}, so no such job is known"
        self._wait_for_listing(self.service())
        assert self._only(self.service().observe([job])).phase in (Phase.QUEUED, Phase.RUNNING)

    def test_a_job_of_another_claim_is_not_observed(self) -> None:
        """The end of somebody else's job is not taken for the end of ours, whatever an XCom says."""
        job = self._submitted(self.service(), self._claim())
        other = replace(job, claim=self._claim())
        assert self.service().observe([other]) == []
        self._ended(job)
        assert self.service().observe([other]) == []

    def test_a_success_that_only_an_xcom_knows_is_no_result(self) -> None:
        """What a try recalls from its XCom counts only for what the service says about it."""
        job = self._submitted(self.service(), self._claim())
        self._ended(job)
        name = self._claim().task_key
        named = replace(self.unknown(job), claim=Claim(name, 1), phase=Phase.SUCCEEDED, facts={})
        for each in (named, replace(named, id=job.id)):
            memory = Memory(self.now(), (each,), frozenset({each.id}), unproved=True)
            _, verdict = self._visit(name, memory=memory)
            assert isinstance(verdict, Finish), verdict
            assert verdict.job.phase is Phase.LOST

    def test_a_job_from_before_a_clear_is_stopped_before_its_successor_starts(self) -> None:
        """After a clear the old job is cancelled, its end awaited, and then a new one started."""
        name = self._claim().task_key
        _, before = self._visit(name)
        assert isinstance(before, Watch)
        old = self._only(before.jobs)
        self._wait_for_listing(self.service())
        memory, verdict = self._visit(name, try_number=2, cleared_after_try=1)
        for _ in range(5):
            assert isinstance(verdict, Watch), verdict
            if verdict.jobs[0].id != old.id:
                break
            memory = memory.update([self._end_of(old)])
            memory, verdict = self._visit(name, try_number=2, cleared_after_try=1, memory=memory)
        assert isinstance(verdict, Watch)
        assert [job.claim.number for job in verdict.jobs] == [2]
        assert self._end_of(old).phase is Phase.CANCELLED

    # --- transient errors and addresses ---

    def test_a_throttled_call_is_transient(self) -> None:
        """A transient error of any call is recognised."""
        service = self.service()
        job = self._submitted(service, self._claim())
        calls = (
            lambda: service.find([job.claim]),
            lambda: service.observe([job]),
            lambda: service.cancel(job, "the contract asks for it"),
            lambda: service.submit(self._claim()),
        )
        for call in calls:
            self.throttle_next_call()
            error = self._error_of(call)
            assert error is not None, "the call was not throttled, or the service has swallowed the error"
            assert service.is_transient(error), f"{error!r} is not called transient"

    def test_a_mistake_is_not_transient(self) -> None:
        """A programming error is raised at once, not retried forever."""
        assert not self.service().is_transient(ValueError("a mistake"))

    def test_the_address_leads_to_the_same_jobs(self) -> None:
        """A service created from the address, serialized as JSON, can observe and cancel a job."""
        service = self.service()
        job = self._submitted(service, self._claim())
        address = json.loads(json.dumps(service.address()))
        elsewhere: RemoteService = type(service)(**address)
        seen = self._only(elsewhere.observe([job]))
        assert (seen.id, seen.claim, seen.live) == (job.id, job.claim, True)
        elsewhere.cancel(job, "the contract asks for it")
        assert self._end_of(job).phase is Phase.CANCELLED

    def test_observations_survive_serialization(self) -> None:
        """An observation is serialized for the trigger and the database, and restored unchanged."""
        claim = self._claim()
        job = self._submitted(self.service(), claim)
        observed = [job, *self.service().find([claim]), *self.service().observe([job]), self._ended(job)]
        for each in observed:
            assert Job.from_dict(json.loads(json.dumps(each.to_dict()))) == each

    def test_a_whole_life_is_reported(self) -> None:
        """Submitted, watched to its end, reported, and adopted by a try that comes later."""
        name = self._claim().task_key
        memory, verdict = self._visit(name)
        assert isinstance(verdict, Watch)
        end = self._ended(verdict.jobs[0])
        _, verdict = self._visit(name, memory=memory.update([end]))
        assert isinstance(verdict, Finish)
        _, later = self._visit(name, try_number=2)
        assert isinstance(later, Finish)
        assert later.job.id == verdict.job.id

    # --- helpers ---

    def _error_of(self, call: Callable[[], object]) -> Exception | None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - it is reported
            return error
        return None

    def _claim(self) -> Claim:
        """Claim 1 of a task instance that no other test knows."""
        return Claim(task_key("contract", uuid.uuid4().hex, "run", "task", -1), 1)

    def _only(self, jobs: Sequence[Job]) -> Job:
        assert len(jobs) == 1, f"one job was expected: {jobs}"
        return jobs[0]

    def _submitted(self, service: RemoteService, claim: Claim) -> Job:
        job = service.submit(claim)
        assert job.live
        assert job.claim == claim
        self._wait_for_listing(service)
        return job

    def _wait_for_listing(self, service: RemoteService) -> None:
        if service.listing_lag > 0:
            self.let_time_pass(service.listing_lag)

    def _ended(self, job: Job, *, succeeded: bool = True) -> Job:
        """The end of `job`, which ends by itself."""
        self.finish(job, succeeded)
        return self._end_of(job)

    def _end_of(self, job: Job) -> Job:
        """The end of `job`, after advancing the clock if necessary."""
        service = self.service()
        for _ in range(60):
            for observed in service.observe([job]):
                if not observed.live:
                    return observed
            self.let_time_pass(5.0)
        raise AssertionError(f"{job.id} does not end")

    def _visit(
        self, name: str, try_number: int = 1, cleared_after_try: int = 0, memory: Memory | None = None
    ) -> tuple[Memory, object]:
        """Reconcile as a worker does for a task instance."""
        runtime = Runtime(self.now, self.let_time_pass, lambda: 0.5)
        owner = Owner(name, try_number, cleared_after_try)
        first = Memory(self.now())
        return reconcile(
            self.service(), owner, memory or first, Policy(), runtime, first_visit=memory is None
        )
