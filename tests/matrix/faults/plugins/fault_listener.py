"""A gate behind the last thing that a task's process does for its deferral: it has been stored.

It also imports what the DAG files import, so that the scheduler has it and its workers, which are forks, need
not import it for each task: half of a task's time on a busy machine.
"""

import boto3  # noqa: F401
import fault_hooks
from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

import airflow_resilient.services.docker.client
import airflow_resilient.services.ecs.client
import airflow_resilient.services.emr_steps.client  # noqa: F401


class Listener:
    """Airflow calls it in every process that stops."""

    @hookimpl
    def before_stopping(self, component):
        fault_hooks.gate("deferred")


class FaultListener(AirflowPlugin):
    """Where Airflow finds it."""

    name = "fault_listener"
    listeners = [Listener()]  # noqa: RUF012 - Airflow's own spelling
