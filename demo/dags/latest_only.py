"""Airflow's LatestOnlyOperator beside LatestOnlyIntervalOperator, a run every twenty seconds.

``demo/latest_only.py`` fills in when it starts.
"""

from datetime import datetime, timedelta
from time import sleep

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.latest_only import LatestOnlyOperator
from airflow.sdk import DAG, task

from airflow_resilient import LatestOnlyIntervalOperator

START = datetime.fromisoformat("2026-01-01T00:00:00+00:00")


def gates(before: object = None) -> None:
    """Make the three gates and something after each; all of them come after ``before``."""
    found = [
        LatestOnlyOperator(task_id="theirs"),
        LatestOnlyIntervalOperator(task_id="in_time", max_lateness=timedelta(seconds=20)),
        LatestOnlyIntervalOperator(task_id="each_minute", every=timedelta(minutes=1)),
    ]
    for gate in found:
        if before:
            before >> gate
        gate >> EmptyOperator(task_id=f"after_{gate.task_id}")


SETTINGS = {
    "schedule": timedelta(seconds=20),
    "start_date": START,
    "catchup": True,
    "is_paused_upon_creation": True,
}

with DAG("slow", max_active_runs=4, **SETTINGS):

    @task
    def work() -> None:
        """Take longer than the interval between two runs."""
        sleep(22)

    gates(before=work())

with DAG("outage", max_active_runs=16, **SETTINGS):
    gates()
