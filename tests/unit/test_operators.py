"""The operator's whole way through Airflow's classes, over a service in memory."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_resilient import (
    InvalidParameter,
    JobCancelled,
    JobFailed,
    JobLost,
    JobTimeout,
    JobUnreachable,
    NoCapacity,
    NotSubmitted,
    Phase,
    PollPolicy,
    RemoteJobOperator,
    compat,
    settings,
)
from airflow_resilient.compat import AirflowFailException, airflow_version
from airflow_resilient.core.job import Cause, Claim
from airflow_resilient.testing import InMemoryJobs, TaskTries
from airflow_resilient.testing.in_memory_jobs import Crash, JobPlan
from airflow_resilient.testing.task_tries import Deferred

if airflow_version() >= (3, 2):
    from airflow.sdk.exceptions import AirflowTaskTimeout
else:
    from airflow.exceptions import AirflowTaskTimeout

QUICK = PollPolicy(
    interval=0.05,
    first_interval=0.01,
    max_backoff=0.1,
    lost_after_polls=3,
    lost_after_seconds=0.0,
    give_up_after_denials=3,
)


class Operator(RemoteJobOperator):
    def __init__(self, *, jobs, wait=True, **kwargs):
        super().__init__(poll_policy=QUICK, **kwargs)
        self.jobs = jobs
        self.wait_for_completion = wait

    def remote_jobs(self, context):
        return InMemoryJobs(self.jobs)

    def _policy(self):
        return replace(super()._policy(), first_backoff=0.05, first_pause=0.01, max_backoff=0.1)

    def submitted(self, context, job):
        context["ti"].xcom_push(key="pushed", value=job.id)


@pytest.fixture
def jobs():
    return InMemoryJobs(f"memory-{uuid.uuid4()}", seconds=0.05, clock=time.time)


def operator(jobs, **kwargs):
    return lambda: Operator(task_id="sort", jobs=jobs.name, **kwargs)


def test_a_job_is_submitted_once_watched_without_a_slot_and_its_id_returned(jobs):
    tries = TaskTries(operator(jobs))
    deferred = tries.start()
    assert isinstance(deferred, Deferred)
    assert tries.xcoms["pushed"] == "job-1"
    assert tries.finish(deferred) == "job-1"
    assert jobs.calls["submit"] == 1
    assert jobs.calls["find"] == 0, "a first try has nothing to search for"


def test_a_crash_right_after_the_service_accepted_the_job_costs_no_second_job(jobs):
    tries = TaskTries(operator(jobs, retries=1))
    jobs.crash("submit", "after")
    with pytest.raises(Crash):
        tries.start()
    assert tries.run() == "job-1"
    assert len(jobs.history) == 1


def test_a_job_that_ended_while_nobody_polled_is_adopted(jobs):
    tries = TaskTries(operator(jobs, retries=1))
    tries.start()
    jobs.advance(60)
    assert tries.run() == "job-1", "the second try starts without an event, as after a lost worker"
    assert len(jobs.history) == 1


@pytest.mark.parametrize("rescheduled", [True, False], ids=["no-dag-at-the-resume", "a-state-mismatch"])
@pytest.mark.parametrize("seconds", [0, 60], ids=["while-it-runs", "when-it-has-ended"])
def test_a_try_that_airflow_begins_again_makes_no_second_job(rescheduled, seconds):
    name = f"memory-{uuid.uuid4()}"
    jobs = InMemoryJobs(name, seconds=0.05, clock=time.time, tokens=False)
    tries = TaskTries(operator(jobs))
    tries.start()
    jobs.advance(seconds)
    assert tries.finish(tries.begin_again(rescheduled=rescheduled)) == "job-1"
    assert len(jobs.history) == 1


def test_a_try_that_was_begun_again_knows_it_after_a_pause_too():
    jobs = InMemoryJobs(f"memory-{uuid.uuid4()}", clock=time.time, tokens=False)
    jobs.plan(seconds=None)
    tries = TaskTries(operator(jobs))
    tries.start()
    jobs.finish(jobs.history[0], Phase.FAILED, Cause.APPLICATION, "exit code 1")
    jobs.throttle(8, "find")
    with pytest.raises(JobFailed, match="exit code 1"):
        tries.finish(tries.begin_again(rescheduled=False))
    assert len(jobs.history) == 1


def test_a_try_that_airflow_begins_again_reports_how_its_job_failed(jobs):
    jobs.plan(JobPlan(0.01, phase=Phase.FAILED, reason="exit code 1"))
    tries = TaskTries(operator(jobs))
    tries.start()
    jobs.advance(60)
    with pytest.raises(JobFailed, match="exit code 1"):
        tries.begin_again()
    assert len(jobs.history) == 1


def test_a_failed_job_is_reported_once_and_the_retry_starts_the_next_one(jobs):
    jobs.plan(JobPlan(0.01, phase=Phase.FAILED, reason="exit code 1"))
    tries = TaskTries(operator(jobs, retries=1))
    with pytest.raises(JobFailed, match="exit code 1") as failure:
        tries.run()
    assert failure.value.job.id == "job-1"
    assert tries.run() == "job-2"


def test_a_job_that_a_person_stopped_is_not_retried(jobs):
    from airflow_resilient.compat import AirflowFailException

    jobs.plan(JobPlan(0.01, phase=Phase.CANCELLED))
    with pytest.raises(JobCancelled) as failure:
        TaskTries(operator(jobs, retries=3)).run()
    assert isinstance(failure.value, AirflowFailException)


def test_a_failure_of_the_infrastructure_is_submitted_again_within_the_try(jobs):
    jobs.plan(JobPlan(0.01, phase=Phase.FAILED, cause=Cause.INFRASTRUCTURE, reason="Spot"))
    tries = TaskTries(operator(jobs))
    assert tries.run() == "job-2"
    assert tries.try_number == 1
    assert [real.claim.token[-4:] for real in jobs.history] == [jobs.history[0].claim.token[-4:], "-1-1"]


def test_infrastructure_retries_are_bounded(jobs):
    jobs.plan(*[JobPlan(0.01, phase=Phase.FAILED, cause=Cause.INFRASTRUCTURE)] * 5)
    with pytest.raises(JobFailed):
        TaskTries(operator(jobs, infrastructure_retries=1)).run()
    assert len(jobs.history) == 2


def test_without_capacity_it_is_submitted_again_and_then_reported(jobs):
    jobs.refuse(3)
    with pytest.raises(NoCapacity):
        TaskTries(operator(jobs)).run()
    assert jobs.history == []
    jobs.refuse(2)
    assert TaskTries(operator(jobs)).run() == "job-1"


def test_clear_cancels_the_job_that_still_runs_waits_for_its_end_and_starts_a_new_one(jobs):
    jobs.plan(seconds=None)
    tries = TaskTries(operator(jobs))
    tries.start()
    tries.clear()
    assert tries.run() == "job-2"
    assert jobs.overlaps() == []
    assert jobs.history[0].stop_reason == "superseded by a newer try of the same task instance"


@pytest.mark.parametrize(("on_clear", "job"), [("restart", "job-2"), ("reattach", "job-1")])
def test_a_retry_that_is_cleared_while_it_is_queued_leaves_one_job(jobs, on_clear, job):
    """As `airflow-resilient unstick` does it: the try before has a job that runs."""
    jobs.plan(seconds=None)
    tries = TaskTries(operator(jobs, on_clear=on_clear))
    tries.start()
    tries.try_number += 1  # queued, and never started
    tries.clear()
    outcome = tries.start()
    if on_clear == "reattach":
        jobs.finish(jobs.history[0])
    assert tries.finish(outcome) == job
    assert jobs.overlaps() == []


def test_clear_of_a_success_runs_it_again(jobs):
    tries = TaskTries(operator(jobs))
    assert tries.run() == "job-1"
    tries.clear()
    assert tries.run() == "job-2"


def test_clear_takes_the_job_over_where_the_user_wants_that(jobs):
    jobs.plan(seconds=None)
    tries = TaskTries(operator(jobs, on_clear="reattach"))
    tries.start()
    tries.clear()
    deferred = tries.start()
    jobs.finish(jobs.history[0])
    assert tries.finish(deferred) == "job-1"


def test_at_the_deadline_the_job_is_cancelled_its_end_awaited_and_the_error_says_so(jobs):
    jobs.plan(seconds=None)
    tries = TaskTries(operator(jobs, execution_timeout=timedelta(seconds=0.3)))
    with pytest.raises(JobTimeout, match=r"execution_timeout of 0:00:00\.3") as timeout:
        tries.run()
    assert timeout.value.job.phase is Phase.CANCELLED
    assert jobs.live() == []


def test_airflow_s_own_limit_comes_after_ours_where_it_would_keep_us_from_cancelling(jobs):
    task = operator(jobs, execution_timeout=timedelta(seconds=20))()
    tries = TaskTries(lambda: task)
    deferred = tries.start()
    assert deferred.kwargs["deadline"] == pytest.approx(tries.started.timestamp() + 20)
    moved = timedelta(seconds=380)
    assert task.execution_timeout == moved


def test_at_the_deadline_the_job_is_left_running_where_the_user_wants_that(jobs):
    jobs.plan(seconds=None)
    tries = TaskTries(operator(jobs, execution_timeout=timedelta(seconds=0.3), on_timeout="leave"))
    with pytest.raises(JobTimeout, match="left running"):
        tries.run()
    assert [real.id for real in jobs.live()] == ["job-1"]


def test_a_success_at_the_last_moment_beats_the_deadline(jobs):
    jobs.plan(seconds=None)
    tries = TaskTries(operator(jobs, execution_timeout=timedelta(seconds=0.2)))
    deferred = tries.start()
    payload = tries.watch(deferred)
    assert payload["time"]
    jobs.finish(jobs.history[0])
    assert tries.finish(tries.resume(deferred, payload)) == "job-1"


@pytest.mark.parametrize("error", ["Trigger timeout", "Trigger/TI failure: boom"])
def test_a_trigger_that_timed_out_or_crashed_spends_no_retry_and_makes_no_second_job(jobs, error):
    tries = TaskTries(operator(jobs))
    tries.start()
    again = tries.resume_failed(error)
    assert isinstance(again, Deferred)
    assert tries.finish(again) == "job-1"
    assert (tries.try_number, len(jobs.history)) == (1, 1)


def test_a_trigger_that_always_crashes_fails_the_try_in_the_end_and_leaves_the_job(jobs):
    jobs.plan(seconds=None)
    tries = TaskTries(operator(jobs, retries=1))
    tries.start()
    for _ in range(5):
        assert isinstance(tries.resume_failed("Trigger failure"), Deferred)
    with pytest.raises(JobUnreachable, match=r"6 times in a row.*job-1 may still run.*installed"):
        tries.resume_failed("Trigger failure")
    assert len(jobs.live()) == 1
    assert tries.start().kwargs["jobs"][0]["id"] == "job-1", "the next try takes it over"


def test_a_trigger_that_crashes_now_and_then_is_forgiven(jobs):
    jobs.plan(seconds=None)
    tries = TaskTries(operator(jobs, execution_timeout=timedelta(seconds=30)))
    deferred = tries.start()
    for _ in range(5):
        deferred = tries.resume_failed("Trigger failure")
    seen = {"memory": deferred.kwargs["memory"], "jobs": deferred.kwargs["jobs"]}
    deferred = tries.resume(deferred, {**seen, "time": False, "refused": None, "log": []})
    assert deferred.kwargs["memory"]["crashes"] == 0


def test_the_failure_of_a_job_watched_by_a_crashed_trigger_is_reported(jobs):
    jobs.plan(JobPlan(0.01, phase=Phase.FAILED))
    tries = TaskTries(operator(jobs, retries=1))
    tries.start()
    with pytest.raises(JobFailed):
        tries.finish(tries.resume_failed())
    assert len(jobs.history) == 1


def test_throttling_never_fails_the_task(jobs):
    jobs.plan(seconds=0.3)
    jobs.throttle(6, "observe")
    assert TaskTries(operator(jobs)).run() == "job-1"


def test_a_throttled_submission_gives_the_slot_back_instead_of_a_retry(jobs):
    jobs.throttle(4, "submit")
    tries = TaskTries(operator(jobs))
    deferred = tries.start()
    assert deferred.kwargs["jobs"] == [], "it waits for a time, not for a job"
    assert tries.finish(deferred) == "job-1"
    assert len(jobs.history) == 1


def test_a_lost_answer_makes_no_second_job(jobs):
    jobs.lose_answer("submit")
    assert TaskTries(operator(jobs)).run() == "job-1"
    assert len(jobs.history) == 1


def test_a_service_that_refuses_to_be_asked_fails_the_task_and_leaves_the_job(jobs):
    jobs.plan(seconds=None)
    jobs.fail_next(PermissionError("AccessDenied"), "observe", times=3)
    tries = TaskTries(operator(jobs, retries=1))
    with pytest.raises(JobUnreachable, match="AccessDenied"):
        tries.run()
    assert len(jobs.live()) == 1
    deferred = tries.start()
    jobs.finish(jobs.history[0])
    assert tries.finish(deferred) == "job-1", "the next try takes it over"


def test_nobody_waits_for_a_job_when_wait_for_completion_is_off(jobs):
    jobs.plan(seconds=None)
    assert TaskTries(operator(jobs, wait=False)).start() == "job-1"


def test_mapped_task_instances_have_jobs_of_their_own(jobs):
    for map_index in (0, 1):
        TaskTries(operator(jobs), map_index=map_index).run()
    assert len({real.claim.task_key for real in jobs.history}) == 2


def test_two_deployments_with_namespaces_of_their_own_never_touch_each_others_jobs(jobs, monkeypatch):
    jobs.plan(*[JobPlan(None)] * 2)
    for namespace in ("staging", "production"):
        monkeypatch.setenv("AIRFLOW__AIRFLOW_RESILIENT__NAMESPACE", namespace)
        tries = TaskTries(operator(jobs, retries=1))
        tries.start()
        tries.start()
    assert len(jobs.live()) == 2
    monkeypatch.setenv("AIRFLOW__AIRFLOW_RESILIENT__NAMESPACE", "production")
    deferred = TaskTries(operator(jobs, retries=1), try_number=1).start()
    assert deferred.kwargs["jobs"][0]["id"] == "job-2", "the same namespace shares one job"


def test_what_the_trigger_stores_is_json_and_small(jobs):
    deferred = TaskTries(operator(jobs)).start()
    assert len(json.dumps(deferred.kwargs)) < 2000


# --- on_kill --------------------------------------------------------------------------------------


class Made:
    """The operators that tries have made; the last one is that of the latest visit."""

    def __init__(self, jobs, **kwargs):
        self.all, self.make = [], operator(jobs, **kwargs)

    def __call__(self):
        self.all.append(self.make())
        return self.all[-1]

    def pass_deadline(self):
        last = self.all[-1]
        last.execution_timeout = last._limit = timedelta(0)
        return last


@pytest.mark.parametrize("limit", [None, timedelta(hours=1)], ids=["without-deadline", "before-the-deadline"])
def test_a_stopping_worker_leaves_the_job_to_the_next_try(jobs, limit):
    jobs.plan(seconds=None)
    made = Made(jobs, retries=1, execution_timeout=limit)
    TaskTries(made).start()
    made.all[-1].on_kill()
    assert len(jobs.live()) == 1


def test_a_worker_that_is_stopped_because_of_the_deadline_cancels_the_job(jobs):
    jobs.plan(seconds=None)
    made = Made(jobs, execution_timeout=timedelta(hours=1))
    TaskTries(made).start()
    jobs.throttle(2, "cancel")
    made.pass_deadline().on_kill()
    assert jobs.live() == []


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("on_timeout", ["cancel", "leave"])
def test_the_deadline_in_the_middle_of_a_submission_leaves_no_job(jobs, moment, on_timeout):
    jobs.plan(seconds=None)
    made = Made(jobs, execution_timeout=timedelta(hours=1), on_timeout=on_timeout)
    jobs.fail_next(AirflowTaskTimeout(), "submit", moment)
    with pytest.raises(AirflowTaskTimeout):
        TaskTries(made).start()
    made.pass_deadline().on_kill()
    assert len(jobs.live()) == (on_timeout == "leave" and moment == "after")


def test_a_deadline_cancels_no_job_of_an_earlier_number(jobs):
    jobs.plan(seconds=None)
    made = Made(jobs, retries=1, execution_timeout=timedelta(hours=1))
    tries = TaskTries(made)
    jobs.crash("submit", "after")
    with pytest.raises(Crash):
        tries.start()
    jobs.fail_next(AirflowTaskTimeout(), "find", "after")
    with pytest.raises(AirflowTaskTimeout):
        tries.start()
    made.pass_deadline().on_kill()
    assert len(jobs.live()) == 1, "the next try takes it over, or cancels it"


def test_a_service_that_cannot_cancel_at_the_deadline_is_reported_and_raises_nothing(jobs, caplog, capsys):
    jobs.plan(seconds=None)
    made = Made(jobs, execution_timeout=timedelta(hours=1))
    TaskTries(made).start()
    jobs.fail_next(PermissionError("denied"), "cancel")
    made.pass_deadline().on_kill()
    assert "job-1 may still run: PermissionError: denied" in caplog.text + capsys.readouterr().out


@pytest.mark.parametrize(("method", "submitted"), [("find", 0), ("submit", 1)])
def test_a_signal_in_the_middle_of_a_visit_submits_nothing_more_and_loses_nothing(jobs, method, submitted):
    """A worker gets SIGTERM; Airflow calls on_kill, which returns, and the visit goes on."""
    jobs.plan(seconds=None)
    made = Made(jobs, retries=1)
    tries = TaskTries(made)
    tries.try_number = 1 if method == "find" else 0

    def signalled(called, moment):
        if (called, moment) == (method, "after"):
            made.all[-1].on_kill()

    jobs._account.interfere = signalled
    deferred = tries.start()
    assert isinstance(deferred, Deferred)
    assert len(jobs.history) == submitted
    jobs._account.interfere = None
    deferred = tries.resume(deferred, tries.watch(deferred)) if not submitted else deferred
    jobs.finish(jobs.history[0])
    assert tries.finish(deferred) == "job-1"
    assert len(jobs.history) == 1


@pytest.mark.parametrize(("method", "tries_before"), [("find", 1), ("submit", 0)])
def test_a_signal_in_the_middle_of_a_visit_calls_nothing(jobs, method, tries_before):
    """The visit that it interrupts may hold a lock: of its client, or of Airflow's way to its supervisor."""
    jobs.plan(seconds=None)
    made, calls = Made(jobs, retries=1), []
    tries = TaskTries(made)
    tries.try_number = tries_before

    def signalled(called, moment):
        if called == method:
            before = sum(jobs.calls.values())
            made.all[-1].on_kill()
            calls.append((moment, sum(jobs.calls.values()) - before))

    jobs._account.interfere = signalled
    assert isinstance(tries.start(), Deferred)
    assert {moment for moment, _ in calls} == {"before", "after"}
    assert {count for _, count in calls} == {0}


