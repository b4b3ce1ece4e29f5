"""The operator that runs an ECS task."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, cast

from ...aws.errors import redacted_text
from ...compat import AirflowSkipException
from ...core.job import Cause, LogTail, Phase
from ...core.overrides import NotCalled
from ...core.text import small_number
from ...errors import also, error_of
from ...parameters import (
    NOT_GIVEN,
    codes_of,
    is_open,
    is_templated,
    is_true,
    listed_codes,
    read_structures,
    reject,
    reject_hidden,
    require_codes,
    require_match,
    require_shapes,
)
from ...settings import ProviderDefault
from .._aws import AWS_NOT_CALLED, OTHER_ACCESS, AwsJobOperator, access_of
from .client import EXCEPTIONS, HOOK, EcsTasks
from .links import EcsTaskLink, EcsTaskLogsLink
from .read import CLUSTER, TASK_DEFINITION, cluster_name, log_stream, region_of_arn
from .request import SHAPES
from .service import SERVICE

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ...core.job import Job


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
"""Parameter of the operator to parameter of RunTask."""

_OWN_PARAMETER = {**{name: ours for ours, name in _REQUEST.items()}, "cluster": "cluster"}

_MORE_ARGUMENTS = ("enableECSManagedTags", "enableExecuteCommand", "referenceId")

_IGNORED = {
    "quota_retry": (
        None,
        "without capacity it submits again, infrastructure_retries times",
    ),
    "stop_task_on_failure": (
        True,
        "errors while waiting fail nothing; on_timeout sets what happens at the deadline",
    ),
}
"""Ignored parameters: default, and the behaviour instead."""


_LOG = "set awslogs_group, awslogs_stream_prefix, awslogs_region and container_name, or override job_log()"


class EcsRunTaskOperator(AwsJobOperator):
    """Run an ECS task once per try, and wait for it without a worker slot.

    A drop-in for the amazon provider's operator of this name: it takes the same parameters, with the same
    meaning unless noted here, and returns and pushes the same values. See also `RemoteJobOperator`.

    :param task_definition: family, ``family:revision`` or ARN (templated).
    :param cluster: name or ARN of the cluster (templated).
    :param overrides: RunTask's ``overrides``; ``{}`` for none (templated). Never logged. This, and every
        other parameter that is a dict or a list, may be the text that a template renders: JSON, or a Python
        literal. Prefer templates inside of a dict: in the text of one, a rendered value with quotation marks
        may add entries.
    :param launch_type: ``EC2``, ``FARGATE`` or ``EXTERNAL``; left out when there is a
        `capacity_provider_strategy` (templated).
    :param capacity_provider_strategy: this and the parameters down to `network_configuration` are RunTask's
        of the same name (templated).
    :param tags: ``{"key": "value"}`` (templated).
    :param awslogs_group: CloudWatch group of the container's log (templated). With `awslogs_stream_prefix`,
        the log is forwarded to the task instance's log while it is deferred.
    :param awslogs_region: region of that group; default that of the ECS task (templated).
    :param awslogs_stream_prefix: as in the task definition (templated).
    :param awslogs_fetch_interval: time between two reads of the log, a ``timedelta`` or seconds, at least 1
        (templated).
    :param container_name: the container whose log is forwarded; default the one that `awslogs_stream_prefix`
        names, else the first one of the task definition that writes there (templated).
    :param number_logs_exception: how many of the last lines of the log an error shows (templated).
    :param wait_for_completion: ``False``: return as soon as the ECS task is submitted (templated).
    :param skip_on_exit_code: exit code, or a container of them, for which the task instance is skipped.
    :param run_task_kwargs: further parameters of RunTask, such as ``{"enableExecuteCommand": True}``
        (templated).
    :param quota_retry: this, `reattach`, `waiter_max_attempts` and `stop_task_on_failure` are accepted and
        ignored; a warning describes the behaviour instead.
    :param kwargs: those of `AwsJobOperator`, of `RemoteJobOperator` and of every operator.
    :return: the last line of the log, if it is forwarded and ``do_xcom_push`` is on. XCom ``ecs_task_arn``:
        the ARN.
    :raises InvalidParameter: a parameter is wrong.
    """

    ui_color = "#f0ede4"
    hook_class = HOOK
    not_called: ClassVar[Mapping[str, NotCalled]] = {
        **AWS_NOT_CALLED,
        "client": OTHER_ACCESS,
        "_start_task": NotCalled(
            "set the parameters, such as overrides, in execute() before super().execute(context); what "
            "happens after the start belongs into submitted()",
            refused=True,
        ),
        "_check_success_task": NotCalled(
            "decide about an ended task in conclude() and failure(), or after super().execute(context)",
            refused=True,
        ),
        "_wait_for_task_ended": NotCalled(
            "set waiter_delay; what happens at the end belongs into conclude()"
        ),
        "_try_reattach_task": NotCalled("leave it out: every retry finds the task of the try before"),
        "_after_execution": NotCalled("override conclude() and failure(), or use execute()", refused=True),
        "_aws_logs_enabled": NotCalled(_LOG),
        "_get_logs_stream_name": NotCalled(_LOG),
        "_get_task_log_fetcher": NotCalled(_LOG),
        "resolve_awslogs_region": NotCalled(_LOG),
        "_get_ecs_task_id": NotCalled("the end of self.arn is the id"),
        "_complete_exec_with_cluster_desc": NotCalled("override conclude()"),
    }
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

    def __init__(  # noqa: PLR0913 - the provider's parameters
        self,
        *,
        task_definition: str = NOT_GIVEN,
        cluster: str = NOT_GIVEN,
        overrides: dict[str, Any] | None = cast("Any", NOT_GIVEN),  # noqa: B008 - no call
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
        waiter_delay: float = ProviderDefault(SERVICE.poll_interval),
        waiter_max_attempts: int = 1000000,
        skip_on_exit_code: int | Container[int] | None = None,
        stop_task_on_failure: bool = True,
        run_task_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            wait_for_completion=wait_for_completion,
            waiter_delay=waiter_delay,
            waiter_max_attempts=waiter_max_attempts,
            **kwargs,
        )
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
        self.skip_on_exit_code = listed_codes(skip_on_exit_code)
        self.stop_task_on_failure = stop_task_on_failure
        self.run_task_kwargs = run_task_kwargs
        self._check(rendered=False)
        self._warn_ignored(1000000, **_IGNORED)
        if self.job_log() is None:  # links of a subclass stay
            links = self.operator_extra_links
            self.operator_extra_links = tuple(each for each in links if not isinstance(each, EcsTaskLogsLink))

    @property
    def arn(self) -> str | None:
        """The ARN of this try's ECS task; ``None`` while there is none. Assigned, it changes nothing else."""
        if self._arn is not None:
            return self._arn
        job = self.current_job()
        return None if job is None else job.id

    @arn.setter
    def arn(self, arn: str | None) -> None:
        """Show another value to code that reads it."""
        self._arn = arn

    _arn: str | None = None
    task_log_fetcher: Any = None
    """The provider's thread that reads the log: there is none here. For an ``on_kill`` that asks for it."""

    # --- for the base class ---

    def remote_jobs(self, context: Context) -> EcsTasks:
        """ECS, with the request."""
        # Again: templates are values now. What `execute` has filled in on another object is not here.
        self._check(rendered=self._first_visit)
        self.wait_for_completion = is_true(self.wait_for_completion) or is_true(self.deferrable)
        self.log_interval = max(1.0, _seconds_of(self.awslogs_fetch_interval) or 30.0)
        self.log_lines = int(self.number_logs_exception)
        return EcsTasks(
            **access_of(self),
            cluster=self.cluster,
            request=self._request(),
        )

    def submitted(self, context: Context, job: Job) -> None:
        """Push the ARN and the parameters of the links."""
        if self.do_xcom_push:
            context["ti"].xcom_push(key="ecs_task_arn", value=job.id)
        region = region_of_arn(job.id, self.region_name)
        EcsTaskLink.persist(
            context, region_name=region, cluster=cluster_name(job, self.cluster), task_id=job.id
        )
        where = self.job_log()
        stream = self._log_stream(context, job, where) if where else None
        if where and stream:
            EcsTaskLogsLink.persist(
                context, region_name=where["region"] or region, group=where["group"], stream=stream
            )

    def conclude(self, context: Context, job: Job, log: LogTail) -> str | None:
        """Return the last line of the log, if it is forwarded."""
        return None if job.live or not self.do_xcom_push else log.last_line

    def failure(self, context: Context, job: Job, log: LogTail) -> Exception:
        """The error with the end of the log, or a skip for one of the codes of `skip_on_exit_code`."""
        error = error_of(job, LogTail(log.lines[-self.log_lines :] if self.log_lines > 0 else ()))
        by_itself = job.phase is Phase.FAILED and job.cause is Cause.APPLICATION
        if by_itself and job.exit_code is not None and job.exit_code in codes_of(self.skip_on_exit_code):
            return AirflowSkipException(f"skip_on_exit_code names exit code {job.exit_code}. {error}")
        if job.facts.get("stop_code") == "TaskFailedToStart":
            return also(error, f"{EXCEPTIONS}:EcsTaskFailToStart", message=str(error))
        return error

    def job_log(self) -> dict[str, Any] | None:
        """Where the log is, if `awslogs_group` and `awslogs_stream_prefix` are set."""
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
        """RunTask's keywords: the same for every visit of a try, because the client token requires it."""
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

    def _tasks(self, context: Context) -> EcsTasks:
        return cast("EcsTasks", self._jobs(context))

    def _log_stream(self, context: Context, job: Job, where: Mapping[str, Any]) -> str | None:
        """Name of the log stream, for a link; an error is only logged."""
        try:
            return log_stream(job, where) or self._tasks(context).log_stream(job, where)
        except Exception as error:  # noqa: BLE001 - a link never changes the result
            self.log.warning("the link to the job's log is left out: %s", redacted_text(error))
            return None

    def _check(self, *, rendered: bool) -> None:
        """Check the parameters; templates and empty values are checked after rendering.

        :raises InvalidParameter: with the task, the parameter and what to write.
        """
        wanted = "family, family:revision or ARN, such as task_definition='nightly:7'"
        require_match(
            self, "task_definition", self.task_definition, TASK_DEFINITION, wanted, rendered=rendered
        )
        wanted = "the name or the ARN of a cluster, such as cluster='etl'"
        require_match(self, "cluster", self.cluster, CLUSTER, wanted, rendered=rendered)
        optional = dict.fromkeys(set(SHAPES) - {"overrides"})
        read_structures(self, SHAPES, optional, rendered=rendered)
        require_shapes(self, SHAPES, rendered=rendered)
        if not is_templated(self.number_logs_exception) and small_number(self.number_logs_exception, -1) < 0:
            reject(self, "number_logs_exception", self.number_logs_exception, "a whole number, 0 or more")
        if not is_templated(self.awslogs_fetch_interval) and _seconds_of(self.awslogs_fetch_interval) is None:
            reject(self, "awslogs_fetch_interval", self.awslogs_fetch_interval, "a timedelta, or seconds")
        require_codes(self, "skip_on_exit_code", self.skip_on_exit_code)
        self._check_run_task_kwargs(rendered=rendered)

    def _check_run_task_kwargs(self, *, rendered: bool) -> None:
        further = self.run_task_kwargs
        if further is None or is_open(further, rendered=rendered):
            return
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
            if name not in (*_MORE_ARGUMENTS, "count") and name not in _run_task_arguments():
                reject_hidden(
                    self,
                    parameter,
                    value,
                    f"a parameter that RunTask has, such as {' or '.join(_MORE_ARGUMENTS)}",
                )


@cache
def _run_task_arguments() -> Container[str]:
    """The parameters that the installed boto3 knows; loaded only for a name that this file does not know."""
    from botocore.session import get_session

    shape: Any = get_session().get_service_model("ecs").operation_model("RunTask").input_shape
    return set(shape.members)


def _seconds_of(value: Any) -> float | None:
    """Seconds of a ``timedelta``, a number, or a number as text; ``None`` for anything else."""
    try:
        seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return float(seconds) if 0 <= seconds < math.inf else None
