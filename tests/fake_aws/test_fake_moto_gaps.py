"""What bare moto does where AWS does something else: the reasons for the fake AWS.

A test that fails here means that moto has gained something. Then take the gap out of this file and of
README.md, and see whether the fake can pass that operation through.
"""

import time

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto import mock_aws

ONCE = Config(retries={"mode": "standard", "total_max_attempts": 1})


@pytest.fixture(autouse=True)
def moto(monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield


@pytest.fixture
def ecs(moto):
    client = boto3.client("ecs", config=ONCE)
    client.create_cluster(clusterName="etl")
    container = {"name": "main", "image": "busybox", "memory": 128}
    client.register_task_definition(family="nightly", containerDefinitions=[container])
    return client


@pytest.fixture
def emr(moto):
    return boto3.client("emr", config=ONCE)


def start_cluster(emr, **more):
    return emr.run_job_flow(
        Name="demo",
        ReleaseLabel="emr-7.1.0",
        Instances={"KeepJobFlowAliveWhenNoSteps": True},
        JobFlowRole="EMR_EC2_DefaultRole",
        ServiceRole="EMR_DefaultRole",
        **more,
    )["JobFlowId"]


def add(emr, cluster, *names):
    jar = {"Jar": "command-runner.jar"}
    steps = [{"Name": name, "ActionOnFailure": "CONTINUE", "HadoopJarStep": jar} for name in names]
    return emr.add_job_flow_steps(JobFlowId=cluster, Steps=steps)["StepIds"]


def states(emr, cluster):
    return {each["Name"]: each["Status"]["State"] for each in emr.list_steps(ClusterId=cluster)["Steps"]}


def run(ecs, **more):
    # On Fargate, because moto wants container instances for EC2; but it asks for a subnet.
    subnet = boto3.client("ec2").describe_subnets()["Subnets"][0]["SubnetId"]
    network = {"awsvpcConfiguration": {"subnets": [subnet]}}
    request = {"cluster": "etl", "taskDefinition": "nightly", "launchType": "FARGATE"}
    return ecs.run_task(**request, networkConfiguration=network, **more)["tasks"][0]


def test_run_task_ignores_the_client_token(ecs):
    assert run(ecs, clientToken="a")["taskArn"] != run(ecs, clientToken="a")["taskArn"]
    assert run(ecs, clientToken="a", startedBy="another")["startedBy"] == "another"


def test_tasks_have_no_creation_time(ecs):
    assert "createdAt" not in run(ecs)


def test_describing_a_task_is_what_moves_it_on(ecs):
    arn = run(ecs)["taskArn"]
    states = [ecs.describe_tasks(cluster="etl", tasks=[arn])["tasks"][0]["lastStatus"] for _ in range(8)]
    assert len(set(states)) > 1


def test_an_unknown_task_is_neither_described_nor_a_failure(ecs):
    run(ecs)
    answer = ecs.describe_tasks(cluster="etl", tasks=["0" * 32])
    assert (answer["tasks"], answer["failures"]) == ([], [])


def test_describe_tasks_has_no_limit(ecs):
    run(ecs)
    ecs.describe_tasks(cluster="etl", tasks=[f"{number:032}" for number in range(101)])


def test_list_tasks_shows_stopped_tasks_unasked(ecs):
    arn = run(ecs)["taskArn"]
    ecs.stop_task(cluster="etl", task=arn)
    assert ecs.list_tasks(cluster="etl")["taskArns"] == [arn]


def test_stopped_tasks_say_neither_why_nor_143(ecs):
    arn = run(ecs)["taskArn"]
    ecs.stop_task(cluster="etl", task=arn, reason="cleared")
    task = ecs.describe_tasks(cluster="etl", tasks=[arn])["tasks"][0]
    assert task["lastStatus"] == "STOPPED"
    assert "stopCode" not in task
    (container,) = task["containers"]
    assert (container["lastStatus"], container["exitCode"]) == ("PENDING", 0)


def test_exit_codes_are_always_0_even_before_a_task_runs(ecs):
    assert run(ecs)["containers"][0]["exitCode"] == 0


def test_only_the_first_step_runs_and_never_ends(emr):
    cluster = start_cluster(emr)
    add(emr, cluster, "a", "b")
    for _ in range(50):  # where moto lets states progress, it does so with each call
        assert states(emr, cluster) == {"a": "RUNNING", "b": "PENDING"}


def test_step_concurrency_changes_nothing(emr):
    cluster = start_cluster(emr, StepConcurrencyLevel=5)
    add(emr, cluster, "a", "b")
    assert states(emr, cluster) == {"a": "RUNNING", "b": "PENDING"}


def test_cancel_steps_is_missing(emr):
    cluster = start_cluster(emr)
    ids = add(emr, cluster, "a", "b")
    with pytest.raises((ClientError, NotImplementedError)):
        emr.cancel_steps(ClusterId=cluster, StepIds=ids)


def test_a_terminated_cluster_takes_steps_and_revives(emr):
    cluster = start_cluster(emr)
    emr.terminate_job_flows(JobFlowIds=[cluster])
    add(emr, cluster, "a")
    assert emr.describe_cluster(ClusterId=cluster)["Cluster"]["Status"]["State"] == "RUNNING"


def test_steps_outlive_their_cluster(emr):
    cluster = start_cluster(emr)
    add(emr, cluster, "a", "b")
    emr.terminate_job_flows(JobFlowIds=[cluster])
    assert states(emr, cluster) == {"a": "RUNNING", "b": "PENDING"}


def test_a_terminated_cluster_does_not_say_why(emr):
    cluster = start_cluster(emr)
    emr.terminate_job_flows(JobFlowIds=[cluster])
    reason = emr.describe_cluster(ClusterId=cluster)["Cluster"]["Status"].get("StateChangeReason", {})
    assert "Code" not in reason


def test_list_steps_has_no_limit_of_ten_ids(emr):
    cluster = start_cluster(emr)
    ids = add(emr, cluster, *"abcdefghijk")
    assert len(emr.list_steps(ClusterId=cluster, StepIds=ids)["Steps"]) == 11


def test_any_number_of_steps_may_be_active(emr):
    cluster = start_cluster(emr)
    for _ in range(2):
        add(emr, cluster, *[str(number) for number in range(200)])


def test_steps_forget_their_execution_role(emr):
    cluster = start_cluster(emr)
    step = {"Name": "a", "HadoopJarStep": {"Jar": "command-runner.jar"}}
    role = "arn:aws:iam::123456789012:role/etl"
    (step_id,) = emr.add_job_flow_steps(JobFlowId=cluster, Steps=[step], ExecutionRoleArn=role)["StepIds"]
    assert "ExecutionRoleArn" not in emr.describe_step(ClusterId=cluster, StepId=step_id)["Step"]


def test_nothing_is_ever_throttled(emr):
    cluster = start_cluster(emr)
    for _ in range(60):  # AWS allows ten, then one in two seconds
        emr.list_steps(ClusterId=cluster)


def test_json_patterns_match_every_line():
    logs = boto3.client("logs", config=ONCE)
    logs.create_log_group(logGroupName="events")
    logs.create_log_stream(logGroupName="events", logStreamName="a")
    line = {"timestamp": int(time.time() * 1000), "message": '{"a": "b"}'}
    logs.put_log_events(logGroupName="events", logStreamName="a", logEvents=[line])
    found = logs.filter_log_events(logGroupName="events", filterPattern='{ ($.a = "c") }')["events"]
    assert [event["message"] for event in found] == ['{"a": "b"}']


def test_the_end_of_a_task_is_no_event(ecs):
    events, logs = boto3.client("events", config=ONCE), boto3.client("logs", config=ONCE)
    logs.create_log_group(logGroupName="events")
    events.put_rule(Name="ends", EventPattern='{"source": ["aws.ecs"]}')
    arn = "arn:aws:logs:us-east-1:123456789012:log-group:events"
    events.put_targets(Rule="ends", Targets=[{"Id": "group", "Arn": arn}])
    ecs.stop_task(cluster="etl", task=run(ecs)["taskArn"])
    assert logs.filter_log_events(logGroupName="events")["events"] == []
