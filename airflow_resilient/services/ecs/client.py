"""Amazon ECS tasks as remote jobs.

The claim is written into ``startedBy``, which ListTasks matches exactly, and into ``clientToken``, for which
RunTask returns the task that it has started already.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from ...aws.cloudwatch_logs import find_lines, last_lines, patterns, read_stream
from ...aws.errors import CONFLICT, error_code, is_denied, redacted_text
from ...core.job import CLOCK_SKEW, FROM_ARCHIVE, NO_CLAIM, Claim, Job, Phase
from ...core.text import error_text, last_part, redact, says, shorten, values_of
from ...errors import CLIENT_ERROR, NoCapacity, NotSubmitted, SubmitRefused, also
from ...settings import current
from .._aws import AwsService
from .read import ended_task, latest_of_each, log_stream, read_task, task_id_of, trim_tasks, with_generation
from .request import secrets_of
from .service import SERVICE

log = logging.getLogger(__name__)

_DESCRIBE_TASKS_MAX = 100
"""Source: DescribeTasks reference: "A list of up to 100 task IDs or full ARN entries"."""

_UNKNOWN_SECONDS = 600.0
"""Seconds after its creation for which AWS may not know a new task yet.

Source: RunTask reference: wait "gradually up to about five minutes" for a new task to be known everywhere.
"""

# Reasons for which RunTask starts no task now but may later; agents normally disconnect several times an
# hour. The other codes come with names of the user. Source: ECS developer guide, "API failure reasons" and
# "Amazon ECS events".
_CAPACITY_FAILURE = r"^(RESOURCE|AGENT)\b|(?i:^(?!ATTRIBUTE|LOCATION|MISSING|INACTIVE).*\b(capacity|limit)\b)"

# The same as errors with an unspecific code; only the text identifies them.
# Source: Airflow issue 48001 for Fargate, aws/aws-sdk-ruby issue 3047 for capacity providers,
# wellcomecollection/platform issue 3875 for Fargate's quota.
_CAPACITY_ERROR = (
    r"(?i)capacity is unavailable|reached the limit on the number|capacity limit exceeded|provisioning state"
    r"|No Container Instances were found"
)

EXCEPTIONS = "airflow.providers.amazon.aws.exceptions"
"""The module of the provider's errors; see `also`."""

HOOK = "airflow.providers.amazon.aws.hooks.ecs:EcsHook"
"""The provider's hook; see `ProvidersHook`."""

_ADVICE = {
    "AccessDeniedException": "Allow ecs:RunTask on the task definition and iam:PassRole on its roles.",
    "ClusterNotFoundException": "Check cluster, region_name and aws_conn_id.",
    "ClientException": "Check task_definition and region_name.",
    "InvalidParameterException": "Check the parameter that AWS names.",
}


class _NotVisibleYet(Exception):
    """A young task that AWS does not know yet."""


