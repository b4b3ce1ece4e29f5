"""A real Airflow whose executor loses task instances, and runs that end while one of theirs is queued.

`check` finds them, a dry run of `unstick` says what it would do and changes nothing, `unstick --apply` frees
them, and what waited for them runs.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from command_line import run

from airflow_resilient.compat import airflow_version
from airflow_resilient.testing.airflow.local_airflow import HANG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from command_line import Ran

    from airflow_resilient.testing.airflow.local_airflow import LocalAirflow, TaskInstance

FOLDER = Path(__file__).parent.parent / "dags_stuck"
DOCS = Path(__file__).parents[3] / "docs"
RECIPE = DOCS / "recipes" / "free-what-is-stuck.py"
LIMITS = ("--limit", "scheduling=15s", "--limit", "heartbeat=60s", "--limit", "waiting=5s")
END_RUN = """
import sys
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from sqlalchemy import update
dag_id, run_id, state = sys.argv[1:]
table = DagRun.__table__
with create_session() as session:
    mine = (table.c.dag_id == dag_id, table.c.run_id == run_id)
    session.execute(update(table).where(*mine).values(state=state))
"""
"""As a race in Airflow ends a run: its task instances stay as they are."""


class Stuck:
    """An Airflow in which things get stuck."""

    def __init__(self, airflow: LocalAirflow, folder: Path) -> None:
        self.airflow, self.folder = airflow, folder

    def instance(self, dag_id: str, run_id: str, task_id: str) -> TaskInstance:
        return self.airflow.task_instance(dag_id, run_id, task_id)

    def until(self, dag_id: str, run_id: str, task_id: str, *states: str) -> None:
        self.airflow.wait_until(
            lambda: self.instance(dag_id, run_id, task_id).state in states,
            what=f"{dag_id}.{task_id} is {states}",
        )

    def end_run(self, dag_id: str, run_id: str, state: str) -> None:
        subprocess.run(
            [self.airflow.python, "-c", END_RUN, dag_id, run_id, state],
            env=self.airflow.environment,
            cwd=self.airflow.home,
            check=True,
            timeout=HANG,
        )

    def command(self, *arguments: str) -> Ran:
        return run(self.airflow, *arguments, "--airflow-url", self.airflow.url, *LIMITS)

    def until_found(self, words: str) -> Ran:
        """Run ``unstick`` dry until it would do this. Without a memory, Airflow's own times count."""
        began = time.monotonic()
        while time.monotonic() - began < HANG:
            ran = self.command("unstick", "--queues-have-workers")
            if words in ran.out:
                return ran
            time.sleep(0.5)
        raise AssertionError(f"{words} was never found: {ran}")

    def free(self, words: str, memory: str) -> dict[str, Ran]:
        """What ``check`` finds, then what is printed by ``unstick``: dry, when it acts, and after that."""
        kept = ("unstick", "--queues-have-workers", "--apply", "--memory", str(self.folder / memory))
        found = {"dry": self.until_found(words), "check": self.command("check")}
        return {**found, "applied": self.command(*kept), "again": self.command(*kept)}


@pytest.fixture(scope="module")
def stuck(make_airflow, python_path, tmp_path_factory) -> Iterator[Stuck]:
    dags = tmp_path_factory.mktemp("dags")
    (dags / "stuck.py").write_text((FOLDER / "stuck.py").read_text())
    recipe = RECIPE.read_text()
    assert 'wait_at_most("10m")' in recipe
    assert 'schedule="*/10 * * * *"' in recipe
    own = recipe.replace('wait_at_most("10m")', 'wait_at_most("5s")').replace('"*/10 * * * *"', "None")
    (dags / RECIPE.name).write_text(own)
    environment = {
        "PYTHONPATH": os.pathsep.join([python_path, str(FOLDER / "executors")]),
        "LOSES_ONCE": "prices.load",
        "LOSES_ALL": "ghost_of_a_success.ghost,ghost_of_a_failure.ghost",
    }
    executor = "forgetful_executor.ForgetfulExecutor"
    with make_airflow(dags, executor=executor, environment=environment) as airflow:
        yield Stuck(airflow, tmp_path_factory.mktemp("memory"))


