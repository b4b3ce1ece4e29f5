"""Operators that wait in the worker, with every promise but the slot: own `execute`, and deferrable=False."""

from __future__ import annotations

import logging
import time
import uuid
from collections import defaultdict
from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_resilient import (
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
)
from airflow_resilient.compat import AirflowFailException, AirflowSkipException
from airflow_resilient.core.job import Cause
from airflow_resilient.core.reconcile import running_on_key
from airflow_resilient.core.waiting import KILLED_EXIT_CODE
from airflow_resilient.operators import LEFT_RUNNING
from airflow_resilient.testing import InMemoryJobs, TaskTries
from airflow_resilient.testing.in_memory_jobs import Crash, JobPlan
from airflow_resilient.testing.task_tries import Deferred

TIMEOUT, TERMINATED, *_ = compat.interrupts()
QUICK = PollPolicy(
    interval=0.05,
    first_interval=0.01,
    max_backoff=0.1,
    lost_after_polls=3,
    lost_after_seconds=0.0,
    give_up_after_denials=3,
)
REQUESTS = defaultdict(list)
"""What was submitted, by the name of the account."""
LOGS = defaultdict(list)
"""The log of every job of an account."""


class Requested(InMemoryJobs):
    """Jobs of requests, with logs."""

    log_drain = 0.0

    def __init__(self, name, request=None, **more):
        super().__init__(name, **more)
        self.request = request or {}

    def request_fields(self):
        return self.request

    def submit(self, claim):
        REQUESTS[self.name].append(self.request)
        return super().submit(claim)

    def read_log(self, job, where, cursor):
        start = cursor or 0
        lines = LOGS[self.name][start:]
        return [(0.0, line) for line in lines], start + len(lines)


class Plain(RemoteJobOperator):
    """An operator of a user, as the documentation describes it."""

    log_interval = 0.0

    def __init__(self, *, jobs, overrides=None, wait=True, **kwargs):
        super().__init__(poll_policy=QUICK, **kwargs)
        self.jobs = jobs
        self.overrides = overrides
        self.wait_for_completion = wait
        self.made = 0

    def remote_jobs(self, context):
        self.made += 1
        return Requested(self.jobs, {"image": "etl:7", "overrides": self.overrides})

    def job_log(self):
        return {} if LOGS[self.jobs] else None

    def _policy(self):
        return replace(super()._policy(), first_backoff=0.05, first_pause=0.01, max_backoff=0.1)


class Builds(Plain):
    """The first pattern: the request is built in `execute`."""

    def execute(self, context):
        self.overrides = {"day": "2026-11-27"}
        return super().execute(context)


class Catches(Plain):
    """The second pattern: `execute` acts on the result, or on the error."""

    seen: list[str]

    def execute(self, context):
        self.seen = []
        try:
            result = super().execute(context)
            self.seen.append("result")
        except JobFailed as error:
            self.seen.append("error")
            if error.job.exit_code == 3:
                raise AirflowSkipException("nothing to do") from error
            raise AirflowFailException("mapped") from error
        finally:
            self.seen.append("finally")
        return {"job": result}


@pytest.fixture
def jobs():
    account = Requested(f"memory-{uuid.uuid4()}", seconds=0.05, clock=time.time)
    yield account
    for kept in (REQUESTS, LOGS):
        kept.pop(account.name, None)


class Tries(TaskTries):
    """Tries whose operators are kept."""

    def __init__(self, kind, jobs, **kwargs):
        self.made = []
        make = lambda: kind(task_id="sort", jobs=jobs.name, **kwargs)  # noqa: E731
        super().__init__(lambda: self.made.append(make()) or self.made[-1])


def requests_of(jobs):
    return REQUESTS[jobs.name]


BUILT = {"image": "etl:7", "overrides": {"day": "2026-11-27"}}


# --- a subclass with its own execute --------------------------------------------------------------


def test_super_execute_returns_the_result_when_the_job_is_over(jobs):
    tries = Tries(Builds, jobs)
    assert tries.start() == "job-1"
    assert requests_of(jobs) == [BUILT]
    assert jobs.live() == []
    assert tries.xcoms["remote_job"]["own_job_ids"] == ["job-1"], "for `explain`, and the sweep"


