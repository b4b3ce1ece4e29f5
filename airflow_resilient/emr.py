"""Steps of an Amazon EMR cluster as remote jobs, and the operator and the sensor for them.

EMR has no idempotency token: a step bears its claim in its name, ``sort [af-abcdefghijklmnop-1]``, and a
submission whose answer was lost is looked for before it is sent again. The steps of one operator are one job.
"""

from __future__ import annotations

import ast
import contextlib
import json
import logging
import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from . import compat
from .aws import AwsAccess, error_code, is_denied, is_throttle, say
from .budget import Budget, SharedBucket
from .compat import conf
from .errors import (
    InvalidParameter,
    JobFailed,
    JobLost,
    NoCapacity,
    NotSubmitted,
    SubmitRefused,
    Unobservable,
)
from .jobs import CLOCK_SKEW, Cause, Claim, Job, Phase
from .links import EmrClusterLink, EmrStepLogsLink
from .operators import LogTail, RemoteJobOperator, RemoteJobSensor
from .parameters import (
    DEFAULT_DEFERRABLE,
    access_of,
    looks_every,
    may_change,
    one_region,
    reject,
    say_instead,
)
from .settings import Usual
from .words import short

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

Step: TypeAlias = Mapping[str, Any]

ACTIVE_STATES = ("PENDING", "RUNNING", "CANCEL_PENDING")
"""States of a step that has not ended. Source: StepStatus, State."""
ADDABLE_STATES = ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING")
"""States of a cluster that takes steps. Source: AddJobFlowSteps reference."""
ACTIONS_ON_FAILURE = ("TERMINATE_JOB_FLOW", "TERMINATE_CLUSTER", "CANCEL_AND_WAIT", "CONTINUE")
"""Source: StepConfig reference, ActionOnFailure."""
MOST_STEPS = 256
"""Steps that may be active on a cluster, and steps of one call. Source: management guide, "Submit work to a
cluster"; CancelSteps reference."""
NAME_LENGTH = 256
"""Characters of a step's name. Source: StepConfig reference, Name (``XmlStringMaxLen256``)."""

_IDS_PER_CALL = 10  # Source: ListSteps reference, StepIds
_STEPS_PER_PAGE = 50  # Source: ListSteps reference, "up to 50 steps"
_QUICK_PAGES, _PAGE_PAUSE = (
    8,
    2.0,
)  # Source: Service Quotas L-72BCD5B1, ListSteps: 10 at once, then 0.5 a second
_DIED_TOGETHER = (
    900.0  # seconds by which a step may have ended before its cluster and still have died with it
)
_CLUSTER_LOOK_KEPT = 15.0
_CLUSTERS_KEPT = 1000
_WORD = 3  # characters; a shorter argument is no secret, and hiding it would make the message unreadable
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
_MARKER = re.compile(r"\[af-([a-z2-7]{16})-(\d+)(?:-(\d+))?(?: (\d+)/(\d+))?\]$")
_AWS_VALUE = re.compile(r"Value '.*?' at '", re.DOTALL)
_INFRASTRUCTURE = frozenset(
    {"INTERNAL_ERROR", "INSTANCE_FAILURE", "INSTANCE_FLEET_TIMEOUT", "BOOTSTRAP_FAILURE"}
)


# --- the claim on the steps' names ----------------------------------------------------------------


@dataclass(frozen=True)
class Marker:
    """What the end of a step's name says: step `place` of `of` of the submission that `claim.token` names."""

    claim: Claim
    place: int = 1
    of: int = 1


def mark(steps: Sequence[Step], claim: Claim) -> list[dict[str, Any]]:
    """Copies of `steps` whose names bear `claim`; the caller's part is shortened where AWS's limit needs it.

    >>> [step["Name"] for step in mark([{"Name": "sort"}], Claim("abcdefghijklmnop", 1))]
    ['sort [af-abcdefghijklmnop-1]']
    >>> [step["Name"] for step in mark([{"Name": "a"}, {"Name": "b"}], Claim("abcdefghijklmnop", 1, again=2))]
    ['a [af-abcdefghijklmnop-1-2 1/2]', 'b [af-abcdefghijklmnop-1-2 2/2]']
    """
    marked = []
    for place, step in enumerate(steps, 1):
        marker = f" [{claim.token}]" if len(steps) == 1 else f" [{claim.token} {place}/{len(steps)}]"
        name, room = str(step["Name"]), NAME_LENGTH - len(marker)
        marked.append({**step, "Name": (name if len(name) <= room else name[: room - 1] + "…") + marker})
    return marked


def read_marker(name: str) -> Marker | None:
    """The marker at the end of a step's name; ``None``: not one of ours.

    >>> read_marker("b [af-abcdefghijklmnop-1-2 2/3]")
    Marker(claim=Claim(family='abcdefghijklmnop', number=1, again=2), place=2, of=3)
    """
    found = _MARKER.search(name)
    if not found:
        return None
    family, number, again, place, of = found.groups()
    return Marker(Claim(family, int(number), int(again or 0)), int(place or 1), int(of or 1))


def group(steps: Iterable[Step], claims: Iterable[Claim]) -> list[tuple[Marker, list[Step]]]:
    """Sort the steps that bear one of `claims` into submissions.

    A lost answer can make one submission twice, hence two sets of steps with equal names: the k-th step of
    each place, in the order of creation, belongs to the k-th set. A set may lack steps that are not listed
    (yet).

    :param steps: elements of ListSteps' ``Steps``; those created at the same moment in the order of their
        creation.
    :return: the marker of one step of each set, and the set in the order of its places.
    """
    wanted = set(claims)
    seen: Counter[tuple[str, int, int]] = Counter()
    sets: dict[tuple[str, int, int], list[tuple[Marker, Step]]] = defaultdict(list)
    for step in sorted(steps, key=_created):
        marker = read_marker(step["Name"])
        if marker is None or marker.claim not in wanted:
            continue
        name = (marker.claim.token, marker.of, marker.place)
        sets[marker.claim.token, marker.of, seen[name]].append((marker, step))
        seen[name] += 1
    ordered = [sorted(members, key=lambda member: member[0].place) for members in sets.values()]
    return [(members[0][0], [step for _, step in members]) for members in ordered]


# --- reading answers ------------------------------------------------------------------------------


