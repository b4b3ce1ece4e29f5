"""The demo's promises: it runs once, as a user runs it, and is judged by what it wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_resilient.testing.airflow.local_airflow import HANG

ROOT = Path(__file__).parents[2]
SENSORS = {"wait_for_load_orders", "wait_for_load_stock"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Exit code, output and results of one run of the demo."""
    out = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "demo", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=6 * HANG, check=False)
    results = out / "results.json"
    assert results.exists(), done.stdout + done.stderr
    return done, json.loads(results.read_text()), out


@pytest.fixture(scope="module")
def after(demo):
    return {instance["task_id"]: instance for instance in demo[1]["after"]["task_instances"]}


def test_every_promise_held_and_the_exit_code_says_so(demo):
    done, results, _ = demo
    assert [promise for promise in results["promises"] if not promise["held"]] == [], done.stdout
    assert done.returncode == 0


def test_only_the_import_differs_between_the_two_runs(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from demo.run import IMPORT, source_with_changed_import

    before, after = (source.splitlines() for source in source_with_changed_import())
    assert [line for line in after if line not in before] == IMPORT.splitlines()
    gone = [line for line in before if line not in after]
    assert gone
    assert all(line.startswith("from airflow.providers.amazon.aws.") for line in gone)


def test_the_providers_sensors_hold_both_slots_and_nothing_moves(demo):
    states = {i["task_id"]: i["state"] for i in demo[1]["before"]["task_instances"]}
    assert {states[name] for name in SENSORS} == {"running"}
    assert states["publish_rates"] == "scheduled"


def test_every_task_instance_succeeds_with_the_import_changed(after):
    assert {name: i["state"] for name, i in after.items() if i["state"] != "success"} == {}


def test_each_task_instance_has_one_remote_job(after):
    made = {name: len(i["remote_jobs"]) for name, i in after.items()}
    assert made == {name: 0 if name in SENSORS else 1 for name in after}


def test_killed_workers_cost_a_try_and_no_job(demo, after):
    killed = {
        name for kill in demo[1]["kills"] if "submit" in kill["what"] for name in kill["task_instances"]
    }
    assert killed == {"invoices.invoice_north", "rates.publish_rates"}
    assert all(after[name.split(".")[1]]["tries"] >= 2 for name in killed)


def test_restarted_triggerer_costs_no_try(demo, after):
    (restart,) = [kill for kill in demo[1]["kills"] if kill["what"] == "triggerer killed"]
    waited = [name.split(".")[1] for name in restart["task_instances"]]
    assert waited
    unharmed = [after[name] for name in waited if name not in {"invoice_north", "publish_rates"}]
    assert all(i["tries"] <= 1 + i["failed_by_airflow"] for i in unharmed)


def test_waiting_holds_no_slot(demo, after):
    assert all(after[name]["deferred_seconds"] > 0 for name in SENSORS)
    assert max(held for _, held in demo[1]["after"]["slots_in_use"]) <= 2


def test_no_job_is_left_running(demo):
    assert demo[1]["after"]["live_jobs"] == []


def test_picture_and_table_are_written(demo):
    out = demo[2]
    assert (out / "slots.png").read_bytes().startswith(b"\x89PNG")
    assert "| rates | publish_rates |" in (out / "table.md").read_text()
