"""How long is too long: what a file of limits may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_resilient.core.needs import read_needs
from airflow_resilient.operations.limits import InvalidLimits, Limits, load_limits, read_limit, read_limits
from airflow_resilient.operations.snapshot import Dag

TEXT = """
[limits]
waiting = "30m"
requeues = 5
heartbeat = 90

[dags."etl_*"]
waiting = "2h"

[dags."*"]
overdue = "10m"
"""


def test_a_file_changes_what_it_names():
    limits = read_limits(TEXT, "limits.toml")
    assert (limits.waiting, limits.requeues, limits.heartbeat) == (1800.0, 5.0, 90.0)
    assert limits.scheduling == Limits().scheduling


@pytest.mark.parametrize(
    ("dag_id", "tags", "waiting", "overdue"),
    [
        ("etl_nightly", [], 7200.0, 120.0),
        ("other", [], 1800.0, 600.0),
        ("etl_nightly", ["wait_at_most=1m", "start_within=1h"], 60.0, 3600.0),
    ],
)
def test_the_dag_itself_goes_first_then_the_first_pattern_that_matches(dag_id, tags, waiting, overdue):
    limits, dag = read_limits(TEXT, "limits.toml"), Dag(dag_id, needs=read_needs(tags))
    assert limits.waiting_of(dag_id, dag) == waiting
    assert limits.overdue_of(dag) == overdue


def test_a_dag_of_which_nothing_is_known_has_the_limits_of_the_file():
    assert read_limits(TEXT, "limits.toml").waiting_of("etl_nightly", None) == 7200.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("waiting = ", "limits.toml is no TOML"),
        ('[limit]\nwaiting = "1m"', r"limits.toml: \[limit\] is not known; write \[limits\]"),
        ('[limits]\nwait = "1m"', r"limits.toml: \[limits\] wait is not known; write one of heartbeat,"),
        ('[limits]\nwaiting = "soon"', r"\[limits\] waiting = 'soon' is not valid; write a duration such as"),
        ("[limits]\nwaiting = -1", "waiting = -1 is not valid"),
        ("[limits]\nwaiting = true", "waiting = True is not valid"),
        ('[limits]\nrequeues = "3m"', "requeues = '3m' is not valid; write a number"),
        ('[dags."x"]\nheartbeat = 3', r'\[dags."x"\] heartbeat is not known; write one of overdue, waiting'),
        ("limits = 3", r"limits is not valid; write it as a table"),
        ("[dags]\nx = 3", r'dags."x" is not valid; write it as a table'),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_what_to_write_instead(text, words):
    with pytest.raises(InvalidLimits, match=words):
        read_limits(text, "limits.toml")


@pytest.mark.parametrize("value", [float("inf"), float("nan"), None, [], "-3m", "0m"])
def test_a_limit_is_a_length_that_ends(value):
    with pytest.raises(InvalidLimits):
        read_limit("waiting", value)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InvalidLimits, match="cannot be read"):
        load_limits(tmp_path / "missing.toml")
    (tmp_path / "limits.toml").write_bytes(b"\xff")
    with pytest.raises(InvalidLimits, match="cannot be read"):
        load_limits(Path(tmp_path / "limits.toml"))
