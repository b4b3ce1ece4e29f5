"""Tools for tests of DAGs and services; each name is imported at its first use."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_resilient.testing.airflow.local_airflow import LocalAirflow
    from airflow_resilient.testing.aws.account import FakeAws
    from airflow_resilient.testing.contract import RemoteJobsContract
    from airflow_resilient.testing.docker.fake_docker import FakeDocker
    from airflow_resilient.testing.docker.local_docker import LocalDocker
    from airflow_resilient.testing.in_memory_jobs import InMemoryJobs
    from airflow_resilient.testing.task_tries import TaskTries

__all__ = [
    "FakeAws",
    "FakeDocker",
    "InMemoryJobs",
    "LocalAirflow",
    "LocalDocker",
    "RemoteJobsContract",
    "TaskTries",
]

_HOMES = {
    "FakeAws": "airflow_resilient.testing.aws.account",
    "FakeDocker": "airflow_resilient.testing.docker.fake_docker",
    "InMemoryJobs": "airflow_resilient.testing.in_memory_jobs",
    "LocalAirflow": "airflow_resilient.testing.airflow.local_airflow",
    "LocalDocker": "airflow_resilient.testing.docker.local_docker",
    "RemoteJobsContract": "airflow_resilient.testing.contract",
    "TaskTries": "airflow_resilient.testing.task_tries",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        if name == "RemoteJobsContract" and "pytest" in sys.modules and _HOMES[name] not in sys.modules:
            sys.modules["pytest"].register_assert_rewrite(_HOMES[name])  # so that failures show values
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
