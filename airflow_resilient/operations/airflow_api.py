"""A client of Airflow's REST API for the commands: v2 (Airflow 3) and v1 (2.11).

`transport` sends the requests: over HTTP with httpx, on which Airflow 2.11, every 3.x and the Task SDK depend
(the Task SDK does not need requests), or through AWS to an environment of Amazon MWAA.
"""

from __future__ import annotations

import random
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from ..core.retry import MAX_ATTEMPTS, Runtime, retry_transient
from ..core.text import redact
from . import mwaa
from .task_instances import AirflowApiError, Instance, UnclearError, tells_of_jobs
from .transport import Answer, HttpTransport, NoAnswer, Transport

if TYPE_CHECKING:
    import pendulum

T = TypeVar("T")

_PAGE_SIZE = 100
"""Task instances on a page. Source: ``[api] maximum_page_limit``, 100 by default on 2.11 and 3.x."""
_MIN_SLICE_SECONDS = 2e-6
"""Rows that changed within it cannot be separated by time."""
_MAX_PAGES = 20_000  # about a million task instances
_MAX_ROUNDS = 3
_MAX_DETAIL_CHARS = 300

_FIRST_RELEASE = datetime(2015, 1, 1, tzinfo=timezone.utc).timestamp()
"""No row of Airflow is older."""

_TRANSIENT_STATUSES = (429, 500, 502, 503, 504)
_OK, _UNAUTHORIZED, _DENIED, _NOT_FOUND = 200, 401, 403, 404
_REFUSALS = frozenset(range(400, 500)) - {408}
"""Statuses that say that nothing was changed; 408 comes from what is before Airflow, which may go on."""

LOGIN_HINT = "set AIRFLOW_API_TOKEN, or AIRFLOW_API_USER and AIRFLOW_API_PASSWORD, to a login that works"
"""What to do when a login with a token, or with user and password, is refused."""

_TOKEN_PATH = "/auth/token"  # noqa: S105 - a path

_FAB, _SIMPLE = "FAB auth manager API", "Simple auth manager sub application"
"""Titles of the API of an auth manager, in ``/auth/openapi.json``.

Source: ``get_fastapi_app`` of ``FabAuthManager`` (fab provider 2 and 3) and of ``SimpleAuthManager``
(Airflow 3.0 to 3.3).
"""

_MULTI_TEAM_SINCE = (3, 2)
"""Source: ``[core] multi_team`` limits what the simple auth manager shows in 3.2 and later."""


class _TransientApiError(AirflowApiError):
    """The same request may succeed later."""