def test_the_deadline_is_extended_once_however_often_airflow_prepares_the_task(jobs):
    task = operator(jobs, execution_timeout=timedelta(hours=1))()
    context = TaskTries(operator(jobs)).context(task)
    limits = []
    for _ in range(3):
        task.pre_execute(context)
        limits.append(task.execution_timeout)
    assert limits[0] == limits[1] == limits[2] > timedelta(hours=1)


# --- errors that do not pass ----------------------------------------------------------------------


def test_a_try_that_cannot_submit_fails_with_the_last_error(jobs, monkeypatch):
    monkeypatch.setenv("AIRFLOW__AIRFLOW_RESILIENT__TRANSIENT_ERROR_TIMEOUT", "60")
    settings.reread()
    jobs.fail_next(ConnectionRefusedError("nobody listens"), times=100)
    tries = TaskTries(operator(jobs, retries=1))
    deferred = tries.start()
    memory = {**deferred.kwargs["memory"], "transient_for": 61.0}
    event = {"memory": memory, "jobs": [], "time": True, "refused": None, "log": []}
    with pytest.raises(
        NotSubmitted, match=r"no job was submitted: 4 errors in 1 min, the last: .*nobody"
    ) as error:
        tries.resume(deferred, event)
    assert not isinstance(error.value, AirflowFailException), "Airflow's retries apply"


