"""The sensor that waits for a state of an ECS task."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ...core.job import NO_CLAIM, Job, Phase
from ...errors import JobFailed, error_of
from ...parameters import NOT_GIVEN, is_templated, reject, reject_hidden, require_match
from .._aws import AWS_NOT_CALLED, OTHER_ACCESS, AwsJobSensor, access_of
from .client import HOOK, EcsTasks
from .links import EcsTaskLink
from .read import CLUSTER, TASK, cluster_name, region_of_arn

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ...core.overrides import NotCalled


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


class EcsTaskStateSensor(AwsJobSensor):
    """Wait, without a worker slot, until an ECS task is in a state.

    A drop-in for the amazon provider's sensor of this name. It never stops the ECS task.

    :param cluster: name or ARN of the cluster (templated).
    :param task: id or ARN of the ECS task (templated).
    :param target_state: the state to wait for, a string or the provider's ``EcsTaskStates`` (templated).
    :param failure_states: states that fail the sensor; default ``{"STOPPED"}`` (templated).
    :param kwargs: those of `AwsJobSensor` and of every sensor.
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
    hook_class = HOOK
    not_called: ClassVar[Mapping[str, NotCalled]] = {**AWS_NOT_CALLED, "client": OTHER_ACCESS}

    def __init__(
        self,
        *,
        cluster: str = NOT_GIVEN,
        task: str = NOT_GIVEN,
        target_state: Any = "RUNNING",
        failure_states: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster
        self.task = task
        self.target_state = target_state
        self.failure_states = failure_states or {"STOPPED"}
        self._check(rendered=False)

    def remote_jobs(self, context: Context) -> EcsTasks:
        """ECS, without a request."""
        self._check(rendered=True)  # again: what was a template at parse time is a value now
        return EcsTasks(**access_of(self), cluster=self.cluster)

    def watched(self, context: Context) -> Job:
        """The ECS task, not observed yet."""
        self._check(rendered=True)
        job = Job(self.task, NO_CLAIM, Phase.QUEUED, time.time(), scope=self.cluster)
        EcsTaskLink.persist(
            context,
            region_name=region_of_arn(job.id, self.region_name),
            cluster=cluster_name(job, self.cluster),
            task_id=job.id,
        )
        return job

    def until(self) -> tuple[str, Sequence[str]]:
        """The states in which the sensor resumes."""
        return "last_status", [_state(self.target_state), *sorted(map(_state, _each(self.failure_states)))]

    def arrived(self, job: Job) -> bool:
        """Whether the task is in the target state.

        :raises JobFailed: it is in one of the `failure_states`, or has stopped in another one.
        :raises JobLost: ECS does not know the task (any more).
        """
        state, target = job.facts.get("last_status"), _state(self.target_state)
        if job.phase is Phase.LOST:
            raise error_of(job)
        if state == target:
            return True
        if state in set(map(_state, _each(self.failure_states))) or not job.live:
            why = f": {job.reason}" if job.reason else ""
            raise JobFailed(f"{job.id} is {state} and can no longer become {target}{why}", job)
        return False

    def _check(self, *, rendered: bool) -> None:
        wanted = "the name or the ARN of a cluster, such as cluster='etl'"
        require_match(self, "cluster", self.cluster, CLUSTER, wanted, rendered=rendered)
        wanted = "the task's id or ARN, or a template {{ ... }} that renders it"
        require_match(self, "task", self.task, TASK, wanted, rendered=rendered)
        for name, states in (("target_state", [self.target_state]), ("failure_states", self.failure_states)):
            if is_templated(states):
                continue
            for state in _each(states):
                if not isinstance(getattr(state, "value", state), str):
                    reject_hidden(self, name, state, f"one of {', '.join(_STATES)}")
                if not is_templated(state) and _state(state) not in (*_STATES, "NONE"):
                    reject(self, name, _state(state), f"one of {', '.join(_STATES)}")


def _state(state: Any) -> str:
    """Name of a state: a string, or a member of the provider's enumeration."""
    return str(getattr(state, "value", state))


def _each(states: Any) -> Iterable[Any]:
    """The members of a collection of states, or one state."""
    return states if isinstance(states, list | tuple | set | frozenset) else [states]
