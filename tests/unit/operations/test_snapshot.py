"""How the rows of both versions of Airflow's API are read."""

from __future__ import annotations

import contextlib
import json

import pytest

from airflow_resilient.core.needs import Canary
from airflow_resilient.operations import snapshot
from airflow_resilient.operations.airflow_api import AirflowApi, iso
from airflow_resilient.operations.first_seen import FirstSeen

INSTANCE = {
    "dag_id": "etl",
    "dag_run_id": "run-1",
    "task_id": "load",
    "map_index": -1,
    "try_number": 1,
    "pool": "default_pool",
    "pool_slots": 1,
    "queue": "default",
    "start_date": iso(50.0),
    "queued_when": iso(100.0),
    "scheduled_when": iso(90.0),
    "trigger": None,
}


@pytest.mark.parametrize(
    ("changed", "since", "queued"),
    [
        pytest.param({"state": "queued"}, 90.0, 100.0, id="queued"),
        pytest.param(
            {"state": "scheduled", "scheduled_when": iso(500.0)}, 500.0, None, id="back-from-a-deferral"
        ),
        pytest.param({"state": "scheduled", "scheduled_when": None}, None, None, id="scheduled-on-2"),
        pytest.param({"state": "queued", "scheduled_when": None}, 100.0, 100.0, id="queued-on-2"),
        pytest.param({"state": "running"}, 50.0, 100.0, id="running"),
        pytest.param(
            {"state": "deferred", "trigger": {"created_date": iso(70.0), "triggerer_id": 3}},
            70.0,
            None,
            id="deferred",
        ),
    ],
)
def test_a_wait_begins_with_the_state_that_it_is_in(changed, since, queued):
    """``queued_when`` of the leg before stays until the next one is queued."""
    found = snapshot._waiting({**INSTANCE, **changed})
    assert (found.since, found.queued) == (since, queued)


DAG = {
    "dag_id": "etl",
    "last_parsed_time": iso(10.0),
    "max_active_runs": 1,
    "max_active_tasks": 16,
    "tags": [{"name": "need_by=07:00 UTC"}],
}


@pytest.mark.parametrize(
    ("row", "scheduled"),
    [
        pytest.param({"timetable_periodic": True, "timetable_summary": "x"}, True, id="3.3-periodic"),
        pytest.param({"timetable_periodic": False, "timetable_summary": "0 5 * * *"}, False, id="3.3-not"),
        pytest.param({"timetable_summary": "0 5 * * *"}, True, id="3.1-cron"),
        pytest.param({"timetable_summary": "1 day, 0:00:00"}, True, id="3.1-length"),
        pytest.param({"timetable_summary": None}, False, id="3.1-none"),
        pytest.param({"timetable_summary": "Asset"}, False, id="3.1-asset"),
        pytest.param({"timetable_summary": "Partitioned Asset"}, False, id="3.2-partitioned-asset"),
        pytest.param({"timetable_summary": "@continuous"}, False, id="3.1-continuous"),
        pytest.param(
            {"schedule_interval": {"__type": "CronExpression", "value": "0 5 * * *"}}, True, id="2-cron"
        ),
        pytest.param(
            {"schedule_interval": {"__type": "CronExpression", "value": "Dataset"}}, False, id="2-dataset"
        ),
        pytest.param({"schedule_interval": {"__type": "TimeDelta", "days": 1}}, True, id="2-length"),
        pytest.param(
            {"schedule_interval": None, "timetable_description": "Never, external triggers only"},
            False,
            id="2-none",
        ),
    ],
)
def test_a_schedule_by_time_is_told_from_others(row, scheduled):
    next_run = "next_dagrun_create_after" if "schedule_interval" in row else "next_dagrun_run_after"
    found = snapshot._dag({**DAG, **row, next_run: iso(99.0)})
    assert (found.scheduled, found.next_due, found.max_active_runs) == (scheduled, 99.0, 1)
    assert [str(need) for need in found.needs.by] == ["07:00 UTC"]


