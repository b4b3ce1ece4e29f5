"""ECS of the fake AWS, through both of its doors."""

from datetime import datetime, timezone

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from airflow_resilient.testing import FakeAws

ONCE = Config(retries={"mode": "standard", "total_max_attempts": 1})


@pytest.fixture(params=["in-process", "http"])
def aws(request):
    fake = FakeAws(fake_time=True)
    with fake if request.param == "in-process" else fake.serve() as opened:
        opened.make_ecs_cluster("etl")
        opened.make_task_definition("nightly", containers=("main", "sidecar"))
        yield opened


@pytest.fixture
def ecs(aws):
    return boto3.client("ecs", config=ONCE)


def run(ecs, **params):
    return ecs.run_task(**{"cluster": "etl", "taskDefinition": "nightly", **params})["tasks"][0]["taskArn"]


def describe(ecs, arn):
    return ecs.describe_tasks(cluster="etl", tasks=[arn])["tasks"][0]


def listed(ecs, **params):
    return ecs.list_tasks(cluster="etl", **params)["taskArns"]


def test_a_task_passes_through_its_states_as_time_passes(aws, ecs):
    aws.ecs.plan("nightly", pending_seconds=10, seconds=60, deprovisioning_seconds=5)
    arn = run(ecs, launchType="FARGATE")
    states = []
    for _ in range(17):
        states.append(describe(ecs, arn)["lastStatus"])
        aws.advance(5)
    assert list(dict.fromkeys(states)) == ["PROVISIONING", "PENDING", "RUNNING", "DEPROVISIONING", "STOPPED"]


def test_run_task_shows_a_task_that_has_not_started(aws, ecs):
    answer = ecs.run_task(cluster="etl", taskDefinition="nightly:1", startedBy="me", group="family:nightly")
    (task,) = answer["tasks"]
    assert answer["failures"] == []
    assert task["lastStatus"] == "PENDING"
    assert task["desiredStatus"] == "RUNNING"
    assert task["startedBy"] == "me"
    assert task["createdAt"] == datetime.fromtimestamp(aws.now(), timezone.utc)
    assert task["taskDefinitionArn"].endswith(":task-definition/nightly:1")
    assert "startedAt" not in task
    assert [(each["name"], each["lastStatus"]) for each in task["containers"]] == [
        ("main", "PENDING"),
        ("sidecar", "PENDING"),
    ]
    assert all("exitCode" not in each for each in task["containers"])


def test_a_task_that_ended_by_itself_tells_how_and_when(aws, ecs):
    aws.ecs.plan("nightly", seconds=30, exit_code=3, container_reason="OutOfMemoryError: Container killed")
    arn = run(ecs)
    aws.advance(30)
    task = describe(ecs, arn)
    assert (task["lastStatus"], task["desiredStatus"]) == ("STOPPED", "STOPPED")
    assert (task["stopCode"], task["stoppedReason"]) == (
        "EssentialContainerExited",
        "Essential container in task exited",
    )
    assert (task["stoppedAt"] - task["startedAt"]).total_seconds() == 30
    assert [(each["name"], each["lastStatus"], each["exitCode"]) for each in task["containers"]] == [
        ("main", "STOPPED", 3),
        ("sidecar", "STOPPED", 0),
    ]
    assert task["containers"][0]["reason"].startswith("OutOfMemoryError")


def test_the_same_token_and_parameters_give_the_same_task(aws, ecs):
    first = run(ecs, clientToken="a", startedBy="x")
    assert run(ecs, clientToken="a", startedBy="x") == first
    assert run(ecs, clientToken="b", startedBy="x") != first
    assert len(aws.ecs.tasks()) == 2


def test_the_same_token_with_other_parameters_conflicts_and_names_the_task(ecs):
    first = run(ecs, clientToken="a", startedBy="x")
    with pytest.raises(ecs.exceptions.ConflictException) as caught:
        run(ecs, clientToken="a", startedBy="y")
    assert caught.value.response["resourceIds"] == [first]


def test_tokens_belong_to_one_cluster(aws, ecs):
    aws.make_ecs_cluster("other")
    assert run(ecs, clientToken="a") != run(ecs, clientToken="a", cluster="other")


def test_a_cluster_named_by_arn_or_by_name_is_the_same_cluster(aws, ecs):
    arn = aws.make_ecs_cluster("etl")
    assert run(ecs, clientToken="a") == run(ecs, clientToken="a", cluster=arn)


