"""An event loop that skips all waiting, for tests of what takes hours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class MadeUpTime(asyncio.SelectorEventLoop):
    """An event loop whose time is that of what it waits for. Nothing in it may wait for another thread."""

    def __init__(self, longest: float = 1e6) -> None:
        super().__init__()
        self.skipped = 0.0
        loop: Any = self
        select = loop._selector.select  # noqa: SLF001 - there is no public way to take the waiting out

        def skip(timeout: float | None) -> Any:
            """Do not wait, but count what would have been waited for."""
            assert timeout is not None, "everybody waits, and nothing will happen"
            self.skipped += timeout
            assert self.skipped < longest, "nothing happens any more"
            return select(0)

        loop._selector.select = skip  # noqa: SLF001

    def time(self) -> float:
        """Seconds that would have been waited for."""
        return self.skipped


async def in_line(function: Callable[..., T], *args: Any) -> T:
    """Stands in for a thread: call `function` here, when others have had their turn."""
    await asyncio.sleep(0)
    return function(*args)
