"""DAGs that subclass the providers' operators, with the provider's class, with ours, and as in the recipe.

The recipe is `move-a-subclass.py`; the rows are in `tests/matrix/subclasses/cases.py`.
"""

from __future__ import annotations

import os

import pytest
from subclasses.cases import OURS, PROVIDER, ROWS
from subclasses.report import held
from subclasses.runner import harness, play

from airflow_resilient.compat import airflow_version
from airflow_resilient.testing.docker.local_docker import LocalDocker

pytestmark = pytest.mark.skipif(
    airflow_version() < (3, 3), reason="it reads the logs and the API of Airflow 3.3"
)
CASES = [pytest.param(row, name, id=f"{row.id}-{name}") for row in ROWS for name in row.implementations[1:]]


@pytest.fixture(scope="module")
def results():
    """What came of each row with each implementation."""
    if (missing := LocalDocker.missing()) and not os.environ.get("CI"):
        pytest.skip(f"no Docker engine here: {missing}")
    with harness(print) as made:
        yield play(made)


@pytest.mark.parametrize(("row", "name"), CASES)
def test_a_dag_comes_to_the_same_but_for_what_is_named(results, row, name):
    provider, seen = results[row.id][PROVIDER], results[row.id][name]
    assert held(row, provider, seen, name), f"{provider}\n{seen}"


@pytest.mark.parametrize("row", [row for row in ROWS if row.differs or row.refused], ids=lambda row: row.id)
def test_what_differs_has_a_reason(row):
    assert bool(row.refused) != bool(row.differs)
    assert row.named(OURS) == row.differs
