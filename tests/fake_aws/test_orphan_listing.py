"""Jobs of every claim are listed with few calls, and a sweep over both services ends what nobody wants."""

from __future__ import annotations

from collections import Counter

import pytest

from airflow_resilient.aws.access import AwsAccess
from airflow_resilient.core.job import Claim, Phase
from airflow_resilient.core.reconcile import running_on_key
from airflow_resilient.core.retry import Runtime
from airflow_resilient.core.service import RemoteService
from airflow_resilient.operations.sweep import SweepTarget, sweep
from airflow_resilient.operations.task_instances import Instance
from airflow_resilient.services.ecs.client import EcsTasks
from airflow_resilient.services.emr_steps.client import EmrSteps
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
    assert type(service).list_scopes is not RemoteService.list_scopes
    assert type(service).list_jobs is not RemoteService.list_jobs


# --- ECS ------------------------------------------------------------------------------------------


def test_ecs_lists_what_runs_under_any_claim_and_nothing_else(aws):
    mine, other = ecs().submit(CLAIM), ecs().submit(Claim("b" * 16, 1))
    ended, stopped = ecs().submit(Claim("c" * 16, 1)), ecs().submit(Claim("d" * 16, 1))
    aws.ecs.finish(ended.id)
    ecs().cancel(stopped, "by the test")
    for by in ("ecs-svc/123", f"{CLAIM}-more", f"not-{CLAIM}", None):
        start_by_hand(**({"startedBy": by} if by else {}))
    found = ecs().list_jobs("etl")
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
    assert len(ecs().list_jobs("etl")) == 250
    assert aws.calls == {"ecs:ListTasks": 3, "ecs:DescribeTasks": 3}


def test_ecs_finds_every_cluster(aws):
    aws.make_ecs_cluster("reports")
    assert [arn.rpartition("/")[2] for arn in ecs().list_scopes()] == ["etl", "reports"]


def test_an_ecs_task_that_cannot_be_described_yet_is_left_out(aws):
    aws.ecs.visible_after_seconds = 60
    ecs().submit(CLAIM)
    assert ecs().list_jobs("etl") == []


# --- EMR ------------------------------------------------------------------------------------------


def test_emr_lists_what_is_active_under_any_claim_and_nothing_else(aws, emr_cluster):
    mine = emr(emr_cluster, "sort", "join").submit(CLAIM)
    other = emr(emr_cluster).submit(Claim("b" * 16, 1))
    ended = emr(emr_cluster).submit(Claim("c" * 16, 1))
    aws.emr.finish(ended.id)
    client = ACCESS.client("emr")
    stranger = {"Name": f"[{CLAIM}] of somebody else", "ActionOnFailure": "CONTINUE"}
    client.add_job_flow_steps(JobFlowId=emr_cluster, Steps=[{**stranger, "HadoopJarStep": {"Jar": "x.jar"}}])
    found = emr().list_jobs(emr_cluster)
    assert {(job.id, job.claim) for job in found} == {(mine.id, CLAIM), (other.id, other.claim)}
    assert {job.scope for job in found} == {emr_cluster}
    assert all(job.live for job in found)


def test_emr_lists_the_rest_of_a_job_whose_first_step_has_ended(aws, emr_cluster):
    job = emr(emr_cluster, "sort", "join", "send").submit(CLAIM)
    first, *rest = job.id.split(",")
    aws.emr.finish(first)
    (found,) = emr().list_jobs(emr_cluster)
    assert found.id == ",".join(rest)
    (observed,) = emr().observe([found])
    assert [step for step, _ in observed.facts["steps"]] == [first, *rest], "a new poll knows all of it"
    emr().cancel(observed, "by the test")
    aws.advance(5)
    assert Counter(step.state for step in aws.emr.steps()) == {"COMPLETED": 1, "CANCELLED": 2}


def test_emr_finds_the_clusters_on_which_steps_can_be_active(aws, emr_cluster):
    other = aws.make_emr_cluster("reports")
    gone = aws.make_emr_cluster("gone")
    aws.emr.end_cluster(gone)
    assert set(emr().list_scopes()) == {emr_cluster, other}


