"""A real Airflow and a fake AWS, once for all tests that share them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import airflow_resilient
from airflow_resilient.testing import FakeAws
from airflow_resilient.testing.local_airflow import LocalAirflow

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.system)


@pytest.fixture(scope="session")
def aws() -> Iterator[FakeAws]:
    """A fake AWS on loopback, with an ECS cluster and an EMR cluster named ``etl``."""
    with FakeAws().serve() as fake:
        fake.make_ecs_cluster("etl")
        fake.make_emr_cluster("etl", concurrency=10)
        yield fake


@pytest.fixture(scope="session")
def airflow(aws) -> Iterator[LocalAirflow]:
    """A real Airflow with the DAGs of ``tests/system/dags`` and a pool of two slots, ``two_slots``."""
    package = str(Path(airflow_resilient.__file__).parent.parent)
    python_path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    with LocalAirflow(
        HERE / "dags",
        connections={"aws_default": aws.airflow_connection()},
        variables={"greeting": "hello"},
        pools={"two_slots": 2},
        environment={"PYTHONPATH": python_path},
        progress=print,
    ) as running:
        yield running