@pytest.fixture(scope="module")
def lost(stuck) -> dict[str, Any]:
    """The executor has lost a task instance."""
    run_id = stuck.airflow.trigger("prices")
    stuck.until("prices", run_id, "load", "queued")
    before = stuck.instance("prices", run_id, "load")
    found = stuck.free("WOULD BE CLEARED: prices", "lost")
    stuck.airflow.wait_for("prices", run_id, until=["success"])
    return {**found, "before": before, "after": stuck.instance("prices", run_id, "load")}


def haunted(stuck: Stuck, dag_id: str, state: str, words: str) -> dict[str, Any]:
    """A queued task instance of a run that has ended occupies the only slot of a pool."""
    run_id = stuck.airflow.trigger(dag_id)
    stuck.until(dag_id, run_id, "ghost", "queued")
    if state == "failed":
        stuck.until(dag_id, run_id, "after", "upstream_failed")
    stuck.end_run(dag_id, run_id, state)
    waiting = stuck.airflow.trigger("waits_for_the_slot")
    stuck.until("waits_for_the_slot", waiting, "work", "scheduled")
    found = stuck.free(f"{words}: {dag_id}", dag_id)
    stuck.airflow.wait_for("waits_for_the_slot", waiting, until=["success"])
    instances = stuck.airflow.task_instances(dag_id, run_id)
    return {
        **found,
        "run": stuck.airflow.request("GET", f"/dags/{dag_id}/dagRuns/{run_id.replace('+', '%2B')}")["state"],
        "states": {each.task_id: each.state for each in instances},
        "note": next(each.raw["note"] for each in instances if each.task_id == "ghost"),
    }


@pytest.fixture(scope="module")
def success(stuck) -> dict[str, Any]:
    return haunted(stuck, "ghost_of_a_success", "success", "WOULD BE SKIPPED")


@pytest.fixture(scope="module")
def failure(stuck) -> dict[str, Any]:
    return haunted(stuck, "ghost_of_a_failure", "failed", "WOULD BE FREED WITH ITS RUN")


def test_what_the_executor_has_lost_is_found_cleared_and_runs(lost):
    assert "waiting: default" in lost["check"].out, str(lost["check"])
    assert "the executor does not start it" in lost["check"].out
    assert (lost["dry"].code, lost["applied"].code) == (1, 0), str(lost["applied"])
    assert lost["before"].try_number == 1
    assert lost["after"].try_number == 2
    assert re.match(r"airflow-resilient unstick, .*: cleared it \(try 1", lost["after"].raw["note"])


def test_a_second_run_has_nothing_to_do(lost):
    assert lost["again"].code == 0, str(lost["again"])
    assert "nothing to do." in lost["again"].out


@pytest.mark.parametrize(
    ("story", "run_state", "states"),
    [
        ("success", "success", {"ghost": "skipped", "after": None}),
        ("failure", "failed", {"ghost": "skipped", "after": "upstream_failed", "fails": "failed"}),
    ],
)
def test_a_ghost_is_freed_its_run_stays_ended_and_what_waited_for_the_slot_runs(
    request, story, run_state, states
):
    found = request.getfixturevalue(story)
    assert "waiting: one_slot" in found["check"].out
    assert (found["dry"].code, found["applied"].code) == (1, 0), str(found["applied"])
    assert found["again"].code == 0, str(found["again"])
    assert (found["run"], found["states"]) == (run_state, states)
    assert found["note"].startswith("airflow-resilient unstick, ")


@pytest.mark.skipif(airflow_version() < (3, 3), reason="the page shows what is printed on Airflow 3.3")
def test_the_page_shows_what_is_printed(lost, success):
    def plain(line: str) -> str:
        line = re.sub(r"https?://[\w.:]+", "URL", line)
        line = re.sub(r"Airflow says: .*", "Airflow says", line)  # the scheduler may be faster
        return re.sub(r"\d+", "0", re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "TIME", line)).strip()

    print("\n".join(ran.out for story in (lost, success) for ran in (story["dry"], story["applied"])))
    page = (DOCS / "recipes" / "free-what-is-stuck.md").read_text()
    printed = {
        plain(line)
        for story in (lost, success)
        for name in ("dry", "applied")
        for line in story[name].out.splitlines()
    }
    blocks = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3
    for line in filter(None, "".join(blocks).splitlines()):
        assert plain(line) in printed
