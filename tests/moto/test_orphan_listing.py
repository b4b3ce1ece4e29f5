"""Jobs of every claim are listed with few calls, and a sweep over both services ends what nobody wants."""

from __future__ import annotations

from collections import Counter

import pytest

from airflow_resilient.aws import AwsAccess
from airflow_resilient.ecs import EcsTasks
from airflow_resilient.emr import EmrSteps
from airflow_resilient.jobs import Claim, Phase, Senses
from airflow_resilient.sweep import Instance, Listable, Place, sweep
from airflow_resilient.testing import FakeAws

OURS = "https://airflow.example.com"
CLAIM = Claim("abcdefghijklmnop", 2)
ACCESS = AwsAccess(None)


@pytest.fixture
def aws():
    with FakeAws(fake_time=True) as fake:
        fake.make_ecs_cluster("etl")
        fake.make_task_definition("nightly")
        fake.ecs.plan("nightly", seconds=None)
        fake.emr.plan(seconds=None)
        yield fake


@pytest.fixture
def emr_cluster(aws):
    return aws.make_emr_cluster("etl", concurrency=10)


def ecs(cluster="etl", **request):
    made = EcsTasks(aws_conn_id=None, cluster=cluster, request={"taskDefinition": "nightly", **request})
    made.access = ACCESS  # a client takes long to make
    return made


def emr(cluster=None, *names, **more):
    wanted = [
        {"Name": name, "ActionOnFailure": "CONTINUE", "HadoopJarStep": {"Jar": "x.jar"}}
        for name in names or ("a",)
    ]
    made = EmrSteps(aws_conn_id=None, job_flow_id=cluster, steps=wanted, **more)
    made.access = ACCESS
    return made


def start_by_hand(**request):
    return ACCESS.client("ecs").run_task(cluster="etl", taskDefinition="nightly", **request)["tasks"]


@pytest.mark.parametrize("service", [ecs(), emr()], ids=["ecs", "emr"])
def test_both_services_can_be_listed(service):
    listable: Listable = service
    assert callable(listable.scopes)
    assert callable(listable.claimed)


# --- ECS ------------------------------------------------------------------------------------------


def test_ecs_lists_what_runs_under_any_claim_and_nothing_else(aws):
    mine, other = ecs().submit(CLAIM), ecs().submit(Claim("b" * 16, 1))
    ended, stopped = ecs().submit(Claim("c" * 16, 1)), ecs().submit(Claim("d" * 16, 1))
    aws.ecs.finish(ended.id)
    ecs().cancel(stopped, "by the test")
    for by in ("ecs-svc/123", f"{CLAIM}-more", f"not-{CLAIM}", None):
        start_by_hand(**({"startedBy": by} if by else {}))
    found = ecs().claimed("etl")
    assert Counter((job.id, str(job.claim)) for job in found) == {
        (mine.id, str(CLAIM)): 1,
        (other.id, "af-bbbbbbbbbbbbbbbb-1"): 1,
    }
    assert {job.phase for job in found} == {Phase.RUNNING}
    assert {job.scope.rpartition("/")[2] for job in found} == {"etl"}
    assert all(job.created == aws.now() for job in found)


def test_ecs_lists_hundreds_of_tasks_with_few_calls(aws):
    for number in range(1, 251):
        ecs().submit(Claim("a" * 16, number))
    aws.forget_calls()
    assert len(ecs().claimed("etl")) == 250
    assert aws.calls == {"ecs:ListTasks": 3, "ecs:DescribeTasks": 3}


def test_ecs_finds_every_cluster(aws):
    aws.make_ecs_cluster("reports")
    assert [arn.rpartition("/")[2] for arn in ecs().scopes()] == ["etl", "reports"]


def test_an_ecs_task_that_cannot_be_described_yet_is_left_out(aws):
    aws.ecs.visible_after_seconds = 60
    ecs().submit(CLAIM)
    assert ecs().claimed("etl") == []


# --- EMR ------------------------------------------------------------------------------------------


def test_emr_lists_what_is_active_under_any_claim_and_nothing_else(aws, emr_cluster):
    mine = emr(emr_cluster, "sort", "join").submit(CLAIM)
    other = emr(emr_cluster).submit(Claim("b" * 16, 1))
    ended = emr(emr_cluster).submit(Claim("c" * 16, 1))
    aws.emr.finish(ended.id)
    client = ACCESS.client("emr")
    stranger = {"Name": f"[{CLAIM}] of somebody else", "ActionOnFailure": "CONTINUE"}
    client.add_job_flow_steps(JobFlowId=emr_cluster, Steps=[{**stranger, "HadoopJarStep": {"Jar": "x.jar"}}])
    found = emr().claimed(emr_cluster)
    assert {(job.id, job.claim) for job in found} == {(mine.id, CLAIM), (other.id, other.claim)}
    assert {job.scope for job in found} == {emr_cluster}
    assert all(job.live for job in found)


