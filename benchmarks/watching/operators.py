"""What an operator costs before anybody waits: a DAG file's parse, and ``execute`` up to ``defer``.

Each measurement is a process of its own, ours and the provider's in turn, as medians. ``execute`` talks
to moto in the same process, so what AWS would take is moto's time; it is measured and shown separately.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from typing import Any

ROUNDS = 5
_IMPORT = {
    "ours": "from airflow_resilient import EcsRunTaskOperator",
    "provider": "from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator",
}
_PARSE = """
import gc, json, time
import airflow.sdk
gc.collect(); gc.freeze()  # as Airflow's DAG processor does; else its collection falls in somewhere
begin = time.perf_counter()
{imports}
imported = time.perf_counter()
from airflow.sdk import DAG
with DAG("d"):
    for number in range(100):
        EcsRunTaskOperator(task_id=f"t{{number}}", cluster="etl", task_definition="nightly",
                           overrides={{}}, deferrable=True)
made = time.perf_counter()
print(json.dumps({{"import_ms": (imported - begin) * 1000, "operators_ms": (made - imported) * 1000}}))
"""
_EXECUTE = """
import gc, json, logging, time, types, datetime
from unittest.mock import MagicMock
import airflow.sdk
{imports}
from airflow.exceptions import TaskDeferred
from airflow_resilient.testing import FakeAws
logging.disable(logging.CRITICAL)
spent = 0.0
with FakeAws() as aws:
    aws.make_ecs_cluster("etl")
    aws.make_task_definition("nightly")
    aws.ecs.plan(seconds=None)
    import botocore.endpoint
    send = botocore.endpoint.Endpoint._get_response
    def counted(self, *arguments, **named):
        global spent
        begin = time.perf_counter()
        try:
            return send(self, *arguments, **named)
        finally:
            spent += time.perf_counter() - begin
    botocore.endpoint.Endpoint._get_response = counted
    gc.collect(); gc.freeze()  # as the local and the Celery executor do before they fork
    times = []
    for number in range(11):
        now = datetime.datetime.now(datetime.timezone.utc)
        ti = MagicMock(dag_id="d", run_id="r", task_id=f"t{{number}}", map_index=-1, try_number=1,
                       max_tries=0, start_date=now)
        ti.xcom_pull.return_value = None
        run = types.SimpleNamespace(start_date=now, run_id="r", logical_date=now, run_after=now, conf={{}})
        context = {{"ti": ti, "task_instance": ti, "dag_run": run, "run_id": "r"}}
        operator = EcsRunTaskOperator(task_id=f"t{{number}}", cluster="etl", task_definition="nightly",
                                      overrides={{}}, deferrable=True, aws_conn_id=None,
                                      region_name="us-east-1")
        spent, before = 0.0, sum(aws.calls.values())
        begin = time.perf_counter()
        try:
            operator.execute(context)
        except TaskDeferred:
            took = (time.perf_counter() - begin) * 1000
            times.append((took, spent * 1000, sum(aws.calls.values()) - before))
print(json.dumps({{"first_ms": times[0][0], "first_aws_ms": times[0][1],
                  "next_ms": sorted(each[0] for each in times[1:])[5],
                  "next_aws_ms": sorted(each[1] for each in times[1:])[5], "calls": times[1][2]}}))
"""


def _run_script(script: str, who: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [sys.executable, "-c", script.format(imports=_IMPORT[who])],
            check=True,
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "PYTHONWARNINGS": "ignore",
                "AIRFLOW_HOME": home,
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                "AIRFLOW__AIRFLOW_RESILIENT__NAMESPACE": "benchmark",
            },
        )
    reported: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return reported


def measure(rounds: int = ROUNDS) -> dict[str, Any]:
    """Medians, in milliseconds, by measurement and by who."""
    measured: dict[str, Any] = {}
    for name, script in (("parse", _PARSE), ("execute", _EXECUTE)):
        for who in _IMPORT:  # compile byte code and warm the disk's cache
            _run_script(script, who)
        reported = [{who: _run_script(script, who) for who in _IMPORT} for _ in range(rounds)]
        measured[name] = {
            who: {key: statistics.median(each[who][key] for each in reported) for key in reported[0][who]}
            for who in _IMPORT
        }
        print(name, json.dumps(measured[name]))
    return measured
