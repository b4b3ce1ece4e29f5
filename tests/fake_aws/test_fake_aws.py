"""The fake AWS itself: doors, time, faults, throttling, the journal, logs and set-up."""

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError

from airflow_resilient.testing import FakeAws
from airflow_resilient.testing.aws.account import PUBLISHED_SIZES, BucketSize
from airflow_resilient.testing.aws.throttling import Buckets

ONCE = Config(retries={"mode": "standard", "total_max_attempts": 1})


@pytest.fixture(params=["in-process", "http"])
def door(request):
    def open_(**options):
        fake = FakeAws(fake_time=True, **options)
        return fake if request.param == "in-process" else fake.serve()

    return open_


@pytest.fixture
def aws(door):
    with door() as opened:
        opened.make_ecs_cluster("etl")
        opened.make_task_definition("nightly")
        yield opened


@pytest.fixture
def ecs(aws):
    return boto3.client("ecs", config=ONCE)


def run(ecs, **params):
    return ecs.run_task(**{"cluster": "etl", "taskDefinition": "nightly", **params})["tasks"][0]["taskArn"]


def code_of(call, **params):
    with pytest.raises(ClientError) as caught:
        call(**params)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


# -- doors ------------------------------------------------------------------------------------------------


def test_what_the_fake_does_not_know_moto_answers(aws):
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="a folder/ä key", Body=b"content")
    assert s3.get_object(Bucket="bucket", Key="a folder/ä key")["Body"].read() == b"content"
    assert boto3.client("sts").get_caller_identity()["Account"] == "123456789012"
    assert boto3.client("ecs").list_task_definitions()["taskDefinitionArns"][0].endswith("/nightly:1")


def test_clients_of_any_thread_see_the_same_account(aws):
    def run_task(number):
        client = boto3.session.Session().client("ecs")
        return run(client, clientToken="token", startedBy="x")

    with ThreadPoolExecutor(8) as pool:
        arns = set(pool.map(run_task, range(16)))
    assert len(arns) == 1
    assert len(aws.ecs.tasks()) == 1
    assert aws.calls["ecs:RunTask"] == 16


def test_a_test_may_read_jobs_while_other_threads_start_them(aws):
    cluster = aws.make_emr_cluster()
    step = {"Name": "a", "ActionOnFailure": "CONTINUE", "HadoopJarStep": {"Jar": "command-runner.jar"}}
    ecs, emr = boto3.client("ecs"), boto3.client("emr")

    def start(_):
        run(ecs)
        emr.add_job_flow_steps(JobFlowId=cluster, Steps=[step])

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(start, number) for number in range(40)]
        while not all(job.done() for job in jobs):
            assert len(aws.ecs.tasks()) <= 40
            assert len(aws.emr.steps()) <= 40
    for job in jobs:
        job.result()
    assert (len(aws.ecs.tasks()), len(aws.emr.steps())) == (40, 40)


def test_both_doors_may_be_open_at_once():
    with FakeAws(fake_time=True) as aws:
        aws.serve()
        aws.make_ecs_cluster("etl")
        aws.make_task_definition("nightly")
        inside = boto3.client("ecs", config=ONCE)
        outside = boto3.client("ecs", config=ONCE, endpoint_url=aws.endpoint_url)
        arn = run(outside)
        assert inside.list_tasks(cluster="etl")["taskArns"] == [arn]
        assert aws.calls == {"ecs:RunTask": 1, "ecs:ListTasks": 1}


def test_only_one_fake_may_be_open_in_process():
    with FakeAws(), pytest.raises(RuntimeError, match="another FakeAws"):
        FakeAws().__enter__()
    with FakeAws() as again:
        again.make_ecs_cluster()


def test_each_fake_begins_empty(door):
    for _ in range(2):
        with door() as aws:
            client = boto3.client("ecs", config=ONCE)
            assert client.list_clusters()["clusterArns"] == []
            aws.make_ecs_cluster("etl")


def test_set_up_needs_an_open_door():
    with pytest.raises(RuntimeError, match="with block"):
        FakeAws().make_ecs_cluster("etl")


