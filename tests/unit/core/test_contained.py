"""Whatever a service raises reaches the one who waits, as an ordinary error."""

from __future__ import annotations

import asyncio

import pytest

from airflow_resilient import compat
from airflow_resilient.core.threads import Escaped, contained, in_own_thread


class Odd(BaseException):
    """A base exception of some library."""


ODD = [
    StopIteration("x"),
    StopAsyncIteration("x"),
    GeneratorExit("x"),
    asyncio.CancelledError("x"),
    KeyboardInterrupt("x"),
    SystemExit(3),
    Odd("x"),
]


@pytest.mark.parametrize("in_thread", [in_own_thread, compat.in_thread])
@pytest.mark.parametrize("error", ODD, ids=lambda error: type(error).__name__)
def test_what_no_future_can_carry_is_an_ordinary_error_of_the_waiter(error, in_thread):
    def call():
        raise error

    async def wait():
        with pytest.raises(Escaped, match=type(error).__name__) as caught:
            await in_thread(call)
        assert caught.value.__cause__ is error
        return "and the loop goes on"

    assert asyncio.run(asyncio.wait_for(wait(), 60)) == "and the loop goes on"


def test_an_ordinary_error_and_a_result_pass_unchanged():
    error = ValueError("x")

    def call(value):
        if value is error:
            raise error
        return value

    assert contained(call, 1) == 1
    with pytest.raises(ValueError, match="x") as caught:
        contained(call, error)
    assert caught.value is error
