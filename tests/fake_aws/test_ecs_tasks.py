"""ECS tasks against the fake AWS: the service first, then operator and sensor through their whole way."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import timedelta

import boto3
import pytest
from airflow.providers.amazon.aws.exceptions import EcsOperatorError, EcsTaskFailToStart
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from airflow_resilient import (
    EcsRunTaskOperator,
    EcsTaskStateSensor,
    JobCancelled,
    JobFailed,
    JobLost,
    JobTimeout,
    JobUnreachable,
    NoCapacity,
    NotSubmitted,
    PollPolicy,
    SubmitRefused,
)
from airflow_resilient.compat import AirflowFailException, AirflowSkipException
from airflow_resilient.core.job import NO_CLAIM, Cause, Claim, Phase
from airflow_resilient.services.ecs.client import EcsTasks
from airflow_resilient.services.ecs.links import EcsTaskLink, EcsTaskLogsLink
from airflow_resilient.testing import FakeAws, TaskTries
from airflow_resilient.testing.task_tries import Deferred

CLAIM = Claim("abcdefghijklmnop", 1)
OTHER = Claim("ponmlkjihgfedcba", 1)
QUICK = PollPolicy(
    interval=0.05,
    first_interval=0.01,
    max_backoff=0.1,
    lost_after_polls=2,
    lost_after_seconds=0.0,
    give_up_after_denials=2,
)
SECRET = "hunter2"
OVERRIDES = {"containerOverrides": [{"name": "main", "environment": [{"name": "PASSWORD", "value": SECRET}]}]}


@pytest.fixture
def aws():
    with FakeAws(fake_time=True) as fake:
        fake.make_ecs_cluster("etl")
        fake.make_task_definition("nightly", containers=("main", "sidecar"), log_group="/ecs/nightly")
        fake.ecs.plan("nightly", seconds=None)  # until the test ends it
        yield fake


def service(**changes):
    request = {"taskDefinition": "nightly", "overrides": OVERRIDES, "launchType": "FARGATE", **changes}
    return EcsTasks(
        aws_conn_id=None,
        cluster="etl",
        request=request,
        botocore_config={"retries": {"total_max_attempts": 1}},
    )


def watcher(ecs):
    """The service as the triggerer has it: built from the address."""
    return EcsTasks(**json.loads(json.dumps(ecs.address())))


def observe(ecs, job):
    (seen,) = ecs.observe([job])
    return seen


# --- submitting -----------------------------------------------------------------------------------


def test_a_task_bears_the_claim_in_its_name_and_in_its_token(aws):
    job = service().submit(Claim(CLAIM.task_key, 2, resubmission=1))
    (task,) = aws.ecs.tasks()
    assert (task.started_by, task.client_token) == (f"af-{CLAIM.task_key}-2", f"af-{CLAIM.task_key}-2-1")
    assert (job.id, job.phase, job.claim.number) == (task.arn, Phase.QUEUED, 2)
    assert job.scope.endswith(":cluster/etl")
    assert job.created == task.created
    assert job.facts["containers"] == [["main", None], ["sidecar", None]]


def test_the_same_claim_submitted_twice_is_one_task(aws):
    assert service().submit(CLAIM).id == service().submit(CLAIM).id
    assert len(aws.ecs.tasks()) == 1


def test_a_request_that_was_rendered_differently_adopts_the_task_of_its_claim(aws):
    first = service().submit(CLAIM)
    second = service(overrides={"cpu": "512"}).submit(CLAIM)
    assert second.id == first.id
    assert len(aws.ecs.tasks()) == 1


def test_a_task_that_is_adopted_may_not_be_known_yet(aws):
    aws.ecs.visible_after_seconds = 30
    first = service().submit(CLAIM)
    second = service(overrides={}).submit(CLAIM)
    assert (second.id, second.phase) == (first.id, Phase.QUEUED)
    assert second.scope == "etl"


def test_a_task_of_somebody_else_is_never_adopted(aws):
    foreign = (
        service()
        .access.client("ecs")
        .run_task(cluster="etl", taskDefinition="nightly", startedBy="somebody", clientToken=CLAIM.token)
    )
    with pytest.raises(SubmitRefused, match="'somebody'") as error:
        service().submit(CLAIM)
    assert foreign["tasks"][0]["taskArn"] in str(error.value)


@pytest.mark.parametrize("answer", ["500", "drop"])
def test_a_lost_answer_is_transient_and_the_task_is_found_again(aws, answer):
    ecs = service()
    aws.fail_next("ecs:RunTask", carried_out=True, answer=answer)
    with pytest.raises(Exception, match=r".") as error:
        ecs.submit(CLAIM)
    assert ecs.is_transient(error.value)
    (found,) = ecs.find([CLAIM])
    assert ecs.submit(CLAIM).id == found.id
    assert len(aws.ecs.tasks()) == 1


def test_a_token_that_is_spent_gives_back_the_task_that_has_ended(aws):
    first = service().submit(CLAIM)
    aws.ecs.finish(first.id, 0)
    again = service().submit(CLAIM)
    assert (again.id, again.phase) == (first.id, Phase.SUCCEEDED)
    assert service().submit(replace(CLAIM, resubmission=1)).id != first.id


@pytest.mark.parametrize(
    "reason", ["RESOURCE:MEMORY", "RESOURCE:ENI", "AGENT", "Capacity is unavailable at this time."]
)
def test_a_failure_for_lack_of_capacity_says_so(aws, reason):
    aws.ecs.plan("nightly", failure=reason)
    with pytest.raises(NoCapacity, match=reason) as error:
        service().submit(CLAIM)
    assert error.value.response["failures"][0]["reason"] == reason
    assert isinstance(error.value, EcsOperatorError)
    assert error.value.failures[0]["reason"] == reason


def test_another_failure_is_no_task_and_not_final(aws):
    aws.ecs.plan("nightly", failure="ATTRIBUTE")
    with pytest.raises(NotSubmitted, match="ATTRIBUTE") as error:
        service().submit(CLAIM)
    assert not isinstance(error.value, NoCapacity | AirflowFailException)
    assert isinstance(error.value, EcsOperatorError)


def test_a_task_that_failed_to_start_is_an_error_of_the_providers_too(aws):
    reason = "CannotPullContainerError: no such image"
    aws.ecs.plan("nightly", stop_code="TaskFailedToStart", reason=reason)
    with pytest.raises(JobFailed, match=reason) as error:
        tries().run()
    assert isinstance(error.value, EcsTaskFailToStart)
    assert reason in error.value.message


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("ClientException", "Capacity is unavailable at this time. Please try again later."),
        ("ClientException", "You've reached the limit on the number of vCPUs you can run concurrently"),
        ("ClientException", "Tasks provisioning capacity limit exceeded."),
        ("InvalidParameterException", "No Container Instances were found in your cluster."),
    ],
)
def test_lack_of_capacity_is_read_from_the_text_of_an_error_too(aws, code, message):
    aws.fail_next("ecs:RunTask", code, message=message)
    with pytest.raises(NoCapacity, match=r"nightly in cluster etl"):
        service().submit(CLAIM)


@pytest.mark.parametrize(
    "value", ["on", "limit", "the", "the limit on", "number", "You've", "reached the limit on"]
)
def test_want_of_room_is_understood_whatever_the_values_of_the_user_are(aws, value):
    message = "You've reached the limit on the number of tasks you can run concurrently"
    aws.fail_next("ecs:RunTask", "ClientException", message=message)
    overrides = {"containerOverrides": [{"name": "main", "environment": [{"name": "A", "value": value}]}]}
    with pytest.raises(NoCapacity) as error:
        service(overrides=overrides).submit(CLAIM)
    assert len(value) > 2 or "the limit on the number" in str(error.value)


@pytest.mark.parametrize(
    ("failure", "detail"),
    [
        ("ATTRIBUTE", "agent-pool"),
        ("ATTRIBUTE:ecs.capability.limit", None),
        ("LOCATION", "capacity"),
        ("MISSING", "RESOURCE:x"),
    ],
)
def test_a_failure_that_only_quotes_words_of_want_of_room_is_none(aws, failure, detail):
    ecs = service()
    with pytest.raises(NotSubmitted) as error:
        ecs._raise_not_started([{"reason": failure, "detail": detail}])
    assert not isinstance(error.value, NoCapacity)


@pytest.mark.parametrize(
    "message",
    [
        "Invalid tag value 'capacity is unavailable'",
        "The group family:provisioning state is invalid",
        "Value '[No Container Instances were found]' at 'overrides' failed to satisfy constraint",
    ],
)
def test_a_value_that_aws_quotes_is_no_want_of_room(aws, message):
    aws.fail_next("ecs:RunTask", "InvalidParameterException", message=message)
    with pytest.raises(SubmitRefused):
        service(group="family:provisioning state").submit(CLAIM)


REFUSED = [
    pytest.param("AccessDeniedException", "iam:PassRole", id="denied"),
    pytest.param("BlockedException", "Correct the request", id="a-blocked-account"),
    pytest.param("PlatformUnknownException", "Correct the request", id="an-unknown-platform"),
    pytest.param("InvalidParameterException", "Check the parameter", id="an-invalid-parameter"),
]


@pytest.mark.parametrize(("code", "advice"), REFUSED)
def test_what_will_never_be_taken_is_refused_with_what_to_do(aws, code, advice):
    aws.fail_next("ecs:RunTask", code)
    with pytest.raises(SubmitRefused, match=advice) as error:
        service().submit(CLAIM)
    assert error.value.response["Error"]["Code"] == code
    assert isinstance(error.value, AirflowFailException)


def test_an_unknown_cluster_is_refused(aws):
    ecs = EcsTasks(aws_conn_id=None, cluster="typo", request={"taskDefinition": "nightly"})
    with pytest.raises(SubmitRefused, match=r"typo.*Check cluster"):
        ecs.submit(CLAIM)


def test_an_unknown_task_definition_is_refused(aws):
    with pytest.raises(SubmitRefused, match="Check task_definition"):
        service(taskDefinition="typo").submit(CLAIM)


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(
            {"containerOverrides": [{"name": "main", "environment": {"PASSWORD": SECRET}}]}, id="a-dict"
        ),
        pytest.param({"containerOverrides": SECRET}, id="a-string"),
        pytest.param(
            {"containerOverrides": [{"environment": [{"name": "PASSWORD", "value": [SECRET]}]}]}, id="a-list"
        ),
    ],
)
def test_a_request_that_boto3_refuses_is_refused_without_its_values(aws, overrides, caplog):
    with caplog.at_level(logging.DEBUG, logger="airflow_resilient"), pytest.raises(SubmitRefused) as error:
        service(overrides=overrides).submit(CLAIM)
    assert "containerOverrides" in str(error.value)
    assert SECRET not in f"{error.value} {error.value.response} {error.value.__cause__} {caplog.text}"


def test_a_value_that_aws_quotes_is_not_shown(aws, caplog):
    aws.fail_next("ecs:RunTask", "InvalidParameterException", message=f"Bad value {SECRET} of PASSWORD")
    with pytest.raises(SubmitRefused, match="PASSWORD") as error:
        service().submit(CLAIM)
    assert SECRET not in f"{error.value} {error.value.response} {error.value.__cause__} {caplog.text}"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("ThrottlingException", None),
        ("ServerException", None),
        ("InvalidParameterException", "Request limit exceeded. (ErrorCode: RequestLimitExceeded)"),
    ],
)
def test_a_throttle_is_transient_however_it_is_wrapped(aws, code, message):
    ecs = service()
    aws.fail_next("ecs:RunTask", code, message=message)
    with pytest.raises(ClientError) as error:
        ecs.submit(CLAIM)
    assert ecs.is_transient(error.value)


# --- finding --------------------------------------------------------------------------------------


def test_tasks_are_found_by_their_claim_finished_or_not(aws):
    ecs = service()
    first, second = ecs.submit(CLAIM), ecs.submit(Claim(CLAIM.task_key, 2))
    ecs.submit(OTHER)
    aws.ecs.finish(first.id, 0)
    found = {job.id: job for job in ecs.find([CLAIM, Claim(CLAIM.task_key, 2), Claim(CLAIM.task_key, 3)])}
    assert {job.id: job.phase for job in found.values()} == {
        first.id: Phase.SUCCEEDED,
        second.id: Phase.QUEUED if found[second.id].phase is Phase.QUEUED else Phase.RUNNING,
    }
    assert found[second.id].claim == Claim(CLAIM.task_key, 2)


def test_more_than_a_page_of_tasks_is_found(aws):
    client = service().access.client("ecs")
    for _ in range(11):
        client.run_task(cluster="etl", taskDefinition="nightly", startedBy=str(CLAIM), count=10)
    aws.forget_calls()
    assert len(service().find([CLAIM])) == 110
    assert aws.calls["ecs:ListTasks"] == 3
    assert aws.calls["ecs:DescribeTasks"] == 2


def test_a_forgotten_task_is_not_found(aws):
    ecs = service()
    aws.ecs.forget(ecs.submit(CLAIM).id)
    assert ecs.find([CLAIM]) == []


def test_in_a_cluster_that_is_not_there_nothing_is_found(aws):
    assert EcsTasks(aws_conn_id=None, cluster="typo").find([CLAIM]) == []


@pytest.mark.parametrize("operation", ["ecs:ListTasks", "ecs:DescribeTasks"])
def test_who_may_not_search_for_earlier_tasks_may_not_start_another(aws, operation):
    service().submit(CLAIM)
    aws.deny(operation)
    with pytest.raises(SubmitRefused, match=r"Allow ecs:ListTasks and ecs:DescribeTasks"):
        service().find([CLAIM])


# --- observing ------------------------------------------------------------------------------------


def test_a_poll_from_elsewhere_needs_the_address_and_the_job_alone(aws):
    job = service().submit(CLAIM)
    seen = observe(watcher(service()), job)
    assert (seen.id, seen.claim, seen.phase) == (job.id, CLAIM, Phase.RUNNING)


def test_a_poll_asks_for_a_hundred_tasks_at_once_and_for_each_cluster(aws):
    aws.make_ecs_cluster("other")
    other = EcsTasks(aws_conn_id=None, cluster="other", request={"taskDefinition": "nightly"}).submit(OTHER)
    client = service().access.client("ecs")
    for _ in range(12):
        client.run_task(cluster="etl", taskDefinition="nightly", startedBy=str(CLAIM), count=10)
    jobs = [*service().find([CLAIM]), other]
    aws.forget_calls()
    assert {job.id for job in watcher(service()).observe(jobs)} == {job.id for job in jobs}
    assert aws.calls == {"ecs:DescribeTasks": 3}


def test_a_task_that_is_not_known_is_left_out(aws):
    aws.ecs.visible_after_seconds = 10
    ecs = service()
    new = ecs.submit(CLAIM)
    assert ecs.observe([new]) == []
    aws.advance(10)
    assert observe(ecs, new).phase is Phase.RUNNING
    aws.ecs.forget(new.id)
    assert ecs.observe([new]) == []


def test_a_job_that_is_named_by_the_tasks_id_keeps_that_name(aws):
    job = service().submit(CLAIM)
    short = replace(job, id=job.id.rpartition("/")[2], scope="etl")
    assert {seen.id for seen in service().observe([short, job])} == {short.id, job.id}


def test_spot_interruption_with_exit_code_0_is_no_success(aws):
    job = service().submit(CLAIM)
    aws.ecs.interrupt_spot(job.id, exit_code=0)
    seen = observe(service(), job)
    assert (seen.phase, seen.cause) == (Phase.FAILED, Cause.INFRASTRUCTURE)


def test_a_lost_host_is_the_infrastructures_failure(aws):
    job = service().submit(CLAIM)
    aws.ecs.lose_host(job.id)
    assert observe(service(), job).cause is Cause.INFRASTRUCTURE


def end(aws, main, sidecar):
    """A task whose containers end with these exit codes."""
    aws.ecs.plan("nightly", seconds=1, exit_codes={"main": main, "sidecar": sidecar})
    job = service().submit(CLAIM)
    aws.advance(2)
    return job


def test_a_sidecar_that_is_not_essential_does_not_count(aws):
    job = end(aws, main=0, sidecar=1)
    assert observe(service(), job).phase is Phase.SUCCEEDED
    assert service().submit(CLAIM).phase is Phase.SUCCEEDED
    assert service().find([CLAIM])[0].phase is Phase.SUCCEEDED


def test_a_sidecars_success_is_no_success(aws):
    seen = observe(service(), end(aws, main=3, sidecar=0))
    assert (seen.phase, seen.exit_code) == (Phase.FAILED, 3)


def test_which_containers_are_essential_is_asked_once_and_only_where_it_matters(aws):
    ecs, job = service(), end(aws, main=0, sidecar=0)
    observe(ecs, job)
    assert aws.calls["ecs:DescribeTaskDefinition"] == 0
    aws.ecs.plan("nightly", seconds=1, exit_codes={"main": 0, "sidecar": 1})
    jobs = [ecs.submit(Claim(CLAIM.task_key, number)) for number in range(2, 5)]
    aws.advance(2)
    ecs.observe(jobs)
    assert aws.calls["ecs:DescribeTaskDefinition"] == 1


def test_who_may_not_ask_which_containers_are_essential_counts_them_all(aws):
    aws.deny("ecs:DescribeTaskDefinition")
    seen = observe(service(), end(aws, main=0, sidecar=1))
    assert (seen.phase, seen.exit_code) == (Phase.FAILED, 1)


def test_a_throttled_question_about_containers_delays_the_poll(aws):
    job, ecs = end(aws, main=0, sidecar=1), service()
    aws.fail_next("ecs:DescribeTaskDefinition", "ThrottlingException")
    with pytest.raises(ClientError) as error:
        ecs.observe([job])
    assert ecs.is_transient(error.value)
    assert observe(ecs, job).phase is Phase.SUCCEEDED


# --- cancelling -----------------------------------------------------------------------------------


def test_cancelling_asks_for_the_end_and_says_why(aws):
    job = service().submit(CLAIM)
    assert watcher(service()).cancel(job, "superseded " * 50).phase is Phase.STOPPING
    aws.advance(5)
    seen = observe(service(), job)
    assert (seen.phase, seen.cause) == (Phase.CANCELLED, Cause.USER)
    assert "airflow_resilient: superseded" in seen.reason


def test_cancelling_what_has_ended_is_no_error(aws):
    job = service().submit(CLAIM)
    aws.ecs.finish(job.id, 0)
    assert service().cancel(job, "late").phase is Phase.SUCCEEDED


def test_cancelling_what_is_forgotten_is_no_error(aws):
    job = observe(service(), service().submit(CLAIM))
    aws.ecs.forget(job.id)
    assert service().cancel(job, "late").phase is Phase.LOST


def test_cancelling_what_is_not_known_yet_is_to_be_tried_again(aws):
    aws.ecs.visible_after_seconds = 10
    ecs = service()
    job = ecs.submit(CLAIM)
    with pytest.raises(Exception, match="does not know") as error:
        ecs.cancel(job, "early")
    assert ecs.is_transient(error.value)
    aws.advance(10)
    assert ecs.cancel(job, "early").phase is Phase.STOPPING


# --- whose task it is -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "started_by",
    [
        pytest.param(str(OTHER), id="another-task-instance"),
        pytest.param(f"{CLAIM}0", id="another-number"),
        pytest.param("ecs-svc/123", id="a-service"),
        pytest.param(None, id="somebody-by-hand"),
    ],
)
def test_a_task_that_was_not_started_by_the_claim_is_neither_stopped_nor_observed(aws, started_by, caplog):
    by = {"startedBy": started_by} if started_by else {}
    (task,) = service().client().run_task(cluster="etl", taskDefinition="nightly", **by)["tasks"]
    named = replace(service().submit(CLAIM), id=task["taskArn"])
    assert service().cancel(named, "an XCom says that it is ours").phase is Phase.LOST
    assert service().observe([named]) == []
    assert aws.ecs.task(named.id).live
    assert aws.calls["ecs:StopTask"] == 0
    assert f"was started by {started_by or ''!r}, not by {CLAIM}" in caplog.text


def test_a_sensors_task_is_observed_and_never_stopped(aws):
    job = replace(service().submit(CLAIM), claim=NO_CLAIM)
    assert observe(service(), job).phase is Phase.RUNNING
    assert service().cancel(job, "mistaken").phase is Phase.LOST
    assert aws.ecs.task(job.id).live


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param({}, id="without-overrides"),
        pytest.param({"cpu": "256"}, id="without-containers"),
        pytest.param({"containerOverrides": [{"name": "sidecar", "command": ["x"]}]}, id="of-a-container"),
        pytest.param(OVERRIDES, id="with-an-environment"),
    ],
)
def test_a_task_tells_its_generation_as_long_as_it_is_known(aws, overrides):
    claim = replace(CLAIM, generation="4.3")
    job = service(overrides=overrides).submit(claim)
    aws.ecs.finish(job.id, 0)
    (found,) = service().find([CLAIM])
    seen = observe(watcher(service()), replace(job, claim=CLAIM))
    assert job.claim.generation == found.claim.generation == seen.claim.generation == "4.3"


def test_a_token_that_an_older_request_has_used_tells_the_older_generation(aws):
    first = service().submit(replace(CLAIM, generation="1.1"))
    again = service().submit(replace(CLAIM, generation="2.3"))
    assert (again.id, again.claim.generation) == (first.id, "1.1")


def test_a_task_definition_that_may_not_be_read_hides_the_generation_and_nothing_else(aws):
    aws.deny("ecs:DescribeTaskDefinition")
    job = service(overrides={}).submit(replace(CLAIM, generation="4.3"))
    assert (job.phase.live, job.claim.generation) == (True, "")


def test_overrides_that_boto3_refuses_are_refused_by_boto3(aws):
    for overrides in ({"containerOverrides": "main"}, {"containerOverrides": ["main"]}):
        with pytest.raises(SubmitRefused, match="containerOverrides"):
            service(overrides=overrides).submit(replace(CLAIM, generation="4.3"))


# --- the log --------------------------------------------------------------------------------------

WHERE = {"group": "/ecs/nightly", "prefix": "ecs", "region": None, "container": None}


def write(aws, job, *lines, container="main"):
    aws.put_log_lines("/ecs/nightly", f"ecs/{container}/{job.id.rpartition('/')[2]}", lines)


def texts(lines):
    return [text for _, text in lines]


def test_the_log_is_read_on_from_where_it_was_left(aws):
    job, ecs = service().submit(CLAIM), watcher(service())
    write(aws, job, "one", "two")
    lines, cursor = ecs.read_log(job, WHERE, None)
    assert texts(lines) == ["one", "two"]
    assert lines[0][0] == aws.now()
    assert ecs.read_log(job, WHERE, cursor) == ([], cursor)
    write(aws, job, "three")
    lines, cursor = ecs.read_log(job, WHERE, json.loads(json.dumps(cursor)))
    assert texts(lines) == ["three"]


def test_a_token_that_has_expired_costs_no_line_and_doubles_none(aws):
    job, ecs = service().submit(CLAIM), service()
    write(aws, job, "one", "two")
    _, cursor = ecs.read_log(job, WHERE, None)
    write(aws, job, "three")
    aws.fail_next(
        "logs:GetLogEvents", "InvalidParameterException", message="The specified nextToken is invalid."
    )
    lines, cursor = ecs.read_log(job, WHERE, cursor)
    assert texts(lines) == ["three"]
    write(aws, job, "four")
    assert texts(ecs.read_log(job, WHERE, cursor)[0]) == ["four"]


def test_a_stream_that_is_not_there_has_no_lines(aws):
    job = service().submit(CLAIM)
    lines, cursor = service().read_log(job, WHERE, None)
    assert lines == []
    assert service().last_lines(job, WHERE, 5) == ()
    write(aws, job, "one")
    assert texts(service().read_log(job, WHERE, cursor)[0]) == ["one"]


def test_a_throttled_log_is_transient(aws):
    job, ecs = service().submit(CLAIM), service()
    write(aws, job, "one")
    aws.fail_next("logs:GetLogEvents", "ThrottlingException", times=9)
    with pytest.raises(ClientError) as error:
        ecs.read_log(job, WHERE, None)
    assert ecs.is_transient(error.value)


def test_the_log_is_that_of_the_named_container(aws):
    job = service().submit(CLAIM)
    write(aws, job, "noise", container="sidecar")
    lines, _ = service().read_log(job, {**WHERE, "container": "sidecar"}, None)
    assert texts(lines) == ["noise"]


def listed(job, *names):
    """AWS lists containers in any order."""
    return replace(job, facts={**job.facts, "containers": [[name, None] for name in names]})


def test_a_sidecar_that_is_listed_first_does_not_give_the_log(aws):
    ecs = service()
    job = listed(ecs.submit(CLAIM), "aws-guardduty-agent-x2", "sidecar", "main")
    write(aws, job, "noise", container="sidecar")
    write(aws, job, "one")
    for where, calls in (({**WHERE, "prefix": "ecs/main"}, 0), (WHERE, 1), (WHERE, 1)):
        assert texts(ecs.read_log(job, where, None)[0]) == ["one"]
        assert ecs.last_lines(job, where, 5) == ("one",)
        assert aws.calls["ecs:DescribeTaskDefinition"] == calls


def test_who_may_not_ask_whose_log_is_wanted_is_told_what_to_write(aws, caplog):
    aws.deny("ecs:DescribeTaskDefinition")
    ecs = service()
    job = listed(ecs.submit(CLAIM), "sidecar", "main")
    write(aws, job, "noise", container="sidecar")
    for _ in range(3):
        assert texts(ecs.read_log(job, WHERE, None)[0]) == ["noise"]
    assert caplog.text.count("Write container_name, or allow ecs:DescribeTaskDefinition") == 1


@given(
    some.none()
    | some.integers()
    | some.text(max_size=3)
    | some.lists(some.integers(), max_size=2)
    | some.fixed_dictionaries(
        {},
        optional={
            name: some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=3)
            for name in ("token", "start", "time", "seen", "skip", "more")
        },
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_an_odd_cursor_ends_no_reading(aws, cursor):
    ecs = service()
    job = ecs.submit(CLAIM)
    if not ecs.last_lines(job, WHERE, 1):
        write(aws, job, "one")
    lines, after = ecs.read_log(job, WHERE, cursor)
    assert len(lines) <= 1
    json.dumps(after)


def test_as_long_as_the_container_is_not_known_there_is_no_log(aws):
    job = replace(service().submit(CLAIM), facts={})
    assert service().read_log(job, WHERE, None) == ([], None)


def test_the_last_lines_are_read_with_one_call(aws):
    job = service().submit(CLAIM)
    write(aws, job, *(str(number) for number in range(9)))
    assert service().last_lines(job, WHERE, 3) == ("6", "7", "8")
    assert aws.calls["logs:GetLogEvents"] == 1


# --- the operator ---------------------------------------------------------------------------------


@pytest.fixture
def live_aws():
    """A fake AWS whose time is real, for triggers that wait."""
    with FakeAws() as fake:
        fake.make_ecs_cluster("etl")
        fake.make_task_definition("nightly", containers=("main",), log_group="/ecs/nightly")
        fake.ecs.plan("nightly", seconds=0.2)
        yield fake


class QuickOperator(EcsRunTaskOperator):
    """The operator with short waits between its attempts, as a test needs them."""

    def remote_jobs(self, context):
        ecs = super().remote_jobs(context)
        ecs.listing_lag = 0.01
        return ecs

    def _policy(self):
        return replace(super()._policy(), first_backoff=0.05, first_pause=0.01, max_backoff=0.1)


def tries(**changes):
    given = {
        "task_id": "nightly",
        "cluster": "etl",
        "task_definition": "nightly",
        "overrides": OVERRIDES,
        "launch_type": "FARGATE",
        "aws_conn_id": None,
        "poll_policy": QUICK,
        **changes,
    }
    return TaskTries(lambda: QuickOperator(**given))


@pytest.fixture
def short_drain(monkeypatch):
    """Do not wait six seconds for late lines: the fake's are never late."""
    monkeypatch.setattr(EcsTasks, "log_drain", 0.2)


