"""Operators for AWS with their own `execute`, and calls of them inside of tasks, on the fake AWS."""

from __future__ import annotations

import json
import logging
import time
import warnings
from dataclasses import replace

import boto3
import pytest
from airflow.providers.amazon.aws.links.emr import EmrClusterLink as ProvidersClusterLink
from airflow.providers.amazon.aws.links.emr import EmrLogsLink as ProvidersLogsLink
from botocore.exceptions import ClientError

from airflow_resilient import (
    EcsRunTaskOperator,
    EcsTaskStateSensor,
    EmrAddStepsOperator,
    EmrStepSensor,
    JobFailed,
    NotSubmitted,
    PollPolicy,
)
from airflow_resilient.compat import AirflowFailException, BaseOperator
from airflow_resilient.core.job import Claim
from airflow_resilient.core.service import RemoteService
from airflow_resilient.services.ecs.client import EcsTasks
from airflow_resilient.services.emr_steps.client import EmrSteps
from airflow_resilient.testing import FakeAws, TaskTries
from airflow_resilient.testing.aws.logs import put_log_lines
from airflow_resilient.testing.in_memory_jobs import Crash
from airflow_resilient.testing.task_tries import Deferred

QUICK = PollPolicy(
    interval=0.05, first_interval=0.01, max_backoff=0.1, lost_after_polls=2, lost_after_seconds=0.0
)
SECRET = "hunter2"


class Quick:
    """Short waits, as a test needs them."""

    def remote_jobs(self, context):
        service = super().remote_jobs(context)
        service.listing_lag = 0.01
        return service

    def _policy(self):
        return replace(super()._policy(), first_backoff=0.05, first_pause=0.01, max_backoff=0.1)


class Ecs(Quick, EcsRunTaskOperator):
    pass


class Emr(Quick, EmrAddStepsOperator):
    pass


class BuildsOverrides(Ecs):
    """Builds the command in `execute`, and maps an exit code."""

    def execute(self, context):
        self.overrides = {"containerOverrides": [{"name": "main", "command": ["day", SECRET]}]}
        try:
            return super().execute(context)
        except JobFailed as error:
            raise AirflowFailException(f"exit code {error.job.exit_code}") from error


class BuildsSteps(Emr):
    def execute(self, context):
        self.steps = steps("day", SECRET)
        return super().execute(context)


class Drifts(Ecs):
    visits = 0

    def remote_jobs(self, context):
        type(self).visits += 1
        self.tags = {"visit": f"{SECRET}-{self.visits}"}
        return super().remote_jobs(context)


def steps(*args):
    jar = {"Jar": "command-runner.jar", "Args": list(args)}
    return [{"Name": "sort", "ActionOnFailure": "CONTINUE", "HadoopJarStep": jar}]


@pytest.fixture
def aws():
    with FakeAws() as fake:
        fake.make_ecs_cluster("etl")
        fake.make_task_definition("nightly", containers=("main",), log_group="/ecs/nightly")
        fake.ecs.plan("nightly", seconds=0.2)
        fake.emr.plan(seconds=0.2)
        yield fake


def ecs(kind=Ecs, **changes):
    given = {
        "task_id": "nightly",
        "cluster": "etl",
        "task_definition": "nightly",
        "overrides": {},
        "launch_type": "FARGATE",
        "aws_conn_id": None,
        "poll_policy": QUICK,
        **changes,
    }
    return TaskTries(lambda: kind(**given))


def emr(aws, kind=Emr, **changes):
    cluster = aws.make_emr_cluster("etl", concurrency=10)
    given = {
        "task_id": "sort",
        "job_flow_id": cluster,
        "steps": steps("as parsed"),
        "aws_conn_id": None,
        "poll_policy": QUICK,
        "wait_for_completion": True,
        **changes,
    }
    return TaskTries(lambda: kind(**given))


def commands(aws):
    return [task.command for task in aws.ecs.tasks()]


# --- what the provider's classes have inside ------------------------------------------------------


