"""What a trigger does when it is stopped: nothing, unless its task instance is known to be over."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from airflow_resilient import compat, triggers
from airflow_resilient.core.decide import should_cancel
from airflow_resilient.core.job import Cause, Claim, Job, Phase
from airflow_resilient.testing import InMemoryJobs
from airflow_resilient.triggers import RemoteJobTrigger

CLAIM = Claim("a" * 16, 1)


@pytest.fixture
def jobs():
    return InMemoryJobs(f"memory-{uuid.uuid4()}", seconds=1000, clock=time.time)


@pytest.fixture
def trigger(jobs):
    """A trigger that watches a live job of a task instance which is not in Airflow's database."""
    return made_trigger(jobs, jobs=[jobs.submit(CLAIM).to_dict()])


def made_trigger(service, **arguments):
    made = RemoteJobTrigger(
        service=f"{type(service).__module__}:{type(service).__qualname__}",
        address=service.address(),
        memory={},
        poll_policy={"first_interval": 0.01, "interval": 0.01},
        **arguments,
    )
    identity = {"dag_id": "etl", "run_id": f"run-{uuid.uuid4()}", "task_id": "sort", "map_index": -1}
    made.task_instance = SimpleNamespace(**identity)
    return made


def test_what_two_triggers_have_in_common_is_in_memory_once(trigger):
    """Each is decoded from JSON, which creates it again: kilobytes for each of thousands of triggers."""
    _, arguments = trigger.serialize()
    arguments["jobs"][0]["facts"] = {"launch type": "FARGATE", "a group": "etl"}
    one, other = (RemoteJobTrigger(**json.loads(json.dumps(arguments))) for _ in range(2))
    assert one.serialize()[1] == other.serialize()[1] == arguments
    for name in ("address", "poll_policy", "lookup"):
        assert one.arguments[name] is other.arguments[name]
    (job,), (same,) = one.observed.values(), other.observed.values()
    assert [id(name) for name in job.facts] == [id(name) for name in same.facts] != []


def test_the_garbage_collector_tracks_few_objects_of_a_trigger(trigger):
    """A full collection looks at each of them, and stops the event loop meanwhile."""
    _, arguments = trigger.serialize()
    text = json.dumps(arguments)
    kept = [RemoteJobTrigger(**json.loads(text))]
    gc.collect()
    before = len(gc.get_objects())
    kept += (RemoteJobTrigger(**json.loads(text)) for _ in range(1000))
    gc.collect()
    assert (len(gc.get_objects()) - before) / 1000 < 7


# --- fields of another version --------------------------------------------------------------------


def first_event(trigger):
    """The payload of what the trigger reports."""

    async def report():
        (event,) = [event async for event in trigger.run()]
        return event.payload

    return asyncio.run(asyncio.wait_for(report(), 60))


def newer(arguments):
    """What a newer version could have stored: a field more at each level."""
    (job,) = arguments["jobs"]
    return {
        **arguments,
        "jobs": [{**job, "spot": True, "claim": {**job["claim"], "region": "x"}}],
        "poll_policy": {**arguments["poll_policy"], "jitter": 0.5},
        "keep_until": 5,
    }


def test_a_trigger_that_a_newer_version_has_stored_observes_and_keeps_the_fields(
    trigger, jobs, capsys, caplog
):
    _, arguments = trigger.serialize()
    stored = json.loads(json.dumps(newer(arguments)))
    older = RemoteJobTrigger(**stored)
    assert older.serialize()[1] == stored
    jobs.finish(Job.from_dict(arguments["jobs"][0]))
    assert first_event(older)["jobs"][0]["phase"] == "succeeded"
    assert "keep_until ignored: another version" in caplog.text + capsys.readouterr().out


def test_a_trigger_that_a_newer_version_has_stored_cancels_nothing(trigger, jobs, says, capsys, caplog):
    _, arguments = trigger.serialize()
    older = RemoteJobTrigger(**newer(arguments))
    older.task_instance = trigger.task_instance
    says("failed")
    asyncio.run(older._cancel_before_shutdown())
    assert jobs.calls["cancel"] == 0
    assert "not cancelling job-1" in caplog.text + capsys.readouterr().out


