"""Operators whose `execute` is called inside of another task, as in a Python task that loops over days."""

from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_resilient import JobFailed, NoCapacity, Phase, PollPolicy, RemoteJobOperator, compat
from airflow_resilient.compat import BaseOperator
from airflow_resilient.core.job import Cause, Claim, call_key
from airflow_resilient.core.reconcile import memory_key, running_on_key
from airflow_resilient.testing import InMemoryJobs, TaskTries
from airflow_resilient.testing.in_memory_jobs import Crash, JobPlan

TIMEOUT, TERMINATED, *_ = compat.interrupts()
QUICK = PollPolicy(interval=0.05, first_interval=0.01, max_backoff=0.1, give_up_after_denials=3)


# 2.11's check of who calls `execute` fails in every thread but the one that has imported it.
# Source: ``ExecutorSafeguard`` in ``airflow/models/baseoperator.py`` of 2.11.2.
IN_THREADS = pytest.mark.skipif(
    compat.airflow_version() < (3, 0), reason="Airflow 2 lets no other thread call execute"
)


class Load(RemoteJobOperator):
    """The operator that is called."""

    def __init__(self, *, jobs, wait=True, **kwargs):
        super().__init__(poll_policy=QUICK, **kwargs)
        self.jobs = jobs
        self.wait_for_completion = wait

    def remote_jobs(self, context):
        return InMemoryJobs(self.jobs)

    def _policy(self):
        return replace(super()._policy(), first_backoff=0.05, first_pause=0.01, max_backoff=0.1)


class Python(BaseOperator):
    """The task that calls it."""

    def __init__(self, *, code, **kwargs):
        super().__init__(**kwargs)
        self.code = code
        self.heard = False

    def execute(self, context):
        return self.code(context)

    def on_kill(self):
        self.heard = True


@pytest.fixture
def jobs():
    return InMemoryJobs(f"memory-{uuid.uuid4()}", seconds=0.02, clock=time.time)


class Tries(TaskTries):
    """Tries of a Python task whose operators are kept."""

    def __init__(self, code, **kwargs):
        self.made = []
        make = lambda: Python(task_id="python", code=code, **kwargs)  # noqa: E731
        super().__init__(lambda: self.made.append(make()) or self.made[-1])


def load(jobs, context, task_id="load", **kwargs):
    return Load(task_id=task_id, jobs=jobs.name, **kwargs).execute(context)


def keys(jobs):
    return [real.claim.task_key for real in jobs.history]


def test_a_call_returns_when_its_job_is_over_and_bears_the_claim_of_the_call(jobs):
    tries = Tries(lambda context: load(jobs, context))
    assert tries.start() == "job-1"
    (real,) = jobs.history
    assert real.ended(time.time())
    assert real.claim == Claim(f"{real.claim.instance_key}_{real.claim.call}", 1)
    assert len(real.claim.call) == 8
    assert tries.xcoms[memory_key(real.claim.call)]["own_job_ids"] == ["job-1"]


def test_a_loop_of_three_makes_three_jobs_and_a_retry_adopts_what_is_done(jobs):
    def code(context):
        return [load(jobs, context) for _ in range(3)]

    tries = Tries(code, retries=2)

    def crash(method, moment):
        if (method, moment, len(jobs.history)) == ("submit", "before", 2):
            jobs._account.interfere = None
            raise Crash("after the second")

    jobs._account.interfere = crash
    with pytest.raises(Crash):
        tries.start()
    assert len(jobs.history) == 2
    assert tries.start() == ["job-1", "job-2", "job-3"]
    assert len(set(keys(jobs))) == 3
    assert tries.start() == ["job-1", "job-2", "job-3"], "a further retry runs none of them again"


def test_a_retry_adopts_the_job_of_a_call_that_still_runs(jobs):
    jobs.plan(JobPlan(0.01), JobPlan(None))
    crashed = []

    def crash(method, moment):
        if method == "observe" and len(jobs.history) == 2 and not crashed:
            crashed.append(True)
            raise Crash("while the second runs")

    jobs._account.interfere = crash
    tries = Tries(lambda context: [load(jobs, context) for _ in range(3)], retries=1)
    with pytest.raises(Crash):
        tries.start()
    jobs.finish(jobs.history[1])
    assert tries.start() == ["job-1", "job-2", "job-3"]
    assert len(jobs.history) == 3


