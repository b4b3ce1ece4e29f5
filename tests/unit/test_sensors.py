"""The sensor's whole way through Airflow's classes, over a service in memory."""

from __future__ import annotations

import copy
import time
import uuid
from dataclasses import replace

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowSkipException

from airflow_resilient import (
    EmrStepSensor,
    Job,
    JobCancelled,
    JobFailed,
    JobUnreachable,
    Phase,
    RemoteJobSensor,
)
from airflow_resilient.compat import AirflowFailException
from airflow_resilient.core.job import NO_CLAIM, Claim
from airflow_resilient.core.reconcile import MAX_CRASHES, MEMORY_XCOM
from airflow_resilient.testing import InMemoryJobs, TaskTries
from airflow_resilient.testing.in_memory_jobs import AnswerLost, JobPlan, Throttled
from airflow_resilient.testing.task_tries import Deferred

CLAIM = Claim("b" * 16, 1)


class Sensor(RemoteJobSensor):
    def __init__(self, *, jobs, job, **kwargs):
        super().__init__(poke_interval=0.05, **kwargs)
        self.jobs, self.job = jobs, job

    def remote_jobs(self, context):
        return InMemoryJobs(self.jobs)

    def watched(self, context):
        return Job(self.job, NO_CLAIM, Phase.QUEUED, 0.0, "memory")


class StartSensor(Sensor):
    """Waits until the job runs."""

    def arrived(self, job):
        return job.phase is Phase.RUNNING or super().arrived(job)


@pytest.fixture(autouse=True)
def _polls_may_be_less_than_a_second_apart(monkeypatch):
    monkeypatch.setattr("airflow_resilient.settings.MIN_INTERVAL", 0.01)


@pytest.fixture
def jobs():
    return InMemoryJobs(f"memory-{uuid.uuid4()}", seconds=None, clock=time.time)


def sensor(jobs, job="job-1", kind=Sensor, **kwargs):
    return TaskTries(lambda: kind(task_id="wait", jobs=jobs.name, job=job, **kwargs))


# --- the first poll -------------------------------------------------------------------------------


def test_what_is_there_already_is_found_at_once(jobs):
    jobs.finish(jobs.submit(CLAIM))
    assert sensor(jobs).start() is None
    assert jobs.calls["observe"] == 1


def test_a_state_that_is_reached_already_is_found_at_once(jobs):
    jobs.submit(CLAIM)
    assert sensor(jobs, kind=StartSensor).start() is None


def test_what_is_not_there_yet_is_left_to_the_triggerer_after_one_poll(jobs):
    jobs.submit(CLAIM)
    deferred = sensor(jobs).start()
    assert isinstance(deferred, Deferred)
    assert jobs.calls["observe"] == 1
    assert [job["id"] for job in deferred.kwargs["jobs"]] == ["job-1"]
    assert deferred.kwargs["cancel_on_kill"] is False


def test_what_is_watched_is_worked_out_once_before_the_deferral(jobs):
    """It may cost calls: the EMR sensor asks for the cluster's logs there."""
    made = []

    class Counting(Sensor):
        def watched(self, context):
            made.append(self.job)
            return super().watched(context)

    jobs.submit(CLAIM)
    assert isinstance(sensor(jobs, kind=Counting).start(), Deferred)
    assert made == ["job-1"]


def test_a_job_that_the_service_does_not_know_yet_is_left_to_the_triggerer(jobs):
    assert isinstance(sensor(jobs).start(), Deferred)


@pytest.mark.parametrize(
    "error", [Throttled("slow down"), AnswerLost("closed"), ConnectionError(), TimeoutError()]
)
def test_no_answer_at_the_first_poll_is_left_to_the_triggerer(jobs, error):
    job = jobs.submit(CLAIM)
    jobs.fail_next(error, "observe")
    tries = sensor(jobs)
    deferred = tries.start()
    assert isinstance(deferred, Deferred)
    jobs.finish(job)
    assert tries.finish(deferred) is None


def test_what_can_never_come_fails_at_once(jobs):
    jobs.finish(jobs.submit(CLAIM), Phase.FAILED, reason="exit code 3")
    with pytest.raises(JobFailed, match="exit code 3") as failure:
        sensor(jobs).start()
    assert failure.value.job.id == "job-1"
    assert jobs.calls["observe"] == 1


