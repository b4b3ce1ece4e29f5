"""Attributes that the provider's operators have: `arn`, `client`, `hook`, `cli`, `container`."""

import os

from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator
from airflow.providers.amazon.aws.operators.emr import EmrAddStepsOperator
from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk import DAG


class AskEcs(EcsRunTaskOperator):
    def execute(self, context):
        super().execute(context)
        (found,) = self.client.describe_tasks(cluster=self.cluster, tasks=[self.arn])["tasks"]
        return [found["taskArn"] == self.arn, found["lastStatus"], found["containers"][0]["exitCode"]]


class AskEmr(EmrAddStepsOperator):
    def execute(self, context):
        (step_id,) = super().execute(context)
        client = self.hook.get_conn()
        return client.describe_step(ClusterId=self.job_flow_id, StepId=step_id)["Step"]["Status"]["State"]


class AskDocker(DockerOperator):
    def execute(self, context):
        last_line = super().execute(context)
        state = self.cli.inspect_container(self.container["Id"])["State"]
        return [last_line, state["Status"], state["ExitCode"]]


with DAG(dag_id="insides", schedule=None):
    AskEcs(
        task_id="ecs",
        cluster="etl",
        task_definition="nightly",
        overrides={},
        launch_type="FARGATE",
        waiter_delay=1,
    )
    AskEmr(
        task_id="emr",
        job_flow_id="j-2AXXXXXXGAPLF",
        steps=[{"Name": "sort", "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["sort"]}}],
        wait_for_completion=True,
        waiter_delay=1,
    )
    AskDocker(
        task_id="docker",
        image="local/busybox:1",
        command=["echo", "hello"],
        docker_url=os.environ["ENGINE"],
        network_mode="none",
        mount_tmp_dir=False,
    )
