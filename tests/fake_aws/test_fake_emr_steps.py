"""EMR of the fake AWS, through both of its doors."""

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
        yield opened


@pytest.fixture
def emr(aws):
    return boto3.client("emr", config=ONCE)


@pytest.fixture
def cluster(aws):
    return aws.make_emr_cluster("demo")


def step(name, action="CONTINUE", args=()):
    return {
        "Name": name,
        "ActionOnFailure": action,
        "HadoopJarStep": {"Jar": "command-runner.jar", "Args": list(args)},
    }


def add(emr, cluster, *names, action="CONTINUE"):
    steps = [step(name, action) for name in names]
    return emr.add_job_flow_steps(JobFlowId=cluster, Steps=steps)["StepIds"]


def states(aws):
    return {each.name: each.state for each in aws.emr.steps()}


def error_of(call, **params):
    with pytest.raises(ClientError) as caught:
        call(**params)
    return caught.value.response["Error"]["Code"], caught.value.response["Error"]["Message"]


def status(emr, cluster):
    return emr.describe_cluster(ClusterId=cluster)["Cluster"]["Status"]


def test_steps_run_one_after_the_other(aws, emr, cluster):
    aws.emr.plan(seconds=10)
    add(emr, cluster, "a", "b")
    assert states(aws) == {"a": "RUNNING", "b": "PENDING"}
    aws.advance(9)
    assert states(aws) == {"a": "RUNNING", "b": "PENDING"}
    aws.advance(1)
    assert states(aws) == {"a": "COMPLETED", "b": "RUNNING"}
    aws.advance(100)
    assert states(aws) == {"a": "COMPLETED", "b": "COMPLETED"}
    first, second = aws.emr.steps()
    assert second.started == first.ended
    assert second.ended == second.started + 10


def test_a_cluster_runs_as_many_steps_at_once_as_its_concurrency_allows(aws, emr):
    cluster = aws.make_emr_cluster("wide", concurrency=2)
    aws.emr.plan(seconds=10)
    add(emr, cluster, "a", "b", "c")
    assert states(aws) == {"a": "RUNNING", "b": "RUNNING", "c": "PENDING"}
    emr.modify_cluster(ClusterId=cluster, StepConcurrencyLevel=3)
    assert states(aws)["c"] == "RUNNING"
    assert emr.describe_cluster(ClusterId=cluster)["Cluster"]["StepConcurrencyLevel"] == 3


def test_a_cluster_waits_and_runs_as_there_are_steps(aws, emr, cluster):
    assert status(emr, cluster)["State"] == "WAITING"
    add(emr, cluster, "a")
    assert status(emr, cluster)["State"] == "RUNNING"
    aws.advance(1)
    assert status(emr, cluster)["State"] == "WAITING"


def test_a_starting_cluster_takes_steps_and_runs_them_when_it_is_ready(aws, emr):
    aws.emr.start_seconds = 60
    cluster = aws.make_emr_cluster()
    began = aws.now()
    add(emr, cluster, "a")
    assert (status(emr, cluster)["State"], states(aws)["a"]) == ("STARTING", "PENDING")
    aws.advance(30)
    assert status(emr, cluster)["State"] == "BOOTSTRAPPING"
    aws.advance(30)
    assert (status(emr, cluster)["State"], states(aws)["a"]) == ("RUNNING", "RUNNING")
    assert status(emr, cluster)["Timeline"] == {
        "CreationDateTime": datetime.fromtimestamp(began, timezone.utc),
        "ReadyDateTime": datetime.fromtimestamp(began + 60, timezone.utc),
    }


def test_describe_step_tells_name_arguments_role_and_times(aws, emr, cluster):
    began = aws.now()
    (step_id,) = emr.add_job_flow_steps(
        JobFlowId=cluster,
        Steps=[step("a", args=["spark-submit", "x"])],
        ExecutionRoleArn="arn:aws:iam::1:role/r",
    )["StepIds"]
    aws.advance(5)
    shown = emr.describe_step(ClusterId=cluster, StepId=step_id)["Step"]
    assert (shown["Id"], shown["Name"], shown["ActionOnFailure"]) == (step_id, "a", "CONTINUE")
    assert shown["Config"]["Args"] == ["spark-submit", "x"]
    assert shown["ExecutionRoleArn"] == "arn:aws:iam::1:role/r"
    assert shown["Status"]["State"] == "COMPLETED"
    assert shown["Status"]["Timeline"] == {
        "CreationDateTime": datetime.fromtimestamp(began, timezone.utc),
        "StartDateTime": datetime.fromtimestamp(began, timezone.utc),
        "EndDateTime": datetime.fromtimestamp(began + 1, timezone.utc),
    }


