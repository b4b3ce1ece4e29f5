"""An executor that loses what it is given: of some DAGs the first task instance, of others each one.

It stands for a worker or a broker that loses a message: Airflow believes that the task instance is queued.
"""

from __future__ import annotations

import os

from airflow.executors.local_executor import LocalExecutor


class ForgetfulExecutor(LocalExecutor):
    """``LOSES_ONCE`` and ``LOSES_ALL`` in the environment are tasks, as ``DAG.TASK``, with commas between."""

    def _loses(self, key) -> bool:
        task = f"{key.dag_id}.{key.task_id}"
        once = self.__dict__.setdefault("left_to_lose", set(os.environ["LOSES_ONCE"].split(",")))
        if task in once:
            once.remove(task)
            return True
        return task in os.environ["LOSES_ALL"].split(",")

    def _process_workloads(self, workload_list):  # Airflow 3
        lost = [each for each in workload_list if hasattr(each, "ti") and self._loses(each.ti.key)]
        for each in lost:
            self.queued_tasks.pop(each.ti.key)
        kept = [each for each in workload_list if each not in lost]
        if kept:
            super()._process_workloads(kept)

    def execute_async(self, key, *args, **kwargs):  # Airflow 2
        if not self._loses(key):
            super().execute_async(key, *args, **kwargs)
