"""ECS tasks and EMR steps keep the promises of every service, against the fake AWS."""

from dataclasses import replace

import pytest

from airflow_resilient.services.ecs.client import EcsTasks
from airflow_resilient.services.emr_steps.client import EmrSteps
from airflow_resilient.testing import FakeAws, RemoteJobsContract

ONE_ATTEMPT = {"retries": {"total_max_attempts": 1}}  # or botocore hides one throttled call


class OverFakeAws(RemoteJobsContract):
    def now(self):
        return self.aws.now()

    def let_time_pass(self, seconds):
        self.aws.advance(seconds)


class TestEcsTasks(OverFakeAws):
    @pytest.fixture(autouse=True)
    def _aws(self):
        with FakeAws(fake_time=True) as self.aws:
            self.aws.make_ecs_cluster("etl")
            self.aws.make_task_definition("nightly")
            self.aws.ecs.plan("nightly", seconds=None, stop_seconds=10.0)
            self.aws.ecs.visible_after_seconds = 3.0
            yield

    def service(self):
        request = {"taskDefinition": "nightly", "launchType": "FARGATE"}
        return EcsTasks(aws_conn_id=None, cluster="etl", request=request, botocore_config=ONE_ATTEMPT)

    def finish(self, job, succeeded=True):
        self.aws.ecs.finish(job.id, 0 if succeeded else 1)

    def lose_answer_of_next_submit(self):
        self.aws.fail_next("ecs:RunTask", carried_out=True, answer="drop")

    def throttle_next_call(self):
        self.aws.fail_next("ecs:*", "ThrottlingException")


class TestEmrSteps(OverFakeAws):
    tokens = False

    @pytest.fixture(autouse=True)
    def _aws(self):
        with FakeAws(fake_time=True) as self.aws:
            self.aws.emr.plan(seconds=None, stop_seconds=10.0)
            self.cluster = self.aws.make_emr_cluster("etl", concurrency=10)
            yield

    def service(self):
        jar = {"Jar": "command-runner.jar", "Args": ["spark-submit"]}
        steps = [{"Name": name, "ActionOnFailure": "CONTINUE", "HadoopJarStep": jar} for name in ("a", "b")]
        return EmrSteps(
            aws_conn_id=None,
            job_flow_id=self.cluster,
            steps=steps,
            botocore_config=ONE_ATTEMPT,
            sleep=self.let_time_pass,
        )

    def unknown(self, job):
        steps = [super(TestEmrSteps, self).unknown(replace(job, id=step)).id for step in job.id.split(",")]
        return replace(job, id=",".join(steps), facts={"steps": [[step, "PENDING"] for step in steps]})

    def finish(self, job, succeeded=True):
        for step in job.id.split(","):
            self.aws.emr.finish(step, "COMPLETED" if succeeded else "FAILED")

    def lose_answer_of_next_submit(self):
        self.aws.fail_next("emr:AddJobFlowSteps", carried_out=True, answer="drop")

    def throttle_next_call(self):
        self.aws.fail_next("emr:*", "ThrottlingException")
