"""Amazon ECS tasks: run them, wait for them, read how they ended.

The claim stands in ``startedBy``, which ListTasks finds exactly, and in ``clientToken``, with which RunTask
gives back the task that it has started already. `read_task` says what a look means; `EcsTasks` asks AWS.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from .aws import AwsAccess, error_code, is_denied, is_throttle, say
from .budget import Budget, SharedBucket
from .compat import AirflowFailException, AirflowSkipException
from .errors import (
    JobError,
    JobFailed,
    NoCapacity,
    NotSubmitted,
    SubmitRefused,
    Unobservable,
)
from .jobs import Cause, Claim, Job, Phase
from .links import EcsTaskLink, EcsTaskLogsLink
from .logs import last_lines, read_stream, stream_name
from .operators import LogTail, RemoteJobOperator, RemoteJobSensor, error_of
from .parameters import (
    DEFAULT_DEFERRABLE,
    access_of,
    codes_of,
    looks_every,
    may_change,
    one_region,
    reject,
    reject_hidden,
    require_codes,
    say_instead,
)
from .settings import Usual
from .words import LONGEST_REASON, exit_code_in_words, short, without

if TYPE_CHECKING:
    from airflow.sdk import Context

    from .watch import Patience

_AT_ONCE = 100
"""Source: DescribeTasks reference: "A list of up to 100 task IDs or full ARN entries"."""
_YOUNG = 600.0
"""Seconds for which a task that AWS does not know may simply not be known yet.

Source: RunTask reference: wait "gradually up to about five minutes" for a new task to be known everywhere.
"""

# --- what a look means --------------------------------------------------------------------------
# Patterns are compiled at their first use: most processes only parse DAG files.

_NOT_STARTED = ("PROVISIONING", "PENDING", "ACTIVATING")
# Source: Task in the API reference, ``stopCode``; ECS developer guide, "Stopped tasks error codes".
_TAKEN_AWAY = ("SpotInterruption", "TerminationNotice", "InfrastructureHealth")
# Comes without a stop code, and with whatever exit codes the containers had.
# Source: ECS developer guide, "Stopped tasks error messages"; Fargate task maintenance.
_HOST_LOST = (
    r"Host EC2 \(instance .+?\) (stopped|terminated)|performing maintenance on the underlying infrastructure"
)
# Why a task that did not start, or lost its containers, may well start elsewhere or a minute later.
# Source: ECS developer guide, "Stopped tasks error messages" (ResourceInitializationError, ENI, capacity,
# CannotPullContainerError, container timeouts); aws/amazon-ecs-agent issue 4825; Airflow issue 15000.
_PASSES = (
    r"(?i)timeout waiting for .{0,40}provisioning"
    r"|i/o timeout|context deadline exceeded|TLS handshake timeout|Client\.Timeout|request canceled"
    r"|connection reset by peer|connection timed out|unexpected EOF"
    r"|toomanyrequests|too many requests|pull rate limit|rate exceeded|Throttling|RequestLimitExceeded"
    r"|(ContainerRuntime|Docker)TimeoutError|timed out after waiting"
    r"|capacity is unavailable|InsufficientInstanceCapacity|InsufficientFreeAddresses|RESOURCE:"
    r"|(http|status)[a-z ]*:? 5\d\d|InternalServerError|internal server error|service unavailable"
)
_OUT_OF_MEMORY = r"(?i)OutOfMemory"


class _Container(NamedTuple):
    name: str
    code: int | None
    reason: str

    def __str__(self) -> str:
        """What became of it, as part of a sentence."""
        why = f" ({short(self.reason, 120)})" if self.reason else ""
        return f"container {self.name}: {exit_code_in_words(self.code)}{why}"


class _End(NamedTuple):
    phase: Phase
    cause: Cause
    advice: str


def read_task(
    task: Mapping[str, Any], claim: Claim, essential: frozenset[str] | None = None, *, now: float = 0.0
) -> Job:
    """Say what one element of DescribeTasks' ``tasks`` means.

    :param task: ``{"taskArn": str, "lastStatus": str, "stopCode": str, "containers": [{"name": str,
        "exitCode": int}], ...}``.
    :param essential: names of the essential containers; ``None``: all of them are.
    :param now: when it was created, in seconds since 1970, for a task that does not say so (``createdAt`` is
        optional).
    :return: SUCCEEDED only if every essential container reports exit code 0, there is one, and no stop code
        says otherwise. A stop code that is not known is no success.
    """
    containers = [
        _Container(str(each.get("name", "")), each.get("exitCode"), str(each.get("reason") or ""))
        for each in task.get("containers") or ()
    ]
    status, stop_code = str(task.get("lastStatus") or ""), str(task.get("stopCode") or "")
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
    judged = [each for each in containers if essential is None or each.name in essential]
    stopped_reason = str(task.get("stoppedReason") or "")
    end = _end(judged, stop_code, stopped_reason)
    code = 0 if end.phase is Phase.SUCCEEDED else next((each.code for each in judged if each.code), None)
    return replace(
        job,
        phase=end.phase,
        cause=end.cause,
        exit_code=code,
        ended=_seconds(task.get("stoppedAt"), None),
        reason="" if end.phase is Phase.SUCCEEDED else _reason(judged, stop_code, stopped_reason, end),
    )


_READ = (
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
_READ_OF_CONTAINER = ("name", "exitCode", "reason")
"""What `read_task` reads, and who asks for it."""


def trim_tasks(body: bytes) -> bytes:
    """Leave of DescribeTasks' answer what `read_task` reads: a fifth of it.

    >>> trim_tasks(b'{"tasks": [{"taskArn": "a", "cpu": "1", "containers": [{"name": "b", "cpu": "0"}]}]}')
    b'{"tasks": [{"taskArn": "a", "containers": [{"name": "b"}]}]}'
    """
    answer = json.loads(body)
    answer["tasks"] = [
        {
            **{name: task[name] for name in _READ if name in task},
            "containers": [
                {name: each[name] for name in _READ_OF_CONTAINER if name in each}
                for each in task.get("containers") or ()
            ],
        }
        for task in answer["tasks"]
    ]
    return json.dumps(answer).encode()


def _end(judged: Sequence[_Container], stop_code: str, stopped_reason: str) -> _End:
    """Say how a stopped task ended. The first rule that fits counts."""
    failed = [each for each in judged if each.code]
    reasons = " ".join((stopped_reason, *(each.reason for each in judged)))
    application = _End(Phase.FAILED, Cause.APPLICATION, "The log of the container tells more.")
    elsewhere = _End(Phase.FAILED, Cause.INFRASTRUCTURE, "This passes: it is run again elsewhere.")
    if stop_code == "UserInitiated":  # a container that stops gracefully reports exit code 0
        return _End(Phase.CANCELLED, Cause.USER, "")
    if stop_code in _TAKEN_AWAY or re.search(_HOST_LOST, stopped_reason):
        return elsewhere
    if stop_code == "TaskFailedToStart":
        if re.search(_PASSES, reasons):
            return elsewhere
        if failed:
            return application
        return _End(Phase.FAILED, Cause.UNKNOWN, "It never ran; mend what the reason names.")
    if stop_code not in ("", "EssentialContainerExited"):
        return _End(Phase.FAILED, Cause.UNKNOWN, "This stop code does not tell whether the work was done.")
    if failed:
        if any(re.search(_OUT_OF_MEMORY, each.reason) for each in failed):
            return application._replace(advice="Give the container more memory in the task definition.")
        return application
    if judged and all(each.code == 0 for each in judged):
        return _End(Phase.SUCCEEDED, Cause.UNKNOWN, "")
    if re.search(_PASSES, reasons):
        return elsewhere
    return _End(Phase.FAILED, Cause.UNKNOWN, "Whether the work was done is not known: look at its output.")


def _reason(judged: Sequence[_Container], stop_code: str, stopped_reason: str, end: _End) -> str:
    """Name container, exit code, stop code, stopped reason, and what to do, in at most 500 characters."""
    worst = next((each for each in judged if each.code), None)
    worst = worst or next((each for each in judged if each.code is None), None)
    parts = [
        str(worst) if worst else "" if judged else "no container",
        f"stop code {stop_code}" if stop_code else "no stop code",
        short(stopped_reason, 200),
    ]
    text = "; ".join(part for part in parts if part)
    return short(f"{text}. {end.advice}" if end.advice else text, LONGEST_REASON)


def _seconds(moment: Any, otherwise: Any) -> Any:
    """Turn boto3's ``datetime`` into seconds since 1970."""
    return otherwise if moment is None else float(moment.timestamp())


