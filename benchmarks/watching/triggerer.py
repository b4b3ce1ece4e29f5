"""Thousand waits in a real triggerer: ours, then the provider's.

A real Airflow (`LocalAirflow`) makes a DAG run of as many mapped task instances; a pool without slots keeps
them from workers. Then a script writes into Airflow's database what a worker writes when a task instance
defers: the trigger's row, and the state. All else is stopped, and the triggerer's processes are measured from
outside. For a restart, the triggerer is stopped, too, before the task instances defer, and then started.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from watching.cases import WIDE_BUDGET
from watching.figures import spread, within
from watching.one import Case, control_now, packed_arguments, trigger_class

JOBS = 1000
EMR_CLUSTERS = 20
SETTLE, STEADY, ENDS_OVER, MAX_WAIT, MAX_START = 10.0, 30.0, 10.0, 120.0, 300.0
_BLOCKED = r"async thread was blocked for ([0-9.]+) seconds"
"""Source: ``TriggerRunner.block_watchdog`` in ``airflow/jobs/triggerer_job_runner.py``."""

_DAG = """
from airflow.sdk import DAG, BaseOperator

class Waits(BaseOperator):
    def __init__(self, number, **kwargs):
        super().__init__(**kwargs)
        self.number = number

    def execute(self, context):
        raise RuntimeError("there is no slot for this")

    def execute_complete(self, context, event):
        return None

with DAG("waits", schedule=None, catchup=False):
    Waits.partial(task_id="wait", pool="nobody").expand(number=list(range(JOBS)))
"""
_DEFER = """
import json, sys
from sqlalchemy import select
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.utils.session import create_session
reported = json.load(sys.stdin)
with create_session() as session:
    found = session.scalars(select(TaskInstance).where(TaskInstance.dag_id == "waits"))
    instances = {each.map_index: each for each in found}
    for index, arguments in reported["arguments"].items():
        trigger = Trigger(reported["classpath"], arguments)
        session.add(trigger)
        session.flush()
        instance = instances[int(index)]
        instance.trigger_id = trigger.id
        instance.try_number = 1
        instance.next_method = "execute_complete"
        instance.state = "deferred"