@pytest.mark.parametrize(
    ("seconds_of_job", "seconds_later", "same"),
    [
        pytest.param(60, 60 + 3599, True, id="within an hour of the end"),
        pytest.param(60, 60 + 3600, False, id="an hour after the end"),
        pytest.param(None, 24 * 3600 - 1, True, id="within a day, running"),
        pytest.param(None, 24 * 3600, False, id="after a day, though running"),
    ],
)
def test_a_token_is_valid_for_a_day_or_until_an_hour_after_the_end(
    aws, ecs, seconds_of_job, seconds_later, same
):
    aws.ecs.plan("nightly", seconds=seconds_of_job)
    first = run(ecs, clientToken="a")
    aws.advance(seconds_later)
    assert (run(ecs, clientToken="a") == first) is same


def test_list_tasks_shows_only_tasks_that_shall_run_unless_asked_for_stopped_ones(aws, ecs):
    aws.ecs.plan(started_by="short", seconds=1)
    aws.ecs.plan(started_by="long", seconds=None)
    short, long = run(ecs, startedBy="short"), run(ecs, startedBy="long")
    aws.advance(2)
    assert listed(ecs) == [long]
    assert listed(ecs, desiredStatus="STOPPED") == [short]
    assert listed(ecs, desiredStatus="PENDING") == []
    assert listed(ecs, startedBy="short") == []
    assert listed(ecs, startedBy="short", desiredStatus="STOPPED") == [short]
    assert listed(ecs, startedBy="sho", desiredStatus="STOPPED") == []


def test_list_tasks_filters_by_family_and_launch_type(aws, ecs):
    aws.make_task_definition("hourly")
    nightly, hourly = run(ecs), run(ecs, taskDefinition="hourly", launchType="FARGATE")
    assert listed(ecs, family="hourly") == [hourly]
    assert listed(ecs, launchType="EC2") == [nightly]


def test_list_tasks_refuses_started_by_beside_another_filter(ecs):
    with pytest.raises(ecs.exceptions.InvalidParameterException):
        listed(ecs, startedBy="x", family="nightly")


def test_list_tasks_gives_pages_of_a_hundred(aws, ecs):
    aws.ecs.plan("nightly", seconds=None)
    for _ in range(15):
        ecs.run_task(cluster="etl", taskDefinition="nightly", count=10)
    first = ecs.list_tasks(cluster="etl")
    assert len(first["taskArns"]) == 100
    second = ecs.list_tasks(cluster="etl", nextToken=first["nextToken"])
    assert len(second["taskArns"]) == 50
    assert "nextToken" not in second
    assert len({*first["taskArns"], *second["taskArns"]}) == 150


def test_describe_tasks_takes_a_hundred_at_most(ecs):
    with pytest.raises(ecs.exceptions.InvalidParameterException):
        ecs.describe_tasks(cluster="etl", tasks=[str(number) for number in range(101)])
    assert len(ecs.describe_tasks(cluster="etl", tasks=[str(n) for n in range(100)])["failures"]) == 100


def test_an_unknown_task_is_missing(ecs):
    answer = ecs.describe_tasks(cluster="etl", tasks=["0123456789abcdef0123456789abcdef"])
    assert answer["tasks"] == []
    (failure,) = answer["failures"]
    assert failure["reason"] == "MISSING"
    assert failure["arn"].endswith(":task/etl/0123456789abcdef0123456789abcdef")


def test_a_task_of_another_cluster_is_refused(aws, ecs):
    aws.make_ecs_cluster("other")
    arn = run(ecs)
    with pytest.raises(ecs.exceptions.InvalidParameterException, match="Identifier is for cluster etl"):
        ecs.describe_tasks(cluster="other", tasks=[arn])


def test_a_new_task_is_missing_until_it_becomes_visible(aws, ecs):
    aws.ecs.visible_after_seconds = 3
    arn = run(ecs, startedBy="x", clientToken="a")
    assert ecs.describe_tasks(cluster="etl", tasks=[arn])["failures"][0]["reason"] == "MISSING"
    assert listed(ecs, startedBy="x") == []
    assert run(ecs, startedBy="x", clientToken="a") == arn
    with pytest.raises(ecs.exceptions.InvalidParameterException):
        ecs.stop_task(cluster="etl", task=arn)
    aws.advance(3)
    assert describe(ecs, arn)["taskArn"] == arn


def test_a_stopped_task_is_forgotten_after_an_hour(aws, ecs):
    arn = run(ecs)
    aws.advance(1 + 3600)
    assert describe(ecs, arn)["lastStatus"] == "STOPPED"
    aws.advance(1)
    assert ecs.describe_tasks(cluster="etl", tasks=[arn])["failures"] == [{"arn": arn, "reason": "MISSING"}]
    assert listed(ecs, desiredStatus="STOPPED") == []
    (task,) = aws.ecs.tasks()
    assert (task.forgotten, task.exit_code) == (True, 0)


