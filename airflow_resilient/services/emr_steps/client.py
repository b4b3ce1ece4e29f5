"""Steps of an Amazon EMR cluster as remote jobs.

EMR has no idempotency token: the name of a step bears its claim, such as
``sort [af-abcdefghijklmnop-1 4.3 k3v7ahq2]``, and a submission whose answer was lost is searched before it is
sent again. The steps of one operator are one job.
"""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from ...aws.errors import error_code, is_denied, redacted_text
from ...core.job import CLOCK_SKEW, NO_CLAIM, Phase
from ...core.service import UNATTENDED, Way
from ...core.text import says, values_of
from ...errors import CLIENT_ERROR, InvalidParameter, NoCapacity, SubmitRefused, also
from .._aws import AwsService
from .marker import created_at, group_submissions, mark, proved, read_marker, why_copied
from .read import (
    MAX_IDS_PER_CALL,
    MAX_STEPS_PER_PAGE,
    describe_cluster_end,
    doubted_facts,
    is_part_of_a_copy,
    lacks_steps,
    plan_lookup,
    proves,
    read_steps,
    step_ids,
    unfinished_ids,
    with_finished,
)
from .request import EXAMPLE_STEPS, MAX_ACTIVE_STEPS, invalid_steps, redact_arguments
from .service import SERVICE

if TYPE_CHECKING:
    from ...core.job import Claim, Job
    from ...errors import NotSubmitted
    from .marker import Marker, Step


log = logging.getLogger(__name__)

HOOK = "airflow.providers.amazon.aws.hooks.emr:EmrHook"
"""The provider's hook; see `ProvidersHook`."""

ACTIVE_STATES = ("PENDING", "RUNNING", "CANCEL_PENDING")
"""States of a step that has not ended. Source: StepStatus, State."""

ADDABLE_STATES = ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING")
"""States of a cluster that accepts steps. Source: AddJobFlowSteps reference."""

# Source: Service Quotas, ListSteps: L-7D1BF903, 10 at once, then L-8AF88BF0, 0.5 a second.
_BURST_CALLS = 8
_CALL_PAUSE = 2.0  # seconds

_LIST_STEPS, _DESCRIBE_STEP = "emr:ListSteps", "emr:DescribeStep"
_NO_DESCRIBE_STEP_SECONDS = 3600.0  # for which steps are only listed, after DescribeStep was denied

_CLUSTER_STATUS_SECONDS = 15.0  # for which the status of a cluster is reused
_MAX_CLUSTERS_KEPT = 1000

_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})


