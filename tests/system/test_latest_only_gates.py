"""Which runs pass a gate on a real scheduler, beside Airflow's own LatestOnlyOperator."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import takewhile

import pytest

from airflow_resilient.scheduling.latest_only import bucket_of

EVERY = timedelta(seconds=60)  # as in dags/latest_only.py
ENDED = {"success", "failed", "skipped", "upstream_failed"}


@dataclass(frozen=True)
class Dag:
    """A DAG, and its runs by due time."""

    airflow: object
    dag_id: str

    def pause(self, paused):
        self.airflow.request("PATCH", f"/dags/{self.dag_id}", {"is_paused": paused})

    def runs(self, kind="scheduled"):
        answer = self.airflow.request("GET", f"/dags/{self.dag_id}/dagRuns?limit=100&order_by=logical_date")
        return [raw for raw in answer["dag_runs"] if raw["run_type"] == kind]

    def ended(self, kind="scheduled", enough=bool):
        """Wait until enough of its runs have ended, and give them in the order in which they were due."""

        def some():
            # Up to the first that has not ended: what is later may have overtaken it.
            found = list(takewhile(lambda raw: raw["state"] in ENDED, self.runs(kind)))
            return enough(found) and found

        what = f"enough {kind} runs of {self.dag_id} have ended"
        return self.airflow.wait_until(some, what=what, tell=self.tell)

    def tell(self):
        lines = [f"{raw['dag_run_id']}: {raw['state']}" for raw in self.runs()]
        lines += [f"{i.run_id} {i.task_id}: {i.state}" for i in self.airflow.task_instances(self.dag_id)]
        return "\n".join(lines)

    def states(self, run_id):
        found = self.airflow.task_instances(self.dag_id, run_id)
        return {i.task_id if i.map_index < 0 else f"{i.task_id}[{i.map_index}]": i.state for i in found}

    def log(self, run_id, task_id, number=None):
        return self.airflow.task_log(self.dag_id, run_id, task_id, number)

    def again(self, run_id, task_ids, **more):
        """Clear task instances and wait until they have ended again."""
        tries = {each: self.airflow.task_instance(self.dag_id, run_id, each).try_number for each in task_ids}
        self.airflow.clear(self.dag_id, run_id, task_ids, **more)

        def done():
            found = [self.airflow.task_instance(self.dag_id, run_id, each) for each in task_ids]
            return all(i.state in ENDED and i.try_number > tries[i.task_id] for i in found)

        self.airflow.wait_until(done, what=f"{task_ids} ended again", tell=self.tell)
        return self.states(run_id)


def due(raw):
    return datetime.fromisoformat(raw["data_interval_end"].replace("Z", "+00:00"))


def started(raw):
    return datetime.fromisoformat(raw["start_date"].replace("Z", "+00:00"))


def bucket(raw):
    return bucket_of(due(raw), EVERY, timezone.utc)


def of_whole_buckets(runs):
    """Leave out the last bucket: a run that is still to end may belong to it."""
    return [raw for raw in runs if bucket(raw) != bucket(runs[-1])]


def skipped_by_both(states):
    return (states["bucket"], states["passes"]) == ("skipped", "skipped")


@pytest.fixture(scope="module")
def slow(airflow):
    """Scheduled runs, one after the other, whose gates come after work that takes longer than an interval."""
    dag = Dag(airflow, "latest_only_slow")
    airflow.wait_for_dag(dag.dag_id)
    dag.pause(False)

    def enough(runs):
        """Two buckets, and a run that both gates have skipped. A busy scheduler makes fewer runs."""
        whole = of_whole_buckets(runs)
        several = 1 < len({bucket(raw) for raw in whole}) < len(whole)
        return several and any(skipped_by_both(dag.states(raw["dag_run_id"])) for raw in whole)

    try:
        runs = of_whole_buckets(dag.ended(enough=enough))
    finally:
        dag.pause(True)
    return dag, [(raw, dag.states(raw["dag_run_id"])) for raw in runs]


@pytest.fixture(scope="module")
def late(airflow):
    """One scheduled run, long after it was due."""
    dag = Dag(airflow, "latest_only_late")
    airflow.wait_for_dag(dag.dag_id)
    dag.pause(False)
    (raw,) = dag.ended()
    return dag, raw["dag_run_id"], dag.states(raw["dag_run_id"])


def test_airflows_own_gate_starves_behind_slow_work_and_ours_does_not(slow):
    _, runs = slow
    assert Counter(states["after_theirs"] for _, states in runs) == {"skipped": len(runs)}
    assert Counter(states["after_lateness"] for _, states in runs) == {"success": len(runs)}


def test_the_gate_of_the_same_name_passes_every_run_that_started_before_the_next_was_due(slow):
    _, runs = slow
    in_time = {raw["dag_run_id"]: started(raw) - due(raw) <= timedelta(seconds=10) for raw, _ in runs}
    assert any(in_time.values())
    found = {raw["dag_run_id"]: states["after_same_name"] == "success" for raw, states in runs}
    assert found == in_time


def test_exactly_one_run_of_each_bucket_passes(slow):
    _, runs = slow
    passed = Counter(bucket(raw) for raw, states in runs if states["bucket"] == "success")
    assert passed == dict.fromkeys({bucket(raw) for raw, _ in runs}, 1)
    assert len(passed) < len(runs)
    assert all(states["after_bucket"] == states["bucket"] for _, states in runs)


def test_counting_passes_leaves_no_bucket_without_one(slow):
    _, runs = slow
    passed = [bucket(raw) for raw, states in runs if states["passes"] == "success"]
    assert set(passed) == {bucket(raw) for raw, _ in runs}
    assert len(passed) < len(runs)


def test_a_gate_that_is_cleared_and_checked_again_gives_the_same_answer(slow):
    dag, runs = slow
    raw, before = next(found for found in runs if skipped_by_both(found[1]))
    dag.pause(False)
    try:
        after = dag.again(raw["dag_run_id"], ["bucket", "passes"])
    finally:
        dag.pause(True)
    assert after["bucket"] == before["bucket"]
    assert after["passes"] == "success", "a person decided"
    assert "was cleared (cleared='run')" in dag.log(raw["dag_run_id"], "passes")


def test_a_late_run_is_skipped_and_its_log_says_why(late):
    dag, run_id, states = late
    assert states["gate"] == "skipped"
    log = dag.log(run_id, "gate", 1)
    assert "skipped: run " in log
    assert " late (max_lateness 1 s)" in log


def test_trigger_rules_after_a_skipped_gate_decide_for_themselves(late):
    _, _, states = late
    rules = ("all_success", "all_done", "none_failed", "none_failed_min_one_success")
    assert [states[rule] for rule in rules] == ["skipped", "success", "success", "skipped"]


def test_skipping_downstream_skips_whatever_the_trigger_rule(late):
    _, _, states = late
    assert (states["hard"], states["all_done_after_hard"]) == ("success", "skipped")
    assert (states["same_name"], states["all_done_after_same_name"]) == ("success", "skipped")


def test_a_gate_in_a_mapped_group_skips_its_own_group(late):
    _, _, states = late
    names = ("gate", "after", "same_name", "after_same_name")
    assert {states[f"each.{name}[{n}]"] for name in names for n in (0, 1)} == {"skipped"}


def test_taskflow_asks_the_function(late):
    dag, run_id, states = late
    assert (states["short_circuit"], states["after_short_circuit"], states["run_if"]) == (
        "success",
        "skipped",
        "skipped",
    )
    assert " late (max_lateness 1 s)" in dag.log(run_id, "short_circuit")


def test_a_retry_gives_the_same_answer(late):
    dag, run_id, states = late
    first, second = (
        [
            line.partition("skipped: ")[2]
            for line in dag.log(run_id, "twice", n).splitlines()
            if "skipped: " in line
        ]
        for n in (1, 2)
    )
    assert first[0] == second[0]
    assert states["twice"] == "skipped"


def test_a_late_run_that_is_cleared_passes_unless_it_is_to_be_checked_again(late):
    dag, run_id, _ = late
    after = dag.again(run_id, ["gate", "again", "hard"], include_downstream=True)
    assert (after["gate"], after["again"]) == ("success", "skipped")
    assert after["hard"] == "success"
    dag.airflow.wait_until(
        lambda: dag.states(run_id)["all_done_after_hard"] == "success",
        what="what is after it runs",
        tell=dag.tell,
    )


def test_runs_of_other_dags_and_of_assets_pass(airflow):
    run_id = airflow.trigger("latest_only_upstream")
    airflow.wait_for("latest_only_upstream", run_id, ["success"])
    for dag_id, kind in (
        ("latest_only_triggered", "operator_triggered"),
        ("latest_only_of_assets", "asset_triggered"),
    ):
        dag = Dag(airflow, dag_id)
        (raw,) = dag.ended(kind=kind)
        assert dag.states(raw["dag_run_id"]) == {"gate": "success"}
        assert f"({kind})" in dag.log(raw["dag_run_id"], "gate")


def test_runs_of_a_backfill_are_skipped(late):
    dag, _, _ = late
    day = "2023-01-01T00:00:00Z"
    body = {"dag_id": dag.dag_id, "from_date": day, "to_date": day, "max_active_runs": 1}
    dag.airflow.request("POST", "/backfills", body)
    (raw,) = dag.ended(kind="backfill")
    assert dag.states(raw["dag_run_id"])["gate"] == "skipped"
    assert "belongs to a backfill" in dag.log(raw["dag_run_id"], "gate")