class UsesInsides(Ecs):
    """Looks at its task with the provider's client while it runs and after its end."""

    def submitted(self, context, job):
        super().submitted(context, job)
        self.seen = [self._status()]

    def _status(self):
        return self.client.describe_tasks(cluster="etl", tasks=[self.arn])["tasks"][0]["lastStatus"]

    def execute(self, context):
        before = self.arn
        super().execute(context)
        return [before, self.arn, *self.seen, self._status(), self.hook.region_name]


def test_a_subclass_uses_arn_client_and_hook_as_with_the_provider(aws):
    before, arn, first, last, region = ecs(UsesInsides, region_name="us-east-1").start()
    (task,) = aws.ecs.tasks()
    assert (before, arn) == (None, task.arn)
    assert first in ("PROVISIONING", "PENDING", "RUNNING", "STOPPED")
    assert last == "STOPPED"
    assert region == "us-east-1"


class StopsIt(Ecs):
    def execute(self, context):
        try:
            return super().execute(context)
        finally:
            self.arn = f"{self.arn} has ended"

    def conclude(self, context, job, log):
        return self.arn, self.hook is self.hook, self.client is self.hook.conn


def test_arn_may_be_assigned_and_the_hook_is_one_object(aws):
    arn, *one = ecs(StopsIt).start()
    (task,) = aws.ecs.tasks()
    assert (arn, one) == (task.arn, [True, True])


def test_a_deferred_operator_knows_its_arn_when_it_resumes(aws):
    class Resumes(Ecs):
        def conclude(self, context, job, log):
            return self.arn

    assert ecs(Resumes).run() == aws.ecs.tasks()[0].arn


@pytest.mark.parametrize("live", [True, False])
def test_arn_is_that_of_the_job_that_a_retry_adopts(aws, live):
    class Dies(Ecs):
        died = False

        def submitted(self, context, job):
            if not type(self).died:
                type(self).died = True
                raise Crash("after the submission")
            super().submitted(context, job)

        def conclude(self, context, job, log):
            return self.arn

    tries = ecs(Dies, retries=1)
    aws.ecs.plan("nightly", seconds=None)
    with pytest.raises(Crash):
        tries.start()
    (task,) = aws.ecs.tasks()
    if not live:
        aws.ecs.finish(task.arn)
    outcome = tries.start()
    if live:
        assert isinstance(outcome, Deferred)
        aws.ecs.finish(task.arn)
        outcome = tries.finish(outcome)
    assert outcome == task.arn


class CountsSteps(Emr):
    def execute(self, context):
        super().execute(context)
        return len(self.hook.get_conn().list_steps(ClusterId=self.job_flow_id)["Steps"])


def test_a_subclass_for_emr_uses_the_hook_as_with_the_provider(aws):
    assert emr(aws, CountsSteps).start() == 1


def test_a_hook_has_the_access_of_the_task():
    given = {
        "aws_conn_id": "lake",
        "region_name": "eu-west-1",
        "verify": False,
        "botocore_config": {"read_timeout": 5},
    }
    step = {"job_flow_id": "j-2AXXXXXXGAPLF", "step_id": "s-2AXXXXXXGAPLF"}
    for task in (
        EcsRunTaskOperator(task_id="a", cluster="etl", task_definition="nightly", overrides={}, **given),
        EcsTaskStateSensor(task_id="b", cluster="etl", task="{{ task }}", **given),
        EmrAddStepsOperator(task_id="c", job_flow_name="etl", steps=steps("day"), **given),
        EmrStepSensor(task_id="d", **step, **given),
    ):
        hook = task.hook
        assert (hook.aws_conn_id, hook._region_name, hook._verify) == ("lake", "eu-west-1", False)
        assert hook._config.read_timeout == 5


def test_a_refused_request_is_boto3s_error_too(aws):
    class Catches(Ecs):
        def execute(self, context):
            try:
                return super().execute(context)
            except ClientError as error:
                return [error.response["Error"]["Code"], error.operation_name, str(error)[:18]]

    code, operation, text = ecs(Catches, cluster="missing").start()
    assert (code, operation, text) == ("ClusterNotFoundException", "RunTask", "ECS refuses to run")


