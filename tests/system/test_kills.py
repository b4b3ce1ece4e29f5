"""Our part of the kill matrix, and the recipe about containers: real containers, a real Airflow."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import pytest
from kills.cases import ROWS
from kills.runner import ENDED, harness, play

from airflow_resilient.compat import airflow_version
from airflow_resilient.testing.docker.local_docker import LocalDocker

RECIPE = Path(__file__).parents[2] / "docs" / "recipes" / "containers-that-survive-a-workers-restart.py"
DAG = "containers_that_survive_a_workers_restart"
pytestmark = pytest.mark.skipif(
    airflow_version() < (3, 3), reason="it reads the logs and the API of Airflow 3.3"
)


@pytest.fixture(scope="module")
def made():
    """A real engine and a real Airflow."""
    if (missing := LocalDocker.missing()) and not os.environ.get("CI"):
        pytest.skip(f"no Docker engine here: {missing}")
    with harness(["ours"], print, more_dags=[RECIPE]) as ready:
        yield ready


@pytest.fixture(scope="module")
def results(made):
    """What came of each row."""
    return {each.row: each for each in play(made, ROWS, ["ours"])}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_kill_comes_to_what_is_wanted(results, row):
    assert row.id in results, "it could not be played; the output of the first row says why"
    assert results[row.id].figures == row.wanted, results[row.id].story


def test_the_recipe_about_containers_runs_and_takes_its_container_over(made):
    airflow, engine = made.airflow, made.engine
    with contextlib.closing(engine.client()) as client:
        client.tag(engine.image, "etl", "7")
        airflow.trigger(DAG, "by-hand")
        labels = {"label": [f"airflow_resilient.dag_id={DAG}"]}
        instance = airflow.wait_until(lambda: airflow.task_instance(DAG, "by-hand", "export"))
        airflow.kill_task_when(instance, lambda: client.containers(filters=labels))
        state = airflow.wait_until(lambda: (s := airflow.run_state(DAG, "by-hand")) in ENDED and s)
        assert state == "success"
        second = airflow.task_log(DAG, "by-hand", "export", 2)
        found = r"\w{64}: found job of claim af-\S+-1, (still running: watching|succeeded: its result)"
        assert re.search(found, second)
        assert sorted(re.findall(r"part (\d) of by-hand", second)) == list("12345")
        assert airflow.xcom(DAG, "by-hand", "export") == "part 5 of by-hand"
        assert airflow.xcom(DAG, "by-hand", "load") == "loaded part 5 of by-hand"
        assert client.containers(all=True, filters=labels) == [], "what has succeeded is removed"
