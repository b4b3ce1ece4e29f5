"""The promises on the Airflow that is installed; where a version keeps one otherwise, the test says how."""

from __future__ import annotations

import itertools
import os
import signal
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from importlib.metadata import entry_points

import pytest

from airflow_resilient.compat import airflow_version

NUMBERS = itertools.count(1)
END = ("success", "failed")
PLUGIN = any(entry.value.startswith("airflow_resilient.") for entry in entry_points(group="airflow.plugins"))
EVENING = datetime(2026, 11, 1, tzinfo=timezone.utc)  # 31 October, 20:00, in New York


@dataclass
class Case:
    """One DAG run and the remote jobs that it made."""

    aws: object
    airflow: object
    service: str
    variant: str = ""
    name: str = field(default_factory=lambda: f"job-{next(NUMBERS)}")
    run_id: str = ""

    @property
    def dag_id(self):
        return f"short_{self.service}{self.variant}"

    def start(self, seconds):
        """Plan for how long its remote job will run (``None``: until it is ended), and trigger the run."""
        if self.service == "emr":
            self.aws.emr.plan(step_name_contains=f"{self.name} ", seconds=seconds)
        else:
            self.aws.make_task_definition(self.name)
            self.aws.ecs.plan(self.name, seconds=seconds)
        self.run_id = self.airflow.trigger(self.dag_id, conf={"job": self.name})

    @property
    def jobs(self):
        """Every real job of this run, oldest first."""
        if self.service == "emr":
            found = [step for step in self.aws.emr.steps() if step.name.startswith(f"{self.name} ")]
        else:
            family = f"{self.name}:"
            found = [
                t for t in self.aws.ecs.tasks() if t.task_definition.rpartition("/")[2].startswith(family)
            ]
        return sorted(found, key=lambda job: job.created)

    @property
    def live(self):
        return [job for job in self.jobs if job.live]

    @property
    def task(self):
        return self.airflow.task_instance(self.dag_id, self.run_id, "job")

    @property
    def mismatches(self):
        """How many tries Airflow's scheduler has failed by itself: it reads its executor's events late."""
        return len(self.airflow.events("state mismatch", self.dag_id, self.run_id))

    @property
    def tries(self):
        """How many tries it took, but for those that Airflow's scheduler has failed by itself."""
        return self.task.try_number - self.mismatches

    def log(self):
        numbers = range(1, (self.task.try_number or 0) + 1)
        return "\n".join(self.airflow.task_log(self.dag_id, self.run_id, "job", number) for number in numbers)

    def until(self, predicate, what):
        what = f"{self.dag_id}: {what}"
        return self.airflow.wait_until(
            predicate, what=what, tell=lambda: f"{self.task}\n{self.jobs}\n{self.log()}"
        )

    def deferred(self):
        self.until(lambda: self.task.state == "deferred" and self.live, "it is deferred")

    def watched(self):
        """Wait until the triggerer has seen the job: only a trigger that has begun to run notices its end."""
        self.until(lambda: "running, " in self.log(), "the trigger has seen it running")

    def ended(self):
        self.until(lambda: self.task.state in END, "it has ended")
        return self.task

    def finish(self):
        for job in self.live:
            if self.service == "emr":
                self.aws.emr.finish(job.id)
            else:
                self.aws.ecs.finish(job.arn)


def end_of(job):
    return getattr(job, "ended", None) or getattr(job, "stopped", None)


@pytest.fixture
def cases(aws, airflow):
    """Both services at the same time: waiting costs the same for two."""
    made = [Case(aws, airflow, "emr"), Case(aws, airflow, "ecs")]
    yield made
    for case in made:
        case.finish()


@pytest.fixture(params=["emr", "ecs"])
def case(request, aws, airflow):
    made = Case(aws, airflow, request.param)
    yield made
    made.finish()


def all_deferred(cases, seconds=None):
    for case in cases:
        case.start(seconds)
    for case in cases:
        case.deferred()


def test_one_job_each_and_no_slot_while_they_run(airflow, cases):
    all_deferred(cases)
    airflow.wait_until(lambda: airflow.pool_slots("one_slot").open == 1, what="the only slot is free")
    assert airflow.pool_slots("one_slot").deferred == 2
    for case in cases:
        case.finish()
    for case in cases:
        assert (case.ended().state, case.tries, len(case.jobs)) == ("success", 1, 1)


def test_at_the_deadline_the_jobs_are_cancelled_and_their_end_awaited(aws, airflow):
    # Seconds: a busy machine needs the shorter ones to load the DAG, and its scheduler fails more tries.
    for limit in (25, 100, 100, 100, 400):
        begin = time.monotonic()
        cases = [Case(aws, airflow, service, f"_limited_{limit}") for service in ("emr", "ecs")]
        for case in cases:
            case.start(seconds=None)
        for case in cases:
            case.ended()
        # Without a retry, what the scheduler fails by itself proves nothing.
        if all(case.jobs and not case.mismatches for case in cases):
            break
    assert time.monotonic() - begin >= limit
    for case in cases:
        assert (case.task.state, len(case.jobs), case.live) == ("failed", 1, [])
        assert case.task.end.timestamp() >= end_of(case.jobs[0])
        assert "JobTimeout" in case.log()
        assert f"execution_timeout of {timedelta(seconds=limit)} passed" in case.log()


