"""Read the answers of Amazon ECS. Pure functions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from ...core.job import NO_CLAIM, Cause, Job, Phase
from ...core.text import MAX_REASON_CHARS, describe_exit_code, redact, says, shorten
from .request import secrets_of

if TYPE_CHECKING:
    from ...core.job import Claim


def stream_name(prefix: str, container: str, task_id: str) -> str:
    """Name of the stream that ECS's ``awslogs`` driver writes; a prefix may contain the container already.

    Source: ECS developer guide, ``awslogs-stream-prefix``: ``prefix-name/container-name/ecs-task-id``.

    >>> stream_name("ecs", "main", "0123"), stream_name("ecs/main", "main", "0123")
    ('ecs/main/0123', 'ecs/main/0123')
    """
    if prefix.endswith(f"/{container}"):
        return f"{prefix}/{task_id}"
    return f"{prefix}/{container}/{task_id}"


# Patterns are compiled at their first use, because most processes only parse DAG files.

CLUSTER, TASK_DEFINITION, TASK = (
    r"(?!None$)[\w-]{1,255}|arn:[^\s{}]+:cluster/[\w-]+",
    r"(?!None$)[\w-]{1,255}(:\d+)?|arn:[^\s{}]+:task-definition/[\w-]+(:\d+)?",
    r"(?!None$)[\w-]{1,255}|arn:[^\s{}]+:task/[\w/-]+",
)
"""What ECS takes for a cluster, a task definition and a task; ``None`` is a template without a value.

