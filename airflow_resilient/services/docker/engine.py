"""Docker engines: their clients, and which of their errors are transient."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...core.text import says, shorten

if TYPE_CHECKING:
    from ...core.job import Job

DEFAULT_URL = "unix://var/run/docker.sock"

ANSWER_TIMEOUT = 20.0
"""Seconds for which a request of `Engines.get` waits for an answer."""

_MAX_ERROR_DEPTH = 10
_PERMANENT_ERROR = r"(?i)certificate|PermissionError|Permission denied"
_NAMES_IN_ERRORS = (
    r"host='[^']*'|with url: \S+"  # of urllib3: an engine or a container may be named "certificate"
)
_NOT_IMPLEMENTED = 501


class EngineUnreachable(Exception):
    """An engine does not answer, or not in time. It says nothing about any container."""


class StateChanged(Exception):
    """A container was changed by somebody else between two calls. The next attempt sees the new state."""


class EngineMismatch(Exception):
    """The engine at the URL is not the one that started the container."""


class Engines:
    """The engines at some URLs: one client for each, made once; safe to share between threads.

    The parameters are those of `DockerContainers`.

    :param urls: in the order in which they are tried.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        api_version: str | None = None,
        tls: Mapping[str, Any] | None = None,
        timeout: float = 60,
    ) -> None:
        self.api_version = api_version
        self.tls = dict(tls) if tls else None
        self.timeout = timeout
        self.urls = [self.url_of(url) for url in urls]
        self._clients: dict[str, Any] = {}
        self._ids: dict[str, str] = {}
        # One for each engine: an engine that does not answer must not block the others.
        self._locks: dict[str, threading.Lock] = {url: threading.Lock() for url in self.urls}

    def address(self) -> dict[str, Any]:
        """Keywords of `DockerContainers`, as JSON values."""
        return {
            "docker_url": self.urls,
            "api_version": self.api_version,
            "tls": self.tls,
            "timeout": self.timeout,
        }

    def url_of(self, url: str) -> str:
        """The URL of an engine as the SDK expects it.

        >>> Engines([], tls={"verify": True}).url_of("tcp://build:2376"), Engines([]).url_of("tcp://build:2375")
        ('https://build:2376', 'tcp://build:2375')
        """
        return url.replace("tcp://", "https://") if self.tls else url

    def client(self, url: str) -> Any:
        """The SDK's client for an engine, made once.

        :raises EngineUnreachable: it does not answer.
        """
        from docker import APIClient
        from docker.errors import DockerException

        with self._locks.setdefault(url, threading.Lock()):
            if url not in self._clients:
                try:
                    self._clients[url] = APIClient(
                        base_url=url, version=self.api_version, tls=self._tls_config(), timeout=self.timeout
                    )
                except DockerException as error:
                    cause = error.__cause__
                    if not isinstance(cause, Exception) or not is_transient(cause):
                        raise DockerException(f"{error}. {self._access_advice(url)}") from error
                    raise EngineUnreachable(
                        f"the engine at {url} does not answer: {shorten(str(error), 200)}"
                    ) from error
            return self._clients[url]

    def first(self) -> tuple[str, Any]:
        """URL and client of the first engine that answers. Those before it have received no request."""
        unreachable: Exception | None = None
        for url in self.urls:
            try:
                client = self.client(url)
                client.ping()
            except Exception as error:
                if not is_transient(error):
                    raise
                unreachable = error
            else:
                return url, client
        raise unreachable or EngineUnreachable("no engine is configured")

    def id_of(self, client: Any, url: str) -> str:
        """The id of the engine at `url`, looked up once."""
        if url not in self._ids:
            self._ids[url] = engine_id(client)
        return self._ids[url]

    def require_same(self, client: Any, url: str, job: Job) -> None:
        """Check that a missing container is not on another engine.

        :raises EngineMismatch: the engine at `url` is not the one that started it.
        """
        current, expected = engine_id(client), job.facts.get("engine")
        if current and expected and current != expected:
            raise EngineMismatch(
                f"{job.id} was started by another engine than the one that answers at {url} now. docker_url "
                "must lead to the same engine from every worker and triggerer; a socket is another engine on "
                "each machine"
            )

    def get(self, client: Any, path: str, *, stream: bool = False, **params: Any) -> Any:
        """Send a GET request that the SDK has no method for: with exact times, and a time-out of its own.

        :raises docker.errors.APIError: like the SDK's methods.
        """
        import requests
        from docker.errors import create_api_error_from_http_exception

        url = f"{client.base_url}/v{client.api_version}{path}"
        answer = client.get(url, params=params, stream=stream, timeout=ANSWER_TIMEOUT)
        try:
            answer.raise_for_status()
        except requests.exceptions.HTTPError as error:
            raise create_api_error_from_http_exception(error) from error
        return answer

    def logged_in(self, client: Any, conn_id: str) -> Any:
        """A client for the same engine, logged in to the registry of an Airflow connection.

        :raises EngineUnreachable: it does not answer.
        """
        from airflow.providers.common.compat.sdk import AirflowException
        from airflow.providers.docker.hooks.docker import DockerHook

        url = next(url for url, known in self._clients.items() if known is client)
        hook = DockerHook(
            docker_conn_id=conn_id,
            base_url=url,
            version=self.api_version,
            tls=self._tls_config() or None,
            timeout=int(self.timeout),
        )
        try:
            return hook.api_client
        except AirflowException as error:
            if "establish connection" in str(error):
                raise EngineUnreachable(str(error)) from error
            raise

    def _tls_config(self) -> Any:
        if not self.tls:
            return False
        from airflow.providers.docker.hooks.docker import DockerHook

        return DockerHook.construct_tls_config(**self.tls)

    def _access_advice(self, url: str) -> str:
        """What to check when an engine refuses the connection."""
        names = [name for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if os.environ.get(name)]
        if self.tls and names:  # see Session.merge_environment_settings in sessions.py of requests
            return (
                f"Check that this process may use {url}: {' and '.join(names)} is set here, and overrides "
                "tls_ca_cert"
            )
        return f"Check that this process may use {url}"


