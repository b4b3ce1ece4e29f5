"""The Airflow that is installed, whichever version it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_resilient.compat import airflow_version
from airflow_resilient.testing.local_airflow import LocalAirflow

if TYPE_CHECKING:
    from collections.abc import Iterator

DAGS = Path(__file__).parent.parent / "dags" / "every_version"

if airflow_version() < (3, 3):  # the newest one reads all DAGs, these included, and serves all tests

    @pytest.fixture(scope="session")
    def airflow(aws, make_database, python_path) -> Iterator[LocalAirflow]:
        """A real Airflow with the DAGs that every version can read."""
        database = make_database()
        if database is None and airflow_version() < (3, 0):
            pytest.skip(
                "Airflow 2 runs one task at a time with SQLite: install the Debian package postgresql"
            )
        with LocalAirflow(
            DAGS,
            database_url=database,
            connections={"aws_default": aws.airflow_connection()},
            variables={"greeting": "hello"},
            pools={"two_slots": 2, "one_slot": 1},
            environment={"PYTHONPATH": python_path},
            progress=print,
        ) as running:
            yield running
