"""One remote job each, named by ``conf["job"]``, on the cluster ``conf["cluster"]``.

This file stands in the DAG folder under several names: as ``ours.py``, as ``provider.py``, and under the name
of each rule that is broken in a copy of the library.  Only the import differs; every parameter is the same.
"""

from __future__ import annotations

import importlib
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG
from fault_hooks import hooked, load

IMPLEMENTATION = Path(__file__).stem
OURS = {}

load()
if IMPLEMENTATION == "provider":
    from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator
    from airflow.providers.amazon.aws.operators.emr import EmrAddStepsOperator
else:
    name = "airflow_resilient" if IMPLEMENTATION == "ours" else f"airflow_resilient_{IMPLEMENTATION}"
    ours = importlib.import_module(name)
    EcsRunTaskOperator, EmrAddStepsOperator = ours.EcsRunTaskOperator, ours.EmrAddStepsOperator
    # AWS forgets within 20 seconds here, where it is two minutes otherwise.
    OURS = {"forgetful": {"patience": ours.Patience(poll=2, missing_for=20)}}

VARIANTS = {
    "plain": {},
    "forgetful": {},
    "once": {"retries": 0},
    "limited": {"retries": 0, "execution_timeout": timedelta(seconds=60)},
    "brief_run": {},
    # Connections of their own: what waits for AWS's trouble must not slow the others down.
    "throttled": {"aws_conn_id": "aws_throttled"},
    "broken": {"aws_conn_id": "aws_broken"},
    "denied": {"aws_conn_id": "aws_denied"},
}
RUNS = {"brief_run": {"dagrun_timeout": timedelta(hours=1)}}

for variant, arguments in VARIANTS.items():
    defaults = {
        "retries": 2,
        "retry_delay": timedelta(seconds=1),
        "deferrable": True,
        "wait_for_completion": True,
        "waiter_delay": 2,
        "waiter_max_attempts": 900,
        **arguments,
        **OURS.get(variant, {}),
    }
    settings = {
        "default_args": defaults,
        "max_active_runs": 1000,
        "max_active_tasks": 1000,
        **RUNS.get(variant, {}),
    }
    with DAG(f"{IMPLEMENTATION}_emr_{variant}", schedule=None, **settings) as emr:
        hooked(EmrAddStepsOperator)(
            task_id="job",
            job_flow_name="{{ dag_run.conf['cluster'] }}",
            cluster_states=["WAITING", "RUNNING"],
            steps=[
                {
                    "Name": "{{ dag_run.conf['job'] }}",
                    "ActionOnFailure": "CONTINUE",
                    "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["true"]},
                }
            ],
        )
    with DAG(f"{IMPLEMENTATION}_ecs_{variant}", schedule=None, **settings) as ecs:
        hooked(EcsRunTaskOperator)(
            task_id="job",
            cluster="{{ dag_run.conf['cluster'] }}",
            task_definition="{{ dag_run.conf['job'] }}",
            overrides={},
            launch_type="FARGATE",
            reattach=True,
        )
    globals()[emr.dag_id], globals()[ecs.dag_id] = emr, ecs