# --- the service --------------------------------------------------------------------------------

# Why RunTask takes no task now but may later; agents disconnect several times an hour as a matter of course.
# Source: ECS developer guide, "API failure reasons" and "Amazon ECS events".
_NO_ROOM_FAILURE = r"(?i)RESOURCE|AGENT|capacity|limit"
# The same said by an error of unspecific code, so that only the text tells.
# Source: Airflow issue 48001 for Fargate, aws/aws-sdk-ruby issue 3047 for capacity providers,
# wellcomecollection/platform issue 3875 for Fargate's quota.
_NO_ROOM_ERROR = (
    r"(?i)capacity is unavailable|reached the limit on the number|capacity limit exceeded|provisioning state"
    r"|No Container Instances were found"
)
# A throttle of EC2 that ECS wraps into InvalidParameterException. Source: dask/dask-cloudprovider issue 56.
_THROTTLED = r"(?i)RequestLimitExceeded|Request limit exceeded|Rate exceeded"
_ADVICE = {
    "AccessDeniedException": "Allow ecs:RunTask on the task definition and iam:PassRole on its roles.",
    "ClusterNotFoundException": "Check cluster, region_name and aws_conn_id.",
    "ClientException": "Check task_definition and region_name.",
    "InvalidParameterException": "Check the parameter that AWS names.",
}


class _NotKnownYet(Exception):
    """A young task that AWS does not know yet."""