def test_a_retry_that_cannot_search_says_that_a_job_may_run(jobs):
    jobs.plan(seconds=None)
    tries = TaskTries(operator(jobs, retries=2))
    jobs.crash("submit", "after")
    with pytest.raises(Crash):
        tries.start()
    jobs.fail_next(ConnectionRefusedError("nobody listens"), times=100)
    deferred = tries.start()
    memory = {**deferred.kwargs["memory"], "transient_for": 3601.0}
    event = {"memory": memory, "jobs": [], "time": True, "refused": None, "log": []}
    with pytest.raises(JobUnreachable, match="A job of an earlier try may still run"):
        tries.resume(deferred, event)
    jobs._account.faults.clear()
    deferred = tries.start()
    assert deferred.kwargs["jobs"][0]["id"] == "job-1", "the next try takes it over"


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("on_clear", "sometimes"), ("on_timeout", "never"), ("infrastructure_retries", -1)],
)
def test_a_wrong_parameter_is_refused_when_the_dag_is_parsed(parameter, value):
    with pytest.raises(InvalidParameter, match=f"'sort'.*{parameter}={value!r}.*write"):
        Operator(task_id="sort", jobs="any", **{parameter: value})


def test_a_service_that_the_triggerer_cannot_import_is_refused_before_anything_is_submitted(jobs):
    class InADagFile(InMemoryJobs):
        pass

    InADagFile.__module__ = "unusual_prefix_123_my_dag"

    class Mine(Operator):
        def remote_jobs(self, context):
            return InADagFile(self.jobs)

    with pytest.raises(InvalidParameter, match="triggerer cannot import"):
        TaskTries(lambda: Mine(task_id="sort", jobs=jobs.name)).start()
    assert jobs.history == []


