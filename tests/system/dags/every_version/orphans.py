"""Jobs that are left behind in one way or another, and the maintenance DAG that finds them."""

from __future__ import annotations

import runpy
from datetime import datetime, timedelta, timezone
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG

from airflow_resilient import EcsRunTaskOperator, EmrAddStepsOperator, OrphanSweepOperator

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
RECIPE = Path(__file__).parents[4] / "docs" / "recipes" / "find-and-cancel-orphans.py"
CLUSTER = "orphans"
NAME = "{{ dag_run.conf['job'] }}"
STEP = {
    "Name": NAME,
    "ActionOnFailure": "CONTINUE",
    "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["--password", "s3cr3t"]},
}
ECS = {
    "task_id": "job",
    "cluster": CLUSTER,
    "task_definition": NAME,
    "overrides": {
        "containerOverrides": [{"name": "main", "environment": [{"name": "TOKEN", "value": "s3cr3t"}]}]
    },
    "launch_type": "FARGATE",
    "waiter_delay": 2,
    "retry_delay": timedelta(seconds=1),
}
EMR = {"task_id": "job", "job_flow_name": CLUSTER, "steps": [STEP], "waiter_delay": 2}

with DAG("orphans_ecs", schedule=None, start_date=START):
    EcsRunTaskOperator(**ECS)

with DAG("orphans_ecs_reattach", schedule=None, start_date=START):
    EcsRunTaskOperator(**ECS, on_clear="reattach")

with DAG("orphans_ecs_left", schedule=None, start_date=START):
    EcsRunTaskOperator(**ECS, wait_for_completion=False)

for limit in (90, 400):
    with DAG(f"orphans_ecs_late_{limit}", schedule=None, start_date=START) as late:
        EcsRunTaskOperator(**ECS, execution_timeout=timedelta(seconds=limit), on_timeout="leave")
    globals()[late.dag_id] = late

with DAG("orphans_emr", schedule=None, start_date=START):
    EmrAddStepsOperator(**EMR, wait_for_completion=True)

with DAG("orphans_emr_left", schedule=None, start_date=START):
    EmrAddStepsOperator(**EMR)

with DAG(
    "sweep_one_cluster",
    schedule=None,
    start_date=START,
    params={"emr": [], "cancel": False, "airflow": "this_airflow"},
    render_template_as_native_obj=True,
):
    OrphanSweepOperator(
        task_id="sweep",
        scopes={"ecs": [CLUSTER], "emr_steps": "{{ params.emr }}"},
        airflow_conn_id="{{ params.airflow }}",
        cancel="{{ params.cancel }}",
        grace=timedelta(0),
    )

with DAG("orphans_paused", schedule=None, start_date=START):
    EcsRunTaskOperator(**ECS, retries=1)

# The recipe itself; the test starts it, when there is a connection for it.
for recipe in [value for value in runpy.run_path(str(RECIPE)).values() if isinstance(value, DAG)]:
    recipe.is_paused_upon_creation = True
    globals()[recipe.dag_id] = recipe