LOGGED = {"awslogs_group": "/ecs/nightly", "awslogs_stream_prefix": "ecs", "awslogs_fetch_interval": 0.05}


def test_a_task_is_run_once_watched_without_a_slot_and_nothing_secret_is_logged(live_aws, caplog):
    task = tries()
    with (
        caplog.at_level(logging.DEBUG, logger="airflow"),
        caplog.at_level(logging.DEBUG, logger="airflow_resilient"),
    ):
        deferred = task.start()
        assert isinstance(deferred, Deferred)
        assert task.finish(deferred) is None
    (made,) = live_aws.ecs.tasks()
    assert task.xcoms["ecs_task_arn"] == made.arn
    assert SECRET not in caplog.text
    assert SECRET not in json.dumps(deferred.kwargs)
    assert live_aws.calls["ecs:ListTasks"] == 0, "a first try has nothing to search for"


def test_the_end_is_read_from_what_the_watch_saw(live_aws):
    task = tries()
    deferred = task.start()
    payload = task.watch(deferred)
    live_aws.ecs.forget(live_aws.ecs.tasks()[0].arn)
    live_aws.forget_calls()
    assert task.resume(deferred, payload) is None
    assert not live_aws.calls


def test_the_last_line_of_the_log_is_returned(live_aws, caplog, short_drain):
    task = tries(**LOGGED)
    deferred = task.start()
    arn = live_aws.ecs.tasks()[0].arn
    live_aws.put_log_lines("/ecs/nightly", f"ecs/main/{arn.rpartition('/')[2]}", ["begin", "42 rows"])
    assert task.finish(deferred) == "42 rows"