# --- whose job it is ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "xcom",
    [
        pytest.param("nonsense", id="a-text"),
        pytest.param([{"seen": 1}], id="a-list"),
        pytest.param({"started": "now", "seen": [], "own_job_ids": []}, id="no-time"),
        pytest.param(None, id="nothing"),
    ],
)
def test_an_xcom_that_is_no_memory_costs_a_search_and_nothing_else(jobs, xcom):
    tries = TaskTries(operator(jobs))
    tries.start()
    tries.xcoms["remote_job"] = xcom
    assert tries.finish(tries.resume_failed()) == "job-1"
    assert len(jobs.history) == 1


def _job_of(tries):
    """The job whose end a try reports when its trigger has crashed."""
    try:
        return tries.finish(tries.resume_failed())
    except JobLost as error:
        return f"{error.job.id} lost"


def test_an_xcom_that_names_a_job_of_somebody_else_neither_stops_it_nor_reports_it(jobs):
    theirs = jobs.submit(Claim("a" * 16, 1))
    jobs.finish(theirs)
    jobs.plan(seconds=None)
    still = jobs.submit(Claim("b" * 16, 1))
    for phase in ("succeeded", "running"):
        for named in (theirs, still):
            jobs.plan(seconds=0.05)
            tries = TaskTries(
                operator(jobs, execution_timeout=timedelta(seconds=5)), run_id=f"{phase}-{named.id}"
            )
            tries.start()
            (own,) = tries.xcoms["remote_job"]["seen"]
            tries.xcoms["remote_job"]["seen"] = [{**own, "id": named.id, "phase": phase}]
            tries.xcoms["remote_job"]["own_job_ids"] = [named.id]
            assert _job_of(tries) in (own["id"], f"{named.id} lost")
    assert jobs.real(still).stop_asked is None


