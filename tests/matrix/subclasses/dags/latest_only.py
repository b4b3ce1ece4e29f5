"""Only the latest run does its work; what an old one is late for is skipped."""

import pendulum
from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator
from airflow.providers.standard.operators.latest_only import LatestOnlyOperator
from airflow.sdk import DAG

with DAG(
    dag_id="latest_only",
    schedule="@daily",
    start_date=pendulum.today("UTC").subtract(days=2),
    catchup=True,
):
    LatestOnlyOperator(task_id="latest_only") >> EcsRunTaskOperator(
        task_id="report",
        cluster="etl",
        task_definition="report",
        overrides={},
        launch_type="FARGATE",
        waiter_delay=1,
    )
