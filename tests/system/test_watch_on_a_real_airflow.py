"""A real triggerer hears of ends from SQS (docs/recipes/hear-of-the-end-at-once.py) and reports to StatsD."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections import Counter
from pathlib import Path

import boto3
import pytest

from airflow_resilient.testing.local_airflow import LocalAirflow

RECIPE = Path(__file__).parents[2] / "docs" / "recipes" / "hear-of-the-end-at-once.py"
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
    options = {
        ("airflow_resilient", "namespace"): "events",
        ("airflow_resilient", "events_queue_url"): sqs.url,
        ("airflow_resilient", "first_look"): "10",  # seconds between two looks that no event woke, at least
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


def test_events_wake_the_looks_of_a_real_triggerer_and_metrics_tell_of_it(listening, aws, sqs):
    airflow, statsd = listening
    aws.make_task_definition("nightly")
    before = {job.started_by for job in aws.ecs.tasks()} | {job.id for job in aws.emr.steps()}
    calls = aws.calls["ecs:DescribeTasks"]  # the fake AWS is shared with other tests
    aws.ecs.plan("nightly", seconds=None)
    aws.emr.plan(step_name_contains="sort", seconds=None)
    run_id = airflow.trigger("hear_of_the_end_at_once")
    states = dict.fromkeys(("nightly", "sort"))

    def state(task_id):
        states[task_id] = airflow.task_instance("hear_of_the_end_at_once", run_id, task_id).state
        return states[task_id]

    airflow.wait_until(lambda: {state(name) for name in states} == {"deferred"}, 120, "both wait")

    def just_looked(service):
        """Wait for the end of a look: no other one comes for seconds, but for an event."""
        looks = statsd.counts[f"{service}.looks"]
        airflow.wait_until(lambda: statsd.counts[f"{service}.looks"] > looks, 60, f"{service}: seen")

    just_looked("ecs")
    (task,) = [task for task in aws.ecs.tasks() if task.started_by not in before]
    (step,) = [step for step in aws.emr.steps() if step.id not in before]
    aws.ecs.finish(task.arn)
    detail = {"taskArn": task.arn, "startedBy": task.started_by, "lastStatus": "STOPPED"}
    event = {"source": "aws.ecs", "detail-type": "ECS Task State Change", "detail": detail}
    sqs.send_message(QueueUrl=sqs.url, MessageBody=json.dumps(event))
    airflow.wait_until(lambda: state("nightly") == "success", 60, "the end of the ECS task is known")

    just_looked("emr")
    aws.emr.finish(step.id)
    detail = {"stepId": step.id, "clusterId": "j-1", "state": "COMPLETED", "name": step.name}
    event = {"source": "aws.emr", "detail-type": "EMR Step Status Change", "detail": detail}
    sqs.send_message(QueueUrl=sqs.url, MessageBody="this is no event")
    sqs.send_message(QueueUrl=sqs.url, MessageBody=json.dumps(event))
    airflow.wait_until(lambda: state("sort") == "success", 60, "the end of the EMR step is known")

    def told():
        return [statsd.counts[name] for name in ("events.woke", "events.thrown_away", "ecs.ended.succeeded")]

    airflow.wait_until(lambda: told() == [2, 1, 1], 60, "the metrics tell", tell=lambda: f"{statsd.counts}")
    assert statsd.counts["emr.ended.succeeded"] == 1
    assert 1 <= statsd.counts["ecs.calls"] <= aws.calls["ecs:DescribeTasks"] - calls
    assert statsd.gauges["ecs.calls_per_second"] == 10.0, "half of what AWS publishes"
    airflow.wait_until(lambda: statsd.gauges["ecs.waits"] == 0, 30, "nobody waits any more")
