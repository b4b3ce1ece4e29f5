"""Eight exports on ECS, four of them at a time, and four totals on EMR, on an Airflow of many machines."""

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_resilient import EcsRunTaskOperator, EmrAddStepsOperator

PARTS = range(8)
REGIONS = ["north", "east", "south", "west"]

# START defaults
DEFAULTS = {
    "retries": 3,  # each lost worker costs one
    "retry_delay": timedelta(seconds=5),  # the retry finds the job, so it may come soon
    "execution_timeout": timedelta(hours=2),
}
# END defaults


def export(part: int) -> dict[str, Any]:
    """RunTask's overrides for one part."""
    return {"containerOverrides": [{"name": "main", "command": ["export", f"--part={part}"]}]}


def total(region: str) -> list[dict[str, Any]]:
    """The steps of one region, in the format of boto3."""
    jar = {"Jar": "command-runner.jar", "Args": ["spark-submit", "s3://code/total.py", region]}
    return [{"Name": f"total {region}", "ActionOnFailure": "CONTINUE", "HadoopJarStep": jar}]


with DAG(
    dag_id="when_one_machine_is_not_enough",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    default_args=DEFAULTS,
):
    # START bounded
    exports = EcsRunTaskOperator.partial(
        task_id="export",
        cluster="etl",
        task_definition="export",
        launch_type="FARGATE",
        pool="fargate",  # 4 slots, deferred ones included: four ECS tasks at a time
    ).expand(overrides=[export(part) for part in PARTS])
    # END bounded

    # START queued
    totals = EmrAddStepsOperator.partial(
        task_id="total",
        job_flow_name="etl",
        cluster_states=["WAITING", "RUNNING"],
        wait_for_completion=True,
        pool="submits",  # 2 slots, deferred ones not included: two submits at a time, any number of waits
    ).expand(steps=[total(region) for region in REGIONS])
    # END queued

    exports >> totals
