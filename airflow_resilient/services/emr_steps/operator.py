"""The operator that adds steps to an EMR cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from ... import compat
from ...compat import conf
from ...core.overrides import NotCalled, overriding_class
from ...errors import InvalidParameter
from ...operators import RemoteJobOperator
from ...parameters import read_literal, require_match, require_shapes
from ...settings import ProviderDefault
from .._aws import AWS_NOT_CALLED, AwsJobOperator, access_of
from .client import HOOK, EmrSteps, log
from .links import EmrClusterLink, EmrStepLogsLink, persist_links
from .request import (
    CLUSTER_ID,
    EXAMPLE_STEPS,
    SHAPES,
    inject_openlineage_parent,
    invalid_steps,
    states_of,
)
from .service import SERVICE

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ...core.job import Job, LogTail


class EmrAddStepsOperator(AwsJobOperator):
    """Add steps to an EMR cluster, once, and optionally wait for all of them without a worker slot.

    Takes every parameter of the amazon provider's operator of this name. The steps' names end with a marker
    (``sort [af-abcdefghijklmnop-1 4.3 k3v7ahq2]``) by which a retry finds them again. They are one job, which
    has succeeded when every step is known to be COMPLETED.

    :param job_flow_id: id of the cluster. (templated)
    :param job_flow_name: or its name; exactly one such cluster must exist. (templated)
    :param cluster_states: states in which a cluster named `job_flow_name` is searched; see `EmrSteps`.
        (templated)
    :param steps: boto3's ``Steps``: a list, its JSON (or a Python literal, such as a rendered list from XCom:
        nothing is evaluated), or a ``.json`` template file; 1 to 256 steps. (templated)
        Prefer the list: in a list, a template renders one text and nothing else, whereas in the text of a
        list, a rendered value with quotation marks may add arguments, or whole steps.
    :param wait_for_completion: ``False`` returns when the steps have been added; ``True`` waits until they
        have ended.
    :param execution_role_arn: IAM role that the steps run as. (templated)
    :param openlineage_inject_parent_job_info: add OpenLineage's parent job to the arguments of Spark steps,
        where the openlineage provider is installed.
    :param kwargs: those of `AwsJobOperator`, of `RemoteJobOperator` and of every operator.
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
    hook_class = HOOK
    not_called: ClassVar[Mapping[str, NotCalled]] = {
        **AWS_NOT_CALLED,
        "_inject_openlineage_parent_job_information": NotCalled(
            "set openlineage_inject_parent_job_info, or add the arguments to steps"
        ),
    }

    def __init__(
        self,
        *,
        job_flow_id: str | None = None,
        job_flow_name: str | None = None,
        cluster_states: list[str] | None = None,
        steps: list[dict[str, Any]] | str | None = None,
        wait_for_completion: bool = False,
        waiter_delay: int = ProviderDefault(SERVICE.poll_interval),
        waiter_max_attempts: int = 60,
        execution_role_arn: str | None = None,
        openlineage_inject_parent_job_info: bool = conf.getboolean(
            "openlineage", "spark_inject_parent_job_info", fallback=False
        ),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            wait_for_completion=wait_for_completion,
            waiter_delay=waiter_delay,
            waiter_max_attempts=waiter_max_attempts,
            **kwargs,
        )
        if (job_flow_id is None) == (job_flow_name is None):
            given = "neither" if job_flow_id is None else "both"
            raise InvalidParameter(
                f"task {self.task_id!r}: job_flow_id, job_flow_name: {given} given; write exactly one of "
                "them, such as job_flow_id='j-2AXXXXXXGAPLF' or job_flow_name='etl'"
            )
        if problem := invalid_steps(steps, rendered=False):
            # Not the value itself: arguments of steps may be secrets.
            raise InvalidParameter(
                f"task {self.task_id!r}: steps: {problem}; write a list of boto3's steps, its JSON, or the "
                f"name of a .json template file, such as steps={EXAMPLE_STEPS}"
            )
        self.job_flow_id = job_flow_id
        if job_flow_id is not None and not self._replaces_execute():
            self._check_cluster(rendered=False)
        self.job_flow_name = job_flow_name
        self.cluster_states = cluster_states or []
        self.steps = steps or []
        self.wait_for_completion = wait_for_completion or bool(self.deferrable)
        self.execution_role_arn = execution_role_arn
        self.openlineage_inject_parent_job_info = openlineage_inject_parent_job_info
        require_shapes(self, SHAPES, rendered=False)
        self._service: EmrSteps | None = None
        self._warn_ignored(60)

    def remote_jobs(self, context: Context) -> EmrSteps:
        """EMR, with the request: `steps` are parsed, and the cluster is looked up, only when needed."""
        require_shapes(self, SHAPES)  # again: what was a template at parse time is a value now
        # The client names what no template has found; what `execute` filled in on another object is not here.
        filled_in = self._first_visit or not self._replaces_execute()
        if self.job_flow_id and self.job_flow_id != "None" and filled_in:
            self._check_cluster(rendered=True)
        self._service = EmrSteps(
            **access_of(self),
            job_flow_id=self.job_flow_id,
            job_flow_name=self.job_flow_name,
            cluster_states=states_of(self, "cluster_states"),
            steps=partial(self._request, context),
            execution_role_arn=self.execution_role_arn,
            not_before=compat.run_start(context),
        )
        return self._service

    def _replaces_execute(self) -> bool:
        """Whether a subclass may still fill in what is only a placeholder when the DAG is parsed."""
        return bool(overriding_class(type(self), RemoteJobOperator, "execute"))

    def _check_cluster(self, *, rendered: bool) -> None:
        wanted = "the id of a cluster, such as 'j-2AXXXXXXGAPLF', or job_flow_name instead"
        require_match(self, "job_flow_id", self.job_flow_id, CLUSTER_ID, wanted, rendered=rendered)

    def _request(self, context: Context) -> Any:
        steps = read_literal(self.steps)
        if not self.openlineage_inject_parent_job_info or invalid_steps(steps, rendered=True):
            return steps
        return inject_openlineage_parent(steps, _openlineage_parent(context))

    def submitted(self, context: Context, job: Job) -> None:
        """Push the cluster's id and the links."""
        if not self.do_xcom_push:
            return
        context["ti"].xcom_push(key="job_flow_id", value=job.scope)
        if self._service is not None:
            with contextlib.suppress(LookupError):  # the cluster exists, because it accepted steps
                persist_links(context, self._service, job.scope, job.id.split(",")[0])

    def conclude(self, context: Context, job: Job, log: LogTail) -> list[str]:
        """The step ids."""
        return [step_id for step_id, _ in job.facts["steps"]]


def _openlineage_parent(context: Context) -> Mapping[str, Any]:
    try:
        from airflow.providers.common.compat.openlineage.utils.spark import (
            inject_parent_job_information_into_spark_properties as parent_of,
        )
    except ImportError:
        log.warning(
            "OpenLineage's parent job is not added: this version of the common-compat provider cannot do it"
        )
        return {}
    properties: Mapping[str, Any] = parent_of({}, context)
    return properties