"""


def measure_all(endpoint: Callable[[Any], Any], what: str = "triggerer") -> dict[str, Any]:
    """Measure both.

    :param endpoint: makes the context that runs the fake endpoint.
    :param what: ``"triggerer"``: waits come to one that runs; ``"restart"``: it starts and finds them;
        ``"restart, EMR"``: the same with EMR steps.
    """
    measured = {}
    for who in ("ours", "provider"):
        case = Case(who, "emr", JOBS, EMR_CLUSTERS) if what.endswith("EMR") else Case(who, "ecs", JOBS, 1)
        measured[who] = measure(case, endpoint, what)
        print(what, who, json.dumps(measured[who]), flush=True)
    return measured


def measure(case: Case, endpoint: Callable[[Any], Any], what: str = "triggerer") -> dict[str, Any]:
    """Measure one."""
    from airflow_resilient.testing.airflow.local_airflow import LocalAirflow

    with contextlib.ExitStack() as stack:
        dags = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (dags / "waits.py").write_text(_DAG.replace("JOBS", str(case.jobs)))
        settings = {"service": case.service, "jobs": case.jobs, "clusters": case.clusters}
        aws = stack.enter_context(endpoint(settings))
        connection = {
            "conn_type": "aws",
            "login": "AKIAFAKE",
            "password": "not-a-secret",
            "extra": {"region_name": "us-east-1", "endpoint_url": f"http://127.0.0.1:{aws.port}"},
        }
        airflow = stack.enter_context(
            LocalAirflow(
                dags=dags,
                connections={"aws_default": connection},
                pools={"nobody": 0},
                config={("airflow_resilient", "namespace"): "benchmark"},
                environment={"PYTHONPATH": os.environ.get("PYTHONPATH", ""), **WIDE_BUDGET},
            )
        )
        airflow.wait_for_dag("waits")
        airflow.trigger("waits")
        database = Path(airflow.environment["AIRFLOW_HOME"]) / "airflow.db"
        airflow.wait_until(
            lambda: len(_instances(database, "scheduled")) == case.jobs, 120, what="all are scheduled"
        )
        for component in ("scheduler", "dag-processor"):
            if component in airflow.components:
                airflow.stop(component)
        measure_it = _measure_restart if what.startswith("restart") else _measure
        return measure_it(case, aws.port, airflow, database)


def _defer(case: Case, airflow: Any, jobs: range) -> None:
    """Write what a worker writes when these task instances defer."""
    klass: Any = trigger_class(case)
    arguments = {job: json.loads(packed_arguments(case, job)) for job in jobs}
    reported = {"classpath": f"{klass.__module__}.{klass.__qualname__}", "arguments": arguments}
    subprocess.run(
        [airflow.python, "-c", _DEFER],
        check=True,
        input=json.dumps(reported),
        text=True,
        env=airflow.environment,
        stdout=subprocess.DEVNULL,
    )


def _told(database: Path) -> dict[int, float]:
    """When Airflow knew of the events, after the jobs were reported to end."""
    until = time.time() + 1.0 + ENDS_OVER + MAX_WAIT
    while _instances(database, "deferred") and time.time() < until:
        time.sleep(0.5)
    return _instances(database, "scheduled")


def _measure_restart(case: Case, port: int, airflow: Any, database: Path) -> dict[str, Any]:
    """Stop the triggerer, let all defer, and start it: as after a deploy, it finds all waits there."""
    airflow.stop("triggerer")
    began = time.time()
    airflow.start("triggerer")
    idle_start, pid = time.time() - began, airflow.pid("triggerer")
    idle_cpu = _cpu(pid)
    time.sleep(SETTLE)
    idle_memory = _memory_kb(pid)
    airflow.stop("triggerer")
    _defer(case, airflow, range(case.jobs))
    began = time.time()
    airflow.start("triggerer")
    pid = airflow.pid("triggerer")
    polled = control_now(port, "wait", MAX_START)
    start_cpu = _cpu(pid)
    time.sleep(SETTLE)
    memory = _memory_kb(pid) - idle_memory
    ends = control_now(port, "end", 60.0, at=time.time() + 1.0, over=ENDS_OVER)["ends"]
    reported = _told(database)
    blocked = re.findall(_BLOCKED, airflow.log("triggerer", 1_000_000))
    return {
        "jobs": case.jobs,
        "all_looked_at_s": polled["last"] - began if polled["asked"] == case.jobs else None,
        "idle_start_s": idle_start,
        "start_cpu_s": start_cpu,
        "idle_start_cpu_s": idle_cpu,
        "kb_per_wait": memory / case.jobs,
        "blocked_s": max(map(float, blocked), default=0.0),
        "delay_s": spread([reported[job] - ends[job] for job in reported]),
        "lost": case.jobs - len(reported),
        "early": sum(reported[job] < ends[job] for job in reported),
    }


def _measure(case: Case, port: int, airflow: Any, database: Path) -> dict[str, Any]:
    pid = airflow.pid("triggerer")
    _defer(case, airflow, range(1))  # what is loaded once is no part of the cost of a wait
    control_now(port, "wait", 60.0, warm=0)
    time.sleep(3)
    cpu = _cpu(pid)
    time.sleep(15)
    idle, before = (_cpu(pid) - cpu) * 4, _memory_kb(pid)
    cpu = _cpu(pid)
    _defer(case, airflow, range(1, case.jobs))
    began = time.time()
    polled = control_now(port, "wait", MAX_START)
    start_cpu = _cpu(pid) - cpu
    time.sleep(SETTLE)
    steady_from, cpu = time.time(), _cpu(pid)
    time.sleep(STEADY)
    steady_to, steady_cpu = time.time(), _cpu(pid) - cpu
    memory = _memory_kb(pid) - before
    ends = control_now(port, "end", 60.0, at=time.time() + 1.0, over=ENDS_OVER)["ends"]
    reported = _told(database)
    calls = [when for when, _, _ in control_now(port, "report", 60.0)["calls"]]
    steady_calls = within(calls, steady_from, steady_to) / STEADY * 60
    return {
        "jobs": case.jobs,
        "all_looked_at_s": polled["last"] - began if polled["asked"] == case.jobs else None,
        "start_cpu_s": start_cpu,
        "idle_cpu_s_per_minute": idle,
        "cpu_s_per_minute": steady_cpu / (steady_to - steady_from) * 60,
        "kb_per_wait": memory / (case.jobs - 1),
        "calls_per_wait_and_minute": steady_calls / case.jobs,
        "delay_s": spread([reported[job] - ends[job] for job in reported]),
        "lost": case.jobs - len(reported),
        "early": sum(reported[job] < ends[job] for job in reported),
    }


def _instances(database: Path, state: str) -> dict[int, float]:
    """When the task instances in a state came into it, by their number."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
        rows = connection.execute(
            "select map_index, updated_at from task_instance where state = ? and map_index >= 0", (state,)
        )
        return {index: _moment(at) for index, at in rows}


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


def _processes(pid: int) -> list[Any]:
    import psutil

    whole = psutil.Process(pid)
    return [whole, *whole.children(recursive=True)]


def _cpu(pid: int) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in _processes(pid))


def _memory_kb(pid: int) -> float:
    return sum(process.memory_full_info().pss for process in _processes(pid)) / 1024
