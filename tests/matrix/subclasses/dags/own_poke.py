"""A sensor with a `poke` of its own."""

from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator
from airflow.providers.amazon.aws.sensors.ecs import EcsTaskStateSensor
from airflow.sdk import DAG


class StoppedSensor(EcsTaskStateSensor):
    def poke(self, context):
        if not super().poke(context):
            return False
        (found,) = self.client.describe_tasks(cluster=self.cluster, tasks=[self.task])["tasks"]
        context["ti"].xcom_push(key="exit_code", value=found["containers"][0]["exitCode"])
        return True


with DAG(dag_id="own_poke", schedule=None):
    started = EcsRunTaskOperator(
        task_id="started",
        cluster="etl",
        task_definition="nightly",
        overrides={},
        launch_type="FARGATE",
        wait_for_completion=False,
    )
    started >> StoppedSensor(
        task_id="stopped",
        cluster="etl",
        task="{{ ti.xcom_pull(task_ids='started', key='ecs_task_arn') }}",
        target_state="STOPPED",
        failure_states={"NONE"},
        poke_interval=1,
    )