Source: CreateCluster, RegisterTaskDefinition and Task in the API reference: letters, numbers, underscores and
hyphens.
"""

_NOT_STARTED = ("PROVISIONING", "PENDING", "ACTIVATING")

# Source: Task in the API reference, ``stopCode``; ECS developer guide, "Stopped tasks error codes".
_TAKEN_AWAY = ("SpotInterruption", "TerminationNotice", "InfrastructureHealth")

# Comes without a stop code, and with any exit codes of the containers.
# Source: ECS developer guide, "Stopped tasks error messages"; Fargate task maintenance.
_HOST_LOST = (
    r"Host EC2 \(instance .+?\) (stopped|terminated)|performing maintenance on the underlying infrastructure"
)

# Errors with which a task that did not start, or lost its containers, may start elsewhere or a minute later.
# Source: ECS developer guide, "Stopped tasks error messages" (ResourceInitializationError, ENI, capacity,
# CannotPullContainerError, container timeouts); aws/amazon-ecs-agent issue 4825; Airflow issue 15000.
_TRANSIENT_ERROR = (
    r"(?i)timeout waiting for .{0,40}provisioning"
    r"|i/o timeout|context deadline exceeded|TLS handshake timeout|Client\.Timeout|request canceled"
    r"|connection reset by peer|connection timed out|unexpected EOF"
    r"|\btoomanyrequests:|too many requests|pull rate limit|rate exceeded"
    r"|(?-i:\bThrottling(Exception)?\b(?=[:)]|$)|\bRequestLimitExceeded\b(?=[:).]|$))"
    r"|(ContainerRuntime|Docker)TimeoutError|timed out after waiting"
    r"|capacity is unavailable|InsufficientInstanceCapacity|InsufficientFreeAddresses"
    r"|(?-i:\bRESOURCE:[A-Z]+\b)"
    r"|\b(http|status)[a-z ]*:? 5\d\d\b|\bInternalServerError\b|internal server error|service unavailable"
)

# Rules out the above, whatever else the text names: a denial does not pass by itself.
# Source: ECS developer guide, "ResourceInitializationError"; aws/containers-roadmap issue 1332.
_ACCESS_DENIED = r"(?i)\bAccessDenied|\bis not authorized to perform\b|\bunable to assume the role\b"

_OUT_OF_MEMORY = r"(?i)\bOutOfMemory(Error)?\b"

# Names of the user that ECS writes without marks.
_BARE_NAMES = r"(?i)\b(on resource:|ssm parameters:|json key) +[^\s,]+(, *[^\s,]+)*"


class _Container(NamedTuple):
    name: str
    code: int | None
    reason: str

    def __str__(self) -> str:
        """The end of the container, as part of a sentence."""
        why = f" ({shorten(self.reason, 120)})" if self.reason else ""
        return f"container {self.name}: {describe_exit_code(self.code)}{why}"


class _End(NamedTuple):
    phase: Phase
    cause: Cause
    advice: str


def read_task(
    task: Mapping[str, Any], claim: Claim, essential: frozenset[str] | None = None, *, now: float = 0.0
) -> Job:
    """Read one element of DescribeTasks' ``tasks``.

    :param task: ``{"taskArn": str, "lastStatus": str, "stopCode": str, "containers": [{"name": str,
        "exitCode": int}], ...}``.
    :param essential: names of the essential containers; ``None``: all of them are.
    :param now: time of creation, in seconds since 1970, for a task without ``createdAt``, which is optional.
    :return: SUCCEEDED only if there is an essential container, all of them report exit code 0, and no stop
        code contradicts this. An unknown stop code is not a success.
    """
    containers = [
        _Container(str(each.get("name", "")), each.get("exitCode"), str(each.get("reason") or ""))
        for each in task.get("containers") or ()
    ]
    status, stop_code = str(task.get("lastStatus") or ""), str(task.get("stopCode") or "")
    if claim != NO_CLAIM:
        claim = replace(claim, generation=generation_of_task(task))
    job = Job(
        id=str(task["taskArn"]),
        claim=claim,
        phase=Phase.RUNNING,
        created=_seconds(task.get("createdAt"), now),
        scope=str(task.get("clusterArn") or ""),
        facts={
            "containers": [[each.name, each.code] for each in containers[:20]],
            "last_status": status,
            "stop_code": stop_code or None,
            "task_definition": task.get("taskDefinitionArn"),
        },
    )
    if status != "STOPPED":
        stopping = task.get("desiredStatus") == "STOPPED"
        live = Phase.QUEUED if status in _NOT_STARTED else Phase.RUNNING
        return replace(job, phase=Phase.STOPPING if stopping else live)
    # A reason may quote the overrides: 'exec: "…": executable file not found'.
    secrets = tuple(secrets_of({"overrides": task.get("overrides")}))
    judged = [each for each in containers if essential is None or each.name in essential]
    stopped_reason = str(task.get("stoppedReason") or "")
    end = _read_end(judged, stop_code, stopped_reason)
    code = 0 if end.phase is Phase.SUCCEEDED else next((each.code for each in judged if each.code), None)
    return replace(
        job,
        phase=end.phase,
        cause=end.cause,
        exit_code=code,
        ended=_seconds(task.get("stoppedAt"), None),
        reason=""
        if end.phase is Phase.SUCCEEDED
        else _reason(
            [each._replace(reason=redact(each.reason, secrets)) for each in judged],
            stop_code,
            redact(stopped_reason, secrets),
            end,
        ),
    )


_EVENT = ("aws.ecs", "ECS Task State Change")
_TIMES = ("createdAt", "stoppedAt")  # those that `read_task` reads


def ended_task(line: str) -> Mapping[str, Any] | None:
    """The task in an event "ECS Task State Change", in the form of DescribeTasks' ``tasks``, for `read_task`.

    :param line: the event as EventBridge writes it into a log group. Its ``detail`` is the task as
        DescribeTasks shows it, ``overrides`` with their environment included, but with times as ISO texts.
    :return: ``None`` for another event, and for an event that does not say that the task has stopped: the
        task may have ended since, either way.
    :raises ValueError: the line is no whole event.

    Source: "Amazon ECS task state change events" in the ECS developer guide.
    """
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if isinstance(event, Mapping) and event.get("taskArn"):
        raise ValueError("it is only the detail of an event, as a rule with InputPath $.detail writes it")
    if not isinstance(event, Mapping) or not isinstance(event.get("detail"), Mapping):
        raise ValueError("it is not an event")  # noqa: TRY004 - a line that cannot be read, as above
    if (event.get("source"), event.get("detail-type")) != _EVENT:
        return None
    task = event["detail"]
    if task.get("lastStatus") != "STOPPED":
        return None
    if not isinstance(task.get("taskArn"), str) or not _has_shape(task):
        raise ValueError("its detail is not an ECS task")
    return {**task, **{name: _moment(task.get(name)) for name in _TIMES}}


def _has_shape(task: Mapping[str, Any]) -> bool:
    """Whether what `read_task` reads has the types that it has in DescribeTasks."""
    containers = task.get("containers") or []
    overrides = task.get("overrides") or {}
    named = (overrides.get("containerOverrides") or []) if isinstance(overrides, Mapping) else None
    lists = all(
        isinstance(each, list) and all(isinstance(item, Mapping) for item in each)
        for each in (containers, named)
    )
    if not lists:
        return False
    variables = [each.get("environment") or [] for each in named or ()]
    codes = [each.get("exitCode") for each in containers]
    return all(code is None or type(code) is int for code in codes) and all(
        isinstance(each, list) and all(isinstance(item, Mapping) for item in each) for each in variables
    )


def _moment(text: Any) -> datetime | None:
    """An ISO time of an event, with any number of digits after the point: ``2026-01-01T00:05:00.71Z``."""
    found = (
        re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z", text) if isinstance(text, str) else None
    )
    if found is None:
        return None
    try:
        whole = datetime.fromisoformat(found[1]).replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    return whole + timedelta(seconds=float(found[2] or 0.0))


def latest_of_each(tasks: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One description of each task: events come twice, and in any order; a later one has a greater version.

    Source: "Amazon ECS events" in the ECS developer guide, ``version`` in ``detail``.

    >>> latest_of_each([{"taskArn": "a", "version": 4}, {"taskArn": "a", "version": 3}])
    [{'taskArn': 'a', 'version': 4}]
    """
    latest: dict[str, Mapping[str, Any]] = {}
    for task in tasks:
        before = latest.get(task["taskArn"])
        if before is None or _version(task) >= _version(before):
            latest[task["taskArn"]] = task
    return list(latest.values())


