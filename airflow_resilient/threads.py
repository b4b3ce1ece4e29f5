"""Blocking calls beside an event loop, in threads that nobody has to wait for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def in_own_thread(function: Callable[..., T], *args: Any) -> T:
    """Run blocking `function` in a thread of its own without holding up the event loop or its shutdown.

    The thread is a daemon: a process that stops does not wait for an HTTP answer.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(setter: Callable[[Any], None], value: Any) -> None:
        """Tell whoever waits, unless nobody does any more."""
        if not result.done():
            setter(value)

    def work() -> None:
        """Call it, and hand over what it returns or raises."""
        try:
            outcome, setter = function(*args), result.set_result
        except BaseException as error:  # noqa: BLE001 - handed over, not swallowed
            outcome, setter = error, result.set_exception  # type: ignore[assignment]
        try:
            loop.call_soon_threadsafe(settle, setter, outcome)
        except RuntimeError:  # the loop has been closed: nobody waits any more
            return

    threading.Thread(
        target=work, name=f"airflow-resilient-{getattr(function, '__name__', 'call')}", daemon=True
    ).start()
    return await result
