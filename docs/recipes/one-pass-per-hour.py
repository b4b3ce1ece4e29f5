"""A DAG that runs every five minutes, and branches of it that run once an hour or once a day."""

from datetime import datetime, timedelta, timezone

from airflow.providers.common.compat.sdk import DAG, task

from airflow_resilient import LatestOnlyIntervalOperator, is_latest

SETTINGS = {
    "start_date": datetime(2026, 1, 1, tzinfo=timezone.utc),
    "catchup": False,
}

# START gates
with DAG("one_pass_per_hour", schedule="*/5 * * * *", **SETTINGS):

    @task
    def load() -> None:
        """Run every five minutes."""

    @task
    def rebuild_cube() -> None:
        """Cost a lot: once an hour is enough."""

    @task
    def send_report() -> None:
        """Go out once a day, by the calendar of New York."""

    loaded = load()
    hourly = LatestOnlyIntervalOperator(task_id="hourly", every=timedelta(hours=1))
    daily = LatestOnlyIntervalOperator(task_id="daily", every=timedelta(days=1), timezone="America/New_York")
    loaded >> hourly >> rebuild_cube()
    loaded >> daily >> send_report()
# END gates

# START taskflow
with DAG("one_pass_per_hour_with_taskflow", schedule="*/5 * * * *", **SETTINGS):

    @task.short_circuit
    def hourly_only() -> bool:
        """Skip what comes after it, but for one run in each hour."""
        return is_latest(every=timedelta(hours=1))

    @task
    def rebuild() -> None:
        """Cost a lot."""

    @task.run_if(lambda context: is_latest(context, every=timedelta(days=1), timezone="America/New_York"))
    @task
    def report() -> None:
        """Run in one run of each day, without a task before it."""

    hourly_only() >> rebuild()
    report()
# END taskflow
