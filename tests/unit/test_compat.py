"""What depends on the version of Airflow, as far as one process shows it."""

import asyncio
import threading

import pytest

from airflow_resilient import compat


@pytest.mark.skipif(
    not (3, 0) <= compat.airflow_version() < (3, 3),
    reason="only there do threads ask through the event loop of the triggerer",
)
async def test_a_question_that_was_sent_is_answered_although_its_trigger_is_cancelled():
    from asgiref.sync import async_to_sync

    sent, may_answer, answered = threading.Event(), asyncio.Event(), asyncio.Event()

    async def ask():
        sent.set()
        await may_answer.wait()
        answered.set()

    asking = asyncio.ensure_future(compat.in_thread(async_to_sync(ask)))
    await asyncio.to_thread(sent.wait, 10)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    may_answer.set()
    await asyncio.wait_for(answered.wait(), 10)