def test_no_call_leaves_the_process():
    with FakeAws():
        client = boto3.client("iot-data", config=ONCE, endpoint_url="https://service.example.com")
        with pytest.raises(EndpointConnectionError):
            client.publish(topic="t")


def test_other_endpoints_of_a_service_are_the_fake_too():
    with FakeAws() as aws:
        aws.make_ecs_cluster("etl")
        client = boto3.client("ecs", config=Config(use_dualstack_endpoint=True))
        assert client.list_tasks(cluster="etl")["taskArns"] == []


def test_the_environment_is_fake_inside_and_restored_outside(door, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "real")
    monkeypatch.setenv("AWS_ENDPOINT_URL_ECS", "https://ecs.example.com")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    before = dict(os.environ)
    with door(region="eu-west-1") as aws:
        assert os.environ["AWS_ACCESS_KEY_ID"] == os.environ["AWS_SECRET_ACCESS_KEY"] == "test"
        assert os.environ["AWS_DEFAULT_REGION"] == "eu-west-1"
        assert "AWS_PROFILE" not in os.environ
        assert os.environ.get("AWS_ENDPOINT_URL") == aws.endpoint_url
        assert aws.make_ecs_cluster("etl").startswith("arn:aws:ecs:eu-west-1:")
    assert dict(os.environ) == before


def test_airflow_gets_its_connection():
    with FakeAws().serve() as aws:
        connection = json.loads(aws.airflow_connection())
        assert connection == {
            "conn_type": "aws",
            "login": "test",
            "password": "test",
            "extra": {"region_name": "us-east-1", "endpoint_url": aws.endpoint_url},
        }
        assert parse_qs(urlsplit(aws.connection_uri()).query)["endpoint_url"] == [aws.endpoint_url]
        assert json.loads(aws.environment()["AIRFLOW_CONN_AWS_DEFAULT"]) == connection
    with FakeAws() as aws:
        assert json.loads(aws.airflow_connection())["extra"] == {"region_name": "us-east-1"}


def test_another_process_uses_the_fake_by_its_environment():
    with FakeAws(fake_time=True).serve() as aws:
        aws.make_ecs_cluster("etl")
        aws.make_task_definition("nightly")
        script = (
            "import boto3; boto3.client('ecs')"
            ".run_task(cluster='etl', taskDefinition='nightly', startedBy='the-other-one')"
        )
        subprocess.run([sys.executable, "-c", script], env={**os.environ, **aws.environment()}, check=True)
        assert [task.started_by for task in aws.ecs.tasks()] == ["the-other-one"]


