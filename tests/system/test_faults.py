"""The fault matrix, in part: every row once, with our operators; services and fates take turns.

``tox run -e faults`` plays all of it, beside the amazon provider's operators.
"""

from __future__ import annotations

import os

import pytest
import servers
from faults.environment import harness
from faults.runner import play, representative

from airflow_resilient import compat

CASES = representative()

pytestmark = [
    pytest.mark.skipif(compat.airflow_version() < (3, 3), reason="rows say what is wanted of Airflow 3.3"),
    pytest.mark.skipif(
        servers.postgresql_programs() is None and not os.environ.get("CI"), reason="no PostgreSQL here"
    ),
]


@pytest.fixture(scope="module")
def results(request):
    """All chosen cases, played on one Airflow, those of a phase together."""
    chosen = [
        item.callspec.params["case"]
        for item in request.session.items
        if item.path == request.path and "case" in item.fixturenames
    ]
    with (
        servers.postgresql("faults") as url,
        harness(url("faults"), implementations=["ours"], brief=True) as made,
    ):
        played = play(made, chosen, lambda _: None)
    return {(result.row.id, result.fate, result.service): result for result in played}


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{row.id}, job {fate}, {service}" for row, fate, service, _ in CASES]
)
def test_it_comes_to_what_is_wanted(results, case):
    row, fate, service, _ = case
    result = results[row.id, fate, service]
    story = f"{row.group}: {row.what}\n{result.figures}\n{result.note}\n{result.history}"
    assert result.note == "", story
    assert result.held, f"{story}\nwanted: {row.expected(service, fate)}"


def test_every_row_is_played_here():
    from faults.cases import ROWS

    assert list(dict.fromkeys(row.id for row, *_ in CASES)) == [row.id for row in ROWS]
