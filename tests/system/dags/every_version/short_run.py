"""For every version of Airflow: one remote job each, named by ``conf["job"]``, and local time."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.providers.common.compat.sdk import DAG, task

from airflow_resilient import EcsRunTaskOperator, EmrAddStepsOperator, LatestOnlyOperator, local, local_macros

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
NEW_YORK = "America/New_York"
STEP = {
    "Name": "{{ dag_run.conf['job'] }}",
    "ActionOnFailure": "CONTINUE",
    "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["true"]},
}
USUAL = {"retries": 2, "retry_delay": timedelta(seconds=1), "waiter_delay": 2, "pool": "one_slot"}
LIMITED = {
    f"_limited_{limit}": {**USUAL, "retries": 0, "execution_timeout": timedelta(seconds=limit)}
    for limit in (25, 100, 400)
}

for suffix, args in {"": USUAL, **LIMITED}.items():
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
def ran():
    return "it ran"


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

# Its one scheduled run was due on New Year's Day; the year is not over, so it is the latest one. Paused until
# its test wants it: other tests kill what runs.
with DAG(
    "short_latest_only",
    schedule="@yearly",
    start_date=START - timedelta(days=366),  # Airflow 2 runs for intervals that have ended
    catchup=False,
    is_paused_upon_creation=True,
):
    for name, lateness in {"latest": None, "late": timedelta(seconds=1)}.items():
        gate = LatestOnlyOperator(task_id=name, max_lateness=lateness)
        gate >> ran.override(task_id=f"after_{name}", trigger_rule="all_done")()