def test_the_log_says_once_why_it_waits_here_and_what_to_override(jobs, caplog, capsys):
    with caplog.at_level(logging.INFO):
        Tries(Builds, jobs).start()
    logged = caplog.text, capsys.readouterr().out  # of Airflow 2 and 3; 2 has both
    words = "waiting in the worker, which keeps its slot: Builds overrides execute()"
    assert max(each.count(words) for each in logged) == 1
    said = "".join(logged)
    assert "override remote_jobs(), conclude() and failure() instead" in said


def test_the_service_is_made_once_for_each_execute(jobs):
    jobs.plan(JobPlan(0.01, phase=Phase.FAILED, cause=Cause.INFRASTRUCTURE))
    tries = Tries(Builds, jobs)
    tries.start()
    assert tries.made[-1].made == 1


@pytest.mark.parametrize(
    ("harm", "submitted"),
    [
        pytest.param(
            lambda jobs: jobs.plan(JobPlan(0.01, phase=Phase.FAILED, cause=Cause.INFRASTRUCTURE)),
            2,
            id="Spot",
        ),
        pytest.param(lambda jobs: jobs.refuse(2), 3, id="no-capacity"),
        pytest.param(lambda jobs: jobs.lose_answer("submit"), 1, id="lost-answer"),
        pytest.param(lambda jobs: jobs.throttle(4, "submit"), 5, id="throttled"),
        pytest.param(lambda jobs: jobs.throttle(4, "observe"), 1, id="throttled-polls"),
        pytest.param(lambda jobs: jobs.lose_answer("observe", 3), 1, id="lost-polls"),
    ],
)
def test_every_submission_of_a_try_is_the_request_that_its_execute_has_built(jobs, harm, submitted):
    harm(jobs)
    tries = Tries(Builds, jobs)
    assert tries.start() == jobs.history[-1].id
    assert requests_of(jobs) == [BUILT] * submitted
    assert (tries.try_number, jobs.overlaps()) == (1, [])


@pytest.mark.parametrize(
    ("method", "moment"), [("submit", "after"), ("observe", "before"), ("observe", "after")]
)
def test_a_retry_after_a_crash_runs_execute_again_and_adopts_the_job(jobs, method, moment):
    jobs.crash(method, moment)
    tries = Tries(Builds, jobs, retries=1)
    with pytest.raises(Crash):
        tries.start()
    assert tries.start() == "job-1"
    assert requests_of(jobs) == [BUILT]


def test_a_retry_adopts_a_job_that_has_ended_meanwhile(jobs):
    jobs.crash("observe")
    tries = Tries(Catches, jobs, retries=1)
    with pytest.raises(Crash):
        tries.start()
    jobs.finish(jobs.history[0])
    assert tries.start() == {"job": "job-1"}
    assert len(jobs.history) == 1


def test_a_clear_of_a_running_task_instance_cancels_its_job_and_builds_the_next_request(jobs):
    jobs.plan(seconds=None)
    jobs.crash("observe")
    tries = Tries(Builds, jobs)
    with pytest.raises(Crash):
        tries.start()
    tries.clear()
    assert tries.start() == "job-2"
    assert requests_of(jobs) == [BUILT] * 2
    assert jobs.history[0].stop_reason.startswith("superseded")
    assert jobs.overlaps() == []


def test_code_after_super_execute_runs_when_the_job_is_over(jobs):
    tries = Tries(Catches, jobs)
    assert tries.start() == {"job": "job-1"}
    assert tries.made[-1].seen == ["result", "finally"]


@pytest.mark.parametrize(("code", "error"), [(3, AirflowSkipException), (1, AirflowFailException)])
def test_code_around_super_execute_catches_how_the_job_has_failed(jobs, code, error):
    jobs.plan(JobPlan(0.01, phase=Phase.FAILED, exit_code=code, cause=Cause.APPLICATION))
    tries = Tries(Catches, jobs, retries=1)
    with pytest.raises(error):
        tries.start()
    assert tries.made[-1].seen == ["error", "finally"]
    assert tries.start() == {"job": "job-2"}, "the failure was reported: to the next try it is history"


