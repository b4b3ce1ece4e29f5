"""How far the log of a job has been copied, and the rest of it when the job has ended.

The trigger copies while the job runs and reports the end without waiting for the log; what is left then is
copied by the worker that takes the end in. Neither an event nor an XCom contains lines, only the position.

Imports the standard library only; a test enforces it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from .retry import jitter, retry_transient
from .text import error_text

if TYPE_CHECKING:
    from .job import Job
    from .retry import Runtime
    from .service import RemoteService

LOG_END_ATTEMPTS = 5
"""Attempts to read a portion of the rest of a log; with the pauses about 15 seconds."""

LARGE_PORTION = 1000
"""Lines of one read after which the next read follows at once: the log is growing fast."""

MIN_LOG_INTERVAL = 1.0
"""Shortest time between two reads of a log otherwise, in seconds."""

MAX_LOG_END_SECONDS = 60.0
"""Seconds for which a worker copies the rest of the log of a job that has ended."""

_PAUSE_FOR_LATE_LINES = 1.5


@dataclass(frozen=True)
class LogPosition:
    """How far the log of one job has been copied.

    :param job: id of the job.
    :param cursor: the service's own position, JSON values; ``None``: the beginning.
    :param lines: how many lines have been copied.
    :param complete: the job has ended, and its log has been copied to its end.
    """

    job: str
    cursor: Any = None
    lines: int = 0
    complete: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The position as JSON values; `read_position` reverses it."""
        return asdict(self)


def read_position(stored: Any, job_id: str) -> LogPosition | None:
    """The position that was stored for a job, from any JSON value; ``None`` when it is none for this job.

    >>> read_position({"job": "j-1", "cursor": 5, "lines": 2}, "j-1")
    LogPosition(job='j-1', cursor=5, lines=2, complete=False)
    >>> read_position({"job": "j-2", "cursor": 5}, "j-1"), read_position(["j-1"], "j-1")
    (None, None)
    """
    if not isinstance(stored, Mapping) or stored.get("job") != job_id:
        return None
    lines = stored.get("lines")
    return LogPosition(
        job_id,
        stored.get("cursor"),
        lines if type(lines) is int else 0,
        complete=stored.get("complete") is True,
    )


def copy_rest(
    service: RemoteService,
    job: Job,
    where: Mapping[str, Any],
    position: LogPosition,
    runtime: Runtime,
    *,
    drained: float,
    keep: int,
) -> tuple[tuple[str, ...], bool]:
    """Copy what a log has after `position` to the log of `runtime` (blocking).

    :param drained: when late lines have arrived, in seconds since 1970; until then an end is not believed.
    :param keep: how many of the copied lines to return, the last ones.
    :return: these lines, and whether they are the last ones of the log: it may go on for too long.
    :raises Exception: the log cannot be read.
    """
    cursor, tail = position.cursor, deque[str](maxlen=keep)
    give_up = runtime.now() + MAX_LOG_END_SECONDS
    stored = cursor is not None
    while True:
        try:
            lines, cursor = retry_transient(
                partial(service.read_log, job, where, cursor),
                service.is_transient,
                runtime,
                LOG_END_ATTEMPTS,
            )
        except Exception as error:
            if not stored or service.is_transient(error):
                raise
            runtime.log.warning(UNUSABLE_POSITION, error_text(error))
            cursor, stored = None, False
            continue
        stored = False
        for _, text in lines:
            runtime.log.info("%s", text)
            tail.append(text)
        now = runtime.now()
        if now >= give_up:
            if lines:
                runtime.log.warning(
                    "the job's log goes on: %.0f s after the end, the rest is not copied any more",
                    MAX_LOG_END_SECONDS,
                )
            return tuple(tail), not lines
        if not lines:
            if now >= drained:
                return tuple(tail), True
            runtime.sleep(min(jitter(_PAUSE_FOR_LATE_LINES, runtime.random), drained - now))


class LogCopy:
    """Copies the log of a job while it runs, to the log of `runtime`, in this thread.

    Its errors are logged and affect nothing else.

    :param where: the location of the log, for the service's ``read_log``.
    :param interval: seconds between two reads, at least one.

    :ivar position: how far the log has been copied.
    :ivar due: when to call `copy` next, in seconds since 1970.
    """

    def __init__(
        self,
        service: RemoteService,
        where: Mapping[str, Any],
        position: LogPosition,
        runtime: Runtime,
        interval: float,
    ) -> None:
        self.position = position
        self.due = runtime.now()
        self._service = service
        self._where = where
        self._runtime = runtime
        self._interval = max(interval, MIN_LOG_INTERVAL)
        self._stored = position.cursor is not None

    def copy(self, job: Job, stops: Callable[[], bool]) -> None:
        """Copy what is new in the log of `job` (blocking).

        :param stops: whether the worker is being stopped, which ends a long copy.
        """
        lines: Sequence[Any] = ()
        while not stops():
            try:
                lines, cursor = self._service.read_log(job, self._where, self.position.cursor)
            except Exception as error:  # noqa: BLE001 - a log affects nothing else
                if self._service.is_transient(error):
                    break
                if not self._stored:
                    self._runtime.log.warning(
                        "the job's log cannot be read: %s", self._service.hide(error_text(error))
                    )
                    self.due = math.inf
                    return
                self._runtime.log.warning(UNUSABLE_POSITION, error_text(error))
                self.position, self._stored = LogPosition(self.position.job), False
                continue
            self._stored = False
            for _, text in lines:
                self._runtime.log.info("%s", text)
            self.position = replace(self.position, cursor=cursor, lines=self.position.lines + len(lines))
            if len(lines) < LARGE_PORTION:
                break
        self.due = self._runtime.now() + self._interval


UNUSABLE_POSITION = "the stored position in the job's log cannot be used (%s): it is read from its beginning"