def test_a_test_may_let_a_task_be_forgotten_at_once(aws, ecs):
    arn = run(ecs, clientToken="a")
    aws.ecs.forget(arn)
    assert ecs.describe_tasks(cluster="etl", tasks=[arn])["tasks"] == []
    assert run(ecs, clientToken="a") != arn


def test_stop_task_sends_a_signal_and_the_task_stops_later(aws, ecs):
    aws.ecs.plan("nightly", seconds=None, stop_seconds=20)
    arn = run(ecs)
    answer = ecs.stop_task(cluster="etl", task=arn, reason="cleared")["task"]
    assert (answer["lastStatus"], answer["desiredStatus"]) == ("RUNNING", "STOPPED")
    assert (answer["stopCode"], answer["stoppedReason"]) == ("UserInitiated", "cleared")
    aws.advance(19)
    assert describe(ecs, arn)["lastStatus"] == "STOPPING"
    assert listed(ecs) == []
    assert listed(ecs, desiredStatus="STOPPED") == [arn]
    aws.advance(1)
    task = describe(ecs, arn)
    assert (task["lastStatus"], task["stopCode"], task["stoppedReason"]) == (
        "STOPPED",
        "UserInitiated",
        "cleared",
    )
    assert [each["exitCode"] for each in task["containers"]] == [143, 143]


def test_a_program_that_stops_gracefully_exits_with_0(aws, ecs):
    aws.ecs.plan("nightly", seconds=None, stop_exit_code=0)
    arn = run(ecs)
    ecs.stop_task(cluster="etl", task=arn)
    aws.advance(1)
    task = describe(ecs, arn)
    assert (task["stopCode"], task["containers"][0]["exitCode"]) == ("UserInitiated", 0)


def test_a_second_stop_and_a_late_stop_change_nothing(aws, ecs):
    aws.ecs.plan("nightly", seconds=10, stop_seconds=5)
    arn = run(ecs)
    ecs.stop_task(cluster="etl", task=arn, reason="first")
    ecs.stop_task(cluster="etl", task=arn, reason="second")
    assert describe(ecs, arn)["stoppedReason"] == "first"
    other = run(ecs)
    aws.advance(10)
    ecs.stop_task(cluster="etl", task=other, reason="late")
    assert describe(ecs, other)["stopCode"] == "EssentialContainerExited"


def test_a_task_stopped_before_it_ran_has_no_exit_code(aws, ecs):
    aws.ecs.plan("nightly", pending_seconds=30)
    arn = run(ecs)
    ecs.stop_task(cluster="etl", task=arn)
    task = describe(ecs, arn)
    assert (task["lastStatus"], task["stopCode"]) == ("STOPPED", "UserInitiated")
    assert "startedAt" not in task
    assert "exitCode" not in task["containers"][0]


def test_an_unknown_task_cannot_be_stopped(ecs):
    with pytest.raises(ecs.exceptions.InvalidParameterException, match="referenced task was not found"):
        ecs.stop_task(cluster="etl", task="0" * 32)


def test_a_task_that_failed_to_start_never_ran(aws, ecs):
    aws.ecs.plan("nightly", stop_code="TaskFailedToStart", reason="CannotPullContainerError: no such image")
    task = describe(ecs, run(ecs))
    assert (task["lastStatus"], task["stopCode"]) == ("STOPPED", "TaskFailedToStart")
    assert task["stoppedReason"].startswith("CannotPullContainerError")
    assert "startedAt" not in task
    assert all("exitCode" not in each for each in task["containers"])


@pytest.mark.parametrize("code", ["SpotInterruption", "TerminationNotice"])
def test_a_spot_interruption_may_come_with_exit_code_0(aws, ecs, code):
    aws.ecs.plan("nightly", seconds=None)
    arn = run(ecs)
    aws.ecs.interrupt_spot(arn, exit_code=0, code=code)
    task = describe(ecs, arn)
    assert (task["stopCode"], task["containers"][0]["exitCode"]) == (code, 0)


def test_a_lost_host_leaves_no_exit_codes(aws, ecs):
    aws.ecs.plan("nightly", seconds=None)
    arn = run(ecs)
    aws.ecs.lose_host(arn, "i-0abc")
    task = describe(ecs, arn)
    assert task["stoppedReason"] == "Host EC2 (instance i-0abc) terminated."
    assert "startedAt" in task
    assert "stopCode" not in task
    assert all("exitCode" not in each for each in task["containers"])


