"""A maintenance DAG: every hour it finds orphans, and cancels them if its parameter `cancel` is set."""

from datetime import datetime, timedelta, timezone

from airflow.providers.common.compat.sdk import DAG

from airflow_resilient import OrphanSweepOperator

# START maintenance
with DAG(
    "find_orphans",
    schedule="@hourly",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    params={"cancel": False, "grace": 600},
    render_template_as_native_obj=True,  # so that "{{ params.cancel }}" is a bool
    max_active_runs=1,
) as find_orphans:
    OrphanSweepOperator(
        task_id="sweep",
        airflow_conn_id="this_airflow",
        cancel="{{ params.cancel }}",
        grace="{{ params.grace }}",
        execution_timeout=timedelta(minutes=30),
    )
# END maintenance
