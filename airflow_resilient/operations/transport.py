"""How a request reaches Airflow's REST API, and its answer: over HTTP, or as `mwaa` does through AWS.

httpx is imported at the first request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..core.text import error_text
from .task_instances import AirflowApiError

if TYPE_CHECKING:
    import httpx

_SUCCESS = range(200, 300)


@dataclass(frozen=True)
class Answer:
    """What came back for one request.

    :param status: of HTTP.
    :param body: the JSON; ``None``: there was none, as from a proxy or Airflow's UI.
    :param reason: the status in words.
    :param sent: when the answer was sent, in seconds since 1970; ``None`` where it does not say so.
    """

    status: int
    body: Any = None
    reason: str = ""
    sent: float | None = None

    @property
    def good(self) -> bool:
        """Whether it is a success."""
        return self.status in _SUCCESS


class NoAnswer(Exception):
    """No answer came; the same request may get one later. The text says why."""


class Transport(Protocol):
    """Sends requests to one Airflow. It neither repeats a request nor judges an answer.

    :ivar one_value_each: a key of a query has one value; a request with two is sent once for each.
    :ivar routes: it chooses v1 or v2 of the API itself, and `version` says which it is.
    """

    one_value_each: bool
    routes: bool

    def send(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        body: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Send one request.

        :param path: with ``/api/v1`` or ``/api/v2``.
        :param body: sent as JSON.
        :raises NoAnswer: none came.
        :raises AirflowApiError: the request cannot be sent, now or later.
        """

    def version(self) -> str:
        """The version of Airflow, from elsewhere than its API; empty where nothing else tells it.

        :raises NoAnswer: the same request may be answered later.
        :raises AirflowApiError: it cannot be read.
        """

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""


class HttpTransport:
    """Sends requests over HTTP.

    :param url: of Airflow's UI.
    :param auth: what httpx accepts as ``auth=``; it adds the login to every request, and renews it.
    :param verify: whether, or with which CA bundle, the certificate is verified.
    :param timeout: seconds for one response.
    """

    one_value_each = False
    routes = False

    def __init__(
        self, url: str, *, auth: Any = None, verify: bool | str = True, timeout: float = 60.0
    ) -> None:
        self.url, self._auth, self._verify, self._timeout = url, auth, verify, timeout
        self._client: httpx.Client | None = None
        self._token: str | None = None

    def use(self, *, token: str | None = None, auth: Any = None) -> None:
        """Add this login to all further requests; without either, none."""
        self._token, self._auth = token, auth
        if self._client is not None:
            self._apply(self._client)

    def send(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        body: Mapping[str, Any] | None = None,
    ) -> Answer:
        """See `Transport.send`."""
        import httpx

        client = self._open()
        try:
            response = client.request(method, f"{self.url}{path}", params=list(query) or None, json=body)
        except httpx.LocalProtocolError:
            raise AirflowApiError(  # its text contains the header
                f"the request for {self.url} cannot be sent: is a line break in the token?"
            ) from None
        except httpx.TransportError as error:
            raise NoAnswer(error_text(error)) from None
        except httpx.InvalidURL as error:
            raise AirflowApiError(f"invalid Airflow URL {self.url!r}: {error}") from None
        except Exception as error:
            if self._auth is None:
                raise
            # Its text may contain a secret.
            raise AirflowApiError(
                f"the login for {self.url} cannot be made: auth= raised {type(error).__name__}"
            ) from None
        return Answer(response.status_code, _json_of(response), response.reason_phrase, _sent_at(response))

    def version(self) -> str:
        """See `Transport.version`."""
        return ""

    def close(self) -> None:
        """See `Transport.close`."""
        if self._client is not None:
            self._client.close()
        self._client = None

    def _open(self) -> httpx.Client:
        import httpx

        if self._client is None:
            made = httpx.Client(verify=self._verify, timeout=self._timeout, follow_redirects=False)
            self._apply(made)
            self._client = made
        return self._client

    def _apply(self, client: httpx.Client) -> None:
        try:
            client.auth = self._auth
        except TypeError:
            raise AirflowApiError(
                f"auth={type(self._auth).__name__} is no login: pass an httpx.Auth, a callable that takes "
                "and returns a request, or user and password in a tuple"
            ) from None
        if self._token is None:
            client.headers.pop("Authorization", None)
        else:
            client.headers["Authorization"] = f"Bearer {self._token}"


def seconds_of(date: str | None) -> float | None:
    """The time in a ``Date`` header in seconds since 1970; ``None`` if it is none.

    >>> seconds_of("Thu, 01 Jan 1970 00:01:00 GMT"), seconds_of("now"), seconds_of(None)
    (60.0, None, None)
    """
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return None


def _sent_at(response: httpx.Response) -> float | None:
    return seconds_of(response.headers.get("Date"))


def _json_of(response: httpx.Response) -> Any:
    try:
        return response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