def default_url() -> str:
    """The engine that is used if none is named: ``DOCKER_HOST``, or the socket."""
    return os.environ.get("DOCKER_HOST") or DEFAULT_URL


def engine_id(client: Any) -> str:
    """The engine's id, which survives restarts; empty for podman, which makes a new one for each answer."""
    return "" if is_podman(client) else str(client.info().get("ID") or "")


def is_podman(client: Any) -> bool:
    """Whether it is podman, which has no daemon whose end stops containers."""
    return any("podman" in str(each.get("Name")).lower() for each in client.version().get("Components") or ())


def is_name_taken(error: Any) -> bool:
    """Whether a name is in use: Docker answers 409, podman 500."""
    status = error.response.status_code if error.response is not None else 0
    return status in (409, 500) and says(str(error.explanation), "(?i)container name .* already in use")


def is_transient(error: Exception) -> bool:
    """Whether the same call may succeed later."""
    import requests
    from docker.errors import APIError
    from urllib3.exceptions import HTTPError

    if isinstance(error, APIError):
        status = error.response.status_code if error.response is not None else 0
        return status in (408, 429) or (status >= 500 and status != _NOT_IMPLEMENTED)  # noqa: PLR2004 - HTTP
    if isinstance(error, EngineUnreachable | StateChanged):
        return True
    raised = requests.exceptions
    lost = (
        raised.ConnectionError,
        raised.Timeout,
        raised.ChunkedEncodingError,
        HTTPError,
        ConnectionError,
        TimeoutError,
    )
    return isinstance(error, lost) and not is_permanent(error)


def is_permanent(error: Exception) -> bool:
    """Whether the engine refuses this process: a certificate or a permission is wrong."""
    return bool(re.search(_PERMANENT_ERROR, re.sub(_NAMES_IN_ERRORS, "", _error_chain(error))))


def _error_chain(error: BaseException | None) -> str:
    """An error and its causes, as a text with the names of their classes."""
    chain: list[str] = []
    while error is not None and len(chain) < _MAX_ERROR_DEPTH:  # a cycle would not end
        chain.append(repr(error))
        error = error.__cause__ or error.__context__
    return " ".join(chain)