def test_emr_takes_its_time_for_many_clusters(aws):
    clusters = [aws.make_emr_cluster(f"c{number}") for number in range(10)]
    waits = []
    service = emr(sleep=waits.append)
    aws.forget_calls()
    assert [service.list_jobs(cluster) for cluster in clusters] == [[]] * 10
    assert (aws.calls["emr:ListSteps"], waits) == (10, [2.0, 2.0])


# --- a sweep --------------------------------------------------------------------------------------


class Record:
    """What Airflow knows, set by the test."""

    def __init__(self):
        self.rows: dict[str, Instance] = {}
        self.kept: dict[str, dict[str, str]] = {}

    def instances(self, states=(), changed_since=0.0, changed_until=None):
        yield from (row for row in self.rows.values() if not states or row.state in states)

    def current(self, instance):
        return self.rows.get(instance.task_id)

    def xcoms(self, instance):
        return self.kept.get(instance.task_id, {})

    def why_not_every_dag(self):
        return ""

    def retries(self, instance):
        return 0

    def deferred_slots(self):
        return sum(row.state == "deferred" for row in self.rows.values())


@pytest.mark.parametrize("name", ["ecs", "emr_steps"])
def test_a_sweep_ends_exactly_the_orphans(aws, emr_cluster, name):
    record = Record()
    service = ecs() if name == "ecs" else emr(emr_cluster, "sort", "join")
    jobs = {}
    for state in ("failed", "success", "left", "deferred", "cleared", "deleted"):
        known = {"left": "success", "cleared": None}.get(state, state)
        instance = Instance("etl", "manual__1", state, state=known)
        if state != "deleted":
            record.rows[state] = instance
        jobs[state] = service.submit(Claim(instance.task_key(OURS), 1))
    record.kept["left"] = {running_on_key(1): "s3://xcoms/etl/manual__1/left/7"}  # in object storage
    jobs["foreign"] = service.submit(Claim(record.rows["failed"].task_key("https://other"), 1))
    aws.advance(3600)
    runtime = Runtime(aws.now, aws.advance, lambda: 0.5)
    target = SweepTarget(name, ecs() if name == "ecs" else emr())

    dry = sweep([target], record, OURS, runtime)
    assert sorted(each.verdict.status.value for each in dry.findings) == [
        "deleted",
        "ended",
        "ended",
        "left_running",
        "wanted",
        "wanted",
    ]
    assert (dry.foreign, dry.exit_code, dry.errors) == (1, 1, ())
    assert all(each.live for each in service.observe([*jobs.values()]))

    wet = sweep([target], record, OURS, runtime, cancel=True)
    live = {each.id for each in service.observe([*jobs.values()]) if each.live}
    assert live == {jobs[state].id for state in ("left", "deferred", "cleared", "foreign")}
    assert (wet.exit_code, wet.errors) == (0, ())


def clone(step_id, source, target):
    """Add a step again as EMR's console does when a person clones it, or its cluster."""
    client = ACCESS.client("emr")
    step = client.describe_step(ClusterId=source, StepId=step_id)["Step"]
    again = {
        "Name": step["Name"],
        "ActionOnFailure": step["ActionOnFailure"],
        "HadoopJarStep": {"Jar": step["Config"]["Jar"], "Args": step["Config"]["Args"]},
    }
    return client.add_job_flow_steps(JobFlowId=target, Steps=[again])["StepIds"][0]


@pytest.mark.parametrize("deleted", [False, True], ids=["of-an-ended-task-instance", "of-a-deleted-run"])
@pytest.mark.parametrize("ended", [False, True], ids=["the-original-lives", "the-original-has-ended"])
@pytest.mark.parametrize("where", ["on-a-cloned-cluster", "on-the-same-cluster"])
def test_a_cloned_emr_step_is_not_cancelled(aws, emr_cluster, deleted, ended, where):
    record = Record()
    instance = Instance("etl", "manual__1", "sort", state="failed")
    if not deleted:
        record.rows["sort"] = instance
    original = emr(emr_cluster).submit(Claim(instance.task_key(OURS), 1))
    if ended:
        aws.emr.finish(original.id)
    aws.advance(3600)
    target = emr_cluster if where == "on-the-same-cluster" else aws.make_emr_cluster("clone", concurrency=10)
    cloned = clone(original.id, emr_cluster, target)
    aws.advance(3600)
    runtime = Runtime(aws.now, aws.advance, lambda: 0.5)
    report = sweep([SweepTarget("emr_steps", emr())], record, OURS, runtime, cancel=True, same_airflow=True)
    verdicts = {each.job.id: each.verdict.status.value for each in report.findings}
    copies = {cloned: "unknown"} if target == emr_cluster else {}  # elsewhere its seal shows that it is none
    assert verdicts == copies | ({} if ended else {original.id: "deleted" if deleted else "ended"})
    assert {step.id for step in aws.emr.steps() if step.live} == {cloned}
    assert report.exit_code == (2 if copies else 0)


