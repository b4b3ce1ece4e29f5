"""The Airflow that is installed, whichever version it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_resilient.testing.local_airflow import LocalAirflow

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def airflow(aws, make_database, python_path) -> Iterator[LocalAirflow]:
    """A real Airflow with the DAGs of ``tests/system/versions/dags`` and two pools."""
    with LocalAirflow(
        HERE / "dags",
        database_url=make_database(),
        connections={"aws_default": aws.airflow_connection()},
        variables={"greeting": "hello"},
        pools={"two_slots": 2, "one_slot": 1},
        environment={"PYTHONPATH": python_path},
        progress=print,
    ) as running:
        yield running
