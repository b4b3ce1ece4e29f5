"""Errors of the providers are caught."""

import os

from airflow.providers.amazon.aws.exceptions import EcsTaskFailToStart
from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator
from airflow.providers.docker.exceptions import DockerContainerFailedException
from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk import DAG


class Lenient(DockerOperator):
    def execute(self, context):
        try:
            return super().execute(context)
        except DockerContainerFailedException as error:
            return ["failed", error.logs[-1]]


class Patient(EcsRunTaskOperator):
    def execute(self, context):
        try:
            return super().execute(context)
        except EcsTaskFailToStart:
            return "not started"


with DAG(dag_id="caught", schedule=None):
    Lenient(
        task_id="docker",
        image="local/busybox:1",
        command=["sh", "-c", "echo no space left; exit 3"],
        docker_url=os.environ["ENGINE"],
        network_mode="none",
        mount_tmp_dir=False,
    )
    Patient(
        task_id="ecs",
        cluster="etl",
        task_definition="never",
        overrides={},
        launch_type="FARGATE",
        waiter_delay=1,
    )
