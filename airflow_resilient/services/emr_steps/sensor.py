"""The sensor that waits for a state of an EMR step."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ...core.job import NO_CLAIM, Job, Phase
from ...core.overrides import NotCalled
from ...errors import JobFailed, JobLost, JobUnreachable
from ...parameters import require_match, require_shapes
from .._aws import AWS_NOT_CALLED, DEFAULT_DEFERRABLE, AwsJobSensor, access_of, choice_of
from .client import HOOK, EmrSteps
from .links import EmrClusterLink, EmrStepLogsLink, persist_links
from .request import CLUSTER_ID, SENSOR_SHAPES, STEP_ID, states_of

if TYPE_CHECKING:
    from airflow.sdk import Context


_ARRIVED = (
    "set target_states and failed_states, override arrived() to decide about a step, or poke() to ask EMR "
    "for something else"
)


class EmrStepSensor(AwsJobSensor):
    """Wait, without a worker slot, for a step of an EMR cluster that anyone may have added.

    Takes every parameter of the amazon provider's sensor of this name.

    :param job_flow_id: the cluster. (templated)
    :param step_id: the step. (templated)
    :param target_states: states of the step to wait for; ``["COMPLETED"]`` by default. (templated)
    :param failed_states: states that fail the sensor; ``["CANCELLED", "FAILED", "INTERRUPTED"]`` by default.
        (templated)
    :param max_attempts: is ignored, with a warning: ``timeout`` limits the wait.
    :param deferrable: ``False`` waits in the worker, as ``mode`` says; left out, waiting defers.
    :param kwargs: those of `AwsJobSensor` and of every sensor.
    :raises InvalidParameter: a parameter is wrong.
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
    hook_class = HOOK
    not_called: ClassVar[Mapping[str, NotCalled]] = {
        **AWS_NOT_CALLED,
        "get_emr_response": NotCalled(_ARRIVED, refused=True),
        "state_from_response": NotCalled(_ARRIVED, refused=True),
        "failure_message_from_response": NotCalled("override arrived(), which raises what fails the sensor"),
    }

    def __init__(
        self,
        *,
        job_flow_id: str,
        step_id: str,
        target_states: Iterable[str] | None = None,
        failed_states: Iterable[str] | None = None,
        max_attempts: int = 60,
        deferrable: bool = DEFAULT_DEFERRABLE,
        **kwargs: Any,
    ) -> None:
        super().__init__(deferrable=choice_of(deferrable), **kwargs)
        self.job_flow_id = job_flow_id
        self.step_id = step_id
        self.target_states = target_states or ["COMPLETED"]
        self.failed_states = failed_states or ["CANCELLED", "FAILED", "INTERRUPTED"]
        self.max_attempts = max_attempts
        self.deferrable = bool(deferrable) if choice_of(deferrable) is None else deferrable
        self._check(rendered=False)
        self._warn_ignored(60)

    def _check(self, *, rendered: bool) -> None:
        require_shapes(self, SENSOR_SHAPES, rendered=rendered)
        wanted = "the id of the cluster, such as 'j-2AXXXXXXGAPLF', or a template {{ ... }} that renders it"
        require_match(self, "job_flow_id", self.job_flow_id, CLUSTER_ID, wanted, rendered=rendered)
        wanted = "the id of one step, such as 's-2AXXXXXXGAPLF', or a template {{ ... }} that renders it"
        require_match(self, "step_id", self.step_id, STEP_ID, wanted, rendered=rendered)

    # --- for a `poke` of one's own, as the provider's sensor has them; nothing here calls them

    def get_emr_response(self, context: Context) -> dict[str, Any]:
        """What EMR's ``DescribeStep`` answers now, by the provider's `hook`."""
        answer: dict[str, Any] = self.hook.conn.describe_step(ClusterId=self.job_flow_id, StepId=self.step_id)
        return answer

    @staticmethod
    def state_from_response(response: Mapping[str, Any]) -> str:
        """The state of the step in an answer of ``DescribeStep``."""
        return str(response["Step"]["Status"]["State"])

    @staticmethod
    def failure_message_from_response(response: Mapping[str, Any]) -> str | None:
        """Why the step has failed, from an answer of ``DescribeStep``; ``None``: it does not say."""
        details = response["Step"]["Status"].get("FailureDetails")
        if not details:
            return None
        return (
            f"for reason {details.get('Reason')} with message {details.get('Message')} "
            f"and log file {details.get('LogFile')}"
        )

    def remote_jobs(self, context: Context) -> EmrSteps:
        """EMR, without a request."""
        self._check(rendered=True)  # again: what was a template at parse time is a value now
        return EmrSteps(**access_of(self))

    def watched(self, context: Context) -> Job:
        """The step, not observed yet."""
        self._check(rendered=True)
        job = Job(self.step_id, NO_CLAIM, Phase.QUEUED, time.time(), scope=self.job_flow_id)
        if self.do_xcom_push:
            try:
                persist_links(context, self.remote_jobs(context), self.job_flow_id, self.step_id)
            except LookupError as error:
                raise JobUnreachable(
                    f"EMR has no cluster {self.job_flow_id}: {error}. "
                    "Correct job_flow_id, region_name or aws_conn_id.",
                    job,
                ) from None
        return job

    def until(self) -> tuple[str, Sequence[str]]:
        """The states that end the wait."""
        return "state", [*states_of(self, "target_states"), *states_of(self, "failed_states")]

    def arrived(self, job: Job) -> bool:
        """Whether the step is in one of the target states.

        :raises JobFailed: it is in one of the failed states, or has ended without one of the target states.
        :raises JobLost: EMR does not know it.
        """
        state = job.facts.get("state")
        if state in states_of(self, "target_states"):
            return True
        if job.phase is Phase.LOST:
            raise JobLost(
                f"EMR has no step {self.step_id} on cluster {self.job_flow_id}: {job.reason}. "
                "Correct step_id, job_flow_id, region_name or aws_conn_id.",
                job,
            )
        if state in states_of(self, "failed_states"):
            raise JobFailed(
                f"{job.reason or f'step {job.id} is {state}.'} {state} is one of failed_states.", job
            )
        if not job.live:
            wanted = " or ".join(states_of(self, "target_states"))
            raise JobFailed(
                f"step {job.id} ended {state} and can no longer become {wanted}. {job.reason}", job
            )
        return False
