"""Blocking calls beside an event loop, in daemon threads that do not delay a shutdown."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from .text import error_text

T = TypeVar("T")


class Escaped(RuntimeError):
    """Code of a service raised what no event loop can carry to a waiter; the cause is what it raised."""


def contained(function: Callable[..., T], *args: Any) -> T:
    """Call `function`, and raise ordinary errors only.

    A future takes no ``StopIteration``, a waiter takes ``CancelledError`` for its own end, and ``SystemExit``
    ends the event loop, with all waits of the process. None of them says anything about a job.

    :raises Escaped: it raised one of them.
    """
    try:
        return function(*args)
    except (StopIteration, StopAsyncIteration) as error:
        raise _escaped(function, error) from error
    except Exception:
        raise
    except BaseException as error:
        raise _escaped(function, error) from error


def _escaped(function: Callable[..., Any], error: BaseException) -> Escaped:
    return Escaped(f"{getattr(function, '__qualname__', 'a call')} raised {error_text(error)}")


async def in_own_thread(function: Callable[..., T], *args: Any) -> T:
    """Run blocking `function` in its own thread, without blocking the event loop or its shutdown.

    The thread is a daemon: a process that stops does not wait for an HTTP answer.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(setter: Callable[[Any], None], value: Any) -> None:
        """Pass the result on, unless nothing waits for it any more."""
        if not result.done():
            setter(value)

    def work() -> None:
        """Call the function, and pass on its result or its error."""
        try:
            outcome, setter = contained(function, *args), result.set_result
        except Exception as error:  # noqa: BLE001 - passed on, not swallowed
            outcome, setter = error, result.set_exception  # type: ignore[assignment]
        try:
            loop.call_soon_threadsafe(settle, setter, outcome)
        except RuntimeError:  # the loop has been closed: nothing waits any more
            return

    threading.Thread(
        target=work, name=f"airflow-resilient-{getattr(function, '__name__', 'call')}", daemon=True
    ).start()
    return await result