def test_each_call_adds_a_step(aws, emr, cluster):
    assert add(emr, cluster, "a") != add(emr, cluster, "a")
    assert [each.name for each in aws.emr.steps(cluster)] == ["a", "a"]


def test_a_failed_step_has_failure_details(aws, emr):
    cluster = aws.make_emr_cluster(log_uri="s3://logs/")
    aws.emr.plan("a", outcome="FAILED", failure_reason="Main Class not found.", failure_message="no Main")
    (step_id,) = add(emr, cluster, "a")
    aws.advance(1)
    shown = emr.describe_step(ClusterId=cluster, StepId=step_id)["Step"]["Status"]
    assert shown["State"] == "FAILED"
    assert shown["FailureDetails"] == {
        "Reason": "Main Class not found.",
        "Message": "no Main",
        "LogFile": f"s3://logs/{cluster}/steps/{step_id}/stderr.gz",
    }


@pytest.mark.parametrize(
    ("action", "ends"),
    [
        ("CONTINUE", ("RUNNING", "RUNNING")),
        ("CANCEL_AND_WAIT", ("CANCELLED", "WAITING")),
        ("TERMINATE_CLUSTER", ("CANCELLED", "TERMINATED_WITH_ERRORS")),
        ("TERMINATE_JOB_FLOW", ("CANCELLED", "TERMINATED_WITH_ERRORS")),
    ],
)
def test_a_failure_does_what_action_on_failure_says(aws, emr, cluster, action, ends):
    second, state = ends
    aws.emr.plan("a", outcome="FAILED")
    add(emr, cluster, "a", "b", action=action)
    aws.advance(1)
    assert states(aws) == {"a": "FAILED", "b": second}
    assert status(emr, cluster)["State"] == state
    if state == "TERMINATED_WITH_ERRORS":
        assert status(emr, cluster)["StateChangeReason"]["Code"] == "STEP_FAILURE"


def test_a_protected_cluster_outlives_a_failed_step(aws, emr, cluster):
    emr.set_termination_protection(JobFlowIds=[cluster], TerminationProtected=True)
    aws.emr.plan("a", outcome="FAILED")
    add(emr, cluster, "a", "b", action="TERMINATE_CLUSTER")
    aws.advance(1)
    assert states(aws) == {"a": "FAILED", "b": "CANCELLED"}
    assert status(emr, cluster)["State"] == "WAITING"


def test_a_cluster_that_runs_steps_at_once_takes_only_continue(aws, emr):
    cluster = aws.make_emr_cluster(concurrency=2)
    code, message = error_of(emr.add_job_flow_steps, JobFlowId=cluster, Steps=[step("a", "CANCEL_AND_WAIT")])
    assert code == "ValidationException"
    assert "ActionOnFailure" in message
    assert aws.emr.steps() == []


def test_256_steps_may_be_active(aws, emr, cluster):
    aws.emr.plan(seconds=10)
    add(emr, cluster, *[f"s{number}" for number in range(256)])
    code, message = error_of(emr.add_job_flow_steps, JobFlowId=cluster, Steps=[step("one more")])
    assert code == "ValidationException"
    assert "Maximum number of active steps" in message
    aws.advance(10)
    add(emr, cluster, "one more")
    assert len(aws.emr.steps()) == 257


def test_a_terminated_cluster_takes_no_steps(emr, cluster):
    emr.terminate_job_flows(JobFlowIds=[cluster])
    assert error_of(emr.add_job_flow_steps, JobFlowId=cluster, Steps=[step("a")]) == (
        "ValidationException",
        "A job flow that is shutting down, terminated, or finished may not be modified.",
    )


def test_names_may_be_256_characters_long(emr, cluster):
    add(emr, cluster, "x" * 256)
    code, _ = error_of(emr.add_job_flow_steps, JobFlowId=cluster, Steps=[step("x" * 257)])
    assert code == "ValidationException"


