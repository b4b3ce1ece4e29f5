"""Docker containers as remote jobs.

The claim is the container's name, which is unique on an engine: a second request for it is refused. Labels
contain the claim in a form that can be searched.

The engine never removes a container automatically: its end is read first; then the task, its next try or the
orphan sweep removes it.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeVar

from ...core.job import NO_CLAIM, Cause, Phase
from ...core.service import UNATTENDED, RemoteService
from ...core.text import redact, says, shorten, small_number, values_of
from ...errors import NoCapacity, SubmitRefused
from .engine import (
    Engines,
    EngineUnreachable,
    StateChanged,
    default_url,
    is_name_taken,
    is_permanent,
    is_podman,
    is_transient,
)
from .log import TimeCursor, entries, take_since
from .read import (
    AUTO_REMOVE,
    CANCELLED,
    CLAIM,
    ENDING_SIGNALS,
    GENERATION,
    LABEL_PREFIX,
    NAME,
    STOPS_IN,
    TASK_KEY,
    TIMED_OUT,
    TOKEN,
    TRY,
    UNATTENDED_LABEL,
    claim_of,
    is_container_of,
    on_name_conflict,
    read_container,
    read_time,
    should_remove,
    why_copied,
    with_generation,
)
from .service import SERVICE

if TYPE_CHECKING:
    from ...core.job import Claim, Job
    from .read import NameConflict


log = logging.getLogger(__name__)

T = TypeVar("T")

STOP_TIMEOUT = 10
"""Seconds between the signal and the kill. Source: ``docker stop``: 10 by default."""

OPEN_TO_ALL = 0o1777
"""Mode of a directory for temporary files: everybody may write, and remove only their own files."""

_MAX_STOP_SECONDS = 20.0  # for which a cancel waits; the engine continues without it
_MAX_LINES_PER_READ = 5000
_LONG_LINE = 4096  # characters: a line that was stored in pieces has more, whatever its characters

_CAPACITY_ERROR = r"(?i)no space left|cannot allocate memory|too many open files"

_COMMAND_NOT_FOUND = r"(?i)OCI runtime attempted to invoke a command that was not found|OCI permission denied"

# Phrases, because an image, its tag or its registry may contain any word or number.
_TRANSIENT_REGISTRY_ERROR = (
    r"(?i)connection reset|connection refused|no such host|temporary failure in name resolution"
    r"|unexpected EOF|: EOF$|request canceled|\btoomanyrequests\b|too many requests|\brate limit"
    r"|\b(http|status)[a-z ]*:? (429|5\d\d)\b|\b5\d\d (bad gateway|gateway time-?out)"
    r"|service unavailable|internal server error|" + TIMED_OUT
)

# What engines answer, with a status of 500, when the registry refuses them: no wait heals it.
# Sources: docker/docker-py issue 3217; apache/airflow issues 9707 and 54286.
_NO_LOGIN = (
    r"(?i)no basic auth credentials|authentication required|incorrect username or password|unauthorized"
)
_UNTRUSTED_REGISTRY = r"(?i)x509:|certificate (signed by unknown authority|has expired|is not trusted)"


class DockerContainers(RemoteService):
    """Run one container per claim.

    :param docker_url: URL of the engine, or of several: the first that answers takes a container, and all of
        them are searched for those of earlier tries. Default ``DOCKER_HOST``, or the socket.
    :param api_version: of the engine's API; default: the engine's own.
    :param tls: keywords of the docker provider's ``construct_tls_config``: paths, no secrets.
    :param timeout: seconds for calls that change something.
    :param request: ``{"config": keywords of the SDK's create_container, "host": of its create_host_config,
        "secrets": values to redact, "labels": of Airflow's identity, "auto_remove": str, "stop_timeout": int,
        "try_number": int, "force_pull": bool, "docker_conn_id": str | None, "tmp_dir": str | None}``;
        ``tmp_dir`` is a volume to which every user of the container may write.
    """

    listing_lag = 0.0  # an engine lists a container as soon as it exists
    log_drain = 0.0  # the log of an ended container is complete
    batch_size = 100
    name = SERVICE.name
    scope_noun = SERVICE.scope_noun
    budget = SERVICE.budget
    keeps_ended_jobs = True

    def __init__(
        self,
        *,
        docker_url: str | Sequence[str] | None = None,
        api_version: str | None = None,
        tls: Mapping[str, Any] | None = None,
        timeout: float = 60,
        request: Mapping[str, Any] | None = None,
        log: Any = log,
    ) -> None:
        urls = docker_url or default_url()
        self.engines = Engines(
            [urls] if isinstance(urls, str) else urls, api_version=api_version, tls=tls, timeout=timeout
        )
        self.urls = self.engines.urls
        self.request = request or {}
        self.log = log
        self._starting = False  # the last `submit` has come to a container that it starts or adopts

    def address(self) -> dict[str, Any]:
        """How to reach the engines; each job's ``scope`` is the URL of its engine."""
        return self.engines.address()

    @classmethod
    def connect(cls, access: Mapping[str, Any], scopes: Sequence[str] = ()) -> DockerContainers:
        """The engines in `scopes`, or the default one."""
        return cls(docker_url=list(scopes) or default_url(), **access)

    def request_fields(self) -> Mapping[str, Any]:
        """The options of the container that the user has chosen."""
        asked = (self.request.get(part) or {} for part in ("config", "host"))
        fields = {name: value for part in asked for name, value in part.items()}
        return {**fields, "name": self.request.get("name")} if fields else {}

    def refuses_scope(self, error: Exception) -> bool:
        """Whether the error applies to every container of the engine."""
        return is_permanent(error)

    def is_transient(self, error: Exception) -> bool:
        """Whether the same call may succeed later."""
        return is_transient(error)

    def may_have_submitted(self, error: Exception) -> bool:
        """Whether the last submission may have started a container; one that was only made does nothing."""
        return self._starting

    def lasting(self, error: Exception, attempts: int) -> str:
        """What to correct, where the registry refuses the engine."""
        raw = str(getattr(error, "explanation", None) or error)
        if says(raw, _UNTRUSTED_REGISTRY, self._quoted()):
            return (
                "The engine does not trust the certificate of the registry: install its CA on the engine's "
                "host, or correct the registry of image and docker_conn_id"
            )
        if says(raw, _NO_LOGIN, self._quoted()):
            return "The registry wants a login: name a connection with login and password in docker_conn_id"
        return ""

    def find(self, claims: Sequence[Claim]) -> list[Job]:
        """Containers that bear one of the claims, ended ones until they are removed.

        A container that was made and never started is left out: `submit` starts it, or makes a new one.

        :raises EngineUnreachable: one of several engines does not answer, and no other has a live container.
        """
        wanted = {str(claim) for claim in claims}
        jobs: list[Job] = []
        unreachable: Exception | None = None
        for url in self.urls:
            try:
                for task_key in {claim.task_key for claim in claims}:
                    jobs += self._list_claimed(url, wanted, {"label": [f"{TASK_KEY}={task_key}"]})
            except Exception as error:
                if not self.is_transient(error):
                    raise
                unreachable = error
        if unreachable is not None and not any(job.live for job in jobs):
            raise unreachable
        return jobs

    def submit(self, claim: Claim) -> Job:
        """Make and start the container of this claim, or return the one that has its name already."""
        self._starting = False
        url, client = self.engines.first()
        try:
            container = self._create_or_adopt(client, claim)
            self._starting = True
            return self._start(client, url, container, claim)
        except Exception as error:
            self._raise_refusal(error)
            raise

    def observe(self, jobs: Sequence[Job]) -> list[Job]:
        """Observe each job; those that no longer exist are left out."""
        engines: dict[str, dict[str, Job]] = defaultdict(dict)
        for job in jobs:
            engines[job.scope or self.urls[0]][job.id] = job
        observed = []
        for url, wanted in engines.items():
            client = self.engines.client(url)
            listed = client.containers(all=True, filters={"id": list(wanted)})
            known = {str(each["Id"]): each for each in listed}
            for job in wanted.values():
                labels = (known.get(job.id) or {}).get("Labels") or {}
                if job.id not in known or not is_container_of(job, labels):
                    continue
                if str(known[job.id].get("State") or "").lower() in ("running", "restarting", "paused"):
                    claim = with_generation(job.claim, labels)
                    observed.append(replace(job, claim=claim, phase=Phase.RUNNING))
                else:
                    observed += self._observe_one(client, url, job.id, job.claim)
            missing = [job for job in wanted.values() if job.id not in known and job.facts.get("engine")]
            if missing:
                self.engines.require_same(client, url, missing[0])
        return observed

    def cancel(self, job: Job, reason: str) -> Job:
        """Ask the engine to stop the container: a signal, and a kill after the grace period.

        A container whose labels do not have the job's claim is not the job, and is not touched.
        """
        url = job.scope or self.urls[0]
        client = self.engines.client(url)
        inspection = self._inspect(client, job.id)
        if inspection is None:
            self.engines.require_same(client, url, job)
            return replace(job, phase=Phase.LOST, reason="the engine does not know it any more")
        labels = (inspection.get("Config") or {}).get("Labels") or {}
        if job.claim == NO_CLAIM or not is_container_of(job, labels):
            self.log.warning("not stopping %s: its labels do not have the claim %s", job.id, job.claim)
            return replace(job, phase=Phase.LOST, reason=f"the container does not have the claim {job.claim}")
        observed = self._read(client, url, inspection, job.claim)
        if observed.phase is Phase.QUEUED:  # it never ran: there is nothing to stop or to read
            if self._remove_stopped(client, job.id):
                return replace(observed, phase=Phase.CANCELLED, cause=Cause.USER, reason=f"removed: {reason}")
            raise StateChanged(f"{job.id} has been started meanwhile")
        if observed.live:
            self._stop(client, inspection)
            inspection = self._inspect(client, job.id)
            if inspection is None:
                return replace(job, phase=Phase.LOST, reason="it was removed while it was being stopped")
            observed = self._read(client, url, inspection, job.claim)
        return replace(observed, phase=Phase.STOPPING) if observed.live else observed

    def list_scopes(self) -> list[str]:
        """URLs of the engines."""
        return self.urls

    def list_jobs(self, scope: str) -> list[Job]:
        """The live containers of an engine that bear a claim, of any owner, and those never started."""
        url = self.engines.url_of(scope)
        return [job for job in self._list_claimed(url, None, {"label": [CLAIM]}, queued=True) if job.live]

    def why_copied(self, job: Job) -> str:
        """Why the container may be a copy of the one that was made under its claim."""
        inspection = self._inspect(self.engines.client(job.scope or self.urls[0]), job.id)
        return "" if inspection is None else why_copied(inspection)

    def list_removable(self, scope: str) -> list[Job]:
        """The ended containers of an engine that `auto_remove` asks to remove."""
        url = self.engines.url_of(scope)
        jobs = self._list_claimed(
            url, None, {"label": [AUTO_REMOVE], "status": ["created", "exited", "dead"]}
        )
        return [job for job in jobs if not job.live and job.facts.get("remove")]

    def list_ended(self, task_key: str) -> list[Job]:
        """The ended containers of a task instance that `auto_remove` asks to remove, on every engine."""
        jobs = [
            job
            for url in self.urls
            for job in self._list_claimed(url, None, {"label": [f"{TASK_KEY}={task_key}"]})
        ]
        return [job for job in jobs if not job.live and job.facts.get("remove")]

    def remove(self, job: Job) -> None:
        """Remove a container that has ended, with its anonymous volumes."""
        client = self.engines.client(job.scope or self.urls[0])
        if not self._remove_stopped(client, job.id):
            raise StateChanged(f"{job.id} is running and was not removed")

    def read_log(
        self, job: Job, where: Mapping[str, Any], cursor: Any
    ) -> tuple[list[tuple[float, str]], Any]:
        """Read the new lines of the container's log.

        :param cursor: the cursor that the previous call returned; anything else means the beginning.
        :return: ``(seconds since 1970, message)`` and the next cursor.
        """
        position = TimeCursor.read(cursor)
        since = f"{position.since // 10**9}.{position.since % 10**9:09d}"
        entries = []
        for entry in self._entries(job, since=since):
            entries.append(entry)
            if len(entries) >= position.count + _MAX_LINES_PER_READ:
                break
        position, lines = take_since(position, entries)
        return lines, asdict(position)

    def last_lines(self, job: Job, where: Mapping[str, Any], count: int) -> tuple[str, ...]:
        """Read the end of the container's log; all of it with a `count` of 0."""
        # The engine stores a line that is longer than 16 KB in pieces, and counts the pieces: if it answers
        # with few lines, one of them long, the first one may lack its beginning.
        for tail in (str(count + 20), str(count + 2000), "all") if count else ("all",):
            lines = [text for _, text in self._entries(job, tail=tail)]
            if len(lines) > count or max(map(len, lines), default=0) < _LONG_LINE:
                break
        return tuple(lines[-count:])

    def file(self, job: Job, path: str) -> bytes | None:
        """The content of a file in a container; ``None`` if it is empty or missing."""
        import tarfile
        from io import BytesIO

        from docker.errors import APIError

        try:
            chunks, about = self.engines.client(job.scope or self.urls[0]).get_archive(job.id, path)
        except APIError as error:
            if self.is_transient(error):
                raise
            return None
        if not about["size"]:
            return None
        with tarfile.open(fileobj=BytesIO(b"".join(chunks))) as archive:
            found = archive.extractfile(about["name"])
            return found.read() if found else None

    # --- internal: observe ---

    def _list_claimed(
        self, url: str, wanted: Container[str] | None, filters: Mapping[str, Any], *, queued: bool = False
    ) -> list[Job]:
        client = self.engines.client(url)
        jobs = []
        for listed in client.containers(all=True, filters=dict(filters)):
            claim = claim_of(listed.get("Labels") or {})
            if claim is None or (wanted is not None and str(claim) not in wanted):
                continue
            observed = self._observe_one(client, url, str(listed["Id"]), claim)
            jobs += [job for job in observed if queued or job.phase is not Phase.QUEUED]
        return jobs

    def _observe_one(self, client: Any, url: str, container: str, claim: Claim) -> list[Job]:
        inspection = self._inspect(client, container)
        return [] if inspection is None else [self._read(client, url, inspection, claim)]

    def _inspect(self, client: Any, container: str) -> Mapping[str, Any] | None:
        """Inspect a container by id or name; ``None`` if there is none."""
        from docker.errors import NotFound

        try:
            inspection: Mapping[str, Any] = client.inspect_container(container)
        except NotFound:
            return None
        return inspection

    def _read(self, client: Any, url: str, inspection: Mapping[str, Any], claim: Claim) -> Job:
        engine = self.engines.id_of(client, url)
        labels = (inspection.get("Config") or {}).get("Labels") or {}
        claim = with_generation(claim, labels)
        job = read_container(inspection, claim, scope=url, engine=engine)
        if not job.live and job.phase is not Phase.CANCELLED:
            killed, forgotten = self._find_who_ended_it(client, inspection)
            job = read_container(
                inspection,
                claim,
                scope=url,
                engine=engine,
                killed=killed,
                forgotten=forgotten
                and job.phase is Phase.SUCCEEDED
                and self._engine_may_have_stopped(client, inspection),
            )
        if UNATTENDED_LABEL in labels:
            job = replace(job, facts={**job.facts, UNATTENDED: True})
        if not job.live and should_remove(labels.get(AUTO_REMOVE), job):
            job = replace(job, facts={**job.facts, "remove": True})
        return job

    def _find_who_ended_it(self, client: Any, inspection: Mapping[str, Any]) -> tuple[str, bool]:
        """Who asked the engine to end a container, according to the events that it still has.

        :return: who, empty if unknown; and whether the engine has no events of the end at all.

        Exit code 0 is no evidence: a process that is stopped gracefully may return it, too. The engine keeps
        its last 256 events, and none from before its own start.
        Source: ``eventsLimit`` in ``daemon/events/events.go`` of moby.
        """
        created = read_time(inspection.get("Created")) or 0
        finished = read_time((inspection.get("State") or {}).get("FinishedAt")) or created
        # An event is recorded a moment after the signal was sent.
        since, until = (f"{at // 10**9}.{at % 10**9:09d}" for at in (created, finished + 10**9 // 2))
        only = json.dumps({"container": [inspection["Id"]], "event": ["kill", "stop", "die", "died"]})
        try:
            answer = self.engines.get(client, "/events", since=since, until=until, filters=only)
            # Bytes, because a text is split at more characters, which names and labels may contain.
            events = [json.loads(line) for line in answer.content.splitlines() if line.strip()]
        except Exception as error:
            if self.is_transient(error):
                raise
            log.debug("the events of the engine cannot be read: %s", error)
            return "", True
        for event in events:
            sent = str(((event.get("Actor") or {}).get("Attributes") or {}).get("signal") or "")
            if (event.get("Action") or event.get("status")) == "stop":
                return "somebody asked the engine to stop it", False
            if sent in ENDING_SIGNALS:
                return f"somebody asked the engine to end it (signal {sent})", False
        return "", not events

    def _engine_may_have_stopped(self, client: Any, inspection: Mapping[str, Any]) -> bool:
        """Whether the engine may have been stopped when a container ended or later; its stop ends containers.

        An engine without live-restore creates the network ``bridge`` again at each start.
        Source: ``initBridgeDriver`` in ``daemon/daemon_unix.go`` of moby.
        Verified: ``test_an_engine_that_takes_its_containers_along_does_not_make_them_a_success``.
        """
        from docker.errors import NotFound

        if is_podman(client) or client.info().get("LiveRestoreEnabled"):
            return False
        try:
            started = read_time(client.inspect_network("bridge").get("Created"))
        except NotFound:
            return True
        ended = read_time((inspection.get("State") or {}).get("FinishedAt"))
        return started is None or ended is None or ended < started

    # --- internal: submit ---

    def _quoted(self) -> tuple[str, ...]:
        """What the user wrote into the request: the engine and the registry may quote it in an error."""
        asked = (self.request.get(part) for part in ("name", "config", "host"))
        return tuple(values_of(tuple(asked), keys=True))

    def _create_or_adopt(self, client: Any, claim: Claim) -> str:
        """The id of a container that bears this claim's token, made or found."""
        request, token = self.request, claim.token
        name = request.get("name") or token
        labels = {
            **request.get("labels", {}),
            CLAIM: str(claim),
            TASK_KEY: claim.task_key,
            **({GENERATION: claim.generation} if claim.generation else {}),
            TOKEN: token,
            **({NAME: name} if name != token else {}),
            **({UNATTENDED_LABEL: "true"} if self.unattended else {}),
            TRY: str(request.get("try_number", "")),
            AUTO_REMOVE: str(request.get("auto_remove", "never")),
            STOPS_IN: str(request.get("stop_timeout", STOP_TIMEOUT)),
        }
        if request.get("force_pull"):
            self._pull(client)
        for _ in range(5):
            created = self._create(client, name, labels)
            if created is not None:
                return created
            holder = self._inspect(client, name)
            if holder is None:
                continue  # it was removed meanwhile
            conflict = on_name_conflict(holder, token, claim.task_key, labels[TRY])
            if conflict in ("adopt", "start"):
                self.log.info("the name %s is in use by the container of this claim", name)
                return str(holder["Id"])
            self._free_name(client, conflict, holder, name)
        raise StateChanged(f"the name {name} was in use at each of several attempts")

    def _create(self, client: Any, name: str, labels: Mapping[str, str]) -> str | None:
        """The id of a new container; ``None`` if the name is in use."""
        from docker.errors import APIError, ImageNotFound

        config = {**self.request["config"], "name": name}
        config["labels"] = {**(config.get("labels") or {}), **labels}
        for attempt in ("as it is", "pulled"):
            try:
                host = client.create_host_config(**self.request["host"])
                return str(client.create_container(**config, host_config=host)["Id"])
            except ImageNotFound as error:
                if attempt == "pulled" or "image" not in str(error.explanation).lower():
                    raise
                self._pull(client)
            except APIError as error:
                if is_name_taken(error):
                    return None
                raise
        return None

    def _free_name(self, client: Any, conflict: NameConflict, holder: Mapping[str, Any], name: str) -> None:
        """Free a name, if no live or foreign container has it."""
        labels = (holder.get("Config") or {}).get("Labels") or {}
        if conflict == "replace":
            self._remove_stopped(client, str(holder["Id"]))
        elif conflict == "move":
            old = f"{labels[TOKEN]}-{str(holder['Id'])[:12]}"
            self.log.info("renaming %s from %s to %s: the name is needed again", holder["Id"], name, old)
            client.rename(holder["Id"], old)
        elif conflict == "wait":
            raise StateChanged(f"{holder['Id']} of the same task instance still has the name {name}")
        elif conflict == "busy":
            owner = " / ".join(
                str(labels.get(f"{LABEL_PREFIX}.{part}")) for part in ("dag_id", "run_id", "task_id")
            )
            raise NoCapacity(
                f"the container name {name} is in use by {owner}, which is still running. Leave "
                "container_name out, or make it unique with a template such as {{ ts_nodash }}"
            )
        else:
            raise SubmitRefused(
                f"the container name {name} is in use by {holder['Id']}, which Airflow did not make. Remove "
                "that container, or leave container_name out"
            )

    def _start(self, client: Any, url: str, container: str, claim: Claim) -> Job:
        from docker.errors import APIError, NotFound

        inspection = self._inspect(client, container)
        if inspection is None:
            raise StateChanged(f"{container} was removed before it was started")
        if read_container(inspection, claim).phase is Phase.QUEUED:
            refusal: APIError | None = None
            self._open_tmp_dir(client, inspection)
            try:
                client.start(container)
            except NotFound as error:
                raise StateChanged(f"{container} was removed before it was started") from error
            except APIError as error:
                refusal = error
            inspection = self._inspect(client, container)
            if inspection is None:
                raise StateChanged(f"{container} was removed as soon as it was started") from refusal
            if refusal is not None and read_container(inspection, claim).phase is Phase.QUEUED:
                self._refuse_start(client, container, refusal)
                raise refusal  # the engine did not record the attempt
        return self._read(client, url, inspection, claim)

    def _open_tmp_dir(self, client: Any, inspection: Mapping[str, Any]) -> None:
        """Let a user other than root write to the volume for temporary files, which belongs to root.

        Before the start, because the image need not have a program that can do it.
        Verified: ``test_an_image_that_does_not_run_as_root_can_write_temporary_files``.
        """
        import tarfile
        from io import BytesIO

        from docker.errors import APIError

        user = str((inspection.get("Config") or {}).get("User") or "").partition(":")[0]
        path = str(self.request.get("tmp_dir") or "").strip("/")
        if not path or user in ("", "0", "root"):
            return
        packed = BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            folder = tarfile.TarInfo(path)
            folder.type, folder.mode = tarfile.DIRTYPE, OPEN_TO_ALL
            archive.addfile(folder)
        try:
            client.put_archive(str(inspection["Id"]), "/", packed.getvalue())
        except APIError as error:
            self.log.warning(
                "the user %s may be unable to write to /%s: %s",
                user,
                path,
                shorten(str(error.explanation), 200),
            )

    def _refuse_start(self, client: Any, container: str, error: Any) -> None:
        """Raise the error for a command that cannot run, which Docker records as the end of the container.

        Verified with podman 4.3.1: its answer has the status 500, and the container stays as it was made.
        Source of the texts: ``libpod/define/errors.go`` of podman.
        """
        answer = str(error.explanation or error)
        if says(answer, _COMMAND_NOT_FOUND, self._quoted()):
            self._remove_stopped(client, container)
            image = self.request.get("config", {}).get("image")
            message = shorten(self.hide(answer), 300)
            # Not from the engine's error: a traceback would show the redacted values.
            raise SubmitRefused(
                f"the engine cannot start {image}: {message}. Check image, command and entrypoint"
            ) from None

    def _pull(self, client: Any) -> None:
        """Pull the image, with the login of `docker_conn_id` if it is set."""
        image = str(self.request["config"]["image"])
        self.log.info("pulling %s", image)
        logged: dict[str, str] = {}
        for message in self._client_for_pull(client).pull(image, stream=True, decode=True):
            if not isinstance(message, Mapping):
                continue
            if message.get("error"):
                self._raise_pull_error(image, str(message["error"]))
            part, status = str(message.get("id") or ""), str(message.get("status") or "")
            if status and logged.get(part) != status:
                logged[part] = status
                self.log.info("%s", f"{part}: {status}" if part else status)

    def _raise_pull_error(self, image: str, message: str) -> None:
        if says(message, _TRANSIENT_REGISTRY_ERROR, self._quoted()):
            raise EngineUnreachable(f"{image} could not be pulled: {shorten(message, 200)}")
        raise SubmitRefused(
            f"{image} cannot be pulled: {shorten(message, 300)} Check image and docker_conn_id, or pull it "
            "on the engine's host"
        )

    def _client_for_pull(self, client: Any) -> Any:
        """A client that is logged in with `docker_conn_id`, if it is set."""
        conn_id = self.request.get("docker_conn_id")
        if not conn_id:
            return client
        return self.engines.logged_in(client, conn_id)

    def hide(self, text: str) -> str:
        """`text` without values of the request that may be secrets, because the engine quotes the request."""
        return redact(text, self.request.get("secrets", ()))

    def _raise_refusal(self, error: Exception) -> None:
        """Raise the error for a refusal, unless it is transient or not an answer of the engine."""
        from docker.errors import APIError

        if not isinstance(error, APIError):
            return
        raw = str(error.explanation or error)  # a value of the request may be a word that decides
        message = shorten(self.hide(raw), 400)
        image = self.request.get("config", {}).get("image")
        if says(raw, _CAPACITY_ERROR, self._quoted()):
            raise NoCapacity(f"the engine cannot run {image} now: {message}") from None
        if not self.is_transient(error):
            status = error.response.status_code if error.response is not None else "no status"
            if says(raw, _TRANSIENT_REGISTRY_ERROR, self._quoted()) and "pull" in raw:
                raise EngineUnreachable(f"{image} could not be pulled: {message}") from None
            raise SubmitRefused(
                f"the engine refuses to run {image}: {message} ({status}). Correct what it names.",
                {"Error": {"Code": str(status), "Message": message}},
            ) from None

    # --- internal: stop ---

    def _stop(self, client: Any, inspection: Mapping[str, Any]) -> None:
        """Ask the engine to stop a container, and wait for a limited time.

        The engine answers when the container has stopped. The request runs in a thread, so that a container
        with a long grace period is stopped undisturbed after the wait.
        """
        labels = (inspection.get("Config") or {}).get("Labels") or {}
        grace = small_number(labels.get(STOPS_IN), STOP_TIMEOUT)
        errors: list[Exception] = []

        def stop() -> None:
            try:
                self._request_stop(client, str(inspection["Id"]), grace, str(labels.get(TOKEN) or ""))
            except Exception as error:  # noqa: BLE001 - raised in the thread that waits
                errors.append(error)

        thread = threading.Thread(target=stop, daemon=True, name="airflow-resilient-docker-stop")
        thread.start()
        thread.join(_MAX_STOP_SECONDS)
        if errors:
            raise errors[0]

    def _request_stop(self, client: Any, container: str, grace: int, token: str) -> None:
        import requests
        from docker.errors import APIError, create_api_error_from_http_exception

        url = f"{client.base_url}/v{client.api_version}/containers/{container}"
        answer = client.post(f"{url}/stop", params={"t": grace}, timeout=self.engines.timeout + grace)
        if answer.status_code in (304, 404):
            return  # it has ended by itself, or was removed
        try:
            answer.raise_for_status()
        except requests.exceptions.HTTPError as error:
            raise create_api_error_from_http_exception(error) from error
        try:  # the engine forgets events, but not names
            client.rename(container, f"{token}{CANCELLED}")
        except APIError as error:
            log.debug("%s cannot be renamed: %s", container, error)

    def _remove_stopped(self, client: Any, container: str) -> bool:
        """Remove a container that is not running; ``False`` if it is running."""
        from docker.errors import APIError, NotFound

        try:
            client.remove_container(container, v=True)
        except NotFound:
            return True
        except APIError as error:
            if error.response is not None and error.response.status_code == 409:  # noqa: PLR2004 - it runs, or is being removed
                return says(str(error.explanation), "removal .*in progress")
            raise
        return True

    # --- internal: logs ---

    def _entries(self, job: Job, **params: Any) -> Iterator[tuple[int, str]]:
        """Lines of a log with their times in nanoseconds since 1970.

        The last line of a running container may be incomplete: it is left for the next read.
        """
        client = self.engines.client(job.scope or self.urls[0])
        path = f"/containers/{job.id}/logs"
        answer = self.engines.get(client, path, stream=True, stdout=1, stderr=1, timestamps=1, **params)
        try:
            yield from entries(answer.iter_content(1 << 16), ended=not job.live)
        finally:
            answer.close()
