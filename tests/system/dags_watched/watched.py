"""What a watched Airflow runs: a DAG every minute that must not overlap, and some that get stuck.

A task with a gate runs until its file is there.
"""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_resilient import wait_at_most

GATES = Path(os.environ["WATCHED_GATES"])
START = datetime(2026, 1, 1, tzinfo=timezone.utc)


class Nothing(BaseOperator):
    """Ends well at once. (Airflow ends an EmptyOperator without a worker.)"""

    def execute(self, context):
        pass


class UntilGate(BaseOperator):
    """Runs until a file is there."""

    def __init__(self, *, gate: str, **kwargs) -> None:
        super().__init__(**kwargs)
        self.gate = gate

    def execute(self, context):
        while not (GATES / self.gate).exists():
            time.sleep(0.2)


class Deferred(BaseOperator):
    """Waits in the triggerer, for longer than any test."""

    def execute(self, context, event=None):
        try:
            from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
        except ImportError:  # Airflow 2
            from airflow.triggers.temporal import TimeDeltaTrigger
        self.defer(trigger=TimeDeltaTrigger(timedelta(hours=9)), method_name="execute")


# Its runs last longer than its interval: what is due meanwhile does not exist on purpose.
with DAG("every_minute", schedule="* * * * *", start_date=START, catchup=False, max_active_runs=1):
    UntilGate(task_id="work", gate="every_minute")

with DAG("without_pool", schedule=None, start_date=START):
    Nothing(task_id="work", pool="made_later")

with DAG("in_a_full_pool", schedule=None, start_date=START, tags=[wait_at_most("5s")]):
    UntilGate(task_id="first", gate="full", pool="one_slot", priority_weight=9)
    Nothing(task_id="second", pool="one_slot", priority_weight=1)

with DAG("paused_in_the_middle", schedule=None, start_date=START):
    UntilGate(task_id="first", gate="paused") >> Nothing(task_id="second")

with DAG("deferred", schedule=None, start_date=START):
    Deferred(task_id="wait")
