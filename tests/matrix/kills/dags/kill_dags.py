"""One container each, which counts lines for ``conf["lines"]`` of its try; only the import differs.

This file stands in the DAG folder as ``ours.py``, ``provider.py`` and ``named.py``.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG

IMPLEMENTATION = Path(__file__).stem
if IMPLEMENTATION == "ours":
    from airflow_resilient import DockerOperator
else:
    from airflow.providers.docker.operators.docker import DockerOperator

# Five lines a second; the container's host name tells whose they are.  It listens to SIGTERM, as servers do.
SCRIPT = (
    "trap 'exit 0' TERM; i=0; while [ $i -lt {{ dag_run.conf['lines'][ti.try_number > 1] }} ];"
    " do echo line $HOSTNAME $i; i=$((i+1)); sleep 0.2; done"
)
NAME = {"container_name": "kill-{{ run_id }}"} if IMPLEMENTATION == "named" else {}
ENGINE = os.environ["KILLS_DOCKER"]
ONCE_MORE = {"retries": 1, "retry_delay": timedelta(seconds=2)}
VARIANTS = {
    "plain": {**ONCE_MORE, "docker_url": ENGINE},
    # The answer to the start of its first container is held back until the task has been hit.
    "held": {**ONCE_MORE, "docker_url": os.environ["KILLS_RELAY"]},
    # Seconds from the start of the try: a busy machine may need many until there is a container.
    **{
        f"limited_{limit}": {
            "retries": 0,
            "execution_timeout": timedelta(seconds=limit),
            "docker_url": ENGINE,
        }
        for limit in (15, 60, 240)
    },
}

for variant, parameters in VARIANTS.items():
    with DAG(dag_id=f"{IMPLEMENTATION}_{variant}", schedule=None):
        DockerOperator(
            task_id="work",
            image="local/busybox:1",
            command=["sh", "-c", SCRIPT],
            environment={"CASE": "{{ run_id }}"},
            network_mode="none",
            auto_remove="success",
            mount_tmp_dir=False,
            **NAME,
            **parameters,
        )
