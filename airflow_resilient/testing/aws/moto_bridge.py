"""The one place that knows moto: calls into it, its WSGI application, its in-process switch."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from botocore.awsrequest import AWSPreparedRequest
from botocore.compat import HTTPHeaders
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError
from moto import mock_aws

from airflow_resilient.testing.aws.wire import (
    SIGNED_AS,
    TARGETS,
    AwsError,
    ConnectionDropped,
    Reply,
    read_request,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_resilient.testing.aws.wire import Request

# As Any: moto's modules re-export these names implicitly, which type checkers refuse.
_models: Any = import_module("moto.core.models")
_stubber: Any = _models.botocore_stubber

_PREFIX = {service: prefix for prefix, service in TARGETS.items()}
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}

Front = Callable[["Request", Callable[[], object]], "Reply | None"]
"""Answers a request or says ``None``: let moto answer. The callable lets moto act without an answer."""


def ask_moto(service: str, region: str, action: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Call an operation of moto itself, past everything that the fake adds.

    :raises AwsError: what moto answered, when that is an error.
    """
    host = f"{SIGNED_AS[service]}.{region}.amazonaws.com"
    headers = HTTPHeaders()
    headers["Host"] = host
    headers["X-Amz-Target"] = f"{_PREFIX[service]}.{action}"
    headers["Content-Type"] = "application/x-amz-json-1.1"
    headers["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential=test/20260101/{region}/{SIGNED_AS[service]}/aws4_request, "
        "SignedHeaders=host, Signature=none"
    )
    request = AWSPreparedRequest(
        method="POST",
        url=f"https://{host}/",
        headers=headers,
        body=json.dumps(params).encode(),
        stream_output=False,
    )
    answer = _let_moto_answer(request)
    if answer is None:
        raise AwsError("InternalFailure", f"moto does not know {service}:{action}")
    status, _, body = answer
    reply = Reply(status, body.encode() if isinstance(body, str) else body)
    content = reply.json()
    if status >= 300:  # noqa: PLR2004 - HTTP's "not a success"
        message = content.get("message", content.get("Message", ""))
        raise AwsError(
            str(content.get("__type", "InternalFailure")).rpartition("#")[2], message, status=status
        )
    return content


def _let_moto_answer(request: AWSPreparedRequest) -> tuple[int, Mapping[str, str], str | bytes] | None:
    """Call moto's own handler, whether or not :class:`InProcess` stands in for it at the moment."""
    answer = _models.BotocoreStubber.process_request(_stubber, request)
    return cast("tuple[int, Mapping[str, str], str | bytes] | None", answer)


def event_matches(pattern: str | None, event: Mapping[str, Any]) -> bool:
    """Whether an event matches a rule's pattern, by moto's rules."""
    events: Any = import_module("moto.events.models")
    return bool(events.EventPattern.load(pattern).matches_event(dict(event)))


def forget_everything() -> None:
    """Empty moto's backends, as a new ``mock_aws`` does."""
    from moto.core.base_backend import BackendDict

    BackendDict.reset()


class InProcess:
    """moto's switch for boto3 clients of this process, with the fake in front.

    moto registers one handler with botocore, for all clients. While this is on, that handler's
    ``process_request`` is ours: it answers itself, or asks moto, and refuses what both do not know (but for
    loopback addresses).
    """

    def __init__(self, front: Front, region: str) -> None:
        self._front = front
        self._region = region
        self._mock: Any = mock_aws()

    def start(self) -> None:
        """Catch all calls from now on.

        :raises RuntimeError: when another fake AWS does so already.
        """
        if "process_request" in vars(_stubber):
            raise RuntimeError("another FakeAws is open in this process")
        self._mock.start()
        _stubber.process_request = self._process

    def stop(self) -> None:
        """Stop catching calls."""
        vars(_stubber).pop("process_request", None)
        self._mock.stop()

    def _process(self, request: AWSPreparedRequest) -> Any:
        host = urlsplit(request.url).hostname or ""
        if host in _LOOPBACK:
            return None
        values: list[tuple[str, Any]] = list(request.headers.items())
        headers = {
            name.lower(): value.decode() if isinstance(value, bytes) else str(value) for name, value in values
        }
        body = request.body if isinstance(request.body, bytes) else str(request.body or "").encode()
        call = read_request(headers, request.method, request.url, body, self._region)
        try:
            reply = self._front(call, lambda: _let_moto_answer(request))
        except ConnectionDropped:
            raise ConnectionClosedError(endpoint_url=request.url) from None
        if reply is not None:
            return reply.status, dict(reply.headers), reply.body
        answer = _let_moto_answer(request)
        if answer is None:  # botocore would go on and send it
            raise EndpointConnectionError(endpoint_url=request.url)
        return answer


class WsgiApplication:
    """moto's server with the fake in front."""

    def __init__(self, front: Front, region: str) -> None:
        server: Any = import_module("moto.server")
        self._front = front
        self._region = region
        self._moto: Any = server.DomainDispatcherApplication(server.create_backend_app)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one HTTP request.

        :raises ConnectionAbortedError: to make the server drop the connection without an answer.
        """
        import io
        import socket
        from http import HTTPStatus

        from werkzeug.test import run_wsgi_app

        headers = {
            name[5:].replace("_", "-").lower(): str(value)
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
        headers["content-type"] = environ.get("CONTENT_TYPE", "")
        body = b""
        form = headers["content-type"].startswith("application/x-www-form-urlencoded")
        if form or "x-amz-target" in headers or "json" in headers["content-type"]:
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            environ["wsgi.input"] = io.BytesIO(body)
        call = read_request(headers, environ["REQUEST_METHOD"], _url_of(environ), body, self._region)
        try:
            reply = self._front(call, lambda: run_wsgi_app(self._moto, environ, buffered=True))
        except ConnectionDropped as dropped:
            # Without this the server would keep the connection and wait for the next request on it.
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError(str(dropped)) from None
        if reply is None:
            return cast("Iterable[bytes]", self._moto(environ, start_response))
        phrase = HTTPStatus(reply.status).phrase
        start_response(
            f"{reply.status} {phrase}", [*reply.headers.items(), ("Content-Length", str(len(reply.body)))]
        )
        return [reply.body]


def _url_of(environ: Mapping[str, Any]) -> str:
    """Path and query of a request, escaped as they were sent."""
    from urllib.parse import quote

    path = environ.get("RAW_URI") or environ.get("REQUEST_URI") or quote(str(environ.get("PATH_INFO", "")))
    query = environ.get("QUERY_STRING", "")
    return str(path) if "?" in str(path) or not query else f"{path}?{query}"