def test_calls_of_operators_with_other_names_are_told_apart(jobs):
    def code(context):
        return [load(jobs, context, each) for each in ("a", "b", "a")]

    assert Tries(code).start() == ["job-1", "job-2", "job-3"]
    assert len({key[:16] for key in keys(jobs)}) == 1
    assert len(set(keys(jobs))) == 3


class LoadWhat(Load):
    """An operator with a parameter that says which of many jobs it runs."""

    def __init__(self, *, what, **kwargs):
        super().__init__(**kwargs)
        self.what = what


def test_a_retry_whose_list_has_become_shorter_takes_no_job_of_one_element_for_that_of_another(jobs):
    todo = ["A", "B", "C", "D"]

    def code(context):
        ran = {}
        for what in list(todo):
            operator = LoadWhat(task_id="load", jobs=jobs.name, what=what)
            ran[what] = operator.execute(context)
            if what == "B":
                todo[:] = ["C", "D"]
                if len(ran) == 2:
                    raise Crash("after two")
        return ran

    tries = Tries(code, retries=1)
    with pytest.raises(Crash):
        tries.start()
    assert tries.start() == {"C": "job-3", "D": "job-4"}
    assert len(jobs.history) == 4


def test_what_a_parameter_is_changed_to_before_the_call_counts(jobs):
    def code(context):
        ran = []
        for what in ("A", "B"):
            operator = LoadWhat(task_id="load", jobs=jobs.name, what="")
            operator.what = what
            ran.append((what, operator.execute(context)))
        return ran

    tries = Tries(code, retries=1)
    assert tries.start() == [("A", "job-1"), ("B", "job-2")]
    keys_before = keys(jobs)
    assert len(set(keys_before)) == 2
    assert call_key("abcdefghijklmnop", "load", 1, "a") != call_key("abcdefghijklmnop", "load", 1, "b")


def test_a_deploy_that_changes_how_a_call_is_retried_and_waits_changes_no_claim(jobs):
    changes = [
        {},
        {"retries": 5, "execution_timeout": timedelta(hours=1), "on_timeout": "leave", "queue": "q"},
    ]

    def code(context):
        done = load(jobs, context, **changes[len(jobs.history) > 0])
        if tries.try_number == 1:
            raise Crash("after the call")
        return done

    tries = Tries(code, retries=1)
    with pytest.raises(Crash):
        tries.start()
    assert tries.start() == "job-1"


class CallsAHelper(Load):
    """Its own `execute` calls a helper of the same name, and leaves with the deferral of its own job."""

    def execute(self, context):
        LoadWhat(task_id=self.task_id, jobs=self.jobs, what="before").execute(context)
        return super().execute(context)


def test_a_helper_of_the_same_name_does_not_change_whose_the_own_job_is(jobs):
    tries = TaskTries(lambda: CallsAHelper(task_id="python", jobs=jobs.name, deferrable=True))
    assert tries.run() == "job-2"
    assert [bool(real.claim.call) for real in jobs.history] == [True, False]


def test_a_task_without_a_try_number_as_in_airflow_tasks_test_is_run(jobs):
    tries = TaskTries(lambda: Load(task_id="load", jobs=jobs.name))
    tries.try_number = -1  # the next one is 0
    assert tries.run() == "job-1"


def test_what_a_user_has_set_to_be_called_on_a_kill_is_still_called_after_a_call(jobs):
    called = []

    def code(context):
        task = context["ti"].task
        task.on_kill = lambda: called.append("mine")
        load(jobs, context)
        task.on_kill()

    Tries(code).start()
    assert called == ["mine"]


def test_one_operator_that_is_called_several_times_runs_several_jobs(jobs):
    def code(context):
        operator = Load(task_id="load", jobs=jobs.name)
        return [operator.execute(context) for _ in range(2)]

    assert Tries(code).start() == ["job-1", "job-2"]


@IN_THREADS
def test_calls_in_threads_are_told_apart_by_their_names(jobs):
    def code(context):
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda name: load(jobs, context, name), "abcd"))

    tries = Tries(code, retries=1)
    first = tries.start()
    assert sorted(first) == ["job-1", "job-2", "job-3", "job-4"]
    assert tries.start() == first, "a retry finds the job of each, whichever thread is first"


@IN_THREADS
def test_calls_of_one_name_in_threads_are_jobs_of_their_own(jobs):
    def code(context):
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda _: load(jobs, context), range(4)))

    assert len(set(Tries(code).start())) == 4
    assert len(set(keys(jobs))) == 4


