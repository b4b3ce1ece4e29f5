"""Which try asks next, where its jobs are, and what a person is told: values in, sentences out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_resilient import explain
from airflow_resilient.ecs import EcsTasks
from airflow_resilient.emr import EmrSteps
from airflow_resilient.explain import Assumed, asking, by_hand, deadline_passed, held_by, in_words, memory_of
from airflow_resilient.jobs import (
    Cancel,
    Cause,
    Claim,
    Finish,
    Job,
    Memory,
    OutOfRoom,
    Phase,
    Submit,
    TimedOut,
    Watch,
)
from airflow_resilient.sweep import Instance, Kind, NoAnswer

NOW = 1_000_000.0
TASK = Instance("etl", "manual__1", "sort", state="deferred", try_number=2, max_tries=4)
ARN = "arn:aws:ecs:eu-west-1:123456789012:task/etl/3ca"
JOB = Job(ARN, Claim("a" * 16, 1), Phase.RUNNING, NOW, "arn:aws:ecs:eu-west-1:123456789012:cluster/etl")

WHO = [
    # state, try_number, max_tries, retries: the try that asks, since, words
    pytest.param("deferred", 1, 2, 2, 1, 0, "waits in the triggerer", id="deferred-in-its-first-try"),
    pytest.param("running", 2, 2, 2, 2, 0, "is on a worker", id="running-in-a-retry"),
    pytest.param("queued", 1, 0, 0, 1, 0, "on its way", id="queued"),
    pytest.param("scheduled", 3, 4, 2, 3, 2, "on its way", id="scheduled-after-a-clear"),
    pytest.param("up_for_retry", 1, 2, 2, 2, 0, "when its retry is due", id="the-retry-is-the-next-try"),
    pytest.param(None, 0, 2, 2, 1, 0, "when it is scheduled", id="never-scheduled"),
    pytest.param(None, 3, 5, 2, 4, 3, "when it is scheduled", id="cleared-after-three-tries"),
    pytest.param("failed", 3, 2, 2, 4, 3, "If it were cleared, try 4", id="failed-would-be-cleared"),
    pytest.param("success", 1, 0, 0, 2, 1, "It is success, so nobody asks", id="succeeded-would-be-cleared"),
    pytest.param("restarting", 1, 1, 1, 2, 0, "will ask next", id="cleared-while-it-ran"),
    pytest.param("deferred", 1, 9, 0, 1, 0, "triggerer", id="since-is-never-the-asking-try-itself"),
    pytest.param("deferred", 1, 0, 5, 1, 0, "triggerer", id="retries-were-raised-meanwhile"),
]


@pytest.mark.parametrize(("state", "number", "max_tries", "retries", "asks", "since", "words"), WHO)
def test_the_try_that_asks_next(state, number, max_tries, retries, asks, since, words):  # noqa: PLR0917
    instance = replace(TASK, state=state, try_number=number, max_tries=max_tries)
    found = asking(instance, "prod", retries=retries, run_started=NOW, reattach=True)
    assert (found.owner.try_number, found.owner.since) == (asks, since)
    assert (found.owner.family, found.owner.run_started) == (instance.family("prod"), NOW)
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
        (OutOfRoom(3, "why"), "fail with NoCapacity"),
    ],
)
def test_actions_in_words(action, words):
    assert in_words(action) == words


WATCH, AGAIN = Watch((JOB,), "why"), Submit(Claim("a" * 16, 2), "why")
DONE = replace(JOB, phase=Phase.SUCCEEDED)
STOP = "aws ecs stop-task --cluster etl --task 3ca"


@pytest.mark.parametrize(
    ("state", "job", "kind", "action", "first", "last"),
    [
        ("deferred", JOB, Kind.WANTED, WATCH, "Wait: nothing has to be done", STOP),
        ("up_for_retry", DONE, None, AGAIN, "Wait: the next try decides", "Wait: the next try decides"),
        ("failed", JOB, Kind.ENDED, WATCH, "Nobody wants what still lives", STOP),
        ("failed", JOB, Kind.YOUNG, WATCH, "Its job lives", STOP),
        ("failed", JOB, Kind.LEFT, WATCH, "The job was left running on purpose", STOP),
        ("failed", DONE, None, AGAIN, "Nothing runs. Clear it", "mark it as success"),
        ("success", DONE, None, AGAIN, "Nothing runs. Clear it", "Nothing runs. Clear it"),
    ],
)
def test_advice(state, job, kind, action, first, last):  # noqa: PLR0917
    told = explain.advice(replace(TASK, state=state), [job], [kind] if kind else [], action)
    assert told[0].startswith(first)
    assert last in told[-1]


def test_steps_are_cancelled_by_their_ids():
    steps = Job("s-1,s-2", Claim("a" * 16, 1), Phase.RUNNING, NOW, "j-1")
    assert by_hand(steps) == "aws emr cancel-steps --cluster-id j-1 --step-ids s-1 s-2"


def rendered(**fields) -> Instance:
    return replace(TASK, raw={"operator_name": "X", "rendered_fields": fields})


def test_an_ecs_task_is_looked_for_where_the_task_says():
    found = explain.service_of(
        rendered(cluster="etl", task_definition="a:1", aws_conn_id="aws_eu", region_name="eu-west-1")
    )
    assert isinstance(found, EcsTasks)
    assert (found.cluster, found.access.aws_conn_id, found.access.region_name) == (
        "etl",
        "aws_eu",
        "eu-west-1",
    )
    assert found.request == {}, "nothing that could be submitted, or shown"


def test_steps_are_looked_for_on_the_cluster_of_that_id_or_name():
    by_id = explain.service_of(rendered(job_flow_id="j-1", job_flow_name=None, steps="[]"), run_started=NOW)
    by_name = explain.service_of(
        rendered(job_flow_id=None, job_flow_name="etl", cluster_states="['WAITING']", steps="[]")
    )
    assert isinstance(by_id, EmrSteps)
    assert isinstance(by_name, EmrSteps)
    assert (by_id.job_flow_id, by_id.job_flow_name, by_id.not_before) == ("j-1", None, NOW)
    assert (by_name.job_flow_id, by_name.job_flow_name, by_name.cluster_states) == (None, "etl", ["WAITING"])


def test_what_the_command_line_says_goes_before_what_the_task_says():
    task = rendered(cluster="etl", task_definition="a:1", aws_conn_id="aws_eu", region_name="eu-west-1")
    found = explain.service_of(task, ecs_cluster="other", aws_conn_id=None, region_name="us-east-1")
    assert isinstance(found, EcsTasks)
    assert (found.cluster, found.access.aws_conn_id, found.access.region_name) == ("other", None, "us-east-1")
    steps = explain.service_of(task, emr_cluster="j-2")
    assert isinstance(steps, EmrSteps)
    assert steps.job_flow_id == "j-2"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"bash_command": "true"},
        {"cluster": "etl", "task": "3ca"},
        {"job_flow_id": "j-1", "step_id": "s-1"},
    ],
    ids=["never-rendered", "another-operator", "a-sensor-of-ecs", "a-sensor-of-emr"],
)
def test_where_the_jobs_are_must_be_said_when_the_task_does_not_tell(fields):
    with pytest.raises(NoAnswer, match="say it with --ecs-cluster, --emr-cluster or --docker-url"):
        explain.service_of(rendered(**fields))


MEMORY = Memory(NOW, (replace(JOB, cause=Cause.UNKNOWN),), frozenset({ARN}))


@pytest.mark.parametrize(
    "write", [lambda x: x, str, lambda x: __import__("json").dumps(x)], ids=["value", "python", "json"]
)
def test_what_a_try_remembers_is_read_however_the_api_writes_it(write):
    assert memory_of(write(MEMORY.pack())) == MEMORY


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
            "1 h ago: does it still run?",
        ),
        ("failed", {}, "nobody"),
    ],
)
def test_who_holds_it(state, raw, words):
    assert words in held_by(replace(TASK, state=state, raw=raw), NOW)


def test_what_is_assumed_is_the_operators_default():
    assert Assumed().policy().on_timeout == "cancel"
    assert Assumed(on_timeout="leave", infrastructure_retries=5).policy().infrastructure_retries == 5
