"""Which try asks next, where its jobs are, and the advice for people on call: values in, sentences out."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from airflow_resilient.core.decide import Cancel, Finish, OutOfCapacity, Submit, TimedOut, Watch
from airflow_resilient.core.job import Cause, Claim, Job, Phase
from airflow_resilient.core.reconcile import Memory
from airflow_resilient.core.service import ServiceInfo
from airflow_resilient.operations import explain
from airflow_resilient.operations.explain import (
    AssumedOptions,
    Location,
    deadline_passed,
    describe_action,
    format_explanation,
    held_by,
    locate,
    memory_of,
    next_try_of,
)
from airflow_resilient.operations.sweep import OrphanStatus
from airflow_resilient.operations.task_instances import AirflowApiError, Instance
from airflow_resilient.services.docker.client import DockerContainers
from airflow_resilient.services.docker.engine import DEFAULT_URL
from airflow_resilient.services.ecs.client import EcsTasks
from airflow_resilient.services.emr_steps.client import EmrSteps
from airflow_resilient.testing import InMemoryJobs

NOW = 1_000_000.0
TASK = Instance("etl", "manual__1", "sort", state="deferred", try_number=2, max_tries=4)
ARN = "arn:aws:ecs:eu-west-1:123456789012:task/etl/3ca"
JOB = Job(ARN, Claim("a" * 16, 1), Phase.RUNNING, NOW, "arn:aws:ecs:eu-west-1:123456789012:cluster/etl")

WHO = [
    # state, try_number, max_tries, retries: the try that asks, since, words
    pytest.param("deferred", 1, 2, 2, 1, 0, "waits in the triggerer", id="deferred-in-its-first-try"),
    pytest.param("running", 2, 2, 2, 2, 0, "is running on a worker", id="running-in-a-retry"),
    pytest.param("queued", 1, 0, 0, 1, 0, "is waiting for a worker", id="queued"),
    pytest.param("scheduled", 3, 4, 2, 3, 2, "is waiting for a worker", id="scheduled-after-a-clear"),
    pytest.param("up_for_retry", 1, 2, 2, 2, 0, "When its retry is due", id="the-retry-is-the-next-try"),
    pytest.param(None, 0, 2, 2, 1, 0, "When it is scheduled", id="never-scheduled"),
    pytest.param(None, 3, 5, 2, 4, 3, "When it is scheduled", id="cleared-after-three-tries"),
    pytest.param("failed", 3, 2, 2, 4, 3, "If it were cleared, try 4", id="failed-would-be-cleared"),
    pytest.param("success", 1, 0, 0, 2, 1, "It has ended (success)", id="succeeded-would-be-cleared"),
    pytest.param("restarting", 1, 1, 1, 2, 0, "Next, try", id="cleared-while-it-ran"),
    pytest.param("deferred", 1, 9, 0, 1, 0, "triggerer", id="since-is-never-the-asking-try-itself"),
    pytest.param("deferred", 1, 0, 5, 1, 0, "triggerer", id="retries-were-raised-meanwhile"),
]


@pytest.mark.parametrize(("state", "number", "max_tries", "retries", "asks", "since", "words"), WHO)
def test_the_try_that_asks_next(state, number, max_tries, retries, asks, since, words):
    instance = replace(TASK, state=state, try_number=number, max_tries=max_tries)
    found = next_try_of(instance, "prod", retries=retries, run_started=NOW, reattach=True)
    assert (found.owner.try_number, found.owner.cleared_after_try) == (asks, since)
    assert (found.owner.task_key, found.owner.run_started) == (instance.task_key("prod"), NOW)
    assert found.owner.reattach
    assert words in found.when


@pytest.mark.parametrize(
    ("limit", "started", "passed"),
    [
        ({"__type": "TimeDelta", "days": 0, "seconds": 60, "microseconds": 0}, NOW - 60, True),
        ({"__type": "TimeDelta", "days": 0, "seconds": 60, "microseconds": 0}, NOW - 59, False),
        ({"__type": "TimeDelta", "days": 1, "seconds": 0, "microseconds": 0}, NOW - 3600, False),
        (None, 0.0, False),
    ],
)
def test_the_deadline_counts_from_the_first_start_of_the_try(limit, started, passed):
    assert deadline_passed(Memory(started), {"execution_timeout": limit}, NOW) is passed


def test_without_a_memory_or_a_task_no_deadline_is_known():
    assert not deadline_passed(None, {"execution_timeout": {"seconds": 1}}, NOW)
    assert not deadline_passed(Memory(0.0), None, NOW)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (Submit(Claim("a" * 16, 2), "why"), "submit a job under af-aaaaaaaaaaaaaaaa-2"),
        (Submit(Claim("a" * 16, 2, 1), "why", 9.6), "submit a job under af-aaaaaaaaaaaaaaaa-2-1 in 10 s"),
        (Cancel(JOB, "why"), "cancel 3ca"),
        (Watch((JOB,), "why"), "wait for 3ca"),
        (Finish(replace(JOB, phase=Phase.FAILED), "why"), "report 3ca, which failed"),
        (TimedOut(None, "why"), "fail with JobTimeout"),
        (OutOfCapacity(3, "why"), "fail with NoCapacity"),
    ],
)
def test_actions_describe_action(action, words):
    assert describe_action(action) == words


WATCH, AGAIN = Watch((JOB,), "why"), Submit(Claim("a" * 16, 2), "why")
DONE = replace(JOB, phase=Phase.SUCCEEDED)
STOP = "aws ecs stop-task --cluster etl --task 3ca"


@pytest.mark.parametrize(
    ("state", "job", "status", "action", "first", "last"),
    [
        ("deferred", JOB, OrphanStatus.WANTED, WATCH, "Wait: no action is needed", STOP),
        ("up_for_retry", DONE, None, AGAIN, "Wait: the next try does", "Wait: the next try does"),
        ("failed", JOB, OrphanStatus.ENDED, WATCH, "No task instance needs the jobs", STOP),
        ("failed", JOB, OrphanStatus.YOUNG, WATCH, "Its job is still alive", STOP),
        ("failed", JOB, OrphanStatus.LEFT_RUNNING, WATCH, "The job was left running on purpose", STOP),
        ("failed", DONE, None, AGAIN, "No job is running. Clear", "mark it as success"),
        ("success", DONE, None, AGAIN, "No job is running. Clear", "No job is running. Clear"),
    ],
)
def test_advice(state, job, status, action, first, last):
    instance, statuses = replace(TASK, state=state), [status] if status else []
    lines = explain.advice(instance, [job], statuses, action, Location("ecs", {}))
    assert lines[0].startswith(first)
    assert last in lines[-1]


@pytest.mark.parametrize(
    ("service", "job", "scope", "command"),
    [
        ("ecs", ARN, "arn:aws:ecs:eu-west-1:123456789012:cluster/etl", STOP),
        ("emr_steps", "s-1,s-2", "j-1", "aws emr cancel-steps --cluster-id j-1 --step-ids s-1 s-2"),
        ("docker", "c0ffee0123456789", "unix:///x", "docker -H unix:///x stop c0ffee012345"),
        ("docker", "c0ffee", "https://a:2376", "docker --tlsverify -H tcp://a:2376 stop c0ffee"),
        ("ours.jobs:Jobs", "job-1", "x", "(stop job-1 with the tools of ours.jobs:Jobs)"),
        ("ecs", "a $(id)", "b;id", "aws ecs stop-task --cluster 'b;id' --task 'a $(id)'"),
        (
            "emr_steps",
            "s-1 x,`id`",
            "j&1",
            "aws emr cancel-steps --cluster-id 'j&1' --step-ids 's-1 x' '`id`'",
        ),
        ("docker", "c0 ffee", "unix:///x y", "docker -H 'unix:///x y' stop 'c0 ffee'"),
        ("ours.jobs:Jobs", "x; id", "x", "(stop 'x; id' with the tools of ours.jobs:Jobs)"),
    ],
    ids=[
        "an-ecs-task",
        "steps-by-their-ids",
        "a-container",
        "a-container-behind-tls",
        "another-service",
        "an-ecs-task-that-a-shell-would-run",
        "steps-that-a-shell-would-run",
        "a-container-that-a-shell-would-run",
        "another-service-that-a-shell-would-run",
    ],
)
def test_the_command_that_ends_a_job_by_hand(service, job, scope, command):
    made = Job(job, Claim("a" * 16, 1), Phase.RUNNING, NOW, scope)
    assert Location(service, {}).stop_command(made) == command


def test_a_service_without_a_command_names_the_job_as_a_shell_would_have_it():
    info = ServiceInfo("made_up", "Made-up jobs", "client:Jobs", "place")
    assert info.stop_command(replace(JOB, id="x; id")) == "(stop 'x; id' with the tools of its service)"


EVIL, ESCAPED = "a\x1b[2J\nb\u202ec", r"a\x1b[2J\nb\u202ec"


def test_an_explanation_has_no_character_that_a_terminal_acts_on():
    job = {
        "job": f"job {EVIL}",
        "scope": f"scope {EVIL}",
        "claim": "af-aaaaaaaaaaaaaaaa-1",
        "phase": "running",
        "created": NOW,
        "is": "mine",
        "reason": f"reason {EVIL}",
    }
    task = {"dag_id": f"dag {EVIL}", "run_id": f"run {EVIL}", "task_id": "t", "map_index": -1}
    found = {
        "task_instance": {**task, "state": f"state {EVIL}", "try_number": 1, "max_tries": 0},
        "held_by": f"host {EVIL}",
        "namespace": f"namespace {EVIL}",
        "claims": ["af-aaaaaaaaaaaaaaaa-1"],
        "cleared_after_try": 0,
        "jobs": [job],
        "next_try": "Next:",
        "action": "watch",
        "next_action": f"wait for {EVIL}",
        "why": f"why {EVIL}",
        "assumed": {},
        "advice": [f"stop {EVIL}"],
        "errors": [f"error {EVIL}"],
    }
    lines = format_explanation(found)
    assert all(line.isprintable() for line in lines)
    for name in ("dag", "run", "state", "host", "job", "scope", "reason", "wait for", "why", "stop", "error"):
        assert any(f"{name} {ESCAPED}" in line for line in lines), name


# --- where its jobs are ---------------------------------------------------------------------------


def shown(operator: str, **fields) -> Instance:
    return replace(TASK, raw={"operator_name": operator, "rendered_fields": fields})


EU = {"aws_conn_id": "aws_eu", "region_name": "eu-west-1"}
ECS = shown("EcsRunTaskOperator", cluster="etl", task_definition="a:1", **EU)
EMR = shown("EmrAddStepsOperator", job_flow_id="j-1", job_flow_name=None, cluster_states=[], steps="[]")
EMR_BY_NAME = shown("EmrAddStepsOperator", job_flow_name="etl", cluster_states="['WAITING']", steps="[]")
DOCKER = shown("DockerOperator", image="etl:7", container_name=None, docker_conn_id=None)
STRANGER = shown("GlueOperator", job_name="x", region_name="eu-west-1")
KEPT_ECS = {
    "service": "ecs",
    "address": {"aws_conn_id": "kept", "verify": None},
    "lookup": {"cluster": "old"},
}
KEPT_STRANGER = {"service": "ours.glue:GlueRuns", "address": {"region": "eu"}, "lookup": {"name": "x"}}

LOCATIONS = [
    # instance, what the try has kept, what the command line says: service, keywords of its client
    pytest.param(
        ECS,
        KEPT_ECS,
        {},
        "ecs",
        {"aws_conn_id": "kept", "verify": None, "cluster": "old"},
        id="kept-by-the-try",
    ),
    pytest.param(
        STRANGER,
        KEPT_STRANGER,
        {},
        "ours.glue:GlueRuns",
        {"region": "eu", "name": "x"},
        id="a-service-of-the-user-that-was-kept",
    ),
    pytest.param(
        shown("EcsTaskStateSensor", cluster="etl", task="3ca"),
        KEPT_ECS,
        {},
        "ecs",
        {"aws_conn_id": "kept", "verify": None, "cluster": "old"},
        id="what-was-kept-counts-whatever-the-class",
    ),
    pytest.param(ECS, {}, {}, "ecs", {"cluster": "etl", **EU}, id="an-ecs-operator-by-what-is-rendered"),
    pytest.param(
        EMR,
        {},
        {},
        "emr_steps",
        {"job_flow_id": "j-1", "cluster_states": [], "not_before": NOW},
        id="steps-by-the-id-of-their-cluster",
    ),
    pytest.param(
        EMR_BY_NAME,
        {},
        {},
        "emr_steps",
        {"job_flow_name": "etl", "cluster_states": ["WAITING"], "not_before": NOW},
        id="steps-by-the-name-of-their-cluster",
    ),
    pytest.param(DOCKER, {}, {}, "docker", {}, id="a-container-on-the-engine-that-is-meant"),
    pytest.param(
        ECS,
        KEPT_ECS,
        {"scopes": {"ecs": ["other"]}},
        "ecs",
        {"aws_conn_id": "kept", "verify": None, "cluster": "other"},
        id="a-scope-goes-before-what-was-kept",
    ),
    pytest.param(
        ECS,
        {},
        {"scopes": {"ecs": ["other", "another"]}},
        "ecs",
        {"cluster": "other", **EU},
        id="a-scope-goes-before-what-is-rendered",
    ),
    pytest.param(
        ECS,
        KEPT_ECS,
        {"access": {"aws_conn_id": None, "region_name": "us-east-1", "tls": {"ca_cert": "ca.pem"}}},
        "ecs",
        {"aws_conn_id": None, "region_name": "us-east-1", "verify": None, "cluster": "old"},
        id="access-goes-before-what-was-kept-and-that-of-other-services-is-left-out",
    ),
    pytest.param(
        ECS,
        {},
        {"access": {"aws_conn_id": None}},
        "ecs",
        {"aws_conn_id": None, "region_name": "eu-west-1", "cluster": "etl"},
        id="access-goes-before-what-is-rendered",
    ),
    pytest.param(
        ECS,
        KEPT_ECS,
        {"scopes": {"emr_steps": ["j-2"]}},
        "emr_steps",
        {"job_flow_id": "j-2", "not_before": NOW, **EU},
        id="a-scope-of-another-service",
    ),
    pytest.param(
        ECS,
        KEPT_ECS,
        {"service": "emr_steps", "scopes": {"ecs": ["other"]}},
        "emr_steps",
        {"not_before": NOW, **EU},
        id="a-service-goes-before-everything",
    ),
    pytest.param(
        STRANGER,
        {},
        {"scopes": {"docker": ["tcp://a:2375"]}, "access": {"tls": {"ca_cert": "ca.pem"}}},
        "docker",
        {"docker_url": "tcp://a:2375", "tls": {"ca_cert": "ca.pem"}},
        id="an-operator-that-is-not-ours-with-an-option",
    ),
]


@pytest.mark.parametrize(("instance", "kept", "options", "service", "keywords"), LOCATIONS)
def test_where_the_jobs_of_a_task_instance_are(instance, kept, options, service, keywords):
    assert locate(instance, kept, run_started=NOW, **options) == Location(service, keywords)


@pytest.mark.parametrize(
    ("operator", "fields"),
    [
        ("EcsOperator", {}),
        ("BashOperator", {"bash_command": "true"}),
        ("EcsTaskStateSensor", {"cluster": "etl", "task": "3ca"}),
        ("EmrStepSensor", {"job_flow_id": "j-1", "step_id": "s-1"}),
    ],
    ids=["never-rendered", "another-operator", "a-sensor-of-ecs", "a-sensor-of-emr"],
)
def test_the_service_must_be_named_when_the_task_instance_does_not_tell(operator, fields):
    with pytest.raises(
        AirflowApiError, match=rf"unknown service of {operator}: .*Pass --service, one of ecs, emr_steps, "
    ):
        locate(shown(operator, **fields), {})
    with pytest.raises(AirflowApiError, match=f"unknown service of {operator}: "):
        locate(shown(operator, **fields), {"started": NOW}, access={"aws_conn_id": "aws_eu"})


def test_an_operator_without_a_name_is_mentioned_anyway():
    with pytest.raises(AirflowApiError, match="unknown service of its operator: "):
        locate(TASK, {})


def test_an_ecs_task_is_searched_for_with_nothing_that_could_be_submitted_or_shown():
    found = locate(ECS, {}).client()
    assert isinstance(found, EcsTasks)
    assert (found.cluster, found.access.aws_conn_id, found.access.region_name) == (
        "etl",
        "aws_eu",
        "eu-west-1",
    )
    assert found.request == {}


def test_steps_are_searched_for_on_the_cluster_of_that_id_or_name():
    by_id, by_name = (locate(each, {}, run_started=NOW).client() for each in (EMR, EMR_BY_NAME))
    assert isinstance(by_id, EmrSteps)
    assert isinstance(by_name, EmrSteps)
    assert (by_id.job_flow_id, by_id.job_flow_name, by_id.not_before) == ("j-1", None, NOW)
    assert (by_name.job_flow_id, by_name.job_flow_name, by_name.cluster_states) == (None, "etl", ["WAITING"])


@pytest.mark.parametrize("url", ["", "tcp://elsewhere:2375"], ids=["the-socket", "DOCKER_HOST"])
def test_a_container_is_searched_for_on_the_engine_that_is_meant_where_none_is_named(url, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", url)
    expected = DockerContainers(docker_url=url or DEFAULT_URL)
    assert locate(DOCKER, {}).client().address() == expected.address()


@pytest.mark.parametrize(
    ("instance", "service"),
    [
        (ECS, EcsTasks(cluster="etl", region_name="eu-west-1", request={"taskDefinition": "a:1"})),
        (EMR, EmrSteps(job_flow_name="etl", cluster_states=("WAITING",), not_before=NOW, steps=[{}])),
        (DOCKER, DockerContainers(docker_url=["tcp://a:2375", "tcp://b:2375"], request={"image": "etl:7"})),
    ],
    ids=["ecs", "emr-steps", "docker"],
)
def test_what_a_try_keeps_is_enough_to_search_as_it_did(instance, service):
    kept = {"service": service.name, "address": service.address(), "lookup": service.lookup()}
    found = locate(instance, json.loads(json.dumps(kept))).client()
    assert type(found) is type(service)
    assert (found.address(), found.lookup()) == (service.address(), service.lookup())


MEMORY = Memory(NOW, (replace(JOB, cause=Cause.UNKNOWN),), frozenset({ARN}))


@pytest.mark.parametrize("write", [lambda x: x, str, json.dumps], ids=["value", "python", "json"])
def test_what_a_try_remembers_is_read_however_the_api_writes_it(write):
    assert memory_of(write(MEMORY.to_dict())) == MEMORY


@pytest.mark.parametrize("value", [None, "", "s3://bucket/xcom/7", [], {}, "{'started': 1}"])
def test_a_memory_that_cannot_be_read_is_none(value):
    assert memory_of(value) is None


@pytest.mark.parametrize(
    ("state", "raw", "words"),
    [
        ("running", {"hostname": "worker-1", "pid": 7}, "try 2, on worker-1, process 7"),
        ("deferred", {}, "Airflow names no trigger"),
        ("deferred", {"trigger": {"id": 3}}, "trigger 3, which no triggerer has taken yet"),
        (
            "deferred",
            {
                "trigger": {"id": 3},
                "triggerer_job": {"hostname": "t-1", "latest_heartbeat": "1970-01-12T13:46:30Z"},
            },
            "on t-1, whose last heartbeat was 10 s ago",
        ),
        (
            "deferred",
            {
                "trigger": {"id": 3},
                "triggerer_job": {"hostname": "t-1", "latest_heartbeat": "1970-01-12T12:46:40Z"},
            },
            "1 h ago: check that it is running",
        ),
        ("failed", {}, "nobody"),
    ],
)
def test_who_holds_it(state, raw, words):
    assert words in held_by(replace(TASK, state=state, raw=raw), NOW)


def test_what_is_assumed_is_the_operators_default():
    assert AssumedOptions().policy().on_timeout == "cancel"
    assert AssumedOptions(on_timeout="leave", infrastructure_retries=5).policy().infrastructure_retries == 5


# --- operators that are called inside of the task -------------------------------------------------


class Api:
    """Airflow's API, as far as `explain` asks it."""

    url = "https://airflow.example.com"

    def __init__(self, instance, xcoms):
        self.instance, self.kept = instance, xcoms

    def current(self, instance):
        return self.instance

    def task(self, instance):
        return {"retries": 1}

    def run_start(self, instance):
        return 0.0

    def xcoms(self, instance):
        return self.kept


