"""The operator's and the sensor's whole way through Airflow's classes, over a service in memory."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_resilient import (
    InvalidParameter,
    Job,
    JobCancelled,
    JobFailed,
    JobTimeout,
    NoCapacity,
    Patience,
    Phase,
    RemoteJobOperator,
    RemoteJobSensor,
    Unobservable,
    compat,
)
from airflow_resilient.jobs import Cause, Claim
from airflow_resilient.testing import InMemoryJobs, TaskTries
from airflow_resilient.testing.memory import Crash, JobPlan
from airflow_resilient.testing.tries import Deferred

QUICK = Patience(poll=0.05, first=0.01, longest=0.1, missing=3, missing_for=0.0, refused=3)


class Operator(RemoteJobOperator):
    def __init__(self, *, jobs, wait=True, **kwargs):
        super().__init__(patience=QUICK, **kwargs)
        self.jobs = jobs
        self.wait_for_completion = wait
        self.told = []

    def remote_jobs(self, context):
        return InMemoryJobs(self.jobs)

    def _policy(self):
        return replace(super()._policy(), first_backoff=0.05, first_pause=0.01, longest_backoff=0.1)

    def submitted(self, context, job):
        context["ti"].xcom_push(key="told", value=job.id)


class Sensor(RemoteJobSensor):
    def __init__(self, *, jobs, job, **kwargs):
        super().__init__(poke_interval=0.05, **kwargs)
        self.jobs, self.job = jobs, job

    def remote_jobs(self, context):
        return InMemoryJobs(self.jobs)

    def watched(self, context):
        return Job(self.job, Claim("a" * 16, 1), Phase.QUEUED, 0.0, "memory")


@pytest.fixture
def jobs():
    return InMemoryJobs(f"memory-{uuid.uuid4()}", seconds=0.05, clock=time.time)


def operator(jobs, **kwargs):
    return lambda: Operator(task_id="sort", jobs=jobs.name, **kwargs)


def test_a_job_is_submitted_once_watched_without_a_slot_and_its_id_returned(jobs):
    tries = TaskTries(operator(jobs))
    deferred = tries.start()
    assert isinstance(deferred, Deferred)
    assert tries.xcoms["told"] == "job-1"
    assert tries.finish(deferred) == "job-1"
    assert jobs.calls["submit"] == 1
    assert jobs.calls["find"] == 0, "a first try has nothing to look for"


def test_a_crash_right_after_the_service_accepted_the_job_costs_no_second_job(jobs):
    tries = TaskTries(operator(jobs, retries=1))
    jobs.crash("submit", "after")
    with pytest.raises(Crash):
        tries.start()
    assert tries.run() == "job-1"
    assert len(jobs.history) == 1


def test_a_job_that_ended_while_nobody_looked_is_adopted(jobs):
    tries = TaskTries(operator(jobs, retries=1))
    tries.start()
    jobs.advance(60)
    assert tries.run() == "job-1", "the second try starts without an event, as after a lost worker"
    assert len(jobs.history) == 1


def test_a_try_that_airflow_begins_again_makes_no_second_job(jobs):
    tries = TaskTries(operator(jobs))
    tries.start()
    jobs.advance(60)
    assert tries.finish(tries.begin_again()) == "job-1", "as when no worker could load the DAG at the resume"
    assert len(jobs.history) == 1


def test_a_try_that_airflow_begins_again_reports_how_its_job_failed(jobs):
    jobs.plan(JobPlan(0.01, phase=Phase.FAILED, reason="exit code 1"))
    tries = TaskTries(operator(jobs))
    tries.start()
    jobs.advance(60)
    with pytest.raises(JobFailed, match="exit code 1"):
        tries.begin_again()
    assert len(jobs.history) == 1


def test_a_failed_job_is_reported_once_and_the_retry_starts_the_next_one(jobs):
    jobs.plan(JobPlan(0.01, phase=Phase.FAILED, reason="exit code 1"))
    tries = TaskTries(operator(jobs, retries=1))
    with pytest.raises(JobFailed, match="exit code 1") as failure:
        tries.run()
    assert failure.value.job.id == "job-1"
    assert tries.run() == "job-2"


def test_a_job_that_a_person_stopped_is_not_retried(jobs):
    from airflow_resilient.compat import AirflowFailException

    jobs.plan(JobPlan(0.01, phase=Phase.CANCELLED))
    with pytest.raises(JobCancelled) as failure:
        TaskTries(operator(jobs, retries=3)).run()
    assert isinstance(failure.value, AirflowFailException)


def test_a_failure_of_the_infrastructure_is_submitted_again_within_the_try(jobs):
    jobs.plan(JobPlan(0.01, phase=Phase.FAILED, cause=Cause.INFRASTRUCTURE, reason="Spot"))
    tries = TaskTries(operator(jobs))
    assert tries.run() == "job-2"
    assert tries.try_number == 1
    assert [real.claim.token[-4:] for real in jobs.history] == [jobs.history[0].claim.token[-4:], "-1-1"]


def test_infrastructure_retries_are_bounded(jobs):
    jobs.plan(*[JobPlan(0.01, phase=Phase.FAILED, cause=Cause.INFRASTRUCTURE)] * 5)
    with pytest.raises(JobFailed):
        TaskTries(operator(jobs, infrastructure_retries=1)).run()
    assert len(jobs.history) == 2


def test_no_capacity_is_asked_again_and_then_said(jobs):
    jobs.refuse(3)
    with pytest.raises(NoCapacity):
        TaskTries(operator(jobs)).run()
    assert jobs.history == []
    jobs.refuse(2)
    assert TaskTries(operator(jobs)).run() == "job-1"


def test_clear_cancels_the_job_that_still_runs_waits_for_its_end_and_starts_a_new_one(jobs):
    jobs.plan(seconds=None)
    tries = TaskTries(operator(jobs))
    tries.start()
    tries.clear()
    assert tries.run() == "job-2"
    assert jobs.overlaps() == []
    assert jobs.history[0].stop_reason == "superseded by a newer try of the same task instance"


def test_clear_of_a_success_runs_it_again(jobs):
    tries = TaskTries(operator(jobs))
    assert tries.run() == "job-1"
    tries.clear()
    assert tries.run() == "job-2"


def test_clear_takes_the_job_over_where_the_user_wants_that(jobs):
    jobs.plan(seconds=None)
    tries = TaskTries(operator(jobs, on_clear="reattach"))
    tries.start()
    tries.clear()
    deferred = tries.start()
    jobs.finish(jobs.history[0])
    assert tries.finish(deferred) == "job-1"


def test_at_the_deadline_the_job_is_cancelled_its_end_awaited_and_the_error_says_so(jobs):
    jobs.plan(seconds=None)
    tries = TaskTries(operator(jobs, execution_timeout=timedelta(seconds=0.3)))
    with pytest.raises(JobTimeout, match=r"execution_timeout of 0:00:00\.3") as timeout:
        tries.run()
    assert timeout.value.job.phase is Phase.CANCELLED
    assert jobs.live() == []


def test_airflow_s_own_limit_comes_after_ours_where_it_would_keep_us_from_cancelling(jobs):
    task = operator(jobs, execution_timeout=timedelta(seconds=20))()
    tries = TaskTries(lambda: task)
    deferred = tries.start()
    assert deferred.kwargs["deadline"] == pytest.approx(tries.started.timestamp() + 20)
    moved = timedelta(seconds=380) if compat.enforces_timeout_over_deferrals() else timedelta(seconds=20)
    assert task.execution_timeout == moved


def test_at_the_deadline_the_job_is_left_running_where_the_user_wants_that(jobs):
    jobs.plan(seconds=None)
    tries = TaskTries(operator(jobs, execution_timeout=timedelta(seconds=0.3), on_timeout="leave"))
    with pytest.raises(JobTimeout, match="left running"):
        tries.run()
    assert [real.id for real in jobs.live()] == ["job-1"]


def test_a_success_at_the_last_moment_beats_the_deadline(jobs):
    jobs.plan(seconds=None)
    tries = TaskTries(operator(jobs, execution_timeout=timedelta(seconds=0.2)))
    deferred = tries.start()
    payload = tries.watch(deferred)
    assert payload["time"]
    jobs.finish(jobs.history[0])
    assert tries.finish(tries.resume(deferred, payload)) == "job-1"


@pytest.mark.parametrize("error", ["Trigger timeout", "Trigger/TI failure: boom"])
def test_a_trigger_that_timed_out_or_crashed_spends_no_retry_and_makes_no_second_job(jobs, error):
    tries = TaskTries(operator(jobs))
    tries.start()
    again = tries.resume_failed(error)
    assert isinstance(again, Deferred)
    assert tries.finish(again) == "job-1"
    assert (tries.try_number, len(jobs.history)) == (1, 1)


def test_a_trigger_that_crashes_for_ever_fails_the_try_in_the_end_and_leaves_the_job(jobs):
    jobs.plan(seconds=None)
    tries = TaskTries(operator(jobs, retries=1))
    tries.start()
    for _ in range(5):
        assert isinstance(tries.resume_failed("Trigger failure"), Deferred)
    with pytest.raises(Unobservable, match=r"6 times in a row.*job-1 may still run.*installed"):
        tries.resume_failed("Trigger failure")
    assert len(jobs.live()) == 1
    assert tries.start().kwargs["jobs"][0]["id"] == "job-1", "the next try takes it over"


def test_a_trigger_that_crashes_now_and_then_is_forgiven(jobs):
    jobs.plan(seconds=None)
    tries = TaskTries(operator(jobs, execution_timeout=timedelta(seconds=30)))
    deferred = tries.start()
    for _ in range(5):
        deferred = tries.resume_failed("Trigger failure")
    seen = {"memory": deferred.kwargs["memory"], "jobs": deferred.kwargs["jobs"]}
    deferred = tries.resume(deferred, {**seen, "time": False, "refused": None, "log": []})
    assert deferred.kwargs["memory"]["crashes"] == 0


def test_the_failure_of_a_job_watched_by_a_crashed_trigger_is_news_and_is_reported(jobs):
    jobs.plan(JobPlan(0.01, phase=Phase.FAILED))
    tries = TaskTries(operator(jobs, retries=1))
    tries.start()
    with pytest.raises(JobFailed):
        tries.finish(tries.resume_failed())
    assert len(jobs.history) == 1


def test_throttling_never_fails_the_task(jobs):
    jobs.plan(seconds=0.3)
    jobs.throttle(6, "observe")
    assert TaskTries(operator(jobs)).run() == "job-1"


def test_a_throttled_submission_gives_the_slot_back_instead_of_a_retry(jobs):
    jobs.throttle(4, "submit")
    tries = TaskTries(operator(jobs))
    deferred = tries.start()
    assert deferred.kwargs["jobs"] == [], "it waits for a time, not for a job"
    assert tries.finish(deferred) == "job-1"
    assert len(jobs.history) == 1


def test_a_lost_answer_makes_no_second_job(jobs):
    jobs.lose_answer("submit")
    assert TaskTries(operator(jobs)).run() == "job-1"
    assert len(jobs.history) == 1


def test_a_service_that_refuses_to_be_asked_fails_the_task_and_leaves_the_job(jobs):
    jobs.plan(seconds=None)
    jobs.fail_next(PermissionError("AccessDenied"), "observe", times=3)
    tries = TaskTries(operator(jobs, retries=1))
    with pytest.raises(Unobservable, match="AccessDenied"):
        tries.run()
    assert len(jobs.live()) == 1
    deferred = tries.start()
    jobs.finish(jobs.history[0])
    assert tries.finish(deferred) == "job-1", "the next try takes it over"


def test_nobody_waits_for_a_job_when_wait_for_completion_is_off(jobs):
    jobs.plan(seconds=None)
    assert TaskTries(operator(jobs, wait=False)).start() == "job-1"


def test_mapped_task_instances_have_jobs_of_their_own(jobs):
    for map_index in (0, 1):
        TaskTries(operator(jobs), map_index=map_index).run()
    assert len({real.claim.family for real in jobs.history}) == 2


def test_two_deployments_with_namespaces_of_their_own_never_touch_each_others_jobs(jobs, monkeypatch):
    jobs.plan(*[JobPlan(None)] * 2)
    for namespace in ("staging", "production"):
        monkeypatch.setenv("AIRFLOW__AIRFLOW_RESILIENT__NAMESPACE", namespace)
        tries = TaskTries(operator(jobs, retries=1))
        tries.start()
        tries.start()
    assert len(jobs.live()) == 2
    monkeypatch.setenv("AIRFLOW__AIRFLOW_RESILIENT__NAMESPACE", "production")
    deferred = TaskTries(operator(jobs, retries=1), try_number=1).start()
    assert deferred.kwargs["jobs"][0]["id"] == "job-2", "the same namespace shares one job"


def test_what_the_trigger_stores_is_json_and_small(jobs):
    deferred = TaskTries(operator(jobs)).start()
    assert len(json.dumps(deferred.kwargs)) < 2000


@pytest.mark.parametrize("limit", [None, timedelta(hours=1)], ids=["without-deadline", "before-the-deadline"])
def test_a_stopping_worker_leaves_the_job_to_the_next_try(jobs, limit):
    jobs.plan(seconds=None)
    made = []

    def make():
        made.append(operator(jobs, retries=1, execution_timeout=limit)())
        return made[-1]

    tries = TaskTries(make)
    tries.start()
    made[-1].on_kill()
    assert len(jobs.live()) == 1


def test_a_worker_that_is_stopped_because_of_the_deadline_cancels_the_job(jobs):
    jobs.plan(seconds=None)
    made = []

    def make():
        made.append(operator(jobs, execution_timeout=timedelta(hours=1))())
        return made[-1]

    TaskTries(make).start()
    made[-1].execution_timeout = made[-1]._limit = timedelta(0)  # an hour has passed
    made[-1].on_kill()
    assert jobs.live() == []


def test_a_sensor_waits_for_a_job_of_somebody_else(jobs):
    job = jobs.submit(Claim("b" * 16, 1))
    tries = TaskTries(lambda: Sensor(task_id="wait", jobs=jobs.name, job=job.id))
    assert tries.run() is None


def test_a_sensor_fails_when_the_job_fails_and_never_cancels(jobs):
    jobs.plan(JobPlan(0.01, phase=Phase.FAILED, reason="exit code 3"))
    job = jobs.submit(Claim("b" * 16, 1))
    with pytest.raises(JobFailed, match="exit code 3"):
        TaskTries(lambda: Sensor(task_id="wait", jobs=jobs.name, job=job.id)).run()
    assert jobs.calls["cancel"] == 0


def test_a_triggerer_that_comes_back_after_the_deadline_looks_before_it_says_so(jobs):
    job = jobs.submit(Claim("b" * 16, 1))
    tries = TaskTries(lambda: Sensor(task_id="wait", jobs=jobs.name, job=job.id, timeout=0))
    deferred = tries.start()
    jobs.finish(job)
    assert deferred.kwargs["deadline"] <= time.time()
    assert tries.finish(deferred) is None


def test_a_sensor_times_out_as_airflow_s_sensors_do(jobs):
    from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowSkipException

    jobs.plan(seconds=None)
    job = jobs.submit(Claim("b" * 16, 1))
    with pytest.raises(AirflowSensorTimeout, match="timeout is 0"):
        TaskTries(lambda: Sensor(task_id="wait", jobs=jobs.name, job=job.id, timeout=0.2)).run()
    with pytest.raises(AirflowSkipException):
        TaskTries(
            lambda: Sensor(task_id="wait", jobs=jobs.name, job=job.id, timeout=0.2, soft_fail=True)
        ).run()
    assert len(jobs.live()) == 1


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("on_clear", "sometimes"), ("on_timeout", "never"), ("infrastructure_retries", -1)],
)
def test_a_wrong_parameter_is_refused_when_the_dag_is_parsed(parameter, value):
    with pytest.raises(InvalidParameter, match=f"'sort'.*{parameter}={value!r}.*write"):
        Operator(task_id="sort", jobs="any", **{parameter: value})


def test_a_service_that_the_triggerer_cannot_import_is_refused_before_anything_is_submitted(jobs):
    class InADagFile(InMemoryJobs):
        pass

    InADagFile.__module__ = "unusual_prefix_123_my_dag"

    class Mine(Operator):
        def remote_jobs(self, context):
            return InADagFile(self.jobs)

    with pytest.raises(InvalidParameter, match="triggerer cannot import"):
        TaskTries(lambda: Mine(task_id="sort", jobs=jobs.name)).start()
    assert jobs.history == []
