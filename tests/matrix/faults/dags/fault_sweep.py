"""The maintenance DAG of the recipe about orphans, every few seconds instead of every hour.

It cancels the orphans of the clusters in ``FAULT_SWEEP`` and of no others.
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG

from airflow_resilient import OrphanSweepOperator

with DAG(
    "find_orphans",
    schedule=timedelta(seconds=10),
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
):
    OrphanSweepOperator(
        task_id="sweep",
        airflow_conn_id="this_airflow",
        scopes=json.loads(os.environ["FAULT_SWEEP"]),
        cancel=True,
        grace=timedelta(seconds=5),
    )
