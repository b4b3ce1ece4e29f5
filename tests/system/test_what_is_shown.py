"""What a waiting task shows: its links while it is deferred, and each line of its job's log once.

What it does when something dies is in ``test_faults.py``.
"""

from __future__ import annotations

import itertools
import re
import signal
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
    name: str = field(default_factory=lambda: f"shown-{next(NUMBERS)}")
    run_id: str = ""

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

    def until(self, predicate, what):
        return self.airflow.wait_until(
            predicate, what=what, tell=lambda: f"{self.task}\n{self.jobs}\n{self.log()}"
        )

    def deferred(self):
        self.until(lambda: self.task.state == "deferred", "it is deferred")
        return self

    def ended(self):
        self.until(lambda: self.task.state in END, "it has ended")
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


def test_links_to_the_aws_console_show_while_the_task_is_deferred(case):
    case.plan(seconds=None).start().deferred()
    name, wanted = {
        "emr": ("EMR cluster", lambda job: job.cluster_id),
        "ecs": ("ECS task", lambda job: job.arn.rpartition("/")[2]),
    }[case.service]
    case.until(lambda: wanted(case.jobs[0]) in (case.links().get(name) or ""), "the link is there")
    assert case.task.state == "deferred"


def test_each_line_of_the_job_s_log_is_shown_once_although_the_triggerer_is_killed(aws, airflow):
    case = Case(aws, airflow, "ecs", variant="_logs").plan(seconds=None).start().deferred()
    stream = f"job/main/{case.jobs[0].arn.rpartition('/')[2]}"

    def write(*numbers):
        aws.put_log_lines("/ecs/etl", stream, [f"line {number} of the job" for number in numbers])

    write(1, 2, 3)
    case.until(lambda: "line 3 of the job" in case.log(), "the first lines are shown")
    kept = re.compile(r"lines\W+3\b")
    case.until(lambda: kept.search(case.xcom("remote_job_log")), "the position is kept")
    assert "of the job" not in case.xcom("remote_job_log"), "and no line"
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
