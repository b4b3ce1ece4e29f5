"""How long DAGs and tasks wait and run, as looks have seen lately."""

from __future__ import annotations

import pytest

from airflow_resilient.operations.recent import KEPT_SECONDS, MAX_KEPT, Recent, Times
from airflow_resilient.operations.snapshot import Requeue, Run, Snapshot, Waiting

pytestmark = pytest.mark.pure

NOW = 1_793_622_600.0


def run(started, ended=None, *, due=None, automatic=True, dag_id="etl"):
    state = "running" if ended is None else "success"
    return Run(dag_id, "r", state, due, due, started, started, ended, automatic=automatic)


def task(started, ended, *, since=None, try_number=1):
    return Waiting(
        "etl", "r", "load", try_number=try_number, state="success", since=since, started=started, ended=ended
    )


def after(*looks):
    recent = Recent()
    for look in looks:
        recent = recent.after(look)
    return recent


def look(*runs, ended_runs=(), ended=(), taken=NOW, requeues=()):
    return Snapshot("http://airflow", taken, runs=runs, ended_runs=ended_runs, ended=ended, requeues=requeues)


@pytest.mark.parametrize(
    ("looks", "times"),
    [
        pytest.param([look(run(NOW - 50, due=NOW - 60))], Times(NOW - 50, 10.0), id="a-run-that-runs"),
        pytest.param(
            [look(ended_runs=[run(NOW - 50, NOW - 20, due=NOW - 60)])],
            Times(NOW - 20, 10.0, 30.0),
            id="a-run-that-has-ended",
        ),
        pytest.param(
            [look(ended_runs=[run(NOW - 900, NOW - 700, due=NOW - 901)]), look(run(NOW - 50, due=NOW - 60))],
            Times(NOW - 50, 10.0, 200.0),
            id="the-next-one-keeps-the-duration-of-the-one-before",
        ),
        pytest.param(
            [look(run(NOW - 50, due=NOW - 60)), look(ended_runs=[run(NOW - 900, NOW - 700, due=NOW - 901)])],
            Times(NOW - 50, 10.0),
            id="an-older-one-that-is-seen-later-changes-nothing",
        ),
        pytest.param(
            [look(ended_runs=[run(NOW - 50, NOW - 20, due=NOW - 9e5, automatic=False)])],
            Times(NOW - 20, None, 30.0),
            id="a-backfill-has-no-delay",
        ),
        pytest.param([look(run(None, due=NOW - 60))], None, id="a-run-that-has-not-started"),
        pytest.param(
            [look(ended_runs=[run(NOW - 50, NOW - 20)]), look(taken=NOW + KEPT_SECONDS)],
            None,
            id="yesterday's-is-forgotten",
        ),
    ],
)
def test_what_is_known_of_a_dag(looks, times):
    assert after(*looks).dags.get("etl") == times


@pytest.mark.parametrize(
    ("ended", "times"),
    [
        pytest.param(task(NOW - 50, NOW - 20, since=NOW - 55), Times(NOW - 20, 5.0, 30.0), id="first-try"),
        pytest.param(
            task(NOW - 50, NOW - 20, since=NOW - 3600, try_number=2),
            Times(NOW - 20, None, 30.0),
            id="second-try",
        ),
        pytest.param(
            task(NOW - 50, NOW - 20, since=NOW - 10), Times(NOW - 20, None, 30.0), id="queued-again-meanwhile"
        ),
        pytest.param(task(NOW - 50, NOW - 20), Times(NOW - 20, None, 30.0), id="not-known-when-queued"),
        pytest.param(task(None, NOW - 20), None, id="skipped-before-it-started"),
    ],
)
def test_what_is_known_of_a_task(ended, times):
    assert after(look(ended=[ended])).tasks.get(("etl", "load")) == times


def test_the_latest_run_that_was_created_stays_known_after_it_has_ended():
    recent = after(look(run(NOW - 50, due=NOW - 60)), look(taken=NOW + 60))
    assert recent.created == NOW - 60


def test_each_entry_of_the_audit_log_is_counted_once():
    first, second = Requeue("etl / r / load", NOW - 60, False), Requeue("etl / r / load", NOW - 30, False)
    recent = after(look(requeues=[first]), look(requeues=[first, second]), look(requeues=[second]))
    assert recent.requeue_count == 2


def test_what_is_remembered_is_bounded():
    runs = [run(NOW - number, dag_id=f"dag-{number}") for number in range(MAX_KEPT + 10)]
    dags = after(look(*runs)).dags
    assert len(dags) == MAX_KEPT
    assert "dag-0" in dags
    assert f"dag-{MAX_KEPT + 9}" not in dags
