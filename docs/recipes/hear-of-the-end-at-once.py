"""Tasks that are looked at rarely, because AWS tells when they end."""

from datetime import datetime, timezone

from airflow.providers.common.compat.sdk import DAG

from airflow_resilient import EcsRunTaskOperator, EmrAddStepsOperator

with DAG(
    dag_id="hear_of_the_end_at_once",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
):
    # START rare-looks
    EcsRunTaskOperator(
        task_id="nightly",
        cluster="etl",
        task_definition="nightly",
        overrides={},
        launch_type="FARGATE",
        waiter_delay=300,
    )
    EmrAddStepsOperator(
        task_id="sort",
        job_flow_name="etl",
        steps=[{"Name": "sort", "HadoopJarStep": {"Jar": "command-runner.jar"}}],
        wait_for_completion=True,
        waiter_delay=300,
    )
    # END rare-looks
