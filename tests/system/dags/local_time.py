"""Templates and Python code that show local time."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from airflow.sdk import DAG, Asset, task

from airflow_resilient import local, local_filters, local_macros

NEW_YORK = "America/New_York"
START = datetime(2026, 1, 1, tzinfo=timezone.utc)
DONE = Asset("local-time-done")
TEXTS = ["{{ local_ds() }}", "{{ local_ts(zone='Asia/Kolkata') }}", "{{ dag_run.run_after | local_ts }}"]


def after_the_task(context):
    print("callback of the task:", local(context).ts)


def after_the_run(context):
    path = (context["dag_run"].conf or {}).get("path")
    if path:
        Path(path).write_text(local(context).ts)


@task
def show(text):
    return text


@task(on_success_callback=after_the_task)
def in_python(**context):
    assert local().ts == local(context).ts
    return local(context).ts


with DAG(
    "local_time",
    schedule=None,
    start_date=START,
    user_defined_macros=local_macros(NEW_YORK),
    user_defined_filters=local_filters(NEW_YORK),
    on_success_callback=after_the_run,
) as bound:
    show.override(task_id="plain")("{{ local_ts() }}") >> in_python()
    show.override(task_id="mapped").expand(text=TEXTS)
    show.override(task_id="done", outlets=[DONE])("{{ local_day_hours() }}")

with DAG(
    "local_time_native",
    schedule=None,
    start_date=START,
    render_template_as_native_obj=True,
    user_defined_macros=local_macros(NEW_YORK),
) as native:
    show.override(task_id="hours")("{{ local_day_hours() }}")

with DAG(
    "local_time_after_an_asset", schedule=[DONE], user_defined_macros=local_macros(NEW_YORK)
) as after_an_asset:
    show.override(task_id="plain")("{{ local_ts() }}")

with DAG("local_time_plugin", schedule=None, start_date=START) as of_the_plugin:
    show.override(task_id="plain")("{{ macros.airflow_resilient.local_ts(zone='America/New_York') }}")
    show.override(task_id="mapped").expand(
        text=[
            "{{ macros.airflow_resilient.local_ts() }}",
            "{{ macros.airflow_resilient.utc_offset(zone='Asia/Tokyo') }}",
        ]
    )