def test_a_job_that_a_person_has_stopped_fails_at_once_and_is_not_retried(jobs):
    jobs.finish(jobs.submit(CLAIM), Phase.CANCELLED)
    with pytest.raises(JobCancelled) as failure:
        sensor(jobs, retries=3).start()
    assert isinstance(failure.value, AirflowFailException)


def test_a_service_that_refuses_the_first_poll_fails_at_once_and_is_not_asked_again_by_a_retry(jobs):
    jobs.submit(CLAIM)
    jobs.fail_next(PermissionError("AccessDenied"), "observe")
    with pytest.raises(JobUnreachable, match=r"job-1: .*refuses.*: PermissionError: AccessDenied") as failure:
        sensor(jobs, retries=3).start()
    assert isinstance(failure.value, AirflowFailException), "Airflow does not retry"
    assert failure.value.job.id == "job-1"
    assert jobs.calls["observe"] == 1
    assert len(jobs.live()) == 1


@pytest.mark.parametrize("how", ["soft_fail", "never_fail"])
@pytest.mark.parametrize(
    ("fail", "words"),
    [
        pytest.param(
            lambda jobs: jobs.finish(jobs.history[0], Phase.FAILED, reason="exit code 3"),
            "exit code 3",
            id="failed",
        ),
        pytest.param(
            lambda jobs: jobs.finish(jobs.history[0], Phase.CANCELLED), "stopped on purpose", id="cancelled"
        ),
        pytest.param(
            lambda jobs: jobs.fail_next(PermissionError("AccessDenied"), "observe"),
            "AccessDenied",
            id="refused",
        ),
    ],
)
def test_a_sensor_that_is_to_be_skipped_rather_than_to_fail_is_skipped_at_the_first_poll(
    jobs, fail, words, how
):
    jobs.submit(CLAIM)
    fail(jobs)
    with pytest.raises(AirflowSkipException, match=words):
        sensor(jobs, **{how: True}).start()


# --- afterwards -----------------------------------------------------------------------------------


def test_a_sensor_waits_for_a_job_of_somebody_else(jobs):
    jobs.plan(seconds=0.05)
    jobs.submit(CLAIM)
    assert sensor(jobs).run() is None


def test_a_sensor_fails_when_the_job_fails_and_never_cancels(jobs):
    jobs.plan(JobPlan(None))
    job = jobs.submit(CLAIM)
    tries = sensor(jobs)
    deferred = tries.start()
    jobs.finish(job, Phase.FAILED, reason="exit code 3")
    with pytest.raises(JobFailed, match="exit code 3"):
        tries.finish(deferred)
    assert jobs.calls["cancel"] == 0


def test_a_service_that_refuses_to_be_asked_later_fails_the_sensor(jobs):
    jobs.submit(CLAIM)
    tries = sensor(jobs)
    deferred = tries.start()
    seen = {"memory": deferred.kwargs["memory"], "jobs": deferred.kwargs["jobs"], "time": False, "log": []}
    with pytest.raises(JobUnreachable, match=r"job-1: .*refuses.*: PermissionError: denied"):
        tries.resume(deferred, {**seen, "refused": "PermissionError: denied"})


def test_a_trigger_that_timed_out_or_crashed_fails_no_sensor(jobs):
    job = jobs.submit(CLAIM)
    tries = sensor(jobs)
    tries.start()
    again = tries.resume_failed()
    assert isinstance(again, Deferred)
    jobs.finish(job)
    assert tries.finish(again) is None


def test_a_triggerer_that_comes_back_after_the_deadline_polls_before_it_reports_it(jobs):
    job = jobs.submit(CLAIM)
    tries = sensor(jobs, timeout=0)
    deferred = tries.start()
    jobs.finish(job)
    assert deferred.kwargs["deadline"] <= time.time()
    assert tries.finish(deferred) is None


def test_a_sensor_times_out_as_airflow_s_sensors_do(jobs):
    jobs.submit(CLAIM)
    with pytest.raises(AirflowSensorTimeout, match="the timeout is 0"):
        sensor(jobs, timeout=0.2).run()
    with pytest.raises(AirflowSkipException):
        sensor(jobs, timeout=0.2, soft_fail=True).run()
    assert len(jobs.live()) == 1


# --- triggers that crash --------------------------------------------------------------------------