def test_without_do_xcom_push_nothing_is_returned_or_pushed(live_aws, short_drain):
    task = tries(do_xcom_push=False, **LOGGED)
    assert task.run() is None
    assert "ecs_task_arn" not in task.xcoms


@pytest.mark.parametrize("push", [True, False], ids=["pushed", "not-pushed"])
def test_no_line_of_the_log_is_in_the_event(live_aws, short_drain, caplog, push):
    """Events are stored as they are. CloudWatch is late, so the worker reads the end of the log."""
    task = tries(do_xcom_push=push, **LOGGED)
    deferred = task.start()
    arn = live_aws.ecs.tasks()[0].arn
    stream = f"ecs/main/{arn.rpartition('/')[2]}"
    live_aws.put_log_lines("/ecs/nightly", stream, ["first-line"])
    payload = task.watch(deferred)
    live_aws.put_log_lines("/ecs/nightly", stream, ["late-line"])
    assert "-line" not in json.dumps([payload, task.xcoms])
    assert task.resume(deferred, payload) == ("late-line" if push else None)
    assert "-line" not in json.dumps(task.xcoms)


def test_the_log_of_a_lost_job_is_shown_to_its_end_although_the_try_will_submit_another(
    live_aws, short_drain, capsys, caplog
):
    live_aws.ecs.plan("nightly", seconds=None)
    task = tries(**LOGGED)
    deferred = task.start()
    arn = live_aws.ecs.tasks()[0].arn
    live_aws.ecs.interrupt_spot(arn)
    payload = task.watch(deferred)
    live_aws.put_log_lines("/ecs/nightly", f"ecs/main/{arn.rpartition('/')[2]}", ["last-words"])
    with caplog.at_level(logging.INFO):
        again = task.resume(deferred, payload)
    assert again.kwargs["paused"], "the back-off before the next job"
    assert "last-words" in caplog.text + capsys.readouterr().out