class OwnPoke(EmrStepSensor):
    """As many have copied it from the provider's."""

    def poke(self, context):
        response = self.get_emr_response(context)
        state = self.state_from_response(response)
        if state in self.failed_states:
            raise JobFailed(str(self.failure_message_from_response(response)), None)
        return state in self.target_states


@pytest.mark.parametrize("outcome", ["COMPLETED", "FAILED"])
def test_a_poke_of_ones_own_reads_emrs_answer_as_with_the_provider(aws, outcome):
    cluster = aws.make_emr_cluster("etl", concurrency=10)
    aws.emr.plan(seconds=0.1, outcome=outcome)
    client = boto3.client("emr")
    (step,) = client.add_job_flow_steps(JobFlowId=cluster, Steps=steps("day"))["StepIds"]
    given = {"job_flow_id": cluster, "step_id": step, "aws_conn_id": None, "poke_interval": 0.1}
    tries = TaskTries(lambda: OwnPoke(task_id="wait", **given))
    if outcome == "COMPLETED":
        assert tries.start() is None
        return
    with pytest.raises(JobFailed, match="for reason Unknown Error"):
        tries.start()


class Resolves(Emr):
    """Has a placeholder when the DAG is parsed, and leaves with the deferral."""

    def execute(self, context):
        self.job_flow_id = type(self).cluster
        return super().execute(context)


def test_a_placeholder_of_a_cluster_may_be_filled_in_by_execute_also_of_a_deferring_task(aws):
    Resolves.cluster = aws.make_emr_cluster("etl", concurrency=10)
    given = {"job_flow_id": "123", "steps": steps("day"), "aws_conn_id": None, "poll_policy": QUICK}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # deferrable is not ignored here
        tries = TaskTries(lambda: Resolves(task_id="sort", deferrable=True, **given))
        assert len(tries.run()) == 1


def test_links_of_the_provider_find_their_facts(aws):
    cluster = aws.make_emr_cluster("etl", concurrency=10, log_uri="s3://logs/emr/")
    given = {"job_flow_id": cluster, "steps": steps("day"), "aws_conn_id": None, "poll_policy": QUICK}
    tries = TaskTries(lambda: Emr(task_id="sort", **given))
    tries.run()
    shown = ProvidersClusterLink().format_link(**tries.xcoms["emr_cluster"])
    assert shown.endswith(f"#/clusterDetails/{cluster}")
    assert "/s3/buckets/logs/emr/?" in ProvidersLogsLink().format_link(**tries.xcoms["emr_logs"])


def test_a_subclass_may_skip_our_init():
    class Skips(EmrAddStepsOperator):
        def __init__(self, step, **kwargs):
            super(EmrAddStepsOperator, self).__init__(**kwargs)
            self.step = step

    assert Skips(task_id="sort", step={}).wait_for_completion is True


# --- ECS ------------------------------------------------------------------------------------------


def test_an_ecs_task_of_a_subclass_runs_what_its_execute_has_built(aws, capsys, caplog):
    tries = ecs(BuildsOverrides)
    assert tries.start() is None
    (task,) = aws.ecs.tasks()
    assert (task.command, task.live) == (("day", SECRET), False)
    assert tries.xcoms["ecs_task_arn"] == task.arn
    assert SECRET not in f"{json.dumps(tries.xcoms)} {capsys.readouterr().out} {caplog.text}"


