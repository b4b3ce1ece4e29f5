"""What users of the library test their DAGs and services with; each name is imported when first used."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_resilient.testing.contract import RemoteJobsContract
    from airflow_resilient.testing.fake_aws import FakeAws
    from airflow_resilient.testing.fake_docker import FakeDocker
    from airflow_resilient.testing.local_airflow import LocalAirflow
    from airflow_resilient.testing.local_docker import LocalDocker
    from airflow_resilient.testing.memory import InMemoryJobs
    from airflow_resilient.testing.tries import TaskTries

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
    "FakeAws": "airflow_resilient.testing.fake_aws",
    "FakeDocker": "airflow_resilient.testing.fake_docker",
    "InMemoryJobs": "airflow_resilient.testing.memory",
    "LocalAirflow": "airflow_resilient.testing.local_airflow",
    "LocalDocker": "airflow_resilient.testing.local_docker",
    "RemoteJobsContract": "airflow_resilient.testing.contract",
    "TaskTries": "airflow_resilient.testing.tries",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        if name == "RemoteJobsContract" and "pytest" in sys.modules and _HOMES[name] not in sys.modules:
            sys.modules["pytest"].register_assert_rewrite(_HOMES[name])  # so that failures show values
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
