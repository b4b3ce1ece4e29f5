"""What has to be settled before a test imports Airflow."""

import functools
import inspect
import os
from collections import Counter
from pathlib import Path

import botocore.session
import pytest
from hypothesis import HealthCheck, settings

# Airflow makes its home, and on demand a database in it, where this says when it is imported: one for each
# of the processes that pytest-xdist runs tests in.
if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and (home := os.environ.get("AIRFLOW_HOME")):
    os.environ["AIRFLOW_HOME"] = str(Path(home) / worker)

# How thoroughly properties are tested: the same examples each time, or new and more ones to search at night.
# ``HYPOTHESIS_PROFILE=deep pytest tests/unit tests/properties`` searches; what it finds becomes a row of
# a table or a seed.
CALM = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("fixed", derandomize=True, database=None, max_examples=100, **CALM)
settings.register_profile("deep", max_examples=5000, **CALM)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

# Each client of the amazon provider has a session of its own, which parses the models of its service again,
# and looks at the source of every frame above it. Hundreds of tests make clients: a process does that once.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)
inspect.stack = functools.partial(inspect.stack, 0)


def pytest_configure():
    """Say at the start of any run, however small, what would fail only when all tests are collected."""
    files = Path(__file__).parent.rglob("test_*.py")
    if twice := [name for name, count in Counter(file.name for file in files).items() if count > 1]:
        raise pytest.UsageError(
            f"two test files are named {', '.join(twice)}: test folders are no packages, so names are unique"
        )
