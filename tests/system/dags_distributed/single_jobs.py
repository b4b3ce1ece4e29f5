"""One remote job each; ``conf["job"]`` names it."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from airflow_resilient import EcsRunTaskOperator, EmrAddStepsOperator

ARGS = {"retries": 3, "retry_delay": timedelta(seconds=1), "waiter_delay": 2}
JOB = "{{ dag_run.conf['job'] }}"
STEP = {
    "Name": JOB,
    "ActionOnFailure": "CONTINUE",
    "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["true"]},
}

with DAG("single_step", schedule=None, default_args=ARGS):
    EmrAddStepsOperator(
        task_id="job",
        job_flow_name="etl",
        cluster_states=["WAITING", "RUNNING"],
        steps=[STEP],
        wait_for_completion=True,
    )

with DAG("single_container", schedule=None, default_args=ARGS):
    EcsRunTaskOperator(task_id="job", cluster="etl", task_definition=JOB, overrides={}, launch_type="FARGATE")