def _version(task: Mapping[str, Any]) -> int:
    version = task.get("version")
    return version if type(version) is int else 0


GENERATION = "AIRFLOW_RESILIENT_GENERATION"
"""Environment variable of one container, in RunTask's overrides, with the generation of the submitting try.

``startedBy`` must be searched as a whole, and tags do not outlive the task. Overrides are described as long
as the task itself. Source: Task in the API reference, ``overrides``.
"""


def generation_of_task(task: Mapping[str, Any]) -> str:
    """The generation in an element of DescribeTasks' ``tasks``; empty if it has none."""
    return next(
        (
            str(variable.get("value") or "")
            for variable in _environment(task)
            if variable.get("name") == GENERATION
        ),
        "",
    )


def _environment(task: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The variables of all container overrides of a task."""
    for override in (task.get("overrides") or {}).get("containerOverrides") or ():
        yield from override.get("environment") or ()


def with_generation(
    overrides: Mapping[str, Any] | None, generation: str, container: str | None
) -> dict[str, Any] | None:
    """RunTask's ``overrides`` with the generation; unchanged if there is no container to tell it.

    :param container: the container to override if `overrides` name none.

    >>> with_generation({}, "4.3", "main")["containerOverrides"]
    [{'name': 'main', 'environment': [{'name': 'AIRFLOW_RESILIENT_GENERATION', 'value': '4.3'}]}]
    """
    changed = dict(overrides or {})
    containers = changed.get("containerOverrides") or ([{"name": container}] if container else [])
    if not generation or not containers or not isinstance(containers, list | tuple):
        return changed or None
    first, *others = containers
    variables = first.get("environment") or [] if isinstance(first, Mapping) else None
    if not isinstance(variables, list | tuple):
        return changed  # boto3 says what is wrong with it
    first = {**first, "environment": [*variables, {"name": GENERATION, "value": generation}]}
    return {**changed, "containerOverrides": [first, *others]}


_TASK_FIELDS = (
    "taskArn",
    "clusterArn",
    "taskDefinitionArn",
    "startedBy",
    "lastStatus",
    "desiredStatus",
    "createdAt",
    "stoppedAt",
    "stopCode",
    "stoppedReason",
)
_CONTAINER_FIELDS = ("name", "exitCode", "reason")
"""What `read_task` and its callers read."""


def _kept_fields(task: Mapping[str, Any]) -> Iterator[str]:
    """The fields to keep; the overrides only of an ended task, whose reason may quote them."""
    yield from _TASK_FIELDS
    if task.get("lastStatus") == "STOPPED":
        yield "overrides"


def trim_tasks(body: bytes) -> bytes:
    """Reduce DescribeTasks' answer to what `read_task` reads: a fifth of it.

    >>> trim_tasks(b'{"tasks": [{"taskArn": "a", "cpu": "1", "containers": [{"name": "b", "cpu": "0"}]}]}')
    b'{"tasks": [{"taskArn": "a", "containers": [{"name": "b"}]}]}'
    """
    answer = json.loads(body)
    answer["tasks"] = [
        {
            **_trimmed_overrides(task),
            **{name: task[name] for name in _kept_fields(task) if name in task},
            "containers": [
                {name: each[name] for name in _CONTAINER_FIELDS if name in each}
                for each in task.get("containers") or ()
            ],
        }
        for task in answer["tasks"]
    ]
    return json.dumps(answer).encode()


def _trimmed_overrides(task: Mapping[str, Any]) -> dict[str, Any]:
    """The generation, and nothing else of the overrides, which may be thousands of characters."""
    kept = with_generation({}, generation_of_task(task), "any")
    return {"overrides": kept} if kept else {}


def _read_end(judged: Sequence[_Container], stop_code: str, stopped_reason: str) -> _End:  # noqa: PLR0911 - a table of rules
    """Classify the end of a stopped task. The first rule that matches applies."""
    failed = [each for each in judged if each.code]
    names = [each.name for each in judged]
    reasons = [
        re.sub(_BARE_NAMES, r"\1 …", reason) for reason in (stopped_reason, *(each.reason for each in judged))
    ]
    denied = any(says(reason, _ACCESS_DENIED, names) for reason in reasons)
    passes = not denied and any(says(reason, _TRANSIENT_ERROR, names) for reason in reasons)
    application = _End(Phase.FAILED, Cause.APPLICATION, "See the log of the container.")
    elsewhere = _End(Phase.FAILED, Cause.INFRASTRUCTURE, "This is transient: it may succeed elsewhere.")
    if stop_code == "UserInitiated":  # a container that stops gracefully reports exit code 0
        return _End(Phase.CANCELLED, Cause.USER, "")
    if stop_code in _TAKEN_AWAY or says(stopped_reason, _HOST_LOST, names):
        return elsewhere
    if stop_code == "TaskFailedToStart":
        if passes:
            return elsewhere
        if failed:
            return application
        if denied:
            return _End(Phase.FAILED, Cause.UNKNOWN, "It never ran: give the task's roles what is denied.")
        return _End(Phase.FAILED, Cause.UNKNOWN, "It never ran: fix what the reason names.")
    if stop_code not in ("", "EssentialContainerExited"):
        return _End(Phase.FAILED, Cause.UNKNOWN, "This stop code does not show whether the work was done.")
    if failed:
        if any(says(each.reason, _OUT_OF_MEMORY, names) for each in failed):
            return application._replace(advice="Give the container more memory in the task definition.")
        return application
    if judged and all(each.code == 0 for each in judged):
        return _End(Phase.SUCCEEDED, Cause.UNKNOWN, "")
    if passes:
        return elsewhere
    return _End(Phase.FAILED, Cause.UNKNOWN, "Whether the work was done is unknown: check its output.")


def _reason(judged: Sequence[_Container], stop_code: str, stopped_reason: str, end: _End) -> str:
    """Name container, exit code, stop code, stopped reason, and what to do, in at most 500 characters."""
    worst = next((each for each in judged if each.code), None)
    worst = worst or next((each for each in judged if each.code is None), None)
    parts = [
        str(worst) if worst else "" if judged else "no container",
        f"stop code {stop_code}" if stop_code else "no stop code",
        shorten(stopped_reason, 200),
    ]
    text = "; ".join(part for part in parts if part)
    return shorten(f"{text}. {end.advice}" if end.advice else text, MAX_REASON_CHARS)


def _seconds(moment: Any, default: Any) -> Any:
    """Seconds since 1970 of boto3's ``datetime``; `default` for ``None``."""
    return default if moment is None else float(moment.timestamp())


def container_of(
    job: Job, where: Mapping[str, Any], definitions: Sequence[Mapping[str, Any]] | None = None
) -> str | None:
    """Name of the container whose log is wanted; ``None`` while that is unknown.

    DescribeTasks lists containers in no order, with sidecars that AWS adds (GuardDuty's agent), so the first
    one there means nothing where there are several. Source: Airflow issue 43138.

    :param where: ``{"container": str | None, "prefix": str, "group": str, ...}``.
    :param definitions: ``containerDefinitions`` of the task definition; ``None``: not looked up.
    :return: the one that `where` names; else the only one; else the one that the prefix names as its last
        part; else, by the task definition, the first one that writes to this group with this prefix, or the
        first.
    """
    names = [name for name, _ in job.facts.get("containers") or ()]
    if where.get("container"):
        return str(where["container"])
    if len(names) == 1:
        return str(names[0])
    parent, _, last = str(where["prefix"]).rpartition("/")
    defined = [str(each["name"]) for each in definitions or ()]
    if parent and last in (*names, *defined):
        return last
    for each in definitions or ():
        log = each.get("logConfiguration") or {}
        options = log.get("options") or {}
        written = (options.get("awslogs-group"), options.get("awslogs-stream-prefix"))
        if log.get("logDriver") == "awslogs" and written == (where["group"], where["prefix"]):
            return str(each["name"])
    return next(iter(defined), None)


def log_stream(
    job: Job, where: Mapping[str, Any], definitions: Sequence[Mapping[str, Any]] | None = None
) -> str | None:
    """Name of the log stream of `job`; ``None`` while the container is unknown; see `container_of`."""
    container = container_of(job, where, definitions)
    return stream_name(where["prefix"], container, task_id_of(job.id)) if container else None


def task_id_of(arn: str) -> str:
    """The id of an ECS task, from the id or the ARN."""
    return arn.rpartition("/")[2]


def region_of_arn(arn: str, default: str | None) -> str:
    """The region in an ARN; `default` for a plain id."""
    parts = arn.split(":")
    return parts[3] if len(parts) > 3 else default or ""  # noqa: PLR2004 - arn:PARTITION:ecs:REGION:...


def cluster_name(job: Job, default: str) -> str:
    """Name of the cluster, from the task's ARN ``arn:...:task/CLUSTER/ID``, its scope or `default`."""
    parts = job.id.split("/")
    return parts[1] if len(parts) > 2 else task_id_of(job.scope or default)  # noqa: PLR2004