@pytest.mark.parametrize(
    "odd",
    [None, 7, [], "text", {}, {"job": 7}, {"cursor": 1}],
    ids=["null", "number", "list", "text", "empty", "another-job", "no-job"],
)
def test_an_odd_position_of_the_log_changes_nothing(live_aws, short_drain, odd):
    task = tries(**LOGGED)
    deferred = task.start()
    arn = live_aws.ecs.tasks()[0].arn
    live_aws.put_log_lines("/ecs/nightly", f"ecs/main/{arn.rpartition('/')[2]}", ["42 rows"])
    payload = task.watch(deferred)
    task.xcoms["remote_job_log"] = odd
    assert task.resume(deferred, {**payload, "log_position": odd}) == "42 rows"


def test_events_and_positions_of_another_version_are_understood(live_aws, short_drain):
    """Workers and triggerers are not upgraded at the same moment."""
    task = tries(**LOGGED)
    deferred = task.start()
    stored = replace(deferred, kwargs={**deferred.kwargs, "log_lines": 10})
    payload = task.watch(stored)
    assert payload["log"] == []
    del payload["log_position"]
    assert task.resume(deferred, {**payload, "log": ["one", "two"]}) == "two"


def test_a_log_that_is_not_there_changes_nothing(live_aws, short_drain):
    assert tries(**{**LOGGED, "awslogs_group": "/no/such/group"}).run() is None


