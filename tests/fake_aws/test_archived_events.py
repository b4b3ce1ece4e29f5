"""Tasks that ECS has forgotten, and the log group of events that knows their ends, on the fake AWS."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from contextlib import aclosing
from dataclasses import asdict, replace

import boto3
import pytest
from botocore.exceptions import ClientError

from airflow_resilient import (
    EcsRunTaskOperator,
    EcsTaskStateSensor,
    JobFailed,
    JobLost,
    PollPolicy,
    settings,
)
from airflow_resilient.core.job import FROM_ARCHIVE, NO_CLAIM, Cause, Claim, Job, Phase
from airflow_resilient.services.ecs.client import EcsTasks
from airflow_resilient.testing import FakeAws, TaskTries
from airflow_resilient.watching.shared_watch import SharedWatch

GROUP = "/aws/events/airflow"
CLAIM = Claim("abcdefghijklmnop", 1)
LATER = Claim("abcdefghijklmnop", 2)
QUICK = PollPolicy(interval=0.05, first_interval=0.01, lost_after_polls=2, lost_after_seconds=0.0)
ENDS = {
    "source": ["aws.ecs"],
    "detail-type": ["ECS Task State Change"],
    "detail": {"lastStatus": ["STOPPED"], "startedBy": [{"prefix": "af-"}]},
}


@pytest.fixture
def option(monkeypatch):
    """Sets `events_log_group`; the settings are read again at the end."""

    def choose(group):
        monkeypatch.setenv("AIRFLOW__AIRFLOW_RESILIENT__EVENTS_LOG_GROUP", group)
        settings.reread()

    choose(GROUP)
    yield choose
    monkeypatch.undo()
    settings.reread()


def archive(pattern=ENDS, group=GROUP, **target):
    """The log group and the rule, as the recipe makes them."""
    boto3.client("logs").create_log_group(logGroupName=group)
    events = boto3.client("events")
    events.put_rule(Name="airflow", EventPattern=json.dumps(pattern))
    arn = f"arn:aws:logs:us-east-1:123456789012:log-group:{group}"
    events.put_targets(Rule="airflow", Targets=[{"Id": "group", "Arn": arn, **target}])


@pytest.fixture
def aws(option):
    yesterday = float(int(time.time() - 86400))  # CloudWatch refuses lines from the future
    with FakeAws(clock=lambda: yesterday) as fake:
        fake.make_ecs_cluster("etl")
        fake.make_ecs_cluster("other")
        fake.make_task_definition("nightly", containers=("main", "sidecar"))
        fake.ecs.plan("nightly", seconds=None)
        archive()
        yield fake


def service(cluster="etl", **changes):
    request = {"taskDefinition": "nightly", "launchType": "FARGATE"}
    once = {"retries": {"total_max_attempts": 1}}
    return EcsTasks(aws_conn_id=None, cluster=cluster, request=request, botocore_config=once, **changes)


def forgotten(aws, claim=CLAIM, exit_code=0, cluster="etl", **end):
    """A task that has run for an hour, has ended, and is forgotten."""
    job = service(cluster).submit(claim)
    aws.advance(3600)
    (described,) = service(cluster).observe([job])
    aws.ecs.finish(job.id, exit_code, **end)
    aws.advance(3601)
    assert service(cluster).find([claim]) == [], "ECS has forgotten it"
    return described


# --- find_forgotten -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "phase", "cause", "code"),
    [
        pytest.param({}, Phase.SUCCEEDED, Cause.UNKNOWN, 0, id="well"),
        pytest.param({"exit_code": 3}, Phase.FAILED, Cause.APPLICATION, 3, id="badly"),
        pytest.param({"stop_code": "UserInitiated"}, Phase.CANCELLED, Cause.USER, None, id="by-hand"),
        pytest.param({"stop_code": "SpotInterruption"}, Phase.FAILED, Cause.INFRASTRUCTURE, None, id="spot"),
        pytest.param({"exit_code": None}, Phase.FAILED, Cause.UNKNOWN, None, id="without-an-exit-code"),
    ],
)
def test_the_end_of_a_forgotten_task_is_what_ecs_showed_while_it_knew_it(aws, end, phase, cause, code):
    job = forgotten(aws, **end)
    (found,) = service().find_forgotten([CLAIM, LATER], since=job.created - 60)
    assert (found.id, found.claim, found.scope) == (job.id, CLAIM, job.scope)
    assert (found.phase, found.cause, found.exit_code) == (phase, cause, code)
    assert (found.created, found.ended) == (job.created, job.created + 3600)
    assert found.facts[FROM_ARCHIVE] == f"an event in {GROUP}"
    assert json.loads(json.dumps(found.to_dict()))


def test_a_task_whose_sidecar_failed_is_judged_by_its_essential_container(aws):
    aws.ecs.plan("nightly", seconds=60, exit_codes={"main": 0, "sidecar": 1})
    job = service().submit(CLAIM)
    aws.advance(7200)
    (found,) = service().find_forgotten([CLAIM], since=job.created)
    assert found.phase is Phase.SUCCEEDED


def test_the_archive_tells_the_generation_of_the_try_that_submitted_the_task(aws):
    forgotten(aws, replace(CLAIM, generation="4.3"))
    (found,) = service().find_forgotten([CLAIM], since=0)
    assert found.claim.generation == "4.3"


def test_tasks_of_other_claims_and_clusters_are_no_answer(aws):
    forgotten(aws, Claim("ponmlkjihgfedcba", 1))
    forgotten(aws, Claim("abcdefghijklmnop", 11))
    forgotten(aws, cluster="other")
    assert service().find_forgotten([CLAIM], since=0) == []
    assert len(service("other").find_forgotten([CLAIM], since=0)) == 1


def test_a_task_that_ended_before_the_time_of_interest_is_no_answer(aws):
    job = forgotten(aws)
    assert service().find_forgotten([CLAIM], since=job.created + 3700) == []


def test_every_task_of_a_claim_is_found_once_however_often_its_event_came(aws):
    first = forgotten(aws, exit_code=1)
    second = forgotten(aws, replace(CLAIM, resubmission=1))
    logs = boto3.client("logs")
    for stream in logs.describe_log_streams(logGroupName=GROUP)["logStreams"]:
        name = stream["logStreamName"]
        events = logs.get_log_events(logGroupName=GROUP, logStreamName=name, startFromHead=True)["events"]
        aws.put_log_lines(GROUP, name, [(each["timestamp"] / 1000, each["message"]) for each in events])
    found = service().find_forgotten([CLAIM], since=0)
    assert [(job.id, job.phase) for job in found] == [
        (first.id, Phase.FAILED),
        (second.id, Phase.SUCCEEDED),
    ]


def test_empty_pages_are_not_the_end(aws):
    for number in range(5, 9):
        forgotten(aws, Claim("ponmlkjihgfedcba", number))
    job = forgotten(aws)
    aws.logs.lines_per_page = 1
    aws.forget_calls()
    assert [found.id for found in service().find_forgotten([CLAIM], since=0)] == [job.id]
    assert aws.calls["logs:FilterLogEvents"] == 5


def test_an_endless_group_is_not_read_for_ever(aws, monkeypatch, caplog):
    monkeypatch.setattr("airflow_resilient.aws.cloudwatch_logs.MAX_PAGES_PER_SEARCH", 2)
    for number in range(5, 9):
        forgotten(aws, Claim("ponmlkjihgfedcba", number))
    forgotten(aws)
    aws.logs.lines_per_page = 1
    aws.forget_calls()
    ecs = service()
    assert [ecs.find_forgotten([CLAIM], since=0) for _ in range(2)] == [[], []]
    assert aws.calls["logs:FilterLogEvents"] == 4
    assert caplog.text.count("has too many events to be searched to its end") == 1


def test_many_claims_need_several_patterns(aws):
    job = forgotten(aws, Claim("abcdefghijklmnop", 90))
    claims = [Claim("abcdefghijklmnop", number) for number in range(1, 101)]
    assert [found.id for found in service().find_forgotten(claims, since=0)] == [job.id]


def test_without_the_setting_nothing_is_asked(aws, option):
    job = forgotten(aws)
    option("")
    aws.forget_calls()
    assert (service().find_forgotten([CLAIM], since=0), service().recover([job])) == ([], [])
    assert aws.calls["logs:FilterLogEvents"] == 0


def test_a_running_task_that_is_archived_says_nothing(aws):
    job = forgotten(aws)
    detail = {"taskArn": job.id, "clusterArn": job.scope, "startedBy": str(LATER), "lastStatus": "RUNNING"}
    event = {"source": "aws.ecs", "detail-type": "ECS Task State Change", "detail": detail}
    aws.put_log_lines(GROUP, "by hand", [json.dumps(event)])
    assert service().find_forgotten([LATER], since=0) == []


def test_an_event_that_does_not_say_when_its_task_was_created_is_older_than_any_run(aws):
    aws.put_log_lines(GROUP, "by hand", [event_of(claim=CLAIM)])
    (found,) = service().find_forgotten([CLAIM], since=0)
    assert (found.phase, found.created) == (Phase.SUCCEEDED, 0.0)


def test_only_what_the_task_itself_says_of_its_claim_counts(aws):
    aws.put_log_lines(GROUP, "by hand", [event_of(claim=LATER, startedBy=str(CLAIM))])
    assert service().find_forgotten([CLAIM], since=0) == []


def event_of(claim, **more):
    """An event about the end of a task that was started by `claim`, with as little as possible."""
    task = {
        "taskArn": "arn:aws:ecs:us-east-1:123456789012:task/etl/0123",
        "clusterArn": "arn:aws:ecs:us-east-1:123456789012:cluster/etl",
        "lastStatus": "STOPPED",
        "startedBy": str(claim),
        "containers": [{"name": "main", "exitCode": 0}],
    }
    known = {"source": "aws.ecs", "detail-type": "ECS Task State Change", "detail": task}
    return json.dumps({**known, **more})


# --- errors of the archive -----------------------------------------------------------------------


def test_an_archive_that_is_throttled_is_not_one_that_knows_nothing(aws):
    job = forgotten(aws)
    ecs = service()
    for ask in (lambda: ecs.find_forgotten([CLAIM], since=0), lambda: ecs.recover([job])):
        aws.fail_next("logs:FilterLogEvents", "ThrottlingException")
        with pytest.raises(ClientError) as error:
            ask()
        assert ecs.is_transient(error.value)
        assert [found.id for found in ask()] == [job.id]


def test_a_denied_archive_is_said_once_with_what_to_allow(aws, caplog):
    job = forgotten(aws)
    aws.deny("logs:FilterLogEvents")
    ecs = service()
    assert (ecs.find_forgotten([CLAIM], since=0), ecs.recover([job])) == ([], [])
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert f"{GROUP} of [airflow_resilient] events_log_group cannot be searched" in record.getMessage()
    assert "Allow logs:FilterLogEvents on it" in record.getMessage()


def test_a_group_that_is_not_there_is_said_once(aws, option, caplog):
    forgotten(aws)
    option("/aws/events/typo")
    ecs = service()
    assert [ecs.find_forgotten([CLAIM], since=0) for _ in range(2)] == [[], []]
    assert caplog.text.count("there is no such log group in this region") == 1


@pytest.mark.parametrize(
    ("line", "what"),
    [
        pytest.param(
            {"taskArn": "arn:1", "startedBy": str(CLAIM), "lastStatus": "STOPPED"},
            "only the detail of an event",
            id="the-detail-alone",
        ),
        pytest.param(
            {
                "source": "aws.ecs",
                "detail-type": "ECS Task State Change",
                "detail": {"startedBy": str(CLAIM), "lastStatus": "STOPPED", "taskArn": 7},
            },
            "its detail is not an ECS task",
            id="no-task",
        ),
    ],
)
def test_a_line_that_cannot_be_read_is_said_once_and_harms_no_other(aws, caplog, line, what):
    job = forgotten(aws)
    aws.put_log_lines(GROUP, "by hand", [json.dumps(line)] * 2)
    assert [found.id for found in service().find_forgotten([CLAIM], since=0)] == [job.id]
    assert caplog.text.count("has a line that cannot be read") == 1
    assert what in caplog.text


# --- recover, and the watch -----------------------------------------------------------------------


def test_a_watched_task_is_recovered_under_its_own_claim_only(aws):
    job = forgotten(aws, exit_code=3)
    theirs = replace(job, claim=LATER)
    sensors = Job(job.id.rpartition("/")[2], NO_CLAIM, Phase.QUEUED, aws.now(), scope="etl")
    found = service().recover([theirs, job, sensors])
    assert [(each.id, each.claim, each.phase) for each in found] == [
        (job.id, CLAIM, Phase.FAILED),
        (sensors.id, NO_CLAIM, Phase.FAILED),
    ]
    assert (found[0].created, found[0].exit_code, found[1].scope) == (job.created, 3, "etl")


def test_the_same_id_in_another_cluster_is_another_task(aws):
    job = forgotten(aws)
    sensors = Job(job.id.rpartition("/")[2], NO_CLAIM, Phase.QUEUED, aws.now(), scope="other")
    assert service().recover([sensors]) == []


def test_many_tasks_are_recovered_with_few_calls(aws):
    jobs = [service().submit(Claim("abcdefghijklmnop", number)) for number in range(1, 41)]
    for job in jobs:
        aws.ecs.finish(job.id)
    aws.advance(3601)
    aws.forget_calls()
    assert {job.id for job in service().recover(jobs)} == {job.id for job in jobs}
    assert aws.calls["logs:FilterLogEvents"] <= 8


def test_an_id_that_is_no_id_is_not_searched_for(aws):
    forgotten(aws)
    odd = Job('x" || $.detail.lastStatus = "STOPPED', NO_CLAIM, Phase.QUEUED, aws.now(), scope="etl")
    aws.forget_calls()
    assert service().recover([odd]) == []
    assert aws.calls["logs:FilterLogEvents"] == 0


def end_of(watch, job):
    async def main():
        async with aclosing(watch.follow(job, QUICK)) as follow:
            async for seen in follow:
                if not seen.live:
                    return seen
        raise AssertionError("it ended without an end")

    return asyncio.run(asyncio.wait_for(main(), 20))


@pytest.mark.parametrize(("exit_code", "phase"), [(0, Phase.SUCCEEDED), (3, Phase.FAILED)])
def test_a_watched_task_that_ecs_has_forgotten_ends_as_its_event_says(aws, exit_code, phase):
    job = forgotten(aws, exit_code=exit_code)
    assert end_of(SharedWatch(service()), job).phase is phase
    assert aws.calls["logs:FilterLogEvents"] == 1, "it is asked once"


def test_a_watched_task_that_nobody_knows_is_lost(aws):
    job = forgotten(aws)
    boto3.client("logs").delete_log_group(logGroupName=GROUP)
    boto3.client("logs").create_log_group(logGroupName=GROUP)
    assert end_of(SharedWatch(service()), job).phase is Phase.LOST


def test_a_throttled_archive_delays_the_end_and_does_not_change_it(aws):
    job = forgotten(aws)
    aws.fail_next("logs:FilterLogEvents", "ThrottlingException", times=2)
    assert end_of(SharedWatch(service()), job).phase is Phase.SUCCEEDED
    assert aws.calls["logs:FilterLogEvents"] == 3


def test_an_archive_that_never_answers_does_not_delay_the_loss_for_ever(aws):
    job = forgotten(aws)
    aws.fail_next("logs:FilterLogEvents", "ThrottlingException", times=None)
    assert end_of(SharedWatch(service(), archive_timeout=0.5), job).phase is Phase.LOST


# --- the operator and the sensor ------------------------------------------------------------------


@pytest.fixture
def live_aws(option):
    """A fake AWS whose time is real, for triggers that wait."""
    with FakeAws() as fake:
        fake.make_ecs_cluster("etl")
        fake.make_task_definition("nightly")
        fake.ecs.plan("nightly", seconds=None)
        archive()
        yield fake


@pytest.fixture
def said(caplog, capsys):
    """What was logged: Airflow 3 writes the log of a task to the standard output here."""
    caplog.set_level(logging.INFO)
    return lambda: caplog.text + capsys.readouterr().out


class QuickOperator(EcsRunTaskOperator):
    """The operator with short waits between its attempts, as a test needs them."""

    def remote_jobs(self, context):
        ecs = super().remote_jobs(context)
        ecs.listing_lag = 0.01
        return ecs

    def _policy(self):
        return replace(super()._policy(), first_pause=0.01, max_backoff=0.1, transient_error_timeout=0.3)


def tries():
    given = {"cluster": "etl", "task_definition": "nightly", "launch_type": "FARGATE", "overrides": {}}
    return TaskTries(
        lambda: QuickOperator(task_id="nightly", aws_conn_id=None, poll_policy=QUICK, retries=2, **given)
    )


def end_and_forget(aws, exit_code=0):
    (task,) = [task for task in aws.ecs.tasks() if task.live]
    aws.ecs.finish(task.arn, exit_code)
    aws.deliver_events()
    aws.ecs.forget(task.arn)


def test_a_task_that_ended_well_while_nobody_watched_is_not_started_again(live_aws):
    task = tries()
    task.start()
    end_and_forget(live_aws)
    assert task.run() is None
    assert len(live_aws.ecs.tasks()) == 1


def test_a_task_that_failed_while_nobody_watched_is_history_of_the_next_try(live_aws):
    task = tries()
    task.start()
    end_and_forget(live_aws, exit_code=3)
    live_aws.ecs.plan("nightly", seconds=0.1)
    assert task.run() is None
    assert [each.started_by[-1] for each in live_aws.ecs.tasks()] == ["1", "2"]


def test_after_a_clear_the_result_from_before_it_does_not_count(live_aws):
    task = tries()
    task.start()
    end_and_forget(live_aws)
    task.clear()
    live_aws.ecs.plan("nightly", seconds=0.1)
    assert task.run() is None
    assert len(live_aws.ecs.tasks()) == 2


def test_a_retry_that_finds_the_task_before_asks_no_archive(live_aws):
    task = tries()
    task.start()
    live_aws.ecs.finish(live_aws.ecs.tasks()[0].arn, 3)
    live_aws.ecs.plan("nightly", seconds=0.1)
    assert task.run() is None
    assert live_aws.calls["logs:FilterLogEvents"] == 0


def test_an_archive_that_never_answers_does_not_hold_up_a_try_for_ever(live_aws, said):
    task = tries()
    task.start()
    end_and_forget(live_aws)
    live_aws.fail_next("logs:FilterLogEvents", "ThrottlingException", times=None)
    live_aws.ecs.plan("nightly", seconds=0.1)
    assert task.run() is None
    assert len(live_aws.ecs.tasks()) == 2
    assert "The try goes on as if there were none" in said()


def test_the_trigger_says_from_where_it_knows_the_end(live_aws, said):
    task = tries()
    deferred = task.start()
    end_and_forget(live_aws)
    assert task.finish(deferred) is None
    assert f"The service has forgotten it; an event in {GROUP} says how it ended" in said()


def test_without_an_event_of_its_end_the_task_is_lost(live_aws):
    task = tries()
    deferred = task.start()
    live_aws.ecs.forget(live_aws.ecs.tasks()[0].arn)
    with pytest.raises(JobLost):
        task.finish(deferred)


def quickly(waits):
    """Run a sensor that does not wait two minutes before it believes that a task is lost."""
    deferred = waits.start()
    policy = {**deferred.kwargs["poll_policy"], **asdict(QUICK)}
    return waits.finish(replace(deferred, kwargs={**deferred.kwargs, "poll_policy": policy}))


@pytest.mark.parametrize("name", ["id", "arn"])
def test_a_sensor_that_begins_when_the_task_is_forgotten_learns_that_it_has_stopped(live_aws, name):
    job = service().submit(CLAIM)
    end_and_forget(live_aws)
    task = job.id if name == "arn" else job.id.rpartition("/")[2]
    given = {"task_id": "wait", "cluster": "etl", "task": task, "aws_conn_id": None}
    waits = TaskTries(lambda: EcsTaskStateSensor(target_state="STOPPED", failure_states={"NONE"}, **given))
    assert quickly(waits) is None
    with pytest.raises(JobFailed, match="is STOPPED and can no longer become RUNNING"):
        quickly(TaskTries(lambda: EcsTaskStateSensor(**given)))


# --- the fake itself ------------------------------------------------------------------------------


def lines(aws):
    found = boto3.client("logs").filter_log_events(logGroupName=GROUP)["events"]
    return [json.loads(each["message"]) for each in found]


def test_the_fake_sends_what_describe_tasks_showed_with_times_as_texts(aws):
    job = forgotten(aws)
    (event,) = lines(aws)
    assert (event["source"], event["detail-type"]) == ("aws.ecs", "ECS Task State Change")
    assert event["detail"]["taskArn"] == job.id
    assert event["detail"]["createdAt"].endswith("Z")
    assert event["time"] == event["detail"]["stoppedAt"]


def test_the_fake_sends_nothing_of_what_ended_before_the_rule_was_made_or_while_it_is_disabled(option):
    yesterday = float(int(time.time() - 86400))
    with FakeAws(clock=lambda: yesterday) as aws:
        aws.make_ecs_cluster("etl")
        aws.make_task_definition("nightly")
        aws.ecs.plan("nightly", seconds=60)
        service().submit(CLAIM)
        aws.advance(60)
        aws.make_event_rule("airflow", ENDS, GROUP)
        second = service().submit(LATER)
        aws.advance(60)
        assert [event["detail"]["taskArn"] for event in lines(aws)] == [second.id]
        boto3.client("events").disable_rule(Name="airflow")
        service().submit(Claim(CLAIM.task_key, 3))
        aws.advance(60)
        assert len(lines(aws)) == 1


def test_the_fake_refuses_a_pattern_that_it_does_not_understand(aws):
    logs = boto3.client("logs")
    for pattern in ('{ $.a != "b" }', "[a, b]", '{ ($.a = "' + "b" * 1024 + '") }'):
        with pytest.raises(ClientError, match="InvalidParameterException"):
            logs.filter_log_events(logGroupName=GROUP, filterPattern=pattern)


def test_the_fake_allows_five_searches_a_second(aws):
    aws.throttling = True
    ecs = service()
    for _ in range(5):
        ecs.find_forgotten([CLAIM], since=0)
    with pytest.raises(ClientError, match="Throttling"):
        ecs.find_forgotten([CLAIM], since=0)
