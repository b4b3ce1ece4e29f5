"""A DAG that runs every five minutes and whose late runs are useless."""

from datetime import datetime, timedelta, timezone

from airflow.providers.common.compat.sdk import DAG, task

# START same name
# from airflow.providers.standard.operators.latest_only import LatestOnlyOperator
from airflow_resilient import LatestOnlyIntervalOperator, LatestOnlyOperator

# END same name

# START dag
with DAG(
    "a_five_minute_dag_that_must_not_pile_up",
    schedule="*/5 * * * *",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=True,  # each interval has its run, also if it is skipped
    max_active_runs=2,
):
    in_time = LatestOnlyIntervalOperator(task_id="in_time", max_lateness=timedelta(minutes=10))

    @task
    def fetch_prices() -> None:
        """Fetch what is of interest now, and of none in an hour."""

    @task
    def publish() -> None:
        """Show it."""

    @task(trigger_rule="none_failed")
    def count_runs() -> None:
        """Run in every run, skipped or not."""

    published = publish()
    in_time >> fetch_prices() >> published >> count_runs()
# END dag

# START latest
with DAG(
    "report_of_the_latest_run",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
):

    @task
    def report() -> None:
        """Send the report of the latest day, and of no other."""

    LatestOnlyOperator(task_id="latest_only") >> report()
# END latest