def read_steps(
    steps: Sequence[Step],
    claim: Claim,
    cluster_id: str,
    of: int | None = None,
    *,
    created: float = 0.0,
    cluster: Mapping[str, Any] | None = None,
) -> Job:
    """One look at one submission, from its steps.

    It has succeeded only when every step is known to be COMPLETED. A state that this version does not know
    counts as running. Steps that are not listed (yet) count as queued.

    :param steps: elements of ListSteps' ``Steps``, ``{"Id": str, "Name": str, "Status": {"State": str,
        ...}}``; of a step that is not looked at again, only its id and its last state.
    :param of: how many steps were submitted; by default as many as there are.
    :param created: for steps without a timeline.
    :param cluster: ``Cluster.Status`` of DescribeCluster, where the steps may have died with their cluster.

    Source: StepStatus and ClusterStateChangeReason in the EMR API reference.
    """
    states = [str(step["Status"]["State"]) for step in steps]
    missing = (of or len(steps)) - len(steps)
    phase = _phase_of(states, missing)
    cause, reason = Cause.UNKNOWN, ""
    if phase in (Phase.FAILED, Phase.CANCELLED):
        bad = [step for step in steps if step["Status"]["State"] != "COMPLETED"]
        bad.sort(key=lambda step: step["Status"]["State"] == "CANCELLED")  # failures tell more
        phase, cause, advice = _verdict(phase, bad, cluster or {})
        others = f" ({len(bad) - 1} more of {len(steps)} steps did not complete.)" if len(bad) > 1 else ""
        reason = f"{_step_end(bad[0])}{_cluster_end(cluster_id, cluster or {}, bad)}{others} {advice}"
    ends = [end.timestamp() for step in steps if (end := _timeline(step).get("EndDateTime"))]
    facts: dict[str, Any] = {
        "steps": [[step["Id"], state] for step, state in zip(steps, states, strict=True)]
    }
    if missing > 0:
        facts["of"] = of
    if len(states) == 1:
        facts["state"] = states[0]
    return Job(
        ",".join(str(step["Id"]) for step in steps),
        claim,
        phase,
        min([made for step in steps if (made := _created(step))], default=created),
        scope=cluster_id,
        reason=reason,
        cause=cause,
        ended=max(ends, default=None) if not phase.live else None,
        facts=facts,
    )


def _phase_of(states: Sequence[str], missing: int) -> Phase:
    known = {"PENDING", "CANCEL_PENDING", "COMPLETED", "CANCELLED", "FAILED", "INTERRUPTED"}
    if any(state not in known for state in states):  # RUNNING, or a state that AWS added later
        return Phase.RUNNING
    if "PENDING" in states:
        return Phase.RUNNING if len(set(states)) > 1 else Phase.QUEUED
    if "CANCEL_PENDING" in states:
        return Phase.STOPPING
    if missing > 0 or not states:
        return Phase.QUEUED
    if all(state == "COMPLETED" for state in states):
        return Phase.SUCCEEDED
    return Phase.FAILED if {"FAILED", "INTERRUPTED"} & set(states) else Phase.CANCELLED


def _verdict(phase: Phase, bad: Sequence[Step], cluster: Mapping[str, Any]) -> tuple[Phase, Cause, str]:
    """What a bad end means, why, and what to do.

    A running step of a cluster that a person terminates is cancelled, so one that shows failure details
    failed by itself before. Source: TerminateJobFlows reference, "any step not yet completed is canceled".
    """
    code = _died_with(cluster, bad)
    if code in _INFRASTRUCTURE:
        return Phase.FAILED, Cause.INFRASTRUCTURE, "The steps are not to blame: run them on a sound cluster."
    if code == "USER_REQUEST" and not any(step["Status"].get("FailureDetails") for step in bad):
        return Phase.CANCELLED, Cause.USER, "Start a cluster and run them again if that was not intended."
    if phase is Phase.FAILED:
        cause = (
            Cause.APPLICATION if any(step["Status"]["State"] == "FAILED" for step in bad) else Cause.UNKNOWN
        )
        return phase, cause, "Look at the step's log (stderr, controller), mend the step, run it again."
    if code:  # the cluster ended because a step of somebody else failed
        return Phase.FAILED, Cause.UNKNOWN, "Find out which step ended the cluster."
    advice = (
        "A person or a tool cancelled it, or a step before it failed with ActionOnFailure=CANCEL_AND_WAIT."
    )
    return phase, Cause.USER, advice


def _died_with(cluster: Mapping[str, Any], bad: Sequence[Step]) -> str:
    """Why the cluster ended, if these steps may have ended with it; ``""`` otherwise."""
    if cluster.get("State") not in ("TERMINATING", "TERMINATED", "TERMINATED_WITH_ERRORS"):
        return ""
    ended = cluster.get("Timeline", {}).get("EndDateTime")
    last = max((end for step in bad if (end := _timeline(step).get("EndDateTime"))), default=None)
    if ended and last and ended.timestamp() - last.timestamp() > _DIED_TOGETHER:
        return ""
    return str(cluster.get("StateChangeReason", {}).get("Code") or "")


def _step_end(step: Step) -> str:
    status = step["Status"]
    details = status.get("FailureDetails") or {}
    changed = (status.get("StateChangeReason") or {}).get("Message")
    told = ": ".join(
        short(str(text), 120) for text in (details.get("Reason") or changed, details.get("Message")) if text
    )
    where = f" (log file: {short(str(details['LogFile']), 160)})" if details.get("LogFile") else ""
    name = _MARKER.sub("", step.get("Name", "")).strip()
    shown = f" {short(str(name), 60)!r}" if name else ""
    return f"step {step['Id']}{shown} {status['State']}" + (f": {told}" if told else "") + where + "."


def _cluster_end(cluster_id: str, cluster: Mapping[str, Any], bad: Sequence[Step]) -> str:
    code = _died_with(cluster, bad)
    message = (cluster.get("StateChangeReason") or {}).get("Message")
    because = f" ({short(str(message), 80)})" if message else ""
    return f" Its cluster {cluster_id} ended by {code}{because}." if code else ""


def _timeline(step: Step) -> Mapping[str, Any]:
    return step["Status"].get("Timeline") or {}


def _created(step: Step) -> float:
    made = _timeline(step).get("CreationDateTime")
    return float(made.timestamp()) if made else 0.0


@dataclass(frozen=True)
class Ask:
    """How to learn about some steps of a cluster with the fewest calls.

    :param by_pages: list the active steps, 50 on a page, and ask for what is not among them by its ids;
        otherwise ask for all by their ids, ten at a time.
    :param calls: how many calls that takes.
    """

    by_pages: bool
    calls: int


