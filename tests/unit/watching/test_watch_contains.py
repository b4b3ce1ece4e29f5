"""No error of a service's code leaves a waiter of the shared watch without an answer."""

from __future__ import annotations

import asyncio

import pytest

from airflow_resilient.core.job import Claim
from airflow_resilient.core.polling import PollPolicy
from airflow_resilient.testing.in_memory_jobs import InMemoryJobs
from airflow_resilient.watching.shared_watch import SharedWatch

POLICY = PollPolicy(interval=0.01, first_interval=0.001, give_up_after_denials=2)
ODD = [
    RuntimeError,
    StopIteration,
    StopAsyncIteration,
    GeneratorExit,
    asyncio.CancelledError,
    KeyboardInterrupt,
    SystemExit,
]
METHODS = ["observe", "cost", "event_keys", "is_transient", "is_throttle", "refuses_scope"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ODD, ids=lambda kind: kind.__name__)
def test_a_waiter_gets_an_error_and_the_loop_goes_on(method, kind):
    jobs = InMemoryJobs(seconds=1000)
    one, other = (jobs.submit(Claim("a" * 16, number)) for number in (1, 2))

    def odd(*_):
        raise kind("odd")

    def fail(*_):
        raise ValueError("a failure, which the service is asked about")

    if method not in ("observe", "cost", "event_keys"):
        jobs.observe = fail
    setattr(jobs, method, odd)

    async def follow(watch, job):
        async for _ in watch.follow(job, POLICY):
            pass

    async def both():
        watch = SharedWatch(jobs)
        return await asyncio.gather(*(follow(watch, job) for job in (one, other)), return_exceptions=True)

    ends = asyncio.run(asyncio.wait_for(both(), 60))
    assert all(isinstance(end, Exception) for end in ends), ends