def test_list_steps_gives_the_newest_first_in_pages_of_50(aws, emr, cluster):
    aws.emr.plan(seconds=None)
    ids = add(emr, cluster, *[f"s{number}" for number in range(120)])
    first = emr.list_steps(ClusterId=cluster)
    assert [each["Id"] for each in first["Steps"]] == ids[:-51:-1]
    second = emr.list_steps(ClusterId=cluster, Marker=first["Marker"])
    third = emr.list_steps(ClusterId=cluster, Marker=second["Marker"])
    assert [each["Id"] for each in second["Steps"] + third["Steps"]] == ids[69::-1]
    assert "Marker" not in third


def test_list_steps_filters_by_state_and_by_id(aws, emr, cluster):
    a, b, c = add(emr, cluster, "a", "b", "c")
    aws.advance(1)
    pending = emr.list_steps(ClusterId=cluster, StepStates=["PENDING"])["Steps"]
    assert [each["Id"] for each in pending] == [c]
    asked = emr.list_steps(ClusterId=cluster, StepIds=[c, a])["Steps"]
    assert {each["Id"]: each["Status"]["State"] for each in asked} == {a: "COMPLETED", c: "PENDING"}
    assert emr.describe_step(ClusterId=cluster, StepId=b)["Step"]["Status"]["State"] == "RUNNING"


def test_list_steps_takes_ten_ids_at_most(emr, cluster):
    ids = add(emr, cluster, *"abcdefghijk")
    assert len(emr.list_steps(ClusterId=cluster, StepIds=ids[:10])["Steps"]) == 10
    assert error_of(emr.list_steps, ClusterId=cluster, StepIds=ids)[0] == "ValidationException"


def test_list_steps_may_show_a_new_step_late(aws, emr, cluster):
    aws.emr.visible_after_seconds = 3
    (new,) = add(emr, cluster, "a")
    assert emr.list_steps(ClusterId=cluster)["Steps"] == []
    assert emr.describe_step(ClusterId=cluster, StepId=new)["Step"]["Name"] == "a"
    aws.advance(3)
    assert [each["Id"] for each in emr.list_steps(ClusterId=cluster)["Steps"]] == [new]


def test_list_steps_leaves_out_or_refuses_unknown_ids(aws, emr, cluster):
    (known,) = add(emr, cluster, "a")
    ids = [known, "s-UNKNOWN"]
    assert [each["Id"] for each in emr.list_steps(ClusterId=cluster, StepIds=ids)["Steps"]] == [known]
    aws.emr.unknown_step_ids = "refuse"
    assert error_of(emr.list_steps, ClusterId=cluster, StepIds=ids)[0] == "InvalidRequestException"


def test_unknown_steps_and_clusters_are_not_valid(emr, cluster):
    assert error_of(emr.describe_step, ClusterId=cluster, StepId="s-X") == (
        "InvalidRequestException",
        "Step id 's-X' is not valid.",
    )
    unknown = ("InvalidRequestException", "Cluster id 'j-X' is not valid.")
    assert error_of(emr.describe_step, ClusterId="j-X", StepId="s-X") == unknown
    assert error_of(emr.list_steps, ClusterId="j-X") == unknown
    assert error_of(emr.describe_cluster, ClusterId="j-X") == unknown
    assert error_of(emr.cancel_steps, ClusterId="j-X", StepIds=["s-X"]) == unknown
    gone = ("ValidationException", "Specified job flow ID does not exist.")
    assert error_of(emr.add_job_flow_steps, JobFlowId="j-X", Steps=[step("a")]) == gone
    assert error_of(emr.terminate_job_flows, JobFlowIds=["j-X"]) == gone


def test_cancelling_is_at_once_for_pending_and_takes_time_for_running_steps(aws, emr, cluster):
    aws.emr.plan(seconds=None, stop_seconds=20)
    a, b, c = add(emr, cluster, "a", "b", "c")
    answer = emr.cancel_steps(ClusterId=cluster, StepIds=[a, b], StepCancellationOption="SEND_INTERRUPT")
    assert {each["StepId"]: each["Status"] for each in answer["CancelStepsInfoList"]} == {
        a: "SUBMITTED",
        b: "SUBMITTED",
    }
    assert states(aws) == {"a": "CANCEL_PENDING", "b": "CANCELLED", "c": "PENDING"}
    aws.advance(20)
    assert states(aws) == {"a": "CANCELLED", "b": "CANCELLED", "c": "RUNNING"}
    assert aws.emr.step(c).started == aws.emr.step(a).ended