def test_steps_for_which_nobody_waits_are_not_cancelled_when_their_run_is_deleted(aws, emr_cluster):
    service = emr(emr_cluster, "sort", "join")
    service.unattended = True
    service.submit(Claim(Instance("etl", "manual__1", "sort").task_key(OURS), 1))
    aws.advance(3600)
    runtime = Runtime(aws.now, aws.advance, lambda: 0.5)
    report = sweep([SweepTarget("emr_steps", emr())], Record(), OURS, runtime, cancel=True, same_airflow=True)
    assert [each.verdict.status.value for each in report.findings] == ["unknown"]
    assert all(step.live for step in aws.emr.steps())


def test_a_step_whose_marker_has_no_seal_is_not_cancelled_even_if_its_task_instance_names_it(
    aws, emr_cluster
):
    record = Record()
    record.rows["sort"] = Instance("etl", "manual__1", "sort", state="failed")
    claim = Claim(record.rows["sort"].task_key(OURS), 1)
    step = {"Name": f"sort [{claim}]", "ActionOnFailure": "CONTINUE", "HadoopJarStep": {"Jar": "x.jar"}}
    (step_id,) = ACCESS.client("emr").add_job_flow_steps(JobFlowId=emr_cluster, Steps=[step])["StepIds"]
    aws.advance(3600)
    record.kept["sort"] = {"remote_job": str({"seen": [{"id": step_id, "scope": emr_cluster}]})}
    runtime = Runtime(aws.now, aws.advance, lambda: 0.5)
    report = sweep([SweepTarget("emr_steps", emr())], record, OURS, runtime, cancel=True, same_airflow=True)
    assert (report.findings, report.exit_code) == ((), 0)
    assert [step.id for step in aws.emr.steps() if step.live] == [step_id]


def test_a_stopped_ecs_task_says_whose_orphan_it_was(aws):
    record = Record()
    record.rows["sort"] = Instance("etl", "manual__1", "sort", state="failed")
    ecs().submit(Claim(record.rows["sort"].task_key(OURS), 1))
    aws.advance(3600)
    sweep([SweepTarget("ecs", ecs())], record, OURS, Runtime(aws.now, aws.advance, lambda: 0.5), cancel=True)
    assert aws.ecs.tasks()[0].reason == "airflow_resilient: orphan of etl / manual__1 / sort: ended"


def test_a_cluster_that_may_not_be_listed_is_reported_and_the_other_is_swept(aws):
    runtime = Runtime(aws.now, aws.advance, lambda: 0.5)
    report = sweep([SweepTarget("ecs", ecs(), ("etl", "nowhere"))], Record(), OURS, runtime)
    (error,) = report.errors
    assert error.startswith("ecs: cannot list the jobs of nowhere: ClusterNotFoundException")
    assert report.exit_code == 2


def test_throttles_are_waited_out_and_denials_are_not(aws, emr_cluster):
    runtime = Runtime(aws.now, aws.advance, lambda: 0.5)
    aws.fail_next("emr:ListSteps", "ThrottlingException", times=7)
    assert sweep([SweepTarget("emr_steps", emr())], Record(), OURS, runtime).exit_code == 0
    aws.deny("emr:ListClusters")
    aws.forget_calls()
    (error,) = sweep([SweepTarget("emr_steps", emr())], Record(), OURS, runtime).errors
    assert "cannot list the clusters" in error
    assert aws.calls["emr:ListClusters"] == 1
