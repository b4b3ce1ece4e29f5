"""A nightly container that must run once, whatever happens to the worker that started it."""

from datetime import datetime, timedelta, timezone

from airflow.providers.common.compat.sdk import DAG

from airflow_resilient import EcsRunTaskOperator

# START defaults
DEFAULTS = {
    "retries": 2,  # failures of the application
    "infrastructure_retries": 3,  # Spot interruptions, lost hosts, no capacity
    "execution_timeout": timedelta(hours=2),  # of one try, over all deferrals
}
# END defaults

with DAG(
    dag_id="ecs_tasks_that_survive_a_deploy",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    default_args=DEFAULTS,
):
    # START task
    export = EcsRunTaskOperator(
        task_id="export",
        cluster="etl",
        task_definition="nightly-export:7",
        launch_type="FARGATE",
        overrides={"containerOverrides": [{"name": "export", "command": ["export", "{{ run_id }}"]}]},
        network_configuration={"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
    )
    # END task

    # START logs
    load = EcsRunTaskOperator(
        task_id="load",
        cluster="etl",
        task_definition="nightly-load:3",
        launch_type="FARGATE",
        overrides={},
        network_configuration={"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
        awslogs_group="/ecs/nightly-load",
        awslogs_stream_prefix="ecs",
        skip_on_exit_code=99,  # this code means: nothing to load
    )
    # END logs

    export >> load