def test_a_cancelled_step_does_not_trigger_action_on_failure(aws, emr, cluster):
    aws.emr.plan(seconds=None)
    a, _ = add(emr, cluster, "a", "b", action="TERMINATE_CLUSTER")
    emr.cancel_steps(ClusterId=cluster, StepIds=[a])
    aws.advance(1)
    assert states(aws) == {"a": "CANCELLED", "b": "RUNNING"}


def test_a_cancel_may_fail_step_by_step(aws, emr, cluster):
    a, b = add(emr, cluster, "a", "b")
    aws.advance(1)
    infos = emr.cancel_steps(ClusterId=cluster, StepIds=[a, b, "s-X"])["CancelStepsInfoList"]
    assert [each["Status"] for each in infos] == ["FAILED", "SUBMITTED", "FAILED"]
    assert "COMPLETED" in infos[0]["Reason"]
    assert "s-X" in infos[2]["Reason"]


def test_releases_before_5_28_do_not_cancel_running_steps(aws, emr):
    cluster = aws.make_emr_cluster(release="emr-5.27.1")
    ids = add(emr, cluster, "a", "b")
    infos = emr.cancel_steps(ClusterId=cluster, StepIds=ids)["CancelStepsInfoList"]
    assert [each["Status"] for each in infos] == ["FAILED", "SUBMITTED"]
    assert states(aws) == {"a": "RUNNING", "b": "CANCELLED"}


def test_a_step_that_ignores_the_cancel_is_cancel_pending_until_the_test_ends_it(aws, emr, cluster):
    aws.emr.plan(seconds=None, stop_seconds=None)
    (a,) = add(emr, cluster, "a")
    emr.cancel_steps(ClusterId=cluster, StepIds=[a])
    aws.advance(86400)
    assert states(aws) == {"a": "CANCEL_PENDING"}
    aws.emr.finish(a, "COMPLETED")
    assert states(aws) == {"a": "COMPLETED"}


@pytest.mark.parametrize("code", ["INSTANCE_FAILURE", "BOOTSTRAP_FAILURE", "INTERNAL_ERROR"])
def test_steps_end_with_their_cluster_and_the_cluster_says_why(aws, emr, cluster, code):
    aws.emr.terminate_seconds = 30
    add(emr, cluster, "a", "b")
    aws.emr.end_cluster(cluster, code, "it is gone")
    assert states(aws) == {"a": "FAILED", "b": "CANCELLED"}
    assert status(emr, cluster)["State"] == "TERMINATING"
    aws.advance(30)
    shown = status(emr, cluster)
    assert shown["State"] == "TERMINATED_WITH_ERRORS"
    assert shown["StateChangeReason"] == {"Code": code, "Message": "it is gone"}
    assert "EndDateTime" in shown["Timeline"]


def test_a_test_may_say_that_running_steps_are_interrupted(aws, emr, cluster):
    add(emr, cluster, "a")
    aws.emr.end_cluster(cluster, running_steps_become="INTERRUPTED")
    assert states(aws) == {"a": "INTERRUPTED"}


def test_terminating_a_cluster_cancels_its_steps(aws, emr, cluster):
    add(emr, cluster, "a", "b")
    emr.terminate_job_flows(JobFlowIds=[cluster])
    assert states(aws) == {"a": "CANCELLED", "b": "CANCELLED"}
    shown = status(emr, cluster)
    assert (shown["State"], shown["StateChangeReason"]["Code"]) == ("TERMINATED", "USER_REQUEST")


def test_a_protected_cluster_is_not_terminated(aws, emr, cluster):
    emr.set_termination_protection(JobFlowIds=[cluster], TerminationProtected=True)
    assert emr.describe_cluster(ClusterId=cluster)["Cluster"]["TerminationProtected"] is True
    code, message = error_of(emr.terminate_job_flows, JobFlowIds=[cluster])
    assert code == "ValidationException"
    assert "termination protected" in message
    assert status(emr, cluster)["State"] == "WAITING"