def test_each_kind_of_end_is_the_same_error_as_without_a_worker(jobs):
    jobs.plan(JobPlan(0.01, phase=Phase.CANCELLED))
    with pytest.raises(JobCancelled):
        Tries(Builds, jobs).start()
    jobs.refuse(3)
    with pytest.raises(NoCapacity):
        Tries(Builds, jobs).start()
    jobs.fail_next(PermissionError("AccessDenied"), "observe", times=3)
    with pytest.raises(JobUnreachable, match=r"AccessDenied.*the next try takes the job over"):
        Tries(Builds, jobs).start()


def test_a_job_that_the_service_forgets_is_lost(jobs):
    jobs.plan(seconds=None)

    def forget(method, moment):
        jobs.history.clear()

    tries = Tries(Builds, jobs)
    jobs._account.interfere = lambda method, moment: forget(method, moment) if method == "observe" else None
    with pytest.raises(JobLost):
        tries.start()


@pytest.mark.parametrize(("on_timeout", "live"), [("cancel", 0), ("leave", 1)])
def test_the_deadline_ends_the_job_or_leaves_it(jobs, on_timeout, live):
    jobs.plan(seconds=None)
    tries = Tries(Catches, jobs, execution_timeout=timedelta(seconds=0.3), on_timeout=on_timeout)
    with pytest.raises(TIMEOUT) as timeout:
        tries.start()
    assert isinstance(timeout.value.__cause__, JobTimeout)
    assert timeout.value.job.id == "job-1"
    assert tries.made[-1].seen == ["finally"]
    assert len(jobs.live()) == live
    assert (running_on_key(1) in tries.xcoms) is bool(live)


def test_a_job_that_is_not_awaited_is_left_running(jobs, caplog, capsys):
    jobs.plan(seconds=None)
    tries = Tries(Catches, jobs, wait=False)
    with caplog.at_level(logging.INFO):
        assert tries.start() == {"job": "job-1"}
    assert tries.xcoms[running_on_key(1)] == ["job-1"]
    assert "waiting in the worker" not in caplog.text + capsys.readouterr().out


def test_its_log_is_copied_while_it_waits_each_line_once(jobs, caplog, capsys):
    LOGS[jobs.name] += ["line one", "line two"]
    jobs.plan(seconds=0.2)
    with caplog.at_level(logging.INFO):
        Tries(Builds, jobs).start()
    logged = caplog.text, capsys.readouterr().out  # of Airflow 2 and 3; 2 has both
    assert [max(each.count(line) for each in logged) for line in ("line one", "line two")] == [1, 1]


class Twice(Plain):
    """Runs two jobs in one task instance."""

    def execute(self, context):
        results = []
        for day in ("monday", "tuesday"):
            self.overrides = {"day": day}
            results.append(super().execute(context))
        return results


def test_a_second_call_of_super_execute_is_another_job_and_a_retry_adopts_each(jobs):
    jobs.crash("observe")
    tries = Tries(Twice, jobs, retries=2)
    with pytest.raises(Crash):
        tries.start()
    jobs.fail_next(Crash("the second"), "observe", "after")
    with pytest.raises(Crash):
        tries.start()
    assert tries.start() == ["job-1", "job-2"]
    assert [asked["overrides"]["day"] for asked in requests_of(jobs)] == ["monday", "tuesday"]


class Persists(Plain):
    """Tries again by itself."""

    def execute(self, context):
        for _ in range(3):
            try:
                return super().execute(context)
            except JobFailed:
                continue
        return None


def test_a_loop_around_super_execute_runs_a_new_job_each_time(jobs):
    jobs.plan(JobPlan(0.01, phase=Phase.FAILED), JobPlan(0.01, phase=Phase.FAILED))
    assert Tries(Persists, jobs).start() == "job-3"


# --- deferrable=False -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "here"),
    [
        pytest.param({}, False, id="nothing-is-said"),
        pytest.param({"deferrable": False}, True, id="false-is-said"),
        pytest.param({"deferrable": True}, False, id="true-is-said"),
        pytest.param({"default_args": {"deferrable": False}}, True, id="false-is-said-for-all-tasks"),
    ],
)
def test_what_deferrable_says(jobs, given, here):
    outcome = Tries(Plain, jobs, **given).start()
    assert outcome == "job-1" if here else isinstance(outcome, Deferred)


