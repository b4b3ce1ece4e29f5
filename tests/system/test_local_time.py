"""Local time inside real workers: rendered by the DAG's macros, by the plugin's, and asked for in Python."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from importlib.metadata import entry_points
from zoneinfo import ZoneInfo

import pytest

NEW_YORK = ZoneInfo("America/New_York")
EVENING = "2026-11-01T00:00:00Z"  # 31 October, 20:00, in New York
PLUGIN = any(entry.value.startswith("airflow_resilient.") for entry in entry_points(group="airflow.plugins"))


def start(airflow, dag_id, *, logical_date=None, **conf):
    """Trigger a run, with a logical date or without one, and wait for its end."""
    if logical_date is None:
        run_id = airflow.trigger(dag_id, conf=conf)
    else:
        airflow.wait_for_dag(dag_id)
        run_id = f"at-{logical_date}-{datetime.now(timezone.utc).timestamp()}"
        body = {"dag_run_id": run_id, "logical_date": logical_date, "conf": conf}
        airflow.request("POST", f"/dags/{dag_id}/dagRuns", body)
    airflow.wait_for(dag_id, run_id, until=["success"])
    return run_id


def shown(airflow, dag_id, run_id, task_id, map_index=-1):
    path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
    return airflow.request("GET", f"{path}?map_index={map_index}")["value"]


def run_after(airflow, dag_id, run_id):
    run = airflow.request("GET", f"/dags/{dag_id}/dagRuns/{run_id}")
    assert run["logical_date"] is None
    return datetime.fromisoformat(run["run_after"].replace("Z", "+00:00"))


@pytest.fixture(scope="module")
def of_an_evening(airflow, tmp_path_factory):
    """A run with a logical date, and the file that its callback writes."""
    path = tmp_path_factory.mktemp("local-time") / "callback"
    return start(airflow, "local_time", logical_date=EVENING, path=str(path)), path


def test_a_template_in_a_worker_shows_local_time(airflow, of_an_evening):
    run_id, _ = of_an_evening
    assert shown(airflow, "local_time", run_id, "plain") == "2026-10-31T20:00:00-04:00"


def test_mapped_tasks_show_local_time_too(airflow, of_an_evening):
    run_id, _ = of_an_evening
    assert shown(airflow, "local_time", run_id, "mapped", 0) == "2026-10-31"
    assert shown(airflow, "local_time", run_id, "mapped", 1) == "2026-11-01T05:30:00+05:30"


def test_python_code_and_callbacks_have_the_same_time_as_templates(airflow, of_an_evening):
    run_id, written = of_an_evening
    assert shown(airflow, "local_time", run_id, "in_python") == "2026-10-31T20:00:00-04:00"
    log = airflow.task_log("local_time", run_id, "in_python")
    assert "callback of the task: 2026-10-31T20:00:00-04:00" in log
    airflow.wait_until(written.is_file, what="the callback of the run has written its file")
    airflow.wait_until(
        lambda: written.read_text() == "2026-10-31T20:00:00-04:00", what="it holds the local time"
    )


def test_a_run_without_logical_date_is_taken_at_run_after(airflow):
    run_id = start(airflow, "local_time")
    wanted = run_after(airflow, "local_time", run_id).astimezone(NEW_YORK)
    assert shown(airflow, "local_time", run_id, "plain") == wanted.isoformat()
    assert shown(airflow, "local_time", run_id, "mapped", 0) == wanted.date().isoformat()
    assert shown(airflow, "local_time", run_id, "mapped", 2) == wanted.isoformat()
    assert shown(airflow, "local_time", run_id, "in_python") == wanted.isoformat()


def test_a_run_that_an_asset_triggered_is_taken_at_run_after(airflow, of_an_evening):
    path = "/dags/local_time_after_an_asset/dagRuns?order_by=run_after"
    runs = airflow.wait_until(
        lambda: airflow.request("GET", path)["dag_runs"], what="the asset has triggered a run"
    )
    run_id = runs[0]["dag_run_id"]
    airflow.wait_for("local_time_after_an_asset", run_id, until=["success"])
    wanted = run_after(airflow, "local_time_after_an_asset", run_id).astimezone(NEW_YORK)
    assert shown(airflow, "local_time_after_an_asset", run_id, "plain") == wanted.isoformat()


def test_native_rendering_in_a_worker_keeps_types(airflow):
    run_id = start(airflow, "local_time_native", logical_date="2026-11-01T12:00:00Z")
    assert shown(airflow, "local_time_native", run_id, "hours") == 25


def test_the_plugin_is_installed_where_tox_runs():
    if "TOX_ENV_NAME" in os.environ:
        assert PLUGIN, "the wheel is installed, so its entry point must be there"


@pytest.mark.skipif(
    not PLUGIN, reason="no entry point: a checkout on PYTHONPATH is not installed (tox installs the wheel)"
)
def test_workers_find_the_plugins_macros_for_plain_and_for_mapped_tasks(airflow):
    run_id = start(airflow, "local_time_plugin", logical_date=EVENING)
    assert shown(airflow, "local_time_plugin", run_id, "plain") == "2026-10-31T20:00:00-04:00"
    assert shown(airflow, "local_time_plugin", run_id, "mapped", 0) == "2026-11-01T00:00:00+00:00"
    assert shown(airflow, "local_time_plugin", run_id, "mapped", 1) == "+09:00"