def test_the_command_line_serves(tmp_path):
    command = [
        *(sys.executable, "-m", "airflow_resilient.testing.aws.account", "--port", "0"),
        *("--ecs-cluster", "etl", "--task-definition", "nightly", "--emr-cluster", "demo"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = [process.stdout.readline().strip() for _ in range(5)]
            url = lines[0].rpartition(" ")[2]
            keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
            client = boto3.client("ecs", endpoint_url=url, **keys)
            assert client.list_tasks(cluster="etl")["taskArns"] == []
        finally:
            process.terminate()
    assert lines[4].startswith("EMR cluster demo: j-")


# -- time -------------------------------------------------------------------------------------------------


def test_fake_time_stands_still_but_for_advance():
    aws = FakeAws(fake_time=True)
    began = aws.now()
    assert abs(began - time.time()) < 60
    aws.advance(1.5)
    assert aws.now() == began + 1.5
    with pytest.raises(ValueError, match="backwards"):
        aws.advance(-1)


def test_a_real_or_given_clock_may_be_advanced_too():
    aws = FakeAws(clock=lambda: 1000.0)
    aws.advance(10)
    assert aws.now() == 1010
    real = FakeAws()
    real.advance(3600)
    assert 3540 < real.now() - time.time() < 3660
    with pytest.raises(ValueError, match="not both"):
        FakeAws(clock=time.time, fake_time=True)


def test_the_waiters_of_boto3_understand_the_fake():
    ticks = itertools.count(1_800_000_000)
    with FakeAws(clock=lambda: float(next(ticks))) as aws:
        aws.make_ecs_cluster("etl")
        aws.make_task_definition("nightly")
        aws.ecs.plan(seconds=10, pending_seconds=5)
        ecs, emr = boto3.client("ecs"), boto3.client("emr")
        arn = run(ecs)
        quick = {"Delay": 0, "MaxAttempts": 50}
        ecs.get_waiter("tasks_running").wait(cluster="etl", tasks=[arn], WaiterConfig=quick)
        ecs.get_waiter("tasks_stopped").wait(cluster="etl", tasks=[arn], WaiterConfig=quick)
        aws.emr.start_seconds = 5
        cluster = aws.make_emr_cluster()
        step = {"Name": "a", "ActionOnFailure": "CONTINUE", "HadoopJarStep": {"Jar": "command-runner.jar"}}
        (step_id,) = emr.add_job_flow_steps(JobFlowId=cluster, Steps=[step])["StepIds"]
        emr.get_waiter("cluster_running").wait(ClusterId=cluster, WaiterConfig=quick)
        emr.get_waiter("step_complete").wait(ClusterId=cluster, StepId=step_id, WaiterConfig=quick)
        emr.terminate_job_flows(JobFlowIds=[cluster])
        emr.get_waiter("cluster_terminated").wait(ClusterId=cluster, WaiterConfig=quick)


# -- faults -----------------------------------------------------------------------------------------------


def test_the_next_calls_fail_as_often_as_asked(aws, ecs):
    aws.fail_next("ecs:RunTask", "ThrottlingException", times=2)
    assert code_of(run, ecs=ecs) == ("ThrottlingException", 400)
    assert code_of(run, ecs=ecs) == ("ThrottlingException", 400)
    run(ecs)
    assert len(aws.ecs.tasks()) == 1


def test_a_call_may_be_carried_out_though_its_answer_is_an_error(aws, ecs):
    aws.fail_next("ecs:RunTask", "ThrottlingException", carried_out=True)
    assert code_of(run, ecs=ecs) == ("ThrottlingException", 400)
    assert len(aws.ecs.tasks()) == 1


@pytest.mark.parametrize("carried_out", [False, True])
def test_an_answer_may_be_lost_as_a_500(aws, ecs, carried_out):
    aws.fail_next("ecs:RunTask", carried_out=carried_out)
    assert code_of(run, ecs=ecs) == ("ServerException", 500)
    assert len(aws.ecs.tasks()) == int(carried_out)


@pytest.mark.parametrize("carried_out", [False, True])
def test_an_answer_may_be_lost_with_its_connection(aws, ecs, carried_out):
    aws.fail_next("ecs:RunTask", carried_out=carried_out, answer="drop")
    with pytest.raises(ConnectionClosedError):
        run(ecs)
    assert len(aws.ecs.tasks()) == int(carried_out)
    assert aws.journal[-1].answer == "no answer"
    run(ecs)


def test_botocore_sends_a_call_again_whose_answer_was_lost(aws):
    """With a token that makes one task; without one it makes two steps."""
    cluster = aws.make_emr_cluster()
    aws.fail_next("ecs:RunTask", carried_out=True)
    aws.fail_next("emr:AddJobFlowSteps", carried_out=True)
    config = Config(retries={"mode": "standard", "total_max_attempts": 2})
    run(boto3.client("ecs", config=config))
    step = {"Name": "a", "ActionOnFailure": "CONTINUE", "HadoopJarStep": {"Jar": "command-runner.jar"}}
    boto3.client("emr", config=config).add_job_flow_steps(JobFlowId=cluster, Steps=[step])
    assert (aws.calls["ecs:RunTask"], len(aws.ecs.tasks())) == (2, 1)
    assert (aws.calls["emr:AddJobFlowSteps"], len(aws.emr.steps())) == (2, 2)


def test_faults_of_operations_that_moto_answers_work_alike(aws):
    logs = boto3.client("logs", config=ONCE)
    aws.fail_next("logs:CreateLogGroup", carried_out=True)
    assert code_of(logs.create_log_group, logGroupName="a") == ("ServiceUnavailableException", 503)
    aws.fail_next("logs:CreateLogGroup", "ThrottlingException")
    assert code_of(logs.create_log_group, logGroupName="b") == ("ThrottlingException", 400)
    assert [group["logGroupName"] for group in logs.describe_log_groups()["logGroups"]] == ["a"]
    sts = boto3.client("sts", config=ONCE)
    aws.fail_next("sts:GetCallerIdentity", "ExpiredToken", status=403)
    assert code_of(sts.get_caller_identity) == ("ExpiredToken", 403)


def test_a_denied_operation_is_denied_until_it_is_healed(aws):
    emr = boto3.client("emr", config=ONCE)
    cluster = aws.make_emr_cluster()
    aws.deny("emr:ListSteps")
    with pytest.raises(ClientError, match="not authorized to perform: elasticmapreduce:ListSteps") as caught:
        emr.list_steps(ClusterId=cluster)
    assert caught.value.response["Error"]["Code"] == "AccessDeniedException"
    assert code_of(emr.list_steps, ClusterId=cluster) == ("AccessDeniedException", 400)
    emr.describe_cluster(ClusterId=cluster)
    aws.heal("emr:ListSteps")
    emr.list_steps(ClusterId=cluster)


def test_a_fault_may_last_and_may_concern_a_whole_service(aws, ecs):
    aws.fail_next("ecs:*", "ServerException", times=None)
    for _ in range(3):
        assert code_of(ecs.list_tasks, cluster="etl") == ("ServerException", 500)
    boto3.client("sts").get_caller_identity()
    aws.heal()
    ecs.list_tasks(cluster="etl")


# -- throttling -------------------------------------------------------------------------------------------


def test_throttling_is_off_by_default_and_may_be_switched_on(aws):
    emr = boto3.client("emr", config=ONCE)
    cluster = aws.make_emr_cluster()
    for _ in range(20):
        emr.list_steps(ClusterId=cluster)
    aws.throttling = True
    for _ in range(10):
        emr.list_steps(ClusterId=cluster)
    assert code_of(emr.list_steps, ClusterId=cluster) == ("ThrottlingException", 400)
    emr.describe_cluster(ClusterId=cluster)
    aws.advance(2)
    emr.list_steps(ClusterId=cluster)
    assert code_of(emr.list_steps, ClusterId=cluster) == ("ThrottlingException", 400)


def test_reads_of_an_ecs_cluster_share_a_bucket(door):
    with door(throttling=True, buckets={"ecs cluster reads": BucketSize(3, 1)}) as aws:
        aws.make_ecs_cluster("etl")
        ecs = boto3.client("ecs", config=ONCE)
        ecs.list_tasks(cluster="etl")
        ecs.list_tasks(cluster="etl")
        ecs.describe_tasks(cluster="etl", tasks=["0" * 32])
        assert code_of(ecs.list_tasks, cluster="etl") == ("ThrottlingException", 400)
        assert code_of(ecs.describe_tasks, cluster="etl", tasks=["0" * 32])[0] == "ThrottlingException"
        elsewhere = boto3.client("ecs", config=ONCE, region_name="eu-west-1")
        assert code_of(elsewhere.list_tasks, cluster="etl")[0] == "ClusterNotFoundException"
        aws.advance(1)
        ecs.list_tasks(cluster="etl")


def test_a_throttled_submit_starts_nothing(door):
    with door(throttling=True, buckets={"ecs:RunTask": BucketSize(1, 0.1)}) as aws:
        aws.make_ecs_cluster("etl")
        aws.make_task_definition("nightly")
        ecs = boto3.client("ecs", config=ONCE)
        run(ecs)
        assert code_of(run, ecs=ecs)[0] == "ThrottlingException"
        assert len(aws.ecs.tasks()) == 1


def test_the_published_sizes_are_those_of_aws():
    assert PUBLISHED_SIZES["ecs cluster reads"] == BucketSize(100, 20)
    assert PUBLISHED_SIZES["ecs cluster changes"] == BucketSize(100, 40)
    for action in ("DescribeStep", "ListSteps", "AddJobFlowSteps", "CancelSteps", "RunJobFlow"):
        assert PUBLISHED_SIZES[f"emr:{action}"] == BucketSize(10, 0.5)
    assert PUBLISHED_SIZES["emr"] == BucketSize(25, 5)


def test_all_calls_of_emr_together_are_limited_too():
    buckets = Buckets({"emr": BucketSize(3, 1), "emr:ListSteps": BucketSize(2, 1)})
    asked = ["emr:ListSteps", "emr:ListSteps", "emr:ListSteps", "emr:DescribeCluster", "emr:ListClusters"]
    assert [buckets.take(each, "us-east-1", 0.0) for each in asked] == [True, True, False, True, False]
    assert buckets.take("emr:ListClusters", "eu-west-1", 0.0), "in each region by itself"
    assert buckets.take("emr:ListSteps", "us-east-1", 1.0)
    assert not buckets.take("emr:DescribeCluster", "us-east-1", 1.0)


# -- what was called --------------------------------------------------------------------------------------


def test_calls_are_counted_and_written_down(aws, ecs):
    arn = run(ecs, clientToken="t", overrides={"containerOverrides": [{"name": "main"}]})
    aws.advance(3)
    code_of(ecs.describe_tasks, cluster="etl", tasks=[])
    assert aws.calls == {"ecs:RunTask": 1, "ecs:DescribeTasks": 1}
    first, second = aws.journal
    assert (first.operation, first.answer) == ("ecs:RunTask", "ok")
    assert first.params == {
        "cluster": "etl",
        "taskDefinition": "nightly",
        "clientToken": "t",
        "overrides": "{…}",
    }
    assert second == (first.time + 3, "ecs:DescribeTasks", {"cluster": "etl", "tasks": []}, second.answer)
    assert second.answer == "InvalidParameterException"
    assert arn
    aws.forget_calls()
    assert (aws.calls, aws.journal) == ({}, [])


def test_the_journal_names_steps_but_does_not_show_environments(aws):
    emr = boto3.client("emr", config=ONCE)
    step = {"Name": "a", "HadoopJarStep": {"Jar": "x.jar", "Args": ["--password", "hidden"]}}
    emr.add_job_flow_steps(JobFlowId=aws.make_emr_cluster(), Steps=[step])
    assert aws.journal[-1].params["Steps"] == ["a"]
    assert "hidden" not in str(aws.journal)


def test_set_up_and_insight_are_not_counted(aws):
    aws.make_emr_cluster()
    aws.put_log_lines("group", "stream", ["line"])
    aws.ecs.tasks()
    assert aws.calls == {}


# -- logs -------------------------------------------------------------------------------------------------


def test_log_lines_can_be_read_back(aws):
    logs = boto3.client("logs", config=ONCE)
    with pytest.raises(logs.exceptions.ResourceNotFoundException):
        logs.get_log_events(logGroupName="/ecs/nightly", logStreamName="ecs/main/1")
    aws.put_log_lines("/ecs/nightly", "ecs/main/1", ["one", (aws.now() + 1, "two")])
    aws.put_log_lines("/ecs/nightly", "ecs/main/1", [])
    aws.advance(2)
    aws.put_log_lines("/ecs/nightly", "ecs/main/1", ["three"])
    events = logs.get_log_events(logGroupName="/ecs/nightly", logStreamName="ecs/main/1", startFromHead=True)
    assert [each["message"] for each in events["events"]] == ["one", "two", "three"]
    assert events["events"][2]["timestamp"] == int(aws.now() * 1000)


def test_log_lines_of_too_long_ago_are_refused(aws):
    with pytest.raises(ValueError, match="refuses the times"):
        aws.put_log_lines("group", "stream", [(aws.now() - 15 * 86400, "old")])


def test_a_task_definition_may_log(aws, ecs):
    aws.make_task_definition("loud", log_group="/ecs/loud")
    definition = ecs.describe_task_definition(taskDefinition="loud")["taskDefinition"]
    assert definition["containerDefinitions"][0]["logConfiguration"]["options"] == {
        "awslogs-group": "/ecs/loud",
        "awslogs-region": "us-east-1",
        "awslogs-stream-prefix": "ecs",
    }


def test_the_server_leaves_no_thread_behind():
    with FakeAws().serve():
        assert "fake-aws" in {thread.name for thread in threading.enumerate()}
    assert "fake-aws" not in {thread.name for thread in threading.enumerate()}
