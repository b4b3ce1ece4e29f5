"""Errors.

::

    ResilientError                    everything that this library raises by itself
    +-- InvalidParameter              a parameter is wrong; raised when the DAG is parsed where it can be seen
    there
    +-- NotSubmitted                  the service took no job; carries .response
    |   +-- NoCapacity                it has no room now; a retry may help
    |   +-- SubmitRefused             it will never take this request: no retry
    +-- Unobservable                  nobody may look at the job any more (access denied); it may still run
    +-- JobError                      the job ended, and not well; carries .job
        +-- JobFailed                 a retry may help
        +-- JobCancelled              somebody stopped it: no retry
        +-- JobLost                   the service forgot it; nobody knows how it ended
        +-- JobTimeout                the deadline passed

"No retry" means that the class is also an ``AirflowFailException``, which Airflow does not retry.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .compat import AirflowException, AirflowFailException
from .jobs import NoRoom

if TYPE_CHECKING:
    from .jobs import Job


class ResilientError(AirflowException):
    """The base of all errors that this library raises by itself."""


class InvalidParameter(ResilientError, ValueError):
    """A parameter is wrong. The message names the task, the parameter and what to write instead."""


class NotSubmitted(ResilientError):
    """The service took no job.

    :param response: what the service answered, ``{"Error": {"Code": str, "Message": str}}`` or ``{"failures":
        [...]}``.
    """

    def __init__(self, message: str, response: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.response = response or {}


class NoCapacity(NotSubmitted, NoRoom):
    """The service has no room now. It is asked again ``infrastructure_retries`` times, with back-off."""


class SubmitRefused(NotSubmitted, AirflowFailException):
    """The service will never take this request (denied, unknown cluster): Airflow does not retry."""


class Unobservable(ResilientError):
    """Nobody can look at the job, for a reason that does not pass by itself: access denied, triggers crash.

    The job may still run: it was not cancelled, and the next try takes it over.

    :param job: the last look at it; ``None`` when none is known.
    """

    def __init__(self, message: str, job: Job | None) -> None:
        super().__init__(message)
        self.job = job


class JobError(ResilientError):
    """The job ended, and not well.

    :param job: the last look at it (``None`` for a `JobTimeout` before any job was accepted).
    """

    def __init__(self, message: str, job: Job | None) -> None:
        super().__init__(message)
        self.job = job


class JobFailed(JobError):
    """The job failed. Airflow's ``retries`` apply."""


class JobCancelled(JobError, AirflowFailException):
    """Somebody stopped the job on purpose. Airflow does not retry."""


class JobLost(JobError):
    """The service does not know the job any more and nobody saw its end: it may have succeeded or failed."""


class JobTimeout(JobError):
    """``execution_timeout`` passed, counted from the first start of the try over all deferrals."""