class EmrSteps(AwsService):
    """Steps of EMR clusters as remote jobs: all steps of one request are one job.

    A job's id is its step ids, joined by commas; ``facts["steps"]`` is ``[[step id, state], ...]``.

    :param job_flow_id: the cluster to add steps to.
    :param job_flow_name: or its name: exactly one cluster of that name must be in one of `cluster_states`.
    :param cluster_states: by default, the states in which a cluster accepts steps; if no cluster of that name
        is in one of them, any state, so that a retry finds its steps on a cluster that has ended meanwhile.
    :param steps: boto3's ``Steps``, or a function that returns them when they are needed.
    :param execution_role_arn: boto3's ``ExecutionRoleArn``.
    :param not_before: start of the DAG run: ended steps that were created before are not searched.
    :param sleep: waits between pages of a very long list of steps.
    :param access: those of `AwsService`.
    """

    name = SERVICE.name
    scope_noun = SERVICE.scope_noun
    aws_service = "emr"
    submit_operation = "AddJobFlowSteps"
    batch_size = MAX_ACTIVE_STEPS
    budget = SERVICE.budget
    more_budgets = SERVICE.more_budgets

    def __init__(
        self,
        *,
        job_flow_id: str | None = None,
        job_flow_name: str | None = None,
        cluster_states: Sequence[str] = (),
        steps: Sequence[Step] | Callable[[], Sequence[Step]] = (),
        execution_role_arn: str | None = None,
        not_before: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
        **access: Any,
    ) -> None:
        super().__init__(**access)
        self.job_flow_id = job_flow_id
        self.job_flow_name = job_flow_name
        self.cluster_states = cluster_states
        self.steps = steps
        self.execution_role_arn = execution_role_arn
        self.not_before = not_before
        self.sleep = sleep
        self._sent: Sequence[Step] = ()
        self._active: dict[str, int] = {}
        self._cluster_id: str | None = None
        self._clusters_listed = 0
        self._clusters: dict[str, tuple[float, Mapping[str, Any] | None]] = {}
        self._lists_only_until = float("-inf")

    def lookup(self) -> dict[str, Any]:
        """The cluster that `find` searches, and from when on."""
        return {
            "job_flow_id": self.job_flow_id,
            "job_flow_name": self.job_flow_name,
            "cluster_states": list(self.cluster_states),
            "not_before": self.not_before,
        }

    def request_fields(self) -> Mapping[str, Any]:
        """The cluster as the user has named it, the steps and their role.

        :raises InvalidParameter: EMR cannot take these steps.
        """
        return {
            "job_flow_id": self.job_flow_id,
            "job_flow_name": self.job_flow_name,
            "steps": self._checked_steps(),
            "execution_role_arn": self.execution_role_arn,
        }

    # --- for the shared watch ---

    def cost(self, jobs: Sequence[Job]) -> float:
        """The estimated calls of a poll, from the last poll of each cluster."""
        scopes: dict[str, set[str]] = defaultdict(set)
        lacking = 0
        for job in jobs:
            if lacks_steps(job):
                lacking += 1
            else:
                scopes[job.scope].update(unfinished_ids(job))
        calls = sum(plan_lookup(len(ids), self._active.get(scope)).calls for scope, ids in scopes.items())
        return float(calls + lacking)

    def ways(self, jobs: Sequence[Job]) -> Sequence[Way]:
        """By ListSteps, or by one DescribeStep for each step, which has a budget of its own.

        A job that lacks steps can only be listed.
        """
        listing = Way(_LIST_STEPS, self.cost(jobs))
        if time.monotonic() < self._lists_only_until or any(map(lacks_steps, jobs)):
            return (listing,)
        steps = {(job.scope, step) for job in jobs for step in unfinished_ids(job)}
        return listing, Way(_DESCRIBE_STEP, float(len(steps)), size=1)

    def event_keys(self, job: Job) -> tuple[str, ...]:
        """The names of the job in events: the ids of its steps."""
        return tuple(step_ids(job))

    def refuses_scope(self, error: Exception) -> bool:
        """Whether the error applies to every step of the cluster."""
        return is_denied(error) or _no_such_cluster(error)

    def doubted(self, job: Job) -> Job:
        """`job` without the states of its steps: a step that is known to be COMPLETED is not observed."""
        return replace(job, facts=doubted_facts(job.facts))

    # --- find, submit ---

    def find(self, claims: Sequence[Claim]) -> list[Job]:
        """Jobs of the cluster whose steps bear one of `claims`, ended ones as far back as `not_before`.

        :raises SubmitRefused: the cluster cannot be determined, or listing its steps is denied: steps of this
            task may be running there, so nothing may be submitted.
        """
        from botocore.exceptions import ClientError

        cluster_id = self.cluster_id()
        try:
            return self._find(cluster_id, claims, self.not_before)
        except ClientError as error:
            if self.is_transient(error):
                raise
            if _no_such_cluster(error):  # it has no steps; the submission reports the error to the user
                return []
            refused = SubmitRefused(
                f"nothing was submitted, because the steps of {cluster_id} cannot be listed, and steps of "
                f"this task may be running there: {error}{_permission(error, 'ListSteps')}",
                error.response,
            )
            raise also(refused, CLIENT_ERROR, operation_name="ListSteps") from None

    def submit(self, claim: Claim) -> Job:
        """Add the steps with one call that is never retried automatically.

        EMR has no idempotency token, and one call whose answer was a 500 made two steps with botocore's
        retries on (Verified: ``test_one_lost_answer_makes_one_step``). An ambiguous error is
        raised as it is, so that the caller searches before it decides.
        """
        from botocore.exceptions import ClientError, ParamValidationError

        steps = self._checked_steps()
        cluster_id = self.cluster_id()
        role = {"ExecutionRoleArn": self.execution_role_arn} if self.execution_role_arn else {}
        client = self.client(retries=False)
        try:
            marked = mark(steps, claim, cluster_id, unattended=self.unattended)
            answer = client.add_job_flow_steps(JobFlowId=cluster_id, Steps=marked, **role)
        except ParamValidationError as error:
            raise SubmitRefused(
                f"AddJobFlowSteps does not accept the steps: {redact_arguments(redacted_text(error), steps)}"
            ) from None
        except ClientError as error:
            if self.is_transient(error):
                raise
            raise self._read_refusal(error, cluster_id, steps) from None
        added: list[Step] = [{"Id": step_id, "Status": {"State": "PENDING"}} for step_id in answer["StepIds"]]
        return read_steps(added, claim, cluster_id, len(steps), created=_answer_time(answer))

    def cluster_id(self) -> str:
        """The id of the cluster, if necessary looked up by its name, once.

        :raises SubmitRefused: there is no such cluster, or more than one.
        """
        if self.job_flow_id is not None:
            if not self.job_flow_id or self.job_flow_id == "None":
                raise SubmitRefused(
                    f"job_flow_id is {self.job_flow_id!r} after rendering: the template found no value. "
                    "Write an id, or a template whose value an earlier task has pushed."
                )
            return self.job_flow_id
        if self._cluster_id is None:
            self._cluster_id = self._cluster_by_name()
        return self._cluster_id

    def _cluster_by_name(self) -> str:
        from botocore.exceptions import ClientError, ParamValidationError

        states = list(self.cluster_states)
        try:
            ids = self._clusters_named(states or list(ADDABLE_STATES))
            if not ids and not states:
                ids = self._clusters_named([])
        except (ClientError, ParamValidationError) as error:
            if self.is_transient(error):
                raise
            raise SubmitRefused(
                f"the cluster named {self.job_flow_name!r} cannot be looked up: {redacted_text(error)}"
                f"{_permission(error, 'ListClusters')}"
            ) from None
        where = f" in one of the states {', '.join(states)}" if states else ""
        if not ids:
            raise SubmitRefused(
                f"no EMR cluster named {self.job_flow_name!r} exists{where}. Start one, or correct "
                "job_flow_name, cluster_states or region_name."
            )
        if len(ids) > 1:
            raise SubmitRefused(
                f"{len(ids)} EMR clusters are named {self.job_flow_name!r}{where}: {', '.join(ids[:5])}. "
                "Narrow cluster_states, or write job_flow_id."
            )
        log.info("the EMR cluster named %r is %s", self.job_flow_name, ids[0])
        return ids[0]

    def _clusters_named(self, states: list[str]) -> list[str]:
        pages = self.client().get_paginator("list_clusters").paginate(ClusterStates=states)
        return [
            each["Id"] for page in pages for each in page["Clusters"] if each["Name"] == self.job_flow_name
        ]

    def _checked_steps(self) -> Sequence[Step]:
        try:
            steps = self.steps() if callable(self.steps) else self.steps
            problem = invalid_steps(steps, rendered=True)
        except ValueError as error:
            problem = str(error)
        if problem:
            raise InvalidParameter(
                f"steps: {problem}; write a list of boto3's steps or its JSON, such as {EXAMPLE_STEPS}"
            )
        self._sent = steps
        return steps

    def hide(self, text: str) -> str:
        """`text` without arguments and properties of the steps, because AWS may quote the request."""
        return redact_arguments(text, self._sent)

    def _read_refusal(self, error: Any, cluster_id: str, steps: Sequence[Step]) -> NotSubmitted:
        raw, text = str(error), redact_arguments(str(error), steps)
        theirs = (cluster_id, *values_of(steps, keys=True))
        response = {"Error": {"Code": error_code(error), "Message": text}}
        # The code is ValidationException for all of these; only the text distinguishes them.
        if says(raw, "Maximum number of active steps", theirs):
            return NoCapacity(
                f"cluster {cluster_id} has {MAX_ACTIVE_STEPS} active steps already: {text}", response
            )
        if error_code(error) in _DENIED:
            advice = _permission(error, "AddJobFlowSteps")
        elif says(raw, "shutting down|(?i:terminated)", theirs):
            advice = (
                f"{self._why_cluster_ended(cluster_id)} Start a cluster and name it here; with job_flow_name "
                "instead of job_flow_id, a retry finds its successor."
            )
        elif says(raw, "job flow ID|[Cc]luster id", theirs):
            advice = " Correct job_flow_id, region_name or aws_conn_id."
        else:
            advice = " Correct the steps, or the cluster."
        refused = SubmitRefused(f"EMR accepted no step for cluster {cluster_id}: {text}{advice}", response)
        return also(refused, CLIENT_ERROR, operation_name="AddJobFlowSteps")

    def _why_cluster_ended(self, cluster_id: str) -> str:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            status = self.client(retries=False).describe_cluster(ClusterId=cluster_id)["Cluster"]["Status"]
        except (BotoCoreError, ClientError):  # the status only improves the message
            return ""
        return describe_cluster_end(cluster_id, status, ())

    # --- observe ---

    def observe(self, jobs: Sequence[Job]) -> list[Job]:
        """Observe the jobs with as few calls as possible; a job that EMR does not know is left out."""
        return self._observe(jobs, self._steps_by_id)

    def observe_by(self, operation: str, jobs: Sequence[Job]) -> list[Job]:
        """`observe`, by ListSteps or by DescribeStep. Where DescribeStep is denied, steps are listed."""
        if operation != _DESCRIBE_STEP:
            return self.observe(jobs)
        try:
            return self._observe(jobs, self._describe_steps)
        except Exception as error:
            if not is_denied(error) or self.is_transient(error):
                raise
            self._lists_only_until = time.monotonic() + _NO_DESCRIBE_STEP_SECONDS
            log.warning(
                "steps are only listed from now on, and their ends are noticed later when many clusters are "
                "watched: %s%s",
                error,
                _permission(error, "DescribeStep"),
            )
            return self.observe(jobs)

    def _observe(
        self, jobs: Sequence[Job], steps_of: Callable[[str, Sequence[str]], Mapping[str, Step]]
    ) -> list[Job]:
        """`observe`, where `steps_of` finds steps of a cluster by their ids."""
        scopes: dict[str, list[Job]] = defaultdict(list)
        for job in jobs:
            scopes[job.scope].append(job)
        observed = []
        for cluster_id, members in scopes.items():
            whole = [job for job in members if not lacks_steps(job)]
            unfinished = [step for job in whole for step in unfinished_ids(job)]
            known = steps_of(cluster_id, unfinished)
            for job in whole:
                mine = {
                    step_id: known[step_id]
                    for step_id in step_ids(job)
                    if step_id in known and proves(known[step_id], job)
                }
                if mine.keys() & unfinished_ids(job):
                    known_as, of = _submission_of(job, mine.values())
                    observed.append(self._observe_job(known_as, with_finished(job, mine), of))
            observed += [
                self._observe_job(job, *found) for job in members if (found := self._find_all_steps(job))
            ]
        return [job for job in observed if job is not None]

    def _observe_job(self, job: Job, steps: Sequence[Step], of: int | None = None) -> Job | None:
        """The observation of `job`; ``None`` when no step is active and not all steps are known."""
        of = max(of or 0, len(step_ids(job)))
        observed = self._read(steps, job.claim, job.scope, of, created=job.created)
        active = any(step["Status"]["State"] in ACTIVE_STATES for step in steps)
        if observed.live and len(steps) < of and not active:
            return None
        return replace(observed, id=job.id)

    def _find_all_steps(self, job: Job) -> tuple[Sequence[Step], int] | None:
        """All steps, searched by name, of a job that lacked some when it was found."""
        if not lacks_steps(job):
            return None
        ids = set(step_ids(job))
        for marker, steps in self._submissions(job.scope, [job.claim], job.created):
            if ids & {step["Id"] for step in steps}:
                return steps, marker.of
        return None

    def _find(self, cluster_id: str, claims: Sequence[Claim], not_before: float) -> list[Job]:
        found = self._submissions(cluster_id, claims, not_before)
        return [self._read(steps, marker.claim, cluster_id, marker.of) for marker, steps in found]

    def _submissions(
        self, cluster_id: str, claims: Sequence[Claim], not_before: float
    ) -> list[tuple[Marker, list[Step]]]:
        """The submissions that bear one of `claims` and were made after `not_before` or are still active."""
        listed: dict[str, Step] = {}
        for page in self._pages(cluster_id):  # newest first
            listed.update((step["Id"], step) for step in page)
            if page and created_at(page[-1]) < not_before - CLOCK_SKEW:
                older = [
                    step for page in self._pages(cluster_id, StepStates=list(ACTIVE_STATES)) for step in page
                ]
                listed.update((step["Id"], step) for step in older if step["Id"] not in listed)
                break
        ours = self._without_copies(cluster_id, listed.values(), claims)
        return [
            (marker, steps)
            for marker, steps in group_submissions(reversed(ours), claims)
            if not is_part_of_a_copy(marker, steps, time.time())
        ]

    def _without_copies(self, cluster_id: str, steps: Iterable[Step], claims: Sequence[Claim]) -> list[Step]:
        """The steps whose marker was made for them; copies with one of `claims` are logged."""
        ours, copies, wanted = [], [], set(claims)
        for step in steps:
            if proved(step, cluster_id):
                ours.append(step)
            elif (marker := read_marker(step["Name"])) and marker.claim in wanted:
                copies.append(step["Id"])
        if copies:
            log.warning(
                "ignoring %s on %s: the name is that of a step of this task, but it runs something else, or "
                "was made for another cluster: it is a copy",
                ", ".join(copies),
                cluster_id,
            )
        return ours

    def _describe_steps(self, cluster_id: str, ids: Sequence[str]) -> dict[str, Step]:
        """Look up these steps one by one."""
        known: dict[str, Step] = {}
        for step_id in dict.fromkeys(ids):
            try:
                answer = self.client(polling=True).describe_step(ClusterId=cluster_id, StepId=step_id)
            except Exception as error:
                if error_code(error) != "InvalidRequestException" or _no_such_cluster(error):
                    raise
                continue  # a step that EMR does not know
            known[step_id] = answer["Step"]
        return known

    def _steps_by_id(self, cluster_id: str, ids: Sequence[str], *, polling: bool = True) -> dict[str, Step]:
        """Look up these steps: active ones in pages of 50, the remaining ones by id, ten at a time.

        Uses the way with fewer calls: listing stops as soon as looking up the rest by id costs less.
        """
        known: dict[str, Step] = {}
        remaining = dict.fromkeys(ids)
        expected = self._active.get(cluster_id)
        if plan_lookup(len(remaining), expected).by_pages:
            active, exact = 0, True
            expected = len(remaining) if expected is None else expected
            for page in self._pages(cluster_id, polling=polling, StepStates=list(ACTIVE_STATES)):
                active += len(page)
                for step in page:
                    if step["Id"] in remaining:
                        del remaining[step["Id"]]
                        known[step["Id"]] = step
                more = max(1, math.ceil((expected - active) / MAX_STEPS_PER_PAGE))
                if math.ceil(len(remaining) / MAX_IDS_PER_CALL) <= more:
                    exact = len(page) < MAX_STEPS_PER_PAGE
                    break
            self._set_active_count(cluster_id, active if exact else max(active, expected))
        elif expected:
            self._set_active_count(
                cluster_id, expected // 2
            )  # the count is outdated: list the pages again some day
        rest = list(remaining)
        for start in range(0, len(rest), MAX_IDS_PER_CALL):
            portion = rest[start : start + MAX_IDS_PER_CALL]
            known.update(
                (step["Id"], step) for step in self._list_by_ids(cluster_id, portion, polling=polling)
            )
        return known

    def _set_active_count(self, cluster_id: str, count: int) -> None:
        if len(self._active) >= _MAX_CLUSTERS_KEPT:  # a triggerer lives for months
            self._active.clear()
        self._active[cluster_id] = count

    def _list_by_ids(self, cluster_id: str, ids: list[str], *, polling: bool = False) -> list[Step]:
        from botocore.exceptions import ClientError

        try:
            client = self.client(polling=polling)
            found: list[Step] = client.list_steps(ClusterId=cluster_id, StepIds=ids)["Steps"]
        except ClientError as error:
            # AWS does not document the answer to an unknown id. A refusal must not affect the other steps.
            if error_code(error) != "InvalidRequestException" or _no_such_cluster(error):
                raise
            if len(ids) == 1:
                return []
            half = len(ids) // 2
            return self._list_by_ids(cluster_id, ids[:half], polling=polling) + self._list_by_ids(
                cluster_id, ids[half:], polling=polling
            )
        return found

    def _pages(self, cluster_id: str, *, polling: bool = False, **only: Any) -> Iterator[list[Step]]:
        """Pages of ListSteps: 50 steps each, newest first if they are not filtered.

        After the burst, pages are requested at the rate of the budget: a poll that is throttled halfway would
        start again from the first page.
        """
        number = 0
        marker: dict[str, str] = {}
        while True:
            if number >= _BURST_CALLS:
                self.sleep(_CALL_PAUSE)
            answer = self.client(polling=polling).list_steps(ClusterId=cluster_id, **only, **marker)
            yield answer.get("Steps", [])
            if not answer.get("Marker"):
                return
            number, marker = number + 1, {"Marker": answer["Marker"]}

    def _read(
        self, steps: Sequence[Step], claim: Claim, cluster_id: str, of: int, created: float = 0.0
    ) -> Job:
        """`read_steps`, with the status of the cluster if they did not complete."""
        job = read_steps(steps, claim, cluster_id, of, created=created)
        if job.phase not in (Phase.FAILED, Phase.CANCELLED):
            return job
        return read_steps(
            steps, claim, cluster_id, of, created=created, cluster=self._cluster_status(cluster_id)
        )

    def _cluster_status(self, cluster_id: str) -> Mapping[str, Any] | None:
        """``Cluster.Status`` of DescribeCluster, a few seconds old at most; ``None`` if it is denied."""
        from botocore.exceptions import ClientError

        at, status = self._clusters.get(cluster_id, (float("-inf"), None))
        if time.monotonic() - at < _CLUSTER_STATUS_SECONDS:
            return status
        try:
            status = self.client().describe_cluster(ClusterId=cluster_id)["Cluster"]["Status"]
        except ClientError as error:
            if self.is_transient(error):
                raise
            log.warning(
                "cannot tell whether steps ended with their cluster %s: %s%s",
                cluster_id,
                error,
                _permission(error, "DescribeCluster"),
            )
            status = None
        if len(self._clusters) >= _MAX_CLUSTERS_KEPT:
            self._clusters.clear()
        self._clusters[cluster_id] = (time.monotonic(), status)
        return status

    # --- list ---

    def list_scopes(self) -> list[str]:
        """Ids of all clusters of the account and region on which steps can be active."""
        pages = self.client().get_paginator("list_clusters").paginate(ClusterStates=list(ADDABLE_STATES))
        return [each["Id"] for page in pages for each in page["Clusters"]]

    def list_jobs(self, scope: str) -> list[Job]:
        """The jobs of a cluster with an active step that bears a claim, of any owner.

        A job of several steps may lack those that have ended already.
        """
        if (
            self._clusters_listed >= _BURST_CALLS
        ):  # each costs a ListSteps call, and triggers need some of the budget
            self.sleep(_CALL_PAUSE)
        self._clusters_listed += 1
        listed = [step for page in self._pages(scope, StepStates=list(ACTIVE_STATES)) for step in page]
        steps = [step for step in listed if proved(step, scope)]
        markers = [marker for step in steps if (marker := read_marker(step["Name"]))]
        sets = group_submissions(reversed(steps), [marker.claim for marker in markers])
        jobs = [read_steps(found, marker.claim, scope, marker.of) for marker, found in sets]
        return [
            replace(job, facts={**job.facts, UNATTENDED: True}) if marker.unattended else job
            for job, (marker, _) in zip(jobs, sets, strict=True)
        ]

    def why_copied(self, job: Job) -> str:
        """Why the steps may be copies: a person clones a step or a cluster, and names are copied, too.

        Source: management guide, "Clone a cluster using the console" and "Adding steps".
        """
        return why_copied(job.id.split(","), self._submissions(job.scope, [job.claim], not_before=0.0))

    # --- cancel ---

    def cancel(self, job: Job, reason: str) -> Job:
        """Cancel the active steps of `job` that bear its claim, and observe it again.

        A step whose marker was not made for it, on this cluster, is a copy and is not touched.

        ``TERMINATE_PROCESS``, because a step may ignore the signal that ``SEND_INTERRUPT`` (the default)
        sends, and the next step waits for its end. Neither reaches a YARN application that was submitted in
        cluster mode: it keeps running. Running steps can be cancelled on release 5.28.0 and newer only; the
        refusal is logged.

        Source: management guide, "Cancel steps"; CancelSteps reference (256 steps a call, idempotent,
        asynchronous).
        """
        from botocore.exceptions import ClientError

        if lacks_steps(job):
            rest = self._find_all_steps(job)
            steps = list(rest[0]) if rest else []
        else:
            steps = list(self._steps_by_id(job.scope, unfinished_ids(job), polling=False).values())
        live = [step for step in steps if step["Status"]["State"] in ("PENDING", "RUNNING")]
        foreign = [step["Id"] for step in live if job.claim == NO_CLAIM or not proves(step, job)]
        if foreign:
            log.warning(
                "not cancelling %s on %s: the name does not prove that it is a step of %s",
                ", ".join(foreign),
                job.scope,
                job.claim,
            )
        ids = [step["Id"] for step in live if step["Id"] not in foreign]
        for start in range(0, len(ids), MAX_ACTIVE_STEPS):
            portion = ids[start : start + MAX_ACTIVE_STEPS]
            log.info("cancelling %s on %s: %s", ", ".join(portion), job.scope, reason)
            try:
                answer = self.client().cancel_steps(
                    ClusterId=job.scope, StepIds=portion, StepCancellationOption="TERMINATE_PROCESS"
                )
            except ClientError as error:
                if self.is_transient(error) or error_code(error) in _DENIED:
                    raise
                # The steps may have ended meanwhile: the observation below shows it.
                log.warning("EMR refuses to cancel %s: %s", ", ".join(portion), error)
                continue
            for info in answer.get("CancelStepsInfoList", []):
                if info.get("Status") == "FAILED":
                    log.warning(
                        "EMR did not cancel step %s: %s",
                        info.get("StepId"),
                        info.get("Reason") or "no reason given",
                    )
        unknown = replace(job, phase=Phase.LOST, reason=f"EMR knows no such steps of {job.claim}")
        if job.claim == NO_CLAIM:
            return unknown
        return next(iter(self.observe([job])), unknown)

    # --- links ---

    def region(self) -> str:
        """The region of the client, for links into the AWS console."""
        return str(self.client().meta.region_name)

    def log_uri(self, cluster_id: str) -> str | None:
        """Where the cluster's logs are. One attempt: an error only costs the link.

        :raises LookupError: EMR knows no such cluster.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            cluster = self.client(retries=False).describe_cluster(ClusterId=cluster_id)["Cluster"]
        except (BotoCoreError, ClientError) as error:
            if _no_such_cluster(error):
                raise LookupError(str(error)) from None
            log.info("no link to the logs of %s: %s", cluster_id, error)
            return None
        return cluster.get("LogUri") or None


def _submission_of(job: Job, steps: Iterable[Step]) -> tuple[Job, int]:
    """`job` with the generation that its steps bear, and how many steps were submitted, by their markers."""
    markers = [marker for step in steps if (marker := read_marker(str(step.get("Name"))))]
    if job.claim == NO_CLAIM or not markers:
        return job, 0
    claim = replace(job.claim, generation=markers[0].claim.generation)
    return replace(job, claim=claim), markers[0].of


def _no_such_cluster(error: BaseException) -> bool:
    """Whether the cluster is unknown. An unknown step has the same code; the text distinguishes them."""
    return error_code(error) == "InvalidRequestException" and says(str(error), "[Cc]luster id")


def _permission(error: BaseException, action: str) -> str:
    return f" Allow elasticmapreduce:{action} to this connection." if error_code(error) in _DENIED else ""


def _answer_time(answer: Mapping[str, Any]) -> float:
    """When the service answered, by its own clock, so that workers agree on which duplicate is the oldest."""
    try:
        date = answer["ResponseMetadata"]["HTTPHeaders"]["date"]
        return parsedate_to_datetime(date).timestamp()
    except (KeyError, ValueError, TypeError):
        return time.time()
