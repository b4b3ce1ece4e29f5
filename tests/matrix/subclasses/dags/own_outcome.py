"""What comes after `super().execute` counts: a result, an XCom, an error that becomes a skip."""

from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException, AirflowSkipException


class LoadOperator(EcsRunTaskOperator):
    def execute(self, context):
        try:
            super().execute(context)
        except AirflowException as error:
            raise AirflowSkipException("nothing to load today") from error
        context["ti"].xcom_push(key="rows", value=42)
        return True


with DAG(dag_id="own_outcome", schedule=None):
    for name in ("good", "bad"):
        LoadOperator(
            task_id=name,
            cluster="etl",
            task_definition=f"load-{name}",
            overrides={},
            launch_type="FARGATE",
            waiter_delay=1,
        )
