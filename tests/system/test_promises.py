"""One remote job per task instance, whatever dies: shown with real processes."""

from __future__ import annotations

import itertools
import signal
import time
from dataclasses import dataclass, field
from urllib.parse import quote

import pytest

NUMBERS = itertools.count(1)
END = ("success", "failed")


@dataclass
class Case:
    """One DAG run and the remote jobs that it made."""

    aws: object
    airflow: object
    service: str
    variant: str = ""
    name: str = field(default_factory=lambda: f"promise-{next(NUMBERS)}")
    run_id: str = ""
    took: float = 0.0

    @property
    def dag_id(self):
        return self.service + self.variant

    def plan(self, seconds, **more):
        if self.service == "emr":
            self.aws.emr.plan(step_name_contains=f"{self.name} ", seconds=seconds, **more)
        else:
            self.aws.make_task_definition(self.name)
            self.aws.ecs.plan(self.name, seconds=seconds, **more)
        return self

    def start(self):
        self.run_id = self.airflow.trigger(self.dag_id, conf={"job": self.name})
        return self

    @property
    def jobs(self):
        """Every real job of this run, forgotten ones too."""
        if self.service == "emr":
            return [step for step in self.aws.emr.steps() if step.name.startswith(f"{self.name} ")]
        return [
            task
            for task in self.aws.ecs.tasks()
            if task.task_definition.rpartition("/")[2].startswith(f"{self.name}:")
        ]

    @property
    def live(self):
        return [job for job in self.jobs if job.live]

    @property
    def task(self):
        return self.airflow.task_instance(self.dag_id, self.run_id, "job")

    @property
    def mismatches(self):
        """How many tries Airflow's scheduler has failed by itself, over the head of a healthy task."""
        return len(self.airflow.events("state mismatch", self.dag_id, self.run_id))

    @property
    def tries(self):
        """How many tries it took, but for those that Airflow's scheduler has failed by itself."""
        return self.task.try_number - self.mismatches

    def until(self, predicate, what, timeout=60):
        return self.airflow.wait_until(
            predicate, timeout, what, tell=lambda: f"{self.task}\n{self.jobs}\n{self.log()}"
        )

    def deferred(self):
        self.until(lambda: self.task.state == "deferred", "it is deferred")
        return self

    def ended(self, timeout=90):
        self.until(lambda: self.task.state in END, "it has ended", timeout)
        return self.task

    def ask(self, what):
        path = f"/dags/{self.dag_id}/dagRuns/{quote(self.run_id, safe='')}/taskInstances/job/{what}"
        return self.airflow.request("GET", path, accept=(404,))

    def xcom(self, key):
        return str(self.ask(f"xcomEntries/{key}"))

    def links(self):
        return self.ask("links").get("extra_links", {})

    def finish(self):
        for job in self.live:
            if self.service == "emr":
                self.aws.emr.finish(job.id)
            else:
                self.aws.ecs.finish(job.arn)

    def log(self):
        numbers = range(1, (self.task.try_number or 0) + 1)
        return "\n".join(self.airflow.task_log(self.dag_id, self.run_id, "job", number) for number in numbers)


@pytest.fixture(params=["emr", "ecs"])
def case(request, aws, airflow):
    made = Case(aws, airflow, request.param)
    yield made
    made.finish()


@pytest.fixture
def limited(case):
    """A task with ``execution_timeout`` and no retries, whose end the scheduler has not made up by itself."""
    case.variant = "_limited"
    begin = time.monotonic()
    for _ in range(3):
        case.plan(seconds=None).start().deferred()
        case.ended(timeout=120)
        if not case.mismatches:
            break
        case.name, begin = f"promise-{next(NUMBERS)}", time.monotonic()
    case.took = time.monotonic() - begin
    return case


def test_a_job_runs_once_and_holds_no_slot_while_it_runs(case):
    case.plan(seconds=3).start().deferred()
    task = case.ended()
    assert (task.state, case.tries, len(case.jobs)) == ("success", 1, 1)


def test_links_to_the_aws_console_show_while_the_task_is_deferred(case):
    case.plan(seconds=None).start().deferred()
    name, wanted = {
        "emr": ("EMR cluster", lambda job: job.cluster_id),
        "ecs": ("ECS task", lambda job: job.arn.rpartition("/")[2]),
    }[case.service]
    case.until(lambda: wanted(case.jobs[0]) in (case.links().get(name) or ""), "the link is there")
    assert case.task.state == "deferred"


