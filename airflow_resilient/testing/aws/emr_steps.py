"""Amazon EMR on EC2 as ``airflow_resilient`` uses it: clusters with a life and steps that progress.

moto keeps what else belongs to a cluster (instances, groups, tags, applications). What happens in a cluster
is computed when it is read: all that is due by then happens in the order of its times.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from random import SystemRandom
from string import ascii_uppercase, digits
from typing import TYPE_CHECKING, Any, Literal

from airflow_resilient.testing.aws.lock import locked
from airflow_resilient.testing.aws.moto_bridge import ask_moto
from airflow_resilient.testing.aws.plans import Plans, seconds_and_exit
from airflow_resilient.testing.aws.wire import ACCOUNT, AwsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_resilient.testing.aws.plans import Then

_ID_LETTERS = ascii_uppercase + digits
_PAGE = 50
_MAX_IDS = 10
_MAX_ACTIVE = 256
_MAX_CONCURRENT = 256
_MAX_CLUSTERS = 10
_NAME_LENGTH = 256
_CANCEL_RUNNING_SINCE = (5, 28)
_OVER = {"COMPLETED", "CANCELLED", "FAILED", "INTERRUPTED"}
_STEP_STATES = {"PENDING", "CANCEL_PENDING", "RUNNING", *_OVER}
_CLUSTER_STATES = {
    "STARTING",
    "BOOTSTRAPPING",
    "RUNNING",
    "WAITING",
    "TERMINATING",
    "TERMINATED",
    "TERMINATED_WITH_ERRORS",
}
_ENDING = {"TERMINATING", "TERMINATED", "TERMINATED_WITH_ERRORS"}
_ACTIONS = {"TERMINATE_CLUSTER", "TERMINATE_JOB_FLOW", "CANCEL_AND_WAIT", "CONTINUE"}
_SHUT_DOWN = "A job flow that is shutting down, terminated, or finished may not be modified."
_TOO_MANY = (
    "Maximum number of active steps(State = 'Running', 'Pending' or 'Cancel_Pending') for cluster exceeded."
)

Outcome = Literal["COMPLETED", "FAILED", "CANCELLED", "INTERRUPTED"]


@dataclass(frozen=True)
class EmrPlan:
    """What will become of a step.

    :param seconds: how long it is RUNNING; ``None``: until it is cancelled or finished by the test.
    :param outcome: ``COMPLETED`` or ``FAILED`` (or ``CANCELLED``, ``INTERRUPTED``).
    :param failure_reason: ``FailureDetails.Reason`` of a failed step.
    :param failure_message: ``FailureDetails.Message``.
    :param log_file: ``FailureDetails.LogFile``.
    :param pending_seconds: it starts that long after it was added, at the earliest.
    :param stop_seconds: how long it is CANCEL_PENDING; ``None``: until the test finishes it.
    :param needs: it stays RUNNING until a step whose name contains that text has COMPLETED, on any cluster;
        all texts must be met. Models a step that waits for the output of others.
    """

    seconds: float | None = 1.0
    outcome: Outcome = "COMPLETED"
    failure_reason: str | None = "Unknown Error"
    failure_message: str | None = None
    log_file: str | None = None
    pending_seconds: float = 0.0
    stop_seconds: float | None = 1.0
    needs: Sequence[str] = ()


@dataclass(frozen=True)
class EmrStep:
    """One step as it is."""

    id: str
    cluster_id: str
    name: str
    state: str
    created: float
    started: float | None
    ended: float | None
    action_on_failure: str
    execution_role: str | None
    args: tuple[str, ...]

    @property
    def live(self) -> bool:
        """It runs, or will."""
        return self.state not in _OVER


@dataclass(frozen=True)
class EmrCluster:
    """One cluster as it is.

    :param code: ``StateChangeReason.Code``.
    """

    id: str
    name: str
    state: str
    created: float
    ready: float | None
    ended: float | None
    code: str | None
    message: str | None


@dataclass
class _Step:
    id: str
    config: Mapping[str, Any]
    plan: EmrPlan
    created: float
    role: str | None
    state: str = "PENDING"
    started: float | None = None
    cancelled: float | None = None
    ended: float | None = None
    failure: dict[str, str] | None = None
    message: str | None = None

    @property
    def name(self) -> str:
        return str(self.config["Name"])

    @property
    def action_on_failure(self) -> str:
        return str(self.config.get("ActionOnFailure", "TERMINATE_CLUSTER"))


@dataclass
class _Cluster:
    id: str
    name: str
    region: str
    release: str
    log_uri: str | None
    concurrency: int
    keep_alive: bool
    protected: bool
    created: float
    boots: float
    readies: float
    state: str = "STARTING"
    ready: float | None = None
    ends: float | None = None
    ended: float | None = None
    final_state: str = "TERMINATED"
    code: str | None = None
    message: str | None = None
    steps: dict[str, _Step] = field(default_factory=dict)
    pending: deque[_Step] = field(default_factory=deque)
    running: list[_Step] = field(default_factory=list)

    @property
    def arn(self) -> str:
        return f"arn:aws:elasticmapreduce:{self.region}:{ACCOUNT}:cluster/{self.id}"

    @property
    def up(self) -> bool:
        return self.ready is not None and self.state not in _ENDING

    @property
    def active(self) -> int:
        return len(self.pending) + len(self.running)


class FakeEmr:
    """The fake's EMR: plans for steps to come, control of and insight into those that are there.

    :ivar default: plan of steps that no rule fits. ``sleep N`` and ``exit N`` in the step's arguments go
        before it.
    :ivar start_seconds: from RunJobFlow until the cluster is ready, half of it BOOTSTRAPPING.
    :ivar terminate_seconds: how long a cluster is TERMINATING.
    :ivar visible_after_seconds: how long ListSteps leaves out a new step. AWS promises nothing about it.
    :ivar running_steps_become: state of steps that ran when their cluster ended by itself. After
        TerminateJobFlows they are CANCELLED (its reference: "any step not yet completed is canceled"); for
        other ends AWS documents the states FAILED and INTERRUPTED, but not which one it is.
    :ivar unknown_step_ids: what ListSteps does with ids it does not know: ``leave out`` (as moto does) or
        ``refuse``. AWS does not document it.
    """

    def __init__(self, now: Callable[[], float], lock: threading.RLock) -> None:
        self._lock = lock
        self.default = EmrPlan()
        self.start_seconds = 0.0
        self.terminate_seconds = 0.0
        self.visible_after_seconds = 0.0
        self.running_steps_become: Outcome = "FAILED"
        self.unknown_step_ids: Literal["leave out", "refuse"] = "leave out"
        self._clock = now
        self._time = float("-inf")
        self._plans: Plans[EmrPlan] = Plans()
        self._clusters: dict[str, _Cluster] = {}
        self._completed: list[tuple[float, str]] = []
        self.actions: Mapping[str, Callable[[str, Mapping[str, Any]], dict[str, Any]]] = {
            "RunJobFlow": self._run_job_flow,
            "DescribeCluster": self._describe_cluster,
            "ListClusters": self._list_clusters,
            "TerminateJobFlows": self._terminate_job_flows,
            "SetTerminationProtection": self._set_termination_protection,
            "ModifyCluster": self._modify_cluster,
            "AddJobFlowSteps": self._add_job_flow_steps,
            "ListSteps": self._list_steps,
            "DescribeStep": self._describe_step,
            "CancelSteps": self._cancel_steps,
        }

    # -- plans and control ---------------------------------------------------------------------------------

    def plan(
        self,
        step_name_contains: str | None = None,
        *,
        cluster_id: str | None = None,
        then: Then = (),
        **fields: Any,
    ) -> None:
        """Say what will become of the steps that fit; the latest rule that fits counts.

        :param step_name_contains: text that the step's name contains.
        :param then: for the second, third, ... step that fits: what differs from the first one's plan; the
            last one stays in force. Or a function of the step's request and its number (from 1).
        :param fields: fields of :class:`EmrPlan`.
        """

        def fits(request: Mapping[str, Any]) -> bool:
            return (step_name_contains is None or step_name_contains in request["Name"]) and (
                cluster_id is None or cluster_id == request["cluster id"]
            )

        with self._lock:
            self._plans.add(fits, fields, then, self.default)

    @locked
    def finish(
        self,
        step_id: str,
        outcome: Outcome = "COMPLETED",
        *,
        reason: str | None = "Unknown Error",
        message: str | None = None,
        log_file: str | None = None,
    ) -> None:
        """End a step now, whatever its plan is; a failure has the effect its ActionOnFailure says.

        :raises ValueError: when it has ended already.
        """
        now = self._settle()
        cluster, step = self._find(step_id)
        if step.state in _OVER:
            raise ValueError(f"EMR step {step_id} has ended already: {step.state}")
        self._end_step(cluster, step, now, outcome, _failure(outcome, reason, message, log_file))
        self._settle()

    @locked
    def end_cluster(
        self,
        cluster_id: str,
        code: str = "INSTANCE_FAILURE",
        message: str | None = None,
        *,
        running_steps_become: Outcome | None = None,
    ) -> None:
        """End a cluster now, by itself: its steps end with it.

        :param code: ``StateChangeReason.Code``: INTERNAL_ERROR, VALIDATION_ERROR, INSTANCE_FAILURE,
            INSTANCE_FLEET_TIMEOUT, BOOTSTRAP_FAILURE, USER_REQUEST, STEP_FAILURE, ALL_STEPS_COMPLETED.
        :param running_steps_become: the attribute of that name by default.
        """
        now = self._settle()
        becomes = running_steps_become or (
            "CANCELLED" if code == "USER_REQUEST" else self.running_steps_become
        )
        self._end_cluster(self._clusters[cluster_id], now, code, message, becomes)
        self._settle()

    @locked
    def steps(self, cluster_id: str | None = None) -> list[EmrStep]:
        """List all steps that ever were, oldest first."""
        self._settle()
        return [
            EmrStep(
                id=step.id,
                cluster_id=cluster.id,
                name=step.name,
                state=step.state,
                created=step.created,
                started=step.started,
                ended=step.ended,
                action_on_failure=step.action_on_failure,
                execution_role=step.role,
                args=tuple(step.config.get("HadoopJarStep", {}).get("Args", ())),
            )
            for cluster in self._clusters.values()
            if cluster_id in {None, cluster.id}
            for step in cluster.steps.values()
        ]

    @locked
    def step(self, step_id: str) -> EmrStep:
        """Return one step."""
        return next(step for step in self.steps() if step.id == step_id)

    @locked
    def clusters(self) -> list[EmrCluster]:
        """List all clusters that ever were, oldest first."""
        self._settle()
        return [
            EmrCluster(
                id=cluster.id,
                name=cluster.name,
                state=cluster.state,
                created=cluster.created,
                ready=cluster.ready,
                ended=cluster.ended,
                code=cluster.code,
                message=cluster.message,
            )
            for cluster in self._clusters.values()
        ]

    # -- the API: clusters --------------------------------------------------------------------------------

    def _run_job_flow(self, region: str, params: Mapping[str, Any]) -> dict[str, Any]:
        now = self._settle()
        steps = list(params.get("Steps", []))
        instances = params.get("Instances", {})
        concurrency = int(params.get("StepConcurrencyLevel", 1))
        _check_concurrency(concurrency)
        _check_steps(steps, concurrency)
        # Without steps and kept alive, or moto would end it at once; this class knows better.
        kept = {**instances, "KeepJobFlowAliveWhenNoSteps": True}
        answer = ask_moto("emr", region, "RunJobFlow", {**params, "Steps": [], "Instances": kept})
        cluster = _Cluster(
            id=str(answer["JobFlowId"]),
            name=str(params.get("Name", "")),
            region=region,
            release=str(params.get("ReleaseLabel", "emr-1.0.0")),
            log_uri=params.get("LogUri"),
            concurrency=concurrency,
            keep_alive=bool(instances.get("KeepJobFlowAliveWhenNoSteps", False)),
            protected=bool(instances.get("TerminationProtected", False)),
            created=now,
            boots=now + self.start_seconds / 2,
            readies=now + self.start_seconds,
        )
        self._clusters[cluster.id] = cluster
        self._add(cluster, steps, params.get("StepExecutionRoleArn"), now)
        self._settle()
        return {"JobFlowId": cluster.id, "ClusterArn": cluster.arn}

    def _describe_cluster(self, region: str, params: Mapping[str, Any]) -> dict[str, Any]:
        self._settle()
        cluster = self._cluster(region, params.get("ClusterId"))
        shape = ask_moto("emr", region, "DescribeCluster", {"ClusterId": cluster.id})["Cluster"]
        shape |= {
            "Status": _cluster_status(cluster),
            "AutoTerminate": not cluster.keep_alive,
            "TerminationProtected": cluster.protected,
            "StepConcurrencyLevel": cluster.concurrency,
        }
        return {"Cluster": shape}

    def _list_clusters(self, region: str, params: Mapping[str, Any]) -> dict[str, Any]:
        self._settle()
        states = set(params.get("ClusterStates", []))
        if not states <= _CLUSTER_STATES:
            raise AwsError("ValidationException", f"Unknown cluster state in {sorted(states)}.")
        after, before = params.get("CreatedAfter"), params.get("CreatedBefore")
        found = [
            {
                "Id": cluster.id,
                "Name": cluster.name,
                "Status": _cluster_status(cluster),
                "NormalizedInstanceHours": 0,
                "ClusterArn": cluster.arn,
            }
            for cluster in sorted(self._clusters.values(), key=lambda each: -each.created)
            if cluster.region == region
            and (not states or cluster.state in states)
            and (after is None or cluster.created >= float(after))
            and (before is None or cluster.created <= float(before))
        ]
        return _page("Clusters", found, params)

    def _terminate_job_flows(self, region: str, params: Mapping[str, Any]) -> dict[str, Any]:
        now = self._settle()
        ids = params.get("JobFlowIds", [])
        if len(ids) > _MAX_CLUSTERS:
            raise AwsError("ValidationException", f"At most {_MAX_CLUSTERS} clusters can be ended at once.")
        clusters = [self._job_flow(region, each) for each in ids]
        locked = [cluster.id for cluster in clusters if cluster.protected and cluster.state not in _ENDING]
        if locked:
            raise AwsError(
                "ValidationException",
                "Could not shut down one or more job flows since they are termination protected.",
            )
        for cluster in clusters:
            self._end_cluster(cluster, now, "USER_REQUEST", "Terminated by user request", "CANCELLED")
        self._settle()
        return {}

    def _set_termination_protection(self, region: str, params: Mapping[str, Any]) -> dict[str, Any]:
        self._settle()
        for cluster in [self._job_flow(region, each) for each in params.get("JobFlowIds", [])]:
            if cluster.state in _ENDING:
                raise AwsError("ValidationException", _SHUT_DOWN)
            cluster.protected = bool(params.get("TerminationProtected"))
        return {}

    def _modify_cluster(self, region: str, params: Mapping[str, Any]) -> dict[str, Any]:
        self._settle()
        cluster = self._cluster(region, params.get("ClusterId"))
        if cluster.state in _ENDING:
            raise AwsError("InvalidRequestException", _SHUT_DOWN)
        concurrency = int(params.get("StepConcurrencyLevel", cluster.concurrency))
        _check_concurrency(concurrency)
        cluster.concurrency = concurrency
        self._settle()
        return {"StepConcurrencyLevel": concurrency}

    # -- the API: steps -----------------------------------------------------------------------------------

    def _add_job_flow_steps(self, region: str, params: Mapping[str, Any]) -> dict[str, Any]:
        now = self._settle()
        cluster = self._job_flow(region, params.get("JobFlowId"))
        if cluster.state in _ENDING:
            raise AwsError("ValidationException", _SHUT_DOWN)
        steps = list(params.get("Steps", []))
        _check_steps(steps, cluster.concurrency)
        if cluster.active + len(steps) > _MAX_ACTIVE:
            raise AwsError("ValidationException", _TOO_MANY)
        added = self._add(cluster, steps, params.get("ExecutionRoleArn"), now)
        self._settle()
        return {"StepIds": [step.id for step in added]}

    def _list_steps(self, region: str, params: Mapping[str, Any]) -> dict[str, Any]:
        now = self._settle()
        cluster = self._cluster(region, params.get("ClusterId"))
        states, ids = params.get("StepStates", []), params.get("StepIds", [])
        if len(ids) > _MAX_IDS:
            raise AwsError("ValidationException", f"At most {_MAX_IDS} step ids can be listed at once.")
        if not set(states) <= _STEP_STATES:
            raise AwsError("ValidationException", f"Unknown step state in {sorted(states)}.")
        unknown = [each for each in ids if each not in cluster.steps]
        if unknown and self.unknown_step_ids == "refuse":
            raise _no_such_step(unknown[0])
        found = [
            _step_shape(cluster, step)
            for step in cluster.steps.values()
            if (not ids or step.id in ids)
            and (not states or step.state in states)
            and now >= step.created + self.visible_after_seconds
        ]
        # ListSteps reference: "in reverse order unless you specify stepIds ... or filter by StepStates".
        return _page("Steps", found if ids or states else found[::-1], params)

    def _describe_step(self, region: str, params: Mapping[str, Any]) -> dict[str, Any]:
        self._settle()
        cluster = self._cluster(region, params.get("ClusterId"))
        step = cluster.steps.get(str(params.get("StepId")))
        if step is None:
            raise _no_such_step(str(params.get("StepId")))
        shape = _step_shape(cluster, step)
        if step.role:
            shape["ExecutionRoleArn"] = step.role
        return {"Step": shape}

    def _cancel_steps(self, region: str, params: Mapping[str, Any]) -> dict[str, Any]:
        now = self._settle()
        cluster = self._cluster(region, params.get("ClusterId"))
        ids = params.get("StepIds", [])
        if not ids or len(ids) > _MAX_ACTIVE:
            raise AwsError("ValidationException", f"1 to {_MAX_ACTIVE} steps can be cancelled at once.")
        infos = [self._cancel(cluster, str(each), now) for each in ids]
        self._settle()
        return {"CancelStepsInfoList": infos}

    # -- inside -------------------------------------------------------------------------------------------

    def _cluster(self, region: str, cluster_id: object) -> _Cluster:
        cluster = self._clusters.get(str(cluster_id))
        if cluster is None or cluster.region != region:
            message = f"Cluster id '{cluster_id}' is not valid."
            raise AwsError("InvalidRequestException", message, ErrorCode="NoSuchCluster")
        return cluster

    def _job_flow(self, region: str, cluster_id: object) -> _Cluster:
        """Find a cluster for one of the older operations, whose error messages differ."""
        cluster = self._clusters.get(str(cluster_id))
        if cluster is None or cluster.region != region:
            raise AwsError("ValidationException", "Specified job flow ID does not exist.")
        return cluster

    def _find(self, step_id: str) -> tuple[_Cluster, _Step]:
        for cluster in self._clusters.values():
            if step_id in cluster.steps:
                return cluster, cluster.steps[step_id]
        raise KeyError(f"there never was an EMR step {step_id}")

    def _add(
        self, cluster: _Cluster, configs: Sequence[Mapping[str, Any]], role: str | None, now: float
    ) -> list[_Step]:
        added = []
        for config in configs:
            args = [str(word) for word in config.get("HadoopJarStep", {}).get("Args", [])]
            seconds, exit_code = seconds_and_exit(args)
            base = EmrPlan(
                **{
                    **vars(self.default),
                    **({} if seconds is None else {"seconds": seconds}),
                    **({} if exit_code is None else {"outcome": "FAILED" if exit_code else "COMPLETED"}),
                }
            )
            plan = self._plans.choose({**config, "cluster id": cluster.id}, base)
            step = _Step(f"s-{_random_id()}", config, plan, now, role)
            cluster.steps[step.id] = step
            cluster.pending.append(step)
            added.append(step)
        return added

    def _cancel(self, cluster: _Cluster, step_id: str, now: float) -> dict[str, Any]:
        step = cluster.steps.get(step_id)
        refusal = None
        if step is None:
            refusal = f"Step id '{step_id}' is not valid."
        elif step.state in _OVER:
            refusal = f"Cannot cancel a step that is {step.state}."
        elif step.state == "RUNNING" and _release(cluster.release) < _CANCEL_RUNNING_SINCE:
            refusal = "Cannot cancel a running step on this release."
        if step is None or refusal:
            return {"StepId": step_id, "Status": "FAILED", "Reason": refusal}
        if step.state == "PENDING":
            self._end_step(cluster, step, now, "CANCELLED", None)
        elif step.state == "RUNNING":
            step.state, step.cancelled = "CANCEL_PENDING", now
        return {"StepId": step_id, "Status": "SUBMITTED"}

    def _settle(self) -> float:
        """Let happen what is due, in order, and say what time it is."""
        now = self._clock()
        while True:
            due = [event for cluster in self._clusters.values() for event in self._events(cluster)]
            if not due:
                break
            time, _, happen = min(due, key=lambda event: event[:2])
            if time > now:
                break
            self._time = max(self._time, time)
            happen(self._time)
        self._time = max(self._time, now)
        return now

    def _events(self, cluster: _Cluster) -> list[tuple[float, int, Callable[[float], None]]]:
        """List what may happen next in a cluster: when, which of several at once goes first, and what."""
        if cluster.state == "TERMINATING":
            assert cluster.ends is not None
            return [(cluster.ends, 0, partial(self._ended, cluster))]
        if cluster.state in _ENDING:
            return []
        if cluster.state == "STARTING":
            return [(cluster.boots, 0, partial(self._boots, cluster))]
        if cluster.state == "BOOTSTRAPPING":
            return [(cluster.readies, 0, partial(self._readies, cluster))]
        events: list[tuple[float, int, Callable[[float], None]]] = []
        for step in cluster.running:
            end, outcome = self._end_of(step)
            if end is not None:
                failure = _failure(
                    outcome, step.plan.failure_reason, step.plan.failure_message, step.plan.log_file
                )
                events.append((end, 1, partial(self._step_ends, cluster, step, outcome, failure)))
        if cluster.pending and len(cluster.running) < cluster.concurrency:
            first = cluster.pending[0]
            start = max(self._time, first.created + first.plan.pending_seconds)
            events.append((start, 2, partial(self._step_starts, cluster)))
        if not cluster.active and not cluster.keep_alive:
            events.append((self._time, 3, partial(self._runs_out, cluster)))
        return events

    def _end_of(self, step: _Step) -> tuple[float | None, Outcome]:
        assert step.started is not None
        if step.cancelled is not None:
            stop = step.plan.stop_seconds
            return (None if stop is None else step.cancelled + stop), "CANCELLED"
        if step.plan.seconds is None:
            return None, step.plan.outcome
        end = step.started + step.plan.seconds
        for text in step.plan.needs:
            met = [time for time, name in self._completed if text in name]
            if not met:
                return None, step.plan.outcome
            end = max(end, min(met))
        return end, step.plan.outcome

    def _boots(self, cluster: _Cluster, time: float) -> None:
        del time
        cluster.state = "BOOTSTRAPPING"

    def _readies(self, cluster: _Cluster, time: float) -> None:
        cluster.ready = time
        cluster.state = "RUNNING" if cluster.active else "WAITING"

    def _step_starts(self, cluster: _Cluster, time: float) -> None:
        step = cluster.pending.popleft()
        step.state, step.started = "RUNNING", time
        cluster.running.append(step)
        cluster.state = "RUNNING"

    def _step_ends(
        self,
        cluster: _Cluster,
        step: _Step,
        outcome: Outcome,
        failure: dict[str, str] | None,
        time: float,
    ) -> None:
        self._end_step(cluster, step, time, outcome, failure)

    def _runs_out(self, cluster: _Cluster, time: float) -> None:
        self._end_cluster(cluster, time, "ALL_STEPS_COMPLETED", "Steps completed", "COMPLETED")

    def _ended(self, cluster: _Cluster, time: float) -> None:
        cluster.state, cluster.ended = cluster.final_state, time

    def _end_step(
        self,
        cluster: _Cluster,
        step: _Step,
        time: float,
        outcome: Outcome,
        failure: dict[str, str] | None,
    ) -> None:
        if step in cluster.running:
            cluster.running.remove(step)
        else:
            cluster.pending.remove(step)
            if outcome in {"COMPLETED", "FAILED"}:
                step.started = time
        step.state, step.ended, step.failure = outcome, time, failure
        if outcome == "COMPLETED":
            self._completed.append((time, step.name))
        if outcome == "FAILED" and cluster.state not in _ENDING:
            self._act_on_failure(cluster, step, time)
        if cluster.up and not cluster.active:
            cluster.state = "WAITING"

    def _act_on_failure(self, cluster: _Cluster, step: _Step, time: float) -> None:
        """Do what ActionOnFailure says.

        With a concurrency above 1 the cluster goes on whatever it says; with termination protection the steps
        after it are cancelled and the cluster waits.

        Source: StepConfig reference, ActionOnFailure; management guide, "Using termination protection".
        """
        action = step.action_on_failure
        if action == "CONTINUE" or cluster.concurrency > 1:
            return
        if action != "CANCEL_AND_WAIT" and not cluster.protected:
            self._end_cluster(cluster, time, "STEP_FAILURE", "Shut down as step failed", "CANCELLED")
            return
        for waiting in list(cluster.pending):
            self._end_step(cluster, waiting, time, "CANCELLED", None)

    def _end_cluster(
        self, cluster: _Cluster, time: float, code: str, message: str | None, running_become: Outcome
    ) -> None:
        if cluster.state in _ENDING:
            return
        cluster.state = "TERMINATING"
        cluster.ends = time + self.terminate_seconds
        cluster.code, cluster.message = code, message
        if code not in {"USER_REQUEST", "ALL_STEPS_COMPLETED"}:
            cluster.final_state = "TERMINATED_WITH_ERRORS"
        for step in list(cluster.running):
            becomes: Outcome = "CANCELLED" if step.cancelled is not None else running_become
            self._end_step(cluster, step, time, becomes, None)
        for step in list(cluster.pending):
            self._end_step(cluster, step, time, "CANCELLED", None)


def _check_concurrency(level: int) -> None:
    if not 1 <= level <= _MAX_CONCURRENT:
        raise AwsError("ValidationException", f"StepConcurrencyLevel must be 1 to {_MAX_CONCURRENT}.")


def _check_steps(steps: Sequence[Mapping[str, Any]], concurrency: int) -> None:
    """Refuse what AddJobFlowSteps refuses.

    Source: StepConfig reference: Name (1 to 256 characters), ActionOnFailure.
    """
    if len(steps) > _MAX_ACTIVE:
        raise AwsError("ValidationException", _TOO_MANY)
    for step in steps:
        if len(str(step.get("Name", ""))) > _NAME_LENGTH:
            raise AwsError("ValidationException", f"A step's name has at most {_NAME_LENGTH} characters.")
        action = step.get("ActionOnFailure", "TERMINATE_CLUSTER" if concurrency == 1 else "CONTINUE")
        if action not in _ACTIONS or (concurrency > 1 and action != "CONTINUE"):
            raise AwsError(
                "ValidationException",
                f"ActionOnFailure {action} is not valid where StepConcurrencyLevel is {concurrency}.",
            )


def _failure(
    outcome: str, reason: str | None, message: str | None, log_file: str | None
) -> dict[str, str] | None:
    if outcome != "FAILED":
        return None
    details = {"Reason": reason, "Message": message, "LogFile": log_file}
    return {name: value for name, value in details.items() if value is not None}


def _no_such_step(step_id: str) -> AwsError:
    return AwsError("InvalidRequestException", f"Step id '{step_id}' is not valid.", ErrorCode="NoSuchStep")


def _random_id() -> str:
    return "".join(SystemRandom().choices(_ID_LETTERS, k=13))


def _release(label: str) -> tuple[int, int]:
    match = re.match(r"emr-(\d+)\.(\d+)", label)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _page(name: str, items: list[dict[str, Any]], params: Mapping[str, Any]) -> dict[str, Any]:
    page_marker = str(params.get("Marker", "page-0"))
    match = re.fullmatch(r"page-(\d+)", page_marker)
    if not match:
        raise AwsError("InvalidRequestException", f"Marker '{page_marker}' is not valid.")
    first = int(match[1])
    page: dict[str, Any] = {name: items[first : first + _PAGE]}
    if first + _PAGE < len(items):
        page["Marker"] = f"page-{first + _PAGE}"
    return page


def _timeline(**times: float | None) -> dict[str, float]:
    return {f"{name}DateTime": time for name, time in times.items() if time is not None}


def _cluster_status(cluster: _Cluster) -> dict[str, Any]:
    reason = {"Code": cluster.code, "Message": cluster.message}
    return {
        "State": cluster.state,
        "StateChangeReason": {name: value for name, value in reason.items() if value is not None},
        "Timeline": _timeline(Creation=cluster.created, Ready=cluster.ready, End=cluster.ended),
    }


def _step_shape(cluster: _Cluster, step: _Step) -> dict[str, Any]:
    jar = step.config.get("HadoopJarStep", {})
    config = {
        "Jar": jar.get("Jar", ""),
        "Properties": {each["Key"]: each.get("Value", "") for each in jar.get("Properties", [])},
        "Args": list(jar.get("Args", [])),
        **({"MainClass": jar["MainClass"]} if jar.get("MainClass") else {}),
    }
    status: dict[str, Any] = {
        "State": step.state,
        "StateChangeReason": {},
        "Timeline": _timeline(Creation=step.created, Start=step.started, End=step.ended),
    }
    if step.failure is not None:
        status["FailureDetails"] = {**step.failure}
        if cluster.log_uri:
            log = f"{cluster.log_uri.rstrip('/')}/{cluster.id}/steps/{step.id}/stderr.gz"
            status["FailureDetails"].setdefault("LogFile", log)
    return {
        "Id": step.id,
        "Name": step.name,
        "Config": config,
        "ActionOnFailure": step.action_on_failure,
        "Status": status,
    }