class EcsTasks:
    """Run one ECS task per claim.

    :param aws_conn_id: Airflow connection; this and the next three are the amazon provider's parameters.
    :param cluster: name or ARN of the cluster in which tasks are looked for and started.
    :param request: keywords for boto3's ``run_task`` but ``cluster``, ``count``, ``startedBy`` and
        ``clientToken``.
    """

    listing_lag = 5.0
    batch_size = _AT_ONCE
    kind = "ecs"
    # Source: ECS API reference, "Request throttling for the Amazon ECS API": cluster reads.
    budget = Budget(
        "ecs:DescribeTasks",
        per_second=20.0,
        burst=100.0,
        operations=("ecs:DescribeTasks", "ecs:ListTasks"),
        places="clusters",
    )

    def __init__(
        self,
        *,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: Mapping[str, Any] | None = None,
        cluster: str | None = None,
        request: Mapping[str, Any] | None = None,
    ) -> None:
        self.access = AwsAccess(aws_conn_id, region_name, verify, botocore_config)
        self.access.trim("ecs:DescribeTasks", trim_tasks)
        self.cluster = cluster or ""
        self.request = request or {}
        self._essential: dict[str, frozenset[str]] = {}

    def address(self) -> dict[str, Any]:
        """How to reach AWS; each job's ``scope`` says in which cluster it is."""
        return self.access.address()

    # --- what the watch asks ---

    def account(self) -> str:
        """Whose budget of calls is used."""
        return self.access.account("ecs")

    def meter(self, bucket: SharedBucket) -> None:
        """Count every call in `bucket`."""
        self.access.count_in(bucket)

    def cost(self, jobs: Sequence[Job]) -> float:
        """Calls of a look at these tasks: one for a hundred of a cluster."""
        ids = {(job.scope, _id(job.id)) for job in jobs}
        scopes = Counter(scope for scope, _ in ids)
        return float(sum(math.ceil(count / _AT_ONCE) for count in scopes.values()))

    def event_keys(self, job: Job) -> tuple[str, ...]:
        """How events name the task: by the last part of its ARN, which is unique by itself."""
        return (_id(job.id),)

    def is_throttle(self, error: Exception) -> bool:
        """Whether there were too many calls."""
        return is_throttle(error)

    def refuses_scope(self, error: Exception) -> bool:
        """Whether each task of the cluster would be refused."""
        return is_denied(error) or error_code(error) == "ClusterNotFoundException"

    def is_transient(self, error: Exception) -> bool:
        """Whether the same call may succeed later."""
        wrapped = error_code(error) in ("InvalidParameterException", "ClientException")
        return (
            isinstance(error, _NotKnownYet)
            or self.access.is_transient(error)
            or (wrapped and bool(re.search(_THROTTLED, str(error))))
        )

    def find(self, claims: Sequence[Claim]) -> list[Job]:
        """ECS tasks whose ``startedBy`` is one of the claims; stopped ones for about an hour.

        A task that is listed as running and cannot be described yet is QUEUED; a stopped one is forgotten.
        """
        jobs = []
        for claim in claims:  # startedBy is matched as a whole
            try:
                running = list(self._list(self.cluster, "RUNNING", startedBy=str(claim)))
                stopped = list(self._list(self.cluster, "STOPPED", startedBy=str(claim)))
                tasks = list(self._describe(self.cluster, [*running, *stopped]))
            except Exception as error:
                if error_code(error) == "ClusterNotFoundException":
                    return []  # no task runs in a cluster that is not there; RunTask will say so
                self._refuse_lookup(error)
                raise
            jobs += [self._read(task, claim) for task in tasks if task.get("startedBy") == str(claim)]
            described = {task["taskArn"] for task in tasks}
            jobs += [self._unseen(arn, claim) for arn in dict.fromkeys(running) if arn not in described]
        return jobs

    def submit(self, claim: Claim) -> Job:
        """Start the ECS task of this claim, or return the one that its token has started already."""
        request = {**self.request, "count": 1, "startedBy": str(claim), "clientToken": claim.token}
        try:
            answer = self._client().run_task(**_in(self.cluster), **request)
        except Exception as error:
            if error_code(error) == "ConflictException":
                return self._adopt(claim, error)
            self._explain(error)
            raise
        if not answer["tasks"]:
            self._not_taken(answer.get("failures", []))
        return self._own(answer["tasks"][0], claim)

    def observe(self, jobs: Sequence[Job]) -> list[Job]:
        """A new look at each job; those that ECS does not know are left out."""
        clusters: dict[str, dict[str, list[Job]]] = defaultdict(lambda: defaultdict(list))
        for job in jobs:
            clusters[job.scope or self.cluster][_id(job.id)].append(job)
        looks = []
        for cluster, wanted in clusters.items():
            ids = [members[0].id for members in wanted.values()]
            for task in self._describe(cluster, ids, looking=True):
                for job in wanted[_id(task["taskArn"])]:  # a sensor may name a task by its id alone
                    look = self._read(task, job.claim, now=job.created)
                    looks.append(replace(look, id=job.id, scope=job.scope or look.scope))
        return looks

    def cancel(self, job: Job, reason: str) -> Job:
        """Ask ECS to stop the task."""
        cluster = job.scope or self.cluster
        try:
            answer = self._client().stop_task(
                **_in(cluster), task=job.id, reason=short(f"airflow_resilient: {reason}", 255)
            )
        except Exception as error:
            # Source: StopTask reference: InvalidParameterException; the text tells what is invalid.
            unknown = error_code(error) == "InvalidParameterException" and "not found" in str(error).lower()
            if not unknown:
                raise
            if job.phase is Phase.QUEUED and abs(time.time() - job.created) < _YOUNG:
                raise _NotKnownYet(f"ECS does not know {job.id} yet, so it cannot be stopped yet") from error
            return replace(job, phase=Phase.LOST, reason="ECS does not know it any more")
        look = self._read(answer["task"], job.claim, now=job.created)
        # The answer to StopTask shows the task as it was before.
        return replace(look, phase=Phase.STOPPING if look.live else look.phase, id=job.id)

    def scopes(self) -> list[str]:
        """ARNs of all clusters of the account and region."""
        pages = self._client().get_paginator("list_clusters").paginate()
        return [arn for page in pages for arn in page["clusterArns"]]

    def claimed(self, scope: str) -> list[Job]:
        """The running ECS tasks of a cluster that bear a claim, whoever's.

        A task that is listed and cannot be described (yet, or any more) is left out: what started it is not
        known.
        """
        jobs = []
        for task in self._describe(scope, self._list(scope, "RUNNING")):
            claim = Claim.read(str(task.get("startedBy") or ""))
            if claim is not None and str(claim) == task["startedBy"]:  # and nothing else stands there
                jobs.append(self._read(task, claim))
        return jobs

    def read_log(
        self, job: Job, where: Mapping[str, Any], cursor: Mapping[str, Any] | None
    ) -> tuple[list[tuple[float, str]], Any]:
        """Read what is new in the log of the ECS task.

        :param where: ``{"group": str, "prefix": str, "region": str | None, "container": str | None}``.
        :param cursor: what the previous call returned.
        :return: ``(seconds since 1970, message)`` and the next cursor.
        """
        stream = log_stream(job, where)
        if stream is None:
            return [], cursor
        return read_stream(self._logs(where), where["group"], stream, cursor)

    def last_lines(self, job: Job, where: Mapping[str, Any], count: int) -> tuple[str, ...]:
        """Read the end of the ECS task's log."""
        stream = log_stream(job, where)
        return last_lines(self._logs(where), where["group"], stream, count) if stream else ()

    # --- inside ---

    def _client(self, *, looking: bool = False) -> Any:
        return self.access.client("ecs", looking=looking)

    def _logs(self, where: Mapping[str, Any]) -> Any:
        return self.access.client("logs", region_name=where.get("region"))

    def _list(self, cluster: str, status: str, **only: str) -> Iterator[str]:
        more: dict[str, str] = {}
        while True:
            page = self._client().list_tasks(**_in(cluster), desiredStatus=status, **only, **more)
            yield from page["taskArns"]
            if not page.get("nextToken"):
                return
            more = {"nextToken": page["nextToken"]}

    def _describe(
        self, cluster: str, ids: Iterable[str], *, looking: bool = False
    ) -> Iterator[Mapping[str, Any]]:
        wanted = list(dict.fromkeys(ids))
        for start in range(0, len(wanted), _AT_ONCE):
            batch = wanted[start : start + _AT_ONCE]
            yield from self._client(looking=looking).describe_tasks(**_in(cluster), tasks=batch)["tasks"]

    def _read(self, task: Mapping[str, Any], claim: Claim, now: float | None = None) -> Job:
        now = time.time() if now is None else now
        return read_task(task, claim, self._essential_of(task), now=now)

    def _essential_of(self, task: Mapping[str, Any]) -> frozenset[str] | None:
        """Names of a task's essential containers, asked for only where they decide how it ended.

        DescribeTasks does not tell; DescribeTaskDefinition does. A sidecar that AWS adds is in the former
        only.
        """
        codes = {each.get("exitCode") for each in task.get("containers") or ()}
        ended_by_itself = task.get("stopCode") in (None, "", "EssentialContainerExited")
        if task.get("lastStatus") != "STOPPED" or len(codes) < 2 or not ended_by_itself:  # noqa: PLR2004
            return None
        arn = str(task.get("taskDefinitionArn"))
        if arn not in self._essential:
            try:
                answer = self._client().describe_task_definition(taskDefinition=arn)
            except Exception as error:
                if self.is_transient(error) or not error_code(error):
                    raise
                return None  # not allowed to ask: then every container counts
            names = {
                each["name"]
                for each in answer["taskDefinition"]["containerDefinitions"]
                if each.get("essential", True)  # Source: ContainerDefinition reference: essential if omitted
            }
            if len(self._essential) >= 1000:  # noqa: PLR2004 - a triggerer lives for months
                self._essential.clear()
            self._essential[arn] = frozenset(names)
        return self._essential[arn]

    def _unseen(self, arn: str, claim: Claim) -> Job:
        """A task that exists, although DescribeTasks does not know it yet."""
        return Job(arn, claim, Phase.QUEUED, time.time(), scope=self.cluster)

    def _own(self, task: Mapping[str, Any], claim: Claim) -> Job:
        if task.get("startedBy") != str(claim):
            raise SubmitRefused(
                f"the client token {claim.token} belongs to {task['taskArn']}, which was started by "
                f"{task.get('startedBy')!r} and not by {claim}: it is left alone. Nothing but this library "
                "should use such tokens; find out who does.",
            )
        return self._read(task, claim)

    def _adopt(self, claim: Claim, error: Exception) -> Job:
        """The task that was started with this token and a request that was rendered differently.

        Source: RunTask reference, ConflictException: ``resourceIds`` are the tasks that the token started.
        """
        arns: Sequence[str] = getattr(error, "response", {}).get("resourceIds") or []
        if not arns:
            raise error
        known = list(self._describe(self.cluster, arns))
        return self._own(known[0], claim) if known else self._unseen(arns[0], claim)

    def _name(self) -> str:
        return f"{self.request.get('taskDefinition')} in cluster {self.cluster or 'default'}"

    def _not_taken(self, failures: Sequence[Mapping[str, Any]]) -> NoReturn:
        reasons = dict.fromkeys(
            " ".join(filter(None, (each.get("reason"), each.get("detail")))) for each in failures
        )
        text = f"ECS started no task {self._name()}: {', '.join(reasons) or 'it gave no reason'}"
        if any(re.search(_NO_ROOM_FAILURE, reason) for reason in reasons):
            raise NoCapacity(text, {"failures": list(failures)})
        raise NotSubmitted(
            f"{text}. Check placement, launch type and task definition.", {"failures": list(failures)}
        )

    def _explain(self, error: Exception) -> None:
        """Raise what a failed RunTask means, unless it may pass or is none of AWS's answers."""
        from botocore.exceptions import ClientError, ParamValidationError

        if self.is_transient(error):
            return
        if not isinstance(error, ClientError | ParamValidationError):
            return
        code, said = error_code(error), self._without_secrets(say(error))
        response = {"Error": {"Code": code, "Message": said}}
        if code and re.search(_NO_ROOM_ERROR, said):
            raise NoCapacity(f"ECS started no task {self._name()}: {said}", response) from None
        text = f"ECS refuses to run {self._name()}: {said} {_ADVICE.get(code, 'Mend the request.')}"
        raise SubmitRefused(text, response) from None

    def _without_secrets(self, text: str) -> str:
        """Hide values of the environment, in case that AWS quotes the request."""
        overrides = self.request.get("overrides")
        containers = overrides.get("containerOverrides") if isinstance(overrides, Mapping) else None
        return without(
            text,
            [
                variable.get("value")
                for container in (containers if isinstance(containers, list | tuple) else ())
                for variable in (container.get("environment") or () if isinstance(container, Mapping) else ())
                if isinstance(variable, Mapping)
            ],
        )

    def _refuse_lookup(self, error: Exception) -> None:
        """Raise what a denied search means: without it, a task of an earlier try could be run twice."""
        if error_code(error) == "AccessDeniedException":
            text = (
                f"ECS does not let us look for tasks of earlier tries in {self.cluster or 'default'}: "
                f"{say(error)} Allow ecs:ListTasks and ecs:DescribeTasks."
            )
            raise SubmitRefused(text, getattr(error, "response", None)) from None