@pytest.mark.parametrize(
    ("kind", "automatic", "backfill"),
    [
        ("scheduled", True, False),
        ("asset_triggered", True, False),
        ("dataset_triggered", True, False),
        ("manual", False, False),
        ("backfill", False, True),
    ],
)
def test_who_has_made_a_run(kind, automatic, backfill):
    row = {"dag_id": "etl", "dag_run_id": "r", "state": "queued", "run_type": kind, "start_date": None}
    found = snapshot._run({**row, "last_scheduling_decision": None, "run_after": iso(5.0)})
    assert (found.automatic, found.backfill, found.due) == (automatic, backfill, 5.0)
    found = snapshot._run({**row, "last_scheduling_decision": None, "data_interval_end": iso(7.0)})
    assert found.due == 7.0, "on 2.11"


@pytest.mark.parametrize(
    ("traceback", "shown"),
    [
        ("Traceback…\nOperationalError: postgresql://me:s3cret@db refused", "OperationalError"),
        ("  File x\nairflow.exceptions.AirflowException: no", "airflow.exceptions.AirflowException"),
        ("", ""),
        (None, ""),
    ],
)
def test_an_import_error_shows_its_class_alone(traceback, shown):
    """Its text may contain a secret."""
    assert snapshot._class_of(traceback) == shown


def of_canary(due, state, *, end=None, task_id="triggerer", version=3):
    """A task instance of a canary that runs every hundred seconds."""
    when = {"run_after": iso(due)} if version == 3 else {"execution_date": iso(due - 100.0)}
    ended = {"state": state, "end_date": None if end is None else iso(end)}
    return {**INSTANCE, "dag_id": "canary", "task_id": task_id, "pool": "own", "queue": "q", **when, **ended}


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    ("rows", "succeeded", "tried"),
    [
        pytest.param([], None, None, id="no-run"),
        pytest.param([(1000, "success", 1007)], 1007, None, id="well"),
        pytest.param([(1000, "success", 1007), (1100, "success", 1104)], 1104, None, id="the-latest-success"),
        pytest.param(
            [(1100, "success", 1104), (1000, "success", 1150)], 1150, None, id="a-run-that-took-long"
        ),
        pytest.param(
            [(1000, "success", 1007), (1200, "deferred"), (1100, "skipped")], 1007, 1100, id="two-in-vain"
        ),
        pytest.param([(1000, None), (1100, "queued"), (1200, "failed", 1201)], None, 1000, id="never"),
        pytest.param([(1000, "failed", 1001), (1100, "success", 1101)], 1101, None, id="it-has-recovered"),
        pytest.param([(1000, "skipped"), (5000, "running")], None, 5000, id="it-was-paused-in-between"),
    ],
)
def test_what_became_of_a_leg(rows, succeeded, tried, version):
    others = [of_canary(9000, "success", end=9001, task_id=each, version=version) for each in ("beat", "old")]
    mine = [of_canary(due, state, end=end[0] if end else None, version=version) for due, state, *end in rows]
    found = snapshot._leg("canary", "triggerer", Canary(100.0, ("triggerer",)), [*others, *mine])
    assert (found.succeeded, found.tried) == (succeeded, tried)
    assert (found.pool, found.queue) == (("own", "q") if rows else ("default_pool", "default"))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(("limit", "back"), [(0.0, 3000.0), (7200.0, 14_400.0)])
