"""Waiting in one thread, in virtual time; and the choice who does that, as a table."""

import logging
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import SimpleNamespace

import pytest

from airflow_resilient.core.job import Claim, Phase
from airflow_resilient.core.logs import LARGE_PORTION, LogCopy, LogPosition
from airflow_resilient.core.polling import PollPolicy
from airflow_resilient.core.retry import Runtime
from airflow_resilient.core.service import RemoteService
from airflow_resilient.core.waiting import (
    NAP_SECONDS,
    Calls,
    nap,
    wait_for,
    why_in_worker,
)
from airflow_resilient.testing.in_memory_jobs import InMemoryJobs, JobPlan, Throttled

POLICY = PollPolicy(
    interval=30.0,
    first_interval=2.0,
    max_backoff=300.0,
    lost_after_polls=3,
    lost_after_seconds=60.0,
    give_up_after_denials=4,
)
CLAIM = Claim("abcdefghijklmnop", 1)


# --- who waits in the worker ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        pytest.param({}, "", id="nothing-keeps-it-from-deferring"),
        pytest.param({"deferrable": True}, "", id="deferrable-is-said"),
        pytest.param({"deferrable": False}, "deferrable=False", id="not-deferrable-is-said"),
        pytest.param({"overrides": "Mine"}, "Mine overrides execute()", id="own-execute"),
        pytest.param(
            {"overrides": "Mine", "deferrable": False}, "Mine overrides execute()", id="own-execute-too"
        ),
        pytest.param({"overrides": "Mine", "deferrable": True}, "", id="own-execute-and-deferrable-is-said"),
        pytest.param(
            {"pokes": "Mine", "deferrable": True}, "Mine overrides poke()", id="own-poke-whatever-is-said"
        ),
        pytest.param({"pokes": "Mine"}, "Mine overrides poke()", id="own-poke"),
        pytest.param({"inside": "loop"}, "task 'loop' calls execute()", id="inside-of-a-task"),
        pytest.param(
            {"inside": "loop", "deferrable": True, "overrides": "Mine"},
            "task 'loop' calls execute()",
            id="inside-of-a-task-whatever-it-is",
        ),
    ],
)
def test_who_waits_in_the_worker_and_what_the_log_says(facts, words):
    why = why_in_worker(**facts)
    assert bool(why) is bool(words)
    assert words in why
    assert not why or "without a slot" in why


# --- calls ----------------------------------------------------------------------------------------


def test_calls_are_counted_for_each_operator_of_each_visit():
    calls, ti, other = Calls(), SimpleNamespace(), SimpleNamespace()
    counted = [
        calls.next(ti, 1, "load"),
        calls.next(ti, 1, "load"),
        calls.next(ti, 1, "sort"),
        calls.next(other, 1, "load"),
        calls.next(ti, 2, "load"),
        calls.next(ti, 1, "load"),
    ]
    assert counted == [1, 2, 1, 1, 1, 3]


def test_calls_in_threads_have_numbers_of_their_own():
    calls, ti = Calls(), SimpleNamespace()
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: calls.next(ti, 1, "load"), range(200)))
    assert sorted(numbers) == list(range(1, 201))


def test_a_process_remembers_the_latest_visits_only():
    calls, first = Calls(kept=2), SimpleNamespace()
    calls.next(first, 1, "load")
    later = [SimpleNamespace() for _ in range(2)]
    assert [calls.next(each, 1, "load") for each in later] == [1, 1]
    assert len(calls._visits) == 2
    assert calls.next(later[1], 1, "load") == 2


# --- the wait -------------------------------------------------------------------------------------


@pytest.fixture
def jobs():
    return InMemoryJobs(seconds=600)


def runtime(jobs):
    return Runtime(jobs.now, jobs.advance, lambda: 0.0, logging.getLogger("test"))


def wait(jobs, *waiting, **more):
    return wait_for(jobs, waiting or [jobs.submit(CLAIM)], POLICY, runtime(jobs), **more)


def polls(jobs):
    times = [call.time for call in jobs.journal if call.method == "observe"]
    return [after - before for before, after in pairwise(times)]


def test_it_waits_until_the_job_has_ended_and_polls_as_the_shared_watch_does(jobs):
    (ended,) = wait(jobs).jobs
    assert ended.phase is Phase.SUCCEEDED
    assert min(polls(jobs)) == pytest.approx(2.0, abs=NAP_SECONDS)
    assert max(polls(jobs)) == pytest.approx(30.0, abs=NAP_SECONDS)


def test_it_waits_for_every_job(jobs):
    jobs.plan(JobPlan(10), JobPlan(100))
    both = [jobs.submit(CLAIM), jobs.submit(Claim("abcdefghijklmnop", 2))]
    waited = wait(jobs, *both)
    assert [job.id for job in waited.jobs] == ["job-1", "job-2"]
    assert not any(job.live for job in waited.jobs)


