"""For every version of Airflow: one remote job each, named by ``conf["job"]``, and local time."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.providers.common.compat.sdk import DAG, task

from airflow_resilient import EcsRunTaskOperator, EmrAddStepsOperator, local, local_macros

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
NEW_YORK = "America/New_York"
STEP = {
    "Name": "{{ dag_run.conf['job'] }}",
    "ActionOnFailure": "CONTINUE",
    "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["true"]},
}
USUAL = {"retries": 2, "retry_delay": timedelta(seconds=1), "waiter_delay": 2, "pool": "one_slot"}
LIMITED = {**USUAL, "retries": 0, "execution_timeout": timedelta(seconds=25)}

for suffix, args in {"": USUAL, "_limited": LIMITED}.items():
    with DAG(f"short_emr{suffix}", schedule=None, start_date=START, default_args=args) as emr:
        EmrAddStepsOperator(
            task_id="job",
            job_flow_name="etl",
            cluster_states=["WAITING", "RUNNING"],
            steps=[STEP],
            wait_for_completion=True,
        )
    globals()[f"short_emr{suffix}"] = emr

    with DAG(f"short_ecs{suffix}", schedule=None, start_date=START, default_args=args) as ecs:
        EcsRunTaskOperator(
            task_id="job",
            cluster="etl",
            task_definition="{{ dag_run.conf['job'] }}",
            overrides={},
            launch_type="FARGATE",
        )
    globals()[f"short_ecs{suffix}"] = ecs


@task
def show(text):
    return text


@task
def in_python(**context):
    return local(context).ts


with DAG(
    "short_local_time", schedule=None, start_date=START, user_defined_macros=local_macros(NEW_YORK)
) as bound:
    show.override(task_id="plain")("{{ local_ts() }}")
    show.override(task_id="mapped").expand(text=["{{ local_ds() }}", "{{ local_ts(zone='Asia/Kolkata') }}"])
    in_python()

with DAG("short_plugin", schedule=None, start_date=START) as of_the_plugin:
    show.override(task_id="plain")("{{ macros.airflow_resilient.local_ts(zone='America/New_York') }}")
    show.override(task_id="mapped").expand(
        text=["{{ macros.airflow_resilient.utc_offset(zone='Asia/Tokyo') }}"]
    )
