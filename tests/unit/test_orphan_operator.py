"""The operator for a maintenance DAG: what it refuses, and how a connection becomes a REST API."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from airflow_resilient import InvalidParameter, OrphanSweepOperator
from airflow_resilient.orphans import api_of
from airflow_resilient.sweep import NoAnswer


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"services": "ecs"}, "services='ecs' is not valid; write a list of 'ecs', 'emr' and 'docker'"),
        ({"services": ["glue"]}, "write a list of 'ecs', 'emr' and 'docker'"),
        ({"ecs_clusters": "etl"}, r"write a list, such as ecs_clusters=\['etl'\]"),
        ({"emr_clusters": "j-1"}, r"write a list, such as emr_clusters=\['j-1'\]"),
        ({"cancel": "perhaps"}, "cancel='perhaps' is not valid; write True or False"),
        ({"grace": timedelta(minutes=-1)}, "grace=.* is not valid; write a timedelta or seconds, 0 or more"),
        ({"grace": "soon"}, "grace='soon' is not valid"),
        ({"wait": None}, "wait=None is not valid; write a timedelta"),
    ],
)
def test_a_wrong_parameter_is_refused_with_what_to_write(parameters, words):
    with pytest.raises(InvalidParameter, match=f"task 'sweep': .*{words}"):
        OrphanSweepOperator(task_id="sweep", **parameters)


@pytest.mark.parametrize("cancel", [True, False, "True", "false", "{{ params.cancel }}"])
@pytest.mark.parametrize("grace", [timedelta(hours=1), 60, "60", 0, "{{ params.grace }}"])
def test_what_may_be_right_is_accepted(cancel, grace):
    task = OrphanSweepOperator(task_id="sweep", cancel=cancel, grace=grace, ecs_clusters="{{ params.ecs }}")
    assert {"cancel", "grace", "ecs_clusters", "emr_clusters"} <= set(task.template_fields)


def test_by_default_nothing_is_cancelled_and_orphans_fail_the_task():
    task = OrphanSweepOperator(task_id="sweep")
    assert (task.cancel, task.fail_when_found, task.grace) == (False, True, timedelta(minutes=10))


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
    api = api_of("this_airflow")
    assert (api.url, api._login[0] or "", api._token) == (url, login, token)


def test_a_connection_without_a_host_is_said(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_THIS_AIRFLOW", json.dumps({"conn_type": "http"}))
    with pytest.raises(NoAnswer, match="is not the URL of an Airflow"):
        api_of("this_airflow")