def test_a_field_that_a_newer_version_has_added_to_an_unconfirmed_claim_cancels_nothing(
    trigger, jobs, says, capsys, caplog
):
    _, arguments = trigger.serialize()
    claim = {"task_key": CLAIM.task_key, "number": CLAIM.number, "resubmission": 0, "generation": ""}
    for more, cancelled in (({}, 1), ({"region": "x"}, 0)):
        stored = {**arguments, "jobs": [], "paused": True, "unconfirmed": [{**claim, **more}]}
        paused = RemoteJobTrigger(**json.loads(json.dumps(stored)))
        paused.task_instance = trigger.task_instance
        says("failed")
        asyncio.run(paused._cancel_before_shutdown())
        assert jobs.calls["cancel"] == cancelled, more
        jobs.calls["cancel"] = 0
    assert f"not cancelling the job of claim {CLAIM}" in caplog.text + capsys.readouterr().out


def test_where_a_job_is_must_be_understood_in_full(trigger):
    """Whether a field of an address may be ignored is unknown: it could name another account."""
    _, arguments = trigger.serialize()
    stored = {**arguments, "address": {**arguments["address"], "endpoint": "elsewhere"}}
    with pytest.raises(TypeError, match="endpoint"):
        first_event(RemoteJobTrigger(**stored))


def test_a_phase_and_a_cause_of_a_newer_version_mean_look_again():
    known = Job("job-1", CLAIM, Phase.RUNNING, 0.0).to_dict()
    read = Job.from_dict({**known, "phase": "hibernating", "cause": "weather"})
    assert (read.phase, read.cause, read.live) == (Phase.QUEUED, Cause.UNKNOWN, True)


def stopped_while_it_watches(trigger, jobs):
    """Run the trigger until it has polled, then stop it as a triggerer does."""

    async def story():
        async def events():
            return [event async for event in trigger.run()]

        running = asyncio.ensure_future(events())
        while not jobs.calls["observe"]:  # noqa: ASYNC110 - the polls are made in another thread
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
def test_only_an_act_of_a_person_cancels(state, on_clear, cancel):
    assert should_cancel(state, on_clear) is cancel


def test_a_stopped_trigger_that_gets_no_answer_from_airflow_cancels_nothing(trigger, jobs, caplog, capsys):
    trigger.task_instance = None  # no triggerer: nobody to ask
    asyncio.run(trigger._cancel_before_shutdown())
    assert jobs.calls["cancel"] == 0
    logged = caplog.text + capsys.readouterr().out  # Airflow 2, Airflow 3
    assert "job-1 is not cancelled: cannot read the state of the task instance from Airflow" in logged


def test_where_airflow_calls_on_kill_a_plain_stop_asks_and_cancels_nothing(trigger, jobs, capsys):
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
    return speaker(trigger, monkeypatch)


def speaker(trigger, monkeypatch):
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


def test_a_cancel_that_is_refused_is_logged(trigger, jobs, says, caplog, capsys):
    says("failed")
    trigger.arguments["service"] = "nowhere:Service"
    stopped_every_moment(trigger)
    logged = caplog.text + capsys.readouterr().out  # Airflow 2, Airflow 3
    assert "job-1 could not be cancelled: ModuleNotFoundError" in logged


class Hanging(InMemoryJobs):
    """A service whose logs cannot be read: the call does not come back, or raises."""

    log_drain = 0.0
    hangs = threading.Event()
    error = None

    def read_log(self, job, where, cursor):
        if self.error is not None:
            raise self.error
        Hanging.hangs.wait()
        return [(0.0, "too late")], 1


def event_of(trigger):
    async def events():
        try:
            return [event async for event in trigger.run()]
        finally:
            Hanging.hangs.set()  # from Airflow 3.0 to 3.2 the end of the event loop waits for its threads

    (event,) = asyncio.run(asyncio.wait_for(events(), 60))
    return event


