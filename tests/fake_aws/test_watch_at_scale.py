"""The watch and the adapters against the fake AWS that throttles as AWS does, in virtual time."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import aclosing
from dataclasses import replace

import boto3
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, NoCredentialsError

from airflow_resilient.core.job import Claim, Job, Phase
from airflow_resilient.core.polling import PollPolicy
from airflow_resilient.services.ecs.client import EcsTasks
from airflow_resilient.services.emr_steps.client import EmrSteps
from airflow_resilient.services.emr_steps.marker import mark
from airflow_resilient.testing.aws.account import BucketSize, FakeAws
from airflow_resilient.testing.virtual_time import VirtualTimeLoop, in_line
from airflow_resilient.watching.budget import SharedBucket
from airflow_resilient.watching.shared_watch import SharedWatch

TASK_KEY = "abcdefghijklmnop"
START = 1_800_000_000.0
CALM = PollPolicy(interval=30.0)


class Harness:
    """A fake AWS, a watch on it, and the waits, all in one virtual time."""

    def __init__(self, service, share=1.0, **aws):
        self.loop = VirtualTimeLoop()
        self.aws = FakeAws(clock=lambda: START + self.loop.time(), **aws)
        self.service_class, self.share = service, share
        self.first_polls, self.ends, self.clusters = {}, {}, {}

    def __enter__(self):
        self.aws.__enter__()
        self.service = self.service_class(aws_conn_id=None)
        budgets = (self.service.budget, *self.service.more_budgets)
        buckets = [SharedBucket(each, self.share, self.loop.time, self.sleep) for each in budgets]
        self.bucket = buckets[0]
        self.watch = SharedWatch(
            self.service, in_line, self.loop.time, lambda: 0.5, wall=self.aws.now, buckets=buckets
        )
        return self

    def __exit__(self, *error):
        self.loop.close()
        self.aws.__exit__(*error)

    def sleep(self, seconds):
        self.loop.skipped += seconds

    async def wait_for(self, job, poll_policy=CALM):
        async with aclosing(self.watch.follow(job, poll_policy)) as follow:
            async for observed in follow:
                self.first_polls.setdefault(job.id, self.loop.time())
                if not observed.live:
                    self.ends[job.id] = self.loop.time()
                    return observed
        raise AssertionError("it ended without an end")

    def run(self, jobs, seconds=None, poll_policy=CALM):
        """Wait for the end of `jobs`, or for some time; what was seen of each."""

        async def main():
            waits = [asyncio.ensure_future(self.wait_for(job, poll_policy)) for job in jobs]
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
            step = {
                "Name": "sort",
                "ActionOnFailure": "CONTINUE",
                "HadoopJarStep": {"Jar": "command-runner.jar"},
            }
            claims = [Claim(TASK_KEY, number) for number in range(1, each + 1)]
            request = [marked for claim in claims for marked in mark([step], claim, cluster)]
            ids = emr.add_job_flow_steps(JobFlowId=cluster, Steps=request)["StepIds"]
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
            claim = Claim(TASK_KEY, number)
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
    with Harness(EmrSteps, throttling=True) as harness:
        harness.aws.emr.plan(seconds=40.0)
        jobs = harness.steps(clusters=20, each=50)
        with caplog.at_level(logging.INFO, "airflow_resilient.watching.shared_watch"):
            ends = harness.run(jobs)
        assert len(ends) == 1000
        assert {end.phase for end in ends} == {Phase.SUCCEEDED}
        assert {call.answer for call in harness.calls("emr:ListSteps")} == {"ok"}, "never throttled"
        for window in (1.0, 10.0, 60.0, 600.0):
            assert harness.most_in(window, "emr:ListSteps") <= 10 + 0.5 * window + 1
        assert harness.loop.time() < 200 + 160, "they have ended after 200 s, and everybody is seen in 80"
    messages = [record.message for record in caplog.records if "freshness" in record.message]
    assert messages[0].startswith(
        "freshness 80 s: 1 000 waits on 20 clusters share 0.5 calls/s of emr:ListSteps; nothing fails"
    )
    assert len(messages) <= 2, "logged once, and once that it is over"


def test_ecs_tasks_by_the_hundred_are_polled_in_time_and_within_half_the_budget():
    with Harness(EcsTasks, share=0.5, throttling=True) as harness:
        harness.aws.ecs.plan(seconds=45.0)
        jobs = harness.tasks(300)
        ends = harness.run(jobs, poll_policy=PollPolicy(interval=15.0, first_interval=10.0))
        assert len(ends) == 300
        assert {call.answer for call in harness.calls("ecs:DescribeTasks")} == {"ok"}
        assert harness.bucket.calls == len(harness.calls("ecs:DescribeTasks")), "and nothing else was asked"
        assert harness.most_in(1.0, "ecs:DescribeTasks") <= 50 + 10
        late = [end - harness.began - 45.0 for end in harness.ends.values()]
        assert max(late) <= 15.0


@pytest.mark.parametrize("allowed", [0.1, 0.3])
def test_the_rate_settles_within_a_tenth_of_what_the_endpoint_allows(allowed):
    """Others use what is not allowed us."""
    sizes = {"emr:ListSteps": BucketSize(10, allowed)}
    with Harness(EmrSteps, throttling=True, buckets=sizes) as harness:
        harness.aws.emr.plan(seconds=None)
        jobs = harness.steps(clusters=20, each=1)
        end = 6000.0 / (10 * allowed)
        assert harness.run(jobs, seconds=end) == [], "no wait fails"
        settled = [call for call in harness.calls("emr:ListSteps") if call.time > START + end / 4]
        answered = [call for call in settled if call.answer == "ok"]
        assert len(answered) / (end * 3 / 4) == pytest.approx(allowed, rel=0.1)
        assert len(settled) - len(answered) <= 0.15 * len(settled)


def test_the_active_steps_of_a_cluster_are_asked_for_by_pages_or_by_ids_whichever_takes_fewer_calls():
    with Harness(EmrSteps) as harness:
        harness.aws.emr.plan(seconds=None)
        many, few = harness.steps(1, each=200), harness.steps(1, each=200)

        def calls_of(jobs):
            before = harness.bucket.calls
            assert {each.id for each in harness.service.observe(jobs)} == {job.id for job in jobs}
            return harness.bucket.calls - before

        assert calls_of(many) == 4, "pages of 50"
        assert harness.service.cost(many) == 5, "and one for those that end meanwhile"
        for job in many[:3]:
            harness.aws.emr.finish(job.id)
        assert calls_of(many) == 5
        assert calls_of(few[:8]) == 1
        assert calls_of(few[:10] + many[:10]) == 2, "one for each cluster"
        harness.service._active[few[0].scope] = 200
        assert calls_of(few[:40]) == 4, "ids are as cheap as pages, and exact"
        assert calls_of(few[:40]) == 1, "what was seen gets old: the page of the newest has them all"


class OnlyListed(EmrSteps):
    """As if ListSteps were the only call."""

    def ways(self, jobs):
        return super().ways(jobs)[:1]


@pytest.mark.parametrize(
    ("steps", "kind", "seconds"),
    [
        pytest.param([1] * 10 + [9] * 10, OnlyListed, 80.0, id="uneven-listed"),
        pytest.param([1] * 10 + [9] * 10, EmrSteps, 40.0, id="uneven-described-beside"),
        pytest.param([5] * 20, OnlyListed, 80.0, id="even-listed"),
        pytest.param([5] * 20, EmrSteps, 68.0, id="even-described-beside"),
    ],
)
def test_a_hundred_waits_on_twenty_clusters_are_fresher_with_a_second_call(steps, kind, seconds):
    """Half of each budget. Where half of the clusters have one step each, DescribeStep takes all of those."""
    with Harness(kind, share=0.5, throttling=True) as harness:
        harness.aws.emr.plan(seconds=None)
        jobs = [
            replace(job, created=job.created - 3600) for each in steps for job in harness.steps(1, each=each)
        ]
        oldest, freshness = [], set()

        async def main():
            waits = [asyncio.ensure_future(harness.wait_for(job)) for job in jobs]
            await asyncio.sleep(300)
            for _ in range(30):
                await asyncio.sleep(10)
                gauges = harness.watch.gauges()
                oldest.append(gauges["oldest_poll"])
                freshness.add(gauges["freshness"])
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

        harness.aws.forget_calls()
        harness.loop.run_until_complete(main())
        assert freshness == {seconds}
        assert max(oldest) <= seconds * 1.2
        assert {call.answer for call in harness.aws.journal} == {"ok"}, "never throttled"
        for window in (1.0, 10.0, 60.0, 600.0):
            for operation in {call.operation for call in harness.aws.journal}:
                assert harness.most_in(window, operation) <= 5 + 0.25 * window + 1


def test_without_the_permission_for_the_second_call_steps_are_listed(caplog):
    with Harness(EmrSteps) as harness:
        harness.aws.emr.plan(seconds=None)
        jobs = harness.steps(1, each=2)
        (listing, describing) = harness.service.ways(jobs)
        assert (listing.calls, describing.calls) == (1.0, 2.0)
        harness.aws.fail_next("emr:DescribeStep", "AccessDeniedException")
        assert len(harness.service.observe_by(describing.operation, jobs)) == 2
        assert harness.service.ways(jobs) == (listing,)
    assert "Allow elasticmapreduce:DescribeStep to this connection." in caplog.text


@pytest.mark.parametrize("operation", ["emr:ListSteps", "emr:DescribeStep"])
def test_both_calls_see_the_same(operation):
    with Harness(EmrSteps) as harness:
        harness.aws.emr.plan(seconds=None)
        jobs = harness.steps(1, each=4)
        harness.aws.emr.finish(jobs[0].id)
        harness.aws.emr.finish(jobs[1].id, outcome="FAILED")
        unknown = replace(jobs[0], id="s-0123456789ABC")
        observed = {job.id: job.phase for job in harness.service.observe_by(operation, [*jobs, unknown])}
        assert observed == {
            jobs[0].id: Phase.SUCCEEDED,
            jobs[1].id: Phase.FAILED,
            jobs[2].id: Phase.RUNNING,
            jobs[3].id: Phase.RUNNING,
        }


def test_a_cluster_that_is_not_there_is_refused_by_both_calls():
    with Harness(EmrSteps) as harness:
        (job,) = harness.steps(1, each=1)
        for operation in ("emr:ListSteps", "emr:DescribeStep"):
            with pytest.raises(ClientError) as raised:
                harness.service.observe_by(operation, [replace(job, scope="j-0123456789ABC")])
            assert harness.service.refuses_scope(raised.value)


def test_what_lacks_steps_can_only_be_listed():
    with Harness(EmrSteps) as harness:
        jobs = harness.steps(1, each=2)
        lacking = replace(jobs[0], facts={"of": 2, "steps": [[jobs[0].id, "RUNNING"]]})
        assert [way.operation for way in harness.service.ways([lacking, jobs[1]])] == ["emr:ListSteps"]


def test_all_calls_of_emr_count_in_one_budget_too():
    with Harness(EmrSteps) as harness:
        listing, describing, everything = harness.watch.buckets
        jobs = harness.steps(1, each=2)
        harness.service.observe(jobs)
        harness.service.observe_by("emr:DescribeStep", jobs)
        harness.service.client().describe_cluster(ClusterId=jobs[0].scope)
        assert (listing.calls, describing.calls, everything.calls) == (1, 2, 4)
        harness.aws.fail_next("emr:DescribeStep", "ThrottlingException")
        with pytest.raises(ClientError, match="Throttling"):
            harness.service.observe_by("emr:DescribeStep", jobs)
        rates = [bucket.state.rate / bucket.state.ceiling for bucket in harness.watch.buckets]
        assert rates == [1.0, 0.5, 0.5], "AWS does not say which of its limits was reached"


def test_a_limit_on_all_calls_of_emr_slows_polls_and_ends_no_wait():
    sizes = {"emr": BucketSize(5, 0.2)}
    with Harness(EmrSteps, throttling=True, buckets=sizes) as harness:
        harness.aws.emr.plan(seconds=None)
        jobs = harness.steps(clusters=20, each=1)
        assert harness.run(jobs, seconds=8000.0) == [], "no wait fails"
        settled = [call for call in harness.aws.journal if call.time > START + 2000]
        answered = [call for call in settled if call.answer == "ok"]
        assert len(answered) / 6000 == pytest.approx(0.2, rel=0.15)


def test_most_of_the_steps_may_end_at_once():
    with Harness(EmrSteps) as harness:
        harness.aws.emr.plan(seconds=None)
        jobs = harness.steps(1, each=200)
        harness.service.observe(jobs)
        for job in jobs[:160]:
            harness.aws.emr.finish(job.id)
        before = harness.bucket.calls
        observed = {each.id: each for each in harness.service.observe(jobs)}
        assert [observed[job.id].live for job in jobs] == [False] * 160 + [True] * 40
        assert harness.bucket.calls - before == 1 + 16


# --- counting -------------------------------------------------------------------------------------


def test_calls_outside_of_polls_are_counted_and_so_are_retries_of_botocore():
    with Harness(EmrSteps) as harness:
        (job,) = harness.steps(1, each=1)
        harness.aws.fail_next("emr:ListSteps", "ThrottlingException", times=2)
        harness.service.job_flow_id = job.scope
        assert [found.id for found in harness.service.find([job.claim])] == [job.id]
        assert (harness.bucket.calls, harness.bucket.throttles) == (3, 2), (
            "attempts that botocore hides count"
        )
        assert harness.bucket.state.rate < 0.5
        harness.service.cancel(job, "the test asks for it")
        assert harness.bucket.calls == len(harness.calls("emr:ListSteps"))


def test_a_poll_is_one_attempt():
    with Harness(EmrSteps) as harness:
        (job,) = harness.steps(1, each=1)
        harness.aws.fail_next("emr:ListSteps", "ThrottlingException")
        with pytest.raises(ClientError, match="Throttling"):
            harness.service.observe([job])
        assert harness.aws.calls["emr:ListSteps"] == 1
        assert len(harness.service.observe([job])) == 1


def test_a_lost_answer_is_a_call_too():
    with Harness(EmrSteps) as harness:
        (job,) = harness.steps(1, each=1)
        harness.aws.fail_next("emr:ListSteps", answer="drop")
        with pytest.raises(ConnectionClosedError):
            harness.service.observe([job])
        assert (harness.bucket.calls, harness.bucket.throttles) == (1, 0)


def test_polls_time_out_soon_unless_the_connection_sets_another_limit():
    usual = EmrSteps(aws_conn_id=None, region_name="eu-west-1").access
    patient = EmrSteps(
        aws_conn_id=None,
        region_name="eu-west-1",
        botocore_config={"read_timeout": 77, "retries": {"mode": "standard"}},
    ).access
    config = usual.client("emr", polling=True).meta.config
    assert (config.read_timeout, config.connect_timeout, config.retries["total_max_attempts"]) == (20, 20, 1)
    assert patient.client("emr", polling=True).meta.config.read_timeout == 77
    assert patient.client("emr", polling=True).meta.config.retries["total_max_attempts"] == 1
    assert usual.client("emr").meta.config.read_timeout == 60, "of polls alone"


def test_answers_to_polls_are_trimmed_before_botocore_reads_them():
    with Harness(EcsTasks) as harness:
        jobs = harness.tasks(2)
        arns = [job.id for job in jobs]
        whole, trimmed = (
            harness.service.access.client("ecs", polling=polling).describe_tasks(cluster="etl", tasks=arns)
            for polling in (False, True)
        )
        assert "cpu" in whole["tasks"][0]
        assert "cpu" not in trimmed["tasks"][0]
        assert [each["taskArn"] for each in trimmed["tasks"]] == arns


@pytest.mark.parametrize("trim", [json.loads, lambda body: body["tasks"]])
def test_an_answer_that_cannot_be_trimmed_is_read_as_it_is(trim):
    with Harness(EcsTasks) as harness:
        jobs = harness.tasks(2)
        harness.service.access.trim("ecs:DescribeTasks", lambda body: trim(b"something else"))
        assert len(harness.service.observe(jobs)) == 2


def test_what_uses_one_connection_and_region_has_one_account():
    implicit, explicit = EmrSteps(aws_conn_id=None), EmrSteps(aws_conn_id=None, region_name="us-east-1")
    elsewhere = EmrSteps(aws_conn_id=None, region_name="eu-west-1")
    with FakeAws(region="us-east-1"):
        assert implicit.account() == explicit.account() == "the credentials of this machine/us-east-1"
        assert elsewhere.account() == "the credentials of this machine/eu-west-1"


KEYS = {"login": "AKIAONE", "password": "a"}
ROLE = "arn:aws:iam::123456789012:role/"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param(KEYS, KEYS, True, id="one-access-key"),
        pytest.param(KEYS, {**KEYS, "login": "AKIATWO"}, False, id="two-access-keys"),
        pytest.param({}, {"extra": {"region_name": "us-east-1"}}, True, id="no-credentials-of-their-own"),
        pytest.param({}, {"extra": {"profile_name": "etl"}}, False, id="a-profile"),
        pytest.param(
            {"extra": {"role_arn": f"{ROLE}etl"}},
            {**KEYS, "extra": {"role_arn": f"{ROLE}other"}},
            True,
            id="two-roles-of-an-account",
        ),
        pytest.param(
            {"extra": {"role_arn": f"{ROLE}etl"}},
            {"extra": {"role_arn": "arn:aws:iam::210987654321:role/etl"}},
            False,
            id="roles-of-two-accounts",
        ),
        pytest.param(KEYS, {**KEYS, "extra": {"endpoint_url": "http://a.test"}}, False, id="not-at-aws"),
    ],
)
def test_two_connections_share_a_budget_where_they_are_known_to_reach_one_account(
    one, other, same, monkeypatch
):
    for name, connection in (("ONE", one), ("OTHER", other)):
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps({"conn_type": "aws", **connection}))
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with FakeAws(region="us-east-1"):
        first, second = (
            EmrSteps(aws_conn_id=name, region_name="us-east-1").account() for name in ("one", "other")
        )
    assert (first == second) is same
    assert not {"connection one", "connection other"} & {first.partition("/")[0], second.partition("/")[0]}


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["ExpiredTokenException", "UnrecognizedClientException"])
def test_a_client_whose_credentials_have_expired_is_made_again(code):
    with Harness(EcsTasks) as harness:
        harness.aws.ecs.plan(seconds=30.0)
        jobs = harness.tasks(3)
        before = harness.service.access.client("ecs", polling=True)
        harness.aws.fail_next("ecs:DescribeTasks", code, times=2)
        assert len(harness.run(jobs)) == 3, "and nobody notices"
        assert harness.service.access.client("ecs", polling=True) is not before


def test_lost_credentials_are_searched_for_again(monkeypatch):
    with Harness(EcsTasks) as harness:
        harness.aws.ecs.plan(seconds=None)
        jobs = harness.tasks(2)
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        harness.service.access.forget_clients()
        with pytest.raises(NoCredentialsError) as raised:
            harness.service.observe(jobs)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        with pytest.raises(NoCredentialsError):
            harness.service.observe(jobs)
        assert not harness.service.is_transient(raised.value), "forever would be too long"
        assert len(harness.service.observe(jobs)) == 2


def test_clients_are_not_made_again_at_every_refusal():
    access = EcsTasks(aws_conn_id=None, region_name="us-east-1").access
    denied = ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "DescribeTasks")
    made = []
    for _ in range(5):
        made.append(access.client("ecs", polling=True))
        assert not access.is_transient(denied)
    assert len(set(map(id, made))) == 2


def test_a_denied_cluster_does_not_harm_its_neighbours():
    with Harness(EcsTasks) as harness:
        harness.aws.ecs.plan(seconds=60.0)
        allowed, denied = harness.tasks(50), harness.tasks(50, cluster="secret")
        harness.aws.ecs.plan(seconds=None)
        observe = harness.service.observe

        def judged(jobs):
            if jobs[0].scope.endswith("secret"):
                harness.aws.fail_next("ecs:DescribeTasks", "AccessDeniedException")
            return observe(jobs)

        harness.service.observe = judged
        poll_policy = PollPolicy(interval=10.0, give_up_after_denials=3)

        async def refused(job):
            with pytest.raises(ClientError, match="AccessDenied"):
                await harness.wait_for(job, poll_policy)

        async def main():
            waits = [harness.wait_for(job, poll_policy) for job in allowed]
            return await asyncio.gather(*waits, *map(refused, denied))

        harness.aws.forget_calls()
        ends = harness.loop.run_until_complete(main())
        assert [end.phase for end in ends[:50]] == [Phase.SUCCEEDED] * 50
        refusals = [
            call for call in harness.calls("ecs:DescribeTasks") if call.answer == "AccessDeniedException"
        ]
        assert len(refusals) == poll_policy.give_up_after_denials, (
            "one poll for all of the cluster, three times"
        )
