"""What a triggerer keeps: one watch and one client for each address, however many triggers start at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter

import pytest

from airflow_resilient import background
from airflow_resilient.aws.access import AwsAccess
from airflow_resilient.core.job import Claim, Job, Phase
from airflow_resilient.testing.aws.account import FakeAws
from airflow_resilient.testing.in_memory_jobs import InMemoryJobs
from airflow_resilient.testing.virtual_time import VirtualTimeLoop, in_line
from airflow_resilient.triggers import RemoteJobTrigger
from airflow_resilient.watching.shared_watch import SharedWatch
from airflow_resilient.watching.watches import IDLE_SECONDS, Watches

CLAIMS = [Claim("abcdefghijklmnop", number) for number in range(1, 51)]


@pytest.fixture
def made(monkeypatch):
    """How many boto3 clients and watches are made."""
    counts = Counter()

    def counted(name, function):
        def call(*args, **more):
            counts[name] += 1
            return function(*args, **more)

        return call

    monkeypatch.setattr(background, "make_watch", counted("watches", background.make_watch))
    monkeypatch.setattr(AwsAccess, "_make", counted("clients", AwsAccess._make))
    return counts


def trigger(job, service="ecs", **address):
    return RemoteJobTrigger(
        service=service,
        address={"aws_conn_id": None, "region_name": "us-east-1", **address},
        jobs=[job.to_dict()],
        memory={},
        poll_policy={"first_interval": 0.01, "interval": 0.01},
    )


async def events(each):
    return [event async for event in each.run()]


def ended_tasks(aws, count):
    """ECS tasks that have ended."""
    aws.make_ecs_cluster("etl")
    aws.make_task_definition("nightly")
    run = aws.ecs.actions["RunTask"]
    jobs = []
    for claim in CLAIMS[:count]:
        request = {"cluster": "etl", "taskDefinition": "nightly", "launchType": "EC2", "count": 1}
        (task,) = run(aws.region, {**request, "startedBy": str(claim)})["tasks"]
        aws.ecs.finish(task["taskArn"])
        jobs.append(Job(task["taskArn"], claim, Phase.RUNNING, time.time(), scope=task["clusterArn"]))
    return jobs


def test_fifty_triggers_that_start_in_the_same_instant_share_one_watch_and_one_client(made):
    with FakeAws() as aws:
        jobs = ended_tasks(aws, 50)

        async def main():
            return await asyncio.gather(*(events(trigger(job)) for job in jobs))

        reported = asyncio.run(main())
    assert [event.payload["jobs"][0]["phase"] for (event,) in reported] == ["succeeded"] * 50
    assert made == {"watches": 1, "clients": 1}


def test_the_first_trigger_may_be_stopped_while_the_watch_is_made(made, monkeypatch):
    begun, go_on, make = threading.Event(), threading.Event(), background.make_watch

    def slowly(*args):
        begun.set()
        go_on.wait(60)
        return make(*args)

    monkeypatch.setattr(background, "make_watch", slowly)
    with FakeAws() as aws:
        jobs = ended_tasks(aws, 3)

        async def main():
            first, *others = [asyncio.ensure_future(events(trigger(job))) for job in jobs]
            await asyncio.to_thread(begun.wait, 60)
            first.cancel()
            await asyncio.wait([first])
            go_on.set()
            return first.cancelled(), await asyncio.gather(*others)

        cancelled, reported = asyncio.run(main())
    assert cancelled
    assert [event.payload["jobs"][0]["phase"] for (event,) in reported] == ["succeeded"] * 2
    assert made == {"watches": 1, "clients": 1}


def test_an_address_that_cannot_be_used_fails_all_who_ask_and_the_next_one_asks_again(made):
    job = Job("x", CLAIMS[0], Phase.RUNNING, time.time(), scope="etl")

    async def main():
        nowhere = [events(trigger(job, service="nowhere:Service")) for _ in range(20)]
        first = await asyncio.gather(*nowhere, return_exceptions=True)
        second = await asyncio.gather(events(trigger(job, service="nowhere:Service")), return_exceptions=True)
        return first, second

    first, second = asyncio.run(main())
    assert {type(error) for error in [*first, *second]} == {ModuleNotFoundError}
    assert made == {"watches": 2}


def test_watches_that_nobody_uses_are_dropped_in_the_background():
    loop = VirtualTimeLoop()
    watches = Watches(loop.time)

    async def make():
        return SharedWatch(InMemoryJobs(clock=loop.time), in_line, loop.time)

    async def main():
        dropping = asyncio.ensure_future(background.drop_idle_watches(watches))
        for number in range(200):
            await watches.get(f"{number}", make)
        made = len(watches.made())
        await asyncio.sleep(IDLE_SECONDS + background.DROP_SECONDS)
        dropping.cancel()
        return made, watches.made()

    try:
        assert loop.run_until_complete(main()) == (200, [])
    finally:
        loop.close()