def log_stream(job: Job, where: Mapping[str, Any]) -> str | None:
    """Name of the log stream of `job`; ``None`` as long as its containers are not known."""
    containers = job.facts.get("containers") or ()
    container = where.get("container") or (containers[0][0] if containers else None)
    return stream_name(where["prefix"], container, _id(job.id)) if container else None


def _id(arn: str) -> str:
    """The id of an ECS task, given that or its ARN."""
    return arn.rpartition("/")[2]


def _in(cluster: str) -> dict[str, str]:
    return {"cluster": cluster} if cluster else {}


def _region(arn: str, otherwise: str | None) -> str:
    parts = arn.split(":")
    return parts[3] if len(parts) > 3 else otherwise or ""  # noqa: PLR2004 - arn:PARTITION:ecs:REGION:...


# --- the operator -------------------------------------------------------------------------------

_REQUEST = {
    "task_definition": "taskDefinition",
    "overrides": "overrides",
    "launch_type": "launchType",
    "capacity_provider_strategy": "capacityProviderStrategy",
    "volume_configurations": "volumeConfigurations",
    "group": "group",
    "placement_constraints": "placementConstraints",
    "placement_strategy": "placementStrategy",
    "platform_version": "platformVersion",
    "network_configuration": "networkConfiguration",
    "tags": "tags",
    "propagate_tags": "propagateTags",
}
"""Which parameter of the operator becomes which one of RunTask."""
_OWN_PARAMETER = {**{name: ours for ours, name in _REQUEST.items()}, "cluster": "cluster"}
_FURTHER = ("enableECSManagedTags", "enableExecuteCommand", "referenceId")
_LOST = {
    "deferrable": (
        DEFAULT_DEFERRABLE,
        "waiting always defers; all that it means is wait_for_completion=True",
    ),
    "reattach": (
        False,
        "every retry finds its own ECS task; on_clear='reattach' keeps it after a clear",
    ),
    "quota_retry": (
        None,
        "for want of capacity it submits again, infrastructure_retries times",
    ),
    "waiter_max_attempts": (1000000, "there is no number of looks; execution_timeout limits the wait"),
    "stop_task_on_failure": (
        True,
        "trouble with waiting fails nothing; on_timeout tells what the deadline does",
    ),
}
"""Parameters that have lost their reason: default, and what happens instead."""