def test_it_stops_at_the_deadline(jobs):
    job = jobs.submit(CLAIM)
    until = jobs.now() + 100
    waited = wait(jobs, job, until=until)
    assert waited.jobs[0].live
    assert jobs.now() == pytest.approx(until, abs=NAP_SECONDS)


def test_it_stops_when_the_worker_does_within_a_nap(jobs):
    job, stop = jobs.submit(CLAIM), jobs.now() + 400.1
    assert wait(jobs, job, stops=lambda: jobs.now() >= stop).jobs[0].live
    assert jobs.now() == pytest.approx(stop, abs=NAP_SECONDS)


def test_it_stops_when_what_is_awaited_is_reached(jobs):
    jobs.plan(JobPlan(600, queued=50))
    waited = wait(jobs, reached=lambda job: job.phase is Phase.RUNNING)
    assert waited.jobs[0].phase is Phase.RUNNING


def test_a_job_that_is_unknown_for_long_enough_is_lost(jobs):
    job = jobs.submit(CLAIM)
    jobs.history.clear()
    began = jobs.now()
    assert wait(jobs, job).jobs[0].phase is Phase.LOST
    assert jobs.now() - began >= POLICY.lost_after_seconds


def forgotten(**settings):
    """A job that has ended well, and that the service forgets before it is polled again."""
    made = InMemoryJobs(seconds=5.0, forget_after=1.0, archive=True, **settings)
    job = made.submit(CLAIM)
    made.advance(100.0)
    return made, job


def test_an_archive_is_asked_before_a_job_counts_as_lost():
    jobs, job = forgotten()
    (seen,) = wait(jobs, job).jobs
    assert (seen.id, seen.phase, seen.claim) == (job.id, Phase.SUCCEEDED, CLAIM)
    assert [call.method for call in jobs.journal].count("recover") == 1


def test_an_archive_that_does_not_answer_is_asked_again_for_a_limited_time():
    jobs, job = forgotten()
    jobs.throttle(3, "recover")
    assert wait(jobs, job).jobs[0].phase is Phase.SUCCEEDED
    jobs, job = forgotten()
    jobs.throttle(10_000, "recover")
    began = jobs.now()
    assert wait(jobs, job, archive_timeout=600.0).jobs[0].phase is Phase.LOST
    assert 600.0 <= jobs.now() - began <= 800.0


def test_an_archive_that_refuses_knows_nothing(caplog):
    jobs, job = forgotten()
    jobs.fail_next(PermissionError("denied"), "recover")
    assert wait(jobs, job).jobs[0].phase is Phase.LOST
    assert f"cannot be asked how {job.id} ended" in caplog.text


def test_a_job_that_is_unknown_for_a_while_is_not_lost():
    jobs = InMemoryJobs(seconds=600, unknown_for=50)
    assert wait(jobs).jobs[0].phase is Phase.SUCCEEDED


@pytest.mark.parametrize(("times", "refused"), [(3, False), (4, True)])
def test_refusals_end_the_wait_only_when_they_are_many(jobs, times, refused):
    jobs.fail_next(PermissionError("denied"), "observe", times=times)
    waited = wait(jobs)
    assert (waited.refused == "PermissionError: denied") is refused
    assert waited.jobs[0].live is refused
    assert not waited.unanswered


def test_errors_that_pass_end_no_wait_and_make_polls_less_frequent(jobs):
    jobs.fail_next(ConnectionResetError("reset"), "observe", times=12)
    job = jobs.submit(CLAIM)
    jobs.real(job).ends = jobs.now() + 5000
    assert wait(jobs, job).jobs[0].phase is Phase.SUCCEEDED
    longest = max(polls(jobs))
    assert 200 < longest <= POLICY.max_backoff + NAP_SECONDS


def test_a_silence_is_told_and_its_end_too(jobs, caplog):
    jobs.fail_next(Throttled("slow down"), "observe", times=10)
    job = jobs.submit(CLAIM)
    jobs.real(job).ends = jobs.now() + 5000
    with caplog.at_level(logging.INFO, "test"):
        wait(jobs, job)
    said = [record.getMessage() for record in caplog.records]
    assert any("no answer from the service for 5 min" in each or "for 6 min" in each for each in said)
    assert any("the service answers again" in each for each in said)


def test_a_wait_that_may_end_without_an_answer_does(jobs):
    jobs.fail_next(Throttled("slow down"), "observe", times=1000)
    policy = PollPolicy(unanswered_timeout=3600)
    began = jobs.now()
    waited = wait_for(jobs, [jobs.submit(CLAIM)], policy, runtime(jobs))
    assert waited.unanswered
    assert waited.refused.startswith("Unanswered: no answer for ")
    assert 600 <= jobs.now() - began < 1200, "less, because no poll was ever answered"