def test_a_denied_log_changes_nothing(live_aws):
    live_aws.deny("logs:GetLogEvents")
    assert tries(**LOGGED).run() is None


def test_a_failure_tells_what_happened_with_the_end_of_the_log(live_aws, short_drain):
    live_aws.ecs.plan("nightly", seconds=0.2, exit_code=3)
    task = tries(number_logs_exception=2, **LOGGED)
    deferred = task.start()
    arn = live_aws.ecs.tasks()[0].arn
    live_aws.put_log_lines("/ecs/nightly", f"ecs/main/{arn.rpartition('/')[2]}", ["one", "two", "boom"])
    with pytest.raises(JobFailed, match=r"container main: exit code 3") as error:
        task.finish(deferred)
    assert str(error.value).endswith("two\nboom")
    assert error.value.job.exit_code == 3
    assert task.xcoms["ecs_task_arn"] == arn


@pytest.mark.parametrize("codes", [99, [98, 99], range(90, 100)], ids=["one", "a-list", "a-range"])
def test_an_exit_code_may_mean_skipped(live_aws, codes):
    live_aws.ecs.plan("nightly", seconds=0, exit_code=99)
    with pytest.raises(AirflowSkipException, match="99"):
        tries(skip_on_exit_code=codes).run()


def test_another_exit_code_does_not_mean_skipped(live_aws):
    live_aws.ecs.plan("nightly", seconds=0, exit_code=1)
    with pytest.raises(JobFailed):
        tries(skip_on_exit_code=99).run()


