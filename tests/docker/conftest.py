"""A real Docker engine for all tests that share it."""

import os

import pytest

from airflow_resilient.testing.docker.local_docker import LocalDocker, NoEngine


@pytest.fixture(scope="session")
def real_engine():
    """A ``dockerd`` of our own; where none can be started, the test is skipped, but not in CI."""
    try:
        with LocalDocker() as engine:
            yield engine
    except NoEngine as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no Docker engine here: {error}")