@pytest.mark.parametrize("log_lines", [0, 1], ids=["nobody-wants-the-end-of-the-log", "somebody-wants-it"])
@pytest.mark.parametrize(
    "error", [None, KeyError("code"), TimeoutError()], ids=["hangs", "refuses", "answers-with-errors"]
)
def test_trouble_with_a_log_holds_up_no_end(monkeypatch, log_lines, error):
    monkeypatch.setattr(Hanging, "hangs", threading.Event())
    monkeypatch.setattr(Hanging, "error", error)
    monkeypatch.setattr("airflow_resilient.watching.log_forwarder.MAX_DRAIN_SECONDS", 0.1)
    jobs = Hanging(f"memory-{uuid.uuid4()}", seconds=0.1, clock=time.time)
    trigger = RemoteJobTrigger(
        service=f"{Hanging.__module__}:{Hanging.__qualname__}",
        address=jobs.address(),
        jobs=[jobs.submit(CLAIM).to_dict()],
        memory={},
        poll_policy={"first_interval": 0.01, "interval": 0.01},
        log={"somewhere": "else"},
        log_lines=log_lines,
    )
    trigger.task_instance = None
    payload = event_of(trigger).payload
    assert payload["jobs"][0]["phase"] == "succeeded"
    assert payload["log"] == []
    assert payload["log_position"] == {"job": "job-1", "cursor": None, "lines": 0, "complete": False}


@pytest.mark.parametrize(
    "stored",
    [None, 7, "text", [], [1], {}, {"job": "job-1"}, {"job": "job-1", "cursor": {"since": []}, "tail": 3}],
    ids=str,
)
def test_an_odd_position_of_a_log_does_not_end_a_trigger(monkeypatch, stored):
    monkeypatch.setattr(compat, "recall", lambda ti, key: stored)
    monkeypatch.setattr(Hanging, "error", KeyError("since"))
    jobs = Hanging(f"memory-{uuid.uuid4()}", seconds=0.1, clock=time.time)
    trigger = RemoteJobTrigger(
        service=f"{Hanging.__module__}:{Hanging.__qualname__}",
        address=jobs.address(),
        jobs=[jobs.submit(CLAIM).to_dict()],
        memory={},
        poll_policy={"first_interval": 0.01, "interval": 0.01},
        log={"somewhere": "else"},
    )
    trigger.task_instance = None
    assert event_of(trigger).payload["jobs"][0]["phase"] == "succeeded"


def test_a_trigger_without_jobs_only_waits_for_its_time():
    trigger = RemoteJobTrigger(service="", address={}, jobs=[], memory={}, deadline=time.time() - 1)

    async def events():
        return [event async for event in trigger.run()]

    (event,) = asyncio.run(events())
    assert event.payload["time"]


# --- a pause --------------------------------------------------------------------------------------


@pytest.fixture
def paused(request, jobs):
    """A trigger that waits for the next attempt, while a job of its task instance runs."""
    job = jobs.submit(CLAIM)
    known = request.param == "known"
    made = made_trigger(
        jobs,
        jobs=[job.to_dict()] if known else [],
        unconfirmed=[] if known else [asdict(CLAIM)],
        paused=True,
        deadline=time.time() + 3600,
    )
    return RemoteJobTrigger(**json.loads(json.dumps(made.serialize()[1]))), made.task_instance


@pytest.mark.parametrize("paused", ["known", "unconfirmed"], indirect=True)
@pytest.mark.parametrize(
    ("state", "left"), [("failed", 0), (None, 0), ("deferred", 1), ("queued", 1)], ids=str
)
def test_a_job_is_cancelled_when_its_task_instance_ends_in_a_pause(
    paused, jobs, database, monkeypatch, state, left
):
    trigger, trigger.task_instance = paused
    speaker(trigger, monkeypatch)(state)
    stopped_every_moment(trigger)
    assert len(jobs.live()) == left
    assert jobs.calls["observe"] == 0, "a pause watches nothing"


@pytest.mark.parametrize("paused", ["unconfirmed"], indirect=True)
def test_a_search_in_a_pause_is_repeated_and_cancels_no_other_job(paused, jobs, database, monkeypatch):
    trigger, trigger.task_instance = paused
    other = jobs.submit(Claim("b" * 16, 1))
    later = jobs.submit(Claim(CLAIM.task_key, 2))
    jobs.throttle(2, "find")
    speaker(trigger, monkeypatch)("failed")
    stopped_every_moment(trigger)
    assert {real.id for real in jobs.live()} == {other.id, later.id}


def test_a_pause_ends_at_its_time_and_hands_its_jobs_back(jobs):
    job = jobs.submit(CLAIM)
    trigger = made_trigger(jobs, jobs=[job.to_dict()], paused=True, deadline=time.time())

    async def events():
        return [event.payload async for event in trigger.run()]

    (payload,) = asyncio.run(asyncio.wait_for(events(), 60))
    assert (payload["time"], payload["jobs"]) == (True, [job.to_dict()])
    assert jobs.calls["observe"] == 0