def test_emr_lists_the_rest_of_a_job_whose_first_step_has_ended(aws, emr_cluster):
    job = emr(emr_cluster, "sort", "join", "send").submit(CLAIM)
    first, *rest = job.id.split(",")
    aws.emr.finish(first)
    (found,) = emr().claimed(emr_cluster)
    assert found.id == ",".join(rest)
    (look,) = emr().observe([found])
    assert [step for step, _ in look.facts["steps"]] == [first, *rest], "a new look knows all of it"
    emr().cancel(look, "by the test")
    aws.advance(5)
    assert Counter(step.state for step in aws.emr.steps()) == {"COMPLETED": 1, "CANCELLED": 2}


def test_emr_finds_the_clusters_on_which_steps_can_be_active(aws, emr_cluster):
    other = aws.make_emr_cluster("reports")
    gone = aws.make_emr_cluster("gone")
    aws.emr.end_cluster(gone)
    assert set(emr().scopes()) == {emr_cluster, other}


def test_emr_takes_its_time_for_many_clusters(aws):
    clusters = [aws.make_emr_cluster(f"c{number}") for number in range(10)]
    waits = []
    service = emr(sleep=waits.append)
    aws.forget_calls()
    assert [service.claimed(cluster) for cluster in clusters] == [[]] * 10
    assert (aws.calls["emr:ListSteps"], waits) == (10, [2.0, 2.0])


# --- a sweep --------------------------------------------------------------------------------------


class Record:
    """What Airflow knows, kept by hand."""

    def __init__(self):
        self.rows: dict[str, Instance] = {}
        self.left_running: dict[str, str] = {}

    def instances(self, states=(), changed_since=0.0, changed_until=None):
        yield from (row for row in self.rows.values() if not states or row.state in states)

    def look(self, instance):
        return self.rows.get(instance.task_id)

    def left(self, instance):
        return self.left_running.get(instance.task_id)

    def retries(self, instance):
        return 0

    def deferred_slots(self):
        return sum(row.state == "deferred" for row in self.rows.values())


@pytest.mark.parametrize("name", ["ecs", "emr"])
def test_a_sweep_ends_exactly_the_orphans(aws, emr_cluster, name):
    record = Record()
    service = ecs() if name == "ecs" else emr(emr_cluster, "sort", "join")
    jobs = {}
    for state in ("failed", "success", "left", "deferred", "cleared", "deleted"):
        known = {"left": "success", "cleared": None}.get(state, state)
        instance = Instance("etl", "manual__1", state, state=known)
        if state != "deleted":
            record.rows[state] = instance
        jobs[state] = service.submit(Claim(instance.family(OURS), 1))
    record.left_running["left"] = str([jobs["left"].id])
    jobs["foreign"] = service.submit(Claim(record.rows["failed"].family("https://other"), 1))
    aws.advance(3600)
    senses = Senses(aws.now, aws.advance, lambda: 0.5)
    place = Place(name, ecs() if name == "ecs" else emr())

    dry = sweep([place], record, OURS, senses)
    assert sorted(each.verdict.kind.value for each in dry.findings) == [
        "deleted",
        "ended",
        "ended",
        "left",
        "wanted",
        "wanted",
    ]
    assert (dry.foreign, dry.exit_code, dry.troubles) == (1, 1, ())
    assert all(look.live for look in service.observe([*jobs.values()]))

    wet = sweep([place], record, OURS, senses, cancel=True)
    live = {look.id for look in service.observe([*jobs.values()]) if look.live}
    assert live == {jobs[state].id for state in ("left", "deferred", "cleared", "foreign")}
    assert (wet.exit_code, wet.troubles) == (0, ())


def test_a_stopped_ecs_task_says_whose_orphan_it_was(aws):
    record = Record()
    record.rows["sort"] = Instance("etl", "manual__1", "sort", state="failed")
    ecs().submit(Claim(record.rows["sort"].family(OURS), 1))
    aws.advance(3600)
    sweep([Place("ecs", ecs())], record, OURS, Senses(aws.now, aws.advance, lambda: 0.5), cancel=True)
    assert aws.ecs.tasks()[0].reason == "airflow_resilient: orphan of etl / manual__1 / sort: ended"


def test_a_cluster_that_may_not_be_listed_is_said_and_the_other_is_swept(aws):
    senses = Senses(aws.now, aws.advance, lambda: 0.5)
    report = sweep([Place("ecs", ecs(), ("etl", "nowhere"))], Record(), OURS, senses)
    (trouble,) = report.troubles
    assert trouble.startswith("ecs: the jobs of nowhere cannot be listed: ClusterNotFoundException")
    assert report.exit_code == 2


def test_throttles_are_waited_out_and_denials_are_not(aws, emr_cluster):
    senses = Senses(aws.now, aws.advance, lambda: 0.5)
    aws.fail_next("emr:ListSteps", "ThrottlingException", times=7)
    assert sweep([Place("emr", emr())], Record(), OURS, senses).exit_code == 0
    aws.deny("emr:ListClusters")
    aws.forget_calls()
    (trouble,) = sweep([Place("emr", emr())], Record(), OURS, senses).troubles
    assert "the clusters cannot be listed" in trouble
    assert aws.calls["emr:ListClusters"] == 1