def test_a_stop_by_a_person_is_not_skipped_and_not_retried(live_aws):
    live_aws.ecs.plan("nightly", seconds=None, stop_seconds=0, stop_exit_code=99)
    task = tries(skip_on_exit_code=99)
    deferred = task.start()
    EcsTasks(aws_conn_id=None, cluster="etl").access.client("ecs").stop_task(
        cluster="etl", task=live_aws.ecs.tasks()[0].arn
    )
    with pytest.raises(JobCancelled):
        task.finish(deferred)


def test_who_does_not_wait_returns_at_once(live_aws):
    task = tries(wait_for_completion=False, **LOGGED)
    assert task.start() is None
    assert task.xcoms["ecs_task_arn"] == live_aws.ecs.tasks()[0].arn


def test_a_crash_right_after_the_submission_costs_no_second_task(live_aws):
    task = tries(retries=1)
    task.start()  # and its worker dies: no trigger, no event
    assert task.run() is None
    assert len(live_aws.ecs.tasks()) == 1


def test_a_task_that_ended_while_nobody_polled_is_adopted_with_its_log(live_aws):
    task = tries(retries=1, **LOGGED)
    task.start()
    arn = live_aws.ecs.tasks()[0].arn
    live_aws.put_log_lines("/ecs/nightly", f"ecs/main/{arn.rpartition('/')[2]}", ["42 rows"])
    live_aws.advance(60)
    assert task.run() == "42 rows"
    assert task.xcoms["ecs_task_arn"] == arn
    assert len(live_aws.ecs.tasks()) == 1


