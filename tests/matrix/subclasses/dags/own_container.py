"""A method that only the provider's operator calls, and which adds something to the container."""

import os

from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk import DAG


class GpuOperator(DockerOperator):
    def _run_image_with_mounts(self, target_mounts, add_tmp_variable):
        self.environment["NVIDIA_VISIBLE_DEVICES"] = "all"
        return super()._run_image_with_mounts(target_mounts, add_tmp_variable)


with DAG(dag_id="own_container", schedule=None):
    GpuOperator(
        task_id="train",
        image="local/busybox:1",
        command=["echo", "trained"],
        docker_url=os.environ["ENGINE"],
        network_mode="none",
        mount_tmp_dir=False,
    )
