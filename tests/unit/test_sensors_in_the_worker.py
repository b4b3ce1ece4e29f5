"""Sensors that wait in the worker: their own `poke` or `execute`, calls inside of tasks, deferrable=False."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from datetime import datetime, timezone

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowSkipException

from airflow_resilient import Job, JobFailed, JobLost, JobUnreachable, Phase, RemoteJobSensor, compat
from airflow_resilient.compat import BaseOperator
from airflow_resilient.core.job import NO_CLAIM, Claim
from airflow_resilient.testing import InMemoryJobs, TaskTries
from airflow_resilient.testing.in_memory_jobs import JobPlan
from airflow_resilient.testing.task_tries import Deferred

if compat.airflow_version() >= (3, 2):
    from airflow.sdk.exceptions import AirflowRescheduleException
else:
    from airflow.exceptions import AirflowRescheduleException

CLAIM = Claim("b" * 16, 1)


class Sensor(RemoteJobSensor):
    def __init__(self, *, jobs, job="job-1", **kwargs):
        super().__init__(**{"poke_interval": 0.05, **kwargs})
        self.jobs, self.job = jobs, job
        self.asked = 0

    def remote_jobs(self, context):
        return InMemoryJobs(self.jobs)

    def watched(self, context):
        self.asked += 1
        return Job(self.job, NO_CLAIM, Phase.QUEUED, 0.0, "memory")


class Pokes(Sensor):
    """Overrides `poke`, and counts."""

    poked = 0

    def poke(self, context):
        self.poked += 1
        return super().poke(context)


class Executes(Sensor):
    """Overrides `execute`, and goes on when the job has arrived."""

    def execute(self, context):
        super().execute(context)
        return "went on"


@pytest.fixture(autouse=True)
def _polls_may_be_less_than_a_second_apart(monkeypatch):
    monkeypatch.setattr("airflow_resilient.settings.MIN_INTERVAL", 0.01)


@pytest.fixture
def jobs():
    return InMemoryJobs(f"memory-{uuid.uuid4()}", seconds=0.2, clock=time.time)


class Tries(TaskTries):
    def __init__(self, jobs, kind, **kwargs):
        self.made = []
        make = lambda: kind(task_id="wait", jobs=jobs.name, **kwargs)  # noqa: E731
        super().__init__(lambda: self.made.append(make()) or self.made[-1])

    def context(self, task):
        context = super().context(task)
        context["ti"].get_first_reschedule_date = lambda context: datetime.now(timezone.utc)
        return context


@pytest.mark.parametrize(
    ("kind", "given", "result"),
    [
        pytest.param(Pokes, {}, None, id="its-own-poke"),
        pytest.param(Executes, {}, "went on", id="its-own-execute"),
        pytest.param(Sensor, {"deferrable": False}, None, id="not-deferrable"),
    ],
)
def test_it_returns_when_the_job_has_arrived(jobs, kind, given, result):
    jobs.submit(CLAIM)
    tries = Tries(jobs, kind, **given)
    assert tries.start() == result
    assert jobs.live() == []
    assert jobs.calls["observe"] > 1
    assert tries.made[-1].asked == 1, "it may cost calls"


def test_its_own_poke_is_called_each_time(jobs):
    jobs.submit(CLAIM)
    tries = Tries(jobs, Pokes)
    tries.start()
    assert tries.made[-1].poked == jobs.calls["observe"]


@pytest.mark.parametrize("given", [{}, {"deferrable": True}])
def test_nothing_else_keeps_it_from_deferring(jobs, given):
    jobs.submit(CLAIM)
    assert isinstance(Tries(jobs, Sensor, **given).start(), Deferred)


@pytest.mark.skipif(
    compat.airflow_version() < (3, 0), reason="Airflow 2 looks for earlier pokes in its database"
)
@pytest.mark.parametrize(("kind", "given"), [(Pokes, {}), (Executes, {}), (Sensor, {"deferrable": False})])
def test_it_reschedules_where_the_mode_says_so(jobs, kind, given):
    jobs.submit(CLAIM)
    tries = Tries(jobs, kind, mode="reschedule", **given)
    with pytest.raises(AirflowRescheduleException):
        tries.start()
    assert jobs.calls["observe"] == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("kind", "warns"), [(Pokes, False), (Executes, False), (Sensor, True)])
def test_a_mode_without_effect_causes_a_warning(jobs, kind, warns):
    make = lambda: kind(task_id="wait", jobs=jobs.name, mode="reschedule")  # noqa: E731
    if warns:
        with pytest.raises(UserWarning, match="mode"):
            make()
    else:
        make()


@pytest.mark.parametrize(("kind", "given"), [(Pokes, {}), (Executes, {}), (Sensor, {"deferrable": False})])
def test_a_failed_job_is_the_same_error_as_without_a_worker(jobs, kind, given):
    jobs.plan(JobPlan(0.1, phase=Phase.FAILED))
    jobs.submit(CLAIM)
    with pytest.raises(JobFailed):
        Tries(jobs, kind, **given).start()
    with pytest.raises(AirflowSkipException):
        Tries(jobs, kind, soft_fail=True, **given).start()


@pytest.mark.parametrize("kind", [Pokes, Executes])
def test_a_refusal_at_once_is_final_and_throttling_is_nothing(jobs, kind):
    jobs.submit(CLAIM)
    jobs.throttle(3, "observe")
    Tries(jobs, kind).start()
    jobs.fail_next(PermissionError("denied"), "observe")
    with pytest.raises(JobUnreachable, match="denied"):
        Tries(jobs, kind).start()


@pytest.mark.parametrize("kind", [Pokes, Executes])
def test_later_refusals_must_be_many(jobs, kind):
    jobs.plan(seconds=None)
    jobs.submit(CLAIM)
    polls = []

    def deny(method, moment):
        if (method, moment) == ("observe", "before"):
            polls.append(method)
            if len(polls) > 1:
                raise PermissionError("denied")

    jobs._account.interfere = deny
    with pytest.raises(JobUnreachable, match=r"refuses to describe it.*denied"):
        Tries(jobs, kind).start()
    assert len(polls) == 11


def test_a_job_that_is_not_there_is_lost_in_the_end(jobs, monkeypatch):
    policy = RemoteJobSensor._poll_policy
    monkeypatch.setattr(
        RemoteJobSensor, "_poll_policy", lambda self: replace(policy(self), lost_after_seconds=0.0)
    )
    for kind in (Pokes, Executes):
        with pytest.raises(JobLost):
            Tries(jobs, kind).start()


@pytest.mark.parametrize("kind", [Pokes, Executes])
def test_an_archive_is_asked_before_a_job_that_is_not_there_is_lost(jobs, kind, monkeypatch):
    policy = RemoteJobSensor._poll_policy
    monkeypatch.setattr(
        RemoteJobSensor, "_poll_policy", lambda self: replace(policy(self), lost_after_seconds=0.0)
    )
    # It has ended, and the service has forgotten it.
    archived = InMemoryJobs(
        f"memory-{uuid.uuid4()}", seconds=0.0, forget_after=0.0, archive=True, clock=time.time
    )
    archived.submit(CLAIM)
    Tries(archived, kind).start()
    assert [call.method for call in archived.journal].count("recover") == 1


def test_the_timeout_of_a_sensor_that_overrides_execute(jobs):
    jobs.plan(seconds=None)
    jobs.submit(CLAIM)
    for given, error in (({}, AirflowSensorTimeout), ({"soft_fail": True}, AirflowSkipException)):
        with pytest.raises(error):
            Tries(jobs, Executes, timeout=0.3, **given).start()


class Python(BaseOperator):
    def __init__(self, *, code, **kwargs):
        super().__init__(**kwargs)
        self.code = code

    def execute(self, context):
        return self.code(context)


@pytest.mark.filterwarnings("ignore:.*mode")
@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_inside_of_another_task_it_waits_and_never_reschedules_that_task(jobs, mode):
    jobs.submit(CLAIM)

    def code(context):
        Sensor(task_id="wait", jobs=jobs.name, mode=mode).execute(context)
        return len(jobs.live())

    assert TaskTries(lambda: Python(task_id="python", code=code)).start() == 0


def test_a_signal_ends_the_try(jobs):
    jobs.plan(seconds=None)
    jobs.submit(CLAIM)
    tries = Tries(jobs, Executes)

    def handler(method, moment):
        if jobs.calls["observe"] == 2:
            jobs._account.interfere = None
            tries.made[-1].on_kill()

    jobs._account.interfere = handler
    with pytest.raises(SystemExit):
        tries.start()
    assert jobs.calls["cancel"] == 0