class EcsTasks(AwsService):
    """Run one ECS task per claim.

    :param cluster: name or ARN of the cluster in which tasks are searched and started.
    :param request: keywords for boto3's ``run_task`` except ``cluster``, ``count``, ``startedBy`` and
        ``clientToken``.
    :param access: those of `AwsService`.
    """

    name = SERVICE.name
    scope_noun = SERVICE.scope_noun
    aws_service = "ecs"
    submit_operation = "RunTask"
    batch_size = _DESCRIBE_TASKS_MAX
    budget = SERVICE.budget

    def __init__(
        self, *, cluster: str | None = None, request: Mapping[str, Any] | None = None, **access: Any
    ) -> None:
        super().__init__(**access)
        self.access.trim("ecs:DescribeTasks", trim_tasks)
        self.cluster = cluster or ""
        self.request = request or {}
        self._definitions: dict[str, Sequence[Mapping[str, Any]]] = {}
        self._log_guessed = False
        self._archive_warnings: set[str] = set()

    def lookup(self) -> dict[str, Any]:
        """The cluster in which `find` searches."""
        return {"cluster": self.cluster}

    def request_fields(self) -> Mapping[str, Any]:
        """RunTask's arguments that the user has chosen."""
        return {"cluster": self.cluster or None, **self.request}

    # --- for the shared watch ---

    def cost(self, jobs: Sequence[Job]) -> float:
        """Calls of a poll: one for every hundred tasks of a cluster."""
        ids = {(job.scope, task_id_of(job.id)) for job in jobs}
        scopes = Counter(scope for scope, _ in ids)
        return float(sum(math.ceil(count / _DESCRIBE_TASKS_MAX) for count in scopes.values()))

    def event_keys(self, job: Job) -> tuple[str, ...]:
        """The name of the task in events: the last part of its ARN, which is unique."""
        return (task_id_of(job.id),)

    def refuses_scope(self, error: Exception) -> bool:
        """Whether the error applies to every task of the cluster."""
        return is_denied(error) or error_code(error) == "ClusterNotFoundException"

    def quoted(self) -> Iterable[str]:
        """The cluster, and every value of the request."""
        return (self.cluster, *values_of(self.request, keys=True))

    def is_transient(self, error: Exception) -> bool:
        """Whether the same call may succeed later."""
        return isinstance(error, _NotVisibleYet) or super().is_transient(error)

    def find(self, claims: Sequence[Claim]) -> list[Job]:
        """ECS tasks whose ``startedBy`` is one of the claims; stopped ones for about an hour.

        A task that is listed as running and cannot be described yet is QUEUED; a stopped one is left out.
        """
        jobs = []
        for claim in claims:  # startedBy is matched as a whole
            try:
                running = list(self._list(self.cluster, "RUNNING", startedBy=str(claim)))
                stopped = list(self._list(self.cluster, "STOPPED", startedBy=str(claim)))
                tasks = list(self._describe(self.cluster, [*running, *stopped]))
            except Exception as error:
                if error_code(error) == "ClusterNotFoundException":
                    return []  # a missing cluster has no tasks; RunTask reports the error
                self._raise_denied_lookup(error)
                raise
            jobs += [self._read(task, claim) for task in tasks if task.get("startedBy") == str(claim)]
            described = {task["taskArn"] for task in tasks}
            jobs += [
                self._not_yet_visible(arn, claim) for arn in dict.fromkeys(running) if arn not in described
            ]
        return jobs

    def submit(self, claim: Claim) -> Job:
        """Start the ECS task of this claim, or return the one that its token has started already."""
        request = {**self.request, "count": 1, "startedBy": str(claim), "clientToken": claim.token}
        overrides = self._overrides(claim)
        if overrides:
            request["overrides"] = overrides
        try:
            answer = self.client().run_task(**_cluster_argument(self.cluster), **request)
        except Exception as error:
            if error_code(error) == CONFLICT:
                return self._adopt(claim, error)
            self._raise_refusal(error)
            raise
        if not answer["tasks"]:
            self._raise_not_started(answer.get("failures", []))
        return self._check_owner(answer["tasks"][0], claim)

    def observe(self, jobs: Sequence[Job]) -> list[Job]:
        """Observe each job; those that ECS does not know, or not with this ``startedBy``, are left out."""
        clusters: dict[str, dict[str, list[Job]]] = defaultdict(lambda: defaultdict(list))
        for job in jobs:
            clusters[job.scope or self.cluster][task_id_of(job.id)].append(job)
        observed = []
        for cluster, wanted in clusters.items():
            ids = [members[0].id for members in wanted.values()]
            for task in self._describe(cluster, ids, polling=True):
                for job in wanted[task_id_of(task["taskArn"])]:  # the id alone may name the task of a sensor
                    if job.claim != NO_CLAIM and task.get("startedBy") != str(job.claim):
                        continue
                    each = self._read(task, job.claim, now=job.created)
                    observed.append(replace(each, id=job.id, scope=job.scope or each.scope))
        return observed

    def cancel(self, job: Job, reason: str) -> Job:
        """Ask ECS to stop the task, if its ``startedBy`` is the job's claim: an id alone proves nothing."""
        cluster = job.scope or self.cluster
        tasks = [task for task in self._describe(cluster, [job.id]) if _is_task(task, job.id)]
        started_by = [str(task.get("startedBy") or "") for task in tasks]
        if tasks and (job.claim == NO_CLAIM or started_by != [str(job.claim)]):
            log.warning("not stopping %s: it was started by %r, not by %s", job.id, started_by[0], job.claim)
            return replace(job, phase=Phase.LOST, reason=f"the task was not started by {job.claim}")
        if not tasks:
            return self._unknown(job)
        try:
            answer = self.client().stop_task(
                **_cluster_argument(cluster), task=job.id, reason=shorten(f"airflow_resilient: {reason}", 255)
            )
        except Exception as error:
            # Source: StopTask reference: InvalidParameterException; only the text names the parameter.
            unknown = error_code(error) == "InvalidParameterException" and says(
                str(error), "(?i)not found", [cluster, job.id]
            )
            if not unknown:
                raise
            return self._unknown(job)
        observed = self._read(answer["task"], job.claim, now=job.created)
        # The answer to StopTask shows the task as it was before.
        return replace(observed, phase=Phase.STOPPING if observed.live else observed.phase, id=job.id)

    def _unknown(self, job: Job) -> Job:
        """`job`, which is to be stopped and which ECS does not know any more.

        :raises _NotVisibleYet: it does not know it yet.
        """
        if job.phase is Phase.QUEUED and abs(time.time() - job.created) < _UNKNOWN_SECONDS:
            raise _NotVisibleYet(f"ECS does not know {job.id} yet, so it cannot be stopped yet")
        return replace(job, phase=Phase.LOST, reason="ECS does not know it any more")

    # --- tasks that ECS has forgotten: their last events, in ``[airflow_resilient] events_log_group`` ---

    def find_forgotten(self, claims: Sequence[Claim], since: float) -> list[Job]:
        """Stopped tasks of this cluster that were started by one of the claims, from the log group of events.

        A task whose event does not say when it was created counts as older than any DAG run.
        """
        of = {str(claim): claim for claim in claims}
        fields = (
            "$.detail.startedBy",
            "$.startedBy",
        )  # the latter to notice a rule that writes the detail only
        return [
            self._read_archived(task, of[task["startedBy"]], created=0.0)
            for task in self._archived(fields, list(of), since)
            if task.get("startedBy") in of and self._is_in(task, self.cluster)
        ]

    def recover(self, jobs: Sequence[Job]) -> list[Job]:
        """The ends of those of the tasks that the log group of events knows, under the claims of the jobs."""
        names = {job.id if job.id.startswith("arn:") else f"*/{job.id}" for job in jobs}
        searchable = sorted(name for name in names if re.fullmatch(r"(\*/)?[\w:/.-]+", name, re.ASCII))
        # Of a task that was never described nothing is known but its id, as at the start of a sensor.
        since = min((job.created if job.facts else 0.0 for job in jobs), default=0.0) - CLOCK_SKEW
        tasks = {
            task_id_of(task["taskArn"]): task
            for task in self._archived(("$.detail.taskArn",), searchable, since)
        }
        ended = []
        for job in jobs:
            task = tasks.get(task_id_of(job.id))
            if task is None or not self._is_in(task, job.scope or self.cluster):
                continue
            if job.claim != NO_CLAIM and task.get("startedBy") != str(job.claim):
                continue
            each = self._read_archived(task, job.claim, created=job.created)
            ended.append(replace(each, id=job.id, scope=job.scope or each.scope))
        return ended

    def _archived(
        self, fields: Sequence[str], values: Sequence[str], since: float
    ) -> list[Mapping[str, Any]]:
        """The stopped tasks in the log group of events of which one of the fields has one of the values.

        None where there is no such group, or no access to it; then a warning says so, once.

        :raises: a transient error.
        """
        group = current().events_log_group
        if not group:
            return []
        tasks: list[Mapping[str, Any]] = []
        for pattern in patterns(fields, values):
            try:
                lines, complete = find_lines(self.access.client("logs"), group, pattern, since)
            except Exception as error:
                if self.is_transient(error):
                    raise
                self._warn_archive(error_code(error), f"cannot be searched: {_why_no_archive(error)}")
                return tasks
            if not complete:
                self._warn_archive(
                    "pages",
                    "has too many events to be searched to its end: let the rule match only STOPPED tasks "
                    "whose startedBy begins with af-, and let the group keep them for a few days",
                )
            for line in lines:
                try:
                    task = ended_task(line)
                except ValueError as error:
                    self._warn_archive(
                        "lines",
                        f"has a line that cannot be read, and that is ignored: {error}. A rule must write "
                        "whole events: no InputPath, no Input, no InputTransformer",
                    )
                    continue
                tasks += [task] if task is not None else []
        return latest_of_each(tasks)

    def _warn_archive(self, kind: str, what: str) -> None:
        """Warn about the log group of events, once for each kind of error."""
        if kind not in self._archive_warnings:
            self._archive_warnings.add(kind)
            log.warning(
                "the log group %s of [airflow_resilient] events_log_group %s. How tasks ended that ECS has "
                "forgotten may stay unknown",
                current().events_log_group,
                what,
            )

    def _read_archived(self, task: Mapping[str, Any], claim: Claim, created: float) -> Job:
        job = self._read(task, claim, now=created)
        return replace(job, facts={**job.facts, FROM_ARCHIVE: f"an event in {current().events_log_group}"})

    @staticmethod
    def _is_in(task: Mapping[str, Any], cluster: str) -> bool:
        """Whether an archived task ran in this cluster, by name or ARN."""
        return last_part(str(task.get("clusterArn") or "")) == last_part(cluster or "default")

    def doubted(self, job: Job) -> Job:
        """`job` without its facts, all of which come from observations."""
        return replace(job, facts={})

    def list_scopes(self) -> list[str]:
        """ARNs of all clusters of the account and region."""
        pages = self.client().get_paginator("list_clusters").paginate()
        return [arn for page in pages for arn in page["clusterArns"]]

    def list_jobs(self, scope: str) -> list[Job]:
        """The running ECS tasks of a cluster that bear a claim, of any owner.

        A task that is listed and cannot be described (yet, or any more) is left out: its claim is unknown.
        """
        jobs = []
        for task in self._describe(scope, self._list(scope, "RUNNING")):
            claim = Claim.read(str(task.get("startedBy") or ""))
            if claim is not None and str(claim) == task["startedBy"]:  # and nothing besides the claim
                jobs.append(self._read(task, claim))
        return jobs

    def read_log(
        self, job: Job, where: Mapping[str, Any], cursor: Any
    ) -> tuple[list[tuple[float, str]], Any]:
        """Read the new lines of the ECS task's log.

        :param where: ``{"group": str, "prefix": str, "region": str | None, "container": str | None}``.
        :param cursor: the cursor that the previous call returned; anything else means the beginning.
        :return: ``(seconds since 1970, message)`` and the next cursor.
        """
        stream = self.log_stream(job, where)
        if stream is None:
            return [], cursor
        return read_stream(self._logs(where), where["group"], stream, cursor)

    def last_lines(self, job: Job, where: Mapping[str, Any], count: int) -> tuple[str, ...]:
        """Read the end of the ECS task's log."""
        stream = self.log_stream(job, where)
        return last_lines(self._logs(where), where["group"], stream, count) if stream else ()

    def log_stream(self, job: Job, where: Mapping[str, Any]) -> str | None:
        """Name of the log stream; ``None`` while the containers are unknown.

        The task definition is looked up where neither `where` nor the task says which container is meant.
        """
        stream = log_stream(job, where)
        if stream is not None or not job.facts.get("containers"):
            return stream
        definitions = self._container_definitions(str(job.facts.get("task_definition")))
        if definitions is None:
            names = [name for name, _ in job.facts["containers"]]
            if not self._log_guessed:
                self._log_guessed = True
                log.warning(
                    "the log of %s is taken for that of container %s, the first one that ECS lists. Write "
                    "container_name, or allow ecs:DescribeTaskDefinition",
                    job.id,
                    names[0],
                )
            definitions = [{"name": name} for name in names]
        return log_stream(job, where, definitions)

    # --- internal ---

    def _logs(self, where: Mapping[str, Any]) -> Any:
        # As polls are made: an attempt that hangs or is throttled must not hold up other logs for minutes.
        return self.access.client("logs", region_name=where.get("region"), polling=True)

    def _list(self, cluster: str, status: str, **only: str) -> Iterator[str]:
        more: dict[str, str] = {}
        while True:
            page = self.client().list_tasks(
                **_cluster_argument(cluster), desiredStatus=status, **only, **more
            )
            yield from page["taskArns"]
            if not page.get("nextToken"):
                return
            more = {"nextToken": page["nextToken"]}

    def _describe(
        self, cluster: str, ids: Iterable[str], *, polling: bool = False
    ) -> Iterator[Mapping[str, Any]]:
        wanted = list(dict.fromkeys(ids))
        for start in range(0, len(wanted), _DESCRIBE_TASKS_MAX):
            batch = wanted[start : start + _DESCRIBE_TASKS_MAX]
            yield from self.client(polling=polling).describe_tasks(**_cluster_argument(cluster), tasks=batch)[
                "tasks"
            ]

    def _read(self, task: Mapping[str, Any], claim: Claim, now: float | None = None) -> Job:
        now = time.time() if now is None else now
        return read_task(task, claim, self._essential_of(task), now=now)

    def _essential_of(self, task: Mapping[str, Any]) -> frozenset[str] | None:
        """Names of a task's essential containers, looked up only if they decide how the task ended.

        They are in DescribeTaskDefinition only. A sidecar that AWS adds is in DescribeTasks only.
        """
        codes = {each.get("exitCode") for each in task.get("containers") or ()}
        ended_by_itself = task.get("stopCode") in (None, "", "EssentialContainerExited")
        if task.get("lastStatus") != "STOPPED" or len(codes) < 2 or not ended_by_itself:  # noqa: PLR2004
            return None
        definitions = self._container_definitions(str(task.get("taskDefinitionArn")))
        if definitions is None:
            return None  # denied: then every container counts as essential
        # Source: ContainerDefinition reference: essential if omitted
        return frozenset(each["name"] for each in definitions if each.get("essential", True))

    def _container_definitions(self, arn: str) -> Sequence[Mapping[str, Any]] | None:
        """What is needed of a task definition's containers, looked up once; ``None`` where that is denied."""
        if arn not in self._definitions:
            try:
                answer = self.client().describe_task_definition(taskDefinition=arn)
            except Exception as error:
                if self.is_transient(error) or not error_code(error):
                    raise
                return None
            needed = ("name", "essential", "logConfiguration")
            if len(self._definitions) >= 1000:  # noqa: PLR2004 - a triggerer lives for months
                self._definitions.clear()
            self._definitions[arn] = [
                {name: each[name] for name in needed if name in each}
                for each in answer["taskDefinition"]["containerDefinitions"]
            ]
        return self._definitions[arn]

    def _overrides(self, claim: Claim) -> dict[str, Any] | None:
        """The request's overrides with the generation of `claim`; see `GENERATION` in ``read.py``."""
        overrides = self.request.get("overrides")
        if overrides is not None and not isinstance(overrides, Mapping):
            return None  # boto3 reports it
        named = (overrides or {}).get("containerOverrides")
        container = self._first_container() if claim.generation and not named else None
        return with_generation(overrides, claim.generation, container)

    def _first_container(self) -> str | None:
        """The first container of the task definition; ``None`` if it cannot be read, which changes little."""
        from botocore.exceptions import BotoCoreError, ClientError

        definition = self.request.get("taskDefinition")
        try:
            answer = self.client(retries=False).describe_task_definition(taskDefinition=definition)
            return str(answer["taskDefinition"]["containerDefinitions"][0]["name"])
        except (BotoCoreError, ClientError, LookupError) as error:
            log.debug("the task definition %s cannot be read: %s", definition, error_text(error))
            return None

    def _not_yet_visible(self, arn: str, claim: Claim) -> Job:
        """A task that exists, although DescribeTasks does not know it yet."""
        return Job(arn, claim, Phase.QUEUED, time.time(), scope=self.cluster)

    def _check_owner(self, task: Mapping[str, Any], claim: Claim) -> Job:
        if task.get("startedBy") != str(claim):
            raise SubmitRefused(
                f"the client token {claim.token} belongs to {task['taskArn']}, which was started by "
                f"{task.get('startedBy')!r} and not by {claim}: nothing was changed. Only this library "
                "should use such tokens; find out what else does.",
            )
        return self._read(task, claim)

    def _adopt(self, claim: Claim, error: Exception) -> Job:
        """The task that this token has started, with a request that was rendered differently.

        Source: RunTask reference, ConflictException: ``resourceIds`` are the tasks that the token started.
        """
        arns: Sequence[str] = getattr(error, "response", {}).get("resourceIds") or []
        if not arns:
            raise error
        known = list(self._describe(self.cluster, arns))
        if not known:
            return self._not_yet_visible(arns[0], replace(claim, generation=""))
        return self._check_owner(known[0], claim)

    def _name(self) -> str:
        return f"{self.request.get('taskDefinition')} in cluster {self.cluster or 'default'}"

    def _raise_not_started(self, failures: Sequence[Mapping[str, Any]]) -> NoReturn:
        reasons = dict.fromkeys(
            " ".join(filter(None, (each.get("reason"), each.get("detail")))) for each in failures
        )
        shown = self.hide(", ".join(reasons))
        text = f"ECS started no task {self._name()}: {shown or 'no reason given'}"
        response = {"failures": [{name: self.hide(str(each[name])) for name in each} for each in failures]}
        codes = [str(each.get("reason") or "") for each in failures]  # the detail names what the user wrote
        theirs = f"{EXCEPTIONS}:EcsOperatorError"
        if any(says(code, _CAPACITY_FAILURE) for code in codes):
            raise also(NoCapacity(text, response), theirs, failures=response["failures"], message=text)
        text += ". Check placement, launch type and task definition."
        raise also(NotSubmitted(text, response), theirs, failures=response["failures"], message=text)

    def _raise_refusal(self, error: Exception) -> None:
        """Raise the error for a failed RunTask, unless it is transient or not an answer of AWS."""
        from botocore.exceptions import ClientError, ParamValidationError

        if self.is_transient(error):
            return
        if not isinstance(error, ClientError | ParamValidationError):
            return
        code, message = error_code(error), self.hide(redacted_text(error))
        response = {"Error": {"Code": code, "Message": message}}
        if code and says(str(error), _CAPACITY_ERROR, self.quoted()):
            raise NoCapacity(f"ECS started no task {self._name()}: {message}", response) from None
        text = f"ECS refuses to run {self._name()}: {message} {_ADVICE.get(code, 'Correct the request.')}"
        refused = SubmitRefused(text, response)
        if isinstance(error, ClientError):
            refused = also(refused, CLIENT_ERROR, operation_name=error.operation_name)
        raise refused from None

    def hide(self, text: str) -> str:
        """`text` without values of the request that may be secrets, because AWS may quote the request."""
        return redact(text, secrets_of(self.request))

    def _raise_denied_lookup(self, error: Exception) -> None:
        """Raise the error for a denied search: without it, the task of an earlier try could run twice."""
        if error_code(error) == "AccessDeniedException":
            text = (
                f"ECS denied the search for tasks of earlier tries in {self.cluster or 'default'}: "
                f"{redacted_text(error)} Allow ecs:ListTasks and ecs:DescribeTasks."
            )
            response = getattr(error, "response", None)
            operation = getattr(error, "operation_name", "ListTasks")
            raise also(SubmitRefused(text, response), CLIENT_ERROR, operation_name=operation) from None


def _why_no_archive(error: Exception) -> str:
    """Why a log group cannot be searched, and what to do."""
    if error_code(error) == "ResourceNotFoundException":
        return "there is no such log group in this region. Create it, or correct the setting"
    advice = " Allow logs:FilterLogEvents on it" if is_denied(error) else ""
    return f"{redacted_text(error)}{advice}"


def _is_task(task: Mapping[str, Any], name: str) -> bool:
    """Whether a described task has this id or ARN."""
    return task_id_of(str(task["taskArn"])) == task_id_of(name)


def _cluster_argument(cluster: str) -> dict[str, str]:
    return {"cluster": cluster} if cluster else {}
