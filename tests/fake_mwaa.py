"""Amazon MWAA as far as the client of Airflow's REST API uses it, in front of an Airflow, over HTTP.

What it answers follows botocore's model of MWAA, through which each test reads it, and the user guide. Where
neither says what AWS does, it refuses, or does both on request: a list in a query, a path that is escaped.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

MAX_ANSWER = 6 * 1024 * 1024

Airflow = Callable[[str, str, list[tuple[str, str]], bytes], tuple[int, Any]]
"""Takes method, path with ``/api/v…`` (not escaped), query and body; returns a status and JSON."""


@dataclass
class FakeMwaa:
    """One environment.

    :ivar airflow: the Airflow in it.
    :ivar version: of Airflow; the API is v1 for 2.x, else v2.
    :ivar options: configuration options of the environment.
    :ivar faults: answers to calls, one for each, until there is none any more: status of AWS, code and
        members of the error; ``None`` closes the connection.
    :ivar denied: operations that the credentials may not use.
    :ivar passes_version: whether ``/version`` is passed on.
    :ivar escapes: whether a path is escaped once more before it is passed on.
    :ivar max_path: longer paths are refused, as botocore's model says; ``None``: they are passed on.
    :ivar asked: operations and what they were called with.
    :ivar keys: the access keys that signed the calls.
    """

    airflow: Airflow
    name: str = "prod"
    version: str = "3.0.6"
    options: dict[str, str] = field(default_factory=dict)
    faults: list[tuple[int, str, dict[str, Any]] | None] = field(default_factory=list)
    denied: set[str] = field(default_factory=set)
    passes_version: bool = True
    escapes: bool = False
    max_path: int | None = None
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any] | None:
        """The answer of AWS; ``None`` closes the connection."""
        kind, _, name = unquote(path).strip("/").partition("/")
        operation = {("POST", "restapi"): "InvokeRestApi", ("GET", "environments"): "GetEnvironment"}[
            method, kind
        ]
        request = json.loads(body or b"{}")
        self.asked.append((operation, request))
        if self.faults:
            fault = self.faults.pop(0)
            return fault and (fault[0], {"__type": fault[1], **fault[2]})
        if operation in self.denied:
            text = (
                f"User: arn:aws:sts::1:assumed-role/watch/i is not authorized to perform: airflow:{operation}"
            )
            return 403, {"__type": "AccessDeniedException", "Message": text}
        if name != self.name:
            return 404, {"__type": "ResourceNotFoundException", "message": "Environment not found"}
        if operation == "GetEnvironment":
            about = {
                "Name": name,
                "AirflowVersion": self.version,
                "AirflowConfigurationOptions": self.options,
            }
            return 200, {"Environment": about}
        return self._invoke(request)

    def _invoke(self, request: dict[str, Any]) -> tuple[int, Any]:
        path, query = request["Path"], request.get("QueryParameters") or {}
        if (self.max_path and len(path) > self.max_path) or not all(
            isinstance(each, str) for each in query.values()
        ):
            return 400, {"__type": "ValidationException", "message": "1 validation error detected"}
        if path == "/version" and not self.passes_version:
            return self._error(404, {"detail": "Not Found"})
        api = "/api/v1" if self.version.startswith("2.") else "/api/v2"
        seen = unquote(quote(path)) if self.escapes else unquote(path)
        sent = json.dumps(request["Body"]).encode() if "Body" in request else b""
        status, found = self.airflow(request["Method"], f"{api}{seen}", list(query.items()), sent)
        if len(json.dumps(found)) > MAX_ANSWER:
            return 400, {"__type": "RestApiServerException", "message": "the response is too large"}
        if status >= 400:
            return self._error(status, found)
        return 200, {"RestApiStatusCode": status, "RestApiResponse": found}

    def _error(self, status: int, found: Any) -> tuple[int, Any]:
        kind = "RestApiServerException" if status >= 500 else "RestApiClientException"
        return 400, {"__type": kind, "RestApiStatusCode": status, "RestApiResponse": found}


@contextlib.contextmanager
def serving(mwaa: FakeMwaa) -> Iterator[FakeMwaa]:
    """Serve AWS's API, and the Airflow itself below ``/api``, on loopback at its `url`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if parts.path.startswith(("/restapi/", "/environments/")):
                signed = re.search(
                    r"Credential=([^/]+)/.*/airflow/aws4_request", self.headers["Authorization"]
                )
                mwaa.keys.append(signed[1] if signed else "")
                found = mwaa.answer(self.command, parts.path, body)
            else:
                found = mwaa.airflow(self.command, unquote(parts.path), parse_qsl(parts.query), body)
            if found is None:
                self.close_connection = True
                return
            data = json.dumps(found[1]).encode()
            self.send_response(found[0])
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET  # noqa: N815 - http.server's names

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        mwaa.url = f"http://127.0.0.1:{listening.server_port}"
        try:
            yield mwaa
        finally:
            listening.shutdown()
            thread.join()