class AirflowApi:
    """The REST API of one Airflow.

    :param url: the URL of its UI, without ``/api``; ``mwaa://NAME`` or ``mwaa://NAME?region=eu-west-1`` for
        an environment of Amazon MWAA, which is asked through AWS (``airflow:InvokeRestApi``), with AWS's
        credentials and without any other login.
    :param auth: an ``httpx.Auth``, or whatever httpx accepts as ``auth=``: it adds the login to every
        request, and renews it. Nothing is exchanged at ``/auth/token`` then.
    :param token: sent as ``Authorization: Bearer``, with every request.
    :param user: with `password`, where no token is given: exchanged for a token at ``/auth/token`` on Airflow
        3, sent with each request on 2.11 (basic authentication, which must be enabled in ``[api]
        auth_backends``). Without either, Airflow must not require a login.
    :param verify: whether, or with which CA bundle, its certificate is verified.
    :param timeout: seconds for one response.
    :param attempts: how often a request is sent at most while errors are transient; by default for a minute.
    :param region_name: of the environment of Amazon MWAA, where the URL names none (default: boto3's).
    :param aws_conn_id: Airflow connection for Amazon MWAA, where the URL names none (``?aws_conn_id=``);
        ``None`` for boto3's own credentials.
    :param runtime: clock, sleep, random numbers and log.
    :raises AirflowApiError: the URL is not valid, or there is more than one login.

    :ivar url: without a login; two environments have different ones.
    :ivar requests: how many requests have been sent.
    :ivar first_version: the version of the API server that answered when the connection was made.
    :ivar clock_ahead: seconds by which the clock of what answered last is ahead of ours, to a second.

    Every method raises `AirflowApiError` when Airflow does not give a usable response.
    """

    def __init__(  # noqa: PLR0913 - all are keyword-only
        self,
        url: str,
        *,
        auth: Any = None,
        token: str | None = None,
        user: str | None = None,
        password: str | None = None,
        verify: bool | str = True,
        timeout: float = 60.0,
        attempts: int = MAX_ATTEMPTS,
        region_name: str | None = None,
        aws_conn_id: str | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        self.url, own_user, own_password = split_url(url)
        token = token.strip() if token else token  # a file, or a secret of Kubernetes, ends with a line break
        self._auth, self._token, self._attempts = auth, token, attempts
        self._login = (user, password or "") if user else (own_user, password or own_password)
        logins = [name for name, given in (("token", token), ("user", user or password)) if given]
        self._transport: Transport
        self._http: HttpTransport | None = None
        if mwaa.is_mwaa(url):
            if logins or auth is not None:
                raise AirflowApiError(
                    f"{self.url} takes AWS's credentials alone: leave out {' and '.join(logins or ['auth'])}"
                )
            at = mwaa.read_url(url).filled(region=region_name, aws_conn_id=aws_conn_id)
            self.url = str(at)
            self._transport = mwaa.MwaaTransport(at, verify=verify, timeout=timeout)
        else:
            if auth is not None and (logins or own_user):
                raise AirflowApiError(
                    f"{self.url} gets two logins: give auth, or {' or '.join(logins or ['user'])}"
                )
            self._transport = self._http = HttpTransport(self.url, auth=auth, verify=verify, timeout=timeout)
            self._http.use(token=token, auth=auth)
        self.requests = 0
        self.first_version = ""
        self.clock_ahead: float | None = None
        self._runtime = runtime or Runtime(time.time, time.sleep, random.random)
        self._api = ""
        self._retries: dict[tuple[str, str], int | None] = {}

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        self._transport.close()
        self._api = ""

    @property
    def login_hint(self) -> str:
        """What to do when the login is refused."""
        if self._http is None:
            role = mwaa.read_url(self.url).role
            return f"allow airflow:InvokeRestApi on {role}, or correct the credentials of AWS"
        if self._auth is not None:
            return "correct what auth= sends, or the permissions of its account"
        return LOGIN_HINT

    def one_value_each(self, query: Sequence[tuple[str, str]]) -> list[list[tuple[str, str]]]:
        """The requests that together give what this query asks for.

        It is one, unless a key has several values and cannot be sent twice: then it is one for each of them,
        in their order. A row that changes between two of them comes twice, or not at all.
        """
        names = [name for name, _ in query]
        several = {name for name in names if names.count(name) > 1}
        if not several or not self._transport.one_value_each:
            return [list(query)]
        name = min(several, key=names.index)
        rest = [each for each in query if each[0] != name]
        return [
            request
            for value in dict.fromkeys(value for found, value in query if found == name)
            for request in self.one_value_each([*rest, (name, value)])
        ]

    # --- for the watch ---

    def read(
        self,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        *,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Read a resource that always exists: with GET, or with POST if there is a `body`.

        :param path: below ``/api/v1`` or ``/api/v2``, see `is_v2`.
        """
        self._connect()
        path, method = f"{self._api}{path}", "GET" if body is None else "POST"
        return self._read(method, path, self._send(method, path, query, body=body))

    def read_list(
        self, path: str, name: str, query: Sequence[tuple[str, str]] = ()
    ) -> tuple[list[Mapping[str, Any]], int]:
        """Read a page of a list: its rows, and their total number.

        :param name: of the field that contains the rows.
        """
        return self._rows(self.read(path, query), name)

    def write(self, method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send a change, once: it is never repeated, unless the login has expired.

        :param path: below ``/api/v1`` or ``/api/v2``, see `is_v2`; with its query.
        :raises UnclearError: it was sent, and nothing says whether Airflow has made it: no response in time,
            an error of the server, or a response that is not from Airflow's API.
        :raises AirflowApiError: it was not made; `AirflowApiError.status` says how it was refused.
        """
        self._connect()
        path = f"{self._api}{path}"
        try:
            answer = self._send(method, path, body=body, attempts=1)
        except AirflowApiError as error:
            raise UnclearError(str(error)) from None
        try:
            return self._read(method, path, answer, advice=self._advice_to_write)
        except AirflowApiError as error:
            if answer.status in _REFUSALS:
                raise
            unclear = UnclearError(str(error))
            unclear.status = error.status
            raise unclear from None

    def run_state(self, instance: Instance) -> str | None:
        """The state of its DAG run; ``None`` when the run does not exist any more."""
        path = f"/dags/{_quoted(instance.dag_id)}/dagRuns/{_quoted(instance.run_id)}"
        found = self._get(path, missing=True)
        if found is not None and "state" not in found:
            raise self._no_answer(path)
        return None if found is None else str(found["state"])

    def count(self, instance: Instance, states: Sequence[str]) -> int:
        """How many task instances of its DAG run are in one of these states."""
        run = f"/dags/{_quoted(instance.dag_id)}/dagRuns/{_quoted(instance.run_id)}"
        query = [("limit", "1"), *(("state", state) for state in states)]
        requests = self.one_value_each(query)
        return sum(self.read_list(f"{run}/taskInstances", "task_instances", each)[1] for each in requests)

    @property
    def is_v2(self) -> bool:
        """Whether this is Airflow 3, after a login if one is needed."""
        self._connect()
        return self._api == "/api/v2"

    # --- for the sweep ---

    def instances(
        self,
        states: Sequence[str] = (),
        changed_since: float = 0.0,
        changed_until: float | None = None,
    ) -> Iterator[Instance]:
        """See `task_instances.Airflow.instances`."""

        def page(begin: float, end: float | None) -> tuple[list[Mapping[str, Any]], int]:
            """The rows that changed last in that time, at most a page of them, and their total number."""
            return self._page(begin, end, wanted)

        def all_pages(begin: float, end: float | None) -> Iterator[Mapping[str, Any]]:
            """All rows that changed last in that time, which is too short to be divided."""
            return self._all_pages(begin, end, wanted)

        begin = max(changed_since, _FIRST_RELEASE)
        for query in self.one_value_each([("state", state) for state in states]):
            wanted = [state for _, state in query]
            rows = in_slices(page, begin, self._runtime.now, all_pages, until=changed_until)
            yield from map(_instance, rows)

    def current(self, instance: Instance) -> Instance | None:
        """See `task_instances.Airflow.current`."""
        index = "" if instance.map_index < 0 else f"/{instance.map_index}"
        found = self._get(f"{_path_of(instance)}{index}", missing=True)
        return None if found is None else _instance(found)

    def xcoms(self, instance: Instance) -> dict[str, Any]:
        """See `task_instances.Airflow.xcoms`."""
        keys: set[str] = set()
        offset = 0
        while True:
            query = [
                ("map_index", str(instance.map_index)),
                ("limit", str(_PAGE_SIZE)),
                ("offset", str(offset)),
            ]
            answer = self._get_existing(f"{_path_of(instance)}/xcomEntries", query)
            rows, total = self._rows(answer, "xcom_entries")
            keys.update(str(row["key"]) for row in rows)
            offset += len(rows)
            if not rows or offset >= total:
                break
        if len(keys) != total:
            raise AirflowApiError(
                f"cannot list the XComs of {instance}: {self.url} returns a different list each time. Run "
                "the sweep again"
            )
        return {key: self.xcom(instance, key) for key in sorted(keys) if tells_of_jobs(key)}

    def retries(self, instance: Instance) -> int | None:
        """See `task_instances.Airflow.retries`."""
        key = (instance.dag_id, instance.task_id)
        if key not in self._retries:
            task = self.task(instance)
            self._retries[key] = None if task is None else int(task.get("retries") or 0)
        return self._retries[key]

    def deferred_slots(self) -> int:
        """See `task_instances.Airflow.deferred_slots`."""
        slots = seen = 0
        while True:
            answer = self._get_existing("/pools", [("limit", str(_PAGE_SIZE)), ("offset", str(seen))])
            pools, total = self._rows(answer, "pools")
            slots += sum(int(pool["deferred_slots"]) for pool in pools)
            seen += len(pools)
            if not pools or seen >= total:
                return slots

    def why_not_every_dag(self) -> str:
        """See `task_instances.Airflow.why_not_every_dag`.

        The FAB auth manager (2.11, and 3.x with the fab provider) and the simple one (3.x) grant access to
        all DAGs, or to single DAGs by their ids or teams; they never deny a single DAG. So an account that
        may read a DAG that does not exist may read them all: the answer is 404 then, and otherwise 403. In
        multi-team mode the simple auth manager grants access by team, and a DAG that does not exist has none.

        Source: ``_is_authorized_dag`` and ``get_authorized_dag_ids`` of ``FabAuthManager``,
        ``_is_authorized`` of ``SimpleAuthManager``, ``requires_access_dag`` in
        ``airflow/api_connexion/security.py`` (2.11) and ``airflow/api_fastapi/core_api/security.py`` (3.x).
        """
        self._connect()
        path = f"{self._api}/dags/airflow_resilient_{uuid.uuid4().hex}"  # which does not exist
        status, body = self._look(path)
        if status == _DENIED:
            return (
                f"{self.url} does not show every DAG to this account, and the task instance may be one of "
                "those that it does not show: use an account that may read every DAG"
            )
        manager, per_team = ("", False) if self._http is None else self._auth_manager()
        problem = ""
        if self._http is None:
            problem = "Amazon MWAA does not show its auth manager"
        elif status != _NOT_FOUND or not says_missing(self._api, body):
            problem = f"its answer for a DAG that does not exist is {status}"
        elif manager not in (_FAB, _SIMPLE):
            problem = "its auth manager is neither Airflow's simple one nor that of the fab provider"
        elif per_team:
            problem = "it runs, or may run, in multi-team mode"
        if not problem:
            return ""
        return (
            f"nothing proves that the account may read every DAG of {self.url} ({problem}), and the task "
            "instance may be one that it may not read: if it may read every DAG, say so with "
            "sees_every_dag=True or --sees-every-dag"
        )

    def _auth_manager(self) -> tuple[str, bool]:
        """The title of the auth manager's API, and whether what it shows may depend on teams.

        Source: on 2.11 ``/roles`` answers 400 unless the auth manager is FAB's (``forward_to_fab_endpoint``).
        """
        if self._api == "/api/v1":
            status, _ = self._look(f"{self._api}/roles", [("limit", "1")])
            return (_FAB if status in (_OK, _DENIED) else ""), False
        _, body = self._look("/auth/openapi.json")
        about = body.get("info") if isinstance(body, dict) else None
        title = str(about.get("title")) if isinstance(about, dict) else ""
        if title != _SIMPLE or self._version() < _MULTI_TEAM_SINCE:
            return title, False
        _, config = self._look("/ui/config")
        return title, not isinstance(config, dict) or config.get("multi_team") is not False

    def _version(self) -> tuple[int, int]:
        found = re.match(r"(\d+)\.(\d+)", self.version())
        return (int(found[1]), int(found[2])) if found else _MULTI_TEAM_SINCE

    # --- for `explain` ---

    def version(self) -> str:
        """The version of this Airflow."""
        return str(self._get_existing("/version")["version"])

    def task(self, instance: Instance) -> dict[str, Any] | None:
        """The task of a task instance; ``None`` when the task does not exist any more."""
        path = f"/dags/{_quoted(instance.dag_id)}/tasks/{_quoted(instance.task_id)}"
        found = self._get(path, missing=True)
        if found is not None and "task_id" not in found:
            raise self._no_answer(path)
        return found

    def run_start(self, instance: Instance) -> float:
        """Start of its DAG run in seconds since 1970; 0 when it has not started."""
        path = f"/dags/{_quoted(instance.dag_id)}/dagRuns/{_quoted(instance.run_id)}"
        found = self._get_existing(path)
        if "start_date" not in found:
            raise self._no_answer(path)
        return seconds(found["start_date"]) or 0.0

    def xcom(self, instance: Instance, key: str) -> Any:
        """The value of an XCom of its latest try; ``None`` when there is none.

        On 2.11 it is a string. Source: ``get_xcom_entry`` in ``airflow/api_connexion`` (2.11, where it is the
        ``repr`` of the value) and in ``airflow/api_fastapi`` (3.x, where it is JSON in a string).
        """
        path = f"{_path_of(instance)}/xcomEntries/{_quoted(key)}"
        found = self._get(path, [("map_index", str(instance.map_index))], missing=True)
        if found is not None and "value" not in found:
            raise self._no_answer(path)
        return None if found is None else found["value"]

    def _page(
        self, begin: float, end: float | None, states: Sequence[str], offset: int = 0
    ) -> tuple[list[Mapping[str, Any]], int]:
        query = [("limit", str(_PAGE_SIZE)), ("offset", str(offset)), ("updated_at_gte", iso(begin))]
        query += [("updated_at_lte", iso(end))] if end is not None else []
        query += [("state", state) for state in states]
        return self._rows(self._get_existing("/dags/~/dagRuns/~/taskInstances", query), "task_instances")

    def _rows(self, answer: Mapping[str, Any], name: str) -> tuple[list[Mapping[str, Any]], int]:
        """The rows of a list of the API, and their total number."""
        rows, total = answer.get(name), answer.get("total_entries")
        if not isinstance(rows, list) or not isinstance(total, int):
            raise self._no_answer(f"a request for {name}")
        return rows, total

    def _no_answer(self, request: str) -> AirflowApiError:
        return AirflowApiError(
            f"what {self.url} responds to {request} is not from Airflow's API: is it the URL of an Airflow, "
            "and not of something before it?"
        )

    def _all_pages(
        self, begin: float, end: float | None, states: Sequence[str]
    ) -> Iterator[Mapping[str, Any]]:
        """More rows than fit on a page that one statement changed: pages by offset, until consistent."""
        for _ in range(_MAX_ROUNDS):
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
        raise AirflowApiError(
            f"cannot list the task instances that changed at {iso(begin)}: {self.url} returns a different "
            "list each time, because many of them are changing. Run the sweep again when fewer of them change"
        )

    def _get_existing(self, path: str, query: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
        """Get a resource that always exists."""
        found = self._get(path, query)
        assert found is not None  # noqa: S101 - None only with missing=True
        return found

    def _get(
        self, path: str, query: Sequence[tuple[str, str]] = (), *, missing: bool = False
    ) -> dict[str, Any] | None:
        """Get `path` below ``/api/v…``; with `missing`, ``None`` when it does not exist."""
        self._connect()
        path = f"{self._api}{path}"
        response = self._send("GET", path, query)
        if missing and response.status == _NOT_FOUND and says_missing(self._api, response.body):
            return None
        return self._read("GET", path, response)

    def _connect(self) -> None:
        """Find out the version of the API, and log in."""
        if self._api:
            return
        if self._transport.routes:
            self.first_version = self._version_behind()
            self._api = "/api/v1" if self.first_version.startswith("2.") else "/api/v2"
            return
        for api in ("/api/v2", "/api/v1"):
            # Fewer attempts, because the URL may be wrong.
            response = self._send("GET", f"{api}/version", attempts=3)
            if response.status == _NOT_FOUND:
                continue
            about = self._read("GET", f"{api}/version", response)
            if "version" not in about:
                raise self._no_answer(f"{api}/version")
            self._api, self.first_version = api, str(about["version"])
            break
        else:
            raise AirflowApiError(
                f"{self.url} is not the URL of an Airflow: it has neither /api/v2 nor /api/v1. Write the URL "
                "of its UI, without /api"
            )
        self._log_in()

    def _version_behind(self) -> str:
        """The version of an Airflow whose transport chooses the version of the API."""
        path = "/api/v2/version"  # either
        response = self._send("GET", path, attempts=3)
        if response.status == _UNAUTHORIZED:
            self._read("GET", path, response)
        about = response.body if response.good and isinstance(response.body, dict) else {}
        version = str(about.get("version") or "") or self._again(self._transport.version, attempts=3)
        if not re.match(r"\d+\.\d", version):
            raise AirflowApiError(f"the version of {self.url} is not known: its answer is {response.status}")
        return version

    def _log_in(self) -> None:
        """Add the credentials to all further requests.

        Source: ``/auth/token`` of the simple and of the FAB auth manager (3.x); the simple one issues a token
        without credentials where every user is an admin (``[core] simple_auth_manager_all_admins``).
        """
        if self._http is None or self._auth is not None or self._token is not None:
            return
        user, password = self._login
        if self._api == "/api/v2":
            self._http.use()
            body = {"username": user, "password": password} if user else None
            try:
                method = "POST" if body else "GET"
                answer = self._read(method, _TOKEN_PATH, self._send(method, _TOKEN_PATH, body=body))
                if "access_token" not in answer:
                    raise self._no_answer(_TOKEN_PATH)
                self._http.use(token=str(answer["access_token"]))
            except AirflowApiError as error:
                if user:
                    raise
                text = f"{self.url} requires a login: pass a token, or user and password ({error})"
                refused = AirflowApiError(text)
                refused.status = error.status
                raise refused from None
        elif user:
            self._http.use(auth=(user, password))

    def _look(self, path: str, query: Sequence[tuple[str, str]] = ()) -> tuple[int, Any]:
        """The status of a response, whatever it is, and its JSON; ``None`` if it is none."""
        answer = self._send("GET", path, query)
        return answer.status, answer.body

    def _send(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        *,
        body: Mapping[str, Any] | None = None,
        attempts: int | None = None,
    ) -> Answer:
        """Send one request, retry it after transient errors, and log in again when the token has expired."""

        def send() -> Answer:
            answer = self._transport.send(method, path, query, body)
            if answer.sent is not None:
                self.clock_ahead = answer.sent - self._runtime.now()
            if answer.status in _TRANSIENT_STATUSES:
                raise NoAnswer(f"{answer.status} {self._detail(path, answer)}")
            return answer

        answer = self._again(send, attempts)
        own = self._auth is None and self._token is None and self._http is not None
        if answer.status == _UNAUTHORIZED and self._api and own and path != _TOKEN_PATH:
            self._log_in()
            answer = self._again(send, attempts)
        return answer

    def _again(self, send: Callable[[], T], attempts: int | None = None) -> T:
        """Send, and count, and send again after transient errors."""

        def counted() -> T:
            self.requests += 1
            try:
                return send()
            except NoAnswer as error:
                raise _TransientApiError(str(error)) from None

        try:
            most = min(attempts or self._attempts, self._attempts)
            return retry_transient(counted, _is_transient, self._runtime, most)
        except _TransientApiError as error:
            raise AirflowApiError(f"{self.url} does not respond: {error}") from None

    def _read(
        self, method: str, path: str, answer: Answer, advice: Callable[[int], str] | None = None
    ) -> dict[str, Any]:
        """The JSON of an answer.

        :param advice: what to do about a status; by default, for reading.
        :raises AirflowApiError: it is an error, or not from Airflow's API.
        """
        found, status = answer.body, answer.status
        if not answer.good or found is None:
            message = f"{status} {self._detail(path, answer)}{(advice or self._advice)(status)}"
            refused = AirflowApiError(f"{self.url} responded to {method} {path} with {message}")
            refused.status = status
            raise refused
        return found if isinstance(found, dict) else {"value": found}

    def _detail(self, path: str, answer: Answer) -> str:
        """The error message of an answer, without what it repeats of the request."""
        if path == _TOKEN_PATH:
            return answer.reason
        text = detail_of(answer.body)[:_MAX_DETAIL_CHARS]
        return f"({redact(text, (self._token, self._login[1]))})" if text else answer.reason

    def _advice_to_write(self, status: int) -> str:
        """What to do about a status of a change.

        Source: ``requires_access_dag`` at the endpoints of task instances and of DAG runs (2.11, 3.3);
        ``USER_PERMISSIONS`` in ``security_manager/override.py`` of the fab provider; ``is_authorized_dag`` of
        ``SimpleAuthManager``.
        """
        if status == _DENIED:
            return (
                ": the account needs the permission to edit task instances and DAG runs of this DAG, which "
                "the role User has"
            )
        return self._advice(status)

    def _advice(self, status: int) -> str:
        if status == _UNAUTHORIZED and (self._http is None or self._auth is not None):
            return f": {self.login_hint}"
        if status == _UNAUTHORIZED:
            return ": pass a valid token, or user and password"
        if status == _DENIED:
            return (
                ": the account must be able to read runs, task instances, tasks, XComs and pools of every DAG"
            )
        return ""


def split_url(url: str) -> tuple[str, str | None, str]:
    """A URL without what is secret in it or what no base URL has, its user, and its password.

    >>> split_url("https://me:p%40ss@airflow.example.com:8443/prod/")
    ('https://airflow.example.com:8443/prod', 'me', 'p@ss')

    That of an environment of Amazon MWAA keeps its region: see `mwaa.read_url`.

    :raises AirflowApiError: it is not the URL of an Airflow. The message does not show user and password.
    """
    if mwaa.is_mwaa(url):
        return str(mwaa.read_url(url)), None, ""
    shown = url.rpartition("@")[2]
    try:
        parts = urlsplit(url)
        host, user, password, _ = parts.hostname, parts.username, parts.password, parts.port
    except ValueError:
        host = None
    if not host or not parts.scheme or "@" in parts.path + parts.query + parts.fragment:
        encoded = "; percent-encode user and password in it" if shown != url else ""
        raise AirflowApiError(
            f"invalid Airflow URL {shown!r}: write scheme and host, such as https://airflow.example.com, or "
            f"mwaa:// and the name of an environment{encoded}"
        )
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
    return urlunsplit(bare).rstrip("/"), None if user is None else unquote(user), unquote(password or "")


def in_slices(
    page: Callable[[float, float | None], tuple[Sequence[T], int]],
    begin: float,
    now: Callable[[], float],
    all_pages: Callable[[float, float | None], Iterable[T]],
    *,
    until: float | None = None,
) -> Iterator[T]:
    """Yield every row that changed last at `begin` or later, although pages by offset are not reliable.

    Pages by offset lose rows when other rows move, and 2.11 does not even sort them. So the rows are
    requested in slices of the time of their last change, oldest first, each short enough to fit on one page.
    A row that changes meanwhile moves to a later slice, never to an earlier one, so none is lost; a row may
    be yielded twice.

    :param page: takes the bounds of a slice, both inclusive, ``None`` for no end; returns the rows in it, at
        most a page, and their total number.
    :param now: returns the time, in seconds since 1970.
    :param all_pages: reads a slice that is too short to be divided.
    :param until: leave out rows that changed last after that; then a row that changes meanwhile may be lost.
    :raises AirflowApiError: the rows change faster than they can be read.
    """
    slices: list[tuple[float, float | None]] = [(begin, until)]
    for _ in range(_MAX_PAGES):
        if not slices:
            return
        start, end = slices.pop()
        rows, total = page(start, end)
        if total <= len(rows):
            yield from rows
            continue
        upper = end if end is not None else max(now(), start + 1.0)
        if upper - start <= _MIN_SLICE_SECONDS:
            yield from all_pages(start, end)
            continue
        middle = start + (upper - start) / 2
        slices += [(middle, end), (start, middle)]
    raise AirflowApiError(
        f"task instances change faster than they can be read, in pages of {_PAGE_SIZE}: run the sweep at a "
        "quieter time, such as at night"
    )


def _is_transient(error: Exception) -> bool:
    return isinstance(error, _TransientApiError)


_KEY = ("dag_id", "dag_run_id", "task_id", "map_index")


def _instance(raw: Mapping[str, Any]) -> Instance:
    """Read a task instance of v1 or v2.

    :raises AirflowApiError: it is none.
    """
    if not {*_KEY, "state", "try_number", "max_tries"} <= raw.keys():
        raise AirflowApiError("a response is not from Airflow's API: it lacks fields of a task instance")
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
        id=str(raw.get("id") or ""),
        raw=raw,
    )


def _path_of(instance: Instance) -> str:
    run = f"/dags/{_quoted(instance.dag_id)}/dagRuns/{_quoted(instance.run_id)}"
    return f"{run}/taskInstances/{_quoted(instance.task_id)}"


def _quoted(part: str) -> str:
    return quote(part, safe="")


def iso(seconds: float) -> str:
    """A time for the API.

    >>> iso(60.5)
    '1970-01-01T00:01:00.500000+00:00'
    """
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="microseconds")


def seconds(moment: str | None) -> float | None:
    """A time of the API in seconds since 1970.

    >>> seconds("1970-01-01T00:01:00.5Z"), seconds(None)
    (60.5, None)
    """
    if not moment:
        return None
    import pendulum  # Python 3.10 reads only three or six digits of a fraction of a second

    return cast("pendulum.DateTime", pendulum.parse(moment)).timestamp()


def says_missing(api: str, body: Any) -> bool:
    """Whether the body of a 404 is Airflow's for something that does not exist.

    A gateway, or Airflow for a path that it does not have, answers 404, too, and that says nothing about
    what was asked for.

    :param api: ``/api/v1`` or ``/api/v2``.
    :param body: the JSON; ``None``: there was none.

    >>> says_missing("/api/v2", {"detail": "The Pool with name: `x` was not found"})
    True
    >>> says_missing("/api/v2", {"detail": "Not Found"}), says_missing("/api/v2", {"message": "no Route"})
    (False, False)

    Source: ``HTTPException`` of ``airflow/api_fastapi`` (3.x) and, for a path that does not exist, of
    Starlette; ``EXCEPTIONS_LINK_MAP`` in ``airflow/api_connexion/exceptions.py`` (2.11).
    """
    if not isinstance(body, Mapping):
        return False
    if api == "/api/v1":
        return bool(body.get("title")) and str(body.get("type")).endswith("#section/Errors/NotFound")
    detail = body.get("detail")
    return isinstance(detail, str) and detail not in ("", "Not Found")


def detail_of(body: Any) -> str:
    """The error message in the JSON of a response, on one line, without the input that it repeats.

    FastAPI's answer to a request that is not valid, 422, repeats it: only where and why is shown.

    >>> detail_of({"detail": [{"loc": ["body", "username"], "msg": "too short", "input": {"password": "x"}}]})
    'body.username: too short'
    """
    found = (
        body.get("detail") or body.get("title") or body.get("message") if isinstance(body, Mapping) else None
    )
    texts = [found] if isinstance(found, str | Mapping) else found if isinstance(found, list) else []
    return "; ".join(filter(None, map(_problem, texts)))


def _problem(found: Any) -> str:
    if isinstance(found, Mapping):
        where = found.get("loc")
        parts = [".".join(map(str, where))] if isinstance(where, list | tuple) else []
        message = found.get("msg") or found.get("message")
        found = ": ".join([*parts, message] if isinstance(message, str) else parts)
    return " ".join(found.split()) if isinstance(found, str) else ""


def api_of_connection(conn_id: str) -> AirflowApi:
    """The REST API for an Airflow connection.

    The connection's host is the URL, or a host name with ``http`` or ``https`` as schema, and the port.
    ``mwaa://NAME?region=eu-west-1&aws_conn_id=ID`` is the URL of an environment of Amazon MWAA; such a
    connection has neither login nor password, and without ``aws_conn_id`` boto3's own credentials count.
    """
    from airflow.providers.common.compat.sdk import BaseHook

    connection: Any = BaseHook.get_connection(conn_id)
    if not connection.host:
        raise AirflowApiError(
            f"Airflow connection {conn_id!r} has no host: set it to the URL of this Airflow, such as "
            "https://airflow.example.com"
        )
    url = str(connection.host)
    if "://" not in url:
        port = f":{connection.port}" if connection.port else ""
        url = f"{connection.schema or 'http'}://{url}{port}"
    if not connection.login:
        return AirflowApi(url, token=connection.password or connection.extra_dejson.get("token"))
    return AirflowApi(url, user=connection.login, password=connection.password)