def test_a_mapped_task_says_it_too(jobs):
    from airflow.providers.common.compat.sdk import DAG

    with DAG("dag", schedule=None):
        mapped = Plain.partial(task_id="sort", deferrable=False).expand(jobs=[jobs.name])
    tries = Tries(Plain, jobs)
    tries.make_operator = lambda: mapped.unmap({"jobs": jobs.name})
    assert tries.start() == "job-1"


# --- a worker that is stopped ---------------------------------------------------------------------


class Deaf(Builds):
    """Overrides `on_kill` without `super()`."""

    def on_kill(self):
        self.heard = True


def signalled(jobs, tries, method="observe", moment="after"):
    """Let Airflow's signal handler run in the middle of a call: from 3.0 on it returns."""

    def handler(called, when):
        if (called, when) == (method, moment):
            jobs._account.interfere = None
            tries.made[-1].on_kill()

    jobs._account.interfere = handler


STATES = [
    pytest.param("running", "restart", 1, id="a-deploy"),
    pytest.param("failed", "restart", 0, id="marked-failed"),
    pytest.param("success", "restart", 0, id="marked-success"),
    pytest.param("failed", "reattach", 0, id="marked-failed-with-reattach"),
    pytest.param("restarting", "restart", 0, id="cleared"),
    pytest.param("restarting", "reattach", 1, id="cleared-with-reattach"),
    pytest.param(None, "restart", 0, id="cleared-a-moment-ago"),
    pytest.param("queued", "restart", 1, id="a-successor-is-on-its-way"),
]


@pytest.mark.parametrize("kind", [Builds, Deaf])
@pytest.mark.parametrize(("state", "on_clear", "live"), STATES)
def test_a_signal_ends_the_job_only_where_the_task_instance_is_over(
    jobs, monkeypatch, kind, state, on_clear, live
):
    jobs.plan(seconds=None)
    monkeypatch.setattr(compat, "state_of", lambda ti: state)
    tries = Tries(kind, jobs, retries=1, on_clear=on_clear)
    signalled(jobs, tries)
    with pytest.raises(SystemExit) as end:
        tries.start()
    assert end.value.code == KILLED_EXIT_CODE
    assert len(jobs.live()) == live
    if live:
        jobs.finish(jobs.history[0])
        assert tries.start() == "job-1", "the next try adopts it"


def test_a_signal_beside_the_end_of_the_job_costs_no_retry(jobs):
    jobs.plan(seconds=None)
    tries = Tries(Builds, jobs)

    def handler(method, moment):
        if (method, moment) == ("observe", "before"):
            jobs._account.interfere = None
            jobs.finish(jobs.history[0])
            tries.made[-1].on_kill()

    jobs._account.interfere = handler
    assert tries.start() == "job-1"


def test_a_state_that_cannot_be_read_leaves_the_job(jobs, monkeypatch, caplog, capsys):
    def unreadable(ti):
        raise ConnectionError("Airflow does not answer")

    monkeypatch.setattr(compat, "state_of", unreadable)
    jobs.plan(seconds=None)
    tries = Tries(Builds, jobs)
    signalled(jobs, tries)
    with pytest.raises(SystemExit):
        tries.start()
    assert len(jobs.live()) == 1
    assert f"{LEFT_RUNNING}; its state in Airflow is unknown" in caplog.text + capsys.readouterr().out


@pytest.mark.parametrize(("state", "live"), [("running", 1), ("failed", 0)])
def test_an_error_that_airflow_raises_in_the_middle_does_the_same(jobs, monkeypatch, state, live):
    """As the signal handler of Airflow 2.11 does."""
    jobs.plan(seconds=None)
    monkeypatch.setattr(compat, "state_of", lambda ti: state)
    jobs.fail_next(TERMINATED(), "observe")
    with pytest.raises(TERMINATED):
        Tries(Builds, jobs).start()
    assert len(jobs.live()) == live