def test_a_test_may_finish_a_task_when_it_wants(aws, ecs):
    aws.ecs.plan("nightly", seconds=None)
    arn = run(ecs)
    aws.advance(7)
    aws.ecs.finish(arn, exit_code=9, reason="as I like it")
    task = describe(ecs, arn)
    assert (task["containers"][0]["exitCode"], task["stoppedReason"]) == (9, "as I like it")
    with pytest.raises(ValueError, match="ended already"):
        aws.ecs.finish(arn)


@pytest.mark.parametrize("reason", ["RESOURCE:MEMORY", "AGENT", "Capacity is unavailable at this time."])
def test_run_task_without_capacity_answers_with_failures(aws, ecs, reason):
    aws.ecs.plan("nightly", failure=reason, then=[{"failure": None}])
    answer = ecs.run_task(cluster="etl", taskDefinition="nightly", clientToken="a")
    assert answer["tasks"] == []
    assert [each["reason"] for each in answer["failures"]] == [reason]
    assert run(ecs, clientToken="a") == aws.ecs.tasks()[0].arn


@pytest.mark.parametrize(
    ("params", "code"),
    [
        pytest.param({"cluster": "nowhere"}, "ClusterNotFoundException", id="unknown cluster"),
        pytest.param({"taskDefinition": "nothing"}, "ClientException", id="unknown task definition"),
        pytest.param({"count": 11}, "InvalidParameterException", id="too many"),
        pytest.param({"startedBy": "not allowed!"}, "InvalidParameterException", id="started by"),
        pytest.param({"startedBy": "x" * 129}, "InvalidParameterException", id="long started by"),
        pytest.param({"clientToken": "x" * 65}, "InvalidParameterException", id="long token"),
    ],
)
def test_run_task_refuses(aws, ecs, params, code):
    with pytest.raises(ClientError) as caught:
        run(ecs, **params)
    assert caught.value.response["Error"]["Code"] == code
    assert aws.ecs.tasks() == []


def test_a_deleted_cluster_is_not_found(ecs):
    run(ecs)
    ecs.delete_cluster(cluster="etl")
    with pytest.raises(ecs.exceptions.ClusterNotFoundException):
        run(ecs)


def test_tags_are_shown_on_request_until_the_task_stops(aws, ecs):
    arn = run(ecs, tags=[{"key": "a", "value": "b"}])
    assert describe(ecs, arn)["tags"] == []
    shown = ecs.describe_tasks(cluster="etl", tasks=[arn], include=["TAGS"])["tasks"][0]["tags"]
    assert shown == [{"key": "a", "value": "b"}]
    aws.advance(1)
    assert ecs.describe_tasks(cluster="etl", tasks=[arn], include=["TAGS"])["tasks"][0]["tags"] == []


def test_consecutive_tasks_get_the_outcomes_in_their_order(aws, ecs):
    aws.ecs.plan("nightly", exit_code=1, then=[{"exit_code": 2}, {"exit_code": 0}])
    for _ in range(4):
        run(ecs)
    aws.advance(1)
    assert [task.exit_code for task in aws.ecs.tasks()] == [1, 2, 0, 0]


def test_a_function_may_choose_the_outcomes(aws, ecs):
    aws.ecs.plan("nightly", seconds=5, then=lambda request, number: {"exit_code": number, "seconds": 1})
    for _ in range(3):
        run(ecs)
    aws.advance(1)
    assert [task.exit_code for task in aws.ecs.tasks()] == [None, 1, 2]


def test_the_latest_plan_that_fits_counts(aws, ecs):
    aws.ecs.plan("nightly", exit_code=1)
    aws.ecs.plan("nightly", started_by="af-", exit_code=2)
    for started_by in ("af-0123", "someone"):
        run(ecs, startedBy=started_by)
    aws.advance(1)
    assert [task.exit_code for task in aws.ecs.tasks()] == [2, 1]


def test_a_misspelt_plan_is_refused_at_once(aws):
    with pytest.raises(TypeError):
        aws.ecs.plan("nightly", exitcode=1)
    with pytest.raises(TypeError):
        aws.ecs.plan("nightly", then=[{"exitcode": 1}])


def test_the_command_may_tell_length_and_outcome(aws, ecs):
    command = ["bash", "-c", "sleep 8; exit 4"]
    run(ecs, overrides={"containerOverrides": [{"name": "main", "command": command}]})
    aws.advance(7)
    assert aws.ecs.tasks()[0].live
    aws.advance(1)
    (task,) = aws.ecs.tasks(started_by=None)
    assert (task.live, task.exit_code, task.command) == (False, 4, tuple(command))


def test_regions_are_apart(aws, ecs):
    run(ecs)
    elsewhere = boto3.client("ecs", region_name="eu-central-1", config=ONCE)
    with pytest.raises(elsewhere.exceptions.ClusterNotFoundException):
        elsewhere.list_tasks(cluster="etl")
