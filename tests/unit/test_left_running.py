"""A try that leaves its job running on purpose says so, for the orphan sweep; no other try does."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_resilient import JobTimeout, JobUnreachable, PollPolicy, RemoteJobOperator
from airflow_resilient.core.reconcile import RUNNING_ON_XCOM, running_on_key
from airflow_resilient.testing import InMemoryJobs, TaskTries
from airflow_resilient.testing.in_memory_jobs import JobPlan

QUICK = PollPolicy(
    interval=0.05,
    first_interval=0.01,
    max_backoff=0.1,
    lost_after_polls=3,
    lost_after_seconds=0.0,
    give_up_after_denials=1,
)


class Operator(RemoteJobOperator):
    def __init__(self, *, jobs, wait=True, **kwargs):
        super().__init__(poll_policy=QUICK, **kwargs)
        self.jobs = jobs
        self.wait_for_completion = wait

    def remote_jobs(self, context):
        self.service = InMemoryJobs(self.jobs)
        return self.service


class Hasty(Operator):
    def _policy(self):
        return replace(super()._policy(), cancel_grace=0.2)


@pytest.fixture
def jobs():
    return InMemoryJobs(f"memory-{uuid.uuid4()}", seconds=None, clock=time.time)


@pytest.fixture
def tries(jobs):
    made = []

    def tries(**kwargs):
        def make():
            made.append(Operator(task_id="sort", jobs=jobs.name, **kwargs))
            return made[-1]

        return TaskTries(make)

    tries.made = made
    return tries


def left(task):
    """The XComs that say which jobs were left running."""
    return {key: value for key, value in task.xcoms.items() if key.startswith(RUNNING_ON_XCOM)}


def test_a_task_that_does_not_wait_names_the_job_that_it_leaves(tries):
    task = tries(wait=False)
    assert task.run() == "job-1"
    assert left(task) == {running_on_key(1): ["job-1"]}


@pytest.mark.parametrize(
    ("parameters", "unattended"),
    [
        ({}, False),
        ({"wait": False}, True),
        ({"on_timeout": "leave"}, True),
        ({"on_timeout": "cancel"}, False),
    ],
)
def test_a_service_knows_before_it_submits_whether_the_job_may_run_on_alone(tries, parameters, unattended):
    tries(**parameters).start()
    assert tries.made[-1].service.unattended is unattended


def test_a_retry_that_does_not_wait_names_the_job_that_it_has_adopted(jobs, tries):
    task = tries(wait=False, retries=1)
    task.start()
    assert task.run() == "job-1"
    assert left(task) == {running_on_key(1): ["job-1"]}


def test_a_job_that_had_ended_already_is_not_left_by_a_task_that_does_not_wait(jobs, tries):
    jobs.plan(JobPlan(0.0))
    task = tries(wait=False, retries=1)
    task.start()
    task.run()
    assert left(task) == {}


def test_a_task_that_leaves_its_job_at_the_deadline_names_it(jobs, tries):
    task = tries(execution_timeout=timedelta(seconds=0.2), on_timeout="leave")
    with pytest.raises(JobTimeout, match="left running"):
        task.run()
    assert left(task) == {running_on_key(1): ["job-1"]}


def test_a_task_that_cancels_its_job_at_the_deadline_names_none(jobs, tries):
    task = tries(execution_timeout=timedelta(seconds=0.2))
    with pytest.raises(JobTimeout):
        task.run()
    assert left(task) == {}


def test_a_job_that_does_not_stop_at_the_deadline_is_not_left_on_purpose(tries):
    stubborn = InMemoryJobs(f"memory-{uuid.uuid4()}", seconds=None, clock=time.time, cancel_seconds=1000)
    task = TaskTries(lambda: Hasty(task_id="a", jobs=stubborn.name, execution_timeout=timedelta(seconds=0.1)))
    with pytest.raises(JobTimeout, match="was cancelled and has not ended yet"):
        task.run()
    assert left(task) == {}


@pytest.mark.parametrize(
    ("on_timeout", "hours", "named"),
    [
        pytest.param("leave", 0, ["job-1"], id="past-the-deadline"),
        pytest.param("leave", 1, None, id="before-the-deadline"),
        pytest.param("cancel", 0, None, id="past-the-deadline-to-be-cancelled"),
        pytest.param("cancel", 1, None, id="before-the-deadline-to-be-cancelled"),
    ],
)
def test_a_stopped_worker_names_the_job_only_if_the_deadline_leaves_it(tries, on_timeout, hours, named):
    task = tries(execution_timeout=timedelta(hours=1), on_timeout=on_timeout)
    task.start()
    tries.made[-1].execution_timeout = tries.made[-1]._limit = timedelta(hours=hours)
    tries.made[-1].on_kill()
    assert left(task) == ({running_on_key(1): named} if named else {})


def test_a_try_that_may_not_poll_any_more_leaves_nothing_on_purpose(jobs, tries):
    task = tries()
    deferred = task.start()
    jobs.fail_next(PermissionError("denied"), "observe", times=3)
    with pytest.raises(JobUnreachable):
        task.finish(deferred)
    assert left(task) == {}
