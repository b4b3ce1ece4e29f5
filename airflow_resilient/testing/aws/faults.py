"""Faults that a test asks for: errors, denials and lost answers."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from airflow_resilient.testing.aws.wire import ACCOUNT, SIGNED_AS, AwsError, ConnectionDropped

if TYPE_CHECKING:
    from airflow_resilient.testing.aws.wire import Request

Answer = Literal["500", "drop"]

_LOST_ANSWER = {
    "ecs": "ServerException",
    "emr": "InternalServerException",
    "logs": "ServiceUnavailableException",
}
_MESSAGES = {
    "ThrottlingException": "Rate exceeded",
    "ServerException": "Service Unavailable. Please try again later.",
}


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    :param operation: ``ecs:RunTask``, or a pattern such as ``emr:*``.
    :param code: the error's code; ``None`` for what ``answer`` says.
    :param carried_out: the action happens all the same; only its answer is bad.
    :param answer: without ``code``: ``500`` is an internal error, ``drop`` closes the connection.
    :param status: HTTP status; ``None`` is the usual one of the code.
    """

    operation: str
    code: str | None = None
    message: str | None = None
    status: int | None = None
    carried_out: bool = False
    answer: Answer = "500"

    def error_for(self, request: Request) -> AwsError | ConnectionDropped:
        """Say what the caller gets instead of an answer."""
        if self.code is None and self.answer == "drop":
            return ConnectionDropped(f"no answer to {request.operation}, as the test asked")
        code = self.code or _LOST_ANSWER.get(request.service, "InternalFailure")
        message = self.message or _MESSAGES.get(code, f"{code}, as the test asked")
        if self.message is None and code == "AccessDeniedException":
            message = _denial(request)
        return AwsError(code, message, status=self.status)


class Faults:
    """The faults in force, oldest first; the first that fits a call is used up by it."""

    def __init__(self) -> None:
        self._left: list[tuple[Fault, int | None]] = []

    def add(self, fault: Fault, times: int | None) -> None:
        """Let a fault happen ``times`` times, or until it is healed."""
        if times is None or times > 0:
            self._left.append((fault, times))

    def take(self, operation: str) -> Fault | None:
        """Use up one fault for this call, if there is one for it."""
        for place, (fault, times) in enumerate(self._left):
            if fnmatchcase(operation, fault.operation):
                if times == 1:
                    del self._left[place]
                elif times is not None:
                    self._left[place] = (fault, times - 1)
                return fault
        return None

    def heal(self, operation: str | None) -> None:
        """End the faults that were asked for this operation (or pattern), or all of them."""
        self._left = [each for each in self._left if operation not in {None, each[0].operation}]


def _denial(request: Request) -> str:
    prefix = SIGNED_AS.get(request.service, request.service)
    return (
        f"User: arn:aws:iam::{ACCOUNT}:user/test is not authorized to perform: {prefix}:{request.action} "
        f"on resource: * because no identity-based policy allows the {prefix}:{request.action} action"
    )