@IN_THREADS
def test_one_operator_in_several_threads_shares_no_claim(jobs):
    barrier = threading.Barrier(4, timeout=30)

    class Together(Load):
        def remote_jobs(self, context):
            barrier.wait()
            return super().remote_jobs(context)

    def code(context):
        operator = Together(task_id="load", jobs=jobs.name)
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda _: operator.execute(context), range(4)))

    assert len(set(Tries(code).start())) == 4


def test_two_task_instances_in_one_process_have_jobs_of_their_own(jobs):
    runs = [Tries(lambda context: load(jobs, context)) for _ in range(2)]
    for number, run in enumerate(runs):
        run.run_id = f"run-{number}"
    assert [run.start() for run in runs] == ["job-1", "job-2"]
    assert len(set(keys(jobs))) == 2


def test_a_failure_is_caught_inside_and_the_retry_runs_only_what_has_failed(jobs):
    jobs.plan(JobPlan(0.01), JobPlan(0.01, phase=Phase.FAILED))
    caught = []

    def code(context):
        results = []
        for _ in range(3):
            try:
                results.append(load(jobs, context))
            except JobFailed as error:
                caught.append(error.job.id)
                raise
        return results

    tries = Tries(code, retries=1)
    with pytest.raises(JobFailed):
        tries.start()
    assert caught == ["job-2"]
    assert tries.start() == ["job-1", "job-3", "job-4"]


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(
            lambda jobs: jobs.plan(JobPlan(0.01, phase=Phase.FAILED, cause=Cause.INFRASTRUCTURE)), id="Spot"
        ),
        pytest.param(lambda jobs: jobs.refuse(2), id="no-capacity"),
        pytest.param(lambda jobs: jobs.lose_answer("submit"), id="lost-answer"),
    ],
)
def test_harm_uses_up_no_retry(jobs, harm):
    harm(jobs)
    tries = Tries(lambda context: load(jobs, context))
    assert tries.start() == jobs.history[-1].id
    assert jobs.overlaps() == []


def test_without_capacity_the_error_comes_out_of_the_call(jobs):
    jobs.refuse(3)
    with pytest.raises(NoCapacity):
        Tries(lambda context: load(jobs, context)).start()


def test_a_clear_of_the_task_runs_every_call_again(jobs):
    tries = Tries(lambda context: [load(jobs, context) for _ in range(2)], retries=3)
    assert tries.start() == ["job-1", "job-2"]
    tries.clear()
    assert tries.start() == ["job-3", "job-4"]
    assert [real.claim.generation for real in jobs.history] == ["3.3", "3.3", "4.3", "4.3"], (
        "the outer retries"
    )


def test_a_clear_cancels_a_job_that_still_runs(jobs):
    jobs.plan(seconds=None)
    jobs.crash("observe")
    tries = Tries(lambda context: load(jobs, context))
    with pytest.raises(Crash):
        tries.start()
    tries.clear()
    jobs.plan(seconds=0.01)
    assert tries.start() == "job-2"
    assert jobs.history[0].stop_reason.startswith("superseded")


def test_a_try_that_airflow_begins_again_finds_the_jobs_of_its_calls(jobs):
    tries = Tries(lambda context: [load(jobs, context) for _ in range(2)])
    tries.start()
    assert tries.begin_again() == ["job-1", "job-2"]


def test_its_own_limit_counts_from_the_call(jobs):
    jobs.plan(seconds=None)

    def code(context):
        context["ti"].start_date -= timedelta(hours=1)  # of the task that calls
        began = time.monotonic()
        with pytest.raises(TIMEOUT, match="counted from the start of this call"):
            load(jobs, context, execution_timeout=timedelta(seconds=0.3))
        return time.monotonic() - began

    assert Tries(code).start() > 0.25
    assert jobs.live() == []


@pytest.mark.parametrize(("on_timeout", "live"), [("cancel", 0), ("leave", 1)])
def test_the_limit_of_the_task_ends_the_job_or_leaves_it(jobs, on_timeout, live):
    """Airflow raises in the middle of the call."""
    jobs.plan(seconds=None)
    jobs.fail_next(TIMEOUT(), "observe")
    tries = Tries(lambda context: load(jobs, context, on_timeout=on_timeout))
    with pytest.raises(TIMEOUT):
        tries.start()
    assert len(jobs.live()) == live
    call = jobs.history[0].claim.call
    assert (running_on_key(1, call) in tries.xcoms) is bool(live)