def test_a_made_up_start_does_not_put_off_the_deadline(jobs):
    jobs.plan(seconds=None)
    tries = TaskTries(operator(jobs, execution_timeout=timedelta(seconds=0.3)))
    tries.start()
    tries.xcoms["remote_job"]["started"] = time.time() + 1e6
    with pytest.raises(JobTimeout):
        tries.finish(tries.resume_failed())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(1, 3, id="raised"),
        pytest.param(3, 4, id="raised-by-one"),
        pytest.param(3, 1, id="lowered"),
    ],
)
def test_a_clear_is_honoured_though_retries_change_before_its_run(jobs, before, after):
    retries = [before]
    tries = TaskTries(lambda: Operator(task_id="sort", jobs=jobs.name, retries=retries[0]))
    assert tries.run() == "job-1"
    tries.clear()
    retries[0] = after
    assert tries.run() == "job-2"


@pytest.mark.parametrize(("scheduler", "worker"), [(3, 0), (0, 3), (2, 5)])
def test_retries_adopt_a_job_though_workers_read_other_retries_than_the_scheduler(jobs, scheduler, worker):
    jobs.plan(seconds=None)
    tries = TaskTries(operator(jobs, retries=worker), max_tries=scheduler or 1)
    for _ in range(4):
        assert isinstance(tries.start(), Deferred)  # and its worker dies
    assert (len(jobs.history), jobs.calls["cancel"]) == (1, 0)


def test_a_stale_worker_leaves_the_job_to_the_next_try_at_its_deadline(jobs, monkeypatch):
    jobs.plan(seconds=None)
    tries = TaskTries(operator(jobs, execution_timeout=timedelta(seconds=0.2)))
    deferred = tries.start()
    payload = tries.watch(deferred)
    monkeypatch.setattr(compat, "state_of", lambda ti: "deferred")
    with pytest.raises(JobTimeout, match="another try of this task instance has taken over"):
        tries.resume(deferred, payload)
    assert jobs.calls["cancel"] == 0
    monkeypatch.setattr(compat, "state_of", lambda ti: "running")
    with pytest.raises(JobTimeout, match="job-1 cancelled"):
        tries.resume(deferred, payload)
    assert jobs.calls["cancel"] == 1
