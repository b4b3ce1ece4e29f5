"""Copy a job's log into the log of the task instance that waits for it, while the job runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from ..core.logs import LARGE_PORTION, MIN_LOG_INTERVAL, UNUSABLE_POSITION, LogPosition, read_position
from ..core.text import error_text

if TYPE_CHECKING:
    from ..core.job import Job
    from ..core.service import LogLine, RemoteService

T = TypeVar("T")

_Portion: TypeAlias = "tuple[Sequence[LogLine], Any]"

LINES_PER_TURN = 200
"""How many lines of a log are written before the event loop may run other triggers."""

MAX_DRAIN_SECONDS = 5.0
"""Seconds by which a log may delay the report of the job's end, where the end of the log is wanted."""

MAX_DELAY_SECONDS = 0.5
"""Seconds by which it may delay that otherwise: until the position behind what was written last is stored."""

MAX_TURN_SECONDS = 20.0
"""Seconds for which a call keeps its turn; one that takes longer goes on beside the others."""

_PAUSE_AFTER_ERROR = 1.5


class LogForwarder:
    """Forwards the log of one job until `end` is called. Its errors affect nothing else.

    The position is stored after each portion, so that a restarted triggerer continues from there; when the
    triggerer is killed between writing a portion and storing the position, this portion is written twice.

    :param service: reads the log.
    :param job: returns the latest observation of the job.
    :param where: the location of the log, for the service's ``read_log``.
    :param keep: how many of the last lines are kept in memory.
    :param write: the logger of the task instance, for lines and warnings.
    :param in_thread: ``await in_thread(function, *args)`` runs a blocking function.
    :param recall: reads the stored position (blocking); ``None`` when there is none.
    :param remember: stores JSON values (blocking).
    :param turns: limits how many logs, and positions in logs, are read or stored at the same time: after a
        restart, a thousand triggers begin at once.
    :param interval: seconds between two reads, at least one.

    :ivar position: how far the log has been written.
    :ivar continued: the stored position has been asked for; before, `position` says nothing.
    :ivar tail: the last lines that have been read since this forwarder was made.
    :ivar whole: the log has been read to its end, so that `tail` has its last lines.
    """

    def __init__(  # noqa: PLR0913 - the loop of one log
        self,
        service: RemoteService,
        job: Callable[[], Job],
        where: Mapping[str, Any],
        *,
        keep: int,
        write: Any,
        in_thread: Callable[..., Awaitable[Any]],
        recall: Callable[[], Any],
        remember: Callable[[Any], None],
        turns: asyncio.Semaphore,
        interval: float,
    ) -> None:
        self.position = LogPosition(job().id)
        self.continued = False
        self.tail: deque[str] = deque(maxlen=keep)
        self.whole = False
        self._service = service
        self._job = job
        self._where = where
        self._write = write
        self._in_thread = in_thread
        self._recall = recall
        self._remember = remember
        self._turns = turns
        self._interval = max(interval, MIN_LOG_INTERVAL)
        self._ended = asyncio.Event()
        self._drain = False

    def end(self, *, drain: bool = False) -> None:
        """Let `run` return: a read that is under way is abandoned; the worker copies what is left.

        :param drain: the job has ended and the end of its log is wanted here: read it first, if that takes no
            longer than `MAX_DRAIN_SECONDS` and the service's logs are complete when a job has ended.
        """
        self._drain = drain and self._service.log_drain <= 0
        self._ended.set()

    async def run(self) -> None:
        """Forward until `end` is called, or until the log cannot be read. Raises nothing."""
        try:
            if await self._forward() and self._drain:
                await self._read_to_the_end()
        except Exception as error:  # noqa: BLE001 - a log affects nothing else
            self._write.warning("the job's log cannot be read: %s", error_text(error))

    async def _forward(self) -> bool:
        """Forward until `end` is called; ``False``: the log cannot be read."""
        await self._unless_ended(self._continue_from_stored())
        stored = self.position.cursor is not None
        while not self._ended.is_set():
            portion: _Portion | None = None
            try:
                portion = await self._unless_ended(self._read(self.position.cursor))
            except Exception as error:  # noqa: BLE001 - sorted by `is_transient`, or logged
                if self._service.is_transient(error):
                    await self._pause()
                elif stored:
                    self._write.warning(UNUSABLE_POSITION, error_text(error))
                    self.position, stored = LogPosition(self.position.job), False
                else:
                    self._write.warning("the job's log cannot be read: %s", error_text(error))
                    return False
                continue
            if portion is None:
                break
            stored = False
            lines, cursor = portion
            await self._take(lines, cursor)
            if lines:
                storing = self._keep(self._remember, self.position.to_dict())
                await self._unless_ended(storing, grace=MAX_DELAY_SECONDS)
            if len(lines) < LARGE_PORTION:
                await self._pause()
        return True

    async def _read_to_the_end(self) -> None:
        """Read a log that is complete to its end, within `MAX_DRAIN_SECONDS`.

        What is read is not written here, but by the worker. Airflow's triggerer takes a trigger's lines in
        when it has time, and closes the log of a trigger that has ended: lines that are written last may get
        lost. An answer to a request, as to store a position, shows that it has taken in what came before.

        Source: ``_handle_request`` and ``_process_log_messages_from_subprocess`` of
        ``TriggerRunnerSupervisor``, ``make_buffered_socket_reader`` (4096 bytes at a time; Airflow 3.3.2).
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + MAX_DRAIN_SECONDS
        if not self.continued:  # the job had ended when this forwarder was made
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._continue_from_stored(), MAX_DRAIN_SECONDS)
        cursor = self.position.cursor
        while self.continued and (left := give_up - loop.time()) > 0:
            try:
                lines, after = await asyncio.wait_for(self._read(cursor), left)
            except asyncio.TimeoutError:
                return
            except Exception as error:
                if not self._service.is_transient(error):
                    raise
                await asyncio.sleep(min(_PAUSE_AFTER_ERROR, left))
                continue
            self.tail.extend(message for _, message in lines)
            if not lines:
                self.whole = True
                self.position = replace(self.position, complete=cursor == self.position.cursor)
                return
            cursor = after

    async def _read(self, cursor: Any) -> _Portion:
        """Read the portion after `cursor`."""
        lines, cursor = await self._in_turn(self._service.read_log, self._job(), self._where, cursor)
        json.dumps(cursor)  # it goes into the event: what is no JSON would end the trigger
        return lines, cursor

    async def _in_turn(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a blocking function when it is the turn of this log."""
        call: asyncio.Future[Any] | None = None
        try:
            async with self._turns:
                call = asyncio.ensure_future(self._in_thread(function, *args))
                await asyncio.wait({call}, timeout=MAX_TURN_SECONDS)
            return await call
        finally:
            if call is not None:
                _abandon(call)

    async def _take(self, lines: Sequence[LogLine], cursor: Any) -> None:
        """Write a portion to its end, and note that."""
        for number, (_, message) in enumerate(lines, 1):
            self._write.info("%s", message)
            if number % LINES_PER_TURN == 0:
                await asyncio.sleep(0)  # let the event loop run other triggers
        self.tail.extend(message for _, message in lines)
        self.position = replace(self.position, cursor=cursor, lines=self.position.lines + len(lines))

    async def _continue_from_stored(self) -> None:
        stored = read_position(await self._keep(self._recall), self.position.job)
        if stored is not None:
            self.position = replace(stored, complete=False)
        self.continued = True

    async def _keep(self, function: Callable[..., Any], *value: Any) -> Any:
        """Read or store the position in the log; ``None`` where this version of Airflow cannot."""
        try:
            return await self._in_turn(function, *value)
        except Exception as error:  # noqa: BLE001 - sorted by `is_transient`, or logged
            self._write.debug("the position in the log cannot be stored: %s", error)
            return None

    async def _pause(self) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._ended.wait(), self._interval)

    async def _unless_ended(self, coroutine: Coroutine[Any, Any, T], *, grace: float = 0.0) -> T | None:
        """What `coroutine` returns; ``None`` when `end` is called before it has returned.

        :param grace: seconds for which it may go on after `end`.
        """
        work = asyncio.ensure_future(coroutine)
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait({work, ended}, return_when=asyncio.FIRST_COMPLETED)
            if grace:
                await asyncio.wait({work}, timeout=grace)
            return work.result() if work.done() else None
        finally:
            _abandon(work)
            _abandon(ended)


def _abandon(work: asyncio.Future[Any]) -> None:
    """Let nothing wait for `work`, and nothing complain about its error."""
    if not work.cancel() and not work.cancelled():
        work.exception()
