"""The watches of one event loop: one for each address, however many triggers ask for it at the same moment.

After a restart, a triggerer starts thousands of triggers at once. A watch has a client, which takes megabytes
and a good part of a second to make; so the first trigger that asks for an address starts the making of its
watch, and everybody else waits for the same one.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .shared_watch import SharedWatch


IDLE_SECONDS = 600.0
"""Seconds after which a watch that nobody asks for and nobody waits on is dropped, with its client.

Longer than any event is kept that matches no wait (`events.MAX_AGE_SECONDS`): a watch recognises late ones.
"""

MAX_CONCURRENT_MAKES = 4
"""Watches made at the same time, each in a thread.

Making a client computes, so each thread takes the interpreter's lock from the event loop for a turn of 5 ms
(``sys.getswitchinterval``): with a hundred threads, the loop would run twice a second.
"""


class _Entry:
    """One watch.

    :ivar making: the task that makes it; it belongs to no trigger, so no trigger's end cancels it.
    :ivar used: when it was last asked for, or last seen with a wait; ``inf`` while it is being made.
    """

    __slots__ = ("making", "used")

    def __init__(self, making: asyncio.Task[SharedWatch]) -> None:
        self.making = making
        self.used = inf

    @property
    def watch(self) -> SharedWatch | None:
        """The watch; ``None`` while it is being made."""
        done = self.making.done() and not self.making.cancelled() and self.making.exception() is None
        return self.making.result() if done else None


class Watches:
    """The watches of the running event loop, by key. All methods are called in that loop.

    :param now: the clock, in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._entries: dict[str, _Entry] = {}
        self._turn = asyncio.Semaphore(MAX_CONCURRENT_MAKES)

    def made(self) -> list[SharedWatch]:
        """Those that are there."""
        return [entry.watch for entry in self._entries.values() if entry.watch is not None]

    async def get(self, key: str, make: Callable[[], Awaitable[SharedWatch]]) -> SharedWatch:
        """The watch of `key`, which the first to ask for it makes.

        All who ask while it is being made get the same watch, or the same error; after an error, the next
        to ask makes it again. Nothing that happens to one who asks concerns the others.
        """
        entry = self._entries.get(key) or self._start(key, make)
        watch = await asyncio.shield(entry.making)
        entry.used = self._now()
        return watch

    def drop_idle(self) -> int:
        """Drop the watches that have not been used for `IDLE_SECONDS`; return how many.

        Nothing can come between this and a new caller: one that has asked for a watch since has renewed it,
        and one that asks later makes another one.
        """
        now = self._now()
        for entry in self._entries.values():
            if entry.watch:  # a watch is true while somebody waits
                entry.used = now
        idle = [key for key, entry in self._entries.items() if now - entry.used >= IDLE_SECONDS]
        for key in idle:
            del self._entries[key]
        return len(idle)

    def _start(self, key: str, make: Callable[[], Awaitable[SharedWatch]]) -> _Entry:
        async def in_turn() -> SharedWatch:
            async with self._turn:
                return await make()

        # Its log lines go to the triggerer's log, not to the one of the trigger that came first.
        create = asyncio.get_running_loop().create_task
        making: asyncio.Task[SharedWatch] = contextvars.Context().run(create, in_turn())
        entry = self._entries[key] = _Entry(making)

        def settle(task: asyncio.Task[SharedWatch]) -> None:
            """Begin its time, or forget one that could not be made. Runs before those that wait for it."""
            entry.used = self._now()
            if (task.cancelled() or task.exception()) and self._entries.get(key) is entry:
                del self._entries[key]

        making.add_done_callback(settle)
        return entry
