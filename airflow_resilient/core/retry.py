"""The runtime as an argument (clock, sleep, random, log), back-off, and retries of transient errors.

Imports the standard library only; a test enforces it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from .text import error_text

T = TypeVar("T")

log = logging.getLogger(__name__)


def doubling(first: float, attempt: int, maximum: float) -> float:
    """`first` seconds for attempt 1, doubled for each further attempt, at most `maximum`.

    >>> [doubling(2, n, 60) for n in (1, 2, 3, 8)]
    [2.0, 4.0, 8.0, 60.0]
    """
    return min(first * 2.0 ** min(attempt - 1, 30), float(maximum))


class Log(Protocol):
    """A logger: a `logging.Logger`, or Airflow's."""

    def info(self, event: str, *args: object) -> object:
        """Log a decision."""

    def warning(self, event: str, *args: object) -> object:
        """Log a transient error."""


@dataclass(frozen=True)
class Runtime:
    """Clock, sleep, random numbers and log, as arguments, so that tests can replace them."""

    now: Callable[[], float]
    sleep: Callable[[float], None]
    random: Callable[[], float]
    log: Log = log


def jitter(seconds: float, random: Callable[[], float]) -> float:
    """`seconds` spread randomly over 75 to 125 %, so that waits do not coincide."""
    return seconds * (0.75 + 0.5 * random())


MAX_ATTEMPTS = 7
"""Attempts of one call; with the pauses a minute in total, within which AWS's buckets refill."""
_MAX_PAUSE_SECONDS = 30.0


def retry_transient(
    call: Callable[[], T],
    is_transient: Callable[[Exception], bool],
    runtime: Runtime,
    attempts: int = MAX_ATTEMPTS,
    describe: Callable[[Exception], str] = error_text,
) -> T:
    """Return the result of `call`, which is repeated after transient errors.

    :param describe: formats an error for the log.
    :raises Exception: the error of the last attempt, or the first one that is not transient.
    """
    attempt = 1
    while True:
        try:
            return call()
        except Exception as error:
            if attempt >= attempts or not is_transient(error):
                raise
            pause = jitter(doubling(1.0, attempt, _MAX_PAUSE_SECONDS), runtime.random)
            runtime.log.warning("transient error (%s): retrying in %.0f s", describe(error), pause)
            runtime.sleep(pause)
            attempt += 1