@IN_THREADS
def test_the_limit_of_the_task_counts_in_threads_too(jobs):
    jobs.plan(seconds=5)  # a thread that never ends would hold up the whole run

    def code(context):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(load, jobs, context).result()

    tries = Tries(code, execution_timeout=timedelta(seconds=0.3))
    with pytest.raises(TIMEOUT, match="execution_timeout of the calling task"):
        tries.start()
    assert jobs.live() == []


def test_two_calls_that_leave_their_jobs_say_so_each(jobs):
    jobs.plan(*[JobPlan(None)] * 2)
    tries = Tries(lambda context: [load(jobs, context, wait=False) for _ in range(2)])
    tries.start()
    marks = {running_on_key(1, real.claim.call): [real.id] for real in jobs.history}
    assert len(marks) == 2
    assert marks.items() <= tries.xcoms.items()


def test_an_empty_context_is_completed(jobs, monkeypatch):
    kept = {}

    def code(context):
        kept.update(context)
        return [load(jobs, {}), load(jobs, None), load(jobs, {"ti": context["ti"]})]

    monkeypatch.setattr(compat, "current_context", lambda: kept)
    assert Tries(code).start() == ["job-1", "job-2", "job-3"]


# --- a worker that is stopped ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "in_thread",
    [
        pytest.param(False, id="in-the-main-thread"),
        pytest.param(True, id="in-a-thread", marks=IN_THREADS),
    ],
)
@pytest.mark.parametrize(("state", "live"), [("running", 2), ("failed", 0), ("restarting", 0)])
def test_a_signal_that_only_the_outer_task_hears_ends_jobs_where_the_task_instance_is_over(
    jobs, monkeypatch, state, live, in_thread
):
    jobs.plan(*[JobPlan(None)] * 2)
    monkeypatch.setattr(compat, "state_of", lambda ti: state)

    def code(context):
        if not in_thread:
            load(jobs, context, "a", wait=False)
            return load(jobs, context, "b")
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda name: load(jobs, context, name), "ab"))

    tries = Tries(code)

    def handler(method, moment):
        if method == "observe" and len(jobs.history) == 2:
            jobs._account.interfere = None
            tries.made[-1].on_kill()

    jobs._account.interfere = handler
    with pytest.raises(SystemExit):
        tries.start()
    left_on_purpose = 0 if in_thread else 1
    assert len(jobs.live()) == max(live, left_on_purpose)
    task = tries.made[-1]
    assert task.heard
    assert "on_kill" not in vars(task)


def test_an_error_that_airflow_raises_in_the_middle_does_the_same(jobs, monkeypatch):
    jobs.plan(seconds=None)
    monkeypatch.setattr(compat, "state_of", lambda ti: "failed")
    jobs.fail_next(TERMINATED(), "observe")
    with pytest.raises(TERMINATED):
        Tries(lambda context: load(jobs, context)).start()
    assert jobs.live() == []


# --- whose operator it is -------------------------------------------------------------------------


class Other(Load):
    pass


class MappedLike:
    """What a context has for a mapped task, before it is unmapped."""

    operator_class = Load
    task_id = "load"


@pytest.mark.parametrize(
    ("task", "same"),
    [
        pytest.param("itself", True, id="itself"),
        pytest.param(Load(task_id="load", jobs="x"), True, id="a-copy"),
        pytest.param(MappedLike(), True, id="the-mapped-task"),
        pytest.param(Load(task_id="sort", jobs="x"), False, id="the-same-class-and-another-name"),
        pytest.param(Other(task_id="load", jobs="x"), False, id="another-class-and-the-same-name"),
        pytest.param(Python(task_id="load", code=None), False, id="a-python-task-of-the-same-name"),
    ],
)
def test_whether_a_task_is_the_operator_itself(task, same):
    operator = Load(task_id="load", jobs="x")
    assert compat.is_same_task(operator, operator if task == "itself" else task) is same


def test_a_python_operator_can_call_it(jobs):
    module = pytest.importorskip("airflow.providers.standard.operators.python")

    def make():
        python = module.PythonOperator(
            task_id="python", python_callable=lambda **context: load(jobs, context)
        )
        return python.prepare_for_execution()

    tries = TaskTries(make)
    whole = tries.context
    tries.context = lambda task: {**whole(task), "outlet_events": {}}
    assert tries.start() == "job-1"
    assert jobs.history[0].claim.call
