"""Events on moto's SQS: they cause early polls, and no failure of events or of SQS does harm."""

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

from airflow_resilient.aws.access import AwsAccess
from airflow_resilient.core.job import Claim, Job, Phase, task_key
from airflow_resilient.core.polling import PollPolicy
from airflow_resilient.registry import services
from airflow_resilient.services.ecs.client import EcsTasks
from airflow_resilient.services.emr_steps.client import EmrSteps
from airflow_resilient.services.emr_steps.marker import mark
from airflow_resilient.testing import FakeAws
from airflow_resilient.watching.events import MAX_RECEIVES, EventQueue
from airflow_resilient.watching.shared_watch import SharedWatch

READERS = [info.read_event for info in services().values()]
RARE = PollPolicy(interval=600.0, first_interval=0.2)
TASK_KEY = task_key("here", "etl", "run", "sort", -1)


FOREIGN = '{"source": "aws.ec2", "detail-type": "x", "detail": {}}'


class Harness:
    """A fake AWS with a queue, and triggerers that read it: each is a watch of each service."""

    def __init__(self, aws):
        self.aws = aws
        self.sqs = boto3.client("sqs")
        self.url = self.sqs.create_queue(QueueName="airflow-events")["QueueUrl"]
        self.cluster = aws.make_ecs_cluster("etl")
        aws.make_task_definition("nightly")
        aws.ecs.plan(seconds=None)
        aws.emr.plan(seconds=None)

    def triggerer(self, ours=lambda claim: claim.task_key == TASK_KEY):
        watches = [
            SharedWatch(service) for service in (EcsTasks(aws_conn_id=None), EmrSteps(aws_conn_id=None))
        ]
        return EventQueue(
            self.url,
            AwsAccess(None),
            lambda: watches,
            ours,
            readers=READERS,
            sources=[info.event_source for info in services().values()],
            long_poll=0,
        ), *watches

    def task(self, number=1, claim=None):
        """An ECS task that has run for an hour."""
        claim = claim or Claim(TASK_KEY, number)
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
def harness():
    with FakeAws() as aws:
        yield Harness(aws)


async def end_of(watch, job, poll_policy=RARE):
    async with aclosing(watch.follow(job, poll_policy)) as follow:
        async for observed in follow:
            if not observed.live:
                return observed
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
    """Wait until a condition is true; polls run in other threads."""
    end = time.monotonic() + timeout
    while not fact():
        assert time.monotonic() < end, "it does not happen"
        await asyncio.sleep(0.02)


def test_an_event_makes_the_end_known_at_once(harness):
    queue, watch, _ = harness.triggerer()
    job = harness.task()

    async def main():
        with running(end_of(watch, job)) as waiting:
            await until(lambda: watch.counts["polls"] == 1)  # the next one would be in ten minutes
            harness.aws.ecs.finish(job.id)
            harness.tell(job)
            await queue.listen_once()
            return await asyncio.wait_for(waiting, 10)

    assert asyncio.run(main()).phase is Phase.SUCCEEDED
    assert (queue.counts["woke"], harness.left) == (1, 0)


def test_an_event_of_a_step_wakes_the_job_that_it_is_a_part_of(harness):
    queue, _, watch = harness.triggerer()
    cluster, claim = harness.aws.make_emr_cluster(concurrency=2), Claim(TASK_KEY, 1)
    steps = [{"Name": name, "ActionOnFailure": "CONTINUE", "HadoopJarStep": {"Jar": "a"}} for name in "ab"]
    marked = mark(steps, claim, cluster)
    ids = boto3.client("emr").add_job_flow_steps(JobFlowId=cluster, Steps=marked)["StepIds"]
    job = Job(",".join(ids), claim, Phase.QUEUED, time.time() - 3600, cluster)
    job = replace(job, facts={"steps": [[step, "PENDING"] for step in ids]})

    async def main():
        with running(end_of(watch, job)) as waiting:
            await until(lambda: watch.counts["polls"] == 1)
            for step in ids:
                harness.aws.emr.finish(step)
                detail = {"stepId": step, "clusterId": cluster, "state": "COMPLETED"}
                event = {"source": "aws.emr", "detail-type": "EMR Step Status Change", "detail": detail}
                harness.send(json.dumps(event))
            await queue.listen_once()
            return await asyncio.wait_for(waiting, 10)

    assert asyncio.run(main()).phase is Phase.SUCCEEDED


