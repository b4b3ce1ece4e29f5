"""A DAG that runs an AWS Glue job with an operator of your own."""

from datetime import datetime, timezone

from airflow.providers.common.compat.sdk import DAG
from glue_runs import GlueJobOperator

with DAG(
    dag_id="your_own_service_in_forty_lines",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
):
    # START dag
    GlueJobOperator(
        task_id="compact",
        job_name="compact-events",
        arguments={"--run": "{{ run_id }}"},
        retries=2,
        infrastructure_retries=3,
    )
    # END dag
