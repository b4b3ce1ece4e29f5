"""What Prometheus gets: names, values, and what is left out where something is not known."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest

from airflow_resilient.operations.exported_metrics import (
    MAX_PER_KIND,
    MAX_SERIES,
    METRICS,
    OTHER,
    Exported,
)
from airflow_resilient.operations.first_seen import FirstSeen
from airflow_resilient.operations.health import Finding, Kind, Severity
from airflow_resilient.operations.recent import Recent, Times
from airflow_resilient.operations.snapshot import (
    Component,
    Dag,
    ImportProblem,
    Leg,
    Pool,
    Snapshot,
    Waiting,
)

NOW = 1_793_622_600.0
QUEUED = Waiting("etl", "r", "load", state="queued", since=NOW - 100, queue="big", pool="p")
LOOK = Snapshot(
    "http://airflow",
    NOW,
    version="3.3.2",
    overall=(Component("scheduler", NOW - 3),),
    peers=(Component("scheduler", NOW - 3, "one", 1), Component("scheduler", NOW - 9, "two", 2)),
    pools=(Pool("p", 5, 3, 1, 2, 4, 6), Pool("endless", -1)),
    waiting=(QUEUED, replace(QUEUED, task_id="other", since=NOW - 50)),
    running=(replace(QUEUED, state="running"),),
    deferred=(replace(QUEUED, state="deferred", since=NOW - 700),),
    runs=(),
    dags=(Dag("etl", NOW - 40, NOW - 20), Dag("next", NOW + 40, NOW - 15)),
    import_errors=(ImportProblem("x.py", NOW, "E"),),
    requeues=(),
    legs=(Leg("canary", "triggerer", NOW - 70), Leg("canary", "queue-default")),
    seconds=0.5,
)

pytestmark = pytest.mark.pure


def finding(kind, subject="etl", *, severity=Severity.PAGE, since=NOW - 60, key="k", count=1):
    return Finding(kind, subject, severity, since, "e", "c", "n", key, count)


FOUND = Exported(
    LOOK,
    (
        finding(Kind.WAITING, "p", key="waiting/pool-full/p", count=7),
        finding(Kind.NEED_BY_MISSED),
        finding(Kind.RUN_OVERDUE, since=None),
    ),
    FirstSeen("http://airflow", NOW, NOW, {f"waiting/{QUEUED.key}": NOW - 300}),
    Recent(
        {"etl": Times(NOW, 4.0, 60.0)}, {("etl", "load"): Times(NOW, 2.0, 30.0)}, NOW - 5, requeue_count=3
    ),
    {"complete": 9, "silent": 1},
    120,
    NOW,
)
SILENT = replace(FOUND, snapshot=Snapshot("http://airflow", NOW + 30, silent="no", seconds=20.0))
EXPECTED = {
    "up": {(): 1.0},
    "look_timestamp_seconds": {(): NOW},
    "look_duration_seconds": {(): 0.5},
    "looks_total": {("complete",): 9, ("incomplete",): 0, ("silent",): 1, ("failed",): 0},
    "requests_total": {(): 120},
    "airflow_info": {("3.3.2",): 1.0},
    "finding_since_timestamp_seconds": {
        ("waiting", "page", "p", "pool-full"): NOW - 60,
        ("need-by-missed", "page", "etl", ""): NOW - 60,
        ("run-overdue", "page", "etl", ""): NOW,
    },
    "heartbeat_timestamp_seconds": {("scheduler", "one"): NOW - 3, ("scheduler", "two"): NOW - 9},
    "run_created_timestamp_seconds": {(): NOW - 5},
    "run_due_timestamp_seconds": {(): NOW - 40},
    "dags_overdue": {(): 1},
    "dag_parse_timestamp_seconds": {(): NOW - 15},
    "import_errors": {(): 1.0},
    "task_waiting_since_timestamp_seconds": {("queued", "big", "p"): NOW - 300},
    "tasks_waiting_over_limit": {("pool-full",): 7.0},
    "task_instances": {("scheduled",): 0, ("queued",): 2, ("running",): 1},
    "pool_slots": {
        ("p", "open"): 2,
        ("p", "queued"): 1,
        ("p", "running"): 2,
        ("p", "scheduled"): 4,
        ("p", "deferred"): 6,
        ("endless", "open"): math.inf,
        **{("endless", state): 0 for state in ("queued", "running", "scheduled", "deferred")},
    },
    "pool_size_slots": {("p",): 5, ("endless",): math.inf},
    "deferred_since_timestamp_seconds": {(): NOW - 700},
    "canary_success_timestamp_seconds": {("canary", "triggerer"): NOW - 70},
    "requeues_total": {(): 3},
    "need_by_missed": {("etl",): 1.0},
    "dag_schedule_delay_seconds": {("etl",): 4.0},
    "dag_run_duration_seconds": {("etl",): 60.0},
    "task_queue_delay_seconds": {("etl", "load"): 2.0},
    "task_duration_seconds": {("etl", "load"): 30.0},
}
BY_NAME = {metric.name: metric for metric in METRICS}


def values(name, exported):
    return dict(BY_NAME[name].bounded(exported))


@pytest.mark.parametrize("name", [name for name in BY_NAME if name != "findings"])
def test_a_metric_has_the_values_of_the_look(name):
    assert values(name, FOUND) == EXPECTED[name]


def test_each_kind_of_finding_is_counted_so_that_none_is_0():
    counts = {kind: count for (kind,), count in values("findings", FOUND).items()}
    assert {kind for kind, count in counts.items() if count} == {"waiting", "need-by-missed", "run-overdue"}
    assert counts.keys() == {kind.value for kind in Kind}


@pytest.mark.parametrize("exported", [SILENT, Exported(), replace(FOUND, snapshot=None, findings=())])
@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_nothing_of_airflow_is_repeated_when_a_look_had_no_answer(metric, exported):
    assert metric.always or metric.bounded(exported) == []
    assert values("up", exported) == {(): 0.0}


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("pools", ("pool_slots", "pool_size_slots")),
        ("waiting", ("task_waiting_since_timestamp_seconds",)),
        ("deferred", ("deferred_since_timestamp_seconds",)),
        ("dags", ("run_due_timestamp_seconds", "dags_overdue", "dag_parse_timestamp_seconds")),
        ("import_errors", ("import_errors",)),
        ("requeues", ("requeues_total",)),
    ],
)
def test_what_could_not_be_read_is_absent_and_never_0(part, names):
    blind = replace(FOUND, snapshot=replace(LOOK, **{part: None}))
    assert [name for name in names if values(name, blind)] == []


def test_where_processes_are_not_listed_the_latest_heartbeat_of_each_kind_counts():
    old = replace(FOUND, snapshot=replace(LOOK, peers=None))
    assert values("heartbeat_timestamp_seconds", old) == {("scheduler", ""): NOW - 3}


@pytest.mark.parametrize("count", [MAX_SERIES, MAX_SERIES + 1, 500])
def test_labels_are_bounded_and_the_rest_is_one_value(count):
    dags = {f"dag-{number}": Times(NOW, float(number)) for number in range(count)}
    found = values("dag_schedule_delay_seconds", replace(FOUND, recent=Recent(dags)))
    assert found[f"dag-{count - 1}",] == count - 1
    assert len(found) == min(count, MAX_SERIES + 1)
    assert found.get((OTHER,)) == (None if count <= MAX_SERIES else count - MAX_SERIES - 1)


def test_many_findings_of_one_kind_hide_none_of_another():
    many = [
        finding(Kind.IMPORT_ERROR, f"{number}.py", severity=Severity.TICKET, since=NOW - 9000 - number)
        for number in range(500)
    ]
    page = finding(Kind.HEARTBEAT_LOST, "scheduler", since=NOW - 1)
    found = values("finding_since_timestamp_seconds", replace(FOUND, findings=(*many, page)))
    assert len(found) == MAX_PER_KIND + 2
    assert found["heartbeat-lost", "page", "scheduler", ""] == NOW - 1
    assert found["import-error", "ticket", "499.py", ""] == NOW - 9499
    assert found["import-error", "ticket", OTHER, ""] == NOW - 9000 - (499 - MAX_PER_KIND)


def test_two_findings_with_the_same_labels_are_one_value_the_earlier_one():
    twice = (finding(Kind.NEED_BY_MISSED, since=NOW - 60), finding(Kind.NEED_BY_MISSED, since=NOW - 900))
    exported = replace(FOUND, findings=twice)
    labels = ("need-by-missed", "page", "etl", "")
    assert BY_NAME["finding_since_timestamp_seconds"].bounded(exported) == [(labels, NOW - 900)]
    assert BY_NAME["need_by_missed"].bounded(exported) == [(("etl",), 1.0)]


def test_of_many_heartbeats_the_latest_ones_are_shown():
    peers = tuple(Component("scheduler", NOW - number, f"host-{number}", number) for number in range(200))
    same = Component("scheduler", NOW - 900, "host-0", 999)
    found = values(
        "heartbeat_timestamp_seconds", replace(FOUND, snapshot=replace(LOOK, peers=(same, *peers)))
    )
    assert found["scheduler", "host-0"] == NOW
    assert len(found) == MAX_SERIES + 1


def test_the_pools_with_the_fewest_open_slots_are_shown():
    pools = tuple(Pool(f"pool-{number}", number) for number in range(500))
    found = values("pool_slots", replace(FOUND, snapshot=replace(LOOK, pools=pools)))
    assert {pool for pool, _ in found} == {f"pool-{number}" for number in range(MAX_SERIES)}


def test_names_follow_the_conventions_of_prometheus():
    assert len(BY_NAME) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"airflow_resilient_[a-z_]+[a-z]", metric.full_name)
        assert not metric.name.endswith(("_age", "_ms", "_count", "_sum", "_bucket"))
        assert metric.about.endswith(".")
