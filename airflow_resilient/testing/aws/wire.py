"""What goes over the wire between boto3 and the fake AWS: one request, one reply, one error."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4
from xml.sax.saxutils import escape

from airflow_resilient.testing.aws.rest import read_rest_request

ACCOUNT = "123456789012"
"""moto's default account; the fake's ARNs contain it, too."""

TARGETS = {
    "AmazonEC2ContainerServiceV20141113": "ecs",
    "ElasticMapReduce": "emr",
    "Logs_20140328": "logs",
    "AWSEvents": "events",
}
"""Prefix of ``X-Amz-Target`` -> short name of the service.

Source: ``targetPrefix`` in botocore's service models.
"""

SIGNED_AS = {"ecs": "ecs", "emr": "elasticmapreduce", "logs": "logs", "events": "events"}
"""Short name -> name of the service in the credential scope, the host name and IAM actions."""

_SCOPE = re.compile(r"Credential=[^/]+/\d{8}/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")
_SERVER_FAULTS = {
    "InternalFailure",
    "InternalServerError",
    "InternalServerException",
    "ServerException",
}
_UNAVAILABLE = {"ServiceUnavailable", "ServiceUnavailableException"}
_TEXT = 120
_ITEMS = 10


class AwsError(Exception):
    """An error that AWS would answer with.

    :param code: what boto3 shows as ``error.response["Error"]["Code"]``.
    :param status: HTTP status; by default 500 and 503 for the well-known server faults and 400 for the rest.
    :param members: more members of the error's shape, such as ``resourceIds``.
    """

    def __init__(self, code: str, message: str, *, status: int | None = None, **members: object) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status or (500 if code in _SERVER_FAULTS else 503 if code in _UNAVAILABLE else 400)
        self.members = members


class ConnectionDropped(Exception):
    """The answer never reaches the caller: the connection is closed without one."""


@dataclass(frozen=True)
class Request:
    """One API call.

    :param service: ``ecs``, ``emr``, ``logs`` or the name a request to another service is signed for.
    :param action: ``RunTask``; the HTTP method where a request does not name its operation.
    :param params: the request's parameters, ``{}`` where the fake does not read them.
    :param protocol: ``json``, ``query``, ``rest-json`` or ``rest`` (XML), which is the format of errors.
    """

    service: str
    action: str
    region: str
    params: Mapping[str, Any]
    protocol: str = "json"

    @property
    def operation(self) -> str:
        """``ecs:RunTask``: the key of calls, faults, denials and the journal."""
        return f"{self.service}:{self.action}"


@dataclass(frozen=True)
class Reply:
    """One HTTP answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """Read the body; an empty one is ``{}``."""
        answer: dict[str, Any] = json.loads(self.body or b"{}")
        return answer


def read_request(
    headers: Mapping[str, str], method: str, url: str, body: bytes, default_region: str
) -> Request:
    """Return the API call of an HTTP request.

    :param headers: with lower-case names.
    :param url: of the request, or its path and query alone.
    :param default_region: for requests that are not signed.
    """
    scope = _SCOPE.search(headers.get("authorization", ""))
    region = scope["region"] if scope else default_region
    signed_for = scope["service"] if scope else "unsigned"
    target = headers.get("x-amz-target", "")
    if "." in target:
        prefix, _, action = target.rpartition(".")
        params: Any = {}
        with contextlib.suppress(ValueError):
            params = json.loads(body or b"{}")
        service = TARGETS.get(prefix, signed_for)
        return Request(service, action, region, params if isinstance(params, dict) else {})
    if headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        form = dict(parse_qsl(body.decode("utf-8", "replace")))
        if "Action" in form:
            return Request(signed_for, form["Action"], region, form, "query")
    parts = urlsplit(url)
    call = read_rest_request(signed_for, method, parts.path, parts.query, body)
    if call is not None:
        return Request(signed_for, call.action, region, call.params, "rest-json")
    return Request(signed_for, method, region, {}, "rest")


def reply_with(answer: Mapping[str, Any]) -> Reply:
    """Write an answer as the JSON protocol does; times are seconds since the epoch."""
    return Reply(
        200,
        json.dumps(answer).encode(),
        {"Content-Type": "application/x-amz-json-1.1", "x-amzn-RequestId": str(uuid4())},
    )


def reply_with_error(error: AwsError, protocol: str = "json") -> Reply:
    """Write an error in the protocol of the service that was asked."""
    headers = {"x-amzn-RequestId": str(uuid4()), "x-amzn-ErrorType": error.code}
    if protocol == "query":
        text = (
            f"<ErrorResponse><Error><Type>Sender</Type><Code>{escape(error.code)}</Code>"
            f"<Message>{escape(error.message)}</Message></Error></ErrorResponse>"
        )
        return Reply(error.status, text.encode(), {**headers, "Content-Type": "text/xml"})
    if protocol == "rest":
        text = f"<Error><Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message></Error>"
        return Reply(error.status, text.encode(), {**headers, "Content-Type": "application/xml"})
    answer = {"__type": error.code, "message": error.message, **error.members}
    headers["Content-Type"] = "application/x-amz-json-1.1"
    return Reply(error.status, json.dumps(answer).encode(), headers)


def shorten(params: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of a request's parameters what a journal should show: plain values and short lists.

    Structures (overrides, whose environment may hold secrets, or steps) are shown by their names only.
    """
    return {name: _short(value) for name, value in params.items()}


def _short(value: object) -> object:
    if isinstance(value, str):
        return value if len(value) <= _TEXT else value[: _TEXT - 1] + "…"
    if isinstance(value, Mapping):
        return value["Name"] if isinstance(value.get("Name"), str) else "{…}"
    if isinstance(value, (list, tuple)):
        shown = [_short(item) for item in value[:_ITEMS]]
        return [*shown, "…"] if len(value) > _ITEMS else shown
    return value
