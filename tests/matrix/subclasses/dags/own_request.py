"""The request is built in `execute`, from what is known only then."""

from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator
from airflow.sdk import DAG


class ExportOperator(EcsRunTaskOperator):
    def execute(self, context):
        day = context["dag_run"].conf["day"]
        self.overrides = {"containerOverrides": [{"name": "main", "command": ["export", day]}]}
        return super().execute(context)


with DAG(dag_id="own_request", schedule=None):
    ExportOperator(
        task_id="export",
        cluster="etl",
        task_definition="export",
        overrides={},
        launch_type="FARGATE",
        waiter_delay=1,
    )
