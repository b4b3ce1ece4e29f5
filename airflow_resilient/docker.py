"""Docker containers: run them, wait for them, read how they ended.

The claim is the container's name, and a name can be taken only once: who asks for it again is told who has
it. Labels say the same in a form that can be searched. `read_container` says what a look means and
`on_clash` what to do about a name that is taken; `DockerContainers` asks the engine.

An engine does not remove a container by itself here: how it ended is read first, and what is to be removed
is removed afterwards, by the task, by its next try, or by the orphan sweep.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from .budget import Budget
from .compat import AirflowSkipException
from .errors import NoCapacity, SubmitRefused, Unobservable
from .jobs import Cause, Claim, Job, Phase, Senses
from .logs import TimeCursor, take_since
from .operators import LogTail, RemoteJobOperator, error_of
from .parameters import codes_of, may_change, reject, reject_hidden, require_choice, require_codes
from .sweep import persist
from .words import LONGEST_REASON, exit_code_in_words, short, signal_of, without

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import Context

log = logging.getLogger(__name__)

T = TypeVar("T")

_LABEL = "airflow_resilient"
CLAIM, FAMILY, TOKEN = f"{_LABEL}.claim", f"{_LABEL}.family", f"{_LABEL}.token"
TRY, AUTO_REMOVE, STOPS_IN = f"{_LABEL}.try_number", f"{_LABEL}.auto_remove", f"{_LABEL}.stop_timeout"
"""Labels of a container. ``TOKEN`` is the name that it was made under, unless the user chose another one."""
CANCELLED = ".cancelled"
"""What is added to the name of a container that we have stopped: the engine forgets who stopped it."""

DEFAULT_URL = "unix://var/run/docker.sock"
STOP_TIMEOUT = 10
"""Seconds between the request to stop and the kill. Source: ``docker stop``: 10 by default."""
_LONGEST_STOP = 20.0  # seconds for which a cancel waits; the engine goes on without us
_LINES_AT_ONCE = 5000  # of a log, for one read
_ANSWER = 20.0  # seconds that a look waits for an answer
_ATTEMPTS = 6  # half a minute; questions about the result of a container that has ended

# --- what a look means --------------------------------------------------------------------------

_ENDING_SIGNALS = frozenset({"2", "3", "6", "9", "15", "SIGINT", "SIGQUIT", "SIGABRT", "SIGKILL", "SIGTERM"})
_FORGOTTEN = (
    "exit code 0, but the engine was restarted since, and may have stopped it: whether the work was done is "
    "not known. Look at its output; live-restore lets containers outlive their engine."
)
_NO_SUCH_COMMAND, _NOT_EXECUTABLE, _ENGINE_FAILED = 127, 126, 125
# Why a container that could not be started may well start a minute later.
_PASSES = (
    r"(?i)port is already allocated|address already in use|no space left|cannot allocate memory"
    r"|resource temporarily unavailable|timed? ?out|timeout|deadline exceeded|too many open files"
)


def read_container(
    seen: Mapping[str, Any],
    claim: Claim,
    *,
    scope: str = "",
    engine: str = "",
    killed: str = "",
    forgotten: bool = False,
) -> Job:
    """Say what an inspection of a container means.

    :param seen: ``{"Id": str, "Name": str, "Created": str, "State": {"Status": str, "ExitCode": int, ...}}``.
    :param scope: URL of its engine, `engine` the engine's id.
    :param killed: who was heard to end it, for a person; empty: nobody.
    :param forgotten: nothing is heard of its end, and the engine may have been stopped, and it along.
    :return: SUCCEEDED only if it ran, ended with exit code 0, and nobody asked the engine to end it.
    """
    state = seen.get("State") or {}
    status = str(state.get("Status") or "")
    name = str(seen.get("Name") or "").lstrip("/")
    job = Job(
        id=str(seen["Id"]),
        claim=claim,
        phase=Phase.RUNNING,
        created=(_nanoseconds(seen.get("Created")) or 0) / 10**9,
        scope=scope,
        facts={"engine": engine, "name": name},
    )
    if status == "created" and not state.get("Error"):
        return replace(job, phase=Phase.QUEUED)
    if status in ("running", "restarting", "paused"):
        return job
    if status == "removing":
        return replace(job, phase=Phase.STOPPING)
    if status not in ("created", "exited", "dead", "stopped"):
        reason = f"the engine says that it is {status!r}, which this version does not know"
        return replace(job, phase=Phase.FAILED, cause=Cause.UNKNOWN, reason=reason)
    if name.endswith(CANCELLED):
        killed = killed or "it was stopped by Airflow"
    code = state.get("ExitCode")
    phase, cause, why = _end(state, int(code) if code is not None else None, killed, ran=status != "created")
    if phase is Phase.SUCCEEDED and forgotten:
        phase, cause, why = Phase.FAILED, Cause.UNKNOWN, _FORGOTTEN
    finished = _nanoseconds(state.get("FinishedAt"))
    return replace(
        job,
        phase=phase,
        cause=cause,
        exit_code=code,
        ended=finished / 10**9 if finished else None,
        reason=short(why, LONGEST_REASON),
    )


def _end(state: Mapping[str, Any], code: int | None, killed: str, *, ran: bool) -> tuple[Phase, Cause, str]:
    """Say how a container ended, and what to do. The first rule that fits counts."""
    said = short(str(state.get("Error") or ""), 250)
    what = exit_code_in_words(code)
    if not ran:
        return _not_started(code, said)
    if killed:
        return Phase.CANCELLED, Cause.USER, f"{what}; {killed}."
    if code == 0 and not said:
        return Phase.SUCCEEDED, Cause.UNKNOWN, ""
    if state.get("OOMKilled"):
        advice = "it ran out of memory. Raise mem_limit, or let it use less."
        return Phase.FAILED, Cause.APPLICATION, f"{what}; {advice}"
    if said:
        return Phase.FAILED, Cause.UNKNOWN, f"{what}; the engine says: {said}. Look at its output."
    if code is None:
        return Phase.FAILED, Cause.UNKNOWN, f"{what}; whether the work was done is not known."
    if signal_of(code) in ("SIGKILL", "SIGTERM"):
        advice = (
            "nobody is known to have asked the engine for it: it ran out of mem_limit, which engines do not "
            "always notice, or the host out of memory; the engine was restarted without live-restore; or it "
            "was killed on the host. See the host's log."
        )
        return Phase.FAILED, Cause.UNKNOWN, f"{what}; {advice}"
    advice = {
        _ENGINE_FAILED: "125 is what docker itself says when it cannot run a container.",
        _NOT_EXECUTABLE: "126 mostly means: a command that is there and cannot be executed.",
        _NO_SUCH_COMMAND: "127 mostly means: no such command. See image, command and entrypoint.",
    }.get(code, "The log of the container tells more.")
    return Phase.FAILED, Cause.APPLICATION, f"{what}. {advice}"


def _not_started(code: int | None, said: str) -> tuple[Phase, Cause, str]:
    if re.search(_PASSES, said):
        return Phase.FAILED, Cause.INFRASTRUCTURE, f"it could not be started: {said}. This may pass."
    advice = {
        _NO_SUCH_COMMAND: "There is no such command in the image: see image, command and entrypoint.",
        _NOT_EXECUTABLE: "The command cannot be executed: see its permissions in the image.",
    }.get(code or 0, "It never ran; mend what the engine names.")
    return Phase.FAILED, Cause.APPLICATION, f"it could not be started: {said}. {advice}"


def _nanoseconds(text: Any) -> int | None:
    """Nanoseconds since 1970 of the engine's RFC 3339 times; ``None`` for none, which it writes as year 1.

    >>> _nanoseconds("2026-01-01T00:00:00.000000001Z"), _nanoseconds("0001-01-01T00:00:00Z")
    (1767225600000000001, None)
    """
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:?\d\d)?", str(text))
    if found is None or found[1].startswith("0001"):
        return None
    zone = "+0000" if found[4] in (None, "Z") else found[4].replace(":", "")
    moment = datetime.strptime(f"{found[1]}T{found[2]}{zone}", "%Y-%m-%dT%H:%M:%S%z")
    whole = (moment - datetime(1970, 1, 1, tzinfo=timezone.utc)) // _SECOND
    return whole * 10**9 + int((found[3] or "0")[:9].ljust(9, "0"))


_SECOND = datetime(2000, 1, 1, 0, 0, 1) - datetime(2000, 1, 1)  # noqa: DTZ001 - a length of time


# --- a name that is taken -----------------------------------------------------------------------

Clash = Literal["adopt", "start", "replace", "move", "wait", "busy", "foreign"]


def on_clash(holder: Mapping[str, Any], token: str, family: str, try_number: str) -> Clash:
    """Say what to do about the container that has the name we want.

    :param holder: what an inspection says of it.
    :param token: ours; `family` the same, and `try_number` as it stands on the label.
    :return: ``adopt``: it is our job. ``start``: it is, and somebody who made it has not come to start it.
        ``replace``: it never ran, and an earlier try, or another task instance, made it. ``move``: it has
        ended, and can give its name up. ``wait``: a job of ours still has it; look again. ``busy``: a job of
        another task instance has it. ``foreign``: it is none of ours.
    """
    labels = (holder.get("Config") or {}).get("Labels") or {}
    state = holder.get("State") or {}
    if TOKEN not in labels:
        return "foreign"
    unstarted = state.get("Status") == "created" and not state.get("Error")
    if labels[TOKEN] == token:
        if not unstarted:
            return "adopt"
        return "start" if labels.get(TRY) == try_number else "replace"
    if unstarted:
        return "replace"
    if state.get("Status") in ("running", "restarting", "paused", "removing"):
        return "wait" if labels.get(FAMILY) == family else "busy"
    return "move"


# --- the service --------------------------------------------------------------------------------

_UNREACHABLE_FOR_GOOD = r"(?i)certificate|PermissionError|Permission denied"
_NO_ROOM = r"(?i)no space left|cannot allocate memory|too many open files"
_NO_COMMAND = r"(?i)OCI runtime attempted to invoke a command that was not found|OCI permission denied"
_REGISTRY_PASSES = (
    r"(?i)timed? ?out|timeout|deadline exceeded|connection reset|connection refused|no such host"
    r"|temporary failure|unexpected EOF|request canceled|toomanyrequests|too many requests|rate limit"
    r"|\b50\d\b|service unavailable|internal server error"
)
_TLS = ("ca_cert", "client_cert", "client_key", "verify", "assert_hostname", "ssl_version")


class EngineAway(Exception):
    """An engine does not answer, or not in time. It is no news about any container."""


class _LookAgain(Exception):
    """Somebody else was quicker: what was found out a moment ago is not true any more."""


class _AnotherEngine(Exception):
    """At the URL is another engine than the one that took the container."""


class DockerContainers:
    """Run one container per claim.

    :param docker_url: URL of the engine, or of several: the first that answers takes a container, and each
        is asked for those of earlier tries.
    :param api_version: of the engine's API; the engine's own by default.
    :param tls: keywords of the docker provider's ``construct_tls_config``: paths, no secrets.
    :param timeout: seconds for calls that make something.
    :param request: ``{"config": keywords of the SDK's create_container, "host": of its create_host_config,
        "secrets": values to hide, "labels": of Airflow's identity, "auto_remove": str, "stop_timeout": int,
        "try_number": int, "force_pull": bool, "docker_conn_id": str | None}``.
    """

    listing_lag = 0.0  # what the engine has accepted it lists
    log_drain = 0.0  # the log of a container is whole when it is seen to have ended
    batch_size = 100
    kind = "docker"
    # An engine has no limit; this one spares it.
    budget = Budget("docker:containers", per_second=20.0, burst=100.0, places="engines")

    def __init__(
        self,
        *,
        docker_url: str | Sequence[str] = DEFAULT_URL,
        api_version: str | None = None,
        tls: Mapping[str, Any] | None = None,
        timeout: float = 60,
        request: Mapping[str, Any] | None = None,
        log: Any = log,
    ) -> None:
        given = [docker_url] if isinstance(docker_url, str) else list(docker_url)
        self.urls = [url.replace("tcp://", "https://") if tls else url for url in given]
        self.api_version = api_version
        self.tls = dict(tls) if tls else None
        self.timeout = timeout
        self.request = request or {}
        self.log = log
        self._clients: dict[str, Any] = {}
        self._engines: dict[str, str] = {}
        # One for each engine: those that answer must not wait for one that does not.
        self._locks: dict[str, threading.Lock] = {url: threading.Lock() for url in self.urls}

    def address(self) -> dict[str, Any]:
        """How to reach the engines; each job's ``scope`` says which of them has it."""
        return {
            "docker_url": self.urls,
            "api_version": self.api_version,
            "tls": self.tls,
            "timeout": self.timeout,
        }

    def refuses_scope(self, error: Exception) -> bool:
        """Whether each container of the engine would be refused."""
        return bool(re.search(_UNREACHABLE_FOR_GOOD, _chain(error)))

    def is_transient(self, error: Exception) -> bool:
        """Whether the same call may succeed later."""
        import requests
        from docker.errors import APIError
        from urllib3.exceptions import HTTPError

        if isinstance(error, APIError):
            status = error.response.status_code if error.response is not None else 0
            return status in (408, 429) or (status >= 500 and status != 501)  # noqa: PLR2004 - 501: never
        if isinstance(error, EngineAway | _LookAgain):
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
        return isinstance(error, lost) and not re.search(_UNREACHABLE_FOR_GOOD, _chain(error))

    def find(self, claims: Sequence[Claim]) -> list[Job]:
        """Containers that bear one of the claims, ended ones as long as they are not removed.

        One that was made and never started is none: `submit` starts it, or makes it anew.

        :raises EngineAway: one of several engines does not answer, and no live container is known elsewhere.
        """
        wanted = {str(claim) for claim in claims}
        jobs: list[Job] = []
        away: Exception | None = None
        for url in self.urls:
            try:
                for family in {claim.family for claim in claims}:
                    jobs += self._found(url, wanted, {"label": [f"{FAMILY}={family}"]})
            except Exception as error:  # noqa: PERF203 - a call over the network costs more than a try
                if not self.is_transient(error):
                    raise
                away = error
        if away is not None and not any(job.live for job in jobs):
            raise away
        return jobs

    def submit(self, claim: Claim) -> Job:
        """Make and start the container of this claim, or return the one that has its name already."""
        url, client = self._first_engine()
        try:
            container = self._own(client, claim)
            return self._started(client, url, container, claim)
        except Exception as error:
            self._explain(error)
            raise

    def observe(self, jobs: Sequence[Job]) -> list[Job]:
        """A new look at each job; those that are not there are left out."""
        engines: dict[str, dict[str, Job]] = defaultdict(dict)
        for job in jobs:
            engines[job.scope or self.urls[0]][job.id] = job
        looks = []
        for url, wanted in engines.items():
            client = self._client(url)
            listed = client.containers(all=True, filters={"id": list(wanted)})
            states = {str(each["Id"]): str(each.get("State") or "").lower() for each in listed}
            for job in wanted.values():
                state = states.get(job.id)
                if state in ("running", "restarting", "paused"):
                    looks.append(replace(job, phase=Phase.RUNNING))
                elif state is not None:
                    looks += self._look(client, url, job.id, job.claim)
            missing = [job for job in wanted.values() if job.id not in states and job.facts.get("engine")]
            if missing:
                self._same_engine(client, url, missing[0])
        return looks

    def cancel(self, job: Job, reason: str) -> Job:
        """Ask the engine to stop the container: a signal, and after its grace period a kill."""
        url = job.scope or self.urls[0]
        client = self._client(url)
        seen = self._inspect(client, job.id)
        if seen is None:
            self._same_engine(client, url, job)
            return replace(job, phase=Phase.LOST, reason="the engine does not know it any more")
        look = self._read(client, url, seen, job.claim)
        if look.phase is Phase.QUEUED:  # it never ran: there is nothing to stop, and nothing to know of it
            if self._removed(client, job.id):
                return replace(look, phase=Phase.CANCELLED, cause=Cause.USER, reason=f"removed: {reason}")
            raise _LookAgain(f"{job.id} has been started meanwhile")
        if look.live:
            self._stop(client, seen)
            seen = self._inspect(client, job.id)
            if seen is None:
                return replace(job, phase=Phase.LOST, reason="it was removed while it was being stopped")
            look = self._read(client, url, seen, job.claim)
        return replace(look, phase=Phase.STOPPING) if look.live else look

    def scopes(self) -> list[str]:
        """URLs of the engines."""
        return self.urls

    def claimed(self, scope: str) -> list[Job]:
        """The live containers of an engine that bear a claim, whoever's, and those never started."""
        return [job for job in self._found(scope, None, {"label": [CLAIM]}, queued=True) if job.live]

    def leftovers(self, scope: str) -> list[Job]:
        """The ended containers of an engine that `auto_remove` would have had removed."""
        jobs = self._found(scope, None, {"label": [AUTO_REMOVE], "status": ["created", "exited", "dead"]})
        return [job for job in jobs if not job.live and job.facts.get("remove")]

    def ended_of(self, family: str) -> list[Job]:
        """The ended containers of a task instance that `auto_remove` asks to remove, on every engine."""
        jobs = [job for url in self.urls for job in self._found(url, None, {"label": [f"{FAMILY}={family}"]})]
        return [job for job in jobs if not job.live and job.facts.get("remove")]

    def remove(self, job: Job) -> None:
        """Remove a container that has ended, with what the engine keeps for it alone."""
        client = self._client(job.scope or self.urls[0])
        if not self._removed(client, job.id):
            raise _LookAgain(f"{job.id} runs, and is not removed")

    def read_log(
        self, job: Job, where: Mapping[str, Any], cursor: Mapping[str, Any] | None
    ) -> tuple[list[tuple[float, str]], Any]:
        """Read what is new in the log of the container.

        :param cursor: what the previous call returned.
        :return: ``(seconds since 1970, message)`` and the next cursor.
        """
        position = TimeCursor(**cursor) if cursor else TimeCursor()
        since = f"{position.since // 10**9}.{position.since % 10**9:09d}"
        entries = []
        for entry in self._entries(job, since=since):
            entries.append(entry)
            if len(entries) >= position.count + _LINES_AT_ONCE:
                break
        position, lines = take_since(position, entries)
        return lines, asdict(position)

    def last_lines(self, job: Job, where: Mapping[str, Any], count: int) -> tuple[str, ...]:
        """Read the end of the container's log; all of it with a `count` of 0."""
        # A line that is longer than 16 KB is kept in pieces, and the engine counts these.
        tail = str(count + 20) if count else "all"
        lines = [text for _, text in self._entries(job, tail=tail)]
        return tuple(lines[-count:])

    def file(self, job: Job, path: str) -> bytes | None:
        """The content of a file in a container; ``None`` when it is empty or not there."""
        import tarfile
        from io import BytesIO

        from docker.errors import APIError

        try:
            chunks, about = self._client(job.scope or self.urls[0]).get_archive(job.id, path)
        except APIError as error:
            if self.is_transient(error):
                raise
            return None
        if not about["size"]:
            return None
        with tarfile.open(fileobj=BytesIO(b"".join(chunks))) as archive:
            found = archive.extractfile(about["name"])
            return found.read() if found else None

    # --- inside: the engines ---

    def _client(self, url: str) -> Any:
        """The SDK's client for an engine, made once.

        :raises EngineAway: it does not answer.
        """
        from docker import APIClient
        from docker.errors import DockerException

        with self._locks.setdefault(url, threading.Lock()):
            if url not in self._clients:
                try:
                    self._clients[url] = APIClient(
                        base_url=url, version=self.api_version, tls=self._tls(), timeout=self.timeout
                    )
                except DockerException as error:
                    cause = error.__cause__
                    if not isinstance(cause, Exception) or not self.is_transient(cause):
                        raise DockerException(f"{error}. {self._advice(url)}") from error
                    raise EngineAway(
                        f"the engine at {url} does not answer: {short(str(error), 200)}"
                    ) from error
            return self._clients[url]

    def _advice(self, url: str) -> str:
        """What to look at when an engine does not let us in."""
        overrule = [name for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if os.environ.get(name)]
        if self.tls and overrule:  # see Session.merge_environment_settings in sessions.py of requests
            return (
                f"May this process use {url}? {' and '.join(overrule)} is set here, and overrules tls_ca_cert"
            )
        return f"May this process use {url}?"

    def _tls(self) -> Any:
        if not self.tls:
            return False
        from airflow.providers.docker.hooks.docker import DockerHook

        return DockerHook.construct_tls_config(**self.tls)

    def _first_engine(self) -> tuple[str, Any]:
        """The first engine that answers; nothing has been asked of those before it."""
        away: Exception | None = None
        for url in self.urls:
            try:
                client = self._client(url)
                client.ping()
            except Exception as error:  # noqa: PERF203 - a call over the network costs more than a try
                if not self.is_transient(error):
                    raise
                away = error
            else:
                return url, client
        raise away or EngineAway("no engine is named")

    def _same_engine(self, client: Any, url: str, job: Job) -> None:
        """Make sure that a container that is not there is not simply elsewhere."""
        engine, its = _engine_of(client), job.facts.get("engine")
        if engine and its and engine != its:
            raise _AnotherEngine(
                f"{job.id} was started by another engine than the one that answers at {url} now. docker_url "
                "must lead to the same engine from every worker and triggerer; a socket is another one on "
                "each machine"
            )

    def _get(self, client: Any, path: str, *, stream: bool = False, **params: Any) -> Any:
        """What the SDK's methods cannot say: exact times, and how long to wait.

        :raises docker.errors.APIError: as the SDK's methods.
        """
        import requests
        from docker.errors import create_api_error_from_http_exception

        url = f"{client.base_url}/v{client.api_version}{path}"
        answer = client.get(url, params=params, stream=stream, timeout=_ANSWER)
        try:
            answer.raise_for_status()
        except requests.exceptions.HTTPError as error:
            raise create_api_error_from_http_exception(error) from error
        return answer

    # --- inside: looking ---

    def _found(
        self, url: str, wanted: Container[str] | None, filters: Mapping[str, Any], *, queued: bool = False
    ) -> list[Job]:
        client = self._client(url)
        jobs = []
        for listed in client.containers(all=True, filters=dict(filters)):
            claim = _claim_of(listed.get("Labels") or {})
            if claim is None or (wanted is not None and str(claim) not in wanted):
                continue
            looks = self._look(client, url, str(listed["Id"]), claim)
            jobs += [look for look in looks if queued or look.phase is not Phase.QUEUED]
        return jobs

    def _look(self, client: Any, url: str, container: str, claim: Claim) -> list[Job]:
        seen = self._inspect(client, container)
        return [] if seen is None else [self._read(client, url, seen, claim)]

    def _inspect(self, client: Any, container: str) -> Mapping[str, Any] | None:
        """What the engine says of a container, by id or name; ``None`` when there is none."""
        from docker.errors import NotFound

        try:
            seen: Mapping[str, Any] = client.inspect_container(container)
        except NotFound:
            return None
        return seen

    def _read(self, client: Any, url: str, seen: Mapping[str, Any], claim: Claim) -> Job:
        if url not in self._engines:
            self._engines[url] = _engine_of(client)
        engine = self._engines[url]
        look = read_container(seen, claim, scope=url, engine=engine)
        if not look.live and look.phase is not Phase.CANCELLED:
            killed, forgotten = self._who_ended_it(client, seen)
            look = read_container(
                seen,
                claim,
                scope=url,
                engine=engine,
                killed=killed,
                forgotten=forgotten
                and look.phase is Phase.SUCCEEDED
                and self._may_have_stopped(client, seen),
            )
        labels = (seen.get("Config") or {}).get("Labels") or {}
        if not look.live and _to_be_removed(labels.get(AUTO_REMOVE), look):
            look = replace(look, facts={**look.facts, "remove": True})
        return look

    def _who_ended_it(self, client: Any, seen: Mapping[str, Any]) -> tuple[str, bool]:
        """Who asked the engine to end a container, by the events that it still knows.

        :return: who, empty when nobody is known; and whether the engine has forgotten even that it ended.

        Exit code 0 does not tell: a process that stops gracefully when it is told to ends with it, too. The
        engine knows its last 256 events, and none from before its own start.
        Source: ``eventsLimit`` in ``daemon/events/events.go`` of moby.
        """
        created = _nanoseconds(seen.get("Created")) or 0
        finished = _nanoseconds((seen.get("State") or {}).get("FinishedAt")) or created
        # An event is written a moment after the signal was sent.
        since, until = (f"{at // 10**9}.{at % 10**9:09d}" for at in (created, finished + 10**9 // 2))
        only = json.dumps({"container": [seen["Id"]], "event": ["kill", "stop", "die", "died"]})
        try:
            answer = self._get(client, "/events", since=since, until=until, filters=only)
            events = [json.loads(line) for line in answer.text.splitlines() if line.strip()]
        except Exception as error:
            if self.is_transient(error):
                raise
            log.debug("the engine does not tell its events: %s", error)
            return "", True
        for event in events:
            sent = str(((event.get("Actor") or {}).get("Attributes") or {}).get("signal") or "")
            if (event.get("Action") or event.get("status")) == "stop":
                return "somebody asked the engine to stop it", False
            if sent in _ENDING_SIGNALS:
                return f"somebody asked the engine to end it (signal {sent})", False
        return "", not events

    def _may_have_stopped(self, client: Any, seen: Mapping[str, Any]) -> bool:
        """Whether the engine may have been stopped after a container ended, or when: that ends it, too.

        The network ``bridge`` is made anew whenever an engine starts that does not let containers outlive it.
        Source: ``initBridgeDriver`` in ``daemon/daemon_unix.go`` of moby.
        Verified: ``test_an_engine_that_takes_its_containers_along_does_not_make_them_a_success``.
        """
        from docker.errors import NotFound

        if _is_podman(client) or client.info().get("LiveRestoreEnabled"):
            return False
        try:
            started = _nanoseconds(client.inspect_network("bridge").get("Created"))
        except NotFound:
            return True
        ended = _nanoseconds((seen.get("State") or {}).get("FinishedAt"))
        return started is None or ended is None or ended < started

    # --- inside: submitting ---

    def _own(self, client: Any, claim: Claim) -> str:
        """The id of a container that bears this claim's token, made or found."""
        request, token = self.request, claim.token
        name = request.get("name") or token
        labels = {
            **request.get("labels", {}),
            CLAIM: str(claim),
            FAMILY: claim.family,
            TOKEN: token,
            TRY: str(request.get("try_number", "")),
            AUTO_REMOVE: str(request.get("auto_remove", "never")),
            STOPS_IN: str(request.get("stop_timeout", STOP_TIMEOUT)),
        }
        if request.get("force_pull"):
            self._pull(client)
        for _ in range(5):
            made = self._made(client, name, labels)
            if made is not None:
                return made
            holder = self._inspect(client, name)
            if holder is None:
                continue  # it was removed meanwhile
            found = on_clash(holder, token, claim.family, labels[TRY])
            if found in ("adopt", "start"):
                self.log.info("the name %s is taken, by the container of this claim", name)
                return str(holder["Id"])
            self._make_way(client, found, holder, name)
        raise _LookAgain(f"the name {name} is taken again and again")

    def _made(self, client: Any, name: str, labels: Mapping[str, str]) -> str | None:
        """The id of a new container; ``None`` when the name is taken."""
        from docker.errors import APIError, ImageNotFound

        config = {**self.request["config"], "name": name}
        config["labels"] = {**(config.get("labels") or {}), **labels}
        for attempt in ("as it is", "pulled"):
            try:
                host = client.create_host_config(**self.request["host"])
                return str(client.create_container(**config, host_config=host)["Id"])
            except ImageNotFound as error:  # noqa: PERF203 - see above
                if attempt == "pulled" or "image" not in str(error.explanation).lower():
                    raise
                self._pull(client)
            except APIError as error:
                if _is_name_taken(error):
                    return None
                raise
        return None

    def _make_way(self, client: Any, found: Clash, holder: Mapping[str, Any], name: str) -> None:
        """Free a name, as far as that harms nobody."""
        labels = (holder.get("Config") or {}).get("Labels") or {}
        if found == "replace":
            self._removed(client, str(holder["Id"]))
        elif found == "move":
            old = f"{labels[TOKEN]}-{str(holder['Id'])[:12]}"
            self.log.info("%s gives up its name %s, which is needed again: %s", holder["Id"], name, old)
            client.rename(holder["Id"], old)
        elif found == "wait":
            raise _LookAgain(f"{holder['Id']} of the same task instance still has the name {name}")
        elif found == "busy":
            who = " / ".join(str(labels.get(f"{_LABEL}.{part}")) for part in ("dag_id", "run_id", "task_id"))
            raise NoCapacity(
                f"the container name {name} is in use by {who}, which still runs. Leave container_name out, "
                "or make it differ with a template such as {{ run_id }}"
            )
        else:
            raise SubmitRefused(
                f"the container name {name} is in use by {holder['Id']}, which Airflow did not make. Remove "
                "that container, or leave container_name out"
            )

    def _started(self, client: Any, url: str, container: str, claim: Claim) -> Job:
        from docker.errors import APIError, NotFound

        seen = self._inspect(client, container)
        if seen is None:
            raise _LookAgain(f"{container} was removed before it was started")
        if read_container(seen, claim).phase is Phase.QUEUED:
            trouble: APIError | None = None
            try:
                client.start(container)
            except NotFound as error:
                raise _LookAgain(f"{container} was removed before it was started") from error
            except APIError as error:
                trouble = error
            seen = self._inspect(client, container)
            if seen is None:
                raise _LookAgain(f"{container} was removed as soon as it was started") from trouble
            if trouble is not None and read_container(seen, claim).phase is Phase.QUEUED:
                self._refuse_start(client, container, trouble)
                raise trouble  # the engine did not even note that it tried
        return self._read(client, url, seen, claim)

    def _refuse_start(self, client: Any, container: str, error: Any) -> None:
        """Raise what podman only answers, where Docker notes it as the end of the container.

        Verified with podman 4.3.1: its answer has the status 500, and the container stays as it was made.
        Source of the words: ``libpod/define/errors.go`` of podman.
        """
        answer = str(error.explanation or error)
        if re.search(_NO_COMMAND, answer):
            self._removed(client, container)
            image = self.request.get("config", {}).get("image")
            said = short(without(answer, self.request.get("secrets", ())), 300)
            # Not from the engine's error: a traceback would show what is hidden here.
            raise SubmitRefused(
                f"the engine cannot start {image}: {said}. See image, command and entrypoint"
            ) from None

    def _pull(self, client: Any) -> None:
        """Fetch the image, with the registry's login if a connection names one."""
        image = str(self.request["config"]["image"])
        self.log.info("pulling %s", image)
        told: dict[str, str] = {}
        for said in self._logged_in(client).pull(image, stream=True, decode=True):
            if not isinstance(said, Mapping):
                continue
            if said.get("error"):
                self._pull_failed(image, str(said["error"]))
            part, status = str(said.get("id") or ""), str(said.get("status") or "")
            if status and told.get(part) != status:
                told[part] = status
                self.log.info("%s", f"{part}: {status}" if part else status)

    def _pull_failed(self, image: str, said: str) -> None:
        if re.search(_REGISTRY_PASSES, said):
            raise EngineAway(f"{image} could not be pulled: {short(said, 200)}")
        raise SubmitRefused(
            f"{image} cannot be pulled: {short(said, 300)} Check image and docker_conn_id, or pull it on the "
            "engine's host"
        )

    def _logged_in(self, client: Any) -> Any:
        """A client that may pull what the connection's account may."""
        conn_id = self.request.get("docker_conn_id")
        if not conn_id:
            return client
        from airflow.providers.common.compat.sdk import AirflowException
        from airflow.providers.docker.hooks.docker import DockerHook

        url = next(url for url, known in self._clients.items() if known is client)
        hook = DockerHook(
            docker_conn_id=conn_id,
            base_url=url,
            version=self.api_version,
            tls=self._tls() or None,
            timeout=int(self.timeout),
        )
        try:
            return hook.api_client
        except AirflowException as error:
            if "establish connection" in str(error):
                raise EngineAway(str(error)) from error
            raise

    def _explain(self, error: Exception) -> None:
        """Raise what a refusal means, unless it may pass or is none of the engine's answers."""
        from docker.errors import APIError

        if not isinstance(error, APIError):
            return
        said = short(without(str(error.explanation or error), self.request.get("secrets", ())), 400)
        image = self.request.get("config", {}).get("image")
        if re.search(_NO_ROOM, said):
            raise NoCapacity(f"the engine cannot run {image} now: {said}") from None
        if not self.is_transient(error):
            status = error.response.status_code if error.response is not None else "no status"
            if re.search(_REGISTRY_PASSES, said) and "pull" in said:
                raise EngineAway(f"{image} could not be pulled: {said}") from None
            raise SubmitRefused(
                f"the engine refuses to run {image}: {said} ({status}). Mend what it names.",
                {"Error": {"Code": str(status), "Message": said}},
            ) from None

    # --- inside: ending ---

    def _stop(self, client: Any, seen: Mapping[str, Any]) -> None:
        """Ask the engine to stop a container and wait for that, but not for ever.

        The engine answers when it has stopped. The question is asked in a thread, so that a container that
        takes its time is stopped in peace while we go on.
        """
        labels = (seen.get("Config") or {}).get("Labels") or {}
        grace = int(labels.get(STOPS_IN) or STOP_TIMEOUT)
        trouble: list[Exception] = []

        def stop() -> None:
            try:
                self._ask_to_stop(client, str(seen["Id"]), grace, str(labels.get(TOKEN) or ""))
            except Exception as error:  # noqa: BLE001 - raised in the thread that waits
                trouble.append(error)

        thread = threading.Thread(target=stop, daemon=True, name="airflow-resilient-docker-stop")
        thread.start()
        thread.join(_LONGEST_STOP)
        if trouble:
            raise trouble[0]

    def _ask_to_stop(self, client: Any, container: str, grace: int, token: str) -> None:
        import requests
        from docker.errors import APIError, create_api_error_from_http_exception

        url = f"{client.base_url}/v{client.api_version}/containers/{container}"
        answer = client.post(f"{url}/stop", params={"t": grace}, timeout=self.timeout + grace)
        if answer.status_code in (304, 404):
            return  # it has ended by itself, or is gone
        try:
            answer.raise_for_status()
        except requests.exceptions.HTTPError as error:
            raise create_api_error_from_http_exception(error) from error
        try:  # events are forgotten; a name is not
            client.rename(container, f"{token}{CANCELLED}")
        except APIError as error:
            log.debug("%s cannot be renamed: %s", container, error)

    def _removed(self, client: Any, container: str) -> bool:
        """Remove a container that does not run; ``False`` when it runs."""
        from docker.errors import APIError, NotFound

        try:
            client.remove_container(container, v=True)
        except NotFound:
            return True
        except APIError as error:
            if error.response is not None and error.response.status_code == 409:  # noqa: PLR2004 - it runs, or somebody is removing it
                return "in progress" in str(error.explanation)
            raise
        return True

    # --- inside: logs ---

    def _entries(self, job: Job, **params: Any) -> Iterator[tuple[int, str]]:
        """Lines of a log with their times in nanoseconds since 1970.

        The last one of a container that runs may come in pieces, of which not all are there yet: it is left.
        """
        client = self._client(job.scope or self.urls[0])
        path = f"/containers/{job.id}/logs"
        answer = self._get(client, path, stream=True, stdout=1, stderr=1, timestamps=1, **params)
        try:
            yield from entries(answer.iter_content(1 << 16), ended=not job.live)
        finally:
            answer.close()


def entries(chunks: Iterable[bytes], *, ended: bool = True) -> Iterator[tuple[int, str]]:
    """Read the engine's answer about a log, with times.

    :param chunks: frames of 8 bytes (stream, 0, 0, 0, length) and a piece of a line each; with a pseudo-TTY
        just lines. A line of more than 16 KB comes in pieces, each with the time.
    :param ended: nothing more is written: a last line without its end is one, too.

    Source: "Attach to a container", stream format, in the engine's API reference.
    """
    at, line = 0, ""
    for piece in _pieces(chunks):
        stamp, _, text = piece.decode("utf-8", "replace").partition(" ")
        at = at if line else _nanoseconds(stamp) or 0
        line += text
        if text.endswith("\n"):
            yield at, line.rstrip()
            line = ""
    if line and ended:
        yield at, line.rstrip()


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    buffer, framed = b"", None
    for chunk in chunks:
        buffer += chunk
        if framed is None and len(buffer) >= 4:  # noqa: PLR2004 - a time does not begin with zeros
            framed = buffer[1:4] == b"\0\0\0"
        while framed and len(buffer) >= 8 and len(buffer) >= 8 + int.from_bytes(buffer[4:8], "big"):  # noqa: PLR2004 - the header
            end = 8 + int.from_bytes(buffer[4:8], "big")
            yield buffer[8:end]
            buffer = buffer[end:]
        if framed is False:
            *lines, buffer = buffer.split(b"\n")
            yield from (line + b"\n" for line in lines)
    if buffer and not framed:
        yield buffer


def _claim_of(labels: Mapping[str, str]) -> Claim | None:
    """The claim that stands on a container, with the number of its resubmission."""
    claim = Claim.read(labels.get(CLAIM, ""))
    if claim is None or str(claim) != labels[CLAIM]:
        return None
    again = labels.get(TOKEN, "").removeprefix(f"{claim}-")
    return replace(claim, again=int(again)) if again.isdecimal() else claim


def _to_be_removed(auto_remove: str | None, look: Job) -> bool:
    """Whether the user asked for the removal of a container that ended so."""
    return auto_remove == "force" or (auto_remove == "success" and look.phase is Phase.SUCCEEDED)


def _is_name_taken(error: Any) -> bool:
    """Whether a name is in use: Docker says so with 409, podman with 500."""
    status = error.response.status_code if error.response is not None else 0
    return status in (409, 500) and "in use" in str(error.explanation).lower()


def default_url() -> str:
    """The engine that is meant where none is named: ``DOCKER_HOST``, or the socket."""
    return os.environ.get("DOCKER_HOST") or DEFAULT_URL


def _engine_of(client: Any) -> str:
    """The engine's id, which outlives restarts; empty for podman, which makes one up for each answer."""
    return "" if _is_podman(client) else str(client.info().get("ID") or "")


def _is_podman(client: Any) -> bool:
    """Whether it is podman, whose containers have no engine that they could end with."""
    return any("podman" in str(each.get("Name")).lower() for each in client.version().get("Components") or ())


def _chain(error: BaseException | None) -> str:
    """An error and what it came from, as a text with the names of their classes."""
    told: list[str] = []
    while error is not None and len(told) < 10:  # noqa: PLR2004 - a cycle would not end
        told.append(repr(error))
        error = error.__cause__ or error.__context__
    return " ".join(told)


# --- the operator -------------------------------------------------------------------------------


class DockerOperator(RemoteJobOperator):
    """Run a container once per try, and wait for it without a worker slot.

    A drop-in for the docker provider's operator of this name: it takes the same parameters, with the same
    meaning but where this says otherwise, and returns the same. See also `RemoteJobOperator`.

    :param image: the image; pulled where the engine does not have it (templated).
    :param api_version: of the engine's API; by default, or with ``auto``, the engine's own.
    :param command: a string, a list, or the text of a list (templated).
    :param container_name: by default the claim (templated). A container that has ended gives the name up
        when it is needed again.
    :param cpus: share of the processor, times 1024.
    :param docker_url: URL of the engine, or of several: the first that answers takes the container. It must
        lead to the same engine from every worker and triggerer. Default ``DOCKER_HOST``, or the socket.
    :param environment: variables for the container (templated); never logged.
    :param private_environment: the same, neither templated nor shown.
    :param env_file: the content of an ``.env`` file (templated).
    :param force_pull: pull the image before each submission.
    :param mem_limit: bytes, or a text such as ``"1g"``.
    :param mount_tmp_dir: mount a directory for temporary files at `tmp_dir`, named by ``AIRFLOW_TMP_DIR``:
        a volume that goes with the container, or a directory below `host_tmp_dir`.
    :param host_tmp_dir: a directory of the engine's host that this worker can write to, too.
    :param mounts: ``docker.types.Mount``, or its keywords as dicts (templated).
    :param network_mode: this and `user`, `entrypoint`, `working_dir`, `dns`, `dns_search`, `shm_size`, `tty`,
        `hostname`, `privileged`, `cap_add`, `extra_hosts`, `device_requests`, `ipc_mode`, `port_bindings`,
        `ulimits` and `labels` are Docker's own.
    :param tls_ca_cert: path of a certificate; with `tls_client_cert` and `tls_client_key` the engine is
        reached by TLS, as `tls_verify`, `tls_hostname` and `tls_ssl_version` say. The triggerer reads the
        same paths.
    :param xcom_all: return all lines of the log, not just the last one.
    :param docker_conn_id: connection with the login to the image's registry, for pulling (templated).
    :param auto_remove: ``"never"``, ``"success"``: when it has succeeded, ``"force"``: however it ended.
    :param retrieve_output: return the object pickled in the file `retrieve_output_path` of the container.
    :param timeout: seconds for calls of the engine's API.
    :param log_opts_max_size: size at which the engine rotates the log, `log_opts_max_file` how many it keeps.
        What is rotated away before it is read is lost.
    :param skip_on_exit_code: exit code, or a container of them, for which the task instance is skipped.
    :param stop_timeout: seconds between the signal that stops the container and the kill, when it is
        cancelled.
    :return: the last line of the log or all of them, if ``do_xcom_push`` is on, or the object of
        `retrieve_output`.
    :raises InvalidParameter: a parameter is wrong.
    """

    ui_color = "#e5f2fa"
    template_fields: Sequence[str] = (
        "image",
        "command",
        "environment",
        "env_file",
        "container_name",
        "mounts",
        "docker_conn_id",
    )
    template_fields_renderers = {"env_file": "yaml"}  # noqa: RUF012 - Airflow's own spelling
    template_ext: Sequence[str] = (".sh", ".bash", ".env")
    log_interval = 5.0

    def __init__(
        self,
        *,
        image: str = "",
        api_version: str | None = None,
        command: str | list[str] | None = None,
        container_name: str | None = None,
        cpus: float = 1.0,
        docker_url: str | list[str] | None = None,
        environment: dict[str, Any] | None = None,
        private_environment: dict[str, Any] | None = None,
        env_file: str | None = None,
        force_pull: bool = False,
        mem_limit: float | str | None = None,
        host_tmp_dir: str | None = None,
        network_mode: str | None = None,
        tls_ca_cert: str | None = None,
        tls_client_cert: str | None = None,
        tls_client_key: str | None = None,
        tls_verify: bool = True,
        tls_hostname: str | bool | None = None,
        tls_ssl_version: str | None = None,
        mount_tmp_dir: bool = True,
        tmp_dir: str = "/tmp/airflow",  # noqa: S108 - in the container
        user: str | int | None = None,
        mounts: list[Any] | None = None,
        entrypoint: str | list[str] | None = None,
        working_dir: str | None = None,
        xcom_all: bool = False,
        docker_conn_id: str | None = None,
        dns: list[str] | None = None,
        dns_search: list[str] | None = None,
        auto_remove: Literal["never", "success", "force"] = "never",
        shm_size: int | None = None,
        tty: bool = False,
        hostname: str | None = None,
        privileged: bool = False,
        cap_add: Iterable[str] | None = None,
        extra_hosts: dict[str, str] | None = None,
        retrieve_output: bool = False,
        retrieve_output_path: str | None = None,
        timeout: int = 60,
        device_requests: list[Any] | None = None,
        log_opts_max_size: str | None = None,
        log_opts_max_file: str | None = None,
        ipc_mode: str | None = None,
        skip_on_exit_code: int | Container[int] | None = None,
        port_bindings: dict[Any, Any] | None = None,
        ulimits: list[Any] | None = None,
        labels: dict[str, str] | list[str] | None = None,
        stop_timeout: int = STOP_TIMEOUT,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if kwargs.get("patience") is None:
            # An engine knows at once what it has: a container that is not there is gone.
            self.patience = replace(self.patience, missing=2, missing_for=0.0)
        self.image = image
        self.api_version = api_version
        self.command = command
        self.container_name = container_name
        self.cpus = cpus
        self.docker_url = docker_url or default_url()
        self.environment = environment or {}
        self._private_environment = private_environment or {}
        self.env_file = env_file
        self.force_pull = force_pull
        self.mem_limit = mem_limit
        self.host_tmp_dir = host_tmp_dir
        self.network_mode = network_mode
        self.tls_ca_cert = tls_ca_cert
        self.tls_client_cert = tls_client_cert
        self.tls_client_key = tls_client_key
        self.tls_verify = tls_verify
        self.tls_hostname = tls_hostname
        self.tls_ssl_version = tls_ssl_version
        self.mount_tmp_dir = mount_tmp_dir
        self.tmp_dir = tmp_dir
        self.user = user
        self.mounts = mounts or []
        self.entrypoint = entrypoint
        self.working_dir = working_dir
        self.xcom_all = xcom_all
        self.docker_conn_id = docker_conn_id
        self.dns = dns
        self.dns_search = dns_search
        self.auto_remove = auto_remove
        self.shm_size = shm_size
        self.tty = tty
        self.hostname = hostname
        self.privileged = privileged
        self.cap_add = cap_add
        self.extra_hosts = extra_hosts
        self.retrieve_output = retrieve_output
        self.retrieve_output_path = retrieve_output_path
        self.timeout = timeout
        self.device_requests = device_requests
        self.log_opts_max_size = log_opts_max_size
        self.log_opts_max_file = log_opts_max_file
        self.ipc_mode = ipc_mode
        self.skip_on_exit_code = skip_on_exit_code
        self.port_bindings = port_bindings or {}
        self.ulimits = ulimits or []
        self.labels = labels
        self.stop_timeout = stop_timeout
        self._check()

    # --- what the base class asks ---

    def remote_jobs(self, context: Context) -> DockerContainers:
        """The engines, with the request."""
        self._check()  # again: what was a template at parse time is a value now
        return DockerContainers(**self._engines(), request=self._request(context), log=self.log)

    def conclude(self, context: Context, job: Job, log: LogTail) -> Any:
        """Return what the container left, and remove it if that is asked for."""
        service = self.remote_jobs(context)
        self._tell_log(service, job, log)
        if 0 in codes_of(self.skip_on_exit_code):
            self._clear_away(service, job)
            raise AirflowSkipException("skip_on_exit_code names exit code 0, with which the container ended")
        value = self._value(service, job, log)
        self._clear_away(service, job)
        return value

    def failure(self, context: Context, job: Job, log: LogTail) -> Exception:
        """Say what happened with the end of the log, or skip the task instance for a code that means so."""
        service = self.remote_jobs(context)
        lines = log.lines or self._tell_log(service, job, log)
        error = error_of(job, LogTail(tuple(lines)))
        if job.phase is not Phase.LOST:
            self._clear_away(service, job)
        by_itself = job.phase is Phase.FAILED and job.cause is Cause.APPLICATION
        if by_itself and job.exit_code is not None and job.exit_code in codes_of(self.skip_on_exit_code):
            return AirflowSkipException(f"skip_on_exit_code names exit code {job.exit_code}. {error}")
        return error

    def timed_out(self, context: Context, job: Job) -> None:
        """Remove what was stopped at the deadline, if that is asked for."""
        self._clear_away(self.remote_jobs(context), job)

    def job_log(self) -> dict[str, Any]:
        """The container itself has it."""
        return {"stream": "both"}

    # --- inside: what comes back ---

    def _tell_log(self, service: DockerContainers, job: Job, log: LogTail) -> tuple[str, ...]:
        """Copy the log of a container that nobody has watched into the task's log; trouble is only said."""
        if log.lines or job.phase is Phase.LOST:
            return log.lines
        lines: list[str] = []
        cursor: Any = None
        try:
            while True:
                found, cursor = self._persist(service, lambda: service.read_log(job, {}, cursor))  # noqa: B023 - called at once
                if not found:
                    break
                for _, text in found:
                    self.log.info("%s", text)
                lines = [*lines, *(text for _, text in found)][-self.log_lines :]
        except Exception as error:  # noqa: BLE001 - the log never changes the result
            self.log.warning("the container's log cannot be read: %s", error)
        return tuple(lines)

    def _value(self, service: DockerContainers, job: Job, log: LogTail) -> Any:
        """What the task returns.

        :raises Unobservable: the engine does not give it; the container is still there, with what it has.
        """
        try:
            if self.retrieve_output:
                return self._object(service, job)
            if not self.do_xcom_push:
                return None
            lines = self._persist(service, lambda: service.last_lines(job, {}, 0 if self.xcom_all else 1))
        except Exception as error:
            passes = service.is_transient(error)
            if self.retrieve_output and not passes:
                raise
            if not self.retrieve_output and (not passes or (log.lines and not self.xcom_all)):
                self.log.warning("the container's log cannot be read: %s", error)
                return log.last_line  # as far as it was forwarded
            raise Unobservable(
                f"{job.id} has succeeded, but what it returns cannot be read now: {error}. It was not "
                "removed: the next try takes its result",
                job,
            ) from error
        if not lines:
            return None
        return list(lines) if self.xcom_all else lines[-1]

    def _object(self, service: DockerContainers, job: Job) -> Any:
        import pickle

        content = self._persist(service, lambda: service.file(job, str(self.retrieve_output_path)))
        if content is None:
            return None
        # The provider's parameter, with its meaning: the image is trusted as the DAG is.
        return getattr(self, "pickling_library", pickle).loads(content)

    def _persist(self, service: DockerContainers, call: Callable[[], T]) -> T:
        import random

        return persist(
            call, service.is_transient, Senses(time.time, time.sleep, random.random, self.log), _ATTEMPTS
        )

    def _clear_away(self, service: DockerContainers, job: Job) -> None:
        """Remove the containers of this task instance that have ended and that `auto_remove` asks to remove.

        How this one ended is known and told by now. What cannot be removed is left to the orphan sweep.
        """
        if self.host_tmp_dir and self.mount_tmp_dir:
            import shutil

            shutil.rmtree(self._tmp_dir(job.claim.family), ignore_errors=True)
        if self.auto_remove == "never":
            return
        try:
            ended = service.ended_of(job.claim.family)
            for each in ended:
                service.remove(each)
        except Exception as error:  # noqa: BLE001 - the result stands
            self.log.warning("a container is left, for the orphan sweep to remove: %s", error)

    # --- inside: the request ---

    def _engines(self) -> dict[str, Any]:
        """How engines are reached: keywords of `DockerContainers`."""
        tls = None
        if self.tls_ca_cert and self.tls_client_cert and self.tls_client_key:
            tls = {name: getattr(self, f"tls_{name}", None) for name in _TLS}
            tls["assert_hostname"] = self.tls_hostname
        version = None if str(self.api_version).lower() in ("auto", "none", "") else self.api_version
        return {
            "docker_url": self.docker_url,
            "api_version": version,
            "tls": tls,
            "timeout": self.timeout,
        }

    def _request(self, context: Context) -> dict[str, Any]:
        """What the container is made of."""
        from docker.types import LogConfig, Mount

        ti: Any = context["ti"]
        mounts = [
            each if isinstance(each, Mount) or "Target" in each else Mount(**each) for each in self.mounts
        ]
        environment = {**self._from_file(), **self.environment, **self._private_environment}
        environment.pop("AIRFLOW_TMP_DIR", None)
        secrets = tuple(environment.values())
        if self.mount_tmp_dir:
            mounts.append(self._tmp_mount(context))
            environment["AIRFLOW_TMP_DIR"] = self.tmp_dir
        options = {"max-size": self.log_opts_max_size, "max-file": self.log_opts_max_file}
        given = self.labels if isinstance(self.labels, Mapping) else dict.fromkeys(self.labels or (), "")
        ours = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": ti.map_index}
        return {
            "config": {
                "image": self.image,
                "command": _literal(self.command),
                "environment": environment,
                "ports": list(self.port_bindings),
                "user": self.user,
                "entrypoint": _literal(self.entrypoint),
                "working_dir": self.working_dir,
                "tty": self.tty,
                "hostname": self.hostname,
                "labels": dict(given),
            },
            "host": {
                "auto_remove": False,
                "mounts": mounts,
                "network_mode": self.network_mode,
                "shm_size": self.shm_size,
                "dns": self.dns,
                "dns_search": self.dns_search,
                "cpu_shares": round(self.cpus * 1024),
                "port_bindings": self.port_bindings,
                "mem_limit": self.mem_limit,
                "cap_add": list(self.cap_add) if self.cap_add is not None else None,
                "extra_hosts": self.extra_hosts,
                "privileged": self.privileged,
                "device_requests": self.device_requests,
                "log_config": LogConfig(
                    config={name: value for name, value in options.items() if value is not None}
                ),
                "ipc_mode": self.ipc_mode,
                "ulimits": self.ulimits,
            },
            "name": self.container_name,
            "labels": {f"{_LABEL}.{name}": str(value) for name, value in ours.items()},
            "secrets": secrets,
            "auto_remove": self.auto_remove,
            "stop_timeout": self.stop_timeout,
            "try_number": ti.try_number,
            "force_pull": self.force_pull,
            "docker_conn_id": self.docker_conn_id,
        }

    def _from_file(self) -> dict[str, Any]:
        if self.env_file is None:
            return {}
        from io import StringIO

        from dotenv import dotenv_values

        return dict(dotenv_values(stream=StringIO(self.env_file)))

    def _tmp_mount(self, context: Context) -> Any:
        """The directory for temporary files: it must outlive this process, and this worker."""
        from docker.types import Mount

        if not self.host_tmp_dir:
            return Mount(self.tmp_dir, None, type="volume")
        path = self._tmp_dir(self._owner(context).family)
        os.makedirs(path, exist_ok=True)  # noqa: PTH103 - the user's text, handed on as it is
        return Mount(self.tmp_dir, path, type="bind")

    def _tmp_dir(self, family: str) -> str:
        return os.path.join(str(self.host_tmp_dir), f"airflowtmp-{family}")  # noqa: PTH118 - see above

    def _check(self) -> None:
        """Refuse what can be seen to be wrong; a template is looked at when it has been rendered.

        :raises InvalidParameter: naming task, parameter and what to write.
        """
        if not may_change(self.image) and not (isinstance(self.image, str) and self.image.strip()):
            reject(self, "image", self.image, "the name of an image, such as image='etl:7'")
        require_choice(self, "auto_remove", self.auto_remove, ("never", "success", "force"))
        require_codes(self, "skip_on_exit_code", self.skip_on_exit_code)
        if not isinstance(self.stop_timeout, int) or self.stop_timeout < 0:
            reject(self, "stop_timeout", self.stop_timeout, "a whole number of seconds, 0 or more")
        for name in ("environment", "_private_environment"):
            value = getattr(self, name)
            if not may_change(value) and not isinstance(value, Mapping):
                reject_hidden(self, name.lstrip("_"), value, 'a dict: {"NAME": "value"}')
        if self.retrieve_output and not self.retrieve_output_path:
            reject(self, "retrieve_output_path", self.retrieve_output_path, "a path in the container")
        if self.port_bindings and self.network_mode == "host":
            reject(
                self,
                "port_bindings",
                self.port_bindings,
                "none with network_mode='host', which has all ports",
            )


def _literal(command: Any) -> Any:
    """A command; a text that begins with ``[`` is a list.

    >>> _literal("[ 'echo', 'hello' ]"), _literal("echo hello")
    (['echo', 'hello'], 'echo hello')
    """
    import ast

    if isinstance(command, str) and command.strip().startswith("["):
        return ast.literal_eval(command)
    return command