def test_run_job_flow_runs_its_steps_and_ends_the_cluster(aws, emr):
    aws.emr.start_seconds = 60
    cluster = emr.run_job_flow(
        Name="transient",
        ReleaseLabel="emr-7.1.0",
        Instances={
            "InstanceGroups": [
                {"InstanceRole": "MASTER", "InstanceType": "m5.xlarge", "InstanceCount": 1},
                {"InstanceRole": "CORE", "InstanceType": "m5.xlarge", "InstanceCount": 2},
            ],
            "KeepJobFlowAliveWhenNoSteps": False,
        },
        Steps=[step("a"), step("b")],
        JobFlowRole="EMR_EC2_DefaultRole",
        ServiceRole="EMR_DefaultRole",
        Tags=[{"Key": "team", "Value": "data"}],
    )["JobFlowId"]
    assert status(emr, cluster)["State"] == "STARTING"
    aws.advance(62)
    assert states(aws) == {"a": "COMPLETED", "b": "COMPLETED"}
    shown = emr.describe_cluster(ClusterId=cluster)["Cluster"]
    assert shown["Status"]["State"] == "TERMINATED"
    assert shown["Status"]["StateChangeReason"]["Code"] == "ALL_STEPS_COMPLETED"
    assert shown["AutoTerminate"] is True
    assert shown["Tags"] == [{"Key": "team", "Value": "data"}]
    assert len(emr.list_instance_groups(ClusterId=cluster)["InstanceGroups"]) == 2


def test_list_clusters_filters_by_state(aws, emr):
    old, new = aws.make_emr_cluster("old"), aws.make_emr_cluster("new")
    emr.terminate_job_flows(JobFlowIds=[old])
    assert [each["Id"] for each in emr.list_clusters(ClusterStates=["WAITING"])["Clusters"]] == [new]
    assert {each["Name"] for each in emr.list_clusters()["Clusters"]} == {"old", "new"}
    assert [each.state for each in aws.emr.clusters()] == ["TERMINATED", "WAITING"]


def test_a_step_may_wait_for_the_completion_of_others_on_any_cluster(aws, emr, cluster):
    other = aws.make_emr_cluster("other")
    aws.emr.plan("join", seconds=1, needs=["extract", "load"])
    aws.emr.plan("extract", seconds=30)
    aws.emr.plan("load", seconds=50, outcome="FAILED", then=[{"outcome": "COMPLETED"}])
    add(emr, cluster, "join it")
    add(emr, other, "extract it", "load it", "load it again")
    aws.advance(129)
    assert states(aws)["join it"] == "RUNNING"
    aws.advance(1)
    assert states(aws)["join it"] == "COMPLETED"
    by_name = {each.name: each for each in aws.emr.steps()}
    assert by_name["join it"].ended == by_name["load it again"].ended


def test_the_arguments_may_tell_length_and_outcome(aws, emr, cluster):
    steps = [step("a", args=["sleep", "7"]), step("b", args=["bash", "-c", "sleep 2.5; exit 1"])]
    emr.add_job_flow_steps(JobFlowId=cluster, Steps=steps)
    aws.advance(60)
    first, second = aws.emr.steps()
    assert (first.ended - first.started, first.state) == (7, "COMPLETED")
    assert (second.ended - second.started, second.state) == (2.5, "FAILED")


def test_a_plan_goes_before_the_arguments_only_where_it_says_something(aws, emr, cluster):
    aws.emr.plan("a", outcome="FAILED")
    emr.add_job_flow_steps(JobFlowId=cluster, Steps=[step("a", args=["sleep", "7"])])
    aws.advance(6)
    assert states(aws) == {"a": "RUNNING"}
    aws.advance(1)
    assert states(aws) == {"a": "FAILED"}


def test_a_test_may_finish_a_step_when_it_wants(aws, emr, cluster):
    aws.emr.plan(seconds=None)
    a, b = add(emr, cluster, "a", "b", action="CANCEL_AND_WAIT")
    aws.emr.finish(a, "FAILED", message="broken")
    assert states(aws) == {"a": "FAILED", "b": "CANCELLED"}
    with pytest.raises(ValueError, match="ended already"):
        aws.emr.finish(b)


def test_the_default_plan_may_be_changed(aws, emr, cluster):
    from dataclasses import replace

    aws.emr.default = replace(aws.emr.default, seconds=100)
    add(emr, cluster, "a")
    aws.advance(99)
    assert states(aws) == {"a": "RUNNING"}
