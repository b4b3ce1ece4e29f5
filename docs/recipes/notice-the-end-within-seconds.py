"""Tasks whose jobs are polled rarely, because events report their ends."""

from datetime import datetime, timezone

from airflow.providers.common.compat.sdk import DAG

from airflow_resilient import EcsRunTaskOperator, EmrAddStepsOperator

with DAG(
    dag_id="notice_the_end_within_seconds",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
):
    # START rare-polls
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
    # END rare-polls