def test_a_doubled_and_a_late_event_cost_a_poll_at_most(harness):
    queue, watch, _ = harness.triggerer()
    job = harness.task()

    async def main():
        with running(end_of(watch, job)) as waiting:
            await until(lambda: watch.counts["polls"] == 1)
            for _ in range(5):
                harness.tell(job, "RUNNING")
            await queue.listen_once()
            await until(lambda: watch.counts["polls"] >= 2)
            assert watch.counts["polls"] == 2
            harness.aws.ecs.finish(job.id)
            harness.tell(job)
            await queue.listen_once()
            await asyncio.wait_for(waiting, 10)
            harness.tell(job)  # late: nobody waits any more
            await queue.listen_once()

    asyncio.run(main())
    assert harness.left == 0, "it is known here, so it is not given back"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(FOREIGN, id="foreign"),
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
def test_what_concerns_nobody_here_is_deleted_at_once(harness, body):
    queue, _, _ = harness.triggerer()
    harness.send(body)
    asyncio.run(queue.listen_once())
    assert (harness.left, queue.counts["thrown_away"]) == (0, 1)


def through_sns(body):
    return json.dumps({"Type": "Notification", "TopicArn": "arn:aws:sns:::events", "Message": body})


def test_an_event_that_came_through_sns_makes_the_end_known_at_once(harness):
    queue, watch, _ = harness.triggerer()
    job, send = harness.task(), harness.send
    harness.send = lambda body: send(through_sns(body))

    async def main():
        with running(end_of(watch, job)) as waiting:
            await until(lambda: watch.counts["polls"] == 1)
            harness.aws.ecs.finish(job.id)
            harness.tell(job)
            await queue.listen_once()
            return await asyncio.wait_for(waiting, 10)

    assert asyncio.run(main()).phase is Phase.SUCCEEDED
    assert (queue.counts["woke"], harness.left) == (1, 0)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        pytest.param("{", "a text that is not JSON", id="malformed"),
        pytest.param(
            json.dumps(
                {"taskArn": "arn:task/etl/9", "startedBy": f"af-{TASK_KEY}-1", "lastStatus": "STOPPED"}
            ),
            'only the detail of an event "ECS Task State Change", as a rule with InputPath $.detail sends it',
            id="the-detail-alone",
        ),
    ],
)
def test_what_cannot_be_read_is_said_once_set_aside_for_a_while_and_then_deleted(
    harness, monkeypatch, caplog, body, what
):
    monkeypatch.setattr("airflow_resilient.watching.events._VISIBILITY_SECONDS", 0)
    queue, _, _ = harness.triggerer()
    harness.send(body)
    left = []

    async def main():
        for _ in range(MAX_RECEIVES + 1):
            await queue.listen_once()
            left.append(harness.left)

    asyncio.run(main())
    assert left == [1] * (MAX_RECEIVES - 1) + [0, 0]
    assert queue.counts["unreadable"] == MAX_RECEIVES
    assert queue.counts["thrown_away"] == 0
    assert caplog.text.count("cannot be read") == 1
    assert what in caplog.text
    assert "no InputPath" in caplog.text


def test_a_dead_letter_queue_gets_what_cannot_be_read(harness, monkeypatch):
    monkeypatch.setattr("airflow_resilient.watching.events._VISIBILITY_SECONDS", 0)
    dead = harness.sqs.create_queue(QueueName="dead")["QueueUrl"]
    arn = harness.sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": MAX_RECEIVES - 1})
    harness.sqs.set_queue_attributes(QueueUrl=harness.url, Attributes={"RedrivePolicy": policy})
    queue, _, _ = harness.triggerer()
    harness.send("somebody else's")

    async def main():
        for _ in range(MAX_RECEIVES + 1):
            await queue.listen_once()

    asyncio.run(main())
    (message,) = harness.sqs.receive_message(QueueUrl=dead)["Messages"]
    assert message["Body"] == "somebody else's"
    assert harness.left == 0


