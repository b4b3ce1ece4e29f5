"""An event loop that skips all waiting, for tests that would take hours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop with virtual time. Nothing in it may wait for another thread."""

    def __init__(self, longest: float = 1e6) -> None:
        super().__init__()
        self.skipped = 0.0
        loop: Any = self
        select = loop._selector.select  # noqa: SLF001 - asyncio has no public way to see what it waits for

        def skip(timeout: float | None) -> Any:
            """Add the timeout to the virtual time instead of waiting."""
            assert timeout is not None, "all tasks wait, and nothing will happen"
            self.skipped += timeout
            assert self.skipped < longest, "nothing happens any more"
            return select(0)

        loop._selector.select = skip  # noqa: SLF001 - asyncio has no public way to see what it waits for

    def time(self) -> float:
        """The virtual time in seconds."""
        return self.skipped


async def in_line(function: Callable[..., T], *args: Any) -> T:
    """Replaces a thread: call `function` here, after other tasks have run."""
    await asyncio.sleep(0)
    return function(*args)
