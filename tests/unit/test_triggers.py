"""What a trigger does when it is stopped: nothing, unless its task instance is known to be over."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import uuid
from types import SimpleNamespace

import pytest

from airflow_resilient import compat
from airflow_resilient.jobs import Claim
from airflow_resilient.testing import InMemoryJobs
from airflow_resilient.triggers import RemoteJobTrigger, killed_by_a_person

CLAIM = Claim("a" * 16, 1)


@pytest.fixture
def jobs():
    return InMemoryJobs(f"memory-{uuid.uuid4()}", seconds=1000, clock=time.time)


@pytest.fixture
def trigger(jobs):
    """A trigger that watches a live job of a task instance which is not in Airflow's database."""
    job = jobs.submit(CLAIM)
    made = RemoteJobTrigger(
        service=f"{type(jobs).__module__}:{type(jobs).__qualname__}",
        address=jobs.address(),
        jobs=[job.pack()],
        memory={},
        patience={"first": 0.01, "poll": 0.01},
    )
    identity = {"dag_id": "etl", "run_id": f"run-{uuid.uuid4()}", "task_id": "sort", "map_index": -1}
    made.task_instance = SimpleNamespace(**identity)
    return made


def test_names_in_the_arguments_of_two_triggers_are_in_memory_once(trigger):
    """Each is decoded from JSON, which makes them anew: kilobytes for each of thousands of triggers."""
    _, arguments = trigger.serialize()
    one, other = (RemoteJobTrigger(**json.loads(json.dumps(arguments))) for _ in range(2))
    assert one.arguments == other.arguments == arguments
    for name, same in zip(one.arguments["jobs"][0], other.arguments["jobs"][0], strict=True):
        assert name is same


def stopped_while_it_watches(trigger, jobs):
    """Run the trigger until it has looked, then stop it as a triggerer does."""

    async def story():
        async def events():
            return [event async for event in trigger.run()]

        running = asyncio.ensure_future(events())
        while not jobs.calls["observe"]:  # noqa: ASYNC110 - the looks are made in another thread
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(asyncio.wait_for(story(), 60))


@pytest.mark.parametrize(
    ("state", "on_clear", "cancel"),
    [
        pytest.param("failed", "restart", True, id="marked-failed"),
        pytest.param("success", "reattach", True, id="marked-success"),
        pytest.param(None, "restart", True, id="cleared-or-run-deleted"),
        pytest.param(None, "reattach", False, id="cleared-where-the-job-is-to-survive"),
        pytest.param("deferred", "restart", False, id="another-triggerer-has-it"),
        pytest.param("queued", "restart", False, id="on-its-way-to-a-worker"),
        pytest.param("running", "restart", False, id="a-worker-has-it"),
        pytest.param("up_for_retry", "restart", False, id="its-next-try-adopts-the-job"),
    ],
)
def test_only_what_a_person_did_cancels(state, on_clear, cancel):
    assert killed_by_a_person(state, on_clear) is cancel


def test_a_stopped_trigger_that_gets_no_answer_from_airflow_cancels_nothing(trigger, jobs, caplog, capsys):
    trigger.task_instance = None  # no triggerer: nobody to ask
    asyncio.run(trigger._cancel_in_time())
    assert jobs.calls["cancel"] == 0
    said = caplog.text + capsys.readouterr().out  # Airflow 2, Airflow 3
    assert "not known whether the task instance is over" in said


def test_where_airflow_calls_on_kill_a_stop_without_a_word_asks_and_cancels_nothing(trigger, jobs, capsys):
    if not compat.calls_on_kill():
        pytest.skip("this Airflow has no on_kill")
    stopped_while_it_watches(trigger, jobs)
    assert jobs.calls["cancel"] == 0
    assert "not known" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def database():
    """The tables of Airflow 2, whose triggers ask the database."""
    if compat.airflow_version() >= (3, 0):
        pytest.skip("triggers of Airflow 3 ask the triggerer's API, see the system tests")
    migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(migrate, check=True, capture_output=True, timeout=600)


@pytest.mark.parametrize(
    ("state", "cancelled"),
    [
        pytest.param("failed", 1, id="marked-failed"),
        pytest.param("success", 1, id="marked-success"),
        pytest.param("deferred", 0, id="the-triggerer-stops-or-has-lost-it"),
        pytest.param("up_for_retry", 0, id="its-next-try-adopts-the-job"),
    ],
)
def test_a_stopped_trigger_of_airflow_2_cancels_when_its_task_instance_is_over(
    trigger, jobs, database, state, cancelled
):
    from airflow.models import DagRun, TaskInstance
    from airflow.utils.session import create_session
    from airflow.utils.timezone import utcnow

    ti = trigger.task_instance
    with create_session() as session:
        run = DagRun(dag_id=ti.dag_id, run_id=ti.run_id, execution_date=utcnow(), run_type="manual")
        session.add(run)
        session.flush()
        row = TaskInstance(compat.BaseOperator(task_id=ti.task_id), run_id=ti.run_id, state=state)
        row.dag_id = ti.dag_id
        session.add(row)
    stopped_while_it_watches(trigger, jobs)
    assert jobs.calls["cancel"] == cancelled


def test_a_trigger_without_jobs_only_waits_for_its_time():
    trigger = RemoteJobTrigger(service="", address={}, jobs=[], memory={}, deadline=time.time() - 1)

    async def events():
        return [event async for event in trigger.run()]

    (event,) = asyncio.run(events())
    assert event.payload["time"]
