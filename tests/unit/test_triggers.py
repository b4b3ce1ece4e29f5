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

from airflow_resilient import compat, triggers
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
    """The tables of Airflow 2, whose triggers ask the database; those of Airflow 3 ask the triggerer."""
    if compat.airflow_version() < (3, 0):
        migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
        subprocess.run(migrate, check=True, capture_output=True, timeout=600)


@pytest.fixture
def says(trigger, database, monkeypatch):
    """Let Airflow say this state of the trigger's task instance from now on."""
    ti = trigger.task_instance
    if compat.airflow_version() >= (3, 0):
        from airflow.sdk.execution_time import task_runner
        from airflow.sdk.execution_time.comms import TaskStatesResult

        def say(state):
            answer = TaskStatesResult(task_states={ti.run_id: {ti.task_id: state}})
            supervisor = SimpleNamespace(send=lambda message: answer)
            monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)

        return say

    from airflow.models import DagRun, TaskInstance
    from airflow.utils.session import create_session
    from airflow.utils.timezone import utcnow

    with create_session() as session:
        run = DagRun(dag_id=ti.dag_id, run_id=ti.run_id, execution_date=utcnow(), run_type="manual")
        session.add(run)
        session.flush()
        row = TaskInstance(compat.BaseOperator(task_id=ti.task_id), run_id=ti.run_id)
        row.dag_id = ti.dag_id
        session.add(row)

    def say(state):
        with create_session() as session:
            session.query(TaskInstance).filter_by(run_id=ti.run_id).update({"state": state})

    return say


@pytest.mark.parametrize(
    ("state", "cancelled"),
    [
        pytest.param("failed", 1, id="marked-failed"),
        pytest.param("success", 1, id="marked-success"),
        pytest.param("deferred", 0, id="the-triggerer-stops-or-has-lost-it"),
        pytest.param("up_for_retry", 0, id="its-next-try-adopts-the-job"),
    ],
)
@pytest.mark.skipif(compat.calls_on_kill(), reason="this Airflow calls on_kill")
def test_a_stopped_trigger_before_airflow_3_3_cancels_when_its_task_instance_is_over(
    trigger, jobs, says, state, cancelled
):
    says(state)
    stopped_while_it_watches(trigger, jobs)
    assert jobs.calls["cancel"] == cancelled


def stopped_every_moment(trigger, meanwhile=None):
    """Stop the trigger as a triggerer does: again and again until it is gone; its event loop goes on."""

    async def story():
        task = asyncio.ensure_future(trigger.on_kill())
        while not task.done():
            await asyncio.sleep(0)  # it takes its first steps
            task.cancel()
        if meanwhile:
            await asyncio.to_thread(meanwhile)
        while triggers._CANCELLING:
            await asyncio.wait(triggers._CANCELLING)

    asyncio.run(asyncio.wait_for(story(), 60))


def test_the_job_is_cancelled_although_airflow_stops_on_kill_itself_in_the_middle(trigger, jobs, says):
    says("failed")
    stopped_every_moment(trigger)
    assert jobs.live() == []


def test_a_cancel_in_times_of_throttling_is_sent_again_when_the_trigger_is_gone(trigger, jobs, says):
    says("failed")
    jobs.throttle(3, "cancel")
    stopped_every_moment(trigger)
    assert jobs.live() == []
    assert jobs.calls["cancel"] == 4


def test_a_job_that_a_next_try_has_taken_over_meanwhile_is_left_to_it(trigger, jobs, says):
    says("failed")
    jobs.throttle(1_000_000, "cancel")

    def meanwhile():
        until = time.monotonic() + 30
        while jobs.calls["cancel"] < 2 and time.monotonic() < until:
            time.sleep(0.01)
        says("deferred")

    stopped_every_moment(trigger, meanwhile)
    assert jobs.calls["cancel"] >= 2
    assert len(jobs.live()) == 1


def test_a_cancel_that_is_refused_is_said(trigger, jobs, says, caplog, capsys):
    says("failed")
    trigger.arguments["service"] = "nowhere:Service"
    stopped_every_moment(trigger)
    said = caplog.text + capsys.readouterr().out  # Airflow 2, Airflow 3
    assert "job-1 could not be cancelled: ModuleNotFoundError" in said


def test_a_trigger_without_jobs_only_waits_for_its_time():
    trigger = RemoteJobTrigger(service="", address={}, jobs=[], memory={}, deadline=time.time() - 1)

    async def events():
        return [event async for event in trigger.run()]

    (event,) = asyncio.run(events())
    assert event.payload["time"]