class EcsRunTaskOperator(RemoteJobOperator):
    """Run an ECS task once per try, and wait for it without a worker slot.

    A drop-in for the amazon provider's operator of this name: it takes the same parameters, with the same
    meaning but where this says otherwise, and returns and pushes the same. See also `RemoteJobOperator`.

    :param task_definition: family, ``family:revision`` or ARN (templated).
    :param cluster: name or ARN of the cluster (templated).
    :param overrides: RunTask's ``overrides``; ``{}`` for none (templated). Never logged.
    :param launch_type: ``EC2``, ``FARGATE`` or ``EXTERNAL``; left out when there is a
        `capacity_provider_strategy` (templated).
    :param capacity_provider_strategy: this and the parameters down to `network_configuration` are RunTask's
        of the same name (templated).
    :param tags: ``{"key": "value"}`` (templated).
    :param awslogs_group: CloudWatch group of the container's log (templated). With `awslogs_stream_prefix`,
        the log is forwarded to the task instance's log while it is deferred.
    :param awslogs_region: region of that group; default that of the ECS task (templated).
    :param awslogs_stream_prefix: as in the task definition (templated).
    :param awslogs_fetch_interval: time between two reads of the log, a ``timedelta`` or seconds (templated).
    :param container_name: whose log; default the first container's (templated).
    :param number_logs_exception: how many of the last lines of the log an error shows (templated).
    :param wait_for_completion: ``False``: return as soon as the ECS task is submitted (templated).
    :param waiter_delay: longest time between two looks, in seconds; a young ECS task is looked at more often.
    :param skip_on_exit_code: exit code, or a container of them, for which the task instance is skipped.
    :param run_task_kwargs: whatever else RunTask takes, such as ``{"enableExecuteCommand": True}``
        (templated).
    :param region: the same as `region_name` (deprecated).
    :param deferrable: waiting always defers; ``True`` implies `wait_for_completion`.
    :param quota_retry: this, `reattach`, `waiter_max_attempts` and `stop_task_on_failure` are accepted and
        have no effect; a warning says what happens instead.
    :return: the last line of the log, if it is forwarded and ``do_xcom_push`` is on. XCom ``ecs_task_arn``:
        the ARN.
    :raises InvalidParameter: a parameter is wrong.
    """

    ui_color = "#f0ede4"
    template_fields: Sequence[str] = (
        "task_definition",
        "cluster",
        "overrides",
        "launch_type",
        "capacity_provider_strategy",
        "volume_configurations",
        "group",
        "placement_constraints",
        "placement_strategy",
        "platform_version",
        "network_configuration",
        "tags",
        "awslogs_group",
        "awslogs_region",
        "awslogs_stream_prefix",
        "awslogs_fetch_interval",
        "container_name",
        "propagate_tags",
        "reattach",
        "number_logs_exception",
        "wait_for_completion",
        "deferrable",
        "run_task_kwargs",
    )
    template_fields_renderers = {  # noqa: RUF012 - Airflow's own spelling
        "overrides": "json",
        "network_configuration": "json",
        "tags": "json",
        "run_task_kwargs": "json",
    }
    operator_extra_links: Sequence[Any] = (EcsTaskLink(), EcsTaskLogsLink())

    def __init__(
        self,
        *,
        task_definition: str = "",
        cluster: str = "",
        overrides: dict[str, Any] | None = None,
        launch_type: str | None = "EC2",
        capacity_provider_strategy: list[dict[str, Any]] | None = None,
        volume_configurations: list[dict[str, Any]] | None = None,
        group: str | None = None,
        placement_constraints: list[dict[str, Any]] | None = None,
        placement_strategy: list[dict[str, Any]] | None = None,
        platform_version: str | None = None,
        network_configuration: dict[str, Any] | None = None,
        tags: dict[str, str] | None = None,
        awslogs_group: str | None = None,
        awslogs_region: str | None = None,
        awslogs_stream_prefix: str | None = None,
        awslogs_fetch_interval: timedelta | float = timedelta(seconds=30),
        container_name: str | None = None,
        propagate_tags: str | None = None,
        quota_retry: dict[str, Any] | None = None,
        reattach: bool = False,
        number_logs_exception: int = 10,
        wait_for_completion: bool = True,
        waiter_delay: float = Usual(6),
        waiter_max_attempts: int = 1000000,
        deferrable: bool = DEFAULT_DEFERRABLE,
        skip_on_exit_code: int | Container[int] | None = None,
        stop_task_on_failure: bool = True,
        run_task_kwargs: dict[str, Any] | None = None,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        region: str | None = None,
        patience: Patience | None = None,
        **kwargs: Any,
    ) -> None:
        if patience is None and _is_number(waiter_delay) and waiter_delay > 0:
            patience = looks_every(waiter_delay)
        super().__init__(patience=patience, **kwargs)
        self.task_definition = task_definition
        self.cluster = cluster
        self.overrides = overrides
        self.launch_type = launch_type
        self.capacity_provider_strategy = capacity_provider_strategy
        self.volume_configurations = volume_configurations
        self.group = group
        self.placement_constraints = placement_constraints
        self.placement_strategy = placement_strategy
        self.platform_version = platform_version
        self.network_configuration = network_configuration
        self.tags = tags
        self.awslogs_group = awslogs_group
        self.awslogs_region = awslogs_region
        self.awslogs_stream_prefix = awslogs_stream_prefix
        self.awslogs_fetch_interval = awslogs_fetch_interval
        self.container_name = container_name
        self.propagate_tags = propagate_tags
        self.quota_retry = quota_retry
        self.reattach = reattach
        self.number_logs_exception = number_logs_exception
        self.wait_for_completion = wait_for_completion
        self.waiter_delay = waiter_delay
        self.waiter_max_attempts = waiter_max_attempts
        self.deferrable = deferrable
        self.skip_on_exit_code = skip_on_exit_code
        self.stop_task_on_failure = stop_task_on_failure
        self.run_task_kwargs = run_task_kwargs
        self.aws_conn_id = aws_conn_id
        self.region_name = one_region(self, region_name, region)
        self.verify = verify
        self.botocore_config = botocore_config
        self._check()
        say_instead(self, _LOST)
        if self.job_log() is None:
            self.operator_extra_links = (EcsTaskLink(),)

    # --- what the base class asks ---

    def remote_jobs(self, context: Context) -> EcsTasks:
        """ECS, with the request."""
        self._check()  # again: what was a template at parse time is a value now
        self.wait_for_completion = _true(self.wait_for_completion) or _true(self.deferrable)
        self.log_interval = _span(self.awslogs_fetch_interval) or 30.0
        self.log_lines = int(self.number_logs_exception)
        return EcsTasks(
            **access_of(self),
            cluster=self.cluster,
            request=self._request(),
        )

    def submitted(self, context: Context, job: Job) -> None:
        """Push the ARN and what the links show."""
        if self.do_xcom_push:
            context["ti"].xcom_push(key="ecs_task_arn", value=job.id)
        region = _region(job.id, self.region_name)
        EcsTaskLink.persist(
            context, region_name=region, cluster=_cluster_of(job, self.cluster), task_id=job.id
        )
        where = self.job_log()
        stream = log_stream(job, where) if where else None
        if where and stream:
            EcsTaskLogsLink.persist(
                context, region_name=where["region"] or region, group=where["group"], stream=stream
            )

    def conclude(self, context: Context, job: Job, log: LogTail) -> str | None:
        """Return the last line of the log, where it is forwarded."""
        if job.live or not self.do_xcom_push:
            return None
        return log.last_line or next(iter(self._last_lines(context, job, 1)), None)

    def failure(self, context: Context, job: Job, log: LogTail) -> Exception:
        """Say what happened with the end of the log, or skip the task instance for a code that means so."""
        lines = log.lines or self._last_lines(context, job, self.log_lines)
        error = error_of(job, LogTail(lines[-self.log_lines :] if self.log_lines > 0 else ()))
        by_itself = job.phase is Phase.FAILED and job.cause is Cause.APPLICATION
        if by_itself and job.exit_code is not None and job.exit_code in codes_of(self.skip_on_exit_code):
            return AirflowSkipException(f"skip_on_exit_code names exit code {job.exit_code}. {error}")
        return error

    def job_log(self) -> dict[str, Any] | None:
        """Where the log is, if `awslogs_group` and `awslogs_stream_prefix` say so."""
        if not self.awslogs_group or not self.awslogs_stream_prefix:
            return None
        return {
            "group": self.awslogs_group,
            "prefix": self.awslogs_stream_prefix,
            "region": self.awslogs_region or self.region_name,
            "container": self.container_name,
        }

    # --- inside ---

    def _request(self) -> dict[str, Any]:
        """RunTask's keywords. The same for every visit of a try, as the client token asks."""
        values = {name: getattr(self, ours) for ours, name in _REQUEST.items()}
        if values["capacityProviderStrategy"]:
            values["launchType"] = None
        if self.tags is not None:
            values["tags"] = [{"key": key, "value": value} for key, value in self.tags.items()]
        further = {name: value for name, value in (self.run_task_kwargs or {}).items() if name != "count"}
        drop = {"launchType": (None, ""), "capacityProviderStrategy": (None, [])}
        return {
            **{name: each for name, each in values.items() if each not in drop.get(name, (None,))},
            **further,
        }

    def _last_lines(self, context: Context, job: Job, count: int) -> tuple[str, ...]:
        """The end of a log that nobody has forwarded, as an adopted job's; trouble is only said."""
        where = self.job_log()
        if where is None or count < 1:
            return ()
        service = self.remote_jobs(context)
        try:
            return service.last_lines(job, where, count)
        except Exception as error:  # noqa: BLE001 - the log never changes the result
            self.log.warning("the job's log cannot be read: %s", say(error))
            return ()

    def _check(self) -> None:
        """Refuse what can be seen to be wrong; a template is looked at when it has been rendered.

        :raises InvalidParameter: naming task, parameter and what to write.
        """
        for name, example in (("task_definition", "nightly:7"), ("cluster", "etl")):
            value = getattr(self, name)
            if not may_change(value) and not (isinstance(value, str) and value.strip()):
                reject(self, name, value, f"a name or an ARN, such as {name}={example!r}")
        if not may_change(self.overrides) and not isinstance(self.overrides, Mapping):
            reject_hidden(self, "overrides", self.overrides, "RunTask's overrides as a dict, {} for none")
        if self.tags is not None and not may_change(self.tags) and not isinstance(self.tags, Mapping):
            reject_hidden(self, "tags", self.tags, 'a dict: {"key": "value"}')
        if not _is_number(self.waiter_delay) or self.waiter_delay <= 0:
            reject(self, "waiter_delay", self.waiter_delay, "seconds, more than 0")
        if not may_change(self.number_logs_exception) and not str(self.number_logs_exception).isdecimal():
            reject(self, "number_logs_exception", self.number_logs_exception, "a whole number, 0 or more")
        if not may_change(self.awslogs_fetch_interval) and _span(self.awslogs_fetch_interval) is None:
            reject(self, "awslogs_fetch_interval", self.awslogs_fetch_interval, "a timedelta, or seconds")
        require_codes(self, "skip_on_exit_code", self.skip_on_exit_code)
        self._check_further()

    def _check_further(self) -> None:
        further = self.run_task_kwargs
        if further is None or may_change(further):
            return
        if not isinstance(further, Mapping):
            reject_hidden(self, "run_task_kwargs", further, "a dict of RunTask's parameters")
        for name, value in further.items():
            parameter = f"run_task_kwargs[{name!r}]"
            if name in _OWN_PARAMETER:
                reject_hidden(
                    self, parameter, value, f"the operator's parameter {_OWN_PARAMETER[name]} instead"
                )
            if name in ("clientToken", "startedBy"):
                reject_hidden(
                    self, parameter, value, "nothing: it names the task instance that owns the ECS task"
                )
            if name == "count" and value != 1:
                reject(self, parameter, value, "count=1 or nothing; for several ECS tasks use .expand()")
            if name not in (*_FURTHER, "count") and name not in _parameters_of_run_task():
                reject_hidden(
                    self, parameter, value, f"a parameter that RunTask has, such as {' or '.join(_FURTHER)}"
                )