def test_a_failed_task_is_run_again_by_the_retry_under_the_next_claim(live_aws):
    live_aws.ecs.plan("nightly", seconds=0, exit_code=1, then=[{"exit_code": 0}])
    task = tries(retries=1)
    with pytest.raises(JobFailed):
        task.run()
    assert task.run() is None
    assert [each.started_by[-2:] for each in live_aws.ecs.tasks()] == ["-1", "-2"]


def test_a_spot_interruption_is_run_again_within_the_try(live_aws):
    live_aws.ecs.plan(
        "nightly", seconds=0, stop_code="SpotInterruption", then=[{"stop_code": "EssentialContainerExited"}]
    )
    assert tries().run() is None
    first, second = live_aws.ecs.tasks()
    assert first.started_by == second.started_by
    assert first.client_token != second.client_token


def test_a_lost_answer_is_one_task(live_aws):
    live_aws.fail_next("ecs:RunTask", carried_out=True, times=5)
    assert tries().run() is None
    assert len(live_aws.ecs.tasks()) == 1


def test_a_clear_stops_the_task_that_runs_and_starts_another(live_aws):
    live_aws.ecs.plan("nightly", seconds=None, stop_seconds=0.1, then=[{"seconds": 0.1}])
    task = tries()
    task.start()
    task.clear()
    assert task.run() is None
    first, second = live_aws.ecs.tasks()
    assert first.stop_code == "UserInitiated"
    assert second.created >= first.stopped


def test_a_clear_starts_another_task_though_retries_were_raised_before_its_run(live_aws):
    retries = [1]
    task = TaskTries(lambda: tries(retries=retries[0]).make_operator())
    task.run()
    task.clear()
    retries[0] = 3
    task.run()
    assert len(live_aws.ecs.tasks()) == 2


def test_an_xcom_that_names_the_task_of_somebody_else_stops_and_reports_nothing(live_aws):
    live_aws.ecs.plan("nightly", seconds=None)
    (theirs,) = boto3.client("ecs").run_task(cluster="etl", taskDefinition="nightly")["tasks"]
    task = tries(execution_timeout=timedelta(seconds=0.3))
    task.start()
    for job in task.xcoms["remote_job"]["seen"]:
        job.update(id=theirs["taskArn"], phase="succeeded")
    task.xcoms["remote_job"]["own_job_ids"] = [theirs["taskArn"]]
    with pytest.raises(JobTimeout):
        task.finish(task.resume_failed())
    assert live_aws.ecs.task(theirs["taskArn"]).live


def test_a_throttled_watch_delays_the_end_and_changes_nothing(live_aws):
    task = tries(botocore_config={"retries": {"total_max_attempts": 1}})
    deferred = task.start()
    live_aws.fail_next("ecs:DescribeTasks", "ThrottlingException", times=5)
    assert task.finish(deferred) is None


def test_a_new_task_that_is_not_known_yet_is_waited_for(live_aws):
    live_aws.ecs.visible_after_seconds = 0.5
    assert tries(poll_policy=replace(QUICK, lost_after_seconds=10.0)).run() is None


def test_a_forgotten_task_is_lost_and_neither_success_nor_failure(live_aws):
    live_aws.ecs.plan("nightly", seconds=None)
    task = tries()
    deferred = task.start()
    live_aws.ecs.forget(live_aws.ecs.tasks()[0].arn)
    with pytest.raises(JobLost):
        task.finish(deferred)


def test_lack_of_capacity_is_waited_out_and_then_reported(live_aws):
    live_aws.ecs.plan("nightly", seconds=0, failure="RESOURCE:MEMORY", then=[{"failure": None}])
    assert tries().run() is None
    live_aws.ecs.plan("nightly", failure="RESOURCE:MEMORY")
    with pytest.raises(NoCapacity):
        tries(task_id="other").run()