def test_a_canary_takes_one_request_of_the_last_intervals(serve, version, limit, back):
    tags = [
        {"name": "canary_every=10m"},
        {"name": "canary_leg=queue-default"},
        {"name": "canary_leg=triggerer"},
    ]
    dags = [
        {**DAG, "dag_id": "a b", "tags": tags, "timetable_summary": "10 minutes"},
        {**DAG, "timetable_summary": "10 minutes"},
    ]
    rows = [of_canary(99_000, "success", end=99_100.0, task_id="queue-default", version=version)]
    asked, now = [], 100_000.0

    def answer(method, path, query, body):
        found = {"version": "3.3.2" if version == 3 else "2.11.2", "access_token": "t"}
        if path.startswith("/api/v2" if version == 2 else "/api/v1"):
            return 404, {}
        if path.endswith("/dags"):
            found = {"dags": dags, "total_entries": len(dags)}
        elif path.endswith("/dagRuns/~/taskInstances"):
            mine = "~/dagRuns" not in path
            asked.extend([(path, query)] if mine else [])
            found = {"task_instances": rows if mine else [], "total_entries": int(mine)}
        elif path.endswith("/dagRuns"):
            found = {"dag_runs": [], "total_entries": 0}
        return 200, found

    with contextlib.closing(AirflowApi(serve(answer), attempts=1)) as api:
        found = snapshot.look(api, canary_limit=limit, now=lambda: now)
    assert not [each for each in found.gaps if each.part in ("dags", "canaries")]
    ((path, query),) = asked
    assert path.endswith("/dags/a%20b/dagRuns/~/taskInstances")
    assert query == {"updated_at_gte": iso(now - back), "limit": "100", "offset": "0"}
    assert found.legs == (
        snapshot.Leg("a b", "queue-default", 99_100.0, None, "own", "q"),
        snapshot.Leg("a b", "triggerer"),
    )


@pytest.mark.parametrize(
    ("answers", "gap", "asked"),
    [
        pytest.param([([], 1), ([], 0)], None, 2, id="ended-between-count-and-page"),
        pytest.param([([], 1), ([INSTANCE], 1)], None, 2, id="began-again"),
        pytest.param([([], 1)], "there are 1, of which 0 were read", 3, id="never-shown"),
    ],
)
def test_a_list_that_moves_while_it_is_read_is_read_again(serve, answers, gap, asked):
    """Airflow counts and reads by two statements: a task instance that ends between them is counted alone."""
    seen = []

    def answer(method, path, query, body):
        if not path.endswith("/taskInstances") or query.get("state") != "queued":
            return 200, {"version": "3.3.2", "access_token": "t", "task_instances": [], "total_entries": 0}
        seen.append(query)
        rows, total = answers[min(len(seen), len(answers)) - 1]
        return 200, {"task_instances": [{"state": "queued", **row} for row in rows], "total_entries": total}

    with contextlib.closing(AirflowApi(serve(answer), attempts=1)) as api:
        found = snapshot.look(api)
    reasons = [each.reason for each in found.gaps if each.part == "task instances"]
    assert reasons == ([gap] if gap else [])
    assert len(seen) == asked


def test_runs_that_have_started_are_asked_for_where_a_dag_is_late_or_due_again(serve):
    """The latest one of all, and those of DAGs whose next run has moved on."""
    asked = []
    now = 1_793_622_600.0
    row = {**DAG, "tags": [], "timetable_summary": "* * * * *", "next_dagrun_run_after": iso(now - 40)}

    def answer(method, path, query, body):
        path = path.removeprefix("/api/v2")
        if path == "/dags":
            return 200, {"dags": [row], "total_entries": 1}
        if (method == "POST" and path == "/dags/~/dagRuns/list") or "start_date_gte" in query:
            asked.append(json.loads(body) if body else query)
        lists = ("dag_runs", "task_instances", "jobs", "pools", "import_errors", "event_logs")
        return 200, {
            "version": "3.3.2",
            "access_token": "t",
            "total_entries": 0,
            **{name: [] for name in lists},
        }

    seen = FirstSeen("http://airflow", last=now - 60, looked=now - 60, due={"etl": now - 100})
    with contextlib.closing(AirflowApi(serve(answer), attempts=1)) as api:
        found = snapshot.look(api, seen=seen, now=lambda: now)
    assert found.started == ()
    latest, since = asked
    assert (latest["order_by"], latest["limit"]) == ("-start_date", "1")
    assert since["dag_ids"] == ["etl"]
    assert since["start_date_gte"] == iso(now - 101)