def test_sigkill_right_after_the_service_accepted_the_job_makes_no_second_one(case):
    case.plan(seconds=8).start()
    case.airflow.kill_task_when(case.task, lambda: case.jobs, worker=False)
    task = case.ended()
    assert (task.state, len(case.jobs)) == ("success", 1)
    assert task.try_number > 1, "it was killed before it had deferred"
    assert "found job of claim" in case.log()


def test_a_job_that_ended_while_nobody_watched_is_adopted(case):
    case.plan(seconds=0.1).start()
    case.airflow.kill_task_when(case.task, lambda: case.jobs, worker=False)
    task = case.ended()
    assert (task.state, len(case.jobs)) == ("success", 1)
    assert task.try_number > 1, "it was killed before it had deferred"
    assert "found job of claim" in case.log()


def test_a_triggerer_that_is_killed_and_restarted_loses_nothing(case):
    case.plan(seconds=None).start().deferred()
    case.airflow.kill("triggerer", signal.SIGKILL)
    case.finish()
    case.airflow.start("triggerer")
    task = case.ended()
    assert (task.state, case.tries, len(case.jobs)) == ("success", 1, 1)


def test_clear_cancels_the_running_job_before_the_next_one_starts(case):
    case.plan(seconds=None).start().deferred()
    first = case.jobs[0]
    case.airflow.clear(case.dag_id, case.run_id, ["job"])
    case.until(lambda: len(case.jobs) == 2, "the second job was submitted")
    second = next(job for job in case.jobs if job != first and job.live)
    ended = next(job for job in case.jobs if not job.live)
    assert (getattr(ended, "ended", None) or getattr(ended, "stopped", None)) <= second.created
    case.deferred().finish()
    assert case.ended().state == "success"
    assert len(case.jobs) == 2


def test_clear_of_a_success_runs_it_again(case):
    case.plan(seconds=0.5).start()
    case.airflow.wait_for(case.dag_id, case.run_id, until=["success"], timeout=90)
    case.airflow.clear(case.dag_id, case.run_id, ["job"])
    case.until(lambda: len(case.jobs) == 2, "the second job was submitted")
    case.until(lambda: case.task.state == "success" and case.task.try_number >= 2, "it has ended again")


def test_a_task_marked_failed_leaves_no_job_behind(case):
    case.plan(seconds=None).start().deferred()
    # A trigger that the triggerer has not begun yet cannot be told of its end.
    case.until(lambda: looked_at(case), "the triggerer watches it")
    case.airflow.mark(case.dag_id, case.run_id, "job", "failed")
    case.until(lambda: not case.live, "the job is cancelled")
    assert case.task.state == "failed"


def test_at_the_deadline_the_job_is_cancelled_and_its_end_awaited(limited):
    assert (limited.task.state, len(limited.jobs), limited.live) == ("failed", 1, [])
    assert limited.took >= 20
    assert "execution_timeout of 0:00:20 passed" in limited.log()


def test_a_failed_job_is_reported_and_retried_with_a_new_one(case):
    ends = {"outcome": "FAILED"} if case.service == "emr" else {"exit_code": 3}
    case.plan(seconds=0.5, **ends).start()
    task = case.ended(timeout=120)
    assert (task.state, task.try_number) == ("failed", 3)
    # A try that the scheduler has failed by itself may have made its job, or not.
    assert case.tries <= len(case.jobs) <= task.try_number


def test_each_line_of_the_job_s_log_is_shown_once_although_the_triggerer_is_killed(aws, airflow):
    case = Case(aws, airflow, "ecs", variant="_logs").plan(seconds=None).start().deferred()
    stream = f"job/main/{case.jobs[0].arn.rpartition('/')[2]}"

    def write(*numbers):
        aws.put_log_lines("/ecs/etl", stream, [f"line {number} of the job" for number in numbers])

    write(1, 2, 3)
    case.until(lambda: "line 3 of the job" in case.log(), "the first lines are shown")
    case.until(lambda: "line 3" in case.xcom("remote_job_log"), "the position is kept")
    airflow.kill("triggerer", signal.SIGKILL)
    write(4, 5)
    airflow.start("triggerer")
    case.until(lambda: "line 5 of the job" in case.log(), "the next lines are shown")
    write(6)
    case.finish()
    assert case.ended().state == "success"
    log = case.log()
    assert [log.count(f"line {number} of the job") for number in range(1, 7)] == [1] * 6
    assert "s3cr3t" not in log


def looked_at(case):
    reads = ("emr:ListSteps", "ecs:DescribeTasks")
    return any(call.operation in reads and call.time > case.jobs[0].created for call in case.aws.journal)