@pytest.mark.parametrize(
    ("harm", "tasks"),
    [
        pytest.param(
            lambda aws: aws.ecs.plan(
                "nightly", seconds=0.1, stop_code="SpotInterruption", then=[{"stop_code": None}]
            ),
            2,
            id="Spot",
        ),
        pytest.param(
            lambda aws: aws.ecs.plan(
                "nightly", seconds=0.1, failure="RESOURCE:MEMORY", then=[{"failure": None}]
            ),
            1,
            id="no-capacity",
        ),
        pytest.param(
            lambda aws: aws.fail_next("ecs:RunTask", carried_out=True, answer="drop"), 1, id="lost-answer"
        ),
        pytest.param(
            lambda aws: aws.fail_next("ecs:DescribeTasks", "ThrottlingException", times=3), 1, id="throttled"
        ),
    ],
)
def test_every_ecs_task_of_a_try_is_the_request_of_its_execute(aws, harm, tasks):
    harm(aws)
    ecs(BuildsOverrides).start()
    assert commands(aws) == [("day", SECRET)] * tasks


def test_an_exit_code_is_mapped_where_the_error_comes_out(aws):
    aws.ecs.plan("nightly", seconds=0.1, exit_code=3)
    with pytest.raises(AirflowFailException, match="exit code 3"):
        ecs(BuildsOverrides).start()


class WritesLog(Ecs):
    """Its ECS task writes two lines as soon as it is submitted."""

    def submitted(self, context, job):
        super().submitted(context, job)
        stream = f"ecs/main/{job.id.rpartition('/')[2]}"
        put_log_lines("us-east-1", "/ecs/nightly", stream, ["first", "last"], time.time())


def test_a_log_is_copied_and_its_last_line_returned(aws, monkeypatch, caplog, capsys):
    monkeypatch.setattr(EcsTasks, "log_drain", 0.2)
    logged = {"awslogs_group": "/ecs/nightly", "awslogs_stream_prefix": "ecs"}
    tries = ecs(WritesLog, **logged, container_name="main", awslogs_fetch_interval=1, deferrable=False)
    with caplog.at_level(logging.INFO):
        assert tries.start() == "last"
    said = capsys.readouterr().out or caplog.text
    assert said.count("first") == 1


