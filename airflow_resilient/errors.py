"""Errors.

::

    ResilientError                    base of all errors of this library
    +-- InvalidParameter              a parameter is wrong; raised when the DAG is parsed, where possible;
    |                                 at run time: no retry
    +-- NotSubmitted                  the service accepted no job; has .response
    |   +-- NoCapacity                the service has no capacity now; a retry may help
    |   +-- SubmitRefused             the service will never accept this request: no retry
    +-- JobUnreachable                the job cannot be observed any more (access denied); it may still run
    +-- JobError                      the job did not succeed; has .job
        +-- JobFailed                 the job failed; a retry may help
        +-- JobCancelled              a user or a tool stopped the job: no retry
        +-- JobLost                   the service no longer knows the job; its outcome is unknown
        +-- JobTimeout                the deadline passed

"No retry" means that the class is also an ``AirflowFailException``, which Airflow does not retry.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .compat import AirflowException, AirflowFailException
from .core.job import Phase
from .core.service import NoCapacityMarker
from .core.text import error_text

if TYPE_CHECKING:
    from .core.job import Job, LogTail


_E = TypeVar("_E", bound=Exception)


class ResilientError(AirflowException):
    """The base of all errors of this library. They can be copied and pickled, with their attributes."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy what is there, without a call of ``__init__``, which may want more than ``args`` has."""
        return _remake, (type(self), self.args), self.__dict__ or None


def _remake(kind: type[_E], args: tuple[Any, ...]) -> _E:
    error = kind.__new__(kind, *args)
    error.args = args
    return error


class InvalidParameter(ResilientError, AirflowFailException, ValueError):
    """A parameter is wrong. The message names the task, the parameter and a valid value.

    Where it is known only after templates are rendered, the task fails: Airflow does not retry.
    """


class NotSubmitted(ResilientError):
    """The service accepted no job.

    :param response: the response of the service, ``{"Error": {"Code": str, "Message": str}}`` or
        ``{"failures": [...]}``.
    """

    def __init__(self, message: str, response: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.response = response or {}


class NoCapacity(NotSubmitted, NoCapacityMarker):
    """The service has no capacity now. Each try submits again ``infrastructure_retries`` times."""


class SubmitRefused(NotSubmitted, AirflowFailException):
    """The service will never accept this request (denied, unknown cluster): Airflow does not retry."""


class JobUnreachable(ResilientError):
    """The job cannot be observed, for a permanent reason: access denied, triggers that crash.

    The job may still run: it was not cancelled, and the next try takes it over.

    :param job: the last observation of it; ``None`` when there is none.
    """

    def __init__(self, message: str, job: Job | None = None) -> None:
        super().__init__(message)
        self.job = job


class JobError(ResilientError):
    """The job did not succeed.

    :param job: the last observation of it (``None`` for a `JobTimeout` before any job was accepted).
    """

    def __init__(self, message: str, job: Job | None = None) -> None:
        super().__init__(message)
        self.job = job


class JobFailed(JobError):
    """The job failed. Airflow's ``retries`` apply."""


class JobCancelled(JobError, AirflowFailException):
    """A user or a tool stopped the job on purpose. Airflow does not retry."""


class JobLost(JobError):
    """The service no longer knows the job and its end was not observed: it may have succeeded or failed."""


class JobTimeout(JobError):
    """``execution_timeout`` passed, counted from the first start of the try over all deferrals."""


def also(error: _E, provider_error: str, **attributes: Any) -> _E:
    """`error`, which an ``except`` for an error of the amazon or docker provider catches, too.

    Code that catches the provider's error then needs no change. The provider's module is imported here, where
    an error is raised, and not when a DAG is parsed; where it is not installed, nobody can catch its errors,
    and `error` is returned as it is.

    :param provider_error: ``module:Class``.
    :param attributes: of the provider's error.
    """
    module, _, name = provider_error.partition(":")
    try:
        theirs = getattr(import_module(module), name)
    except Exception:  # noqa: BLE001 - a provider may refuse this Airflow, whatever it raises
        return error
    kind = theirs if issubclass(theirs, type(error)) else _both(type(error), theirs)
    made = cast("_E", _remake(kind, error.args))
    vars(made).update(vars(error) | attributes)
    return made


CLIENT_ERROR = "botocore.exceptions:ClientError"
"""For `also`: what boto3 raises where AWS refuses a call, and the amazon provider lets out."""

_MADE: dict[tuple[type[Exception], type[Exception]], type[Exception]] = {}


def _both(ours: type[Exception], theirs: type[Exception]) -> type[Exception]:
    """A class that is both, with our name; it can be pickled although no module has it."""

    def reduce(self: Exception) -> tuple[Any, ...]:
        return _remake_both, (ours, theirs, self.args), self.__dict__ or None

    if (ours, theirs) not in _MADE:
        content = {"__reduce__": reduce, "__module__": ours.__module__, "__str__": ours.__str__}
        _MADE[ours, theirs] = type(ours.__name__, (ours, theirs), content)
    return _MADE[ours, theirs]


def _remake_both(ours: type[Exception], theirs: type[Exception], args: tuple[Any, ...]) -> Exception:
    return _remake(_both(ours, theirs), args)


def error_of(job: Job, log: LogTail | None = None) -> JobError:
    """The exception for a job that did not succeed, with the last lines of its log in the message."""
    message = f"{job.id} {job.phase.value}: {job.reason or 'the service gave no reason'}"
    if log is not None and log.lines:
        message += "\nLast lines of its log:\n" + "\n".join(log.lines)
    if job.phase is Phase.CANCELLED:
        return JobCancelled(
            message
            + " The job was stopped on purpose, so Airflow does not retry; clear the task to run it again.",
            job,
        )
    if job.phase is Phase.LOST:
        return JobLost(message + " Check its output before you run it again.", job)
    return JobFailed(message, job)


class hiding:  # noqa: N801 - a context manager, as contextlib.suppress
    """Let no error out whose chain shows a secret.

    An error of this library keeps its class, its message, which hides already what it quotes, and its
    attributes; it loses ``__cause__`` and ``__context__``. Any other becomes a `ResilientError`.

    :param hide: returns a text without secrets; see `RemoteService.hide`.
    """

    def __init__(self, hide: Callable[[str], str]) -> None:
        self._hide = hide

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, Exception) or not any(map(self._shows, _chain(error))):
            return
        shown: Exception | None = copy.copy(error) if isinstance(error, ResilientError) else None
        shown = shown or ResilientError(self._hide(error_text(error)))
        try:
            raise shown from None
        finally:
            shown.__context__ = None

    def _shows(self, error: BaseException) -> bool:
        text = f"{error} {error.args!r} {vars(error)!r}"
        return self._hide(text) != text


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, its causes and its contexts."""
    waiting, seen = [error], set()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [other for other in (each.__cause__, each.__context__) if other is not None]