def _parameters_of_run_task() -> Container[str]:
    """What the installed boto3 knows; loaded only for a name that this file does not know."""
    from botocore.session import get_session

    shape: Any = get_session().get_service_model("ecs").operation_model("RunTask").input_shape
    return set(shape.members)


def _true(value: Any) -> bool:
    """Whether a rendered template means yes."""
    return (
        value.strip().lower() not in ("", "0", "false", "no", "none")
        if isinstance(value, str)
        else bool(value)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _span(value: Any) -> float | None:
    """Seconds of a ``timedelta``, a number, or a number as text; ``None`` for what is none of them."""
    try:
        seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    except (TypeError, ValueError):
        return None
    return float(seconds) if seconds >= 0 else None


def _cluster_of(job: Job, otherwise: str) -> str:
    """Name of the cluster, which is part of a task's ARN: ``arn:...:task/CLUSTER/ID``."""
    parts = job.id.split("/")
    return parts[1] if len(parts) > 2 else _id(job.scope or otherwise)  # noqa: PLR2004


# --- the sensor ---------------------------------------------------------------------------------

_STATES = (
    "PROVISIONING",
    "PENDING",
    "ACTIVATING",
    "RUNNING",
    "DEACTIVATING",
    "STOPPING",
    "DEPROVISIONING",
    "STOPPED",
)
"""What ``lastStatus`` goes through. Source: ECS developer guide, "Task lifecycle"."""


class _NeverSeen(Unobservable, AirflowFailException):
    """The sensor was refused at its first look, so that no retry helps."""


class EcsTaskStateSensor(RemoteJobSensor):
    """Wait, without a worker slot, until an ECS task is in a state.

    A drop-in for the amazon provider's sensor of this name. It never stops the ECS task.

    :param cluster: name or ARN of the cluster (templated).
    :param task: id or ARN of the ECS task (templated).
    :param target_state: the state to wait for, a string or the provider's ``EcsTaskStates`` (templated).
    :param failure_states: states in which the wait is in vain; default ``{"STOPPED"}`` (templated).
    :param region: the same as `region_name` (deprecated).
    :raises InvalidParameter: a parameter is wrong.
    """

    template_fields: Sequence[str] = (
        "aws_conn_id",
        "cluster",
        "failure_states",
        "region_name",
        "target_state",
        "task",
        "verify",
    )
    operator_extra_links = (EcsTaskLink(),)

    def __init__(
        self,
        *,
        cluster: str = "",
        task: str = "",
        target_state: Any = "RUNNING",
        failure_states: Any = None,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        region: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster
        self.task = task
        self.target_state = target_state
        self.failure_states = failure_states or {"STOPPED"}
        self.aws_conn_id = aws_conn_id
        self.region_name = one_region(self, region_name, region)
        self.verify = verify
        self.botocore_config = botocore_config
        self._check()

    def execute(self, context: Context) -> None:
        """Look once: what can never come fails at once, and what is there already need not be awaited."""
        try:
            if self._there_already(context):
                return
        except (JobError, Unobservable) as error:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(str(error)) from error
            raise
        super().execute(context)

    def _there_already(self, context: Context) -> bool:
        service, job = self.remote_jobs(context), self.watched(context)
        EcsTaskLink.persist(
            context,
            region_name=_region(job.id, self.region_name),
            cluster=_cluster_of(job, self.cluster),
            task_id=job.id,
        )
        try:
            looks = service.observe([job])
        except Exception as error:  # noqa: BLE001 - sorted out by is_transient, or said
            if not service.is_transient(error):
                raise _NeverSeen(f"ECS does not let us look at {self.task}: {say(error)}", job) from None
            self.log.info("no answer about %s now (%s): the triggerer looks again", self.task, error)
            return False
        if not looks or not self.arrived(looks[0]):
            return False
        self.log.info("%s: %s", self.task, looks[0].facts["last_status"])
        return True

    def remote_jobs(self, context: Context) -> EcsTasks:
        """ECS, without a request."""
        self._check()  # again: what was a template at parse time is a value now
        return EcsTasks(
            **access_of(self),
            cluster=self.cluster,
        )

    def watched(self, context: Context) -> Job:
        """The ECS task, of which nothing is known yet."""
        return Job(self.task, Claim("", 0), Phase.QUEUED, time.time(), scope=self.cluster)

    def until(self) -> tuple[str, Sequence[str]]:
        """States that are worth a visit."""
        return "last_status", [_state(self.target_state), *sorted(map(_state, _each(self.failure_states)))]

    def arrived(self, job: Job) -> bool:
        """Whether it is in the state that is waited for.

        :raises JobFailed: it is in one of the `failure_states`, or has stopped in another one.
        :raises JobLost: ECS does not know it (any more).
        """
        state, target = job.facts.get("last_status"), _state(self.target_state)
        if job.phase is Phase.LOST:
            raise error_of(job)
        if state == target:
            return True
        if state in set(map(_state, _each(self.failure_states))) or not job.live:
            why = f": {job.reason}" if job.reason else ""
            raise JobFailed(f"{job.id} is {state} and will not be {target} any more{why}", job)
        return False

    def _check(self) -> None:
        for name, example in (("cluster", "etl"), ("task", "the task's id or ARN")):
            value = getattr(self, name)
            if not may_change(value) and not (isinstance(value, str) and value.strip()):
                reject(self, name, value, f"a string, such as {name}={example!r}")
        for name, states in (("target_state", [self.target_state]), ("failure_states", self.failure_states)):
            if may_change(states):
                continue
            for state in _each(states):
                if not may_change(state) and _state(state) not in (*_STATES, "NONE"):
                    reject(self, name, _state(state), f"one of {', '.join(_STATES)}")


def _state(state: Any) -> str:
    """Name of a state: a string, or a member of the provider's enumeration."""
    return str(getattr(state, "value", state))


def _each(states: Any) -> Iterable[Any]:
    """The members of a collection of states; one alone counts as a collection, too."""
    return states if isinstance(states, list | tuple | set | frozenset) else [states]