def test_what_is_refused_leaves_nothing_running_and_is_not_retried(live_aws):
    with pytest.raises(SubmitRefused, match="Check task_definition") as error:
        tries(task_definition="typo").run()
    assert isinstance(error.value, AirflowFailException)
    assert live_aws.ecs.tasks() == []


def test_a_region_of_its_own_is_used_for_tasks_and_links(live_aws):
    task = tries()
    task.start()
    facts = task.xcoms[EcsTaskLink.key]
    assert facts.pop("aws_domain") == "aws.amazon.com"
    url = EcsTaskLink.url(**facts)
    task_id = live_aws.ecs.tasks()[0].arn.rpartition("/")[2]
    assert f"region={live_aws.region}" in url
    assert f"/clusters/etl/tasks/{task_id}/" in url
    assert EcsTaskLogsLink.key not in task.xcoms


def test_the_log_has_a_link_from_the_start(live_aws, short_drain):
    task = tries(**LOGGED, awslogs_region="eu-west-1")
    task.start()
    facts = task.xcoms[EcsTaskLogsLink.key]
    assert facts["region_name"] == "eu-west-1"
    assert facts["stream"].startswith("ecs/main/")


# --- the sensor -----------------------------------------------------------------------------------


def sensor(task, **changes):
    given = {
        "task_id": "wait",
        "cluster": "etl",
        "task": task,
        "aws_conn_id": None,
        "poke_interval": 0.05,
        **changes,
    }
    return TaskTries(lambda: EcsTaskStateSensor(**given))


@pytest.fixture
def running(live_aws):
    live_aws.ecs.plan("nightly", seconds=None, stop_seconds=0)
    ecs = EcsTasks(
        aws_conn_id=None, cluster="etl", request={"taskDefinition": "nightly", "launchType": "FARGATE"}
    )
    return ecs.submit(OTHER)


@pytest.mark.parametrize("name", ["id", "arn"])
def test_a_state_that_is_there_already_need_not_be_awaited(live_aws, running, name):
    task = running.id if name == "arn" else running.id.rpartition("/")[2]
    tried = sensor(task)
    assert tried.start() is None
    assert EcsTaskLink.key in tried.xcoms


@pytest.mark.parametrize("name", ["id", "arn"])
def test_the_sensor_waits_without_a_slot(live_aws, running, name):
    task = running.id if name == "arn" else running.id.rpartition("/")[2]
    tried = sensor(task, target_state="STOPPED", failure_states={"NONE"})
    deferred = tried.start()
    assert isinstance(deferred, Deferred)
    live_aws.ecs.finish(running.id, 1)
    assert tried.finish(deferred) is None, "a sensor asks for a state, not for success"


@pytest.mark.parametrize(
    ("state", "plan"),
    [
        pytest.param(
            "PENDING",
            {"pending_seconds": 2000},
            id="pending",
        ),
        pytest.param("RUNNING", {"pending_seconds": 1000, "seconds": None}, id="running"),
        pytest.param(
            "DEPROVISIONING", {"seconds": 1000, "deprovisioning_seconds": 1000}, id="deprovisioning"
        ),
    ],
)
def test_a_state_can_be_waited_for_even_if_it_passes(live_aws, state, plan):
    live_aws.ecs.plan("nightly", **plan)
    ecs = EcsTasks(
        aws_conn_id=None, cluster="etl", request={"taskDefinition": "nightly", "launchType": "FARGATE"}
    )
    tried = sensor(ecs.submit(CLAIM).id, target_state=state)
    deferred = tried.start()
    assert isinstance(deferred, Deferred)
    live_aws.advance(1500)
    assert live_aws.ecs.tasks()[0].state == state
    assert tried.finish(deferred, timeout=8) is None


def test_a_failure_state_ends_the_wait_with_the_reason(live_aws, running):
    tried = sensor(running.id, target_state="DEPROVISIONING")
    deferred = tried.start()
    live_aws.ecs.finish(running.id, 3)
    with pytest.raises(JobFailed, match=r"is STOPPED and can no longer become DEPROVISIONING.*exit code 3"):
        tried.finish(deferred)


def test_what_has_stopped_cannot_come_any_more_even_if_that_is_no_failure_state(live_aws, running):
    live_aws.ecs.finish(running.id, 0)
    with pytest.raises(JobFailed, match="can no longer become RUNNING"):
        sensor(running.id, failure_states={"NONE"}).start()


def test_soft_fail_skips(live_aws, running):
    live_aws.ecs.finish(running.id, 0)
    with pytest.raises(AirflowSkipException):
        sensor(running.id, soft_fail=True).start()


def test_an_unknown_cluster_fails_the_sensor_at_once(live_aws, running):
    with pytest.raises(JobUnreachable, match="Cluster not found") as error:
        sensor(running.id.rpartition("/")[2], cluster="typo").start()
    assert isinstance(error.value, AirflowFailException)


def test_a_throttled_first_poll_leaves_the_waiting_to_the_triggerer(live_aws, running):
    live_aws.fail_next("ecs:DescribeTasks", "ThrottlingException", times=5)
    tried = sensor(running.id)
    deferred = tried.start()
    assert isinstance(deferred, Deferred)
    assert tried.finish(deferred) is None


def test_the_sensor_never_stops_the_task(live_aws, running):
    tried = sensor(running.id, target_state="STOPPED", timeout=0.3)
    deferred = tried.start()
    with pytest.raises(Exception, match="timeout"):
        tried.finish(deferred)
    assert live_aws.ecs.tasks()[0].live
    assert live_aws.calls["ecs:StopTask"] == 0
