"""Events on moto's SQS: they wake looks early, and nothing that is wrong with them or with SQS does harm."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from contextlib import aclosing, contextmanager
from dataclasses import replace

import boto3
import pytest

from airflow_resilient.aws import AwsAccess
from airflow_resilient.budget import SharedBucket
from airflow_resilient.ecs import EcsTasks
from airflow_resilient.emr import EmrSteps
from airflow_resilient.events import MOST_RECEIVED, EventQueue
from airflow_resilient.jobs import Claim, Job, Phase, family
from airflow_resilient.testing import FakeAws
from airflow_resilient.watch import Patience, SharedWatch

RARE = Patience(poll=600.0, first=0.2)
FAMILY = family("here", "etl", "run", "sort", -1)


class Place:
    """A fake AWS with a queue, and triggerers that read it: each is a watch of each service."""

    def __init__(self, aws):
        self.aws = aws
        self.sqs = boto3.client("sqs")
        self.url = self.sqs.create_queue(QueueName="airflow-events")["QueueUrl"]
        self.cluster = aws.make_ecs_cluster("etl")
        aws.make_task_definition("nightly")
        aws.ecs.plan(seconds=None)
        aws.emr.plan(seconds=None)

    def triggerer(self, ours=lambda claim: claim.family == FAMILY):
        watches = [
            SharedWatch(service, bucket=SharedBucket(service.budget))
            for service in (EcsTasks(aws_conn_id=None), EmrSteps(aws_conn_id=None))
        ]
        return EventQueue(self.url, AwsAccess(None), lambda: watches, ours, long_poll=0), *watches

    def task(self, number=1, claim=None):
        """An ECS task that has run for an hour."""
        claim = claim or Claim(FAMILY, number)
        request = {"cluster": "etl", "taskDefinition": "nightly", "launchType": "EC2", "count": 1}
        (task,) = self.aws.ecs.actions["RunTask"](self.aws.region, {**request, "startedBy": str(claim)})[
            "tasks"
        ]
        return Job(task["taskArn"], claim, Phase.RUNNING, time.time() - 3600, scope=task["clusterArn"])

    def send(self, body):
        self.sqs.send_message(QueueUrl=self.url, MessageBody=body)

    def tell(self, job, status="STOPPED", claim=None):
        """What EventBridge would send about an ECS task."""
        detail = {"taskArn": job.id, "startedBy": str(claim or job.claim), "lastStatus": status}
        self.send(json.dumps({"source": "aws.ecs", "detail-type": "ECS Task State Change", "detail": detail}))

    @property
    def left(self):
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return sum(map(int, found.values()))


@pytest.fixture
def place():
    with FakeAws() as aws:
        yield Place(aws)


async def end_of(watch, job, patience=RARE):
    async with aclosing(watch.follow(job, patience)) as follow:
        async for look in follow:
            if not look.live:
                return look
    raise AssertionError("it ended without an end")


@contextmanager
def running(coroutine):
    """A task that is stopped at the end."""
    task = asyncio.ensure_future(coroutine)
    try:
        yield task
    finally:
        task.cancel()


async def until(fact, timeout=20.0):
    """Wait until something is the case; the looks are made in other threads."""
    end = time.monotonic() + timeout
    while not fact():
        assert time.monotonic() < end, "it does not happen"
        await asyncio.sleep(0.02)


def test_an_event_makes_the_end_known_at_once(place):
    queue, watch, _ = place.triggerer()
    job = place.task()

    async def main():
        with running(end_of(watch, job)) as waiting:
            await until(lambda: watch.counts["looks"] == 1)  # the next one would be in ten minutes
            place.aws.ecs.finish(job.id)
            place.tell(job)
            await queue.listen_once()
            return await asyncio.wait_for(waiting, 10)

    assert asyncio.run(main()).phase is Phase.SUCCEEDED
    assert (queue.counts["woke"], place.left) == (1, 0)


def test_an_event_of_a_step_wakes_the_job_that_it_is_a_part_of(place):
    queue, _, watch = place.triggerer()
    cluster, claim = place.aws.make_emr_cluster(concurrency=2), Claim(FAMILY, 1)
    steps = [
        {"Name": f"{name} [{claim} {n}/2]", "ActionOnFailure": "CONTINUE", "HadoopJarStep": {"Jar": "a"}}
        for n, name in enumerate("ab", 1)
    ]
    ids = boto3.client("emr").add_job_flow_steps(JobFlowId=cluster, Steps=steps)["StepIds"]
    job = Job(",".join(ids), claim, Phase.QUEUED, time.time() - 3600, cluster)
    job = replace(job, facts={"steps": [[step, "PENDING"] for step in ids]})

    async def main():
        with running(end_of(watch, job)) as waiting:
            await until(lambda: watch.counts["looks"] == 1)
            for step in ids:
                place.aws.emr.finish(step)
                detail = {"stepId": step, "clusterId": cluster, "state": "COMPLETED"}
                event = {"source": "aws.emr", "detail-type": "EMR Step Status Change", "detail": detail}
                place.send(json.dumps(event))
            await queue.listen_once()
            return await asyncio.wait_for(waiting, 10)

    assert asyncio.run(main()).phase is Phase.SUCCEEDED


def test_a_doubled_and_a_late_event_cost_a_look_at_most(place):
    queue, watch, _ = place.triggerer()
    job = place.task()

    async def main():
        with running(end_of(watch, job)) as waiting:
            await until(lambda: watch.counts["looks"] == 1)
            for _ in range(5):
                place.tell(job, "RUNNING")
            await queue.listen_once()
            await until(lambda: watch.counts["looks"] >= 2)
            assert watch.counts["looks"] == 2
            place.aws.ecs.finish(job.id)
            place.tell(job)
            await queue.listen_once()
            await asyncio.wait_for(waiting, 10)
            place.tell(job)  # late: nobody waits any more
            await queue.listen_once()

    asyncio.run(main())
    assert place.left == 0, "it is known here, so it is not given back"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("{", id="malformed"),
        pytest.param('{"source": "aws.ec2", "detail-type": "x", "detail": {}}', id="foreign"),
        pytest.param(
            json.dumps(
                {
                    "source": "aws.ecs",
                    "detail-type": "ECS Task State Change",
                    "detail": {
                        "taskArn": "arn:task/etl/9",
                        "startedBy": "ecs-svc/1",
                        "lastStatus": "STOPPED",
                    },
                }
            ),
            id="of-a-service",
        ),
        pytest.param(
            json.dumps(
                {
                    "source": "aws.ecs",
                    "detail-type": "ECS Task State Change",
                    "detail": {"taskArn": "arn:task/etl/9", "startedBy": f"af-{'z' * 16}-1"},
                }
            ),
            id="of-another-deployment",
        ),
    ],
)
def test_what_concerns_nobody_here_is_deleted_at_once(place, body):
    queue, _, _ = place.triggerer()
    place.send(body)
    asyncio.run(queue.listen_once())
    assert (place.left, queue.counts["thrown_away"]) == (0, 1)


def test_what_another_triggerer_waits_for_is_given_back_and_found_there(place):
    first, _, _ = place.triggerer()
    second, watch, _ = place.triggerer()
    job = place.task()

    async def main():
        with running(end_of(watch, job)) as waiting:
            await until(lambda: watch.counts["looks"] == 1)
            place.aws.ecs.finish(job.id)
            place.tell(job)
            await first.listen_once()
            assert (first.counts["given_back"], place.left) == (1, 1)
            while not second.counts["woke"]:
                await second.listen_once()
                await asyncio.sleep(0.1)
            return await asyncio.wait_for(waiting, 10)

    assert asyncio.run(main()).phase is Phase.SUCCEEDED
    assert place.left == 0


def test_what_nobody_waits_for_goes_round_a_few_times_and_then_it_is_deleted(place, monkeypatch):
    monkeypatch.setattr("airflow_resilient.events.GIVE_BACK", 0)
    queue, _, _ = place.triggerer()
    place.tell(place.task())

    async def main():
        for _ in range(MOST_RECEIVED + 2):
            await queue.listen_once()

    asyncio.run(main())
    assert (queue.counts["received"], queue.counts["given_back"]) == (MOST_RECEIVED, MOST_RECEIVED - 1)
    assert place.left == 0


def test_an_old_event_that_nobody_waits_for_is_deleted_at_once(place):
    watches = []
    queue = EventQueue(
        place.url,
        AwsAccess(None),
        lambda: watches,
        lambda _: True,
        long_poll=0,
        wall=lambda: time.time() + 3600,
    )
    place.tell(place.task())
    asyncio.run(queue.listen_once())
    assert (place.left, queue.counts["thrown_away"]) == (0, 1)


def test_a_queue_that_fails_is_said_once_and_read_again(place, caplog):
    queue, watch, _ = place.triggerer()
    job = place.task()
    place.sqs.delete_queue(QueueUrl=place.url)
    queue._random = lambda: -1.49  # no time for back-off

    async def main():
        with running(queue.listen()), running(end_of(watch, job, Patience(poll=0.5, first=0.2))) as waiting:
            await until(lambda: queue.counts["trouble"] >= 3)
            place.aws.ecs.finish(job.id)
            assert (await asyncio.wait_for(waiting, 10)).phase is Phase.SUCCEEDED, "looks go on"
            place.sqs.create_queue(QueueName="airflow-events")
            place.send("{")
            await until(lambda: queue.counts["thrown_away"] == 1)
            await until(lambda: "events come again" in caplog.text)

    with caplog.at_level(logging.INFO, "airflow_resilient.events"):
        asyncio.run(main())
    assert caplog.text.count("no events from") == 1
    assert "Nothing fails" in caplog.text


def test_without_a_queue_nothing_but_the_delay_changes(place):
    _, watch, _ = place.triggerer()
    job = place.task()

    async def main():
        with running(end_of(watch, job, Patience(poll=1.0, first=0.2))) as waiting:
            await until(lambda: watch.counts["looks"] == 1)
            place.aws.ecs.finish(job.id)
            return await asyncio.wait_for(waiting, 10)

    assert asyncio.run(main()).phase is Phase.SUCCEEDED


def test_a_triggerer_that_stops_does_not_wait_for_the_long_poll(place):
    queue = EventQueue(place.url, AwsAccess(None), list, lambda _: True, long_poll=5)

    def polling():
        return "airflow-resilient-_receive" in {thread.name for thread in threading.enumerate()}

    async def main():
        with running(queue.listen()):
            await until(polling)

    asyncio.run(main())
    assert polling(), "the thread waits on, and nobody for it"
    while polling():
        time.sleep(0.1)