def test_a_claim_with_too_many_digits_does_not_stop_the_listener(harness):
    queue, watch, _ = harness.triggerer()
    job = harness.task()
    detail = {"taskArn": "arn:task/etl/9", "startedBy": f"af-{TASK_KEY}-{'9' * 5000}"}

    async def main():
        with running(end_of(watch, job)) as waiting:
            await until(lambda: watch.counts["polls"] == 1)
            harness.send(
                json.dumps({"source": "aws.ecs", "detail-type": "ECS Task State Change", "detail": detail})
            )
            harness.aws.ecs.finish(job.id)
            harness.tell(job)
            while harness.left:
                await queue.listen_once()
            return await asyncio.wait_for(waiting, 10)

    assert asyncio.run(main()).phase is Phase.SUCCEEDED
    assert queue.counts["errors"] == 0


def test_what_another_triggerer_waits_for_is_given_back_and_found_there(harness):
    first, _, _ = harness.triggerer()
    second, watch, _ = harness.triggerer()
    job = harness.task()

    async def main():
        with running(end_of(watch, job)) as waiting:
            await until(lambda: watch.counts["polls"] == 1)
            harness.aws.ecs.finish(job.id)
            harness.tell(job)
            await first.listen_once()
            assert (first.counts["given_back"], harness.left) == (1, 1)
            while not second.counts["woke"]:
                await second.listen_once()
                await asyncio.sleep(0.1)
            return await asyncio.wait_for(waiting, 10)

    assert asyncio.run(main()).phase is Phase.SUCCEEDED
    assert harness.left == 0


def test_an_event_that_nobody_waits_for_is_given_back_a_few_times_and_then_deleted(harness, monkeypatch):
    monkeypatch.setattr("airflow_resilient.watching.events.GIVE_BACK_SECONDS", 0)
    queue, _, _ = harness.triggerer()
    harness.tell(harness.task())

    async def main():
        for _ in range(MAX_RECEIVES + 2):
            await queue.listen_once()

    asyncio.run(main())
    assert (queue.counts["received"], queue.counts["given_back"]) == (MAX_RECEIVES, MAX_RECEIVES - 1)
    assert harness.left == 0


def test_an_old_event_that_nobody_waits_for_is_deleted_at_once(harness):
    watches = []
    queue = EventQueue(
        harness.url,
        AwsAccess(None),
        lambda: watches,
        lambda _: True,
        readers=READERS,
        long_poll=0,
        wall=lambda: time.time() + 3600,
    )
    harness.tell(harness.task())
    asyncio.run(queue.listen_once())
    assert (harness.left, queue.counts["thrown_away"]) == (0, 1)


def test_a_queue_that_fails_is_logged_once_and_read_again(harness, caplog):
    queue, watch, _ = harness.triggerer()
    job = harness.task()
    harness.sqs.delete_queue(QueueUrl=harness.url)
    queue._random = lambda: -1.49  # no time for back-off

    async def main():
        with (
            running(queue.listen()),
            running(end_of(watch, job, PollPolicy(interval=0.5, first_interval=0.2))) as waiting,
        ):
            await until(lambda: queue.counts["errors"] >= 3)
            harness.aws.ecs.finish(job.id)
            assert (await asyncio.wait_for(waiting, 10)).phase is Phase.SUCCEEDED, "polling goes on"
            harness.sqs.create_queue(QueueName="airflow-events")
            harness.send(FOREIGN)
            await until(lambda: queue.counts["thrown_away"] == 1)
            await until(lambda: "events are received again" in caplog.text)

    with caplog.at_level(logging.INFO, "airflow_resilient.watching.events"):
        asyncio.run(main())
    assert caplog.text.count("no events from") == 1
    assert "Nothing fails" in caplog.text


def test_without_a_queue_nothing_but_the_delay_changes(harness):
    _, watch, _ = harness.triggerer()
    job = harness.task()

    async def main():
        with running(end_of(watch, job, PollPolicy(interval=1.0, first_interval=0.2))) as waiting:
            await until(lambda: watch.counts["polls"] == 1)
            harness.aws.ecs.finish(job.id)
            return await asyncio.wait_for(waiting, 10)

    assert asyncio.run(main()).phase is Phase.SUCCEEDED


def test_a_triggerer_that_stops_does_not_wait_for_the_long_poll(harness):
    queue = EventQueue(harness.url, AwsAccess(None), list, lambda _: True, readers=READERS, long_poll=5)

    def polling():
        return "airflow-resilient-_receive" in {thread.name for thread in threading.enumerate()}

    async def main():
        with running(queue.listen()):
            await until(polling)

    asyncio.run(main())
    assert polling(), "the thread waits on, and nobody for it"
    while polling():
        time.sleep(0.1)
