"""The operator for a maintenance DAG: what it refuses, and how a connection becomes a REST API."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from uuid import UUID

import pytest

from airflow_resilient import InvalidParameter, OrphanSweepOperator
from airflow_resilient.operations.airflow_api import api_of_connection
from airflow_resilient.operations.orphans import _running_try
from airflow_resilient.operations.task_instances import AirflowApiError


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (
            {"services": "ecs"},
            "services='ecs' is not valid; write a list of names among ecs, emr_steps, docker",
        ),
        ({"services": ["glue"]}, "write a list of names among ecs, emr_steps, docker"),
        ({"scopes": {"ecs": "etl"}}, r"scopes\['ecs'\]='etl' is not valid; write a list, such as \['etl'\]"),
        ({"scopes": {"docker": "tcp://a"}}, r"write a list, such as \['tcp://a'\]"),
        ({"scopes": {"emr": ["j-1"]}}, "write a dict with keys among ecs, emr_steps, docker"),
        ({"scopes": ["etl"]}, "write a dict with keys among ecs, emr_steps, docker"),
        ({"scopes": "ecs=etl"}, "write a dict with keys among ecs, emr_steps, docker"),
        ({"cancel": "perhaps"}, "cancel='perhaps' is not valid; write True or False"),
        ({"grace": timedelta(minutes=-1)}, "grace=.* is not valid; write a timedelta or seconds, 0 or more"),
        ({"grace": "soon"}, "grace='soon' is not valid"),
        ({"sees_every_dag": "yes"}, "sees_every_dag='yes' is not valid; write True or False"),
        ({"wait": None}, "wait=None is not valid; write a timedelta"),
    ],
)
def test_a_wrong_parameter_is_refused_with_what_to_write(parameters, words):
    with pytest.raises(InvalidParameter, match=f"task 'sweep': .*{words}"):
        OrphanSweepOperator(task_id="sweep", **parameters)


@pytest.mark.parametrize("cancel", [True, False, "True", "false", "{{ params.cancel }}"])
@pytest.mark.parametrize("grace", [timedelta(hours=1), 60, "60", 0, "{{ params.grace }}"])
def test_what_may_be_right_is_accepted(cancel, grace):
    task = OrphanSweepOperator(task_id="sweep", cancel=cancel, grace=grace, scopes="{{ params.scopes }}")
    assert {"cancel", "grace", "scopes"} <= set(task.template_fields)


@pytest.mark.parametrize(
    "scopes",
    [None, {}, {"ecs": []}, {"ecs": ["etl"], "emr_steps": ("j-1",)}, {"ecs": "{{ params.clusters }}"}],
)
def test_scopes_may_be_named_by_service(scopes):
    assert OrphanSweepOperator(task_id="sweep", scopes=scopes).scopes == (scopes or {})


def test_scopes_that_a_template_makes_wrong_are_refused_before_anybody_is_asked():
    task = OrphanSweepOperator(task_id="sweep", scopes={"ecs": "{{ params.clusters }}"})
    task.scopes = {"ecs": "etl"}
    with pytest.raises(InvalidParameter, match="write a list, such as"):
        type(task).execute.__wrapped__(task, {})


def test_by_default_nothing_is_cancelled_and_orphans_fail_the_task():
    task = OrphanSweepOperator(task_id="sweep")
    assert (task.cancel, task.fail_when_found, task.grace) == (False, True, timedelta(minutes=10))


@dataclass
class Running:
    """What the operator needs to know of its task instance."""

    dag_id: str = "find_orphans"
    run_id: str = "scheduled__1"
    task_id: str = "sweep"
    map_index: int | None = -1
    try_number: int = 2
    start_date: datetime | None = datetime(2026, 1, 1, tzinfo=timezone.utc)


@dataclass
class RunningOn3(Running):
    id: UUID = field(default_factory=lambda: UUID(int=7))


@pytest.mark.parametrize(
    ("ti", "started", "name"),
    [
        (RunningOn3(), 1767225600.0, str(UUID(int=7))),
        (Running(), 1767225600.0, ""),
        (Running(map_index=None, start_date=None), None, ""),
    ],
    ids=["on-3", "on-2.11", "without-a-start"],
)
def test_the_operator_knows_which_task_instance_it_is(ti, started, name):
    found = _running_try(ti)
    assert str(found) == "find_orphans / scheduled__1 / sweep"
    assert (found.state, found.try_number, found.started, found.id) == ("running", 2, started, name)


@pytest.mark.parametrize(
    ("connection", "url", "login", "token"),
    [
        ({"host": "https://airflow.example.com/prod"}, "https://airflow.example.com/prod", "", None),
        ({"host": "airflow", "schema": "https"}, "https://airflow", "", None),
        ({"host": "airflow", "port": 8080}, "http://airflow:8080", "", None),
        ({"host": "http://a", "login": "me", "password": "hunter2"}, "http://a", "me", None),
        ({"host": "http://a", "password": "t0ken"}, "http://a", "", "t0ken"),
        ({"host": "http://a", "extra": {"token": "t0ken"}}, "http://a", "", "t0ken"),
    ],
    ids=["url", "name-and-schema", "name-and-port", "login", "token-as-password", "token-in-extra"],
)
def test_a_connection_tells_where_airflow_is_and_who_asks(connection, url, login, token, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_THIS_AIRFLOW", json.dumps({"conn_type": "http", **connection}))
    api = api_of_connection("this_airflow")
    assert (api.url, api._login[0] or "", api._token) == (url, login, token)


def test_a_connection_without_a_host_is_refused(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_THIS_AIRFLOW", json.dumps({"conn_type": "http"}))
    with pytest.raises(AirflowApiError, match="connection 'this_airflow' has no host"):
        api_of_connection("this_airflow")
