"""One remote job each, named by ``conf["job"]``, on the cluster ``conf["cluster"]``.

This file stands in the DAG folder under several names: as ``ours.py``, as ``swept.py`` (the same, beside the
DAG of ``fault_sweep.py``), as ``provider.py``, and under the name of each rule that is broken in a copy of
the library. Only the import differs; every parameter is the same.
"""

from __future__ import annotations

import importlib
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, task
from fault_hooks import hooked, load, runs_here

IMPLEMENTATION = Path(__file__).stem
OURS = {}

load()
if IMPLEMENTATION == "provider":
    from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator
    from airflow.providers.amazon.aws.operators.emr import EmrAddStepsOperator
else:
    whole = IMPLEMENTATION in ("ours", "swept")
    name = "airflow_resilient" if whole else f"airflow_resilient_{IMPLEMENTATION}"
    ours = importlib.import_module(name)
    EcsRunTaskOperator, EmrAddStepsOperator = ours.EcsRunTaskOperator, ours.EmrAddStepsOperator

    class OnItsEngine(ours.DockerOperator):
        """On the fake engine of the case: the parameter itself is not templated."""

        def remote_jobs(self, context):
            self.docker_url = context["dag_run"].conf["engine"]
            return super().remote_jobs(context)

    # AWS forgets within 20 seconds here, where it is two minutes otherwise.
    OURS = {"forgetful": {"poll_policy": ours.PollPolicy(interval=2, lost_after_seconds=20)}}


def emr_request(cluster, job):
    step = {"Jar": "command-runner.jar", "Args": ["true"]}
    return {
        "job_flow_name": cluster,
        "cluster_states": ["WAITING", "RUNNING"],
        "steps": [{"Name": job, "ActionOnFailure": "CONTINUE", "HadoopJarStep": step}],
    }


def ecs_request(cluster, job):
    return {
        "cluster": cluster,
        "task_definition": job,
        "overrides": {},
        "launch_type": "FARGATE",
        "reattach": True,
    }


VARIANTS = {
    "plain": {},
    "forgetful": {},
    "once": {"retries": 0},
    "in_worker": {"deferrable": False},
    "limited_in_worker": {"deferrable": False, "retries": 0, "execution_timeout": timedelta(seconds=60)},
    "limited": {"retries": 0, "execution_timeout": timedelta(seconds=60)},
    "brief_run": {},
    # Connections of their own: what waits for AWS's faults must not slow the others down.
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
            task_id="job", **emr_request("{{ dag_run.conf['cluster'] }}", "{{ dag_run.conf['job'] }}")
        )
    with DAG(f"{IMPLEMENTATION}_ecs_{variant}", schedule=None, **settings) as ecs:
        hooked(EcsRunTaskOperator)(
            task_id="job", **ecs_request("{{ dag_run.conf['cluster'] }}", "{{ dag_run.conf['job'] }}")
        )
    globals()[emr.dag_id], globals()[ecs.dag_id] = emr, ecs
    if IMPLEMENTATION == "provider":
        continue
    with DAG(f"{IMPLEMENTATION}_docker_{variant}", schedule=None, **settings) as docker:
        hooked(OnItsEngine)(
            task_id="job",
            image="{{ dag_run.conf['job'] }}:latest",
            mount_tmp_dir=False,
        )
    globals()[docker.dag_id] = docker

# Three jobs, one after the other, by operators that a Python task calls.
POLLS = {"wait_for_completion": True, "waiter_delay": 2, "waiter_max_attempts": 900}


def calls_in_a_loop(kind, request):
    @task(task_id="job", retries=2, retry_delay=timedelta(seconds=1))
    def loop(**context):
        conf = context["dag_run"].conf
        runs_here(conf["job"])
        for number in range(3):
            made = kind(task_id=f"part_{number}", **request(conf["cluster"], conf["job"]), **POLLS)
            made.execute(context)

    loop()


with DAG(f"{IMPLEMENTATION}_emr_loop", schedule=None, max_active_runs=1000) as emr_loop:
    calls_in_a_loop(EmrAddStepsOperator, emr_request)
with DAG(f"{IMPLEMENTATION}_ecs_loop", schedule=None, max_active_runs=1000) as ecs_loop:
    calls_in_a_loop(EcsRunTaskOperator, ecs_request)