def how_to_ask(wanted: int, active: int | None) -> Ask:
    """Choose the way that needs fewer calls; by ids where both need the same, for that is exact.

    :param wanted: how many steps are asked about.
    :param active: how many steps were active on the cluster at the last look, whoever's; ``None``: as many as
        are asked about, for all that is known.

    >>> how_to_ask(10, None), how_to_ask(11, None), how_to_ask(30, 256)
    (Ask(by_pages=False, calls=1), Ask(by_pages=True, calls=2), Ask(by_pages=False, calls=3))

    Some of the steps will have ended since the last look; one call more is reckoned for them.
    """
    by_ids = math.ceil(wanted / _IDS_PER_CALL)
    pages = max(1, math.ceil((wanted if active is None else active) / _STEPS_PER_PAGE))
    return Ask(by_pages=True, calls=pages + 1) if pages < by_ids else Ask(by_pages=False, calls=by_ids)


# --- the request ----------------------------------------------------------------------------------


def complaint(steps: Any, *, rendered: bool) -> str | None:
    """What is wrong with `steps`, in words that show no argument of a step; ``None`` when nothing is.

    :param rendered: templates have been rendered; before that, what may be a template is let pass.
    """
    if not isinstance(steps, (list, tuple)):
        if not rendered and _unrendered(steps):
            return None
        return f"a {type(steps).__name__} is no list of steps"
    if not steps:
        return "there is no step in it"
    if len(steps) > MOST_STEPS:
        return (
            f"there are {len(steps)} steps in it; a cluster takes {MOST_STEPS} at a time: write several tasks"
        )
    for place, step in enumerate(steps, 1):
        if not rendered and _unrendered(step):
            continue
        wrong = _complaint_about(step, rendered=rendered)
        if wrong:
            return f"step {place} {wrong}"
    return None


def _complaint_about(step: Any, *, rendered: bool) -> str | None:
    if not isinstance(step, Mapping):
        return f"is a {type(step).__name__}, not a dict"
    if not step.get("Name"):
        return "has no Name"
    jar = step.get("HadoopJarStep")
    if not (not rendered and _unrendered(jar)) and not (isinstance(jar, Mapping) and jar.get("Jar")):
        return f"({short(str(step['Name']), 60)!r}) has no HadoopJarStep with a Jar"
    action = step.get("ActionOnFailure", "CONTINUE")
    if not (not rendered and _unrendered(action)) and action not in ACTIONS_ON_FAILURE:
        return (
            f"({short(str(step['Name']), 60)!r}) has ActionOnFailure={action!r}, which is none of "
            + ", ".join(ACTIONS_ON_FAILURE)
        )
    return None


def _unrendered(value: Any) -> bool:
    """Whether rendering may still change `value`, be it that it names a template file."""
    return may_change(value) or (isinstance(value, str) and value.endswith(".json"))


