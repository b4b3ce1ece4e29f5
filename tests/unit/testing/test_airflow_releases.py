"""What the titles of Airflow's processes and the logs of its two REST APIs say."""

import pytest

from airflow_resilient.testing.airflow.local_airflow import _log_lines
from airflow_resilient.testing.airflow.releases import TASK, WORKER, Work, name_of, release

ID = "0199f5b2-1111-7000-8000-000000000001"
RUN = "manual__2026-11-01T00:00:00+00:00"
COMMAND = f"['airflow', 'tasks', 'run', 'etl', 'load', '{RUN}', '--local', '--subdir', 'DAGS_FOLDER/etl.py'"
ONE = name_of("etl", RUN, "load", -1)
THIRD = name_of("etl", RUN, "load", 3)
LOCAL, SUPERVISOR = "airflow worker -- LocalExecutor: ", "airflow task supervisor: "
RUNNER = f"airflow task runner: etl load {RUN} 17"


@pytest.mark.parametrize(
    ("title", "above", "work"),
    [
        (f"{LOCAL}{COMMAND}]", "airflow scheduler", Work(WORKER, ONE)),
        (f"{LOCAL}{COMMAND}]", f"{LOCAL}{COMMAND}]", Work(WORKER, ONE)),  # forked, not yet renamed
        (f"{SUPERVISOR}{COMMAND}]", f"{LOCAL}{COMMAND}]", Work(WORKER, ONE)),
        (f"{SUPERVISOR}{COMMAND}]", f"{SUPERVISOR}{COMMAND}]", Work(TASK, ONE)),  # forked, not yet renamed
        (RUNNER, f"{SUPERVISOR}{COMMAND}]", Work(TASK, ONE)),
        (RUNNER, f"{SUPERVISOR}{COMMAND}, '--map-index', '3']", Work(TASK, THIRD)),
        (RUNNER, "systemd", None),
        ("airflow worker -- LocalExecutor", "airflow scheduler", None),
        (f"{SUPERVISOR}['airflow', 'tasks']", "airflow scheduler", None),
        ("airflow scheduler", "bash", None),
    ],
)
def test_processes_of_airflow_2_are_known_by_their_titles(title, above, work):
    assert release("2.11.2").work(title, above) == work


@pytest.mark.parametrize(
    ("title", "above", "work"),
    [
        (f"{LOCAL}{ID}", "airflow scheduler", Work(WORKER, ID)),
        (f"{LOCAL}{ID}", f"{LOCAL}{ID}", Work(TASK, ID)),  # forked, not yet renamed
        (f"airflow worker -- {ID}", f"{LOCAL}{ID}", Work(TASK, ID)),
        (f"airflow supervisor: {ID}", "celery", Work(WORKER, ID, idle_without_child=True)),
        (f"airflow supervisor: {ID}", f"airflow supervisor: {ID}", Work(TASK, ID)),
        ("airflow worker -- LocalExecutor: <idle>", "airflow scheduler", None),
        ("airflow scheduler", "bash", None),
    ],
)
def test_processes_of_airflow_3_are_known_by_their_titles(title, above, work):
    assert release("3.3.2").work(title, above) == work


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("[('host', 'one\\ntwo')]", ["one", "two"]),
        ("[]", []),
        (["one", {"event": "two", "level": "info"}], ["one", "info two"]),
        ([{"event": "bad", "error_detail": [{"exc_type": "E"}]}], ["bad", '    [{"exc_type": "E"}]']),
    ],
)
def test_a_log_is_read_from_both_rest_apis(content, lines):
    assert list(_log_lines(content)) == lines


@pytest.mark.parametrize(
    ("answer", "signs"),
    [
        ({"triggerer": {"latest_triggerer_heartbeat": "2026-11-01"}}, {"2026-11-01"}),
        ({"triggerer": {"latest_triggerer_heartbeat": None}}, set()),
    ],
)
def test_a_new_heartbeat_says_that_a_component_of_airflow_2_works(answer, signs):
    assert release("2.11.2").signs(lambda _: answer, "triggerer") == signs
