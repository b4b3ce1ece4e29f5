"""AWS refuses the request, and the code catches only what Airflow raises."""

from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException, AirflowSkipException


class LoadOperator(EcsRunTaskOperator):
    def execute(self, context):
        try:
            return super().execute(context)
        except AirflowException as error:
            raise AirflowSkipException("nothing to load today") from error


with DAG(dag_id="refused", schedule=None):
    LoadOperator(
        task_id="load",
        cluster="nowhere",
        task_definition="load-good",
        overrides={},
        launch_type="FARGATE",
        waiter_delay=1,
        retries=0,
    )
