"""One remote job each; ``conf["job"]`` names it, so that every test has jobs of its own."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from airflow_resilient import EcsRunTaskOperator, EmrAddStepsOperator

ARGS = {"retries": 2, "retry_delay": timedelta(seconds=1), "waiter_delay": 2}
STEP = {
    "Name": "{{ dag_run.conf['job'] }}",
    "ActionOnFailure": "CONTINUE",
    "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["true"]},
}

with DAG("emr", schedule=None, default_args=ARGS) as emr:
    EmrAddStepsOperator(
        task_id="job",
        job_flow_name="etl",
        cluster_states=["WAITING", "RUNNING"],
        steps=[STEP],
        wait_for_completion=True,
    )

with DAG("ecs", schedule=None, default_args=ARGS) as ecs:
    EcsRunTaskOperator(
        task_id="job",
        cluster="etl",
        task_definition="{{ dag_run.conf['job'] }}",
        overrides={},
        launch_type="FARGATE",
    )

with DAG("ecs_logs", schedule=None, default_args=ARGS) as ecs_logs:
    EcsRunTaskOperator(
        task_id="job",
        cluster="etl",
        task_definition="{{ dag_run.conf['job'] }}",
        overrides={
            "containerOverrides": [{"name": "main", "environment": [{"name": "TOKEN", "value": "s3cr3t"}]}]
        },
        launch_type="FARGATE",
        awslogs_group="/ecs/etl",
        awslogs_stream_prefix="job",
        awslogs_fetch_interval=timedelta(seconds=1),
    )