@pytest.mark.parametrize(("state", "live"), [("running", 1), ("failed", 0)])
def test_a_submission_without_an_answer_is_looked_for(jobs, monkeypatch, state, live):
    jobs.plan(seconds=None)
    monkeypatch.setattr(Requested, "listing_lag", 0.0)
    monkeypatch.setattr(compat, "state_of", lambda ti: state)
    jobs.fail_next(TERMINATED(), "submit", "after")
    with pytest.raises(TERMINATED):
        Tries(Builds, jobs).start()
    assert len(jobs.live()) == live


def test_a_signal_before_the_submission_submits_nothing(jobs, monkeypatch):
    monkeypatch.setattr(Requested, "listing_lag", 0.0)
    tries = Tries(Builds, jobs, retries=1)
    tries.try_number = 1
    signalled(jobs, tries, "find")
    with pytest.raises(SystemExit):
        tries.start()
    assert jobs.history == []


def test_a_signal_in_a_long_wait_is_noticed_within_a_second(jobs, monkeypatch):
    jobs.plan(seconds=None)
    monkeypatch.setattr(compat, "state_of", lambda ti: "running")

    class Slow(Builds):
        pass

    tries = Tries(Slow, jobs)
    signalled(jobs, tries, "submit", "after")
    began = time.monotonic()
    with pytest.raises(SystemExit):
        tries.start()
    assert time.monotonic() - began < 5


def test_on_kill_of_the_task_is_as_before_when_the_wait_is_over(jobs):
    tries = Tries(Deaf, jobs)
    tries.start()
    task = tries.made[-1]
    assert "on_kill" not in vars(task)
    task.on_kill()
    assert task.heard


# --- never a different request --------------------------------------------------------------------


class Drifts(Plain):
    """Has another request at each visit, as a template with the current time."""

    visits = 0

    def remote_jobs(self, context):
        type(self).visits += 1
        self.overrides = {"password": f"hunter{self.visits}"}
        return super().remote_jobs(context)


SPOT = JobPlan(0.01, phase=Phase.FAILED, cause=Cause.INFRASTRUCTURE, reason="Spot")


def test_a_second_submission_of_a_try_with_another_request_is_refused_and_names_the_fields(jobs):
    jobs.plan(SPOT)
    tries = Tries(Drifts, jobs, retries=1)
    with pytest.raises(NotSubmitted, match=r"the request that was built now differs in overrides from") as no:
        tries.run()
    assert "hunter" not in str(no.value)
    assert not isinstance(no.value, AirflowFailException), "a retry submits what it builds itself"
    assert len(jobs.history) == 1
    assert tries.run() == "job-2"


@pytest.mark.parametrize(("kind", "refused"), [(Builds, True), (Plain, False)])
def test_after_a_failed_trigger_an_execute_of_ones_own_may_have_asked_for_another_job(jobs, kind, refused):
    """The record of the request is with the trigger, and another operator object goes on."""
    jobs.plan(SPOT)
    tries = Tries(kind, jobs, deferrable=True)
    tries.start()
    if refused:
        with pytest.raises(NotSubmitted, match="the record of what this try has submitted before"):
            tries.finish(tries.resume_failed())
    else:
        assert tries.finish(tries.resume_failed()) == "job-2"
    assert len(jobs.history) == 1 + (not refused)


def test_no_value_of_the_request_is_stored(jobs):
    tries = Tries(Drifts, jobs)
    deferred = tries.start()
    assert tries.xcoms["remote_job"]["request"] == {}, "an XCom is read by many"
    kept = deferred.kwargs["memory"]["request"]
    assert kept.keys() == {"image", "overrides"}
    assert all(len(value) == 6 for value in kept.values())
    assert "hunter" not in f"{tries.xcoms} {deferred.kwargs}"


def test_the_same_request_is_submitted_again(jobs):
    jobs.plan(SPOT)
    assert Tries(Plain, jobs, overrides={"a": 1}).run() == "job-2"


def test_what_is_not_known_is_not_compared(jobs):
    jobs.plan(SPOT)
    tries = Tries(Drifts, jobs)
    deferred = tries.start()
    payload = tries.watch(deferred)
    del payload["memory"]["request"]  # of a version that stored none
    assert tries.finish(tries.resume(deferred, payload)) == "job-2"