def test_a_sensor_whose_triggers_crash_again_and_again_fails_and_says_what_to_check(jobs):
    jobs.submit(CLAIM)
    tries = sensor(jobs)
    tries.start()
    for _ in range(MAX_CRASHES):
        assert isinstance(tries.resume_failed("no module"), Deferred)
    with pytest.raises(
        JobUnreachable, match=r"6 times in a row .*: no module\. Make sure that the triggerer"
    ):
        tries.resume_failed("no module")
    assert len(jobs.live()) == 1


@pytest.mark.parametrize("how", ["soft_fail", "never_fail"])
def test_a_sensor_whose_triggers_crash_is_skipped_where_it_is_not_to_fail(jobs, how):
    jobs.submit(CLAIM)
    tries = sensor(jobs, **{how: True})
    tries.start()
    tries.xcoms[MEMORY_XCOM] = {"crashes": MAX_CRASHES}
    with pytest.raises(AirflowSkipException, match="6 times in a row"):
        tries.resume_failed()


def test_only_crashes_in_a_row_count(jobs):
    jobs.plan(queued=1000.0)
    jobs.submit(CLAIM)
    tries = sensor(jobs)
    deferred = tries.start()
    for _ in range(3):
        for _ in range(MAX_CRASHES):
            deferred = tries.resume_failed()
        event = {"memory": deferred.kwargs["memory"], "jobs": deferred.kwargs["jobs"], "time": False}
        deferred = tries.resume(deferred, {**event, "refused": None, "log": []})
        assert isinstance(deferred, Deferred), "a trigger that works"


@pytest.mark.parametrize(
    "odd", [None, 5, "x", [], {}, {"crashes": "5"}, {"crashes": -1}, {"seen": 5}], ids=repr
)
def test_an_odd_xcom_changes_nothing_for_a_sensor(jobs, odd):
    jobs.submit(CLAIM)
    tries = sensor(jobs)
    tries.start()
    tries.xcoms[MEMORY_XCOM] = odd
    assert isinstance(tries.resume_failed(), Deferred)
    assert tries.xcoms[MEMORY_XCOM]["crashes"] == 1


def test_a_service_that_does_not_answer_any_more_fails_the_sensor(jobs):
    jobs.submit(CLAIM)
    jobs.fail_next(TimeoutError("no answer"), "observe", times=5000)
    tries = sensor(jobs)
    deferred = tries.start()
    limited = {**deferred.kwargs["poll_policy"], "unanswered_timeout": 0.2, "first_interval": 0.05}
    deferred = replace(deferred, kwargs={**deferred.kwargs, "poll_policy": limited})
    with pytest.raises(JobUnreachable, match=r"the service does not answer: Unanswered: no answer for 0 min"):
        tries.finish(deferred)
    assert len(jobs.live()) == 1


def test_what_no_wait_heals_fails_a_sensor_at_once_with_advice(jobs):
    class Untrusted(InMemoryJobs):
        def lasting(self, error, attempts):
            return "Set verify"

    class Mine(Sensor):
        def remote_jobs(self, context):
            return Untrusted(self.jobs)

    jobs.submit(CLAIM)
    jobs.fail_next(ConnectionError("untrusted"), "observe")
    with pytest.raises(JobUnreachable, match=r"ConnectionError: untrusted\. Set verify") as failure:
        sensor(jobs, kind=Mine).start()
    assert isinstance(failure.value, AirflowFailException)


# --- what a poll may cost, and copies -------------------------------------------------------------


@pytest.mark.parametrize("interval", [0, 0.001])
def test_a_sensor_without_a_pause_polls_once_a_second_at_most(monkeypatch, interval):
    monkeypatch.undo()
    waits = EmrStepSensor(task_id="wait", job_flow_id="j-1", step_id="s-1", poke_interval=interval)
    assert waits._poll_policy().interval == 1.0


def test_a_sensor_that_has_run_can_be_copied(jobs):
    """As Airflow copies tasks to clear or to test a part of a DAG."""
    jobs.finish(jobs.submit(CLAIM))
    made = []

    def build():
        made.append(Sensor(task_id="wait", jobs=jobs.name, job="job-1"))
        return made[-1]

    assert TaskTries(build).start() is None
    copied = copy.deepcopy(made[-1])
    assert (copied.task_id, copied.job) == ("wait", "job-1")
