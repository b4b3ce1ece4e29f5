"""Several DAGs add steps to one EMR cluster through a pool of two slots, and need each other's output."""

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_resilient import EmrAddStepsOperator, EmrStepSensor


def spark_step(name: str, script: str) -> dict[str, Any]:
    """One step, in the format of boto3."""
    return {
        "Name": name,
        "ActionOnFailure": "CONTINUE",
        "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["spark-submit", script]},
    }


with DAG(
    dag_id="emr_steps_without_the_deadlock",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    default_args={"pool": "emr", "retries": 2, "execution_timeout": timedelta(hours=6)},
):
    # START one-task
    clean = EmrAddStepsOperator(
        task_id="clean",
        job_flow_name="etl",
        cluster_states=["WAITING", "RUNNING"],
        steps=[spark_step("clean", "s3://code/clean.py"), spark_step("check", "s3://code/check.py")],
        wait_for_completion=True,
    )
    # END one-task

    # START two-tasks
    join = EmrAddStepsOperator(
        task_id="join",
        job_flow_id="j-0123456789ABC",
        steps=[spark_step("join", "s3://code/join.py")],
    )
    joined = EmrStepSensor(
        task_id="joined",
        job_flow_id="{{ ti.xcom_pull('join', key='job_flow_id') }}",
        step_id="{{ ti.xcom_pull('join')[0] }}",
    )
    # END two-tasks

    clean >> join >> joined
