"""The watch and the adapters against the fake AWS that throttles as AWS does, in a time that is made up."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import aclosing

import boto3
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, NoCredentialsError

from airflow_resilient.budget import SharedBucket
from airflow_resilient.ecs import EcsTasks
from airflow_resilient.emr import EmrSteps
from airflow_resilient.jobs import Claim, Job, Phase
from airflow_resilient.testing._made_up_time import MadeUpTime, in_line
from airflow_resilient.testing.fake_aws import BucketSize, FakeAws
from airflow_resilient.watch import Patience, SharedWatch

FAMILY = "abcdefghijklmnop"
START = 1_800_000_000.0
CALM = Patience(poll=30.0)


class Hall:
    """A fake AWS, a watch on it, and those who wait; all in one time."""

    def __init__(self, service, share=1.0, **aws):
        self.loop = MadeUpTime()
        self.aws = FakeAws(clock=lambda: START + self.loop.time(), **aws)
        self.service_class, self.share = service, share
        self.looks, self.ends, self.clusters = {}, {}, {}

    def __enter__(self):
        self.aws.__enter__()
        self.service = self.service_class(aws_conn_id=None)
        self.bucket = SharedBucket(self.service.budget, self.share, self.loop.time, self.sleep)
        self.watch = SharedWatch(
            self.service, in_line, self.loop.time, lambda: 0.5, wall=self.aws.now, bucket=self.bucket
        )
        return self

    def __exit__(self, *error):
        self.loop.close()
        self.aws.__exit__(*error)

    def sleep(self, seconds):
        self.loop.skipped += seconds

    async def wait_for(self, job, patience=CALM):
        async with aclosing(self.watch.follow(job, patience)) as follow:
            async for look in follow:
                self.looks.setdefault(job.id, self.loop.time())
                if not look.live:
                    self.ends[job.id] = self.loop.time()
                    return look
        raise AssertionError("it ended without an end")

    def run(self, jobs, seconds=None, patience=CALM):
        """Wait for the end of `jobs`, or for some time; what was seen of each."""

        async def main():
            waits = [asyncio.ensure_future(self.wait_for(job, patience)) for job in jobs]
            done, pending = await asyncio.wait(waits, timeout=seconds)
            for wait in pending:
                wait.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            return [wait.result() for wait in done]

        self.aws.forget_calls()
        return self.loop.run_until_complete(main())

    def steps(self, clusters, each, concurrency=10):
        """Add steps to new clusters, past the throttling; as many jobs."""
        throttling, self.aws.throttling = self.aws.throttling, False
        emr, jobs = boto3.client("emr"), []
        for _ in range(clusters):
            cluster = self.aws.make_emr_cluster(concurrency=concurrency)
            request = [
                {
                    "Name": f"sort [af-{FAMILY}-{number}]",
                    "ActionOnFailure": "CONTINUE",
                    "HadoopJarStep": {"Jar": "command-runner.jar"},
                }
                for number in range(1, each + 1)
            ]
            ids = emr.add_job_flow_steps(JobFlowId=cluster, Steps=request)["StepIds"]
            claims = (Claim(FAMILY, number) for number in range(1, each + 1))
            jobs += [
                Job(step, claim, Phase.QUEUED, self.aws.now(), scope=cluster)
                for step, claim in zip(ids, claims, strict=True)
            ]
        self.aws.throttling = throttling
        return jobs

    def tasks(self, count, cluster="etl"):
        """Start ECS tasks, past the throttling; as many jobs."""
        if cluster not in self.clusters:
            self.clusters[cluster] = self.aws.make_ecs_cluster(cluster)
            self.aws.make_task_definition("nightly")
        run = self.aws.ecs.actions["RunTask"]
        request = {"cluster": cluster, "taskDefinition": "nightly", "launchType": "EC2", "count": 1}
        jobs = []
        for number in range(1, count + 1):
            claim = Claim(FAMILY, number)
            (task,) = run(self.aws.region, {**request, "startedBy": str(claim)})["tasks"]
            jobs.append(Job(task["taskArn"], claim, Phase.QUEUED, self.aws.now(), scope=task["clusterArn"]))
        self.began = self.loop.time()
        return jobs

    def calls(self, operation):
        return [call for call in self.aws.journal if call.operation == operation]

    def most_in(self, window, operation):
        """The largest number of calls of an operation in any window of that many seconds."""
        times = [call.time for call in self.calls(operation)]
        return max(sum(1 for time in times if begin <= time <= begin + window) for begin in times)


def test_a_thousand_steps_on_twenty_clusters_stay_within_half_a_call_a_second(caplog):
    with Hall(EmrSteps, throttling=True) as hall:
        hall.aws.emr.plan(seconds=40.0)
        jobs = hall.steps(clusters=20, each=50)
        with caplog.at_level(logging.INFO, "airflow_resilient.watch"):
            ends = hall.run(jobs)
        assert len(ends) == 1000
        assert {end.phase for end in ends} == {Phase.SUCCEEDED}
        assert {call.answer for call in hall.calls("emr:ListSteps")} == {"ok"}, "never throttled"
        for window in (1.0, 10.0, 60.0, 600.0):
            assert hall.most_in(window, "emr:ListSteps") <= 10 + 0.5 * window + 1
        assert hall.loop.time() < 200 + 160, "they have ended after 200 s, and everybody is seen in 80"
    told = [record.message for record in caplog.records if "freshness" in record.message]
    assert told[0].startswith(
        "freshness 80 s: 1 000 waits on 20 clusters share 0.5 calls/s of emr:ListSteps; nothing fails"
    )
    assert len(told) <= 2, "it is said once, and once that it is over"


def test_ecs_tasks_by_the_hundred_are_looked_at_in_time_and_within_half_the_budget():
    with Hall(EcsTasks, share=0.5, throttling=True) as hall:
        hall.aws.ecs.plan(seconds=45.0)
        jobs = hall.tasks(300)
        ends = hall.run(jobs, patience=Patience(poll=15.0, first=10.0))
        assert len(ends) == 300
        assert {call.answer for call in hall.calls("ecs:DescribeTasks")} == {"ok"}
        assert hall.bucket.calls == len(hall.calls("ecs:DescribeTasks")), "and nothing else was asked"
        assert hall.most_in(1.0, "ecs:DescribeTasks") <= 50 + 10
        late = [end - hall.began - 45.0 for end in hall.ends.values()]
        assert max(late) <= 15.0


@pytest.mark.parametrize("allowed", [0.1, 0.3])
def test_the_rate_settles_within_a_tenth_of_what_the_endpoint_allows(allowed):
    """Others use what is not allowed us."""
    sizes = {"emr:ListSteps": BucketSize(10, allowed)}
    with Hall(EmrSteps, throttling=True, buckets=sizes) as hall:
        hall.aws.emr.plan(seconds=None)
        jobs = hall.steps(clusters=20, each=1)
        end = 6000.0 / (10 * allowed)
        assert hall.run(jobs, seconds=end) == [], "no wait fails"
        settled = [call for call in hall.calls("emr:ListSteps") if call.time > START + end / 4]
        answered = [call for call in settled if call.answer == "ok"]
        assert len(answered) / (end * 3 / 4) == pytest.approx(allowed, rel=0.1)
        assert len(settled) - len(answered) <= 0.15 * len(settled)


def test_the_active_steps_of_a_cluster_are_asked_for_by_pages_or_by_ids_whichever_takes_fewer_calls():
    with Hall(EmrSteps) as hall:
        hall.aws.emr.plan(seconds=None)
        many, few = hall.steps(1, each=200), hall.steps(1, each=200)

        def calls_of(jobs):
            before = hall.bucket.calls
            assert {look.id for look in hall.service.observe(jobs)} == {job.id for job in jobs}
            return hall.bucket.calls - before

        assert calls_of(many) == 4, "pages of 50"
        assert hall.service.cost(many) == 5, "and one for those that end meanwhile"
        for job in many[:3]:
            hall.aws.emr.finish(job.id)
        assert calls_of(many) == 5
        assert calls_of(few[:8]) == 1
        assert calls_of(few[:10] + many[:10]) == 2, "one for each cluster"
        hall.service._active[few[0].scope] = 200
        assert calls_of(few[:40]) == 4, "ids are as cheap as pages, and exact"
        assert calls_of(few[:40]) == 1, "what was seen gets old: the page of the newest has them all"


def test_most_of_the_steps_may_end_at_once():
    with Hall(EmrSteps) as hall:
        hall.aws.emr.plan(seconds=None)
        jobs = hall.steps(1, each=200)
        hall.service.observe(jobs)
        for job in jobs[:160]:
            hall.aws.emr.finish(job.id)
        before = hall.bucket.calls
        looks = {look.id: look for look in hall.service.observe(jobs)}
        assert [looks[job.id].live for job in jobs] == [False] * 160 + [True] * 40
        assert hall.bucket.calls - before == 1 + 16


# --- counting -------------------------------------------------------------------------------------


def test_calls_outside_of_looks_are_counted_and_so_are_retries_of_botocore():
    with Hall(EmrSteps) as hall:
        (job,) = hall.steps(1, each=1)
        hall.aws.fail_next("emr:ListSteps", "ThrottlingException", times=2)
        hall.service.job_flow_id = job.scope
        assert [found.id for found in hall.service.find([job.claim])] == [job.id]
        assert (hall.bucket.calls, hall.bucket.throttles) == (3, 2), "each attempt, though botocore hid two"
        assert hall.bucket.state.rate < 0.5
        hall.service.cancel(job, "the test asks for it")
        assert hall.bucket.calls == len(hall.calls("emr:ListSteps"))


def test_a_look_is_one_attempt():
    with Hall(EmrSteps) as hall:
        (job,) = hall.steps(1, each=1)
        hall.aws.fail_next("emr:ListSteps", "ThrottlingException")
        with pytest.raises(ClientError, match="Throttling"):
            hall.service.observe([job])
        assert hall.aws.calls["emr:ListSteps"] == 1
        assert len(hall.service.observe([job])) == 1


def test_a_lost_answer_is_a_call_too():
    with Hall(EmrSteps) as hall:
        (job,) = hall.steps(1, each=1)
        hall.aws.fail_next("emr:ListSteps", answer="drop")
        with pytest.raises(ConnectionClosedError):
            hall.service.observe([job])
        assert (hall.bucket.calls, hall.bucket.throttles) == (1, 0)


def test_looks_time_out_soon_unless_somebody_says_otherwise():
    usual = EmrSteps(aws_conn_id=None, region_name="eu-west-1").access
    patient = EmrSteps(
        aws_conn_id=None,
        region_name="eu-west-1",
        botocore_config={"read_timeout": 77, "retries": {"mode": "standard"}},
    ).access
    config = usual.client("emr", looking=True).meta.config
    assert (config.read_timeout, config.connect_timeout, config.retries["total_max_attempts"]) == (20, 20, 1)
    assert patient.client("emr", looking=True).meta.config.read_timeout == 77
    assert patient.client("emr", looking=True).meta.config.retries["total_max_attempts"] == 1
    assert usual.client("emr").meta.config.read_timeout == 60, "of looks alone"


def test_answers_to_looks_are_trimmed_before_botocore_reads_them():
    with Hall(EcsTasks) as hall:
        jobs = hall.tasks(2)
        arns = [job.id for job in jobs]
        whole, trimmed = (
            hall.service.access.client("ecs", looking=looking).describe_tasks(cluster="etl", tasks=arns)
            for looking in (False, True)
        )
        assert "cpu" in whole["tasks"][0]
        assert "cpu" not in trimmed["tasks"][0]
        assert [each["taskArn"] for each in trimmed["tasks"]] == arns


@pytest.mark.parametrize("trim", [json.loads, lambda body: body["tasks"]])
def test_an_answer_that_cannot_be_trimmed_is_read_as_it_is(trim):
    with Hall(EcsTasks) as hall:
        jobs = hall.tasks(2)
        hall.service.access.trim("ecs:DescribeTasks", lambda body: trim(b"something else"))
        assert len(hall.service.observe(jobs)) == 2


def test_what_uses_one_connection_and_region_has_one_account():
    implicit, explicit = EmrSteps(aws_conn_id=None), EmrSteps(aws_conn_id=None, region_name="us-east-1")
    elsewhere = EmrSteps(aws_conn_id=None, region_name="eu-west-1")
    with FakeAws(region="us-east-1"):
        assert implicit.account() == explicit.account() == "None/us-east-1"
        assert elsewhere.account() == "None/eu-west-1"


# --- trouble --------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["ExpiredTokenException", "UnrecognizedClientException"])
def test_a_client_whose_credentials_have_expired_is_made_anew(code):
    with Hall(EcsTasks) as hall:
        hall.aws.ecs.plan(seconds=30.0)
        jobs = hall.tasks(3)
        before = hall.service.access.client("ecs", looking=True)
        hall.aws.fail_next("ecs:DescribeTasks", code, times=2)
        assert len(hall.run(jobs)) == 3, "and nobody notices"
        assert hall.service.access.client("ecs", looking=True) is not before


def test_lost_credentials_are_looked_for_again(monkeypatch):
    with Hall(EcsTasks) as hall:
        hall.aws.ecs.plan(seconds=None)
        jobs = hall.tasks(2)
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        hall.service.access.forget_clients()
        with pytest.raises(NoCredentialsError) as raised:
            hall.service.observe(jobs)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        with pytest.raises(NoCredentialsError):
            hall.service.observe(jobs)
        assert not hall.service.is_transient(raised.value), "for ever would be too long"
        assert len(hall.service.observe(jobs)) == 2


def test_clients_are_not_made_anew_at_every_refusal():
    access = EcsTasks(aws_conn_id=None, region_name="us-east-1").access
    denied = ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "DescribeTasks")
    made = []
    for _ in range(5):
        made.append(access.client("ecs", looking=True))
        assert not access.is_transient(denied)
    assert len(set(map(id, made))) == 2


def test_a_denied_cluster_does_not_harm_its_neighbours():
    with Hall(EcsTasks) as hall:
        hall.aws.ecs.plan(seconds=60.0)
        allowed, denied = hall.tasks(50), hall.tasks(50, cluster="secret")
        hall.aws.ecs.plan(seconds=None)
        observe = hall.service.observe

        def judged(jobs):
            if jobs[0].scope.endswith("secret"):
                hall.aws.fail_next("ecs:DescribeTasks", "AccessDeniedException")
            return observe(jobs)

        hall.service.observe = judged
        patience = Patience(poll=10.0, refused=3)

        async def refused(job):
            with pytest.raises(ClientError, match="AccessDenied"):
                await hall.wait_for(job, patience)

        async def main():
            waits = [hall.wait_for(job, patience) for job in allowed]
            return await asyncio.gather(*waits, *map(refused, denied))

        hall.aws.forget_calls()
        ends = hall.loop.run_until_complete(main())
        assert [end.phase for end in ends[:50]] == [Phase.SUCCEEDED] * 50
        refusals = [
            call for call in hall.calls("ecs:DescribeTasks") if call.answer == "AccessDeniedException"
        ]
        assert len(refusals) == patience.refused, "one look for all of the cluster, three times"
