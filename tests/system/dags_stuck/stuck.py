"""Runs that end while a task instance of them is queued, and one that waits for the slot that it occupies."""

from __future__ import annotations

from datetime import datetime, timezone

from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_resilient import wait_at_most

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
SOON = [wait_at_most("5s")]


class Nothing(BaseOperator):
    """Ends well at once. (Airflow ends an EmptyOperator without a worker.)"""

    def execute(self, context):
        pass


class Fails(BaseOperator):
    """Ends badly at once."""

    def execute(self, context):
        raise ValueError("no")


with DAG("ghost_of_a_success", schedule=None, start_date=START, tags=SOON):
    Nothing(task_id="ghost", pool="one_slot") >> Nothing(task_id="after")

with DAG("ghost_of_a_failure", schedule=None, start_date=START, tags=SOON):
    [Nothing(task_id="ghost", pool="one_slot"), Fails(task_id="fails")] >> Nothing(task_id="after")

with DAG("waits_for_the_slot", schedule=None, start_date=START, tags=SOON):
    Nothing(task_id="work", pool="one_slot")
