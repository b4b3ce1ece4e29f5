"""Airflow's REST API, as far as a sweep and a person on call need it: v2 (Airflow 3) and v1 (2.11).

Written with httpx, on which Airflow 2.11 and every 3.x depend, and the Task SDK does, too (requests it does
not need). Imported when the first question is asked.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote, urlsplit, urlunsplit

from .jobs import Senses
from .operators import LEFT_XCOM
from .sweep import ATTEMPTS, Instance, NoAnswer, persist

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

_PAGE = 100
"""Task instances on a page. Source: ``[api] maximum_page_limit``, 100 by default on 2.11 and 3.x."""
_BEGINNING = datetime(2015, 1, 1, tzinfo=timezone.utc).timestamp()
_INSTANT = 2e-6  # seconds; rows that changed within it cannot be told apart by time
_ROUNDS = 3
_MOST_QUESTIONS = 20_000  # about a million task instances
_PASSES = (429, 500, 502, 503, 504)
_DENIED, _NOT_FOUND, _UNAUTHORIZED = 403, 404, 401
_MOST_TEXT = 300


class _TryAgain(NoAnswer):
    """The same question may be answered later."""


class AirflowApi:
    """Ask one Airflow.

    :param url: what people type to see it, without ``/api``.
    :param token: sent as it is (``Authorization: Bearer``).
    :param user: with `password`, where no token is given: Airflow 3 gives a token for them at
        ``/auth/token``, 2.11 is sent them (basic authentication, which it must allow in ``[api]
        auth_backends``). Without either, an Airflow that asks for no login is assumed.
    :param verify: whether, or with which CA bundle, its certificate is verified.
    :param timeout: seconds for one answer. Trouble that passes is waited out for a minute.
    :param senses: time, sleep, chance and a log.

    Every method raises `NoAnswer` when the answer is not known.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        user: str | None = None,
        password: str | None = None,
        verify: bool | str = True,
        timeout: float = 60.0,
        senses: Senses | None = None,
    ) -> None:
        parts = urlsplit(url)
        if not parts.scheme or not parts.hostname:
            text = f"{url!r} is not the URL of an Airflow; write one such as https://airflow.example.com"
            raise NoAnswer(text)
        self.url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")
        self._token = token
        self._login = (user or parts.username, password or parts.password or "")
        self._verify, self._timeout = verify, timeout
        self._senses = senses or Senses(time.time, time.sleep, random.random)
        self._client: httpx.Client | None = None
        self._api = ""
        self._retries: dict[tuple[str, str], int | None] = {}

    # --- what a sweep asks ---

    def instances(
        self,
        states: Sequence[str] = (),
        changed_since: float = 0.0,
        changed_until: float | None = None,
    ) -> Iterator[Instance]:
        """See `sweep.Airflow.instances`."""

        def page(begin: float, end: float | None) -> tuple[list[Mapping[str, Any]], int]:
            """The rows that changed last in that time, as many as fit on a page, and how many there are."""
            return self._page(begin, end, states)

        def all_at_once(begin: float, end: float | None) -> Iterator[Mapping[str, Any]]:
            """The rows that changed in one instant."""
            return self._of_one_instant(begin, end, states)

        begin = max(changed_since, _BEGINNING)
        rows = in_slices(page, begin, self._senses.now, all_at_once, until=changed_until)
        yield from map(_instance, rows)

    def look(self, instance: Instance) -> Instance | None:
        """See `sweep.Airflow.look`."""
        index = "" if instance.map_index < 0 else f"/{instance.map_index}"
        found = self._ask(f"{_path_of(instance)}{index}", missing=True)
        return None if found is None else _instance(found)

    def left(self, instance: Instance) -> str | None:
        """See `sweep.Airflow.left`."""
        found = self.xcom(instance, LEFT_XCOM)
        return None if found is None else str(found)

    def retries(self, instance: Instance) -> int | None:
        """See `sweep.Airflow.retries`."""
        key = (instance.dag_id, instance.task_id)
        if key not in self._retries:
            task = self.task(instance)
            self._retries[key] = None if task is None else int(task.get("retries") or 0)
        return self._retries[key]

    def deferred_slots(self) -> int:
        """See `sweep.Airflow.deferred_slots`."""
        slots = seen = 0
        while True:
            answer = self._known("/pools", [("limit", str(_PAGE)), ("offset", str(seen))])
            slots += sum(int(pool["deferred_slots"]) for pool in answer["pools"])
            seen += len(answer["pools"])
            if not answer["pools"] or seen >= answer["total_entries"]:
                return slots

    # --- what a person asks besides ---

    def version(self) -> str:
        """The version of the Airflow that answers."""
        return str(self._known("/version")["version"])

    def task(self, instance: Instance) -> dict[str, Any] | None:
        """What Airflow says of its task; ``None`` when the task does not exist any more."""
        path = f"/dags/{_quoted(instance.dag_id)}/tasks/{_quoted(instance.task_id)}"
        return self._ask(path, missing=True)

    def run_start(self, instance: Instance) -> float:
        """Start of its DAG run in seconds since 1970; 0 when it has not started."""
        path = f"/dags/{_quoted(instance.dag_id)}/dagRuns/{_quoted(instance.run_id)}"
        return seconds(self._known(path).get("start_date")) or 0.0

    def xcom(self, instance: Instance, key: str) -> Any:
        """The value of an XCom of its latest try; ``None`` when there is none.

        On 2.11 it is a text. Source: ``get_xcom_entry`` in ``airflow/api_connexion`` (2.11, where JSON is
        shown as Python writes it) and in ``airflow/api_fastapi`` (3.x, where it is JSON in a text).
        """
        path = f"{_path_of(instance)}/xcomEntries/{_quoted(key)}"
        found = self._ask(path, [("map_index", str(instance.map_index))], missing=True)
        return None if found is None else found.get("value")

    # --- inside ---

    def _page(
        self, begin: float, end: float | None, states: Sequence[str], offset: int = 0
    ) -> tuple[list[Mapping[str, Any]], int]:
        query = [("limit", str(_PAGE)), ("offset", str(offset)), ("updated_at_gte", _iso(begin))]
        query += [("updated_at_lte", _iso(end))] if end is not None else []
        query += [("state", state) for state in states]
        answer = self._known("/dags/~/dagRuns/~/taskInstances", query)
        return answer["task_instances"], int(answer["total_entries"])

    def _of_one_instant(
        self, begin: float, end: float | None, states: Sequence[str]
    ) -> Iterator[Mapping[str, Any]]:
        """More rows than fit on a page, which one statement changed: pages by number, until all were seen."""
        for _ in range(_ROUNDS):
            found: dict[tuple[Any, ...], Mapping[str, Any]] = {}
            offset, totals = 0, set()
            while True:
                rows, total = self._page(begin, end, states, offset)
                totals.add(total)
                found.update((tuple(row[name] for name in _KEY), row) for row in rows)
                offset += len(rows)
                if not rows or offset >= total:
                    break
            if totals == {len(found)}:
                yield from found.values()
                return
        raise NoAnswer(
            f"{self.url} shows other task instances each time it is asked for those that changed at "
            f"{_iso(begin)}: sweep again when fewer of them change"
        )

    def _known(self, path: str, query: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
        """The answer to a question that Airflow always has an answer to."""
        answer = self._ask(path, query)
        assert answer is not None  # noqa: S101 - only what may be missing is None
        return answer

    def _ask(
        self, path: str, query: Sequence[tuple[str, str]] = (), *, missing: bool = False
    ) -> dict[str, Any] | None:
        """Get `path` below ``/api/v…``; ``None`` when Airflow says that there is no such thing."""
        self._connect()
        return self._answer("GET", f"{self._api}{path}", query, missing=missing)

    def _connect(self) -> None:
        """Find out which API there is, and log in."""
        if self._api:
            return
        import httpx

        if self._client is None:
            self._client = httpx.Client(verify=self._verify, timeout=self._timeout, follow_redirects=False)
        for api in ("/api/v2", "/api/v1"):
            # A wrong URL is worth a few attempts only.
            if self._answer("GET", f"{api}/version", missing=True, any_text=True, attempts=3) is not None:
                self._api = api
                break
        else:
            raise NoAnswer(
                f"{self.url} has neither /api/v2 nor /api/v1: is that the URL of an Airflow, without /api?"
            )
        self._log_in()

    def _log_in(self) -> None:
        """Send with every question what makes Airflow answer it.

        Source: ``/auth/token`` of the simple and of the FAB auth manager (3.x); the simple one gives a token
        for nothing where everybody is an admin (``[core] simple_auth_manager_all_admins``).
        """
        assert self._client is not None  # noqa: S101 - made by _connect
        user, password = self._login
        if self._token is None and self._api == "/api/v2":
            self._client.headers.pop("Authorization", None)
            body = {"username": user, "password": password} if user else None
            try:
                answer = self._answer("POST" if body else "GET", "/auth/token", body=body)
                self._client.headers["Authorization"] = f"Bearer {answer['access_token']}"  # type: ignore[index]
            except (NoAnswer, KeyError) as error:
                if user:
                    raise
                text = f"{self.url} asks for a login: give a token, or user and password ({error})"
                raise NoAnswer(text) from None
        elif self._token is not None:
            self._client.headers["Authorization"] = f"Bearer {self._token}"
        elif user:
            import httpx

            self._client.auth = httpx.BasicAuth(user, password)

    def _answer(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        *,
        body: Mapping[str, Any] | None = None,
        missing: bool = False,
        any_text: bool = False,
        attempts: int = ATTEMPTS,
    ) -> dict[str, Any] | None:
        """One answer, with trouble waited out that passes.

        :param missing: 404 is an answer, ``None``, if Airflow gives it and not a server before it.
        :param any_text: it is an answer whoever gives it.
        """
        import httpx

        renewed = False

        def ask() -> httpx.Response:
            assert self._client is not None  # noqa: S101 - made by _connect
            try:
                response = self._client.request(method, f"{self.url}{path}", params=list(query), json=body)
            except httpx.TransportError as error:
                raise _TryAgain(f"{type(error).__name__}: {error}") from None
            if response.status_code in _PASSES:
                raise _TryAgain(f"{response.status_code} {_said(response)}")
            return response

        while True:
            try:
                response = persist(ask, _passes, self._senses, attempts)
            except _TryAgain as error:
                raise NoAnswer(f"{self.url} does not answer: {error}") from None
            except httpx.InvalidURL as error:
                raise NoAnswer(f"{self.url!r} is not a URL: {error}") from None
            status = response.status_code
            expires = self._token is None and path != "/auth/token"
            if status == _UNAUTHORIZED and self._api and expires and not renewed:
                renewed = True
                self._log_in()
                continue
            break
        if status == _NOT_FOUND and missing and (any_text or _is_json(response)):
            return None
        if not response.is_success or not _is_json(response):
            told = f"{status} {_said(response)}{_advice(status)}"
            raise NoAnswer(f"{self.url} answers {method} {path} with {told}")
        found = response.json()
        return found if isinstance(found, dict) else {"answer": found}


def in_slices(
    page: Callable[[float, float | None], tuple[Sequence[T], int]],
    begin: float,
    now: Callable[[], float],
    all_at_once: Callable[[float, float | None], Iterable[T]],
    *,
    until: float | None = None,
) -> Iterator[T]:
    """Every row that changed last at `begin` or later, from pages that cannot be turned safely.

    Pages by number lose rows when others move, and 2.11 does not even sort them. So the rows are asked for in
    slices of the time at which they changed last, oldest first, each so short that it fits on one page. A row
    that changes meanwhile moves to a later slice, never to an earlier one, so none is lost; one may come
    twice.

    :param page: given the bounds of a slice, both inclusive, ``None`` for no end: rows in it, and how many
        there are; fewer rows than there are: they did not fit.
    :param now: the time, in seconds since 1970.
    :param all_at_once: reads a slice that is too short to be cut.
    :param until: leave out what changed last after that; then a row that changes meanwhile may be lost.
    :raises NoAnswer: it does not come to an end.
    """
    slices: list[tuple[float, float | None]] = [(begin, until)]
    for _ in range(_MOST_QUESTIONS):
        if not slices:
            return
        start, end = slices.pop()
        rows, total = page(start, end)
        if total <= len(rows):
            yield from rows
            continue
        upper = end if end is not None else max(now(), start + 1.0)
        if upper - start <= _INSTANT:
            yield from all_at_once(start, end)
            continue
        middle = start + (upper - start) / 2
        slices += [(middle, end), (start, middle)]
    raise NoAnswer(f"task instances change faster than they can be read, by pages of {_PAGE}: sweep at night")


def _passes(error: Exception) -> bool:
    return isinstance(error, _TryAgain)


_KEY = ("dag_id", "dag_run_id", "task_id", "map_index")


def _instance(raw: Mapping[str, Any]) -> Instance:
    """Read a task instance of v1 or v2."""
    return Instance(
        str(raw["dag_id"]),
        str(raw["dag_run_id"]),
        str(raw["task_id"]),
        map_index=int(raw["map_index"]),
        state=raw["state"],
        try_number=int(raw["try_number"] or 0),
        max_tries=int(raw["max_tries"] or 0),
        started=seconds(raw.get("start_date")),
        ended=seconds(raw.get("end_date")),
        pool_slots=int(raw.get("pool_slots") or 1),
        raw=raw,
    )


def _path_of(instance: Instance) -> str:
    run = f"/dags/{_quoted(instance.dag_id)}/dagRuns/{_quoted(instance.run_id)}"
    return f"{run}/taskInstances/{_quoted(instance.task_id)}"


def _quoted(part: str) -> str:
    return quote(part, safe="")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="microseconds")


def seconds(moment: str | None) -> float | None:
    """A time of the API in seconds since 1970.

    >>> seconds("1970-01-01T00:01:00.5Z"), seconds(None)
    (60.5, None)
    """
    if not moment:
        return None
    import pendulum  # Python 3.10 reads three or six digits of a second, no other number of them

    return cast("pendulum.DateTime", pendulum.parse(moment)).timestamp()


def _is_json(response: httpx.Response) -> bool:
    """Whether Airflow itself answers, and not a proxy before it or a page of its UI."""
    try:
        response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return False
    return True


def _said(response: httpx.Response) -> str:
    """What the answer says went wrong; Airflow repeats no password there."""
    try:
        answer = response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return response.reason_phrase
    told = answer.get("detail") or answer.get("title") if isinstance(answer, dict) else answer
    text = " ".join(str(told or "").split())
    return f"({text[:_MOST_TEXT]})" if text else response.reason_phrase


def _advice(status: int) -> str:
    if status == _UNAUTHORIZED:
        return ": give a valid token, or user and password"
    if status == _DENIED:
        return ": the account needs to read DAG runs, task instances, tasks, XComs and pools of every DAG"
    return ""
