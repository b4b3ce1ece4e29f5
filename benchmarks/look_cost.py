"""Measure what a look at a large Airflow costs: seconds, requests, and the memory of the whole command.

A real Airflow on PostgreSQL gets 500 DAGs and 200 000 task instances, copies of real rows, of which some
wait, run and are deferred. Beside the look stands what everybody has: one request to ``/monitor/health``.

Usage: ``python benchmarks/look_cost.py [--instances 200000] [--rounds 10]``, with Debian's ``postgresql``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "matrix"))
import servers

from airflow_resilient.operations.airflow_api import AirflowApi
from airflow_resilient.operations.snapshot import look
from airflow_resilient.testing.airflow.local_airflow import LocalAirflow

DAG = """\
from datetime import datetime, timezone
from airflow.providers.common.compat.sdk import DAG, BaseOperator

class Work(BaseOperator):
    def execute(self, context):
        pass

with DAG("etl", schedule="0 5 * * *", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), catchup=False):
    Work(task_id="work")
"""
DAGS = 500
PER_RUN = 1000
STATES = {"queued": 300, "scheduled": 700, "running": 200, "deferred": 500}


def columns(connection: Any, table: str) -> list[str]:
    """Names of the columns of a table."""
    found = connection.exec_driver_sql(
        "SELECT column_name FROM information_schema.columns WHERE table_name = %s AND is_generated = 'NEVER'",
        (table,),
    )
    return [row[0] for row in found]


def copy(connection: Any, table: str, numbers: int, where: str, **changed: str) -> None:
    """Copy one row of a table so many times, with some columns changed; ``n`` counts the copies."""
    names = columns(connection, table)
    values = [changed.get(name, f't."{name}"') for name in names]
    kept = [(name, value) for name, value in zip(names, values, strict=True) if value != "DEFAULT"]
    into = ", ".join(f'"{name}"' for name, _ in kept)
    connection.exec_driver_sql(
        f"INSERT INTO {table} ({into}) SELECT {', '.join(value for _, value in kept)} "  # noqa: S608 - our own
        f"FROM (SELECT * FROM {table} WHERE {where} LIMIT 1) t, generate_series(1, {numbers}) n"
    )


def fill(database: str, instances: int) -> None:
    """Fill the database of an Airflow in which the DAG has run once."""
    from sqlalchemy import create_engine

    runs = instances // PER_RUN
    with create_engine(database).begin() as connection:
        copy(connection, "dag", DAGS - 1, "dag_id = 'etl'", dag_id="'etl_' || n")
        copy(
            connection,
            "dag_run",
            runs,
            "dag_id = 'etl'",
            id="DEFAULT",
            run_id="'copy_' || n",
            logical_date="t.run_after - n * interval '1 hour'",
            state="CASE WHEN n <= 50 THEN 'running' ELSE 'success' END",
        )
        copy(
            connection,
            "task_instance",
            runs * PER_RUN,
            "dag_id = 'etl'",
            id="gen_random_uuid()",
            run_id=f"'copy_' || ((n - 1) / {PER_RUN} + 1)",
            map_index=f"mod(n - 1, {PER_RUN})",
        )
        first = 0
        for state, count in STATES.items():
            connection.exec_driver_sql(
                "UPDATE task_instance SET state = %s, queued_dttm = now(), "
                "updated_at = now() - interval '1 hour' "
                "WHERE map_index >= %s AND map_index < %s AND run_id IN ('copy_1', 'copy_2')",
                (state, first, first + count // 2),
            )
            first += count // 2
        connection.exec_driver_sql("ANALYZE")


def command(url: str) -> tuple[float, float, dict[str, Any]]:
    """The whole command as a process: seconds, megabytes of memory at most, and its JSON."""
    script = (
        "import resource, sys\nfrom airflow_resilient.cli import main\n"
        f"main(['check', '--json', '--airflow-url', {url!r}])\n"
        "sys.stderr.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))"
    )
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={**os.environ}
    )
    seconds = time.perf_counter() - began
    return seconds, float(done.stderr.split()[-1]), json.loads(done.stdout)


def health(url: str) -> float:
    """Seconds of what everybody has."""
    began = time.perf_counter()
    with urllib.request.urlopen(f"{url}/api/v2/monitor/health") as answer:  # noqa: S310 - loopback
        answer.read()
    return time.perf_counter() - began


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, servers.postgresql("look") as database_of:
        (Path(folder) / "etl.py").write_text(DAG)
        database = database_of("look")
        with LocalAirflow(folder, database_url=database, progress=print) as airflow:
            airflow.wait_for("etl", airflow.trigger("etl"), until=["success"])
            for component in airflow.components[1:]:  # they would work on the copies
                airflow.stop(component)
            fill(database, options.instances)
            looks, bare = [], []
            for _ in range(options.rounds):
                with contextlib.closing(AirflowApi(airflow.url)) as api:
                    looks.append(look(api))
                bare.append(health(airflow.url))
            seconds, memory, found = command(airflow.url)
    slowest = max(each.seconds for each in looks)
    median = statistics.median(each.seconds for each in looks)
    print(
        f"{options.instances} task instances, {DAGS} DAGs; waiting, running, deferred: {sum(STATES.values())}"
    )
    print(f"look: median {median:.2f} s, slowest {slowest:.2f} s, {looks[-1].requests} requests")
    print(f"gaps: {looks[-1].gaps}")
    print(f"of one request to /monitor/health: {median / statistics.median(bare):.0f} times")
    print(
        f"command: {seconds:.2f} s, {memory:.0f} MB, findings {[each['kind'] for each in found['findings']]}"
    )


if __name__ == "__main__":
    main()
