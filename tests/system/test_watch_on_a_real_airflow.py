"""A real triggerer reads events from SQS and from a log group, as in the recipes, and reports to StatsD."""

from __future__ import annotations

import json
import re
import shutil
import socket
import threading
from collections import Counter
from pathlib import Path

import boto3
import pytest

from airflow_resilient.testing.airflow.local_airflow import LocalAirflow

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"
RECIPE = RECIPES / "notice-the-end-within-seconds.py"
ARCHIVED = RECIPES / "know-the-end-of-a-task-that-ecs-has-forgotten.py"
WATCH = "airflow.airflow_resilient.watch."


class StatsD:
    """Receives what Airflow's StatsD client sends: sums of counters, last values of gauges."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.counts, self.gauges = Counter(), {}
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self):
        while text := self.socket.recv(2000).decode():
            name, _, rest = text.partition(":")
            value, _, kind = rest.partition("|")
            if kind == "c":
                self.counts[name.removeprefix(WATCH)] += int(value)
            elif kind == "g":
                self.gauges[name.removeprefix(WATCH)] = float(value)


@pytest.fixture(scope="module")
def sqs(aws):
    client = boto3.client(
        "sqs",
        endpoint_url=aws.endpoint_url,
        region_name=aws.region,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.url = client.create_queue(QueueName="airflow-events")["QueueUrl"]
    return client


@pytest.fixture(scope="module")
def listening(aws, make_database, python_path, tmp_path_factory, sqs):
    """An Airflow with the recipe's DAG and a queue of events, and what it reports."""
    statsd = StatsD()
    dags = tmp_path_factory.mktemp("dags")
    shutil.copy(RECIPE, dags)
    shutil.copy(ARCHIVED, dags)
    options = {
        ("airflow_resilient", "namespace"): "events",
        ("airflow_resilient", "events_queue_url"): sqs.url,
        ("airflow_resilient", "events_log_group"): "/aws/events/airflow",
        ("airflow_resilient", "first_poll_interval"): "10",  # seconds between two polls, at least
        ("metrics", "statsd_on"): "True",
        ("metrics", "statsd_host"): "127.0.0.1",
        ("metrics", "statsd_port"): str(statsd.port),
    }
    with LocalAirflow(
        dags,
        database_url=make_database(),
        connections={"aws_default": aws.airflow_connection()},
        config=options,
        environment={"PYTHONPATH": python_path},
        progress=print,
    ) as running:
        yield running, statsd


def test_events_cause_polls_in_a_real_triggerer_and_metrics_show_it(listening, aws, sqs):
    airflow, statsd = listening
    statsd.counts.clear()  # of the other test
    aws.make_task_definition("nightly")
    before = {job.started_by for job in aws.ecs.tasks()} | {job.id for job in aws.emr.steps()}
    calls = aws.calls["ecs:DescribeTasks"]  # the fake AWS is shared with other tests
    aws.ecs.plan("nightly", seconds=None)
    aws.emr.plan(step_name_contains="sort", seconds=None)
    run_id = airflow.trigger("notice_the_end_within_seconds")
    states = dict.fromkeys(("nightly", "sort"))

    def state(task_id):
        states[task_id] = airflow.task_instance("notice_the_end_within_seconds", run_id, task_id).state
        return states[task_id]

    airflow.wait_until(lambda: {state(name) for name in states} == {"deferred"}, what="both wait")

    def seen(service):
        """Wait for a poll: an event wakes only jobs that the triggerer waits for."""
        airflow.wait_until(lambda: statsd.counts[f"{service}.polls"], what=f"{service}: seen")

    def noticed(events):
        """Wait until so many events have caused a poll; if a job had ended, another poll might see that."""
        airflow.wait_until(
            lambda: statsd.counts["events.woke"] == events, what=f"{events} events are noticed"
        )

    seen("ecs")
    (task,) = [task for task in aws.ecs.tasks() if task.started_by not in before]
    (step,) = [step for step in aws.emr.steps() if step.id not in before]
    detail = {"taskArn": task.arn, "startedBy": task.started_by, "lastStatus": "STOPPED"}
    event = {"source": "aws.ecs", "detail-type": "ECS Task State Change", "detail": detail}
    sqs.send_message(QueueUrl=sqs.url, MessageBody=json.dumps(event))
    noticed(1)
    aws.ecs.finish(task.arn)
    airflow.wait_until(lambda: state("nightly") == "success", what="the end of the ECS task is known")

    seen("emr_steps")
    detail = {"stepId": step.id, "clusterId": "j-1", "state": "COMPLETED", "name": step.name}
    event = {"source": "aws.emr", "detail-type": "EMR Step Status Change", "detail": detail}
    sqs.send_message(QueueUrl=sqs.url, MessageBody=json.dumps({**event, "source": "somebody.else"}))
    sqs.send_message(QueueUrl=sqs.url, MessageBody=json.dumps(event))
    noticed(2)
    aws.emr.finish(step.id)
    airflow.wait_until(lambda: state("sort") == "success", what="the end of the EMR step is known")

    def reported():
        names = ("events.woke", "events.thrown_away", "ecs.ended.succeeded", "emr_steps.ended.succeeded")
        return [statsd.counts[name] for name in names]

    airflow.wait_until(
        lambda: reported() == [2, 1, 1, 1], what="the metrics show it", tell=lambda: f"{statsd.counts}"
    )
    assert 1 <= statsd.counts["ecs.calls"] <= aws.calls["ecs:DescribeTasks"] - calls
    assert statsd.gauges["ecs.calls_per_second"] == 10.0, "half of what AWS publishes"
    airflow.wait_until(lambda: statsd.gauges["ecs.waits"] == 0, what="nobody waits any more")


def test_the_end_of_a_task_that_ecs_forgot_while_no_triggerer_ran_is_known(listening, aws):
    airflow, statsd = listening
    ended = statsd.counts["ecs.ended.succeeded"]
    aws.make_task_definition("nightly")
    aws.ecs.plan("nightly", seconds=None)
    page = ARCHIVED.with_suffix(".md").read_text()
    pattern = json.loads(re.search(r"`ends.json`:\n\n```json\n(.*?)```", page, re.DOTALL)[1])
    aws.make_event_rule("airflow-ends", pattern, "/aws/events/airflow")
    before = {task.arn for task in aws.ecs.tasks()}
    dag_id = "know_the_end_of_a_task_that_ecs_has_forgotten"
    run_id = airflow.trigger(dag_id)

    def state():
        return airflow.task_instance(dag_id, run_id, "settle").state

    airflow.wait_until(lambda: state() == "deferred", what="it waits")
    (task,) = [task for task in aws.ecs.tasks() if task.arn not in before]
    airflow.kill("triggerer")
    aws.ecs.finish(task.arn)
    aws.ecs.forget(task.arn)
    airflow.start("triggerer")
    airflow.wait_until(lambda: state() in ("success", "failed", "up_for_retry"), what="it has ended")
    assert state() == "success"
    assert {each.arn for each in aws.ecs.tasks()} - before == {task.arn}
    airflow.wait_until(lambda: statsd.counts["ecs.ended.succeeded"] > ended, what="the metrics show it")
