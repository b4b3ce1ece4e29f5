"""A task that may run twice by no means: how it ended is known for a week, although ECS forgets it."""

from datetime import datetime, timedelta, timezone

from airflow.providers.common.compat.sdk import DAG

from airflow_resilient import EcsRunTaskOperator

with DAG(
    dag_id="know_the_end_of_a_task_that_ecs_has_forgotten",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
):
    # START settle
    EcsRunTaskOperator(
        task_id="settle",
        cluster="etl",
        task_definition="nightly",
        overrides={},
        launch_type="FARGATE",
        retries=3,
        retry_delay=timedelta(hours=2),
    )
    # END settle