def read_list(value: Any) -> Any:
    """The list that a rendered template stands for: JSON, else a Python literal, such as a list from XCom.

    Nothing is evaluated: ``ast.literal_eval`` reads literals only.

    :raises ValueError: a text that is neither. The error shows nothing of it.

    >>> read_list('[{"Name": "a", "x": true}]'), read_list("[{'Name': 'a', 'x': True}]")
    ([{'Name': 'a', 'x': True}], [{'Name': 'a', 'x': True}])
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError("the text is neither JSON nor a Python literal") from None


_EXAMPLE = (
    "[{'Name': 'sort', 'HadoopJarStep': {'Jar': 'command-runner.jar', 'Args': ['spark-submit', 's3://…']}}]"
)


# --- the service ----------------------------------------------------------------------------------


@dataclass
class EmrSteps:
    """Steps of EMR clusters as `RemoteJobs`: all steps of one request are one job.

    A job's id is its step ids, joined by commas; ``facts["steps"]`` is ``[[step id, state], ...]``.

    :param job_flow_id: the cluster to add steps to.
    :param job_flow_name: or its name: exactly one cluster of that name must be in one of `cluster_states`.
    :param cluster_states: by default, the states in which a cluster takes steps; if no cluster of that name
        is in one of them, any state, so that a retry finds what a cluster that has ended meanwhile did for
        it.
    :param steps: boto3's ``Steps``, or a function that makes them when they are needed.
    :param execution_role_arn: boto3's ``ExecutionRoleArn``.
    :param not_before: start of the DAG run: steps that ended and were created before that are not looked for.
    :param sleep: between pages of a very long list of steps.
    """

    aws_conn_id: str | None = "aws_default"
    region_name: str | None = None
    verify: bool | str | None = None
    botocore_config: Mapping[str, Any] | None = None
    job_flow_id: str | None = None
    job_flow_name: str | None = None
    cluster_states: Sequence[str] = ()
    steps: Sequence[Step] | Callable[[], Sequence[Step]] = ()
    execution_role_arn: str | None = None
    not_before: float = 0.0
    sleep: Callable[[float], None] = time.sleep
    access: AwsAccess = field(init=False, repr=False)
    listing_lag: float = field(default=5.0, init=False)
    batch_size: int = field(default=MOST_STEPS, init=False)
    kind: ClassVar[str] = "emr"
    # Source: Service Quotas L-72BCD5B1, ListSteps. DescribeCluster, asked only when steps ended badly, has a
    # bucket of its own.
    budget: ClassVar[Budget] = Budget(
        "emr:ListSteps", per_second=0.5, burst=10.0, operations=("emr:ListSteps",), places="clusters"
    )
    _active: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    _cluster_id: str | None = field(default=None, init=False, repr=False)
    _clusters_listed: int = field(default=0, init=False, repr=False)
    _clusters: dict[str, tuple[float, Mapping[str, Any] | None]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        self.access = AwsAccess(self.aws_conn_id, self.region_name, self.verify, self.botocore_config)

    def address(self) -> dict[str, Any]:
        """What it takes to look at any step of this account: no cluster, no steps."""
        return self.access.address()

    def is_transient(self, error: Exception) -> bool:
        """See `AwsAccess.is_transient`."""
        return self.access.is_transient(error)

    # --- what the watch asks ---

    def account(self) -> str:
        """Whose budget of calls is used."""
        return self.access.account("emr")

    def meter(self, bucket: SharedBucket) -> None:
        """Count every call in `bucket`."""
        self.access.count_in(bucket)

    def cost(self, jobs: Sequence[Job]) -> float:
        """Calls of a look at these jobs, by what was seen of their cluster last."""
        scopes: dict[str, set[str]] = defaultdict(set)
        lacking = 0
        for job in jobs:
            if _lacks_steps(job):
                lacking += 1
            else:
                scopes[job.scope].update(_unfinished(job))
        calls = sum(how_to_ask(len(ids), self._active.get(scope)).calls for scope, ids in scopes.items())
        return float(calls + lacking)

    def event_keys(self, job: Job) -> tuple[str, ...]:
        """How events name the job: by each of its steps."""
        return tuple(_ids(job))

    def is_throttle(self, error: Exception) -> bool:
        """Whether there were too many calls."""
        return is_throttle(error)

    def refuses_scope(self, error: Exception) -> bool:
        """Whether each step of the cluster would be refused."""
        return is_denied(error) or _no_such_cluster(error)

    # --- find, submit ---

    def find(self, claims: Sequence[Claim]) -> list[Job]:
        """Jobs of the cluster whose steps bear one of `claims`, ended ones as far back as `not_before`.

        :raises SubmitRefused: the cluster cannot be told, or its steps may not be listed: what is running
            there cannot be known, so nothing may be submitted.
        """
        from botocore.exceptions import ClientError

        cluster_id = self.cluster_id()
        try:
            return self._find(cluster_id, claims, self.not_before)
        except ClientError as error:
            if self.is_transient(error):
                raise
            if _no_such_cluster(error):  # it has no steps; the submission will say so to the user
                return []
            raise SubmitRefused(
                f"nothing is submitted, because EMR does not say whether steps of this task run on "
                f"{cluster_id} already: {error}{_permission(error, 'ListSteps')}",
                error.response,
            ) from None

    def submit(self, claim: Claim) -> Job:
        """Add the steps with one call that is never repeated by itself.

        EMR has no idempotency token, and one call whose answer was a 500 made two steps with botocore's
        retries on (Verified: ``test_one_lost_answer_makes_one_step``). What is ambiguous is raised as it is:
        look, then decide.
        """
        from botocore.exceptions import ClientError, ParamValidationError

        cluster_id = self.cluster_id()
        steps = self._requested()
        role = {"ExecutionRoleArn": self.execution_role_arn} if self.execution_role_arn else {}
        client = self.access.client("emr", retries=False)
        try:
            answer = client.add_job_flow_steps(JobFlowId=cluster_id, Steps=mark(steps, claim), **role)
        except ParamValidationError as error:
            raise SubmitRefused(
                f"the steps are not what AddJobFlowSteps takes: {_hide(say(error), steps)}"
            ) from None
        except ClientError as error:
            if self.is_transient(error):
                raise
            raise self._refusal(error, cluster_id, steps) from None
        added: list[Step] = [{"Id": step_id, "Status": {"State": "PENDING"}} for step_id in answer["StepIds"]]
        return read_steps(added, claim, cluster_id, len(steps), created=_answered(answer))

    def cluster_id(self) -> str:
        """The id of the cluster, looked up by its name if need be, once.

        :raises SubmitRefused: there is no such cluster, or more than one.
        """
        if self.job_flow_id is not None:
            if not self.job_flow_id or self.job_flow_id == "None":
                raise SubmitRefused(
                    f"job_flow_id is {self.job_flow_id!r} after rendering: the template found nothing. Write "
                    "an id, or a template whose value an earlier task has pushed."
                )
            return self.job_flow_id
        if self._cluster_id is None:
            self._cluster_id = self._cluster_by_name()
        return self._cluster_id

    def _cluster_by_name(self) -> str:
        from botocore.exceptions import ClientError, ParamValidationError

        states = list(self.cluster_states)
        try:
            found = self._clusters_named(states or list(ADDABLE_STATES))
            if not found and not states:
                found = self._clusters_named([])
        except (ClientError, ParamValidationError) as error:
            if self.is_transient(error):
                raise
            raise SubmitRefused(
                f"the cluster named {self.job_flow_name!r} cannot be looked up: {say(error)}"
                f"{_permission(error, 'ListClusters')}"
            ) from None
        where = f" in one of the states {', '.join(states)}" if states else ""
        if not found:
            raise SubmitRefused(
                f"no EMR cluster named {self.job_flow_name!r} exists{where}. Start one, or correct "
                "job_flow_name, cluster_states or region_name."
            )
        if len(found) > 1:
            raise SubmitRefused(
                f"{len(found)} EMR clusters are named {self.job_flow_name!r}{where}: {', '.join(found[:5])}. "
                "Narrow cluster_states, or write job_flow_id."
            )
        log.info("the EMR cluster named %r is %s", self.job_flow_name, found[0])
        return found[0]

    def _clusters_named(self, states: list[str]) -> list[str]:
        pages = self._client().get_paginator("list_clusters").paginate(ClusterStates=states)
        return [
            each["Id"] for page in pages for each in page["Clusters"] if each["Name"] == self.job_flow_name
        ]

    def _requested(self) -> Sequence[Step]:
        try:
            steps = self.steps() if callable(self.steps) else self.steps
            wrong = complaint(steps, rendered=True)
        except ValueError as error:
            wrong = str(error)
        if wrong:
            raise SubmitRefused(
                f"steps: {wrong}; write a list of boto3's steps or its JSON, such as {_EXAMPLE}"
            )
        return steps

    def _refusal(self, error: Any, cluster_id: str, steps: Sequence[Step]) -> NotSubmitted:
        text = _hide(str(error), steps)
        response = {"Error": {"Code": error_code(error), "Message": text}}
        # The code is ValidationException for all of these; the text is all that tells them apart.
        if "Maximum number of active steps" in text:
            return NoCapacity(f"cluster {cluster_id} has {MOST_STEPS} active steps already: {text}", response)
        if error_code(error) in _DENIED:
            advice = _permission(error, "AddJobFlowSteps")
        elif "shutting down" in text or "terminated" in text.lower():
            advice = (
                f"{self._why_cluster_ended(cluster_id)} Start a cluster and name it here; with job_flow_name "
                "instead of job_flow_id, a retry finds its successor."
            )
        elif "job flow ID" in text or "luster id" in text:
            advice = " Correct job_flow_id, region_name or aws_conn_id."
        else:
            advice = " Correct the steps, or the cluster."
        return SubmitRefused(f"EMR took no step for cluster {cluster_id}: {text}{advice}", response)

    def _why_cluster_ended(self, cluster_id: str) -> str:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            status = self.access.client("emr", retries=False).describe_cluster(ClusterId=cluster_id)[
                "Cluster"
            ]["Status"]
        except (BotoCoreError, ClientError):  # it only makes the message better
            return ""
        return _cluster_end(cluster_id, status, ())

    # --- look ---

    def observe(self, jobs: Sequence[Job]) -> list[Job]:
        """Look at the jobs' steps with as few calls as possible; a job that EMR does not know is left out."""
        scopes: dict[str, list[Job]] = defaultdict(list)
        for job in jobs:
            scopes[job.scope].append(job)
        looks = []
        for cluster_id, members in scopes.items():
            whole = [job for job in members if not _lacks_steps(job)]
            unfinished = [step for job in whole for step in _unfinished(job)]
            known = self._steps_by_id(cluster_id, unfinished, looking=True)
            looks += [
                self._look(job, _with_finished(job, known))
                for job in whole
                if known.keys() & _unfinished(job)
            ]
            looks += [self._look(job, *found) for job in members if (found := self._rest_of(job))]
        return [look for look in looks if look is not None]

    def _look(self, job: Job, steps: Sequence[Step], of: int | None = None) -> Job | None:
        """A look at `job`; ``None`` when nothing of it lives and not all of it is known."""
        of = of or len(_ids(job))
        look = self._read(steps, job.claim, job.scope, of, created=job.created)
        known_live = any(step["Status"]["State"] in ACTIVE_STATES for step in steps)
        if look.live and len(steps) < of and not known_live:
            return None
        return replace(look, id=job.id)

    def _rest_of(self, job: Job) -> tuple[Sequence[Step], int] | None:
        """All steps, by their names, of a job that lacked some when it was found."""
        if not _lacks_steps(job):
            return None
        ids = set(_ids(job))
        for marker, steps in self._named(job.scope, [job.claim], job.created):
            if ids & {step["Id"] for step in steps}:
                return steps, marker.of
        return None

    def _find(self, cluster_id: str, claims: Sequence[Claim], not_before: float) -> list[Job]:
        found = self._named(cluster_id, claims, not_before)
        return [self._read(steps, marker.claim, cluster_id, marker.of) for marker, steps in found]

    def _named(
        self, cluster_id: str, claims: Sequence[Claim], not_before: float
    ) -> list[tuple[Marker, list[Step]]]:
        """The submissions that bear one of `claims`, and were made after `not_before` or are still active."""
        listed: dict[str, Step] = {}
        for page in self._pages(cluster_id):  # newest first
            listed.update((step["Id"], step) for step in page)
            if page and _created(page[-1]) < not_before - CLOCK_SKEW:
                older = [
                    step for page in self._pages(cluster_id, StepStates=list(ACTIVE_STATES)) for step in page
                ]
                listed.update((step["Id"], step) for step in older if step["Id"] not in listed)
                break
        return group(reversed(listed.values()), claims)

    def _steps_by_id(self, cluster_id: str, ids: Sequence[str], *, looking: bool = False) -> dict[str, Step]:
        """What EMR knows of these steps: active ones by pages of 50, what is left by ids, ten at a time.

        Whichever needs fewer calls: the listing is left as soon as the rest costs less by its ids.
        """
        known: dict[str, Step] = {}
        left = dict.fromkeys(ids)
        expected = self._active.get(cluster_id)
        if how_to_ask(len(left), expected).by_pages:
            active, exact = 0, True
            expected = len(left) if expected is None else expected
            for page in self._pages(cluster_id, looking=looking, StepStates=list(ACTIVE_STATES)):
                active += len(page)
                for step in page:
                    if step["Id"] in left:
                        del left[step["Id"]]
                        known[step["Id"]] = step
                more = max(1, math.ceil((expected - active) / _STEPS_PER_PAGE))
                if math.ceil(len(left) / _IDS_PER_CALL) <= more:
                    exact = len(page) < _STEPS_PER_PAGE
                    break
            self._note_active(cluster_id, active if exact else max(active, expected))
        elif expected:
            self._note_active(cluster_id, expected // 2)  # what was seen gets old: look again some day
        rest = list(left)
        for start in range(0, len(rest), _IDS_PER_CALL):
            portion = rest[start : start + _IDS_PER_CALL]
            known.update((step["Id"], step) for step in self._ask_for(cluster_id, portion, looking=looking))
        return known

    def _note_active(self, cluster_id: str, count: int) -> None:
        if len(self._active) >= _CLUSTERS_KEPT:  # a triggerer lives for months
            self._active.clear()
        self._active[cluster_id] = count

    def _ask_for(self, cluster_id: str, ids: list[str], *, looking: bool = False) -> list[Step]:
        from botocore.exceptions import ClientError

        try:
            client = self._client(looking=looking)
            found: list[Step] = client.list_steps(ClusterId=cluster_id, StepIds=ids)["Steps"]
        except ClientError as error:
            # AWS does not document what an unknown id does. If it refuses the call, the others must not
            # suffer.
            if error_code(error) != "InvalidRequestException" or _no_such_cluster(error):
                raise
            if len(ids) == 1:
                return []
            half = len(ids) // 2
            return self._ask_for(cluster_id, ids[:half], looking=looking) + self._ask_for(
                cluster_id, ids[half:], looking=looking
            )
        return found

    def _pages(self, cluster_id: str, *, looking: bool = False, **only: Any) -> Iterator[list[Step]]:
        """Pages of ListSteps: 50 steps each, newest first where they are not filtered.

        Beyond what the bucket of calls holds they are asked for at the speed at which it is refilled: a look
        that is throttled on its way would begin anew each time.
        """
        number = 0
        marker: dict[str, str] = {}
        while True:
            if number >= _QUICK_PAGES:
                self.sleep(_PAGE_PAUSE)
            answer = self._client(looking=looking).list_steps(ClusterId=cluster_id, **only, **marker)
            yield answer.get("Steps", [])
            if not answer.get("Marker"):
                return
            number, marker = number + 1, {"Marker": answer["Marker"]}

    def _read(
        self, steps: Sequence[Step], claim: Claim, cluster_id: str, of: int, created: float = 0.0
    ) -> Job:
        """`read_steps`, and a question to the cluster when they ended badly."""
        job = read_steps(steps, claim, cluster_id, of, created=created)
        if job.phase not in (Phase.FAILED, Phase.CANCELLED):
            return job
        return read_steps(
            steps, claim, cluster_id, of, created=created, cluster=self._cluster_status(cluster_id)
        )

    def _cluster_status(self, cluster_id: str) -> Mapping[str, Any] | None:
        """``Cluster.Status`` of DescribeCluster, some seconds old at most; ``None`` when nobody tells."""
        from botocore.exceptions import ClientError

        at, status = self._clusters.get(cluster_id, (float("-inf"), None))
        if time.monotonic() - at < _CLUSTER_LOOK_KEPT:
            return status
        try:
            status = self._client().describe_cluster(ClusterId=cluster_id)["Cluster"]["Status"]
        except ClientError as error:
            if self.is_transient(error):
                raise
            log.warning(
                "whether steps died with their cluster %s is not known: %s%s",
                cluster_id,
                error,
                _permission(error, "DescribeCluster"),
            )
            status = None
        if len(self._clusters) >= _CLUSTERS_KEPT:
            self._clusters.clear()
        self._clusters[cluster_id] = (time.monotonic(), status)
        return status

    # --- list ---

    def scopes(self) -> list[str]:
        """Ids of all clusters of the account and region on which steps can be active."""
        pages = self._client().get_paginator("list_clusters").paginate(ClusterStates=list(ADDABLE_STATES))
        return [each["Id"] for page in pages for each in page["Clusters"]]

    def claimed(self, scope: str) -> list[Job]:
        """The jobs of a cluster with an active step that bears a claim, whoever's.

        Of a job of several steps, those that have ended already may be missing in it.
        """
        if self._clusters_listed >= _QUICK_PAGES:  # each costs a ListSteps, of which the triggers need some
            self.sleep(_PAGE_PAUSE)
        self._clusters_listed += 1
        steps = [step for page in self._pages(scope, StepStates=list(ACTIVE_STATES)) for step in page]
        markers = [marker for step in steps if (marker := read_marker(step["Name"]))]
        sets = group(reversed(steps), [marker.claim for marker in markers])
        return [read_steps(found, marker.claim, scope, marker.of) for marker, found in sets]

    # --- cancel ---

    def cancel(self, job: Job, reason: str) -> Job:
        """Cancel what is active of `job` and bears its claim, and look again.

        ``TERMINATE_PROCESS``, because a step may ignore the signal that ``SEND_INTERRUPT`` (the default)
        sends, and its successor waits for its end. Neither reaches a YARN application that was submitted in
        cluster mode: that one runs on. Running steps can be cancelled on release 5.28.0 and newer only; the
        refusal is logged.

        Source: management guide, "Cancel steps"; CancelSteps reference (256 steps a call, idempotent,
        asynchronous).
        """
        from botocore.exceptions import ClientError

        if _lacks_steps(job):
            rest = self._rest_of(job)
            steps = list(rest[0]) if rest else []
        else:
            steps = list(self._steps_by_id(job.scope, _unfinished(job)).values())
        live = [step for step in steps if step["Status"]["State"] in ("PENDING", "RUNNING")]
        strangers = [step["Id"] for step in live if not _bears(step, job.claim)]
        if strangers:
            log.warning(
                "not cancelling %s: the name does not bear the claim %s", ", ".join(strangers), job.claim
            )
        ids = [step["Id"] for step in live if step["Id"] not in strangers]
        for start in range(0, len(ids), MOST_STEPS):
            portion = ids[start : start + MOST_STEPS]
            log.info("cancelling %s on %s: %s", ", ".join(portion), job.scope, reason)
            try:
                answer = self._client().cancel_steps(
                    ClusterId=job.scope, StepIds=portion, StepCancellationOption="TERMINATE_PROCESS"
                )
            except ClientError as error:
                if self.is_transient(error) or error_code(error) in _DENIED:
                    raise
                log.warning(
                    "EMR refuses to cancel %s: %s", ", ".join(portion), error
                )  # ended meanwhile: the look tells
                continue
            for info in answer.get("CancelStepsInfoList", []):
                if info.get("Status") == "FAILED":
                    log.warning(
                        "EMR does not cancel step %s: %s",
                        info.get("StepId"),
                        info.get("Reason") or "no reason given",
                    )
        return next(iter(self.observe([job])), job)

    # --- links ---

    def region(self) -> str:
        """The region that is asked, for links into AWS's console."""
        return str(self._client().meta.region_name)

    def log_uri(self, cluster_id: str) -> str | None:
        """Where the cluster's logs are. Asked once; trouble costs a link and nothing else.

        :raises LookupError: EMR knows no such cluster.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            cluster = self.access.client("emr", retries=False).describe_cluster(ClusterId=cluster_id)[
                "Cluster"
            ]
        except (BotoCoreError, ClientError) as error:
            if _no_such_cluster(error):
                raise LookupError(str(error)) from None
            log.info("no link to the logs of %s: %s", cluster_id, error)
            return None
        return cluster.get("LogUri") or None

    def _client(self, *, looking: bool = False) -> Any:
        return self.access.client("emr", looking=looking)


def _ids(job: Job) -> list[str]:
    """Ids of the job's steps; more than its own id tells, where some were not listed when it was found."""
    return [step_id for step_id, _ in job.facts.get("steps", ())] or job.id.split(",")


def _unfinished(job: Job) -> list[str]:
    """Ids of the steps that were not COMPLETED at the last look; those that were stay it."""
    done = {step_id for step_id, state in job.facts.get("steps", ()) if state == "COMPLETED"}
    ids = _ids(job)
    return [step_id for step_id in ids if step_id not in done] or ids


def _with_finished(job: Job, known: Mapping[str, Step]) -> list[Step]:
    """The job's steps as they are known now, with those that had completed before."""
    done: dict[str, Step] = {
        step_id: {"Id": step_id, "Status": {"State": state}}
        for step_id, state in job.facts.get("steps", ())
        if state == "COMPLETED"
    }
    return [step for step_id in _ids(job) if (step := known.get(step_id) or done.get(step_id))]


def _lacks_steps(job: Job) -> bool:
    return int(job.facts.get("of", 0)) > 0


def _bears(step: Step, claim: Claim) -> bool:
    marker = read_marker(step["Name"])
    return marker is not None and marker.claim == claim


def _no_such_cluster(error: BaseException) -> bool:
    """Whether the cluster is unknown. An unknown step has the same code: the text tells."""
    return error_code(error) == "InvalidRequestException" and "luster id" in str(error)


def _permission(error: BaseException, action: str) -> str:
    return f" Allow elasticmapreduce:{action} to this connection." if error_code(error) in _DENIED else ""


def _answered(answer: Mapping[str, Any]) -> float:
    """When the service answered, by its own clock: workers must agree on which duplicate is the oldest."""
    try:
        date = answer["ResponseMetadata"]["HTTPHeaders"]["date"]
        return parsedate_to_datetime(date).timestamp()
    except (KeyError, ValueError, TypeError):
        return time.time()


def _hide(text: str, steps: Sequence[Step]) -> str:
    """`text` without the steps' arguments and properties, which may be secrets and which AWS quotes back."""
    text = _AWS_VALUE.sub("Value '(hidden)' at '", text)
    for step in steps:
        jar = step["HadoopJarStep"]
        values = [*(jar.get("Args") or ()), *(each.get("Value", "") for each in jar.get("Properties") or ())]
        for value in sorted(map(str, values), key=len, reverse=True):
            if len(value) > _WORD:
                text = text.replace(value, "(hidden)")
    return text


# --- Airflow --------------------------------------------------------------------------------------


class EmrAddStepsOperator(RemoteJobOperator):
    """Add steps to an EMR cluster, once, and wait for all of them without a worker slot if asked to.

    Takes every parameter of the amazon provider's operator of this name. The steps' names end with a marker
    (``sort [af-abcdefghijklmnop-1]``) by which a retry finds them again. They are one job: it has succeeded
    when every one of them is known to be COMPLETED.

    :param job_flow_id: id of the cluster. (templated)
    :param job_flow_name: or its name; exactly one such cluster must exist. (templated)
    :param cluster_states: states of a cluster that is meant by `job_flow_name`; see `EmrSteps`. (templated)
    :param steps: boto3's ``Steps``: a list, its JSON (or a Python literal, such as a rendered list from XCom:
        nothing is evaluated), or a ``.json`` template file; 1 to 256 steps. (templated)
    :param wait_for_completion: ``False`` returns when the steps have been added; ``True`` waits until they
        have ended.
    :param waiter_delay: longest time between two looks, in seconds.
    :param waiter_max_attempts: has no effect, and a warning says so: ``execution_timeout`` limits the wait.
    :param execution_role_arn: IAM role that the steps run as. (templated)
    :param deferrable: ``True`` means ``wait_for_completion=True``; waiting always defers.
    :param openlineage_inject_parent_job_info: add OpenLineage's parent job to the arguments of Spark steps,
        where the openlineage provider is installed.
    :param aws_conn_id: Airflow connection; ``None`` for boto3's own credentials. (templated)
    :param region_name: overrides the connection's region; ``region`` is another name for it. (templated)
    :param verify: whether, or with which CA bundle, certificates are verified. (templated)
    :param botocore_config: keywords for ``botocore.config.Config``.
    :param kwargs: those of `RemoteJobOperator` and of every operator.
    :return: the step ids; the cluster's id is pushed as XCom ``job_flow_id`` unless ``do_xcom_push=False``.
    :raises InvalidParameter: when the DAG is parsed: not exactly one of `job_flow_id` and `job_flow_name`, or
        `steps` that EMR cannot take.
    """

    template_fields: Sequence[str] = (
        "aws_conn_id",
        "cluster_states",
        "execution_role_arn",
        "job_flow_id",
        "job_flow_name",
        "region_name",
        "steps",
        "verify",
    )
    template_ext: Sequence[str] = (".json",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"steps": "json"}
    ui_color = "#f9c915"
    operator_extra_links = (EmrClusterLink(), EmrStepLogsLink())

    def __init__(
        self,
        *,
        job_flow_id: str | None = None,
        job_flow_name: str | None = None,
        cluster_states: list[str] | None = None,
        steps: list[dict[str, Any]] | str | None = None,
        wait_for_completion: bool = False,
        waiter_delay: int = Usual(30),
        waiter_max_attempts: int = 60,
        execution_role_arn: str | None = None,
        deferrable: bool = DEFAULT_DEFERRABLE,
        openlineage_inject_parent_job_info: bool = conf.getboolean(
            "openlineage", "spark_inject_parent_job_info", fallback=False
        ),
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        region: str | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("patience", looks_every(waiter_delay))
        super().__init__(**kwargs)
        if (job_flow_id is None) == (job_flow_name is None):
            given = "neither" if job_flow_id is None else "both"
            raise InvalidParameter(
                f"task {self.task_id!r}: job_flow_id, job_flow_name: {given} given; write exactly one of "
                "them, such as job_flow_id='j-2AXXXXXXGAPLF' or job_flow_name='etl'"
            )
        if steps is None or (wrong := complaint(steps, rendered=False)):
            wrong = "not given" if steps is None else wrong
            # Not the value itself: arguments of steps may be secrets.
            raise InvalidParameter(
                f"task {self.task_id!r}: steps: {wrong}; write a list of boto3's steps, its JSON, or the "
                f"name of a .json template file, such as steps={_EXAMPLE}"
            )
        self.job_flow_id = job_flow_id
        self.job_flow_name = job_flow_name
        self.cluster_states = cluster_states or []
        self.steps = steps
        self.wait_for_completion = wait_for_completion or deferrable
        self.waiter_delay = waiter_delay
        self.waiter_max_attempts = waiter_max_attempts
        self.execution_role_arn = execution_role_arn
        self.deferrable = deferrable
        self.openlineage_inject_parent_job_info = openlineage_inject_parent_job_info
        self.aws_conn_id = aws_conn_id
        self.region_name = one_region(self, region_name, region)
        self.verify = verify
        self.botocore_config = botocore_config
        self._service: EmrSteps | None = None
        no_count = "there is no number of looks; execution_timeout limits the wait"
        deferring = "waiting always defers; write wait_for_completion=True, all that it means"
        say_instead(
            self, {"waiter_max_attempts": (60, no_count), "deferrable": (DEFAULT_DEFERRABLE, deferring)}
        )

    def remote_jobs(self, context: Context) -> EmrSteps:
        """The steps, not parsed and the cluster not looked up before that is needed."""
        self._service = EmrSteps(
            **access_of(self),
            job_flow_id=self.job_flow_id,
            job_flow_name=self.job_flow_name,
            cluster_states=_states(self.cluster_states),
            steps=partial(self._request, context),
            execution_role_arn=self.execution_role_arn,
            not_before=compat.run_start(context),
        )
        return self._service

    def _request(self, context: Context) -> Any:
        steps = read_list(self.steps)
        if not self.openlineage_inject_parent_job_info or complaint(steps, rendered=True):
            return steps
        return inject_openlineage_parent(steps, _openlineage_parent(context))

    def submitted(self, context: Context, job: Job) -> None:
        """Push the cluster's id and the links."""
        if not self.do_xcom_push:
            return
        context["ti"].xcom_push(key="job_flow_id", value=job.scope)
        if self._service is not None:
            with contextlib.suppress(LookupError):  # a cluster that took steps exists, whatever is said of it
                _link(context, self._service, job.scope, job.id.split(",")[0])

    def conclude(self, context: Context, job: Job, log: LogTail) -> list[str]:
        """The step ids."""
        return [step_id for step_id, _ in job.facts["steps"]]


class EmrStepSensor(RemoteJobSensor):
    """Wait for a step of an EMR cluster without a worker slot, whoever added it.

    Takes every parameter of the amazon provider's sensor of this name.

    :param job_flow_id: the cluster. (templated)
    :param step_id: the step. (templated)
    :param target_states: states of the step to wait for; ``["COMPLETED"]`` by default. (templated)
    :param failed_states: states that fail the sensor; ``["CANCELLED", "FAILED", "INTERRUPTED"]`` by default.
        (templated)
    :param max_attempts: has no effect, and a warning says so: ``timeout`` limits the wait.
    :param deferrable: has no effect: waiting always defers.
    :param aws_conn_id: Airflow connection; ``None`` for boto3's own credentials. (templated)
    :param region_name: overrides the connection's region; ``region`` is another name for it. (templated)
    :param verify: whether, or with which CA bundle, certificates are verified. (templated)
    :param botocore_config: keywords for ``botocore.config.Config``.
    :param kwargs: those of `RemoteJobSensor` and of every sensor.
    """

    template_fields: Sequence[str] = (
        "aws_conn_id",
        "failed_states",
        "job_flow_id",
        "region_name",
        "step_id",
        "target_states",
        "verify",
    )
    template_ext: Sequence[str] = ()
    ui_color = "#66c3ff"
    operator_extra_links = (EmrClusterLink(), EmrStepLogsLink())

    def __init__(
        self,
        *,
        job_flow_id: str,
        step_id: str,
        target_states: Iterable[str] | None = None,
        failed_states: Iterable[str] | None = None,
        max_attempts: int = 60,
        deferrable: bool = DEFAULT_DEFERRABLE,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        region: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for parameter, value in (("job_flow_id", job_flow_id), ("step_id", step_id)):
            if value is None or value == "":
                reject(
                    self,
                    parameter,
                    value,
                    "the id of the cluster" if parameter == "job_flow_id" else "a step's id",
                )
        self.job_flow_id = job_flow_id
        self.step_id = step_id
        self.target_states = target_states or ["COMPLETED"]
        self.failed_states = failed_states or ["CANCELLED", "FAILED", "INTERRUPTED"]
        self.max_attempts = max_attempts
        self.deferrable = deferrable
        self.aws_conn_id = aws_conn_id
        self.region_name = one_region(self, region_name, region)
        self.verify = verify
        self.botocore_config = botocore_config
        no_count = "there is no number of looks; timeout limits the wait"
        lost = {"max_attempts": (60, no_count), "deferrable": (DEFAULT_DEFERRABLE, "waiting always defers")}
        say_instead(self, lost)

    def remote_jobs(self, context: Context) -> EmrSteps:
        """Where to look."""
        return EmrSteps(**access_of(self))

    def watched(self, context: Context) -> Job:
        """The step, of which nothing is known yet."""
        job = Job(self.step_id, _NOBODY, Phase.QUEUED, time.time(), scope=self.job_flow_id)
        if self.do_xcom_push:
            try:
                _link(context, self.remote_jobs(context), self.job_flow_id, self.step_id)
            except LookupError as error:
                raise Unobservable(
                    f"EMR knows no cluster {self.job_flow_id}: {error}. "
                    "Correct job_flow_id, region_name or aws_conn_id.",
                    job,
                ) from None
        return job

    def until(self) -> tuple[str, Sequence[str]]:
        """The states that end the wait."""
        return "state", [*_states(self.target_states), *_states(self.failed_states)]

    def arrived(self, job: Job) -> bool:
        """Whether the step is in one of the target states.

        :raises JobFailed: it is in one of the failed states, or has ended without one of the target states.
        :raises JobLost: EMR does not know it.
        """
        state = job.facts.get("state")
        if state in _states(self.target_states):
            return True
        if job.phase is Phase.LOST:
            raise JobLost(
                f"EMR knows no step {self.step_id} on cluster {self.job_flow_id}: {job.reason}. "
                "Correct step_id, job_flow_id, region_name or aws_conn_id.",
                job,
            )
        if state in _states(self.failed_states):
            raise JobFailed(
                f"{job.reason or f'step {job.id} is {state}.'} {state} is one of failed_states.", job
            )
        if not job.live:
            wanted = " or ".join(_states(self.target_states))
            raise JobFailed(
                f"step {job.id} ended {state} and cannot become {wanted} any more. {job.reason}", job
            )
        return False


_NOBODY = Claim(
    "", 0
)  # a sensor's job is not ours; nothing bears this claim, so nothing of it can be cancelled


def inject_openlineage_parent(steps: Sequence[Step], properties: Mapping[str, Any]) -> list[Step]:
    """Copies of `steps` in which ``spark-submit`` and ``run-example`` get `properties` as ``--conf``.

    Steps that name a parent by themselves stay as they are.

    >>> jar = {"Jar": "command-runner.jar", "Args": ["spark-submit", "a.py"]}
    >>> parent = {"spark.openlineage.parentRunId": "7"}
    >>> inject_openlineage_parent([{"Name": "a", "HadoopJarStep": jar}], parent)[0]["HadoopJarStep"]["Args"]
    ['spark-submit', '--conf', 'spark.openlineage.parentRunId=7', 'a.py']
    """
    added = [word for name, value in properties.items() for word in ("--conf", f"{name}={value}")]
    result: list[Step] = []
    for step in steps:
        jar = step["HadoopJarStep"]
        args = [str(word) for word in jar.get("Args") or ()]
        runs_spark = (
            str(jar["Jar"]).endswith("command-runner.jar")
            and args
            and args[0].rpartition("/")[2] in ("spark-submit", "run-example")
        )
        if runs_spark and not any("spark.openlineage.parent" in word for word in args):
            result.append({**step, "HadoopJarStep": {**jar, "Args": [args[0], *added, *args[1:]]}})
        else:
            result.append(step)
    return result


def _openlineage_parent(context: Context) -> Mapping[str, Any]:
    try:
        from airflow.providers.common.compat.openlineage.utils.spark import (
            inject_parent_job_information_into_spark_properties as parent_of,
        )
    except ImportError:
        log.warning(
            "OpenLineage's parent job is not added: this version of the common-compat provider cannot"
        )
        return {}
    found: Mapping[str, Any] = parent_of({}, context)
    return found


def _link(context: Context, service: EmrSteps, cluster_id: str, step_id: str) -> None:
    region = service.region()
    EmrClusterLink.persist(context, region_name=region, job_flow_id=cluster_id)
    EmrStepLogsLink.persist(
        context,
        region_name=region,
        job_flow_id=cluster_id,
        step_id=step_id,
        log_uri=service.log_uri(cluster_id),
    )


def _states(value: Any) -> list[str]:
    """The states of a parameter that may have been rendered to one text, ``COMPLETED`` or a list's."""
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return [value]
    return [str(state) for state in read_list(value)]
