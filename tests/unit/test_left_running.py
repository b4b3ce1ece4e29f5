"""A try that leaves its job running on purpose says so, for the orphan sweep; no other try does."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_resilient import JobTimeout, Patience, RemoteJobOperator, Unobservable
from airflow_resilient.operators import LEFT_XCOM
from airflow_resilient.testing import InMemoryJobs, TaskTries
from airflow_resilient.testing.memory import JobPlan

QUICK = Patience(poll=0.05, first=0.01, longest=0.1, missing=3, missing_for=0.0, refused=1)


class Operator(RemoteJobOperator):
    def __init__(self, *, jobs, wait=True, **kwargs):
        super().__init__(patience=QUICK, **kwargs)
        self.jobs = jobs
        self.wait_for_completion = wait

    def remote_jobs(self, context):
        return InMemoryJobs(self.jobs)


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


def test_a_task_that_does_not_wait_names_the_job_that_it_leaves(tries):
    task = tries(wait=False)
    assert task.run() == "job-1"
    assert task.xcoms[LEFT_XCOM] == ["job-1"]


def test_a_retry_that_does_not_wait_names_the_job_that_it_has_adopted(jobs, tries):
    task = tries(wait=False, retries=1)
    task.start()
    assert task.run() == "job-1"
    assert task.xcoms[LEFT_XCOM] == ["job-1"]


def test_a_job_that_had_ended_already_is_not_left_by_a_task_that_does_not_wait(jobs, tries):
    jobs.plan(JobPlan(0.0))
    task = tries(wait=False, retries=1)
    task.start()
    task.run()
    assert LEFT_XCOM not in task.xcoms


def test_a_task_that_leaves_its_job_at_the_deadline_names_it(jobs, tries):
    task = tries(execution_timeout=timedelta(seconds=0.2), on_timeout="leave")
    with pytest.raises(JobTimeout, match="left running"):
        task.run()
    assert task.xcoms[LEFT_XCOM] == ["job-1"]


def test_a_task_that_cancels_its_job_at_the_deadline_names_none(jobs, tries):
    task = tries(execution_timeout=timedelta(seconds=0.2))
    with pytest.raises(JobTimeout):
        task.run()
    assert LEFT_XCOM not in task.xcoms


def test_a_job_that_does_not_stop_at_the_deadline_is_not_left_on_purpose(tries):
    stubborn = InMemoryJobs(f"memory-{uuid.uuid4()}", seconds=None, clock=time.time, cancel_seconds=1000)
    task = TaskTries(lambda: Hasty(task_id="a", jobs=stubborn.name, execution_timeout=timedelta(seconds=0.1)))
    with pytest.raises(JobTimeout, match="has not been seen to stop"):
        task.run()
    assert LEFT_XCOM not in task.xcoms


@pytest.mark.parametrize(
    ("on_timeout", "hours", "left"),
    [
        pytest.param("leave", 0, ["job-1"], id="past-the-deadline"),
        pytest.param("leave", 1, None, id="before-the-deadline"),
        pytest.param("cancel", 0, None, id="past-the-deadline-to-be-cancelled"),
        pytest.param("cancel", 1, None, id="before-the-deadline-to-be-cancelled"),
    ],
)
def test_a_stopped_worker_names_the_job_only_if_the_deadline_leaves_it(tries, on_timeout, hours, left):
    task = tries(execution_timeout=timedelta(hours=1), on_timeout=on_timeout)
    task.start()
    tries.made[-1].execution_timeout = tries.made[-1]._limit = timedelta(hours=hours)
    tries.made[-1].on_kill()
    assert task.xcoms.get(LEFT_XCOM) == left


def test_a_try_that_may_not_look_any_more_leaves_nothing_on_purpose(jobs, tries):
    task = tries()
    deferred = task.start()
    jobs.fail_next(PermissionError("denied"), "observe", times=3)
    with pytest.raises(Unobservable):
        task.finish(deferred)
    assert LEFT_XCOM not in task.xcoms
