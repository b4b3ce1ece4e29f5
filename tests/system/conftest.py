"""A real Airflow and a fake AWS, once for all tests that share them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import servers

import airflow_resilient
from airflow_resilient import compat
from airflow_resilient.testing import FakeAws
from airflow_resilient.testing.airflow.local_airflow import HANG, LocalAirflow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent


SHARED = (
    "versions/test_every_version.py",
    "versions/test_local_airflow.py",
    "test_latest_only_gates.py",
    "test_local_time.py",
    "test_what_is_shown.py",
)
"""Whose tests run on one Airflow, the fixture ``airflow``."""
LONGEST = (
    "shared",
    "test_faults.py",
    "versions/test_check_on_a_real_airflow.py",
    "test_distributed.py",
    "test_recipes_on_a_real_airflow.py",
    "versions/test_orphans.py",
    "versions/test_canary_on_a_real_airflow.py",
    "test_alerts_reach_on_call.py",
)
"""What is begun first when several processes run tests, because it lasts longest."""


def group_of(nodeid: str) -> str:
    """What one process runs from beginning to end: all tests of an Airflow."""
    path = nodeid.partition("::")[0].rpartition("tests/system/")[2]
    return "shared" if path.startswith(SHARED) else path


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.system)
            # The first test of a module waits for all that the module starts.
            item.add_marker(pytest.mark.timeout(6 * HANG))
    first = dict(zip(LONGEST, range(len(LONGEST)), strict=True))
    items.sort(key=lambda item: first.get(group_of(item.nodeid), len(first)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Share the groups out.  pytest-xdist 3.8 has marks for that, which pytest 9.2 does not let it read."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group_of(nodeid)

    return Groups(config, log)


@pytest.fixture(scope="session")
def aws() -> Iterator[FakeAws]:
    """A fake AWS on loopback, with an ECS cluster and an EMR cluster named ``etl``."""
    with FakeAws().serve() as fake:
        fake.make_ecs_cluster("etl")
        fake.make_emr_cluster("etl", concurrency=10)
        yield fake


@pytest.fixture(scope="session")
def make_database() -> Iterator[Callable[[], str | None]]:
    """Make an empty PostgreSQL database for one Airflow and give its URL; ``None``, for SQLite, without it.

    SQLite lets one write at a time: a scheduler that waits for its turn reads the executor's events late, and
    then fails healthy tasks by itself ("state mismatch" in the audit log) more often than any user would see.
    """
    if servers.postgresql_programs() is None and not servers.required():
        yield lambda: None
        return
    names = [f"airflow_{number}" for number in range(10)]
    with servers.postgresql(*names) as url:
        yield lambda: url(names.pop())


@pytest.fixture(scope="session")
def python_path() -> str:
    """Where processes find this very package."""
    package = str(Path(airflow_resilient.__file__).parent.parent)
    return os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))


@pytest.fixture(scope="session")
def make_airflow(aws, make_database, python_path, tmp_path_factory) -> Callable[..., LocalAirflow]:
    """Make a real Airflow, a context manager, with the DAGs of a folder and what they need."""

    def make(dags: Path, **more: Any) -> LocalAirflow:
        database = make_database()
        if database is None and compat.airflow_version() < (3, 0):
            pytest.skip(
                "Airflow 2 runs one task at a time with SQLite: install the Debian package postgresql"
            )
        return LocalAirflow(
            dags,
            database_url=database,
            connections={"aws_default": aws.airflow_connection()},
            variables={"greeting": "hello"},
            pools={"two_slots": 2, "one_slot": 1},
            environment={"PYTHONPATH": python_path, **more.pop("environment", {})},
            home=tmp_path_factory.mktemp("airflow"),  # stays, so that its logs can be read
            progress=print,
            **more,
        )

    return make


@pytest.fixture(scope="session")
def airflow(make_airflow) -> Iterator[LocalAirflow]:
    """The Airflow that most tests share.

    Only the newest version reads all DAGs; with others only tests that every version passes have one.
    """
    newest = compat.airflow_version() >= (3, 3)
    with make_airflow(HERE / "dags" if newest else HERE / "dags" / "every_version") as running:
        yield running
