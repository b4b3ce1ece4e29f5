"""Containers that keep running when the worker that started them is restarted."""

from datetime import datetime, timedelta, timezone

from airflow.providers.common.compat.sdk import DAG

# START import
# from airflow.providers.docker.operators.docker import DockerOperator
from airflow_resilient import DockerOperator

# END import

# START defaults
DEFAULTS = {
    "retries": 2,
    "retry_delay": timedelta(seconds=10),  # a retry takes over a container that runs, so it may come soon
    "execution_timeout": timedelta(hours=2),  # of one try, over all deferrals
    "auto_remove": "success",  # a failed container is kept for inspection
}
# END defaults

with DAG(
    dag_id="containers_that_survive_a_workers_restart",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    default_args=DEFAULTS,
):
    # START task
    export = DockerOperator(
        task_id="export",
        image="etl:7",
        command=["sh", "-c", "for part in 1 2 3 4 5; do echo part $part of {{ run_id }}; sleep 2; done"],
    )
    # END task

    # START load
    load = DockerOperator(
        task_id="load",
        image="etl:7",
        command=["sh", "-c", "test -n \"$PASSWORD\" && echo loaded {{ ti.xcom_pull('export') }}"],
        private_environment={"PASSWORD": "from a secrets backend"},
        mem_limit="512m",
        skip_on_exit_code=99,  # this code means: nothing to load
    )
    # END load

    export >> load