@pytest.mark.parametrize(
    ("given", "here"),
    [
        pytest.param({}, False, id="nothing-is-said"),
        pytest.param({"deferrable": False}, True, id="false"),
        pytest.param({"default_args": {"deferrable": False}}, True, id="false-for-all"),
        pytest.param({"deferrable": "{{ 'False' }}"}, True, id="a-template-that-renders-false"),
        pytest.param({"deferrable": "{{ 'True' }}"}, False, id="a-template-that-renders-true"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*deferrable")
def test_what_deferrable_says_of_an_ecs_task(aws, given, here):
    tries = ecs(**given)
    made = tries.make_operator

    def rendered():
        task = made()
        if isinstance(task.deferrable, str):
            task.deferrable = task.deferrable[4:-4]
        return task

    tries.make_operator = rendered
    assert isinstance(tries.start(), Deferred) is not here


def test_the_default_of_airflow_says_nothing(aws, monkeypatch):
    from airflow_resilient.services import _aws

    assert _aws.choice_of(_aws.DEFAULT_DEFERRABLE) is None
    assert isinstance(ecs(deferrable=_aws.DEFAULT_DEFERRABLE).start(), Deferred)


def test_another_ecs_request_in_the_same_try_is_refused_and_names_its_fields(aws):
    aws.ecs.plan("nightly", seconds=0.1, stop_code="SpotInterruption")
    with pytest.raises(NotSubmitted, match="differs in tags from") as no:
        ecs(Drifts).run()
    assert SECRET not in str(no.value)
    assert len(aws.ecs.tasks()) == 1


# --- EMR ------------------------------------------------------------------------------------------


def test_steps_of_a_subclass_are_those_that_its_execute_has_built(aws):
    (step_id,) = emr(aws, BuildsSteps).start()
    (step,) = aws.emr.steps()
    assert (step.id, step.args, step.live) == (step_id, ("day", SECRET), False)


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param({"carried_out": True, "answer": "drop"}, id="lost-answer"),
        pytest.param({"code": "ThrottlingException"}, id="throttled"),
        pytest.param(
            {"code": "ValidationException", "message": "Maximum number of active steps exceeded."},
            id="no-capacity",
        ),
    ],
)
def test_every_submission_of_steps_is_the_request_of_its_execute(aws, harm):
    tries = emr(aws, BuildsSteps)
    aws.fail_next("emr:AddJobFlowSteps", **harm)
    (step_id,) = tries.start()
    (step,) = aws.emr.steps()
    assert (step.id, step.args) == (step_id, ("day", SECRET))


class Dies(BuildsSteps):
    """The worker of its first try dies when the steps have been added."""

    died = False

    def submitted(self, context, job):
        super().submitted(context, job)
        if not type(self).died:
            type(self).died = True
            raise Crash("after the submission")


def test_a_retry_adopts_the_steps_of_a_worker_that_died(aws):
    tries = emr(aws, Dies, retries=1)
    with pytest.raises(Crash):
        tries.start()
    assert tries.start() == [step.id for step in aws.emr.steps()]
    assert len(aws.emr.steps()) == 1


# --- inside of tasks ------------------------------------------------------------------------------


class Python(BaseOperator):
    def __init__(self, *, code, **kwargs):
        super().__init__(**kwargs)
        self.code = code

    def execute(self, context):
        return self.code(context)


def test_a_loop_of_three_in_a_task_makes_three_ecs_tasks_and_a_retry_adopts_them(aws):
    def code(context):
        for _ in range(3):
            ecs().make_operator().execute(context)

    tries = TaskTries(lambda: Python(task_id="python", code=code, retries=1))
    tries.start()
    claims = [Claim.read(task.started_by) for task in aws.ecs.tasks()]
    assert len({claim.task_key for claim in claims}) == 3
    assert len({claim.instance_key for claim in claims}) == 1
    tries.start()
    assert len(aws.ecs.tasks()) == 3


def test_two_submissions_of_steps_in_a_task_bear_two_claims(aws):
    make = emr(aws).make_operator

    def code(context):
        return [make().execute(context) for _ in range(2)]

    tries = TaskTries(lambda: Python(task_id="python", code=code, retries=1))
    first = tries.start()
    assert len(aws.emr.steps()) == 2
    assert tries.start() == first, "by their names: EMR has no token"


def test_a_sensor_in_a_task_waits_there(aws):
    def code(context):
        ecs().make_operator().execute(context)
        (task,) = aws.ecs.tasks()
        given = {"cluster": "etl", "task": task.arn, "aws_conn_id": None, "poke_interval": 0.05}
        EcsTaskStateSensor(task_id="wait", target_state="STOPPED", failure_states=["NONE"], **given).execute(
            context
        )
        return "went on"

    assert TaskTries(lambda: Python(task_id="python", code=code)).start() == "went on"


@pytest.mark.filterwarnings("error")
def test_an_emr_sensor_that_is_not_deferrable_waits_in_the_worker(aws, monkeypatch):
    monkeypatch.setattr("airflow_resilient.settings.MIN_INTERVAL", 0.01)
    (step,) = emr(aws, wait_for_completion=False).start()
    cluster = aws.emr.steps()[0].cluster_id
    given = {"job_flow_id": cluster, "step_id": step, "aws_conn_id": None, "poke_interval": 0.05}
    began = time.monotonic()
    TaskTries(lambda: EmrStepSensor(task_id="wait", deferrable=False, **given)).start()
    assert not aws.emr.steps()[0].live
    assert time.monotonic() - began < 30


# --- what is compared -----------------------------------------------------------------------------


def test_what_counts_as_the_request_is_what_the_user_has_chosen(aws):
    mine = EcsTasks(aws_conn_id=None, cluster="etl", request={"taskDefinition": "nightly", "overrides": {}})
    assert mine.request_fields() == {"cluster": "etl", "taskDefinition": "nightly", "overrides": {}}
    theirs = EmrSteps(aws_conn_id=None, job_flow_id="j-1", steps=steps("a"))
    assert theirs.request_fields()["steps"] == steps("a")
    assert theirs.request_fields()["job_flow_id"] == "j-1"
    assert type(mine).request_fields is not RemoteService.request_fields