def test_a_clock_that_is_set_back_delays_no_poll(jobs):
    job = jobs.submit(CLAIM)
    offset = [0.0]

    def now():
        return jobs.now() - offset[0]

    def sleep(seconds):
        jobs.advance(seconds)
        if jobs.calls["observe"] == 2:
            offset[0] = 86_400.0

    rt = Runtime(now, sleep, lambda: 0.0, logging.getLogger("test"))
    began = jobs.now()
    wait_for(jobs, [job], POLICY, rt)
    assert jobs.now() - began < 700


def test_a_nap_ends_early_when_the_worker_stops():
    slept = []
    nap(10, lambda: len(slept) == 3, slept.append)
    assert slept == [NAP_SECONDS] * 3
    nap(0.1, lambda: False, slept.append)
    assert slept[3:] == [0.1]


# --- the log --------------------------------------------------------------------------------------


class Logged(InMemoryJobs):
    """Jobs with a log of `lines`; `errors` are raised by the next reads."""

    lines: tuple[str, ...] = ()
    errors: tuple[Exception, ...] = ()
    reads = 0

    def read_log(self, job, where, cursor):
        self.reads += 1
        if self.errors:
            error, *self.errors = self.errors
            raise error
        portion = self.lines[cursor or 0 :][: LARGE_PORTION + 1]
        return [(0.0, line) for line in portion], (cursor or 0) + len(portion)


@pytest.fixture
def copy():
    jobs = Logged(seconds=600)
    said = []
    log = SimpleNamespace(
        info=lambda text, *args: said.append(text % args),
        warning=lambda text, *args: said.append(text % args),
    )
    rt = Runtime(jobs.now, jobs.advance, lambda: 0.0, log)

    def made(position=None):
        return LogCopy(jobs, {}, position or LogPosition("job-1"), rt, 10.0)

    return SimpleNamespace(jobs=jobs, job=jobs.submit(CLAIM), said=said, made=made)


def never():
    return False


def test_a_log_is_copied_from_its_position_on(copy):
    copy.jobs.lines = ("a", "b", "c")
    log = copy.made(LogPosition("job-1", 1, 1))
    log.copy(copy.job, never)
    assert copy.said == ["b", "c"]
    assert log.position == LogPosition("job-1", 3, 3)
    assert log.due == copy.jobs.now() + 10.0


def test_a_log_that_grows_fast_is_read_until_there_is_little_left(copy):
    copy.jobs.lines = tuple(map(str, range(3 * LARGE_PORTION)))
    log = copy.made()
    log.copy(copy.job, never)
    assert len(copy.said) == 3 * LARGE_PORTION
    log = copy.made()
    log.copy(copy.job, lambda: copy.jobs.reads > 3)
    assert len(copy.said) == 4 * LARGE_PORTION + 1, "but a worker that is stopped copies no more"


def test_an_error_of_the_log_that_passes_is_nothing(copy):
    copy.jobs.lines, copy.jobs.errors = ("a",), (Throttled("slow down"),)
    log = copy.made()
    log.copy(copy.job, never)
    assert (copy.said, log.due) == ([], copy.jobs.now() + 10.0)
    log.copy(copy.job, never)
    assert copy.said == ["a"]


def test_a_log_that_cannot_be_read_is_told_once_and_not_read_again(copy):
    copy.jobs.errors = (PermissionError("denied"),)
    log = copy.made()
    log.copy(copy.job, never)
    assert copy.said == ["the job's log cannot be read: PermissionError: denied"]
    assert log.due == float("inf")


def test_a_position_that_cannot_be_used_is_forgotten(copy):
    copy.jobs.lines, copy.jobs.errors = ("a", "b"), (ValueError("no such position"),)
    copy.made(LogPosition("job-1", 1, 1)).copy(copy.job, never)
    assert "read from its beginning" in copy.said[0]
    assert copy.said[1:] == ["a", "b"]


def test_the_log_of_the_first_job_is_copied_while_it_runs(copy):
    copy.jobs.lines = ("a", "b")
    log = copy.made()
    rt = Runtime(copy.jobs.now, copy.jobs.advance, lambda: 0.0, logging.getLogger("test"))
    wait_for(copy.jobs, [copy.job], POLICY, rt, log=log)
    assert copy.said == ["a", "b"]
    assert copy.jobs.reads == pytest.approx(60, abs=3)


def test_a_service_compares_nothing_unless_it_says_what():
    assert RemoteService.request_fields(InMemoryJobs()) == {}