def test_jobs_of_operators_that_are_called_inside_of_a_task_are_explained():
    jobs = InMemoryJobs(seconds=None)
    instance = replace(TASK, state="running", try_number=1, max_tries=1, raw={"operator_name": "_Python"})
    key = instance.task_key("prod")
    xcoms = {}
    for call in ("loadaaaa", "loadbbbb"):
        job = jobs.submit(Claim(f"{key}_{call}", 1))
        memory = Memory(1.0, seen=(job,), own_job_ids=frozenset({job.id}))
        where = {"service": "airflow_resilient.testing.in_memory_jobs:InMemoryJobs", "lookup": {}}
        xcoms[f"remote_job_{call}"] = json.dumps({**memory.to_dict(), **where, "address": jobs.address()})
    jobs.finish(jobs.history[0])
    found = explain.explain(Api(instance, xcoms), instance, "prod")
    assert [job["job"] for job in found["jobs"]] == ["job-1", "job-2"]
    assert {job["is"] for job in found["jobs"]} == {"mine"}
    assert [each["action"] for each in found["calls"]] == ["finish", "watch"]
    assert found["claims"] == [f"af-{key}_loadaaaa-1", f"af-{key}_loadbbbb-1"]
    assert found["action"] is None, "the task itself runs no job"
    assert found["errors"] == []
    lines = "\n".join(format_explanation(found))
    assert (
        "If the task calls the operator of the claims _loadbbbb again, that will:\n  wait for job-2" in lines
    )
    assert "(stop job-2 with the tools of airflow_resilient.testing" in lines