def test_a_triggerer_that_is_killed_and_restarted_loses_nothing(airflow, cases):
    all_deferred(cases)
    airflow.kill("triggerer", signal.SIGKILL)
    for case in cases:
        case.finish()
    airflow.start("triggerer")
    for case in cases:
        assert (case.ended().state, case.tries, len(case.jobs)) == ("success", 1, 1)


def test_sigkill_right_after_the_service_accepted_the_job_makes_no_second_one(case):
    case.start(seconds=5)
    # Where a task that dies alone is not retried (see the next test), its worker dies with it.
    case.airflow.kill_task_when(case.task, lambda: case.jobs, worker=airflow_version() == (3, 0))
    assert (case.ended().state, len(case.jobs)) == ("success", 1)
    assert case.task.try_number > 1, "it was killed before it had deferred"
    assert "found job of claim" in case.log()


@pytest.mark.skipif(airflow_version() != (3, 0), reason="others retry a task whose process has died")
def test_airflow_3_0_retries_no_task_that_dies_alone_and_a_clear_heals_it(case):
    case.start(seconds=None)
    case.airflow.kill_task_when(case.task, lambda: case.jobs, worker=False)
    task = case.ended()
    assert (task.state, task.try_number, task.max_tries, len(case.live)) == ("failed", 1, 2, 1)
    # The scheduler overwrites what a clear makes of a run that it is about to end.
    case.until(lambda: case.airflow.run_state(case.dag_id, case.run_id) == "failed", "its run has ended")
    case.airflow.clear(case.dag_id, case.run_id, ["job"])
    case.until(lambda: len(case.jobs) == 2, "the second job was submitted")
    old, new = case.jobs
    assert not old.live
    assert end_of(old) <= new.created
    case.deferred()
    case.finish()
    assert case.ended().state == "success"


def test_clear_cancels_the_running_jobs_before_the_next_ones_start(airflow, cases):
    all_deferred(cases)
    first = {case.service: case.jobs[0] for case in cases}
    for case in cases:
        airflow.clear(case.dag_id, case.run_id, ["job"])
    for case in cases:
        case.until(lambda case=case: len(case.jobs) == 2, "the second job was submitted")
        old, new = case.jobs
        assert first[case.service].created == old.created
        assert (old.live, new.live) == (False, True)
        assert end_of(old) <= new.created
        case.deferred()
        case.finish()
    for case in cases:
        assert (case.ended().state, len(case.jobs)) == ("success", 2)


def test_a_task_marked_failed_leaves_no_job_behind(airflow, cases):
    all_deferred(cases)
    for case in cases:
        case.watched()
        airflow.mark(case.dag_id, case.run_id, "job", "failed")
    for case in cases:
        case.until(lambda case=case: not case.live, "the job is cancelled")
        assert case.task.state == "failed"


def test_a_worker_renders_local_time_in_plain_and_in_mapped_tasks(airflow):
    run_id = airflow.trigger("short_local_time", logical_date=EVENING)
    airflow.wait_for("short_local_time", run_id, until=["success"])
    assert airflow.xcom("short_local_time", run_id, "plain") == "2026-10-31T20:00:00-04:00"
    assert airflow.xcom("short_local_time", run_id, "mapped", map_index=0) == "2026-10-31"
    assert airflow.xcom("short_local_time", run_id, "mapped", map_index=1) == "2026-11-01T05:30:00+05:30"
    assert airflow.xcom("short_local_time", run_id, "in_python") == "2026-10-31T20:00:00-04:00"


def test_latest_only_skips_what_is_directly_downstream_of_a_run_that_is_late(airflow):
    airflow.wait_for_dag("short_latest_only")
    airflow.request("PATCH", "/dags/short_latest_only", {"is_paused": False})

    def ended():
        found = {each.task_id: each.state for each in airflow.task_instances("short_latest_only")}
        return len(found) == 4 and not set(found.values()) - {"success", "skipped", "failed"} and found

    assert airflow.wait_until(ended, what="both gates and what is after them have ended") == {
        "latest": "success",
        "after_latest": "success",
        "late": "success",
        "after_late": "skipped",
    }
    (run_id,) = {each.run_id for each in airflow.task_instances("short_latest_only")}
    assert airflow.xcom("short_latest_only", run_id, "latest") == ["after_latest"]


@pytest.mark.skipif(
    not PLUGIN and "TOX_ENV_NAME" not in os.environ,
    reason="no entry point: a checkout on PYTHONPATH is not installed (tox installs the wheel)",
)
def test_workers_find_the_plugins_macros(airflow):
    run_id = airflow.trigger("short_plugin", logical_date=EVENING)
    airflow.wait_for("short_plugin", run_id, until=["success"])
    assert airflow.xcom("short_plugin", run_id, "plain") == "2026-10-31T20:00:00-04:00"
    assert airflow.xcom("short_plugin", run_id, "mapped", map_index=0) == "+09:00"
